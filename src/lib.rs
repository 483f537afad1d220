//! vecdrift
pub mod embeddings;
pub mod engine;
pub mod error;
pub mod metrics;
pub mod report;
pub mod source;
pub mod stats;
pub use error::{Error, Result};
