//! Exact permutation tests on blocks: which labellings are as likely as the observed one, and what a
//! statistic looks like under them.

use rayon::prelude::*;

use super::rng::Philox;

/// Labellings whose statistics differ by rounding alone count as ties. In standard deviations of the
/// statistic: far above rounding (1e-13), far below anything that could change a p-value.
const TIE: f64 = 1e-9;

/// Which relabellings of blocks the null hypothesis makes equally likely.
///
/// Blocks are numbered: `x` blocks that only X has, `y` that only Y has (all of one size, so that any of
/// them could have been X's), then for each pair its X part and its Y part (the same items seen twice,
/// so that the parts may be swapped, but with nothing else).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exchange {
    /// Blocks only X has.
    pub x: usize,
    /// Blocks only Y has.
    pub y: usize,
    /// Pairs of blocks.
    pub pairs: usize,
}

impl Exchange {
    /// Number of blocks, s.
    pub fn blocks(&self) -> usize {
        self.x + self.y + 2 * self.pairs
    }

    /// Number of distinct relabellings with the observed one, C(x + y, x) · 2^pairs, saturating.
    pub fn relabellings(&self) -> u64 {
        let swaps = 1u64.checked_shl(self.pairs as u32).unwrap_or(u64::MAX);
        binomial(self.x + self.y, self.x).saturating_mul(swaps)
    }

    /// X's blocks under each labelling, ascending; the observed labelling first.
    ///
    /// All of them where that takes no more than `permutations` besides the observed one, else that
    /// many random ones: labelling p is drawn from stream p of `seed`, whatever the threads.
    pub fn labellings(&self, permutations: u32, seed: u64) -> Vec<Vec<u32>> {
        let all = self.relabellings();
        let exhaustive = all <= u64::from(permutations) + 1;
        let count = if exhaustive {
            all
        } else {
            u64::from(permutations) + 1
        };
        (0..count)
            .into_par_iter()
            .map(|index| {
                let (mut labels, swaps): (Vec<u32>, Vec<bool>) = if exhaustive || index == 0 {
                    let swaps = (0..self.pairs)
                        .map(|pair| pair < 64 && index >> pair & 1 == 1)
                        .collect();
                    let rank = index.checked_shr(self.pairs as u32).unwrap_or(0);
                    (combination(self.x + self.y, self.x, rank), swaps)
                } else {
                    let mut random = Philox::new(seed, index);
                    let mut order: Vec<u32> = (0..(self.x + self.y) as u32).collect();
                    random.shuffle(&mut order);
                    order.truncate(self.x);
                    order.sort_unstable();
                    let swaps = (0..self.pairs).map(|_| random.next_u32() >> 31 == 1);
                    (order, swaps.collect())
                };
                let first = (self.x + self.y) as u32;
                labels.extend(
                    (first..)
                        .step_by(2)
                        .zip(&swaps)
                        .map(|(x_part, &swap)| x_part + u32::from(swap)),
                );
                labels
            })
            .collect()
    }
}

/// C(n, k), saturating.
fn binomial(n: usize, k: usize) -> u64 {
    let mut value = 1u128;
    for i in 0..k.min(n - k) {
        value = value * (n - i) as u128 / (i + 1) as u128;
        if value > u128::from(u64::MAX) {
            return u64::MAX;
        }
    }
    value as u64
}

/// The `rank`-th k-subset of 0 … n − 1 in lexicographic order; rank 0 is 0 … k − 1.
fn combination(n: usize, k: usize, mut rank: u64) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(k);
    let mut next = 0;
    while chosen.len() < k {
        let with_next = binomial(n - next - 1, k - chosen.len() - 1);
        if rank < with_next {
            chosen.push(next as u32);
        } else {
            rank -= with_next;
        }
        next += 1;
    }
    chosen
}

/// Sums of a symmetric matrix over ordered pairs of blocks: within X, within Y, and X against Y.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quadrants {
    /// u'Su.
    pub xx: f64,
    /// w'Sw, w = 1 − u.
    pub yy: f64,
    /// u'Sw, each pair once.
    pub xy: f64,
}

/// The quadrants of a symmetric s × s matrix under each labelling (lists of X's blocks).
///
/// Cost: s · min(|X|, |Y|) / 2 additions per labelling. Parallel over labellings, each summed in one fixed
/// order.
pub fn quadrants(matrix: &[f64], blocks: usize, labellings: &[Vec<u32>]) -> Vec<Quadrants> {
    assert_eq!(matrix.len(), blocks * blocks);
    let row_sums: Vec<f64> = matrix
        .chunks(blocks.max(1))
        .map(|row| row.iter().sum())
        .collect();
    let total: f64 = row_sums.iter().sum();
    let arch = pulp::Arch::new();
    labellings
        .par_iter()
        .with_min_len(16)
        .map_init(
            || (vec![0.0; blocks], vec![false; blocks], Vec::new()),
            |(column_sums, is_x, few), x_blocks| {
                is_x.fill(false);
                for &block in x_blocks {
                    is_x[block as usize] = true;
                }
                // S is symmetric: one side's pairs, and the sums of its rows, give all three quadrants.
                let x_is_few = 2 * x_blocks.len() <= blocks;
                few.clear();
                few.extend((0..blocks).filter(|&block| is_x[block] == x_is_few));
                column_sums.fill(0.0);
                arch.dispatch(|| add_later_columns(matrix, few, column_sums));
                let later: f64 = few.iter().map(|&block| column_sums[block]).sum();
                let own: f64 = few.iter().map(|&block| matrix[block * (blocks + 1)]).sum();
                let within = own + 2.0 * later;
                let rows: f64 = few.iter().map(|&block| row_sums[block]).sum();
                let across = rows - within;
                let others = total - rows - across;
                let (xx, yy) = if x_is_few {
                    (within, others)
                } else {
                    (others, within)
                };
                Quadrants { xx, yy, xy: across }
            },
        )
        .collect()
}

/// Adds, of each given row i (ascending), the columns j > i to `sums`. Each column is added up in one
/// order, whatever vectors this is compiled for.
#[inline(always)]
fn add_later_columns(matrix: &[f64], rows: &[usize], sums: &mut [f64]) {
    let columns = sums.len();
    let row = |i: usize| &matrix[i * columns..(i + 1) * columns];
    let (fours, rest) = rows.as_chunks::<4>();
    for &four in fours {
        let [a, b, c, d] = four.map(row);
        // Up to the last of the four rows, columns are later than some of them only.
        for (at, &i) in four[..3].iter().enumerate() {
            for &j in &four[at + 1..] {
                sums[j] += matrix[i * columns + j];
            }
        }
        let first = four[3] + 1;
        let terms = a[first..]
            .iter()
            .zip(&b[first..])
            .zip(c[first..].iter().zip(&d[first..]));
        for (sum, ((a, b), (c, d))) in sums[first..].iter_mut().zip(terms) {
            *sum += (a + b) + (c + d);
        }
    }
    for &i in rest {
        for (sum, value) in sums[i + 1..].iter_mut().zip(&row(i)[i + 1..]) {
            *sum += value;
        }
    }
}

/// Mean and standard deviation (÷ N) of a statistic over all labellings.
pub fn mean_and_sd(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (mean, variance.sqrt())
}

/// A test that takes the largest of several standardised statistics.
#[derive(Debug, Clone, PartialEq)]
pub struct MaxStandardised {
    /// Per statistic (observed − mean) / sd over all labellings; 0 where the sd is 0.
    pub observed: Vec<f64>,
    /// (1 + labellings other than the observed one whose maximum is at least as large) / labellings,
    /// in (0, 1].
    pub p_value: f64,
}

/// p-value of max_j Z_j, with Z_j standardised over all labellings, the observed one (first) among
/// them. `values` holds one list per statistic; large values speak against the null.
///
/// Exact for any statistics, since standardising treats all labellings alike. Source: Phipson & Smyth
/// 2010 (the observed labelling counts).
pub fn max_standardised(values: &[Vec<f64>]) -> MaxStandardised {
    let moments: Vec<(f64, f64)> = values.iter().map(|v| mean_and_sd(v)).collect();
    let z = |j: usize, labelling: usize| {
        let (mean, sd) = moments[j];
        if sd > 0.0 {
            (values[j][labelling] - mean) / sd
        } else {
            0.0
        }
    };
    let maximum = |labelling| {
        (0..values.len())
            .map(|j| z(j, labelling))
            .fold(f64::NEG_INFINITY, f64::max)
    };
    let labellings = values[0].len();
    let observed = maximum(0);
    let floor = observed - TIE * observed.abs().max(1.0);
    let reached = (1..labellings).filter(|&p| maximum(p) >= floor).count();
    MaxStandardised {
        observed: (0..values.len()).map(|j| z(j, 0)).collect(),
        p_value: (1 + reached) as f64 / labellings as f64,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const MIXED: Exchange = Exchange {
        x: 3,
        y: 2,
        pairs: 2,
    };

    #[test]
    fn few_labellings_are_enumerated_once_each_with_the_observed_first() {
        let labellings = MIXED.labellings(999, 0);
        assert_eq!(labellings.len(), 40);
        assert_eq!(MIXED.relabellings(), 40);
        assert_eq!(labellings[0], [0, 1, 2, 5, 7]);
        let distinct: HashSet<_> = labellings.iter().collect();
        assert_eq!(distinct.len(), 40);
        for labels in &labellings {
            assert_eq!(labels.iter().filter(|&&b| b < 5).count(), 3);
            for pair in [5, 7] {
                let parts = labels.iter().filter(|&&b| b == pair || b == pair + 1);
                assert_eq!(parts.count(), 1, "one part of each pair is X's");
            }
        }
    }

    #[test]
    fn many_labellings_are_drawn_with_equal_chances() {
        let labellings = MIXED.labellings(38, 1);
        assert_eq!(
            labellings.len(),
            39,
            "one fewer than all: drawn, not listed"
        );
        let exchange = Exchange {
            x: 40,
            y: 40,
            pairs: 64,
        };
        assert_eq!(exchange.relabellings(), u64::MAX);
        let labellings = exchange.labellings(4_000, 7);
        assert_eq!(labellings[0][..40], (0..40).collect::<Vec<u32>>());
        assert_eq!(labellings[0][40..43], [80, 82, 84]);
        // Each block is X's half of the time: 2,000 ± 5 sd of 31.6.
        for block in 0..exchange.blocks() as u32 {
            let count = labellings[1..]
                .iter()
                .filter(|l| l.binary_search(&block).is_ok())
                .count();
            assert!((1842..=2158).contains(&count), "block {block}: {count}");
        }
        assert_eq!(labellings, exchange.labellings(4_000, 7));
        assert_ne!(labellings, exchange.labellings(4_000, 8));
    }

    #[test]
    fn quadrants_equal_plain_sums() {
        let s = MIXED.blocks();
        let mut random = Philox::new(3, 0);
        let mut matrix = vec![0.0; s * s];
        for i in 0..s {
            for j in i..s {
                matrix[i * s + j] = random.normal();
                matrix[j * s + i] = matrix[i * s + j];
            }
        }
        let mut labellings = MIXED.labellings(999, 0);
        // Uneven sides take the other route.
        labellings.push(vec![2]);
        labellings.push((0..8).collect());
        for (labels, quads) in labellings.iter().zip(quadrants(&matrix, s, &labellings)) {
            let mut plain = Quadrants::default();
            for i in 0..s {
                for j in 0..s {
                    let value = matrix[i * s + j];
                    match (labels.contains(&(i as u32)), labels.contains(&(j as u32))) {
                        (true, true) => plain.xx += value,
                        (false, false) => plain.yy += value,
                        (true, false) => plain.xy += value,
                        (false, true) => {}
                    }
                }
            }
            for (a, b) in [
                (plain.xx, quads.xx),
                (plain.yy, quads.yy),
                (plain.xy, quads.xy),
            ] {
                // 81 additions of values near 1.
                assert!((a - b).abs() < 1e-12, "{labels:?}: {plain:?} {quads:?}");
            }
        }
    }

    #[test]
    fn max_standardised_counts_ties_and_the_observed_labelling() {
        let test = max_standardised(&[vec![2.0, 2.0, 1.0, 0.0], vec![5.0; 4]]);
        assert_eq!(test.p_value, 0.5);
        assert_eq!(test.observed[1], 0.0);
        let constant = max_standardised(&[vec![1.0; 10]]);
        assert_eq!(constant.p_value, 1.0);
        let extreme = max_standardised(&[vec![9.0, 1.0, 2.0, 3.0], vec![-9.0, 1.0, 2.0, 3.0]]);
        assert_eq!(extreme.p_value, 0.25);
    }
}
