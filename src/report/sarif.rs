//! Gates as SARIF 2.1.0, which code hosts show beside the code.

use serde_json::{Value, json};

use super::run::RunReport;
use crate::audit::gate::GateOutcome;
use crate::{Error, Result};

/// The run as a SARIF log: one rule and one result per gate, at the current input.
///
/// # Errors
/// None that data can cause.
pub fn sarif(run: &RunReport<'_>) -> Result<String> {
    let location = run
        .inputs
        .iter()
        .find(|i| i.role == "current")
        .or(run.inputs.last())
        .map(
            |input| json!({"physicalLocation": {"artifactLocation": {"uri": uri(&input.source)}}}),
        );
    let rules: Vec<Value> = run
        .gates
        .iter()
        .map(|gate| {
            json!({
                "id": gate.gate.text,
                "name": gate.gate.measure,
                "shortDescription": {"text": format!("{} must hold", gate.gate.text)},
            })
        })
        .collect();
    let results: Vec<Value> = run
        .gates
        .iter()
        .enumerate()
        .map(|(index, gate)| {
            // A level other than none is only allowed where the kind is fail.
            let (kind, level) = match gate.outcome {
                GateOutcome::Passed => ("pass", "none"),
                GateOutcome::Failed => ("fail", "error"),
                GateOutcome::Undecided => ("open", "none"),
            };
            let mut result = json!({
                "ruleId": gate.gate.text,
                "ruleIndex": index,
                "kind": kind,
                "level": level,
                "message": {"text": format!("{} {}: {}", gate.gate.text, gate.outcome.label(), gate.reason)},
            });
            if let Some(location) = &location {
                result["locations"] = json!([location]);
            }
            result
        })
        .collect();
    let mut found = json!({
        "tool": {"driver": {
            "name": "vecdrift",
            "semanticVersion": env!("CARGO_PKG_VERSION"),
            "rules": rules,
        }},
        "results": results,
    });
    if let Some(verdict) = run.verdict {
        found["properties"] = json!({
            "verdict": verdict.action,
            "reason": verdict.reason,
        });
    }
    let log = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [found],
    });
    serde_json::to_string_pretty(&log)
        .map(|text| text + "\n")
        .map_err(|e| Error::output("SARIF", e))
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.replace('\\', "/").bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(char::from(byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("a b/ü#x.parquet"), "a%20b/%C3%BC%23x.parquet");
        assert_eq!(uri("data\\new.npy"), "data/new.npy");
    }
}
