//! Random frequencies whose cosines and sines stand for a kernel.

use statrs::distribution::{ChiSquared, ContinuousCDF};

use crate::stats::rng::Philox;

/// Stream of random numbers, apart from those of permutations and of k-means.
const STREAM: u64 = u64::MAX - 1;

/// `count` × d frequencies w of the RBF kernel exp(−‖x − y‖²/(2σ²)), so that the mean of cos w·(x − y) over them is
/// an unbiased estimate of it: groups of at most d orthogonal directions (Gram–Schmidt of normal draws), each as
/// long as a draw of d normals is, divided by σ.
///
/// Source: Rahimi & Recht 2007; Yu et al. 2016 (orthogonal ones vary less).
pub(super) fn orthogonal_frequencies(
    dim: usize,
    count: usize,
    bandwidth: f64,
    seed: u64,
) -> Vec<f32> {
    let mut random = Philox::new(seed, STREAM);
    let lengths = ChiSquared::new(dim as f64).expect("a positive dimension");
    let mut frequencies = Vec::with_capacity(count * dim);
    let mut group: Vec<Vec<f64>> = Vec::new();
    while frequencies.len() < count * dim {
        if group.len() == dim {
            group.clear();
        }
        let mut direction: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
        // Twice is enough.
        for _ in 0..2 {
            let shares: Vec<f64> = group.iter().map(|g| dot(g, &direction)).collect();
            for (other, share) in group.iter().zip(shares) {
                for (value, o) in direction.iter_mut().zip(other) {
                    *value -= share * o;
                }
            }
        }
        let length = dot(&direction, &direction).sqrt();
        // Lost to rounding: draw again.
        if length < 1e-9 {
            continue;
        }
        direction.iter_mut().for_each(|v| *v /= length);
        let length = lengths.inverse_cdf(random.uniform()).sqrt() / bandwidth;
        frequencies.extend(direction.iter().map(|v| (v * length) as f32));
        group.push(direction);
    }
    frequencies
}

/// Eight partial sums, which compile to vector code.
pub(super) fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (a, b) in x.iter().zip(y) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest = x_rest.iter().zip(y_rest).map(|(a, b)| a * b);
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_orthogonal_and_as_long_as_normal_ones() {
        let frequencies = orthogonal_frequencies(40, 256, 1.0, 0);
        let rows: Vec<Vec<f64>> = frequencies
            .chunks_exact(40)
            .map(|w| w.iter().map(|&v| f64::from(v)).collect())
            .collect();
        assert_eq!(rows.len(), 256);
        for a in 0..40 {
            for b in 0..a {
                // Rounded to f32, of length about 6.
                assert!(dot(&rows[a], &rows[b]).abs() < 1e-4);
            }
        }
        // The mean of 256 χ²₄₀ has sd √(80/256) = 0.56.
        let mean = rows.iter().map(|w| dot(w, w)).sum::<f64>() / rows.len() as f64;
        assert!((mean - 40.0).abs() < 5.0 * 0.56, "{mean}");
    }
}
