//! Which of several evaluated models is better, on what, and whether the difference is real.
//!
//! Works on what [`evaluate`](super::evaluate) left in folders: scores, and what each item contributed. Items
//! are paired by id, so two runs may differ in model, dimension and order.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::measures::{average_precision, average_ranks, pearson};
use super::{Evaluation, TaskScore, task_means};
use crate::audit::gate::Measure;
use crate::error::{Error, Result};
use crate::source;
use crate::stats::correction::holm;
use crate::stats::paired::{
    PairedDifference, Resampling, mean, quantile_sorted, standard_deviation,
};
use crate::stats::rng::Philox;

/// Resamples of a statistic that is no mean: each costs a sort of all items.
const RESAMPLES: u32 = 2_000;
/// Items listed whose scores fell most.
const WORST: usize = 10;
/// Level at which a difference is called real.
const LEVEL: f64 = 0.05;
/// Quantiles of the standard normal distribution at 97.5 % and 80 %: two-sided 5 % level, 80 % power.
const Z_975: f64 = 1.959_963_984_540_054;
const Z_80: f64 = 0.841_621_233_572_914_3;

/// An evaluation that stands in a folder.
#[derive(Debug, Clone)]
pub struct EvaluatedRun {
    /// The folder as the user named it.
    pub name: String,
    /// Its scores.
    pub evaluation: Evaluation,
    folder: PathBuf,
}

/// Runs held against each other.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Comparison {
    /// The runs, best by Borda count first.
    pub ranking: Vec<RankedRun>,
    /// Each run but the first, held against the first.
    pub pairs: Vec<PairComparison>,
}

/// A run among several.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RankedRun {
    /// Its folder.
    pub run: String,
    /// Rank by Borda count, 1 the best; equal counts share a rank.
    pub rank: usize,
    /// Σ over tasks of the number of runs less the (mean) rank on the task.
    pub borda: f64,
    /// Mean over tasks.
    pub mean_task: Option<f64>,
    /// Mean over task types.
    pub mean_task_type: Option<f64>,
}

/// Two runs, task by task; differences are current − reference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PairComparison {
    /// The run compared with.
    pub reference: String,
    /// The run that is judged.
    pub current: String,
    /// Difference of the means over tasks; null where a task has no score on a side.
    pub mean_task_difference: Option<f64>,
    /// Its 95 % interval over items, the tasks being independent and fixed; null where a task has none.
    pub mean_task_ci95: Option<[f64; 2]>,
    /// Tasks on which current is better at the 5 % level, after Holm's correction.
    pub better: usize,
    /// Tasks on which it is worse.
    pub worse: usize,
    /// Tasks that both runs have, in the reference's order.
    pub tasks: Vec<TaskComparison>,
    /// Tasks that only one of them has.
    pub unshared_tasks: Vec<String>,
}

/// One task on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct TaskComparison {
    /// Task, and subset where it has one.
    pub task: String,
    /// MTEB's name of its type.
    pub task_type: String,
    /// The main metric.
    pub metric: String,
    /// Its value in the reference.
    pub reference: Option<f64>,
    /// Its value in the current run.
    pub current: Option<f64>,
    /// What was tested, and how.
    pub test: String,
    /// Items that both sides have.
    pub items: usize,
    /// Items that one side lacks; they take no part in the test.
    pub unshared_items: usize,
    /// Difference over the shared items; null where the metric is no function of items.
    pub difference: Option<PairedDifference>,
    /// p-value, corrected for the number of tasks (Holm 1979).
    pub p_value_holm: Option<f64>,
    /// Exact test of right against wrong, where items are one or the other.
    pub mcnemar: Option<McNemar>,
    /// Items that lost most, worst first, ties by id.
    pub worst_items: Vec<ItemChange>,
}

/// Items that one side gets right and the other does not.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct McNemar {
    /// What is right or wrong.
    pub column: String,
    /// Right in the current run only.
    pub gained: u64,
    /// Right in the reference only.
    pub lost: u64,
    /// Exact two-sided p-value ([`mcnemar_p_value`]).
    pub p_value: f64,
}

/// An item whose score changed.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ItemChange {
    /// Its id.
    pub id: String,
    /// In the reference.
    pub reference: f64,
    /// In the current run.
    pub current: f64,
}

#[derive(Deserialize)]
struct ResultFile {
    command: String,
    results: serde_json::Value,
}

impl EvaluatedRun {
    /// Reads the `result.json` of a folder that `evaluate --out` wrote.
    ///
    /// # Errors
    /// There is none, or it is of something else.
    pub fn read(folder: &str) -> Result<Self> {
        let path = Path::new(folder).join("result.json");
        let refuse = |fact: String| {
            Error::input(path.display(), fact)
                .hint("compare takes folders that vecdrift evaluate --out wrote")
        };
        let text =
            std::fs::read_to_string(&path).map_err(|e| refuse(format!("cannot be read: {e}")))?;
        let file: ResultFile =
            serde_json::from_str(&text).map_err(|e| refuse(format!("is no result: {e}")))?;
        if file.command != "evaluate" {
            return Err(refuse(format!(
                "is the result of {}, expected evaluate",
                file.command
            )));
        }
        let evaluation = serde_json::from_value(file.results)
            .map_err(|e| refuse(format!("is no evaluation: {e}")))?;
        Ok(Self {
            name: folder.to_owned(),
            evaluation,
            folder: Path::new(folder).to_owned(),
        })
    }

    /// Columns of a task's items, by id.
    fn items(&self, task: &TaskScore, columns: &[&str]) -> Result<BTreeMap<String, Vec<f64>>> {
        let path = self.folder.join(task.items_file()).display().to_string();
        let mut wanted: Vec<&[&str]> = vec![&["query_id", "pair", "text_id", "run", "id"]];
        wanted.extend(columns.chunks(1));
        let table = source::read_text_columns(&path, &wanted)?;
        let mut items = BTreeMap::new();
        for i in 0..table[0].len() {
            let values: Option<Vec<f64>> = table[1..]
                .iter()
                .map(|c| c[i].parse::<f64>().ok())
                .collect();
            let Some(values) = values else { continue };
            // A pair may stand there twice: each is an item.
            let mut id = table[0][i].clone();
            let mut copy = 2;
            while items.contains_key(&id) {
                id = format!("{} ({copy})", table[0][i]);
                copy += 1;
            }
            items.insert(id, values);
        }
        Ok(items)
    }
}

/// Compares runs: each with the first, and all of them by Borda count.
///
/// # Errors
/// Fewer than two runs, no task that they share, or files that cannot be read.
pub fn compare(runs: &[EvaluatedRun], resampling: &Resampling) -> Result<Comparison> {
    let Some((reference, others)) = runs.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return Err(Error::input("compare", "one run, expected at least two"));
    };
    let pairs = others
        .iter()
        .map(|current| compare_pair(reference, current, resampling))
        .collect::<Result<Vec<_>>>()?;
    Ok(Comparison {
        ranking: ranking(runs),
        pairs,
    })
}

impl Comparison {
    /// What gates can be held against: of the last run against the first, `TASK.difference`,
    /// `mean_task.difference`, and the numbers of tasks `better` and `worse`.
    pub fn measures(&self) -> Vec<Measure> {
        let Some(pair) = self.pairs.last() else {
            return Vec::new();
        };
        let of = |name: String, estimate, ci95| Measure {
            name,
            estimate,
            ci95,
            missing: Some("the metric is no function of items on both sides".to_owned()),
        };
        let mut measures = vec![
            of(
                "mean_task.difference".to_owned(),
                pair.mean_task_difference,
                pair.mean_task_ci95,
            ),
            of("better".to_owned(), Some(pair.better as f64), None),
            of("worse".to_owned(), Some(pair.worse as f64), None),
        ];
        for task in &pair.tasks {
            measures.push(of(
                format!("{}.difference", task.task),
                task.difference.as_ref().map(|d| d.mean),
                task.difference.as_ref().and_then(|d| d.ci95),
            ));
        }
        measures
    }
}

fn compare_pair(
    reference: &EvaluatedRun,
    current: &EvaluatedRun,
    resampling: &Resampling,
) -> Result<PairComparison> {
    let key = |t: &TaskScore| (t.label(), t.split.clone());
    let theirs: HashMap<_, _> = current
        .evaluation
        .tasks
        .iter()
        .map(|t| (key(t), t))
        .collect();
    let mut unshared_tasks = Vec::new();
    let mut tasks = Vec::new();
    for a in &reference.evaluation.tasks {
        match theirs.get(&key(a)) {
            Some(b) if b.main_metric == a.main_metric => {
                tasks.push(compare_task((reference, a), (current, b), resampling)?);
            }
            _ => unshared_tasks.push(a.label()),
        }
    }
    let shared: Vec<String> = tasks.iter().map(|t| t.task.clone()).collect();
    unshared_tasks.extend(
        current
            .evaluation
            .tasks
            .iter()
            .map(TaskScore::label)
            .filter(|t| {
                !shared.contains(t) && !reference.evaluation.tasks.iter().any(|a| a.label() == *t)
            }),
    );
    if tasks.is_empty() {
        return Err(Error::input(
            &current.name,
            format!(
                "shares no task with {}, expected at least one",
                reference.name
            ),
        ));
    }
    let tested: Vec<usize> = (0..tasks.len())
        .filter(|&i| tasks[i].difference.is_some())
        .collect();
    let p_values: Vec<f64> = tested
        .iter()
        .filter_map(|&i| tasks[i].difference.as_ref().map(|d| d.p_value))
        .collect();
    for (&i, p) in tested.iter().zip(holm(&p_values)) {
        tasks[i].p_value_holm = Some(p);
    }
    let real = |sign: f64| {
        let counts = |t: &&TaskComparison| {
            let moved = t.difference.as_ref().is_some_and(|d| d.mean * sign > 0.0);
            moved && t.p_value_holm.is_some_and(|p| p <= LEVEL)
        };
        tasks.iter().filter(counts).count()
    };
    let (better, worse) = (real(1.0), real(-1.0));
    let (mean_task_difference, mean_task_ci95) = mean_difference(&tasks);
    Ok(PairComparison {
        reference: reference.name.clone(),
        current: current.name.clone(),
        mean_task_difference,
        mean_task_ci95,
        better,
        worse,
        tasks,
        unshared_tasks,
    })
}

/// Difference of the means over tasks, and its interval: items of different tasks are independent, so their
/// variances add.
fn mean_difference(tasks: &[TaskComparison]) -> (Option<f64>, Option<[f64; 2]>) {
    let differences: Option<Vec<f64>> = tasks
        .iter()
        .map(|t| Some(t.current? - t.reference?))
        .collect();
    let variances: Option<Vec<f64>> = tasks
        .iter()
        .map(|t| {
            let [low, high] = t.difference.as_ref()?.ci95?;
            Some(((high - low) / (2.0 * Z_975)).powi(2))
        })
        .collect();
    let estimate = differences.map(|d| mean(&d));
    let half = variances.map(|v| Z_975 * v.iter().sum::<f64>().sqrt() / v.len() as f64);
    let ci95 = estimate.zip(half).map(|(e, half)| [e - half, e + half]);
    (estimate, ci95)
}

/// What a task's main metric is made of.
enum Basis {
    /// The mean of a column.
    Mean(String),
    /// A statistic of all items: a function of gold values and scores, from columns of each side.
    Statistic(Statistic, [String; 2]),
}

#[derive(Clone, Copy)]
enum Statistic {
    Spearman,
    Pearson,
    AveragePrecision,
}

impl Basis {
    fn of(a: &TaskScore, b: &TaskScore) -> Option<Self> {
        let metric = a.main_metric.as_str();
        let both = |statistic, column: &str| {
            let column = if column.is_empty() { "cosine" } else { column };
            Some(Self::Statistic(
                statistic,
                [column.to_owned(), column.to_owned()],
            ))
        };
        match a.task_type.as_str() {
            "STS" => match metric.rsplit_once('_').unwrap_or(("", metric)) {
                (column, "spearman") => both(Statistic::Spearman, column),
                (column, "pearson") => both(Statistic::Pearson, column),
                _ => None,
            },
            "PairClassification" => match metric.strip_suffix("_ap")? {
                "max" => Some(Self::Statistic(
                    Statistic::AveragePrecision,
                    [best_similarity(a), best_similarity(b)],
                )),
                "similarity" => both(Statistic::AveragePrecision, "cosine"),
                column => both(Statistic::AveragePrecision, column),
            },
            "Classification" | "MultilabelClassification" => Some(Self::Mean("correct".into())),
            _ => Some(Self::Mean(metric.to_owned())),
        }
    }
}

/// The similarity with the largest average precision.
fn best_similarity(task: &TaskScore) -> String {
    let ap = |name: &&str| {
        task.scores
            .get(&format!("{name}_ap"))
            .flatten()
            .unwrap_or(0.0)
    };
    let names = ["cosine", "manhattan", "euclidean", "dot"];
    let first = names[0];
    let best = names.iter().fold(
        first,
        |best, name| if ap(name) > ap(&best) { name } else { best },
    );
    best.to_owned()
}

fn compare_task(
    (run_a, a): (&EvaluatedRun, &TaskScore),
    (run_b, b): (&EvaluatedRun, &TaskScore),
    resampling: &Resampling,
) -> Result<TaskComparison> {
    let mut compared = TaskComparison {
        task: a.label(),
        task_type: a.task_type.clone(),
        metric: a.main_metric.clone(),
        reference: a.main_score,
        current: b.main_score,
        test: "none: the metric is no function of items".to_owned(),
        items: 0,
        unshared_items: 0,
        difference: None,
        p_value_holm: None,
        mcnemar: None,
        worst_items: Vec::new(),
    };
    match Basis::of(a, b) {
        None => {}
        Some(Basis::Mean(column)) => {
            let joined = Joined::new(run_a.items(a, &[&column])?, run_b.items(b, &[&column])?);
            let sides = joined.column(0);
            compared.take_items(&joined, &sides);
            let differences: Vec<f64> = sides.iter().map(|(x, y)| y - x).collect();
            if differences.len() < 2 {
                compared.test = "none: fewer than two items".to_owned();
            } else {
                compared.test = format!("sign flips of {column} per item, bootstrap interval");
                compared.difference = Some(PairedDifference::new(&differences, resampling));
            }
        }
        Some(Basis::Statistic(statistic, [of_a, of_b])) => {
            let gold = match statistic {
                Statistic::AveragePrecision => "label",
                Statistic::Spearman | Statistic::Pearson => "gold",
            };
            let joined = Joined::new(
                run_a.items(a, &[&of_a, gold])?,
                run_b.items(b, &[&of_b, gold])?,
            );
            let gold: Vec<f64> = joined.column(1).iter().map(|g| g.0).collect();
            let (x, y): (Vec<f64>, Vec<f64>) = joined.column(0).into_iter().unzip();
            let (x, y) = (statistic.comparable(&x), statistic.comparable(&y));
            compared.test = format!(
                "{} of both sides, items exchanged between them at random, bootstrap interval",
                statistic.name()
            );
            let fit = |values: &[f64]| statistic.fit(&gold, values);
            let sides: Vec<(f64, f64)> = fit(&x).into_iter().zip(fit(&y)).collect();
            compared.take_items(&joined, &sides);
            compared.difference = statistic.difference(&gold, &x, &y, &sides, resampling);
        }
    }
    let right = match a.task_type.as_str() {
        "BitextMining" => Some("correct"),
        "Classification" => Some("knn5_correct"),
        _ => None,
    };
    if let Some(column) = right {
        let joined = Joined::new(run_a.items(a, &[column])?, run_b.items(b, &[column])?);
        let sides = joined.column(0);
        let count = |of: fn(&(f64, f64)) -> bool| sides.iter().filter(|s| of(s)).count() as u64;
        let (gained, lost) = (count(|(x, y)| x < y), count(|(x, y)| x > y));
        compared.mcnemar = Some(McNemar {
            column: column.to_owned(),
            gained,
            lost,
            p_value: mcnemar_p_value(gained, lost),
        });
    }
    Ok(compared)
}

impl TaskComparison {
    fn take_items(&mut self, joined: &Joined, sides: &[(f64, f64)]) {
        self.items = joined.rows.len();
        self.unshared_items = joined.unshared;
        let mut worst: Vec<ItemChange> = joined
            .rows
            .iter()
            .zip(sides)
            .filter(|(_, (x, y))| y < x)
            .map(|((id, ..), &(reference, current))| ItemChange {
                id: id.clone(),
                reference,
                current,
            })
            .collect();
        // Stable: the rows are ordered by id.
        worst.sort_by(|p, q| (p.current - p.reference).total_cmp(&(q.current - q.reference)));
        worst.truncate(WORST);
        self.worst_items = worst;
    }
}

/// Items of both sides, by id.
struct Joined {
    rows: Vec<(String, Vec<f64>, Vec<f64>)>,
    unshared: usize,
}

impl Joined {
    fn new(a: BTreeMap<String, Vec<f64>>, mut b: BTreeMap<String, Vec<f64>>) -> Self {
        let (of_a, of_b) = (a.len(), b.len());
        let rows: Vec<_> = a
            .into_iter()
            .filter_map(|(id, x)| b.remove(&id).map(|y| (id, x, y)))
            .collect();
        Self {
            unshared: of_a + of_b - 2 * rows.len(),
            rows,
        }
    }

    fn column(&self, at: usize) -> Vec<(f64, f64)> {
        self.rows.iter().map(|(_, x, y)| (x[at], y[at])).collect()
    }
}

impl Statistic {
    fn name(self) -> &'static str {
        match self {
            Self::Spearman => "Spearman correlation",
            Self::Pearson => "Pearson correlation",
            Self::AveragePrecision => "average precision",
        }
    }

    fn value(self, gold: &[f64], scores: &[f64]) -> Option<f64> {
        match self {
            Self::Spearman => pearson(&average_ranks(gold), &average_ranks(scores)),
            Self::Pearson => pearson(gold, scores),
            Self::AveragePrecision => {
                let labels: Vec<bool> = gold.iter().map(|&g| g > 0.5).collect();
                average_precision(scores, &labels)
            }
        }
    }

    /// Scores on a scale on which both sides' may be exchanged: ranks over n, or standardised.
    fn comparable(self, scores: &[f64]) -> Vec<f64> {
        match self {
            Self::Spearman | Self::AveragePrecision => {
                let n = scores.len().max(1) as f64;
                average_ranks(scores).iter().map(|r| r / n).collect()
            }
            Self::Pearson => {
                let centre = mean(scores);
                let scale = standard_deviation(scores)
                    .filter(|s| *s > 0.0)
                    .unwrap_or(1.0);
                scores.iter().map(|s| (s - centre) / scale).collect()
            }
        }
    }

    /// How well each item's score fits its gold value, from comparable scores: larger is better.
    fn fit(self, gold: &[f64], scores: &[f64]) -> Vec<f64> {
        let gold = match self {
            Self::AveragePrecision => gold.to_vec(),
            Self::Spearman | Self::Pearson => self.comparable(gold),
        };
        let pairs = gold.iter().zip(scores);
        pairs.map(|(g, s)| 1.0 - (g - s).abs()).collect()
    }

    /// As [`PairedDifference`] of a mean, of this statistic: p by exchanging items between the sides, interval
    /// by drawing items anew (percentiles). `None` where the statistic is undefined.
    fn difference(
        self,
        gold: &[f64],
        x: &[f64],
        y: &[f64],
        sides: &[(f64, f64)],
        resampling: &Resampling,
    ) -> Option<PairedDifference> {
        let n = gold.len();
        let observed = self.value(gold, y)? - self.value(gold, x)?;
        let flips = resampling.sign_flips.min(RESAMPLES);
        let reached = observed.abs() - 1e-12;
        let extreme = (0..u64::from(flips))
            .into_par_iter()
            .filter(|&flip| {
                let mut random = Philox::new(resampling.seed, flip);
                let (mut p, mut q) = (x.to_vec(), y.to_vec());
                for i in 0..n {
                    if random.next_u32() & 1 == 1 {
                        std::mem::swap(&mut p[i], &mut q[i]);
                    }
                }
                match (self.value(gold, &p), self.value(gold, &q)) {
                    (Some(p), Some(q)) => (q - p).abs() >= reached,
                    _ => true,
                }
            })
            .count();
        // The streams of the bootstrap begin where those of the test can never reach.
        let first = 1u64 << 40;
        let mut drawn: Vec<f64> = (0..u64::from(resampling.bootstraps.min(RESAMPLES)))
            .into_par_iter()
            .filter_map(|draw| {
                let mut random = Philox::new(resampling.seed, first + draw);
                let rows: Vec<usize> = (0..n).map(|_| random.below(n as u32) as usize).collect();
                let pick = |of: &[f64]| -> Vec<f64> { rows.iter().map(|&i| of[i]).collect() };
                let gold = pick(gold);
                Some(self.value(&gold, &pick(y))? - self.value(&gold, &pick(x))?)
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let count = |of: fn(&(f64, f64)) -> bool| sides.iter().filter(|s| of(s)).count() as u64;
        let enough = drawn.len() >= 100;
        Some(PairedDifference {
            mean: observed,
            ci95: enough.then(|| [0.025, 0.975].map(|level| quantile_sorted(&drawn, level))),
            p_value: (1 + extreme) as f64 / f64::from(flips + 1),
            p_value_exact: false,
            wins: count(|(a, b)| b > a),
            losses: count(|(a, b)| b < a),
            ties: count(|(a, b)| b == a),
            minimum_detectable: standard_deviation(&drawn)
                .filter(|_| enough)
                .map(|sd| (Z_975 + Z_80) * sd),
        })
    }
}

/// Exact two-sided p-value of "an item changes either way with equal chance": twice the smaller tail of the
/// binomial distribution, at most 1.
///
/// # Source
/// McNemar (1947), with the exact distribution.
pub fn mcnemar_p_value(gained: u64, lost: u64) -> f64 {
    let n = gained + lost;
    let fewer = gained.min(lost);
    // Terms grow up to the middle: log C(n, k) − n·log 2, one after the other.
    let mut ln_term = -(n as f64) * std::f64::consts::LN_2;
    let mut tail = ln_term.exp();
    for k in 1..=fewer {
        ln_term += ((n - k + 1) as f64).ln() - (k as f64).ln();
        tail += ln_term.exp();
    }
    (2.0 * tail).min(1.0)
}

/// The runs by Borda count over the tasks on which all have a score.
fn ranking(runs: &[EvaluatedRun]) -> Vec<RankedRun> {
    let scores: Vec<BTreeMap<String, Option<f64>>> = runs
        .iter()
        .map(|run| {
            let means = task_means(&run.evaluation.tasks).into_iter();
            means.map(|(name, _, score)| (name, score)).collect()
        })
        .collect();
    let mut points = vec![0.0; runs.len()];
    for task in scores[0].keys() {
        let of_task: Option<Vec<f64>> = scores
            .iter()
            .map(|s| s.get(task).copied().flatten().map(|v| -v))
            .collect();
        let ranks = of_task.map_or(Vec::new(), |of_task| average_ranks(&of_task));
        for (points, rank) in points.iter_mut().zip(ranks) {
            *points += runs.len() as f64 - rank;
        }
    }
    let mut ranked: Vec<RankedRun> = runs
        .iter()
        .zip(&points)
        .map(|(run, &borda)| RankedRun {
            run: run.name.clone(),
            rank: 1 + points.iter().filter(|&&p| p > borda).count(),
            borda,
            mean_task: run.evaluation.mean_task,
            mean_task_type: run.evaluation.mean_task_type,
        })
        .collect();
    ranked.sort_by_key(|r| r.rank);
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of SciPy's exact binomial test.
    #[test]
    fn golden_mcnemar() {
        for (gained, lost, expected) in [
            (21, 25, 0.6587380770236564),
            (8, 113, 7.2744533233669705e-25),
            (5, 6, 1.0),
            (5, 10, 0.30175781249999994),
            (58, 349, 9.820554228242699e-52),
            (0, 0, 1.0),
        ] {
            let found = mcnemar_p_value(gained, lost);
            assert!(
                (found / expected - 1.0).abs() < 1e-9,
                "{gained} {lost}: {found}"
            );
            assert_eq!(found, mcnemar_p_value(lost, gained));
        }
    }

    /// Level and power of the exchange test: two sides with equal noise about the gold values, then one with
    /// more.
    #[test]
    fn exchanged_items_keep_their_level_and_find_a_worse_side() {
        let resampling = Resampling {
            sign_flips: 99,
            bootstraps: 100,
            seed: 3,
        };
        let rejected = |noise_of_y: f64| {
            (0..100)
                .filter(|&seed| {
                    let mut random = Philox::new(seed, 0);
                    let n = 60;
                    let gold: Vec<f64> = (0..n).map(|_| random.normal()).collect();
                    let mut noisy = |noise: f64| -> Vec<f64> {
                        gold.iter().map(|g| g + noise * random.normal()).collect()
                    };
                    let (x, y) = (noisy(1.0), noisy(noise_of_y));
                    let statistic = Statistic::Spearman;
                    let (x, y) = (statistic.comparable(&x), statistic.comparable(&y));
                    let found = statistic.difference(&gold, &x, &y, &[], &resampling);
                    found.is_some_and(|d| d.p_value <= 0.05)
                })
                .count()
        };
        // Binomial(100, 0.05) exceeds 12 once in 700 times.
        let (level, power) = (rejected(1.0), rejected(4.0));
        assert!(level <= 12, "{level} of 100");
        assert!(power >= 80, "{power} of 100");
    }
}
