//! The rule that one slice holds most of the drift: then it is that slice that must be looked at.

use super::verdict::{Action, Axis, AxisState, Evidence, Policy};
use crate::metrics::slices::{
    Concentration, DriftShared, ShareState, Slice, SlicedBy, Slices, SlicingKind,
};

const MEASURE: &str = "share of the drift that one slice holds";

/// The slice that holds most, as evidence on the data; `None` where no slicing tells.
///
/// The data is broken where a column's slice with at most `max_culprit_rows` of the rows holds more than
/// `max_slice_drift` of the drift, by the interval, its vectors moved by more than the policy lets pass, and it is
/// no other share of the rows that makes the drift: a new topic is no fault. A cluster has no owner who could
/// repair it: it is named, and decides nothing.
pub(super) fn evidence(slices: &Slices, policy: &Policy) -> Option<Evidence> {
    let mut best: Option<(bool, &SlicedBy, &Concentration)> = None;
    for partition in &slices.partitions {
        let Some(found) = &partition.concentration else {
            continue;
        };
        let broken = is_culprit(partition, found, policy);
        let plain = |p: &SlicedBy| matches!(p.kind, SlicingKind::Values | SlicingKind::Ranges);
        let key = |broken: bool, p: &SlicedBy, c: &Concentration| (broken, plain(p), c.ci95[0]);
        let before =
            best.is_none_or(|(known, p, c)| key(broken, partition, found) > key(known, p, c));
        if before {
            best = Some((broken, partition, found));
        }
    }
    let (broken, partition, found) = best?;
    let [low, high] = found.ci95;
    let percent = |share: f64| 100.0 * share;
    let drift = match found.of {
        DriftShared::Displacement => "the vectors' movement",
        DriftShared::Mmd2 => "the shift (MMD²)",
    };
    let what = match partition.kind {
        SlicingKind::Clusters => "look at its rows",
        _ => "look at how its vectors were made",
    };
    let held = format!(
        "the slice {} holds {:.0} % of {drift} (95 % interval {:.0} to {:.0} %) with {:.1} % of the rows",
        found.label,
        percent(found.share.min(1.0)),
        percent(low),
        percent(high.min(1.0)),
        percent(found.rows_share)
    );
    let most = low > policy.max_slice_drift && found.rows_share <= policy.max_culprit_rows;
    Some(Evidence {
        measure: MEASURE.to_owned(),
        estimate: Some(found.share),
        ci95: Some(found.ci95),
        n: Some(found.n),
        exact: found.of == DriftShared::Displacement,
        floor: None,
        threshold: Some(policy.max_slice_drift),
        state: if broken {
            AxisState::Broken
        } else {
            AxisState::Ok
        },
        statement: if broken || most {
            format!("{held}: {what}")
        } else {
            format!("no small slice holds most of the drift; {held}")
        },
    })
}

fn is_culprit(partition: &SlicedBy, found: &Concentration, policy: &Policy) -> bool {
    let slice = partition.slices.iter().find(|s| s.name == found.name);
    partition.kind != SlicingKind::Clusters
        && found.ci95[0] > policy.max_slice_drift
        && found.rows_share <= policy.max_culprit_rows
        && slice.is_some_and(|slice| moved(slice, found.of, policy))
}

/// Whether what is in the slice moved by more than the policy lets pass.
fn moved(slice: &Slice, of: DriftShared, policy: &Policy) -> bool {
    match of {
        DriftShared::Displacement => slice
            .paired_cosine
            .as_ref()
            .is_some_and(|found| found.mean < policy.min_mixable_cosine),
        DriftShared::Mmd2 => {
            let content = slice.content.as_ref();
            let interval = content.and_then(|c| c.eps_eq_ci95);
            let resized = slice.share.as_ref().is_none_or(|share| {
                matches!(share.state, ShareState::Emerging | ShareState::Vanishing)
            });
            !resized && interval.is_some_and(|[low, _]| low > policy.max_eps_eq)
        }
    }
}

/// The decision where nothing but that one slice is at fault.
pub(super) fn decide(
    decision: (Action, String, String),
    data: &Axis,
    policy: &Policy,
) -> (Action, String, String) {
    let mut faults = data
        .evidence
        .iter()
        .filter(|e| e.state == AxisState::Broken);
    match (faults.next(), faults.next()) {
        (Some(only), None) if only.measure == MEASURE => (
            Action::FixData,
            format!("the drift is that of one slice: {}", only.statement),
            format!(
                "that slice's vectors made as all others were, or an interval of its share of the drift that reaches down to {:.0} %",
                100.0 * policy.max_slice_drift
            ),
        ),
        _ => decision,
    }
}
