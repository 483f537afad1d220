//! Fréchet distance of two sets, as if both were Gaussian.

use schemars::JsonSchema;
use serde::Serialize;

use super::moments::Moments;
use crate::error::Result;
use crate::stats::linalg::{Matrix, symmetric_eigen};

/// Fréchet distance with its finite-sample bias.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Frechet {
    /// |μx − μy|² + tr(Σx + Σy − 2(Σx^½ Σy Σx^½)^½), covariances with divisor n − 1. In squared units of
    /// the vectors; never negative. Biased upwards: never compare it between different n.
    pub distance: f64,
    /// |μx − μy|².
    pub mean_term: f64,
    /// The rest.
    pub covariance_term: f64,
    /// What two samples of this size from one Gaussian would give on average:
    /// (1/n + 1/m)(1.25·tr Σ + ½ Σᵢⱼ λᵢλⱼ/(λᵢ + λⱼ)), Σ the mean covariance.
    pub null_bias: f64,
    /// `distance` − `null_bias`.
    pub distance_debiased: f64,
    /// Whether both sets have at least 20 rows per dimension, below which the bias dominates.
    pub enough_rows: bool,
}

/// Fréchet distance (Dowson & Landau 1982) from moments. Eigenvalues below 0 are rounding and count as 0.
///
/// # Errors
/// An eigendecomposition does not converge.
pub fn frechet(x: &Moments, y: &Moments) -> Result<Frechet> {
    let mean_term: f64 = x
        .mean
        .iter()
        .zip(&y.mean)
        .map(|(a, b)| (a - b) * (a - b))
        .sum();
    let root = square_root(&x.covariance)?;
    let middle = root.times(&y.covariance).times(&root);
    let overlap: f64 = symmetric_eigen(&middle)?
        .values
        .iter()
        .map(|&l| l.max(0.0).sqrt())
        .sum();
    let covariance_term = (x.covariance.trace() + y.covariance.trace() - 2.0 * overlap).max(0.0);
    let d = x.mean.len();
    let pooled: Vec<f64> = x
        .covariance
        .values()
        .iter()
        .zip(y.covariance.values())
        .map(|(a, b)| (a + b) / 2.0)
        .collect();
    let eigenvalues = symmetric_eigen(&Matrix::new(d, d, pooled))?.values;
    let null_bias = null_bias(&eigenvalues, x.rows, y.rows);
    let distance = mean_term + covariance_term;
    Ok(Frechet {
        distance,
        mean_term,
        covariance_term,
        null_bias,
        distance_debiased: distance - null_bias,
        enough_rows: x.rows.min(y.rows) >= 20 * d,
    })
}

/// Expectation of the distance between samples of n and m rows of one Gaussian with these covariance
/// eigenvalues, to first order.
pub fn null_bias(eigenvalues: &[f64], n: usize, m: usize) -> f64 {
    let positive: Vec<f64> = eigenvalues.iter().map(|&l| l.max(0.0)).collect();
    let trace: f64 = positive.iter().sum();
    let mut cross = 0.0;
    for &a in &positive {
        for &b in &positive {
            if a + b > 0.0 {
                cross += a * b / (a + b);
            }
        }
    }
    (1.0 / n as f64 + 1.0 / m as f64) * (1.25 * trace + 0.5 * cross)
}

/// The symmetric square root of a positive semidefinite matrix.
fn square_root(matrix: &Matrix) -> Result<Matrix> {
    let eigen = symmetric_eigen(matrix)?;
    let d = matrix.rows();
    let roots: Vec<f64> = eigen.values.iter().map(|&l| l.max(0.0).sqrt()).collect();
    let scaled: Vec<f64> = (0..d * d)
        .map(|at| eigen.vectors.values()[at] * roots[at % d])
        .collect();
    Ok(Matrix::new(d, d, scaled).times(&eigen.vectors.transposed()))
}
