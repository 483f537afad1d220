//! MTEB-style evaluation of embeddings that already exist.
//!
//! A suite names tasks: files of vectors, files of labels. [`evaluate`] scores each as MTEB 2.26 does, to
//! the digit where MTEB's definition is deterministic. No model is run and nothing is fetched.
//!
//! Each task type is one file below; [`measures`] has the scores as pure functions, [`ranking`] those of
//! rankings.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::engine::{Engine, Progress};
use crate::error::{Error, Result};
use crate::output::{InputSummary, Stopwatch, Timing};
use crate::stats::paired::mean;

mod beir;
mod bitext;
mod classification;
mod clustering;
pub mod compare;
mod inputs;
mod instructions;
mod logistic;
pub mod measures;
mod minibatch;
mod multilabel;
mod pair_classification;
mod pairs;
mod random;
pub mod ranking;
mod stratified;
mod sts;
mod suite;
mod summarization;

pub use inputs::{Quantization, Reduction};
pub use pairs::cosine as paired_cosine;
pub use suite::{
    ClusteringFiles, LabelFiles, PairFiles, RankingFiles, RankingInput, Split, Suite, Task,
    TaskKind,
};

use inputs::Vectors;
use pairs::PairScores;
use ranking::Run;

/// Version of mteb whose definitions these are.
pub const MTEB_VERSION: &str = "2.26.24";

/// Scores of a suite's tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evaluation {
    /// The suite's name.
    pub suite: String,
    /// What the vectors were changed to first, in a word; null where nothing was.
    pub reduction: Option<String>,
    /// Mean over tasks; a task's score is the mean over its subsets. Null where a score is.
    pub mean_task: Option<f64>,
    /// Mean over task types of their tasks' mean. Null where a score is.
    pub mean_task_type: Option<f64>,
    /// Mean per task type, by name.
    pub task_types: Vec<TypeMean>,
    /// Every task, or subset of one, in the suite's order.
    pub tasks: Vec<TaskScore>,
}

/// Mean of a type's tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TypeMean {
    /// MTEB's name of the type.
    pub task_type: String,
    /// Tasks.
    pub tasks: usize,
    /// Their mean score.
    pub mean: Option<f64>,
}

/// One task, or one subset of it, scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskScore {
    /// The task's name.
    pub task: String,
    /// MTEB's name of its type.
    pub task_type: String,
    /// The subset; `default` where there is one only.
    pub subset: String,
    /// The split that was scored.
    pub split: String,
    /// Languages.
    pub languages: Vec<String>,
    /// The metric that stands for the task.
    pub main_metric: String,
    /// Its value; null where it is undefined.
    pub main_score: Option<f64>,
    /// Items scored: queries, pairs, sentences, test rows.
    pub items: usize,
    /// Every metric under MTEB's name; null where it is undefined.
    pub scores: Scores,
}

/// Metrics by name, in the order they were put in.
#[derive(Debug, Clone, Default, PartialEq, JsonSchema)]
#[schemars(transparent)]
pub struct Scores(#[schemars(with = "BTreeMap<String, Option<f64>>")] Vec<(String, Option<f64>)>);

impl Scores {
    /// Adds a metric; what is not finite is undefined.
    pub fn push(&mut self, name: impl Into<String>, value: Option<f64>) {
        self.0.push((name.into(), value.filter(|v| v.is_finite())));
    }

    /// The value of a metric; the outer `None` means that there is no such metric.
    pub fn get(&self, name: &str) -> Option<Option<f64>> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| *v)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Option<f64>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }
}

impl Serialize for Scores {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Scores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Scores;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of metrics")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Scores, A::Error> {
                let mut scores = Scores::default();
                while let Some((name, value)) = map.next_entry::<String, Option<f64>>()? {
                    scores.push(name, value);
                }
                Ok(scores)
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// What each item contributed.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemScores {
    /// What the items are called: `query_id`, `pair`, `id`.
    pub id_column: &'static str,
    /// Their ids.
    pub ids: Vec<String>,
    /// Values by column, one per item.
    pub columns: Vec<(String, Vec<Option<f64>>)>,
}

impl ItemScores {
    fn new(id_column: &'static str, ids: Vec<impl Into<String>>) -> Self {
        Self {
            id_column,
            ids: ids.into_iter().map(Into::into).collect(),
            columns: Vec::new(),
        }
    }

    fn push(&mut self, name: impl Into<String>, values: Vec<Option<f64>>) {
        debug_assert_eq!(values.len(), self.ids.len());
        self.columns.push((name.into(), values));
    }
}

/// A finished task.
#[derive(Debug, Clone)]
pub struct Evaluated {
    /// Its scores.
    pub score: TaskScore,
    /// What each item contributed.
    pub items: ItemScores,
    /// Its rankings, if it is about rankings.
    pub run: Option<Run>,
}

/// A finished suite.
#[derive(Debug)]
pub struct EvaluatedSuite {
    /// Scores and means.
    pub evaluation: Evaluation,
    /// The tasks in the suite's order, with their items.
    pub tasks: Vec<Evaluated>,
    /// What was read.
    pub inputs: Vec<InputSummary>,
    /// What a reader should know.
    pub warnings: Vec<String>,
    /// Seconds per task.
    pub timings: Vec<Timing>,
}

/// What a task's own file hands back.
struct Found {
    /// The type's main metric.
    main: String,
    scores: Scores,
    items: ItemScores,
    run: Option<Run>,
}

/// What tasks share while they run.
struct Job<'a> {
    engine: &'a Engine,
    progress: &'a dyn Progress,
    reduction: Reduction,
    task: String,
    inputs: Vec<InputSummary>,
    warnings: Vec<String>,
}

impl Job<'_> {
    /// Reads vectors.
    fn vectors(&mut self, role: &str, path: &str) -> Result<Vectors> {
        let role = format!("{} {role}", self.task);
        let vectors = Vectors::read(&role, path, self.reduction, self.progress)?;
        let faults = &vectors.summary.faults;
        let left_out = faults.null.rows + faults.non_finite.rows;
        if left_out > 0 {
            self.warn_once(format!(
                "{path}: rows null or not finite, left out: {left_out}"
            ));
        }
        if faults.zero.rows > 0 {
            self.warn_once(format!(
                "{path}: rows all zero, which count, with cosine 0: {} (first: {})",
                faults.zero.rows,
                faults.zero.first_ids[..faults.zero.first_ids.len().min(3)].join(", ")
            ));
        }
        self.inputs.push(vectors.summary.clone());
        Ok(vectors)
    }

    fn warn(&mut self, warning: String) {
        self.warnings.push(format!("{}: {warning}", self.task));
    }

    /// Says once what tasks share.
    fn warn_once(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Counts the vectors that no label names.
    fn warn_unlabelled(&mut self, vectors: &Vectors, labelled: &[usize], what: &str) {
        let unlabelled = vectors.unlabelled(labelled);
        if unlabelled > 0 {
            self.warn(format!("{unlabelled} {what}"));
        }
    }
}

/// Scores every task of a suite.
///
/// # Errors
/// A file cannot be read or does not fit the others, or the device fails.
pub fn evaluate(
    engine: &Engine,
    suite: &Suite,
    reduction: Reduction,
    progress: &dyn Progress,
) -> Result<EvaluatedSuite> {
    let mut clock = Stopwatch::start();
    let mut job = Job {
        engine,
        progress,
        reduction,
        task: String::new(),
        inputs: Vec::new(),
        warnings: Vec::new(),
    };
    let mut tasks = Vec::new();
    for task in &suite.tasks {
        job.task = task.label();
        tasks.push(run_task(&mut job, task)?);
        clock.lap(&task.label());
    }
    let scores: Vec<TaskScore> = tasks.iter().map(|t| t.score.clone()).collect();
    Ok(EvaluatedSuite {
        evaluation: Evaluation::new(&suite.name, reduction, scores),
        tasks,
        inputs: job.inputs,
        warnings: job.warnings,
        timings: clock.timings(),
    })
}

fn run_task(job: &mut Job<'_>, task: &Task) -> Result<Evaluated> {
    let found = match &task.kind {
        TaskKind::Retrieval(files) => ranking::evaluate(job, files, false)?,
        TaskKind::Reranking(files) => ranking::evaluate(job, files, true)?,
        TaskKind::Sts(files) => sts::evaluate(job, files)?,
        TaskKind::PairClassification(files) => pair_classification::evaluate(job, files)?,
        TaskKind::Bitext(files) => bitext::evaluate(job, files)?,
        TaskKind::Summarization(files) => summarization::evaluate(job, files)?,
        TaskKind::Classification(files) => classification::evaluate(job, files)?,
        TaskKind::Multilabel(files) => multilabel::evaluate(job, files)?,
        TaskKind::Clustering { labels, clustering } => {
            clustering::evaluate(job, labels, clustering)?
        }
    };
    let Found {
        main,
        scores,
        items,
        run,
    } = found;
    let main_metric = task.main_score.clone().unwrap_or(main);
    let Some(main_score) = scores.get(&main_metric) else {
        let known: Vec<&str> = scores.iter().map(|(name, _)| name).collect();
        return Err(Error::input(
            format!("task \"{}\"", task.name),
            format!("no metric \"{main_metric}\", expected one for main_score"),
        )
        .hint(format!("the metrics are: {}", known.join(", "))));
    };
    Ok(Evaluated {
        score: TaskScore {
            task: task.name.clone(),
            task_type: task.kind.mteb_type().to_owned(),
            subset: task.subset.clone(),
            split: task.eval_split.clone(),
            languages: task.languages.clone(),
            main_metric,
            main_score,
            items: items.ids.len(),
            scores,
        },
        items,
        run,
    })
}

impl Task {
    /// Name, and subset where it has one.
    pub fn label(&self) -> String {
        label(&self.name, &self.subset)
    }
}

impl TaskScore {
    /// Name, and subset where it has one.
    pub fn label(&self) -> String {
        label(&self.task, &self.subset)
    }

    /// The name of the Parquet file with what each item contributed.
    pub fn items_file(&self) -> String {
        format!("{}.items.parquet", self.label().replace(['/', '\\'], "_"))
    }
}

fn label(task: &str, subset: &str) -> String {
    match subset {
        "default" => task.to_owned(),
        subset => format!("{task}.{subset}"),
    }
}

impl TaskKind {
    /// Whether the task ranks documents.
    pub fn is_ranked(&self) -> bool {
        matches!(self, Self::Retrieval(_) | Self::Reranking(_))
    }

    /// MTEB's name of the type.
    pub fn mteb_type(&self) -> &'static str {
        match self {
            Self::Retrieval(_) => "Retrieval",
            Self::Reranking(_) => "Reranking",
            Self::Sts(_) => "STS",
            Self::PairClassification(_) => "PairClassification",
            Self::Bitext(_) => "BitextMining",
            Self::Summarization(_) => "Summarization",
            Self::Classification(_) => "Classification",
            Self::Multilabel(_) => "MultilabelClassification",
            Self::Clustering { .. } => "Clustering",
        }
    }
}

impl Evaluation {
    fn new(suite: &str, reduction: Reduction, tasks: Vec<TaskScore>) -> Self {
        let by_task = task_means(&tasks);
        let mean_of = |values: Vec<Option<f64>>| {
            let values: Option<Vec<f64>> = values.into_iter().collect();
            values.filter(|v| !v.is_empty()).map(|v| mean(&v))
        };
        let mut types: BTreeMap<&str, Vec<Option<f64>>> = BTreeMap::new();
        for (_, task_type, score) in &by_task {
            types.entry(task_type).or_default().push(*score);
        }
        let task_types: Vec<TypeMean> = types
            .into_iter()
            .map(|(task_type, scores)| TypeMean {
                task_type: task_type.to_owned(),
                tasks: scores.len(),
                mean: mean_of(scores),
            })
            .collect();
        Self {
            suite: suite.to_owned(),
            reduction: reduction.label(),
            mean_task: mean_of(by_task.iter().map(|(.., score)| *score).collect()),
            mean_task_type: mean_of(task_types.iter().map(|t| t.mean).collect()),
            task_types,
            tasks,
        }
    }
}

/// Per task, in order: name, type, and mean over its subsets.
pub fn task_means(tasks: &[TaskScore]) -> Vec<(String, String, Option<f64>)> {
    let mut found: Vec<(String, String, Vec<Option<f64>>)> = Vec::new();
    for task in tasks {
        match found.iter_mut().find(|(name, ..)| *name == task.task) {
            Some((.., scores)) => scores.push(task.main_score),
            None => found.push((
                task.task.clone(),
                task.task_type.clone(),
                vec![task.main_score],
            )),
        }
    }
    found
        .into_iter()
        .map(|(name, task_type, scores)| {
            let scores: Option<Vec<f64>> = scores.into_iter().collect();
            (name, task_type, scores.map(|s| mean(&s)))
        })
        .collect()
}

/// A task's result as mteb writes it: `results/<model>/<revision>/<Task>.json`.
#[derive(Debug, Clone, Serialize)]
pub struct TaskResult<'a> {
    dataset_revision: &'a str,
    task_name: &'a str,
    mteb_version: &'a str,
    scores: BTreeMap<&'a str, Vec<Entry<'a>>>,
    /// What no result of ours may depend on stays out of it.
    evaluation_time: Option<f64>,
    kg_co2_emissions: Option<f64>,
}

#[derive(Debug, Clone, Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    scores: &'a Scores,
    main_score: Option<f64>,
    hf_subset: &'a str,
    languages: &'a [String],
    mteb_version: &'a str,
}

impl<'a> TaskResult<'a> {
    /// One result per task, in order, over all of its subsets and splits.
    pub fn all(tasks: &'a [TaskScore]) -> Vec<(&'a str, Self)> {
        let mut results: Vec<(&str, Self)> = Vec::new();
        for task in tasks {
            let at = results.iter().position(|(name, _)| *name == task.task);
            let at = at.unwrap_or_else(|| {
                results.push((
                    &task.task,
                    Self {
                        dataset_revision: "local",
                        task_name: &task.task,
                        mteb_version: MTEB_VERSION,
                        scores: BTreeMap::new(),
                        evaluation_time: None,
                        kg_co2_emissions: None,
                    },
                ));
                results.len() - 1
            });
            let entries = results[at].1.scores.entry(&task.split).or_default();
            entries.push(Entry {
                scores: &task.scores,
                main_score: task.main_score,
                hf_subset: &task.subset,
                languages: &task.languages,
                mteb_version: MTEB_VERSION,
            });
        }
        results
    }
}

/// Rounded to five decimals as Python's `round(x, 5)` does.
fn rounded(x: f64) -> f64 {
    format!("{x:.5}").parse().unwrap_or(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(name: &str, task_type: &str, subset: &str, main_score: Option<f64>) -> TaskScore {
        let mut scores = Scores::default();
        scores.push("b", main_score);
        scores.push("a", Some(f64::NAN));
        TaskScore {
            task: name.to_owned(),
            task_type: task_type.to_owned(),
            subset: subset.to_owned(),
            split: "test".to_owned(),
            languages: vec!["eng-Latn".to_owned()],
            main_metric: "b".to_owned(),
            main_score,
            items: 1,
            scores,
        }
    }

    #[test]
    fn means_are_over_subsets_then_tasks_then_types() {
        let tasks = vec![
            task("A", "STS", "x", Some(0.2)),
            task("A", "STS", "y", Some(0.4)),
            task("B", "STS", "default", Some(0.5)),
            task("C", "Retrieval", "default", Some(0.8)),
        ];
        let all = Evaluation::new("s", Reduction::default(), tasks.clone());
        assert!((all.mean_task.unwrap() - (0.3 + 0.5 + 0.8) / 3.0).abs() < 1e-15);
        assert!((all.mean_task_type.unwrap() - (0.4 + 0.8) / 2.0).abs() < 1e-15);
        let mut undefined = tasks;
        undefined.push(task("D", "Clustering", "default", None));
        let all = Evaluation::new("s", Reduction::default(), undefined);
        assert_eq!((all.mean_task, all.mean_task_type), (None, None));
        let names: Vec<&str> = all.task_types.iter().map(|t| &*t.task_type).collect();
        assert_eq!(names, ["Clustering", "Retrieval", "STS"]);
    }

    #[test]
    fn results_have_mtebs_shape_and_scores_keep_their_order() {
        let tasks = [
            task("A", "STS", "x", Some(0.2)),
            task("A", "STS", "y", Some(0.4)),
        ];
        let results = TaskResult::all(&tasks);
        assert_eq!(results.len(), 1);
        let text = serde_json::to_string(&results[0].1).unwrap();
        assert!(
            text.contains("{\"b\":0.2,\"a\":null,\"main_score\":0.2,"),
            "{text}"
        );
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["scores"]["test"][1]["hf_subset"], "y");
        let text = serde_json::to_string(&tasks[0]).unwrap();
        assert_eq!(serde_json::from_str::<TaskScore>(&text).unwrap(), tasks[0]);
    }

    #[test]
    fn rounding_is_pythons() {
        // Exact ties of binary fractions go to the even digit; other doubles lie beside their decimals.
        for (x, expected) in [
            (0.000015, 0.00002),
            (0.015625, 0.01562),
            (0.000025, 0.00003),
            (0.664466666, 0.66447),
            (0.5, 0.5),
        ] {
            assert_eq!(rounded(x), expected, "{x}");
        }
    }
}
