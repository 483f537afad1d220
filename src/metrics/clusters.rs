//! Topics of two sets: clusters that both are parted into, found from the vectors alone.
//!
//! Clusters are fitted to the rows of both sets alike. Fitted to one of them, they would follow its
//! accidents: its own rows would lie nearer to their centroids than new ones do, and shares would seem to
//! move where nothing did.

use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, Metric};
use crate::error::Result;
use crate::metrics::kmeans::kmeans;

/// Rows per cluster that the clusters are fitted to.
const FITTED_ROWS: usize = 50;
/// Ids named per cluster.
const REPRESENTATIVES: usize = 3;

/// One of two sets.
#[derive(Debug, Clone, Copy)]
pub struct ClusteredSet<'a> {
    /// n × d, no zero row.
    pub rows: Rows<'a>,
    /// One id per row.
    pub ids: &'a Ids,
}

/// Both sets parted into clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Clusters {
    /// Cluster of every row of the first set.
    pub reference: Vec<u32>,
    /// Cluster of every row of the second set; empty where there is none.
    pub current: Vec<u32>,
    /// Per cluster, largest first: ids of the rows nearest to its centroid, nearest first.
    pub representatives: Vec<Vec<String>>,
}

/// How many clusters suit `rows` rows: 0.4·√rows, 2 to 256, and 25 rows each at least.
pub fn suitable_clusters(rows: usize) -> usize {
    let wanted = (0.4 * (rows as f64).sqrt()).round() as usize;
    wanted.min(rows / 25).clamp(2, 256)
}

/// Parts the rows of one or two sets of one space into at most `clusters` clusters, by direction.
///
/// Spherical k-means ([`kmeans`]) is fitted to 50 rows per cluster, drawn by the hash of their id from
/// both sets alike; then every row goes to the centroid with the largest cosine, exactly, ties to the
/// first. Clusters are numbered by size. The result does not depend on the order of the rows.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If there is no row, the dimensions differ, or `clusters` is 0.
pub fn clusters(
    engine: &Engine,
    reference: ClusteredSet<'_>,
    current: Option<ClusteredSet<'_>>,
    clusters: usize,
    seed: u64,
) -> Result<Clusters> {
    let sets: Vec<ClusteredSet<'_>> = std::iter::once(reference).chain(current).collect();
    let dim = reference.rows.dim();
    let mut drawn: Vec<(u64, &str, usize, u32)> = Vec::new();
    for (at, set) in sets.iter().enumerate() {
        drawn.extend((0..set.rows.len()).map(|row| {
            let id = set.ids.get(row);
            (set.ids.hash(row, seed), id, at, row as u32)
        }));
    }
    drawn.sort_unstable();
    drawn.truncate(FITTED_ROWS.saturating_mul(clusters));
    let mut values: Vec<f32> = Vec::with_capacity(drawn.len() * dim);
    for &(_, _, set, row) in &drawn {
        values.extend_from_slice(&sets[set].rows.row(row as usize));
    }
    let fitted = kmeans(engine, Rows::new(&values, dim), clusters, seed)?;
    let centroids = Rows::new(&fitted.centroids, dim);

    let mut assigned: Vec<Vec<u32>> = Vec::new();
    // Per cluster (cosine, id), best first.
    let mut nearest: Vec<Vec<(f64, &str)>> = vec![Vec::new(); centroids.len()];
    let mut sizes = vec![0u64; centroids.len()];
    for set in &sets {
        let found = engine.nearest(set.rows, centroids, 1, Metric::Cosine, None)?;
        let mut of_set = Vec::with_capacity(set.rows.len());
        for (row, list) in found.lists.iter().enumerate() {
            let (cosine, cluster) = list[0];
            of_set.push(cluster);
            sizes[cluster as usize] += 1;
            offer(&mut nearest[cluster as usize], cosine, set.ids.get(row));
        }
        assigned.push(of_set);
    }
    // Clusters that all rows left are dropped.
    let mut order: Vec<usize> = (0..sizes.len()).filter(|&c| sizes[c] > 0).collect();
    order.sort_by_key(|&cluster| std::cmp::Reverse(sizes[cluster]));
    let mut number = vec![0u32; sizes.len()];
    for (new, &old) in (0u32..).zip(&order) {
        number[old] = new;
    }
    let mut assigned = assigned.into_iter().map(|of_set| {
        let numbers = of_set.into_iter().map(|old| number[old as usize]);
        numbers.collect::<Vec<u32>>()
    });
    Ok(Clusters {
        reference: assigned.next().unwrap_or_default(),
        current: assigned.next().unwrap_or_default(),
        representatives: order
            .iter()
            .map(|&cluster| {
                let ids = nearest[cluster].iter().map(|(_, id)| (*id).to_owned());
                ids.collect()
            })
            .collect(),
    })
}

/// Keeps the ids of largest cosine, ties by id; an item that both sets hold stands there once.
fn offer<'a>(best: &mut Vec<(f64, &'a str)>, cosine: f64, id: &'a str) {
    let before = |&(c, i): &(f64, &str)| c > cosine || (c == cosine && i < id);
    if let Some(at) = best.iter().position(|&(_, known)| known == id) {
        if before(&best[at]) {
            return;
        }
        best.remove(at);
    }
    let at = best.partition_point(before);
    best.insert(at, (cosine, id));
    best.truncate(REPRESENTATIVES);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_of_both_sets_is_named_once_at_its_best() {
        let mut best = Vec::new();
        for (cosine, id) in [
            (0.5, "a"),
            (0.7, "b"),
            (0.9, "a"),
            (0.7, "aa"),
            (0.6, "c"),
            (0.1, "a"),
        ] {
            offer(&mut best, cosine, id);
        }
        assert_eq!(best, [(0.9, "a"), (0.7, "aa"), (0.7, "b")]);
    }

    #[test]
    fn numbers_of_clusters_grow_with_the_root_of_the_rows() {
        let found = [10, 100, 1_000, 10_000, 10_000_000].map(suitable_clusters);
        assert_eq!(found, [2, 4, 13, 40, 256]);
    }
}
