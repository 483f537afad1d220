//! Instruction sets: which one runs, and the only code that is written for one.
//!
//! A [`Job`] is safe, generic code; [`Kernel::run`] compiles it once per instruction set, so that its
//! plain loops over fixed-size arrays become vector code. Only the product of two panels needs
//! intrinsics. Rust neither reorders nor fuses floating-point operations on its own, so two sets that
//! both fuse where the code says `mul_add` give the same bits.

use super::codes::{BaseLane, CodeTile, GROUP, QueryLane};
use super::grid::{GridLane, plain_products};
use super::panels::Lane;
use super::product::Tile;
use crate::error::{Error, Result};

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
