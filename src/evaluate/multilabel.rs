//! Multilabel classification by nearest neighbours.

use std::collections::HashMap;

use rayon::prelude::*;

use super::inputs::{LabelledItem, LabelledSplit, Vectors};
use super::measures::label_ranking_precision;
use super::random::Pcg64;
use super::stratified::stratified_cut;
use super::suite::LabelFiles;
use super::{Found, ItemScores, Job, Scores};
use crate::error::Result;
use crate::stats::paired::mean;

const EXPERIMENTS: usize = 10;
const SEED: u32 = 42;
const NEIGHBOURS: usize = 5;
/// Larger test splits are cut to so many rows.
const MOST_TEST_ROWS: usize = 3_000;
/// Between the labels of one item.
const SEPARATOR: char = '|';

/// Means over ten draws of few examples: each test row gets the labels that most of its five nearest examples
/// (Euclidean) have.
pub(super) fn evaluate(job: &mut Job<'_>, files: &LabelFiles) -> Result<Found> {
    let data = LabelledSplit::read(job, files)?;
    let (train, test) = (&data.train, &cut(&data.test));
    // Labels that no test row has cannot be scored.
    let mut names: Vec<&str> = test.iter().flat_map(labels).collect();
    names.sort_unstable();
    names.dedup();
    let matrix = |items: &[LabelledItem]| -> Vec<Vec<bool>> {
        items
            .iter()
            .map(|item| {
                let own: Vec<&str> = labels(item).collect();
                names.iter().map(|name| own.contains(name)).collect()
            })
            .collect()
    };
    let (known, truth) = (matrix(train), matrix(test));
    let predictions: Vec<Vec<Vec<bool>>> = draws(train, files.samples_per_label)
        .iter()
        .map(|draw| predict(&data.vectors, train, draw, &known, test))
        .collect();
    let of = |value: &dyn Fn(&[Vec<bool>]) -> f64| {
        let values: Vec<f64> = predictions.iter().map(|p| value(p)).collect();
        Some(mean(&values))
    };
    let n = truth.len() as f64;
    let mut scores = Scores::default();
    scores.push(
        "accuracy",
        of(&|p| truth.iter().zip(p).filter(|(t, p)| t == p).count() as f64 / n),
    );
    scores.push("lrap", of(&|p| label_ranking_precision(&truth, p)));
    scores.push("f1", of(&|p| macro_f1(&truth, p)));
    scores.push(
        "hamming",
        of(&|p| truth.iter().zip(p).map(|(t, p)| jaccard(t, p)).sum::<f64>() / n),
    );
    let mut items = ItemScores::new("id", test.iter().map(|i| i.id.as_str()).collect());
    let share = |i: usize| {
        let right = predictions.iter().filter(|p| p[i] == truth[i]).count();
        Some(right as f64 / EXPERIMENTS as f64)
    };
    items.push("correct", (0..test.len()).map(share).collect());
    Ok(Found {
        main: "accuracy".to_owned(),
        scores,
        items,
        run: None,
    })
}

/// At most 3,000 of the rows, drawn as MTEB draws them.
fn cut(test: &[LabelledItem]) -> Vec<LabelledItem> {
    if test.len() <= MOST_TEST_ROWS {
        return test.to_vec();
    }
    let mut names: Vec<&str> = test.iter().flat_map(labels).collect();
    names.sort_unstable();
    names.dedup();
    let numbers: Vec<Vec<usize>> = test
        .iter()
        .map(|item| {
            let own = labels(item).filter_map(|label| names.binary_search(&label).ok());
            let mut own: Vec<usize> = own.collect();
            own.sort_unstable();
            own.dedup();
            own
        })
        .collect();
    let kept = stratified_cut(&numbers, MOST_TEST_ROWS, SEED);
    kept.into_iter().map(|row| test[row].clone()).collect()
}

fn labels(item: &LabelledItem) -> impl Iterator<Item = &str> {
    item.label
        .split(SEPARATOR)
        .filter(|label| !label.is_empty())
}

/// The examples of each experiment: rows in a new random order, each taken while any of its labels has too few.
fn draws(train: &[LabelledItem], per_label: usize) -> Vec<Vec<usize>> {
    let mut random = Pcg64::numpy(SEED);
    (0..EXPERIMENTS)
        .map(|_| {
            let mut order: Vec<usize> = (0..train.len()).collect();
            random.shuffle(&mut order);
            let mut counts: HashMap<&str, usize> = HashMap::new();
            let mut drawn = Vec::new();
            for i in order {
                let count = |label| counts.get(label).copied().unwrap_or(0);
                if labels(&train[i]).any(|label| count(label) < per_label) {
                    drawn.push(i);
                    labels(&train[i]).for_each(|label| *counts.entry(label).or_default() += 1);
                }
            }
            drawn
        })
        .collect()
}

fn predict(
    vectors: &Vectors,
    train: &[LabelledItem],
    draw: &[usize],
    known: &[Vec<bool>],
    test: &[LabelledItem],
) -> Vec<Vec<bool>> {
    let examples: Vec<_> = draw.iter().map(|&i| vectors.row(train[i].row)).collect();
    let k = NEIGHBOURS.min(draw.len());
    test.par_iter()
        .map(|item| {
            let row = vectors.row(item.row);
            let mut order: Vec<(f64, usize)> = examples
                .iter()
                .zip(draw)
                .map(|(example, &i)| (sq_distance(example, &row), i))
                .collect();
            // Stable: of equal distances, the example that was drawn first.
            order.sort_by(|a, b| a.0.total_cmp(&b.0));
            let labels = known.first().map_or(0, Vec::len);
            (0..labels)
                .map(|label| {
                    let votes = order[..k].iter().filter(|(_, i)| known[*i][label]).count();
                    2 * votes > k
                })
                .collect()
        })
        .collect()
}

fn sq_distance(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2))
        .sum()
}

fn macro_f1(truth: &[Vec<bool>], predicted: &[Vec<bool>]) -> f64 {
    let labels = truth.first().map_or(0, Vec::len);
    let f1 = |label: usize| {
        let count = |of: &dyn Fn(bool, bool) -> bool| {
            let rows = truth.iter().zip(predicted);
            rows.filter(|(t, p)| of(t[label], p[label])).count() as f64
        };
        let right = count(&|t, p| t && p);
        let named = count(&|t, _| t) + count(&|_, p| p);
        if named > 0.0 {
            2.0 * right / named
        } else {
            0.0
        }
    };
    (0..labels).map(f1).sum::<f64>() / labels.max(1) as f64
}

/// Labels in both over labels in either; 1 where neither has any.
fn jaccard(truth: &[bool], predicted: &[bool]) -> f64 {
    let both = truth.iter().zip(predicted).filter(|(t, p)| **t && **p);
    let either = truth.iter().zip(predicted).filter(|(t, p)| **t || **p);
    match either.count() {
        0 => 1.0,
        either => both.count() as f64 / either as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_labels() {
        assert_eq!(jaccard(&[true, false], &[true, true]), 0.5);
        assert_eq!(jaccard(&[false], &[false]), 1.0);
        let truth = [vec![true, false], vec![true, true]];
        let predicted = [vec![true, true], vec![false, false]];
        // First label: 1 right of 2 + 1 named; second: 0 right.
        assert!((macro_f1(&truth, &predicted) - (2.0 / 3.0 + 0.0) / 2.0).abs() < 1e-15);
    }
}
