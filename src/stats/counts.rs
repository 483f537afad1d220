//! Counts of categories in two samples: how far the shares moved, and whether chance would do it.

use statrs::distribution::{ContinuousCDF, Normal, StudentsT};
use statrs::function::gamma::ln_gamma;

use super::paired::Z_975;

/// G = 2 Σ O ln(O/E) of the 2 × C table of counts, E from its margins: 0 where all shares are equal. About
/// χ² with C − 1 degrees of freedom for independent rows of one distribution. `None` where a side is empty.
pub fn g_statistic(x: &[u64], y: &[u64]) -> Option<f64> {
    let g = table(x, y)?
        .filter(|&(observed, _)| observed > 0.0)
        .map(|(observed, expected)| observed * (observed / expected).ln());
    Some((2.0 * g.sum::<f64>()).max(0.0))
}

/// Cramér's V of the 2 × C table, √(χ²/N), in [0, 1]. `None` where a side is empty.
pub fn cramers_v(x: &[u64], y: &[u64]) -> Option<f64> {
    let chi2: f64 = table(x, y)?.map(|(o, e)| (o - e).powi(2) / e).sum();
    let total = (x.iter().sum::<u64>() + y.iter().sum::<u64>()) as f64;
    Some((chi2 / total).sqrt())
}

/// Cohen's w of y's shares against x's: √Σ (q − p)²/p over categories that x has. `None` where a side is
/// empty.
pub fn cohens_w(x: &[u64], y: &[u64]) -> Option<f64> {
    assert_eq!(x.len(), y.len(), "common categories");
    let (n, m) = (x.iter().sum::<u64>() as f64, y.iter().sum::<u64>() as f64);
    if n == 0.0 || m == 0.0 {
        return None;
    }
    let terms = x.iter().zip(y).filter(|(a, _)| **a > 0).map(|(&a, &b)| {
        let (p, q) = (a as f64 / n, b as f64 / m);
        (q - p).powi(2) / p
    });
    Some(terms.sum::<f64>().sqrt())
}

/// (observed, expected) of every cell whose category occurs.
fn table<'a>(x: &'a [u64], y: &'a [u64]) -> Option<impl Iterator<Item = (f64, f64)> + use<'a>> {
    assert_eq!(x.len(), y.len(), "common categories");
    let (n, m) = (x.iter().sum::<u64>(), y.iter().sum::<u64>());
    if n == 0 || m == 0 {
        return None;
    }
    let total = (n + m) as f64;
    let cells = x.iter().zip(y).filter(|(a, b)| **a + **b > 0);
    Some(cells.flat_map(move |(&a, &b)| {
        let both = (a + b) as f64;
        [
            (a as f64, both * n as f64 / total),
            (b as f64, both * m as f64 / total),
        ]
    }))
}

/// Two-sided p-value of Fisher's exact test of `a` of `n` against `b` of `m`: the chance, given that a + b
/// are hits, of a table no more likely than this one. Exact for exchangeable rows. In (0, 1].
pub fn fisher_exact(a: u64, n: u64, b: u64, m: u64) -> f64 {
    assert!(a <= n && b <= m, "{a} of {n}, {b} of {m}");
    let hits = a + b;
    let ln_factorial = |k: u64| ln_gamma(k as f64 + 1.0);
    let ln_choose = |n: u64, k: u64| ln_factorial(n) - ln_factorial(k) - ln_factorial(n - k);
    let ln_all = ln_choose(n + m, hits);
    let probability = |k: u64| (ln_choose(n, k) + ln_choose(m, hits - k) - ln_all).exp();
    let observed = probability(a);
    // Tables as likely as this one may differ by rounding.
    let limit = observed * (1.0 + 1e-7);
    let (lowest, highest) = (hits.saturating_sub(m), hits.min(n));
    let mode = ((n + 1) as f64 * (hits + 1) as f64 / (n + m + 2) as f64) as u64;
    let mode = mode.clamp(lowest, highest);
    // Chances fall on either side of the mode: each tail begins where they are low enough, and ends
    // where nothing more can be seen of them.
    let tail = |from: u64, to: u64| -> f64 {
        let down = to < from;
        let length = from.abs_diff(to);
        let at = |step: u64| if down { from - step } else { from + step };
        let first = partition_point(length + 1, |step| probability(at(step)) > limit);
        let mut sum = 0.0;
        for step in first..=length {
            let p = probability(at(step));
            sum += p;
            if p < 1e-18 * sum {
                break;
            }
        }
        sum
    };
    let above = if mode < highest {
        tail(mode + 1, highest)
    } else {
        0.0
    };
    (tail(mode, lowest) + above).clamp(f64::MIN_POSITIVE, 1.0)
}

/// How many of 0 … `length` − 1 come before the first that is not `before`.
fn partition_point(length: u64, before: impl Fn(u64) -> bool) -> u64 {
    let (mut low, mut high) = (0, length);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}

/// Two-sided exact p-value of "those who changed did so either way with equal chances": `gained` against
/// `lost`, min(1, 2·P(X ≤ min)) for X ~ Binomial(gained + lost, ½). 1 where nobody changed.
///
/// Source: McNemar's test in its exact form.
pub fn mcnemar_exact(gained: u64, lost: u64) -> f64 {
    let (all, fewer) = (gained + lost, gained.min(lost));
    let ln_factorial = |k: u64| ln_gamma(k as f64 + 1.0);
    let probability = |k: u64| {
        let ln_choose = ln_factorial(all) - ln_factorial(k) - ln_factorial(all - k);
        (ln_choose - all as f64 * std::f64::consts::LN_2).exp()
    };
    let mut sum = 0.0;
    for k in (0..=fewer).rev() {
        let p = probability(k);
        sum += p;
        if p < 1e-18 * sum {
            break;
        }
    }
    (2.0 * sum).clamp(f64::MIN_POSITIVE, 1.0)
}

/// Wilson's 95 % interval of a share, `hits` of `n` > 0.
pub fn wilson_ci95(hits: u64, n: u64) -> [f64; 2] {
    let (p, n, z) = (hits as f64 / n as f64, n as f64, Z_975);
    let centre = (p + z * z / (2.0 * n)) / (1.0 + z * z / n);
    let half = z / (1.0 + z * z / n) * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
    // The ends are exact where all or none are hits.
    [
        if hits == 0 {
            0.0
        } else {
            (centre - half).max(0.0)
        },
        if p == 1.0 {
            1.0
        } else {
            (centre + half).min(1.0)
        },
    ]
}

/// 95 % interval of b/m − a/n for independent samples: Newcombe's hybrid of the Wilson intervals.
///
/// Source: Newcombe 1998, method 10.
pub fn newcombe_ci95(a: u64, n: u64, b: u64, m: u64) -> [f64; 2] {
    let (p, q) = (a as f64 / n as f64, b as f64 / m as f64);
    let ([p_low, p_high], [q_low, q_high]) = (wilson_ci95(a, n), wilson_ci95(b, m));
    [
        q - p - (q - q_low).hypot(p_high - p),
        q - p + (q_high - q).hypot(p - p_low),
    ]
}

/// 95 % interval of (b/m)/(a/n) for independent samples from the Wilson intervals; `None` for an end that
/// is undefined, as the upper one is where a = 0.
///
/// Source: Donner & Zou 2012, the MOVER interval of a ratio.
pub fn ratio_ci95(a: u64, n: u64, b: u64, m: u64) -> [Option<f64>; 2] {
    let (p, q) = (a as f64 / n as f64, b as f64 / m as f64);
    let ([p_low, p_high], [q_low, q_high]) = (wilson_ci95(a, n), wilson_ci95(b, m));
    let middle = p * q;
    let (b_low, c_low) = (q_low * (2.0 * q - q_low), p_high * (2.0 * p - p_high));
    let (b_high, c_high) = (q_high * (2.0 * q - q_high), p_low * (2.0 * p - p_low));
    let root = |b: f64, c: f64| (middle * middle - b * c).max(0.0).sqrt();
    let low = if b_low > 0.0 {
        b_low / (middle + root(b_low, c_low))
    } else {
        0.0
    };
    let high = (middle + root(b_high, c_high)) / c_high;
    [
        Some(low),
        (c_high > 0.0 && high.is_finite()).then_some(high),
    ]
}

/// A difference of means with its interval and p-value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanDifference {
    /// Mean of the first values − mean of the second.
    pub difference: f64,
    /// 95 % interval.
    pub ci95: [f64; 2],
    /// Two-sided p-value of "no difference".
    pub p_value: f64,
}

/// Compares two means from their values' means, variances of those means and degrees of freedom (values or
/// groups − 1 each). `None` where a variance has no degree of freedom.
///
/// Source: Welch 1947, with Satterthwaite's degrees of freedom.
pub fn welch(x: MeanOfSample, y: MeanOfSample) -> Option<MeanDifference> {
    if x.freedom < 1.0 || y.freedom < 1.0 {
        return None;
    }
    let difference = x.mean - y.mean;
    let variance = x.variance + y.variance;
    if variance <= 0.0 {
        // Constant values on both sides differ or do not, without doubt.
        let p_value = if difference == 0.0 {
            1.0
        } else {
            f64::MIN_POSITIVE
        };
        return Some(MeanDifference {
            difference,
            ci95: [difference; 2],
            p_value,
        });
    }
    let freedom =
        variance.powi(2) / (x.variance.powi(2) / x.freedom + y.variance.powi(2) / y.freedom);
    let se = variance.sqrt();
    let t = StudentsT::new(0.0, 1.0, freedom).ok()?;
    let reach = t.inverse_cdf(0.975) * se;
    Some(MeanDifference {
        difference,
        ci95: [difference - reach, difference + reach],
        p_value: (2.0 * t.cdf(-(difference / se).abs())).clamp(f64::MIN_POSITIVE, 1.0),
    })
}

/// A mean and what is known of its error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanOfSample {
    /// The mean.
    pub mean: f64,
    /// Variance of the mean.
    pub variance: f64,
    /// Degrees of freedom of that variance.
    pub freedom: f64,
}

impl MeanOfSample {
    /// Of `n` values, n > 0, from their sum and the groups' sums of deviations from the mean, squared and
    /// added up: variance = g/(g − 1)·squares/n².
    pub fn new(n: f64, sum: f64, groups: f64, squares: f64) -> Self {
        Self {
            mean: sum / n,
            variance: if groups > 1.0 {
                groups / (groups - 1.0) * squares / (n * n)
            } else {
                0.0
            },
            freedom: groups - 1.0,
        }
    }

    /// Normal 95 % interval; `None` for one group.
    pub fn ci95(&self) -> Option<[f64; 2]> {
        let half = Z_975 * self.variance.sqrt();
        (self.freedom > 0.0).then_some([self.mean - half, self.mean + half])
    }
}

/// Two-sided p-value of a standard normal z.
pub fn normal_p(z: f64) -> f64 {
    (2.0 * Normal::standard().cdf(-z.abs())).clamp(f64::MIN_POSITIVE, 1.0)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn golden(name: &str) -> Value {
        let path = format!("{}/fixtures/golden/{name}", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn counts(value: &Value) -> Vec<u64> {
        let numbers = value.as_array().unwrap().iter();
        numbers.map(|v| v.as_u64().unwrap()).collect()
    }

    /// Printed in full from f64 sums in another order; ln Γ is good to 1e-13 relative, times its value.
    fn close(found: f64, expected: &Value) {
        let expected = expected.as_f64().unwrap();
        assert!(
            (found - expected).abs() <= 1e-12 + 1e-9 * expected.abs(),
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn tables_match_golden_values() {
        let golden = golden("clusters.json");
        let (x, y) = (counts(&golden["counts_ref"]), counts(&golden["counts_cur"]));
        close(g_statistic(&x, &y).unwrap(), &golden["G"]);
        close(cramers_v(&x, &y).unwrap(), &golden["cramers_v"]);
        close(cohens_w(&x, &y).unwrap(), &golden["cohens_w_vs_ref"]);
        assert_eq!(g_statistic(&[3, 0, 5], &[6, 0, 10]), Some(0.0));
        assert_eq!(g_statistic(&[0], &[1]), None);
    }

    #[test]
    fn exact_tests_and_intervals_match_golden_values() {
        let golden = golden("slices.json");
        for case in golden["shares"].as_array().unwrap() {
            let [a, n, b, m] = ["a", "n", "b", "m"].map(|key| case[key].as_u64().unwrap());
            close(fisher_exact(a, n, b, m), &case["fisher"]);
            let [low, high] = newcombe_ci95(a, n, b, m);
            close(low, &case["newcombe"][0]);
            close(high, &case["newcombe"][1]);
            let [low, high] = wilson_ci95(a, n);
            close(low, &case["wilson_a"][0]);
            close(high, &case["wilson_a"][1]);
        }
        for case in golden["mcnemar"].as_array().unwrap() {
            let [gained, lost] = ["gained", "lost"].map(|key| case[key].as_u64().unwrap());
            close(mcnemar_exact(gained, lost), &case["p"]);
        }
        for case in golden["welch"].as_array().unwrap() {
            let sample = |key: &str| {
                let values: Vec<f64> = serde_json::from_value(case[key].clone()).unwrap();
                let n = values.len() as f64;
                let sum: f64 = values.iter().sum();
                let squares = values.iter().map(|v| (v - sum / n).powi(2)).sum();
                MeanOfSample::new(n, sum, n, squares)
            };
            let found = welch(sample("x"), sample("y")).unwrap();
            close(found.difference, &case["difference"]);
            close(found.p_value, &case["p"]);
            close(found.ci95[0], &case["ci95"][0]);
            close(found.ci95[1], &case["ci95"][1]);
        }
    }

    #[test]
    fn ratios_hold_their_estimate_and_turn_round() {
        for (a, n, b, m) in [(30, 200, 60, 210), (5, 90, 5, 80), (1, 50, 40, 60)] {
            let [low, high] = ratio_ci95(a, n, b, m).map(Option::unwrap);
            let ratio = (b as f64 / m as f64) / (a as f64 / n as f64);
            assert!(low < ratio && ratio < high, "{low} {ratio} {high}");
            // The other way round the interval is that of reciprocals.
            let [back_low, back_high] = ratio_ci95(b, m, a, n).map(Option::unwrap);
            assert!((back_low * high - 1.0).abs() < 1e-9, "{back_low} {high}");
            assert!((back_high * low - 1.0).abs() < 1e-9);
        }
        let [low, high] = ratio_ci95(0, 100, 20, 100);
        assert!(low.unwrap() > 1.0 && high.is_none());
        let [low, high] = ratio_ci95(20, 100, 0, 100);
        assert!(low == Some(0.0) && high.unwrap() < 1.0);
    }

    #[test]
    fn no_difference_has_a_p_value_of_one() {
        assert!((fisher_exact(10, 100, 10, 100) - 1.0).abs() < 1e-9);
        assert_eq!(fisher_exact(0, 5, 0, 9), 1.0);
        assert_eq!(mcnemar_exact(0, 0), 1.0);
        assert_eq!(mcnemar_exact(4, 4), 1.0);
        let constant = MeanOfSample::new(5.0, 5.0, 5.0, 0.0);
        assert_eq!(welch(constant, constant).unwrap().p_value, 1.0);
        let alone = MeanOfSample::new(1.0, 1.0, 1.0, 0.0);
        assert_eq!(welch(alone, constant), None);
    }
}
