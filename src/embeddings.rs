//! Embeddings in memory: n × d values with ids, checked once, clean ever after.
//!
//! A reader hands out [`RowBlock`]s; [`Collector`] checks each row as it passes (null, non-finite,
//! zero) and keeps the sound ones. Every row of an [`Embeddings`] is finite and has a positive norm,
//! so nothing downstream checks again.
//!
//! Sets too large to be held pass as a [`RowStream`]: the same rows under the same numbers, once, in
//! order. What stays of them is a [`Roster`].

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use crate::error::{Error, Result};

mod rows;

pub use rows::{F32Rows, RowStream, Rows, Values};

/// How many offending ids a fault names.
const FAULT_IDS: usize = 10;

/// Element type of the vectors as stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision, rounded to single precision when read.
    F64,
}

impl Dtype {
    /// Bytes of one value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// Bytes of one value in memory: doubles are rounded.
    pub fn held_bytes(self) -> usize {
        self.bytes().min(size_of::<f32>())
    }

    /// `f16`, `f32` or `f64`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }
}

/// Ids of rows as text, in row order. Integer ids are their decimal text, so that `7` in one file
/// meets `"7"` in another; that they were integers is remembered for what is written.
#[derive(Debug, Clone, Default)]
pub struct Ids {
    text: String,
    ends: Vec<usize>,
    /// How many of them were integers.
    integers: usize,
}

impl Ids {
    /// No ids.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends an id.
    pub fn push(&mut self, id: &str) {
        self.text.push_str(id);
        self.ends.push(self.text.len());
    }

    /// Appends an integer id.
    pub fn push_integer(&mut self, id: i64) {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{id}");
        self.ends.push(self.text.len());
        self.integers += 1;
    }

    /// Appends id `i` of other ids.
    pub fn push_from(&mut self, other: &Self, i: usize) {
        self.push(other.get(i));
        self.integers += usize::from(other.are_integers());
    }

    /// The ids of `rows`, in that order.
    pub fn select(&self, rows: &[u32]) -> Self {
        let mut selected = Self::new();
        for &row in rows {
            selected.push_from(self, row as usize);
        }
        selected
    }

    /// Whether every id was an integer.
    pub fn are_integers(&self) -> bool {
        self.integers == self.len()
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Id of row `i`.
    pub fn get(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start..self.ends[i]]
    }

    /// The ids in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Seeded 64-bit hash of id `i` (xxh3): who is sampled, and which block a row is in, follow from
    /// this and never from its position.
    pub fn hash(&self, i: usize, seed: u64) -> u64 {
        xxh3_64_with_seed(self.get(i).as_bytes(), seed)
    }

    /// Checksum of all ids in order (xxh3, hexadecimal).
    pub fn checksum(&self) -> String {
        let mut checksum = IdChecksum::default();
        self.iter().for_each(|id| checksum.add(id));
        checksum.finish()
    }

    /// The first row whose id an earlier row has, after that earlier row.
    fn first_repeated(&self) -> Option<(usize, usize)> {
        // Eight bytes a row, where a map of all ids would take several times the ids themselves.
        let mut hashes: Vec<u64> = (0..self.len()).map(|row| self.hash(row, 0)).collect();
        hashes.sort_unstable();
        let suspects: HashSet<u64> = hashes
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .map(|pair| pair[0])
            .collect();
        drop(hashes);
        if suspects.is_empty() {
            return None;
        }
        let mut seen: HashMap<&str, usize> = HashMap::new();
        (0..self.len())
            .filter(|&row| suspects.contains(&self.hash(row, 0)))
            .find_map(|row| seen.insert(self.get(row), row).map(|first| (first, row)))
    }
}

/// Checksum of ids in order: their lengths and bytes.
#[derive(Default)]
struct IdChecksum(Xxh3);

impl IdChecksum {
    fn add(&mut self, id: &str) {
        self.0.update(&(id.len() as u64).to_le_bytes());
        self.0.update(id.as_bytes());
    }

    fn finish(self) -> String {
        format!("{:016x}", self.0.digest())
    }
}

/// Ids of the sound rows of an input, in as little memory as they allow.
#[derive(Debug, Clone)]
pub enum RowIds {
    /// The ids are row numbers: only the rows that were left out are kept.
    Numbered {
        /// Numbers of the rows left out, ascending.
        left_out: Vec<u64>,
        /// How many rows were kept.
        kept: usize,
    },
    /// The ids as read.
    Named(Ids),
}

impl RowIds {
    fn new(source: &IdSource) -> Self {
        match source {
            IdSource::RowNumber => Self::Numbered {
                left_out: Vec::new(),
                kept: 0,
            },
            IdSource::Column(_) => Self::Named(Ids::new()),
        }
    }

    /// Number of ids.
    pub fn len(&self) -> usize {
        match self {
            Self::Numbered { kept, .. } => *kept,
            Self::Named(ids) => ids.len(),
        }
    }

    /// Whether there is no id.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The ids of `rows`, in that order.
    pub fn select(&self, rows: &[u32]) -> Ids {
        match self {
            Self::Numbered { left_out, .. } => {
                let mut ids = Ids::new();
                for &row in rows {
                    ids.push_integer(row_number(left_out, u64::from(row)) as i64);
                }
                ids
            }
            Self::Named(ids) => ids.select(rows),
        }
    }

    /// Checksum of all ids in order, as of [`Ids::checksum`].
    pub fn checksum(&self) -> String {
        match self {
            Self::Numbered { left_out, kept } => {
                let mut checksum = IdChecksum::default();
                let mut left_out = left_out.iter().peekable();
                let mut number = 0u64;
                for _ in 0..*kept {
                    while left_out.next_if_eq(&&number).is_some() {
                        number += 1;
                    }
                    checksum.add(&number.to_string());
                    number += 1;
                }
                checksum.finish()
            }
            Self::Named(ids) => ids.checksum(),
        }
    }

    /// All of them as text.
    fn into_ids(self) -> Ids {
        match self {
            Self::Numbered { ref left_out, kept } => {
                let mut ids = Ids::new();
                for row in 0..kept as u64 {
                    ids.push_integer(row_number(left_out, row) as i64);
                }
                ids
            }
            Self::Named(ids) => ids,
        }
    }
}

/// Number in the input of the sound row `row`, where the rows `left_out` are not counted.
fn row_number(left_out: &[u64], row: u64) -> u64 {
    // left_out[i] − i sound rows come before the i-th row left out: a sequence that never falls.
    let (mut low, mut high) = (0, left_out.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if left_out[middle] - middle as u64 <= row {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    row + low as u64
}

impl<S: AsRef<str>> FromIterator<S> for Ids {
    fn from_iter<I: IntoIterator<Item = S>>(ids: I) -> Self {
        let mut all = Self::new();
        for id in ids {
            all.push(id.as_ref());
        }
        all
    }
}

/// Where a set's ids come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum IdSource {
    /// A column of the input.
    Column(String),
    /// No id column: the row number, counted from 0.
    RowNumber,
}

/// Consecutive rows as a reader hands them out.
#[derive(Debug, Default)]
pub struct RowBlock {
    /// One id per row.
    pub ids: Ids,
    /// Row-major values, rounded to f32; a null element is NaN. A null vector's values are ignored.
    pub values: Vec<f32>,
    /// Rows of this block whose vector is null.
    pub nulls: Vec<usize>,
    /// Requested metadata columns as text, each with one value per row (null: empty text).
    pub columns: Vec<Vec<String>>,
}

/// Rows left out for one reason.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct Fault {
    /// How many rows.
    pub rows: u64,
    /// The first few of their ids.
    pub first_ids: Vec<String>,
}

impl Fault {
    fn note(&mut self, id: &str) {
        self.rows += 1;
        if self.first_ids.len() < FAULT_IDS {
            self.first_ids.push(id.to_owned());
        }
    }
}

/// Rows that were read but take part in no measure.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct RowFaults {
    /// The vector is null.
    pub null: Fault,
    /// A value is NaN, infinite, or overflows f32.
    pub non_finite: Fault,
    /// Every value is 0, so that no direction exists.
    pub zero: Fault,
}

impl RowFaults {
    /// Rows left out in all.
    pub fn rows(&self) -> u64 {
        self.null.rows + self.non_finite.rows + self.zero.rows
    }
}

/// A checked set of embeddings.
#[derive(Debug)]
pub struct Embeddings {
    /// What the user called it (the path).
    pub name: String,
    /// Element type as stored.
    pub dtype: Dtype,
    /// Where the ids come from.
    pub id_source: IdSource,
    /// Rows read, sound or not.
    pub rows_read: u64,
    /// Rows left out, by reason.
    pub faults: RowFaults,
    /// Ids of the sound rows.
    pub ids: Ids,
    /// Requested metadata columns, name and one value per sound row.
    pub columns: Vec<(String, Vec<String>)>,
    values: Values,
    dim: usize,
}

impl Embeddings {
    /// The sound rows, n × d.
    pub fn rows(&self) -> Rows<'_> {
        self.values.rows(self.dim)
    }

    /// Number of sound rows, n.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether no sound row is left.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Values per row, d.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The values of the first requested metadata column, where one was requested.
    pub fn first_column(&self) -> Option<&[String]> {
        self.columns.first().map(|(_, values)| values.as_slice())
    }

    /// The values of a requested metadata column.
    pub fn column(&self, name: &str) -> Option<&[String]> {
        let (_, values) = self.columns.iter().find(|(column, _)| column == name)?;
        Some(values)
    }

    /// At most `rows` of the rows, in their order: those whose ids hash lowest under `seed`, so that two
    /// sets keep the same items.
    #[must_use]
    pub fn sample(self, rows: usize, seed: u64) -> Self {
        if rows >= self.len() {
            return self;
        }
        let mut order: Vec<u32> = (0..self.len() as u32).collect();
        order.sort_by_cached_key(|&row| (self.ids.hash(row as usize, seed), row));
        order.truncate(rows);
        order.sort_unstable();
        self.select(&order)
    }

    /// The rows whose ids hash to at most `limit` under `seed`, in their order.
    ///
    /// # Errors
    /// There is none.
    pub fn hashed_up_to(self, limit: u64, seed: u64) -> Result<Self> {
        let rows = 0..self.len() as u32;
        let order: Vec<u32> = rows
            .filter(|&row| self.ids.hash(row as usize, seed) <= limit)
            .collect();
        if order.is_empty() {
            return Err(Error::input(
                &self.name,
                format!(
                    "none of {} rows is drawn with the sketch's landmarks, expected some",
                    self.len()
                ),
            )
            .hint("a sketch with more landmarks draws more"));
        }
        Ok(self.select(&order))
    }

    fn select(self, order: &[u32]) -> Self {
        let values = Values::gather(self.rows(), order);
        let pick = |column: &[String]| {
            order
                .iter()
                .map(|&row| column[row as usize].clone())
                .collect()
        };
        Self {
            ids: self.ids.select(order),
            columns: self
                .columns
                .iter()
                .map(|(name, c)| (name.clone(), pick(c)))
                .collect(),
            values,
            ..self
        }
    }

    /// The values of the rows `order`, in that order, held as they are here; borrowed where that is every
    /// row as it stands.
    pub fn gather(&self, order: &[u32]) -> Cow<'_, Values> {
        let identity = order.len() == self.len()
            && order.iter().enumerate().all(|(i, &row)| i == row as usize);
        if identity {
            return Cow::Borrowed(&self.values);
        }
        Cow::Owned(Values::gather(self.rows(), order))
    }
}

/// What is known of a checked set beside its values: all that stays of a stream that has passed.
#[derive(Debug)]
pub struct Roster {
    /// What the user called the set (the path).
    pub name: String,
    /// Element type as stored.
    pub dtype: Dtype,
    /// Where the ids come from.
    pub id_source: IdSource,
    /// Rows read, sound or not.
    pub rows_read: u64,
    /// Rows left out, by reason.
    pub faults: RowFaults,
    /// Ids of the sound rows.
    pub ids: RowIds,
    /// Requested metadata columns, name and one value per sound row.
    pub columns: Vec<(String, Vec<String>)>,
    /// Values per row, d.
    pub dim: usize,
}

impl Roster {
    /// Refuses more rows than can be numbered.
    fn check_count(&self) -> Result<()> {
        if self.ids.len() < u32::MAX as usize {
            return Ok(());
        }
        Err(Error::input(
            &self.name,
            format!(
                "{} rows, at most {} are supported",
                self.ids.len(),
                u32::MAX - 1
            ),
        ))
    }

    /// Refuses a set that no measure can use.
    fn check(&self) -> Result<()> {
        if self.ids.is_empty() {
            let fact = if self.rows_read == 0 {
                "no rows, expected at least one".to_owned()
            } else {
                format!(
                    "none of the {} rows is usable ({} null, {} non-finite, {} zero)",
                    self.rows_read,
                    self.faults.null.rows,
                    self.faults.non_finite.rows,
                    self.faults.zero.rows
                )
            };
            return Err(Error::input(&self.name, fact));
        }
        self.check_count()?;
        if let (IdSource::Column(column), RowIds::Named(ids)) = (&self.id_source, &self.ids)
            && let Some((first, row)) = ids.first_repeated()
        {
            return Err(Error::input(
                &self.name,
                format!(
                    "column \"{column}\": id \"{}\" stands on two rows (usable rows {first} and {row}), expected unique ids",
                    ids.get(row)
                ),
            )
            .hint("name the column that identifies a row with --id COLUMN"));
        }
        Ok(())
    }
}

/// Checks row blocks as they pass and keeps the sound rows, until they are taken.
#[derive(Debug)]
pub struct Collector {
    roster: Roster,
    /// The values of the sound rows that nobody has taken yet.
    values: Values,
}

impl Collector {
    /// Starts a set whose values are held in `values`, empty as yet.
    pub fn new(
        name: String,
        dim: usize,
        (dtype, values): (Dtype, Values),
        id_source: IdSource,
        columns: &[String],
    ) -> Self {
        Self {
            roster: Roster {
                name,
                dtype,
                rows_read: 0,
                faults: RowFaults::default(),
                ids: RowIds::new(&id_source),
                id_source,
                columns: columns.iter().map(|c| (c.clone(), Vec::new())).collect(),
                dim,
            },
            values,
        }
    }

    /// Makes room for `rows` rows that will all be kept.
    ///
    /// # Errors
    /// There is no room.
    pub fn reserve(&mut self, rows: usize) -> Result<()> {
        let values = rows.saturating_mul(self.roster.dim);
        if self.values.try_reserve(values) {
            return Ok(());
        }
        let bytes = values.saturating_mul(self.roster.dtype.held_bytes());
        Err(Error::input(
            &self.roster.name,
            format!("all rows are needed in memory, and {bytes} bytes cannot be had"),
        ))
    }

    /// Takes a block's rows.
    pub fn push(&mut self, block: &RowBlock) {
        let roster = &mut self.roster;
        let rows = F32Rows::new(&block.values, roster.dim);
        assert_eq!(rows.len(), block.ids.len(), "a block has one id per row");
        let mut nulls = block.nulls.iter().peekable();
        for (i, row) in rows.iter().enumerate() {
            let number = roster.rows_read;
            roster.rows_read += 1;
            let fault = if nulls.next_if_eq(&&i).is_some() {
                Some(&mut roster.faults.null)
            } else if !all(row, f32::is_finite) {
                Some(&mut roster.faults.non_finite)
            } else if all(row, |v| v == 0.0) {
                Some(&mut roster.faults.zero)
            } else {
                None
            };
            if let Some(fault) = fault {
                fault.note(block.ids.get(i));
                if let RowIds::Numbered { left_out, .. } = &mut roster.ids {
                    left_out.push(number);
                }
                continue;
            }
            self.values.push(row);
            match &mut roster.ids {
                RowIds::Numbered { kept, .. } => *kept += 1,
                RowIds::Named(ids) => ids.push_from(&block.ids, i),
            }
            for ((_, kept), column) in roster.columns.iter_mut().zip(&block.columns) {
                kept.push(column[i].clone());
            }
        }
    }

    /// Sound rows that nobody has taken yet.
    pub fn waiting(&self) -> usize {
        self.values.len() / self.roster.dim
    }

    /// Takes the values of the first `rows` rows that are waiting, or of all.
    ///
    /// # Errors
    /// More than 2³² − 2 rows so far.
    pub fn take(&mut self, rows: usize) -> Result<Vec<f32>> {
        self.roster.check_count()?;
        let taken = rows.min(self.waiting()) * self.roster.dim;
        Ok(self.values.take_front(taken))
    }

    /// Ends a set whose rows were taken.
    ///
    /// # Errors
    /// As for [`Self::finish`].
    pub fn finish_stream(self) -> Result<Roster> {
        self.roster.check()?;
        Ok(self.roster)
    }

    /// Ends a set whose rows were all kept.
    ///
    /// # Errors
    /// Two rows with one id, more than 2³² − 2 rows, or no sound row at all.
    pub fn finish(self) -> Result<Embeddings> {
        let Self { roster, values } = self;
        roster.check()?;
        let Roster {
            name,
            dtype,
            id_source,
            rows_read,
            faults,
            ids,
            columns,
            dim,
        } = roster;
        let ids = ids.into_ids();
        assert_eq!(values.len(), ids.len() * dim, "no row was taken");
        Ok(Embeddings {
            name,
            dtype,
            id_source,
            rows_read,
            faults,
            ids,
            columns,
            values,
            dim,
        })
    }
}

/// Whether all values are of a kind. Looks at eight before it decides, which compiles to vector code.
fn all(row: &[f32], is: impl Fn(f32) -> bool) -> bool {
    let (chunks, rest) = row.as_chunks::<8>();
    let whole = |chunk: &[f32; 8]| chunk.iter().fold(true, |all, &v| all & is(v));
    chunks.iter().all(whole) && rest.iter().all(|&v| is(v))
}

/// Which rows of two sets carry the same id.
#[derive(Debug, Clone, Default)]
pub struct Join {
    /// (reference row, current row) of every shared id, in reference order.
    pub shared: Vec<(u32, u32)>,
    /// Reference rows whose id the current set lacks.
    pub only_reference: Vec<u32>,
    /// Current rows whose id the reference set lacks.
    pub only_current: Vec<u32>,
}

impl Join {
    /// Joins two sets of unique ids.
    pub fn new(reference: &Ids, current: &Ids) -> Self {
        let mut rows: HashMap<&str, u32> = HashMap::with_capacity(current.len());
        for (row, id) in current.iter().enumerate() {
            rows.insert(id, row as u32);
        }
        let mut join = Self::default();
        let mut matched = vec![false; current.len()];
        for (row, id) in reference.iter().enumerate() {
            match rows.get(id) {
                Some(&other) => {
                    matched[other as usize] = true;
                    join.shared.push((row as u32, other));
                }
                None => join.only_reference.push(row as u32),
            }
        }
        join.only_current = (0..current.len() as u32)
            .filter(|&row| !matched[row as usize])
            .collect();
        join
    }

    /// The reference rows of the shared ids.
    pub fn reference_rows(&self) -> Vec<u32> {
        self.shared.iter().map(|&(x, _)| x).collect()
    }

    /// The current rows of the shared ids, in the same order.
    pub fn current_rows(&self) -> Vec<u32> {
        self.shared.iter().map(|&(_, y)| y).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every third row is left out, and a run at the beginning.
    #[test]
    fn row_numbers_skip_what_was_left_out() {
        let is_left_out = |row: u64| row < 4 || row.is_multiple_of(3);
        let left_out: Vec<u64> = (0..50).filter(|&row| is_left_out(row)).collect();
        let numbers: Vec<u64> = (0..50).filter(|&row| !is_left_out(row)).collect();
        let ids = RowIds::Numbered {
            left_out,
            kept: numbers.len(),
        };
        let expected: Ids = numbers.iter().map(u64::to_string).collect();
        let every: Vec<u32> = (0..numbers.len() as u32).collect();
        assert!(ids.select(&every).iter().eq(expected.iter()));
        assert_eq!(ids.checksum(), expected.checksum());
        assert!(ids.into_ids().iter().eq(expected.iter()));
    }

    #[test]
    fn the_first_repeated_id_is_found() {
        let ids = |names: &[&str]| names.iter().collect::<Ids>();
        assert_eq!(ids(&[]).first_repeated(), None);
        assert_eq!(ids(&["a", "b", "ab", ""]).first_repeated(), None);
        // The pair that ends first, not the one that begins first.
        let repeated = ids(&["a", "b", "c", "b", "a", "b"]);
        assert_eq!(repeated.first_repeated(), Some((1, 3)));
    }

    #[test]
    fn taken_rows_leave_their_roster() {
        let source = IdSource::Column("id".into());
        let held = (Dtype::F32, Values::of(Dtype::F32));
        let mut collector = Collector::new("set".into(), 2, held, source, &[]);
        let refused = collector.reserve(usize::MAX).expect_err("no such memory");
        assert!(refused.to_string().starts_with("set: all rows are needed"));
        collector.push(&RowBlock {
            ids: ["a", "b", "c", "d"].into_iter().collect(),
            values: vec![1.0, 2.0, 0.0, 0.0, 3.0, 4.0, 5.0, f32::NAN],
            ..RowBlock::default()
        });
        assert_eq!(collector.waiting(), 2);
        assert_eq!(collector.take(1).expect("few rows"), [1.0, 2.0]);
        assert_eq!(collector.take(5).expect("few rows"), [3.0, 4.0]);
        let roster = collector.finish_stream().expect("sound rows");
        assert_eq!((roster.rows_read, roster.ids.len()), (4, 2));
        assert_eq!(roster.faults.rows(), 2);
        assert!(roster.ids.select(&[1, 0]).iter().eq(["c", "a"]));
    }
}
