//! Range searches: the radius that returns as many rows after the change as before, and what falls out of it.

use schemars::JsonSchema;
use serde::Serialize;

use super::{BothSides, Groups, OverlapConfig, lists};
use crate::embeddings::Ids;
use crate::stats::interval::Estimate;

/// Searches looked at: of the rows queried, those with the smallest id hashes.
const SEARCHES: usize = 10_000;
/// Mean numbers of results that the table is for.
const RESULTS: [usize; 3] = [1, 10, 50];
/// Lists must be this many times as long as what a search returns on average: most are whole then.
const ROOM: usize = 2;
/// Rows named that fell out most.
const NAMED: usize = 10;

/// Searches for all rows at least as similar as a radius, every queried row searching among the others.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RangeSearches {
    /// Searches: of the rows queried, those with the smallest id hashes.
    pub searches: usize,
    /// Whether these are all rows.
    pub exact: bool,
    /// One row per mean number of results, ascending.
    pub table: Vec<RadiusRow>,
}

/// A radius before, and the one that stands for it after.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RadiusRow {
    /// Results per search, on average, on either side.
    pub results: usize,
    /// Similarity down to which reference searches return so many.
    pub reference_radius: f64,
    /// The same for current searches.
    pub current_radius: f64,
    /// Share of what reference searches return within their radius that current searches do not return within
    /// theirs.
    pub fall_out: Option<Estimate>,
    /// The same if current searches keep the reference's radius.
    pub fall_out_if_kept: Option<Estimate>,
    /// Results per current search with the reference's radius; a search counts at most as many as lists are long.
    pub results_if_kept: f64,
    /// Share of searches that return nothing: before, after, and after with the radius kept.
    pub empty_reference: f64,
    /// See `empty_reference`.
    pub empty_current: f64,
    /// See `empty_reference`.
    pub empty_if_kept: f64,
    /// Share of searches that return more than lists are long, on either side; they take no part in `fall_out`.
    pub cut_off: f64,
    /// Rows that some reference search returns.
    pub returned_rows: u64,
    /// Those of them that no current search returns.
    pub dark_rows: u64,
    /// The rows that most searches no longer return.
    pub fallen_out: Vec<FallenOut>,
}

/// A row that fewer searches return.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FallenOut {
    /// The row.
    pub id: String,
    /// Reference searches that return it.
    pub searches_reference: u32,
    /// Current searches that do.
    pub searches_current: u32,
}

/// The lists of some searches, kept until the radius is known.
pub(super) struct Searches {
    /// Rows of the searches, in the order in which they come.
    wanted: Vec<bool>,
    rows: Vec<u32>,
    lists: BothSides<Vec<Vec<(f64, u32)>>>,
    longest: usize,
}

impl Searches {
    pub(super) fn new(queried: &[u32], ids: &Ids, longest: usize, config: &OverlapConfig) -> Self {
        let mut chosen = queried.to_vec();
        if SEARCHES < chosen.len() {
            chosen.sort_by_cached_key(|&row| {
                (ids.hash(row as usize, config.seed), ids.get(row as usize))
            });
            chosen.truncate(SEARCHES);
        }
        let mut wanted = vec![false; ids.len()];
        chosen.iter().for_each(|&row| wanted[row as usize] = true);
        Self {
            wanted,
            rows: Vec::new(),
            lists: BothSides::default(),
            longest,
        }
    }

    pub(super) fn add(&mut self, row: u32, before: &lists::List, after: &lists::List) {
        if self.wanted[row as usize] {
            self.rows.push(row);
            self.lists.reference.push(before[..self.longest].to_vec());
            self.lists.current.push(after[..self.longest].to_vec());
        }
    }

    /// `None` where lists are too short for any radius, or every other row is in them.
    pub(super) fn finish(self, ids: &Ids, groups: &Groups) -> Option<RangeSearches> {
        let sorted = [&self.lists.reference, &self.lists.current].map(|lists| {
            let mut scores: Vec<f64> = lists.iter().flatten().map(|e| e.0).collect();
            scores.sort_unstable_by(|a, b| b.total_cmp(a));
            scores
        });
        let table: Vec<RadiusRow> = RESULTS
            .into_iter()
            .filter(|results| ROOM * results <= self.longest)
            .map(|results| {
                let at = results * self.rows.len() - 1;
                let radii = [sorted[0][at], sorted[1][at]];
                self.row(results, radii, ids, groups)
            })
            .collect();
        (!table.is_empty()).then_some(RangeSearches {
            searches: self.rows.len(),
            exact: self.rows.len() == ids.len(),
            table,
        })
    }

    fn row(&self, results: usize, radii: [f64; 2], ids: &Ids, groups: &Groups) -> RadiusRow {
        let within = |list: &lists::List, radius: f64| list.partition_point(|e| e.0 >= radius);
        let searches = self.rows.len() as f64;
        let mut returned = BothSides {
            reference: vec![0u32; ids.len()],
            current: vec![0u32; ids.len()],
        };
        let (mut empty, mut cut_off, mut results_if_kept) = ([0u64; 3], 0u64, 0u64);
        // Per search what it returned before, and how much of that it lost; new radius, old radius.
        let mut lost: [Vec<(u32, f64, f64)>; 2] = Default::default();
        let pairs = self.lists.reference.iter().zip(&self.lists.current);
        for (&row, (before, after)) in self.rows.iter().zip(pairs) {
            let old = within(before, radii[0]);
            let new = [within(after, radii[1]), within(after, radii[0])];
            before[..old]
                .iter()
                .for_each(|e| returned.reference[e.1 as usize] += 1);
            after[..new[0]]
                .iter()
                .for_each(|e| returned.current[e.1 as usize] += 1);
            for (empty, count) in empty.iter_mut().zip([old, new[0], new[1]]) {
                *empty += u64::from(count == 0);
            }
            results_if_kept += new[1] as u64;
            cut_off += u64::from(old == self.longest || new[0] == self.longest);
            let old_rows: Vec<u32> = before[..old].iter().map(|e| e.1).collect();
            for (lost, count) in lost.iter_mut().zip(new) {
                if old < self.longest && count < self.longest {
                    let still = |row: &&u32| after[..count].iter().any(|e| e.1 == **row);
                    let kept = old_rows.iter().filter(still).count();
                    lost.push((row, old as f64, (old - kept) as f64));
                }
            }
        }
        let dark = |(before, after): (&u32, &u32)| *before > 0 && *after == 0;
        let both = || returned.reference.iter().zip(&returned.current);
        RadiusRow {
            results,
            reference_radius: radii[0],
            current_radius: radii[1],
            fall_out: ratio(&lost[0], groups),
            fall_out_if_kept: ratio(&lost[1], groups),
            results_if_kept: results_if_kept as f64 / searches,
            empty_reference: empty[0] as f64 / searches,
            empty_current: empty[1] as f64 / searches,
            empty_if_kept: empty[2] as f64 / searches,
            cut_off: cut_off as f64 / searches,
            returned_rows: both().filter(|(before, _)| **before > 0).count() as u64,
            dark_rows: both().filter(|&pair| dark(pair)).count() as u64,
            fallen_out: fallen_out(&returned, ids),
        }
    }
}

fn fallen_out(returned: &BothSides<Vec<u32>>, ids: &Ids) -> Vec<FallenOut> {
    let fall = |row: usize| i64::from(returned.reference[row]) - i64::from(returned.current[row]);
    let mut rows: Vec<usize> = (0..ids.len()).filter(|&row| fall(row) > 0).collect();
    rows.sort_unstable_by(|&a, &b| {
        fall(b)
            .cmp(&fall(a))
            .then_with(|| ids.get(a).cmp(ids.get(b)))
    });
    rows.truncate(NAMED);
    rows.into_iter()
        .map(|row| FallenOut {
            id: ids.get(row).to_owned(),
            searches_reference: returned.reference[row],
            searches_current: returned.current[row],
        })
        .collect()
}

/// Σ lost / Σ returned over searches, with the interval of a ratio: that of the mean of (lost − ratio · returned),
/// in units of the mean returned. `None` where nothing was returned.
fn ratio(searches: &[(u32, f64, f64)], groups: &Groups) -> Option<Estimate> {
    let returned: f64 = searches.iter().map(|s| s.1).sum();
    let lost: f64 = searches.iter().map(|s| s.2).sum();
    if returned == 0.0 {
        return None;
    }
    let ratio = lost / returned;
    let mean = returned / searches.len() as f64;
    let rows: Vec<u32> = searches.iter().map(|s| s.0).collect();
    let residuals: Vec<f64> = searches
        .iter()
        .map(|s| (s.2 - ratio * s.1) / mean)
        .collect();
    let about_0 = groups.estimate(&rows, &residuals)?;
    let around = Estimate {
        mean: ratio,
        ci95: about_0.ci95.map(|[low, high]| [ratio + low, ratio + high]),
    };
    Some(around.of_share())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searches(before: Vec<Vec<(f64, u32)>>, after: Vec<Vec<(f64, u32)>>) -> Searches {
        Searches {
            wanted: Vec::new(),
            rows: (0..before.len() as u32).collect(),
            longest: before[0].len(),
            lists: BothSides {
                reference: before,
                current: after,
            },
        }
    }

    /// Four searches by hand: six results wait for one radius each.
    #[test]
    fn radii_and_what_falls_out_of_them() {
        let ids: Ids = ["a", "b", "c", "d"].iter().collect();
        let groups = Groups::new(4, None);
        let before = vec![
            vec![(0.9, 1), (0.8, 2)],
            vec![(0.9, 0), (0.3, 2)],
            vec![(0.8, 0), (0.3, 1)],
            vec![(0.2, 0), (0.1, 1)],
        ];
        // b and c leave a for each other; the scale shrinks.
        let after = vec![
            vec![(0.5, 3), (0.1, 1)],
            vec![(0.6, 2), (0.1, 0)],
            vec![(0.6, 1), (0.1, 0)],
            vec![(0.5, 0), (0.2, 1)],
        ];
        let found = searches(before.clone(), after)
            .finish(&ids, &groups)
            .unwrap();
        let row = &found.table[0];
        assert_eq!((found.table.len(), row.results), (1, 1));
        // Four results: 0.9, 0.9, 0.8, 0.8 before; 0.6, 0.6, 0.5, 0.5 after.
        assert_eq!((row.reference_radius, row.current_radius), (0.8, 0.5));
        // The first search is cut off; of the two of the others both are lost.
        assert_eq!(row.cut_off, 0.25);
        assert_eq!(row.fall_out.unwrap().mean, 1.0);
        assert_eq!((row.empty_reference, row.empty_current), (0.25, 0.0));
        assert_eq!((row.empty_if_kept, row.results_if_kept), (1.0, 0.0));
        assert_eq!((row.returned_rows, row.dark_rows), (3, 0));
        assert_eq!(row.fallen_out.len(), 1);
        assert_eq!(row.fallen_out[0].id, "a");

        // Without a change nothing falls out.
        let same = searches(before.clone(), before)
            .finish(&ids, &groups)
            .unwrap();
        let row = &same.table[0];
        assert_eq!(row.fall_out.unwrap().mean, 0.0);
        assert_eq!(row.fall_out, row.fall_out_if_kept);
        assert_eq!((row.dark_rows, row.fallen_out.len()), (0, 0));
    }

    #[test]
    fn lists_too_short_for_any_radius() {
        let ids: Ids = ["a", "b"].iter().collect();
        let lists = vec![vec![(0.9, 1)], vec![(0.9, 0)]];
        let found = searches(lists.clone(), lists);
        assert_eq!(found.finish(&ids, &Groups::new(2, None)), None);
    }
}
