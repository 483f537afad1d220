//! `project`: a linear map of every row.

use super::fold::fold;
use super::tiles::{Operation, Shape, TilePlan};
use super::{Backend, Engine, with_backend};
use crate::embeddings::Rows;
use crate::error::Result;

impl Engine {
    /// X·Wᵀ for `x` (n × d) and `w` (p × d, one output coordinate per row): n × p values, row-major.
    ///
    /// # Errors
    /// The device fails.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn project(&self, x: Rows<'_>, w: Rows<'_>) -> Result<Vec<f32>> {
        assert_eq!(x.dim(), w.dim());
        let mut projected = Vec::with_capacity(x.len() * w.len());
        with_backend!(self, backend => {
            let plan = TilePlan {
                x_rows: x.len(),
                y_rows: w.len(),
                x_step: backend.block_rows(Operation::Project, x.dim(), self.memory),
                y_step: w.len().max(1),
                shape: Shape::Rectangle,
            };
            fold(
                backend,
                Operation::Project,
                &plan,
                &*self.progress,
                |range| backend.load(x.slice(range)),
                |_| backend.load(w),
                |x, w, _| {
                    projected.extend(backend.project(x, w)?);
                    Ok(())
                },
            )?;
        });
        Ok(projected)
    }
}
