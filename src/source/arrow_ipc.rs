//! Arrow IPC: the file and the stream format.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};

use super::columns::{self, Selection};
use super::{BLOCK_BYTES, Request, Source, SourceInfo, damaged, guarded, open_file};
use crate::embeddings::RowBlock;
use crate::error::{Error, Result};

const FORMAT: &str = "Arrow IPC";

/// Batches of either format.
struct Batches {
    path: PathBuf,
    schema: SchemaRef,
    reader: Box<dyn Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send>,
}

impl Batches {
    fn open(path: &Path, is_file: bool) -> Result<Self> {
        let file: BufReader<File> = BufReader::new(open_file(path)?);
        guarded(path, FORMAT, || {
            let failed = |e| damaged(path, FORMAT, e);
            let path = path.to_owned();
            Ok(if is_file {
                let reader = FileReader::try_new(file, None).map_err(failed)?;
                Self {
                    path,
                    schema: reader.schema(),
                    reader: Box::new(reader),
                }
            } else {
                let reader = StreamReader::try_new(file, None).map_err(failed)?;
                Self {
                    path,
                    schema: reader.schema(),
                    reader: Box::new(reader),
                }
            })
        })
    }

    fn next(&mut self) -> Result<Option<RecordBatch>> {
        let Self { path, reader, .. } = self;
        guarded(path, FORMAT, || {
            reader
                .next()
                .transpose()
                .map_err(|e| damaged(path, FORMAT, e))
        })
    }
}

pub(super) fn open(request: &Request<'_>, is_file: bool) -> Result<Source> {
    let first = Batches::open(&request.files[0], is_file)?;
    let selection = Selection::new(&first.schema, &first.path, request)?;
    let dim = match selection.dim {
        Some(dim) => dim,
        None => first_length(&request.files[0], is_file, &selection)?,
    };
    let info = SourceInfo {
        name: request.name.to_owned(),
        format: "arrow ipc".to_owned(),
        files: request.files.len(),
        bytes: request.bytes,
        rows: None,
        dim,
        dtype: selection.dtype,
        vector_column: selection.vector.clone(),
        id_source: selection.id_source(),
        columns: columns::describe(&first.schema),
    };
    for path in &request.files[1..] {
        let other = Selection::new(&Batches::open(path, is_file)?.schema, path, request)?;
        if other != selection {
            return Err(Error::input(
                path.display(),
                format!(
                    "vectors \"{}\" ({}, dimension {}), expected the same columns as in {}",
                    other.vector,
                    other.dtype.name(),
                    other.dim.map_or("variable".to_owned(), |d| d.to_string()),
                    first.path.display()
                ),
            ));
        }
    }
    let blocks = Blocks {
        files: Vec::from(request.files).into_iter(),
        is_file,
        selection,
        dim,
        current: None,
        row: 0,
        offset: 0,
        failed: false,
    };
    Ok(Source {
        info,
        columns: request.options.columns.clone(),
        blocks: Box::new(blocks),
    })
}

/// Length of the first vector that is not null.
fn first_length(path: &Path, is_file: bool, selection: &Selection) -> Result<usize> {
    let mut batches = Batches::open(path, is_file)?;
    while let Some(batch) = batches.next()? {
        let Some(column) = batch.column_by_name(&selection.vector) else {
            continue;
        };
        if let Some(row) = (0..column.len()).find(|&row| column.is_valid(row)) {
            let length = match column.as_list_opt::<i32>() {
                Some(list) => list.value_length(row) as usize,
                None => column.as_list::<i64>().value_length(row) as usize,
            };
            if length > 0 {
                return Ok(length);
            }
        }
    }
    Err(Error::input(
        path.display(),
        format!(
            "column \"{}\" holds no vector, expected at least one",
            selection.vector
        ),
    ))
}

/// The row blocks of all files, batches cut to a moderate size.
struct Blocks {
    files: std::vec::IntoIter<PathBuf>,
    is_file: bool,
    selection: Selection,
    dim: usize,
    /// The open file, and what is left of its last batch.
    current: Option<(Batches, Option<RecordBatch>)>,
    /// Next row of the open file, and its first row in the input.
    row: u64,
    offset: u64,
    failed: bool,
}

impl Blocks {
    fn advance(&mut self) -> Result<Option<RowBlock>> {
        loop {
            let Some((batches, rest)) = &mut self.current else {
                let Some(path) = self.files.next() else {
                    return Ok(None);
                };
                self.offset += self.row;
                self.row = 0;
                self.current = Some((Batches::open(&path, self.is_file)?, None));
                continue;
            };
            let batch = match rest.take() {
                Some(batch) => batch,
                None => match batches.next()? {
                    Some(batch) => batch,
                    None => {
                        self.current = None;
                        continue;
                    }
                },
            };
            let most = (BLOCK_BYTES / (self.dim * self.selection.dtype.bytes())).max(1);
            let rows = batch.num_rows().min(most);
            if batch.num_rows() > rows {
                *rest = Some(batch.slice(rows, batch.num_rows() - rows));
            }
            let block = self.selection.block(
                &batch.slice(0, rows),
                &batches.path,
                self.dim,
                self.row,
                self.offset,
            )?;
            self.row += rows as u64;
            return Ok(Some(block));
        }
    }
}

impl Iterator for Blocks {
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
