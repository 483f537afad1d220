//! Rows as 8-bit codes, and exactly how far the codes are from the rows.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::kernel::{Isa, Job, Kernel};
use crate::embeddings::Rows;

/// Base rows per panel.
pub(super) const PANEL: usize = 64;
/// Queries that are multiplied with a panel at once.
pub(super) const GROUP: usize = 6;
/// Coordinates that are multiplied at once.
const QUAD: usize = 4;
/// Coordinates that are encoded at once.
const STEP: usize = 16;
/// 3 · 2²².
const ROUNDER: f32 = 12_582_912.0;

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

/// Rows x as codes c and a scale s each: x = s·c + rest.
///
/// Codes are integers, so their products are exact and the same on every instruction set; what the
/// rounding to codes took is known per row. The base's form is `[panel][four coordinates][row]`.
pub(super) struct Codes {
    lanes: Vec<BaseLane>,
    /// Per row and padding row: s; 0 for padding.
    scales: Vec<f32>,
    /// ‖x − s·c‖, rounded up; −∞ for padding, so that it reaches no threshold.
    residuals: Vec<f32>,
    /// The largest ‖s·c‖, rounded up.
    longest: f32,
    rows: usize,
    quads: usize,
    zero: u8,
    queries: OnceLock<Queries>,
}

/// The same rows as queries: `[group][four coordinates][row]`.
struct Queries {
    lanes: Vec<QueryLane>,
    /// −`zero`·Σ code per row: what the offset of the base's codes adds to a product.
    offsets: Vec<[i32; GROUP]>,
}

/// A row's scale, ‖x − s·c‖ and ‖s·c‖, both rounded up.
type Bounds = (f32, f32, f32);

/// Codes of one panel's rows.
struct Encode<'a> {
    form: CodeForm,
    rows: Rows<'a>,
    lanes: &'a mut [BaseLane],
    bounds: &'a mut [Bounds],
}

impl Job for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let CodeForm {
            largest: largest_code,
            zero,
        } = self.form;
        for (r, (row, bounds)) in self.rows.iter().zip(self.bounds).enumerate() {
            let mut largest = [0.0f32; STEP];
            let (steps, last) = row.as_chunks::<STEP>();
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
            let scale = (largest / f32::from(largest_code)).max(f32::MIN_POSITIVE);
            let inverse = 1.0 / scale;
            let (mut rest, mut held) = ([0.0f64; STEP], [0.0f64; STEP]);
            let mut encode = |lanes: &mut [BaseLane], values: &[f32; STEP]| {
                let mut codes = [0u8; STEP];
                for i in 0..STEP {
                    // Values up to 2²² have no fraction left after this sum, and their last bits are
                    // the nearest integer: what a conversion would give, in two cheap instructions.
                    let shifted = values[i] * inverse + ROUNDER;
                    codes[i] = (shifted.to_bits() as u8).wrapping_add(zero);
                    let value = f64::from(scale) * f64::from(shifted - ROUNDER);
                    let off = f64::from(values[i]) - value;
                    rest[i] += off * off;
                    held[i] += value * value;
                }
                for (lane, codes) in lanes.iter_mut().zip(codes.as_chunks().0) {
                    lane.0[r] = *codes;
                }
            };
            let (whole, tail) = self.lanes.split_at_mut(steps.len() * (STEP / QUAD));
            for (lanes, values) in whole.chunks_exact_mut(STEP / QUAD).zip(steps) {
                encode(lanes, values);
            }
            let mut values = [0.0; STEP];
            values[..last.len()].copy_from_slice(last);
            encode(tail, &values);
            // f64 sums are good to 10⁻¹², the conversion to f32 to 2⁻²⁴.
            let up = |sums: [f64; STEP]| (sums.iter().sum::<f64>().sqrt() * (1.0 + 1e-6)) as f32;
            *bounds = (scale, up(rest), up(held));
        }
    }
}

impl Codes {
    /// Most coordinates whose products an i32 holds: 255 · 127 each.
    pub(super) const WIDEST: usize = 1 << 16;

    /// Encodes rows as `kernel` multiplies them, on the current thread pool.
    pub(super) fn encode(kernel: Kernel, rows: Rows<'_>) -> Self {
        let (dim, quads) = (rows.dim(), rows.dim().div_ceil(QUAD));
        assert!(dim <= Self::WIDEST);
        let form = kernel.code_form();
        let padded = rows.len().next_multiple_of(PANEL);
        let mut lanes = vec![BaseLane([[form.zero; QUAD]; PANEL]); padded / PANEL * quads];
        let mut bounds = vec![(0.0, f32::NEG_INFINITY, 0.0); padded];
        lanes
            .par_chunks_exact_mut(quads)
            .zip(bounds.par_chunks_exact_mut(PANEL))
            .zip(rows.values().par_chunks(PANEL * dim))
            .for_each(|((lanes, bounds), values)| {
                let rows = Rows::new(values, dim);
                kernel.run(Encode {
                    form,
                    rows,
                    lanes,
                    bounds,
                });
            });
        Self {
            lanes,
            scales: bounds.iter().map(|b| b.0).collect(),
            residuals: bounds.iter().map(|b| b.1).collect(),
            longest: bounds.iter().map(|b| b.2).fold(0.0, f32::max),
            rows: rows.len(),
            quads,
            zero: form.zero,
            queries: OnceLock::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// The largest ‖s·c‖.
    pub(super) fn longest(&self) -> f32 {
        self.longest
    }

    /// Scale and residual of a row.
    pub(super) fn bounds(&self, row: usize) -> (f32, f32) {
        (self.scales[row], self.residuals[row])
    }

    /// Number of panels.
    pub(super) fn panels(&self) -> usize {
        self.scales.len() / PANEL
    }

    /// A panel: its lanes, scales and residuals.
    #[inline(always)]
    pub(super) fn panel(&self, panel: usize) -> (&[BaseLane], &[f32; PANEL], &[f32; PANEL]) {
        let whole = "rows are padded to whole panels";
        (
            &self.lanes[panel * self.quads..(panel + 1) * self.quads],
            self.scales[panel * PANEL..].first_chunk().expect(whole),
            self.residuals[panel * PANEL..].first_chunk().expect(whole),
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
            let (panel, _, _) = self.codes.panel(self.panel);
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
                let codes = Codes::encode(kernel, Rows::new(&values, dim));
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
                let rows = Rows::new(&values, dim);
                let codes = Codes::encode(kernel, rows);
                for (r, row) in rows.iter().enumerate() {
                    let (scale, residual) = codes.bounds(r);
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
                let padding = codes.panel(1);
                assert_eq!((padding.1[6], padding.2[6]), (0.0, f32::NEG_INFINITY));
            }
        }
    }
}
