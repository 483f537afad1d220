//! `vecdrift sketch`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::plan::{self, Pass};
use super::session::{self, Session};
use super::{Engine, Error, InputArgs, PathBuf, Result};
use crate::embeddings::Embeddings;
use crate::metrics::sketch::{FREQUENCIES, Frame, FrameConfig, LANDMARKS, Sketch};
use crate::output::Stopwatch;
use crate::report::{self, Column, Table, Value};
use crate::sketch_file;

/// Keeps what a later comparison needs, when the vectors are gone
///
/// Kernel means, moments, cluster sizes and a sample of rows: a few megabytes, however large the corpus.
/// series compares sketches as it does vectors; audit takes a sketch as its reference.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift sketch 2026-01.parquet --out 2026-01.sketch
  vecdrift sketch 2026-02.parquet --like 2026-01.sketch --out 2026-02.sketch
  vecdrift series 2026-01.sketch 2026-02.sketch 2026-03.parquet

A sketch holds some of the corpus' vectors and ids: keep it as you keep them.")]
pub(super) struct SketchArgs {
    /// The embeddings
    input: String,
    /// A sketch whose frame to use, so that the two can be compared
    #[arg(long, value_name = "SKETCH")]
    like: Option<PathBuf>,
    #[command(flatten)]
    columns: InputArgs,
    #[command(flatten)]
    frame: FrameArgs,
}

/// How the first snapshot sets the frame.
#[derive(Debug, Clone, Args)]
pub(super) struct FrameArgs {
    /// Column whose equal values mark rows that belong together
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Rows that a sketch keeps, those whose ids hash lowest [default: 4096]
    #[arg(long, value_name = "N")]
    landmarks: Option<usize>,
}

impl FrameArgs {
    /// Refuses what a sketch that is there has settled.
    pub(super) fn refuse_beside(&self, frame: &Frame) -> Result<()> {
        let settled = |option: &str, is: String| {
            Error::input(option, format!("the sketch has settled it: {is}"))
        };
        if self.group.is_some() && self.group != frame.group {
            let is = frame.group.clone().unwrap_or("no groups".to_owned());
            return Err(settled("--group", is));
        }
        match self.landmarks {
            Some(n) if n != frame.landmarks => {
                Err(settled("--landmarks", frame.landmarks.to_string()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn config(&self, seed: u64) -> Result<FrameConfig> {
        let landmarks = self.landmarks.unwrap_or(LANDMARKS);
        if landmarks < 100 {
            return Err(Error::input(
                "--landmarks",
                format!("{landmarks}, expected at least 100"),
            ));
        }
        Ok(FrameConfig {
            seed,
            landmarks,
            group: self.group.clone(),
        })
    }

    /// Columns to read, in a frame that is there or in a new one.
    pub(super) fn columns(&self, frame: Option<&Frame>) -> Vec<String> {
        match frame {
            Some(frame) => frame.group.iter().cloned().collect(),
            None => self.group.iter().cloned().collect(),
        }
    }

    /// A set's sketch, in a frame that is there or in one of its own.
    pub(super) fn sketch(
        &self,
        engine: &Engine,
        set: &Embeddings,
        frame: Option<&Frame>,
        seed: u64,
    ) -> Result<Sketch> {
        match frame {
            Some(frame) => Sketch::new(engine, set, frame),
            None => Sketch::new(engine, set, &Frame::new(engine, set, &self.config(seed)?)?),
        }
    }
}

/// The pass that a sketch takes.
pub(super) fn pass(rows: Option<u64>, dim: usize) -> Pass {
    Pass::between("sketch", rows.unwrap_or(0) as usize, FREQUENCIES, dim)
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    input: String,
    like: Option<String>,
    group: Option<String>,
    landmarks: usize,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Results {
    /// Rows in the sketch.
    rows: u64,
    /// Rows kept whole.
    landmarks: usize,
    /// σ of the base kernel.
    bandwidth: f64,
    /// Blocks of ids.
    blocks: usize,
    /// The file.
    out: String,
    /// Its size.
    bytes: u64,
}

impl SketchArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self {
            input,
            like,
            columns,
            frame: frame_args,
        } = self;
        let Some(out) = session.out() else {
            return Err(
                Error::input("--out", "is missing, expected the file to write")
                    .hint("--out corpus.sketch"),
            );
        };
        super::check_file(out)?;
        frame_args.config(session.seed)?;
        let mut clock = Stopwatch::start();
        let like = like.map(|path| path.display().to_string());
        let frame = match &like {
            None => None,
            Some(path) => {
                let sketch = sketch_file::load(path)?;
                let sketch = sketch.ok_or_else(|| {
                    Error::input(path, "is no sketch")
                        .hint("make one: vecdrift sketch INPUT --out FILE")
                })?;
                frame_args.refuse_beside(&sketch.state.frame)?;
                Some(sketch.state.frame)
            }
        };
        if sketch_file::load(&input)?.is_some() {
            return Err(Error::input(
                &input,
                "is a sketch already, expected embeddings",
            ));
        }
        let options = columns.read_options(&frame_args.columns(frame.as_ref()));
        let source = session::open(&input, &options)?;
        let info = source.info().clone();
        if !plan::announce(session, &[&info], &[pass(info.rows, info.dim)])? {
            return Ok(());
        }
        let loaded = session.read("input", source)?;
        clock.lap("read");
        let engine = session.engine()?;
        let sketch = frame_args.sketch(&engine, &loaded.set, frame.as_ref(), session.seed)?;
        clock.lap("sketch");
        sketch_file::save(out, &sketch)?;
        clock.lap("write");
        let bytes = std::fs::metadata(out).map_or(0, |file| file.len());
        let frame = &sketch.state.frame;
        let results = Results {
            rows: sketch.state.rows,
            landmarks: sketch.ids.len(),
            bandwidth: frame.bandwidth,
            blocks: frame.blocks,
            out: out.display().to_string(),
            bytes,
        };
        let rows: Vec<(&str, Value)> = vec![
            ("rows", Value::Count(results.rows)),
            ("rows kept", Value::Count(results.landmarks as u64)),
            ("bandwidth σ", results.bandwidth.into()),
            ("blocks of ids", Value::Count(results.blocks as u64)),
            ("size", format!("{:.1} MB", bytes as f64 / 1e6).into()),
        ];
        let config = Config {
            input,
            like,
            group: frame.group.clone(),
            landmarks: frame.landmarks,
        };
        let output = session.output(
            "sketch",
            config,
            vec![loaded.summary],
            &engine,
            results,
            clock.timings(),
        );
        let mut page = report::measured_page(
            &output,
            Table {
                caption: "Sketch".to_owned(),
                columns: vec![Column::left("measure"), Column::right("value")],
                rows: rows
                    .into_iter()
                    .map(|(name, value)| vec![name.into(), value])
                    .collect(),
            },
        );
        page.outputs.push(report::Output {
            path: output.results.out.clone(),
            content: "the sketch".to_owned(),
        });
        session.print(&output, &page)
    }
}
