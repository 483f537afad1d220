//! `nearest` by 8-bit codes: what codes cannot rule out is scored exactly.
//!
//! With x = x̂ + e for a query and y = ŷ + f for a base row, x̂ and ŷ being what their codes hold,
//! |x·y − x̂·ŷ| = |x·f + e·ŷ| ≤ ‖x‖‖f‖ + ‖e‖‖ŷ‖, every norm known. So each code product gives a lower and
//! an upper bound of the score. The k-th largest lower bound so far rules out what cannot reach it.

use rayon::prelude::*;

use super::codes::{CodeTile, Codes, GROUP, PANEL};
use super::kernel::{Isa, Job, Kernel};
use crate::engine::score::{self, TopK};
use crate::engine::{NearestRequest, interrupt};

/// Queries per task: their codes stay in the second-level cache while the panels pass.
const TASK: usize = 42 * GROUP;

/// Beside codes: unit rows are rounded when they are prepared, and bounds are computed in f32. Eight
/// roundings each, of values up to 1.
const SLACK: f64 = 16.0 * f32::EPSILON as f64;

/// The prepared length of a query, rounded up.
const LENGTH: f64 = 1.0 + 1e-6;

/// Whether codes are worth their trouble: there must be enough rows to rule out.
pub(super) fn pays(request: &NearestRequest<'_>, dim: usize) -> bool {
    request.base.len() >= 16 * request.k.max(16) && (8..=Codes::WIDEST).contains(&dim)
}

/// The nearest base rows of each query; see [`crate::engine::Backend::nearest`].
pub(super) fn nearest(
    kernel: Kernel,
    queries: &Codes,
    base: &Codes,
    request: NearestRequest<'_>,
) -> Vec<TopK> {
    let mut found = vec![TopK::new(0); queries.rows()];
    // Before the tasks begin: one that waited for another to do it would hold up the pool.
    queries.turn_to_queries();
    let shared_out = queries.rows().div_ceil(4 * rayon::current_num_threads());
    let task = shared_out.next_multiple_of(GROUP).clamp(GROUP, TASK);
    found
        .par_chunks_mut(task)
        .enumerate()
        .for_each(|(at, lists)| {
            if interrupt::requested() {
                return;
            }
            kernel.run(Screen {
                queries,
                base,
                request,
                first: at * task,
                lists,
            });
        });
    found
}

/// What is known of a query while the panels pass.
struct Search {
    /// Units of the query's codes: a product of codes times this and the base row's scale is a score.
    scale: f32,
    /// ‖x‖ in those units.
    length: f32,
    /// ‖e‖·max ‖ŷ‖ and roundings.
    error: f64,
    /// No score below this is among the k nearest.
    threshold: f64,
    /// What code product · scale + ‖x‖‖f‖ must reach for the upper bound to reach the threshold.
    bar: f32,
    /// Lower bounds: the k largest and some that came since.
    lows: Vec<f64>,
    /// Base rows that were not ruled out when they passed, with their upper bounds.
    candidates: Vec<(u32, f64)>,
}

impl Search {
    fn new(
        request: &NearestRequest<'_>,
        query: usize,
        (scale, residual): (f32, f32),
        longest: f32,
    ) -> Self {
        let mut this = Self {
            scale,
            length: (LENGTH / f64::from(scale) * LENGTH) as f32,
            error: f64::from(residual) * f64::from(longest) + SLACK,
            threshold: request.scaled_floor(query),
            bar: f32::NEG_INFINITY,
            lows: Vec::with_capacity(2 * request.k + PANEL),
            candidates: Vec::new(),
        };
        this.set_bar();
        this
    }

    fn set_bar(&mut self) {
        let bar = (self.threshold - self.error) / f64::from(self.scale);
        // Rounded down, and a little more for the roundings of what is compared with it.
        self.bar = (bar - bar.abs() * 1e-6) as f32;
    }

    /// Takes a base row whose product of codes, scaled, is `value`, and ‖x‖‖f‖ `reach`.
    fn take(&mut self, k: usize, row: u32, value: f32, reach: f32) {
        let scaled = |v: f32| f64::from(v) * f64::from(self.scale);
        self.candidates
            .push((row, scaled(value) + scaled(reach) + self.error));
        self.lows.push(scaled(value) - scaled(reach) - self.error);
        if self.lows.len() >= 2 * k + PANEL {
            self.raise(k);
        }
    }

    /// Raises the threshold to the k-th largest lower bound.
    fn raise(&mut self, k: usize) {
        if k == 0 || self.lows.len() < k {
            return;
        }
        let (_, &mut low, _) = self
            .lows
            .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        self.lows.truncate(k);
        if low > self.threshold {
            self.threshold = low;
            self.set_bar();
        }
    }
}

/// Rows of a panel that are looked at one by one where one of them may matter.
const STRETCH: usize = 16;

#[inline(always)]
fn largest(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(f32::NEG_INFINITY, |a, &b| if a > b { a } else { b })
}

/// Some queries against the whole base of the tile.
struct Screen<'a> {
    queries: &'a Codes,
    base: &'a Codes,
    request: NearestRequest<'a>,
    /// First query, a multiple of the group.
    first: usize,
    lists: &'a mut [TopK],
}

impl Job for Screen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            queries,
            base,
            request,
            first,
            lists,
        } = self;
        let mut searches: Vec<Search> = (first..first + lists.len())
            .map(|query| Search::new(&request, query, queries.bounds(query), base.longest()))
            .collect();
        let mut tile = CodeTile([[0; PANEL]; GROUP]);
        for panel in 0..base.panels() {
            let (lanes, scales, residuals) = base.panel(panel);
            for (g, searches) in searches.chunks_mut(GROUP).enumerate() {
                let (codes, offsets) = queries.group(first / GROUP + g);
                isa.code_products(codes, lanes, offsets, &mut tile);
                for (i, search) in searches.iter_mut().enumerate() {
                    let mut upper = [0.0f32; PANEL];
                    for j in 0..PANEL {
                        upper[j] = tile.0[i][j] as f32 * scales[j] + residuals[j] * search.length;
                    }
                    let highest = largest(&upper);
                    if highest < search.bar {
                        continue;
                    }
                    let query = first + g * GROUP + i;
                    for start in (0..PANEL).step_by(STRETCH) {
                        // Most stretches hold nothing, and are told so in vector code.
                        let highest = largest(&upper[start..start + STRETCH]);
                        if highest < search.bar {
                            continue;
                        }
                        for j in start..start + STRETCH {
                            let row = panel * PANEL + j;
                            if upper[j] >= search.bar
                                && row < base.rows()
                                && !request.excludes(query, row)
                            {
                                let value = tile.0[i][j] as f32 * scales[j];
                                let reach = residuals[j] * search.length;
                                search.take(request.k, row as u32, value, reach);
                            }
                        }
                    }
                }
            }
        }
        for (i, (search, list)) in searches.iter_mut().zip(lists).enumerate() {
            search.raise(request.k);
            let query = first + i;
            let (x, x_norm, floor) = (
                request.queries.row(query),
                request.query_norms[query],
                request.floors[query],
            );
            *list = TopK::new(request.k);
            for &(row, upper) in &search.candidates {
                if upper >= search.threshold {
                    let (y, y_norm) = (
                        request.base.row(row as usize),
                        request.base_norms[row as usize],
                    );
                    let exact = score::similarity(request.metric, x, x_norm, y, y_norm);
                    if exact >= floor {
                        list.offer(exact, request.first_base_row + row);
                    }
                }
            }
        }
    }
}
