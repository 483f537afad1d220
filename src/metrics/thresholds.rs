//! Similarity thresholds across a model change: what an old cut-off is worth on new vectors, and how many
//! decisions flip.
//!
//! Deduplication, caches, routers and retrieval cut-offs compare cosines with a number that was found on the
//! old vectors. The table gives, per old threshold, the new one at which as many pairs pass, or, with labels,
//! at which what passes is as often relevant, and says how far the pairs that pass are the same ones: an equal
//! pass rate is not equal membership.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::retrieval::Qrel;
use crate::embeddings::{F32Rows, Ids, Rows};
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::stats::distribution::quantile_sorted;
use crate::stats::interval::Estimate;
use crate::stats::paired::Z_975;
use crate::stats::rng::Philox;

mod precision;

pub use precision::{PrecisionTransfer, precision_transfer};

/// Items compared with each of the base, and items of the base, at most: those with the lowest hashes.
const QUERIES: usize = 500;
const BASE: usize = 8_000;
/// Pairs that must pass an old threshold for its row to mean anything.
const LEAST_PASSING: usize = 100;
/// Shared items below which there are too few pairs.
const LEAST_ITEMS: usize = 50;
/// Bootstrap resamples of queries.
const RESAMPLES: u64 = 500;
/// Rank correlation and membership below which no threshold reproduces the old decisions.
const MIN_RANK_CORRELATION: f64 = 0.9;
const MIN_JACCARD: f64 = 0.8;
/// Philox stream of the bootstrap.
const STREAM: u64 = u64::from_le_bytes(*b"cut-offs");

/// Old thresholds and what becomes of them.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Thresholds {
    /// Shared items whose pairs were looked at, as queries.
    pub queries: usize,
    /// Shared items that each was compared with.
    pub base: usize,
    /// Pairs.
    pub pairs: u64,
    /// Whether these are all pairs of shared items.
    pub exact: bool,
    /// Spearman's rank correlation of a pair's old and new cosine, over all pairs.
    pub rank_correlation: Option<f64>,
    /// Whether one new threshold per old one gives nearly the old decisions: rank correlation at least 0.9,
    /// and a Jaccard index of at least 0.8 in every row. `null` without a row.
    pub scalar_suffices: Option<bool>,
    /// One row per old threshold, ascending: those at which at least 100 pairs and at most half of all pass.
    pub table: Vec<ThresholdRow>,
    /// Thresholds at equal precision, where there are labels.
    pub precision: Option<PrecisionTransfer>,
}

/// An old threshold on new vectors.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ThresholdRow {
    /// The old threshold: pairs with at least this cosine pass.
    pub old: f64,
    /// Share of pairs that pass it on old vectors.
    pub pass_rate: f64,
    /// Pairs that do.
    pub passing: u64,
    /// The new threshold at which no larger share passes.
    pub new: f64,
    /// 95 % interval of `new`, from the queries' pass counts.
    pub new_ci95: Option<[f64; 2]>,
    /// Share of pairs that pass on new vectors if the old threshold is kept.
    pub pass_rate_if_kept: f64,
    /// Share of the pairs that pass before or after whose decision flips, if the old threshold is kept.
    pub flips_if_kept: Estimate,
    /// The same with the new threshold: what no threshold can mend.
    pub flips: Estimate,
    /// Jaccard index of the pairs that pass before and after, with the new threshold: 1 − flips.
    pub jaccard: f64,
    /// Cohen's κ of the decisions with the new threshold.
    pub kappa: Option<f64>,
}

/// Measures what thresholds are worth after a change, for rows that belong together by position; dimensions may
/// differ. `wanted` are the old thresholds; empty: multiples of 0.05. `None` for fewer than 50 items.
///
/// Pairs are those of up to 500 items with up to 8,000, chosen by hash; a pair of an item with itself is none.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If the numbers of rows and ids differ.
pub fn thresholds(
    engine: &Engine,
    reference: Rows<'_>,
    current: Rows<'_>,
    ids: &Ids,
    wanted: &[f64],
    seed: u64,
) -> Result<Option<Thresholds>> {
    assert_eq!((reference.len(), current.len()), (ids.len(), ids.len()));
    if ids.len() < LEAST_ITEMS {
        return Ok(None);
    }
    let mut order: Vec<usize> = (0..ids.len()).collect();
    order.sort_by(|&a, &b| (ids.hash(a, seed), ids.get(a)).cmp(&(ids.hash(b, seed), ids.get(b))));
    order.truncate(BASE);
    let pairs = Pairs {
        old: cosines(engine, reference, &order)?,
        new: cosines(engine, current, &order)?,
        queries: QUERIES.min(order.len()),
        base: order.len(),
    };
    let table: Vec<ThresholdRow> = pairs.table(wanted, ids.len(), seed);
    let rank_correlation = pairs.rank_correlation();
    let scalar_suffices = (!table.is_empty()).then(|| {
        rank_correlation.is_some_and(|rho| rho >= MIN_RANK_CORRELATION)
            && table.iter().all(|row| row.jaccard >= MIN_JACCARD)
    });
    Ok(Some(Thresholds {
        queries: pairs.queries,
        base: pairs.base,
        pairs: pairs.old.len() as u64,
        exact: pairs.queries == ids.len(),
        rank_correlation,
        scalar_suffices,
        table,
        precision: None,
    }))
}

/// Cosines of the first queries of `order` with every other row of it, query by query.
fn cosines(engine: &Engine, rows: Rows<'_>, order: &[usize]) -> Result<Vec<f32>> {
    let gathered = rows.gather(order.iter().copied());
    let gathered = F32Rows::new(&gathered, rows.dim());
    let unit = score::prepare(Metric::Cosine, gathered, &score::norms(gathered), 0);
    let unit = Rows::new(&unit, rows.dim());
    let queries = QUERIES.min(order.len());
    let products = engine.project(unit, unit.slice(0..queries))?;
    let mut cosines = Vec::with_capacity(queries * (order.len() - 1));
    for query in 0..queries {
        let others = (0..order.len()).filter(|&row| row != query);
        cosines.extend(others.map(|row| products[row * queries + query].clamp(-1.0, 1.0)));
    }
    Ok(cosines)
}

/// Cosines of the same pairs in two spaces, query by query, base − 1 each.
struct Pairs {
    old: Vec<f32>,
    new: Vec<f32>,
    queries: usize,
    base: usize,
}

/// Decisions of one query: passes before, after, and both.
type Counts = [u32; 3];

impl Pairs {
    fn table(&self, wanted: &[f64], items: usize, seed: u64) -> Vec<ThresholdRow> {
        let (old_sorted, new_sorted) = (descending(&self.old), descending(&self.new));
        let named = !wanted.is_empty();
        let total = self.old.len();
        old_thresholds(wanted)
            .into_iter()
            .filter(|&old| {
                let passing = passing(&old_sorted, old);
                passing >= LEAST_PASSING && (named || 2 * passing <= total)
            })
            .map(|old| self.row(old, (&old_sorted, &new_sorted), items, seed))
            .collect()
    }

    fn row(
        &self,
        old: f64,
        (old_sorted, new_sorted): (&[f32], &[f32]),
        items: usize,
        seed: u64,
    ) -> ThresholdRow {
        let total = self.old.len();
        let allowed = passing(old_sorted, old);
        let new = threshold_for(new_sorted, allowed);
        let counts = self.counts(old, new);
        let kept = self.counts(old, old);
        // The rate varies with the queries: standard deviation of their pass counts, less what is not left
        // to chance where every item is a query.
        let per_query: Vec<f64> = counts.iter().map(|c| f64::from(c[0])).collect();
        let q = per_query.len() as f64;
        let mean = per_query.iter().sum::<f64>() / q;
        let squares: f64 = per_query.iter().map(|p| (p - mean).powi(2)).sum();
        let unseen = (1.0 - q / items as f64).max(0.0);
        let half = Z_975 * (squares / (q - 1.0) / q * unseen).sqrt() * q;
        let at = |count: f64| threshold_for(new_sorted, count.clamp(0.0, total as f64) as usize);
        let jaccard = 1.0 - flipped(&counts);
        ThresholdRow {
            old,
            pass_rate: allowed as f64 / total as f64,
            passing: allowed as u64,
            new,
            new_ci95: Some([at(allowed as f64 + half), at(allowed as f64 - half)]),
            pass_rate_if_kept: passing(new_sorted, old) as f64 / total as f64,
            flips_if_kept: with_bootstrap(&kept, seed),
            flips: with_bootstrap(&counts, seed),
            jaccard,
            kappa: kappa(&counts, total),
        }
    }

    /// Decisions per query at an old and a new threshold.
    fn counts(&self, old: f64, new: f64) -> Vec<Counts> {
        let width = self.base - 1;
        self.old
            .par_chunks(width)
            .zip(self.new.par_chunks(width))
            .map(|(a, b)| {
                let mut counts = [0; 3];
                for (&a, &b) in a.iter().zip(b) {
                    let (before, after) = (f64::from(a) >= old, f64::from(b) >= new);
                    counts[0] += u32::from(before);
                    counts[1] += u32::from(after);
                    counts[2] += u32::from(before && after);
                }
                counts
            })
            .collect()
    }

    /// Spearman's ρ; `None` where a side does not vary.
    fn rank_correlation(&self) -> Option<f64> {
        let (a, b) = (ranks(&self.old), ranks(&self.new));
        let centre = (self.old.len() as f64 - 1.0) / 2.0;
        let (mut products, mut a_squares, mut b_squares) = (0.0, 0.0, 0.0);
        for (a, b) in a.iter().zip(&b) {
            let (x, y) = (a - centre, b - centre);
            products += x * y;
            a_squares += x * x;
            b_squares += y * y;
        }
        (a_squares > 0.0 && b_squares > 0.0).then(|| products / (a_squares * b_squares).sqrt())
    }
}

/// The thresholds that are asked for, ascending, or multiples of 0.05 below 1.
fn old_thresholds(wanted: &[f64]) -> Vec<f64> {
    if wanted.is_empty() {
        return (1..20).map(|i| f64::from(i) / 20.0).collect();
    }
    let mut wanted = wanted.to_vec();
    wanted.sort_unstable_by(f64::total_cmp);
    wanted.dedup();
    wanted
}

fn descending(values: &[f32]) -> Vec<f32> {
    let mut sorted = values.to_vec();
    sorted.par_sort_unstable_by(|a, b| b.total_cmp(a));
    sorted
}

/// How many of the descending values are at least `threshold`.
fn passing(descending: &[f32], threshold: f64) -> usize {
    descending.partition_point(|&v| f64::from(v) >= threshold)
}

/// The smallest threshold among the values that at most `allowed` of them pass; just above the largest where
/// none may.
fn threshold_for(descending: &[f32], allowed: usize) -> f64 {
    let Some(&beyond) = descending.get(allowed) else {
        return f64::from(descending[descending.len() - 1]);
    };
    // Equal values pass together or not at all.
    let first = descending.partition_point(|&v| v > beyond);
    match first {
        0 => f64::from(descending[0].next_up()),
        first => f64::from(descending[first - 1]),
    }
}

/// Ranks from 0, ties sharing their mean.
fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<u32> = (0..values.len() as u32).collect();
    order.par_sort_unstable_by(|&a, &b| {
        values[a as usize]
            .total_cmp(&values[b as usize])
            .then(a.cmp(&b))
    });
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let value = values[order[start] as usize];
        let length = order[start..]
            .iter()
            .take_while(|&&i| values[i as usize] == value)
            .count();
        let rank = start as f64 + (length - 1) as f64 / 2.0;
        for &i in &order[start..start + length] {
            ranks[i as usize] = rank;
        }
        start += length;
    }
    ranks
}

/// Share of the pairs that pass before or after of which only one is true; 0 where none passes.
fn flipped<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> f64 {
    let (mut either, mut both) = (0u64, 0u64);
    for [before, after, common] in counts {
        either += u64::from(before + after - common);
        both += u64::from(*common);
    }
    if either == 0 {
        0.0
    } else {
        1.0 - both as f64 / either as f64
    }
}

/// The share that flips, with a percentile interval over resampled queries.
fn with_bootstrap(counts: &[Counts], seed: u64) -> Estimate {
    let mut shares: Vec<f64> = (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| {
            let mut random = Philox::new(seed, STREAM.wrapping_add(resample));
            let drawn =
                (0..counts.len()).map(|_| &counts[random.below(counts.len() as u32) as usize]);
            flipped(drawn)
        })
        .collect();
    shares.sort_unstable_by(f64::total_cmp);
    Estimate {
        mean: flipped(counts),
        ci95: quantile_sorted(&shares, 0.025)
            .zip(quantile_sorted(&shares, 0.975))
            .map(|(low, high)| [low, high]),
    }
}

/// Cohen's κ of the decisions over `total` pairs; `None` where chance alone agrees on everything.
fn kappa(counts: &[Counts], total: usize) -> Option<f64> {
    let n = total as f64;
    let sum = |i: usize| counts.iter().map(|c| f64::from(c[i])).sum::<f64>() / n;
    let (before, after, both) = (sum(0), sum(1), sum(2));
    let agreed = 1.0 - before - after + 2.0 * both;
    let chance = before * after + (1.0 - before) * (1.0 - after);
    (chance < 1.0).then(|| (agreed - chance) / (1.0 - chance))
}

/// Judged pairs of one query: whether relevant.
type Judged<'a> = std::collections::HashMap<&'a str, bool>;

/// Judgements by query.
fn judged<'a>(qrels: &'a [Qrel]) -> std::collections::BTreeMap<&'a str, Judged<'a>> {
    let mut by_query: std::collections::BTreeMap<&str, Judged<'_>> = Default::default();
    for qrel in qrels {
        by_query
            .entry(&qrel.query)
            .or_default()
            .insert(&qrel.document, qrel.relevance > 0.0);
    }
    by_query.retain(|_, judged| judged.values().any(|&relevant| relevant));
    by_query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(old: Vec<f32>, new: Vec<f32>) -> Pairs {
        let base = 21;
        Pairs {
            queries: old.len() / (base - 1),
            old,
            new,
            base,
        }
    }

    /// A monotone change of the cosines is undone exactly: no decision flips at the new threshold.
    #[test]
    fn a_monotone_change_is_undone() {
        let mut random = Philox::new(1, 0);
        let old: Vec<f32> = (0..4_000).map(|_| random.uniform() as f32).collect();
        let new: Vec<f32> = old.iter().map(|v| 0.5 + v * v / 2.0).collect();
        let found = pairs(old, new);
        // Rounding to f32 makes a few of the new values equal.
        assert!((found.rank_correlation().unwrap() - 1.0).abs() < 1e-6);
        for row in found.table(&[], 200, 0) {
            assert_eq!((row.flips.mean, row.jaccard), (0.0, 1.0), "{row:?}");
            // 4,000 uniform values: neighbours are 0.00025 apart on average, 0.003 at most.
            assert!(
                (row.new - (0.5 + row.old * row.old / 2.0)).abs() < 3e-3,
                "{row:?}"
            );
            let [low, high] = row.new_ci95.unwrap();
            assert!(low <= row.new && row.new <= high);
            assert!(row.pass_rate_if_kept >= row.pass_rate);
        }
    }

    /// Negative control: unrelated cosines have the right pass rate and the wrong members.
    #[test]
    fn unrelated_cosines_pass_others() {
        let mut random = Philox::new(1, 0);
        let mut draw = || -> Vec<f32> { (0..4_000).map(|_| random.uniform() as f32).collect() };
        let found = pairs(draw(), draw());
        assert!(found.rank_correlation().unwrap().abs() < 0.06, "sd 0.016");
        let rows = found.table(&[0.9], 200, 0);
        let row = &rows[0];
        assert!((row.new - 0.9).abs() < 0.02 && row.jaccard < 0.1, "{row:?}");
        assert!(row.kappa.unwrap().abs() < 0.1);
        let [low, high] = row.flips.ci95.unwrap();
        assert!(low < row.flips.mean && row.flips.mean < high);
    }

    #[test]
    fn thresholds_count_equal_values_together() {
        let values = [0.9, 0.8, 0.8, 0.8, 0.1];
        assert_eq!(passing(&values, f64::from(0.8f32)), 4);
        assert_eq!(threshold_for(&values, 4), f64::from(0.8f32));
        assert_eq!(
            threshold_for(&values, 3),
            f64::from(0.9f32),
            "two of three equal ones cannot pass"
        );
        assert_eq!(passing(&values, threshold_for(&values, 0)), 0);
        assert_eq!(threshold_for(&values, 5), f64::from(0.1f32));
        assert_eq!(ranks(&values), [4.0, 2.0, 2.0, 2.0, 0.0]);
        assert_eq!(kappa(&[[0, 0, 0]], 5), None);
    }
}
