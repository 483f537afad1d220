//! Where the drift is, as a section and as lines.

use super::*;
use crate::metrics::slices::{
    DriftShared, ShareState, Slice, SliceMeasure, SlicedBy, Slices, SlicingKind, WorstSlice,
};

/// Slices of a partition that a table or figure shows.
const SHOWN: usize = 15;

/// The slices that stand out, for the summary; `None` where there are none.
pub(super) fn worst_table(found: &Slices) -> Option<Table> {
    let rows: Vec<Vec<Value>> = found
        .worst
        .iter()
        .map(|worst| {
            vec![
                label(found, worst).into(),
                measure(found, worst.measure).into(),
                effect(worst),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        caption: "Where it shows most".to_owned(),
        columns: vec![
            Column::left("slice"),
            Column::left("measure"),
            Column::right("effect [95 % interval]"),
        ],
        rows,
    })
}

fn label(found: &Slices, worst: &WorstSlice) -> String {
    found
        .slice_of(worst)
        .map_or_else(|| worst.label.clone(), |slice| named_slice(slice, 1))
}

/// A slice's label, for a cluster with some of its members.
fn named_slice(slice: &Slice, members: usize) -> String {
    if slice.representatives.is_empty() {
        return slice.label.clone();
    }
    let ids: Vec<&str> = slice
        .representatives
        .iter()
        .take(members)
        .map(String::as_str)
        .collect();
    format!("{} ({})", slice.label, ids.join(", "))
}

fn measure(found: &Slices, measure: SliceMeasure) -> String {
    match measure {
        SliceMeasure::NdcgAt10 => "nDCG@10, change".to_owned(),
        SliceMeasure::Overlap => {
            format!("overlap@{}, minus the rest's", found.overlap_k.unwrap_or(0))
        }
        SliceMeasure::PairedCosine => "paired cosine, minus the rest's".to_owned(),
        SliceMeasure::Content => "MMD² within it".to_owned(),
        SliceMeasure::Share => "share, change".to_owned(),
    }
}

fn effect(worst: &WorstSlice) -> Value {
    match worst.measure {
        SliceMeasure::Share => share_value(worst.effect, worst.ci95),
        _ => estimate(worst.effect, worst.ci95),
    }
}

fn share_value(value: f64, ci95: Option<[f64; 2]>) -> Value {
    ci95.map_or(Value::Percent(value), |ci| {
        Value::percent_interval(value, ci)
    })
}

/// A corrected p-value; no test's is exact enough to name smaller ones.
fn corrected(p: f64) -> Value {
    Value::PValue { p, floor: 1e-6 }
}

pub(super) fn slices_section(found: &Slices) -> Section {
    let rate = Value::Percent(found.false_discovery_rate);
    let mut items = Vec::new();
    if found.worst.is_empty() {
        items.push(Item::Note(format!(
            "No slice stands out: {} tests at a false discovery rate of {rate}.",
            Value::Count(found.tests as u64)
        )));
    } else {
        items.push(Item::Table(Table {
            caption: format!(
                "The slice that stands out most, by measure: {} tests at a false discovery rate of {rate}",
                Value::Count(found.tests as u64)
            ),
            columns: vec![
                Column::left("slice"),
                Column::left("measure"),
                Column::right("effect [95 % interval]"),
                Column::right("p, corrected"),
                Column::right("slices that stand out"),
            ],
            rows: found
                .worst
                .iter()
                .map(|worst| {
                    vec![
                        label(found, worst).into(),
                        measure(found, worst.measure).into(),
                        effect(worst),
                        corrected(worst.p_value_fdr),
                        Value::Count(worst.slices as u64),
                    ]
                })
                .collect(),
        }));
    }
    items.extend(parts_table(found).map(Item::Table));
    items.extend(held_table(found).map(Item::Table));
    for partition in &found.partitions {
        items.extend(figure(partition, found.overlap_k).map(Item::Figure));
        items.push(Item::Table(slices_table(partition, found.overlap_k)));
    }
    Section {
        id: "slices".to_owned(),
        title: "Where".to_owned(),
        lead: "Which topics and which slices of the metadata changed: by their share, by what is in them, and by what became of their items.".to_owned(),
        items,
    }
}

/// The slice of each slicing that holds most of the drift.
fn held_table(found: &Slices) -> Option<Table> {
    let partitions = found.partitions.iter();
    let rows: Vec<Vec<Value>> = partitions
        .filter_map(|partition| {
            let held = partition.concentration.as_ref()?;
            let of = match held.of {
                DriftShared::Displacement => "movement of the items' vectors",
                DriftShared::Mmd2 => "MMD²",
            };
            Some(vec![
                held.label.as_str().into(),
                of.into(),
                Value::percent_interval(held.share, held.ci95),
                Value::Percent(held.rows_share),
            ])
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        caption: "The slice that holds most of the drift: what goes where it is left out"
            .to_owned(),
        columns: vec![
            Column::left("slice"),
            Column::left("drift"),
            Column::right("its share of it [95 % interval]"),
            Column::right("its share of the rows"),
        ],
        rows,
    })
}

/// Mix and content of every distance.
fn parts_table(found: &Slices) -> Option<Table> {
    let mut rows = Vec::new();
    for partition in &found.partitions {
        let mut row = |name: &str, total: f64, mix: f64, content: f64| {
            rows.push(vec![
                partition.by.as_str().into(),
                name.into(),
                number(total),
                number(mix),
                number(content),
            ]);
        };
        if let Some(parts) = &partition.mmd2_decomposition {
            row("MMD²", parts.total, parts.mix, parts.content);
        }
        if let Some(parts) = &partition.centroid_decomposition {
            row(
                "centroid shift, squared",
                parts.total,
                parts.mix,
                parts.content,
            );
        }
        if let Some(lost) = &partition.lost_neighbours {
            row("neighbours lost", lost.loss, lost.mix, lost.content);
        }
    }
    (!rows.is_empty()).then(|| Table {
        caption: "Mix and content: what changed shares make of the drift, and what changes within slices do (of lost neighbours: items that changed their slice, and items that stayed)".to_owned(),
        columns: vec![
            Column::left("slices by"),
            Column::left("measure"),
            Column::right("total"),
            Column::right("mix"),
            Column::right("content"),
        ],
        rows,
    })
}

/// The largest slices' overlap, or where there is none, the change of their shares.
fn figure(partition: &SlicedBy, overlap_k: Option<usize>) -> Option<Figure> {
    if partition.kind == SlicingKind::Crossed {
        return None;
    }
    type Interval = (f64, Option<[f64; 2]>);
    let rows = |value: &dyn Fn(&Slice) -> Option<Interval>| -> Vec<IntervalRow> {
        let slices = partition.slices.iter().take(SHOWN);
        slices
            .filter_map(|slice| {
                let (estimate, interval) = value(slice)?;
                Some(IntervalRow {
                    label: slice.name.clone(),
                    estimate: Some(estimate),
                    interval,
                    margin: None,
                })
            })
            .collect()
    };
    let overlap = rows(&|slice| slice.overlap.as_ref().map(|o| (o.mean, o.ci95)));
    if !overlap.is_empty() {
        return Some(Figure {
            title: format!("Overlap by {}", partition.by),
            reading: "Share of their nearest neighbours that the items of a slice keep; the largest slices.".to_owned(),
            plot: Plot::Intervals {
                x_label: format!("mean overlap@{}", overlap_k.unwrap_or(0)),
                no_effect: None,
                rows: overlap,
            },
        });
    }
    let shares = rows(&|slice| {
        let share = slice.share.as_ref()?;
        Some((share.difference, Some(share.difference_ci95)))
    });
    (!shares.is_empty()).then(|| Figure {
        title: format!("Growth by {}", partition.by),
        reading: "Share of current rows minus share of reference rows; the largest slices. An interval beside 0 is one slice's alone, not corrected for how many there are.".to_owned(),
        plot: Plot::Intervals {
            x_label: "change of share".to_owned(),
            no_effect: Some(0.0),
            rows: shares,
        },
    })
}

fn slices_table(partition: &SlicedBy, overlap_k: Option<usize>) -> Table {
    let slices = &partition.slices;
    let any = |has: &dyn Fn(&Slice) -> bool| slices.iter().any(has);
    let mut columns = vec![
        Column::left("slice"),
        Column::right("reference"),
        Column::right("current"),
    ];
    type Cell = Box<dyn Fn(&Slice) -> Value>;
    let mut cells: Vec<Cell> = Vec::new();
    let mut column = |title: String, cell: Cell| {
        columns.push(Column::right(title));
        cells.push(cell);
    };
    if any(&|s| s.share.is_some()) {
        column(
            "change of share".to_owned(),
            Box::new(|s| {
                let share = s.share.as_ref();
                share.map_or(Value::Missing(None), |s| {
                    share_value(s.difference, Some(s.difference_ci95))
                })
            }),
        );
        column(
            "share".to_owned(),
            Box::new(|s| {
                let share = s.share.as_ref();
                share.map_or(Value::missing("too small"), |s| state_word(s.state).into())
            }),
        );
    }
    if any(&|s| s.overlap.is_some()) {
        column(
            format!("overlap@{}", overlap_k.unwrap_or(0)),
            Box::new(|s| {
                let overlap = s.overlap.as_ref();
                overlap.map_or(Value::Missing(None), |o| estimate(o.mean, o.ci95))
            }),
        );
    }
    if any(&|s| s.paired_cosine.is_some()) {
        column(
            "paired cosine".to_owned(),
            Box::new(|s| number(s.paired_cosine.as_ref().map(|c| c.mean))),
        );
    }
    if any(&|s| s.content.as_ref().is_some_and(|c| c.eps_eq.is_some())) {
        column(
            "content ε_eq".to_owned(),
            Box::new(|s| {
                let content = s.content.as_ref();
                content
                    .and_then(|c| Some(share_value(c.eps_eq?, c.eps_eq_ci95)))
                    .unwrap_or(Value::Missing(None))
            }),
        );
    }
    if any(&|s| s.content.as_ref().is_some_and(|c| c.p_value_fdr.is_some())) {
        column(
            "content, p corrected".to_owned(),
            Box::new(|s| {
                let p = s.content.as_ref().and_then(|c| c.p_value_fdr);
                p.map_or(Value::Missing(None), corrected)
            }),
        );
    }
    if any(&|s| s.ndcg_at_10.is_some()) {
        column(
            "nDCG@10, change".to_owned(),
            Box::new(|s| {
                let queries = s.ndcg_at_10.as_ref();
                queries.map_or(Value::Missing(None), |q| {
                    estimate(q.difference.mean, q.difference.ci95)
                })
            }),
        );
    }
    let shown = slices.len().min(SHOWN);
    let caption = if shown < slices.len() {
        format!(
            "By {}: the {shown} largest of {} slices; all are in result.json",
            partition.by,
            slices.len()
        )
    } else {
        format!("By {}", partition.by)
    };
    Table {
        caption,
        columns,
        rows: slices
            .iter()
            .take(shown)
            .map(|slice| {
                let mut row = vec![
                    named_slice(slice, 3).into(),
                    Value::Count(slice.n_reference),
                    slice.n_current.map_or(Value::Missing(None), Value::Count),
                ];
                row.extend(cells.iter().map(|cell| cell(slice)));
                row
            })
            .collect(),
    }
}

fn state_word(state: ShareState) -> &'static str {
    match state {
        ShareState::Emerging => "emerging",
        ShareState::Grown => "grown",
        ShareState::Stable => "stable",
        ShareState::Shrunk => "shrunk",
        ShareState::Vanishing => "vanishing",
    }
}
