//! The product kernel: 64 × 64 dot products of packed rows, per instruction set.
//!
//! Every dot product is one chain of fused multiply-adds over the coordinates in order, wherever in a
//! tile it stands. So AVX-512, AVX2 and NEON-less portable code with fused multiply-add agree bit for
//! bit; the portable kernel multiplies and adds separately, and differs within the accuracy contract.

use rayon::prelude::*;

use super::epilogue::{self, Counts, Sums};
use crate::embeddings::Rows;
use crate::engine::{PairHistogram, SumsRequest};
use crate::error::{Error, Result};

/// Rows of a panel, and side of a product tile.
pub(super) const SIDE: usize = 64;
/// Coordinates per slice: the slices of both panels stay in the first-level cache.
const SLICE: usize = 128;
/// Environment variable that forces a kernel, for tests.
const FORCE: &str = "VECDRIFT_CPU_KERNEL";

/// 64 × 64 products, row-major.
#[derive(Clone)]
#[repr(align(64))]
pub(super) struct Tile([f32; SIDE * SIDE]);

impl Default for Tile {
    fn default() -> Self {
        Self([0.0; SIDE * SIDE])
    }
}

impl Tile {
    /// The rows in order.
    #[inline(always)]
    pub(super) fn rows(&self) -> impl Iterator<Item = &[f32; SIDE]> {
        self.0.as_chunks::<SIDE>().0.iter()
    }

    /// Row `i`.
    #[inline(always)]
    pub(super) fn row(&self, i: usize) -> &[f32; SIDE] {
        &self.0.as_chunks::<SIDE>().0[i]
    }
}

/// Rows in panels of 64, coordinate-major within a panel: `[panel][coordinate][row]`, zero-padded.
pub(super) struct Panels {
    values: Vec<f32>,
    dim: usize,
}

impl Panels {
    /// Packs rows.
    pub(super) fn pack(rows: Rows<'_>) -> Self {
        let dim = rows.dim();
        let mut values = vec![0.0f32; rows.len().div_ceil(SIDE) * SIDE * dim];
        values
            .par_chunks_exact_mut(SIDE * dim)
            .enumerate()
            .for_each(|(p, panel)| {
                let first = p * SIDE;
                for (i, row) in rows
                    .slice(first..(first + SIDE).min(rows.len()))
                    .iter()
                    .enumerate()
                {
                    for (c, &v) in row.iter().enumerate() {
                        panel[c * SIDE + i] = v;
                    }
                }
            });
        Self { values, dim }
    }

    /// Number of panels.
    pub(super) fn count(&self) -> usize {
        self.values.len() / (SIDE * self.dim)
    }

    /// Panel `p`, `[coordinate][row]`.
    pub(super) fn panel(&self, p: usize) -> &[[f32; SIDE]] {
        let size = SIDE * self.dim;
        self.values[p * size..(p + 1) * size].as_chunks::<SIDE>().0
    }
}

/// An instruction set this machine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kernel {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

/// Calls `$function` compiled for the kernel's instruction set.
macro_rules! dispatch {
    ($kernel:expr, $avx512:path, $avx2:path, $portable:path, ($($argument:expr),* $(,)?)) => {
        match $kernel {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a kernel is only constructed after its instructions were detected.
            Kernel::Avx512 => unsafe { $avx512($($argument),*) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Kernel::Avx2 => unsafe { $avx2($($argument),*) },
            Kernel::Portable => $portable($($argument),*),
        }
    };
}

impl Kernel {
    /// The best kernel of this machine, or the one that `VECDRIFT_CPU_KERNEL` names.
    pub(super) fn choose() -> Result<Self> {
        let available = Self::available();
        match std::env::var(FORCE) {
            Err(_) => Ok(available[0]),
            Ok(name) => available
                .iter()
                .copied()
                .find(|k| k.name() == name)
                .ok_or_else(|| {
                    let names: Vec<&str> = available.iter().map(|k| k.name()).collect();
                    Error::device(
                        FORCE,
                        format!(
                            "no kernel \"{name}\" on this machine, expected one of {}",
                            names.join(", ")
                        ),
                    )
                }),
        }
    }

    /// The kernels of this machine, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                kernels.push(Self::Avx512);
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                kernels.push(Self::Avx2);
            }
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// `avx512`, `avx2` or `portable`.
    pub(super) fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }

    /// The 64 × 64 products of two panels.
    pub(super) fn product(self, x: &[[f32; SIDE]], y: &[[f32; SIDE]], tile: &mut Tile) {
        assert_eq!(x.len(), y.len(), "both panels have the same dimension");
        tile.0.fill(0.0);
        for (x, y) in x.chunks(SLICE).zip(y.chunks(SLICE)) {
            dispatch!(
                self,
                product_avx512,
                product_avx2,
                product_portable,
                (x, y, tile)
            );
        }
    }

    /// Counts a tile's products; see [`epilogue::histogram`].
    pub(super) fn histogram(
        self,
        tile: &Tile,
        size: (usize, usize),
        above_diagonal: bool,
        counts: &mut Counts,
        into: &mut PairHistogram,
    ) {
        dispatch!(
            self,
            histogram_avx512,
            histogram_avx2,
            epilogue::histogram,
            (tile, size, above_diagonal, counts, into)
        );
    }

    /// Sums a tile's kernels; see [`epilogue::sums`].
    pub(super) fn sums(
        self,
        tile: &Tile,
        at: (usize, usize),
        sq_norms: (&[f32], &[f32]),
        request: &SumsRequest<'_>,
        into: &mut Sums,
    ) {
        dispatch!(
            self,
            sums_avx512,
            sums_avx2,
            epilogue::sums,
            (tile, at, sq_norms, request, into)
        );
    }

    /// Takes a tile's bin maxima; see [`epilogue::maxima`].
    pub(super) fn maxima(
        self,
        tile: &Tile,
        size: (usize, usize),
        width: usize,
        into: &mut [f32],
        bins: usize,
        at: usize,
    ) {
        dispatch!(
            self,
            maxima_avx512,
            maxima_avx2,
            epilogue::maxima,
            (tile, size, width, into, bins, at)
        );
    }
}

/// Declares twins of the epilogues compiled for an instruction set: the same code, wider vectors.
#[cfg(target_arch = "x86_64")]
macro_rules! epilogues_for {
    ($features:literal, $histogram:ident, $sums:ident, $maxima:ident) => {
        #[target_feature(enable = $features)]
        fn $histogram(
            tile: &Tile,
            size: (usize, usize),
            above_diagonal: bool,
            counts: &mut Counts,
            into: &mut PairHistogram,
        ) {
            epilogue::histogram(tile, size, above_diagonal, counts, into);
        }

        #[target_feature(enable = $features)]
        fn $sums(
            tile: &Tile,
            at: (usize, usize),
            sq_norms: (&[f32], &[f32]),
            request: &SumsRequest<'_>,
            into: &mut Sums,
        ) {
            epilogue::sums(tile, at, sq_norms, request, into);
        }

        #[target_feature(enable = $features)]
        fn $maxima(
            tile: &Tile,
            size: (usize, usize),
            width: usize,
            into: &mut [f32],
            bins: usize,
            at: usize,
        ) {
            epilogue::maxima(tile, size, width, into, bins, at);
        }
    };
}

#[cfg(target_arch = "x86_64")]
epilogues_for!(
    "avx512f,avx512bw,avx512dq,avx512vl",
    histogram_avx512,
    sums_avx512,
    maxima_avx512
);
#[cfg(target_arch = "x86_64")]
epilogues_for!("avx2,fma", histogram_avx2, sums_avx2, maxima_avx2);

/// Adds the products of one slice of coordinates: 4 × 64 at a time, 16 accumulators in registers. A
/// whole row of `y` per step halves the loads per multiply-add of a squarer shape.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn product_avx512(x: &[[f32; SIDE]], y: &[[f32; SIDE]], tile: &mut Tile) {
    use std::arch::x86_64::*;
    const HEIGHT: usize = 4;
    const VECTORS: usize = SIDE / 16;
    for (group, c) in tile
        .0
        .as_chunks_mut::<{ HEIGHT * SIDE }>()
        .0
        .iter_mut()
        .enumerate()
    {
        let mut sums = [[_mm512_setzero_ps(); VECTORS]; HEIGHT];
        for (r, sum) in sums.iter_mut().enumerate() {
            for (v, sum) in sum.iter_mut().enumerate() {
                // SAFETY: r < 4 and v < 4, so 16 values from here lie within the 4 × 64 of `c`.
                *sum = unsafe { _mm512_loadu_ps(c.as_ptr().add(r * SIDE + v * 16)) };
            }
        }
        for (a, b) in x.iter().zip(y) {
            let a: &[f32; HEIGHT] = &a.as_chunks::<HEIGHT>().0[group];
            // SAFETY: v < 4, so 16 values from here lie within the 64 of `b`.
            let b: [__m512; VECTORS] =
                std::array::from_fn(|v| unsafe { _mm512_loadu_ps(b.as_ptr().add(v * 16)) });
            for (sum, &a) in sums.iter_mut().zip(a) {
                let a = _mm512_set1_ps(a);
                for (sum, &b) in sum.iter_mut().zip(&b) {
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
        }
        for (r, sum) in sums.iter().enumerate() {
            for (v, &sum) in sum.iter().enumerate() {
                // SAFETY: as for the loads.
                unsafe { _mm512_storeu_ps(c.as_mut_ptr().add(r * SIDE + v * 16), sum) };
            }
        }
    }
}

/// Adds the products of one slice of coordinates: 4 × 16 at a time, 8 accumulators in registers.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn product_avx2(x: &[[f32; SIDE]], y: &[[f32; SIDE]], tile: &mut Tile) {
    use std::arch::x86_64::*;
    const HEIGHT: usize = 4;
    for j in (0..SIDE).step_by(16) {
        for i in (0..SIDE).step_by(HEIGHT) {
            let c = &mut tile.0[i * SIDE + j..];
            assert!(c.len() >= (HEIGHT - 1) * SIDE + 16);
            let mut sums = [[_mm256_setzero_ps(); 2]; HEIGHT];
            for (r, sum) in sums.iter_mut().enumerate() {
                // SAFETY: rows r < 4 of 16 values each lie within `c` by the assertion above.
                unsafe {
                    sum[0] = _mm256_loadu_ps(c.as_ptr().add(r * SIDE));
                    sum[1] = _mm256_loadu_ps(c.as_ptr().add(r * SIDE + 8));
                }
            }
            for (a, b) in x.iter().zip(y) {
                // SAFETY: j ≤ 48, so 16 values from j on lie within the 64 of `b`.
                let (b0, b1) = unsafe {
                    (
                        _mm256_loadu_ps(b.as_ptr().add(j)),
                        _mm256_loadu_ps(b.as_ptr().add(j + 8)),
                    )
                };
                let a: &[f32; HEIGHT] = a[i..].first_chunk().expect("i + 4 ≤ 64");
                for (sum, &a) in sums.iter_mut().zip(a) {
                    let a = _mm256_set1_ps(a);
                    sum[0] = _mm256_fmadd_ps(a, b0, sum[0]);
                    sum[1] = _mm256_fmadd_ps(a, b1, sum[1]);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                // SAFETY: as for the loads.
                unsafe {
                    _mm256_storeu_ps(c.as_mut_ptr().add(r * SIDE), sum[0]);
                    _mm256_storeu_ps(c.as_mut_ptr().add(r * SIDE + 8), sum[1]);
                }
            }
        }
    }
}

/// Adds the products of one slice of coordinates: 4 × 16 at a time, vectorised by the compiler.
fn product_portable(x: &[[f32; SIDE]], y: &[[f32; SIDE]], tile: &mut Tile) {
    const HEIGHT: usize = 4;
    const WIDTH: usize = 16;
    for j in (0..SIDE).step_by(WIDTH) {
        for i in (0..SIDE).step_by(HEIGHT) {
            let mut sums = [[0.0f32; WIDTH]; HEIGHT];
            for (r, sum) in sums.iter_mut().enumerate() {
                sum.copy_from_slice(&tile.0[(i + r) * SIDE + j..][..WIDTH]);
            }
            for (a, b) in x.iter().zip(y) {
                let a: &[f32; HEIGHT] = a[i..].first_chunk().expect("i + 4 ≤ 64");
                let b: &[f32; WIDTH] = b[j..].first_chunk().expect("j + 16 ≤ 64");
                for (sum, &a) in sums.iter_mut().zip(a) {
                    for (s, &b) in sum.iter_mut().zip(b) {
                        *s += a * b;
                    }
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                tile.0[(i + r) * SIDE + j..][..WIDTH].copy_from_slice(sum);
            }
        }
    }
}
