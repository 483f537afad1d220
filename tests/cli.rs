//! The command line through the real binary: what it prints, what it leaves behind, how it exits.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
        .display()
        .to_string()
}

/// Runs the binary in an empty folder, on the CPU unless the arguments say otherwise.
fn run_in(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vecdrift"));
    command.current_dir(folder).args(args);
    // Mesa's loader complains on stderr where a desktop session is missing.
    command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    if !args.contains(&"--device") && !args.is_empty() && !args.contains(&"--help") {
        command.args(["--device", "cpu"]);
    }
    command.output().expect("the binary runs")
}

fn run(args: &[&str]) -> (TempDir, Output) {
    let folder = TempDir::new().expect("a temporary folder");
    let output = run_in(folder.path(), args);
    (folder, output)
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

fn json(args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.extend(["--format", "json"]);
    let (_folder, output) = run(&args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("one JSON object on stdout")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

/// Exit code 2, one line of error, perhaps a hint, nothing on stdout, nothing left behind.
fn assert_refused(args: &[&str], message: &str) {
    let (folder, output) = run(args);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(
        output.stdout.is_empty(),
        "{args:?} printed {}",
        stdout(&output)
    );
    let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{args:?}: {text}");
    assert!(
        errors[0].contains(message),
        "{args:?}: {text}\nexpected: {message}"
    );
    assert!(!text.contains("panicked"), "{args:?}: {text}");
    assert_eq!(
        files(folder.path()),
        Vec::<PathBuf>::new(),
        "{args:?} left files"
    );
}

#[test]
fn audit_writes_three_files_and_the_same_numbers_everywhere() {
    let (folder, output) = run(&[
        "audit",
        &fixture("reference.parquet"),
        &fixture("current.parquet"),
        "--out",
        "drift",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let names: Vec<String> = files(&folder.path().join("drift"))
        .iter()
        .map(|p| {
            p.file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert_eq!(names, ["items.parquet", "report.html", "result.json"]);
    let text = stdout(&output);
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    assert!(text.lines().count() <= 60, "{text}");

    let written = std::fs::read_to_string(folder.path().join("drift/result.json")).expect("JSON");
    let result: Value = serde_json::from_str(&written).expect("JSON");
    assert_eq!(result["schema_version"], 1);
    assert_eq!(result["command"], "audit");
    let axes = result["results"]["verdict"]["axes"]
        .as_array()
        .expect("axes");
    assert_eq!(axes.len(), 5);
    let overlap = result["results"]["neighbourhoods"]["overlap"]["mean"]
        .as_f64()
        .expect("a mean");
    assert!(overlap > 0.0 && overlap < 1.0);

    let html = std::fs::read_to_string(folder.path().join("drift/report.html")).expect("HTML");
    assert!(html.contains("<svg"));
    let shown = format!("{overlap:.3}");
    assert!(
        html.contains(&shown) && text.contains(&shown),
        "overlap {shown} in text and report"
    );
}

#[test]
fn results_do_not_depend_on_threads_memory_or_run() {
    let result = |reference: &str, extra: &[&str]| {
        let (reference, current) = (fixture(reference), fixture("current.parquet"));
        let mut args = vec!["audit", &reference, &current];
        args.extend(extra);
        let mut value = json(&args);
        let object = value.as_object_mut().expect("an object");
        object.remove("timings");
        object.remove("device");
        value
    };
    for reference in ["reference.parquet", "reference_f16.parquet"] {
        let first = result(reference, &["--threads", "1"]);
        for threads in ["2", "3", "4"] {
            assert_eq!(first, result(reference, &["--threads", threads]));
        }
        assert_eq!(first, result(reference, &["--memory", "16MiB"]));
    }
}

#[test]
fn a_rotated_space_breaks_coordinates_and_keeps_neighbourhoods() {
    let value = json(&[
        "audit",
        &fixture("reference.parquet"),
        &fixture("rotated.parquet"),
    ]);
    let states: Vec<(String, String)> = value["results"]["verdict"]["axes"]
        .as_array()
        .expect("axes")
        .iter()
        .map(|a| {
            let text = |key: &str| a[key].as_str().expect("text").to_owned();
            (text("axis"), text("state"))
        })
        .collect();
    let state = |axis: &str| {
        states
            .iter()
            .find(|(a, _)| a == axis)
            .map(|(_, s)| s.as_str())
            .expect("the axis")
    };
    assert_eq!(state("coordinates"), "broken");
    assert_eq!(state("neighbourhoods"), "ok");
    assert_eq!(value["results"]["verdict"]["action"], "adapter");
    assert!(value["results"]["distribution"]["mmd"].is_null());
}

#[test]
fn each_scenario_gets_its_verdict() {
    let action = |reference: &str, current: &str| {
        let value = json(&["audit", &fixture(reference), &fixture(current)]);
        value["results"]["verdict"]["action"]
            .as_str()
            .expect("an action")
            .to_owned()
    };
    // One NaN and one zero row come before everything else.
    assert_eq!(action("reference.parquet", "current.parquet"), "fix_data");
    assert_eq!(
        action("reference.parquet", "reference.parquet"),
        "no_action"
    );
    // Half precision moves no vector by more than its rounding.
    assert_eq!(
        action("reference.parquet", "reference_f16.parquet"),
        "no_action"
    );
    assert_eq!(action("reference.parquet", "rotated.parquet"), "adapter");
    // Another model, and nobody knows what it does to retrieval.
    assert_eq!(
        action("reference.parquet", "narrow.parquet"),
        "inconclusive"
    );
    // 400 rows a side cannot exclude a shift of 5 %, but do show one of 12 %.
    assert_eq!(action("half_a.parquet", "half_b.parquet"), "inconclusive");
    assert_eq!(
        action("half_a.parquet", "shifted.parquet"),
        "review_coverage"
    );
}

#[test]
fn golden_queries_are_compared_query_by_query() {
    let golden = [
        "--queries-reference",
        &fixture("queries_reference.parquet"),
        "--queries-current",
        &fixture("queries_current.parquet"),
        "--qrels",
        &fixture("qrels.tsv"),
    ]
    .map(str::to_owned);
    let (reference, current) = (fixture("reference.parquet"), fixture("current.parquet"));
    let mut args = vec!["audit", &reference, &current];
    args.extend(golden.iter().map(String::as_str));
    let value = json(&args);
    let metrics = value["results"]["retrieval"]["metrics"]
        .as_array()
        .expect("metrics");
    let ndcg = metrics
        .iter()
        .find(|m| m["metric"] == "ndcg_at_10")
        .expect("nDCG@10");
    let [before, after] = ["reference", "current"].map(|side| ndcg[side].as_f64().expect("a mean"));
    let difference = ndcg["difference"]["mean"].as_f64().expect("a mean");
    assert!((after - before - difference).abs() < 1e-12);
    assert!(difference < 0.0);
    assert_eq!(value["results"]["verdict"]["axes"][3]["state"], "broken");
}

#[test]
fn another_dimension_is_compared_by_neighbours_and_refuses_mmd() {
    let value = json(&[
        "audit",
        &fixture("reference.parquet"),
        &fixture("narrow.parquet"),
    ]);
    assert!(value["results"]["neighbourhoods"]["overlap"]["mean"].is_number());
    let skipped = value["results"]["not_measured"].to_string();
    assert!(
        skipped.contains("MMD") && skipped.contains("dimension"),
        "{skipped}"
    );
    assert_refused(
        &[
            "mmd",
            &fixture("reference.parquet"),
            &fixture("narrow.parquet"),
        ],
        "dimension",
    );
}

#[test]
fn two_halves_of_one_corpus_show_no_shift_and_a_new_topic_does() {
    let state = |current: &str| {
        let value = json(&["audit", &fixture("half_a.parquet"), &fixture(current)]);
        value["results"]["distribution"]["mmd"]["p_value"]
            .as_f64()
            .expect("a p-value")
    };
    assert!(state("half_b.parquet") > 0.01);
    assert!(state("shifted.parquet") <= 0.01);
}

#[test]
fn every_command_answers_in_json() {
    let (reference, current) = (fixture("reference.parquet"), fixture("current.parquet"));
    let cosine = json(&["cosine", &reference]);
    let n = cosine["inputs"][0]["usable_rows"].as_u64().expect("rows");
    assert_eq!(cosine["results"]["pairs"].as_u64(), Some(n * (n - 1) / 2));
    for key in ["mean", "std", "min", "max"] {
        assert!(cosine["results"][key].is_number(), "{key}");
    }
    for q in ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"] {
        assert!(cosine["results"]["quantiles"][q].is_number(), "{q}");
    }
    let histogram = &cosine["results"]["histogram"];
    assert_eq!(
        histogram["edges"].as_array().map(Vec::len),
        histogram["counts"].as_array().map(|c| c.len() + 1)
    );

    let mmd = json(&["mmd", &reference, &current, "--permutations", "199"]);
    for key in [
        "mmd2_unbiased",
        "mmd2_biased",
        "kernel",
        "bandwidth",
        "bandwidth_rule",
        "kernels",
        "permutations",
        "p_value",
        "dispersion_p_value",
        "effect",
        "minimum_detectable",
        "n_reference",
        "n_current",
        "pairs",
    ] {
        assert!(!mmd["results"][key].is_null(), "{key}");
    }

    let overlap = json(&["overlap", &reference, &current, "-k", "5"]);
    assert_eq!(overlap["results"]["k"], 5);
    assert!(overlap["results"]["overlap"]["ci95"][1].is_number());

    let inspect = json(&["inspect", &reference]);
    assert_eq!(inspect["results"]["source"]["dim"], 64);
    let devices = json(&["devices"]);
    assert!(devices["results"]["devices"].is_array());
}

#[test]
fn knn_writes_lists_that_exclude_the_row_itself() {
    let folder = TempDir::new().expect("a temporary folder");
    let output = run_in(
        folder.path(),
        &[
            "knn",
            &fixture("reference.parquet"),
            "-k",
            "3",
            "--out",
            "knn.parquet",
            "--format",
            "json",
        ],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    let value: Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(value["results"]["certified"], value["results"]["queries"]);
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn wrong_inputs_are_refused_in_one_line() {
    let good = fixture("reference.parquet");
    let broken = |name: &str| fixture(&format!("broken/{name}"));
    let cases = [
        ("no_such_file.parquet".to_owned(), "no_such_file.parquet"),
        (broken("empty.parquet"), "empty"),
        (broken("truncated.parquet"), "truncated.parquet"),
        (broken("not_parquet.parquet"), "Parquet"),
        (broken("ragged.parquet"), "63"),
        (broken("two_vectors.parquet"), "embedding"),
        (broken("no_vector.parquet"), "no_vector.parquet"),
        (broken("duplicate_ids.parquet"), "id"),
        (broken("null_ids.parquet"), "null"),
        (broken("truncated.npy"), "truncated.npy"),
        (broken("integer.npy"), "integer.npy"),
        (broken("all_nan.parquet"), "non-finite"),
        (format!("{good}#nothing"), "nothing"),
    ];
    for (input, message) in &cases {
        assert_refused(&["inspect", input], message);
        assert_refused(&["audit", &good, input, "--out", "drift"], message);
        assert_refused(&["knn", input, "-k", "3", "--out", "knn.parquet"], message);
    }
}

#[test]
fn wrong_usage_is_refused() {
    let good = fixture("reference.parquet");
    assert_refused(&["knn", &good, "-k", "0"], "-k");
    assert_refused(&["knn", &good, "--out", "."], "is a folder");
    assert_refused(
        &["knn", &good, "--out", "nowhere/knn.parquet"],
        "no such folder",
    );
    assert_refused(&["mmd", &good, &good, "--bandwidth", "-1"], "bandwidth");
    assert_refused(
        &["audit", &good, &good, "--device", "no-such-gpu"],
        "no-such-gpu",
    );
    assert_refused(&["cosine", &good, "--threads", "0"], "threads");
    assert_refused(
        &["audit", &good, &good, "--qrels", "q.tsv"],
        "--queries-reference",
    );
    for args in [
        &["frobnicate"][..],
        &["audit"],
        &["knn", &good, "-k", "many"],
    ] {
        let (_folder, output) = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_leaves_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    std::fs::write(folder.path().join("file"), "in the way").expect("a file");
    let output = run_in(
        folder.path(),
        &[
            "audit",
            &fixture("half_a.parquet"),
            &fixture("half_b.parquet"),
            "--out",
            "file/drift",
        ],
    );
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn dry_run_reads_no_rows_and_writes_nothing() {
    let (folder, output) = run(&[
        "audit",
        &fixture("reference.parquet"),
        &fixture("current.parquet"),
        "--out",
        "drift",
        "--dry-run",
    ]);
    assert!(output.status.success());
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).contains("pairs"), "{}", stderr(&output));
    assert!(files(folder.path()).is_empty());
}

#[test]
fn help_shows_examples_and_fits_the_terminal() {
    for command in [
        "", "audit", "inspect", "cosine", "knn", "overlap", "mmd", "align", "apply", "evaluate",
        "compare", "devices",
    ] {
        let args: Vec<&str> = [command, "--help"]
            .into_iter()
            .filter(|a| !a.is_empty())
            .collect();
        let (_folder, output) = run(&args);
        assert!(output.status.success());
        let text = stdout(&output);
        assert!(text.contains("Example"), "{command}: {text}");
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{command}: {line}");
        }
    }
}
