//! The gpu backend.

use super::score::TopK;
use super::tiles::Operation;
use super::{
    Backend, DeviceChoice, DeviceInfo, NearestRequest, PairHistogram, SumsRequest, TileSums,
};
use crate::embeddings::Rows;
use crate::error::Result;

/// Runs the operations on the gpu.
pub struct GpuBackend {}

impl GpuBackend {
    pub(super) fn new(_choice: &DeviceChoice, _threads: Option<usize>) -> Result<Self> {
        todo!()
    }
}

impl Backend for GpuBackend {
    type Block = Vec<f32>;
    fn device(&self) -> &DeviceInfo {
        todo!()
    }
    fn block_rows(&self, _operation: Operation, _dim: usize, _memory: u64) -> usize {
        todo!()
    }
    fn load(&self, _rows: Rows<'_>) -> Result<Self::Block> {
        todo!()
    }
    fn pair_histogram(
        &self,
        _x: &Self::Block,
        _y: &Self::Block,
        _diagonal: bool,
        _into: &mut PairHistogram,
    ) -> Result<()> {
        todo!()
    }
    fn pair_sums(
        &self,
        _x: &Self::Block,
        _y: &Self::Block,
        _request: SumsRequest<'_>,
    ) -> Result<TileSums> {
        todo!()
    }
    fn nearest(
        &self,
        _queries: &Self::Block,
        _base: &Self::Block,
        _request: NearestRequest<'_>,
        _into: &mut [TopK],
    ) -> Result<()> {
        todo!()
    }
    fn gram(&self, _x: &Self::Block, _y: &Self::Block) -> Result<Vec<f64>> {
        todo!()
    }
    fn project(&self, _x: &Self::Block, _w: &Self::Block) -> Result<Vec<f32>> {
        todo!()
    }
}

/// The first hardware adapter, if there is one.
pub fn hardware_adapter() -> Option<DeviceInfo> {
    None
}
/// placeholder
#[derive(Debug, Clone, serde::Serialize, schemars::JsonSchema)]
pub struct AdapterInfo {
    /// index
    pub index: usize,
    /// device
    pub device: DeviceInfo,
}
/// placeholder
pub fn adapters() -> Vec<AdapterInfo> {
    Vec::new()
}
