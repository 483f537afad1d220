//! Which product core serves which operation: those that an adapter can run, held to known answers, and
//! raced.

use std::time::Instant;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::shaders::{
    Arithmetic, Core, KERNELS, Kernel, Matrices, NEAREST, NearestParams, PAIR_HISTOGRAM, PAIR_SUMS,
    PROJECT, Shader,
};
use super::{GpuBackend, adapters, pack, project};
use crate::embeddings::F32Rows;
use crate::engine::score;
use crate::engine::threads::Threads;
use crate::engine::tiles::Operation;
use crate::error::{Error, Result};
use crate::stats::rng::Philox;

/// How a product core fared on an adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CoreReport {
    /// The core: its arithmetic, and rows and columns of what a workgroup computes.
    pub core: String,
    /// Whether every product was within its bound of f64, and the same each time.
    pub passed: bool,
    /// Largest |product − exact| / (‖x‖‖y‖).
    pub max_error: Option<f64>,
    /// What the accuracy contract allows there: rounding of the rows to what the core holds included.
    pub bound: f64,
    /// Speed in the race, in 10¹² floating-point operations per second; `None` where it did not run.
    pub tflops: Option<f64>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// The core of each operation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    pair_histogram: Core,
    pair_sums: Core,
    nearest: Core,
    project: Core,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            pair_histogram: Core::PLAIN,
            pair_sums: Core::PLAIN,
            nearest: Core::PLAIN,
            project: Core::PLAIN,
        }
    }
}

impl Choice {
    pub(super) fn core(&self, operation: Operation) -> Core {
        match operation {
            Operation::PairHistogram => self.pair_histogram,
            Operation::PairSums => self.pair_sums,
            Operation::Nearest => self.nearest,
            Operation::Project => self.project,
            // Its products are over rows, not coordinates.
            Operation::Gram => Core::PLAIN,
        }
    }

    /// The fastest core that passed, that is good enough for the operation, and that fits the device.
    pub(super) fn fastest(
        candidates: &[Core],
        reports: &[CoreReport],
        limits: &wgpu::Limits,
    ) -> Self {
        let best = |kernel: &'static Kernel, good_enough: fn(&Core) -> bool| {
            candidates
                .iter()
                .filter(|core| good_enough(core) && fits(kernel, **core, limits))
                .filter_map(|core| {
                    let report = reports.iter().find(|r| r.core == core.name())?;
                    Some((core, report.tflops.filter(|_| report.passed)?))
                })
                .max_by(|a, b| a.1.total_cmp(&b.1))
                .map_or(Core::PLAIN, |(core, _)| *core)
        };
        Self {
            pair_histogram: best(&PAIR_HISTOGRAM, Core::is_full_grade),
            pair_sums: best(&PAIR_SUMS, Core::is_full_grade),
            // Neighbours are proven in f64 whatever screened them.
            nearest: best(&NEAREST, |_| true),
            // Rows of any length are projected, too long perhaps for f16.
            project: best(&PROJECT, |core| core.arithmetic == Arithmetic::F32),
        }
    }

    /// One core for everything that it can do.
    pub(super) fn only(core: Core, limits: &wgpu::Limits) -> Self {
        let where_it_fits = |kernel| {
            if fits(kernel, core, limits) {
                core
            } else {
                Core { patch: 1, ..core }
            }
        };
        Self {
            pair_histogram: where_it_fits(&PAIR_HISTOGRAM),
            pair_sums: where_it_fits(&PAIR_SUMS),
            nearest: where_it_fits(&NEAREST),
            project: if core.arithmetic == Arithmetic::F32 {
                core
            } else {
                Core::PLAIN
            },
        }
    }

    /// The arithmetic of the products, in words.
    pub(super) fn precision(&self) -> String {
        let full = self.pair_sums.name();
        let screening = self.nearest.name();
        let grade = if self.pair_sums.is_full_grade() {
            "f32"
        } else {
            "f16"
        };
        if full == screening {
            format!("{grade} ({full})")
        } else {
            format!("{grade} ({full}), neighbours screened by {screening}")
        }
    }
}

/// Whether a kernel on a core has enough workgroup memory.
fn fits(kernel: &'static Kernel, core: Core, limits: &wgpu::Limits) -> bool {
    Shader::new(kernel, core).workgroup_storage <= limits.max_compute_workgroup_storage_size
}

/// The cores that an adapter can run, by features and limits, slowest first as a rule.
pub(super) fn candidates(adapter: &wgpu::Adapter) -> Vec<Core> {
    let mut arithmetics = vec![Arithmetic::F32];
    let flags = adapter.get_downlevel_capabilities().flags;
    if flags.contains(wgpu::DownlevelFlags::SHADER_F16_IN_F32) {
        arithmetics.push(Arithmetic::F16);
    }
    if let Some(matrices) = matrices(adapter) {
        arithmetics.push(Arithmetic::Split(matrices));
        arithmetics.push(Arithmetic::Cooperative(matrices));
    }
    let limits = adapter.limits();
    arithmetics
        .into_iter()
        .flat_map(|arithmetic| [1, 2].map(|patch| Core { arithmetic, patch }))
        .filter(|&core| KERNELS.iter().any(|k| k.on_core && fits(k, core, &limits)))
        .collect()
}

/// The largest square matrices of f16 with f32 sums whose work a workgroup's subgroups can share.
fn matrices(adapter: &wgpu::Adapter) -> Option<Matrices> {
    let (features, info) = (adapter.features(), adapter.get_info());
    let needed = wgpu::Features::SHADER_F16 | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
    // Where the size of a subgroup is not fixed, who holds what part of a matrix is not known. HLSL has no
    // such matrices, and Metal's are loaded from scalars only.
    if info.backend != wgpu::Backend::Vulkan
        || !features.contains(needed)
        || info.subgroup_min_size != info.subgroup_max_size
    {
        return None;
    }
    adapter
        .cooperative_matrix_properties()
        .iter()
        .filter(|p| p.m_size == p.n_size && p.n_size == p.k_size)
        .filter(|p| {
            let (f16, f32) = (
                wgpu::CooperativeScalarType::F16,
                wgpu::CooperativeScalarType::F32,
            );
            p.ab_type == f16 && p.cr_type == f32
        })
        .map(|p| Matrices {
            side: p.m_size,
            subgroup: info.subgroup_min_size,
        })
        .filter(|m| m.divide_a_tile())
        .max_by_key(|m| m.side)
}

/// Shapes of the known-answer test: several patches, the last ones incomplete.
const X_ROWS: usize = 150;
const Y_ROWS: usize = 331;
const DIM: usize = 100;
/// How often it is repeated: a race between invocations seldom gives the same twice.
const REPEATS: usize = 4;

/// Rows × rows × dimension of the race: a few milliseconds at most on devices of the kind.
const RACE_HARDWARE: [usize; 3] = [4096, 4096, 768];
const RACE_SOFTWARE: [usize; 3] = [256, 256, 256];
const RACE_RUNS: usize = 3;

/// Holds every candidate to known answers, and races those that pass.
pub(super) fn trial(backend: &GpuBackend, candidates: &[Core]) -> Vec<CoreReport> {
    let shape = if backend.info.software {
        RACE_SOFTWARE
    } else {
        RACE_HARDWARE
    };
    candidates
        .iter()
        .map(|&core| {
            let mut report = known_answer(backend, core);
            if report.passed {
                match product_seconds(backend, core, shape, RACE_RUNS) {
                    Ok(seconds) => {
                        let best = seconds.into_iter().fold(f64::INFINITY, f64::min);
                        let operations = 2.0 * shape.map(|v| v as f64).iter().product::<f64>();
                        report.tflops = Some(operations / best / 1e12);
                    }
                    Err(error) => {
                        report.passed = false;
                        report.failure = Some(error.to_string());
                    }
                }
            }
            report
        })
        .collect()
}

/// Products of random rows of length 1 against f64.
fn known_answer(backend: &GpuBackend, core: Core) -> CoreReport {
    let unit = |rows: usize, stream: u64| {
        let mut random = Philox::new(20, stream);
        let values: Vec<f32> = (0..rows * DIM).map(|_| random.normal() as f32).collect();
        let rows = F32Rows::new(&values, DIM);
        score::prepare(crate::engine::Metric::Cosine, rows, &score::norms(rows), 0)
    };
    let (xs, ys) = (unit(X_ROWS, 0), unit(Y_ROWS, 1));
    let (x, y) = (F32Rows::new(&xs, DIM), F32Rows::new(&ys, DIM));
    // Beside the products, the rounding of rows to length 1: two units.
    let mut bound = (core.product_units(DIM) + 2.0) * 2f64.powi(-23);
    if !core.is_full_grade() {
        let largest = |rows| pack::half_residuals(rows).into_iter().fold(0.0, f64::max);
        let (x_residual, y_residual) = (largest(x), largest(y));
        bound += x_residual + y_residual + x_residual * y_residual;
    }
    let mut report = CoreReport {
        core: core.name().to_owned(),
        passed: false,
        max_error: None,
        bound,
        tflops: None,
        failure: None,
    };
    let computed = || {
        let load = |rows| backend.load_for(Operation::Project, core, rows);
        let (x, y) = (load(x)?, load(y)?);
        project::project(backend, &x, &y)
    };
    let first = match computed() {
        Ok(products) => products,
        Err(error) => {
            report.failure = Some(error.to_string());
            return report;
        }
    };
    let exact = x
        .iter()
        .flat_map(|a| y.iter().map(move |b| score::dot(a, b)));
    let worst = first
        .iter()
        .zip(exact)
        .map(|(&found, exact)| (f64::from(found) - exact).abs())
        // A NaN is the largest error of all.
        .fold(
            0.0,
            |worst: f64, error| if error <= worst { worst } else { error },
        );
    report.max_error = worst.is_finite().then_some(worst);
    let bits = |products: &[f32]| products.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let no_number = first.iter().any(|v| !v.is_finite());
    let same_again = (1..REPEATS).try_fold(true, |same, _| {
        computed().map(|again| same && bits(&again) == bits(&first))
    });
    report.failure = match same_again {
        Err(error) => Some(error.to_string()),
        Ok(_) if no_number => Some("NaN or infinity for finite rows".to_owned()),
        Ok(false) => Some("two runs on the same rows differ".to_owned()),
        Ok(true) if worst <= bound => None,
        Ok(true) => Some(format!("off by {worst:.1e}, at most {bound:.1e} is right")),
    };
    report.passed = report.failure.is_none();
    report
}

/// Seconds that the products of n × m rows of a dimension take with only maxima to write, by wall clock
/// around one submission, which is what `nearest` waits for; after one run that does not count.
pub(super) fn product_seconds(
    backend: &GpuBackend,
    core: Core,
    [n, m, dim]: [usize; 3],
    runs: usize,
) -> Result<Vec<f64>> {
    const WIDTH: usize = 64;
    let device = &backend.device;
    let mut random = Philox::new(21, 0);
    // Not too many different values to draw, not so few that a device could profit.
    let drawn: Vec<f32> = (0..65_521).map(|_| random.normal() as f32 * 0.02).collect();
    let load = |rows: usize| {
        let values: Vec<f32> = drawn.iter().copied().cycle().take(rows * dim).collect();
        backend.load_for(Operation::Project, core, F32Rows::new(&values, dim))
    };
    let (x, y) = (load(n)?, load(m)?);
    let pipeline = backend.pipeline(&NEAREST, core)?;
    let bins = m.div_ceil(WIDTH);
    let maxima = device.output((n * bins) as u64)?;
    let side = device.limits().max_compute_workgroups_per_dimension as usize;
    let unit = [core.patch; 2];
    let pieces = super::pieces(0..x.tiles(), 0..y.tiles(), unit, usize::MAX / 4, side);
    let run = || -> Result<f64> {
        let start = Instant::now();
        for piece in &pieces {
            let params = NearestParams {
                slices: x.slices() as u32,
                x_rows: n as u32,
                y_rows: m as u32,
                x_first: piece.x.start as u32,
                y_first: piece.y.start as u32,
                band_first: 0,
                width: WIDTH as u32,
                bins: bins as u32,
            };
            let buffers = [&x.packed, &y.packed, &maxima];
            device.run(&pipeline, &params, &buffers, piece.grid())?;
        }
        device.settle()?;
        Ok(start.elapsed().as_secs_f64())
    };
    run()?;
    (0..runs.max(1)).map(|_| run()).collect()
}

/// The candidate of that name.
pub(super) fn named(candidates: &[Core], name: &str) -> Result<Core> {
    let found = candidates.iter().find(|core| core.name() == name);
    found.copied().ok_or_else(|| {
        let names: Vec<_> = candidates.iter().map(|core| core.name()).collect();
        let fact = format!("no core of this adapter, which has {}", names.join(", "));
        Error::input(name, fact)
    })
}

/// A backend on the adapter that a choice means, its candidates and their reports, measured now.
pub(super) fn measured(choice: &crate::engine::DeviceChoice) -> Result<(GpuBackend, Vec<Core>)> {
    let adapter = adapters::choose(choice)?;
    let backend = GpuBackend::bare(&adapter, adapter.limits(), &Threads::default())?;
    Ok((backend, candidates(&adapter)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(core: Core, tflops: f64, passed: bool) -> CoreReport {
        CoreReport {
            core: core.name().to_owned(),
            passed,
            max_error: None,
            bound: 0.0,
            tflops: Some(tflops),
            failure: None,
        }
    }

    /// A core that is compiled wrong is found, named, and not used.
    #[test]
    fn a_wrong_core_is_named_and_never_used() {
        let (backend, candidates) = match measured(&crate::engine::DeviceChoice::Gpu) {
            Ok(opened) => opened,
            Err(error) if std::env::var("VECDRIFT_REQUIRE_GPU").as_deref() == Ok("1") => {
                panic!("VECDRIFT_REQUIRE_GPU=1: {error}")
            }
            Err(error) => return eprintln!("**** NO GPU TEST WAS RUN: {error} ****"),
        };
        let core = Core {
            patch: 2,
            ..Core::PLAIN
        };
        assert!(known_answer(&backend, core).passed);
        for (from, to, why) in [
            ("* UNSCALE", "* UNSCALE * 1.0001", "off by"),
            ("x_1.y * y_0", "x_1.x * y_0", "off by"),
            (
                "* UNSCALE",
                "* bitcast<f32>(0x7fc00000u + params.pad_0)",
                "NaN",
            ),
            (
                "row < params.x_rows",
                "row + 1u < params.x_rows",
                "unwritten",
            ),
        ] {
            let mut shader = Shader::new(&PROJECT, core);
            shader.source = shader.source.replace(from, to);
            let pipeline = backend.device.pipeline(&shader).unwrap();
            let mut pipelines = backend.pipelines.lock().unwrap();
            pipelines.insert((PROJECT.name, core), std::sync::Arc::new(pipeline));
            drop(pipelines);
            let wrong = known_answer(&backend, core);
            assert!(!wrong.passed, "{from} -> {to}");
            let failure = wrong.failure.as_ref().unwrap();
            assert!(failure.contains(why), "{from} -> {to}: {failure}");
            let reports = [wrong, report(Core::PLAIN, 0.1, true)];
            let choice = Choice::fastest(&candidates, &reports, backend.device.limits());
            assert_eq!(choice.core(Operation::Nearest), Core::PLAIN);
        }
    }

    #[test]
    fn the_fastest_core_that_is_right_and_fits_is_used() {
        let matrices = Matrices {
            side: 16,
            subgroup: 32,
        };
        let core = |arithmetic, patch| Core { arithmetic, patch };
        let cores = [
            core(Arithmetic::F32, 1),
            core(Arithmetic::F32, 2),
            core(Arithmetic::Split(matrices), 2),
            core(Arithmetic::Cooperative(matrices), 2),
        ];
        let reports = |split: bool| {
            vec![
                report(cores[0], 10.0, true),
                report(cores[1], 30.0, true),
                report(cores[2], 50.0, split),
                report(cores[3], 150.0, true),
            ]
        };
        let limits = wgpu::Limits {
            max_compute_workgroup_storage_size: 49_152,
            ..wgpu::Limits::default()
        };
        let choice = Choice::fastest(&cores, &reports(true), &limits);
        assert_eq!(choice.core(Operation::Nearest), cores[3]);
        assert_eq!(choice.core(Operation::PairSums), cores[2]);
        assert_eq!(choice.core(Operation::PairHistogram), cores[2]);
        assert_eq!(choice.core(Operation::Project), cores[1]);
        assert_eq!(choice.core(Operation::Gram), Core::PLAIN);
        assert_eq!(
            choice.precision(),
            "f32 (cooperative-split-128), neighbours screened by cooperative-f16-128"
        );
        // A core that gave a wrong answer is not used, however fast.
        let choice = Choice::fastest(&cores, &reports(false), &limits);
        assert_eq!(choice.core(Operation::PairSums), cores[1]);
        // Histograms need memory of their own.
        let little = wgpu::Limits {
            max_compute_workgroup_storage_size: 32_768,
            ..limits.clone()
        };
        let choice = Choice::fastest(&cores, &reports(true), &little);
        assert_eq!(choice.core(Operation::PairSums), cores[2]);
        assert_eq!(choice.core(Operation::PairHistogram), cores[1]);
        assert_eq!(
            Choice::fastest(&[], &[], &limits).precision(),
            "f32 (f32-64)"
        );
    }
}
