//! x86-64: AVX2 with FMA, AVX-512, and either with VNNI.

use std::arch::x86_64::*;

use super::super::codes::{
    BaseLane, CodeForm, CodeTile, GROUP, PANEL, QueryLane, WHOLE, WHOLE_ZERO,
};
use super::super::grid::GridLane;
use super::super::panels::{LANES, Lane};
use super::super::product::{SIDE, Tile};
use super::Isa;

mod grid;

/// Made only inside code compiled for AVX-512 (F, BW and DQ).
#[derive(Clone, Copy)]
pub(super) struct Avx512(pub(super) ());

/// Made only inside code compiled for AVX2 and FMA.
#[derive(Clone, Copy)]
pub(super) struct Avx2(pub(super) ());

/// Where a micro-kernel reads and writes.
struct Operands {
    /// First of `dim` lanes of A's panel.
    a: *const f32,
    /// First of `dim` lanes of each panel of B.
    b: *const f32,
    dim: usize,
    /// Upper left corner of the result, rows `SIDE` apart.
    to: *mut f32,
}

impl Operands {
    /// The operands, whose lengths are what the micro-kernels rely on: they read `dim` lanes of `a`
    /// and of each panel of `b` and write 16 rows with a column for each row of `b`.
    #[inline(always)]
    fn new(a: &[Lane], b: &[Lane], dim: usize, tile: &mut Tile, row: usize, column: usize) -> Self {
        assert_eq!(a.len(), dim, "one panel of A");
        assert!(
            b.len() == dim || b.len() == 2 * dim,
            "one or two panels of B"
        );
        assert!(row + LANES <= SIDE && column + b.len() / dim * LANES <= SIDE);
        Self {
            a: a.as_ptr().cast(),
            b: b.as_ptr().cast(),
            dim,
            to: tile.values_mut()[row * SIDE + column..].as_mut_ptr(),
        }
    }
}

impl Isa for Avx512 {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn dot(self, x: &[f32], y: &[f32]) -> f64 {
        // SAFETY: `self` exists only where the instructions do.
        unsafe { avx512_dot(x, y) }
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
        let operands = Operands::new(a, b, dim, tile, row, column);
        // SAFETY: `self` exists only where AVX-512 does; the operands have the lengths checked in
        // `Operands::new`, two panels of B exactly where two are read.
        unsafe {
            for half in 0..2 {
                if b.len() == dim {
                    avx512::<1>(&operands, half * AVX512_ROWS);
                } else {
                    avx512::<2>(&operands, half * AVX512_ROWS);
                }
            }
        }
    }

    #[inline(always)]
    fn code_products(
        self,
        queries: &[QueryLane],
        panel: &[BaseLane],
        offsets: &[i32; GROUP],
        tile: &mut CodeTile,
    ) {
        assert_eq!(queries.len(), panel.len());
        // SAFETY: `self` exists only where the instructions do; both sides have the same number of
        // lanes.
        unsafe { avx512_codes(queries, panel, offsets, tile) }
    }

    #[inline(always)]
    fn grid_product(
        self,
        a: &[GridLane],
        b: &[GridLane],
        tile: &mut Tile<i32>,
        row: usize,
        column: usize,
    ) {
        grid::with_avx2(Avx2(()), a, b, tile, row, column);
    }
}

/// Rows of A per pass: 8 × 2 accumulators hide the latency of two FMA units and leave registers
/// for B.
const AVX512_ROWS: usize = 8;

/// Products of rows `first` … `first` + 7 of A's panel with `PANELS` panels of B.
///
/// # Safety
/// `operands` point to what [`Operands::new`] says, with `PANELS` panels of B; `first` is 0 or 8.
#[target_feature(enable = "avx512f")]
unsafe fn avx512<const PANELS: usize>(operands: &Operands, first: usize) {
    let &Operands { a, b, dim, to } = operands;
    let mut sums = [[_mm512_setzero_ps(); PANELS]; AVX512_ROWS];
    // SAFETY: k < dim, so every lane read lies in A's panel or one of B's `PANELS`; rows below 16
    // and columns below 16·`PANELS` of the tile are the caller's to write.
    unsafe {
        for k in 0..dim {
            let mut columns = [_mm512_setzero_ps(); PANELS];
            for (p, column) in columns.iter_mut().enumerate() {
                *column = _mm512_loadu_ps(b.add((p * dim + k) * LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = _mm512_set1_ps(*a.add(k * LANES + first + r));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm512_fmadd_ps(row, column, *sum);
                }
            }
        }
        for r in 0..AVX512_ROWS {
            for p in 0..PANELS {
                _mm512_storeu_ps(to.add((first + r) * SIDE + p * LANES), sums[r][p]);
            }
        }
    }
}

impl Isa for Avx2 {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }

    #[inline(always)]
    fn dot(self, x: &[f32], y: &[f32]) -> f64 {
        // SAFETY: `self` exists only where the instructions do.
        unsafe { avx2_dot(x, y) }
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
            let operands = Operands::new(a, b, dim, tile, row, column + panel * LANES);
            // SAFETY: `self` exists only where AVX2 and FMA do; the operands have the lengths
            // checked in `Operands::new`, and 6 + 6 + 4 rows are one panel.
            unsafe {
                avx2::<6>(&operands, 0);
                avx2::<6>(&operands, 6);
                avx2::<4>(&operands, 12);
            }
        }
    }

    #[inline(always)]
    fn code_products(
        self,
        queries: &[QueryLane],
        panel: &[BaseLane],
        offsets: &[i32; GROUP],
        tile: &mut CodeTile,
    ) {
        assert_eq!(queries.len(), panel.len());
        // SAFETY: `self` exists only where the instructions do; both sides have the same number of
        // lanes.
        unsafe { avx2_codes(queries, panel, offsets, tile) }
    }

    #[inline(always)]
    fn grid_product(
        self,
        a: &[GridLane],
        b: &[GridLane],
        tile: &mut Tile<i32>,
        row: usize,
        column: usize,
    ) {
        grid::with_avx2(Avx2(()), a, b, tile, row, column);
    }
}

/// Products of rows `first` … `first` + `ROWS` − 1 of A's panel with one panel of B.
///
/// # Safety
/// `operands` point to what [`Operands::new`] says; `first` + `ROWS` is at most 16.
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2<const ROWS: usize>(operands: &Operands, first: usize) {
    let &Operands { a, b, dim, to } = operands;
    let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
    // SAFETY: k < dim and first + r < 16, so every value read lies in A's or B's panel; 16 rows and
    // columns of the tile are the caller's to write.
    unsafe {
        for k in 0..dim {
            let columns = [
                _mm256_loadu_ps(b.add(k * LANES)),
                _mm256_loadu_ps(b.add(k * LANES + 8)),
            ];
            for (r, sums) in sums.iter_mut().enumerate() {
                let row = _mm256_set1_ps(*a.add(k * LANES + first + r));
                for (sum, column) in sums.iter_mut().zip(columns) {
                    *sum = _mm256_fmadd_ps(row, column, *sum);
                }
            }
        }
        for r in 0..ROWS {
            for half in 0..2 {
                _mm256_storeu_ps(to.add((first + r) * SIDE + half * 8), sums[r][half]);
            }
        }
    }
}

/// As [`score::dot`]: products of f32 values are exact in f64, so fusing them with the sums changes nothing.
#[target_feature(enable = "avx512f")]
fn avx512_dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    let wide = |values: &[f32; 8]| {
        // SAFETY: eight values are a vector of 32 bytes.
        _mm512_cvtps_pd(unsafe { _mm256_loadu_ps(values.as_ptr()) })
    };
    let (x_chunks, x_rest) = x.as_chunks::<8>();
    let (y_chunks, y_rest) = y.as_chunks::<8>();
    let mut sums = _mm512_setzero_pd();
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        sums = _mm512_fmadd_pd(wide(x), wide(y), sums);
    }
    let (mut x, mut y) = ([0.0; 8], [0.0; 8]);
    x[..x_rest.len()].copy_from_slice(x_rest);
    y[..y_rest.len()].copy_from_slice(y_rest);
    sums = _mm512_fmadd_pd(wide(&x), wide(&y), sums);
    let mut lanes = [0.0; 8];
    // SAFETY: eight sums are a vector of 64 bytes.
    unsafe { _mm512_storeu_pd(lanes.as_mut_ptr(), sums) };
    lanes.iter().sum()
}

/// As [`avx512_dot`], in two halves.
#[target_feature(enable = "avx2,fma")]
fn avx2_dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    let wide = |values: &[f32; 8], half: usize| {
        // SAFETY: four values are a vector of 16 bytes, and eight are two.
        _mm256_cvtps_pd(unsafe { _mm_loadu_ps(values.as_ptr().add(4 * half)) })
    };
    let (x_chunks, x_rest) = x.as_chunks::<8>();
    let (y_chunks, y_rest) = y.as_chunks::<8>();
    let mut sums = [_mm256_setzero_pd(); 2];
    for (x, y) in x_chunks.iter().zip(y_chunks) {
        for half in 0..2 {
            sums[half] = _mm256_fmadd_pd(wide(x, half), wide(y, half), sums[half]);
        }
    }
    let (mut x, mut y) = ([0.0; 8], [0.0; 8]);
    x[..x_rest.len()].copy_from_slice(x_rest);
    y[..y_rest.len()].copy_from_slice(y_rest);
    let mut lanes = [0.0; 8];
    for half in 0..2 {
        let sums = _mm256_fmadd_pd(wide(&x, half), wide(&y, half), sums[half]);
        // SAFETY: four sums are a vector of 32 bytes, and eight are two.
        unsafe { _mm256_storeu_pd(lanes.as_mut_ptr().add(4 * half), sums) };
    }
    lanes.iter().sum()
}

/// The codes that kernels without VNNI multiply. A product of unsigned and signed bytes leaves them as
/// sums of two in 16 bits. These codes are so small that two such sums, 2 · 2 · 127 · 63, can be added
/// before they are widened: 2.5 times as many products per second as of f32 (Zen 4), where codes of eight
/// bits, as 16-bit numbers, give 1.3 times as many. Less is ruled out by them: among rows in clusters
/// `nearest` is 1.2 times as fast as by f32, among rows without any structure as fast.
pub(super) const NARROW: CodeForm = CodeForm {
    largest: 63,
    zero: 64,
};

/// # Safety
/// `queries` and `panel` have the same length; codes have the form [`NARROW`].
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn avx512_codes(
    queries: &[QueryLane],
    panel: &[BaseLane],
    offsets: &[i32; GROUP],
    tile: &mut CodeTile,
) {
    /// Rows of the base per pass: twelve sums and four vectors of codes.
    const ROWS: usize = 32;
    let ones = _mm512_set1_epi16(1);
    let (query_pairs, last_query) = queries.as_chunks::<2>();
    let (lane_pairs, last_lane) = panel.as_chunks::<2>();
    for first in (0..PANEL).step_by(ROWS) {
        let mut sums = [[_mm512_setzero_si512(); 2]; GROUP];
        for i in 0..GROUP {
            sums[i] = [_mm512_set1_epi32(offsets[i]); 2];
        }
        for (queries, lanes) in query_pairs.iter().zip(lane_pairs) {
            let mut base = [[_mm512_setzero_si512(); 2]; 2];
            for l in 0..2 {
                let from: *const i32 = lanes[l].0[first..first + ROWS].as_ptr().cast();
                // SAFETY: 32 rows of four bytes are two vectors of 64.
                base[l] = unsafe { [_mm512_loadu_epi32(from), _mm512_loadu_epi32(from.add(16))] };
            }
            for i in 0..GROUP {
                let first_four = _mm512_set1_epi32(queries[0].four(i));
                let next_four = _mm512_set1_epi32(queries[1].four(i));
                for half in 0..2 {
                    let products = _mm512_add_epi16(
                        _mm512_maddubs_epi16(base[0][half], first_four),
                        _mm512_maddubs_epi16(base[1][half], next_four),
                    );
                    let products = _mm512_madd_epi16(products, ones);
                    sums[i][half] = _mm512_add_epi32(sums[i][half], products);
                }
            }
        }
        for (query, lane) in last_query.iter().zip(last_lane) {
            let from: *const i32 = lane.0[first..first + ROWS].as_ptr().cast();
            for half in 0..2 {
                // SAFETY: as above.
                let base = unsafe { _mm512_loadu_epi32(from.add(16 * half)) };
                for i in 0..GROUP {
                    let products = _mm512_maddubs_epi16(base, _mm512_set1_epi32(query.four(i)));
                    let products = _mm512_madd_epi16(products, ones);
                    sums[i][half] = _mm512_add_epi32(sums[i][half], products);
                }
            }
        }
        for i in 0..GROUP {
            let to = tile.0[i][first..first + ROWS].as_mut_ptr();
            for half in 0..2 {
                // SAFETY: 32 sums are two vectors of 64 bytes.
                unsafe { _mm512_storeu_epi32(to.add(16 * half), sums[i][half]) };
            }
        }
    }
}

/// # Safety
/// `queries` and `panel` have the same length; codes have the form [`NARROW`].
#[target_feature(enable = "avx2")]
unsafe fn avx2_codes(
    queries: &[QueryLane],
    panel: &[BaseLane],
    offsets: &[i32; GROUP],
    tile: &mut CodeTile,
) {
    /// Rows of the base and queries per pass: six sums and four vectors of codes leave registers for
    /// products.
    const ROWS: usize = 16;
    const QUERIES: usize = GROUP / 2;
    let ones = _mm256_set1_epi16(1);
    let (query_pairs, last_query) = queries.as_chunks::<2>();
    let (lane_pairs, last_lane) = panel.as_chunks::<2>();
    for first in (0..PANEL).step_by(ROWS) {
        for query in [0, QUERIES] {
            let mut sums = [[_mm256_setzero_si256(); 2]; QUERIES];
            for i in 0..QUERIES {
                sums[i] = [_mm256_set1_epi32(offsets[query + i]); 2];
            }
            for (queries, lanes) in query_pairs.iter().zip(lane_pairs) {
                let mut base = [[_mm256_setzero_si256(); 2]; 2];
                for l in 0..2 {
                    let from: *const __m256i = lanes[l].0[first..first + ROWS].as_ptr().cast();
                    // SAFETY: sixteen rows of four bytes are two vectors of 32.
                    base[l] =
                        unsafe { [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))] };
                }
                for i in 0..QUERIES {
                    let first_four = _mm256_set1_epi32(queries[0].four(query + i));
                    let next_four = _mm256_set1_epi32(queries[1].four(query + i));
                    for half in 0..2 {
                        let products = _mm256_add_epi16(
                            _mm256_maddubs_epi16(base[0][half], first_four),
                            _mm256_maddubs_epi16(base[1][half], next_four),
                        );
                        let products = _mm256_madd_epi16(products, ones);
                        sums[i][half] = _mm256_add_epi32(sums[i][half], products);
                    }
                }
            }
            for (queries, lane) in last_query.iter().zip(last_lane) {
                let from: *const __m256i = lane.0[first..first + ROWS].as_ptr().cast();
                for half in 0..2 {
                    // SAFETY: as above.
                    let base = unsafe { _mm256_loadu_si256(from.add(half)) };
                    for i in 0..QUERIES {
                        let four = _mm256_set1_epi32(queries.four(query + i));
                        let products = _mm256_madd_epi16(_mm256_maddubs_epi16(base, four), ones);
                        sums[i][half] = _mm256_add_epi32(sums[i][half], products);
                    }
                }
            }
            for i in 0..QUERIES {
                let to: *mut __m256i = tile.0[query + i][first..first + ROWS].as_mut_ptr().cast();
                for half in 0..2 {
                    // SAFETY: sixteen sums are two vectors of 32 bytes.
                    unsafe { _mm256_storeu_si256(to.add(half), sums[i][half]) };
                }
            }
        }
    }
}

/// Made only inside code compiled for AVX-512 with VNNI.
#[derive(Clone, Copy)]
pub(super) struct Avx512Vnni(pub(super) ());

/// Made only inside code compiled for AVX2, FMA and AVX-VNNI.
#[derive(Clone, Copy)]
pub(super) struct AvxVnni(pub(super) ());

/// Values as without VNNI, codes by its instructions.
macro_rules! with_vnni {
    ($name:ident, $values:ident, $codes:ident, $product:ident, $reached:ident, $grid:path) => {
        impl Isa for $name {
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
                $values(()).panel_product(a, b, dim, tile, row, column);
            }

            #[inline(always)]
            fn code_products(
                self,
                queries: &[QueryLane],
                panel: &[BaseLane],
                offsets: &[i32; GROUP],
                tile: &mut CodeTile,
            ) {
                assert_eq!(queries.len(), panel.len());
                // SAFETY: `self` exists only where the instructions do; both sides have the same
                // number of lanes.
                unsafe { $codes(queries, panel, offsets, tile) }
            }

            #[inline(always)]
            fn dot(self, x: &[f32], y: &[f32]) -> f64 {
                $values(()).dot(x, y)
            }

            #[inline(always)]
            fn reached(self, values: &[f32; PANEL], bar: f32) -> u64 {
                // SAFETY: `self` exists only where the instructions do.
                unsafe { $reached(values, bar) }
            }

            #[inline(always)]
            fn code_product(self, query: &[i8], base: &[i8], offset: i32) -> i32 {
                assert!(query.len() == base.len() && query.len().is_multiple_of(WHOLE));
                // SAFETY: `self` exists only where the instructions do; both sides have the same
                // number of codes, a multiple of 64.
                unsafe { $product(query, base, offset) }
            }

            #[inline(always)]
            fn grid_product(
                self,
                a: &[GridLane],
                b: &[GridLane],
                tile: &mut Tile<i32>,
                row: usize,
                column: usize,
            ) {
                $grid(self, a, b, tile, row, column);
            }
        }
    };
}

with_vnni!(
    Avx512Vnni,
    Avx512,
    avx512_vnni,
    avx512_vnni_product,
    avx512_reached,
    grid::with_avx512_vnni
);
with_vnni!(
    AvxVnni,
    Avx2,
    avx_vnni,
    avx_vnni_product,
    avx2_reached,
    grid::with_avx_vnni
);

#[target_feature(enable = "avx512f")]
fn avx512_reached(values: &[f32; PANEL], bar: f32) -> u64 {
    let bar = _mm512_set1_ps(bar);
    let mut reached = 0;
    for (v, values) in values.as_chunks::<16>().0.iter().enumerate() {
        // SAFETY: sixteen values are a vector.
        let values = unsafe { _mm512_loadu_ps(values.as_ptr()) };
        let mask = _mm512_cmp_ps_mask::<_CMP_GE_OQ>(values, bar);
        reached |= u64::from(mask) << (16 * v);
    }
    reached
}

#[target_feature(enable = "avx2")]
fn avx2_reached(values: &[f32; PANEL], bar: f32) -> u64 {
    let bar = _mm256_set1_ps(bar);
    let mut reached = 0;
    for (v, values) in values.as_chunks::<8>().0.iter().enumerate() {
        // SAFETY: eight values are a vector.
        let values = unsafe { _mm256_loadu_ps(values.as_ptr()) };
        let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(values, bar));
        reached |= u64::from(mask as u8) << (8 * v);
    }
    reached
}

/// # Safety
/// `query` and `base` have the same length, a multiple of 64.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_vnni_product(query: &[i8], base: &[i8], offset: i32) -> i32 {
    let zero = _mm512_set1_epi8(WHOLE_ZERO as i8);
    let mut sum = _mm512_setzero_si512();
    for at in (0..query.len()).step_by(64) {
        // SAFETY: 64 codes follow `at` on either side.
        let (query, base) = unsafe {
            (
                _mm512_loadu_si512(query.as_ptr().add(at).cast()),
                _mm512_loadu_si512(base.as_ptr().add(at).cast()),
            )
        };
        sum = _mm512_dpbusd_epi32(sum, _mm512_xor_si512(base, zero), query);
    }
    _mm512_reduce_add_epi32(sum) + offset
}

/// # Safety
/// `query` and `base` have the same length, a multiple of 64.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn avx_vnni_product(query: &[i8], base: &[i8], offset: i32) -> i32 {
    let zero = _mm256_set1_epi8(WHOLE_ZERO as i8);
    let mut sums = [_mm256_setzero_si256(); 2];
    for at in (0..query.len()).step_by(64) {
        for half in 0..2 {
            // SAFETY: 64 codes follow `at` on either side.
            let (query, base) = unsafe {
                (
                    _mm256_loadu_si256(query.as_ptr().add(at + 32 * half).cast()),
                    _mm256_loadu_si256(base.as_ptr().add(at + 32 * half).cast()),
                )
            };
            let base = _mm256_xor_si256(base, zero);
            sums[half] = _mm256_dpbusd_avx_epi32(sums[half], base, query);
        }
    }
    let mut lanes = [0i32; 8];
    // SAFETY: eight sums are a vector of 32 bytes.
    unsafe {
        _mm256_storeu_si256(
            lanes.as_mut_ptr().cast(),
            _mm256_add_epi32(sums[0], sums[1]),
        )
    };
    lanes.iter().sum::<i32>() + offset
}

/// # Safety
/// `queries` and `panel` have the same length.
#[target_feature(enable = "avx512f,avx512vnni")]
unsafe fn avx512_vnni(
    queries: &[QueryLane],
    panel: &[BaseLane],
    offsets: &[i32; GROUP],
    tile: &mut CodeTile,
) {
    const VECTORS: usize = PANEL / 16;
    // Loops by index: an array that is moved as a whole goes through memory.
    let mut sums = [[_mm512_setzero_si512(); VECTORS]; GROUP];
    for i in 0..GROUP {
        for v in 0..VECTORS {
            sums[i][v] = _mm512_set1_epi32(offsets[i]);
        }
    }
    for (query, base) in queries.iter().zip(panel) {
        let base: *const i32 = base.0.as_ptr().cast();
        // SAFETY: a lane of the base is four vectors of 64 bytes.
        let base = unsafe {
            [
                _mm512_loadu_epi32(base),
                _mm512_loadu_epi32(base.add(16)),
                _mm512_loadu_epi32(base.add(32)),
                _mm512_loadu_epi32(base.add(48)),
            ]
        };
        for i in 0..GROUP {
            let four = _mm512_set1_epi32(query.four(i));
            for v in 0..VECTORS {
                sums[i][v] = _mm512_dpbusd_epi32(sums[i][v], base[v], four);
            }
        }
    }
    for i in 0..GROUP {
        for v in 0..VECTORS {
            // SAFETY: a row of the tile is four vectors of 64 bytes.
            unsafe { _mm512_storeu_epi32(tile.0[i].as_mut_ptr().add(16 * v), sums[i][v]) };
        }
    }
}

/// # Safety
/// `queries` and `panel` have the same length.
#[target_feature(enable = "avx2,avxvnni")]
unsafe fn avx_vnni(
    queries: &[QueryLane],
    panel: &[BaseLane],
    offsets: &[i32; GROUP],
    tile: &mut CodeTile,
) {
    /// Rows of the base per pass: twelve sums and two vectors of codes in sixteen registers.
    const ROWS: usize = 16;
    for first in (0..PANEL).step_by(ROWS) {
        let mut sums = [[_mm256_setzero_si256(); 2]; GROUP];
        for i in 0..GROUP {
            sums[i] = [_mm256_set1_epi32(offsets[i]); 2];
        }
        for (query, base) in queries.iter().zip(panel) {
            let base: *const __m256i = base.0[first..].as_ptr().cast();
            // SAFETY: sixteen rows of four bytes follow `first`.
            let base = unsafe { [_mm256_loadu_si256(base), _mm256_loadu_si256(base.add(1))] };
            for i in 0..GROUP {
                let four = _mm256_set1_epi32(query.four(i));
                for half in 0..2 {
                    sums[i][half] = _mm256_dpbusd_avx_epi32(sums[i][half], base[half], four);
                }
            }
        }
        for i in 0..GROUP {
            let to: *mut __m256i = tile.0[i][first..first + ROWS].as_mut_ptr().cast();
            for half in 0..2 {
                // SAFETY: sixteen sums are two vectors of 32 bytes.
                unsafe { _mm256_storeu_si256(to.add(half), sums[i][half]) };
            }
        }
    }
}

/// The processor's brand string.
pub(super) fn brand() -> Option<String> {
    const FIRST_LEAF: u32 = 0x8000_0002;
    const LAST_LEAF: u32 = 0x8000_0004;
    if __cpuid(0x8000_0000).eax < LAST_LEAF {
        return None;
    }
    let bytes: Vec<u8> = (FIRST_LEAF..=LAST_LEAF)
        .map(__cpuid)
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
        .flat_map(u32::to_le_bytes)
        .take_while(|&byte| byte != 0)
        .collect();
    let name = String::from_utf8_lossy(&bytes).trim().to_owned();
    (!name.is_empty()).then_some(name)
}
