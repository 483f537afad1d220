//! Drift axis by axis: which coordinates, and which principal directions, moved.
//!
//! Raw coordinates are what a consumer stores, but their axes are arbitrary: a rotation moves all of
//! them. So every test is made twice, along the coordinates and along the reference's principal
//! directions. With many rows any change is significant: how far an axis moved decides
//! ([`AxisShift::moved`]), the adjusted p-value only says that it was not chance.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::mmd::Sample;
use super::spectrum::Spectrum;
use crate::embeddings::Rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::stats::correction::benjamini_hochberg;
use crate::stats::distribution::{
    ks_p_value, ks_sorted, mean_std, psi, quantile_sorted, wasserstein_1_sorted,
};

/// Rows per side at most: Kolmogorov–Smirnov distances are then known to 0.014.
const SAMPLED_ROWS: usize = 20_000;
/// Principal directions at most.
const PRINCIPAL_AXES: usize = 64;
/// Share of the largest variance below which a principal direction is rounding.
const MIN_VARIANCE: f64 = 1e-9;
/// Axes listed.
const LISTED_AXES: usize = 10;
/// Kolmogorov–Smirnov distance from which an axis moved.
const MOVED_KS: f64 = 0.1;
/// Wasserstein-1 distance, in standard deviations of the reference, from which an axis moved.
const MOVED_W1: f64 = 0.2;
/// Level of the false discovery rate.
const FALSE_DISCOVERY_RATE: f64 = 0.05;

/// Two-sample tests of single axes. Only where both sets live in one space.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AxisDrift {
    /// Rows used per side, drawn by the hash of their id.
    pub rows: [u64; 2],
    /// Whether every row was used.
    pub exact: bool,
    /// Independent units per side behind the p-values: groups where there are any, else rows.
    pub units: [u64; 2],
    /// Kolmogorov–Smirnov distance that an axis without drift stays below with probability 0.95.
    pub ks_noise_floor: f64,
    /// Along the coordinates as stored.
    pub coordinates: AxisTests,
    /// Along the reference's principal directions, at most 64; `null` where it has no variance.
    pub principal_directions: Option<AxisTests>,
}

/// What the tests of one set of axes found.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AxisTests {
    /// Axes tested.
    pub axes: usize,
    /// Axes whose p-value is at most 0.05 after Benjamini and Hochberg's adjustment.
    pub significant: usize,
    /// Of these, axes that moved far enough to matter: KS ≥ 0.1, or W1 ≥ 0.2 standard deviations.
    pub moved: usize,
    /// `moved` / `axes`.
    pub moved_share: f64,
    /// Median of the Kolmogorov–Smirnov distances, in [0, 1].
    pub median_ks: f64,
    /// Largest of them.
    pub max_ks: f64,
    /// The axes that moved farthest, by KS.
    pub farthest: Vec<AxisShift>,
}

/// How one axis moved.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AxisShift {
    /// Number of the axis, from 0; of principal directions by falling variance.
    pub axis: usize,
    /// Kolmogorov–Smirnov distance, in [0, 1].
    pub ks: f64,
    /// Wasserstein-1 distance in standard deviations of the reference; `null` where it is constant.
    pub w1_in_sd: Option<f64>,
    /// Population stability index over the reference's deciles; `null` where these coincide.
    pub psi: Option<f64>,
    /// Mean of the current set less that of the reference, in standard deviations of the reference.
    pub mean_shift_in_sd: Option<f64>,
    /// Standard deviation of the current set over that of the reference.
    pub sd_ratio: Option<f64>,
    /// Asymptotic p-value of the Kolmogorov–Smirnov test. Rows that both sets share make it too large, never
    /// too small.
    pub p_value: f64,
    /// Adjusted for the number of axes (Benjamini and Hochberg 1995; coordinates of one vector depend on
    /// each other positively in effect, which the adjustment allows).
    pub p_value_adjusted: f64,
    /// Whether it is significant and far enough to matter.
    pub moved: bool,
}

/// Tests every coordinate and every principal direction of the reference. `None` with fewer than two rows on
/// a side.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If the dimensions differ, or `spectrum` is of another dimension.
///
/// # Source
/// Kolmogorov–Smirnov: Stephens (1970) for the p-value; Rabanser et al. (2019) for axis-wise tests with
/// multiplicity correction. Golden values: fixtures/golden/distribution_1d.json.
pub fn axis_drift(
    engine: &Engine,
    reference: Sample<'_>,
    current: Sample<'_>,
    spectrum: &Spectrum,
    seed: u64,
) -> Result<Option<AxisDrift>> {
    assert_eq!(reference.rows.dim(), current.rows.dim());
    if reference.rows.len().min(current.rows.len()) < 2 {
        return Ok(None);
    }
    let sides = [reference, current];
    let drawn = sides.map(|side| draw(side, seed));
    let units = [0, 1].map(|side| independent_units(sides[side], &drawn[side]));
    let dim = reference.rows.dim();
    let [x, y] = [0, 1].map(|side| {
        let rows = drawn[side].iter().map(|&row| row as usize);
        sides[side].rows.gather(rows)
    });
    let coordinates = test_axes((&x, &y), dim, units);
    let principal = principal_directions(spectrum);
    let principal_directions = if principal.is_empty() {
        None
    } else {
        let axes = principal.len() / dim;
        let along =
            |values: &[f32]| engine.project(Rows::new(values, dim), Rows::new(&principal, dim));
        Some(test_axes((&along(&x)?, &along(&y)?), axes, units))
    };
    Ok(Some(AxisDrift {
        rows: [x.len() / dim, y.len() / dim].map(|rows| rows as u64),
        exact: (0..2).all(|side| drawn[side].len() == sides[side].rows.len()),
        units: units.map(|n| n as u64),
        // Kolmogorov's 95 % point.
        ks_noise_floor: (1.358 * (units.map(|n| 1.0 / n as f64).iter().sum::<f64>()).sqrt())
            .min(1.0),
        coordinates,
        principal_directions,
    }))
}

/// Rows drawn by the hash of their id, ascending.
fn draw(side: Sample<'_>, seed: u64) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..side.rows.len() as u32).collect();
    if rows.len() > SAMPLED_ROWS {
        rows.sort_by_cached_key(|&row| (side.ids.hash(row as usize, seed), row));
        rows.truncate(SAMPLED_ROWS);
        rows.sort_unstable();
    }
    rows
}

fn independent_units(side: Sample<'_>, drawn: &[u32]) -> usize {
    let Some(groups) = side.groups else {
        return drawn.len();
    };
    let groups = drawn.iter().map(|&row| groups[row as usize].as_str());
    groups.collect::<std::collections::HashSet<_>>().len()
}

/// The reference's leading principal directions, one per row of d values.
fn principal_directions(spectrum: &Spectrum) -> Vec<f32> {
    let Some(&largest) = spectrum.eigenvalues.first() else {
        return Vec::new();
    };
    let varying = spectrum.eigenvalues.iter();
    let varying = varying.take_while(|&&v| v > MIN_VARIANCE * largest).count();
    let axes = varying
        .min(PRINCIPAL_AXES)
        .min(spectrum.components.columns());
    let leading = spectrum.components.leading_columns(axes).transpose();
    leading.values().iter().map(|&v| v as f32).collect()
}

/// Tests each column of two matrices of as many columns.
fn test_axes((x, y): (&[f32], &[f32]), axes: usize, units: [usize; 2]) -> AxisTests {
    let mut shifts: Vec<AxisShift> = (0..axes)
        .into_par_iter()
        .map(|axis| {
            let column = |values: &[f32]| -> Vec<f64> {
                let mut column: Vec<f64> = values
                    .iter()
                    .skip(axis)
                    .step_by(axes)
                    .map(|&v| f64::from(v))
                    .collect();
                column.sort_unstable_by(f64::total_cmp);
                column
            };
            shift(axis, &column(x), &column(y), units)
        })
        .collect();
    let p_values: Vec<f64> = shifts.iter().map(|shift| shift.p_value).collect();
    for (shift, adjusted) in shifts.iter_mut().zip(benjamini_hochberg(&p_values)) {
        shift.p_value_adjusted = adjusted;
        let far = shift.ks >= MOVED_KS || shift.w1_in_sd.is_some_and(|w1| w1 >= MOVED_W1);
        shift.moved = far && adjusted <= FALSE_DISCOVERY_RATE;
    }
    let significant = shifts
        .iter()
        .filter(|s| s.p_value_adjusted <= FALSE_DISCOVERY_RATE)
        .count();
    let moved = shifts.iter().filter(|s| s.moved).count();
    let mut distances: Vec<f64> = shifts.iter().map(|shift| shift.ks).collect();
    distances.sort_unstable_by(f64::total_cmp);
    shifts.sort_by(|a, b| b.ks.total_cmp(&a.ks).then(a.axis.cmp(&b.axis)));
    shifts.truncate(LISTED_AXES);
    AxisTests {
        axes,
        significant,
        moved,
        moved_share: moved as f64 / axes as f64,
        median_ks: quantile_sorted(&distances, 0.5).unwrap_or(0.0),
        max_ks: distances.last().copied().unwrap_or(0.0),
        farthest: shifts,
    }
}

/// One axis, both sides ascending; not adjusted yet.
fn shift(axis: usize, x: &[f64], y: &[f64], [n, m]: [usize; 2]) -> AxisShift {
    let ks = ks_sorted(x, y).unwrap_or(0.0);
    let moments = [x, y].map(|side| {
        let found = mean_std(side);
        (found.map_or(0.0, |f| f.mean), found.and_then(|f| f.std))
    });
    let sd = moments[0].1.filter(|&sd| sd > 0.0);
    let in_sd = |value: f64| sd.map(|sd| value / sd);
    AxisShift {
        axis,
        ks,
        w1_in_sd: wasserstein_1_sorted(x, y).and_then(in_sd),
        psi: decile_psi(x, y),
        mean_shift_in_sd: in_sd(moments[1].0 - moments[0].0),
        sd_ratio: moments[1].1.and_then(in_sd),
        p_value: ks_p_value(ks, n, m),
        p_value_adjusted: 1.0,
        moved: false,
    }
}

/// PSI over the reference's deciles; deciles that coincide are one.
fn decile_psi(x: &[f64], y: &[f64]) -> Option<f64> {
    let mut edges: Vec<f64> = (1..10)
        .filter_map(|i| quantile_sorted(x, f64::from(i) / 10.0))
        .collect();
    edges.dedup();
    if edges.len() < 2 {
        return None;
    }
    let counts = |side: &[f64]| -> Vec<u64> {
        let mut below: Vec<usize> = edges
            .iter()
            .map(|&edge| side.partition_point(|&v| v < edge))
            .collect();
        below.push(side.len());
        let mut before = 0;
        below
            .into_iter()
            .map(|at| (at - std::mem::replace(&mut before, at)) as u64)
            .collect()
    };
    psi(&counts(x), &counts(y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::Ids;
    use crate::engine::{DeviceChoice, EngineConfig};
    use crate::metrics::moments::{Moments, UnitMoments};
    use crate::metrics::spectrum::spectrum;
    use crate::stats::rng::Philox;

    const DIM: usize = 12;

    fn engine() -> Engine {
        Engine::new(&EngineConfig {
            device: DeviceChoice::Cpu,
            ..EngineConfig::default()
        })
        .unwrap()
    }

    /// Normal rows, axis j of variance 1/(j + 1).
    fn normal(rows: usize, stream: u64) -> Vec<f32> {
        let mut random = Philox::new(17, stream);
        (0..rows * DIM)
            .map(|at| (random.normal() / ((at % DIM + 1) as f64).sqrt()) as f32)
            .collect()
    }

    fn ids(rows: usize) -> Ids {
        (0..rows).map(|row| row.to_string()).collect()
    }

    fn found(x: &[f32], y: &[f32], groups: Option<&[String]>) -> AxisDrift {
        let engine = engine();
        let (a, b) = (ids(x.len() / DIM), ids(y.len() / DIM));
        let rows = Rows::new(x, DIM);
        let (moments, unit) = (
            Moments::of(&engine, rows).unwrap(),
            UnitMoments::of(&engine, rows).unwrap(),
        );
        let sample = |values, ids| Sample {
            rows: Rows::new(values, DIM),
            ids,
            groups,
        };
        let spectrum = spectrum(&moments, &unit).unwrap();
        axis_drift(&engine, sample(x, &a), sample(y, &b), &spectrum, 3)
            .unwrap()
            .unwrap()
    }

    /// At a false discovery rate of 0.05 and no drift, any discovery is made in at most 5 % of all runs.
    #[test]
    fn nothing_is_found_where_nothing_moved() {
        const RUNS: u64 = 100;
        let mut discoveries = 0;
        for run in 0..RUNS {
            let drift = found(&normal(300, 2 * run), &normal(400, 2 * run + 1), None);
            discoveries += usize::from(drift.coordinates.significant > 0);
        }
        // Binomial(100, 0.05): 13 or more in one of 1,000.
        assert!(discoveries <= 12, "{discoveries} of {RUNS}");
    }

    #[test]
    fn the_axis_that_moved_is_named() {
        let (x, mut y) = (normal(2_000, 1), normal(2_000, 2));
        // Axis 4 has a standard deviation of 0.447.
        y.iter_mut().skip(4).step_by(DIM).for_each(|v| *v += 0.447);
        let drift = found(&x, &y, None);
        let (first, tests) = (&drift.coordinates.farthest[0], &drift.coordinates);
        assert_eq!((first.axis, tests.moved, tests.axes), (4, 1, DIM));
        assert!((tests.moved_share - 1.0 / DIM as f64).abs() < 1e-12);
        // Φ(½) − Φ(−½) = 0.383 is the distance of normals one standard deviation apart; its standard error
        // is about 0.02, that of the mean about 0.03.
        assert!((first.ks - 0.383).abs() < 0.06, "{}", first.ks);
        assert!((first.mean_shift_in_sd.unwrap() - 1.0).abs() < 0.12);
        assert!((first.w1_in_sd.unwrap() - 1.0).abs() < 0.12);
        assert!((first.sd_ratio.unwrap() - 1.0).abs() < 0.1);
        assert!(first.psi.unwrap() > 0.25, "a large shift by the usual rule");
        // Coordinates have falling variance here: the principal directions are nearly the axes.
        let principal = drift.principal_directions.unwrap();
        assert!(
            principal.moved >= 1 && principal.moved <= 3,
            "{}",
            principal.moved
        );
        assert!(drift.exact && drift.rows == [2_000, 2_000]);
    }

    /// Rows that repeat within a group are worth one each.
    #[test]
    fn groups_are_the_units() {
        let repeat = |values: Vec<f32>| -> Vec<f32> {
            values.chunks(DIM).flat_map(|row| row.repeat(20)).collect()
        };
        let (x, y) = (repeat(normal(60, 5)), repeat(normal(60, 6)));
        let groups: Vec<String> = (0..1_200).map(|row| (row / 20).to_string()).collect();
        let alone = found(&x, &y, None);
        let grouped = found(&x, &y, Some(&groups));
        assert_eq!(grouped.units, [60, 60]);
        assert!(
            alone.coordinates.significant > 0,
            "rows are no evidence of their own"
        );
        assert_eq!(grouped.coordinates.significant, 0);
        assert!(grouped.ks_noise_floor > 4.0 * alone.ks_noise_floor);
    }

    #[test]
    fn constant_axes_and_few_rows_have_no_scale() {
        let mut x = normal(50, 8);
        x.iter_mut().step_by(DIM).for_each(|v| *v = 1.0);
        let same = found(&x, &x, None);
        assert_eq!(
            (same.coordinates.max_ks, same.coordinates.significant),
            (0.0, 0)
        );
        let constant = same
            .coordinates
            .farthest
            .iter()
            .find(|shift| shift.axis == 0)
            .unwrap();
        assert_eq!((constant.w1_in_sd, constant.psi), (None, None));
    }
}
