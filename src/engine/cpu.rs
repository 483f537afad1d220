//! The CPU backend.

use rayon::prelude::*;

use super::score::TopK;
use super::tiles::Operation;
use super::{Backend, DeviceInfo, NearestRequest, PADDING, PairHistogram, SumsRequest, TileSums};
use crate::embeddings::Rows;
use crate::error::Result;

/// Runs the operations on the CPU.
pub struct CpuBackend {
    info: DeviceInfo,
}

/// Rows as loaded.
pub struct CpuBlock {
    values: Vec<f32>,
    dim: usize,
}

impl CpuBlock {
    fn rows(&self) -> Rows<'_> {
        Rows::new(&self.values, self.dim)
    }
}

fn dot(x: &[f32], y: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    for (a, b) in x.chunks(16).zip(y.chunks(16)) {
        for (s, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *s += a * b;
        }
    }
    sums.iter().sum()
}

impl CpuBackend {
    pub(super) fn new(_threads: Option<usize>) -> Result<Self> {
        Ok(Self {
            info: DeviceInfo {
                name: "cpu".into(),
                backend: "cpu".into(),
                precision: "f32".into(),
                software: false,
            },
        })
    }
}

impl Backend for CpuBackend {
    type Block = CpuBlock;

    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn block_rows(&self, _operation: Operation, _dim: usize, _memory: u64) -> usize {
        1024
    }

    fn load(&self, rows: Rows<'_>) -> Result<CpuBlock> {
        Ok(CpuBlock {
            values: rows.values().to_vec(),
            dim: rows.dim(),
        })
    }

    fn pair_histogram(
        &self,
        x: &CpuBlock,
        y: &CpuBlock,
        diagonal: bool,
        into: &mut PairHistogram,
    ) -> Result<()> {
        for (i, a) in x.rows().iter().enumerate() {
            for (j, b) in y.rows().iter().enumerate() {
                if diagonal && j <= i {
                    continue;
                }
                let c = dot(a, b);
                into.counts[PairHistogram::bin(c)] += 1;
                into.sum.add(f64::from(c));
                into.sum_squares.add(f64::from(c) * f64::from(c));
                into.min = into.min.min(c);
                into.max = into.max.max(c);
            }
        }
        Ok(())
    }

    fn pair_sums(&self, x: &CpuBlock, y: &CpuBlock, request: SumsRequest<'_>) -> Result<TileSums> {
        let (xt, yt, k, side) = (
            request.x_tiles(),
            request.y_tiles(),
            request.kernels.len(),
            request.side,
        );
        let mut out = TileSums {
            sums: vec![0.0; xt * yt * k],
            ..TileSums::default()
        };
        if request.row_sums_of.is_some() {
            out.x_rows = vec![0.0; x.rows().len() * yt];
            out.y_rows = vec![0.0; y.rows().len() * xt];
        }
        for i in 0..x.rows().len() {
            for j in 0..y.rows().len() {
                let (a, b) = (request.x_groups[i], request.y_groups[j]);
                let (ti, tj) = (i / side, j / side);
                if a == PADDING || b == PADDING || a == b || (request.diagonal && tj < ti) {
                    continue;
                }
                let (p, q) = (x.rows().row(i), y.rows().row(j));
                let d2: f64 = p.iter().zip(q).map(|(a, b)| f64::from(a - b).powi(2)).sum();
                for m in 0..k {
                    let v = (request.kernels.value(m, d2) - f64::from(request.kernels.offsets[m]))
                        as f32;
                    out.sums[(ti * yt + tj) * k + m] += v;
                    if request.row_sums_of == Some(m) {
                        out.x_rows[i * yt + tj] += v;
                        if !(request.diagonal && ti == tj) {
                            out.y_rows[j * xt + ti] += v;
                        }
                    }
                }
            }
        }
        Ok(out)
    }

    fn nearest(
        &self,
        queries: &CpuBlock,
        base: &CpuBlock,
        request: NearestRequest<'_>,
        into: &mut [TopK],
    ) -> Result<()> {
        let excluded = request.excluded_counts();
        into.par_iter_mut().enumerate().try_for_each(|(i, list)| {
            let width = request.bin_width(list.k());
            let q = queries.rows().row(i);
            let scores: Vec<f32> = base.rows().iter().map(|b| dot(q, b)).collect();
            let maxima: Vec<f32> = scores
                .chunks(width)
                .map(|c| c.iter().copied().fold(f32::NEG_INFINITY, f32::max))
                .collect();
            request.select_and_score(i, excluded[i], width, &maxima, &mut Vec::new(), list)
        })
    }

    fn gram(&self, x: &CpuBlock, y: &CpuBlock) -> Result<Vec<f64>> {
        let mut out = vec![0.0; x.dim * y.dim];
        for (a, b) in x.rows().iter().zip(y.rows().iter()) {
            for (i, &u) in a.iter().enumerate() {
                for (o, &v) in out[i * y.dim..(i + 1) * y.dim].iter_mut().zip(b) {
                    *o += f64::from(u) * f64::from(v);
                }
            }
        }
        Ok(out)
    }

    fn project(&self, x: &CpuBlock, w: &CpuBlock) -> Result<Vec<f32>> {
        Ok(x.rows()
            .iter()
            .flat_map(|a| w.rows().iter().map(|b| dot(a, b)).collect::<Vec<_>>())
            .collect())
    }
}
