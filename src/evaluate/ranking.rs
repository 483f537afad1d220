//! Retrieval and reranking: rankings of documents per query, scored as trec_eval and MTEB score them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::beir;
use super::inputs::{self, Vectors};
use super::measures::{confidences, normalised_auc};
use super::suite::{RankingFiles, RankingInput};
use super::{Found, ItemScores, Job, Scores, instructions, rounded};
use crate::audit::read_qrels;
use crate::embeddings::Rows;
use crate::engine::{Metric, score};
use crate::error::{Error, Result};
use crate::metrics::retrieval::{discounted_gain, found_relevant, precision_sum, reciprocal_rank};
use crate::stats::paired::mean;

/// Rows beyond the depth that a search asks for at first, so that ties at the cut are seen.
const TIE_ROOM: usize = 24;

/// What similarity means in a ranking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Similarity {
    /// x·y / (‖x‖‖y‖); 0 where a vector is all zero.
    Cosine,
    /// x·y.
    Dot,
}

impl From<Similarity> for Metric {
    fn from(similarity: Similarity) -> Self {
        match similarity {
            Similarity::Cosine => Self::Cosine,
            Similarity::Dot => Self::Dot,
        }
    }
}

/// Documents by query, with scores; in the order of [`rank`] once ranked.
pub type Ranking = Vec<(f32, Arc<str>)>;

/// Rankings of a task, by query.
pub type Run = Vec<(String, Ranking)>;

/// Puts a ranking into trec_eval's order: by score as f32, descending, and of equal scores by id as bytes,
/// descending.
pub fn rank(ranking: &mut [(f32, Arc<str>)]) {
    ranking.sort_by(|a, b| compare((a.0, &a.1), (b.0, &b.1)));
}

fn compare(a: (f32, &str), b: (f32, &str)) -> Ordering {
    b.0.total_cmp(&a.0)
        .then_with(|| b.1.as_bytes().cmp(a.1.as_bytes()))
}

/// The metrics of one query, each with one value per cut-off.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMetrics {
    /// nDCG, linear gain.
    pub ndcg: Vec<f64>,
    /// Average precision, over all relevant documents.
    pub map: Vec<f64>,
    /// Recall, over all relevant documents.
    pub recall: Vec<f64>,
    /// Precision, over k, even where fewer were retrieved.
    pub precision: Vec<f64>,
    /// Reciprocal rank.
    pub mrr: Vec<f64>,
    /// 1 where a relevant document was found.
    pub hit_rate: Vec<f64>,
}

/// Scores a ranking in trec_eval's order at the cut-offs `ks`.
///
/// A document is relevant if its judgement is positive; negative judgements have no gain. Relevant documents
/// that no corpus has count all the same. Without a relevant document everything is 0.
///
/// # Source
/// trec_eval, as pytrec_eval-terrier 0.5.11 and mteb 2.26 call it.
pub fn query_metrics<'a>(
    ranked: impl Iterator<Item = &'a str>,
    judged: &HashMap<&str, f64>,
    ks: &[usize],
) -> QueryMetrics {
    let relevance: Vec<f64> = ranked
        .map(|id| judged.get(id).map_or(0.0, |r| r.max(0.0)))
        .collect();
    let mut ideal: Vec<f64> = judged.values().copied().filter(|&r| r > 0.0).collect();
    ideal.sort_unstable_by(|a, b| b.total_cmp(a));
    let relevant = ideal.len().max(1) as f64;
    let at = |value: &dyn Fn(usize) -> f64| ks.iter().map(|&k| value(k)).collect();
    QueryMetrics {
        ndcg: at(&|k| {
            let best = discounted_gain(&ideal, k);
            if best > 0.0 {
                discounted_gain(&relevance, k) / best
            } else {
                0.0
            }
        }),
        map: at(&|k| precision_sum(&relevance, k) / relevant),
        recall: at(&|k| found_relevant(&relevance, k) / relevant),
        precision: at(&|k| found_relevant(&relevance, k) / k as f64),
        mrr: at(&|k| reciprocal_rank(&relevance, k)),
        hit_rate: at(&|k| found_relevant(&relevance, k).min(1.0)),
    }
}

/// Evaluates a task of rankings.
pub(super) fn evaluate(job: &mut Job<'_>, files: &RankingFiles, reranking: bool) -> Result<Found> {
    let mut judgements: BTreeMap<String, HashMap<String, f64>> = BTreeMap::new();
    for qrel in read_qrels(&files.qrels)? {
        let judged = judgements.entry(qrel.query).or_default();
        judged.insert(qrel.document, qrel.relevance);
    }
    let depth = files.k_values.last().copied().unwrap_or(0);
    let mut run = match &files.input {
        RankingInput::Run { run } => read_run(run, &judgements)?,
        RankingInput::Vectors {
            corpus,
            queries,
            top_ranked,
            similarity,
        } => {
            let queries = job.vectors("queries", queries)?;
            let corpus = job.vectors("corpus", corpus)?;
            let search = Search {
                metric: (*similarity).into(),
                depth,
                queries: &queries,
                corpus: &corpus,
            };
            search.check_dimensions()?;
            if let Some(folder) = &files.beir {
                beir::check(folder, &corpus, &queries)?;
            }
            let query_rows = search.judged_queries(job, files, &judgements)?;
            search.warn_of_missing_documents(job, &judgements);
            match top_ranked {
                Some(path) => search.candidates(path, &query_rows)?,
                None => search.all(job, &query_rows)?,
            }
        }
    };
    run.par_iter_mut().for_each(|(query, ranking)| {
        rank(ranking);
        ranking.truncate(depth);
        if files.ignore_identical_ids {
            ranking.retain(|(_, id)| **id != **query);
        }
        if files.skip_first_result && !ranking.is_empty() {
            ranking.remove(0);
        }
    });
    if run.is_empty() {
        return Err(Error::input(
            &files.qrels,
            "no judged query has a ranking, expected at least one",
        ));
    }
    let ks = &files.k_values;
    let metrics: Vec<QueryMetrics> = run
        .par_iter()
        .map(|(query, ranking)| {
            let judged = judgements[query].iter();
            let judged = judged.map(|(id, &r)| (id.as_str(), r)).collect();
            query_metrics(ranking.iter().map(|(_, id)| &**id), &judged, ks)
        })
        .collect();
    let mut scores = aggregate(&run, &metrics, ks);
    let mut main = if reranking {
        "map_at_1000"
    } else {
        "ndcg_at_10"
    };
    if let Some(path) = &files.changed {
        let changes = instructions::read_changes(path)?;
        instructions::scores(path, &changes, &run, &metrics, ks, &mut scores)?;
        main = "p-MRR";
    }
    Ok(Found {
        main: main.to_owned(),
        scores,
        items: item_scores(&run, &metrics, ks),
        run: Some(run),
    })
}

type OfQuery = fn(&QueryMetrics) -> &Vec<f64>;

/// Name, whether MTEB rounds it, and where it is.
const METRICS: [(&str, bool, OfQuery); 6] = [
    ("ndcg", true, |m| &m.ndcg),
    ("map", true, |m| &m.map),
    ("recall", true, |m| &m.recall),
    ("precision", true, |m| &m.precision),
    ("mrr", false, |m| &m.mrr),
    ("hit_rate", true, |m| &m.hit_rate),
];

/// Means over queries, rounded where MTEB rounds, and how well scores tell them.
fn aggregate(run: &Run, metrics: &[QueryMetrics], ks: &[usize]) -> Scores {
    let column =
        |of: OfQuery, at: usize| -> Vec<f64> { metrics.iter().map(|m| of(m)[at]).collect() };
    let mut scores = Scores::default();
    for (name, round, of) in METRICS {
        for (at, k) in ks.iter().enumerate() {
            let value = mean(&column(of, at));
            let value = if round { rounded(value) } else { value };
            scores.push(format!("{name}_at_{k}"), Some(value));
            if name == "recall" && *k == 1 {
                scores.push("accuracy", Some(value));
            }
        }
    }
    let confidence: Vec<[f64; 3]> = run
        .iter()
        .map(|(_, ranking)| {
            let scores: Vec<f64> = ranking.iter().map(|(s, _)| f64::from(*s)).collect();
            confidences(&scores)
        })
        .collect();
    for (name, _, of) in METRICS.into_iter().filter(|(name, ..)| *name != "hit_rate") {
        for (at, k) in ks.iter().enumerate() {
            for (kind, way) in ["max", "std", "diff1"].iter().zip(0..) {
                let by: Vec<f64> = confidence.iter().map(|c| c[way]).collect();
                scores.push(
                    format!("nauc_{name}_at_{k}_{kind}"),
                    normalised_auc(&by, &column(of, at)),
                );
            }
        }
    }
    scores
}

fn item_scores(run: &Run, metrics: &[QueryMetrics], ks: &[usize]) -> ItemScores {
    let mut items = ItemScores::new("query_id", run.iter().map(|(id, _)| id.as_str()).collect());
    for (name, _, of) in METRICS {
        for (at, k) in ks.iter().enumerate() {
            items.push(
                format!("{name}_at_{k}"),
                metrics.iter().map(|m| Some(of(m)[at])).collect(),
            );
        }
    }
    items
}

/// Queries against documents.
struct Search<'a> {
    metric: Metric,
    depth: usize,
    queries: &'a Vectors,
    corpus: &'a Vectors,
}

impl Search<'_> {
    fn check_dimensions(&self) -> Result<()> {
        let (queries, corpus) = (self.queries.set.dim(), self.corpus.set.dim());
        if queries == corpus {
            return Ok(());
        }
        Err(Error::input(
            &self.queries.set.name,
            format!(
                "dimension {queries}, expected {corpus} as in {}",
                self.corpus.set.name
            ),
        )
        .hint("embed queries and corpus with the same model"))
    }

    /// Rows of the judged queries, in order of id.
    fn judged_queries(
        &self,
        job: &mut Job<'_>,
        files: &RankingFiles,
        judgements: &BTreeMap<String, HashMap<String, f64>>,
    ) -> Result<Vec<usize>> {
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for id in judgements.keys() {
            match self.queries.row_of(id) {
                Some(row) => rows.push(row),
                None => missing.push(id.as_str()),
            }
        }
        if !missing.is_empty() && !files.allow_missing {
            let name = &self.queries.set.name;
            return Err(inputs::missing_vectors(&files.qrels, &mut missing, name).hint(
                "ids must be the same text in both files; allow_missing = true leaves such queries out",
            ));
        }
        if !missing.is_empty() {
            job.warn(format!(
                "{} judged queries have no vector and are left out",
                missing.len()
            ));
        }
        let unjudged = self.queries.unlabelled(&rows);
        if unjudged > 0 {
            job.warn(format!(
                "{unjudged} queries have no judgement and are left out"
            ));
        }
        Ok(rows)
    }

    fn warn_of_missing_documents(
        &self,
        job: &mut Job<'_>,
        judgements: &BTreeMap<String, HashMap<String, f64>>,
    ) {
        let mut missing: Vec<&str> = judgements
            .values()
            .flatten()
            .filter(|(id, r)| **r > 0.0 && self.corpus.row_of(id).is_none())
            .map(|(id, _)| id.as_str())
            .collect();
        missing.sort_unstable();
        missing.dedup();
        if let Some(first) = missing.first() {
            job.warn(format!(
                "{} relevant documents have no vector and count as not retrieved (first: {first})",
                missing.len()
            ));
        }
    }

    /// The best documents of the whole corpus per query.
    ///
    /// The engine breaks ties by row, trec_eval by id, and compares in f32: where a tie reaches beyond
    /// what was asked for, more is asked for until it does not.
    fn all(&self, job: &Job<'_>, query_rows: &[usize]) -> Result<Run> {
        let mut run: Run = query_rows
            .iter()
            .map(|&row| (self.queries.id(row).to_owned(), Ranking::new()))
            .collect();
        let (mut open, zero): (Vec<usize>, Vec<usize>) =
            (0..query_rows.len()).partition(|&at| !self.queries.is_zero(query_rows[at]));
        let without_direction = self.corpus.set.len()..self.corpus.len();
        // Documents found more than once share one name.
        let mut names: Vec<Option<Arc<str>>> = vec![None; self.corpus.len()];
        let mut name = |row: usize| {
            let name = names[row].get_or_insert_with(|| self.corpus.id(row).into());
            Arc::clone(name)
        };
        for at in zero {
            run[at].1 = (0..self.corpus.len()).map(|row| (0.0, name(row))).collect();
        }
        let documents = self.corpus.set.rows();
        let mut k = (self.depth + TIE_ROOM).min(documents.len());
        while !open.is_empty() {
            let queries = self.queries.set.rows();
            let values = queries.gather(open.iter().map(|&at| query_rows[at]));
            let queries = Rows::new(&values, queries.dim());
            let lists = job
                .engine
                .nearest(queries, documents, k, self.metric, None)?
                .lists;
            let mut unsettled = Vec::new();
            for (&at, list) in open.iter().zip(lists) {
                let as_f32 = |rank: usize| list[rank].0 as f32;
                if k < documents.len()
                    && list.len() >= self.depth
                    && as_f32(self.depth - 1) == as_f32(list.len() - 1)
                {
                    unsettled.push(at);
                    continue;
                }
                let ranking = &mut run[at].1;
                ranking.extend(list.iter().map(|&(s, row)| (s as f32, name(row as usize))));
                ranking.extend(without_direction.clone().map(|row| (0.0, name(row))));
            }
            open = unsettled;
            k = k.saturating_mul(4).min(documents.len());
        }
        Ok(run)
    }

    /// Each query's own candidates.
    fn candidates(&self, path: &str, query_rows: &[usize]) -> Result<Run> {
        let table = inputs::read_table(
            path,
            &[
                &["query-id", "query_id", "qid"],
                &["corpus-id", "corpus_id", "doc_id", "docid"],
            ],
        )?;
        let mut candidates: HashMap<&str, Vec<&str>> = HashMap::new();
        for (query, document) in table[0].iter().zip(&table[1]) {
            candidates.entry(query).or_default().push(document);
        }
        let mut run = Run::new();
        for &query in query_rows {
            let id = self.queries.id(query);
            let Some(documents) = candidates.get(id) else {
                continue;
            };
            let rows = self.corpus.rows_of(path, documents.iter().copied())?;
            let x = self.queries.row(query);
            let ranking = rows.iter().map(|&row| {
                let y = self.corpus.row(row);
                (self.similarity(&x, &y) as f32, self.corpus.id(row).into())
            });
            run.push((id.to_owned(), ranking.collect()));
        }
        Ok(run)
    }

    fn similarity(&self, x: &[f32], y: &[f32]) -> f64 {
        let (x_norm, y_norm) = (score::norm(x), score::norm(y));
        if x_norm == 0.0 || y_norm == 0.0 {
            return 0.0;
        }
        score::similarity(self.metric, x, x_norm, y, y_norm)
    }
}

/// Reads a TREC run; rankings of queries that nobody judged are left out. The rank column is not believed,
/// as trec_eval does not.
fn read_run(path: &str, judgements: &BTreeMap<String, HashMap<String, f64>>) -> Result<Run> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::input(path, format!("cannot be read: {e}"))
            .hint("a TREC run has lines of: query Q0 document rank score tag")
    })?;
    parse_run(&text, path, judgements)
}

fn parse_run(
    text: &str,
    path: &str,
    judgements: &BTreeMap<String, HashMap<String, f64>>,
) -> Result<Run> {
    let mut run: BTreeMap<&str, HashMap<&str, f32>> = BTreeMap::new();
    for (number, line) in (1..)
        .zip(text.lines())
        .filter(|(_, l)| !l.trim().is_empty())
    {
        let refuse = |fact: String| Error::input(path, format!("line {number}: {fact}"));
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[query, _, document, _, score, _] = &fields[..] else {
            return Err(refuse(format!(
                "{} fields, expected 6 (query, Q0, document, rank, score, tag)",
                fields.len()
            )));
        };
        let score = match score.parse::<f64>() {
            Ok(score) if score.is_finite() => score as f32,
            _ => {
                return Err(refuse(format!(
                    "score is \"{score}\", expected a finite number"
                )));
            }
        };
        let ranking = run.entry(query).or_default();
        if ranking.insert(document, score).is_some() {
            return Err(refuse(format!(
                "document \"{document}\" stands twice for query \"{query}\", expected once"
            )));
        }
    }
    Ok(run
        .into_iter()
        .filter(|(query, _)| judgements.contains_key(*query))
        .map(|(query, ranking)| {
            let ranking = ranking.into_iter().map(|(id, s)| (s, id.into()));
            (query.to_owned(), ranking.collect())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::measures::golden;

    fn judgements(value: &serde_json::Value) -> BTreeMap<String, HashMap<String, f64>> {
        serde_json::from_value(value.clone()).unwrap()
    }

    /// Hand-made traps with the answers of pytrec_eval-terrier 0.5.11.
    #[test]
    fn golden_cases() {
        let golden = golden();
        let cases = golden["retrieval"].as_object().unwrap();
        assert_eq!(cases.len(), 8);
        for (name, case) in cases {
            let judged = judgements(&case["qrels"]);
            let runs: BTreeMap<String, BTreeMap<String, f64>> =
                serde_json::from_value(case["run"].clone()).unwrap();
            let mut lines = String::new();
            for (query, ranking) in &runs {
                for (document, score) in ranking {
                    lines += &format!("{query} Q0 {document} 0 {score} t\n");
                }
            }
            let mut run = parse_run(&lines, "run", &judged).unwrap();
            let expected = case["expected"].as_object().unwrap();
            assert_eq!(run.len(), expected.len(), "{name}");
            for (query, ranking) in &mut run {
                rank(ranking);
                let judged = judged[query].iter().map(|(id, &r)| (id.as_str(), r));
                let ks = [1, 3, 5, 10];
                let found =
                    query_metrics(ranking.iter().map(|(_, id)| &**id), &judged.collect(), &ks);
                for (stem, values) in [
                    ("ndcg_cut", &found.ndcg),
                    ("map_cut", &found.map),
                    ("recall", &found.recall),
                    ("P", &found.precision),
                    ("success", &found.hit_rate),
                ] {
                    for (k, value) in ks.iter().zip(values) {
                        let expected = expected[query][format!("{stem}_{k}")].as_f64().unwrap();
                        assert!(
                            (value - expected).abs() < 1e-12,
                            "{name} {stem} at {k}: {value}, expected {expected}"
                        );
                    }
                }
                let expected = expected[query]["recip_rank"].as_f64().unwrap();
                assert!((found.mrr[3] - expected).abs() < 1e-12, "{name}");
            }
        }
    }

    #[test]
    fn run_files_are_checked() {
        let judged = judgements(&serde_json::json!({"q": {"a": 1.0}}));
        for (text, message) in [
            ("q Q0 a 1 0.5\n", "line 1: 5 fields"),
            ("q Q0 a 1 nan t\n", "line 1: score is \"nan\""),
            (
                "q Q0 a 1 1 t\nq Q0 a 2 0 t\n",
                "line 2: document \"a\" stands twice",
            ),
        ] {
            let error = parse_run(text, "run", &judged).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
        }
        assert!(
            parse_run("p Q0 a 1 1 t\n", "run", &judged)
                .unwrap()
                .is_empty()
        );
    }
}
