//! Known items: without golden queries, chunks search for the rest of their own document.
//!
//! This says whether documents hold together as they did. It cannot say whether another model is better:
//! chunks of one document share words, names and style, which a model may well look past to find what
//! people ask for.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Serialize;

use super::losses::{self, Flips, RelevantRanks};
use super::{DEPTH, MetricComparison, QueryScores, compare_metrics, query_scores};
use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, Metric, SelfExclusion};
use crate::error::Result;
use crate::stats::paired::Resampling;

/// Documents that give a query, at most.
const MAX_QUERIES: usize = 2_000;
/// Fewer documents of two chunks or more say nothing.
pub const MIN_DOCUMENTS: usize = 20;

/// Chunks searching for the rest of their document, on both sides.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct KnownItems {
    /// Queries: one chunk of each document used.
    pub queries: usize,
    /// Documents that have at least two chunks on both sides.
    pub documents: usize,
    /// Whether each of them gave a query.
    pub exact: bool,
    /// Comparison per metric; the other chunks of the document are what is relevant.
    pub metrics: Vec<MetricComparison>,
    /// Chunks that found their document before and do not now, and the other way round.
    pub flips: Flips,
}

/// Lets one chunk of each document (2,000 documents at most, drawn by the hash of the id) search all others
/// of its side. `reference` and `current` hold the same chunks in the same order, `documents` the document
/// of each. One query per document, so that queries are independent.
///
/// `None` where fewer than 20 documents have two chunks.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If rows, ids and documents differ in number.
pub fn known_items(
    engine: &Engine,
    (reference, current): (Rows<'_>, Rows<'_>),
    ids: &Ids,
    documents: &[&str],
    resampling: &Resampling,
) -> Result<Option<KnownItems>> {
    assert_eq!(reference.len(), ids.len());
    assert_eq!(current.len(), ids.len());
    assert_eq!(documents.len(), ids.len());
    let mut chunks: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for (row, &document) in (0u32..).zip(documents) {
        chunks.entry(document).or_default().push(row);
    }
    chunks.retain(|_, rows| rows.len() >= 2);
    if chunks.len() < MIN_DOCUMENTS {
        return Ok(None);
    }
    // The document's chunk whose id hashes lowest, and of the documents those that hash lowest.
    let hash = |row: u32| ids.hash(row as usize, resampling.seed);
    let lowest = |rows: &Vec<u32>| {
        let hashed = rows
            .iter()
            .map(|&row| (hash(row), ids.get(row as usize), row));
        hashed.min()
    };
    let mut drawn: Vec<(u64, &str, u32)> = chunks.values().filter_map(lowest).collect();
    drawn.sort_unstable();
    drawn.truncate(MAX_QUERIES);
    drawn.sort_unstable_by_key(|&(_, id, _)| id);
    let rows: Vec<u32> = drawn.iter().map(|&(.., row)| row).collect();
    let relevant: Vec<HashMap<&str, f64>> = rows
        .iter()
        .map(|&row| {
            let others = chunks[documents[row as usize]]
                .iter()
                .filter(|&&r| r != row);
            others.map(|&r| (ids.get(r as usize), 1.0)).collect()
        })
        .collect();
    let (old, old_ranks) = search(engine, reference, ids, &rows, &relevant)?;
    let (new, new_ranks) = search(engine, current, ids, &rows, &relevant)?;
    let per_query: Vec<QueryScores> = drawn
        .iter()
        .zip(old.into_iter().zip(new))
        .map(|(&(_, id, _), (reference, current))| QueryScores {
            id: id.to_owned(),
            reference,
            current,
        })
        .collect();
    Ok(Some(KnownItems {
        queries: rows.len(),
        documents: chunks.len(),
        exact: rows.len() == chunks.len(),
        metrics: compare_metrics(&per_query, resampling),
        flips: losses::flips(&old_ranks, &new_ranks),
    }))
}

type Scores = Vec<[f64; super::METRICS.len()]>;

fn search<'a>(
    engine: &Engine,
    corpus: Rows<'_>,
    ids: &'a Ids,
    rows: &[u32],
    relevant: &[HashMap<&'a str, f64>],
) -> Result<(Scores, RelevantRanks<'a>)> {
    let queries = corpus.gather(rows.iter().map(|&row| row as usize));
    let all: Vec<u32> = (0..corpus.len() as u32).collect();
    let itself = SelfExclusion {
        queries: rows,
        base: &all,
    };
    let queries = Rows::new(&queries, corpus.dim());
    let found = engine.nearest(queries, corpus, DEPTH, Metric::Cosine, Some(itself))?;
    let ranked = |list: &Vec<(f64, u32)>| -> Vec<&'a str> {
        list.iter().map(|&(_, row)| ids.get(row as usize)).collect()
    };
    let lists = found.lists.iter().map(ranked).zip(relevant);
    let scored = lists.map(|(ranked, relevant)| {
        let places = (1..)
            .zip(&ranked)
            .filter(|(_, id)| relevant.contains_key(*id));
        let places = places.map(|(rank, &id)| (id, rank)).collect();
        (query_scores(&ranked, relevant), places)
    });
    Ok(scored.unzip())
}
