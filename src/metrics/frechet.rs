//! Fréchet distance: how far apart two sets are as Gaussians.

use schemars::JsonSchema;
use serde::Serialize;

use super::moments::Moments;
use crate::error::Result;
use crate::stats::linalg::{Matrix, SymmetricEigen};

/// Rows per dimension below which the estimate is mostly bias.
const ROWS_PER_DIMENSION: usize = 20;

/// Squared Fréchet (2-Wasserstein) distance of the Gaussians with two sets' means and covariances.
///
/// Larger is more drift; 0 or more. The plain value grows as the number of rows falls, so values at
/// different numbers of rows do not compare.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Frechet {
    /// ‖Δμ‖² + tr(S₁ + S₂ − 2 (S₁^½ S₂ S₁^½)^½), covariances with n − 1.
    pub frechet_distance: f64,
    /// ‖Δμ‖².
    pub mean_term: f64,
    /// The trace.
    pub covariance_term: f64,
    /// What the distance would be on average without any drift, for independent rows of a Gaussian with
    /// the pooled covariance: (1/n + 1/m) (1.25 Σλᵢ + 0.5 Σᵢⱼ λᵢλⱼ/(λᵢ + λⱼ)). Where both sides hold the
    /// same items their sampling errors cancel, and the bias is between 0 and this.
    pub null_bias: f64,
    /// frechet_distance − null_bias; may be negative, above all where both sides hold the same items.
    pub frechet_distance_debiased: f64,
    /// Rows of the reference, n.
    pub n_reference: usize,
    /// Rows of the current set, m.
    pub n_current: usize,
    /// Whether a side has fewer than 20 rows per dimension, where the distance is mostly bias.
    pub too_few_rows: bool,
}

/// Fréchet distance of two sets in one coordinate system.
///
/// Negative eigenvalues, which only rounding can cause, count as 0: covariances may be singular. `None`
/// where a side has fewer than two rows.
///
/// # Errors
/// Eigenvalues do not converge.
///
/// # Panics
/// If the dimensions differ.
///
/// # Source
/// Dowson & Landau (1982); Heusel et al. (2017). Bias: second-order expansion for Gaussians; golden values
/// in fixtures/golden/frechet.json.
pub fn frechet(reference: &Moments, current: &Moments) -> Result<Option<Frechet>> {
    assert_eq!(reference.dim(), current.dim());
    let (Some(x), Some(y)) = (reference.covariance(), current.covariance()) else {
        return Ok(None);
    };
    let means = reference.mean.iter().zip(&current.mean);
    let mean_term: f64 = means.map(|(a, b)| (a - b).powi(2)).sum();
    let covariance_term = covariance_term(&x, &y)?;
    let (n, m) = (reference.rows, current.rows);
    let mut pooled = reference.scatter.clone();
    pooled.add_scaled(1.0, &current.scatter);
    let pooled = pooled.scaled(1.0 / (n + m - 2) as f64);
    let null_bias = null_bias(&pooled.symmetric_eigenvalues()?, n, m);
    let frechet_distance = mean_term + covariance_term;
    Ok(Some(Frechet {
        frechet_distance,
        mean_term,
        covariance_term,
        null_bias,
        frechet_distance_debiased: frechet_distance - null_bias,
        n_reference: n,
        n_current: m,
        too_few_rows: n.min(m) < ROWS_PER_DIMENSION * reference.dim(),
    }))
}

/// tr(X + Y − 2 (X^½ Y X^½)^½) of two covariances.
fn covariance_term(x: &Matrix, y: &Matrix) -> Result<f64> {
    // With X = V Λ Vᵀ, X^½ Y X^½ has the eigenvalues of Λ^½ (Vᵀ Y V) Λ^½: one product fewer.
    let SymmetricEigen { values, vectors } = x.symmetric_eigen()?;
    let roots: Vec<f64> = values.iter().map(|v| v.max(0.0).sqrt()).collect();
    let mut inner = vectors.transpose_times(&y.times(&vectors));
    for (row, a) in inner.values_mut().chunks_exact_mut(roots.len()).zip(&roots) {
        for (value, b) in row.iter_mut().zip(&roots) {
            *value *= a * b;
        }
    }
    let overlap: f64 = inner
        .symmetric_eigenvalues()?
        .iter()
        .map(|v| v.max(0.0).sqrt())
        .sum();
    Ok((x.trace() + y.trace() - 2.0 * overlap).max(0.0))
}

/// Expected distance of two samples of n and m rows from one Gaussian whose covariance has these
/// eigenvalues.
fn null_bias(eigenvalues: &[f64], n: usize, m: usize) -> f64 {
    let positive = || eigenvalues.iter().map(|v| v.max(0.0));
    let mut harmonic = 0.0;
    for a in positive() {
        for b in positive() {
            if a + b > 0.0 {
                harmonic += a * b / (a + b);
            }
        }
    }
    (1.0 / n as f64 + 1.0 / m as f64) * (1.25 * positive().sum::<f64>() + 0.5 * harmonic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::moments::tests::{assert_golden, golden, matrix, moments};

    #[test]
    fn golden_distance() {
        let golden = golden("frechet");
        let (x, y) = (
            moments(&matrix(&golden["X"])),
            moments(&matrix(&golden["Y"])),
        );
        for found in [frechet(&x, &y), frechet(&y, &x)] {
            let found = found.unwrap().unwrap();
            assert_golden(found.frechet_distance, &golden["frechet"]);
            assert_golden(found.mean_term, &golden["mean_part"]);
            assert_golden(found.covariance_term, &golden["cov_part"]);
            assert!(found.too_few_rows);
        }
    }

    #[test]
    fn golden_null_bias() {
        let golden = &golden("frechet")["null_bias_gaussian"];
        assert_golden(null_bias(&[0.5, 0.3, 0.2], 100, 200), &golden["value"]);
        assert_eq!(null_bias(&[0.0, -1e-20], 10, 10), 0.0);
    }
}
