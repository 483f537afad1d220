//! `nearest`: exact nearest rows, screened by bin maxima, scored in f64.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LockResult, Mutex, PoisonError, RwLock};

use super::fold::{Feed, Host, Loaded};
use super::score::{self, TopK};
use super::tiles::{Operation, Shape, Tile, TilePlan};
use super::{AnyBackend, Backend, Engine, Metric};
use crate::embeddings::{F32Rows, RowStream, Rows};
use crate::error::{Error, Result};

/// Which pairs never meet: a query and a base row of the same group (a row and itself, say).
#[derive(Debug, Clone, Copy)]
pub struct SelfExclusion<'a> {
    /// Group per query.
    pub queries: &'a [u32],
    /// Group per base row.
    pub base: &'a [u32],
}

/// How many searches have begun.
static SEARCHES: AtomicUsize = AtomicUsize::new(0);

/// The search that a tile is part of.
#[derive(Debug, Clone, Copy)]
pub struct SearchExtent {
    /// Tiles of the same search have the same number: what a backend learned from one may serve the next.
    pub number: usize,
    /// How many queries there are in all.
    pub queries: usize,
    /// How many base rows there are in all, at most.
    pub base_rows: usize,
}

/// One tile's request for nearest rows; see [`Backend::nearest`].
#[derive(Debug, Clone, Copy)]
pub struct NearestRequest<'a> {
    /// The search that this tile is part of.
    pub search: SearchExtent,
    /// How many rows per query.
    pub k: usize,
    /// What similarity means.
    pub metric: Metric,
    /// The queries' stored values: what exact scores are computed from.
    pub queries: F32Rows<'a>,
    /// The base rows' stored values.
    pub base: F32Rows<'a>,
    /// ‖query‖, f64.
    pub query_norms: &'a [f64],
    /// ‖base row‖, f64.
    pub base_norms: &'a [f64],
    /// Exact score = product of the prepared rows × this, per query.
    pub query_scales: &'a [f64],
    /// Per query, the k-th best score of other tiles so far (−∞ while there are fewer): no row below it
    /// belongs to the nearest.
    pub floors: &'a [f64],
    /// Row number of the first base row in the whole base.
    pub first_base_row: u32,
    /// Pairs that never meet, for this tile's rows.
    pub exclude: Option<SelfExclusion<'a>>,
    /// Bound on |computed product − exact score / scale| for any pair of the tile, the product being
    /// computed in f32 arithmetic.
    pub screen_error: f64,
}

impl NearestRequest<'_> {
    /// Base rows per bin: `widest` (a power of two), or fewer where the tile would have too few bins for
    /// k to prune by. 1 means that every product is kept.
    pub fn bin_width(&self, widest: usize) -> usize {
        let mut width = widest;
        while width > 1 && self.base.len() / width < 8 * self.k {
            width /= 2;
        }
        width
    }

    /// How many base rows each query must not meet, computed once per tile.
    pub fn excluded_counts(&self) -> Vec<u32> {
        let Some(exclude) = self.exclude else {
            return vec![0; self.queries.len()];
        };
        let mut rows = HashMap::<u32, u32>::with_capacity(exclude.base.len());
        for &group in exclude.base {
            *rows.entry(group).or_default() += 1;
        }
        exclude
            .queries
            .iter()
            .map(|group| rows.get(group).copied().unwrap_or(0))
            .collect()
    }

    /// The base rows that belong to a query's k nearest, given the largest computed product of each bin
    /// of `bin_width` consecutive base rows with this query.
    ///
    /// With e base rows excluded, at least k others have a computed product of at least t, the
    /// (k + e)-th largest maximum; so the k best have an exact one of at least t − ε and a computed one
    /// of at least t − 2ε, and lie in bins whose maximum is no smaller. The query's floor prunes
    /// likewise. All rows of the remaining bins are scored exactly.
    ///
    /// # Errors
    /// A maximum is NaN: the device did not compute it.
    // Inlined, as is what it calls, so that a CPU kernel compiles it for its instruction set.
    #[inline(always)]
    pub fn select_and_score(
        &self,
        query: usize,
        excluded: u32,
        (bin_width, screen_error): (usize, f64),
        maxima: &[f32],
        scratch: &mut Vec<f32>,
    ) -> Result<TopK> {
        if maxima.iter().any(|m| m.is_nan()) {
            return Err(Error::device(
                "nearest",
                "the device returned NaN for finite rows",
            ));
        }
        let needed = self.k + excluded as usize;
        let floor = self.floors[query];
        let mut threshold = self.scaled_floor(query) - screen_error;
        if needed <= maxima.len() {
            scratch.clear();
            scratch.extend_from_slice(maxima);
            let (_, &mut t, _) = scratch.select_nth_unstable_by(needed - 1, |a, b| b.total_cmp(a));
            threshold = threshold.max(f64::from(t) - 2.0 * screen_error);
        }
        let mut list = TopK::new(self.k);
        let x = self.queries.row(query);
        let x_norm = self.query_norms[query];
        for (bin, &maximum) in maxima.iter().enumerate() {
            if f64::from(maximum) < threshold {
                continue;
            }
            for row in bin * bin_width..((bin + 1) * bin_width).min(self.base.len()) {
                if self.excludes(query, row) {
                    continue;
                }
                let exact = score::similarity(
                    self.metric,
                    x,
                    x_norm,
                    self.base.row(row),
                    self.base_norms[row],
                );
                if exact >= floor {
                    list.offer(exact, self.first_base_row + row as u32);
                }
            }
        }
        Ok(list)
    }
}

impl NearestRequest<'_> {
    /// Whether a query and a base row of the tile never meet.
    #[inline(always)]
    pub fn excludes(&self, query: usize, row: usize) -> bool {
        self.exclude
            .is_some_and(|e| e.queries[query] == e.base[row])
    }

    /// The query's floor as a product of prepared rows, rounded down.
    #[inline(always)]
    pub fn scaled_floor(&self, query: usize) -> f64 {
        let floor = self.floors[query];
        floor / self.query_scales[query] * (1.0 - 1e-12_f64.copysign(floor))
    }

    /// The base rows that belong to a query's k nearest, given (computed product, row) of all that may,
    /// each product within [`screen_error`](Self::screen_error), and of rows that do not exist or are
    /// excluded. Reorders `candidates`.
    pub fn rescore(&self, query: usize, candidates: &mut Vec<(f32, u32)>) -> TopK {
        candidates.retain(|&(_, row)| {
            (row as usize) < self.base.len() && !self.excludes(query, row as usize)
        });
        let floor = self.floors[query];
        let mut threshold = self.scaled_floor(query) - self.screen_error;
        if self.k > 0 && self.k <= candidates.len() {
            let (_, &mut (t, _), _) =
                candidates.select_nth_unstable_by(self.k - 1, |a, b| b.0.total_cmp(&a.0));
            threshold = threshold.max(f64::from(t) - 2.0 * self.screen_error);
        }
        let mut list = TopK::new(self.k);
        let (x, x_norm) = (self.queries.row(query), self.query_norms[query]);
        for &(product, row) in candidates.iter() {
            if f64::from(product) >= threshold {
                let (y, y_norm) = (self.base.row(row as usize), self.base_norms[row as usize]);
                let exact = score::similarity(self.metric, x, x_norm, y, y_norm);
                if exact >= floor {
                    list.offer(exact, self.first_base_row + row);
                }
            }
        }
        list
    }
}

/// Stored rows of a block, from which exact scores are computed.
struct Stored<'a> {
    values: Cow<'a, [f32]>,
    norms: Vec<f64>,
    /// Rows × 2^exponent are at most 1 long.
    exponent: i32,
}

impl Host for Stored<'_> {
    fn part(&self, rows: std::ops::Range<usize>) -> Self {
        let dim = self.values.len() / self.norms.len().max(1);
        Self {
            values: self.values[rows.start * dim..rows.end * dim]
                .to_vec()
                .into(),
            norms: self.norms[rows].to_vec(),
            exponent: self.exponent,
        }
    }
}

impl<'a> Stored<'a> {
    fn new(values: Cow<'a, [f32]>, dim: usize) -> Self {
        let norms = score::norms(F32Rows::new(&values, dim));
        let longest = norms.iter().copied().fold(0.0, f64::max);
        Self {
            values,
            norms,
            exponent: score::unit_exponent(longest),
        }
    }
}

/// What a lock guards, also after a panic elsewhere: lists are merged one by one, each is whole.
fn held<T>(guard: LockResult<T>) -> T {
    guard.unwrap_or_else(PoisonError::into_inner)
}

/// The nearest base rows of every query, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbors {
    /// Per query, (exact score, base row), ordered by score descending, then row ascending. Shorter than
    /// k only where fewer base rows were allowed.
    pub lists: Vec<Vec<(f64, u32)>>,
    /// Queries whose list is proven exact: all of them.
    pub certified: usize,
}

impl Engine {
    /// The `k` nearest rows of `base` for every row of `queries`, proven exact.
    ///
    /// Scores are f64 products of the stored values in a fixed order ([`score::similarity`]); ties go to
    /// the smaller row number. The base may be a stream: it is read once, and of its values no more than
    /// the blocks at work are held. The result is that of the same rows in memory.
    ///
    /// # Errors
    /// The device fails, or the base cannot be read.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn nearest<'a>(
        &self,
        queries: Rows<'_>,
        base: impl RowStream<'a>,
        k: usize,
        metric: Metric,
        exclude: Option<SelfExclusion<'_>>,
    ) -> Result<Neighbors> {
        assert_eq!(queries.dim(), base.dim());
        let query_norms = self.threads.install(|| score::norms(queries));
        let dim = queries.dim();
        // The contract's bound for rows of norm at most 1, two roundings while preparing them, and
        // what underflow can take away.
        let screen_error = (dim as f64 + 8.0) * 2f64.powi(-23) + dim as f64 * 2f64.powi(-120);
        let step = self.block_rows(Operation::Nearest, dim);
        let plan = TilePlan {
            x_rows: queries.len(),
            y_rows: base.most_rows(),
            x_step: step,
            y_step: step,
            shape: Shape::Rectangle,
        };
        let query_feed = Feed {
            dim,
            rows: &|range| {
                let host = Stored {
                    values: queries.slice(range.clone()).to_f32(),
                    norms: query_norms[range].to_vec(),
                    exponent: 0,
                };
                let stored = F32Rows::new(&host.values, dim);
                let unit = self
                    .threads
                    .install(|| score::prepare(Metric::Cosine, stored, &host.norms, 0));
                Ok((unit, host))
            },
        };
        let base = Mutex::new(base);
        let base_feed = Feed {
            dim,
            rows: &|range| {
                // Blocks are asked for in order, each once: the stream stands where the range begins.
                let values = held(base.lock()).next_rows(range.len())?;
                self.threads.install(|| {
                    let host = Stored::new(values, dim);
                    let rows = F32Rows::new(&host.values, dim);
                    let prepared = score::prepare(metric, rows, &host.norms, host.exponent);
                    Ok((prepared, host))
                })
            },
        };
        let lists = RwLock::new(vec![TopK::new(k); queries.len()]);
        let search = SearchExtent {
            number: SEARCHES.fetch_add(1, Ordering::Relaxed),
            queries: plan.x_rows,
            base_rows: plan.y_rows,
        };
        let compute =
            |backend: &AnyBackend, x: &Loaded<Stored>, y: &Loaded<Stored>, tile: &Tile| {
                // Fewer rows may have come than were announced, at the end perhaps none.
                let base = F32Rows::new(&y.host.values, dim);
                if base.is_empty() {
                    return Ok(Vec::new());
                }
                let base_rows = tile.y.start..tile.y.start + base.len();
                // Rows of a dot-product base keep their relative lengths, brought below 1 by a power of two.
                let unit = 2f64.powi(-y.host.exponent);
                let scale = |&norm: &f64| match metric {
                    Metric::Cosine => 1.0,
                    Metric::Dot => norm * unit,
                };
                let scales: Vec<f64> = x.host.norms.iter().map(scale).collect();
                let floors: Vec<f64> = held(lists.read())[tile.x.clone()]
                    .iter()
                    .map(TopK::floor)
                    .collect();
                let request = NearestRequest {
                    search,
                    k,
                    metric,
                    queries: F32Rows::new(&x.host.values, dim),
                    base,
                    query_norms: &x.host.norms,
                    base_norms: &y.host.norms,
                    query_scales: &scales,
                    floors: &floors,
                    first_base_row: base_rows.start as u32,
                    exclude: exclude.map(|e| SelfExclusion {
                        queries: &e.queries[tile.x.clone()],
                        base: &e.base[base_rows],
                    }),
                    screen_error,
                };
                backend.nearest(&x.block, &y.block, request)
            };
        self.fold(
            Operation::Nearest,
            &plan,
            (query_feed, base_feed),
            compute,
            |tile, found| {
                let mut lists = held(lists.write());
                for (list, found) in lists[tile.x.clone()].iter_mut().zip(&found) {
                    list.merge(found);
                }
            },
        )?;
        let lists = held(lists.into_inner());
        let certified = lists.len();
        Ok(Neighbors {
            lists: lists.into_iter().map(TopK::into_entries).collect(),
            certified,
        })
    }
}
