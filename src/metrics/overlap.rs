//! Neighbourhood overlap: do the same rows stay neighbours when the model changes?
//!
//! The one drift measure that needs no common space: it compares, item by item, the k nearest rows in
//! the reference space with those in the current one. Rotation, scale and dimension do not matter.
//!
//! # Ties
//! Lists are exact and ordered by score, then by row. Where the k-th and the next score of a row are
//! exactly equal (duplicates), the smaller row number is in the list; such queries are counted
//! (`boundary_ties`), as are duplicated rows. The means depend on the order of rows only through them.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::duplicates::duplicate_rows;
use crate::embeddings::{Ids, Rows, Values};
use crate::engine::fixed::FixedSum;
use crate::engine::{Engine, Metric, SelfExclusion, score};
use crate::error::{Error, Result};
use crate::stats::paired::{Z_975, quantile_sorted};

mod hubness;
mod lists;

pub use hubness::Hubness;

/// Queries whose lists of both sides are held at once; bounds memory, changes no result.
const QUERY_BATCH: usize = 1 << 17;
/// How many of the most displaced items are listed.
const MOST_MOVED: usize = 20;

/// What [`overlap`] measures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OverlapConfig {
    /// List lengths k of the curve; each is cut to the number of other rows.
    pub ks: Vec<usize>,
    /// The k of the headline numbers and of everything per item; cut likewise.
    pub headline_k: usize,
    /// Query this many rows, those with the smallest id hashes; `None`: all. Neighbours are sought among
    /// all rows whatever this is, because overlap in a sampled base is a different, larger number.
    pub queries: Option<usize>,
    /// Persistence p of rank-biased overlap, in (0, 1).
    pub rbo_p: f64,
    /// What nearest means.
    pub metric: Metric,
    /// Seed of the choice of queries.
    pub seed: u64,
}

impl Default for OverlapConfig {
    fn default() -> Self {
        Self {
            ks: vec![1, 5, 10, 50, 100],
            headline_k: 10,
            queries: Some(100_000),
            rbo_p: 0.9,
            metric: Metric::Cosine,
            seed: 0,
        }
    }
}

/// Neighbourhood overlap of two paired sets.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Overlap {
    /// List length of the headline numbers.
    pub k: usize,
    /// Rows queried.
    pub items: usize,
    /// Rows among which neighbours are sought: all shared ids.
    pub base: usize,
    /// Whether every row was queried, rather than a sample.
    pub exact: bool,
    /// What nearest means.
    pub metric: Metric,
    /// overlap@k = |A ∩ B|/k per item, A and B its k nearest rows in the two spaces; 1: unchanged.
    pub overlap: OverlapSummary,
    /// Jaccard index |A ∩ B|/|A ∪ B| at k.
    pub jaccard: MeanOverItems,
    /// Rank-biased overlap (extrapolated, p = `rbo_p`) of the longest lists kept.
    pub rbo: MeanOverItems,
    /// Persistence p of `rbo`.
    pub rbo_p: f64,
    /// Expected overlap@k of unrelated spaces, k/(n − 1).
    pub chance: f64,
    /// Expected overlap@k if lists were exchanged among items, which keeps each space's hubs:
    /// (1/k) Σⱼ (oⱼ/q)(o′ⱼ/q) with k-occurrences o and o′.
    pub chance_hub_aware: f64,
    /// (overlap − c)/(1 − c) with c = `chance_hub_aware`: 0 at chance, 1 unchanged; null where k is n − 1,
    /// so that every list holds every other row.
    pub kappa: Option<f64>,
    /// Share of items whose nearest row is the same.
    pub top1_agreement: f64,
    /// The curve over k, ascending.
    pub at_k: Vec<OverlapAtK>,
    /// Unevenness of the k-occurrence on both sides.
    pub hubness: BothSides<Hubness>,
    /// Queries whose list at k is decided by row order on either side: equal scores at k and k + 1.
    pub boundary_ties: u64,
    /// Rows equal, value for value, to an earlier row of their side. They stay in: each copy is an item
    /// and a neighbour.
    pub duplicate_rows: BothSides<u64>,
    /// The most displaced items that lost a neighbour: by displacement, then by overlap, then by id.
    pub most_moved: Vec<MovedItem>,
    /// One entry per item.
    #[serde(skip)]
    pub per_item: OverlapItems,
}

/// A quantity of either side.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BothSides<T> {
    /// In the reference set.
    pub reference: T,
    /// In the current set.
    pub current: T,
}

/// A mean over items.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MeanOverItems {
    /// Mean over items.
    pub mean: f64,
}

/// What an interval is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IntervalTarget {
    /// The mean over all rows of this corpus, of which a sample was queried (finite-population
    /// correction applied).
    ThisCorpus,
    /// The mean over corpora like this one: every row was queried, so this corpus's mean is exact.
    SimilarCorpora,
}

/// Distribution of overlap@k over items.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OverlapSummary {
    /// Mean over items.
    pub mean: f64,
    /// Normal 95 % interval of the mean, within [0, 1]; null for one item.
    pub ci95: Option<[f64; 2]>,
    /// What `ci95` is an interval for.
    pub ci95_target: IntervalTarget,
    /// Median over items.
    pub median: f64,
    /// Share of items that keep less than half of their neighbours.
    pub share_below_half: f64,
    /// Number of items by neighbours kept, 0 to k.
    pub histogram: Vec<u64>,
}

/// One point of the curve over k.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OverlapAtK {
    /// List length.
    pub k: usize,
    /// Mean overlap@k.
    pub overlap: f64,
    /// 95 % interval of `overlap`, as in the headline.
    pub ci95: Option<[f64; 2]>,
    /// Mean Jaccard index.
    pub jaccard: f64,
    /// k/(n − 1).
    pub chance: f64,
    /// As in the headline, at this k.
    pub chance_hub_aware: f64,
    /// Queries whose list at this k is decided by row order on either side.
    pub boundary_ties: u64,
}

/// An item whose neighbourhood moved.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MovedItem {
    /// The item.
    pub id: String,
    /// See [`OverlapItems::displacement`].
    pub displacement: Option<f64>,
    /// overlap@k.
    pub overlap: f64,
    /// Rank-biased overlap.
    pub rbo: f64,
    /// Reference neighbours that are none in the current space, nearest first.
    pub lost: Vec<MovedNeighbor>,
    /// Current neighbours that were none in the reference space, nearest first.
    pub gained: Vec<MovedNeighbor>,
}

/// A neighbour lost or gained.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct MovedNeighbor {
    /// The neighbour.
    pub id: String,
    /// Its similarity to the item in the reference space.
    pub similarity_before: f64,
    /// Its similarity to the item in the current space.
    pub similarity_after: f64,
}

/// One entry per queried row, in row order, at the headline k.
#[derive(Debug, Clone, Default)]
pub struct OverlapItems {
    /// Row of the item among the shared ids.
    pub rows: Vec<u32>,
    /// Its id.
    pub ids: Ids,
    /// overlap@k.
    pub overlap: Vec<f64>,
    /// Jaccard index at k.
    pub jaccard: Vec<f64>,
    /// Rank-biased overlap.
    pub rbo: Vec<f64>,
    /// How far the old neighbours fell out of the new list, robust to near-ties:
    /// δᵢ = max(0, sₖ(i) − mean of s(i, j) over the old neighbours j)/IQR(sₖ), where s is the similarity in
    /// the current space and sₖ(i) the k-th largest of i. 0: the old neighbours are as near as the new ones.
    /// `None` where sₖ has no spread over items.
    pub displacement: Vec<Option<f64>>,
    /// Reference neighbours that are none in the current space, nearest first.
    pub lost: NeighborChanges,
    /// Current neighbours that were none in the reference space, nearest first.
    pub gained: NeighborChanges,
    /// How many queries have the item among their k nearest in the reference space.
    pub k_occurrence_reference: Vec<u32>,
    /// The same in the current space.
    pub k_occurrence_current: Vec<u32>,
}

/// Neighbours lost or gained, of all items, one after another.
#[derive(Debug, Clone, Default)]
pub struct NeighborChanges {
    ends: Vec<usize>,
    changes: Vec<NeighborChange>,
}

/// A neighbour lost or gained by an item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NeighborChange {
    /// Row of the neighbour among the shared ids.
    pub row: u32,
    /// Similarity to the item in the reference space.
    pub similarity_before: f64,
    /// Similarity to the item in the current space.
    pub similarity_after: f64,
}

impl NeighborChanges {
    /// Those of the `item`-th item.
    pub fn of(&self, item: usize) -> &[NeighborChange] {
        let start = if item == 0 { 0 } else { self.ends[item - 1] };
        &self.changes[start..self.ends[item]]
    }

    fn push(&mut self, changes: &[NeighborChange]) {
        self.changes.extend_from_slice(changes);
        self.ends.push(self.changes.len());
    }
}

/// Compares every item's nearest rows in two spaces.
///
/// `reference` is n × d, `current` n × d′; row i of both, and id i, are the same item. A row is never its
/// own neighbour. All overlaps are in [0, 1], 1 meaning unchanged; similarities are exact (f64), and the
/// result is the same for any number of threads, batches and shards.
///
/// # Errors
/// Fewer than two rows, a k or a number of queries of 0, `rbo_p` outside (0, 1), or a device failure.
///
/// # Panics
/// If the numbers of rows and ids differ.
///
/// # Source
/// Overlap and its null: Huh et al. (2024), Gröger et al. (2026). Golden values:
/// fixtures/golden/{knn_structure,rank_overlap}.json.
pub fn overlap(
    engine: &Engine,
    reference: Rows<'_>,
    current: Rows<'_>,
    ids: &Ids,
    config: &OverlapConfig,
) -> Result<Overlap> {
    assert_eq!((reference.len(), current.len()), (ids.len(), ids.len()));
    let lengths = ListLengths::new(ids.len(), config)?;
    let chosen = choose_queries(ids, config);
    let sides = Sides {
        reference: Side::new(reference, config.metric),
        current: Side::new(current, config.metric),
    };
    let mut tally = Tally::new(&lengths, ids.len());
    for batch in chosen.chunks(QUERY_BATCH) {
        // One list length more than needed shows whether the last one is a tie.
        let before = sides
            .reference
            .nearest(engine, batch, lengths.longest + 1)?;
        let after = sides.current.nearest(engine, batch, lengths.longest + 1)?;
        let compared: Vec<ComparedItem> = batch
            .par_iter()
            .zip(before.par_iter().zip(&after))
            .map(|(&row, (a, b))| sides.compare(row, a, b, &lengths, config.rbo_p))
            .collect();
        for ((&row, item), (a, b)) in batch.iter().zip(&compared).zip(before.iter().zip(&after)) {
            tally.add(row, item, a, b);
        }
    }
    let (reference, current) =
        rayon::join(|| duplicate_rows(reference), || duplicate_rows(current));
    let duplicate_rows = BothSides { reference, current };
    Ok(tally.finish(ids, config, duplicate_rows))
}

/// The list lengths that n rows allow, ascending.
struct ListLengths {
    ks: Vec<usize>,
    /// Index of the headline k in `ks`.
    headline: usize,
    longest: usize,
}

impl ListLengths {
    fn new(rows: usize, config: &OverlapConfig) -> Result<Self> {
        let refuse = |fact: String| Err(Error::input("overlap", fact));
        if rows < 2 {
            return refuse(format!("{rows} shared rows, expected at least 2"));
        }
        if config.headline_k == 0 || config.ks.contains(&0) {
            return refuse("k is 0, expected at least 1".to_owned());
        }
        if config.queries == Some(0) {
            return refuse("0 queries, expected at least 1".to_owned());
        }
        if !(config.rbo_p > 0.0 && config.rbo_p < 1.0) {
            return refuse(format!(
                "rbo p is {}, expected a number between 0 and 1",
                config.rbo_p
            ));
        }
        let headline_k = config.headline_k.min(rows - 1);
        let mut ks: Vec<usize> = config.ks.iter().map(|&k| k.min(rows - 1)).collect();
        ks.push(headline_k);
        ks.sort_unstable();
        ks.dedup();
        let headline = ks.partition_point(|&k| k < headline_k);
        let longest = ks[ks.len() - 1];
        Ok(Self {
            ks,
            headline,
            longest,
        })
    }

    fn headline_k(&self) -> usize {
        self.ks[self.headline]
    }
}

/// The rows to query, ascending: all, or those with the smallest seeded id hashes.
fn choose_queries(ids: &Ids, config: &OverlapConfig) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
    if let Some(wanted) = config.queries.filter(|&wanted| wanted < rows.len()) {
        let hashes: Vec<u64> = (0..ids.len()).map(|i| ids.hash(i, config.seed)).collect();
        rows.sort_unstable_by_key(|&row| (hashes[row as usize], ids.get(row as usize)));
        rows.truncate(wanted);
        rows.sort_unstable();
    }
    rows
}

/// One space.
struct Side<'a> {
    rows: Rows<'a>,
    norms: Vec<f64>,
    row_numbers: Vec<u32>,
    metric: Metric,
}

impl<'a> Side<'a> {
    fn new(rows: Rows<'a>, metric: Metric) -> Self {
        Self {
            rows,
            norms: score::norms(rows),
            row_numbers: (0..rows.len() as u32).collect(),
            metric,
        }
    }

    /// The `k` nearest other rows of each row of `batch`.
    fn nearest(&self, engine: &Engine, batch: &[u32], k: usize) -> Result<Vec<Vec<(f64, u32)>>> {
        let dim = self.rows.dim();
        let first = batch[0] as usize;
        let consecutive = batch[batch.len() - 1] as usize - first + 1 == batch.len();
        let gathered;
        let queries = if consecutive {
            self.rows.slice(first..first + batch.len())
        } else {
            gathered = Values::gather(self.rows, batch);
            gathered.rows(dim)
        };
        // Every row is a group of its own: none meets itself.
        let exclude = SelfExclusion {
            queries: batch,
            base: &self.row_numbers,
        };
        let found = engine.nearest(queries, self.rows, k, self.metric, Some(exclude))?;
        Ok(found.lists)
    }

    fn similarity(&self, a: u32, b: u32) -> f64 {
        let (a, b) = (a as usize, b as usize);
        let (x, y) = (self.rows.row(a), self.rows.row(b));
        score::similarity(self.metric, &x, self.norms[a], &y, self.norms[b])
    }
}

/// Both spaces.
struct Sides<'a> {
    reference: Side<'a>,
    current: Side<'a>,
}

/// What is known of one item.
struct ComparedItem {
    /// Rows in common, per list length.
    common: Vec<u32>,
    /// Whether row order decides the list, per list length.
    tied: Vec<bool>,
    rbo: f64,
    same_nearest: bool,
    /// k-th largest similarity in the current space.
    kth_score: f64,
    /// How far below `kth_score` the old neighbours are on average; 0 where they are not.
    shortfall: f64,
    lost: Vec<NeighborChange>,
    gained: Vec<NeighborChange>,
}

impl Sides<'_> {
    fn compare(
        &self,
        row: u32,
        before: &lists::List,
        after: &lists::List,
        lengths: &ListLengths,
        rbo_p: f64,
    ) -> ComparedItem {
        let longest = lengths.longest;
        let common = lists::common_by_depth(&before[..longest], &after[..longest]);
        let k = lengths.headline_k();
        let (old, new) = (&before[..k], &after[..k]);
        let score_in =
            |list: &lists::List, other: u32| list.iter().find(|e| e.1 == other).map(|e| e.0);
        let (mut lost, mut old_scores_sum) = (Vec::new(), 0.0);
        for &(similarity_before, other) in old {
            let kept = score_in(new, other);
            let similarity_after = kept.unwrap_or_else(|| self.current.similarity(row, other));
            old_scores_sum += similarity_after;
            if kept.is_none() {
                lost.push(NeighborChange {
                    row: other,
                    similarity_before,
                    similarity_after,
                });
            }
        }
        let gained = new
            .iter()
            .filter(|e| score_in(old, e.1).is_none())
            .map(|&(similarity_after, other)| NeighborChange {
                row: other,
                similarity_before: self.reference.similarity(row, other),
                similarity_after,
            })
            .collect();
        let kth_score = new[k - 1].0;
        let shortfall = kth_score - old_scores_sum / k as f64;
        // Less than the rounding of a mean is nothing.
        let moved = !lost.is_empty() && shortfall > 1e-12 * kth_score.abs();
        ComparedItem {
            tied: lengths
                .ks
                .iter()
                .map(|&k| lists::tied_at(before, k) || lists::tied_at(after, k))
                .collect(),
            rbo: lists::rbo_extrapolated(&common, rbo_p),
            common: lengths.ks.iter().map(|&k| common[k - 1]).collect(),
            same_nearest: before[0].1 == after[0].1,
            kth_score,
            shortfall: if moved { shortfall } else { 0.0 },
            lost,
            gained,
        }
    }
}

/// Counts at one list length. All integers, so that the order of items does not matter.
struct TallyAtK {
    k: usize,
    /// Items by rows in common.
    histogram: Vec<u64>,
    boundary_ties: u64,
    /// k-occurrence of every row.
    occurrence: BothSides<Vec<u32>>,
}

impl TallyAtK {
    fn new(k: usize, rows: usize) -> Self {
        Self {
            k,
            histogram: vec![0; k + 1],
            boundary_ties: 0,
            occurrence: BothSides {
                reference: vec![0; rows],
                current: vec![0; rows],
            },
        }
    }

    fn add(&mut self, common: u32, tied: bool, before: &lists::List, after: &lists::List) {
        self.histogram[common as usize] += 1;
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

    /// mean ± z·s/√q·√(1 − q/n) for a sample of q of n rows; without the last factor for all rows.
    fn ci95(&self) -> Option<[f64; 2]> {
        let (items, rows) = (self.items(), self.rows() as f64);
        if items < 2 {
            return None;
        }
        let q = items as f64;
        let sum = self.power_sum(1);
        // q²·variance, exactly: q Σc² − (Σc)².
        let spread = (u128::from(items) * self.power_sum(2) - sum * sum) as f64;
        let variance = spread / (q * (q - 1.0)) / (self.k as f64).powi(2);
        let unseen = if q < rows { 1.0 - q / rows } else { 1.0 };
        let half = Z_975 * (variance / q * unseen).sqrt();
        let mean = self.mean();
        Some([(mean - half).max(0.0), (mean + half).min(1.0)])
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

    fn chance(&self) -> f64 {
        self.k as f64 / (self.rows() - 1) as f64
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

    fn point(&self) -> OverlapAtK {
        OverlapAtK {
            k: self.k,
            overlap: self.mean(),
            ci95: self.ci95(),
            jaccard: self.jaccard_mean(),
            chance: self.chance(),
            chance_hub_aware: self.chance_hub_aware(),
            boundary_ties: self.boundary_ties,
        }
    }

    fn summary(&self) -> OverlapSummary {
        let items = self.items();
        let below_half: u64 = self.histogram[..self.k.div_ceil(2)].iter().sum();
        OverlapSummary {
            mean: self.mean(),
            ci95: self.ci95(),
            ci95_target: if (items as usize) < self.rows() {
                IntervalTarget::ThisCorpus
            } else {
                IntervalTarget::SimilarCorpora
            },
            median: self.median(),
            share_below_half: below_half as f64 / items as f64,
            histogram: self.histogram.clone(),
        }
    }
}

/// Everything counted and kept over all items.
struct Tally {
    at_k: Vec<TallyAtK>,
    headline: usize,
    rbo_sum: FixedSum,
    same_nearest: u64,
    kth_scores: Vec<f64>,
    shortfalls: Vec<f64>,
    items: OverlapItems,
}

impl Tally {
    fn new(lengths: &ListLengths, rows: usize) -> Self {
        Self {
            at_k: lengths.ks.iter().map(|&k| TallyAtK::new(k, rows)).collect(),
            headline: lengths.headline,
            rbo_sum: FixedSum::default(),
            same_nearest: 0,
            kth_scores: Vec::new(),
            shortfalls: Vec::new(),
            items: OverlapItems::default(),
        }
    }

    fn add(&mut self, row: u32, item: &ComparedItem, before: &lists::List, after: &lists::List) {
        for ((tally, &common), &tied) in self.at_k.iter_mut().zip(&item.common).zip(&item.tied) {
            tally.add(common, tied, before, after);
        }
        self.rbo_sum.add(item.rbo);
        self.same_nearest += u64::from(item.same_nearest);
        self.kth_scores.push(item.kth_score);
        self.shortfalls.push(item.shortfall);
        let k = self.at_k[self.headline].k;
        let common = item.common[self.headline];
        self.items.rows.push(row);
        self.items.overlap.push(f64::from(common) / k as f64);
        self.items.jaccard.push(lists::jaccard(common, k));
        self.items.rbo.push(item.rbo);
        self.items.lost.push(&item.lost);
        self.items.gained.push(&item.gained);
    }

    fn finish(
        mut self,
        ids: &Ids,
        config: &OverlapConfig,
        duplicate_rows: BothSides<u64>,
    ) -> Overlap {
        self.complete_items(ids);
        let headline = &self.at_k[self.headline];
        let (items, base) = (self.items.rows.len(), headline.rows());
        let (mean, chance) = (headline.mean(), headline.chance_hub_aware());
        let occurrence = &headline.occurrence;
        Overlap {
            k: headline.k,
            items,
            base,
            exact: items == base,
            metric: config.metric,
            overlap: headline.summary(),
            jaccard: MeanOverItems {
                mean: headline.jaccard_mean(),
            },
            rbo: MeanOverItems {
                mean: self.rbo_sum.to_f64() / items as f64,
            },
            rbo_p: config.rbo_p,
            chance: headline.chance(),
            chance_hub_aware: chance,
            kappa: (headline.k + 1 < base).then(|| (mean - chance) / (1.0 - chance)),
            top1_agreement: self.same_nearest as f64 / items as f64,
            at_k: self.at_k.iter().map(TallyAtK::point).collect(),
            hubness: BothSides {
                reference: Hubness::new(&occurrence.reference, items, ids),
                current: Hubness::new(&occurrence.current, items, ids),
            },
            boundary_ties: headline.boundary_ties,
            duplicate_rows,
            most_moved: self.most_moved(ids),
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

    fn most_moved(&self, ids: &Ids) -> Vec<MovedItem> {
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
        let mut tally = TallyAtK::new(3, per_item.len());
        for &item in &sample {
            tally.histogram[(per_item[item] * 3.0).round() as usize] += 1;
        }
        let (mean, se) = (
            golden["fpc_mean"].as_f64().unwrap(),
            golden["fpc_se"].as_f64().unwrap(),
        );
        let [low, high] = tally.ci95().unwrap();
        assert!((tally.mean() - mean).abs() < 1e-12);
        assert!((low - (mean - Z_975 * se)).abs() < 1e-12);
        assert!((high - (mean + Z_975 * se)).abs() < 1e-12);
        assert_eq!(tally.summary().ci95_target, IntervalTarget::ThisCorpus);
    }

    #[test]
    fn summary_of_a_histogram() {
        let mut tally = TallyAtK::new(5, 6);
        tally.histogram = vec![1, 0, 2, 1, 0, 2];
        let summary = tally.summary();
        assert!((tally.mean() - 17.0 / 30.0).abs() < 1e-15);
        assert_eq!((summary.median, summary.share_below_half), (0.5, 0.5));
        assert_eq!(summary.ci95_target, IntervalTarget::SimilarCorpora);
    }

    #[test]
    fn equal_rows_are_counted_once_less() {
        let values = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 1.0, 2.0];
        assert_eq!(duplicate_rows(Rows::new(&values, 2)), 2);
    }
}
