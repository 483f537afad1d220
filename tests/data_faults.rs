//! Faults of the data that the audit must see, and sound data in which it must see none.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use half::f16;
use vecdrift::audit::{Action, Audit, AuditConfig, AxisState, Evidence};
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::near_duplicates::near_duplicates;
use vecdrift::metrics::precision::Precision;
use vecdrift::stats::rng::Philox;

use crate::scenarios_samples::{audited, config, write, write_table_of};

const DIM: usize = 96;
const ROWS: usize = 1_600;
const BATCHES: usize = 8;

/// Unit rows around 10 topics.
fn corpus(seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, 6);
    let mut values = Vec::with_capacity(ROWS * DIM);
    for _ in 0..ROWS {
        let topic = random.below(10) as usize;
        let row: Vec<f64> = (0..DIM)
            .map(|axis| if axis % 10 == topic { 1.0 } else { 0.2 } + 0.4 * random.normal())
            .collect();
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        values.extend(row.iter().map(|v| (v / norm) as f32));
    }
    values
}

fn quantised(row: &[f32]) -> Vec<f32> {
    let step = row.iter().fold(0.0f32, |a, v| a.max(v.abs())) / 127.0;
    row.iter().map(|v| (v / step).round() * step).collect()
}

fn evidence<'a>(audit: &'a Audit, measure: &str) -> &'a Evidence {
    let mut of_data = audit.verdict.axes[0].evidence.iter();
    let found = of_data.find(|e| e.measure.contains(measure));
    found.unwrap_or_else(|| panic!("evidence on {measure}"))
}

fn plain(folder: &Path, name: &str, values: &[f32]) -> String {
    write(folder, name, values, DIM)
}

#[test]
fn rows_of_another_precision_are_found_and_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let values = corpus(1);
    let reference = plain(folder.path(), "x.npy", &values);
    let audit = audited(&config(&reference, &reference));
    for measure in [
        "another precision, reference",
        "another precision, current",
        "on both sides",
    ] {
        assert_eq!(evidence(&audit, measure).state, AxisState::Ok);
    }

    // Twenty rows of int8 codes among singles: two pipelines.
    let mut mixed = values.clone();
    for row in mixed.chunks_exact_mut(DIM).skip(100).take(20) {
        let new = quantised(row);
        row.copy_from_slice(&new);
    }
    let current = plain(folder.path(), "mixed.npy", &mixed);
    let audit = audited(&config(&reference, &current));
    let found = evidence(&audit, "another precision, current");
    assert_eq!(found.state, AxisState::Broken);
    assert_eq!(found.estimate, Some(20.0 / ROWS as f64));
    assert!(found.statement.contains("int8"), "{}", found.statement);
    assert_eq!(audit.verdict.action, Action::FixData);
    let precision = audit.data.current.precision.expect("enough dimensions");
    let few = &precision.rows[1];
    assert_eq!((few.precision, few.rows), (Precision::Int8, 20));
    assert!(
        few.first_ids
            .iter()
            .all(|id| (100..120).contains(&id.parse().expect("a number")))
    );

    // The whole set quantised, or in halves: said, and nothing to repair.
    let all: Vec<f32> = values.chunks_exact(DIM).flat_map(quantised).collect();
    let halves: Vec<f32> = values.iter().map(|&v| f16::from_f32(v).to_f32()).collect();
    for (set, name) in [(all, "int8"), (halves, "f16")] {
        let current = plain(folder.path(), "all.npy", &set);
        let audit = audited(&config(&reference, &current));
        let found = evidence(&audit, "on both sides");
        assert_eq!(found.state, AxisState::Shifted);
        assert!(found.statement.contains(name), "{}", found.statement);
        assert_eq!(
            evidence(&audit, "another precision, current").state,
            AxisState::Ok
        );
        assert_eq!(
            audit.verdict.action,
            Action::NoAction,
            "{:#?}",
            audit.verdict
        );
    }
}

fn table(folder: &Path, name: &str, first_id: i64, values: &[f32]) -> String {
    let batches: Vec<String> = (0..ROWS)
        .map(|row| format!("day {}", row % BATCHES))
        .collect();
    let column: ArrayRef = Arc::new(StringArray::from(batches));
    let ids = (first_id..).take(ROWS).collect();
    write_table_of(folder, name, ids, Some(("batch", column)), values, DIM)
}

fn by_batch(reference: &str, current: &str) -> Audit {
    audited(&AuditConfig {
        slice_by: vec!["batch".to_owned()],
        ..config(reference, current)
    })
}

fn cut(mut values: Vec<f32>, batch: usize) -> Vec<f32> {
    for row in values.chunks_exact_mut(DIM).skip(batch).step_by(BATCHES) {
        row[DIM / 2..].fill(0.0);
        let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= norm);
    }
    values
}

#[test]
fn a_batch_that_was_cut_short_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let reference = table(folder.path(), "x.parquet", 0, &corpus(1));
    let current = table(folder.path(), "y.parquet", 10_000, &cut(corpus(2), 3));
    let audit = by_batch(&reference, &current);
    let found = evidence(&audit, "made another way, current");
    assert_eq!(found.state, AxisState::Broken);
    assert!(
        found.statement.contains("batch = day 3"),
        "{}",
        found.statement
    );
    assert!(found.statement.contains("48 zeros"), "{}", found.statement);
    assert_eq!(
        evidence(&audit, "made another way, reference").state,
        AxisState::Ok
    );
    assert_eq!(audit.verdict.action, Action::FixData);

    // As it was before: known, and no fault that came.
    let before = table(folder.path(), "z.parquet", 0, &cut(corpus(1), 3));
    let audit = by_batch(&before, &current);
    assert_eq!(
        evidence(&audit, "made another way, current").state,
        AxisState::Shifted
    );

    // Sound sets, over seeds: no batch is odd.
    for seed in 10..20 {
        let [x, y] = [2 * seed, 2 * seed + 1].map(corpus);
        let reference = table(folder.path(), "x.parquet", 0, &x);
        let current = table(folder.path(), "y.parquet", 10_000, &y);
        let audit = by_batch(&reference, &current);
        for side in [&audit.data.reference, &audit.data.current] {
            assert_eq!(side.batches.len(), BATCHES);
            assert!(
                side.batches.iter().all(|b| b.faults.is_empty()),
                "{:?}",
                side.batches
            );
        }
    }
}

#[test]
fn near_duplicates_are_counted_where_they_are() {
    let folder = tempfile::tempdir().expect("a folder");
    let (old, mut new) = (corpus(1), corpus(2));
    // Eighty rows said again, nearly.
    let mut random = Philox::new(5, 0);
    for row in 0..80 {
        let from = (row + 800) * DIM;
        let again: Vec<f32> = new[from..from + DIM]
            .iter()
            .map(|v| v + 0.002 * random.normal() as f32)
            .collect();
        new[row * DIM..(row + 1) * DIM].copy_from_slice(&again);
    }
    let reference = plain(folder.path(), "x.npy", &old);
    let current = plain(folder.path(), "y.npy", &new);
    let audit = audited(&config(&reference, &current));
    let share = |side: &vecdrift::audit::SideFaults| {
        let found = side.near_duplicates.as_ref().expect("rows");
        assert!(found.exact);
        found.headline().expect("0.99").share
    };
    assert_eq!(share(&audit.data.reference), 0.0);
    // Both of a pair have one.
    assert_eq!(share(&audit.data.current), 160.0 / ROWS as f64);
    let found = evidence(&audit, "cosine of 0.99");
    assert_eq!(found.state, AxisState::Shifted, "{found:?}");
    assert_eq!(audit.data.current.duplicate_rows, 0);
    let same = audited(&config(&reference, &reference));
    assert_eq!(evidence(&same, "cosine of 0.99").state, AxisState::Ok);
}

#[test]
fn a_sample_of_rows_estimates_the_share_of_near_duplicates() {
    let engine = Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .expect("the CPU");
    let (rows, dim) = (20_000, 16);
    let mut random = Philox::new(8, 0);
    let mut values: Vec<f32> = (0..rows * dim).map(|_| random.normal() as f32).collect();
    // The first tenth is said again at the end.
    values.copy_within(..rows / 10 * dim, (rows - rows / 10) * dim);
    let ids: Ids = (0..rows).map(|row| format!("{row}")).collect();
    let mut covered = 0;
    for seed in 0..20 {
        let found = near_duplicates(&engine, Rows::new(&values, dim), &ids, seed);
        let found = found.expect("the CPU").expect("rows");
        assert_eq!((found.rows, found.exact), (5_000, false));
        let [low, high] = found.headline().expect("0.99").ci95;
        covered += u32::from(low <= 0.2 && 0.2 <= high);
    }
    // At 95 % fewer than 17 of 20 hold it in 1 of 60 repetitions; a sample of a quarter holds it more often.
    assert!(covered >= 17, "{covered} of 20");
    let one = near_duplicates(&engine, Rows::new(&values[..dim], dim), &ids, 0);
    assert_eq!(one.expect("the CPU"), None);
}

#[test]
fn text_report_and_json_show_what_was_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let reference = table(folder.path(), "x.parquet", 0, &corpus(1));
    let current = table(folder.path(), "y.parquet", 10_000, &cut(corpus(2), 3));
    let out = folder.path().join("out").display().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .args(["audit", &reference, &current, "--slice-by", "batch"])
        .args(["--permutations", "199", "--gate", "odd_batches<=0"])
        .args(["--out", &out, "--device", "cpu"])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(1), "the gate fails");
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(stdout.contains("day 3"), "{stdout}");
    let read = |name: &str| {
        let path = Path::new(&out).join(name);
        std::fs::read_to_string(path).expect("written")
    };
    let page = read("report.html");
    for part in [
        "id=\"topics\"",
        "Topics that came and went",
        "Odd batches",
        "vectors end in zeros",
        "The slice that holds most of the drift",
        "precision of the values",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let result: serde_json::Value = serde_json::from_str(&read("result.json")).expect("JSON");
    let results = &result["results"];
    let batches = results["data"]["current"]["batches"]
        .as_array()
        .expect("batches");
    let odd: Vec<&str> = batches
        .iter()
        .filter(|b| b["faults"].as_array().is_some_and(|f| !f.is_empty()))
        .filter_map(|b| b["name"].as_str())
        .collect();
    assert_eq!(odd, ["day 3"]);
    let by_batch = results["slices"]["partitions"]
        .as_array()
        .expect("slicings");
    let by_batch = by_batch
        .iter()
        .find(|p| p["by"] == "batch")
        .expect("the column");
    assert_eq!(by_batch["concentration"]["name"], "day 3");
    assert!(results["topics"]["emerging"]["groups"].is_array());
}

#[test]
fn parts_of_different_types_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    for (from, to) in [
        ("reference.parquet", "a.parquet"),
        ("reference_f16.parquet", "b.parquet"),
    ] {
        std::fs::copy(fixtures.join(from), folder.path().join(to)).expect("a part");
    }
    let output = Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .arg("audit")
        .args([folder.path(), &fixtures.join("reference.parquet")])
        .args(["--device", "cpu"])
        .output()
        .expect("the binary runs");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("b.parquet") && said.contains("f16"), "{said}");
}
