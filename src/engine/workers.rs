//! The devices of an engine, and what happens when one fails.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock};

use super::tiles::Operation;
use super::{AnyBackend, Backend, DeviceInfo, Engine};
use crate::error::{Error, Result};

/// Opens a backend.
pub(super) type Open = Box<dyn Fn() -> Result<AnyBackend> + Send + Sync>;

/// A device that takes tiles.
pub(super) struct Worker {
    backend: RwLock<AnyBackend>,
    /// Opens the device again.
    open: Open,
    /// What it was when it was opened first.
    info: DeviceInfo,
    losses: AtomicUsize,
}

impl Worker {
    pub(super) fn new(open: Open) -> Result<Self> {
        let backend = open()?;
        Ok(Self {
            info: backend.device().clone(),
            backend: RwLock::new(backend),
            open,
            losses: AtomicUsize::new(0),
        })
    }

    pub(super) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Calls `f` with the backend.
    pub(super) fn with<T>(&self, f: impl FnOnce(&AnyBackend) -> T) -> T {
        f(&self.backend.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Bytes of x blocks that a hardware GPU keeps on the device; where there is no room for them, they go
/// first.
const KEPT_ON_HARDWARE: u64 = 16 << 30;

impl Engine {
    /// Puts something in the place of a device that was lost: itself, opened again; the second time, or
    /// where it cannot be opened, the CPU, with a warning.
    pub(super) fn recover(&self, worker: &Worker, error: &Error) -> Result<()> {
        let losses = worker.losses.fetch_add(1, Ordering::Relaxed) + 1;
        let name = &worker.info.name;
        let reopened = if losses == 1 {
            (worker.open)().ok()
        } else {
            None
        };
        let backend = match reopened {
            Some(backend) => {
                self.warn(format!("{name} was lost and opened again ({error})"));
                backend
            }
            None => {
                self.warn(format!(
                    "{name} was lost {losses} times; what was left ran on the CPU, whose f32 sums may differ in the last digits ({error})"
                ));
                self.open_cpu()?
            }
        };
        *worker
            .backend
            .write()
            .unwrap_or_else(PoisonError::into_inner) = backend;
        Ok(())
    }

    /// Rows per block that suit every device, and what was learned of their memory.
    pub(super) fn block_rows(&self, operation: Operation, dim: usize) -> usize {
        let suits = |worker: &Worker| worker.with(|b| b.block_rows(operation, dim, self.memory));
        let rows = self.workers.iter().map(suits).min().unwrap_or(1);
        rows.min(self.most_rows.load(Ordering::Relaxed))
    }

    /// Makes no block longer than this from now on.
    pub(super) fn limit_rows(&self, rows: usize) {
        let whole = (rows / 128).max(1) * 128;
        self.most_rows.fetch_min(whole, Ordering::Relaxed);
    }

    /// Blocks of x that a device keeps while those of y pass.
    pub(super) fn cached_blocks(
        &self,
        backend: &AnyBackend,
        operation: Operation,
        dim: usize,
    ) -> usize {
        let device = backend.device();
        let values = self.block_rows(operation, dim) as u64 * dim as u64;
        let room = if device.backend == "cpu" || device.software {
            // What blocks at work leave, who take seven times their rows and as much for results.
            let at_work = 14 * 4 * values;
            (self.memory / 8).max(self.memory.saturating_sub(at_work))
        } else {
            KEPT_ON_HARDWARE
        };
        // In f32, and for a search in f16 too.
        let block = values * 6;
        (room / block.max(1)) as usize
    }
}
