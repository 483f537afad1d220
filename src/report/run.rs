//! What machines are told of a run: gates, measures, verdict.

use super::page::{Column, Page, Table};
use super::value::{State, Value};
use crate::audit::Verdict;
use crate::audit::gate::{GateOutcome, GateResult, Measure};
use crate::output::InputSummary;

/// A run as continuous integration sees it.
#[derive(Debug, Clone, Copy)]
pub struct RunReport<'a> {
    /// The command, e.g. `audit`.
    pub command: &'a str,
    /// What was read.
    pub inputs: &'a [InputSummary],
    /// What to do; only an audit says.
    pub verdict: Option<&'a Verdict>,
    /// Gates and what became of them.
    pub gates: &'a [GateResult],
    /// Every value that a gate can ask for.
    pub measures: &'a [Measure],
}

/// Shows gates first among a page's key numbers.
pub fn show_gates(page: &mut Page, gates: &[GateResult]) {
    if gates.is_empty() {
        return;
    }
    let rows = gates
        .iter()
        .map(|found| {
            let value = match (found.estimate, found.ci95) {
                (None, _) => Value::Missing(None),
                (Some(estimate), None) => Value::Number(estimate),
                (Some(estimate), Some(ci95)) => Value::interval(estimate, ci95),
            };
            let state = match found.outcome {
                GateOutcome::Passed => State::Ok,
                GateOutcome::Failed => State::Broken,
                GateOutcome::Undecided => State::Unknown,
            };
            let label = found.outcome.label().to_owned();
            vec![
                found.gate.text.as_str().into(),
                Value::State { state, label },
                value,
            ]
        })
        .collect();
    let table = Table {
        caption: format!("Gates: {}", GateOutcome::of_all(gates).label()),
        columns: vec![
            Column::left("gate"),
            Column::left("outcome"),
            Column::right("estimate [95 % interval]"),
        ],
        rows,
    };
    page.key_numbers.insert(0, table);
    let undecided = gates.iter().filter(|g| g.outcome == GateOutcome::Undecided);
    page.warnings
        .extend(undecided.map(|g| format!("gate {} is undecided: {}", g.gate.text, g.reason)));
}
