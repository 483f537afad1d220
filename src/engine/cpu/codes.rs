//! Rows as 8-bit codes, and exactly how far the codes are from the rows.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::axes::{Axes, Rotation};
use super::kernel::{Isa, Job, Kernel};
use super::panels::{LANES, Lane};
use super::product::{SIDE, Tile, UNWRITTEN};
use crate::embeddings::F32Rows;

/// Base rows per panel.
pub(super) const PANEL: usize = 64;
/// Queries that are multiplied with a panel at once.
pub(super) const GROUP: usize = 6;
/// Coordinates that are multiplied at once.
const QUAD: usize = 4;
/// Coordinates that are encoded at once.
const STEP: usize = 16;
/// Whole codes of a row are filled up with 0 to a multiple of this.
pub(super) const WHOLE: usize = 64;
/// 3 · 2²².
const ROUNDER: f32 = 12_582_912.0;
/// The largest code of whole rows.
const WHOLE_LARGEST: i8 = 127;
/// What instructions that want one side unsigned add to the codes of whole rows.
pub(super) const WHOLE_ZERO: u8 = 128;
/// The smallest scale, 2⁻⁶⁰: far below what matters beside lengths of 1, and with a reciprocal that f32
/// products have room for. Codes of smaller values are 0.
const LEAST_SCALE: f32 = 8.673_617_4e-19;

/// The codes that a kernel multiplies: integers from −`largest` to `largest`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CodeForm {
    pub(super) largest: i8,
    /// What is added to the codes of base rows, for instructions that want them unsigned.
    pub(super) zero: u8,
}

/// Four coordinates of a panel's rows, each code + `zero`.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct BaseLane(pub(super) [[u8; QUAD]; PANEL]);

/// Four coordinates of a group of queries.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(4))]
pub(super) struct QueryLane(pub(super) [[i8; QUAD]; GROUP]);

impl QueryLane {
    /// The four codes of query `i` as one number, for instructions that repeat one.
    #[inline(always)]
    pub(super) fn four(&self, i: usize) -> i32 {
        let [a, b, c, d] = self.0[i];
        i32::from_ne_bytes([a as u8, b as u8, c as u8, d as u8])
    }
}

/// Products of the codes of a group of queries with those of a panel.
#[repr(C, align(64))]
pub(super) struct CodeTile(pub(super) [[i32; PANEL]; GROUP]);

/// Values v as codes c of one scale s: v = s·c + rest.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Coded {
    pub(super) scale: f32,
    /// ‖v − s·c‖, rounded up.
    pub(super) residual: f32,
    /// ‖v‖, rounded up.
    pub(super) length: f32,
    /// ‖s·c‖, rounded up.
    held: f32,
}

/// What is known of a panel's rows beside their codes. Padding has a residual of −∞, so that it reaches
/// no threshold.
#[derive(Debug, Clone)]
#[repr(C, align(64))]
pub(super) struct PanelBounds {
    pub(super) scales: [f32; PANEL],
    pub(super) residuals: [f32; PANEL],
    /// What the axes leave, ‖x⊥‖, rounded up.
    pub(super) rests: [f32; PANEL],
    /// x·μ − ‖μ‖².
    pub(super) shifts: [f32; PANEL],
    /// ‖R(x − μ)‖, rounded up.
    lengths: [f32; PANEL],
}

impl PanelBounds {
    const PADDING: Self = Self {
        scales: [0.0; PANEL],
        residuals: [f32::NEG_INFINITY; PANEL],
        rests: [0.0; PANEL],
        shifts: [0.0; PANEL],
        lengths: [0.0; PANEL],
    };
}

/// Rows of a block in the frame of [`Axes`], as codes.
///
/// Codes are integers, so their products are exact and the same on every instruction set; what the
/// rounding to codes took is known per row. The base's form is `[panel][four coordinates][row]`.
pub(super) struct Codes {
    lanes: Vec<BaseLane>,
    bounds: Vec<PanelBounds>,
    /// The largest ‖s·c‖.
    longest: f32,
    /// Where axes leave something: all coordinates of x − μ.
    whole: Option<Whole>,
    rows: usize,
    quads: usize,
    zero: u8,
    /// ‖μ‖².
    sq_origin: f64,
    /// Bound on what the axes' own roundings add to a product of two rows of length 1.
    skew: f64,
    queries: OnceLock<Queries>,
}

/// All coordinates of rows, row by row, as codes.
pub(super) struct Whole {
    codes: Vec<i8>,
    coded: Vec<Coded>,
    stride: usize,
    /// The largest ‖s·c‖.
    longest: f32,
    /// The largest ‖x − μ‖.
    largest: f32,
}

/// The same rows as queries: `[group][four coordinates][row]`.
struct Queries {
    lanes: Vec<QueryLane>,
    /// −`zero`·Σ code per row: what the offset of the base's codes adds to a product.
    offsets: Vec<[i32; GROUP]>,
}

/// Encodes values; `put` takes sixteen codes at a time, filled up with 0.
#[inline(always)]
fn encode(values: &[f32], largest_code: i8, mut put: impl FnMut(usize, &[i8; STEP])) -> Coded {
    let mut largest = [0.0f32; STEP];
    let (steps, last) = values.as_chunks::<STEP>();
    for values in steps {
        for i in 0..STEP {
            let size = values[i].abs();
            largest[i] = if size > largest[i] { size } else { largest[i] };
        }
    }
    let largest = largest
        .iter()
        .chain(last)
        .fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = (largest / f32::from(largest_code)).max(LEAST_SCALE);
    let inverse = 1.0 / scale;
    let (mut rest, mut held, mut all) = ([0.0f64; STEP], [0.0f64; STEP], [0.0f64; STEP]);
    let whole = steps.len();
    let mut filled_up = [0.0; STEP];
    filled_up[..last.len()].copy_from_slice(last);
    // One loop rather than a closure called twice, which would not be inlined.
    for at in 0..whole + usize::from(!last.is_empty()) {
        let values = if at < whole { &steps[at] } else { &filled_up };
        let mut codes = [0i8; STEP];
        for i in 0..STEP {
            // Values up to 2²² have no fraction left after this sum, and their last bits are the nearest
            // integer: what a conversion would give, in two cheap instructions.
            let shifted = values[i] * inverse + ROUNDER;
            codes[i] = shifted.to_bits() as i8;
            let v = f64::from(values[i]);
            let value = f64::from(scale) * f64::from(shifted - ROUNDER);
            let off = v - value;
            rest[i] += off * off;
            held[i] += value * value;
            all[i] += v * v;
        }
        put(at, &codes);
    }
    let up = |sums: [f64; STEP]| up(sums.iter().sum::<f64>().sqrt());
    Coded {
        scale,
        residual: up(rest),
        length: up(all),
        held: up(held),
    }
}

/// To f32, never down. Sums in f64 are good to 10⁻¹², the conversion to 2⁻²⁴.
fn up(value: f64) -> f32 {
    (value * (1.0 + 1e-6)) as f32
}

/// Room for the rows of a panel on their way.
struct Scratch {
    /// x − μ, row-major.
    centred: Vec<f32>,
    /// The same in panels of 16 rows.
    lanes: Vec<Lane>,
    /// R(x − μ), row-major.
    turned: Vec<f32>,
    tile: Box<Tile>,
}

impl Scratch {
    fn new(axes: &Axes) -> Self {
        let dim = axes.origin.len();
        let turned = axes.rotation.as_ref().map_or(0, |r| r.rows.rows());
        Self {
            centred: vec![0.0; PANEL * dim],
            lanes: if turned > 0 {
                vec![Lane([0.0; LANES]); PANEL / LANES * dim]
            } else {
                Vec::new()
            },
            turned: vec![0.0; PANEL * turned],
            tile: Tile::new(UNWRITTEN),
        }
    }
}

/// Codes of one panel's rows.
struct Encode<'a> {
    form: CodeForm,
    axes: &'a Axes,
    rows: F32Rows<'a>,
    lanes: &'a mut [BaseLane],
    bounds: &'a mut PanelBounds,
    whole: Option<(&'a mut [i8], &'a mut [Coded])>,
    scratch: &'a mut Scratch,
}

impl Job for Encode<'_> {
    /// The largest ‖s·c‖ of the first look.
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let Self {
            form,
            axes,
            rows,
            lanes,
            bounds,
            whole,
            scratch,
        } = self;
        let (count, dim) = (rows.len(), rows.dim());
        for (r, (row, to)) in rows
            .iter()
            .zip(scratch.centred.chunks_exact_mut(dim))
            .enumerate()
        {
            for k in 0..dim {
                to[k] = row[k] - axes.origin[k];
            }
            bounds.shifts[r] = (isa.dot(row, &axes.origin) - axes.sq_origin) as f32;
        }
        let turned = axes.rotation.as_ref().zip(whole);
        let (width, lengths) = match turned {
            None => (dim, None),
            Some((rotation, (codes, coded))) => {
                let stride = codes.len() / count;
                for (r, codes) in codes.chunks_exact_mut(stride).enumerate() {
                    let values = &scratch.centred[r * dim..(r + 1) * dim];
                    coded[r] = encode(values, WHOLE_LARGEST, |at, from| {
                        codes[at * STEP..(at + 1) * STEP].copy_from_slice(from);
                    });
                }
                turn(isa, rotation, count, dim, scratch);
                (rotation.rows.rows(), Some((rotation, coded)))
            }
        };
        let values = match lengths {
            None => &scratch.centred,
            Some(_) => &scratch.turned,
        };
        let mut longest = 0.0f32;
        for r in 0..count {
            let coded = encode(
                &values[r * width..(r + 1) * width],
                form.largest,
                |at, codes| {
                    let (quads, _) = codes.as_chunks::<QUAD>();
                    for (lane, codes) in lanes[at * (STEP / QUAD)..].iter_mut().zip(quads) {
                        for i in 0..QUAD {
                            lane.0[r][i] = (codes[i] as u8).wrapping_add(form.zero);
                        }
                    }
                },
            );
            bounds.scales[r] = coded.scale;
            bounds.residuals[r] = coded.residual;
            bounds.lengths[r] = coded.length;
            longest = longest.max(coded.held);
            if let Some((rotation, all)) = &lengths {
                bounds.rests[r] = rotation.rest(all[r].length, coded.length);
            }
        }
        longest
    }
}

/// R(x − μ) of the first `count` centred rows.
#[inline(always)]
fn turn<I: Isa>(isa: I, rotation: &Rotation, count: usize, dim: usize, scratch: &mut Scratch) {
    let axes = rotation.rows.rows();
    let panels = count.div_ceil(LANES);
    for r in 0..panels * LANES {
        let panel = &mut scratch.lanes[r / LANES * dim..(r / LANES + 1) * dim];
        let row = &scratch.centred[r * dim..(r + 1) * dim];
        for (lane, &value) in panel.iter_mut().zip(row) {
            lane.0[r % LANES] = value;
        }
    }
    for first in (0..axes).step_by(SIDE) {
        let columns = SIDE.min(axes - first);
        let b = rotation.rows.lanes(first, first + columns);
        for panel in 0..panels {
            let a = &scratch.lanes[panel * dim..(panel + 1) * dim];
            for (pair, b) in b.chunks(2 * dim).enumerate() {
                let (row, column) = (panel * LANES, pair * 2 * LANES);
                isa.panel_product(a, b, dim, &mut scratch.tile, row, column);
            }
        }
        for r in 0..count {
            scratch.turned[r * axes + first..r * axes + first + columns]
                .copy_from_slice(&scratch.tile.row(r)[..columns]);
        }
    }
}

impl Rotation {
    /// Bound on what a row of length `all` has beyond the axes, of which `within` was computed:
    /// ‖x⊥‖² = ‖x‖² − ‖Rx‖² + Rx·(RRᵀ − I)Rx.
    fn rest(&self, all: f32, within: f32) -> f32 {
        let (all, within) = (f64::from(all), f64::from(within));
        let within = within * (1.0 - 2e-6) - self.rounding * all;
        let rest = all * all - within.max(0.0).powi(2) + self.skew * all * all;
        up(rest.max(0.0).sqrt())
    }
}

impl Codes {
    /// Most coordinates whose products an i32 holds: 255 · 127 each.
    pub(super) const WIDEST: usize = 1 << 16;

    /// Encodes rows no longer than 1 as `kernel` multiplies them, on the current thread pool.
    pub(super) fn encode(kernel: Kernel, axes: &Axes, rows: F32Rows<'_>) -> Self {
        let (dim, quads) = (rows.dim(), axes.len().div_ceil(QUAD));
        assert!(dim <= Self::WIDEST);
        let form = kernel.code_form();
        let panels = rows.len().div_ceil(PANEL);
        let mut lanes = vec![BaseLane([[form.zero; QUAD]; PANEL]); panels * quads];
        let mut bounds = vec![PanelBounds::PADDING; panels];
        let stride = dim.next_multiple_of(WHOLE);
        let turned = axes.rotation.is_some();
        let mut whole = Whole {
            codes: vec![0; if turned { rows.len() * stride } else { 0 }],
            coded: vec![Coded::default(); if turned { rows.len() } else { 0 }],
            stride,
            longest: 0.0,
            largest: 0.0,
        };
        let wholes: Vec<Option<_>> = if turned {
            let codes = whole.codes.chunks_mut(PANEL * stride);
            codes.zip(whole.coded.chunks_mut(PANEL)).map(Some).collect()
        } else {
            (0..panels).map(|_| None).collect()
        };
        let longest = lanes
            .par_chunks_exact_mut(quads)
            .zip(&mut bounds)
            .zip(wholes)
            .zip(rows.values().par_chunks(PANEL * dim))
            .map_init(
                || Scratch::new(axes),
                |scratch, (((lanes, bounds), whole), values)| {
                    kernel.run(Encode {
                        form,
                        axes,
                        rows: F32Rows::new(values, dim),
                        lanes,
                        bounds,
                        whole,
                        scratch,
                    })
                },
            )
            .reduce(|| 0.0, f32::max);
        whole.longest = whole.coded.iter().map(|c| c.held).fold(0.0, f32::max);
        whole.largest = whole.coded.iter().map(|c| c.length).fold(0.0, f32::max);
        Self {
            lanes,
            bounds,
            longest,
            whole: turned.then_some(whole),
            rows: rows.len(),
            quads,
            zero: form.zero,
            sq_origin: axes.sq_origin,
            skew: axes
                .rotation
                .as_ref()
                .map_or(0.0, |r| r.skew + 2.1 * r.rounding),
            queries: OnceLock::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Bound on what the first look at a query, of `queries`, and any of these rows misses, beside
    /// ‖x‖‖f‖ and ‖x⊥‖‖y⊥‖: ‖e‖·max ‖ŷ‖ and the axes' roundings.
    pub(super) fn error_with(&self, queries: &Self, query: usize) -> f64 {
        let residual = f64::from(queries.row(query).0.residual);
        let skew = match (&self.whole, &queries.whole) {
            (Some(base), Some(queries)) => {
                self.skew * f64::from(base.largest) * f64::from(queries.coded[query].length)
            }
            _ => 0.0,
        };
        residual * f64::from(self.longest) + skew
    }

    /// All coordinates, where the axes leave something.
    pub(super) fn whole(&self) -> Option<&Whole> {
        self.whole.as_ref()
    }

    /// x·μ of a row.
    pub(super) fn along_origin(&self, row: usize) -> f64 {
        f64::from(self.bounds[row / PANEL].shifts[row % PANEL]) + self.sq_origin
    }

    /// A row's code and ‖x⊥‖.
    pub(super) fn row(&self, row: usize) -> (Coded, f32) {
        let (bounds, r) = (&self.bounds[row / PANEL], row % PANEL);
        let coded = Coded {
            scale: bounds.scales[r],
            residual: bounds.residuals[r],
            length: bounds.lengths[r],
            held: self.longest,
        };
        (coded, bounds.rests[r])
    }

    /// A panel: its lanes and what else is known of its rows.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> (&[BaseLane], &PanelBounds) {
        (
            &self.lanes[panel * self.quads..(panel + 1) * self.quads],
            &self.bounds[panel],
        )
    }

    /// Makes the form that [`group`](Self::group) hands out, on the current thread pool.
    pub(super) fn turn_to_queries(&self) {
        self.queries.get_or_init(|| self.as_queries());
    }

    /// A group of rows as queries: lanes and offsets.
    ///
    /// # Panics
    /// Before [`turn_to_queries`](Self::turn_to_queries).
    #[inline(always)]
    pub(super) fn group(&self, group: usize) -> (&[QueryLane], &[i32; GROUP]) {
        let queries = self.queries.get().expect("turned to queries before");
        (
            &queries.lanes[group * self.quads..(group + 1) * self.quads],
            &queries.offsets[group],
        )
    }

    /// Product of a query's codes with a row's, from the forms that a panel product reads.
    #[cfg(test)]
    pub(super) fn code_product_with(&self, query: usize, base: &Self, row: usize) -> i32 {
        let (lanes, offsets) = self.group(query / GROUP);
        let (panel, _) = base.panel(row / PANEL);
        let mut tile = CodeTile([[0; PANEL]; GROUP]);
        plain_products(lanes, panel, offsets, &mut tile);
        tile.0[query % GROUP][row % PANEL]
    }

    fn as_queries(&self) -> Queries {
        let groups = self.rows.div_ceil(GROUP);
        let mut lanes = vec![QueryLane::default(); groups * self.quads];
        let mut offsets = vec![[0; GROUP]; groups];
        lanes
            .par_chunks_exact_mut(self.quads)
            .zip(offsets.par_iter_mut())
            .enumerate()
            .for_each(|(group, (lanes, offsets))| {
                for i in 0..GROUP.min(self.rows - group * GROUP) {
                    let row = group * GROUP + i;
                    let from = &self.lanes[row / PANEL * self.quads..];
                    let mut sum = 0;
                    for (to, from) in lanes.iter_mut().zip(from) {
                        let codes =
                            from.0[row % PANEL].map(|code| code.wrapping_sub(self.zero) as i8);
                        sum += codes.iter().copied().map(i32::from).sum::<i32>();
                        to.0[i] = codes;
                    }
                    offsets[i] = -i32::from(self.zero) * sum;
                }
            });
        Queries { lanes, offsets }
    }
}

impl Whole {
    /// A row's codes, a multiple of [`WHOLE`] of them.
    #[inline(always)]
    pub(super) fn row(&self, row: usize) -> (&[i8], &Coded) {
        let codes = &self.codes[row * self.stride..(row + 1) * self.stride];
        (codes, &self.coded[row])
    }

    /// ‖e‖·max ‖ŷ‖ of a query with e.
    pub(super) fn error_with(&self, query: &Coded) -> f64 {
        f64::from(query.residual) * f64::from(self.longest)
    }
}

/// Product of two rows' codes, in plain code.
#[inline(always)]
pub(super) fn plain_product(a: &[i8], b: &[i8]) -> i32 {
    let product = |(&a, &b): (&i8, &i8)| i32::from(a) * i32::from(b);
    a.iter().zip(b).map(product).sum()
}

/// Products of a group's codes with a panel's, in plain code.
#[inline(always)]
pub(super) fn plain_products(
    queries: &[QueryLane],
    panel: &[BaseLane],
    offsets: &[i32; GROUP],
    tile: &mut CodeTile,
) {
    for (sums, &offset) in tile.0.iter_mut().zip(offsets) {
        sums.fill(offset);
    }
    for (query, base) in queries.iter().zip(panel) {
        for (sums, query) in tile.0.iter_mut().zip(&query.0) {
            let query = query.map(i32::from);
            for (sum, base) in sums.iter_mut().zip(&base.0) {
                for i in 0..QUAD {
                    *sum += query[i] * i32::from(base[i]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    fn random(rows: usize, dim: usize) -> Vec<f32> {
        let mut rng = Philox::new(30, dim as u64);
        (0..rows * dim).map(|_| rng.normal() as f32).collect()
    }

    struct Products<'a> {
        codes: &'a Codes,
        group: usize,
        panel: usize,
    }

    impl Job for Products<'_> {
        type Output = Vec<i32>;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Vec<i32> {
            let (queries, offsets) = self.codes.group(self.group);
            let mut tile = CodeTile([[-1; PANEL]; GROUP]);
            let (panel, _) = self.codes.panel(self.panel);
            isa.code_products(queries, panel, offsets, &mut tile);
            tile.0.concat()
        }
    }

    /// Exact integers. The first rows hold the
    /// largest codes alone, of either sign: no sum on the way may overflow.
    #[test]
    fn every_kernel_multiplies_codes_exactly() {
        for dim in [1, 3, 4, 5, 17, 100, 383, 385, 1536] {
            let mut values = random(133, dim);
            for (i, value) in values[..12 * dim].iter_mut().enumerate() {
                *value = if i / dim % 3 == 0 { -0.5 } else { 0.5 };
            }
            for kernel in Kernel::available() {
                let codes = Codes::encode(kernel, &Axes::plain(dim), F32Rows::new(&values, dim));
                codes.turn_to_queries();
                assert_eq!(code(&codes, 0, 0), -i32::from(kernel.code_form().largest));
                for (group, panel) in [(0, 0), (1, 2), (21, 1), (22, 2)] {
                    let products = kernel.run(Products {
                        codes: &codes,
                        group,
                        panel,
                    });
                    for (at, &found) in products.iter().enumerate() {
                        let (query, base) =
                            (group * GROUP + at / PANEL, panel * PANEL + at % PANEL);
                        let exact: i32 = if query < 133 && base < 133 {
                            (0..dim)
                                .map(|k| code(&codes, query, k) * code(&codes, base, k))
                                .sum()
                        } else {
                            0
                        };
                        assert_eq!(found, exact, "{} d {dim}: {query}, {base}", kernel.name());
                    }
                }
            }
        }
    }

    /// Coordinate `k` of a row as code.
    fn code(codes: &Codes, row: usize, k: usize) -> i32 {
        let lane = codes.lanes[row / PANEL * codes.quads + k / QUAD];
        i32::from(lane.0[row % PANEL][k % QUAD].wrapping_sub(codes.zero) as i8)
    }

    #[test]
    fn bounds_hold_what_codes_lose() {
        for kernel in Kernel::available() {
            for scale in [1e-44f32, 1e-30, 1.0, 1e30] {
                let dim = 37;
                let values: Vec<f32> = random(70, dim).iter().map(|v| v * scale).collect();
                let rows = F32Rows::new(&values, dim);
                let codes = Codes::encode(kernel, &Axes::plain(dim), rows);
                for (r, row) in rows.iter().enumerate() {
                    let Coded {
                        scale, residual, ..
                    } = codes.row(r).0;
                    let square = |(k, &v): (usize, &f32)| {
                        (f64::from(v) - f64::from(scale) * f64::from(code(&codes, r, k))).powi(2)
                    };
                    let rest = row.iter().enumerate().map(square).sum::<f64>().sqrt();
                    // What f32 cannot hold at all, far below the prepared rows' length of 1.
                    let least = 1e-44;
                    let what = format!("{}, scale {scale:e}, row {r}", kernel.name());
                    assert!(rest <= f64::from(residual) + least, "{what}");
                    assert!(f64::from(residual) <= rest * 1.00001 + least, "{what}");
                }
                let padding = codes.panel(1).1;
                assert_eq!(
                    (padding.scales[6], padding.residuals[6]),
                    (0.0, f32::NEG_INFINITY)
                );
            }
        }
    }
}
