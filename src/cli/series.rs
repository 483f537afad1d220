//! `vecdrift series`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::audit::{check_folder, create_folder};
use super::evaluate::write_text;
use super::gate::GateArgs;
use super::plan;
use super::session::{self, Session, to_json};
use super::sketch::{FrameArgs, pass};
use super::{Error, InputArgs, Outcome, Path, Result};
use crate::audit::gate::{SERIES_MEASURES, series_measures};
use crate::embeddings::{Dtype, IdSource, RowFaults};
use crate::metrics::series::{SeriesConfig, series};
use crate::metrics::sketch::Sketch;
use crate::output::{InputSummary, Stopwatch};
use crate::report;
use crate::sketch_file;
use crate::source::Source;

/// Follows snapshots over time: from the first, from one to the next
///
/// Effects against the baseline and the snapshot before with their intervals, control limits once there is
/// history, change points, cluster sizes. Each snapshot is read once and only its sketch is kept.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift series 2026-01.parquet 2026-02.parquet 2026-03.parquet
  vecdrift series *.sketch today.parquet --out drift/
  vecdrift series *.sketch --gate \"eps_eq<0.05,out_of_control<=0\"

Snapshots are embeddings or sketches, oldest first. With --out the folder gets
report.html, result.json and the sketches of what was read. Gates are on the
last snapshot: eps_eq and p_value (against the first), previous.eps_eq and
previous.p_value, out_of_control, changes.")]
pub(super) struct SeriesArgs {
    /// Snapshots in order of time, the first is the baseline
    #[arg(required = true, num_args = 2.., value_name = "SNAPSHOT")]
    snapshots: Vec<String>,
    #[command(flatten)]
    columns: InputArgs,
    #[command(flatten)]
    frame: FrameArgs,
    /// How many of the first comparisons are known to be in control and set the
    /// limits [default: all but the last]
    #[arg(long, value_name = "N")]
    in_control: Option<usize>,
    /// Random signs that each test draws
    #[arg(long, value_name = "N", default_value_t = 9_999)]
    permutations: u32,
    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    snapshots: Vec<String>,
    group: Option<String>,
    landmarks: usize,
    in_control: Option<usize>,
    permutations: u32,
    margin: f64,
}

/// A snapshot before its turn: sketched already, or opened.
enum Snapshot {
    Sketched(Box<Sketch>),
    Opened(Box<Source>),
}

impl SeriesArgs {
    pub(super) fn run(self, session: &Session) -> Result<Outcome> {
        let Self {
            snapshots,
            columns,
            frame: frame_args,
            in_control,
            permutations,
            gates,
        } = self;
        let gates = gates.prepare(&SERIES_MEASURES, session)?;
        super::check_test(permutations, None)?;
        frame_args.config(session.seed)?;
        session.out().map_or(Ok(()), check_folder)?;
        let mut clock = Stopwatch::start();
        let mut opened = Vec::new();
        for input in &snapshots {
            let sketch = sketch_file::load(input)?;
            opened.push((input, sketch));
        }
        let settled = opened[0]
            .1
            .as_ref()
            .map(|sketch| sketch.state.frame.clone());
        if let Some(frame) = &settled {
            frame_args.refuse_beside(frame)?;
        }
        let options = columns.read_options(&frame_args.columns(settled.as_ref()));
        let mut dim = settled.as_ref().map(|frame| frame.dim);
        let mut waiting = Vec::new();
        let (mut infos, mut passes) = (Vec::new(), Vec::new());
        for (input, sketch) in opened {
            let (snapshot, found) = match sketch {
                Some(sketch) => {
                    let found = sketch.state.frame.dim;
                    (Snapshot::Sketched(Box::new(sketch)), found)
                }
                None => {
                    let source = session::open(input, &options)?;
                    let info = source.info().clone();
                    passes.push(pass(info.rows, info.dim));
                    let found = info.dim;
                    infos.push(info);
                    (Snapshot::Opened(Box::new(source)), found)
                }
            };
            let expected = *dim.get_or_insert(found);
            if found != expected {
                return Err(Error::input(
                    input,
                    format!("dimension {found}, expected {expected} as in {}", snapshots[0]),
                )
                .hint("another dimension is another model: vecdrift audit compares the two, a new series begins with it"));
            }
            waiting.push((input, snapshot));
        }
        // One snapshot is held at a time: the plan is of the largest.
        let largest = infos.iter().max_by_key(|info| info.rows);
        if !plan::announce(session, &largest.into_iter().collect::<Vec<_>>(), &passes)? {
            return Ok(Outcome::Done);
        }
        let engine = session.engine()?;
        let mut sketches: Vec<Sketch> = Vec::new();
        let mut inputs = Vec::new();
        let mut fresh = Vec::new();
        for (i, (input, snapshot)) in waiting.into_iter().enumerate() {
            let frame = sketches.first().map(|first| &first.state.frame);
            let role = format!("snapshot {}", i + 1);
            let mut sketch = match snapshot {
                Snapshot::Sketched(sketch) => {
                    inputs.push(of_sketch(&role, input, &sketch));
                    *sketch
                }
                Snapshot::Opened(source) => {
                    let loaded = session.read(&role, *source)?;
                    inputs.push(loaded.summary);
                    fresh.push(i);
                    frame_args.sketch(&engine, &loaded.set, frame, session.seed)?
                }
            };
            sketch.state.name.clone_from(input);
            sketches.push(sketch);
        }
        clock.lap("sketch");
        let config = SeriesConfig {
            draws: permutations,
            seed: session.seed,
            margin: gates.policy.max_eps_eq,
            in_control,
        };
        let found = series(&engine, &sketches, &config)?;
        clock.lap("series");
        let measures = series_measures(&found);
        let frame = &sketches[0].state.frame;
        let config = Config {
            snapshots,
            group: frame.group.clone(),
            landmarks: frame.landmarks,
            in_control,
            permutations,
            margin: gates.policy.max_eps_eq,
        };
        let mut output = session.output("series", config, inputs, &engine, found, clock.timings());
        output.warnings.extend(output.results.notes.clone());
        let mut page = report::series_page(&output);
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|word| word.to_string_lossy().into_owned());
        page.sections
            .push(report::reproduction(arguments, &output.config));
        gates.judge(&mut output, &mut page, &measures);
        if let Some(folder) = session.out() {
            create_folder(folder)?;
            let kept = folder.join("sketches");
            if !fresh.is_empty() {
                create_folder(&kept)?;
            }
            for &i in &fresh {
                let path = kept.join(sketch_name(i, &sketches[i].state.name));
                sketch_file::save(&path, &sketches[i])?;
            }
            if !fresh.is_empty() {
                page.outputs.push(report::Output {
                    path: kept.display().to_string(),
                    content: "sketches, for the next time".to_owned(),
                });
            }
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

/// What a sketch says of the set that it was made of.
fn of_sketch(role: &str, input: &str, sketch: &Sketch) -> InputSummary {
    let state = &sketch.state;
    InputSummary {
        role: role.to_owned(),
        source: input.to_owned(),
        format: "sketch".to_owned(),
        vector_column: "embedding".to_owned(),
        id_source: if state.row_numbers {
            IdSource::RowNumber
        } else {
            IdSource::Column("id".to_owned())
        },
        rows: state.rows + state.excluded_rows,
        usable_rows: state.rows,
        dim: state.frame.dim,
        dtype: Dtype::F32,
        id_checksum: sketch.ids.checksum(),
        faults: RowFaults::default(),
    }
}

/// File name of the sketch of snapshot `i`: in order, and after its input.
fn sketch_name(i: usize, input: &str) -> String {
    let stem = Path::new(input)
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy();
    let stem: String = stem
        .chars()
        .map(|c| {
            if c.is_alphanumeric() || matches!(c, '-' | '_' | '.') {
                c
            } else {
                '-'
            }
        })
        .collect();
    format!("{:03}-{stem}.sketch", i + 1)
}
