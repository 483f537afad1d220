//! Parquet: one file or parts that agree.

use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::RecordBatch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::columns::{self, Selection};
use super::{
    BLOCK_BYTES, LANDMARKS, Request, SKETCH_NOTE, Source, SourceInfo, damaged, guarded, open_file,
};
use crate::embeddings::RowBlock;
use crate::error::{Error, Result};

const FORMAT: &str = "Parquet";

/// One file with its footer read.
struct Part {
    path: PathBuf,
    selection: Selection,
    rows: u64,
    /// First row of this part in the input.
    offset: u64,
}

fn footer(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = open_file(path)?;
    guarded(path, FORMAT, || {
        ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| damaged(path, FORMAT, e))
    })
}

/// A note in a file's metadata.
pub(super) fn note(path: &Path, name: &str) -> Result<Option<String>> {
    Ok(note_of(&footer(path)?, name))
}

fn note_of(builder: &ParquetRecordBatchReaderBuilder<File>, name: &str) -> Option<String> {
    let notes = builder.metadata().file_metadata().key_value_metadata()?;
    notes.iter().find(|note| note.key == name)?.value.clone()
}

pub(super) fn open(request: &Request<'_>) -> Result<Source> {
    let mut parts: Vec<Part> = Vec::new();
    let mut described = Vec::new();
    let mut dim = None;
    let mut is_sketch = false;
    for path in request.files {
        let builder = footer(path)?;
        is_sketch |= note_of(&builder, SKETCH_NOTE).is_some();
        let selection = Selection::new(builder.schema(), path, request)?;
        let rows: u64 = builder
            .metadata()
            .row_groups()
            .iter()
            .map(|g| g.num_rows().max(0) as u64)
            .sum();
        if described.is_empty() {
            described = columns::describe(builder.schema());
        }
        let part_dim = match selection.dim {
            Some(dim) => Some(dim),
            None => first_length(path, &selection)?,
        };
        if let (Some(first), Some(found)) = (parts.first(), part_dim)
            && let Some(expected) = dim
            && found != expected
        {
            return Err(Error::input(
                path.display(),
                format!(
                    "dimension {found}, expected {expected} as in {}",
                    first.path.display()
                ),
            ));
        }
        dim = dim.or(part_dim);
        if let Some(first) = parts.first()
            && (
                first.selection.dtype,
                &first.selection.vector,
                &first.selection.id,
            ) != (selection.dtype, &selection.vector, &selection.id)
        {
            return Err(Error::input(
                path.display(),
                format!(
                    "vectors \"{}\" ({}) with ids from {:?}, expected the same columns as in {}",
                    selection.vector,
                    selection.dtype.name(),
                    selection.id.as_deref().unwrap_or("row numbers"),
                    first.path.display()
                ),
            ));
        }
        let offset = parts.last().map_or(0, |p| p.offset + p.rows);
        parts.push(Part {
            path: path.clone(),
            selection,
            rows,
            offset,
        });
    }
    let first = &parts[0];
    let Some(dim) = dim else {
        return Err(Error::input(
            request.name,
            format!(
                "column \"{}\" holds no vector, expected at least one",
                first.selection.vector
            ),
        ));
    };
    let info = SourceInfo {
        name: request.name.to_owned(),
        format: if is_sketch { LANDMARKS } else { "parquet" }.to_owned(),
        files: parts.len(),
        bytes: request.bytes,
        rows: parts.last().map(|p| p.offset + p.rows),
        dim,
        dtype: first.selection.dtype,
        vector_column: first.selection.vector.clone(),
        id_source: first.selection.id_source(),
        columns: described,
    };
    let blocks = parts
        .into_iter()
        .flat_map(move |part| PartBlocks::new(part, dim));
    Ok(Source {
        info,
        columns: request.options.columns.clone(),
        blocks: Box::new(blocks),
    })
}

/// Length of the first vector that is not null.
fn first_length(path: &Path, selection: &Selection) -> Result<Option<usize>> {
    use arrow::array::{Array, AsArray};
    let mut reader = reader(path, &[selection.vector.as_str()], 256)?;
    while let Some(batch) = next_batch(path, &mut reader) {
        let batch = batch?;
        let column = batch.column(0);
        if let Some(row) = (0..column.len()).find(|&row| column.is_valid(row)) {
            let length = match column.as_list_opt::<i32>() {
                Some(list) => list.value_length(row) as usize,
                None => column.as_list::<i64>().value_length(row) as usize,
            };
            return if length == 0 {
                Err(Error::input(
                    path.display(),
                    format!(
                        "column \"{}\" has dimension 0, expected at least 1",
                        selection.vector
                    ),
                ))
            } else {
                Ok(Some(length))
            };
        }
    }
    Ok(None)
}

/// A reader that decodes only the wanted columns.
fn reader(path: &Path, wanted: &[&str], batch_rows: usize) -> Result<ParquetRecordBatchReader> {
    let builder = footer(path)?;
    let roots: Vec<usize> = wanted
        .iter()
        .filter_map(|name| builder.schema().index_of(name).ok())
        .collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    guarded(path, FORMAT, || {
        builder
            .with_projection(mask)
            .with_batch_size(batch_rows)
            .build()
            .map_err(|e| damaged(path, FORMAT, e))
    })
}

fn next_batch(path: &Path, reader: &mut ParquetRecordBatchReader) -> Option<Result<RecordBatch>> {
    guarded(path, FORMAT, || {
        reader
            .next()
            .transpose()
            .map_err(|e| damaged(path, FORMAT, e))
    })
    .transpose()
}

/// Every batch of a small table, all columns.
pub(super) fn batches(path: &Path) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let builder = footer(path)?;
    let mut reader = guarded(path, FORMAT, || {
        builder.build().map_err(|e| damaged(path, FORMAT, e))
    })?;
    let path = path.to_owned();
    Ok(std::iter::from_fn(move || next_batch(&path, &mut reader)))
}

/// The row blocks of one part; the file is opened when its turn comes.
struct PartBlocks {
    part: Part,
    dim: usize,
    reader: Option<ParquetRecordBatchReader>,
    next_row: u64,
    failed: bool,
}

impl PartBlocks {
    fn new(part: Part, dim: usize) -> Self {
        Self {
            part,
            dim,
            reader: None,
            next_row: 0,
            failed: false,
        }
    }

    fn advance(&mut self) -> Result<Option<RowBlock>> {
        let Part {
            path,
            selection,
            offset,
            rows,
        } = &self.part;
        let reader = match &mut self.reader {
            Some(reader) => reader,
            empty => {
                let wanted: Vec<&str> = selection.wanted().collect();
                // Short batches decode faster: what is decoded stays in the cache.
                let rows = (BLOCK_BYTES / (self.dim * selection.dtype.bytes())).clamp(1, 1024);
                empty.insert(reader(path, &wanted, rows)?)
            }
        };
        let Some(batch) = next_batch(path, reader) else {
            if self.next_row != *rows {
                return Err(damaged(
                    path,
                    FORMAT,
                    format!("{} rows, expected {rows}", self.next_row),
                ));
            }
            return Ok(None);
        };
        let batch = batch?;
        let block = selection.block(&batch, path, self.dim, self.next_row, *offset)?;
        self.next_row += batch.num_rows() as u64;
        Ok(Some(block))
    }
}

impl Iterator for PartBlocks {
    type Item = Result<RowBlock>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let block = self.advance().transpose();
        self.failed = matches!(block, Some(Err(_)));
        block
    }
}
