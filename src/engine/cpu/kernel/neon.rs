//! AArch64: NEON, and NEON with dot products of bytes.

use std::arch::aarch64::*;
use std::arch::asm;

use super::super::codes::{BaseLane, CodeForm, CodeTile, GROUP, PANEL, QueryLane, plain_products};
use super::super::panels::{LANES, Lane};
use super::super::product::Tile;
use super::Isa;

/// Made only inside code compiled for NEON.
#[derive(Clone, Copy)]
pub(super) struct Neon(pub(super) ());

/// Made only inside code compiled for NEON with dot products.
#[derive(Clone, Copy)]
pub(super) struct NeonDot(pub(super) ());

/// The codes that [`NeonDot`] multiplies: signed on both sides.
pub(super) const SIGNED: CodeForm = CodeForm {
    largest: 127,
    zero: 0,
};

impl Isa for Neon {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn panel_product(
        self,
        a: &[Lane],
        b: &[Lane],
        dim: usize,
        tile: &mut Tile,
        row: usize,
        column: usize,
    ) {
        for (panel, b) in b.chunks_exact(dim).enumerate() {
            let column = column + panel * LANES;
            // SAFETY: `self` exists only where NEON does.
            unsafe {
                quarter::<0, 0>(a, b, tile, row, column);
                quarter::<0, SQUARE>(a, b, tile, row, column);
                quarter::<SQUARE, 0>(a, b, tile, row, column);
                quarter::<SQUARE, SQUARE>(a, b, tile, row, column);
            }
        }
    }

    // Widening multiplications make half as many products per instruction as dot products and need
    // another to add them up: no faster than f32 on the processors that have nothing better.
    #[inline(always)]
    fn code_products(
        self,
        queries: &[QueryLane],
        panel: &[BaseLane],
        offsets: &[i32; GROUP],
        tile: &mut CodeTile,
    ) {
        plain_products(queries, panel, offsets, tile);
    }
}

/// Rows and columns per pass: sixteen sums hide the latency of four units, and each four values that are
/// loaded serve two of them.
const SQUARE: usize = 8;

/// Products of rows `TOP` … `TOP` + 7 of A's panel with rows `LEFT` … `LEFT` + 7 of B's, for the tile of
/// the two panels that begins at (`row`, `column`).
#[target_feature(enable = "neon")]
fn quarter<const TOP: usize, const LEFT: usize>(
    a: &[Lane],
    b: &[Lane],
    tile: &mut Tile,
    row: usize,
    column: usize,
) {
    let mut sums = [[vdupq_n_f32(0.0); 2]; SQUARE];
    for (a, b) in a.iter().zip(b) {
        let rows = eight(&a.0, TOP);
        let columns = eight(&b.0, LEFT);
        for half in 0..2 {
            for c in 0..2 {
                let four = rows[half];
                let [s0, s1, s2, s3] = [0, 1, 2, 3].map(|r| sums[4 * half + r][c]);
                sums[4 * half][c] = vfmaq_laneq_f32::<0>(s0, columns[c], four);
                sums[4 * half + 1][c] = vfmaq_laneq_f32::<1>(s1, columns[c], four);
                sums[4 * half + 2][c] = vfmaq_laneq_f32::<2>(s2, columns[c], four);
                sums[4 * half + 3][c] = vfmaq_laneq_f32::<3>(s3, columns[c], four);
            }
        }
    }
    for (r, sums) in sums.iter().enumerate() {
        let to = &mut tile.row_mut(row + TOP + r)[column + LEFT..][..SQUARE];
        // SAFETY: eight values are two vectors of four.
        unsafe {
            vst1q_f32(to.as_mut_ptr(), sums[0]);
            vst1q_f32(to[4..].as_mut_ptr(), sums[1]);
        }
    }
}

/// Eight values from `first` on.
#[inline]
#[target_feature(enable = "neon")]
fn eight(values: &[f32; LANES], first: usize) -> [float32x4_t; 2] {
    let values = &values[first..first + SQUARE];
    // SAFETY: eight values are two vectors of four.
    unsafe { [vld1q_f32(values.as_ptr()), vld1q_f32(values[4..].as_ptr())] }
}

impl Isa for NeonDot {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn panel_product(
        self,
        a: &[Lane],
        b: &[Lane],
        dim: usize,
        tile: &mut Tile,
        row: usize,
        column: usize,
    ) {
        Neon(()).panel_product(a, b, dim, tile, row, column);
    }

    #[inline(always)]
    fn code_products(
        self,
        queries: &[QueryLane],
        panel: &[BaseLane],
        offsets: &[i32; GROUP],
        tile: &mut CodeTile,
    ) {
        // SAFETY: `self` exists only where the instructions do.
        unsafe { dot_products(queries, panel, offsets, tile) }
    }
}

/// `sum` + products of each four codes of `base` with the four codes `LANE` of `queries`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const LANE: usize>(mut sum: int32x4_t, base: int8x16_t, queries: int8x16_t) -> int32x4_t {
    // The intrinsic, `vdotq_laneq_s32`, is not stable yet.
    // SAFETY: an instruction on registers alone, which this function's features include.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {base:v}.16b, {queries:v}.4b[{lane}]",
            sum = inout(vreg) sum,
            base = in(vreg) base,
            queries = in(vreg) queries,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}

#[target_feature(enable = "neon,dotprod")]
fn dot_products(
    queries: &[QueryLane],
    panel: &[BaseLane],
    offsets: &[i32; GROUP],
    tile: &mut CodeTile,
) {
    /// Vectors of four rows of the base per pass: 24 sums, four vectors of codes and two of queries in
    /// 32 registers.
    const VECTORS: usize = 4;
    for first in (0..PANEL).step_by(4 * VECTORS) {
        let mut sums = [[vdupq_n_s32(0); VECTORS]; GROUP];
        for i in 0..GROUP {
            sums[i] = [vdupq_n_s32(offsets[i]); VECTORS];
        }
        for (query, lane) in queries.iter().zip(panel) {
            let codes = query.0.as_flattened();
            let lane = lane.0[first..first + 4 * VECTORS].as_flattened();
            // SAFETY: a group's codes are 16 and 8 bytes, those of sixteen rows four times 16.
            let (four, two, base) = unsafe {
                let two = vld1_s8(codes[16..].as_ptr());
                let base: *const i8 = lane.as_ptr().cast();
                (
                    vld1q_s8(codes.as_ptr()),
                    vcombine_s8(two, two),
                    [
                        vld1q_s8(base),
                        vld1q_s8(base.add(16)),
                        vld1q_s8(base.add(32)),
                        vld1q_s8(base.add(48)),
                    ],
                )
            };
            // Written out: the compiler does not unroll loops around assembly, and sums that are
            // indexed by a loop lie in memory.
            macro_rules! add {
                ($($query:literal: $queries:ident, $lane:literal;)*) => {$(
                    sums[$query][0] = dot::<$lane>(sums[$query][0], base[0], $queries);
                    sums[$query][1] = dot::<$lane>(sums[$query][1], base[1], $queries);
                    sums[$query][2] = dot::<$lane>(sums[$query][2], base[2], $queries);
                    sums[$query][3] = dot::<$lane>(sums[$query][3], base[3], $queries);
                )*};
            }
            add!(0: four, 0; 1: four, 1; 2: four, 2; 3: four, 3; 4: two, 0; 5: two, 1;);
        }
        for i in 0..GROUP {
            let to = &mut tile.0[i][first..first + 4 * VECTORS];
            for v in 0..VECTORS {
                // SAFETY: sixteen sums are four vectors of four.
                unsafe { vst1q_s32(to[4 * v..].as_mut_ptr(), sums[i][v]) };
            }
        }
    }
}
