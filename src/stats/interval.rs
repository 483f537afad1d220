//! Confidence intervals.

use schemars::JsonSchema;
use serde::Serialize;

use super::paired::Z_975;

/// A mean with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// 95 % interval; `null` where one value, or one group, gives none.
    pub ci95: Option<[f64; 2]>,
}

impl Estimate {
    /// Mean of values of which those of one group depend on each other, with a normal interval from the
    /// groups' sums: variance = g/(g − 1) · Σ over groups (Σ (v − mean))² / n². `groups` names the group of
    /// each value by number. `None` without a value.
    ///
    /// Source: Liang and Zeger (1986), the cluster-robust variance of a mean.
    pub fn of_groups(values: &[f64], groups: &[u32]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let mut sums = std::collections::BTreeMap::new();
        for (value, group) in values.iter().zip(groups) {
            *sums.entry(group).or_insert(0.0) += value - mean;
        }
        let g = sums.len() as f64;
        let squares: f64 = sums.values().map(|s| s * s).sum();
        let half = Z_975 * (g / (g - 1.0) * squares).sqrt() / n;
        Some(Self {
            mean,
            ci95: (sums.len() > 1).then_some([mean - half, mean + half]),
        })
    }

    /// The interval, or everything where there is none.
    pub fn bounds(&self) -> [f64; 2] {
        self.ci95.unwrap_or([f64::NEG_INFINITY, f64::INFINITY])
    }

    /// The same within [0, 1], for shares.
    #[must_use]
    pub fn of_share(mut self) -> Self {
        self.ci95 = self.ci95.map(|ci| ci.map(|end| end.clamp(0.0, 1.0)));
        self
    }
}

/// Interval for a squared distance from an estimate of it and its standard deviation, on the square
/// root's scale.
///
/// With r = √max(T, s): upper = (r + z·s/(2r))², lower = (√T − z·s/(2√T))², or 0 where T ≤ z·s.
/// Near 0 an estimate T and its s are dependent (small T comes with small s), which makes the plain
/// T ± z·s miss too often; the square root is nearly free of that. `estimate` may be negative; the
/// interval never is. Use one bound alone for a one-sided statement, with its own `z`.
pub fn sqrt_scale_interval(estimate: f64, sd: f64, z: f64) -> [f64; 2] {
    let root = estimate.max(sd).sqrt();
    let upper = if root > 0.0 {
        (root + z * sd / (2.0 * root)).powi(2)
    } else {
        0.0
    };
    let lower = if estimate <= z * sd {
        0.0
    } else {
        (estimate.sqrt() - z * sd / (2.0 * estimate.sqrt())).powi(2)
    };
    [lower, upper]
}

/// Delete-one-block jackknife variance of an estimate, for blocks of any sizes.
///
/// `without[j]` is the estimate without block j, `sizes[j]` > 0 that block's size. With h_j = Σ sizes /
/// sizes_j: pseudo-value_j = h_j·T − (h_j − 1)·T₍₋ⱼ₎, variance = (1/g) Σ (pseudo-value_j − T_J)²/(h_j − 1),
/// where T_J = g·T − Σ (1 − 1/h_j)·T₍₋ⱼ₎. For equal blocks this is (g − 1)/g · Σ (T₍₋ⱼ₎ − mean)². A single
/// block has no such variance; the squared change that its removal makes stands in. Without a block: 0.
///
/// Source: Busing, Meijer & van der Leeden (1999), "Delete-m jackknife for unequal m".
pub fn jackknife_variance(estimate: f64, without: &[f64], sizes: &[f64]) -> f64 {
    let g = without.len() as f64;
    match without {
        [] => return 0.0,
        [only] => return (estimate - only).powi(2),
        _ => {}
    }
    let total: f64 = sizes.iter().sum();
    let centre = g * estimate
        - without
            .iter()
            .zip(sizes)
            .map(|(t, size)| (1.0 - size / total) * t)
            .sum::<f64>();
    without
        .iter()
        .zip(sizes)
        .map(|(t, size)| {
            let h = total / size;
            let pseudo = h * estimate - (h - 1.0) * t;
            (pseudo - centre).powi(2) / (h - 1.0)
        })
        .sum::<f64>()
        / g
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> serde_json::Value {
        serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/mmd_interval.json"
        )))
        .unwrap()
    }

    /// Groups of one value give the usual interval; equal values within groups count once each group.
    #[test]
    fn grouped_means() {
        let values = [1.0, 4.0, 2.0, 8.0];
        let alone = Estimate::of_groups(&values, &[0, 1, 2, 3]).unwrap();
        let se = (values.iter().map(|v| (v - 3.75f64).powi(2)).sum::<f64>() / 3.0 / 4.0).sqrt();
        let [low, high] = alone.ci95.unwrap();
        assert_eq!(alone.mean, 3.75);
        assert!((high - low - 2.0 * Z_975 * se).abs() < 1e-12);
        let twice: Vec<f64> = values.iter().flat_map(|&v| [v, v]).collect();
        let paired = Estimate::of_groups(&twice, &[0, 0, 1, 1, 2, 2, 3, 3]).unwrap();
        assert!((paired.ci95.unwrap()[0] - low).abs() < 1e-12);
        assert_eq!(Estimate::of_groups(&values, &[7; 4]).unwrap().ci95, None);
        assert_eq!(Estimate::of_groups(&[], &[]), None);
    }

    #[test]
    fn sqrt_scale_interval_matches_golden_values() {
        for row in golden()["rows"].as_array().unwrap() {
            let value = |name: &str| row[name].as_f64().unwrap();
            let [lower, upper] = sqrt_scale_interval(value("T"), value("s"), value("z"));
            assert!((lower - value("L")).abs() <= 1e-12, "{row}: {lower}");
            assert!((upper - value("U")).abs() <= 1e-12, "{row}: {upper}");
        }
        assert_eq!(sqrt_scale_interval(0.0, 0.0, 1.96), [0.0, 0.0]);
    }

    /// The jackknife of a mean is its usual variance: s²/g over blocks of equal size.
    #[test]
    fn jackknife_of_a_mean_is_its_variance() {
        let values = [1.0, 4.0, 2.0, 8.0];
        let mean = 3.75;
        let without: Vec<f64> = values.iter().map(|v| (15.0 - v) / 3.0).collect();
        let variance = jackknife_variance(mean, &without, &[1.0; 4]);
        let expected = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / 12.0;
        assert!((variance - expected).abs() < 1e-12);
    }

    /// The weighted mean of blocks: pseudo-values are the block means, so
    /// variance = (1/g) Σ (mean_j − mean)²/(h_j − 1).
    #[test]
    fn jackknife_of_unequal_blocks_weighs_them() {
        let (sums, sizes) = ([3.0, 10.0, 2.0], [1.0, 4.0, 3.0]);
        let mean = 15.0 / 8.0;
        let without: Vec<f64> = (0..3)
            .map(|j| (15.0 - sums[j]) / (8.0 - sizes[j]))
            .collect();
        let expected = (0..3)
            .map(|j| (sums[j] / sizes[j] - mean).powi(2) / (8.0 / sizes[j] - 1.0))
            .sum::<f64>()
            / 3.0;
        let variance = jackknife_variance(mean, &without, &sizes);
        assert!((variance - expected).abs() < 1e-12, "{variance} {expected}");
    }
}
