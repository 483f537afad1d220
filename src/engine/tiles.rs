//! Which row blocks meet, and in what order. Pure arithmetic.

use std::ops::Range;

/// The operations of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Cosine histogram.
    PairHistogram,
    /// Kernel sums.
    PairSums,
    /// Nearest rows.
    Nearest,
    /// Cross-products.
    Gram,
    /// Linear map.
    Project,
}

impl Operation {
    /// The operation's one name: method, shader file, entry point, oracle, test and benchmark.
    pub fn name(self) -> &'static str {
        match self {
            Self::PairHistogram => "pair_histogram",
            Self::PairSums => "pair_sums",
            Self::Nearest => "nearest",
            Self::Gram => "gram",
            Self::Project => "project",
        }
    }
}

/// Which pairs of rows a pass visits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Every row of x with every row of y.
    Rectangle,
    /// x is y: every unordered pair once.
    Triangle,
    /// Row i of x with row i of y only.
    Diagonal,
}

/// A row block of x against a row block of y.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Rows of x.
    pub x: Range<usize>,
    /// Rows of y.
    pub y: Range<usize>,
    /// Whether x and y are the same rows of the same set.
    pub diagonal: bool,
}

impl Tile {
    /// Pairs of rows in the tile's rectangle: the unit of progress.
    pub fn pairs(&self) -> u64 {
        self.x.len() as u64 * self.y.len() as u64
    }
}

/// The tiles of one pass, y block by y block: y may be a stream that is read once.
#[derive(Debug, Clone)]
pub struct TilePlan {
    /// Rows of x.
    pub x_rows: usize,
    /// Rows of y.
    pub y_rows: usize,
    /// Rows per block of x.
    pub x_step: usize,
    /// Rows per block of y; equal to `x_step` for a triangle.
    pub y_step: usize,
    /// Which pairs.
    pub shape: Shape,
}

impl TilePlan {
    /// The tiles in order.
    pub fn tiles(&self) -> impl Iterator<Item = Tile> + '_ {
        let blocks = |rows: usize, step: usize| {
            (0..rows)
                .step_by(step)
                .map(move |start| start..(start + step).min(rows))
        };
        blocks(self.y_rows, self.y_step).flat_map(move |y| {
            blocks(self.x_rows, self.x_step).filter_map(move |x| {
                let y = y.clone();
                let same = x == y;
                let wanted = match self.shape {
                    Shape::Rectangle => true,
                    Shape::Triangle => y.start >= x.start,
                    Shape::Diagonal => same,
                };
                wanted.then(|| Tile {
                    diagonal: self.shape == Shape::Triangle && same,
                    x: x.clone(),
                    y,
                })
            })
        })
    }

    /// Pairs over all tiles.
    pub fn pairs(&self) -> u64 {
        self.tiles().map(|t| t.pairs()).sum()
    }
}
