//! Sketches: what stays of a snapshot when its vectors are gone.
//!
//! A sketch holds kernel mean embeddings by block of ids (random Fourier features, summed exactly), moments,
//! cluster sizes, and a sample of rows with their ids, the landmarks. Two sketches in one [`Frame`] give
//! the maximum mean discrepancy of the snapshots they were made of, with an interval and a test, over all rows
//! of both; their landmarks give the share of ids they have in common and whether the space is still the
//! same. A row is looked at once, and what is kept does not grow with their number.

use std::collections::{HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::embeddings::{Embeddings, F32Rows, IdSource, Ids, Rows, Values};
use crate::engine::{Engine, Metric, pair_sq_distances};
use crate::error::{Error, Result};
use crate::metrics::kmeans::kmeans;
use crate::metrics::mmd;
use crate::stats::distribution::median;

mod compare;
mod features;

pub use compare::{Kinship, SketchEffect, SketchMmd, kinship};
pub(crate) use compare::{MeanEmbedding, mean_mmd2};

use features::{Features, KERNELS, frequencies};

/// Index of the kernel at the base bandwidth.
const BASE: usize = 1;

/// Random frequencies p: the error of an MMD² that they make is about √(2/p) of it at most, half of that for
/// the effect.
pub const FREQUENCIES: usize = 512;

/// Most blocks of ids, and the groups that a block should have on average.
const BLOCKS: usize = 64;
const BLOCK_GROUPS: usize = 8;

/// Fewest blocks: 2¹² signs of them make the test.
const LEAST_BLOCKS: usize = 12;

/// Landmarks that the bandwidth is the median distance of.
const BANDWIDTH_ROWS: usize = 1_000;

/// Landmarks kept where nothing else is asked for.
pub const LANDMARKS: usize = 4_096;

/// What a frame is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameConfig {
    /// Seed of the hash that puts ids into blocks and draws landmarks, and of the frequencies.
    pub seed: u64,
    /// Rows that every sketch keeps.
    pub landmarks: usize,
    /// Whether groups are given, and the name of the column that they stand in.
    pub group: Option<String>,
}

/// What sketches must share to be compared: frozen when the first is made, and kept in each.
///
/// The bandwidth σ is the median distance of pairs of up to 1,000 rows of the first snapshot. Frozen, curves over
/// time are comparable; a median over both snapshots would move with the drift.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Frame {
    /// Values per row, d.
    pub dim: usize,
    /// See [`FrameConfig::seed`].
    pub seed: u64,
    /// See [`FrameConfig::landmarks`].
    pub landmarks: usize,
    /// See [`FrameConfig::group`].
    pub group: Option<String>,
    /// σ of the middle kernel exp(−‖x − y‖²/(2σ²)); the others have 2σ and σ/2.
    pub bandwidth: f64,
    /// Random frequencies p: each kernel has 2p features.
    pub frequencies: usize,
    /// Blocks that ids are spread over by their hash.
    pub blocks: usize,
    /// Subtracted from every row before its features: mean of the first snapshot's landmarks.
    pub centre: Vec<f32>,
    /// Clusters of the first snapshot's landmarks, C × d.
    pub centroids: Vec<f32>,
    /// M2: median over those clusters of the MMD² of a cluster against all others, what an effect is
    /// measured against; `None` where there is no positive one.
    pub cluster_mmd2: Option<f64>,
}

impl Frame {
    /// The frame of a first snapshot.
    ///
    /// # Errors
    /// Fewer groups of rows than 96, all rows equal, a column of groups that was not read, or the device fails.
    pub fn new(engine: &Engine, set: &Embeddings, config: &FrameConfig) -> Result<Self> {
        let dim = set.dim();
        let groups = match groups(set, config.group.as_deref())? {
            None => set.len(),
            Some(groups) => groups.iter().collect::<HashSet<_>>().len(),
        };
        let blocks = (groups / BLOCK_GROUPS).min(BLOCKS);
        if blocks < LEAST_BLOCKS {
            return Err(Error::input(
                &set.name,
                format!(
                    "{groups} independent rows, expected at least {} for a sketch",
                    LEAST_BLOCKS * BLOCK_GROUPS
                ),
            ));
        }
        let drawn = lowest_hashes(&set.ids, config.landmarks, config.seed);
        let values = Values::gather(set.rows(), &drawn)
            .rows(dim)
            .to_f32()
            .into_owned();
        let landmarks = F32Rows::new(&values, dim);
        let few: Vec<&[f32]> = landmarks.iter().take(BANDWIDTH_ROWS).collect();
        let squares = pair_sq_distances(&few)?;
        let mut bandwidth = median(&squares).sqrt();
        if bandwidth == 0.0 {
            bandwidth = squares.iter().map(|s| s.sqrt()).sum::<f64>() / squares.len() as f64;
        }
        if bandwidth == 0.0 {
            return Err(Error::input(
                &set.name,
                "the rows drawn are all equal, expected different ones for a sketch",
            ));
        }
        let mut frame = Self {
            dim,
            seed: config.seed,
            landmarks: config.landmarks,
            group: config.group.clone(),
            bandwidth,
            frequencies: FREQUENCIES,
            blocks,
            centre: mean(landmarks),
            centroids: Vec::new(),
            cluster_mmd2: None,
        };
        let clusters = mmd::scale_clusters(drawn.len());
        let clustering = kmeans(engine, landmarks.into(), clusters, config.seed)?;
        frame.cluster_mmd2 = frame.scale(
            engine,
            landmarks.into(),
            &clustering.assignment,
            clustering.sizes.len(),
        )?;
        frame.centroids = clustering.centroids;
        Ok(frame)
    }

    /// M2, in the features that differences are measured in.
    fn scale(
        &self,
        engine: &Engine,
        rows: Rows<'_>,
        cluster_of: &[u32],
        clusters: usize,
    ) -> Result<Option<f64>> {
        let sums = self
            .features(clusters, &self.frequencies())
            .block_sums(engine, rows, cluster_of)?;
        let mut sizes = vec![0u64; clusters];
        cluster_of.iter().for_each(|&c| sizes[c as usize] += 1);
        let apart = compare::clusters_apart(&sums, &sizes);
        let m2 = median(&apart);
        Ok((m2 > 0.0).then_some(m2))
    }

    fn frequencies(&self) -> Vec<f32> {
        frequencies(self.dim, self.frequencies, self.bandwidth, self.seed)
    }

    fn features<'a>(&'a self, blocks: usize, frequencies: &'a [f32]) -> Features<'a> {
        Features {
            frequencies,
            centre: &self.centre,
            blocks,
        }
    }

    /// Number of clusters, C.
    pub fn clusters(&self) -> usize {
        self.centroids.len() / self.dim
    }

    /// Whether this is a frame that could have been made; what is read from a file need not be.
    fn is_sound(&self) -> bool {
        let finite = |values: &[f32]| values.iter().all(|v| v.is_finite());
        self.dim > 0
            && self.bandwidth.is_finite()
            && self.bandwidth > 0.0
            && self.frequencies > 0
            && self.frequencies.is_multiple_of(16)
            && (LEAST_BLOCKS..=BLOCKS).contains(&self.blocks)
            && self.centre.len() == self.dim
            && !self.centroids.is_empty()
            && self.centroids.len().is_multiple_of(self.dim)
            && finite(&self.centre)
            && finite(&self.centroids)
            && self
                .cluster_mmd2
                .is_none_or(|m2| m2.is_finite() && m2 > 0.0)
    }
}

/// The groups of a set's rows, where a column of them is named.
fn groups<'a>(set: &'a Embeddings, column: Option<&str>) -> Result<Option<&'a [String]>> {
    let Some(column) = column else {
        return Ok(None);
    };
    set.column(column).map(Some).ok_or_else(|| {
        Error::input(&set.name, format!("no column \"{column}\" was read"))
            .hint("sketches of one series are made with the same --group")
    })
}

/// Rows whose ids hash lowest, in the order of their hashes.
fn lowest_hashes(ids: &Ids, rows: usize, seed: u64) -> Vec<u32> {
    let mut order: Vec<(u64, u32)> = (0..ids.len() as u32)
        .map(|row| (ids.hash(row as usize, seed), row))
        .collect();
    if rows < order.len() {
        order.select_nth_unstable(rows);
        order.truncate(rows);
    }
    order.sort_unstable();
    order.into_iter().map(|(_, row)| row).collect()
}

fn mean(rows: F32Rows<'_>) -> Vec<f32> {
    let mut sums = vec![0f64; rows.dim()];
    for row in rows.iter() {
        for (sum, &v) in sums.iter_mut().zip(row) {
            *sum += f64::from(v);
        }
    }
    sums.iter()
        .map(|sum| (sum / rows.len() as f64) as f32)
        .collect()
}

/// What is known of a snapshot beside its landmarks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SketchState {
    /// The frame.
    pub frame: Frame,
    /// What the snapshot was called.
    pub name: String,
    /// Rows summed.
    pub rows: u64,
    /// Rows left out: null, zero or not finite.
    pub excluded_rows: u64,
    /// Whether ids are row numbers, which mean nothing in another file.
    pub row_numbers: bool,
    /// Rows per block.
    pub block_rows: Vec<u64>,
    /// Per block, kernel and cosine or sine, p sums in units of 2⁻²⁴.
    pub sums: Vec<i64>,
    /// Per dimension the mean.
    pub mean: Vec<f64>,
    /// Per dimension the variance.
    pub variance: Vec<f64>,
    /// Rows per cluster of the frame.
    pub cluster_rows: Vec<u64>,
}

/// A sketch of a snapshot.
#[derive(Debug, Clone)]
pub struct Sketch {
    /// All but the landmarks.
    pub state: SketchState,
    /// Ids of the landmarks: the rows whose ids hash lowest, in the snapshot's order.
    pub ids: Ids,
    /// Their vectors, L × d.
    pub landmarks: Vec<f32>,
}

impl Sketch {
    /// Sketches a set.
    ///
    /// # Errors
    /// The set's dimension is not the frame's, its column of groups was not read, or the device fails.
    pub fn new(engine: &Engine, set: &Embeddings, frame: &Frame) -> Result<Self> {
        if set.dim() != frame.dim {
            return Err(Error::input(
                &set.name,
                format!(
                    "dimension {}, expected {} as in the first snapshot",
                    set.dim(),
                    frame.dim
                ),
            )
            .hint("another dimension is another model: start a new series with it"));
        }
        let rows = set.rows();
        let hashes: Vec<u64> = match groups(set, frame.group.as_deref())? {
            None => (0..set.len())
                .map(|row| set.ids.hash(row, frame.seed))
                .collect(),
            Some(groups) => {
                let names: Ids = groups.iter().collect();
                (0..set.len())
                    .map(|row| names.hash(row, frame.seed))
                    .collect()
            }
        };
        // Landmarks are those whose hashes are lowest: blocks by the low bits do not depend on that.
        let block_of: Vec<u32> = hashes
            .iter()
            .map(|hash| (hash % frame.blocks as u64) as u32)
            .collect();
        let mut block_rows = vec![0; frame.blocks];
        block_of.iter().for_each(|&b| block_rows[b as usize] += 1);
        let frequencies = frame.frequencies();
        let sums = frame
            .features(frame.blocks, &frequencies)
            .block_sums(engine, rows, &block_of)?;

        let centroids = Rows::new(&frame.centroids, frame.dim);
        let nearest = engine.nearest(rows, centroids, 1, Metric::Cosine, None)?;
        let mut cluster_rows = vec![0; frame.clusters()];
        for list in &nearest.lists {
            cluster_rows[list[0].1 as usize] += 1;
        }
        let (mean, variance) = moments(rows);
        let mut drawn = lowest_hashes(&set.ids, frame.landmarks, frame.seed);
        drawn.sort_unstable();
        Ok(Self {
            state: SketchState {
                frame: frame.clone(),
                name: set.name.clone(),
                rows: set.len() as u64,
                excluded_rows: set.faults.rows(),
                row_numbers: set.id_source == IdSource::RowNumber,
                block_rows,
                sums,
                mean,
                variance,
                cluster_rows,
            },
            ids: set.ids.select(&drawn),
            landmarks: Values::gather(rows, &drawn)
                .rows(frame.dim)
                .to_f32()
                .into_owned(),
        })
    }

    /// A sketch from what a file holds; `None` where parts do not fit each other.
    pub fn from_parts(state: SketchState, ids: Ids, landmarks: Vec<f32>) -> Option<Self> {
        let frame = &state.frame;
        let sound = frame.is_sound()
            && state.block_rows.len() == frame.blocks
            && state
                .block_rows
                .iter()
                .try_fold(0u64, |sum, &rows| sum.checked_add(rows))
                == Some(state.rows)
            && state.rows > 0
            && state.sums.len() == frame.blocks * 2 * KERNELS * frame.frequencies
            && state.cluster_rows.len() == frame.clusters()
            && state
                .cluster_rows
                .iter()
                .try_fold(0u64, |sum, &rows| sum.checked_add(rows))
                == Some(state.rows)
            && state.mean.len() == frame.dim
            && state.variance.len() == frame.dim
            && landmarks.len() == ids.len() * frame.dim
            && !ids.is_empty();
        sound.then_some(Self {
            state,
            ids,
            landmarks,
        })
    }

    /// The landmarks' vectors.
    pub fn landmark_rows(&self) -> Rows<'_> {
        Rows::new(&self.landmarks, self.state.frame.dim)
    }

    /// Up to this hash every id of the snapshot is a landmark; `None`: all of them are, whatever their hash.
    pub fn hash_limit(&self) -> Option<u64> {
        let seed = self.state.frame.seed;
        let hashes = (0..self.ids.len()).map(|row| self.ids.hash(row, seed));
        (self.state.rows > self.ids.len() as u64)
            .then(|| hashes.max())
            .flatten()
    }

    /// Id of the landmark whose direction is nearest to `direction`.
    pub(crate) fn nearest_landmark(&self, direction: &[f32]) -> &str {
        let rows = F32Rows::new(&self.landmarks, self.state.frame.dim);
        let mut best = (f64::NEG_INFINITY, 0);
        for (i, row) in rows.iter().enumerate() {
            let cosine = compare::cosine(row, direction);
            if cosine > best.0 {
                best = (cosine, i);
            }
        }
        self.ids.get(best.1)
    }

    fn row_of_id(&self) -> HashMap<&str, u32> {
        self.ids.iter().zip(0..).collect()
    }
}

/// Mean and variance of every dimension, summed in row order.
fn moments(rows: Rows<'_>) -> (Vec<f64>, Vec<f64>) {
    let (mut sums, mut squares) = (vec![0.0; rows.dim()], vec![0.0; rows.dim()]);
    // About the first row, so that a far-off mean costs no digits.
    let first = rows.row(0).into_owned();
    for (_, values) in rows.chunks(4_096) {
        for row in values.chunks(rows.dim()) {
            for (i, (&v, &f)) in row.iter().zip(&first).enumerate() {
                let off = f64::from(v) - f64::from(f);
                sums[i] += off;
                squares[i] += off * off;
            }
        }
    }
    let n = rows.len() as f64;
    let variance = sums
        .iter()
        .zip(&squares)
        .map(|(s, q)| (q / n - (s / n).powi(2)).max(0.0));
    let variance = variance.collect();
    let mean = sums
        .iter()
        .zip(&first)
        .map(|(s, &f)| s / n + f64::from(f))
        .collect();
    (mean, variance)
}
