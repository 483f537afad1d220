//! Half-precision sets give what the same values give in single precision, in every command, to the bit.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float16Array, Float32Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Field};
use half::f16;
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use tempfile::TempDir;
use vecdrift::stats::rng::Philox;

const ROWS: usize = 2_200;
const DIM: usize = 37;

/// Rows in topics, all values halves; those of `moved` differ a little from those of 0.
fn values(moved: f64) -> Vec<f32> {
    let mut centres = Philox::new(31, 0);
    let centres: Vec<f64> = (0..9 * DIM).map(|_| centres.normal()).collect();
    let (mut random, mut noise) = (Philox::new(32, 0), Philox::new(33, 0));
    (0..ROWS * DIM)
        .map(|at| {
            let centre = centres[(at / DIM % 9) * DIM + at % DIM];
            let value = centre + 0.7 * random.normal() + moved * noise.normal();
            f16::from_f64(value).to_f32()
        })
        .collect()
}

/// Writes rows with ids, in the order of `rows`.
fn write(path: &Path, values: &[f32], half: bool, rows: impl Iterator<Item = usize> + Clone) {
    let items = rows
        .clone()
        .flat_map(|row| &values[row * DIM..(row + 1) * DIM]);
    let items: ArrayRef = if half {
        Arc::new(Float16Array::from_iter_values(
            items.map(|&v| f16::from_f32(v)),
        ))
    } else {
        Arc::new(Float32Array::from_iter_values(items.copied()))
    };
    let field = Arc::new(Field::new("item", items.data_type().clone(), true));
    assert!(matches!(field.data_type(), DataType::Float16) == half);
    let vectors = FixedSizeListArray::new(field, DIM as i32, items, None);
    let ids = StringArray::from_iter_values(rows.map(|row| format!("d{row}")));
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("vector", Arc::new(vectors))];
    let batch = RecordBatch::try_from_iter(columns).expect("two columns");
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("a batch");
    writer.close().expect("a footer");
}

/// The reference and, in another order, the current set.
fn folder(half: bool) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    write(&path("old.parquet"), &values(0.0), half, 0..ROWS);
    write(&path("new.parquet"), &values(0.05), half, (0..ROWS).rev());
    folder
}

fn results(folder: &Path, args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .current_dir(folder)
        .args(args)
        .args(["--device", "cpu", "--format", "json", "--quiet"])
        .output()
        .expect("the program starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{args:?}: {error}");
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    json["results"].clone()
}

#[test]
fn halves_held_as_halves_change_no_bit() {
    let (half, single) = (folder(true), folder(false));
    for args in [
        &["audit", "old.parquet", "new.parquet"][..],
        &["overlap", "old.parquet", "new.parquet", "--queries", "500"],
        &["mmd", "old.parquet", "new.parquet"],
        &["cosine", "old.parquet"],
        &["cosine", "old.parquet", "new.parquet"],
        &["cosine", "old.parquet", "--above", "0.9"],
        &["knn", "old.parquet", "-k", "7"],
        &["knn", "old.parquet", "new.parquet", "-k", "7"],
        &[
            "align",
            "old.parquet",
            "new.parquet",
            "--adapter",
            "map.safetensors",
        ],
    ] {
        let [a, b] = [&half, &single].map(|folder| results(folder.path(), args));
        assert!(!a.is_null() && a == b, "{args:?}");
    }
}
