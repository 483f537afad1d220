//! Neighbourhood overlap and retrieval through the engine.

use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::overlap::{IntervalTarget, Overlap, OverlapConfig, overlap};
use vecdrift::metrics::retrieval::{Qrel, Retrieval, RetrievalSide, retrieval};
use vecdrift::stats::paired::Resampling;
use vecdrift::stats::rng::Philox;

const RESAMPLING: Resampling = Resampling {
    sign_flips: 999,
    bootstraps: 500,
    seed: 3,
};

fn cpu() -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .unwrap()
}

/// Rows of independent standard normal values.
fn gaussian(rows: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, 0);
    (0..rows * dim).map(|_| random.normal() as f32).collect()
}

/// The same values with noise of relative size `noise`.
fn perturbed(values: &[f32], noise: f32, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, 1);
    values
        .iter()
        .map(|v| v + noise * random.normal() as f32)
        .collect()
}

/// Every row times one random orthogonal matrix (Gram–Schmidt), in f64.
fn rotated(values: &[f32], dim: usize, seed: u64) -> Vec<f32> {
    let mut random = Philox::new(seed, 2);
    let mut axes: Vec<Vec<f64>> = Vec::new();
    while axes.len() < dim {
        let mut axis: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
        for other in &axes {
            let along: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            axis.iter_mut()
                .zip(other)
                .for_each(|(a, b)| *a -= along * b);
        }
        let norm = axis.iter().map(|a| a * a).sum::<f64>().sqrt();
        axes.push(axis.iter().map(|a| a / norm).collect());
    }
    let row_times = |row: &[f32], axis: &[f64]| -> f32 {
        row.iter()
            .zip(axis)
            .map(|(&v, a)| f64::from(v) * a)
            .sum::<f64>() as f32
    };
    values
        .chunks(dim)
        .flat_map(|row| {
            axes.iter()
                .map(|axis| row_times(row, axis))
                .collect::<Vec<f32>>()
        })
        .collect()
}

fn gathered(values: &[f32], dim: usize, order: &[usize]) -> Vec<f32> {
    order
        .iter()
        .flat_map(|&row| values[row * dim..(row + 1) * dim].to_vec())
        .collect()
}

fn shuffled(rows: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    Philox::new(seed, 3).shuffle(&mut order);
    order
}

fn ids(rows: usize) -> Ids {
    (0..rows).map(|i| format!("item-{i}")).collect()
}

/// Overlap of two sets of values with ids `item-0`, `item-1`, …
fn overlap_of(a: (&[f32], usize), b: (&[f32], usize), config: &OverlapConfig) -> Overlap {
    let (a, b) = (Rows::new(a.0, a.1), Rows::new(b.0, b.1));
    overlap(&cpu(), a, b, &ids(a.len()), None, config).unwrap()
}

fn json(result: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(result).unwrap()
}

/// The golden neighbours are nearest by distance. Far from the origin, along one more axis, directions rank
/// as distances do: 1 − cos((x, c), (y, c)) = ‖x − y‖²/(2c²)·(1 + O(1/c²)).
#[test]
fn golden_neighbourhoods() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/golden/knn_structure.json"
    );
    let golden: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let values = |key: &str| -> Vec<f32> {
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden[key].clone()).unwrap();
        let lifted = rows
            .iter()
            .flat_map(|row| row.iter().copied().chain([256.0]));
        lifted.collect()
    };
    let config = OverlapConfig {
        ks: vec![1, 3],
        headline_k: 3,
        ..OverlapConfig::default()
    };
    let found = overlap_of((&values("X"), 5), (&values("Y"), 3), &config);
    let items = &found.per_item;
    let expected: Vec<f64> = serde_json::from_value(golden["overlap_per_item"].clone()).unwrap();
    assert_eq!(items.overlap, expected);
    assert_eq!(found.overlap.mean, golden["overlap_mean"].as_f64().unwrap());
    assert_eq!(
        json(&items.k_occurrence_reference),
        golden["k_occurrence_X"]
    );
    assert_eq!(json(&items.k_occurrence_current), golden["k_occurrence_Y"]);
    let close = |found: f64, key: &str| (found - golden[key].as_f64().unwrap()).abs() < 1e-12;
    assert!(close(found.chance, "null_k_over_Nminus1"));
    assert!(close(found.chance_hub_aware, "null_hub_aware"));
    assert!(close(
        found.hubness.reference.skewness.unwrap(),
        "hub_skew_X"
    ));
    assert_eq!(found.overlap.histogram, [1, 4, 4, 1]);
    // Item 0: old neighbours 9, 5, 8; new ones 7, 9, 1.
    let rows = |changes: &[vecdrift::metrics::overlap::NeighborChange]| -> Vec<u32> {
        changes.iter().map(|change| change.row).collect()
    };
    assert_eq!(rows(items.lost.of(0)), [5, 8]);
    assert_eq!(rows(items.gained.of(0)), [7, 1]);
}

/// Displacement by hand: four unit vectors on a circle; item 0 swaps neighbour 1 for neighbour 2.
#[test]
fn displacement_by_hand() {
    let circle = |degrees: [f64; 4]| -> Vec<f32> {
        let point = |d: f64| [d.to_radians().cos() as f32, d.to_radians().sin() as f32];
        degrees.iter().flat_map(|&d| point(d)).collect()
    };
    let (before, after) = (
        circle([0.0, 10.0, 30.0, 100.0]),
        circle([0.0, 60.0, 20.0, 100.0]),
    );
    let config = OverlapConfig {
        headline_k: 1,
        ..OverlapConfig::default()
    };
    let found = overlap_of((&before, 2), (&after, 2), &config);
    let items = &found.per_item;
    let cos = |degrees: f64| degrees.to_radians().cos();
    // Nearest scores after: cos 20° (0 and 2), cos 40° (1 to 2 and to 3, row 2 first by rounding or tie).
    let nearest = [cos(20.0), cos(40.0), cos(20.0), cos(40.0)];
    let spread = nearest[0] - nearest[1];
    let shortfall = cos(20.0) - cos(60.0);
    // f32 coordinates: relative error 1e-7 of cosines near 1, divided by a spread of 0.17.
    assert!((items.displacement[0].unwrap() - shortfall / spread).abs() < 1e-5);
    let change = items.lost.of(0)[0];
    assert_eq!(change.row, 1);
    assert!((change.similarity_before - cos(10.0)).abs() < 1e-6);
    assert!((change.similarity_after - cos(60.0)).abs() < 1e-6);
    let change = items.gained.of(0)[0];
    assert_eq!(change.row, 2);
    assert!((change.similarity_before - cos(30.0)).abs() < 1e-6);
    assert!((change.similarity_after - cos(20.0)).abs() < 1e-6);
    // Shortfalls: cos 40° − cos 80°, cos 20° − cos 60°, cos 40° − cos 60°, cos 20° − cos 40°.
    let order: Vec<&str> = found
        .most_moved
        .iter()
        .map(|item| item.id.as_str())
        .collect();
    assert_eq!(order, ["item-3", "item-0", "item-1", "item-2"]);
    assert_eq!(found.most_moved[1].lost[0].id, "item-1");
}

#[test]
fn rotation_and_scale_change_nothing() {
    let (rows, dim) = (300, 24);
    let a = gaussian(rows, dim, 1);
    let b = perturbed(&a, 0.5, 2);
    let config = OverlapConfig::default();
    let plain = overlap_of((&a, dim), (&b, dim), &config);
    let turned = overlap_of(
        (&rotated(&a, dim, 3), dim),
        (
            &rotated(&b, dim, 4)
                .iter()
                .map(|v| 3.0 * v)
                .collect::<Vec<_>>(),
            dim,
        ),
        &config,
    );
    // Rounding rotated rows to f32 moves cosines by about 1e-7 and may swap a pair that near.
    assert!((plain.overlap.mean - turned.overlap.mean).abs() <= 2.0 / (rows * 10) as f64);
    assert!((plain.rbo.mean - turned.rbo.mean).abs() < 1e-4);
    let itself = overlap_of((&a, dim), (&rotated(&a, dim, 3), dim), &config);
    assert!(itself.overlap.mean > 0.999 && itself.kappa.unwrap() > 0.999);
    assert!(plain.overlap.mean < 0.9);
    // Negative control: rows paired with the wrong ids.
    let wrong = gathered(&a, dim, &shuffled(rows, 5));
    assert!(overlap_of((&a, dim), (&wrong, dim), &config).overlap.mean < 0.1);
}

#[test]
fn row_order_changes_nothing() {
    let (rows, dim) = (250, 16);
    let (a, b) = (gaussian(rows, dim, 6), gaussian(rows, 12, 7));
    let order = shuffled(rows, 8);
    for queries in [None, Some(60)] {
        let config = OverlapConfig {
            queries,
            ..OverlapConfig::default()
        };
        let plain = overlap_of((&a, dim), (&b, 12), &config);
        let (c, d) = (gathered(&a, dim, &order), gathered(&b, 12, &order));
        let moved_ids: Ids = order.iter().map(|i| format!("item-{i}")).collect();
        let (c, d) = (Rows::new(&c, dim), Rows::new(&d, 12));
        let moved = overlap(&cpu(), c, d, &moved_ids, None, &config).unwrap();
        assert_eq!(json(&plain), json(&moved));
        assert_eq!(plain.items, queries.unwrap_or(rows));
        for (item, id) in moved.per_item.ids.iter().enumerate() {
            let same = plain
                .per_item
                .ids
                .iter()
                .position(|other| other == id)
                .unwrap();
            assert_eq!(moved.per_item.rbo[item], plain.per_item.rbo[same]);
            assert_eq!(
                moved.per_item.displacement[item],
                plain.per_item.displacement[same]
            );
        }
    }
}

#[test]
fn threads_change_nothing() {
    let (a, b) = (gaussian(200, 8, 9), gaussian(200, 8, 10));
    let run = || json(&overlap_of((&a, 8), (&b, 8), &OverlapConfig::default()));
    let one = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap()
        .install(run);
    assert_eq!(one, run());
}

#[test]
fn swapping_sides_mirrors_the_changes() {
    let a = gaussian(200, 16, 11);
    let b = perturbed(&a, 0.7, 12);
    let config = OverlapConfig::default();
    let (forth, back) = (
        overlap_of((&a, 16), (&b, 16), &config),
        overlap_of((&b, 16), (&a, 16), &config),
    );
    assert_eq!(forth.overlap, back.overlap);
    assert_eq!((&forth.jaccard, &forth.rbo), (&back.jaccard, &back.rbo));
    assert_eq!(forth.hubness.reference, back.hubness.current);
    let mut changes = 0;
    for item in 0..200 {
        let (lost, gained) = (forth.per_item.lost.of(item), back.per_item.gained.of(item));
        changes += lost.len();
        assert_eq!(lost.len(), gained.len());
        for (lost, gained) in lost.iter().zip(gained) {
            assert_eq!(
                (lost.row, lost.similarity_before, lost.similarity_after),
                (
                    gained.row,
                    gained.similarity_after,
                    gained.similarity_before
                )
            );
        }
    }
    assert!(changes > 0);
}

#[test]
fn independent_spaces_overlap_by_chance() {
    let (rows, mut z_sum) = (500, 0.0);
    for seed in 0..6 {
        let (a, b) = (
            gaussian(rows, 16, 100 + seed),
            gaussian(rows, 8, 200 + seed),
        );
        let found = overlap_of((&a, 16), (&b, 8), &OverlapConfig::default());
        let [low, high] = found.overlap.ci95.unwrap();
        let z = (found.overlap.mean - found.chance_hub_aware) / ((high - low) / 3.92);
        assert!(z.abs() < 4.0, "{z}");
        assert!(found.kappa.unwrap().abs() < 0.02);
        assert!((found.chance - 10.0 / 499.0).abs() < 1e-15);
        z_sum += z;
    }
    // The sum of six standard normal values.
    assert!(z_sum.abs() < 3.0 * 6f64.sqrt(), "{z_sum}");
}

/// 95 % intervals of a sample of half of the rows cover the mean over all rows; without the finite-population
/// correction they would be √2 too wide and cover 99.4 %.
#[test]
fn sampled_queries_estimate_the_full_base() {
    let (rows, runs) = (300, 150);
    let a = gaussian(rows, 8, 13);
    let b = perturbed(&a, 0.6, 14);
    let sampled = |queries, seed| {
        let config = OverlapConfig {
            ks: vec![],
            queries,
            seed,
            ..OverlapConfig::default()
        };
        overlap_of((&a, 8), (&b, 8), &config)
    };
    let full = sampled(None, 0);
    assert!(full.exact && full.overlap.ci95_target == IntervalTarget::SimilarCorpora);
    let (mut covered, mut sum) = (0, 0.0);
    for seed in 0..runs {
        let found = sampled(Some(150), seed);
        assert!(!found.exact && found.base == rows && found.items == 150);
        assert_eq!(found.overlap.ci95_target, IntervalTarget::ThisCorpus);
        let [low, high] = found.overlap.ci95.unwrap();
        covered += u32::from((low..=high).contains(&full.overlap.mean));
        sum += found.overlap.mean;
    }
    // 99.9 % of binomial draws with 150 runs at 0.95 lie within 132..=150; too wide intervals give 149.
    assert!((132..=149).contains(&covered), "{covered} of {runs}");
    // Sampling queries is unbiased; sampling the base would raise overlap by tens of percent.
    assert!((sum / runs as f64 - full.overlap.mean).abs() < 0.005);
}

#[test]
fn no_row_is_its_own_neighbour_among_duplicates() {
    let (distinct, dim) = (60, 8);
    let triple = |values: Vec<f32>| {
        gathered(
            &values,
            dim,
            &(0..3 * distinct).map(|i| i / 3).collect::<Vec<_>>(),
        )
    };
    let (a, b) = (
        triple(gaussian(distinct, dim, 15)),
        triple(gaussian(distinct, dim, 16)),
    );
    let config = OverlapConfig {
        ks: vec![1, 2, 3],
        headline_k: 2,
        ..OverlapConfig::default()
    };
    let found = overlap_of((&a, dim), (&b, dim), &config);
    // Each row's two nearest are its own copies, in any space, and never itself.
    assert_eq!((found.overlap.mean, found.top1_agreement), (1.0, 1.0));
    assert!(
        found
            .per_item
            .k_occurrence_reference
            .iter()
            .all(|&count| count == 2)
    );
    assert_eq!(found.hubness.reference.skewness, None);
    assert_eq!(
        (found.duplicate_rows.reference, found.duplicate_rows.current),
        (120, 120)
    );
    // Both copies are equally near, then three copies of another row are.
    let ties: Vec<u64> = found.at_k.iter().map(|point| point.boundary_ties).collect();
    assert_eq!(ties, [180, 0, 180]);
    // Ties on one side are enough, whichever it is.
    let distinct_rows = gaussian(3 * distinct, dim, 22);
    let nearest_only = OverlapConfig {
        ks: vec![],
        headline_k: 1,
        ..config.clone()
    };
    let tied = |x: &[f32], y: &[f32]| overlap_of((x, dim), (y, dim), &nearest_only).boundary_ties;
    assert_eq!(
        (tied(&a, &distinct_rows), tied(&distinct_rows, &a)),
        (180, 180)
    );
    assert_eq!(tied(&distinct_rows, &distinct_rows), 0);
    let self_named = |item: &vecdrift::metrics::overlap::MovedItem| {
        item.lost
            .iter()
            .chain(&item.gained)
            .any(|n| n.id == item.id)
    };
    let wider = OverlapConfig {
        headline_k: 10,
        ..config
    };
    let found = overlap_of((&a, dim), (&b, dim), &wider);
    assert!(!found.most_moved.is_empty() && !found.most_moved.iter().any(self_named));
}

#[test]
fn few_rows_cut_the_lists() {
    for rows in [2, 3, 11] {
        let (a, b) = (gaussian(rows, 4, 17), gaussian(rows, 3, 18));
        let found = overlap_of((&a, 4), (&b, 3), &OverlapConfig::default());
        // Every list holds every other row: all is kept and nothing is learnt.
        assert_eq!(
            (found.k, found.overlap.mean, found.jaccard.mean),
            (10.min(rows - 1), 1.0, 1.0)
        );
        assert_eq!(
            (found.chance, found.kappa, found.boundary_ties),
            (1.0, None, 0)
        );
        assert_eq!(found.at_k.last().unwrap().k, rows - 1);
        assert!(found.most_moved.is_empty());
        assert!(
            found
                .per_item
                .displacement
                .iter()
                .flatten()
                .all(|&d| d == 0.0)
        );
    }
    let one = OverlapConfig {
        queries: Some(1),
        ..OverlapConfig::default()
    };
    let (a, b) = (gaussian(40, 4, 19), gaussian(40, 4, 20));
    let found = overlap_of((&a, 4), (&b, 4), &one);
    assert_eq!((found.items, found.base, found.overlap.ci95), (1, 40, None));
    assert_eq!(found.hubness.reference.anti_hub_share, None);
}

#[test]
fn impossible_requests_are_refused() {
    let message = |rows: usize, config: OverlapConfig| {
        let values = gaussian(rows, 4, 21);
        let rows = Rows::new(&values, 4);
        let refused = overlap(&cpu(), rows, rows, &ids(rows.len()), None, &config).unwrap_err();
        assert!(refused.is_input());
        refused.to_string()
    };
    let config = OverlapConfig::default;
    assert_eq!(
        message(1, config()),
        "overlap: 1 shared rows, expected at least 2"
    );
    let zero_k = OverlapConfig {
        headline_k: 0,
        ..config()
    };
    assert_eq!(message(5, zero_k), "overlap: k is 0, expected at least 1");
    let no_query = OverlapConfig {
        queries: Some(0),
        ..config()
    };
    assert_eq!(
        message(5, no_query),
        "overlap: 0 queries, expected at least 1"
    );
    let flat = OverlapConfig {
        rbo_p: 1.0,
        ..config()
    };
    assert_eq!(
        message(5, flat),
        "overlap: rbo p is 1, expected a number between 0 and 1"
    );
}

#[test]
fn per_item_rows_stay_out_of_the_json() {
    let schema = json(&schemars::schema_for!(Overlap));
    assert!(schema["properties"]["boundary_ties"].is_object());
    assert!(schema["properties"]["per_item"].is_null());
}

/// Documents, queries near them, and the judgements that say so.
struct Golden {
    queries: Vec<f32>,
    query_ids: Ids,
    corpus: Vec<f32>,
    corpus_ids: Ids,
}

const DIM: usize = 16;

impl Golden {
    /// 50 queries, query i a copy of document 3i with `noise`, among 200 documents.
    fn new(noise: f32) -> Self {
        let corpus = gaussian(200, DIM, 30);
        let order: Vec<usize> = (0..50).map(|i| 3 * i).collect();
        Self {
            queries: perturbed(&gathered(&corpus, DIM, &order), noise, 31),
            query_ids: (0..50).map(|i| format!("q{i}")).collect(),
            corpus,
            corpus_ids: (0..200).map(|i| format!("d{i}")).collect(),
        }
    }

    fn reordered(&self, seed: u64) -> Self {
        let (queries, corpus) = (shuffled(50, seed), shuffled(200, seed));
        Self {
            queries: gathered(&self.queries, DIM, &queries),
            query_ids: queries.iter().map(|&i| self.query_ids.get(i)).collect(),
            corpus: gathered(&self.corpus, DIM, &corpus),
            corpus_ids: corpus.iter().map(|&i| self.corpus_ids.get(i)).collect(),
        }
    }

    /// Only the first so many queries and documents.
    fn cut(&self, queries: usize, documents: usize) -> Self {
        Self {
            queries: self.queries[..queries * DIM].to_vec(),
            query_ids: self.query_ids.iter().take(queries).collect(),
            corpus: self.corpus[..documents * DIM].to_vec(),
            corpus_ids: self.corpus_ids.iter().take(documents).collect(),
        }
    }

    fn side(&self) -> RetrievalSide<'_> {
        RetrievalSide {
            queries: Rows::new(&self.queries, DIM),
            query_ids: &self.query_ids,
            corpus: Rows::new(&self.corpus, DIM),
            corpus_ids: &self.corpus_ids,
        }
    }
}

fn qrel(query: &str, document: &str, relevance: f64) -> Qrel {
    Qrel {
        query: query.to_owned(),
        document: document.to_owned(),
        relevance,
    }
}

fn judgements() -> Vec<Qrel> {
    (0..50)
        .map(|i| qrel(&format!("q{i}"), &format!("d{}", 3 * i), 1.0))
        .collect()
}

fn compare(a: &Golden, b: &Golden, qrels: &[Qrel]) -> Retrieval {
    retrieval(&cpu(), &a.side(), &b.side(), qrels, &RESAMPLING).unwrap()
}

#[test]
fn retrieval_finds_what_got_worse() {
    let (good, bad) = (Golden::new(0.2), Golden::new(2.0));
    let same = compare(&good, &good, &judgements());
    for metric in &same.metrics {
        let difference = &metric.difference;
        assert_eq!(
            (difference.mean, difference.p_value, difference.ties),
            (0.0, 1.0, 50)
        );
        assert_eq!(difference.ci95, Some([0.0, 0.0]));
        assert_eq!(metric.reference, 1.0, "{}", metric.metric);
    }
    assert!(same.worst_queries.is_empty());
    // One of ten retrieved documents is judged.
    assert_eq!(same.unjudged_at_10.reference, 0.9);
    assert!(same.judgement_biased);
    assert!(same.metrics.iter().all(|m| m.no_loss == Some(true)));
    assert_eq!((same.flips.negative, same.flips.positive), (0, 0));
    assert_eq!((same.fall_out.found_reference, same.fall_out.lost), (50, 0));
    let worse = compare(&good, &bad, &judgements());
    let ndcg = &worse.metrics[0];
    assert!(ndcg.difference.mean < -0.2 && ndcg.p_value_holm < 0.05);
    assert!(ndcg.difference.ci95.unwrap()[1] < 0.0);
    assert_eq!(ndcg.no_loss, Some(false));
    assert_eq!(worse.worst_queries.len(), 20);
    // Each query has one relevant document: losing it is losing all.
    let (flips, fall_out) = (&worse.flips, &worse.fall_out);
    assert!(flips.negative > 5 && flips.positive == 0 && flips.p_value < 0.05);
    assert_eq!(
        (fall_out.lost, fall_out.lost_by_absence),
        (flips.negative, 0)
    );
    assert!(fall_out.share.unwrap().ci95.unwrap()[0] > 0.0);
    for query in worse.worst_queries.iter().filter(|q| q.current == 0.0) {
        let [lost] = &query.lost_documents[..] else {
            panic!("one document is lost: {query:?}");
        };
        let number: usize = query.id[1..].parse().unwrap();
        assert_eq!(
            (lost.id.as_str(), lost.rank_reference),
            (&*format!("d{}", 3 * number), 1)
        );
        assert!(lost.rank_current.is_none_or(|rank| rank > 10) && !lost.missing);
    }
    assert!(
        worse
            .worst_queries
            .is_sorted_by(|a, b| a.difference <= b.difference)
    );
    let better = compare(&bad, &good, &judgements());
    assert_eq!(better.metrics[0].difference.mean, -ndcg.difference.mean);
    assert_eq!(better.metrics[0].difference.wins, ndcg.difference.losses);
    assert!(
        better
            .worst_queries
            .iter()
            .all(|query| query.difference < 0.0)
    );
}

#[test]
fn retrieval_does_not_depend_on_any_order() {
    let (a, b) = (Golden::new(0.8), Golden::new(1.2));
    let plain = compare(&a, &b, &judgements());
    let mut reversed = judgements();
    reversed.reverse();
    let moved = compare(&a.reordered(1), &b.reordered(2), &reversed);
    assert_eq!(json(&plain), json(&moved));
    assert_eq!(plain.per_query, moved.per_query);
}

#[test]
fn what_is_missing_is_counted_and_named() {
    let all = Golden::new(0.2);
    let mut qrels = judgements();
    qrels.push(qrel("nobody", "d0", 1.0));
    qrels.push(qrel("pointless", "d0", 0.0));
    qrels.push(qrel("q0", "d1", -1.0));
    // Without the last 10 queries; without documents d120 and up, relevant to queries 40 to 49 alone.
    let found = compare(&all, &all.cut(40, 120), &qrels);
    assert_eq!((found.queries, found.queries_without_relevant), (40, 1));
    assert_eq!(found.missing_queries.reference.first_ids, ["nobody"]);
    assert_eq!(found.missing_queries.current.count, 11);
    assert_eq!(found.missing_queries.current.first_ids.len(), 10);
    assert_eq!(found.missing_documents.current.count, 0);
    // Documents d60 and up are gone: what 20 queries look for is not retrieved.
    let found = compare(&all, &all.cut(50, 60), &qrels);
    assert_eq!(
        (found.queries, found.missing_documents.current.count),
        (50, 30)
    );
    assert_eq!(found.missing_documents.current.first_ids[0], "d102");
    assert_eq!(found.missing_documents.reference.count, 0);
    let hit = found
        .metrics
        .iter()
        .find(|m| m.metric == "hit_rate_at_10")
        .unwrap();
    assert_eq!((hit.reference, hit.current), (1.0, 0.4));
    assert_eq!(
        (found.fall_out.lost_by_absence, found.fall_out.lost_by_rank),
        (30, 0)
    );
    assert!(found.worst_queries[0].lost_documents[0].missing);
}

#[test]
fn retrieval_refuses_what_cannot_be_compared() {
    let golden = Golden::new(0.2);
    let side = golden.side();
    let narrow = RetrievalSide {
        queries: Rows::new(&golden.queries[..50 * 8], 8),
        ..side
    };
    let refused = retrieval(&cpu(), &side, &narrow, &judgements(), &RESAMPLING).unwrap_err();
    assert!(refused.is_input());
    assert_eq!(
        refused.to_string(),
        "current: queries have dimension 8, expected the corpus's 16"
    );
    let strange = [qrel("x", "d0", 1.0), qrel("q0", "d0", 0.0)];
    let refused = retrieval(&cpu(), &side, &side, &strange, &RESAMPLING).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "retrieval: none of the 2 judged queries has a relevant document and is on both sides, expected at least one"
    );
}
