//! Rows that pass by give what the same rows give in memory, bit by bit: from every format, with faulty
//! rows, at several block sizes, on the CPU and on a GPU.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Float64Array, Int64Array, ListArray,
    RecordBatch, StringArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::{FileWriter, IpcWriteOptions, StreamWriter};
use half::f16;
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use vecdrift::Result;
use vecdrift::embeddings::{Dtype, Embeddings, RowStream, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Metric, Neighbors, SelfExclusion};
use vecdrift::metrics::cosine;
use vecdrift::metrics::moments::UnitMoments;
use vecdrift::source::{self, ReadOptions, Source};
use vecdrift::stats::rng::Philox;

// Data.

/// Long enough for two reads of 4 MiB of f32, and for many blocks of 64 rows.
const ROWS: usize = 2600;
const DIM: usize = 420;

/// Rows with faults: here and there, a run longer than a block, and at the end more than a block, so
/// that fewer blocks come than headers promise.
fn is_faulty(row: usize) -> bool {
    row.is_multiple_of(97) || (700..800).contains(&row) || row >= ROWS - 130
}

/// Rows × values, every value a half; faulty rows are NaN, infinite or zero in turn.
fn values() -> Vec<f32> {
    let mut random = Philox::new(11, 0);
    let mut values = Vec::with_capacity(ROWS * DIM);
    for row in 0..ROWS {
        let length = 2f64.powi(row as i32 % 5 - 2);
        let at = values.len();
        values.extend((0..DIM).map(|_| f16::from_f64(length * (random.normal() + 0.2)).to_f32()));
        match (is_faulty(row), row % 3) {
            (false, _) => {}
            (true, 0) => values[at + 7] = f32::NAN,
            (true, 1) => values[at + DIM - 1] = f32::NEG_INFINITY,
            (true, _) => values[at..].fill(0.0),
        }
    }
    values
}

fn queries() -> Vec<f32> {
    let mut random = Philox::new(12, 0);
    (0..70 * DIM).map(|_| random.normal() as f32).collect()
}

// Files.

/// Little-endian bytes of values in a precision.
fn bytes(values: impl Iterator<Item = f32>, dtype: Dtype) -> Vec<u8> {
    values
        .flat_map(|v| match dtype {
            Dtype::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
            Dtype::F32 => v.to_le_bytes().to_vec(),
            Dtype::F64 => f64::from(v).to_le_bytes().to_vec(),
        })
        .collect()
}

fn npy(descr: &str, fortran: &str, rows: usize, dim: usize, data: &[u8]) -> Vec<u8> {
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': ({rows}, {dim}), }}");
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(padded - 1 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

fn npz(array: &[u8]) -> Vec<u8> {
    let mut archive = npyz::npz::NpzWriter::new(std::io::Cursor::new(Vec::new()));
    let zip = archive.zip_writer();
    zip.start_file("vectors.npy", Default::default())
        .expect("a member");
    zip.write_all(array).expect("its bytes");
    zip.finish().expect("a directory").into_inner()
}

/// Rows `range` as a record batch; faulty rows that are no zeros are null in part or whole.
fn batch(values: &[f32], range: std::ops::Range<usize>, dtype: Dtype, fixed: bool) -> RecordBatch {
    let part = values[range.start * DIM..range.end * DIM].iter().copied();
    let items: ArrayRef = match dtype {
        Dtype::F16 => Arc::new(Float16Array::from_iter_values(part.map(f16::from_f32))),
        Dtype::F32 => Arc::new(Float32Array::from_iter_values(part)),
        Dtype::F64 => Arc::new(Float64Array::from_iter_values(part.map(f64::from))),
    };
    let field = Arc::new(Field::new("item", items.data_type().clone(), true));
    let valid: NullBuffer = range
        .clone()
        .map(|row| !(is_faulty(row) && row % 6 == 3))
        .collect::<Vec<bool>>()
        .into();
    let vectors: ArrayRef = if fixed {
        Arc::new(FixedSizeListArray::new(
            field,
            DIM as i32,
            items,
            Some(valid),
        ))
    } else {
        let offsets = OffsetBuffer::from_lengths(range.clone().map(|_| DIM));
        Arc::new(ListArray::new(field, offsets, items, Some(valid)))
    };
    let names: ArrayRef = if fixed {
        Arc::new(StringArray::from_iter_values(
            range.map(|row| format!("row {row}")),
        ))
    } else {
        Arc::new(Int64Array::from_iter_values(
            range.map(|row| 7 * row as i64 - 90),
        ))
    };
    RecordBatch::try_from_iter_with_nullable([("id", names, false), ("v", vectors, true)])
        .expect("columns of one length")
}

/// Batches of uneven sizes over all rows.
fn batches(values: &[f32], dtype: Dtype, fixed: bool) -> Vec<RecordBatch> {
    [0, 1, 1000, 1001, 1900, ROWS]
        .windows(2)
        .map(|ends| batch(values, ends[0]..ends[1], dtype, fixed))
        .collect()
}

fn write_parquet(path: &Path, batches: &[RecordBatch]) {
    let file = std::fs::File::create(path).expect("a file");
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_max_row_group_row_count(Some(500))
        .build();
    let mut writer =
        ArrowWriter::try_new(file, batches[0].schema(), Some(properties)).expect("a writer");
    for batch in batches {
        writer.write(batch).expect("rows are written");
    }
    writer.close().expect("a footer");
}

fn write_arrow_stream(path: &Path, batches: &[RecordBatch], compression: Option<CompressionType>) {
    let options = IpcWriteOptions::default()
        .try_with_compression(compression)
        .expect("an option");
    let file = std::fs::File::create(path).expect("a file");
    let mut writer =
        StreamWriter::try_new_with_options(file, &batches[0].schema(), options).expect("a writer");
    for batch in batches {
        writer.write(batch).expect("rows are written");
    }
    writer.finish().expect("an end");
}

/// The rows in every format that can be read; the precision of each.
fn write_all(folder: &Path) -> Vec<(String, Dtype)> {
    let values = values();
    let columns = || (0..DIM).flat_map(|c| (0..ROWS).map(move |r| (r, c)));
    let by_column: Vec<f32> = columns().map(|(r, c)| values[r * DIM + c]).collect();
    let rows = |dtype| bytes(values.iter().copied(), dtype);
    let turned = |dtype| bytes(by_column.iter().copied(), dtype);
    let mut files = Vec::new();
    let mut add = |name: &str, dtype, write: &dyn Fn(&Path)| {
        let path = folder.join(name);
        write(&path);
        files.push((path.display().to_string(), dtype));
    };
    for (dtype, descr, name) in [
        (Dtype::F16, "<f2", "f16"),
        (Dtype::F32, "<f4", "f32"),
        (Dtype::F64, "<f8", "f64"),
    ] {
        let array = npy(descr, "False", ROWS, DIM, &rows(dtype));
        let fortran = npy(descr, "True", ROWS, DIM, &turned(dtype));
        let put = |data: Vec<u8>| move |path: &Path| std::fs::write(path, &data).expect("a file");
        add(&format!("{name}.npz"), dtype, &put(npz(&array)));
        add(&format!("{name}_fortran.npz"), dtype, &put(npz(&fortran)));
        add(&format!("{name}.npy"), dtype, &put(array));
        add(&format!("{name}_fortran.npy"), dtype, &put(fortran));
        let parquet = batches(&values, dtype, false);
        add(&format!("{name}.parquet"), dtype, &|path| {
            write_parquet(path, &parquet);
        });
    }
    let tensor = rows(Dtype::F16);
    add("f16.safetensors", Dtype::F16, &|path| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F16, vec![ROWS, DIM], &tensor)
                .expect("a tensor");
        let all = safetensors::serialize([("v", view)], None).expect("a file");
        std::fs::write(path, all).expect("a file");
    });
    let fixed = batches(&values, Dtype::F16, true);
    add("parts", Dtype::F16, &|path| {
        std::fs::create_dir(path).expect("a folder");
        for (i, batch) in fixed.iter().enumerate() {
            write_parquet(
                &path.join(format!("part-{i}.parquet")),
                std::slice::from_ref(batch),
            );
        }
    });
    add("stream.arrows", Dtype::F16, &|path| {
        write_arrow_stream(path, &fixed, None);
    });
    let lists = batches(&values, Dtype::F32, false);
    add("compressed.arrows", Dtype::F32, &|path| {
        write_arrow_stream(path, &lists, Some(CompressionType::ZSTD));
    });
    add("file.arrow", Dtype::F32, &|path| {
        let file = std::fs::File::create(path).expect("a file");
        let mut writer = FileWriter::try_new(file, &lists[0].schema()).expect("a writer");
        for batch in &lists {
            writer.write(batch).expect("rows are written");
        }
        writer.finish().expect("a footer");
    });
    files
}

fn open(input: &str) -> Source {
    source::open(input, &ReadOptions::default()).expect(input)
}

fn hold(input: &str) -> Embeddings {
    open(input).read(&mut |_| ()).expect(input)
}

// Engines.

fn engine(device: DeviceChoice, memory: u64) -> Engine {
    Engine::new(&EngineConfig {
        device,
        memory,
        ..EngineConfig::default()
    })
    .expect("the device opens")
}

/// Blocks of 64 rows, of some hundred (no divisor of the reads), and of as many as there are; the GPU
/// where one is required.
fn engines() -> Vec<(String, Engine)> {
    let mut devices = vec![DeviceChoice::Cpu];
    if std::env::var_os("VECDRIFT_REQUIRE_GPU").is_some_and(|v| v == "1") {
        devices.push(DeviceChoice::Gpu);
    } else {
        println!("SKIPPED: no stream went to a GPU; set VECDRIFT_REQUIRE_GPU=1 to require one");
    }
    let mut engines = Vec::new();
    for device in devices {
        for memory in [0, 2 << 20, 512 << 20] {
            let name = format!("{device:?}, {memory} bytes");
            engines.push((name, engine(device.clone(), memory)));
        }
    }
    engines
}

/// Scores as bits, so that −0 is not 0.
fn bits(found: &Neighbors) -> Vec<Vec<(u64, u32)>> {
    found
        .lists
        .iter()
        .map(|list| list.iter().map(|&(s, row)| (s.to_bits(), row)).collect())
        .collect()
}

// Engine and readers.

#[test]
fn every_format_streams_what_it_holds() {
    let folder = TempDir::new().expect("a folder");
    let queries = queries();
    let queries = Rows::new(&queries, DIM);
    let cpu = engine(DeviceChoice::Cpu, 2 << 20);
    let sound = (0..ROWS).filter(|&row| !is_faulty(row)).count();
    let mut answers = BTreeSet::new();
    for (input, dtype) in write_all(folder.path()) {
        let set = hold(&input);
        assert_eq!((set.len(), set.rows_read), (sound, ROWS as u64), "{input}");
        assert_eq!(set.dtype, dtype, "{input}");
        let mut stream = open(&input).stream();
        assert_eq!(stream.most_rows(), ROWS, "{input}: headers tell");
        for metric in [Metric::Cosine, Metric::Dot] {
            let mut stream = open(&input).stream();
            let held = cpu.nearest(queries, set.rows(), 9, metric, None);
            let streamed = cpu.nearest(queries, &mut stream, 9, metric, None);
            let (held, streamed) = (held.expect("held"), streamed.expect("streamed"));
            assert_eq!(bits(&held), bits(&streamed), "{input} {metric:?}");
            answers.insert(bits(&held));
            stream.finish().expect(&input);
        }
        // What is known of the set afterwards is the same too.
        while !stream.next_rows(100).expect(&input).is_empty() {}
        let roster = stream.finish().expect(&input);
        assert_eq!(roster.rows_read, set.rows_read, "{input}");
        assert_eq!(roster.ids.checksum(), set.ids.checksum(), "{input}");
        assert_eq!(roster.faults.rows(), set.faults.rows(), "{input}");
        assert_eq!(
            roster.faults.zero.first_ids, set.faults.zero.first_ids,
            "{input}"
        );
        let some = [0u32, 5, sound as u32 - 1, 699, 700];
        let (selected, expected) = (roster.ids.select(&some), set.ids.select(&some));
        assert!(selected.iter().eq(expected.iter()), "{input}");
        assert_eq!(selected.are_integers(), expected.are_integers(), "{input}");
    }
    // The values are halves: however they were stored, there is one answer per metric.
    assert_eq!(answers.len(), 2);
}

#[test]
fn streams_answer_alike_at_any_block_size_on_any_device() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("base.npy");
    let data = bytes(values().into_iter(), Dtype::F16);
    std::fs::write(&path, npy("<f2", "False", ROWS, DIM, &data)).expect("a file");
    let input = path.display().to_string();
    let set = hold(&input);
    let queries = queries();
    let queries = Rows::new(&queries, DIM);
    // Every third base row asks too, and must not find itself.
    let own: Vec<u32> = (0..set.len() as u32).collect();
    let askers: Vec<u32> = own.iter().copied().step_by(3).collect();
    let asking = set.gather(&askers);
    let asking = asking.rows(DIM);
    let exclude = Some(SelfExclusion {
        queries: &askers,
        base: &own,
    });
    let mut answers = BTreeSet::new();
    for (name, engine) in engines() {
        let mut answer = Vec::new();
        for (queries, k, metric, exclude) in [
            (queries, 10, Metric::Cosine, None),
            (queries, 1, Metric::Dot, None),
            (queries, ROWS + 5, Metric::Dot, None),
            (asking, 4, Metric::Cosine, exclude),
        ] {
            let held = engine.nearest(queries, set.rows(), k, metric, exclude);
            let stream = open(&input).stream();
            let streamed = engine.nearest(queries, stream, k, metric, exclude);
            let (held, streamed) = (held.expect("held"), streamed.expect("streamed"));
            assert_eq!(bits(&held), bits(&streamed), "{name}, k = {k}, {metric:?}");
            assert!(held.lists.iter().all(|list| list.len() == k.min(set.len())));
            answer.push(bits(&held));
        }
        answers.insert(answer);

        let held = engine.pair_histogram(queries, Some(set.rows()));
        let streamed = engine.pair_histogram_with(queries, open(&input).stream());
        assert_eq!(
            held.expect("held"),
            streamed.expect("streamed"),
            "{name}: cosines"
        );
    }
    assert_eq!(answers.len(), 1, "one answer on all devices");
}

#[test]
fn cosines_and_their_moments_stream() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("y.parquet");
    write_parquet(&path, &batches(&values(), Dtype::F32, true));
    let input = path.display().to_string();
    let set = hold(&input);
    let x = queries();
    let x = Rows::new(&x, DIM);
    for (name, engine) in engines() {
        let x_unit = UnitMoments::of(&engine, x).expect("moments");
        let held = UnitMoments::of(&engine, set.rows()).expect("moments");
        let mut reads = 0;
        let streamed = UnitMoments::of_stream(&engine, || {
            reads += 1;
            Ok(open(&input).stream())
        })
        .expect("moments");
        assert_eq!(reads, 2, "once for the mean, once about it");
        assert_eq!(held.0.mean, streamed.0.mean, "{name}");
        assert_eq!(held.0.scatter, streamed.0.scatter, "{name}");
        assert_eq!(
            (held.0.rows, held.0.fourth.to_bits()),
            (streamed.0.rows, streamed.0.fourth.to_bits()),
            "{name}"
        );
        let json = |distribution| serde_json::to_string(&distribution).expect("JSON");
        let between = cosine::between(&engine, x, set.rows(), &x_unit, &held).expect("held");
        let stream = open(&input).stream();
        let passed = cosine::between_stream(&engine, x, stream, &x_unit, &streamed);
        assert_eq!(json(between), json(passed.expect("streamed")), "{name}");
    }
}

/// Rows in memory as a stream that watches how it is read, and can be made to fail to be what it was.
struct Watched<'a> {
    rows: Rows<'a>,
    asked: Vec<usize>,
    /// Hands the rows out in pairs turned round.
    swapped: bool,
}

impl<'a> RowStream<'a> for Watched<'a> {
    fn dim(&self) -> usize {
        self.rows.dim()
    }

    fn most_rows(&self) -> usize {
        // More than there are, as where faulty rows follow.
        self.rows.len() + 500
    }

    fn next_rows(&mut self, rows: usize) -> Result<Cow<'a, [f32]>> {
        self.asked.push(rows);
        let next = self.rows.next_rows(rows)?;
        if !self.swapped {
            return Ok(next);
        }
        let mut turned = next.into_owned();
        for pair in turned.chunks_exact_mut(2 * DIM) {
            pair.rotate_left(DIM);
        }
        Ok(turned.into())
    }
}

#[test]
fn a_base_is_asked_for_block_by_block_and_rows_out_of_order_are_noticed() {
    let mut values = values();
    values.truncate(600 * DIM);
    let sound: Vec<f32> = values
        .chunks(DIM)
        .filter(|row| row.iter().all(|v| v.is_finite()) && row[0] != 0.0)
        .flatten()
        .copied()
        .collect();
    let base = Rows::new(&sound, DIM);
    let queries = queries();
    let queries = Rows::new(&queries, DIM);
    let engine = engine(DeviceChoice::Cpu, 0);
    let held = engine.nearest(queries, base, 10, Metric::Cosine, None);
    let held = held.expect("held");
    let answer = |swapped| {
        let mut stream = Watched {
            rows: base,
            asked: Vec::new(),
            swapped,
        };
        let found = engine.nearest(queries, &mut stream, 10, Metric::Cosine, None);
        (found.expect("streamed"), stream)
    };
    let (found, stream) = answer(false);
    assert_eq!(bits(&found), bits(&held));
    assert_eq!(stream.rows.len(), 0, "read to the end");
    assert!(
        stream.asked.iter().all(|&rows| rows <= 64),
        "a block at a time: {:?}",
        stream.asked
    );
    assert_eq!(stream.asked.iter().sum::<usize>(), base.len() + 500);

    // Negative control: a stream that mixes up two rows gives other lists.
    assert_ne!(bits(&answer(true).0), bits(&held));
}

#[test]
fn what_breaks_in_the_middle_is_an_error() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, data: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, data).expect("a file");
        path
    };
    // Noise, which no compression shortens: the middle of the file is in the middle of the values.
    let mut random = Philox::new(5, 0);
    let noise: Vec<f32> = (0..ROWS * DIM)
        .map(|_| random.uniform() as f32 + 0.5)
        .collect();
    let data = bytes(noise.iter().copied(), Dtype::F32);
    let array = npy("<f4", "False", ROWS, DIM, &data);
    let mut archive = npz(&array);
    let middle = archive.len() / 2;
    archive[middle] ^= 0x10;

    let whole = folder.path().join("whole.arrows");
    let lists = batches(&noise, Dtype::F32, false);
    write_arrow_stream(&whole, &lists, None);
    let stream = std::fs::read(&whole).expect("a file");

    let twice = folder.path().join("twice.parquet");
    write_parquet(
        &twice,
        &[lists[3].clone(), lists[2].clone(), lists[3].clone()],
    );
    let cases = [
        (write("flipped.npz", &archive), "npz"),
        (
            write("cut.arrows", &stream[..stream.len() / 2]),
            "Arrow IPC",
        ),
        (twice, "stands on two rows"),
    ];
    let queries = queries();
    let engine = engine(DeviceChoice::Cpu, 2 << 20);
    for (path, expected) in cases {
        let input = path.display().to_string();
        let mut stream = open(&input).stream();
        let found = engine.nearest(
            Rows::new(&queries, DIM),
            &mut stream,
            3,
            Metric::Cosine,
            None,
        );
        let error = found
            .and_then(|_| stream.finish())
            .expect_err("a broken file");
        let message = error.to_string();
        assert!(error.is_input(), "{message}");
        assert!(
            message.contains(expected) && message.contains(&input),
            "{message}"
        );
        assert!(!message.contains('\n'), "{message}");
    }
}

// The binary.

/// Rows × 64 values, 18 MiB of f32: more than the least `--memory`.
const LARGE: usize = 140_000;

fn write_large(folder: &Path) {
    let mut random = Philox::new(3, 0);
    let mut large: Vec<f32> = (0..LARGE * 64)
        .map(|_| f16::from_f64(random.uniform() - 0.5).to_f32())
        .collect();
    large[64 * 1000..64 * 1001].fill(0.0);
    large[64 * 74_000 + 3] = f32::INFINITY;
    let save = |name: &str, (dtype, descr): (Dtype, &str), values: &[f32]| {
        let data = bytes(values.iter().copied(), dtype);
        let array = npy(descr, "False", values.len() / 64, 64, &data);
        std::fs::write(folder.join(name), array).expect("a file");
    };
    save("large.npy", (Dtype::F32, "<f4"), &large);
    save("halves.npy", (Dtype::F16, "<f2"), &large);
    save("few.npy", (Dtype::F16, "<f2"), &large[64 * 2000..64 * 2030]);
    // A stream whose last batch has a vector too long.
    let rows = |lengths: Vec<usize>, from: usize| {
        let items = Float32Array::from(large[..lengths.iter().sum()].to_vec());
        let field = Arc::new(Field::new("item", DataType::Float32, true));
        let lists = ListArray::new(
            field,
            OffsetBuffer::from_lengths(lengths.iter().copied()),
            Arc::new(items),
            None,
        );
        let ids = Int64Array::from_iter_values((from..from + lengths.len()).map(|id| id as i64));
        RecordBatch::try_from_iter([("id", Arc::new(ids) as ArrayRef), ("v", Arc::new(lists))])
            .expect("columns of one length")
    };
    let mut ragged = vec![64; 1000];
    ragged[17] = 63;
    let parts = [rows(vec![64; LARGE - 1000], 0), rows(ragged, LARGE)];
    write_arrow_stream(&folder.join("ragged.arrows"), &parts, None);
}

fn run(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .current_dir(folder)
        .args(args)
        .args(["--device", "cpu"])
        .output()
        .expect("the binary runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The JSON of a run that succeeded, without what may differ.
fn json(output: &Output) -> serde_json::Value {
    assert!(output.status.success(), "{}", stderr(output));
    let mut value: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON object");
    let object = value.as_object_mut().expect("an object");
    object.remove("timings");
    object["results"]
        .as_object_mut()
        .expect("results")
        .remove("out");
    value
}

#[test]
fn memory_decides_what_is_held_and_nothing_else() {
    let folder = TempDir::new().expect("a folder");
    write_large(folder.path());
    let run = |args: &[&str]| run(folder.path(), args);
    let knn = |base, memory, out| {
        run(&[
            "knn", base, "few.npy", "-k", "3", "--memory", memory, "--out", out, "--format", "json",
        ])
    };
    assert_eq!(
        json(&knn("large.npy", "16MiB", "streamed.parquet")),
        json(&knn("large.npy", "64MiB", "held.parquet"))
    );
    let file = |name: &str| std::fs::read(folder.path().join(name)).expect(name);
    assert_eq!(file("streamed.parquet"), file("held.parquet"));
    // Half precision holds the same values here.
    for memory in ["16MiB", "64MiB"] {
        json(&knn("halves.npy", memory, "halves.parquet"));
        assert_eq!(file("halves.parquet"), file("held.parquet"), "{memory}");
    }

    let cosine = |memory| {
        let args = ["cosine", "few.npy", "large.npy", "--format", "json"];
        json(&run(&[&args[..], &["--memory", memory]].concat()))
    };
    let streamed = cosine("16MiB");
    assert_eq!(streamed, cosine("64MiB"));
    assert_eq!(streamed["inputs"][1]["usable_rows"], LARGE - 2);
    assert_eq!(streamed["results"]["pairs"], 30 * (LARGE - 2));

    let plan = |args: &[&str]| {
        let output = run(&[args, &["--dry-run"]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let lines = stderr(&output);
        let mut reads: Vec<String> = lines
            .lines()
            .filter(|line| line.trim_start().starts_with("read"))
            .map(|line| line.trim().to_owned())
            .collect();
        reads.sort();
        reads
    };
    let reads = plan(&["knn", "large.npy", "few.npy", "--memory", "16MiB"]);
    assert!(reads[0].starts_with("read   few.npy") && reads[0].contains("held"));
    assert!(reads[1].contains("large.npy: 140000 rows") && reads[1].ends_with("streamed"));
    let reads = plan(&["knn", "large.npy", "few.npy", "--memory", "64MiB"]);
    assert!(reads.iter().all(|line| line.contains("held")), "{reads:?}");
    // Half precision is held as such: in half the memory.
    for args in [
        ["knn", "halves.npy", "few.npy"],
        ["cosine", "few.npy", "halves.npy"],
    ] {
        for (memory, residence) in [("32MiB", "held"), ("16MiB", "streamed")] {
            let reads = plan(&[&args[..], &["--memory", memory]].concat());
            assert!(
                reads[1].contains("halves.npy") && reads[1].contains(residence),
                "{reads:?}"
            );
        }
    }
    // What must be held is held, however little memory there is to work with.
    for held in [
        &["knn", "large.npy"][..],
        &["knn", "halves.npy"],
        &["cosine", "large.npy"],
        &["cosine", "few.npy", "large.npy", "--sample", "100"],
        &["cosine", "few.npy", "large.npy", "--top-pairs", "5"],
    ] {
        let reads = plan(&[held, &["--memory", "16MiB"]].concat());
        assert!(reads.iter().all(|line| line.contains("held")), "{reads:?}");
    }
}

#[test]
fn a_stream_that_breaks_leaves_one_error_and_no_file() {
    let folder = TempDir::new().expect("a folder");
    write_large(folder.path());
    let before = std::fs::read_dir(folder.path()).expect("a folder").count();
    for memory in ["16MiB", "64MiB"] {
        let args = ["knn", "ragged.arrows", "few.npy", "--out", "lists.parquet"];
        let output = run(folder.path(), &[&args[..], &["--memory", memory]].concat());
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(output.stdout.is_empty());
        let errors: Vec<&str> = text.lines().filter(|l| l.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{text}");
        assert!(
            errors[0].contains("ragged.arrows")
                && errors[0].contains("row 139017 has 63 values, expected 64"),
            "{text}"
        );
        let after = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(before, after, "nothing is left behind");
    }
}

/// Only Linux tells how much memory there is.
#[cfg(target_os = "linux")]
#[test]
fn what_cannot_be_held_is_refused_before_it_is_read() {
    let folder = TempDir::new().expect("a folder");
    // 4 TiB of nothing.
    let (rows, dim) = (1 << 31, 1 << 10);
    let path = folder.path().join("huge.npy");
    let header = npy("<f2", "False", rows, dim, &[]);
    std::fs::write(&path, &header).expect("a file");
    std::fs::File::options()
        .write(true)
        .open(&path)
        .and_then(|file| file.set_len(header.len() as u64 + (rows * dim * 2) as u64))
        .expect("a file with a hole");
    let few = npy(
        "<f2",
        "False",
        1,
        dim,
        &bytes(vec![1.0; dim].into_iter(), Dtype::F16),
    );
    std::fs::write(folder.path().join("few.npy"), few).expect("a file");
    let output = run(folder.path(), &["knn", "huge.npy"]);
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(
        text.contains("huge.npy: all rows are needed in memory: 4.0 TiB"),
        "{text}"
    );
    // As a base for queries it would be streamed.
    let output = run(folder.path(), &["knn", "huge.npy", "few.npy", "--dry-run"]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("streamed"), "{text}");
}
