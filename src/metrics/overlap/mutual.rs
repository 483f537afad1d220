//! Mutual neighbours: pairs of items each of which is in the other's list.

use schemars::JsonSchema;
use serde::Serialize;

use super::BothSides;
use super::groups::Groups;
use crate::engine::fixed::FixedSum;
use crate::stats::interval::Estimate;
use crate::stats::paired::Z_975;

/// Pairs of queried items that are among each other's k nearest rows. Hubs, which are in many lists and
/// have room for few in their own, weigh less here than in overlap@k.
///
/// # Source
/// Huh et al. (2024) for the overlap of lists; mutual pairs: Brito et al. (1997). Golden value:
/// fixtures/golden/knn_structure.json, `mutual_edges_X`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MutualNeighbors {
    /// Mutual pairs on either side.
    pub pairs: BothSides<u64>,
    /// Pairs that are mutual on both sides.
    pub kept: u64,
    /// 2·kept/(reference + current), in [0, 1]: 1 where the same pairs are mutual; null without any. The
    /// interval is for corpora like this one. It is a normal one that allows for pairs with an item (with
    /// groups, a group) in common.
    pub overlap: Option<Estimate>,
}

impl MutualNeighbors {
    /// From the lists, `k` rows each, of the items at `rows` (ascending).
    pub(super) fn new(
        rows: &[u32],
        lists: &BothSides<Vec<u32>>,
        k: usize,
        groups: &Groups,
    ) -> Self {
        let item_of = |row: u32| rows.binary_search(&row).ok();
        let list = |item: usize| item * k..(item + 1) * k;
        let mutual = |lists: &[u32], item: usize| -> Vec<usize> {
            let mut others: Vec<usize> = lists[list(item)]
                .iter()
                .filter_map(|&row| item_of(row))
                // Each pair is found from its first item.
                .filter(|&other| item < other && lists[list(other)].contains(&rows[item]))
                .collect();
            others.sort_unstable();
            others
        };
        let (mut pairs, mut kept) = (
            BothSides {
                reference: 0,
                current: 0,
            },
            0,
        );
        // Per group, how many of its items' pairs are kept, and how many are on one side only.
        let mut of_group = vec![[0u64; 2]; groups.count()];
        for item in 0..rows.len() {
            let (before, after) = (mutual(&lists.reference, item), mutual(&lists.current, item));
            pairs.reference += before.len() as u64;
            pairs.current += after.len() as u64;
            let mut count = |other: usize, which: usize| {
                for end in [item, other] {
                    of_group[groups.of_rows()[rows[end] as usize] as usize][which] += 1;
                }
            };
            for &other in &before {
                let stays = after.binary_search(&other).is_ok();
                kept += u64::from(stays);
                count(other, usize::from(!stays));
            }
            for &other in &after {
                if before.binary_search(&other).is_err() {
                    count(other, 1);
                }
            }
        }
        Self {
            overlap: overlap(&pairs, kept, &of_group),
            pairs,
            kept,
        }
    }
}

/// The ratio R = kept/B, B the mean number of pairs of the sides, with an interval for pairs of items.
///
/// A pair adds z = 1 − R to kept − R·B if it is kept, else −R/2. Pairs that share an item are dependent:
/// Var R = (Σ over items (Σ of its pairs' z)² − Σ over pairs z²)/B², the second sum because every pair is
/// in two items' sums; no less than that of independent pairs. Source: Aronow, Samii and Assenova (2015).
fn overlap(pairs: &BothSides<u64>, kept: u64, of_group: &[[u64; 2]]) -> Option<Estimate> {
    let mean_pairs = (pairs.reference + pairs.current) as f64 / 2.0;
    if mean_pairs == 0.0 {
        return None;
    }
    let ratio = kept as f64 / mean_pairs;
    let mut by_group = FixedSum::default();
    for &[kept, one_sided] in of_group {
        let sum = kept as f64 * (1.0 - ratio) - one_sided as f64 * ratio / 2.0;
        by_group.add(sum * sum);
    }
    let one_sided = pairs.reference + pairs.current - 2 * kept;
    let by_pair = kept as f64 * (1.0 - ratio).powi(2) + one_sided as f64 * (ratio / 2.0).powi(2);
    let variance = (by_group.to_f64() - by_pair).max(by_pair) / mean_pairs.powi(2);
    let half = Z_975 * variance.sqrt();
    let several = pairs.reference + pairs.current - kept > 1;
    let estimate = Estimate {
        mean: ratio,
        ci95: several.then_some([ratio - half, ratio + half]),
    };
    Some(estimate.of_share())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    fn golden(key: &str) -> serde_json::Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/knn_structure.json"
        );
        let text = std::fs::read_to_string(path).unwrap();
        serde_json::from_str::<serde_json::Value>(&text).unwrap()[key].clone()
    }

    #[test]
    fn golden_mutual_pairs() {
        let lists = |key| -> Vec<Vec<u32>> { serde_json::from_value(golden(key)).unwrap() };
        let (x, y) = (lists("knn_X"), lists("knn_Y"));
        let rows: Vec<u32> = (0..10).collect();
        let sides = BothSides {
            reference: x.concat(),
            current: y.concat(),
        };
        let found = MutualNeighbors::new(&rows, &sides, 3, &Groups::new(10, None));
        // The golden value counts each pair from both ends.
        let expected = golden("mutual_edges_X").as_u64().unwrap();
        assert_eq!(found.pairs.reference * 2, expected);
        // Every pair of items, plainly.
        let mutual = |lists: &[Vec<u32>], i: u32, j: u32| {
            lists[i as usize].contains(&j) && lists[j as usize].contains(&i)
        };
        let mut kept = 0;
        for i in 0..10 {
            kept += (0..i)
                .filter(|&j| mutual(&x, i, j) && mutual(&y, i, j))
                .count();
        }
        assert_eq!(found.kept, kept as u64);
        let expected = 2.0 * kept as f64 / (found.pairs.reference + found.pairs.current) as f64;
        assert_eq!(found.overlap.unwrap().mean, expected);
        let same = BothSides {
            reference: x.concat(),
            current: x.concat(),
        };
        let same = MutualNeighbors::new(&rows, &same, 3, &Groups::new(10, None));
        let all = Estimate {
            mean: 1.0,
            ci95: Some([1.0, 1.0]),
        };
        assert_eq!((same.kept, same.overlap), (13, Some(all)));
    }

    /// A sample of the items sees the pairs within it.
    #[test]
    fn only_pairs_of_queried_items_count() {
        let lists = BothSides {
            reference: vec![7, 3],
            current: vec![7, 5],
        };
        let found = MutualNeighbors::new(&[3, 7], &lists, 1, &Groups::new(9, None));
        assert_eq!((found.pairs.reference, found.pairs.current), (1, 0));
        assert_eq!(found.kept, 0);
        assert_eq!(found.overlap.unwrap().mean, 0.0);
    }

    /// Lists of random graphs whose items differ in how well they keep their pairs: the interval covers the
    /// mean over such graphs.
    #[test]
    fn intervals_cover() {
        let items = 200usize;
        let k = 8;
        let (mut means, mut intervals) = (Vec::new(), Vec::new());
        for seed in 0..300 {
            let mut random = Philox::new(seed, 3);
            let keeps: Vec<f64> = (0..items).map(|_| random.uniform()).collect();
            // A ring of near items, pairs of which are mutual; each side drops some of them.
            let mut sides = [vec![Vec::new(); items], vec![Vec::new(); items]];
            for i in 0..items {
                for step in 1..=k / 2 {
                    let j = (i + step) % items;
                    let kept = random.uniform() < keeps[i] * keeps[j];
                    let only = random.below(2) as usize;
                    for (number, side) in sides.iter_mut().enumerate() {
                        if kept || number == only {
                            side[i].push(j as u32);
                            side[j].push(i as u32);
                        }
                    }
                }
            }
            // A row that is no item fills what is left.
            let flat = |lists: &[Vec<u32>]| -> Vec<u32> {
                let padded = lists.iter().map(|list| {
                    let mut list = list.clone();
                    list.resize(k, items as u32);
                    list
                });
                padded.flatten().collect()
            };
            let lists = BothSides {
                reference: flat(&sides[0]),
                current: flat(&sides[1]),
            };
            let rows: Vec<u32> = (0..items as u32).collect();
            let groups = Groups::new(items + 1, None);
            let found = MutualNeighbors::new(&rows, &lists, k, &groups)
                .overlap
                .unwrap();
            means.push(found.mean);
            intervals.push(found.ci95.unwrap());
        }
        let truth = means.iter().sum::<f64>() / means.len() as f64;
        let covered = intervals
            .iter()
            .filter(|[low, high]| *low <= truth && truth <= *high)
            .count();
        // 95 % of 300, give or take four standard errors.
        assert!((270..=299).contains(&covered), "{covered} of 300");
    }
}
