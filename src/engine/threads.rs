//! The threads that compute.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Whether the program started the pool of the process.
static STARTED: AtomicBool = AtomicBool::new(false);

/// A pool that all computing on the host goes through, whichever thread asks for it, so that no more
/// threads compute than were wanted.
#[derive(Clone, Default)]
pub(super) struct Threads {
    /// `None`: the pool of the process.
    own: Option<Arc<ThreadPool>>,
}

impl Threads {
    /// A pool of `threads` threads; `None`: the pool of the process where the program started it, else one
    /// with a thread per core.
    ///
    /// Who uses this as a library may call passes from tasks of rayon's own pool. Were their parts to run
    /// there too, all its threads could be waiting for them.
    pub(super) fn new(threads: Option<usize>) -> Result<Self> {
        let start = |threads| {
            let pool = pool_of(threads).build();
            pool.map_err(|e| Error::device("cpu", format!("cannot start threads: {e}")))
        };
        let own = match threads {
            None if STARTED.load(Ordering::Relaxed) => None,
            _ => Some(Arc::new(start(threads.unwrap_or(0))?)),
        };
        Ok(Self { own })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.install(rayon::current_num_threads)
    }

    /// Runs `compute`, parallel loops and all, on these threads.
    pub(super) fn install<R: Send>(&self, compute: impl FnOnce() -> R + Send) -> R {
        match &self.own {
            Some(pool) => pool.install(compute),
            // Outside any pool, parallel loops run on the one of the process; within another, on that.
            None => compute(),
        }
    }
}

/// Starts the pool of the process, before anything computes: of `threads` threads, or one per core. Only
/// for a program that calls passes from no task of that pool.
///
/// # Errors
/// A pool of another size runs already, or threads cannot be started.
pub(crate) fn start_process_pool(threads: Option<usize>) -> Result<()> {
    match (pool_of(threads.unwrap_or(0)).build_global(), threads) {
        (Ok(()), _) => {
            STARTED.store(true, Ordering::Relaxed);
            Ok(())
        }
        // It is someone else's, so engines bring their own.
        (Err(_), None) => Ok(()),
        (Err(error), Some(threads)) => Err(Error::device(
            "cpu",
            format!("cannot start {threads} threads: {error}"),
        )),
    }
}

fn pool_of(threads: usize) -> ThreadPoolBuilder {
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("vecdrift-cpu-{i}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_loops_run_on_as_many_threads_as_were_wanted() {
        for wanted in [1, 2, 3] {
            let threads = Threads::new(Some(wanted)).expect("threads start");
            assert_eq!(threads.count(), wanted);
            let names = threads
                .install(|| rayon::broadcast(|_| std::thread::current().name().map(str::to_owned)));
            assert_eq!(names.len(), wanted);
            assert!(
                names
                    .iter()
                    .flatten()
                    .all(|n| n.starts_with("vecdrift-cpu-"))
            );
        }
    }
}
