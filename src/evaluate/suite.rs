//! Suite files: which tasks there are, and which files they are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::beir;
use super::ranking::Similarity;
use crate::error::{Error, Result};

/// A suite of tasks, with every path and placeholder resolved.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Suite {
    /// Its name.
    pub name: String,
    /// Its tasks, in the file's order.
    pub tasks: Vec<Task>,
}

/// One task, or one subset of a task.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Task {
    /// Its name; subsets of one task share it.
    pub name: String,
    /// The subset, such as a pair of languages; `default` where there is one only.
    pub subset: String,
    /// The split that is scored.
    pub eval_split: String,
    /// The languages, as written into the result.
    pub languages: Vec<String>,
    /// The metric that stands for the task, where it is not its type's own.
    pub main_score: Option<String>,
    /// Type and files.
    #[serde(flatten)]
    pub kind: TaskKind,
}

/// What a task's type needs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TaskKind {
    /// Judged queries against a corpus, or against each query's own candidates.
    Retrieval(RankingFiles),
    /// As retrieval, over each query's candidates.
    Reranking(RankingFiles),
    /// Pairs with graded similarity.
    Sts(PairFiles),
    /// Pairs that are the same or not.
    PairClassification(PairFiles),
    /// Sentences and their translations.
    Bitext(PairFiles),
    /// Summaries by machines, rated, beside summaries by people.
    Summarization(PairFiles),
    /// One label per item, learnt from a few examples.
    Classification(LabelFiles),
    /// Several labels per item, learnt from a few examples.
    Multilabel(LabelFiles),
    /// One label per item, against clusters.
    Clustering {
        /// Items and labels.
        #[serde(flatten)]
        labels: LabelFiles,
        /// How they are clustered.
        #[serde(flatten)]
        clustering: ClusteringFiles,
    },
}

/// The files of retrieval and reranking.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RankingFiles {
    /// Where the scores come from.
    #[serde(flatten)]
    pub input: RankingInput,
    /// Relevance judgements: BEIR TSV, TREC qrels or Parquet.
    pub qrels: String,
    /// A BEIR folder whose documents and queries the vectors must be of.
    pub beir: Option<String>,
    /// A document of the query's own id is no answer.
    pub ignore_identical_ids: bool,
    /// The first answer is left out.
    pub skip_first_result: bool,
    /// Judged queries that have no vector are counted and left out rather than refused.
    pub allow_missing: bool,
    /// Documents that a changed instruction makes irrelevant (query-id, corpus-id), for queries that stand
    /// twice, as `ID-og` and `ID-changed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    /// Cut-offs k of the metrics; the largest is the depth of the ranking.
    pub k_values: Vec<usize>,
}

/// Where a ranking's scores come from.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RankingInput {
    /// Vectors.
    Vectors {
        /// Documents.
        corpus: String,
        /// Queries.
        queries: String,
        /// Candidates per query (query-id, corpus-id); all documents without it.
        #[serde(skip_serializing_if = "Option::is_none")]
        top_ranked: Option<String>,
        /// What similarity means.
        similarity: Similarity,
    },
    /// A TREC run: `query Q0 document rank score tag`.
    Run {
        /// The file.
        run: String,
    },
}

/// The files of tasks over pairs.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PairFiles {
    /// The vectors, by id.
    pub items: String,
    /// The pairs, with score or label where the type has one.
    pub pairs: String,
    /// The second column is searched for in the first (bitext only).
    pub reverse: bool,
}

/// The files of tasks over labelled items.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LabelFiles {
    /// The vectors, by id.
    pub items: String,
    /// A table of ids and labels; without it the items have them as columns. Draws go by its order.
    pub labels: Option<String>,
    /// The column of labels.
    pub label: String,
    /// The column that tells the parts apart.
    pub split: Option<Split>,
    /// Examples per label.
    pub samples_per_label: usize,
}

impl LabelFiles {
    /// The file that has the labels.
    pub fn labels(&self) -> &str {
        self.labels.as_ref().unwrap_or(&self.items)
    }
}

/// Which items a task learns from and which it is scored on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Split {
    /// The column.
    pub column: String,
    /// Its value for training items; none for clustering.
    pub train: Option<String>,
    /// Its value for scored items.
    pub test: String,
}

/// How a task clusters.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClusteringFiles {
    /// One run over all items, in batches of 500, rather than ten over draws (AbsTaskClusteringLegacy).
    pub legacy: bool,
    /// Labels are levels separated by `|`, each clustered for itself.
    pub levels: bool,
    /// At most so many items, drawn as MTEB draws them.
    pub max_documents: Option<usize>,
    /// Clusters that exist already: a table of id and cluster.
    pub assignment: Option<String>,
}

/// The cut-offs of MTEB's retrieval tasks.
const K_VALUES: [usize; 7] = [1, 3, 5, 10, 20, 100, 1000];

/// A suite file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SuiteFile {
    name: String,
    #[serde(default, rename = "task")]
    tasks: Vec<BTreeMap<String, toml::Value>>,
}

impl Suite {
    /// Reads a suite file. `{name}` in any text is replaced by what `settings` says; paths are relative to the
    /// file.
    ///
    /// # Errors
    /// The file cannot be read or is no suite; a placeholder is not set, or a setting is used nowhere; a key
    /// is missing, unknown or of the wrong type.
    pub fn read(path: &Path, settings: &BTreeMap<String, String>) -> Result<Self> {
        let refuse = |fact: String| Error::input(path.display(), fact);
        let text =
            std::fs::read_to_string(path).map_err(|e| refuse(format!("cannot be read: {e}")))?;
        let file: SuiteFile = toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(1, |span| {
                1 + text[..span.start.min(text.len())].matches('\n').count()
            });
            refuse(format!("line {line}: {}", e.message()))
                .hint("a suite holds name = \"…\" and one [[task]] table per task")
        })?;
        if file.tasks.is_empty() {
            return Err(refuse("no [[task]], expected at least one".to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut used = BTreeSet::new();
        let mut tasks = Vec::new();
        for (number, values) in (1..).zip(file.tasks) {
            let name = match values.get("name") {
                Some(toml::Value::String(name)) => format!("task \"{name}\""),
                _ => format!("task {number}"),
            };
            let mut keys = Keys {
                place: format!("{}: {name}", path.display()),
                folder,
                values,
                known: Vec::new(),
                settings,
                used: &mut used,
            };
            let task = Task::read(&mut keys)?;
            keys.finish()?;
            tasks.push(task);
        }
        if let Some(unused) = settings.keys().find(|name| !used.contains(*name)) {
            return Err(Error::input(
                format!("--set {unused}"),
                format!("{} has no placeholder {{{unused}}}", path.display()),
            ));
        }
        let mut seen = BTreeSet::new();
        for task in &tasks {
            if !seen.insert((&task.name, &task.subset, &task.eval_split)) {
                return Err(refuse(format!(
                    "task \"{}\", subset \"{}\" stands there twice, expected one of each",
                    task.name, task.subset
                ))
                .hint("subsets of one task have its name and a subset of their own"));
            }
        }
        Ok(Self {
            name: file.name,
            tasks,
        })
    }
}

impl Task {
    fn read(keys: &mut Keys<'_>) -> Result<Self> {
        let name = keys.text("name")?;
        if name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(keys.refuse("name is no file name, expected one such as \"SciFact\""));
        }
        let split = keys.optional_text("eval_split")?.unwrap_or("test".into());
        let kind = keys.text("type")?;
        let kind = match kind.as_str() {
            "retrieval" => TaskKind::Retrieval(RankingFiles::read(keys, &split, false)?),
            "reranking" => TaskKind::Reranking(RankingFiles::read(keys, &split, true)?),
            "sts" => TaskKind::Sts(PairFiles::read(keys)?),
            "pair_classification" => TaskKind::PairClassification(PairFiles::read(keys)?),
            "bitext" => {
                let reverse = keys.flag("reverse")?;
                let files = PairFiles::read(keys)?;
                TaskKind::Bitext(PairFiles { reverse, ..files })
            }
            "summarization" => TaskKind::Summarization(PairFiles::read(keys)?),
            "classification" => TaskKind::Classification(LabelFiles::read(keys, true)?),
            "multilabel" => TaskKind::Multilabel(LabelFiles::read(keys, true)?),
            "clustering" => TaskKind::Clustering {
                labels: LabelFiles::read(keys, false)?,
                clustering: ClusteringFiles {
                    legacy: keys.flag("legacy")?,
                    levels: keys.flag("levels")?,
                    max_documents: keys.count("max_documents")?,
                    assignment: keys.optional_path("assignment")?,
                },
            },
            other => {
                return Err(keys.refuse(&format!(
                    "type is \"{other}\", expected {}",
                    TYPES.join(", ")
                )));
            }
        };
        Ok(Self {
            name,
            subset: keys.optional_text("subset")?.unwrap_or("default".into()),
            eval_split: split,
            languages: keys.texts("languages")?,
            main_score: keys.optional_text("main_score")?,
            kind,
        })
    }
}

/// The types, as suite files write them.
const TYPES: [&str; 9] = [
    "retrieval",
    "reranking",
    "sts",
    "pair_classification",
    "bitext",
    "summarization",
    "classification",
    "multilabel",
    "clustering",
];

impl RankingFiles {
    fn read(keys: &mut Keys<'_>, split: &str, reranking: bool) -> Result<Self> {
        let beir = keys.optional_path("beir")?;
        let input = match keys.optional_path("run")? {
            Some(run) => RankingInput::Run { run },
            None => RankingInput::Vectors {
                corpus: keys.path("corpus")?,
                queries: keys.path("queries")?,
                top_ranked: if reranking {
                    Some(keys.path("top_ranked")?)
                } else {
                    None
                },
                similarity: match keys.optional_text("similarity")?.as_deref() {
                    None | Some("cosine") => Similarity::Cosine,
                    Some("dot") => Similarity::Dot,
                    Some(other) => {
                        return Err(keys.refuse(&format!(
                            "similarity is \"{other}\", expected \"cosine\" or \"dot\""
                        )));
                    }
                },
            },
        };
        let mut k_values = keys.counts("k_values")?.unwrap_or(K_VALUES.to_vec());
        k_values.sort_unstable();
        k_values.dedup();
        Ok(Self {
            input,
            qrels: match (keys.optional_path("qrels")?, &beir) {
                (Some(qrels), _) => qrels,
                (None, Some(folder)) => beir::qrels(folder, split),
                (None, None) => return Err(keys.refuse("no qrels, expected one")),
            },
            beir,
            ignore_identical_ids: keys.flag("ignore_identical_ids")?,
            skip_first_result: keys.flag("skip_first_result")?,
            allow_missing: keys.flag("allow_missing")?,
            changed: keys.optional_path("changed")?,
            k_values,
        })
    }
}

impl PairFiles {
    fn read(keys: &mut Keys<'_>) -> Result<Self> {
        Ok(Self {
            items: keys.path("items")?,
            pairs: keys.path("pairs")?,
            reverse: false,
        })
    }
}

impl LabelFiles {
    fn read(keys: &mut Keys<'_>, needs_train: bool) -> Result<Self> {
        let split = keys.split()?;
        if needs_train && split.as_ref().is_none_or(|s| s.train.is_none()) {
            return Err(keys
                .refuse("no split, expected one")
                .hint("split = { column = \"split\", train = \"train\", test = \"test\" }"));
        }
        Ok(Self {
            items: keys.path("items")?,
            labels: keys.optional_path("labels")?,
            label: keys.optional_text("label")?.unwrap_or("label".into()),
            split,
            samples_per_label: keys
                .count("samples_per_label")?
                .unwrap_or(SAMPLES_PER_LABEL),
        })
    }
}

/// Examples per label in MTEB's tasks.
const SAMPLES_PER_LABEL: usize = 8;

/// The keys of one task, taken one by one; what is left is unknown.
struct Keys<'a> {
    place: String,
    folder: &'a Path,
    values: BTreeMap<String, toml::Value>,
    known: Vec<&'static str>,
    settings: &'a BTreeMap<String, String>,
    used: &'a mut BTreeSet<String>,
}

impl Keys<'_> {
    fn refuse(&self, fact: &str) -> Error {
        Error::input(&self.place, fact)
    }

    fn take(&mut self, key: &'static str) -> Option<toml::Value> {
        self.known.push(key);
        self.values.remove(key)
    }

    fn wrong(&self, key: &str, found: &toml::Value, expected: &str) -> Error {
        self.refuse(&format!(
            "{key} is of type {}, expected {expected}",
            found.type_str()
        ))
    }

    fn optional_text(&mut self, key: &'static str) -> Result<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::String(text)) => self.filled(key, &text).map(Some),
            Some(other) => Err(self.wrong(key, &other, "a text")),
        }
    }

    fn text(&mut self, key: &'static str) -> Result<String> {
        let text = self.optional_text(key)?;
        text.ok_or_else(|| self.refuse(&format!("no {key}, expected one")))
    }

    /// A path below the suite's folder, unless it is absolute.
    fn path(&mut self, key: &'static str) -> Result<String> {
        let text = self.text(key)?;
        Ok(self.folder.join(text).display().to_string())
    }

    fn optional_path(&mut self, key: &'static str) -> Result<Option<String>> {
        let text = self.optional_text(key)?;
        Ok(text.map(|text| self.folder.join(text).display().to_string()))
    }

    fn flag(&mut self, key: &'static str) -> Result<bool> {
        match self.take(key) {
            None => Ok(false),
            Some(toml::Value::Boolean(flag)) => Ok(flag),
            Some(other) => Err(self.wrong(key, &other, "true or false")),
        }
    }

    fn texts(&mut self, key: &'static str) -> Result<Vec<String>> {
        let Some(value) = self.take(key) else {
            return Ok(Vec::new());
        };
        let texts = value.as_array().and_then(|list| {
            list.iter()
                .map(|v| v.as_str().map(str::to_owned))
                .collect::<Option<Vec<_>>>()
        });
        texts.ok_or_else(|| self.wrong(key, &value, "a list of texts"))
    }

    fn counts(&mut self, key: &'static str) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        let counts = value.as_array().and_then(|list| {
            list.iter()
                .map(|v| v.as_integer().filter(|&k| k > 0).map(|k| k as usize))
                .collect::<Option<Vec<_>>>()
        });
        match counts {
            Some(counts) if !counts.is_empty() => Ok(Some(counts)),
            _ => Err(self.wrong(key, &value, "a list of numbers from 1")),
        }
    }

    fn count(&mut self, key: &'static str) -> Result<Option<usize>> {
        match self.take(key) {
            None => Ok(None),
            Some(toml::Value::Integer(count)) if count > 0 => Ok(Some(count as usize)),
            Some(other) => Err(self.wrong(key, &other, "a number from 1")),
        }
    }

    fn split(&mut self) -> Result<Option<Split>> {
        let Some(value) = self.take("split") else {
            return Ok(None);
        };
        let split = value.clone().try_into::<Split>();
        let keys = value.as_table().map_or(0, toml::Table::len);
        match split {
            Ok(split) if keys == 2 + usize::from(split.train.is_some()) => Ok(Some(split)),
            _ => Err(self.wrong("split", &value, "{ column, train, test }")),
        }
    }

    /// The text with every `{placeholder}` replaced.
    fn filled(&mut self, key: &str, text: &str) -> Result<String> {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err(self.refuse(&format!("{key} is \"{text}\", a {{ is not closed")));
            };
            let Some(value) = self.settings.get(name) else {
                return Err(self
                    .refuse(&format!("{key}: placeholder {{{name}}} is not set"))
                    .hint(format!("--set {name}=VALUE")));
            };
            self.used.insert(name.to_owned());
            filled.push_str(before);
            filled.push_str(value);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn finish(self) -> Result<()> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(key) => Err(self
                .refuse(&format!("unknown key \"{key}\" for this type"))
                .hint(format!("the keys are: {}", self.known.join(", ")))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, settings: &[(&str, &str)]) -> Result<Suite> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("suite.toml");
        std::fs::write(&path, text).unwrap();
        let settings = settings
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        Suite::read(&path, &settings)
    }

    const STS: &str = "name = \"s\"\n[[task]]\nname = \"A\"\ntype = \"sts\"\n";

    #[test]
    fn placeholders_and_paths_are_resolved() {
        let text = format!("{STS}items = \"x.{{version}}.parquet\"\npairs = \"/p.tsv\"\n");
        let suite = read(&text, &[("version", "v1")]).unwrap();
        let TaskKind::Sts(files) = &suite.tasks[0].kind else {
            panic!("{suite:?}");
        };
        assert!(files.items.ends_with("/x.v1.parquet"), "{files:?}");
        assert_eq!(files.pairs, "/p.tsv");
        assert_eq!(suite.tasks[0].subset, "default");
    }

    #[test]
    fn faults_name_the_task_and_the_key() {
        let files = "items = \"a\"\npairs = \"b\"\n";
        for (text, settings, message) in [
            (format!("{STS}{files}k = 1\n"), vec![], "unknown key \"k\""),
            (format!("{STS}items = \"a\"\n"), vec![], "no pairs"),
            (
                format!("{STS}items = \"a.{{v}}\"\npairs = \"b\"\n"),
                vec![],
                "placeholder {v} is not set",
            ),
            (
                format!("{STS}{files}"),
                vec![("v", "1")],
                "has no placeholder {v}",
            ),
            (
                format!("{STS}items = 3\npairs = \"b\"\n"),
                vec![],
                "items is of type integer, expected a text",
            ),
            (
                STS.replace("sts", "poetry"),
                vec![],
                "type is \"poetry\", expected retrieval",
            ),
            ("name = \"s\"\n".to_owned(), vec![], "no [[task]]"),
            (
                "name = \"s\"\nfoo = 1\n".to_owned(),
                vec![],
                "line 2: unknown field",
            ),
            (
                format!("{STS}{files}[[task]]\nname = \"A\"\ntype = \"sts\"\n{files}"),
                vec![],
                "stands there twice",
            ),
        ] {
            let error = read(&text, &settings).unwrap_err();
            assert!(error.is_input());
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
