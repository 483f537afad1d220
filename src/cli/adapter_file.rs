//! An adapter as a safetensors file: means and matrix as tensors, everything else as metadata.

use std::collections::BTreeMap;

use super::{Error, Path, Result};
use crate::metrics::adapter::{Adapter, Direction, Method};
use crate::report;
use crate::source::Tensors;

/// What `format` in the metadata says; grows when a tensor changes its meaning.
const FORMAT: &str = "vecdrift-adapter-1";
const SOURCE_MEAN: &str = "source_mean";
const TARGET_MEAN: &str = "target_mean";
const MATRIX: &str = "matrix";

/// Writes an adapter with facts about how it was made.
pub(super) fn save(path: &Path, adapter: &Adapter, facts: &[(&str, String)]) -> Result<()> {
    let (d, d2) = (adapter.source_dim(), adapter.target_dim());
    let mut file = Tensors::default();
    let mut tensor = |name: &str, shape: &[usize], values: &[f32]| {
        file.tensors
            .insert(name.to_owned(), (shape.to_vec(), values.to_vec()));
    };
    tensor(SOURCE_MEAN, &[d], adapter.source_mean());
    tensor(TARGET_MEAN, &[d2], adapter.target_mean());
    tensor(MATRIX, &[d2, d], adapter.weights());
    let mut fact = |name: &str, value: String| file.facts.insert(name.to_owned(), value);
    fact("format", FORMAT.to_owned());
    fact(
        "formula",
        "y = matrix (x - source_mean) + target_mean".to_owned(),
    );
    fact("version", env!("CARGO_PKG_VERSION").to_owned());
    fact("direction", word(&adapter.direction)?);
    fact("method", word(&adapter.method)?);
    fact("source_dim", d.to_string());
    fact("target_dim", d2.to_string());
    for (name, value) in [
        ("lambda", adapter.lambda.map(|v| v.to_string())),
        ("rank", adapter.rank.map(|v| v.to_string())),
    ] {
        if let Some(value) = value {
            fact(name, value);
        }
    }
    for (name, value) in facts {
        fact(name, value.clone());
    }
    report::write_atomic(path, |to| file.write(to, path))
}

/// Reads an adapter and its facts.
pub(super) fn load(path: &Path) -> Result<(Adapter, BTreeMap<String, String>)> {
    let Tensors { mut tensors, facts } = Tensors::read(path)?;
    let refuse = |fact: String| {
        Error::input(path.display(), fact)
            .hint("adapters are made by vecdrift align REFERENCE CURRENT --adapter FILE")
    };
    if facts.get("format").map(String::as_str) != Some(FORMAT) {
        return Err(refuse(format!(
            "is no adapter, expected a safetensors file whose metadata says format {FORMAT}"
        )));
    }
    let mut tensor = |name: &str| {
        let found = tensors.remove(name);
        found.ok_or_else(|| refuse(format!("no tensor \"{name}\"")))
    };
    let (_, source_mean) = tensor(SOURCE_MEAN)?;
    let (_, target_mean) = tensor(TARGET_MEAN)?;
    let (shape, weights) = tensor(MATRIX)?;
    let expected = [target_mean.len(), source_mean.len()];
    if shape != expected {
        return Err(refuse(format!(
            "the matrix is {shape:?}, expected {expected:?} as the means are long"
        )));
    }
    let direction: Direction = from_word(&facts, "direction")
        .ok_or_else(|| refuse("no direction in the metadata".to_owned()))?;
    let method: Method = from_word(&facts, "method")
        .ok_or_else(|| refuse("no method in the metadata".to_owned()))?;
    let adapter = Adapter::from_parts((direction, method), source_mean, target_mean, weights)
        .ok_or_else(|| {
            refuse("a value is not finite, expected finite means and matrix".to_owned())
        })?;
    Ok((adapter, facts))
}

/// The word that stands for a value in JSON.
fn word<T: serde::Serialize>(value: &T) -> Result<String> {
    let value = serde_json::to_value(value).map_err(|e| Error::output("adapter", e))?;
    Ok(value.as_str().unwrap_or_default().to_owned())
}

fn from_word<T: serde::de::DeserializeOwned>(
    facts: &BTreeMap<String, String>,
    name: &str,
) -> Option<T> {
    serde_json::from_value(serde_json::Value::String(facts.get(name)?.clone())).ok()
}
