//! BEIR folders: `corpus.jsonl`, `queries.jsonl` and `qrels/`, beside vectors by id.

use std::io::{BufRead, BufReader};
use std::path::Path;

use serde::Deserialize;

use super::inputs::{self, Vectors};
use crate::error::{Error, Result};

/// The judgements of a split.
pub(super) fn qrels(folder: &str, split: &str) -> String {
    let path = Path::new(folder).join("qrels");
    path.join(format!("{split}.tsv")).display().to_string()
}

/// Sees that every document and query of the folder has a vector, and that no other document has one: it would
/// be ranked, too.
///
/// # Errors
/// They differ, or a file cannot be read.
pub(super) fn check(folder: &str, corpus: &Vectors, queries: &Vectors) -> Result<()> {
    for (name, vectors, closed) in [
        ("corpus.jsonl", corpus, true),
        ("queries.jsonl", queries, false),
    ] {
        let path = Path::new(folder).join(name).display().to_string();
        let ids = ids(&path)?;
        let rows = vectors.rows_of(&path, ids.iter().map(String::as_str))?;
        let others = vectors.unlabelled(&rows);
        if closed && others > 0 {
            return Err(Error::input(
                &vectors.set.name,
                format!("{others} vectors are of documents that {path} does not have"),
            )
            .hint("leave beir out and name qrels to rank every vector"));
        }
    }
    Ok(())
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "_id")]
    id: serde_json::Value,
}

/// The ids of a file of one JSON object per line.
fn ids(path: &str) -> Result<Vec<String>> {
    let unreadable = |e: std::io::Error| Error::input(path, format!("cannot be read: {e}"));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut ids = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.map_err(unreadable)?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = || {
            Error::input(
                path,
                format!("line {number}: no JSON object with an \"_id\", expected one"),
            )
        };
        let line: Line = serde_json::from_str(&line).map_err(|_| wrong())?;
        ids.push(match line.id {
            serde_json::Value::String(id) => id,
            serde_json::Value::Number(id) => id.to_string(),
            _ => return Err(wrong()),
        });
    }
    if ids.is_empty() {
        return Err(Error::input(path, inputs::NO_ROWS));
    }
    Ok(ids)
}
