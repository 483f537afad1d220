//! First and second moments: centroid, covariance, norms, and faults that show in them.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64;

use super::cosine::Histogram;
use crate::embeddings::Rows;
use crate::engine::{Engine, score};
use crate::error::Result;
use crate::stats::distribution::ks_sorted;
use crate::stats::linalg::Matrix;
use crate::stats::paired::{mean, quantile_sorted, standard_deviation};

/// Mean and covariance of a set.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Rows, n.
    pub rows: usize,
    /// Mean, d.
    pub mean: Vec<f64>,
    /// Covariance with divisor n − 1 (zero for one row), d × d.
    pub covariance: Matrix,
}

/// Moments of `x`, about its first row, so that a common offset costs no digits.
///
/// # Errors
/// The device fails.
pub fn moments(engine: &Engine, x: Rows<'_>) -> Result<Moments> {
    let pilot = x.row(0);
    let shifted: Vec<f32> = x
        .iter()
        .flat_map(|row| row.iter().zip(pilot).map(|(&v, &p)| v - p))
        .collect();
    let shifted = Rows::new(&shifted, x.dim());
    let gram = engine.gram(shifted, shifted)?;
    let (n, d) = (x.len() as f64, x.dim());
    let about: Vec<f64> = gram.x_sums.iter().map(|s| s / n).collect();
    let divisor = (n - 1.0).max(1.0);
    let covariance = (0..d * d)
        .map(|at| (gram.products[at] - n * about[at / d] * about[at % d]) / divisor)
        .collect();
    // The mean itself from the unshifted rows: v − p was rounded.
    let mean = (0..d)
        .map(|c| x.iter().map(|row| f64::from(row[c])).sum::<f64>() / n)
        .collect();
    Ok(Moments {
        rows: x.len(),
        mean,
        covariance: Matrix::new(d, d, covariance),
    })
}

/// Distance of the means.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CentroidShift {
    /// ‖μ_current − μ_reference‖.
    pub l2: f64,
    /// Cosine of the means; absent where one is 0. Near 1 for any anisotropic space: no gate.
    pub cosine: Option<f64>,
    /// ‖Δμ‖² − tr Σx/n − tr Σy/m: unbiased, so it may be negative (the linear-kernel MMD²).
    pub sq_l2_unbiased: f64,
    /// `sq_l2_unbiased` over the mean total variance of the sets; absent where that is 0.
    pub eta2: Option<f64>,
}

/// Distance of two sets' means.
pub fn centroid_shift(x: &Moments, y: &Moments) -> CentroidShift {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let difference: Vec<f64> = x.mean.iter().zip(&y.mean).map(|(a, b)| b - a).collect();
    let sq = dot(&difference, &difference);
    let unbiased = sq - x.covariance.trace() / x.rows as f64 - y.covariance.trace() / y.rows as f64;
    let lengths = (dot(&x.mean, &x.mean) * dot(&y.mean, &y.mean)).sqrt();
    let spread = (x.covariance.trace() + y.covariance.trace()) / 2.0;
    CentroidShift {
        l2: sq.sqrt(),
        cosine: (lengths > 0.0).then(|| dot(&x.mean, &y.mean) / lengths),
        sq_l2_unbiased: unbiased,
        eta2: (spread > 0.0).then(|| unbiased / spread),
    }
}

/// Lengths of a set's vectors.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Norms {
    /// Mean.
    pub mean: f64,
    /// Standard deviation (divisor n − 1); absent for one row.
    pub std: Option<f64>,
    /// Smallest.
    pub min: f64,
    /// Median.
    pub median: f64,
    /// Largest.
    pub max: f64,
    /// Rows whose log norm is more than 8 scaled median absolute deviations from the median.
    pub outliers: u64,
    /// Counts from the smallest to the largest.
    pub histogram: Histogram,
}

/// ‖x‖ of every row, ascending.
pub fn sorted_norms(x: Rows<'_>) -> Vec<f64> {
    let mut norms: Vec<f64> = x.iter().map(score::norm).collect();
    norms.sort_by(f64::total_cmp);
    norms
}

/// Sums up the lengths of a set's vectors.
pub fn norms(x: Rows<'_>) -> Norms {
    let sorted = sorted_norms(x);
    let logs: Vec<f64> = sorted.iter().map(|v| v.ln()).collect();
    let center = quantile_sorted(&logs, 0.5);
    let mut deviations: Vec<f64> = logs.iter().map(|v| (v - center).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    // Normalised rows differ by rounding only, which makes no outlier.
    let scale = (1.4826 * quantile_sorted(&deviations, 0.5)).max(1e-4);
    Norms {
        mean: mean(&sorted),
        std: standard_deviation(&sorted),
        min: sorted[0],
        median: quantile_sorted(&sorted, 0.5),
        max: sorted[sorted.len() - 1],
        outliers: deviations.iter().filter(|&&d| d > 8.0 * scale).count() as u64,
        histogram: Histogram::of(&sorted, 60),
    }
}

/// Kolmogorov–Smirnov statistic between two sets' vector lengths.
pub fn norm_ks(x: Rows<'_>, y: Rows<'_>) -> f64 {
    ks_sorted(&sorted_norms(x), &sorted_norms(y))
}

/// Coordinates whose value is the same in every row; none for a single row.
pub fn constant_dimensions(x: Rows<'_>) -> Vec<usize> {
    if x.len() < 2 {
        return Vec::new();
    }
    let first = x.row(0);
    let mut constant: Vec<bool> = vec![true; x.dim()];
    for row in x.iter() {
        for ((c, &v), &f) in constant.iter_mut().zip(row).zip(first) {
            *c &= v == f;
        }
    }
    (0..x.dim()).filter(|&c| constant[c]).collect()
}

/// Rows equal to an earlier one, value by value.
pub fn duplicate_rows(x: Rows<'_>) -> u64 {
    // A 64-bit hash proposes, the values decide.
    let mut seen: HashMap<u64, Vec<u32>> = HashMap::with_capacity(x.len());
    let mut duplicates = 0;
    for (i, row) in x.iter().enumerate() {
        let same_hash = seen.entry(xxh3_64(bytemuck::cast_slice(row))).or_default();
        if same_hash.iter().any(|&j| x.row(j as usize) == row) {
            duplicates += 1;
        } else {
            same_hash.push(i as u32);
        }
    }
    duplicates
}
