//! The engine's operations, timed per backend: `operation/backend/n×m×d`, throughput in pairs of rows
//! (`gram`: pairs of columns times rows). Each answer is checked against f64 before it is timed.
//!
//! 2·d floating-point operations per pair: GFLOP/s = 2·d·(Gelem/s). A GPU takes part where
//! `VECDRIFT_REQUIRE_GPU=1` is set; `VECDRIFT_CPU_KERNEL` chooses the CPU kernel.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vecdrift::embeddings::Rows;
use vecdrift::engine::{
    BlockLayout, DeviceChoice, Engine, EngineConfig, KernelFamily, Metric, score,
};
use vecdrift::stats::rng::Philox;

const DIM: usize = 384;
const SEED: u64 = 1;

/// Rows around a few centres, so that cosines spread and neighbours exist.
fn clustered(rows: usize, stream: u64) -> Vec<f32> {
    let mut centre_rng = Philox::new(SEED, 0);
    let centres: Vec<f64> = (0..16 * DIM).map(|_| centre_rng.normal()).collect();
    let mut rng = Philox::new(SEED, stream);
    let mut values = Vec::with_capacity(rows * DIM);
    for _ in 0..rows {
        let centre = rng.below(16) as usize * DIM;
        values.extend((0..DIM).map(|k| (centres[centre + k] + 1.5 * rng.normal()) as f32));
    }
    values
}

fn engines() -> Vec<(String, Engine)> {
    let open = |device, threads| {
        let config = EngineConfig {
            device,
            threads,
            ..EngineConfig::default()
        };
        Engine::new(&config).expect("the device opens")
    };
    let mut engines = vec![
        ("cpu-1".to_owned(), open(DeviceChoice::Cpu, Some(1))),
        ("cpu".to_owned(), open(DeviceChoice::Cpu, None)),
    ];
    if std::env::var_os("VECDRIFT_REQUIRE_GPU").is_some_and(|v| v == "1") {
        let gpu = open(DeviceChoice::Gpu, None);
        engines.push((gpu.device().backend.clone(), gpu));
    }
    engines
}

/// Checks a value against its f64 counterpart.
fn close(what: &str, got: f64, exact: f64, tolerance: f64) {
    assert!(
        (got - exact).abs() <= tolerance,
        "{what}: got {got}, exact {exact}, tolerance {tolerance}"
    );
}

fn time(c: &mut Criterion, name: &str, backend: &str, shape: [usize; 3], mut run: impl FnMut()) {
    let [n, m, d] = shape;
    let mut group = c.benchmark_group(name);
    group.sample_size(10);
    group.throughput(Throughput::Elements(n as u64 * m as u64));
    group.bench_function(format!("{backend}/{n}×{m}×{d}"), |b| b.iter(&mut run));
    group.finish();
}

fn pair_histogram(c: &mut Criterion) {
    const N: usize = 20_000;
    let (x, y) = (clustered(N, 1), clustered(N, 2));
    let (x, y) = (Rows::new(&x, DIM), Rows::new(&y, DIM));
    let unit_sum = |rows: Rows<'_>| {
        let mut sum = vec![0.0f64; DIM];
        for row in rows.iter() {
            let norm = score::norm(&row);
            for (sum, &v) in sum.iter_mut().zip(&*row) {
                *sum += f64::from(v) / norm;
            }
        }
        sum
    };
    // Σ cos(xᵢ, yⱼ) = (Σ x̂)·(Σ ŷ).
    let exact: f64 = unit_sum(x)
        .iter()
        .zip(unit_sum(y))
        .map(|(a, b)| a * b)
        .sum();
    for (backend, engine) in engines() {
        let run = || engine.pair_histogram(x, Some(y)).expect("the device works");
        let histogram = run();
        assert_eq!(histogram.pairs(), (N * N) as u64);
        // The contract's bound per pair is 5e-5; errors of random sign stay far below it.
        close(
            "mean cosine",
            histogram.sum.to_f64() / (N * N) as f64,
            exact / (N * N) as f64,
            1e-7,
        );
        time(c, "pair_histogram", &backend, [N, N, DIM], || {
            black_box(run());
        });
    }
}

fn pair_sums(c: &mut Criterion) {
    const N: usize = 10_000;
    let (x, y) = (clustered(N, 1), clustered(N, 2));
    let (x, y) = (Rows::new(&x, DIM), Rows::new(&y, DIM));
    let groups: Vec<u32> = (0..2 * N as u32).collect();
    let blocks: Vec<Vec<u32>> = groups.chunks(N / 16).map(<[u32]>::to_vec).collect();
    let layout = BlockLayout::new(N, &blocks, &groups);
    let kernels = KernelFamily {
        gamma: 1.0 / (16.0 * DIM as f64),
        rbf: 5,
        energy: true,
        offsets: vec![0.7, 0.5, 0.3, 0.1, 0.01, -35.0],
    };
    let exact: f64 = x
        .iter()
        .skip(1)
        .map(|row| {
            let first = x.row(0);
            let terms = row
                .iter()
                .zip(&*first)
                .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
            kernels.value(0, terms.sum())
        })
        .sum();
    for (backend, engine) in engines() {
        let run = |rows| {
            engine
                .pair_sums(x, y, &layout, &kernels, rows)
                .expect("the device works")
        };
        let sums = run(Some(0)).row_sums.expect("asked for");
        close("row sum", sums[0][0], exact, 1e-5 * N as f64);
        // Every unordered pair once: half of (2N)² products.
        time(c, "pair_sums", &backend, [N, 2 * N, DIM], || {
            black_box(run(None));
        });
    }
}

fn nearest(c: &mut Criterion) {
    const N: usize = 20_000;
    const K: usize = 10;
    let (x, y) = (clustered(N, 1), clustered(N, 2));
    let (x, y) = (Rows::new(&x, DIM), Rows::new(&y, DIM));
    let mut best = score::TopK::new(K);
    for (row, values) in y.iter().enumerate() {
        let (x_norm, y_norm) = (score::norm(&x.row(0)), score::norm(&values));
        best.offer(
            score::similarity(Metric::Cosine, &x.row(0), x_norm, &values, y_norm),
            row as u32,
        );
    }
    for (backend, engine) in engines() {
        let run = || {
            engine
                .nearest(x, y, K, Metric::Cosine, None)
                .expect("the device works")
        };
        assert_eq!(run().lists[0], best.entries());
        time(c, "nearest", &backend, [N, N, DIM], || {
            black_box(run());
        });
    }
}

fn gram(c: &mut Criterion) {
    const N: usize = 20_000;
    let (x, y) = (clustered(N, 1), clustered(N, 2));
    let (x, y) = (Rows::new(&x, DIM), Rows::new(&y, DIM));
    let terms = || {
        x.iter()
            .zip(y.iter())
            .map(|(a, b)| f64::from(a[1]) * f64::from(b[2]))
    };
    let (exact, size): (f64, f64) = (terms().sum(), terms().map(f64::abs).sum());
    for (backend, engine) in engines() {
        let run = || engine.gram(x, y).expect("the device works");
        close("cross-product", run().products[DIM + 2], exact, 1e-5 * size);
        time(c, "gram", &backend, [DIM, N, DIM], || {
            black_box(run());
        });
    }
}

fn project(c: &mut Criterion) {
    const N: usize = 20_000;
    const P: usize = 384;
    let (x, w) = (clustered(N, 1), clustered(P, 2));
    let (x, w) = (Rows::new(&x, DIM), Rows::new(&w, DIM));
    let (row, column) = (N - 1, P - 2);
    let exact = score::dot(&x.row(row), &w.row(column));
    let size = score::norm(&x.row(row)) * score::norm(&w.row(column));
    for (backend, engine) in engines() {
        let run = || engine.project(x, w).expect("the device works");
        close(
            "projection",
            f64::from(run()[row * P + column]),
            exact,
            5e-5 * size,
        );
        time(c, "project", &backend, [N, P, DIM], || {
            black_box(run());
        });
    }
}

criterion_group!(
    operations,
    pair_histogram,
    pair_sums,
    nearest,
    gram,
    project
);
criterion_main!(operations);
