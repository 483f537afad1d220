//! The frame in which rows are encoded for screening: where its origin lies and along which axes.
//!
//! A search may look at x − μ instead of x, and at m coordinates R(x − μ) instead of d, R having
//! orthonormal rows. With x⊥ what R leaves of x − μ,
//!
//! x·y = R(x − μ)·R(y − μ) + x⊥·y⊥ + x·μ + (y·μ − ‖μ‖²), |x⊥·y⊥| ≤ ‖x⊥‖‖y⊥‖.
//!
//! Any μ and R are right; good ones leave little: μ is the mean of the base, R spans its first m
//! principal axes. Real embeddings have most of their length in a third to a half of the coordinates, so
//! that most pairs are ruled out by a third to a half of the work.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::kernel::{Isa, Job, Kernel};
use super::panels::Panels;
use super::project::project;
use super::screen::{Frames, SECOND_LOOK_COST};
use crate::embeddings::F32Rows;
use crate::engine::NearestRequest;

/// Axes come in multiples of this: the side of the blocks in which they are mixed.
const STEP: usize = 32;

/// An origin, and perhaps fewer axes than there are coordinates.
pub(super) struct Axes {
    /// μ.
    pub(super) origin: Vec<f32>,
    /// ‖μ‖², f64 of the values of μ.
    pub(super) sq_origin: f64,
    /// R, unless all coordinates are used as they are.
    pub(super) rotation: Option<Rotation>,
}

/// m × d, rows orthonormal up to rounding.
pub(super) struct Rotation {
    pub(super) rows: Panels,
    /// Bound on ‖RRᵀ − I‖.
    pub(super) skew: f64,
    /// Bound on ‖computed Rx − Rx‖ / ‖x‖.
    pub(super) rounding: f64,
}

/// How a search screens.
#[derive(Clone)]
pub(super) enum Screening {
    /// By f32 products: where so few rows can be ruled out that codes only cost.
    Values,
    /// By products of 8-bit codes.
    Codes(Frames),
}

impl Axes {
    /// All coordinates as they are.
    pub(super) fn plain(dim: usize) -> Self {
        Self {
            origin: vec![0.0; dim],
            sq_origin: 0.0,
            rotation: None,
        }
    }

    /// Coordinates that are encoded for the first look, m.
    pub(super) fn len(&self) -> usize {
        match &self.rotation {
            Some(rotation) => rotation.rows.rows(),
            None => self.origin.len(),
        }
    }

    pub(super) fn centred(origin: Vec<f32>, rotation: Option<Rotation>) -> Self {
        Self {
            sq_origin: origin.iter().map(|&v| f64::from(v) * f64::from(v)).sum(),
            origin,
            rotation,
        }
    }
}

impl Rotation {
    /// The first `m` columns of `vectors` (orthonormal, most important first), mixed so that no
    /// coordinate is much larger than the others, as codes of one scale want it.
    fn mixed(vectors: MatRef<'_, f32>, m: usize) -> Self {
        let dim = vectors.nrows();
        let blocks = m / STEP;
        let mut rows = vec![0.0f32; m * dim];
        rows.par_chunks_mut(STEP * dim)
            .enumerate()
            .for_each(|(block, to)| {
                for k in 0..dim {
                    // Every block takes every so-manieth axis: strong and weak ones alike.
                    let mut mixed = [0.0f32; STEP];
                    for i in 0..STEP {
                        mixed[i] = vectors[(k, block + i * blocks)];
                    }
                    hadamard(&mut mixed);
                    for i in 0..STEP {
                        to[i * dim + k] = mixed[i];
                    }
                }
            });
        Self::new(F32Rows::new(&rows, dim))
    }

    /// The first m coordinates, mixed.
    #[cfg(test)]
    pub(super) fn of_coordinates(dim: usize, m: usize) -> Self {
        Self::mixed(Mat::<f32>::identity(dim, dim).as_ref(), m)
    }

    /// Takes rows that are nearly orthonormal, and measures how nearly.
    fn new(rows: F32Rows<'_>) -> Self {
        let (m, dim) = (rows.len(), rows.dim());
        let off: f64 = (0..m)
            .into_par_iter()
            .map(|i| {
                (0..m)
                    .map(|j| {
                        let product = crate::engine::score::dot(rows.row(i), rows.row(j));
                        (product - f64::from(u8::from(i == j))).powi(2)
                    })
                    .sum::<f64>()
            })
            .sum();
        Self {
            // The Frobenius norm bounds the spectral one.
            skew: off.sqrt(),
            // A chain of d roundings per coordinate: (d + 1)·2⁻²⁴·‖row‖·‖x‖, over m coordinates.
            rounding: (m as f64).sqrt() * (dim as f64 + 1.0) * 2f64.powi(-24) * 1.01,
            rows: Panels::pack(rows),
        }
    }
}

/// The orthonormal Hadamard transform.
fn hadamard(values: &mut [f32; STEP]) {
    let mut half = 1;
    while half < STEP {
        for start in (0..STEP).step_by(2 * half) {
            for i in start..start + half {
                let (a, b) = (values[i], values[i + half]);
                (values[i], values[i + half]) = (a + b, a - b);
            }
        }
        half *= 2;
    }
    for value in values {
        *value *= (1.0 / STEP as f32).sqrt();
    }
}

/// Base rows that axes are fitted to at least, those that a probe then looks at, and queries.
const FIT_ROWS: usize = 2048;
const PROBE_ROWS: usize = 1024;
const PROBE_QUERIES: usize = 64;

// What things cost, in 8-bit multiply-adds of one thread. Measured on AVX-512 with VNNI; what they
// decide is only ever a matter of time.
/// Bounds of a pair in the first look.
const BOUND_COST: f64 = 20.0;
/// A pair that is scored exactly, per coordinate.
const SCORE_COST: f64 = 40.0;
/// An f32 multiply-add.
const F32_COST: f64 = 4.0;

/// Whether a probe costs little beside the search itself: it takes an eigendecomposition.
fn worth_probing(request: &NearestRequest<'_>, dim: usize) -> bool {
    let pairs = request.search.queries as f64 * request.search.base_rows as f64;
    dim >= 3 * STEP
        && pairs >= 1500.0 * (dim * dim) as f64
        && request.base.len() >= 4 * dim
        && !request.queries.is_empty()
}

/// Chooses by what a sample of the prepared rows of a tile shows. Every choice gives the same result.
pub(super) fn choose(
    kernel: Kernel,
    queries: F32Rows<'_>,
    base: F32Rows<'_>,
    request: &NearestRequest<'_>,
) -> Screening {
    let dim = base.dim();
    if !worth_probing(request, dim) {
        let whole = Axes::plain(dim).into();
        return Screening::Codes(Frames {
            whole,
            turned: None,
        });
    }
    let probe = Probe::new(kernel, queries, base, request);
    let costs = probe.costs(kernel, request);
    let all = costs.last().map_or(f64::INFINITY, |cost| cost.1);
    let (m, least) = costs
        .iter()
        .copied()
        .min_by(|a, b| a.1.total_cmp(&b.1))
        .unwrap_or((dim, all));
    if least > F32_COST * dim as f64 {
        return Screening::Values;
    }
    // A rotation that hardly gains is not worth its risk: later blocks may be unlike the first.
    let turned = (m < dim && least < 0.85 * all).then(|| {
        let rotation = Rotation::mixed(probe.vectors.as_ref(), m);
        Axes::centred(probe.origin.clone(), Some(rotation)).into()
    });
    Screening::Codes(Frames {
        whole: Axes::centred(probe.origin, None).into(),
        turned,
    })
}

/// A sample of a base, and queries, as their principal frame shows them.
struct Probe {
    origin: Vec<f32>,
    /// Principal axes as columns, the most important first.
    vectors: Mat<f32>,
    /// Per query its products with all base rows of the sample, without x·μ.
    scores: Vec<f32>,
    /// Where these rows are in the tile.
    base_rows: Vec<usize>,
    query_rows: Vec<usize>,
    /// Vᵀ(y − μ) of those base rows, the first ones, that the axes are not fitted to.
    unseen: Vec<f32>,
    /// y·μ − ‖μ‖² of all of them.
    shifts: Vec<f32>,
    /// Vᵀ(x − μ) of the queries.
    queries: Vec<f32>,
}

/// Up to `most` of `rows` rows, evenly spread.
fn spread(rows: usize, most: usize) -> Vec<usize> {
    let taken = rows.min(most);
    (0..taken).map(|i| i * rows / taken).collect()
}

/// Some rows, less the origin.
fn centred(rows: F32Rows<'_>, which: &[usize], origin: &[f32]) -> Vec<f32> {
    let mut values = vec![0.0; which.len() * rows.dim()];
    values
        .par_chunks_exact_mut(rows.dim())
        .zip(which)
        .for_each(|(to, &row)| {
            for (to, (v, o)) in to.iter_mut().zip(rows.row(row).iter().zip(origin)) {
                *to = v - o;
            }
        });
    values
}

/// The mean of some rows.
fn mean(rows: F32Rows<'_>, which: &[usize]) -> Vec<f32> {
    const PART: usize = 256;
    let parts: Vec<Vec<f64>> = which
        .par_chunks(PART)
        .map(|part| {
            let mut sums = vec![0.0f64; rows.dim()];
            for &row in part {
                for (sum, &v) in sums.iter_mut().zip(rows.row(row)) {
                    *sum += f64::from(v);
                }
            }
            sums
        })
        .collect();
    let sum = |k: usize| parts.iter().map(|part| part[k]).sum::<f64>();
    let count = which.len().max(1) as f64;
    (0..rows.dim()).map(|k| (sum(k) / count) as f32).collect()
}

impl Probe {
    fn new(
        kernel: Kernel,
        queries: F32Rows<'_>,
        base: F32Rows<'_>,
        request: &NearestRequest<'_>,
    ) -> Self {
        let dim = base.dim();
        let fitted = FIT_ROWS.max(4 * dim);
        // In an order in which the first few are spread over the block as well.
        let mut base_rows = spread(request.base.len(), PROBE_ROWS + fitted);
        let unseen = (base_rows.len() * PROBE_ROWS / (PROBE_ROWS + fitted)).max(1);
        let stride = base_rows.len() / unseen;
        for i in 0..unseen {
            base_rows.swap(i, i * stride);
        }
        let query_rows = spread(request.queries.len(), PROBE_QUERIES);
        let origin = mean(base, &base_rows);
        let sq_origin: f32 = origin.iter().map(|v| v * v).sum();
        let shifts: Vec<f32> = base_rows
            .par_iter()
            .map(|&row| {
                let along = base.row(row).iter().zip(&origin).map(|(v, o)| v * o);
                along.sum::<f32>() - sq_origin
            })
            .collect();
        let base = centred(base, &base_rows, &origin);
        let queries = centred(queries, &query_rows, &origin);
        let pack = |values: &[f32]| Panels::pack(F32Rows::new(values, dim));
        let packed = pack(&queries);
        let mut scores = project(kernel, &packed, &pack(&base));
        for scores in scores.chunks_exact_mut(base_rows.len()) {
            for (score, shift) in scores.iter_mut().zip(&shifts) {
                *score += shift;
            }
        }
        let vectors = principal_axes(F32Rows::new(&base[unseen * dim..], dim));
        let axes: Vec<f32> = (0..dim)
            .flat_map(|axis| (0..dim).map(move |k| (axis, k)))
            .map(|(axis, k)| vectors[(k, axis)])
            .collect();
        let axes = pack(&axes);
        Self {
            unseen: project(kernel, &pack(&base[..unseen * dim]), &axes),
            queries: project(kernel, &packed, &axes),
            origin,
            vectors,
            scores,
            base_rows,
            query_rows,
            shifts,
        }
    }

    /// (m, cost per pair of a search that looks at m axes first), by m; the last one of all coordinates.
    fn costs(&self, kernel: Kernel, request: &NearestRequest<'_>) -> Vec<(usize, f64)> {
        let dim = self.origin.len();
        let looks: Vec<usize> = (STEP..dim).step_by(STEP).chain([dim]).collect();
        let shares = self.survivors(kernel, request, &looks);
        let at_last = shares.last().copied().unwrap_or(1.0);
        let scored = at_last * SCORE_COST * dim as f64;
        let cost = |(&m, share): (&usize, &f64)| {
            let first = m as f64 + BOUND_COST + scored;
            let more = if m < dim {
                let turning = F32_COST * (m * dim) as f64 / request.search.queries as f64;
                share * SECOND_LOOK_COST + turning
            } else {
                0.0
            };
            (m, first + more)
        };
        looks.iter().zip(&shares).map(cost).collect()
    }

    /// The share of pairs that bounds from the first m axes do not rule out, for each m of `looks`.
    fn survivors(&self, kernel: Kernel, request: &NearestRequest<'_>, looks: &[usize]) -> Vec<f64> {
        let dim = self.origin.len();
        // Of the k nearest in the whole base so many lie in the sample.
        let whole = request.search.base_rows.max(1);
        let rank = (request.k * self.base_rows.len()).div_ceil(whole).max(1);
        let base = F32Rows::new(&self.unseen, dim);
        let base_lengths: Vec<_> = base.iter().map(|row| lengths(row, looks)).collect();
        let counts = self
            .queries
            .par_chunks(dim)
            .zip(&self.query_rows)
            .zip(self.scores.par_chunks(self.base_rows.len()))
            .map(|((query, &query_row), scores)| {
                let mut scores: Vec<f32> = scores
                    .iter()
                    .zip(&self.base_rows)
                    .filter(|&(_, &row)| !request.excludes(query_row, row))
                    .map(|(&score, _)| score)
                    .collect();
                if scores.len() < rank {
                    return vec![base.len(); looks.len()];
                }
                let (_, &mut threshold, _) =
                    scores.select_nth_unstable_by(rank - 1, |a, b| b.total_cmp(a));
                kernel.run(Survivors {
                    query,
                    base,
                    base_lengths: &base_lengths,
                    shifts: &self.shifts,
                    looks,
                    threshold,
                })
            })
            .reduce(
                || vec![0; looks.len()],
                |a, b| a.iter().zip(b).map(|(a, b)| a + b).collect(),
            );
        let pairs = (base.len() * self.query_rows.len()).max(1) as f64;
        counts.iter().map(|&count| count as f64 / pairs).collect()
    }
}

/// Length within the first m axes, and beyond them, for each m of `looks`.
fn lengths(values: &[f32], looks: &[usize]) -> Vec<(f32, f32)> {
    let all: f32 = values.iter().map(|v| v * v).sum();
    let mut sq_within = 0.0;
    let mut from = 0;
    let mut lengths = Vec::with_capacity(looks.len());
    for &m in looks {
        sq_within += values[from..m].iter().map(|v| v * v).sum::<f32>();
        from = m;
        lengths.push((sq_within.sqrt(), (all - sq_within).max(0.0).sqrt()));
    }
    lengths
}

/// How many base rows the bounds from the first m axes do not rule out for a query, for each m.
struct Survivors<'a> {
    query: &'a [f32],
    base: F32Rows<'a>,
    base_lengths: &'a [Vec<(f32, f32)>],
    shifts: &'a [f32],
    looks: &'a [usize],
    threshold: f32,
}

impl Job for Survivors<'_> {
    type Output = Vec<usize>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Vec<usize> {
        /// ‖x − what its code holds‖ / ‖x‖, of mixed axes.
        const CODE_ERROR: f32 = 0.009;
        let query_lengths = lengths(self.query, self.looks);
        let mut counts = vec![0usize; self.looks.len()];
        for (j, row) in self.base.iter().enumerate() {
            let (mut product, mut from) = (0.0, 0);
            for (i, &m) in self.looks.iter().enumerate() {
                let mut sums = [0.0f32; 16];
                let (x, y) = (&self.query[from..m], &row[from..m]);
                for (x, y) in x.chunks(16).zip(y.chunks(16)) {
                    for (sum, (&x, &y)) in sums.iter_mut().zip(x.iter().zip(y)) {
                        *sum = isa.mul_add(x, y, *sum);
                    }
                }
                product += sums.iter().sum::<f32>();
                from = m;
                let ((x, x_rest), (y, y_rest)) = (query_lengths[i], self.base_lengths[j][i]);
                let upper = product + 2.0 * CODE_ERROR * x * y + x_rest * y_rest;
                counts[i] += usize::from(upper + self.shifts[j] >= self.threshold);
            }
        }
        counts
    }
}

/// Orthonormal eigenvectors of Σ yyᵀ as columns, by falling eigenvalue; the coordinate axes where the
/// iteration does not converge.
fn principal_axes(rows: F32Rows<'_>) -> Mat<f32> {
    /// Columns per task.
    const COLUMNS: usize = 64;
    let dim = rows.dim();
    let y = MatRef::from_row_major_slice(rows.values(), rows.len(), dim);
    let mut moments = vec![0.0f32; dim * dim];
    moments
        .par_chunks_mut(COLUMNS * dim)
        .enumerate()
        .for_each(|(task, to)| {
            let columns = to.len() / dim;
            let to = MatMut::from_column_major_slice_mut(to, dim, columns);
            let some = y.subcols(task * COLUMNS, columns);
            matmul(to, Accum::Replace, y.transpose(), some, 1.0, Par::Seq);
        });
    let moments = MatRef::from_column_major_slice(&moments, dim, dim);
    let mut values = Diag::<f32>::zeros(dim);
    let mut vectors = Mat::<f32>::zeros(dim, dim);
    let yes = ComputeEigenvectors::Yes;
    let scratch = self_adjoint_evd_scratch::<f32>(dim, yes, Par::Seq, Default::default());
    let found = self_adjoint_evd(
        moments,
        values.as_mut(),
        Some(vectors.as_mut()),
        Par::Seq,
        MemStack::new(&mut MemBuffer::new(scratch)),
        Default::default(),
    );
    match found {
        // They come by rising eigenvalue.
        Ok(()) => Mat::from_fn(dim, dim, |k, axis| vectors[(k, dim - 1 - axis)]),
        Err(_) => Mat::identity(dim, dim),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::score::{norms, prepare};
    use crate::engine::{Metric, SearchExtent};
    use crate::stats::rng::Philox;

    const DIM: usize = 128;

    /// Unit rows with most of their length in the first coordinates, or none in particular.
    fn rows(n: usize, stream: u64, decay: f32) -> Vec<f32> {
        let mut rng = Philox::new(21, stream);
        let values: Vec<f32> = (0..n * DIM)
            .map(|i| rng.normal() as f32 * (-decay * (i % DIM) as f32).exp())
            .collect();
        let rows = F32Rows::new(&values, DIM);
        prepare(Metric::Cosine, rows, &norms(rows), 0)
    }

    fn chosen(decay: f32, k: usize, queries: usize) -> Screening {
        let (x, y) = (rows(200, 1, decay), rows(4000, 2, decay));
        let (x, y) = (F32Rows::new(&x, DIM), F32Rows::new(&y, DIM));
        let request = NearestRequest {
            search: SearchExtent {
                number: 0,
                queries,
                base_rows: 100_000,
            },
            k,
            metric: Metric::Cosine,
            queries: x,
            base: y,
            query_norms: &vec![1.0; x.len()],
            base_norms: &vec![1.0; y.len()],
            query_scales: &vec![1.0; x.len()],
            floors: &vec![f64::NEG_INFINITY; x.len()],
            first_base_row: 0,
            exclude: None,
            screen_error: 1e-4,
        };
        choose(Kernel::available()[0], x, y, &request)
    }

    #[test]
    fn axes_follow_from_the_rows() {
        let turned = |screening| match screening {
            Screening::Codes(frames) => frames.turned.map(|axes| axes.len()),
            Screening::Values => None,
        };
        let few = turned(chosen(0.06, 10, 100_000)).expect("most length is in few axes");
        assert!(few <= 96, "{few}");
        assert_eq!(
            turned(chosen(0.0, 10, 100_000)),
            None,
            "no direction is better"
        );
        assert_eq!(turned(chosen(0.06, 10, 100)), None, "not for a few queries");
        // Neighbours that make up half of the base rule out little.
        assert!(matches!(chosen(0.0, 50_000, 100_000), Screening::Values));
    }

    #[test]
    fn mixed_axes_stay_orthonormal_and_mixed() {
        let rotation = Rotation::of_coordinates(DIM, 64);
        assert!(rotation.skew < 1e-5, "{}", rotation.skew);
        // One coordinate of a row is spread evenly over its block of axes.
        let unit: Vec<f32> = (0..DIM).map(|k| f32::from(u8::from(k == 5))).collect();
        let unit = Panels::pack(F32Rows::new(&unit, DIM));
        let turned = project(Kernel::available()[0], &unit, &rotation.rows);
        let even = (1.0 / STEP as f32).sqrt();
        let (spread, none): (Vec<f32>, Vec<f32>) = turned.iter().partition(|v| v.abs() > 1e-3);
        assert!(spread.len() == STEP && none.len() == 64 - STEP);
        assert!(spread.iter().all(|v| (v.abs() - even).abs() < 1e-6));
    }

    #[test]
    fn skew_is_measured() {
        let mut values = vec![0.0f32; 2 * DIM];
        (values[0], values[DIM]) = (1.0, 0.01);
        values[DIM + 1] = 1.0;
        let skew = Rotation::new(F32Rows::new(&values, DIM)).skew;
        // Off the diagonal twice 0.01, on it 0.0001.
        assert!(
            (skew - (2.0 * 1e-4 + 1e-8f64).sqrt()).abs() < 1e-6,
            "{skew}"
        );
    }
}
