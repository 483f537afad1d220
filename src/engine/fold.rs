//! Runs a pass: tiles in order, each block brought to the device once per neighbour, progress told.

use std::ops::Range;

use super::any::AnyBlock;
use super::tiles::{Operation, Tile, TilePlan};
use super::{AnyBackend, Backend, Engine};
use crate::embeddings::Rows;
use crate::error::Result;

/// Where the rows of one side of a pass come from.
pub(super) struct Feed<'a, H> {
    /// Values per row.
    pub(super) dim: usize,
    /// The rows of a range as the device is to have them, and what the host keeps beside them.
    pub(super) rows: &'a (dyn Fn(Range<usize>) -> Result<(Vec<f32>, H)> + Sync),
}

/// A block of rows: what the host keeps, and the rows on the device.
pub(super) struct Loaded<H> {
    pub(super) host: H,
    pub(super) block: AnyBlock,
}

impl Engine {
    /// Computes a partial result for every tile of `plan` and hands them to `merge`, in the plan's order.
    /// A tile on the diagonal of a triangle is one block with itself, taken from `x`.
    pub(super) fn fold<H: Send + Sync, P: Send>(
        &self,
        operation: Operation,
        plan: &TilePlan,
        (x, y): (Feed<'_, H>, Feed<'_, H>),
        compute: impl Fn(&AnyBackend, &Loaded<H>, &Loaded<H>, &Tile) -> Result<P> + Sync,
        mut merge: impl FnMut(&Tile, P),
    ) -> Result<()> {
        self.progress.begin(operation.name(), plan.pairs());
        let (mut x_block, mut y_block) = (None, None);
        let result = plan.tiles().try_for_each(|tile| {
            let x = resident(&self.backend, operation, &mut x_block, &tile.x, &x)?;
            let part = if tile.diagonal {
                compute(&self.backend, x, x, &tile)?
            } else {
                let y = resident(&self.backend, operation, &mut y_block, &tile.y, &y)?;
                compute(&self.backend, x, y, &tile)?
            };
            merge(&tile, part);
            self.progress.advance(tile.pairs());
            Ok(())
        });
        self.progress.end();
        result
    }
}

/// The block of `range`, loaded unless it is the one already there.
fn resident<'a, H>(
    backend: &AnyBackend,
    operation: Operation,
    slot: &'a mut Option<(Range<usize>, Loaded<H>)>,
    range: &Range<usize>,
    feed: &Feed<'_, H>,
) -> Result<&'a Loaded<H>> {
    if slot.as_ref().is_none_or(|(held, _)| held != range) {
        // Freed before the next one is loaded: two blocks of one side never coexist.
        *slot = None;
        let (values, host) = (feed.rows)(range.clone())?;
        let block = backend.load(operation, Rows::new(&values, feed.dim))?;
        *slot = Some((range.clone(), Loaded { host, block }));
    }
    Ok(&slot.as_ref().expect("filled above").1)
}
