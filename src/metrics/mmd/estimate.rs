//! The statistics as functions of sums within X, within Y and across.

use super::blocks::Unit;
use crate::engine::PairSums;
use crate::stats::interval::jackknife_variance;
use crate::stats::permutation::Quadrants;

/// Mean kernels: sums over counts. `None` where a quadrant holds no pair.
pub(super) fn means(sums: Quadrants, counts: Quadrants) -> Option<Quadrants> {
    let some = counts.xx > 0.0 && counts.yy > 0.0 && counts.xy > 0.0;
    some.then(|| Quadrants {
        xx: sums.xx / counts.xx,
        yy: sums.yy / counts.yy,
        xy: sums.xy / counts.xy,
    })
}

/// MMD² = mean k within X + mean k within Y − 2 · mean k across.
pub(super) fn mmd2(means: Quadrants) -> f64 {
    means.xx + means.yy - 2.0 * means.xy
}

/// Mean k within X − mean k within Y: positive where Y is the more spread out.
pub(super) fn dispersion(means: Quadrants) -> f64 {
    means.xx - means.yy
}

/// Quadrants of an s × s matrix whose blocks are X's where `is_x` says so.
pub(super) fn observed(matrix: &[f64], is_x: &[bool]) -> Quadrants {
    side_sums(matrix, is_x)
        .iter()
        .zip(is_x)
        .fold(Quadrants::default(), |mut all, (row, &is_x)| {
            if is_x {
                all.xx += row[0];
                all.xy += row[1];
            } else {
                all.yy += row[1];
            }
            all
        })
}

/// Per block its sums against all of X's and all of Y's blocks.
fn side_sums(matrix: &[f64], is_x: &[bool]) -> Vec<[f64; 2]> {
    matrix
        .chunks_exact(is_x.len())
        .map(|row| {
            let mut sums = [0.0; 2];
            for (value, &is_x) in row.iter().zip(is_x) {
                sums[usize::from(!is_x)] += value;
            }
            sums
        })
        .collect()
}

/// The s × s matrix of pairs behind each block sum.
pub(super) fn counts(sums: &PairSums) -> Vec<f64> {
    sums.counts.iter().map(|&count| count as f64).collect()
}

/// Jackknife variance of MMD²: units are deleted one at a time, the variances of independent strata
/// added. `None` where a deletion leaves a side without pairs.
pub(super) fn mmd2_variance(
    sums: &[f64],
    counts: &[f64],
    is_x: &[bool],
    strata: &[Vec<Unit>],
) -> Option<f64> {
    let s = is_x.len();
    let sides = [side_sums(sums, is_x), side_sums(counts, is_x)];
    let all = [observed(sums, is_x), observed(counts, is_x)];
    let estimate = mmd2(means(all[0], all[1])?);
    let without = |unit: &Unit| -> Option<f64> {
        let [sums, counts] = [(0, sums), (1, counts)].map(|(at, matrix)| {
            let (mut left, sides) = (all[at], &sides[at]);
            if let Some(x) = unit.x {
                left.xx -= 2.0 * sides[x][0] - matrix[x * s + x];
                left.xy -= sides[x][1];
            }
            if let Some(y) = unit.y {
                left.yy -= 2.0 * sides[y][1] - matrix[y * s + y];
                left.xy -= sides[y][0];
            }
            if let (Some(x), Some(y)) = (unit.x, unit.y) {
                left.xy += matrix[x * s + y];
            }
            left
        });
        Some(mmd2(means(sums, counts)?))
    };
    let mut variance = 0.0;
    for units in strata {
        let estimates = units.iter().map(without).collect::<Option<Vec<f64>>>()?;
        let sizes: Vec<f64> = units.iter().map(|unit| unit.groups as f64).collect();
        variance += jackknife_variance(estimate, &estimates, &sizes);
    }
    Some(variance)
}
