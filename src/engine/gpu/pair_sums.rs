//! `pair_sums` on the GPU.

use std::ops::Range;

use bytemuck::Zeroable;

use super::schedule::in_bands;
use super::shaders::{PAIR_SUMS, PairSumsParams};
use super::{GpuBackend, GpuBlock, SIDE, pack};
use crate::engine::tiles::Operation;
use crate::engine::{PADDING, SumsRequest, TileSums};
use crate::error::Result;

/// See [`crate::engine::Backend::pair_sums`].
pub(super) fn pair_sums(
    backend: &GpuBackend,
    x: &GpuBlock,
    y: &GpuBlock,
    request: SumsRequest<'_>,
) -> Result<TileSums> {
    let operation = Operation::PairSums;
    let (device, kernel) = (&backend.device, (&PAIR_SUMS, x.core));
    let work = x.tile_work();
    let (kernels, side) = (request.kernels, request.side);
    assert_eq!(x.dim, y.dim);
    assert_eq!(x.rows, request.x_groups.len());
    assert_eq!(y.rows, request.y_groups.len());
    assert!(matches!(side, 16 | 64) && x.rows.is_multiple_of(side) && y.rows.is_multiple_of(side));
    assert!(kernels.rbf <= 5, "{} RBF kernels, at most 5", kernels.rbf);
    let (x_sums, y_sums) = (request.x_tiles(), request.y_tiles());
    let (count, parts) = (kernels.len(), SIDE / side);
    let row_sums = request.row_sums_of.is_some();
    let groups = |groups: &[u32]| {
        let mut padded = groups.to_vec();
        padded.resize(pack::panels(groups.len()) * SIDE, PADDING);
        device.input(&padded)
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
    let step = backend.band_tiles(operation, (sums_per_tile.max(rows_per_tile) * 4) as u64)?;
    // Sum tiles and rows of x in a band: whole product tiles, but for what the block lacks at its end.
    let in_band = |band: &Range<usize>| {
        let sum_tiles = band.start * parts..(band.end * parts).min(x_sums);
        (band.start * SIDE..sum_tiles.end * side, sum_tiles)
    };
    let start = |band: Range<usize>| {
        let (rows, sum_tiles) = in_band(&band);
        let y_rows_at = rows.len() * y_sums;
        let sums = device.output((band.len() * sums_per_tile) as u64)?;
        let by_row = device.output((band.len() * rows_per_tile) as u64)?;
        let (x_norms, y_norms) = (x.sq_norms.as_ref(), y.sq_norms.as_ref());
        let norms = "blocks of pair_sums carry their norms";
        let buffers = [
            &x.packed,
            &y.packed,
            x_norms.expect(norms),
            y_norms.expect(norms),
            &x_groups,
            &y_groups,
            &sums,
            &by_row,
        ];
        let tiles = (band.clone(), 0..y.tiles());
        for piece in backend.pieces(kernel, tiles, 1, work, usize::MAX) {
            if request.diagonal && piece.below_diagonal() {
                continue;
            }
            let params = PairSumsParams {
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
            };
            backend.run(kernel, (&piece, work), &params, &buffers)?;
        }
        Ok((device.read(&sums)?, device.read(&by_row)?))
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
            device.numbers(operation.name(), &sums[below * count..])?;
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
            device.numbers(operation.name(), &sums[below..])?;
            all.x_rows.extend(&sums[below..]);
        }
        for (row, sums) in of_y.chunks(sum_tiles.len()).enumerate() {
            let above = if request.diagonal {
                (row / side).clamp(sum_tiles.start, sum_tiles.end) - sum_tiles.start
            } else {
                sum_tiles.len()
            };
            device.numbers(operation.name(), &sums[..above])?;
            all.y_rows[row * x_sums + sum_tiles.start..][..above].copy_from_slice(&sums[..above]);
        }
        Ok(())
    })?;
    Ok(all)
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
    fn kernels_have_fixed_slots() {
        let [low, high] = slots(2, [1.0, 2.0, 3.0].into_iter());
        assert_eq!((low, high), ([1.0, 2.0, 0.0, 0.0], [0.0, 3.0, 0.0, 0.0]));
    }
}
