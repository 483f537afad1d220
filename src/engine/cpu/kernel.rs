//! Instruction sets: which one runs, and the only code that is written for one.
//!
//! A [`Job`] is safe, generic code; [`Kernel::run`] compiles it once per instruction set, so that its
//! plain loops over fixed-size arrays become vector code. Only the product of two panels needs
//! intrinsics. Rust neither reorders nor fuses floating-point operations on its own, so two sets that
//! both fuse where the code says `mul_add` give the same bits.

use super::codes::{BaseLane, CodeTile, GROUP, QueryLane, plain_products};
use super::panels::{LANES, Lane};
use super::product::Tile;
use crate::error::{Error, Result};

/// Names the kernel to use, for tests of those that this CPU would not choose.
const CHOICE: &str = "VECDRIFT_CPU_KERNEL";

/// An instruction set that this CPU has.
///
/// The field is private: a kernel exists only where its instructions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Kernel(Set);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    #[cfg(target_arch = "x86_64")]
    Avx512Vnni,
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    AvxVnni,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    Portable,
}

impl Set {
    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => "avx512vnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => "avxvnni",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "avx2",
            Self::Portable => "portable",
        }
    }
}

/// Work that gains from being compiled for an instruction set.
pub(super) trait Job {
    type Output;

    /// Does the work. Implementations and all they call in inner loops are `#[inline(always)]`: code
    /// that is not inlined is not compiled for the set.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// What differs between instruction sets.
pub(super) trait Isa: Copy {
    /// a·b + c; rounded once where the set can.
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32;

    /// Products of the 16 rows of panel `a` with the rows of one or two panels `b`, into `tile` from
    /// (`row`, `column`) on. Each is one chain of `mul_add` over d, from first to last.
    fn panel_product(
        self,
        a: &[Lane],
        b: &[Lane],
        dim: usize,
        tile: &mut Tile,
        row: usize,
        column: usize,
    );

    /// Products of the codes of a group of queries with those of a panel of base rows, from `offsets` on.
    /// Exact.
    fn code_products(
        self,
        queries: &[QueryLane],
        panel: &[BaseLane],
        offsets: &[i32; GROUP],
        tile: &mut CodeTile,
    );
}

impl Kernel {
    /// The kernels this CPU can run, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // The dispatch enables no other features, so these checks are what it needs.
            let avx512 =
                is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq");
            if avx512 && is_x86_feature_detected!("avx512vnni") {
                kernels.push(Self(Set::Avx512Vnni));
            }
            if avx512 {
                kernels.push(Self(Set::Avx512));
            }
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2 && is_x86_feature_detected!("avxvnni") {
                kernels.push(Self(Set::AvxVnni));
            }
            if avx2 {
                kernels.push(Self(Set::Avx2));
            }
        }
        kernels.push(Self(Set::Portable));
        kernels
    }

    /// The best kernel, or the one that the environment variable `VECDRIFT_CPU_KERNEL` names.
    pub(super) fn choose() -> Result<Self> {
        match std::env::var_os(CHOICE) {
            None => Ok(Self::available()[0]),
            Some(name) => Self::named(&name.to_string_lossy()),
        }
    }

    /// The kernel `name`.
    pub(super) fn named(name: &str) -> Result<Self> {
        let kernels = Self::available();
        kernels
            .iter()
            .copied()
            .find(|kernel| kernel.name() == name)
            .ok_or_else(|| {
                let names: Vec<_> = kernels.iter().map(|kernel| kernel.name()).collect();
                Error::device(
                    CHOICE,
                    format!(
                        "kernel \"{name}\" is unknown or not supported by this CPU, expected one of {}",
                        names.join(", ")
                    ),
                )
            })
    }

    /// Whether it multiplies codes much faster than values.
    pub(super) fn has_code_products(self) -> bool {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni | Set::AvxVnni => true,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Avx2 => false,
            Set::Portable => false,
        }
    }

    /// `avx512vnni`, `avx512`, `avxvnni`, `avx2` or `portable`.
    pub(super) fn name(self) -> &'static str {
        self.0.name()
    }

    /// Runs `job` compiled for this instruction set.
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => {
                #[target_feature(enable = "avx512f,avx512dq,avx512vnni,avx2,fma")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(x86::Avx512Vnni(()))
                }
                // SAFETY: this variant is only made where the CPU has avx512f, avx512dq and avx512vnni;
                // no CPU has those without avx2 and fma.
                unsafe { run(job) }
            }
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni => {
                #[target_feature(enable = "avxvnni,avx2,fma")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(x86::AvxVnni(()))
                }
                // SAFETY: this variant is only made where the CPU has avxvnni, avx2 and fma.
                unsafe { run(job) }
            }
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => {
                #[target_feature(enable = "avx512f,avx512dq,avx2,fma")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(x86::Avx512(()))
                }
                // SAFETY: this variant is only made where the CPU has avx512f and avx512dq; no CPU
                // has those without avx2 and fma.
                unsafe { run(job) }
            }
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => {
                #[target_feature(enable = "avx2,fma")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(x86::Avx2(()))
                }
                // SAFETY: this variant is only made where the CPU has avx2 and fma.
                unsafe { run(job) }
            }
            Set::Portable => job.run(Portable),
        }
    }
}

/// What the CPU calls itself, where that is cheaply known.
pub(super) fn cpu_name() -> String {
    #[cfg(target_arch = "x86_64")]
    if let Some(name) = x86::brand() {
        return name;
    }
    std::env::consts::ARCH.to_owned()
}

/// Plain Rust: what every other architecture gets.
#[derive(Clone, Copy)]
struct Portable;

impl Isa for Portable {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // Without the instruction `f32::mul_add` is a slow function call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
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
        /// Rows and columns of A and B per pass: what sixteen 128-bit registers hold.
        const ROWS: usize = 4;
        const COLUMNS: usize = 8;
        for (panel, b) in b.chunks_exact(dim).enumerate() {
            for left in (0..LANES).step_by(COLUMNS) {
                for top in (0..LANES).step_by(ROWS) {
                    let mut sums = [[0.0f32; COLUMNS]; ROWS];
                    for (a, b) in a.iter().zip(b) {
                        let a: &[f32; ROWS] = a.0[top..].first_chunk().expect("16 is 4 · 4");
                        let b: &[f32; COLUMNS] = b.0[left..].first_chunk().expect("16 is 2 · 8");
                        for r in 0..ROWS {
                            for c in 0..COLUMNS {
                                sums[r][c] = self.mul_add(a[r], b[c], sums[r][c]);
                            }
                        }
                    }
                    for (r, sums) in sums.iter().enumerate() {
                        let from = column + panel * LANES + left;
                        tile.row_mut(row + top + r)[from..from + COLUMNS].copy_from_slice(sums);
                    }
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
        plain_products(queries, panel, offsets, tile);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::super::codes::PANEL;
    use super::super::product::SIDE;
    use super::{BaseLane, CodeTile, GROUP, Isa, LANES, Lane, QueryLane, Tile, plain_products};

    /// Made only inside code compiled for AVX-512.
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
        fn new(
            a: &[Lane],
            b: &[Lane],
            dim: usize,
            tile: &mut Tile,
            row: usize,
            column: usize,
        ) -> Self {
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
            plain_products(queries, panel, offsets, tile);
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
            plain_products(queries, panel, offsets, tile);
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

    /// Made only inside code compiled for AVX-512 with VNNI.
    #[derive(Clone, Copy)]
    pub(super) struct Avx512Vnni(pub(super) ());

    /// Made only inside code compiled for AVX2, FMA and AVX-VNNI.
    #[derive(Clone, Copy)]
    pub(super) struct AvxVnni(pub(super) ());

    /// Values as without VNNI, codes by its instructions.
    macro_rules! with_vnni {
        ($name:ident, $values:ident, $codes:ident) => {
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
            }
        };
    }

    with_vnni!(Avx512Vnni, Avx512, avx512_vnni);
    with_vnni!(AvxVnni, Avx2, avx_vnni);

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
                let four = query.0[i].map(|code| code as u8);
                let four = _mm512_set1_epi32(i32::from_ne_bytes(four));
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
                    let four = query.0[i].map(|code| code as u8);
                    let four = _mm256_set1_epi32(i32::from_ne_bytes(four));
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_by_name() {
        for kernel in Kernel::available() {
            assert_eq!(Kernel::named(kernel.name()).expect("available"), kernel);
        }
        assert!(
            Kernel::available()
                .iter()
                .any(|kernel| kernel.name() == "portable")
        );
    }

    #[test]
    fn an_unknown_kernel_is_an_error_that_names_the_choices() {
        let error = Kernel::named("sse9").expect_err("no such kernel");
        assert!(error.is_device());
        let message = error.to_string();
        assert!(
            message.contains("\"sse9\"") && message.contains("portable"),
            "{message}"
        );
    }
}
