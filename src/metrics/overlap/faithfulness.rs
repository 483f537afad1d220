//! Trustworthiness and continuity: how far away new neighbours were, and lost ones went.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::{IntervalTarget, NeighborChange, OverlapConfig, OverlapItems, Side, Sides};
use crate::embeddings::{F32Rows, Ids, Rows, Values};
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::stats::interval::Estimate;

/// Base rows whose products with all items are held at once: 64 MiB for 1,000 items. Changes no result.
const BASE_BLOCK: usize = 1 << 14;

/// How far items went that are neighbours on one side only, by rank among all rows: an overlap counts a
/// neighbour that fell to rank k + 1 as one that fell to the last.
///
/// Trustworthiness T = 1 − mean over items of 2/(k(2N − 3k − 1)) · Σ (r − k) over the rows gained, r their
/// rank in the reference space and N one more than the rows that may be in a list; continuity is that of the
/// rows lost and their ranks in the current space. Both lie in [0, 1]: 1 where every list stays, about 1/2 for
/// unrelated spaces. Ranks are exact.
///
/// # Source
/// Venna and Kaski (2001). Golden values of scikit-learn's `trustworthiness`:
/// fixtures/golden/trustworthiness.json, and fixtures/golden/knn_structure.json.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Faithfulness {
    /// Items whose neighbours were ranked among all rows: of those queried, the ones with the smallest id
    /// hashes.
    pub items: usize,
    /// Whether these are all rows.
    pub exact: bool,
    /// What the intervals are for.
    pub ci95_target: IntervalTarget,
    /// How near new neighbours were before.
    pub trustworthiness: Estimate,
    /// How near old neighbours still are.
    pub continuity: Estimate,
}

/// Ranks the lost and gained neighbours of `config.ranked_items` items. `None` where none are asked for or
/// where a list of `k` holds half of the rows, for which the measures are not defined.
pub(super) fn faithfulness(
    engine: &Engine,
    sides: &Sides<'_>,
    (items, ids): (&OverlapItems, &Ids),
    k: usize,
    config: &OverlapConfig,
) -> Result<Option<Faithfulness>> {
    let groups = sides.reference.groups;
    let rows = groups.of_rows().len();
    if config.ranked_items == 0 || 2 * k > rows - groups.largest() {
        return Ok(None);
    }
    let chosen = choose(items, ids, config);
    let queries: Vec<u32> = chosen.iter().map(|&item| items.rows[item]).collect();
    let estimate = |side: &Side<'_>, moved: &dyn Fn(usize) -> Vec<(f64, u32)>| -> Result<_> {
        let wanted: Vec<Vec<(f64, u32)>> = chosen.iter().map(|&item| moved(item)).collect();
        let ranks = ranks(engine, side, &queries, &wanted)?;
        let values: Vec<f64> = queries
            .iter()
            .zip(&ranks)
            .map(|(&row, ranks)| {
                let beyond: u64 = ranks.iter().map(|rank| rank - k as u64).sum();
                let n = (rows - groups.apart_from(row).len() + 1) as f64;
                let k = k as f64;
                1.0 - 2.0 * beyond as f64 / (k * (2.0 * n - 3.0 * k - 1.0))
            })
            .collect();
        Ok(groups.estimate(&queries, &values).map(Estimate::of_share))
    };
    let listed = |changes: &[NeighborChange], score: fn(&NeighborChange) -> f64| {
        changes.iter().map(|c| (score(c), c.row)).collect()
    };
    let trustworthiness = estimate(&sides.reference, &|item| {
        listed(items.gained.of(item), |c| c.similarity_before)
    })?;
    let continuity = estimate(&sides.current, &|item| {
        listed(items.lost.of(item), |c| c.similarity_after)
    })?;
    Ok(trustworthiness
        .zip(continuity)
        .map(|(trustworthiness, continuity)| Faithfulness {
            items: queries.len(),
            exact: queries.len() == rows,
            ci95_target: groups.interval_target(queries.len()),
            trustworthiness,
            continuity,
        }))
}

/// The items to rank, ascending.
fn choose(items: &OverlapItems, ids: &Ids, config: &OverlapConfig) -> Vec<usize> {
    let mut chosen: Vec<usize> = (0..items.rows.len()).collect();
    if config.ranked_items < chosen.len() {
        chosen.sort_by_cached_key(|&item| {
            let row = items.rows[item] as usize;
            (ids.hash(row, config.seed), ids.get(row))
        });
        chosen.truncate(config.ranked_items);
        chosen.sort_unstable();
    }
    chosen
}

/// A row whose rank is wanted: its score, and where computed products may lie that are not surely lower or
/// higher.
struct Limit {
    low: f32,
    high: f32,
    score: f64,
    row: u32,
}

impl Limit {
    /// Whether another row comes before it.
    fn is_behind(&self, score: f64, row: u32) -> bool {
        score > self.score || (score == self.score && row < self.row)
    }
}

/// The rows whose ranks are wanted for one query, ascending by score, with what was counted for them.
struct Ranked {
    query: u32,
    limits: Vec<Limit>,
    /// Rows surely before exactly the first i limits.
    before: Vec<u64>,
    /// Rows before a limit, of those too near to tell by a product.
    near: Vec<u64>,
}

impl Ranked {
    /// Products are within `error` of score / `scale`.
    fn new(query: u32, wanted: &[(f64, u32)], scale: f64, error: f64) -> Self {
        let mut limits: Vec<Limit> = wanted
            .iter()
            .map(|&(score, row)| Limit {
                low: ((score / scale - error) as f32).next_down(),
                high: ((score / scale + error) as f32).next_up(),
                score,
                row,
            })
            .collect();
        limits.sort_by(|a, b| a.score.total_cmp(&b.score));
        Self {
            query,
            before: vec![0; limits.len() + 1],
            near: vec![0; limits.len()],
            limits,
        }
    }

    /// Counts the rows from `first` on, by their products with the query.
    fn count(&mut self, products: &[f32], first: usize, side: &Side<'_>) {
        let lowest = self.limits[0].low;
        for (row, &product) in (first as u32..).zip(products) {
            if product < lowest {
                continue;
            }
            // What the device did not compute is near all of them.
            let undecided = if product.is_nan() {
                0..self.limits.len()
            } else {
                self.limits.partition_point(|limit| limit.high < product)
                    ..self.limits.partition_point(|limit| limit.low <= product)
            };
            self.before[undecided.start] += 1;
            if !undecided.is_empty() {
                let score = side.similarity(self.query, row);
                for i in undecided {
                    self.near[i] += u64::from(self.limits[i].is_behind(score, row));
                }
            }
        }
    }

    /// The rank of each wanted row, 1 for the nearest, among the rows that may be in the query's list.
    fn ranks(&self, side: &Side<'_>) -> Vec<u64> {
        let mut apart = vec![0u64; self.limits.len()];
        for &row in side.groups.apart_from(self.query) {
            let score = side.similarity(self.query, row);
            for (count, limit) in apart.iter_mut().zip(&self.limits) {
                *count += u64::from(limit.is_behind(score, row));
            }
        }
        let mut surely: u64 = self.before.iter().sum();
        (0..self.limits.len())
            .map(|i| {
                surely -= self.before[i];
                1 + surely + self.near[i] - apart[i]
            })
            .collect()
    }
}

/// The exact ranks of some rows by their similarity to each of `queries`; `wanted` holds their exact scores.
/// In no particular order within a query.
fn ranks(
    engine: &Engine,
    side: &Side<'_>,
    queries: &[u32],
    wanted: &[Vec<(f64, u32)>],
) -> Result<Vec<Vec<u64>>> {
    let dim = side.rows.dim();
    let longest = side.norms.iter().copied().fold(0.0, f64::max);
    let exponent = score::unit_exponent(longest);
    // The contract's bound for rows of norm at most 1 on any core, roundings while preparing them, and what
    // underflow can take away.
    let error = (3.0 * dim as f64 + 24.0) * 2f64.powi(-23) + dim as f64 * 2f64.powi(-120);
    let mut ranked: Vec<Ranked> = queries
        .iter()
        .zip(wanted)
        .filter(|(_, wanted)| !wanted.is_empty())
        .map(|(&query, wanted)| {
            let scale = match side.metric {
                Metric::Cosine => 1.0,
                Metric::Dot => side.norms[query as usize] * 2f64.powi(-exponent),
            };
            Ranked::new(query, wanted, scale, error)
        })
        .collect();
    let moved: Vec<u32> = ranked.iter().map(|ranked| ranked.query).collect();
    if !moved.is_empty() {
        let gathered = Values::gather(side.rows, &moved);
        let values = gathered.rows(dim).to_f32();
        let norms: Vec<f64> = moved.iter().map(|&row| side.norms[row as usize]).collect();
        let unit = score::prepare(Metric::Cosine, F32Rows::new(&values, dim), &norms, 0);
        for first in (0..side.rows.len()).step_by(BASE_BLOCK) {
            let range = first..side.rows.len().min(first + BASE_BLOCK);
            let values = side.rows.slice(range.clone()).to_f32();
            let block = F32Rows::new(&values, dim);
            let norms = &side.norms[range.clone()];
            let block = score::prepare(side.metric, block, norms, exponent);
            let products = engine.project(Rows::new(&unit, dim), Rows::new(&block, dim))?;
            ranked
                .par_iter_mut()
                .zip(products.par_chunks(range.len()))
                .for_each(|(ranked, products)| ranked.count(products, first, side));
        }
    }
    let of_moved: Vec<Vec<u64>> = ranked.par_iter().map(|r| r.ranks(side)).collect();
    let mut of_moved = of_moved.into_iter();
    let of_query = |wanted: &Vec<(f64, u32)>| match wanted.is_empty() {
        true => Vec::new(),
        false => of_moved
            .next()
            .expect("every query with rows to rank has ranks"),
    };
    Ok(wanted.iter().map(of_query).collect())
}
