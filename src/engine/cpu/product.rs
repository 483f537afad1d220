//! The product core: A·Bᵀ in tiles of 64 × 64, each handed to an epilogue while it is in the cache.

use std::ops::Range;

use super::kernel::{Isa, Job};
use super::panels::{LANES, Panels};

/// Side of a product tile, in rows. Tiles are aligned to the blocks' first rows, so a sum over one does
/// not depend on how rows were cut into blocks (of multiples of 64 rows).
pub(super) const SIDE: usize = 64;

/// What an output element holds before it is computed: in debug builds a value that no test overlooks.
pub(super) const UNWRITTEN: f32 = if cfg!(debug_assertions) {
    f32::NAN
} else {
    0.0
};

/// Products of up to 64 rows of x with up to 64 rows of y. Elements of rows that do not exist are
/// undefined.
#[repr(C, align(64))]
pub(super) struct Tile([f32; SIDE * SIDE]);

impl Tile {
    pub(super) fn new() -> Box<Self> {
        Box::new(Self([UNWRITTEN; SIDE * SIDE]))
    }

    /// Products of row `r` of x.
    #[inline(always)]
    pub(super) fn row(&self, r: usize) -> &[f32; SIDE] {
        self.0[r * SIDE..]
            .first_chunk()
            .expect("a tile has 64 whole rows")
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, r: usize) -> &mut [f32; SIDE] {
        self.0[r * SIDE..]
            .first_chunk_mut()
            .expect("a tile has 64 whole rows")
    }

    #[inline(always)]
    pub(super) fn values_mut(&mut self) -> &mut [f32; SIDE * SIDE] {
        &mut self.0
    }
}

/// Takes the product tiles of a band, one by one.
pub(super) trait Epilogue {
    /// Takes the products of x's rows `x` with y's rows `y`.
    fn tile<I: Isa>(&mut self, isa: I, tile: &Tile, x: Range<usize>, y: Range<usize>);
}

/// A task: rows `x` of one block against rows `y` of another, both starting on a multiple of 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) x: Range<usize>,
    pub(super) y: Range<usize>,
}

/// Bytes of x that a task goes through again and again: half of a usual second-level cache.
const CACHED_BYTES: usize = 512 << 10;

/// Rows of x per task.
pub(super) fn band_rows(dim: usize) -> usize {
    (CACHED_BYTES / (4 * dim) / SIDE * SIDE).clamp(SIDE, 4 * SIDE)
}

/// Cuts a tile of blocks into tasks; with `diagonal`, those without a tile on or above the diagonal
/// are left out.
pub(super) fn bands(x_rows: usize, y_rows: usize, dim: usize, diagonal: bool) -> Vec<Band> {
    /// Rows of y per task: enough work to amortise a task, enough tasks to share out.
    const Y_ROWS: usize = 16 * SIDE;
    let cut = |rows: usize, step: usize| {
        (0..rows)
            .step_by(step)
            .map(move |start| start..(start + step).min(rows))
    };
    cut(x_rows, band_rows(dim))
        .flat_map(|x| cut(y_rows, Y_ROWS).map(move |y| Band { x: x.clone(), y }))
        .filter(|band| !diagonal || band.y.end > band.x.start)
        .collect()
}

/// Multiplies a band and feeds the epilogue, which it returns.
pub(super) struct Walk<'a, E> {
    pub(super) x: &'a Panels,
    pub(super) y: &'a Panels,
    pub(super) band: &'a Band,
    /// Leave out tiles below the diagonal.
    pub(super) diagonal: bool,
    pub(super) epilogue: E,
}

impl<E: Epilogue> Job for Walk<'_, E> {
    type Output = E;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> E {
        let Self {
            x,
            y,
            band,
            diagonal,
            mut epilogue,
        } = self;
        assert_eq!(x.dim(), y.dim());
        let mut tile = Tile::new();
        // The shorter side stays in the cache while the longer one passes once. (Loops rather than
        // closures: a closure called twice is not inlined.)
        let x_inside = band.x.len() <= band.y.len();
        let (outer, inner) = if x_inside {
            (&band.y, &band.x)
        } else {
            (&band.x, &band.y)
        };
        for outer in outer.clone().step_by(SIDE) {
            for inner in inner.clone().step_by(SIDE) {
                let (x_first, y_first) = if x_inside {
                    (inner, outer)
                } else {
                    (outer, inner)
                };
                if diagonal && y_first < x_first {
                    continue;
                }
                let x_rows = x_first..(x_first + SIDE).min(band.x.end);
                let y_rows = y_first..(y_first + SIDE).min(band.y.end);
                if cfg!(debug_assertions) {
                    tile.values_mut().fill(UNWRITTEN);
                }
                multiply(isa, x, &x_rows, y, &y_rows, &mut tile);
                epilogue.tile(isa, &tile, x_rows, y_rows);
            }
        }
        epilogue
    }
}

#[inline(always)]
fn multiply<I: Isa>(
    isa: I,
    x: &Panels,
    x_rows: &Range<usize>,
    y: &Panels,
    y_rows: &Range<usize>,
    tile: &mut Tile,
) {
    let dim = x.dim();
    let a = x.lanes(x_rows.start, x_rows.end);
    let b = y.lanes(y_rows.start, y_rows.end);
    for (pair, b) in b.chunks(2 * dim).enumerate() {
        for (panel, a) in a.chunks_exact(dim).enumerate() {
            isa.panel_product(a, b, dim, tile, panel * LANES, pair * 2 * LANES);
        }
    }
}

/// Sum of 16 values as a balanced tree: l + (l + 8), then l + (l + 4), …
#[inline(always)]
pub(super) fn tree_sum(mut values: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for l in 0..half {
            values[l] += values[l + half];
        }
        half /= 2;
    }
    values[0]
}

/// The four quarters of a row added up: (1st + 2nd) + (3rd + 4th).
#[inline(always)]
pub(super) fn quarter_sum(row: &[f32; SIDE]) -> [f32; LANES] {
    let mut sums = [0.0; LANES];
    for l in 0..LANES {
        sums[l] = (row[l] + row[l + 16]) + (row[l + 32] + row[l + 48]);
    }
    sums
}
