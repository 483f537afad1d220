//! Squared distances of a few rows, each with all others, in f64 on the host.

use rayon::prelude::*;

use super::kernel::{Isa, Job, Kernel};
use crate::error::Result;

/// Partial sums per distance: part of every result's bits.
const SUMS: usize = 8;

/// Rows that are compared with one row at once, which hides the latency of additions.
const AT_ONCE: usize = 4;

/// Rows per task: while they stay in the cache, all others pass once.
const TASK: usize = 16;

/// ‖xᵢ − xⱼ‖² of the pairs i < j, i by i: sums of squared differences in f64, exact to rounding also
/// where rows are close. On the current thread pool.
///
/// # Errors
/// The kernel that the environment names is unknown or not supported by this CPU.
pub fn pair_sq_distances(rows: &[&[f32]]) -> Result<Vec<f64>> {
    let kernel = Kernel::choose()?;
    let Some(dim) = rows.first().map(|row| row.len()) else {
        return Ok(Vec::new());
    };
    // Zeros at the end add nothing.
    let chunks = dim.div_ceil(SUMS);
    let mut values = vec![[0.0f64; SUMS]; rows.len() * chunks];
    values
        .par_chunks_exact_mut(chunks)
        .zip(rows)
        .for_each(|(to, row)| {
            for (to, &v) in to.as_flattened_mut().iter_mut().zip(*row) {
                *to = f64::from(v);
            }
        });
    let values = &values;
    let parts: Vec<Vec<f64>> = (0..rows.len())
        .into_par_iter()
        .step_by(TASK)
        .flat_map_iter(|first| {
            let from = &values[first * chunks..];
            kernel.run(ToLater { from, chunks })
        })
        .collect();
    Ok(parts.concat())
}

/// Squared distances of each of the first rows to all later ones.
struct ToLater<'a> {
    from: &'a [[f64; SUMS]],
    /// Per row.
    chunks: usize,
}

impl Job for ToLater<'_> {
    type Output = Vec<Vec<f64>>;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Vec<Vec<f64>> {
        let Self { from, chunks } = self;
        let rows = from.len() / chunks;
        let firsts = rows.min(TASK);
        let row = |i: usize| &from[i * chunks..(i + 1) * chunks];
        let mut found: Vec<Vec<f64>> = (0..firsts)
            .map(|i| Vec::with_capacity(rows - i - 1))
            .collect();
        for j in 1..firsts {
            for (i, found) in found[..j].iter_mut().enumerate() {
                found.push(to_one(row(i), row(j)));
            }
        }
        let later = &from[firsts * chunks..];
        let (fours, rest) = later.split_at(later.len() / (AT_ONCE * chunks) * AT_ONCE * chunks);
        for others in fours.chunks_exact(AT_ONCE * chunks) {
            for (i, found) in found.iter_mut().enumerate() {
                found.extend_from_slice(&to_four(row(i), others));
            }
        }
        for other in rest.chunks_exact(chunks) {
            for (i, found) in found.iter_mut().enumerate() {
                found.push(to_one(row(i), other));
            }
        }
        found
    }
}

/// Squared distances of a row to [`AT_ONCE`] others. (A variable per other row: an array of sums that
/// is indexed goes through memory.)
#[inline(always)]
fn to_four(row: &[[f64; SUMS]], others: &[[f64; SUMS]]) -> [f64; AT_ONCE] {
    let (a, others) = others.split_at(row.len());
    let (b, others) = others.split_at(row.len());
    let (c, d) = others.split_at(row.len());
    let [mut a_sums, mut b_sums, mut c_sums, mut d_sums] = [[0.0f64; SUMS]; AT_ONCE];
    for ((((row, a), b), c), d) in row.iter().zip(a).zip(b).zip(c).zip(d) {
        add_squares(&mut a_sums, row, a);
        add_squares(&mut b_sums, row, b);
        add_squares(&mut c_sums, row, c);
        add_squares(&mut d_sums, row, d);
    }
    [
        a_sums.iter().sum(),
        b_sums.iter().sum(),
        c_sums.iter().sum(),
        d_sums.iter().sum(),
    ]
}

#[inline(always)]
fn to_one(row: &[[f64; SUMS]], other: &[[f64; SUMS]]) -> f64 {
    let mut sums = [0.0f64; SUMS];
    for (row, other) in row.iter().zip(other) {
        add_squares(&mut sums, row, other);
    }
    sums.iter().sum()
}

#[inline(always)]
fn add_squares(sums: &mut [f64; SUMS], a: &[f64; SUMS], b: &[f64; SUMS]) {
    for l in 0..SUMS {
        let off = a[l] - b[l];
        sums[l] += off * off;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    /// Nothing is fused and the order is fixed, so every instruction set gives the bits of plain code.
    #[test]
    fn every_kernel_gives_the_same_bits() {
        for dim in [1, 7, 8, 9, 100] {
            for count in [0, 1, 2, 5, 14, 16, 17, 39] {
                let mut rng = Philox::new(4, (dim * count) as u64);
                let values: Vec<f32> = (0..dim * count).map(|_| rng.normal() as f32).collect();
                let rows: Vec<&[f32]> = values.chunks(dim).collect();
                let mut plain = Vec::new();
                for (i, a) in rows.iter().enumerate() {
                    for b in &rows[i + 1..] {
                        let mut sums = [0.0f64; SUMS];
                        for (k, (&a, &b)) in a.iter().zip(*b).enumerate() {
                            sums[k % SUMS] += (f64::from(a) - f64::from(b)).powi(2);
                        }
                        plain.push(sums.iter().sum::<f64>());
                    }
                }
                assert_eq!(pair_sq_distances(&rows).expect("a kernel"), plain);
            }
        }
    }
}
