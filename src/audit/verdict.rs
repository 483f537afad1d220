//! The judgement: from evidence to axes, from axes to what to do.
//!
//! Effect sizes decide, never p-values alone. Every threshold is policy, not statistics: it stands in
//! [`Policy`], and each piece of evidence prints the one it was held against. Rules are tried from the
//! top; the first that applies wins. What the evidence cannot decide is `unknown`, and an action that
//! would need it is `inconclusive` with what to collect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::measure::{Coordinates, DataFaults, Distribution};
use super::{Churn, NoiseFloor, Pairing, PairingKind, churn, queries, slices};
use crate::metrics::comparability::{Comparability, SpaceRelation};
use crate::metrics::ood::Ood;
use crate::metrics::overlap::Overlap;
use crate::metrics::retrieval::{KnownItems, Retrieval};
use crate::metrics::slices::Slices;

/// Thresholds of the verdict. Defaults are the program's policy; they come from experience with
/// sentence embeddings, not from theory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// Share of rows that may be null, non-finite or zero before data must be fixed first.
    pub max_faulty_share: f64,
    /// Growth of the share of exact duplicates from reference to current that means broken data.
    pub max_duplicate_growth: f64,
    /// Mean paired cosine from which old and new vectors may be mixed.
    pub min_mixable_cosine: f64,
    /// Overlap@10 from which neighbourhoods count as intact.
    pub min_intact_overlap: f64,
    /// Overlap@10 below which they count as broken.
    pub min_similar_overlap: f64,
    /// Share of the noise floor's overlap@10 (`--noise-floor`) from which neighbourhoods count as intact, in
    /// place of `min_intact_overlap`. Paired cosines may lose as much more than the floor's do.
    pub min_share_of_ceiling: f64,
    /// Loss of nDCG@10 that may be ignored.
    pub max_ndcg_loss: f64,
    /// Shift ε_eq (share of the corpus, as if replaced by a foreign topic) that may be ignored.
    pub max_eps_eq: f64,
    /// Shift ε_eq above which coverage must be reviewed, and below which "no shift was found" counts
    /// as an answer.
    pub review_eps_eq: f64,
    /// Share of queries out of distribution, beyond false alarms, that may be ignored.
    pub max_ood_excess: f64,
    /// The same share above which coverage must be reviewed.
    pub review_ood_excess: f64,
    /// Level of the tests, after Holm's correction.
    pub alpha: f64,
    /// Held-out cosine after the best rotation from which an adapter is worth fitting.
    pub min_adapter_cosine: f64,
    /// Share of principal directions that may have moved: by a Kolmogorov–Smirnov distance of 0.1, or by 0.2
    /// standard deviations.
    pub max_moved_directions: f64,
    /// False discovery rate of the search for slices that stand out.
    pub false_discovery_rate: f64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_faulty_share: 0.001,
            max_duplicate_growth: 0.01,
            min_mixable_cosine: 0.99,
            min_intact_overlap: 0.85,
            min_similar_overlap: 0.5,
            min_share_of_ceiling: 0.98,
            max_ndcg_loss: 0.01,
            max_eps_eq: 0.01,
            review_eps_eq: 0.05,
            max_ood_excess: 0.02,
            review_ood_excess: 0.05,
            alpha: 0.01,
            min_adapter_cosine: 0.9,
            max_moved_directions: 0.05,
            false_discovery_rate: 0.05,
        }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Nothing.
    NoAction,
    /// Watch: a real shift, too small or without known harm.
    Monitor,
    /// Repair the data, then audit again.
    FixData,
    /// Set similarity thresholds anew.
    Recalibrate,
    /// Fit an adapter instead of re-embedding.
    Adapter,
    /// Embed and index the whole corpus anew.
    Reindex,
    /// The corpus covers other ground than it did: review what is missing.
    ReviewCoverage,
    /// The current version is worse: stay with the reference.
    DoNotMigrate,
    /// The evidence does not decide; the reasons say what to collect.
    Inconclusive,
}

impl Action {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoAction => "no action",
            Self::Monitor => "monitor",
            Self::FixData => "fix the data first",
            Self::Recalibrate => "recalibrate thresholds",
            Self::Adapter => "fit an adapter",
            Self::Reindex => "re-index",
            Self::ReviewCoverage => "review coverage",
            Self::DoNotMigrate => "do not migrate",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// An independent question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AxisName {
    /// Is the data itself sound?
    Data,
    /// May old and new vectors be mixed?
    Coordinates,
    /// Does every item keep its neighbours?
    Neighbourhoods,
    /// Do known queries still find what they should?
    Retrieval,
    /// Do the sets cover the same ground?
    Distribution,
    /// Do queries ask for what the corpus holds? Only where queries were given.
    Queries,
}

impl AxisName {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Coordinates => "coordinates",
            Self::Neighbourhoods => "neighbourhoods",
            Self::Retrieval => "retrieval",
            Self::Distribution => "distribution",
            Self::Queries => "queries",
        }
    }
}

/// Answer on one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AxisState {
    /// Unchanged, within what policy ignores.
    Ok,
    /// Changed.
    Shifted,
    /// Changed beyond use as before.
    Broken,
    /// Not measured, or not decided.
    Unknown,
}

impl AxisState {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Shifted => "shifted",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        }
    }
}

/// One measured fact behind a state.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Evidence {
    /// The measure, with its estimator.
    pub measure: String,
    /// Its value.
    pub estimate: Option<f64>,
    /// 95 % interval.
    pub ci95: Option<[f64; 2]>,
    /// Rows, items, queries or pairs behind it.
    pub n: Option<u64>,
    /// Whether all of them were used.
    pub exact: bool,
    /// What the measure says between two embeddings of one corpus (`--noise-floor`); for overlap and paired
    /// cosine it is their ceiling.
    pub floor: Option<f64>,
    /// The policy's threshold it was held against, or the noise floor's where that decides.
    pub threshold: Option<f64>,
    /// What that says.
    pub state: AxisState,
    /// In a sentence.
    pub statement: String,
}

/// One axis with its evidence.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Axis {
    /// Which question.
    pub axis: AxisName,
    /// The answer.
    pub state: AxisState,
    /// Why, most important first.
    pub evidence: Vec<Evidence>,
}

/// What to do, and why.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Verdict {
    /// What to do.
    pub action: Action,
    /// Why, in one sentence.
    pub reason: String,
    /// What would change the verdict.
    pub would_flip: String,
    /// The questions and their answers.
    pub axes: Vec<Axis>,
}

/// Everything there is to judge by.
pub(super) struct Findings<'a> {
    pub(super) pairing: &'a Pairing,
    pub(super) comparability: &'a Comparability,
    pub(super) data: &'a DataFaults,
    pub(super) coordinates: Option<&'a Coordinates>,
    pub(super) neighbourhoods: Option<&'a Overlap>,
    pub(super) distribution: Option<&'a Distribution>,
    pub(super) retrieval: Option<&'a Retrieval>,
    pub(super) known_items: Option<&'a KnownItems>,
    pub(super) ood: Option<&'a Ood>,
    pub(super) slices: Option<&'a Slices>,
    pub(super) noise_floor: Option<&'a NoiseFloor>,
    pub(super) churn: Option<&'a Churn>,
}

impl Findings<'_> {
    /// ε_eq between two embeddings of one corpus; 0 where none were given.
    fn eps_floor(&self) -> f64 {
        self.noise_floor.and_then(|f| f.eps_eq).unwrap_or(0.0)
    }
}

/// Judges the findings by the policy.
pub(super) fn judge(findings: &Findings<'_>, policy: &Policy) -> Verdict {
    let mut axes = vec![
        data(findings, policy),
        coordinates(findings, policy),
        neighbourhoods(findings, policy),
        retrieval(findings, policy),
        distribution(findings, policy),
    ];
    let mut decision = decide(findings, &axes, policy);
    let floor = findings.noise_floor.and_then(|f| f.eps_eq);
    let turnover = findings
        .churn
        .and_then(|c| churn::evidence(c, floor, policy));
    let of_samples = axes.iter_mut().filter(|a| a.axis == AxisName::Distribution);
    of_samples.for_each(|axis| axis.evidence.extend(turnover.clone()));
    if let Some(found) = findings.ood {
        let axis = queries::axis(found, policy);
        let paired = findings.pairing.kind == PairingKind::Paired;
        decision = queries::decide(decision, found, &axis, axes[3].state, paired, policy);
        axes.push(axis);
    }
    let (action, mut reason, would_flip) = decision;
    if let Some(found) = findings.slices {
        let evidence = slices::evidence(found, policy);
        if let Some((_, worst)) = evidence.iter().find(|(_, e)| e.state == AxisState::Shifted) {
            reason = format!("{reason}; {}", worst.statement);
        }
        for (name, evidence) in evidence {
            let axis = axes.iter_mut().find(|axis| axis.axis == name);
            axis.into_iter()
                .for_each(|axis| axis.evidence.push(evidence.clone()));
        }
    }
    Verdict {
        action,
        reason,
        would_flip,
        axes,
    }
}

/// The rules, in order.
fn decide(findings: &Findings<'_>, axes: &[Axis], policy: &Policy) -> (Action, String, String) {
    use AxisState::{Broken, Ok, Shifted, Unknown};
    let [data, coordinates, neighbourhoods, retrieval, distribution] =
        [0, 1, 2, 3, 4].map(|i| axes[i].state);
    let first = |axis: usize| {
        let Axis {
            evidence, state, ..
        } = &axes[axis];
        let decisive = evidence.iter().find(|e| e.state == *state);
        decisive.map_or(String::new(), |e| e.statement.clone())
    };
    let decision = |action, reason: String, flip: &str| (action, reason, flip.to_owned());

    if data == Broken {
        return decision(
            Action::FixData,
            format!("the data is faulty before any drift is: {}", first(0)),
            "sound data on both sides; every other axis is judged on the sound rows only",
        );
    }
    if findings.pairing.kind == PairingKind::Paired {
        let rotated = findings.comparability.relation == SpaceRelation::Rotated;
        return match (coordinates, neighbourhoods, retrieval) {
            (_, _, Broken) => decision(
                Action::DoNotMigrate,
                format!("known queries find less than before: {}", first(3)),
                "golden queries whose loss stays within the policy",
            ),
            (Ok, Ok, Ok | Unknown) => decision(
                Action::NoAction,
                "vectors and neighbourhoods are what they were".to_owned(),
                "an overlap@10 or paired cosine below the policy's thresholds",
            ),
            (Broken, Ok, _) if rotated => decision(
                Action::Adapter,
                "the space was rotated but every neighbourhood stayed: old and new vectors must not be mixed, and one linear map brings them together".to_owned(),
                "re-embedding everything on one side, or a rotation that does not hold out of sample",
            ),
            (Ok | Shifted, Ok, _) => decision(
                Action::Recalibrate,
                "neighbourhoods stayed but similarities moved: thresholds set on old scores no longer mean the same".to_owned(),
                "a mean paired cosine above the policy's, or thresholds that are not used",
            ),
            (_, Shifted | Broken, Ok) if coordinates == Broken => decision(
                Action::Reindex,
                "another space in which known queries do as well or better: it takes the whole corpus, embedded anew".to_owned(),
                "golden queries that lose",
            ),
            (_, Shifted | Broken, Ok) => decision(
                Action::Reindex,
                "neighbourhoods changed and known queries do as well or better: mixing old and new vectors would give neither".to_owned(),
                "golden queries that lose",
            ),
            (_, Shifted | Broken, _) => decision(
                Action::Inconclusive,
                if findings.retrieval.is_some() {
                    format!("the geometry changed, and the golden queries do not decide whether retrieval suffers: {}", first(3))
                } else {
                    "the geometry changed; its effect on retrieval is unmeasured".to_owned()
                },
                if findings.retrieval.is_some() {
                    "more golden queries: the evidence says how large an effect these can show"
                } else {
                    "golden queries: --queries-reference, --queries-current and --qrels"
                },
            ),
            _ => decision(
                Action::Inconclusive,
                "the evidence does not decide".to_owned(),
                "more shared items",
            ),
        };
    }
    let large = findings
        .distribution
        .and_then(|d| d.mmd.as_ref()?.effect.ci95)
        .is_some_and(|[low, _]| low > policy.review_eps_eq.max(findings.eps_floor()));
    match distribution {
        Ok => decision(
            Action::NoAction,
            first(4),
            "a shift whose interval lies above the policy's margin",
        ),
        Shifted | Broken if large => decision(
            Action::ReviewCoverage,
            format!("the corpus covers other ground than it did: {}", first(4)),
            "a shift below the policy's review threshold",
        ),
        Shifted | Broken => decision(
            Action::Monitor,
            format!(
                "a real shift; its effect on retrieval is {}: {}",
                match retrieval {
                    Ok => "within the policy",
                    Broken => "a loss",
                    _ => "unmeasured",
                },
                first(4)
            ),
            "golden queries that lose, or a shift above the policy's review threshold",
        ),
        Unknown => decision(
            Action::Inconclusive,
            match findings.distribution {
                Some(_) => format!(
                    "too little data to exclude a shift that matters: {}",
                    first(4)
                ),
                None => format!(
                    "the two sets cannot be compared: {}",
                    findings.comparability.reason
                ),
            },
            if findings.distribution.is_some() {
                "more rows on both sides"
            } else {
                "sets of one space, or shared ids"
            },
        ),
    }
}

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

fn data(findings: &Findings<'_>, policy: &Policy) -> Axis {
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
    let share = |side: &super::SideFaults| side.duplicate_rows as f64 / side.rows.max(1) as f64;
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

/// Sorting key: worst first.
fn severity(state: AxisState) -> u8 {
    match state {
        AxisState::Broken => 0,
        AxisState::Shifted => 1,
        AxisState::Unknown => 2,
        AxisState::Ok => 3,
    }
}

fn coordinates(findings: &Findings<'_>, policy: &Policy) -> Axis {
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
    axis(name, evidence)
}

fn neighbourhoods(findings: &Findings<'_>, policy: &Policy) -> Axis {
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

fn retrieval(findings: &Findings<'_>, policy: &Policy) -> Axis {
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

fn distribution(findings: &Findings<'_>, policy: &Policy) -> Axis {
    let name = AxisName::Distribution;
    let Some(mmd) = findings.distribution.and_then(|d| d.mmd.as_ref()) else {
        return axis(name, not_measured("MMD", &findings.comparability.reason));
    };
    let Some(eps_eq) = mmd.effect.eps_eq else {
        return axis(
            name,
            not_measured(
                "MMD",
                "the effect size is undefined: too few or identical rows",
            ),
        );
    };
    let (lo, hi) = mmd
        .effect
        .ci95
        .map_or((0.0, f64::INFINITY), |[l, h]| (l, h));
    let floor = findings.eps_floor();
    let margin = policy.max_eps_eq.max(floor);
    let significant = mmd.p_value_holm.is_some_and(|p| p <= policy.alpha);
    let state = match () {
        () if significant && lo > margin => AxisState::Shifted,
        // Nothing was found, and nothing above the review threshold can hide.
        () if hi < policy.review_eps_eq.max(floor) && lo <= margin => AxisState::Ok,
        () => AxisState::Unknown,
    };
    let mut evidence = vec![Evidence {
        measure: "shift ε_eq (MMD, share of the corpus as if replaced by a foreign topic)"
            .to_owned(),
        estimate: Some(eps_eq),
        ci95: mmd.effect.ci95,
        n: Some(mmd.n_reference + mmd.n_current),
        exact: mmd.exact,
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
                100.0 * mmd.minimum_detectable.unwrap_or(hi)
            ),
            _ => format!(
                "as if {:.1} % of the corpus had been replaced by a foreign topic (95 % interval {:.1} to {:.1} %)",
                100.0 * eps_eq,
                100.0 * lo,
                100.0 * hi
            ),
        },
    }];
    if let (Some(p), Some(vendi)) = (
        mmd.dispersion_p_value_holm,
        findings.distribution.and_then(|d| d.vendi_ratio),
    ) {
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
