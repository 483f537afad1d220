//! How the tiles of one call are cut up: bands whose results fit a buffer, pieces that are one submission.
//! Pure but for the order in which bands are started and finished.

use std::ops::Range;

use crate::error::Result;

/// Runs bands of `step` out of `tiles`: `start` gives a band to the device, `finish` takes its results
/// while the device is at the next one.
pub(super) fn in_bands<T>(
    tiles: usize,
    step: usize,
    start: impl Fn(Range<usize>) -> Result<T>,
    mut finish: impl FnMut(Range<usize>, T) -> Result<()>,
) -> Result<()> {
    let mut before = None;
    for first in (0..tiles).step_by(step) {
        let band = first..(first + step).min(tiles);
        let started = start(band.clone())?;
        if let Some((band, results)) = before.replace((band, started)) {
            finish(band, results)?;
        }
    }
    match before {
        Some((band, results)) => finish(band, results),
        None => Ok(()),
    }
}

/// Tiles that one submission computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) x: Range<usize>,
    pub(super) y: Range<usize>,
}

impl Piece {
    /// Whether every tile of it lies below the diagonal.
    pub(super) fn below_diagonal(&self) -> bool {
        self.y.end <= self.x.start
    }

    /// Workgroups, one per `strip` tiles of y and tile of x.
    pub(super) fn grid(&self, strip: usize) -> [u32; 2] {
        [self.y.len().div_ceil(strip) as u32, self.x.len() as u32]
    }
}

/// Cuts tiles x × y into pieces of about `tiles` tiles, at least one strip, and at most `side` workgroups
/// along either side. Pieces begin at whole strips of y.
pub(super) fn pieces(
    x: Range<usize>,
    y: Range<usize>,
    strip: usize,
    tiles: usize,
    side: usize,
) -> Vec<Piece> {
    let width = (tiles / strip).clamp(1, side) * strip;
    let width = width.min(y.len().next_multiple_of(strip)).max(strip);
    let height = (tiles / width).clamp(1, side);
    let cut = |range: Range<usize>, step: usize| {
        range
            .clone()
            .step_by(step)
            .map(move |start| start..(start + step).min(range.end))
    };
    cut(x, height)
        .flat_map(|x| cut(y.clone(), width).map(move |y| Piece { x: x.clone(), y }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_tile_once_and_keep_their_size() {
        for (x, y, strip, tiles, side) in [
            (0..7, 0..9, 1, 10, 4),
            (3..40, 0..33, 4, 50, 100),
            (0..5, 0..3, 4, 1, 2),
            (0..1, 0..1, 1, 0, 1),
            (2..90, 0..70, 1, 1 << 30, 8),
        ] {
            let mut seen = std::collections::HashMap::new();
            for piece in pieces(x.clone(), y.clone(), strip, tiles, side) {
                let [columns, rows] = piece.grid(strip);
                assert!(
                    columns as usize <= side && rows as usize <= side,
                    "{piece:?}"
                );
                assert!(
                    piece.x.len() * piece.y.len() <= tiles.max(strip),
                    "{piece:?}"
                );
                assert!(piece.y.start.is_multiple_of(strip), "{piece:?}");
                for tile in piece
                    .x
                    .clone()
                    .flat_map(|x| piece.y.clone().map(move |y| (x, y)))
                {
                    *seen.entry(tile).or_insert(0) += 1;
                }
            }
            let all = x.flat_map(|x| y.clone().map(move |y| (x, y)));
            assert!(all.clone().all(|tile| seen.get(&tile) == Some(&1)));
            assert_eq!(seen.len(), all.count());
        }
        assert!(pieces(0..4, 0..0, 4, 10, 10).is_empty());
        let below = |x, y| Piece { x, y }.below_diagonal();
        assert!(below(4..6, 0..4) && !below(4..6, 0..5) && !below(0..6, 0..4));
    }

    #[test]
    fn bands_finish_in_order_one_behind() {
        let log = std::cell::RefCell::new(Vec::new());
        let start = |band: Range<usize>| {
            log.borrow_mut().push(format!("start {band:?}"));
            Ok(band.end)
        };
        in_bands(5, 2, start, |band, end| {
            assert_eq!(band.end, end);
            log.borrow_mut().push(format!("finish {band:?}"));
            Ok(())
        })
        .unwrap();
        let expected = [
            "start 0..2",
            "start 2..4",
            "finish 0..2",
            "start 4..5",
            "finish 2..4",
            "finish 4..5",
        ];
        assert_eq!(*log.borrow(), expected);
    }
}
