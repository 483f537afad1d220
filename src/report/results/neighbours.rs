//! What neighbour lists say of a space itself, and of searches by radius.

use super::super::page::{Column, Table};
use super::super::value::Value;
use crate::metrics::overlap::{Overlap, RadiusRow};
use crate::stats::interval::Estimate;

/// Rows of the table of neighbourhoods, each old → new.
pub(super) fn structure_rows(found: &Overlap) -> Vec<(String, Value)> {
    let change = |old: Option<Value>, new: Option<Value>| -> Value {
        match (old, new) {
            (Some(old), Some(new)) => Value::Text(format!("{old} → {new}")),
            _ => Value::Missing(None),
        }
    };
    let (old, new) = (&found.hubness.reference, &found.hubness.current);
    let mut rows = Vec::new();
    if let Some(far) = &found.faithfulness {
        let items = Value::Count(far.items as u64);
        for (name, value) in [
            (
                "trustworthiness: new neighbours were near before",
                far.trustworthiness,
            ),
            ("continuity: old neighbours are still near", far.continuity),
        ] {
            let value = super::estimate(value.mean, value.ci95);
            rows.push((format!("{name} ({items} items)"), value));
        }
    }
    rows.extend([
        (
            "hubs: skew of how many lists a row is in".to_owned(),
            change(
                old.skewness.map(Value::Number),
                new.skewness.map(Value::Number),
            ),
        ),
        (
            "rows in no list (anti-hubs)".to_owned(),
            change(
                old.anti_hub_share.map(Value::Percent),
                new.anti_hub_share.map(Value::Percent),
            ),
        ),
    ]);
    if let Some(dimension) = &found.intrinsic_dimension {
        let [old, new] = [&dimension.reference, &dimension.current].map(|side| {
            let mean = side.harmonic_mean?;
            Some(super::estimate(mean, side.ci95))
        });
        rows.push(("local intrinsic dimension".to_owned(), change(old, new)));
    }
    rows
}

/// Radii of range searches before and after, and the rows that fell out of them.
pub(super) fn range_tables(found: &Overlap) -> Vec<Table> {
    let Some(ranges) = &found.range_searches else {
        return Vec::new();
    };
    let share = |found: Option<Estimate>| {
        found.map_or(Value::Missing(None), |e| match e.ci95 {
            Some(ci95) => Value::percent_interval(e.mean, ci95),
            None => Value::Percent(e.mean),
        })
    };
    let mut tables = vec![Table {
        caption: format!(
            "Searches by radius ({} of them): the similarity that returns as many rows as before, and the share of the old results that it misses",
            Value::Count(ranges.searches as u64)
        ),
        columns: vec![
            Column::right("results, mean"),
            Column::right("old radius"),
            Column::right("new radius"),
            Column::right("fall out"),
            Column::right("fall out, radius kept"),
            Column::right("results, radius kept"),
            Column::right("rows found by none now"),
        ],
        rows: ranges
            .table
            .iter()
            .map(|row| {
                vec![
                    Value::Count(row.results as u64),
                    row.reference_radius.into(),
                    row.current_radius.into(),
                    share(row.fall_out),
                    share(row.fall_out_if_kept),
                    row.results_if_kept.into(),
                    Value::Count(row.dark_rows),
                ]
            })
            .collect(),
    }];
    let typical = ranges
        .table
        .iter()
        .min_by_key(|row| row.results.abs_diff(10));
    tables.extend(typical.and_then(fallen_table));
    tables
}

fn fallen_table(row: &RadiusRow) -> Option<Table> {
    (!row.fallen_out.is_empty()).then(|| Table {
        caption: format!(
            "Rows that fewer searches return, at {} results each",
            row.results
        ),
        columns: vec![
            Column::left("id"),
            Column::right("searches before"),
            Column::right("searches now"),
        ],
        rows: row
            .fallen_out
            .iter()
            .map(|fallen| {
                vec![
                    fallen.id.clone().into(),
                    Value::Count(u64::from(fallen.searches_reference)),
                    Value::Count(u64::from(fallen.searches_current)),
                ]
            })
            .collect(),
    })
}
