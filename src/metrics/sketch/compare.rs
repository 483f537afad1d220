//! Two sketches compared: kernel means by block, the effect with its interval, the test.

use rayon::prelude::*;

use super::features::{KERNELS, value};
use super::*;
use crate::metrics::comparability::{Comparability, SharedRows, SpaceRelation, comparability};
use crate::metrics::fourier::dot;
use crate::stats::counts::wilson_ci95;
use crate::stats::interval::{jackknife_variance, sqrt_scale_interval};
use crate::stats::permutation::{max_standardised, mean_and_sd};
use crate::stats::rng::Philox;

/// Philox stream of the signs.
const STREAM_SIGNS: u64 = u64::from_le_bytes(*b"signs\0\0\0");

/// Two-sided 95 % and one-sided 5 % with 80 % power.
const Z_975: f64 = 1.959_963_984_540_054;
const DETECTED: f64 = 1.644_853_626_951_472_7 + 0.841_621_233_572_914_3;

/// A cosine above which a vector has not changed: f32 rounding, not a new embedding.
const UNCHANGED: f64 = 1.0 - 1e-6;

/// A distribution as its mean embedding, in parts by block of ids.
#[derive(Debug, Clone)]
pub(crate) struct MeanEmbedding {
    /// Per block its share of the rows.
    shares: Vec<f64>,
    /// Per kernel and block the part of the mean, blocks × 2p.
    parts: [Vec<f64>; KERNELS],
}

impl MeanEmbedding {
    pub(crate) fn new(state: &SketchState) -> Self {
        let n = state.rows as f64;
        let (blocks, features) = (state.frame.blocks, 2 * state.frame.frequencies);
        let scale = 1.0 / (n * (state.frame.frequencies as f64).sqrt());
        let part = |kernel: usize| {
            (0..blocks)
                .flat_map(|block| {
                    let at = (block * KERNELS + kernel) * features;
                    state.sums[at..at + features]
                        .iter()
                        .map(|&sum| value(sum) * scale)
                })
                .collect()
        };
        Self {
            shares: state
                .block_rows
                .iter()
                .map(|&rows| rows as f64 / n)
                .collect(),
            parts: std::array::from_fn(part),
        }
    }

    /// The mean of several, each of equal weight: what a stretch of a series looks like.
    pub(crate) fn mean_of(all: &[&Self]) -> Self {
        let scale = 1.0 / all.len() as f64;
        let mut mean = all[0].clone();
        let average = |mean: &mut [f64], others: &dyn Fn(&Self) -> Vec<f64>| {
            for other in &all[1..] {
                for (m, v) in mean.iter_mut().zip(others(other)) {
                    *m += v;
                }
            }
            mean.iter_mut().for_each(|m| *m *= scale);
        };
        average(&mut mean.shares, &|other| other.shares.clone());
        for kernel in 0..KERNELS {
            average(&mut mean.parts[kernel], &|other| {
                other.parts[kernel].clone()
            });
        }
        mean
    }

    fn blocks(&self) -> usize {
        self.shares.len()
    }

    fn part(&self, kernel: usize, block: usize) -> &[f64] {
        let features = self.parts[kernel].len() / self.blocks();
        &self.parts[kernel][block * features..][..features]
    }

    fn total(&self, kernel: usize) -> Vec<f64> {
        let mut total = vec![0.0; self.parts[kernel].len() / self.blocks()];
        for block in 0..self.blocks() {
            for (sum, v) in total.iter_mut().zip(self.part(kernel, block)) {
                *sum += v;
            }
        }
        total
    }
}

/// Products of two mean embeddings, whole and block by block: all that estimates and their jackknife need.
struct Products {
    /// ⟨X, Y⟩.
    total: f64,
    /// Per block b: ⟨X_b, Y_b⟩, ⟨X_b, Y⟩, ⟨X, Y_b⟩.
    blocks: Vec<[f64; 3]>,
    /// Per block the shares of X and Y in it.
    shares: Vec<[f64; 2]>,
}

impl Products {
    fn new(x: &MeanEmbedding, y: &MeanEmbedding, kernel: usize) -> Self {
        let (of_x, of_y) = (x.total(kernel), y.total(kernel));
        let block = |b: usize| {
            let (xb, yb) = (x.part(kernel, b), y.part(kernel, b));
            [dot(xb, yb), dot(xb, &of_y), dot(&of_x, yb)]
        };
        Self {
            total: dot(&of_x, &of_y),
            blocks: (0..x.blocks()).map(block).collect(),
            shares: x
                .shares
                .iter()
                .zip(&y.shares)
                .map(|(&a, &b)| [a, b])
                .collect(),
        }
    }

    /// Mean kernel over pairs from different blocks, with all blocks or without one.
    fn mean(&self, without: Option<usize>) -> f64 {
        let mut sum = self.total;
        let (mut x, mut y) = (1.0, 1.0);
        if let Some(b) = without {
            let [both, left, right] = self.blocks[b];
            sum += both - left - right;
            (x, y) = (1.0 - self.shares[b][0], 1.0 - self.shares[b][1]);
        }
        let mut pairs = x * y;
        for (b, (products, shares)) in self.blocks.iter().zip(&self.shares).enumerate() {
            if Some(b) != without {
                sum -= products[0];
                pairs -= shares[0] * shares[1];
            }
        }
        sum / pairs
    }
}

/// Estimates of one kernel.
struct Estimates {
    xx: Products,
    yy: Products,
    xy: Products,
}

impl Estimates {
    fn new(x: &MeanEmbedding, y: &MeanEmbedding, kernel: usize) -> Self {
        Self {
            xx: Products::new(x, x, kernel),
            yy: Products::new(y, y, kernel),
            xy: Products::new(x, y, kernel),
        }
    }

    fn mmd2(&self, without: Option<usize>) -> f64 {
        self.xx.mean(without) + self.yy.mean(without) - 2.0 * self.xy.mean(without)
    }

    fn dispersion(&self, without: Option<usize>) -> f64 {
        self.xx.mean(without) - self.yy.mean(without)
    }

    /// Variance of MMD² by the draw of frequencies: it is a sum over them, of p independent terms as it were.
    /// (Orthogonal ones vary less.)
    fn frequency_variance(&self, x: &MeanEmbedding, y: &MeanEmbedding, kernel: usize) -> f64 {
        let pairs =
            |products: &Products| 1.0 - products.shares.iter().map(|s| s[0] * s[1]).sum::<f64>();
        let weights = [pairs(&self.xx), pairs(&self.yy), pairs(&self.xy)];
        let (of_x, of_y) = (x.total(kernel), y.total(kernel));
        let frequencies = of_x.len() / 2;
        // The cosine and the sine of one frequency go together.
        let mut terms = vec![0.0; frequencies];
        let mut add = |x: &[f64], y: &[f64], sign: f64| {
            for (i, (a, b)) in x.iter().zip(y).enumerate() {
                let square = a * a / weights[0] + b * b / weights[1] - 2.0 * a * b / weights[2];
                terms[i % frequencies] += sign * square;
            }
        };
        add(&of_x, &of_y, 1.0);
        for block in 0..x.blocks() {
            add(x.part(kernel, block), y.part(kernel, block), -1.0);
        }
        let (_, sd) = mean_and_sd(&terms);
        sd * sd * frequencies as f64
    }

    /// Jackknife variance over blocks that have rows.
    fn variance(&self, estimate: f64, of: impl Fn(Option<usize>) -> f64) -> f64 {
        let sizes: Vec<f64> = self.xy.shares.iter().map(|s| s[0] + s[1]).collect();
        let filled: Vec<usize> = (0..sizes.len()).filter(|&b| sizes[b] > 0.0).collect();
        let without: Vec<f64> = filled.iter().map(|&b| of(Some(b))).collect();
        let sizes: Vec<f64> = filled.iter().map(|&b| sizes[b]).collect();
        jackknife_variance(estimate, &without, &sizes)
    }
}

/// Unbiased MMD² of every two of several distributions and the mean kernels behind it, both T × T, at the
/// base bandwidth.
pub(crate) fn mean_mmd2(all: &[MeanEmbedding]) -> (Vec<f64>, Vec<f64>) {
    let t = all.len();
    let kernels: Vec<f64> = (0..t * t)
        .into_par_iter()
        .map(|at| {
            let (i, j) = (at / t, at % t);
            if j < i {
                0.0
            } else {
                Products::new(&all[i], &all[j], BASE).mean(None)
            }
        })
        .collect();
    let kernel = |i: usize, j: usize| kernels[i.min(j) * t + i.max(j)];
    let pairs = || (0..t * t).map(|at| (at / t, at % t));
    let mmd2 = pairs()
        .map(|(i, j)| kernel(i, i) + kernel(j, j) - 2.0 * kernel(i, j))
        .collect();
    (mmd2, pairs().map(|(i, j)| kernel(i, j)).collect())
}

/// Per cluster of at least two rows its MMD² against all other rows, from its feature sums: the diagonal,
/// 1 for every row, is left out.
pub(super) fn clusters_apart(sums: &[i64], sizes: &[u64]) -> Vec<f64> {
    let clusters = sizes.len();
    let features = sums.len() / clusters / KERNELS;
    let scale = 2.0 / features as f64;
    let of = |cluster: usize| -> Vec<f64> {
        let at = (cluster * KERNELS + BASE) * features;
        sums[at..at + features]
            .iter()
            .map(|&sum| value(sum))
            .collect()
    };
    let all: Vec<Vec<f64>> = (0..clusters).map(of).collect();
    let total: Vec<f64> = (0..features)
        .map(|f| all.iter().map(|c| c[f]).sum())
        .collect();
    let n: u64 = sizes.iter().sum();
    (0..clusters)
        .filter(|&c| sizes[c] >= 2 && n - sizes[c] >= 2)
        .map(|c| {
            let rest: Vec<f64> = total.iter().zip(&all[c]).map(|(t, v)| t - v).collect();
            let within = |sum: &[f64], n: f64| (dot(sum, sum) * scale - n) / (n * (n - 1.0));
            let (a, b) = (sizes[c] as f64, (n - sizes[c]) as f64);
            within(&all[c], a) + within(&rest, b) - 2.0 * scale * dot(&all[c], &rest) / (a * b)
        })
        .collect()
}

/// How far the snapshots behind two sketches are apart.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SketchMmd {
    /// Unbiased estimate of the squared MMD at the base bandwidth, over all pairs of rows of different
    /// blocks of ids; features stand for the kernel. Slightly negative by chance.
    pub mmd2_unbiased: f64,
    /// Mean kernel within the reference − within current: positive where current is the more spread out.
    pub dispersion: f64,
    /// 95 % interval of `dispersion` (jackknife over blocks).
    pub dispersion_ci95: [f64; 2],
    /// The effect.
    pub effect: SketchEffect,
    /// p-value of "one distribution", (1 + b)/(1 + draws): the largest standardised MMD² of three bandwidths
    /// under random signs of the blocks' differences.
    pub p_value: f64,
    /// Sign draws besides the observed ones.
    pub draws: u32,
    /// Standard deviation of MMD² by chance where the distributions agree.
    pub noise_floor: f64,
    /// Smallest `eps_eq` that would be found at 5 % with 80 % power.
    pub minimum_detectable: Option<f64>,
    /// Rows of the reference behind it.
    pub n_reference: u64,
    /// Rows of current.
    pub n_current: u64,
}

/// Size of a difference, as in `mmd`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SketchEffect {
    /// √(max(MMD², 0)/M2): as if this share of the reference had been replaced by one typical foreign
    /// topic. `null` where the frame has no M2.
    pub eps_eq: Option<f64>,
    /// 95 % interval on the square root's scale: jackknife over blocks for the rows, and what another draw of
    /// frequencies would have changed.
    pub ci95: Option<[f64; 2]>,
}

impl SketchMmd {
    /// Compares two snapshots from their sketches.
    ///
    /// A block holds the same ids in every sketch, so that blocks are independent of each other also where
    /// snapshots share rows. Pairs of rows within a block are left out, which leaves MMD² unbiased for
    /// independent, paired and overlapping snapshots alike. For the p-value, the block's share in the difference
    /// of the means gets a random sign (the wild bootstrap): its level is near, not exactly, the nominal one.
    /// Snapshots of the same vectors give 0 and p = 1.
    ///
    /// # Errors
    /// The sketches are of different frames.
    ///
    /// # Source
    /// Chwialkowski, Sejdinovic & Gretton 2014 (wild bootstrap of kernel statistics); Rahimi & Recht 2007.
    pub fn new(reference: &Sketch, current: &Sketch, draws: u32) -> Result<Self> {
        if reference.state.frame != current.state.frame {
            return Err(Error::input(
                &current.state.name,
                format!(
                    "its sketch has another frame than that of {}",
                    reference.state.name
                ),
            )
            .hint("sketch both in one frame: vecdrift sketch INPUT --like FILE"));
        }
        let sizes = [reference.state.rows, current.state.rows];
        let [x, y] = [reference, current].map(|s| MeanEmbedding::new(&s.state));
        Ok(Self::of_means(&x, &y, &reference.state.frame, sizes, draws))
    }

    /// The same of mean embeddings, of snapshots or of stretches of a series.
    pub(crate) fn of_means(
        x: &MeanEmbedding,
        y: &MeanEmbedding,
        frame: &Frame,
        [n_reference, n_current]: [u64; 2],
        draws: u32,
    ) -> Self {
        let kernels: Vec<Estimates> = (0..KERNELS).map(|k| Estimates::new(x, y, k)).collect();
        let base = &kernels[BASE];
        let mmd2 = base.mmd2(None);
        let of_rows = base.variance(mmd2, |without| base.mmd2(without));
        let sd = (of_rows + base.frequency_variance(x, y, BASE)).sqrt();
        let dispersion = base.dispersion(None);
        let half = Z_975
            * base
                .variance(dispersion, |without| base.dispersion(without))
                .sqrt();
        let null: Vec<Vec<f64>> = (0..KERNELS)
            .map(|k| signed(&residual_gram(x, y, k), x.blocks(), draws, frame.seed))
            .collect();
        let noise_floor = mean_and_sd(&null[BASE]).1;
        // Without any difference in any block there is nothing to test.
        let p_value = if noise_floor > 0.0 {
            let values: Vec<Vec<f64>> = null
                .into_iter()
                .zip(&kernels)
                .map(|(null, estimates)| [vec![estimates.mmd2(None)], null].concat())
                .collect();
            max_standardised(&values).p_value
        } else {
            1.0
        };
        let scale = frame.cluster_mmd2;
        let in_topics = |mmd2: f64| scale.map(|m2| (mmd2.max(0.0) / m2).sqrt());
        let [low, high] = sqrt_scale_interval(mmd2, sd, Z_975);
        Self {
            mmd2_unbiased: mmd2,
            dispersion,
            dispersion_ci95: [dispersion - half, dispersion + half],
            effect: SketchEffect {
                eps_eq: in_topics(mmd2),
                ci95: in_topics(low).zip(in_topics(high)).map(|(l, h)| [l, h]),
            },
            p_value,
            draws,
            noise_floor,
            minimum_detectable: in_topics(DETECTED * noise_floor),
            n_reference,
            n_current,
        }
    }
}

/// Products of the blocks' shares r_b = (X_b − w_b·X) − (Y_b − v_b·Y) in the difference of the means, which is
/// their sum but for what the null hypothesis calls noise; blocks × blocks.
fn residual_gram(x: &MeanEmbedding, y: &MeanEmbedding, kernel: usize) -> Vec<f64> {
    let (of_x, of_y) = (x.total(kernel), y.total(kernel));
    let residuals: Vec<Vec<f64>> = (0..x.blocks())
        .map(|b| {
            let (w, v) = (x.shares[b], y.shares[b]);
            let parts = x.part(kernel, b).iter().zip(y.part(kernel, b));
            parts
                .zip(of_x.iter().zip(&of_y))
                .map(|((xb, yb), (x, y))| (xb - w * x) - (yb - v * y))
                .collect()
        })
        .collect();
    let blocks = residuals.len();
    (0..blocks * blocks)
        .into_par_iter()
        .map(|at| dot(&residuals[at / blocks], &residuals[at % blocks]))
        .collect()
}

/// Σ_{a≠b} ε_a ε_b G_ab under `draws` vectors of random signs; draw i from stream i, whatever the threads.
/// Residuals about estimated means vary less than true ones: B/(B − 1) makes up for it.
fn signed(gram: &[f64], blocks: usize, draws: u32, seed: u64) -> Vec<f64> {
    let inflate = blocks as f64 / (blocks as f64 - 1.0);
    (0..draws)
        .into_par_iter()
        .map(|draw| {
            let mut random = Philox::new(seed ^ STREAM_SIGNS, u64::from(draw));
            let bits: Vec<u64> = (0..blocks.div_ceil(64))
                .map(|_| random.next_u64())
                .collect();
            let positive = |b: usize| bits[b / 64] >> (b % 64) & 1 == 1;
            let mut sum = 0.0;
            for a in 1..blocks {
                let row = &gram[a * blocks..a * blocks + a];
                let along: f64 = row
                    .iter()
                    .enumerate()
                    .map(|(b, &g)| if positive(b) { g } else { -g })
                    .sum();
                sum += if positive(a) { along } else { -along };
            }
            2.0 * sum * inflate
        })
        .collect()
}

/// What two snapshots have in common, as far as landmarks tell.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Kinship {
    /// How the coordinate systems relate, from landmarks that both have.
    pub space: Comparability,
    /// Share of current's ids that the reference had too; `null` where ids are row numbers.
    pub kept: Option<f64>,
    /// 95 % interval of it (Wilson).
    pub kept_ci95: Option<[f64; 2]>,
    /// Share of the reference's ids that current no longer has.
    pub removed: Option<f64>,
    /// Share of the ids in both whose vector is another one (cosine below 1 − 10⁻⁶).
    pub re_embedded: Option<f64>,
    /// Landmarks in both.
    pub shared_landmarks: usize,
}

impl Kinship {
    /// Whether coordinates of the two can be compared.
    pub fn shares_coordinates(&self) -> bool {
        self.space.relation.shares_coordinates()
    }
}

/// Compares the landmarks of two sketches.
///
/// Both hold the ids that hash lowest; below the lower of their limits the landmarks of either are complete, so
/// the share of current's there that the reference has is an unbiased estimate of the share of all.
///
/// # Errors
/// The device fails.
pub fn kinship(engine: &Engine, reference: &Sketch, current: &Sketch) -> Result<Kinship> {
    let seed = reference.state.frame.seed;
    let comparable_ids = !reference.state.row_numbers
        && !current.state.row_numbers
        && seed == current.state.frame.seed;
    let (mut x_rows, mut y_rows) = (Vec::new(), Vec::new());
    let mut shares = [None; 2];
    if comparable_ids {
        let known = reference.row_of_id();
        for (row, id) in (0..).zip(current.ids.iter()) {
            if let Some(&at) = known.get(id) {
                x_rows.push(at);
                y_rows.push(row);
            }
        }
        let limit = [reference, current]
            .iter()
            .filter_map(|s| s.hash_limit())
            .min();
        let complete = |sketch: &Sketch| {
            let below = |row: usize| limit.is_none_or(|limit| sketch.ids.hash(row, seed) <= limit);
            (0..sketch.ids.len()).filter(|&row| below(row)).count() as u64
        };
        let both = (x_rows.len() as u64)
            .min(complete(reference))
            .min(complete(current));
        shares = [complete(current), complete(reference)].map(|n| (n > 0).then_some((both, n)));
    }
    let d = reference.state.frame.dim;
    let shared_ids = current.ids.select(&y_rows);
    let x = Values::gather(reference.landmark_rows(), &x_rows);
    let y = Values::gather(current.landmark_rows(), &y_rows);
    let shared = SharedRows {
        reference: x.rows(d),
        current: y.rows(current.state.frame.dim),
        ids: &shared_ids,
    };
    let space = comparability(engine, shared, seed)?;
    let re_embedded = (space.relation != SpaceRelation::DifferentDimension && !x_rows.is_empty())
        .then(|| {
            let changed = shared
                .reference
                .iter()
                .zip(shared.current.iter())
                .filter(|(x, y)| cosine(x, y) < UNCHANGED)
                .count();
            changed as f64 / x_rows.len() as f64
        });
    Ok(Kinship {
        space,
        kept: shares[0].map(|(both, n)| both as f64 / n as f64),
        kept_ci95: shares[0].map(|(both, n)| wilson_ci95(both, n)),
        removed: shares[1].map(|(both, n)| 1.0 - both as f64 / n as f64),
        re_embedded,
        shared_landmarks: x_rows.len(),
    })
}

pub(super) fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let of = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum()
    };
    of(x, y) / (of(x, x) * of(y, y)).sqrt()
}
