//! Plain Rust.

use super::super::codes::{BaseLane, CodeTile, GROUP, QueryLane, plain_products};
use super::super::panels::{LANES, Lane};
use super::super::product::Tile;
use super::Isa;

/// Plain Rust: what every other architecture gets.
#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Isa for Portable {
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32, c: f32) -> f32 {
        // Without the instruction `f32::mul_add` is a slow function call.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
            a.mul_add(b, c)
        } else {
            a * b + c
        }
    }

    #[inline(always)]
    fn panel_product(
        self,
        a: &[Lane],
        b: &[Lane],
        dim: usize,
        tile: &mut Tile,
        row: usize,
        column: usize,
    ) {
        /// Rows and columns of A and B per pass: what sixteen 128-bit registers hold.
        const ROWS: usize = 4;
        const COLUMNS: usize = 8;
        for (panel, b) in b.chunks_exact(dim).enumerate() {
            for left in (0..LANES).step_by(COLUMNS) {
                for top in (0..LANES).step_by(ROWS) {
                    let mut sums = [[0.0f32; COLUMNS]; ROWS];
                    for (a, b) in a.iter().zip(b) {
                        let a: &[f32; ROWS] = a.0[top..].first_chunk().expect("16 is 4 · 4");
                        let b: &[f32; COLUMNS] = b.0[left..].first_chunk().expect("16 is 2 · 8");
                        for r in 0..ROWS {
                            for c in 0..COLUMNS {
                                sums[r][c] = self.mul_add(a[r], b[c], sums[r][c]);
                            }
                        }
                    }
                    for (r, sums) in sums.iter().enumerate() {
                        let from = column + panel * LANES + left;
                        tile.row_mut(row + top + r)[from..from + COLUMNS].copy_from_slice(sums);
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn code_products(
        self,
        queries: &[QueryLane],
        panel: &[BaseLane],
        offsets: &[i32; GROUP],
        tile: &mut CodeTile,
    ) {
        plain_products(queries, panel, offsets, tile);
    }
}
