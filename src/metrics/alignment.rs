//! Alignment of paired sets: how alike two representations of the same items are once coordinates do not
//! matter (CKA), and once one of them may be rotated (Procrustes).

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::cosine;
use super::moments::{CrossMoments, Moments};
use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::stats::distribution;
use crate::stats::linalg::{Matrix, Svd};

/// Rows gathered and mapped at once.
const CHUNK: usize = 16_384;

/// Linear centred kernel alignment of paired rows. Invariant under rotation, shift and scale of either
/// side; dimensions may differ. 1 when one side is a scaled rotation of the other.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LinearCka {
    /// Pairs of rows, n.
    pub pairs: usize,
    /// ‖XᵀY‖²_F / (‖XᵀX‖_F ‖YᵀY‖_F) of centred rows, in [0, 1]. Far above 0 for unrelated sets unless rows
    /// are many more than dimensions. `null` where a side does not vary.
    pub cka_biased: Option<f64>,
    /// The same from unbiased estimates (HSIC₁): 0 in expectation for unrelated sets, so it may be
    /// negative. `null` for fewer than four pairs or where a side's estimate is not positive.
    pub cka_debiased: Option<f64>,
}

/// Linear CKA of rows that belong together by position; `x` and `y` have the given moments.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If the numbers of rows differ.
///
/// # Source
/// Kornblith et al. (2019); Song et al. (2012) for HSIC₁; Nguyen et al. (2021). Golden values:
/// fixtures/golden/cka.json.
pub fn linear_cka(
    engine: &Engine,
    x: Rows<'_>,
    y: Rows<'_>,
    x_moments: &Moments,
    y_moments: &Moments,
) -> Result<LinearCka> {
    let cross = CrossMoments::of(engine, x, y)?;
    Ok(cka_of(&cross, x_moments, y_moments))
}

fn cka_of(cross: &CrossMoments, x: &Moments, y: &Moments) -> LinearCka {
    // Roots are taken one by one: the product of two fourth powers may overflow.
    let ratio =
        |xy: f64, xx: f64, yy: f64| (xx > 0.0 && yy > 0.0).then(|| xy / xx.sqrt() / yy.sqrt());
    let biased = ratio(
        cross.scatter.sq_frobenius(),
        x.scatter.sq_frobenius(),
        y.scatter.sq_frobenius(),
    );
    let hsic = cross.hsic(x, y).zip(x.hsic().zip(y.hsic()));
    LinearCka {
        pairs: cross.rows,
        cka_biased: biased.map(|cka| cka.min(1.0)),
        cka_debiased: hsic.and_then(|(xy, (xx, yy))| ratio(xy, xx, yy)),
    }
}

/// The orthogonal map that brings one side of paired rows nearest to the other.
#[derive(Debug, Clone)]
pub struct OrthogonalMap {
    /// Q, d × d′: a row x becomes xQ. Orthonormal rows for d ≤ d′, else orthonormal columns.
    pub map: Matrix,
    /// Sum of the singular values of XᵀY. For d ≤ d′ the squared residual of the rows that made the map is
    /// ‖X‖² + ‖Y‖² − 2 · this.
    pub nuclear_norm: f64,
}

impl OrthogonalMap {
    /// Q = U Vᵀ from the singular value decomposition of XᵀY (d × d′).
    ///
    /// For d ≤ d′ it minimises ‖XQ − Y‖_F over maps with orthonormal rows; for d > d′ it is the first d′
    /// columns of the rotation that is best against Y padded with zeros.
    ///
    /// # Errors
    /// Singular values do not converge.
    ///
    /// # Source
    /// Schönemann (1966). Golden values: fixtures/golden/procrustes.json.
    pub fn fit(products: &Matrix) -> Result<Self> {
        let Svd {
            u,
            singular_values,
            v,
        } = products.svd()?;
        Ok(Self {
            map: u.times(&v.transpose()),
            nuclear_norm: singular_values.iter().sum(),
        })
    }
}

/// Orthogonal Procrustes alignment of paired rows, the reference brought onto the current set, about the
/// origin and without scaling.
///
/// Values after alignment are optimistic where the same pairs made the map: with few pairs per dimension
/// even unrelated sets align. Values named held out come from a map fitted on one half of the pairs, by
/// hash of the id, and scored on the other.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Procrustes {
    /// Pairs of rows.
    pub pairs: usize,
    /// ‖XQ − Y‖_F / ‖Y‖_F, same pairs; 0 for a rotated copy.
    pub residual_relative: f64,
    /// Mean cosine of xQ and y, same pairs.
    pub mean_cosine: f64,
    /// Median cosine, same pairs.
    pub median_cosine: f64,
    /// Smallest cosine, same pairs.
    pub min_cosine: f64,
    /// On pairs that did not make the map; `null` where a half is empty.
    pub heldout: Option<HeldoutProcrustes>,
}

/// Procrustes alignment scored on pairs that did not make the map.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct HeldoutProcrustes {
    /// Pairs that made the map.
    pub fit_pairs: usize,
    /// Pairs that it is scored on.
    pub heldout_pairs: usize,
    /// ‖XQ − Y‖_F / ‖Y‖_F.
    pub heldout_residual_relative: f64,
    /// Mean cosine of xQ and y.
    pub heldout_mean_cosine: f64,
    /// Mean cosine about the means of the pairs that made the map: without what all rows share, so that it
    /// is near 1 only where single items land where they belong. `null` where no row differs from the mean.
    pub heldout_mean_cosine_centred: Option<f64>,
    /// Mean cosine of the same pairs before alignment; `null` where the dimensions differ.
    pub mean_cosine_before: Option<f64>,
    /// heldout_mean_cosine − mean_cosine_before: what alignment gains.
    pub rise: Option<f64>,
}

/// Aligns `x` with `y`, rows belonging together by position, `ids` naming them; dimensions may differ.
/// `None` without a pair.
///
/// # Errors
/// The device fails, or singular values do not converge.
///
/// # Panics
/// If the numbers of rows and ids differ.
pub fn procrustes(
    engine: &Engine,
    x: Rows<'_>,
    y: Rows<'_>,
    ids: &Ids,
    seed: u64,
) -> Result<Option<Procrustes>> {
    if x.is_empty() {
        return Ok(None);
    }
    let (fit, held) = halves(ids, seed);
    let fit_half = Half::of(engine, x, y, fit)?;
    let held_half = Half::of(engine, x, y, held)?;
    let mut products = fit_half.products.clone();
    products.add_scaled(1.0, &held_half.products);
    let map = OrthogonalMap::fit(&products)?;
    let all: Vec<usize> = (0..x.len()).collect();
    let mut scored = map.score(engine, x, y, &all, None)?;
    let mean_cosine = scored.mean_cosine();
    scored.cosines.sort_by(f64::total_cmp);
    let quantile = |q| distribution::quantile_sorted(&scored.cosines, q).unwrap_or(mean_cosine);
    Ok(Some(Procrustes {
        pairs: x.len(),
        residual_relative: scored.residual_relative(),
        mean_cosine,
        median_cosine: quantile(0.5),
        min_cosine: quantile(0.0),
        heldout: heldout(engine, x, y, &fit_half, &held_half.pairs)?,
    }))
}

/// The held-out part of [`procrustes`] alone. `None` where a half is empty.
///
/// # Errors
/// The device fails, or singular values do not converge.
///
/// # Panics
/// If the numbers of rows and ids differ.
pub fn heldout_procrustes(
    engine: &Engine,
    x: Rows<'_>,
    y: Rows<'_>,
    ids: &Ids,
    seed: u64,
) -> Result<Option<HeldoutProcrustes>> {
    let (fit, held) = halves(ids, seed);
    heldout(engine, x, y, &Half::of(engine, x, y, fit)?, &held)
}

fn heldout(
    engine: &Engine,
    x: Rows<'_>,
    y: Rows<'_>,
    fit: &Half,
    held: &[usize],
) -> Result<Option<HeldoutProcrustes>> {
    if fit.pairs.is_empty() || held.is_empty() {
        return Ok(None);
    }
    let map = OrthogonalMap::fit(&fit.products)?;
    let scored = map.score(engine, x, y, held, Some([&fit.x_mean, &fit.y_mean]))?;
    let heldout_mean_cosine = scored.mean_cosine();
    let mean_cosine_before = (x.dim() == y.dim()).then(|| {
        let sum: f64 = held
            .iter()
            .map(|&i| cosine::paired_cosines(x.slice(i..i + 1), y.slice(i..i + 1))[0])
            .sum();
        sum / held.len() as f64
    });
    Ok(Some(HeldoutProcrustes {
        fit_pairs: fit.pairs.len(),
        heldout_pairs: held.len(),
        heldout_residual_relative: scored.residual_relative(),
        heldout_mean_cosine,
        heldout_mean_cosine_centred: distribution::mean_std(&scored.centred_cosines)
            .map(|m| m.mean),
        mean_cosine_before,
        rise: mean_cosine_before.map(|before| heldout_mean_cosine - before),
    }))
}

/// The pairs in two halves, by the lowest bit of the hash of the id, each in the order of hash and id.
fn halves(ids: &Ids, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by(|&a, &b| (ids.hash(a, seed), ids.get(a)).cmp(&(ids.hash(b, seed), ids.get(b))));
    order.into_iter().partition(|&i| ids.hash(i, seed) & 1 == 0)
}

/// Some of the pairs, and what a map is fitted from.
struct Half {
    pairs: Vec<usize>,
    products: Matrix,
    x_mean: Vec<f64>,
    y_mean: Vec<f64>,
}

impl Half {
    fn of(engine: &Engine, x: Rows<'_>, y: Rows<'_>, pairs: Vec<usize>) -> Result<Self> {
        let mut products = Matrix::zeros(x.dim(), y.dim());
        let (mut x_mean, mut y_mean) = (vec![0.0; x.dim()], vec![0.0; y.dim()]);
        let add = |into: &mut [f64], part: &[f64], factor: f64| {
            into.iter_mut()
                .zip(part)
                .for_each(|(sum, part)| *sum += part * factor);
        };
        for chunk in pairs.chunks(CHUNK) {
            let gather = |rows: Rows<'_>| rows.gather(chunk.iter().copied());
            let (x_chunk, y_chunk) = (gather(x), gather(y));
            let gram = engine.gram(Rows::new(&x_chunk, x.dim()), Rows::new(&y_chunk, y.dim()))?;
            add(products.values_mut(), &gram.products, 1.0);
            add(&mut x_mean, &gram.x_sums, 1.0 / pairs.len() as f64);
            add(&mut y_mean, &gram.y_sums, 1.0 / pairs.len() as f64);
        }
        Ok(Self {
            pairs,
            products,
            x_mean,
            y_mean,
        })
    }
}

/// How near one mapped row comes to its target.
struct ScoredRow {
    sq_residual: f64,
    sq_target: f64,
    cosine: f64,
    centred_cosine: Option<f64>,
}

/// How near mapped rows come to their targets.
#[derive(Default)]
struct Scored {
    sq_residual: f64,
    sq_target: f64,
    cosines: Vec<f64>,
    centred_cosines: Vec<f64>,
}

impl Scored {
    fn residual_relative(&self) -> f64 {
        (self.sq_residual / self.sq_target).sqrt()
    }

    fn mean_cosine(&self) -> f64 {
        self.cosines.iter().sum::<f64>() / self.cosines.len() as f64
    }
}

impl OrthogonalMap {
    /// Maps the given rows of `x` and compares them with those of `y`; with `means`, about the means too.
    fn score(
        &self,
        engine: &Engine,
        x: Rows<'_>,
        y: Rows<'_>,
        pairs: &[usize],
        means: Option<[&[f64]; 2]>,
    ) -> Result<Scored> {
        let centres = means.map(|[x_mean, y_mean]| {
            let x_mean = Matrix::new(1, x_mean.len(), x_mean.to_vec());
            (x_mean.times(&self.map), y_mean)
        });
        let mut scored = Scored::default();
        let weights: Vec<f32> = self
            .map
            .transpose()
            .values()
            .iter()
            .map(|&v| v as f32)
            .collect();
        for chunk in pairs.chunks(CHUNK) {
            // A power of two brings each row to length near 1, where no product overflows f32.
            let exponent = |i: usize| score::unit_exponent(score::norm(&x.row(i)));
            let mut scaled = vec![0.0f32; chunk.len() * x.dim()];
            scaled
                .par_chunks_exact_mut(x.dim())
                .zip(chunk)
                .for_each(|(scaled, &i)| {
                    let scale = 2f64.powi(exponent(i));
                    for (to, &v) in scaled.iter_mut().zip(&*x.row(i)) {
                        *to = (f64::from(v) * scale) as f32;
                    }
                });
            let scaled = Rows::new(&scaled, x.dim());
            let mapped = engine.project(scaled, Rows::new(&weights, x.dim()))?;
            let score_row = |(a, &i): (&[f32], &usize)| {
                let b = &*y.row(i);
                let unscale = 2f64.powi(-exponent(i));
                let image: Vec<f64> = a.iter().map(|&v| f64::from(v) * unscale).collect();
                let differences = image.iter().zip(b).map(|(a, &b)| a - f64::from(b));
                let norm = score::norm(a);
                ScoredRow {
                    sq_residual: differences.map(|v| v * v).sum(),
                    sq_target: score::dot(b, b),
                    // A row with nothing in the target's dimensions maps to 0: no direction, no likeness.
                    cosine: if norm > 0.0 {
                        score::similarity(Metric::Cosine, a, norm, b, score::norm(b))
                    } else {
                        0.0
                    },
                    centred_cosine: centres.as_ref().and_then(|(x_centre, y_centre)| {
                        let a = image
                            .iter()
                            .zip(x_centre.values())
                            .map(|(v, mean)| v - mean);
                        let b = b
                            .iter()
                            .zip(*y_centre)
                            .map(|(&v, mean)| f64::from(v) - mean);
                        let (a, b): (Vec<f64>, Vec<f64>) = (a.collect(), b.collect());
                        cosine_f64(&a, &b)
                    }),
                }
            };
            let rows: Vec<ScoredRow> = mapped
                .par_chunks_exact(y.dim())
                .zip(chunk)
                .map(score_row)
                .collect();
            // Added in row order, whichever thread scored them.
            for row in rows {
                scored.sq_residual += row.sq_residual;
                scored.sq_target += row.sq_target;
                scored.cosines.push(row.cosine);
                scored.centred_cosines.extend(row.centred_cosine);
            }
        }
        Ok(scored)
    }
}

/// Cosine of two vectors; `None` where one is 0.
pub(super) fn cosine_f64(x: &[f64], y: &[f64]) -> Option<f64> {
    let dot = |x: &[f64], y: &[f64]| x.iter().zip(y).map(|(a, b)| a * b).sum::<f64>();
    let norms = dot(x, x).sqrt() * dot(y, y).sqrt();
    (norms > 0.0).then(|| (dot(x, y) / norms).clamp(-1.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::moments::tests::{assert_golden, cross_moments, golden, matrix, moments};

    #[test]
    fn golden_cka() {
        let golden = golden("cka");
        let (x, y) = (matrix(&golden["X"]), matrix(&golden["Y"]));
        let cross = cross_moments(&x, &y);
        let (mx, my) = (moments(&x), moments(&y));
        let found = cka_of(&cross, &mx, &my);
        assert_golden(found.cka_biased.unwrap(), &golden["cka_biased"]);
        assert_golden(found.cka_debiased.unwrap(), &golden["cka_debiased"]);
        assert_golden(cross.hsic(&mx, &my).unwrap(), &golden["hsic1_xy"]);
        assert_golden(mx.hsic().unwrap(), &golden["hsic1_xx"]);
        assert_golden(my.hsic().unwrap(), &golden["hsic1_yy"]);
    }

    #[test]
    fn golden_procrustes() {
        let golden = golden("procrustes");
        let x = matrix(&golden["X"]);
        for part in [&golden, &golden["diffdim"]] {
            let y = matrix(&part["Y"]);
            let found = OrthogonalMap::fit(&x.transpose_times(&y)).unwrap();
            let expected = matrix(&part["Q"]);
            for (a, b) in found.map.values().iter().zip(expected.values()) {
                assert!((a - b).abs() < 1e-10, "{a} is not {b}");
            }
            let residual = x.sq_frobenius() + y.sq_frobenius() - 2.0 * found.nuclear_norm;
            assert_golden(residual, &part["residual_sq"]);
        }
        let y = matrix(&golden["Y"]);
        let found = OrthogonalMap::fit(&x.transpose_times(&y)).unwrap();
        assert_golden(found.nuclear_norm, &golden["nuclear_norm"]);
    }
}
