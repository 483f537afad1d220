//! `pair_histogram`: the distribution of all pairwise cosines.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use super::fixed::FixedSum;
use super::fold::Feed;
use super::tiles::{Operation, Shape, TilePlan};
use super::{Backend, Engine, Metric, score};
use crate::embeddings::{F32Rows, RowStream, Rows};
use crate::error::Result;

/// Bins of every cosine histogram: uniform over [-1, 1], bin i = [-1 + i/2048, -1 + (i+1)/2048), with
/// 1 in the last one.
pub const COSINE_BINS: usize = 4096;

/// Distribution of pairwise cosines: counts, extremes, and the sums of c and c².
///
/// Partial results of disjoint tiles merge exactly. The sums are f32 within a sum tile of 64 × 64 pairs
/// (aligned in both sets) and fixed point beyond it.
#[derive(Debug, Clone, PartialEq)]
pub struct PairHistogram {
    /// Pairs per bin; [`COSINE_BINS`] bins.
    pub counts: Vec<u64>,
    /// Σ c.
    pub sum: FixedSum,
    /// Σ c².
    pub sum_squares: FixedSum,
    /// Smallest cosine; +∞ when there is no pair.
    pub min: f32,
    /// Largest cosine; −∞ when there is no pair.
    pub max: f32,
}

impl Default for PairHistogram {
    fn default() -> Self {
        Self {
            counts: vec![0; COSINE_BINS],
            sum: FixedSum::default(),
            sum_squares: FixedSum::default(),
            min: f32::INFINITY,
            max: f32::NEG_INFINITY,
        }
    }
}

impl PairHistogram {
    /// The bin of a cosine: ⌊(c + 1)·2048⌋, clamped.
    #[inline]
    pub fn bin(cosine: f32) -> usize {
        // Float-to-integer casts saturate, so anything below -1 is bin 0.
        (((cosine + 1.0) * (COSINE_BINS / 2) as f32) as usize).min(COSINE_BINS - 1)
    }

    /// Number of pairs.
    pub fn pairs(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Adds the result of other tiles.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum.merge(other.sum);
        self.sum_squares.merge(other.sum_squares);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

impl Engine {
    /// Cosines of all pairs: i < j within `x`, or every row of `x` with every row of `y`.
    ///
    /// Cosines are f32 products of rows scaled to unit length, see the accuracy contract of
    /// [`crate::engine`]; a value within that bound of a bin edge may count on either side.
    ///
    /// # Errors
    /// The device fails.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn pair_histogram(&self, x: Rows<'_>, y: Option<Rows<'_>>) -> Result<PairHistogram> {
        match y {
            Some(y) => self.pair_histogram_with(x, y),
            None => {
                let rows = |range| Ok(x.slice(range).to_f32());
                self.histogram(x, x.len(), Shape::Triangle, &rows)
            }
        }
    }

    /// Cosines of every row of `x` with every row of `y`, which may be a stream: it is read once, and of
    /// its values no more than the blocks at work are held. The result is that of
    /// [`Self::pair_histogram`] for the same rows.
    ///
    /// # Errors
    /// The device fails, or `y` cannot be read.
    ///
    /// # Panics
    /// If the dimensions differ.
    pub fn pair_histogram_with<'a>(
        &self,
        x: Rows<'_>,
        y: impl RowStream<'a>,
    ) -> Result<PairHistogram> {
        assert_eq!(x.dim(), y.dim());
        let most_rows = y.most_rows();
        let y = Mutex::new(y);
        // Blocks are asked for in order, each once: the stream stands where the range begins.
        let rows = |range: Range<usize>| {
            y.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next_rows(range.len())
        };
        self.histogram(x, most_rows, Shape::Rectangle, &rows)
    }

    /// Cosines of the pairs of `shape` of `x` with the rows that `y` gives for a range, at most `y_rows`.
    fn histogram<'a>(
        &self,
        x: Rows<'_>,
        y_rows: usize,
        shape: Shape,
        y: &(dyn Fn(Range<usize>) -> Result<Cow<'a, [f32]>> + Sync),
    ) -> Result<PairHistogram> {
        let dim = x.dim();
        let operation = Operation::PairHistogram;
        let step = self.block_rows(operation, dim);
        let plan = TilePlan {
            x_rows: x.len(),
            y_rows,
            x_step: step,
            y_step: step,
            shape,
        };
        // The host keeps how many rows came: at the end of a stream perhaps none.
        let unit = |values: Cow<'_, [f32]>| {
            let rows = F32Rows::new(&values, dim);
            let unit = self.threads.install(|| {
                let norms = score::norms(rows);
                score::prepare(Metric::Cosine, rows, &norms, 0)
            });
            Ok((unit, rows.len()))
        };
        let x_feed = Feed {
            dim,
            rows: &|range| unit(x.slice(range).to_f32()),
        };
        let y_feed = Feed {
            dim,
            rows: &|range| unit(y(range)?),
        };
        let mut histogram = PairHistogram::default();
        self.fold(
            operation,
            &plan,
            (x_feed, y_feed),
            |backend, x, y, tile| {
                if *y.host == 0 {
                    return Ok(PairHistogram::default());
                }
                backend.pair_histogram(&x.block, &y.block, tile.diagonal)
            },
            |_, part| histogram.merge(&part),
        )?;
        Ok(histogram)
    }
}
