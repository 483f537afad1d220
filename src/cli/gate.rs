//! Gates and what continuous integration reads: shared by the commands that measure.

use std::io::Write;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::session::{Session, print_stdout};
use super::{Error, Format, Outcome, Path, PathBuf, Result};
use crate::audit::gate::{Gate, GateOutcome, Measure};
use crate::audit::{Policy, Verdict};
use crate::output::Output;
use crate::report::{self, Page, RunReport};

#[derive(Debug, Args)]
#[command(next_help_heading = "Gates")]
pub(super) struct GateArgs {
    /// Requirements, e.g. "overlap@10>=0.9,eps_eq<0.01"; the exit code says
    /// whether they hold
    #[arg(long, value_name = "GATES")]
    gate: Vec<String>,
    /// Gates, and thresholds of the verdict, from a TOML file
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Write the gates as JUnit XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the gates as SARIF
    #[arg(long, value_name = "FILE")]
    sarif: Option<PathBuf>,
    /// Write every value for Prometheus' textfile collector
    #[arg(long, value_name = "FILE")]
    prometheus: Option<PathBuf>,
    /// Write the summary as Markdown
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Annotate a GitHub workflow, and add to its step summary
    #[arg(long)]
    github: bool,
}

/// A policy file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PolicyFile {
    gates: GateTexts,
    verdict: Policy,
}

/// Gates in one text or in many.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "gates must be text or a list of texts")]
enum GateTexts {
    One(String),
    Many(Vec<String>),
}

impl Default for GateTexts {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

/// What was asked for, checked before the work begins.
pub(super) struct Gates {
    pub(super) gates: Vec<Gate>,
    /// Thresholds of the verdict.
    pub(super) policy: Policy,
    junit: Option<PathBuf>,
    sarif: Option<PathBuf>,
    prometheus: Option<PathBuf>,
    markdown: Option<PathBuf>,
    github: bool,
}

impl GateArgs {
    /// Checks gates against the measures that the command knows, reads the policy, and sees that every file can
    /// be written.
    pub(super) fn prepare(self, known: &[&str], session: &Session) -> Result<Gates> {
        let Self {
            gate,
            policy,
            junit,
            sarif,
            prometheus,
            markdown,
            github,
        } = self;
        let file = policy
            .as_deref()
            .map_or(Ok(PolicyFile::default()), read_policy)?;
        let written = match file.gates {
            GateTexts::One(text) => vec![text],
            GateTexts::Many(texts) => texts,
        };
        let mut gates = Vec::new();
        for text in written.iter().chain(&gate) {
            gates.extend(Gate::parse_list(text, known)?);
        }
        for path in [&junit, &sarif, &prometheus, &markdown]
            .into_iter()
            .flatten()
        {
            super::check_file(path)?;
        }
        if github && session.format == Format::Json {
            return Err(Error::input(
                "--github",
                "annotations go to stdout, where --format json has its one object",
            )
            .hint("leave --format json out; --out keeps result.json"));
        }
        Ok(Gates {
            gates,
            policy: file.verdict,
            junit,
            sarif,
            prometheus,
            markdown,
            github,
        })
    }
}

impl Gates {
    /// The list lengths that gates on `stem@K` name.
    pub(super) fn list_lengths<'a>(
        &'a self,
        stems: &'a [&str],
    ) -> impl Iterator<Item = usize> + 'a {
        let of = |gate: &'a Gate| stems.iter().find_map(|stem| gate.list_length(stem));
        self.gates.iter().filter_map(of)
    }

    /// Decides the gates and shows them.
    pub(super) fn judge<C, R>(
        &self,
        output: &mut Output<C, R>,
        page: &mut Page,
        measures: &[Measure],
    ) {
        output.gates = self.gates.iter().map(|gate| gate.judge(measures)).collect();
        report::show_gates(page, &output.gates);
    }

    /// Prints the result, writes what was asked for, and says how it ended.
    pub(super) fn finish<C: Serialize, R: Serialize>(
        self,
        session: &Session,
        output: &Output<C, R>,
        mut page: Page,
        measures: &[Measure],
        verdict: Option<&Verdict>,
    ) -> Result<Outcome> {
        let run = RunReport {
            command: &output.command,
            inputs: &output.inputs,
            verdict,
            gates: &output.gates,
            measures,
        };
        let mut write = |path: &Option<PathBuf>, content: String, what: &str| -> Result<()> {
            let Some(path) = path else { return Ok(()) };
            write_text(path, &content)?;
            page.outputs.push(report::Output {
                path: path.display().to_string(),
                content: what.to_owned(),
            });
            Ok(())
        };
        write(&self.junit, report::junit(&run), "the gates as JUnit XML")?;
        write(&self.sarif, report::sarif(&run)?, "the gates as SARIF")?;
        write(
            &self.prometheus,
            report::prometheus(&run),
            "every value for Prometheus",
        )?;
        let summary = report::markdown(&page);
        if let Some(path) = &self.markdown {
            write_text(path, &summary)?;
            page.outputs.push(report::Output {
                path: path.display().to_string(),
                content: "the summary as Markdown".to_owned(),
            });
        }
        session.print(output, &page)?;
        if self.github {
            print_stdout(&report::github_annotations(&run))?;
            add_step_summary(&summary)?;
        }
        Ok(match GateOutcome::of_all(&output.gates) {
            GateOutcome::Passed => Outcome::Done,
            GateOutcome::Failed => Outcome::GateFailed,
            GateOutcome::Undecided => Outcome::GateUndecided,
        })
    }
}

fn write_text(path: &Path, content: &str) -> Result<()> {
    report::write_atomic(path, |file| {
        file.write_all(content.as_bytes())
            .map_err(|e| Error::output(path.display(), e))
    })
}

/// The step summary is one file for all of a step's commands: it is added to.
fn add_step_summary(summary: &str) -> Result<()> {
    let Some(path) = std::env::var_os("GITHUB_STEP_SUMMARY").filter(|path| !path.is_empty()) else {
        return Ok(());
    };
    let failed = |e: std::io::Error| Error::output(Path::new(&path).display(), e);
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .map_err(failed)?;
    file.write_all(format!("{summary}\n").as_bytes())
        .map_err(failed)
}

fn read_policy(path: &Path) -> Result<PolicyFile> {
    let refuse = |fact: String| {
        Error::input(path.display(), fact).hint(
            "a policy holds gates = [\"overlap@10>=0.9\"] and a table [verdict] of thresholds",
        )
    };
    let text = std::fs::read_to_string(path).map_err(|e| refuse(format!("cannot be read: {e}")))?;
    let file: PolicyFile = toml::from_str(&text).map_err(|e| {
        let line = e.span().map_or(1, |span| {
            1 + text[..span.start.min(text.len())].matches('\n').count()
        });
        refuse(format!("line {line}: {}", e.message()))
    })?;
    let values = serde_json::to_value(&file.verdict).map_err(|e| refuse(e.to_string()))?;
    for (name, value) in values.as_object().into_iter().flatten() {
        // TOML knows nan and inf, JSON does not.
        if value.as_f64().is_none_or(|v| v < 0.0) {
            return Err(refuse(format!(
                "{name} is {value}, expected a number of at least 0"
            )));
        }
    }
    Ok(file)
}
