//! Stopping a run from outside, as by Ctrl-C.
//!
//! One flag for the process, as the signal is for the process: set it, and every engine call that is under
//! way ends with an error within a fraction of a second, nothing merged, nothing written.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Asks everything that runs to stop.
pub fn request() {
    REQUESTED.store(true, Ordering::Relaxed);
}

/// Whether it was asked to stop.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Between two pieces of work.
///
/// # Errors
/// It was asked to stop.
pub fn check() -> Result<()> {
    if requested() {
        Err(Error::interrupted())
    } else {
        Ok(())
    }
}
