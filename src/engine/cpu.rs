//! The CPU backend: one product core (`product`), an epilogue per operation, compiled for several
//! instruction sets (`kernel`).
//!
//! Every product is one chain of multiply-adds over d, from the first coordinate to the last, whatever
//! its place in a tile, and every sum is formed within a fixed tile of 64 × 64 (or 16 × 16) pairs and
//! added exactly beyond it. So a result does not depend on the number of threads, the size of the
//! blocks or the order of tasks. AVX-512, AVX2 and NEON fuse each multiply-add and agree in every
//! bit; the portable kernel on a CPU without fused multiply-add rounds twice, stays within the accuracy
//! contract of [`crate::engine`], and agrees with itself. (`gram` is computed in f64 by faer, which
//! chooses its own instructions.)

#![allow(
    clippy::needless_range_loop,
    reason = "loops over lanes by index are what the compiler turns into vector code"
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::score::TopK;
use super::threads::Threads;
use super::tiles::Operation;
use super::{Backend, DeviceInfo, NearestRequest, PairHistogram, SumsRequest, TileSums};
use crate::error::Result;

mod axes;
mod block;
mod codes;
mod distances;
mod exp;
mod gram;
mod grid;
mod kernel;
mod measure;
mod nearest;
mod pair_histogram;
mod pair_sums;
mod panels;
mod product;
mod project;
mod screen;

use axes::Screening;
pub use block::CpuBlock;
pub use distances::pair_sq_distances;
use kernel::Kernel;
#[doc(hidden)]
pub use measure::{ProductRates, product_rates};

/// Runs the operations on the CPU.
pub struct CpuBackend {
    info: DeviceInfo,
    kernel: Kernel,
    threads: Threads,
    /// How the search that tiles come from is screened.
    screening: Mutex<Option<(usize, Screening)>>,
}

/// The kernels that this CPU can run, best first: what the environment variable `VECDRIFT_CPU_KERNEL` may
/// name.
pub fn kernels() -> Vec<&'static str> {
    let kernels = Kernel::available();
    kernels.into_iter().map(Kernel::name).collect()
}

/// The CPU with all its cores, as a device.
///
/// # Errors
/// As for opening it.
pub fn device() -> Result<DeviceInfo> {
    CpuBackend::new(&Threads::default()).map(|backend| backend.info)
}

impl CpuBackend {
    /// A backend that computes on `threads`, with the best kernel for this CPU, or the one that the
    /// environment variable `VECDRIFT_CPU_KERNEL` names, one of [`kernels`].
    ///
    /// # Errors
    /// The named kernel is unknown or not supported.
    pub(super) fn new(threads: &Threads) -> Result<Self> {
        let kernel = Kernel::choose()?;
        let count = threads.count();
        let plural = if count == 1 { "" } else { "s" };
        Ok(Self {
            info: DeviceInfo {
                name: format!("{} ({count} thread{plural})", kernel::cpu_name()),
                backend: "cpu".into(),
                precision: format!("f32 ({})", kernel.name()),
                software: false,
            },
            kernel,
            threads: threads.clone(),
            screening: Mutex::default(),
        })
    }

    /// How to screen this tile: as the ones before, or as it looks best from here.
    fn screening(
        &self,
        queries: &CpuBlock,
        base: &CpuBlock,
        request: &NearestRequest<'_>,
    ) -> Screening {
        if !self.kernel.has_code_products() || !screen::pays(request, queries.dim()) {
            return Screening::Values;
        }
        match &*self.known_screening() {
            Some((search, screening)) if *search == request.search.number => {
                return screening.clone();
            }
            _ => {}
        }
        // Not while it is held: what waits for the lock may be what this thread has to do meanwhile.
        let chosen = axes::choose(self.kernel, queries.prepared(), base.prepared(), request);
        *self.known_screening() = Some((request.search.number, chosen.clone()));
        chosen
    }

    fn known_screening(&self) -> MutexGuard<'_, Option<(usize, Screening)>> {
        // Replaced as a whole: a panic elsewhere leaves nothing half done.
        self.screening
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for CpuBackend {
    type Block = CpuBlock;

    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn block_rows(&self, operation: Operation, dim: usize, memory: u64) -> usize {
        // Of `nearest` a longer block saves selections; of the others longer ones gain nothing.
        let most = match operation {
            Operation::Nearest => 16384,
            // Its results grow with the square.
            Operation::PairSums => 4096,
            _ => 8192,
        };
        // Two blocks at work and two on their way, each as it came and as it is packed, for some of the
        // time; blocks of x that are kept have a share of their own.
        let per_row = 7 * 4 * dim as u64;
        // Per pair of rows: six kernels' sums of 16 × 16 pairs, one kernel's sums of 16 pairs on either
        // side, 4 bytes each, and all of that twice (tasks, result): 1.2 bytes.
        let results = |rows: u64| match operation {
            Operation::PairSums => rows * rows / 4 * 5,
            _ => 0,
        };
        let mut rows = (memory / per_row).clamp(64, most) / 64 * 64;
        while rows > 64 && rows * per_row + results(rows) > memory {
            rows -= 64;
        }
        rows as usize
    }

    fn load(&self, operation: Operation, values: &Arc<Vec<f32>>, dim: usize) -> Result<CpuBlock> {
        Ok(self
            .threads
            .install(|| CpuBlock::new(self.kernel, operation, values, dim)))
    }

    fn pair_histogram(&self, x: &CpuBlock, y: &CpuBlock, diagonal: bool) -> Result<PairHistogram> {
        Ok(self.threads.install(|| {
            pair_histogram::pair_histogram(self.kernel, x.panels(), y.panels(), diagonal)
        }))
    }

    fn pair_sums(&self, x: &CpuBlock, y: &CpuBlock, request: SumsRequest<'_>) -> Result<TileSums> {
        Ok(self
            .threads
            .install(|| pair_sums::pair_sums(self.kernel, x.panels(), y.panels(), request)))
    }

    fn nearest(
        &self,
        queries: &CpuBlock,
        base: &CpuBlock,
        request: NearestRequest<'_>,
    ) -> Result<Vec<TopK>> {
        self.threads
            .install(|| match self.screening(queries, base, &request) {
                Screening::Values => {
                    nearest::nearest(self.kernel, queries.panels(), base.panels(), request)
                }
                Screening::Codes(frames) => Ok(screen::nearest(
                    self.kernel,
                    queries,
                    base,
                    &frames,
                    request,
                )),
            })
    }

    fn gram(&self, x: &CpuBlock, y: &CpuBlock) -> Result<Vec<f64>> {
        Ok(self.threads.install(|| gram::gram(x.panels(), y.panels())))
    }

    fn project(&self, x: &CpuBlock, w: &CpuBlock) -> Result<Vec<f32>> {
        Ok(self
            .threads
            .install(|| project::project(self.kernel, x.panels(), w.panels())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_the_memory() {
        let backend = CpuBackend::new(&Threads::default()).expect("a kernel runs here");
        use Operation::{Gram, Nearest, PairHistogram, PairSums, Project};
        for operation in [PairHistogram, PairSums, Nearest, Gram, Project] {
            for dim in [1, 17, 384, 4096, 1 << 20] {
                for memory in [0, 1 << 20, 512 << 20, u64::MAX] {
                    let rows = backend.block_rows(operation, dim, memory);
                    assert!((64..=16384).contains(&rows) && rows.is_multiple_of(64));
                    let needed = rows as u64 * 12 * dim as u64;
                    assert!(
                        rows == 64 || needed <= memory,
                        "{operation:?} {dim} {memory}: {rows}"
                    );
                }
            }
        }
    }
}
