//! Whether two sets share one coordinate system.
//!
//! Half of the measures subtract one set's coordinates from the other's, which means nothing unless both
//! come from the same model. Shared ids tell: in one space an item lies nearer to itself than to others.

use schemars::JsonSchema;
use serde::Serialize;

use super::alignment::{self, HeldoutProcrustes};
use super::cosine;
use crate::embeddings::{Ids, Rows};
use crate::engine::Engine;
use crate::error::Result;
use crate::stats::distribution;
use crate::stats::rng::Philox;

/// Shared ids that are looked at.
const PAIRS: usize = 10_000;
/// Shared ids below which nothing is concluded: the AUC's standard error is about 0.05 there.
const LEAST_PAIRS: usize = 20;
/// AUC from which on the space is the same without further questions.
const AUC_SAME: f64 = 0.99;
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
/// place. Where they do not stand out (AUC below 0.9), a rotation fitted on half of the pairs decides
/// between a rotated copy (held-out cosine about the means at least 0.9) and another model; where they
/// stand out but not clearly (below 0.99), a held-out gain above 0.05 means rotated.
///
/// # Errors
/// The device fails, or singular values do not converge.
///
/// # Panics
/// If the numbers of rows and ids differ.
pub fn comparability(engine: &Engine, shared: SharedRows<'_>, seed: u64) -> Result<Comparability> {
    let (d, d2) = (shared.reference.dim(), shared.current.dim());
    let verdict = |relation: SpaceRelation, reason, pairs, auc, alignment| Comparability {
        relation,
        reason,
        pairs,
        auc,
        alignment,
        refused: if relation.shares_coordinates() {
            Vec::new()
        } else {
            COORDINATE_STATISTICS.to_vec()
        },
    };
    if d != d2 {
        let reason = format!("the dimensions differ ({d} and {d2})");
        return Ok(verdict(
            SpaceRelation::DifferentDimension,
            reason,
            0,
            None,
            None,
        ));
    }
    let sample = Sample::of(shared, seed);
    let pairs = sample.ids.len();
    if pairs < LEAST_PAIRS {
        let reason = format!(
            "shared ids are too few to tell ({pairs}, at least {LEAST_PAIRS} are needed), so one space is assumed"
        );
        return Ok(verdict(
            SpaceRelation::AssumedSame,
            reason,
            pairs,
            None,
            None,
        ));
    }
    let Some(auc) = sample.auc(seed) else {
        let reason =
            "all rows of a side point the same way, so items cannot be told apart and one space is assumed"
                .to_owned();
        return Ok(verdict(
            SpaceRelation::AssumedSame,
            reason,
            pairs,
            None,
            None,
        ));
    };
    if auc >= AUC_SAME {
        let reason = format!(
            "paired rows are nearer than random ones (AUC {auc:.3} over {pairs} shared ids)"
        );
        return Ok(verdict(SpaceRelation::Same, reason, pairs, Some(auc), None));
    }
    let alignment = alignment::heldout_procrustes(
        engine,
        sample.reference(),
        sample.current(),
        &sample.ids,
        seed,
    )?;
    let (relation, reason) = judge(auc, alignment.as_ref(), pairs, d);
    Ok(verdict(relation, reason, pairs, Some(auc), alignment))
}

/// The relation of two spaces whose AUC is not clear.
fn judge(
    auc: f64,
    alignment: Option<&HeldoutProcrustes>,
    pairs: usize,
    dim: usize,
) -> (SpaceRelation, String) {
    let rise = alignment.and_then(|a| a.rise).unwrap_or(0.0);
    let centred = alignment
        .and_then(|a| a.heldout_mean_cosine_centred)
        .unwrap_or(0.0);
    let after = alignment.map_or(0.0, |a| a.heldout_mean_cosine);
    if auc >= AUC_DIFFERENT {
        if rise > RISE {
            let reason = format!(
                "paired rows are only partly nearer than random ones (AUC {auc:.3}), and a rotation raises their mean cosine by {rise:.3} to {after:.3} on held-out ids"
            );
            return (SpaceRelation::Rotated, reason);
        }
        let reason = format!(
            "paired rows are mostly nearer than random ones (AUC {auc:.3} over {pairs} shared ids), and no rotation brings them nearer"
        );
        return (SpaceRelation::Same, reason);
    }
    if rise > RISE && centred >= ALIGNED {
        let reason = format!(
            "paired rows are no nearer than random ones (AUC {auc:.3}), but a rotation fitted on half of them brings the others to a mean cosine of {after:.3}"
        );
        return (SpaceRelation::Rotated, reason);
    }
    let mut reason = format!(
        "paired rows are hardly nearer than random ones (AUC {auc:.3}), and no rotation brings them together (held-out mean cosine about the means {centred:.3})"
    );
    if pairs < PAIRS_PER_DIMENSION * dim {
        reason.push_str(&format!(
            "; {pairs} shared ids in {dim} dimensions are too few to rule a rotation out"
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
        let gather = |rows: Rows<'_>| -> Vec<f32> {
            order
                .iter()
                .flat_map(|&(_, i)| rows.row(i))
                .copied()
                .collect()
        };
        Self {
            reference: gather(shared.reference),
            current: gather(shared.current),
            ids: order.iter().map(|&(_, i)| ids.get(i)).collect(),
            dim: shared.reference.dim(),
        }
    }

    fn reference(&self) -> Rows<'_> {
        Rows::new(&self.reference, self.dim)
    }

    fn current(&self) -> Rows<'_> {
        Rows::new(&self.current, self.dim)
    }

    /// AUC of paired over random cosines; `None` where both are the very same numbers.
    fn auc(&self, seed: u64) -> Option<f64> {
        let n = self.ids.len();
        // Each item's partner is the next one on a random circle: nobody is its own.
        let mut circle: Vec<usize> = (0..n).collect();
        Philox::new(seed, STREAM_RANDOM_PAIRS).shuffle(&mut circle);
        let mut partners = Vec::with_capacity(n * self.dim);
        let mut items = Vec::with_capacity(n * self.dim);
        for (at, &item) in circle.iter().enumerate() {
            items.extend_from_slice(self.reference().row(item));
            partners.extend_from_slice(self.current().row(circle[(at + 1) % n]));
        }
        let sorted = |x, y| {
            let mut cosines = cosine::paired_cosines(x, y);
            cosines.sort_by(f64::total_cmp);
            cosines
        };
        let paired = sorted(self.reference(), self.current());
        let random = sorted(Rows::new(&items, self.dim), Rows::new(&partners, self.dim));
        // With one direction on a side, any partner is as near as any other.
        if paired == random {
            return None;
        }
        distribution::auc_sorted(&paired, &random)
    }
}
