//! `vecdrift knn`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::plan::{self, Pass};
use super::session::{self, Loaded, Session};
use super::{Error, InputArgs, Path, Result, ValueEnum};
use crate::embeddings::Rows;
use crate::engine::{Metric, Neighbors, SelfExclusion};
use crate::output::Stopwatch;
use crate::report::{self, Column as Head, Table, Value};
use crate::source::write::{self, Column};
use crate::stats::paired::mean;

/// Finds the exact nearest neighbours of every query
///
/// Every list is proven exact: screened in low precision with a rigorous bound, scored in f64 from the
/// stored values. Ties go to the row that comes first.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift knn corpus.parquet -k 10 --out neighbours.parquet
  vecdrift knn corpus.parquet queries.parquet -k 100 --out run.parquet

Without QUERIES every base row is a query, and is not its own neighbour.
The Parquet file holds query_id, neighbor_ids (list) and similarities (list).")]
pub(super) struct KnnArgs {
    /// The rows to search
    base: String,
    /// The rows to search for [default: the base itself]
    queries: Option<String>,
    /// How many neighbours per query
    #[arg(short, long, value_name = "K", default_value_t = 10)]
    k: usize,
    /// What similarity means
    #[arg(long, value_enum, default_value = "cosine")]
    metric: MetricArg,
    #[command(flatten)]
    input: InputArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum MetricArg {
    /// x·y / (‖x‖‖y‖)
    Cosine,
    /// x·y
    Dot,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct KnnConfig {
    base: String,
    queries: Option<String>,
    k: usize,
    metric: Metric,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct KnnResults {
    /// Queries answered.
    queries: usize,
    /// Rows searched.
    base: usize,
    /// Neighbours asked for per query; fewer where the base has fewer.
    k: usize,
    metric: Metric,
    /// Queries whose list is proven exact.
    certified: usize,
    /// Mean similarity at rank 1 and rank k.
    mean_similarity_first: Option<f64>,
    mean_similarity_last: Option<f64>,
    /// The Parquet file written.
    out: Option<String>,
}

impl KnnArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self {
            base,
            queries,
            k,
            metric,
            input,
        } = self;
        let metric = match metric {
            MetricArg::Cosine => Metric::Cosine,
            MetricArg::Dot => Metric::Dot,
        };
        if k == 0 {
            return Err(Error::input("-k", "0 neighbours, expected at least 1"));
        }
        let mut clock = Stopwatch::start();
        let options = input.read_options(&[]);
        let base_source = session::open(&base, &options)?;
        let query_source = queries
            .as_ref()
            .map(|q| session::open(q, &options))
            .transpose()?;
        let info = base_source.info().clone();
        let query_info = query_source.as_ref().map(|s| s.info().clone());
        if let Some(q) = &query_info
            && q.dim != info.dim
        {
            return Err(Error::input(
                &q.name,
                format!(
                    "dimension {}, expected {} as in {}",
                    q.dim, info.dim, info.name
                ),
            ));
        }
        let rows = |i: &crate::source::SourceInfo| i.rows.unwrap_or(0) as usize;
        let pass = Pass::between(
            "nearest",
            rows(query_info.as_ref().unwrap_or(&info)),
            rows(&info),
            info.dim,
        );
        let infos: Vec<_> = std::iter::once(&info).chain(&query_info).collect();
        if !plan::announce(session, &infos, &[pass])? {
            return Ok(());
        }
        session.out().map_or(Ok(()), super::check_file)?;
        let loaded_base = session.read("base", base_source)?;
        let loaded_queries = query_source
            .map(|s| session.read("queries", s))
            .transpose()?;
        clock.lap("read");

        let engine = session.engine()?;
        let base_rows = loaded_base.set.rows();
        let (query_rows, exclude): (Rows<'_>, Option<Vec<u32>>) = match &loaded_queries {
            Some(queries) => (queries.set.rows(), None),
            None => (base_rows, Some((0..base_rows.len() as u32).collect())),
        };
        let exclude = exclude.as_deref().map(|rows| SelfExclusion {
            queries: rows,
            base: rows,
        });
        let neighbors = engine.nearest(query_rows, base_rows, k, metric, exclude)?;
        clock.lap("nearest");

        if let Some(out) = session.out() {
            write_neighbors(
                out,
                loaded_queries.as_ref().unwrap_or(&loaded_base),
                &loaded_base,
                &neighbors,
            )?;
            clock.lap("write");
        }
        let mean_at = |last: bool| {
            let scores: Vec<f64> = neighbors
                .lists
                .iter()
                .filter_map(|list| if last { list.last() } else { list.first() })
                .map(|&(score, _)| score)
                .collect();
            (!scores.is_empty()).then(|| mean(&scores))
        };
        let results = KnnResults {
            queries: query_rows.len(),
            base: base_rows.len(),
            k,
            metric,
            certified: neighbors.certified,
            mean_similarity_first: mean_at(false),
            mean_similarity_last: mean_at(true),
            out: session.out().map(|p| p.display().to_string()),
        };
        let inputs = std::iter::once(&loaded_base)
            .chain(&loaded_queries)
            .map(|l| l.summary.clone())
            .collect();
        let config = KnnConfig {
            base,
            queries,
            k,
            metric,
        };
        let output = session.output(
            "knn",
            config,
            inputs,
            engine.device(),
            results,
            clock.timings(),
        );
        let r = &output.results;
        let rows = vec![
            ("queries", Value::Count(r.queries as u64)),
            ("rows searched", Value::Count(r.base as u64)),
            ("k", Value::Count(r.k as u64)),
            ("lists proven exact", Value::Count(r.certified as u64)),
            ("mean similarity at rank 1", r.mean_similarity_first.into()),
            (
                "mean similarity at the last rank",
                r.mean_similarity_last.into(),
            ),
        ];
        let mut page = report::measured_page(
            &output,
            Table {
                caption: "Nearest neighbours".to_owned(),
                columns: vec![Head::left("measure"), Head::right("value")],
                rows: rows
                    .into_iter()
                    .map(|(name, value)| vec![name.into(), value])
                    .collect(),
            },
        );
        match &r.out {
            Some(path) => page.outputs.push(report::Output {
                path: path.clone(),
                content: "one list per query".to_owned(),
            }),
            None => page.warnings.push(
                "the lists themselves were not kept: --out FILE.parquet keeps them".to_owned(),
            ),
        }
        session.print(&output, &page)
    }
}

fn write_neighbors(
    path: &Path,
    queries: &Loaded,
    base: &Loaded,
    neighbors: &Neighbors,
) -> Result<()> {
    let lists = &neighbors.lists;
    let columns = [
        (
            "query_id",
            Column::Id(&queries.set.ids, Box::new(|i| i as u32)),
        ),
        (
            "neighbor_ids",
            Column::IdList(
                &base.set.ids,
                Box::new(|i| lists[i].iter().map(|e| e.1).collect()),
            ),
        ),
        (
            "similarities",
            Column::NumberList(Box::new(|i| lists[i].iter().map(|e| e.0).collect())),
        ),
    ];
    report::write_atomic(path, |file| {
        write::parquet(file, path, lists.len(), &columns)
    })
}
