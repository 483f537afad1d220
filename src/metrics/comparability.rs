//! Whether two sets share one coordinate system.
//!
//! Half of the measures subtract one set's coordinates from the other's, which means nothing unless both
//! come from the same model. Shared ids tell: in one space an item lies nearer to itself than to others.

use schemars::JsonSchema;
use serde::Serialize;

use super::alignment::{self, HeldoutProcrustes};
use crate::embeddings::{F32Rows, Ids, Rows};
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::stats::distribution;
use crate::stats::rng::Philox;

/// Shared ids that are looked at.
const PAIRS: usize = 10_000;
/// Shared ids below which nothing is concluded: the AUC's standard error is about 0.05 there.
const LEAST_PAIRS: usize = 20;
/// AUC from which on items are recognised clearly.
const AUC_SAME: f64 = 0.99;
/// Centred paired cosine from which on a clear AUC needs no further questions: the AUC alone is near 1 for
/// a rotation that leaves only a fifth of each vector in place.
const COSINE_SAME: f64 = 0.5;
/// AUC below which the spaces differ.
const AUC_DIFFERENT: f64 = 0.9;
/// Gain of held-out cosine by alignment that makes a space "rotated".
const RISE: f64 = 0.05;
/// Held-out centred cosine after alignment that makes a space a rotated copy.
const ALIGNED: f64 = 0.9;
/// Pairs per dimension below which a map fitted on half of them says little about the rest.
const PAIRS_PER_DIMENSION: usize = 8;

/// Philox stream of the random pairs.
const STREAM_RANDOM_PAIRS: u64 = u64::from_le_bytes(*b"compare\0");

/// How two sets' coordinate systems relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpaceRelation {
    /// One coordinate system.
    Same,
    /// One is a rotated copy of the other: the same neighbourhoods, other coordinates.
    Rotated,
    /// Two models.
    DifferentModel,
    /// Different dimensions, so two models.
    DifferentDimension,
    /// Taken to be the same: too few shared ids to tell.
    AssumedSame,
}

impl SpaceRelation {
    /// Whether statistics that mix coordinates of both sets mean anything.
    pub fn shares_coordinates(self) -> bool {
        matches!(self, Self::Same | Self::AssumedSame)
    }

    fn refused(self) -> Vec<CoordinateStatistic> {
        if self.shares_coordinates() {
            Vec::new()
        } else {
            COORDINATE_STATISTICS.to_vec()
        }
    }
}

/// Statistics that need one coordinate system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CoordinateStatistic {
    /// Maximum mean discrepancy and tests made of it.
    Mmd,
    /// Cosines between the two sets.
    CrossCosine,
    /// Distance of the means.
    CentroidShift,
    /// Fréchet distance.
    Frechet,
    /// Similarity of the principal subspaces.
    SubspaceSimilarity,
    /// Dimension by dimension comparison.
    PerDimension,
    /// Out-of-distribution scores of current rows against the reference.
    OutOfDistribution,
    /// Current rows in clusters of the reference.
    ClusterDrift,
}

const COORDINATE_STATISTICS: [CoordinateStatistic; 8] = [
    CoordinateStatistic::Mmd,
    CoordinateStatistic::CrossCosine,
    CoordinateStatistic::CentroidShift,
    CoordinateStatistic::Frechet,
    CoordinateStatistic::SubspaceSimilarity,
    CoordinateStatistic::PerDimension,
    CoordinateStatistic::OutOfDistribution,
    CoordinateStatistic::ClusterDrift,
];

/// Verdict on two sets' coordinate systems.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Comparability {
    /// How they relate.
    pub relation: SpaceRelation,
    /// Why, in one sentence.
    pub reason: String,
    /// Shared ids looked at.
    pub pairs: usize,
    /// Probability that an item's cosine with itself in the other set exceeds that of two random items: 1
    /// in one space, 0.5 in unrelated ones. `null` where the dimensions differ or shared ids are too few.
    pub auc: Option<f64>,
    /// The same about the mean of each side, which a shift of all rows does not lower.
    pub auc_centred: Option<f64>,
    /// Mean cosine of an item with itself about the mean of each side.
    pub paired_mean_cosine_centred: Option<f64>,
    /// Alignment by rotation, where the AUC leaves a question.
    pub alignment: Option<HeldoutProcrustes>,
    /// What cannot be measured.
    pub refused: Vec<CoordinateStatistic>,
}

/// Rows of the shared ids, in the same order on both sides.
#[derive(Debug, Clone, Copy)]
pub struct SharedRows<'a> {
    /// In the reference.
    pub reference: Rows<'a>,
    /// In the current set.
    pub current: Rows<'a>,
    /// Their ids.
    pub ids: &'a Ids,
}

/// Decides whether two sets share one coordinate system, from up to 10,000 shared ids chosen by hash.
///
/// Paired cosines are compared with those of the same items in a random order that leaves none in its
/// place, about the origin and about the means; the greater AUC counts, since a shift of all rows is drift
/// within one space. Where paired rows do not stand out (below 0.9), a rotation fitted on half of them
/// decides between a rotated copy (held-out cosine about the means at least 0.9) and another model; where
/// they stand out but not clearly (below 0.99), a held-out gain above 0.05 means rotated. Where they stand
/// out clearly but lie far apart (mean cosine about the means below 0.5), the first criterion applies too.
///
/// # Errors
/// The device fails, or singular values do not converge.
///
/// # Panics
/// If the numbers of rows and ids differ.
pub fn comparability(engine: &Engine, shared: SharedRows<'_>, seed: u64) -> Result<Comparability> {
    let (d, d2) = (shared.reference.dim(), shared.current.dim());
    let unmeasured = |relation: SpaceRelation, reason: String, pairs| Comparability {
        relation,
        reason,
        pairs,
        auc: None,
        auc_centred: None,
        paired_mean_cosine_centred: None,
        alignment: None,
        refused: relation.refused(),
    };
    if d != d2 {
        let reason = format!("the dimensions differ ({d} and {d2})");
        return Ok(unmeasured(SpaceRelation::DifferentDimension, reason, 0));
    }
    let sample = Sample::of(shared, seed);
    let pairs = sample.ids.len();
    if pairs < LEAST_PAIRS {
        let reason = format!(
            "shared ids are too few to tell ({pairs}, at least {LEAST_PAIRS} are needed), so one space is assumed"
        );
        return Ok(unmeasured(SpaceRelation::AssumedSame, reason, pairs));
    }
    let Some(Contrast {
        auc,
        auc_centred,
        mean_cosine_centred,
    }) = sample.contrast(seed)
    else {
        let reason = "all rows of a side point the same way, so items cannot be told apart and one space is assumed";
        return Ok(unmeasured(
            SpaceRelation::AssumedSame,
            reason.to_owned(),
            pairs,
        ));
    };
    let clearest = auc.max(auc_centred);
    let alignment = if clearest >= AUC_SAME && mean_cosine_centred >= COSINE_SAME {
        None
    } else {
        let (x, y) = (sample.reference(), sample.current());
        alignment::heldout_procrustes(engine, x.into(), y.into(), &sample.ids, seed)?
    };
    let (relation, reason) = judge(clearest, alignment.as_ref(), pairs, d);
    Ok(Comparability {
        relation,
        reason,
        pairs,
        auc: Some(auc),
        auc_centred: Some(auc_centred),
        paired_mean_cosine_centred: Some(mean_cosine_centred),
        alignment,
        refused: relation.refused(),
    })
}

/// The relation of two spaces, and why.
fn judge(
    auc: f64,
    alignment: Option<&HeldoutProcrustes>,
    pairs: usize,
    dim: usize,
) -> (SpaceRelation, String) {
    let rise = alignment.and_then(|a| a.rise).unwrap_or(0.0);
    let after = alignment.map_or(0.0, |a| a.heldout_mean_cosine);
    let centred = alignment
        .and_then(|a| a.heldout_mean_cosine_centred)
        .unwrap_or(0.0);
    let is_copy = rise > RISE && centred >= ALIGNED;
    let gain = format!(
        "a rotation fitted on half of them raises the mean cosine of the others by {rise:.3} to {after:.3}"
    );
    if auc >= AUC_SAME && !is_copy {
        let reason = format!(
            "paired rows are nearer than random ones (AUC {auc:.3} over {pairs} shared ids)"
        );
        return (SpaceRelation::Same, reason);
    }
    if auc >= AUC_DIFFERENT {
        let reason = format!(
            "paired rows are mostly nearer than random ones (AUC {auc:.3} over {pairs} shared ids)"
        );
        return if is_copy || rise > RISE {
            (SpaceRelation::Rotated, format!("{reason}, but {gain}"))
        } else {
            (
                SpaceRelation::Same,
                format!("{reason}, and no rotation brings them nearer"),
            )
        };
    }
    let reason = format!(
        "paired rows are not clearly nearer than random ones (AUC {auc:.3} over {pairs} shared ids)"
    );
    if is_copy {
        return (SpaceRelation::Rotated, format!("{reason}, but {gain}"));
    }
    let mut reason = format!(
        "{reason}, and no rotation brings them together (held-out mean cosine about the means {centred:.3})"
    );
    if pairs < PAIRS_PER_DIMENSION * dim {
        reason.push_str(&format!(
            "; that many in {dim} dimensions are too few to rule a rotation out"
        ));
    }
    (SpaceRelation::DifferentModel, reason)
}

/// The shared rows looked at, in the order of the hash of their ids.
struct Sample {
    reference: Vec<f32>,
    current: Vec<f32>,
    ids: Ids,
    dim: usize,
}

impl Sample {
    fn of(shared: SharedRows<'_>, seed: u64) -> Self {
        let ids = shared.ids;
        assert_eq!(shared.reference.len(), ids.len(), "one id per row");
        assert_eq!(shared.current.len(), ids.len(), "one id per row");
        let mut order: Vec<(u64, usize)> = (0..ids.len()).map(|i| (ids.hash(i, seed), i)).collect();
        order.sort_by(|a, b| (a.0, ids.get(a.1)).cmp(&(b.0, ids.get(b.1))));
        order.truncate(PAIRS);
        let gather = |rows: Rows<'_>| rows.gather(order.iter().map(|&(_, i)| i));
        Self {
            reference: gather(shared.reference),
            current: gather(shared.current),
            ids: order.iter().map(|&(_, i)| ids.get(i)).collect(),
            dim: shared.reference.dim(),
        }
    }

    fn reference(&self) -> F32Rows<'_> {
        F32Rows::new(&self.reference, self.dim)
    }

    fn current(&self) -> F32Rows<'_> {
        F32Rows::new(&self.current, self.dim)
    }

    /// How paired rows compare with random pairs; `None` where a side has one direction only.
    fn contrast(&self, seed: u64) -> Option<Contrast> {
        let n = self.ids.len();
        // Each item's partner is the next one on a random circle: nobody is its own.
        let mut circle: Vec<usize> = (0..n).collect();
        Philox::new(seed, STREAM_RANDOM_PAIRS).shuffle(&mut circle);
        let mut partner = vec![0; n];
        for (at, &item) in circle.iter().enumerate() {
            partner[item] = circle[(at + 1) % n];
        }
        let (x, y) = (self.reference(), self.current());
        let cosine = |a: &[f32], b: &[f32]| {
            score::similarity(Metric::Cosine, a, score::norm(a), b, score::norm(b))
        };
        let paired = sorted((0..n).map(|i| cosine(x.row(i), y.row(i))));
        let random = sorted((0..n).map(|i| cosine(x.row(i), y.row(partner[i]))));
        // With one direction on a side, any partner is as near as any other.
        if paired == random {
            return None;
        }
        let (x_mean, y_mean) = (mean(x), mean(y));
        let centred = |i: usize, j: usize| {
            let less = |row: &[f32], mean: &[f64]| -> Vec<f64> {
                row.iter()
                    .zip(mean)
                    .map(|(&v, mean)| f64::from(v) - mean)
                    .collect()
            };
            // A row on the mean is like no other.
            alignment::cosine_f64(&less(x.row(i), &x_mean), &less(y.row(j), &y_mean)).unwrap_or(0.0)
        };
        let paired_centred = sorted((0..n).map(|i| centred(i, i)));
        let random_centred = sorted((0..n).map(|i| centred(i, partner[i])));
        Some(Contrast {
            auc: distribution::auc_sorted(&paired, &random)?,
            auc_centred: distribution::auc_sorted(&paired_centred, &random_centred)?,
            mean_cosine_centred: distribution::mean_std(&paired_centred)?.mean,
        })
    }
}

/// How paired rows compare with random pairs.
struct Contrast {
    auc: f64,
    auc_centred: f64,
    mean_cosine_centred: f64,
}

fn sorted(cosines: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut cosines: Vec<f64> = cosines.collect();
    cosines.sort_by(f64::total_cmp);
    cosines
}

fn mean(rows: F32Rows<'_>) -> Vec<f64> {
    let mut mean = vec![0.0; rows.dim()];
    for row in rows.iter() {
        for (sum, &value) in mean.iter_mut().zip(row) {
            *sum += f64::from(value) / rows.len() as f64;
        }
    }
    mean
}
