//! Queries in the audit: which are judged, the axis they make, and what follows from it.

use super::measure::{Golden, skip};
use super::verdict::{Action, Axis, AxisName, AxisState, Evidence, Policy};
use super::{AuditConfig, NotMeasured, Shared};
use crate::embeddings::{Embeddings, Join};
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::comparability::Comparability;
use crate::metrics::ood::{self, Identified, Ood, OodConfig};
use crate::metrics::retrieval::{self, KnownItems};
use crate::stats::paired::Resampling;

const MEASURE: &str = "queries out of distribution";

/// Query logs as read.
pub(super) struct QuerySets {
    pub(super) reference: Embeddings,
    pub(super) current: Embeddings,
}

/// Holds current queries against the reference corpus: those of the logs, or the golden ones.
pub(super) fn ood(
    engine: &Engine,
    corpus: &Embeddings,
    (logs, golden): (Option<&QuerySets>, Option<&Golden>),
    comparability: &Comparability,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<Ood>> {
    let sets = logs
        .map(|logs| [&logs.reference, &logs.current])
        .or(golden.map(|golden| [&golden.queries_reference, &golden.queries_current]));
    let Some([reference, current]) = sets else {
        skip(
            not_measured,
            MEASURE,
            "needs queries: --queries-reference and --queries-current",
        );
        return Ok(None);
    };
    if !comparability.relation.shares_coordinates() {
        let reason = format!("not in one space: {}", comparability.reason);
        skip(not_measured, MEASURE, &reason);
        return Ok(None);
    }
    let dims = [corpus.dim(), reference.dim(), current.dim()];
    if dims[1..].iter().any(|&dim| dim != dims[0]) {
        let reason = format!(
            "the dimensions differ (reference {}, its queries {}, current queries {})",
            dims[0], dims[1], dims[2]
        );
        skip(not_measured, MEASURE, &reason);
        return Ok(None);
    }
    let of = |set| -> Identified<'_> {
        let set: &Embeddings = set;
        Identified {
            rows: set.rows(),
            ids: &set.ids,
        }
    };
    let found = ood::ood(
        engine,
        of(corpus),
        of(reference),
        of(current),
        &OodConfig {
            false_discovery_rate: config.policy.false_discovery_rate,
            seed: config.seed,
            ..OodConfig::default()
        },
    )?;
    if found.is_none() {
        skip(
            not_measured,
            MEASURE,
            "a side has no usable query or document",
        );
    }
    Ok(found)
}

/// Lets chunks search for the rest of their document: only where groups say which that is, and where no
/// golden queries ask what people ask.
pub(super) fn known_items(
    engine: &Engine,
    shared: Option<&Shared<'_>>,
    (reference, join): (&Embeddings, &Join),
    golden: bool,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<KnownItems>> {
    let Some(group) = config.group.as_ref().filter(|_| !golden) else {
        return Ok(None);
    };
    let (Some(shared), Some(groups)) = (shared, reference.column(group)) else {
        skip(
            not_measured,
            "known items",
            "needs items with the same id on both sides",
        );
        return Ok(None);
    };
    let rows = join.reference_rows();
    let documents: Vec<&str> = rows
        .iter()
        .map(|&row| groups[row as usize].as_str())
        .collect();
    let found = retrieval::known_items(
        engine,
        (shared.reference(), shared.current()),
        &shared.ids,
        &documents,
        &Resampling {
            seed: config.seed,
            ..Resampling::default()
        },
    )?;
    if found.is_none() {
        let reason = format!(
            "needs at least {} values of {group} that two items share",
            retrieval::MIN_DOCUMENTS
        );
        skip(not_measured, "known items", &reason);
    }
    Ok(found)
}

/// What known items say, beside the golden queries that are not there. They decide nothing.
pub(super) fn known_item_evidence(found: &KnownItems) -> Option<Evidence> {
    let recall = found.metrics.iter().find(|m| m.metric == "recall_at_10")?;
    let difference = &recall.difference;
    Some(Evidence {
        measure: "change of recall@10 of known items".to_owned(),
        estimate: Some(difference.mean),
        ci95: difference.ci95,
        n: Some(found.queries as u64),
        exact: found.exact,
        floor: None,
        threshold: None,
        state: AxisState::Unknown,
        statement: format!(
            "chunks find the rest of their own document as a stand-in: recall@10 {:.3} before, {:.3} now ({} won, {} lost); that is no measure of what people search for",
            recall.reference, recall.current, difference.wins, difference.losses
        ),
    })
}

/// The axis of the queries.
pub(super) fn axis(found: &Ood, policy: &Policy) -> Axis {
    let main = found.main();
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let (state, statement) = match (main.excess, main.excess_ci95) {
        (Some(excess), Some([low, high])) => {
            let state = match () {
                () if low > policy.review_ood_excess => AxisState::Broken,
                () if low > policy.max_ood_excess => AxisState::Shifted,
                () if high < policy.max_ood_excess => AxisState::Ok,
                () => AxisState::Unknown,
            };
            let beyond = format!(
                "{} beyond the {} of false alarms, 95 % interval {} to {}",
                percent(excess.max(0.0)),
                percent(found.alpha),
                percent(low.max(0.0)),
                percent(high.max(0.0))
            );
            let moved = if found.same_queries {
                "the same queries"
            } else {
                "queries"
            };
            let words = match state {
                AxisState::Ok => format!("{moved} lie as near to the corpus as before"),
                AxisState::Unknown => {
                    format!("undecided whether {moved} left what the corpus covers")
                }
                _ => format!("{moved} lie farther from the corpus than before"),
            };
            (state, format!("{words} ({beyond})"))
        }
        _ => (
            AxisState::Unknown,
            format!(
                "too few queries to tell: {} reference and {} current ones, {} of each are needed",
                found.calibration_queries,
                found.queries,
                ood::MIN_QUERIES
            ),
        ),
    };
    let evidence = Evidence {
        measure: "share of queries out of distribution, beyond false alarms".to_owned(),
        estimate: main.excess,
        ci95: main.excess_ci95,
        n: Some(found.queries),
        exact: found.exact,
        floor: None,
        threshold: Some(match state {
            AxisState::Broken => policy.review_ood_excess,
            _ => policy.max_ood_excess,
        }),
        state,
        statement,
    };
    Axis {
        axis: AxisName::Queries,
        state,
        evidence: vec![evidence],
    }
}

/// What queries that left the corpus change about a decision; those that are the same on both sides ask
/// for nothing new and change none.
pub(super) fn decide(
    decision: (Action, String, String),
    found: &Ood,
    axis: &Axis,
    retrieval: AxisState,
    paired: bool,
    policy: &Policy,
) -> (Action, String, String) {
    let (action, reason, flip) = decision;
    let said = axis.evidence.first().map_or("", |e| e.statement.as_str());
    let below = |threshold: f64| {
        format!(
            "an excess of far queries below {:.0} %, or documents that answer them",
            100.0 * threshold
        )
    };
    match (axis.state, action) {
        _ if found.same_queries => (action, reason, flip),
        (
            AxisState::Broken,
            Action::NoAction | Action::Monitor | Action::Recalibrate | Action::Inconclusive,
        ) => (
            Action::ReviewCoverage,
            format!(
                "people ask for what the corpus does not hold: {said}; of the corpus: {reason}"
            ),
            below(policy.review_ood_excess),
        ),
        (AxisState::Shifted, Action::NoAction | Action::Monitor) => (
            if retrieval == AxisState::Ok {
                Action::Recalibrate
            } else {
                Action::Monitor
            },
            format!("{said}; of the corpus: {reason}"),
            below(policy.max_ood_excess),
        ),
        (AxisState::Unknown, Action::NoAction) if !paired => (
            Action::Inconclusive,
            format!("{said}; of the corpus: {reason}"),
            format!(
                "more queries: {} reference and {} current ones would show an excess of {:.1} %",
                2 * ood::GOOD_CALIBRATION,
                4 * ood::GOOD_CALIBRATION,
                // 2.8 standard errors at those numbers.
                100.0
                    * crate::stats::conformal::minimum_detectable_excess(
                        4 * ood::GOOD_CALIBRATION,
                        2 * ood::GOOD_CALIBRATION,
                        found.alpha
                    )
            ),
        ),
        _ => (action, reason, flip),
    }
}
