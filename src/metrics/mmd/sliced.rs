//! The MMD within slices, for any number of slicings from one pass over the rows.
//!
//! All pairs within every slice of every column would cost a pass each. Instead rows are mapped once to
//! random features whose inner products are a kernel, an estimate of the RBF kernel; sums of features
//! over blocks then give every sum of kernels. Tests stay exact at any number of features, because the
//! map never sees which sample a row is in.

use rayon::prelude::*;

mod features;
mod held;
mod parts;

use self::features::{FEATURES, FREQUENCIES, FeatureSums};
pub use self::held::HeldShare;
pub use self::parts::{Decomposition, decompose};

use super::bandwidth::PooledDistances;
use super::blocks::{Blocks, Grouped, Unit};
use super::{Sample, estimate};
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::fourier::dot;
use crate::stats::interval::sqrt_scale_interval;
use crate::stats::paired::Z_975;
use crate::stats::permutation::{Exchange, quadrants};

/// Blocks per slice that are aimed at: 32 on either side.
const BLOCKS: usize = 64;
/// Relabellings that tell whether more are worth their time, and the p-value above which they are not.
const FIRST_LOOK: u32 = 199;
const CLEARLY_NOTHING: f64 = 0.1;
/// Fewer relabellings than this make no test.
const FEWEST_RELABELLINGS: u64 = 1000;
/// Fewer groups on either side make neither test nor interval.
const FEWEST_GROUPS: usize = 8;
/// Rows that the bandwidth comes from: it is off by half a percent then, features are by more.
const SAMPLED_ROWS: usize = 600;

/// How slices are compared.
#[derive(Debug, Clone, PartialEq)]
pub struct SlicedMmdConfig {
    /// σ of the kernel; `None`: median distance over pooled pairs.
    pub bandwidth: Option<f64>,
    /// Random relabellings of a slice's test; 0: no test.
    pub permutations: u32,
    /// Seed of the features, the blocks and the relabellings.
    pub seed: u64,
}

/// A slicing of both samples: the slice of every row.
#[derive(Debug, Clone, Copy)]
pub struct Partition<'a> {
    /// Slice of every reference row.
    pub reference: &'a [u32],
    /// Slice of every current row.
    pub current: &'a [u32],
    /// Number of slices.
    pub slices: usize,
}

/// Result of [`sliced_mmd`].
#[derive(Debug, Clone, PartialEq)]
pub struct SlicedMmd {
    /// σ.
    pub bandwidth: f64,
    /// One result per partition.
    pub partitions: Vec<PartitionMmd>,
}

/// One partition's results.
#[derive(Debug, Clone, PartialEq)]
pub struct PartitionMmd {
    /// One result per slice.
    pub slices: Vec<SliceMmd>,
    /// What of the samples' MMD² lies in shares, and what in contents.
    pub decomposition: Decomposition,
    /// Per slice, what it holds of the samples' MMD²; `None` for slices that add less than a quarter,
    /// and where that MMD² may as well be 0.
    pub held: Vec<Option<HeldShare>>,
}

/// How far a slice's current rows are from its reference rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SliceMmd {
    /// Unbiased MMD²; `None` where a side has fewer than two rows.
    pub mmd2: Option<f64>,
    /// 95 % interval (jackknife over blocks, on the square root's scale).
    pub ci95: Option<[f64; 2]>,
    /// p-value of "one distribution within the slice"; `None` without a test.
    pub p_value: Option<f64>,
}

/// Compares two samples within every slice of every partition.
///
/// The kernel is k(x, y) = (1/D) Σ cos(wᵢ·(x − y)) over D = 256 random frequencies, orthogonal in groups of
/// d, an unbiased estimate of exp(−‖x − y‖²/(2σ²)). Pairs of one group within a slice take no part, as in
/// [`mmd`](super::mmd), and blocks are made and relabelled as there: the p-value is exact, (1 + b)/(1 + P)
/// over `permutations` relabellings, of which only the first 199 are looked at where these already give a
/// p-value above 0.1.
///
/// `None` where all rows are equal. The result does not depend on the order of the rows.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If the dimensions differ, or a partition is for other samples.
///
/// # Source
/// Rahimi & Recht 2007, Yu et al. 2016 (orthogonal random features); Domingo-Enrich, Dwivedi & Mackey 2025
/// (blocks of features).
pub fn sliced_mmd(
    engine: &Engine,
    reference: Sample<'_>,
    current: Sample<'_>,
    partitions: &[Partition<'_>],
    config: &SlicedMmdConfig,
) -> Result<Option<SlicedMmd>> {
    assert_eq!(reference.rows.dim(), current.rows.dim());
    let [x, y] = [reference, current].map(|s| Grouped::new(s, config.seed, None));
    let bandwidth = match config.bandwidth {
        Some(sigma) => sigma,
        None => {
            let distances =
                PooledDistances::new(&x, &y, [reference, current], SAMPLED_ROWS, config.seed)?;
            match distances.bandwidth() {
                Some((sigma, _)) => sigma,
                None => return Ok(None),
            }
        }
    };
    let layouts: Vec<Layout> = partitions
        .iter()
        .map(|partition| Layout::new(partition, &x, &y))
        .collect();
    let sums = FeatureSums::new(
        engine,
        &x,
        &y,
        [reference, current],
        &layouts,
        bandwidth,
        config.seed,
    )?;
    let mut first_block = 0;
    let partitions = layouts
        .iter()
        .map(|layout| {
            let found = layout.compare(&sums, first_block, config);
            first_block += layout.block_count;
            found
        })
        .collect();
    Ok(Some(SlicedMmd {
        bandwidth,
        partitions,
    }))
}

/// One slice's blocks.
struct SliceBlocks {
    /// Number of the first one within the partition.
    first: usize,
    exchange: Exchange,
    is_x: Vec<bool>,
    strata: [Vec<Unit>; 3],
    /// Groups on the side that has fewer.
    fewer_groups: usize,
    /// Rows of either side.
    rows: [usize; 2],
}

/// Where every row lies under one partition.
struct Layout {
    /// Block of every row, X's then Y's.
    block_of: Vec<u32>,
    block_count: usize,
    slices: Vec<SliceBlocks>,
}

impl Layout {
    fn new(partition: &Partition<'_>, x: &Grouped<'_>, y: &Grouped<'_>) -> Self {
        let (n, m) = (partition.reference.len(), partition.current.len());
        let blocks: Vec<(Blocks, [usize; 2])> = (0..partition.slices as u32)
            .into_par_iter()
            .map(|slice| {
                let x = x.keeping(|row| partition.reference[row as usize] == slice);
                let y = y.keeping(|row| partition.current[row as usize] == slice);
                let mut blocks = Blocks::new(&x, &y, BLOCKS);
                // As long as all rows together, for each slice: not needed here.
                blocks.group_of = Vec::new();
                (blocks, [x.len(), y.len()])
            })
            .collect();
        let mut layout = Self {
            block_of: vec![0; n + m],
            block_count: 0,
            slices: Vec::with_capacity(blocks.len()),
        };
        for (blocks, rows) in blocks {
            let first = layout.block_count;
            for (block, rows) in blocks.rows.iter().enumerate() {
                for &row in rows {
                    layout.block_of[row as usize] = (first + block) as u32;
                }
            }
            layout.block_count += blocks.rows.len();
            let [only_x, only_y, both] = blocks.group_counts;
            layout.slices.push(SliceBlocks {
                first,
                exchange: blocks.exchange,
                is_x: blocks.is_x,
                strata: blocks.strata,
                fewer_groups: only_x.min(only_y) + both,
                rows,
            });
        }
        layout
    }

    fn compare(
        &self,
        sums: &FeatureSums,
        first_block: usize,
        config: &SlicedMmdConfig,
    ) -> PartitionMmd {
        let compared: Vec<(SliceMmd, [SideSums; 2])> = self
            .slices
            .par_iter()
            .map(|slice| slice.compare(sums, first_block, config))
            .collect();
        let (slices, sides): (Vec<SliceMmd>, Vec<[SideSums; 2]>) = compared.into_iter().unzip();
        let decomposition = decomposition(&sides);
        PartitionMmd {
            held: held::held_shares(self, sums, first_block, &decomposition.contributions),
            slices,
            decomposition,
        }
    }
}

/// A side of a slice as the decomposition sees it.
struct SideSums {
    rows: usize,
    /// Σ features.
    sum: Vec<f64>,
    /// Mean kernel over pairs of different groups.
    own_mean: f64,
}

fn decomposition(slices: &[[SideSums; 2]]) -> Decomposition {
    let s = slices.len();
    let shares = [0, 1].map(|side| -> Vec<f64> {
        let total: usize = slices.iter().map(|slice| slice[side].rows).sum();
        let rows = slices.iter().map(|slice| slice[side].rows);
        rows.map(|rows| rows as f64 / total.max(1) as f64).collect()
    });
    let side = |at: usize| &slices[at % s][at / s];
    let kernel: Vec<f64> = (0..2 * s)
        .into_par_iter()
        .flat_map_iter(|a| {
            (0..2 * s).map(move |b| {
                let (left, right) = (side(a), side(b));
                if a == b {
                    left.own_mean
                } else {
                    let pairs = left.rows * right.rows;
                    dot(&left.sum, &right.sum) / FREQUENCIES as f64 / pairs.max(1) as f64
                }
            })
        })
        .collect();
    decompose(&kernel, &shares[0], &shares[1])
}

impl SliceBlocks {
    fn compare(
        &self,
        sums: &FeatureSums,
        first_block: usize,
        config: &SlicedMmdConfig,
    ) -> (SliceMmd, [SideSums; 2]) {
        let s = self.is_x.len();
        if s == 0 {
            let nothing = || SideSums {
                rows: 0,
                sum: vec![0.0; FEATURES],
                own_mean: 0.0,
            };
            return (SliceMmd::default(), [nothing(), nothing()]);
        }
        let first = first_block + self.first;
        let features: Vec<Vec<f64>> = (0..s).map(|block| sums.features(first + block)).collect();
        let (mut kernel, mut counts) = (vec![0.0; s * s], vec![0.0; s * s]);
        for a in 0..s {
            for b in a..s {
                let (mut sum, mut pairs) = (
                    dot(&features[a], &features[b]),
                    sums.rows[first + a] as f64 * sums.rows[first + b] as f64,
                );
                if a == b {
                    sum -= sums.own[first + a];
                    pairs -= sums.own_pairs[first + a] as f64;
                } else if b == a + 1 && self.is_x[a] && !self.is_x[b] {
                    // The parts of a pair of blocks stand side by side; others share no group.
                    sum -= sums.across[first + a];
                    pairs -= sums.across_pairs[first + a] as f64;
                }
                for at in [a * s + b, b * s + a] {
                    kernel[at] = sum / FREQUENCIES as f64;
                    counts[at] = pairs;
                }
            }
        }
        let (own, pairs) = (
            estimate::observed(&kernel, &self.is_x),
            estimate::observed(&counts, &self.is_x),
        );
        let mut found = SliceMmd {
            mmd2: estimate::means(own, pairs).map(estimate::mmd2),
            ..SliceMmd::default()
        };
        if let Some(mmd2) = found.mmd2
            && self.fewer_groups >= FEWEST_GROUPS
        {
            found.ci95 = estimate::mmd2_variance(&kernel, &counts, &self.is_x, &self.strata)
                .map(|variance| sqrt_scale_interval(mmd2, variance.sqrt(), Z_975));
            if config.permutations > 0 {
                found.p_value = self.test(&kernel, &counts, config);
            }
        }
        let side = |is_x: bool, own: f64, pairs: f64| {
            let mut sum = vec![0.0; FEATURES];
            for (block, features) in features.iter().enumerate() {
                if self.is_x[block] == is_x {
                    sum.iter_mut().zip(features).for_each(|(s, f)| *s += f);
                }
            }
            SideSums {
                rows: self.rows[usize::from(!is_x)],
                sum,
                // A single row has no pair; its weight in any sum is 1/n².
                own_mean: if pairs > 0.0 { own / pairs } else { 0.0 },
            }
        };
        let sides = [side(true, own.xx, pairs.xx), side(false, own.yy, pairs.yy)];
        (found, sides)
    }

    /// See [`sliced_mmd`]. Stopping after a first look is no second chance: a p-value below any level takes
    /// a first look below it, or one below 0.1 and the second below it.
    fn test(&self, kernel: &[f64], counts: &[f64], config: &SlicedMmdConfig) -> Option<f64> {
        if self.exchange.relabellings() < FEWEST_RELABELLINGS {
            return None;
        }
        let (s, tested) = (self.is_x.len(), self.exchange.blocks());
        let part = |matrix: &[f64]| -> Vec<f64> {
            let rows = matrix.chunks_exact(s).take(tested);
            rows.flat_map(|row| &row[..tested]).copied().collect()
        };
        let (mut kernel, counts) = (part(kernel), part(counts));
        // A constant added to a kernel changes no statistic; without its mean, sums cancel less.
        let mean = kernel.iter().sum::<f64>() / counts.iter().sum::<f64>();
        for (sum, count) in kernel.iter_mut().zip(&counts) {
            *sum -= mean * count;
        }
        let p_value = |permutations: u32| -> Option<f64> {
            let labellings = self.exchange.labellings(permutations, config.seed);
            let mmd2: Vec<f64> = quadrants(&kernel, tested, &labellings)
                .into_iter()
                .zip(quadrants(&counts, tested, &labellings))
                .map(|(sums, counts)| estimate::means(sums, counts).map(estimate::mmd2))
                .collect::<Option<_>>()?;
            let (observed, others) = mmd2.split_first()?;
            // Labellings that part the rows alike differ by rounding.
            let floor = observed - 1e-12 * observed.abs().max(1.0);
            let reached = others.iter().filter(|&&t| t >= floor).count();
            Some((1 + reached) as f64 / mmd2.len() as f64)
        };
        let first = p_value(config.permutations.min(FIRST_LOOK))?;
        if first > CLEARLY_NOTHING || config.permutations <= FIRST_LOOK {
            return Some(first);
        }
        p_value(config.permutations)
    }
}

impl Layout {
    /// Whether a block is Y's part of a pair, of which X's part stands before it.
    fn is_pair(&self, block: u32) -> bool {
        let at = self
            .slices
            .partition_point(|slice| slice.first <= block as usize)
            - 1;
        let slice = &self.slices[at];
        let local = block as usize - slice.first;
        let (first, last) = (slice.exchange.x + slice.exchange.y, slice.exchange.blocks());
        (first..last).contains(&local) && (local - first) % 2 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embeddings::{Ids, Rows};
    use crate::engine::{DeviceChoice, EngineConfig};
    use crate::metrics::fourier::orthogonal_frequencies;
    use crate::stats::rng::Philox;

    /// MMD² within slices against sums over pairs, for single rows, groups and shared ids.
    #[test]
    fn block_sums_of_features_are_sums_over_pairs() {
        let engine = Engine::new(&EngineConfig {
            device: DeviceChoice::Cpu,
            ..EngineConfig::default()
        })
        .unwrap();
        let (n, m, dim) = (90, 70, 5);
        let mut random = Philox::new(4, 0);
        let mut draw =
            |rows: usize| -> Vec<f32> { (0..rows * dim).map(|_| random.normal() as f32).collect() };
        let (x, y) = (draw(n), draw(m));
        let labels = |rows: usize| -> Vec<u32> { (0..rows as u32).map(|i| i * i % 3).collect() };
        let (x_labels, y_labels) = (labels(n), labels(m));
        let ids = |from: usize, rows: usize| -> Ids {
            (from..from + rows).map(|i| format!("id-{i}")).collect()
        };
        let groups = |from: usize, rows: usize| -> Vec<String> {
            (from..from + rows)
                .map(|i| format!("doc-{}", i / 3))
                .collect()
        };
        for (overlap, grouped) in [(0, false), (40, false), (0, true), (50, true)] {
            let from = n - overlap;
            let (x_ids, y_ids) = (ids(0, n), ids(from, m));
            let (x_groups, y_groups) = (groups(0, n), groups(from, m));
            let x_sample = Sample {
                rows: Rows::new(&x, dim),
                ids: &x_ids,
                groups: grouped.then_some(&x_groups),
            };
            let y_sample = Sample {
                rows: Rows::new(&y, dim),
                ids: &y_ids,
                groups: grouped.then_some(&y_groups),
            };
            let partition = Partition {
                reference: &x_labels,
                current: &y_labels,
                slices: 3,
            };
            let config = SlicedMmdConfig {
                bandwidth: Some(2.0),
                permutations: 0,
                seed: 9,
            };
            let found = sliced_mmd(
                &engine,
                x_sample,
                y_sample,
                &[partition, partition],
                &config,
            )
            .unwrap()
            .unwrap();
            assert_eq!(found.partitions[0], found.partitions[1]);

            let frequencies = orthogonal_frequencies(dim, FREQUENCIES, 2.0, 9);
            let kernel = |a: &[f32], b: &[f32]| -> f64 {
                let cosines = frequencies.chunks_exact(dim).map(|w| {
                    let phase: f64 = (0..dim)
                        .map(|i| f64::from(w[i]) * (f64::from(a[i]) - f64::from(b[i])))
                        .sum();
                    phase.cos()
                });
                cosines.sum::<f64>() / FREQUENCIES as f64
            };
            let row = |side: usize, i: usize| match side {
                0 => &x[i * dim..(i + 1) * dim],
                _ => &y[i * dim..(i + 1) * dim],
            };
            let group = |side: usize, i: usize| {
                let number = if side == 0 { i } else { from + i };
                if grouped { number / 3 } else { number }
            };
            let all_labels = [&x_labels, &y_labels];
            for slice in 0..3u32 {
                let mean = |a: usize, b: usize| -> f64 {
                    let rows = |side: usize| {
                        (0..all_labels[side].len()).filter(move |&i| all_labels[side][i] == slice)
                    };
                    let (mut sum, mut pairs) = (0.0, 0.0);
                    for i in rows(a) {
                        for j in rows(b) {
                            if group(a, i) != group(b, j) {
                                sum += kernel(row(a, i), row(b, j));
                                pairs += 1.0;
                            }
                        }
                    }
                    if pairs > 0.0 { sum / pairs } else { f64::NAN }
                };
                let expected = mean(0, 0) + mean(1, 1) - 2.0 * mean(0, 1);
                let found = found.partitions[0].slices[slice as usize].mmd2;
                // Squares are 0, 1 mod 3: the third slice is empty. Phases and sines are f32.
                match found {
                    None => assert!(expected.is_nan()),
                    Some(found) => assert!(
                        (found - expected).abs() < 2e-6,
                        "{overlap} {grouped} {slice}: {found} {expected}"
                    ),
                }
            }
        }
    }
}
