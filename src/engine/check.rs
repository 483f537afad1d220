//! Known answers: does a device compute what it should?

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    BlockLayout, COSINE_BINS, Engine, KernelFamily, Metric, PairHistogram, PairSums, score,
};
use crate::embeddings::{F32Rows, Rows};
use crate::error::Result;
use crate::stats::rng::Philox;

/// How one operation fared.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OperationCheck {
    /// The operation.
    pub operation: String,
    /// |computed − exact| where it comes nearest to its bound, or exceeds it most. For `nearest`, how
    /// many entries of the lists differ. `None` where a result was not a number.
    pub max_error: Option<f64>,
    /// What the accuracy contract of [`crate::engine`] allows there.
    pub bound: f64,
    /// Whether every result kept its bound.
    pub passed: bool,
}

/// Rows of X and of Y, and their dimension: several tiles, the last ones incomplete.
const X_ROWS: usize = 150;
const Y_ROWS: usize = 331;
const DIM: usize = 100;

/// 2⁻²³, the spacing of f32 values at 1.
const ULP: f64 = f32::EPSILON as f64;

/// Runs every operation on small random data and compares the results with f64.
///
/// # Errors
/// The device fails.
pub fn check(engine: &Engine, seed: u64) -> Result<Vec<OperationCheck>> {
    let (xs, ys) = (normal(X_ROWS, seed, 0), normal(Y_ROWS, seed, 1));
    let (x, y) = (F32Rows::new(&xs, DIM), F32Rows::new(&ys, DIM));
    let (held_x, held_y) = (Rows::from(x), Rows::from(y));

    let mut histogram = Worst::default();
    compare_histogram(
        &mut histogram,
        &engine.pair_histogram(held_x, None)?,
        x,
        None,
    );
    compare_histogram(
        &mut histogram,
        &engine.pair_histogram(held_x, Some(held_y))?,
        x,
        Some(y),
    );

    let mut sums = Worst::default();
    let kernels = KernelFamily {
        gamma: 0.05 / DIM as f64,
        rbf: 5,
        energy: true,
        offsets: vec![0.9, 0.8, 0.7, 0.4, 0.2, -14.0],
    };
    // Blocks of 20 rows have sum tiles of 16, blocks of 100 rows of 64.
    for size in [20, 100] {
        let setting = SumsSetting::new(x, y, size);
        let found = engine.pair_sums(held_x, held_y, &setting.layout, &kernels, Some(2))?;
        compare_sums(&mut sums, &found, &setting, x, y, &kernels);
    }

    let mut nearest = Worst::default();
    for metric in [Metric::Cosine, Metric::Dot] {
        let found = engine.nearest(held_x, held_y, 7, metric, None)?;
        compare_lists(&mut nearest, &found.lists, x, y, metric);
    }

    let mut gram = Worst::default();
    let first = y.slice(0..X_ROWS);
    compare_gram(
        &mut gram,
        &engine.gram(held_x, first.into())?.products,
        x,
        first,
    );

    let mut project = Worst::default();
    compare_products(&mut project, &engine.project(held_x, held_y)?, x, y);

    Ok(vec![
        histogram.into_check("pair_histogram"),
        sums.into_check("pair_sums"),
        nearest.into_check("nearest"),
        gram.into_check("gram"),
        project.into_check("project"),
    ])
}

/// The comparison that says most: the one with the largest error in units of its bound.
#[derive(Debug, Default)]
struct Worst {
    error: f64,
    bound: f64,
    failed: bool,
}

impl Worst {
    fn compare(&mut self, found: f64, exact: f64, bound: f64) {
        let error = (found - exact).abs();
        // A NaN is within no bound.
        self.failed |= !matches!(
            error.partial_cmp(&bound),
            Some(std::cmp::Ordering::Less | std::cmp::Ordering::Equal)
        );
        let worse = error * self.bound >= self.error * bound;
        if error.is_nan() || (worse && !self.error.is_nan()) {
            (self.error, self.bound) = (error, bound);
        }
    }

    fn into_check(self, operation: &str) -> OperationCheck {
        OperationCheck {
            operation: operation.to_owned(),
            max_error: self.error.is_finite().then_some(self.error),
            bound: self.bound,
            passed: !self.failed,
        }
    }
}

fn normal(rows: usize, seed: u64, stream: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, stream);
    (0..rows * DIM).map(|_| random.normal() as f32).collect()
}

/// Values computed within ε of the exact ones have, once sorted, order statistics within ε of the exact
/// ones: so the i-th smallest exact cosine lies within ε of the bin of the i-th one counted.
fn compare_histogram(
    worst: &mut Worst,
    found: &PairHistogram,
    x: F32Rows<'_>,
    y: Option<F32Rows<'_>>,
) {
    let mut cosines = Vec::new();
    for (i, a) in x.iter().enumerate() {
        let others = y.unwrap_or_else(|| x.slice(i + 1..x.len()));
        let norm = score::norm(a);
        cosines.extend(
            others
                .iter()
                .map(|b| score::dot(a, b) / (norm * score::norm(b))),
        );
    }
    cosines.sort_by(f64::total_cmp);
    // Unit rows are rounded twice before they meet.
    let bound = (DIM as f64 + 8.0) * ULP;
    let pairs = cosines.len() as f64;
    worst.compare(found.pairs() as f64, pairs, 0.0);
    worst.compare(f64::from(found.min), cosines[0], bound);
    worst.compare(f64::from(found.max), cosines[cosines.len() - 1], bound);
    let mean = cosines.iter().sum::<f64>() / pairs;
    let mean_square = cosines.iter().map(|c| c * c).sum::<f64>() / pairs;
    let size = cosines.iter().map(|c| c.abs()).sum::<f64>() / pairs;
    worst.compare(found.sum.to_f64() / pairs, mean, bound + chain() * size);
    let squares = (2.0 * bound + ULP) * size + chain() * mean_square;
    worst.compare(found.sum_squares.to_f64() / pairs, mean_square, squares);
    let edge = |bin: usize| bin as f64 / (COSINE_BINS / 2) as f64 - 1.0;
    let mut sorted = cosines.iter();
    for (bin, &count) in found.counts.iter().enumerate() {
        for &c in sorted.by_ref().take(count as usize) {
            worst.compare(c.clamp(edge(bin), edge(bin + 1)), c, bound);
        }
    }
}

/// Relative error of an f32 sum over a sum tile: whatever its order, no term goes through more than
/// 256 additions.
fn chain() -> f64 {
    256.0 * ULP / 2.0
}

/// Rows in blocks of about one size, with groups across the two sets.
struct SumsSetting {
    layout: BlockLayout,
    block_of: Vec<usize>,
    groups: Vec<u32>,
}

impl SumsSetting {
    fn new(x: F32Rows<'_>, y: F32Rows<'_>, size: usize) -> Self {
        let (n, all) = (x.len() as u32, (x.len() + y.len()) as u32);
        let cut = |rows: std::ops::Range<u32>| {
            let rows: Vec<u32> = rows.collect();
            rows.chunks(size).map(<[u32]>::to_vec).collect::<Vec<_>>()
        };
        let blocks = [cut(0..n), cut(n..all)].concat();
        // Row r of X and row r of Y are one item.
        let groups: Vec<u32> = (0..all)
            .map(|row| if row < n { row } else { row - n })
            .collect();
        let mut block_of = vec![0; all as usize];
        for (block, rows) in blocks.iter().enumerate() {
            rows.iter().for_each(|&row| block_of[row as usize] = block);
        }
        Self {
            layout: BlockLayout::new(x.len(), &blocks, &groups),
            block_of,
            groups,
        }
    }
}

fn compare_sums(
    worst: &mut Worst,
    found: &PairSums,
    setting: &SumsSetting,
    x: F32Rows<'_>,
    y: F32Rows<'_>,
    kernels: &KernelFamily,
) {
    let rows: Vec<&[f32]> = x.iter().chain(y.iter()).collect();
    let mut mean = [0.0; DIM];
    for row in &rows {
        for (m, &v) in mean.iter_mut().zip(*row) {
            *m += f64::from(v) / rows.len() as f64;
        }
    }
    let sq_radius = rows
        .iter()
        .map(|row| {
            row.iter()
                .zip(&mean)
                .map(|(&v, m)| (f64::from(v) - m).powi(2))
                .sum()
        })
        .fold(0.0, f64::max);
    // d² is made of two squared norms and twice a product of rows no longer than the radius.
    let sq_error = (2.0 * DIM as f64 + 16.0) * ULP * sq_radius;
    let s = found.blocks;
    let mut sums = vec![[0.0; 2]; kernels.len() * s * s];
    let mut of_rows = vec![[[0.0; 2]; 2]; rows.len()];
    for (i, a) in rows.iter().enumerate() {
        for (j, b) in rows.iter().enumerate() {
            if setting.groups[i] == setting.groups[j] {
                continue;
            }
            let differences = a.iter().zip(*b).map(|(&a, &b)| f64::from(a) - f64::from(b));
            let sq_distance: f64 = differences.map(|v| v * v).sum();
            for k in 0..kernels.len() {
                let value = kernels.value(k, sq_distance);
                let rounding = if k < kernels.rbf {
                    // exp is good to 3 + 2|x| units, its argument to one; a squaring doubles that.
                    let exponent = kernels.gamma * sq_distance;
                    kernels.gamma_of(k) * sq_error
                        + f64::from(1u32 << k) * (4.0 + 4.0 * exponent) * ULP * value
                } else {
                    let distance = sq_distance.sqrt();
                    sq_error.sqrt().min(sq_error / distance) + 4.0 * ULP * distance
                };
                let term = (value - f64::from(kernels.offsets[k])).abs();
                let term = [value, rounding + chain() * (term + rounding)];
                let add = |to: &mut [f64; 2]| (0..2).for_each(|part| to[part] += term[part]);
                add(&mut sums[(k * s + setting.block_of[i]) * s + setting.block_of[j]]);
                if k == 2 {
                    add(&mut of_rows[i][usize::from(j >= x.len())]);
                }
            }
        }
    }
    for (k, matrix) in found.sums.iter().enumerate() {
        for (&found, [exact, bound]) in matrix.iter().zip(&sums[k * s * s..]) {
            worst.compare(found, *exact, *bound);
        }
    }
    for (found, exact) in found.row_sums.iter().flatten().zip(&of_rows) {
        for (&found, [exact, bound]) in found.iter().zip(exact) {
            worst.compare(found, *exact, *bound);
        }
    }
}

fn compare_lists(
    worst: &mut Worst,
    found: &[Vec<(f64, u32)>],
    x: F32Rows<'_>,
    y: F32Rows<'_>,
    metric: Metric,
) {
    let norms: Vec<f64> = y.iter().map(score::norm).collect();
    let mut wrong = x.len().abs_diff(found.len());
    for (found, a) in found.iter().zip(x.iter()) {
        let norm = score::norm(a);
        let mut all: Vec<(f64, u32)> = y
            .iter()
            .zip(&norms)
            .zip(0..)
            .map(|((b, &b_norm), row)| (score::similarity(metric, a, norm, b, b_norm), row))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        wrong += found.iter().zip(&all).filter(|(a, b)| a != b).count();
    }
    worst.compare(wrong as f64, 0.0, 0.0);
}

fn compare_gram(worst: &mut Worst, found: &[f64], x: F32Rows<'_>, y: F32Rows<'_>) {
    for (at, &found) in found.iter().enumerate() {
        let terms = || {
            x.iter()
                .zip(y.iter())
                .map(|(a, b)| f64::from(a[at / DIM]) * f64::from(b[at % DIM]))
        };
        // Chains of 64 rows are added in f32.
        let bound = (64.0 + 4.0) * ULP * terms().map(f64::abs).sum::<f64>();
        worst.compare(found, terms().sum(), bound);
    }
}

fn compare_products(worst: &mut Worst, found: &[f32], x: F32Rows<'_>, y: F32Rows<'_>) {
    let mut found = found.iter();
    for a in x.iter() {
        for b in y.iter() {
            let bound = (DIM as f64 + 4.0) * ULP * score::norm(a) * score::norm(b);
            let found = found.next().map_or(f64::NAN, |&v| f64::from(v));
            worst.compare(found, score::dot(a, b), bound);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DeviceChoice, EngineConfig};
    use super::*;

    fn cpu() -> Engine {
        Engine::new(&EngineConfig {
            device: DeviceChoice::Cpu,
            ..EngineConfig::default()
        })
        .unwrap()
    }

    #[test]
    fn the_cpu_passes() {
        let checks = check(&cpu(), 5).unwrap();
        let names: Vec<_> = checks.iter().map(|c| c.operation.as_str()).collect();
        let expected = ["pair_histogram", "pair_sums", "nearest", "gram", "project"];
        assert_eq!(names, expected);
        for check in checks {
            assert!(check.passed, "{check:?}");
            assert!(check.max_error.unwrap() <= check.bound, "{check:?}");
        }
    }

    /// Every comparison notices one wrong value.
    #[test]
    fn a_wrong_value_fails() {
        let engine = cpu();
        let (xs, ys) = (normal(X_ROWS, 5, 0), normal(Y_ROWS, 5, 1));
        let (x, y) = (F32Rows::new(&xs, DIM), F32Rows::new(&ys, DIM));
        let (held_x, held_y) = (Rows::from(x), Rows::from(y));
        let fails = |compare: &dyn Fn(&mut Worst)| {
            let mut worst = Worst::default();
            compare(&mut worst);
            worst.failed
        };

        let right = engine.pair_histogram(held_x, Some(held_y)).unwrap();
        let histogram = |found: PairHistogram| fails(&|w| compare_histogram(w, &found, x, Some(y)));
        assert!(!histogram(right.clone()));
        let mut moved = right.clone();
        let from = moved.counts.iter().rposition(|&count| count > 0).unwrap();
        moved.counts[from] -= 1;
        moved.counts[from - 9] += 1;
        assert!(histogram(moved));
        let mut lost = right.clone();
        lost.counts[from] -= 1;
        assert!(histogram(lost));
        let min = right.min + 1e-4;
        assert!(histogram(PairHistogram {
            min,
            ..right.clone()
        }));
        let max = f32::NAN;
        assert!(histogram(PairHistogram { max, ..right }));

        let kernels = KernelFamily {
            gamma: 0.05 / DIM as f64,
            rbf: 5,
            energy: true,
            offsets: vec![0.0; 6],
        };
        let setting = SumsSetting::new(x, y, 100);
        let right = engine
            .pair_sums(held_x, held_y, &setting.layout, &kernels, Some(2))
            .unwrap();
        let sums = |found: &PairSums| fails(&|w| compare_sums(w, found, &setting, x, y, &kernels));
        assert!(!sums(&right));
        for kernel in 0..kernels.len() {
            let mut wrong = right.clone();
            wrong.sums[kernel][1] *= 1.001;
            assert!(sums(&wrong), "kernel {kernel}");
        }
        let mut wrong = right.clone();
        wrong.row_sums.as_mut().unwrap()[3][1] += 0.1;
        assert!(sums(&wrong));

        let right = engine
            .nearest(held_x, held_y, 7, Metric::Cosine, None)
            .unwrap()
            .lists;
        let lists = |found: &[_]| fails(&|w| compare_lists(w, found, x, y, Metric::Cosine));
        assert!(!lists(&right));
        let mut wrong = right.clone();
        wrong[9].swap(2, 3);
        assert!(lists(&wrong));
        assert!(lists(&right[1..]));

        let right = engine
            .gram(held_x, held_y.slice(0..X_ROWS))
            .unwrap()
            .products;
        let gram = |found: &[f64]| fails(&|w| compare_gram(w, found, x, y.slice(0..X_ROWS)));
        assert!(!gram(&right));
        let mut wrong = right;
        wrong[77] += 0.01;
        assert!(gram(&wrong));

        let right = engine.project(held_x, held_y).unwrap();
        let project = |found: &[f32]| fails(&|w| compare_products(w, found, x, y));
        assert!(!project(&right));
        assert!(project(&right[1..]));
        let mut wrong = right;
        wrong[1234] += 0.01;
        assert!(project(&wrong));
    }

    #[test]
    fn the_worst_is_what_exceeds_most_and_a_nan_above_all() {
        let mut worst = Worst::default();
        worst.compare(1.0, 1.5, 1.0);
        worst.compare(10.0, 12.0, 100.0);
        assert_eq!((worst.error, worst.bound, worst.failed), (0.5, 1.0, false));
        worst.compare(f64::NAN, 0.0, 1.0);
        worst.compare(5.0, 0.0, 1.0);
        let check = worst.into_check("any");
        assert_eq!((check.max_error, check.passed), (None, false));
    }
}
