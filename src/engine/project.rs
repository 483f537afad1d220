//! `project`: a linear map of every row.

use super::fold::Feed;
use super::tiles::{Operation, Shape, TilePlan};
use super::{Backend, Engine};
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
        let plan = TilePlan {
            x_rows: x.len(),
            y_rows: w.len(),
            x_step: self.block_rows(Operation::Project, x.dim()),
            y_step: w.len().max(1),
            shape: Shape::Rectangle,
        };
        let as_they_are = |rows: Rows<'_>| Ok((rows.to_f32().into_owned(), ()));
        let x_feed = Feed {
            dim: x.dim(),
            rows: &|range| as_they_are(x.slice(range)),
        };
        let w_feed = Feed {
            dim: w.dim(),
            rows: &|range| as_they_are(w.slice(range)),
        };
        self.fold(
            Operation::Project,
            &plan,
            (x_feed, w_feed),
            |backend, x, w, _| backend.project(&x.block, &w.block),
            |_, part| projected.extend(part),
        )?;
        Ok(projected)
    }
}
