//! A row block on the CPU, in the forms that its operation takes.

use std::sync::OnceLock;

use super::codes::Codes;
use super::kernel::Kernel;
use super::panels::Panels;
use crate::embeddings::Rows;
use crate::engine::tiles::Operation;

/// Rows as panels, as codes, or as both: which of them a search needs, it knows only when it begins.
pub struct CpuBlock {
    /// The rows, where forms are made later.
    prepared: Vec<f32>,
    dim: usize,
    panels: OnceLock<Panels>,
    codes: OnceLock<Codes>,
}

impl CpuBlock {
    /// Takes rows, on the current thread pool.
    pub(super) fn new(kernel: Kernel, operation: Operation, rows: Rows<'_>) -> Self {
        let later = operation == Operation::Nearest && kernel.has_code_products();
        let (prepared, panels) = if later {
            (rows.values().to_vec(), OnceLock::new())
        } else {
            (Vec::new(), OnceLock::from(Panels::pack(rows)))
        };
        Self {
            prepared,
            dim: rows.dim(),
            panels,
            codes: OnceLock::new(),
        }
    }

    /// Values per row, d.
    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// The rows in panels.
    pub(super) fn panels(&self) -> &Panels {
        self.panels
            .get_or_init(|| Panels::pack(Rows::new(&self.prepared, self.dim)))
    }

    /// The rows as codes; of a search only.
    pub(super) fn codes(&self, kernel: Kernel) -> &Codes {
        self.codes
            .get_or_init(|| Codes::encode(kernel, Rows::new(&self.prepared, self.dim)))
    }
}
