//! The MMD within slices, for any number of slicings from one pass over the rows.
//!
//! All pairs within every slice of every column would cost a pass each. Instead rows are mapped once to
//! random features whose inner products are a kernel, an estimate of the RBF kernel; sums of features
//! over blocks then give every sum of kernels. Tests stay exact at any number of features, because the
//! map never sees which sample a row is in.

use rayon::prelude::*;
use statrs::distribution::{ChiSquared, ContinuousCDF};

use super::bandwidth::PooledDistances;
use super::blocks::{Blocks, Grouped, Unit, units};
use super::{Sample, estimate};
use crate::embeddings::Rows;
use crate::engine::Engine;
use crate::error::Result;
use crate::stats::interval::sqrt_scale_interval;
use crate::stats::paired::Z_975;
use crate::stats::permutation::{Exchange, quadrants};
use crate::stats::rng::Philox;

/// Frequencies; each gives a cosine and a sine. The relative standard deviation of an MMD² is then about
/// 2 % for large shifts, 8 % for small ones.
const FREQUENCIES: usize = 256;
/// Features per row.
const FEATURES: usize = 2 * FREQUENCIES;
/// Features that one task sums up.
const STRIPE: usize = 64;
/// Rows whose features are held at once, about.
const CHUNK: usize = 4096;
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
/// Stream of random numbers for the frequencies, apart from those of permutations and of k-means.
const STREAM: u64 = u64::MAX - 1;

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

/// MMD² of two samples as what slices of other sizes make and what slices of other contents make.
///
/// With shares π and ρ of the slices in the reference and current, and μ the slices' mean features, the
/// difference of the samples' means is Σ (ρ − π)·(μₓ + μᵧ)/2 + Σ (π + ρ)/2·(μᵧ − μₓ): mix and content. The
/// inner products of either with the whole difference add up to its square. A slice that one side lacks is
/// all mix.
#[derive(Debug, Clone, PartialEq)]
pub struct Decomposition {
    /// MMD², from the slices' mean kernels without rows' pairs with themselves.
    pub total: f64,
    /// Part of `total` that changed shares make.
    pub mix: f64,
    /// Part of `total` that changed contents make; `mix` + `content` = `total`.
    pub content: f64,
    /// MMD² that the contents alone would make at the reference's shares; `None` where current lacks a
    /// slice.
    pub content_at_reference_shares: Option<f64>,
    /// The same at current's shares; `None` where the reference lacks a slice.
    pub content_at_current_shares: Option<f64>,
    /// MMD² that the shares alone would make with the reference's contents; `None` where the reference
    /// lacks a slice.
    pub mix_of_reference_contents: Option<f64>,
    /// What each slice adds to `total`; the sum of all is `total`.
    pub contributions: Vec<f64>,
}

/// Takes an MMD² apart. `kernel` holds the mean kernels between slices, reference slices first, then
/// current ones, (2s)² row-major; `reference` and `current` are the s shares. Entries of slices that a side
/// lacks (share 0) are not read.
///
/// # Source
/// Kitagawa 1955, Oaxaca & Blinder 1973 (the symmetric form), in the kernel's feature space. Golden values:
/// fixtures/golden/clusters.json.
pub fn decompose(kernel: &[f64], reference: &[f64], current: &[f64]) -> Decomposition {
    let s = reference.len();
    assert_eq!((kernel.len(), current.len()), (4 * s * s, s));
    let there = |slice: usize| [reference[slice] > 0.0, current[slice] > 0.0];
    // Weights of the mean features: of the whole difference, and of its mix.
    let (mut whole, mut mix) = (vec![0.0; 2 * s], vec![0.0; 2 * s]);
    for slice in 0..s {
        let (p, q) = (reference[slice], current[slice]);
        (whole[slice], whole[s + slice]) = (-p, q);
        (mix[slice], mix[s + slice]) = match there(slice) {
            [true, true] => ((q - p) / 2.0, (q - p) / 2.0),
            [true, false] => (-p, 0.0),
            [false, true] => (0.0, q),
            [false, false] => (0.0, 0.0),
        };
    }
    let times = |weights: &[f64], row: usize| -> f64 {
        let entries = kernel[row * 2 * s..(row + 1) * 2 * s].iter();
        let terms = entries.zip(weights).filter(|(_, w)| **w != 0.0);
        terms.map(|(k, w)| k * w).sum()
    };
    let form = |left: &[f64], right: &[f64]| -> f64 {
        let rows = (0..2 * s).filter(|&row| left[row] != 0.0);
        rows.map(|row| left[row] * times(right, row)).sum()
    };
    let contributions: Vec<f64> = (0..s)
        .map(|slice| {
            [slice, s + slice]
                .into_iter()
                .filter(|&row| whole[row] != 0.0)
                .map(|row| whole[row] * times(&whole, row))
                .sum()
        })
        .collect();
    let total = contributions.iter().sum();
    let mixed = form(&mix, &whole);
    let content: Vec<f64> = whole.iter().zip(&mix).map(|(w, m)| w - m).collect();
    let apart = |shares: &[f64]| {
        let everywhere = (0..s).all(|slice| shares[slice] == 0.0 || there(slice) == [true; 2]);
        let weights: Vec<f64> = shares
            .iter()
            .map(|p| -p)
            .chain(shares.iter().copied())
            .collect();
        everywhere.then(|| form(&weights, &weights))
    };
    let shares_alone: Vec<f64> = (0..2 * s)
        .map(|at| {
            if at < s {
                current[at] - reference[at]
            } else {
                0.0
            }
        })
        .collect();
    let reference_has_all = (0..s).all(|slice| current[slice] == 0.0 || reference[slice] > 0.0);
    Decomposition {
        total,
        mix: mixed,
        content: form(&content, &whole),
        content_at_reference_shares: apart(reference),
        content_at_current_shares: apart(current),
        mix_of_reference_contents: reference_has_all.then(|| form(&shares_alone, &shares_alone)),
        contributions,
    }
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
        PartitionMmd {
            slices,
            decomposition: decomposition(&sides),
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

/// Eight partial sums, which compile to vector code.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    let ((x, x_rest), (y, y_rest)) = (x.as_chunks::<8>(), y.as_chunks::<8>());
    for (a, b) in x.iter().zip(y) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest = x_rest.iter().zip(y_rest).map(|(a, b)| a * b);
    sums.iter().sum::<f64>() + rest.sum::<f64>()
}

/// Sums of features (without their factor 1/√D) over every block of every partition.
struct FeatureSums {
    /// Per stripe of features: block after block.
    stripes: Vec<Vec<f64>>,
    /// Rows per block.
    rows: Vec<u64>,
    /// Per block Σ over its groups of ‖Σ features of the group‖².
    own: Vec<f64>,
    /// Pairs of rows of one group, with themselves too.
    own_pairs: Vec<u64>,
    /// Per X block of a pair: Σ over groups of the inner product of both parts.
    across: Vec<f64>,
    across_pairs: Vec<u64>,
}

/// One stripe's sums.
struct StripeSums {
    features: Vec<f64>,
    own: Vec<f64>,
    across: Vec<f64>,
}

impl FeatureSums {
    fn new(
        engine: &Engine,
        x: &Grouped<'_>,
        y: &Grouped<'_>,
        samples: [Sample<'_>; 2],
        layouts: &[Layout],
        bandwidth: f64,
        seed: u64,
    ) -> Result<Self> {
        let blocks: usize = layouts.iter().map(|layout| layout.block_count).sum();
        let dim = samples[0].rows.dim();
        let x_rows = samples[0].rows.len() as u32;
        let frequencies = orthogonal_frequencies(dim, bandwidth, seed);
        let frequencies = Rows::new(&frequencies, dim);
        let mut sums = Self {
            stripes: Vec::new(),
            rows: vec![0; blocks],
            own: vec![0.0; blocks],
            own_pairs: vec![0; blocks],
            across: vec![0.0; blocks],
            across_pairs: vec![0; blocks],
        };
        let mut stripes: Vec<StripeSums> = (0..FEATURES / STRIPE)
            .map(|_| StripeSums {
                features: vec![0.0; blocks * STRIPE],
                own: vec![0.0; blocks],
                across: vec![0.0; blocks],
            })
            .collect();
        let units = units(x, y);
        let mut next = units.as_slice();
        while !next.is_empty() {
            // Whole groups, so that their features are all at hand.
            let mut rows = 0;
            let in_chunk = next
                .iter()
                .take_while(|unit| {
                    let begins = rows < CHUNK;
                    rows += unit[0].len() + unit[1].len();
                    begins
                })
                .count();
            let (chunk, rest) = next.split_at(in_chunk);
            next = rest;
            let members: Vec<Vec<u32>> = chunk
                .iter()
                .map(|[a, b]| {
                    a.iter()
                        .copied()
                        .chain(b.iter().map(|row| x_rows + row))
                        .collect()
                })
                .collect();
            let values: Vec<f32> = chunk
                .iter()
                .flat_map(|[a, b]| {
                    let row = |side: usize| move |&row: &u32| samples[side].rows.row(row as usize);
                    a.iter().map(row(0)).chain(b.iter().map(row(1)))
                })
                .flatten()
                .copied()
                .collect();
            let phases = engine.project(Rows::new(&values, dim), frequencies)?;
            let mut features = vec![0.0f32; 2 * phases.len()];
            features
                .par_chunks_exact_mut(FEATURES)
                .zip(phases.par_chunks_exact(FREQUENCIES))
                .for_each(|(features, phases)| {
                    let (cosines, sines) = features.split_at_mut(FREQUENCIES);
                    for ((c, s), phase) in cosines.iter_mut().zip(sines).zip(phases) {
                        (*s, *c) = phase.sin_cos();
                    }
                });
            let runs = runs(&members, layouts);
            sums.count(&runs);
            stripes
                .par_iter_mut()
                .enumerate()
                .for_each(|(stripe, sums)| {
                    sums.add(&runs, &features, stripe * STRIPE);
                });
        }
        for stripe in stripes {
            sums.own
                .iter_mut()
                .zip(&stripe.own)
                .for_each(|(s, v)| *s += v);
            sums.across
                .iter_mut()
                .zip(&stripe.across)
                .for_each(|(s, v)| *s += v);
            sums.stripes.push(stripe.features);
        }
        Ok(sums)
    }

    fn count(&mut self, runs: &[Run]) {
        for run in runs {
            let (block, rows) = (run.block as usize, run.rows.len() as u64);
            self.rows[block] += rows;
            self.own_pairs[block] += rows * rows;
            if rows == 1 {
                // Squares of a cosine and its sine add up to 1.
                self.own[block] += FREQUENCIES as f64;
            }
            if let Some(before) = run.partner {
                self.across_pairs[block - 1] += rows * runs[before].rows.len() as u64;
            }
        }
    }

    /// Σ features over a block.
    fn features(&self, block: usize) -> Vec<f64> {
        let part = |stripe: &Vec<f64>| stripe[block * STRIPE..(block + 1) * STRIPE].to_vec();
        self.stripes.iter().flat_map(part).collect()
    }
}

/// Rows of one group in one block.
struct Run {
    block: u32,
    /// Places in the chunk.
    rows: Vec<u32>,
    /// The run of the same group in the block before, where that is the other part of a pair.
    partner: Option<usize>,
}

/// The runs of a chunk's groups under every partition; blocks of later partitions are numbered after those
/// of earlier ones.
fn runs(members: &[Vec<u32>], layouts: &[Layout]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut first_block = 0;
    for layout in layouts {
        let mut first_row = 0;
        for rows in members {
            let mut placed: Vec<(u32, u32)> = rows
                .iter()
                .zip(first_row..)
                .map(|(&row, at)| (first_block + layout.block_of[row as usize], at))
                .collect();
            first_row += rows.len() as u32;
            // Rows of a group are ordered by id, so that this order belongs to the rows alone.
            placed.sort_by_key(|&(block, _)| block);
            let first_run = runs.len();
            for run in placed.chunk_by(|a, b| a.0 == b.0) {
                let block = run[0].0;
                // A group stands in two neighbouring blocks only if these are a pair of one slice: X's
                // block and Y's of the groups that both have.
                let before = runs.len().checked_sub(1).filter(|&at| at >= first_run);
                let partner = before.filter(|&at| runs[at].block + 1 == block);
                runs.push(Run {
                    block,
                    rows: run.iter().map(|&(_, at)| at).collect(),
                    partner: partner.filter(|_| layout.is_pair(block - first_block)),
                });
            }
        }
        first_block += layout.block_count as u32;
    }
    runs
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

impl StripeSums {
    /// Adds a chunk's features from `first` on.
    fn add(&mut self, runs: &[Run], features: &[f32], first: usize) {
        let sum_of = |run: &Run| -> [f64; STRIPE] {
            let mut sum = [0.0; STRIPE];
            for &row in &run.rows {
                let from = row as usize * FEATURES + first;
                for (s, &f) in sum.iter_mut().zip(&features[from..from + STRIPE]) {
                    *s += f64::from(f);
                }
            }
            sum
        };
        let mut last = [0.0; STRIPE];
        for run in runs {
            let sum = sum_of(run);
            let block = run.block as usize;
            let to = &mut self.features[block * STRIPE..(block + 1) * STRIPE];
            to.iter_mut().zip(&sum).for_each(|(t, s)| *t += s);
            if run.rows.len() > 1 {
                self.own[block] += dot(&sum, &sum);
            }
            if run.partner.is_some() {
                // Partners follow each other.
                self.across[block - 1] += dot(&sum, &last);
            }
            last = sum;
        }
    }
}

/// D × d frequencies of the RBF kernel: groups of at most d orthogonal directions (Gram–Schmidt of normal
/// draws), each as long as a draw of d normals is, divided by σ.
fn orthogonal_frequencies(dim: usize, bandwidth: f64, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, STREAM);
    let lengths = ChiSquared::new(dim as f64).expect("a positive dimension");
    let mut frequencies = Vec::with_capacity(FREQUENCIES * dim);
    let mut group: Vec<Vec<f64>> = Vec::new();
    while frequencies.len() < FREQUENCIES * dim {
        if group.len() == dim {
            group.clear();
        }
        let mut direction: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
        // Twice is enough.
        for _ in 0..2 {
            let shares: Vec<f64> = group.iter().map(|g| dot(g, &direction)).collect();
            for (other, share) in group.iter().zip(shares) {
                for (value, o) in direction.iter_mut().zip(other) {
                    *value -= share * o;
                }
            }
        }
        let length = dot(&direction, &direction).sqrt();
        // Lost to rounding: draw again.
        if length < 1e-9 {
            continue;
        }
        direction.iter_mut().for_each(|v| *v /= length);
        let length = lengths.inverse_cdf(random.uniform()).sqrt() / bandwidth;
        frequencies.extend(direction.iter().map(|v| (v * length) as f32));
        group.push(direction);
    }
    frequencies
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::embeddings::Ids;
    use crate::engine::{DeviceChoice, EngineConfig};

    fn golden() -> Value {
        let text = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/clusters.json"
        ));
        serde_json::from_str::<Value>(text).unwrap()["decomposition"].clone()
    }

    fn numbers(value: &Value) -> Vec<f64> {
        let list = value.as_array().unwrap().iter();
        list.map(|v| v.as_f64().unwrap()).collect()
    }

    fn close(found: f64, expected: f64) {
        // A few additions of numbers below 1.
        assert!(
            (found - expected).abs() < 1e-12,
            "{found}, expected {expected}"
        );
    }

    #[test]
    fn parts_of_the_mmd_match_golden_values() {
        let golden = golden();
        let kernel: Vec<f64> = golden["Kbar"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(numbers)
            .collect();
        let (p, q) = (numbers(&golden["pi_ref"]), numbers(&golden["pi_cur"]));
        let found = decompose(&kernel, &p, &q);
        let expected = |name: &str| golden[name].as_f64().unwrap();
        close(found.total, expected("mmd2_total"));
        close(
            found.content_at_reference_shares.unwrap(),
            expected("conditional_only_ref_weights"),
        );
        close(
            found.content_at_current_shares.unwrap(),
            expected("conditional_only_cur_weights"),
        );
        close(
            found.mix_of_reference_contents.unwrap(),
            expected("mix_only_in_X"),
        );
        close(found.mix + found.content, found.total);
        close(found.contributions.iter().sum(), found.total);
    }

    /// The parts are inner products of feature means, checked on vectors: mix and content as defined.
    #[test]
    fn parts_are_those_of_feature_means() {
        let means = [
            [1.0, 0.2],
            [0.1, 2.0],
            [0.4, 0.4],
            [1.5, 0.1],
            [0.3, 2.2],
            [9.0, 9.0],
        ];
        // The third slice is gone.
        let (p, q) = ([0.5, 0.3, 0.2], [0.25, 0.75, 0.0]);
        let kernel: Vec<f64> = means
            .iter()
            .flat_map(|a| means.iter().map(move |b| a[0] * b[0] + a[1] * b[1]))
            .collect();
        let found = decompose(&kernel, &p, &q);
        let at = |i: usize| {
            let whole: f64 = (0..3)
                .map(|s| q[s] * means[3 + s][i] - p[s] * means[s][i])
                .sum();
            let content: f64 = (0..2)
                .map(|s| (p[s] + q[s]) / 2.0 * (means[3 + s][i] - means[s][i]))
                .sum();
            let mix: f64 = (0..2)
                .map(|s| (q[s] - p[s]) * (means[3 + s][i] + means[s][i]) / 2.0)
                .sum::<f64>()
                - p[2] * means[2][i];
            [whole, mix, content]
        };
        let (a, b) = (at(0), at(1));
        close(a[1] + a[2], a[0]);
        close(found.total, a[0] * a[0] + b[0] * b[0]);
        close(found.mix, a[0] * a[1] + b[0] * b[1]);
        close(found.content, a[0] * a[2] + b[0] * b[2]);
        assert_eq!(found.content_at_reference_shares, None, "a slice is gone");
        assert!(found.content_at_current_shares.is_some());
        // The same shares: all content. The same contents: all mix.
        let same_shares = decompose(&kernel, &p, &p);
        assert_eq!(same_shares.mix, 0.0);
        close(
            same_shares.content,
            same_shares.content_at_reference_shares.unwrap(),
        );
        let same_means: Vec<f64> = (0..36)
            .map(|i| kernel[(i / 6 % 3) * 6 + i % 6 % 3])
            .collect();
        let same_contents = decompose(&same_means, &p, &q);
        close(same_contents.content, 0.0);
        close(
            same_contents.mix,
            same_contents.mix_of_reference_contents.unwrap(),
        );
    }

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

            let frequencies = orthogonal_frequencies(dim, 2.0, 9);
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

    #[test]
    fn frequencies_are_orthogonal_and_as_long_as_normal_ones() {
        let frequencies = orthogonal_frequencies(40, 1.0, 0);
        let rows: Vec<Vec<f64>> = frequencies
            .chunks_exact(40)
            .map(|w| w.iter().map(|&v| f64::from(v)).collect())
            .collect();
        assert_eq!(rows.len(), FREQUENCIES);
        for a in 0..40 {
            for b in 0..a {
                // Rounded to f32, of length about 6.
                assert!(dot(&rows[a], &rows[b]).abs() < 1e-4);
            }
        }
        // The mean of 256 χ²₄₀ has sd √(80/256) = 0.56.
        let mean = rows.iter().map(|w| dot(w, w)).sum::<f64>() / rows.len() as f64;
        assert!((mean - 40.0).abs() < 5.0 * 0.56, "{mean}");
    }
}
