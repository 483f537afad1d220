//! What becomes of a product tile. Plain code, compiled once per instruction set.

use super::kernel::{SIDE, Tile};
use crate::engine::{COSINE_BINS, PADDING, PairHistogram, SumsRequest, TileSums};

/// Most kernels of one family: five bandwidths and energy.
const KERNELS: usize = 6;
/// Rows of y whose sums are kept in registers at once.
const LANES: usize = 16;

/// Counts of one task. Neighbouring products often fall into one bin: alternate arrays keep an
/// increment from waiting for the one before.
pub(super) struct Counts(Box<[[u32; COSINE_BINS]; 2]>);

impl Default for Counts {
    fn default() -> Self {
        Self(Box::new([[0; COSINE_BINS]; 2]))
    }
}

impl Counts {
    /// Adds the counts to a histogram and starts over.
    pub(super) fn flush(&mut self, into: &mut PairHistogram) {
        for counts in self.0.iter_mut() {
            for (total, count) in into.counts.iter_mut().zip(counts) {
                *total += u64::from(std::mem::take(count));
            }
        }
    }
}

/// Counts the products of the first `size` rows and columns, or of those above the diagonal.
#[inline(always)]
pub(super) fn histogram(
    tile: &Tile,
    size: (usize, usize),
    above_diagonal: bool,
    counts: &mut Counts,
    into: &mut PairHistogram,
) {
    let mut sums = [0.0f32; SIDE];
    let mut squares = [0.0f32; SIDE];
    let mut min = [f32::INFINITY; SIDE];
    let mut max = [f32::NEG_INFINITY; SIDE];
    for (i, row) in tile.rows().take(size.0).enumerate() {
        let from = if above_diagonal { i + 1 } else { 0 };
        let mut bins = [0u32; SIDE];
        for (bin, &c) in bins.iter_mut().zip(row) {
            *bin = PairHistogram::bin(c) as u32;
        }
        if from == 0 && size.1 == SIDE {
            for j in 0..SIDE {
                sums[j] += row[j];
                squares[j] += row[j] * row[j];
                min[j] = min[j].min(row[j]);
                max[j] = max[j].max(row[j]);
            }
        } else {
            for j in from..size.1 {
                sums[j] += row[j];
                squares[j] += row[j] * row[j];
                min[j] = min[j].min(row[j]);
                max[j] = max[j].max(row[j]);
            }
        }
        for j in from..size.1 {
            counts.0[j % 2][bins[j] as usize] += 1;
        }
    }
    into.sum.add(f64::from(tree(&mut sums)));
    into.sum_squares.add(f64::from(tree(&mut squares)));
    into.min = min.iter().copied().fold(into.min, f32::min);
    into.max = max.iter().copied().fold(into.max, f32::max);
}

/// Sum in a fixed order: halves onto each other. The length is a power of two.
#[inline(always)]
fn tree(values: &mut [f32]) -> f32 {
    let mut width = values.len();
    while width > 1 {
        width /= 2;
        let (low, high) = values.split_at_mut(width);
        for (a, b) in low.iter_mut().zip(high) {
            *a += *b;
        }
    }
    values[0]
}

/// Largest product per bin of `width` columns, of the first `size` rows and columns, written to
/// `into[row * bins + at + bin]`.
#[inline(always)]
pub(super) fn maxima(
    tile: &Tile,
    size: (usize, usize),
    width: usize,
    into: &mut [f32],
    bins: usize,
    at: usize,
) {
    for (i, row) in tile.rows().take(size.0).enumerate() {
        let out = &mut into[i * bins + at..];
        for (out, bin) in out.iter_mut().zip(row[..size.1].chunks(width)) {
            let mut best = f32::NEG_INFINITY;
            for &c in bin {
                best = if c > best { c } else { best };
            }
            *out = best;
        }
    }
}

/// Kernel sums of one product tile: 1 or 16 sum tiles.
pub(super) struct Sums {
    side: usize,
    kernels: usize,
    /// `[sum tile row][sum tile column][kernel]`.
    tiles: [[[f32; KERNELS]; 4]; 4],
    /// Values of the kernel whose row sums are wanted.
    values: Option<Box<[[f32; SIDE]; SIDE]>>,
}

impl Sums {
    pub(super) fn new(request: &SumsRequest<'_>) -> Self {
        Self {
            side: request.side,
            kernels: request.kernels.len(),
            tiles: [[[0.0; KERNELS]; 4]; 4],
            values: request.row_sums_of.map(|_| Box::new([[0.0; SIDE]; SIDE])),
        }
    }

    /// Copies the sums of product tile `at` to their places in a task's part, which begins at sum tile
    /// `first` along x and holds `held` of them. `above_only`: sum tiles below the diagonal stay 0.
    pub(super) fn place(
        &self,
        request: &SumsRequest<'_>,
        at: (usize, usize),
        above_only: bool,
        first: usize,
        held: usize,
        part: &mut TileSums,
    ) {
        let per_tile = SIDE / self.side;
        let (x_tiles, y_tiles) = (request.x_tiles(), request.y_tiles());
        for u in 0..per_tile.min(x_tiles - at.0 * per_tile) {
            let tx = at.0 * per_tile + u;
            for v in 0..per_tile.min(y_tiles - at.1 * per_tile) {
                let ty = at.1 * per_tile + v;
                if above_only && ty < tx {
                    continue;
                }
                let to = ((tx - first) * y_tiles + ty) * self.kernels;
                part.sums[to..to + self.kernels].copy_from_slice(&self.tiles[u][v][..self.kernels]);
                let Some(values) = &self.values else { continue };
                for i in 0..self.side {
                    let mut row = [0.0f32; SIDE];
                    row[..self.side].copy_from_slice(
                        &values[u * self.side + i][v * self.side..(v + 1) * self.side],
                    );
                    part.x_rows[((tx - first) * self.side + i) * y_tiles + ty] =
                        tree(&mut row[..self.side]);
                }
                if above_only && tx == ty {
                    continue;
                }
                for j in 0..self.side {
                    let mut column = [0.0f32; SIDE];
                    for (i, value) in column[..self.side].iter_mut().enumerate() {
                        *value = values[u * self.side + i][v * self.side + j];
                    }
                    part.y_rows[(ty * self.side + j) * held + tx - first] =
                        tree(&mut column[..self.side]);
                }
            }
        }
    }
}

/// Σ (k − offset) of every kernel over the pairs of product tile `at`, by sum tile.
///
/// Lanes of y are summed over the rows of a sum tile in order, then onto each other in halves.
#[inline(always)]
pub(super) fn sums(
    tile: &Tile,
    at: (usize, usize),
    sq_norms: (&[f32], &[f32]),
    request: &SumsRequest<'_>,
    into: &mut Sums,
) {
    let SumsRequest {
        kernels,
        side,
        x_groups,
        y_groups,
        row_sums_of,
        ..
    } = *request;
    let gamma = -kernels.gamma as f32;
    let mut offsets = [0.0f32; KERNELS];
    offsets[..kernels.len()].copy_from_slice(&kernels.offsets);
    let (first_x, first_y) = (at.0 * SIDE, at.1 * SIDE);
    let rows = (x_groups.len() - first_x).min(SIDE);
    // Columns beyond the block are padding like any other.
    let mut y_norm = [0.0f32; SIDE];
    let mut y_group = [PADDING; SIDE];
    let columns = (y_groups.len() - first_y).min(SIDE);
    y_norm[..columns].copy_from_slice(&sq_norms.1[first_y..first_y + columns]);
    y_group[..columns].copy_from_slice(&y_groups[first_y..first_y + columns]);

    for (u, from) in (0..rows).step_by(side).enumerate() {
        let mut totals = [[0.0f32; SIDE]; KERNELS];
        for lane in (0..SIDE).step_by(LANES) {
            let mut sums = [[0.0f32; LANES]; KERNELS];
            for i in from..from + side {
                let row: &[f32; LANES] = tile.row(i)[lane..].first_chunk().expect("16 lanes");
                let (norm, group) = (sq_norms.0[first_x + i], x_groups[first_x + i]);
                let mut d2 = [0.0f32; LANES];
                let mut keep = [0.0f32; LANES];
                for l in 0..LANES {
                    d2[l] = (norm + y_norm[lane + l] - 2.0 * row[l]).max(0.0);
                    let other = y_group[lane + l];
                    let meet = (group != other) & (group != PADDING) & (other != PADDING);
                    keep[l] = if meet { 1.0 } else { 0.0 };
                }
                let mut value = [0.0f32; LANES];
                for l in 0..LANES {
                    value[l] = exp_negative(gamma * d2[l]);
                }
                for k in 0..kernels.rbf {
                    for l in 0..LANES {
                        let term = (value[l] - offsets[k]) * keep[l];
                        sums[k][l] += term;
                        value[l] *= value[l];
                        if row_sums_of == Some(k)
                            && let Some(values) = &mut into.values
                        {
                            values[i][lane + l] = term;
                        }
                    }
                }
                if kernels.energy {
                    let k = kernels.rbf;
                    for l in 0..LANES {
                        sums[k][l] += (-d2[l].sqrt() - offsets[k]) * keep[l];
                    }
                }
            }
            for (total, sum) in totals.iter_mut().zip(&sums) {
                total[lane..lane + LANES].copy_from_slice(sum);
            }
        }
        for (k, total) in totals[..kernels.len()].iter_mut().enumerate() {
            for (v, lanes) in total.chunks_exact_mut(side).enumerate() {
                into.tiles[u][v][k] = tree(lanes);
            }
        }
    }
}

/// eˣ for x ≤ 0, within 2 ulp; below −87 it is 0 (true value under 10⁻³⁷).
///
/// x = n·ln 2 + r with |r| ≤ ln 2 / 2, a polynomial of degree 6 in r (Cephes' `expf` coefficients), and n
/// added to the exponent.
#[inline(always)]
pub(super) fn exp_negative(x: f32) -> f32 {
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    /// Adding and subtracting it rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.max(-87.0);
    let n = clamped * std::f32::consts::LOG2_E + ROUND - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5.000_000_1e-1;
    let value = p * r * r + r + 1.0;
    let scale = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x < -87.0 { 0.0 } else { value * scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_negative_is_within_two_ulp() {
        let mut worst = 0.0f64;
        for step in 0..=870_000 {
            let x = -(step as f32) * 1e-4;
            let exact = f64::from(x).exp();
            let ulp = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
            worst = worst.max((f64::from(exp_negative(x)) - exact).abs() / ulp);
        }
        assert!(worst <= 2.0, "{worst} ulp");
        assert_eq!(exp_negative(0.0), 1.0);
        assert_eq!(exp_negative(-0.0), 1.0);
        assert_eq!(exp_negative(-100.0), 0.0);
        assert_eq!(exp_negative(f32::NEG_INFINITY), 0.0);
    }
}
