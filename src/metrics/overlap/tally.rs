//! Sums over items: means, intervals, occurrences, and what is known only after the last item.

use super::{
    BothSides, ComparedItem, GroupSizes, Groups, Hubness, IntervalTarget, IntrinsicDimension,
    ListLengths, MOST_MOVED, MeanOverItems, MovedItem, MovedNeighbor, MutualNeighbors,
    NeighborChange, Overlap, OverlapAtK, OverlapConfig, OverlapItems, OverlapSummary, Sides, lists,
};
use crate::embeddings::Ids;
use crate::engine::Metric;
use crate::engine::fixed::FixedSum;
use crate::stats::paired::{Z_975, quantile_sorted};

/// Counts at one list length. All integers, so that the order of items does not matter.
struct TallyAtK {
    k: usize,
    /// Items by rows in common.
    histogram: Vec<u64>,
    /// Rows in common of each group's items; empty where no groups were given.
    common_by_group: Vec<u64>,
    boundary_ties: u64,
    /// k-occurrence of every row.
    occurrence: BothSides<Vec<u32>>,
}

impl TallyAtK {
    fn new(k: usize, groups: &Groups) -> Self {
        let rows = groups.of_rows().len();
        Self {
            k,
            histogram: vec![0; k + 1],
            common_by_group: if groups.given() {
                vec![0; groups.count()]
            } else {
                Vec::new()
            },
            boundary_ties: 0,
            occurrence: BothSides {
                reference: vec![0; rows],
                current: vec![0; rows],
            },
        }
    }

    fn add(
        &mut self,
        group: u32,
        (common, tied): (u32, bool),
        before: &lists::List,
        after: &lists::List,
    ) {
        self.histogram[common as usize] += 1;
        if let Some(sum) = self.common_by_group.get_mut(group as usize) {
            *sum += u64::from(common);
        }
        self.boundary_ties += u64::from(tied);
        for &(_, row) in &before[..self.k] {
            self.occurrence.reference[row as usize] += 1;
        }
        for &(_, row) in &after[..self.k] {
            self.occurrence.current[row as usize] += 1;
        }
    }

    fn items(&self) -> u64 {
        self.histogram.iter().sum()
    }

    fn rows(&self) -> usize {
        self.occurrence.reference.len()
    }

    /// Σ over items of (rows in common)ʳ.
    fn power_sum(&self, power: u32) -> u128 {
        (0u128..)
            .zip(&self.histogram)
            .map(|(common, &items)| common.pow(power) * u128::from(items))
            .sum()
    }

    fn mean(&self) -> f64 {
        self.power_sum(1) as f64 / (self.items() as f64 * self.k as f64)
    }

    /// mean ± z·s/√q·√(1 − q/n) for a sample of q of n rows; without the last factor for all rows. Where
    /// there are groups, from each group's sum; `items_by_group` counts their items.
    fn ci95(&self, items_by_group: &[u64]) -> Option<[f64; 2]> {
        let (items, rows) = (self.items(), self.rows() as f64);
        if items < 2 {
            return None;
        }
        let q = items as f64;
        let sum = self.power_sum(1);
        if !self.common_by_group.is_empty() {
            return self.clustered_ci95(items_by_group);
        }
        // q²·variance, exactly: q Σc² − (Σc)².
        let spread = (u128::from(items) * self.power_sum(2) - sum * sum) as f64;
        let variance = spread / (q * (q - 1.0)) / (self.k as f64).powi(2);
        let unseen = if q < rows { 1.0 - q / rows } else { 1.0 };
        let half = Z_975 * (variance / q * unseen).sqrt();
        let mean = self.mean();
        Some([(mean - half).max(0.0), (mean + half).min(1.0)])
    }

    /// As [`Groups::estimate`], of integers.
    fn clustered_ci95(&self, items_by_group: &[u64]) -> Option<[f64; 2]> {
        let (q, sum) = (i128::from(self.items()), self.power_sum(1) as i128);
        let (mut squares, mut draws) = (FixedSum::default(), 0.0);
        for (&common, &items) in self.common_by_group.iter().zip(items_by_group) {
            if items > 0 {
                // q·k times the sum of the group's differences from the mean, exactly.
                let residual = q * i128::from(common) - i128::from(items) * sum;
                squares.add((residual as f64 / (q as f64 * self.k as f64)).powi(2));
                draws += 1.0;
            }
        }
        let half = Z_975 * (draws / (draws - 1.0) * squares.to_f64()).sqrt() / q as f64;
        let mean = self.mean();
        (draws > 1.0).then(|| [(mean - half).max(0.0), (mean + half).min(1.0)])
    }

    fn jaccard_mean(&self) -> f64 {
        let sum: f64 = (0u32..)
            .zip(&self.histogram)
            .map(|(common, &items)| lists::jaccard(common, self.k) * items as f64)
            .sum();
        sum / self.items() as f64
    }

    fn median(&self) -> f64 {
        let at = |rank: u64| {
            let mut seen = 0;
            self.histogram
                .iter()
                .position(|&items| {
                    seen += items;
                    seen > rank
                })
                .map_or(0.0, |common| common as f64)
        };
        let items = self.items();
        (at((items - 1) / 2) + at(items / 2)) / (2.0 * self.k as f64)
    }

    fn chance_hub_aware(&self) -> f64 {
        let products: u128 = self
            .occurrence
            .reference
            .iter()
            .zip(&self.occurrence.current)
            .map(|(&a, &b)| u128::from(a) * u128::from(b))
            .sum();
        products as f64 / (self.items() as f64).powi(2) / self.k as f64
    }

    fn point(&self, sampling: &Sampling) -> OverlapAtK {
        OverlapAtK {
            k: self.k,
            overlap: self.mean(),
            ci95: self.ci95(&sampling.items_by_group),
            jaccard: self.jaccard_mean(),
            chance: sampling.chance(self.k),
            chance_hub_aware: self.chance_hub_aware(),
            boundary_ties: self.boundary_ties,
        }
    }

    fn summary(&self, sampling: &Sampling) -> OverlapSummary {
        let items = self.items();
        let below_half: u64 = self.histogram[..self.k.div_ceil(2)].iter().sum();
        OverlapSummary {
            mean: self.mean(),
            ci95: self.ci95(&sampling.items_by_group),
            ci95_target: sampling.target,
            median: self.median(),
            share_below_half: below_half as f64 / items as f64,
            histogram: self.histogram.clone(),
        }
    }
}

/// Who was queried, and what may be in a list.
struct Sampling {
    target: IntervalTarget,
    /// Items of each group; empty where no groups were given.
    items_by_group: Vec<u64>,
    /// With groups, the mean over items of 1/(rows that may be in its list).
    inverse_others: Option<f64>,
    rows: usize,
}

impl Sampling {
    fn new(queried: &[u32], groups: &Groups) -> Self {
        let rows = groups.of_rows().len();
        let mut items_by_group = Vec::new();
        let mut inverse_others = None;
        if groups.given() {
            items_by_group = vec![0; groups.count()];
            let mut sum = FixedSum::default();
            for &row in queried {
                items_by_group[groups.of_rows()[row as usize] as usize] += 1;
                sum.add(1.0 / (rows - groups.apart_from(row).len()) as f64);
            }
            inverse_others = Some(sum.to_f64() / queried.len() as f64);
        }
        Self {
            target: groups.interval_target(queried.len()),
            items_by_group,
            inverse_others,
            rows,
        }
    }

    /// Expected overlap@k of unrelated spaces.
    fn chance(&self, k: usize) -> f64 {
        match self.inverse_others {
            None => k as f64 / (self.rows - 1) as f64,
            Some(inverse) => k as f64 * inverse,
        }
    }
}

/// Everything counted and kept over all items.
pub(super) struct Tally<'a> {
    groups: &'a Groups,
    at_k: Vec<TallyAtK>,
    headline: usize,
    rbo_sum: FixedSum,
    same_nearest: u64,
    kth_scores: Vec<f64>,
    shortfalls: Vec<f64>,
    inverse_dimensions: BothSides<Vec<Option<f64>>>,
    /// The k nearest rows of every item, one list after another.
    lists: BothSides<Vec<u32>>,
    items: OverlapItems,
}

impl<'a> Tally<'a> {
    pub(super) fn new(lengths: &ListLengths, groups: &'a Groups) -> Self {
        let at_k = |&k| TallyAtK::new(k, groups);
        Self {
            groups,
            at_k: lengths.ks.iter().map(at_k).collect(),
            headline: lengths.headline,
            rbo_sum: FixedSum::default(),
            same_nearest: 0,
            kth_scores: Vec::new(),
            shortfalls: Vec::new(),
            inverse_dimensions: BothSides::default(),
            lists: BothSides::default(),
            items: OverlapItems::default(),
        }
    }

    pub(super) fn add(
        &mut self,
        row: u32,
        item: &ComparedItem,
        before: &lists::List,
        after: &lists::List,
    ) {
        let group = self.groups.of_rows()[row as usize];
        for ((tally, &common), &tied) in self.at_k.iter_mut().zip(&item.common).zip(&item.tied) {
            tally.add(group, (common, tied), before, after);
        }
        self.rbo_sum.add(item.rbo);
        self.same_nearest += u64::from(item.same_nearest);
        self.kth_scores.push(item.kth_score);
        self.shortfalls.push(item.shortfall);
        let k = self.at_k[self.headline].k;
        let common = item.common[self.headline];
        let rows_of = |list: &lists::List| list[..k].iter().map(|e| e.1).collect::<Vec<u32>>();
        self.lists.reference.extend(rows_of(before));
        self.lists.current.extend(rows_of(after));
        let BothSides { reference, current } = item.inverse_dimension;
        self.inverse_dimensions.reference.push(reference);
        self.inverse_dimensions.current.push(current);
        self.items.rows.push(row);
        self.items.overlap.push(f64::from(common) / k as f64);
        self.items.jaccard.push(lists::jaccard(common, k));
        self.items.rbo.push(item.rbo);
        self.items.lost.push(&item.lost);
        self.items.gained.push(&item.gained);
    }

    /// All but what is counted elsewhere: `faithfulness` and `range_searches` are left empty.
    pub(super) fn finish(
        mut self,
        ids: &Ids,
        config: &OverlapConfig,
        sides: &Sides<'_>,
        duplicate_rows: BothSides<u64>,
    ) -> Overlap {
        self.complete_items(ids);
        let groups = self.groups;
        let sampling = Sampling::new(&self.items.rows, groups);
        let headline = &self.at_k[self.headline];
        let (items, base) = (self.items.rows.len(), headline.rows());
        let (mean, chance) = (headline.mean(), headline.chance_hub_aware());
        let occurrence = &headline.occurrence;
        Overlap {
            k: headline.k,
            items,
            base,
            exact: items == base,
            groups: groups.given().then(|| GroupSizes {
                groups: groups.count(),
                largest: groups.largest(),
            }),
            metric: config.metric,
            overlap: headline.summary(&sampling),
            jaccard: MeanOverItems {
                mean: headline.jaccard_mean(),
            },
            rbo: MeanOverItems {
                mean: self.rbo_sum.to_f64() / items as f64,
            },
            rbo_p: config.rbo_p,
            chance: sampling.chance(headline.k),
            chance_hub_aware: chance,
            kappa: (sampling.chance(headline.k) < 1.0 - 1e-9)
                .then(|| (mean - chance) / (1.0 - chance)),
            top1_agreement: self.same_nearest as f64 / items as f64,
            at_k: self.at_k.iter().map(|at| at.point(&sampling)).collect(),
            faithfulness: None,
            range_searches: None,
            mutual: MutualNeighbors::new(&self.items.rows, &self.lists, headline.k, groups),
            hubness: BothSides {
                reference: Hubness::new(&occurrence.reference, items, ids),
                current: Hubness::new(&occurrence.current, items, ids),
            },
            intrinsic_dimension: (config.metric == Metric::Cosine).then(|| {
                let side = |inverse| IntrinsicDimension::new(&self.items.rows, inverse, groups);
                BothSides {
                    reference: side(&self.inverse_dimensions.reference),
                    current: side(&self.inverse_dimensions.current),
                }
            }),
            boundary_ties: headline.boundary_ties,
            duplicate_rows,
            most_moved: self.most_moved(ids, sides),
            per_item: self.items,
        }
    }

    /// Fills in what is known only after the last item.
    fn complete_items(&mut self, ids: &Ids) {
        let mut sorted = std::mem::take(&mut self.kth_scores);
        sorted.sort_unstable_by(f64::total_cmp);
        let (low, high) = (
            quantile_sorted(&sorted, 0.25),
            quantile_sorted(&sorted, 0.75),
        );
        let spread = high - low;
        // A spread within rounding is none.
        let defined = spread > 1e-12 * low.abs().max(high.abs());
        let occurrence = &self.at_k[self.headline].occurrence;
        let items = &mut self.items;
        items.displacement = self
            .shortfalls
            .iter()
            .map(|shortfall| defined.then(|| shortfall / spread))
            .collect();
        for &row in &items.rows {
            let row = row as usize;
            items.ids.push(ids.get(row));
            items.k_occurrence_reference.push(occurrence.reference[row]);
            items.k_occurrence_current.push(occurrence.current[row]);
        }
    }

    fn most_moved(&self, ids: &Ids, sides: &Sides<'_>) -> Vec<MovedItem> {
        let items = &self.items;
        let mut order: Vec<usize> = (0..items.rows.len())
            .filter(|&item| !items.lost.of(item).is_empty())
            .collect();
        order.sort_unstable_by(|&a, &b| {
            self.shortfalls[b]
                .total_cmp(&self.shortfalls[a])
                .then_with(|| items.overlap[a].total_cmp(&items.overlap[b]))
                .then_with(|| items.ids.get(a).cmp(items.ids.get(b)))
        });
        let neighbors = |changes: &[NeighborChange]| {
            changes
                .iter()
                .map(|change| MovedNeighbor {
                    id: ids.get(change.row as usize).to_owned(),
                    similarity_before: change.similarity_before,
                    similarity_after: change.similarity_after,
                })
                .collect()
        };
        order
            .iter()
            .take(MOST_MOVED)
            .map(|&item| MovedItem {
                id: items.ids.get(item).to_owned(),
                displacement: items.displacement[item],
                overlap: items.overlap[item],
                rbo: items.rbo[item],
                paired_cosine: sides.paired_cosine(items.rows[item]),
                k_occurrence_reference: items.k_occurrence_reference[item],
                k_occurrence_current: items.k_occurrence_current[item],
                lost: neighbors(items.lost.of(item)),
                gained: neighbors(items.gained.of(item)),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> serde_json::Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/knn_structure.json"
        );
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// Four of ten items queried: mean and standard error with finite-population correction.
    #[test]
    fn golden_sampled_interval() {
        let golden = golden();
        let per_item: Vec<f64> =
            serde_json::from_value(golden["overlap_per_item"].clone()).unwrap();
        let sample: Vec<usize> = serde_json::from_value(golden["sampled_queries"].clone()).unwrap();
        let groups = Groups::new(per_item.len(), None);
        let mut tally = TallyAtK::new(3, &groups);
        for &item in &sample {
            tally.histogram[(per_item[item] * 3.0).round() as usize] += 1;
        }
        let (mean, se) = (
            golden["fpc_mean"].as_f64().unwrap(),
            golden["fpc_se"].as_f64().unwrap(),
        );
        let queried: Vec<u32> = sample.iter().map(|&item| item as u32).collect();
        let summary = tally.summary(&Sampling::new(&queried, &groups));
        let [low, high] = summary.ci95.unwrap();
        assert!((tally.mean() - mean).abs() < 1e-12);
        assert!((low - (mean - Z_975 * se)).abs() < 1e-12);
        assert!((high - (mean + Z_975 * se)).abs() < 1e-12);
        assert_eq!(summary.ci95_target, IntervalTarget::ThisCorpus);
    }

    #[test]
    fn summary_of_a_histogram() {
        let groups = Groups::new(6, None);
        let mut tally = TallyAtK::new(5, &groups);
        tally.histogram = vec![1, 0, 2, 1, 0, 2];
        let summary = tally.summary(&Sampling::new(&[0, 1, 2, 3, 4, 5], &groups));
        assert!((tally.mean() - 17.0 / 30.0).abs() < 1e-15);
        assert_eq!((summary.median, summary.share_below_half), (0.5, 0.5));
        assert_eq!(summary.ci95_target, IntervalTarget::SimilarCorpora);
    }

    /// Integer sums by group give what the values themselves do.
    #[test]
    fn clustered_interval_of_counts() {
        let common = [3u32, 0, 2, 2, 1, 3, 3, 0];
        let labels: Vec<String> = ["a", "b", "a", "a", "c", "b", "d", "c"]
            .map(String::from)
            .into();
        let groups = Groups::new(8, Some(&labels));
        let rows: Vec<u32> = (0..8).collect();
        let mut tally = TallyAtK::new(3, &groups);
        for (&row, &common) in rows.iter().zip(&common) {
            let list: Vec<(f64, u32)> = (0..3).map(|i| (0.0, i)).collect();
            tally.add(
                groups.of_rows()[row as usize],
                (common, false),
                &list,
                &list,
            );
        }
        let sampling = Sampling::new(&rows, &groups);
        let found = tally.ci95(&sampling.items_by_group).unwrap();
        let values: Vec<f64> = common.iter().map(|&c| f64::from(c) / 3.0).collect();
        let expected = groups.estimate(&rows, &values).unwrap().of_share();
        let expected = expected.ci95.unwrap();
        assert!((found[0] - expected[0]).abs() < 1e-12 && (found[1] - expected[1]).abs() < 1e-12);
        assert_eq!(sampling.target, IntervalTarget::SimilarCorpora);
        // Groups of 3, 2, 2 and 1 of 8 rows.
        let chance = (3.0 / 5.0 * 3.0 + 3.0 / 6.0 * 4.0 + 3.0 / 7.0) / 8.0;
        assert!((sampling.chance(3) - chance).abs() < 1e-12);
    }
}
