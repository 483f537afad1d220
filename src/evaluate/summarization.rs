//! Summarization: is a machine's summary as good as it is close to what people wrote?

use super::inputs::{self, Vectors};
use super::measures::{pearson, spearman};
use super::pairs::cosine;
use super::suite::PairFiles;
use super::{Found, ItemScores, Job, Scores};
use crate::engine::score;
use crate::error::{Error, Result};
use crate::stats::paired::mean;

/// One text's summaries.
#[derive(Default)]
struct Text {
    human: Vec<usize>,
    machine: Vec<usize>,
    relevance: Vec<f64>,
}

/// Per text, correlation of each machine summary's largest similarity to a human one with its relevance; mean
/// over the texts in which all of them vary.
pub(super) fn evaluate(job: &mut Job<'_>, files: &PairFiles) -> Result<Found> {
    let path = &files.pairs;
    let table = inputs::read_table(
        path,
        &[
            &["text-id", "text_id"],
            &["id"],
            &["kind"],
            &["relevance", "score"],
        ],
    )?;
    let vectors = job.vectors("items", &files.items)?;
    let rows = vectors.rows_of(path, table[1].iter().map(String::as_str))?;
    job.warn_unlabelled(&vectors, &rows, "vectors are in no summary");
    let mut texts: Vec<(&str, Text)> = Vec::new();
    for (i, name) in table[0].iter().enumerate() {
        let at = texts.iter().position(|(known, _)| known == name);
        let at = at.unwrap_or_else(|| {
            texts.push((name, Text::default()));
            texts.len() - 1
        });
        let text = &mut texts[at].1;
        match table[2][i].as_str() {
            "human" => text.human.push(rows[i]),
            "machine" => {
                text.machine.push(rows[i]);
                let number = inputs::numbers(path, "relevance", &table[3][i..=i])?;
                text.relevance.extend(number);
            }
            other => {
                return Err(Error::input(
                    path,
                    format!("kind is \"{other}\", expected human or machine"),
                ));
            }
        }
    }
    let mut kept: Vec<(&str, [f64; 4])> = Vec::new();
    for (name, text) in &texts {
        if text.human.is_empty() {
            return Err(Error::input(
                path,
                format!("text \"{name}\" has no human summary, expected at least one"),
            ));
        }
        let by_cosine = closest(&vectors, text, cosine);
        let by_dot = closest(&vectors, text, score::dot);
        let gold = &text.relevance;
        if let (Some(a), Some(b), Some(c), Some(d)) = (
            pearson(gold, &by_cosine),
            spearman(gold, &by_cosine),
            pearson(gold, &by_dot),
            spearman(gold, &by_dot),
        ) {
            kept.push((name, [a, b, c, d]));
        }
    }
    if kept.len() < texts.len() {
        job.warn(format!(
            "{} texts whose scores do not vary are left out",
            texts.len() - kept.len()
        ));
    }
    if kept.is_empty() {
        return Err(Error::input(
            path,
            "no text in which scores vary, expected one",
        ));
    }
    let mut scores = Scores::default();
    let mut items = ItemScores::new("text_id", kept.iter().map(|(name, _)| *name).collect());
    for (name, at) in [
        ("pearson", 0),
        ("spearman", 1),
        ("cosine_pearson", 0),
        ("cosine_spearman", 1),
        ("dot_pearson", 2),
        ("dot_spearman", 3),
    ] {
        let values: Vec<f64> = kept.iter().map(|(_, of)| of[at]).collect();
        scores.push(name, Some(mean(&values)));
        items.push(name, values.into_iter().map(Some).collect());
    }
    Ok(Found {
        main: "cosine_spearman".to_owned(),
        scores,
        items,
        run: None,
    })
}

/// Of each machine summary, the largest similarity to a human one.
fn closest(vectors: &Vectors, text: &Text, similarity: fn(&[f32], &[f32]) -> f64) -> Vec<f64> {
    let of = |&machine: &usize| {
        let x = vectors.row(machine);
        let human = text.human.iter();
        human
            .map(|&human| similarity(&x, &vectors.row(human)))
            .fold(f64::NEG_INFINITY, f64::max)
    };
    text.machine.iter().map(of).collect()
}
