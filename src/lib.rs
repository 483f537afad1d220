//! vecdrift
pub mod embeddings;
pub mod engine;
pub mod error;
pub use error::{Error, Result};
