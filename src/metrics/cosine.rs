//! Distributions of cosines: of all pairs within a set, between two, and of each item with itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::Rows;
use crate::engine::{COSINE_BINS, Engine, Metric, PairHistogram, score};
use crate::error::{Error, Result};
use crate::stats::distribution::{self, HistogramDistance};
use crate::stats::paired::{mean, quantile_sorted};

/// Levels of the quantiles that are reported.
const LEVELS: [&str; 7] = ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"];
/// Fine bins per reported bin: 256 bins of width 1/128.
const COARSEN: usize = 16;
/// What a pass over pairs may differ from the moments by before the device counts as faulty: sums in f32
/// tiles are good to about 10⁻⁶.
const INTEGRITY: f64 = 1e-5;

/// Distribution of the cosines of pairs of rows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CosineDistribution {
    /// Pairs counted.
    pub pairs: u64,
    /// Mean cosine.
    pub mean: f64,
    /// Standard deviation over the pairs (divisor: pairs).
    pub std: f64,
    /// Smallest cosine, f32.
    pub min: f64,
    /// Largest cosine, f32.
    pub max: f64,
    /// Quantiles by level, interpolated within bins of width 1/2048: error at most 4.9·10⁻⁴.
    pub quantiles: BTreeMap<String, f64>,
    /// Counts over [-1, 1].
    pub histogram: Histogram,
    /// Largest difference of the mean and the mean square from what the sets' moments say they must be.
    /// The run fails where it exceeds 10⁻⁵.
    pub integrity_error: f64,
    /// The same counts in 4,096 bins.
    #[serde(skip)]
    pub fine: Vec<u64>,
}

/// Counts between edges.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Histogram {
    /// Ascending bin edges, one more than counts.
    pub edges: Vec<f64>,
    /// Counts per bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Counts values in `bins` equal bins from the smallest to the largest.
    pub fn of(values: &[f64], bins: usize) -> Self {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if !(low.is_finite() && high.is_finite()) {
            return Self::default();
        }
        let width = if high > low {
            (high - low) / bins as f64
        } else {
            f64::EPSILON.max(low.abs() * 1e-9)
        };
        let mut counts = vec![0; bins];
        for v in values {
            counts[(((v - low) / width) as usize).min(bins - 1)] += 1;
        }
        Self {
            edges: (0..=bins).map(|i| low + width * i as f64).collect(),
            counts,
        }
    }
}

fn edges(bins: usize) -> Vec<f64> {
    (0..=bins)
        .map(|i| -1.0 + 2.0 * i as f64 / bins as f64)
        .collect()
}

/// Cosines of all pairs within `x`.
///
/// # Errors
/// Fewer than two rows, the device fails, or its sums contradict the moments.
pub fn within(engine: &Engine, x: Rows<'_>) -> Result<CosineDistribution> {
    let n = x.len() as f64;
    if x.len() < 2 {
        return Err(Error::input("cosine", "1 row, expected at least 2"));
    }
    let moments = UnitMoments::new(engine, x)?;
    // ⟨c⟩ = (n|μ|² − 1)/(n − 1) and ⟨c²⟩ = (n‖XᵀX/n‖² − 1)/(n − 1) for unit rows.
    let mean = (n * dot(&moments.mean, &moments.mean) - 1.0) / (n - 1.0);
    let mean_square = (n * dot(&moments.second, &moments.second) - 1.0) / (n - 1.0);
    CosineDistribution::new(engine.pair_histogram(x, None)?, mean, mean_square)
}

/// Cosines of every row of `x` with every row of `y`.
///
/// # Errors
/// As [`within`].
pub fn between(engine: &Engine, x: Rows<'_>, y: Rows<'_>) -> Result<CosineDistribution> {
    let (a, b) = (UnitMoments::new(engine, x)?, UnitMoments::new(engine, y)?);
    CosineDistribution::new(
        engine.pair_histogram(x, Some(y))?,
        dot(&a.mean, &b.mean),
        dot(&a.second, &b.second),
    )
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Mean and second moment XᵀX/n of the rows scaled to unit length.
struct UnitMoments {
    mean: Vec<f64>,
    second: Vec<f64>,
}

impl UnitMoments {
    fn new(engine: &Engine, x: Rows<'_>) -> Result<Self> {
        let unit = score::prepare(Metric::Cosine, x, 0);
        let unit = Rows::new(&unit, x.dim());
        let gram = engine.gram(unit, unit)?;
        let n = x.len() as f64;
        Ok(Self {
            mean: gram.x_sums.iter().map(|v| v / n).collect(),
            second: gram.products.iter().map(|v| v / n).collect(),
        })
    }
}

impl CosineDistribution {
    fn new(found: PairHistogram, mean: f64, mean_square: f64) -> Result<Self> {
        let pairs = found.pairs();
        let (measured_mean, measured_square) = (
            found.sum.to_f64() / pairs as f64,
            found.sum_squares.to_f64() / pairs as f64,
        );
        let integrity_error = (measured_mean - mean)
            .abs()
            .max((measured_square - mean_square).abs());
        // Written so that NaN fails too.
        if !(integrity_error <= INTEGRITY) {
            return Err(Error::device(
                "pair_histogram",
                format!(
                    "mean cosine {measured_mean} and mean square {measured_square} contradict the moments ({mean}, {mean_square})"
                ),
            )
            .hint("check the device: vecdrift devices --check"));
        }
        let fine = edges(COSINE_BINS);
        let quantiles = LEVELS
            .iter()
            .filter_map(|&level| {
                let at = level.parse().ok()?;
                let value = distribution::histogram_quantile(&fine, &found.counts, at)?;
                // Within a bin the extremes are known better than the edges.
                let value = value.clamp(f64::from(found.min), f64::from(found.max));
                Some((level.to_owned(), value))
            })
            .collect();
        Ok(Self {
            pairs,
            mean: measured_mean,
            std: (measured_square - measured_mean * measured_mean)
                .max(0.0)
                .sqrt(),
            min: f64::from(found.min),
            max: f64::from(found.max),
            quantiles,
            histogram: Histogram {
                edges: edges(COSINE_BINS / COARSEN),
                counts: found
                    .counts
                    .chunks(COARSEN)
                    .map(|c| c.iter().sum())
                    .collect(),
            },
            integrity_error,
            fine: found.counts,
        })
    }
}

/// Two cosine distributions against each other.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CosineComparison {
    /// Mean cosine, current − reference.
    pub mean_difference: f64,
    /// Distances between the histograms of 4,096 bins.
    #[serde(flatten)]
    pub distance: Option<HistogramDistance>,
    /// Population stability index over the reference deciles.
    pub psi: f64,
}

/// Compares two distributions.
pub fn compare(reference: &CosineDistribution, current: &CosineDistribution) -> CosineComparison {
    let fine = edges(COSINE_BINS);
    // Deciles of the reference, to whole bins.
    let total: u64 = reference.fine.iter().sum();
    let (mut x, mut y) = (vec![0u64; 10], vec![0u64; 10]);
    let mut below = 0u64;
    for (&a, &b) in reference.fine.iter().zip(&current.fine) {
        let decile = ((below as u128 * 10 / u128::from(total.max(1))) as usize).min(9);
        x[decile] += a;
        y[decile] += b;
        below += a;
    }
    CosineComparison {
        mean_difference: current.mean - reference.mean,
        distance: distribution::histogram_distance(&fine, &reference.fine, &current.fine),
        psi: distribution::psi(&x, &y),
    }
}

/// Cosines between an item's two vectors, f64.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PairedCosine {
    /// Items.
    pub items: u64,
    /// Mean.
    pub mean: f64,
    /// Standard deviation (divisor n − 1); absent for one item.
    pub std: Option<f64>,
    /// Smallest.
    pub min: f64,
    /// Median.
    pub median: f64,
    /// 1st percentile.
    pub p01: f64,
    /// 5th percentile.
    pub p05: f64,
    /// 95th percentile.
    pub p95: f64,
    /// Share of items below 0.9.
    pub share_below_0_9: f64,
    /// Share of items below 0.5.
    pub share_below_0_5: f64,
    /// Counts from the smallest to the largest.
    pub histogram: Histogram,
}

/// Cosine of row i of `x` with row i of `y`, summed up and one by one.
///
/// # Panics
/// If shapes differ or there is no row.
pub fn paired(x: Rows<'_>, y: Rows<'_>) -> (PairedCosine, Vec<f64>) {
    assert_eq!((x.len(), x.dim()), (y.len(), y.dim()));
    let cosines: Vec<f64> = x
        .iter()
        .zip(y.iter())
        .map(|(a, b)| score::similarity(Metric::Cosine, a, score::norm(a), b, score::norm(b)))
        .collect();
    let mut sorted = cosines.clone();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let share_below = |t: f64| sorted.partition_point(|&c| c < t) as f64 / n;
    let summary = PairedCosine {
        items: sorted.len() as u64,
        mean: mean(&cosines),
        std: crate::stats::paired::standard_deviation(&cosines),
        min: sorted[0],
        median: quantile_sorted(&sorted, 0.5),
        p01: quantile_sorted(&sorted, 0.01),
        p05: quantile_sorted(&sorted, 0.05),
        p95: quantile_sorted(&sorted, 0.95),
        share_below_0_9: share_below(0.9),
        share_below_0_5: share_below(0.5),
        histogram: Histogram::of(&cosines, 100),
    };
    (summary, cosines)
}
