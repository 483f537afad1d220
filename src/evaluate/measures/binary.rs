//! Scores against yes-or-no labels.

/// What the best threshold on a score achieves, and the area under precision and recall.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BinaryScores {
    /// Largest share of right decisions.
    pub accuracy: f64,
    /// Largest F1.
    pub f1: f64,
    /// Precision where F1 is largest.
    pub precision: f64,
    /// Recall where F1 is largest.
    pub recall: f64,
    /// [`average_precision`]; `None` where no label is positive.
    pub ap: Option<f64>,
}

/// Scores in which larger means "the same", each in [0, 1].
///
/// Thresholds lie between two different scores and never below the smallest, as MTEB has it: calling every
/// pair the same is no decision. Of equal F1, the one with the higher threshold counts. Where all scores are
/// equal there is no threshold and everything but `ap` is 0.
///
/// # Panics
/// If the lengths differ.
pub fn binary_scores(scores: &[f64], labels: &[bool]) -> BinaryScores {
    assert_eq!(scores.len(), labels.len());
    let order = descending(scores);
    let total = labels.iter().filter(|l| **l).count();
    let mut best = BinaryScores {
        accuracy: 0.0,
        f1: 0.0,
        precision: 0.0,
        recall: 0.0,
        ap: average_precision(scores, labels),
    };
    let (mut taken, mut right) = (0usize, 0usize);
    for pair in order.windows(2) {
        taken += 1;
        right += usize::from(labels[pair[0]]);
        if scores[pair[0]] == scores[pair[1]] {
            continue;
        }
        let wrong = taken - right;
        let rejected_rightly = labels.len() - total - wrong;
        best.accuracy = best
            .accuracy
            .max((right + rejected_rightly) as f64 / labels.len() as f64);
        if right > 0 {
            let precision = right as f64 / taken as f64;
            let recall = right as f64 / total as f64;
            let f1 = 2.0 * precision * recall / (precision + recall);
            if f1 > best.f1 {
                best = BinaryScores {
                    f1,
                    precision,
                    recall,
                    ..best
                };
            }
        }
    }
    best
}

/// Σ (Rᵢ − Rᵢ₋₁)·Pᵢ over the distinct scores, from the largest, in [0, 1]; equal scores form one step.
/// `None` where no label is positive.
///
/// # Source
/// scikit-learn's `average_precision_score`.
///
/// # Panics
/// If the lengths differ.
pub fn average_precision(scores: &[f64], labels: &[bool]) -> Option<f64> {
    assert_eq!(scores.len(), labels.len());
    let total = labels.iter().filter(|l| **l).count();
    if total == 0 {
        return None;
    }
    let (mut taken, mut right, mut area) = (0usize, 0usize, 0.0);
    for group in descending(scores).chunk_by(|&a, &b| scores[a] == scores[b]) {
        let found = group.iter().filter(|&&i| labels[i]).count();
        taken += group.len();
        right += found;
        area += found as f64 / total as f64 * (right as f64 / taken as f64);
    }
    Some(area)
}

fn descending(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::measures::golden;

    /// Hand-made traps with the answers of mteb 2.26.24 and scikit-learn 1.9.1.
    #[test]
    fn golden_cases() {
        let golden = golden();
        let cases = golden["pair_classification"].as_object().unwrap();
        assert_eq!(cases.len(), 5);
        for (name, case) in cases {
            let scores: Vec<f64> = serde_json::from_value(case["scores"].clone()).unwrap();
            let labels: Vec<u8> = serde_json::from_value(case["labels"].clone()).unwrap();
            let labels: Vec<bool> = labels.iter().map(|&l| l == 1).collect();
            for (key, sign) in [
                ("expected_high_is_similar", 1.0),
                ("expected_low_is_similar", -1.0),
            ] {
                let signed: Vec<f64> = scores.iter().map(|s| sign * s).collect();
                let found = binary_scores(&signed, &labels);
                for (metric, found) in [
                    ("accuracy", found.accuracy),
                    ("f1", found.f1),
                    ("precision", found.precision),
                    ("recall", found.recall),
                    ("ap", found.ap.unwrap()),
                ] {
                    let expected = case[key][metric].as_f64().unwrap();
                    assert!(
                        (found - expected).abs() < 1e-12,
                        "{name} {key} {metric}: {found}, expected {expected}"
                    );
                }
            }
        }
        assert_eq!(average_precision(&[1.0], &[false]), None);
    }
}
