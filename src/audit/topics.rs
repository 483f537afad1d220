//! Topics that came and topics that went: where they are looked for, and what follows from them.

use schemars::JsonSchema;
use serde::Serialize;

use super::measure::skip;
use super::slices::Known;
use super::verdict::{Action, Axis, AxisName, AxisState, Evidence, Policy};
use super::{AuditConfig, NotMeasured, PairingKind};
use crate::embeddings::Embeddings;
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::emergence::{self, Emergence, EmergenceConfig};
use crate::metrics::mmd::Sample;
use crate::metrics::slices::{ShareState, Slices, SlicingKind};

const MEASURE: &str = "emerging topics";

/// Topics that came and topics that went.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TopicTurnover {
    /// New topics among the rows that the reference lacks; null where they were not looked for.
    pub emerging: Option<Emergence>,
    /// Clusters of both sets whose share fell to less than half, by the interval; fewest left first.
    pub vanishing: Vec<VanishingTopic>,
}

/// A topic of the reference of which less than half is left.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct VanishingTopic {
    /// The cluster, as `slices` names it.
    pub name: String,
    /// Ids of the rows nearest to its centre.
    pub representatives: Vec<String>,
    /// Reference rows.
    pub n_reference: u64,
    /// Current rows.
    pub n_current: u64,
    /// Share of the reference's rows.
    pub share_reference: f64,
    /// Share of current's rows.
    pub share_current: f64,
    /// Share in current over share in the reference.
    pub ratio: f64,
    /// Its 95 % interval; an end is null where it is unknown.
    pub ratio_ci95: [Option<f64>; 2],
    /// p-value of "the same share", corrected over all tests of all slices.
    pub p_value_fdr: f64,
}

/// Looks for topics that came, and lists those that went.
pub(super) fn topics(
    engine: &Engine,
    known: &Known<'_>,
    slices: Option<&Slices>,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<TopicTurnover>> {
    let emerging = emerging(engine, known, config, not_measured)?;
    let clusters = slices
        .into_iter()
        .flat_map(|found| &found.partitions)
        .find(|partition| partition.kind == SlicingKind::Clusters && partition.shares.is_some());
    let mut vanishing: Vec<VanishingTopic> = clusters
        .into_iter()
        .flat_map(|partition| &partition.slices)
        .filter_map(|slice| {
            let share = slice.share.as_ref()?;
            (share.state == ShareState::Vanishing).then(|| VanishingTopic {
                name: slice.name.clone(),
                representatives: slice.representatives.clone(),
                n_reference: slice.n_reference,
                n_current: slice.n_current.unwrap_or(0),
                share_reference: share.reference,
                share_current: share.current,
                ratio: share.ratio.unwrap_or(0.0),
                ratio_ci95: share.ratio_ci95,
                p_value_fdr: share.p_value_fdr,
            })
        })
        .collect();
    vanishing.sort_by(|a, b| a.ratio.total_cmp(&b.ratio).then(a.name.cmp(&b.name)));
    let looked = emerging.is_some() || clusters.is_some();
    Ok(looked.then_some(TopicTurnover {
        emerging,
        vanishing,
    }))
}

fn emerging(
    engine: &Engine,
    known: &Known<'_>,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<Emergence>> {
    let (reference, current) = (known.reference, known.current);
    if !known.comparability.relation.shares_coordinates() || reference.dim() != current.dim() {
        let reason = format!("not in one space: {}", known.comparability.reason);
        skip(not_measured, MEASURE, &reason);
        return Ok(None);
    }
    let all: Vec<u32>;
    let candidates = match known.pairing {
        PairingKind::Unpaired => {
            all = (0..current.len() as u32).collect();
            &all
        }
        PairingKind::Paired | PairingKind::Overlapping => &known.join.only_current,
    };
    let (needs, wants) = (emergence::MIN_REFERENCE_ROWS, emergence::MIN_CURRENT_ROWS);
    if reference.len() < needs || candidates.len() < wants {
        let reason = format!(
            "needs {needs} reference rows and {wants} current ones that the reference lacks, there are {} and {}",
            reference.len(),
            candidates.len()
        );
        skip(not_measured, MEASURE, &reason);
        return Ok(None);
    }
    let found = emergence::emergence(
        engine,
        sample(reference, config),
        sample(current, config),
        candidates,
        &EmergenceConfig {
            alpha: config.policy.alpha,
            seed: config.seed,
        },
    )?;
    if found.is_none() {
        skip(
            not_measured,
            MEASURE,
            "the reference has too few groups of rows",
        );
    }
    Ok(found)
}

fn sample<'a>(set: &'a Embeddings, config: &AuditConfig) -> Sample<'a> {
    Sample {
        rows: set.rows(),
        ids: &set.ids,
        groups: config.group.as_ref().and_then(|g| set.column(g)),
    }
}

/// What is new and what is gone, as evidence of the distribution axis. It says what changed; the axis's state
/// is that of the whole corpus.
pub(super) fn evidence(found: &TopicTurnover, policy: &Policy) -> Vec<Evidence> {
    let percent = |share: f64| 100.0 * share;
    let emerging = found.emerging.as_ref().map(|found| {
        let [low, high] = found.share_ci95;
        Evidence {
            measure: "share of rows in emerging topics".to_owned(),
            estimate: Some(found.share),
            ci95: Some(found.share_ci95),
            n: Some(found.judged_rows),
            exact: found.exact,
            floor: Some(found.smallest_share),
            threshold: Some(policy.max_emerging_share),
            state: match () {
                () if found.groups.is_empty() => AxisState::Ok,
                () if low > policy.max_emerging_share => AxisState::Shifted,
                () if high <= policy.max_emerging_share => AxisState::Ok,
                () => AxisState::Unknown,
            },
            statement: match found.groups.as_slice() {
                [] => format!(
                    "no new topic: no group of {:.1} % of the rows or more lies where the reference has none",
                    percent(found.smallest_share)
                ),
                [first, others @ ..] => format!(
                    "{:.1} % of the rows (95 % interval {:.1} to {:.1} %) are of topics that the reference does not hold: the largest has {:.1} % (such as {}){}",
                    percent(found.share),
                    percent(low.max(0.0)),
                    percent(high),
                    percent(first.share),
                    first.representatives.join(", "),
                    match others.len() {
                        0 => String::new(),
                        n => format!("; {n} more"),
                    }
                ),
            },
        }
    });
    let vanishing = found.vanishing.first().map(|first| {
        let lost: f64 = found.vanishing.iter().map(|v| v.share_reference - v.share_current).sum();
        Evidence {
            measure: "ratio of shares, cluster that vanished most".to_owned(),
            estimate: Some(first.ratio),
            ci95: first.ratio_ci95[0].zip(first.ratio_ci95[1]).map(|(low, high)| [low, high]),
            n: Some(first.n_reference + first.n_current),
            exact: true,
            floor: None,
            threshold: Some(0.5),
            state: if lost > policy.max_emerging_share {
                AxisState::Shifted
            } else {
                AxisState::Ok
            },
            statement: format!(
                "{} of the reference's topics fell to less than half, {:.1} % of the rows in all; the most {} (such as {}), from {:.1} to {:.1} %",
                found.vanishing.len(),
                percent(lost),
                first.name,
                first.representatives.first().map_or("", String::as_str),
                percent(first.share_reference),
                percent(first.share_current)
            ),
        }
    });
    emerging.into_iter().chain(vanishing).collect()
}

/// What new topics change about a decision on samples: they are a shift where nothing else is, and what the
/// corpus lacks where known queries lose or people ask for something else.
pub(super) fn decide(
    decision: (Action, String, String),
    found: &TopicTurnover,
    axes: &[Axis],
    policy: &Policy,
) -> (Action, String, String) {
    let (action, reason, flip) = decision;
    let Some(said) = evidence(found, policy)
        .into_iter()
        .find(|e| e.measure.contains("emerging") && e.state == AxisState::Shifted)
    else {
        return (action, reason, flip);
    };
    let is_broken = |name: AxisName| {
        let mut of_name = axes.iter().filter(|axis| axis.axis == name);
        of_name.any(|axis| axis.state == AxisState::Broken)
    };
    let below = format!(
        "an interval of the share in new topics that reaches down to {:.0} %",
        100.0 * policy.max_emerging_share
    );
    match action {
        Action::NoAction | Action::Monitor
            if is_broken(AxisName::Retrieval) || is_broken(AxisName::Queries) =>
        {
            (
                Action::ReviewCoverage,
                format!("{}, and searches suffer: {reason}", said.statement),
                below,
            )
        }
        Action::NoAction => (
            Action::Monitor,
            format!("{}; of the corpus: {reason}", said.statement),
            below,
        ),
        _ => (action, reason, flip),
    }
}
