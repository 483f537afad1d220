//! How much of the MMD² of the whole goes where one slice is left out.

use super::features::{FREQUENCIES, FeatureSums};
use super::{Layout, SliceBlocks};
use crate::metrics::fourier::dot;
use crate::stats::interval::jackknife_variance;
use crate::stats::paired::Z_975;

/// Slices that add less than this share to the MMD² are not left out to see: they do not hold half of it.
const LEAST_CONTRIBUTION: f64 = 0.25;

/// What one slice holds of the MMD² of the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldShare {
    /// MMD² of all other rows.
    pub mmd2_without: f64,
    /// 1 − `mmd2_without`/MMD²: above 1 where the others' is negative.
    pub share: f64,
    /// Its 95 % interval (jackknife over blocks, slice by slice).
    pub ci95: [f64; 2],
}

/// Sums of features over some blocks of either side.
#[derive(Clone)]
struct Total {
    features: [Vec<f64>; 2],
    own: [f64; 2],
    rows: [f64; 2],
    own_pairs: [f64; 2],
    across: f64,
    across_pairs: f64,
}

impl Total {
    fn new(features: usize) -> Self {
        Self {
            features: [vec![0.0; features], vec![0.0; features]],
            own: [0.0; 2],
            rows: [0.0; 2],
            own_pairs: [0.0; 2],
            across: 0.0,
            across_pairs: 0.0,
        }
    }

    /// Adds another's sums `times`: −1 takes them away.
    fn add(&mut self, other: &Self, times: f64) {
        for side in [0, 1] {
            let pairs = self.features[side].iter_mut().zip(&other.features[side]);
            pairs.for_each(|(a, b)| *a += times * b);
            self.own[side] += times * other.own[side];
            self.rows[side] += times * other.rows[side];
            self.own_pairs[side] += times * other.own_pairs[side];
        }
        self.across += times * other.across;
        self.across_pairs += times * other.across_pairs;
    }

    /// Unbiased MMD²; `None` where a side has no pair of different groups.
    fn mmd2(&self) -> Option<f64> {
        let [x, y] = &self.features;
        let within = |side: usize, f: &[f64]| {
            let pairs = self.rows[side].powi(2) - self.own_pairs[side];
            (pairs > 0.5).then(|| (dot(f, f) - self.own[side]) / pairs)
        };
        let between = self.rows[0] * self.rows[1] - self.across_pairs;
        let across = (between > 0.5).then(|| (dot(x, y) - self.across) / between);
        Some((within(0, x)? + within(1, y)? - 2.0 * across?) / FREQUENCIES as f64)
    }
}

/// Per slice what it holds of the whole's MMD²; `None` for slices that add little to it, where there is no
/// other slice, or where the MMD² may as well be 0.
pub(super) fn held_shares(
    layout: &Layout,
    sums: &FeatureSums,
    first_block: usize,
    contributions: &[f64],
) -> Vec<Option<HeldShare>> {
    let total: f64 = contributions.iter().sum();
    let asked: Vec<bool> = contributions
        .iter()
        .map(|&c| total > 0.0 && c > LEAST_CONTRIBUTION * total)
        .collect();
    if !asked.contains(&true) {
        return vec![None; contributions.len()];
    }
    // Sums of every unit (a block, or both parts of a pair), by slice and stratum, and of every slice.
    let units: Vec<[Vec<(Total, f64)>; 3]> = layout
        .slices
        .iter()
        .map(|slice| unit_sums(slice, sums, first_block))
        .collect();
    let of_slice = |units: &[Vec<(Total, f64)>; 3]| {
        let mut sum = Total::new(super::features::FEATURES);
        units
            .iter()
            .flatten()
            .for_each(|(unit, _)| sum.add(unit, 1.0));
        sum
    };
    let slices: Vec<Total> = units.iter().map(of_slice).collect();
    let mut all = Total::new(super::features::FEATURES);
    slices.iter().for_each(|slice| all.add(slice, 1.0));
    // Variance of what `of` makes of all rows and of those without `slice`, units deleted one at a time.
    let variance = |of: &dyn Fn(&Total, &Total) -> Option<f64>, slice: usize, rest: &Total| {
        let found = of(&all, rest)?;
        let mut variance = 0.0;
        for (at, strata) in units.iter().enumerate() {
            for units in strata {
                let without = units.iter().map(|(unit, _)| {
                    let (mut all, mut rest) = (all.clone(), rest.clone());
                    all.add(unit, -1.0);
                    if at != slice {
                        rest.add(unit, -1.0);
                    }
                    of(&all, &rest)
                });
                let without: Vec<f64> = without.collect::<Option<_>>()?;
                let sizes: Vec<f64> = units.iter().map(|(_, groups)| *groups).collect();
                variance += jackknife_variance(found, &without, &sizes);
            }
        }
        Some(variance)
    };
    // Shares of what may as well be nothing say nothing.
    let whole = all.mmd2().zip(variance(&|all, _| all.mmd2(), 0, &all));
    if whole.is_none_or(|(mmd2, variance)| mmd2 <= Z_975 * variance.sqrt()) {
        return vec![None; contributions.len()];
    }
    (0..contributions.len())
        .map(|slice| {
            if !asked[slice] {
                return None;
            }
            let mut rest = all.clone();
            rest.add(&slices[slice], -1.0);
            let share = |all: &Total, rest: &Total| Some(1.0 - rest.mmd2()? / all.mmd2()?);
            let found = share(&all, &rest)?;
            let half = Z_975 * variance(&share, slice, &rest)?.sqrt();
            Some(HeldShare {
                mmd2_without: rest.mmd2()?,
                share: found,
                ci95: [found - half, found + half],
            })
        })
        .collect()
}

fn unit_sums(
    slice: &SliceBlocks,
    sums: &FeatureSums,
    first_block: usize,
) -> [Vec<(Total, f64)>; 3] {
    let first = first_block + slice.first;
    [0, 1, 2].map(|stratum| {
        let units = slice.strata[stratum].iter();
        units
            .map(|unit| {
                let mut total = Total::new(super::features::FEATURES);
                for (side, block) in [unit.x, unit.y].into_iter().enumerate() {
                    let Some(block) = block.map(|b| first + b) else {
                        continue;
                    };
                    total.features[side] = sums.features(block);
                    total.own[side] = sums.own[block];
                    total.rows[side] = sums.rows[block] as f64;
                    total.own_pairs[side] = sums.own_pairs[block] as f64;
                    if side == 0 && unit.y.is_some() {
                        total.across = sums.across[block];
                        total.across_pairs = sums.across_pairs[block] as f64;
                    }
                }
                (total, unit.groups as f64)
            })
            .collect()
    })
}
