//! Random Fourier features: a row as cosines and sines whose mean stands for the distribution.

use rayon::prelude::*;

use crate::embeddings::Rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::fourier::orthogonal_frequencies;

/// Kernels, with bandwidths 2σ, σ and σ/2: each has the doubled angles of the one before.
pub(super) const KERNELS: usize = 3;

/// Features are added up in multiples of this part of 1. A sum of 2³⁸ rows still fits.
const ONE: f32 = (1 << 24) as f32;

/// Rows that are projected at a time.
const CHUNK: usize = 8_192;

/// Frequencies that one task takes: two vectors of 8.
const STRIP: usize = 16;

/// Directions w of the features cos 2πw·(x − c) and sin 2πw·(x − c) at bandwidth 2σ, p × d.
pub(super) fn frequencies(dim: usize, count: usize, bandwidth: f64, seed: u64) -> Vec<f32> {
    orthogonal_frequencies(dim, count, std::f64::consts::TAU * 2.0 * bandwidth, seed)
}

/// What [`Features::block_sums`] adds up.
pub(super) struct Features<'a> {
    /// p × d, as of [`frequencies`]. p is a multiple of 16.
    pub(super) frequencies: &'a [f32],
    /// c, subtracted from every row first: kernels do not change, rounding shrinks.
    pub(super) centre: &'a [f32],
    /// Number of blocks.
    pub(super) blocks: usize,
}

impl Features<'_> {
    /// Per block, kernel and feature the sum over the block's rows, in units of 2⁻²⁴: exact additions, so
    /// that neither order nor threads change a bit. `block_of` names the block of each row.
    pub(super) fn block_sums(
        &self,
        engine: &Engine,
        rows: Rows<'_>,
        block_of: &[u32],
    ) -> Result<Vec<i64>> {
        let dim = rows.dim();
        let count = self.frequencies.len() / dim;
        assert_eq!((count % STRIP, rows.len()), (0, block_of.len()));
        let directions = Rows::new(self.frequencies, dim);
        // Strip by strip, so that no two tasks write the same sum.
        let strip_len = self.blocks * 2 * KERNELS * STRIP;
        let mut strips = vec![0i64; count / STRIP * strip_len];
        for (start, values) in rows.chunks(CHUNK) {
            let mut values = values.into_owned();
            values.par_chunks_mut(dim).for_each(|row| {
                for (v, c) in row.iter_mut().zip(self.centre) {
                    *v -= c;
                }
            });
            let turns = engine.project(Rows::new(&values, dim), directions)?;
            let blocks = &block_of[start..start + values.len() / dim];
            strips
                .par_chunks_mut(strip_len)
                .enumerate()
                .for_each(|(strip, sums)| add(&turns[strip * STRIP..], count, blocks, sums));
        }
        let mut sums = vec![0; strips.len()];
        for (strip, values) in strips.chunks(strip_len).enumerate() {
            for (row, values) in values.chunks(STRIP).enumerate() {
                // `row` counts (block, kernel, cosine or sine).
                let at = row * count + strip * STRIP;
                sums[at..at + STRIP].copy_from_slice(values);
            }
        }
        Ok(sums)
    }
}

/// Adds the features of one strip of angles, given in turns, rows `stride` apart.
fn add(turns: &[f32], stride: usize, blocks: &[u32], sums: &mut [i64]) {
    const ROW: usize = 2 * KERNELS * STRIP;
    for (row, &block) in blocks.iter().enumerate() {
        let Some(turns) = turns[row * stride..].first_chunk::<STRIP>() else {
            return;
        };
        let (mut cos, mut sin) = ([0.0; STRIP], [0.0; STRIP]);
        for i in 0..STRIP {
            (cos[i], sin[i]) = cos_sin(turns[i]);
        }
        let sums = &mut sums[block as usize * ROW..][..ROW];
        let (sums, _) = sums.as_chunks_mut::<STRIP>();
        let (pairs, _) = sums.as_chunks_mut::<2>();
        for [cosines, sines] in pairs {
            for i in 0..STRIP {
                cosines[i] += i64::from((cos[i] * ONE) as i32);
                sines[i] += i64::from((sin[i] * ONE) as i32);
                (cos[i], sin[i]) = (1.0 - 2.0 * sin[i] * sin[i], 2.0 * sin[i] * cos[i]);
            }
        }
    }
}

/// cos 2πt and sin 2πt to within 10⁻⁶ (each doubling of the angle after it at most doubles that) for |t| < 2²²; no library's, so that bits agree everywhere.
///
/// Series of sin πr and cos πr for the rest |r| ≤ 1/2 of t, then once the doubled angle.
fn cos_sin(turns: f32) -> (f32, f32) {
    const PI: f32 = std::f32::consts::PI;
    // Adding and taking away 1.5·2²³ rounds to whole turns.
    const WHOLE: f32 = 12_582_912.0;
    let x = (turns - ((turns + WHOLE) - WHOLE)) * PI;
    let s = x * x;
    let sin = x
        * (1.0
            + s * (-1.0 / 6.0
                + s * (1.0 / 120.0
                    + s * (-1.0 / 5_040.0 + s * (1.0 / 362_880.0 - s / 39_916_800.0)))));
    let cos = 1.0
        + s * (-0.5
            + s * (1.0 / 24.0
                + s * (-1.0 / 720.0
                    + s * (1.0 / 40_320.0 + s * (-1.0 / 3_628_800.0 + s / 479_001_600.0)))));
    (1.0 - 2.0 * sin * sin, 2.0 * sin * cos)
}

/// Sums as they would be of features between −1 and 1.
pub(super) fn value(sum: i64) -> f64 {
    sum as f64 / f64::from(ONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosines_and_sines_stay_within_their_error() {
        let mut worst = 0f64;
        for i in -200_000..200_000 {
            let turns = i as f32 * 0.000_013_7;
            let (cos, sin) = cos_sin(turns);
            let (s, c) = (f64::from(turns) * std::f64::consts::TAU).sin_cos();
            worst = worst
                .max((f64::from(cos) - c).abs())
                .max((f64::from(sin) - s).abs());
        }
        assert!(worst < 1e-6, "{worst}");
    }
}
