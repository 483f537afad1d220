//! Paired comparison of two systems on the same items: test, interval, smallest visible effect.
//!
//! Everything works on the differences current − reference, one per item. Items must come in an order
//! that means something (sorted by id): resamples refer to positions.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::rng::Philox;

/// Up to this many non-zero differences, every sign pattern is tried: 2¹⁶ sums.
const EXACT_ITEMS: usize = 16;
/// 97.5 % quantile of the standard normal distribution: two-sided 5 % level.
pub(crate) const Z_975: f64 = 1.959_963_984_540_054;
/// 80 % quantile of the standard normal distribution: 80 % power.
pub(crate) const Z_80: f64 = 0.841_621_233_572_914_3;

/// How much resampling, and from which seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Resampling {
    /// Random sign patterns of the test where there are too many to try all.
    pub sign_flips: u32,
    /// Bootstrap resamples of the interval.
    pub bootstraps: u32,
    /// Seed of both.
    pub seed: u64,
}

impl Default for Resampling {
    fn default() -> Self {
        Self {
            sign_flips: 10_000,
            bootstraps: 10_000,
            seed: 0,
        }
    }
}

/// A paired comparison, current − reference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PairedDifference {
    /// Mean difference; positive: current is larger.
    pub mean: f64,
    /// 95 % bootstrap interval of the mean over items ([`bootstrap_mean_ci95`]); null for one item.
    pub ci95: Option<[f64; 2]>,
    /// Two-sided sign-flip p-value ([`sign_flip_p_value`]).
    pub p_value: f64,
    /// Whether every sign pattern was tried, so that the p-value has no Monte Carlo error.
    pub p_value_exact: bool,
    /// Items on which current is larger.
    pub wins: u64,
    /// Items on which current is smaller.
    pub losses: u64,
    /// Items on which both are equal.
    pub ties: u64,
    /// Smallest true mean difference that this many items show with 80 % power at the two-sided 5 %
    /// level ([`minimum_detectable_mean`]); null for one item.
    pub minimum_detectable: Option<f64>,
}

impl PairedDifference {
    /// Compares the two sides by their differences, in item order.
    ///
    /// # Panics
    /// If there is no difference, or one is not finite.
    pub fn new(differences: &[f64], resampling: &Resampling) -> Self {
        assert!(!differences.is_empty() && differences.iter().all(|d| d.is_finite()));
        let (p_value, p_value_exact) =
            sign_flip_p_value(differences, resampling.sign_flips, resampling.seed);
        let count = |sign: fn(&f64) -> bool| differences.iter().filter(|d| sign(d)).count() as u64;
        Self {
            mean: mean(differences),
            ci95: bootstrap_mean_ci95(differences, resampling.bootstraps, resampling.seed),
            p_value,
            p_value_exact,
            wins: count(|&d| d > 0.0),
            losses: count(|&d| d < 0.0),
            ties: count(|&d| d == 0.0),
            minimum_detectable: minimum_detectable_mean(differences),
        }
    }
}

/// Arithmetic mean, terms added in order.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation (n − 1 in the denominator); `None` for fewer than two values.
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let n = values.len();
    let centre = mean(values);
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    (n >= 2).then(|| (squares / (n - 1) as f64).sqrt())
}

/// (z₀.₉₇₅ + z₀.₈₀)·s/√n: the true mean difference found significant at the two-sided 5 % level in 80 %
/// of repetitions. `None` for fewer than two differences.
///
/// # Source
/// Golden value: fixtures/golden/retrieval.json, `mde_80`.
pub fn minimum_detectable_mean(differences: &[f64]) -> Option<f64> {
    let sd = standard_deviation(differences)?;
    Some((Z_975 + Z_80) * sd / (differences.len() as f64).sqrt())
}

/// Two-sided p-value of "the sign of each difference is a coin flip", and whether it is exact.
///
/// Statistic |Σ dᵢ|. Zero differences never change it and are left out. With at most 16 others, all 2ᵐ
/// sign patterns are tried: p = #{|Σ ±dᵢ| ≥ |Σ dᵢ|}/2ᵐ. Otherwise `flips` random patterns are:
/// p = (1 + #)/(1 + flips), never 0. In (0, 1]; small: the difference is no accident of these items.
///
/// # Source
/// Fisher's randomisation test; Smucker, Allan and Carterette (2007), CIKM; Phipson and Smyth (2010) for
/// the 1 +. Golden value: fixtures/golden/retrieval.json, `p_signflip_two_sided`.
pub fn sign_flip_p_value(differences: &[f64], flips: u32, seed: u64) -> (f64, bool) {
    let moved: Vec<f64> = differences.iter().copied().filter(|&d| d != 0.0).collect();
    let observed = moved.iter().sum::<f64>().abs();
    // Patterns that give the same sum in exact arithmetic may differ by rounding; they count as ties.
    let reached = observed - 1e-12 * moved.iter().map(|d| d.abs()).sum::<f64>();
    let signed_sum = |terms: &[f64], bits: u64| -> f64 {
        terms
            .iter()
            .enumerate()
            .map(|(i, &d)| if bits >> i & 1 == 1 { -d } else { d })
            .sum()
    };
    if moved.len() <= EXACT_ITEMS {
        let patterns = 1u64 << moved.len();
        let extreme = (0..patterns)
            .filter(|&bits| signed_sum(&moved, bits).abs() >= reached)
            .count();
        return (extreme as f64 / patterns as f64, true);
    }
    let key = purpose_seed("sign flips", seed);
    let extreme = (0..u64::from(flips))
        .into_par_iter()
        .filter(|&flip| {
            let mut random = Philox::new(key, flip);
            let sum: f64 = moved
                .chunks(64)
                .map(|terms| signed_sum(terms, random.next_u64()))
                .sum();
            sum.abs() >= reached
        })
        .count();
    ((1 + extreme) as f64 / f64::from(flips + 1), false)
}

/// Bootstrap 95 % interval of the mean, bias-corrected and accelerated (BCa).
///
/// `resamples` means of n values drawn with replacement; the interval's ends are their quantiles at
/// Φ(z₀ + (z₀ ± z)/(1 − a(z₀ ± z))) with z₀ = Φ⁻¹(share of resampled means below the mean, ties half) and
/// a = Σ(dᵢ − d̄)³/(6(Σ(dᵢ − d̄)²)^{3/2}). Values that are all equal give an interval of length 0; fewer than
/// two values, or no resample, give `None`.
///
/// # Source
/// Efron (1987), JASA 82. Oracle: scipy.stats.bootstrap(method="BCa"), whose convention for ties this is.
pub fn bootstrap_mean_ci95(values: &[f64], resamples: u32, seed: u64) -> Option<[f64; 2]> {
    let n = u32::try_from(values.len()).ok()?;
    if n < 2 || resamples == 0 {
        return None;
    }
    let centre = mean(values);
    let power_sum = |power: i32| -> f64 { values.iter().map(|v| (v - centre).powi(power)).sum() };
    let squares = power_sum(2);
    if values.iter().all(|&v| v == values[0]) || squares == 0.0 {
        return Some([centre, centre]);
    }
    let key = purpose_seed("bootstrap", seed);
    let mut means: Vec<f64> = (0..u64::from(resamples))
        .into_par_iter()
        .map(|resample| {
            let mut random = Philox::new(key, resample);
            (0..n)
                .map(|_| values[random.below(n) as usize])
                .sum::<f64>()
                / f64::from(n)
        })
        .collect();
    means.sort_unstable_by(f64::total_cmp);
    // A resample of the same values in another order differs from the mean only by rounding.
    let slack = 1e-12 * values.iter().map(|v| v.abs()).fold(0.0, f64::max);
    let below = means.partition_point(|&m| m < centre - slack);
    let not_above = means.partition_point(|&m| m <= centre + slack);
    let share = (below + not_above) as f64 / (2.0 * f64::from(resamples));
    let normal = Normal::standard();
    // A mean outside all resampled means has no finite z₀; half a resample keeps it finite.
    let half = 0.5 / f64::from(resamples);
    let bias = normal.inverse_cdf(share.clamp(half, 1.0 - half));
    let acceleration = power_sum(3) / (6.0 * squares.powf(1.5));
    let end = |z: f64| {
        let shifted = bias + z;
        let level = normal.cdf(bias + shifted / (1.0 - acceleration * shifted));
        quantile_sorted(&means, level)
    };
    Some([end(-Z_975), end(Z_975)])
}

/// Quantile of ascending values by linear interpolation between order statistics (numpy's default).
///
/// # Panics
/// If there is no value.
pub fn quantile_sorted(ascending: &[f64], level: f64) -> f64 {
    let position = level.clamp(0.0, 1.0) * (ascending.len() - 1) as f64;
    let low = ascending[position.floor() as usize];
    let high = ascending[position.ceil() as usize];
    low + (high - low) * position.fract()
}

/// A seed of its own per purpose, so that equal stream numbers of two purposes never meet.
fn purpose_seed(purpose: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(purpose.as_bytes(), seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESAMPLING: Resampling = Resampling {
        sign_flips: 2_000,
        bootstraps: 1_000,
        seed: 1,
    };

    fn golden() -> (serde_json::Value, Vec<f64>) {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/retrieval.json"
        );
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let differences = serde_json::from_value(golden["paired_deltas"].clone()).unwrap();
        (golden, differences)
    }

    fn assert_close(found: f64, expected: &serde_json::Value) {
        let expected = expected.as_f64().unwrap();
        assert!((found - expected).abs() <= 1e-12 + 1e-9 * expected.abs());
    }

    #[test]
    fn golden_sign_flip_and_minimum_detectable() {
        let (golden, differences) = golden();
        let found = PairedDifference::new(&differences, &RESAMPLING);
        assert_close(found.mean, &golden["mean_delta"]);
        assert_close(found.p_value, &golden["p_signflip_two_sided"]);
        assert!(found.p_value_exact);
        assert_close(found.minimum_detectable.unwrap(), &golden["mde_80"]);
        assert_eq!((found.wins, found.losses, found.ties), (5, 2, 1));
    }

    /// The random path agrees with enumeration: 17 differences, one of them so small that it decides
    /// nothing, against the 16 others exactly. Monte Carlo sd at p = 0.1 and 20,000 flips is 0.002.
    #[test]
    fn random_flips_agree_with_enumeration() {
        let mut random = Philox::new(3, 0);
        let mut differences: Vec<f64> = (0..16).map(|_| random.normal() + 0.4).collect();
        let (exact, enumerated) = sign_flip_p_value(&differences, 20_000, 5);
        differences.push(1e-9);
        let (sampled, sampled_exact) = sign_flip_p_value(&differences, 20_000, 5);
        assert!(enumerated && !sampled_exact);
        assert!((exact - sampled).abs() < 0.01, "{exact} {sampled}");
    }

    #[test]
    fn degenerate_differences() {
        let none = PairedDifference::new(&[0.0; 30], &RESAMPLING);
        assert_eq!((none.p_value, none.ci95), (1.0, Some([0.0, 0.0])));
        assert_eq!(none.minimum_detectable, Some(0.0));
        let one = PairedDifference::new(&[0.3], &RESAMPLING);
        assert_eq!(
            (one.p_value, one.ci95, one.minimum_detectable),
            (1.0, None, None)
        );
    }

    /// Skewed values, so that both corrections matter. Expected: scipy 1.17.1
    /// stats.bootstrap((v,), np.mean, n_resamples=400_000, method="BCa", rng=0).
    #[test]
    fn bca_interval_agrees_with_scipy() {
        let values: Vec<f64> = (0..8).map(|i| f64::from(1 << i)).collect();
        let [low, high] = bootstrap_mean_ci95(&values, 100_000, 7).unwrap();
        // Standard errors of these quantiles of 100,000 resamples are about 0.06 and 0.2. Without either
        // bias term the interval is 10.5 to 74 or 10.75 to 73.1; as percentiles 7.8 to 64.1.
        assert!((low - 11.375).abs() < 0.5, "{low}");
        assert!((high - 76.0).abs() < 1.0, "{high}");
    }

    /// The interval covers the true mean in 95 ± 3 % of 400 runs of 50 values.
    #[test]
    fn bootstrap_interval_covers_the_true_mean() {
        let covered = (0..400)
            .filter(|&run| {
                let mut random = Philox::new(11, run);
                let values: Vec<f64> = (0..50).map(|_| 0.2 + random.normal()).collect();
                let [low, high] = bootstrap_mean_ci95(&values, 1_000, run).unwrap();
                (low..=high).contains(&0.2)
            })
            .count();
        assert!((368..=392).contains(&covered), "{covered} of 400");
    }

    /// Under the null the test rejects at its level: 20 of 400 expected, 99.9 % of binomial draws in 7..=36.
    #[test]
    fn sign_flip_holds_its_level() {
        let p_values: Vec<f64> = (0..400)
            .map(|run| {
                let mut random = Philox::new(13, run);
                let differences: Vec<f64> = (0..40).map(|_| random.normal()).collect();
                sign_flip_p_value(&differences, 999, run).0
            })
            .collect();
        let rejected = p_values.iter().filter(|&&p| p <= 0.05).count();
        assert!((7..=36).contains(&rejected), "{rejected} of 400");
        let mut sorted = p_values;
        sorted.sort_unstable_by(f64::total_cmp);
        // Kolmogorov–Smirnov against the uniform distribution: 1.95/√400 at the 0.1 % level.
        let distance = sorted
            .iter()
            .enumerate()
            .map(|(i, p)| (p - (i as f64 + 0.5) / 400.0).abs())
            .fold(0.0, f64::max);
        assert!(distance < 0.0975, "{distance}");
        // Negative control: a true shift is found.
        let mut random = Philox::new(17, 0);
        let shifted: Vec<f64> = (0..40).map(|_| random.normal() + 1.0).collect();
        assert!(sign_flip_p_value(&shifted, 999, 0).0 < 0.01);
    }

    #[test]
    fn results_do_not_depend_on_threads() {
        let mut random = Philox::new(19, 0);
        let differences: Vec<f64> = (0..100).map(|_| random.normal()).collect();
        let one = rayon::ThreadPoolBuilder::new()
            .num_threads(1)
            .build()
            .unwrap()
            .install(|| PairedDifference::new(&differences, &RESAMPLING));
        assert_eq!(one, PairedDifference::new(&differences, &RESAMPLING));
    }
}
