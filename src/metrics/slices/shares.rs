//! How slices grew and shrank.

use schemars::JsonSchema;
use serde::Serialize;

use super::SlicedSets;
use super::items::Units;
use crate::stats::counts::{fisher_exact, mcnemar_exact, newcombe_ci95, normal_p, ratio_ci95};
use crate::stats::paired::Z_975;

/// A ratio of shares beyond this, or below its reciprocal, is no mere growth.
const EMERGING_RATIO: f64 = 2.0;

/// Change of a slice's share.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ShareChange {
    /// Share of the reference's rows.
    pub reference: f64,
    /// Share of current's rows.
    pub current: f64,
    /// current − reference.
    pub difference: f64,
    /// Its 95 % interval: Newcombe's for independent rows, else normal over groups or shared items.
    pub difference_ci95: [f64; 2],
    /// current/reference; `null` where the reference has none.
    pub ratio: Option<f64>,
    /// Its 95 % interval; an end is `null` where it is infinite or unknown.
    pub ratio_ci95: [Option<f64>; 2],
    /// Two-sided p-value of "the same share": Fisher's exact test for independent rows, McNemar's where
    /// every item is on both sides, else normal over groups or shared items.
    pub p_value: f64,
    /// The same, corrected over all tests.
    pub p_value_fdr: f64,
    /// What that says.
    pub state: ShareState,
}

/// What became of a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// Significantly more than twice its share, by the interval.
    Emerging,
    /// Significantly larger.
    Grown,
    /// Nothing that chance would not do.
    Stable,
    /// Significantly smaller.
    Shrunk,
    /// Significantly less than half its share, by the interval.
    Vanishing,
}

impl ShareChange {
    /// Takes the corrected p-value, and says what became of the slice at this false discovery rate.
    pub(super) fn judge(&mut self, p_value_fdr: f64, rate: f64) {
        self.p_value_fdr = p_value_fdr;
        let significant = p_value_fdr <= rate;
        let [low, high] = self.ratio_ci95;
        self.state = match () {
            () if !significant => ShareState::Stable,
            () if self.reference == 0.0 || low.is_some_and(|r| r > EMERGING_RATIO) => {
                ShareState::Emerging
            }
            () if self.current == 0.0 || high.is_some_and(|r| r < 1.0 / EMERGING_RATIO) => {
                ShareState::Vanishing
            }
            () if self.difference > 0.0 => ShareState::Grown,
            () => ShareState::Shrunk,
        };
    }
}

/// How rows of both sides depend on each other.
enum Design {
    /// Not at all.
    Independent,
    /// Every row stands on both sides.
    Paired,
    /// Some rows do, or rows come in groups.
    Dependent,
}

/// Compares every slice's share.
pub(super) fn share_changes(
    sets: &SlicedSets<'_>,
    units: &Units,
    reference: &[u32],
    current: &[u32],
    slices: usize,
) -> Vec<ShareChange> {
    let (n, m) = (reference.len() as u64, current.len() as u64);
    let design = match (units.grouped, sets.shared.len() as u64) {
        (false, 0) => Design::Independent,
        (false, shared) if shared == n && shared == m => Design::Paired,
        _ => Design::Dependent,
    };
    let mut counts = vec![[0u64; 2]; slices + 1];
    reference.iter().for_each(|&s| counts[s as usize][0] += 1);
    current.iter().for_each(|&s| counts[s as usize][1] += 1);
    let mut flows = vec![[0u64; 2]; slices + 1];
    if let Design::Paired = design {
        for &(x, y) in sets.shared {
            let (from, to) = (reference[x as usize], current[y as usize]);
            if from != to {
                flows[to as usize][0] += 1;
                flows[from as usize][1] += 1;
            }
        }
    }
    let variances = match design {
        Design::Independent => Vec::new(),
        _ => variances(units, reference, current, &counts),
    };
    (0..slices)
        .map(|slice| {
            let [a, b] = counts[slice];
            let (p, q) = (a as f64 / n as f64, b as f64 / m as f64);
            let difference = q - p;
            let (difference_ci95, ratio_ci95, p_value) = match design {
                Design::Independent => (
                    newcombe_ci95(a, n, b, m),
                    ratio_ci95(a, n, b, m),
                    fisher_exact(a, n, b, m),
                ),
                _ => {
                    let [of_difference, of_log_ratio] = variances[slice];
                    let half = Z_975 * of_difference.sqrt();
                    let p_value = match design {
                        Design::Paired => mcnemar_exact(flows[slice][0], flows[slice][1]),
                        _ if difference == 0.0 => 1.0,
                        _ => normal_p(difference / of_difference.sqrt()),
                    };
                    let factor = (Z_975 * of_log_ratio.sqrt()).exp();
                    let ends = [q / p / factor, q / p * factor];
                    (
                        [difference - half, difference + half],
                        ends.map(|end| (a > 0 && b > 0 && end.is_finite()).then_some(end)),
                        p_value,
                    )
                }
            };
            ShareChange {
                reference: p,
                current: q,
                difference,
                difference_ci95,
                ratio: (a > 0).then(|| q / p),
                ratio_ci95,
                p_value,
                p_value_fdr: 1.0,
                state: ShareState::Stable,
            }
        })
        .collect()
}

/// Per slice the variances of the difference of shares and of the log of their ratio: sums over units (a
/// group, or an item with its rows on both sides) of their squared influence.
///
/// Source: Liang & Zeger 1986; an item on both sides is a group of two.
fn variances(
    units: &Units,
    reference: &[u32],
    current: &[u32],
    counts: &[[u64; 2]],
) -> Vec<[f64; 2]> {
    let (n, m) = (reference.len() as f64, current.len() as f64);
    // Rows of every unit, on either side.
    let mut sizes = vec![[0.0f64; 2]; units.count];
    units
        .reference
        .iter()
        .for_each(|&u| sizes[u as usize][0] += 1.0);
    units
        .current
        .iter()
        .for_each(|&u| sizes[u as usize][1] += 1.0);
    let squares = sizes.iter().fold([0.0; 3], |[xx, xy, yy], [x, y]| {
        [xx + x * x, xy + x * y, yy + y * y]
    });
    // (slice, unit, side) of every row, so that those of one unit in one slice stand together.
    let mut rows: Vec<(u32, u32, bool)> = Vec::with_capacity(reference.len() + current.len());
    rows.extend(
        reference
            .iter()
            .zip(&units.reference)
            .map(|(&s, &u)| (s, u, false)),
    );
    rows.extend(
        current
            .iter()
            .zip(&units.current)
            .map(|(&s, &u)| (s, u, true)),
    );
    rows.sort_unstable();
    let mut found = vec![[0.0; 2]; counts.len()];
    for of_slice in rows.chunk_by(|a, b| a.0 == b.0) {
        let slice = of_slice[0].0 as usize;
        let [a, b] = counts[slice].map(|count| count as f64);
        let (p, q) = (a / n, b / m);
        // Influence (y/m)·v − (x/n)·u of a unit with x and y rows in the slice, of which it has X and Y
        // in all: v·(y − q·Y)/m − u·(x − p·X)/n.
        for (which, (u, v)) in [(1.0, 1.0), (1.0 / p, 1.0 / q)].into_iter().enumerate() {
            let base = |[x, y]: [f64; 2]| u * p * x / n - v * q * y / m;
            let (cx, cy) = (u * p / n, v * q / m);
            let mut sum = cx * cx * squares[0] - 2.0 * cx * cy * squares[1] + cy * cy * squares[2];
            for of_unit in of_slice.chunk_by(|a, b| a.1 == b.1) {
                let y = of_unit.iter().filter(|row| row.2).count() as f64;
                let x = of_unit.len() as f64 - y;
                let outside = base(sizes[of_unit[0].1 as usize]);
                let influence = outside + v * y / m - u * x / n;
                sum += influence * influence - outside * outside;
            }
            found[slice][which] = sum.max(0.0);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Independent single rows: the binomial variances, p(1 − p)/n + q(1 − q)/m.
    #[test]
    fn variance_over_single_rows_is_binomial() {
        let reference: Vec<u32> = (0..40).map(|i| u32::from(i % 4 == 0)).collect();
        let current: Vec<u32> = (0..60).map(|i| u32::from(i % 3 == 0)).collect();
        let units = Units {
            reference: (0..40).collect(),
            current: (40..100).collect(),
            count: 100,
            grouped: false,
            order: Default::default(),
        };
        let found = variances(&units, &reference, &current, &[[30, 40], [10, 20]]);
        let (p, q) = (0.25f64, 1.0f64 / 3.0);
        let expected = p * (1.0 - p) / 40.0 + q * (1.0 - q) / 60.0;
        assert!((found[1][0] - expected).abs() < 1e-15);
        assert!((found[0][0] - expected).abs() < 1e-15, "the complement");
        let of_log = (1.0 - p) / (40.0 * p) + (1.0 - q) / (60.0 * q);
        assert!((found[1][1] - of_log).abs() < 1e-14);
    }

    /// Every row twice, as a group of two: twice the variance, for there is half as much to go by.
    #[test]
    fn groups_count_once_and_unchanged_items_not_at_all() {
        let labels: Vec<u32> = (0..40).map(|i| u32::from((i / 2) % 4 == 0)).collect();
        let units = Units {
            reference: (0..40).map(|i| i / 2).collect(),
            current: (20..60).map(|i| 20 + (i - 20) / 2).collect(),
            count: 60,
            grouped: true,
            order: Default::default(),
        };
        let found = variances(&units, &labels, &labels, &[[30, 30], [10, 10]]);
        let single = 0.25 * 0.75 / 40.0 * 2.0;
        assert!((found[1][0] - 2.0 * single).abs() < 1e-15);
        let shared = Units {
            current: units.reference.clone(),
            ..units
        };
        let found = variances(&shared, &labels, &labels, &[[30, 30], [10, 10]]);
        assert!(found[1][0] < 1e-15, "the same rows on both sides");
    }
}
