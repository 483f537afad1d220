//! The kernels' scale, from distances within the pooled sample.

use rayon::prelude::*;

use super::Sample;
use super::blocks::{Grouped, hash};
use crate::engine::KernelFamily;

/// Rows that the median is taken over: its relative error is then 0.3 %, and 1 % would not matter.
const SAMPLED_ROWS: usize = 2_000;

/// ‖x − y‖², f64, of differences: exact to rounding also where x is close to y. Eight partial sums.
pub(super) fn sq_distance(x: &[f32], y: &[f32]) -> f64 {
    let mut sums = [0.0; 8];
    // Whole chunks compile to vector code.
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (x, y) in x.iter().zip(y) {
        for i in 0..8 {
            let off = f64::from(x[i]) - f64::from(y[i]);
            sums[i] += off * off;
        }
    }
    for (sum, (&a, &b)) in sums.iter_mut().zip(x_rest.iter().zip(y_rest)) {
        *sum += (f64::from(a) - f64::from(b)).powi(2);
    }
    sums.iter().sum()
}

/// Squared distances of all pairs of a few pooled rows.
pub(super) struct PooledDistances {
    /// Of the pairs i < j of the rows drawn.
    squares: Vec<f64>,
    /// Distances of the first row drawn to all rows, on average.
    mean_to_first: f64,
    rows: usize,
    every_row: bool,
}

impl PooledDistances {
    /// Draws rows by the hash of their id, from X and Y alike: which rows are drawn does not depend on
    /// which sample they are in, so the permutation test stays exact.
    pub(super) fn new(x: &Grouped, y: &Grouped, samples: [Sample<'_>; 2], seed: u64) -> Self {
        let mut pool: Vec<(u64, &str, usize, u32)> = Vec::new();
        for (side, (grouped, sample)) in [x, y].into_iter().zip(samples).enumerate() {
            pool.extend(grouped.rows().iter().map(|&row| {
                let id = sample.ids.get(row as usize);
                (hash(id, seed), id, side, row)
            }));
        }
        pool.par_sort_unstable();
        let every_row = pool.len() <= SAMPLED_ROWS;
        let all: Vec<&[f32]> = pool
            .iter()
            .map(|&(_, _, side, row)| samples[side].rows.row(row as usize))
            .collect();
        // Both rows of an id or neither.
        let mut drawn = pool.len().min(SAMPLED_ROWS);
        while drawn < pool.len() && pool[drawn].1 == pool[drawn - 1].1 {
            drawn += 1;
        }
        let rows = &all[..drawn];
        let squares: Vec<f64> = (0..rows.len())
            .into_par_iter()
            .flat_map_iter(|i| (i + 1..rows.len()).map(move |j| sq_distance(rows[i], rows[j])))
            .collect();
        let to_first: Vec<f64> = if squares.iter().any(|&square| square > 0.0) {
            Vec::new()
        } else {
            all.par_iter()
                .map(|row| sq_distance(row, all[0]).sqrt())
                .collect()
        };
        Self {
            mean_to_first: to_first.iter().sum::<f64>() / to_first.len().max(1) as f64,
            squares,
            rows: drawn,
            every_row,
        }
    }

    /// σ and the rule that gave it; `None` where all rows of both samples are equal.
    pub(super) fn bandwidth(&self) -> Option<(f64, String)> {
        let over = if self.every_row {
            "all pooled pairs".to_owned()
        } else {
            format!("pooled pairs ({} rows drawn by hash)", self.rows)
        };
        let median = median(&mut self.squares.clone()).sqrt();
        if median > 0.0 {
            return Some((median, format!("median distance over {over}")));
        }
        let mean = self.mean();
        if mean > 0.0 {
            return Some((
                mean,
                format!("mean distance over {over}, for the median is 0"),
            ));
        }
        (self.mean_to_first > 0.0).then(|| {
            (
                self.mean_to_first,
                format!("mean distance from one row to all, for {over} are equal"),
            )
        })
    }

    /// Mean distance of the rows drawn.
    pub(super) fn mean(&self) -> f64 {
        let distances = self.squares.iter().map(|square| square.sqrt());
        distances.sum::<f64>() / self.squares.len() as f64
    }

    /// The five RBF kernels around `bandwidth` and the energy kernel, centred on their means here.
    pub(super) fn kernels(&self, bandwidth: f64) -> KernelFamily {
        let mut family = KernelFamily {
            gamma: 0.5 / (bandwidth * bandwidth) / 4.0,
            rbf: 5,
            energy: true,
            offsets: Vec::new(),
        };
        family.offsets = (0..family.len())
            .into_par_iter()
            .map(|j| {
                let values = self.squares.iter().map(|&square| family.value(j, square));
                (values.sum::<f64>() / self.squares.len() as f64) as f32
            })
            .collect();
        family
    }
}

/// Median; of an even number of values the mean of the middle two. 0 of none.
pub(super) fn median(values: &mut [f64]) -> f64 {
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let (below, &mut upper, _) = values.select_nth_unstable_by(n / 2, f64::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = below.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (lower + upper) / 2.0
}
