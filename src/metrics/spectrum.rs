//! Spectra: how many directions a set uses, and whether two sets use the same ones.

use schemars::JsonSchema;
use serde::Serialize;

use super::moments::{Moments, UnitMoments};
use crate::error::Result;
use crate::stats::linalg::{Matrix, SymmetricEigen};

/// Share of the variance that the principal subspace holds, and its largest dimension.
const SUBSPACE_ENERGY: f64 = 0.9;
const SUBSPACE_CAP: usize = 64;

/// Rows per dimension below which effective ranks come out too low.
const ROWS_PER_DIMENSION: usize = 10;

/// Spectrum of one set's covariance (n − 1), and of its directions. Invariant under rotation.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Spectrum {
    /// Rows, n.
    pub rows: usize,
    /// Dimension, d.
    pub dim: usize,
    /// Trace of the covariance; `null` for fewer than two rows.
    pub total_variance: Option<f64>,
    /// exp of the entropy of the eigenvalues' shares, in [1, d]. `null` without variance.
    pub effective_rank_eigenvalues: Option<f64>,
    /// exp of the entropy of the singular values' shares (square roots of the eigenvalues; Roy & Vetterli
    /// 2007), in [1, d]. `null` without variance.
    pub effective_rank_singular_values: Option<f64>,
    /// Whether there are at least 10 rows per dimension; with fewer, effective ranks are too low.
    pub enough_rows_for_effective_rank: bool,
    /// (Σλ)² / Σλ², in [1, d]. Too low when rows are few. `null` without variance.
    pub participation_ratio: Option<f64>,
    /// (Σλ)² over the unbiased estimate of Σλ² (HSIC₁): no such bias, but noisy, and may exceed d. `null`
    /// for fewer than four rows or where the estimate is not positive.
    pub participation_ratio_debiased: Option<f64>,
    /// Share of the variance along the first principal component, in [1/d, 1].
    pub first_component_variance_share: Option<f64>,
    /// Length of the mean of the unit rows, in [0, 1]: 0 when directions balance out, 1 when all agree.
    /// `null` without rows.
    pub mean_resultant_length: Option<f64>,
    /// Vendi score with cosine similarity: exp of the entropy of the eigenvalues of XᵀX/n over unit rows,
    /// an effective number of distinct directions in [1, min(n, d)]. `null` without rows.
    pub vendi_cosine: Option<f64>,
    /// Eigenvalues of the covariance, largest first, none negative.
    #[serde(skip)]
    pub eigenvalues: Vec<f64>,
    /// Principal components, column i to eigenvalue i; d × 0 without variance.
    #[serde(skip)]
    pub components: Matrix,
}

/// Spectrum from the moments of a set and of its unit rows.
///
/// # Errors
/// Eigenvalues do not converge.
///
/// # Source
/// Roy & Vetterli (2007) for effective rank; Friedman & Dieng (2023) for the Vendi score; Song et al. (2012)
/// for HSIC₁. Golden values: fixtures/golden/spectrum.json.
pub fn spectrum(moments: &Moments, unit: &UnitMoments) -> Result<Spectrum> {
    let (rows, dim) = (moments.rows, moments.dim());
    let (eigenvalues, components) = match moments.covariance() {
        Some(covariance) => {
            let SymmetricEigen { values, vectors } = covariance.symmetric_eigen()?;
            (values.iter().map(|v| v.max(0.0)).collect(), vectors)
        }
        None => (Vec::new(), Matrix::zeros(dim, 0)),
    };
    let sum: f64 = eigenvalues.iter().sum();
    let sum_squares: f64 = eigenvalues.iter().map(|v| v * v).sum();
    let varies = sum > 0.0 && sum_squares > 0.0;
    let roots: Vec<f64> = eigenvalues.iter().map(|v| v.sqrt()).collect();
    let vendi_cosine = match unit.0.second_moment() {
        Some(moment) => exp_entropy(&moment.symmetric_eigenvalues()?),
        None => None,
    };
    Ok(Spectrum {
        rows,
        dim,
        total_variance: moments.total_variance(),
        effective_rank_eigenvalues: exp_entropy(&eigenvalues),
        effective_rank_singular_values: exp_entropy(&roots),
        enough_rows_for_effective_rank: rows >= ROWS_PER_DIMENSION * dim,
        participation_ratio: varies.then(|| sum * sum / sum_squares),
        participation_ratio_debiased: moments
            .hsic()
            .and_then(|sq| (varies && sq > 0.0).then(|| sum * sum / sq)),
        first_component_variance_share: varies.then(|| eigenvalues[0] / sum),
        mean_resultant_length: (rows > 0).then(|| unit.0.sq_mean_norm().sqrt().min(1.0)),
        vendi_cosine,
        components: if varies {
            components
        } else {
            Matrix::zeros(dim, 0)
        },
        eigenvalues,
    })
}

/// exp of the entropy of shares proportional to `weights`; negative ones count as 0. `None` where all are.
fn exp_entropy(weights: &[f64]) -> Option<f64> {
    let positive = || weights.iter().copied().filter(|&w| w > 0.0);
    let sum: f64 = positive().sum();
    let entropy: f64 = positive().map(|w| -(w / sum) * (w / sum).ln()).sum();
    (sum > 0.0).then(|| entropy.exp())
}

/// How much two sets' principal subspaces coincide.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SubspaceSimilarity {
    /// Dimension r of both subspaces: enough for 90 % of the variance of either set, at most 64 and at
    /// most the rank of either covariance.
    pub rank: usize,
    /// Mean squared cosine of the principal angles, in [0, 1]; 1 when the subspaces are the same.
    pub mean_sq_cosine: f64,
    /// What two random subspaces of this dimension score on average: r/d.
    pub chance: f64,
}

/// Principal angles between the leading principal components of two sets in one coordinate system.
/// `None` where a set has no variance.
///
/// # Panics
/// If the dimensions differ.
pub fn subspace_similarity(reference: &Spectrum, current: &Spectrum) -> Option<SubspaceSimilarity> {
    assert_eq!(reference.dim, current.dim);
    // Beyond a set's own rank its components are arbitrary.
    let rank = rank_at_energy(reference)?
        .max(rank_at_energy(current)?)
        .min(numerical_rank(reference))
        .min(numerical_rank(current));
    let overlap = reference
        .components
        .leading_columns(rank)
        .transpose_times(&current.components.leading_columns(rank));
    // The sum of the squared singular values of the overlap is its squared Frobenius norm.
    Some(SubspaceSimilarity {
        rank,
        mean_sq_cosine: (overlap.sq_frobenius() / rank as f64).min(1.0),
        chance: rank as f64 / reference.dim as f64,
    })
}

/// Components that hold 90 % of the variance, at most 64. `None` without variance.
fn rank_at_energy(spectrum: &Spectrum) -> Option<usize> {
    if spectrum.components.columns() == 0 {
        return None;
    }
    let wanted = SUBSPACE_ENERGY * spectrum.eigenvalues.iter().sum::<f64>();
    let mut held = 0.0;
    let rank = spectrum.eigenvalues.iter().position(|value| {
        held += value;
        held >= wanted
    });
    Some(rank.map_or(spectrum.dim, |r| r + 1).min(SUBSPACE_CAP))
}

/// Eigenvalues that are more than rounding.
fn numerical_rank(spectrum: &Spectrum) -> usize {
    let largest = spectrum.eigenvalues.first().copied().unwrap_or(0.0);
    let noise = largest * spectrum.dim as f64 * f64::from(f32::EPSILON);
    let above = |&&value: &&f64| value > noise;
    spectrum.eigenvalues.iter().filter(above).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::moments::tests::{assert_golden, golden, matrix, moments};

    #[test]
    fn golden_spectrum() {
        let golden = golden("spectrum");
        let moments = moments(&matrix(&golden["X_unit"]));
        let found = spectrum(&moments, &UnitMoments(moments.clone())).unwrap();
        for (i, expected) in golden["cov_eigs_ddof1"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
        {
            assert_golden(found.eigenvalues[i], expected);
        }
        for (found, name) in [
            (found.effective_rank_eigenvalues, "effective_rank_eig"),
            (found.effective_rank_singular_values, "effective_rank_sv"),
            (found.participation_ratio, "participation_ratio_plugin"),
            (
                found.participation_ratio_debiased,
                "participation_ratio_debiased",
            ),
            (found.vendi_cosine, "vendi_cosine"),
            (found.mean_resultant_length, "isotropy_mean_resultant"),
            (moments.hsic(), "tr_cov_sq_debiased_HSIC1"),
        ] {
            assert_golden(found.unwrap(), &golden[name]);
        }
        let own = subspace_similarity(&found, &found).unwrap();
        assert!((own.mean_sq_cosine - 1.0).abs() < 1e-12);
        assert_eq!(own.rank, 3);
    }

    #[test]
    fn subspaces_at_right_angles_share_nothing() {
        let along = |axis: usize| {
            let mut x = Matrix::zeros(4, 2);
            for (i, value) in [-1.0, 1.0, 2.0, -2.0].into_iter().enumerate() {
                x.values_mut()[i * 2 + axis] = value;
            }
            let moments = moments(&x);
            spectrum(&moments, &UnitMoments(moments.clone())).unwrap()
        };
        let found = subspace_similarity(&along(0), &along(1)).unwrap();
        assert_eq!(
            (found.rank, found.mean_sq_cosine, found.chance),
            (1, 0.0, 0.5)
        );
    }
}
