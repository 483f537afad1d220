//! What every command shares: resolved global options, reading with progress, printing.

use std::io::{ErrorKind, Write};

use schemars::JsonSchema;
use serde::Serialize;

use super::progress::StderrProgress;
use super::{Arc, DeviceChoice, Engine, EngineConfig, Error, Format, GlobalArgs, Path, PathBuf};
use super::{ReadOptions, Result, parse_device};
use crate::embeddings::Embeddings;
use crate::engine::{DeviceInfo, Progress, Silent, start_process_pool};
use crate::output::{InputSummary, Output, SCHEMA_VERSION, Timing};
use crate::report::{self, Page, TextStyle};
use crate::source::{self, Source};

/// The global options, resolved.
pub(super) struct Session {
    pub(super) format: Format,
    pub(super) out: Option<PathBuf>,
    pub(super) seed: u64,
    pub(super) dry_run: bool,
    pub(super) quiet: bool,
    engine: EngineConfig,
}

/// Global options that can change a result.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct GlobalConfig {
    seed: u64,
}

/// A command's own configuration with the global one.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct Resolved<C> {
    #[serde(flatten)]
    command: C,
    #[serde(flatten)]
    global: GlobalConfig,
}

/// The device that a command ran on, and what it must say about it.
pub(super) struct RanOn<'a> {
    device: &'a DeviceInfo,
    warnings: Vec<String>,
}

impl<'a> From<&'a DeviceInfo> for RanOn<'a> {
    fn from(device: &'a DeviceInfo) -> Self {
        Self {
            device,
            warnings: Vec::new(),
        }
    }
}

impl<'a> From<&'a Engine> for RanOn<'a> {
    fn from(engine: &'a Engine) -> Self {
        Self {
            device: engine.device(),
            warnings: engine.warnings(),
        }
    }
}

/// An input that was read.
pub(super) struct Loaded {
    pub(super) set: Embeddings,
    pub(super) summary: InputSummary,
}

impl Session {
    pub(super) fn new(args: GlobalArgs) -> Result<Self> {
        let GlobalArgs {
            format,
            out,
            device,
            threads,
            memory,
            seed,
            dry_run,
            quiet,
        } = args;
        if threads == Some(0) {
            return Err(Error::input("--threads", "0 threads, expected at least 1"));
        }
        // All computing is done by this pool: there are no others.
        start_process_pool(threads)?;
        let progress: Arc<dyn Progress> = if quiet {
            Arc::new(Silent)
        } else {
            Arc::new(StderrProgress::new())
        };
        Ok(Self {
            format,
            out,
            seed,
            dry_run,
            quiet,
            engine: EngineConfig {
                device: parse_device(&device),
                threads: None,
                memory,
                progress,
            },
        })
    }

    pub(super) fn engine(&self) -> Result<Engine> {
        Engine::new(&self.engine)
    }

    pub(super) fn device_choice(&self) -> &DeviceChoice {
        &self.engine.device
    }

    pub(super) fn engine_config(&self) -> &EngineConfig {
        &self.engine
    }

    pub(super) fn memory(&self) -> u64 {
        self.engine.memory
    }

    /// `--out`, where the command writes files.
    pub(super) fn out(&self) -> Option<&Path> {
        self.out.as_deref()
    }

    /// Says that a command writes no files, if it was told where to.
    pub(super) fn refuse_out(&self, command: &str) -> Result<()> {
        match &self.out {
            None => Ok(()),
            Some(_) => Err(Error::input("--out", format!("{command} writes no files"))
                .hint("use --format json and redirect stdout")),
        }
    }

    /// Reads a whole input, telling how far it is.
    pub(super) fn read(&self, role: &str, source: Source) -> Result<Loaded> {
        let info = source.info().clone();
        let progress = &self.engine.progress;
        progress.begin(&format!("read {role}"), info.rows.unwrap_or(0));
        let set = source.read(&mut |rows| progress.advance(rows));
        progress.end();
        let set = set?;
        let summary = InputSummary::new(role, &info, &set);
        Ok(Loaded { set, summary })
    }

    /// Who hears about progress.
    pub(super) fn progress(&self) -> &dyn Progress {
        &*self.engine.progress
    }

    /// Wraps a command's result into what its JSON looks like.
    pub(super) fn output<'a, C, R>(
        &self,
        command: &str,
        config: C,
        inputs: Vec<InputSummary>,
        ran_on: impl Into<RanOn<'a>>,
        results: R,
        timings: Vec<Timing>,
    ) -> Output<Resolved<C>, R> {
        let RanOn { device, warnings } = ran_on.into();
        let of_inputs = inputs.iter().filter_map(InputSummary::warning);
        let warnings = of_inputs.chain(warnings).collect();
        Output {
            schema_version: SCHEMA_VERSION,
            command: command.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config: Resolved {
                command: config,
                global: GlobalConfig { seed: self.seed },
            },
            inputs,
            device: device.clone(),
            results,
            gates: Vec::new(),
            warnings,
            timings,
        }
    }

    /// Prints a result: as JSON, or as the terminal summary of its page.
    pub(super) fn print<T: Serialize>(&self, output: &T, page: &Page) -> Result<()> {
        match self.format {
            Format::Json => print_stdout(&to_json(output)?),
            Format::Text => print_stdout(&report::text(page, &TextStyle::for_stdout())),
        }
    }
}

/// Opens an input.
pub(super) fn open(input: &str, options: &ReadOptions) -> Result<Source> {
    source::open(input, options)
}

/// Indented JSON with a final newline.
pub(super) fn to_json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string_pretty(value)
        .map(|json| json + "\n")
        .map_err(|e| Error::output("JSON", e))
}

/// Writes to stdout; a reader that stopped listening is no error.
pub(super) fn print_stdout(text: &str) -> Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::output("stdout", e)),
        _ => Ok(()),
    }
}
