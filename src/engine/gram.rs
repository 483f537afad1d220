//! `gram`: cross-products of rows that belong together.

use rayon::prelude::*;

use super::fold::Feed;
use super::tiles::{Operation, Shape, TilePlan};
use super::{Backend, Engine, score};
use crate::embeddings::{F32Rows, Rows};
use crate::error::Result;

/// Σ over rows of xᵢyᵢᵀ, xᵢ and yᵢ.
#[derive(Debug, Clone, PartialEq)]
pub struct GramProducts {
    /// Rows behind the sums, n.
    pub rows: usize,
    /// XᵀY, d × d′ row-major.
    pub products: Vec<f64>,
    /// Column sums of X, d.
    pub x_sums: Vec<f64>,
    /// Column sums of Y, d′.
    pub y_sums: Vec<f64>,
}

/// Rows per partial product. Fixed, so that the order of additions is the same on any machine.
const CHUNK: usize = 4096;

/// Columns that one task adds up.
const COLUMNS: usize = 64;

impl Engine {
    /// XᵀY and the column sums of `x` (n × d) and `y` (n × d′), rows belonging together by position.
    ///
    /// Chunks of 4,096 rows are multiplied by the device (the CPU in f64, a GPU in f32 by groups of at
    /// most 64 rows) and added in row order in f64.
    ///
    /// # Errors
    /// The device fails.
    ///
    /// # Panics
    /// If the numbers of rows differ.
    pub fn gram(&self, x: Rows<'_>, y: Rows<'_>) -> Result<GramProducts> {
        assert_eq!(x.len(), y.len(), "rows belong together by position");
        // Powers of two bring both sides to lengths near 1, where f32 products cannot overflow.
        let same = x.is_same(&y);
        let exponent = |rows: Rows<'_>| {
            let norms = self.threads.install(|| score::norms(rows));
            score::unit_exponent(norms.into_iter().fold(0.0, f64::max))
        };
        let x_exponent = exponent(x);
        let y_exponent = if same { x_exponent } else { exponent(y) };
        let mut products = vec![0.0; x.dim() * y.dim()];
        let plan = TilePlan {
            x_rows: x.len(),
            y_rows: y.len(),
            x_step: CHUNK,
            y_step: CHUNK,
            shape: Shape::Diagonal,
        };
        let scaled = |rows: Rows<'_>, exponent| {
            let values = rows.to_f32();
            let scaled = || score::scale_rows(F32Rows::new(&values, rows.dim()), exponent);
            Ok((self.threads.install(scaled), ()))
        };
        let x_feed = Feed {
            dim: x.dim(),
            rows: &|range| scaled(x.slice(range), x_exponent),
        };
        let y_feed = Feed {
            dim: y.dim(),
            rows: &|range| scaled(y.slice(range), y_exponent),
        };
        self.fold(
            Operation::Gram,
            &plan,
            (x_feed, y_feed),
            |backend, x, y, _| backend.gram(&x.block, &y.block),
            |_, part| {
                for (sum, part) in products.iter_mut().zip(part) {
                    *sum += part;
                }
            },
        )?;
        let unscale = 2f64.powi(-x_exponent) * 2f64.powi(-y_exponent);
        products.iter_mut().for_each(|v| *v *= unscale);
        // Every column is added up in row order, whichever thread has it.
        let sums = |rows: Rows<'_>| {
            let mut sums = vec![0.0; rows.dim()];
            for (_, values) in rows.chunks(CHUNK) {
                let chunk = F32Rows::new(&values, rows.dim());
                let parts = sums.par_chunks_mut(COLUMNS).enumerate();
                parts.for_each(|(part, sums)| {
                    let first = part * COLUMNS;
                    for row in chunk.iter() {
                        for (sum, &v) in sums.iter_mut().zip(&row[first..]) {
                            *sum += f64::from(v);
                        }
                    }
                });
            }
            sums
        };
        let x_sums = self.threads.install(|| sums(x));
        Ok(GramProducts {
            rows: x.len(),
            products,
            y_sums: if same {
                x_sums.clone()
            } else {
                self.threads.install(|| sums(y))
            },
            x_sums,
        })
    }
}
