//! Gates as annotations of a GitHub workflow.

use super::run::RunReport;
use crate::audit::gate::GateOutcome;

/// One workflow command per gate, and one for the verdict: errors for failed gates, warnings for undecided ones.
pub fn github_annotations(run: &RunReport<'_>) -> String {
    let mut lines = Vec::new();
    if let Some(verdict) = run.verdict {
        lines.push(format!(
            "::notice title=vecdrift {}::{}",
            property(run.command),
            data(&format!("{}: {}", verdict.action.label(), verdict.reason))
        ));
    }
    for gate in run.gates {
        let level = match gate.outcome {
            GateOutcome::Passed => "notice",
            GateOutcome::Failed => "error",
            GateOutcome::Undecided => "warning",
        };
        lines.push(format!(
            "::{level} title=vecdrift gate {}::{}",
            gate.outcome.label(),
            data(&format!("{}: {}", gate.gate.text, gate.reason))
        ));
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Text for a command's message.
fn data(text: &str) -> String {
    text.replace('%', "%25")
        .replace('\r', "%0D")
        .replace('\n', "%0A")
}

/// Text for a command's property.
fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_a_command() {
        assert_eq!(data("95 %\n::error::x"), "95 %25%0A::error::x");
        assert_eq!(property("a,b:c"), "a%2Cb%3Ac");
    }
}
