//! Makes everything in `fixtures/` except `fixtures/golden/`: `cargo run --example make_fixtures`.
//!
//! One small made-up world of support articles: topics of Zipf-like sizes, each a direction with a few
//! axes of decaying weight, all sharing one mean direction, as sentence embeddings do. An embedding
//! model is a function of a document in that world; a pipeline change is another.
//!
//! Bytes are the same on every platform: random numbers come from [`Philox`], and only operations that
//! IEEE 754 rounds correctly are used (no `ln`, `cos` or `powf`, whose last bit depends on the libm).
//! `tests/fixtures.rs` holds the committed files to this recipe.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float16Array, Float32Array, ListArray, RecordBatch, StringArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use half::f16;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use safetensors::tensor::{Dtype, TensorView};
use vecdrift::stats::rng::Philox;

const SEED: u64 = 20_240_607;
/// Dimension of the reference model, and of the narrow one.
const DIM: usize = 64;
const NARROW_DIM: usize = 32;
const DOCUMENTS: usize = 600;
const QUERIES: usize = 40;
/// Topics by size, largest first.
const TOPICS: [&str; 12] = [
    "billing",
    "shipping",
    "returns",
    "accounts",
    "security",
    "api",
    "mobile",
    "pricing",
    "legal",
    "hardware",
    "onboarding",
    "outages",
];
/// The topic that the pipeline change hits hard, and the one that only `shifted.parquet` has.
const BROKEN_TOPIC: usize = 2;
const NEW_TOPIC: usize = TOPICS.len();
const NEW_TOPIC_NAME: &str = "promotions";

type Vector = Vec<f64>;
type Fallible<T = ()> = Result<T, Box<dyn Error>>;

#[allow(dead_code, reason = "tests/fixtures.rs includes this file as a module")]
fn main() -> Fallible {
    write_all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"))
}

/// Writes every fixture below `dir`.
pub fn write_all(dir: &Path) -> Fallible {
    fs::create_dir_all(dir.join("broken"))?;
    let world = World::new();
    let documents = world.documents(0, DOCUMENTS, "doc");
    let reference = Table::of(&documents, |_, d| d.vector.clone());

    reference.write_parquet(&dir.join("reference.parquet"))?;
    let current = current(&world, &documents);
    current.write_parquet(&dir.join("current.parquet"))?;
    write_queries(&world, &documents, &current, dir)?;

    rotated(&reference).write_parquet(&dir.join("rotated.parquet"))?;
    narrow(&reference).write_parquet(&dir.join("narrow.parquet"))?;
    write_halves(&world, dir)?;

    let first = reference.take(&(0..100).collect::<Vec<_>>());
    write_other_formats(&first, dir)?;
    write_broken(
        &reference.take(&(0..20).collect::<Vec<_>>()),
        &dir.join("broken"),
    )
}

// ---- the world ----

/// Each use of random numbers has its own stream, so that changing one leaves the others alone.
enum Stream {
    World,
    Documents,
    Current,
    Queries,
    Rotation,
    Narrow,
    Halves,
}

fn stream(stream: Stream) -> Philox {
    Philox::new(SEED, stream as u64)
}

/// Nearly standard normal: the sum of twelve uniforms, which needs no libm.
fn normal(rng: &mut Philox) -> f64 {
    (0..12).map(|_| rng.uniform()).sum::<f64>() - 6.0
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(a, b)| a * b).sum()
}

fn unit(mut x: Vector) -> Vector {
    let norm = dot(&x, &x).sqrt();
    x.iter_mut().for_each(|v| *v /= norm);
    x
}

fn direction(rng: &mut Philox, dim: usize) -> Vector {
    unit((0..dim).map(|_| normal(rng)).collect())
}

/// x + weight · y.
fn add(mut x: Vector, weight: f64, y: &[f64]) -> Vector {
    x.iter_mut().zip(y).for_each(|(a, b)| *a += weight * b);
    x
}

struct World {
    mean: Vector,
    topics: Vec<Topic>,
    /// Where the pipeline change moves the broken topic.
    drift: Vector,
}

struct Topic {
    centre: Vector,
    axes: Vec<Vector>,
}

struct Document {
    id: String,
    topic: usize,
    vector: Vector,
}

impl World {
    fn new() -> Self {
        let mut rng = stream(Stream::World);
        let mean = direction(&mut rng, DIM);
        let drift = direction(&mut rng, DIM);
        let topics = (0..=NEW_TOPIC)
            .map(|_| Topic {
                centre: direction(&mut rng, DIM),
                axes: (0..8).map(|_| direction(&mut rng, DIM)).collect(),
            })
            .collect();
        Self {
            mean,
            topics,
            drift,
        }
    }

    /// A document of `topic`: mean, topic, position within the topic, the rest.
    fn embed(&self, topic: usize, rng: &mut Philox) -> Vector {
        let Topic { centre, axes } = &self.topics[topic];
        let mut x = add(vec![0.0; DIM], 0.5, &self.mean);
        x = add(x, 0.6, centre);
        for (j, axis) in axes.iter().enumerate() {
            x = add(x, 0.6 / (j + 1) as f64 * normal(rng), axis);
        }
        let rest = direction(rng, DIM);
        unit(add(x, 0.25, &rest))
    }

    /// Documents number `first` and following; each has its own stream, whatever was drawn before.
    fn documents(&self, first: usize, count: usize, prefix: &str) -> Vec<Document> {
        (first..first + count)
            .map(|i| {
                let mut rng = document_stream(i);
                let topic = zipf(&mut rng);
                Document {
                    id: format!("{prefix}-{i:05}"),
                    topic,
                    vector: self.embed(topic, &mut rng),
                }
            })
            .collect()
    }

    /// What the changed pipeline makes of a vector: nearly the same, but far off for one topic.
    fn changed(&self, topic: usize, x: &[f64], rng: &mut Philox) -> Vector {
        let noise = direction(rng, DIM);
        if topic == BROKEN_TOPIC {
            let moved = add(x.to_vec(), 0.5, &self.drift);
            unit(add(moved, 0.7, &noise))
        } else {
            unit(add(x.to_vec(), 0.08, &noise))
        }
    }
}

fn document_stream(i: usize) -> Philox {
    Philox::new(SEED, (Stream::Documents as u64) << 32 | i as u64)
}

/// Topic t with probability proportional to 1/(t + 1).
fn zipf(rng: &mut Philox) -> usize {
    let weight = |t: usize| 1.0 / (t + 1) as f64;
    let mut left = rng.uniform() * (0..TOPICS.len()).map(weight).sum::<f64>();
    (0..TOPICS.len() - 1)
        .find(|&t| {
            left -= weight(t);
            left < 0.0
        })
        .unwrap_or(TOPICS.len() - 1)
}

fn topic_name(topic: usize) -> &'static str {
    TOPICS.get(topic).copied().unwrap_or(NEW_TOPIC_NAME)
}

// ---- tables ----

/// Rows as they are stored.
#[derive(Clone)]
struct Table {
    ids: Vec<String>,
    sections: Vec<&'static str>,
    vectors: Vec<Vec<f32>>,
}

impl Table {
    fn of(documents: &[Document], mut vector: impl FnMut(usize, &Document) -> Vector) -> Self {
        Self {
            ids: documents.iter().map(|d| d.id.clone()).collect(),
            sections: documents.iter().map(|d| topic_name(d.topic)).collect(),
            vectors: documents
                .iter()
                .enumerate()
                .map(|(i, d)| to_f32(&vector(i, d)))
                .collect(),
        }
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    fn take(&self, rows: &[usize]) -> Self {
        Self {
            ids: rows.iter().map(|&i| self.ids[i].clone()).collect(),
            sections: rows.iter().map(|&i| self.sections[i]).collect(),
            vectors: rows.iter().map(|&i| self.vectors[i].clone()).collect(),
        }
    }

    fn shuffled(&self, rng: &mut Philox) -> Self {
        let mut order: Vec<_> = (0..self.len()).collect();
        rng.shuffle(&mut order);
        self.take(&order)
    }

    fn map(&self, f: impl Fn(&[f32]) -> Vec<f32>) -> Self {
        Self {
            vectors: self.vectors.iter().map(|v| f(v)).collect(),
            ..self.clone()
        }
    }

    fn values(&self) -> Vec<f32> {
        self.vectors.concat()
    }

    fn id_column(&self) -> (&'static str, ArrayRef) {
        ("id", Arc::new(StringArray::from_iter_values(&self.ids)))
    }

    fn section_column(&self) -> (&'static str, ArrayRef) {
        let values = StringArray::from_iter_values(&self.sections);
        ("section", Arc::new(values))
    }

    fn embedding_column(&self) -> (&'static str, ArrayRef) {
        let values = Arc::new(Float32Array::from(self.values()));
        (
            "embedding",
            fixed_size_list(values, DataType::Float32, self.vectors[0].len()),
        )
    }

    fn batch(&self) -> Fallible<RecordBatch> {
        Ok(RecordBatch::try_from_iter([
            self.id_column(),
            self.section_column(),
            self.embedding_column(),
        ])?)
    }

    fn write_parquet(&self, path: &Path) -> Fallible {
        write_parquet(&self.batch()?, path)
    }
}

fn to_f32(x: &[f64]) -> Vec<f32> {
    x.iter().map(|&v| v as f32).collect()
}

fn to_f64(x: &[f32]) -> Vector {
    x.iter().map(|&v| f64::from(v)).collect()
}

fn fixed_size_list(values: ArrayRef, item: DataType, dim: usize) -> ArrayRef {
    let field = Arc::new(Field::new("item", item, true));
    Arc::new(FixedSizeListArray::new(field, dim as i32, values, None))
}

/// Plain encoding and no compression: floats gain nothing, and the bytes depend on fewer libraries.
fn parquet_bytes(batch: &RecordBatch) -> Fallible<Vec<u8>> {
    let properties = WriterProperties::builder()
        .set_created_by("vecdrift fixtures".into())
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes)
}

fn write_parquet(batch: &RecordBatch, path: &Path) -> Fallible {
    Ok(fs::write(path, parquet_bytes(batch)?)?)
}

// ---- pairs of corpora ----

/// The same documents after the pipeline change: 5 % missing, 5 % new, shuffled, two of them faulty.
fn current(world: &World, documents: &[Document]) -> Table {
    let mut rng = stream(Stream::Current);
    let changed = Table::of(documents, |_, d| {
        world.changed(d.topic, &d.vector, &mut rng)
    });
    let twentieth = DOCUMENTS / 20;
    let mut kept = changed
        .shuffled(&mut rng)
        .take(&(twentieth..DOCUMENTS).collect::<Vec<_>>());
    let new = world.documents(DOCUMENTS, twentieth, "doc");
    let new = Table::of(&new, |_, d| world.changed(d.topic, &d.vector, &mut rng));
    kept.ids.extend(new.ids);
    kept.sections.extend(new.sections);
    kept.vectors.extend(new.vectors);
    // The kept rows come first until the shuffle, so both faulty rows are shared ones.
    kept.vectors[0][17] = f32::NAN;
    kept.vectors[1].fill(0.0);
    kept.shuffled(&mut rng)
}

/// Queries near documents that both corpora have, and their relevant documents: the one each query was
/// made from (score 2) and its two nearest in the reference (score 1).
fn write_queries(world: &World, documents: &[Document], current: &Table, dir: &Path) -> Fallible {
    let mut rng = stream(Stream::Queries);
    let sound = |d: &Document| {
        let row = current.ids.iter().position(|id| *id == d.id);
        row.is_some_and(|i| current.vectors[i].iter().any(|&v| v != 0.0 && !v.is_nan()))
    };
    let mut pool: Vec<&Document> = documents.iter().filter(|d| sound(d)).collect();
    rng.shuffle(&mut pool);

    let mut qrels = String::from("query-id\tcorpus-id\tscore\n");
    let mut queries = Vec::new();
    for (i, source) in pool.iter().take(QUERIES).enumerate() {
        let id = format!("query-{i:03}");
        let mut relevant: Vec<_> = pool
            .iter()
            .map(|d| (dot(&d.vector, &source.vector), d))
            .collect();
        relevant.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (rank, (_, document)) in relevant.iter().take(3).enumerate() {
            let score = if rank == 0 { 2 } else { 1 };
            qrels.push_str(&format!("{id}\t{}\t{score}\n", document.id));
        }
        let noise = direction(&mut rng, DIM);
        queries.push(Document {
            id,
            topic: source.topic,
            vector: unit(add(source.vector.clone(), 0.6, &noise)),
        });
    }
    Table::of(&queries, |_, q| q.vector.clone())
        .write_parquet(&dir.join("queries_reference.parquet"))?;
    Table::of(&queries, |_, q| world.changed(q.topic, &q.vector, &mut rng))
        .write_parquet(&dir.join("queries_current.parquet"))?;
    Ok(fs::write(dir.join("qrels.tsv"), qrels)?)
}

/// Turned by a random orthogonal matrix: every neighbourhood intact, no coordinate comparable.
fn rotated(reference: &Table) -> Table {
    let mut rng = stream(Stream::Rotation);
    let mut axes: Vec<Vector> = Vec::new();
    for _ in 0..DIM {
        let mut axis = direction(&mut rng, DIM);
        // Gram–Schmidt, twice for orthogonality to rounding.
        for _ in 0..2 {
            for earlier in &axes {
                let shared = dot(&axis, earlier);
                axis = add(axis, -shared, earlier);
            }
        }
        axes.push(unit(axis));
    }
    reference.map(|x| {
        let x = to_f64(x);
        axes.iter().map(|axis| dot(axis, &x) as f32).collect()
    })
}

/// Another model: half the dimensions, through a saturating nonlinearity, in another order.
fn narrow(reference: &Table) -> Table {
    let mut rng = stream(Stream::Narrow);
    let axes: Vec<_> = (0..NARROW_DIM).map(|_| direction(&mut rng, DIM)).collect();
    let softsign = |v: f64| v / (1.0 + v.abs());
    reference
        .map(|x| {
            let x = to_f64(x);
            to_f32(&unit(
                axes.iter()
                    .map(|axis| softsign(4.0 * dot(axis, &x)))
                    .collect(),
            ))
        })
        .shuffled(&mut rng)
}

/// Two random halves of another corpus of the same world, and the second with a new topic in it.
fn write_halves(world: &World, dir: &Path) -> Fallible {
    let mut rng = stream(Stream::Halves);
    let documents = world.documents(10_000, 800, "doc");
    let all = Table::of(&documents, |_, d| d.vector.clone()).shuffled(&mut rng);
    let half_a = all.take(&(0..400).collect::<Vec<_>>());
    let half_b = all.take(&(400..800).collect::<Vec<_>>());
    half_a.write_parquet(&dir.join("half_a.parquet"))?;
    half_b.write_parquet(&dir.join("half_b.parquet"))?;

    // 55 of 455 rows are 12 %.
    let mut shifted = half_b;
    for i in 20_000..20_055 {
        let vector = world.embed(NEW_TOPIC, &mut document_stream(i));
        shifted.ids.push(format!("doc-{i:05}"));
        shifted.sections.push(NEW_TOPIC_NAME);
        shifted.vectors.push(to_f32(&vector));
    }
    shifted
        .shuffled(&mut rng)
        .write_parquet(&dir.join("shifted.parquet"))
}

// ---- other formats ----

fn write_other_formats(table: &Table, dir: &Path) -> Fallible {
    let halves: Vec<f16> = table.values().into_iter().map(f16::from_f32).collect();
    let halves = fixed_size_list(Arc::new(Float16Array::from(halves)), DataType::Float16, DIM);
    let batch = RecordBatch::try_from_iter([
        table.id_column(),
        table.section_column(),
        ("embedding", halves),
    ])?;
    write_parquet(&batch, &dir.join("reference_f16.parquet"))?;

    let batch = table.batch()?;
    let mut ipc = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema())?;
    ipc.write(&batch)?;
    fs::write(dir.join("reference.arrow"), ipc.into_inner()?)?;

    let shape = [table.len(), DIM];
    let f32_bytes: Vec<u8> = table
        .values()
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    fs::write(dir.join("reference.npy"), npy("<f4", &shape, &f32_bytes))?;

    let f64_bytes: Vec<u8> = table
        .values()
        .iter()
        .flat_map(|&v| f64::from(v).to_le_bytes())
        .collect();
    let array = npy("<f8", &shape, &f64_bytes);
    fs::write(
        dir.join("reference_f64.npz"),
        stored_zip("embedding.npy", &array),
    )?;

    let tensor = TensorView::new(Dtype::F32, shape.to_vec(), &f32_bytes)?;
    let bytes = safetensors::serialize([("embedding", tensor)], None)?;
    Ok(fs::write(dir.join("reference.safetensors"), bytes)?)
}

/// A NumPy array file, format 1.0.
fn npy(descr: &str, shape: &[usize; 2], data: &[u8]) -> Vec<u8> {
    let [rows, columns] = shape;
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
    // Ten bytes stand before the header; it ends with a line feed on a multiple of 64.
    let padded = (10 + header.len() + 1).next_multiple_of(64) - 10;
    header.push_str(&" ".repeat(padded - 1 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// A zip archive of one stored file, as `numpy.savez` makes it, dated 1980-01-01. (The zip library
/// behind npyz writes the time of day into it.)
fn stored_zip(name: &str, data: &[u8]) -> Vec<u8> {
    // Version needed 2.0, no flags, stored, the earliest date, checksum, sizes, no extra field.
    let mut common: Vec<u8> = vec![20, 0, 0, 0, 0, 0, 0, 0, 0x21, 0];
    common.extend(crc32(data).to_le_bytes());
    common.extend((data.len() as u32).to_le_bytes());
    common.extend((data.len() as u32).to_le_bytes());
    common.extend((name.len() as u16).to_le_bytes());
    common.extend([0, 0]);

    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend(&common);
    bytes.extend(name.as_bytes());
    bytes.extend(data);

    let directory = bytes.len();
    bytes.extend(b"PK\x01\x02\x14\x00");
    bytes.extend(&common);
    // No comment, disk 0, no attributes, the file at offset 0.
    bytes.extend([0; 14]);
    bytes.extend(name.as_bytes());

    let directory_bytes = bytes.len() - directory;
    bytes.extend(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    bytes.extend((directory_bytes as u32).to_le_bytes());
    bytes.extend((directory as u32).to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// CRC-32 as in zip (reflected polynomial 0xEDB88320).
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

// ---- broken files ----

fn write_broken(table: &Table, dir: &Path) -> Fallible {
    let ids = table.id_column();
    let embedding = table.embedding_column();
    let shape = [table.len(), DIM];
    let bytes: Vec<u8> = table
        .values()
        .iter()
        .flat_map(|v| v.to_le_bytes())
        .collect();
    let array = npy("<f4", &shape, &bytes);

    fs::write(dir.join("empty.parquet"), [])?;
    let whole = parquet_bytes(&table.batch()?)?;
    fs::write(dir.join("truncated.parquet"), &whole[..whole.len() / 2])?;
    fs::write(dir.join("not_parquet.parquet"), &array)?;
    fs::write(dir.join("truncated.npy"), &array[..array.len() / 2])?;
    let integers: Vec<u8> = (0..table.len() * DIM)
        .flat_map(|i| (i as i64).to_le_bytes())
        .collect();
    fs::write(dir.join("integer.npy"), npy("<i8", &shape, &integers))?;

    let mut ragged = table.clone();
    ragged.vectors[13].pop();
    let lists = ListArray::new(
        Arc::new(Field::new("item", DataType::Float32, true)),
        OffsetBuffer::from_lengths(ragged.vectors.iter().map(Vec::len)),
        Arc::new(Float32Array::from(ragged.values())),
        None,
    );
    let batches = [
        (
            "ragged.parquet",
            vec![ids.clone(), ("embedding", Arc::new(lists) as ArrayRef)],
        ),
        (
            "two_vectors.parquet",
            vec![
                ids.clone(),
                ("title_embedding", embedding.1.clone()),
                ("body_embedding", embedding.1.clone()),
            ],
        ),
        (
            "no_vector.parquet",
            vec![ids.clone(), table.section_column()],
        ),
        (
            "duplicate_ids.parquet",
            vec![with_id(table, 7, Some(&table.ids[3])), embedding.clone()],
        ),
        (
            "null_ids.parquet",
            vec![with_id(table, 7, None), embedding.clone()],
        ),
        (
            "all_nan.parquet",
            vec![
                ids,
                table.map(|x| vec![f32::NAN; x.len()]).embedding_column(),
            ],
        ),
    ];
    for (name, columns) in batches {
        write_parquet(&RecordBatch::try_from_iter(columns)?, &dir.join(name))?;
    }
    Ok(())
}

/// The id column with another id in `row`.
fn with_id(table: &Table, row: usize, id: Option<&str>) -> (&'static str, ArrayRef) {
    let mut ids: Vec<_> = table.ids.iter().map(|id| Some(id.as_str())).collect();
    ids[row] = id;
    ("id", Arc::new(StringArray::from(ids)))
}
