//! Canonical scores and top-k lists: what every ranking in the program is made of.

use super::Metric;
use crate::embeddings::Rows;

/// Number of independent partial sums of [`dot`].
const LANES: usize = 8;

/// x·y in f64, in one fixed order: eight strided partial sums, then their sum from first to last.
/// Products of f32 values are exact in f64, so the result is the same on every machine, with or
/// without fused multiply-add.
///
/// # Panics
/// If the lengths differ.
pub fn dot(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len());
    let mut sums = [0.0f64; LANES];
    let (x_chunks, x_rest) = x.as_chunks::<LANES>();
    let (y_chunks, y_rest) = y.as_chunks::<LANES>();
    for (a, b) in x_chunks.iter().zip(y_chunks) {
        for lane in 0..LANES {
            sums[lane] += f64::from(a[lane]) * f64::from(b[lane]);
        }
    }
    for (lane, (&a, &b)) in x_rest.iter().zip(y_rest).enumerate() {
        sums[lane] += f64::from(a) * f64::from(b);
    }
    sums.iter().sum()
}

/// ‖x‖ in f64, of [`dot`].
pub fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// Similarity of two rows with known norms (f64, canonical order). Cosine is clamped to [-1, 1].
pub fn similarity(metric: Metric, x: &[f32], x_norm: f64, y: &[f32], y_norm: f64) -> f64 {
    match metric {
        Metric::Dot => dot(x, y),
        Metric::Cosine => (dot(x, y) / (x_norm * y_norm)).clamp(-1.0, 1.0),
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

    /// Adds another list's entries.
    pub fn merge(&mut self, other: &Self) {
        for &(score, row) in &other.entries {
            self.offer(score, row);
        }
    }
}

/// Rows prepared for screening: unit rows for [`Metric::Cosine`], rows × 2^`exponent` for
/// [`Metric::Dot`]. Rounded once from f64.
pub fn prepare(metric: Metric, rows: Rows<'_>, exponent: i32) -> Vec<f32> {
    match metric {
        Metric::Dot => scale_rows(rows, exponent),
        Metric::Cosine => {
            let mut unit = Vec::with_capacity(rows.values().len());
            for row in rows.iter() {
                let norm = norm(row);
                unit.extend(row.iter().map(|&v| (f64::from(v) / norm) as f32));
            }
            unit
        }
    }
}

/// Every value × 2^`exponent`.
pub fn scale_rows(rows: Rows<'_>, exponent: i32) -> Vec<f32> {
    let factor = 2f64.powi(exponent);
    rows.values()
        .iter()
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
