//! placeholder
use super::Engine;
use crate::error::Result;
use schemars::JsonSchema;
use serde::Serialize;
/// One operation's check.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct OperationCheck {
    /// operation
    pub operation: String,
    /// max
    pub max_error: Option<f64>,
    /// bound
    pub bound: f64,
    /// passed
    pub passed: bool,
}
/// check
pub fn check(_: &Engine, _: u64) -> Result<Vec<OperationCheck>> {
    Ok(Vec::new())
}
