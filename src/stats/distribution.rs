//! One-dimensional distributions: quantiles, and how far apart two of them are.
//!
//! Everything here is exact for what it is given. Histograms of two sets are comparable only with common
//! edges, which the functions on counts take for granted.

use std::collections::BTreeMap;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

/// The quantiles that every distribution in the output shows, by the text that names them.
const QUANTILES: [(&str, f64); 7] = [
    ("0.01", 0.01),
    ("0.05", 0.05),
    ("0.25", 0.25),
    ("0.5", 0.5),
    ("0.75", 0.75),
    ("0.95", 0.95),
    ("0.99", 0.99),
];

/// Quantiles at 0.01, 0.05, 0.25, 0.5, 0.75, 0.95 and 0.99, by those names.
pub type Quantiles = BTreeMap<String, f64>;

/// Evaluates `quantile` at 0.01, 0.05, 0.25, 0.5, 0.75, 0.95 and 0.99; empty where it is undefined.
pub fn quantiles(quantile: impl Fn(f64) -> Option<f64>) -> Quantiles {
    QUANTILES
        .iter()
        .filter_map(|&(name, q)| Some((name.to_owned(), quantile(q)?)))
        .collect()
}

/// Counts between edges.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Histogram {
    /// Edges, ascending, one more than counts. A bin holds its lower edge; the last one both.
    pub edges: Vec<f64>,
    /// Values in each bin.
    pub counts: Vec<u64>,
}

impl Histogram {
    /// Values in all bins.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The q-quantile by linear interpolation within its bin, off by at most that bin's width. `None`
    /// without a value.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = q.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        let mut last = None;
        for (edges, &count) in self.edges.windows(2).zip(&self.counts) {
            if count == 0 {
                continue;
            }
            if below + count as f64 >= rank {
                let share = (rank - below) / count as f64;
                return Some(edges[0] + share * (edges[1] - edges[0]));
            }
            below += count as f64;
            last = Some(edges[1]);
        }
        last
    }

    /// Bins joined in groups of `group`.
    ///
    /// # Panics
    /// If `group` does not divide the number of bins.
    pub fn coarsened(&self, group: usize) -> Self {
        assert!(self.counts.len().is_multiple_of(group));
        Self {
            edges: self.edges.iter().step_by(group).copied().collect(),
            counts: self.counts.chunks(group).map(|c| c.iter().sum()).collect(),
        }
    }
}

/// Mean and standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanStd {
    /// Mean.
    pub mean: f64,
    /// Standard deviation with n − 1; `None` for a single value.
    pub std: Option<f64>,
}

/// Mean and standard deviation (n − 1) of `values`, in two passes. `None` without a value.
pub fn mean_std(values: &[f64]) -> Option<MeanStd> {
    if values.is_empty() {
        return None;
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    Some(MeanStd {
        mean,
        std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()),
    })
}

/// Median; of an even number of values the mean of the middle two. 0 of none. No value is NaN.
///
/// Of many values only those are put in order that a sample says lie near the middle.
pub fn median(values: &[f64]) -> f64 {
    /// Values per sampled one, and a share of the sample on either side of its middle: 4,000 sampled
    /// values know their median to within a hundredth of them.
    const STEP: usize = 512;
    const REACH: usize = 32;
    let n = values.len();
    if n == 0 {
        return 0.0;
    }
    let mut sample: Vec<f64> = values.iter().copied().step_by(STEP).collect();
    let (middle, reach) = (sample.len() / 2, sample.len() / REACH);
    sample.sort_unstable_by(f64::total_cmp);
    let (low, high) = if n < STEP * STEP {
        (f64::NEG_INFINITY, f64::INFINITY)
    } else {
        (sample[middle - reach], sample[middle + reach])
    };
    let near = |low: f64, high: f64| -> (usize, Vec<f64>) {
        values
            .par_chunks(1 << 16)
            .map(|part| {
                let below = part.iter().filter(|&&v| v < low).count();
                let near = part.iter().copied().filter(|&v| low <= v && v <= high);
                (below, near.collect::<Vec<f64>>())
            })
            .reduce(Default::default, |mut a, b| {
                a.1.extend(b.1);
                (a.0 + b.0, a.1)
            })
    };
    let (mut below, mut middle) = near(low, high);
    // Both of the middle two must be among them.
    if below + 1 > n / 2 || n / 2 >= below + middle.len() {
        (below, middle) = near(f64::NEG_INFINITY, f64::INFINITY);
    }
    let (lower, &mut upper, _) = middle.select_nth_unstable_by(n / 2 - below, f64::total_cmp);
    if n % 2 == 1 {
        return upper;
    }
    let lower = lower.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    (lower + upper) / 2.0
}

/// The q-quantile of ascending values, interpolated linearly between order statistics at q·(n − 1), as
/// NumPy and R (type 7) do. `None` without a value.
pub fn quantile_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position as usize;
    let above = (below + 1).min(last);
    Some(sorted[below] + (position - below as f64) * (sorted[above] - sorted[below]))
}

/// Kolmogorov–Smirnov distance of two samples, each ascending: max |F − G|, in [0, 1]. `None` where a
/// sample is empty.
pub fn ks_sorted(x: &[f64], y: &[f64]) -> Option<f64> {
    let mut largest = 0.0f64;
    walk_steps(x, y, |f, g, _| largest = largest.max((f - g).abs()))?;
    Some(largest)
}

/// p-value of a Kolmogorov–Smirnov distance between independent samples of n and m: 2 Σ (−1)ʲ⁻¹ e^(−2j²λ²)
/// with λ = (√e + 0.12 + 0.11/√e)·distance, e = nm/(n + m). Within a tenth of the exact value where that is
/// below 0.1, from samples of ten on.
///
/// Source: Stephens 1970.
pub fn ks_p_value(distance: f64, n: usize, m: usize) -> f64 {
    let (n, m) = (n as f64, m as f64);
    let root = (n * m / (n + m)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * distance;
    // The series alternates and hardly converges for small λ, where the value is 1 to ten digits.
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |j: i32| 2.0 * (-2.0 * f64::from(j * j) * lambda * lambda).exp();
    let sum: f64 = (1..=100)
        .map(|j| if j % 2 == 1 { term(j) } else { -term(j) })
        .sum();
    sum.clamp(0.0, 1.0)
}

/// Wasserstein-1 distance of two samples, each ascending: ∫ |F − G|, in the unit of the values. `None`
/// where a sample is empty.
pub fn wasserstein_1_sorted(x: &[f64], y: &[f64]) -> Option<f64> {
    let mut area = 0.0;
    walk_steps(x, y, |f, g, width| area += (f - g).abs() * width)?;
    Some(area)
}

/// Calls `step(F, G, width to the next value)` at each distinct value of two ascending samples.
fn walk_steps(x: &[f64], y: &[f64], mut step: impl FnMut(f64, f64, f64)) -> Option<()> {
    if x.is_empty() || y.is_empty() {
        return None;
    }
    let (mut i, mut j) = (0, 0);
    while i < x.len() || j < y.len() {
        let next = |values: &[f64], at: usize| values.get(at).copied().unwrap_or(f64::INFINITY);
        let value = next(x, i).min(next(y, j));
        while i < x.len() && x[i] <= value {
            i += 1;
        }
        while j < y.len() && y[j] <= value {
            j += 1;
        }
        let following = next(x, i).min(next(y, j));
        let width = if following.is_finite() {
            following - value
        } else {
            0.0
        };
        step(i as f64 / x.len() as f64, j as f64 / y.len() as f64, width);
    }
    Some(())
}

/// Area under the ROC curve of `positives` over `negatives`, each ascending: the probability that a
/// positive exceeds a negative, ties counting half. In [0, 1]. `None` where a sample is empty.
pub fn auc_sorted(positives: &[f64], negatives: &[f64]) -> Option<f64> {
    if positives.is_empty() || negatives.is_empty() {
        return None;
    }
    // Twice the wins, so that ties stay integers.
    let (mut wins, mut below, mut not_above) = (0u128, 0, 0);
    for &positive in positives {
        while below < negatives.len() && negatives[below] < positive {
            below += 1;
        }
        while not_above < negatives.len() && negatives[not_above] <= positive {
            not_above += 1;
        }
        wins += (below + not_above) as u128;
    }
    Some(wins as f64 / (2.0 * positives.len() as f64 * negatives.len() as f64))
}

/// Kolmogorov–Smirnov distance at the edges of common bins: a lower bound of the samples' own, short of
/// it by at most the largest share that one bin holds. `None` where a side is empty.
pub fn ks_from_counts(x: &[u64], y: &[u64]) -> Option<f64> {
    let mut largest = 0.0f64;
    for (f, g) in cumulative_shares(x, y)? {
        largest = largest.max((f - g).abs());
    }
    Some(largest)
}

/// Wasserstein-1 distance on common bins of the given `edges`: Σ |F − G|·width, off by at most the widest
/// bin. `None` where a side is empty.
pub fn wasserstein_1_from_counts(edges: &[f64], x: &[u64], y: &[u64]) -> Option<f64> {
    Some(
        cumulative_shares(x, y)?
            .zip(edges.windows(2))
            .map(|((f, g), edges)| (f - g).abs() * (edges[1] - edges[0]))
            .sum(),
    )
}

/// (F, G) at the upper edge of each bin.
fn cumulative_shares<'a>(
    x: &'a [u64],
    y: &'a [u64],
) -> Option<impl Iterator<Item = (f64, f64)> + use<'a>> {
    assert_eq!(x.len(), y.len(), "common bins");
    let (n, m) = (x.iter().sum::<u64>(), y.iter().sum::<u64>());
    if n == 0 || m == 0 {
        return None;
    }
    let (mut f, mut g) = (0, 0);
    Some(x.iter().zip(y).map(move |(&a, &b)| {
        f += a;
        g += b;
        (f as f64 / n as f64, g as f64 / m as f64)
    }))
}

/// Jensen–Shannon divergence of two sets of counts in nats, in [0, ln 2]; divide by ln 2 for bits. `None`
/// where a side is empty.
pub fn jensen_shannon_nats(x: &[u64], y: &[u64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "common bins");
    let (n, m) = (x.iter().sum::<u64>(), y.iter().sum::<u64>());
    if n == 0 || m == 0 {
        return None;
    }
    let term = |p: f64, mean: f64| if p > 0.0 { p * (p / mean).ln() } else { 0.0 };
    let sum: f64 = x
        .iter()
        .zip(y)
        .map(|(&a, &b)| {
            let (p, q) = (a as f64 / n as f64, b as f64 / m as f64);
            term(p, (p + q) / 2.0) + term(q, (p + q) / 2.0)
        })
        .sum();
    Some((sum / 2.0).clamp(0.0, std::f64::consts::LN_2))
}

/// Population stability index of two sets of counts: Σ (p − q) ln(p / q) with shares
/// p = (c + ½) / (n + B/2) over B bins, so that empty bins stay finite. 0 or more; `None` where a side is
/// empty.
pub fn psi(x: &[u64], y: &[u64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "common bins");
    let (n, m) = (x.iter().sum::<u64>(), y.iter().sum::<u64>());
    if n == 0 || m == 0 {
        return None;
    }
    let half_bins = x.len() as f64 / 2.0;
    let share = |count: u64, total: u64| (count as f64 + 0.5) / (total as f64 + half_bins);
    Some(
        x.iter()
            .zip(y)
            .map(|(&a, &b)| {
                let (p, q) = (share(a, n), share(b, m));
                (p - q) * (p / q).ln()
            })
            .sum(),
    )
}

/// Mean of [`psi`] over `bins` bins for two independent samples of one distribution:
/// (B − 1)(1/n + 1/m) (Yurdakul & Naranjo 2020). Not for dependent values such as pairwise cosines.
pub fn psi_null_mean(bins: usize, n: u64, m: u64) -> f64 {
    (bins.max(1) - 1) as f64 * (1.0 / n as f64 + 1.0 / m as f64)
}

/// Bins that hold about a tenth of `reference` each: the first bin of each group, for [`regroup`]. A
/// value that fills several tenths makes fewer groups.
pub fn decile_groups(reference: &[u64]) -> Vec<usize> {
    let total = u128::from(reference.iter().sum::<u64>());
    let mut starts = vec![0];
    let mut below = 0u128;
    let mut tenths_wanted = 1;
    for (bin, &count) in reference.iter().enumerate() {
        if count == 0 {
            continue;
        }
        if below * 10 >= total * tenths_wanted {
            starts.push(bin);
            tenths_wanted = below * 10 / total + 1;
        }
        below += u128::from(count);
    }
    starts
}

/// Adds up counts from each of `starts` to the next.
pub fn regroup(counts: &[u64], starts: &[usize]) -> Vec<u64> {
    let ends = starts.iter().skip(1).copied().chain([counts.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| counts[start..end].iter().sum())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;
    use serde_json::Value;

    fn golden() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/distribution_1d.json"
        );
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn floats(value: &Value) -> Vec<f64> {
        let numbers = value.as_array().unwrap().iter();
        numbers.map(|v| v.as_f64().unwrap()).collect()
    }

    fn counts(value: &Value) -> Vec<u64> {
        let numbers = value.as_array().unwrap().iter();
        numbers.map(|v| v.as_u64().unwrap()).collect()
    }

    fn sorted(mut values: Vec<f64>) -> Vec<f64> {
        values.sort_by(f64::total_cmp);
        values
    }

    #[test]
    fn ks_p_values_are_near_the_exact_ones() {
        let golden = golden();
        let exact = golden["ks_p_exact"].as_f64().unwrap();
        let found = ks_p_value(golden["ks_D"].as_f64().unwrap(), 12, 15);
        assert!((found / exact - 1.0).abs() < 0.1, "{found} for {exact}");
        // Kolmogorov's own table, at a size where the correction is nothing.
        for (lambda, p) in [(1.358, 0.05), (1.628, 0.01), (1.949, 0.001)] {
            let found = ks_p_value(lambda / 1e4, 200_000_000, 200_000_000);
            assert!((found / p - 1.0).abs() < 0.01, "{found} for {p}");
        }
        assert_eq!(
            (ks_p_value(0.0, 50, 50), ks_p_value(1.0, 5_000, 5_000)),
            (1.0, 0.0)
        );
    }

    /// The golden values are f64 printed in full; our sums have tens of terms.
    fn assert_golden(found: Option<f64>, golden: &Value) {
        let expected = golden.as_f64().unwrap();
        assert!((found.unwrap() - expected).abs() < 1e-12 * (1.0 + expected.abs()));
    }

    #[test]
    fn golden_distances() {
        let golden = golden();
        let (x, y) = (sorted(floats(&golden["x"])), sorted(floats(&golden["y"])));
        assert_golden(ks_sorted(&x, &y), &golden["ks_D"]);
        assert_golden(wasserstein_1_sorted(&x, &y), &golden["w1_exact"]);
        let edges = floats(&golden["bins"]);
        let (x, y) = (counts(&golden["hist_x"]), counts(&golden["hist_y"]));
        assert_golden(ks_from_counts(&x, &y), &golden["ks_from_hist"]);
        assert_golden(
            wasserstein_1_from_counts(&edges, &x, &y),
            &golden["w1_from_hist"],
        );
        let js = jensen_shannon_nats(&x, &y);
        assert_golden(js, &golden["js_nats"]);
        assert_golden(
            js.map(|nats| nats / std::f64::consts::LN_2),
            &golden["js_bits"],
        );
        assert_golden(psi(&x, &y), &golden["psi_smoothed_half"]);
        assert_golden(Some(psi_null_mean(5, 12, 15)), &golden["psi_null_mean"]);
    }

    #[test]
    fn distances_of_a_sample_to_itself_are_zero() {
        let x = sorted(floats(&golden()["x"]));
        assert_eq!(ks_sorted(&x, &x), Some(0.0));
        assert_eq!(wasserstein_1_sorted(&x, &x), Some(0.0));
        assert_eq!(auc_sorted(&x, &x), Some(0.5));
        assert_eq!(psi(&[3, 4], &[3, 4]), Some(0.0));
        assert_eq!(jensen_shannon_nats(&[3, 4], &[3, 4]), Some(0.0));
    }

    #[test]
    fn empty_sides_are_undefined() {
        assert_eq!(ks_sorted(&[], &[1.0]), None);
        assert_eq!(wasserstein_1_sorted(&[1.0], &[]), None);
        assert_eq!(auc_sorted(&[], &[]), None);
        assert_eq!(ks_from_counts(&[0], &[1]), None);
        assert_eq!(jensen_shannon_nats(&[1], &[0]), None);
        assert_eq!(psi(&[0, 0], &[1, 2]), None);
        assert_eq!(quantile_sorted(&[], 0.5), None);
        assert!(mean_std(&[]).is_none());
        let empty = Histogram {
            edges: vec![0.0, 1.0],
            counts: vec![0],
        };
        assert_eq!(empty.quantile(0.5), None);
        assert!(quantiles(|q| empty.quantile(q)).is_empty());
    }

    #[test]
    fn auc_counts_ties_half() {
        assert_eq!(auc_sorted(&[2.0, 3.0], &[0.0, 1.0]), Some(1.0));
        assert_eq!(auc_sorted(&[0.0, 1.0], &[2.0, 3.0]), Some(0.0));
        // Pairs: 1>0, 1=1, 2>0, 2>1.
        assert_eq!(auc_sorted(&[1.0, 2.0], &[0.0, 1.0]), Some(3.5 / 4.0));
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile_sorted(&[1.0, 2.0, 4.0], 0.75), Some(3.0));
        assert_eq!(quantile_sorted(&[7.0], 0.3), Some(7.0));
        let histogram = Histogram {
            edges: vec![0.0, 1.0, 2.0, 3.0],
            counts: vec![2, 0, 2],
        };
        assert_eq!(histogram.quantile(0.25), Some(0.5));
        assert_eq!(histogram.quantile(0.5), Some(1.0));
        assert_eq!(histogram.quantile(0.75), Some(2.5));
        assert_eq!(histogram.quantile(1.0), Some(3.0));
        assert_eq!(histogram.coarsened(3).counts, [4]);
        assert_eq!(histogram.coarsened(3).edges, [0.0, 3.0]);
    }

    #[test]
    fn decile_groups_share_the_reference_evenly() {
        let even = vec![1u64; 100];
        assert_eq!(regroup(&even, &decile_groups(&even)), [10; 10]);
        // One value holds nine tenths: the groups around it are all there is.
        let mut lumpy = vec![1u64; 11];
        lumpy[5] = 90;
        let groups = decile_groups(&lumpy);
        assert_eq!(regroup(&lumpy, &groups).iter().sum::<u64>(), 100);
        assert_eq!(groups, [0, 6]);
        assert_eq!(decile_groups(&[0, 0, 5]), [0]);
    }

    #[test]
    fn medians_are_those_of_sorted_values() {
        let mut rng = Philox::new(6, 0);
        for n in [0, 1, 2, 3, 10, 262_143, 262_144, 262_145, 300_000] {
            for ties in [false, true] {
                let values: Vec<f64> = (0..n)
                    .map(|_| {
                        let value = rng.normal();
                        if ties { value.round() } else { value }
                    })
                    .collect();
                // In order, the sample is as even as can be; turned by blocks, it misleads.
                let mut sorted = values.clone();
                sorted.sort_unstable_by(f64::total_cmp);
                let expected = match n {
                    0 => 0.0,
                    _ if n % 2 == 1 => sorted[n / 2],
                    _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
                };
                let mut misleading = sorted.clone();
                for (i, value) in misleading.iter_mut().enumerate().step_by(512) {
                    *value = f64::from(i as u32) + 10.0;
                }
                let of_misleading = {
                    let mut sorted = misleading.clone();
                    sorted.sort_unstable_by(f64::total_cmp);
                    match n {
                        0 => 0.0,
                        _ if n % 2 == 1 => sorted[n / 2],
                        _ => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
                    }
                };
                assert_eq!(median(&values), expected, "{n} {ties}");
                assert_eq!(median(&sorted), expected, "{n} {ties}");
                assert_eq!(median(&misleading), of_misleading, "{n} {ties}");
            }
        }
    }
}
