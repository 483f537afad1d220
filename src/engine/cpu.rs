//! The CPU backend: one product kernel per instruction set, four epilogues on its tiles.
//!
//! Both blocks of a tile are packed in panels of 64 rows when they are loaded. A product tile of 64 × 64
//! is computed into a small buffer ([`kernel::Kernel::product`]) and handed to an epilogue: counts,
//! kernel sums, bin maxima or a copy. Threads share the tiles of one call by rows of x; what they find
//! is merged as integers or lands in places of its own, so the result does not depend on their number.

use rayon::ThreadPool;
use rayon::prelude::*;

use super::score::{self, TopK};
use super::tiles::Operation;
use super::{Backend, DeviceInfo, NearestRequest, PairHistogram, SumsRequest, TileSums};
use crate::embeddings::Rows;
use crate::error::{Error, Result};
use epilogue::Sums;
use kernel::{Kernel, Panels, SIDE, Tile};

mod epilogue;
mod kernel;

/// Rows of x that one task takes at most, in product tiles: as many as stay in the second-level cache
/// while the tiles of y pass.
const TASK_TILES: usize = 4;

/// Base rows per bin at most. A maximum per 16 products costs next to nothing, and every bin that
/// survives costs as many exact scores.
const WIDEST_BIN: usize = 16;

/// Runs the operations on the CPU.
pub struct CpuBackend {
    info: DeviceInfo,
    kernel: Kernel,
    pool: ThreadPool,
}

/// Rows packed for the product kernel, with what the epilogues need.
pub struct CpuBlock {
    panels: Panels,
    /// ‖x‖², f64 rounded to f32.
    sq_norms: Vec<f32>,
    /// The rows as they came, for [`Backend::gram`].
    values: Vec<f32>,
    dim: usize,
}

impl CpuBlock {
    fn len(&self) -> usize {
        self.sq_norms.len()
    }
}

/// The CPU as a device, without starting threads on it.
pub fn device() -> Result<DeviceInfo> {
    let kernel = Kernel::choose()?;
    Ok(DeviceInfo {
        name: cpu_name(),
        backend: "cpu".to_owned(),
        precision: format!("f32 ({})", kernel.name()),
        software: false,
    })
}

/// The processor's model name where the system tells it.
fn cpu_name() -> String {
    std::fs::read_to_string("/proc/cpuinfo")
        .ok()
        .and_then(|info| {
            let line = info.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        })
        .unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

impl CpuBackend {
    pub(super) fn new(threads: Option<usize>) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.unwrap_or(0))
            .build()
            .map_err(|e| Error::device("cpu", format!("cannot start threads: {e}")))?;
        Ok(Self {
            info: device()?,
            kernel: Kernel::choose()?,
            pool,
        })
    }

    /// Runs `task` for every group of product tiles of x, in parallel. A group is a range of tiles.
    fn by_rows<T: Send>(
        &self,
        x: &CpuBlock,
        task: impl Fn(std::ops::Range<usize>) -> T + Sync + Send,
    ) -> Vec<T> {
        let tiles = x.panels.count();
        let size = tiles
            .div_ceil(4 * self.pool.current_num_threads())
            .clamp(1, TASK_TILES);
        self.pool.install(|| {
            (0..tiles.div_ceil(size))
                .into_par_iter()
                .map(|group| task(group * size..((group + 1) * size).min(tiles)))
                .collect()
        })
    }

    /// Calls `epilogue` with every product tile of the x tiles `group` against the y tiles from
    /// `first_y(x tile)` on.
    fn products(
        &self,
        x: &CpuBlock,
        y: &CpuBlock,
        group: std::ops::Range<usize>,
        diagonal: bool,
        mut epilogue: impl FnMut(usize, usize, &Tile),
    ) {
        let mut tile = Tile::default();
        for ty in if diagonal { group.start } else { 0 }..y.panels.count() {
            for tx in group.clone() {
                if !(diagonal && ty < tx) {
                    self.kernel
                        .product(x.panels.panel(tx), y.panels.panel(ty), &mut tile);
                    epilogue(tx, ty, &tile);
                }
            }
        }
    }
}

/// How many of the rows of product tile `tile` exist.
fn rows_in(block: &CpuBlock, tile: usize) -> usize {
    (block.len() - tile * SIDE).min(SIDE)
}

impl Backend for CpuBackend {
    type Block = CpuBlock;

    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn block_rows(&self, _: Operation, dim: usize, memory: u64) -> usize {
        // A block is held as it came and packed, on two sides, and prepared once more while loading.
        let per_row = (dim as u64 * 4 * 6).max(1);
        let rows = (memory / 2 / per_row).clamp(SIDE as u64, 16_384) as usize;
        rows / SIDE * SIDE
    }

    fn load(&self, rows: Rows<'_>) -> Result<CpuBlock> {
        let sq_norms = self.pool.install(|| {
            rows.values()
                .par_chunks(rows.dim())
                .map(|row| score::dot(row, row) as f32)
                .collect()
        });
        Ok(CpuBlock {
            panels: self.pool.install(|| Panels::pack(rows)),
            sq_norms,
            values: rows.values().to_vec(),
            dim: rows.dim(),
        })
    }

    fn pair_histogram(
        &self,
        x: &CpuBlock,
        y: &CpuBlock,
        diagonal: bool,
        into: &mut PairHistogram,
    ) -> Result<()> {
        let parts = self.by_rows(x, |group| {
            let mut part = PairHistogram::default();
            let mut counts = epilogue::Counts::default();
            self.products(x, y, group, diagonal, |tx, ty, tile| {
                let size = (rows_in(x, tx), rows_in(y, ty));
                let above = diagonal && tx == ty;
                self.kernel
                    .histogram(tile, size, above, &mut counts, &mut part);
            });
            counts.flush(&mut part);
            part
        });
        parts.iter().for_each(|part| into.merge(part));
        Ok(())
    }

    fn pair_sums(&self, x: &CpuBlock, y: &CpuBlock, request: SumsRequest<'_>) -> Result<TileSums> {
        let (x_tiles, y_tiles) = (request.x_tiles(), request.y_tiles());
        let kernels = request.kernels.len();
        let row_sums = request.row_sums_of.is_some();
        let per_tile = SIDE / request.side;
        // What a task computes is contiguous by x, save the sums over y's rows: those it hands back.
        let parts = self.by_rows(x, |group| {
            let rows = group.start * SIDE..(group.end * SIDE).min(x.len());
            let tiles = group.start * per_tile..(group.end * per_tile).min(x_tiles);
            let mut part = TileSums {
                sums: vec![0.0; tiles.len() * y_tiles * kernels],
                x_rows: vec![0.0; if row_sums { rows.len() * y_tiles } else { 0 }],
                y_rows: vec![0.0; if row_sums { y.len() * tiles.len() } else { 0 }],
            };
            let mut sums = Sums::new(&request);
            self.products(x, y, group, request.diagonal, |tx, ty, tile| {
                self.kernel.sums(
                    tile,
                    (tx, ty),
                    (&x.sq_norms, &y.sq_norms),
                    &request,
                    &mut sums,
                );
                let above_only = request.diagonal && tx == ty;
                sums.place(
                    &request,
                    (tx, ty),
                    above_only,
                    tiles.start,
                    tiles.len(),
                    &mut part,
                );
            });
            (tiles, part)
        });
        let mut all = TileSums {
            sums: Vec::with_capacity(x_tiles * y_tiles * kernels),
            ..TileSums::default()
        };
        if row_sums {
            all.y_rows = vec![0.0; y.len() * x_tiles];
        }
        for (tiles, part) in parts {
            all.sums.extend(part.sums);
            all.x_rows.extend(part.x_rows);
            for (row, sums) in part.y_rows.chunks_exact(tiles.len().max(1)).enumerate() {
                all.y_rows[row * x_tiles..][tiles.clone()].copy_from_slice(sums);
            }
        }
        Ok(all)
    }

    fn nearest(
        &self,
        queries: &CpuBlock,
        base: &CpuBlock,
        request: NearestRequest<'_>,
        into: &mut [TopK],
    ) -> Result<()> {
        let Some(k) = into.first().map(TopK::k) else {
            return Ok(());
        };
        let width = request.bin_width(k, WIDEST_BIN);
        let excluded = request.excluded_counts();
        let bins = base.len().div_ceil(width);
        let lists = self.by_rows(queries, |group| {
            let rows = group.start * SIDE..(group.end * SIDE).min(queries.len());
            let mut maxima = vec![f32::NAN; rows.len() * bins];
            self.products(queries, base, group, false, |tx, ty, tile| {
                let first = tx * SIDE - rows.start;
                let size = (rows_in(queries, tx), rows_in(base, ty));
                let at = ty * (SIDE / width);
                self.kernel
                    .maxima(tile, size, width, &mut maxima[first * bins..], bins, at);
            });
            let mut scratch = Vec::new();
            rows.zip(maxima.chunks_exact(bins))
                .map(|(query, maxima)| {
                    let mut list = into[query].clone();
                    request.select_and_score(
                        query,
                        excluded[query],
                        width,
                        maxima,
                        &mut scratch,
                        &mut list,
                    )?;
                    Ok(list)
                })
                .collect::<Result<Vec<TopK>>>()
        });
        let lists = lists.into_iter().collect::<Result<Vec<_>>>()?;
        for (to, list) in into.iter_mut().zip(lists.into_iter().flatten()) {
            *to = list;
        }
        Ok(())
    }

    fn gram(&self, x: &CpuBlock, y: &CpuBlock) -> Result<Vec<f64>> {
        use faer::linalg::matmul::matmul;
        use faer::{Accum, MatMut, MatRef, Par};
        /// Output columns per task: fixed, so that no sum depends on the number of threads.
        const COLUMNS: usize = 64;
        let rows = x.len();
        let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
        let (xs, ys) = (wide(&x.values), wide(&y.values));
        let xs = MatRef::from_row_major_slice(&xs, rows, x.dim);
        let ys = MatRef::from_row_major_slice(&ys, rows, y.dim);
        let panels: Vec<Vec<f64>> = self.pool.install(|| {
            (0..y.dim.div_ceil(COLUMNS))
                .into_par_iter()
                .map(|panel| {
                    let from = panel * COLUMNS;
                    let columns = (y.dim - from).min(COLUMNS);
                    let mut product = vec![0.0; x.dim * columns];
                    matmul(
                        MatMut::from_row_major_slice_mut(&mut product, x.dim, columns),
                        Accum::Replace,
                        xs.transpose(),
                        ys.subcols(from, columns),
                        1.0,
                        Par::Seq,
                    );
                    product
                })
                .collect()
        });
        let mut products = vec![0.0; x.dim * y.dim];
        for (panel, product) in panels.iter().enumerate() {
            let columns = product.len() / x.dim;
            for (row, values) in product.chunks_exact(columns).enumerate() {
                products[row * y.dim + panel * COLUMNS..][..columns].copy_from_slice(values);
            }
        }
        Ok(products)
    }

    fn project(&self, x: &CpuBlock, w: &CpuBlock) -> Result<Vec<f32>> {
        let columns = w.len();
        let parts = self.by_rows(x, |group| {
            let rows = group.start * SIDE..(group.end * SIDE).min(x.len());
            let mut part = vec![f32::NAN; rows.len() * columns];
            self.products(x, w, group, false, |tx, ty, tile| {
                let (height, width) = (rows_in(x, tx), rows_in(w, ty));
                for (i, row) in tile.rows().take(height).enumerate() {
                    let at = (tx * SIDE - rows.start + i) * columns + ty * SIDE;
                    part[at..at + width].copy_from_slice(&row[..width]);
                }
            });
            part
        });
        Ok(parts.concat())
    }
}
