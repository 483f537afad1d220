//! Classification: can a linear model, or the nearest neighbours, tell the labels from few examples?

use rayon::prelude::*;

use super::inputs::{LabelledSplit, Vectors};
use super::logistic::Logistic;
use super::measures::{average_precision, class_scores};
use super::random::Mt19937;
use super::suite::LabelFiles;
use super::{Found, ItemScores, Job, Scores};
use crate::embeddings::Rows;
use crate::engine::Metric;
use crate::error::{Error, Result};
use crate::stats::paired::mean;

/// Experiments, and their seed, in every MTEB task.
const EXPERIMENTS: usize = 10;
const SEED: u32 = 42;

/// Means over ten logistic regressions on a few examples of each label, drawn as MTEB draws them, and beside
/// them the nearest neighbours among all training rows.
pub(super) fn evaluate(job: &mut Job<'_>, files: &LabelFiles) -> Result<Found> {
    let data = LabelledSplit::read(job, files)?;
    let (train, test) = (&data.train, &data.test);
    let classes = data.classes.len();
    if classes < 2 {
        return Err(Error::input(
            files.labels(),
            format!("{classes} label, expected at least 2 to tell apart"),
        ));
    }
    let train_labels = data.numbers(train);
    let truth = data.numbers(test);
    let test_rows = data.vectors.matrix(test.iter().map(|i| i.row));
    let draws = draws(&train_labels, classes, files.samples_per_label);
    let predictions: Vec<Vec<usize>> = draws
        .into_par_iter()
        .map(|draw| {
            let x = data.vectors.matrix(draw.iter().map(|&i| train[i].row));
            let labels: Vec<usize> = draw.iter().map(|&i| train_labels[i]).collect();
            Logistic::fit(&x, &labels, classes).predict(&test_rows)
        })
        .collect();
    let found: Vec<_> = predictions
        .iter()
        .map(|predicted| class_scores(&truth, predicted, classes))
        .collect();
    let of = |value: &dyn Fn(usize) -> f64| {
        let values: Vec<f64> = (0..EXPERIMENTS).map(value).collect();
        Some(mean(&values))
    };
    // MTEB takes the predicted labels for scores here.
    let positive: Vec<bool> = truth.iter().map(|&t| t == 1).collect();
    let ap = (classes == 2).then(|| {
        of(&|e| {
            let scores: Vec<f64> = predictions[e].iter().map(|&p| p as f64).collect();
            average_precision(&scores, &positive).unwrap_or(0.0)
        })
    });
    let mut scores = Scores::default();
    for (name, value) in [
        ("accuracy", of(&|e| found[e].accuracy)),
        ("f1", of(&|e| found[e].f1)),
        ("f1_weighted", of(&|e| found[e].f1_weighted)),
        ("precision", of(&|e| found[e].precision)),
        ("precision_weighted", of(&|e| found[e].precision_weighted)),
        ("recall", of(&|e| found[e].recall)),
        ("recall_weighted", of(&|e| found[e].recall_weighted)),
        ("ap", ap.flatten()),
        ("ap_weighted", ap.flatten()),
    ] {
        scores.push(name, value);
    }
    let mut items = ItemScores::new("id", test.iter().map(|i| i.id.as_str()).collect());
    let share = |i: usize| {
        let right = predictions.iter().filter(|p| p[i] == truth[i]).count();
        Some(right as f64 / EXPERIMENTS as f64)
    };
    items.push("correct", (0..test.len()).map(share).collect());
    let lists = neighbours(job, &data.vectors, &data.rows(train), &data.rows(test))?;
    for k in [1, 5] {
        let predicted: Vec<usize> = lists
            .iter()
            .map(|list| majority(list.iter().take(k).map(|&i| train_labels[i]), classes))
            .collect();
        let found = class_scores(&truth, &predicted, classes);
        scores.push(format!("knn{k}_cosine_accuracy"), Some(found.accuracy));
        scores.push(format!("knn{k}_cosine_f1"), Some(found.f1));
        let right = truth.iter().zip(&predicted);
        items.push(
            format!("knn{k}_correct"),
            right
                .map(|(t, p)| Some(f64::from(u8::from(t == p))))
                .collect(),
        );
    }
    Ok(Found {
        main: "accuracy".to_owned(),
        scores,
        items,
        run: None,
    })
}

/// The training rows of each experiment: the first few of each label in an order that every experiment
/// shuffles further, always with a new generator of the same seed.
fn draws(labels: &[usize], classes: usize, per_label: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    (0..EXPERIMENTS)
        .map(|_| {
            Mt19937::numpy(SEED).shuffle(&mut order);
            let mut taken = vec![0; classes];
            let few = |&i: &usize| {
                taken[labels[i]] += 1;
                taken[labels[i]] <= per_label
            };
            order.iter().copied().filter(few).collect()
        })
        .collect()
}

/// The five nearest training rows by cosine, as positions in `train`, nearest first. Rows without a direction
/// are nobody's neighbours; for a test row without one, all are equally far and the first ones count.
fn neighbours(
    job: &Job<'_>,
    vectors: &Vectors,
    train: &[usize],
    test: &[usize],
) -> Result<Vec<Vec<usize>>> {
    const K: usize = 5;
    let sound = |rows: &[usize]| -> Vec<usize> {
        (0..rows.len())
            .filter(|&i| !vectors.is_zero(rows[i]))
            .collect()
    };
    let (base, queries) = (sound(train), sound(test));
    let mut lists = vec![(0..train.len().min(K)).collect::<Vec<_>>(); test.len()];
    if base.is_empty() || queries.is_empty() {
        return Ok(lists);
    }
    let all = vectors.set.rows();
    let base_values = all.gather(base.iter().map(|&i| train[i]));
    let query_values = all.gather(queries.iter().map(|&i| test[i]));
    let found = job.engine.nearest(
        Rows::new(&query_values, all.dim()),
        Rows::new(&base_values, all.dim()),
        K,
        Metric::Cosine,
        None,
    )?;
    for (&i, list) in queries.iter().zip(found.lists) {
        lists[i] = list.iter().map(|&(_, row)| base[row as usize]).collect();
    }
    Ok(lists)
}

/// The most frequent class, the first of equals.
fn majority(labels: impl Iterator<Item = usize>, classes: usize) -> usize {
    let mut votes = vec![0usize; classes];
    labels.for_each(|label| votes[label] += 1);
    (1..classes).fold(0, |best, c| if votes[c] > votes[best] { c } else { best })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_take_the_first_of_each_label_and_go_on_shuffling() {
        let labels: Vec<usize> = (0..40).map(|i| i % 3).collect();
        let draws = draws(&labels, 3, 4);
        assert_eq!(draws.len(), EXPERIMENTS);
        for draw in &draws {
            for class in 0..3 {
                let of_class = draw.iter().filter(|&&i| labels[i] == class).count();
                assert_eq!(of_class, 4);
            }
        }
        assert_ne!(draws[0], draws[1]);
    }

    #[test]
    fn votes_that_tie_go_to_the_first_class() {
        assert_eq!(majority([2, 1, 1, 2, 0].into_iter(), 3), 1);
        assert_eq!(majority([2].into_iter(), 3), 2);
    }
}
