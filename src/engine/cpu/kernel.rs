//! Instruction sets: which one runs, and the only code that is written for one.
//!
//! A [`Job`] is safe, generic code; [`Kernel::run`] compiles it once per instruction set, so that its
//! plain loops over fixed-size arrays become vector code. Only the product of two panels needs
//! intrinsics. Rust neither reorders nor fuses floating-point operations on its own, so two sets that
//! both fuse where the code says `mul_add` give the same bits.

use super::codes::{BaseLane, CodeForm, CodeTile, GROUP, PANEL, QueryLane, plain_product};
use super::grid::{GridLane, plain_products};
use super::panels::Lane;
use super::product::Tile;
use crate::engine::score;
use crate::error::{Error, Result};

#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

use portable::Portable;

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
    #[cfg(target_arch = "aarch64")]
    NeonDot,
    #[cfg(target_arch = "aarch64")]
    Neon,
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
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => "neondot",
            #[cfg(target_arch = "aarch64")]
            Self::Neon => "neon",
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
    /// Exact for codes that were made for this kernel.
    fn code_products(
        self,
        queries: &[QueryLane],
        panel: &[BaseLane],
        offsets: &[i32; GROUP],
        tile: &mut CodeTile,
    );

    /// x·y in f64, in the order of [`score::dot`] and with its bits.
    #[inline(always)]
    fn dot(self, x: &[f32], y: &[f32]) -> f64 {
        score::dot(x, y)
    }

    /// Bit j: whether value j is at least `bar`.
    #[inline(always)]
    fn reached(self, values: &[f32; PANEL], bar: f32) -> u64 {
        let mut reached = 0;
        for (j, &value) in values.iter().enumerate() {
            reached |= u64::from(value >= bar) << j;
        }
        reached
    }

    /// Product of the codes of a query and a base row of the same length, a multiple of 64. Exact.
    /// `offset` is −128·Σ code of the query, for instructions that want one side unsigned.
    #[inline(always)]
    fn code_product(self, query: &[i8], base: &[i8], offset: i32) -> i32 {
        let _ = offset;
        plain_product(query, base)
    }

    /// Products of the 16 rows of panel `a` with the rows of one or two panels `b` of rows on a grid,
    /// into `tile` from (`row`, `column`) on. Exact.
    #[inline(always)]
    fn grid_product(
        self,
        a: &[GridLane],
        b: &[GridLane],
        tile: &mut Tile<i32>,
        row: usize,
        column: usize,
    ) {
        plain_products(a, b, tile, row, column);
    }
}

impl Kernel {
    /// The kernels this CPU can run, best first.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // The dispatch enables no other features, so these checks are what it needs.
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
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
        #[cfg(target_arch = "aarch64")]
        {
            let neon = std::arch::is_aarch64_feature_detected!("neon");
            if neon && std::arch::is_aarch64_feature_detected!("dotprod") {
                kernels.push(Self(Set::NeonDot));
            }
            if neon {
                kernels.push(Self(Set::Neon));
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
            Set::Avx512Vnni | Set::Avx512 | Set::AvxVnni | Set::Avx2 => true,
            #[cfg(target_arch = "aarch64")]
            Set::NeonDot => true,
            #[cfg(target_arch = "aarch64")]
            Set::Neon => false,
            Set::Portable => false,
        }
    }

    /// The codes it multiplies.
    pub(super) fn code_form(self) -> CodeForm {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 | Set::Avx2 => x86::NARROW,
            #[cfg(target_arch = "aarch64")]
            Set::NeonDot => neon::SIGNED,
            _ => CodeForm {
                largest: 127,
                zero: 128,
            },
        }
    }

    /// `avx512vnni`, `avx512`, `avxvnni`, `avx2`, `neondot`, `neon` or `portable`.
    pub(super) fn name(self) -> &'static str {
        self.0.name()
    }

    /// Runs `job` compiled for this instruction set.
    pub(super) fn run<J: Job>(self, job: J) -> J::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vnni => {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vnni,avx2,fma")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(x86::Avx512Vnni(()))
                }
                // SAFETY: this variant is only made where the CPU has avx512f, avx512bw, avx512dq
                // and avx512vnni; no CPU has those without avx2 and fma.
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
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx2,fma")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(x86::Avx512(()))
                }
                // SAFETY: this variant is only made where the CPU has avx512f, avx512bw and
                // avx512dq; no CPU has those without avx2 and fma.
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
            #[cfg(target_arch = "aarch64")]
            Set::NeonDot => {
                #[target_feature(enable = "neon,dotprod")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(neon::NeonDot(()))
                }
                // SAFETY: this variant is only made where the CPU has neon and dotprod.
                unsafe { run(job) }
            }
            #[cfg(target_arch = "aarch64")]
            Set::Neon => {
                #[target_feature(enable = "neon")]
                fn run<J: Job>(job: J) -> J::Output {
                    job.run(neon::Neon(()))
                }
                // SAFETY: this variant is only made where the CPU has neon.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

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

    struct Dot<'a>(&'a [f32], &'a [f32]);

    impl Job for Dot<'_> {
        type Output = f64;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> f64 {
            isa.dot(self.0, self.1)
        }
    }

    #[test]
    fn every_kernel_scores_with_the_same_bits() {
        let mut rng = Philox::new(5, 5);
        for dim in [1, 3, 7, 8, 9, 17, 100, 383, 384, 385, 1536] {
            for exponent in [-40.0, 0.0, 30.0] {
                let mut draw = || -> Vec<f32> {
                    let mut value = || rng.normal() * 10f64.powf(exponent * rng.uniform());
                    (0..dim).map(|_| value() as f32).collect()
                };
                let (x, y) = (draw(), draw());
                let expected = score::dot(&x, &y);
                for kernel in Kernel::available() {
                    let found = kernel.run(Dot(&x, &y));
                    assert_eq!(
                        found.to_bits(),
                        expected.to_bits(),
                        "{} d {dim}",
                        kernel.name()
                    );
                }
            }
        }
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
