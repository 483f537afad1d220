//! `pair_histogram` on the CPU: bins, extremes and sums of each product tile.

use std::ops::Range;

use rayon::prelude::*;

use super::kernel::{Isa, Kernel};
use super::panels::{LANES, Panels};
use super::product::{Epilogue, SIDE, Tile, Walk, bands, quarter_sum, tree_sum};
use crate::engine::{COSINE_BINS, PairHistogram, interrupt};

/// The distribution of the products of x's rows with y's rows, with `diagonal` of those with i < j.
pub(super) fn pair_histogram(
    kernel: Kernel,
    x: &Panels,
    y: &Panels,
    diagonal: bool,
) -> PairHistogram {
    bands(x, y, diagonal)
        .par_iter()
        .map(|band| {
            if interrupt::requested() {
                return PairHistogram::default();
            }
            let epilogue = Bins::new(diagonal);
            let walk = Walk {
                x,
                y,
                band,
                diagonal,
                epilogue,
            };
            kernel.run(walk).finish()
        })
        .reduce(PairHistogram::default, |mut a, b| {
            a.merge(&b);
            a
        })
}

/// Histogram of one band.
struct Bins {
    diagonal: bool,
    /// Counts of even and of odd columns: neighbours often share a bin, and a counter just written
    /// cannot be read at once. A band has fewer than 2³² pairs.
    counts: Box<[[u32; COSINE_BINS]; 2]>,
    rest: PairHistogram,
}

impl Bins {
    fn new(diagonal: bool) -> Self {
        Self {
            diagonal,
            counts: Box::new([[0; COSINE_BINS]; 2]),
            rest: PairHistogram::default(),
        }
    }

    fn finish(mut self) -> PairHistogram {
        for counts in &*self.counts {
            for (count, &more) in self.rest.counts.iter_mut().zip(counts) {
                *count += u64::from(more);
            }
        }
        self.rest
    }
}

/// Sums and extremes of a tile, by column modulo 16.
struct Lanes {
    sum: [f32; LANES],
    sum_squares: [f32; LANES],
    min: [f32; LANES],
    max: [f32; LANES],
}

impl Lanes {
    /// Adds a row; columns outside `wanted` add 0 and are no extremes.
    #[inline(always)]
    fn add(&mut self, row: &[f32; SIDE], wanted: &Range<usize>) {
        if *wanted == (0..SIDE) {
            self.add_terms(row);
            for quarter in row.as_chunks::<LANES>().0 {
                for l in 0..LANES {
                    self.min[l] = self.min[l].min(quarter[l]);
                    self.max[l] = self.max[l].max(quarter[l]);
                }
            }
        } else {
            let mut masked = [0.0; SIDE];
            for column in wanted.clone() {
                masked[column] = row[column];
                self.min[0] = self.min[0].min(row[column]);
                self.max[0] = self.max[0].max(row[column]);
            }
            self.add_terms(&masked);
        }
    }

    #[inline(always)]
    fn add_terms(&mut self, row: &[f32; SIDE]) {
        let mut squares = [0.0; SIDE];
        for column in 0..SIDE {
            squares[column] = row[column] * row[column];
        }
        let (sums, squares) = (quarter_sum(row), quarter_sum(&squares));
        for l in 0..LANES {
            self.sum[l] += sums[l];
            self.sum_squares[l] += squares[l];
        }
    }
}

/// [`PairHistogram::bin`] of a row of cosines, below [`COSINE_BINS`] whatever the row holds.
///
/// Written without a cast from float to integer, whose saturation keeps the compiler from vector code.
#[inline(always)]
fn row_bins(row: &[f32; SIDE]) -> [u32; SIDE] {
    /// Adding this to a number below 2²² rounds it to an integer, which stands in the low bits.
    const ROUND: f32 = (1u32 << 23) as f32;
    let mut bins = [0; SIDE];
    for column in 0..SIDE {
        let at = (row[column] + 1.0) * (COSINE_BINS / 2) as f32;
        let at = if at > 0.0 { at } else { 0.0 };
        let most = (COSINE_BINS - 1) as f32;
        let at = if at < most { at } else { most };
        let rounded = (at + ROUND) - ROUND;
        let floor = if rounded > at { rounded - 1.0 } else { rounded };
        bins[column] = (floor + ROUND).to_bits() % COSINE_BINS as u32;
    }
    bins
}

impl Epilogue for Bins {
    #[inline(always)]
    fn tile<I: Isa>(&mut self, _: I, tile: &Tile, x: Range<usize>, y: Range<usize>) {
        let mut lanes = Lanes {
            sum: [0.0; LANES],
            sum_squares: [0.0; LANES],
            min: [f32::INFINITY; LANES],
            max: [f32::NEG_INFINITY; LANES],
        };
        let [even, odd] = &mut *self.counts;
        let on_diagonal = self.diagonal && x.start == y.start;
        for r in 0..x.len() {
            let row = tile.row(r);
            let wanted = if on_diagonal { r + 1 } else { 0 }..y.len();
            lanes.add(row, &wanted);
            let bins = row_bins(row);
            if wanted == (0..SIDE) {
                for pair in bins.as_chunks::<2>().0 {
                    even[pair[0] as usize] += 1;
                    odd[pair[1] as usize] += 1;
                }
            } else {
                for column in wanted {
                    even[bins[column] as usize] += 1;
                }
            }
        }
        self.rest.sum.add(f64::from(tree_sum(lanes.sum)));
        self.rest
            .sum_squares
            .add(f64::from(tree_sum(lanes.sum_squares)));
        for l in 0..LANES {
            self.rest.min = self.rest.min.min(lanes.min[l]);
            self.rest.max = self.rest.max.max(lanes.max[l]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_those_of_the_contract() {
        let edge = |i: i32| -1.0 + i as f32 / 2048.0;
        let mut row = [0.0f32; SIDE];
        let special = [
            -1.0,
            1.0,
            -1.000_001,
            1.000_001,
            0.0,
            -0.0,
            1e-30,
            -1e-30,
            f32::MAX,
            f32::MIN,
        ];
        row[..special.len()].copy_from_slice(&special);
        for (i, value) in row[special.len()..].iter_mut().enumerate() {
            let at = edge(i as i32 * 79);
            *value = match i % 3 {
                0 => at,
                1 => at.next_up(),
                _ => at.next_down(),
            };
        }
        let bins = row_bins(&row);
        for (value, bin) in row.iter().zip(bins) {
            assert_eq!(bin as usize, PairHistogram::bin(*value), "{value}");
        }
    }
}
