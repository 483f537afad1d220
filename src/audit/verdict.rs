//! The judgement: from evidence to axes, from axes to what to do.
//!
//! Effect sizes decide, never p-values alone. Every threshold is policy, not statistics: it stands in
//! [`Policy`], and each piece of evidence prints the one it was held against. Rules are tried from the
//! top; the first that applies wins. What the evidence cannot decide is `unknown`, and an action that
//! would need it is `inconclusive` with what to collect.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::measure::{Coordinates, DataFaults, Distribution};
use super::{
    Churn, NoiseFloor, Pairing, PairingKind, Sketched, TopicTurnover, churn, concentration, faults,
    queries, slices, topics,
};
use crate::metrics::comparability::{Comparability, SpaceRelation};
use crate::metrics::ood::Ood;
use crate::metrics::overlap::Overlap;
use crate::metrics::retrieval::{KnownItems, Retrieval};
use crate::metrics::slices::Slices;
use crate::metrics::thresholds::Thresholds;

mod axes;

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
    /// Relative change of the share of pairs that pass an old threshold, where it is kept, up to which thresholds
    /// need no recalibration.
    pub max_pass_rate_change: f64,
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
    /// Share of rows in topics that the reference does not hold, or lost with topics that vanished, that may be
    /// ignored.
    pub max_emerging_share: f64,
    /// Share of the drift that one small slice of a column may hold before it is looked at first.
    pub max_slice_drift: f64,
    /// Share of the rows up to which a slice is a small one.
    pub max_culprit_rows: f64,
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
            max_pass_rate_change: 0.2,
            min_intact_overlap: 0.85,
            min_similar_overlap: 0.5,
            min_share_of_ceiling: 0.98,
            max_ndcg_loss: 0.01,
            max_eps_eq: 0.01,
            review_eps_eq: 0.05,
            max_ood_excess: 0.02,
            review_ood_excess: 0.05,
            max_emerging_share: 0.02,
            max_slice_drift: 0.5,
            max_culprit_rows: 0.25,
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
    pub(super) topics: Option<&'a TopicTurnover>,
    pub(super) noise_floor: Option<&'a NoiseFloor>,
    pub(super) churn: Option<&'a Churn>,
    pub(super) sketched: Option<&'a Sketched>,
    pub(super) thresholds: Option<&'a Thresholds>,
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
        axes::data(findings, policy),
        axes::coordinates(findings, policy),
        axes::neighbourhoods(findings, policy),
        axes::retrieval(findings, policy),
        axes::distribution(findings, policy),
    ];
    let concentration = findings
        .slices
        .and_then(|s| concentration::evidence(s, policy));
    axes::add(&mut axes[0], faults::evidence(findings.data, policy));
    axes::add(&mut axes[0], concentration);
    let mut decision = decide(findings, &axes, policy);
    decision = concentration::decide(decision, &axes[0], policy);
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
    if let Some(found) = findings.topics {
        if findings.pairing.kind != PairingKind::Paired {
            decision = topics::decide(decision, found, &axes, policy);
        }
        let of_samples = axes.iter_mut().find(|a| a.axis == AxisName::Distribution);
        of_samples.into_iter().for_each(|axis| {
            axis.evidence.extend(topics::evidence(found, policy));
        });
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
            (Shifted, Ok, Ok | Unknown) if axes::thresholds_hold(findings, policy) => decision(
                Action::Monitor,
                "vectors moved, but neighbourhoods stayed and old thresholds let about as many pairs pass: nothing needs doing as long as old and new vectors are not mixed".to_owned(),
                "a pass rate that changes by more than the policy's, an overlap@10 below it, or golden queries that lose",
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
    let large = axes::Shift::of(findings)
        .and_then(|shift| shift.ci95)
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
