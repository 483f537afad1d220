//! The page of `align`.

use super::*;
use crate::metrics::adapter::{Alignment, DirectionResult, Fidelity, MayMix, Recovery};
use crate::stats::interval::Estimate;

/// The page of `align`.
pub fn align_page<C, R>(output: &Output<C, R>, found: &Alignment) -> Page {
    let mut page = measured_page(output, Table::default());
    page.title = format!(
        "{} → {}",
        role(output, "reference").map_or("reference", |i| &i.source),
        role(output, "current").map_or("current", |i| &i.source)
    );
    page.verdict = Some(Verdict {
        action: format!(
            "May old and new vectors be mixed? {}",
            match found.mixing.may_mix {
                MayMix::Yes => "Yes",
                MayMix::AtACost => "Only at a cost",
                MayMix::No => "No",
            }
        ),
        reason: format!("{}.", capitalised(&found.mixing.statement)),
        tone: match found.mixing.may_mix {
            MayMix::Yes => Tone::Good,
            MayMix::AtACost => Tone::Caution,
            MayMix::No => Tone::Severe,
        },
    });
    page.key_numbers = found
        .directions
        .iter()
        .map(|d| direction_table(d, found.k))
        .collect();
    page.key_numbers
        .extend(found.directions.iter().filter_map(recovery_table));
    for d in &found.directions {
        page.sections.push(Section {
            id: "clusters".to_owned(),
            title: format!("Where the map fails, {}", d.direction.label()),
            lead: "Clusters of held-out items in the target space, worst first.".to_owned(),
            items: vec![Item::Table(clusters_table(d))],
        });
    }
    page
}

fn shown(estimate: Estimate) -> Value {
    super::estimate(estimate.mean, estimate.ci95)
}

fn fidelity_row(name: String, f: &Fidelity) -> Vec<Value> {
    vec![
        name.into(),
        shown(f.mean_cosine),
        number(f.r_squared),
        shown(f.overlap),
    ]
}

fn direction_table(d: &DirectionResult, k: usize) -> Table {
    let mut rows: Vec<Vec<Value>> = d
        .unadapted
        .iter()
        .map(|f| fidelity_row("as they are".to_owned(), f))
        .collect();
    rows.extend(d.methods.iter().map(|m| {
        let mut name = m.method.label().to_owned();
        if let Some(rank) = m.rank {
            name.push_str(&format!(" {rank}"));
        }
        if m.method == d.method {
            name.push_str(" (taken)");
        }
        fidelity_row(name, &m.heldout)
    }));
    Table {
        caption: format!(
            "{}, {} → {}: {}",
            capitalised(d.direction.label()),
            d.source_dim,
            d.target_dim,
            d.statement
        ),
        columns: vec![
            Column::left("map"),
            Column::right("cosine, held out"),
            Column::right("R²"),
            Column::right(format!("overlap@{k}, whole corpus")),
        ],
        rows,
    }
}

fn recovery_table(d: &DirectionResult) -> Option<Table> {
    let r: &Recovery = d.retrieval.as_ref()?;
    let mut rows = vec![
        ("reference queries on reference", number(r.reference)),
        ("current queries on current", number(r.current)),
        (
            "across, as they are",
            r.unadapted
                .map_or(Value::missing("dimensions differ"), Value::Number),
        ),
        ("across, with the adapter", number(r.adapted)),
        (
            "change against the reference",
            super::estimate(r.change.mean, r.change.ci95),
        ),
    ];
    if let Some(share) = r.gain_share {
        rows.push(("share of the upgrade gained", Value::Percent(share)));
    }
    Some(named(
        &format!("nDCG@10, {}, {} queries", d.direction.label(), r.queries),
        rows,
    ))
}

fn clusters_table(d: &DirectionResult) -> Table {
    Table {
        caption: format!("Held-out clusters, {}", d.direction.label()),
        columns: vec![
            Column::right("items"),
            Column::right("cosine"),
            Column::right("overlap"),
            Column::left("examples"),
        ],
        rows: d
            .clusters
            .iter()
            .map(|c| {
                vec![
                    Value::Count(c.items as u64),
                    shown(c.mean_cosine),
                    number(c.mean_overlap),
                    c.examples.join(", ").into(),
                ]
            })
            .collect(),
    }
}
