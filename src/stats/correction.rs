//! Corrections for asking several questions at once.

/// Holm's step-down adjustment: reject where the adjusted value is at most α, and the chance of any
/// false rejection is at most α, whatever the dependence.
///
/// With p₍₁₎ ≤ … ≤ p₍g₎: adjusted₍ᵢ₎ = max over j ≤ i of min(1, (g − j + 1)·p₍ⱼ₎). Source: Holm 1979.
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let g = p_values.len();
    let mut adjusted = vec![0.0; g];
    let mut largest = 0.0f64;
    for (rank, at) in ascending(p_values).into_iter().enumerate() {
        largest = largest.max(((g - rank) as f64 * p_values[at]).min(1.0));
        adjusted[at] = largest;
    }
    adjusted
}

/// Benjamini and Hochberg's step-up adjustment: reject where the adjusted value is at most q, and the
/// expected share of false rejections is at most q for independent or positively dependent tests.
///
/// adjusted₍ᵢ₎ = min over j ≥ i of min(1, g·p₍ⱼ₎/j). Source: Benjamini & Hochberg 1995.
pub fn benjamini_hochberg(p_values: &[f64]) -> Vec<f64> {
    let g = p_values.len();
    let mut adjusted = vec![0.0; g];
    let mut smallest = 1.0f64;
    for (rank, at) in ascending(p_values).into_iter().enumerate().rev() {
        smallest = smallest.min(g as f64 * p_values[at] / (rank + 1) as f64);
        adjusted[at] = smallest;
    }
    adjusted
}

fn ascending(values: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(golden: &serde_json::Value, name: &str) -> Vec<f64> {
        let list = golden[name].as_array().unwrap();
        list.iter().map(|v| v.as_f64().unwrap()).collect()
    }

    #[test]
    fn adjustments_match_golden_values_in_any_order() {
        let golden: serde_json::Value = serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/retrieval.json"
        )))
        .unwrap();
        let mut p_values = numbers(&golden, "pvals");
        let assert_close = |found: Vec<f64>, expected: Vec<f64>| {
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() < 1e-12, "{found:?} {expected:?}");
            }
        };
        let [mut by_holm, mut by_bh] = [numbers(&golden, "holm"), numbers(&golden, "bh")];
        assert_close(holm(&p_values), by_holm.clone());
        assert_close(benjamini_hochberg(&p_values), by_bh.clone());
        for list in [&mut p_values, &mut by_holm, &mut by_bh] {
            list.reverse();
        }
        assert_close(holm(&p_values), by_holm);
        assert_close(benjamini_hochberg(&p_values), by_bh);
        assert_eq!(holm(&[0.7, 0.6]), [1.0, 1.0]);
        assert!(holm(&[]).is_empty());
    }
}
