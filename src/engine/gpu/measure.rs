//! Measurements of an adapter, for benches and checks on real devices.

use std::time::Instant;

use super::cores::{self, CoreReport};
use crate::engine::DeviceChoice;
use crate::error::{Error, Result};

/// Every core that the adapter can run, held to known answers and raced, now and without any cache.
///
/// # Errors
/// No such adapter, or it cannot be opened.
pub fn cores(choice: &DeviceChoice) -> Result<Vec<CoreReport>> {
    let (backend, candidates) = cores::measured(choice)?;
    Ok(cores::trial(&backend, &candidates))
}

/// Seconds of `runs` products of `[n, m, d]`: n × d by (m × d)ᵀ on a core, maxima written only.
///
/// # Errors
/// The adapter has no such core, or fails.
pub fn product_seconds(
    choice: &DeviceChoice,
    core: &str,
    shape: [usize; 3],
    runs: usize,
) -> Result<Vec<f64>> {
    let (backend, candidates) = cores::measured(choice)?;
    let found = cores::named(&candidates, core).ok_or_else(|| {
        let names: Vec<_> = candidates.iter().map(|core| core.name()).collect();
        Error::input(core, format!("no such core, found {}", names.join(", ")))
    })?;
    cores::product_seconds(&backend, *found, shape, runs)
}

/// Seconds of `runs` transfers of `bytes` bytes: to the device, and back.
///
/// # Errors
/// The device fails, or cannot bind as much.
pub fn transfer_seconds(choice: &DeviceChoice, bytes: u64, runs: usize) -> Result<[Vec<f64>; 2]> {
    let (backend, _) = cores::measured(choice)?;
    let device = &backend.device;
    let data = vec![0x5au8; bytes as usize / 4 * 4];
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        let buffer = device.input_and_output(&data)?;
        device.settle()?;
        up.push(start.elapsed().as_secs_f64());
        let start = Instant::now();
        let back = device.read(&buffer)?.finish()?;
        // Mapped memory arrives when it is read.
        let sum: u64 = back
            .as_slice::<u64>(data.len() / 8)
            .iter()
            .fold(0, |a, &b| a ^ b);
        std::hint::black_box(sum);
        down.push(start.elapsed().as_secs_f64());
    }
    Ok([up, down])
}
