//! Pair classification: is there a threshold that tells pairs that are the same from others?

use super::inputs;
use super::measures::binary_scores;
use super::pairs::PairScores;
use super::suite::PairFiles;
use super::{Found, ItemScores, Job, Scores};
use crate::error::{Error, Result};

/// The best thresholds and the average precision of each similarity, and the best over similarities.
pub(super) fn evaluate(job: &mut Job<'_>, files: &PairFiles) -> Result<Found> {
    let table = inputs::read_table(
        &files.pairs,
        &[
            &["id1", "sentence1_id"],
            &["id2", "sentence2_id"],
            &["label", "labels"],
        ],
    )?;
    let labels = inputs::numbers(&files.pairs, "label", &table[2])?;
    if let Some(other) = labels.iter().find(|&&l| l != 0.0 && l != 1.0) {
        return Err(Error::input(
            &files.pairs,
            format!("a label is {other}, expected 0 or 1"),
        ));
    }
    let labels: Vec<bool> = labels.iter().map(|&l| l == 1.0).collect();
    let vectors = job.vectors("items", &files.items)?;
    let pairs = PairScores::new(job, &vectors, &files.pairs, &table[0], &table[1])?;
    let mut scores = Scores::default();
    let mut best = [None::<f64>; 5];
    for (name, values) in [
        ("similarity", &pairs.cosine),
        ("cosine", &pairs.cosine),
        ("manhattan", &pairs.manhattan),
        ("euclidean", &pairs.euclidean),
        ("dot", &pairs.dot),
    ] {
        let found = binary_scores(values, &labels);
        let of = [
            Some(found.accuracy),
            Some(found.f1),
            Some(found.precision),
            Some(found.recall),
            found.ap,
        ];
        for ((metric, value), best) in METRICS.iter().zip(of).zip(&mut best) {
            scores.push(format!("{name}_{metric}"), value);
            *best = value.map_or(*best, |v| Some(best.map_or(v, |b| b.max(v))));
        }
    }
    for (metric, value) in METRICS.iter().zip(best) {
        scores.push(format!("max_{metric}"), value);
    }
    let mut items = ItemScores::new("pair", PairScores::names(&table[0], &table[1]));
    items.push(
        "label",
        labels
            .iter()
            .map(|&l| Some(f64::from(u8::from(l))))
            .collect(),
    );
    pairs.push_onto(&mut items);
    Ok(Found {
        main: "max_ap".to_owned(),
        scores,
        items,
        run: None,
    })
}

const METRICS: [&str; 5] = ["accuracy", "f1", "precision", "recall", "ap"];
