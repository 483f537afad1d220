//! Chunks that search for the rest of their document.

use super::*;
use crate::metrics::retrieval::KnownItems;

pub(super) fn known_items_section(found: &KnownItems) -> Section {
    let table = Table {
        caption: format!(
            "One chunk of each of {} documents searches for the others",
            Value::Count(found.queries as u64)
        ),
        columns: vec![
            Column::left("metric"),
            Column::right("reference"),
            Column::right("current"),
            Column::right("change [95 % interval]"),
            Column::right("won / lost / tied"),
            Column::right("p, Holm"),
        ],
        rows: found
            .metrics
            .iter()
            .map(|m| {
                let d = &m.difference;
                vec![
                    metric_label(&m.metric).into(),
                    number(m.reference),
                    number(m.current),
                    estimate(d.mean, d.ci95),
                    format!("{} / {} / {}", d.wins, d.losses, d.ties).into(),
                    Value::permutation_p(m.p_value_holm, 10_000),
                ]
            })
            .collect(),
    };
    let flips = &found.flips;
    Section {
        id: "known-items".to_owned(),
        title: "Known items".to_owned(),
        lead: "Do chunks find the rest of their own document? It shows whether documents hold together; whether people find what they look for, only golden queries show.".to_owned(),
        items: vec![
            Item::Table(table),
            Item::Note(format!(
                "{} chunks found their document among the first {} before and do not now; {} do only now.",
                Value::Count(flips.negative),
                flips.k,
                Value::Count(flips.positive)
            )),
        ],
    }
}
