//! Cosine distributions: all pairs within a set or between two, and paired rows one by one.

use std::f64::consts::LN_2;

use schemars::JsonSchema;
use serde::Serialize;

use super::moments::UnitMoments;
use crate::embeddings::{RowStream, Rows};
use crate::engine::{COSINE_BINS, Engine, Metric, PairHistogram, score};
use crate::error::{Error, Result};
use crate::stats::distribution::{self, Histogram, MeanStd, Quantiles};

/// Bins of the histograms in the output, each 1/128 wide: joins of the engine's bins, so that counts
/// stay exact.
const OUTPUT_BINS: usize = 256;

/// How far the pass may be from what the moments say.
const INTEGRITY_TOLERANCE: f64 = 1e-5;

/// Distribution of the cosines of many pairs of rows, each in [-1, 1].
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CosineDistribution {
    /// Pairs of rows.
    pub pairs: u64,
    /// Mean; `null` without a pair.
    pub mean: Option<f64>,
    /// Standard deviation over the pairs as they are (divided by their number).
    pub std: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// Quantiles, interpolated in 4,096 bins: off by at most 0.0005.
    pub quantiles: Quantiles,
    /// Counts in 256 bins of width 1/128.
    pub histogram: Histogram,
    /// The pass against the moments of the rows; `null` without a pair.
    pub integrity: Option<CosineIntegrity>,
    /// Counts in the engine's 4,096 bins.
    #[serde(skip)]
    pub fine: Histogram,
}

/// Mean and mean square of the cosines as the pass over pairs found them, less what the moments of the
/// unit rows say they must be. Both are 0 but for rounding; a run in which either exceeds 0.00001 fails.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CosineIntegrity {
    /// Difference of the mean cosine.
    pub mean_difference: f64,
    /// Difference of the mean squared cosine.
    pub mean_square_difference: f64,
}

/// Cosines of all pairs i < j within `rows`; `unit` are the moments of the same rows.
///
/// # Errors
/// The device fails, or its cosines contradict the moments.
pub fn within(engine: &Engine, rows: Rows<'_>, unit: &UnitMoments) -> Result<CosineDistribution> {
    let histogram = engine.pair_histogram(rows, None)?;
    // Σ over all ordered pairs is n²‖μ‖², of which n are a row with itself; likewise for squares.
    let n = unit.0.rows as f64;
    let off_diagonal = |all: f64| (n * all - 1.0) / (n - 1.0);
    let expected = unit.0.second_moment().map(|moment| Expected {
        mean: off_diagonal(unit.0.sq_mean_norm()),
        mean_square: off_diagonal(moment.sq_frobenius()),
    });
    distribution_of(histogram, expected)
}

/// Cosines of every row of `x` with every row of `y`; `x_unit` and `y_unit` are the moments of the same
/// rows.
///
/// # Errors
/// The device fails, or its cosines contradict the moments.
///
/// # Panics
/// If the dimensions differ.
pub fn between(
    engine: &Engine,
    x: Rows<'_>,
    y: Rows<'_>,
    x_unit: &UnitMoments,
    y_unit: &UnitMoments,
) -> Result<CosineDistribution> {
    between_stream(engine, x, y, x_unit, y_unit)
}

/// [`between`] where `y` is not held.
///
/// # Errors
/// The device fails, its cosines contradict the moments, or `y` cannot be read.
///
/// # Panics
/// If the dimensions differ.
pub fn between_stream<'a>(
    engine: &Engine,
    x: Rows<'_>,
    y: impl RowStream<'a>,
    x_unit: &UnitMoments,
    y_unit: &UnitMoments,
) -> Result<CosineDistribution> {
    let histogram = engine.pair_histogram_with(x, y)?;
    let (x_mean, y_mean) = (&x_unit.0.mean, &y_unit.0.mean);
    let moments = x_unit.0.second_moment().zip(y_unit.0.second_moment());
    let expected = moments.map(|(x_moment, y_moment)| Expected {
        mean: x_mean.iter().zip(y_mean).map(|(a, b)| a * b).sum(),
        mean_square: x_moment.frobenius_dot(&y_moment),
    });
    distribution_of(histogram, expected)
}

impl CosineDistribution {
    /// Share of the pairs with a cosine of at least `cosine`, to the next of 4,096 bin edges; 0 without pairs.
    pub fn share_from(&self, cosine: f64) -> f64 {
        let bins = self.fine.edges.iter().zip(&self.fine.counts);
        let above: u64 = bins
            .filter(|(edge, _)| **edge >= cosine)
            .map(|(_, n)| n)
            .sum();
        above as f64 / self.pairs.max(1) as f64
    }
}

/// What the moments say about the cosines.
struct Expected {
    mean: f64,
    mean_square: f64,
}

fn distribution_of(
    histogram: PairHistogram,
    expected: Option<Expected>,
) -> Result<CosineDistribution> {
    let pairs = histogram.pairs();
    let fine = Histogram {
        edges: (0..=COSINE_BINS)
            .map(|i| i as f64 * 2.0 / COSINE_BINS as f64 - 1.0)
            .collect(),
        counts: histogram.counts,
    };
    if pairs == 0 {
        return Ok(CosineDistribution {
            pairs,
            mean: None,
            std: None,
            min: None,
            max: None,
            quantiles: Quantiles::new(),
            histogram: fine.coarsened(COSINE_BINS / OUTPUT_BINS),
            integrity: None,
            fine,
        });
    }
    let mean = histogram.sum.to_f64() / pairs as f64;
    let mean_square = histogram.sum_squares.to_f64() / pairs as f64;
    let integrity = expected
        .map(|expected| {
            check_integrity(CosineIntegrity {
                mean_difference: mean - expected.mean,
                mean_square_difference: mean_square - expected.mean_square,
            })
        })
        .transpose()?;
    let (min, max) = (f64::from(histogram.min), f64::from(histogram.max));
    // Rounding can leave a variance where there is none; half the range bounds the deviation.
    let std = (mean_square - mean * mean)
        .max(0.0)
        .sqrt()
        .min((max - min) / 2.0);
    // f32 products of unit rows may pass 1 by rounding; cosines do not.
    let (mean, min, max) = (
        mean.clamp(-1.0, 1.0),
        min.clamp(-1.0, 1.0),
        max.clamp(-1.0, 1.0),
    );
    Ok(CosineDistribution {
        pairs,
        mean: Some(mean),
        std: Some(std),
        min: Some(min),
        max: Some(max),
        quantiles: distribution::quantiles(|q| Some(fine.quantile(q)?.clamp(min, max))),
        histogram: fine.coarsened(COSINE_BINS / OUTPUT_BINS),
        integrity,
        fine,
    })
}

fn check_integrity(integrity: CosineIntegrity) -> Result<CosineIntegrity> {
    for (name, difference) in [
        ("mean cosine", integrity.mean_difference),
        ("mean squared cosine", integrity.mean_square_difference),
    ] {
        // Negated, so that NaN fails too.
        let sound = difference.abs() <= INTEGRITY_TOLERANCE;
        if !sound {
            return Err(Error::device(
                "pair_histogram",
                format!(
                    "the {name} over pairs is {difference:e} away from what the moments of the rows say, expected at most {INTEGRITY_TOLERANCE:e}"
                ),
            )
            .hint("the device computes wrong products; try --device cpu"));
        }
    }
    Ok(integrity)
}

/// How far two cosine distributions lie apart. No p-values: pairs of one row depend on each other.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CosineShift {
    /// Mean cosine of the current set less that of the reference.
    pub mean_difference: f64,
    /// Kolmogorov–Smirnov distance at the edges of 4,096 bins, in [0, 1].
    pub ks: f64,
    /// The true distance exceeds `ks` by at most this: the largest share that one bin holds.
    pub ks_error: f64,
    /// Wasserstein-1 distance in cosine units, off by at most 0.0005.
    pub wasserstein_1: f64,
    /// Jensen–Shannon divergence over the 256 bins, in nats, in [0, ln 2].
    pub js_nats: f64,
    /// The same in bits, in [0, 1].
    pub js_bits: f64,
    /// Population stability index over the deciles of the reference.
    pub psi: f64,
    /// Bins behind `psi`: 10, or fewer where cosines repeat.
    pub psi_bins: usize,
}

/// Compares two cosine distributions. `None` where one has no pair.
pub fn shift(reference: &CosineDistribution, current: &CosineDistribution) -> Option<CosineShift> {
    let (x, y) = (&reference.fine, &current.fine);
    let js_nats =
        distribution::jensen_shannon_nats(&reference.histogram.counts, &current.histogram.counts)?;
    let groups = distribution::decile_groups(&x.counts);
    let largest_share = |h: &Histogram| {
        h.counts
            .iter()
            .max()
            .map_or(0.0, |&max| max as f64 / h.total() as f64)
    };
    Some(CosineShift {
        mean_difference: current.mean? - reference.mean?,
        ks: distribution::ks_from_counts(&x.counts, &y.counts)?,
        ks_error: largest_share(x).max(largest_share(y)),
        wasserstein_1: distribution::wasserstein_1_from_counts(&x.edges, &x.counts, &y.counts)?,
        js_nats,
        js_bits: js_nats / LN_2,
        psi: distribution::psi(
            &distribution::regroup(&x.counts, &groups),
            &distribution::regroup(&y.counts, &groups),
        )?,
        psi_bins: groups.len(),
    })
}

/// Cosines of rows that belong together: the same item in both sets.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PairedCosine {
    /// Pairs of rows.
    pub pairs: usize,
    /// Mean; `null` without a pair.
    pub mean: Option<f64>,
    /// Standard deviation with n − 1; `null` for fewer than two pairs.
    pub std: Option<f64>,
    /// Smallest.
    pub min: Option<f64>,
    /// Median.
    pub median: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// 1st percentile.
    pub p01: Option<f64>,
    /// 5th percentile.
    pub p05: Option<f64>,
    /// 95th percentile.
    pub p95: Option<f64>,
    /// The nine deciles, 10th to 90th percentile; empty without a pair.
    pub deciles: Vec<f64>,
    /// Share of pairs below 0.9.
    pub share_below_0_9: Option<f64>,
    /// Share of pairs below 0.5.
    pub share_below_0_5: Option<f64>,
    /// Counts in 256 bins of width 1/128.
    pub histogram: Histogram,
    /// The cosine of each pair, in order.
    #[serde(skip)]
    pub cosines: Vec<f64>,
}

/// Cosine of each row of `x` with the row of `y` at the same place, in f64.
///
/// # Panics
/// If the numbers of rows or the dimensions differ.
pub fn paired_cosines(x: Rows<'_>, y: Rows<'_>) -> Vec<f64> {
    assert_eq!(x.len(), y.len(), "rows belong together by position");
    let cosine = |a: &[f32], b: &[f32]| {
        score::similarity(Metric::Cosine, a, score::norm(a), b, score::norm(b))
    };
    x.iter()
        .zip(y.iter())
        .map(|(a, b)| cosine(&a, &b))
        .collect()
}

/// Distribution of [`paired_cosines`].
///
/// # Panics
/// If the numbers of rows or the dimensions differ.
pub fn paired(x: Rows<'_>, y: Rows<'_>) -> PairedCosine {
    let cosines = paired_cosines(x, y);
    let mut sorted = cosines.clone();
    sorted.sort_by(f64::total_cmp);
    let mut histogram = Histogram {
        edges: (0..=OUTPUT_BINS)
            .map(|i| i as f64 * 2.0 / OUTPUT_BINS as f64 - 1.0)
            .collect(),
        counts: vec![0; OUTPUT_BINS],
    };
    for cosine in &cosines {
        let bin = ((cosine + 1.0) * (OUTPUT_BINS / 2) as f64) as usize;
        histogram.counts[bin.min(OUTPUT_BINS - 1)] += 1;
    }
    let quantile = |q| distribution::quantile_sorted(&sorted, q);
    let share_below = |limit: f64| {
        let below = sorted.partition_point(|&c| c < limit);
        (!sorted.is_empty()).then(|| below as f64 / sorted.len() as f64)
    };
    let mean_std = distribution::mean_std(&cosines);
    PairedCosine {
        pairs: cosines.len(),
        mean: mean_std.map(|MeanStd { mean, .. }| mean),
        std: mean_std.and_then(|MeanStd { std, .. }| std),
        min: sorted.first().copied(),
        median: quantile(0.5),
        max: sorted.last().copied(),
        p01: quantile(0.01),
        p05: quantile(0.05),
        p95: quantile(0.95),
        deciles: (1..10)
            .filter_map(|i| quantile(f64::from(i) / 10.0))
            .collect(),
        share_below_0_9: share_below(0.9),
        share_below_0_5: share_below(0.5),
        histogram,
        cosines,
    }
}
