//! vecdrift measures the drift between two sets of embeddings, exactly, on the GPU or the CPU, and says
//! what to do about it.
//!
//! The command line is the main way in; this library is what it calls. Start at [`audit::audit`], which
//! reads two corpora, checks them, measures and judges; [`engine`] has the five operations that every
//! measure is made of, [`metrics`] the measures, [`stats`] the statistics.
//!
//! ```
//! use vecdrift::embeddings::Rows;
//! use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Metric, SelfExclusion};
//!
//! let engine = Engine::new(&EngineConfig { device: DeviceChoice::Cpu, ..EngineConfig::default() })?;
//! let values = [1.0, 0.0, 0.9, 0.1, 0.0, 1.0];
//! let rows = Rows::new(&values, 2);
//! let own = [0, 1, 2];
//! let itself = SelfExclusion { queries: &own, base: &own };
//! let nearest = engine.nearest(rows, rows, 1, Metric::Cosine, Some(itself))?;
//! let first: Vec<u32> = nearest.lists.iter().map(|list| list[0].1).collect();
//! assert_eq!(first, [1, 0, 1]);
//! # Ok::<(), vecdrift::Error>(())
//! ```

pub mod audit;
pub mod cli;
pub mod embeddings;
pub mod engine;
pub mod error;
pub mod evaluate;
pub mod metrics;
pub mod output;
pub mod report;
pub mod sketch_file;
pub mod source;
pub mod stats;

pub use error::{Error, Result};
