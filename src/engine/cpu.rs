//! The CPU backend: one product core (`product`), an epilogue per operation, compiled for several
//! instruction sets (`kernel`).
//!
//! Every product is one chain of multiply-adds over d, from the first coordinate to the last, whatever
//! its place in a tile, and every sum is formed within a fixed tile of 64 × 64 (or 16 × 16) pairs and
//! added exactly beyond it. So a result does not depend on the number of threads, the size of the
//! blocks or the order of tasks. AVX-512 and AVX2 (and NEON) fuse each multiply-add and agree in every
//! bit; the portable kernel on a CPU without fused multiply-add rounds twice, stays within the accuracy
//! contract of [`crate::engine`], and agrees with itself. (`gram` is computed in f64 by faer, which
//! chooses its own instructions.)

#![allow(
    clippy::needless_range_loop,
    reason = "loops over lanes by index are what the compiler turns into vector code"
)]

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::score::TopK;
use super::tiles::Operation;
use super::{Backend, DeviceInfo, NearestRequest, PairHistogram, SumsRequest, TileSums};
use crate::embeddings::Rows;
use crate::error::{Error, Result};

mod block;
mod codes;
mod distances;
mod exp;
mod gram;
mod grid;
mod kernel;
mod nearest;
mod pair_histogram;
mod pair_sums;
mod panels;
mod product;
mod project;
mod screen;

pub use block::CpuBlock;
pub use distances::pair_sq_distances;
use kernel::Kernel;

/// Runs the operations on the CPU.
pub struct CpuBackend {
    info: DeviceInfo,
    kernel: Kernel,
    pool: ThreadPool,
}

/// The CPU with all its cores, as a device.
///
/// # Errors
/// As for opening it.
pub fn device() -> Result<DeviceInfo> {
    CpuBackend::new(None).map(|backend| backend.info)
}

impl CpuBackend {
    /// A backend of `threads` threads (`None`: all cores) and the best kernel for this CPU, or the one
    /// that the environment variable `VECDRIFT_CPU_KERNEL` names: `avx512vnni`, `avx512`, `avxvnni`,
    /// `avx2` or `portable`.
    ///
    /// # Errors
    /// The named kernel is unknown or not supported, or no threads can be started.
    pub(super) fn new(threads: Option<usize>) -> Result<Self> {
        let kernel = Kernel::choose()?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads.unwrap_or(0))
            .thread_name(|i| format!("vecdrift-cpu-{i}"))
            .build()
            .map_err(|error| Error::device("cpu", error))?;
        let threads = pool.current_num_threads();
        let plural = if threads == 1 { "" } else { "s" };
        Ok(Self {
            info: DeviceInfo {
                name: format!("{} ({threads} thread{plural})", kernel::cpu_name()),
                backend: "cpu".into(),
                precision: format!("f32 ({})", kernel.name()),
                software: false,
            },
            kernel,
            pool,
        })
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

    fn load(&self, operation: Operation, rows: Rows<'_>) -> Result<CpuBlock> {
        Ok(self
            .pool
            .install(|| CpuBlock::new(self.kernel, operation, rows)))
    }

    fn pair_histogram(&self, x: &CpuBlock, y: &CpuBlock, diagonal: bool) -> Result<PairHistogram> {
        Ok(self.pool.install(|| {
            pair_histogram::pair_histogram(self.kernel, x.panels(), y.panels(), diagonal)
        }))
    }

    fn pair_sums(&self, x: &CpuBlock, y: &CpuBlock, request: SumsRequest<'_>) -> Result<TileSums> {
        Ok(self
            .pool
            .install(|| pair_sums::pair_sums(self.kernel, x.panels(), y.panels(), request)))
    }

    fn nearest(
        &self,
        queries: &CpuBlock,
        base: &CpuBlock,
        request: NearestRequest<'_>,
    ) -> Result<Vec<TopK>> {
        self.pool.install(|| {
            if self.kernel.has_code_products() && screen::pays(&request, queries.dim()) {
                let (queries, base) = (queries.codes(self.kernel), base.codes(self.kernel));
                Ok(screen::nearest(self.kernel, queries, base, request))
            } else {
                nearest::nearest(self.kernel, queries.panels(), base.panels(), request)
            }
        })
    }

    fn gram(&self, x: &CpuBlock, y: &CpuBlock) -> Result<Vec<f64>> {
        Ok(self.pool.install(|| gram::gram(x.panels(), y.panels())))
    }

    fn project(&self, x: &CpuBlock, w: &CpuBlock) -> Result<Vec<f32>> {
        Ok(self
            .pool
            .install(|| project::project(self.kernel, x.panels(), w.panels())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_fit_the_memory() {
        let backend = CpuBackend::new(Some(1)).expect("one thread");
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
