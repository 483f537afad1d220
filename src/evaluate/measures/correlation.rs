//! Correlation of two lists.

/// Pearson's correlation, in [-1, 1]; `None` where a list is constant or shorter than 2.
///
/// Centred lists are divided by their lengths before the product, as SciPy does it, so that large values do
/// not overflow.
///
/// # Panics
/// If the lengths differ.
pub fn pearson(x: &[f64], y: &[f64]) -> Option<f64> {
    assert_eq!(x.len(), y.len());
    let unit = |values: &[f64]| -> Option<Vec<f64>> {
        let constant = values.iter().all(|v| *v == values[0]);
        if values.len() < 2 || constant {
            return None;
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let centred: Vec<f64> = values.iter().map(|v| v - mean).collect();
        let length = centred.iter().map(|v| v * v).sum::<f64>().sqrt();
        (length > 0.0).then(|| centred.iter().map(|v| v / length).collect())
    };
    let product: f64 = unit(x)?.iter().zip(unit(y)?).map(|(a, b)| a * b).sum();
    Some(product.clamp(-1.0, 1.0))
}

/// Spearman's rank correlation, in [-1, 1]: [`pearson`] of [`average_ranks`].
///
/// # Panics
/// If the lengths differ.
pub fn spearman(x: &[f64], y: &[f64]) -> Option<f64> {
    pearson(&average_ranks(x), &average_ranks(y))
}

/// Ranks from 1; equal values share the mean of their ranks.
pub fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = first as f64 + (group.len() + 1) as f64 / 2.0;
        group.iter().for_each(|&at| ranks[at] = rank);
        first += group.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::measures::golden;

    #[test]
    fn golden_correlations() {
        let (x, y) = ([1.0, 2.0, 2.0, 3.0, 5.0], [0.1, 0.4, 0.3, 0.3, 0.9]);
        let case = &golden()["correlation"]["spearman_with_ties"];
        let close = |found: Option<f64>, name: &str| {
            let expected = case[name].as_f64().unwrap();
            assert!((found.unwrap() - expected).abs() < 1e-14, "{name}");
        };
        close(spearman(&x, &y), "spearman");
        close(pearson(&x, &y), "pearson");
        assert_eq!(spearman(&[1.0, 2.0, 3.0], &[1.0; 3]), None);
        assert_eq!(pearson(&[1.0], &[1.0]), None);
        assert_eq!(pearson(&[], &[]), None);
    }

    #[test]
    fn zeros_of_either_sign_tie() {
        assert_eq!(average_ranks(&[0.0, -0.0, 1.0]), [1.5, 1.5, 3.0]);
    }
}
