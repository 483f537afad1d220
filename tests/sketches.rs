//! Sketches: they say what the vectors said.

use std::collections::HashMap;

use vecdrift::embeddings::{Collector, Dtype, Embeddings, IdSource, Ids, RowBlock, Values};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::mmd::{MmdConfig, Sample, mmd};
use vecdrift::metrics::sketch::{Frame, FrameConfig, Sketch, SketchMmd, kinship};
use vecdrift::stats::rng::Philox;

const DIM: usize = 24;

fn engine(device: DeviceChoice) -> Engine {
    Engine::new(&EngineConfig {
        device,
        ..EngineConfig::default()
    })
    .expect("the device")
}

fn config() -> FrameConfig {
    FrameConfig {
        seed: 0,
        landmarks: 1_000,
        group: None,
    }
}

/// Rows around 12 topics; a row of `share` of them around a thirteenth. An id always has the same vector.
fn documents(ids: impl Iterator<Item = u64>, share: f64, spread: f64) -> HashMap<u64, Vec<f32>> {
    ids.map(|id| {
        let mut random = Philox::new(id, 4);
        let topic = (random.uniform() * 12.0) as usize;
        let topic = if random.uniform() < share { 12 } else { topic };
        let row = (0..DIM)
            .map(|axis| {
                let centre = if axis == topic { 1.0 } else { 0.0 };
                (centre + spread * 0.15 * random.normal()) as f32
            })
            .collect();
        (id, row)
    })
    .collect()
}

fn set(
    name: &str,
    documents: &HashMap<u64, Vec<f32>>,
    groups: Option<&dyn Fn(u64) -> u64>,
) -> Embeddings {
    let columns: Vec<String> = groups.iter().map(|_| "document".to_owned()).collect();
    let mut ids: Vec<u64> = documents.keys().copied().collect();
    ids.sort_unstable();
    let held = (Dtype::F32, Values::of(Dtype::F32));
    let mut collector = Collector::new(
        name.to_owned(),
        DIM,
        held,
        IdSource::Column("id".to_owned()),
        &columns,
    );
    collector.push(&RowBlock {
        ids: ids.iter().map(u64::to_string).collect::<Ids>(),
        values: ids.iter().flat_map(|id| documents[id].clone()).collect(),
        nulls: Vec::new(),
        columns: groups
            .iter()
            .map(|group| ids.iter().map(|&id| group(id).to_string()).collect())
            .collect(),
    });
    collector.finish().expect("sound rows")
}

fn compared(engine: &Engine, x: &Embeddings, y: &Embeddings, draws: u32) -> SketchMmd {
    compared_in(engine, x, y, draws, &config())
}

fn compared_in(
    engine: &Engine,
    x: &Embeddings,
    y: &Embeddings,
    draws: u32,
    config: &FrameConfig,
) -> SketchMmd {
    let frame = Frame::new(engine, x, config).expect("a frame");
    let [x, y] = [x, y].map(|set| Sketch::new(engine, set, &frame).expect("a sketch"));
    SketchMmd::new(&x, &y, draws).expect("one frame")
}

/// Effects of all sizes agree with those of the exact kernels, to what random features cost.
#[test]
fn effects_are_those_of_the_vectors() {
    let engine = engine(DeviceChoice::Cpu);
    let x = set("x", &documents(0..4_000, 0.0, 1.0), None);
    for share in [0.05, 0.1, 0.3] {
        let y = set("y", &documents(10_000..14_000, share, 1.0), None);
        let found = compared(&engine, &x, &y, 199);
        let exact = mmd(
            &engine,
            Sample {
                rows: x.rows(),
                ids: &x.ids,
                groups: None,
            },
            Sample {
                rows: y.rows(),
                ids: &y.ids,
                groups: None,
            },
            &MmdConfig {
                permutations: 199,
                ..MmdConfig::default()
            },
        )
        .expect("the test");
        let (a, b) = (found.effect.eps_eq.unwrap(), exact.effect.eps_eq.unwrap());
        assert!((a / b - 1.0).abs() < 0.1, "{share}: {a}, exact {b}");
        assert_eq!(found.p_value, 1.0 / 200.0);
        let [low, high] = found.effect.ci95.unwrap();
        assert!(low < b && b < high, "{share}: {b} outside {low} to {high}");
    }
}

/// Level of the test over seeds for independent samples of unequal sizes, for snapshots that share nine
/// tenths of their documents, and for chunks kept together by their document. Of 200 runs at 5 %, [2, 21]
/// is left once in a thousand times.
#[test]
fn alarms_come_as_often_as_they_may() {
    let engine = engine(DeviceChoice::Cpu);
    let runs = 200;
    let config = || FrameConfig {
        landmarks: 200,
        ..config()
    };
    let p_value = |x: &Embeddings, y: &Embeddings, config: FrameConfig| {
        compared_in(&engine, x, y, 199, &config).p_value
    };
    let mut alarms = [0; 3];
    for run in 0..runs {
        let base = run * 1_000_000;
        let x = set("x", &documents(base..base + 900, 0.0, 1.0), None);
        let y = set(
            "y",
            &documents(base + 10_000..base + 10_300, 0.0, 1.0),
            None,
        );
        let overlapping = set("y", &documents(base + 100..base + 1_000, 0.0, 1.0), None);
        alarms[0] += u32::from(p_value(&x, &y, config()) <= 0.05);
        alarms[1] += u32::from(p_value(&x, &overlapping, config()) <= 0.05);
        // Five chunks of a document are nearly the same vector.
        let chunks = |from: u64| {
            let documents = documents(base + from..base + from + 300, 0.0, 1.0);
            let mut chunks = HashMap::new();
            for (id, row) in documents {
                for chunk in 0..5 {
                    let mut random = Philox::new(id * 5 + chunk, 5);
                    let row = row
                        .iter()
                        .map(|v| v + (0.02 * random.normal()) as f32)
                        .collect();
                    chunks.insert(id * 5 + chunk, row);
                }
            }
            chunks
        };
        let [x, y] = [0, 10_000].map(|from| set("chunks", &chunks(from), Some(&|id| id / 5)));
        let grouped = FrameConfig {
            group: Some("document".to_owned()),
            ..config()
        };
        alarms[2] += u32::from(p_value(&x, &y, grouped) <= 0.05);
    }
    assert!(alarms.iter().all(|a| (2..=21).contains(a)), "{alarms:?}");
}

/// Without any difference there is none to find; with the same ids in another order neither.
#[test]
fn equal_snapshots_are_equal() {
    let engine = engine(DeviceChoice::Cpu);
    let documents = documents(0..800, 0.0, 1.0);
    let x = set("x", &documents, None);
    let found = compared(&engine, &x, &set("y", &documents, None), 99);
    assert_eq!((found.mmd2_unbiased, found.p_value), (0.0, 1.0));
    assert_eq!(found.effect.ci95, Some([0.0, 0.0]));
}

/// The spread of the rows grows by a fifth: the test finds it, and the dispersion says which way.
#[test]
fn a_wider_spread_is_found() {
    let engine = engine(DeviceChoice::Cpu);
    let x = set("x", &documents(0..1_500, 0.0, 1.0), None);
    let y = set("y", &documents(10_000..11_500, 0.0, 1.2), None);
    let found = compared(&engine, &x, &y, 199);
    assert!(
        found.p_value <= 0.01 && found.dispersion_ci95[0] > 0.0,
        "{found:?}"
    );
}

/// Sums are integers: neither threads nor the order of rows change a bit; the GPU's differ by its products.
#[test]
fn sketches_are_the_same_at_any_number_of_threads() {
    let documents = documents(0..700, 0.0, 1.0);
    let x = set("x", &documents, None);
    let with = |threads| {
        let engine = Engine::new(&EngineConfig {
            device: DeviceChoice::Cpu,
            threads: Some(threads),
            ..EngineConfig::default()
        })
        .expect("the CPU");
        let frame = Frame::new(&engine, &x, &config()).expect("a frame");
        Sketch::new(&engine, &x, &frame).expect("a sketch")
    };
    let (one, three) = (with(1), with(3));
    assert_eq!(one.state, three.state);
    assert_eq!(one.landmarks, three.landmarks);
    if std::env::var_os("VECDRIFT_REQUIRE_GPU").is_some() {
        let gpu = engine(DeviceChoice::Gpu);
        let there = Sketch::new(&gpu, &x, &one.state.frame).expect("a sketch");
        let found = SketchMmd::new(&one, &there, 19).expect("one frame");
        // Angles of f32 products differ by 10⁻⁶ of a turn, sums of 700 rows by less than 10⁻⁵ of them.
        assert!(found.mmd2_unbiased.abs() < 1e-9, "{found:?}");
        assert_eq!(one.state.cluster_rows, there.state.cluster_rows);
    }
}

/// Landmarks tell what two snapshots have in common: a tenth of the ids new, a twentieth of the rest embedded
/// anew.
#[test]
fn landmarks_tell_what_was_kept() {
    let engine = engine(DeviceChoice::Cpu);
    let old = documents(0..5_000, 0.0, 1.0);
    let mut new: HashMap<u64, Vec<f32>> = documents(500..5_500, 0.0, 1.0);
    for (id, row) in &mut new {
        if id % 20 == 0 {
            row.iter_mut().for_each(|v| *v += 0.05);
        }
    }
    let [x, y] = [set("x", &old, None), set("y", &new, None)];
    let frame = Frame::new(&engine, &x, &config()).expect("a frame");
    let [x, y] = [&x, &y].map(|set| Sketch::new(&engine, set, &frame).expect("a sketch"));
    let found = kinship(&engine, &x, &y).expect("one space");
    assert!(found.shares_coordinates());
    let [low, high] = found.kept_ci95.unwrap();
    assert!(low < 0.9 && 0.9 < high && high - low < 0.05, "{found:?}");
    // Of about 900 landmarks in both: 5 % within three standard errors of 0.7 %.
    assert!(
        (found.re_embedded.unwrap() - 0.05).abs() < 0.022,
        "{found:?}"
    );

    // The same documents by another model: another space, whatever the sums say.
    let turned: HashMap<u64, Vec<f32>> = old
        .iter()
        .map(|(&id, row)| {
            (
                id,
                (0..DIM)
                    .map(|i| row[(i * 5 + 3) % DIM] * if i % 2 == 0 { -1.0 } else { 1.0 })
                    .collect(),
            )
        })
        .collect();
    let turned = Sketch::new(&engine, &set("turned", &turned, None), &frame).expect("a sketch");
    assert!(
        !kinship(&engine, &x, &turned)
            .expect("comparable")
            .shares_coordinates()
    );
}
