//! `gram` on the GPU.

use std::ops::Range;

use bytemuck::Zeroable;

use super::schedule::in_bands;
use super::shaders::{GRAM, GramParams};
use super::{GpuBackend, GpuBlock, SIDE};
use crate::engine::tiles::Operation;
use crate::error::Result;

/// See [`crate::engine::Backend::gram`].
pub(super) fn gram(backend: &GpuBackend, x: &GpuBlock, y: &GpuBlock) -> Result<Vec<f64>> {
    let operation = Operation::Gram;
    let (device, kernel) = (&backend.device, (&GRAM, x.core));
    let x_padded = x.slices() * x.core.slice();
    let y_padded = y.slices() * y.core.slice();
    assert_eq!(x.rows, y.rows, "rows belong together by position");
    let mut all = Vec::with_capacity(x.dim * y.dim);
    let columns_of = |band: &Range<usize>| band.start * SIDE..(band.end * SIDE).min(x.dim);
    let step = backend.band_tiles(operation, (SIDE * y.dim * 8) as u64)?;
    let start = |band: Range<usize>| {
        let products = device.output((columns_of(&band).len() * y.dim * 2) as u64)?;
        let tiles = (band.clone(), 0..y.dim.div_ceil(SIDE));
        let work = SIDE * SIDE * SIDE * x.tiles();
        for piece in backend.pieces(kernel, tiles, 1, work, usize::MAX) {
            let params = GramParams {
                panels: x.tiles() as u32,
                x_dim: x.dim as u32,
                y_dim: y.dim as u32,
                x_padded: x_padded as u32,
                y_padded: y_padded as u32,
                x_first: piece.x.start as u32,
                y_first: piece.y.start as u32,
                band_first: band.start as u32,
                ..Zeroable::zeroed()
            };
            let buffers = [&x.packed, &y.packed, &products];
            backend.run(kernel, (&piece, work), &params, &buffers)?;
        }
        device.read(&products)
    };
    in_bands(x.dim.div_ceil(SIDE), step, start, |band, products| {
        let products = products.finish()?;
        let products: &[[f32; 2]] = products.as_slice(columns_of(&band).len() * y.dim);
        device.numbers(operation.name(), products.as_flattened())?;
        let sums = products
            .iter()
            .map(|&[high, low]| f64::from(high) + f64::from(low));
        all.extend(sums);
        Ok(())
    })?;
    Ok(all)
}
