//! Named tensors with facts beside them, as a safetensors file.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::Dtype;

use super::{damaged, guarded, unreadable};
use crate::error::{Error, Result};

/// What a safetensors file holds: f32 tensors by name, and texts by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tensors {
    /// Shape and values, row-major.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
    /// The file's metadata.
    pub facts: BTreeMap<String, String>,
}

impl Tensors {
    /// Writes the file. The header is in the order of names, so that the same content gives the same bytes.
    ///
    /// # Errors
    /// The writer fails.
    pub fn write(&self, to: &mut dyn Write, place: &Path) -> Result<()> {
        let failed = |e: &dyn std::fmt::Display| Error::output(place.display(), e);
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".to_owned(), serde_json::json!(self.facts));
        let mut end = 0;
        for (name, (shape, values)) in &self.tensors {
            let start = end;
            end += values.len() * 4;
            let entry = serde_json::json!({
                "dtype": "F32", "shape": shape, "data_offsets": [start, end]
            });
            header.insert(name.clone(), entry);
        }
        let mut text = serde_json::to_string(&header).map_err(|e| failed(&e))?;
        // The format aligns the values to 8 bytes.
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        let io = |e: std::io::Error| failed(&e);
        to.write_all(&(text.len() as u64).to_le_bytes())
            .map_err(io)?;
        to.write_all(text.as_bytes()).map_err(io)?;
        for (_, values) in self.tensors.values() {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            to.write_all(&bytes).map_err(io)?;
        }
        Ok(())
    }

    /// Reads a whole file.
    ///
    /// # Errors
    /// It cannot be read, is no safetensors file, or holds a tensor of another type than F32.
    pub fn read(path: &Path) -> Result<Self> {
        const FORMAT: &str = "safetensors";
        let bytes = std::fs::read(path).map_err(|e| unreadable(path, &e))?;
        guarded(path, FORMAT, || {
            let broken = |e: &dyn std::fmt::Display| damaged(path, FORMAT, e);
            let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| broken(&e))?;
            let file = SafeTensors::deserialize(&bytes).map_err(|e| broken(&e))?;
            let mut found = Self::default();
            for (name, view) in file.iter() {
                if view.dtype() != Dtype::F32 {
                    return Err(Error::input(
                        path.display(),
                        format!("tensor \"{name}\" is {:?}, expected F32", view.dtype()),
                    ));
                }
                let (values, _) = view.data().as_chunks::<4>();
                let values = values.iter().map(|&v| f32::from_le_bytes(v)).collect();
                let tensor = (view.shape().to_vec(), values);
                found.tensors.insert(name.to_owned(), tensor);
            }
            found.facts = header
                .metadata()
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect();
            Ok(found)
        })
    }
}
