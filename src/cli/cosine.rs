//! `vecdrift cosine`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::gate::GateArgs;
use super::plan::{self, Pass, Residence};
use super::session::{self, Loaded, Session};
use super::{Engine, Error, InputArgs, Outcome, Result};
use crate::audit::gate::{COSINE_MEASURES, cosine_measures};
use crate::metrics::cosine::{self, CosineDistribution};
use crate::metrics::moments::UnitMoments;
use crate::metrics::pairs::{self, SimilarPair, Wanted};
use crate::output::{InputSummary, Stopwatch};
use crate::report;
use crate::source::{Source, SourceInfo};

/// Shows the distribution of pairwise cosines, within a set or between two
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift cosine corpus.parquet
  vecdrift cosine old.parquet new.parquet --format json
  vecdrift cosine corpus.parquet --above 0.98

Exact over all pairs unless --sample says otherwise. X is held in memory; Y may
be larger: what is half precision or does not fit into --memory is read block by
block, unless --sample, --above or --top-pairs needs it whole.")]
pub(super) struct CosineArgs {
    /// The set
    x: String,
    /// Another set, to compare X with [default: pairs within X]
    y: Option<String>,
    /// Use only this many rows per set, chosen by id hash
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    /// List the N most similar pairs
    #[arg(long, value_name = "N", conflicts_with = "above")]
    top_pairs: Option<usize>,
    /// List every pair with at least this cosine
    #[arg(long, value_name = "COSINE", allow_negative_numbers = true)]
    above: Option<f64>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    x: String,
    y: Option<String>,
    sample: Option<usize>,
    top_pairs: Option<usize>,
    above: Option<f64>,
}

/// The distribution, and the most similar pairs where they were asked for.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct CosineResults {
    #[serde(flatten)]
    pub(super) distribution: CosineDistribution,
    /// Whether every pair was used.
    pub(super) exact: bool,
    /// The most similar pairs, most similar first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) similar_pairs: Option<Vec<SimilarPair>>,
}

impl CosineArgs {
    pub(super) fn run(self, session: &Session) -> Result<Outcome> {
        let Self {
            x,
            y,
            sample,
            top_pairs,
            above,
            input,
            gates,
        } = self;
        let gates = gates.prepare(&COSINE_MEASURES, session)?;
        session.refuse_out("cosine")?;
        super::positive("--sample", sample)?;
        if above.is_some_and(|t| !(-1.0..=1.0).contains(&t)) {
            return Err(Error::input(
                "--above",
                "expected a cosine between -1 and 1",
            ));
        }
        let mut clock = Stopwatch::start();
        let options = input.read_options(&[]);
        let source_x = session::open(&x, &options)?;
        let source_y = y.as_ref().map(|y| session::open(y, &options)).transpose()?;
        let info = source_x.info().clone();
        let info_y = source_y.as_ref().map(|s| s.info().clone());
        if let Some(other) = &info_y
            && other.dim != info.dim
        {
            return Err(Error::input(
                &other.name,
                format!(
                    "dimension {}, expected {} as in {}",
                    other.dim, info.dim, info.name
                ),
            ));
        }
        let rows = |i: &SourceInfo| {
            sample
                .unwrap_or(usize::MAX)
                .min(i.rows.unwrap_or(0) as usize)
        };
        let pass = match &info_y {
            Some(other) => Pass::between("pair_histogram", rows(&info), rows(other), info.dim),
            None => Pass::within("pair_histogram", rows(&info), info.dim),
        };
        let wanted = above.map(Wanted::Above).or(top_pairs.map(Wanted::Top));
        // X stays. Y may pass by, but a sample and a list of pairs are drawn from rows in memory.
        let residence = match &info_y {
            Some(other) if wanted.is_none() && sample.is_none() => Residence::of(other, session),
            _ => Residence::Held,
        };
        let mut infos = vec![(&info, Residence::Held)];
        infos.extend(info_y.as_ref().map(|other| (other, residence)));
        if !plan::announce_inputs(session, &infos, &[pass])? {
            return Ok(Outcome::Done);
        }
        let x_set = session.read("x", source_x)?;
        let measured = match (residence, source_y) {
            (Residence::Streamed, Some(source_y)) => {
                let open_y = || session::open(&source_y.info().name, &options);
                streamed(session, &mut clock, x_set, source_y.info(), open_y)?
            }
            (_, source_y) => {
                let y_set = source_y.map(|s| session.read("y", s)).transpose()?;
                clock.lap("read");
                held(session, &mut clock, (x_set, y_set), sample, wanted)?
            }
        };
        let Measured {
            engine,
            results,
            inputs,
        } = measured;
        let mut output = session.output(
            "cosine",
            Config {
                x,
                y,
                sample,
                top_pairs,
                above,
            },
            inputs,
            &engine,
            results,
            clock.timings(),
        );
        let r = &output.results;
        let mut page = report::cosine_page(
            &output,
            &r.distribution,
            r.exact,
            r.similar_pairs.as_deref(),
        );
        let measures = cosine_measures(&output.results.distribution);
        gates.judge(&mut output, &mut page, &measures);
        gates.finish(session, &output, page, &measures, None)
    }
}

/// What was measured.
struct Measured {
    engine: Engine,
    results: CosineResults,
    inputs: Vec<InputSummary>,
}

/// With every row in memory.
fn held(
    session: &Session,
    clock: &mut Stopwatch,
    (mut x, mut y): (Loaded, Option<Loaded>),
    sample: Option<usize>,
    wanted: Option<Wanted>,
) -> Result<Measured> {
    let rows = |x: &Loaded, y: &Option<Loaded>| x.set.len() + y.as_ref().map_or(0, |y| y.set.len());
    let all = rows(&x, &y);
    if let Some(rows) = sample {
        let sampled = |loaded: Loaded| Loaded {
            set: loaded.set.sample(rows, session.seed),
            ..loaded
        };
        (x, y) = (sampled(x), y.map(sampled));
    }
    let used = rows(&x, &y);
    if y.is_none() && x.set.len() < 2 {
        return Err(Error::input(
            &x.set.name,
            "1 usable row, expected at least 2",
        ));
    }
    let engine = session.engine()?;
    let unit = UnitMoments::of(&engine, x.set.rows())?;
    let distribution = match &y {
        None => cosine::within(&engine, x.set.rows(), &unit)?,
        Some(y) => {
            let unit_y = UnitMoments::of(&engine, y.set.rows())?;
            cosine::between(&engine, x.set.rows(), y.set.rows(), &unit, &unit_y)?
        }
    };
    clock.lap("pair_histogram");
    let similar_pairs = wanted
        .map(|wanted| {
            let y = y.as_ref().map(|y| (y.set.rows(), &y.set.ids));
            pairs::similar_pairs(&engine, (x.set.rows(), &x.set.ids), y, wanted)
        })
        .transpose()?;
    clock.lap("nearest");
    Ok(Measured {
        engine,
        results: CosineResults {
            distribution,
            exact: used == all,
            similar_pairs,
        },
        inputs: std::iter::once(x.summary)
            .chain(y.map(|y| y.summary))
            .collect(),
    })
}

/// With X in memory and Y passing by three times: for its mean, for its moments about it, for the pairs.
fn streamed(
    session: &Session,
    clock: &mut Stopwatch,
    x: Loaded,
    y: &SourceInfo,
    open_y: impl Fn() -> Result<Source>,
) -> Result<Measured> {
    clock.lap("read");
    let engine = session.engine()?;
    let unit = UnitMoments::of(&engine, x.set.rows())?;
    let unit_y = UnitMoments::of_stream(&engine, || Ok(open_y()?.stream()))?;
    let mut rows = open_y()?.stream();
    let distribution = cosine::between_stream(&engine, x.set.rows(), &mut rows, &unit, &unit_y)?;
    let roster = rows.finish()?;
    clock.lap("pair_histogram");
    Ok(Measured {
        engine,
        results: CosineResults {
            distribution,
            exact: true,
            similar_pairs: None,
        },
        inputs: vec![x.summary, InputSummary::of_stream("y", y, &roster)],
    })
}
