//! The maximum mean discrepancy: do two samples come from one distribution, and if not, how far apart?
//!
//! One pass over all pairs gives kernel sums between blocks of rows; the estimates, both permutation
//! tests, the interval and the noise floor all follow from those few numbers.

mod bandwidth;
mod blocks;
mod estimate;
mod scale;
mod sliced;

use schemars::JsonSchema;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal};

use self::bandwidth::{PooledDistances, SAMPLED_ROWS, sq_distance};
use self::blocks::{Blocks, Grouped};
use self::scale::{ReferenceScale, reference_scale};
use crate::embeddings::{Ids, Join, Rows};
use crate::engine::{BlockLayout, Engine, KernelFamily, PairSums};
use crate::error::{Error, Result};
use crate::stats::correction::holm;
use crate::stats::interval::sqrt_scale_interval;
use crate::stats::permutation::{Quadrants, max_standardised, mean_and_sd, quadrants};

pub(crate) use self::scale::clusters as scale_clusters;
pub use self::sliced::{
    Decomposition, HeldShare, Partition, PartitionMmd, SliceMmd, SlicedMmd, SlicedMmdConfig,
    decompose, sliced_mmd,
};

/// Index of the kernel at the base bandwidth among the five.
const BASE: usize = 2;

/// Power at which the smallest detectable effect is stated.
const POWER: f64 = 0.8;

/// How the test is run.
#[derive(Debug, Clone, PartialEq)]
pub struct MmdConfig {
    /// σ of the base kernel; `None`: median distance over pooled pairs.
    pub bandwidth: Option<f64>,
    /// Random relabellings; fewer where fewer exist. 0: estimates only, no test.
    pub permutations: u32,
    /// Seed of the blocks, the relabellings and everything drawn.
    pub seed: u64,
    /// Largest effect (`eps_eq`) that counts as none.
    pub margin: f64,
    /// Number of blocks aimed at.
    pub blocks: usize,
    /// At most about this many rows of each sample, drawn by the hash of their group; `None`: all.
    pub sample: Option<usize>,
}

impl Default for MmdConfig {
    fn default() -> Self {
        Self {
            bandwidth: None,
            permutations: 9_999,
            seed: 0,
            margin: 0.01,
            blocks: 256,
            sample: None,
        }
    }
}

/// One of the two samples.
///
/// Rows of one id in both samples are taken for the same item: they are never compared with each other,
/// and the test swaps them as a pair. So ids that mean nothing (row numbers of unrelated files) must be
/// made distinct first.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// n × d.
    pub rows: Rows<'a>,
    /// One id per row, unique unless `groups` are given.
    pub ids: &'a Ids,
    /// Per row the group (document) that it belongs to; `None`: every row is a group, named by its id.
    /// Rows of one group are dependent: they stay together in the test and are never compared.
    pub groups: Option<&'a [String]>,
}

impl<'a> Sample<'a> {
    fn group(&self, row: u32) -> &'a str {
        match self.groups {
            Some(groups) => &groups[row as usize],
            None => self.ids.get(row as usize),
        }
    }
}

/// Result of [`mmd`].
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Mmd {
    /// Unbiased estimate of the squared MMD at the base bandwidth (Gretton et al. 2012, Lemma 6), over
    /// all pairs of different rows; 0 in expectation where the distributions agree, so it may be
    /// slightly negative. See `same_group_pairs`.
    pub mmd2_unbiased: f64,
    /// Squared MMD of the two samples as they stand (V-statistic, each row paired with itself too), at
    /// least 0. Undefined where pairs of one group are left out.
    pub mmd2_biased: Option<f64>,
    /// Like `mmd2_unbiased` without the pairs of one id (the mean of h over i ≠ j), where every group is
    /// in both samples.
    pub mmd2_paired: Option<f64>,
    /// Whether `mmd2_unbiased` counts pairs of one group: those of one id across the samples are, those
    /// of one given group are not. The test and the effect never count either.
    pub same_group_pairs: SameGroupPairs,
    /// Mean kernel within the reference − within current, at the base bandwidth: positive where
    /// current is the more spread out.
    pub dispersion: f64,
    /// `rbf`: k = exp(−‖x − y‖²/(2σ²)).
    pub kernel: String,
    /// σ, base; undefined where all rows of both samples are equal.
    pub bandwidth: Option<f64>,
    /// Where the bandwidth comes from.
    pub bandwidth_rule: String,
    /// The kernels of the aggregated test.
    pub kernels: Vec<KernelEstimate>,
    /// Relabellings besides the observed one.
    pub permutations: u32,
    /// Whether these are all there are.
    pub all_relabellings: bool,
    /// Smallest p-value that this number of relabellings can give.
    pub smallest_p_value: Option<f64>,
    /// p-value of "one distribution", (1 + b)/(1 + permutations), from the largest of all kernels'
    /// standardised MMD². `None` without permutations.
    pub p_value: Option<f64>,
    /// Likewise from the largest standardised difference of spread |mean k within reference − within
    /// current|: a contraction or a loss of diversity, to which the MMD is nearly blind.
    pub dispersion_p_value: Option<f64>,
    /// `p_value` adjusted for asking both questions (Holm).
    pub p_value_holm: Option<f64>,
    /// `dispersion_p_value`, likewise.
    pub dispersion_p_value_holm: Option<f64>,
    /// How the samples are related.
    pub pairing: Pairing,
    /// Ids in both samples.
    pub shared_ids: u64,
    /// The blocks that the test relabels.
    pub blocks: BlockCounts,
    /// How large the difference is.
    pub effect: Effect,
    /// Whether it is larger than the margin.
    pub equivalence: Equivalence,
    /// Smallest `eps_eq` that a one-sided test at 5 % would find with 80 % power: √((1.645 + 0.842)·
    /// `noise_floor`/M2).
    pub minimum_detectable: Option<f64>,
    /// Standard deviation that MMD² would have by chance if the distributions agreed, at the base
    /// bandwidth: over all relabellings, of what remains of the sums without row and column effects.
    pub noise_floor: Option<f64>,
    /// Rows of the reference.
    pub n_reference: u64,
    /// Rows of current.
    pub n_current: u64,
    /// Rows of the reference that were used; fewer than all only with `sample`.
    pub used_reference: u64,
    /// Rows of current that were used.
    pub used_current: u64,
    /// Pairs of rows evaluated, each once.
    pub pairs: u64,
    /// Coordinates about the pooled mean were rounded to multiples of this before distances were taken,
    /// as they are for 2,048 rows and more; undefined where they were not. Both samples alike, so the
    /// test stays exact; the MMD² moves by about 10⁻⁸.
    pub grid_step: Option<f64>,
    /// Whether every row took part.
    pub exact: bool,
    /// What a reader must know about this result.
    pub notes: Vec<String>,
}

/// What `mmd2_unbiased` does with pairs of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SameGroupPairs {
    /// Groups are ids: the two rows of one id count as in the textbook.
    Counted,
    /// Groups were given: rows of one group are dependent and not compared.
    Excluded,
}

/// How two samples are related.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pairing {
    /// No group is in both.
    Independent,
    /// Every group is in both.
    Paired,
    /// Some are.
    Overlapping,
}

/// One kernel's estimate.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct KernelEstimate {
    /// `rbf` or `energy` (k = −‖x − y‖).
    pub name: String,
    /// σ; the energy kernel has none.
    pub bandwidth: Option<f64>,
    /// As [`Mmd::mmd2_unbiased`].
    pub mmd2_unbiased: f64,
}

/// The blocks that a test relabels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BlockCounts {
    /// Blocks of rows that only the reference has.
    pub reference: usize,
    /// Blocks of rows that only current has.
    pub current: usize,
    /// Pairs of blocks with the same ids.
    pub paired: usize,
    /// Rows of the largest of these blocks.
    pub rows_per_block: usize,
    /// Rows outside them: they enter the estimates alone.
    pub untested_rows: usize,
}

/// Size of a difference.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Effect {
    /// √(max(MMD², 0)/M2), with the MMD² that leaves out pairs of one group: as if this share of the
    /// reference had been replaced by one typical foreign topic.
    pub eps_eq: Option<f64>,
    /// 95 % interval (jackknife over blocks, on the square root's scale).
    pub ci95: Option<[f64; 2]>,
    /// M2: median over clusters of the reference of the MMD² of a cluster against all others.
    pub reference_m2: Option<f64>,
    /// Clusters behind M2.
    pub clusters: usize,
}

/// Whether an effect is below or above a margin.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Equivalence {
    /// Largest `eps_eq` that counts as none.
    pub margin: f64,
    /// `equivalent` where the one-sided 95 % upper bound of `eps_eq` is below the margin, `shifted` where
    /// the lower one is above it.
    pub state: EquivalenceState,
    /// Where undecided: rows per sample with which two equal distributions would be found equivalent,
    /// if there are not that many already (the effect is then too near the margin).
    pub rows_needed: Option<u64>,
}

/// See [`Equivalence::state`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EquivalenceState {
    /// The effect is below the margin.
    Equivalent,
    /// The effect is above the margin.
    Shifted,
    /// The data do not say.
    Undecided,
}

/// Compares two samples in one space by the maximum mean discrepancy.
///
/// MMD² = mean k(x, x′) + mean k(y, y′) − 2 · mean k(x, y), over six kernels: five RBF of bandwidths
/// σ·2^(−j/2), j = −2 … 2, and the energy kernel. The p-value is exact at any sample size: rows are
/// assigned to blocks by the hash of their group, and the test relabels blocks only in ways that the
/// null hypothesis makes equally likely. Blocks that one sample has alone are exchanged at random; blocks
/// of ids that both have are swapped in pairs (for paired samples the null hypothesis is that the two
/// versions of an item are exchangeable). Kernels are aggregated by their largest standardised value.
///
/// The result does not depend on the order of the rows.
///
/// # Errors
/// Fewer than two rows (or groups) in a sample, different dimensions, an id on two rows, a bandwidth
/// more than a million times smaller or larger than the mean distance, a margin that is not positive, or
/// the device fails.
///
/// # Panics
/// If ids or groups are not as many as rows.
///
/// # Source
/// Gretton et al. 2012 (MMD); Domingo-Enrich, Dwivedi & Mackey 2025 (permuting blocks); Phipson & Smyth
/// 2010 (p-values of random permutations). Golden values: fixtures/golden/{mmd,block_perm,grouped_mmd}.json.
pub fn mmd(
    engine: &Engine,
    reference: Sample<'_>,
    current: Sample<'_>,
    config: &MmdConfig,
) -> Result<Mmd> {
    check(reference, current, config)?;
    let [x, y] = [reference, current].map(|s| Grouped::new(s, config.seed, config.sample));
    x.check("reference")?;
    y.check("current")?;
    let blocks = Blocks::new(&x, &y, config.blocks);
    let distances = PooledDistances::new(&x, &y, [reference, current], SAMPLED_ROWS, config.seed)?;
    let bandwidth = match config.bandwidth {
        Some(sigma) => {
            check_bandwidth(sigma, distances.mean())?;
            Some((sigma, "fixed".to_owned()))
        }
        None => distances.bandwidth(),
    };
    let mut result = empty_result(reference, current, config, &x, &y, &blocks);
    let Some((sigma, rule)) = bandwidth else {
        result
            .notes
            .push("all rows of both samples are equal".into());
        return Ok(result);
    };
    result.bandwidth = Some(sigma);
    result.bandwidth_rule = rule;

    let kernels = distances.kernels(sigma);
    let layout = BlockLayout::new(reference.rows.len(), &blocks.rows, &blocks.group_of);
    let sums = engine.pair_sums(reference.rows, current.rows, &layout, &kernels, None)?;
    let counts = estimate::counts(&sums);
    result.pairs = sums.counts.iter().sum::<u64>() / 2;
    result.grid_step = sums.grid_step;

    let matched = matched_distances(reference.rows, current.rows, &blocks.matches);
    let same_vectors = result.pairing == Pairing::Paired
        && matched.len() == x.len()
        && matched.len() == y.len()
        && matched.iter().all(|&square| square == 0.0);
    if same_vectors {
        result
            .notes
            .push("both samples hold the same vectors under the same ids".into());
    }
    let effect_mmd2 = estimate_all(&mut result, &sums, &counts, &blocks, &kernels, &matched)?;
    // The scale takes many short passes that leave threads idle, the test keeps them busy.
    let scale = std::thread::scope(|scope| {
        let groups = &blocks.group_of;
        let scale = scope
            .spawn(|| reference_scale(engine, &x, reference, groups, &kernels, BASE, config.seed));
        if config.permutations > 0 {
            test(&mut result, &sums, &counts, &blocks, config, same_vectors);
        }
        scale.join()
    });
    let scale = scale.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    let variance = estimate::mmd2_variance(&sums.sums[BASE], &counts, &blocks.is_x, &blocks.strata);
    judge(&mut result, effect_mmd2, variance, scale, config.margin);
    Ok(result)
}

fn check(reference: Sample<'_>, current: Sample<'_>, config: &MmdConfig) -> Result<()> {
    for sample in [reference, current] {
        assert_eq!(sample.rows.len(), sample.ids.len());
        assert!(sample.groups.is_none_or(|g| g.len() == sample.rows.len()));
    }
    let (d, e) = (reference.rows.dim(), current.rows.dim());
    if d != e {
        return Err(Error::input(
            "mmd",
            format!("the reference has dimension {d}, current has {e}, expected one space"),
        ));
    }
    let margin = config.margin;
    if !(margin.is_finite() && margin > 0.0) {
        return Err(Error::input(
            "margin",
            format!("{margin}, expected a positive number"),
        ));
    }
    Ok(())
}

/// Refuses a bandwidth that no pair of rows would notice.
fn check_bandwidth(sigma: f64, mean_distance: f64) -> Result<()> {
    const REACH: f64 = 1e6;
    let range = if mean_distance > 0.0 {
        mean_distance / REACH..=mean_distance * REACH
    } else {
        f64::MIN_POSITIVE.sqrt()..=f64::MAX.sqrt()
    };
    if range.contains(&sigma) {
        return Ok(());
    }
    Err(Error::input(
        "bandwidth",
        format!(
            "{sigma}, expected a positive number near the distances between rows, {mean_distance:.3e} on average"
        ),
    ))
}

/// What is known before any kernel is: the answer for samples whose rows are all equal.
fn empty_result(
    reference: Sample<'_>,
    current: Sample<'_>,
    config: &MmdConfig,
    x: &Grouped<'_>,
    y: &Grouped<'_>,
    blocks: &Blocks,
) -> Mmd {
    let grouped = reference.groups.is_some() || current.groups.is_some();
    let [only_x, only_y, both] = blocks.group_counts;
    let pairing = match (only_x + only_y, both) {
        (_, 0) => Pairing::Independent,
        (0, _) => Pairing::Paired,
        _ => Pairing::Overlapping,
    };
    let tested = &blocks.rows[..blocks.exchange.blocks()];
    let tested_rows: usize = tested.iter().map(Vec::len).sum();
    let p_value = (config.permutations > 0).then_some(1.0);
    let mut notes = Vec::new();
    let exact = (x.len(), y.len()) == (reference.rows.len(), current.rows.len());
    if !exact {
        notes.push("not all rows were used: they were drawn by the hash of their group".into());
    }
    let one_sided = both > 0 && (only_x == 0) != (only_y == 0);
    if one_sided {
        notes.push(
            "groups that only one sample has are not tested: the other has none to exchange them with"
                .into(),
        );
    }
    Mmd {
        mmd2_unbiased: 0.0,
        mmd2_biased: (!grouped).then_some(0.0),
        mmd2_paired: (pairing == Pairing::Paired).then_some(0.0),
        same_group_pairs: if grouped {
            SameGroupPairs::Excluded
        } else {
            SameGroupPairs::Counted
        },
        dispersion: 0.0,
        kernel: "rbf".into(),
        bandwidth: None,
        bandwidth_rule: "none: all distances are 0".into(),
        kernels: Vec::new(),
        permutations: 0,
        all_relabellings: false,
        smallest_p_value: None,
        p_value,
        dispersion_p_value: p_value,
        p_value_holm: p_value,
        dispersion_p_value_holm: p_value,
        pairing,
        shared_ids: if grouped {
            Join::new(reference.ids, current.ids).shared.len() as u64
        } else {
            both as u64
        },
        blocks: BlockCounts {
            reference: blocks.exchange.x,
            current: blocks.exchange.y,
            paired: blocks.exchange.pairs,
            rows_per_block: tested.iter().map(Vec::len).max().unwrap_or(0),
            untested_rows: x.len() + y.len() - tested_rows,
        },
        effect: Effect {
            eps_eq: None,
            ci95: None,
            reference_m2: None,
            clusters: 0,
        },
        equivalence: Equivalence {
            margin: config.margin,
            state: EquivalenceState::Undecided,
            rows_needed: None,
        },
        minimum_detectable: None,
        noise_floor: None,
        n_reference: reference.rows.len() as u64,
        n_current: current.rows.len() as u64,
        used_reference: x.len() as u64,
        used_current: y.len() as u64,
        pairs: 0,
        grid_step: None,
        exact,
        notes,
    }
}

/// ‖x − y‖² of the two rows of each id that both samples have.
fn matched_distances(x: Rows<'_>, y: Rows<'_>, matches: &[(u32, u32)]) -> Vec<f64> {
    use rayon::prelude::*;
    matches
        .par_iter()
        .map(|&(a, b)| sq_distance(&x.row(a as usize), &y.row(b as usize)))
        .collect()
}

/// Fills in the estimates of all kernels; gives the base kernel's MMD² without pairs of one group.
fn estimate_all(
    result: &mut Mmd,
    sums: &PairSums,
    counts: &[f64],
    blocks: &Blocks,
    kernels: &KernelFamily,
    matched: &[f64],
) -> Result<f64> {
    let different = estimate::observed(counts, &blocks.is_x);
    let mut effect_mmd2 = 0.0;
    for (j, matrix) in sums.sums.iter().enumerate() {
        let mut all = estimate::observed(matrix, &blocks.is_x);
        let mut pairs = different;
        let no_pairs = || Error::input("mmd", "no two rows of different groups to compare");
        let means = estimate::means(all, pairs).ok_or_else(no_pairs)?;
        let without = estimate::mmd2(means);
        if result.same_group_pairs == SameGroupPairs::Counted {
            all.xy += matched
                .iter()
                .map(|&square| kernels.value(j, square))
                .sum::<f64>();
            pairs.xy += matched.len() as f64;
        }
        let mmd2_unbiased = estimate::mmd2(estimate::means(all, pairs).ok_or_else(no_pairs)?);
        result.kernels.push(KernelEstimate {
            name: if j < kernels.rbf { "rbf" } else { "energy" }.into(),
            bandwidth: (j < kernels.rbf).then(|| (0.5 / kernels.gamma_of(j)).sqrt()),
            mmd2_unbiased,
        });
        if j == BASE {
            effect_mmd2 = without;
            result.mmd2_unbiased = mmd2_unbiased;
            result.dispersion = estimate::dispersion(means);
            result.mmd2_paired = result.mmd2_paired.map(|_| without);
            let (n, m) = (result.used_reference as f64, result.used_current as f64);
            let own = kernels.value(j, 0.0);
            result.mmd2_biased = result.mmd2_biased.map(|_| {
                (all.xx + n * own) / (n * n) + (all.yy + m * own) / (m * m) - 2.0 * all.xy / (n * m)
            });
        }
    }
    Ok(effect_mmd2)
}

/// Fills in the permutation tests and the noise floor.
fn test(
    result: &mut Mmd,
    sums: &PairSums,
    counts: &[f64],
    blocks: &Blocks,
    config: &MmdConfig,
    same_vectors: bool,
) {
    let exchange = blocks.exchange;
    let labellings = exchange.labellings(config.permutations, config.seed);
    let relabelled = labellings.len() as u64;
    result.permutations = (relabelled - 1) as u32;
    result.all_relabellings = relabelled == exchange.relabellings();
    // Naming X's blocks Y's changes neither statistic: with equal numbers of blocks each labelling has
    // a twin.
    let twins = if exchange.x == exchange.y { 2.0 } else { 1.0 };
    let ties = if result.all_relabellings { twins } else { 1.0 };
    result.smallest_p_value = Some(ties / relabelled as f64);

    let tested = exchange.blocks();
    let part = |matrix: &[f64]| -> Vec<f64> {
        let rows = matrix.chunks_exact(sums.blocks).take(tested);
        rows.flat_map(|row| &row[..tested]).copied().collect()
    };
    let counts = part(counts);
    let pairs: f64 = counts.iter().sum();
    let relabelled_counts = quadrants(&counts, tested, &labellings);
    let relabelled_means = |matrix: &[f64]| -> Vec<Quadrants> {
        quadrants(matrix, tested, &labellings)
            .into_iter()
            .zip(&relabelled_counts)
            .map(|(sums, &counts)| {
                estimate::means(sums, counts).expect("either side always has two groups")
            })
            .collect()
    };
    let mut mmd2 = Vec::with_capacity(sums.sums.len());
    let mut spread = Vec::with_capacity(sums.sums.len());
    for matrix in &sums.sums {
        // A constant added to a kernel changes no statistic; without its mean, sums cancel less.
        let mut matrix = part(matrix);
        let mean = matrix.iter().sum::<f64>() / pairs;
        for (sum, count) in matrix.iter_mut().zip(&counts) {
            *sum -= mean * count;
        }
        let means = relabelled_means(&matrix);
        mmd2.push(map(&means, estimate::mmd2));
        spread.push(map(&means, |m| estimate::dispersion(m).abs()));
    }
    // The same vectors on either side give one value under every labelling, up to rounding in f32
    // sums, which is no evidence.
    let (p, dispersion_p) = if same_vectors {
        (1.0, 1.0)
    } else {
        (
            max_standardised(&mmd2).p_value,
            max_standardised(&spread).p_value,
        )
    };
    let adjusted = holm(&[p, dispersion_p]);
    result.p_value = Some(p);
    result.dispersion_p_value = Some(dispersion_p);
    result.p_value_holm = Some(adjusted[0]);
    result.dispersion_p_value_holm = Some(adjusted[1]);
    let residuals = estimate::residuals(&part(&sums.sums[BASE]), &counts, &blocks.is_x[..tested]);
    let by_chance = map(&relabelled_means(&residuals), estimate::mmd2);
    result.noise_floor = Some(mean_and_sd(&by_chance).1);
}

fn map(means: &[Quadrants], statistic: impl Fn(Quadrants) -> f64) -> Vec<f64> {
    means.iter().map(|&means| statistic(means)).collect()
}

/// Fills in the effect, its interval, and what they say about the margin.
fn judge(
    result: &mut Mmd,
    mmd2: f64,
    variance: Option<f64>,
    scale: Option<ReferenceScale>,
    margin: f64,
) {
    let Some(ReferenceScale { m2, clusters }) = scale else {
        return;
    };
    let eps = |mmd2: f64| (mmd2.max(0.0) / m2).sqrt();
    let normal = Normal::standard();
    let (z_two_sided, z) = (normal.inverse_cdf(0.975), normal.inverse_cdf(0.95));
    let detectable = (z + normal.inverse_cdf(POWER)) * result.noise_floor.unwrap_or(0.0);
    result.effect = Effect {
        eps_eq: Some(eps(mmd2)),
        ci95: variance.map(|v| sqrt_scale_interval(mmd2, v.sqrt(), z_two_sided).map(eps)),
        reference_m2: Some(m2),
        clusters,
    };
    result.minimum_detectable = result.noise_floor.map(|_| eps(detectable));
    let Some(variance) = variance else {
        return;
    };
    let [lower, upper] = sqrt_scale_interval(mmd2, variance.sqrt(), z).map(eps);
    result.equivalence.state = if upper < margin {
        EquivalenceState::Equivalent
    } else if lower > margin {
        EquivalenceState::Shifted
    } else {
        // The noise floor falls as 1/n + 1/m.
        let (n, m) = (result.used_reference as f64, result.used_current as f64);
        let rows = detectable / (margin * margin * m2) * 2.0 / (1.0 / n + 1.0 / m);
        result.equivalence.rows_needed =
            (rows > n.min(m) && result.noise_floor.is_some()).then_some(rows.ceil() as u64);
        EquivalenceState::Undecided
    };
}
