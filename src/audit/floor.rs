//! The operational noise floor: what the same model, run twice on the same documents, already changes.
//!
//! A batch size, a number format or a library that differs moves every vector a little. No measure of a
//! real change can be expected to come out better than this one, and none that does not exceed it
//! says anything. (The other floor, of sampling, shrinks with the number of rows and stands in intervals.)

use schemars::JsonSchema;
use serde::Serialize;

use super::measure;
use super::{AuditConfig, PairingKind, Shared};
use crate::embeddings::{Embeddings, IdSource, Join};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::cosine::CosineShift;
use crate::metrics::overlap::OverlapAtK;

/// Share of the rerun's overlap that an intact neighbourhood reaches.
pub(super) const INTACT_SHARE_OF_RERUN: f64 = 0.98;

/// How much farther than a rerun's vectors from each other, as 1 − cosine, vectors may be that agree: two pairs
/// of runs never differ by quite the same.
pub(super) const DISTANCE_TO_RERUN: f64 = 1.1;

/// Rows per run at most that are compared as distributions.
const DISTRIBUTION_ROWS: usize = 20_000;

/// The measures that gate, taken between two runs of one model over the same documents.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NoiseFloor {
    /// Documents with a vector from both runs.
    pub items: u64,
    /// Overlap of the neighbourhoods: the most that any change of model can reach. It depends on the number
    /// of documents, which should be about the reference's.
    pub overlap: Vec<OverlapAtK>,
    /// Mean cosine between a document's two vectors.
    pub paired_cosine_mean: Option<f64>,
    /// 5th percentile of these cosines.
    pub paired_cosine_p05: Option<f64>,
    /// Shift ε_eq between the runs, as if that share of the corpus had been replaced; of at most 20,000 rows
    /// each, as is `cosine_shift`.
    pub eps_eq: Option<f64>,
    /// 95 % interval of `eps_eq`.
    pub eps_eq_ci95: Option<[f64; 2]>,
    /// How far the distributions of cosines within each run lie apart.
    pub cosine_shift: Option<CosineShift>,
}

impl NoiseFloor {
    /// Overlap of the rerun at a list length.
    pub fn overlap_at(&self, k: usize) -> Option<f64> {
        let at = self.overlap.iter().find(|at| at.k == k);
        at.map(|at| at.overlap)
    }
}

/// Takes the measures between two runs.
///
/// # Errors
/// The runs are not of the same documents or not of the reference's dimension, or the device fails.
pub(super) fn noise_floor(
    engine: &Engine,
    [first, second]: [Embeddings; 2],
    reference_dim: usize,
    config: &AuditConfig,
) -> Result<NoiseFloor> {
    for run in [&first, &second] {
        if run.dim() != reference_dim {
            return Err(Error::input(
                "--noise-floor",
                format!(
                    "{} has dimension {}, the reference {reference_dim}, expected the reference's model run twice",
                    run.name,
                    run.dim()
                ),
            ));
        }
    }
    let numbered = [&first, &second].map(|run| run.id_source == IdSource::RowNumber);
    let join = match numbered {
        [true, true] if first.rows_read != second.rows_read => Join::default(),
        [true, true] | [false, false] => Join::new(&first.ids, &second.ids),
        _ => Join::default(),
    };
    let fewer = first.len().min(second.len());
    if join.shared.len() < 3 || 2 * join.shared.len() < fewer {
        return Err(Error::input(
            "--noise-floor",
            format!(
                "{} and {} share {} of {fewer} documents, expected the same documents embedded twice",
                first.name,
                second.name,
                join.shared.len()
            ),
        ));
    }
    let config = AuditConfig {
        permutations: 0,
        sample: Some(config.sample.unwrap_or(usize::MAX).min(DISTRIBUTION_ROWS)),
        ..config.clone()
    };
    // What cannot be measured between two runs of one model is no news.
    let mut unmeasured = Vec::new();
    let shared = Shared::new(&first, &second, &join);
    let comparability = measure::comparability(engine, &first, &second, Some(&shared), &config)?;
    let overlap = measure::neighbourhoods(engine, Some(&shared), &config, &mut unmeasured)?;
    let cosines = crate::metrics::cosine::paired(shared.reference(), shared.current());
    drop(shared);
    if !comparability.relation.shares_coordinates() {
        return Err(Error::input(
            "--noise-floor",
            format!(
                "{} and {} are not in one space, expected one model run twice: {}",
                first.name, second.name, comparability.reason
            ),
        ));
    }
    let distribution = measure::distribution(
        engine,
        first,
        second,
        PairingKind::Paired,
        &comparability,
        &config,
        &mut unmeasured,
    )?;
    let effect = distribution
        .as_ref()
        .and_then(|found| found.mmd.as_ref())
        .map(|mmd| &mmd.effect);
    Ok(NoiseFloor {
        items: join.shared.len() as u64,
        overlap: overlap.map_or(Vec::new(), |found| found.at_k),
        paired_cosine_mean: cosines.mean,
        paired_cosine_p05: cosines.p05,
        eps_eq: effect.and_then(|effect| effect.eps_eq),
        eps_eq_ci95: effect.and_then(|effect| effect.ci95),
        cosine_shift: distribution.and_then(|found| found.cosine_shift),
    })
}
