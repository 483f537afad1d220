//! Five ways to say how far a query lies from a corpus; larger is farther.
//!
//! All look at directions only: rows are scaled to unit length first.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::OodConfig;
use crate::embeddings::{F32Rows, Ids, Rows};
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::metrics::clusters::suitable_clusters;
use crate::metrics::kmeans::kmeans;
use crate::metrics::moments::Moments;
use crate::stats::linalg::Matrix;

/// Documents that moments and clusters are fitted to, at most.
const FITTED_ROWS: usize = 10_000;
/// Documents per cluster that the clusters are fitted to.
const ROWS_PER_CLUSTER: usize = 50;
/// Documents that the energy sums over, at most.
const ENERGY_ROWS: usize = 4_096;
/// Temperature of the energy.
const TEMPERATURE: f64 = 0.05;
/// Shrinkage is not let below this, so that constant coordinates do not divide by 0.
const LEAST_SHRINKAGE: f64 = 1e-6;
/// Nor is the variance that it adds, so that documents that are all alike give numbers; unit rows have a
/// variance of about 1/d.
const LEAST_VARIANCE: f64 = 1e-12;

/// How the distance of a query from the corpus is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OodScoreName {
    /// 1 − cosine to the k-th nearest document (Sun et al. 2022). Exact, over the whole corpus.
    Knn,
    /// Mahalanobis distance² from the corpus' mean, with Ledoit and Wolf's (2004) shrunk covariance (Lee et al.
    /// 2018).
    Mahalanobis,
    /// Smallest Mahalanobis distance² from a cluster's mean, with one covariance within clusters, minus that
    /// from the corpus' mean (Ren et al. 2021).
    RelativeMahalanobis,
    /// 1 − largest cosine to a cluster's centroid.
    Centroid,
    /// −T·ln of the mean over documents of exp(cosine/T), T = 0.05 (Liu et al. 2020): a kernel density.
    Energy,
}

impl OodScoreName {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Knn => "nearest documents",
            Self::Mahalanobis => "Mahalanobis",
            Self::RelativeMahalanobis => "relative Mahalanobis",
            Self::Centroid => "nearest topic",
            Self::Energy => "energy",
        }
    }
}

/// Scores of some queries.
pub(super) struct Scored {
    pub(super) scores: Vec<(OodScoreName, Vec<f64>)>,
    /// Per query, the nearest document and its cosine.
    pub(super) nearest: Vec<(u32, f64)>,
}

/// What queries are held against.
pub(super) struct Model<'a> {
    corpus: Rows<'a>,
    k: usize,
    background: Gaussian,
    classes: Option<Classes>,
    landmarks: Vec<f32>,
}

/// A mean and what whitens the deviations from it.
struct Gaussian {
    mean: Vec<f64>,
    whitening: Vec<f32>,
}

struct Classes {
    centroids: Vec<f32>,
    within: Gaussian,
    /// Means of the clusters, whitened.
    means: Vec<f32>,
}

fn unit(rows: Rows<'_>) -> Vec<f32> {
    let mut values = rows.to_f32().into_owned();
    values.par_chunks_mut(rows.dim()).for_each(|row| {
        let norm = score::norm(row);
        row.iter_mut()
            .for_each(|v| *v = (f64::from(*v) / norm) as f32);
    });
    values
}

/// Intensity of Ledoit and Wolf's shrinkage of a covariance towards a multiple of the identity, in [0, 1].
pub fn ledoit_wolf_shrinkage(moments: &Moments) -> f64 {
    let (n, d) = (moments.rows as f64, moments.dim() as f64);
    let level = moments.scatter.trace() / n / d;
    let squares = moments.scatter.sq_frobenius() / (n * n);
    let spread = squares - d * level * level;
    if spread <= 0.0 {
        return 1.0;
    }
    ((moments.fourth / n - squares) / n / spread).clamp(0.0, 1.0)
}

impl Gaussian {
    /// About `mean`, with the shrunk covariance of `moments`.
    fn new(mean: Vec<f64>, moments: &Moments) -> Result<Self> {
        let (n, d) = (moments.rows as f64, moments.dim());
        let shrinkage = ledoit_wolf_shrinkage(moments).max(LEAST_SHRINKAGE);
        let level = moments.scatter.trace() / n / d as f64;
        let mut covariance: Matrix = moments.scatter.clone().scaled((1.0 - shrinkage) / n);
        let ridge = (shrinkage * level).max(LEAST_VARIANCE);
        for i in 0..d {
            covariance.values_mut()[i * d + i] += ridge;
        }
        let eigen = covariance.symmetric_eigen()?;
        let mut whitening = vec![0.0f32; d * d];
        for (axis, &value) in eigen.values.iter().enumerate() {
            let scale = 1.0 / value.max(ridge).sqrt();
            for j in 0..d {
                whitening[axis * d + j] = (eigen.vectors.row(j)[axis] * scale) as f32;
            }
        }
        Ok(Self { mean, whitening })
    }

    fn whiten(&self, engine: &Engine, unit: Rows<'_>) -> Result<Vec<f32>> {
        let dim = unit.dim();
        let mut deviations = unit.to_f32().into_owned();
        deviations.par_chunks_mut(dim).for_each(|row| {
            for (v, mean) in row.iter_mut().zip(&self.mean) {
                *v = (f64::from(*v) - mean) as f32;
            }
        });
        engine.project(Rows::new(&deviations, dim), Rows::new(&self.whitening, dim))
    }
}

impl<'a> Model<'a> {
    pub(super) fn fit(
        engine: &Engine,
        corpus: Rows<'a>,
        ids: &Ids,
        config: &OodConfig,
    ) -> Result<Self> {
        let dim = corpus.dim();
        let mut order: Vec<u32> = (0..corpus.len() as u32).collect();
        order.sort_by_cached_key(|&row| (ids.hash(row as usize, config.seed), row));
        order.truncate(FITTED_ROWS);
        let drawn = corpus.gather(order.iter().map(|&row| row as usize));
        let mut fitted = unit(Rows::new(&drawn, dim));
        let rows = Rows::new(&fitted, dim);
        let moments = Moments::of(engine, rows)?;
        let landmarks = fitted[..order.len().min(ENERGY_ROWS) * dim].to_vec();
        let background = Gaussian::new(moments.mean.clone(), &moments)?;
        // Fewer documents have no topics to speak of.
        let classes = if order.len() >= 50 {
            let clusters = suitable_clusters(order.len());
            // Rows are ordered by hash: the first are a sample.
            let first = rows.slice(0..rows.len().min(ROWS_PER_CLUSTER * clusters));
            let found = kmeans(engine, first, clusters, config.seed)?;
            let centroids = F32Rows::new(&found.centroids, dim);
            let nearest = engine.nearest(rows, Rows::from(centroids), 1, Metric::Cosine, None)?;
            let assignment: Vec<u32> = nearest.lists.iter().map(|list| list[0].1).collect();
            let mut sizes = vec![0usize; centroids.len()];
            for &cluster in &assignment {
                sizes[cluster as usize] += 1;
            }
            // A centroid that no row is nearest to is its own mean.
            let mut means: Vec<f64> = (0..centroids.len())
                .flat_map(|cluster| {
                    let keep = if sizes[cluster] == 0 { 1.0 } else { 0.0 };
                    centroids
                        .row(cluster)
                        .iter()
                        .map(move |&v| keep * f64::from(v))
                })
                .collect();
            for (row, &cluster) in rows.iter().zip(&assignment) {
                let mean = &mut means[cluster as usize * dim..][..dim];
                for (m, &v) in mean.iter_mut().zip(&*row) {
                    *m += f64::from(v) / sizes[cluster as usize] as f64;
                }
            }
            for (row, &cluster) in fitted.chunks_mut(dim).zip(&assignment) {
                let mean = &means[cluster as usize * dim..][..dim];
                for (v, m) in row.iter_mut().zip(mean) {
                    *v = (f64::from(*v) - m) as f32;
                }
            }
            let spread = Moments::of(engine, Rows::new(&fitted, dim))?;
            // Deviations keep the unit rows' origin, so that differences of means survive whitening.
            let within = Gaussian::new(vec![0.0; dim], &spread)?;
            let of_clusters: Vec<f32> = means.iter().map(|&m| m as f32).collect();
            Some(Classes {
                centroids: found.centroids,
                means: within.whiten(engine, Rows::new(&of_clusters, dim))?,
                within,
            })
        } else {
            None
        };
        Ok(Self {
            corpus,
            k: config.k.min(corpus.len()),
            background,
            classes,
            landmarks,
        })
    }

    /// Scores queries; the first score is that of the nearest documents.
    pub(super) fn score(&self, engine: &Engine, queries: Rows<'_>) -> Result<Scored> {
        let dim = queries.dim();
        let found = engine.nearest(queries, self.corpus, self.k, Metric::Cosine, None)?;
        let knn = found.lists.iter().map(|list| 1.0 - list[self.k - 1].0);
        let mut scores = vec![(OodScoreName::Knn, knn.collect::<Vec<f64>>())];
        let nearest = found.lists.iter().map(|list| (list[0].1, list[0].0));
        let nearest = nearest.collect();
        let values = unit(queries);
        let unit = Rows::new(&values, dim);
        let background: Vec<f64> = sq_norms(&self.background.whiten(engine, unit)?, dim);
        if let Some(classes) = &self.classes {
            let whitened = classes.within.whiten(engine, unit)?;
            let means = Rows::new(&classes.means, dim);
            let products = engine.project(Rows::new(&whitened, dim), means)?;
            let mean_norms = sq_norms(&classes.means, dim);
            let own = sq_norms(&whitened, dim);
            let relative = products.chunks(means.len()).zip(&own).zip(&background);
            let relative = relative.map(|((products, own), background)| {
                let distances = products.iter().zip(&mean_norms);
                let nearest = distances
                    .map(|(&product, norm)| norm - 2.0 * f64::from(product))
                    .fold(f64::INFINITY, f64::min);
                (own + nearest).max(0.0) - background
            });
            scores.push((OodScoreName::RelativeMahalanobis, relative.collect()));
            let centroids = Rows::new(&classes.centroids, dim);
            let found = engine.nearest(queries, centroids, 1, Metric::Cosine, None)?;
            let centroid = found.lists.iter().map(|list| 1.0 - list[0].0);
            scores.push((OodScoreName::Centroid, centroid.collect()));
        }
        scores.insert(1, (OodScoreName::Mahalanobis, background));
        scores.push((OodScoreName::Energy, self.energy(engine, unit)?));
        Ok(Scored { scores, nearest })
    }

    fn energy(&self, engine: &Engine, unit: Rows<'_>) -> Result<Vec<f64>> {
        let landmarks = Rows::new(&self.landmarks, unit.dim());
        let mut energies = Vec::with_capacity(unit.len());
        // Some queries at a time: their products with every landmark are held.
        for start in (0..unit.len()).step_by(1_024) {
            let queries = unit.slice(start..(start + 1_024).min(unit.len()));
            let cosines = engine.project(queries, landmarks)?;
            energies.par_extend(cosines.par_chunks(landmarks.len()).map(|cosines| {
                let sum: f64 = cosines
                    .iter()
                    .map(|&c| ((f64::from(c) - 1.0) / TEMPERATURE).exp())
                    .sum();
                let mean = (sum / cosines.len() as f64).max(f64::MIN_POSITIVE);
                -TEMPERATURE * mean.ln() - 1.0
            }));
        }
        Ok(energies)
    }
}

fn sq_norms(values: &[f32], dim: usize) -> Vec<f64> {
    let rows = values.par_chunks(dim);
    rows.map(|row| score::dot(row, row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By Ledoit and Wolf's definition, term by term: the mean squared distance of the rows' own products
    /// from their mean, over the squared distance of that mean from its multiple of the identity.
    #[test]
    fn shrinkage_is_that_of_the_definition() {
        // Coordinates of different spread, so that the identity is not all there is.
        let value = |i: i32, j: i32| f64::from((i * 5 + j * j * 3) % 11 * (j + 1).pow(2));
        let rows: Vec<Vec<f64>> = (0..60)
            .map(|i| (0..3).map(|j| value(i, j)).collect())
            .collect();
        let (n, d) = (rows.len(), 3);
        let mean: Vec<f64> = (0..d)
            .map(|j| rows.iter().map(|r| r[j]).sum::<f64>() / n as f64)
            .collect();
        let mut scatter = Matrix::zeros(d, d);
        let mut fourth = 0.0;
        let deviations: Vec<Vec<f64>> = rows
            .iter()
            .map(|r| r.iter().zip(&mean).map(|(v, m)| v - m).collect())
            .collect();
        for x in &deviations {
            scatter.add_outer(1.0, x, x);
            fourth += x.iter().map(|v| v * v).sum::<f64>().powi(2);
        }
        let moments = Moments {
            rows: n,
            mean,
            scatter: scatter.clone(),
            fourth,
        };
        let covariance = scatter.scaled(1.0 / n as f64);
        let level = covariance.trace() / d as f64;
        let (mut beta, mut delta) = (0.0, 0.0);
        for i in 0..d {
            for j in 0..d {
                let s = covariance.row(i)[j];
                let identity = if i == j { level } else { 0.0 };
                delta += (s - identity).powi(2);
                let spread = deviations.iter().map(|x| (x[i] * x[j] - s).powi(2));
                beta += spread.sum::<f64>() / (n * n) as f64;
            }
        }
        let found = ledoit_wolf_shrinkage(&moments);
        assert!((found - (beta / delta).min(1.0)).abs() < 1e-12, "{found}");
        assert!(found > 0.0 && found < 1.0);
    }
}
