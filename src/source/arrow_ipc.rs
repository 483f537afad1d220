//! Arrow IPC: the file and the stream format.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use arrow::ipc::{root_as_footer, root_as_message};

use super::columns::{self, Selection};
use super::{
    BLOCK_BYTES, Request, Source, SourceInfo, damaged, guarded, length, open_file, unreadable,
};
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

/// What precedes a message's metadata: a mark, which old writers left out, and the metadata's length.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Rows of all batches, from the batches' headers: their values are passed over, not read.
fn count_rows(path: &Path, is_file: bool) -> Result<u64> {
    let mut file = open_file(path)?;
    let size = length(&mut file, path)?;
    let mut file = BufReader::new(file);
    let broken = |fact: &dyn std::fmt::Display| damaged(path, FORMAT, fact);
    let mut total = 0u64;
    if is_file {
        for at in batch_offsets(path, &mut file, size)? {
            file.seek(SeekFrom::Start(at))
                .map_err(|e| unreadable(path, &e))?;
            let (rows, _) = message(path, &mut file, size)?
                .ok_or_else(|| broken(&"an end of stream where a batch is promised"))?;
            total = total.saturating_add(rows);
        }
    } else {
        while let Some((rows, body)) = message(path, &mut file, size)? {
            total = total.saturating_add(rows);
            // A body that ends beyond the file is found when it is read.
            file.seek_relative(body).map_err(|e| unreadable(path, &e))?;
        }
    }
    Ok(total)
}

/// Where the batches of a file begin, from its footer.
fn batch_offsets(path: &Path, file: &mut (impl Read + Seek), size: u64) -> Result<Vec<u64>> {
    let broken = |fact: &dyn std::fmt::Display| damaged(path, FORMAT, fact);
    // The footer, its length and the closing mark.
    let mut end = [0u8; 10];
    file.seek(SeekFrom::End(-(end.len() as i64)))
        .and_then(|_| file.read_exact(&mut end))
        .map_err(|e| broken(&e))?;
    let text = u64::from(u32::from_le_bytes([end[0], end[1], end[2], end[3]]));
    if text + end.len() as u64 > size {
        return Err(broken(&format!(
            "a footer of {text} bytes in a file of {size}"
        )));
    }
    let mut footer = vec![0u8; text as usize];
    file.seek(SeekFrom::Start(size - end.len() as u64 - text))
        .and_then(|_| file.read_exact(&mut footer))
        .map_err(|e| broken(&e))?;
    guarded(path, FORMAT, || {
        let footer = root_as_footer(&footer).map_err(|e| broken(&e))?;
        let blocks = footer.recordBatches();
        Ok(blocks
            .iter()
            .flatten()
            .map(|block| block.offset().max(0) as u64)
            .collect())
    })
}

/// Rows of the next message (0 unless it is a batch) and the bytes of its body; `None` at the end.
fn message(path: &Path, file: &mut impl Read, size: u64) -> Result<Option<(u64, i64)>> {
    let broken = |fact: &dyn std::fmt::Display| damaged(path, FORMAT, fact);
    let mut word = [0u8; 4];
    match file.read_exact(&mut word) {
        // A stream may end without saying so.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read.map_err(|e| unreadable(path, &e))?,
    }
    if word == CONTINUATION {
        file.read_exact(&mut word).map_err(|e| broken(&e))?;
    }
    let text = u64::from(u32::from_le_bytes(word));
    if text == 0 {
        return Ok(None);
    }
    if text > size {
        return Err(broken(&format!(
            "a header of {text} bytes in a file of {size}"
        )));
    }
    let mut header = vec![0u8; text as usize];
    file.read_exact(&mut header).map_err(|e| broken(&e))?;
    guarded(path, FORMAT, || {
        let message = root_as_message(&header).map_err(|e| broken(&e))?;
        let rows = message.header_as_record_batch().map_or(0, |b| b.length());
        Ok(Some((rows.max(0) as u64, message.bodyLength().max(0))))
    })
}

pub(super) fn open(request: &Request<'_>, is_file: bool) -> Result<Source> {
    let first = Batches::open(&request.files[0], is_file)?;
    let selection = Selection::new(&first.schema, &first.path, request)?;
    let dim = match selection.dim {
        Some(dim) => dim,
        None => first_length(&request.files[0], is_file, &selection)?,
    };
    let mut rows = 0u64;
    for path in request.files {
        rows = rows.saturating_add(count_rows(path, is_file)?);
    }
    let info = SourceInfo {
        name: request.name.to_owned(),
        format: "arrow ipc".to_owned(),
        files: request.files.len(),
        bytes: request.bytes,
        rows: Some(rows),
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
