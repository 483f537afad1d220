//! From findings to the answer on each axis: which facts count, what they are held against, in words.

use super::super::{PairingKind, SideFaults, queries};
use super::{Axis, AxisName, AxisState, Evidence, Findings, Policy};
use crate::metrics::comparability::SpaceRelation;
use crate::metrics::thresholds::{ThresholdRow, Thresholds};

/// Worst of the evidence's states: broken, then shifted, then unknown, then ok.
fn worst(evidence: &[Evidence]) -> AxisState {
    [AxisState::Broken, AxisState::Shifted, AxisState::Unknown]
        .into_iter()
        .find(|&state| evidence.iter().any(|e| e.state == state))
        .unwrap_or(if evidence.is_empty() {
            AxisState::Unknown
        } else {
            AxisState::Ok
        })
}

fn axis(axis: AxisName, evidence: Vec<Evidence>) -> Axis {
    Axis {
        axis,
        state: worst(&evidence),
        evidence,
    }
}

/// Adds to an axis what can only be known once it is there.
pub(super) fn add(axis: &mut Axis, evidence: impl IntoIterator<Item = Evidence>) {
    axis.evidence.extend(evidence);
    axis.evidence.sort_by_key(|e| severity(e.state));
    axis.state = worst(&axis.evidence);
}

/// A fact without an interval.
fn fact(
    measure: &str,
    estimate: Option<f64>,
    n: u64,
    threshold: Option<f64>,
    state: AxisState,
    statement: String,
) -> Evidence {
    Evidence {
        measure: measure.to_owned(),
        estimate,
        ci95: None,
        n: Some(n),
        exact: true,
        floor: None,
        threshold,
        state,
        statement,
    }
}

fn not_measured(measure: &str, statement: &str) -> Vec<Evidence> {
    vec![Evidence {
        measure: measure.to_owned(),
        estimate: None,
        ci95: None,
        n: None,
        exact: false,
        floor: None,
        threshold: None,
        state: AxisState::Unknown,
        statement: statement.to_owned(),
    }]
}

pub(super) fn data(findings: &Findings<'_>, policy: &Policy) -> Axis {
    let mut evidence = Vec::new();
    let data = findings.data;
    for (name, side) in [("reference", &data.reference), ("current", &data.current)] {
        let share = side.faulty_rows as f64 / side.rows.max(1) as f64;
        let state = match share {
            0.0 => AxisState::Ok,
            s if s > policy.max_faulty_share => AxisState::Broken,
            _ => AxisState::Shifted,
        };
        evidence.push(fact(
            &format!("share of null, non-finite and zero rows, {name}"),
            Some(share),
            side.rows,
            Some(policy.max_faulty_share),
            state,
            match side.faulty_rows {
                0 => format!("every {name} row is usable"),
                rows => format!(
                    "{rows} of {} {name} rows are null, non-finite or zero",
                    side.rows
                ),
            },
        ));
    }
    for (name, side) in [("reference", &data.reference), ("current", &data.current)] {
        evidence.extend(mixed_spaces(name, side));
    }
    let share = |side: &SideFaults| side.duplicate_rows as f64 / side.rows.max(1) as f64;
    let growth = share(&data.current) - share(&data.reference);
    evidence.push(fact(
        "growth of the share of exact duplicates",
        Some(growth),
        data.current.rows,
        Some(policy.max_duplicate_growth),
        if growth > policy.max_duplicate_growth {
            AxisState::Broken
        } else {
            AxisState::Ok
        },
        format!(
            "{} reference and {} current rows repeat an earlier one exactly",
            data.reference.duplicate_rows, data.current.duplicate_rows
        ),
    ));
    let new_constant: Vec<usize> = data
        .current
        .constant_dimensions
        .iter()
        .filter(|d| !data.reference.constant_dimensions.contains(d))
        .copied()
        .collect();
    if data.reference.dim == data.current.dim {
        evidence.push(fact(
            "coordinates that became constant",
            Some(new_constant.len() as f64),
            data.current.dim as u64,
            Some(0.0),
            if new_constant.is_empty() {
                AxisState::Ok
            } else {
                AxisState::Shifted
            },
            format!(
                "{} of {} coordinates no longer vary",
                new_constant.len(),
                data.current.dim
            ),
        ));
    }
    let missing = findings.pairing.only_reference;
    if findings.pairing.kind == PairingKind::Paired {
        evidence.push(fact(
            "share of reference ids missing from current",
            Some(missing as f64 / (missing + findings.pairing.shared) as f64),
            missing + findings.pairing.shared,
            Some(0.0),
            if missing == 0 {
                AxisState::Ok
            } else {
                AxisState::Shifted
            },
            format!(
                "{missing} reference ids are missing from current, {} are new",
                findings.pairing.only_current
            ),
        ));
    }
    if let Some(distribution) = findings.distribution
        && let Some(collapse) = &distribution.collapse
        && collapse.is_flagged(policy.alpha)
    {
        let [before, after] = collapse.near_duplicate_share.map(|share| 100.0 * share);
        evidence.push(fact(
            "collapse: ratio of Vendi scores, with mean cosine, near-duplicates and the dispersion test",
            collapse.vendi_ratio,
            distribution.rows[0] + distribution.rows[1],
            None,
            AxisState::Broken,
            format!(
                "the current vectors crowd together: the mean cosine of random pairs rose by {:.3}, pairs above 0.95 from {before:.3} to {after:.3} %, and diversity fell to {:.2} of what it was",
                collapse.mean_cosine_rise.unwrap_or(0.0),
                collapse.vendi_ratio.unwrap_or(0.0),
            ),
        ));
    }
    evidence.sort_by_key(|e| severity(e.state));
    axis(AxisName::Data, evidence)
}

/// Whether a set holds rows of another vector space.
fn mixed_spaces(name: &str, side: &SideFaults) -> Option<Evidence> {
    let found = side.mixed_spaces.as_ref()?;
    let (state, statement) = match found.foreign_ids.as_slice() {
        [] => (
            AxisState::Ok,
            format!("no group of {name} rows lies in another vector space"),
        ),
        [first, ..] => (
            AxisState::Broken,
            format!(
                "{} of {} {name} rows ({:.1} %, first \"{first}\") lie in another vector space: another model or pipeline made them; embed them again with the others' (all are named in result.json)",
                found.foreign_rows,
                found.rows,
                100.0 * found.foreign_share
            ),
        ),
    };
    Some(fact(
        &format!("share of rows from another vector space, {name}"),
        Some(found.foreign_share),
        found.rows,
        Some(0.0),
        state,
        statement,
    ))
}

/// Sorting key: worst first.
fn severity(state: AxisState) -> u8 {
    match state {
        AxisState::Broken => 0,
        AxisState::Shifted => 1,
        AxisState::Unknown => 2,
        AxisState::Ok => 3,
    }
}

pub(super) fn coordinates(findings: &Findings<'_>, policy: &Policy) -> Axis {
    let name = AxisName::Coordinates;
    let Some(found) = findings.coordinates else {
        return axis(
            name,
            not_measured(
                "paired cosine",
                "no shared ids: whether one item has one vector cannot be asked",
            ),
        );
    };
    let comparability = findings.comparability;
    let mut evidence = Vec::new();
    match &found.paired_cosine {
        None => evidence.push(fact(
            "dimension",
            None,
            findings.pairing.shared,
            None,
            AxisState::Broken,
            format!(
                "dimensions differ ({} and {}): old and new vectors cannot be mixed",
                findings.data.reference.dim, findings.data.current.dim
            ),
        )),
        Some(paired) => {
            let mean = paired.mean.unwrap_or(0.0);
            let floor = findings.noise_floor.and_then(|f| f.paired_cosine_mean);
            // What one model does to itself is no reason not to mix.
            let by_floor = floor.map_or(1.0, |f| 1.0 - (1.0 - f) / policy.min_share_of_ceiling);
            let mixable = policy.min_mixable_cosine.min(by_floor);
            let state = match comparability.relation {
                SpaceRelation::Same | SpaceRelation::AssumedSame => {
                    if mean >= mixable {
                        AxisState::Ok
                    } else {
                        AxisState::Shifted
                    }
                }
                _ => AxisState::Broken,
            };
            let statement = match state {
                AxisState::Broken => format!(
                    "an item's old and new vectors are unrelated (mean cosine {mean:.3}): never mix them"
                ),
                AxisState::Ok => format!(
                    "an item's old and new vectors agree (mean cosine {mean:.4}): they may be mixed"
                ),
                _ => format!(
                    "an item's old and new vectors differ (mean cosine {mean:.3}, 5th percentile {:.3}): mixing them costs accuracy",
                    paired.p05.unwrap_or(mean)
                ),
            };
            let mut mixing = fact(
                "mean cosine between an item's two vectors",
                paired.mean,
                findings.pairing.shared,
                Some(mixable),
                state,
                statement,
            );
            mixing.floor = floor;
            evidence.push(mixing);
        }
    }
    if let Some(heldout) = found.procrustes.as_ref().and_then(|p| p.heldout.as_ref()) {
        let cosine = heldout.heldout_mean_cosine;
        evidence.push(fact(
            "mean cosine after the best rotation, held out",
            Some(cosine),
            heldout.heldout_pairs as u64,
            Some(policy.min_adapter_cosine),
            // A rotation that fits explains a broken axis; it is no second fault.
            evidence[0].state,
            format!(
                "{} rotation brings them together (mean cosine {cosine:.3} on items it was not fitted to)",
                if cosine >= policy.min_adapter_cosine { "one" } else { "no" }
            ),
        ));
    }
    evidence.extend(pass_rate(findings, evidence[0].state, policy));
    axis(name, evidence)
}

/// Pairs that must pass an old threshold for its change to count: a tenth of them may be chance otherwise.
const COUNTED_PAIRS: u64 = 1_000;

/// The old threshold whose pass rate changes most if it is kept, and by what share.
fn most_changed(found: &Thresholds) -> Option<(&ThresholdRow, f64)> {
    let change = |row: &ThresholdRow| row.pass_rate_if_kept / row.pass_rate - 1.0;
    let rows = found
        .table
        .iter()
        .filter(|row| row.passing >= COUNTED_PAIRS);
    rows.map(|row| (row, change(row)))
        .max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))
}

/// Whether thresholds were looked at and none needs recalibration.
pub(super) fn thresholds_hold(findings: &Findings<'_>, policy: &Policy) -> bool {
    let most = findings.thresholds.and_then(most_changed);
    most.is_some_and(|(_, change)| change.abs() <= policy.max_pass_rate_change)
}

/// What becomes of old thresholds: of vectors that agree (`vectors`) it is no fault.
fn pass_rate(findings: &Findings<'_>, vectors: AxisState, policy: &Policy) -> Option<Evidence> {
    let found = findings.thresholds?;
    let (row, change) = most_changed(found)?;
    let holds = thresholds_hold(findings, policy);
    Some(Evidence {
        exact: found.exact,
        ..fact(
            "relative change of the pass rate of an old threshold that is kept, the largest",
            Some(change),
            found.pairs,
            Some(policy.max_pass_rate_change),
            if holds { AxisState::Ok } else { vectors },
            format!(
                "old thresholds {}: {:.0} % {} pairs pass {}",
                if holds { "hold" } else { "mean something else" },
                100.0 * change.abs(),
                if change < 0.0 { "fewer" } else { "more" },
                row.old
            ),
        )
    })
}

pub(super) fn neighbourhoods(findings: &Findings<'_>, policy: &Policy) -> Axis {
    let name = AxisName::Neighbourhoods;
    let Some(found) = findings.neighbourhoods else {
        return axis(
            name,
            not_measured(
                "neighbourhood overlap",
                "no shared ids: neighbours cannot be compared item by item",
            ),
        );
    };
    let ceiling = findings.noise_floor.and_then(|f| f.overlap_at(found.k));
    let intact = ceiling.map_or(policy.min_intact_overlap, |o| {
        policy.min_share_of_ceiling * o
    });
    let similar = policy.min_similar_overlap.min(intact);
    let state = match found.overlap.mean {
        o if o >= intact => AxisState::Ok,
        o if o >= similar => AxisState::Shifted,
        _ => AxisState::Broken,
    };
    let mut evidence = vec![Evidence {
        measure: format!("mean overlap@{}", found.k),
        estimate: Some(found.overlap.mean),
        ci95: found.overlap.ci95,
        n: Some(found.items as u64),
        exact: found.exact,
        floor: ceiling,
        threshold: Some(match state {
            AxisState::Broken => similar,
            _ => intact,
        }),
        state,
        statement: format!(
            "items keep {:.1} % of their {} nearest neighbours (chance: {:.2} %{})",
            100.0 * found.overlap.mean,
            found.k,
            100.0 * found.chance_hub_aware,
            ceiling.map_or(String::new(), |o| format!(
                ", one corpus embedded twice: {:.1} %",
                100.0 * o
            ))
        ),
    }];
    evidence.push(fact(
        "share of items that keep less than half",
        Some(found.overlap.share_below_half),
        found.items as u64,
        None,
        state,
        format!(
            "{:.1} % of items keep less than half of theirs",
            100.0 * found.overlap.share_below_half
        ),
    ));
    axis(name, evidence)
}

/// The metric of the retrieval axis.
const HEADLINE_METRIC: &str = "ndcg_at_10";

pub(super) fn retrieval(findings: &Findings<'_>, policy: &Policy) -> Axis {
    let name = AxisName::Retrieval;
    let Some(found) = findings.retrieval else {
        let mut evidence = not_measured(
            "golden queries",
            "no golden queries: give --queries-reference, --queries-current and --qrels",
        );
        evidence.extend(findings.known_items.and_then(queries::known_item_evidence));
        return axis(name, evidence);
    };
    let Some(ndcg) = found.metrics.iter().find(|m| m.metric == HEADLINE_METRIC) else {
        return axis(
            name,
            not_measured("golden queries", "no query has a relevant document"),
        );
    };
    let (lo, hi) = ndcg
        .difference
        .ci95
        .map_or((f64::NEG_INFINITY, f64::INFINITY), |[l, h]| (l, h));
    let margin = policy.max_ndcg_loss;
    let (state, words) = match () {
        () if lo > -margin => (
            AxisState::Ok,
            if lo > 0.0 {
                "a gain"
            } else {
                "no loss that matters"
            },
        ),
        () if hi < 0.0 && ndcg.difference.mean < -margin => (AxisState::Broken, "a loss"),
        () => (AxisState::Unknown, "undecided"),
    };
    let flips = &found.flips;
    let flipped = Evidence {
        measure: format!(
            "share of queries that found something in their first {} and no longer do",
            flips.k
        ),
        estimate: Some(flips.negative_share),
        ci95: Some(flips.negative_share_ci95),
        n: Some(found.queries as u64),
        exact: true,
        floor: None,
        threshold: None,
        // It says who loses; whether retrieval does is the mean's to say.
        state,
        statement: format!(
            "{} of {} queries find nothing relevant in their first {} any more, {} do only now",
            flips.negative, found.queries, flips.k, flips.positive
        ),
    };
    let power = match (state, ndcg.difference.minimum_detectable) {
        (AxisState::Unknown, Some(smallest)) => {
            format!("; this many queries show changes from {smallest:.3}")
        }
        _ => String::new(),
    };
    axis(
        name,
        vec![
            Evidence {
                measure: "change of nDCG@10 over golden queries".to_owned(),
                estimate: Some(ndcg.difference.mean),
                ci95: ndcg.difference.ci95,
                n: Some(found.queries as u64),
                exact: true,
                floor: None,
                threshold: Some(-margin),
                state,
                statement: format!(
                    "nDCG@10 went from {:.3} to {:.3}, {words} ({:+.3}, 95 % interval {lo:+.3} to {hi:+.3}, {} queries){power}",
                    ndcg.reference, ndcg.current, ndcg.difference.mean, found.queries
                ),
            },
            flipped,
        ],
    )
}

/// The shift of the distribution, from the best that there is of it.
pub(super) struct Shift {
    estimator: &'static str,
    eps_eq: Option<f64>,
    pub(super) ci95: Option<[f64; 2]>,
    p_value: Option<f64>,
    n: u64,
    exact: bool,
    minimum_detectable: Option<f64>,
}

impl Shift {
    /// Of sketches, which are of all rows, before that of their landmarks.
    pub(super) fn of(findings: &Findings<'_>) -> Option<Self> {
        if let Some(mmd) = findings.sketched.and_then(|s| s.mmd.as_ref()) {
            return Some(Self {
                estimator: "MMD of sketches of all rows",
                eps_eq: mmd.effect.eps_eq,
                ci95: mmd.effect.ci95,
                p_value: Some(mmd.p_value),
                n: mmd.n_reference + mmd.n_current,
                exact: false,
                minimum_detectable: mmd.minimum_detectable,
            });
        }
        let mmd = findings.distribution?.mmd.as_ref()?;
        Some(Self {
            estimator: "MMD",
            eps_eq: mmd.effect.eps_eq,
            ci95: mmd.effect.ci95,
            p_value: mmd.p_value_holm,
            n: mmd.n_reference + mmd.n_current,
            exact: mmd.exact,
            minimum_detectable: mmd.minimum_detectable,
        })
    }
}

pub(super) fn distribution(findings: &Findings<'_>, policy: &Policy) -> Axis {
    let name = AxisName::Distribution;
    let mmd = findings.distribution.and_then(|d| d.mmd.as_ref());
    let Some(shift) = Shift::of(findings) else {
        return axis(name, not_measured("MMD", &findings.comparability.reason));
    };
    let Some(eps_eq) = shift.eps_eq else {
        return axis(
            name,
            not_measured(
                "MMD",
                "the effect size is undefined: too few or identical rows",
            ),
        );
    };
    let (lo, hi) = shift.ci95.map_or((0.0, f64::INFINITY), |[l, h]| (l, h));
    let floor = findings.eps_floor();
    let margin = policy.max_eps_eq.max(floor);
    let significant = shift.p_value.is_some_and(|p| p <= policy.alpha);
    let state = match () {
        () if significant && lo > margin => AxisState::Shifted,
        // Nothing was found, and nothing above the review threshold can hide.
        () if hi < policy.review_eps_eq.max(floor) && lo <= margin => AxisState::Ok,
        () => AxisState::Unknown,
    };
    let mut evidence = vec![Evidence {
        measure: format!(
            "shift ε_eq ({}, share of the corpus as if replaced by a foreign topic)",
            shift.estimator
        ),
        estimate: Some(eps_eq),
        ci95: shift.ci95,
        n: Some(shift.n),
        exact: shift.exact,
        floor: findings.noise_floor.and_then(|f| f.eps_eq),
        threshold: Some(margin),
        state,
        statement: match state {
            AxisState::Ok => format!(
                "no shift that matters: at most {:.1} % of the corpus may as well have been replaced by a foreign topic (estimate {:.1} %)",
                100.0 * hi,
                100.0 * eps_eq
            ),
            AxisState::Unknown => format!(
                "undecided: between {:.1} and {:.1} % of the corpus, as if replaced by a foreign topic; this much data shows shifts from {:.1} %",
                100.0 * lo,
                100.0 * hi,
                100.0 * shift.minimum_detectable.unwrap_or(hi)
            ),
            _ => format!(
                "as if {:.1} % of the corpus had been replaced by a foreign topic (95 % interval {:.1} to {:.1} %)",
                100.0 * eps_eq,
                100.0 * lo,
                100.0 * hi
            ),
        },
    }];
    if let Some(mmd) = mmd
        && let (Some(p), Some(vendi)) = (
            mmd.dispersion_p_value_holm,
            findings.distribution.and_then(|d| d.vendi_ratio),
        )
    {
        let moved = p <= policy.alpha && !(0.95..=1.05).contains(&vendi);
        evidence.push(fact(
            "ratio of Vendi scores, current to reference",
            Some(vendi),
            mmd.n_reference + mmd.n_current,
            None,
            if moved {
                AxisState::Shifted
            } else {
                AxisState::Ok
            },
            format!(
                "diversity {} (ratio of Vendi scores {vendi:.3})",
                if moved { "changed" } else { "stayed" }
            ),
        ));
    }
    if let Some(drift) = findings.distribution.and_then(|d| d.axes.as_ref())
        && let Some(found) = &drift.principal_directions
    {
        let far = found.moved_share > policy.max_moved_directions;
        evidence.push(Evidence {
            exact: drift.exact,
            ..fact(
                "share of the reference's principal directions that moved (KS ≥ 0.1 or W1 ≥ 0.2 sd)",
                Some(found.moved_share),
                drift.rows[0] + drift.rows[1],
                Some(policy.max_moved_directions),
                if far { AxisState::Shifted } else { AxisState::Ok },
                format!(
                    "{} of {} principal directions and {} of {} coordinates moved far enough to matter",
                    found.moved, found.axes, drift.coordinates.moved, drift.coordinates.axes
                ),
            )
        });
    }
    axis(name, evidence)
}
