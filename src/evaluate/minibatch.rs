//! k-means on small random batches, as scikit-learn's `MiniBatchKMeans` does it, with another random stream.

use super::random::Mt19937;
use crate::stats::linalg::Matrix;

/// Steps without improvement after which it ends.
const PATIENCE: usize = 10;
/// Passes over the data at most.
const MOST_PASSES: usize = 100;
/// Centres with less than this share of the largest count are placed anew.
const REASSIGNED: f64 = 0.01;

/// Fitted centres.
pub(super) struct MiniBatchKMeans {
    centres: Matrix,
}

impl MiniBatchKMeans {
    /// Clusters the points `draw`, which may name a point more than once.
    ///
    /// # Source
    /// Sculley (2010), Web-scale k-means clustering; k-means++ of Arthur and Vassilvitskii (2007) on
    /// 3 · `batch` points; end by the smoothed inertia of the batches, as in scikit-learn 1.9.
    pub(super) fn fit(
        points: &Matrix,
        draw: &[usize],
        clusters: usize,
        batch: usize,
        seed: u32,
    ) -> Self {
        let mut random = Mt19937::numpy(seed);
        let n = draw.len();
        let batch = batch.min(n);
        let first = (3 * batch).max(clusters).min(n.max(1));
        let initial: Vec<usize> = random.choices(n, first).iter().map(|&i| draw[i]).collect();
        let mut model = Self {
            centres: plus_plus(points, &initial, clusters, &mut random),
        };
        let mut counts = vec![0.0; clusters];
        let (mut smoothed, mut best) = (None::<f64>, f64::INFINITY);
        let (mut unimproved, mut since_reassigned) = (0, 0);
        for step in 0..MOST_PASSES * n / batch {
            let rows: Vec<usize> = random.choices(n, batch).iter().map(|&i| draw[i]).collect();
            since_reassigned += batch;
            let reassign = counts.contains(&0.0) || since_reassigned >= 10 * clusters;
            if reassign {
                since_reassigned = 0;
            }
            let inertia = model.step(points, &rows, &mut counts);
            if reassign {
                model.reassign(points, &rows, &mut counts, &mut random);
            }
            // The first inertia is that of the start.
            if step == 0 {
                continue;
            }
            let inertia = inertia / batch as f64;
            let weight = (2.0 * batch as f64 / (n + 1) as f64).min(1.0);
            let now = smoothed.map_or(inertia, |last| last * (1.0 - weight) + inertia * weight);
            smoothed = Some(now);
            if now < best {
                best = now;
                unimproved = 0;
            } else {
                unimproved += 1;
                if unimproved >= PATIENCE {
                    break;
                }
            }
        }
        model
    }

    /// Moves each centre to the mean of all points it was ever given; the batch's inertia before that.
    fn step(&mut self, points: &Matrix, rows: &[usize], counts: &mut [f64]) -> f64 {
        let batch = gather(points, rows);
        let (labels, inertia) = self.nearest(&batch);
        let d = points.columns();
        let mut sums = vec![0.0; counts.len() * d];
        let mut added = vec![0.0; counts.len()];
        for (i, &label) in labels.iter().enumerate() {
            added[label] += 1.0;
            let sum = &mut sums[label * d..(label + 1) * d];
            sum.iter_mut().zip(batch.row(i)).for_each(|(s, v)| *s += v);
        }
        let centres = self.centres.values_mut().chunks_exact_mut(d);
        for (c, (centre, sum)) in centres.zip(sums.chunks_exact(d)).enumerate() {
            if added[c] == 0.0 {
                continue;
            }
            let total = counts[c] + added[c];
            for (value, sum) in centre.iter_mut().zip(sum) {
                *value = (*value * counts[c] + sum) / total;
            }
            counts[c] = total;
        }
        inertia
    }

    /// Places centres that hardly anything fell to on points of the batch.
    fn reassign(
        &mut self,
        points: &Matrix,
        rows: &[usize],
        counts: &mut [f64],
        random: &mut Mt19937,
    ) {
        let largest = counts.iter().fold(0.0f64, |m, &c| m.max(c));
        let mut poor: Vec<usize> = (0..counts.len())
            .filter(|&c| counts[c] < REASSIGNED * largest)
            .collect();
        poor.sort_by(|&a, &b| counts[a].total_cmp(&counts[b]));
        poor.truncate(rows.len() / 2);
        let chosen = random.sample(rows.len(), poor.len());
        let d = points.columns();
        for (&c, &at) in poor.iter().zip(&chosen) {
            let centre = &mut self.centres.values_mut()[c * d..(c + 1) * d];
            centre.copy_from_slice(points.row(rows[at]));
        }
        let rest = (0..counts.len()).filter(|c| !poor.contains(c));
        let least = rest.map(|c| counts[c]).fold(f64::INFINITY, f64::min);
        if least.is_finite() {
            poor.iter().for_each(|&c| counts[c] = least);
        }
    }

    /// The nearest centre of each point, the first of equals.
    pub(super) fn predict(&self, points: &Matrix) -> Vec<usize> {
        self.nearest(points).0
    }

    fn nearest(&self, points: &Matrix) -> (Vec<usize>, f64) {
        let products = points.times(&self.centres.transpose());
        let lengths: Vec<f64> = (0..self.centres.rows())
            .map(|c| sq_norm(self.centres.row(c)))
            .collect();
        let mut inertia = 0.0;
        let labels = (0..points.rows())
            .map(|i| {
                let to = |c: usize| lengths[c] - 2.0 * products.row(i)[c];
                let nearest = (1..lengths.len()).fold(0, |b, c| if to(c) < to(b) { c } else { b });
                inertia += (sq_norm(points.row(i)) + to(nearest)).max(0.0);
                nearest
            })
            .collect();
        (labels, inertia)
    }
}

/// Centres spread out among the points: each is drawn in proportion to the squared distance to those before
/// it, the best of a few candidates.
fn plus_plus(points: &Matrix, rows: &[usize], clusters: usize, random: &mut Mt19937) -> Matrix {
    let points = gather(points, rows);
    let n = points.rows();
    let candidates = 2 + (clusters as f64).ln() as usize;
    let d = points.columns();
    let sq_distances = |to: usize| -> Vec<f64> {
        let to = points.row(to);
        (0..n)
            .map(|i| {
                let terms = points.row(i).iter().zip(to);
                terms.map(|(a, b)| (a - b).powi(2)).sum()
            })
            .collect()
    };
    let first = random.choices(n, 1)[0];
    let mut chosen = vec![first];
    let mut closest = sq_distances(first);
    while chosen.len() < clusters {
        let total: f64 = closest.iter().sum();
        let tries: Vec<(f64, usize, Vec<f64>)> = (0..candidates)
            .map(|_| {
                let mut left = random.uniform() * total;
                let at = closest.iter().position(|&c| {
                    left -= c;
                    left <= 0.0
                });
                let at = at.unwrap_or(n - 1);
                let mut with: Vec<f64> = sq_distances(at);
                with.iter_mut()
                    .zip(&closest)
                    .for_each(|(a, &b)| *a = a.min(b));
                (with.iter().sum(), at, with)
            })
            .collect();
        let best = tries.into_iter().min_by(|a, b| a.0.total_cmp(&b.0));
        let Some((_, at, with)) = best else {
            break;
        };
        chosen.push(at);
        closest = with;
    }
    let values = chosen.iter().flat_map(|&i| points.row(i).to_vec());
    Matrix::new(clusters, d, values.collect())
}

fn gather(points: &Matrix, rows: &[usize]) -> Matrix {
    let values = rows.iter().flat_map(|&i| points.row(i).iter().copied());
    Matrix::new(rows.len(), points.columns(), values.collect())
}

fn sq_norm(row: &[f64]) -> f64 {
    row.iter().map(|v| v * v).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separate_groups_are_found() {
        // Four tight groups on a square, 25 points each.
        let mut random = Mt19937::numpy(1);
        let values: Vec<f64> = (0..100)
            .flat_map(|i| {
                let group = i % 4;
                let mut noise = || 0.1 * random.uniform();
                [
                    10.0 * f64::from(group / 2) + noise(),
                    10.0 * f64::from(group % 2) + noise(),
                ]
            })
            .collect();
        let points = Matrix::new(100, 2, values);
        let draw: Vec<usize> = (0..100).collect();
        for seed in 0..5 {
            let labels = MiniBatchKMeans::fit(&points, &draw, 4, 32, seed).predict(&points);
            for i in 0..100 {
                assert_eq!(labels[i], labels[i % 4], "seed {seed}");
                assert_eq!((0..4).filter(|&g| labels[g] == labels[i]).count(), 1);
            }
        }
    }

    #[test]
    fn more_clusters_than_points_is_no_harm() {
        let points = Matrix::new(2, 1, vec![0.0, 1.0]);
        let labels = MiniBatchKMeans::fit(&points, &[0, 1, 0, 1], 3, 8, 0).predict(&points);
        assert_ne!(labels[0], labels[1]);
    }
}
