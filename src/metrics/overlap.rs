//! Neighbourhood overlap: do the same rows stay neighbours when the model changes?
//!
//! The one drift measure that needs no common space: it compares, item by item, the k nearest rows in
//! the reference space with those in the current one. Rotation, scale and dimension do not matter.
//!
//! # Groups
//! Chunks of one document are each other's nearest rows in any space, and they move together. Where groups
//! are given, rows of one group are never in each other's lists (the search leaves them out; nothing is cut
//! off afterwards), and intervals are those of means over groups.
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
use crate::engine::{Engine, Metric, SelfExclusion, score};
use crate::error::{Error, Result};

mod dimension;
mod faithfulness;
mod groups;
mod hubness;
mod lists;
mod mutual;
mod radius;
mod tally;

pub use dimension::IntrinsicDimension;
pub use faithfulness::Faithfulness;
use groups::Groups;
pub use hubness::Hubness;
pub use mutual::MutualNeighbors;
use radius::Searches;
pub use radius::{FallenOut, RadiusRow, RangeSearches};
use tally::Tally;

/// Queries whose lists of both sides are held at once; bounds memory, changes no result.
const QUERY_BATCH: usize = 1 << 17;
/// How many of the most displaced items are listed.
const MOST_MOVED: usize = 20;

/// What [`overlap`] measures.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OverlapConfig {
    /// List lengths k of the curve; each is cut to the number of other rows, of other groups where there are
    /// groups.
    pub ks: Vec<usize>,
    /// The k of the headline numbers and of everything per item; cut likewise.
    pub headline_k: usize,
    /// Query this many rows, those with the smallest id hashes; `None`: all. Neighbours are sought among
    /// all rows whatever this is, because overlap in a sampled base is a different, larger number.
    pub queries: Option<usize>,
    /// For trustworthiness and continuity, rank the lost and gained neighbours of at most this many of the
    /// queried rows, again those with the smallest id hashes, among all rows; 0: leave both out.
    pub ranked_items: usize,
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
            ranked_items: 1_000,
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
    /// Groups whose rows are kept out of each other's lists; null where none were given.
    pub groups: Option<GroupSizes>,
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
    /// Expected overlap@k of unrelated spaces, k/(n − 1); with groups the mean of k/(n − g), g the size of an
    /// item's group.
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
    /// Pairs of items that are each other's neighbours, at k.
    pub mutual: MutualNeighbors,
    /// Trustworthiness and continuity at k; null where they were not asked for or k is more than half of
    /// the rows that may be in a list.
    pub faithfulness: Option<Faithfulness>,
    /// Radii of range searches carried over, and what falls out of them; null where lists are shorter than two
    /// rows.
    pub range_searches: Option<RangeSearches>,
    /// Unevenness of the k-occurrence on both sides.
    pub hubness: BothSides<Hubness>,
    /// Local intrinsic dimension, from the distances to the k nearest rows; null for dot products, which
    /// are no distances.
    pub intrinsic_dimension: Option<BothSides<IntrinsicDimension>>,
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

/// How large groups are.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct GroupSizes {
    /// Groups of the rows searched.
    pub groups: usize,
    /// Rows of the largest.
    pub largest: usize,
}

/// Groups larger than this slow the search down, which scores whole groups to leave them out.
const LARGE_GROUP: usize = 1_000;

impl GroupSizes {
    /// What to say of groups named by `column` that are too large to be documents.
    pub fn warning(&self, column: &str) -> Option<String> {
        (self.largest > LARGE_GROUP).then(|| {
            format!(
                "one value of {column} marks {} rows, none of which is in another's neighbour list: lists are exact, but such groups are slow to leave out, and what is measured is neighbours outside them",
                self.largest
            )
        })
    }
}

/// A quantity of either side.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
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
    /// The mean over corpora like this one: every row was queried, so this corpus's mean is exact; or groups
    /// were given, and the interval is one of draws of groups.
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
    /// As in the headline, at this k.
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
    /// Cosine between its two vectors, where the dimensions agree; it means something only where both
    /// stand in one coordinate system.
    pub paired_cosine: Option<f64>,
    /// How many queries have it among their k nearest in the reference space.
    pub k_occurrence_reference: u32,
    /// The same in the current space.
    pub k_occurrence_current: u32,
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
/// own neighbour, nor is one of its group: rows with equal `labels`, where there are labels. All overlaps are in [0, 1], 1 meaning unchanged; similarities are exact (f64), and the
/// result is the same for any number of threads, batches and shards.
///
/// # Errors
/// Fewer than two rows or groups, a k or a number of queries of 0, `rbo_p` outside (0, 1), or a device failure.
///
/// # Panics
/// If the numbers of rows, ids and labels differ.
///
/// # Source
/// Overlap and its null: Huh et al. (2024), Gröger et al. (2026). Golden values:
/// fixtures/golden/{knn_structure,rank_overlap}.json.
pub fn overlap(
    engine: &Engine,
    reference: Rows<'_>,
    current: Rows<'_>,
    ids: &Ids,
    labels: Option<&[String]>,
    config: &OverlapConfig,
) -> Result<Overlap> {
    assert_eq!((reference.len(), current.len()), (ids.len(), ids.len()));
    assert!(labels.is_none_or(|labels| labels.len() == ids.len()));
    let groups = Groups::new(ids.len(), labels);
    let lengths = ListLengths::new(ids.len(), &groups, config)?;
    let chosen = choose_queries(ids, config);
    let sides = Sides {
        reference: Side::new(reference, &groups, config.metric),
        current: Side::new(current, &groups, config.metric),
    };
    let mut tally = Tally::new(&lengths, &groups);
    let mut searches = Searches::new(&chosen, ids, lengths.longest, config);
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
            searches.add(row, a, b);
        }
    }
    let (reference, current) =
        rayon::join(|| duplicate_rows(reference), || duplicate_rows(current));
    let duplicate_rows = BothSides { reference, current };
    let mut found = tally.finish(ids, config, &sides, duplicate_rows);
    found.range_searches = searches.finish(ids, &groups);
    let items = (&found.per_item, ids);
    found.faithfulness = faithfulness::faithfulness(engine, &sides, items, found.k, config)?;
    Ok(found)
}

/// The list lengths that every row's list can have, ascending.
struct ListLengths {
    ks: Vec<usize>,
    /// Index of the headline k in `ks`.
    headline: usize,
    longest: usize,
}

impl ListLengths {
    fn new(rows: usize, groups: &Groups, config: &OverlapConfig) -> Result<Self> {
        let refuse = |fact: String| Err(Error::input("overlap", fact));
        if rows < 2 {
            return refuse(format!("{rows} shared rows, expected at least 2"));
        }
        if groups.count() < 2 {
            return refuse(format!(
                "all {rows} shared rows are of one group, expected at least 2 groups"
            ));
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
        let others = rows - groups.largest();
        let headline_k = config.headline_k.min(others);
        let mut ks: Vec<usize> = config.ks.iter().map(|&k| k.min(others)).collect();
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
    groups: &'a Groups,
    metric: Metric,
}

impl<'a> Side<'a> {
    fn new(rows: Rows<'a>, groups: &'a Groups, metric: Metric) -> Self {
        Self {
            rows,
            norms: score::norms(rows),
            groups,
            metric,
        }
    }

    /// The `k` nearest rows of other groups of each row of `batch`.
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
        let of_rows = self.groups.of_rows();
        let of_queries: Vec<u32> = batch.iter().map(|&row| of_rows[row as usize]).collect();
        let exclude = SelfExclusion {
            queries: &of_queries,
            base: of_rows,
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
    /// 1 / local intrinsic dimension, where similarities are cosines.
    inverse_dimension: BothSides<Option<f64>>,
    lost: Vec<NeighborChange>,
    gained: Vec<NeighborChange>,
}

impl Sides<'_> {
    /// Cosine between the two vectors of a row, where the dimensions agree.
    fn paired_cosine(&self, row: u32) -> Option<f64> {
        let row = row as usize;
        let (x, y) = (self.reference.rows.row(row), self.current.rows.row(row));
        let norms = (self.reference.norms[row], self.current.norms[row]);
        (x.len() == y.len()).then(|| score::similarity(Metric::Cosine, &x, norms.0, &y, norms.1))
    }

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
        let inverse_dimension = |list: &lists::List| {
            let cosines = self.current.metric == Metric::Cosine;
            cosines
                .then(|| dimension::inverse_of_cosines(list))
                .flatten()
        };
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
            inverse_dimension: BothSides {
                reference: inverse_dimension(old),
                current: inverse_dimension(new),
            },
            lost,
            gained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_rows_are_counted_once_less() {
        let values = [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 1.0, 2.0];
        assert_eq!(duplicate_rows(Rows::new(&values, 2)), 2);
    }
}
