//! `pair_histogram` on the GPU.

use std::ops::Range;

use bytemuck::Zeroable;

use super::schedule::in_bands;
use super::shaders::{
    PAIR_HISTOGRAM, PAIR_HISTOGRAM_TOTAL, PairHistogramParams, PairHistogramTotalParams,
};
use super::{GpuBackend, GpuBlock, SIDE};
use crate::engine::tiles::Operation;
use crate::engine::{COSINE_BINS, PairHistogram};
use crate::error::Result;

/// Tiles of y that one workgroup counts.
const STRIP: usize = 4;
// Its counts are 16 bits wide, and a patch is at most two tiles high.
const _: () = assert!(2 * STRIP * SIDE * SIDE <= u16::MAX as usize);
/// Bytes of counts of one workgroup, and of those of a submission.
const STRIP_BYTES: u64 = COSINE_BINS as u64 * 2;
const STRIPS_BYTES: u64 = 32 << 20;
/// Workgroups whose counts one workgroup adds.
const SPAN: u32 = 64;
/// Tiles that one band counts: half of what a 32-bit count can hold.
const BAND_COUNTED: usize = (1 << 31) / (SIDE * SIDE);

/// See [`crate::engine::Backend::pair_histogram`].
pub(super) fn pair_histogram(
    backend: &GpuBackend,
    x: &GpuBlock,
    y: &GpuBlock,
    diagonal: bool,
) -> Result<PairHistogram> {
    let operation = Operation::PairHistogram;
    assert_eq!(x.dim, y.dim);
    let (device, kernel) = (&backend.device, (&PAIR_HISTOGRAM, x.core));
    let work = x.tile_work();
    let total = backend.pipeline(&PAIR_HISTOGRAM_TOTAL, x.core)?;
    let y_tiles = y.tiles();
    let step = backend
        .band_tiles(operation, y_tiles as u64 * 16)?
        .min((BAND_COUNTED / y_tiles.max(1) / 2 * 2).max(2));
    let groups_at_once = (STRIPS_BYTES.min(device.max_binding()) / STRIP_BYTES).max(1) as usize;
    let start = |band: Range<usize>| {
        let counts = device.counters(COSINE_BINS as u64)?;
        let statistics = device.output((band.len() * y_tiles * 4) as u64)?;
        let tiles = (band.clone(), 0..y_tiles);
        for piece in backend.pieces(kernel, tiles, STRIP, work, groups_at_once) {
            if diagonal && piece.below_diagonal() {
                continue;
            }
            let grid = piece.grid();
            let workgroups = grid[0] * grid[1];
            let strips = device.output(u64::from(workgroups) * STRIP_BYTES / 4)?;
            let params = PairHistogramParams {
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
                strips: grid[0],
                ..Zeroable::zeroed()
            };
            let buffers = [&x.packed, &y.packed, &strips, &statistics];
            backend.run(kernel, (&piece, work), &params, &buffers)?;
            let params = PairHistogramTotalParams {
                workgroups,
                span: SPAN,
                ..Zeroable::zeroed()
            };
            let grid = [8, workgroups.div_ceil(SPAN)];
            device.run(&total, &params, &[&strips, &counts], grid)?;
        }
        Ok((device.read(&counts)?, device.read(&statistics)?))
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
            device.numbers(operation.name(), row.as_flattened())?;
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
            return Err(device.error(format!(
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
