//! Random features of the RBF kernel, summed over blocks of rows.

use rayon::prelude::*;

use super::super::Sample;
use super::super::blocks::{Grouped, units};
use super::Layout;
use crate::embeddings::Rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::fourier::{dot, orthogonal_frequencies};

/// Frequencies; each gives a cosine and a sine. The relative standard deviation of an MMD² is then about
/// 2 % for large shifts, 8 % for small ones.
pub(super) const FREQUENCIES: usize = 256;
/// Features per row.
pub(super) const FEATURES: usize = 2 * FREQUENCIES;
/// Features that one task sums up.
const STRIPE: usize = 64;
/// Rows whose features are held at once, about.
const CHUNK: usize = 4096;

/// Sums of features (without their factor 1/√D) over every block of every partition.
pub(super) struct FeatureSums {
    /// Per stripe of features: block after block.
    stripes: Vec<Vec<f64>>,
    /// Rows per block.
    pub(super) rows: Vec<u64>,
    /// Per block Σ over its groups of ‖Σ features of the group‖².
    pub(super) own: Vec<f64>,
    /// Pairs of rows of one group, with themselves too.
    pub(super) own_pairs: Vec<u64>,
    /// Per X block of a pair: Σ over groups of the inner product of both parts.
    pub(super) across: Vec<f64>,
    pub(super) across_pairs: Vec<u64>,
}

/// One stripe's sums.
struct StripeSums {
    features: Vec<f64>,
    own: Vec<f64>,
    across: Vec<f64>,
}

impl FeatureSums {
    pub(super) fn new(
        engine: &Engine,
        x: &Grouped<'_>,
        y: &Grouped<'_>,
        samples: [Sample<'_>; 2],
        layouts: &[Layout],
        bandwidth: f64,
        seed: u64,
    ) -> Result<Self> {
        let blocks: usize = layouts.iter().map(|layout| layout.block_count).sum();
        let dim = samples[0].rows.dim();
        let x_rows = samples[0].rows.len() as u32;
        let frequencies = orthogonal_frequencies(dim, FREQUENCIES, bandwidth, seed);
        let frequencies = Rows::new(&frequencies, dim);
        let mut sums = Self {
            stripes: Vec::new(),
            rows: vec![0; blocks],
            own: vec![0.0; blocks],
            own_pairs: vec![0; blocks],
            across: vec![0.0; blocks],
            across_pairs: vec![0; blocks],
        };
        let mut stripes: Vec<StripeSums> = (0..FEATURES / STRIPE)
            .map(|_| StripeSums {
                features: vec![0.0; blocks * STRIPE],
                own: vec![0.0; blocks],
                across: vec![0.0; blocks],
            })
            .collect();
        let units = units(x, y);
        let mut next = units.as_slice();
        while !next.is_empty() {
            // Whole groups, so that their features are all at hand.
            let mut rows = 0;
            let in_chunk = next
                .iter()
                .take_while(|unit| {
                    let begins = rows < CHUNK;
                    rows += unit[0].len() + unit[1].len();
                    begins
                })
                .count();
            let (chunk, rest) = next.split_at(in_chunk);
            next = rest;
            let members: Vec<Vec<u32>> = chunk
                .iter()
                .map(|[a, b]| {
                    a.iter()
                        .copied()
                        .chain(b.iter().map(|row| x_rows + row))
                        .collect()
                })
                .collect();
            let mut values: Vec<f32> = Vec::new();
            for rows_of in chunk {
                for (sample, rows) in samples.iter().zip(rows_of) {
                    values.extend(sample.rows.gather(rows.iter().map(|&row| row as usize)));
                }
            }
            let phases = engine.project(Rows::new(&values, dim), frequencies)?;
            let mut features = vec![0.0f32; 2 * phases.len()];
            features
                .par_chunks_exact_mut(FEATURES)
                .zip(phases.par_chunks_exact(FREQUENCIES))
                .for_each(|(features, phases)| {
                    let (cosines, sines) = features.split_at_mut(FREQUENCIES);
                    for ((c, s), phase) in cosines.iter_mut().zip(sines).zip(phases) {
                        (*s, *c) = phase.sin_cos();
                    }
                });
            let runs = runs(&members, layouts);
            sums.count(&runs);
            stripes
                .par_iter_mut()
                .enumerate()
                .for_each(|(stripe, sums)| {
                    sums.add(&runs, &features, stripe * STRIPE);
                });
        }
        for stripe in stripes {
            sums.own
                .iter_mut()
                .zip(&stripe.own)
                .for_each(|(s, v)| *s += v);
            sums.across
                .iter_mut()
                .zip(&stripe.across)
                .for_each(|(s, v)| *s += v);
            sums.stripes.push(stripe.features);
        }
        Ok(sums)
    }

    fn count(&mut self, runs: &[Run]) {
        for run in runs {
            let (block, rows) = (run.block as usize, run.rows.len() as u64);
            self.rows[block] += rows;
            self.own_pairs[block] += rows * rows;
            if rows == 1 {
                // Squares of a cosine and its sine add up to 1.
                self.own[block] += FREQUENCIES as f64;
            }
            if let Some(before) = run.partner {
                self.across_pairs[block - 1] += rows * runs[before].rows.len() as u64;
            }
        }
    }

    /// Σ features over a block.
    pub(super) fn features(&self, block: usize) -> Vec<f64> {
        let part = |stripe: &Vec<f64>| stripe[block * STRIPE..(block + 1) * STRIPE].to_vec();
        self.stripes.iter().flat_map(part).collect()
    }
}

/// Rows of one group in one block.
struct Run {
    block: u32,
    /// Places in the chunk.
    rows: Vec<u32>,
    /// The run of the same group in the block before, where that is the other part of a pair.
    partner: Option<usize>,
}

/// The runs of a chunk's groups under every partition; blocks of later partitions are numbered after those
/// of earlier ones.
fn runs(members: &[Vec<u32>], layouts: &[Layout]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut first_block = 0;
    for layout in layouts {
        let mut first_row = 0;
        for rows in members {
            let mut placed: Vec<(u32, u32)> = rows
                .iter()
                .zip(first_row..)
                .map(|(&row, at)| (first_block + layout.block_of[row as usize], at))
                .collect();
            first_row += rows.len() as u32;
            // Rows of a group are ordered by id, so that this order belongs to the rows alone.
            placed.sort_by_key(|&(block, _)| block);
            let first_run = runs.len();
            for run in placed.chunk_by(|a, b| a.0 == b.0) {
                let block = run[0].0;
                // A group stands in two neighbouring blocks only if these are a pair of one slice: X's
                // block and Y's of the groups that both have.
                let before = runs.len().checked_sub(1).filter(|&at| at >= first_run);
                let partner = before.filter(|&at| runs[at].block + 1 == block);
                runs.push(Run {
                    block,
                    rows: run.iter().map(|&(_, at)| at).collect(),
                    partner: partner.filter(|_| layout.is_pair(block - first_block)),
                });
            }
        }
        first_block += layout.block_count as u32;
    }
    runs
}

impl StripeSums {
    /// Adds a chunk's features from `first` on.
    fn add(&mut self, runs: &[Run], features: &[f32], first: usize) {
        let sum_of = |run: &Run| -> [f64; STRIPE] {
            let mut sum = [0.0; STRIPE];
            for &row in &run.rows {
                let from = row as usize * FEATURES + first;
                for (s, &f) in sum.iter_mut().zip(&features[from..from + STRIPE]) {
                    *s += f64::from(f);
                }
            }
            sum
        };
        let mut last = [0.0; STRIPE];
        for run in runs {
            let sum = sum_of(run);
            let block = run.block as usize;
            let to = &mut self.features[block * STRIPE..(block + 1) * STRIPE];
            to.iter_mut().zip(&sum).for_each(|(t, s)| *t += s);
            if run.rows.len() > 1 {
                self.own[block] += dot(&sum, &sum);
            }
            if run.partner.is_some() {
                // Partners follow each other.
                self.across[block - 1] += dot(&sum, &last);
            }
            last = sum;
        }
    }
}
