//! Runs a pass: one reader, workers that load and compute at the same time, results merged in order.
//!
//! The reader takes the tiles in the plan's order and reads each range of y once, which may be a stream.
//! Every worker takes the next tile from one queue; its loader brings the blocks of one tile to the
//! device while the tile before is computed. Results are merged in the plan's order, whoever computed
//! them, so that a pass gives the same bits however many workers there are.
//!
//! A tile is merged whole or not at all. So a tile that a device lost can be computed again, and one that
//! a device has no memory for can be computed in parts.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use super::any::AnyBlock;
use super::tiles::{Operation, Tile, TilePlan};
use super::workers::Worker;
use super::{AnyBackend, Backend, Engine, interrupt};
use crate::error::{Error, Result};

/// Where the rows of one side of a pass come from.
pub(super) struct Feed<'a, H> {
    /// Values per row.
    pub(super) dim: usize,
    /// The rows of a range as the device is to have them, and what the host keeps beside them. Ranges of x
    /// may be asked for in any order, more than once and by several threads; those of y in ascending
    /// order, each once, by one thread at a time.
    pub(super) rows: &'a (dyn Fn(Range<usize>) -> Result<(Vec<f32>, H)> + Sync),
}

/// What the host keeps about the rows of a block.
pub(super) trait Host: Send + Sync {
    /// The same about some of the rows.
    #[must_use]
    fn part(&self, rows: Range<usize>) -> Self;
}

impl Host for () {
    fn part(&self, _: Range<usize>) {}
}

/// How many rows there are.
impl Host for usize {
    fn part(&self, rows: Range<usize>) -> Self {
        rows.len()
    }
}

/// A block of rows: what the host keeps, and the rows on the device.
pub(super) struct Loaded<H> {
    pub(super) host: Arc<H>,
    pub(super) block: AnyBlock,
}

/// Rows that were read.
struct Fed<H> {
    /// Shared with the blocks on the host that need them.
    values: Arc<Vec<f32>>,
    dim: usize,
    host: Arc<H>,
}

impl<H: Host> Fed<H> {
    /// Some of the rows; a stream may have ended before the last of them.
    fn part(&self, rows: Range<usize>) -> Self {
        let there = self.values.len() / self.dim;
        let rows = rows.start.min(there)..rows.end.min(there);
        Self {
            values: Arc::new(self.values[rows.start * self.dim..rows.end * self.dim].to_vec()),
            dim: self.dim,
            host: Arc::new(self.host.part(rows)),
        }
    }
}

/// A tile to compute; a diagonal one needs no y.
struct Job<H> {
    index: usize,
    tile: Tile,
    y: Option<Arc<Fed<H>>>,
}

/// A job whose blocks are on the device, or why they are not.
type Ready<H> = (Job<H>, Result<[Arc<Loaded<H>>; 2]>);

/// The parts of a tile: one, or more where memory was short.
type Parts<P> = Vec<(Tile, P)>;

/// Rows that a part of a tile has at least: a patch of the GPU's product tiles.
const LEAST_ROWS: usize = 128;

impl Engine {
    /// Computes a partial result for every tile of `plan` and hands them to `merge`, in the plan's order.
    /// A tile on the diagonal of a triangle is one block with itself, taken from `x`.
    ///
    /// # Errors
    /// Rows cannot be read, a device fails, or the run is interrupted.
    pub(super) fn fold<H: Host, P: Send>(
        &self,
        operation: Operation,
        plan: &TilePlan,
        (x, y): (Feed<'_, H>, Feed<'_, H>),
        compute: impl Fn(&AnyBackend, &Loaded<H>, &Loaded<H>, &Tile) -> Result<P> + Sync,
        mut merge: impl FnMut(&Tile, P),
    ) -> Result<()> {
        self.progress.begin(operation.name(), plan.pairs());
        let pass = Pass {
            engine: self,
            operation,
            x,
            compute,
            stop: AtomicBool::new(false),
        };
        let (job_in, jobs) = sync_channel::<Job<H>>(1);
        let jobs = Mutex::new(jobs);
        let (done_in, done) = channel();
        let result = thread::scope(|scope| {
            let (pass, jobs) = (&pass, &jobs);
            let failed = done_in.clone();
            scope.spawn(move || {
                if let Err(error) = pass.read(plan, &y, &job_in) {
                    // Nobody listens where the pass has failed already.
                    let _ = failed.send((usize::MAX, Err(error)));
                }
            });
            for worker in &self.workers {
                let done_in = done_in.clone();
                scope.spawn(move || pass.serve(worker, jobs, &done_in));
            }
            drop(done_in);
            let result = merge_in_order(&done, |tile, part| {
                merge(tile, part);
                self.progress.advance(tile.pairs());
            });
            pass.stop.store(true, Ordering::Relaxed);
            // A reader that waits for someone to take its job must not wait for ever.
            while done.recv().is_ok() {}
            result
        });
        self.progress.end();
        result
    }
}

/// Merges results as their turn comes, up to the first error.
fn merge_in_order<P>(
    done: &Receiver<(usize, Result<Parts<P>>)>,
    mut merge: impl FnMut(&Tile, P),
) -> Result<()> {
    let mut early = BTreeMap::new();
    let mut next = 0;
    for (index, parts) in done {
        early.insert(index, parts?);
        while let Some(parts) = early.remove(&next) {
            parts
                .into_iter()
                .for_each(|(tile, part)| merge(&tile, part));
            next += 1;
        }
        interrupt::check()?;
    }
    interrupt::check()
}

/// What the threads of a pass share.
struct Pass<'a, H, C> {
    engine: &'a Engine,
    operation: Operation,
    x: Feed<'a, H>,
    compute: C,
    /// Nothing more is wanted.
    stop: AtomicBool,
}

impl<H: Host, P, C> Pass<'_, H, C>
where
    C: Fn(&AnyBackend, &Loaded<H>, &Loaded<H>, &Tile) -> Result<P> + Sync,
    P: Send,
{
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Makes jobs of the tiles, in order.
    fn read(&self, plan: &TilePlan, y: &Feed<'_, H>, jobs: &SyncSender<Job<H>>) -> Result<()> {
        let mut held: Option<(Range<usize>, Arc<Fed<H>>)> = None;
        for (index, tile) in plan.tiles().enumerate() {
            interrupt::check()?;
            let rows = if tile.diagonal {
                None
            } else {
                if held.as_ref().is_none_or(|(range, _)| *range != tile.y) {
                    held.take();
                    held = Some((tile.y.clone(), Arc::new(fed(y, tile.y.clone())?)));
                }
                held.as_ref().map(|(_, rows)| Arc::clone(rows))
            };
            let job = Job {
                index,
                tile,
                y: rows,
            };
            if self.stopped() || jobs.send(job).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Takes jobs until there are none, on one device after the other if need be.
    fn serve(
        &self,
        worker: &Worker,
        jobs: &Mutex<Receiver<Job<H>>>,
        done: &Sender<(usize, Result<Parts<P>>)>,
    ) {
        let mut again = VecDeque::new();
        while let Err((index, error)) =
            worker.with(|backend| self.session(backend, &mut again, jobs, done))
        {
            if let Err(error) = self.engine.recover(worker, &error) {
                let _ = done.send((index, Err(error)));
                break;
            }
        }
        // Where this worker ends early, others take the rest; with none left the reader must not wait.
        if self.stopped() {
            while jobs
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .recv()
                .is_ok()
            {}
        }
    }

    /// Takes jobs as long as the device lives. Jobs that it did not finish are left in `again`.
    fn session(
        &self,
        backend: &AnyBackend,
        again: &mut VecDeque<Job<H>>,
        jobs: &Mutex<Receiver<Job<H>>>,
        done: &Sender<(usize, Result<Parts<P>>)>,
    ) -> std::result::Result<(), (usize, Error)> {
        let lost = AtomicBool::new(false);
        let mut left = std::mem::take(again);
        let mut loss = None;
        thread::scope(|scope| {
            let (ready_in, ready) = sync_channel::<Ready<H>>(0);
            let lost = &lost;
            scope.spawn(move || {
                let mut blocks = Blocks::new(self.engine.cached_blocks(
                    backend,
                    self.operation,
                    self.x.dim,
                ));
                while !self.stopped() && !lost.load(Ordering::Relaxed) {
                    let next = || {
                        jobs.lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .recv()
                            .ok()
                    };
                    let Some(job) = left.pop_front().or_else(next) else {
                        break;
                    };
                    let loaded = blocks.of(self, backend, &job);
                    if ready_in.send((job, loaded)).is_err() {
                        break;
                    }
                }
                for job in left {
                    // What was left from another device, and not reached here.
                    let gone = Error::device_lost("device", "gone");
                    let _ = ready_in.send((job, Err(gone)));
                }
            });
            for (job, loaded) in ready {
                if self.stopped() {
                    continue;
                }
                if lost.load(Ordering::Relaxed) {
                    again.push_back(job);
                    continue;
                }
                match loaded.and_then(|[x, y]| self.whole(backend, &x, &y, &job.tile)) {
                    Ok(parts) => {
                        let _ = done.send((job.index, Ok(parts)));
                    }
                    Err(error) if error.is_lost() => {
                        lost.store(true, Ordering::Relaxed);
                        loss = Some((job.index, error));
                        again.push_back(job);
                    }
                    Err(error) if error.is_out_of_memory() => {
                        let parts = self.in_parts(backend, &job, error);
                        let _ = done.send((job.index, parts));
                    }
                    Err(error) => {
                        let _ = done.send((job.index, Err(error)));
                    }
                }
            }
        });
        loss.map_or(Ok(()), Err)
    }

    fn whole(
        &self,
        backend: &AnyBackend,
        x: &Loaded<H>,
        y: &Loaded<H>,
        tile: &Tile,
    ) -> Result<Parts<P>> {
        interrupt::check()?;
        let part = (self.compute)(backend, x, y, tile)?;
        // Kernels that were told to stop leave their results unfinished.
        interrupt::check()?;
        Ok(vec![(tile.clone(), part)])
    }

    /// Computes a tile that the device has no memory for in smaller ones, and remembers their size.
    fn in_parts(&self, backend: &AnyBackend, job: &Job<H>, error: Error) -> Result<Parts<P>> {
        let tile = &job.tile;
        let longest = tile.x.len().max(tile.y.len());
        // The rows of `gram` are added up in chunks of one size.
        if longest <= LEAST_ROWS || self.operation == Operation::Gram {
            return Err(error.hint("free memory on the device, or use --device cpu"));
        }
        self.engine.limit_rows(longest / 2);
        let mut all = Vec::new();
        for (part, y_part) in halves(tile) {
            let rows = match &job.y {
                None if part.diagonal => None,
                // Both sides of a triangle are the same rows.
                None => Some(fed(&self.x, part.y.clone())?),
                Some(whole) => Some(whole.part(y_part)),
            };
            let smaller = Job {
                index: job.index,
                tile: part,
                y: rows.map(Arc::new),
            };
            let loaded = Blocks::new(0).of(self, backend, &smaller);
            let parts = match loaded.and_then(|[x, y]| self.whole(backend, &x, &y, &smaller.tile)) {
                Err(error) if error.is_out_of_memory() => {
                    self.in_parts(backend, &smaller, error)?
                }
                parts => parts?,
            };
            all.extend(parts);
        }
        Ok(all)
    }

    fn load(&self, backend: &AnyBackend, rows: &Fed<H>) -> Result<Arc<Loaded<H>>> {
        let block = backend.load(self.operation, &rows.values, rows.dim)?;
        Ok(Arc::new(Loaded {
            host: Arc::clone(&rows.host),
            block,
        }))
    }
}

/// A block with the rows that it holds.
type Resident<H> = (Range<usize>, Arc<Loaded<H>>);

/// The blocks that a device keeps while tiles pass: the current one of y, and the first few of x. (Tiles
/// go through all of x again and again, so that keeping the last few would keep none.)
struct Blocks<H> {
    most: usize,
    kept: Vec<Resident<H>>,
    passing: Option<Resident<H>>,
    y: Option<Resident<H>>,
}

impl<H: Host> Blocks<H> {
    fn new(most: usize) -> Self {
        Self {
            most,
            kept: Vec::new(),
            passing: None,
            y: None,
        }
    }

    /// The blocks of a job.
    fn of<P: Send, C>(
        &mut self,
        pass: &Pass<'_, H, C>,
        backend: &AnyBackend,
        job: &Job<H>,
    ) -> Result<[Arc<Loaded<H>>; 2]>
    where
        C: Fn(&AnyBackend, &Loaded<H>, &Loaded<H>, &Tile) -> Result<P> + Sync,
    {
        match self.try_of(pass, backend, job) {
            Err(error) if error.is_out_of_memory() => {
                // Without those that are only kept for later there may be room.
                *self = Self::new(0);
                self.try_of(pass, backend, job)
            }
            blocks => blocks,
        }
    }

    fn try_of<P: Send, C>(
        &mut self,
        pass: &Pass<'_, H, C>,
        backend: &AnyBackend,
        job: &Job<H>,
    ) -> Result<[Arc<Loaded<H>>; 2]>
    where
        C: Fn(&AnyBackend, &Loaded<H>, &Loaded<H>, &Tile) -> Result<P> + Sync,
    {
        let range = &job.tile.x;
        let mut held = self.kept.iter().chain(&self.passing);
        let x = match held.find(|(rows, _)| rows == range) {
            Some((_, block)) => Arc::clone(block),
            None => {
                self.passing = None;
                let block = pass.load(backend, &fed(&pass.x, range.clone())?)?;
                let resident = (range.clone(), Arc::clone(&block));
                if self.kept.len() < self.most {
                    self.kept.push(resident);
                } else {
                    self.passing = Some(resident);
                }
                block
            }
        };
        let Some(rows) = &job.y else {
            return Ok([Arc::clone(&x), x]);
        };
        let y = match &self.y {
            Some((held, block)) if *held == job.tile.y => Arc::clone(block),
            _ => {
                self.y = None;
                let block = pass.load(backend, rows)?;
                self.y = Some((job.tile.y.clone(), Arc::clone(&block)));
                block
            }
        };
        Ok([x, y])
    }
}

/// A tile as smaller ones, each with where its rows of y lie among the tile's.
fn halves(tile: &Tile) -> Vec<(Tile, Range<usize>)> {
    let cut = |range: &Range<usize>| {
        let middle = (range.len() / 2)
            .next_multiple_of(LEAST_ROWS)
            .min(range.len());
        let middle = range.start + middle;
        [range.start..middle, middle..range.end]
    };
    let (xs, ys) = (cut(&tile.x), cut(&tile.y));
    let mut parts = Vec::new();
    for (j, y) in ys.iter().enumerate() {
        for (i, x) in xs.iter().enumerate() {
            if x.is_empty() || y.is_empty() || (tile.diagonal && i > j) {
                continue;
            }
            let part = Tile {
                x: x.clone(),
                y: y.clone(),
                diagonal: tile.diagonal && i == j,
            };
            parts.push((part, y.start - tile.y.start..y.end - tile.y.start));
        }
    }
    parts
}

/// Rows of a feed.
fn fed<H>(feed: &Feed<'_, H>, range: Range<usize>) -> Result<Fed<H>> {
    let (values, host) = (feed.rows)(range)?;
    Ok(Fed {
        values: Arc::new(values),
        dim: feed.dim,
        host: Arc::new(host),
    })
}
