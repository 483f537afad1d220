//! Predicted classes against true ones.

/// Scores of one classification, each in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassScores {
    /// Share of right predictions.
    pub accuracy: f64,
    /// Mean F1 over classes.
    pub f1: f64,
    /// Mean F1 over items: each class counts by its true items.
    pub f1_weighted: f64,
    /// Mean precision over classes.
    pub precision: f64,
    /// Mean precision over items.
    pub precision_weighted: f64,
    /// Mean recall over classes.
    pub recall: f64,
    /// Mean recall over items.
    pub recall_weighted: f64,
}

/// Scores of predicted classes, numbered below `classes`. Classes that neither side has do not count; a class
/// that is never predicted has precision 0.
///
/// # Source
/// scikit-learn's `precision_recall_fscore_support` with `zero_division=0`.
///
/// # Panics
/// If the lengths differ or are 0, or a class is not below `classes`.
pub fn class_scores(truth: &[usize], predicted: &[usize], classes: usize) -> ClassScores {
    assert!(truth.len() == predicted.len() && !truth.is_empty());
    let (mut right, mut of_truth, mut of_predicted) =
        (vec![0.0; classes], vec![0.0; classes], vec![0.0; classes]);
    for (&t, &p) in truth.iter().zip(predicted) {
        of_truth[t] += 1.0;
        of_predicted[p] += 1.0;
        right[t] += f64::from(u8::from(t == p));
    }
    let n = truth.len() as f64;
    let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    let present: Vec<usize> = (0..classes)
        .filter(|&c| of_truth[c] + of_predicted[c] > 0.0)
        .collect();
    let precision = |c: usize| ratio(right[c], of_predicted[c]);
    let recall = |c: usize| ratio(right[c], of_truth[c]);
    let f1 = |c: usize| ratio(2.0 * right[c], of_truth[c] + of_predicted[c]);
    let both = |of: &dyn Fn(usize) -> f64| {
        let sum: f64 = present.iter().map(|&c| of(c)).sum();
        let weighted: f64 = present.iter().map(|&c| of(c) * of_truth[c]).sum();
        (sum / present.len() as f64, weighted / n)
    };
    let ((precision, precision_weighted), (recall, recall_weighted)) =
        (both(&precision), both(&recall));
    let (f1, f1_weighted) = both(&f1);
    ClassScores {
        accuracy: right.iter().sum::<f64>() / n,
        f1,
        f1_weighted,
        precision,
        precision_weighted,
        recall,
        recall_weighted,
    }
}

/// Mean over items of the label ranking average precision of 0/1 predictions: of each true label, the share of
/// true ones among the labels that rank no lower (all labels, where it was not predicted). 1 where an item has
/// every label or none.
///
/// # Source
/// scikit-learn's `label_ranking_average_precision_score`.
pub fn label_ranking_precision(truth: &[Vec<bool>], predicted: &[Vec<bool>]) -> f64 {
    let of_item = |(truth, predicted): (&Vec<bool>, &Vec<bool>)| {
        let total = truth.iter().filter(|t| **t).count();
        if total == 0 || total == truth.len() {
            return 1.0;
        }
        let chosen = predicted.iter().filter(|p| **p).count();
        let hits = truth.iter().zip(predicted).filter(|(t, p)| **t && **p);
        let hits = hits.count();
        let missed = total - hits;
        let found = if hits > 0 {
            hits as f64 * (hits as f64 / chosen as f64)
        } else {
            0.0
        };
        (found + missed as f64 * (total as f64 / truth.len() as f64)) / total as f64
    };
    truth.iter().zip(predicted).map(of_item).sum::<f64>() / truth.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of scikit-learn 1.9.1.
    #[test]
    fn golden_classes() {
        let found = class_scores(&[0, 1, 2, 2, 4], &[0, 2, 2, 1, 3], 6);
        let expected = ClassScores {
            accuracy: 0.4,
            f1: 0.3,
            f1_weighted: 0.4,
            precision: 0.3,
            precision_weighted: 0.4,
            recall: 0.3,
            recall_weighted: 0.4,
        };
        assert_eq!(found, expected);
    }

    /// Answers of scikit-learn 1.9.1: both labels found; one of two found beside a wrong one; none.
    #[test]
    fn golden_label_ranking() {
        let rows = |rows: &[[u8; 3]]| -> Vec<Vec<bool>> {
            rows.iter()
                .map(|row| row.iter().map(|&v| v == 1).collect())
                .collect()
        };
        for (truth, predicted, expected) in [
            ([1, 1, 0], [1, 1, 0], 1.0),
            ([1, 1, 0], [1, 0, 1], (0.5 + 2.0 / 3.0) / 2.0),
            ([0, 1, 0], [0, 0, 0], 1.0 / 3.0),
            ([0, 0, 0], [1, 0, 0], 1.0),
        ] {
            let found = label_ranking_precision(&rows(&[truth]), &rows(&[predicted]));
            assert!((found - expected).abs() < 1e-15, "{truth:?} {predicted:?}");
        }
    }
}
