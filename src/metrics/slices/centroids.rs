//! How far the means of slices moved.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::SlicedSets;
use super::items::Units;
use crate::engine::score;
use crate::metrics::mmd::{Decomposition, Sample, decompose};

/// Distance of a slice's two means.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SliceCentroids {
    /// ‖μ_current − μ_reference‖ of the rows as stored.
    pub l2: f64,
    /// What chance alone would make of it: the root of its mean square if both sides had one mean.
    pub l2_by_chance: Option<f64>,
}

/// Columns that one task sums up.
const STRIPE: usize = 64;

/// Per slice the distance of its means, and what mix and content make of the distance of all.
pub(super) fn compare(
    sets: &SlicedSets<'_>,
    units: &Units,
    reference: &[u32],
    current: &[u32],
    slices: usize,
) -> (Vec<Option<SliceCentroids>>, Decomposition) {
    let s = slices + 1;
    let x = SideMoments::new(sets.reference, &units.order[0], reference, s);
    let y = SideMoments::new(sets.current, &units.order[1], current, s);
    // Pairs that stand in one slice on both sides move together.
    let mut products: Vec<Vec<f64>> = vec![Vec::new(); s];
    for &(a, b) in sets.shared {
        let slice = reference[a as usize];
        if slice == current[b as usize] {
            let rows = (
                sets.reference.rows.row(a as usize),
                sets.current.rows.row(b as usize),
            );
            products[slice as usize].push(score::dot(&rows.0, &rows.1));
        }
    }
    let distances = (0..slices)
        .map(|slice| {
            let (n, m) = (x.rows[slice], y.rows[slice]);
            if n == 0.0 || m == 0.0 {
                return None;
            }
            let (mu, nu) = (x.mean(slice), y.mean(slice));
            let square: f64 = mu.iter().zip(&nu).map(|(a, b)| (b - a).powi(2)).sum();
            let product: f64 = mu.iter().zip(&nu).map(|(a, b)| a * b).sum();
            // By value, so that sums do not depend on the order of the rows.
            let own = &mut products[slice];
            own.sort_unstable_by(f64::total_cmp);
            let pairs = own.len() as f64;
            let together = own.iter().sum::<f64>() - pairs * product;
            let chance = x.mean_error(slice) + y.mean_error(slice) - 2.0 * together / (n * m);
            Some(SliceCentroids {
                l2: square.sqrt(),
                l2_by_chance: (n > 1.0 && m > 1.0).then(|| chance.max(0.0).sqrt()),
            })
        })
        .collect();
    (distances, decomposition(&x, &y, s))
}

fn decomposition(x: &SideMoments, y: &SideMoments, s: usize) -> Decomposition {
    let means: Vec<Vec<f64>> = (0..2 * s)
        .into_par_iter()
        .map(|at| if at < s { x.mean(at) } else { y.mean(at - s) })
        .collect();
    let centre: Vec<f64> = {
        let total: f64 = x.rows.iter().sum();
        let share = |slice: usize| x.rows[slice] / total;
        (0..means[0].len())
            .map(|d| (0..s).map(|slice| share(slice) * means[slice][d]).sum())
            .collect()
    };
    // About the reference's mean: no distance changes, and fewer digits are lost.
    let means: Vec<Vec<f64>> = means
        .into_iter()
        .map(|mean| mean.iter().zip(&centre).map(|(v, c)| v - c).collect())
        .collect();
    let kernel: Vec<f64> = (0..2 * s)
        .into_par_iter()
        .flat_map_iter(|a| {
            let means = &means;
            (0..2 * s).map(move |b| means[a].iter().zip(&means[b]).map(|(u, v)| u * v).sum())
        })
        .collect();
    let shares = [x, y].map(|side| -> Vec<f64> {
        let total: f64 = side.rows.iter().sum();
        side.rows.iter().map(|rows| rows / total).collect()
    });
    decompose(&kernel, &shares[0], &shares[1])
}

/// Sums over the rows of every slice of one side.
struct SideMoments {
    rows: Vec<f64>,
    /// Σ x, slice after slice.
    sums: Vec<f64>,
    /// Σ ‖x‖².
    squares: Vec<f64>,
    dim: usize,
}

impl SideMoments {
    /// Sums in the given order of rows.
    fn new(sample: Sample<'_>, order: &[u32], labels: &[u32], slices: usize) -> Self {
        let dim = sample.rows.dim();
        let mut moments = Self {
            rows: vec![0.0; slices],
            sums: vec![0.0; slices * dim],
            squares: vec![0.0; slices],
            dim,
        };
        let squares: Vec<f64> = order
            .par_iter()
            .map(|&row| {
                let values = sample.rows.row(row as usize);
                score::dot(&values, &values)
            })
            .collect();
        for (&row, square) in order.iter().zip(squares) {
            let slice = labels[row as usize] as usize;
            moments.rows[slice] += 1.0;
            moments.squares[slice] += square;
        }
        let stripes: Vec<Vec<f64>> = (0..dim.div_ceil(STRIPE))
            .into_par_iter()
            .map(|stripe| {
                let columns = stripe * STRIPE..((stripe + 1) * STRIPE).min(dim);
                let mut sums = vec![0.0; slices * columns.len()];
                for &row in order {
                    let at = labels[row as usize] as usize * columns.len();
                    let values = &sample.rows.row(row as usize)[columns.clone()];
                    for (sum, &value) in sums[at..at + columns.len()].iter_mut().zip(values) {
                        *sum += f64::from(value);
                    }
                }
                sums
            })
            .collect();
        for (stripe, sums) in stripes.iter().enumerate() {
            let width = sums.len() / slices;
            for slice in 0..slices {
                let to = slice * dim + stripe * STRIPE;
                moments.sums[to..to + width]
                    .copy_from_slice(&sums[slice * width..(slice + 1) * width]);
            }
        }
        moments
    }

    fn mean(&self, slice: usize) -> Vec<f64> {
        let sums = &self.sums[slice * self.dim..(slice + 1) * self.dim];
        let n = self.rows[slice].max(1.0);
        sums.iter().map(|sum| sum / n).collect()
    }

    /// Trace of the covariance over n: the mean squared error of the mean.
    fn mean_error(&self, slice: usize) -> f64 {
        let n = self.rows[slice];
        let sq_mean: f64 = self.mean(slice).iter().map(|v| v * v).sum();
        (self.squares[slice] / n - sq_mean).max(0.0) / (n - 1.0).max(1.0)
    }
}
