//! The most similar pairs: the N best, or all above a threshold. Exact.
//!
//! Made of `nearest`: every row's list is long enough once its last entry falls below what is asked for.
//! Lists that are not are asked for again, twice as long.

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Ids, Rows, Values};
use crate::engine::{Engine, Metric, SelfExclusion};
use crate::error::Result;

/// List length of the first round.
const FIRST_K: usize = 8;

/// Two rows and their cosine.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SimilarPair {
    /// Id of the row of x.
    pub x: String,
    /// Id of the row of y; where there is no y, the later row of x.
    pub y: String,
    /// x·y / (‖x‖‖y‖), f64.
    pub cosine: f64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Wanted {
    /// The N most similar pairs.
    Top(usize),
    /// Every pair whose cosine is at least this.
    Above(f64),
}

/// The most similar pairs within `x`, or between `x` and `y`, most similar first; ties by row.
///
/// # Errors
/// The device fails.
pub fn similar_pairs(
    engine: &Engine,
    x: (Rows<'_>, &Ids),
    y: Option<(Rows<'_>, &Ids)>,
    wanted: Wanted,
) -> Result<Vec<SimilarPair>> {
    let (base, base_ids) = y.unwrap_or(x);
    let base_groups: Vec<u32> = (0..base.len() as u32).collect();
    let mut found: Vec<(f64, u32, u32)> = Vec::new();
    let mut open: Vec<u32> = (0..x.0.len() as u32).collect();
    let mut k = FIRST_K;
    while !open.is_empty() {
        let dim = x.0.dim();
        let gathered = Values::gather(x.0, &open);
        let exclude = y.is_none().then_some(SelfExclusion {
            queries: &open,
            base: &base_groups,
        });
        let lists = engine
            .nearest(gathered.rows(dim), base, k, Metric::Cosine, exclude)?
            .lists;
        // A row asked again gives its whole list again.
        let again: std::collections::HashSet<u32> = open.iter().copied().collect();
        found.retain(|&(_, row, _)| !again.contains(&row));
        for (&row, list) in open.iter().zip(&lists) {
            found.extend(list.iter().map(|&(cosine, other)| (cosine, row, other)));
        }
        let (floor, longest) = match wanted {
            Wanted::Above(threshold) => (threshold, usize::MAX),
            Wanted::Top(n) => (nth_best(&found, n, y.is_none()), n),
        };
        found.retain(|&(cosine, ..)| cosine >= floor);
        if k >= longest {
            // No row can contribute more than all the pairs that are wanted.
            break;
        }
        open = open
            .iter()
            .zip(&lists)
            .filter(|(_, list)| list.len() == k && list.last().is_some_and(|e| e.0 >= floor))
            .map(|(&row, _)| row)
            .collect();
        k *= 2;
    }
    if y.is_none() {
        // Each unordered pair was found from both of its rows.
        found.retain(|&(_, row, other)| row < other);
    }
    found.sort_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    if let Wanted::Top(n) = wanted {
        found.truncate(n);
    }
    Ok(found
        .into_iter()
        .map(|(cosine, row, other)| SimilarPair {
            x: x.1.get(row as usize).to_owned(),
            y: base_ids.get(other as usize).to_owned(),
            cosine,
        })
        .collect())
}

/// The n-th best cosine found so far, counting an unordered pair once; −∞ while fewer are known.
fn nth_best(found: &[(f64, u32, u32)], n: usize, unordered: bool) -> f64 {
    if n == 0 {
        return f64::INFINITY;
    }
    let mut pairs: Vec<(u32, u32, f64)> = found
        .iter()
        .map(|&(cosine, a, b)| {
            if unordered {
                (a.min(b), a.max(b), cosine)
            } else {
                (a, b, cosine)
            }
        })
        .collect();
    pairs.sort_unstable_by_key(|&(a, b, _)| (a, b));
    pairs.dedup_by_key(|&mut (a, b, _)| (a, b));
    if pairs.len() < n {
        return f64::NEG_INFINITY;
    }
    pairs.sort_by(|a, b| b.2.total_cmp(&a.2));
    pairs[n - 1].2
}
