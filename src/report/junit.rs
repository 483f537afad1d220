//! Gates as JUnit XML: one test case per gate. A failed gate is a failure, an undecided one an error, as that of
//! a test that could not be carried out.

use std::fmt::Write;

use super::run::RunReport;
use crate::audit::gate::GateOutcome;

/// The run as JUnit XML, in the elements and attributes that every reader of it knows.
pub fn junit(run: &RunReport<'_>) -> String {
    let count = |outcome| run.gates.iter().filter(|g| g.outcome == outcome).count();
    let totals = format!(
        "tests=\"{}\" failures=\"{}\" errors=\"{}\"",
        run.gates.len(),
        count(GateOutcome::Failed),
        count(GateOutcome::Undecided)
    );
    let command = escaped(run.command);
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"vecdrift\" {totals}>\n  <testsuite name=\"vecdrift {command}\" {totals} skipped=\"0\">\n    <properties>\n"
    );
    // Writing to a String cannot fail.
    let mut property = |name: &str, value: &str| {
        let _ = writeln!(
            xml,
            "      <property name=\"{}\" value=\"{}\"/>",
            escaped(name),
            escaped(value)
        );
    };
    property("version", env!("CARGO_PKG_VERSION"));
    for input in run.inputs {
        property(&input.role, &input.source);
    }
    if let Some(verdict) = run.verdict {
        property("verdict", verdict.action.label());
        property("reason", &verdict.reason);
    }
    xml.push_str("    </properties>\n");
    for gate in run.gates {
        let _ = write!(
            xml,
            "    <testcase classname=\"vecdrift.{command}\" name=\"{}\" time=\"0\"",
            escaped(&gate.gate.text)
        );
        let element = match gate.outcome {
            GateOutcome::Passed => {
                xml.push_str("/>\n");
                continue;
            }
            GateOutcome::Failed => "failure",
            GateOutcome::Undecided => "error",
        };
        let reason = escaped(&gate.reason);
        let _ = write!(
            xml,
            ">\n      <{element} type=\"gate {}\" message=\"{reason}\">{reason}</{element}>\n    </testcase>\n",
            gate.outcome.label()
        );
    }
    xml.push_str("  </testsuite>\n</testsuites>\n");
    xml
}

/// Text for XML content and attributes, without the characters that XML 1.0 cannot hold.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            '\n' | '\r' | '\t' => safe.push(' '),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_leave_its_place() {
        assert_eq!(
            escaped("a\"><b> & 'c'\u{1b}\u{ffff}\n"),
            "a&quot;&gt;&lt;b&gt; &amp; &apos;c&apos;\u{fffd}\u{fffd} "
        );
    }
}
