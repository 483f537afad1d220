//! The operational noise floor: what every gating measure says between two embeddings of one corpus.
//!
//! Batch sizes, precisions and hardware move vectors where no model changed. This floor does not shrink
//! with more rows, as that of sampling does; a drift is one only above both.

use schemars::JsonSchema;
use serde::Serialize;

use super::{AuditConfig, Shared};
use crate::embeddings::{Embeddings, Join};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::cosine::{self, CosineShift};
use crate::metrics::mmd::{self, MmdConfig, Sample};
use crate::metrics::moments::UnitMoments;
use crate::metrics::overlap::{self, OverlapConfig};
use crate::output::InputSummary;

/// Most rows per embedding behind the floors of distribution measures: 2 · 10⁸ cosines each.
const DISTRIBUTION_ROWS: usize = 20_000;
/// Most items behind the ceiling of overlap: its standard error is below 0.005 then.
const OVERLAP_QUERIES: usize = 5_000;
/// Rows from which a floor says something.
const MIN_ROWS: usize = 50;
/// κ below which row by row the two embeddings cannot be of the same items.
const MIN_KAPPA: f64 = 0.05;

/// What the measures say between two embeddings of the same corpus.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NoiseFloor {
    /// Rows embedded twice: the base of the overlap.
    pub rows: u64,
    /// Items queried for the overlap.
    pub overlap_queries: u64,
    /// Rows per embedding behind MMD and cosine distributions, drawn by the hash of their id.
    pub distribution_rows: u64,
    /// Whether every row was used throughout.
    pub exact: bool,
    /// Ceiling of overlap@k, by k: what two embeddings of one corpus reach.
    pub overlap: Vec<FloorAtK>,
    /// Shift ε_eq between the embeddings; null where it is undefined.
    pub eps_eq: Option<f64>,
    /// Its 95 % interval.
    pub eps_eq_ci95: Option<[f64; 2]>,
    /// MMD² between the embeddings, each item's pair with itself left out; may be below 0.
    pub mmd2: Option<f64>,
    /// Mean cosine between an item's two vectors.
    pub paired_cosine_mean: Option<f64>,
    /// 5th percentile of the same.
    pub paired_cosine_p05: Option<f64>,
    /// Distances between the two distributions of cosines.
    pub cosine_shift: Option<CosineShift>,
}

/// The ceiling of the overlap at one k.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FloorAtK {
    /// List length.
    pub k: usize,
    /// Mean overlap@k between the embeddings.
    pub overlap: f64,
    /// Its 95 % interval.
    pub ci95: Option<[f64; 2]>,
}

impl NoiseFloor {
    /// The ceiling of overlap@k.
    pub fn overlap_at(&self, k: usize) -> Option<f64> {
        self.overlap
            .iter()
            .find(|at| at.k == k)
            .map(|at| at.overlap)
    }
}

/// Measures the floor. `inputs` are those of the two embeddings.
pub(super) fn noise_floor(
    engine: &Engine,
    first: Embeddings,
    second: Embeddings,
    inputs: &[InputSummary],
    reference_dim: usize,
    config: &AuditConfig,
) -> Result<NoiseFloor> {
    let join = check(&first, &second, inputs, reference_dim)?;
    let shared = Shared::new(&first, &second, &join);
    let queries = config.overlap_queries.unwrap_or(OVERLAP_QUERIES);
    let found = overlap::overlap(
        engine,
        shared.reference(),
        shared.current(),
        &shared.ids,
        None,
        &OverlapConfig {
            ks: config.ks.clone(),
            headline_k: config.headline_k(),
            queries: Some(queries.min(OVERLAP_QUERIES)),
            ranked_items: 0,
            seed: config.seed,
            ..OverlapConfig::default()
        },
    )?;
    if found.kappa.is_some_and(|kappa| kappa < MIN_KAPPA) {
        return Err(refuse(
            &inputs[1],
            format!(
                "row by row its neighbourhoods are not those of {} (overlap@{} {:.3}), expected the same items",
                inputs[0].source, found.k, found.overlap.mean
            ),
        ));
    }
    let paired = cosine::paired(shared.reference(), shared.current());
    drop(shared);

    let rows = first.len();
    let limit = config.sample.unwrap_or(usize::MAX).min(DISTRIBUTION_ROWS);
    let (first, second) = (
        first.sample(limit, config.seed),
        second.sample(limit, config.seed),
    );
    let cosines = |set: &Embeddings| {
        cosine::within(engine, set.rows(), &UnitMoments::of(engine, set.rows())?)
    };
    let cosine_shift = cosine::shift(&cosines(&first)?, &cosines(&second)?);
    let mmd = mmd::mmd(
        engine,
        whole(&first),
        whole(&second),
        &MmdConfig {
            bandwidth: config.bandwidth,
            permutations: 0,
            seed: config.seed,
            margin: config.policy.max_eps_eq,
            ..MmdConfig::default()
        },
    )?;
    Ok(NoiseFloor {
        rows: rows as u64,
        overlap_queries: found.items as u64,
        distribution_rows: first.len() as u64,
        exact: found.exact && first.len() == rows,
        overlap: found
            .at_k
            .iter()
            .map(|at| FloorAtK {
                k: at.k,
                overlap: at.overlap,
                ci95: at.ci95,
            })
            .collect(),
        eps_eq: mmd.effect.eps_eq,
        eps_eq_ci95: mmd.effect.ci95,
        mmd2: mmd.mmd2_paired,
        paired_cosine_mean: paired.mean,
        paired_cosine_p05: paired.p05,
        cosine_shift,
    })
}

fn whole(set: &Embeddings) -> Sample<'_> {
    Sample {
        rows: set.rows(),
        ids: &set.ids,
        groups: None,
    }
}

fn refuse(input: &InputSummary, fact: String) -> Error {
    Error::input(format!("--noise-floor {}", input.source), fact)
        .hint("the noise floor takes one corpus embedded twice, in the reference's space")
}

/// Refuses what is not one corpus embedded twice in the reference's dimension.
fn check(
    first: &Embeddings,
    second: &Embeddings,
    inputs: &[InputSummary],
    reference_dim: usize,
) -> Result<Join> {
    for (set, input) in [first, second].into_iter().zip(inputs) {
        let faulty = input.faults.rows();
        if faulty > 0 {
            return Err(refuse(
                input,
                format!(
                    "{faulty} of {} rows are null, non-finite or zero, expected none",
                    input.rows
                ),
            ));
        }
        if set.dim() != reference_dim {
            return Err(refuse(
                input,
                format!(
                    "dimension {}, expected the reference's {reference_dim}",
                    set.dim()
                ),
            ));
        }
    }
    let join = Join::new(&first.ids, &second.ids);
    let (n, m, shared) = (first.len(), second.len(), join.shared.len());
    if shared != n || shared != m {
        return Err(refuse(
            &inputs[1],
            format!(
                "{m} rows share {shared} ids with the {n} rows of {}, expected the same ids on both",
                inputs[0].source
            ),
        ));
    }
    if n < MIN_ROWS {
        return Err(refuse(
            &inputs[0],
            format!("{n} rows, expected at least {MIN_ROWS}"),
        ));
    }
    Ok(join)
}
