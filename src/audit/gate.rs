//! Gates: a measured value against a threshold, decided with its interval.
//!
//! A gate passes where even the interval's unfavourable end meets the threshold, fails where even the
//! favourable one does not, and is undecided between the two, or where the value is missing: too little data
//! is no pass and no failure. Values without an interval are taken as they are.

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, Result};

mod measures;

pub use measures::{
    AUDIT_MEASURES, COSINE_MEASURES, MMD_MEASURES, Measure, OVERLAP_MEASURES, SERIES_MEASURES,
    audit_measures, cosine_measures, mmd_measures, overlap_measures, series_measures,
};

/// How a value is held against a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub enum Operator {
    /// At least.
    #[serde(rename = ">=")]
    AtLeast,
    /// At most.
    #[serde(rename = "<=")]
    AtMost,
    /// Above.
    #[serde(rename = ">")]
    Above,
    /// Below.
    #[serde(rename = "<")]
    Below,
}

impl Operator {
    /// Longest first, so that `>=` is not read as `>`.
    const ALL: [(&'static str, Self); 4] = [
        (">=", Self::AtLeast),
        ("<=", Self::AtMost),
        (">", Self::Above),
        ("<", Self::Below),
    ];

    fn holds(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::AtLeast => value >= threshold,
            Self::AtMost => value <= threshold,
            Self::Above => value > threshold,
            Self::Below => value < threshold,
        }
    }

    /// The interval's ends as (unfavourable, favourable).
    fn ends(self, [low, high]: [f64; 2]) -> (f64, f64) {
        match self {
            Self::AtLeast | Self::Above => (low, high),
            Self::AtMost | Self::Below => (high, low),
        }
    }
}

/// A requirement: `overlap@10>=0.9`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Gate {
    /// As it was written, without spaces.
    pub text: String,
    /// The measure's name.
    pub measure: String,
    /// How it is held against the threshold.
    pub operator: Operator,
    /// The threshold.
    pub threshold: f64,
}

impl Gate {
    /// Reads gates separated by commas, and refuses measures that are not among `known`, in which `@K` stands
    /// for any whole number.
    ///
    /// # Errors
    /// A gate of another form, or an unknown measure.
    pub fn parse_list(text: &str, known: &[&str]) -> Result<Vec<Self>> {
        text.split(',')
            .map(str::trim)
            .filter(|gate| !gate.is_empty())
            .map(|gate| Self::parse(gate, known))
            .collect()
    }

    fn parse(text: &str, known: &[&str]) -> Result<Self> {
        let refuse = |fact: String| Error::input(format!("--gate \"{text}\""), fact);
        let found = Operator::ALL
            .into_iter()
            .filter_map(|(sign, operator)| Some((text.split_once(sign)?, sign, operator)))
            .min_by_key(|((measure, _), ..)| measure.len());
        let Some(((measure, threshold), sign, operator)) = found else {
            return Err(
                refuse("no >=, <=, > or <, expected a measure and a threshold".to_owned())
                    .hint("e.g. --gate \"overlap@10>=0.9,eps_eq<0.01\""),
            );
        };
        let (measure, threshold) = (measure.trim(), threshold.trim());
        let value = threshold.parse::<f64>().ok().filter(|v| v.is_finite());
        let Some(value) = value else {
            return Err(refuse(format!("\"{threshold}\" is no number")));
        };
        if !known.iter().any(|name| names(name, measure)) {
            return Err(refuse(format!("no measure \"{measure}\""))
                .hint(format!("the measures are: {}", known.join(", "))));
        }
        Ok(Self {
            text: format!("{measure}{sign}{threshold}"),
            measure: measure.to_owned(),
            operator,
            threshold: value,
        })
    }

    /// The K of a measure `stem@K`.
    pub fn list_length(&self, stem: &str) -> Option<usize> {
        let (name, k) = self.measure.split_once('@')?;
        (name == stem).then(|| k.parse().ok()).flatten()
    }

    /// Holds the gate against what was measured.
    pub fn judge(&self, measures: &[Measure]) -> GateResult {
        let found = measures
            .iter()
            .find(|m| m.name == self.measure)
            .or_else(|| measures.iter().find(|m| names(&m.name, &self.measure)));
        let (estimate, ci95) = found.map_or((None, None), |m| (m.estimate, m.ci95));
        let result = |outcome, reason| GateResult {
            gate: self.clone(),
            outcome,
            estimate,
            ci95,
            reason,
        };
        let Some(value) = estimate else {
            let why = found
                .and_then(|m| m.missing.clone())
                .unwrap_or_else(|| "it was not measured".to_owned());
            return result(
                GateOutcome::Undecided,
                format!("{} has no value: {why}", self.measure),
            );
        };
        let (worst, best) = self.operator.ends(ci95.unwrap_or([value, value]));
        let outcome = match () {
            () if self.operator.holds(worst, self.threshold) => GateOutcome::Passed,
            () if !self.operator.holds(best, self.threshold) => GateOutcome::Failed,
            () => GateOutcome::Undecided,
        };
        let shown = match ci95 {
            Some([low, high]) => format!(
                "{} is {} (95 % interval {} to {})",
                self.measure,
                short(value),
                short(low),
                short(high)
            ),
            None => format!("{} is {}", self.measure, short(value)),
        };
        let reason = match outcome {
            GateOutcome::Undecided => {
                format!("{shown}: the interval holds the threshold, more data would decide")
            }
            _ => shown,
        };
        result(outcome, reason)
    }
}

/// Whether a known name, in which `@K` stands for any positive whole number, means `measure`.
fn names(known: &str, measure: &str) -> bool {
    match known.strip_suffix("@K") {
        None => known == measure,
        Some(stem) => measure
            .strip_prefix(stem)
            .and_then(|rest| rest.strip_prefix('@'))
            .is_some_and(|k| {
                k.parse::<usize>()
                    .is_ok_and(|k| k > 0 && !measure.contains("@0"))
            }),
    }
}

/// Five significant digits at most.
fn short(value: f64) -> String {
    let exponent = value.abs().max(f64::MIN_POSITIVE).log10().floor() as i32;
    if value != 0.0 && !(-4..6).contains(&exponent) {
        return format!("{value:.3e}");
    }
    let text = format!("{value:.*}", (4 - exponent).clamp(0, 6) as usize);
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// What became of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GateOutcome {
    /// Even the interval's unfavourable end meets the threshold.
    Passed,
    /// Not even the favourable end does.
    Failed,
    /// The interval holds the threshold, or there is no value.
    Undecided,
}

impl GateOutcome {
    /// In a word.
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Undecided => "undecided",
        }
    }

    /// Of several gates: failed if one is, else undecided if one is.
    pub fn of_all(results: &[GateResult]) -> Self {
        [Self::Failed, Self::Undecided]
            .into_iter()
            .find(|&outcome| results.iter().any(|r| r.outcome == outcome))
            .unwrap_or(Self::Passed)
    }
}

/// A gate and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct GateResult {
    /// The requirement.
    #[serde(flatten)]
    pub gate: Gate,
    /// What became of it.
    pub outcome: GateOutcome,
    /// The value.
    pub estimate: Option<f64>,
    /// Its 95 % interval; `null` where it has none.
    pub ci95: Option<[f64; 2]>,
    /// Why, in one sentence.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["overlap@K", "eps_eq", "ndcg@10.loss"];

    fn gate(text: &str) -> Gate {
        Gate::parse_list(text, &KNOWN).unwrap().remove(0)
    }

    #[test]
    fn gates_are_read() {
        let gates =
            Gate::parse_list("overlap@10 >= 0.9, eps_eq<1e-2,ndcg@10.loss<=0.01,", &KNOWN).unwrap();
        let texts: Vec<&str> = gates.iter().map(|g| g.text.as_str()).collect();
        assert_eq!(
            texts,
            ["overlap@10>=0.9", "eps_eq<1e-2", "ndcg@10.loss<=0.01"]
        );
        assert_eq!(gates[0].operator, Operator::AtLeast);
        assert_eq!(gates[0].list_length("overlap"), Some(10));
        assert_eq!(gates[2].list_length("overlap"), None);
        for (text, message) in [
            ("overlap@10", "no >="),
            ("overlap@10>=high", "no number"),
            ("overlap@10>=nan", "no number"),
            ("overlap@0>=0.9", "no measure"),
            ("overlap>=0.9", "no measure"),
            ("ndcg@5.loss<0.1", "no measure"),
        ] {
            let error = Gate::parse_list(text, &KNOWN).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.is_input());
        }
    }

    #[test]
    fn the_unfavourable_end_must_pass_and_the_favourable_must_fail() {
        let with = |text: &str, estimate, ci95| {
            let measure = Measure {
                name: "eps_eq".to_owned(),
                estimate,
                ci95,
                missing: None,
            };
            gate(text).judge(&[measure]).outcome
        };
        use GateOutcome::{Failed, Passed, Undecided};
        for (text, ci95, outcome) in [
            ("eps_eq<0.01", [0.001, 0.009], Passed),
            ("eps_eq<0.01", [0.001, 0.01], Undecided),
            ("eps_eq<=0.01", [0.001, 0.01], Passed),
            ("eps_eq<0.01", [0.01, 0.02], Failed),
            ("eps_eq<=0.01", [0.01, 0.02], Undecided),
            ("eps_eq>=0.9", [0.9, 0.95], Passed),
            ("eps_eq>0.9", [0.9, 0.95], Undecided),
            ("eps_eq>=0.9", [0.8, 0.9], Undecided),
            ("eps_eq>0.9", [0.8, 0.9], Failed),
        ] {
            let middle = Some((ci95[0] + ci95[1]) / 2.0);
            assert_eq!(with(text, middle, Some(ci95)), outcome, "{text} {ci95:?}");
        }
        assert_eq!(with("eps_eq<0.01", Some(0.005), None), Passed);
        assert_eq!(with("eps_eq<0.01", Some(0.01), None), Failed);
        assert_eq!(with("eps_eq<0.01", None, None), Undecided);
        assert_eq!(gate("overlap@10>=0.9").judge(&[]).outcome, Undecided);
    }

    #[test]
    fn the_worst_outcome_counts() {
        let of = |outcomes: &[GateOutcome]| {
            let results: Vec<GateResult> = outcomes
                .iter()
                .map(|&outcome| GateResult {
                    outcome,
                    ..gate("eps_eq<1").judge(&[])
                })
                .collect();
            GateOutcome::of_all(&results)
        };
        use GateOutcome::{Failed, Passed, Undecided};
        assert_eq!(of(&[]), Passed);
        assert_eq!(of(&[Passed, Undecided]), Undecided);
        assert_eq!(of(&[Undecided, Failed, Passed]), Failed);
    }

    #[test]
    fn numbers_in_reasons_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.9, "0.9"),
            (0.123456789, "0.12346"),
            (12.5, "12.5"),
            (-0.02, "-0.02"),
            (1e-9, "1.000e-9"),
            (120_000.0, "120000"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
