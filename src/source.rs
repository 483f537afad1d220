//! Reading embeddings: an input named by the user becomes a stream of row blocks.
//!
//! [`open`] reads headers and footers only: it finds the format by content, the columns by rule, and
//! reports what is wrong before any work is done. Only this module knows file formats.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{
    Collector, Dtype, Embeddings, IdSource, Roster, RowBlock, RowStream, Values,
};
use crate::error::{Error, Result};

mod arrow_ipc;
mod columns;
mod dense;
mod parquet;
mod tensors;
mod vectors;
pub mod write;

pub use columns::read_text_columns;
pub use tensors::Tensors;
pub use vectors::{VectorFormat, VectorShape, write_vectors};

/// Bytes of values that one row block holds at most, about.
const BLOCK_BYTES: usize = 4 << 20;

/// Id columns looked for, in this order, where none is named.
const ID_COLUMNS: [&str; 3] = ["id", "_id", "doc_id"];

/// How the columns of an input are found.
#[derive(Debug, Clone, Default)]
pub struct ReadOptions {
    /// Id column; `None`: the first of `id`, `_id`, `doc_id`, else the row number.
    pub id: Option<String>,
    /// Metadata columns wanted as text.
    pub columns: Vec<String>,
}

/// Name of the note that makes a Parquet file a sketch.
pub const SKETCH_NOTE: &str = "vecdrift.sketch";

/// [`SourceInfo::format`] of a sketch that is read as embeddings: all it has are the rows it kept.
pub const LANDMARKS: &str = "landmarks of a sketch";

/// What an input holds, as far as headers tell.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SourceInfo {
    /// The input as the user named it.
    pub name: String,
    /// `parquet`, `arrow ipc`, `npy`, `npz`, `safetensors` or `landmarks of a sketch`.
    pub format: String,
    /// Number of files.
    pub files: usize,
    /// Their size.
    pub bytes: u64,
    /// Rows, sound or not, as far as headers tell.
    pub rows: Option<u64>,
    /// Values per row, d.
    pub dim: usize,
    /// Element type as stored.
    pub dtype: Dtype,
    /// The vector column or tensor.
    pub vector_column: String,
    /// Where ids come from.
    pub id_source: IdSource,
    /// Every column or tensor of the (first) file.
    pub columns: Vec<ColumnInfo>,
}

/// A column or tensor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ColumnInfo {
    /// Its name.
    pub name: String,
    /// Its type, in the format's words.
    #[serde(rename = "type")]
    pub kind: String,
}

/// Row blocks in file order.
type Blocks = Box<dyn Iterator<Item = Result<RowBlock>> + Send>;

/// An opened input.
pub struct Source {
    info: SourceInfo,
    columns: Vec<String>,
    blocks: Blocks,
}

impl Source {
    /// What headers tell.
    pub fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// The rows, block by block.
    pub fn blocks(self) -> Box<dyn Iterator<Item = Result<RowBlock>> + Send> {
        self.blocks
    }

    /// The sound rows, read and checked as they are asked for.
    pub fn stream(self) -> SoundRows {
        // Values that pass are held for a moment only: converted once.
        SoundRows::new(self, Values::of(Dtype::F32))
    }

    /// Reads and checks every row; `on_rows` hears how many each block had.
    ///
    /// # Errors
    /// A block cannot be read, an id stands twice, or no row is usable.
    pub fn read(self, on_rows: &mut dyn FnMut(u64)) -> Result<Embeddings> {
        let info = &self.info;
        // A count in a damaged header must not reserve memory that the file cannot fill.
        let plausible = info.bytes / (info.dim * info.dtype.bytes()) as u64 * 16;
        let rows = info.rows.unwrap_or(0).min(plausible) as usize;
        let held = Values::of(info.dtype);
        let mut sound = SoundRows::new(self, held);
        sound.collector.reserve(rows)?;
        while let Some(rows) = sound.next_block()? {
            on_rows(rows);
        }
        sound.collector.finish()
    }
}

/// The sound rows of an input as a stream: blocks are read, converted to f32 and checked on the thread
/// that asks for rows, and never more of them are held than it asks for and a block.
pub struct SoundRows {
    info: SourceInfo,
    blocks: Blocks,
    collector: Collector,
    taken: usize,
}

impl SoundRows {
    fn new(source: Source, values: Values) -> Self {
        let Source {
            info,
            columns,
            blocks,
        } = source;
        let collector = Collector::new(
            info.name.clone(),
            info.dim,
            (info.dtype, values),
            info.id_source.clone(),
            &columns,
        );
        Self {
            info,
            blocks,
            collector,
            taken: 0,
        }
    }

    /// Reads a block; how many rows it had, `None` after the last one.
    fn next_block(&mut self) -> Result<Option<u64>> {
        let Some(block) = self.blocks.next().transpose()? else {
            return Ok(None);
        };
        self.collector.push(&block);
        Ok(Some(block.ids.len() as u64))
    }

    /// Reads to the end and says what the input was.
    ///
    /// # Errors
    /// A block cannot be read, an id stands twice, no row is usable, or rows are left that nobody asked
    /// for: more than the headers promised.
    pub fn finish(mut self) -> Result<Roster> {
        while self.collector.waiting() == 0 && self.next_block()?.is_some() {}
        if self.collector.waiting() > 0 {
            return Err(Error::input(
                &self.info.name,
                format!(
                    "more rows than the {} that its headers promise",
                    self.info.rows.unwrap_or(0)
                ),
            )
            .hint("is it still being written?"));
        }
        self.collector.finish_stream()
    }
}

impl RowStream<'static> for SoundRows {
    fn dim(&self) -> usize {
        self.info.dim
    }

    fn most_rows(&self) -> usize {
        (self.info.rows.unwrap_or(0) as usize).saturating_sub(self.taken)
    }

    fn next_rows(&mut self, rows: usize) -> Result<Cow<'static, [f32]>> {
        while self.collector.waiting() < rows && self.next_block()?.is_some() {}
        let values = self.collector.take(rows)?;
        self.taken += values.len() / self.info.dim;
        Ok(Cow::Owned(values))
    }
}

/// The file formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    ArrowFile,
    ArrowStream,
    Npy,
    Npz,
    Safetensors,
}

impl Format {
    fn label(self) -> &'static str {
        match self {
            Self::Parquet => "Parquet",
            Self::ArrowFile | Self::ArrowStream => "Arrow IPC",
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Safetensors => "safetensors",
        }
    }

    /// What the extension promises.
    fn by_name(path: &Path) -> Option<&'static str> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "parquet" | "pq" => Some("Parquet"),
            "arrow" | "feather" | "ipc" | "arrows" => Some("Arrow IPC"),
            "npy" => Some("npy"),
            "npz" => Some("npz"),
            "safetensors" => Some("safetensors"),
            _ => None,
        }
    }

    /// What the first bytes say.
    fn by_content(path: &Path) -> Result<Self> {
        let mut head = [0u8; 16];
        let mut file = open_file(path)?;
        let mut filled = 0;
        while filled < head.len() {
            match file.read(&mut head[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) => return Err(unreadable(path, &e)),
            }
        }
        let head = &head[..filled];
        let promised = Self::by_name(path);
        if head.is_empty() {
            return Err(
                Error::input(path.display(), "the file is empty, expected embeddings")
                    .hint("was it written completely?"),
            );
        }
        let found = match head {
            _ if head.starts_with(b"PAR1") => Some(Self::Parquet),
            _ if head.starts_with(b"ARROW1") => Some(Self::ArrowFile),
            _ if head.starts_with(&[0xff, 0xff, 0xff, 0xff]) => Some(Self::ArrowStream),
            _ if head.starts_with(b"\x93NUMPY") => Some(Self::Npy),
            _ if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") => {
                Some(Self::Npz)
            }
            [_, _, _, _, _, 0, 0, 0, b'{', ..] => Some(Self::Safetensors),
            _ => None,
        };
        match (found, promised) {
            (Some(found), Some(promised)) if found.label() != promised => Err(Error::input(
                path.display(),
                format!(
                    "holds {} data, expected {promised} by its name",
                    found.label()
                ),
            )
            .hint("rename the file to what it is")),
            (Some(found), _) => Ok(found),
            (None, Some(promised)) => Err(Error::input(
                path.display(),
                format!("is no {promised} file, though its name says so"),
            )
            .hint("the file may be damaged, encrypted or of another format")),
            (None, None) => Err(Error::input(
                path.display(),
                "is of an unknown format, expected Parquet, Arrow IPC, .npy, .npz or .safetensors",
            )),
        }
    }
}

/// Opens an input: a path, folder or glob, optionally with `#column`.
///
/// # Errors
/// Nothing is there, it is damaged or of another format than it claims, or it holds no vector column, or
/// more than one.
pub fn open(input: &str, options: &ReadOptions) -> Result<Source> {
    let (path, vector) = split_column(input);
    let files = find_files(path)?;
    let mut bytes = 0;
    for file in &files {
        let metadata = std::fs::metadata(file).map_err(|e| unreadable(file, &e))?;
        bytes += metadata.len();
    }
    let formats = files
        .iter()
        .map(|f| Format::by_content(f))
        .collect::<Result<Vec<_>>>()?;
    let format = formats[0];
    if let Some(other) = formats.iter().position(|&f| f != format) {
        return Err(Error::input(
            files[other].display(),
            format!(
                "holds {} data, expected {} as in {}",
                formats[other].label(),
                format.label(),
                files[0].display()
            ),
        ));
    }
    if files.len() > 1
        && !matches!(
            format,
            Format::Parquet | Format::ArrowFile | Format::ArrowStream
        )
    {
        return Err(Error::input(
            path,
            format!("{} {} files, expected one", files.len(), format.label()),
        )
        .hint("only Parquet and Arrow IPC may come in parts"));
    }
    let request = Request {
        name: input,
        files: &files,
        bytes,
        vector,
        options,
    };
    match format {
        Format::Parquet => parquet::open(&request),
        Format::ArrowFile => arrow_ipc::open(&request, true),
        Format::ArrowStream => arrow_ipc::open(&request, false),
        Format::Npy => dense::open_npy(&request),
        Format::Npz => dense::open_npz(&request),
        Format::Safetensors => dense::open_safetensors(&request),
    }
}

/// Whether a file begins as Parquet does.
///
/// # Errors
/// The file cannot be read.
pub fn is_parquet(path: &str) -> Result<bool> {
    let mut magic = Vec::new();
    let path = Path::new(path);
    open_file(path)?
        .take(4)
        .read_to_end(&mut magic)
        .map_err(|e| unreadable(path, &e))?;
    Ok(magic == b"PAR1")
}

/// The note of this name in a Parquet file's metadata; `None` in any other input.
///
/// # Errors
/// The file cannot be read, or is damaged.
pub fn read_note(input: &str, name: &str) -> Result<Option<String>> {
    let path = Path::new(input);
    if path.is_file() && is_parquet(input)? {
        parquet::note(path, name)
    } else {
        Ok(None)
    }
}

/// What a format's reader is asked for.
struct Request<'a> {
    name: &'a str,
    files: &'a [PathBuf],
    bytes: u64,
    vector: Option<&'a str>,
    options: &'a ReadOptions,
}

/// `path#column`, unless a file of the whole name exists.
fn split_column(input: &str) -> (&str, Option<&str>) {
    match input.rsplit_once('#') {
        Some((path, column)) if !Path::new(input).exists() && !column.is_empty() => {
            (path, Some(column))
        }
        _ => (input, None),
    }
}

/// The files behind a path, folder or glob, in order of name.
fn find_files(path: &str) -> Result<Vec<PathBuf>> {
    let given = Path::new(path);
    let hidden = |p: &Path| {
        p.file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with(['.', '_']))
    };
    let mut files: Vec<PathBuf> = if given.is_dir() {
        std::fs::read_dir(given)
            .map_err(|e| unreadable(given, &e))?
            .map(|entry| entry.map(|e| e.path()).map_err(|e| unreadable(given, &e)))
            .collect::<Result<_>>()?
    } else if given.exists() {
        return Ok(vec![given.to_owned()]);
    } else if path.contains(['*', '?', '[']) {
        glob::glob(path)
            .map_err(|e| Error::input(path, format!("is no valid glob: {e}")))?
            .collect::<std::result::Result<_, _>>()
            .map_err(|e| Error::input(path, e))?
    } else {
        return Err(Error::input(path, "no such file or folder").hint(
            "an input is a file, a folder of Parquet parts or a glob; quote globs and #names",
        ));
    };
    files.retain(|p| p.is_file() && !hidden(p));
    files.sort();
    if files.is_empty() {
        return Err(Error::input(path, "no files, expected at least one")
            .hint("names that begin with . or _ do not count"));
    }
    Ok(files)
}

fn open_file(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| unreadable(path, &e))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::input(path.display(), format!("cannot be read: {error}"))
}

/// A decoder's complaint about a damaged file.
fn damaged(path: &Path, format: &str, error: impl std::fmt::Display) -> Error {
    Error::input(
        path.display(),
        format!("is no complete {format} file: {error}"),
    )
    .hint("was it written completely?")
}

/// Runs a third-party decoder, which may panic on damaged files, and makes that an error.
fn guarded<T>(path: &Path, format: &str, decode: impl FnOnce() -> Result<T>) -> Result<T> {
    let hook = std::panic::AssertUnwindSafe(decode);
    std::panic::catch_unwind(hook)
        .unwrap_or_else(|_| Err(damaged(path, format, "its decoder gave up")))
}

/// Size of a file that stays open.
fn length(file: &mut File, path: &Path) -> Result<u64> {
    let end = file
        .seek(std::io::SeekFrom::End(0))
        .map_err(|e| unreadable(path, &e))?;
    file.rewind().map_err(|e| unreadable(path, &e))?;
    Ok(end)
}
