//! The engine's operations in naive f64, and the one place where tolerances are defined.
//!
//! An oracle is obviously right rather than fast. Where rounding is allowed it returns, with each
//! value, the bound that the accuracy contract of `vecdrift::engine` gives for it.

use vecdrift::embeddings::Rows;
use vecdrift::engine::{KernelFamily, Metric, SelfExclusion, score};

/// Tolerances, each with its reason.
pub mod tolerance {
    /// Unit roundoff of f32: largest relative error of one rounding.
    pub const U: f64 = 1.0 / (1u64 << 24) as f64;

    /// What underflow may take from a value of about 1, whether or not a device keeps subnormal
    /// numbers.
    pub const UNDERFLOW: f64 = 1e-36;

    /// Most f32 additions one after another within a sum tile. The contract leaves the order open; both
    /// backends add rows or threads first and a tree after.
    pub const LONGEST_CHAIN: f64 = 256.0;

    /// |computed − exact product| / (‖x‖·‖y‖): the contract's bound. It is twice the rounding of a chain
    /// of d additions and so covers preparing the rows and placing a cosine in its bin (c + 1 rounds by
    /// at most U).
    pub fn product(dim: usize) -> f64 {
        (dim as f64 + 4.0) * 2.0 * U
    }

    /// Rounding of a sum of f32 terms of total size Σ|term|, added in tiles of which there are `tiles`:
    /// the standard bound for the longest chain, plus half a unit of 2⁻⁶⁰ per tile.
    pub fn sum(total_size: f64, tiles: f64) -> f64 {
        LONGEST_CHAIN * U * total_size + tiles * 2f64.powi(-61)
    }

    /// Error of a squared distance of rows no longer than `length`: inputs round by U·length each
    /// (8U·length² at distance 2·length), the product's bound counts twice, norms and two additions of
    /// numbers up to 4·length² round by 8U·length².
    pub fn sq_distance(dim: usize, length: f64) -> f64 {
        (2.0 * product(dim) + 16.0 * U + dim as f64 * UNDERFLOW) * length * length
    }

    /// What a grid adds to the error of a squared distance: either row moves by at most step·√d/2.
    pub fn on_grid(dim: usize, step: Option<f64>, sq_distance: f64) -> f64 {
        let moved = step.unwrap_or(0.0) * (dim as f64).sqrt();
        (2.0 * sq_distance.sqrt() + moved) * moved
    }

    /// Error of kernel exp(−γ_j·d²), j doublings from the one that is exponentiated, given the error of
    /// γ_j·d². With a = γ_j·d²: a's rounding is at most 2U·a, WGSL grants exp (3 + 2a) ulp (the CPU
    /// needs 2), j squarings multiply what is before them by 2ʲ and add (2ʲ − 1)U; a·e⁻ᵃ < ½.
    pub fn rbf(j: usize, scaled_sq_distance_error: f64) -> f64 {
        scaled_sq_distance_error + U * (3.0 + 8.0 * f64::from(1u32 << j)) + UNDERFLOW
    }

    /// Error of −√d²: of the root of a number off by `sq_distance_error`, and of the root itself (WGSL
    /// grants sqrt about 4 ulp).
    pub fn energy(sq_distance: f64, sq_distance_error: f64) -> f64 {
        let distance = sq_distance.sqrt();
        let moved = sq_distance_error.sqrt();
        let moved = if distance > 0.0 {
            moved.min(sq_distance_error / distance)
        } else {
            moved
        };
        moved + 8.0 * U * distance
    }

    /// Error of a cross-product over n rows of total size Σ|x·y|: in f64 on the CPU; on a GPU in f32 in
    /// groups of at most 64 rows, added in f64. `lengths` is the product of the longest rows' norms,
    /// near 1 after scaling.
    pub fn gram(backend: &str, rows: usize, total_size: f64, lengths: f64) -> f64 {
        let rounding = if backend == "cpu" {
            (rows as f64 + 4.0) * f64::EPSILON
        } else {
            68.0 * U
        };
        rounding * total_size + rows as f64 * UNDERFLOW * lengths
    }
}

/// An exact value and how far from it a computed one may lie.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bounded {
    pub value: f64,
    pub bound: f64,
}

impl Bounded {
    /// Why `got` does not fit, if it does not.
    pub fn check(self, what: impl std::fmt::Display, got: f64) -> Result<(), String> {
        let error = (got - self.value).abs();
        // Written so that NaN fails.
        if error <= self.bound {
            Ok(())
        } else {
            Err(format!(
                "{what}: got {got:e}, exact {:e}, error {error:e}, bound {:e}",
                self.value, self.bound
            ))
        }
    }
}

fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// Cosines of the pairs i < j of `x`, or of all pairs of `x` and `y`, ascending.
pub fn pair_histogram(x: Rows<'_>, y: Option<Rows<'_>>) -> Vec<f64> {
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (norm(a) * norm(b));
    let mut cosines = Vec::new();
    for i in 0..x.len() {
        match y {
            Some(y) => cosines.extend(y.iter().map(|b| cosine(&x.row(i), &b))),
            None => cosines.extend((i + 1..x.len()).map(|j| cosine(&x.row(i), &x.row(j)))),
        }
    }
    cosines.sort_by(f64::total_cmp);
    cosines
}

/// The k best base rows of every query by exact score, ties by row number.
pub fn nearest(
    queries: Rows<'_>,
    base: Rows<'_>,
    k: usize,
    metric: Metric,
    exclude: Option<SelfExclusion<'_>>,
) -> Vec<Vec<(f64, u32)>> {
    let one = |query: usize| {
        let mut all: Vec<(f64, u32)> = (0..base.len())
            .filter(|&row| exclude.is_none_or(|e| e.queries[query] != e.base[row]))
            .map(|row| {
                let (x, y) = (queries.row(query), base.row(row));
                let score = score::similarity(metric, &x, score::norm(&x), &y, score::norm(&y));
                (score, row as u32)
            })
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        all.truncate(k);
        all
    };
    (0..queries.len()).map(one).collect()
}

/// Kernel sums by pair of blocks, each with its bound.
pub struct PairSums {
    /// Per kernel, s × s.
    pub sums: Vec<Vec<Bounded>>,
    /// s × s.
    pub counts: Vec<u64>,
    /// Per row, over X's and over Y's rows.
    pub row_sums: Vec<[Bounded; 2]>,
}

/// Sums of every kernel over ordered pairs of rows of different groups, by the pair of blocks they are
/// in, and row sums of kernel `row_sums_of`. Rows are X's, then Y's; with `grid_step`, each may have
/// been moved to the nearest point of a grid.
pub fn pair_sums(
    x: Rows<'_>,
    y: Rows<'_>,
    blocks: &[Vec<u32>],
    groups: &[u32],
    kernels: &KernelFamily,
    row_sums_of: Option<usize>,
    grid_step: Option<f64>,
) -> PairSums {
    let rows: Vec<_> = x.iter().chain(y.iter()).collect();
    let rows: Vec<&[f32]> = rows.iter().map(|row| &**row).collect();
    let dim = x.dim();
    let length = longest_from_mean(&rows);
    let d2_error = tolerance::sq_distance(dim, length);
    let s = blocks.len();
    let mut sums = vec![vec![Bounded::default(); s * s]; kernels.len()];
    let mut sizes = vec![vec![0.0; s * s]; kernels.len()];
    let mut counts = vec![0; s * s];
    let mut row_sums = vec![[Bounded::default(); 2]; rows.len()];
    let mut row_sizes = vec![[0.0; 2]; rows.len()];
    for (a, block_a) in blocks.iter().enumerate() {
        for (b, block_b) in blocks.iter().enumerate() {
            let at = a * s + b;
            for &i in block_a {
                for &j in block_b {
                    let (i, j) = (i as usize, j as usize);
                    if groups[i] == groups[j] {
                        continue;
                    }
                    counts[at] += 1;
                    let d2 = rows[i]
                        .iter()
                        .zip(rows[j])
                        .map(|(&p, &q)| (f64::from(p) - f64::from(q)).powi(2))
                        .sum::<f64>();
                    let d2_error = d2_error + tolerance::on_grid(dim, grid_step, d2);
                    for kernel in 0..kernels.len() {
                        let value = kernels.value(kernel, d2);
                        let bound = if kernel < kernels.rbf {
                            tolerance::rbf(kernel, kernels.gamma_of(kernel) * d2_error)
                        } else {
                            tolerance::energy(d2, d2_error)
                        };
                        let size = (value - f64::from(kernels.offsets[kernel])).abs();
                        sums[kernel][at].value += value;
                        sums[kernel][at].bound += bound;
                        sizes[kernel][at] += size;
                        if row_sums_of == Some(kernel) {
                            let side = usize::from(j >= x.len());
                            row_sums[i][side].value += value;
                            row_sums[i][side].bound += bound;
                            row_sizes[i][side] += size;
                        }
                    }
                }
            }
        }
    }
    // Tiles are no more than pairs; fixed point has units of the scaled distances, at most 2·length
    // each. Offsets are added back in f64.
    let finish = |sum: &mut Bounded, size: f64, pairs: f64, kernel: usize| {
        let unit = if kernel < kernels.rbf {
            1.0
        } else {
            2.0 * length
        };
        let offsets = pairs * f64::from(kernels.offsets[kernel]).abs();
        sum.bound += tolerance::sum(size, 0.0) + tolerance::sum(0.0, pairs) * unit;
        sum.bound += 4.0 * f64::EPSILON * (offsets + sum.value.abs());
    };
    for (kernel, (sums, sizes)) in sums.iter_mut().zip(&sizes).enumerate() {
        for ((sum, &size), &count) in sums.iter_mut().zip(sizes).zip(&counts) {
            finish(sum, size, count as f64, kernel);
        }
    }
    if let Some(kernel) = row_sums_of {
        for (sums, sizes) in row_sums.iter_mut().zip(&row_sizes) {
            for (sum, &size) in sums.iter_mut().zip(sizes) {
                finish(sum, size, rows.len() as f64, kernel);
            }
        }
    }
    PairSums {
        sums,
        counts,
        row_sums,
    }
}

/// Largest distance of a row from the mean of all, with what the mean's own rounding may add.
fn longest_from_mean(rows: &[&[f32]]) -> f64 {
    let dim = rows[0].len();
    let mean: Vec<f64> = (0..dim)
        .map(|k| rows.iter().map(|row| f64::from(row[k])).sum::<f64>() / rows.len() as f64)
        .collect();
    let from_mean = |row: &&[f32]| {
        let squares = row
            .iter()
            .zip(&mean)
            .map(|(&v, m)| (f64::from(v) - m).powi(2));
        squares.sum::<f64>().sqrt()
    };
    let longest = rows.iter().map(from_mean).fold(0.0, f64::max);
    let largest = rows.iter().map(|row| norm(row)).fold(0.0, f64::max);
    longest + 1e-13 * largest
}

/// XᵀY, d × d′, each entry with its bound on that backend.
pub fn gram(x: Rows<'_>, y: Rows<'_>, backend: &str) -> Vec<Bounded> {
    let longest = |rows: Rows<'_>| rows.par_map(norm).into_iter().fold(0.0, f64::max);
    let lengths = longest(x) * longest(y);
    let mut products = Vec::new();
    for a in 0..x.dim() {
        for b in 0..y.dim() {
            let terms = || {
                x.iter()
                    .zip(y.iter())
                    .map(|(p, q)| f64::from(p[a]) * f64::from(q[b]))
            };
            products.push(Bounded {
                value: terms().sum(),
                bound: tolerance::gram(backend, x.len(), terms().map(f64::abs).sum(), lengths),
            });
        }
    }
    products
}

/// Column sums, each with its bound: f64 in row order.
pub fn column_sums(x: Rows<'_>) -> Vec<Bounded> {
    let column = |k| x.iter().map(move |row| f64::from(row[k]));
    (0..x.dim())
        .map(|k| Bounded {
            value: column(k).sum(),
            bound: x.len() as f64 * f64::EPSILON * column(k).map(f64::abs).sum::<f64>(),
        })
        .collect()
}

/// X·Wᵀ, n × p, each element with its bound.
pub fn project(x: Rows<'_>, w: Rows<'_>) -> Vec<Bounded> {
    let largest = |row: &[f32]| row.iter().map(|v| f64::from(v.abs())).fold(0.0, f64::max);
    let mut projected = Vec::new();
    for a in x.iter() {
        for b in w.iter() {
            let underflow = f64::from(f32::MIN_POSITIVE) * (1.0 + largest(&a) + largest(&b));
            projected.push(Bounded {
                value: dot(&a, &b),
                bound: tolerance::product(x.dim()) * norm(&a) * norm(&b)
                    + x.dim() as f64 * underflow,
            });
        }
    }
    projected
}
