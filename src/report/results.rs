//! What each command's results say, as a [`Page`].

use std::collections::BTreeMap;

use super::{
    AxisCard, BarSeries, Column, Fact, Figure, Histogram, IntervalRow, Item, Line, Mark, Page,
    Panel, Plot, Point, Role, Section, Shade, ShadeValues, State, Table, Tone, Value, Verdict,
    XAxis,
};
use crate::audit::{Action, Audit, AxisState, Coordinates, DataFaults, Distribution, PairingKind};
use crate::metrics::cosine::CosineDistribution;
use crate::metrics::mmd::Mmd;
use crate::metrics::moments::NormDistribution;
use crate::metrics::overlap::Overlap;
use crate::metrics::pairs::SimilarPair;
use crate::metrics::retrieval::Retrieval;
use crate::output::{InputSummary, Output};
use crate::stats::distribution;

mod align;
mod compare;
mod cutoffs;
mod evaluate;
mod floor;
mod known_items;
mod losses;
mod map;
mod neighbours;
mod queries;
mod reproduce;
mod sections;
mod series;
mod slices;
mod topics;

pub use align::align_page;
pub use compare::compare_page;
pub use evaluate::{evaluate_page, model_card, scores_csv};
pub use reproduce::reproduction;
pub use series::series_page;

use sections::*;

/// Rows of a page's tables of items and queries.
const LISTED: usize = 10;

/// The page of an audit.
pub fn audit_page<C>(output: &Output<C, Audit>) -> Page {
    let audit = &output.results;
    let verdict = &audit.verdict;
    let axes = verdict
        .axes
        .iter()
        .map(|axis| AxisCard {
            name: axis.axis.label().to_owned(),
            state: state(axis.state),
            headline: axis
                .evidence
                .first()
                .map_or(String::new(), |e| capitalised(&e.statement)),
            evidence: axis
                .evidence
                .iter()
                .skip(1)
                .map(|e| capitalised(&e.statement))
                .collect(),
        })
        .collect();
    let mut sections = vec![evidence_section(audit), data_section(&audit.data)];
    sections.extend(audit.coordinates.as_ref().map(coordinates_section));
    sections.extend(
        audit
            .neighbourhoods
            .as_ref()
            .map(|found| neighbourhoods_section(found, &audit.texts)),
    );
    sections.extend(audit.retrieval.as_ref().map(retrieval_section));
    sections.extend(
        audit
            .known_items
            .as_ref()
            .map(known_items::known_items_section),
    );
    sections.extend(audit.ood.as_ref().map(queries::queries_section));
    sections.extend(audit.thresholds.as_ref().map(cutoffs::cutoffs_section));
    sections.extend(audit.distribution.as_ref().map(distribution_section));
    sections.extend(audit.slices.as_ref().map(slices::slices_section));
    sections.extend(audit.topics.as_ref().map(topics::topics_section));
    sections.extend(audit.map.as_ref().map(map::map_section));
    let floor = audit.noise_floor.as_ref();
    sections.extend(floor.map(|found| floor::floor_section(found, audit)));
    sections.push(scope_section(audit));
    let mut tables = vec![key_numbers(audit)];
    tables.extend(audit.slices.as_ref().and_then(slices::worst_table));
    Page {
        title: format!(
            "{} → {}",
            role(output, "reference").map_or("reference", |i| &i.source),
            role(output, "current").map_or("current", |i| &i.source)
        ),
        subtitle: subtitle(output, audit),
        verdict: Some(Verdict {
            action: capitalised(verdict.action.label()),
            reason: format!(
                "{}. What would change this: {}.",
                capitalised(&verdict.reason),
                verdict.would_flip
            ),
            tone: tone(verdict.action),
        }),
        axes,
        key_numbers: tables,
        warnings: output.warnings.clone(),
        sections,
        facts: facts(output),
        outputs: Vec::new(),
    }
}

fn role<'a, C, R>(output: &'a Output<C, R>, role: &str) -> Option<&'a InputSummary> {
    output.inputs.iter().find(|input| input.role == role)
}

/// A sentence's first letter raised, unless it begins a name like nDCG.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    match (letters.next(), letters.clone().next()) {
        (Some(first), Some(second)) if !second.is_uppercase() => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

fn state(state: AxisState) -> State {
    match state {
        AxisState::Ok => State::Ok,
        AxisState::Shifted => State::Shifted,
        AxisState::Broken => State::Broken,
        AxisState::Unknown => State::Unknown,
    }
}

fn tone(action: Action) -> Tone {
    match action {
        Action::NoAction => Tone::Good,
        Action::Monitor | Action::Recalibrate | Action::Adapter | Action::ReviewCoverage => {
            Tone::Caution
        }
        Action::FixData | Action::Reindex | Action::DoNotMigrate => Tone::Severe,
        Action::Inconclusive => Tone::Undecided,
    }
}

fn subtitle<C>(output: &Output<C, Audit>, audit: &Audit) -> String {
    let size = |input: Option<&InputSummary>| {
        input.map_or(String::new(), |i| {
            format!("{} × {}", Value::Count(i.usable_rows), i.dim)
        })
    };
    let shared = match audit.pairing.kind {
        PairingKind::Unpaired => "no ids shared".to_owned(),
        _ => format!("{} ids shared", Value::Count(audit.pairing.shared)),
    };
    format!(
        "{} against {}, {shared}; {} ({})",
        size(role(output, "reference")),
        size(role(output, "current")),
        output.device.name,
        output.device.backend
    )
}

fn facts<C, R>(output: &Output<C, R>) -> Vec<Fact> {
    let mut facts: Vec<Fact> = output
        .inputs
        .iter()
        .map(|i| {
            Fact::new(
                i.role.replace('_', " "),
                format!(
                    "{} ({}, {} rows, {} usable, dimension {}, {}; ids {})",
                    i.source,
                    i.format,
                    Value::Count(i.rows),
                    Value::Count(i.usable_rows),
                    i.dim,
                    i.dtype.name(),
                    i.id_checksum
                ),
            )
        })
        .collect();
    facts.push(Fact::new(
        "device",
        format!(
            "{} ({}, {})",
            output.device.name, output.device.backend, output.device.precision
        ),
    ));
    facts.push(Fact::new("program", format!("vecdrift {}", output.version)));
    for timing in &output.timings {
        facts.push(Fact::new(
            format!("time: {}", timing.step),
            Value::Seconds(timing.seconds),
        ));
    }
    facts
}

/// A table of names and values.
fn named(caption: &str, rows: Vec<(&str, Value)>) -> Table {
    Table {
        caption: caption.to_owned(),
        columns: vec![Column::left("measure"), Column::right("value")],
        rows: rows
            .into_iter()
            .map(|(name, value)| vec![name.into(), value])
            .collect(),
    }
}

fn sided(caption: &str, rows: Vec<(&str, Value, Value)>) -> Table {
    Table {
        caption: caption.to_owned(),
        columns: vec![
            Column::left("measure"),
            Column::right("reference"),
            Column::right("current"),
        ],
        rows: rows
            .into_iter()
            .map(|(name, a, b)| vec![name.into(), a, b])
            .collect(),
    }
}

fn estimate(value: f64, ci95: Option<[f64; 2]>) -> Value {
    ci95.map_or(Value::Number(value), |ci| Value::interval(value, ci))
}

/// A number, or that there is none.
fn number(value: impl Into<Value>) -> Value {
    value.into()
}

fn key_numbers(audit: &Audit) -> Table {
    let mut rows: Vec<(String, Value)> = Vec::new();
    let mut row = |name: String, value: Value| rows.push((name, value));
    if let Some(coordinates) = &audit.coordinates {
        if let Some(paired) = &coordinates.paired_cosine {
            row("paired cosine, mean".into(), number(paired.mean));
        }
        row(
            "cosine after rotation, held out".into(),
            number(heldout_cosine(coordinates)),
        );
        row(
            "linear CKA, unbiased".into(),
            number(coordinates.linear_cka.cka_debiased),
        );
    }
    if let Some(found) = &audit.neighbourhoods {
        for at in &found.at_k {
            row(format!("overlap@{}", at.k), estimate(at.overlap, at.ci95));
        }
    }
    if let Some(found) = &audit.retrieval {
        for metric in found
            .metrics
            .iter()
            .filter(|m| m.metric == "ndcg_at_10" || m.metric == "recall_at_100")
        {
            row(
                format!("{}, change", metric_label(&metric.metric)),
                estimate(metric.difference.mean, metric.difference.ci95),
            );
        }
    }
    if let Some(found) = &audit.ood {
        row(
            "queries out of distribution".into(),
            queries::excess(found.main()),
        );
    }
    if let Some(found) = audit.topics.as_ref().and_then(|t| t.emerging.as_ref()) {
        row(
            "rows in new topics".into(),
            match found.groups.is_empty() {
                true => Value::missing("none found"),
                false => Value::percent_interval(found.share, found.share_ci95),
            },
        );
    }
    if let Some(typical) = audit.thresholds.as_ref().and_then(cutoffs::typical) {
        row(
            format!("old threshold {} becomes", Value::Setting(typical.old)),
            estimate(typical.new, typical.new_ci95),
        );
    }
    if let Some(found) = &audit.distribution {
        if let Some(mmd) = &found.mmd {
            row("MMD², unbiased".into(), number(mmd.mmd2_unbiased));
            row("MMD permutation test".into(), p_value(mmd.p_value, mmd));
            let of_all = audit.sketched.as_ref().and_then(|s| s.mmd.as_ref());
            let (name, eps, ci) = match of_all {
                Some(all) => (
                    "shift ε_eq, of all rows",
                    all.effect.eps_eq,
                    all.effect.ci95,
                ),
                None => ("shift ε_eq", mmd.effect.eps_eq, mmd.effect.ci95),
            };
            row(
                name.into(),
                eps.map_or(Value::Missing(None), |e| match ci {
                    Some(ci) => Value::percent_interval(e, ci),
                    None => Value::Percent(e),
                }),
            );
        }
        if let Some(centroid) = &found.centroid {
            row("centroid shift, L2".into(), number(centroid.l2));
        }
        if let Some(frechet) = &found.frechet {
            row("Fréchet distance".into(), number(frechet.frechet_distance));
        }
        row("Vendi score, ratio".into(), number(found.vendi_ratio));
    }
    Table {
        caption: "Key numbers".to_owned(),
        columns: vec![
            Column::left("measure"),
            Column::right("estimate [95 % interval]"),
        ],
        rows: rows
            .into_iter()
            .map(|(name, value)| vec![name.into(), value])
            .collect(),
    }
}

fn p_value(p: Option<f64>, mmd: &Mmd) -> Value {
    p.map_or(Value::missing("too few blocks to permute"), |p| {
        Value::permutation_p(p, u64::from(mmd.permutations))
    })
}

/// Mean cosine after a rotation, on items it was not fitted to.
fn heldout_cosine(found: &Coordinates) -> Option<f64> {
    Some(
        found
            .procrustes
            .as_ref()?
            .heldout
            .as_ref()?
            .heldout_mean_cosine,
    )
}

fn overlap_table(found: &Overlap) -> Table {
    let mut rows: Vec<(String, Value)> = vec![
        (
            format!("mean overlap@{}", found.k),
            estimate(found.overlap.mean, found.overlap.ci95),
        ),
        ("median".to_owned(), number(found.overlap.median)),
        ("mean Jaccard index".to_owned(), number(found.jaccard.mean)),
        (
            format!("mean rank-biased overlap (p = {})", found.rbo_p),
            number(found.rbo.mean),
        ),
        (
            "same nearest neighbour".to_owned(),
            Value::Percent(found.top1_agreement),
        ),
        (
            "items that keep less than half".to_owned(),
            Value::Percent(found.overlap.share_below_half),
        ),
        (
            "chance (hub-aware)".to_owned(),
            number(found.chance_hub_aware),
        ),
        ("κ, corrected for chance".to_owned(), number(found.kappa)),
        (
            "pairs that stay each other's neighbours".to_owned(),
            found
                .mutual
                .overlap
                .map_or(Value::Missing(None), |o| estimate(o.mean, o.ci95)),
        ),
    ];
    rows.extend(neighbours::structure_rows(found));
    rows.push(("items queried".to_owned(), Value::Count(found.items as u64)));
    rows.push(("rows searched".to_owned(), Value::Count(found.base as u64)));
    if let Some(groups) = &found.groups {
        rows.push((
            "groups, kept out of each other's lists".to_owned(),
            Value::Count(groups.groups as u64),
        ));
    }
    if found.boundary_ties > 0 {
        rows.push((
            "lists decided by row order".to_owned(),
            Value::Count(found.boundary_ties),
        ));
    }
    Table {
        caption: format!("Neighbourhoods at k = {}", found.k),
        columns: vec![
            Column::left("measure"),
            Column::right("value [95 % interval]"),
        ],
        rows: rows
            .into_iter()
            .map(|(name, value)| vec![name.into(), value])
            .collect(),
    }
}

fn metric_label(metric: &str) -> String {
    match metric {
        "ndcg_at_10" => "nDCG@10".to_owned(),
        "map_at_10" => "MAP@10".to_owned(),
        "mrr_at_10" => "MRR@10".to_owned(),
        other => other.replace("_at_", "@").replace('_', " "),
    }
}

fn mmd_table(mmd: &Mmd) -> Table {
    let mut rows = vec![
        ("MMD², unbiased", number(mmd.mmd2_unbiased)),
        ("MMD², biased", number(mmd.mmd2_biased)),
    ];
    if mmd.mmd2_paired.is_some() {
        rows.push((
            "MMD² without each item's pair with itself",
            number(mmd.mmd2_paired),
        ));
    }
    rows.extend([
        ("bandwidth σ", number(mmd.bandwidth)),
        (
            "permutation test over all kernels",
            p_value(mmd.p_value, mmd),
        ),
        ("dispersion test", p_value(mmd.dispersion_p_value, mmd)),
        (
            "shift ε_eq",
            mmd.effect.eps_eq.map_or(Value::Missing(None), |e| {
                mmd.effect
                    .ci95
                    .map_or(Value::Percent(e), |ci| Value::percent_interval(e, ci))
            }),
        ),
        (
            "smallest shift that would be seen (80 % power)",
            mmd.minimum_detectable
                .map_or(Value::Missing(None), Value::Percent),
        ),
        ("pairs", Value::Count(mmd.pairs)),
        ("rows, reference", Value::Count(mmd.n_reference)),
        ("rows, current", Value::Count(mmd.n_current)),
    ]);
    named("Maximum mean discrepancy", rows)
}

/// A page that only measures: a title, a table, and how it was made.
pub fn measured_page<C, R>(output: &Output<C, R>, table: Table) -> Page {
    let sources: Vec<&str> = output.inputs.iter().map(|i| i.source.as_str()).collect();
    Page {
        title: format!("{} {}", output.command, sources.join(" "))
            .trim_end()
            .to_owned(),
        subtitle: format!("{} ({})", output.device.name, output.device.backend),
        key_numbers: vec![table],
        warnings: output.warnings.clone(),
        facts: facts(output),
        ..Page::default()
    }
}

/// The page of `overlap`.
pub fn overlap_page<C>(output: &Output<C, Overlap>) -> Page {
    measured_page(output, overlap_table(&output.results))
}

/// The page of `mmd`.
pub fn mmd_page<C>(output: &Output<C, Mmd>) -> Page {
    let mut page = measured_page(output, mmd_table(&output.results));
    page.warnings.extend(output.results.notes.clone());
    page
}

/// The page of `cosine`.
pub fn cosine_page<C, R>(
    output: &Output<C, R>,
    found: &CosineDistribution,
    exact: bool,
    similar: Option<&[SimilarPair]>,
) -> Page {
    let mut rows: Vec<(String, Value)> = vec![
        (
            if exact {
                "pairs"
            } else {
                "pairs (of sampled rows)"
            }
            .to_owned(),
            Value::Count(found.pairs),
        ),
        ("mean".to_owned(), number(found.mean)),
        ("standard deviation".to_owned(), number(found.std)),
        ("smallest".to_owned(), number(found.min)),
    ];
    let quantiles: &BTreeMap<String, f64> = &found.quantiles;
    rows.extend(
        quantiles
            .iter()
            .map(|(level, &v)| (format!("quantile {level}"), number(v))),
    );
    rows.push(("largest".to_owned(), number(found.max)));
    if let Some(pairs) = similar {
        rows.push(("similar pairs".to_owned(), Value::Count(pairs.len() as u64)));
        rows.extend(
            pairs
                .iter()
                .take(20)
                .map(|p| (format!("  {} – {}", p.x, p.y), number(p.cosine))),
        );
        if pairs.len() > 20 {
            rows.push((
                "  … the rest with --format json".to_owned(),
                Value::Text(String::new()),
            ));
        }
    }
    measured_page(
        output,
        Table {
            caption: "Cosines of pairs".to_owned(),
            columns: vec![Column::left("measure"), Column::right("value")],
            rows: rows
                .into_iter()
                .map(|(name, value)| vec![name.into(), value])
                .collect(),
        },
    )
}
