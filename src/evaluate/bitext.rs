//! Bitext mining: is each sentence's nearest neighbour in the other language its translation?

use super::inputs::{self, Vectors};
use super::suite::PairFiles;
use super::{Found, ItemScores, Job, PairScores, Scores};
use crate::embeddings::Rows;
use crate::engine::Metric;
use crate::error::Result;

/// Each sentence's nearest of the other side, scored as a classification with one class per pair.
pub(super) fn evaluate(job: &mut Job<'_>, files: &PairFiles) -> Result<Found> {
    let mut table = inputs::read_table(
        &files.pairs,
        &[&["id1", "sentence1_id"], &["id2", "sentence2_id"]],
    )?;
    if files.reverse {
        table.swap(0, 1);
    }
    let vectors = job.vectors("items", &files.items)?;
    let rows = |ids: &[String]| vectors.rows_of(&files.pairs, ids.iter().map(String::as_str));
    let (x, y) = (rows(&table[0])?, rows(&table[1])?);
    let both: Vec<usize> = x.iter().chain(&y).copied().collect();
    job.warn_unlabelled(&vectors, &both, "vectors are in no pair");
    let predicted = nearest(job, &vectors, &x, &y)?;
    let shares = f1_shares(&predicted);
    let n = predicted.len() as f64;
    let mut chosen = vec![0usize; predicted.len()];
    predicted.iter().for_each(|&p| chosen[p] += 1);
    let right = |i: usize| predicted[i] == i;
    let accuracy = (0..predicted.len()).filter(|&i| right(i)).count() as f64 / n;
    let precision: f64 = (0..predicted.len())
        .filter(|&i| right(i))
        .map(|i| 1.0 / chosen[i] as f64)
        .sum();
    let mut scores = Scores::default();
    scores.push("precision", Some(precision / n));
    scores.push("recall", Some(accuracy));
    scores.push("f1", Some(shares.iter().sum::<f64>() / n));
    scores.push("accuracy", Some(accuracy));
    let mut items = ItemScores::new("pair", PairScores::names(&table[0], &table[1]));
    items.push(
        "correct",
        (0..predicted.len())
            .map(|i| Some(f64::from(u8::from(right(i)))))
            .collect(),
    );
    items.push("f1", shares.into_iter().map(Some).collect());
    Ok(Found {
        main: "f1".to_owned(),
        scores,
        items,
        run: None,
    })
}

/// What each sentence adds to the weighted F1, times their number: 2/(1 + c) where it is found and c sentences
/// chose its translation, else 0. Their mean is scikit-learn's weighted F1, as every class has one sentence.
fn f1_shares(predicted: &[usize]) -> Vec<f64> {
    let mut chosen = vec![0usize; predicted.len()];
    predicted.iter().for_each(|&p| chosen[p] += 1);
    predicted
        .iter()
        .enumerate()
        .map(|(i, &p)| {
            if p == i {
                2.0 / (1 + chosen[i]) as f64
            } else {
                0.0
            }
        })
        .collect()
}

/// Position in `y` of each x's nearest row by cosine, the first of equals. A vector without a direction has
/// cosine 0 with everything.
fn nearest(job: &Job<'_>, vectors: &Vectors, x: &[usize], y: &[usize]) -> Result<Vec<usize>> {
    let sound = |rows: &[usize]| -> Vec<usize> {
        (0..rows.len())
            .filter(|&i| !vectors.is_zero(rows[i]))
            .collect()
    };
    let (queries, base) = (sound(x), sound(y));
    let mut predicted = vec![0; x.len()];
    if queries.is_empty() || base.is_empty() {
        return Ok(predicted);
    }
    let first_zero = (0..y.len()).find(|&i| vectors.is_zero(y[i]));
    let all = vectors.set.rows();
    let query_values = all.gather(queries.iter().map(|&i| x[i]));
    let base_values = all.gather(base.iter().map(|&i| y[i]));
    let lists = job
        .engine
        .nearest(
            Rows::new(&query_values, all.dim()),
            Rows::new(&base_values, all.dim()),
            1,
            Metric::Cosine,
            None,
        )?
        .lists;
    for (&i, list) in queries.iter().zip(lists) {
        let (score, at) = (list[0].0, base[list[0].1 as usize]);
        predicted[i] = match first_zero {
            Some(zero) if score < 0.0 || (score == 0.0 && zero < at) => zero,
            _ => at,
        };
    }
    Ok(predicted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_average_to_the_weighted_f1() {
        // scikit-learn: f1_score([0, 1, 2, 3], [0, 0, 2, 2], average="weighted") = 1/3.
        let shares = f1_shares(&[0, 0, 2, 2]);
        assert!((shares.iter().sum::<f64>() / 4.0 - 1.0 / 3.0).abs() < 1e-15);
        assert_eq!(f1_shares(&[1, 0]), [0.0, 0.0]);
    }
}
