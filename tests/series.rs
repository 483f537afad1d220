//! Series of snapshots, by the library and by the program.

use std::path::Path;
use std::process::{Command, Output};

use vecdrift::embeddings::{IdSource, Ids, RowBlock};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::mmd::EquivalenceState;
use vecdrift::metrics::series::{Series, SeriesConfig, series};
use vecdrift::metrics::sketch::{Frame, FrameConfig, Sketch};
use vecdrift::report::write_atomic;
use vecdrift::sketch_file;
use vecdrift::source::{self, ReadOptions, VectorFormat, VectorShape, write_vectors};
use vecdrift::stats::rng::Philox;

const DIM: usize = 16;

/// Writes documents around 8 topics, a `share` of them around a ninth; an id always has the same vector but
/// for `noise`.
fn snapshot(folder: &Path, name: &str, ids: std::ops::Range<u64>, share: f64) -> String {
    let mut block = RowBlock::default();
    for id in ids {
        let mut random = Philox::new(id, 6);
        let topic = (random.uniform() * 8.0) as usize;
        let topic = if random.uniform() < share { 8 } else { topic };
        block.ids.push(&format!("doc-{id}"));
        block.values.extend((0..DIM).map(|axis| {
            let centre = if axis == topic { 1.0 } else { 0.1 };
            (centre + 0.2 * random.normal()) as f32
        }));
    }
    write(folder, name, block, DIM)
}

fn write(folder: &Path, name: &str, block: RowBlock, dim: usize) -> String {
    let path = folder.join(name);
    let shape = VectorShape {
        dim,
        rows: Some(block.ids.len() as u64),
        vector_column: "embedding",
        id_source: &IdSource::Column("id".to_owned()),
        note: None,
    };
    write_atomic(&path, |to| {
        let blocks = &mut std::iter::once(Ok(block));
        write_vectors(to, &path, VectorFormat::Parquet, &shape, blocks).map(|_| ())
    })
    .expect("a file");
    path.display().to_string()
}

fn engine() -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .expect("the CPU")
}

fn followed(inputs: &[String], in_control: Option<usize>) -> Series {
    let engine = engine();
    let mut sketches: Vec<Sketch> = Vec::new();
    for input in inputs {
        let source = source::open(input, &ReadOptions::default()).expect("an input");
        let set = source.read(&mut |_| {}).expect("rows");
        let frame = match sketches.first() {
            Some(first) => first.state.frame.clone(),
            None => {
                let config = FrameConfig {
                    seed: 0,
                    landmarks: 500,
                    group: None,
                };
                Frame::new(&engine, &set, &config).expect("a frame")
            }
        };
        sketches.push(Sketch::new(&engine, &set, &frame).expect("a sketch"));
    }
    let config = SeriesConfig {
        draws: 999,
        seed: 0,
        margin: 0.05,
        in_control,
    };
    series(&engine, &sketches, &config).expect("a series")
}

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .args(arguments)
        .args(["--device", "cpu", "-q"])
        .output()
        .expect("the program runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Twelve quiet months, then four with a new topic: the change is where it is, the last month is out of
/// control, and nothing is before.
#[test]
fn a_new_topic_is_seen_when_it_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let inputs: Vec<String> = (0..16)
        .map(|month| {
            let share = if month < 12 { 0.0 } else { 0.25 };
            let from = month * 10_000;
            snapshot(
                folder.path(),
                &format!("{month}.parquet"),
                from..from + 700,
                share,
            )
        })
        .collect();
    let found = followed(&inputs, Some(11));
    let changes: Vec<usize> = found.changes.points.iter().map(|p| p.position).collect();
    assert_eq!(changes, [12]);
    assert!(
        found.changes.p_value.unwrap() <= 0.01,
        "{:?}",
        found.changes
    );
    let late: Vec<&String> = inputs[12..].iter().collect();
    let out: Vec<&String> = found.baseline_chart.out_of_control.iter().collect();
    assert_eq!(out, late);
    // The steps: only the first of them is one.
    assert_eq!(found.previous_chart.out_of_control, inputs[12..13]);
    let last = found.snapshots.last().unwrap();
    assert_eq!(
        last.baseline.as_ref().unwrap().state,
        EquivalenceState::Shifted
    );
    let quiet = followed(&inputs[..12], None);
    assert!(quiet.changes.points.is_empty(), "{:?}", quiet.changes);
    assert!(quiet.baseline_chart.out_of_control.is_empty());
    // Distances are symmetric and those of the steps.
    let step = last.previous.as_ref().unwrap().mmd.as_ref().unwrap();
    assert_eq!(found.mmd2[14][15], found.mmd2[15][14]);
    assert!((found.mmd2[14][15].unwrap() - step.mmd2_unbiased).abs() < 1e-15);
}

/// Slow drift: every step is within the margin, the distance from the first is not, and the way is longer
/// than any step.
#[test]
fn slow_drift_adds_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let inputs: Vec<String> = (0..9)
        .map(|month| {
            let from = month * 10_000;
            let share = month as f64 * 0.03;
            snapshot(
                folder.path(),
                &format!("{month}.parquet"),
                from..from + 3_000,
                share,
            )
        })
        .collect();
    let found = followed(&inputs, None);
    let last = found.snapshots.last().unwrap();
    let of = |step: &Option<vecdrift::metrics::series::Step>| {
        step.as_ref()
            .unwrap()
            .mmd
            .as_ref()
            .unwrap()
            .effect
            .eps_eq
            .unwrap()
    };
    assert!(of(&last.baseline) > 3.0 * of(&last.previous), "{last:?}");
    assert_eq!(
        last.baseline.as_ref().unwrap().state,
        EquivalenceState::Shifted
    );
    assert!(last.path.unwrap() >= of(&last.previous));
}

/// What is written is read as it was, and an old sketch stands for its vectors.
#[test]
fn sketches_outlive_their_vectors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let old = snapshot(folder.path(), "old.parquet", 0..900, 0.0);
    let new = snapshot(folder.path(), "new.parquet", 300..1_200, 0.1);
    let sketch = run(&[
        "sketch",
        &old,
        "--out",
        &path("old.sketch"),
        "--landmarks",
        "300",
    ]);
    assert!(sketch.status.success(), "{}", stderr(&sketch));
    let like = run(&[
        "sketch",
        &new,
        "--like",
        &path("old.sketch"),
        "--out",
        &path("new.sketch"),
    ]);
    assert!(like.status.success(), "{}", stderr(&like));

    let read = sketch_file::load(&path("old.sketch"))
        .expect("readable")
        .expect("a sketch");
    let set = source::open(&old, &ReadOptions::default())
        .unwrap()
        .read(&mut |_| {})
        .unwrap();
    let made = Sketch::new(&engine(), &set, &read.state.frame).expect("a sketch");
    assert_eq!(made.state, read.state);
    assert_eq!(made.landmarks, read.landmarks);
    assert_eq!(
        sketch_file::load(&old)
            .expect("readable")
            .map(|s| s.state.rows),
        None
    );

    let results = |arguments: &[&str]| {
        let output = run(arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let last = json["results"]["snapshots"][1]["baseline"].clone();
        assert!(last["mmd"]["effect"]["eps_eq"].as_f64().unwrap() > 0.0);
        last
    };
    let both = [
        "series",
        &path("old.sketch"),
        &path("new.sketch"),
        "--format",
        "json",
    ];
    let mixed = ["series", &path("old.sketch"), &new, "--format", "json"];
    let fresh = [
        "series",
        &old,
        &new,
        "--landmarks",
        "300",
        "--format",
        "json",
    ];
    assert_eq!(results(&both), results(&mixed));
    assert_eq!(results(&both), results(&fresh));
    // A sketch is an input like any other: its landmarks.
    let inspected = run(&["inspect", &path("old.sketch"), "--format", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&inspected.stdout).expect("JSON");
    assert_eq!(json["inputs"][0]["rows"], 300);
    // But nobody takes them for the corpus.
    let mmd = run(&[
        "mmd",
        &path("old.sketch"),
        &new,
        "--permutations",
        "19",
        "--format",
        "json",
    ]);
    let json: serde_json::Value = serde_json::from_slice(&mmd.stdout).expect("JSON");
    let warning = json["warnings"][0].as_str().expect("a warning");
    assert!(
        warning.contains("is a sketch: these are its 300 landmarks"),
        "{warning}"
    );
}

#[test]
fn the_program_writes_reports_and_holds_gates() {
    let folder = tempfile::tempdir().expect("a folder");
    let inputs: Vec<String> = (0..3)
        .map(|month| {
            let from = month * 100;
            let share = if month == 2 { 0.4 } else { 0.0 };
            snapshot(
                folder.path(),
                &format!("m{month}.parquet"),
                from..from + 800,
                share,
            )
        })
        .collect();
    let out = folder.path().join("out").display().to_string();
    let mut arguments = vec!["series"];
    arguments.extend(inputs.iter().map(String::as_str));
    arguments.extend(["--out", &out]);
    let done = run(&arguments);
    assert!(done.status.success(), "{}", stderr(&done));
    for name in [
        "report.html",
        "result.json",
        "sketches/001-m0.sketch",
        "sketches/003-m2.sketch",
    ] {
        assert!(Path::new(&out).join(name).is_file(), "{name}");
    }
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(text.contains("Verdict: Drifted"), "{text}");
    assert!(
        text.lines().all(|line| line.chars().count() <= 80),
        "{text}"
    );
    let gated = |gate: &str| {
        let mut arguments = vec!["series"];
        arguments.extend(inputs.iter().map(String::as_str));
        arguments.extend(["--gate", gate]);
        run(&arguments).status.code()
    };
    assert_eq!(gated("eps_eq<0.9"), Some(0));
    assert_eq!(gated("previous.eps_eq<0.01"), Some(1));
    assert_eq!(gated("out_of_control<=0"), Some(3));
}

#[test]
fn wrong_inputs_are_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let one = snapshot(folder.path(), "one.parquet", 0..400, 0.0);
    let few = snapshot(folder.path(), "few.parquet", 0..40, 0.0);
    let mut block = RowBlock {
        ids: (0..200).map(|i| i.to_string()).collect::<Ids>(),
        ..RowBlock::default()
    };
    block.values = (0..200 * 3).map(|i| (i % 7) as f32 + 1.0).collect();
    let narrow = write(folder.path(), "narrow.parquet", block, 3);
    let refused = |arguments: &[&str], expected: &str| {
        let output = run(arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(expected), "{arguments:?}: {said}");
    };
    refused(&["series", &one], "2 values required");
    refused(&["series", &one, &narrow], "dimension 3, expected 16");
    refused(
        &["series", &few, &one],
        "40 independent rows, expected at least 96",
    );
    refused(
        &["series", &one, &one, "--in-control", "2"],
        "expected at most 1",
    );
    refused(&["sketch", &one], "--out: is missing");
    refused(
        &["sketch", &one, "--like", &few, "--out", &path("x.sketch")],
        "is no sketch",
    );
    refused(
        &[
            "sketch",
            &one,
            "--landmarks",
            "7",
            "--out",
            &path("x.sketch"),
        ],
        "at least 100",
    );
    refused(
        &[
            "sketch",
            &one,
            "--group",
            "none",
            "--out",
            &path("x.sketch"),
        ],
        "no column \"none\"",
    );
    assert!(
        run(&["sketch", &one, "--out", &path("a.sketch")])
            .status
            .success()
    );
    assert!(
        run(&["sketch", &one, "--seed", "5", "--out", &path("b.sketch")])
            .status
            .success()
    );
    refused(
        &["series", &path("a.sketch"), &path("b.sketch")],
        "another frame",
    );
    refused(
        &["series", &path("a.sketch"), &one, "--landmarks", "200"],
        "settled it: 4096",
    );
    refused(
        &["sketch", &path("a.sketch"), "--out", &path("c.sketch")],
        "is a sketch already",
    );

    // Damage: a file cut short, and a note that lies about its sizes.
    let bytes = std::fs::read(path("a.sketch")).expect("a file");
    std::fs::write(path("cut.sketch"), &bytes[..bytes.len() / 2]).expect("a file");
    refused(
        &["series", &path("cut.sketch"), &one],
        "is no complete Parquet file",
    );
    let find = |needle: &[u8]| {
        bytes
            .windows(needle.len())
            .position(|w| w == needle)
            .expect("in the note")
    };
    let mut lying = bytes.clone();
    let at = find(b"\"blocks\":");
    lying[at + 9] = b'1';
    std::fs::write(path("lying.sketch"), &lying).expect("a file");
    refused(&["series", &path("lying.sketch"), &one], "damaged sketch");
    let mut newer = bytes.clone();
    let at = find(b"\"format\":1");
    newer[at + 9] = b'9';
    std::fs::write(path("newer.sketch"), &newer).expect("a file");
    refused(
        &["series", &path("newer.sketch"), &one],
        "format 9, expected 1",
    );
}

/// A sketch for a reference: the same action as with the vectors, the shift within what features cost, and no
/// document counted as missing that the sketch merely did not keep.
#[test]
fn an_audit_takes_a_sketch_for_its_reference() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let old = snapshot(folder.path(), "old.parquet", 0..3_000, 0.0);
    let same = snapshot(folder.path(), "same.parquet", 1_500..4_500, 0.0);
    let moved = snapshot(folder.path(), "moved.parquet", 1_500..4_500, 0.2);
    let audit = |reference: &str, current: &str, more: &[&str]| -> serde_json::Value {
        let arguments = [&["audit", reference, current, "--format", "json"], more].concat();
        let output = run(&arguments);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    let kept = audit(&same, &old, &["--sketch", &path("old.sketch")]);
    assert!(kept["results"]["sketched"].is_null());
    let sketched = run(&[
        "sketch",
        &old,
        "--landmarks",
        "600",
        "--out",
        &path("small.sketch"),
    ]);
    assert!(sketched.status.success(), "{}", stderr(&sketched));
    for current in [&same, &moved] {
        let vectors = audit(&old, current, &[]);
        let whole = audit(&path("old.sketch"), current, &[]);
        let small = audit(&path("small.sketch"), current, &[]);
        let action = |json: &serde_json::Value| json["results"]["verdict"]["action"].clone();
        assert_eq!(action(&vectors), action(&whole));
        let exact = vectors["results"]["distribution"]["mmd"]["effect"]["eps_eq"]
            .as_f64()
            .unwrap();
        for json in [&whole, &small] {
            let effect = &json["results"]["sketched"]["mmd"]["effect"];
            let [low, high] = [0, 1].map(|i| effect["ci95"][i].as_f64().unwrap());
            assert!(low <= exact && exact <= high, "{exact} outside {effect}");
        }
        // 3,000 rows are all landmarks: the same items are paired.
        assert_eq!(vectors["results"]["pairing"], whole["results"]["pairing"]);
        // Of 600: about half of either side is shared, as with the vectors.
        let shared = small["results"]["pairing"]["shared"].as_f64().unwrap();
        assert!((200.0..400.0).contains(&shared), "{shared}");
        assert_eq!(small["results"]["sketched"]["reference_landmarks"], 600);
        assert!(
            small["warnings"][0]
                .as_str()
                .unwrap()
                .contains("a sketch of 3000 rows")
        );
    }
    let refused = run(&["audit", &path("old.sketch"), &same, "--slice-by", "section"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("the reference is a sketch"),
        "{}",
        stderr(&refused)
    );
}
