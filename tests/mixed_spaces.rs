//! Rows of another vector space are found from the vectors alone, and topics are not taken for them.

use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::mixed_spaces::{MixedSpaces, mixed_spaces};
use vecdrift::stats::rng::Philox;

const DIM: usize = 64;

fn engine() -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .unwrap()
}

/// A model: its coordinates' scales fall as those of sentence models do, along axes of its own, and all its
/// rows share a direction.
struct Model {
    axes: Vec<f64>,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mut rng = Philox::new(seed, 1);
        let mut axes: Vec<f64> = (0..DIM * DIM).map(|_| rng.normal()).collect();
        for i in 0..DIM {
            for j in 0..i {
                let dot: f64 = (0..DIM)
                    .map(|c| axes[i * DIM + c] * axes[j * DIM + c])
                    .sum();
                (0..DIM).for_each(|c| axes[i * DIM + c] -= dot * axes[j * DIM + c]);
            }
            let norm = axes[i * DIM..][..DIM]
                .iter()
                .map(|v| v * v)
                .sum::<f64>()
                .sqrt();
            axes[i * DIM..][..DIM].iter_mut().for_each(|v| *v /= norm);
        }
        Self { axes }
    }

    /// Rows around `topics` centres.
    fn rows(&self, count: usize, topics: usize, seed: u64) -> Vec<f32> {
        let mut rng = Philox::new(seed, 2);
        let scale = |j: usize| 1.0 / (1.0 + j as f64).sqrt();
        let mut draw = || {
            (0..DIM)
                .map(|j| scale(j) * rng.normal())
                .collect::<Vec<f64>>()
        };
        let centres: Vec<Vec<f64>> = (0..topics).map(|_| draw()).collect();
        let mut values = Vec::with_capacity(count * DIM);
        for i in 0..count {
            let own = draw();
            let inner: Vec<f64> = (0..DIM)
                .map(|j| {
                    if j == 0 {
                        1.0
                    } else {
                        centres[i % topics][j] + own[j]
                    }
                })
                .collect();
            values.extend((0..DIM).map(|c| {
                (0..DIM)
                    .map(|j| inner[j] * self.axes[j * DIM + c])
                    .sum::<f64>() as f32
            }));
        }
        values
    }
}

fn look(values: &[f32]) -> MixedSpaces {
    let rows = Rows::new(values, DIM);
    let ids: Ids = (0..rows.len()).map(|i| format!("row {i}")).collect();
    mixed_spaces(&engine(), rows, &ids, 0).unwrap().unwrap()
}

/// `count` rows of another model, every 7th from the beginning.
fn hidden(seed: u64, count: usize) -> Vec<f32> {
    let mut values = Model::new(seed).rows(1500, 12, seed);
    let foreign = Model::new(seed + 1000).rows(count, 12, seed + 1000);
    for i in 0..count {
        values[7 * i * DIM..][..DIM].copy_from_slice(&foreign[i * DIM..][..DIM]);
    }
    values
}

#[test]
fn hidden_rows_are_found_by_id() {
    for seed in 0..5 {
        let found = look(&hidden(seed, 75));
        let right = (0..75).filter(|i| found.foreign.contains(&(7 * i))).count();
        assert!(
            right as f64 >= 0.95 * 75.0,
            "seed {seed}: recall {right}/75, {found:?}"
        );
        assert!(
            right as f64 >= 0.95 * found.foreign_rows as f64,
            "seed {seed}: precision {right}/{}",
            found.foreign_rows
        );
        assert_eq!(found.foreign_rows, found.foreign.len() as u64);
    }
}

/// Rows that look like the others' but point along the direction that all rows of the majority share are not
/// taken along: to that direction another space lies as at random.
#[test]
fn strays_of_the_majority_stay_with_it() {
    let (mut strays, mut wrong) = (0, 0);
    for seed in 0..5 {
        let mut values = hidden(seed, 60);
        let axis = Model::new(seed).axes[..DIM].to_vec();
        let like = Model::new(seed + 1000).rows(25, 12, seed + 2000);
        for (i, like) in like.chunks(DIM).enumerate() {
            let length = like.iter().map(|v| v * v).sum::<f32>().sqrt();
            let row = &mut values[(7 * i + 3) * DIM..][..DIM];
            for ((v, along), like) in row.iter_mut().zip(&axis).zip(like) {
                *v = 0.7 * *along as f32 + like / length;
            }
        }
        let found = look(&values);
        let right = (0..60).filter(|i| found.foreign.contains(&(7 * i))).count();
        assert!(right >= 57, "seed {seed}: recall {right}/60, {found:?}");
        strays += 25;
        wrong += found.foreign_rows as usize - right;
    }
    // 107 of 125 where only likelihoods decide.
    assert!(
        8 * wrong <= strays,
        "{wrong} of {strays} strays were taken along"
    );
}

/// The program writes the rows that it found as a table.
#[test]
fn found_rows_are_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let values = hidden(1, 75);
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {DIM}), }}",
        values.len() / DIM
    );
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("x.npy"), bytes).expect("a file");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .args([
            "audit",
            &path("x.npy"),
            &path("x.npy"),
            "--out",
            &path("out"),
            "-q",
        ])
        .args(["--device", "cpu", "--permutations", "19"])
        .output()
        .expect("the program runs");
    assert!(output.status.success(), "{output:?}");
    let table = std::fs::File::open(path("out/foreign.parquet")).expect("the table");
    let table = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(table);
    let rows = table
        .expect("Parquet")
        .metadata()
        .file_metadata()
        .num_rows();
    // Both sides hold the same rows.
    assert!((140..=160).contains(&rows), "{rows}");
}

#[test]
fn clean_topics_raise_no_alarm() {
    for seed in 0..20 {
        for topics in [2, 5, 40] {
            let found = look(&Model::new(seed).rows(1200, topics, seed));
            assert_eq!(
                found.foreign_rows, 0,
                "seed {seed}, {topics} topics: {found:?}"
            );
        }
    }
}

/// Nothing tells one half of a ball from the other.
#[test]
fn isotropic_noise_raises_no_alarm() {
    let mut rng = Philox::new(3, 4);
    let values: Vec<f32> = (0..1000 * DIM).map(|_| rng.normal() as f32).collect();
    assert_eq!(look(&values).foreign_rows, 0);
}

#[test]
fn few_rows_or_dimensions_say_nothing() {
    let values = vec![1.0; 150 * DIM];
    let ids: Ids = (0..150).map(|i| i.to_string()).collect();
    assert!(
        mixed_spaces(&engine(), Rows::new(&values, DIM), &ids, 0)
            .unwrap()
            .is_none()
    );
}
