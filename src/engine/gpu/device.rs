//! One opened device: kernels, buffers, submissions and readback, none of which fails in silence.
//!
//! Every call that wgpu checks runs inside error scopes; what fails where no scope listens (a lost
//! device, say) is remembered and returned by the next call. Outputs are filled with a pattern before a
//! kernel runs, so that what it did not write is found.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::shaders::{Access, Shader};
use crate::engine::interrupt;
use crate::error::{Error, Result};

/// Bits of a value that no kernel wrote: a NaN that no arithmetic makes.
pub(super) const UNWRITTEN: u32 = 0x7fed_beef;

/// Bytes of the buffer that outputs are filled from.
const BLANK_BYTES: u64 = 1 << 20;

/// Submissions under way at most: enough to keep a device busy, few enough that a stuck one is noticed.
const IN_FLIGHT: usize = 8;

/// How long a submission may take. Even the slowest adapter needs seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// What can go wrong.
#[derive(Debug, Clone)]
enum Fault {
    Lost(String),
    OutOfMemory(String),
    Other(String),
}

impl Fault {
    fn of(error: &wgpu::Error) -> Self {
        let text = error.to_string();
        // What fails because the device is gone is reported as a mistake of the caller's.
        let lower = text.to_lowercase();
        if matches!(error, wgpu::Error::OutOfMemory { .. }) {
            Self::OutOfMemory(text)
        } else if lower.contains("device is lost") || lower.contains("destroyed") {
            Self::Lost(text)
        } else {
            Self::Other(text)
        }
    }
}

/// The first failure that nobody waited for. Out of memory is heard once, the rest for ever.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Option<Fault>>>);

impl Faults {
    fn note(&self, fault: Fault) {
        lock(&self.0).get_or_insert(fault);
    }

    fn hear(&self) -> Option<Fault> {
        let mut held = lock(&self.0);
        match &*held {
            Some(Fault::OutOfMemory(_)) => held.take(),
            other => other.clone(),
        }
    }
}

/// What tests let go wrong.
struct Trouble {
    /// Submissions until the device is lost.
    lost_after: AtomicU64,
    /// The largest buffer that there is memory for.
    largest_buffer: AtomicU64,
}

/// A poisoned lock guards data that is whole: every critical section here is one assignment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A kernel, ready to run.
pub(super) struct Pipeline {
    name: &'static str,
    layout: wgpu::BindGroupLayout,
    pipeline: wgpu::ComputePipeline,
}

/// An opened device.
pub(super) struct Device {
    name: String,
    device: wgpu::Device,
    queue: wgpu::Queue,
    limits: wgpu::Limits,
    faults: Faults,
    trouble: Trouble,
    blank: Option<wgpu::Buffer>,
    in_flight: Mutex<VecDeque<wgpu::SubmissionIndex>>,
}

impl Device {
    /// Opens the adapter with all features that the cores can use, and some or all of its limits.
    pub(super) fn open(adapter: &wgpu::Adapter, limits: wgpu::Limits) -> Result<Self> {
        let name = adapter.get_info().name;
        let cooperative = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let features = adapter.features()
            & (wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY | cooperative);
        let experimental_features = if features.contains(cooperative) {
            // SAFETY: what is experimental about cooperative matrices is that wrong use of them is not
            // always found. Only our own, tested shaders use them, and only after they gave known
            // answers on the adapter.
            unsafe { wgpu::ExperimentalFeatures::enabled() }
        } else {
            wgpu::ExperimentalFeatures::disabled()
        };
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("vecdrift"),
            required_features: features,
            required_limits: limits,
            experimental_features,
            ..wgpu::DeviceDescriptor::default()
        }))
        .map_err(|e| Error::device(&name, format!("cannot be opened: {e}")))?;
        let faults = Faults::default();
        let heard = faults.clone();
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            heard.note(Fault::of(&error));
        }));
        let heard = faults.clone();
        device.set_device_lost_callback(move |reason, message| {
            heard.note(Fault::Lost(format!("lost ({reason:?}) {message}")));
        });
        let mut this = Self {
            limits: device.limits(),
            name,
            device,
            queue,
            faults,
            trouble: Trouble {
                lost_after: AtomicU64::new(u64::MAX),
                largest_buffer: AtomicU64::new(u64::MAX),
            },
            blank: None,
            in_flight: Mutex::default(),
        };
        let pattern = vec![UNWRITTEN; BLANK_BYTES as usize / 4];
        this.blank =
            Some(this.upload(bytemuck::cast_slice(&pattern), wgpu::BufferUsages::COPY_SRC)?);
        Ok(this)
    }

    pub(super) fn limits(&self) -> &wgpu::Limits {
        &self.limits
    }

    /// Bytes that one binding may hold at most.
    pub(super) fn max_binding(&self) -> u64 {
        self.limits
            .max_storage_buffer_binding_size
            .min(self.limits.max_buffer_size)
    }

    pub(super) fn error(&self, fact: impl std::fmt::Display) -> Error {
        Error::device(&self.name, fact)
    }

    fn fault(&self, fault: Fault) -> Error {
        match fault {
            Fault::Lost(text) => Error::device_lost(&self.name, text),
            Fault::OutOfMemory(text) => Error::out_of_memory(&self.name, text),
            Fault::Other(text) => self.error(text),
        }
    }

    fn lost(&self, fact: impl std::fmt::Display) -> Error {
        self.fault(Fault::Lost(fact.to_string()))
    }

    /// The failure that nobody has heard of yet.
    fn unheard(&self) -> Result<()> {
        self.faults
            .hear()
            .map_or(Ok(()), |fault| Err(self.fault(fault)))
    }

    /// Lets the device be lost after some submissions, or have no memory for large buffers.
    pub(super) fn set_trouble(&self, lost_after: Option<u64>, largest_buffer: Option<u64>) {
        let Trouble {
            lost_after: after,
            largest_buffer: largest,
        } = &self.trouble;
        after.store(lost_after.unwrap_or(u64::MAX), Ordering::Relaxed);
        largest.store(largest_buffer.unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Runs `call`, turning whatever wgpu finds wrong with it into an error.
    fn checked<T>(&self, call: impl FnOnce() -> T) -> Result<T> {
        self.unheard()?;
        let scopes = [
            wgpu::ErrorFilter::OutOfMemory,
            wgpu::ErrorFilter::Internal,
            wgpu::ErrorFilter::Validation,
        ]
        .map(|filter| self.device.push_error_scope(filter));
        let value = call();
        let mut found = None;
        // Innermost first; natively the futures are ready at once.
        for scope in scopes.into_iter().rev() {
            found = pollster::block_on(scope.pop()).or(found);
        }
        match found {
            Some(error) => {
                // A device that is gone explains whatever else failed, and says so only after what is
                // under way has ended.
                let look = || {
                    self.device.poll(wgpu::PollType::Wait {
                        submission_index: None,
                        timeout: Some(PATIENCE),
                    })
                };
                if catch_unwind(AssertUnwindSafe(look)).is_err() {
                    return Err(self.lost("lost"));
                }
                self.unheard()?;
                Err(self.fault(Fault::of(&error)))
            }
            None => self.unheard().map(|()| value),
        }
    }

    /// Compiles a kernel.
    pub(super) fn pipeline(&self, shader: &Shader) -> Result<Pipeline> {
        let entries: Vec<_> = (0u32..)
            .zip(shader.kernel.bindings)
            .map(|(binding, &(_, access))| wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer {
                    ty: match access {
                        Access::Uniform => wgpu::BufferBindingType::Uniform,
                        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
                        Access::Write => wgpu::BufferBindingType::Storage { read_only: false },
                    },
                    has_dynamic_offset: false,
                    min_binding_size: None,
                },
                count: None,
            })
            .collect();
        let label = shader.label();
        let label = Some(label.as_str());
        self.checked(|| {
            let descriptor = wgpu::ShaderModuleDescriptor {
                label,
                source: wgpu::ShaderSource::Wgsl(shader.source.as_str().into()),
            };
            // SAFETY: the sources are our own. Every index is below the size of its buffer: the host pads
            // panels, norms and groups to whole tiles, asserts that the shapes of a call agree,
            // dispatches only tiles that exist, and sizes outputs by the extents with which the kernels
            // compare before they write. Every loop is bounded by a parameter, and every divisor is a
            // positive constant or a power of two that the host asserts.
            let module = unsafe {
                self.device.create_shader_module_trusted(
                    descriptor,
                    wgpu::ShaderRuntimeChecks::unchecked(),
                )
            };
            let layout = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                    label,
                    entries: &entries,
                });
            let pipeline_layout =
                self.device
                    .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                        label,
                        bind_group_layouts: &[Some(&layout)],
                        immediate_size: 0,
                    });
            let pipeline = self
                .device
                .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label,
                    layout: Some(&pipeline_layout),
                    module: &module,
                    entry_point: Some(shader.kernel.name),
                    // The kernels write workgroup memory before they read it.
                    compilation_options: wgpu::PipelineCompilationOptions {
                        zero_initialize_workgroup_memory: false,
                        ..wgpu::PipelineCompilationOptions::default()
                    },
                    cache: None,
                });
            Pipeline {
                name: shader.kernel.name,
                layout,
                pipeline,
            }
        })
    }

    fn buffer(&self, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        if bytes > self.trouble.largest_buffer.load(Ordering::Relaxed) {
            return Err(self.fault(Fault::OutOfMemory("no memory, as a test wants it".into())));
        }
        self.checked(|| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                // No binding may be empty.
                size: bytes.max(16),
                usage,
                mapped_at_creation: false,
            })
        })
    }

    /// A buffer with `data` in it, on its way to the device.
    fn upload(&self, data: &[u8], usage: wgpu::BufferUsages) -> Result<wgpu::Buffer> {
        let buffer = self.buffer(data.len() as u64, usage | wgpu::BufferUsages::COPY_DST)?;
        self.checked(|| {
            self.queue.write_buffer(&buffer, 0, data);
            self.queue.submit([]);
        })?;
        Ok(buffer)
    }

    /// A storage buffer with `data` in it.
    pub(super) fn input<T: bytemuck::NoUninit>(&self, data: &[T]) -> Result<wgpu::Buffer> {
        self.upload(bytemuck::cast_slice(data), wgpu::BufferUsages::STORAGE)
    }

    /// A storage buffer with `data` in it, which can be read back.
    pub(super) fn input_and_output(&self, data: &[u8]) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC;
        self.upload(data, usage)
    }

    /// Waits for all that was submitted.
    pub(super) fn settle(&self) -> Result<()> {
        let last = self.submit(self.encoder()?)?;
        self.wait(last)
    }

    /// A storage buffer of `words` 32-bit words for results, filled with [`UNWRITTEN`].
    pub(super) fn output(&self, words: u64) -> Result<wgpu::Buffer> {
        let buffer = self.results(words)?;
        let mut encoder = self.encoder()?;
        let blank = self
            .blank
            .as_ref()
            .expect("made when the device was opened");
        for start in (0..buffer.size()).step_by(BLANK_BYTES as usize) {
            let bytes = BLANK_BYTES.min(buffer.size() - start);
            encoder.copy_buffer_to_buffer(blank, 0, &buffer, start, bytes);
        }
        self.submit(encoder)?;
        Ok(buffer)
    }

    /// A storage buffer of `words` 32-bit counters at 0.
    pub(super) fn counters(&self, words: u64) -> Result<wgpu::Buffer> {
        let buffer = self.results(words)?;
        let mut encoder = self.encoder()?;
        encoder.clear_buffer(&buffer, 0, None);
        self.submit(encoder)?;
        Ok(buffer)
    }

    fn results(&self, words: u64) -> Result<wgpu::Buffer> {
        let usage = wgpu::BufferUsages::STORAGE
            | wgpu::BufferUsages::COPY_SRC
            | wgpu::BufferUsages::COPY_DST;
        self.buffer(words * 4, usage)
    }

    fn encoder(&self) -> Result<wgpu::CommandEncoder> {
        self.checked(|| self.device.create_command_encoder(&Default::default()))
    }

    /// Submits what was recorded, waiting while too much is under way.
    fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<wgpu::SubmissionIndex> {
        let lost =
            self.trouble
                .lost_after
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                    (left != u64::MAX).then(|| left.saturating_sub(1))
                });
        if lost == Ok(0) {
            self.device.destroy();
        }
        let index = self.checked(|| self.queue.submit([encoder.finish()]))?;
        let oldest = {
            let mut in_flight = lock(&self.in_flight);
            in_flight.push_back(index.clone());
            if in_flight.len() > IN_FLIGHT {
                in_flight.pop_front()
            } else {
                None
            }
        };
        if let Some(oldest) = oldest {
            self.wait(oldest)?;
        }
        Ok(index)
    }

    /// Waits for a submission.
    fn wait(&self, index: wgpu::SubmissionIndex) -> Result<()> {
        let poll = || {
            self.device.poll(wgpu::PollType::Wait {
                submission_index: Some(index),
                timeout: Some(PATIENCE),
            })
        };
        // wgpu panics when a device is lost while it waits; for us that is an error like any other.
        let waited = self.checked(|| catch_unwind(AssertUnwindSafe(poll)))?;
        match waited {
            Ok(Ok(_)) => Ok(()),
            // A device that does not answer is as good as gone.
            Ok(Err(error)) => Err(self.lost(format!("a computation did not finish: {error}"))),
            Err(_) => Err(self.lost("lost")),
        }
    }

    /// Runs a kernel once over `grid` workgroups, as one submission. `buffers` follow the parameters in
    /// the order of the kernel's bindings.
    pub(super) fn run<P: bytemuck::NoUninit>(
        &self,
        pipeline: &Pipeline,
        params: &P,
        buffers: &[&wgpu::Buffer],
        grid: [u32; 2],
    ) -> Result<()> {
        let encoder = self.recorded(pipeline, params, buffers, grid, None)?;
        self.submit(encoder).map(drop)
    }

    /// The same, and waits for it: the seconds that the kernel took, by the device's time stamps where it
    /// has them, else by the clock.
    pub(super) fn run_timed<P: bytemuck::NoUninit>(
        &self,
        pipeline: &Pipeline,
        params: &P,
        buffers: &[&wgpu::Buffer],
        grid: [u32; 2],
    ) -> Result<f64> {
        if !self
            .device
            .features()
            .contains(wgpu::Features::TIMESTAMP_QUERY)
        {
            self.settle()?;
            let start = Instant::now();
            self.run(pipeline, params, buffers, grid)?;
            self.settle()?;
            return Ok(start.elapsed().as_secs_f64());
        }
        let stamps = self.checked(|| {
            self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        })?;
        let resolved = self.buffer(
            16,
            wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
        )?;
        let mut encoder = self.recorded(pipeline, params, buffers, grid, Some(&stamps))?;
        encoder.resolve_query_set(&stamps, 0..2, &resolved, 0);
        self.submit(encoder)?;
        let stamps = self.read(&resolved)?.finish()?;
        let stamps: &[u64] = stamps.as_slice(2);
        let nanoseconds = f64::from(self.queue.get_timestamp_period());
        Ok(stamps[1].saturating_sub(stamps[0]) as f64 * nanoseconds * 1e-9)
    }

    /// A kernel, recorded; with the time stamps before and after it.
    fn recorded<P: bytemuck::NoUninit>(
        &self,
        pipeline: &Pipeline,
        params: &P,
        buffers: &[&wgpu::Buffer],
        grid: [u32; 2],
        stamps: Option<&wgpu::QuerySet>,
    ) -> Result<wgpu::CommandEncoder> {
        interrupt::check()?;
        let params = self.upload(bytemuck::bytes_of(params), wgpu::BufferUsages::UNIFORM)?;
        let entries: Vec<_> = (0u32..)
            .zip([&params].into_iter().chain(buffers.iter().copied()))
            .map(|(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        self.checked(|| {
            let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some(pipeline.name),
                layout: &pipeline.layout,
                entries: &entries,
            });
            let mut encoder = self.device.create_command_encoder(&Default::default());
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: stamps.map(|query_set| wgpu::ComputePassTimestampWrites {
                    query_set,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                }),
            });
            pass.set_pipeline(&pipeline.pipeline);
            pass.set_bind_group(0, &group, &[]);
            pass.dispatch_workgroups(grid[0], grid[1], 1);
            drop(pass);
            encoder
        })
    }

    /// Begins to bring results back; the device may go on meanwhile.
    pub(super) fn read(&self, results: &wgpu::Buffer) -> Result<Readback<'_>> {
        self.read_parts(results, std::iter::once(0..results.size()))
    }

    /// The same for some ranges of bytes, which arrive one after the other.
    pub(super) fn read_parts(
        &self,
        results: &wgpu::Buffer,
        parts: impl Iterator<Item = Range<u64>> + Clone,
    ) -> Result<Readback<'_>> {
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        let staging = self.buffer(parts.clone().map(|part| part.end - part.start).sum(), usage)?;
        let mut encoder = self.encoder()?;
        let mut to = 0;
        for part in parts {
            let bytes = part.end - part.start;
            encoder.copy_buffer_to_buffer(results, part.start, &staging, to, bytes);
            to += bytes;
        }
        let submission = self.submit(encoder)?;
        let (sender, mapped) = mpsc::channel();
        self.checked(|| {
            staging.map_async(wgpu::MapMode::Read, .., move |result| {
                // The receiver is gone only where an earlier error was returned already.
                let _ = sender.send(result);
            });
        })?;
        Ok(Readback {
            device: self,
            staging,
            submission,
            mapped,
        })
    }

    /// Every one of `values` must have been written.
    pub(super) fn written(&self, name: &str, values: &[f32]) -> Result<()> {
        if values.iter().any(|v| v.to_bits() == UNWRITTEN) {
            return Err(self.error(format!("{name}: the device left results unwritten")));
        }
        Ok(())
    }

    /// Every one of `values` must have been written, and be a number.
    pub(super) fn numbers(&self, name: &str, values: &[f32]) -> Result<()> {
        self.written(name, values)?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(self.error(format!(
                "{name}: the device returned NaN or infinity for finite rows"
            )));
        }
        Ok(())
    }

    /// Makes every later call fail, as when a driver gives up.
    #[cfg(test)]
    pub(super) fn destroy(&self) {
        self.device.destroy();
    }
}

/// Results on their way back.
pub(super) struct Readback<'a> {
    device: &'a Device,
    staging: wgpu::Buffer,
    submission: wgpu::SubmissionIndex,
    mapped: mpsc::Receiver<std::result::Result<(), wgpu::BufferAsyncError>>,
}

impl Readback<'_> {
    /// Waits for the results.
    pub(super) fn finish(self) -> Result<Results> {
        let device = self.device;
        device.wait(self.submission)?;
        // The mapping is told to whoever polls, which may be another thread, a moment later.
        match self.mapped.recv_timeout(PATIENCE) {
            Ok(Ok(())) => {}
            // Copies do not fail on a device that lives.
            _ => return Err(device.lost("results could not be brought back")),
        }
        match device.checked(|| self.staging.get_mapped_range(..))? {
            Ok(view) => Ok(Results(view)),
            Err(error) => Err(device.error(format!("results could not be read: {error}"))),
        }
    }
}

/// Results in memory of the driver's.
pub(super) struct Results(wgpu::BufferView);

impl Results {
    /// The first `count` words as what the kernel wrote.
    pub(super) fn as_slice<T: bytemuck::AnyBitPattern>(&self, count: usize) -> &[T] {
        &bytemuck::cast_slice(&self.0)[..count]
    }
}

#[cfg(test)]
mod tests {
    use super::super::adapters;
    use super::super::shaders::{Core, GRAM, Kernel};
    use super::*;
    use crate::engine::DeviceChoice;

    /// The device, or `None`, loudly, where there is none and none was promised.
    fn open() -> Option<Device> {
        match adapters::choose(&DeviceChoice::Gpu) {
            Ok(adapter) => Some(Device::open(&adapter, adapter.limits()).unwrap()),
            Err(error) if std::env::var("VECDRIFT_REQUIRE_GPU").as_deref() == Ok("1") => {
                panic!("VECDRIFT_REQUIRE_GPU=1: {error}")
            }
            Err(error) => {
                eprintln!("**** NO GPU TEST WAS RUN: {error} ****");
                None
            }
        }
    }

    /// A kernel with one buffer for results.
    fn kernel(source: &str) -> Shader {
        with_access(
            source,
            &[("params", Access::Uniform), ("results", Access::Write)],
        )
    }

    fn with_access(source: &str, bindings: &'static [(&'static str, Access)]) -> Shader {
        let kernel = Kernel {
            name: "kernel",
            bindings,
            ..GRAM
        };
        Shader {
            kernel: Box::leak(Box::new(kernel)),
            source: source.to_owned(),
            ..Shader::new(&GRAM, Core::PLAIN)
        }
    }

    const HALF: &str = "
        @group(0) @binding(0) var<uniform> params: vec4<u32>;
        @group(0) @binding(1) var<storage, read_write> results: array<f32>;
        @compute @workgroup_size(1)
        fn kernel(@builtin(workgroup_id) id: vec3<u32>) { results[id.x] = f32(params.x + id.x); }";

    fn fails<T>(result: Result<T>) -> String {
        let error = result.err().expect("an error");
        assert!(error.is_device());
        error.to_string()
    }

    #[test]
    fn what_a_kernel_did_not_write_is_found() {
        let Some(device) = open() else { return };
        let pipeline = device.pipeline(&kernel(HALF)).unwrap();
        for (written, whole) in [(5u32, true), (4, false)] {
            let results = device.output(5).unwrap();
            let grid = [written, 1];
            device
                .run(&pipeline, &[7u32, 0, 0, 0], &[&results], grid)
                .unwrap();
            let values = device.read(&results).unwrap().finish().unwrap();
            let values: &[f32] = values.as_slice(5);
            assert_eq!(values[..4], [7.0, 8.0, 9.0, 10.0]);
            assert_eq!(device.written("kernel", values).is_ok(), whole);
            assert_eq!(device.numbers("kernel", values).is_ok(), whole);
        }
        assert!(device.written("kernel", &[f32::NAN]).is_ok());
        assert!(
            fails(device.numbers("kernel", &[f32::NAN]))
                .contains("kernel: the device returned NaN")
        );
        // Beyond one copy of the pattern, to the last word.
        let words = BLANK_BYTES / 4 * 2 + 3;
        let large = device.output(words).unwrap();
        let values = device.read(&large).unwrap().finish().unwrap();
        let values: &[u32] = values.as_slice(words as usize);
        assert!(values.iter().all(|&bits| bits == UNWRITTEN));
    }

    #[test]
    fn mistakes_are_errors_and_leave_the_device_usable() {
        let Some(device) = open() else { return };
        fails(device.pipeline(&kernel("fn kernel() { nonsense }")));
        let other_access = with_access(
            HALF,
            &[("params", Access::Uniform), ("results", Access::Read)],
        );
        fails(device.pipeline(&other_access));
        fails(device.output(device.limits().max_buffer_size / 4 + 1));
        let pipeline = device.pipeline(&kernel(HALF)).unwrap();
        fails(device.run(&pipeline, &[0u32; 4], &[], [1, 1]));
        let results = device.output(1).unwrap();
        let side = device.limits().max_compute_workgroups_per_dimension;
        fails(device.run(&pipeline, &[0u32; 4], &[&results], [side + 1, 1]));
        device
            .run(&pipeline, &[3u32; 4], &[&results], [1, 1])
            .unwrap();
        let values = device.read(&results).unwrap().finish().unwrap();
        assert_eq!(values.as_slice::<f32>(1), [3.0]);
    }

    #[test]
    fn a_lost_device_fails_every_later_call() {
        let Some(device) = open() else { return };
        let pipeline = device.pipeline(&kernel(HALF)).unwrap();
        let results = device.output(1).unwrap();
        let underway = device.read(&results).unwrap();
        device.destroy();
        // What was on its way may still arrive; nothing new begins.
        let _ = underway.finish();
        fails(device.input(&[1.0f32]));
        fails(device.output(1));
        fails(device.read(&results));
        fails(device.run(&pipeline, &[0u32; 4], &[&results], [1, 1]));
        fails(device.pipeline(&Shader::new(&GRAM, Core::PLAIN)));
    }
}
