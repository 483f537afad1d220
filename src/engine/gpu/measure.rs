//! Measurements of an adapter, for benches and checks on real devices.

use std::sync::Arc;
use std::time::Instant;

use super::GpuBackend;
use super::cores::{self, CoreReport};
use crate::engine::any::AnyBackend;
use crate::engine::{DeviceChoice, Engine, Silent};
use crate::error::Result;

/// Every core that the adapter can run, held to known answers and raced, now and without any cache.
///
/// # Errors
/// No such adapter, or it cannot be opened.
pub fn cores(choice: &DeviceChoice) -> Result<Vec<CoreReport>> {
    let (backend, candidates) = cores::measured(choice)?;
    Ok(cores::trial(&backend, &candidates))
}

/// An engine on the adapter with one core for every operation that can use it, whatever its grade.
///
/// # Errors
/// The adapter has no such core, or cannot be opened.
pub fn engine(choice: &DeviceChoice, core: &str, memory: u64) -> Result<Engine> {
    Ok(of_backend(
        GpuBackend::on_core(choice, core, |_| ())?,
        memory,
    ))
}

/// The same on a device that binds at most `binding` bytes and takes at most `workgroups` workgroups along
/// a side of a dispatch.
///
/// # Errors
/// Likewise.
pub fn limited_engine(
    choice: &DeviceChoice,
    core: &str,
    memory: u64,
    [binding, workgroups]: [u32; 2],
) -> Result<Engine> {
    let limit = |limits: &mut wgpu::Limits| {
        limits.max_storage_buffer_binding_size = binding.into();
        limits.max_compute_workgroups_per_dimension = workgroups;
    };
    Ok(of_backend(
        GpuBackend::on_core(choice, core, limit)?,
        memory,
    ))
}

fn of_backend(backend: GpuBackend, memory: u64) -> Engine {
    Engine {
        backend: AnyBackend::Gpu(Box::new(backend)),
        memory,
        progress: Arc::new(Silent),
    }
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
    let core = cores::named(&candidates, core)?;
    cores::product_seconds(&backend, core, shape, runs)
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
