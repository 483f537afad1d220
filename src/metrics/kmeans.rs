//! Spherical k-means: topics of a corpus.

use rayon::prelude::*;

use crate::embeddings::Rows;
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::stats::rng::Philox;

/// Passes at most; topics are settled long before.
const PASSES: usize = 20;

/// Stream of random numbers for seeding, apart from those that permutations use.
const STREAM: u64 = u64::MAX;

/// Rows in clusters.
#[derive(Debug, Clone, PartialEq)]
pub struct Clustering {
    /// Cluster of every row.
    pub assignment: Vec<u32>,
    /// Centroids, C × d row-major, of unit length.
    pub centroids: Vec<f32>,
    /// Rows per cluster, none of them 0.
    pub sizes: Vec<usize>,
}

/// Clusters the directions of `rows` (n × d, no zero row) into at most `clusters` clusters: as many as
/// that, or n.
///
/// Minimises Σ (1 − cosine(row, its centroid)). k-means++ seeding, then Lloyd passes until nothing
/// moves, 20 at most; a row equally near to two centroids goes to the first, and an empty cluster takes
/// the row of the largest cluster that is farthest from its centroid. The same rows, in the same order,
/// and seed give the same bits at any number of threads. Seeding costs n·d·C products in f64.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If there is no row or `clusters` is 0.
///
/// # Source
/// Dhillon & Modha 2001 (spherical k-means); Arthur & Vassilvitskii 2007 (k-means++).
pub fn kmeans(engine: &Engine, rows: Rows<'_>, clusters: usize, seed: u64) -> Result<Clustering> {
    assert!(!rows.is_empty() && clusters > 0);
    let clusters = clusters.min(rows.len());
    let dim = rows.dim();
    let norms = score::norms(rows);
    let mut centroids = seed_centroids(rows, &norms, clusters, seed);
    let mut assignment = Vec::new();
    for _ in 0..PASSES {
        let base = Rows::new(&centroids, dim);
        let nearest = engine.nearest(rows, base, 1, Metric::Cosine, None)?;
        let (cosines, mut next): (Vec<f64>, Vec<u32>) =
            nearest.lists.iter().map(|list| list[0]).unzip();
        fill_empty(&mut next, &cosines, clusters);
        let settled = next == assignment;
        assignment = next;
        if settled {
            break;
        }
        centroids = mean_directions(rows, &norms, &assignment, clusters);
    }
    let mut sizes = vec![0; clusters];
    for &cluster in &assignment {
        sizes[cluster as usize] += 1;
    }
    Ok(Clustering {
        assignment,
        centroids,
        sizes,
    })
}

/// k-means++: each next centroid is a row drawn with chance in proportion to 1 − its cosine to the
/// nearest centroid so far.
fn seed_centroids(rows: Rows<'_>, norms: &[f64], clusters: usize, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, STREAM);
    let mut chosen = random.below(rows.len() as u32) as usize;
    let mut distances = vec![f64::INFINITY; rows.len()];
    let mut centroids = Vec::with_capacity(clusters * rows.dim());
    let arch = pulp::Arch::new();
    loop {
        let centroid = &*rows.row(chosen);
        centroids.extend(
            centroid
                .iter()
                .map(|&v| (f64::from(v) / norms[chosen]) as f32),
        );
        if centroids.len() == clusters * rows.dim() {
            return centroids;
        }
        distances
            .par_iter_mut()
            .enumerate()
            .with_min_len(64)
            .for_each_init(Vec::new, |buffer, (i, distance)| {
                let row = rows.row_in(i, buffer);
                let cosine = arch.dispatch(|| {
                    score::similarity(Metric::Cosine, row, norms[i], centroid, norms[chosen])
                });
                *distance = distance.min(1.0 - cosine);
            });
        distances[chosen] = 0.0;
        let mut left = random.uniform() * distances.iter().sum::<f64>();
        // With every row on a centroid any row will do; empty clusters are filled later.
        chosen = distances
            .iter()
            .position(|&distance| {
                left -= distance;
                left < 0.0
            })
            .unwrap_or(rows.len() - 1);
    }
}

/// Gives each empty cluster the row of the then largest cluster that is farthest from its centroid.
fn fill_empty(assignment: &mut [u32], cosines: &[f64], clusters: usize) {
    let mut sizes = vec![0usize; clusters];
    for &cluster in assignment.iter() {
        sizes[cluster as usize] += 1;
    }
    for empty in 0..clusters {
        if sizes[empty] > 0 {
            continue;
        }
        let largest = (0..clusters).fold(0, |a, b| if sizes[b] > sizes[a] { b } else { a });
        let farthest = (0..assignment.len())
            .filter(|&row| assignment[row] as usize == largest)
            .min_by(|&a, &b| cosines[a].total_cmp(&cosines[b]));
        if let Some(row) = farthest {
            assignment[row] = empty as u32;
            sizes[largest] -= 1;
            sizes[empty] = 1;
        }
    }
}

/// Mean of the unit rows of each cluster, brought to unit length; rows that cancel leave their first.
fn mean_directions(rows: Rows<'_>, norms: &[f64], assignment: &[u32], clusters: usize) -> Vec<f32> {
    let dim = rows.dim();
    let mut members = vec![Vec::new(); clusters];
    for (row, &cluster) in assignment.iter().enumerate() {
        members[cluster as usize].push(row);
    }
    let mut centroids = vec![0.0f32; clusters * dim];
    centroids
        .par_chunks_mut(dim)
        .zip(&members)
        .for_each(|(centroid, members)| {
            let (mut sum, mut buffer) = (vec![0.0f64; dim], Vec::new());
            for &row in members {
                for (s, &v) in sum.iter_mut().zip(rows.row_in(row, &mut buffer)) {
                    *s += f64::from(v) / norms[row];
                }
            }
            let length = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
            // Below this the direction is rounding.
            if length < 1e-9 * members.len() as f64 {
                let first = members[0];
                for (c, &v) in centroid.iter_mut().zip(&*rows.row(first)) {
                    *c = (f64::from(v) / norms[first]) as f32;
                }
            } else {
                for (c, s) in centroid.iter_mut().zip(&sum) {
                    *c = (s / length) as f32;
                }
            }
        });
    centroids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{DeviceChoice, EngineConfig};

    fn engine() -> Engine {
        Engine::new(&EngineConfig {
            device: DeviceChoice::Cpu,
            ..EngineConfig::default()
        })
        .unwrap()
    }

    /// `per_topic` rows around each axis, of various lengths, one topic after the other.
    fn topics(dim: usize, per_topic: usize) -> Vec<f32> {
        let mut random = Philox::new(5, 0);
        let mut values = Vec::new();
        for row in 0..dim * per_topic {
            let length = 0.5 + random.uniform();
            values.extend((0..dim).map(|axis| {
                let centre = f64::from(row / per_topic == axis);
                (length * (centre + 0.1 * random.normal())) as f32
            }));
        }
        values
    }

    #[test]
    fn separate_topics_are_found_whatever_the_length_of_rows() {
        let values = topics(6, 30);
        let clustering = kmeans(&engine(), Rows::new(&values, 6), 6, 1).unwrap();
        // k-means++ may start two centroids in one topic; this seed does not.
        assert_eq!(clustering.sizes, [30; 6]);
        for topic in clustering.assignment.chunks(30) {
            assert!(topic.iter().all(|cluster| *cluster == topic[0]));
        }
        for centroid in clustering.centroids.chunks(6) {
            assert!((score::norm(centroid) - 1.0).abs() < 1e-6);
        }
        let again = kmeans(&engine(), Rows::new(&values, 6), 6, 1).unwrap();
        assert_eq!(clustering, again);
    }

    #[test]
    fn no_cluster_is_empty_even_where_rows_are_equal() {
        let equal = [1.0f32, 2.0].repeat(7);
        let clustering = kmeans(&engine(), Rows::new(&equal, 2), 3, 0).unwrap();
        assert_eq!(clustering.sizes.iter().sum::<usize>(), 7);
        assert!(clustering.sizes.iter().all(|&size| size > 0));
        let few = kmeans(&engine(), Rows::new(&equal[..4], 2), 5, 0).unwrap();
        assert_eq!(few.sizes, [1, 1]);
        let opposite = [1.0f32, 0.0, -1.0, 0.0];
        let one = kmeans(&engine(), Rows::new(&opposite, 2), 1, 0).unwrap();
        assert_eq!(one.sizes, [2]);
        assert_eq!(
            one.centroids,
            [1.0, 0.0],
            "rows that cancel leave their first"
        );
    }
}
