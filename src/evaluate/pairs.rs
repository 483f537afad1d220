//! Similarities of named pairs.

use super::inputs::Vectors;
use super::{ItemScores, Job};
use crate::engine::score;
use crate::error::Result;

/// Per pair, larger is more similar.
pub(super) struct PairScores {
    pub(super) cosine: Vec<f64>,
    pub(super) manhattan: Vec<f64>,
    pub(super) euclidean: Vec<f64>,
    pub(super) dot: Vec<f64>,
}

impl PairScores {
    /// Of vectors by the ids that a table of labels names.
    pub(super) fn new(
        job: &mut Job<'_>,
        vectors: &Vectors,
        labels: &str,
        first: &[String],
        second: &[String],
    ) -> Result<Self> {
        let rows = |ids: &[String]| vectors.rows_of(labels, ids.iter().map(String::as_str));
        let (x, y) = (rows(first)?, rows(second)?);
        let both: Vec<usize> = x.iter().chain(&y).copied().collect();
        job.warn_unlabelled(vectors, &both, "vectors are in no pair");
        let of = |measure: fn(&[f32], &[f32]) -> f64| {
            let pairs = x.iter().zip(&y);
            pairs
                .map(|(&x, &y)| measure(&vectors.row(x), &vectors.row(y)))
                .collect()
        };
        Ok(Self {
            cosine: of(cosine),
            manhattan: of(|x, y| -differences(x, y).map(f64::abs).sum::<f64>()),
            euclidean: of(|x, y| -differences(x, y).map(|d| d * d).sum::<f64>().sqrt()),
            dot: of(score::dot),
        })
    }

    /// `first|second` per pair.
    pub(super) fn names(first: &[String], second: &[String]) -> Vec<String> {
        let pairs = first.iter().zip(second);
        pairs.map(|(a, b)| format!("{a}|{b}")).collect()
    }

    pub(super) fn push_onto(&self, items: &mut ItemScores) {
        for (name, values) in [
            ("cosine", &self.cosine),
            ("manhattan", &self.manhattan),
            ("euclidean", &self.euclidean),
            ("dot", &self.dot),
        ] {
            items.push(name, values.iter().copied().map(Some).collect());
        }
    }
}

fn differences(x: &[f32], y: &[f32]) -> impl Iterator<Item = f64> {
    x.iter().zip(y).map(|(a, b)| f64::from(*a) - f64::from(*b))
}

/// 1 − ½‖x/‖x‖ − y/‖y‖‖², scikit-learn's paired cosine: exactly 1 for equal vectors, where a product of unit
/// vectors is 1 ± ε and splits ties. A zero vector stays zero: 0.5 against any other, 1 against itself.
pub fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let unit = |v: &[f32]| {
        let norm = score::norm(v);
        if norm == 0.0 { 1.0 } else { norm }
    };
    let (x_norm, y_norm) = (unit(x), unit(y));
    let squares: f64 = x
        .iter()
        .zip(y)
        .map(|(a, b)| (f64::from(*a) / x_norm - f64::from(*b) / y_norm).powi(2))
        .sum();
    1.0 - 0.5 * squares
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::measures::golden;

    #[test]
    fn golden_cosines() {
        let golden = golden();
        let case = &golden["paired_cosine_zero_vectors"];
        let rows =
            |key: &str| -> Vec<Vec<f32>> { serde_json::from_value(case[key].clone()).unwrap() };
        let expected: Vec<f64> =
            serde_json::from_value(case["sklearn_1_minus_paired_cosine_distance"].clone()).unwrap();
        for ((x, y), expected) in rows("a").iter().zip(&rows("b")).zip(expected) {
            assert_eq!(cosine(x, y), expected);
        }
    }

    #[test]
    fn equal_vectors_tie_exactly() {
        let x: Vec<f32> = (1..50).map(|i| 1.0 / i as f32).collect();
        assert_eq!(cosine(&x, &x), 1.0);
    }
}
