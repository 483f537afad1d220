//! Arrow columns: which ones are wanted, and how their values become a row block. Shared by Parquet and
//! Arrow IPC.

use std::path::Path;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Float64Type, Schema};

use half::slice::HalfFloatSliceExt;

use super::{ColumnInfo, ID_COLUMNS, ReadOptions, Request};
use crate::embeddings::{Dtype, IdSource, Ids, RowBlock};
use crate::error::{Error, Result};

/// Which columns of a file are read, and what they are.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Selection {
    pub(super) vector: String,
    pub(super) dtype: Dtype,
    /// `None` for variable-length lists: the first row tells.
    pub(super) dim: Option<usize>,
    pub(super) id: Option<String>,
    pub(super) columns: Vec<String>,
}

/// Element type and fixed length of a column that holds vectors.
fn vector_type(kind: &DataType) -> Option<(Dtype, Option<usize>)> {
    let (field, length) = match kind {
        DataType::FixedSizeList(field, length) => (field, Some(usize::try_from(*length).ok()?)),
        DataType::List(field) | DataType::LargeList(field) => (field, None),
        _ => return None,
    };
    let dtype = match field.data_type() {
        DataType::Float16 => Dtype::F16,
        DataType::Float32 => Dtype::F32,
        DataType::Float64 => Dtype::F64,
        _ => return None,
    };
    Some((dtype, length))
}

/// Whether a column can identify rows.
fn is_id_type(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_id_type(values),
        kind => kind.is_integer(),
    }
}

impl Selection {
    /// Finds the wanted columns of a schema by the rules of the command line.
    pub(super) fn new(schema: &Schema, path: &Path, request: &Request<'_>) -> Result<Self> {
        let place = path.display();
        let names = || {
            let names: Vec<String> = schema
                .fields()
                .iter()
                .map(|f| format!("{} ({})", f.name(), f.data_type()))
                .collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        let field = |name: &str| -> Result<&Field> {
            schema.field_with_name(name).map_err(|_| {
                Error::input(&place, format!("no column \"{name}\""))
                    .hint(format!("the columns are: {}", names()))
            })
        };
        let (vector, (dtype, dim)) = match request.vector {
            Some(name) => {
                let kind = field(name)?.data_type();
                let found = vector_type(kind).ok_or_else(|| {
                    Error::input(
                        &place,
                        format!("column \"{name}\" is {kind}, expected a list of f16, f32 or f64"),
                    )
                })?;
                (name.to_owned(), found)
            }
            None => {
                let mut found = schema
                    .fields()
                    .iter()
                    .filter_map(|f| Some((f.name().clone(), vector_type(f.data_type())?)));
                match (found.next(), found.next()) {
                    (None, _) => {
                        return Err(Error::input(
                            &place,
                            "no vector column, expected a list of f16, f32 or f64",
                        )
                        .hint(format!("the columns are: {}", names())));
                    }
                    (Some(first), None) => first,
                    (Some((first, _)), Some((second, _))) => {
                        return Err(Error::input(
                            &place,
                            format!(
                                "two vector columns, \"{first}\" and \"{second}\", expected one"
                            ),
                        )
                        .hint(format!("pick one: {}#{first}", request.name)));
                    }
                }
            }
        };
        if dim == Some(0) {
            return Err(Error::input(
                &place,
                format!("column \"{vector}\" has dimension 0, expected at least 1"),
            ));
        }
        let ReadOptions { id, columns } = request.options;
        let id = match id {
            Some(name) => Some(name.clone()),
            None => ID_COLUMNS
                .iter()
                .find(|name| {
                    schema
                        .field_with_name(name)
                        .is_ok_and(|f| is_id_type(f.data_type()))
                })
                .map(|&name| name.to_owned()),
        };
        if let Some(name) = &id {
            let kind = field(name)?.data_type();
            if !is_id_type(kind) {
                return Err(Error::input(
                    &place,
                    format!("id column \"{name}\" is {kind}, expected text or integers"),
                ));
            }
        }
        for name in columns {
            field(name)?;
        }
        Ok(Self {
            vector,
            dtype,
            dim,
            id,
            columns: columns.clone(),
        })
    }

    pub(super) fn id_source(&self) -> IdSource {
        self.id
            .clone()
            .map_or(IdSource::RowNumber, IdSource::Column)
    }

    /// Names of every column to decode.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.vector.as_str())
            .chain(self.id.as_deref())
            .chain(self.columns.iter().map(String::as_str))
    }

    /// Turns a batch into a row block. `first_row` is the batch's first row in its file, `offset` the
    /// file's first row in the input.
    pub(super) fn block(
        &self,
        batch: &RecordBatch,
        path: &Path,
        dim: usize,
        first_row: u64,
        offset: u64,
    ) -> Result<RowBlock> {
        let column = |name: &str| -> Result<&ArrayRef> {
            batch.column_by_name(name).ok_or_else(|| {
                Error::input(
                    path.display(),
                    format!("column \"{name}\" is missing from a batch"),
                )
            })
        };
        let (values, nulls) = self.values(column(&self.vector)?, path, dim, first_row)?;
        let ids = match &self.id {
            Some(name) => ids(column(name)?, name, path, first_row)?,
            None => {
                let mut ids = Ids::new();
                for row in 0..batch.num_rows() as u64 {
                    ids.push_integer((offset + first_row + row) as i64);
                }
                ids
            }
        };
        let columns = self
            .columns
            .iter()
            .map(|name| texts(column(name)?, name, path))
            .collect::<Result<_>>()?;
        Ok(RowBlock {
            ids,
            values,
            nulls,
            columns,
        })
    }

    /// The vectors' values, row-major, and the rows whose vector is null.
    fn values(
        &self,
        array: &ArrayRef,
        path: &Path,
        dim: usize,
        first_row: u64,
    ) -> Result<(Vec<f32>, Vec<usize>)> {
        let mut values = Vec::with_capacity(array.len() * dim);
        let mut nulls = Vec::new();
        for row in 0..array.len() {
            if array.is_null(row) {
                nulls.push(row);
                values.resize(values.len() + dim, f32::NAN);
                continue;
            }
            let list = match array.data_type() {
                DataType::FixedSizeList(..) => array.as_fixed_size_list().value(row),
                DataType::List(_) => array.as_list::<i32>().value(row),
                _ => array.as_list::<i64>().value(row),
            };
            if list.len() != dim {
                return Err(Error::input(
                    path.display(),
                    format!(
                        "column \"{}\": row {} has {} values, expected {dim}",
                        self.vector,
                        first_row + row as u64,
                        list.len()
                    ),
                ));
            }
            let start = values.len();
            match self.dtype {
                Dtype::F16 => {
                    // A row at once, which the processor's own instruction converts.
                    values.resize(start + dim, 0.0);
                    let halves = list.as_primitive::<Float16Type>().values();
                    halves.convert_to_f32_slice(&mut values[start..]);
                }
                Dtype::F32 => {
                    values.extend_from_slice(list.as_primitive::<Float32Type>().values());
                }
                Dtype::F64 => values.extend(
                    list.as_primitive::<Float64Type>()
                        .values()
                        .iter()
                        .map(|&v| v as f32),
                ),
            }
            if list.null_count() > 0 {
                for (i, value) in values[start..].iter_mut().enumerate() {
                    if list.is_null(i) {
                        *value = f32::NAN;
                    }
                }
            }
        }
        Ok((values, nulls))
    }
}

fn ids(array: &ArrayRef, name: &str, path: &Path, first_row: u64) -> Result<Ids> {
    if let Some(row) = (0..array.len()).find(|&row| array.is_null(row)) {
        return Err(Error::input(
            path.display(),
            format!(
                "id column \"{name}\": row {} is null, expected an id",
                first_row + row as u64
            ),
        )
        .hint("--id COLUMN names another column"));
    }
    let integer = |kind: &DataType| kind.is_integer() && *kind != DataType::UInt64;
    let wide = match array.data_type() {
        DataType::Dictionary(_, values) if integer(values) => true,
        kind => integer(kind),
    };
    let mut ids = Ids::new();
    if wide {
        let array = converted(array, &DataType::Int64, name, path)?;
        array
            .as_primitive::<arrow::datatypes::Int64Type>()
            .values()
            .iter()
            .for_each(|&id| ids.push_integer(id));
    } else {
        let array = converted(array, &DataType::LargeUtf8, name, path)?;
        array
            .as_string::<i64>()
            .iter()
            .for_each(|id| ids.push(id.unwrap_or_default()));
    }
    Ok(ids)
}

/// A column as text; null is empty text.
fn texts(array: &ArrayRef, name: &str, path: &Path) -> Result<Vec<String>> {
    let array = converted(array, &DataType::LargeUtf8, name, path)?;
    Ok(array
        .as_string::<i64>()
        .iter()
        .map(|text| text.unwrap_or_default().to_owned())
        .collect())
}

fn converted(array: &ArrayRef, to: &DataType, name: &str, path: &Path) -> Result<ArrayRef> {
    cast(array, to).map_err(|e| {
        Error::input(
            path.display(),
            format!(
                "column \"{name}\" is {}, expected text or integers: {e}",
                array.data_type()
            ),
        )
    })
}

/// Every column of a schema, for people.
pub(super) fn describe(schema: &Schema) -> Vec<ColumnInfo> {
    schema
        .fields()
        .iter()
        .map(|f| ColumnInfo {
            name: f.name().clone(),
            kind: f.data_type().to_string(),
        })
        .collect()
}

/// The columns of a small Parquet table as text, in the order of `columns`; for each the first of its
/// names that exists.
///
/// # Errors
/// The file cannot be read or lacks a column.
pub fn read_text_columns(path: &str, columns: &[&[&str]]) -> Result<Vec<Vec<String>>> {
    let path = Path::new(path);
    let mut table: Vec<Vec<String>> = vec![Vec::new(); columns.len()];
    for batch in super::parquet::batches(path)? {
        let batch = batch?;
        for (to, names) in table.iter_mut().zip(columns) {
            let (name, array) = names
                .iter()
                .find_map(|name| Some((name, batch.column_by_name(name)?)))
                .ok_or_else(|| {
                    Error::input(
                        path.display(),
                        format!("no column \"{}\"", names.join("\" or \"")),
                    )
                })?;
            to.extend(texts(array, name, path)?);
        }
    }
    Ok(table)
}
