//! vecdrift
pub mod audit;
pub mod cli;
pub mod embeddings;
pub mod engine;
pub mod error;
pub mod metrics;
pub mod output;
pub mod report;
pub mod source;
pub mod stats;
pub use error::{Error, Result};
