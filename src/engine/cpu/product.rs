//! The product core: A·Bᵀ in tiles of 64 × 64, each handed to an epilogue while it is in the cache.

use std::ops::Range;

use super::kernel::{Isa, Job};
use super::panels::{LANES, Lane, Panels};

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
pub(super) struct Tile<T = f32>([T; SIDE * SIDE]);

impl<T: Copy> Tile<T> {
    pub(super) fn new(unwritten: T) -> Box<Self> {
        Box::new(Self([unwritten; SIDE * SIDE]))
    }

    /// Products of row `r` of x.
    #[inline(always)]
    pub(super) fn row(&self, r: usize) -> &[T; SIDE] {
        self.0[r * SIDE..]
            .first_chunk()
            .expect("a tile has 64 whole rows")
    }

    #[inline(always)]
    pub(super) fn row_mut(&mut self, r: usize) -> &mut [T; SIDE] {
        self.0[r * SIDE..]
            .first_chunk_mut()
            .expect("a tile has 64 whole rows")
    }

    #[inline(always)]
    pub(super) fn values_mut(&mut self) -> &mut [T; SIDE * SIDE] {
        &mut self.0
    }
}

/// Rows in panels of 16 that can be multiplied with each other.
pub(super) trait Factor: Sync {
    /// One or a few coordinates of a panel.
    type Lane;
    /// What a product is.
    type Product: Copy;
    /// What a product is before it is computed: in debug builds a value that no test overlooks.
    const UNWRITTEN: Self::Product;

    /// Number of rows.
    fn rows(&self) -> usize;

    /// Lanes per panel.
    fn depth(&self) -> usize;

    /// The panels of rows `first` … `end` − 1; `first` is a multiple of 16.
    fn lanes(&self, first: usize, end: usize) -> &[Self::Lane];

    /// Products of panel `a` with one or two panels `b`, into `tile` from (`row`, `column`) on.
    fn multiply<I: Isa>(
        isa: I,
        a: &[Self::Lane],
        b: &[Self::Lane],
        tile: &mut Tile<Self::Product>,
        row: usize,
        column: usize,
    );
}

impl Factor for Panels {
    type Lane = Lane;
    type Product = f32;
    const UNWRITTEN: f32 = UNWRITTEN;

    fn rows(&self) -> usize {
        self.rows()
    }

    fn depth(&self) -> usize {
        self.dim()
    }

    #[inline(always)]
    fn lanes(&self, first: usize, end: usize) -> &[Lane] {
        self.lanes(first, end)
    }

    #[inline(always)]
    fn multiply<I: Isa>(
        isa: I,
        a: &[Lane],
        b: &[Lane],
        tile: &mut Tile,
        row: usize,
        column: usize,
    ) {
        isa.panel_product(a, b, a.len(), tile, row, column);
    }
}

/// Takes the product tiles of a band, one by one.
pub(super) trait Epilogue<T = f32> {
    /// Takes the products of x's rows `x` with y's rows `y`.
    fn tile<I: Isa>(&mut self, isa: I, tile: &Tile<T>, x: Range<usize>, y: Range<usize>);
}

/// A task: rows `x` of one block against rows `y` of another, both starting on a multiple of 64.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) x: Range<usize>,
    pub(super) y: Range<usize>,
}

/// Bytes of x that a task goes through again and again: half of a usual second-level cache.
const CACHED_BYTES: usize = 512 << 10;

/// Rows of x per task, for rows of `lanes` lanes of a panel.
pub(super) fn band_rows(lanes: usize) -> usize {
    (CACHED_BYTES / (4 * lanes) / SIDE * SIDE).clamp(SIDE, 4 * SIDE)
}

/// Cuts a tile of blocks into tasks; with `diagonal`, those without a tile on or above the diagonal
/// are left out.
pub(super) fn bands<F: Factor>(x: &F, y: &F, diagonal: bool) -> Vec<Band> {
    /// Rows of y per task: enough work to amortise a task, enough tasks to share out.
    const Y_ROWS: usize = 16 * SIDE;
    let cut = |rows: usize, step: usize| {
        (0..rows)
            .step_by(step)
            .map(move |start| start..(start + step).min(rows))
    };
    cut(x.rows(), band_rows(x.depth()))
        .flat_map(|x| cut(y.rows(), Y_ROWS).map(move |y| Band { x: x.clone(), y }))
        .filter(|band| !diagonal || band.y.end > band.x.start)
        .collect()
}

/// Multiplies a band and feeds the epilogue, which it returns.
pub(super) struct Walk<'a, E, F = Panels> {
    pub(super) x: &'a F,
    pub(super) y: &'a F,
    pub(super) band: &'a Band,
    /// Leave out tiles below the diagonal.
    pub(super) diagonal: bool,
    pub(super) epilogue: E,
}

impl<F: Factor, E: Epilogue<F::Product>> Job for Walk<'_, E, F> {
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
        assert_eq!(x.depth(), y.depth());
        let mut tile = Tile::new(F::UNWRITTEN);
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
                    tile.values_mut().fill(F::UNWRITTEN);
                }
                multiply(isa, x, &x_rows, y, &y_rows, &mut tile);
                epilogue.tile(isa, &tile, x_rows, y_rows);
            }
        }
        epilogue
    }
}

#[inline(always)]
fn multiply<F: Factor, I: Isa>(
    isa: I,
    x: &F,
    x_rows: &Range<usize>,
    y: &F,
    y_rows: &Range<usize>,
    tile: &mut Tile<F::Product>,
) {
    let depth = x.depth();
    let a = x.lanes(x_rows.start, x_rows.end);
    let b = y.lanes(y_rows.start, y_rows.end);
    for (pair, b) in b.chunks(2 * depth).enumerate() {
        for (panel, a) in a.chunks_exact(depth).enumerate() {
            F::multiply(isa, a, b, tile, panel * LANES, pair * 2 * LANES);
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
