//! `vecdrift apply`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::plan;
use super::session::{self, Session};
use super::{Engine, Error, InputArgs, PathBuf, Result, adapter_file};
use crate::embeddings::{RowBlock, Rows};
use crate::metrics::adapter::{Adapter, Direction, Method};
use crate::output::Stopwatch;
use crate::report::{self, Column as Head, Table, Value};
use crate::source::{VectorFormat, VectorShape, write_vectors};

/// Streams vectors of any number through an adapter
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift apply new_to_old.safetensors queries.parquet --out mapped.parquet
  vecdrift apply old_to_new.safetensors 'corpus/part-*.parquet' --out new.parquet

The input is read, mapped and written block by block. Parquet keeps the id
column and the name of the vector column; .npy holds the vectors alone. Null
rows stay null, zero rows stay zero.")]
pub(super) struct ApplyArgs {
    /// The adapter, as written by align
    adapter: PathBuf,
    /// The vectors to map
    input: String,
    #[command(flatten)]
    columns: InputArgs,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    adapter: String,
    input: String,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Results {
    /// Which way the adapter maps.
    direction: Direction,
    /// What kind of map it is.
    method: Method,
    /// Values per row before.
    source_dim: usize,
    /// Values per row after.
    target_dim: usize,
    /// Rows written.
    rows: u64,
    /// Rows whose vector is null, or holds a value that is not finite: written as null.
    null_rows: u64,
    /// Rows of zeros, written as zeros.
    zero_rows: u64,
    /// The file written.
    out: String,
}

impl ApplyArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self {
            adapter: adapter_path,
            input,
            columns,
        } = self;
        let Some(out) = session.out() else {
            return Err(
                Error::input("--out", "is missing, expected the file to write")
                    .hint("--out mapped.parquet, or mapped.npy"),
            );
        };
        let format = VectorFormat::by_name(out)?;
        super::check_file(out)?;
        let mut clock = Stopwatch::start();
        let (adapter, facts) = adapter_file::load(&adapter_path)?;
        let source = session::open(&input, &columns.read_options(&[]))?;
        let info = source.info().clone();
        if info.dim != adapter.source_dim() {
            let other = if info.dim == adapter.target_dim() {
                "; the adapter maps the other way round"
            } else {
                ""
            };
            return Err(Error::input(
                &info.name,
                format!(
                    "dimension {}, expected {} as the adapter takes{other}",
                    info.dim,
                    adapter.source_dim()
                ),
            ));
        }
        if !plan::announce(session, &[&info], &[])? {
            return Ok(());
        }
        let engine = session.engine()?;
        let mut results = Results {
            direction: adapter.direction,
            method: adapter.method,
            source_dim: adapter.source_dim(),
            target_dim: adapter.target_dim(),
            rows: 0,
            null_rows: 0,
            zero_rows: 0,
            out: out.display().to_string(),
        };
        let shape = VectorShape {
            dim: adapter.target_dim(),
            rows: info.rows,
            vector_column: &info.vector_column,
            id_source: &info.id_source,
            note: None,
        };
        let mut mapped = source.blocks().map(|block| {
            let block = map_block(&engine, &adapter, block?, &mut results)?;
            Ok(block)
        });
        let mut written = 0;
        report::write_atomic(out, |to| {
            written = write_vectors(to, out, format, &shape, &mut mapped)?;
            Ok(())
        })?;
        drop(mapped);
        results.rows = written;
        clock.lap("apply");

        let mut warnings = Vec::new();
        if results.null_rows > 0 {
            warnings.push(format!(
                "{} rows are null or not finite and were written as such",
                results.null_rows
            ));
        }
        if results.zero_rows > 0 {
            warnings.push(format!("{} rows of zeros stay zeros", results.zero_rows));
        }
        let config = Config {
            adapter: adapter_path.display().to_string(),
            input,
        };
        let mut output = session.output(
            "apply",
            config,
            Vec::new(),
            engine.device(),
            results,
            clock.timings(),
        );
        output.warnings.extend(warnings);
        let r = &output.results;
        let made_from = |name: &str| facts.get(name).cloned().unwrap_or_default();
        let rows: Vec<(&str, Value)> = vec![
            ("rows written", Value::Count(r.rows)),
            ("dimension before", Value::Count(r.source_dim as u64)),
            ("dimension after", Value::Count(r.target_dim as u64)),
            ("map", r.method.label().into()),
            ("direction", r.direction.label().into()),
            ("fitted on pairs", made_from("pairs_fit").into()),
        ];
        let mut page = report::measured_page(
            &output,
            Table {
                caption: "Adapter applied".to_owned(),
                columns: vec![Head::left("measure"), Head::right("value")],
                rows: rows
                    .into_iter()
                    .map(|(name, value)| vec![name.into(), value])
                    .collect(),
            },
        );
        page.outputs.push(report::Output {
            path: r.out.clone(),
            content: "the mapped vectors".to_owned(),
        });
        session.print(&output, &page)
    }
}

/// Maps the sound rows of a block.
fn map_block(
    engine: &Engine,
    adapter: &Adapter,
    block: RowBlock,
    counts: &mut Results,
) -> Result<RowBlock> {
    let dim = adapter.source_dim();
    let mut values = block.values;
    let mut nulls = block.nulls;
    let mut zeros = Vec::new();
    for (row, vector) in values.chunks_exact_mut(dim).enumerate() {
        if !vector.iter().all(|v| v.is_finite()) {
            nulls.push(row);
            vector.fill(0.0);
        } else if vector.iter().all(|&v| v == 0.0) {
            zeros.push(row);
        }
    }
    nulls.sort_unstable();
    nulls.dedup();
    zeros.retain(|row| nulls.binary_search(row).is_err());
    counts.null_rows += nulls.len() as u64;
    counts.zero_rows += zeros.len() as u64;
    let mut mapped = if values.is_empty() {
        Vec::new()
    } else {
        adapter.map(engine, Rows::new(&values, dim))?
    };
    let width = adapter.target_dim();
    for row in zeros {
        mapped[row * width..(row + 1) * width].fill(0.0);
    }
    Ok(RowBlock {
        ids: block.ids,
        values: mapped,
        nulls,
        columns: Vec::new(),
    })
}
