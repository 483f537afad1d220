//! Linear maps fitted from moments alone: a fold's sums are enough to fit, to choose and to score.

use super::{Adapter, Direction, Method};
use crate::embeddings::Rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::moments::{CrossMoments, Moments};
use crate::stats::linalg::Matrix;

use super::super::alignment::OrthogonalMap;

/// Ridge penalties that are tried, in units of the mean variance of a source coordinate.
const LAMBDAS: [f64; 15] = [
    1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0, 10.0,
];
/// A smaller rank is taken where it leaves at most this much more squared error than the best one.
const RANK_SLACK: f64 = 1.01;

/// Second moments of pairs of rows, source and target, about their means.
#[derive(Debug, Clone)]
pub(super) struct PairMoments {
    rows: usize,
    source_mean: Vec<f64>,
    target_mean: Vec<f64>,
    /// Σ (x − μₓ)(x − μₓ)ᵀ, d × d.
    source: Matrix,
    /// Σ (y − μᵧ)(y − μᵧ)ᵀ, d′ × d′.
    target: Matrix,
    /// Σ (x − μₓ)(y − μᵧ)ᵀ, d × d′.
    cross: Matrix,
}

impl PairMoments {
    pub(super) fn of(engine: &Engine, source: Rows<'_>, target: Rows<'_>) -> Result<Self> {
        let (x, y) = (Moments::of(engine, source)?, Moments::of(engine, target)?);
        Ok(Self::new(
            x,
            y,
            CrossMoments::of(engine, source, target)?.scatter,
        ))
    }

    fn new(source: Moments, target: Moments, cross: Matrix) -> Self {
        Self {
            rows: source.rows,
            source_mean: source.mean,
            target_mean: target.mean,
            source: source.scatter,
            target: target.scatter,
            cross,
        }
    }

    /// The same pairs the other way round.
    pub(super) fn turned(&self) -> Self {
        Self {
            rows: self.rows,
            source_mean: self.target_mean.clone(),
            target_mean: self.source_mean.clone(),
            source: self.target.clone(),
            target: self.source.clone(),
            cross: self.cross.transpose(),
        }
    }

    /// Moments of two sets of pairs together (Chan, Golub and LeVeque 1979).
    pub(super) fn merged(&self, other: &Self) -> Self {
        let (n, m) = (self.rows as f64, other.rows as f64);
        let by_source = difference(&other.source_mean, &self.source_mean);
        let by_target = difference(&other.target_mean, &self.target_mean);
        let add = |a: &Matrix, b: &Matrix, u: &[f64], v: &[f64]| {
            let mut sum = a.clone();
            sum.add_scaled(1.0, b);
            sum.add_outer(n * m / (n + m), u, v);
            sum
        };
        let mean = |mean: &[f64], by: &[f64]| -> Vec<f64> {
            mean.iter()
                .zip(by)
                .map(|(v, d)| v + d * m / (n + m))
                .collect()
        };
        Self {
            rows: self.rows + other.rows,
            source_mean: mean(&self.source_mean, &by_source),
            target_mean: mean(&self.target_mean, &by_target),
            source: add(&self.source, &other.source, &by_source, &by_source),
            target: add(&self.target, &other.target, &by_target, &by_target),
            cross: add(&self.cross, &other.cross, &by_source, &by_target),
        }
    }

    /// These sums about the means of `other`.
    fn about(&self, other: &Self) -> Sums {
        let n = self.rows as f64;
        let by_source = difference(&self.source_mean, &other.source_mean);
        let by_target = difference(&self.target_mean, &other.target_mean);
        let mut source = self.source.clone();
        source.add_outer(n, &by_source, &by_source);
        let mut cross = self.cross.clone();
        cross.add_outer(n, &by_source, &by_target);
        let spread: f64 = by_target.iter().map(|v| v * v).sum();
        Sums {
            source,
            cross,
            target_trace: self.target.trace() + n * spread,
        }
    }
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Second moments about the means of the pairs that made a map: its squared error on these pairs follows.
struct Sums {
    source: Matrix,
    cross: Matrix,
    target_trace: f64,
}

impl Sums {
    /// Σ ‖(x − μₓ)W − (y − μᵧ)‖² over Σ ‖y − μᵧ‖².
    fn relative_error(&self, weights: &Matrix) -> f64 {
        let explained = 2.0 * weights.frobenius_dot(&self.cross);
        let size = weights.frobenius_dot(&self.source.times(weights));
        (self.target_trace - explained + size) / self.target_trace
    }
}

/// A fitted map with what was chosen for it.
pub(super) struct Fitted {
    pub(super) adapter: Adapter,
    /// 1 − squared error over squared spread, on the pairs that chose λ and rank. `None` where the target
    /// does not vary there.
    pub(super) validation_r_squared: Option<f64>,
}

/// Fits every kind of map: λ and rank are chosen on `validation` for a map made of `train`, then the map
/// is made of both.
pub(super) fn fit_all(
    train: &PairMoments,
    validation: &PairMoments,
    direction: Direction,
) -> Result<Vec<Fitted>> {
    let both = train.merged(validation);
    let sums = validation.about(train);
    let ridge = Ridge::new(train)?;
    let lambda = ridge.best_lambda(&sums);
    let ridge_weights = ridge.weights(lambda);
    let basis = prediction_basis(train, &ridge_weights)?;
    let rank = best_rank(&sums, &ridge_weights, &basis);
    let final_ridge = Ridge::new(&both)?.weights(lambda);
    let final_basis = prediction_basis(&both, &final_ridge)?;
    let fitted = |method, trained: &Matrix, weights: &Matrix, lambda, rank| Fitted {
        adapter: Adapter::new(
            (direction, method),
            (&both.source_mean, &both.target_mean),
            weights,
            (lambda, rank),
        ),
        validation_r_squared: (sums.target_trace > 0.0).then(|| 1.0 - sums.relative_error(trained)),
    };
    Ok(vec![
        fitted(
            Method::Procrustes,
            &procrustes(train)?,
            &procrustes(&both)?,
            None,
            None,
        ),
        fitted(
            Method::LowRank,
            &project_onto(&ridge_weights, &basis, rank),
            &project_onto(&final_ridge, &final_basis, rank),
            Some(lambda),
            Some(rank),
        ),
        fitted(
            Method::Ridge,
            &ridge_weights,
            &final_ridge,
            Some(lambda),
            None,
        ),
    ])
}

/// The rotation about the means, with the scale that fits best.
fn procrustes(moments: &PairMoments) -> Result<Matrix> {
    let OrthogonalMap { map, nuclear_norm } = OrthogonalMap::fit(&moments.cross)?;
    let size = map.frobenius_dot(&moments.source.times(&map));
    let scale = if size > 0.0 { nuclear_norm / size } else { 1.0 };
    Ok(map.scaled(scale))
}

/// Ridge regression in the basis of the source's principal directions, where λ is a diagonal.
struct Ridge {
    vectors: Matrix,
    variances: Vec<f64>,
    /// Cross-products of principal directions and target.
    cross: Matrix,
    /// Sum of squares of a source coordinate, on average.
    unit: f64,
}

impl Ridge {
    fn new(moments: &PairMoments) -> Result<Self> {
        let scatter = &moments.source;
        let eigen = scatter.symmetric_eigen()?;
        Ok(Self {
            cross: eigen.vectors.transpose_times(&moments.cross),
            // Rounding leaves tiny negative ones.
            variances: eigen.values.iter().map(|v| v.max(0.0)).collect(),
            unit: scatter.trace() / scatter.rows() as f64,
            vectors: eigen.vectors,
        })
    }

    /// 1/(variance + λ·unit) per principal direction.
    fn shrinkage(&self, lambda: f64) -> Vec<f64> {
        let inverse = |v: f64| if v > 0.0 { 1.0 / v } else { 0.0 };
        self.variances
            .iter()
            .map(|v| inverse(v + lambda * self.unit))
            .collect()
    }

    fn weights(&self, lambda: f64) -> Matrix {
        let mut scaled = self.cross.clone();
        let columns = scaled.columns();
        for (row, factor) in scaled
            .values_mut()
            .chunks_exact_mut(columns)
            .zip(self.shrinkage(lambda))
        {
            row.iter_mut().for_each(|v| *v *= factor);
        }
        self.vectors.times(&scaled)
    }

    /// The λ with the least squared error; of equals the largest.
    fn best_lambda(&self, sums: &Sums) -> f64 {
        // With D the shrinkage: error − target = Σᵢⱼ DᵢDⱼ(AAᵀ)ᵢⱼGᵢⱼ − 2 Σᵢ Dᵢ(ACᵀ)ᵢᵢ in this basis.
        let gram = self
            .vectors
            .transpose_times(&sums.source)
            .times(&self.vectors);
        let cross = self.vectors.transpose_times(&sums.cross);
        let products = self.cross.times(&self.cross.transpose());
        let error = |lambda: f64| -> f64 {
            let factors = self.shrinkage(lambda);
            (0..factors.len())
                .map(|i| {
                    let explained: f64 = self
                        .cross
                        .row(i)
                        .iter()
                        .zip(cross.row(i))
                        .map(|(a, c)| a * c)
                        .sum();
                    let size: f64 = products
                        .row(i)
                        .iter()
                        .zip(gram.row(i))
                        .zip(&factors)
                        .map(|((p, g), f)| p * g * f)
                        .sum();
                    factors[i] * (size - 2.0 * explained)
                })
                .sum()
        };
        LAMBDAS
            .into_iter()
            .rev()
            .map(|lambda| (lambda, error(lambda)))
            .fold((LAMBDAS[0], f64::INFINITY), |best, next| {
                if next.1 < best.1 { next } else { best }
            })
            .0
    }
}

/// Directions of the target in which a map's images vary most: reduced-rank regression keeps the first.
fn prediction_basis(moments: &PairMoments, weights: &Matrix) -> Result<Matrix> {
    let images = moments.source.times(weights);
    Ok(weights.transpose_times(&images).symmetric_eigen()?.vectors)
}

/// The smallest rank whose squared error is within 1 % of the best one's.
fn best_rank(sums: &Sums, weights: &Matrix, basis: &Matrix) -> usize {
    let turned = weights.times(basis);
    let cross = sums.cross.times(basis);
    let images = sums.source.times(&turned);
    let largest = weights.rows().min(weights.columns());
    let mut errors = Vec::with_capacity(largest);
    let mut error = sums.target_trace;
    for j in 0..largest {
        for i in 0..turned.rows() {
            let weight = turned.row(i)[j];
            error += weight * (images.row(i)[j] - 2.0 * cross.row(i)[j]);
        }
        errors.push(error);
    }
    let best = errors.iter().copied().fold(f64::INFINITY, f64::min);
    1 + errors
        .iter()
        .position(|&e| e <= best * RANK_SLACK)
        .unwrap_or(largest - 1)
}

/// W V Vᵀ with the first `rank` columns of V.
fn project_onto(weights: &Matrix, basis: &Matrix, rank: usize) -> Matrix {
    let leading = basis.leading_columns(rank);
    weights.times(&leading).times(&leading.transpose())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::moments::tests::moments;
    use crate::stats::rng::Philox;

    /// Moments of y = xW + noise for `n` random rows.
    fn pairs(n: usize, weights: &Matrix, noise: f64, stream: u64) -> (PairMoments, Matrix, Matrix) {
        let mut random = Philox::new(9, stream);
        let mut draw = |columns: usize| {
            Matrix::new(
                n,
                columns,
                (0..n * columns).map(|_| random.normal()).collect(),
            )
        };
        let x = draw(weights.rows());
        let mut y = x.times(weights);
        y.add_scaled(noise, &draw(weights.columns()));
        let (source, target) = (moments(&x), moments(&y));
        let mut cross = x.transpose_times(&y);
        cross.add_outer(-(n as f64), &source.mean, &target.mean);
        (PairMoments::new(source, target, cross), x, y)
    }

    fn weights(rows: usize, columns: usize, rank: usize) -> Matrix {
        let mut random = Philox::new(2, 7);
        let mut draw = |rows: usize, columns: usize| {
            Matrix::new(
                rows,
                columns,
                (0..rows * columns).map(|_| random.normal()).collect(),
            )
        };
        draw(rows, rank).times(&draw(rank, columns))
    }

    /// The squared error from moments is that of the rows themselves.
    #[test]
    fn errors_follow_from_moments() {
        let (train, ..) = pairs(40, &weights(5, 4, 4), 0.5, 1);
        let (other, x, y) = pairs(30, &weights(5, 4, 4), 0.5, 2);
        let w = Ridge::new(&train).unwrap().weights(0.1);
        let sums = other.about(&train);
        let (mut error, mut spread) = (0.0, 0.0);
        for i in 0..30 {
            let centred = |row: &[f64], mean: &[f64]| -> Vec<f64> {
                row.iter().zip(mean).map(|(v, m)| v - m).collect()
            };
            let image = Matrix::new(1, 5, centred(x.row(i), &train.source_mean)).times(&w);
            let wanted = centred(y.row(i), &train.target_mean);
            for (a, b) in image.values().iter().zip(&wanted) {
                error += (a - b).powi(2);
                spread += b * b;
            }
        }
        // Sums of some hundred terms of size 1 in f64.
        assert!((sums.relative_error(&w) - error / spread).abs() < 1e-10);
        let joint = train.merged(&other).merged(&train);
        assert_eq!(joint.rows, 110);
        let turned = joint.turned().turned();
        assert_eq!(turned.cross, joint.cross);
    }

    /// Ridge at λ solves (XᵀX + λ·unit) W = XᵀY.
    #[test]
    fn ridge_solves_its_equations() {
        let (train, ..) = pairs(40, &weights(5, 4, 4), 0.5, 1);
        let ridge = Ridge::new(&train).unwrap();
        let w = ridge.weights(0.3);
        let mut left = train.source.times(&w);
        left.add_scaled(0.3 * train.source.trace() / 5.0, &w);
        left.add_scaled(-1.0, &train.cross);
        assert!(left.sq_frobenius().sqrt() < 1e-10 * train.cross.sq_frobenius().sqrt());
    }

    #[test]
    fn the_grid_finds_lambda_and_rank() {
        let true_weights = weights(12, 10, 3);
        let (train, ..) = pairs(200, &true_weights, 0.05, 1);
        let (validation, ..) = pairs(100, &true_weights, 0.05, 2);
        let fitted = fit_all(&train, &validation, Direction::CurrentToReference).unwrap();
        assert_eq!(
            fitted[1].adapter.rank,
            Some(3),
            "the rank that made the data"
        );
        for fit in &fitted[1..] {
            assert!(fit.validation_r_squared.unwrap() > 0.99);
        }
        // The grid's error is that of the weights themselves.
        let ridge = Ridge::new(&train).unwrap();
        let sums = validation.about(&train);
        let best = ridge.best_lambda(&sums);
        for lambda in LAMBDAS {
            let error = |lambda| sums.relative_error(&ridge.weights(lambda));
            assert!(
                error(best) <= error(lambda) + 1e-12,
                "{best} against {lambda}"
            );
        }
    }
}
