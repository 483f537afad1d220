//! Semantic textual similarity: do similarities order pairs as people do?

use super::inputs;
use super::measures::{pearson, spearman};

use super::suite::PairFiles;
use super::{Found, ItemScores, Job, PairScores, Scores};
use crate::error::Result;

/// Pearson and Spearman correlation of each similarity with the gold scores.
pub(super) fn evaluate(job: &mut Job<'_>, files: &PairFiles) -> Result<Found> {
    let table = inputs::read_table(
        &files.pairs,
        &[
            &["id1", "sentence1_id"],
            &["id2", "sentence2_id"],
            &["score", "gold"],
        ],
    )?;
    let gold = inputs::numbers(&files.pairs, "score", &table[2])?;
    let vectors = job.vectors("items", &files.items)?;
    let pairs = PairScores::new(job, &vectors, &files.pairs, &table[0], &table[1])?;
    let mut scores = Scores::default();
    // MTEB's plain `pearson` and `spearman` take the model's own similarity, the cosine. It sums that in f32
    // in an order of its own, which splits ties; here equal vectors tie.
    for (name, values) in [
        ("", &pairs.cosine),
        ("cosine_", &pairs.cosine),
        ("manhattan_", &pairs.manhattan),
        ("euclidean_", &pairs.euclidean),
    ] {
        scores.push(format!("{name}pearson"), pearson(values, &gold));
        scores.push(format!("{name}spearman"), spearman(values, &gold));
    }
    let mut items = ItemScores::new("pair", PairScores::names(&table[0], &table[1]));
    items.push("gold", gold.iter().copied().map(Some).collect());
    pairs.push_onto(&mut items);
    Ok(Found {
        main: "cosine_spearman".to_owned(),
        scores,
        items,
        run: None,
    })
}
