//! Reading: every format gives the same rows, and no damaged file does more than say so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float16Array, Float32Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Int32Type};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use vecdrift::Result;
use vecdrift::embeddings::{Dtype, Embeddings, IdSource};
use vecdrift::source::{self, ReadOptions};

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
        .display()
        .to_string()
}

fn read(input: &str) -> Result<Embeddings> {
    source::open(input, &ReadOptions::default())?.read(&mut |_| ())
}

/// The message of what must not be readable.
fn refusal(input: &str) -> String {
    let error = read(input).expect_err(input);
    assert!(error.is_input(), "{error}");
    error.to_string()
}

fn write_parquet(folder: &Path, name: &str, columns: Vec<(&str, ArrayRef)>) -> String {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .expect("columns of one length");
    let path = folder.join(name);
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows are written");
    writer.close().expect("a footer");
    path.display().to_string()
}

/// A list column over `values`, cut at `ends`, null where `valid` is false.
fn list(values: ArrayRef, lengths: &[usize], valid: Option<Vec<bool>>) -> ArrayRef {
    let field = Arc::new(Field::new("item", values.data_type().clone(), true));
    Arc::new(ListArray::new(
        field,
        OffsetBuffer::from_lengths(lengths.iter().copied()),
        values,
        valid.map(NullBuffer::from),
    ))
}

fn ids(names: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(names.to_vec()))
}

#[test]
fn every_format_holds_the_same_rows() {
    let all = read(&fixture("reference.parquet")).expect("Parquet");
    assert_eq!((all.len(), all.dim(), all.dtype), (600, 64, Dtype::F32));
    assert_eq!(all.id_source, IdSource::Column("id".into()));
    assert!(!all.ids.are_integers());
    for name in [
        "reference.arrow",
        "reference.npy",
        "reference_f64.npz",
        "reference.safetensors",
        "reference_f16.parquet",
    ] {
        let other = read(&fixture(name)).expect(name);
        assert_eq!(other.dim(), 64, "{name}");
        assert!(other.len() >= 100, "{name}");
        // Half precision keeps 11 bits.
        let tolerance = if other.dtype == Dtype::F16 { 1e-3 } else { 0.0 };
        for (i, row) in other.rows().iter().enumerate() {
            for (a, b) in row.iter().zip(&*all.rows().row(i)) {
                assert!(
                    (a - b).abs() <= tolerance,
                    "{name}, row {i}: {a} is not {b}"
                );
            }
        }
        if other.id_source == IdSource::RowNumber {
            assert!(other.ids.are_integers());
            assert_eq!(other.ids.get(7), "7");
        }
    }
}

#[test]
fn parts_in_a_folder_or_a_glob_are_one_set() {
    let folder = TempDir::new().expect("a folder");
    let part = |from: i64| -> Vec<(&'static str, ArrayRef)> {
        let values = Float64Array::from_iter_values((0..6).map(|v| f64::from(v) + from as f64));
        vec![
            (
                "id",
                Arc::new(Int64Array::from_iter_values(from..from + 3)) as ArrayRef,
            ),
            ("v", list(Arc::new(values), &[2, 2, 2], None)),
        ]
    };
    write_parquet(folder.path(), "b.parquet", part(10));
    write_parquet(folder.path(), "a.parquet", part(1));
    std::fs::write(folder.path().join("_SUCCESS"), "").expect("a marker");
    let whole = folder.path().display().to_string();
    for input in [
        whole.clone(),
        format!("{whole}/*.parquet"),
        format!("{whole}/?.parquet#v"),
    ] {
        let set = read(&input).expect(&input);
        let found: Vec<&str> = set.ids.iter().collect();
        assert_eq!(found, ["1", "2", "3", "10", "11", "12"], "{input}");
        assert!(set.ids.are_integers());
        assert_eq!(*set.rows().row(3), [10.0, 11.0]);
        assert_eq!(set.dtype, Dtype::F64);
    }
    write_parquet(
        folder.path(),
        "c.parquet",
        vec![
            ("id", ids(&["x"])),
            (
                "v",
                list(
                    Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0])),
                    &[3],
                    None,
                ),
            ),
        ],
    );
    let message = refusal(&whole);
    assert!(
        message.contains("c.parquet") && message.contains("dimension 3, expected 2"),
        "{message}"
    );
}

#[test]
fn faulty_rows_are_counted_named_and_left_out() {
    let folder = TempDir::new().expect("a folder");
    let values = Float64Array::from(vec![
        Some(1.0),
        Some(2.0), // sound
        Some(0.0),
        Some(-0.0), // zero
        Some(f64::NAN),
        Some(1.0), // not finite
        None,
        Some(1.0), // a null value
        Some(1e300),
        Some(1.0), // finite in f64 only
        Some(3.0),
        Some(4.0), // sound
    ]);
    let vectors = list(
        Arc::new(values),
        &[2, 2, 2, 2, 2, 0, 2],
        Some(vec![true, true, true, true, true, false, true]),
    );
    let dictionary: DictionaryArray<Int32Type> =
        ["a", "b", "c", "d", "e", "f", "g"].into_iter().collect();
    let input = write_parquet(
        folder.path(),
        "faulty.parquet",
        vec![("doc_id", Arc::new(dictionary)), ("v", vectors)],
    );
    let set = read(&input).expect("two sound rows");
    assert_eq!(set.rows_read, 7);
    assert_eq!(set.ids.iter().collect::<Vec<_>>(), ["a", "g"]);
    assert_eq!(*set.rows().to_f32(), [1.0, 2.0, 3.0, 4.0]);
    assert_eq!(set.faults.zero.first_ids, ["b"]);
    assert_eq!(set.faults.non_finite.first_ids, ["c", "d", "e"]);
    assert_eq!(set.faults.null.first_ids, ["f"]);
}

#[test]
fn only_wanted_columns_are_read_and_metadata_comes_as_text() {
    let folder = TempDir::new().expect("a folder");
    let halves: Vec<half::f16> = [1.0, 2.0, 3.0, 4.0].map(half::f16::from_f32).to_vec();
    let input = write_parquet(
        folder.path(),
        "meta.parquet",
        vec![
            ("key", ids(&["a", "b"])),
            ("year", Arc::new(Int64Array::from(vec![Some(2025), None]))),
            (
                "v",
                list(Arc::new(Float16Array::from(halves)), &[2, 2], None),
            ),
        ],
    );
    let options = ReadOptions {
        id: Some("key".into()),
        columns: vec!["year".into()],
    };
    let set = source::open(&input, &options)
        .and_then(|s| s.read(&mut |_| ()))
        .expect("metadata");
    assert_eq!(
        set.columns,
        [("year".to_owned(), vec!["2025".to_owned(), String::new()])]
    );
    assert_eq!(set.dtype, Dtype::F16);
    let options = ReadOptions {
        id: Some("nothing".into()),
        ..ReadOptions::default()
    };
    let error = source::open(&input, &options)
        .map(|_| ())
        .expect_err("no such column");
    assert!(
        error.to_string().contains("no column \"nothing\""),
        "{error}"
    );
    assert!(
        error.hint_text().is_some_and(|h| h.contains("key")),
        "{error:?}"
    );
}

#[test]
fn every_refusal_names_the_place_the_fact_and_the_expectation() {
    let folder = TempDir::new().expect("a folder");
    let f32s = |n: usize| -> ArrayRef {
        Arc::new(Float32Array::from_iter_values(
            (0..n).map(|v| v as f32 + 1.0),
        ))
    };
    let write = |name: &str, columns| write_parquet(folder.path(), name, columns);
    let cases = [
        (
            write(
                "ragged.parquet",
                vec![
                    ("id", ids(&["a", "b"])),
                    ("v", list(f32s(5), &[2, 3], None)),
                ],
            ),
            "column \"v\": row 1 has 3 values, expected 2",
        ),
        (
            write(
                "two.parquet",
                vec![
                    ("v", list(f32s(2), &[2], None)),
                    ("w", list(f32s(2), &[2], None)),
                ],
            ),
            "two vector columns, \"v\" and \"w\", expected one",
        ),
        (
            write("none.parquet", vec![("id", ids(&["a"]))]),
            "no vector column, expected a list of f16, f32 or f64",
        ),
        (
            write(
                "twice.parquet",
                vec![
                    ("id", ids(&["a", "a"])),
                    ("v", list(f32s(4), &[2, 2], None)),
                ],
            ),
            "id \"a\" stands on two rows",
        ),
        (
            write(
                "null_id.parquet",
                vec![
                    (
                        "id",
                        Arc::new(StringArray::from(vec![Some("a"), None])) as ArrayRef,
                    ),
                    ("v", list(f32s(4), &[2, 2], None)),
                ],
            ),
            "id column \"id\": row 1 is null, expected an id",
        ),
        (
            write("empty_list.parquet", vec![("v", list(f32s(0), &[0], None))]),
            "dimension 0",
        ),
        (
            format!("{}#id", fixture("reference.parquet")),
            "expected a list of f16, f32 or f64",
        ),
        (fixture("broken/integer.npy"), "expected f2, f4 or f8"),
        (
            fixture("broken/not_parquet.parquet"),
            "holds npy data, expected Parquet by its name",
        ),
        (
            folder.path().join("nowhere.npy").display().to_string(),
            "no such file or folder",
        ),
        (
            folder.path().join("*.nothing").display().to_string(),
            "no files, expected at least one",
        ),
    ];
    for (input, expected) in cases {
        let message = refusal(&input);
        assert!(
            message.contains(expected),
            "{message}\nexpected: {expected}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn a_damaged_file_is_refused_or_read_but_never_more() {
    let folder = TempDir::new().expect("a folder");
    for name in [
        "reference.arrow",
        "reference.npy",
        "reference_f64.npz",
        "reference.safetensors",
        "queries_reference.parquet",
    ] {
        let bytes = std::fs::read(fixture(name)).expect(name);
        let path: PathBuf = folder.path().join(name);
        let input = path.display().to_string();
        // Cut: the beginning and the end byte by byte, the rest in steps.
        let cuts = (0..bytes.len())
            .filter(|&n| n < 120 || n + 120 > bytes.len() || n.is_multiple_of(bytes.len() / 50));
        for cut in cuts {
            std::fs::write(&path, &bytes[..cut]).expect("a cut file");
            assert!(
                read(&input).is_err(),
                "{name} cut to {cut} of {} bytes",
                bytes.len()
            );
        }
        // Flip: whatever comes of it is a result or an error.
        for at in (0..bytes.len()).filter(|&n| n < 120 || n + 120 > bytes.len()) {
            let mut flipped = bytes.clone();
            flipped[at] ^= 0xff;
            std::fs::write(&path, &flipped).expect("a flipped file");
            let _ = read(&input);
        }
    }
}

#[test]
fn fixed_size_lists_may_be_slices() {
    let folder = TempDir::new().expect("a folder");
    let values: ArrayRef = Arc::new(Float32Array::from_iter_values((0..8).map(|v| v as f32)));
    let field = Arc::new(Field::new("item", DataType::Float32, true));
    let whole = arrow::array::FixedSizeListArray::new(field, 2, values, None);
    let batch = RecordBatch::try_from_iter([
        ("id", ids(&["a", "b", "c", "d"])),
        ("v", Arc::new(whole) as ArrayRef),
    ])
    .expect("a batch")
    .slice(1, 2);
    let path = folder.path().join("slice.arrow");
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer =
        arrow::ipc::writer::StreamWriter::try_new(file, &batch.schema()).expect("a writer");
    writer.write(&batch).expect("rows are written");
    writer.finish().expect("an end");
    let set = read(&path.display().to_string()).expect("an Arrow stream");
    assert_eq!(set.ids.iter().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(*set.rows().to_f32(), [2.0, 3.0, 4.0, 5.0]);
}
