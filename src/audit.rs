//! `audit`: reads two corpora, checks them, measures their drift and judges it. Start here.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Embeddings, IdSource, Ids, Join, Rows, Values};
use crate::engine::{Engine, Progress};
use crate::error::Result;
use crate::metrics::comparability::Comparability;
use crate::metrics::map::CorpusMap;
use crate::metrics::ood::Ood;
use crate::metrics::overlap::{self, Overlap, OverlapConfig, OverlapItems};
use crate::metrics::retrieval::{KnownItems, Retrieval};
use crate::metrics::sketch::Sketch;
use crate::metrics::slices::Slices;
use crate::metrics::thresholds::Thresholds;
use crate::output::{InputSummary, Stopwatch, Timing};
use crate::sketch_file;
use crate::source::{self, ReadOptions};

mod churn;
mod concentration;
mod faults;
mod floor;
pub mod gate;
mod map;
mod measure;
mod queries;
mod sketched;
mod slices;
mod topics;
mod verdict;

pub use churn::{Baseline, Churn};
pub use floor::{FloorAtK, NoiseFloor};
pub use measure::{Coordinates, DataFaults, Distribution, SideFaults, read_qrels};
pub use sketched::Sketched;
pub use topics::{TopicTurnover, VanishingTopic};
pub use verdict::{Action, Axis, AxisName, AxisState, Evidence, Policy, Verdict};

/// What to audit, and how.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AuditConfig {
    /// The reference set: path, folder or glob, optionally `#column`.
    pub reference: String,
    /// The current set.
    pub current: String,
    /// Id column; `None`: found by name.
    pub id: Option<String>,
    /// Column whose equal values mark rows that belong together (chunks of one document).
    pub group: Option<String>,
    /// Golden queries, where there are any.
    pub golden: Option<GoldenConfig>,
    /// The same corpus embedded twice, for the operational noise floor.
    pub noise_floor: Option<[String; 2]>,
    /// Query logs without judgements; golden queries take their place.
    pub query_logs: Option<QueryLogs>,
    /// k of the neighbourhood overlap; the verdict reads the one nearest to 10.
    pub ks: Vec<usize>,
    /// Queries sampled for the overlap; `None`: every shared row. The base is never sampled.
    pub overlap_queries: Option<usize>,
    /// Old similarity thresholds to carry over; empty: multiples of 0.05.
    pub thresholds: Vec<f64>,
    /// Rows sampled per side for the distribution measures; `None`: every row.
    pub sample: Option<usize>,
    /// Metadata columns whose values are slices; pairs of them are crossed.
    pub slice_by: Vec<String>,
    /// Clusters that are slices too; `None`: as many as suit the rows, 0: none.
    pub clusters: Option<usize>,
    /// Rows on either side that make a slice.
    pub min_slice_rows: usize,
    /// Column with the rows' text, shown in the report of the items that moved most.
    pub text: Option<String>,
    /// File for a sketch of the current set; `None`: none is made.
    pub sketch: Option<String>,
    /// Permutations of the MMD test.
    pub permutations: u32,
    /// σ of the RBF kernel; `None`: median distance over pooled pairs.
    pub bandwidth: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
    /// Where states change.
    pub policy: Policy,
}

/// Golden queries: the same queries embedded on both sides, and what is relevant to them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct GoldenConfig {
    /// Queries embedded as the reference set was.
    pub queries_reference: String,
    /// The same queries embedded as the current set was.
    pub queries_current: String,
    /// Relevance judgements: BEIR TSV, TREC qrels or Parquet.
    pub qrels: String,
}

/// What people searched for, before and now: the queries need not be the same.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct QueryLogs {
    /// Queries of the time of the reference set, embedded as it was.
    pub reference: String,
    /// Queries of now.
    pub current: String,
}

impl AuditConfig {
    /// The defaults for two inputs.
    pub fn new(reference: impl Into<String>, current: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            current: current.into(),
            id: None,
            group: None,
            golden: None,
            noise_floor: None,
            query_logs: None,
            ks: vec![1, 5, 10, 50, 100],
            overlap_queries: None,
            thresholds: Vec::new(),
            sample: None,
            slice_by: Vec::new(),
            clusters: None,
            min_slice_rows: 50,
            text: None,
            sketch: None,
            permutations: 9_999,
            bandwidth: None,
            seed: 0,
            policy: Policy::default(),
        }
    }

    /// The k that the verdict reads.
    fn headline_k(&self) -> usize {
        let nearest = self.ks.iter().copied().min_by_key(|k| k.abs_diff(10));
        nearest.unwrap_or(10)
    }
}

/// What an audit found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Audit {
    /// What to do, and why.
    pub verdict: Verdict,
    /// Which rows the two sets share.
    pub pairing: Pairing,
    /// What may be compared with what.
    pub comparability: Comparability,
    /// Faults of the data itself.
    pub data: DataFaults,
    /// Shared items, position by position.
    pub coordinates: Option<Coordinates>,
    /// Whose neighbours stayed.
    pub neighbourhoods: Option<Overlap>,
    /// The sets as samples of a distribution.
    pub distribution: Option<Distribution>,
    /// Golden queries.
    pub retrieval: Option<Retrieval>,
    /// Chunks searching for the rest of their document, where there are groups and no golden queries.
    pub known_items: Option<KnownItems>,
    /// Whether queries ask for what the corpus holds.
    pub ood: Option<Ood>,
    /// What similarity thresholds set on the reference are worth on the current set.
    pub thresholds: Option<Thresholds>,
    /// Where the drift is.
    pub slices: Option<Slices>,
    /// Topics that came and topics that went.
    pub topics: Option<TopicTurnover>,
    /// Both sets in two dimensions; the points are in the report.
    pub map: Option<CorpusMap>,
    /// What became of the items; null where no ids are shared.
    pub churn: Option<Churn>,
    /// What the measures say between two embeddings of one corpus.
    pub noise_floor: Option<NoiseFloor>,
    /// Where the reference is a sketch: what the two sketches say of all rows.
    pub sketched: Option<Sketched>,
    /// Texts of the most moved items and of their neighbours, by id, for the report.
    #[serde(skip)]
    pub texts: BTreeMap<String, String>,
    /// Measures that were not taken, each with its reason.
    pub not_measured: Vec<NotMeasured>,
}

/// Shared and unshared rows.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Pairing {
    /// `paired`: most ids are shared; `overlapping`: some are; `unpaired`: none is, or rows carry no ids.
    pub kind: PairingKind,
    /// Ids on both sides.
    pub shared: u64,
    /// Ids of the reference set only.
    pub only_reference: u64,
    /// Ids of the current set only.
    pub only_current: u64,
    /// The first few ids of the reference set only.
    pub first_only_reference: Vec<String>,
    /// The first few ids of the current set only.
    pub first_only_current: Vec<String>,
}

/// How far two sets hold the same items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PairingKind {
    /// At least half the ids of the smaller set are shared.
    Paired,
    /// Fewer are.
    Overlapping,
    /// None is.
    Unpaired,
}

/// A measure that was not taken.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NotMeasured {
    /// The measure.
    pub measure: String,
    /// Why.
    pub reason: String,
}

/// An audit with what surrounds it: what was read, warnings, timings, and the rows of `items.parquet`.
#[derive(Debug)]
pub struct Audited {
    /// The findings.
    pub audit: Audit,
    /// What was read.
    pub inputs: Vec<InputSummary>,
    /// What a reader should know first.
    pub warnings: Vec<String>,
    /// Seconds per step.
    pub timings: Vec<Timing>,
    /// Per shared item.
    pub items: Option<Items>,
    /// The sketch of current, where one was asked for.
    pub sketch: Option<Sketch>,
}

/// Per-item results, for `items.parquet`.
#[derive(Debug)]
pub struct Items {
    /// Ids of the shared items.
    pub ids: Ids,
    /// Cosine between an item's two vectors, where the dimensions agree.
    pub paired_cosine: Option<Vec<f64>>,
    /// Neighbourhood results.
    pub neighbourhoods: OverlapItems,
}

/// Reads, checks, measures, judges.
///
/// # Errors
/// An input cannot be read or is unfit, or the device fails.
pub fn audit(config: &AuditConfig, engine: &Engine, progress: &dyn Progress) -> Result<Audited> {
    let mut clock = Stopwatch::start();

    // Read.
    let mut inputs = Vec::new();
    let old = sketch_file::load(&config.reference)?;
    if let Some(old) = &old {
        sketched::check(old, config)?;
    }
    let slice_columns = slices::columns(config)?;
    let mut columns: Vec<String> = config.group.iter().cloned().collect();
    let sliced = slice_columns.iter().map(|column| &column.name);
    columns.extend(
        sliced
            .filter(|name| config.group.as_ref() != Some(name))
            .cloned(),
    );
    columns.extend(
        config
            .text
            .iter()
            .filter(|text| !columns.contains(text))
            .cloned()
            .collect::<Vec<_>>(),
    );
    let of_queries = slice_columns.iter().filter(|column| column.of_queries);
    let query_columns: Vec<String> = of_queries.map(|column| column.name.clone()).collect();
    let mut read = |role: &str, input: &str, columns: &[String]| {
        read_set(
            role,
            input,
            config.id.as_ref(),
            columns,
            progress,
            &mut inputs,
        )
    };
    let reference = read("reference", &config.reference, &columns)?;
    let mut current = read("current", &config.current, &columns)?;
    let golden = match &config.golden {
        None => None,
        Some(golden) => Some(measure::Golden {
            queries_reference: read(
                "queries_reference",
                &golden.queries_reference,
                &query_columns,
            )?,
            queries_current: read("queries_current", &golden.queries_current, &[])?,
            qrels: measure::read_qrels(&golden.qrels)?,
        }),
    };
    let query_logs = match &config.query_logs {
        None => None,
        Some(logs) => Some(queries::QuerySets {
            reference: read("queries_reference", &logs.reference, &[])?,
            current: read("queries_current", &logs.current, &[])?,
        }),
    };
    let twice = match &config.noise_floor {
        None => None,
        Some([first, second]) => Some((
            read("noise_floor_first", first, &[])?,
            read("noise_floor_second", second, &[])?,
        )),
    };
    clock.lap("read");

    // Sketch.
    let (mut of_sketches, mut sketch) = (None, None);
    if let Some(old) = &old {
        let (found, new, drawn) = sketched::against(engine, old, current, config)?;
        current = drawn;
        (of_sketches, sketch) = (Some(found), Some(new));
    } else if config.sketch.is_some() {
        sketch = Some(sketched::afresh(engine, &current, config)?);
    }
    if sketch.is_some() {
        clock.lap("sketch");
    }

    // Check.
    let noise_floor = match twice {
        None => None,
        Some((first, second)) => {
            let of_floor = &inputs[inputs.len() - 2..];
            let dim = reference.dim();
            let found = floor::noise_floor(engine, first, second, of_floor, dim, config)?;
            clock.lap("noise floor");
            Some(found)
        }
    };
    // A reference that is a sketch has more to say than that.
    let told = inputs.iter().skip(usize::from(of_sketches.is_some()));
    let mut warnings: Vec<String> = told.filter_map(InputSummary::warning).collect();
    warnings.extend(of_sketches.as_ref().map(Sketched::warning));
    let join = pair(engine, &reference, &current, &inputs, config, &mut warnings)?;
    let pairing = Pairing::new(&reference, &current, &join, &mut warnings);
    let paired = pairing.kind == PairingKind::Paired && join.shared.len() >= 3;
    let shared = paired.then(|| Shared::new(&reference, &current, &join));
    let mut not_measured = Vec::new();
    let comparability =
        measure::comparability(engine, &reference, &current, shared.as_ref(), config)?;
    let data = measure::data_faults(
        engine,
        &reference,
        &current,
        &inputs,
        &slice_columns,
        config,
    )?;
    clock.lap("check");

    // Measure.
    let mut coordinates = measure::coordinates(engine, shared.as_ref(), config, &mut not_measured)?;
    let paired_cosine = coordinates
        .as_mut()
        .and_then(|found| found.paired_cosine.as_mut())
        .map(|paired| std::mem::take(&mut paired.cosines));
    clock.lap("coordinates");
    let labels = group_labels(&reference, &join, config);
    let mut neighbourhoods = measure::neighbourhoods(
        engine,
        shared.as_ref(),
        labels.as_deref(),
        config,
        &mut not_measured,
    )?;
    let grouped = neighbourhoods.as_ref().and_then(|n| n.groups.as_ref());
    if let (Some(column), Some(groups)) = (&config.group, grouped) {
        warnings.extend(groups.warning(column));
        if noise_floor.is_some() {
            warnings.push(format!(
                "the noise floor of the overlap is that of lists which may hold rows of the same {column}, the audit's lists may not"
            ));
        }
    }
    clock.lap("neighbourhoods");
    if let (Some(floor), Some(found)) = (&noise_floor, &neighbourhoods) {
        let (base, twice) = (found.base as u64, floor.rows);
        if base.max(twice) > 2 * base.min(twice) {
            warnings.push(format!(
                "the noise floor of the overlap is that of {twice} rows, the audit's overlap is among {base}: more rows leave closer neighbours, which change more easily"
            ));
        }
    }
    let thresholds = measure::thresholds(
        engine,
        shared.as_ref(),
        (&reference, &current),
        golden.as_ref(),
        config,
        &mut not_measured,
    )?;
    clock.lap("thresholds");
    let known_items = queries::known_items(
        engine,
        shared.as_ref(),
        (&reference, &join),
        golden.is_some(),
        config,
        &mut not_measured,
    )?;
    clock.lap("known items");
    let items = shared
        .map(|shared| shared.ids)
        .zip(neighbourhoods.as_mut())
        .map(|(ids, found)| Items {
            ids,
            paired_cosine,
            neighbourhoods: std::mem::take(&mut found.per_item),
        });
    let retrieval = measure::retrieval(
        engine,
        &reference,
        &current,
        golden.as_ref(),
        config,
        &mut not_measured,
    )?;
    clock.lap("retrieval");
    let ood = queries::ood(
        engine,
        &reference,
        (query_logs.as_ref(), golden.as_ref()),
        &comparability,
        config,
        &mut not_measured,
    )?;
    if let Some(found) = &ood {
        warnings.extend(found.notes.iter().map(|note| format!("queries: {note}")));
    }
    clock.lap("queries");
    let texts = texts_of_moved(&[&current, &reference], neighbourhoods.as_ref(), config);
    let overlap_k = neighbourhoods.as_ref().map_or(0, |found| found.k);
    let known = slices::Known {
        reference: &reference,
        current: &current,
        join: &join,
        pairing: pairing.kind,
        comparability: &comparability,
        items: items.as_ref(),
        overlap_k,
        golden: golden.as_ref(),
        retrieval: retrieval.as_ref(),
        columns: &slice_columns,
    };
    let (mut slices, slicings) = slices::slices(engine, &known, config, &mut not_measured)?;
    clock.lap("slices");
    let topics = topics::topics(engine, &known, slices.as_ref(), config, &mut not_measured)?;
    clock.lap("topics");
    let map = map::map(engine, &known, &slicings, config.seed)?;
    clock.lap("map");
    let churn = churn::churn(
        engine,
        (&reference, &current),
        &join,
        &pairing,
        &comparability,
        config,
    )?;
    clock.lap("churn");
    let distribution = measure::distribution(
        engine,
        reference,
        current,
        pairing.kind,
        &comparability,
        config,
        &mut not_measured,
    )?;
    clock.lap("distribution");
    if let Some(mmd) = distribution.as_ref().and_then(|d| d.mmd.as_ref()) {
        warnings.extend(mmd.notes.iter().map(|note| format!("MMD: {note}")));
        if let (Some(slices), Some(m2)) = (&mut slices, mmd.effect.reference_m2) {
            slices.set_scale(m2);
        }
    }

    // Judge.
    let findings = verdict::Findings {
        pairing: &pairing,
        comparability: &comparability,
        data: &data,
        coordinates: coordinates.as_ref(),
        neighbourhoods: neighbourhoods.as_ref(),
        distribution: distribution.as_ref(),
        retrieval: retrieval.as_ref(),
        known_items: known_items.as_ref(),
        ood: ood.as_ref(),
        slices: slices.as_ref(),
        topics: topics.as_ref(),
        noise_floor: noise_floor.as_ref(),
        churn: churn.as_ref(),
        sketched: of_sketches.as_ref(),
        thresholds: thresholds.as_ref(),
    };
    let verdict = verdict::judge(&findings, &config.policy);
    Ok(Audited {
        audit: Audit {
            verdict,
            pairing,
            comparability,
            data,
            coordinates,
            neighbourhoods,
            distribution,
            retrieval,
            known_items,
            ood,
            thresholds,
            slices,
            topics,
            map,
            churn,
            noise_floor,
            sketched: of_sketches,
            texts,
            not_measured,
        },
        inputs,
        warnings,
        timings: clock.timings(),
        items,
        sketch: sketch.filter(|_| config.sketch.is_some()),
    })
}

/// The group of every shared row, where groups were asked for.
fn group_labels(reference: &Embeddings, join: &Join, config: &AuditConfig) -> Option<Vec<String>> {
    let of_rows = reference.column(config.group.as_ref()?)?;
    let rows = join.reference_rows();
    let label = |&row: &u32| of_rows[row as usize].clone();
    Some(rows.iter().map(label).collect())
}

/// The texts of the most moved items and of what they lost and gained; the first set that has one tells.
fn texts_of_moved(
    sets: &[&Embeddings],
    found: Option<&Overlap>,
    config: &AuditConfig,
) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let (Some(found), Some(column)) = (found, &config.text) else {
        return texts;
    };
    for item in &found.most_moved {
        let neighbours = item.lost.iter().chain(&item.gained);
        let ids = std::iter::once(&item.id).chain(neighbours.map(|n| &n.id));
        texts.extend(ids.map(|id| (id.clone(), String::new())));
    }
    for set in sets {
        let Some(values) = set.column(column) else {
            continue;
        };
        for (id, value) in set.ids.iter().zip(values) {
            if let Some(text) = texts.get_mut(id).filter(|text| text.is_empty()) {
                text.clone_from(value);
            }
        }
    }
    texts
}

/// Rows without ids are taken for the same items where their neighbourhoods agree by more than this
/// (κ, 0 at chance).
const MIN_POSITIONAL_KAPPA: f64 = 0.05;
/// Items that this is looked at with.
const POSITIONAL_ITEMS: usize = 300;

/// Joins the sets: by id, or, where neither has ids and the numbers of rows agree, by position, if the
/// neighbourhoods say that the rows are the same items.
fn pair(
    engine: &Engine,
    reference: &Embeddings,
    current: &Embeddings,
    inputs: &[InputSummary],
    config: &AuditConfig,
    warnings: &mut Vec<String>,
) -> Result<Join> {
    let unnamed = [reference, current].map(|set| set.id_source == IdSource::RowNumber);
    let unpaired = || Join {
        shared: Vec::new(),
        only_reference: (0..reference.len() as u32).collect(),
        only_current: (0..current.len() as u32).collect(),
    };
    match unnamed {
        [false, false] => return Ok(Join::new(&reference.ids, &current.ids)),
        [true, true] if inputs[0].rows == inputs[1].rows => {}
        _ => {
            warnings.push(
                "the sets have no ids in common to pair rows by: they are compared as samples"
                    .to_owned(),
            );
            return Ok(unpaired());
        }
    }
    let join = Join::new(&reference.ids, &current.ids);
    if join.shared.len() < 50 {
        warnings.push("rows are paired by position, since neither set has ids".to_owned());
        return Ok(join);
    }
    let shared = Shared::new(reference, current, &join);
    let probe = OverlapConfig {
        ks: vec![10],
        headline_k: 10,
        queries: Some(POSITIONAL_ITEMS),
        ranked_items: 0,
        seed: config.seed,
        ..OverlapConfig::default()
    };
    let found = overlap::overlap(
        engine,
        shared.reference(),
        shared.current(),
        &shared.ids,
        None,
        &probe,
    )?;
    if found
        .kappa
        .is_some_and(|kappa| kappa >= MIN_POSITIONAL_KAPPA)
    {
        warnings.push(format!(
            "rows are paired by position, since neither set has ids; their neighbourhoods agree (overlap@10 {:.2}), so they are the same items",
            found.overlap.mean
        ));
        Ok(join)
    } else {
        warnings.push(format!(
            "neither set has ids, and row by row the neighbourhoods do not agree (overlap@10 {:.3}): the sets are compared as samples of different items",
            found.overlap.mean
        ));
        Ok(unpaired())
    }
}

/// The shared rows of both sets, in one order.
struct Shared<'a> {
    ids: Ids,
    reference: std::borrow::Cow<'a, Values>,
    current: std::borrow::Cow<'a, Values>,
    dims: (usize, usize),
}

impl<'a> Shared<'a> {
    fn new(reference: &'a Embeddings, current: &'a Embeddings, join: &Join) -> Self {
        let rows = join.reference_rows();
        Self {
            ids: reference.ids.select(&rows),
            reference: reference.gather(&rows),
            current: current.gather(&join.current_rows()),
            dims: (reference.dim(), current.dim()),
        }
    }

    fn reference(&self) -> Rows<'_> {
        self.reference.rows(self.dims.0)
    }

    fn current(&self) -> Rows<'_> {
        self.current.rows(self.dims.1)
    }
}

fn read_set(
    role: &str,
    input: &str,
    id: Option<&String>,
    columns: &[String],
    progress: &dyn Progress,
    inputs: &mut Vec<InputSummary>,
) -> Result<Embeddings> {
    let options = ReadOptions {
        id: id.cloned(),
        columns: columns.to_vec(),
    };
    let source = source::open(input, &options)?;
    let info = source.info().clone();
    progress.begin(&format!("read {role}"), info.rows.unwrap_or(0));
    let set = source.read(&mut |rows| progress.advance(rows));
    progress.end();
    let set = set?;
    inputs.push(InputSummary::new(role, &info, &set));
    Ok(set)
}

impl Pairing {
    fn new(
        reference: &Embeddings,
        current: &Embeddings,
        join: &Join,
        warnings: &mut Vec<String>,
    ) -> Self {
        let smaller = reference.len().min(current.len());
        let kind = match join.shared.len() {
            0 => PairingKind::Unpaired,
            shared if 2 * shared >= smaller => PairingKind::Paired,
            _ => PairingKind::Overlapping,
        };
        if kind == PairingKind::Overlapping {
            warnings.push(format!(
                "only {} ids are shared by {} and {} rows: the sets are compared as samples, not item by item",
                join.shared.len(),
                reference.len(),
                current.len()
            ));
        }
        let first = |ids: &Ids, rows: &[u32]| {
            rows.iter()
                .take(10)
                .map(|&row| ids.get(row as usize).to_owned())
                .collect()
        };
        Self {
            kind,
            shared: join.shared.len() as u64,
            only_reference: join.only_reference.len() as u64,
            only_current: join.only_current.len() as u64,
            first_only_reference: first(&reference.ids, &join.only_reference),
            first_only_current: first(&current.ids, &join.only_current),
        }
    }
}
