//! Do two sets live in one coordinate system? Decided from the vectors of shared items.

use schemars::JsonSchema;
use serde::Serialize;

use super::alignment::Alignment;
use crate::embeddings::{Ids, Rows};
use crate::engine::{Metric, score};
use crate::stats::rng::Philox;

/// Items looked at.
const ITEMS: usize = 10_000;
/// AUC from which two sets are one space, and below which they are two.
const SAME_AUC: f64 = 0.99;
const OTHER_AUC: f64 = 0.9;
/// Rise of the mean paired cosine by a held-out rotation that makes a space a rotated one.
const ROTATED_RISE: f64 = 0.05;
/// Held-out cosine from which the rotation explains the difference.
const ROTATED_COSINE: f64 = 0.9;

/// How two coordinate systems relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpaceRelation {
    /// One system.
    Same,
    /// One up to a rotation.
    Rotated,
    /// Two of one dimension.
    DifferentModel,
    /// Two of different dimensions.
    DifferentDimension,
    /// Taken for one: no shared items say otherwise.
    AssumedSame,
}

/// The decision with its grounds.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Comparability {
    /// The relation.
    pub relation: SpaceRelation,
    /// Probability that an item's own two vectors are more alike than one's and another's; ½: unrelated.
    pub auc: Option<f64>,
    /// Items behind it.
    pub items: u64,
    /// The grounds, in one sentence.
    pub reason: String,
}

impl Comparability {
    /// Whether coordinates may be compared.
    pub fn one_space(&self) -> bool {
        matches!(
            self.relation,
            SpaceRelation::Same | SpaceRelation::AssumedSame
        )
    }
}

/// Decides for shared items `x` and `y` (paired by position), or for sets that share none.
pub fn comparability(
    dims: (usize, usize),
    shared: Option<(Rows<'_>, Rows<'_>, &Ids, &Alignment)>,
    seed: u64,
) -> Comparability {
    let decided = |relation, auc, items, reason: String| Comparability {
        relation,
        auc,
        items,
        reason,
    };
    if dims.0 != dims.1 {
        return decided(
            SpaceRelation::DifferentDimension,
            None,
            0,
            format!("dimensions differ ({} and {})", dims.0, dims.1),
        );
    }
    let Some((x, y, ids, alignment)) = shared else {
        return decided(
            SpaceRelation::AssumedSame,
            None,
            0,
            "no shared ids: one space is assumed, nothing in the data can confirm it".to_owned(),
        );
    };
    let (auc, items) = paired_auc(x, y, ids, seed);
    let Some(auc) = auc else {
        return decided(
            SpaceRelation::AssumedSame,
            None,
            items,
            "too few shared items to tell: one space is assumed".to_owned(),
        );
    };
    let heldout = alignment.procrustes.heldout_mean_cosine;
    let before = mean_paired(x, y);
    let rise = heldout.map(|h| h - before);
    let rotated =
        rise.is_some_and(|r| r > ROTATED_RISE) && heldout.is_some_and(|h| h >= ROTATED_COSINE);
    let grounds = format!(
        "an item's two vectors are nearer than random ones in {:.1} % of cases",
        auc * 100.0
    );
    if auc >= SAME_AUC && !rotated {
        return decided(
            SpaceRelation::Same,
            Some(auc),
            items,
            format!("one space: {grounds}"),
        );
    }
    if rotated {
        return decided(
            SpaceRelation::Rotated,
            Some(auc),
            items,
            format!(
                "a rotated space: mean paired cosine {before:.3} rises to {:.3} on held-out items after one rotation",
                heldout.unwrap_or(before)
            ),
        );
    }
    if auc >= OTHER_AUC {
        return decided(
            SpaceRelation::Same,
            Some(auc),
            items,
            format!("one space, much changed: {grounds}"),
        );
    }
    decided(
        SpaceRelation::DifferentModel,
        Some(auc),
        items,
        format!("different spaces: {grounds}, and no rotation explains it"),
    )
}

fn mean_paired(x: Rows<'_>, y: Rows<'_>) -> f64 {
    let cosines = x.iter().zip(y.iter()).map(|(a, b)| cosine(a, b));
    cosines.sum::<f64>() / x.len() as f64
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    score::similarity(Metric::Cosine, a, score::norm(a), b, score::norm(b))
}

/// AUC of the cosines of items with themselves against those with another item, over at most 10,000
/// items with the lowest id hashes.
fn paired_auc(x: Rows<'_>, y: Rows<'_>, ids: &Ids, seed: u64) -> (Option<f64>, u64) {
    let mut order: Vec<usize> = (0..x.len()).collect();
    order.sort_by_cached_key(|&i| (ids.hash(i, seed), i));
    order.truncate(ITEMS);
    let q = order.len();
    if q < 3 {
        return (None, q as u64);
    }
    // A rotation of the hash order pairs every item with another one.
    let shift = 1 + Philox::new(seed, 0xa0c).below(q as u32 - 1) as usize;
    let own: Vec<f64> = order.iter().map(|&i| cosine(x.row(i), y.row(i))).collect();
    let mut other: Vec<f64> = (0..q)
        .map(|i| cosine(x.row(order[i]), y.row(order[(i + shift) % q])))
        .collect();
    other.sort_by(f64::total_cmp);
    let wins: f64 = own
        .iter()
        .map(|c| {
            let below = other.partition_point(|o| o < c);
            let equal = other[below..].partition_point(|o| o <= c);
            below as f64 + equal as f64 / 2.0
        })
        .sum();
    (Some(wins / (q * q) as f64), q as u64)
}
