//! `vecdrift devices`

use clap::Args;
use schemars::JsonSchema;
use serde::Serialize;

use super::session::Session;
use super::{DeviceChoice, Engine, Error, Result};
use crate::engine::check::{self, OperationCheck};
use crate::engine::gpu::{self, AdapterInfo};
use crate::engine::{DeviceInfo, EngineConfig, cpu};
use crate::output::{Output, Stopwatch};
use crate::report::{self, Column, Page, State, Table, Value};

/// Lists the devices, and checks their arithmetic against f64
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  vecdrift devices
  vecdrift devices --check

--check runs every operation on random data on every device, and compares with
f64. It exits with 2 if a device is wrong. --device limits it to one.")]
pub(super) struct DevicesArgs {
    /// Run every operation and compare with f64
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
struct Config {
    check: bool,
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
    /// Per operation; absent without `--check`.
    checks: Option<Vec<OperationCheck>>,
    /// Why the device could not be opened or checked.
    error: Option<String>,
}

impl DevicesArgs {
    pub(super) fn run(self, session: &Session) -> Result<()> {
        let Self { check } = self;
        session.refuse_out("devices")?;
        let mut clock = Stopwatch::start();
        let mut entries = vec![DeviceEntry {
            choice: "cpu".to_owned(),
            device: cpu::device()?,
            adapter: None,
            checks: None,
            error: None,
        }];
        entries.extend(gpu::adapters().into_iter().map(|adapter| DeviceEntry {
            choice: adapter.index.to_string(),
            device: adapter.device.clone(),
            adapter: Some(adapter),
            checks: None,
            error: None,
        }));
        match session.device_choice() {
            DeviceChoice::Auto => {}
            DeviceChoice::Cpu => entries.truncate(1),
            _ => {
                entries.remove(0);
                let chosen = session.engine()?.device().clone();
                entries.retain(|e| e.device == chosen);
            }
        }
        clock.lap("list");
        if check && !session.dry_run {
            for entry in &mut entries {
                let choice = match &entry.adapter {
                    None => DeviceChoice::Cpu,
                    Some(adapter) => DeviceChoice::Index(adapter.index),
                };
                let config = EngineConfig {
                    device: choice,
                    ..session.engine_config().clone()
                };
                match Engine::new(&config).and_then(|engine| check::check(&engine, session.seed)) {
                    Ok(checks) => entry.checks = Some(checks),
                    Err(error) => entry.error = Some(error.to_string()),
                }
            }
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
            Config { check },
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

/// The devices, and one line per operation where they were checked.
fn page<C>(output: &Output<C, DevicesResults>) -> Page {
    let mut table = Table {
        caption: "Devices".to_owned(),
        columns: ["--device", "name", "backend", "arithmetic", "kind"]
            .map(Column::left)
            .to_vec(),
        rows: Vec::new(),
    };
    let mut checks = Table {
        caption: "Check against f64".to_owned(),
        columns: vec![
            Column::left("--device"),
            Column::left("operation"),
            Column::right("largest error"),
            Column::right("bound"),
            Column::left("result"),
        ],
        rows: Vec::new(),
    };
    let mut warnings = Vec::new();
    for entry in &output.results.devices {
        let kind = match (&entry.adapter, entry.device.software) {
            (None, _) => "processor",
            (Some(_), true) => "software, for tests",
            (Some(_), false) => "hardware",
        };
        table.rows.push(vec![
            entry.choice.as_str().into(),
            entry.device.name.as_str().into(),
            entry.device.backend.as_str().into(),
            entry.device.precision.as_str().into(),
            kind.into(),
        ]);
        for check in entry.checks.iter().flatten() {
            let (state, label) = if check.passed {
                (State::Ok, "passed")
            } else {
                (State::Broken, "FAILED")
            };
            checks.rows.push(vec![
                entry.choice.as_str().into(),
                check.operation.as_str().into(),
                check.max_error.into(),
                Value::Number(check.bound),
                Value::State {
                    state,
                    label: label.to_owned(),
                },
            ]);
        }
        warnings.extend(
            entry
                .error
                .as_ref()
                .map(|e| format!("{}: {e}", entry.device.name)),
        );
    }
    let shown = if checks.rows.is_empty() {
        table
    } else {
        checks
    };
    Page {
        warnings,
        ..report::measured_page(output, shown)
    }
}
