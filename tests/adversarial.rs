//! Exact neighbours on data made to break a screening: ties, near-ties, order, extreme scales. Every core
//! and the CPU, against all f64 scores sorted.

use vecdrift::embeddings::Rows;
use vecdrift::engine::gpu::measure;
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Metric, SelfExclusion, score};
use vecdrift::stats::rng::Philox;

const QUERIES: usize = 70;
const BASE: usize = 1400;
const DIM: usize = 24;

/// The CPU, and a GPU with each of its cores.
fn engines() -> Vec<(String, Engine)> {
    let cpu = EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    };
    let mut engines = vec![("cpu".to_owned(), Engine::new(&cpu).unwrap())];
    match measure::cores(&DeviceChoice::Gpu) {
        Ok(reports) => engines.extend(reports.into_iter().map(|report| {
            let engine = measure::engine(&DeviceChoice::Gpu, &report.core, 512 << 20).unwrap();
            (report.core, engine)
        })),
        Err(error) if std::env::var("VECDRIFT_REQUIRE_GPU").as_deref() == Ok("1") => {
            panic!("VECDRIFT_REQUIRE_GPU=1: {error}")
        }
        Err(error) => eprintln!("**** NO GPU TEST WAS RUN: {error} ****"),
    }
    engines
}

fn normal(rows: usize, stream: u64) -> Vec<f32> {
    let mut random = Philox::new(40, stream);
    (0..rows * DIM).map(|_| random.normal() as f32).collect()
}

/// What the engine must find: all scores, best first, ties to the smaller row.
fn oracle(
    x: Rows<'_>,
    y: Rows<'_>,
    k: usize,
    metric: Metric,
    groups: Option<(&[u32], &[u32])>,
) -> Vec<Vec<(f64, u32)>> {
    let norms: Vec<f64> = score::norms(y);
    let list = |i: usize| {
        let a = &*x.row(i);
        let norm = score::norm(a);
        let mut all: Vec<(f64, u32)> = (0..y.len())
            .filter(|&j| groups.is_none_or(|(own, of)| own[i] != of[j]))
            .map(|j| {
                (
                    score::similarity(metric, a, norm, &y.row(j), norms[j]),
                    j as u32,
                )
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(k);
        all
    };
    (0..x.len()).map(list).collect()
}

fn assert_exact(what: &str, xs: &[f32], ys: &[f32], ks: &[usize], engines: &[(String, Engine)]) {
    let (x, y) = (Rows::new(xs, DIM), Rows::new(ys, DIM));
    // A query must not meet the base row of its own number, nor those of its thirty neighbours.
    let of = |rows: usize| (0..rows as u32).map(|row| row / 30).collect::<Vec<_>>();
    let (own, others) = (of(x.len()), of(y.len()));
    for metric in [Metric::Cosine, Metric::Dot] {
        for &k in ks {
            let expected = oracle(x, y, k, metric, None);
            let without = oracle(x, y, k, metric, Some((&own, &others)));
            for (name, engine) in engines {
                let found = engine.nearest(x, y, k, metric, None).unwrap();
                assert_eq!(found.certified, x.len());
                assert!(
                    found.lists == expected,
                    "{what}, {metric:?}, k = {k}, {name}"
                );
                let exclude = SelfExclusion {
                    queries: &own,
                    base: &others,
                };
                let found = engine.nearest(x, y, k, metric, Some(exclude)).unwrap();
                assert!(
                    found.lists == without,
                    "{what}, excluding, {metric:?}, k = {k}, {name}"
                );
            }
        }
    }
}

#[test]
fn ties_and_near_ties_are_resolved_exactly() {
    let engines = engines();
    let queries = normal(QUERIES, 0);
    let few = normal(BASE / 7, 1);
    let duplicates: Vec<f32> = few.iter().copied().cycle().take(BASE * DIM).collect();
    assert_exact(
        "each row seven times",
        &queries,
        &duplicates,
        &[1, 10, 100],
        &engines,
    );

    let one = &few[..DIM];
    let equal: Vec<f32> = one.iter().copied().cycle().take(BASE * DIM).collect();
    assert_exact("all rows equal", &queries, &equal, &[10], &engines);

    // Every bin is full of rows that f16, and sometimes f32, cannot tell apart.
    let mut random = Philox::new(41, 0);
    let near: Vec<f32> = queries[..DIM]
        .iter()
        .cycle()
        .take(BASE * DIM)
        .map(|&v| v * (1.0 + 3e-7 * random.normal() as f32))
        .collect();
    assert_exact("near-ties", &queries, &near, &[1, 10], &engines);
}

#[test]
fn order_of_the_base_does_not_matter() {
    let engines = engines();
    let queries = normal(QUERIES, 2);
    let base = normal(BASE, 3);
    let first = &queries[..DIM];
    let mut rows: Vec<&[f32]> = base.chunks_exact(DIM).collect();
    rows.sort_by(|a, b| score::dot(first, a).total_cmp(&score::dot(first, b)));
    let ascending = rows.concat();
    rows.reverse();
    let descending = rows.concat();
    assert_exact(
        "sorted, worst first",
        &queries,
        &ascending,
        &[10, 100],
        &engines,
    );
    assert_exact(
        "sorted, best first",
        &queries,
        &descending,
        &[10, 100],
        &engines,
    );
}

#[test]
fn scales_do_not_matter() {
    let engines = engines();
    let scaled = |values: Vec<f32>, scale: f32| -> Vec<f32> {
        values.into_iter().map(|v| v * scale).collect()
    };
    for (what, scale) in [("denormal rows", 1e-41f32), ("huge rows", 1e37)] {
        let queries = scaled(normal(QUERIES, 4), scale);
        let base = scaled(normal(BASE, 5), scale);
        assert_exact(what, &queries, &base, &[10], &engines);
    }
    // Lengths from 10⁻³⁰ to 10³⁰ in one base: to dot products only the longest matter.
    let mut base = normal(BASE, 6);
    for (row, values) in base.chunks_exact_mut(DIM).enumerate() {
        let scale = 10f32.powi(row as i32 % 61 - 30);
        values.iter_mut().for_each(|v| *v *= scale);
    }
    assert_exact(
        "lengths of every size",
        &normal(QUERIES, 7),
        &base,
        &[1, 100],
        &engines,
    );
    // One coordinate decides, far below what f16 holds beside the others.
    let mut base = normal(1, 8).repeat(BASE);
    for (row, values) in base.chunks_exact_mut(DIM).enumerate() {
        values[3] = row as f32 * 1e-6;
    }
    assert_exact(
        "one coordinate decides",
        &normal(QUERIES, 9),
        &base,
        &[10],
        &engines,
    );
}

#[test]
fn lists_may_be_long_or_longer_than_the_base() {
    let engines = engines();
    let queries = normal(QUERIES, 10);
    assert_exact(
        "k above n",
        &queries,
        &normal(50, 11),
        &[49, 50, 51, 1024],
        &engines,
    );
    assert_exact("long lists", &queries, &normal(5000, 12), &[1024], &engines);
}
