//! `project` on the CPU: the product tiles themselves.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{Isa, Kernel};
use super::panels::Panels;
use super::product::{Band, Epilogue, Tile, UNWRITTEN, Walk, band_rows};
use crate::engine::interrupt;

/// X·Wᵀ, n × p row-major.
pub(super) fn project(kernel: Kernel, x: &Panels, w: &Panels) -> Vec<f32> {
    let columns = w.rows();
    let mut projected = vec![UNWRITTEN; x.rows() * columns];
    if projected.is_empty() {
        return projected;
    }
    let rows = band_rows(x.dim());
    projected
        .par_chunks_mut(rows * columns)
        .enumerate()
        .for_each(|(task, to)| {
            if interrupt::requested() {
                return;
            }
            let first = task * rows;
            let band = Band {
                x: first..first + to.len() / columns,
                y: 0..columns,
            };
            let epilogue = Dense { first, columns, to };
            kernel.run(Walk {
                x,
                y: w,
                band: &band,
                diagonal: false,
                epilogue,
            });
        });
    projected
}

struct Dense<'a> {
    /// First row of x.
    first: usize,
    columns: usize,
    to: &'a mut [f32],
}

impl Epilogue for Dense<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&mut self, _: I, tile: &Tile, x: Range<usize>, y: Range<usize>) {
        for (r, row) in x.enumerate() {
            let at = (row - self.first) * self.columns;
            self.to[at + y.start..at + y.end].copy_from_slice(&tile.row(r)[..y.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::F32Rows;
    use crate::stats::rng::Philox;

    /// One chain of multiply-adds per element, wherever in a tile it lies, bit by bit: the scalar twin of
    /// every kernel's products. The output starts as NaN, so this also shows that every element is
    /// written.
    #[test]
    fn elements_are_sequential_chains() {
        // Scales of x and w: plain, subnormal, and so far apart that only the products are plain.
        for scales in [[1.0, 1.0], [1e-40, 1.0], [1e30, 1e-30], [1e-30, 1e-14]] {
            for (n, p, dim) in [
                (1, 1, 1),
                (17, 2, 3),
                (64, 65, 17),
                (130, 33, 100),
                (300, 1, 383),
                (31, 47, 385),
                (15, 17, 1536),
            ] {
                let mut rng = Philox::new(3, (n + p + dim) as u64);
                let mut draw = |rows, scale: f64| -> Vec<f32> {
                    let mut values: Vec<f32> = (0..rows * dim)
                        .map(|_| (scale * rng.normal()) as f32)
                        .collect();
                    for value in values.iter_mut().step_by(7) {
                        *value *= 0.0;
                    }
                    values
                };
                let (x, w) = (draw(n, scales[0]), draw(p, scales[1]));
                let (x, w) = (F32Rows::new(&x, dim), F32Rows::new(&w, dim));
                for kernel in Kernel::available() {
                    let fused = kernel.name() != "portable" || cfg!(target_arch = "aarch64");
                    let expected: Vec<u32> = x
                        .iter()
                        .flat_map(|a| w.iter().map(move |b| chain(a, b, fused).to_bits()))
                        .collect();
                    let got = project(kernel, &Panels::pack(x), &Panels::pack(w));
                    let got: Vec<u32> = got.into_iter().map(f32::to_bits).collect();
                    let what = format!("{} {n}×{p}×{dim}, scales {scales:?}", kernel.name());
                    assert!(got == expected, "{what}");
                }
            }
        }
    }

    fn chain(a: &[f32], b: &[f32], fused: bool) -> f32 {
        a.iter().zip(b).fold(0.0, |sum, (&a, &b)| {
            if fused {
                a.mul_add(b, sum)
            } else {
                a * b + sum
            }
        })
    }
}
