//! What a command is about to do, and how long it should take.

use std::time::Instant;

use super::session::Session;
use super::{Engine, Error, Path, Result};
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

/// Where the rows of an input are while they are worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Residence {
    /// In memory, all of them.
    Held,
    /// In the file: read block by block as they are needed.
    Streamed,
}

impl Residence {
    /// Of an input that could do with either: held if its rows fit into the working memory. A stream is
    /// no slower, but a held input is known to be whole before any work is done.
    pub(super) fn of(info: &SourceInfo, session: &Session) -> Self {
        if held_bytes(info) <= session.memory() {
            Self::Held
        } else {
            Self::Streamed
        }
    }
}

/// Bytes of the rows in memory.
fn held_bytes(info: &SourceInfo) -> u64 {
    info.rows
        .unwrap_or(0)
        .saturating_mul(info.dim as u64)
        .saturating_mul(info.dtype.held_bytes() as u64)
}

/// As [`announce_inputs`], where all inputs are held.
pub(super) fn announce(session: &Session, inputs: &[&SourceInfo], passes: &[Pass]) -> Result<bool> {
    let held: Vec<_> = inputs.iter().map(|&i| (i, Residence::Held)).collect();
    announce_inputs(session, &held, passes)
}

/// Tells on stderr what is about to be done, where that is long or `--dry-run` asks. Returns whether to
/// go on.
///
/// # Errors
/// What is held cannot fit into this machine's memory.
pub(super) fn announce_inputs(
    session: &Session,
    inputs: &[(&SourceInfo, Residence)],
    passes: &[Pass],
) -> Result<bool> {
    let held = inputs.iter().filter(|(_, to)| *to == Residence::Held);
    let held = held.fold(0u64, |sum, (info, _)| sum.saturating_add(held_bytes(info)));
    refuse_beyond(machine_memory(), held, inputs)?;
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
    eprintln!("plan");
    for (info, residence) in inputs {
        eprintln!(
            "  read   {}: {} rows × {} {}, {}, {}",
            info.name,
            info.rows.map_or("?".to_owned(), |rows| rows.to_string()),
            info.dim,
            info.dtype.name(),
            human_bytes(info.bytes),
            match residence {
                Residence::Held => format!("held as {}", human_bytes(held_bytes(info))),
                Residence::Streamed => "streamed".to_owned(),
            }
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
    let memory = session.memory().saturating_add(held);
    eprintln!("  memory about {}", human_bytes(memory));
    eprintln!("  time   about {}", human_seconds(seconds));
    Ok(!session.dry_run)
}

/// Says before an hour of reading that there is no room for it.
fn refuse_beyond(
    machine: Option<u64>,
    held: u64,
    inputs: &[(&SourceInfo, Residence)],
) -> Result<()> {
    let largest = inputs
        .iter()
        .filter(|(_, to)| *to == Residence::Held)
        .max_by_key(|(info, _)| held_bytes(info));
    match (machine, largest) {
        (Some(machine), Some((info, _))) if held > machine => Err(Error::input(
            &info.name,
            format!(
                "all rows are needed in memory: {} with the other inputs, expected at most the {} of this machine",
                human_bytes(held),
                human_bytes(machine)
            ),
        )
        .hint("only the base of `knn BASE QUERIES` and the Y of `cosine X Y` may be larger than memory")),
        _ => Ok(()),
    }
}

/// Bytes that a process can have here at most, swap included, where the system tells.
fn machine_memory() -> Option<u64> {
    let all = std::fs::read_to_string("/proc/meminfo").ok()?;
    let bytes = |name: &str| -> Option<u64> {
        let line = all.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    };
    let machine = bytes("MemTotal:")? + bytes("SwapTotal:").unwrap_or(0);
    // The control group of this process, or one above it, may have less; one without a limit says "max".
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let limits = own.map(Path::new).into_iter().flat_map(Path::ancestors);
    let limits = limits.filter_map(|group| {
        let file = Path::new("/sys/fs/cgroup").join(group).join("memory.max");
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    });
    Some(limits.fold(machine, u64::min))
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
