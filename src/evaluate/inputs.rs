//! Vectors and labels of a task, as files hold them.

use std::borrow::Cow;
use std::collections::HashMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::Job;
use super::suite::LabelFiles;
use crate::embeddings::{Collector, Dtype, Embeddings, Ids, RowBlock, Values};
use crate::engine::Progress;
use crate::error::{Error, Result};
use crate::output::InputSummary;
use crate::source::{self, ReadOptions};
use crate::stats::linalg::Matrix;

/// What is wrong with a table without rows.
pub(super) const NO_ROWS: &str = "no rows, expected at least one";
/// How many ids an error names.
const NAMED_IDS: usize = 3;

/// What the vectors are changed to before anything is scored: what would a task lose?
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Reduction {
    /// Only the first values of each vector are kept (Matryoshka).
    pub truncate: Option<usize>,
    /// Values are rounded.
    pub quantize: Option<Quantization>,
}

/// How values are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// To 255 steps between ± the vector's own largest value.
    Int8,
    /// To +1 where positive, else −1: the cosine is then 1 − 2·Hamming/d.
    Binary,
}

impl Reduction {
    /// Changes the rows of a block, of `dim` values each.
    fn apply(self, block: &mut RowBlock, dim: usize) {
        let kept = self.kept(dim);
        if kept < dim {
            let rows = block.values.chunks_exact(dim);
            block.values = rows.flat_map(|row| row[..kept].iter().copied()).collect();
        }
        let Some(quantization) = self.quantize else {
            return;
        };
        for row in block.values.chunks_exact_mut(kept) {
            let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            // Faulty rows and rows without a direction stay what they are.
            if !largest.is_finite() || largest == 0.0 || row.iter().any(|v| v.is_nan()) {
                continue;
            }
            for value in row {
                *value = match quantization {
                    Quantization::Int8 => (*value / largest * 127.0).round(),
                    Quantization::Binary if *value > 0.0 => 1.0,
                    Quantization::Binary => -1.0,
                };
            }
        }
    }

    /// In a word, such as `256 dimensions, int8`; `None` where nothing is changed.
    pub fn label(self) -> Option<String> {
        let dimensions = self.truncate.map(|kept| format!("{kept} dimensions"));
        let precision = self.quantize.map(|q| match q {
            Quantization::Int8 => "int8".to_owned(),
            Quantization::Binary => "binary".to_owned(),
        });
        let parts: Vec<String> = dimensions.into_iter().chain(precision).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }

    fn kept(self, dim: usize) -> usize {
        self.truncate.map_or(dim, |kept| kept.min(dim))
    }
}

/// Vectors by id. Rows without a direction, which nothing else in the program keeps, are known here: an
/// evaluation cannot leave out an item because a model gave it nothing.
pub(super) struct Vectors {
    pub(super) set: Embeddings,
    pub(super) summary: InputSummary,
    /// Ids of the rows that are all zero.
    zero_ids: Ids,
    rows: HashMap<String, usize>,
}

impl Vectors {
    pub(super) fn read(
        role: &str,
        path: &str,
        reduction: Reduction,
        progress: &dyn Progress,
    ) -> Result<Self> {
        let source = source::open(path, &ReadOptions::default())?;
        let info = source.info().clone();
        let dim = reduction.kept(info.dim);
        // Rounded and shortened values need no more than single precision, and may need it.
        let dtype = match reduction.quantize {
            Some(_) => Dtype::F32,
            None => info.dtype,
        };
        let mut collector = Collector::new(
            info.name.clone(),
            dim,
            (info.dtype, Values::of(dtype)),
            info.id_source.clone(),
            &[],
        );
        let mut zero_ids = Ids::new();
        progress.begin(&format!("read {role}"), info.rows.unwrap_or(0));
        let read = || {
            for block in source.blocks() {
                let mut block = block?;
                reduction.apply(&mut block, info.dim);
                for (i, row) in block.values.chunks_exact(dim).enumerate() {
                    if row.iter().all(|&v| v == 0.0) && !block.nulls.contains(&i) {
                        zero_ids.push_from(&block.ids, i);
                    }
                }
                collector.push(&block);
                progress.advance(block.ids.len() as u64);
            }
            Ok(())
        };
        let outcome: Result<()> = read();
        progress.end();
        outcome?;
        let set = collector.finish()?;
        let summary = InputSummary::new(role, &info, &set);
        let ids = set.ids.iter().chain(zero_ids.iter());
        let rows = ids.map(str::to_owned).zip(0..).collect();
        Ok(Self {
            set,
            summary,
            zero_ids,
            rows,
        })
    }

    /// Rows, those without a direction included: they come last.
    pub(super) fn len(&self) -> usize {
        self.set.len() + self.zero_ids.len()
    }

    /// Whether row `row` has no direction.
    pub(super) fn is_zero(&self, row: usize) -> bool {
        row >= self.set.len()
    }

    pub(super) fn row_of(&self, id: &str) -> Option<usize> {
        self.rows.get(id).copied()
    }

    pub(super) fn id(&self, row: usize) -> &str {
        match row.checked_sub(self.set.len()) {
            None => self.set.ids.get(row),
            Some(zero) => self.zero_ids.get(zero),
        }
    }

    pub(super) fn row(&self, row: usize) -> Cow<'_, [f32]> {
        if self.is_zero(row) {
            Cow::Owned(vec![0.0; self.set.dim()])
        } else {
            self.set.rows().row(row)
        }
    }

    /// Rows in double precision.
    pub(super) fn matrix(&self, rows: impl Iterator<Item = usize>) -> Matrix {
        let mut values = Vec::new();
        let mut n = 0;
        for row in rows {
            values.extend(self.row(row).iter().map(|&v| f64::from(v)));
            n += 1;
        }
        Matrix::new(n, self.set.dim(), values)
    }

    /// The rows of ids that labels name, in their order.
    ///
    /// # Errors
    /// An id has no vector.
    pub(super) fn rows_of<'a>(
        &self,
        labels: &str,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<Vec<usize>> {
        let (mut rows, mut missing) = (Vec::new(), Vec::new());
        for id in ids {
            match self.row_of(id) {
                Some(row) => rows.push(row),
                None => missing.push(id),
            }
        }
        if missing.is_empty() {
            return Ok(rows);
        }
        Err(missing_vectors(labels, &mut missing, &self.set.name))
    }

    /// How many rows no label names.
    pub(super) fn unlabelled(&self, labelled: &[usize]) -> usize {
        let mut named = vec![false; self.len()];
        labelled.iter().for_each(|&row| named[row] = true);
        named.iter().filter(|named| !**named).count()
    }
}

/// A labelled item.
#[derive(Clone)]
pub(super) struct LabelledItem {
    pub(super) id: String,
    pub(super) label: String,
    /// Its row among the vectors.
    pub(super) row: usize,
}

/// Labelled items with their vectors, in the order of the labels: what is drawn from them depends on it.
pub(super) struct LabelledSplit {
    pub(super) vectors: Vectors,
    /// Empty where the task has no training part.
    pub(super) train: Vec<LabelledItem>,
    pub(super) test: Vec<LabelledItem>,
    /// Every label of both parts, in order of text.
    pub(super) classes: Vec<String>,
}

impl LabelledSplit {
    pub(super) fn read(job: &mut Job<'_>, files: &LabelFiles) -> Result<Self> {
        let path = files.labels();
        if files.labels.is_none() && !source::is_parquet(path)? {
            return Err(Error::input(
                path,
                "holds no labels that can be read here, expected Parquet",
            )
            .hint("labels = \"FILE\" names a table of ids and labels"));
        }
        let ids: &[&str] = &["id", "_id", "doc_id"];
        let label = [files.label.as_str()];
        let split = files.split.as_ref().map(|split| [split.column.as_str()]);
        let mut columns = vec![ids, &label];
        columns.extend(split.as_ref().map(|column| column.as_slice()));
        let table = read_table(path, &columns)?;
        let vectors = job.vectors("items", &files.items)?;
        let part = |name: Option<&str>| -> Result<Vec<LabelledItem>> {
            let rows: Vec<usize> = (0..table[0].len())
                .filter(|&i| name.is_none_or(|name| table[2][i] == name))
                .collect();
            let places = vectors.rows_of(path, rows.iter().map(|&i| table[0][i].as_str()))?;
            let items = rows.iter().zip(places);
            Ok(items
                .map(|(&i, row)| LabelledItem {
                    id: table[0][i].clone(),
                    label: table[1][i].clone(),
                    row,
                })
                .collect())
        };
        let (train, test) = match &files.split {
            None => (Vec::new(), part(None)?),
            Some(split) => (
                match &split.train {
                    Some(name) => part(Some(name))?,
                    None => Vec::new(),
                },
                part(Some(&split.test))?,
            ),
        };
        let needs_train = files.split.as_ref().is_some_and(|s| s.train.is_some());
        if test.is_empty() || (needs_train && train.is_empty()) {
            return Err(Error::input(
                path,
                format!(
                    "{} training and {} test items, expected some",
                    train.len(),
                    test.len()
                ),
            )
            .hint("split = { column, train, test } names the column and its values"));
        }
        let mut seen = HashMap::new();
        for item in train.iter().chain(&test) {
            if seen.insert(&item.id, ()).is_some() {
                return Err(Error::input(
                    path,
                    format!("id \"{}\" stands there twice, expected once", item.id),
                ));
            }
        }
        let labelled: Vec<usize> = train.iter().chain(&test).map(|i| i.row).collect();
        job.warn_unlabelled(&vectors, &labelled, "vectors are in no part of the task");
        let mut classes: Vec<String> = train.iter().chain(&test).map(|i| i.label.clone()).collect();
        classes.sort_unstable();
        classes.dedup();
        Ok(Self {
            vectors,
            train,
            test,
            classes,
        })
    }

    /// The labels as numbers.
    pub(super) fn numbers(&self, items: &[LabelledItem]) -> Vec<usize> {
        let number = |i: &LabelledItem| self.classes.partition_point(|c| *c < i.label);
        items.iter().map(number).collect()
    }

    pub(super) fn rows(&self, items: &[LabelledItem]) -> Vec<usize> {
        items.iter().map(|i| i.row).collect()
    }
}

/// The error about ids that labels name and no vector has.
pub(super) fn missing_vectors(labels: &str, missing: &mut Vec<&str>, vectors: &str) -> Error {
    missing.sort_unstable();
    missing.dedup();
    Error::input(
        labels,
        format!(
            "{} ids have no usable vector in {vectors}, expected one for each (first: {})",
            missing.len(),
            missing[..missing.len().min(NAMED_IDS)].join(", ")
        ),
    )
    .hint("ids must be the same text in both files; null and non-finite vectors are not usable")
}

/// Columns of a table of labels, in the order of `columns`, of each the first of its names that is there:
/// tab-separated text under a header, or Parquet.
///
/// # Errors
/// The file cannot be read, lacks a column, has a line of another length, or no line at all.
pub(super) fn read_table(path: &str, columns: &[&[&str]]) -> Result<Vec<Vec<String>>> {
    let table = if source::is_parquet(path)? {
        source::read_text_columns(path, columns)?
    } else {
        let text = std::fs::read_to_string(path).map_err(|e| {
            Error::input(path, format!("cannot be read: {e}"))
                .hint("labels are tab-separated text under a header, or Parquet")
        })?;
        parse_table(&text, path, columns)?
    };
    if table.iter().all(Vec::is_empty) {
        return Err(Error::input(path, NO_ROWS));
    }
    Ok(table)
}

fn parse_table(text: &str, path: &str, columns: &[&[&str]]) -> Result<Vec<Vec<String>>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty());
    let header: Vec<&str> = match lines.next() {
        None => return Err(Error::input(path, "the file is empty, expected a header")),
        Some((_, line)) => line.split('\t').map(str::trim).collect(),
    };
    let mut places = Vec::new();
    for names in columns {
        let place = names
            .iter()
            .find_map(|name| header.iter().position(|h| h == name));
        places.push(place.ok_or_else(|| {
            Error::input(
                path,
                format!(
                    "no column \"{}\", the header has: {}",
                    names.join("\" or \""),
                    header.join(", ")
                ),
            )
            .hint("the first line names the columns, tab-separated")
        })?);
    }
    let mut table = vec![Vec::new(); columns.len()];
    for (number, line) in lines {
        let fields: Vec<&str> = line.split('\t').collect();
        if fields.len() != header.len() {
            return Err(Error::input(
                path,
                format!(
                    "line {number}: {} tab-separated fields, expected {} as in the header",
                    fields.len(),
                    header.len()
                ),
            ));
        }
        for (to, &place) in table.iter_mut().zip(&places) {
            to.push(fields[place].trim().to_owned());
        }
    }
    Ok(table)
}

/// Numbers of a column.
///
/// # Errors
/// One is no finite number.
pub(super) fn numbers(path: &str, column: &str, texts: &[String]) -> Result<Vec<f64>> {
    (1..)
        .zip(texts)
        .map(|(row, text)| {
            let number = text.parse::<f64>().ok().filter(|v| v.is_finite());
            number.ok_or_else(|| {
                Error::input(
                    path,
                    format!("row {row}: {column} is \"{text}\", expected a finite number"),
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_by_column_name() {
        let text = "\u{feff}score\tid2\tid1\n1\tb\ta\r\n\n2\td\tc\n";
        let table = parse_table(text, "p", &[&["id1"], &["sentence2", "id2"]]).unwrap();
        assert_eq!(table, [["a", "c"], ["b", "d"]]);
        let error = parse_table("id1\tid2\n", "p", &[&["label"]]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "p: no column \"label\", the header has: id1, id2"
        );
        let error = parse_table("id1\tid2\na\n", "p", &[&["id1"]]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "p: line 2: 1 tab-separated fields, expected 2 as in the header"
        );
        assert!(numbers("p", "score", &["nan".to_owned()]).is_err());
    }

    #[test]
    fn reductions_change_rows_and_leave_faults() {
        let block = |values: &[f32]| RowBlock {
            values: values.to_vec(),
            ..RowBlock::default()
        };
        let reduce = |truncate, quantize, values: &[f32]| {
            let mut block = block(values);
            Reduction { truncate, quantize }.apply(&mut block, 3);
            block.values
        };
        let rows = [0.5, -1.0, 2.0, 0.0, 0.0, 0.0];
        assert_eq!(reduce(Some(2), None, &rows), [0.5, -1.0, 0.0, 0.0]);
        assert_eq!(reduce(Some(9), None, &rows), rows);
        assert_eq!(
            reduce(None, Some(Quantization::Int8), &rows),
            [32.0, -64.0, 127.0, 0.0, 0.0, 0.0]
        );
        assert_eq!(
            reduce(None, Some(Quantization::Binary), &rows),
            [1.0, -1.0, 1.0, 0.0, 0.0, 0.0]
        );
        let faulty = reduce(None, Some(Quantization::Binary), &[1.0, f32::NAN, 2.0]);
        assert!(faulty[1].is_nan());
    }
}
