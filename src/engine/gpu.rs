//! The GPU backend: product cores in WGSL, an epilogue per operation, and the cross-products.
//!
//! A core computes *patches* of product tiles of 64 × 64; which core serves an operation is decided per
//! adapter (`cores`). Rows are packed while they are loaded, as the core wants them (`pack`). An
//! operation runs in *bands* of x, each with results that fit a buffer, and a band in *pieces*, each a
//! submission short enough for any watchdog. A product tile is computed in one way wherever it lies, so
//! neither changes a bit of the result.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use super::score::TopK;
use super::threads::Threads;
use super::tiles::Operation;
use super::{
    Backend, DeviceChoice, DeviceInfo, NearestRequest, PairHistogram, SumsRequest, TileSums,
};
use crate::embeddings::F32Rows;
use crate::error::Result;
use cores::Choice;
use device::{Device, Pipeline};
use schedule::{Pace, Piece, pieces};
use shaders::{Core, Kernel, Shader};

mod adapters;
mod cores;
mod device;
mod gram;
#[doc(hidden)]
pub mod measure;
mod nearest;
mod pack;
mod pair_histogram;
mod pair_sums;
mod profile;
mod project;
mod schedule;
#[doc(hidden)]
pub mod shaders;

pub use adapters::{AdapterInfo, adapter_index, adapters, all_adapters, hardware_adapter};
pub use cores::CoreReport;
pub use profile::{DeviceProfile, KnownProfile, profile};

/// Rows and columns of a product tile, and rows of a panel.
const SIDE: usize = 64;
/// Bytes of results that one band brings back.
const BAND_BYTES: u64 = 32 << 20;
/// Multiply-adds of a first submission: a fraction of a second even on the slowest device of its kind.
const WORK_HARDWARE: usize = 1 << 33;
const WORK_SOFTWARE: usize = 1 << 30;
/// Rows per block at most. Large blocks hide the upload; on a software device they would only make
/// progress coarse.
const BLOCK_HARDWARE: u64 = 65_536;
const BLOCK_SOFTWARE: u64 = 4096;
/// Rows per block at most where results come back for every sum tile.
const BLOCK_SUMS: u64 = 8192;

/// Runs the operations on a GPU.
pub struct GpuBackend {
    info: DeviceInfo,
    device: Device,
    choice: Choice,
    /// Compiled when they are first needed.
    pipelines: Mutex<HashMap<(&'static str, Core), Arc<Pipeline>>>,
    threads: Threads,
    /// Bytes of results per band.
    band_bytes: u64,
    /// Multiply-adds of the first submission of a kernel.
    work: usize,
    paces: Mutex<HashMap<(&'static str, Core), Pace>>,
}

/// Rows on the device.
pub struct GpuBlock {
    /// As the operation's core wants them.
    packed: wgpu::Buffer,
    core: Core,
    /// In f32, where the operation needs them so too and the core holds them otherwise.
    exact: Option<wgpu::Buffer>,
    /// ‖x‖² per row, f64 rounded to f32, padded with 0; for `pair_sums`.
    sq_norms: Option<wgpu::Buffer>,
    /// ‖x − x̃‖ per row, x̃ being the row as the core holds it; empty where that is the row.
    residuals: Vec<f64>,
    rows: usize,
    dim: usize,
}

impl GpuBlock {
    fn tiles(&self) -> usize {
        self.rows.div_ceil(SIDE)
    }

    /// Slices of coordinates as the core has them.
    fn slices(&self) -> usize {
        self.dim.div_ceil(self.core.slice())
    }

    /// The rows as panels of f32.
    fn exact(&self) -> &wgpu::Buffer {
        self.exact.as_ref().unwrap_or(&self.packed)
    }

    /// Multiply-adds of a tile with one of another block.
    fn tile_work(&self) -> usize {
        SIDE * SIDE * self.slices() * self.core.slice()
    }
}

impl GpuBackend {
    /// The adapter that a choice means, with one core for everything that it can do. `limit` may take away
    /// from what the adapter allows.
    fn on_core(
        choice: &DeviceChoice,
        core: &str,
        limit: impl FnOnce(&mut wgpu::Limits),
    ) -> Result<Self> {
        let adapter = adapters::choose(choice)?;
        let mut limits = adapter.limits();
        limit(&mut limits);
        let candidates = cores::candidates(&adapter);
        let core = cores::named(&candidates, core)?;
        let mut this = Self::bare(&adapter, limits.clone(), &Threads::default())?;
        this.choice = Choice::only(core, &limits);
        this.info.precision = this.choice.precision();
        Ok(this)
    }

    pub(super) fn new(choice: &DeviceChoice, threads: &Threads) -> Result<Self> {
        let adapter = adapters::choose(choice)?;
        let mut this = Self::bare(&adapter, adapter.limits(), threads)?;
        this.choice = profile::choice(&this, &adapter)?;
        this.info.precision = this.choice.precision();
        Ok(this)
    }

    /// A backend that knows no core but the plain one.
    fn bare(adapter: &wgpu::Adapter, limits: wgpu::Limits, threads: &Threads) -> Result<Self> {
        let device = Device::open(adapter, limits)?;
        let info = adapters::device_info(adapter);
        Ok(Self {
            work: if info.software {
                WORK_SOFTWARE
            } else {
                WORK_HARDWARE
            },
            band_bytes: BAND_BYTES,
            choice: Choice::default(),
            info,
            device,
            pipelines: Mutex::default(),
            paces: Mutex::default(),
            threads: threads.clone(),
        })
    }

    /// The kernel joined with the core, compiled.
    fn pipeline(&self, kernel: &'static Kernel, core: Core) -> Result<Arc<Pipeline>> {
        let mut pipelines = self
            .pipelines
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let key = (kernel.name, core);
        if let Some(pipeline) = pipelines.get(&key) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(self.device.pipeline(&Shader::new(kernel, core))?);
        pipelines.insert(key, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// Tiles of x per band, a multiple of the largest patch, when one of them gives `bytes` of results.
    fn band_tiles(&self, operation: Operation, bytes: u64) -> Result<usize> {
        let limit = self.device.max_binding();
        if 2 * bytes > limit {
            return Err(self
                .device
                .error(format!(
                    "{}: 128 rows give {} bytes of results, the device binds at most {limit}",
                    operation.name(),
                    2 * bytes
                ))
                .hint("use --device cpu"));
        }
        Ok((self.band_bytes.min(limit) / bytes.max(1) / 2 * 2).max(2) as usize)
    }

    /// Cuts the tiles x × y of a kernel on `core` into submissions, of at most `groups` workgroups each.
    /// `strip` is how many tiles of y a workgroup takes, `work` the multiply-adds of a tile.
    fn pieces(
        &self,
        (kernel, core): (&'static Kernel, Core),
        (x, y): (Range<usize>, Range<usize>),
        strip: usize,
        work: usize,
        groups: usize,
    ) -> Vec<Piece> {
        let side = self.device.limits().max_compute_workgroups_per_dimension as usize;
        let paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = paces.get(&(kernel.name, core));
        let wanted = pace.map_or(self.work, |pace| pace.work(self.work));
        let tiles = (wanted / work.max(1)).min(groups.saturating_mul(strip * core.patch));
        pieces(x, y, [core.patch, strip.max(core.patch)], tiles, side)
    }

    /// Runs a kernel on a piece, a tile of which takes `work` multiply-adds.
    fn run<P: bytemuck::NoUninit>(
        &self,
        (kernel, core): (&'static Kernel, Core),
        (piece, work): (&Piece, usize),
        params: &P,
        buffers: &[&wgpu::Buffer],
    ) -> Result<()> {
        let pipeline = self.pipeline(kernel, core)?;
        let with_pace = |change: &mut dyn FnMut(&mut Pace) -> bool| {
            let mut paces = self.paces.lock().unwrap_or_else(PoisonError::into_inner);
            change(paces.entry((kernel.name, core)).or_default())
        };
        if !with_pace(&mut Pace::should_time) {
            return self.device.run(&pipeline, params, buffers, piece.grid());
        }
        let seconds = self
            .device
            .run_timed(&pipeline, params, buffers, piece.grid())?;
        with_pace(&mut |pace| {
            pace.note(piece.x.len() * piece.y.len() * work, seconds);
            true
        });
        Ok(())
    }

    /// Uploads rows as the core wants them.
    fn upload(&self, core: Core, rows: F32Rows<'_>) -> Result<wgpu::Buffer> {
        let packed = self.threads.install(|| pack::pack(core, rows));
        let (bytes, limit) = (packed.bytes().len() as u64, self.device.max_binding());
        if bytes > limit {
            return Err(self
                .device
                .error(format!(
                    "{} rows of dimension {} take {bytes} bytes, the device binds at most {limit}",
                    rows.len(),
                    rows.dim()
                ))
                .hint("use --device cpu"));
        }
        self.device.input(packed.bytes())
    }

    /// Brings rows to the device for an operation that runs on `core`.
    fn load_for(&self, operation: Operation, core: Core, rows: F32Rows<'_>) -> Result<GpuBlock> {
        let (rescored, summed) = (
            operation == Operation::Nearest,
            operation == Operation::PairSums,
        );
        Ok(GpuBlock {
            packed: self.upload(core, rows)?,
            core,
            exact: if rescored && !core.holds_panels_of_f32() {
                Some(self.upload(Core::PLAIN, rows)?)
            } else {
                None
            },
            sq_norms: if summed {
                let sq_norms = self.threads.install(|| pack::sq_norms(core, rows));
                Some(self.device.input(&sq_norms)?)
            } else {
                None
            },
            residuals: if rescored && !core.is_full_grade() {
                self.threads.install(|| pack::half_residuals(rows))
            } else {
                Vec::new()
            },
            rows: rows.len(),
            dim: rows.dim(),
        })
    }
}

impl Backend for GpuBackend {
    type Block = GpuBlock;

    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn block_rows(&self, operation: Operation, dim: usize, memory: u64) -> usize {
        // While a block is loaded it exists prepared, packed and on its way.
        let bytes_per_row = pack::bytes_per_row(Core::PLAIN, dim);
        let fits_memory = memory / 2 / (3 * bytes_per_row);
        let limit = self.device.max_binding();
        // Two tiles of x against the block give at most 512 bytes of results per row.
        let fits_binding = (limit / bytes_per_row).min(limit / 512);
        let most = match (self.info.software, operation) {
            (true, _) => BLOCK_SOFTWARE,
            (false, Operation::PairSums) => BLOCK_SUMS,
            (false, _) => BLOCK_HARDWARE,
        };
        // Whole patches: packed rows are padded to them.
        let side = 2 * SIDE as u64;
        (fits_memory.min(fits_binding).clamp(side, most) / side * side) as usize
    }

    fn load(&self, operation: Operation, values: &Arc<Vec<f32>>, dim: usize) -> Result<GpuBlock> {
        let rows = F32Rows::new(values, dim);
        self.load_for(operation, self.choice.core(operation), rows)
    }

    fn pair_histogram(&self, x: &GpuBlock, y: &GpuBlock, diagonal: bool) -> Result<PairHistogram> {
        pair_histogram::pair_histogram(self, x, y, diagonal)
    }

    fn pair_sums(&self, x: &GpuBlock, y: &GpuBlock, request: SumsRequest<'_>) -> Result<TileSums> {
        pair_sums::pair_sums(self, x, y, request)
    }

    fn nearest(
        &self,
        queries: &GpuBlock,
        base: &GpuBlock,
        request: NearestRequest<'_>,
    ) -> Result<Vec<TopK>> {
        nearest::nearest(self, queries, base, request)
    }

    fn gram(&self, x: &GpuBlock, y: &GpuBlock) -> Result<Vec<f64>> {
        gram::gram(self, x, y)
    }

    fn project(&self, x: &GpuBlock, w: &GpuBlock) -> Result<Vec<f32>> {
        project::project(self, x, w)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct AllResults {
        histograms: Vec<PairHistogram>,
        sums: Vec<TileSums>,
        lists: Vec<TopK>,
        gram: Vec<f64>,
        projected: Vec<f32>,
    }

    /// Results of every operation for two blocks, one call each.
    fn all_results(backend: &GpuBackend) -> Result<AllResults> {
        let (n, m, dim) = (208, 336, 20);
        let values = |rows: usize, stream: u64| -> Vec<f32> {
            let mut random = crate::stats::rng::Philox::new(11, stream);
            (0..rows * dim)
                .map(|_| random.normal() as f32 / 9.0)
                .collect()
        };
        let (xs, ys) = (values(n, 0), values(m, 1));
        let (x_rows, y_rows) = (F32Rows::new(&xs, dim), F32Rows::new(&ys, dim));
        let both = |operation| -> Result<_> {
            let load = |values: &Vec<f32>| backend.load(operation, &Arc::new(values.clone()), dim);
            Ok((load(&xs)?, load(&ys)?))
        };
        let (x, y) = both(Operation::PairHistogram)?;
        let histograms = vec![
            backend.pair_histogram(&x, &x, true)?,
            backend.pair_histogram(&x, &y, false)?,
        ];

        let kernels = super::super::KernelFamily {
            gamma: 0.1,
            rbf: 4,
            energy: true,
            offsets: vec![0.5; 5],
        };
        let groups: Vec<u32> = (0..m as u32).collect();
        let (x, y) = both(Operation::PairSums)?;
        let mut sums = Vec::new();
        for (y, y_groups, diagonal) in [(&x, &groups[..n], true), (&y, &groups[..], false)] {
            let request = SumsRequest {
                kernels: &kernels,
                side: 16,
                x_groups: &groups[..n],
                y_groups,
                diagonal,
                row_sums_of: Some(1),
                on_grid: false,
            };
            sums.push(backend.pair_sums(&x, y, request)?);
        }

        let norms = |rows: F32Rows<'_>| -> Vec<f64> {
            rows.iter().map(super::super::score::norm).collect()
        };
        let request = NearestRequest {
            search: crate::engine::SearchExtent {
                number: 0,
                queries: n,
                base_rows: y_rows.len(),
            },
            k: 5,
            floors: &vec![f64::NEG_INFINITY; n],
            metric: crate::engine::Metric::Dot,
            queries: x_rows,
            base: y_rows,
            query_norms: &norms(x_rows),
            base_norms: &norms(y_rows),
            query_scales: &vec![1.0; n],
            first_base_row: 5,
            exclude: None,
            screen_error: 1e-4,
        };
        let (x, y) = both(Operation::Nearest)?;
        let lists = backend.nearest(&x, &y, request)?;

        let (x, _) = both(Operation::Gram)?;
        let first = backend.load(Operation::Gram, &Arc::new(ys[..n * dim].to_vec()), dim)?;
        let gram = backend.gram(&x, &first)?;
        let (x, y) = both(Operation::Project)?;
        Ok(AllResults {
            histograms,
            sums,
            lists,
            gram,
            projected: backend.project(&x, &y)?,
        })
    }

    #[test]
    fn neither_bands_nor_pieces_change_a_bit() {
        let mut backend = match GpuBackend::new(&DeviceChoice::Gpu, &Threads::default()) {
            Ok(backend) => backend,
            Err(error) if std::env::var("VECDRIFT_REQUIRE_GPU").as_deref() == Ok("1") => {
                panic!("VECDRIFT_REQUIRE_GPU=1: {error}")
            }
            Err(error) => return eprintln!("**** NO GPU TEST WAS RUN: {error} ****"),
        };
        let whole = all_results(&backend).unwrap();
        // One tile per band, one per submission; then two of each, then bands of many pieces.
        for (band_bytes, work) in [(1, 1), (20_000, 2 * 64 * 64 * 32), (1 << 20, 64 * 64 * 32)] {
            (backend.band_bytes, backend.work) = (band_bytes, work);
            let cut = all_results(&backend).unwrap();
            assert_eq!(cut, whole, "{band_bytes} bytes, {work} multiply-adds");
        }
        backend.device.destroy();
        assert!(all_results(&backend).unwrap_err().is_device());
    }
}
