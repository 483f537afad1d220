//! Kernel sums of sets large enough for the grid: what rounding to it does to an MMD².

use vecdrift::embeddings::Rows;
use vecdrift::engine::{BlockLayout, DeviceChoice, Engine, EngineConfig, KernelFamily};
use vecdrift::stats::rng::Philox;

const ROWS: usize = 1100;

fn open(device: DeviceChoice) -> Engine {
    let config = EngineConfig {
        device,
        ..EngineConfig::default()
    };
    Engine::new(&config).unwrap()
}

/// Unit rows around a few centres; those of Y are a little farther apart.
fn rows(dim: usize, stream: u64, spread: f64) -> Vec<f32> {
    let mut rng = Philox::new(12, 0);
    let centres: Vec<f64> = (0..20 * dim).map(|_| rng.normal()).collect();
    let mut rng = Philox::new(12, stream);
    let mut values = Vec::with_capacity(ROWS * dim);
    for _ in 0..ROWS {
        let centre = rng.below(20) as usize * dim;
        let row: Vec<f64> = (0..dim)
            .map(|k| centres[centre + k] + spread * rng.normal())
            .collect();
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        values.extend(row.iter().map(|v| (v / norm) as f32));
    }
    values
}

fn sq_distance(a: &[f32], b: &[f32]) -> f64 {
    let off = |(a, b): (&f32, &f32)| (f64::from(*a) - f64::from(*b)).powi(2);
    a.iter().zip(b).map(off).sum()
}

/// Unbiased MMD² per kernel from sums over pairs within X, within Y and across.
fn mmd2(xx: f64, yy: f64, xy: f64) -> f64 {
    let n = ROWS as f64;
    (xx + yy) / (n * (n - 1.0)) - 2.0 * xy / (n * n)
}

/// In f64.
fn exact(x: Rows<'_>, y: Rows<'_>, kernels: &KernelFamily) -> Vec<f64> {
    let sums = |a: Rows<'_>, b: Rows<'_>, same: bool| -> Vec<f64> {
        let mut sums = vec![0.0; kernels.len()];
        for (i, a) in a.iter().enumerate() {
            for (j, b) in b.iter().enumerate() {
                if same && i == j {
                    continue;
                }
                let square = sq_distance(&a, &b);
                for (kernel, sum) in sums.iter_mut().enumerate() {
                    *sum += kernels.value(kernel, square);
                }
            }
        }
        sums
    };
    let (xx, yy, xy) = (sums(x, x, true), sums(y, y, true), sums(x, y, false));
    (0..kernels.len())
        .map(|j| mmd2(xx[j], yy[j], xy[j]))
        .collect()
}

fn computed(
    engine: &Engine,
    x: Rows<'_>,
    y: Rows<'_>,
    kernels: &KernelFamily,
) -> (Vec<f64>, Option<f64>) {
    let groups: Vec<u32> = (0..2 * ROWS as u32).collect();
    let blocks = [groups[..ROWS].to_vec(), groups[ROWS..].to_vec()];
    let layout = BlockLayout::new(ROWS, &blocks, &groups);
    let sums = engine.pair_sums(x, y, &layout, kernels, None).unwrap();
    let values = sums.sums.iter().map(|m| mmd2(m[0], m[3], m[1]));
    (values.collect(), sums.grid_step)
}

/// The noise of MMD² is about 0.3/n, here 3·10⁻⁴: an error of 10⁻⁷ is nothing to it. Rows move in
/// random directions, so the error falls as 1/√n; at n = 10⁶ it stays below a hundredth of the noise.
const BUDGET: f64 = 1e-7;

#[test]
fn an_mmd_on_the_grid_keeps_its_budget() {
    let mut engines = vec![open(DeviceChoice::Cpu)];
    // A GPU computes in f32 with the same rounded rows.
    if std::env::var_os("VECDRIFT_REQUIRE_GPU").is_some_and(|v| v == "1") {
        engines.push(open(DeviceChoice::Gpu));
    }
    for dim in [3, 100, 385] {
        // Spread by dimension, so that clusters overlap at all of them.
        let spread = if dim == 3 { 0.3 } else { 1.0 };
        let (xs, ys) = (rows(dim, 1, spread), rows(dim, 2, 1.03 * spread));
        let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
        let kernels = KernelFamily {
            gamma: 0.125,
            rbf: 5,
            energy: true,
            offsets: vec![0.8, 0.6, 0.4, 0.2, 0.05, -1.3],
        };
        let exact = exact(x, y, &kernels);
        let mut steps = Vec::new();
        for engine in &engines {
            let device = &engine.device().backend;
            let (found, step) = computed(engine, x, y, &kernels);
            let step = step.expect("so many rows lie on a grid");
            // Unit rows about their mean are no longer than 2.
            assert!(step > 0.1 / 46_340.0 && step < 3.0 / 32_767.0, "{step}");
            steps.push(step);
            for (kernel, (found, exact)) in found.iter().zip(&exact).enumerate() {
                let error = (found - exact).abs();
                println!("{device}, d {dim}, kernel {kernel}: {exact:.3e}, error {error:.1e}");
                assert!(
                    error <= BUDGET,
                    "{device}, d {dim}, kernel {kernel}: {error:e}"
                );
            }
        }
        let (engine, step) = (&engines[0], steps[0]);
        assert!(steps.iter().all(|&other| other == step));
        // Rows on a grid 256 times coarser, as 8-bit codes would be, do not keep it.
        let coarse = |values: &[f32]| -> Vec<f32> {
            let step = (256.0 * step) as f32;
            values.iter().map(|v| (v / step).round() * step).collect()
        };
        let (xs, ys) = (coarse(&xs), coarse(&ys));
        let (found, _) = computed(engine, Rows::new(&xs, dim), Rows::new(&ys, dim), &kernels);
        let errors = found.iter().zip(&exact).map(|(a, b)| (a - b).abs());
        let worst = errors.fold(0.0, f64::max);
        assert!(worst > BUDGET, "d {dim}: {worst:e}");
    }
}

/// Equal rows lie on one point of the grid: their kernel is exactly 1, their distance exactly 0.
#[test]
fn equal_rows_stay_equal_on_the_grid() {
    let dim = 7;
    let mut values = rows(dim, 3, 0.5);
    let (low, high) = values.split_at_mut(ROWS / 2 * dim);
    low.copy_from_slice(high);
    let x = Rows::new(&values, dim);
    let kernels = KernelFamily {
        gamma: 1e6,
        rbf: 1,
        energy: true,
        offsets: vec![0.0; 2],
    };
    // Each row of X, but for its copies, is 1,000 standard deviations of the kernel away.
    let engine = open(DeviceChoice::Cpu);
    let groups: Vec<u32> = (0..2 * ROWS as u32).collect();
    let layout = BlockLayout::new(ROWS, std::slice::from_ref(&groups), &groups);
    let sums = engine.pair_sums(x, x, &layout, &kernels, None).unwrap();
    assert!(sums.grid_step.is_some());
    // Every row stands there four times, so each of 2,200 meets three equals.
    assert_eq!(sums.sums[0], [3.0 * 2.0 * ROWS as f64]);
}
