//! Groups of far rows, and what else lies where they do.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Judged;
use crate::embeddings::Rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::kmeans::kmeans;
use crate::stats::distribution::quantile_sorted;

/// Far rows per cluster before clusters are joined, and the most clusters.
const CLUSTER_ROWS: usize = 15;
const MOST_CLUSTERS: usize = 64;
/// A deviation from the mean shorter than this is rounding.
const SHORTEST: f64 = 1e-6;

/// A group of far rows of both sides.
pub(super) struct Group {
    /// Its far rows on either side, held-out reference and current, as places among the rows judged.
    pub(super) far: [Vec<usize>; 2],
    /// All rows nearer to its centre than to a topic, with their cosine to it.
    pub(super) members: [Vec<(usize, f64)>; 2],
}

/// Directions from a mean, of unit length; `None` where there is none.
struct Deviations {
    mean: Vec<f64>,
}

impl Deviations {
    fn of(&self, row: &[f32]) -> Option<Vec<f32>> {
        let from: Vec<f64> = row
            .iter()
            .zip(&self.mean)
            .map(|(&v, m)| f64::from(v) - m)
            .collect();
        let length = from.iter().map(|v| v * v).sum::<f64>().sqrt();
        (length > SHORTEST).then(|| from.iter().map(|v| (v / length) as f32).collect())
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

/// The nearest of `centres`, ties to the first.
fn nearest(row: &[f32], centres: &[Vec<f32>]) -> Option<(usize, f64)> {
    let cosines = centres.iter().map(|centre| dot(row, centre)).enumerate();
    cosines.fold(None, |best, (at, cosine)| match best {
        Some((_, known)) if known >= cosine => best,
        _ => Some((at, cosine)),
    })
}

/// Groups the far rows of both sides alike. `base` and `topics` are unit rows.
pub(super) fn groups(
    engine: &Engine,
    base: Rows<'_>,
    topics: Rows<'_>,
    sides: [&Judged<'_, '_>; 2],
    seed: u64,
) -> Result<Vec<Group>> {
    let dim = base.dim();
    let mut mean = vec![0.0; dim];
    for row in base.iter() {
        mean.iter_mut()
            .zip(&*row)
            .for_each(|(m, &v)| *m += f64::from(v));
    }
    mean.iter_mut().for_each(|m| *m /= base.len() as f64);
    let deviations = Deviations { mean };

    // (side, place, direction) of every far row, in an order that does not know the files'.
    let mut far: Vec<(u64, &str, usize, usize, Vec<f32>)> = Vec::new();
    for (side, judged) in sides.iter().enumerate() {
        for (i, row) in judged.values.chunks_exact(dim).enumerate() {
            let id = judged.drawn.set.ids.get(judged.rows[i] as usize);
            if judged.far[i]
                && let Some(direction) = deviations.of(row)
            {
                let hash = xxh3_64_with_seed(id.as_bytes(), seed);
                far.push((hash, id, side, i, direction));
            }
        }
    }
    if far.is_empty() {
        return Ok(Vec::new());
    }
    far.sort_by(|a, b| (a.0, a.1, a.2).cmp(&(b.0, b.1, b.2)));
    let values: Vec<f32> = far.iter().flat_map(|f| &f.4).copied().collect();
    let number = (far.len() / CLUSTER_ROWS).clamp(1, MOST_CLUSTERS);
    let found = kmeans(engine, Rows::new(&values, dim), number, seed)?;

    let topics: Vec<Vec<f32>> = topics.iter().filter_map(|t| deviations.of(&t)).collect();
    let of_row = |row: &[f32]| Some(nearest(&deviations.of(row)?, &topics)?.1);
    let mut cosines: Vec<f64> = base.par_map(of_row).into_iter().flatten().collect();
    cosines.sort_unstable_by(f64::total_cmp);
    let typical = quantile_sorted(&cosines, 0.5).unwrap_or(1.0);
    let clusters = joined(&values, dim, &found.assignment, found.sizes.len(), typical);

    let mut groups: Vec<Group> = clusters
        .iter()
        .map(|(_, rows)| Group {
            far: [0, 1].map(|side| {
                let of_side = rows.iter().map(|&row| &far[row]).filter(|f| f.2 == side);
                of_side.map(|f| f.3).collect()
            }),
            members: [Vec::new(), Vec::new()],
        })
        .collect();
    let mut centres = topics;
    let first = centres.len();
    centres.extend(clusters.into_iter().map(|(centre, _)| centre));
    for (side, judged) in sides.iter().enumerate() {
        let nearest =
            Rows::new(judged.values, dim).par_map(|row| nearest(&deviations.of(row)?, &centres));
        for (i, found) in nearest.into_iter().enumerate() {
            if let Some((at, cosine)) = found
                && at >= first
            {
                groups[at - first].members[side].push((i, cosine));
            }
        }
    }
    Ok(groups)
}

/// Joins clusters, the two nearest first, while their centres' cosine is at least `typical`: (centre, rows).
fn joined(
    values: &[f32],
    dim: usize,
    assignment: &[u32],
    clusters: usize,
    typical: f64,
) -> Vec<(Vec<f32>, Vec<usize>)> {
    let mut found: Vec<(Vec<f64>, Vec<usize>)> = vec![(vec![0.0; dim], Vec::new()); clusters];
    for ((row, &cluster), values) in assignment.iter().enumerate().zip(values.chunks_exact(dim)) {
        let (sum, rows) = &mut found[cluster as usize];
        sum.iter_mut()
            .zip(values)
            .for_each(|(s, &v)| *s += f64::from(v));
        rows.push(row);
    }
    let cosine = |a: &[f64], b: &[f64]| {
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f64::MIN_POSITIVE)
    };
    loop {
        let mut best: Option<(f64, usize, usize)> = None;
        for a in 0..found.len() {
            for b in a + 1..found.len() {
                let near = cosine(&found[a].0, &found[b].0);
                if near >= typical && best.is_none_or(|(known, ..)| near > known) {
                    best = Some((near, a, b));
                }
            }
        }
        let Some((_, a, b)) = best else { break };
        let (sum, rows) = found.remove(b);
        found[a].0.iter_mut().zip(sum).for_each(|(s, v)| *s += v);
        found[a].1.extend(rows);
    }
    let centre = |sum: Vec<f64>| -> Vec<f32> {
        let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt().max(SHORTEST);
        sum.iter().map(|v| (v / length) as f32).collect()
    };
    found
        .into_iter()
        .map(|(sum, rows)| (centre(sum), rows))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_one_topic_are_joined_and_topics_are_not() {
        let values = [1.0, 0.1, 1.0, -0.1, 0.0, 1.0];
        let found = joined(&values, 2, &[0, 1, 2], 3, 0.9);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], (vec![1.0, 0.0], vec![0, 1]));
        assert_eq!(found[1].1, [2]);
        assert_eq!(joined(&values, 2, &[0, 1, 2], 3, 0.999).len(), 3);
    }

    #[test]
    fn ties_go_to_the_first_and_no_direction_is_none() {
        let centres = [vec![1.0, 0.0], vec![1.0, 0.0], vec![0.0, 1.0]];
        assert_eq!(nearest(&[1.0, 0.0], &centres), Some((0, 1.0)));
        assert_eq!(nearest(&[1.0, 0.0], &[]), None);
        let about = Deviations {
            mean: vec![1.0, 0.0],
        };
        assert_eq!(about.of(&[1.0, 0.0]), None);
        assert_eq!(about.of(&[1.0, 2.0]), Some(vec![0.0, 1.0]));
    }
}
