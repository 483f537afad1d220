//! The GPU backend against naive f64, on whatever adapter is there, software ones included.

use vecdrift::embeddings::Rows;
use vecdrift::engine::gpu::measure;
use vecdrift::engine::{
    BlockLayout, COSINE_BINS, DeviceChoice, Engine, EngineConfig, KernelFamily, Metric, score,
};
use vecdrift::stats::rng::Philox;

fn engine(device: DeviceChoice, memory: u64) -> vecdrift::Result<Engine> {
    Engine::new(&EngineConfig {
        device,
        memory,
        ..EngineConfig::default()
    })
}

/// The GPU, or `None`, loudly, where there is none and none was promised.
fn gpu(memory: u64) -> Option<Engine> {
    match engine(DeviceChoice::Gpu, memory) {
        Ok(engine) => Some(engine),
        Err(error) if std::env::var("VECDRIFT_REQUIRE_GPU").as_deref() == Ok("1") => {
            panic!("VECDRIFT_REQUIRE_GPU=1: {error}")
        }
        Err(error) => {
            eprintln!("**** NO GPU TEST WAS RUN: {error} ****");
            None
        }
    }
}

/// An engine, and what its core rounds rows to: |x·y − x̃·ỹ| ≤ this·‖x‖·‖y‖.
struct OnCore {
    core: String,
    engine: Engine,
    rounding: f64,
}

/// One engine per core that the adapter can run, each held to known answers before.
fn cores(memory: u64) -> Vec<OnCore> {
    if gpu(memory).is_none() {
        return Vec::new();
    }
    let reports = measure::cores(&DeviceChoice::Gpu).unwrap();
    let cooperative = reports.iter().any(|r| r.core.starts_with("cooperative"));
    if std::env::var("VECDRIFT_REQUIRE_COOPERATIVE_MATRIX").as_deref() == Ok("1") {
        assert!(cooperative, "no core on cooperative matrices: {reports:?}");
    } else if !cooperative {
        eprintln!("**** NO COOPERATIVE MATRICES HERE: their cores were not run ****");
    }
    let engines = reports.into_iter().map(|report| {
        assert!(report.passed, "{report:?}");
        let half = report.core.contains("f16");
        OnCore {
            engine: measure::engine(&DeviceChoice::Gpu, &report.core, memory).unwrap(),
            // Two roundings to 11 bits.
            rounding: if half { 1.001 * 2f64.powi(-10) } else { 0.0 },
            core: report.core,
        }
    });
    engines.collect()
}

const MEMORY: u64 = 512 << 20;
/// Blocks of 64 rows: every seam that there can be.
const LITTLE: u64 = 0;

const SHAPES: [(usize, usize, usize); 8] = [
    (1, 1, 1),
    (63, 65, 3),
    (64, 64, 16),
    (65, 129, 17),
    (129, 63, 100),
    (129, 64, 384),
    (1, 129, 384),
    (300, 70, 33),
];

fn normal(rows: usize, dim: usize, stream: u64) -> Vec<f32> {
    let mut random = Philox::new(7, stream);
    (0..rows * dim).map(|_| random.normal() as f32).collect()
}

fn exact_dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

fn length(x: &[f32]) -> f64 {
    exact_dot(x, x).sqrt()
}

/// The accuracy contract's bound for products of unit vectors, with two roundings of the vectors.
fn contract(dim: usize) -> f64 {
    (dim as f64 + 8.0) * 2f64.powi(-23)
}

fn assert_near(found: f64, exact: f64, bound: f64, what: &str) {
    assert!(
        (found - exact).abs() <= bound,
        "{what}: {found}, expected {exact} within {bound:e}, off by {:e}",
        (found - exact).abs()
    );
}

#[test]
fn pair_histogram_matches_exact_cosines() {
    for on_core in cores(MEMORY) {
        check_pair_histogram(&on_core);
    }
}

fn check_pair_histogram(on_core: &OnCore) {
    let gpu = &on_core.engine;
    for (n, m, dim) in SHAPES {
        let (xs, ys) = (normal(n, dim, 0), normal(m, dim, 1));
        let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
        for within in [true, false] {
            let what = format!("{}: {n} x {m} x {dim}, within {within}", on_core.core);
            let found = gpu.pair_histogram(x, (!within).then_some(y)).unwrap();
            let mut cosines = Vec::new();
            for (i, a) in x.iter().enumerate() {
                let others = if within { x.slice(i + 1..n) } else { y };
                cosines.extend(
                    others
                        .iter()
                        .map(|b| exact_dot(&a, &b) / (length(&a) * length(&b))),
                );
            }
            assert_eq!(found.pairs(), cosines.len() as u64, "{what}");
            if cosines.is_empty() {
                assert!(found.min > found.max);
                continue;
            }
            cosines.sort_by(f64::total_cmp);
            // Cores that split values have three products per coordinate.
            let bound = 3.0 * contract(dim) + on_core.rounding;
            let pairs = cosines.len() as f64;
            assert_near(f64::from(found.min), cosines[0], bound, &what);
            assert_near(
                f64::from(found.max),
                cosines[cosines.len() - 1],
                bound,
                &what,
            );
            // Sums of a tile go through at most 24 additions of terms up to 1.
            let sums = bound + 24.0 * 2f64.powi(-24);
            let mean = cosines.iter().sum::<f64>() / pairs;
            let mean_square = cosines.iter().map(|c| c * c).sum::<f64>() / pairs;
            assert_near(found.sum.to_f64() / pairs, mean, sums, &what);
            assert_near(
                found.sum_squares.to_f64() / pairs,
                mean_square,
                2.0 * sums,
                &what,
            );
            let mut sorted = cosines.iter();
            for (bin, &count) in found.counts.iter().enumerate() {
                let low = bin as f64 / (COSINE_BINS / 2) as f64 - 1.0;
                let high = (bin + 1) as f64 / (COSINE_BINS / 2) as f64 - 1.0;
                for c in sorted.by_ref().take(count as usize) {
                    assert!(
                        (low - bound..=high + bound).contains(c),
                        "{what}: {c} in bin {bin}"
                    );
                }
            }
        }
    }
}

#[test]
fn pair_sums_match_exact_kernels() {
    for on_core in cores(MEMORY) {
        check_pair_sums(&on_core);
    }
}

fn check_pair_sums(on_core: &OnCore) {
    let gpu = &on_core.engine;
    // (rows of x, rows of y, dimension, blocks): blocks of up to 32 rows have sum tiles of 16.
    for (n, m, dim, blocks) in [
        (1, 1, 1, 2),
        (63, 65, 3, 6),
        (129, 100, 17, 2),
        (300, 333, 384, 30),
    ] {
        let (xs, ys) = (normal(n, dim, 2), normal(m, dim, 3));
        let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
        let row = |r: usize| if r < n { x.row(r) } else { y.row(r - n) };
        let half = blocks / 2;
        let mut members = vec![Vec::new(); blocks];
        for r in 0..n + m {
            members[if r < n { r % half } else { half + r % half }].push(r as u32);
        }
        // Rows 3i and 3i + 1 are one document.
        let groups: Vec<u32> = (0..n + m)
            .map(|r| (r - usize::from(r % 3 == 1)) as u32)
            .collect();
        for rbf in [1, 5] {
            for energy in [false, true] {
                let gamma = 0.05 / dim as f64;
                let mut offsets: Vec<f32> =
                    (0..rbf).map(|j| (-(2 << j) as f32 * 0.05).exp()).collect();
                if energy {
                    offsets.push(-(2.0 * dim as f32).sqrt());
                }
                let kernels = KernelFamily {
                    gamma,
                    rbf,
                    energy,
                    offsets,
                };
                let layout = BlockLayout::new(n, &members, &groups);
                let wanted = rbf - 1;
                let found = gpu
                    .pair_sums(x, y, &layout, &kernels, Some(wanted))
                    .unwrap();
                let s = blocks;
                let mut exact = vec![vec![0.0; s * s]; kernels.len()];
                let mut rows = vec![[0.0; 2]; n + m];
                let mut block_of = vec![0; n + m];
                for (block, members) in members.iter().enumerate() {
                    members.iter().for_each(|&r| block_of[r as usize] = block);
                }
                for i in 0..n + m {
                    for j in 0..n + m {
                        if groups[i] == groups[j] {
                            continue;
                        }
                        let sq: f64 = row(i)
                            .iter()
                            .zip(&*row(j))
                            .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
                            .sum();
                        for (k, sums) in exact.iter_mut().enumerate() {
                            sums[block_of[i] * s + block_of[j]] += kernels.value(k, sq);
                        }
                        rows[i][usize::from(j >= n)] += kernels.value(wanted, sq);
                    }
                }
                // Per pair: d² is off by 4(d + 4)·2⁻²³ of the largest squared length R² of a centred
                // row (d² + spread of products), and |∂k/∂d²| ≤ γ; an RBF kernel adds the relative
                // error of exp, doubled by each squaring. Distances of normal rows are 1 or so apart.
                let radius = (0..n + m)
                    .map(|r| exact_dot(&row(r), &row(r)))
                    .fold(1.0, f64::max);
                // Cores that split values have three products per coordinate; those that round them are
                // off by that on top, and rows are scaled by up to two before.
                let off = 4.0 * (3.0 * contract(dim) + on_core.rounding) * radius;
                for (k, exact) in exact.iter().enumerate() {
                    let per_pair = if k < rbf {
                        kernels.gamma_of(k) * off + 2f64.powi(k as i32 - 20)
                    } else if dim > 16 {
                        off + radius.sqrt() * 2f64.powi(-20)
                    } else {
                        off.sqrt()
                    };
                    for (at, &exact) in exact.iter().enumerate() {
                        let bound = per_pair * found.counts[at] as f64;
                        let what = format!(
                            "{}: {n} + {m} x {dim}: kernel {k} of {rbf}, entry {at}",
                            on_core.core
                        );
                        assert_near(found.sums[k][at], exact, bound, &what);
                    }
                    if k == wanted {
                        for (r, (found, exact)) in found
                            .row_sums
                            .as_ref()
                            .unwrap()
                            .iter()
                            .zip(&rows)
                            .enumerate()
                        {
                            for side in 0..2 {
                                let bound = per_pair * (n + m) as f64;
                                assert_near(found[side], exact[side], bound, &format!("row {r}"));
                            }
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn nearest_is_exact() {
    for on_core in cores(MEMORY) {
        check_nearest(&on_core);
    }
}

fn check_nearest(on_core: &OnCore) {
    let gpu = &on_core.engine;
    for (n, m, dim) in SHAPES.into_iter().chain([(70, 4000, 24)]) {
        let (xs, ys) = (normal(n, dim, 4), normal(m, dim, 5));
        let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
        for metric in [Metric::Cosine, Metric::Dot] {
            for k in [1, 10] {
                let found = gpu.nearest(x, y, k, metric, None).unwrap();
                for (i, list) in found.lists.iter().enumerate() {
                    let mut all: Vec<(f64, u32)> = y
                        .iter()
                        .zip(0..)
                        .map(|(b, j)| {
                            let a = x.row(i);
                            (
                                score::similarity(metric, &a, score::norm(&a), &b, score::norm(&b)),
                                j,
                            )
                        })
                        .collect();
                    all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
                    all.truncate(k);
                    assert_eq!(
                        *list, all,
                        "{}: {n} x {m} x {dim}, {metric:?}, k {k}, query {i}",
                        on_core.core
                    );
                }
            }
        }
    }
}

#[test]
fn gram_and_project_match_exact_products() {
    let Some(gpu) = gpu(MEMORY) else { return };
    for (n, m, dim) in SHAPES.into_iter().chain([(4200, 5, 70)]) {
        let (xs, zs) = (normal(n, dim, 6), normal(n, dim + 2, 7));
        let (x, z) = (Rows::new(&xs, dim), Rows::new(&zs, dim + 2));
        let found = gpu.gram(x, z).unwrap();
        for i in 0..dim {
            for j in 0..dim + 2 {
                let terms = || (0..n).map(|r| f64::from(x.row(r)[i]) * f64::from(z.row(r)[j]));
                // 64 terms are added in f32; the rest adds next to nothing.
                let bound = 66.0 * 2f64.powi(-24) * terms().map(f64::abs).sum::<f64>();
                let what = format!("gram of {n} x {dim} at {i}, {j}");
                assert_near(
                    found.products[i * (dim + 2) + j],
                    terms().sum(),
                    bound,
                    &what,
                );
            }
        }
        let ws = normal(m, dim, 8);
        let w = Rows::new(&ws, dim);
        let found = gpu.project(x, w).unwrap();
        assert_eq!(found.len(), n * m);
        for (at, &value) in found.iter().enumerate() {
            let (a, b) = (x.row(at / m), w.row(at % m));
            let bound = (dim as f64 + 4.0) * 2f64.powi(-23) * length(&a) * length(&b);
            assert_near(f64::from(value), exact_dot(&a, &b), bound, "project");
        }
    }
}

/// Panels are added without rounding away what is small beside the sum so far. Here every panel's own
/// sum is exact, and a plain f32 sum of them would be 1.
#[test]
fn gram_keeps_what_f32_cannot_add() {
    let Some(gpu) = gpu(MEMORY) else { return };
    let mut xs = vec![0.0f32; 4096];
    xs.iter_mut().step_by(64).for_each(|v| *v = 2f32.powi(-13));
    xs[0] = 1.0;
    let x = Rows::new(&xs, 1);
    let found = gpu.gram(x, x).unwrap().products[0];
    assert_eq!(found, 1.0 + 63.0 * 2f64.powi(-26));
    assert_eq!((0..63).fold(1.0f32, |sum, _| sum + 2f32.powi(-26)), 1.0);
}

#[test]
fn the_device_passes_its_own_check() {
    let Some(gpu) = gpu(MEMORY) else { return };
    for check in vecdrift::engine::check::check(&gpu, 3).unwrap() {
        eprintln!("{check:?}");
        assert!(check.passed, "{check:?}");
    }
}

#[test]
fn neither_blocks_nor_threads_change_a_bit() {
    let (Some(one), Some(many)) = (gpu(MEMORY), gpu(LITTLE)) else {
        return;
    };
    let (n, m, dim) = (200, 333, 40);
    let (xs, ys) = (normal(n, dim, 9), normal(m, dim, 10));
    let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
    assert_eq!(
        one.pair_histogram(x, None).unwrap(),
        many.pair_histogram(x, None).unwrap()
    );
    assert_eq!(
        one.pair_histogram(x, Some(y)).unwrap(),
        many.pair_histogram(x, Some(y)).unwrap()
    );
    assert_eq!(one.project(x, y).unwrap(), many.project(x, y).unwrap());
    let nearest = |engine: &Engine| engine.nearest(x, y, 5, Metric::Cosine, None).unwrap();
    assert_eq!(nearest(&one), nearest(&many));
    let groups: Vec<u32> = (0..(n + m) as u32).collect();
    for size in [20, 100] {
        let cut = |rows: &[u32]| rows.chunks(size).map(<[u32]>::to_vec).collect::<Vec<_>>();
        let blocks = [cut(&groups[..n]), cut(&groups[n..])].concat();
        let layout = BlockLayout::new(n, &blocks, &groups);
        let kernels = KernelFamily {
            gamma: 0.01,
            rbf: 5,
            energy: true,
            offsets: vec![0.25; 6],
        };
        let sums = |engine: &Engine| engine.pair_sums(x, y, &layout, &kernels, Some(2)).unwrap();
        assert_eq!(sums(&one), sums(&many));
    }
}

/// A device that binds 1 MiB and dispatches 64 × 64 workgroups computes the same in many small steps.
#[test]
fn tiny_limits_change_no_bit() {
    if gpu(MEMORY).is_none() {
        return;
    }
    let (n, m, dim) = (700, 9000, 33);
    let (xs, ys) = (normal(n, dim, 9), normal(m, dim, 10));
    let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
    let groups: Vec<u32> = (0..(n + m) as u32).collect();
    let cut = |rows: &[u32]| rows.chunks(500).map(<[u32]>::to_vec).collect::<Vec<_>>();
    let layout = BlockLayout::new(n, &[cut(&groups[..n]), cut(&groups[n..])].concat(), &groups);
    let kernels = KernelFamily {
        gamma: 0.01,
        rbf: 2,
        energy: false,
        offsets: vec![0.25; 2],
    };
    let results = |engine: &Engine| {
        (
            engine.pair_histogram(x, Some(y)).unwrap(),
            engine.pair_sums(x, y, &layout, &kernels, None).unwrap(),
            engine.nearest(x, y, 10, Metric::Dot, None).unwrap(),
            engine.gram(y, y).unwrap(),
            engine.project(y, x.slice(0..70)).unwrap(),
        )
    };
    let choice = DeviceChoice::Gpu;
    for core in ["f32-64", "f32-128"] {
        let whole = measure::engine(&choice, core, MEMORY).unwrap();
        let tiny = measure::limited_engine(&choice, core, MEMORY, [1 << 20, 64]).unwrap();
        assert_eq!(results(&tiny), results(&whole), "{core}");
        // What cannot be cut any further is an error, and says so.
        let wide = normal(3, 5000, 11);
        let wide = Rows::new(&wide, 5000);
        let error = tiny.gram(wide, wide).unwrap_err();
        assert!(
            error.is_device() && error.to_string().contains("binds at most 1048576"),
            "{error}"
        );
    }
}

#[test]
fn a_device_is_found_by_name_or_missed_with_a_list() {
    let Some(first) = vecdrift::engine::gpu::adapters().into_iter().next() else {
        assert!(gpu(MEMORY).is_none());
        return;
    };
    let name = first.device.name.to_uppercase();
    for choice in [DeviceChoice::Index(0), DeviceChoice::Name(name)] {
        let opened = engine(choice, MEMORY).unwrap();
        assert_eq!(opened.device().name, first.device.name);
        assert!(opened.device().precision.starts_with("f32 ("));
    }
    let missed = engine(DeviceChoice::Name("no such card".into()), MEMORY)
        .err()
        .unwrap();
    assert!(
        missed.is_device() && missed.to_string().contains(&first.device.name),
        "{missed}"
    );
    assert_eq!(missed.hint_text(), Some("vecdrift devices lists them"));
}
