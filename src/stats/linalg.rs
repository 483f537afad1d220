//! Dense linear algebra in f64: products, symmetric eigenvalues, singular values.
//!
//! A thin face over `faer`. Everything runs on one thread, so that results do not depend on how many
//! there are: the order of additions is fixed.

use faer::diag::Diag;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::svd::{ComputeSvdVectors, svd, svd_scratch};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::error::{Error, Result};

/// A dense matrix of f64, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    rows: usize,
    columns: usize,
    values: Vec<f64>,
}

/// Eigenvalues and eigenvectors of a symmetric matrix: A = V diag(λ) Vᵀ.
#[derive(Debug, Clone)]
pub struct SymmetricEigen {
    /// λ, largest first.
    pub values: Vec<f64>,
    /// V; column i belongs to value i.
    pub vectors: Matrix,
}

/// Thin singular value decomposition of an m × n matrix, k = min(m, n): A = U diag(s) Vᵀ.
#[derive(Debug, Clone)]
pub struct Svd {
    /// U, m × k.
    pub u: Matrix,
    /// s, largest first, none negative.
    pub singular_values: Vec<f64>,
    /// V, n × k.
    pub v: Matrix,
}

impl Matrix {
    /// A matrix of `rows` rows from its values, row after row.
    ///
    /// # Panics
    /// If the number of values is not `rows` · `columns`.
    pub fn new(rows: usize, columns: usize, values: Vec<f64>) -> Self {
        assert_eq!(values.len(), rows * columns, "a {rows} × {columns} matrix");
        Self {
            rows,
            columns,
            values,
        }
    }

    /// All zeros.
    pub fn zeros(rows: usize, columns: usize) -> Self {
        Self::new(rows, columns, vec![0.0; rows * columns])
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The values, row after row.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The values, row after row.
    pub fn values_mut(&mut self) -> &mut [f64] {
        &mut self.values
    }

    /// Row `i`.
    pub fn row(&self, i: usize) -> &[f64] {
        &self.values[i * self.columns..(i + 1) * self.columns]
    }

    /// Adds `factor` · `other`.
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn add_scaled(&mut self, factor: f64, other: &Self) {
        assert_eq!((self.rows, self.columns), (other.rows, other.columns));
        for (value, more) in self.values.iter_mut().zip(&other.values) {
            *value += factor * more;
        }
    }

    /// Adds `factor` · u vᵀ.
    ///
    /// # Panics
    /// If the lengths of `u` and `v` are not the numbers of rows and columns.
    pub fn add_outer(&mut self, factor: f64, u: &[f64], v: &[f64]) {
        assert_eq!((self.rows, self.columns), (u.len(), v.len()));
        for (row, &a) in self.values.chunks_exact_mut(v.len()).zip(u) {
            for (value, &b) in row.iter_mut().zip(v) {
                *value += factor * a * b;
            }
        }
    }

    /// The matrix times a number.
    #[must_use]
    pub fn scaled(mut self, factor: f64) -> Self {
        self.values.iter_mut().for_each(|value| *value *= factor);
        self
    }

    /// The first `count` columns.
    pub fn leading_columns(&self, count: usize) -> Self {
        let values = (0..self.rows).flat_map(|i| &self.row(i)[..count]).copied();
        Self::new(self.rows, count, values.collect())
    }

    /// Aᵀ.
    pub fn transpose(&self) -> Self {
        let values = (0..self.columns)
            .flat_map(|j| (0..self.rows).map(move |i| self.values[i * self.columns + j]))
            .collect();
        Self::new(self.columns, self.rows, values)
    }

    /// A·B.
    ///
    /// # Panics
    /// If the inner dimensions differ.
    pub fn times(&self, other: &Self) -> Self {
        assert_eq!(self.columns, other.rows, "inner dimensions");
        let mut product = Self::zeros(self.rows, other.columns);
        matmul(
            MatMut::from_row_major_slice_mut(&mut product.values, self.rows, other.columns),
            Accum::Replace,
            self.view(),
            other.view(),
            1.0,
            Par::Seq,
        );
        product
    }

    /// Aᵀ·B.
    ///
    /// # Panics
    /// If the numbers of rows differ.
    pub fn transpose_times(&self, other: &Self) -> Self {
        self.transpose().times(other)
    }

    /// Sum of the diagonal.
    pub fn trace(&self) -> f64 {
        (0..self.rows.min(self.columns))
            .map(|i| self.values[i * self.columns + i])
            .sum()
    }

    /// ‖A‖²_F, the sum of squares.
    pub fn sq_frobenius(&self) -> f64 {
        self.frobenius_dot(self)
    }

    /// Σᵢⱼ aᵢⱼ bᵢⱼ = tr(AᵀB).
    ///
    /// # Panics
    /// If the shapes differ.
    pub fn frobenius_dot(&self, other: &Self) -> f64 {
        assert_eq!((self.rows, self.columns), (other.rows, other.columns));
        self.values
            .iter()
            .zip(&other.values)
            .map(|(a, b)| a * b)
            .sum()
    }

    /// Eigenvalues of a symmetric matrix, largest first. Only the lower triangle is read.
    ///
    /// # Errors
    /// A value is not finite, or the iteration does not converge.
    ///
    /// # Panics
    /// If the matrix is not square.
    pub fn symmetric_eigenvalues(&self) -> Result<Vec<f64>> {
        Ok(self.eigen(false)?.0)
    }

    /// Eigenvalues, largest first, and eigenvectors of a symmetric matrix. Only the lower triangle is
    /// read.
    ///
    /// # Errors
    /// A value is not finite, or the iteration does not converge.
    ///
    /// # Panics
    /// If the matrix is not square.
    pub fn symmetric_eigen(&self) -> Result<SymmetricEigen> {
        let (values, vectors) = self.eigen(true)?;
        let n = values.len();
        let vectors = Self::new(
            n,
            n,
            (0..n)
                .flat_map(|i| (0..n).rev().map(move |j| (i, j)))
                .map(|(i, j)| vectors[(i, j)])
                .collect(),
        );
        Ok(SymmetricEigen { values, vectors })
    }

    /// Eigenvalues, largest first, and faer's eigenvectors, which are in the opposite order.
    fn eigen(&self, vectors: bool) -> Result<(Vec<f64>, Mat<f64>)> {
        assert_eq!(self.rows, self.columns, "eigenvalues need a square matrix");
        self.require_finite("eigenvalues")?;
        let n = self.rows;
        let mut values = Diag::<f64>::zeros(n);
        let mut basis = Mat::zeros(n, if vectors { n } else { 0 });
        let compute = if vectors {
            ComputeEigenvectors::Yes
        } else {
            ComputeEigenvectors::No
        };
        let scratch = self_adjoint_evd_scratch::<f64>(n, compute, Par::Seq, Default::default());
        self_adjoint_evd(
            self.view(),
            values.as_mut(),
            vectors.then(|| basis.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        )
        .map_err(|_| self.not_converged("eigenvalues"))?;
        let values = values.column_vector().iter().rev().copied().collect();
        Ok((values, basis))
    }

    /// Thin singular value decomposition.
    ///
    /// # Errors
    /// A value is not finite, or the iteration does not converge.
    pub fn svd(&self) -> Result<Svd> {
        self.require_finite("singular values")?;
        let (m, n) = (self.rows, self.columns);
        let k = m.min(n);
        let mut values = Diag::<f64>::zeros(k);
        let (mut u, mut v) = (Mat::<f64>::zeros(m, k), Mat::<f64>::zeros(n, k));
        let thin = ComputeSvdVectors::Thin;
        let scratch = svd_scratch::<f64>(m, n, thin, thin, Par::Seq, Default::default());
        svd(
            self.view(),
            values.as_mut(),
            Some(u.as_mut()),
            Some(v.as_mut()),
            Par::Seq,
            MemStack::new(&mut MemBuffer::new(scratch)),
            Default::default(),
        )
        .map_err(|_| self.not_converged("singular values"))?;
        let rows_of = |a: &Mat<f64>| {
            let values = (0..a.nrows()).flat_map(|i| (0..k).map(move |j| a[(i, j)]));
            Self::new(a.nrows(), k, values.collect())
        };
        Ok(Svd {
            u: rows_of(&u),
            singular_values: values.column_vector().iter().copied().collect(),
            v: rows_of(&v),
        })
    }

    fn view(&self) -> MatRef<'_, f64> {
        MatRef::from_row_major_slice(&self.values, self.rows, self.columns)
    }

    fn require_finite(&self, wanted: &str) -> Result<()> {
        if self.values.iter().all(|value| value.is_finite()) {
            Ok(())
        } else {
            Err(Error::input(
                wanted,
                format!(
                    "the {} × {} matrix overflows, expected finite values",
                    self.rows, self.columns
                ),
            ))
        }
    }

    /// Arithmetic that fails on finite values is the device's failure, not the data's.
    fn not_converged(&self, wanted: &str) -> Error {
        Error::device(
            wanted,
            format!(
                "the iteration on a {} × {} matrix does not converge",
                self.rows, self.columns
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    fn random(rows: usize, columns: usize) -> Matrix {
        let mut rng = Philox::new(1, 2);
        Matrix::new(
            rows,
            columns,
            (0..rows * columns).map(|_| rng.normal()).collect(),
        )
    }

    fn assert_close(a: &Matrix, b: &Matrix) {
        let mut difference = a.clone();
        difference.add_scaled(-1.0, b);
        // 40 terms of size 1 and a backward stable decomposition: far below 1e-12.
        assert!(
            difference.sq_frobenius().sqrt() < 1e-12 * (1.0 + b.sq_frobenius().sqrt()),
            "{a:?} is not {b:?}"
        );
    }

    fn diagonal(values: &[f64]) -> Matrix {
        let mut matrix = Matrix::zeros(values.len(), values.len());
        for (i, &value) in values.iter().enumerate() {
            matrix.values[i * values.len() + i] = value;
        }
        matrix
    }

    #[test]
    fn products_by_hand() {
        let a = Matrix::new(2, 3, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = Matrix::new(3, 2, vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!(a.times(&b).values(), [4.0, 5.0, 10.0, 11.0]);
        assert_eq!(a.transpose().values(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
        assert_eq!(a.transpose_times(&a), a.transpose().times(&a));
        assert_eq!(a.sq_frobenius(), 91.0);
        assert_eq!(a.leading_columns(1).values(), [1.0, 4.0]);
    }

    #[test]
    fn decompositions_rebuild_the_matrix() {
        for (m, n) in [(1, 1), (2, 2), (3, 5), (5, 3), (40, 40)] {
            let a = random(m, n);
            let Svd {
                u,
                singular_values,
                v,
            } = a.svd().unwrap();
            assert!(singular_values.is_sorted_by(|a, b| a >= b));
            let rebuilt = u.times(&diagonal(&singular_values)).times(&v.transpose());
            assert_close(&rebuilt, &a);

            let gram = a.transpose_times(&a);
            let SymmetricEigen { values, vectors } = gram.symmetric_eigen().unwrap();
            assert!(values.is_sorted_by(|a, b| a >= b));
            let rebuilt = vectors
                .times(&diagonal(&values))
                .times(&vectors.transpose());
            assert_close(&rebuilt, &gram);
            let alone = diagonal(&gram.symmetric_eigenvalues().unwrap());
            assert_close(&alone, &diagonal(&values));
        }
    }

    #[test]
    fn overflow_is_an_error() {
        let matrix = Matrix::new(1, 1, vec![f64::INFINITY]);
        assert!(matrix.symmetric_eigenvalues().unwrap_err().is_input());
        assert!(matrix.svd().unwrap_err().is_input());
    }
}
