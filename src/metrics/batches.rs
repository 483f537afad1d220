//! Batches of rows that were made another way: cut short, padded, of another length, or squeezed.
//!
//! Nothing but the vectors is looked at, and each batch of a set is held against the set's other rows: a set
//! that is padded throughout has no odd batch.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Ids, Rows};

/// Fewer rows, in the batch or beside it, tell nothing.
pub const MIN_ROWS: usize = 20;
/// Share of the coordinates that must be cut off, or be constant, to be noticed.
const MIN_DIMENSIONS: f64 = 1.0 / 16.0;
/// Share of a batch's rows that are cut off at least, and of all others at most.
const MOST_ROWS: f64 = 0.5;
const FEW_ROWS: f64 = 0.01;
/// Difference of median log lengths, in median absolute deviations of the others, and at least.
const NORM_DEVIATIONS: f64 = 8.0;
const MIN_NORM_DIFFERENCE: f64 = 0.02;
/// Rows per batch whose directions are counted.
const COUNTED_ROWS: usize = 256;
/// Effective dimension below this share of the others' is low.
const LOW_DIMENSION: f64 = 0.25;

/// What is odd about a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchFault {
    /// Most of its rows end in zeros where others do not: vectors cut short and padded.
    TrailingZeros,
    /// Coordinates that vary elsewhere are constant in it.
    ConstantCoordinates,
    /// Its vectors are longer or shorter than the others.
    Norm,
    /// Its vectors fill far fewer directions than as many others: squeezed, or a single topic.
    EffectiveDimension,
}

impl BatchFault {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::TrailingZeros => "vectors end in zeros",
            Self::ConstantCoordinates => "coordinates are constant",
            Self::Norm => "vectors have another length",
            Self::EffectiveDimension => "vectors fill few directions",
        }
    }

    /// Whether a topic alone may do it.
    pub fn may_be_a_topic(self) -> bool {
        self == Self::EffectiveDimension
    }
}

/// A batch beside the set's other rows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BatchCheck {
    /// The column.
    pub by: String,
    /// The batch: a value of the column.
    pub name: String,
    /// Its rows.
    pub rows: u64,
    /// Zeros that half of its rows end in, or more.
    pub trailing_zeros: u64,
    /// Share of its rows that end in zeros, of a sixteenth of the coordinates or more.
    pub cut_share: f64,
    /// The same of all other rows.
    pub cut_share_others: f64,
    /// Coordinates constant in it that vary elsewhere.
    pub constant_coordinates: u64,
    /// Median length of its vectors.
    pub median_norm: f64,
    /// Median length of all others.
    pub median_norm_others: f64,
    /// Participation ratio of its covariance over that of as many other rows, of at most 256; null where
    /// undefined.
    pub effective_dimension_ratio: Option<f64>,
    /// What is odd about it.
    pub faults: Vec<BatchFault>,
}

impl BatchCheck {
    /// Whether something is odd that no topic explains.
    pub fn is_made_another_way(&self) -> bool {
        self.faults.iter().any(|fault| !fault.may_be_a_topic())
    }
}

/// Sums over the rows of one batch.
struct Profile {
    rows: usize,
    trailing: Vec<u32>,
    log_norms: Vec<f64>,
    /// Per coordinate the smallest and the largest value.
    bounds: Vec<(f32, f32)>,
}

/// Holds every batch of at least 20 rows against all other rows; `labels` are the batches of the rows, as places
/// in `names`, anything beyond for none.
pub fn check_batches(
    by: &str,
    rows: Rows<'_>,
    ids: &Ids,
    labels: &[u32],
    names: &[String],
    seed: u64,
) -> Vec<BatchCheck> {
    let dim = rows.dim();
    let measured = rows.par_map(|row| {
        let trailing = row.iter().rev().take_while(|v| **v == 0.0).count() as u32;
        (trailing, crate::engine::score::norm(row).ln())
    });
    let mut profiles: Vec<Profile> = (0..=names.len())
        .map(|_| Profile {
            rows: 0,
            trailing: Vec::new(),
            log_norms: Vec::new(),
            bounds: vec![(f32::INFINITY, f32::NEG_INFINITY); dim],
        })
        .collect();
    let mut buffer = Vec::new();
    for (row, &label) in labels.iter().enumerate() {
        let profile = &mut profiles[(label as usize).min(names.len())];
        profile.rows += 1;
        profile.trailing.push(measured[row].0);
        profile.log_norms.push(measured[row].1);
        for ((low, high), &v) in profile.bounds.iter_mut().zip(rows.row_in(row, &mut buffer)) {
            (*low, *high) = (low.min(v), high.max(v));
        }
    }
    let mut order: Vec<u32> = (0..rows.len() as u32).collect();
    order.sort_by_cached_key(|&row| (ids.hash(row as usize, seed), ids.get(row as usize)));
    (0..names.len())
        .into_par_iter()
        .filter(|&at| {
            let inside = profiles[at].rows;
            inside >= MIN_ROWS && rows.len() - inside >= MIN_ROWS
        })
        .map(|at| check((by, &names[at]), rows, labels, &order, &profiles, at))
        .collect()
}

/// `order` are all rows by the hash of their ids.
fn check(
    (by, name): (&str, &str),
    rows: Rows<'_>,
    labels: &[u32],
    order: &[u32],
    profiles: &[Profile],
    at: usize,
) -> BatchCheck {
    let dim = rows.dim();
    let batch = &profiles[at];
    let others = || {
        let all = profiles.iter().enumerate();
        all.filter(move |(i, _)| *i != at).map(|(_, p)| p)
    };
    let noticed = ((MIN_DIMENSIONS * dim as f64).ceil() as u32).max(1);
    let cut = |profile: &Profile| profile.trailing.iter().filter(|t| **t >= noticed).count();
    let beside = rows.len() - batch.rows;
    let cut_share = cut(batch) as f64 / batch.rows as f64;
    let cut_share_others = others().map(cut).sum::<usize>() as f64 / beside as f64;
    let mut trailing = batch.trailing.clone();
    trailing.sort_unstable();
    let trailing_zeros = u64::from(trailing[trailing.len() / 2]);

    let constant_coordinates = (0..dim)
        .filter(|&axis| {
            let (low, high) = batch.bounds[axis];
            let varies = |p: &Profile| p.bounds[axis].0 < p.bounds[axis].1;
            low == high && others().any(varies)
        })
        .count() as u64;

    let of_others: Vec<f64> = others().flat_map(|p| &p.log_norms).copied().collect();
    let (inside, outside) = (median(batch.log_norms.clone()), median(of_others.clone()));
    let spread = median(of_others.iter().map(|v| (v - outside).abs()).collect());
    let odd_norm = (inside - outside).abs() > (NORM_DEVIATIONS * spread).max(MIN_NORM_DIFFERENCE);

    let drawn = |is_inside: bool, most: usize| -> Vec<u32> {
        let rows = order
            .iter()
            .filter(|&&row| (labels[row as usize] as usize == at) == is_inside);
        rows.take(most).copied().collect()
    };
    let count = COUNTED_ROWS.min(batch.rows).min(beside);
    let (inner, outer) = (drawn(true, count), drawn(false, count));
    let ratio = participation_ratio(rows, &inner).zip(participation_ratio(rows, &outer));
    let effective_dimension_ratio = ratio.map(|(inner, outer)| inner / outer);

    let mut faults = Vec::new();
    let is_cut = cut_share >= MOST_ROWS && cut_share_others <= FEW_ROWS;
    if is_cut {
        faults.push(BatchFault::TrailingZeros);
    }
    if constant_coordinates >= u64::from(noticed) && !is_cut {
        faults.push(BatchFault::ConstantCoordinates);
    }
    if odd_norm {
        faults.push(BatchFault::Norm);
    }
    if effective_dimension_ratio.is_some_and(|ratio| ratio < LOW_DIMENSION) {
        faults.push(BatchFault::EffectiveDimension);
    }
    BatchCheck {
        by: by.to_owned(),
        name: name.to_owned(),
        rows: batch.rows as u64,
        trailing_zeros,
        cut_share,
        cut_share_others,
        constant_coordinates,
        median_norm: inside.exp(),
        median_norm_others: outside.exp(),
        effective_dimension_ratio,
        faults,
    }
}

/// The upper median; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    let middle = values.len() / 2;
    if values.is_empty() {
        return 0.0;
    }
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// (Σ λ)²/Σ λ² of the unit rows' covariance, from their Gram matrix; `None` where they are all equal.
fn participation_ratio(rows: Rows<'_>, of: &[u32]) -> Option<f64> {
    let dim = rows.dim();
    let mut values: Vec<f64> = rows
        .gather(of.iter().map(|&row| row as usize))
        .into_iter()
        .map(f64::from)
        .collect();
    let mut mean = vec![0.0; dim];
    for row in values.chunks_exact_mut(dim) {
        let norm = row.iter().map(|v| v * v).sum::<f64>().sqrt();
        for (v, m) in row.iter_mut().zip(&mut mean) {
            *v /= norm;
            *m += *v / of.len() as f64;
        }
    }
    for row in values.chunks_exact_mut(dim) {
        row.iter_mut().zip(&mean).for_each(|(v, m)| *v -= m);
    }
    let (mut trace, mut squares) = (0.0, 0.0);
    for (i, a) in values.chunks_exact(dim).enumerate() {
        for (j, b) in values.chunks_exact(dim).take(i + 1).enumerate() {
            let dot = a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            if i == j {
                trace += dot;
                squares += dot * dot;
            } else {
                squares += 2.0 * dot * dot;
            }
        }
    }
    // Below this the rows differ by rounding.
    (trace > 1e-9 * of.len() as f64).then(|| trace * trace / squares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    const DIM: usize = 64;
    const ROWS: usize = 1_200;

    fn checked(change: impl Fn(usize, &mut [f32])) -> Vec<BatchCheck> {
        let mut random = Philox::new(11, 0);
        let mut values: Vec<f32> = (0..ROWS * DIM).map(|_| random.normal() as f32).collect();
        let labels: Vec<u32> = (0..ROWS as u32).map(|row| row % 6).collect();
        for (row, &batch) in values.chunks_exact_mut(DIM).zip(&labels) {
            let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
            row.iter_mut().for_each(|v| *v /= norm);
            change(batch as usize, row);
        }
        let ids: Ids = (0..ROWS).map(|row| row.to_string()).collect();
        let names: Vec<String> = (0..6).map(|batch| format!("day {batch}")).collect();
        check_batches("day", Rows::new(&values, DIM), &ids, &labels, &names, 0)
    }

    fn faults(found: &[BatchCheck]) -> Vec<(&str, &[BatchFault])> {
        let odd = found.iter().filter(|b| !b.faults.is_empty());
        odd.map(|b| (b.name.as_str(), b.faults.as_slice()))
            .collect()
    }

    #[test]
    fn sound_batches_are_sound_and_a_set_that_is_padded_has_no_odd_one() {
        let found = checked(|_, _| {});
        assert_eq!(found.len(), 6);
        assert_eq!(faults(&found), []);
        let ratios = found.iter().filter_map(|b| b.effective_dimension_ratio);
        // Of 200 random rows each.
        assert!(ratios.into_iter().all(|ratio| (ratio - 1.0).abs() < 0.1));
        assert_eq!(faults(&checked(|_, row| row[48..].fill(0.0))), []);
    }

    #[test]
    fn what_was_done_to_a_batch_is_named() {
        let cut = checked(|batch, row| {
            if batch == 2 {
                row[32..].fill(0.0);
                let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                row.iter_mut().for_each(|v| *v /= norm);
            }
        });
        assert_eq!(faults(&cut), [("day 2", &[BatchFault::TrailingZeros][..])]);
        assert_eq!(cut[2].trailing_zeros, 32);
        // Half a row's length is gone too, where it is not given back.
        let short = checked(|batch, row| {
            if batch == 2 {
                row[32..].fill(0.0);
            }
        });
        let both = [BatchFault::TrailingZeros, BatchFault::Norm];
        assert_eq!(faults(&short), [("day 2", &both[..])]);
        let long = checked(|batch, row| {
            if batch == 4 {
                row.iter_mut().for_each(|v| *v *= 1.1);
            }
        });
        assert_eq!(faults(&long), [("day 4", &[BatchFault::Norm][..])]);
        let held = checked(|batch, row| {
            if batch == 1 {
                row[5..12].fill(0.1);
            }
        });
        assert_eq!(held[1].constant_coordinates, 7);
        assert_eq!(
            faults(&held),
            [("day 1", &[BatchFault::ConstantCoordinates][..])]
        );
        let squeezed = checked(|batch, row| {
            if batch == 0 {
                let first = row[0];
                row.iter_mut().for_each(|v| *v = first + 0.05 * *v);
            }
        });
        assert!(squeezed[0].faults.contains(&BatchFault::EffectiveDimension));
    }

    #[test]
    fn a_few_cut_rows_are_no_batch() {
        let mut random = Philox::new(3, 1);
        let lots: Vec<bool> = (0..ROWS).map(|_| random.uniform() < 0.02).collect();
        let row = std::cell::Cell::new(0);
        let found = checked(|_, values| {
            if lots[row.replace(row.get() + 1)] {
                values[32..].fill(0.0);
            }
        });
        assert_eq!(faults(&found), []);
        assert!(found.iter().any(|b| b.cut_share > 0.0));
    }
}
