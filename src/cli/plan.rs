//! What a command is about to do, and how long it should take.

use std::time::Instant;

use super::session::Session;
use super::{Engine, Result};
use crate::embeddings::Rows;
use crate::engine::{EngineConfig, Silent};
use crate::source::SourceInfo;
use crate::stats::rng::Philox;

/// Work below this many seconds is not announced.
const ANNOUNCE_SECONDS: f64 = 2.0;

/// One pass over pairs of rows.
#[derive(Debug)]
pub(super) struct Pass {
    pub(super) what: String,
    pub(super) pairs: f64,
    pub(super) dim: usize,
}

impl Pass {
    /// A pass over all pairs of x's rows with y's.
    pub(super) fn between(what: &str, x: usize, y: usize, dim: usize) -> Self {
        Self {
            what: what.to_owned(),
            pairs: x as f64 * y as f64,
            dim,
        }
    }

    /// A pass over the unordered pairs within n rows.
    pub(super) fn within(what: &str, n: usize, dim: usize) -> Self {
        let mut pass = Self::between(what, n, n, dim);
        pass.pairs /= 2.0;
        pass
    }
}

/// Tells on stderr what is about to be done, where that is long or `--dry-run` asks. Returns whether to
/// go on.
pub(super) fn announce(session: &Session, inputs: &[&SourceInfo], passes: &[Pass]) -> Result<bool> {
    if session.quiet && !session.dry_run {
        return Ok(true);
    }
    let multiply_adds: f64 = passes.iter().map(|p| p.pairs * p.dim as f64).sum();
    // No device takes a second for this little: do not spend time on finding out.
    if multiply_adds < 1e9 && !session.dry_run {
        return Ok(true);
    }
    let engine = Engine::new(&EngineConfig {
        progress: std::sync::Arc::new(Silent),
        ..session.engine_config().clone()
    })?;
    let rate = multiply_adds_per_second(&engine, passes.iter().map(|p| p.dim).max().unwrap_or(64))?;
    let seconds = multiply_adds / rate;
    if seconds < ANNOUNCE_SECONDS && !session.dry_run {
        return Ok(true);
    }
    let mut memory = session.memory();
    eprintln!("plan");
    for info in inputs {
        let rows = info.rows.unwrap_or(0);
        memory += rows * info.dim as u64 * 4;
        eprintln!(
            "  read   {}: {} rows × {} {}, {}",
            info.name,
            info.rows.map_or("?".to_owned(), |rows| rows.to_string()),
            info.dim,
            info.dtype.name(),
            human_bytes(info.bytes)
        );
    }
    for pass in passes {
        eprintln!(
            "  pass   {}: {:.3e} pairs of dimension {}, about {}",
            pass.what,
            pass.pairs,
            pass.dim,
            human_seconds(pass.pairs * pass.dim as f64 / rate)
        );
    }
    let device = engine.device();
    eprintln!(
        "  device {} ({}, {})",
        device.name, device.backend, device.precision
    );
    eprintln!("  memory about {}", human_bytes(memory));
    eprintln!("  time   about {}", human_seconds(seconds));
    Ok(!session.dry_run)
}

/// Multiply-adds per second of the product kernel, measured on a small tile of random rows.
fn multiply_adds_per_second(engine: &Engine, dim: usize) -> Result<f64> {
    const ROWS: usize = 2048;
    let mut random = Philox::new(0, 0);
    let values: Vec<f32> = (0..ROWS * dim)
        .map(|_| random.uniform() as f32 - 0.5)
        .collect();
    let rows = Rows::new(&values, dim);
    engine.pair_histogram(rows.slice(0..256), None)?;
    let start = Instant::now();
    engine.pair_histogram(rows, Some(rows))?;
    Ok((ROWS * ROWS * dim) as f64 / start.elapsed().as_secs_f64())
}

/// `1.5 GiB`.
pub(super) fn human_bytes(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", units[unit])
    }
}

/// `40 s`, `12 min`, `3.1 h`.
pub(super) fn human_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "under a second".to_owned(),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
