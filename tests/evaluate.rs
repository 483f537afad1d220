//! `evaluate` through the real binary: the scores of examples/suite are those of scikit-learn, SciPy and
//! pytrec_eval, and mistakes are named.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .current_dir(folder)
        .args(args)
        .args(["--device", "cpu", "--quiet"])
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

/// Evaluates examples/suite on one version of the fixtures.
fn suite(folder: &Path, version: &str, more: &[&str]) {
    let file = root().join("examples/suite/suite.toml");
    let (file, set) = (file.display().to_string(), format!("version={version}"));
    let mut args = vec!["evaluate", &file, "--set", &set, "--out", version];
    args.extend(more);
    let output = run(folder, &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn metric(folder: &Path, task: &str, name: &str) -> Option<f64> {
    read_json(&folder.join(format!("{task}.json")))["scores"]["test"][0][name].as_f64()
}

fn golden() -> Value {
    read_json(&root().join("fixtures/golden/evaluate_suite.json"))
}

/// The largest differences that golden values may show: rounding to five decimals may fall either way where
/// the means differ in the last bit; all else is arithmetic in f64 on the same vectors. A logistic regression
/// that has converged may call one of the 225 test rows differently.
fn tolerance(task: &str) -> f64 {
    match task {
        "Support" | "SupportReranking" => 1.001e-5,
        "Topics" => 1e-3,
        _ => 1e-9,
    }
}

#[test]
fn scores_are_those_of_the_reference_implementations() {
    let folder = TempDir::new().expect("a folder");
    let golden = golden();
    for version in ["reference", "current"] {
        suite(folder.path(), version, &[]);
        let tasks = golden[version].as_object().expect("tasks");
        for (task, metrics) in tasks {
            for (name, expected) in metrics.as_object().expect("metrics") {
                let expected = expected.as_f64().expect("a number");
                let found = metric(&folder.path().join(version), task, name)
                    .unwrap_or_else(|| panic!("{version} {task} has no {name}"));
                assert!(
                    (found - expected).abs() <= tolerance(task),
                    "{version} {task} {name}: {found}, expected {expected}"
                );
            }
        }
    }
    // Negative control: the versions differ by far more than any tolerance.
    for task in golden["reference"].as_object().expect("tasks").keys() {
        let of = |version: &str| metric(&folder.path().join(version), task, "main_score");
        let (old, new) = (of("reference").unwrap(), of("current").unwrap());
        assert!(
            (old - new).abs() > 2.0 * tolerance(task),
            "{task}: {old} {new}"
        );
    }
}

#[test]
fn files_are_whole_and_the_same_at_any_thread_count() {
    let folder = TempDir::new().expect("a folder");
    suite(folder.path(), "reference", &["--threads", "1"]);
    let other = TempDir::new().expect("a folder");
    suite(other.path(), "reference", &["--threads", "3"]);
    let out = folder.path().join("reference");
    let names: Vec<String> = fs::read_dir(&out)
        .expect("a folder")
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    for name in ["result.json", "report.html", "scores.csv", "model-card.md"] {
        assert!(names.iter().any(|n| n == name), "{names:?}");
    }
    let mut compared = 0;
    for name in &names {
        // What says how long it took may differ.
        if ["result.json", "report.html"].contains(&name.as_str()) {
            continue;
        }
        let bytes = |folder: &Path| fs::read(folder.join("reference").join(name)).unwrap();
        assert!(bytes(folder.path()) == bytes(other.path()), "{name}");
        compared += 1;
    }
    assert!(compared >= 12, "{names:?}");
    let result = read_json(&out.join("result.json"));
    let tasks = result["results"]["tasks"].as_array().expect("tasks");
    let mean: f64 = tasks
        .iter()
        .map(|t| t["main_score"].as_f64().unwrap())
        .sum::<f64>()
        / tasks.len() as f64;
    assert!((result["results"]["mean_task"].as_f64().unwrap() - mean).abs() < 1e-12);
    let csv = fs::read_to_string(out.join("scores.csv")).unwrap();
    assert!(csv.starts_with("task,subset,split,type,metric,value,main\nSupport,default,test,"));
    let card = fs::read_to_string(out.join("model-card.md")).unwrap();
    assert!(
        card.contains("| Similar | STS | cosine_spearman | 86.83 |"),
        "{card}"
    );
}

#[test]
fn a_run_written_and_read_back_scores_the_same() {
    let folder = TempDir::new().expect("a folder");
    let fixtures = root().join("fixtures").display().to_string();
    let task = |source: &str| {
        format!(
            "name = \"s\"\n[[task]]\nname = \"R\"\ntype = \"retrieval\"\nqrels = \"{fixtures}/qrels.tsv\"\n{source}"
        )
    };
    let vectors = format!(
        "corpus = \"{fixtures}/reference.parquet\"\nqueries = \"{fixtures}/queries_reference.parquet\"\n"
    );
    let write = |name: &str, content: String| fs::write(folder.path().join(name), content).unwrap();
    write("vectors.toml", task(&vectors));
    write("run.toml", task("run = \"r.trec\"\n"));
    for args in [
        ["evaluate", "vectors.toml", "--out", "a", "--run", "r.trec"].as_slice(),
        &["evaluate", "run.toml", "--out", "b"],
    ] {
        let output = run(folder.path(), args);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let scores = |name: &str| read_json(&folder.path().join(name).join("R.json"));
    assert_eq!(scores("a"), scores("b"));
}

#[test]
fn a_beir_folder_gives_judgements_and_is_held_against_the_vectors() {
    let folder = TempDir::new().expect("a folder");
    let fixtures = root().join("fixtures");
    fs::create_dir_all(folder.path().join("set/qrels")).unwrap();
    fs::copy(
        fixtures.join("qrels.tsv"),
        folder.path().join("set/qrels/dev.tsv"),
    )
    .unwrap();
    let jsonl = |name: &str, stem: &str, count: usize, digits: usize| {
        let lines: String = (0..count)
            .map(|i| format!("{{\"_id\": \"{stem}-{i:0digits$}\", \"text\": \"\"}}\n"))
            .collect();
        fs::write(folder.path().join("set").join(name), lines).unwrap();
    };
    jsonl("queries.jsonl", "query", 40, 3);
    let suite = format!(
        "name = \"s\"\n[[task]]\nname = \"R\"\ntype = \"retrieval\"\neval_split = \"dev\"\nbeir = \"set\"\ncorpus = \"{0}/reference.parquet\"\nqueries = \"{0}/queries_reference.parquet\"\n",
        fixtures.display()
    );
    fs::write(folder.path().join("s.toml"), suite).unwrap();
    let evaluate = |documents: usize| {
        jsonl("corpus.jsonl", "doc", documents, 5);
        run(folder.path(), &["evaluate", "s.toml", "--out", "out"])
    };
    let output = evaluate(600);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let result = read_json(&folder.path().join("out/R.json"));
    let expected = golden()["reference"]["Support"]["ndcg_at_10"]
        .as_f64()
        .unwrap();
    let found = result["scores"]["dev"][0]["ndcg_at_10"].as_f64().unwrap();
    assert!((found - expected).abs() < 1.001e-5, "{found} {expected}");
    assert!(text(&evaluate(601).stderr).contains("1 ids have no usable vector"));
    assert!(text(&evaluate(599).stderr).contains("1 vectors are of documents that"));
}

/// Single-precision rows as a `.npy` file.
fn npy(path: &Path, rows: &[[f32; 2]]) {
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, 2), }}",
        rows.len()
    );
    // Magic, version and length take 10 bytes; the header ends in a line feed at a multiple of 64.
    while (10 + header.len() + 1) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.bytes());
    bytes.extend(rows.iter().flatten().flat_map(|v| v.to_le_bytes()));
    fs::write(path, bytes).unwrap();
}

#[test]
fn ties_at_the_cut_go_to_the_larger_id() {
    let folder = TempDir::new().expect("a folder");
    // 0 is best; 1 … 399 have one direction, so they tie as f32 though rounding may tell them apart in f64;
    // 400 has none.
    let mut documents = vec![[1.0, 0.0]];
    documents.extend((1..400).map(|i| [1.0 + 1e-3 * i as f32; 2]));
    documents.push([0.0, 0.0]);
    npy(&folder.path().join("d.npy"), &documents);
    npy(&folder.path().join("q.npy"), &[[1.0, 0.0], [0.0, 0.0]]);
    fs::write(
        folder.path().join("s.toml"),
        "name = \"s\"\n[[task]]\nname = \"R\"\ntype = \"retrieval\"\nmain_score = \"ndcg_at_3\"\nk_values = [3]\nqrels = \"q.tsv\"\ncorpus = \"d.npy\"\nqueries = \"q.npy\"\n",
    )
    .unwrap();
    fs::write(
        folder.path().join("q.tsv"),
        "query-id\tcorpus-id\tscore\n0\t99\t1\n1\t98\t1\n",
    )
    .unwrap();
    let output = run(folder.path(), &["evaluate", "s.toml", "--run", "r.trec"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = fs::read_to_string(folder.path().join("r.trec")).unwrap();
    let found: Vec<String> = lines
        .lines()
        .map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            format!("{} {}", fields[0], fields[2])
        })
        .collect();
    // By id as text, descending; of a query without a direction all documents tie.
    assert_eq!(found, ["0 0", "0 99", "0 98", "1 99", "1 98", "1 97"]);
}

#[test]
fn identical_ids_are_left_out() {
    let folder = TempDir::new().expect("a folder");
    let fixtures = root().join("fixtures").display().to_string();
    let suite = format!(
        "name = \"s\"\n[[task]]\nname = \"R\"\ntype = \"retrieval\"\nmain_score = \"ndcg_at_3\"\nk_values = [3, 1]\nqrels = \"q.tsv\"\ncorpus = \"{fixtures}/reference.npy\"\nqueries = \"{fixtures}/reference.npy\"\nignore_identical_ids = true\n"
    );
    fs::write(folder.path().join("s.toml"), suite).unwrap();
    fs::write(
        folder.path().join("q.tsv"),
        "query-id\tcorpus-id\tscore\n0\t0\t1\n0\t5\t1\n1\t7\t1\n",
    )
    .unwrap();
    let args = ["evaluate", "s.toml", "--run", "r.trec"];
    let output = run(folder.path(), &args);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = fs::read_to_string(folder.path().join("r.trec")).unwrap();
    // The query's own document came first, was left out, and no other took its place, as in mteb.
    assert_eq!(lines.lines().count(), 4, "{lines}");
    assert!(
        !lines.contains("0 Q0 0 ") && !lines.contains("1 Q0 1 "),
        "{lines}"
    );
}

#[test]
fn reductions_change_scores_and_are_told() {
    let folder = TempDir::new().expect("a folder");
    suite(
        folder.path(),
        "reference",
        &["--truncate", "16", "--quantize", "binary"],
    );
    let result = read_json(&folder.path().join("reference/result.json"));
    assert_eq!(result["results"]["reduction"], "16 dimensions, binary");
    let full = golden()["reference"]["Similar"]["cosine_spearman"]
        .as_f64()
        .unwrap();
    let reduced = metric(
        &folder.path().join("reference"),
        "Similar",
        "cosine_spearman",
    )
    .unwrap();
    assert!(
        reduced > 0.2 && reduced < full - 0.05,
        "{reduced} of {full}"
    );
}

#[test]
fn mistakes_are_named_and_leave_nothing_behind() {
    let fixtures = root().join("fixtures").display().to_string();
    let items = format!("items = \"{fixtures}/reference.parquet\"\n");
    let sts = |labels: &str| {
        (
            format!(
                "name = \"s\"\n[[task]]\nname = \"A\"\ntype = \"sts\"\n{items}pairs = \"p.tsv\"\n"
            ),
            labels.to_owned(),
        )
    };
    let retrieval = |labels: &str| {
        (
            format!(
                "name = \"s\"\n[[task]]\nname = \"A\"\ntype = \"retrieval\"\nqrels = \"p.tsv\"\ncorpus = \"{fixtures}/reference.parquet\"\nqueries = \"{fixtures}/queries_reference.parquet\"\n"
            ),
            labels.to_owned(),
        )
    };
    for ((suite, labels), message) in [
        (
            sts("id1\tid2\tscore\ndoc-00000\tnobody\t1\n"),
            "1 ids have no usable vector",
        ),
        (
            sts("id1\tid2\ndoc-00000\tdoc-00001\n"),
            "no column \"score\" or \"gold\"",
        ),
        (
            sts("id1\tid2\tscore\ndoc-00000\tdoc-00001\thigh\n"),
            "row 1: score is \"high\"",
        ),
        (sts("id1\tid2\tscore\n"), "no rows, expected at least one"),
        (sts(""), "the file is empty"),
        (
            retrieval("query-id\tcorpus-id\tscore\n"),
            "no judgements, expected at least one",
        ),
        (
            retrieval("query-id\tcorpus-id\tscore\nq\tdoc-00000\t1\n"),
            "1 ids have no usable vector",
        ),
        (
            (
                sts("").0.replace("reference", "broken/duplicate_ids"),
                "id1\tid2\tscore\ndoc-00000\tdoc-00001\t1\n".to_owned(),
            ),
            "stands on two rows",
        ),
        (
            (
                sts("").0 + "main_score = \"beauty\"\n",
                "id1\tid2\tscore\ndoc-00000\tdoc-00001\t1\n".to_owned(),
            ),
            "no metric \"beauty\"",
        ),
    ] {
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("s.toml"), &suite).unwrap();
        fs::write(folder.path().join("p.tsv"), labels).unwrap();
        let output = run(folder.path(), &["evaluate", "s.toml", "--out", "out"]);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}: {said}");
        assert!(said.contains(message), "{said}\nexpected: {message}");
        assert!(!folder.path().join("out").exists(), "{message}");
    }
}

#[test]
fn comparisons_find_what_changed_and_nothing_where_nothing_did() {
    let folder = TempDir::new().expect("a folder");
    suite(folder.path(), "reference", &[]);
    suite(folder.path(), "current", &[]);
    let compare = |args: &[&str]| {
        let mut all = vec!["compare", "--format", "json"];
        all.extend(args);
        let output = run(folder.path(), &all);
        let json: Value = serde_json::from_str(&text(&output.stdout))
            .unwrap_or_else(|e| panic!("{e}: {}", text(&output.stderr)));
        (output.status.code(), json["results"].clone())
    };
    let (code, found) = compare(&["reference", "current", "--out", "both"]);
    assert_eq!(code, Some(0));
    assert!(folder.path().join("both/report.html").is_file());
    let pair = &found["pairs"][0];
    // The pipeline change hits one topic of twelve: retrieval loses, and nothing gains.
    assert!(pair["worse"].as_u64() >= Some(1), "{pair}");
    assert_eq!(pair["better"], 0);
    let tasks = pair["tasks"].as_array().expect("tasks");
    assert_eq!(tasks.len(), 9);
    for task in tasks {
        let name = &task["task"];
        let score = |side: &str| task[side].as_f64().unwrap();
        let difference = &task["difference"];
        let mean = difference["mean"].as_f64().unwrap();
        // Means over items are the scores but for rounding to five decimals.
        assert!(
            (mean - (score("current") - score("reference"))).abs() < 2e-5,
            "{name}: {mean}"
        );
        let p = task["p_value_holm"].as_f64().unwrap();
        assert!(p >= difference["p_value"].as_f64().unwrap() && p <= 1.0);
        let count = |what: &str| difference[what].as_u64().unwrap();
        assert_eq!(
            count("wins") + count("ties") + count("losses"),
            task["items"].as_u64().unwrap(),
            "{name}"
        );
    }
    let twins = tasks.iter().find(|t| t["task"] == "Twins").unwrap();
    assert!(twins["mcnemar"]["lost"].as_u64() > twins["mcnemar"]["gained"].as_u64());
    assert!(!twins["worst_items"].as_array().unwrap().is_empty());

    // Negative control: a run against itself.
    let (_, same) = compare(&["reference", "reference"]);
    let pair = &same["pairs"][0];
    assert_eq!((&pair["better"], &pair["worse"]), (&0.into(), &0.into()));
    for task in pair["tasks"].as_array().unwrap() {
        assert_eq!(task["difference"]["mean"], 0.0, "{task}");
        assert_eq!(task["difference"]["p_value"], 1.0, "{task}");
    }

    // Gates decide with the interval.
    let gate = |gate: &str| compare(&["reference", "current", "--gate", gate]).0;
    assert_eq!(gate("worse<=9,mean_task.difference>-0.5"), Some(0));
    assert_eq!(gate("Support.difference>=0.01"), Some(1));
    let refused = run(
        folder.path(),
        &[
            "compare",
            "reference",
            "current",
            "--gate",
            "Beauty.difference>0",
        ],
    );
    assert_eq!(refused.status.code(), Some(2));

    // Three runs get a Borda table: two equal runs share the first place.
    let (_, three) = compare(&["reference", "current", "reference"]);
    let ranking = three["ranking"].as_array().unwrap();
    let ranks: Vec<u64> = ranking
        .iter()
        .map(|r| r["rank"].as_u64().unwrap())
        .collect();
    assert_eq!(ranks, [1, 1, 3]);
    assert_eq!(ranking[2]["run"], "current");

    let other = run(folder.path(), &["compare", "reference", "both"]);
    assert_eq!(other.status.code(), Some(2));
    assert!(text(&other.stderr).contains("is the result of compare, expected evaluate"));
}

/// A run of one query in both ways: x moves from the first place to the third, y from the second to the first.
#[test]
fn changed_instructions_are_followed_or_not() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, content: &str| {
        fs::write(folder.path().join(name), content).expect("a file");
    };
    write(
        "q.tsv",
        "query-id\tcorpus-id\tscore\na-og\tx\t1\na-og\tz\t1\na-changed\tz\t1\n",
    );
    write(
        "r.trec",
        "a-og Q0 x 1 3 t\na-og Q0 y 2 2 t\na-og Q0 z 3 1 t\na-changed Q0 y 1 3 t\na-changed Q0 z 2 2 t\na-changed Q0 x 3 1 t\n",
    );
    write("c.tsv", "query-id\tcorpus-id\na\tx\n");
    let task = "name = \"s\"\n[[task]]\nname = \"T\"\ntype = \"retrieval\"\nqrels = \"q.tsv\"\nrun = \"r.trec\"\n";
    write("s.toml", &format!("{task}changed = \"c.tsv\"\n"));
    let output = run(folder.path(), &["evaluate", "s.toml", "--out", "out"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let of = |name: &str| metric(&folder.path().join("out"), "T", name).expect("a score");
    assert_eq!(of("p-MRR"), 1.0 - 1.0 / 3.0);
    assert_eq!(of("main_score"), of("p-MRR"));
    assert_eq!(of("paired_accuracy"), 0.0);
    write("c.tsv", "query-id\tcorpus-id\nb\tx\n");
    let output = run(folder.path(), &["evaluate", "s.toml", "--out", "out"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no query was ranked both as ID-og and as ID-changed"));
}
