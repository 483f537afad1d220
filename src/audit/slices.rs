//! Where the drift is: which slices there are, what is known of their rows, and what the verdict says of
//! those that stand out.

use super::measure::Golden;
use super::verdict::{AxisName, AxisState, Evidence, Policy};
use super::{AuditConfig, Items, NotMeasured, PairingKind};
use crate::embeddings::{Embeddings, Ids, Join};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::clusters::{self, ClusteredSet};
use crate::metrics::comparability::Comparability;
use crate::metrics::mmd::Sample;
use crate::metrics::retrieval::Retrieval;
use crate::metrics::slices::{
    self, ColumnValues, ItemOverlap, ShareState, SliceMeasure, SlicedSets, Slices, SlicesConfig,
    Slicing, WorstSlice,
};
use crate::source::{self, ReadOptions, SourceInfo};

/// Pairs of columns that are crossed.
const CROSSED_PAIRS: usize = 10;

/// A column to slice by.
#[derive(Debug)]
pub(super) struct SliceColumn {
    pub(super) name: String,
    /// Whether both sets hold numbers in it.
    pub(super) numeric: bool,
    /// Whether the golden queries have it too.
    pub(super) of_queries: bool,
}

/// Finds the columns to slice by, before anything is read.
///
/// # Errors
/// An input cannot be opened, or a column is missing from one or both sets.
pub(super) fn columns(config: &AuditConfig) -> Result<Vec<SliceColumn>> {
    if config.slice_by.is_empty() {
        return Ok(Vec::new());
    }
    let open = |input: &str| -> Result<SourceInfo> {
        let options = ReadOptions {
            id: config.id.clone(),
            columns: Vec::new(),
        };
        Ok(source::open(input, &options)?.info().clone())
    };
    let sides = [open(&config.reference)?, open(&config.current)?];
    let queries = match &config.golden {
        None => None,
        Some(golden) => Some(open(&golden.queries_reference)?),
    };
    let mut columns: Vec<SliceColumn> = Vec::new();
    for name in &config.slice_by {
        if columns.iter().any(|column| column.name == *name) {
            continue;
        }
        let lacking: Vec<&SourceInfo> = sides.iter().filter(|s| kind(s, name).is_none()).collect();
        if !lacking.is_empty() {
            let sources: Vec<&str> = lacking.iter().map(|s| s.name.as_str()).collect();
            return Err(Error::input(
                "--slice-by",
                format!(
                    "no metadata column \"{name}\" in {}, expected it on both sides",
                    sources.join(" and in ")
                ),
            )
            .hint(format!(
                "{} has {}; {} has {}",
                sides[0].name,
                described(&sides[0]),
                sides[1].name,
                described(&sides[1])
            )));
        }
        columns.push(SliceColumn {
            name: name.clone(),
            numeric: sides.iter().all(|s| kind(s, name).is_some_and(is_numeric)),
            of_queries: queries.as_ref().is_some_and(|q| kind(q, name).is_some()),
        });
    }
    Ok(columns)
}

/// Type of a metadata column.
fn kind<'a>(info: &'a SourceInfo, name: &str) -> Option<&'a str> {
    let metadata = info
        .columns
        .iter()
        .filter(|c| is_metadata(info, &c.name, &c.kind));
    metadata
        .into_iter()
        .find(|c| c.name == name)
        .map(|c| c.kind.as_str())
}

/// Whether a column's values can be shown as text: neither a vector nor anything nested.
fn is_metadata(info: &SourceInfo, name: &str, kind: &str) -> bool {
    let nested = [
        "List",
        "FixedSizeList",
        "LargeList",
        "Struct",
        "Map",
        "Union",
        "Binary",
    ];
    name != info.vector_column && !nested.iter().any(|n| kind.starts_with(n)) && is_table(info)
}

/// Whether the format has columns at all.
fn is_table(info: &SourceInfo) -> bool {
    info.format.eq_ignore_ascii_case("parquet") || info.format.eq_ignore_ascii_case("arrow ipc")
}

fn is_numeric(kind: &str) -> bool {
    // `Interval` is none.
    [
        "Int8", "Int16", "Int32", "Int64", "UInt", "Float", "Decimal",
    ]
    .iter()
    .any(|n| kind.starts_with(n))
}

/// The columns that a set could be sliced by.
fn described(info: &SourceInfo) -> String {
    let names: Vec<&str> = info
        .columns
        .iter()
        .filter(|c| is_metadata(info, &c.name, &c.kind))
        .map(|c| c.name.as_str())
        .collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

/// What the audit knows when slices are measured.
pub(super) struct Known<'a> {
    pub(super) reference: &'a Embeddings,
    pub(super) current: &'a Embeddings,
    pub(super) join: &'a Join,
    pub(super) pairing: PairingKind,
    pub(super) comparability: &'a Comparability,
    pub(super) items: Option<&'a Items>,
    pub(super) overlap_k: usize,
    pub(super) golden: Option<&'a Golden>,
    pub(super) retrieval: Option<&'a Retrieval>,
    pub(super) columns: &'a [SliceColumn],
}

/// Measures clusters, columns and crossed columns; and hands out what they were.
pub(super) fn slices(
    engine: &Engine,
    known: &Known<'_>,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<(Option<Slices>, Vec<Slicing>)> {
    let (reference, current) = (known.reference, known.current);
    let one_space =
        known.comparability.relation.shares_coordinates() && reference.dim() == current.dim();
    let mut skip = |measure: &str, reason: String| {
        not_measured.push(NotMeasured {
            measure: measure.to_owned(),
            reason,
        });
    };
    let mut slicings = Vec::new();
    if config.clusters != Some(0) {
        match by_clusters(engine, known, one_space, config)? {
            Some(slicing) => slicings.push(slicing),
            None => skip(
                "clusters",
                format!(
                    "needs at least {} rows on a side",
                    2 * config.min_slice_rows
                ),
            ),
        }
    }
    let mut by_columns: Vec<Slicing> = Vec::new();
    for column in known.columns {
        let queries = column
            .of_queries
            .then(|| query_values(known, &column.name))
            .flatten();
        let name = &column.name;
        let (Some(x), Some(y)) = (reference.column(name), current.column(name)) else {
            continue;
        };
        let slicing = Slicing::of_column(
            ColumnValues {
                name: &column.name,
                numeric: column.numeric,
                reference: x,
                current: y,
                queries: queries.as_deref(),
            },
            config.min_slice_rows,
        );
        if slicing.is_trivial() || slicing.names.is_empty() {
            let what = if slicing.names.is_empty() {
                format!("no value has {} rows on a side", config.min_slice_rows)
            } else {
                format!("every row has the value {}", slicing.names[0])
            };
            skip(&format!("slices by {}", column.name), what);
            continue;
        }
        by_columns.push(slicing);
    }
    let pairs: Vec<(usize, usize)> = (0..by_columns.len())
        .flat_map(|a| (a + 1..by_columns.len()).map(move |b| (a, b)))
        .collect();
    if pairs.len() > CROSSED_PAIRS {
        skip(
            "slices by pairs of columns",
            format!(
                "{} pairs: only the first {CROSSED_PAIRS} were crossed",
                pairs.len()
            ),
        );
    }
    let crossed: Vec<Slicing> = pairs
        .iter()
        .take(CROSSED_PAIRS)
        .filter_map(|&(a, b)| by_columns[a].crossed(&by_columns[b], config.min_slice_rows))
        .collect();
    slicings.extend(by_columns);
    slicings.extend(crossed);
    if slicings.is_empty() {
        return Ok((None, slicings));
    }

    // Row numbers that pair nothing are no identities: equal ones are different documents.
    let foreign: Option<Ids> = (known.pairing == PairingKind::Unpaired).then(|| {
        let ids = current.ids.iter().map(|id| format!("current:{id}"));
        ids.collect()
    });
    let groups_of = |name: &String| (reference.column(name), current.column(name));
    let (x_groups, y_groups) = config.group.as_ref().map_or((None, None), groups_of);
    let ndcg: Option<Vec<f64>> = known.retrieval.map(|found| {
        let queries = found.per_query.iter();
        queries
            .map(|query| query.current[0] - query.reference[0])
            .collect()
    });
    let paired_cosine = known.items.and_then(|items| items.paired_cosine.as_deref());
    let sets = SlicedSets {
        reference: Sample {
            rows: reference.rows(),
            ids: &reference.ids,
            groups: x_groups,
        },
        current: Sample {
            rows: current.rows(),
            ids: foreign.as_ref().unwrap_or(&current.ids),
            groups: y_groups,
        },
        shared: &known.join.shared,
        one_space,
        paired: known.pairing == PairingKind::Paired,
        paired_cosine: paired_cosine.filter(|_| one_space),
        overlap: known.items.map(|items| ItemOverlap {
            k: known.overlap_k,
            items: &items.neighbourhoods.rows,
            overlap: &items.neighbourhoods.overlap,
        }),
        ndcg: ndcg.as_deref(),
    };
    let slices_config = SlicesConfig {
        false_discovery_rate: config.policy.false_discovery_rate,
        min_rows: config.min_slice_rows,
        permutations: config.permutations,
        bandwidth: config.bandwidth,
        seed: config.seed,
    };
    let found = slices::slices(engine, &sets, &slicings, &slices_config)?;
    Ok((Some(found), slicings))
}

fn by_clusters(
    engine: &Engine,
    known: &Known<'_>,
    one_space: bool,
    config: &AuditConfig,
) -> Result<Option<Slicing>> {
    let (reference, current) = (known.reference, known.current);
    if reference.len().max(current.len()) < 2 * config.min_slice_rows {
        return Ok(None);
    }
    let reference_set = ClusteredSet {
        rows: reference.rows(),
        ids: &reference.ids,
    };
    let current_set = one_space.then(|| ClusteredSet {
        rows: current.rows(),
        ids: &current.ids,
    });
    let rows = reference.len() + if one_space { current.len() } else { 0 };
    let number = config
        .clusters
        .unwrap_or_else(|| clusters::suitable_clusters(rows));
    let found = clusters::clusters(engine, reference_set, current_set, number, config.seed)?;
    Ok(Some(Slicing::of_clusters(found, one_space)))
}

/// The column's value of every compared golden query.
fn query_values(known: &Known<'_>, column: &str) -> Option<Vec<String>> {
    let (golden, retrieval) = (known.golden?, known.retrieval?);
    let queries = &golden.queries_reference;
    let values = queries.column(column)?;
    let by_id: std::collections::HashMap<&str, &String> = queries.ids.iter().zip(values).collect();
    let of_query = |query: &crate::metrics::retrieval::QueryScores| {
        by_id
            .get(query.id.as_str())
            .map_or(String::new(), |v| (*v).clone())
    };
    Some(retrieval.per_query.iter().map(of_query).collect())
}

/// What stands out, as evidence for the axis that it belongs to. It says where, not whether: an axis's
/// state rests on the whole sets.
pub(super) fn evidence(slices: &Slices, policy: &Policy) -> Vec<(AxisName, Evidence)> {
    let worst = slices.worst.iter();
    worst
        .filter_map(|worst| one_evidence(slices, worst, policy))
        .collect()
}

fn one_evidence(
    slices: &Slices,
    worst: &WorstSlice,
    policy: &Policy,
) -> Option<(AxisName, Evidence)> {
    let slice = slices.slice_of(worst)?;
    let label = match slice.representatives.first() {
        Some(id) => format!("{} (such as {id})", slice.label),
        None => slice.label.clone(),
    };
    let [low, high] = worst.ci95.unwrap_or([worst.effect; 2]);
    let (n, overlap_k) = (worst.n, slices.overlap_k.unwrap_or(0));
    let percent = |share: f64| 100.0 * share;
    let (axis, measure, material, statement) = match worst.measure {
        SliceMeasure::NdcgAt10 => (
            AxisName::Retrieval,
            "change of nDCG@10, worst slice".to_owned(),
            worst.effect < -policy.max_ndcg_loss,
            format!(
                "queries lost most in {label}: nDCG@10 {:+.3} (95 % interval {low:+.3} to {high:+.3}, {n} queries)",
                worst.effect
            ),
        ),
        SliceMeasure::Overlap => {
            let mean = slice.overlap.as_ref()?.mean;
            (
                AxisName::Neighbourhoods,
                format!("overlap@{overlap_k} minus that of the rest, worst slice"),
                mean < policy.min_intact_overlap,
                format!(
                    "worst in {label}: its items keep {:.1} % of their {overlap_k} nearest neighbours, {:.1} points fewer than the rest (95 % interval {:.1} to {:.1}, {n} items)",
                    percent(mean),
                    percent(-worst.effect),
                    percent(-high),
                    percent(-low)
                ),
            )
        }
        SliceMeasure::PairedCosine => {
            let mean = slice.paired_cosine.as_ref()?.mean;
            (
                AxisName::Coordinates,
                "paired cosine minus that of the rest, worst slice".to_owned(),
                mean < policy.min_mixable_cosine,
                format!(
                    "vectors moved most in {label}: mean cosine {mean:.3}, {:.3} less than the rest ({n} items)",
                    -worst.effect
                ),
            )
        }
        SliceMeasure::Content => {
            let content = slice.content.as_ref()?;
            let material = content
                .eps_eq_ci95
                .is_some_and(|[low, _]| low > policy.max_eps_eq);
            let size = match (content.eps_eq, content.eps_eq_ci95) {
                (Some(eps), Some([low, high])) => format!(
                    "as if {:.1} % of it had been replaced by a foreign topic (95 % interval {:.1} to {:.1} %)",
                    percent(eps),
                    percent(low),
                    percent(high)
                ),
                _ => format!("MMD² {:.4}", worst.effect),
            };
            (
                AxisName::Distribution,
                "MMD² within a slice, worst slice".to_owned(),
                material,
                format!("contents changed most in {label}: {size}, {n} rows"),
            )
        }
        SliceMeasure::Share => {
            let share = slice.share.as_ref()?;
            let verb = match share.state {
                ShareState::Emerging if share.reference == 0.0 => "is new",
                ShareState::Emerging => "more than doubled",
                ShareState::Grown | ShareState::Stable => "grew",
                ShareState::Shrunk => "shrank",
                ShareState::Vanishing if share.current == 0.0 => "is gone",
                ShareState::Vanishing => "shrank to less than half",
            };
            (
                AxisName::Distribution,
                "change of a slice's share, largest".to_owned(),
                low.abs().min(high.abs()) > policy.max_eps_eq,
                format!(
                    "{label} {verb}, from {:.1} to {:.1} % of the rows ({n} rows)",
                    percent(share.reference),
                    percent(share.current)
                ),
            )
        }
    };
    let others = match worst.slices {
        1 => String::new(),
        2 => "; one more slice stands out".to_owned(),
        slices => format!("; {} more slices stand out", slices - 1),
    };
    Some((
        axis,
        Evidence {
            measure,
            estimate: Some(worst.effect),
            ci95: worst.ci95,
            n: Some(n),
            exact: worst.measure != SliceMeasure::Content,
            floor: None,
            threshold: None,
            state: if material {
                AxisState::Shifted
            } else {
                AxisState::Ok
            },
            statement: format!("{statement}{others}"),
        },
    ))
}
