//! `pair_sums` on the CPU: kernels of the squared distances of each product tile, summed by sum tile.
//!
//! d² = ‖x‖² + ‖y‖² − 2·x·y, clamped at 0, carries the products' error: at most 2(d + 6)·2⁻²³·L² for
//! rows no longer than L, whatever d² is. Near-duplicates therefore have a d² that is right to that
//! absolute error only, an RBF kernel right to γ times it, and an energy kernel right to its root; this
//! is why the engine centres the rows first. A row and itself share a group and are left out.

use std::ops::Range;

use rayon::prelude::*;

use super::exp::exp;
use super::grid::GridPanels;
use super::kernel::{Isa, Kernel};
use super::panels::{LANES, Panels};
use super::product::{
    Band, Epilogue, Factor, SIDE, Tile, UNWRITTEN, Walk, bands, quarter_sum, tree_sum,
};
use crate::engine::{GRID_STEP, PADDING, SumsRequest, TileSums, interrupt};

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
    if request.on_grid {
        sums_of(kernel, x.on_grid(), y.on_grid(), request)
    } else {
        sums_of(kernel, x, y, request)
    }
}

fn sums_of<P: Points>(kernel: Kernel, x: &P, y: &P, request: SumsRequest<'_>) -> TileSums {
    // Made in parallel, so before the tasks: one that waited for them could take up another that does.
    let norms = [x.sq_norms(), y.sq_norms()];
    let parts: Vec<_> = bands(x, y, request.diagonal)
        .into_par_iter()
        .map(|band| {
            let epilogue = BandSums::<P>::new(request, norms, band.clone());
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

/// Rows whose products give squared distances.
trait Points: Factor {
    /// ‖x‖².
    type SqNorm: Copy + Default + Send + Sync;

    /// ‖x‖² of every row.
    fn sq_norms(&self) -> &[Self::SqNorm];

    /// ‖x − y‖² = ‖x‖² + ‖y‖² − 2·x·y, at least 0.
    fn sq_distance(x: Self::SqNorm, y: Self::SqNorm, product: Self::Product) -> f32;
}

impl Points for Panels {
    type SqNorm = f32;

    fn sq_norms(&self) -> &[f32] {
        self.sq_norms()
    }

    #[inline(always)]
    fn sq_distance(x: f32, y: f32, product: f32) -> f32 {
        let d2 = (x + y) - 2.0 * product;
        if d2 > 0.0 { d2 } else { 0.0 }
    }
}

impl Points for GridPanels {
    type SqNorm = u32;

    fn sq_norms(&self) -> &[u32] {
        self.sq_norms()
    }

    /// In integers: ½‖x − y‖² lies in 0 … 2³² and so is right although its parts wrap around, but for a
    /// half that is dropped where ‖x‖² + ‖y‖² is odd. It is rounded once.
    #[inline(always)]
    fn sq_distance(x: u32, y: u32, product: i32) -> f32 {
        const DOUBLED: f32 = 2.0 * GRID_STEP * GRID_STEP;
        (((x + y) >> 1).wrapping_sub(product as u32)) as f32 * DOUBLED
    }
}

/// Puts the bands' sums where they belong.
fn gather<P: Points>(request: &SumsRequest<'_>, parts: &[BandSums<'_, P>]) -> TileSums {
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
struct BandSums<'a, P: Points> {
    request: SumsRequest<'a>,
    norms: [&'a [P::SqNorm]; 2],
    gamma: f32,
    band: Band,
    sums: Vec<f32>,
    x_rows: Vec<f32>,
    y_rows: Vec<f32>,
    /// Terms of the kernel whose row sums are wanted, of one sum tile's rows.
    row_terms: Vec<[f32; SIDE]>,
}

impl<'a, P: Points> BandSums<'a, P> {
    fn new(request: SumsRequest<'a>, norms: [&'a [P::SqNorm]; 2], band: Band) -> Self {
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
            norms,
            // Finite, so that γ · 0 is 0.
            gamma: (request.kernels.gamma as f32).min(f32::MAX),
            sums: vec![UNWRITTEN; x_tiles * y_tiles * request.kernels.len()],
            x_rows: rows(band.x.len(), y_tiles),
            y_rows: rows(band.y.len(), x_tiles),
            row_terms: vec![[UNWRITTEN; SIDE]; request.row_sums_of.map_or(0, |_| request.side)],
            band,
        }
    }
}

/// Sum of the columns of a row of terms (or of sums over rows) that lie in sum tile `t` of the product
/// tile.
#[inline(always)]
fn tile_columns(row: &[f32; SIDE], side: usize, t: usize) -> f32 {
    if side == SIDE {
        tree_sum(quarter_sum(row))
    } else {
        tree_sum(row.as_chunks::<LANES>().0[t])
    }
}

/// The rows of a product tile, by coordinate of the tile.
struct Sides<P: Points> {
    x_norms: [P::SqNorm; SIDE],
    y_norms: [P::SqNorm; SIDE],
    x_groups: [u32; SIDE],
    y_groups: [u32; SIDE],
}

impl<P: Points> Sides<P> {
    #[inline(always)]
    fn new(of: &BandSums<'_, P>, x: &Range<usize>, y: &Range<usize>) -> Self {
        let mut sides = Self {
            x_norms: [P::SqNorm::default(); SIDE],
            y_norms: [P::SqNorm::default(); SIDE],
            x_groups: [PADDING; SIDE],
            y_groups: [PADDING; SIDE],
        };
        let [x_norms, y_norms] = of.norms;
        sides.x_norms[..x.len()].copy_from_slice(&x_norms[x.clone()]);
        sides.y_norms[..y.len()].copy_from_slice(&y_norms[y.clone()]);
        sides.x_groups[..x.len()].copy_from_slice(&of.request.x_groups[x.clone()]);
        sides.y_groups[..y.len()].copy_from_slice(&of.request.y_groups[y.clone()]);
        sides
    }

    /// Whether every pair takes part: no padding, and the groups of either side in a range of their
    /// own, which those of different blocks mostly have.
    fn all_live(&self) -> bool {
        let range = |groups: &[u32; SIDE]| {
            let ends = (u32::MAX, u32::MIN);
            groups
                .iter()
                .fold(ends, |(low, high), &g| (low.min(g), high.max(g)))
        };
        let ((x_low, x_high), (y_low, y_high)) = (range(&self.x_groups), range(&self.y_groups));
        x_high != PADDING && y_high != PADDING && (x_high < y_low || y_high < x_low)
    }
}

/// Terms k − offset of a strip: the pairs of some rows of a product tile with 16 of its columns.
struct Strip<'a, P: Points> {
    tile: &'a Tile<P::Product>,
    sides: &'a Sides<P>,
    /// Of 16 columns.
    quarter: usize,
    rows: Range<usize>,
    gamma: f32,
    offsets: [f32; MOST_KERNELS],
    energy: bool,
}

impl<P: Points> Strip<'_, P> {
    /// Per kernel the sums over the rows, column by column; `keep` gets the terms of every row and
    /// kernel.
    ///
    /// Sixteen columns at a time, so that all sums stay in registers. `RBF` is how many RBF kernels are
    /// computed; unless `ALL_LIVE`, those of pairs that take no part are masked. (Not multiplied by 0:
    /// what the product tile holds beyond its rows may be anything.)
    #[inline(always)]
    fn sums<I: Isa, const RBF: usize, const ALL_LIVE: bool>(
        &self,
        isa: I,
        mut keep: impl FnMut(usize, usize, &[f32; LANES]),
    ) -> [[f32; LANES]; MOST_KERNELS] {
        let Self { tile, sides, .. } = self;
        let first = self.quarter * LANES;
        let whole = "a quarter has 16 columns";
        let y_norms: &[P::SqNorm; LANES] = sides.y_norms[first..].first_chunk().expect(whole);
        let y_groups: &[u32; LANES] = sides.y_groups[first..].first_chunk().expect(whole);
        let mut sums = [[0.0f32; LANES]; MOST_KERNELS];
        for row in self.rows.clone() {
            let x_norm = sides.x_norms[row];
            let x_group = sides.x_groups[row];
            let products: &[P::Product; LANES] = tile.row(row)[first..].first_chunk().expect(whole);
            let mut live = [u32::MAX; LANES];
            if !ALL_LIVE {
                for l in 0..LANES {
                    let here = (y_groups[l] != x_group) & (y_groups[l] != PADDING);
                    live[l] = u32::from(here & (x_group != PADDING)).wrapping_neg();
                }
            }
            let mut sq_distances = [0.0f32; LANES];
            for l in 0..LANES {
                sq_distances[l] = P::sq_distance(x_norm, y_norms[l], products[l]);
            }
            let mut values = [[0.0f32; LANES]; MOST_KERNELS];
            for l in 0..LANES {
                values[0][l] = exp(isa, -(self.gamma * sq_distances[l]));
            }
            // γ doubles from one kernel to the next.
            for kernel in 1..RBF {
                for l in 0..LANES {
                    values[kernel][l] = values[kernel - 1][l] * values[kernel - 1][l];
                }
            }
            if self.energy {
                for l in 0..LANES {
                    values[RBF][l] = -sq_distances[l].sqrt();
                }
            }
            for kernel in 0..=RBF {
                let mut terms = [0.0f32; LANES];
                for l in 0..LANES {
                    let term = values[kernel][l] - self.offsets[kernel];
                    terms[l] = if ALL_LIVE {
                        term
                    } else {
                        f32::from_bits(term.to_bits() & live[l])
                    };
                    sums[kernel][l] += terms[l];
                }
                keep(row, kernel, &terms);
            }
        }
        sums
    }
}

/// Places of kernels in a [`Strip`]: RBF kernels first, the energy kernel after the last of them.
const ALL_RBF: usize = MOST_KERNELS - 1;

impl<P: Points> Epilogue<P::Product> for BandSums<'_, P> {
    #[inline(always)]
    fn tile<I: Isa>(&mut self, isa: I, tile: &Tile<P::Product>, x: Range<usize>, y: Range<usize>) {
        let SumsRequest {
            kernels,
            side,
            row_sums_of,
            ..
        } = self.request;
        let sides = Sides::new(self, &x, &y);
        // One RBF kernel or all of them; those that are not asked for are computed for nothing.
        let only_one = kernels.rbf == 1;
        let energy_at = if only_one { 1 } else { ALL_RBF };
        let mut offsets = [0.0; MOST_KERNELS];
        offsets[..kernels.rbf].copy_from_slice(&kernels.offsets[..kernels.rbf]);
        if kernels.energy {
            offsets[energy_at] = kernels.offsets[kernels.rbf];
        }
        let all_live = sides.all_live() && row_sums_of.is_none();
        let (x_tiles, y_tiles) = (self.band.x.len() / side, self.band.y.len() / side);
        let first_y = y.start - self.band.y.start;
        for top in (0..x.len()).step_by(side) {
            // Per kernel, sums over the rows of this sum tile, column by column.
            let mut columns = [[0.0f32; SIDE]; MOST_KERNELS];
            for quarter in 0..y.len() / LANES {
                let strip = Strip {
                    tile,
                    sides: &sides,
                    quarter,
                    rows: top..top + side,
                    gamma: self.gamma,
                    offsets,
                    energy: kernels.energy,
                };
                let at = quarter * LANES..(quarter + 1) * LANES;
                let row_terms = &mut self.row_terms;
                let keep = |row: usize, kernel: usize, terms: &[f32; LANES]| {
                    if row_sums_of == Some(kernel) {
                        row_terms[row - top][at.clone()].copy_from_slice(terms);
                    }
                };
                let sums = match (only_one, all_live) {
                    (true, true) => strip.sums::<I, 1, true>(isa, |_, _, _| ()),
                    (true, false) => strip.sums::<I, 1, false>(isa, keep),
                    (false, true) => strip.sums::<I, ALL_RBF, true>(isa, |_, _, _| ()),
                    (false, false) => strip.sums::<I, ALL_RBF, false>(isa, keep),
                };
                for kernel in 0..kernels.len() {
                    let from = if kernel < kernels.rbf {
                        kernel
                    } else {
                        energy_at
                    };
                    columns[kernel][at.clone()].copy_from_slice(&sums[from]);
                }
            }
            if row_sums_of.is_some() {
                for (row, terms) in self.row_terms[..side].iter().enumerate() {
                    let row = x.start - self.band.x.start + top + row;
                    let at = row * y_tiles + first_y / side;
                    for t in 0..y.len() / side {
                        self.x_rows[at + t] = tile_columns(terms, side, t);
                    }
                }
            }
            let tx = (x.start - self.band.x.start + top) / side;
            for t in 0..y.len() / side {
                let at = (tx * y_tiles + first_y / side + t) * kernels.len();
                for (kernel, columns) in columns[..kernels.len()].iter().enumerate() {
                    self.sums[at + kernel] = tile_columns(columns, side, t);
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
    use crate::embeddings::F32Rows;
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
            // On the grid, so that either product will do.
            let mut draw = |rows: usize| -> Vec<f32> {
                let draw = |_| (rng.normal().clamp(-4.0, 4.0) as f32 / 10.0 / GRID_STEP).round();
                (0..rows * dim).map(draw).map(|v| v * GRID_STEP).collect()
            };
            let (x, y) = (draw(n), draw(m));
            let (x, y) = (
                Panels::pack(F32Rows::new(&x, dim)),
                Panels::pack(F32Rows::new(&y, dim)),
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
                    on_grid: false,
                };
                let on_grid = SumsRequest {
                    on_grid: true,
                    ..request
                };
                let mut of_fusing: Option<TileSums> = None;
                for kernel in Kernel::available() {
                    let sums = pair_sums(kernel, &x, y, request);
                    let exact = pair_sums(kernel, &x, y, on_grid);
                    // f32 products of rows no longer than 0.7 are off by 10⁻⁶, and sums are of at most
                    // 4,096 pairs.
                    for (a, b) in sums.sums.iter().zip(&exact.sums) {
                        assert!((a - b).abs() < 4096.0 * 1e-5, "{a} {b}");
                    }
                    if kernel.name() != "portable" {
                        assert!(*of_fusing.get_or_insert(exact.clone()) == exact);
                    }
                    for sums in [sums, exact] {
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
}
