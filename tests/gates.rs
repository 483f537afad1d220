//! Gates through the real binary: exit codes, and the files that continuous integration reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use vecdrift::audit::gate::{AUDIT_MEASURES, Measure, audit_measures};
use vecdrift::audit::{self, AuditConfig, GoldenConfig};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Silent};

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
        .display()
        .to_string()
}

fn command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vecdrift"));
    command
        .current_dir(folder)
        .env_remove("GITHUB_STEP_SUMMARY")
        .args(args)
        .args(["--device", "cpu", "--quiet"]);
    command
}

fn run(folder: &Path, args: &[&str]) -> Output {
    command(folder, args).output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Exit code of an audit of two fixtures with gates.
fn audit_code(reference: &str, current: &str, gates: &str) -> Option<i32> {
    let folder = TempDir::new().expect("a folder");
    let (reference, current) = (fixture(reference), fixture(current));
    let args = [
        "audit",
        &reference,
        &current,
        "--gate",
        gates,
        "--permutations",
        "199",
    ];
    run(folder.path(), &args).status.code()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn refused(args: &[&str], message: &str) {
    let folder = TempDir::new().expect("a folder");
    let output = run(folder.path(), args);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
    assert!(output.stdout.is_empty());
    assert!(
        said.contains(message),
        "{args:?}: {said}\nexpected: {message}"
    );
    assert!(files(folder.path()).is_empty(), "{args:?} left files");
}

#[test]
fn exit_codes_tell_passed_failed_and_undecided_apart() {
    // Equal sets meet whatever asks for equality.
    let equal = ["reference.parquet", "reference.parquet"];
    let all = "overlap@10>=0.99,paired_cosine>0.99,eps_eq<0.01,missing_share<=0,overlap@7>=0.99";
    assert_eq!(audit_code(equal[0], equal[1], all), Some(0));
    // A topic came in: ε_eq is well above a hundredth.
    let shifted = ["half_a.parquet", "shifted.parquet"];
    assert_eq!(audit_code(shifted[0], shifted[1], "eps_eq<0.01"), Some(1));
    assert_eq!(audit_code(shifted[0], shifted[1], "eps_eq>0.01"), Some(0));
    // Two halves of one corpus: 400 rows a side cannot show equality to a hundredth.
    let halves = ["half_a.parquet", "half_b.parquet"];
    assert_eq!(audit_code(halves[0], halves[1], "eps_eq<0.01"), Some(3));
    // No golden queries, no shared ids: a missing value is undecided.
    assert_eq!(
        audit_code(halves[0], halves[1], "ndcg@10.loss<0.01"),
        Some(3)
    );
    assert_eq!(audit_code(halves[0], halves[1], "overlap@10>=0.9"), Some(3));
    // One that fails outweighs one that is undecided.
    assert_eq!(
        audit_code(shifted[0], shifted[1], "ndcg@10.loss<0.01,eps_eq<0.01"),
        Some(1)
    );
    // Without a gate a finished audit has done its work.
    assert_eq!(audit_code(shifted[0], shifted[1], ""), Some(0));
}

#[test]
fn the_measuring_commands_have_gates_too() {
    let folder = TempDir::new().expect("a folder");
    let (reference, current) = (fixture("reference.parquet"), fixture("current.parquet"));
    let code = |args: &[&str]| run(folder.path(), args).status.code();
    let both = [reference.as_str(), current.as_str()];
    for (name, gate, expected) in [
        ("overlap", "overlap@10>=0.5", 0),
        ("overlap", "overlap@7>=0.999", 1),
        ("overlap", "overlap@100000>=0.5", 3),
        ("mmd", "mmd.p_value<=0.05", 0),
        ("cosine", "mean<=1,max>0.5", 0),
        ("cosine", "mean>0.99", 1),
        ("cosine", "eps_eq>0.99", 2),
    ] {
        let args = [name, both[0], both[1], "--gate", gate];
        assert_eq!(code(&args), Some(expected), "{args:?}");
    }
}

#[test]
fn what_is_wrong_is_said_before_the_work() {
    let (a, b) = (fixture("half_a.parquet"), fixture("half_b.parquet"));
    refused(
        &["audit", &a, &b, "--gate", "overlap@10"],
        "expected a measure and a threshold",
    );
    refused(
        &["audit", &a, &b, "--gate", "overlp@10>=1"],
        "no measure \"overlp@10\"",
    );
    refused(
        &["audit", &a, &b, "--gate", "eps_eq<small"],
        "\"small\" is no number",
    );
    refused(
        &["audit", &a, &b, "--junit", "no/such/gates.xml"],
        "no such folder",
    );
    refused(
        &["audit", &a, &b, "--policy", "policy.toml"],
        "policy.toml: cannot be read",
    );
    refused(
        &["audit", &a, &b, "--github", "--format", "json"],
        "--github",
    );
}

#[test]
fn a_policy_changes_the_verdict_and_brings_gates() {
    let folder = TempDir::new().expect("a folder");
    let (reference, current) = (fixture("half_a.parquet"), fixture("shifted.parquet"));
    let with = |policy: &str| {
        std::fs::write(folder.path().join("policy.toml"), policy).expect("a file");
        let args = [
            "audit",
            &reference,
            &current,
            "--policy",
            "policy.toml",
            "--format",
            "json",
        ];
        run(folder.path(), &args)
    };
    let action = |output: &Output| {
        let result: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        result["results"]["verdict"]["action"].clone()
    };
    let plain = with("");
    assert_eq!(plain.status.code(), Some(0), "{}", text(&plain.stderr));
    assert_eq!(action(&plain), "review_coverage");
    let lenient = with("gates = \"eps_eq<0.5\"\n[verdict]\nreview_eps_eq = 0.9\n");
    assert_eq!(
        (lenient.status.code(), action(&lenient)),
        (Some(0), "monitor".into())
    );
    let result: Value = serde_json::from_slice(&lenient.stdout).expect("JSON");
    assert_eq!(result["gates"][0]["outcome"], "passed");
    assert_eq!(result["config"]["policy"]["review_eps_eq"], 0.9);
    assert_eq!(
        with("gates = [\"eps_eq<0.5\", \"eps_eq<0.01\"]")
            .status
            .code(),
        Some(1)
    );
    for (policy, message) in [
        (
            "[verdict]\nreview_eps = 0.9\n",
            "line 2: unknown field `review_eps`",
        ),
        ("gate = \"eps_eq<1\"\n", "unknown field `gate`"),
        ("gates = 3\n", "gates must be text or a list of texts"),
        (
            "[verdict]\nalpha = nan\n",
            "alpha is null, expected a number",
        ),
        (
            "[verdict]\nalpha = -1.0\n",
            "alpha is -1.0, expected a number of at least 0",
        ),
        ("[verdict\n", "line 1"),
    ] {
        let output = with(policy);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{policy}: {said}");
        assert!(
            said.contains(message),
            "{policy}: {said}\nexpected: {message}"
        );
    }
}

/// A run with one gate that passes, one that fails and one that is undecided, its input under a name that would
/// break every format that does not escape it.
fn reports() -> (TempDir, Output) {
    let folder = TempDir::new().expect("a folder");
    let current = folder.path().join("a&b \"c\" <d>|é.parquet");
    std::fs::copy(fixture("shifted.parquet"), &current).expect("a copy");
    let reference = fixture("half_a.parquet");
    let output = command(
        folder.path(),
        &[
            "audit",
            &reference,
            "a&b \"c\" <d>|é.parquet",
            "--gate",
            "eps_eq>0.01,eps_eq<0.01",
            "--gate",
            "ndcg@10.loss<0.01",
            "--junit",
            "gates.xml",
            "--sarif",
            "gates.sarif",
            "--prometheus",
            "drift.prom",
            "--markdown",
            "drift.md",
            "--github",
        ],
    )
    .env("GITHUB_STEP_SUMMARY", folder.path().join("summary.md"))
    .output()
    .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    (folder, output)
}

/// Elements of an XML document in order of their start, each with its depth and attributes. Panics where the
/// document is not well formed, as far as gates' files use XML.
fn elements(xml: &str) -> Vec<(usize, String, BTreeMap<String, String>)> {
    let mut open: Vec<String> = Vec::new();
    let mut found = Vec::new();
    let mut rest = xml.trim_start();
    assert!(rest.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"));
    rest = &rest[rest.find("?>").expect("its end") + 2..];
    while let Some(at) = rest.find('<') {
        let content = &rest[..at];
        assert!(!content.contains('>'), "{content}");
        check_entities(content);
        let end = at + rest[at..].find('>').expect("a closed tag");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "tags close in order");
            continue;
        }
        let (tag, empty) = tag
            .strip_suffix('/')
            .map_or((tag, false), |tag| (tag, true));
        let (name, mut rest) = tag.split_once(' ').unwrap_or((tag, ""));
        let mut attributes = BTreeMap::new();
        while let Some((key, value)) = rest.split_once("=\"") {
            let (value, after) = value.split_once('"').expect("a closed attribute");
            assert!(!value.contains('<'));
            check_entities(value);
            let new = attributes.insert(key.trim().to_owned(), value.to_owned());
            assert_eq!(new, None, "an attribute stands once");
            rest = after;
        }
        assert!(rest.trim().is_empty(), "{rest}");
        found.push((open.len(), name.to_owned(), attributes));
        if !empty {
            open.push(name.to_owned());
        }
    }
    assert!(open.is_empty(), "not closed: {open:?}");
    found
}

fn check_entities(text: &str) {
    for (at, _) in text.match_indices('&') {
        let known = ["&amp;", "&lt;", "&gt;", "&quot;", "&apos;"];
        assert!(known.iter().any(|e| text[at..].starts_with(e)), "{text}");
    }
}

/// The elements and attributes that the schema of JUnit XML (as Jenkins and Maven publish it) requires.
#[test]
fn junit_is_well_formed_and_counts_its_cases() {
    let (folder, _) = reports();
    let xml = std::fs::read_to_string(folder.path().join("gates.xml")).expect("a file");
    let elements = elements(&xml);
    let names = |depth: usize| -> Vec<&str> {
        let at = elements.iter().filter(|e| e.0 == depth);
        at.map(|e| e.1.as_str()).collect()
    };
    assert_eq!(names(0), ["testsuites"]);
    assert_eq!(names(1), ["testsuite"]);
    assert_eq!(names(2), ["properties", "testcase", "testcase", "testcase"]);
    for (_, name, attributes) in &elements[..2] {
        let of = |key: &str| attributes.get(key).map(String::as_str);
        assert!(of("name").is_some(), "{name}");
        assert_eq!(
            (of("tests"), of("failures"), of("errors")),
            (Some("3"), Some("1"), Some("1"))
        );
    }
    let cases: Vec<_> = elements.iter().filter(|e| e.1 == "testcase").collect();
    assert!(
        cases
            .iter()
            .all(|c| c.2.contains_key("classname") && c.2.contains_key("time"))
    );
    assert_eq!(cases[0].2["name"], "eps_eq&gt;0.01");
    let failures: Vec<_> = elements.iter().filter(|e| e.1 == "failure").collect();
    assert_eq!(failures.len(), 1);
    assert!(failures[0].2.contains_key("type") && failures[0].2["message"].contains("eps_eq is"));
    assert_eq!(elements.iter().filter(|e| e.1 == "error").count(), 1);
    assert!(xml.contains("a&amp;b &quot;c&quot; &lt;d&gt;|é.parquet"));
}

/// What the schema of SARIF 2.1.0 requires, and what its text adds.
#[test]
fn sarif_has_what_its_schema_requires() {
    let (folder, _) = reports();
    let bytes = std::fs::read(folder.path().join("gates.sarif")).expect("a file");
    let log: Value = serde_json::from_slice(&bytes).expect("JSON");
    assert_eq!(log["version"], "2.1.0");
    assert!(
        log["$schema"]
            .as_str()
            .is_some_and(|s| s.contains("sarif-2.1.0"))
    );
    let run = &log["runs"][0];
    let driver = &run["tool"]["driver"];
    assert_eq!(driver["name"], "vecdrift");
    let rules = driver["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results");
    assert_eq!((rules.len(), results.len()), (3, 3));
    let kinds: Vec<&str> = results.iter().filter_map(|r| r["kind"].as_str()).collect();
    assert_eq!(kinds, ["pass", "fail", "open"]);
    for result in results {
        let index = result["ruleIndex"].as_u64().expect("an index") as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(rules[index]["shortDescription"]["text"].is_string());
        assert!(
            result["message"]["text"]
                .as_str()
                .is_some_and(|t| !t.is_empty())
        );
        // A level other than none belongs to failures alone (section 3.27.10).
        assert_eq!(result["kind"] == "fail", result["level"] == "error");
        assert_eq!(result["kind"] != "fail", result["level"] == "none");
        let uri = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
        assert_eq!(uri, "a%26b%20%22c%22%20%3Cd%3E%7C%C3%A9.parquet");
    }
}

#[test]
fn prometheus_text_has_one_value_per_line() {
    let (folder, _) = reports();
    let prom = std::fs::read_to_string(folder.path().join("drift.prom")).expect("a file");
    let mut family = String::new();
    let mut samples = 0;
    for line in prom.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            family = rest.strip_suffix(" gauge").expect("a gauge").to_owned();
        } else if !line.starts_with("# HELP ") {
            samples += 1;
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(
                series.starts_with(&format!("{family}{{")) && series.ends_with('}'),
                "{line}"
            );
        }
    }
    assert!(samples > 20, "{prom}");
    assert!(prom.contains("measure=\"eps_eq\",bound=\"low\""));
    assert!(prom.contains("gate=\"eps_eq<0.01\",outcome=\"failed\"} 1"));
    assert!(prom.contains("action=\"review coverage\"} 1"));
    assert!(prom.contains("current=\"a&b \\\"c\\\" <d>|é.parquet\""));
    assert!(
        !prom.contains("overlap@K"),
        "what was not measured has no value"
    );
}

#[test]
fn markdown_and_annotations_say_what_the_text_says() {
    let (folder, output) = reports();
    let markdown = std::fs::read_to_string(folder.path().join("drift.md")).expect("a file");
    let summary = std::fs::read_to_string(folder.path().join("summary.md")).expect("a file");
    assert_eq!(summary.trim_end(), markdown.trim_end());
    assert!(markdown.contains("**Review coverage**"), "{markdown}");
    assert!(markdown.contains("### Gates: failed"));
    assert!(markdown.contains("a&amp;b \"c\" &lt;d&gt;\\|é.parquet"));
    // Every row of a table has as many cells as its head.
    let mut width = None;
    for line in markdown.lines() {
        let cells = line.replace("\\|", "").matches('|').count();
        match (line.starts_with('|'), width) {
            (false, _) => width = None,
            (true, None) => width = Some(cells),
            (true, Some(width)) => assert_eq!(cells, width, "{line}"),
        }
    }
    let said = text(&output.stdout);
    let commands: Vec<&str> = said.lines().filter(|l| l.starts_with("::")).collect();
    let levels: Vec<&str> = commands
        .iter()
        .filter_map(|l| l[2..].split(' ').next())
        .collect();
    assert_eq!(levels, ["notice", "notice", "error", "warning"]);
    assert!(
        commands[2].contains("eps_eq<0.01: eps_eq is"),
        "{commands:?}"
    );
    assert!(
        said.contains("95 %25 interval"),
        "a percent sign is escaped in commands"
    );
    // A second command of the same step adds to the summary.
    let halves = [fixture("half_a.parquet"), fixture("half_b.parquet")];
    command(folder.path(), &["mmd", &halves[0], &halves[1], "--github"])
        .env("GITHUB_STEP_SUMMARY", folder.path().join("summary.md"))
        .output()
        .expect("the binary runs");
    let longer = std::fs::read_to_string(folder.path().join("summary.md")).expect("a file");
    assert!(longer.starts_with(&summary) && longer.len() > summary.len());
}

/// The list of names and what is measured are the same, so that no gate asks for what never comes.
#[test]
fn every_measure_that_can_be_named_is_there() {
    let engine = Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .expect("the CPU is there");
    let config = AuditConfig {
        permutations: 99,
        golden: Some(GoldenConfig {
            queries_reference: fixture("queries_reference.parquet"),
            queries_current: fixture("queries_current.parquet"),
            qrels: fixture("qrels.tsv"),
        }),
        ..AuditConfig::new(fixture("reference.parquet"), fixture("current.parquet"))
    };
    let audited = audit::audit(&config, &engine, &Silent).expect("it audits");
    let measures = audit_measures(&audited.audit);
    let has_value = |m: &&Measure| m.estimate.is_some();
    for name in AUDIT_MEASURES {
        let name = name.replace("@K", "@10");
        let found = measures.iter().filter(has_value).filter(|m| m.name == name);
        // 40 queries are too few for an excess rate, and known items are for audits without; see tests/ood.rs.
        let elsewhere = [
            "ood_excess",
            "known_items.recall@10.loss",
            "emerging_share",
            "odd_batches",
        ]
        .contains(&name.as_str());
        assert_eq!(found.count(), usize::from(!elsewhere), "{name}");
    }
    for measure in measures.iter().filter(has_value) {
        let stem = measure.name.split('@').next().unwrap_or_default();
        let known = AUDIT_MEASURES.contains(&measure.name.as_str())
            || AUDIT_MEASURES.contains(&format!("{stem}@K").as_str());
        assert!(known, "{}", measure.name);
        if let (Some(value), Some([low, high])) = (measure.estimate, measure.ci95) {
            assert!(low <= value && value <= high, "{measure:?}");
        }
    }
}
