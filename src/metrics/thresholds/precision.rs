//! Thresholds at equal precision: what passes the new one is as often relevant as what passed the old one.

use std::collections::HashMap;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::super::retrieval::{Qrel, RetrievalSide};
use super::{Judged, RESAMPLES, STREAM, judged, old_thresholds};
use crate::embeddings::Rows;
use crate::engine::{Engine, Metric};
use crate::error::Result;
use crate::stats::distribution::quantile_sorted;
use crate::stats::rng::Philox;

/// Documents looked at per query.
const DEPTH: usize = 100;
/// Documents that must pass an old threshold for its row to mean anything.
const LEAST_ACCEPTED: u64 = 30;

/// Thresholds on (query, document) cosines at equal precision.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PrecisionTransfer {
    /// Queries with a relevant document, on both sides.
    pub queries: usize,
    /// Documents looked at per query, nearest first. What nobody judged counts as not relevant.
    pub depth: usize,
    /// One row per old threshold, ascending: those that at least 30 documents pass.
    pub table: Vec<PrecisionRow>,
}

/// An old threshold and the new one of equal precision.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PrecisionRow {
    /// The old threshold.
    pub old: f64,
    /// Documents that pass it on old vectors.
    pub accepted: u64,
    /// Share of them that is relevant.
    pub precision: f64,
    /// Share of the relevant documents that pass it.
    pub recall: f64,
    /// Precision on new vectors if the old threshold is kept; `null` where nothing passes.
    pub precision_if_kept: Option<f64>,
    /// The smallest new threshold of at least that precision; `null` where there is none.
    pub new: Option<f64>,
    /// 95 % percentile interval of `new` over resampled queries; `null` where more than a fortieth of the
    /// resamples have none.
    pub new_ci95: Option<[f64; 2]>,
    /// Share of the relevant documents that pass the new threshold.
    pub recall_new: Option<f64>,
}

/// A retrieved document.
#[derive(Debug, Clone, Copy)]
struct Hit {
    cosine: f64,
    query: u32,
    relevant: bool,
}

/// Old thresholds and new ones of equal precision, from golden queries that both sides have. `wanted` as in
/// [`thresholds`](super::thresholds). `None` without such a query.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If a side's rows and ids differ in number, or its queries and corpus in dimension.
pub fn precision_transfer(
    engine: &Engine,
    reference: &RetrievalSide<'_>,
    current: &RetrievalSide<'_>,
    qrels: &[Qrel],
    wanted: &[f64],
    seed: u64,
) -> Result<Option<PrecisionTransfer>> {
    let mut judged = judged(qrels);
    for side in [reference, current] {
        let there: HashMap<&str, ()> = side.query_ids.iter().map(|id| (id, ())).collect();
        judged.retain(|id, _| there.contains_key(id));
    }
    if judged.is_empty() {
        return Ok(None);
    }
    let queries: Vec<(&str, &Judged<'_>)> = judged.iter().map(|(&id, j)| (id, j)).collect();
    let (old, new) = (
        hits(engine, reference, &queries)?,
        hits(engine, current, &queries)?,
    );
    let relevant: Vec<u32> = queries
        .iter()
        .map(|(_, j)| j.values().filter(|&&r| r).count() as u32)
        .collect();
    let mut olds = old_thresholds(wanted);
    let ones = vec![1; queries.len()];
    olds.retain(|&t| passed(&old, t, &ones).0 >= LEAST_ACCEPTED);
    // A grid's lowest thresholds let everything pass that was looked at: they decide nothing.
    if wanted.is_empty() {
        olds.retain(|&t| passed(&old, t, &ones).0 < old.len() as u64);
    }
    let resampled: Vec<Vec<Option<f64>>> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let mut random = Philox::new(seed, STREAM.wrapping_add(resample));
            let mut weights = vec![0; queries.len()];
            for _ in 0..queries.len() {
                weights[random.below(queries.len() as u32) as usize] += 1;
            }
            let at = |&t: &f64| equal_precision(&old, &new, t, &weights);
            olds.iter().map(at).collect()
        })
        .collect();
    let all = f64::from(relevant.iter().sum::<u32>().max(1));
    let table = olds
        .iter()
        .enumerate()
        .map(|(i, &threshold)| {
            let (accepted, found) = passed(&old, threshold, &ones);
            let (kept, kept_found) = passed(&new, threshold, &ones);
            let at = equal_precision(&old, &new, threshold, &ones);
            let mut draws: Vec<f64> = resampled.iter().filter_map(|r| r[i]).collect();
            draws.sort_unstable_by(f64::total_cmp);
            let enough = draws.len() as u64 * 40 >= RESAMPLES * 39;
            PrecisionRow {
                old: threshold,
                accepted,
                precision: found as f64 / accepted as f64,
                recall: found as f64 / all,
                precision_if_kept: (kept > 0).then(|| kept_found as f64 / kept as f64),
                new: at,
                new_ci95: at
                    .filter(|_| enough)
                    .and_then(|_| {
                        quantile_sorted(&draws, 0.025).zip(quantile_sorted(&draws, 0.975))
                    })
                    .map(|(low, high)| [low, high]),
                recall_new: at.map(|t| passed(&new, t, &ones).1 as f64 / all),
            }
        })
        .collect();
    Ok(Some(PrecisionTransfer {
        queries: queries.len(),
        depth: DEPTH,
        table,
    }))
}

/// What the queries retrieve, highest cosine first.
fn hits(
    engine: &Engine,
    side: &RetrievalSide<'_>,
    queries: &[(&str, &Judged<'_>)],
) -> Result<Vec<Hit>> {
    let row_of: HashMap<&str, usize> = side.query_ids.iter().zip(0..).collect();
    let values = side
        .queries
        .gather(queries.iter().map(|(id, _)| row_of[id]));
    let rows = Rows::new(&values, side.queries.dim());
    let found = engine.nearest(rows, side.corpus, DEPTH, Metric::Cosine, None)?;
    let mut hits = Vec::new();
    for ((query, list), (_, judged)) in (0u32..).zip(&found.lists).zip(queries) {
        hits.extend(list.iter().map(|&(cosine, row)| {
            Hit {
                cosine,
                query,
                relevant: judged
                    .get(side.corpus_ids.get(row as usize))
                    .copied()
                    .unwrap_or(false),
            }
        }));
    }
    hits.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
    Ok(hits)
}

/// How many hits pass, and how many of them are relevant, each query counting as often as its weight says.
fn passed(hits: &[Hit], threshold: f64, weights: &[u32]) -> (u64, u64) {
    let end = hits.partition_point(|h| h.cosine >= threshold);
    hits[..end].iter().fold((0, 0), |(all, relevant), hit| {
        let weight = u64::from(weights[hit.query as usize]);
        (all + weight, relevant + weight * u64::from(hit.relevant))
    })
}

/// The smallest new threshold whose precision is at least that of the old one.
fn equal_precision(old: &[Hit], new: &[Hit], threshold: f64, weights: &[u32]) -> Option<f64> {
    let (accepted, wanted) = passed(old, threshold, weights);
    let (mut all, mut relevant) = (0u64, 0u64);
    let mut best = None;
    for (i, hit) in new.iter().enumerate() {
        let weight = u64::from(weights[hit.query as usize]);
        all += weight;
        relevant += weight * u64::from(hit.relevant);
        let last_of_equals = new.get(i + 1).is_none_or(|next| next.cosine < hit.cosine);
        // relevant/all ≥ wanted/accepted, in integers.
        if all > 0 && last_of_equals && relevant * accepted >= wanted * all {
            best = Some(hit.cosine);
        }
    }
    best.filter(|_| accepted > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(scores: &[(f64, u32, bool)]) -> Vec<Hit> {
        scores
            .iter()
            .map(|&(cosine, query, relevant)| Hit {
                cosine,
                query,
                relevant,
            })
            .collect()
    }

    #[test]
    fn equal_precision_by_hand() {
        let old = hits(&[
            (0.9, 0, true),
            (0.8, 1, true),
            (0.7, 0, false),
            (0.6, 1, false),
        ]);
        let new = hits(&[
            (0.5, 0, true),
            (0.4, 1, false),
            (0.4, 0, true),
            (0.2, 1, false),
        ]);
        let at = |t, weights: &[u32]| equal_precision(&old, &new, t, weights);
        // Precision 1 before: only the first of the new ones keeps it.
        assert_eq!(at(0.8, &[1, 1]), Some(0.5));
        // 2 of 3 before; 2 of 3 once both equal ones pass.
        assert_eq!(at(0.7, &[1, 1]), Some(0.4));
        assert_eq!(at(0.6, &[1, 1]), Some(0.2));
        assert_eq!(at(0.95, &[1, 1]), None);
        // Query 1 alone: nothing of its own that is relevant passes.
        assert_eq!(at(0.8, &[0, 1]), None);
        assert_eq!(passed(&old, 0.7, &[2, 1]), (5, 3));
    }
}
