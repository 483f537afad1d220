//! `vecdrift devices`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::session::Session;
use super::{DeviceChoice, Engine, Error, Result};
use crate::engine::check::{self, OperationCheck};
use crate::engine::gpu::{self, AdapterInfo, CoreReport, KnownProfile};
use crate::engine::{DeviceInfo, EngineConfig, cpu};
use crate::output::{Output, Stopwatch};
use crate::report::{self, Column, Page, State, Table, Value};

/// Lists the devices, and checks their arithmetic against f64
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift devices
  vecdrift devices --check
  vecdrift devices --device 0 --device-profile

--check holds every product core of every GPU to known answers, races those
that are right, runs every operation on random data, and compares with f64. It
exits with 2 if a device is wrong; a core that is wrong is named and not used.
--device limits it to one.

What was found about a GPU's cores when it was first used is kept in the
user's cache folder, per adapter and driver; --check measures it anew.")]
pub(super) struct DevicesArgs {
    /// Run every core and operation and compare with f64
    #[arg(long)]
    check: bool,

    /// Show what is known of each GPU's product cores, and where it is kept
    #[arg(long)]
    device_profile: bool,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    check: bool,
    device_profile: bool,
}

/// What there is, and whether it computes right.
#[derive(Debug, Clone, Serialize, JsonSchema)]
struct DevicesResults {
    devices: Vec<DeviceEntry>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct DeviceEntry {
    /// What `--device` takes: `cpu` or an index.
    choice: String,
    device: DeviceInfo,
    /// Limits and features; absent for the CPU.
    adapter: Option<AdapterInfo>,
    /// The product cores of a GPU; absent unless asked for.
    profile: Option<KnownProfile>,
    /// Per operation; absent without `--check`.
    checks: Option<Vec<OperationCheck>>,
    /// Why the device could not be opened or checked.
    error: Option<String>,
}

impl DeviceEntry {
    fn cores(&self) -> &[CoreReport] {
        self.profile
            .as_ref()
            .map_or(&[], |known| &known.profile.cores)
    }

    /// Fills in what was asked for.
    fn examine(&mut self, session: &Session, check: bool, device_profile: bool) -> Result<()> {
        let choice = match &self.adapter {
            None => DeviceChoice::Cpu,
            Some(adapter) => DeviceChoice::Index(adapter.index),
        };
        if self.adapter.is_some() && (check || device_profile) {
            self.profile = Some(gpu::profile(&choice, check)?);
        }
        if check {
            let config = EngineConfig {
                device: choice,
                ..session.engine_config().clone()
            };
            let engine = Engine::new(&config)?;
            self.device = engine.device().clone();
            self.checks = Some(check::check(&engine, session.seed)?);
        }
        Ok(())
    }
}

impl DevicesArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self {
            check,
            device_profile,
        } = self;
        session.refuse_out("devices")?;
        let mut clock = Stopwatch::start();
        let mut entries = vec![DeviceEntry {
            choice: "cpu".to_owned(),
            device: cpu::device()?,
            adapter: None,
            profile: None,
            checks: None,
            error: None,
        }];
        entries.extend(gpu::adapters().into_iter().map(|adapter| DeviceEntry {
            choice: adapter.index.to_string(),
            device: adapter.device.clone(),
            adapter: Some(adapter),
            profile: None,
            checks: None,
            error: None,
        }));
        match session.device_choice() {
            DeviceChoice::Auto => {}
            DeviceChoice::Cpu => entries.truncate(1),
            DeviceChoice::All => {
                entries.remove(0);
            }
            choice => {
                let chosen = gpu::adapter_index(choice)?.to_string();
                entries.retain(|e| e.choice == chosen);
            }
        }
        clock.lap("list");
        if !session.dry_run {
            for entry in &mut entries {
                if let Err(error) = entry.examine(session, check, device_profile) {
                    entry.error = Some(error.to_string());
                }
            }
        }
        if check {
            clock.lap("check");
        }
        let wrong: Vec<String> = entries
            .iter()
            .filter(|e| e.error.is_some() || e.checks.iter().flatten().any(|check| !check.passed))
            .map(|e| e.device.name.clone())
            .collect();
        let device = entries
            .first()
            .map_or_else(cpu::device, |e| Ok(e.device.clone()))?;
        let output = session.output(
            "devices",
            Config {
                check,
                device_profile,
            },
            Vec::new(),
            &device,
            DevicesResults { devices: entries },
            clock.timings(),
        );
        session.print(&output, &page(&output))?;
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(
                Error::device(wrong.join(", "), "failed the check against f64")
                    .hint("update the driver, or use --device cpu"),
            )
        }
    }
}

/// The devices; their limits, cores and operations where those were asked for.
fn page<C>(output: &Output<C, DevicesResults>) -> Page {
    let devices = &output.results.devices;
    let mut warnings: Vec<String> = Vec::new();
    for entry in devices {
        let error = entry.error.as_ref().or_else(|| {
            let adapter = entry.adapter.as_ref()?;
            adapter.unusable.as_ref()
        });
        warnings.extend(error.map(|e| format!("{}: {e}", entry.device.name)));
        warnings.extend(entry.cores().iter().filter_map(|core| {
            let why = core.failure.as_ref()?;
            Some(format!(
                "{}: core {} failed and is not used: {why}",
                entry.device.name, core.core
            ))
        }));
        let kept = entry.profile.as_ref().and_then(|known| known.file.as_ref());
        warnings.extend(
            entry
                .profile
                .iter()
                .filter(|_| kept.is_none())
                .map(|_| format!("{}: no cache folder to keep this in", entry.device.name)),
        );
    }
    let tables = [
        device_table(devices),
        adapter_table(devices),
        core_table(devices),
        check_table(devices),
    ];
    let mut page = report::measured_page(output, Table::default());
    page.key_numbers = tables
        .into_iter()
        .filter(|table| !table.rows.is_empty())
        .collect();
    page.warnings = warnings;
    page
}

fn device_table(devices: &[DeviceEntry]) -> Table {
    let row = |entry: &DeviceEntry| {
        let kind = match (&entry.adapter, entry.device.software) {
            (None, _) => "processor",
            (Some(_), true) => "software, for tests",
            (Some(_), false) => "hardware",
        };
        vec![
            entry.choice.as_str().into(),
            entry.device.name.as_str().into(),
            entry.device.backend.as_str().into(),
            kind.into(),
        ]
    };
    Table {
        caption: "Devices".to_owned(),
        columns: ["--device", "name", "backend", "kind"]
            .map(Column::left)
            .to_vec(),
        rows: devices.iter().map(row).collect(),
    }
}

/// Limits and features of the GPUs that were examined.
fn adapter_table(devices: &[DeviceEntry]) -> Table {
    let mut rows: Vec<Vec<Value>> = Vec::new();
    for entry in devices.iter().filter(|entry| entry.profile.is_some()) {
        let Some(adapter) = &entry.adapter else {
            continue;
        };
        let yes = |has: bool| if has { "yes" } else { "no" }.to_owned();
        let matrices = if adapter.cooperative_matrices.is_empty() {
            "none".to_owned()
        } else {
            adapter.cooperative_matrices.join(", ")
        };
        let subgroups = match adapter.subgroup_sizes {
            Some([low, high]) if low == high => low.to_string(),
            Some([low, high]) => format!("{low} to {high}"),
            None => "unknown".to_owned(),
        };
        let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
        let known = entry.profile.as_ref();
        let kept = known.and_then(|known| known.file.clone());
        for (name, value) in [
            ("driver", adapter.driver.clone()),
            ("largest buffer", mib(adapter.max_buffer_bytes)),
            ("largest binding", mib(adapter.max_binding_bytes)),
            (
                "workgroup memory",
                format!("{} KiB", adapter.workgroup_memory_bytes >> 10),
            ),
            ("subgroup size", subgroups),
            ("f16 arithmetic", yes(adapter.shader_f16)),
            ("time stamps", yes(adapter.timestamps)),
            ("cooperative matrices", matrices),
            ("profile", kept.unwrap_or_else(|| "not kept".to_owned())),
        ] {
            rows.push(vec![
                entry.choice.as_str().into(),
                name.into(),
                value.as_str().into(),
            ]);
        }
    }
    Table {
        caption: "Limits and features".to_owned(),
        columns: ["--device", "what", "value"].map(Column::left).to_vec(),
        rows,
    }
}

fn core_table(devices: &[DeviceEntry]) -> Table {
    let rows = devices.iter().flat_map(|entry| {
        entry.cores().iter().map(|core| {
            vec![
                entry.choice.as_str().into(),
                core.core.as_str().into(),
                core.max_error.into(),
                Value::Number(core.bound),
                core.tflops.into(),
                result(core.passed),
            ]
        })
    });
    Table {
        caption: "Product cores".to_owned(),
        columns: vec![
            Column::left("--device"),
            Column::left("core"),
            Column::right("largest error"),
            Column::right("bound"),
            Column::right("TFLOP/s"),
            Column::left("result"),
        ],
        rows: rows.collect(),
    }
}

fn check_table(devices: &[DeviceEntry]) -> Table {
    let rows = devices.iter().flat_map(|entry| {
        entry.checks.iter().flatten().map(|check| {
            vec![
                entry.choice.as_str().into(),
                check.operation.as_str().into(),
                check.max_error.into(),
                Value::Number(check.bound),
                result(check.passed),
            ]
        })
    });
    Table {
        caption: "Operations against f64".to_owned(),
        columns: vec![
            Column::left("--device"),
            Column::left("operation"),
            Column::right("largest error"),
            Column::right("bound"),
            Column::left("result"),
        ],
        rows: rows.collect(),
    }
}

fn result(passed: bool) -> Value {
    let (state, label) = if passed {
        (State::Ok, "passed")
    } else {
        (State::Broken, "FAILED")
    };
    Value::State {
        state,
        label: label.to_owned(),
    }
}
