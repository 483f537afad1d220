//! `pair_sums`: sums of kernels over all pairs, by pair of row blocks.
//!
//! # The grid
//! Centred rows x of a set of at least 2,048 are rounded to s·c, c in integers, with one step s for the
//! whole set: the smallest for which ‖c‖² < 2³¹ and |cₖ| < 2¹⁵ for every row. Then
//! d² = s²·(‖c‖² + ‖c′‖² − 2·c·c′) is formed in integers, exactly, at twice the rate of f32, and the
//! kernel is that of points which moved by s·√(d/12) on average: at d = 768 by 1.7·10⁻⁴ of the longest
//! row, like f16 and six times less than bf16. Equal rows stay equal. Both samples are rounded alike, so
//! a permutation test stays exact.
//!
//! Budget: rows move in random directions, and the MMD² by no more than 10⁻⁷ at n = 1,100 and less for
//! more rows (`tests/sums.rs`), where chance alone moves it by 0.3/n. Sets below 2,048 rows take
//! milliseconds and keep f32, to agree with published figures to their last digit. So do sets of which
//! a few rows are so much longer than the others that a row of median length would move by more than
//! 10⁻³ of it. The rule looks at nothing but the rows, so results depend on no device, block or thread;
//! [`PairSums::grid_step`] tells what was done. A GPU gets the same rounded rows and computes with them
//! in f32.

use rayon::prelude::*;

use super::fixed::FixedSum;
use super::fold::{Feed, Loaded};
use super::tiles::{Operation, Shape, Tile, TilePlan};
use super::{AnyBackend, Backend, Engine, score};
use crate::embeddings::Rows;
use crate::error::Result;

/// Group of a padding row, which pairs with nothing.
pub const PADDING: u32 = u32::MAX;

/// Distance of the grid that the rows of large sets are rounded to.
pub const GRID_STEP: f32 = 1.0 / (1 << 16) as f32;

/// Kernels of squared distance that one exponential per pair gives: RBF kernels exp(−γ_j·d²) with
/// γ_j = 2ʲ·`gamma`, j = 0 … `rbf` − 1, then, where `energy` is set, −d.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelFamily {
    /// Smallest γ (the widest kernel), in units of 1/d².
    pub gamma: f64,
    /// How many RBF kernels, 1 to 5.
    pub rbf: usize,
    /// Whether the energy kernel −‖x − y‖ follows.
    pub energy: bool,
    /// A constant near each kernel's mean, subtracted from it while summing and added back after:
    /// small terms lose fewer bits. One per kernel.
    pub offsets: Vec<f32>,
}

impl KernelFamily {
    /// Number of kernels.
    pub fn len(&self) -> usize {
        self.rbf + usize::from(self.energy)
    }

    /// Whether there is no kernel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// γ of RBF kernel `j`.
    pub fn gamma_of(&self, j: usize) -> f64 {
        self.gamma * f64::from(1u32 << j)
    }

    /// Kernel `j` of a squared distance, in f64, without its offset.
    pub fn value(&self, j: usize, sq_distance: f64) -> f64 {
        if j < self.rbf {
            (-self.gamma_of(j) * sq_distance).exp()
        } else {
            -sq_distance.sqrt()
        }
    }
}

/// One tile's request for kernel sums; see [`Backend::pair_sums`].
#[derive(Debug, Clone, Copy)]
pub struct SumsRequest<'a> {
    /// The kernels, for distances between the rows as loaded.
    pub kernels: &'a KernelFamily,
    /// Side of a sum tile in rows, 16 or 64. Both blocks hold whole sum tiles.
    pub side: usize,
    /// Per row of x: its group, or [`PADDING`] for a row that does not exist.
    pub x_groups: &'a [u32],
    /// Per row of y, likewise. Pairs of one group take no part.
    pub y_groups: &'a [u32],
    /// x and y are the same rows: only sum tiles on and above the diagonal are wanted. A tile on the
    /// diagonal sums over ordered pairs.
    pub diagonal: bool,
    /// RBF kernel whose row sums are wanted too.
    pub row_sums_of: Option<usize>,
    /// Every coordinate is a multiple of [`GRID_STEP`], below ½ in size, and every row shorter than
    /// √½: products of rows are multiples of `GRID_STEP`², fewer than 2³¹ of them.
    pub on_grid: bool,
}

impl SumsRequest<'_> {
    /// Sum tiles along x.
    pub fn x_tiles(&self) -> usize {
        self.x_groups.len() / self.side
    }

    /// Sum tiles along y.
    pub fn y_tiles(&self) -> usize {
        self.y_groups.len() / self.side
    }
}

/// Sums over sum tiles, each in f32 in a fixed order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TileSums {
    /// Σ (k − offset) over the pairs of one sum tile: `[x tile][y tile][kernel]`. With `diagonal`, tiles
    /// below the diagonal hold 0.
    pub sums: Vec<f32>,
    /// Σ (k − offset) over one row of x within a sum tile: `[x row][y tile]`; empty unless asked for,
    /// 0 below the diagonal.
    pub x_rows: Vec<f32>,
    /// Σ (k − offset) over one row of y within a sum tile: `[y row][x tile]`; empty unless asked for.
    /// With `diagonal`, only tiles above the diagonal are filled: on it, `x_rows` says it all.
    pub y_rows: Vec<f32>,
}

/// How rows lie for [`Engine::pair_sums`]: block after block, each padded to whole sum tiles.
///
/// Rows of X and Y share one numbering: row r < n is X's row r, row n + r is Y's row r.
#[derive(Debug, Clone)]
pub struct BlockLayout {
    /// Side of a sum tile.
    side: usize,
    /// Per position: the row that lies there, or [`PADDING`].
    order: Vec<u32>,
    /// Per position: the row's group, or [`PADDING`].
    groups: Vec<u32>,
    /// Per sum tile: its block.
    tile_blocks: Vec<u32>,
    /// Rows that are Y's start here.
    x_rows: usize,
    blocks: usize,
}

impl BlockLayout {
    /// Lays out `blocks` (lists of rows) in order. `group_of` gives the group of every row, X's and Y's;
    /// pairs of one group are left out of every sum, so a row must share its group with itself only,
    /// or with the rows it must not be compared with.
    ///
    /// # Panics
    /// If a group is [`PADDING`].
    pub fn new(x_rows: usize, blocks: &[Vec<u32>], group_of: &[u32]) -> Self {
        // Small tiles where padding to large ones would add a quarter of the rows; both sizes divide
        // every backend's block of rows.
        let padded = |side: usize| -> usize {
            let rows = blocks.iter().map(Vec::len);
            rows.map(|rows| rows.next_multiple_of(side)).sum()
        };
        let side = if padded(64) > padded(16) / 4 * 5 {
            16
        } else {
            64
        };
        let mut layout = Self {
            side,
            order: Vec::new(),
            groups: Vec::new(),
            tile_blocks: Vec::new(),
            x_rows,
            blocks: blocks.len(),
        };
        for (block, rows) in blocks.iter().enumerate() {
            for &row in rows {
                let group = group_of[row as usize];
                assert_ne!(group, PADDING, "a row's group is a number below 2³² − 1");
                layout.order.push(row);
                layout.groups.push(group);
            }
            let padded = layout.order.len().next_multiple_of(side);
            layout.order.resize(padded, PADDING);
            layout.groups.resize(padded, PADDING);
            layout.tile_blocks.resize(padded / side, block as u32);
        }
        layout
    }

    /// Number of blocks, s.
    pub fn blocks(&self) -> usize {
        self.blocks
    }
}

/// Kernel sums by pair of blocks.
#[derive(Debug, Clone, PartialEq)]
pub struct PairSums {
    /// Number of blocks, s.
    pub blocks: usize,
    /// Per kernel an s × s symmetric matrix, row-major: Σ k over ordered pairs (i in block I, j in
    /// block J) of different groups.
    pub sums: Vec<Vec<f64>>,
    /// Pairs behind each entry, s × s.
    pub counts: Vec<u64>,
    /// For the kernel asked for: per row (X's, then Y's) Σ k over X's and over Y's rows of other groups.
    pub row_sums: Option<Vec<[f64; 2]>>,
    /// The multiples that coordinates about the pooled mean were rounded to; `None`: they were not.
    pub grid_step: Option<f64>,
}

impl Engine {
    /// Sums every kernel over all pairs of rows of X and Y laid out as `layout` says.
    ///
    /// The rows are translated by the pooled mean and scaled by a power of two first (distances do not
    /// change, cancellation does), those of large sets rounded to a grid (see the module); squared
    /// distances ‖x‖² + ‖y‖² − 2x·y are clamped at 0. Offsets are subtracted in f32 and added back exactly.
    ///
    /// # Errors
    /// The device fails.
    ///
    /// # Panics
    /// If the dimensions differ, the layout is for other sets, or row sums of the energy kernel are asked
    /// for.
    pub fn pair_sums(
        &self,
        x: Rows<'_>,
        y: Rows<'_>,
        layout: &BlockLayout,
        kernels: &KernelFamily,
        row_sums_of: Option<usize>,
    ) -> Result<PairSums> {
        assert_eq!(x.dim(), y.dim());
        assert_eq!(layout.x_rows, x.len());
        assert_eq!(kernels.offsets.len(), kernels.len());
        assert!(
            row_sums_of.is_none_or(|j| j < kernels.rbf),
            "row sums are of RBF kernels"
        );
        let dim = x.dim();
        let pooled = Pooled { x, y };
        // In the layout's order, so that the order of the rows in a file changes nothing.
        let present = layout.order.iter().copied();
        let laid_out: Vec<u32> = present.filter(|&row| row != PADDING).collect();
        let frame = self.threads.install(|| Frame::new(pooled, &laid_out));
        let scaled = KernelFamily {
            gamma: kernels.gamma / (frame.scale * frame.scale),
            offsets: kernels
                .offsets
                .iter()
                .enumerate()
                .map(|(j, &c)| {
                    if j < kernels.rbf {
                        c
                    } else {
                        (f64::from(c) * frame.scale) as f32
                    }
                })
                .collect(),
            ..kernels.clone()
        };
        let gather = |range: std::ops::Range<usize>| {
            let mut values = vec![0.0f32; range.len() * dim];
            let mut buffer = Vec::new();
            // Not on the global pool: all of its threads may be waiting for passes like this one.
            for (to, &row) in values.chunks_exact_mut(dim).zip(&layout.order[range]) {
                if row != PADDING {
                    frame.apply(pooled.row_in(row, &mut buffer), to);
                }
            }
            values
        };

        let s = layout.blocks;
        let mut state = vec![FixedSum::default(); kernels.len() * s * s];
        let mut rows = vec![
            [FixedSum::default(); 2];
            if row_sums_of.is_some() {
                x.len() + y.len()
            } else {
                0
            }
        ];
        let side = layout.side;
        let step = self.block_rows(Operation::PairSums, dim);
        let positions = layout.order.len();
        let plan = TilePlan {
            x_rows: positions,
            y_rows: positions,
            x_step: step,
            y_step: step,
            shape: Shape::Triangle,
        };
        let rows_of = |range| Ok((gather(range), ()));
        let feed = || Feed {
            dim,
            rows: &rows_of,
        };
        let compute = |backend: &AnyBackend, bx: &Loaded<()>, by: &Loaded<()>, tile: &Tile| {
            let request = SumsRequest {
                kernels: &scaled,
                side,
                x_groups: &layout.groups[tile.x.clone()],
                y_groups: &layout.groups[tile.y.clone()],
                diagonal: tile.diagonal,
                row_sums_of,
                on_grid: frame.step.is_some(),
            };
            backend.pair_sums(&bx.block, &by.block, request)
        };
        self.fold(
            Operation::PairSums,
            &plan,
            (feed(), feed()),
            compute,
            |tile, part| {
                let (first_x, first_y) = (tile.x.start / side, tile.y.start / side);
                let (x_tiles, y_tiles) = (tile.x.len() / side, tile.y.len() / side);
                for tx in 0..x_tiles {
                    for ty in if tile.diagonal { tx } else { 0 }..y_tiles {
                        let a = layout.tile_blocks[first_x + tx] as usize;
                        let b = layout.tile_blocks[first_y + ty] as usize;
                        let (low, high) = (a.min(b), a.max(b));
                        let from = (tx * y_tiles + ty) * kernels.len();
                        for (j, &sum) in part.sums[from..from + kernels.len()].iter().enumerate() {
                            let entry = &mut state[(j * s + low) * s + high];
                            entry.add(f64::from(sum));
                            // Two tiles of one block are met once but hold ordered pairs both ways.
                            if a == b && first_x + tx != first_y + ty {
                                entry.add(f64::from(sum));
                            }
                        }
                    }
                }
                let side_of =
                    |position: usize| usize::from(layout.order[position] as usize >= x.len());
                let mut add_rows = |sums: &[f32], own: usize, other: usize, tiles: usize| {
                    for (row, per_tile) in sums.chunks_exact(tiles).enumerate() {
                        let at = layout.order[own + row];
                        if at == PADDING {
                            continue;
                        }
                        for (t, &sum) in per_tile.iter().enumerate() {
                            // A tile lies in one block, a block in one set.
                            rows[at as usize][side_of(other + t * side)].add(f64::from(sum));
                        }
                    }
                };
                if row_sums_of.is_some() {
                    add_rows(&part.x_rows, tile.x.start, tile.y.start, y_tiles);
                    add_rows(&part.y_rows, tile.y.start, tile.x.start, x_tiles);
                }
            },
        )?;

        let counts = layout.pair_counts();
        let sums = (0..kernels.len())
            .map(|j| {
                let (unit, offset) = if j < kernels.rbf {
                    (1.0, f64::from(scaled.offsets[j]))
                } else {
                    (frame.scale, f64::from(scaled.offsets[j]))
                };
                let mut matrix = vec![0.0; s * s];
                for low in 0..s {
                    for high in low..s {
                        let sum = state[(j * s + low) * s + high].to_f64();
                        let value = (sum + offset * counts[low * s + high] as f64) / unit;
                        matrix[low * s + high] = value;
                        matrix[high * s + low] = value;
                    }
                }
                matrix
            })
            .collect();
        let row_sums = row_sums_of.map(|j| {
            let offset = f64::from(scaled.offsets[j]);
            layout
                .row_counts(x.len() + y.len())
                .iter()
                .zip(&rows)
                .map(|(count, sum)| {
                    std::array::from_fn(|side| sum[side].to_f64() + offset * count[side] as f64)
                })
                .collect()
        });
        Ok(PairSums {
            blocks: s,
            sums,
            counts,
            row_sums,
            grid_step: frame.step,
        })
    }
}

impl BlockLayout {
    /// Ordered pairs of different groups per pair of blocks, s × s.
    fn pair_counts(&self) -> Vec<u64> {
        let s = self.blocks;
        let mut rows = vec![0u64; s];
        let mut members: Vec<(u32, u32)> = Vec::with_capacity(self.order.len());
        for (position, &group) in self.groups.iter().enumerate() {
            if group != PADDING {
                let block = self.tile_blocks[position / self.side];
                rows[block as usize] += 1;
                members.push((group, block));
            }
        }
        let mut counts: Vec<u64> = (0..s * s).map(|at| rows[at / s] * rows[at % s]).collect();
        members.sort_unstable();
        for group in members.chunk_by(|a, b| a.0 == b.0) {
            for &(_, a) in group {
                for &(_, b) in group {
                    counts[a as usize * s + b as usize] -= 1;
                }
            }
        }
        counts
    }

    /// Per row: how many rows of X and of Y are in other groups.
    fn row_counts(&self, rows: usize) -> Vec<[u64; 2]> {
        let mut totals = [0u64; 2];
        let mut per_group = std::collections::HashMap::<u32, [u64; 2]>::new();
        let present = || {
            self.order
                .iter()
                .zip(&self.groups)
                .filter(|&(&row, _)| row != PADDING)
                .map(|(&row, &group)| (row, group, usize::from(row as usize >= self.x_rows)))
        };
        for (_, group, side) in present() {
            totals[side] += 1;
            per_group.entry(group).or_default()[side] += 1;
        }
        let mut counts = vec![[0; 2]; rows];
        for (row, group, _) in present() {
            let own = per_group[&group];
            counts[row as usize] = [totals[0] - own[0], totals[1] - own[1]];
        }
        counts
    }
}

/// Rows, in all, from which they are rounded to a grid: fewer take milliseconds in f32.
const GRID_ROWS: usize = 2048;

/// Coarsest grid: what rounding takes from a row of median length, as a share of it.
const GRID_LOSS: f64 = 1e-3;

/// The rows of X and Y under one numbering.
#[derive(Clone, Copy)]
struct Pooled<'a> {
    x: Rows<'a>,
    y: Rows<'a>,
}

impl<'a> Pooled<'a> {
    /// As [`Rows::row_in`].
    fn row_in<'b>(&self, row: u32, buffer: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        match (row as usize).checked_sub(self.x.len()) {
            None => self.x.row_in(row as usize, buffer),
            Some(row) => self.y.row_in(row, buffer),
        }
    }
}

/// Translation, scale and grid under which rows are summed.
struct Frame {
    mean: Vec<f64>,
    /// A power of two without a grid; else `GRID_STEP` / `step`.
    scale: f64,
    /// Distance of the grid in the rows' own unit.
    step: Option<f64>,
}

impl Frame {
    /// Mean and reach of the rows, parts of which are summed in parallel and then in order: their
    /// order decides the bits, the threads do not.
    fn new(pooled: Pooled<'_>, rows: &[u32]) -> Self {
        const PART: usize = 1024;
        let dim = pooled.x.dim();
        let sums: Vec<Vec<f64>> = rows
            .par_chunks(PART)
            .map(|part| {
                let mut sums = vec![0.0; dim];
                let mut buffer = Vec::new();
                for &row in part {
                    let row = pooled.row_in(row, &mut buffer);
                    for (sum, &v) in sums.iter_mut().zip(row) {
                        *sum += f64::from(v);
                    }
                }
                sums
            })
            .collect();
        let mut mean = vec![0.0f64; dim];
        for sums in sums {
            for (m, sum) in mean.iter_mut().zip(sums) {
                *m += sum / rows.len() as f64;
            }
        }
        let reach =
            |buffer: &mut Vec<f32>, &row: &u32| Reach::of(pooled.row_in(row, buffer), &mean);
        let reaches: Vec<Reach> = rows.par_iter().map_init(Vec::new, reach).collect();
        let longest = reaches.iter().map(|r| r.length).fold(0.0, f64::max);
        let step = if rows.len() >= GRID_ROWS {
            grid_step(reaches, longest, dim)
        } else {
            None
        };
        Self {
            mean,
            scale: match step {
                Some(step) => f64::from(GRID_STEP) / step,
                None => score::unit_scale(longest),
            },
            step,
        }
    }

    fn apply(&self, from: &[f32], to: &mut [f32]) {
        /// 3 · 2⁵¹: numbers up to 2⁵¹ have no fraction left after a sum with it.
        const ROUNDER: f64 = 6_755_399_441_055_744.0;
        let centred = to.iter_mut().zip(from).zip(&self.mean);
        match self.step {
            None => {
                for ((to, &v), mean) in centred {
                    *to = ((f64::from(v) - mean) * self.scale) as f32;
                }
            }
            Some(step) => {
                let inverse = 1.0 / step;
                for ((to, &v), mean) in centred {
                    let code = ((f64::from(v) - mean) * inverse + ROUNDER) - ROUNDER;
                    *to = code as f32 * GRID_STEP;
                }
            }
        }
    }
}

/// How far a centred row reaches.
struct Reach {
    length: f64,
    /// The largest coordinate in size.
    largest: f64,
}

impl Reach {
    fn of(row: &[f32], mean: &[f64]) -> Self {
        const LANES: usize = 8;
        let mut squares = [0.0f64; LANES];
        let mut largest = [0.0f64; LANES];
        // By index within whole chunks: vector code.
        for (row, mean) in row.chunks(LANES).zip(mean.chunks(LANES)) {
            for i in 0..row.len() {
                let off = f64::from(row[i]) - mean[i];
                squares[i] += off * off;
                let size = off.abs();
                largest[i] = if size > largest[i] { size } else { largest[i] };
            }
        }
        Self {
            length: squares.iter().sum::<f64>().sqrt(),
            largest: largest.into_iter().fold(0.0, f64::max),
        }
    }
}

/// The finest grid on which no row is longer than √(2³¹ − 1) steps and no coordinate larger than
/// 2¹⁵ − 1: one for all rows, so that equal rows stay equal. `None` where it is too coarse for most
/// rows, because a few are far longer.
///
/// Rounding moves a coordinate by up to half a step, a row by step·√(d/12) on average and step·√d/2 at
/// most.
fn grid_step(reaches: Vec<Reach>, longest: f64, dim: usize) -> Option<f64> {
    const MOST_STEPS: f64 = 46_340.0;
    const MOST_CODE: f64 = 32_767.0;
    let root = (dim as f64).sqrt();
    let largest = reaches.iter().map(|r| r.largest).fold(0.0, f64::max);
    // A millionth more, for the rounding of these very numbers.
    let step =
        (longest / (MOST_STEPS - root / 2.0)).max(largest / (MOST_CODE - 0.5)) * (1.0 + 1e-6);
    let mut lengths: Vec<f64> = reaches.into_iter().map(|r| r.length).collect();
    let middle = lengths.len() / 2;
    let (_, &mut median, _) = lengths.select_nth_unstable_by(middle, f64::total_cmp);
    let fine = step * root / 12f64.sqrt() <= GRID_LOSS * median;
    (fine && step >= f64::from(f32::MIN_POSITIVE)).then_some(step)
}
