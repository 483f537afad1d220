//! Writing tables as Parquet: whole or not at all.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, Float64Array, Float64Builder, Int64Array, Int64Builder, ListBuilder, RecordBatch,
    StringArray, StringBuilder, UInt32Array,
};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};

use crate::embeddings::Ids;
use crate::error::{Error, Result};

/// Rows per write, which bounds what is held beside the caller's data.
const BATCH: usize = 16_384;

/// A column as the caller holds it; `row` gives the value of one row.
pub enum Column<'a> {
    /// Ids of the rows `row(i)` of a set: text, or integers where the set's ids are integers.
    Id(&'a Ids, Box<dyn Fn(usize) -> u32 + 'a>),
    /// Lists of ids.
    IdList(&'a Ids, Box<dyn Fn(usize) -> Vec<u32> + 'a>),
    /// Numbers, null where undefined.
    Number(Box<dyn Fn(usize) -> Option<f64> + 'a>),
    /// Counts.
    Count(Box<dyn Fn(usize) -> u32 + 'a>),
    /// Lists of numbers.
    NumberList(Box<dyn Fn(usize) -> Vec<f64> + 'a>),
}

impl Column<'_> {
    fn array(&self, rows: std::ops::Range<usize>) -> ArrayRef {
        match self {
            Self::Id(ids, row) if ids.are_integers() => Arc::new(Int64Array::from_iter(
                rows.map(|i| ids.get(row(i) as usize).parse::<i64>().ok()),
            )),
            Self::Id(ids, row) => Arc::new(StringArray::from_iter_values(
                rows.map(|i| ids.get(row(i) as usize)),
            )),
            Self::IdList(ids, list) if ids.are_integers() => {
                let mut builder = ListBuilder::new(Int64Builder::new());
                for i in rows {
                    builder.append_value(
                        list(i)
                            .iter()
                            .map(|&row| ids.get(row as usize).parse::<i64>().ok()),
                    );
                }
                Arc::new(builder.finish())
            }
            Self::IdList(ids, list) => {
                let mut builder = ListBuilder::new(StringBuilder::new());
                for i in rows {
                    builder.append_value(list(i).iter().map(|&row| Some(ids.get(row as usize))));
                }
                Arc::new(builder.finish())
            }
            Self::Number(value) => Arc::new(Float64Array::from_iter(rows.map(value))),
            Self::Count(value) => Arc::new(UInt32Array::from_iter_values(rows.map(value))),
            Self::NumberList(list) => {
                let mut builder = ListBuilder::new(Float64Builder::new());
                for i in rows {
                    builder.append_value(list(i).into_iter().map(Some));
                }
                Arc::new(builder.finish())
            }
        }
    }
}

/// How every Parquet file is written.
pub(super) fn writer_properties() -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_created_by(concat!("vecdrift ", env!("CARGO_PKG_VERSION")).to_owned())
}

/// Writes `rows` rows of named columns to `to`, a writer the caller moves into place afterwards.
///
/// # Errors
/// The writer fails.
pub fn parquet(
    to: &mut (dyn std::io::Write + Send),
    place: &Path,
    rows: usize,
    columns: &[(&str, Column<'_>)],
) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::output(place.display(), e);
    let batch = |range: std::ops::Range<usize>| -> Vec<ArrayRef> {
        columns
            .iter()
            .map(|(_, column)| column.array(range.clone()))
            .collect()
    };
    let fields: Vec<Field> = columns
        .iter()
        .zip(batch(0..0))
        .map(|((name, _), array)| Field::new(*name, array.data_type().clone(), true))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let mut writer =
        ArrowWriter::try_new(to, Arc::clone(&schema), Some(writer_properties().build()))
            .map_err(|e| failed(&e))?;
    for start in (0..rows).step_by(BATCH) {
        let arrays = batch(start..(start + BATCH).min(rows));
        let record = RecordBatch::try_new(Arc::clone(&schema), arrays).map_err(|e| failed(&e))?;
        writer.write(&record).map_err(|e| failed(&e))?;
    }
    writer.close().map_err(|e| failed(&e))?;
    Ok(())
}
