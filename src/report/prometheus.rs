//! A run as a Prometheus text file, for node_exporter's textfile collector.

use std::fmt::Write;

use super::run::RunReport;

/// Every measured value with its interval, the gates and the verdict, as gauges.
pub fn prometheus(run: &RunReport<'_>) -> String {
    let mut common = format!("command=\"{}\"", escaped(run.command));
    for input in run.inputs {
        let _ = write!(common, ",{}=\"{}\"", input.role, escaped(&input.source));
    }
    let mut text = String::new();
    let mut family = |name: &str, help: &str, samples: Vec<(String, f64)>| {
        if samples.is_empty() {
            return;
        }
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{{{common}{labels}}} {value}");
        }
    };
    let mut values = Vec::new();
    for measure in run.measures {
        let name = escaped(&measure.name);
        let bounds = measure.ci95.map_or([None; 2], |ci| ci.map(Some));
        for (bound, value) in [
            ("estimate", measure.estimate),
            ("low", bounds[0]),
            ("high", bounds[1]),
        ] {
            let labels = format!(",measure=\"{name}\",bound=\"{bound}\"");
            values.extend(value.map(|value| (labels, value)));
        }
    }
    family(
        "vecdrift_measure",
        "A measured value and the ends of its 95 % interval.",
        values,
    );
    let gates = run.gates.iter().map(|gate| {
        let labels = format!(
            ",gate=\"{}\",outcome=\"{}\"",
            escaped(&gate.gate.text),
            gate.outcome.label()
        );
        (labels, 1.0)
    });
    family(
        "vecdrift_gate",
        "1 for what became of a gate: passed, failed or undecided.",
        gates.collect(),
    );
    if let Some(verdict) = run.verdict {
        let action = format!(",action=\"{}\"", escaped(verdict.action.label()));
        family("vecdrift_verdict", "1 for what to do.", vec![(action, 1.0)]);
        let axes = verdict.axes.iter().map(|axis| {
            let labels = format!(
                ",axis=\"{}\",state=\"{}\"",
                axis.axis.label(),
                axis.state.label()
            );
            (labels, 1.0)
        });
        family(
            "vecdrift_axis",
            "1 for the state of an axis.",
            axes.collect(),
        );
    }
    text
}

/// Text for a label's value.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace(['\n', '\r'], "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_be_left() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
