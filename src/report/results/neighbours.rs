//! What neighbour lists say of a space itself: hubs, rows in no list, local dimension.

use super::super::value::Value;
use crate::metrics::overlap::Overlap;

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
