//! What every command's JSON has in common.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use crate::audit::gate::GateResult;
use crate::embeddings::{Embeddings, IdSource, Roster, RowFaults};
use crate::engine::DeviceInfo;
use crate::source::{LANDMARKS, SourceInfo};

/// Version of the JSON's shape; grows when a key changes its meaning or goes.
pub const SCHEMA_VERSION: u32 = 1;

/// One command's result, as printed by `--format json` and written to `result.json`.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Output<C, R> {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// The command, e.g. `audit`.
    pub command: String,
    /// Version of the program.
    pub version: String,
    /// The configuration after defaults were filled in.
    pub config: C,
    /// What was read.
    pub inputs: Vec<InputSummary>,
    /// What ran it.
    pub device: DeviceInfo,
    /// What was found.
    pub results: R,
    /// Gates and what became of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gates: Vec<GateResult>,
    /// What a reader should know before relying on the results.
    pub warnings: Vec<String>,
    /// Seconds per step.
    pub timings: Vec<Timing>,
}

/// One input as it was read.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct InputSummary {
    /// `reference`, `current`, `base`, `queries` …
    pub role: String,
    /// What the user named.
    pub source: String,
    /// File format.
    pub format: String,
    /// Vector column or tensor.
    pub vector_column: String,
    /// Where ids come from.
    pub id_source: IdSource,
    /// Rows read.
    pub rows: u64,
    /// Rows that take part in measures.
    pub usable_rows: u64,
    /// Values per row.
    pub dim: usize,
    /// Element type as stored.
    pub dtype: crate::embeddings::Dtype,
    /// Checksum of the usable rows' ids, in order.
    pub id_checksum: String,
    /// Rows left out and why.
    pub faults: RowFaults,
}

impl InputSummary {
    /// Sums up a set that was read from a source.
    pub fn new(role: &str, info: &SourceInfo, set: &Embeddings) -> Self {
        Self::of(
            role,
            info,
            (set.rows_read, set.len()),
            set.ids.checksum(),
            &set.faults,
        )
    }

    /// Sums up a set that passed as a stream.
    pub fn of_stream(role: &str, info: &SourceInfo, roster: &Roster) -> Self {
        Self::of(
            role,
            info,
            (roster.rows_read, roster.ids.len()),
            roster.ids.checksum(),
            &roster.faults,
        )
    }

    fn of(
        role: &str,
        info: &SourceInfo,
        (rows, usable_rows): (u64, usize),
        id_checksum: String,
        faults: &RowFaults,
    ) -> Self {
        Self {
            role: role.to_owned(),
            source: info.name.clone(),
            format: info.format.clone(),
            vector_column: info.vector_column.clone(),
            id_source: info.id_source.clone(),
            rows,
            usable_rows: usable_rows as u64,
            dim: info.dim,
            dtype: info.dtype,
            id_checksum,
            faults: faults.clone(),
        }
    }

    /// A sentence about what stands for the whole input and is not: rows left out, the rows of a sketch.
    pub fn warning(&self) -> Option<String> {
        if self.format == LANDMARKS {
            return Some(format!(
                "{} ({}) is a sketch: these are its {} landmarks, not the rows it was made of",
                self.role, self.source, self.rows
            ));
        }
        let faults = [
            ("null", &self.faults.null),
            ("non-finite", &self.faults.non_finite),
            ("zero", &self.faults.zero),
        ];
        let found: Vec<String> = faults
            .iter()
            .filter(|(_, fault)| fault.rows > 0)
            .map(|(name, fault)| {
                format!(
                    "{} {name} (first: {})",
                    fault.rows,
                    fault.first_ids[..fault.first_ids.len().min(3)].join(", ")
                )
            })
            .collect();
        (!found.is_empty()).then(|| {
            format!(
                "{} ({}): {} of {} rows left out of every measure: {}",
                self.role,
                self.source,
                self.faults.rows(),
                self.rows,
                found.join("; ")
            )
        })
    }
}

/// How long a step took.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Timing {
    /// The step.
    pub step: String,
    /// Wall-clock seconds.
    pub seconds: f64,
}

/// Times steps one after the other.
#[derive(Debug)]
pub struct Stopwatch {
    last: Instant,
    timings: Vec<Timing>,
}

impl Stopwatch {
    /// Starts the first step.
    pub fn start() -> Self {
        Self {
            last: Instant::now(),
            timings: Vec::new(),
        }
    }

    /// Ends the step that ran since the last lap.
    pub fn lap(&mut self, step: &str) {
        self.timings.push(Timing {
            step: step.to_owned(),
            seconds: self.last.elapsed().as_secs_f64(),
        });
        self.last = Instant::now();
    }

    /// The steps so far.
    pub fn timings(&self) -> Vec<Timing> {
        self.timings.clone()
    }
}
