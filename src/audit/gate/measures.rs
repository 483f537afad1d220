//! The values that a gate can ask for, by name.

use serde::Serialize;

use super::super::{Audit, SideFaults};
use crate::metrics::cosine::CosineDistribution;
use crate::metrics::mmd::Mmd;
use crate::metrics::overlap::Overlap;
use crate::metrics::retrieval::{METRICS, Retrieval};
use crate::metrics::series::Series;
use crate::stats::interval::Estimate;
use crate::stats::paired::Z_975;

/// A value with its interval, by the name that a gate uses.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measure {
    /// The name.
    pub name: String,
    /// The value; `None` where there is none.
    pub estimate: Option<f64>,
    /// Its 95 % interval, where it has one.
    pub ci95: Option<[f64; 2]>,
    /// Why there is no value.
    pub missing: Option<String>,
}

/// What gates of an audit can name; `@K` stands for any list length.
pub const AUDIT_MEASURES: [&str; 56] = [
    "faulty_share.reference",
    "faulty_share.current",
    "mixed_rows.reference",
    "mixed_rows.current",
    "duplicate_growth",
    "near_duplicates.reference",
    "near_duplicates.current",
    "odd_batches",
    "missing_share",
    "paired_cosine",
    "paired_cosine.p05",
    "procrustes_cosine",
    "cka",
    "overlap@K",
    "jaccard@K",
    "rbo",
    "kappa",
    "same_nearest",
    "mutual_overlap",
    "trustworthiness",
    "continuity",
    "range_fall_out",
    "ndcg@10",
    "ndcg@10.loss",
    "map@10",
    "map@10.loss",
    "mrr@10",
    "mrr@10.loss",
    "recall@10",
    "recall@10.loss",
    "recall@100",
    "recall@100.loss",
    "hit_rate@1",
    "hit_rate@1.loss",
    "hit_rate@10",
    "hit_rate@10.loss",
    "negative_flips",
    "fall_out",
    "known_items.recall@10.loss",
    "ood_excess",
    "ood_rate",
    "emerging_share",
    "thresholds.rank_correlation",
    "thresholds.min_jaccard",
    "eps_eq",
    "mmd2",
    "mmd.p_value",
    "dispersion.p_value",
    "vendi_ratio",
    "coordinates.moved_share",
    "directions.moved_share",
    "centroid_shift",
    "frechet",
    "cosine_shift.ks",
    "cosine_shift.w1",
    "cosine_shift.psi",
];

/// What gates of `mmd` can name.
pub const MMD_MEASURES: [&str; 4] = ["eps_eq", "mmd2", "mmd.p_value", "dispersion.p_value"];

/// What gates of `overlap` can name.
pub const OVERLAP_MEASURES: [&str; 9] = [
    "overlap@K",
    "jaccard@K",
    "rbo",
    "kappa",
    "same_nearest",
    "mutual_overlap",
    "trustworthiness",
    "continuity",
    "range_fall_out",
];

/// What gates of `cosine` can name.
pub const COSINE_MEASURES: [&str; 7] = ["mean", "std", "min", "max", "median", "p95", "p99"];

/// Collects measures; those of one step share the reason for which they are missing.
struct List {
    measures: Vec<Measure>,
    missing: String,
}

impl List {
    fn new(missing: &str) -> Self {
        Self {
            measures: Vec::new(),
            missing: missing.to_owned(),
        }
    }

    /// Another value under a name that is there.
    fn replace(&mut self, name: &str, estimate: Option<f64>, ci95: Option<[f64; 2]>) {
        self.measures.retain(|measure| measure.name != name);
        self.add(name, estimate, ci95);
    }

    fn add(&mut self, name: impl Into<String>, estimate: Option<f64>, ci95: Option<[f64; 2]>) {
        let estimate = estimate.filter(|v| v.is_finite());
        self.measures.push(Measure {
            name: name.into(),
            estimate,
            ci95: ci95.filter(|ci| estimate.is_some() && ci.iter().all(|v| v.is_finite())),
            missing: estimate.is_none().then(|| self.missing.clone()),
        });
    }
}

/// Everything that a gate of `audit` can ask for. A list length that was not measured is there as `@K`, with
/// the reason.
pub fn audit_measures(audit: &Audit) -> Vec<Measure> {
    let reason = |part: &str, otherwise: &str| {
        audit
            .not_measured
            .iter()
            .find(|n| n.measure.contains(part))
            .map_or(otherwise.to_owned(), |n| n.reason.clone())
    };
    let mut list = List::new("it is undefined here");
    let share = |part: u64, side: &SideFaults| part as f64 / side.rows.max(1) as f64;
    let (old, new) = (&audit.data.reference, &audit.data.current);
    let mixed = |side: &SideFaults| side.mixed_spaces.as_ref().map(|found| found.foreign_share);
    list.add("mixed_rows.reference", mixed(old), None);
    list.add("mixed_rows.current", mixed(new), None);
    list.add(
        "faulty_share.reference",
        Some(share(old.faulty_rows, old)),
        None,
    );
    list.add(
        "faulty_share.current",
        Some(share(new.faulty_rows, new)),
        None,
    );
    let growth = share(new.duplicate_rows, new) - share(old.duplicate_rows, old);
    list.add("duplicate_growth", Some(growth), None);
    for (name, side) in [("reference", old), ("current", new)] {
        let found = side.near_duplicates.as_ref().and_then(|n| n.headline());
        list.add(
            format!("near_duplicates.{name}"),
            found.map(|f| f.share),
            found.map(|f| f.ci95),
        );
    }
    list.missing = "no column tells batches apart: --slice-by".to_owned();
    let odd = new
        .batches
        .iter()
        .filter(|b| b.is_made_another_way())
        .count();
    let told = !new.batches.is_empty();
    list.add("odd_batches", told.then_some(odd as f64), None);
    let ids = audit.pairing.only_reference + audit.pairing.shared;
    let missing = audit.pairing.only_reference as f64 / ids.max(1) as f64;
    let paired = audit.pairing.kind == super::super::PairingKind::Paired;
    list.missing = "the sets do not share their ids".to_owned();
    list.add("missing_share", paired.then_some(missing), None);

    list.missing = reason("paired cosine", "it is undefined here");
    let coordinates = audit.coordinates.as_ref();
    let cosine = coordinates.and_then(|c| c.paired_cosine.as_ref());
    let interval = cosine.and_then(|c| {
        let half = Z_975 * c.std? / (c.pairs as f64).sqrt();
        Some([c.mean? - half, c.mean? + half])
    });
    list.add("paired_cosine", cosine.and_then(|c| c.mean), interval);
    list.add("paired_cosine.p05", cosine.and_then(|c| c.p05), None);
    let heldout = coordinates.and_then(|c| c.procrustes.as_ref()?.heldout.as_ref());
    list.add(
        "procrustes_cosine",
        heldout.map(|h| h.heldout_mean_cosine),
        None,
    );
    let cka = coordinates.and_then(|c| c.linear_cka.cka_debiased);
    list.add("cka", cka, None);

    list.missing = reason("neighbourhood", "fewer rows than the list is long");
    add_overlap(&mut list, audit.neighbourhoods.as_ref());
    list.missing = reason("retrieval", "no golden queries");
    add_retrieval(&mut list, audit.retrieval.as_ref());

    list.missing = reason("known items", "it takes --group, and no golden queries");
    let known = audit.known_items.as_ref();
    let known = known.and_then(|k| k.metrics.iter().find(|m| m.metric == "recall_at_10"));
    let loss = known.map(|m| &m.difference);
    list.add(
        "known_items.recall@10.loss",
        loss.map(|d| -d.mean),
        loss.and_then(|d| d.ci95).map(|[low, high]| [-high, -low]),
    );

    list.missing = reason(
        "queries out of distribution",
        "fewer than 100 queries on a side",
    );
    let ood = audit.ood.as_ref().map(|found| found.main());
    list.add(
        "ood_excess",
        ood.and_then(|o| o.excess),
        ood.and_then(|o| o.excess_ci95),
    );
    list.add("ood_rate", ood.map(|o| o.rate), ood.map(|o| o.rate_ci95));

    list.missing = reason("emerging topics", "it is undefined here");
    let emerging = audit.topics.as_ref().and_then(|t| t.emerging.as_ref());
    list.add(
        "emerging_share",
        emerging.map(|e| e.share),
        emerging.map(|e| e.share_ci95),
    );

    list.missing = reason("thresholds", "too few pairs pass any threshold");
    let thresholds = audit.thresholds.as_ref();
    let correlation = thresholds.and_then(|t| t.rank_correlation);
    list.add("thresholds.rank_correlation", correlation, None);
    let worst = thresholds.and_then(|t| {
        let rows = t.table.iter();
        rows.min_by(|a, b| a.jaccard.total_cmp(&b.jaccard))
    });
    let interval = worst
        .and_then(|row| row.flips.ci95)
        .map(|[low, high]| [1.0 - high, 1.0 - low]);
    list.add(
        "thresholds.min_jaccard",
        worst.map(|row| row.jaccard),
        interval,
    );

    list.missing = reason("MMD", &reason("distribution", "it is undefined here"));
    let distribution = audit.distribution.as_ref();
    add_mmd(&mut list, distribution.and_then(|d| d.mmd.as_ref()));
    if let Some(mmd) = audit.sketched.as_ref().and_then(|s| s.mmd.as_ref()) {
        // Of all rows, where the other is of a sketch's landmarks.
        list.replace("eps_eq", mmd.effect.eps_eq, mmd.effect.ci95);
        list.replace("mmd.p_value", Some(mmd.p_value), None);
        list.replace("mmd2", Some(mmd.mmd2_unbiased), None);
    }
    list.add(
        "vendi_ratio",
        distribution.and_then(|d| d.vendi_ratio),
        None,
    );
    let axes = distribution.and_then(|d| d.axes.as_ref());
    list.add(
        "coordinates.moved_share",
        axes.map(|axes| axes.coordinates.moved_share),
        None,
    );
    let directions = axes.and_then(|axes| axes.principal_directions.as_ref());
    list.add(
        "directions.moved_share",
        directions.map(|found| found.moved_share),
        None,
    );
    let centroid = distribution.and_then(|d| d.centroid.as_ref());
    list.add("centroid_shift", centroid.map(|c| c.l2), None);
    let frechet = distribution.and_then(|d| d.frechet.as_ref());
    list.add("frechet", frechet.map(|f| f.frechet_distance), None);
    let shift = distribution.and_then(|d| d.cosine_shift.as_ref());
    list.add("cosine_shift.ks", shift.map(|s| s.ks), None);
    list.add("cosine_shift.w1", shift.map(|s| s.wasserstein_1), None);
    list.add("cosine_shift.psi", shift.map(|s| s.psi), None);
    list.measures
}

/// Everything that a gate of `mmd` can ask for.
pub fn mmd_measures(found: &Mmd) -> Vec<Measure> {
    let mut list = List::new("too few rows or blocks");
    add_mmd(&mut list, Some(found));
    list.measures
}

/// Everything that a gate of `overlap` can ask for.
pub fn overlap_measures(found: &Overlap) -> Vec<Measure> {
    let mut list = List::new("fewer rows than the list is long");
    add_overlap(&mut list, Some(found));
    list.measures
}

/// Everything that a gate of `cosine` can ask for.
pub fn cosine_measures(found: &CosineDistribution) -> Vec<Measure> {
    let mut list = List::new("there is no pair");
    let quantile = |name: &str| found.quantiles.get(name).copied();
    list.add("mean", found.mean, None);
    list.add("std", found.std, None);
    list.add("min", found.min, None);
    list.add("max", found.max, None);
    list.add("median", quantile("0.5"), None);
    list.add("p95", quantile("0.95"), None);
    list.add("p99", quantile("0.99"), None);
    list.measures
}

/// What gates of a series can name, on its last snapshot.
pub const SERIES_MEASURES: [&str; 6] = [
    "eps_eq",
    "p_value",
    "previous.eps_eq",
    "previous.p_value",
    "out_of_control",
    "changes",
];

/// Everything that a gate of `series` can ask for.
pub fn series_measures(found: &Series) -> Vec<Measure> {
    let mut list = List::new("the last snapshot is in another space");
    let last = found.snapshots.last();
    let steps = [
        ("", last.and_then(|s| s.baseline.as_ref())),
        ("previous.", last.and_then(|s| s.previous.as_ref())),
    ];
    for (prefix, step) in steps {
        let mmd = step.and_then(|step| step.mmd.as_ref());
        list.add(
            format!("{prefix}eps_eq"),
            mmd.and_then(|m| m.effect.eps_eq),
            mmd.and_then(|m| m.effect.ci95),
        );
        list.add(format!("{prefix}p_value"), mmd.map(|m| m.p_value), None);
    }
    list.missing = "there are no control limits".to_owned();
    let charts = [&found.baseline_chart, &found.previous_chart];
    let limits = charts.iter().any(|chart| chart.upper.is_some());
    let out = charts.iter().filter(|chart| {
        chart
            .out_of_control
            .last()
            .is_some_and(|name| last.is_some_and(|s| s.name == *name))
    });
    list.add("out_of_control", limits.then(|| out.count() as f64), None);
    list.missing = "too few snapshots to look for changes".to_owned();
    let changes = &found.changes;
    let looked = changes.p_value.is_some() || !changes.points.is_empty();
    list.add(
        "changes",
        looked.then_some(changes.points.len() as f64),
        None,
    );
    list.measures
}

fn add_mmd(list: &mut List, found: Option<&Mmd>) {
    let effect = found.map(|m| &m.effect);
    list.add(
        "eps_eq",
        effect.and_then(|e| e.eps_eq),
        effect.and_then(|e| e.ci95),
    );
    list.add("mmd2", found.map(|m| m.mmd2_unbiased), None);
    list.add("mmd.p_value", found.and_then(|m| m.p_value), None);
    list.add(
        "dispersion.p_value",
        found.and_then(|m| m.dispersion_p_value),
        None,
    );
}

fn add_overlap(list: &mut List, found: Option<&Overlap>) {
    for at in found.iter().flat_map(|o| &o.at_k) {
        list.add(format!("overlap@{}", at.k), Some(at.overlap), at.ci95);
        list.add(format!("jaccard@{}", at.k), Some(at.jaccard), None);
    }
    // What stands for the lengths that were not measured, with the reason.
    list.add("overlap@K", None, None);
    list.add("jaccard@K", None, None);
    list.add("rbo", found.map(|o| o.rbo.mean), None);
    list.add("kappa", found.and_then(|o| o.kappa), None);
    list.add("same_nearest", found.map(|o| o.top1_agreement), None);
    let faithfulness = found.and_then(|o| o.faithfulness.as_ref());
    let ranges = found.and_then(|o| o.range_searches.as_ref());
    let ranges = ranges.and_then(|r| r.table.iter().min_by_key(|row| row.results.abs_diff(10)));
    for (name, estimate) in [
        ("mutual_overlap", found.and_then(|o| o.mutual.overlap)),
        ("trustworthiness", faithfulness.map(|f| f.trustworthiness)),
        ("continuity", faithfulness.map(|f| f.continuity)),
        ("range_fall_out", ranges.and_then(|row| row.fall_out)),
    ] {
        list.add(
            name,
            estimate.map(|e| e.mean),
            estimate.and_then(|e| e.ci95),
        );
    }
}

fn add_retrieval(list: &mut List, found: Option<&Retrieval>) {
    let flips = found.map(|r| &r.flips);
    list.add(
        "negative_flips",
        flips.map(|f| f.negative_share),
        flips.map(|f| f.negative_share_ci95),
    );
    let share = found.and_then(|r| r.fall_out.share);
    list.add(
        "fall_out",
        share.map(|s| s.mean),
        share.and_then(|s| s.ci95),
    );
    for (i, metric) in METRICS.iter().enumerate() {
        let name = metric.replace("_at_", "@");
        let current = found.and_then(|r| {
            let scores: Vec<f64> = r.per_query.iter().map(|q| q.current[i]).collect();
            let queries: Vec<u32> = (0..scores.len() as u32).collect();
            Estimate::of_groups(&scores, &queries)
        });
        list.add(
            name.as_str(),
            current.map(|c| c.mean),
            current.and_then(|c| c.of_share().ci95),
        );
        let change = found.and_then(|r| r.metrics.iter().find(|m| m.metric == *metric));
        let loss = change.map(|m| &m.difference);
        list.add(
            format!("{name}.loss"),
            loss.map(|d| -d.mean),
            loss.and_then(|d| d.ci95).map(|[low, high]| [-high, -low]),
        );
    }
}
