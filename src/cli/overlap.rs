//! `vecdrift overlap`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::audit::write_items;
use super::gate::GateArgs;
use super::plan::{self, Pass};
use super::session::{self, Session};
use super::{Error, InputArgs, Outcome, Result};
use crate::audit::Items;
use crate::audit::gate::{OVERLAP_MEASURES, overlap_measures};
use crate::embeddings::{Ids, Join};
use crate::metrics::overlap::{self, OverlapConfig};
use crate::output::Stopwatch;
use crate::report;

/// Compares whose neighbours stayed, for two sets that share ids
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift overlap old.parquet new.parquet -k 10
  vecdrift overlap old.parquet new.parquet -k 10 --out overlap/
  vecdrift overlap old.parquet new.parquet --group document_id

overlap@k = |A ∩ B| / k over each item's k nearest in either space. Dimensions
and row order may differ. With --out the folder gets items.parquet.")]
pub(super) struct OverlapArgs {
    /// The embeddings as they were
    reference: String,
    /// The embeddings as they are now
    current: String,
    /// Length of the neighbour lists
    #[arg(short, long, value_name = "K", default_value_t = 10)]
    k: usize,
    /// Column whose equal values mark rows that belong together, e.g. the chunks
    /// of one document: they are kept out of each other's lists
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// Query only this many items (the base is never sampled)
    #[arg(long, value_name = "N")]
    queries: Option<usize>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    gates: GateArgs,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    reference: String,
    current: String,
    group: Option<String>,
    overlap: OverlapConfig,
}

impl OverlapArgs {
    pub(super) fn run(self, session: &Session) -> Result<Outcome> {
        let Self {
            reference,
            current,
            k,
            group,
            queries,
            input,
            gates,
        } = self;
        let gates = gates.prepare(&OVERLAP_MEASURES, session)?;
        if k == 0 {
            return Err(Error::input("-k", "0 neighbours, expected at least 1"));
        }
        super::positive("--queries", queries)?;
        let mut clock = Stopwatch::start();
        let columns: Vec<String> = group.iter().cloned().collect();
        let sources = [
            session::open(&reference, &input.read_options(&columns))?,
            session::open(&current, &input.read_options(&[]))?,
        ];
        let infos = sources.each_ref().map(|s| s.info().clone());
        let n = infos[0].rows.unwrap_or(0) as usize;
        let q = queries.unwrap_or(n).min(n);
        let passes = [
            Pass::between("nearest, reference", q, n, infos[0].dim),
            Pass::between("nearest, current", q, n, infos[1].dim),
        ];
        if !plan::announce(session, &[&infos[0], &infos[1]], &passes)? {
            return Ok(Outcome::Done);
        }
        session.out().map_or(Ok(()), super::audit::check_folder)?;
        let [a, b] = sources;
        let (x, y) = (session.read("reference", a)?, session.read("current", b)?);
        clock.lap("read");
        let join = Join::new(&x.set.ids, &y.set.ids);
        if join.shared.len() < 2 {
            return Err(Error::input(
                &y.set.name,
                format!(
                    "{} ids shared with {}, expected at least 2",
                    join.shared.len(),
                    x.set.name
                ),
            )
            .hint("overlap compares the same items in two spaces; --id COLUMN names their ids"));
        }
        let rows = join.reference_rows();
        let ids: Ids = x.set.ids.select(&rows);
        let labels: Option<Vec<String>> = x.set.first_column().map(|of_rows| {
            let label = |&row: &u32| of_rows[row as usize].clone();
            rows.iter().map(label).collect()
        });
        let (xs, ys) = (x.set.gather(&rows), y.set.gather(&join.current_rows()));
        let config = OverlapConfig {
            ks: gates
                .list_lengths(&["overlap", "jaccard"])
                .chain([k])
                .collect(),
            headline_k: k,
            queries,
            seed: session.seed,
            ..OverlapConfig::default()
        };
        let engine = session.engine()?;
        let found = overlap::overlap(
            &engine,
            xs.rows(x.set.dim()),
            ys.rows(y.set.dim()),
            &ids,
            labels.as_deref(),
            &config,
        )?;
        clock.lap("overlap");
        let mut files = Vec::new();
        let items = Items {
            ids,
            paired_cosine: None,
            neighbourhoods: found.per_item.clone(),
        };
        if let Some(folder) = session.out() {
            super::audit::create_folder(folder)?;
            let path = folder.join("items.parquet");
            write_items(&path, &items)?;
            files.push(report::Output {
                path: path.display().to_string(),
                content: "one row per item".to_owned(),
            });
        }
        let mut output = session.output(
            "overlap",
            Config {
                reference,
                current,
                group: group.clone(),
                overlap: config,
            },
            vec![x.summary, y.summary],
            &engine,
            found,
            clock.timings(),
        );
        let groups = output.results.groups.as_ref().zip(group.as_ref());
        let warning = groups.and_then(|(sizes, column)| sizes.warning(column));
        output.warnings.extend(warning);
        let unshared = join.only_reference.len() + join.only_current.len();
        if unshared > 0 {
            output.warnings.push(format!(
                "{} ids of the reference and {} of the current set have no partner and take no part",
                join.only_reference.len(),
                join.only_current.len()
            ));
        }
        let mut page = report::Page {
            outputs: files,
            ..report::overlap_page(&output)
        };
        let measures = overlap_measures(&output.results);
        gates.judge(&mut output, &mut page, &measures);
        gates.finish(session, &output, page, &measures, None)
    }
}
