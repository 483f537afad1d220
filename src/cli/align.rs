//! `vecdrift align`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::plan::{self, Pass};
use super::session::{self, Loaded, Session};
use super::{Error, InputArgs, Path, PathBuf, Result, ValueEnum, adapter_file};
use crate::audit::{GoldenConfig, Policy, read_qrels};
use crate::metrics::adapter::{
    self, AdapterState, AlignConfig, AlignSide, Aligned, Alignment, Direction, Method,
};
use crate::output::Stopwatch;
use crate::report;

/// Says whether old and new vectors may be mixed, and fits a map between them
///
/// Fits rotations, low-rank and ridge maps from items that both sides share, in both directions, and
/// judges them on items that made none of them, against the whole corpus.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift align old.parquet new.parquet
  vecdrift align old.parquet new.parquet --adapter new_to_old.safetensors
  vecdrift apply new_to_old.safetensors queries.parquet --out mapped.parquet

The adapter maps current vectors into the reference's space, so that the old
index stays, unless --direction says otherwise. Dimensions may differ.")]
pub(super) struct AlignArgs {
    /// The embeddings as they were
    reference: String,
    /// The embeddings as they are now
    current: String,
    /// Write the adapter here, as safetensors
    #[arg(long, value_name = "FILE")]
    adapter: Option<PathBuf>,
    /// Which adapter to write
    #[arg(long, value_enum, default_value = "current-to-reference")]
    direction: DirectionArg,
    /// Which kind of map to take
    #[arg(long, value_enum, default_value = "auto")]
    method: MethodArg,
    /// Length of the neighbour lists
    #[arg(short, long, value_name = "K", default_value_t = 10)]
    k: usize,
    /// Use at most this many shared items [default: 20000, or 10 per dimension]
    #[arg(long, value_name = "N")]
    pairs: Option<usize>,
    /// Column whose equal values mark rows that belong together, e.g. the chunks
    /// of one document
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Golden queries, embedded as REFERENCE was
    #[arg(long, value_name = "INPUT")]
    queries_reference: Option<String>,
    /// The same queries, embedded as CURRENT was
    #[arg(long, value_name = "INPUT")]
    queries_current: Option<String>,
    /// Relevance judgements: BEIR TSV, TREC qrels or Parquet
    #[arg(long, value_name = "FILE")]
    qrels: Option<String>,
    #[command(flatten)]
    input: InputArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DirectionArg {
    /// New vectors into the old space
    CurrentToReference,
    /// Old vectors into the new space
    ReferenceToCurrent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MethodArg {
    /// The simplest of those that explain most
    Auto,
    /// A rotation and one scale
    Procrustes,
    /// Ridge regression of limited rank
    LowRank,
    /// Ridge regression
    Ridge,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    reference: String,
    current: String,
    group: Option<String>,
    golden: Option<GoldenConfig>,
    direction: Direction,
    align: AlignConfig,
}

/// What `align` found, and what it wrote.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Results {
    #[serde(flatten)]
    alignment: Alignment,
    /// The adapter's file.
    adapter: Option<String>,
}

impl AlignArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self {
            reference,
            current,
            adapter,
            direction,
            method,
            k,
            pairs,
            group,
            queries_reference,
            queries_current,
            qrels,
            input,
        } = self;
        if session.out().is_some() {
            return Err(Error::input("--out", "align writes no folder")
                .hint("--adapter FILE.safetensors says where the adapter goes"));
        }
        if k == 0 {
            return Err(Error::input("-k", "0 neighbours, expected at least 1"));
        }
        super::positive("--pairs", pairs)?;
        adapter.as_deref().map_or(Ok(()), check_adapter)?;
        let golden = super::audit::golden(queries_reference, queries_current, qrels)?;
        let mut clock = Stopwatch::start();
        let columns: Vec<String> = group.iter().cloned().collect();
        let options = input.read_options(&columns);
        let sources = [
            session::open(&reference, &options)?,
            session::open(&current, &options)?,
        ];
        let infos = sources.each_ref().map(|s| s.info().clone());
        let rows = infos.each_ref().map(|i| i.rows.unwrap_or(0) as usize);
        let judged = pairs.unwrap_or(20_000).min(rows[0]) / 5;
        // Per direction: every kind of map, the space itself, and the other space.
        let passes = [0, 1].map(|side| {
            let mut pass = Pass::between("nearest", 6 * judged, rows[side], infos[side].dim);
            pass.what = format!("neighbours in {}", ["reference", "current"][side]);
            pass
        });
        if !plan::announce(session, &[&infos[0], &infos[1]], &passes)? {
            return Ok(());
        }
        let [old, new] = sources;
        let (old, new) = (
            session.read("reference", old)?,
            session.read("current", new)?,
        );
        let queries = match &golden {
            None => None,
            Some(golden) => {
                let options = input.read_options(&[]);
                let read = |role, input: &str| session.read(role, session::open(input, &options)?);
                Some((
                    read("queries_reference", &golden.queries_reference)?,
                    read("queries_current", &golden.queries_current)?,
                    read_qrels(&golden.qrels)?,
                ))
            }
        };
        clock.lap("read");

        let policy = Policy::default();
        let align_config = AlignConfig {
            k,
            pairs,
            method: match method {
                MethodArg::Auto => None,
                MethodArg::Procrustes => Some(Method::Procrustes),
                MethodArg::LowRank => Some(Method::LowRank),
                MethodArg::Ridge => Some(Method::Ridge),
            },
            min_intact_overlap: policy.min_intact_overlap,
            min_similar_overlap: policy.min_similar_overlap,
            min_mixable_cosine: policy.min_mixable_cosine,
            min_recovered_share: adapter::MIN_RECOVERED_SHARE,
            seed: session.seed,
        };
        fn side<'a>(corpus: &'a Loaded, queries: Option<&'a Loaded>) -> AlignSide<'a> {
            AlignSide {
                rows: corpus.set.rows(),
                ids: &corpus.set.ids,
                groups: corpus.set.first_column(),
                queries: queries.map(|q| (q.set.rows(), &q.set.ids)),
            }
        }
        let engine = session.engine()?;
        let Aligned {
            alignment,
            adapters,
        } = adapter::align(
            &engine,
            &side(&old, queries.as_ref().map(|q| &q.0)),
            &side(&new, queries.as_ref().map(|q| &q.1)),
            queries.as_ref().map_or(&[], |q| q.2.as_slice()),
            &align_config,
        )?;
        clock.lap("align");

        let direction = match direction {
            DirectionArg::CurrentToReference => Direction::CurrentToReference,
            DirectionArg::ReferenceToCurrent => Direction::ReferenceToCurrent,
        };
        let mut warnings = Vec::new();
        if let Some(path) = &adapter {
            for (found, fitted) in alignment.directions.iter().zip(&adapters) {
                if found.direction != direction {
                    continue;
                }
                if found.state == AdapterState::NoMap {
                    warnings.push(format!(
                        "the adapter written is of no use: {}",
                        found.statement
                    ));
                }
                adapter_file::save(
                    path,
                    fitted,
                    &training_facts(&alignment, &old, &new, session),
                )?;
            }
        }
        let few = alignment.pairs.used < alignment.pairs.enough;
        if few {
            warnings.push(format!(
                "{} pairs were used; a map between these dimensions gets better up to about {}",
                alignment.pairs.used, alignment.pairs.enough
            ));
        }
        let mut inputs = vec![old.summary, new.summary];
        if let Some((a, b, _)) = queries {
            inputs.extend([a.summary, b.summary]);
        }
        let results = Results {
            alignment,
            adapter: adapter.as_ref().map(|p| p.display().to_string()),
        };
        let config = Config {
            reference,
            current,
            group,
            golden,
            direction,
            align: align_config,
        };
        let mut output = session.output(
            "align",
            config,
            inputs,
            engine.device(),
            results,
            clock.timings(),
        );
        output.warnings.extend(warnings);
        let mut page = report::align_page(&output, &output.results.alignment);
        page.outputs
            .extend(output.results.adapter.iter().map(|path| report::Output {
                path: path.clone(),
                content: format!("the adapter, {}", direction.label()),
            }));
        session.print(&output, &page)
    }
}

/// What an adapter's reader should know about its making.
fn training_facts(
    alignment: &Alignment,
    reference: &Loaded,
    current: &Loaded,
    session: &Session,
) -> Vec<(&'static str, String)> {
    let pairs = &alignment.pairs;
    vec![
        ("reference", reference.summary.source.clone()),
        ("current", current.summary.source.clone()),
        (
            "reference_id_checksum",
            reference.summary.id_checksum.clone(),
        ),
        ("current_id_checksum", current.summary.id_checksum.clone()),
        ("pairs_fit", (pairs.fit + pairs.validation).to_string()),
        ("pairs_heldout", pairs.heldout.to_string()),
        ("seed", session.seed.to_string()),
    ]
}

fn check_adapter(path: &Path) -> Result<()> {
    if path.extension().is_none_or(|e| e != "safetensors") {
        return Err(Error::output(
            path.display(),
            "is another name than FILE.safetensors, expected that extension",
        ));
    }
    super::check_file(path)
}
