//! `nearest` on the CPU: bin maxima of each product tile, then selection and exact scores per query.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{Isa, Job, Kernel};
use super::panels::{LANES, Panels};
use super::product::{Band, Epilogue, SIDE, Tile, Walk, band_rows};
use crate::engine::score::TopK;
use crate::engine::{NearestRequest, interrupt};
use crate::error::Result;

/// Bytes of bin maxima over all threads. A thread takes at least 64 queries at a time, whatever they
/// need.
const MAXIMA_BYTES: usize = 32 << 20;

/// Widest bin. An exact score costs as much as many screened ones, a maximum next to nothing, so bins
/// are narrower here than a GPU would have them.
const WIDEST_BIN: usize = 8;

/// The nearest base rows of each query; see [`crate::engine::Backend::nearest`].
pub(super) fn nearest(
    kernel: Kernel,
    queries: &Panels,
    base: &Panels,
    request: NearestRequest<'_>,
) -> Result<Vec<TopK>> {
    let width = request.bin_width(WIDEST_BIN);
    let excluded = request.excluded_counts();
    let bins = base.rows().div_ceil(width);
    let rows = task_queries(queries, bins, rayon::current_num_threads());
    let mut found = vec![TopK::new(0); queries.rows()];
    found
        .par_chunks_mut(rows)
        .enumerate()
        .try_for_each(|(task, lists)| {
            interrupt::check()?;
            let first = task * rows;
            let band = Band {
                x: 0..base.rows(),
                y: first..first + lists.len(),
            };
            let maxima = screen(kernel, base, queries, &band, width);
            kernel.run(Select {
                request,
                first,
                excluded: &excluded,
                width,
                maxima: &maxima,
                lists,
            })
        })?;
    Ok(found)
}

/// Selection and exact scores for the queries of a task.
struct Select<'a> {
    request: NearestRequest<'a>,
    /// First query.
    first: usize,
    excluded: &'a [u32],
    width: usize,
    maxima: &'a [f32],
    lists: &'a mut [TopK],
}

impl Job for Select<'_> {
    type Output = Result<()>;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Result<()> {
        let queries = self.lists.len();
        let bins = self.maxima.len() / queries;
        let mut scratch = Vec::with_capacity(bins);
        // Turned round for as many queries at a time as share a cache line.
        let mut by_query = vec![f32::NAN; LANES * bins];
        for (group, lists) in self.lists.chunks_mut(LANES).enumerate() {
            let column = group * LANES;
            for (bin, maxima) in self.maxima.chunks_exact(queries).enumerate() {
                for (i, &maximum) in maxima[column..column + lists.len()].iter().enumerate() {
                    by_query[i * bins + bin] = maximum;
                }
            }
            for (i, list) in lists.iter_mut().enumerate() {
                let query = self.first + column + i;
                let maxima = &by_query[i * bins..(i + 1) * bins];
                let excluded = self.excluded[query];
                *list = self.request.select_and_score(
                    query,
                    excluded,
                    (self.width, self.request.screen_error),
                    maxima,
                    &mut scratch,
                )?;
            }
        }
        Ok(())
    }
}

/// Queries per task: few enough for the scratch memory and for all threads to have work to the end.
fn task_queries(queries: &Panels, bins: usize, threads: usize) -> usize {
    let in_memory = MAXIMA_BYTES / threads / (4 * bins.max(1));
    let shared_out = queries.rows().div_ceil(4 * threads).next_multiple_of(SIDE);
    let wanted = in_memory.min(shared_out).min(band_rows(queries.dim()));
    (wanted / SIDE * SIDE).max(SIDE)
}

/// The largest product of each bin of `width` base rows (x) with each query of the band (y):
/// `[bin][query]`. This way round a maximum is taken lane by lane.
fn screen(kernel: Kernel, base: &Panels, queries: &Panels, band: &Band, width: usize) -> Vec<f32> {
    let epilogue = BinMaxima {
        first: band.y.start,
        queries: band.y.len(),
        width,
        // Selection refuses NaN, so a maximum that was not written cannot go unnoticed.
        maxima: vec![f32::NAN; band.x.len().div_ceil(width) * band.y.len()],
    };
    kernel
        .run(Walk {
            x: base,
            y: queries,
            band,
            diagonal: false,
            epilogue,
        })
        .maxima
}

struct BinMaxima {
    /// First query.
    first: usize,
    queries: usize,
    width: usize,
    maxima: Vec<f32>,
}

impl Epilogue for BinMaxima {
    #[inline(always)]
    fn tile<I: Isa>(&mut self, _: I, tile: &Tile, x: Range<usize>, y: Range<usize>) {
        for first in (0..x.len()).step_by(self.width) {
            let mut maxima = *tile.row(first);
            for row in first + 1..(first + self.width).min(x.len()) {
                let products = tile.row(row);
                for j in 0..SIDE {
                    let (a, b) = (maxima[j], products[j]);
                    maxima[j] = if a > b { a } else { b };
                }
            }
            let at = (x.start + first) / self.width * self.queries + y.start - self.first;
            self.maxima[at..at + y.len()].copy_from_slice(&maxima[..y.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::F32Rows;
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
            let q = Panels::pack(F32Rows::new(&queries, dim));
            let b = Panels::pack(F32Rows::new(&base, dim));
            let band = Band { x: 0..m, y: 0..n };
            for kernel in Kernel::available() {
                let every = screen(kernel, &b, &q, &band, 1);
                assert_eq!(every.len(), n * m);
                assert!(
                    every.iter().all(|&v| v < 0.0),
                    "written, and not by padding"
                );
                for width in [2, 4, WIDEST_BIN, 64] {
                    let largest = |bin: &[f32], query: usize| {
                        let products = bin.iter().skip(query).step_by(n);
                        products.copied().fold(f32::NEG_INFINITY, f32::max)
                    };
                    let expected: Vec<f32> = every
                        .chunks(n * width)
                        .flat_map(|bin| (0..n).map(move |query| largest(bin, query)))
                        .collect();
                    let got = screen(kernel, &b, &q, &band, width);
                    assert_eq!(got, expected, "{} {n}×{m} width {width}", kernel.name());
                }
            }
        }
    }

    #[test]
    fn scratch_memory_is_bounded() {
        let queries = Panels::pack(F32Rows::new(&vec![1.0; 5000], 1));
        for (bins, threads) in [(1, 1), (1024, 4), (16384, 4), (131_072, 4)] {
            let rows = task_queries(&queries, bins, threads);
            assert_eq!(rows % SIDE, 0);
            assert!(rows == SIDE || rows * bins * 4 * threads <= MAXIMA_BYTES);
        }
    }
}
