//! Five operations on row blocks, exact and mergeable, on any device.
//!
//! Every heavy statistic is a fold over tiles: a *tile* is a row block of X against a row block of Y, a
//! [`Backend`] maps it to a partial result, and partial results merge exactly, whatever their order.
//! [`Engine`] is all the rest of the program sees of devices.
//!
//! # Accuracy contract
//! Products are f32 with f32 accumulation over d: |computed − exact| ≤ (d + 4)·2⁻²³·‖x‖·‖y‖; on tensor
//! cores, which multiply f32 values as two f16 each, (3d + 16)·2⁻²³·‖x‖·‖y‖. For kernel sums, rows of
//! large sets are first moved to a grid, by about 2·10⁻⁴ of their length (see `pair_sums`); with those
//! the CPU computes exactly. Counts are integers. Sums are f32 within a tile of at most 64 × 64 pairs and
//! 128-bit fixed point beyond ([`fixed::FixedSum`]). Where rows are ranked, scores are f64 products of the
//! stored values
//! ([`score`]), and the ranking is proven, not estimated.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Result;

mod any;
pub mod check;
pub mod cpu;
pub mod fixed;
mod fold;
pub mod gpu;
mod gram;
pub mod interrupt;
mod nearest;
mod pair_histogram;
mod pair_sums;
mod project;
pub mod score;
mod threads;
pub mod tiles;
mod workers;

use any::AnyBackend;
pub use cpu::pair_sq_distances;
pub use gram::GramProducts;
pub use nearest::{NearestRequest, Neighbors, SearchExtent, SelfExclusion};
pub use pair_histogram::{COSINE_BINS, PairHistogram};
pub use pair_sums::{
    BlockLayout, GRID_STEP, KernelFamily, PADDING, PairSums, SumsRequest, TileSums,
};
use threads::Threads;
pub(crate) use threads::start_process_pool;
use workers::{Open, Worker};

/// The device that ran a computation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct DeviceInfo {
    /// What the device calls itself.
    pub name: String,
    /// `cpu`, `vulkan`, `metal` or `dx12`.
    pub backend: String,
    /// Arithmetic of the products, e.g. `f32 (avx512f)`.
    pub precision: String,
    /// Whether the device is a software rasteriser: good for tests, slower than the CPU path.
    pub software: bool,
}

impl DeviceInfo {
    /// Several devices as one: what all are called, each kind once.
    fn of_all(infos: &[&Self]) -> Self {
        let joined = |of: fn(&Self) -> &String| {
            let mut kinds: Vec<(&String, usize)> = Vec::new();
            for info in infos {
                match kinds.iter_mut().find(|(kind, _)| *kind == of(info)) {
                    Some((_, count)) => *count += 1,
                    None => kinds.push((of(info), 1)),
                }
            }
            kinds
        };
        let names: Vec<String> = joined(|info| &info.name)
            .into_iter()
            .map(|(name, count)| match count {
                1 => name.clone(),
                _ => format!("{count} × {name}"),
            })
            .collect();
        let once = |of| {
            let kinds: Vec<&str> = joined(of).iter().map(|(kind, _)| kind.as_str()).collect();
            kinds.join(" + ")
        };
        Self {
            name: names.join(" + "),
            backend: once(|info| &info.backend),
            precision: once(|info| &info.precision),
            software: infos.iter().all(|info| info.software),
        }
    }
}

/// What a similarity means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Metric {
    /// x·y / (‖x‖‖y‖), in [-1, 1].
    Cosine,
    /// x·y.
    Dot,
}

/// A device: maps tiles to partial results.
///
/// No method has a default: an operation that a backend lacks does not compile. Rows come prepared
/// (scaled so that no product overflows f32); a backend adds only what its kernels need. A call that
/// fails leaves nothing behind, so that its tile can be computed again, there or elsewhere.
pub trait Backend: Send + Sync {
    /// A row block on the device.
    type Block: Send + Sync;

    /// The device.
    fn device(&self) -> &DeviceInfo;

    /// Rows per block that suit the device for rows of dimension `dim` within `memory` bytes, a
    /// multiple of 64.
    fn block_rows(&self, operation: tiles::Operation, dim: usize, memory: u64) -> usize;

    /// Brings prepared rows of dimension `dim` to the device, in the form that `operation` takes there. A
    /// block that needs the values as they are shares them.
    fn load(
        &self,
        operation: tiles::Operation,
        values: &Arc<Vec<f32>>,
        dim: usize,
    ) -> Result<Self::Block>;

    /// The distribution of the products of x's rows with y's rows, all pairs or, with `diagonal` (x and y
    /// are the same rows), those with i < j.
    fn pair_histogram(
        &self,
        x: &Self::Block,
        y: &Self::Block,
        diagonal: bool,
    ) -> Result<PairHistogram>;

    /// Kernel sums of the pairs of x's rows with y's rows, by sum tile.
    fn pair_sums(
        &self,
        x: &Self::Block,
        y: &Self::Block,
        request: SumsRequest<'_>,
    ) -> Result<TileSums>;

    /// Per query, those of the tile's base rows that belong to its k nearest: screened by bin maxima,
    /// scored exactly. Rows below the query's floor may be missing.
    fn nearest(
        &self,
        queries: &Self::Block,
        base: &Self::Block,
        request: NearestRequest<'_>,
    ) -> Result<Vec<score::TopK>>;

    /// XᵀY of rows that belong together, d × d′ row-major, in f64.
    fn gram(&self, x: &Self::Block, y: &Self::Block) -> Result<Vec<f64>>;

    /// X·Wᵀ, n × p row-major; `w` holds p rows of dimension d.
    fn project(&self, x: &Self::Block, w: &Self::Block) -> Result<Vec<f32>>;
}

/// Hears how far a computation is. All methods may be called from any thread.
pub trait Progress: Send + Sync {
    /// A pass of `total` steps (pairs of rows) named `operation` begins.
    fn begin(&self, operation: &str, total: u64);
    /// `steps` more are done.
    fn advance(&self, steps: u64);
    /// The pass is over.
    fn end(&self);
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64) {}
    fn advance(&self, _: u64) {}
    fn end(&self) {}
}

/// Which device to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// A hardware GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// Any adapter, hardware first; a software one will do.
    Gpu,
    /// The adapter with this index in `vecdrift devices`.
    Index(usize),
    /// The first adapter whose name contains this text.
    Name(String),
    /// Every hardware GPU at once, or every software one where there is no other.
    All,
}

/// How an [`Engine`] is set up.
#[derive(Clone)]
pub struct EngineConfig {
    /// Which device.
    pub device: DeviceChoice,
    /// Threads that compute on the host; `None`: rayon's global pool, as many as there are cores unless the
    /// process set it up otherwise.
    pub threads: Option<usize>,
    /// Working memory beyond rows that are held, in bytes.
    pub memory: u64,
    /// Who hears about progress.
    pub progress: Arc<dyn Progress>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            threads: None,
            memory: 512 << 20,
            progress: Arc::new(Silent),
        }
    }
}

/// The operations, on one device.
pub struct Engine {
    workers: Vec<Worker>,
    info: DeviceInfo,
    threads: Threads,
    memory: u64,
    /// What devices turned out to have memory for.
    most_rows: AtomicUsize,
    progress: Arc<dyn Progress>,
    warnings: Mutex<Vec<String>>,
}

impl Engine {
    /// Opens the chosen device.
    ///
    /// # Errors
    /// The chosen device is not there or cannot run the kernels.
    pub fn new(config: &EngineConfig) -> Result<Self> {
        let threads = Threads::new(config.threads)?;
        let cpu = || -> Open {
            let threads = threads.clone();
            Box::new(move || cpu::CpuBackend::new(&threads).map(AnyBackend::Cpu))
        };
        let gpu = |choice: DeviceChoice| -> Open {
            let threads = threads.clone();
            Box::new(move || {
                let backend = gpu::GpuBackend::new(&choice, &threads)?;
                Ok(AnyBackend::Gpu(Box::new(backend)))
            })
        };
        let devices = match &config.device {
            DeviceChoice::Cpu => vec![cpu()],
            DeviceChoice::Auto if gpu::hardware_adapter().is_none() => vec![cpu()],
            DeviceChoice::Auto => vec![gpu(DeviceChoice::Gpu)],
            DeviceChoice::All => gpu::all_adapters()?
                .into_iter()
                .map(|index| gpu(DeviceChoice::Index(index)))
                .collect(),
            choice => vec![gpu(choice.clone())],
        };
        Self::of(devices, threads.clone(), config)
    }

    /// An engine of one worker per device.
    fn of(devices: Vec<Open>, threads: Threads, config: &EngineConfig) -> Result<Self> {
        let workers = devices
            .into_iter()
            .map(Worker::new)
            .collect::<Result<Vec<_>>>()?;
        let infos: Vec<&DeviceInfo> = workers.iter().map(Worker::info).collect();
        Ok(Self {
            info: DeviceInfo::of_all(&infos),
            workers,
            threads,
            memory: config.memory,
            most_rows: AtomicUsize::new(usize::MAX),
            progress: Arc::clone(&config.progress),
            warnings: Mutex::default(),
        })
    }

    /// The device that runs everything; of several, their names.
    pub fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// What the user must know about the devices: which of them failed, and what was done about it.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn warn(&self, warning: String) {
        self.warnings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(warning);
    }

    fn open_cpu(&self) -> Result<AnyBackend> {
        cpu::CpuBackend::new(&self.threads).map(AnyBackend::Cpu)
    }
}
