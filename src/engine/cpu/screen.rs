//! `nearest` by 8-bit codes: what codes cannot rule out is scored exactly.
//!
//! With x = x̂ + e for a query and y = ŷ + f for a base row, x̂ and ŷ being what their codes hold,
//! |x·y − x̂·ŷ| = |x·f + e·ŷ| ≤ ‖x‖‖f‖ + ‖e‖‖ŷ‖, every norm known. So each code product gives a lower and
//! an upper bound of the score. The k-th largest lower bound so far rules out what cannot reach it.
//!
//! Where the frame has fewer axes than there are coordinates ([`Axes`](super::axes::Axes)), a first look
//! at the axes rules out most pairs; the rest gets a second look at the codes of all coordinates.

use std::ops::Range;
use std::sync::Arc;

use rayon::prelude::*;

use super::axes::Axes;
use super::block::CpuBlock;
use super::codes::{CodeTile, Coded, Codes, GROUP, PANEL, PanelBounds, WHOLE_ZERO};
use super::kernel::{Isa, Job, Kernel};
use crate::engine::score::{self, TopK};
use crate::engine::{NearestRequest, interrupt};

/// Queries per task: their codes stay in the second-level cache while the panels pass.
const TASK: usize = 42 * GROUP;

/// Beside codes: unit rows are rounded when they are prepared and when the origin is subtracted, and
/// bounds are computed in f32. Sixteen roundings each, of values up to 2.
const SLACK: f64 = 32.0 * f32::EPSILON as f64;

/// Whether codes can be worth their trouble: there must be enough rows to rule out.
pub(super) fn pays(request: &NearestRequest<'_>, dim: usize) -> bool {
    request.base.len() >= 16 * request.k.max(16) && (8..=Codes::WIDEST).contains(&dim)
}

/// How a search screens by codes.
#[derive(Clone)]
pub(super) struct Frames {
    /// All coordinates.
    pub(super) whole: Arc<Axes>,
    /// Fewer axes, from the same origin, for a first look; where they gain anything.
    pub(super) turned: Option<Arc<Axes>>,
}

/// What a second look costs, in 8-bit multiply-adds of a first one. Measured; it decides nothing but
/// the time that a search takes.
pub(super) const SECOND_LOOK_COST: f64 = 6000.0;

/// Panels between one judgement and the next, where a first look at fewer axes pays.
const STRIDE: usize = 64;
/// Panels of all coordinates before the first judgement; twice as many before every other.
const WARM_UP: usize = 16;

/// Bytes that searches at work may take: some queries at a time, many at small k.
const SEARCH_BYTES: usize = 128 << 20;

/// Screens the base of a tile for the queries' nearest rows; see [`crate::engine::Backend::nearest`].
pub(super) fn nearest(
    kernel: Kernel,
    queries: &CpuBlock,
    base: &CpuBlock,
    frames: &Frames,
    request: NearestRequest<'_>,
) -> Vec<TopK> {
    // Lower bounds and candidates, several times k of either.
    let bytes = 64 * request.k + 2048;
    let some = (SEARCH_BYTES / bytes / GROUP * GROUP).max(TASK);
    let all = request.queries.len();
    (0..all)
        .step_by(some)
        .flat_map(|first| {
            let mut pass = Pass::new(kernel, request, first..all.min(first + some));
            pass.screen(queries, base, frames);
            pass.score()
        })
        .collect()
}

/// Searches of some queries of a tile.
struct Pass<'a> {
    kernel: Kernel,
    request: NearestRequest<'a>,
    /// A multiple of the group.
    first_query: usize,
    searches: Vec<Search>,
}

impl<'a> Pass<'a> {
    fn new(kernel: Kernel, request: NearestRequest<'a>, queries: Range<usize>) -> Self {
        let search = |query| Search::new(request.k, request.scaled_floor(query));
        Self {
            kernel,
            request,
            first_query: queries.start,
            searches: queries.map(search).collect(),
        }
    }

    /// Shows the queries the whole base of the tile.
    ///
    /// A first look at fewer axes pays once good neighbours are known: as long as their scores are no
    /// better than what the remaining axes may hold, nothing is ruled out. So all coordinates are used
    /// wherever too many second looks would be needed.
    fn screen(&mut self, queries: &CpuBlock, base: &CpuBlock, frames: &Frames) {
        let (kernel, panels) = (self.kernel, base.rows().div_ceil(PANEL));
        let Some(turned) = &frames.turned else {
            let whole = base.codes(kernel, &frames.whole);
            return self.over(&queries.codes(kernel, &frames.whole), &whole, 0, 0..panels);
        };
        let saved = (frames.whole.len() - turned.len()) as f64;
        let (queries_turned, base_turned) =
            (queries.codes(kernel, turned), base.codes(kernel, turned));
        let (mut at, mut warm_up) = (0, WARM_UP);
        while at < panels {
            let next = at..panels.min(at + STRIDE);
            let second_looks = self.survivors(&queries_turned, &base_turned, next.clone());
            if second_looks * SECOND_LOOK_COST <= saved {
                self.over(&queries_turned, &base_turned, 0, next.clone());
                at = next.end;
            } else {
                let end = panels.min(at + warm_up);
                let first_row = at * PANEL;
                let rows = first_row..base.rows().min(end * PANEL);
                let some = Codes::encode(kernel, &frames.whole, base.prepared().slice(rows));
                let queries = queries.codes(kernel, &frames.whole);
                self.over(&queries, &some, first_row, 0..end - at);
                warm_up *= 2;
                at = end;
            }
        }
    }

    /// Queries per task.
    fn task(&self) -> usize {
        let shared_out = self
            .searches
            .len()
            .div_ceil(4 * rayon::current_num_threads());
        shared_out.next_multiple_of(GROUP).clamp(GROUP, TASK)
    }

    /// Shows the queries some panels of base rows, of which the first is `first_row` of the tile.
    fn over(&mut self, queries: &Codes, base: &Codes, first_row: usize, panels: Range<usize>) {
        // Before the tasks begin: one that waited for another to do it would hold up the pool.
        queries.turn_to_queries();
        let (task, kernel, request) = (self.task(), self.kernel, self.request);
        let first_query = self.first_query;
        self.searches
            .par_chunks_mut(task)
            .enumerate()
            .for_each(|(at, searches)| {
                if interrupt::requested() {
                    return;
                }
                kernel.run(Screen {
                    queries,
                    base,
                    first_row,
                    panels: panels.clone(),
                    request,
                    first_query: first_query + at * task,
                    searches,
                });
            });
    }

    /// The share of pairs that a first look would leave, from some of the queries and of the panels.
    fn survivors(&self, queries: &Codes, base: &Codes, panels: Range<usize>) -> f64 {
        const GROUPS: usize = 32;
        const PANELS: usize = 4;
        queries.turn_to_queries();
        let groups = self.searches.len().div_ceil(GROUP);
        let some = |all: usize, most: usize| (0..all).step_by(all.div_ceil(most).max(1));
        let (mut reached, mut pairs) = (0, 0);
        for group in some(groups, GROUPS) {
            for panel in some(panels.len(), PANELS) {
                let first = group * GROUP;
                let last = self.searches.len().min(first + GROUP);
                reached += self.kernel.run(Count {
                    queries,
                    base,
                    panel: panels.start + panel,
                    first_query: self.first_query + first,
                    searches: &self.searches[first..last],
                });
                pairs += (last - first) * PANEL;
            }
        }
        f64::from(reached) / pairs.max(1) as f64
    }

    /// Scores what was not ruled out.
    fn score(mut self) -> Vec<TopK> {
        let (task, kernel, request) = (self.task(), self.kernel, self.request);
        let first_query = self.first_query;
        let mut found = vec![TopK::new(0); self.searches.len()];
        self.searches
            .par_chunks_mut(task)
            .zip(found.par_chunks_mut(task))
            .enumerate()
            .for_each(|(at, (searches, lists))| {
                kernel.run(Score {
                    request,
                    first_query: first_query + at * task,
                    searches,
                    lists,
                });
            });
        found
    }
}

/// A score's bounds from codes: (product of codes · the row's scale) · `unit` ± `error`, and the row's
/// own residual times `length`.
struct Look {
    /// The query's scale.
    unit: f64,
    /// ‖x‖ in units.
    length: f32,
    /// What does not depend on the row.
    error: f64,
    /// What the upper bound, in units and without `error`, must reach.
    bar: f32,
}

impl Look {
    fn new(code: &Coded, error: f64) -> Self {
        let unit = f64::from(code.scale);
        Self {
            unit,
            // Never 0, so that its product with −∞ is not NaN.
            length: (f64::from(code.length) / unit * (1.0 + 1e-6)).max(1e-30) as f32,
            error: error + SLACK,
            bar: f32::NEG_INFINITY,
        }
    }

    fn set_bar(&mut self, threshold: f64) {
        let bar = (threshold - self.error) / self.unit;
        // Rounded down, and a little more for the roundings of what is compared with it.
        self.bar = (bar - bar.abs() * 1e-6) as f32;
    }
}

/// How a query is seen through one pair of codes.
struct View {
    first: Look,
    /// ‖x⊥‖ in units of the first look.
    rest: f32,
    /// 1 in units of the first look.
    one: f32,
    /// Where the axes leave something, with −128·Σ code.
    second: Option<(Look, i32)>,
    /// x·μ, which all its scores have in common.
    along_origin: f64,
}

impl View {
    fn new(query: usize, queries: &Codes, base: &Codes) -> Self {
        let (code, rest) = queries.row(query);
        let second = queries.whole().zip(base.whole()).map(|(queries, base)| {
            let (codes, coded) = queries.row(query);
            let sum: i32 = codes.iter().map(|&code| i32::from(code)).sum();
            let look = Look::new(coded, base.error_with(coded));
            (look, -i32::from(WHOLE_ZERO) * sum)
        });
        let unit = f64::from(code.scale);
        Self {
            first: Look::new(&code, base.error_with(queries, query)),
            rest: (f64::from(rest) / unit * (1.0 + 1e-6)) as f32,
            one: (1.0 / unit) as f32,
            second,
            along_origin: queries.along_origin(query),
        }
    }

    fn set_bar(&mut self, threshold: f64) {
        self.first.set_bar(threshold - self.along_origin);
    }

    /// Upper bounds of a panel's scores, in units of the first look and without its error.
    #[inline(always)]
    fn upper<I: Isa>(&self, isa: I, products: &[i32; PANEL], rows: &PanelBounds) -> [f32; PANEL] {
        let (length, rest, one) = (self.first.length, self.rest, self.one);
        let mut upper = [0.0f32; PANEL];
        for j in 0..PANEL {
            let value = products[j] as f32 * rows.scales[j];
            let reach = isa.mul_add(rows.residuals[j], length, rows.rests[j] * rest);
            upper[j] = value + isa.mul_add(rows.shifts[j], one, reach);
        }
        upper
    }
}

/// What is known of a query while the panels pass.
struct Search {
    /// No score below this is among the k nearest.
    threshold: f64,
    /// Lower bounds: the k largest and some that came since.
    lows: Vec<f64>,
    /// Base rows that were not ruled out when they passed, with their upper bounds.
    candidates: Vec<(u32, f64)>,
}

impl Search {
    fn new(k: usize, floor: f64) -> Self {
        Self {
            threshold: floor,
            lows: Vec::with_capacity(2 * k + PANEL),
            candidates: Vec::new(),
        }
    }

    /// Takes a base row whose score lies in [low, high]. Returns whether the threshold rose.
    fn take(&mut self, k: usize, row: u32, low: f64, high: f64) -> bool {
        self.candidates.push((row, high));
        self.lows.push(low);
        self.lows.len() >= 2 * k + PANEL && self.raise(k)
    }

    /// Raises the threshold to the k-th largest lower bound.
    fn raise(&mut self, k: usize) -> bool {
        if k == 0 || self.lows.len() < k {
            return false;
        }
        let (_, &mut low, _) = self
            .lows
            .select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        self.lows.truncate(k);
        let rises = low > self.threshold;
        if rises {
            self.threshold = low;
        }
        rises
    }
}

/// Some queries against some panels of base rows.
struct Screen<'a> {
    queries: &'a Codes,
    base: &'a Codes,
    /// Where the base's codes begin in the tile.
    first_row: usize,
    panels: Range<usize>,
    request: NearestRequest<'a>,
    /// A multiple of the group.
    first_query: usize,
    searches: &'a mut [Search],
}

impl Job for Screen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            queries,
            base,
            first_row,
            panels,
            request,
            first_query,
            searches,
        } = self;
        let mut views: Vec<View> = searches
            .iter_mut()
            .enumerate()
            .map(|(i, search)| {
                let query = first_query + i;
                let mut view = View::new(query, queries, base);
                view.set_bar(search.threshold);
                view
            })
            .collect();
        let mut tile = CodeTile([[0; PANEL]; GROUP]);
        for panel in panels {
            let (lanes, bounds) = base.panel(panel);
            let groups = views.chunks_mut(GROUP).zip(searches.chunks_mut(GROUP));
            for (g, (views, searches)) in groups.enumerate() {
                let (codes, offsets) = queries.group(first_query / GROUP + g);
                isa.code_products(codes, lanes, offsets, &mut tile);
                for (i, (view, search)) in views.iter_mut().zip(searches).enumerate() {
                    let upper = view.upper(isa, &tile.0[i], bounds);
                    let mut reached = isa.reached(&upper, view.first.bar);
                    let query = first_query + g * GROUP + i;
                    while reached != 0 {
                        let j = reached.trailing_zeros() as usize;
                        reached &= reached - 1;
                        let coded_row = panel * PANEL + j;
                        let row = first_row + coded_row;
                        // The bar may have risen since.
                        if upper[j] < view.first.bar
                            || coded_row >= base.rows()
                            || request.excludes(query, row)
                        {
                            continue;
                        }
                        let second = view.second.as_ref().zip(base.whole().zip(queries.whole()));
                        let (value, reach, look) = match second {
                            Some(((look, offset), (base, queries))) => {
                                let (y, coded) = base.row(coded_row);
                                let product = isa.code_product(queries.row(query).0, y, *offset);
                                let reach = coded.residual * look.length;
                                (product as f32 * coded.scale, reach, look)
                            }
                            None => (
                                tile.0[i][j] as f32 * bounds.scales[j],
                                bounds.residuals[j] * view.first.length,
                                &view.first,
                            ),
                        };
                        let middle = f64::from(value) * look.unit
                            + f64::from(bounds.shifts[j])
                            + view.along_origin;
                        let reach = f64::from(reach) * look.unit + look.error;
                        if middle + reach >= search.threshold
                            && search.take(request.k, row as u32, middle - reach, middle + reach)
                        {
                            view.set_bar(search.threshold);
                        }
                    }
                }
            }
        }
    }
}

/// How many pairs of some queries and a panel a first look would leave.
struct Count<'a> {
    queries: &'a Codes,
    base: &'a Codes,
    panel: usize,
    /// A multiple of the group.
    first_query: usize,
    /// Of one group.
    searches: &'a [Search],
}

impl Job for Count<'_> {
    type Output = u32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> u32 {
        let mut tile = CodeTile([[0; PANEL]; GROUP]);
        let (lanes, bounds) = self.base.panel(self.panel);
        let (codes, offsets) = self.queries.group(self.first_query / GROUP);
        isa.code_products(codes, lanes, offsets, &mut tile);
        let mut reached = 0;
        for (i, search) in self.searches.iter().enumerate() {
            let mut view = View::new(self.first_query + i, self.queries, self.base);
            view.set_bar(search.threshold);
            let upper = view.upper(isa, &tile.0[i], bounds);
            reached += isa.reached(&upper, view.first.bar).count_ones();
        }
        reached
    }
}

/// Exact scores of what was not ruled out for some queries.
struct Score<'a> {
    request: NearestRequest<'a>,
    first_query: usize,
    searches: &'a mut [Search],
    lists: &'a mut [TopK],
}

impl Job for Score<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Self {
            request,
            first_query,
            searches,
            lists,
        } = self;
        for (i, (search, list)) in searches.iter_mut().zip(lists).enumerate() {
            search.raise(request.k);
            let query = first_query + i;
            let (x, x_norm, floor) = (
                request.queries.row(query),
                request.query_norms[query],
                request.floors[query],
            );
            *list = TopK::new(request.k);
            // From the most promising on, until none can enter the list any more.
            search
                .candidates
                .retain(|&(_, upper)| upper >= search.threshold);
            search
                .candidates
                .sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
            let unit = request.query_scales[query];
            for &(row, upper) in &search.candidates {
                // A bound on the product of prepared rows; in units of scores, rounded up.
                if upper * unit * (1.0 + 1e-12_f64.copysign(upper)) < list.floor() {
                    break;
                }
                let (y, y_norm) = (
                    request.base.row(row as usize),
                    request.base_norms[row as usize],
                );
                let product = isa.dot(x, y);
                let exact = score::similarity_of(request.metric, product, x_norm, y_norm);
                if exact >= floor {
                    list.offer(exact, request.first_base_row + row);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::axes::Rotation;
    use super::*;
    use crate::embeddings::F32Rows;
    use crate::engine::score::{norms, prepare};
    use crate::engine::tiles::Operation;
    use crate::engine::{Metric, SearchExtent, SelfExclusion};
    use crate::stats::rng::Philox;

    /// Rows in topics around a common mean, most of their length in few directions.
    fn rows(n: usize, dim: usize, stream: u64) -> Vec<f32> {
        let mut shared = Philox::new(9, 0);
        let spread: Vec<f32> = (0..dim).map(|k| 1.0 / (1.0 + k as f32 / 4.0)).collect();
        let mean: Vec<f32> = (0..dim).map(|_| 0.3 * shared.normal() as f32).collect();
        let topics: Vec<f32> = (0..20 * dim).map(|_| shared.normal() as f32).collect();
        let mut rng = Philox::new(9, stream);
        let mut values = Vec::with_capacity(n * dim);
        for row in 0..n {
            let topic = &topics[row % 20 * dim..][..dim];
            let length = 10f32.powf(rng.uniform() as f32 * 2.0 - 1.0);
            for k in 0..dim {
                let own = rng.normal() as f32;
                values.push(length * (mean[k] + spread[k] * (topic[k] + 0.5 * own)));
            }
        }
        values
    }

    /// The first m coordinates, in a mixed basis, from an origin of some length.
    fn some_axes(dim: usize, m: usize, mean: &[f32]) -> Frames {
        let rotation = Rotation::of_coordinates(dim, m);
        Frames {
            whole: Axes::centred(mean.to_vec(), None).into(),
            turned: Some(Axes::centred(mean.to_vec(), Some(rotation)).into()),
        }
    }

    struct Sets {
        queries: Vec<f32>,
        base: Vec<f32>,
        dim: usize,
        metric: Metric,
    }

    impl Sets {
        /// Calls `f` with the request of the whole search and its blocks.
        fn search<T>(
            &self,
            k: usize,
            exclude: Option<SelfExclusion<'_>>,
            f: impl FnOnce(NearestRequest<'_>, [Vec<f32>; 2]) -> T,
        ) -> T {
            let queries = F32Rows::new(&self.queries, self.dim);
            let base = F32Rows::new(&self.base, self.dim);
            let (query_norms, base_norms) = (norms(queries), norms(base));
            let longest = base_norms.iter().copied().fold(0.0, f64::max);
            let exponent = score::unit_exponent(longest);
            let scales: Vec<f64> = match self.metric {
                Metric::Cosine => vec![1.0; queries.len()],
                Metric::Dot => query_norms
                    .iter()
                    .map(|n| n * 2f64.powi(-exponent))
                    .collect(),
            };
            let prepared = [
                prepare(Metric::Cosine, queries, &query_norms, 0),
                prepare(self.metric, base, &base_norms, exponent),
            ];
            let request = NearestRequest {
                search: SearchExtent {
                    number: usize::MAX,
                    queries: queries.len(),
                    base_rows: base.len(),
                },
                k,
                metric: self.metric,
                queries,
                base,
                query_norms: &query_norms,
                base_norms: &base_norms,
                query_scales: &scales,
                floors: &vec![f64::NEG_INFINITY; queries.len()],
                first_base_row: 0,
                exclude,
                screen_error: 1e-4,
            };
            f(request, prepared)
        }
    }

    fn mean(values: &[f32], dim: usize) -> Vec<f32> {
        let rows = values.len() / dim;
        let sum = |k: usize| values.iter().skip(k).step_by(dim).sum::<f32>();
        (0..dim).map(|k| sum(k) / rows as f32).collect()
    }

    fn exact(request: &NearestRequest<'_>) -> Vec<TopK> {
        let list = |query: usize| {
            let mut list = TopK::new(request.k);
            for row in 0..request.base.len() {
                if !request.excludes(query, row) {
                    let (x, y) = (request.queries.row(query), request.base.row(row));
                    let (nx, ny) = (request.query_norms[query], request.base_norms[row]);
                    list.offer(score::similarity(request.metric, x, nx, y, ny), row as u32);
                }
            }
            list
        };
        (0..request.queries.len()).map(list).collect()
    }

    /// The exact lists whatever the frame: fitting axes, axes that leave nearly everything, an origin far
    /// from the rows.
    #[test]
    fn every_frame_gives_the_exact_lists() {
        for (dim, m, metric) in [
            (96, 32, Metric::Cosine),
            (100, 64, Metric::Dot),
            (130, 32, Metric::Cosine),
        ] {
            let sets = Sets {
                queries: rows(37, dim, 1),
                base: rows(2500, dim, 2),
                dim,
                metric,
            };
            let groups: Vec<u32> = (0..2500).collect();
            let exclude = SelfExclusion {
                queries: &groups[..37],
                base: &groups,
            };
            for (k, exclude) in [(1, None), (10, Some(exclude)), (100, None)] {
                sets.search(k, exclude, |request, [queries, base]| {
                    let expected = exact(&request);
                    for kernel in Kernel::available() {
                        if !kernel.has_code_products() {
                            continue;
                        }
                        let block = |values: &[f32]| {
                            let values = Arc::new(values.to_vec());
                            CpuBlock::new(kernel, Operation::Nearest, &values, dim)
                        };
                        for origin in [mean(&base, dim), vec![0.0; dim], vec![0.1; dim]] {
                            let frames = some_axes(dim, m, &origin);
                            let (queries, base) = (block(&queries), block(&base));
                            let found = nearest(kernel, &queries, &base, &frames, request);
                            assert_eq!(found, expected, "{} d {dim} k {k}", kernel.name());

                            // Few axes from the first row on, however little they rule out.
                            let turned = frames.turned.as_ref().expect("asked for");
                            let mut pass = Pass::new(kernel, request, 0..queries.rows());
                            let panels = base.rows().div_ceil(PANEL);
                            let (x, y) =
                                (queries.codes(kernel, turned), base.codes(kernel, turned));
                            pass.over(&x, &y, 0, 0..panels);
                            assert_eq!(pass.score(), expected, "{} d {dim} k {k}", kernel.name());
                        }
                    }
                });
            }
        }
    }

    /// So many neighbours that the searches of all queries would take too much memory at once.
    #[test]
    fn queries_are_searched_for_in_parts() {
        let (dim, k) = (48, 40_000);
        assert!(SEARCH_BYTES / (64 * k) < TASK && TASK < 300);
        let sets = Sets {
            queries: rows(300, dim, 5),
            base: rows(700, dim, 6),
            dim,
            metric: Metric::Cosine,
        };
        sets.search(k, None, |request, prepared| {
            let kernel = Kernel::available()[0];
            let [queries, base] = prepared
                .map(|values| CpuBlock::new(kernel, Operation::Nearest, &Arc::new(values), dim));
            let frames = some_axes(dim, 32, &vec![0.0; dim]);
            let found = nearest(kernel, &queries, &base, &frames, request);
            assert_eq!(found, exact(&request));
        });
    }

    /// Scores of prepared rows lie within the bounds that both looks give, and would not if what the axes
    /// leave were forgotten.
    #[test]
    fn bounds_hold_every_score() {
        let dim = 96;
        let (x, y) = (rows(40, dim, 3), rows(200, dim, 4));
        let sets = Sets {
            queries: x,
            base: y,
            dim,
            metric: Metric::Cosine,
        };
        sets.search(1, None, |_, [x, y]| {
            let kernel = Kernel::available()[0];
            let (x, y) = (F32Rows::new(&x, dim), F32Rows::new(&y, dim));
            let frames = some_axes(dim, 32, &mean(y.values(), dim));
            let turned = frames.turned.expect("asked for");
            let (queries, base) = (
                Codes::encode(kernel, &turned, x),
                Codes::encode(kernel, &turned, y),
            );
            queries.turn_to_queries();
            let mut beyond = 0;
            for query in 0..x.len() {
                let view = View::new(query, &queries, &base);
                for row in 0..y.len() {
                    let score = score::dot(x.row(query), y.row(row));
                    let bounds = base.panel(row / PANEL).1;
                    let at = row % PANEL;
                    let common = f64::from(bounds.shifts[at]) + view.along_origin;
                    let product = f64::from(queries.code_product_with(query, &base, row));
                    let first = product * f64::from(bounds.scales[at]) * view.first.unit + common;
                    let reach = f64::from(bounds.residuals[at] * view.first.length)
                        * view.first.unit
                        + view.first.error;
                    let rest = f64::from(bounds.rests[at] * view.rest) * view.first.unit;
                    assert!((score - first).abs() <= reach + rest, "{query}, {row}");
                    beyond += usize::from((score - first).abs() > reach);

                    let (second, offset) = view.second.as_ref().expect("axes leave something");
                    let (codes, coded) = base.whole().expect("encoded").row(row);
                    let of_query = queries.whole().expect("encoded").row(query).0;
                    let product = plain(of_query, codes, *offset, kernel);
                    let value = f64::from(product) * f64::from(coded.scale) * second.unit + common;
                    let reach =
                        f64::from(coded.residual * second.length) * second.unit + second.error;
                    assert!((score - value).abs() <= reach, "{query}, {row}");
                    assert!(reach < 0.1, "a bound that says something");
                }
            }
            assert!(beyond > 1000, "{beyond} of 8000 need the rest");
        });
    }

    struct Product<'a>(&'a [i8], &'a [i8], i32);

    impl Job for Product<'_> {
        type Output = i32;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> i32 {
            isa.code_product(self.0, self.1, self.2)
        }
    }

    fn plain(a: &[i8], b: &[i8], offset: i32, kernel: Kernel) -> i32 {
        kernel.run(Product(a, b, offset))
    }
}
