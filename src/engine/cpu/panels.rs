//! Rows as the kernels read them.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::grid::GridPanels;
use crate::embeddings::F32Rows;

/// Rows per panel.
pub(super) const LANES: usize = 16;

/// One coordinate of the 16 rows of a panel: a cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Lane(pub(super) [f32; LANES]);

/// Rows in panels of 16, coordinate by coordinate: `[panel][coordinate][row in panel]`. The last panel
/// is filled up with zero rows. One layout serves either side of a product.
pub struct Panels {
    lanes: OnceLock<Vec<Lane>>,
    rows: usize,
    dim: usize,
    sq_norms: OnceLock<Vec<f32>>,
    /// Rows that lie on the grid are held in this form, half as long; `lanes` are made where they are
    /// wanted after all.
    grid: Option<GridPanels>,
}

impl Panels {
    /// Packs rows, on the current thread pool.
    pub(super) fn pack(rows: F32Rows<'_>) -> Self {
        let dim = rows.dim();
        if let Some(grid) = GridPanels::pack(rows) {
            return Self {
                lanes: OnceLock::new(),
                rows: rows.len(),
                dim,
                sq_norms: OnceLock::new(),
                grid: Some(grid),
            };
        }
        let mut lanes = vec![Lane([0.0; LANES]); rows.len().div_ceil(LANES) * dim];
        lanes
            .par_chunks_exact_mut(dim)
            .zip(rows.values().par_chunks(LANES * dim))
            .for_each(|(panel, rows)| {
                for (r, row) in rows.chunks_exact(dim).enumerate() {
                    for (lane, &value) in panel.iter_mut().zip(row) {
                        lane.0[r] = value;
                    }
                }
            });
        Self {
            lanes: OnceLock::from(lanes),
            rows: rows.len(),
            dim,
            sq_norms: OnceLock::new(),
            grid: None,
        }
    }

    /// Number of rows, n.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Values per row, d.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The panels of rows `first` … `end` − 1, `dim` lanes each; `first` is a multiple of 16.
    #[inline(always)]
    pub(super) fn lanes(&self, first: usize, end: usize) -> &[Lane] {
        let end = end.min(self.rows).div_ceil(LANES);
        &self.all_lanes()[first / LANES * self.dim..end * self.dim]
    }

    #[inline(always)]
    fn all_lanes(&self) -> &[Lane] {
        self.lanes.get_or_init(|| {
            let grid = self.grid.as_ref().expect("rows are held in one form");
            grid.to_lanes(self.dim)
        })
    }

    /// ‖x‖² per row: summed in f64 in coordinate order, rounded once.
    pub(super) fn sq_norms(&self) -> &[f32] {
        self.sq_norms.get_or_init(|| {
            let mut norms: Vec<f32> = self
                .all_lanes()
                .par_chunks_exact(self.dim)
                .flat_map_iter(|panel| {
                    let mut sums = [0.0f64; LANES];
                    for lane in panel {
                        for (sum, &v) in sums.iter_mut().zip(&lane.0) {
                            *sum += f64::from(v) * f64::from(v);
                        }
                    }
                    sums.map(|sum| sum as f32)
                })
                .collect();
            norms.truncate(self.rows);
            norms
        })
    }

    /// The codes of rows on the grid.
    ///
    /// # Panics
    /// If a row is not.
    pub(super) fn on_grid(&self) -> &GridPanels {
        self.grid.as_ref().expect("every row lies on the grid")
    }

    /// The values as f64, column-major, and the distance between columns: n rounded up to 16, the
    /// rows beyond n being 0.
    pub(super) fn to_f64_columns(&self) -> (Vec<f64>, usize) {
        let stride = self.rows.next_multiple_of(LANES);
        let mut columns = vec![0.0; stride * self.dim];
        let lanes = self.all_lanes();
        if stride > 0 {
            columns
                .par_chunks_exact_mut(stride)
                .enumerate()
                .for_each(|(k, column)| {
                    let lanes = lanes[k..].iter().step_by(self.dim);
                    for (to, lane) in column.chunks_exact_mut(LANES).zip(lanes) {
                        for (to, &v) in to.iter_mut().zip(&lane.0) {
                            *to = f64::from(v);
                        }
                    }
                });
        }
        (columns, stride)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(rows: usize, dim: usize) -> Vec<f32> {
        (0..rows * dim).map(|i| i as f32 + 1.0).collect()
    }

    #[test]
    fn packing_keeps_every_value_and_pads_with_zeros() {
        for (rows, dim) in [(1, 1), (15, 3), (16, 3), (17, 5), (33, 1)] {
            let values = values(rows, dim);
            let panels = Panels::pack(F32Rows::new(&values, dim));
            for row in 0..rows.next_multiple_of(LANES) {
                let first = row / LANES * LANES;
                let panel = panels.lanes(first, first + LANES);
                for (k, lane) in panel.iter().enumerate() {
                    let expected = if row < rows {
                        values[row * dim + k]
                    } else {
                        0.0
                    };
                    assert_eq!(
                        lane.0[row % LANES],
                        expected,
                        "{rows}×{dim} at ({row}, {k})"
                    );
                }
            }
            let (columns, stride) = panels.to_f64_columns();
            for row in 0..stride {
                for k in 0..dim {
                    let expected = if row < rows {
                        values[row * dim + k]
                    } else {
                        0.0
                    };
                    assert_eq!(columns[k * stride + row], f64::from(expected));
                }
            }
        }
    }

    #[test]
    fn squared_norms_are_rounded_once() {
        let values = values(19, 7);
        let rows = F32Rows::new(&values, 7);
        let panels = Panels::pack(rows);
        let exact: Vec<f32> = rows
            .iter()
            .map(|row| row.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>() as f32)
            .collect();
        assert_eq!(panels.sq_norms(), exact);
    }

    #[test]
    fn no_rows_are_fine() {
        let panels = Panels::pack(F32Rows::new(&[], 4));
        assert_eq!(panels.rows(), 0);
        assert!(panels.lanes(0, 64).is_empty() && panels.sq_norms().is_empty());
        assert!(panels.to_f64_columns().0.is_empty());
    }
}
