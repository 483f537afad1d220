//! How a set fills its space: spectrum, effective rank, isotropy, diversity.

use schemars::JsonSchema;
use serde::Serialize;

use super::moments::Moments;
use crate::embeddings::Rows;
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::stats::linalg::{Matrix, symmetric_eigen};

/// The spectrum of a set's covariance, and what follows from it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Spectrum {
    /// Σ λ: trace of the covariance.
    pub total_variance: f64,
    /// exp of the entropy of λ/Σλ: how many directions carry the variance. Low unless n ≥ 10 d.
    pub effective_rank: Option<f64>,
    /// The same of √λ (Roy & Vetterli 2007).
    pub effective_rank_singular: Option<f64>,
    /// (Σλ)²/Σλ².
    pub participation_ratio: Option<f64>,
    /// λ₁/Σλ.
    pub first_component_share: Option<f64>,
    /// Length of the mean of unit vectors: 0 isotropic, 1 all in one direction.
    pub mean_resultant_length: f64,
    /// exp of the entropy of the eigenvalues of X̂ᵀX̂/n for unit rows X̂ (Vendi score, cosine kernel):
    /// the effective number of distinct items.
    pub vendi: f64,
    /// λ/Σλ, largest first, the first 64.
    pub leading_shares: Vec<f64>,
}

/// exp(−Σ p ln p) of non-negative weights; `None` if all are 0.
fn exp_entropy(weights: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let total: f64 = weights.clone().sum();
    (total > 0.0).then(|| {
        weights
            .map(|w| w / total)
            .filter(|&p| p > 0.0)
            .map(|p| -p * p.ln())
            .sum::<f64>()
            .exp()
    })
}

/// Spectrum of `x`, whose moments are known.
///
/// # Errors
/// The device fails or an eigendecomposition does not converge.
pub fn spectrum(engine: &Engine, x: Rows<'_>, moments: &Moments) -> Result<Spectrum> {
    let eigenvalues: Vec<f64> = symmetric_eigen(&moments.covariance)?
        .values
        .iter()
        .map(|&l| l.max(0.0))
        .collect();
    let total: f64 = eigenvalues.iter().sum();
    let squares: f64 = eigenvalues.iter().map(|l| l * l).sum();
    let share = |value: f64| (total > 0.0).then(|| value / total);

    let (n, d) = (x.len() as f64, x.dim());
    let unit = score::prepare(Metric::Cosine, x, 0);
    let unit = Rows::new(&unit, d);
    let gram = engine.gram(unit, unit)?;
    let second = gram.products.iter().map(|v| v / n).collect();
    let weights = symmetric_eigen(&Matrix::new(d, d, second))?.values;
    Ok(Spectrum {
        total_variance: total,
        effective_rank: exp_entropy(eigenvalues.iter().copied()),
        effective_rank_singular: exp_entropy(eigenvalues.iter().map(|l| l.sqrt())),
        participation_ratio: (squares > 0.0).then(|| total * total / squares),
        first_component_share: eigenvalues.first().and_then(|&l| share(l)),
        mean_resultant_length: gram
            .x_sums
            .iter()
            .map(|s| (s / n) * (s / n))
            .sum::<f64>()
            .sqrt(),
        // Unit rows have trace 1, so there is always a weight.
        vendi: exp_entropy(weights.iter().map(|&w| w.max(0.0))).unwrap_or(1.0),
        leading_shares: eigenvalues
            .iter()
            .take(64)
            .filter_map(|&l| share(l))
            .collect(),
    })
}
