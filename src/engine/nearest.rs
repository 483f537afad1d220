//! `nearest`: exact nearest rows, screened by bin maxima, scored in f64.

use std::collections::HashMap;

use super::fold::fold;
use super::score::{self, TopK};
use super::tiles::{Operation, Shape, TilePlan};
use super::{Backend, Engine, Metric, with_backend};
use crate::embeddings::Rows;
use crate::error::{Error, Result};

/// Which pairs never meet: a query and a base row of the same group (a row and itself, say).
#[derive(Debug, Clone, Copy)]
pub struct SelfExclusion<'a> {
    /// Group per query.
    pub queries: &'a [u32],
    /// Group per base row.
    pub base: &'a [u32],
}

/// One tile's request for nearest rows; see [`Backend::nearest`].
#[derive(Debug, Clone, Copy)]
pub struct NearestRequest<'a> {
    /// What similarity means.
    pub metric: Metric,
    /// The queries' stored values: what exact scores are computed from.
    pub queries: Rows<'a>,
    /// The base rows' stored values.
    pub base: Rows<'a>,
    /// ‖query‖, f64.
    pub query_norms: &'a [f64],
    /// ‖base row‖, f64.
    pub base_norms: &'a [f64],
    /// Exact score = product of the prepared rows × this, per query.
    pub query_scales: &'a [f64],
    /// Row number of the first base row in the whole base.
    pub first_base_row: u32,
    /// Pairs that never meet, for this tile's rows.
    pub exclude: Option<SelfExclusion<'a>>,
    /// Bound on |computed product − exact score / scale| for any pair of the tile.
    pub screen_error: f64,
}

impl NearestRequest<'_> {
    /// Base rows per bin: `widest` (a power of two), or fewer where the tile would have too few bins for
    /// k to prune by. 1 means that every product is kept.
    pub fn bin_width(&self, k: usize, widest: usize) -> usize {
        let mut width = widest;
        while width > 1 && self.base.len() / width < 8 * k {
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

    /// Merges into `list` the base rows that belong there, given the largest computed product of each
    /// bin of `bin_width` consecutive base rows with this query.
    ///
    /// With e base rows excluded, at least k others have a computed product of at least t, the
    /// (k + e)-th largest maximum; so the k best have an exact one of at least t − ε and a computed one
    /// of at least t − 2ε, and lie in bins whose maximum is no smaller. The list's own k-th score
    /// prunes likewise. All rows of the remaining bins are scored exactly.
    ///
    /// # Errors
    /// A maximum is NaN: the device did not compute it.
    // Inlined, as is what it calls, so that a CPU kernel compiles it for its instruction set.
    #[inline(always)]
    pub fn select_and_score(
        &self,
        query: usize,
        excluded: u32,
        bin_width: usize,
        maxima: &[f32],
        scratch: &mut Vec<f32>,
        list: &mut TopK,
    ) -> Result<()> {
        if maxima.iter().any(|m| m.is_nan()) {
            return Err(Error::device(
                "nearest",
                "the device returned NaN for finite rows",
            ));
        }
        let needed = list.k() + excluded as usize;
        let mut threshold = list.floor() / self.query_scales[query]
            * (1.0 - 1e-12_f64.copysign(list.floor()))
            - self.screen_error;
        if needed <= maxima.len() {
            scratch.clear();
            scratch.extend_from_slice(maxima);
            let (_, &mut t, _) = scratch.select_nth_unstable_by(needed - 1, |a, b| b.total_cmp(a));
            threshold = threshold.max(f64::from(t) - 2.0 * self.screen_error);
        }
        let x = self.queries.row(query);
        let x_norm = self.query_norms[query];
        for (bin, &maximum) in maxima.iter().enumerate() {
            if f64::from(maximum) < threshold {
                continue;
            }
            for row in bin * bin_width..((bin + 1) * bin_width).min(self.base.len()) {
                if self
                    .exclude
                    .is_some_and(|e| e.queries[query] == e.base[row])
                {
                    continue;
                }
                let exact = score::similarity(
                    self.metric,
                    x,
                    x_norm,
                    self.base.row(row),
                    self.base_norms[row],
                );
                list.offer(exact, self.first_base_row + row as u32);
            }
        }
        Ok(())
    }
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
    /// the smaller row number.
    ///
    /// # Errors
    /// The device fails.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn nearest(
        &self,
        queries: Rows<'_>,
        base: Rows<'_>,
        k: usize,
        metric: Metric,
        exclude: Option<SelfExclusion<'_>>,
    ) -> Result<Neighbors> {
        assert_eq!(queries.dim(), base.dim());
        let norms = |rows: Rows<'_>| -> Vec<f64> { rows.iter().map(score::norm).collect() };
        let (query_norms, base_norms) = (norms(queries), norms(base));
        // Rows of a dot-product base keep their relative lengths, brought below 1 by a power of two.
        let exponent = score::unit_exponent(base_norms.iter().copied().fold(0.0, f64::max));
        let query_scales: Vec<f64> = match metric {
            Metric::Cosine => vec![1.0; queries.len()],
            Metric::Dot => query_norms
                .iter()
                .map(|&norm| norm * 2f64.powi(-exponent))
                .collect(),
        };
        let dim = queries.dim() as f64;
        // The contract's bound for rows of norm at most 1, two roundings while preparing them, and
        // what underflow can take away.
        let screen_error = (dim + 8.0) * 2f64.powi(-23) + dim * 2f64.powi(-120);
        let mut lists = vec![TopK::new(k); queries.len()];
        with_backend!(self, backend => {
            let step = backend.block_rows(Operation::Nearest, queries.dim(), self.memory);
            let plan = TilePlan {
                x_rows: queries.len(),
                y_rows: base.len(),
                x_step: step,
                y_step: step,
                shape: Shape::Rectangle,
            };
            let load = |metric, rows: Rows<'_>| {
                let prepared = score::prepare(metric, rows, exponent);
                backend.load(Rows::new(&prepared, rows.dim()))
            };
            fold(
                backend,
                Operation::Nearest,
                &plan,
                &*self.progress,
                |range| load(Metric::Cosine, queries.slice(range)),
                |range| load(metric, base.slice(range)),
                |x, y, tile| {
                    let request = NearestRequest {
                        metric,
                        queries: queries.slice(tile.x.clone()),
                        base: base.slice(tile.y.clone()),
                        query_norms: &query_norms[tile.x.clone()],
                        base_norms: &base_norms[tile.y.clone()],
                        query_scales: &query_scales[tile.x.clone()],
                        first_base_row: tile.y.start as u32,
                        exclude: exclude.map(|e| SelfExclusion {
                            queries: &e.queries[tile.x.clone()],
                            base: &e.base[tile.y.clone()],
                        }),
                        screen_error,
                    };
                    backend.nearest(x, y, request, &mut lists[tile.x.clone()])
                },
            )?;
        });
        let certified = lists.len();
        Ok(Neighbors {
            lists: lists.iter().map(|list| list.entries().to_vec()).collect(),
            certified,
        })
    }
}
