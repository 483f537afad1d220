//! What an MMD² is measured against: how far one topic of the reference is from the rest.

use super::Sample;
use super::blocks::{Grouped, hash};
use super::estimate::{counts, means, mmd2, observed};
use crate::embeddings::{Rows, Values};
use crate::engine::{BlockLayout, Engine, KernelFamily};
use crate::error::Result;
use crate::metrics::kmeans::kmeans;
use crate::stats::distribution::median;

/// Reference rows that are clustered.
const SAMPLED_ROWS: usize = 4_000;

/// Rows per cluster that are aimed at, and bounds for the number of clusters.
const CLUSTER_ROWS: usize = 50;
const CLUSTERS: std::ops::RangeInclusive<usize> = 2..=64;

/// Clusters that so many rows of a reference are divided into.
pub(crate) fn clusters(rows: usize) -> usize {
    (rows / CLUSTER_ROWS).clamp(*CLUSTERS.start(), *CLUSTERS.end())
}

/// M2 and how many clusters it is the median over.
pub(super) struct ReferenceScale {
    pub(super) m2: f64,
    pub(super) clusters: usize,
}

/// M2 = median over clusters c of the reference of MMD²ᵤ(X_c, X without X_c), at the base bandwidth,
/// over rows drawn by the hash of their id. `None` where there is no positive one.
pub(super) fn reference_scale(
    engine: &Engine,
    grouped: &Grouped<'_>,
    sample: Sample<'_>,
    group_of: &[u32],
    kernels: &KernelFamily,
    base: usize,
    seed: u64,
) -> Result<Option<ReferenceScale>> {
    let mut drawn = grouped.rows().to_vec();
    drawn.sort_by_cached_key(|&row| {
        let id = sample.ids.get(row as usize);
        (hash(id, seed), id)
    });
    drawn.truncate(SAMPLED_ROWS);
    let values = Values::gather(sample.rows, &drawn);
    let rows = values.rows(sample.rows.dim());
    let clustering = kmeans(engine, rows, clusters(drawn.len()), seed)?;

    let mut blocks = vec![Vec::new(); clustering.sizes.len()];
    for (row, &cluster) in clustering.assignment.iter().enumerate() {
        blocks[cluster as usize].push(row as u32);
    }
    let groups: Vec<u32> = drawn.iter().map(|&row| group_of[row as usize]).collect();
    let layout = BlockLayout::new(rows.len(), &blocks, &groups);
    let only_base = KernelFamily {
        gamma: kernels.gamma_of(base),
        rbf: 1,
        energy: false,
        offsets: vec![kernels.offsets[base]],
    };
    let none = Rows::new(&[], rows.dim());
    let sums = engine.pair_sums(rows, none, &layout, &only_base, None)?;
    let counts = counts(&sums);
    let apart: Vec<f64> = (0..blocks.len())
        .filter_map(|cluster| {
            let is_cluster: Vec<bool> = (0..blocks.len()).map(|c| c == cluster).collect();
            let sums = observed(&sums.sums[0], &is_cluster);
            means(sums, observed(&counts, &is_cluster)).map(mmd2)
        })
        .collect();
    let m2 = median(&apart);
    Ok((m2 > 0.0).then_some(ReferenceScale {
        m2,
        clusters: apart.len(),
    }))
}
