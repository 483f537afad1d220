//! Rows that belong together, and means over items that respect it.

use std::collections::{BTreeMap, HashMap};

use super::IntervalTarget;
use crate::engine::fixed::FixedSum;
use crate::stats::interval::Estimate;
use crate::stats::paired::Z_975;

/// Which rows never meet in a list: those of one group, or each row and itself.
pub(super) struct Groups {
    of_row: Vec<u32>,
    /// Where the members of each group end in `members`.
    ends: Vec<usize>,
    /// Rows by group, ascending within each.
    members: Vec<u32>,
    /// Whether somebody said what belongs together.
    given: bool,
}

impl Groups {
    /// Rows with equal `labels` are a group; an empty label is none, and such a row is one by itself, as is
    /// every row without labels.
    pub(super) fn new(rows: usize, labels: Option<&[String]>) -> Self {
        let of_row: Vec<u32> = match labels {
            None => (0..rows as u32).collect(),
            Some(labels) => {
                let mut numbers = HashMap::new();
                let mut next = 0;
                let mut new_number = || {
                    next += 1;
                    next - 1
                };
                let number = |label: &String| match label.as_str() {
                    "" => new_number(),
                    label => *numbers
                        .entry(label.to_owned())
                        .or_insert_with(&mut new_number),
                };
                labels.iter().map(number).collect()
            }
        };
        let mut members: Vec<u32> = (0..rows as u32).collect();
        members.sort_by_key(|&row| of_row[row as usize]);
        let groups = of_row.iter().max().map_or(0, |&last| last as usize + 1);
        let mut ends = vec![0; groups];
        for &group in &of_row {
            ends[group as usize] += 1;
        }
        let mut end = 0;
        for size in &mut ends {
            end += *size;
            *size = end;
        }
        Self {
            of_row,
            ends,
            members,
            given: labels.is_some(),
        }
    }

    /// The group of every row, by number.
    pub(super) fn of_rows(&self) -> &[u32] {
        &self.of_row
    }

    /// Whether groups were given.
    pub(super) fn given(&self) -> bool {
        self.given
    }

    /// How many groups there are.
    pub(super) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The rows that never are in the list of `row`, itself among them.
    pub(super) fn apart_from(&self, row: u32) -> &[u32] {
        let group = self.of_row[row as usize] as usize;
        let start = if group == 0 { 0 } else { self.ends[group - 1] };
        &self.members[start..self.ends[group]]
    }

    /// Rows of the largest group.
    pub(super) fn largest(&self) -> usize {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        self.ends
            .iter()
            .zip(starts)
            .map(|(end, start)| end - start)
            .max()
            .unwrap_or(0)
    }

    /// What an interval over `items` of the rows is for. Groups given are taken for draws, as are rows
    /// that were all queried; a sample of the rows, drawn by us, stands for these rows.
    pub(super) fn interval_target(&self, items: usize) -> IntervalTarget {
        if !self.given && items < self.of_row.len() {
            IntervalTarget::ThisCorpus
        } else {
            IntervalTarget::SimilarCorpora
        }
    }

    /// Mean of one value for each of `rows`, some of all rows, with a normal interval: for a sample of q of
    /// n rows, mean ± z·s/√q·√(1 − q/n), without the last factor for all rows; for groups from the sums of
    /// each ([`Estimate::of_groups`]). Sums do not depend on the order of rows. `None` without a value.
    pub(super) fn estimate(&self, rows: &[u32], values: &[f64]) -> Option<Estimate> {
        if values.is_empty() {
            return None;
        }
        let mut sum = FixedSum::default();
        values.iter().for_each(|&value| sum.add(value));
        let (n, q) = (self.of_row.len() as f64, values.len() as f64);
        let mean = sum.to_f64() / q;
        let mut squares = FixedSum::default();
        let draws = if self.given {
            let mut sums = BTreeMap::<u32, FixedSum>::new();
            for (&row, value) in rows.iter().zip(values) {
                let group = self.of_row[row as usize];
                sums.entry(group).or_default().add(value - mean);
            }
            sums.values()
                .for_each(|sum| squares.add(sum.to_f64().powi(2)));
            sums.len() as f64
        } else {
            values
                .iter()
                .for_each(|value| squares.add((value - mean).powi(2)));
            q
        };
        let unseen = if !self.given && q < n {
            1.0 - q / n
        } else {
            1.0
        };
        let half = Z_975 * (draws / (draws - 1.0) * squares.to_f64() * unseen).sqrt() / q;
        Some(Estimate {
            mean,
            ci95: (draws > 1.0).then_some([mean - half, mean + half]),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    #[test]
    fn members_of_groups() {
        let labels: Vec<String> = ["b", "a", "b", "c", "b"].map(String::from).into();
        let groups = Groups::new(5, Some(&labels));
        assert_eq!((groups.count(), groups.largest()), (3, 3));
        assert_eq!(groups.apart_from(2), [0, 2, 4]);
        assert_eq!(groups.apart_from(1), [1]);
        let unnamed: Vec<String> = ["", "a", "", "a"].map(String::from).into();
        let groups = Groups::new(4, Some(&unnamed));
        assert_eq!((groups.count(), groups.apart_from(0)), (3, [0].as_slice()));
        let single = Groups::new(3, None);
        assert_eq!((single.count(), single.largest()), (3, 1));
        assert_eq!(single.apart_from(2), [2]);
    }

    /// Groups of one row each give the interval of independent rows, and [`Estimate::of_groups`] that of
    /// any groups.
    #[test]
    fn intervals_agree_with_the_plain_formulas() {
        let mut random = Philox::new(4, 0);
        let values: Vec<f64> = (0..40).map(|_| random.uniform()).collect();
        let rows: Vec<u32> = (0..40).collect();
        let labels = |of: &dyn Fn(usize) -> usize| -> Vec<String> {
            (0..40).map(|row| of(row).to_string()).collect()
        };
        let close = |a: Estimate, b: Estimate| {
            let (a, b) = (a.ci95.unwrap(), b.ci95.unwrap());
            (a[0] - b[0]).abs() < 1e-12 && (a[1] - b[1]).abs() < 1e-12
        };
        let plain = Groups::new(40, None).estimate(&rows, &values).unwrap();
        let own = Groups::new(40, Some(&labels(&|row| row)));
        assert!(close(plain, own.estimate(&rows, &values).unwrap()));
        let fours = Groups::new(40, Some(&labels(&|row| row / 4)));
        let expected = Estimate::of_groups(&values, fours.of_rows()).unwrap();
        assert!(close(expected, fours.estimate(&rows, &values).unwrap()));
        assert!(!close(expected, plain));
    }

    /// Chunks of a document that move together: the clustered interval covers the truth, the plain one
    /// misses it far too often.
    #[test]
    fn clustered_intervals_cover() {
        let (mut clustered, mut plain) = (0, 0);
        for seed in 0..400 {
            let mut random = Philox::new(seed, 0);
            let mut values = Vec::new();
            let mut labels = Vec::new();
            for document in 0..60 {
                let shared = random.normal();
                for _ in 0..8 {
                    values.push(shared + 0.5 * random.normal());
                    labels.push(document.to_string());
                }
            }
            let rows: Vec<u32> = (0..values.len() as u32).collect();
            let covers = |labels: Option<&[String]>| {
                let found = Groups::new(values.len(), labels).estimate(&rows, &values);
                let [low, high] = found.unwrap().ci95.unwrap();
                u32::from(low <= 0.0 && 0.0 <= high)
            };
            clustered += covers(Some(&labels));
            plain += covers(None);
        }
        // 95 % of 400, less four standard errors and what a normal interval of 60 draws lacks.
        assert!((355..=398).contains(&clustered), "{clustered} of 400");
        assert!(plain < 300, "{plain} of 400");
    }
}
