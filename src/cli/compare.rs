//! `vecdrift compare`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::audit::{check_folder, create_folder};
use super::evaluate::write_text;
use super::gate::GateArgs;
use super::session::{Session, to_json};
use super::{Outcome, Result};
use crate::evaluate::compare::{EvaluatedRun, compare};
use crate::output::Stopwatch;
use crate::report;
use crate::stats::paired::Resampling;

/// Says which evaluated model is better, on what, and whether it is real
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift compare results/v1 results/v2
  vecdrift compare results/v1 results/v2 --gate \"mean_task.difference>-0.01\"
  vecdrift compare results/v1 results/v2 results/v3 --out comparison/

Folders are those of vecdrift evaluate --out. Each run is held against the first,
item by item. Gates are on the last run: TASK.difference, mean_task.difference,
better, worse. With --out the folder gets result.json and report.html.")]
pub(super) struct CompareArgs {
    /// Folders of evaluated runs, the one to compare with first
    #[arg(required = true, num_args = 2.., value_name = "DIR")]
    runs: Vec<String>,
    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    runs: Vec<String>,
    resampling: Resampling,
}

impl CompareArgs {
    pub(super) fn run(self, session: &Session) -> Result<Outcome> {
        let Self { runs, gates } = self;
        let mut clock = Stopwatch::start();
        session.out().map_or(Ok(()), check_folder)?;
        let read = runs
            .iter()
            .map(|folder| EvaluatedRun::read(folder))
            .collect::<Result<Vec<_>>>()?;
        clock.lap("read");
        let mut known: Vec<String> = ["mean_task.difference", "better", "worse"]
            .map(str::to_owned)
            .into();
        known.extend(
            read[0]
                .evaluation
                .tasks
                .iter()
                .map(|task| format!("{}.difference", task.label())),
        );
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let gates = gates.prepare(&known, session)?;
        if session.dry_run {
            return Ok(Outcome::Done);
        }
        let resampling = Resampling {
            seed: session.seed,
            ..Resampling::default()
        };
        let found = compare(&read, &resampling)?;
        clock.lap("compare");
        let measures = found.measures();
        let device = crate::engine::cpu::device()?;
        let mut output = session.output(
            "compare",
            Config { runs, resampling },
            Vec::new(),
            &device,
            found,
            clock.timings(),
        );
        let mut page = report::compare_page(&output);
        output.warnings.clone_from(&page.warnings);
        gates.judge(&mut output, &mut page, &measures);
        if let Some(folder) = session.out() {
            create_folder(folder)?;
            let files = [
                ("result.json", to_json(&output)?, "every number"),
                ("report.html", report::html(&page)?, "the whole report"),
            ];
            for (name, content, what) in files {
                let path = folder.join(name);
                write_text(&path, &content)?;
                page.outputs.push(report::Output {
                    path: path.display().to_string(),
                    content: what.to_owned(),
                });
            }
        }
        gates.finish(session, &output, page, &measures, None)
    }
}
