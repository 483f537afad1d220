//! `vecdrift evaluate`

use std::collections::BTreeMap;

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::audit::{check_folder, create_folder};
use super::session::{Session, to_json};
use super::{Error, Path, PathBuf, Result, ValueEnum};
use crate::embeddings::Ids;
use crate::evaluate::ranking::Run;
use crate::evaluate::{
    Evaluated, ItemScores, Quantization, Reduction, Suite, TaskResult, evaluate,
};
use crate::report;
use crate::source::write::{self, Column};

/// Scores stored embeddings on labelled tasks, as MTEB does
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift evaluate suite.toml --set version=v1 --out results/v1
  vecdrift evaluate suite.toml --set version=v1 --truncate 128 --quantize int8

A suite names tasks and their files; {placeholders} in it are filled by --set.
The folder gets one MTEB result per task (TASK.json), TASK.items.parquet with what
each item contributed, result.json, report.html, scores.csv and model-card.md.")]
pub(super) struct EvaluateArgs {
    /// The suite file (TOML)
    suite: PathBuf,
    /// Fills a placeholder of the suite
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Score only the first D values of each vector (Matryoshka)
    #[arg(long, value_name = "D")]
    truncate: Option<usize>,
    /// Score vectors of rounded values
    #[arg(long, value_enum)]
    quantize: Option<QuantizeArg>,
    /// Write the ranking of the suite's only ranked task as a TREC run
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum QuantizeArg {
    /// 255 steps between ± each vector's largest value
    Int8,
    /// +1 or -1
    Binary,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    suite_file: String,
    set: BTreeMap<String, String>,
    reduction: Reduction,
    suite: Suite,
}

fn parse_setting(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

impl EvaluateArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self {
            suite: suite_file,
            set,
            truncate,
            quantize,
            run: run_file,
        } = self;
        if truncate == Some(0) {
            return Err(Error::input("--truncate", "0 values, expected at least 1"));
        }
        let reduction = Reduction {
            truncate,
            quantize: quantize.map(|q| match q {
                QuantizeArg::Int8 => Quantization::Int8,
                QuantizeArg::Binary => Quantization::Binary,
            }),
        };
        let set: BTreeMap<String, String> = set.into_iter().collect();
        let suite = Suite::read(&suite_file, &set)?;
        session.out().map_or(Ok(()), check_folder)?;
        if let Some(path) = &run_file {
            super::check_file(path)?;
            let ranked = suite.tasks.iter().filter(|t| t.kind.is_ranked()).count();
            if ranked != 1 {
                return Err(Error::input(
                    "--run",
                    format!("the suite has {ranked} retrieval and reranking tasks, expected one"),
                ));
            }
        }
        if session.dry_run {
            eprintln!("plan");
            for task in &suite.tasks {
                eprintln!("  score  {} ({})", task.label(), task.kind.mteb_type());
            }
            return Ok(());
        }
        let engine = session.engine()?;
        let done = evaluate(&engine, &suite, reduction, session.progress())?;
        let config = Config {
            suite_file: suite_file.display().to_string(),
            set,
            reduction,
            suite,
        };
        let mut output = session.output(
            "evaluate",
            config,
            done.inputs,
            &engine,
            done.evaluation,
            done.timings,
        );
        // Rows that other commands leave out may count here: the tasks say what became of them.
        output.warnings = engine.warnings();
        output.warnings.extend(done.warnings);
        let mut page = report::evaluate_page(&output);
        if let Some(path) = &run_file
            && let Some(run) = done.tasks.iter().find_map(|t| t.run.as_ref())
        {
            write_run(path, run)?;
            page.outputs
                .push(written(path, "the rankings as a TREC run"));
        }
        if let Some(folder) = session.out() {
            create_folder(folder)?;
            for task in &done.tasks {
                write_items(&folder.join(task.score.items_file()), task)?;
            }
            let results = TaskResult::all(&output.results.tasks);
            for (task, result) in &results {
                write_text(&folder.join(format!("{task}.json")), &to_json(result)?)?;
            }
            let files = [
                ("result.json", to_json(&output)?, "every number"),
                ("report.html", report::html(&page)?, "the whole report"),
                (
                    "scores.csv",
                    report::scores_csv(&output.results),
                    "every metric",
                ),
                (
                    "model-card.md",
                    report::model_card(&output.results),
                    "a table for a model card",
                ),
            ];
            for (name, content, what) in files {
                let path = folder.join(name);
                write_text(&path, &content)?;
                page.outputs.push(written(&path, what));
            }
            page.outputs.push(report::Output {
                path: folder.join("TASK.json").display().to_string(),
                content: format!("results as mteb has them, of {} tasks", results.len()),
            });
            page.outputs.push(report::Output {
                path: folder.join("TASK.items.parquet").display().to_string(),
                content: "one row per query, pair or item".to_owned(),
            });
        }
        session.print(&output, &page)
    }
}

fn written(path: &Path, what: &str) -> report::Output {
    report::Output {
        path: path.display().to_string(),
        content: what.to_owned(),
    }
}

pub(super) fn write_text(path: &Path, content: &str) -> Result<()> {
    report::write_atomic(path, |file| {
        file.write_all(content.as_bytes())
            .map_err(|e| Error::output(path.display(), e))
    })
}

fn write_items(path: &Path, task: &Evaluated) -> Result<()> {
    let ItemScores {
        id_column,
        ids,
        columns,
    } = &task.items;
    let ids: Ids = ids.iter().collect();
    let mut all = vec![(*id_column, Column::Id(&ids, Box::new(|i| i as u32)))];
    all.extend(
        columns
            .iter()
            .map(|(name, values)| (name.as_str(), Column::Number(Box::new(move |i| values[i])))),
    );
    report::write_atomic(path, |file| write::parquet(file, path, ids.len(), &all))
}

fn write_run(path: &Path, run: &Run) -> Result<()> {
    report::write_atomic(path, |file| {
        for (query, ranking) in run {
            for (rank, (score, document)) in (1..).zip(ranking) {
                writeln!(file, "{query} Q0 {document} {rank} {score} vecdrift")
                    .map_err(|e| Error::output(path.display(), e))?;
            }
        }
        Ok(())
    })
}
