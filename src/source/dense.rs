//! Plain matrices: `.npy`, `.npz`, `.safetensors`. Rows are numbered, ids there are none.

use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use npyz::{DType, NpyHeader, Order};
use safetensors::tensor::{Dtype as TensorDtype, Metadata};

use super::{
    BLOCK_BYTES, ColumnInfo, Request, Source, SourceInfo, damaged, guarded, length, open_file,
    unreadable,
};
use crate::embeddings::{Dtype, IdSource, Ids, RowBlock};
use crate::error::{Error, Result};

/// A matrix in a byte stream.
struct Matrix {
    rows: u64,
    dim: usize,
    dtype: Dtype,
    big_endian: bool,
    data: Box<dyn Read + Send>,
}

impl Matrix {
    fn row_bytes(&self) -> usize {
        self.dim * self.dtype.bytes()
    }

    /// The rows as blocks, numbered from 0.
    fn blocks(mut self, path: PathBuf) -> super::Blocks {
        let per_block = (BLOCK_BYTES / self.row_bytes()).max(1) as u64;
        let mut next = 0u64;
        Box::new(std::iter::from_fn(move || {
            let rows = per_block.min(self.rows - next);
            if rows == 0 {
                return None;
            }
            let mut bytes = vec![0u8; rows as usize * self.row_bytes()];
            if let Err(e) = self.data.read_exact(&mut bytes) {
                // What follows a failed read is not a row.
                self.rows = next;
                return Some(Err(unreadable(&path, &e)));
            }
            let mut ids = Ids::new();
            (next..next + rows).for_each(|row| ids.push_integer(row as i64));
            next += rows;
            Some(Ok(RowBlock {
                ids,
                values: decode(&mut bytes, self.dtype, self.big_endian),
                ..RowBlock::default()
            }))
        }))
    }

    fn source(
        self,
        request: &Request<'_>,
        format: &str,
        tensor: &str,
        columns: Vec<ColumnInfo>,
    ) -> Result<Source> {
        let path = &request.files[0];
        if let Some(name) = &request.options.id {
            return Err(Error::input(
                path.display(),
                format!("no column \"{name}\": {format} files hold no ids"),
            )
            .hint("leave --id out; rows are numbered from 0"));
        }
        if let Some(name) = request.options.columns.first() {
            return Err(Error::input(
                path.display(),
                format!("no column \"{name}\": {format} files hold no metadata"),
            ));
        }
        if self.rows == 0 || self.dim == 0 {
            return Err(Error::input(
                path.display(),
                format!(
                    "shape {} × {}, expected at least one row and one value",
                    self.rows, self.dim
                ),
            ));
        }
        let info = SourceInfo {
            name: request.name.to_owned(),
            format: format.to_owned(),
            files: 1,
            bytes: request.bytes,
            rows: Some(self.rows),
            dim: self.dim,
            dtype: self.dtype,
            vector_column: tensor.to_owned(),
            id_source: IdSource::RowNumber,
            columns,
        };
        Ok(Source {
            info,
            columns: Vec::new(),
            blocks: self.blocks(path.clone()),
        })
    }
}

/// Values of stored floats, rounded to f32. `bytes` may be reordered.
fn decode(bytes: &mut [u8], dtype: Dtype, big_endian: bool) -> Vec<f32> {
    let size = dtype.bytes();
    if big_endian {
        bytes.chunks_exact_mut(size).for_each(<[u8]>::reverse);
    }
    match dtype {
        Dtype::F16 => {
            let (values, _) = bytes.as_chunks::<2>();
            values
                .iter()
                .map(|&v| half::f16::from_le_bytes(v).to_f32())
                .collect()
        }
        Dtype::F32 => {
            let (values, _) = bytes.as_chunks::<4>();
            values.iter().map(|&v| f32::from_le_bytes(v)).collect()
        }
        Dtype::F64 => {
            let (values, _) = bytes.as_chunks::<8>();
            values
                .iter()
                .map(|&v| f64::from_le_bytes(v) as f32)
                .collect()
        }
    }
}

pub(super) fn open_npy(request: &Request<'_>) -> Result<Source> {
    let path = &request.files[0];
    if let Some(name) = request.vector {
        return Err(Error::input(
            path.display(),
            format!("no tensor \"{name}\": an npy file holds one array"),
        )
        .hint("leave the #name out"));
    }
    let mut file = open_file(path)?;
    let size = length(&mut file, path)?;
    let (matrix, kind) = npy_matrix(BufReader::with_capacity(1 << 20, file), size, path)?;
    let columns = vec![ColumnInfo {
        name: "array".to_owned(),
        kind,
    }];
    matrix.source(request, "npy", "array", columns)
}

/// The matrix in an npy stream of `size` bytes, and its type in words.
fn npy_matrix(
    mut stream: impl Read + Seek + Send + 'static,
    size: u64,
    path: &Path,
) -> Result<(Matrix, String)> {
    let broken = |e: &dyn std::fmt::Display| damaged(path, "npy", e);
    // The header's length comes first; a damaged one must not be believed.
    let mut start = [0u8; 12];
    stream.read_exact(&mut start).map_err(|e| broken(&e))?;
    let (text, before) = if start[6] == 1 {
        (u64::from(u16::from_le_bytes([start[8], start[9]])), 10)
    } else {
        (
            u64::from(u32::from_le_bytes([
                start[8], start[9], start[10], start[11],
            ])),
            12,
        )
    };
    if before + text > size {
        return Err(broken(&format!(
            "a header of {text} bytes in a file of {size}"
        )));
    }
    stream.rewind().map_err(|e| unreadable(path, &e))?;
    let header = guarded(path, "npy", || {
        NpyHeader::from_reader(&mut stream).map_err(|e| broken(&e))
    })?;
    let shape = header.shape().to_vec();
    let kind = match header.dtype() {
        DType::Plain(kind) => kind.to_string(),
        other => other.descr(),
    };
    let words = format!("{kind}, shape {shape:?}");
    let (dtype, big_endian) = match kind.as_str() {
        "<f2" => (Dtype::F16, false),
        ">f2" => (Dtype::F16, true),
        "<f4" => (Dtype::F32, false),
        ">f4" => (Dtype::F32, true),
        "<f8" => (Dtype::F64, false),
        ">f8" => (Dtype::F64, true),
        _ => {
            return Err(Error::input(
                path.display(),
                format!(
                    "an array of type {kind}, expected f2, f4 or f8 (float16, float32, float64)"
                ),
            ));
        }
    };
    let &[rows, dim] = shape.as_slice() else {
        return Err(Error::input(
            path.display(),
            format!("an array of shape {shape:?}, expected two dimensions: rows × values"),
        ));
    };
    let at = stream.stream_position().map_err(|e| unreadable(path, &e))?;
    let needed = u128::from(rows) * u128::from(dim) * dtype.bytes() as u128;
    if u128::from(size - at) < needed {
        return Err(broken(&format!(
            "{} bytes of values, expected {needed}",
            size - at
        )));
    }
    let dim = dim as usize;
    let data: Box<dyn Read + Send> = match header.order() {
        Order::C => Box::new(stream),
        // Columns lie together: rows exist only once all of it is read.
        Order::Fortran => {
            let mut bytes = vec![0u8; needed as usize];
            stream
                .read_exact(&mut bytes)
                .map_err(|e| unreadable(path, &e))?;
            Box::new(Cursor::new(transposed(
                &bytes,
                rows as usize,
                dim,
                dtype.bytes(),
            )))
        }
    };
    Ok((
        Matrix {
            rows,
            dim,
            dtype,
            big_endian,
            data,
        },
        words,
    ))
}

/// Column-major elements of `size` bytes as row-major ones.
fn transposed(bytes: &[u8], rows: usize, dim: usize, size: usize) -> Vec<u8> {
    let mut turned = Vec::with_capacity(bytes.len());
    for row in 0..rows {
        for column in 0..dim {
            let at = (column * rows + row) * size;
            turned.extend_from_slice(&bytes[at..at + size]);
        }
    }
    turned
}

pub(super) fn open_npz(request: &Request<'_>) -> Result<Source> {
    let path = &request.files[0];
    let file = BufReader::new(open_file(path)?);
    let broken = |e: &dyn std::fmt::Display| damaged(path, "npz", e);
    let mut archive = guarded(path, "npz", || {
        npyz::npz::NpzArchive::new(file).map_err(|e| broken(&e))
    })?;
    let names: Vec<String> = archive.array_names().map(str::to_owned).collect();
    let mut columns = Vec::new();
    let mut candidates = Vec::new();
    for name in &names {
        let described = guarded(path, "npz", || {
            let array = archive.by_name(name).map_err(|e| broken(&e))?;
            Ok(array.map(|a| (a.dtype().descr(), a.shape().to_vec())))
        })?;
        if let Some((kind, shape)) = described {
            if shape.len() == 2 && kind.contains('f') {
                candidates.push(name.clone());
            }
            columns.push(ColumnInfo {
                name: name.clone(),
                kind: format!("{kind}, shape {shape:?}"),
            });
        }
    }
    let chosen = choose(request, &names, &candidates, "two-dimensional float array")?;
    // A zip member cannot be sought in: it is unpacked whole, and no further than its own size says.
    let bytes = guarded(path, "npz", || {
        let zip = archive.zip_archive();
        let mut member = zip
            .by_name(&npyz::npz::file_name_from_array_name(&chosen))
            .map_err(|e| broken(&e))?;
        let mut bytes = Vec::new();
        member.read_to_end(&mut bytes).map_err(|e| broken(&e))?;
        Ok(bytes)
    })?;
    let size = bytes.len() as u64;
    let (matrix, _) = npy_matrix(Cursor::new(bytes), size, path)?;
    matrix.source(request, "npz", &chosen, columns)
}

/// The tensor that was named, or the only candidate.
fn choose(
    request: &Request<'_>,
    names: &[String],
    candidates: &[String],
    what: &str,
) -> Result<String> {
    let place = request.files[0].display();
    let listed = || {
        if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        }
    };
    match (request.vector, candidates) {
        (Some(name), _) if names.iter().any(|n| n == name) => Ok(name.to_owned()),
        (Some(name), _) => Err(Error::input(place, format!("no tensor \"{name}\""))
            .hint(format!("the tensors are: {}", listed()))),
        (None, [only]) => Ok(only.clone()),
        (None, []) => Err(Error::input(place, format!("no {what}"))
            .hint(format!("the tensors are: {}", listed()))),
        (None, [first, second, ..]) => Err(Error::input(
            place,
            format!("two tensors could be the vectors, \"{first}\" and \"{second}\", expected one"),
        )
        .hint(format!("pick one: {}#{first}", request.name))),
    }
}

pub(super) fn open_safetensors(request: &Request<'_>) -> Result<Source> {
    let path = &request.files[0];
    let broken = |e: &dyn std::fmt::Display| damaged(path, "safetensors", e);
    let mut file = open_file(path)?;
    let size = length(&mut file, path)?;
    let mut prefix = [0u8; 8];
    file.read_exact(&mut prefix).map_err(|e| broken(&e))?;
    let text = u64::from_le_bytes(prefix);
    if text > size.saturating_sub(8) {
        return Err(broken(&format!(
            "a header of {text} bytes in a file of {size}"
        )));
    }
    let mut header = vec![0u8; text as usize];
    file.read_exact(&mut header).map_err(|e| broken(&e))?;
    // The library reads whole files only; its header type knows and checks the format.
    let metadata: Metadata = guarded(path, "safetensors", || {
        serde_json::from_slice(&header).map_err(|e| broken(&e))
    })?;
    let tensors = metadata.tensors();
    let mut names: Vec<String> = tensors.keys().cloned().collect();
    names.sort();
    let dtype = |kind: TensorDtype| match kind {
        TensorDtype::F16 => Some(Dtype::F16),
        TensorDtype::F32 => Some(Dtype::F32),
        TensorDtype::F64 => Some(Dtype::F64),
        _ => None,
    };
    let columns = names
        .iter()
        .map(|n| ColumnInfo {
            name: n.clone(),
            kind: format!("{:?}, shape {:?}", tensors[n].dtype, tensors[n].shape),
        })
        .collect();
    let candidates: Vec<String> = names
        .iter()
        .filter(|n| tensors[*n].shape.len() == 2 && dtype(tensors[*n].dtype).is_some())
        .cloned()
        .collect();
    let chosen = choose(
        request,
        &names,
        &candidates,
        "two-dimensional tensor of F16, F32 or F64",
    )?;
    let tensor = tensors[&chosen];
    let (&[rows, dim], Some(dtype)) = (tensor.shape.as_slice(), dtype(tensor.dtype)) else {
        return Err(Error::input(
            path.display(),
            format!(
                "tensor \"{chosen}\" is {:?} of shape {:?}, expected two dimensions of F16, F32 or F64",
                tensor.dtype, tensor.shape
            ),
        ));
    };
    let start = (8 + text).saturating_add(tensor.data_offsets.0 as u64);
    let needed = rows as u128 * dim as u128 * dtype.bytes() as u128;
    if u128::from(size.saturating_sub(start)) < needed {
        return Err(broken(&format!(
            "{} bytes of values, expected {needed}",
            size.saturating_sub(start)
        )));
    }
    file.seek(SeekFrom::Start(start))
        .map_err(|e| unreadable(path, &e))?;
    let data = Box::new(BufReader::with_capacity(1 << 20, file));
    Matrix {
        rows: rows as u64,
        dim,
        dtype,
        big_endian: false,
        data,
    }
    .source(request, "safetensors", &chosen, columns)
}
