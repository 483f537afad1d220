//! Rows that say the same: how many have another row almost in their own direction.

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, Metric, SelfExclusion};
use crate::error::Result;
use crate::stats::counts::wilson_ci95;

/// Pairs of rows that are looked at, about: more rows are asked where fewer must be searched.
const PAIRS: usize = 100_000_000;
/// Fewest rows asked of a large set.
const MIN_ASKED: usize = 1_000;
/// Cosines from which a row counts as a near-duplicate.
const COSINES: [f64; 4] = [0.9, 0.95, 0.98, 0.99];
/// The one that evidence and gates read.
const HEADLINE: f64 = 0.99;

/// How many rows have a near-duplicate.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NearDuplicates {
    /// Rows asked, drawn by the hash of their id; all rows were searched for each.
    pub rows: u64,
    /// Whether every row was asked.
    pub exact: bool,
    /// Shares by cosine.
    pub shares: Vec<NearDuplicateShare>,
}

/// Rows whose nearest other row is that near.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct NearDuplicateShare {
    /// The cosine.
    pub cosine: f64,
    /// Rows asked whose nearest other row has this cosine or more; exact duplicates among them.
    pub hits: u64,
    /// Their share.
    pub share: f64,
    /// Its 95 % interval (Wilson); the share itself where every row was asked.
    pub ci95: [f64; 2],
}

impl NearDuplicates {
    /// The share at a cosine of 0.99.
    pub fn headline(&self) -> Option<&NearDuplicateShare> {
        self.shares.iter().find(|share| share.cosine == HEADLINE)
    }
}

/// Asks rows for their nearest other row. `None` with fewer than two rows.
///
/// 1,000 rows are asked, or as many as make 10⁸ pairs with all rows. Larger sets are denser: shares of sets of
/// other sizes differ without a fault.
///
/// # Errors
/// The device fails.
pub fn near_duplicates(
    engine: &Engine,
    rows: Rows<'_>,
    ids: &Ids,
    seed: u64,
) -> Result<Option<NearDuplicates>> {
    let n = rows.len();
    if n < 2 {
        return Ok(None);
    }
    let mut asked: Vec<u32> = (0..n as u32).collect();
    let most = (PAIRS / n).max(MIN_ASKED);
    if n > most {
        asked.sort_by_cached_key(|&row| (ids.hash(row as usize, seed), row));
        asked.truncate(most);
    }
    let all: Vec<u32> = (0..n as u32).collect();
    let values = rows.gather(asked.iter().map(|&row| row as usize));
    let exclude = SelfExclusion {
        queries: &asked,
        base: &all,
    };
    let found = engine.nearest(
        Rows::new(&values, rows.dim()),
        rows,
        1,
        Metric::Cosine,
        Some(exclude),
    )?;
    let exact = asked.len() == n;
    let shares = COSINES.map(|cosine| {
        let lists = found.lists.iter();
        let hits = lists
            .filter(|list| list.first().is_some_and(|l| l.0 >= cosine))
            .count() as u64;
        let share = hits as f64 / asked.len() as f64;
        NearDuplicateShare {
            cosine,
            hits,
            share,
            ci95: if exact {
                [share; 2]
            } else {
                wilson_ci95(hits, asked.len() as u64)
            },
        }
    });
    Ok(Some(NearDuplicates {
        rows: asked.len() as u64,
        exact,
        shares: shares.to_vec(),
    }))
}
