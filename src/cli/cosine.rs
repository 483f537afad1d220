//! `vecdrift cosine`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::gate::GateArgs;
use super::plan::{self, Pass};
use super::session::{self, Session};
use super::{Error, InputArgs, Outcome, Result};
use crate::audit::gate::{COSINE_MEASURES, cosine_measures};
use crate::metrics::cosine::{self, CosineDistribution};
use crate::metrics::moments::UnitMoments;
use crate::metrics::pairs::{self, SimilarPair, Wanted};
use crate::output::Stopwatch;
use crate::report;

/// Shows the distribution of pairwise cosines, within a set or between two
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift cosine corpus.parquet
  vecdrift cosine old.parquet new.parquet --format json
  vecdrift cosine corpus.parquet --above 0.98

Exact over all pairs unless --sample says otherwise.")]
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
        let rows = |i: &crate::source::SourceInfo| {
            sample
                .unwrap_or(usize::MAX)
                .min(i.rows.unwrap_or(0) as usize)
        };
        let pass = match &info_y {
            Some(other) => Pass::between("pair_histogram", rows(&info), rows(other), info.dim),
            None => Pass::within("pair_histogram", rows(&info), info.dim),
        };
        let infos: Vec<_> = std::iter::once(&info).chain(&info_y).collect();
        if !plan::announce(session, &infos, &[pass])? {
            return Ok(Outcome::Done);
        }
        let mut a = session.read("x", source_x)?;
        let mut b = source_y.map(|s| session.read("y", s)).transpose()?;
        clock.lap("read");
        let all = a.set.len() as u64 + b.as_ref().map_or(0, |b| b.set.len() as u64);
        if let Some(rows) = sample {
            a.set = a.set.sample(rows, session.seed);
            b = b.map(|b| session::Loaded {
                set: b.set.sample(rows, session.seed),
                ..b
            });
        }
        let used = a.set.len() as u64 + b.as_ref().map_or(0, |b| b.set.len() as u64);
        if b.is_none() && a.set.len() < 2 {
            return Err(Error::input(
                &info.name,
                "1 usable row, expected at least 2",
            ));
        }
        let engine = session.engine()?;
        let unit = UnitMoments::of(&engine, a.set.rows())?;
        let distribution = match &b {
            None => cosine::within(&engine, a.set.rows(), &unit)?,
            Some(b) => {
                let unit_y = UnitMoments::of(&engine, b.set.rows())?;
                cosine::between(&engine, a.set.rows(), b.set.rows(), &unit, &unit_y)?
            }
        };
        clock.lap("pair_histogram");
        let wanted = above.map(Wanted::Above).or(top_pairs.map(Wanted::Top));
        let similar_pairs = wanted
            .map(|wanted| {
                let y = b.as_ref().map(|b| (b.set.rows(), &b.set.ids));
                pairs::similar_pairs(&engine, (a.set.rows(), &a.set.ids), y, wanted)
            })
            .transpose()?;
        clock.lap("nearest");
        let results = CosineResults {
            distribution,
            exact: used == all,
            similar_pairs,
        };
        let inputs = std::iter::once(a.summary)
            .chain(b.map(|b| b.summary))
            .collect();
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
            engine.device(),
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
