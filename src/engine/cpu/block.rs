//! A row block on the CPU, in the forms that its operation takes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::axes::Axes;
use super::codes::Codes;
use super::kernel::Kernel;
use super::panels::Panels;
use crate::embeddings::F32Rows;
use crate::engine::tiles::Operation;

/// Rows as panels, as codes, or as both: which of them a search needs, it knows only when it begins.
pub struct CpuBlock {
    /// The rows, where forms are made later.
    prepared: Arc<Vec<f32>>,
    dim: usize,
    panels: OnceLock<Panels>,
    /// The rows as codes, in every frame that was asked for.
    codes: Mutex<Vec<(Arc<Axes>, Arc<Codes>)>>,
}

impl CpuBlock {
    /// Takes rows, on the current thread pool.
    pub(super) fn new(
        kernel: Kernel,
        operation: Operation,
        values: &Arc<Vec<f32>>,
        dim: usize,
    ) -> Self {
        let later = operation == Operation::Nearest && kernel.has_code_products();
        let (prepared, panels) = if later {
            (Arc::clone(values), OnceLock::new())
        } else {
            let panels = Panels::pack(F32Rows::new(values, dim));
            (Arc::default(), OnceLock::from(panels))
        };
        Self {
            prepared,
            dim,
            panels,
            codes: Mutex::default(),
        }
    }

    /// Values per row, d.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Number of rows of a search by codes.
    pub(super) fn rows(&self) -> usize {
        self.prepared().len()
    }

    /// The rows in panels.
    pub(super) fn panels(&self) -> &Panels {
        self.panels
            .get_or_init(|| Panels::pack(F32Rows::new(&self.prepared, self.dim)))
    }

    /// The rows as they came; of a search by codes only.
    pub(super) fn prepared(&self) -> F32Rows<'_> {
        F32Rows::new(&self.prepared, self.dim)
    }

    /// The rows as codes along `axes`; of a search by codes only.
    pub(super) fn codes(&self, kernel: Kernel, axes: &Arc<Axes>) -> Arc<Codes> {
        let mut codes = self.codes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, made)) = codes.iter().find(|(along, _)| Arc::ptr_eq(along, axes)) {
            return Arc::clone(made);
        }
        let made = Arc::new(Codes::encode(kernel, axes, self.prepared()));
        codes.push((Arc::clone(axes), Arc::clone(&made)));
        made
    }
}
