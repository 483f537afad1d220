//! Dense linear algebra in f64, on faer. Sequential, so that results do not depend on threads.

use faer::{Accum, Mat, MatRef, Par, Side};

use crate::error::{Error, Result};

/// A row-major matrix.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

impl Matrix {
    /// Takes row-major values.
    ///
    /// # Panics
    /// If their number is not rows × columns.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns);
        Self {
            rows,
            columns,
            values,
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// All values, row after row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The value at row `i`, column `j`.
    pub fn at(&self, i: usize, j: usize) -> f64 {
        self.values[i * self.columns + j]
    }

    /// Sum of the diagonal.
    pub fn trace(&self) -> f64 {
        (0..self.rows.min(self.columns))
            .map(|i| self.at(i, i))
            .sum()
    }

    /// Sum of squares of all values.
    pub fn sq_frobenius(&self) -> f64 {
        self.values.iter().map(|v| v * v).sum()
    }

    /// The matrix turned over its diagonal.
    pub fn transposed(&self) -> Self {
        let values = (0..self.columns)
            .flat_map(|j| (0..self.rows).map(move |i| self.at(i, j)))
            .collect();
        Self::new(self.columns, self.rows, values)
    }

    /// The product with another matrix.
    ///
    /// # Panics
    /// If the inner dimensions differ.
    pub fn times(&self, other: &Self) -> Self {
        let mut product = Mat::<f64>::zeros(self.rows, other.columns);
        faer::linalg::matmul::matmul(
            product.as_mut(),
            Accum::Replace,
            self.view(),
            other.view(),
            1.0,
            Par::Seq,
        );
        from_faer(product.as_ref())
    }

    fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.rows, self.columns)
    }
}

fn from_faer(matrix: MatRef<'_, f64>) -> Matrix {
    let (rows, columns) = (matrix.nrows(), matrix.ncols());
    let values = (0..rows)
        .flat_map(|i| (0..columns).map(move |j| matrix[(i, j)]))
        .collect();
    Matrix::new(rows, columns, values)
}

/// Eigenvalues, descending, and eigenvectors, as columns in the same order, of a symmetric matrix.
#[derive(Debug, Clone)]
pub struct Eigen {
    /// Eigenvalues, largest first.
    pub values: Vec<f64>,
    /// Eigenvectors as columns.
    pub vectors: Matrix,
}

/// Decomposes a symmetric matrix (its lower triangle is read).
///
/// # Errors
/// The iteration does not converge.
pub fn symmetric_eigen(matrix: &Matrix) -> Result<Eigen> {
    // The solvers read a global setting; nothing in this program wants another.
    faer::set_global_parallelism(Par::Seq);
    let found = matrix
        .view()
        .self_adjoint_eigen(Side::Lower)
        .map_err(|e| unconverged(&e))?;
    let n = matrix.rows;
    // faer sorts ascending.
    let values = (0..n).rev().map(|i| found.S()[i]).collect();
    let vectors = found.U();
    let columns = (0..n)
        .flat_map(|i| (0..n).rev().map(move |j| vectors[(i, j)]))
        .collect();
    Ok(Eigen {
        values,
        vectors: Matrix::new(n, n, columns),
    })
}

/// Singular value decomposition M = U·diag(s)·Vᵀ with min(rows, columns) singular values.
#[derive(Debug, Clone)]
pub struct Svd {
    /// Left singular vectors as columns.
    pub u: Matrix,
    /// Singular values, largest first.
    pub values: Vec<f64>,
    /// Right singular vectors as columns.
    pub v: Matrix,
}

/// Decomposes a matrix.
///
/// # Errors
/// The iteration does not converge.
pub fn thin_svd(matrix: &Matrix) -> Result<Svd> {
    // The solvers read a global setting; nothing in this program wants another.
    faer::set_global_parallelism(Par::Seq);
    let found = matrix.view().thin_svd().map_err(|e| unconverged(&e))?;
    let values = (0..matrix.rows.min(matrix.columns))
        .map(|i| found.S()[i])
        .collect();
    Ok(Svd {
        u: from_faer(found.U()),
        values,
        v: from_faer(found.V()),
    })
}

fn unconverged(error: &dyn std::fmt::Debug) -> Error {
    Error::device(
        "linear algebra",
        format!("a decomposition did not converge: {error:?}"),
    )
}
