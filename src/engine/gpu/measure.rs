//! Measurements of an adapter, for benches and checks on real devices.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use super::GpuBackend;
use super::cores::{self, CoreReport};
use crate::engine::any::AnyBackend;
use crate::engine::threads::Threads;
use crate::engine::workers::Open;
use crate::engine::{DeviceChoice, Engine, EngineConfig};
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
    troubled_engine(choice, core, memory, 1, Trouble::default())
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
    let (choice, core) = (choice.clone(), core.to_owned());
    let open: Open = Box::new(move || {
        let limit = |limits: &mut wgpu::Limits| {
            limits.max_storage_buffer_binding_size = binding.into();
            limits.max_compute_workgroups_per_dimension = workgroups;
        };
        let backend = GpuBackend::on_core(&choice, &core, limit)?;
        Ok(AnyBackend::Gpu(Box::new(backend)))
    });
    Engine::of(vec![open], Threads::default(), &config(memory))
}

/// What is to go wrong with the devices of an engine.
#[derive(Debug, Clone, Default)]
pub struct Trouble {
    /// Of the first device, each time it is opened: after how many submissions it is lost.
    pub lost_after: Vec<u64>,
    /// No device has memory for a buffer of more bytes than this.
    pub largest_buffer: Option<u64>,
}

/// An engine of several devices on one adapter, with one core, in trouble.
///
/// # Errors
/// The adapter has no such core, or cannot be opened.
pub fn troubled_engine(
    choice: &DeviceChoice,
    core: &str,
    memory: u64,
    devices: usize,
    trouble: Trouble,
) -> Result<Engine> {
    let open = |device: usize| -> Open {
        let (choice, core, trouble) = (choice.clone(), core.to_owned(), trouble.clone());
        let opened = AtomicUsize::new(0);
        Box::new(move || {
            let backend = GpuBackend::on_core(&choice, &core, |_| ())?;
            let time = opened.fetch_add(1, Ordering::Relaxed);
            let lost_after = trouble.lost_after.get(time).filter(|_| device == 0);
            backend
                .device
                .set_trouble(lost_after.copied(), trouble.largest_buffer);
            Ok(AnyBackend::Gpu(Box::new(backend)))
        })
    };
    Engine::of(
        (0..devices).map(open).collect(),
        Threads::default(),
        &config(memory),
    )
}

fn config(memory: u64) -> EngineConfig {
    EngineConfig {
        memory,
        ..EngineConfig::default()
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
