//! Rows in memory, in single or in half precision, and rows that pass as a stream.

use std::borrow::Cow;
use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::Dtype;
use crate::error::Result;

/// Half-precision rows that are converted at once where all are read.
const CONVERTED_ROWS: usize = 64;

/// A borrowed row-major matrix of single-precision values, n × d: what is computed with.
#[derive(Debug, Clone, Copy)]
pub struct F32Rows<'a> {
    values: &'a [f32],
    dim: usize,
}

impl<'a> F32Rows<'a> {
    /// Views `values` as rows of `dim` values each.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the number of values.
    pub fn new(values: &'a [f32], dim: usize) -> Self {
        check_shape(values.len(), dim);
        Self { values, dim }
    }

    /// Number of rows, n.
    pub fn len(&self) -> usize {
        self.values.len() / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Values per row, d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// All values, row after row.
    pub fn values(&self) -> &'a [f32] {
        self.values
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &'a [f32] {
        &self.values[i * self.dim..(i + 1) * self.dim]
    }

    /// The rows of `range`.
    pub fn slice(&self, range: Range<usize>) -> Self {
        Self::new(
            &self.values[range.start * self.dim..range.end * self.dim],
            self.dim,
        )
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [f32]> + use<'a> {
        self.values.chunks_exact(self.dim)
    }
}

fn check_shape(values: usize, dim: usize) {
    assert!(
        dim > 0 && values.is_multiple_of(dim),
        "{values} values are no whole number of rows of dimension {dim}"
    );
}

/// Borrowed rows as they are held, n × d: of single-precision values, or of half-precision ones, which
/// take half the memory and are converted (exactly) where they are read.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    held: Held<'a>,
    dim: usize,
}

#[derive(Debug, Clone, Copy)]
enum Held<'a> {
    Single(&'a [f32]),
    Half(&'a [f16]),
}

impl<'a> From<F32Rows<'a>> for Rows<'a> {
    fn from(rows: F32Rows<'a>) -> Self {
        Self::new(rows.values, rows.dim)
    }
}

impl<'a> Rows<'a> {
    /// Views `values` as rows of `dim` values each.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the number of values.
    pub fn new(values: &'a [f32], dim: usize) -> Self {
        check_shape(values.len(), dim);
        Self {
            held: Held::Single(values),
            dim,
        }
    }

    /// Views half-precision `values` as rows of `dim` values each.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the number of values.
    pub fn half(values: &'a [f16], dim: usize) -> Self {
        check_shape(values.len(), dim);
        Self {
            held: Held::Half(values),
            dim,
        }
    }

    /// Number of rows, n.
    pub fn len(&self) -> usize {
        let values = match self.held {
            Held::Single(values) => values.len(),
            Held::Half(values) => values.len(),
        };
        values / self.dim
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Values per row, d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Whether these are the very same rows in memory.
    pub fn is_same(&self, other: &Self) -> bool {
        self.dim == other.dim
            && match (self.held, other.held) {
                (Held::Single(a), Held::Single(b)) => std::ptr::eq(a, b),
                (Held::Half(a), Held::Half(b)) => std::ptr::eq(a, b),
                _ => false,
            }
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> Cow<'a, [f32]> {
        self.slice(i..i + 1).to_f32()
    }

    /// Row `i`, in `buffer` if it must be converted. Where many rows are read one by one this saves an
    /// allocation each.
    #[inline]
    pub fn row_in<'b>(&self, i: usize, buffer: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let range = i * self.dim..(i + 1) * self.dim;
        match self.held {
            Held::Single(values) => &values[range],
            Held::Half(values) => {
                buffer.resize(self.dim, 0.0);
                values[range].convert_to_f32_slice(buffer);
                buffer
            }
        }
    }

    /// The rows of `range`.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        let values = range.start * self.dim..range.end * self.dim;
        let held = match self.held {
            Held::Single(all) => Held::Single(&all[values]),
            Held::Half(all) => Held::Half(&all[values]),
        };
        Self { held, ..*self }
    }

    /// All values in single precision, row after row; borrowed where they are held so. Of large sets, take
    /// a [`slice`](Self::slice) at a time.
    pub fn to_f32(&self) -> Cow<'a, [f32]> {
        match self.held {
            Held::Single(values) => Cow::Borrowed(values),
            Held::Half(values) => Cow::Owned(values.to_f32_vec()),
        }
    }

    /// The rows `order`, in that order, in single precision.
    pub fn gather(&self, order: impl IntoIterator<Item = usize>) -> Vec<f32> {
        let order = order.into_iter();
        let mut gathered = Vec::with_capacity(order.size_hint().0 * self.dim);
        let mut buffer = Vec::new();
        for i in order {
            gathered.extend_from_slice(self.row_in(i, &mut buffer));
        }
        gathered
    }

    /// The rows in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Cow<'a, [f32]>> + use<'a> {
        let rows = *self;
        (0..self.len()).map(move |i| rows.row(i))
    }

    /// The rows in order, in single precision, some at a time, with the number of the first.
    pub fn chunks(
        &self,
        rows: usize,
    ) -> impl ExactSizeIterator<Item = (usize, Cow<'a, [f32]>)> + use<'a> {
        let all = *self;
        (0..self.len().div_ceil(rows)).map(move |chunk| {
            let first = chunk * rows;
            (
                first,
                all.slice(first..(first + rows).min(all.len())).to_f32(),
            )
        })
    }

    /// What `f` makes of each row, in order; rows are read in parallel.
    pub fn par_map<T: Send>(&self, f: impl Fn(&[f32]) -> T + Send + Sync) -> Vec<T> {
        match self.held {
            Held::Single(values) => values.par_chunks_exact(self.dim).map(&f).collect(),
            Held::Half(values) => values
                .par_chunks(CONVERTED_ROWS * self.dim)
                .flat_map_iter(|some| {
                    let some = some.to_f32_vec();
                    let mapped: Vec<T> = some.chunks_exact(self.dim).map(&f).collect();
                    mapped
                })
                .collect(),
        }
    }
}

/// Values as they are held: those that came in half precision stay in it, at half the memory.
#[derive(Debug, Clone)]
pub enum Values {
    /// Single precision.
    Single(Vec<f32>),
    /// Half precision.
    Half(Vec<f16>),
}

impl Values {
    /// No values yet, of vectors stored as `dtype`.
    pub fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F16 => Self::Half(Vec::new()),
            Dtype::F32 | Dtype::F64 => Self::Single(Vec::new()),
        }
    }

    /// As rows of `dim` values each.
    ///
    /// # Panics
    /// If `dim` is 0 or does not divide the number of values.
    pub fn rows(&self, dim: usize) -> Rows<'_> {
        match self {
            Self::Single(values) => Rows::new(values, dim),
            Self::Half(values) => Rows::half(values, dim),
        }
    }

    /// The rows `order` of others, in that order, held as those are.
    pub fn gather(rows: Rows<'_>, order: &[u32]) -> Self {
        fn gather<T: Copy>(values: &[T], dim: usize, order: &[u32]) -> Vec<T> {
            let mut gathered = Vec::with_capacity(order.len() * dim);
            for &row in order {
                let row = row as usize * dim;
                gathered.extend_from_slice(&values[row..row + dim]);
            }
            gathered
        }
        match rows.held {
            Held::Single(values) => Self::Single(gather(values, rows.dim, order)),
            Held::Half(values) => Self::Half(gather(values, rows.dim, order)),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Single(values) => values.len(),
            Self::Half(values) => values.len(),
        }
    }

    /// Makes room for `values` more; whether there was any.
    pub(super) fn try_reserve(&mut self, values: usize) -> bool {
        match self {
            Self::Single(held) => held.try_reserve_exact(values).is_ok(),
            Self::Half(held) => held.try_reserve_exact(values).is_ok(),
        }
    }

    /// Takes out the first `count` values.
    pub(super) fn take_front(&mut self, count: usize) -> Vec<f32> {
        match self {
            Self::Single(values) => {
                let mut rest = values.split_off(count);
                // As many will come before any are taken again.
                rest.reserve(count);
                std::mem::replace(values, rest)
            }
            Self::Half(values) => {
                let taken = values[..count].to_f32_vec();
                values.drain(..count);
                taken
            }
        }
    }

    /// Takes a row. Values that came in half precision lose nothing.
    pub(super) fn push(&mut self, row: &[f32]) {
        match self {
            Self::Single(values) => values.extend_from_slice(row),
            Self::Half(values) => {
                let held = values.len();
                values.resize(held + row.len(), f16::ZERO);
                values[held..].convert_from_f32_slice(row);
            }
        }
    }
}

/// Sound rows that come in order, once: what an operation needs of a set that may be too large to hold.
///
/// A row's number is its place among the rows of the stream. `'a` is how long borrowed rows live.
pub trait RowStream<'a>: Send {
    /// Values per row, d.
    fn dim(&self) -> usize;

    /// How many rows are left at most. Fewer may come, because faulty rows are found only as they are
    /// read.
    fn most_rows(&self) -> usize;

    /// The values of the next `rows` rows; of fewer only where the stream ends.
    ///
    /// # Errors
    /// The rows cannot be read.
    fn next_rows(&mut self, rows: usize) -> Result<Cow<'a, [f32]>>;
}

/// Rows in memory, taken from the front; without a copy where they are held in single precision.
impl<'a> RowStream<'a> for Rows<'a> {
    fn dim(&self) -> usize {
        self.dim
    }

    fn most_rows(&self) -> usize {
        self.len()
    }

    fn next_rows(&mut self, rows: usize) -> Result<Cow<'a, [f32]>> {
        let rows = rows.min(self.len());
        let next = self.slice(0..rows);
        *self = self.slice(rows..self.len());
        Ok(next.to_f32())
    }
}

impl<'a, S: RowStream<'a>> RowStream<'a> for &mut S {
    fn dim(&self) -> usize {
        (**self).dim()
    }

    fn most_rows(&self) -> usize {
        (**self).most_rows()
    }

    fn next_rows(&mut self, rows: usize) -> Result<Cow<'a, [f32]>> {
        (**self).next_rows(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every view of half-precision rows is that of the same rows in single precision.
    #[test]
    fn half_rows_read_as_single_ones() {
        const DIM: usize = 5;
        let single: Vec<f32> = (0..DIM * 150).map(|i| (i as f32 - 300.0) / 64.0).collect();
        let mut held = Values::of(Dtype::F16);
        single.chunks(DIM).for_each(|row| held.push(row));
        assert!(matches!(held, Values::Half(_)), "half precision is kept");
        let (half, full) = (held.rows(DIM), Rows::new(&single, DIM));
        assert_eq!(half.len(), full.len());
        assert_eq!(half.to_f32(), full.to_f32());
        assert!(half.iter().eq(full.iter()));
        assert!(half.chunks(64).eq(full.chunks(64)));
        assert_eq!(half.chunks(64).len(), 3);
        let sum = |row: &[f32]| row.iter().sum::<f32>();
        assert_eq!(half.par_map(sum), full.par_map(sum));
        let order = [149u32, 0, 7, 7];
        let numbers = || order.iter().map(|&i| i as usize);
        assert_eq!(half.gather(numbers()), full.gather(numbers()));
        let gathered = Values::gather(half, &order);
        assert!(matches!(gathered, Values::Half(_)), "and stays so");
        assert_eq!(gathered.rows(DIM).to_f32(), full.gather(numbers()));
        let mut buffer = Vec::new();
        assert_eq!(half.row_in(3, &mut buffer), &*full.row(3));
        let (mut a, mut b) = (half, full);
        for rows in [40, 100, 40, 40] {
            let taken = a.next_rows(rows).expect("rows in memory");
            assert_eq!(taken, b.next_rows(rows).expect("rows in memory"));
        }
        assert_eq!(a.most_rows(), 0);
        assert!(half.is_same(&half.slice(0..150)));
        assert!(!half.is_same(&full) && !half.is_same(&half.slice(1..150)));
    }
}
