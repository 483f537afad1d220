//! Canonical scores and top-k lists: what every ranking in the program is made of.

use rayon::prelude::*;

use super::Metric;
use crate::embeddings::{F32Rows, Rows};

/// Number of independent partial sums of [`dot`].
const LANES: usize = 8;

/// x·y in f64, in one fixed order: eight strided partial sums, then their sum from first to last.
/// Products of f32 values are exact in f64, so the result is the same on every machine, with or
/// without fused multiply-add.
///
/// # Panics
/// If the lengths differ.
#[inline(always)]
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    let mut sums = [0.0f64; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (a, b) in x_chunks.iter().zip(y_chunks) {
        add_products(&mut sums, a, b);
    }
    // A whole last chunk compiles to vector code; adding 0 · 0 changes no sum.
    let (mut a, mut b) = ([0.0; LANES], [0.0; LANES]);
    a[..x_rest.len()].copy_from_slice(x_rest);
    b[..y_rest.len()].copy_from_slice(y_rest);
    add_products(&mut sums, &a, &b);
    sums.iter().sum()
}

#[inline(always)]
fn add_products(sums: &mut [f64; LANES], a: &[f32; LANES], b: &[f32; LANES]) {
    for lane in 0..LANES {
        sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
    }
}

/// ‖x‖ in f64, of [`dot`].
pub fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// Similarity of two rows with known norms (f64, canonical order). Cosine is clamped to [-1, 1].
#[inline(always)]
pub fn similarity(metric: Metric, x: &[f32], x_norm: f64, y: &[f32], y_norm: f64) -> f64 {
    similarity_of(metric, dot(x, y), x_norm, y_norm)
}

/// As [`similarity`], from x·y.
#[inline(always)]
pub fn similarity_of(metric: Metric, product: f64, x_norm: f64, y_norm: f64) -> f64 {
    match metric {
        Metric::Dot => product,
        Metric::Cosine => (product / (x_norm * y_norm)).clamp(-1.0, 1.0),
    }
}

/// The k best (score, row) pairs seen so far, ordered by score descending, then row ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct TopK {
    k: usize,
    entries: Vec<(f64, u32)>,
}

impl TopK {
    /// An empty list of capacity `k`.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            entries: Vec::with_capacity(k + 1),
        }
    }

    /// Capacity.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Offers a row; each row may be offered once.
    pub fn offer(&mut self, score: f64, row: u32) {
        if self.k == 0 {
            return;
        }
        let worse = |&(s, r): &(f64, u32)| s > score || (s == score && r < row);
        if self.entries.len() == self.k {
            if worse(&self.entries[self.k - 1]) {
                return;
            }
            self.entries.pop();
        }
        let at = self.entries.partition_point(worse);
        self.entries.insert(at, (score, row));
    }

    /// The k-th best score, below which nothing can enter; −∞ while the list is not full.
    pub fn floor(&self) -> f64 {
        if self.entries.len() < self.k {
            f64::NEG_INFINITY
        } else {
            self.entries.last().map_or(f64::INFINITY, |e| e.0)
        }
    }

    /// The entries, best first.
    pub fn entries(&self) -> &[(f64, u32)] {
        &self.entries
    }

    /// The entries themselves, best first.
    pub fn into_entries(self) -> Vec<(f64, u32)> {
        self.entries
    }

    /// Adds another list's entries.
    pub fn merge(&mut self, other: &Self) {
        for &(score, row) in &other.entries {
            self.offer(score, row);
        }
    }
}

/// ‖x‖ of every row.
pub fn norms<'a>(rows: impl Into<Rows<'a>>) -> Vec<f64> {
    rows.into().par_map(norm)
}

/// Rows of known norms prepared for screening: unit rows for [`Metric::Cosine`], rows × 2^`exponent` for
/// [`Metric::Dot`]. Computed in f64, rounded to f32.
pub fn prepare(metric: Metric, rows: F32Rows<'_>, norms: &[f64], exponent: i32) -> Vec<f32> {
    match metric {
        Metric::Dot => scale_rows(rows, exponent),
        Metric::Cosine => {
            let mut unit = vec![0.0f32; rows.values().len()];
            unit.par_chunks_mut(rows.dim())
                .zip(rows.values().par_chunks(rows.dim()))
                .zip(norms)
                .for_each(|((unit, row), norm)| {
                    // d multiplications rather than divisions: 2⁻⁵³ off, 2⁻²⁴ after rounding.
                    let inverse = 1.0 / norm;
                    for (to, &v) in unit.iter_mut().zip(row) {
                        *to = (f64::from(v) * inverse) as f32;
                    }
                });
            unit
        }
    }
}

/// Every value × 2^`exponent`.
pub fn scale_rows(rows: F32Rows<'_>, exponent: i32) -> Vec<f32> {
    let factor = 2f64.powi(exponent);
    rows.values()
        .par_iter()
        .map(|&v| (f64::from(v) * factor) as f32)
        .collect()
}

/// The exponent e for which `largest`·2ᵉ lies in (½, 1]; 0 for 0.
pub fn unit_exponent(largest: f64) -> i32 {
    if largest > 0.0 {
        -(largest.log2().ceil() as i32)
    } else {
        0
    }
}

/// 2 to the power of [`unit_exponent`].
pub fn unit_scale(largest: f64) -> f64 {
    2f64.powi(unit_exponent(largest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    fn list(k: usize, offers: &[(f64, u32)]) -> TopK {
        let mut list = TopK::new(k);
        for &(score, row) in offers {
            list.offer(score, row);
        }
        list
    }

    #[test]
    fn dot_is_exact_where_sums_are() {
        for len in [0, 1, 7, 8, 9, 16, 383] {
            let x: Vec<f32> = (0..len).map(|i| (i % 13) as f32 - 6.0).collect();
            let y: Vec<f32> = (0..len).map(|i| (i % 7) as f32 * 0.5).collect();
            let exact: f64 = x
                .iter()
                .zip(&y)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            assert_eq!(dot(&x, &y), exact, "length {len}");
        }
    }

    /// The order is part of every result: eight strided sums, then first to last.
    #[test]
    fn dot_adds_in_its_documented_order() {
        let mut rng = Philox::new(1, 0);
        for len in [5, 8, 100, 385] {
            let mut draw = || -> Vec<f32> { (0..len).map(|_| rng.normal() as f32).collect() };
            let (x, y) = (draw(), draw());
            let strided = |lane: usize| {
                (lane..len)
                    .step_by(LANES)
                    .fold(0.0, |sum, i| sum + f64::from(x[i]) * f64::from(y[i]))
            };
            let expected = (0..LANES).map(strided).fold(0.0, |sum, part| sum + part);
            assert_eq!(dot(&x, &y).to_bits(), expected.to_bits(), "length {len}");
        }
    }

    #[test]
    fn top_k_orders_by_score_then_row() {
        let offers = [(0.5, 9), (0.7, 3), (0.5, 2), (0.9, 8), (0.7, 1), (-1.0, 0)];
        let best = [(0.9, 8), (0.7, 1), (0.7, 3), (0.5, 2), (0.5, 9), (-1.0, 0)];
        for k in 0..8 {
            assert_eq!(list(k, &offers).entries(), &best[..k.min(6)], "k = {k}");
            let mut reversed = offers;
            reversed.reverse();
            assert_eq!(list(k, &reversed), list(k, &offers));
            for cut in 0..offers.len() {
                let mut merged = list(k, &offers[..cut]);
                merged.merge(&list(k, &offers[cut..]));
                assert_eq!(merged, list(k, &offers), "k = {k}, cut at {cut}");
            }
        }
    }

    #[test]
    fn floor_is_what_a_row_must_reach() {
        assert_eq!(list(2, &[(0.5, 1)]).floor(), f64::NEG_INFINITY);
        assert_eq!(list(2, &[(0.5, 1), (0.7, 2)]).floor(), 0.5);
        assert_eq!(list(0, &[(0.5, 1)]).floor(), f64::INFINITY);
    }

    #[test]
    fn similarity_is_clamped_cosine_or_product() {
        let (x, y) = ([3.0f32, 4.0], [6.0f32, 8.0]);
        assert_eq!(similarity(Metric::Dot, &x, 5.0, &y, 10.0), 50.0);
        assert_eq!(similarity(Metric::Cosine, &x, 5.0, &y, 10.0), 1.0);
        // A rounded norm must not push a cosine beyond 1.
        assert_eq!(similarity(Metric::Cosine, &x, 4.999_999, &y, 10.0), 1.0);
        assert_eq!(similarity(Metric::Cosine, &x, 5.0, &[-8.0, 6.0], 10.0), 0.0);
    }

    #[test]
    fn prepared_rows_have_unit_length_at_any_scale() {
        for scale in [1e-42f32, 1e-30, 1.0, 1e30, 1e38] {
            let values: Vec<f32> = [0.6f32, -0.8, 1.0, 2.0].map(|v| v * scale).into();
            let rows = F32Rows::new(&values, 2);
            for row in F32Rows::new(&prepare(Metric::Cosine, rows, &norms(rows), 0), 2).iter() {
                assert!((norm(row) - 1.0).abs() < 1e-7, "{row:?}");
            }
            let exponent = unit_exponent(rows.iter().map(norm).fold(0.0, f64::max));
            let scaled = prepare(Metric::Dot, rows, &norms(rows), exponent);
            let longest = F32Rows::new(&scaled, 2)
                .iter()
                .map(norm)
                .fold(0.0, f64::max);
            assert!(longest > 0.5 && longest <= 1.0, "{longest}");
        }
    }

    #[test]
    fn unit_exponents_bring_below_one() {
        for (largest, exponent) in [
            (1.0, 0),
            (1.5, -1),
            (2.0, -1),
            (0.5, 1),
            (0.51, 0),
            (0.0, 0),
        ] {
            assert_eq!(unit_exponent(largest), exponent, "{largest}");
            assert_eq!(unit_scale(largest), 2f64.powi(exponent));
        }
    }
}
