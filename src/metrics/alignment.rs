//! How alike two spaces are up to rotation: linear CKA and orthogonal Procrustes. Paired rows.

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, GramProducts, Metric, score};
use crate::error::Result;
use crate::stats::linalg::{Matrix, thin_svd};
use crate::stats::paired::{mean, quantile_sorted};

/// Fewest items per half for a held-out fit to mean anything.
const MIN_HALF: usize = 10;

/// Similarity of two spaces up to rotation.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Alignment {
    /// Linear centred kernel alignment, plug-in estimator, in [0, 1]; 1: alike up to rotation and scale.
    /// Biased upwards unless n ≫ d. Absent where a side does not vary.
    pub linear_cka: Option<f64>,
    /// The same from unbiased HSIC (Song et al. 2012): about 0 for unrelated spaces. Needs 4 rows.
    pub linear_cka_unbiased: Option<f64>,
    /// The best orthogonal map from reference to current.
    pub procrustes: Procrustes,
}

/// Orthogonal Procrustes, uncentred: R = UVᵀ of the singular value decomposition of XᵀY, Y ≈ X·R. For
/// different dimensions R is the semi-orthogonal map of the smaller into the larger.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Procrustes {
    /// ‖XR − Y‖/‖Y‖ on the items fitted to. For d > d′, where R cannot be orthogonal, of the
    /// semi-orthogonal map.
    pub residual_relative: f64,
    /// Mean cosine of XR's rows with Y's, on the items fitted to: optimistic.
    pub mean_cosine: f64,
    /// Median likewise.
    pub median_cosine: f64,
    /// Smallest likewise.
    pub min_cosine: f64,
    /// Mean cosine on one half of the items of a rotation fitted to the other; halves by id hash.
    pub heldout_mean_cosine: Option<f64>,
    /// Relative residual likewise.
    pub heldout_residual_relative: Option<f64>,
    /// Items in the half that was held out.
    pub heldout_items: u64,
}

/// Aligns row i of `x` with row i of `y`. `ids` and `seed` decide the halves.
///
/// # Errors
/// The device fails or a decomposition does not converge.
pub fn alignment(
    engine: &Engine,
    x: Rows<'_>,
    y: Rows<'_>,
    ids: &Ids,
    seed: u64,
) -> Result<Alignment> {
    let cross = engine.gram(x, y)?;
    let (linear_cka, linear_cka_unbiased) = cka(engine, x, y)?;
    let rotation = rotation(&cross, x.dim(), y.dim())?;
    let fit = Fit::new(engine, x, y, &rotation)?;
    let mut sorted = fit.cosines.clone();
    sorted.sort_by(f64::total_cmp);

    let (train, test): (Vec<usize>, Vec<usize>) =
        (0..x.len()).partition(|&i| ids.hash(i, seed ^ HALVES) & 1 == 0);
    let heldout = if train.len() >= MIN_HALF && test.len() >= MIN_HALF {
        let pick = |rows: Rows<'_>, which: &[usize]| -> Vec<f32> {
            which
                .iter()
                .flat_map(|&i| rows.row(i).iter().copied())
                .collect()
        };
        let (xt, yt) = (pick(x, &train), pick(y, &train));
        let cross = engine.gram(Rows::new(&xt, x.dim()), Rows::new(&yt, y.dim()))?;
        let rotation = self::rotation(&cross, x.dim(), y.dim())?;
        let (xh, yh) = (pick(x, &test), pick(y, &test));
        Some(Fit::new(
            engine,
            Rows::new(&xh, x.dim()),
            Rows::new(&yh, y.dim()),
            &rotation,
        )?)
    } else {
        None
    };
    Ok(Alignment {
        linear_cka,
        linear_cka_unbiased,
        procrustes: Procrustes {
            residual_relative: fit.residual_relative,
            mean_cosine: mean(&fit.cosines),
            median_cosine: quantile_sorted(&sorted, 0.5),
            min_cosine: sorted[0],
            heldout_mean_cosine: heldout.as_ref().map(|h| mean(&h.cosines)),
            heldout_residual_relative: heldout.as_ref().map(|h| h.residual_relative),
            heldout_items: heldout.map_or(0, |h| h.cosines.len() as u64),
        },
    })
}

/// Keeps the choice of halves apart from other uses of the seed.
const HALVES: u64 = 0x6861_6c76_6573_0001;

/// UVᵀ of XᵀY, turned so that its rows are what `project` takes: d′ × d.
fn rotation(cross: &GramProducts, d: usize, e: usize) -> Result<Vec<f32>> {
    let svd = thin_svd(&Matrix::new(d, e, cross.products.clone()))?;
    let map = svd.v.times(&svd.u.transposed());
    Ok(map.values().iter().map(|&v| v as f32).collect())
}

struct Fit {
    residual_relative: f64,
    cosines: Vec<f64>,
}

impl Fit {
    fn new(engine: &Engine, x: Rows<'_>, y: Rows<'_>, rotation: &[f32]) -> Result<Self> {
        let mapped = engine.project(x, Rows::new(rotation, x.dim()))?;
        let mapped = Rows::new(&mapped, y.dim());
        let (mut residual, mut total) = (0.0, 0.0);
        let mut cosines = Vec::with_capacity(y.len());
        for (a, b) in mapped.iter().zip(y.iter()) {
            for (&a, &b) in a.iter().zip(b) {
                residual += (f64::from(a) - f64::from(b)).powi(2);
                total += f64::from(b).powi(2);
            }
            let norm = score::norm(a);
            // A row that lies wholly outside the mapped subspace has no direction left.
            cosines.push(if norm > 0.0 {
                score::similarity(Metric::Cosine, a, norm, b, score::norm(b))
            } else {
                0.0
            });
        }
        Ok(Self {
            residual_relative: (residual / total).sqrt(),
            cosines,
        })
    }
}

/// Linear CKA of paired rows, plug-in and unbiased, from cross-products alone (no n × n matrix).
///
/// Plug-in: ‖YcᵀXc‖²/(‖XcᵀXc‖‖YcᵀYc‖) with centred rows. Unbiased: HSIC₁(K, L) = [t₁ + s₁s₂/((n−1)(n−2)) −
/// 2t₃/(n−2)]/(n(n−3)) with the Gram matrices' diagonals left out.
///
/// # Errors
/// The device fails.
pub fn cka(engine: &Engine, x: Rows<'_>, y: Rows<'_>) -> Result<(Option<f64>, Option<f64>)> {
    let centred = |rows: Rows<'_>| -> Vec<f32> {
        let n = rows.len() as f64;
        let mut mean = vec![0.0f64; rows.dim()];
        for row in rows.iter() {
            mean.iter_mut()
                .zip(row)
                .for_each(|(m, &v)| *m += f64::from(v) / n);
        }
        rows.iter()
            .flat_map(|row| {
                row.iter()
                    .zip(&mean)
                    .map(|(&v, m)| (f64::from(v) - m) as f32)
            })
            .collect()
    };
    let (xc, yc) = (centred(x), centred(y));
    let (xc, yc) = (Rows::new(&xc, x.dim()), Rows::new(&yc, y.dim()));
    let sets = [(xc, yc), (xc, xc), (yc, yc)];
    let mut plug_in = [0.0; 3];
    let mut unbiased = [0.0; 3];
    for (i, (a, b)) in sets.into_iter().enumerate() {
        let gram = engine.gram(a, b)?;
        let n = a.len() as f64;
        // What is left of the column sums after rounding to f32 is removed exactly.
        plug_in[i] = gram
            .products
            .iter()
            .enumerate()
            .map(|(at, &c)| {
                let d = b.dim();
                (c - gram.x_sums[at / d] * gram.y_sums[at % d] / n).powi(2)
            })
            .sum();
        unbiased[i] = hsic1(a, b, &gram);
    }
    let ratio = |v: [f64; 3]| {
        let scale = v[1] * v[2];
        (scale > 0.0).then(|| v[0] / scale.sqrt())
    };
    let unbiased = if x.len() >= 4 && unbiased[1] > 0.0 && unbiased[2] > 0.0 {
        ratio(unbiased)
    } else {
        None
    };
    Ok((ratio(plug_in), unbiased))
}

fn hsic1(x: Rows<'_>, y: Rows<'_>, gram: &GramProducts) -> f64 {
    let n = x.len() as f64;
    let (dx, dy) = (x.dim(), y.dim());
    let (sx, sy) = (&gram.x_sums, &gram.y_sums);
    let (mut a, mut b) = (vec![0.0; dx], vec![0.0; dy]);
    let (mut q, mut x_squares, mut y_squares) = (0.0, 0.0, 0.0);
    for (u, v) in x.iter().zip(y.iter()) {
        let (p, r) = (score::dot(u, u), score::dot(v, v));
        a.iter_mut()
            .zip(u)
            .for_each(|(s, &u)| *s += f64::from(u) * r);
        b.iter_mut()
            .zip(v)
            .for_each(|(s, &v)| *s += f64::from(v) * p);
        q += p * r;
        x_squares += p;
        y_squares += r;
    }
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let t1 = dot(&gram.products, &gram.products) - q;
    let s1 = dot(sx, sx) - x_squares;
    let s2 = dot(sy, sy) - y_squares;
    let through: f64 = (0..dx)
        .map(|i| sx[i] * dot(&gram.products[i * dy..(i + 1) * dy], sy))
        .sum();
    let t3 = through - dot(sx, &a) - dot(sy, &b) + q;
    (t1 + s1 * s2 / ((n - 1.0) * (n - 2.0)) - 2.0 * t3 / (n - 2.0)) / (n * (n - 3.0))
}
