//! Adapters: a map that exists is found, one that does not is not, and files come out as they should.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use vecdrift::embeddings::{Embeddings, Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::adapter::{
    AdapterState, AlignConfig, AlignSide, Aligned, Direction, MayMix, Method, align,
};
use vecdrift::metrics::retrieval::Qrel;
use vecdrift::source::{self, ReadOptions};
use vecdrift::stats::linalg::Matrix;
use vecdrift::stats::rng::Philox;

const DIM: usize = 24;
const ROWS: usize = 1_200;
/// Noise per coordinate of the copy.
const NOISE: f64 = 0.01;

fn engine(memory: u64) -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        memory,
        ..EngineConfig::default()
    })
    .expect("the CPU is there")
}

fn config() -> AlignConfig {
    AlignConfig {
        k: 10,
        pairs: None,
        method: None,
        min_intact_overlap: 0.85,
        min_similar_overlap: 0.5,
        min_mixable_cosine: 0.99,
        min_recovered_share: 0.95,
        seed: 1,
    }
}

/// Unit rows in twelve topics.
fn topics(rows: usize, dim: usize, stream: u64) -> Vec<f32> {
    let mut centres = Philox::new(5, 0);
    let centres: Vec<Vec<f64>> = (0..12)
        .map(|_| (0..dim).map(|_| centres.normal()).collect())
        .collect();
    let mut random = Philox::new(6, stream);
    (0..rows)
        .flat_map(|row| {
            let x: Vec<f64> = centres[row % 12]
                .iter()
                .map(|c| c + 0.8 * random.normal())
                .collect();
            let norm = x.iter().map(|v| v * v).sum::<f64>().sqrt();
            x.into_iter()
                .map(move |v| (v / norm) as f32)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A rotation of `dim` axes, of which the first `kept` rows are kept.
fn rotation(dim: usize, kept: usize) -> Matrix {
    let mut random = Philox::new(7, 0);
    let square = Matrix::new(dim, dim, (0..dim * dim).map(|_| random.normal()).collect());
    let svd = square.svd().expect("it converges");
    let full = svd.u.times(&svd.v.transpose());
    Matrix::new(kept, dim, full.values()[..kept * dim].to_vec())
}

/// Rows turned into another space, with noise.
fn turned(rows: &[f32], by: &Matrix, noise: f64, stream: u64) -> Vec<f32> {
    let mut random = Philox::new(8, stream);
    rows.chunks_exact(by.rows())
        .flat_map(|row| {
            let x = Matrix::new(1, row.len(), row.iter().map(|&v| f64::from(v)).collect());
            let image = x.times(by);
            image
                .values()
                .iter()
                .map(|v| (v + noise * random.normal()) as f32)
                .collect::<Vec<_>>()
        })
        .collect()
}

fn ids(count: usize, prefix: &str) -> Ids {
    (0..count).map(|i| format!("{prefix}{i}")).collect()
}

fn side<'a>(rows: &'a [f32], dim: usize, ids: &'a Ids) -> AlignSide<'a> {
    AlignSide {
        rows: Rows::new(rows, dim),
        ids,
        groups: None,
        queries: None,
    }
}

#[test]
fn a_rotation_with_noise_is_recovered() {
    let x = topics(ROWS, DIM, 1);
    let map = rotation(DIM, DIM);
    let y = turned(&x, &map, NOISE, 1);
    let names = ids(ROWS, "d");
    let found = align(
        &engine(512 << 20),
        &side(&x, DIM, &names),
        &side(&y, DIM, &names),
        &[],
        &config(),
    )
    .expect("it aligns");
    let alignment = &found.alignment;
    assert_eq!(alignment.mixing.may_mix, MayMix::No);
    assert!(alignment.mixing.statement.starts_with("no:"));
    for result in &alignment.directions {
        assert_eq!(result.state, AdapterState::Recovers, "{}", result.statement);
        let unadapted = result.unadapted.as_ref().expect("one dimension");
        assert!(unadapted.overlap.mean < 0.1);
        // Unit rows plus noise of length NOISE·√d: the best cosine is 1/√(1 + d NOISE²) = 0.9988.
        let ideal = 1.0 / (1.0 + DIM as f64 * NOISE * NOISE).sqrt();
        for method in &result.methods {
            let cosine = method.heldout.mean_cosine.mean;
            assert!(
                (cosine - ideal).abs() < 0.005,
                "{:?} {cosine}",
                method.method
            );
            let [low, high] = method.heldout.mean_cosine.ci95.expect("an interval");
            assert!(low < cosine && cosine < high && high - low < 0.01);
        }
        let taken = result.methods.iter().find(|m| m.method == result.method);
        let overlap = taken.expect("it is listed").heldout.overlap.mean;
        // The mapped copy loses what its own noise costs, which both lists of the copy itself share: it
        // agrees with the target better than the two spaces agree with each other.
        let spaces = result.overlap_of_spaces.expect("all ids are shared").mean;
        assert!(overlap > spaces - 0.02, "{overlap} against {spaces}");
        assert_eq!(
            result.method,
            Method::Procrustes,
            "the simplest that does it"
        );
        let items: usize = result.clusters.iter().map(|c| c.items).sum();
        assert_eq!(items, alignment.pairs.heldout);
        let ordered = |a: f64, b: f64| a <= b;
        assert!(
            result
                .clusters
                .windows(2)
                .all(|c| ordered(c[0].mean_cosine.mean, c[1].mean_cosine.mean))
        );
    }
}

/// The negative control: nothing of an item survives, and every kind of map says so.
#[test]
fn where_there_is_no_map_it_says_so() {
    let x = topics(ROWS, DIM, 1);
    let mut random = Philox::new(4, 4);
    let y: Vec<f32> = (0..ROWS * DIM).map(|_| random.normal() as f32).collect();
    let names = ids(ROWS, "d");
    let found = align(
        &engine(512 << 20),
        &side(&x, DIM, &names),
        &side(&y, DIM, &names),
        &[],
        &config(),
    )
    .expect("it aligns");
    for result in &found.alignment.directions {
        assert_eq!(result.state, AdapterState::NoMap, "{}", result.statement);
        assert!(result.statement.contains("no linear map"));
        for method in &result.methods {
            assert!(method.heldout.r_squared.expect("spread") < 0.05);
            assert!(method.heldout.overlap.mean < 0.1);
        }
    }
}

/// Old queries on the new corpus find nothing as they are and what they should once mapped; the corpora differ
/// in dimension in the second half.
#[test]
fn queries_are_recovered_across_spaces_and_dimensions() {
    for (kept, dim) in [(DIM, DIM), (DIM, DIM + 8)] {
        let map = rotation(dim, kept);
        let x = topics(ROWS, DIM, 1);
        let y = turned(&x, &map, NOISE, 1);
        // A query is its document, a little off.
        let queries = turned(&x[..150 * DIM], &rotation_identity(), 0.05, 2);
        let queries_new = turned(&queries, &map, NOISE, 3);
        let (names, query_names) = (ids(ROWS, "d"), ids(150, "q"));
        let qrels: Vec<Qrel> = (0..150)
            .map(|i| Qrel {
                query: format!("q{i}"),
                document: format!("d{i}"),
                relevance: 1.0,
            })
            .collect();
        let reference = side(&x, DIM, &names);
        let current = side(&y, dim, &names);
        let found = align(
            &engine(512 << 20),
            &AlignSide {
                queries: Some((Rows::new(&queries, DIM), &query_names)),
                ..reference
            },
            &AlignSide {
                queries: Some((Rows::new(&queries_new, dim), &query_names)),
                ..current
            },
            &qrels,
            &config(),
        )
        .expect("it aligns");
        for result in &found.alignment.directions {
            let retrieval = result.retrieval.as_ref().expect("there are queries");
            assert_eq!(retrieval.unadapted.is_some(), dim == DIM);
            assert!(retrieval.unadapted.unwrap_or(0.0) < 0.1);
            assert!(retrieval.reference > 0.9, "{retrieval:?}");
            // 150 queries whose scores are nearly all 1: a hundredth is one and a half queries.
            assert!(retrieval.change.mean > -0.02, "{retrieval:?}");
            assert_eq!(result.state, AdapterState::Recovers, "{}", result.statement);
        }
        assert_eq!(found.adapters[0].direction, Direction::CurrentToReference);
        assert_eq!(
            (
                found.adapters[0].source_dim(),
                found.adapters[0].target_dim()
            ),
            (dim, DIM)
        );
    }
}

fn rotation_identity() -> Matrix {
    let values = (0..DIM * DIM).map(|i| f64::from(u8::from(i / DIM == i % DIM)));
    Matrix::new(DIM, DIM, values.collect())
}

/// Row order, block size and threads change nothing that is printed.
#[test]
fn results_do_not_depend_on_row_order_or_memory() {
    let x = topics(300, DIM, 1);
    let y = turned(&x, &rotation(DIM, DIM), NOISE, 1);
    let reversed =
        |rows: &[f32]| -> Vec<f32> { rows.chunks_exact(DIM).rev().flatten().copied().collect() };
    let (names, reversed_names) = (
        ids(300, "d"),
        (0..300).rev().map(|i| format!("d{i}")).collect(),
    );
    let run = |engine: &Engine, x: &[f32], names: &Ids| -> Aligned {
        align(
            engine,
            &side(x, DIM, names),
            &side(&y, DIM, &ids(300, "d")),
            &[],
            &config(),
        )
        .expect("it aligns")
    };
    let first = run(&engine(512 << 20), &x, &names);
    let small = run(&engine(16 << 20), &x, &names);
    let turned_round = run(&engine(512 << 20), &reversed(&x), &reversed_names);
    let json = |a: &Aligned| serde_json::to_value(&a.alignment).expect("JSON");
    assert_eq!(json(&first), json(&small));
    assert_eq!(first.adapters, turned_round.adapters);
    assert_eq!(json(&first), json(&turned_round));
}

// ---- through the binary ----

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
        .display()
        .to_string()
}

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .current_dir(folder)
        .args(args)
        .args(["--device", "cpu", "--quiet"])
        .output()
        .expect("the binary runs")
}

fn json(folder: &Path, args: &[&str]) -> Value {
    let mut args = args.to_vec();
    args.extend(["--format", "json"]);
    let output = run(folder, &args);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn refused(folder: &Path, args: &[&str], message: &str) {
    let before = files(folder);
    let output = run(folder, args);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {text}");
    assert!(
        text.contains(message),
        "{args:?}: {text}\nexpected: {message}"
    );
    assert_eq!(files(folder), before, "{args:?} left files");
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    files
}

fn read(path: &Path) -> Embeddings {
    let input = path.display().to_string();
    let source = source::open(&input, &ReadOptions::default()).expect("it opens");
    source.read(&mut |_| {}).expect("it reads")
}

#[test]
fn an_adapter_is_written_and_applied() {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let (reference, rotated) = (fixture("reference.parquet"), fixture("rotated.parquet"));
    let found = json(
        folder.path(),
        &[
            "align",
            &reference,
            &rotated,
            "--adapter",
            "map.safetensors",
        ],
    );
    let results = &found["results"];
    assert_eq!(results["mixing"]["may_mix"], "no");
    assert_eq!(
        results["directions"][0]["direction"],
        "current_to_reference"
    );
    assert_eq!(results["directions"][0]["state"], "recovers");
    let first = std::fs::read(path("map.safetensors")).expect("the adapter");
    json(
        folder.path(),
        &[
            "align",
            &reference,
            &rotated,
            "--adapter",
            "map.safetensors",
        ],
    );
    let again = std::fs::read(path("map.safetensors")).expect("the adapter");
    assert_eq!(first, again, "the same inputs give the same bytes");

    json(
        folder.path(),
        &[
            "apply",
            "map.safetensors",
            &rotated,
            "--out",
            "mapped.parquet",
        ],
    );
    let (mapped, wanted) = (read(&path("mapped.parquet")), read(Path::new(&reference)));
    assert_eq!(mapped.len(), read(Path::new(&rotated)).len());
    let row_of: std::collections::HashMap<&str, usize> = wanted.ids.iter().zip(0..).collect();
    let mut cosines = Vec::new();
    for (row, id) in mapped.ids.iter().enumerate() {
        if let Some(&other) = row_of.get(id) {
            let (a, b) = (mapped.rows().row(row), wanted.rows().row(other));
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter()
                    .zip(b)
                    .map(|(&a, &b)| f64::from(a) * f64::from(b))
                    .sum()
            };
            cosines.push(dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt());
        }
    }
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    assert!(
        cosines.len() > 500 && mean > 0.9,
        "{mean} over {}",
        cosines.len()
    );

    // The other format holds the same values.
    json(
        folder.path(),
        &["apply", "map.safetensors", &rotated, "--out", "mapped.npy"],
    );
    let plain = read(&path("mapped.npy"));
    assert_eq!(plain.rows().to_f32(), mapped.rows().to_f32());
}

/// Equal sets, and sets that differ by the rounding of half precision, may be mixed; nothing else here may.
#[test]
fn what_may_be_mixed_is_told() {
    let folder = TempDir::new().expect("a folder");
    let reference = fixture("reference.parquet");
    for (current, answer, words) in [
        ("reference.parquet", "yes", "yes: "),
        ("reference_f16.parquet", "yes", "yes: "),
        ("rotated.parquet", "no", "an adapter makes up for it"),
        ("narrow.parquet", "no", "the dimensions differ (64 and 32)"),
    ] {
        let found = json(folder.path(), &["align", &reference, &fixture(current)]);
        let mixing = &found["results"]["mixing"];
        assert_eq!(mixing["may_mix"], answer, "{current}");
        let statement = mixing["statement"].as_str().expect("a sentence");
        assert!(statement.contains(words), "{current}: {statement}");
    }
}

/// A null row and a row of zeros keep their place; ids keep their names.
#[test]
fn faulty_rows_keep_their_place() {
    let folder = TempDir::new().expect("a folder");
    let (reference, current) = (fixture("reference.parquet"), fixture("current.parquet"));
    json(
        folder.path(),
        &[
            "align",
            &reference,
            &current,
            "--adapter",
            "map.safetensors",
        ],
    );
    let found = json(
        folder.path(),
        &[
            "apply",
            "map.safetensors",
            &current,
            "--out",
            "mapped.parquet",
        ],
    );
    assert_eq!(found["results"]["rows"], 600);
    assert_eq!(found["results"]["null_rows"], 1);
    assert_eq!(found["results"]["zero_rows"], 1);
    let inspect = json(folder.path(), &["inspect", "mapped.parquet"]);
    assert_eq!(inspect["results"]["source"]["rows"], 600);
    let mapped = read(&folder.path().join("mapped.parquet"));
    assert_eq!((mapped.faults.null.rows, mapped.faults.zero.rows), (1, 1));
    assert_eq!(mapped.faults.zero.first_ids, ["doc-00341"]);
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing() {
    let folder = TempDir::new().expect("a folder");
    let at = folder.path();
    let (reference, narrow) = (fixture("reference.parquet"), fixture("narrow.parquet"));
    json(
        at,
        &["align", &reference, &narrow, "--adapter", "map.safetensors"],
    );
    refused(
        at,
        &["apply", "map.safetensors", &reference, "--out", "x.parquet"],
        "the adapter maps the other way round",
    );
    refused(at, &["apply", "map.safetensors", &narrow], "--out");
    refused(
        at,
        &["apply", "map.safetensors", &narrow, "--out", "x.csv"],
        "expected .parquet or .npy",
    );
    refused(
        at,
        &["apply", "map.safetensors", &narrow, "--out", "no/x.npy"],
        "no such folder",
    );
    refused(
        at,
        &[
            "apply",
            &fixture("reference.safetensors"),
            &narrow,
            "--out",
            "x.npy",
        ],
        "is no adapter",
    );
    refused(
        at,
        &["align", &reference, &narrow, "--adapter", "map.bin"],
        ".safetensors",
    );
    refused(at, &["align", &reference, &narrow, "-k", "0"], "-k");
    refused(
        at,
        &["align", &reference, &fixture("broken/no_vector.parquet")],
        "no_vector",
    );
    // A damaged adapter: the matrix is of other shape than the means, or cut off.
    let bytes = std::fs::read(at.join("map.safetensors")).expect("the adapter");
    std::fs::write(at.join("cut.safetensors"), &bytes[..bytes.len() - 8]).expect("a file");
    refused(
        at,
        &["apply", "cut.safetensors", &narrow, "--out", "x.npy"],
        "cut.safetensors",
    );
}
