//! Golden queries: is what people search for still found?
//!
//! Queries with known relevant documents are run against both sides by exact search, scored per query,
//! and compared query by query. Exact search: what an approximate index loses is not in these numbers.
//! Documents of equal score rank by row; trec_eval ranks them by id, descending.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, Metric};
use crate::error::{Error, Result};
use crate::stats::correction::holm;
use crate::stats::paired::{PairedDifference, Resampling, mean};

mod known_items;
mod losses;
mod qrels;
mod scores;

pub use known_items::{KnownItems, MIN_DOCUMENTS, known_items};
use losses::RelevantRanks;
pub use losses::{FallOut, Flips, LostDocument};
pub use qrels::{Qrel, parse_qrels};
pub use scores::{
    METRICS, discounted_gain, found_relevant, precision_sum, query_scores, reciprocal_rank,
};

/// Documents retrieved per query.
const DEPTH: usize = 100;
/// Depth at which judgements are counted.
const JUDGED_DEPTH: usize = 10;
/// How many of the worst queries are listed.
const WORST_QUERIES: usize = 20;
/// How many missing ids are named.
const NAMED_IDS: usize = 10;
/// A loss of a metric that "no loss" may hide.
const EQUIVALENCE_MARGIN: f64 = 0.01;
/// Share of unjudged documents above which scores say as much of the judgements as of the vectors.
const MAX_UNJUDGED: f64 = 0.2;

/// Queries and corpus of one side, embedded by that side's model.
#[derive(Debug, Clone, Copy)]
pub struct RetrievalSide<'a> {
    /// Queries, q × d.
    pub queries: Rows<'a>,
    /// One id per query.
    pub query_ids: &'a Ids,
    /// Documents, n × d.
    pub corpus: Rows<'a>,
    /// One id per document.
    pub corpus_ids: &'a Ids,
}

/// Retrieval on golden queries, before and after.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Retrieval {
    /// Queries compared: with a relevant document, and present on both sides.
    pub queries: usize,
    /// Documents retrieved per query, at most.
    pub depth: usize,
    /// Judged queries that have no relevant document and are left out (trec_eval would score them 0).
    pub queries_without_relevant: usize,
    /// Queries with a relevant document that a side lacks; left out.
    pub missing_queries: MissingOnSides,
    /// Documents relevant to a compared query that a side's corpus lacks: they count as not retrieved.
    pub missing_documents: MissingOnSides,
    /// Share of the first 10 documents per query that nobody judged. If it rises, scores may fall for want
    /// of judgements alone.
    pub unjudged_at_10: UnjudgedShare,
    /// Whether more than a fifth of the first 10 documents are unjudged on the current side. Judgements made
    /// of the reference's results then hold back whatever finds other good documents.
    pub judgement_biased: bool,
    /// Comparison per metric.
    pub metrics: Vec<MetricComparison>,
    /// Queries that found something before and nothing now, and the other way round.
    pub flips: Flips,
    /// Relevant documents that were found before and are not now.
    pub fall_out: FallOut,
    /// Queries whose nDCG@10 fell most, worst first, ties by id.
    pub worst_queries: Vec<QueryChange>,
    /// Scores of every compared query, ordered by id.
    #[serde(skip)]
    pub per_query: Vec<QueryScores>,
}

/// Ids that one side or the other lacks.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MissingOnSides {
    /// Missing in the reference.
    pub reference: MissingIds,
    /// Missing in the current side.
    pub current: MissingIds,
}

/// Ids that are not there.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct MissingIds {
    /// How many.
    pub count: usize,
    /// The first few, by id.
    pub first_ids: Vec<String>,
}

/// Share of unjudged documents on both sides, in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct UnjudgedShare {
    /// In the reference.
    pub reference: f64,
    /// In the current side.
    pub current: f64,
}

/// One metric on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MetricComparison {
    /// Name as in [`METRICS`].
    pub metric: String,
    /// Mean over queries, reference.
    pub reference: f64,
    /// Mean over queries, current.
    pub current: f64,
    /// Difference current − reference, query by query.
    pub difference: PairedDifference,
    /// p-value of the difference, corrected for the number of metrics (Holm 1979).
    pub p_value_holm: f64,
    /// Whether the 95 % interval excludes a loss of 0.01 and more; null without an interval.
    pub no_loss: Option<bool>,
}

/// A query whose score changed.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct QueryChange {
    /// Query id.
    pub id: String,
    /// nDCG@10, reference.
    pub reference: f64,
    /// nDCG@10, current.
    pub current: f64,
    /// current − reference.
    pub difference: f64,
    /// Relevant documents among the first 10 before and not now, best first, 5 at most.
    pub lost_documents: Vec<LostDocument>,
}

/// All scores of one query, each in the order of [`METRICS`].
#[derive(Debug, Clone, PartialEq)]
pub struct QueryScores {
    /// Query id.
    pub id: String,
    /// Reference.
    pub reference: [f64; METRICS.len()],
    /// Current.
    pub current: [f64; METRICS.len()],
}

/// Runs the judged queries against both corpora and compares the rankings query by query.
///
/// Similarity is the cosine; the two sides may differ in dimension, corpus and order. The result does
/// not depend on the order of queries, judgements or (but for exact ties of score) documents.
///
/// # Errors
/// A side's queries and corpus differ in dimension, no query can be compared, or the device fails.
///
/// # Panics
/// If a side's rows and ids differ in number.
///
/// # Source
/// Metrics: [`query_scores`]. Comparison: Smucker, Allan and Carterette (2007), CIKM.
pub fn retrieval(
    engine: &Engine,
    reference: &RetrievalSide<'_>,
    current: &RetrievalSide<'_>,
    qrels: &[Qrel],
    resampling: &Resampling,
) -> Result<Retrieval> {
    check_dimensions(reference, "reference")?;
    check_dimensions(current, "current")?;
    // Ordered by id, so that resampling does not depend on the order of any file.
    let mut judgements: BTreeMap<&str, HashMap<&str, f64>> = BTreeMap::new();
    for qrel in qrels {
        let judged = judgements.entry(&qrel.query).or_default();
        judged.insert(&qrel.document, qrel.relevance);
    }
    let judged_queries = judgements.len();
    judgements.retain(|_, judged| judged.values().any(|&r| r > 0.0));
    let queries_without_relevant = judged_queries - judgements.len();
    let (rows_before, rows_after) = (row_by_id(reference.query_ids), row_by_id(current.query_ids));
    let missing_queries = MissingOnSides {
        reference: missing(judgements.keys().copied(), &rows_before),
        current: missing(judgements.keys().copied(), &rows_after),
    };
    judgements.retain(|id, _| rows_before.contains_key(id) && rows_after.contains_key(id));
    if judgements.is_empty() {
        return Err(Error::input(
            "retrieval",
            format!(
                "none of the {judged_queries} judged queries has a relevant document and is on both sides, expected at least one"
            ),
        )
        .hint("check that the judgements' query ids are those of the query files"));
    }
    let relevant: HashSet<&str> = judgements
        .values()
        .flat_map(|judged| judged.iter().filter(|(_, r)| **r > 0.0).map(|(&id, _)| id))
        .collect();
    let missing_relevant = |side: &RetrievalSide<'_>| {
        let mut ids: Vec<&str> = relevant.iter().copied().collect();
        ids.sort_unstable();
        missing(ids.into_iter(), &row_by_id(side.corpus_ids))
    };
    let before = run(engine, reference, &rows_before, &judgements)?;
    let after = run(engine, current, &rows_after, &judgements)?;
    let per_query: Vec<QueryScores> = judgements
        .keys()
        .zip(before.scores.iter().zip(&after.scores))
        .map(|(&id, (&reference, &current))| QueryScores {
            id: id.to_owned(),
            reference,
            current,
        })
        .collect();
    let there = row_by_id(current.corpus_ids);
    let there = relevant.iter().copied().filter(|id| there.contains_key(id));
    let (fall_out, lost) = losses::fall_out(&before.ranks, &after.ranks, &there.collect());
    Ok(Retrieval {
        queries: per_query.len(),
        depth: DEPTH,
        queries_without_relevant,
        missing_queries,
        missing_documents: MissingOnSides {
            reference: missing_relevant(reference),
            current: missing_relevant(current),
        },
        unjudged_at_10: UnjudgedShare {
            reference: before.unjudged_share,
            current: after.unjudged_share,
        },
        judgement_biased: after.unjudged_share > MAX_UNJUDGED,
        metrics: compare_metrics(&per_query, resampling),
        flips: losses::flips(&before.ranks, &after.ranks),
        fall_out,
        worst_queries: worst_queries(&per_query, &lost),
        per_query,
    })
}

fn check_dimensions(side: &RetrievalSide<'_>, name: &str) -> Result<()> {
    assert_eq!(side.queries.len(), side.query_ids.len());
    assert_eq!(side.corpus.len(), side.corpus_ids.len());
    let (queries, corpus) = (side.queries.dim(), side.corpus.dim());
    if queries == corpus {
        return Ok(());
    }
    let fact = format!("queries have dimension {queries}, expected the corpus's {corpus}");
    Err(Error::input(name, fact).hint("embed queries and corpus with the same model"))
}

fn row_by_id(ids: &Ids) -> HashMap<&str, usize> {
    ids.iter().zip(0..).collect()
}

fn missing<'a>(wanted: impl Iterator<Item = &'a str>, there: &HashMap<&str, usize>) -> MissingIds {
    let mut missing = MissingIds::default();
    for id in wanted.filter(|id| !there.contains_key(id)) {
        missing.count += 1;
        if missing.first_ids.len() < NAMED_IDS {
            missing.first_ids.push(id.to_owned());
        }
    }
    missing
}

/// One side's rankings, scored.
struct Run<'a> {
    /// Per query, in the order of the judgements.
    scores: Vec<[f64; METRICS.len()]>,
    unjudged_share: f64,
    ranks: RelevantRanks<'a>,
}

fn run<'a>(
    engine: &Engine,
    side: &RetrievalSide<'_>,
    query_rows: &HashMap<&str, usize>,
    judgements: &BTreeMap<&'a str, HashMap<&'a str, f64>>,
) -> Result<Run<'a>> {
    let queries = side
        .queries
        .gather(judgements.keys().map(|id| query_rows[id]));
    let queries = Rows::new(&queries, side.queries.dim());
    let found = engine.nearest(queries, side.corpus, DEPTH, Metric::Cosine, None)?;
    let mut ranks = Vec::with_capacity(judgements.len());
    let (mut scores, mut retrieved, mut unjudged) = (Vec::new(), 0usize, 0usize);
    for (list, judged) in found.lists.iter().zip(judgements.values()) {
        let ranked: Vec<&str> = list
            .iter()
            .map(|&(_, row)| side.corpus_ids.get(row as usize))
            .collect();
        let first = &ranked[..ranked.len().min(JUDGED_DEPTH)];
        retrieved += first.len();
        unjudged += first.iter().filter(|id| !judged.contains_key(*id)).count();
        scores.push(query_scores(&ranked, judged));
        let places = (1..).zip(&ranked).filter_map(|(rank, id)| {
            let (&id, &relevance) = judged.get_key_value(*id)?;
            (relevance > 0.0).then_some((id, rank))
        });
        ranks.push(places.collect());
    }
    Ok(Run {
        scores,
        unjudged_share: unjudged as f64 / retrieved.max(1) as f64,
        ranks,
    })
}

fn compare_metrics(per_query: &[QueryScores], resampling: &Resampling) -> Vec<MetricComparison> {
    let column = |side: fn(&QueryScores) -> &[f64; METRICS.len()], metric: usize| -> Vec<f64> {
        per_query.iter().map(|query| side(query)[metric]).collect()
    };
    let mut metrics: Vec<MetricComparison> = METRICS
        .iter()
        .enumerate()
        .map(|(metric, &name)| {
            let reference = column(|query| &query.reference, metric);
            let current = column(|query| &query.current, metric);
            let differences: Vec<f64> = current
                .iter()
                .zip(&reference)
                .map(|(after, before)| after - before)
                .collect();
            let difference = PairedDifference::new(&differences, resampling);
            MetricComparison {
                metric: name.to_owned(),
                reference: mean(&reference),
                current: mean(&current),
                p_value_holm: difference.p_value,
                no_loss: difference.ci95.map(|[low, _]| low > -EQUIVALENCE_MARGIN),
                difference,
            }
        })
        .collect();
    let p_values: Vec<f64> = metrics.iter().map(|m| m.difference.p_value).collect();
    for (metric, corrected) in metrics.iter_mut().zip(holm(&p_values)) {
        metric.p_value_holm = corrected;
    }
    metrics
}

fn worst_queries(
    per_query: &[QueryScores],
    lost: &BTreeMap<usize, Vec<LostDocument>>,
) -> Vec<QueryChange> {
    let mut changes: Vec<QueryChange> = per_query
        .iter()
        .enumerate()
        .map(|(i, query)| QueryChange {
            id: query.id.clone(),
            reference: query.reference[0],
            current: query.current[0],
            difference: query.current[0] - query.reference[0],
            lost_documents: lost.get(&i).cloned().unwrap_or_default(),
        })
        .filter(|change| change.difference < 0.0)
        .collect();
    // The sort is stable and the queries are ordered by id.
    changes.sort_by(|a, b| a.difference.total_cmp(&b.difference));
    changes.truncate(WORST_QUERIES);
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_holm() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/retrieval.json"
        );
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let values =
            |key: &str| -> Vec<f64> { serde_json::from_value(golden[key].clone()).unwrap() };
        for (found, expected) in holm(&values("pvals")).iter().zip(values("holm")) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}
