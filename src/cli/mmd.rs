//! `vecdrift mmd`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::gate::GateArgs;
use super::plan::{self, Pass};
use super::session::{self, Session};
use super::{Error, InputArgs, Outcome, Result};
use crate::audit::gate::{MMD_MEASURES, mmd_measures};
use crate::embeddings::{IdSource, Ids};
use crate::metrics::mmd::{self, MmdConfig, Sample};
use crate::output::Stopwatch;
use crate::report;

/// Tests whether two sets come from one distribution, and how far apart they are
///
/// Maximum mean discrepancy over five RBF bandwidths and energy, with a permutation test over blocks of
/// rows that stays exact when the sets share documents, and an effect size with its interval.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift mmd january.parquet july.parquet
  vecdrift mmd a.npy b.npy --bandwidth 1.2 --permutations 999
  vecdrift mmd a.parquet b.parquet --group document_id

Both sets must live in one space: same model, same dimension.")]
pub(super) struct MmdArgs {
    /// One set
    x: String,
    /// The other
    y: String,
    /// σ of the RBF kernel exp(−d²/(2σ²)) [default: median distance over
    /// pooled pairs]
    #[arg(long, value_name = "S", allow_negative_numbers = true)]
    bandwidth: Option<f64>,
    /// Permutations of the test
    #[arg(long, value_name = "N", default_value_t = 9_999)]
    permutations: u32,
    /// Column whose equal values mark rows that belong together
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Use only this many rows per side, chosen by id hash
    #[arg(long, value_name = "N")]
    sample: Option<usize>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    x: String,
    y: String,
    group: Option<String>,
    sample: Option<usize>,
    bandwidth: Option<f64>,
    permutations: u32,
}

impl MmdArgs {
    pub(super) fn run(self, session: &Session) -> Result<Outcome> {
        let Self {
            x,
            y,
            bandwidth,
            permutations,
            group,
            sample,
            input,
            gates,
        } = self;
        let gates = gates.prepare(&MMD_MEASURES, session)?;
        session.refuse_out("mmd")?;
        super::check_test(permutations, bandwidth)?;
        super::positive("--sample", sample)?;
        let mut clock = Stopwatch::start();
        let columns: Vec<String> = group.iter().cloned().collect();
        let options = input.read_options(&columns);
        let sources = [session::open(&x, &options)?, session::open(&y, &options)?];
        let infos = sources.each_ref().map(|s| s.info().clone());
        if infos[0].dim != infos[1].dim {
            return Err(Error::input(
                &infos[1].name,
                format!(
                    "dimension {}, expected {} as in {}",
                    infos[1].dim, infos[0].dim, infos[0].name
                ),
            )
            .hint("MMD needs one space; `vecdrift audit` compares spaces by neighbours"));
        }
        let rows = |i: usize| {
            sample
                .unwrap_or(usize::MAX)
                .min(infos[i].rows.unwrap_or(0) as usize)
        };
        let pass = Pass::within("pair_sums", rows(0) + rows(1), infos[0].dim);
        if !plan::announce(session, &[&infos[0], &infos[1]], &[pass])? {
            return Ok(Outcome::Done);
        }
        let [a, b] = sources;
        let (mut a, mut b) = (session.read("x", a)?, session.read("y", b)?);
        clock.lap("read");
        if let Some(rows) = sample {
            a.set = a.set.sample(rows, session.seed);
            b.set = b.set.sample(rows, session.seed);
        }
        // Row numbers are no identities: rows of two files without ids are different documents.
        let foreign: Option<Ids> = (b.set.id_source == IdSource::RowNumber
            || a.set.id_source == IdSource::RowNumber)
            .then(|| b.set.ids.iter().map(|id| format!("y:{id}")).collect());
        let config = MmdConfig {
            bandwidth,
            permutations,
            seed: session.seed,
            margin: gates.policy.max_eps_eq,
            ..MmdConfig::default()
        };
        let engine = session.engine()?;
        let found = mmd::mmd(
            &engine,
            Sample {
                rows: a.set.rows(),
                ids: &a.set.ids,
                groups: a.set.first_column(),
            },
            Sample {
                rows: b.set.rows(),
                ids: foreign.as_ref().unwrap_or(&b.set.ids),
                groups: b.set.first_column(),
            },
            &config,
        )?;
        clock.lap("mmd");
        let mut output = session.output(
            "mmd",
            Config {
                x,
                y,
                group,
                sample,
                bandwidth,
                permutations,
            },
            vec![a.summary, b.summary],
            &engine,
            found,
            clock.timings(),
        );
        let mut page = report::mmd_page(&output);
        let measures = mmd_measures(&output.results);
        gates.judge(&mut output, &mut page, &measures);
        gates.finish(session, &output, page, &measures, None)
    }
}
