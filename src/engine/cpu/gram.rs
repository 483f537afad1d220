//! `gram` on the CPU: f64 products of the columns.

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::panels::Panels;

/// Columns of X and of Y per task. Fixed, so that every sum is formed the same way at any number of
/// threads.
const COLUMNS: usize = 128;

/// XᵀY, d × d′ row-major, in f64.
pub(super) fn gram(x: &Panels, y: &Panels) -> Vec<f64> {
    assert_eq!(x.rows(), y.rows());
    let (x_dim, y_dim) = (x.dim(), y.dim());
    // Padding rows are 0 on both sides and add nothing.
    let (x_columns, stride) = x.to_f64_columns();
    let (y_columns, _) = y.to_f64_columns();
    if stride == 0 {
        return vec![0.0; x_dim * y_dim];
    }
    let view = |columns, dim| MatRef::from_column_major_slice(columns, stride, dim);
    let (x_columns, y_columns) = (view(&x_columns, x_dim), view(&y_columns, y_dim));
    let x_panels = x_dim.div_ceil(COLUMNS);
    let parts: Vec<Vec<f64>> = (0..x_panels * y_dim.div_ceil(COLUMNS))
        .into_par_iter()
        .map(|task| {
            let (first_x, first_y) = (task % x_panels * COLUMNS, task / x_panels * COLUMNS);
            let a = x_columns.subcols(first_x, COLUMNS.min(x_dim - first_x));
            let b = y_columns.subcols(first_y, COLUMNS.min(y_dim - first_y));
            let mut part = vec![f64::NAN; a.ncols() * b.ncols()];
            let to = MatMut::from_row_major_slice_mut(&mut part, a.ncols(), b.ncols());
            matmul(to, Accum::Replace, a.transpose(), b, 1.0, Par::Seq);
            part
        })
        .collect();
    let mut products = vec![f64::NAN; x_dim * y_dim];
    for (task, part) in parts.iter().enumerate() {
        let (first_x, first_y) = (task % x_panels * COLUMNS, task / x_panels * COLUMNS);
        let width = COLUMNS.min(y_dim - first_y);
        for (row, part) in part.chunks_exact(width).enumerate() {
            let at = (first_x + row) * y_dim + first_y;
            products[at..at + width].copy_from_slice(part);
        }
    }
    products
}
