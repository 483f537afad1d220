//! `vecdrift audit`

use clap::Args;

use super::gate::{GateArgs, Gates};
use super::plan::{self, Pass};
use super::session::{self, Session, to_json};
use super::{Error, InputArgs, Outcome, Path, PathBuf, Result};
use crate::audit::gate::{AUDIT_MEASURES, audit_measures};
use crate::audit::{self, AuditConfig, Audited, DataFaults, GoldenConfig, Items, QueryLogs};
use crate::embeddings::Ids;
use crate::output::Output;
use crate::report;
use crate::sketch_file;
use crate::source::write::{self, Column};

/// File of the rows of another vector space.
const FOREIGN: &str = "foreign.parquet";

/// Audits the drift between two sets: checks, measures, judges
///
/// Pairs the sets by id (rows may be in any order, dimensions may differ), states what may be compared,
/// measures, and says what to do: nothing, fix the data, recalibrate thresholds, fit an adapter,
/// re-index, review coverage, stay, or collect more.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift audit old.parquet new.parquet --out drift/
  vecdrift audit old.parquet new.parquet --qrels qrels.tsv \\
      --queries-reference q_old.parquet --queries-current q_new.parquet

With --out the folder gets report.html, result.json and, for sets that share
ids, items.parquet with one row per item; foreign.parquet names rows of another
vector space, where there are any.")]
pub(super) struct AuditArgs {
    /// The embeddings as they were
    reference: String,
    /// The embeddings as they are now
    current: String,
    #[command(flatten)]
    input: InputArgs,
    /// Column whose equal values mark rows that belong together, e.g. the chunks
    /// of one document
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Queries of then, embedded as REFERENCE was
    #[arg(long, value_name = "INPUT")]
    queries_reference: Option<String>,
    /// Queries of now, embedded as CURRENT was; the same queries where there
    /// are judgements
    #[arg(long, value_name = "INPUT")]
    queries_current: Option<String>,
    /// Relevance judgements of the queries: BEIR TSV, TREC qrels or Parquet;
    /// without them queries are only held against the corpus
    #[arg(long, value_name = "FILE")]
    qrels: Option<String>,
    /// One corpus embedded twice: what moves between the two is noise, and no
    /// drift is found below it
    #[arg(long, num_args = 2, value_names = ["A", "A2"])]
    noise_floor: Option<Vec<String>>,
    /// k of the neighbourhood overlap
    #[arg(
        long,
        value_name = "K,K,…",
        value_delimiter = ',',
        default_value = "1,5,10,50,100"
    )]
    ks: Vec<usize>,
    /// Query only this many items for the overlap (the base is never sampled)
    #[arg(long, value_name = "N")]
    overlap_queries: Option<usize>,
    /// Similarity thresholds in use, to carry over [default: steps of 0.05]
    #[arg(
        long,
        value_name = "T,T,…",
        value_delimiter = ',',
        allow_negative_numbers = true
    )]
    thresholds: Vec<f64>,
    /// Use only this many rows per side for the distribution measures
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// Column whose values are slices to look for the drift in; may be repeated,
    /// pairs of columns are crossed
    #[arg(long, value_name = "COLUMN")]
    slice_by: Vec<String>,
    /// Clusters to look for the drift in, 0 for none [default: 0.4·√rows]
    #[arg(long, value_name = "N")]
    clusters: Option<usize>,
    /// Rows on either side that make a slice
    #[arg(long, value_name = "N", default_value_t = 50)]
    min_slice: usize,
    /// Column with the rows' text, to show of the items that moved most
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// Keep a sketch of CURRENT in this file: as REFERENCE of a later audit it
    /// stands for the vectors
    #[arg(long, value_name = "FILE")]
    sketch: Option<PathBuf>,
    /// Permutations of the MMD test
    #[arg(long, value_name = "N", default_value_t = 9_999)]
    permutations: u32,
    /// σ of the RBF kernel [default: median distance over pooled pairs]
    #[arg(long, value_name = "S")]
    bandwidth: Option<f64>,
    #[command(flatten)]
    gates: GateArgs,
}

impl AuditArgs {
    fn config(self, session: &Session) -> Result<(AuditConfig, Gates)> {
        let Self {
            reference,
            current,
            input: InputArgs { id },
            group,
            queries_reference,
            queries_current,
            qrels,
            noise_floor,
            mut ks,
            overlap_queries,
            thresholds,
            sample,
            slice_by,
            clusters,
            min_slice,
            text,
            sketch,
            permutations,
            bandwidth,
            gates,
        } = self;
        let gates = gates.prepare(&AUDIT_MEASURES, session)?;
        ks.extend(gates.list_lengths(&["overlap", "jaccard"]));
        let (golden, query_logs) = match (queries_reference, queries_current, qrels) {
            (Some(reference), Some(current), None) => {
                (None, Some(QueryLogs { reference, current }))
            }
            (reference, current, qrels) => (golden(reference, current, qrels)?, None),
        };
        ks.sort_unstable();
        ks.dedup();
        if ks.first() == Some(&0) {
            return Err(Error::input("--ks", "k = 0, expected at least 1"));
        }
        if let Some(t) = thresholds.iter().find(|t| !(-1.0..=1.0).contains(*t)) {
            return Err(Error::input(
                "--thresholds",
                format!("{t}, expected cosines between -1 and 1"),
            ));
        }
        super::positive("--sample", sample)?;
        super::positive("--overlap-queries", overlap_queries)?;
        super::positive("--min-slice", Some(min_slice))?;
        super::check_test(permutations, bandwidth)?;
        let config = AuditConfig {
            id,
            group,
            golden,
            // clap takes exactly two.
            noise_floor: noise_floor.and_then(|two| two.try_into().ok()),
            query_logs,
            ks,
            overlap_queries,
            thresholds,
            sample,
            slice_by,
            clusters,
            min_slice_rows: min_slice,
            text,
            sketch: sketch.map(|path| path.display().to_string()),
            permutations,
            bandwidth,
            seed: session.seed,
            policy: gates.policy.clone(),
            ..AuditConfig::new(reference, current)
        };
        Ok((config, gates))
    }

    pub(super) fn run(self, session: &Session) -> Result<Outcome> {
        let (config, gates) = self.config(session)?;
        if !announce(session, &config)? {
            return Ok(Outcome::Done);
        }
        if let Some(folder) = session.out() {
            check_folder(folder)?;
        }
        if let Some(path) = &config.sketch {
            super::check_file(Path::new(path))?;
        }
        let engine = session.engine()?;
        let audited = audit::audit(&config, &engine, session.progress())?;
        let Audited {
            audit,
            inputs,
            warnings,
            timings,
            items,
            sketch,
        } = audited;
        let warnings = warnings.into_iter().chain(engine.warnings()).collect();
        let measures = audit_measures(&audit);
        let sketched = config.sketch.clone();
        let mut output = Output {
            warnings,
            ..session.output("audit", config, inputs, &engine, audit, timings)
        };
        let mut page = report::audit_page(&output);
        let arguments = std::env::args_os().skip(1);
        let arguments = arguments.map(|word| word.to_string_lossy().into_owned());
        page.sections
            .push(report::reproduction(arguments, &output.config));
        gates.judge(&mut output, &mut page, &measures);
        if let (Some(sketch), Some(path)) = (&sketch, &sketched) {
            sketch_file::save(Path::new(path), sketch)?;
            page.outputs.push(report::Output {
                path: path.clone(),
                content: "a sketch of current, for a later audit".to_owned(),
            });
        }
        if let Some(folder) = session.out() {
            create_folder(folder)?;
            write_files(folder, &output, &page, items.as_ref())?;
            let mut files = vec![
                ("report.html", "the whole report"),
                ("result.json", "every number"),
            ];
            if items.is_some() {
                files.push(("items.parquet", "one row per shared item"));
            }
            if write_foreign(&folder.join(FOREIGN), &output.results.data)? {
                files.push((FOREIGN, "rows of another vector space"));
            }
            page.outputs
                .extend(files.into_iter().map(|(name, content)| report::Output {
                    path: folder.join(name).display().to_string(),
                    content: content.to_owned(),
                }));
        }
        let verdict = &output.results.verdict;
        gates.finish(session, &output, page, &measures, Some(verdict))
    }
}

/// Golden queries, where all that they take is named.
pub(super) fn golden(
    queries_reference: Option<String>,
    queries_current: Option<String>,
    qrels: Option<String>,
) -> Result<Option<GoldenConfig>> {
    match (queries_reference, queries_current, qrels) {
        (None, None, None) => Ok(None),
        (Some(queries_reference), Some(queries_current), Some(qrels)) => Ok(Some(GoldenConfig {
            queries_reference,
            queries_current,
            qrels,
        })),
        _ => Err(Error::input(
            "golden queries",
            "--queries-reference, --queries-current and --qrels go together, expected all three",
        )),
    }
}

/// Opens the inputs for their sizes, and tells what is about to happen.
fn announce(session: &Session, config: &AuditConfig) -> Result<bool> {
    let options = crate::source::ReadOptions {
        id: config.id.clone(),
        ..Default::default()
    };
    let reference = session::open(&config.reference, &options)?.info().clone();
    let current = session::open(&config.current, &options)?.info().clone();
    let rows = |info: &crate::source::SourceInfo| info.rows.unwrap_or(0) as usize;
    let (n, m) = (rows(&reference), rows(&current));
    let queries = config.overlap_queries.unwrap_or(n).min(n);
    let (sn, sm) = (
        config.sample.unwrap_or(n).min(n),
        config.sample.unwrap_or(m).min(m),
    );
    let mut passes = vec![
        Pass::between("neighbours in reference", queries, n, reference.dim),
        Pass::between("neighbours in current", queries, m, current.dim),
        Pass::within("cosines in reference", sn, reference.dim),
        Pass::within("cosines in current", sm, current.dim),
    ];
    if reference.dim == current.dim {
        passes.push(Pass::within("MMD", sn + sm, reference.dim));
    }
    plan::announce(session, &[&reference, &current], &passes)
}

/// Whether a folder can be made here: found out before an hour's work, not after.
pub(super) fn check_folder(folder: &Path) -> Result<()> {
    let existing = folder
        .ancestors()
        .find(|p| p.exists() || p.as_os_str().is_empty());
    match existing {
        Some(path) if !path.as_os_str().is_empty() && !path.is_dir() => Err(Error::output(
            path.display(),
            "is a file, expected a folder for the results",
        )
        .hint("--out names a folder that exists or can be made")),
        _ => Ok(()),
    }
}

pub(super) fn create_folder(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(|e| {
        Error::output(folder.display(), format!("cannot create the folder: {e}"))
            .hint("--out names a folder that exists or can be made")
    })
}

fn write_files<C: serde::Serialize, R: serde::Serialize>(
    folder: &Path,
    output: &Output<C, R>,
    page: &report::Page,
    items: Option<&Items>,
) -> Result<()> {
    let text = |name: &str, content: String| {
        let path = folder.join(name);
        report::write_atomic(&path, |file| {
            file.write_all(content.as_bytes())
                .map_err(|e| Error::output(path.display(), e))
        })
    };
    text("result.json", to_json(output)?)?;
    text("report.html", report::html(page)?)?;
    if let Some(items) = items {
        write_items(&folder.join("items.parquet"), items)?;
    }
    Ok(())
}

/// One row per row of another vector space: the side and the id. Whether there was any.
fn write_foreign(path: &Path, data: &DataFaults) -> Result<bool> {
    let (mut sides, mut ids) = (Ids::new(), Ids::new());
    for (name, side) in [("reference", &data.reference), ("current", &data.current)] {
        for id in side
            .mixed_spaces
            .iter()
            .flat_map(|found| &found.foreign_ids)
        {
            sides.push(name);
            ids.push(id);
        }
    }
    if ids.is_empty() {
        return Ok(false);
    }
    let columns: Vec<(&str, Column<'_>)> = vec![
        ("side", Column::Id(&sides, Box::new(|i| i as u32))),
        ("id", Column::Id(&ids, Box::new(|i| i as u32))),
    ];
    report::write_atomic(path, |file| write::parquet(file, path, ids.len(), &columns))?;
    Ok(true)
}

/// One row per shared item.
pub(super) fn write_items(path: &Path, items: &Items) -> Result<()> {
    let o = &items.neighbourhoods;
    let ids = &items.ids;
    let mut columns = vec![("id", Column::Id(ids, Box::new(|i| o.rows[i])))];
    if let Some(cosine) = &items.paired_cosine {
        columns.push((
            "paired_cosine",
            Column::Number(Box::new(|i| Some(cosine[o.rows[i] as usize]))),
        ));
    }
    columns.extend([
        ("overlap", Column::Number(Box::new(|i| Some(o.overlap[i])))),
        ("jaccard", Column::Number(Box::new(|i| Some(o.jaccard[i])))),
        ("rbo", Column::Number(Box::new(|i| Some(o.rbo[i])))),
        (
            "displacement",
            Column::Number(Box::new(|i| o.displacement[i])),
        ),
        (
            "k_occurrence_reference",
            Column::Count(Box::new(|i| o.k_occurrence_reference[i])),
        ),
        (
            "k_occurrence_current",
            Column::Count(Box::new(|i| o.k_occurrence_current[i])),
        ),
        (
            "lost_ids",
            Column::IdList(
                ids,
                Box::new(|i| o.lost.of(i).iter().map(|c| c.row).collect()),
            ),
        ),
        (
            "gained_ids",
            Column::IdList(
                ids,
                Box::new(|i| o.gained.of(i).iter().map(|c| c.row).collect()),
            ),
        ),
    ]);
    report::write_atomic(path, |file| {
        write::parquet(file, path, o.rows.len(), &columns)
    })
}
