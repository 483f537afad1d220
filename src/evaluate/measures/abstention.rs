//! How well the scores of a ranking tell how good it is.

use crate::stats::paired::mean;

/// Confidence in a ranking from its scores, largest first: the largest, their standard deviation
/// (population), and the gap between the first two (the first alone where there is one).
pub fn confidences(scores: &[f64]) -> [f64; 3] {
    let Some(&first) = scores.first() else {
        return [0.0; 3];
    };
    let centre = mean(scores);
    let squares: f64 = scores.iter().map(|s| (s - centre).powi(2)).sum();
    let gap = scores.get(1).map_or(first, |second| first - second);
    [first, (squares / scores.len() as f64).sqrt(), gap]
}

/// Normalised area under the abstention curve: the mean metric of what is left when the least confident
/// 0, 10, … 90 % are dropped, between what dropping at random gives (0) and what dropping the worst gives
/// (1). `None` where the metric does not vary, or nothing is there.
///
/// # Source
/// Gisserot-Boukhlef et al. (2024), as mteb computes it: stable sorting, numbers of dropped rankings
/// rounded half to even, trapezoids.
///
/// # Panics
/// If the lengths differ.
pub fn normalised_auc(confidence: &[f64], metric: &[f64]) -> Option<f64> {
    assert_eq!(confidence.len(), metric.len());
    if metric.is_empty() {
        return None;
    }
    let curve = area(confidence, metric);
    let oracle = area(metric, metric);
    let flat = mean(metric) * 0.9;
    let found = (curve - flat) / (oracle - flat);
    (oracle != flat && found.is_finite()).then_some(found)
}

fn area(by: &[f64], metric: &[f64]) -> f64 {
    let n = metric.len();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| by[a].total_cmp(&by[b]));
    let rates: Vec<f64> = (0..10).map(|i| f64::from(i) * 0.1).collect();
    let means: Vec<f64> = rates
        .iter()
        .map(|rate| {
            let dropped = ((rate * n as f64).round_ties_even() as usize).min(n - 1);
            let kept: Vec<f64> = order[dropped..].iter().map(|&i| metric[i]).collect();
            mean(&kept)
        })
        .collect();
    (1..rates.len())
        .map(|i| (rates[i] - rates[i - 1]) * (means[i] + means[i - 1]) / 2.0)
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::measures::golden;

    #[test]
    fn golden_curve() {
        let golden = golden();
        let case = &golden["nauc"];
        let list = |key: &str| -> Vec<f64> { serde_json::from_value(case[key].clone()).unwrap() };
        let found = normalised_auc(&list("conf"), &list("metric")).unwrap();
        assert!((found - case["nauc"].as_f64().unwrap()).abs() < 1e-12);
        assert_eq!(normalised_auc(&[1.0, 2.0], &[0.5, 0.5]), None);
        assert_eq!(normalised_auc(&[], &[]), None);
    }

    #[test]
    fn confidences_of_short_rankings() {
        assert_eq!(confidences(&[]), [0.0; 3]);
        assert_eq!(confidences(&[0.5]), [0.5, 0.0, 0.5]);
        assert_eq!(confidences(&[3.0, 1.0]), [3.0, 1.0, 2.0]);
    }
}
