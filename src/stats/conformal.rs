//! Conformal p-values: how unusual a score is among scores of items known to be usual.

use super::paired::{Z_80, Z_975};

/// (1 + #{calibration scores ≥ score})/(n + 1) per score, in [1/(n + 1), 1]; larger scores are more unusual.
///
/// Valid in finite samples, whatever the distribution, where the item is exchangeable with those of the
/// calibration; ties count against it being unusual.
///
/// # Source
/// Vovk, Gammerman & Shafer 2005; Bates et al. 2023. Golden values: fixtures/golden/conformal.json.
pub fn conformal_p_values(calibration: &[f64], scores: &[f64]) -> Vec<f64> {
    let mut sorted = calibration.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    scores
        .iter()
        .map(|&score| {
            let below = sorted.partition_point(|&c| c < score);
            (1 + n - below) as f64 / (n + 1) as f64
        })
        .collect()
}

/// The share of items beyond what false alarms explain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExcessRate {
    /// (rate − α)/(1 − α); negative where fewer alarms came than false ones alone would make.
    pub estimate: f64,
    /// Its standard error.
    pub standard_error: f64,
}

impl ExcessRate {
    /// Of a share `rate` of `items` with p ≤ `alpha` against `calibration` others.
    ///
    /// Standard error √(r(1 − r)/items + α(1 − α)/calibration)/(1 − α) with r = max(rate, α): both the items
    /// and the threshold are samples. No alarm at all is no certainty, hence the maximum.
    ///
    /// # Source
    /// Golden values: fixtures/golden/conformal.json, `excess_rate`.
    pub fn independent(rate: f64, items: usize, calibration: usize, alpha: f64) -> Self {
        let r = rate.max(alpha);
        let variance = r * (1.0 - r) / items as f64 + alpha * (1.0 - alpha) / calibration as f64;
        Self {
            estimate: (rate - alpha) / (1.0 - alpha),
            standard_error: variance.sqrt() / (1.0 - alpha),
        }
    }

    /// Of the same items on both sides: `gained` of them raise an alarm only now, `lost` only raised one
    /// before. Half an item is added to both counts, so that no change at all is no certainty either.
    ///
    /// # Source
    /// Wald's interval of a paired difference of shares, with Agresti & Min's (2005) correction.
    pub fn paired(gained: usize, lost: usize, items: usize, alpha: f64) -> Self {
        let (n, b, c) = (items as f64, gained as f64, lost as f64);
        let padded = n + 2.0;
        let variance = (b + c + 1.0 - (b - c).powi(2) / padded) / padded.powi(2);
        Self {
            estimate: (b - c) / n / (1.0 - alpha),
            standard_error: variance.sqrt() / (1.0 - alpha),
        }
    }

    /// 95 % interval, at most 1.
    pub fn ci95(&self) -> [f64; 2] {
        let half = Z_975 * self.standard_error;
        [self.estimate - half, (self.estimate + half).min(1.0)]
    }
}

/// The true excess that is told from none in 80 % of repetitions at the two-sided 5 % level.
pub fn minimum_detectable_excess(items: usize, calibration: usize, alpha: f64) -> f64 {
    (Z_975 + Z_80) * ExcessRate::independent(alpha, items, calibration, alpha).standard_error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::correction::benjamini_hochberg;
    use crate::stats::counts::wilson_ci95;

    fn close(found: &[f64], expected: &serde_json::Value) {
        let expected: Vec<f64> = serde_json::from_value(expected.clone()).unwrap();
        assert_eq!(found.len(), expected.len());
        for (f, e) in found.iter().zip(&expected) {
            // The golden values' own tolerance.
            assert!((f - e).abs() < 1e-12 + 1e-9 * e.abs(), "{f} {e}");
        }
    }

    #[test]
    fn golden_values() {
        let golden: serde_json::Value = serde_json::from_str(include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/conformal.json"
        )))
        .unwrap();
        let list = |key: &str| -> Vec<f64> { serde_json::from_value(golden[key].clone()).unwrap() };
        let p = conformal_p_values(&list("calibration_scores"), &list("test_scores"));
        close(&p, &golden["p_values"]);
        close(&benjamini_hochberg(&p), &golden["bh"]);
        close(&wilson_ci95(190, 2000), &golden["wilson_190_of_2000"]);
        let excess = ExcessRate::independent(0.095, 2000, 1000, 0.05);
        close(
            &[excess.estimate],
            &serde_json::json!([golden["excess_rate"]["excess"]]),
        );
        close(
            &[excess.standard_error],
            &serde_json::json!([golden["excess_rate"]["se"]]),
        );
    }

    #[test]
    fn nothing_is_certain_of_few_items() {
        let none = ExcessRate::independent(0.0, 20, 1_000, 0.05);
        assert!(none.estimate < 0.0 && none.ci95()[1] > 0.04, "{none:?}");
        let same = ExcessRate::paired(0, 0, 300, 0.05);
        assert_eq!(same.estimate, 0.0);
        assert!(same.ci95()[1] > 0.005 && same.ci95()[1] < 0.01, "{same:?}");
        assert!(ExcessRate::paired(30, 0, 300, 0.05).ci95()[0] > 0.05);
    }
}
