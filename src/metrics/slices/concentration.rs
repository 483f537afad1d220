//! Whether one slice holds most of the drift.

use schemars::JsonSchema;
use serde::Serialize;

use super::SliceMean;
use crate::metrics::mmd::HeldShare;
use crate::stats::paired::Z_975;

/// Movement below this, in cosine per item, is rounding.
const RESOLUTION: f64 = 1e-9;

/// The slice of a slicing that holds most of the drift.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Concentration {
    /// The slice.
    pub name: String,
    /// Name with what it is a value of.
    pub label: String,
    /// What it is a share of.
    pub of: DriftShared,
    /// The share of the drift that the slice holds. Of the MMD²: 1 − MMD² of all other rows/MMD² of all, above 1
    /// where the others' is negative.
    pub share: f64,
    /// Its 95 % interval.
    pub ci95: [f64; 2],
    /// The slice's share of the items, or of the rows of the side of which it makes up more.
    pub rows_share: f64,
    /// Items, or rows of both sides, in the slice.
    pub n: u64,
}

/// A drift that slices share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DriftShared {
    /// Σ (1 − cosine of an item's two vectors).
    Displacement,
    /// The MMD² between the sets.
    Mmd2,
}

/// (slice, share, 95 % interval) of the slice that holds most of the MMD².
pub(super) fn of_mmd2(held: &[Option<HeldShare>], slices: usize) -> Option<(usize, f64, [f64; 2])> {
    let found = held.iter().take(slices).enumerate();
    found
        .filter_map(|(slice, held)| held.map(|h| (slice, h.share, h.ci95)))
        .max_by(|a, b| a.1.total_cmp(&b.1).then(b.0.cmp(&a.0)))
}

/// (slice, share, 95 % interval) of the slice that holds most of the displacement. `cosines` are the slices' mean
/// paired cosines; those after the first `slices` are of rows in none.
///
/// The share is a/(a + b) of two independent sums; its interval is the delta method's on the logit scale.
pub(super) fn of_displacement(
    cosines: &[Option<SliceMean>],
    slices: usize,
) -> Option<(usize, f64, [f64; 2])> {
    // Sum and variance of every slice's displacement.
    let sums: Vec<(f64, f64)> = cosines
        .iter()
        .map(|found| {
            found.as_ref().map_or((0.0, 0.0), |found| {
                let n = found.n as f64;
                let half = found.ci95.map_or(0.0, |[low, high]| (high - low) / 2.0);
                (
                    (n * (1.0 - found.mean)).max(0.0),
                    (n * half / Z_975).powi(2),
                )
            })
        })
        .collect();
    let items: u64 = cosines.iter().flatten().map(|found| found.n).sum();
    let [total, variance] = sums
        .iter()
        .fold([0.0, 0.0], |[t, v], (sum, var)| [t + sum, v + var]);
    if total <= RESOLUTION * items as f64 {
        return None;
    }
    let most = (0..slices.min(sums.len()))
        .max_by(|&a, &b| sums[a].0.total_cmp(&sums[b].0).then(b.cmp(&a)))?;
    let (a, var_a) = sums[most];
    let (b, var_b) = (total - a, (variance - var_a).max(0.0));
    let share = a / total;
    let ci95 = if b <= RESOLUTION * items as f64 {
        [share; 2]
    } else {
        let logit = (a / b).ln();
        let half = Z_975 * (var_a / (a * a) + var_b / (b * b)).sqrt();
        [logit - half, logit + half].map(|l| 1.0 / (1.0 + (-l).exp()))
    };
    Some((most, share, ci95))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(n: u64, mean: f64, half: f64) -> Option<SliceMean> {
        Some(SliceMean {
            n,
            mean,
            ci95: Some([mean - half, mean + half]),
            difference: None,
            difference_ci95: None,
            p_value: None,
            p_value_fdr: None,
        })
    }

    #[test]
    fn a_share_of_the_displacement_lies_within_its_interval_and_counts_what_is_in_no_slice() {
        let cosines = [
            mean(80, 0.99, 0.001),
            mean(20, 0.8, 0.01),
            mean(10, 0.9, 0.02),
        ];
        let (slice, share, [low, high]) = of_displacement(&cosines, 2).unwrap();
        assert_eq!(slice, 1);
        assert!((share - 4.0 / 5.8).abs() < 1e-12);
        assert!(
            low < share && share < high && low > 0.6 && high < 0.8,
            "{low} {high}"
        );
        // Rows in no slice may hold most: they are no slice.
        let (slice, share, _) =
            of_displacement(&[mean(9, 0.9, 0.0), mean(9, 0.1, 0.0)], 1).unwrap();
        assert_eq!(slice, 0);
        assert!((share - 0.1).abs() < 1e-12);
        let still = [mean(9, 1.0, 0.0), None];
        assert_eq!(of_displacement(&still, 2), None);
        let only = of_displacement(&[mean(9, 1.0, 0.0), mean(9, 0.5, 0.1)], 2).unwrap();
        assert_eq!((only.0, only.1, only.2), (1, 1.0, [1.0, 1.0]));
    }
}
