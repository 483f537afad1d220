//! How the tiles of one call are cut up: bands whose results fit a buffer, pieces that are one submission.
//! Pure but for the order in which bands are started and finished.

use std::ops::Range;

use crate::error::Result;

/// How long a submission should take: long enough to hide what it costs to make one, short enough for any
/// watchdog (Windows resets a device after 2 s) and for a user who wants to stop.
const SUBMISSION_SECONDS: f64 = 0.1;

/// How fast a kernel turned out to be on a device.
///
/// It decides how tiles are cut into submissions, which changes no bit of a result.
#[derive(Debug, Default)]
pub(super) struct Pace {
    submissions: u64,
    /// Multiply-adds per second.
    rate: Option<f64>,
}

impl Pace {
    /// Multiply-adds for the next submission, `first` while nothing is known.
    pub(super) fn work(&self, first: usize) -> usize {
        match self.rate {
            Some(rate) => (rate * SUBMISSION_SECONDS).clamp(1.0, 1e15) as usize,
            None => first,
        }
    }

    /// Counts a submission; whether it should be timed. Seldom, for the device waits then, but again and
    /// again, for clocks change.
    pub(super) fn should_time(&mut self) -> bool {
        self.submissions += 1;
        self.submissions.is_power_of_two()
    }

    /// Notes what a submission took. Too little work says nothing about the speed.
    pub(super) fn note(&mut self, work: usize, seconds: f64) {
        const TELLING: usize = 1 << 22;
        if work >= TELLING && seconds > 0.0 {
            self.rate = Some(work as f64 / seconds);
        }
    }
}

/// Runs bands of `step` out of `tiles`: `start` gives a band to the device, `finish` takes its results
/// while the device is at the next one.
pub(super) fn in_bands<T>(
    tiles: usize,
    step: usize,
    start: impl Fn(Range<usize>) -> Result<T>,
    finish: impl FnMut(Range<usize>, T) -> Result<()>,
) -> Result<()> {
    in_staged_bands(tiles, step, start, |_, started| Ok(started), finish)
}

/// The same where what is to be brought back is known only after a band was computed: `collect` waits for
/// that and asks for the rest, which arrives behind the next band.
pub(super) fn in_staged_bands<S, T>(
    tiles: usize,
    step: usize,
    start: impl Fn(Range<usize>) -> Result<S>,
    collect: impl Fn(&Range<usize>, S) -> Result<T>,
    mut finish: impl FnMut(Range<usize>, T) -> Result<()>,
) -> Result<()> {
    let (mut started, mut collected) = (None, None);
    let bands = (0..tiles)
        .step_by(step)
        .map(|first| Some(first..(first + step).min(tiles)));
    // Two more turns let the last bands through.
    for band in bands.chain([None, None]) {
        let next = match band {
            Some(band) => Some((band.clone(), start(band)?)),
            None => None,
        };
        let asked_for = match std::mem::replace(&mut started, next) {
            Some((band, results)) => {
                let results = collect(&band, results)?;
                Some((band, results))
            }
            None => None,
        };
        if let Some((band, results)) = std::mem::replace(&mut collected, asked_for) {
            finish(band, results)?;
        }
    }
    Ok(())
}

/// Tiles that one submission computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) x: Range<usize>,
    pub(super) y: Range<usize>,
    /// Tiles of x and of y that a workgroup takes.
    unit: [usize; 2],
}

impl Piece {
    /// Whether every tile of it lies below the diagonal.
    pub(super) fn below_diagonal(&self) -> bool {
        self.y.end <= self.x.start
    }

    /// Workgroups.
    pub(super) fn grid(&self) -> [u32; 2] {
        let [x, y] = self.unit;
        [
            self.y.len().div_ceil(y) as u32,
            self.x.len().div_ceil(x) as u32,
        ]
    }
}

/// Cuts tiles x × y into pieces of about `tiles` tiles, at least one workgroup's, which takes `unit` tiles
/// of x and of y, and of at most `side` workgroups along either side. Pieces begin at whole units.
pub(super) fn pieces(
    x: Range<usize>,
    y: Range<usize>,
    unit: [usize; 2],
    tiles: usize,
    side: usize,
) -> Vec<Piece> {
    let groups = tiles / (unit[0] * unit[1]);
    let across = groups.clamp(1, side).min(y.len().div_ceil(unit[1])).max(1);
    let down = (groups / across).clamp(1, side);
    let cut = |range: Range<usize>, step: usize| {
        range
            .clone()
            .step_by(step)
            .map(move |start| start..(start + step).min(range.end))
    };
    cut(x, down * unit[0])
        .flat_map(|x| {
            cut(y.clone(), across * unit[1]).map(move |y| Piece {
                x: x.clone(),
                y,
                unit,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_every_tile_once_and_keep_their_size() {
        for (x, y, unit, tiles, side) in [
            (0..7, 0..9, [1, 1], 10, 4),
            (3..40, 0..33, [1, 4], 50, 100),
            (2..40, 0..33, [2, 4], 50, 100),
            (0..5, 0..3, [2, 2], 1, 2),
            (0..1, 0..1, [1, 1], 0, 1),
            (2..90, 0..70, [1, 1], 1 << 30, 8),
        ] {
            let mut seen = std::collections::HashMap::new();
            for piece in pieces(x.clone(), y.clone(), unit, tiles, side) {
                let [across, down] = piece.grid();
                assert!(
                    across as usize <= side && down as usize <= side,
                    "{piece:?}"
                );
                let computed = across as usize * down as usize * unit[0] * unit[1];
                assert!(computed <= tiles.max(unit[0] * unit[1]), "{piece:?}");
                let whole = |start: usize, from: usize, unit| (start - from).is_multiple_of(unit);
                assert!(whole(piece.x.start, x.start, unit[0]), "{piece:?}");
                assert!(whole(piece.y.start, y.start, unit[1]), "{piece:?}");
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
        assert!(pieces(0..4, 0..0, [1, 4], 10, 10).is_empty());
        let below = |x, y| {
            let unit = [1, 1];
            Piece { x, y, unit }.below_diagonal()
        };
        assert!(below(4..6, 0..4) && !below(4..6, 0..5) && !below(0..6, 0..4));
    }

    #[test]
    fn submissions_take_as_long_as_they_should() {
        let mut pace = Pace::default();
        assert_eq!(pace.work(1000), 1000);
        let timed: Vec<u64> = (1..=20).filter(|_| pace.should_time()).collect();
        assert_eq!(timed.len(), 5);
        // Too little to tell.
        pace.note(1000, 1e-6);
        assert_eq!(pace.work(1000), 1000);
        pace.note(1 << 30, 0.5);
        assert_eq!(pace.work(1000), (f64::from(1 << 30) * 0.2) as usize);
        pace.note(1 << 30, 0.0);
        assert_eq!(pace.work(1000), (f64::from(1 << 30) * 0.2) as usize);
    }

    #[test]
    fn bands_overlap_and_finish_in_order() {
        let log = std::cell::RefCell::new(Vec::new());
        let start = |band: Range<usize>| {
            log.borrow_mut().push(format!("start {band:?}"));
            Ok(band.end)
        };
        let collect = |band: &Range<usize>, end: usize| {
            log.borrow_mut().push(format!("collect {band:?}"));
            Ok(end + 1)
        };
        in_staged_bands(5, 2, start, collect, |band, end| {
            assert_eq!(band.end + 1, end);
            log.borrow_mut().push(format!("finish {band:?}"));
            Ok(())
        })
        .unwrap();
        let expected = [
            "start 0..2",
            "start 2..4",
            "collect 0..2",
            "start 4..5",
            "collect 2..4",
            "finish 0..2",
            "collect 4..5",
            "finish 2..4",
            "finish 4..5",
        ];
        assert_eq!(*log.borrow(), expected);
        in_bands(0, 2, |_| Ok(()), |_, ()| unreachable!()).unwrap();
    }
}
