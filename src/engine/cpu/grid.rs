//! Rows on a grid: 16-bit integers, whose products are exact.
//!
//! The engine rounds the rows of large sets to multiples c·2⁻¹⁶ ([`crate::engine::SumsRequest::on_grid`])
//! with ‖c‖² < 2³¹. So every product of two rows is an integer below 2³¹ by the Cauchy–Schwarz
//! inequality, and 32-bit sums that wrap around on the way end on it: the same bits on every instruction
//! set, at twice the rate of f32.

use rayon::prelude::*;

use super::kernel::Isa;
use super::panels::{LANES, Lane};
use super::product::{Factor, Tile};
use crate::embeddings::F32Rows;
use crate::engine::GRID_STEP;

/// Coordinates that are multiplied at once.
const PAIR: usize = 2;

/// Two coordinates of the 16 rows of a panel: a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct GridLane(pub(super) [[i16; PAIR]; LANES]);

/// The codes c of rows c·2⁻¹⁶, `[panel][pair of coordinates][row in panel]`, filled up with zeros.
pub(super) struct GridPanels {
    lanes: Vec<GridLane>,
    rows: usize,
    depth: usize,
    sq_norms: Vec<u32>,
}

impl GridPanels {
    /// The codes of rows, if all of them lie on the grid; on the current thread pool.
    pub(super) fn pack(rows: F32Rows<'_>) -> Option<Self> {
        let dim = rows.dim();
        // Most rows do not, and the first of them tells.
        let first = &rows.values()[..dim.min(rows.values().len())];
        if !first.iter().all(|&v| code(v).is_some()) {
            return None;
        }
        let depth = dim.div_ceil(PAIR);
        let panels = rows.len().div_ceil(LANES);
        let mut lanes = vec![GridLane([[0; PAIR]; LANES]); panels * depth];
        let mut sq_norms = vec![0u32; panels * LANES];
        let fits = lanes
            .par_chunks_exact_mut(depth)
            .zip(sq_norms.par_chunks_exact_mut(LANES))
            .zip(rows.values().par_chunks(LANES * dim))
            .all(|((lanes, norms), values)| {
                let rows = values.chunks_exact(dim).zip(norms).enumerate();
                rows.map(|(r, (row, norm))| {
                    let mut sum = 0i64;
                    let mut fits = true;
                    for (to, pair) in lanes.iter_mut().zip(row.chunks(PAIR)) {
                        for (to, &value) in to.0[r].iter_mut().zip(pair) {
                            let code = code(value);
                            fits &= code.is_some();
                            *to = code.unwrap_or(0);
                            sum += i64::from(*to).pow(2);
                        }
                    }
                    *norm = sum as u32;
                    fits && sum < 1 << 31
                })
                .fold(true, |all, fits| all & fits)
            });
        sq_norms.truncate(rows.len());
        fits.then_some(Self {
            lanes,
            rows: rows.len(),
            depth,
            sq_norms,
        })
    }

    /// The rows again, as panels of `dim` lanes.
    pub(super) fn to_lanes(&self, dim: usize) -> Vec<Lane> {
        let panels = self.lanes.chunks_exact(self.depth);
        panels
            .flat_map(|panel| {
                (0..dim).map(|k| {
                    let codes = panel[k / PAIR].0;
                    Lane(codes.map(|two| f32::from(two[k % PAIR]) * GRID_STEP))
                })
            })
            .collect()
    }

    /// ‖c‖² per row, below 2³¹.
    pub(super) fn sq_norms(&self) -> &[u32] {
        &self.sq_norms
    }
}

/// c of c·2⁻¹⁶, if that is what the value is and the code fits.
#[inline(always)]
fn code(value: f32) -> Option<i16> {
    /// 3 · 2²²: integers up to 2²² stand in the low bits of a sum with it. (A cast, which saturates, is
    /// not compiled to vector code.)
    const ROUNDER: f32 = 12_582_912.0;
    let scaled = value * (1.0 / GRID_STEP);
    let shifted = scaled + ROUNDER;
    let fits = shifted - ROUNDER == scaled && scaled.abs() <= 32_767.0;
    fits.then_some(shifted.to_bits() as i16)
}

impl Factor for GridPanels {
    type Lane = GridLane;
    type Product = i32;
    const UNWRITTEN: i32 = if cfg!(debug_assertions) { i32::MIN } else { 0 };

    fn rows(&self) -> usize {
        self.rows
    }

    fn depth(&self) -> usize {
        self.depth
    }

    #[inline(always)]
    fn lanes(&self, first: usize, end: usize) -> &[GridLane] {
        let end = end.min(self.rows).div_ceil(LANES);
        &self.lanes[first / LANES * self.depth..end * self.depth]
    }

    #[inline(always)]
    fn multiply<I: Isa>(
        isa: I,
        a: &[GridLane],
        b: &[GridLane],
        tile: &mut Tile<i32>,
        row: usize,
        column: usize,
    ) {
        isa.grid_product(a, b, tile, row, column);
    }
}

/// [`Isa::grid_product`] in plain code.
#[inline(always)]
pub(super) fn plain_products(
    a: &[GridLane],
    b: &[GridLane],
    tile: &mut Tile<i32>,
    row: usize,
    column: usize,
) {
    /// Rows of A per pass.
    const ROWS: usize = 4;
    for (panel, b) in b.chunks_exact(a.len()).enumerate() {
        for top in (0..LANES).step_by(ROWS) {
            let mut sums = [[0i32; LANES]; ROWS];
            for (a, b) in a.iter().zip(b) {
                for r in 0..ROWS {
                    let a = a.0[top + r].map(i32::from);
                    for c in 0..LANES {
                        let b = b.0[c];
                        let two = (a[0] * i32::from(b[0])).wrapping_add(a[1] * i32::from(b[1]));
                        sums[r][c] = sums[r][c].wrapping_add(two);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                let from = column + panel * LANES;
                tile.row_mut(row + top + r)[from..from + LANES].copy_from_slice(sums);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::{Job, Kernel};
    use super::super::panels::Panels;
    use super::super::product::SIDE;
    use super::*;
    use crate::stats::rng::Philox;

    struct Products<'a> {
        grid: &'a GridPanels,
        panels: usize,
    }

    impl Job for Products<'_> {
        type Output = Box<Tile<i32>>;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Box<Tile<i32>> {
            let mut tile = Tile::new(i32::MIN);
            let a = self.grid.lanes(LANES, 2 * LANES);
            let b = self.grid.lanes(0, self.panels * LANES);
            GridPanels::multiply(isa, a, b, &mut tile, LANES, 2 * LANES);
            tile
        }
    }

    /// Random rows, and rows as long as the grid allows, in one coordinate or in all.
    fn codes(rows: usize, dim: usize) -> Vec<i32> {
        let mut rng = Philox::new(31, dim as u64);
        (0..rows * dim)
            .map(|at| {
                let longest = 46_340.0 / (dim as f64).sqrt();
                let code = match at / dim % 4 {
                    0 => longest.trunc(),
                    1 => -longest.trunc(),
                    _ => (rng.uniform() * 2.0 - 1.0) * longest,
                };
                (code as i32).clamp(-32_767, 32_767)
            })
            .collect()
    }

    #[test]
    fn every_kernel_multiplies_rows_on_the_grid_exactly() {
        for dim in [1, 2, 3, 17, 100, 383, 385, 1536] {
            let codes = codes(2 * LANES - 3, dim);
            let code = |row: usize, k: usize| codes.get(row * dim + k).map_or(0, |&c| i64::from(c));
            let values: Vec<f32> = codes.iter().map(|&c| c as f32 * GRID_STEP).collect();
            let panels = Panels::pack(F32Rows::new(&values, dim));
            let grid = panels.on_grid();
            let lanes = panels.lanes(0, 2 * LANES);
            for (at, &value) in values.iter().enumerate() {
                let (row, k) = (at / dim, at % dim);
                assert_eq!(lanes[row / LANES * dim + k].0[row % LANES], value);
            }
            for (row, &norm) in grid.sq_norms().iter().enumerate() {
                let exact: i64 = (0..dim).map(|k| code(row, k).pow(2)).sum();
                assert_eq!(i64::from(norm), exact);
            }
            for kernel in Kernel::available() {
                for panels in [1, 2] {
                    let tile = kernel.run(Products { grid, panels });
                    for r in 0..SIDE {
                        for c in 0..SIDE {
                            let columns = 2 * LANES..(2 + panels) * LANES;
                            let written = (LANES..2 * LANES).contains(&r) && columns.contains(&c);
                            let exact = if written {
                                let (a, b) = (r, c - 2 * LANES);
                                (0..dim).map(|k| code(a, k) * code(b, k)).sum()
                            } else {
                                i64::from(i32::MIN)
                            };
                            let found = i64::from(tile.row(r)[c]);
                            assert_eq!(found, exact, "{} d {dim}: {r}, {c}", kernel.name());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn rows_off_the_grid_are_told() {
        let on = |values: &[f32], dim| GridPanels::pack(F32Rows::new(values, dim)).is_some();
        let most = 32_767.0 * GRID_STEP;
        assert!(on(&[], 2) && on(&[0.0, -0.0], 2) && on(&[most, -GRID_STEP], 2));
        assert!(!on(&[0.5 * GRID_STEP, 0.0], 2));
        assert!(!on(&[most + GRID_STEP, 0.0], 2));
        assert!(!on(&[1e-30, 0.0], 2) && !on(&[f32::NAN, 0.0], 2) && !on(&[1e30, 0.0], 2));
        // The second row is too long: two such coordinates are short of 2³¹, three are not.
        assert!(on(&[0.25, 0.25, most, most], 2));
        assert!(!on(&[0.25, 0.25, 0.25, most, most, most], 3));
    }
}
