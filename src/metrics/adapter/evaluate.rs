//! What a map is worth on held-out items: cosines, neighbours in the whole corpus, clusters, queries.

use std::collections::HashMap;

use super::super::alignment::cosine_f64;
use super::super::kmeans::kmeans;
use super::super::retrieval::{Qrel, Retrieval, RetrievalSide, retrieval};
use super::{Adapter, AlignSide, ClusterResidual, Fidelity, Recovery, Split};
use crate::embeddings::{F32Rows, Rows};
use crate::engine::{Engine, Metric, SelfExclusion, score};
use crate::error::{Error, Result};
use crate::stats::distribution;
use crate::stats::interval::Estimate;
use crate::stats::paired::{PairedDifference, Resampling, bootstrap_mean_ci95, mean};

/// Held-out items per cluster, on average, and clusters at most.
const ITEMS_PER_CLUSTER: usize = 50;
const MOST_CLUSTERS: usize = 32;
/// Items that stand for a cluster.
const EXAMPLES: usize = 3;

/// Held-out items with what their own vectors find.
pub(super) struct Heldout<'a> {
    source: &'a AlignSide<'a>,
    target: &'a AlignSide<'a>,
    groups: &'a [u32],
    source_values: Vec<f32>,
    target_values: Vec<f32>,
    /// Target row of each item.
    target_rows: Vec<u32>,
    /// Document of each target row, by number.
    target_groups: Vec<u32>,
    /// Mean of the items' target vectors.
    target_mean: Vec<f64>,
    /// What each item's own vector finds in the target corpus.
    native: Vec<Vec<u32>>,
    /// What it finds in the source corpus, as target rows; absent unless both sides hold the same ids.
    native_in_source: Option<Vec<Vec<u32>>>,
    k: usize,
}

/// Mapped items against their targets.
pub(super) struct Compared {
    pub(super) fidelity: Fidelity,
    cosines: Vec<f64>,
    overlaps: Vec<f64>,
    lists: Vec<Vec<u32>>,
}

/// Agreement with the source space.
pub(super) struct Agreement {
    pub(super) with_source: Estimate,
    pub(super) of_spaces: Estimate,
}

impl<'a> Heldout<'a> {
    /// `forward`: the source is the current side.
    pub(super) fn new(
        engine: &Engine,
        source: &'a AlignSide<'a>,
        target: &'a AlignSide<'a>,
        split: &'a Split,
        forward: bool,
        k: usize,
    ) -> Result<Self> {
        let (old, new): (Vec<u32>, Vec<u32>) = split.heldout.iter().copied().unzip();
        let (source_rows, target_rows) = if forward { (new, old) } else { (old, new) };
        let target_values = target
            .rows
            .gather(target_rows.iter().map(|&row| row as usize));
        let source_values = source
            .rows
            .gather(source_rows.iter().map(|&row| row as usize));
        let target_groups = numbered_groups(target);
        let native = lists(
            engine,
            Rows::new(&target_values, target.rows.dim()),
            target.rows,
            (&target_rows, &target_groups),
            k,
        )?;
        let target_of: HashMap<&str, u32> = target.ids.iter().zip(0..).collect();
        let same_ids: Option<Vec<u32>> = (source.ids.len() == target.ids.len())
            .then(|| {
                source
                    .ids
                    .iter()
                    .map(|id| target_of.get(id).copied())
                    .collect()
            })
            .flatten();
        let native_in_source = match same_ids {
            None => None,
            Some(target_row) => {
                let groups: Vec<u32> = target_row
                    .iter()
                    .map(|&row| target_groups[row as usize])
                    .collect();
                let found = lists(
                    engine,
                    Rows::new(&source_values, source.rows.dim()),
                    source.rows,
                    (&source_rows, &groups),
                    k,
                )?;
                let as_target =
                    |list: Vec<u32>| list.iter().map(|&r| target_row[r as usize]).collect();
                Some(found.into_iter().map(as_target).collect())
            }
        };
        // Held-out items stand in the order of their hashes: the sum does not depend on any file's order.
        let mut target_mean = vec![0.0; target.rows.dim()];
        for row in target_values.chunks_exact(target.rows.dim()) {
            for (sum, &v) in target_mean.iter_mut().zip(row) {
                *sum += f64::from(v) / target_rows.len() as f64;
            }
        }
        Ok(Self {
            source,
            target,
            groups: &split.groups,
            source_values,
            target_values,
            target_rows,
            target_groups,
            target_mean,
            native,
            native_in_source,
            k,
        })
    }

    /// The items' source vectors.
    pub(super) fn source(&self) -> Rows<'_> {
        Rows::new(&self.source_values, self.source.rows.dim())
    }

    /// Their values.
    pub(super) fn source_values(&self) -> &[f32] {
        &self.source_values
    }

    /// Compares `mapped`, one row per item, each with a direction, with the items' own target vectors.
    pub(super) fn compare(&self, engine: &Engine, mapped: &[f32]) -> Result<Compared> {
        let dim = self.target.rows.dim();
        let mapped = F32Rows::new(mapped, dim);
        let targets = F32Rows::new(&self.target_values, dim);
        let (mut cosines, mut centred, mut centred_groups) = (Vec::new(), Vec::new(), Vec::new());
        let (mut residual, mut spread) = (0.0, 0.0);
        for ((a, b), &group) in mapped.iter().zip(targets.iter()).zip(self.groups) {
            cosines.push(score::similarity(
                Metric::Cosine,
                a,
                score::norm(a),
                b,
                score::norm(b),
            ));
            let less = |row: &[f32]| -> Vec<f64> {
                row.iter()
                    .zip(&self.target_mean)
                    .map(|(&v, mean)| f64::from(v) - mean)
                    .collect()
            };
            let (x, y) = (less(a), less(b));
            residual += x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
            spread += y.iter().map(|v| v * v).sum::<f64>();
            if let Some(cosine) = cosine_f64(&x, &y) {
                centred.push(cosine);
                centred_groups.push(group);
            }
        }
        let lists = lists(
            engine,
            mapped.into(),
            self.target.rows,
            (&self.target_rows, &self.target_groups),
            self.k,
        )?;
        let overlaps = overlaps(&lists, &self.native);
        let mut sorted = cosines.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        Ok(Compared {
            fidelity: Fidelity {
                mean_cosine: self.estimate(&cosines),
                mean_cosine_centred: Estimate::of_groups(&centred, &centred_groups),
                p05_cosine: distribution::quantile_sorted(&sorted, 0.05).unwrap_or(0.0),
                r_squared: (spread > 0.0).then(|| 1.0 - residual / spread),
                overlap: self.estimate(&overlaps).of_share(),
            },
            cosines,
            overlaps,
            lists,
        })
    }

    fn estimate(&self, values: &[f64]) -> Estimate {
        Estimate::of_groups(values, self.groups).unwrap_or(Estimate {
            mean: 0.0,
            ci95: None,
        })
    }

    /// How far mapped items, and the target space itself, agree with the source space.
    pub(super) fn agreement(&self, mapped: &Compared) -> Option<Agreement> {
        let source = self.native_in_source.as_ref()?;
        let share = |lists: &[Vec<u32>]| self.estimate(&overlaps(lists, source)).of_share();
        Some(Agreement {
            with_source: share(&mapped.lists),
            of_spaces: share(&self.native),
        })
    }

    /// Clusters of the items by their target vectors, worst cosine first.
    pub(super) fn clusters(
        &self,
        engine: &Engine,
        mapped: &Compared,
        seed: u64,
    ) -> Result<Vec<ClusterResidual>> {
        let targets = F32Rows::new(&self.target_values, self.target.rows.dim());
        let count = (targets.len() / ITEMS_PER_CLUSTER).clamp(1, MOST_CLUSTERS);
        let clustering = kmeans(engine, targets.into(), count, seed)?;
        let mut members = vec![Vec::new(); clustering.sizes.len()];
        for (item, &cluster) in clustering.assignment.iter().enumerate() {
            members[cluster as usize].push(item);
        }
        let centroids = F32Rows::new(&clustering.centroids, targets.dim());
        let mut clusters: Vec<ClusterResidual> = members
            .iter()
            .zip(centroids.iter())
            .map(|(members, centre)| {
                let pick =
                    |values: &[f64]| -> Vec<f64> { members.iter().map(|&i| values[i]).collect() };
                let groups: Vec<u32> = members.iter().map(|&i| self.groups[i]).collect();
                let nearness =
                    |i: usize| score::dot(targets.row(i), centre) / score::norm(targets.row(i));
                let id = |i: usize| self.target.ids.get(self.target_rows[i] as usize);
                let mut nearest = members.clone();
                nearest.sort_by(|&a, &b| {
                    nearness(b)
                        .total_cmp(&nearness(a))
                        .then_with(|| id(a).cmp(id(b)))
                });
                ClusterResidual {
                    items: members.len(),
                    mean_cosine: Estimate::of_groups(&pick(&mapped.cosines), &groups)
                        .expect("no cluster is empty"),
                    mean_overlap: mean(&pick(&mapped.overlaps)),
                    examples: nearest
                        .iter()
                        .take(EXAMPLES)
                        .map(|&i| id(i).to_owned())
                        .collect(),
                }
            })
            .collect();
        clusters.sort_by(|a, b| {
            let key = |c: &ClusterResidual| c.mean_cosine.mean;
            key(a)
                .total_cmp(&key(b))
                .then_with(|| a.examples.cmp(&b.examples))
        });
        Ok(clusters)
    }
}

/// Rows without a direction, or with a value that overflowed, replaced by the first axis: any list is as wrong.
pub(super) fn with_direction(mut mapped: Vec<f32>, dim: usize) -> Vec<f32> {
    for row in mapped.chunks_exact_mut(dim) {
        if !row.iter().all(|v| v.is_finite()) || row.iter().all(|&v| v == 0.0) {
            row.fill(0.0);
            row[0] = 1.0;
        }
    }
    mapped
}

/// The document of every row, numbered.
fn numbered_groups(side: &AlignSide<'_>) -> Vec<u32> {
    let Some(groups) = side.groups else {
        return (0..side.rows.len() as u32).collect();
    };
    let mut numbers: HashMap<&str, u32> = HashMap::new();
    groups
        .iter()
        .map(|group| {
            let next = numbers.len() as u32;
            *numbers.entry(group).or_insert(next)
        })
        .collect()
}

/// The `k` nearest rows of `base` of other documents than the query's own; `own` are the queries' rows in the
/// base, and the document of every base row.
fn lists(
    engine: &Engine,
    queries: Rows<'_>,
    base: Rows<'_>,
    (own, groups): (&[u32], &[u32]),
    k: usize,
) -> Result<Vec<Vec<u32>>> {
    let query_groups: Vec<u32> = own.iter().map(|&row| groups[row as usize]).collect();
    let exclude = SelfExclusion {
        queries: &query_groups,
        base: groups,
    };
    let found = engine.nearest(queries, base, k, Metric::Cosine, Some(exclude))?;
    let rows = |list: &Vec<(f64, u32)>| list.iter().map(|e| e.1).collect();
    Ok(found.lists.iter().map(rows).collect())
}

/// |A ∩ B| / |B| per item.
fn overlaps(found: &[Vec<u32>], wanted: &[Vec<u32>]) -> Vec<f64> {
    found
        .iter()
        .zip(wanted)
        .map(|(a, b)| {
            let common = a.iter().filter(|row| b.contains(row)).count();
            common as f64 / b.len().max(1) as f64
        })
        .collect()
}

/// Golden queries of the source on the target's corpus.
pub(super) fn recovery(
    engine: &Engine,
    source: &AlignSide<'_>,
    target: &AlignSide<'_>,
    adapter: &Adapter,
    qrels: &[Qrel],
    min_recovered_share: f64,
    resampling: &Resampling,
) -> Result<Recovery> {
    let missing = || Error::input("golden queries", "a side has none, expected them on both");
    let (queries, query_ids) = source.queries.ok_or_else(missing)?;
    let (own_queries, own_ids) = target.queries.ok_or_else(missing)?;
    if queries.dim() != source.rows.dim() {
        return Err(Error::input(
            "golden queries",
            format!(
                "dimension {}, expected that of their corpus, {}",
                queries.dim(),
                source.rows.dim()
            ),
        ));
    }
    let mapped = with_direction(adapter.map(engine, queries)?, adapter.target_dim());
    let on_target = |queries, query_ids| RetrievalSide {
        queries,
        query_ids,
        corpus: target.rows,
        corpus_ids: target.ids,
    };
    let native_source = RetrievalSide {
        queries,
        query_ids,
        corpus: source.rows,
        corpus_ids: source.ids,
    };
    let adapted = on_target(Rows::new(&mapped, adapter.target_dim()), query_ids);
    let same_dim = queries.dim() == target.rows.dim();
    let before = if same_dim {
        on_target(queries, query_ids)
    } else {
        adapted
    };
    // Only the scores of single queries are read off.
    let quick = Resampling {
        sign_flips: 0,
        bootstraps: 0,
        seed: resampling.seed,
    };
    let natives = retrieval(
        engine,
        &native_source,
        &on_target(own_queries, own_ids),
        qrels,
        &quick,
    )?;
    let mixed = retrieval(engine, &before, &adapted, qrels, &quick)?;
    let mixed_scores = by_query(&mixed);
    let mut scores = Vec::new();
    for query in &natives.per_query {
        if let Some(&(before, after)) = mixed_scores.get(query.id.as_str()) {
            scores.push([query.reference[0], query.current[0], before, after]);
        }
    }
    let column = |i: usize| -> Vec<f64> { scores.iter().map(|s| s[i]).collect() };
    // Columns of both natives, as the reference and the current side.
    let forward = adapter.direction == super::Direction::CurrentToReference;
    let (reference, current) = if forward {
        (column(1), column(0))
    } else {
        (column(0), column(1))
    };
    let after = column(3);
    let less = |a: &[f64], factor: f64, b: &[f64]| -> Vec<f64> {
        a.iter().zip(b).map(|(a, b)| a - factor * b).collect()
    };
    let change = less(&after, 1.0, &reference);
    let margin = less(&after, min_recovered_share, &reference);
    let upgrade = less(&current, 1.0, &reference);
    let interval =
        |values: &[f64]| bootstrap_mean_ci95(values, resampling.bootstraps, resampling.seed);
    let upgrade_shown = interval(&upgrade).is_some_and(|[low, _]| low > 0.0);
    Ok(Recovery {
        queries: scores.len(),
        reference: mean(&reference),
        current: mean(&current),
        unadapted: same_dim.then(|| mean(&column(2))),
        adapted: mean(&after),
        recovered_share: (mean(&reference) > 0.0).then(|| mean(&after) / mean(&reference)),
        gain_share: upgrade_shown.then(|| mean(&change) / mean(&upgrade)),
        margin: Estimate {
            mean: mean(&margin),
            ci95: interval(&margin),
        },
        change: PairedDifference::new(&change, resampling),
    })
}

/// nDCG@10 of both sides, per query.
fn by_query(found: &Retrieval) -> HashMap<&str, (f64, f64)> {
    found
        .per_query
        .iter()
        .map(|q| (q.id.as_str(), (q.reference[0], q.current[0])))
        .collect()
}
