//! Comparing one-dimensional distributions.

use schemars::JsonSchema;
use serde::Serialize;

/// Distances between two histograms over common edges.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct HistogramDistance {
    /// Kolmogorov–Smirnov D = max |F − G| at the edges; the true D is larger by at most the largest
    /// bin's share.
    pub ks: f64,
    /// Wasserstein-1 distance Σ |F − G|·width, in the units of the edges; within one bin width.
    pub wasserstein1: f64,
    /// Jensen–Shannon divergence, natural logarithm, in [0, ln 2].
    pub jensen_shannon_nats: f64,
}

/// KS, W1 and JS of two histograms with `edges.len() − 1` bins; `None` if either is empty.
pub fn histogram_distance(edges: &[f64], x: &[u64], y: &[u64]) -> Option<HistogramDistance> {
    let (n, m) = (x.iter().sum::<u64>() as f64, y.iter().sum::<u64>() as f64);
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let (mut f, mut g) = (0u64, 0u64);
    let mut distance = HistogramDistance {
        ks: 0.0,
        wasserstein1: 0.0,
        jensen_shannon_nats: 0.0,
    };
    for (i, (&a, &b)) in x.iter().zip(y).enumerate() {
        f += a;
        g += b;
        let gap = (f as f64 / n - g as f64 / m).abs();
        distance.ks = distance.ks.max(gap);
        distance.wasserstein1 += gap * (edges[i + 1] - edges[i]);
        let (p, q) = (a as f64 / n, b as f64 / m);
        let middle = (p + q) / 2.0;
        let part = |p: f64| if p > 0.0 { p * (p / middle).ln() } else { 0.0 };
        distance.jensen_shannon_nats += (part(p) + part(q)) / 2.0;
    }
    Some(distance)
}

/// Population stability index over `B` bins, shares (c + ½)/(n + B/2): Σ (q − p)·ln(q/p).
///
/// Under no change its expectation is about (B − 1)(1/n + 1/m) (Yurdakul & Naranjo 2020).
pub fn psi(x: &[u64], y: &[u64]) -> f64 {
    let bins = x.len() as f64;
    let share = |c: u64, n: f64| (c as f64 + 0.5) / (n + 0.5 * bins);
    let (n, m) = (x.iter().sum::<u64>() as f64, y.iter().sum::<u64>() as f64);
    x.iter()
        .zip(y)
        .map(|(&a, &b)| {
            let (p, q) = (share(a, n), share(b, m));
            (q - p) * (q / p).ln()
        })
        .sum()
}

/// Two-sample KS statistic D = max |F − G| of ascending samples, ties taken together.
pub fn ks_sorted(x: &[f64], y: &[f64]) -> f64 {
    let (mut i, mut j, mut ks) = (0, 0, 0.0f64);
    while i < x.len() && j < y.len() {
        let at = x[i].min(y[j]);
        i += x[i..].iter().take_while(|&&v| v <= at).count();
        j += y[j..].iter().take_while(|&&v| v <= at).count();
        ks = ks.max((i as f64 / x.len() as f64 - j as f64 / y.len() as f64).abs());
    }
    ks
}

/// Quantile of a histogram, linear within a bin; `None` if it is empty.
pub fn histogram_quantile(edges: &[f64], counts: &[u64], level: f64) -> Option<f64> {
    let total: u64 = counts.iter().sum();
    if total == 0 {
        return None;
    }
    let target = level * total as f64;
    let mut below = 0u64;
    for (i, &count) in counts.iter().enumerate() {
        if count > 0 && (below + count) as f64 >= target {
            let share = ((target - below as f64) / count as f64).clamp(0.0, 1.0);
            return Some(edges[i] + share * (edges[i + 1] - edges[i]));
        }
        below += count;
    }
    edges.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn golden() -> Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/distribution_1d.json"
        );
        serde_json::from_str(&std::fs::read_to_string(path).expect("golden file")).expect("JSON")
    }

    fn numbers(value: &Value) -> Vec<f64> {
        value
            .as_array()
            .expect("numbers")
            .iter()
            .filter_map(Value::as_f64)
            .collect()
    }

    fn counts(value: &Value) -> Vec<u64> {
        value
            .as_array()
            .expect("counts")
            .iter()
            .filter_map(Value::as_u64)
            .collect()
    }

    #[test]
    fn golden_distances() {
        let golden = golden();
        let close = |got: f64, key: &str| {
            let want = golden[key].as_f64().expect("a number");
            assert!((got - want).abs() <= 1e-12, "{key}: {got} is not {want}");
        };
        let (mut x, mut y) = (numbers(&golden["x"]), numbers(&golden["y"]));
        x.sort_by(f64::total_cmp);
        y.sort_by(f64::total_cmp);
        close(ks_sorted(&x, &y), "ks_D");
        let edges = numbers(&golden["bins"]);
        let (a, b) = (counts(&golden["hist_x"]), counts(&golden["hist_y"]));
        let distance = histogram_distance(&edges, &a, &b).expect("not empty");
        close(distance.ks, "ks_from_hist");
        close(distance.wasserstein1, "w1_from_hist");
        close(distance.jensen_shannon_nats, "js_nats");
        close(psi(&a, &b), "psi_smoothed_half");
    }

    #[test]
    fn quantiles_of_a_histogram() {
        let edges = [0.0, 1.0, 2.0, 3.0];
        assert_eq!(histogram_quantile(&edges, &[0, 4, 0], 0.5), Some(1.5));
        assert_eq!(histogram_quantile(&edges, &[1, 0, 1], 1.0), Some(3.0));
        assert_eq!(histogram_quantile(&edges, &[0, 0, 0], 0.5), None);
        assert!(histogram_distance(&edges, &[0, 0, 0], &[1, 0, 0]).is_none());
    }

    #[test]
    fn equal_samples_are_at_no_distance() {
        let x = [1.0, 2.0, 2.0, 5.0];
        assert_eq!(ks_sorted(&x, &x), 0.0);
        assert_eq!(ks_sorted(&[1.0], &[2.0]), 1.0);
        assert_eq!(psi(&[3, 4], &[3, 4]), 0.0);
    }
}
