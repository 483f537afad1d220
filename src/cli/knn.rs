//! `vecdrift knn`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::plan::{self, Pass, Residence};
use super::session::{self, Session};
use super::{Engine, Error, InputArgs, Path, Result, ValueEnum};
use crate::embeddings::{Embeddings, Ids};
use crate::engine::{Metric, Neighbors, SelfExclusion};
use crate::output::{InputSummary, Stopwatch};
use crate::report::{self, Column as Head, Table, Value};
use crate::source::write::{self, Column};
use crate::source::{Source, SourceInfo};
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
With QUERIES the base may be larger than memory: what is half precision or does
not fit into --memory is read block by block.
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
        let rows = |i: &SourceInfo| i.rows.unwrap_or(0) as usize;
        let pass = Pass::between(
            "nearest",
            rows(query_info.as_ref().unwrap_or(&info)),
            rows(&info),
            info.dim,
        );
        // Queries stay; the base may pass by, unless it is its own queries.
        let residence = match &query_info {
            Some(_) => Residence::of(&info, session),
            None => Residence::Held,
        };
        let mut inputs = vec![(&info, residence)];
        inputs.extend(query_info.as_ref().map(|q| (q, Residence::Held)));
        if !plan::announce_inputs(session, &inputs, &[pass])? {
            return Ok(());
        }
        session.out().map_or(Ok(()), super::check_file)?;
        let search = Search { k, metric };
        let Found {
            engine,
            neighbors,
            base_rows,
            base_ids,
            queries: loaded_queries,
            inputs,
        } = match (residence, query_source) {
            (Residence::Streamed, Some(query_source)) => {
                search.streamed(session, &mut clock, base_source, query_source)?
            }
            (_, query_source) => search.held(session, &mut clock, base_source, query_source)?,
        };
        if let Some(out) = session.out() {
            let base_ids = base_ids.as_ref().unwrap_or(&loaded_queries.ids);
            write_neighbors(out, &loaded_queries.ids, base_ids, &neighbors)?;
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
            queries: loaded_queries.len(),
            base: base_rows,
            k,
            metric,
            certified: neighbors.certified,
            mean_similarity_first: mean_at(false),
            mean_similarity_last: mean_at(true),
            out: session.out().map(|p| p.display().to_string()),
        };
        let config = KnnConfig {
            base,
            queries,
            k,
            metric,
        };
        let output = session.output("knn", config, inputs, &engine, results, clock.timings());
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

/// What is looked for.
#[derive(Debug, Clone, Copy)]
struct Search {
    k: usize,
    metric: Metric,
}

/// What was found.
struct Found {
    engine: Engine,
    neighbors: Neighbors,
    /// Rows searched.
    base_rows: usize,
    /// The ids that the lists' row numbers point to, unless they are those of the queries.
    base_ids: Option<Ids>,
    queries: Embeddings,
    inputs: Vec<InputSummary>,
}

impl Search {
    /// With the base in memory; without queries every base row is one, and not its own neighbour.
    fn held(
        self,
        session: &Session,
        clock: &mut Stopwatch,
        base: Source,
        queries: Option<Source>,
    ) -> Result<Found> {
        let base = session.read("base", base)?;
        let queries = queries.map(|q| session.read("queries", q)).transpose()?;
        clock.lap("read");
        let engine = session.engine()?;
        let rows = base.set.rows();
        let own: Vec<u32> = match &queries {
            Some(_) => Vec::new(),
            None => (0..rows.len() as u32).collect(),
        };
        let exclude = queries.is_none().then_some(SelfExclusion {
            queries: &own,
            base: &own,
        });
        let query_rows = queries.as_ref().map_or(rows, |q| q.set.rows());
        let neighbors = engine.nearest(query_rows, rows, self.k, self.metric, exclude)?;
        clock.lap("nearest");
        let base_rows = rows.len();
        let mut inputs = vec![base.summary];
        let (queries, base_ids) = match queries {
            None => (base.set, None),
            Some(queries) => {
                inputs.push(queries.summary);
                (queries.set, Some(base.set.ids))
            }
        };
        Ok(Found {
            engine,
            neighbors,
            base_rows,
            base_ids,
            queries,
            inputs,
        })
    }

    /// With the queries in memory and the base passing by, read once.
    fn streamed(
        self,
        session: &Session,
        clock: &mut Stopwatch,
        base: Source,
        queries: Source,
    ) -> Result<Found> {
        let queries = session.read("queries", queries)?;
        clock.lap("read");
        let engine = session.engine()?;
        let info = base.info().clone();
        let mut stream = base.stream();
        let rows = queries.set.rows();
        let mut neighbors = engine.nearest(rows, &mut stream, self.k, self.metric, None)?;
        let base = stream.finish()?;
        clock.lap("nearest");
        let hits = compact(&mut neighbors);
        Ok(Found {
            engine,
            neighbors,
            base_rows: base.ids.len(),
            base_ids: Some(base.ids.select(&hits)),
            inputs: vec![
                InputSummary::of_stream("base", &info, &base),
                queries.summary,
            ],
            queries: queries.set,
        })
    }
}

/// The base rows that are in a list, ascending; the lists hold positions among them afterwards.
fn compact(neighbors: &mut Neighbors) -> Vec<u32> {
    let entries = || neighbors.lists.iter().flatten();
    let mut hits: Vec<u32> = entries().map(|entry| entry.1).collect();
    hits.sort_unstable();
    hits.dedup();
    for (_, row) in neighbors.lists.iter_mut().flatten() {
        *row = hits.partition_point(|&hit| hit < *row) as u32;
    }
    hits
}

fn write_neighbors(
    path: &Path,
    query_ids: &Ids,
    base_ids: &Ids,
    neighbors: &Neighbors,
) -> Result<()> {
    let lists = &neighbors.lists;
    let columns = [
        ("query_id", Column::Id(query_ids, Box::new(|i| i as u32))),
        (
            "neighbor_ids",
            Column::IdList(
                base_ids,
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
