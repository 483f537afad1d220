//! Products of rows on a grid: pairs of 16-bit integers, multiplied and added up in 32 bits.

use std::arch::x86_64::*;

use super::super::super::grid::GridLane;
use super::super::super::panels::LANES;
use super::super::super::product::{SIDE, Tile};
use super::{AVX512_ROWS, Avx2, Avx512Vnni, AvxVnni};

/// Where a micro-kernel reads and writes.
struct Operands {
    /// First of `depth` lanes of A's panel, each 16 pairs of coordinates.
    a: *const i32,
    /// First of `depth` lanes of each panel of B.
    b: *const i32,
    depth: usize,
    /// Upper left corner of the result, rows `SIDE` apart.
    to: *mut i32,
}

impl Operands {
    /// The operands, whose lengths are what the micro-kernels rely on: they read `depth` lanes of `a`
    /// and of each panel of `b` and write 16 rows with a column for each row of `b`.
    #[inline(always)]
    fn new(
        a: &[GridLane],
        b: &[GridLane],
        tile: &mut Tile<i32>,
        row: usize,
        column: usize,
    ) -> Self {
        let depth = a.len();
        assert!(
            b.len() == depth || b.len() == 2 * depth,
            "one or two panels of B"
        );
        assert!(row + LANES <= SIDE && column + b.len() / depth * LANES <= SIDE);
        Self {
            a: a.as_ptr().cast(),
            b: b.as_ptr().cast(),
            depth,
            to: tile.values_mut()[row * SIDE + column..].as_mut_ptr(),
        }
    }

    /// The same with B's panel `panel` as the first.
    #[inline(always)]
    fn at_panel(&self, panel: usize) -> Self {
        Self {
            // `new` has checked that there is such a panel, and its columns.
            b: self.b.wrapping_add(panel * self.depth * LANES),
            to: self.to.wrapping_add(panel * LANES),
            ..*self
        }
    }
}

#[inline(always)]
pub(super) fn with_avx512_vnni(
    _: Avx512Vnni,
    a: &[GridLane],
    b: &[GridLane],
    tile: &mut Tile<i32>,
    row: usize,
    column: usize,
) {
    let operands = Operands::new(a, b, tile, row, column);
    for half in 0..2 {
        // SAFETY: the token exists only where the instructions do; the operands have the lengths
        // checked in `Operands::new`, two panels of B exactly where two are read.
        unsafe {
            if b.len() == a.len() {
                avx512_vnni::<1>(&operands, half * AVX512_ROWS);
            } else {
                avx512_vnni::<2>(&operands, half * AVX512_ROWS);
            }
        }
    }
}

/// Products of rows `first` … `first` + 7 of A's panel with `PANELS` panels of B.
///
/// # Safety
/// `operands` point to what [`Operands::new`] says, with `PANELS` panels of B; `first` is 0 or 8.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_vnni<const PANELS: usize>(operands: &Operands, first: usize) {
    let &Operands { a, b, depth, to } = operands;
    let mut sums = [[_mm512_setzero_si512(); PANELS]; AVX512_ROWS];
    // SAFETY: k < depth, so every lane read lies in A's panel or one of B's `PANELS`; rows below 16
    // and columns below 16·`PANELS` of the tile are the caller's to write.
    unsafe {
        for k in 0..depth {
            let mut columns = [_mm512_setzero_si512(); PANELS];
            for p in 0..PANELS {
                columns[p] = _mm512_loadu_epi32(b.add((p * depth + k) * LANES));
            }
            for r in 0..AVX512_ROWS {
                let row = _mm512_set1_epi32(*a.add(k * LANES + first + r));
                for p in 0..PANELS {
                    sums[r][p] = _mm512_dpwssd_epi32(sums[r][p], row, columns[p]);
                }
            }
        }
        for r in 0..AVX512_ROWS {
            for p in 0..PANELS {
                _mm512_storeu_epi32(to.add((first + r) * SIDE + p * LANES), sums[r][p]);
            }
        }
    }
}

/// Six rows of A by the two halves of a panel of B: twelve sums leave four of sixteen registers.
macro_rules! with_256_bits {
    ($token:ident, $safe:ident, $micro:ident, $features:literal, |$sum:ident, $x:ident, $y:ident| $step:expr) => {
        #[inline(always)]
        pub(super) fn $safe(
            _: $token,
            a: &[GridLane],
            b: &[GridLane],
            tile: &mut Tile<i32>,
            row: usize,
            column: usize,
        ) {
            let operands = Operands::new(a, b, tile, row, column);
            for panel in 0..b.len() / a.len() {
                let operands = operands.at_panel(panel);
                // SAFETY: the token exists only where the instructions do; the operands have the
                // lengths checked in `Operands::new`, and 6 + 6 + 4 rows are one panel.
                unsafe {
                    $micro::<6>(&operands, 0);
                    $micro::<6>(&operands, 6);
                    $micro::<4>(&operands, 12);
                }
            }
        }

        /// Products of rows `first` … `first` + `ROWS` − 1 of A's panel with one panel of B.
        ///
        /// # Safety
        /// `operands` point to what [`Operands::new`] says; `first` + `ROWS` is at most 16.
        #[target_feature(enable = $features)]
        unsafe fn $micro<const ROWS: usize>(operands: &Operands, first: usize) {
            let &Operands { a, b, depth, to } = operands;
            let mut sums = [[_mm256_setzero_si256(); 2]; ROWS];
            // SAFETY: k < depth and first + r < 16, so every pair read lies in A's or B's panel; 16
            // rows and columns of the tile are the caller's to write.
            unsafe {
                for k in 0..depth {
                    let lane = b.add(k * LANES).cast::<__m256i>();
                    let columns = [_mm256_loadu_si256(lane), _mm256_loadu_si256(lane.add(1))];
                    for r in 0..ROWS {
                        let $x = _mm256_set1_epi32(*a.add(k * LANES + first + r));
                        for half in 0..2 {
                            let ($sum, $y) = (sums[r][half], columns[half]);
                            sums[r][half] = $step;
                        }
                    }
                }
                for r in 0..ROWS {
                    let to = to.add((first + r) * SIDE).cast::<__m256i>();
                    for half in 0..2 {
                        _mm256_storeu_si256(to.add(half), sums[r][half]);
                    }
                }
            }
        }
    };
}

with_256_bits!(Avx2, with_avx2, avx2, "avx2", |sum, x, y| {
    _mm256_add_epi32(sum, _mm256_madd_epi16(x, y))
});
with_256_bits!(
    AvxVnni,
    with_avx_vnni,
    avx_vnni,
    "avx2,avxvnni",
    |sum, x, y| _mm256_dpwssd_avx_epi32(sum, x, y)
);
