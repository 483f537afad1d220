//! `vecdrift inspect`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::session::{self, Session};
use super::{InputArgs, Result};
use crate::embeddings::IdSource;
use crate::metrics::{duplicates, moments};
use crate::output::Stopwatch;
use crate::report::{self, Column, Table, Value};
use crate::source::SourceInfo;

/// Shows what an input holds: schema, rows, dimension, data faults
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift inspect corpus.parquet
  vecdrift inspect 'parts/*.parquet#embedding' --format json

Reads every row. Exits with 2 if the input cannot be used, saying why.")]
pub(super) struct InspectArgs {
    /// The input
    input: String,
    #[command(flatten)]
    columns: InputArgs,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct InspectConfig {
    input: String,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct InspectResults {
    source: SourceInfo,
    /// Rows read.
    rows: u64,
    /// Rows that take part in measures.
    usable_rows: u64,
    /// Vector lengths.
    norms: moments::NormDistribution,
    /// Coordinates that never vary.
    constant_dimensions: Vec<usize>,
    /// Rows equal to an earlier one, value by value.
    duplicate_rows: u64,
}

impl InspectArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self { input, columns } = self;
        session.refuse_out("inspect")?;
        let mut clock = Stopwatch::start();
        let source = session::open(&input, &columns.read_options(&[]))?;
        let info = source.info().clone();
        if session.dry_run {
            return super::plan::announce(session, &[&info], &[]).map(drop);
        }
        let loaded = session.read("input", source)?;
        clock.lap("read");
        let rows = loaded.set.rows();
        let results = InspectResults {
            source: info,
            rows: loaded.set.rows_read,
            usable_rows: loaded.set.len() as u64,
            norms: moments::norm_distribution(rows, &loaded.set.ids),
            constant_dimensions: moments::constant_dimensions(rows),
            duplicate_rows: duplicates::duplicate_rows(rows),
        };
        clock.lap("check");
        let device = crate::engine::cpu::device()?;
        let output = session.output(
            "inspect",
            InspectConfig { input },
            vec![loaded.summary],
            &device,
            results,
            clock.timings(),
        );
        let r = &output.results;
        let s = &r.source;
        let columns: Vec<String> = s
            .columns
            .iter()
            .map(|c| format!("{} ({})", c.name, c.kind))
            .collect();
        let ids = match &s.id_source {
            IdSource::Column(name) => format!("column \"{name}\""),
            IdSource::RowNumber => "row numbers, counted from 0".to_owned(),
        };
        let rows: Vec<(&str, Value)> = vec![
            (
                "format",
                format!("{}, {} file(s)", s.format, s.files).into(),
            ),
            ("size", Value::Bytes(s.bytes)),
            ("columns", columns.join(", ").into()),
            (
                "vectors",
                format!(
                    "\"{}\": {} of dimension {}",
                    s.vector_column,
                    s.dtype.name(),
                    s.dim
                )
                .into(),
            ),
            ("ids", ids.into()),
            ("rows", Value::Count(r.rows)),
            ("usable rows", Value::Count(r.usable_rows)),
            ("exact duplicates", Value::Count(r.duplicate_rows)),
            (
                "constant coordinates",
                Value::Count(r.constant_dimensions.len() as u64),
            ),
            ("norm, mean", Value::from(r.norms.mean)),
            (
                "norm, smallest and largest",
                format!(
                    "{} to {}",
                    Value::from(r.norms.min),
                    Value::from(r.norms.max)
                )
                .into(),
            ),
            ("norm outliers", Value::Count(r.norms.outliers)),
        ];
        let table = Table {
            caption: "What the input holds".to_owned(),
            columns: vec![Column::left("what"), Column::left("value")],
            rows: rows
                .into_iter()
                .map(|(name, value)| vec![name.into(), value])
                .collect(),
        };
        session.print(&output, &report::measured_page(&output, table))
    }
}
