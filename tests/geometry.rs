//! Distribution and geometry measures through the engine: golden values, invariances, edge cases.

use std::fmt::Debug;

use serde_json::Value;
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::alignment::{LinearCka, linear_cka, procrustes};
use vecdrift::metrics::comparability::{SharedRows, SpaceRelation, comparability};
use vecdrift::metrics::cosine::{self, CosineDistribution};
use vecdrift::metrics::frechet::{Frechet, frechet};
use vecdrift::metrics::moments::{
    Moments, UnitMoments, centroid_shift, constant_dimensions, norm_distribution, norm_shift,
};
use vecdrift::metrics::spectrum::{Spectrum, spectrum, subspace_similarity};
use vecdrift::stats::rng::Philox;

fn engine() -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .unwrap()
}

/// Rows that own their values.
#[derive(Clone)]
struct Set {
    values: Vec<f32>,
    dim: usize,
}

impl Set {
    fn rows(&self) -> Rows<'_> {
        Rows::new(&self.values, self.dim)
    }

    /// Gaussian rows; dimension j has standard deviation 1/√(j + 1) and mean `offset`.
    fn gaussian(n: usize, dim: usize, offset: f64, stream: u64) -> Self {
        let mut rng = Philox::new(11, stream);
        let values = (0..n * dim)
            .map(|i| (offset + rng.normal() / ((i % dim + 1) as f64).sqrt()) as f32)
            .collect();
        Self { values, dim }
    }

    /// Every row reflected at the hyperplane across `normal`, then its coordinates moved on by one: an
    /// orthogonal map.
    fn rotated(&self) -> Self {
        let normal: Vec<f64> = (0..self.dim)
            .map(|j| (j as f64 * 1.7).sin() + 0.3)
            .collect();
        let sq_norm: f64 = normal.iter().map(|v| v * v).sum();
        let values = self.rows().iter().flat_map(|row| {
            let along: f64 = row
                .iter()
                .zip(&normal)
                .map(|(&v, n)| f64::from(v) * n)
                .sum();
            let mut image: Vec<f32> = row
                .iter()
                .zip(&normal)
                .map(|(&v, n)| (f64::from(v) - 2.0 * along / sq_norm * n) as f32)
                .collect();
            image.rotate_right(1);
            image
        });
        Self {
            values: values.collect(),
            dim: self.dim,
        }
    }

    /// Gaussian noise of standard deviation `scale` on top.
    fn noisy(&self, scale: f64, stream: u64) -> Self {
        let mut rng = Philox::new(12, stream);
        let noisy = |&v: &f32| (f64::from(v) + scale * rng.normal()) as f32;
        Self {
            values: self.values.iter().map(noisy).collect(),
            dim: self.dim,
        }
    }

    /// Only the given rows.
    fn picked(&self, order: &[usize]) -> Self {
        Self {
            values: self.rows().gather(order.iter().copied()),
            dim: self.dim,
        }
    }
}

fn ids(n: usize) -> Ids {
    (0..n).map(|i| format!("doc-{i}")).collect()
}

fn golden(name: &str) -> Value {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/golden");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn set(value: &Value) -> Set {
    let rows = value.as_array().unwrap();
    let values = rows.iter().flat_map(|row| row.as_array().unwrap());
    Set {
        values: values.map(|v| v.as_f64().unwrap() as f32).collect(),
        dim: rows[0].as_array().unwrap().len(),
    }
}

#[track_caller]
fn assert_close(found: f64, expected: f64, tolerance: f64) {
    assert!(
        (found - expected).abs() <= tolerance * (1.0 + expected.abs()),
        "{found} is not {expected} within {tolerance}"
    );
}

/// The golden inputs are rounded to f32 on the way in: 6e-8 per value, a few times that in ratios.
#[track_caller]
fn assert_golden(found: Option<f64>, golden: &Value) {
    assert_close(found.unwrap(), golden.as_f64().unwrap(), 1e-6);
}

fn cka(engine: &Engine, x: &Set, y: &Set) -> LinearCka {
    let [x_moments, y_moments] = [x, y].map(|s| Moments::of(engine, s.rows()).unwrap());
    linear_cka(engine, x.rows(), y.rows(), &x_moments, &y_moments).unwrap()
}

fn fd(engine: &Engine, x: &Set, y: &Set) -> Option<Frechet> {
    let [x, y] = [x, y].map(|s| Moments::of(engine, s.rows()).unwrap());
    frechet(&x, &y).unwrap()
}

fn spectrum_of(engine: &Engine, x: &Set) -> Spectrum {
    let moments = Moments::of(engine, x.rows()).unwrap();
    spectrum(&moments, &UnitMoments::of(engine, x.rows()).unwrap()).unwrap()
}

fn within(engine: &Engine, x: &Set) -> CosineDistribution {
    let unit = UnitMoments::of(engine, x.rows()).unwrap();
    cosine::within(engine, x.rows(), &unit).unwrap()
}

fn between(engine: &Engine, x: &Set, y: &Set) -> CosineDistribution {
    let [x_unit, y_unit] = [x, y].map(|s| UnitMoments::of(engine, s.rows()).unwrap());
    cosine::between(engine, x.rows(), y.rows(), &x_unit, &y_unit).unwrap()
}

#[test]
fn moments_match_golden_values() {
    let golden = golden("moments_merge");
    let (a, b) = (set(&golden["A"]), set(&golden["B"]));
    let both = Set {
        values: [a.values.clone(), b.values.clone()].concat(),
        dim: 2,
    };
    for (set, state) in [(&a, "state_A"), (&b, "state_B"), (&both, "state_AB")] {
        let found = Moments::of(&engine(), set.rows()).unwrap();
        let state = &golden[state];
        assert_eq!(found.rows as u64, state["n"].as_u64().unwrap());
        for i in 0..2 {
            assert_golden(Some(found.mean[i]), &state["mean"][i]);
            for j in 0..2 {
                assert_golden(Some(found.scatter.row(i)[j]), &state["M2"][i][j]);
            }
        }
    }
}

/// A mean a thousand times the spread costs no digits of the covariance, only those that f32 input lacks.
#[test]
fn moments_survive_a_distant_mean() {
    let near = Set::gaussian(500, 4, 0.0, 1);
    let far = Set {
        // Rounded to multiples of 2⁻¹², so that adding 1024 is exact.
        values: near
            .values
            .iter()
            .map(|v| (v * 4096.0).round() / 4096.0)
            .collect(),
        dim: 4,
    };
    let shifted = Set {
        values: far.values.iter().map(|v| v + 1024.0).collect(),
        dim: 4,
    };
    let [a, b] = [far, shifted].map(|s| Moments::of(&engine(), s.rows()).unwrap());
    for (a, b) in a.scatter.values().iter().zip(b.scatter.values()) {
        assert_close(*b, *a, 1e-6);
    }
}

/// Values near the smallest and the largest f32 keep their digits: everything scales.
#[test]
fn moments_scale_with_the_data() {
    let x = Set::gaussian(50, 4, 0.3, 41);
    let base = Moments::of(&engine(), x.rows()).unwrap();
    for exponent in [-100, 120] {
        let scale = 2f64.powi(exponent);
        let scaled = Set {
            values: x.values.iter().map(|v| v * scale as f32).collect(),
            dim: 4,
        };
        let found = Moments::of(&engine(), scaled.rows()).unwrap();
        for (a, b) in base.scatter.values().iter().zip(found.scatter.values()) {
            assert_close(b / scale / scale, *a, 1e-12);
        }
        assert_close(found.fourth / scale.powi(4), base.fourth, 1e-12);
    }
}

#[test]
fn cosines_match_golden_moments() {
    let golden = golden("spectrum");
    let x = set(&golden["X_unit"]);
    let found = within(&engine(), &x);
    assert_eq!(found.pairs, 15);
    assert_golden(found.mean, &golden["mean_cos_offdiag"]);
    let mean_square = found.std.unwrap().powi(2) + found.mean.unwrap().powi(2);
    assert_golden(Some(mean_square), &golden["mean_cos2_offdiag"]);
    assert_eq!(found.histogram.total(), 15);
    assert_eq!(
        found.histogram.edges.len(),
        found.histogram.counts.len() + 1
    );
    assert_golden(
        spectrum_of(&engine(), &x).vendi_cosine,
        &golden["vendi_cosine"],
    );
}

/// Every number against plain f64 over all pairs.
#[test]
fn cosine_distributions_match_an_oracle() {
    let (x, y) = (Set::gaussian(60, 9, 0.4, 2), Set::gaussian(70, 9, 0.1, 3));
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum()
        };
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let mut inner = Vec::new();
    let mut cross = Vec::new();
    for (i, a) in x.rows().iter().enumerate() {
        inner.extend(x.rows().iter().skip(i + 1).map(|b| cosine(&a, &b)));
        cross.extend(y.rows().iter().map(|b| cosine(&a, &b)));
    }
    let engine = engine();
    for (found, mut cosines) in [
        (within(&engine, &x), inner),
        (between(&engine, &x, &y), cross),
    ] {
        cosines.sort_by(f64::total_cmp);
        let n = cosines.len() as f64;
        let mean = cosines.iter().sum::<f64>() / n;
        let variance = cosines.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / n;
        assert_eq!(found.pairs as usize, cosines.len());
        // f32 products of unit rows.
        assert_close(found.mean.unwrap(), mean, 1e-6);
        assert_close(found.std.unwrap(), variance.sqrt(), 1e-5);
        assert_close(found.min.unwrap(), cosines[0], 1e-6);
        assert_close(found.max.unwrap(), cosines[cosines.len() - 1], 1e-6);
        for (name, value) in &found.quantiles {
            let q: f64 = name.parse().unwrap();
            let exact = cosines[(q * n).ceil() as usize - 1];
            // One bin, and f32 products on its edges.
            assert!(
                (value - exact).abs() <= 2.0 / 4096.0 + 1e-6,
                "{name}: {value}, {exact}"
            );
        }
    }
}

#[test]
fn integrity_check_rejects_wrong_products() {
    let engine = engine();
    let (x, y) = (Set::gaussian(50, 5, 0.5, 4), Set::gaussian(50, 5, 0.4, 5));
    let [right, wrong] = [&x, &y].map(|s| UnitMoments::of(&engine, s.rows()).unwrap());
    assert!(cosine::within(&engine, x.rows(), &right).is_ok());
    let error = cosine::within(&engine, x.rows(), &wrong).unwrap_err();
    assert!(error.is_device(), "{error}");
    assert!(error.to_string().contains("mean cosine"), "{error}");
    assert!(cosine::between(&engine, x.rows(), x.rows(), &right, &wrong).is_err());
}

#[test]
fn cosine_shift_is_zero_only_without_drift() {
    let engine = engine();
    let x = within(&engine, &Set::gaussian(120, 8, 0.2, 6));
    let own = cosine::shift(&x, &x).unwrap();
    assert_eq!(
        (own.ks, own.wasserstein_1, own.js_nats, own.psi),
        (0.0, 0.0, 0.0, 0.0)
    );
    let tighter = within(&engine, &Set::gaussian(120, 8, 1.0, 6));
    let found = cosine::shift(&x, &tighter).unwrap();
    assert!(found.mean_difference > 0.2, "{found:?}");
    // A pure upward shift: the distance is the difference of the means.
    assert_close(found.wasserstein_1, found.mean_difference, 0.01);
    assert!(
        found.ks > 0.3 && found.js_bits > 0.1 && found.psi > 0.25,
        "{found:?}"
    );
    let back = cosine::shift(&tighter, &x).unwrap();
    assert_eq!(back.ks, found.ks);
    assert_close(back.js_nats, found.js_nats, 1e-12);
    assert_eq!(back.mean_difference, -found.mean_difference);
}

#[test]
fn paired_cosines_by_hand() {
    let x = Set {
        values: vec![1.0, 0.0, 0.0, 2.0, 3.0, 0.0],
        dim: 2,
    };
    let y = Set {
        values: vec![2.0, 0.0, 5.0, 0.0, 1.0, 1.0],
        dim: 2,
    };
    let found = cosine::paired(x.rows(), y.rows());
    for (found, expected) in found.cosines.iter().zip([1.0, 0.0, 0.5f64.sqrt()]) {
        assert_close(*found, expected, 1e-15);
    }
    assert_eq!((found.min, found.max), (Some(0.0), Some(1.0)));
    assert_eq!(found.share_below_0_9, Some(2.0 / 3.0));
    assert_eq!(found.share_below_0_5, Some(1.0 / 3.0));
    assert_eq!(found.deciles.len(), 9);
    assert_eq!(found.histogram.total(), 3);
}

#[test]
fn frechet_and_cka_match_golden_values() {
    let engine = engine();
    let golden_frechet = golden("frechet");
    let (x, y) = (set(&golden_frechet["X"]), set(&golden_frechet["Y"]));
    let found = fd(&engine, &x, &y).unwrap();
    assert_golden(Some(found.frechet_distance), &golden_frechet["frechet"]);
    let golden_cka = golden("cka");
    let (x, y) = (set(&golden_cka["X"]), set(&golden_cka["Y"]));
    for found in [cka(&engine, &x, &y), cka(&engine, &y, &x)] {
        assert_golden(found.cka_biased, &golden_cka["cka_biased"]);
        assert_golden(found.cka_debiased, &golden_cka["cka_debiased"]);
    }
}

#[test]
fn procrustes_matches_golden_values() {
    let engine = engine();
    let golden = golden("procrustes");
    let x = set(&golden["X"]);
    for part in [&golden, &golden["diffdim"]] {
        let y = set(&part["Y"]);
        let found = procrustes(&engine, x.rows(), y.rows(), &ids(7), 0)
            .unwrap()
            .unwrap();
        let sq_target: f64 = y.values.iter().map(|&v| f64::from(v).powi(2)).sum();
        let residual = part["residual_sq"].as_f64().unwrap();
        assert_close(found.residual_relative, (residual / sq_target).sqrt(), 1e-6);
        if let Some(mean_cosine) = part["mean_cos_after"].as_f64() {
            assert_close(found.mean_cosine, mean_cosine, 1e-6);
        }
    }
}

/// Rotating both sides alike changes coordinates and nothing else.
#[test]
fn measures_are_rotation_invariant() {
    let engine = engine();
    let (x, y) = (
        Set::gaussian(300, 12, 0.3, 7),
        Set::gaussian(300, 12, 0.2, 8),
    );
    let (xr, yr) = (x.rotated(), y.rotated());
    // The rotated rows are rounded to f32 once more.
    let tolerance = 1e-5;
    let (a, b) = (fd(&engine, &x, &y).unwrap(), fd(&engine, &xr, &yr).unwrap());
    let distance = a.frechet_distance;
    assert_close(b.frechet_distance, distance, tolerance);
    assert_close(b.null_bias, a.null_bias, tolerance);
    let (a, b) = (cka(&engine, &x, &y), cka(&engine, &xr, &yr));
    assert_close(b.cka_biased.unwrap(), a.cka_biased.unwrap(), tolerance);
    assert_close(b.cka_debiased.unwrap(), a.cka_debiased.unwrap(), tolerance);
    let (sx, sxr) = (spectrum_of(&engine, &x), spectrum_of(&engine, &xr));
    for (a, b) in [
        (sx.total_variance, sxr.total_variance),
        (
            sx.effective_rank_eigenvalues,
            sxr.effective_rank_eigenvalues,
        ),
        (
            sx.effective_rank_singular_values,
            sxr.effective_rank_singular_values,
        ),
        (
            sx.participation_ratio_debiased,
            sxr.participation_ratio_debiased,
        ),
        (sx.mean_resultant_length, sxr.mean_resultant_length),
        (sx.vendi_cosine, sxr.vendi_cosine),
    ] {
        assert_close(b.unwrap(), a.unwrap(), tolerance);
    }
    let (sy, syr) = (spectrum_of(&engine, &y), spectrum_of(&engine, &yr));
    let (a, b) = (
        subspace_similarity(&sx, &sy).unwrap(),
        subspace_similarity(&sxr, &syr).unwrap(),
    );
    assert_close(b.mean_sq_cosine, a.mean_sq_cosine, 1e-3);
    let near = x.noisy(0.7, 1);
    let ids = ids(300);
    let auc = |x: &Set, y: &Set| {
        let shared = SharedRows {
            reference: x.rows(),
            current: y.rows(),
            ids: &ids,
        };
        comparability(&engine, shared, 0).unwrap().auc.unwrap()
    };
    assert_close(auc(&xr, &near.rotated()), auc(&x, &near), 1e-3);
    // Control: rotating one side alone is seen.
    assert!(fd(&engine, &x, &yr).unwrap().frechet_distance > 2.0 * distance);
    assert_close(cka(&engine, &x, &xr).cka_debiased.unwrap(), 1.0, tolerance);
}

#[test]
fn measures_are_symmetric() {
    let engine = engine();
    let (x, y) = (Set::gaussian(90, 6, 0.3, 9), Set::gaussian(110, 6, 0.1, 10));
    let (a, b) = (fd(&engine, &x, &y).unwrap(), fd(&engine, &y, &x).unwrap());
    assert_close(a.frechet_distance, b.frechet_distance, 1e-12);
    assert_close(a.null_bias, b.null_bias, 1e-12);
    let [mx, my] = [&x, &y].map(|s| Moments::of(&engine, s.rows()).unwrap());
    let (a, b) = (centroid_shift(&mx, &my), centroid_shift(&my, &mx));
    assert_eq!((a.l2, a.cosine), (b.l2, b.cosine));
    let [sx, sy] = [&x, &y].map(|s| spectrum_of(&engine, s));
    let (a, b) = (
        subspace_similarity(&sx, &sy).unwrap(),
        subspace_similarity(&sy, &sx).unwrap(),
    );
    assert_close(a.mean_sq_cosine, b.mean_sq_cosine, 1e-12);
    let (a, b) = (between(&engine, &x, &y), between(&engine, &y, &x));
    assert_eq!(a.fine, b.fine);
}

/// Under the null the debiased values scatter about 0; a shift of the mean shows in full.
#[test]
fn debiased_distances_are_centred_on_zero() {
    let engine = engine();
    let (n, dim) = (320, 16);
    let mut frechet = 0.0;
    let mut bias = 0.0;
    let mut shift = 0.0;
    let repeats = 20;
    for repeat in 0..repeats {
        let x = Set::gaussian(n, dim, 0.5, 100 + 2 * repeat);
        let y = Set::gaussian(n, dim, 0.5, 101 + 2 * repeat);
        let found = fd(&engine, &x, &y).unwrap();
        assert!(!found.too_few_rows);
        frechet += found.frechet_distance_debiased / repeats as f64;
        bias += found.null_bias / repeats as f64;
        let [x, y] = [x, y].map(|s| Moments::of(&engine, s.rows()).unwrap());
        shift += centroid_shift(&x, &y).sq_l2_debiased.unwrap() / repeats as f64;
    }
    // The expansion is good to a few percent here; the mean of 20 runs has a standard error of about
    // 6 % of the bias.
    assert!(frechet.abs() < 0.25 * bias, "{frechet} against {bias}");
    assert!(shift.abs() < 0.25 * bias, "{shift} against {bias}");
    let x = Set::gaussian(n, dim, 0.5, 98);
    let y = Set::gaussian(n, dim, 1.0, 99);
    let found = fd(&engine, &x, &y).unwrap();
    assert_close(found.frechet_distance_debiased, 0.25 * dim as f64, 0.1);
}

/// Independent sets with more dimensions than rows: the biased value is large, the debiased one is not.
#[test]
fn only_debiased_cka_sees_that_sets_are_unrelated() {
    let engine = engine();
    let (x, y) = (
        Set::gaussian(60, 90, 0.0, 12),
        Set::gaussian(60, 90, 0.0, 13),
    );
    let found = cka(&engine, &x, &y);
    assert!(found.cka_biased.unwrap() > 0.15, "{found:?}");
    assert!(found.cka_debiased.unwrap().abs() < 0.05, "{found:?}");
}

/// Likewise for Procrustes: pairs that made the map flatter it.
#[test]
fn heldout_procrustes_is_honest() {
    let engine = engine();
    let (x, y) = (
        Set::gaussian(60, 50, 0.0, 14),
        Set::gaussian(60, 50, 0.0, 15),
    );
    let found = procrustes(&engine, x.rows(), y.rows(), &ids(60), 3)
        .unwrap()
        .unwrap();
    let heldout = found.heldout.unwrap();
    assert!(found.mean_cosine > 0.4, "{}", found.mean_cosine);
    assert!(heldout.heldout_mean_cosine.abs() < 0.15, "{heldout:?}");
    assert_eq!(heldout.fit_pairs + heldout.heldout_pairs, 60);
    let copy = procrustes(&engine, x.rows(), x.rotated().rows(), &ids(60), 3)
        .unwrap()
        .unwrap();
    assert!(
        copy.residual_relative < 1e-5 && copy.min_cosine > 0.999_99,
        "{copy:?}"
    );
}

/// Fewer dimensions on the current side: the best map keeps what can be kept.
#[test]
fn procrustes_maps_into_fewer_dimensions() {
    let engine = engine();
    let y = Set::gaussian(200, 5, 0.1, 16);
    let padded = Set {
        values: y
            .rows()
            .iter()
            .flat_map(|row| row.to_vec().into_iter().chain([0.0; 3]))
            .collect(),
        dim: 8,
    };
    let x = padded.rotated();
    let found = procrustes(&engine, x.rows(), y.rows(), &ids(200), 1)
        .unwrap()
        .unwrap();
    assert!(found.residual_relative < 1e-5, "{found:?}");
    let heldout = found.heldout.unwrap();
    assert!(
        heldout.heldout_mean_cosine > 0.999_99 && heldout.rise.is_none(),
        "{heldout:?}"
    );
}

#[test]
fn spaces_are_told_apart() {
    let engine = engine();
    let n = 400;
    let ids = ids(n);
    let judge = |x: &Set, y: &Set| {
        let shared = SharedRows {
            reference: x.rows(),
            current: y.rows(),
            ids: &ids,
        };
        comparability(&engine, shared, 5).unwrap()
    };
    let x = Set::gaussian(n, 16, 0.1, 20);

    let same = judge(&x, &x.noisy(0.1, 2));
    assert_eq!(same.relation, SpaceRelation::Same, "{same:?}");
    assert!(same.refused.is_empty() && same.auc.unwrap() > 0.99);

    let rotated = judge(&x, &x.rotated().rotated().rotated().noisy(0.02, 3));
    assert_eq!(rotated.relation, SpaceRelation::Rotated, "{rotated:?}");
    assert_eq!(rotated.refused.len(), 8);

    // Another model: the same items, but nothing that a rotation could undo.
    let other = Set::gaussian(n, 16, 0.1, 21);
    let other = judge(&x, &other);
    assert_eq!(other.relation, SpaceRelation::DifferentModel, "{other:?}");
    assert!(!other.relation.shares_coordinates());

    // A rotation that leaves a third of each vector in place: items are recognised, yet it is a copy.
    let blank = Set {
        values: vec![0.0; n * 96],
        dim: 96,
    };
    let wide = blank.noisy(1.0, 5);
    let far = wide.rotated().rotated().rotated();
    let mixed = wide.values.iter().zip(&far.values);
    let mixed = Set {
        values: mixed.map(|(a, b)| 0.4 * a + 0.7 * b).collect(),
        dim: 96,
    };
    let mixed = judge(&wide, &mixed);
    assert!(mixed.auc.unwrap() > 0.99, "{mixed:?}");
    assert_eq!(mixed.relation, SpaceRelation::Rotated, "{mixed:?}");

    // All rows shifted alike, and far: drift within one space, though cosines about the origin are blurred.
    let shift = Set {
        values: x
            .values
            .iter()
            .enumerate()
            .map(|(i, v)| v + (i % 16) as f32)
            .collect(),
        dim: 16,
    };
    let shift = judge(&x, &shift);
    assert_eq!(shift.relation, SpaceRelation::Same, "{shift:?}");
    assert!(
        shift.auc.unwrap() < 0.99 && shift.auc_centred == Some(1.0),
        "{shift:?}"
    );

    // A direction that all rows share aligns even unrelated models; single items still do not match.
    let [x_narrow, y_narrow] = [22, 23].map(|stream| Set::gaussian(n, 16, 3.0, stream));
    let narrow = judge(&x_narrow, &y_narrow.rotated());
    assert_eq!(narrow.relation, SpaceRelation::DifferentModel, "{narrow:?}");
    assert!(narrow.alignment.unwrap().heldout_mean_cosine > 0.9);

    let dimensions = judge(&x, &Set::gaussian(n, 8, 0.1, 24));
    assert_eq!(dimensions.relation, SpaceRelation::DifferentDimension);
    assert!(dimensions.auc.is_none() && !dimensions.refused.is_empty());

    // Every current row the same: nothing to tell items apart by.
    let collapsed = judge(&x, &x.picked(&vec![0; n]));
    assert_eq!(
        collapsed.relation,
        SpaceRelation::AssumedSame,
        "{collapsed:?}"
    );
}

/// Who is compared with whom follows from ids, not from the order of rows.
#[test]
fn comparability_does_not_depend_on_row_order() {
    let engine = engine();
    let n = 200;
    let x = Set::gaussian(n, 6, 0.0, 25);
    let y = x.noisy(0.6, 4);
    let order: Vec<usize> = (0..n).map(|i| (i * 77) % n).collect();
    let names = ids(n);
    let shuffled: Ids = order.iter().map(|&i| names.get(i)).collect();
    let (xs, ys) = (x.picked(&order), y.picked(&order));
    let a = SharedRows {
        reference: x.rows(),
        current: y.rows(),
        ids: &names,
    };
    let b = SharedRows {
        reference: xs.rows(),
        current: ys.rows(),
        ids: &shuffled,
    };
    let [a, b] = [a, b].map(|shared| comparability(&engine, shared, 9).unwrap());
    assert!(a.auc.unwrap() < 0.99 && a.alignment.is_some(), "{a:?}");
    assert_eq!(format!("{a:?}"), format!("{b:?}"));
}

#[test]
fn results_do_not_depend_on_threads() {
    let (x, y) = (
        Set::gaussian(150, 40, 0.2, 26),
        Set::gaussian(150, 40, 0.1, 27),
    );
    let all = [1, 4].map(|threads| {
        let engine = Engine::new(&EngineConfig {
            device: DeviceChoice::Cpu,
            threads: Some(threads),
            ..EngineConfig::default()
        })
        .unwrap();
        let ids = ids(150);
        format!(
            "{:?}{:?}{:?}{:?}{:?}",
            fd(&engine, &x, &y),
            cka(&engine, &x, &y),
            spectrum_of(&engine, &x),
            procrustes(&engine, x.rows(), y.rows(), &ids, 0).unwrap(),
            between(&engine, &x, &y),
        )
    });
    assert!(all[0] == all[1]);
}

/// Too little or too uniform data gives nulls, never a panic or a number that is none.
#[test]
fn degenerate_sets_are_undefined_not_wrong() {
    let engine = engine();
    let one = Set::gaussian(1, 3, 0.2, 30);
    let equal = |n: usize| one.picked(&vec![0; n]);
    let huge = Set {
        values: [3e38f32; 6].into_iter().chain([1e-30; 6]).collect(),
        dim: 3,
    };
    // Further apart than the largest f32.
    let opposite = Set {
        values: [[3e38f32; 3], [-3e38; 3], [-3e38; 3], [-3e38, 3e38, 1.0]].concat(),
        dim: 3,
    };
    let lists = [
        (one.clone(), one.clone()),
        (Set::gaussian(2, 3, 0.0, 31), Set::gaussian(2, 3, 0.0, 32)),
        (Set::gaussian(3, 3, 0.0, 31), Set::gaussian(3, 3, 0.0, 32)),
        (
            Set::gaussian(30, 1, 0.5, 33),
            Set::gaussian(30, 1, -0.5, 34),
        ),
        (Set::gaussian(2, 1, 0.5, 33), Set::gaussian(2, 1, -0.5, 34)),
        (equal(1), equal(1)),
        (equal(40), equal(40)),
        (equal(40), Set::gaussian(40, 3, 0.0, 35)),
        (huge.clone(), huge.clone()),
        (opposite.clone(), opposite),
        (huge, Set::gaussian(4, 3, 0.0, 36)),
    ];
    for (at, (x, y)) in lists.iter().enumerate() {
        let sound = |result: &dyn Debug| {
            let text = format!("{result:?}");
            assert!(
                !text.contains("NaN") && !text.contains("inf"),
                "case {at}: {text}"
            );
        };
        let n = x.rows().len();
        let ids = ids(n);
        let [mx, my] = [x, y].map(|s| Moments::of(&engine, s.rows()).unwrap());
        sound(&(&mx, &my));
        sound(&centroid_shift(&mx, &my));
        sound(&frechet(&mx, &my).unwrap());
        sound(&linear_cka(&engine, x.rows(), y.rows(), &mx, &my).unwrap());
        let [sx, sy] = [x, y].map(|s| spectrum_of(&engine, s));
        sound(&(&sx, &sy));
        sound(&subspace_similarity(&sx, &sy));
        let [cx, cy] = [x, y].map(|s| within(&engine, s));
        sound(&(&cx, &cy));
        sound(&cosine::shift(&cx, &cy));
        sound(&between(&engine, x, y));
        sound(&cosine::paired(x.rows(), y.rows()));
        let [nx, ny] = [x, y].map(|s| norm_distribution(s.rows(), &ids));
        sound(&(&nx, &ny));
        sound(&norm_shift(&nx, &ny));
        sound(&constant_dimensions(x.rows()));
        sound(&procrustes(&engine, x.rows(), y.rows(), &ids, 0).unwrap());
        let shared = SharedRows {
            reference: x.rows(),
            current: y.rows(),
            ids: &ids,
        };
        sound(&comparability(&engine, shared, 0).unwrap());
    }
    let (single, same) = (spectrum_of(&engine, &one), spectrum_of(&engine, &equal(40)));
    assert_eq!(
        (single.total_variance, same.total_variance),
        (None, Some(0.0))
    );
    assert_eq!(same.effective_rank_eigenvalues, None);
    assert_close(same.vendi_cosine.unwrap(), 1.0, 1e-6);
    assert!(fd(&engine, &one, &one).is_none());
    assert_eq!(constant_dimensions(equal(40).rows()), [0, 1, 2]);
    let lone = within(&engine, &one);
    assert_eq!((lone.pairs, lone.mean), (0, None));
    assert_eq!(within(&engine, &equal(40)).std, Some(0.0));
}

#[test]
fn no_rows_at_all_are_undefined_too() {
    let engine = engine();
    let none = Set {
        values: Vec::new(),
        dim: 3,
    };
    assert_eq!(within(&engine, &none).pairs, 0);
    assert_eq!(cosine::paired(none.rows(), none.rows()).mean, None);
    assert!(fd(&engine, &none, &none).is_none());
    assert!(
        procrustes(&engine, none.rows(), none.rows(), &Ids::new(), 0)
            .unwrap()
            .is_none()
    );
    assert_eq!(cka(&engine, &none, &none).cka_biased, None);
    assert_eq!(spectrum_of(&engine, &none).vendi_cosine, None);
    assert_eq!(norm_distribution(none.rows(), &Ids::new()).mean, None);
}

/// The names that consumers of the JSON rely on.
#[test]
fn cosine_json_has_its_contractual_names() {
    let json = serde_json::to_value(within(&engine(), &Set::gaussian(20, 4, 0.1, 40))).unwrap();
    for name in ["pairs", "mean", "std", "min", "max"] {
        assert!(json[name].is_number(), "{name}");
    }
    for name in ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"] {
        assert!(json["quantiles"][name].is_number(), "{name}");
    }
    let counts = json["histogram"]["counts"].as_array().unwrap();
    assert_eq!(
        json["histogram"]["edges"].as_array().unwrap().len(),
        counts.len() + 1
    );
    assert!(json.get("fine").is_none());
}
