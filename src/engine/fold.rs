//! Runs a pass: tiles in order, each block brought to the device once per neighbour, progress told.

use std::ops::Range;

use super::tiles::{Operation, Tile, TilePlan};
use super::{Backend, Progress};
use crate::error::Result;

/// Folds `step` over the tiles of `plan`. `load_x` and `load_y` bring a range of rows to the device; the
/// x block stays while its y blocks pass, and a diagonal tile is one block.
pub(super) fn fold<B: Backend>(
    _: &B,
    operation: Operation,
    plan: &TilePlan,
    progress: &dyn Progress,
    load_x: impl Fn(Range<usize>) -> Result<B::Block>,
    load_y: impl Fn(Range<usize>) -> Result<B::Block>,
    mut step: impl FnMut(&B::Block, &B::Block, &Tile) -> Result<()>,
) -> Result<()> {
    progress.begin(operation.name(), plan.pairs());
    let mut x_block: Option<(Range<usize>, B::Block)> = None;
    let mut y_block: Option<(Range<usize>, B::Block)> = None;
    let result = plan.tiles().try_for_each(|tile| {
        let x = resident(&mut x_block, &tile.x, &load_x)?;
        if tile.diagonal {
            step(x, x, &tile)?;
        } else {
            step(x, resident(&mut y_block, &tile.y, &load_y)?, &tile)?;
        }
        progress.advance(tile.pairs());
        Ok(())
    });
    progress.end();
    result
}

/// The block of `range`, loaded unless it is the one already there.
fn resident<'a, T>(
    slot: &'a mut Option<(Range<usize>, T)>,
    range: &Range<usize>,
    load: impl Fn(Range<usize>) -> Result<T>,
) -> Result<&'a T> {
    if slot.as_ref().is_none_or(|(held, _)| held != range) {
        // Freed before the next one is loaded: two blocks of one side never coexist.
        *slot = None;
        *slot = Some((range.clone(), load(range.clone())?));
    }
    Ok(&slot.as_ref().expect("filled above").1)
}
