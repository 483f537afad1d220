//! What of an MMD² lies in the slices' shares, and what in their contents.

/// MMD² of two samples as what slices of other sizes make and what slices of other contents make.
///
/// With shares π and ρ of the slices in the reference and current, and μ the slices' mean features, the
/// difference of the samples' means is Σ (ρ − π)·(μₓ + μᵧ)/2 + Σ (π + ρ)/2·(μᵧ − μₓ): mix and content. The
/// inner products of either with the whole difference add up to its square. A slice that one side lacks is
/// all mix.
#[derive(Debug, Clone, PartialEq)]
pub struct Decomposition {
    /// MMD², from the slices' mean kernels without rows' pairs with themselves.
    pub total: f64,
    /// Part of `total` that changed shares make.
    pub mix: f64,
    /// Part of `total` that changed contents make; `mix` + `content` = `total`.
    pub content: f64,
    /// MMD² that the contents alone would make at the reference's shares; `None` where current lacks a
    /// slice.
    pub content_at_reference_shares: Option<f64>,
    /// The same at current's shares; `None` where the reference lacks a slice.
    pub content_at_current_shares: Option<f64>,
    /// MMD² that the shares alone would make with the reference's contents; `None` where the reference
    /// lacks a slice.
    pub mix_of_reference_contents: Option<f64>,
    /// What each slice adds to `total`; the sum of all is `total`.
    pub contributions: Vec<f64>,
}

/// Takes an MMD² apart. `kernel` holds the mean kernels between slices, reference slices first, then
/// current ones, (2s)² row-major; `reference` and `current` are the s shares. Entries of slices that a side
/// lacks (share 0) are not read.
///
/// # Source
/// Kitagawa 1955, Oaxaca & Blinder 1973 (the symmetric form), in the kernel's feature space. Golden values:
/// fixtures/golden/clusters.json.
pub fn decompose(kernel: &[f64], reference: &[f64], current: &[f64]) -> Decomposition {
    let s = reference.len();
    assert_eq!((kernel.len(), current.len()), (4 * s * s, s));
    let there = |slice: usize| [reference[slice] > 0.0, current[slice] > 0.0];
    // Weights of the mean features: of the whole difference, and of its mix.
    let (mut whole, mut mix) = (vec![0.0; 2 * s], vec![0.0; 2 * s]);
    for slice in 0..s {
        let (p, q) = (reference[slice], current[slice]);
        (whole[slice], whole[s + slice]) = (-p, q);
        (mix[slice], mix[s + slice]) = match there(slice) {
            [true, true] => ((q - p) / 2.0, (q - p) / 2.0),
            [true, false] => (-p, 0.0),
            [false, true] => (0.0, q),
            [false, false] => (0.0, 0.0),
        };
    }
    let times = |weights: &[f64], row: usize| -> f64 {
        let entries = kernel[row * 2 * s..(row + 1) * 2 * s].iter();
        let terms = entries.zip(weights).filter(|(_, w)| **w != 0.0);
        terms.map(|(k, w)| k * w).sum()
    };
    let form = |left: &[f64], right: &[f64]| -> f64 {
        let rows = (0..2 * s).filter(|&row| left[row] != 0.0);
        rows.map(|row| left[row] * times(right, row)).sum()
    };
    let contributions: Vec<f64> = (0..s)
        .map(|slice| {
            [slice, s + slice]
                .into_iter()
                .filter(|&row| whole[row] != 0.0)
                .map(|row| whole[row] * times(&whole, row))
                .sum()
        })
        .collect();
    let total = contributions.iter().sum();
    let mixed = form(&mix, &whole);
    let content: Vec<f64> = whole.iter().zip(&mix).map(|(w, m)| w - m).collect();
    let apart = |shares: &[f64]| {
        let everywhere = (0..s).all(|slice| shares[slice] == 0.0 || there(slice) == [true; 2]);
        let weights: Vec<f64> = shares
            .iter()
            .map(|p| -p)
            .chain(shares.iter().copied())
            .collect();
        everywhere.then(|| form(&weights, &weights))
    };
    let shares_alone: Vec<f64> = (0..2 * s)
        .map(|at| {
            if at < s {
                current[at] - reference[at]
            } else {
                0.0
            }
        })
        .collect();
    let reference_has_all = (0..s).all(|slice| current[slice] == 0.0 || reference[slice] > 0.0);
    Decomposition {
        total,
        mix: mixed,
        content: form(&content, &whole),
        content_at_reference_shares: apart(reference),
        content_at_current_shares: apart(current),
        mix_of_reference_contents: reference_has_all.then(|| form(&shares_alone, &shares_alone)),
        contributions,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn golden() -> Value {
        let text = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/clusters.json"
        ));
        serde_json::from_str::<Value>(text).unwrap()["decomposition"].clone()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        let list = value.as_array().unwrap().iter();
        list.map(|v| v.as_f64().unwrap()).collect()
    }

    fn close(found: f64, expected: f64) {
        // A few additions of numbers below 1.
        assert!(
            (found - expected).abs() < 1e-12,
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn parts_of_the_mmd_match_golden_values() {
        let golden = golden();
        let kernel: Vec<f64> = golden["Kbar"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(numbers)
            .collect();
        let (p, q) = (numbers(&golden["pi_ref"]), numbers(&golden["pi_cur"]));
        let found = decompose(&kernel, &p, &q);
        let expected = |name: &str| golden[name].as_f64().unwrap();
        close(found.total, expected("mmd2_total"));
        close(
            found.content_at_reference_shares.unwrap(),
            expected("conditional_only_ref_weights"),
        );
        close(
            found.content_at_current_shares.unwrap(),
            expected("conditional_only_cur_weights"),
        );
        close(
            found.mix_of_reference_contents.unwrap(),
            expected("mix_only_in_X"),
        );
        close(found.mix + found.content, found.total);
        close(found.contributions.iter().sum(), found.total);
    }

    /// The parts are inner products of feature means, checked on vectors: mix and content as defined.
    #[test]
    fn parts_are_those_of_feature_means() {
        let means = [
            [1.0, 0.2],
            [0.1, 2.0],
            [0.4, 0.4],
            [1.5, 0.1],
            [0.3, 2.2],
            [9.0, 9.0],
        ];
        // The third slice is gone.
        let (p, q) = ([0.5, 0.3, 0.2], [0.25, 0.75, 0.0]);
        let kernel: Vec<f64> = means
            .iter()
            .flat_map(|a| means.iter().map(move |b| a[0] * b[0] + a[1] * b[1]))
            .collect();
        let found = decompose(&kernel, &p, &q);
        let at = |i: usize| {
            let whole: f64 = (0..3)
                .map(|s| q[s] * means[3 + s][i] - p[s] * means[s][i])
                .sum();
            let content: f64 = (0..2)
                .map(|s| (p[s] + q[s]) / 2.0 * (means[3 + s][i] - means[s][i]))
                .sum();
            let mix: f64 = (0..2)
                .map(|s| (q[s] - p[s]) * (means[3 + s][i] + means[s][i]) / 2.0)
                .sum::<f64>()
                - p[2] * means[2][i];
            [whole, mix, content]
        };
        let (a, b) = (at(0), at(1));
        close(a[1] + a[2], a[0]);
        close(found.total, a[0] * a[0] + b[0] * b[0]);
        close(found.mix, a[0] * a[1] + b[0] * b[1]);
        close(found.content, a[0] * a[2] + b[0] * b[2]);
        assert_eq!(found.content_at_reference_shares, None, "a slice is gone");
        assert!(found.content_at_current_shares.is_some());
        // The same shares: all content. The same contents: all mix.
        let same_shares = decompose(&kernel, &p, &p);
        assert_eq!(same_shares.mix, 0.0);
        close(
            same_shares.content,
            same_shares.content_at_reference_shares.unwrap(),
        );
        let same_means: Vec<f64> = (0..36)
            .map(|i| kernel[(i / 6 % 3) * 6 + i % 6 % 3])
            .collect();
        let same_contents = decompose(&same_means, &p, &q);
        close(same_contents.content, 0.0);
        close(
            same_contents.mix,
            same_contents.mix_of_reference_contents.unwrap(),
        );
    }
}
