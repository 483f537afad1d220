//! First and second moments: where a set lies, how far it spreads, and how long its rows are.
//!
//! [`Moments`] is what one pass over the rows leaves behind; Fréchet distance, spectra and alignment are
//! computed from it. The rest of the file compares two sets by mean and by norm.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{F32Rows, Ids, RowStream, Rows};
use crate::engine::{Engine, score};
use crate::error::Result;
use crate::stats::distribution::{self, Quantiles};
use crate::stats::linalg::Matrix;

/// Rows whose deviations from the mean are held at once.
const CHUNK: usize = 16_384;

/// Columns that one task adds up.
const COLUMNS: usize = 64;

/// Norms this close (in ln) are the same length: above what storing unit rows as f16 leaves, below what
/// any similarity would notice.
const LOG_NORM_RESOLUTION: f64 = 1e-3;

/// How many outliers are named.
const OUTLIER_IDS: usize = 10;

/// Sums over the rows of a set about their mean μ.
#[derive(Debug, Clone)]
pub struct Moments {
    /// Rows, n.
    pub rows: usize,
    /// μ.
    pub mean: Vec<f64>,
    /// Σ (x − μ)(x − μ)ᵀ, d × d.
    pub scatter: Matrix,
    /// Σ ‖x − μ‖⁴.
    pub fourth: f64,
}

/// Moments of rows scaled to unit length.
#[derive(Debug, Clone)]
pub struct UnitMoments(pub Moments);

/// Sums over pairs of rows about their means: what both sides have in common.
#[derive(Debug, Clone)]
pub struct CrossMoments {
    /// Pairs of rows, n.
    pub rows: usize,
    /// Σ (x − μₓ)(y − μᵧ)ᵀ, d × d′.
    pub scatter: Matrix,
    /// Σ ‖x − μₓ‖² ‖y − μᵧ‖².
    pub fourth: f64,
}

impl Moments {
    /// Passes over the rows: the mean in f64, then [`Engine::gram`] of the deviations from it, so that a
    /// mean far from 0 costs no digits.
    ///
    /// # Errors
    /// The device fails.
    pub fn of(engine: &Engine, rows: Rows<'_>) -> Result<Self> {
        Self::accumulate(engine, rows, Scale::AsStored)
    }

    fn accumulate(engine: &Engine, rows: Rows<'_>, scale: Scale) -> Result<Self> {
        let centre = Centre::of(rows, scale);
        let mut sums = CrossSums::new(rows.dim(), rows.dim());
        for start in (0..rows.len()).step_by(CHUNK) {
            let range = start..(start + CHUNK).min(rows.len());
            let values = rows.slice(range).to_f32();
            let rows = F32Rows::new(&values, rows.dim());
            sums.add_own(engine, &centre.deviations(rows))?;
        }
        Ok(Self::from_sums(centre, sums))
    }

    fn from_sums(centre: Centre, sums: CrossSums) -> Self {
        let CrossMoments {
            rows,
            scatter,
            fourth,
        } = sums.finish(centre.unit * centre.unit);
        Self {
            rows,
            mean: centre.mean,
            scatter,
            fourth,
        }
    }

    /// Dimension, d.
    pub fn dim(&self) -> usize {
        self.mean.len()
    }

    /// Covariance with n − 1. `None` for fewer than two rows.
    pub fn covariance(&self) -> Option<Matrix> {
        (self.rows > 1).then(|| self.scatter.clone().scaled(1.0 / (self.rows - 1) as f64))
    }

    /// Trace of the covariance. `None` for fewer than two rows.
    pub fn total_variance(&self) -> Option<f64> {
        (self.rows > 1).then(|| self.scatter.trace() / (self.rows - 1) as f64)
    }

    /// XᵀX / n, about 0. `None` without rows.
    pub fn second_moment(&self) -> Option<Matrix> {
        if self.rows == 0 {
            return None;
        }
        let mut moment = self.scatter.clone().scaled(1.0 / self.rows as f64);
        moment.add_outer(1.0, &self.mean, &self.mean);
        Some(moment)
    }

    /// ‖μ‖².
    pub fn sq_mean_norm(&self) -> f64 {
        self.mean.iter().map(|v| v * v).sum()
    }

    /// HSIC₁ of the set with itself: the unbiased estimate of ‖covariance‖²_F, see
    /// [`CrossMoments::hsic`].
    pub fn hsic(&self) -> Option<f64> {
        hsic(
            self.rows,
            &self.scatter,
            self.fourth,
            [self.scatter.trace(); 2],
        )
    }
}

impl UnitMoments {
    /// [`Moments::of`] the rows scaled to unit length.
    ///
    /// # Errors
    /// The device fails.
    pub fn of(engine: &Engine, rows: Rows<'_>) -> Result<Self> {
        Moments::accumulate(engine, rows, Scale::Unit).map(Self)
    }

    /// [`Self::of`] rows that are not held: `read` starts them from the first one, twice.
    ///
    /// # Errors
    /// The device fails, or the rows cannot be read.
    pub fn of_stream<'a, S: RowStream<'a>>(
        engine: &Engine,
        mut read: impl FnMut() -> Result<S>,
    ) -> Result<Self> {
        let mut stream = read()?;
        let dim = stream.dim();
        let mut centre = CentreSums::new(dim, Scale::Unit);
        each_chunk(&mut stream, |rows| {
            centre.add(rows);
            Ok(())
        })?;
        let centre = centre.finish();
        let mut sums = CrossSums::new(dim, dim);
        each_chunk(&mut read()?, |rows| {
            sums.add_own(engine, &centre.deviations(rows))
        })?;
        Ok(Self(Moments::from_sums(centre, sums)))
    }
}

impl CrossMoments {
    /// Passes over rows that belong together by position; dimensions may differ.
    ///
    /// # Errors
    /// The device fails.
    ///
    /// # Panics
    /// If the numbers of rows differ.
    pub fn of(engine: &Engine, x: Rows<'_>, y: Rows<'_>) -> Result<Self> {
        assert_eq!(x.len(), y.len(), "rows belong together by position");
        let [x_centre, y_centre] = [x, y].map(|rows| Centre::of(rows, Scale::AsStored));
        let mut sums = CrossSums::new(x.dim(), y.dim());
        for start in (0..x.len()).step_by(CHUNK) {
            let range = start..(start + CHUNK).min(x.len());
            let deviations = |centre: &Centre, rows: Rows<'_>| {
                let values = rows.slice(range.clone()).to_f32();
                centre.deviations(F32Rows::new(&values, rows.dim()))
            };
            let (x_values, y_values) = (deviations(&x_centre, x), deviations(&y_centre, y));
            let (x, y) = (
                F32Rows::new(&x_values, x.dim()),
                F32Rows::new(&y_values, y.dim()),
            );
            sums.add(engine, x, y)?;
        }
        Ok(sums.finish(x_centre.unit * y_centre.unit))
    }

    /// HSIC₁, the unbiased estimate of ‖cross-covariance‖²_F: the U-statistic of Song et al. (2012) with
    /// linear kernels, in feature space. It does not depend on the origin; about the means it reads
    ///
    /// [‖C‖²_F − q + tₓtᵧ/((n−1)(n−2)) − 2q/(n−2)] / (n(n−3)),
    ///
    /// C the cross-scatter, q = Σ‖x‖²‖y‖², t the traces of the scatters. `None` for fewer than four rows.
    pub fn hsic(&self, x: &Moments, y: &Moments) -> Option<f64> {
        let traces = [x.scatter.trace(), y.scatter.trace()];
        hsic(self.rows, &self.scatter, self.fourth, traces)
    }
}

fn hsic(rows: usize, scatter: &Matrix, fourth: f64, traces: [f64; 2]) -> Option<f64> {
    if rows < 4 {
        return None;
    }
    let n = rows as f64;
    let sum = scatter.sq_frobenius() - fourth + traces[0] * traces[1] / ((n - 1.0) * (n - 2.0))
        - 2.0 * fourth / (n - 2.0);
    Some(sum / (n * (n - 3.0)))
}

/// Sums over pairs of deviations, chunk by chunk.
struct CrossSums {
    rows: usize,
    scatter: Matrix,
    x_sums: Vec<f64>,
    y_sums: Vec<f64>,
    fourth: f64,
}

impl CrossSums {
    fn new(d: usize, d2: usize) -> Self {
        Self {
            rows: 0,
            scatter: Matrix::zeros(d, d2),
            x_sums: vec![0.0; d],
            y_sums: vec![0.0; d2],
            fourth: 0.0,
        }
    }

    fn add(&mut self, engine: &Engine, x: F32Rows<'_>, y: F32Rows<'_>) -> Result<()> {
        let gram = engine.gram(x.into(), y.into())?;
        let add = |into: &mut [f64], part: &[f64]| {
            into.iter_mut()
                .zip(part)
                .for_each(|(sum, part)| *sum += part);
        };
        add(self.scatter.values_mut(), &gram.products);
        add(&mut self.x_sums, &gram.x_sums);
        add(&mut self.y_sums, &gram.y_sums);
        let fourths: Vec<f64> = x
            .values()
            .par_chunks_exact(x.dim())
            .zip(y.values().par_chunks_exact(y.dim()))
            .map(|(a, b)| score::dot(a, a) * score::dot(b, b))
            .collect();
        // Added in row order, whichever thread formed them.
        fourths.iter().for_each(|fourth| self.fourth += fourth);
        self.rows += x.len();
        Ok(())
    }

    /// Deviations with themselves.
    fn add_own(&mut self, engine: &Engine, values: &[f32]) -> Result<()> {
        let rows = F32Rows::new(values, self.x_sums.len());
        self.add(engine, rows, rows)
    }

    /// The moments, where deviations were scaled by factors whose product is `unit`.
    fn finish(mut self, unit: f64) -> CrossMoments {
        // Rounding the deviations to f32 leaves a mean that is not quite 0.
        if self.rows > 0 {
            let n = self.rows as f64;
            self.scatter.add_outer(-1.0 / n, &self.x_sums, &self.y_sums);
        }
        let unscale = 1.0 / unit;
        CrossMoments {
            rows: self.rows,
            scatter: self.scatter.scaled(unscale),
            fourth: self.fourth * unscale * unscale,
        }
    }
}

/// Hands the rows of a stream out in chunks.
fn each_chunk<'a>(
    stream: &mut impl RowStream<'a>,
    mut take: impl FnMut(F32Rows<'_>) -> Result<()>,
) -> Result<()> {
    loop {
        let values = stream.next_rows(CHUNK)?;
        if values.is_empty() {
            return Ok(());
        }
        take(F32Rows::new(&values, stream.dim()))?;
    }
}

/// How rows enter the moments.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scale {
    AsStored,
    Unit,
}

/// What rows are measured from.
struct Centre {
    scale: Scale,
    mean: Vec<f64>,
    /// A power of two that brings deviations to lengths of at most 2, so that none overflows f32.
    unit: f64,
}

impl Centre {
    fn of(rows: Rows<'_>, scale: Scale) -> Self {
        let mut sums = CentreSums::new(rows.dim(), scale);
        for (_, values) in rows.chunks(CHUNK) {
            sums.add(F32Rows::new(&values, rows.dim()));
        }
        sums.finish()
    }

    /// Rows less the mean.
    fn deviations(&self, rows: F32Rows<'_>) -> Vec<f32> {
        let mut values = vec![0.0f32; rows.values().len()];
        values
            .par_chunks_exact_mut(rows.dim())
            .zip(rows.values().par_chunks_exact(rows.dim()))
            .for_each(|(deviations, row)| {
                let factor = self.scale.factor(row);
                let pairs = row.iter().zip(&self.mean);
                for (to, (&v, mean)) in deviations.iter_mut().zip(pairs) {
                    *to = ((f64::from(v) * factor - mean) * self.unit) as f32;
                }
            });
        values
    }
}

/// A [`Centre`] in the making, rows in order.
struct CentreSums {
    scale: Scale,
    rows: usize,
    sums: Vec<f64>,
    /// Rounding must not give a constant dimension a variance: its mean is its value.
    constant: Vec<Option<f64>>,
    longest: f64,
}

impl CentreSums {
    fn new(dim: usize, scale: Scale) -> Self {
        Self {
            scale,
            rows: 0,
            sums: vec![0.0; dim],
            constant: vec![None; dim],
            longest: 0.0,
        }
    }

    fn add(&mut self, rows: F32Rows<'_>) {
        let of_rows: Vec<(f64, f64)> = rows
            .values()
            .par_chunks_exact(rows.dim())
            .map(|row| {
                let factor = self.scale.factor(row);
                (factor, score::norm(row) * factor)
            })
            .collect();
        let longest = of_rows.iter().map(|&(_, length)| length);
        self.longest = longest.fold(self.longest, f64::max);
        // Every column is added up in row order, whichever thread has it.
        let first_rows = self.rows == 0;
        self.sums
            .par_chunks_mut(COLUMNS)
            .zip(self.constant.par_chunks_mut(COLUMNS))
            .enumerate()
            .for_each(|(part, (sums, constant))| {
                let columns = part * COLUMNS..part * COLUMNS + sums.len();
                for (i, (row, (factor, _))) in rows.iter().zip(&of_rows).enumerate() {
                    let row = &row[columns.clone()];
                    for ((sum, same), &value) in sums.iter_mut().zip(&mut *constant).zip(row) {
                        let value = f64::from(value) * factor;
                        *sum += value;
                        if first_rows && i == 0 {
                            *same = Some(value);
                        } else {
                            *same = same.filter(|&first| first == value);
                        }
                    }
                }
            });
        self.rows += rows.len();
    }

    fn finish(self) -> Centre {
        let n = self.rows.max(1) as f64;
        let mean = self.sums.iter().zip(&self.constant);
        Centre {
            scale: self.scale,
            mean: mean.map(|(sum, same)| same.unwrap_or(sum / n)).collect(),
            unit: score::unit_scale(self.longest),
        }
    }
}

impl Scale {
    fn factor(self, row: &[f32]) -> f64 {
        match self {
            Self::AsStored => 1.0,
            Self::Unit => 1.0 / score::norm(row),
        }
    }
}

/// How far the mean moved.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CentroidShift {
    /// ‖μ_reference − μ_current‖, in the unit of the vectors. Above 0 even without drift.
    pub l2: f64,
    /// Cosine of the two means, in [-1, 1]. Near 1 whenever all vectors share a direction, so no evidence
    /// on its own. `null` where a mean is 0.
    pub cosine: Option<f64>,
    /// Unbiased estimate of the squared distance of the means, the squared MMD of the linear kernel:
    /// l2² − tr(S_reference)/n − tr(S_current)/m. 0 in expectation for independent rows without drift, so
    /// it may be negative; too low by up to those two terms where the sides share their items. `null`
    /// where a side has fewer than two rows.
    pub sq_l2_debiased: Option<f64>,
    /// sq_l2_debiased over the mean total variance of the two sides: the shift in units of the spread.
    /// `null` where a side has no spread.
    pub eta_squared: Option<f64>,
}

/// Compares the means of two sets in one coordinate system.
///
/// # Panics
/// If the dimensions differ.
pub fn centroid_shift(reference: &Moments, current: &Moments) -> CentroidShift {
    assert_eq!(reference.dim(), current.dim());
    let (x, y) = (&reference.mean, &current.mean);
    let sq_l2: f64 = x.iter().zip(y).map(|(a, b)| (a - b).powi(2)).sum();
    let dot: f64 = x.iter().zip(y).map(|(a, b)| a * b).sum();
    let norms = reference.sq_mean_norm().sqrt() * current.sq_mean_norm().sqrt();
    let variances = reference.total_variance().zip(current.total_variance());
    let sq_l2_debiased =
        variances.map(|(x, y)| sq_l2 - x / reference.rows as f64 - y / current.rows as f64);
    let spread = variances.map(|(x, y)| (x + y) / 2.0);
    CentroidShift {
        l2: sq_l2.sqrt(),
        cosine: (norms > 0.0).then(|| (dot / norms).clamp(-1.0, 1.0)),
        sq_l2_debiased,
        eta_squared: sq_l2_debiased
            .zip(spread)
            .and_then(|(shift, spread)| (spread > 0.0).then(|| shift / spread)),
    }
}

/// Distribution of vector lengths.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NormDistribution {
    /// Rows.
    pub rows: usize,
    /// Mean; `null` without rows.
    pub mean: Option<f64>,
    /// Standard deviation with n − 1; `null` for fewer than two rows.
    pub std: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// Quantiles, interpolated between order statistics.
    pub quantiles: Quantiles,
    /// Rows whose ln norm lies more than 8 median absolute deviations, and more than 0.001, from the
    /// median.
    pub outliers: u64,
    /// The first few of their ids, in row order.
    pub outlier_first_ids: Vec<String>,
    /// Norms, ascending.
    #[serde(skip)]
    pub sorted: Vec<f64>,
}

/// Lengths of the rows, `ids` naming them in the same order.
///
/// # Panics
/// If there is not one id per row.
pub fn norm_distribution(rows: Rows<'_>, ids: &Ids) -> NormDistribution {
    assert_eq!(rows.len(), ids.len(), "one id per row");
    let norms = score::norms(rows);
    let sorted = {
        let mut sorted = norms.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    };
    let median_log = distribution::quantile_sorted(&sorted, 0.5).map_or(0.0, f64::ln);
    let mut deviations: Vec<f64> = norms.iter().map(|v| (v.ln() - median_log).abs()).collect();
    deviations.sort_by(f64::total_cmp);
    let mad = distribution::quantile_sorted(&deviations, 0.5).unwrap_or(0.0);
    let limit = (8.0 * mad).max(LOG_NORM_RESOLUTION);
    let is_outlier = |norm: f64| (norm.ln() - median_log).abs() > limit;
    let outliers = (0..norms.len()).filter(|&i| is_outlier(norms[i]));
    let mean_std = distribution::mean_std(&norms);
    NormDistribution {
        rows: rows.len(),
        mean: mean_std.map(|m| m.mean),
        std: mean_std.and_then(|m| m.std),
        min: sorted.first().copied(),
        max: sorted.last().copied(),
        quantiles: distribution::quantiles(|q| distribution::quantile_sorted(&sorted, q)),
        outliers: outliers.clone().count() as u64,
        outlier_first_ids: outliers
            .take(OUTLIER_IDS)
            .map(|i| ids.get(i).to_owned())
            .collect(),
        sorted,
    }
}

/// How far two distributions of norms lie apart.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct NormShift {
    /// Mean norm of the current set less that of the reference.
    pub mean_difference: Option<f64>,
    /// Kolmogorov–Smirnov distance of the norms, in [0, 1]. Norms are compared in steps of 0.1 %, so that
    /// the rounding of unit vectors is no drift.
    pub ks: Option<f64>,
    /// Wasserstein-1 distance of the norms, in the unit of the vectors.
    pub wasserstein_1: Option<f64>,
}

/// Compares the norms of two sets.
pub fn norm_shift(reference: &NormDistribution, current: &NormDistribution) -> NormShift {
    let steps = |norms: &NormDistribution| -> Vec<f64> {
        let logs = norms.sorted.iter().map(|v| v.ln() / LOG_NORM_RESOLUTION);
        logs.map(f64::round).collect()
    };
    NormShift {
        mean_difference: reference.mean.zip(current.mean).map(|(x, y)| y - x),
        ks: distribution::ks_sorted(&steps(reference), &steps(current)),
        wasserstein_1: distribution::wasserstein_1_sorted(&reference.sorted, &current.sorted),
    }
}

/// Dimensions that say nothing: their values range over less than a millionth of the widest dimension's
/// range, or over no more than f32 rounding. Empty for fewer than two rows.
pub fn constant_dimensions(rows: Rows<'_>) -> Vec<usize> {
    if rows.len() < 2 {
        return Vec::new();
    }
    let (mut low, mut high) = (rows.row(0).to_vec(), rows.row(0).to_vec());
    for row in rows.iter() {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(&*row) {
            *low = low.min(value);
            *high = high.max(value);
        }
    }
    let range = |j: usize| f64::from(high[j]) - f64::from(low[j]);
    let widest = (0..rows.dim()).map(range).fold(0.0, f64::max);
    let constant = |&j: &usize| {
        // A few units in the last place of the value itself.
        let rounding = 4.0 * f64::from(f32::EPSILON * low[j].abs().max(high[j].abs()));
        range(j) <= rounding.max(1e-6 * widest)
    };
    (0..rows.dim()).filter(constant).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use serde_json::Value;

    /// A file of golden values.
    pub fn golden(name: &str) -> Value {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/golden");
        let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// A matrix of golden values.
    pub fn matrix(value: &Value) -> Matrix {
        let rows = value.as_array().unwrap();
        let values = rows.iter().flat_map(|row| row.as_array().unwrap());
        Matrix::new(
            rows.len(),
            rows[0].as_array().unwrap().len(),
            values.map(|v| v.as_f64().unwrap()).collect(),
        )
    }

    /// Golden values are f64 in full; sums of tens of terms and backward stable decompositions of tiny
    /// matrices keep ten digits.
    pub fn assert_golden(found: f64, golden: &Value) {
        let expected = golden.as_f64().unwrap();
        assert!(
            (found - expected).abs() <= 1e-10 * (1.0 + expected.abs()),
            "{found} is not {expected}"
        );
    }

    fn centred(x: &Matrix) -> (Vec<f64>, Matrix) {
        let n = x.rows() as f64;
        let mean: Vec<f64> = (0..x.columns())
            .map(|j| (0..x.rows()).map(|i| x.row(i)[j]).sum::<f64>() / n)
            .collect();
        let mut deviations = x.clone();
        deviations.add_outer(-1.0, &vec![1.0; x.rows()], &mean);
        (mean, deviations)
    }

    fn sq_norm(row: &[f64]) -> f64 {
        row.iter().map(|v| v * v).sum()
    }

    /// Moments in f64 throughout, without an engine.
    pub fn moments(x: &Matrix) -> Moments {
        let (mean, deviations) = centred(x);
        Moments {
            rows: x.rows(),
            mean,
            scatter: deviations.transpose_times(&deviations),
            fourth: (0..x.rows())
                .map(|i| sq_norm(deviations.row(i)).powi(2))
                .sum(),
        }
    }

    /// Cross moments in f64 throughout, without an engine.
    pub fn cross_moments(x: &Matrix, y: &Matrix) -> CrossMoments {
        let ((_, a), (_, b)) = (centred(x), centred(y));
        CrossMoments {
            rows: x.rows(),
            scatter: a.transpose_times(&b),
            fourth: (0..x.rows())
                .map(|i| sq_norm(a.row(i)) * sq_norm(b.row(i)))
                .sum(),
        }
    }

    #[test]
    fn golden_debiased_shift() {
        let golden = golden("frechet");
        let (x, y) = (
            moments(&matrix(&golden["X"])),
            moments(&matrix(&golden["Y"])),
        );
        let shift = centroid_shift(&x, &y);
        assert_golden(shift.l2.powi(2), &golden["mean_part"]);
        assert_golden(shift.sq_l2_debiased.unwrap(), &golden["linear_mmd2_u"]);
        let spread = (x.total_variance().unwrap() + y.total_variance().unwrap()) / 2.0;
        let eta_squared = shift.sq_l2_debiased.unwrap() / spread;
        assert_eq!(shift.eta_squared, Some(eta_squared));
    }

    #[test]
    fn norm_outliers_are_found_and_named() {
        let mut values: Vec<f32> = (0..100).map(|i| 1.0 + i as f32 * 1e-3).collect();
        values[40] = 30.0;
        values[70] = 0.01;
        let ids: Ids = (0..100).map(|i| format!("id{i}")).collect();
        let norms = norm_distribution(Rows::new(&values, 1), &ids);
        assert_eq!(norms.outliers, 2);
        assert_eq!(norms.outlier_first_ids, ["id40", "id70"]);
        assert_eq!(norms.max, Some(30.0));
    }

    /// Unit vectors differ in length by rounding only: neither outliers nor drift.
    #[test]
    fn rounded_unit_norms_are_no_drift() {
        let unit = |phase: f64| -> Vec<f32> {
            (0..500)
                .map(|i| i as f64 + phase)
                .flat_map(|angle| [angle.cos() as f32, angle.sin() as f32])
                .collect()
        };
        let ids: Ids = (0..500).map(|i| i.to_string()).collect();
        let (x, y) = (unit(0.0), unit(0.1));
        let [x, y] = [&x, &y].map(|v| norm_distribution(Rows::new(v, 2), &ids));
        assert_ne!(x.sorted, y.sorted);
        assert_eq!((x.outliers, y.outliers), (0, 0));
        assert_eq!(norm_shift(&x, &y).ks, Some(0.0));
        // Control: one percent in length is drift.
        let longer: Vec<f32> = unit(0.1).iter().map(|v| v * 1.01).collect();
        let longer = norm_distribution(Rows::new(&longer, 2), &ids);
        assert_eq!(norm_shift(&x, &longer).ks, Some(1.0));
    }

    #[test]
    fn constant_dimensions_by_hand() {
        let values = [
            1.0,
            2.0,
            1e-9,
            1.0,
            3.0,
            3e-9,
            1.0 + f32::EPSILON,
            2.0,
            2e-9,
        ];
        assert_eq!(constant_dimensions(Rows::new(&values, 3)), [0, 2]);
        assert_eq!(constant_dimensions(Rows::new(&[0.1, 0.1], 1)), [0]);
        assert!(constant_dimensions(Rows::new(&[0.1, 0.2], 1)).is_empty());
        assert!(constant_dimensions(Rows::new(&values, 9)).is_empty());
    }
}
