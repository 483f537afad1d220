//! `project` on the GPU.

use std::ops::Range;

use bytemuck::Zeroable;

use super::schedule::in_bands;
use super::shaders::{PROJECT, ProjectParams};
use super::{GpuBackend, GpuBlock, SIDE};
use crate::engine::tiles::Operation;
use crate::error::Result;

/// See [`crate::engine::Backend::project`].
pub(super) fn project(backend: &GpuBackend, x: &GpuBlock, w: &GpuBlock) -> Result<Vec<f32>> {
    let operation = Operation::Project;
    let (device, kernel) = (&backend.device, (&PROJECT, x.core));
    let work = x.tile_work();
    assert_eq!(x.dim, w.dim);
    let mut all = Vec::with_capacity(x.rows * w.rows);
    if w.rows == 0 {
        return Ok(all);
    }
    let rows_of = |band: &Range<usize>| band.start * SIDE..(band.end * SIDE).min(x.rows);
    let step = backend.band_tiles(operation, (SIDE * w.rows * 4) as u64)?;
    let start = |band: Range<usize>| {
        let projected = device.output((rows_of(&band).len() * w.rows) as u64)?;
        let tiles = (band.clone(), 0..w.tiles());
        for piece in backend.pieces(kernel, tiles, 1, work, usize::MAX) {
            let params = ProjectParams {
                slices: x.slices() as u32,
                x_rows: x.rows as u32,
                y_rows: w.rows as u32,
                x_first: piece.x.start as u32,
                y_first: piece.y.start as u32,
                band_first: band.start as u32,
                ..Zeroable::zeroed()
            };
            let buffers = [&x.packed, &w.packed, &projected];
            backend.run(kernel, (&piece, work), &params, &buffers)?;
        }
        device.read(&projected)
    };
    in_bands(x.tiles(), step, start, |band, projected| {
        let projected = projected.finish()?;
        let projected: &[f32] = projected.as_slice(rows_of(&band).len() * w.rows);
        // Rows of any length are projected, so that a product may well overflow.
        device.written(operation.name(), projected)?;
        all.extend_from_slice(projected);
        Ok(())
    })?;
    Ok(all)
}
