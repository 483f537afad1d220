//! Groups of rows in neighbour lists, and what lists say of a space: against brute force.

use serde_json::Value;
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Metric, score};
use vecdrift::metrics::overlap::{IntervalTarget, Overlap, OverlapConfig, overlap};
use vecdrift::stats::rng::Philox;

fn open(device: DeviceChoice, memory: u64) -> Engine {
    Engine::new(&EngineConfig {
        device,
        memory,
        ..EngineConfig::default()
    })
    .unwrap()
}

fn cpu() -> Engine {
    open(DeviceChoice::Cpu, 512 << 20)
}

/// The CPU in one block and in blocks of 64 rows, and the GPU where one is required.
fn engines() -> Vec<Engine> {
    let mut engines = vec![cpu(), open(DeviceChoice::Cpu, 0)];
    if std::env::var_os("VECDRIFT_REQUIRE_GPU").is_some_and(|v| v == "1") {
        engines.push(open(DeviceChoice::Gpu, 512 << 20));
    } else {
        println!("SKIPPED: no GPU ran; set VECDRIFT_REQUIRE_GPU=1 to require one");
    }
    engines
}

/// Chunks of documents: `per_document` rows around each of some centres.
struct Chunks {
    dim: usize,
    before: Vec<f32>,
    after: Vec<f32>,
    labels: Vec<String>,
}

impl Chunks {
    fn new(sizes: &[usize], dim: usize, seed: u64) -> Self {
        let mut random = Philox::new(seed, 0);
        let mut chunks = Self {
            dim,
            before: Vec::new(),
            after: Vec::new(),
            labels: Vec::new(),
        };
        for (document, &size) in sizes.iter().enumerate() {
            let centre: Vec<f64> = (0..dim).map(|_| random.normal()).collect();
            // What a document moves by, all of its chunks alike.
            let moves: Vec<f64> = (0..dim).map(|_| 0.4 * random.normal()).collect();
            for _ in 0..size {
                for (c, m) in centre.iter().zip(&moves) {
                    let value = c + 0.3 * random.normal();
                    chunks.before.push(value as f32);
                    chunks
                        .after
                        .push((value + m + 0.05 * random.normal()) as f32);
                }
                chunks.labels.push(format!("document-{document}"));
            }
        }
        chunks
    }

    fn rows(&self) -> [Rows<'_>; 2] {
        [&self.before, &self.after].map(|values| Rows::new(values, self.dim))
    }

    fn ids(&self) -> Ids {
        (0..self.labels.len())
            .map(|i| format!("item-{i}"))
            .collect()
    }

    fn overlap(
        &self,
        engine: &Engine,
        labels: Option<&[String]>,
        config: &OverlapConfig,
    ) -> Overlap {
        let [before, after] = self.rows();
        overlap(engine, before, after, &self.ids(), labels, config).unwrap()
    }

    /// The rows of other documents, nearest first, by products in f64.
    fn ranked(&self, side: usize, item: usize) -> Vec<usize> {
        let rows = self.rows()[side];
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum()
        };
        let x = rows.row(item);
        let mut others: Vec<(f64, usize)> = (0..rows.len())
            .filter(|&other| self.labels[other] != self.labels[item])
            .map(|other| {
                let y = rows.row(other);
                (dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt(), other)
            })
            .collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        others.into_iter().map(|other| other.1).collect()
    }
}

/// Lists without rows of one's own group are those of an exhaustive search, whatever the groups' sizes, also
/// where one of them holds more rows than the others together.
#[test]
fn grouped_lists_are_those_of_brute_force() {
    let large: Vec<usize> = [420].into_iter().chain(vec![5; 60]).collect();
    for sizes in [vec![6; 120], large] {
        let chunks = Chunks::new(&sizes, 24, 1);
        for queries in [None, Some(90)] {
            let config = OverlapConfig {
                ks: vec![3, 10],
                queries,
                ..OverlapConfig::default()
            };
            for engine in engines() {
                let found = chunks.overlap(&engine, Some(&chunks.labels), &config);
                let items = &found.per_item;
                assert_eq!(items.rows.len(), queries.unwrap_or(chunks.labels.len()));
                for (i, &row) in items.rows.iter().enumerate() {
                    let [before, after] =
                        [0, 1].map(|side| chunks.ranked(side, row as usize)[..10].to_vec());
                    let lost: Vec<usize> =
                        items.lost.of(i).iter().map(|c| c.row as usize).collect();
                    let expected: Vec<usize> = before
                        .iter()
                        .copied()
                        .filter(|r| !after.contains(r))
                        .collect();
                    assert_eq!(lost, expected, "item {row}");
                    assert_eq!(items.overlap[i], (10 - expected.len()) as f64 / 10.0);
                }
                let groups = found.groups.as_ref().unwrap();
                assert_eq!((groups.groups, groups.largest), (sizes.len(), sizes[0]));
            }
        }
    }
}

/// Chunks of one document are each other's nearest rows before and after, so that lists which hold them say
/// that nothing moved; those of other documents say that it did.
#[test]
fn chunks_of_a_document_hide_what_moved() {
    let chunks = Chunks::new(&[11; 60], 32, 2);
    let config = OverlapConfig::default();
    let plain = chunks.overlap(&cpu(), None, &config);
    let grouped = chunks.overlap(&cpu(), Some(&chunks.labels), &config);
    assert!(plain.overlap.mean > 0.95, "{}", plain.overlap.mean);
    assert!(grouped.overlap.mean < 0.7, "{}", grouped.overlap.mean);
    assert_eq!(plain.groups, None);
    // Each item meets 649 rows rather than 659.
    assert!((grouped.chance - 10.0 / 649.0).abs() < 1e-12);
    // Documents move as one: the interval of means over documents is the wider one.
    let width = |found: &Overlap| found.overlap.ci95.map(|[low, high]| high - low).unwrap();
    let rows_as_groups: Vec<String> = (0..660).map(|i| i.to_string()).collect();
    let alone = chunks.overlap(&cpu(), Some(&rows_as_groups), &config);
    assert_eq!(alone.overlap.mean, plain.overlap.mean);
    assert!((width(&alone) - width(&plain)).abs() < 1e-12);
    let values: Vec<f64> = grouped.per_item.overlap.clone();
    let mean = values.iter().sum::<f64>() / 660.0;
    let spread = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 659.0;
    let plain_width = 2.0 * 1.96 * (spread / 660.0).sqrt();
    assert!(width(&grouped) > 1.5 * plain_width);
    assert_eq!(grouped.overlap.ci95_target, IntervalTarget::SimilarCorpora);
}

#[test]
fn groups_do_not_depend_on_row_order() {
    let chunks = Chunks::new(&[7; 40], 16, 3);
    let mut order: Vec<usize> = (0..280).collect();
    Philox::new(5, 1).shuffle(&mut order);
    let gathered = |values: &[f32]| -> Vec<f32> {
        let row = |&i: &usize| values[i * 16..(i + 1) * 16].to_vec();
        order.iter().flat_map(row).collect()
    };
    let ids: Ids = order.iter().map(|i| format!("item-{i}")).collect();
    let labels: Vec<String> = order.iter().map(|&i| chunks.labels[i].clone()).collect();
    for queries in [None, Some(100)] {
        let config = OverlapConfig {
            queries,
            ..OverlapConfig::default()
        };
        let plain = chunks.overlap(&cpu(), Some(&chunks.labels), &config);
        let (a, b) = (gathered(&chunks.before), gathered(&chunks.after));
        let (a, b) = (Rows::new(&a, 16), Rows::new(&b, 16));
        let moved = overlap(&cpu(), a, b, &ids, Some(&labels), &config).unwrap();
        let json = |found: &Overlap| serde_json::to_value(found).unwrap();
        assert_eq!(json(&plain), json(&moved));
    }
}

#[test]
fn few_rows_of_other_groups_cut_the_lists() {
    let chunks = Chunks::new(&[30, 4], 8, 4);
    let config = OverlapConfig::default();
    let found = chunks.overlap(&cpu(), Some(&chunks.labels), &config);
    assert_eq!((found.k, found.at_k.last().unwrap().k), (4, 4));
    let [a, b] = chunks.rows();
    let one = vec!["same".to_owned(); 34];
    let refused = overlap(&cpu(), a, b, &chunks.ids(), Some(&one), &config).unwrap_err();
    assert!(refused.is_input());
    assert_eq!(
        refused.to_string(),
        "overlap: all 34 shared rows are of one group, expected at least 2 groups"
    );
}

/// Rows in a plane among many coordinates have a local dimension of 2, and a current set that fills eight
/// coordinates one of 7 (directions only); dot products have none.
#[test]
fn local_dimension_is_that_of_the_data() {
    let (rows, dim) = (3000, 8);
    let mut random = Philox::new(6, 0);
    // Close to one axis, directions are the other coordinates.
    let flat: Vec<f32> = (0..rows)
        .flat_map(|_| {
            let mut row = [0.0f32; 8];
            row[0] = 4.0;
            row[1] = random.uniform() as f32;
            row[2] = random.uniform() as f32;
            row
        })
        .collect();
    let full: Vec<f32> = (0..rows * dim).map(|_| random.normal() as f32).collect();
    let ids: Ids = (0..rows).map(|i| i.to_string()).collect();
    let run = |metric| {
        let config = OverlapConfig {
            metric,
            ..OverlapConfig::default()
        };
        let (a, b) = (Rows::new(&flat, dim), Rows::new(&full, dim));
        overlap(&cpu(), a, b, &ids, None, &config).unwrap()
    };
    let found = run(Metric::Cosine).intrinsic_dimension.unwrap();
    let [flat, full] = [&found.reference, &found.current].map(|d| d.harmonic_mean.unwrap());
    // Few rows at the border of the square, and few rows in seven dimensions, take a little away.
    assert!((1.85..2.05).contains(&flat), "{flat}");
    assert!((5.5..7.1).contains(&full), "{full}");
    assert_eq!(found.reference.items, rows);
    assert_eq!(run(Metric::Dot).intrinsic_dimension, None);
}

#[test]
fn most_moved_items_say_what_is_known_of_them() {
    let chunks = Chunks::new(&[5; 50], 16, 7);
    let found = chunks.overlap(&cpu(), None, &OverlapConfig::default());
    assert!(!found.most_moved.is_empty());
    let [before, after] = chunks.rows();
    for item in &found.most_moved {
        let row: usize = item.id["item-".len()..].parse().unwrap();
        let at = found
            .per_item
            .rows
            .iter()
            .position(|&r| r as usize == row)
            .unwrap();
        assert_eq!(
            (item.k_occurrence_reference, item.k_occurrence_current),
            (
                found.per_item.k_occurrence_reference[at],
                found.per_item.k_occurrence_current[at]
            )
        );
        let (x, y) = (before.row(row), after.row(row));
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum()
        };
        let cosine = dot(&x, &y) / (dot(&x, &x) * dot(&y, &y)).sqrt();
        assert!((item.paired_cosine.unwrap() - cosine).abs() < 1e-12);
    }
}

fn vecdrift(args: &[&str]) -> (Option<i32>, String, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .args(args)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn fixture(name: &str) -> String {
    format!("{}/fixtures/{name}.parquet", env!("CARGO_MANIFEST_DIR"))
}

/// The topics of the fixture stand in for documents.
#[test]
fn overlap_and_audit_keep_groups_apart() {
    let (old, new) = (fixture("reference"), fixture("current"));
    let results = |command: &str, more: &[&str]| -> Value {
        let mut args = vec![command, &old, &new, "--device", "cpu", "--format", "json"];
        args.extend_from_slice(more);
        let (code, out, error) = vecdrift(&args);
        assert_eq!(code, Some(0), "{error}");
        serde_json::from_str::<Value>(&out).unwrap()["results"].clone()
    };
    let plain = results("overlap", &[]);
    let grouped = results("overlap", &["--group", "section"]);
    assert_eq!(plain["groups"], Value::Null);
    assert_eq!(grouped["groups"]["groups"], 12);
    assert_ne!(plain["overlap"]["mean"], grouped["overlap"]["mean"]);
    let audited = results("audit", &["--group", "section"]);
    let of_audit = &audited["neighbourhoods"];
    assert_eq!(of_audit["overlap"], grouped["overlap"]);
    assert_eq!(of_audit["mutual"], grouped["mutual"]);
    let (code, _, error) = vecdrift(&["overlap", &old, &new, "--group", "document_id"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("no column \"document_id\""), "{error}");
}

/// Trustworthiness and continuity by their definition: every rank counted in f64.
struct BruteForce<'a> {
    sides: [Rows<'a>; 2],
    labels: Option<&'a [String]>,
    metric: Metric,
    k: usize,
}

impl BruteForce<'_> {
    /// The rows that may be in a list, nearest first.
    fn ranked(&self, side: usize, item: usize) -> Vec<usize> {
        let rows = self.sides[side];
        let x = rows.row(item);
        let apart = |other: usize| match self.labels {
            Some(labels) => labels[other] == labels[item],
            None => other == item,
        };
        let (x_norm, mut others) = (score::norm(&x), Vec::new());
        for other in (0..rows.len()).filter(|&other| !apart(other)) {
            let y = rows.row(other);
            let similarity = score::similarity(self.metric, &x, x_norm, &y, score::norm(&y));
            others.push((similarity, other));
        }
        others.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        others.into_iter().map(|other| other.1).collect()
    }

    /// 1 − the penalty of an item for its k nearest rows on side `of`, ranked on the other side.
    fn value(&self, of: usize, item: usize) -> f64 {
        let k = self.k;
        let (near, ranked) = (self.ranked(of, item), self.ranked(1 - of, item));
        let beyond: usize = near[..k]
            .iter()
            .map(|row| ranked.iter().position(|r| r == row).unwrap() + 1)
            .map(|rank| rank.saturating_sub(k))
            .sum();
        let n = ranked.len() + 1;
        1.0 - 2.0 * beyond as f64 / (k * (2 * n - 3 * k - 1)) as f64
    }

    fn check(&self, found: &Overlap, ids: &Ids, config: &OverlapConfig) {
        let far = found.faithfulness.as_ref().unwrap();
        let mut items: Vec<usize> = (0..ids.len()).collect();
        items.sort_by_key(|&row| (ids.hash(row, config.seed), ids.get(row)));
        items.truncate(config.ranked_items);
        assert_eq!(far.items, items.len());
        assert_eq!(far.exact, items.len() == ids.len());
        for (of, estimate) in [(1, far.trustworthiness), (0, far.continuity)] {
            let sum: f64 = items.iter().map(|&item| self.value(of, item)).sum();
            let expected = sum / items.len() as f64;
            // Sums of at most some hundred terms in [0, 1], in another order.
            assert!(
                (estimate.mean - expected).abs() < 1e-12,
                "{} {expected}",
                estimate.mean
            );
            let [low, high] = estimate.ci95.unwrap();
            assert!(low <= estimate.mean && estimate.mean <= high);
        }
    }
}

#[test]
fn golden_trustworthiness() {
    let read = |name: &str| -> Value {
        let path = format!("{}/fixtures/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    };
    let golden = read("trustworthiness");
    let values = |key: &str| -> Vec<f32> {
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden[key].clone()).unwrap();
        rows.concat()
    };
    let (x, y) = (values("X"), values("Y"));
    let ids: Ids = (0..120).map(|i| i.to_string()).collect();
    for engine in engines() {
        for (k, expected) in golden["trustworthiness"].as_object().unwrap() {
            let config = OverlapConfig {
                headline_k: k.parse().unwrap(),
                ..OverlapConfig::default()
            };
            let (x, y) = (Rows::new(&x, 6), Rows::new(&y, 3));
            let found = overlap(&engine, x, y, &ids, None, &config).unwrap();
            let far = found.faithfulness.unwrap();
            assert!(far.exact);
            let close =
                |found: f64, expected: &Value| (found - expected.as_f64().unwrap()).abs() < 1e-12;
            assert!(close(far.trustworthiness.mean, expected), "{k}");
            assert!(close(far.continuity.mean, &golden["continuity"][k]), "{k}");
        }
    }
    // By distance rather than angle: far along one more axis, directions rank as distances do.
    let golden = read("knn_structure");
    let lifted = |key: &str| -> Vec<f32> {
        let rows: Vec<Vec<f32>> = serde_json::from_value(golden[key].clone()).unwrap();
        rows.iter()
            .flat_map(|row| row.iter().copied().chain([256.0]))
            .collect()
    };
    let (x, y) = (lifted("X"), lifted("Y"));
    let ids: Ids = (0..10).map(|i| i.to_string()).collect();
    let run = |headline_k| {
        let config = OverlapConfig {
            headline_k,
            ..OverlapConfig::default()
        };
        let (x, y) = (Rows::new(&x, 5), Rows::new(&y, 3));
        overlap(&cpu(), x, y, &ids, None, &config)
            .unwrap()
            .faithfulness
    };
    let far = run(3).unwrap();
    assert!((far.trustworthiness.mean - golden["trustworthiness"].as_f64().unwrap()).abs() < 1e-12);
    assert!((far.continuity.mean - golden["continuity"].as_f64().unwrap()).abs() < 1e-12);
    // Nine others: lists of four leave room for strangers to be far, lists of five do not.
    assert!(run(4).is_some());
    assert_eq!(run(5), None);
}

/// Ranks by brute force: with groups, in samples, by dot products of rows of all lengths, and where all rows
/// are so close that no f32 product tells them apart.
#[test]
fn ranks_are_those_of_brute_force() {
    let chunks = Chunks::new(&[4; 60], 24, 8);
    let mut random = Philox::new(9, 0);
    let mut stretched = chunks.before.clone();
    for row in stretched.chunks_mut(24) {
        let length = 10f64.powf(6.0 * random.uniform() - 3.0) as f32;
        row.iter_mut().for_each(|v| *v *= length);
    }
    let close = |values: &[f32]| -> Vec<f32> { values.iter().map(|v| 1.0 + 1e-5 * v).collect() };
    let (close_before, close_after) = (close(&chunks.before), close(&chunks.after));
    let ids = chunks.ids();
    let cases = [
        (&chunks.before, &chunks.after, Metric::Cosine, true),
        (&chunks.before, &chunks.after, Metric::Cosine, false),
        (&stretched, &chunks.after, Metric::Dot, false),
        (&close_before, &close_after, Metric::Cosine, true),
    ];
    for (number, (before, after, metric, grouped)) in cases.into_iter().enumerate() {
        let sides = [Rows::new(before, 24), Rows::new(after, 24)];
        let labels = grouped.then_some(chunks.labels.as_slice());
        for (ranked_items, queries) in [(1000, None), (50, None), (50, Some(100))] {
            let config = OverlapConfig {
                metric,
                queries,
                ranked_items,
                ..OverlapConfig::default()
            };
            let brute = BruteForce {
                sides,
                labels,
                metric,
                k: 10,
            };
            for engine in engines() {
                let found = overlap(&engine, sides[0], sides[1], &ids, labels, &config).unwrap();
                assert!(found.overlap.mean < 0.99, "case {number} moves nothing");
                brute.check(&found, &ids, &config);
            }
        }
    }
}

/// More rows than are ranked at a time.
#[test]
fn ranks_in_a_base_of_several_blocks() {
    let (rows, dim) = (40_000, 4);
    let mut random = Philox::new(10, 0);
    let before: Vec<f32> = (0..rows * dim).map(|_| random.normal() as f32).collect();
    let after: Vec<f32> = before
        .iter()
        .map(|v| v + 0.05 * random.normal() as f32)
        .collect();
    let ids: Ids = (0..rows).map(|i| i.to_string()).collect();
    let config = OverlapConfig {
        queries: Some(30),
        ranked_items: 20,
        ..OverlapConfig::default()
    };
    let sides = [Rows::new(&before, dim), Rows::new(&after, dim)];
    let found = overlap(&cpu(), sides[0], sides[1], &ids, None, &config).unwrap();
    BruteForce {
        sides,
        labels: None,
        metric: Metric::Cosine,
        k: 10,
    }
    .check(&found, &ids, &config);
    let none = OverlapConfig {
        ranked_items: 0,
        ..config
    };
    let found = overlap(&cpu(), sides[0], sides[1], &ids, None, &none).unwrap();
    assert_eq!(found.faithfulness, None);
}

/// Both are 1 where nothing moved and about a half where the spaces have nothing in common; neighbours that
/// fall just out of the list cost an overlap much and these little.
#[test]
fn faithfulness_tells_near_from_far() {
    let (rows, dim) = (800, 12);
    let mut random = Philox::new(11, 0);
    let mut gaussian = || -> Vec<f32> { (0..rows * dim).map(|_| random.normal() as f32).collect() };
    let (a, b) = (gaussian(), gaussian());
    let nudged: Vec<f32> = a.iter().zip(&b).map(|(x, e)| x + 0.3 * e).collect();
    let ids: Ids = (0..rows).map(|i| i.to_string()).collect();
    let run = |other: &[f32]| {
        let (a, b) = (Rows::new(&a, dim), Rows::new(other, dim));
        let found = overlap(&cpu(), a, b, &ids, None, &OverlapConfig::default()).unwrap();
        let far = found.faithfulness.unwrap();
        (
            found.overlap.mean,
            far.trustworthiness.mean,
            far.continuity.mean,
        )
    };
    assert_eq!(run(&a), (1.0, 1.0, 1.0));
    let (kept, trustworthiness, continuity) = run(&nudged);
    assert!(kept < 0.6 && trustworthiness > 0.95 && continuity > 0.95);
    let (_, trustworthiness, continuity) = run(&b);
    // Means over 800 items of ten ranks each, uniform: a standard error of 0.003.
    assert!((trustworthiness - 0.5).abs() < 0.02, "{trustworthiness}");
    assert!((continuity - 0.5).abs() < 0.02, "{continuity}");
}

/// Over draws of the items ranked, the interval covers the value of all of them.
#[test]
fn intervals_of_ranked_samples_cover() {
    let chunks = Chunks::new(&[1; 600], 12, 12);
    let config = |ranked_items, seed| OverlapConfig {
        ks: vec![],
        ranked_items,
        seed,
        ..OverlapConfig::default()
    };
    let run = |ranked_items, seed| {
        let found = chunks.overlap(&cpu(), None, &config(ranked_items, seed));
        found.faithfulness.unwrap()
    };
    let truth = run(600, 0);
    let mut covered = [0; 2];
    for seed in 0..100 {
        let sampled = run(60, seed);
        assert_eq!(sampled.ci95_target, IntervalTarget::ThisCorpus);
        let pairs = [
            (truth.trustworthiness, sampled.trustworthiness),
            (truth.continuity, sampled.continuity),
        ];
        for (count, (truth, sampled)) in covered.iter_mut().zip(pairs) {
            let [low, high] = sampled.ci95.unwrap();
            *count += u32::from(low <= truth.mean && truth.mean <= high);
        }
    }
    // 95 of 100, less four standard errors and what a normal interval of 60 skewed values lacks.
    assert!(covered.iter().all(|&count| count >= 84), "{covered:?}");
}

/// Searches by radius from all pairs: radii, what falls out, and rows in the dark.
#[test]
fn radii_are_those_of_brute_force() {
    let (n, dim) = (300, 12);
    let mut random = Philox::new(8, 0);
    let before: Vec<f32> = (0..n * dim).map(|_| random.normal() as f32).collect();
    let after: Vec<f32> = before
        .iter()
        .map(|v| v + (0.4 * random.normal()) as f32 + 0.5)
        .collect();
    let ids: Ids = (0..n).map(|i| i.to_string()).collect();
    let (x, y) = (Rows::new(&before, dim), Rows::new(&after, dim));
    let cosines = |rows: Rows<'_>| -> Vec<Vec<f64>> {
        let dot = |a: &[f32], b: &[f32]| -> f64 {
            a.iter()
                .zip(b)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum()
        };
        rows.iter()
            .map(|a| {
                rows.iter()
                    .map(|b| dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt())
                    .collect()
            })
            .collect()
    };
    let [old, new] = [x, y].map(cosines);
    for engine in engines() {
        let found = overlap(&engine, x, y, &ids, None, &OverlapConfig::default()).unwrap();
        let found = found.range_searches.unwrap();
        assert_eq!(
            (found.searches, found.exact, found.table.len()),
            (n, true, 3)
        );
        for row in &found.table {
            // The radius returns so many rows on average, and one a little larger does not.
            let passing = |cosines: &[Vec<f64>], radius: f64, i: usize| -> Vec<usize> {
                (0..n)
                    .filter(|&j| j != i && cosines[i][j] >= radius)
                    .collect()
            };
            let (r, s) = (row.reference_radius - 1e-12, row.current_radius - 1e-12);
            let all: usize = (0..n).map(|i| passing(&old, r, i).len()).sum();
            let all_new: usize = (0..n).map(|i| passing(&new, s, i).len()).sum();
            if row.cut_off == 0.0 {
                // Pairs count twice, so that a radius is one of an even number.
                assert!(
                    (all as i64 - (row.results * n) as i64).abs() <= 2,
                    "{all} {row:?}"
                );
                assert!(
                    (all_new as i64 - (row.results * n) as i64).abs() <= 2,
                    "{all_new}"
                );
            }
            let (mut lost, mut returned) = (0, 0);
            for i in 0..n {
                let (a, b) = (passing(&old, r, i), passing(&new, s, i));
                if a.len() < 100 && b.len() < 100 {
                    returned += a.len();
                    lost += a.iter().filter(|j| !b.contains(j)).count();
                }
            }
            let estimate = row.fall_out.unwrap();
            assert!((estimate.mean - lost as f64 / returned as f64).abs() < 1e-12);
            let [low, high] = estimate.ci95.unwrap();
            assert!(low < estimate.mean && estimate.mean < high && high - low < 0.2);
        }
    }
}
