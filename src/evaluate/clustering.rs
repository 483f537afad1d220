//! Clustering: do k-means clusters find the labels again?

use rayon::prelude::*;

use super::inputs::{self, LabelledItem, LabelledSplit};
use super::measures::{PartitionScores, partition_scores};
use super::minibatch::MiniBatchKMeans;
use super::random::Mt19937;
use super::suite::{ClusteringFiles, LabelFiles};
use super::{Found, ItemScores, Job, Scores};
use crate::error::{Error, Result};
use crate::stats::paired::mean;

const SEED: u32 = 42;
/// Runs per level, and items drawn for each, with replacement.
const RUNS: usize = 10;
const DRAWN: usize = 16_384;
/// Rows per step of k-means.
const BATCH: usize = 512;
const LEGACY_BATCH: usize = 500;

/// Agreement of labels with clusters: of ten k-means runs on draws with replacement, of one run on all items
/// (`legacy`), or of clusters that a file names (`assignment`).
///
/// The draws are MTEB's; k-means has a random stream of its own, so scores agree with MTEB's in distribution.
pub(super) fn evaluate(
    job: &mut Job<'_>,
    labels: &LabelFiles,
    files: &ClusteringFiles,
) -> Result<Found> {
    let data = LabelledSplit::read(job, labels)?;
    let mut random = Mt19937::python(SEED);
    let items: Vec<&LabelledItem> = match files.max_documents {
        Some(most) if most < data.test.len() => random
            .sample(data.test.len(), most)
            .into_iter()
            .map(|i| &data.test[i])
            .collect(),
        _ => data.test.iter().collect(),
    };
    let mut found = Vec::new();
    if let Some(path) = &files.assignment {
        let clusters = assigned(path, &items)?;
        let numbers = numbered(items.iter().map(|i| i.label.as_str()));
        found.push((
            "assignment".to_owned(),
            partition_scores(&numbers, &clusters),
        ));
    } else {
        let levels = if files.levels {
            items.iter().map(|i| i.label.split('|').count()).max()
        } else {
            Some(1)
        };
        for level in 0..levels.unwrap_or(1) {
            let (rows, names): (Vec<usize>, Vec<&str>) = items
                .iter()
                .filter_map(|item| {
                    let name = if files.levels {
                        item.label.split('|').nth(level)
                    } else {
                        Some(item.label.as_str())
                    };
                    name.filter(|n| !n.is_empty()).map(|name| (item.row, name))
                })
                .unzip();
            if rows.is_empty() {
                continue;
            }
            let truth = numbered(names.iter().copied());
            let clusters = truth.iter().max().map_or(1, |m| m + 1);
            let points = data.vectors.matrix(rows.iter().copied());
            let draws: Vec<Vec<usize>> = if files.legacy {
                vec![(0..rows.len()).collect()]
            } else {
                (0..RUNS)
                    .map(|_| random.choices(rows.len(), DRAWN))
                    .collect()
            };
            let batch = if files.legacy { LEGACY_BATCH } else { BATCH };
            let of_level: Vec<PartitionScores> = draws
                .par_iter()
                .map(|draw| {
                    let kmeans = MiniBatchKMeans::fit(&points, draw, clusters, batch, SEED);
                    let of_point = kmeans.predict(&points);
                    let labels: Vec<usize> = draw.iter().map(|&i| truth[i]).collect();
                    let found: Vec<usize> = draw.iter().map(|&i| of_point[i]).collect();
                    partition_scores(&labels, &found)
                })
                .collect();
            found.extend(
                (0..)
                    .zip(of_level)
                    .map(|(run, scores)| (format!("level {level} run {run}"), scores)),
            );
        }
    }
    let mut scores = Scores::default();
    let mut table = ItemScores::new("run", found.iter().map(|(name, _)| name.as_str()).collect());
    for (name, of) in MEASURES {
        let values: Vec<f64> = found.iter().map(|(_, scores)| of(scores)).collect();
        let centre = mean(&values);
        let squares: Vec<f64> = values.iter().map(|v| (v - centre).powi(2)).collect();
        scores.push(name, Some(centre));
        scores.push(format!("{name}_std"), Some(mean(&squares).sqrt()));
        table.push(name, values.into_iter().map(Some).collect());
    }
    Ok(Found {
        main: "v_measure".to_owned(),
        scores,
        items: table,
        run: None,
    })
}

type Measure = (&'static str, fn(&PartitionScores) -> f64);

const MEASURES: [Measure; 5] = [
    ("v_measure", |s| s.v_measure),
    ("ami", |s| s.ami),
    ("homogeneity", |s| s.homogeneity),
    ("completeness", |s| s.completeness),
    ("ari", |s| s.ari),
];

/// Texts as numbers from 0, in order of text.
fn numbered<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Vec<usize> {
    let mut distinct: Vec<&str> = names.clone().collect();
    distinct.sort_unstable();
    distinct.dedup();
    names
        .map(|name| distinct.partition_point(|d| *d < name))
        .collect()
}

/// The cluster of each item, as a table of id and cluster says.
fn assigned(path: &str, items: &[&LabelledItem]) -> Result<Vec<usize>> {
    let table = inputs::read_table(path, &[&["id", "_id", "doc_id"], &["cluster", "label"]])?;
    let clusters: std::collections::HashMap<&str, usize> = table[0]
        .iter()
        .map(String::as_str)
        .zip(numbered(table[1].iter().map(String::as_str)))
        .collect();
    items
        .iter()
        .map(|item| {
            clusters.get(item.id.as_str()).copied().ok_or_else(|| {
                Error::input(
                    path,
                    format!("no cluster for id \"{}\", expected one", item.id),
                )
            })
        })
        .collect()
}
