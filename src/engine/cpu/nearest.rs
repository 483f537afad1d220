//! `nearest` on the CPU: bin maxima of each product tile, then selection and exact scores per query.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{Isa, Kernel};
use super::panels::Panels;
use super::product::{Band, Epilogue, SIDE, Tile, Walk, band_rows};
use crate::engine::NearestRequest;
use crate::engine::score::TopK;
use crate::error::Result;

/// Bytes of bin maxima over all threads. A thread takes at least 64 queries at a time, whatever they
/// need.
const MAXIMA_BYTES: usize = 32 << 20;

/// Widest bin. An exact score costs as much as many screened ones, a maximum next to nothing, so bins
/// are narrower here than a GPU would have them.
const WIDEST_BIN: usize = 16;

/// Merges into `into` the base rows that belong there; see [`crate::engine::Backend::nearest`].
pub(super) fn nearest(
    kernel: Kernel,
    queries: &Panels,
    base: &Panels,
    request: NearestRequest<'_>,
    into: &mut [TopK],
) -> Result<()> {
    let Some(k) = into.first().map(TopK::k) else {
        return Ok(());
    };
    let width = request.bin_width(k, WIDEST_BIN);
    let excluded = request.excluded_counts();
    let bins = base.rows().div_ceil(width);
    let rows = task_queries(queries, bins, rayon::current_num_threads());
    into.par_chunks_mut(rows)
        .enumerate()
        .try_for_each(|(task, lists)| {
            let first = task * rows;
            let band = Band {
                x: first..first + lists.len(),
                y: 0..base.rows(),
            };
            let maxima = screen(kernel, queries, base, &band, width);
            let mut scratch = Vec::with_capacity(bins);
            for (i, list) in lists.iter_mut().enumerate() {
                let query = first + i;
                let maxima = &maxima[i * bins..(i + 1) * bins];
                request.select_and_score(
                    query,
                    excluded[query],
                    width,
                    maxima,
                    &mut scratch,
                    list,
                )?;
            }
            Ok(())
        })
}

/// Queries per task: few enough for the scratch memory and for all threads to have work to the end.
fn task_queries(queries: &Panels, bins: usize, threads: usize) -> usize {
    let in_memory = MAXIMA_BYTES / threads / (4 * bins.max(1));
    let shared_out = queries.rows().div_ceil(4 * threads).next_multiple_of(SIDE);
    let wanted = in_memory.min(shared_out).min(band_rows(queries.dim()));
    (wanted / SIDE * SIDE).max(SIDE)
}

/// The largest product of each query of the band with each bin of `width` base rows: `[query][bin]`.
fn screen(kernel: Kernel, queries: &Panels, base: &Panels, band: &Band, width: usize) -> Vec<f32> {
    let bins = band.y.len().div_ceil(width);
    let epilogue = BinMaxima {
        first: band.x.start,
        width,
        bins,
        // Selection refuses NaN, so a maximum that was not written cannot go unnoticed.
        maxima: vec![f32::NAN; band.x.len() * bins],
    };
    kernel
        .run(Walk {
            x: queries,
            y: base,
            band,
            diagonal: false,
            epilogue,
        })
        .maxima
}

struct BinMaxima {
    /// First query.
    first: usize,
    width: usize,
    bins: usize,
    maxima: Vec<f32>,
}

impl Epilogue for BinMaxima {
    #[inline(always)]
    fn tile<I: Isa>(&mut self, _: I, tile: &Tile, x: Range<usize>, y: Range<usize>) {
        match self.width {
            1 => self.reduce::<1>(tile, x, y),
            2 => self.reduce::<2>(tile, x, y),
            4 => self.reduce::<4>(tile, x, y),
            8 => self.reduce::<8>(tile, x, y),
            16 => self.reduce::<16>(tile, x, y),
            width => unreachable!("a bin is 1, 2, 4, 8 or 16 rows wide, not {width}"),
        }
    }
}

impl BinMaxima {
    #[inline(always)]
    fn reduce<const WIDTH: usize>(&mut self, tile: &Tile, x: Range<usize>, y: Range<usize>) {
        let bins = y.len().div_ceil(WIDTH);
        for r in 0..x.len() {
            let mut row = *tile.row(r);
            // Rows that do not exist must not stand in for one that does.
            row[y.len()..].fill(f32::NEG_INFINITY);
            let mut half = WIDTH / 2;
            while half > 0 {
                for bin in 0..SIDE / WIDTH {
                    for l in bin * WIDTH..bin * WIDTH + half {
                        row[l] = if row[l] > row[l + half] {
                            row[l]
                        } else {
                            row[l + half]
                        };
                    }
                }
                half /= 2;
            }
            let at = (x.start - self.first + r) * self.bins + y.start / WIDTH;
            for (bin, maximum) in self.maxima[at..at + bins].iter_mut().enumerate() {
                *maximum = row[bin * WIDTH];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::Rows;
    use crate::stats::rng::Philox;

    /// Also shows that every maximum is written: they start as NaN.
    #[test]
    fn maxima_are_those_of_the_bins() {
        let dim = 3;
        for (n, m) in [(1, 1), (63, 65), (65, 64), (70, 129), (257, 200)] {
            let mut rng = Philox::new(7, (n * m) as u64);
            // Negative products only: a padding row would show as a maximum of 0.
            let mut draw = |rows: usize, sign: f32| -> Vec<f32> {
                (0..rows * dim)
                    .map(|_| sign * (0.1 + rng.uniform() as f32))
                    .collect()
            };
            let (queries, base) = (draw(n, 1.0), draw(m, -1.0));
            let q = Panels::pack(Rows::new(&queries, dim));
            let b = Panels::pack(Rows::new(&base, dim));
            let band = Band { x: 0..n, y: 0..m };
            for kernel in Kernel::available() {
                let every = screen(kernel, &q, &b, &band, 1);
                assert_eq!(every.len(), n * m);
                assert!(
                    every.iter().all(|&v| v < 0.0),
                    "written, and not by padding"
                );
                for width in [2, 4, 8, 16] {
                    let bins = m.div_ceil(width);
                    let expected: Vec<f32> = every
                        .chunks(m)
                        .flat_map(|row| row.chunks(width))
                        .map(|bin| bin.iter().copied().fold(f32::NEG_INFINITY, f32::max))
                        .collect();
                    let got = screen(kernel, &q, &b, &band, width);
                    assert_eq!(got.len(), n * bins);
                    assert_eq!(got, expected, "{} {n}×{m} width {width}", kernel.name());
                }
            }
        }
    }

    #[test]
    fn scratch_memory_is_bounded() {
        let queries = Panels::pack(Rows::new(&vec![1.0; 5000], 1));
        for (bins, threads) in [(1, 1), (1024, 4), (16384, 4), (131_072, 4)] {
            let rows = task_queries(&queries, bins, threads);
            assert_eq!(rows % SIDE, 0);
            assert!(rows == SIDE || rows * bins * 4 * threads <= MAXIMA_BYTES);
        }
    }
}
