//! Similarity thresholds carried over, as a section and as a line.

use super::*;
use crate::metrics::thresholds::{PrecisionTransfer, ThresholdRow, Thresholds};

/// The row to show where there is room for one: that which lets about one pair in a hundred pass.
pub(super) fn typical(found: &Thresholds) -> Option<&ThresholdRow> {
    let distance = |row: &ThresholdRow| (row.pass_rate / 0.01).ln().abs();
    found
        .table
        .iter()
        .min_by(|a, b| distance(a).total_cmp(&distance(b)))
}

pub(super) fn cutoffs_section(found: &Thresholds) -> Section {
    let share = |e: crate::stats::interval::Estimate| {
        e.ci95.map_or(Value::Percent(e.mean), |ci| {
            Value::percent_interval(e.mean, ci)
        })
    };
    let mut items = vec![
        Item::Note(match found.scalar_suffices {
            None => "Too few pairs pass any threshold that was tried.".to_owned(),
            Some(true) => "A new threshold gives nearly the old decisions.".to_owned(),
            Some(false) => "No single new threshold reproduces the old decisions: the pairs that pass are not the same ones, however many they are.".to_owned(),
        }),
        Item::Table(Table {
            caption: format!(
                "At equal pass rate: {} pairs of {} with {} shared items; rank correlation of old and new cosines {}",
                Value::Count(found.pairs),
                Value::Count(found.queries as u64),
                Value::Count(found.base as u64),
                number(found.rank_correlation)
            ),
            columns: vec![
                Column::right("old threshold"),
                Column::right("pass"),
                Column::right("new threshold [95 % interval]"),
                Column::right("flip with it"),
                Column::right("pass if kept"),
                Column::right("flip if kept"),
            ],
            rows: found
                .table
                .iter()
                .map(|row| {
                    vec![
                        Value::Setting(row.old),
                        Value::Percent(row.pass_rate),
                        estimate(row.new, row.new_ci95),
                        share(row.flips),
                        Value::Percent(row.pass_rate_if_kept),
                        share(row.flips_if_kept),
                    ]
                })
                .collect(),
        }),
    ];
    items.extend(figure(found).map(Item::Figure));
    items.extend(
        found
            .precision
            .as_ref()
            .map(precision_table)
            .map(Item::Table),
    );
    Section {
        id: "cut-offs".to_owned(),
        title: "Similarity thresholds".to_owned(),
        lead: "What a cosine threshold set on the reference is worth on the current set. Shares that flip are of the pairs that pass before or after.".to_owned(),
        items,
    }
}

/// New thresholds over old ones; those on the diagonal may stay.
fn figure(found: &Thresholds) -> Option<Figure> {
    let (first, last) = (found.table.first()?.old, found.table.last()?.old);
    if first == last {
        return None;
    }
    let moved = found.table.iter().map(|row| Point {
        x: row.old,
        y: row.new,
        interval: row.new_ci95,
    });
    let kept = [first, last].map(|t| Point {
        x: t,
        y: t,
        interval: None,
    });
    Some(Figure {
        title: "Thresholds that let as many pairs pass".to_owned(),
        reading: "On the grey line a threshold may stay as it is.".to_owned(),
        plot: Plot::Curve {
            x_label: "old cosine threshold".to_owned(),
            y_label: "new cosine threshold".to_owned(),
            x_axis: XAxis::Linear,
            series: vec![
                Line {
                    name: "equal pass rate".to_owned(),
                    role: Role::Measured,
                    points: moved.collect(),
                },
                Line {
                    name: "unchanged".to_owned(),
                    role: Role::Baseline,
                    points: kept.to_vec(),
                },
            ],
            levels: Vec::new(),
        },
    })
}

fn precision_table(found: &PrecisionTransfer) -> Table {
    Table {
        caption: format!(
            "At equal precision: {} golden queries, {} documents each",
            Value::Count(found.queries as u64),
            found.depth
        ),
        columns: vec![
            Column::right("old threshold"),
            Column::right("precision"),
            Column::right("recall"),
            Column::right("new threshold [95 % interval]"),
            Column::right("recall with it"),
            Column::right("precision if kept"),
        ],
        rows: found
            .table
            .iter()
            .map(|row| {
                vec![
                    Value::Setting(row.old),
                    number(row.precision),
                    number(row.recall),
                    row.new
                        .map_or(Value::Missing(None), |new| estimate(new, row.new_ci95)),
                    number(row.recall_new),
                    number(row.precision_if_kept),
                ]
            })
            .collect(),
    }
}
