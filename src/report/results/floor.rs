//! The operational noise floor beside what the audit found.

use super::*;
use crate::audit::NoiseFloor;

pub(super) fn floor_section(floor: &NoiseFloor, audit: &Audit) -> Section {
    let overlaps = audit.neighbourhoods.as_ref();
    let paired = audit
        .coordinates
        .as_ref()
        .and_then(|c| c.paired_cosine.as_ref());
    let mmd = audit.distribution.as_ref().and_then(|d| d.mmd.as_ref());
    let shift = audit
        .distribution
        .as_ref()
        .and_then(|d| d.cosine_shift.as_ref());
    let mut rows: Vec<Vec<Value>> = Vec::new();
    let mut row =
        |name: &str, floor: Value, found: Value| rows.push(vec![name.into(), floor, found]);
    for at in &floor.overlap {
        let found = overlaps.and_then(|o| o.at_k.iter().find(|found| found.k == at.k));
        row(
            &format!("overlap@{} (ceiling)", at.k),
            estimate(at.overlap, at.ci95),
            found.map_or(Value::Missing(None), |f| estimate(f.overlap, f.ci95)),
        );
    }
    row(
        "paired cosine, mean (ceiling)",
        number(floor.paired_cosine_mean),
        number(paired.and_then(|p| p.mean)),
    );
    row(
        "paired cosine, 5th percentile (ceiling)",
        number(floor.paired_cosine_p05),
        number(paired.and_then(|p| p.p05)),
    );
    let or_missing = |value: Option<f64>, ci95| {
        value.map_or(Value::Missing(None), |value| estimate(value, ci95))
    };
    row(
        "shift ε_eq",
        or_missing(floor.eps_eq, floor.eps_eq_ci95),
        mmd.map_or(Value::Missing(None), |m| {
            or_missing(m.effect.eps_eq, m.effect.ci95)
        }),
    );
    row(
        "MMD²",
        number(floor.mmd2),
        number(mmd.map(|m| m.mmd2_paired.unwrap_or(m.mmd2_unbiased))),
    );
    let shifts = [floor.cosine_shift.as_ref(), shift];
    for (name, [floor, found]) in [
        ("cosines of pairs, KS", shifts.map(|s| s.map(|s| s.ks))),
        (
            "cosines of pairs, W1",
            shifts.map(|s| s.map(|s| s.wasserstein_1)),
        ),
        (
            "cosines of pairs, JS (nats)",
            shifts.map(|s| s.map(|s| s.js_nats)),
        ),
        ("cosines of pairs, PSI", shifts.map(|s| s.map(|s| s.psi))),
    ] {
        row(name, number(floor), number(found));
    }
    Section {
        id: "noise-floor".to_owned(),
        title: "Noise floor".to_owned(),
        lead: "What the measures say between two embeddings of one corpus. A drift that is not beyond this is none.".to_owned(),
        items: vec![Item::Table(Table {
            caption: format!(
                "Of {} rows embedded twice: overlap by {} items, distributions by {} rows",
                Value::Count(floor.rows),
                Value::Count(floor.overlap_queries),
                Value::Count(floor.distribution_rows)
            ),
            columns: vec![
                Column::left("measure"),
                Column::right("embedded twice"),
                Column::right("this audit"),
            ],
            rows,
        })],
    }
}
