//! Plain matrices: `.npy`, `.npz`, `.safetensors`. Rows are numbered, ids there are none.

use std::fs::File;
use std::io::{BufReader, Cursor, ErrorKind, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, sync_channel};

use half::slice::HalfFloatSliceExt;
use npyz::npz::{NpzArchive, file_name_from_array_name};
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
    layout: Layout,
    /// The values, row after row.
    data: Box<dyn Read + Send>,
    /// Whether what stands at the end of `data` tells if all of it was sound.
    sealed: bool,
}

/// How the values of a matrix lie in their bytes.
#[derive(Debug, Clone, Copy)]
struct Layout {
    rows: u64,
    dim: usize,
    dtype: Dtype,
    big_endian: bool,
}

impl Layout {
    fn row_bytes(&self) -> usize {
        self.dim * self.dtype.bytes()
    }

    /// Rows that are read at a time.
    fn block_rows(&self) -> u64 {
        (BLOCK_BYTES / self.row_bytes()).max(1) as u64
    }
}

impl Matrix {
    /// The rows as blocks, numbered from 0.
    fn blocks(self, path: PathBuf, format: String) -> super::Blocks {
        let Self {
            layout,
            mut data,
            mut sealed,
        } = self;
        let mut next = 0u64;
        let mut left = layout.rows;
        let mut bytes = Vec::new();
        let failed = move |e: &std::io::Error| match e.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => damaged(&path, &format, e),
            _ => unreadable(&path, e),
        };
        Box::new(std::iter::from_fn(move || {
            let rows = layout.block_rows().min(left);
            if rows == 0 {
                let unsealed = std::mem::take(&mut sealed)
                    .then(|| std::io::copy(&mut data, &mut std::io::sink()));
                return unsealed.and_then(|end| end.err()).map(|e| Err(failed(&e)));
            }
            bytes.resize(rows as usize * layout.row_bytes(), 0);
            if let Err(e) = data.read_exact(&mut bytes) {
                // What follows a failed read is not a row.
                (left, sealed) = (0, false);
                return Some(Err(failed(&e)));
            }
            let mut ids = Ids::new();
            (next..next + rows).for_each(|row| ids.push_integer(row as i64));
            next += rows;
            left -= rows;
            Some(Ok(RowBlock {
                ids,
                values: decode(&mut bytes, layout.dtype, layout.big_endian),
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
        let Layout {
            rows, dim, dtype, ..
        } = self.layout;
        if rows == 0 || dim == 0 {
            return Err(Error::input(
                path.display(),
                format!("shape {rows} × {dim}, expected at least one row and one value"),
            ));
        }
        let info = SourceInfo {
            name: request.name.to_owned(),
            format: format.to_owned(),
            files: 1,
            bytes: request.bytes,
            rows: Some(rows),
            dim,
            dtype,
            vector_column: tensor.to_owned(),
            id_source: IdSource::RowNumber,
            columns,
        };
        Ok(Source {
            info,
            columns: Vec::new(),
            blocks: self.blocks(path.clone(), format.to_owned()),
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
            // Many at a time, which the processor's own instruction converts.
            const MANY: usize = 64;
            let (values, _) = bytes.as_chunks::<2>();
            let mut decoded = Vec::with_capacity(values.len());
            let (mut halves, mut floats) = ([half::f16::ZERO; MANY], [0.0; MANY]);
            for values in values.chunks(MANY) {
                for (half, &value) in halves.iter_mut().zip(values) {
                    *half = half::f16::from_le_bytes(value);
                }
                let count = values.len();
                halves[..count].convert_to_f32_slice(&mut floats[..count]);
                decoded.extend_from_slice(&floats[..count]);
            }
            decoded
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
    let npy = Npy::read(&mut BufReader::new(&mut file), size, path)?;
    file.seek(SeekFrom::Start(npy.at))
        .map_err(|e| unreadable(path, &e))?;
    let data: Box<dyn Read + Send> = match npy.order {
        Order::C => Box::new(BufReader::with_capacity(1 << 20, file)),
        Order::Fortran => Box::new(ColumnMajor::new(file, npy.at, npy.layout)),
    };
    let columns = vec![ColumnInfo {
        name: "array".to_owned(),
        kind: npy.words,
    }];
    let matrix = Matrix {
        layout: npy.layout,
        data,
        sealed: false,
    };
    matrix.source(request, "npy", "array", columns)
}

/// What the header of an npy stream says.
struct Npy {
    layout: Layout,
    order: Order,
    /// Where the values begin.
    at: u64,
    /// Type and shape.
    words: String,
}

impl Npy {
    /// Reads the header of a stream of `size` bytes, up to where the values begin.
    fn read(stream: &mut impl Read, size: u64, path: &Path) -> Result<Self> {
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
        let at = before + text;
        if at > size {
            return Err(broken(&format!(
                "a header of {text} bytes in a file of {size}"
            )));
        }
        let header = guarded(path, "npy", || {
            NpyHeader::from_reader(start.as_slice().chain(stream)).map_err(|e| broken(&e))
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
        let needed = u128::from(rows) * u128::from(dim) * dtype.bytes() as u128;
        if u128::from(size - at) < needed {
            return Err(broken(&format!(
                "{} bytes of values, expected {needed}",
                size - at
            )));
        }
        Ok(Self {
            layout: Layout {
                rows,
                dim: dim as usize,
                dtype,
                big_endian,
            },
            order: header.order(),
            at,
            words,
        })
    }
}

/// Column-major values read as row-major ones: some rows at a time, a piece of every column for each.
struct ColumnMajor<R> {
    source: R,
    /// Where the values begin.
    at: u64,
    layout: Layout,
    next_row: u64,
    turned: Cursor<Vec<u8>>,
}

impl<R: Read + Seek> ColumnMajor<R> {
    fn new(source: R, at: u64, layout: Layout) -> Self {
        Self {
            source,
            at,
            layout,
            next_row: 0,
            turned: Cursor::default(),
        }
    }

    /// Turns the next rows, none after the last.
    fn turn(&mut self) -> std::io::Result<()> {
        let Layout {
            rows, dim, dtype, ..
        } = self.layout;
        let (size, count) = (
            dtype.bytes(),
            self.layout.block_rows().min(rows - self.next_row),
        );
        let mut piece = vec![0u8; count as usize * size];
        let mut turned = vec![0u8; piece.len() * dim];
        if count > 0 {
            for column in 0..dim {
                let first = column as u64 * rows + self.next_row;
                self.source
                    .seek(SeekFrom::Start(self.at + first * size as u64))?;
                self.source.read_exact(&mut piece)?;
                let to = turned[column * size..].chunks_mut(dim * size);
                for (value, to) in piece.chunks_exact(size).zip(to) {
                    to[..size].copy_from_slice(value);
                }
            }
        }
        self.next_row += count;
        self.turned = Cursor::new(turned);
        Ok(())
    }
}

impl<R: Read + Seek> Read for ColumnMajor<R> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let read = self.turned.read(to)?;
        if read > 0 || to.is_empty() {
            return Ok(read);
        }
        self.turn()?;
        self.turned.read(to)
    }
}

pub(super) fn open_npz(request: &Request<'_>) -> Result<Source> {
    let path = &request.files[0];
    let file = BufReader::new(open_file(path)?);
    let broken = |e: &dyn std::fmt::Display| damaged(path, "npz", e);
    let mut archive = guarded(path, "npz", || {
        NpzArchive::new(file).map_err(|e| broken(&e))
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
    let (mut data, size) = Unpacked::start(archive, &chosen, path)?;
    let npy = Npy::read(&mut data, size, path)?;
    let data: Box<dyn Read + Send> = match npy.order {
        Order::C => Box::new(data),
        // A member cannot be sought in, and its rows lie all over it: it is unpacked whole.
        Order::Fortran => {
            let mut bytes = Vec::new();
            data.read_to_end(&mut bytes).map_err(|e| broken(&e))?;
            Box::new(ColumnMajor::new(Cursor::new(bytes), 0, npy.layout))
        }
    };
    let matrix = Matrix {
        layout: npy.layout,
        data,
        sealed: npy.order == Order::C,
    };
    matrix.source(request, "npz", &chosen, columns)
}

/// A member of an archive as a stream. It is unpacked by a thread of its own, because the unpacking
/// reader cannot leave its archive; a few pieces wait at most.
struct Unpacked {
    pieces: Receiver<std::io::Result<Vec<u8>>>,
    current: Cursor<Vec<u8>>,
}

impl Unpacked {
    /// Bytes of a piece, and pieces that wait.
    const PIECE: u64 = 1 << 20;
    const WAITING: usize = 4;

    /// Starts unpacking; also the size that the archive states.
    fn start(
        mut archive: NpzArchive<BufReader<File>>,
        array: &str,
        path: &Path,
    ) -> Result<(Self, u64)> {
        let broken = |e: &dyn std::fmt::Display| damaged(path, "npz", e);
        let member = file_name_from_array_name(array);
        let size = guarded(path, "npz", || {
            let member = archive.zip_archive().by_name(&member);
            Ok(member.map_err(|e| broken(&e))?.size())
        })?;
        let (to, pieces) = sync_channel(Self::WAITING);
        let unpack = move || {
            let mut unpacked = || -> std::io::Result<()> {
                let mut member = archive.zip_archive().by_name(&member)?;
                loop {
                    let mut piece = Vec::with_capacity(Self::PIECE as usize);
                    (&mut member).take(Self::PIECE).read_to_end(&mut piece)?;
                    // Nothing is left to tell, or nobody listens any more.
                    if piece.is_empty() || to.send(Ok(piece)).is_err() {
                        return Ok(());
                    }
                }
            };
            let error = match catch_unwind(AssertUnwindSafe(&mut unpacked)) {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(_) => "its decoder gave up".to_owned(),
            };
            // A listener that went away needs no error.
            let _ = to.send(Err(std::io::Error::new(ErrorKind::InvalidData, error)));
        };
        std::thread::Builder::new()
            .name("vecdrift-unpack".to_owned())
            .spawn(unpack)
            .map_err(|e| unreadable(path, &e))?;
        let current = Cursor::default();
        Ok((Self { pieces, current }, size))
    }
}

impl Read for Unpacked {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.current.read(to)?;
            if read > 0 || to.is_empty() {
                return Ok(read);
            }
            match self.pieces.recv() {
                Ok(piece) => self.current = Cursor::new(piece?),
                Err(_) => return Ok(0),
            }
        }
    }
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
        layout: Layout {
            rows: rows as u64,
            dim,
            dtype,
            big_endian: false,
        },
        data,
        sealed: false,
    }
    .source(request, "safetensors", &chosen, columns)
}
