//! Means over the items of a slice, against the rest.

use std::collections::HashMap;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::SlicedSets;
use crate::stats::counts::{MeanOfSample, welch};

/// Differences of means of cosines and shares smaller than this are rounding.
const RESOLUTION: f64 = 1e-9;
/// Fewest items that a slice and the rest need for a comparison.
const MIN_ITEMS: u64 = 20;

/// A mean over the items of a slice.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SliceMean {
    /// Items.
    pub n: u64,
    /// Their mean.
    pub mean: f64,
    /// Its 95 % interval; `null` for a single item or group.
    pub ci95: Option<[f64; 2]>,
    /// Mean − mean of all other items; `null` with fewer than 20 of either.
    pub difference: Option<f64>,
    /// Its 95 % interval (Welch).
    pub difference_ci95: Option<[f64; 2]>,
    /// Two-sided p-value of "the same mean as the rest" (Welch's t-test, over groups where there are any).
    pub p_value: Option<f64>,
    /// The same, corrected over all tests.
    pub p_value_fdr: Option<f64>,
}

/// Which rows belong together: of one group, or of one item on both sides.
pub(super) struct Units {
    /// Unit of every reference row.
    pub(super) reference: Vec<u32>,
    /// Unit of every current row.
    pub(super) current: Vec<u32>,
    /// How many there are.
    pub(super) count: usize,
    /// Whether a unit may hold several rows of one side.
    pub(super) grouped: bool,
    /// Rows of either side in the order of their ids: sums in this order do not depend on the file's.
    pub(super) order: [Vec<u32>; 2],
}

impl Units {
    pub(super) fn new(sets: &SlicedSets<'_>) -> Self {
        let (n, m) = (sets.reference.rows.len(), sets.current.rows.len());
        let order = [sets.reference, sets.current].map(|sample| {
            let mut order: Vec<u32> = (0..sample.rows.len() as u32).collect();
            order.par_sort_unstable_by_key(|&row| sample.ids.get(row as usize));
            order
        });
        if let (Some(x), Some(y)) = (sets.reference.groups, sets.current.groups) {
            let mut numbers: HashMap<&str, u32> = HashMap::new();
            let mut number = |group| {
                let next = numbers.len() as u32;
                *numbers.entry(group).or_insert(next)
            };
            let reference: Vec<u32> = x.iter().map(|g| number(g.as_str())).collect();
            let current: Vec<u32> = y.iter().map(|g| number(g.as_str())).collect();
            return Self {
                reference,
                current,
                count: numbers.len(),
                grouped: true,
                order,
            };
        }
        let mut current: Vec<u32> = (n as u32..(n + m) as u32).collect();
        for &(x, y) in sets.shared {
            current[y as usize] = x;
        }
        Self {
            reference: (0..n as u32).collect(),
            current,
            count: n + m,
            grouped: false,
            order,
        }
    }
}

/// Sums over the units' items: with V the sum of a unit's values (about their common mean) and N its items,
/// Σ V, Σ N, Σ V², Σ VN, Σ N² and how many units there are.
#[derive(Debug, Clone, Copy, Default)]
struct UnitSums {
    v: f64,
    n: f64,
    vv: f64,
    vn: f64,
    nn: f64,
    units: f64,
}

impl UnitSums {
    fn add(&mut self, v: f64, n: f64, sign: f64) {
        self.v += sign * v;
        self.n += sign * n;
        self.vv += sign * v * v;
        self.vn += sign * v * n;
        self.nn += sign * n * n;
        self.units += sign;
    }

    fn mean(&self) -> MeanOfSample {
        let mean = self.v / self.n;
        let squares = self.vv - 2.0 * mean * self.vn + mean * mean * self.nn;
        // Values that differ by rounding only say nothing about differences of that size.
        let squares = squares.max(0.0) + (RESOLUTION * self.n).powi(2);
        MeanOfSample::new(self.n, self.v, self.units, squares)
    }
}

/// Items with their slices, units and values.
pub(super) struct ItemTable {
    /// (slice, unit, value about the mean), ordered by slice, then unit.
    items: Vec<(u32, u32, f64)>,
    centre: f64,
    slices: usize,
}

impl ItemTable {
    /// `labels`, reference `rows` and `values` of every item.
    pub(super) fn new(
        labels: &[u32],
        rows: &[u32],
        units: &Units,
        values: &[f64],
        slices: usize,
    ) -> Self {
        assert_eq!((labels.len(), rows.len()), (values.len(), values.len()));
        let mut items: Vec<(u32, u32, f64)> = labels
            .iter()
            .zip(rows)
            .zip(values)
            .map(|((&label, &row), &value)| (label, units.reference[row as usize], value))
            .collect();
        // By value, so that sums do not depend on the order of the rows.
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let centre = sorted.iter().sum::<f64>() / sorted.len().max(1) as f64;
        items.iter_mut().for_each(|item| item.2 -= centre);
        items.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.cmp(&b.1)).then(a.2.total_cmp(&b.2)));
        Self {
            items,
            centre,
            slices,
        }
    }

    /// The mean of every slice that has an item.
    pub(super) fn means(&self) -> Vec<Option<SliceMean>> {
        // Per unit over all slices, to take a slice's part away from.
        let mut units: HashMap<u32, (f64, f64)> = HashMap::new();
        for &(_, unit, value) in &self.items {
            let sums = units.entry(unit).or_default();
            sums.0 += value;
            sums.1 += 1.0;
        }
        let mut all = UnitSums::default();
        let mut ordered: Vec<(f64, f64)> = units.values().copied().collect();
        ordered.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        ordered.iter().for_each(|&(v, n)| all.add(v, n, 1.0));
        let mut means = vec![None; self.slices];
        for of_slice in self.items.chunk_by(|a, b| a.0 == b.0) {
            let Some(mean) = means.get_mut(of_slice[0].0 as usize) else {
                continue;
            };
            let (mut own, mut rest) = (UnitSums::default(), all);
            let mut in_slice: Vec<(f64, f64, u32)> = of_slice
                .chunk_by(|a, b| a.1 == b.1)
                .map(|of_unit| {
                    let sum = of_unit.iter().map(|item| item.2).sum();
                    (sum, of_unit.len() as f64, of_unit[0].1)
                })
                .collect();
            in_slice.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            for (v, n, unit) in in_slice {
                own.add(v, n, 1.0);
                let (all_v, all_n) = units[&unit];
                rest.add(all_v, all_n, -1.0);
                if all_n > n {
                    rest.add(all_v - v, all_n - n, 1.0);
                }
            }
            *mean = Some(self.mean(own, rest));
        }
        means
    }

    fn mean(&self, own: UnitSums, rest: UnitSums) -> SliceMean {
        let sample = own.mean();
        let enough = own.n.min(rest.n) as u64 >= MIN_ITEMS;
        let compared = enough.then(|| welch(sample, rest.mean())).flatten();
        SliceMean {
            n: own.n as u64,
            mean: sample.mean + self.centre,
            ci95: sample.ci95().map(|ci| ci.map(|end| end + self.centre)),
            difference: compared.map(|c| c.difference),
            difference_ci95: compared.map(|c| c.ci95),
            p_value: compared.map(|c| c.p_value),
            p_value_fdr: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    fn units_of(numbers: Vec<u32>) -> Units {
        Units {
            count: numbers.iter().max().map_or(0, |&u| u as usize + 1),
            current: Vec::new(),
            reference: numbers,
            grouped: true,
            order: Default::default(),
        }
    }

    /// Single items: means, variances and Welch's test of the values themselves.
    #[test]
    fn single_items_are_compared_as_two_samples() {
        let mut random = Philox::new(1, 0);
        let values: Vec<f64> = (0..90).map(|_| random.uniform()).collect();
        let labels: Vec<u32> = (0..90).map(|i| u32::from(i % 3 == 0)).collect();
        let rows: Vec<u32> = (0..90).collect();
        let found = ItemTable::new(&labels, &rows, &units_of(rows.clone()), &values, 2).means();
        let sample = |label: u32| {
            let own: Vec<f64> = values
                .iter()
                .zip(&labels)
                .filter(|(_, l)| **l == label)
                .map(|(v, _)| *v)
                .collect();
            let n = own.len() as f64;
            let sum: f64 = own.iter().sum();
            let squares = own.iter().map(|v| (v - sum / n).powi(2)).sum();
            MeanOfSample::new(n, sum, n, squares)
        };
        let expected = welch(sample(1), sample(0)).unwrap();
        let slice = found[1].as_ref().unwrap();
        assert_eq!(slice.n, 30);
        assert!((slice.mean - sample(1).mean).abs() < 1e-12);
        assert!((slice.difference.unwrap() - expected.difference).abs() < 1e-12);
        // The resolution adds 1e-18 to variances of 1e-3.
        assert!((slice.p_value.unwrap() - expected.p_value).abs() < 1e-9);
        assert!((slice.difference_ci95.unwrap()[0] - expected.ci95[0]).abs() < 1e-9);
    }

    /// Items that come in equal threes say no more than a third as many.
    #[test]
    fn groups_widen_intervals() {
        let mut random = Philox::new(2, 0);
        let values: Vec<f64> = (0..60).map(|_| random.uniform()).collect();
        let labels: Vec<u32> = (0..60).map(|i| u32::from(i < 25)).collect();
        let rows: Vec<u32> = (0..180).collect();
        let thrice = |list: &[f64]| -> Vec<f64> { list.iter().flat_map(|&v| [v; 3]).collect() };
        let labels3: Vec<u32> = labels.iter().flat_map(|&l| [l; 3]).collect();
        let single = ItemTable::new(
            &labels,
            &rows[..60],
            &units_of(rows[..60].to_vec()),
            &values,
            2,
        );
        let units = units_of((0..180).map(|i| i / 3).collect());
        let grouped = ItemTable::new(&labels3, &rows, &units, &thrice(&values), 2).means();
        let (a, b) = (
            single.means()[1].clone().unwrap(),
            grouped[1].clone().unwrap(),
        );
        assert_eq!((a.n, b.n), (25, 75));
        assert!((a.p_value.unwrap() - b.p_value.unwrap()).abs() < 1e-9);
        assert!((a.ci95.unwrap()[1] - b.ci95.unwrap()[1]).abs() < 1e-9);
    }

    #[test]
    fn equal_values_differ_from_nothing() {
        let values: Vec<f64> = (0..80).map(|i| 1.0 - f64::from(i % 2) * 1e-16).collect();
        let labels: Vec<u32> = (0..80).map(|i| i % 2).collect();
        let rows: Vec<u32> = (0..80).collect();
        let found = ItemTable::new(&labels, &rows, &units_of(rows.clone()), &values, 2).means();
        assert!(found[0].as_ref().unwrap().p_value.unwrap() > 0.99);
        let few = ItemTable::new(
            &labels[..30],
            &rows[..30],
            &units_of(rows.clone()),
            &values[..30],
            3,
        );
        let found = few.means();
        assert_eq!(found[0].as_ref().unwrap().p_value, None);
        assert_eq!(found[2], None);
    }
}
