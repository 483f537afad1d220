//! Queries out of distribution, as a section and as a line.

use super::*;
use crate::metrics::ood::{Ood, OodRate};

/// The excess rate, or why there is none.
pub(super) fn excess(rate: &OodRate) -> Value {
    match (rate.excess, rate.excess_ci95) {
        (Some(excess), Some(ci)) => Value::percent_interval(excess, ci),
        _ => Value::missing("too few queries"),
    }
}

pub(super) fn queries_section(found: &Ood) -> Section {
    let rates = Table {
        caption: format!(
            "Queries that raise an alarm at p ≤ {}: {} current ones, by the standard of {} reference ones",
            found.alpha,
            Value::Count(found.queries),
            Value::Count(found.calibration_queries)
        ),
        columns: vec![
            Column::left("distance"),
            Column::right("alarms [95 % interval]"),
            Column::right("beyond false alarms [95 % interval]"),
            Column::right("median, reference"),
            Column::right("median, current"),
        ],
        rows: found
            .scores
            .iter()
            .map(|rate| {
                vec![
                    rate.score.label().into(),
                    Value::percent_interval(rate.rate, rate.rate_ci95),
                    excess(rate),
                    number(rate.median_reference),
                    number(rate.median_current),
                ]
            })
            .collect(),
    };
    let rate = Value::Percent(found.false_discovery_rate);
    let worst = Table {
        caption: format!(
            "Queries farthest from the corpus ({} at a false discovery rate of {rate})",
            Value::Count(found.out_of_distribution)
        ),
        columns: vec![
            Column::left("query"),
            Column::right(format!("1 − cosine, document {}", found.k)),
            Column::right("p"),
            Column::right("p, corrected"),
            Column::left("nearest document"),
            Column::right("its cosine"),
        ],
        rows: found
            .worst_queries
            .iter()
            .take(LISTED)
            .map(|query| {
                vec![
                    query.id.as_str().into(),
                    number(query.score),
                    number(query.p_value),
                    number(query.p_value_fdr),
                    query.nearest_id.as_str().into(),
                    number(query.nearest_cosine),
                ]
            })
            .collect(),
    };
    let mut items = vec![Item::Table(rates)];
    if !worst.rows.is_empty() {
        items.push(Item::Table(worst));
    }
    if let Some(floor) = found.minimum_detectable_excess {
        items.push(Item::Note(format!(
            "This many queries show an excess of {} with 80 % power.",
            Value::Percent(floor)
        )));
    }
    items.extend(
        found
            .notes
            .iter()
            .map(|note| Item::Note(capitalised(note) + ".")),
    );
    Section {
        id: "queries".to_owned(),
        title: "Queries".to_owned(),
        lead: "Do queries ask for what the corpus holds? Distance from the reference corpus, by the standard of reference queries; the first row decides.".to_owned(),
        items,
    }
}
