//! Sketches as files: Parquet of the landmarks, an input like any other, with the rest in its metadata.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::embeddings::{IdSource, RowBlock};
use crate::error::{Error, Result};
use crate::metrics::sketch::{Sketch, SketchState};
use crate::report;
use crate::source::{self, ReadOptions, SKETCH_NOTE, VectorFormat, VectorShape, write_vectors};

/// Grows when a number changes its meaning.
const FORMAT: u32 = 1;

/// Names of the columns.
const ID: &str = "id";
const VECTOR: &str = "embedding";

#[derive(Serialize, Deserialize)]
struct Note<S> {
    format: u32,
    #[serde(flatten)]
    state: S,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Writes a sketch, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn save(path: &Path, sketch: &Sketch) -> Result<()> {
    let note = Note {
        format: FORMAT,
        state: &sketch.state,
    };
    let note = serde_json::to_string(&note).map_err(|e| Error::output(path.display(), e))?;
    let shape = VectorShape {
        dim: sketch.state.frame.dim,
        rows: Some(sketch.ids.len() as u64),
        vector_column: VECTOR,
        id_source: &IdSource::Column(ID.to_owned()),
        note: Some((SKETCH_NOTE, note)),
    };
    let block = RowBlock {
        ids: sketch.ids.clone(),
        values: sketch.landmarks.clone(),
        ..RowBlock::default()
    };
    report::write_atomic(path, |to| {
        let blocks = &mut std::iter::once(Ok(block));
        write_vectors(to, path, VectorFormat::Parquet, &shape, blocks).map(|_| ())
    })
}

/// Reads a sketch; `None` where the input is none.
///
/// # Errors
/// The file cannot be read, or its parts do not fit each other.
pub fn load(input: &str) -> Result<Option<Sketch>> {
    let Some(note) = source::read_note(input, SKETCH_NOTE)? else {
        return Ok(None);
    };
    let refuse = |fact: String| {
        Error::input(input, fact).hint("sketches are made by vecdrift sketch INPUT --out FILE")
    };
    let damaged = |e: &dyn std::fmt::Display| refuse(format!("is a damaged sketch: {e}"));
    let Format { format } = serde_json::from_str(&note).map_err(|e| damaged(&e))?;
    if format != FORMAT {
        return Err(refuse(format!(
            "is a sketch of format {format}, expected {FORMAT}"
        )));
    }
    let Note { state, .. } =
        serde_json::from_str::<Note<SketchState>>(&note).map_err(|e| damaged(&e))?;
    let options = ReadOptions {
        id: Some(ID.to_owned()),
        ..ReadOptions::default()
    };
    let set = source::open(input, &options)?.read(&mut |_| {})?;
    let landmarks = set.rows().to_f32().into_owned();
    let sketch = Sketch::from_parts(state, set.ids, landmarks);
    let sketch = sketch.ok_or_else(|| damaged(&"its parts do not fit each other"))?;
    Ok(Some(sketch))
}
