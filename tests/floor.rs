//! The operational noise floor: a harmless rerun is no drift once it is known how much a rerun changes.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use vecdrift::stats::rng::Philox;

const ROWS: usize = 1_500;
const DIM: usize = 32;

/// Unit rows in thirty topics, each moved by `noise` of its own per run.
fn run_of(run: u64, noise: f64, scale: impl Fn(usize) -> f64) -> Vec<u8> {
    let (mut centres, mut random) = (Philox::new(41, 0), Philox::new(42, 0));
    let mut own = Philox::new(43, run);
    let centres: Vec<f64> = (0..30 * DIM).map(|_| centres.normal()).collect();
    let values = (0..ROWS).flat_map(|row| {
        let x: Vec<f64> = (0..DIM)
            .map(|j| {
                let value = centres[row % 30 * DIM + j] + 0.6 * random.normal();
                scale(j) * value + noise * own.normal()
            })
            .collect();
        let length = x.iter().map(|v| v * v).sum::<f64>().sqrt();
        x.into_iter()
            .map(move |v| ((v / length) as f32).to_le_bytes())
    });
    let data: Vec<u8> = values.flatten().collect();
    crate::stream::npy("<f4", "False", ROWS, DIM, &data)
}

fn audit(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .current_dir(folder)
        .arg("audit")
        .args(args)
        .args(["--device", "cpu", "--format", "json", "--quiet"])
        .args(["--permutations", "199", "--clusters", "0"])
        .output()
        .expect("the program starts")
}

fn results(folder: &Path, args: &[&str]) -> Value {
    let output = audit(folder, args);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {text}");
    let mut json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    json["results"].take()
}

fn evidence<'a>(results: &'a Value, axis: usize) -> &'a Value {
    &results["verdict"]["axes"][axis]["evidence"][0]
}

#[test]
fn a_rerun_is_no_drift_and_a_real_change_stays_one() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, bytes: Vec<u8>| {
        std::fs::write(folder.path().join(name), bytes).expect("a file");
    };
    // Noise so large that neighbours change, as a coarse number format would make it.
    for (name, run) in [("old.npy", 0), ("new.npy", 1), ("a.npy", 2), ("a2.npy", 3)] {
        write(name, run_of(run, 0.12, |_| 1.0));
    }
    write(
        "other.npy",
        run_of(4, 0.12, |j| if j < DIM / 2 { 2.0 } else { 0.3 }),
    );
    let floor = ["--noise-floor", "a.npy", "a2.npy"];
    let with = |pair: [&str; 2]| results(folder.path(), &[&pair[..], &floor].concat());

    let alone = results(folder.path(), &["old.npy", "new.npy"]);
    assert_ne!(alone["verdict"]["action"], "no_action");
    let known = with(["old.npy", "new.npy"]);
    assert_eq!(
        known["verdict"]["action"], "no_action",
        "{}",
        known["verdict"]["reason"]
    );
    let overlap = evidence(&known, 2);
    let value = |key: &str| overlap[key].as_f64().expect("a number");
    // Two reruns lie as far apart as the sets themselves, up to chance over 1,500 items.
    assert!((value("estimate") - value("floor")).abs() < 0.02);
    assert!((value("threshold") - 0.98 * value("floor")).abs() < 1e-12);
    assert!(value("threshold") < 0.85 && alone["noise_floor"].is_null());
    assert!(known["noise_floor"]["eps_eq"].as_f64().expect("measured") < 0.01);

    // Another model is not excused.
    let changed = with(["old.npy", "other.npy"]);
    assert_ne!(changed["verdict"]["action"], "no_action");
    assert_ne!(evidence(&changed, 2)["state"], "ok");
}

#[test]
fn what_is_no_rerun_is_refused() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for (runs, fact) in [
        (
            ["reference.parquet", "narrow.parquet"],
            "has dimension 32, the reference 64",
        ),
        (
            ["half_a.parquet", "half_b.parquet"],
            "share 0 of 400 documents",
        ),
        (
            ["reference.parquet", "rotated.parquet"],
            "are not in one space",
        ),
    ] {
        let pair = ["reference.parquet", "current.parquet", "--noise-floor"];
        let output = audit(&fixtures, &[&pair[..], &runs].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(
            text.starts_with("error: --noise-floor: ") && text.contains(fact),
            "{text}"
        );
    }
}
