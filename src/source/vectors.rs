//! Writing vectors block by block: Parquet with ids, or npy.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, FixedSizeListArray, Float32Array, Int64Array, RecordBatch, StringArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;

use super::write::writer_properties;
use crate::embeddings::{IdSource, Ids, RowBlock};
use crate::error::{Error, Result};

/// Bytes of values in a row group, about: the writer holds one group in memory.
const GROUP_BYTES: usize = 64 << 20;

/// The formats that vectors are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VectorFormat {
    /// One list of f32 per row, with the ids.
    Parquet,
    /// A matrix of f32; ids are lost.
    Npy,
}

impl VectorFormat {
    /// The format that a file's name promises.
    ///
    /// # Errors
    /// Another extension than `.parquet`, `.pq` or `.npy`.
    pub fn by_name(path: &Path) -> Result<Self> {
        match super::Format::by_name(path) {
            Some("Parquet") => Ok(Self::Parquet),
            Some("npy") => Ok(Self::Npy),
            _ => Err(Error::output(
                path.display(),
                "is of a format that vectors are not written in, expected .parquet or .npy",
            )),
        }
    }
}

/// What a file of vectors looks like.
#[derive(Debug)]
pub struct VectorShape<'a> {
    /// Values per row.
    pub dim: usize,
    /// Rows to come, which npy must know before the first.
    pub rows: Option<u64>,
    /// Name of the vector column.
    pub vector_column: &'a str,
    /// Where the ids come from: a column of that name is written, row numbers are not.
    pub id_source: &'a IdSource,
    /// A note for the file's metadata, under a name; Parquet only.
    pub note: Option<(&'a str, String)>,
}

/// Writes row blocks as they come and returns how many rows there were. Null rows become nulls in Parquet and
/// NaN in npy.
///
/// # Errors
/// A block is an error, ids change their type, npy rows are not as many as were told, or the writer fails.
pub fn write_vectors(
    to: &mut (dyn Write + Send),
    place: &Path,
    format: VectorFormat,
    shape: &VectorShape<'_>,
    blocks: &mut dyn Iterator<Item = Result<RowBlock>>,
) -> Result<u64> {
    match format {
        VectorFormat::Parquet => write_parquet(to, place, shape, blocks),
        VectorFormat::Npy => write_npy(to, place, shape, blocks),
    }
}

fn write_parquet(
    to: &mut (dyn Write + Send),
    place: &Path,
    shape: &VectorShape<'_>,
    blocks: &mut dyn Iterator<Item = Result<RowBlock>>,
) -> Result<u64> {
    let failed = |e: &dyn std::fmt::Display| Error::output(place.display(), e);
    let length = i32::try_from(shape.dim).map_err(|e| failed(&e))?;
    let element = Arc::new(Field::new("element", DataType::Float32, true));
    let id_column = match shape.id_source {
        IdSource::Column(name) => Some(name),
        IdSource::RowNumber => None,
    };
    let note = shape
        .note
        .as_ref()
        .map(|(name, text)| vec![KeyValue::new((*name).to_owned(), text.clone())]);
    let properties = writer_properties()
        .set_key_value_metadata(note)
        .set_max_row_group_row_count(Some((GROUP_BYTES / (4 * shape.dim)).max(1)))
        // Values hardly repeat, and ids do not.
        .set_dictionary_enabled(false)
        .build();
    let mut to = Some(to);
    let mut writer: Option<(ArrowWriter<&mut (dyn Write + Send)>, Arc<Schema>)> = None;
    let mut rows = 0;
    // Without a block the file still has its columns.
    let mut blocks = blocks.peekable();
    let mut last = blocks.peek().is_none().then(|| Ok(RowBlock::default()));
    while let Some(block) = blocks.next().or_else(|| last.take()) {
        let block = block?;
        let mut columns: Vec<(&str, ArrayRef)> = Vec::new();
        if let Some(name) = id_column {
            columns.push((name, id_array(&block.ids)));
        }
        let nulls = (!block.nulls.is_empty()).then(|| {
            let mut sound = vec![true; block.ids.len()];
            block.nulls.iter().for_each(|&row| sound[row] = false);
            NullBuffer::from(sound)
        });
        let values = Arc::new(Float32Array::from(block.values));
        let vectors = FixedSizeListArray::try_new(Arc::clone(&element), length, values, nulls)
            .map_err(|e| failed(&e))?;
        columns.push((shape.vector_column, Arc::new(vectors)));
        if writer.is_none() {
            let fields: Vec<Field> = columns
                .iter()
                .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
                .collect();
            let schema = Arc::new(Schema::new(fields));
            if let Some(to) = to.take() {
                let opened =
                    ArrowWriter::try_new(to, Arc::clone(&schema), Some(properties.clone()))
                        .map_err(|e| failed(&e))?;
                writer = Some((opened, schema));
            }
        }
        if let Some((writer, schema)) = &mut writer {
            let arrays = columns.into_iter().map(|(_, array)| array).collect();
            let batch = RecordBatch::try_new(Arc::clone(schema), arrays).map_err(|e| failed(&e))?;
            rows += batch.num_rows() as u64;
            writer.write(&batch).map_err(|e| failed(&e))?;
        }
    }
    if let Some((writer, _)) = writer {
        writer.close().map_err(|e| failed(&e))?;
    }
    Ok(rows)
}

fn id_array(ids: &Ids) -> ArrayRef {
    if ids.are_integers() && !ids.is_empty() {
        Arc::new(Int64Array::from_iter(
            ids.iter().map(|id| id.parse::<i64>().ok()),
        ))
    } else {
        Arc::new(StringArray::from_iter_values(ids.iter()))
    }
}

fn write_npy(
    to: &mut (dyn Write + Send),
    place: &Path,
    shape: &VectorShape<'_>,
    blocks: &mut dyn Iterator<Item = Result<RowBlock>>,
) -> Result<u64> {
    let failed = |e: std::io::Error| Error::output(place.display(), e);
    let Some(expected) = shape.rows else {
        return Err(Error::output(
            place.display(),
            "the input does not tell its number of rows, which npy must know first",
        )
        .hint("write .parquet instead"));
    };
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({expected}, {}), }}",
        shape.dim
    );
    // The format aligns the values to 64 bytes, the header's end marked by a line feed.
    let before = 10;
    let padded = (before + header.len() + 1).next_multiple_of(64);
    header.push_str(&" ".repeat(padded - before - header.len() - 1));
    header.push('\n');
    to.write_all(b"\x93NUMPY\x01\x00").map_err(failed)?;
    to.write_all(&(header.len() as u16).to_le_bytes())
        .map_err(failed)?;
    to.write_all(header.as_bytes()).map_err(failed)?;
    let mut rows = 0;
    for block in blocks {
        let mut block = block?;
        for &row in &block.nulls {
            block.values[row * shape.dim..(row + 1) * shape.dim].fill(f32::NAN);
        }
        rows += block.ids.len() as u64;
        let bytes: Vec<u8> = block.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        to.write_all(&bytes).map_err(failed)?;
    }
    if rows == expected {
        Ok(rows)
    } else {
        Err(Error::output(
            place.display(),
            format!("{rows} rows came, {expected} were told"),
        ))
    }
}
