//! The command line: arguments in, plain configurations out.
//!
//! Only this module knows clap. Each command is a file of `cli/`: its arguments, and a `run` that turns
//! them into a library call and the answer into text or JSON. Data goes to stdout, all else to stderr.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::engine::{DeviceChoice, Engine, EngineConfig};
use crate::error::{Error, Result};
use crate::source::ReadOptions;

mod adapter_file;
mod align;
mod apply;
mod audit;
mod compare;
mod cosine;
mod devices;
mod evaluate;
mod gate;
mod inspect;
mod knn;
mod mmd;
mod overlap;
mod plan;
mod progress;
mod series;
mod session;
mod sketch;

use session::Session;

/// Measures the drift between two sets of embeddings, on the GPU or the CPU.
#[derive(Debug, Parser)]
#[command(
    name = "vecdrift",
    version,
    max_term_width = 80,
    after_help = "\
Examples:
  vecdrift audit old.parquet new.parquet --out drift/
  vecdrift inspect corpus.parquet
  vecdrift knn corpus.npy -k 10 --out neighbours.parquet

An input is a file, a folder of Parquet parts or a glob: Parquet, Arrow IPC,
.npy, .npz or .safetensors. PATH#NAME picks the vector column or tensor.

Exit codes: 0 done and every gate passed, 1 a gate failed, 2 wrong usage, input
or device, 3 a gate is undecided, 130 interrupted."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: GlobalArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    Audit(Box<audit::AuditArgs>),
    Inspect(inspect::InspectArgs),
    Cosine(cosine::CosineArgs),
    Knn(knn::KnnArgs),
    Overlap(overlap::OverlapArgs),
    Mmd(mmd::MmdArgs),
    Align(align::AlignArgs),
    Apply(apply::ApplyArgs),
    Evaluate(evaluate::EvaluateArgs),
    Compare(compare::CompareArgs),
    Series(series::SeriesArgs),
    Sketch(sketch::SketchArgs),
    Devices(devices::DevicesArgs),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A summary to read.
    Text,
    /// One JSON object.
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Options for every command")]
struct GlobalArgs {
    /// How to print the result on stdout
    #[arg(long, value_enum, default_value = "text", global = true)]
    format: Format,
    /// Where to write files: a folder, or for knn and apply a file
    #[arg(long, value_name = "PATH", global = true)]
    out: Option<PathBuf>,
    /// auto, cpu, gpu, all (every GPU at once), an index or part of a name from
    /// `vecdrift devices`
    #[arg(long, default_value = "auto", global = true)]
    device: String,
    /// How many threads compute on the CPU [default: one per core]
    #[arg(long, value_name = "N", global = true)]
    threads: Option<usize>,
    /// Working memory beyond the inputs held, e.g. 2GiB; the base of `knn BASE QUERIES`
    /// and the Y of `cosine X Y` are held if they fit into it, else streamed
    #[arg(long, value_name = "SIZE", default_value = "512MiB", value_parser = parse_size, global = true)]
    memory: u64,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0, global = true)]
    seed: u64,
    /// Show what would be done and how long it would take, then stop
    #[arg(long, global = true)]
    dry_run: bool,
    /// No progress, no plan
    #[arg(long, short, global = true)]
    quiet: bool,
}

/// How the columns of an input are found.
#[derive(Debug, Clone, Args)]
struct InputArgs {
    /// Id column [default: id, _id or doc_id, else the row number]
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,
}

impl InputArgs {
    fn read_options(&self, columns: &[String]) -> ReadOptions {
        let Self { id } = self.clone();
        ReadOptions {
            id,
            columns: columns.to_vec(),
        }
    }
}

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and every gate passed.
    Done,
    /// A gate failed.
    GateFailed,
    /// No gate failed, one could not be decided.
    GateUndecided,
}

impl Outcome {
    /// The process's exit code; 2 is for errors.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::GateFailed => 1,
            Self::GateUndecided => 3,
        }
    }
}

/// Parses the command line and runs the command.
///
/// Usage errors are printed by the parser, which exits with 2, as every error does.
///
/// # Errors
/// Whatever stopped the command; the message is for the user.
pub fn run() -> Result<Outcome> {
    let Cli { command, global } = Cli::parse();
    let session = Session::new(global)?;
    match command {
        Command::Audit(args) => return args.run(&session),
        Command::Cosine(args) => return args.run(&session),
        Command::Overlap(args) => return args.run(&session),
        Command::Mmd(args) => return args.run(&session),
        Command::Compare(args) => return args.run(&session),
        Command::Series(args) => return args.run(&session),
        Command::Inspect(args) => args.run(&session)?,
        Command::Knn(args) => args.run(&session)?,
        Command::Align(args) => args.run(&session)?,
        Command::Apply(args) => args.run(&session)?,
        Command::Evaluate(args) => args.run(&session)?,
        Command::Sketch(args) => args.run(&session)?,
        Command::Devices(args) => args.run(&session)?,
    }
    Ok(Outcome::Done)
}

/// Bytes from `1073741824`, `512MiB`, `2G` or `1.5 GB`.
fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "kb" => 1_000,
        "m" | "mib" => 1 << 20,
        "mb" => 1_000_000,
        "g" | "gib" => 1 << 30,
        "gb" => 1_000_000_000,
        "t" | "tib" => 1 << 40,
        "tb" => 1_000_000_000_000,
        other => {
            return Err(format!(
                "unknown unit \"{other}\", expected KiB, MiB, GiB or TiB"
            ));
        }
    };
    let bytes = number
        .parse::<f64>()
        .map_err(|_| format!("\"{number}\" is no number, expected e.g. 512MiB"))?
        * factor as f64;
    if bytes >= (16 << 20) as f64 {
        Ok(bytes as u64)
    } else {
        Err("expected at least 16MiB".to_owned())
    }
}

/// Refuses 0 where a number of rows is asked for.
fn positive(option: &str, rows: Option<usize>) -> Result<()> {
    match rows {
        Some(0) => Err(Error::input(option, "0 rows, expected at least 1")),
        _ => Ok(()),
    }
}

/// Whether a file can be written here: found out before an hour's work, not after.
fn check_file(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Err(Error::output(
            path.display(),
            "is a folder, expected a file to write",
        ));
    }
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => Err(Error::output(
            folder.display(),
            format!("no such folder, expected one for {}", path.display()),
        )),
        _ => Ok(()),
    }
}

/// Refuses a permutation test that cannot be run.
fn check_test(permutations: u32, bandwidth: Option<f64>) -> Result<()> {
    if !(19..=1_000_000).contains(&permutations) {
        return Err(Error::input(
            "--permutations",
            format!("{permutations}, expected 19 to 1,000,000"),
        ));
    }
    match bandwidth {
        Some(sigma) if !(sigma.is_finite() && sigma > 0.0) => Err(Error::input(
            "--bandwidth",
            format!("{sigma}, expected a positive number"),
        )),
        _ => Ok(()),
    }
}

fn parse_device(text: &str) -> DeviceChoice {
    match text.to_ascii_lowercase().as_str() {
        "auto" => DeviceChoice::Auto,
        "cpu" => DeviceChoice::Cpu,
        "gpu" => DeviceChoice::Gpu,
        "all" => DeviceChoice::All,
        other => match other.parse() {
            Ok(index) => DeviceChoice::Index(index),
            Err(_) => DeviceChoice::Name(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_parser_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("512MiB"), Ok(512 << 20));
        assert_eq!(parse_size("1.5 GB"), Ok(1_500_000_000));
        assert_eq!(parse_size("2g"), Ok(2 << 30));
        assert!(parse_size("12 parsecs").is_err());
        assert!(parse_size("1").is_err());
        assert!(parse_size("").is_err());
        assert!(parse_size("1.2.3MiB").is_err());
    }

    #[test]
    fn devices() {
        assert_eq!(parse_device("GPU"), DeviceChoice::Gpu);
        assert_eq!(parse_device("1"), DeviceChoice::Index(1));
        assert_eq!(parse_device("RTX"), DeviceChoice::Name("RTX".into()));
    }
}
