//! `pair_sums` on the CPU: kernels of the squared distances of each product tile, summed by sum tile.
//!
//! d² = ‖x‖² + ‖y‖² − 2·x·y, clamped at 0, carries the products' error: at most 2(d + 6)·2⁻²³·L² for
//! rows no longer than L, whatever d² is. Near-duplicates therefore have a d² that is right to that
//! absolute error only, an RBF kernel right to γ times it, and an energy kernel right to its root; this
//! is why the engine centres the rows first. A row and itself share a group and are left out.

use std::ops::Range;

use rayon::prelude::*;

use super::exp::exp;
use super::kernel::{Isa, Kernel};
use super::panels::{LANES, Panels};
use super::product::{Band, Epilogue, SIDE, Tile, UNWRITTEN, Walk, bands, quarter_sum, tree_sum};
use crate::engine::{PADDING, SumsRequest, TileSums, interrupt};

/// Most kernels in a family: five RBF kernels and the energy kernel.
const MOST_KERNELS: usize = 6;

/// Kernel sums by sum tile; see [`crate::engine::Backend::pair_sums`].
pub(super) fn pair_sums(
    kernel: Kernel,
    x: &Panels,
    y: &Panels,
    request: SumsRequest<'_>,
) -> TileSums {
    assert_eq!(request.x_groups.len(), x.rows());
    assert_eq!(request.y_groups.len(), y.rows());
    assert!(request.kernels.len() <= MOST_KERNELS && request.kernels.rbf >= 1);
    assert!(request.side == LANES || request.side == SIDE);
    let (x_norms, y_norms) = (x.sq_norms(), y.sq_norms());
    let parts: Vec<_> = bands(x.rows(), y.rows(), x.dim(), request.diagonal)
        .into_par_iter()
        .map(|band| {
            let epilogue = BandSums::new(request, x_norms, y_norms, band.clone());
            if interrupt::requested() {
                return epilogue;
            }
            kernel.run(Walk {
                x,
                y,
                band: &band,
                diagonal: request.diagonal,
                epilogue,
            })
        })
        .collect();
    gather(&request, &parts)
}

/// Puts the bands' sums where they belong.
fn gather(request: &SumsRequest<'_>, parts: &[BandSums<'_>]) -> TileSums {
    let kernels = request.kernels.len();
    let (x_tiles, y_tiles, side) = (request.x_tiles(), request.y_tiles(), request.side);
    // With `diagonal`, what lies below it is 0 by contract; else everything is written below.
    let empty = if request.diagonal { 0.0 } else { UNWRITTEN };
    let rows = |rows: usize, tiles: usize| {
        vec![
            empty;
            if request.row_sums_of.is_some() {
                rows * tiles
            } else {
                0
            }
        ]
    };
    let mut all = TileSums {
        sums: vec![empty; x_tiles * y_tiles * kernels],
        x_rows: rows(request.x_groups.len(), y_tiles),
        y_rows: rows(request.y_groups.len(), x_tiles),
    };
    for part in parts {
        let x = part.band.x.start / side..part.band.x.end / side;
        let y = part.band.y.start / side..part.band.y.end / side;
        for tx in x.clone() {
            for ty in y.clone() {
                if request.diagonal && ty < tx {
                    continue;
                }
                let from = ((tx - x.start) * y.len() + ty - y.start) * kernels;
                let to = (tx * y_tiles + ty) * kernels;
                all.sums[to..to + kernels].copy_from_slice(&part.sums[from..from + kernels]);
                if request.row_sums_of.is_none() {
                    continue;
                }
                for row in tx * side..(tx + 1) * side {
                    let from = (row - part.band.x.start) * y.len() + ty - y.start;
                    all.x_rows[row * y_tiles + ty] = part.x_rows[from];
                }
                if request.diagonal && ty == tx {
                    continue;
                }
                for row in ty * side..(ty + 1) * side {
                    let from = (row - part.band.y.start) * x.len() + tx - x.start;
                    all.y_rows[row * x_tiles + tx] = part.y_rows[from];
                }
            }
        }
    }
    all
}

/// Sums of one band, laid out as [`TileSums`] with the band's tiles only.
struct BandSums<'a> {
    request: SumsRequest<'a>,
    x_norms: &'a [f32],
    y_norms: &'a [f32],
    gamma: f32,
    band: Band,
    sums: Vec<f32>,
    x_rows: Vec<f32>,
    y_rows: Vec<f32>,
}

impl<'a> BandSums<'a> {
    fn new(request: SumsRequest<'a>, x_norms: &'a [f32], y_norms: &'a [f32], band: Band) -> Self {
        let (x_tiles, y_tiles) = (band.x.len() / request.side, band.y.len() / request.side);
        let rows = |rows: usize, tiles: usize| {
            vec![
                UNWRITTEN;
                if request.row_sums_of.is_some() {
                    rows * tiles
                } else {
                    0
                }
            ]
        };
        Self {
            request,
            x_norms,
            y_norms,
            // Finite, so that γ · 0 is 0.
            gamma: (request.kernels.gamma as f32).min(f32::MAX),
            sums: vec![UNWRITTEN; x_tiles * y_tiles * request.kernels.len()],
            x_rows: rows(band.x.len(), y_tiles),
            y_rows: rows(band.y.len(), x_tiles),
            band,
        }
    }

    /// Sum of the columns of a row of terms (or of sums over rows) that lie in sum tile `t` of the
    /// product tile.
    #[inline(always)]
    fn tile_columns(&self, row: &[f32; SIDE], t: usize) -> f32 {
        if self.request.side == SIDE {
            tree_sum(quarter_sum(row))
        } else {
            tree_sum(row.as_chunks::<LANES>().0[t])
        }
    }
}

/// One row's pairs, ready for the kernels.
struct Pairs {
    sq_distances: [f32; SIDE],
    /// All ones where the pair takes part, else 0. Terms are masked rather than multiplied: what the
    /// product tile holds beyond its rows may be NaN.
    live: [u32; SIDE],
}

impl Pairs {
    #[inline(always)]
    fn new(
        products: &[f32; SIDE],
        (x_norm, x_group): (f32, u32),
        (y_norms, y_groups): (&[f32; SIDE], &[u32; SIDE]),
    ) -> Self {
        let mut pairs = Self {
            sq_distances: [0.0; SIDE],
            live: [0; SIDE],
        };
        for j in 0..SIDE {
            let d2 = (x_norm + y_norms[j]) - 2.0 * products[j];
            pairs.sq_distances[j] = if d2 > 0.0 { d2 } else { 0.0 };
        }
        for j in 0..SIDE {
            let live = (y_groups[j] != x_group) & (y_groups[j] != PADDING);
            pairs.live[j] = u32::from(live).wrapping_neg();
        }
        pairs
    }

    /// (k − offset) of every live pair, 0 of the others.
    #[inline(always)]
    fn terms(&self, kernel: &[f32; SIDE], offset: f32) -> [f32; SIDE] {
        let mut terms = [0.0; SIDE];
        for j in 0..SIDE {
            terms[j] = f32::from_bits((kernel[j] - offset).to_bits() & self.live[j]);
        }
        terms
    }
}

impl Epilogue for BandSums<'_> {
    #[inline(always)]
    fn tile<I: Isa>(&mut self, isa: I, tile: &Tile, x: Range<usize>, y: Range<usize>) {
        let SumsRequest {
            kernels,
            side,
            row_sums_of,
            ..
        } = self.request;
        let mut y_norms = [0.0; SIDE];
        y_norms[..y.len()].copy_from_slice(&self.y_norms[y.clone()]);
        let mut y_groups = [PADDING; SIDE];
        y_groups[..y.len()].copy_from_slice(&self.request.y_groups[y.clone()]);
        let (x_tiles, y_tiles) = (self.band.x.len() / side, self.band.y.len() / side);
        let first_y = y.start - self.band.y.start;
        for top in x.clone().step_by(side) {
            // Per kernel, sums over the rows of this sum tile, column by column.
            let mut columns = [[0.0f32; SIDE]; MOST_KERNELS];
            for row in top..top + side {
                let mut add = |kernel: usize, terms: &[f32; SIDE]| {
                    for j in 0..SIDE {
                        columns[kernel][j] += terms[j];
                    }
                };
                let mut row_terms = [0.0; SIDE];
                let x_group = self.request.x_groups[row];
                if x_group != PADDING {
                    let pairs = Pairs::new(
                        tile.row(row - x.start),
                        (self.x_norms[row], x_group),
                        (&y_norms, &y_groups),
                    );
                    let mut values = [0.0; SIDE];
                    for j in 0..SIDE {
                        values[j] = exp(isa, -(self.gamma * pairs.sq_distances[j]));
                    }
                    for kernel in 0..kernels.rbf {
                        let terms = pairs.terms(&values, kernels.offsets[kernel]);
                        add(kernel, &terms);
                        if row_sums_of == Some(kernel) {
                            row_terms = terms;
                        }
                        // γ doubles from one kernel to the next.
                        for value in &mut values {
                            *value *= *value;
                        }
                    }
                    if kernels.energy {
                        for j in 0..SIDE {
                            values[j] = -pairs.sq_distances[j].sqrt();
                        }
                        let terms = pairs.terms(&values, kernels.offsets[kernels.rbf]);
                        add(kernels.rbf, &terms);
                    }
                }
                if row_sums_of.is_some() {
                    let at = (row - self.band.x.start) * y_tiles + first_y / side;
                    for t in 0..y.len() / side {
                        self.x_rows[at + t] = self.tile_columns(&row_terms, t);
                    }
                }
            }
            let tx = (top - self.band.x.start) / side;
            for t in 0..y.len() / side {
                let at = (tx * y_tiles + first_y / side + t) * kernels.len();
                for (kernel, columns) in columns[..kernels.len()].iter().enumerate() {
                    self.sums[at + kernel] = self.tile_columns(columns, t);
                }
            }
            if let Some(kernel) = row_sums_of {
                for (j, &sum) in columns[kernel][..y.len()].iter().enumerate() {
                    self.y_rows[(first_y + j) * x_tiles + tx] = sum;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::Rows;
    use crate::engine::KernelFamily;
    use crate::stats::rng::Philox;

    /// Outputs start as NaN in debug builds, so a sum that is not written shows; blocks of several
    /// bands, partial product tiles, padding rows.
    #[test]
    fn every_sum_is_written() {
        let dim = 3;
        let kernels = KernelFamily {
            gamma: 0.5,
            rbf: 5,
            energy: true,
            offsets: vec![0.1; 6],
        };
        for (side, n, m) in [(16, 16, 1104), (16, 80, 48), (64, 320, 1088), (64, 64, 64)] {
            let mut rng = Philox::new(1, (n + m) as u64);
            let mut draw = |rows: usize| -> Vec<f32> {
                (0..rows * dim).map(|_| rng.normal() as f32).collect()
            };
            let (x, y) = (draw(n), draw(m));
            let (x, y) = (
                Panels::pack(Rows::new(&x, dim)),
                Panels::pack(Rows::new(&y, dim)),
            );
            let groups = |rows: usize, first: usize| -> Vec<u32> {
                let padding = |row: usize| row % side == side - 1;
                (first..first + rows)
                    .map(|row| if padding(row) { PADDING } else { row as u32 })
                    .collect()
            };
            let (x_groups, y_groups) = (groups(n, 0), groups(m, n.next_multiple_of(side)));
            for diagonal in [false, true] {
                let (y, y_groups) = if diagonal {
                    (&x, &x_groups)
                } else {
                    (&y, &y_groups)
                };
                let request = SumsRequest {
                    kernels: &kernels,
                    side,
                    x_groups: &x_groups,
                    y_groups,
                    diagonal,
                    row_sums_of: Some(2),
                };
                for kernel in Kernel::available() {
                    let sums = pair_sums(kernel, &x, y, request);
                    let (x_tiles, y_tiles) = (request.x_tiles(), request.y_tiles());
                    assert_eq!(sums.sums.len(), x_tiles * y_tiles * kernels.len());
                    assert_eq!(sums.x_rows.len(), x.rows() * y_tiles);
                    assert_eq!(sums.y_rows.len(), y.rows() * x_tiles);
                    let all = [&sums.sums, &sums.x_rows, &sums.y_rows];
                    assert!(all.iter().all(|part| part.iter().all(|v| v.is_finite())));
                    let padding_row = side - 1;
                    let of_padding = &sums.x_rows[padding_row * y_tiles..][..y_tiles];
                    assert!(of_padding.iter().all(|&v| v == 0.0));
                    for tx in 0..x_tiles {
                        for ty in 0..y_tiles {
                            let tile = &sums.sums[(tx * y_tiles + ty) * kernels.len()..][..6];
                            let below = diagonal && ty < tx;
                            assert!(tile.iter().all(|&v| (v == 0.0) == below), "{tile:?}");
                        }
                    }
                }
            }
        }
    }
}
