//! A backend of either kind, so that a tile can be computed by whichever device is there.

use std::sync::Arc;

use super::cpu::CpuBackend;
use super::gpu::GpuBackend;
use super::score::TopK;
use super::tiles::Operation;
use super::{Backend, DeviceInfo, NearestRequest, PairHistogram, SumsRequest, TileSums};
use crate::error::Result;

pub(super) enum AnyBackend {
    Cpu(CpuBackend),
    Gpu(Box<GpuBackend>),
}

/// A block of the backend of the same kind.
pub(super) enum AnyBlock {
    Cpu(<CpuBackend as Backend>::Block),
    Gpu(<GpuBackend as Backend>::Block),
}

/// Runs `$body` with the backend and its blocks bound, whichever kind they are.
macro_rules! matched {
    ($self:expr, $backend:ident $(, $block:ident)* => $body:expr) => {
        match ($self, $($block),*) {
            (AnyBackend::Cpu($backend), $(AnyBlock::Cpu($block)),*) => $body,
            (AnyBackend::Gpu($backend), $(AnyBlock::Gpu($block)),*) => $body,
            _ => unreachable!("a block is used on the device that it was loaded to"),
        }
    };
}

impl Backend for AnyBackend {
    type Block = AnyBlock;

    fn device(&self) -> &DeviceInfo {
        match self {
            Self::Cpu(backend) => backend.device(),
            Self::Gpu(backend) => backend.device(),
        }
    }

    fn block_rows(&self, operation: Operation, dim: usize, memory: u64) -> usize {
        match self {
            Self::Cpu(backend) => backend.block_rows(operation, dim, memory),
            Self::Gpu(backend) => backend.block_rows(operation, dim, memory),
        }
    }

    fn load(&self, operation: Operation, values: &Arc<Vec<f32>>, dim: usize) -> Result<AnyBlock> {
        match self {
            Self::Cpu(backend) => backend.load(operation, values, dim).map(AnyBlock::Cpu),
            Self::Gpu(backend) => backend.load(operation, values, dim).map(AnyBlock::Gpu),
        }
    }

    fn pair_histogram(&self, x: &AnyBlock, y: &AnyBlock, diagonal: bool) -> Result<PairHistogram> {
        matched!(self, backend, x, y => backend.pair_histogram(x, y, diagonal))
    }

    fn pair_sums(&self, x: &AnyBlock, y: &AnyBlock, request: SumsRequest<'_>) -> Result<TileSums> {
        matched!(self, backend, x, y => backend.pair_sums(x, y, request))
    }

    fn nearest(
        &self,
        queries: &AnyBlock,
        base: &AnyBlock,
        request: NearestRequest<'_>,
    ) -> Result<Vec<TopK>> {
        matched!(self, backend, queries, base => backend.nearest(queries, base, request))
    }

    fn gram(&self, x: &AnyBlock, y: &AnyBlock) -> Result<Vec<f64>> {
        matched!(self, backend, x, y => backend.gram(x, y))
    }

    fn project(&self, x: &AnyBlock, w: &AnyBlock) -> Result<Vec<f32>> {
        matched!(self, backend, x, w => backend.project(x, w))
    }
}
