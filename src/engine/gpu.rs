//! The GPU backend: one product core in WGSL, four epilogues, and the cross-products.
//!
//! Rows are packed in panels of 64 while they are loaded, as `shaders/common/product.wgsl` wants them.
//! An operation runs in *bands* of x, each with results that fit a buffer, and a band in *pieces*, each a
//! submission short enough for any watchdog. A product tile is computed in one way wherever it lies, so
//! neither changes a bit of the result.

use std::ops::Range;

use bytemuck::Zeroable;
use rayon::ThreadPool;
use rayon::prelude::*;

use super::score::{self, TopK};
use super::tiles::Operation;
use super::{
    Backend, COSINE_BINS, DeviceChoice, DeviceInfo, NearestRequest, PADDING, PairHistogram,
    SumsRequest, TileSums,
};
use crate::embeddings::Rows;
use crate::error::{Error, Result};
use device::{Device, Pipeline};
use schedule::{Piece, in_bands, pieces};
use shaders::{
    GramParams, NearestParams, PairHistogramParams, PairSumsParams, ProjectParams, SHADERS,
};

mod adapters;
mod device;
mod schedule;
#[doc(hidden)]
pub mod shaders;

pub use adapters::{AdapterInfo, adapters, hardware_adapter};

/// Rows and columns of a product tile, and rows of a panel.
const SIDE: usize = 64;
/// Coordinates per slice of a panel.
const SLICE: usize = 16;
/// Tiles of y that one workgroup of `pair_histogram` counts before it adds to the global counts.
const STRIP: usize = 4;
// Its counts are 16 bits wide.
const _: () = assert!(STRIP * SIDE * SIDE <= u16::MAX as usize);
/// Base rows per bin at most.
const WIDEST_BIN: usize = 64;
/// Bytes of results that one band brings back.
const BAND_BYTES: u64 = 32 << 20;
/// Tiles that one band of `pair_histogram` counts: half of what a 32-bit count can hold.
const BAND_COUNTED: usize = (1 << 31) / (SIDE * SIDE);
/// Multiply-adds per submission: well under a second even on the slowest device of its kind.
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
    pipelines: Vec<(&'static str, Pipeline)>,
    pool: ThreadPool,
    /// Bytes of results per band.
    band_bytes: u64,
    /// Multiply-adds per submission.
    work: usize,
}

/// Rows on the device.
pub struct GpuBlock {
    /// `[panel][coordinate][64 rows]`, padded with 0.
    panels: wgpu::Buffer,
    /// ‖x‖² per row, f64 rounded to f32, padded with 0.
    sq_norms: wgpu::Buffer,
    rows: usize,
    dim: usize,
}

impl GpuBlock {
    fn tiles(&self) -> usize {
        self.rows.div_ceil(SIDE)
    }

    fn slices(&self) -> usize {
        self.dim.div_ceil(SLICE)
    }

    fn padded_dim(&self) -> usize {
        self.slices() * SLICE
    }
}

impl GpuBackend {
    pub(super) fn new(choice: &DeviceChoice, threads: Option<usize>) -> Result<Self> {
        let adapter = adapters::choose(choice)?;
        let device = Device::open(&adapter)?;
        let pipelines = SHADERS
            .iter()
            .map(|shader| Ok((shader.name, device.pipeline(shader)?)))
            .collect::<Result<_>>()?;
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads.unwrap_or(0))
            .build()
            .map_err(|e| Error::device("cpu", format!("cannot start threads: {e}")))?;
        let info = adapters::device_info(&adapter);
        Ok(Self {
            work: if info.software {
                WORK_SOFTWARE
            } else {
                WORK_HARDWARE
            },
            band_bytes: BAND_BYTES,
            info,
            device,
            pipelines,
            pool,
        })
    }

    fn pipeline(&self, operation: Operation) -> &Pipeline {
        let found = self.pipelines.iter().find(|(n, _)| *n == operation.name());
        &found.expect("every operation has a shader").1
    }

    /// Tiles of x per band, when one of them gives `bytes` of results.
    fn band_tiles(&self, operation: Operation, bytes: u64) -> Result<usize> {
        let limit = self.device.max_binding();
        if bytes > limit {
            return Err(self
                .device
                .error(format!(
                    "{}: 64 rows give {bytes} bytes of results, the device binds at most {limit}",
                    operation.name()
                ))
                .hint("use --device cpu"));
        }
        Ok((self.band_bytes.min(limit) / bytes.max(1)).max(1) as usize)
    }

    /// Runs a kernel on the tiles `x` × `y`, piece by piece. `params` gives its parameters for a piece,
    /// `strip` is how many tiles of y a workgroup takes, `work` the multiply-adds of a tile.
    fn run<P: bytemuck::NoUninit>(
        &self,
        operation: Operation,
        (x, y): (Range<usize>, Range<usize>),
        (strip, work): (usize, usize),
        diagonal: bool,
        buffers: &[&wgpu::Buffer],
        params: impl Fn(&Piece) -> P,
    ) -> Result<()> {
        let side = self.device.limits().max_compute_workgroups_per_dimension as usize;
        for piece in pieces(x, y, strip, self.work / work.max(1), side) {
            if !(diagonal && piece.below_diagonal()) {
                let pipeline = self.pipeline(operation);
                self.device
                    .run(pipeline, &params(&piece), buffers, piece.grid(strip))?;
            }
        }
        Ok(())
    }
}

/// Rows as panels, and their squared norms.
fn pack(rows: Rows<'_>) -> (Vec<f32>, Vec<f32>) {
    let dim = rows.dim();
    let padded = dim.next_multiple_of(SLICE);
    let panels = rows.len().div_ceil(SIDE);
    let mut packed = vec![0.0f32; panels * padded * SIDE];
    let mut sq_norms = vec![0.0f32; panels * SIDE];
    packed
        .par_chunks_mut(padded * SIDE)
        .zip(sq_norms.par_chunks_mut(SIDE))
        .zip(rows.values().par_chunks(SIDE * dim))
        .for_each(|((panel, sq_norms), values)| {
            // Slice by slice, so that what is written stays in the nearest cache.
            for (slice, to) in panel.chunks_exact_mut(SLICE * SIDE).enumerate() {
                for (r, row) in values.chunks_exact(dim).enumerate() {
                    let from = &row[slice * SLICE..((slice + 1) * SLICE).min(dim)];
                    for (k, &v) in from.iter().enumerate() {
                        to[k * SIDE + r] = v;
                    }
                }
            }
            for (sq_norm, row) in sq_norms.iter_mut().zip(values.chunks_exact(dim)) {
                *sq_norm = score::dot(row, row) as f32;
            }
        });
    (packed, sq_norms)
}

impl Backend for GpuBackend {
    type Block = GpuBlock;

    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn block_rows(&self, operation: Operation, dim: usize, memory: u64) -> usize {
        // While a block is loaded it exists prepared, packed and on its way.
        let bytes_per_row = dim.next_multiple_of(SLICE) as u64 * 4;
        let fits_memory = memory / 2 / (3 * bytes_per_row);
        let fits_binding = self.device.max_binding() / bytes_per_row;
        let most = match (self.info.software, operation) {
            (true, _) => BLOCK_SOFTWARE,
            (false, Operation::PairSums) => BLOCK_SUMS,
            (false, _) => BLOCK_HARDWARE,
        };
        let side = SIDE as u64;
        (fits_memory.min(fits_binding).clamp(side, most) / side * side) as usize
    }

    fn load(&self, _: Operation, rows: Rows<'_>) -> Result<GpuBlock> {
        let (panels, sq_norms) = self.pool.install(|| pack(rows));
        let (bytes, limit) = (size_of_val(&panels[..]) as u64, self.device.max_binding());
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
        Ok(GpuBlock {
            panels: self.device.input(&panels)?,
            sq_norms: self.device.input(&sq_norms)?,
            rows: rows.len(),
            dim: rows.dim(),
        })
    }

    fn pair_histogram(&self, x: &GpuBlock, y: &GpuBlock, diagonal: bool) -> Result<PairHistogram> {
        let operation = Operation::PairHistogram;
        assert_eq!(x.dim, y.dim);
        let y_tiles = y.tiles();
        let step = self
            .band_tiles(operation, y_tiles as u64 * 16)?
            .min((BAND_COUNTED / y_tiles.max(1)).max(1));
        let start = |band: Range<usize>| {
            let counts = self.device.counters(COSINE_BINS as u64)?;
            let statistics = self.device.output((band.len() * y_tiles * 4) as u64)?;
            self.run(
                operation,
                (band.clone(), 0..y_tiles),
                (STRIP, SIDE * SIDE * x.padded_dim()),
                diagonal,
                &[&x.panels, &y.panels, &counts, &statistics],
                |piece| PairHistogramParams {
                    slices: x.slices() as u32,
                    x_rows: x.rows as u32,
                    y_rows: y.rows as u32,
                    x_first: piece.x.start as u32,
                    y_first: piece.y.start as u32,
                    y_end: piece.y.end as u32,
                    band_first: band.start as u32,
                    y_tiles: y_tiles as u32,
                    strip: STRIP as u32,
                    diagonal: u32::from(diagonal),
                    ..Zeroable::zeroed()
                },
            )?;
            Ok((self.device.read(&counts)?, self.device.read(&statistics)?))
        };
        let mut into = PairHistogram::default();
        in_bands(x.tiles(), step, start, |band, (counts, statistics)| {
            let (counts, statistics) = (counts.finish()?, statistics.finish()?);
            let counts: &[u32] = counts.as_slice(COSINE_BINS);
            let statistics: &[[f32; 4]] = statistics.as_slice(band.len() * y_tiles);
            let counted: u64 = counts.iter().copied().map(u64::from).sum();
            let mut expected = 0;
            for x_tile in band.clone() {
                let first_y = if diagonal { x_tile } else { 0 };
                for y_tile in first_y..y_tiles {
                    expected += pairs_in(x, y, x_tile, y_tile, diagonal);
                }
                let row = &statistics[(x_tile - band.start) * y_tiles..][first_y..y_tiles];
                self.device.numbers(operation.name(), row.as_flattened())?;
                for &[sum, sum_squares, min, max] in row {
                    into.sum.add(f64::from(sum));
                    into.sum_squares.add(f64::from(sum_squares));
                    // A tile without a pair says (MAX, -MAX).
                    if min <= max {
                        into.min = into.min.min(min);
                        into.max = into.max.max(max);
                    }
                }
            }
            if counted != expected {
                return Err(self.device.error(format!(
                    "{}: the device counted {counted} of {expected} pairs",
                    operation.name()
                )));
            }
            for (total, &count) in into.counts.iter_mut().zip(counts) {
                *total += u64::from(count);
            }
            Ok(())
        })?;
        Ok(into)
    }

    fn pair_sums(&self, x: &GpuBlock, y: &GpuBlock, request: SumsRequest<'_>) -> Result<TileSums> {
        let operation = Operation::PairSums;
        let (kernels, side) = (request.kernels, request.side);
        assert_eq!(x.dim, y.dim);
        assert_eq!(x.rows, request.x_groups.len());
        assert_eq!(y.rows, request.y_groups.len());
        assert!(
            matches!(side, 16 | 64) && x.rows.is_multiple_of(side) && y.rows.is_multiple_of(side)
        );
        assert!(kernels.rbf <= 5, "{} RBF kernels, at most 5", kernels.rbf);
        let (x_sums, y_sums) = (request.x_tiles(), request.y_tiles());
        let (count, parts) = (kernels.len(), SIDE / side);
        let row_sums = request.row_sums_of.is_some();
        let groups = |groups: &[u32]| {
            let mut padded = groups.to_vec();
            padded.resize(groups.len().next_multiple_of(SIDE), PADDING);
            self.device.input(&padded)
        };
        let (x_groups, y_groups) = (groups(request.x_groups)?, groups(request.y_groups)?);
        let [offsets_low, offsets_high] = slots(kernels.rbf, kernels.offsets.iter().copied());
        let wanted = (0..count).map(|j| f32::from(u8::from(request.row_sums_of == Some(j))));
        let [row_kernel_low, row_kernel_high] = slots(kernels.rbf, wanted);

        let sums_per_tile = parts * y_sums * count;
        let rows_per_tile = if row_sums {
            SIDE * y_sums + y.rows * parts
        } else {
            0
        };
        let step = self.band_tiles(operation, (sums_per_tile.max(rows_per_tile) * 4) as u64)?;
        // Sum tiles and rows of x in a band: whole product tiles, but for what the block lacks at its end.
        let in_band = |band: &Range<usize>| {
            let sum_tiles = band.start * parts..(band.end * parts).min(x_sums);
            (band.start * SIDE..sum_tiles.end * side, sum_tiles)
        };
        let start = |band: Range<usize>| {
            let (rows, sum_tiles) = in_band(&band);
            let y_rows_at = rows.len() * y_sums;
            let sums = self.device.output((band.len() * sums_per_tile) as u64)?;
            let by_row = self.device.output((band.len() * rows_per_tile) as u64)?;
            self.run(
                operation,
                (band.clone(), 0..y.tiles()),
                (1, SIDE * SIDE * x.padded_dim()),
                request.diagonal,
                &[
                    &x.panels,
                    &y.panels,
                    &x.sq_norms,
                    &y.sq_norms,
                    &x_groups,
                    &y_groups,
                    &sums,
                    &by_row,
                ],
                |piece| PairSumsParams {
                    slices: x.slices() as u32,
                    x_first: piece.x.start as u32,
                    y_first: piece.y.start as u32,
                    band_first: band.start as u32,
                    x_sum_tiles: x_sums as u32,
                    y_sum_tiles: y_sums as u32,
                    band_sum_tiles: sum_tiles.len() as u32,
                    side: side as u32,
                    rbf: kernels.rbf as u32,
                    kernels: count as u32,
                    diagonal: u32::from(request.diagonal),
                    row_sums: u32::from(row_sums),
                    y_rows_at: y_rows_at as u32,
                    gamma: kernels.gamma as f32,
                    offsets_low,
                    offsets_high,
                    row_kernel_low,
                    row_kernel_high,
                    ..Zeroable::zeroed()
                },
            )?;
            Ok((self.device.read(&sums)?, self.device.read(&by_row)?))
        };
        let mut all = TileSums::default();
        if row_sums {
            all.y_rows = vec![0.0; y.rows * x_sums];
        }
        in_bands(x.tiles(), step, start, |band, (sums, by_row)| {
            let (rows, sum_tiles) = in_band(&band);
            let sums = sums.finish()?;
            for (tile, sums) in sum_tiles.clone().zip(
                sums.as_slice::<f32>(sum_tiles.len() * y_sums * count)
                    .chunks((y_sums * count).max(1)),
            ) {
                let below = if request.diagonal {
                    tile.min(y_sums)
                } else {
                    0
                };
                all.sums.extend(std::iter::repeat_n(0.0, below * count));
                self.device
                    .numbers(operation.name(), &sums[below * count..])?;
                all.sums.extend(&sums[below * count..]);
            }
            if !row_sums {
                return Ok(());
            }
            let by_row = by_row.finish()?;
            let words = rows.len() * y_sums + y.rows * sum_tiles.len();
            let (of_x, of_y) = by_row.as_slice::<f32>(words).split_at(rows.len() * y_sums);
            for (row, sums) in rows.zip(of_x.chunks(y_sums.max(1))) {
                let below = if request.diagonal {
                    (row / side).min(y_sums)
                } else {
                    0
                };
                all.x_rows.extend(std::iter::repeat_n(0.0, below));
                self.device.numbers(operation.name(), &sums[below..])?;
                all.x_rows.extend(&sums[below..]);
            }
            for (row, sums) in of_y.chunks(sum_tiles.len()).enumerate() {
                let above = if request.diagonal {
                    (row / side).clamp(sum_tiles.start, sum_tiles.end) - sum_tiles.start
                } else {
                    sum_tiles.len()
                };
                self.device.numbers(operation.name(), &sums[..above])?;
                all.y_rows[row * x_sums + sum_tiles.start..][..above]
                    .copy_from_slice(&sums[..above]);
            }
            Ok(())
        })?;
        Ok(all)
    }

    fn nearest(
        &self,
        queries: &GpuBlock,
        base: &GpuBlock,
        request: NearestRequest<'_>,
    ) -> Result<Vec<TopK>> {
        let operation = Operation::Nearest;
        assert_eq!(queries.dim, base.dim);
        assert_eq!(base.rows, request.base.len());
        let mut found = vec![TopK::new(0); queries.rows];
        let width = request.bin_width(WIDEST_BIN);
        assert!(width.is_power_of_two() && width <= WIDEST_BIN);
        let bins = base.rows.div_ceil(width);
        if bins == 0 {
            return Ok(found);
        }
        let excluded = request.excluded_counts();
        let rows_of = |band: &Range<usize>| band.start * SIDE..(band.end * SIDE).min(queries.rows);
        let step = self.band_tiles(operation, (SIDE * bins * 4) as u64)?;
        let start = |band: Range<usize>| {
            let maxima = self.device.output((rows_of(&band).len() * bins) as u64)?;
            self.run(
                operation,
                (band.clone(), 0..base.tiles()),
                (1, SIDE * SIDE * queries.padded_dim()),
                false,
                &[&queries.panels, &base.panels, &maxima],
                |piece| NearestParams {
                    slices: queries.slices() as u32,
                    x_rows: queries.rows as u32,
                    y_rows: base.rows as u32,
                    x_first: piece.x.start as u32,
                    y_first: piece.y.start as u32,
                    band_first: band.start as u32,
                    width: width as u32,
                    bins: bins as u32,
                },
            )?;
            self.device.read(&maxima)
        };
        in_bands(queries.tiles(), step, start, |band, maxima| {
            let rows = rows_of(&band);
            let maxima = maxima.finish()?;
            let maxima: &[f32] = maxima.as_slice(rows.len() * bins);
            self.pool.install(|| {
                found[rows.clone()]
                    .par_iter_mut()
                    .zip(maxima.par_chunks_exact(bins))
                    .zip(rows)
                    .try_for_each_init(Vec::new, |scratch, ((list, maxima), query)| {
                        self.device.numbers(operation.name(), maxima)?;
                        let excluded = excluded[query];
                        *list =
                            request.select_and_score(query, excluded, width, maxima, scratch)?;
                        Ok(())
                    })
            })
        })?;
        Ok(found)
    }

    fn gram(&self, x: &GpuBlock, y: &GpuBlock) -> Result<Vec<f64>> {
        let operation = Operation::Gram;
        assert_eq!(x.rows, y.rows, "rows belong together by position");
        let mut all = Vec::with_capacity(x.dim * y.dim);
        let columns_of = |band: &Range<usize>| band.start * SIDE..(band.end * SIDE).min(x.dim);
        let step = self.band_tiles(operation, (SIDE * y.dim * 8) as u64)?;
        let start = |band: Range<usize>| {
            let products = self
                .device
                .output((columns_of(&band).len() * y.dim * 2) as u64)?;
            self.run(
                operation,
                (band.clone(), 0..y.dim.div_ceil(SIDE)),
                (1, SIDE * SIDE * SIDE * x.tiles()),
                false,
                &[&x.panels, &y.panels, &products],
                |piece| GramParams {
                    panels: x.tiles() as u32,
                    x_dim: x.dim as u32,
                    y_dim: y.dim as u32,
                    x_padded: x.padded_dim() as u32,
                    y_padded: y.padded_dim() as u32,
                    x_first: piece.x.start as u32,
                    y_first: piece.y.start as u32,
                    band_first: band.start as u32,
                    ..Zeroable::zeroed()
                },
            )?;
            self.device.read(&products)
        };
        in_bands(x.dim.div_ceil(SIDE), step, start, |band, products| {
            let products = products.finish()?;
            let products: &[[f32; 2]] = products.as_slice(columns_of(&band).len() * y.dim);
            self.device
                .numbers(operation.name(), products.as_flattened())?;
            let sums = products
                .iter()
                .map(|&[high, low]| f64::from(high) + f64::from(low));
            all.extend(sums);
            Ok(())
        })?;
        Ok(all)
    }

    fn project(&self, x: &GpuBlock, w: &GpuBlock) -> Result<Vec<f32>> {
        let operation = Operation::Project;
        assert_eq!(x.dim, w.dim);
        let mut all = Vec::with_capacity(x.rows * w.rows);
        if w.rows == 0 {
            return Ok(all);
        }
        let rows_of = |band: &Range<usize>| band.start * SIDE..(band.end * SIDE).min(x.rows);
        let step = self.band_tiles(operation, (SIDE * w.rows * 4) as u64)?;
        let start = |band: Range<usize>| {
            let projected = self.device.output((rows_of(&band).len() * w.rows) as u64)?;
            self.run(
                operation,
                (band.clone(), 0..w.tiles()),
                (1, SIDE * SIDE * x.padded_dim()),
                false,
                &[&x.panels, &w.panels, &projected],
                |piece| ProjectParams {
                    slices: x.slices() as u32,
                    x_rows: x.rows as u32,
                    y_rows: w.rows as u32,
                    x_first: piece.x.start as u32,
                    y_first: piece.y.start as u32,
                    band_first: band.start as u32,
                    ..Zeroable::zeroed()
                },
            )?;
            self.device.read(&projected)
        };
        in_bands(x.tiles(), step, start, |band, projected| {
            let projected = projected.finish()?;
            let projected: &[f32] = projected.as_slice(rows_of(&band).len() * w.rows);
            // Rows of any length are projected, so that a product may well overflow.
            self.device.written(operation.name(), projected)?;
            all.extend_from_slice(projected);
            Ok(())
        })?;
        Ok(all)
    }
}

/// Pairs that a tile of `pair_histogram` counts.
fn pairs_in(x: &GpuBlock, y: &GpuBlock, x_tile: usize, y_tile: usize, diagonal: bool) -> u64 {
    let rows_in = |block: &GpuBlock, tile: usize| (block.rows - tile * SIDE).min(SIDE) as u64;
    let (rows, columns) = (rows_in(x, x_tile), rows_in(y, y_tile));
    if diagonal && x_tile == y_tile {
        rows * (rows - 1) / 2
    } else {
        rows * columns
    }
}

/// One value per kernel in the slots of `pair_sums.wgsl`: RBF kernels in 0 … 4, energy in 5.
fn slots(rbf: usize, values: impl Iterator<Item = f32>) -> [[f32; 4]; 2] {
    let mut slots = [[0.0; 4]; 2];
    for (j, value) in values.enumerate() {
        let slot = if j < rbf { j } else { 5 };
        slots[slot / 4][slot % 4] = value;
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_hold_every_value_and_zeros_around() {
        let (rows, dim) = (70, 21);
        let values: Vec<f32> = (1..=rows * dim).map(|v| v as f32).collect();
        let (panels, sq_norms) = pack(Rows::new(&values, dim));
        assert_eq!((panels.len(), sq_norms.len()), (2 * 32 * SIDE, 2 * SIDE));
        for (at, &value) in panels.iter().enumerate() {
            let (row, k) = (at / (32 * SIDE) * SIDE + at % SIDE, at / SIDE % 32);
            let exists = row < rows && k < dim;
            let expected = if exists { values[row * dim + k] } else { 0.0 };
            assert_eq!(value, expected, "row {row}, coordinate {k}");
        }
        assert_eq!(sq_norms[0], (1..=21).map(|v| (v * v) as f32).sum::<f32>());
        assert!(sq_norms[70..].iter().all(|&v| v == 0.0));
    }

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
        let (x_rows, y_rows) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
        let load = |rows| backend.load(Operation::PairHistogram, rows);
        let (x, y) = (load(x_rows)?, load(y_rows)?);
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
        let mut sums = Vec::new();
        for (y, y_groups, diagonal) in [(&x, &groups[..n], true), (&y, &groups[..], false)] {
            let request = SumsRequest {
                kernels: &kernels,
                side: 16,
                x_groups: &groups[..n],
                y_groups,
                diagonal,
                row_sums_of: Some(1),
            };
            sums.push(backend.pair_sums(&x, y, request)?);
        }

        let norms = |rows: Rows<'_>| -> Vec<f64> { rows.iter().map(score::norm).collect() };
        let request = NearestRequest {
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
        let lists = backend.nearest(&x, &y, request)?;

        let first = load(y_rows.slice(0..n))?;
        Ok(AllResults {
            histograms,
            sums,
            lists,
            gram: backend.gram(&x, &first)?,
            projected: backend.project(&x, &y)?,
        })
    }

    #[test]
    fn neither_bands_nor_pieces_change_a_bit() {
        let mut backend = match GpuBackend::new(&DeviceChoice::Gpu, Some(2)) {
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

    #[test]
    fn kernels_have_fixed_slots() {
        let [low, high] = slots(2, [1.0, 2.0, 3.0].into_iter());
        assert_eq!((low, high), ([1.0, 2.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]));
    }
}
