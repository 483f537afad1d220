//! Queries that ask for what the corpus does not hold: out of distribution, calibrated.
//!
//! A query's score is its distance from the reference corpus. Scores mean nothing by themselves, so they are
//! held against those of reference *queries*: documents would not do, since a document lies nearer to its
//! kind than any query does. At level α a share α of usual queries raises an alarm; what comes beyond is the
//! excess rate.

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, score};
use crate::error::Result;
use crate::stats::conformal::{ExcessRate, conformal_p_values, minimum_detectable_excess};
use crate::stats::correction::benjamini_hochberg;
use crate::stats::counts::wilson_ci95;

mod scores;

use scores::{Model, Scored};
pub use scores::{OodScoreName, ledoit_wolf_shrinkage};

/// Fewer calibration queries or queries give no excess rate.
pub const MIN_QUERIES: usize = 100;
/// Fewer calibration queries let the rate of false alarms stray: a warning says so.
pub const GOOD_CALIBRATION: usize = 1_000;
/// Queries listed.
const WORST_QUERIES: usize = 20;

/// Queries or documents with their ids.
#[derive(Debug, Clone, Copy)]
pub struct Identified<'a> {
    /// n × d.
    pub rows: Rows<'a>,
    /// One id per row.
    pub ids: &'a Ids,
}

/// How queries are judged.
#[derive(Debug, Clone, PartialEq)]
pub struct OodConfig {
    /// Nearest document that the main score looks at.
    pub k: usize,
    /// p-value from which a query raises an alarm.
    pub alpha: f64,
    /// False discovery rate of the list of queries.
    pub false_discovery_rate: f64,
    /// Queries used per side, at most; drawn by the hash of their ids.
    pub max_queries: usize,
    /// Seed of samples and clusters.
    pub seed: u64,
}

impl Default for OodConfig {
    fn default() -> Self {
        Self {
            k: 10,
            alpha: 0.05,
            false_discovery_rate: 0.05,
            max_queries: 10_000,
            seed: 0,
        }
    }
}

/// Current queries against the reference corpus, by the standard of reference queries.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Ood {
    /// Nearest document that the main score looks at.
    pub k: usize,
    /// Documents that were searched: all of them.
    pub corpus_rows: u64,
    /// Reference queries that the scores are held against.
    pub calibration_queries: u64,
    /// Current queries judged.
    pub queries: u64,
    /// Whether every query was used.
    pub exact: bool,
    /// Whether the current queries are the reference ones, embedded anew: then the excess is of queries that
    /// moved, taken query by query.
    pub same_queries: bool,
    /// p-value from which a query raises an alarm: the rate of false alarms.
    pub alpha: f64,
    /// Rates by score, the main one (nearest documents) first.
    pub scores: Vec<OodRate>,
    /// Smallest true excess that this many queries show with 80 % power at the two-sided 5 % level: the
    /// noise floor of the excess rate. Null where there are too few queries.
    pub minimum_detectable_excess: Option<f64>,
    /// False discovery rate of the list.
    pub false_discovery_rate: f64,
    /// Queries whose corrected p-value is at most that.
    pub out_of_distribution: u64,
    /// The queries farthest from the corpus that raise an alarm, farthest first, ties by id.
    pub worst_queries: Vec<OodQuery>,
    /// What keeps the numbers from being good ones.
    pub notes: Vec<String>,
}

/// How many queries raise an alarm, by one score.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OodRate {
    /// The score.
    pub score: OodScoreName,
    /// Queries with p ≤ α.
    pub alarms: u64,
    /// Their share.
    pub rate: f64,
    /// Wilson's 95 % interval of that share, the calibration taken as given.
    pub rate_ci95: [f64; 2],
    /// (rate − α)/(1 − α): the share of queries beyond false alarms. Null where there are too few queries.
    pub excess: Option<f64>,
    /// Its 95 % interval, the calibration taken for the sample that it is.
    pub excess_ci95: Option<[f64; 2]>,
    /// Median score of the reference queries.
    pub median_reference: f64,
    /// Median score of the current queries.
    pub median_current: f64,
}

/// A query far from the corpus.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OodQuery {
    /// Query id.
    pub id: String,
    /// 1 − cosine to the k-th nearest document.
    pub score: f64,
    /// Conformal p-value.
    pub p_value: f64,
    /// The same, corrected for the number of queries (Benjamini & Hochberg).
    pub p_value_fdr: f64,
    /// The nearest document.
    pub nearest_id: String,
    /// Its cosine.
    pub nearest_cosine: f64,
}

impl Ood {
    /// The main score's rates.
    pub fn main(&self) -> &OodRate {
        &self.scores[0]
    }
}

/// Judges current queries against the reference corpus; all three live in one space.
///
/// The p-value of a query is conformal ([`conformal_p_values`]) among the reference queries' scores. The
/// excess rate has an interval only with 100 queries or more on both sides. Where both sides have the same
/// ids and the vectors agree that they are the same queries, these are compared one by one
/// ([`ExcessRate::paired`]).
/// `None` where there is no query on a side or no document.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If dimensions differ, or rows and ids differ in number.
///
/// # Source
/// Sun et al. 2022 (k-th neighbour); Bates et al. 2023 (conformal p-values, their correction).
pub fn ood(
    engine: &Engine,
    corpus: Identified<'_>,
    calibration: Identified<'_>,
    queries: Identified<'_>,
    config: &OodConfig,
) -> Result<Option<Ood>> {
    for set in [&corpus, &calibration, &queries] {
        assert_eq!(set.rows.len(), set.ids.len());
        assert_eq!(set.rows.dim(), corpus.rows.dim());
    }
    if corpus.rows.is_empty() || calibration.rows.is_empty() || queries.rows.is_empty() {
        return Ok(None);
    }
    let (before, after) = (Drawn::new(calibration, config), Drawn::new(queries, config));
    let model = Model::fit(engine, corpus.rows, corpus.ids, config)?;
    let dim = corpus.rows.dim();
    let old = model.score(engine, Rows::new(&before.values, dim))?;
    let new = model.score(engine, Rows::new(&after.values, dim))?;
    let same_queries = before.is_reembedded(&after, dim);
    let (n, m) = (before.ids.len(), after.ids.len());
    let enough = n.min(m) >= MIN_QUERIES;
    let mut notes = Vec::new();
    if !enough {
        notes.push(format!(
            "{n} reference and {m} current queries give no excess rate: it takes {MIN_QUERIES} on both sides, and {GOOD_CALIBRATION} for a good one"
        ));
    } else if n < GOOD_CALIBRATION && !same_queries {
        notes.push(format!(
            "{n} reference queries are few to calibrate by: {GOOD_CALIBRATION} hold the rate of false alarms within about a percentage point"
        ));
    }
    let rates = old.scores.iter().zip(&new.scores);
    let scores = rates
        .map(|((name, old), (_, new))| rate(*name, old, new, same_queries, enough, config.alpha))
        .collect();
    let p_values = conformal_p_values(&old.scores[0].1, &new.scores[0].1);
    let corrected = benjamini_hochberg(&p_values);
    let rate = config.false_discovery_rate;
    Ok(Some(Ood {
        k: config.k.min(corpus.rows.len()),
        corpus_rows: corpus.rows.len() as u64,
        calibration_queries: n as u64,
        queries: m as u64,
        exact: n == calibration.rows.len() && m == queries.rows.len(),
        same_queries,
        alpha: config.alpha,
        scores,
        minimum_detectable_excess: (enough && !same_queries)
            .then(|| minimum_detectable_excess(m, n, config.alpha)),
        false_discovery_rate: rate,
        out_of_distribution: corrected.iter().filter(|&&p| p <= rate).count() as u64,
        worst_queries: worst(&after, &new, (&p_values, &corrected), corpus.ids, config),
        notes,
    }))
}

/// Queries in an order that is that of no file.
struct Drawn {
    ids: Vec<String>,
    values: Vec<f32>,
}

impl Drawn {
    /// Those whose ids hash lowest, ordered by id.
    fn new(set: Identified<'_>, config: &OodConfig) -> Self {
        let mut order: Vec<usize> = (0..set.ids.len()).collect();
        if order.len() > config.max_queries {
            order.sort_by_cached_key(|&row| (set.ids.hash(row, config.seed), row));
            order.truncate(config.max_queries);
        }
        order.sort_by_key(|&row| set.ids.get(row));
        Self {
            ids: order
                .iter()
                .map(|&row| set.ids.get(row).to_owned())
                .collect(),
            values: set.rows.gather(order),
        }
    }
}

impl Drawn {
    /// Whether the other side holds the same queries: equal ids, and vectors at least half-way from what
    /// neighbours in the list have in common to being equal. Numbered rows have equal ids, too.
    fn is_reembedded(&self, other: &Self, dim: usize) -> bool {
        if self.ids != other.ids || self.ids.len() < 2 {
            return false;
        }
        let n = self.ids.len();
        let mean_cosine = |offset: usize| {
            let cosines = (0..n).map(|i| {
                let x = &self.values[i * dim..][..dim];
                let y = &other.values[(i + offset) % n * dim..][..dim];
                score::dot(x, y) / (score::norm(x) * score::norm(y))
            });
            cosines.sum::<f64>() / n as f64
        };
        let (own, other) = (mean_cosine(0), mean_cosine(1));
        own > other && own - other >= 0.5 * (1.0 - other)
    }
}

fn rate(
    score: OodScoreName,
    old: &[f64],
    new: &[f64],
    same_queries: bool,
    enough: bool,
    alpha: f64,
) -> OodRate {
    let alarm = |scores: &[f64]| -> Vec<bool> {
        let p_values = conformal_p_values(old, scores);
        p_values.iter().map(|&p| p <= alpha).collect()
    };
    let now = alarm(new);
    let alarms = now.iter().filter(|&&a| a).count();
    let share = alarms as f64 / new.len() as f64;
    let excess = if same_queries {
        let before = alarm(old);
        let changed = |from: bool| {
            let pairs = before.iter().zip(&now);
            pairs.filter(|&(&b, &n)| b == from && n != from).count()
        };
        ExcessRate::paired(changed(false), changed(true), new.len(), alpha)
    } else {
        ExcessRate::independent(share, new.len(), old.len(), alpha)
    };
    OodRate {
        score,
        alarms: alarms as u64,
        rate: share,
        rate_ci95: wilson_ci95(alarms as u64, new.len() as u64),
        excess: enough.then_some(excess.estimate),
        excess_ci95: enough.then(|| excess.ci95()),
        median_reference: median(old),
        median_current: median(new),
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    crate::stats::paired::quantile_sorted(&sorted, 0.5)
}

fn worst(
    queries: &Drawn,
    scored: &Scored,
    (p_values, corrected): (&[f64], &[f64]),
    documents: &Ids,
    config: &OodConfig,
) -> Vec<OodQuery> {
    let scores = &scored.scores[0].1;
    let mut order: Vec<usize> = (0..scores.len())
        .filter(|&i| p_values[i] <= config.alpha)
        .collect();
    // The sort is stable and the queries are ordered by id.
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order.truncate(WORST_QUERIES);
    let of = |i: usize| {
        let (row, cosine) = scored.nearest[i];
        OodQuery {
            id: queries.ids[i].clone(),
            score: scores[i],
            p_value: p_values[i],
            p_value_fdr: corrected[i],
            nearest_id: documents.get(row as usize).to_owned(),
            nearest_cosine: cosine,
        }
    };
    order.into_iter().map(of).collect()
}
