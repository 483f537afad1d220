//! The kernels' scale, from distances within the pooled sample.

use rayon::prelude::*;

use super::Sample;
use super::blocks::{Grouped, hash};
use crate::embeddings::Rows;
use crate::engine::{KernelFamily, pair_sq_distances};
use crate::error::Result;
use crate::stats::distribution::median;

/// Rows that the median is taken over: its relative error is then 0.3 %, and 1 % would not matter.
/// (Twice as many gain little, 0.27 %, and take four times as long.)
pub(super) const SAMPLED_ROWS: usize = 1_000;

/// RBF kernels of the family.
const RBF: usize = 5;

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
    /// Draws about `sampled` rows by the hash of their id, from X and Y alike: which rows are drawn does not depend on
    /// which sample they are in, so the permutation test stays exact.
    ///
    /// # Errors
    /// As [`pair_sq_distances`].
    pub(super) fn new(
        x: &Grouped,
        y: &Grouped,
        samples: [Sample<'_>; 2],
        sampled: usize,
        seed: u64,
    ) -> Result<Self> {
        let mut pool: Vec<(u64, &str, usize, u32)> = Vec::new();
        for (side, (grouped, sample)) in [x, y].into_iter().zip(samples).enumerate() {
            pool.extend(grouped.rows().iter().map(|&row| {
                let id = sample.ids.get(row as usize);
                (hash(id, seed), id, side, row)
            }));
        }
        pool.par_sort_unstable();
        let every_row = pool.len() <= sampled;
        let row_at = |&(_, _, side, row): &(u64, &str, usize, u32)| {
            let rows: Rows<'_> = samples[side].rows;
            rows.row(row as usize)
        };
        // Both rows of an id or neither.
        let mut drawn = pool.len().min(sampled);
        while drawn < pool.len() && pool[drawn].1 == pool[drawn - 1].1 {
            drawn += 1;
        }
        let values: Vec<_> = pool[..drawn].iter().map(row_at).collect();
        let values: Vec<&[f32]> = values.iter().map(|row| &**row).collect();
        let squares = pair_sq_distances(&values)?;
        let to_first: Vec<f64> = if squares.iter().any(|&square| square > 0.0) {
            Vec::new()
        } else {
            pool.par_iter()
                .map(|row| sq_distance(&row_at(row), values[0]).sqrt())
                .collect()
        };
        Ok(Self {
            mean_to_first: to_first.iter().sum::<f64>() / to_first.len().max(1) as f64,
            squares,
            rows: drawn,
            every_row,
        })
    }

    /// σ and the rule that gave it; `None` where all rows of both samples are equal.
    pub(super) fn bandwidth(&self) -> Option<(f64, String)> {
        let over = if self.every_row {
            "all pooled pairs".to_owned()
        } else {
            format!("pooled pairs ({} rows drawn by hash)", self.rows)
        };
        let median = median(&self.squares).sqrt();
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
            rbf: RBF,
            energy: true,
            offsets: Vec::new(),
        };
        // Constants near the means will do, so one exponential serves all.
        const PART: usize = 1 << 16;
        let sums: Vec<[f64; RBF + 1]> = self
            .squares
            .par_chunks(PART)
            .map(|part| {
                let mut sums = [0.0; RBF + 1];
                for &square in part {
                    let mut value = family.value(0, square);
                    for sum in &mut sums[..RBF] {
                        *sum += value;
                        value *= value;
                    }
                    sums[RBF] += family.value(RBF, square);
                }
                sums
            })
            .collect();
        family.offsets = (0..family.len())
            .map(|j| {
                let sum: f64 = sums.iter().map(|sums| sums[j]).sum();
                (sum / self.squares.len() as f64) as f32
            })
            .collect();
        family
    }
}
