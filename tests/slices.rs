//! Where the drift is: slices are found where something was planted and nowhere else, at the rate that was
//! promised; and the parts of a drift add up to it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use vecdrift::audit::{self, Audit, AuditConfig, AxisName, GoldenConfig};
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Metric, Silent};
use vecdrift::metrics::clusters::{ClusteredSet, clusters, suitable_clusters};
use vecdrift::metrics::kmeans::kmeans;
use vecdrift::metrics::mmd::{self, MmdConfig, Partition, Sample, SlicedMmdConfig, sliced_mmd};
use vecdrift::metrics::slices::{
    ColumnValues, ItemOverlap, ShareState, SliceMeasure, SlicedSets, Slices, SlicesConfig, Slicing,
    slices,
};
use vecdrift::stats::rng::Philox;

const DIM: usize = 16;

fn engine(threads: usize) -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        threads: Some(threads),
        ..EngineConfig::default()
    })
    .expect("the CPU")
}

fn config(seed: u64) -> SlicesConfig {
    SlicesConfig {
        false_discovery_rate: 0.05,
        min_rows: 30,
        permutations: 999,
        bandwidth: None,
        seed,
    }
}

/// Rows around topics: topic t is axis t, with noise.
struct World {
    dim: usize,
    values: Vec<f32>,
    topics: Vec<usize>,
    ids: Ids,
}

impl World {
    /// `rows` rows of topics drawn with these weights.
    fn draw(random: &mut Philox, name: &str, rows: usize, weights: &[f64]) -> Self {
        Self::draw_in(DIM, random, name, rows, weights)
    }

    fn draw_in(dim: usize, random: &mut Philox, name: &str, rows: usize, weights: &[f64]) -> Self {
        let total: f64 = weights.iter().sum();
        let topics: Vec<usize> = (0..rows)
            .map(|_| {
                let mut left = random.uniform() * total;
                let topic = weights.iter().position(|weight| {
                    left -= weight;
                    left < 0.0
                });
                topic.unwrap_or(weights.len() - 1)
            })
            .collect();
        let values = topics
            .iter()
            .flat_map(|&topic| {
                let row: Vec<f32> = (0..dim)
                    .map(|axis| {
                        let centre = if axis == topic { 1.0 } else { 0.2 };
                        (centre + 0.25 * random.normal()) as f32
                    })
                    .collect();
                row
            })
            .collect();
        Self {
            dim,
            values,
            topics,
            ids: (0..rows).map(|i| format!("{name}-{i}")).collect(),
        }
    }

    fn sample(&self) -> Sample<'_> {
        Sample {
            rows: Rows::new(&self.values, self.dim),
            ids: &self.ids,
            groups: None,
        }
    }

    fn clustered(&self) -> ClusteredSet<'_> {
        ClusteredSet {
            rows: Rows::new(&self.values, self.dim),
            ids: &self.ids,
        }
    }
}

fn unpaired<'a>(x: &'a World, y: &'a World) -> SlicedSets<'a> {
    SlicedSets {
        reference: x.sample(),
        current: y.sample(),
        shared: &[],
        one_space: true,
        paired: false,
        paired_cosine: None,
        overlap: None,
        ndcg: None,
    }
}

fn by_column(name: &str, reference: &[String], current: &[String]) -> Slicing {
    let values = ColumnValues {
        name,
        numeric: false,
        reference,
        current,
        queries: None,
    };
    Slicing::of_column(values, 30)
}

fn by_clusters(engine: &Engine, x: &World, y: &World, seed: u64) -> Slicing {
    let number = suitable_clusters(x.topics.len() + y.topics.len());
    let found = clusters(engine, x.clustered(), Some(y.clustered()), number, seed);
    Slicing::of_clusters(found.expect("clusters"), true)
}

fn letters(random: &mut Philox, rows: usize, values: u32) -> Vec<String> {
    (0..rows)
        .map(|_| format!("v{}", random.below(values)))
        .collect()
}

/// Counts of a binomial(200, 0.05) outside 2 … 22 come once in a thousand times on either side.
const RUNS: u64 = 200;
const USUAL: std::ops::RangeInclusive<usize> = 2..=22;

/// No drift: one audit in twenty may find a slice, and single tests reject one time in twenty.
#[test]
fn without_drift_slices_stand_out_as_rarely_as_promised() {
    let engine = engine(4);
    let (mut found, mut contents, mut shares) = (0, 0, 0);
    for run in 0..RUNS {
        let mut random = Philox::new(run, 77);
        let weights = [4.0, 3.0, 2.0, 1.0, 1.0];
        let x = World::draw(&mut random, "x", 320, &weights);
        let y = World::draw(&mut random, "y", 260, &weights);
        let column = by_column(
            "column",
            &letters(&mut random, 320, 4),
            &letters(&mut random, 260, 4),
        );
        let slicings = [by_clusters(&engine, &x, &y, run), column];
        let result = slices(&engine, &unpaired(&x, &y), &slicings, &config(run)).expect("slices");
        assert!(result.tests >= 12, "{} tests", result.tests);
        found += usize::from(!result.worst.is_empty());
        let first = &result.partitions[1].slices[0];
        let content = first.content.as_ref().expect("contents");
        contents += usize::from(content.p_value.expect("a test") <= 0.05);
        let cluster = result.partitions[0].slices[0]
            .share
            .as_ref()
            .expect("a share");
        shares += usize::from(cluster.p_value <= 0.05);
    }
    // Exact tests of counts reject a little less often than they may.
    assert!(
        found <= *USUAL.end(),
        "{found} of {RUNS} runs found a slice"
    );
    assert!(USUAL.contains(&contents), "{contents} of {RUNS} contents");
    assert!(shares <= *USUAL.end(), "{shares} of {RUNS} shares");
}

/// Why clusters are fitted to both sets alike: those of one set follow its accidents, and shares seem to
/// move.
#[test]
fn clusters_of_one_set_would_see_drift_where_there_is_none() {
    // The more dimensions, the more accidents.
    const WIDE: usize = 128;
    let engine = engine(4);
    let (mut of_both, mut of_one) = (0, 0);
    for run in 0..RUNS / 2 {
        let mut random = Philox::new(run, 86);
        let mut draw = |name| World::draw_in(WIDE, &mut random, name, 300, &[1.0, 1.0]);
        let (x, y) = (draw("x"), draw("y"));
        let both = by_clusters(&engine, &x, &y, run);
        let rows = [&x, &y].map(|world| Rows::new(&world.values, WIDE));
        let fitted = kmeans(&engine, rows[0], both.names.len(), run).expect("clusters");
        let [reference, current] = rows.map(|rows| -> Vec<u32> {
            let centroids = Rows::new(&fitted.centroids, WIDE);
            let found = engine.nearest(rows, centroids, 1, Metric::Cosine, None);
            let lists = found.expect("neighbours").lists;
            lists.iter().map(|list| list[0].1).collect()
        });
        let one = Slicing {
            names: (0..fitted.sizes.len()).map(|c| c.to_string()).collect(),
            representatives: vec![Vec::new(); fitted.sizes.len()],
            reference,
            current: Some(current),
            ..both.clone()
        };
        let mut quick = config(run);
        quick.permutations = 0;
        for (slicing, found) in [(both, &mut of_both), (one, &mut of_one)] {
            let g = slices(&engine, &unpaired(&x, &y), &[slicing], &quick).expect("slices");
            let shares = g.partitions[0].shares.as_ref().expect("shares");
            // χ² with 9 degrees of freedom is above 16.92 one time in twenty.
            *found += usize::from(shares.g.expect("counts") > 16.92);
        }
        assert_eq!(fitted.sizes.len(), 10);
    }
    // Counts of a binomial(100, 0.05) are above 13 once in a thousand times.
    assert!(
        of_both <= 13,
        "{of_both} of 100 runs, clusters of both sets"
    );
    assert!(of_one > 40, "{of_one} of 100 runs, clusters of one set");
}

/// Chunks of documents, labelled by document: rows by themselves would make shares seem to move.
#[test]
fn shares_of_grouped_and_of_shared_rows_keep_their_level() {
    let engine = engine(4);
    let (mut grouped, mut naive, mut paired, mut overlapping) = (0, 0, 0, 0);
    for run in 0..RUNS {
        let mut random = Philox::new(run, 78);
        let x = World::draw(&mut random, "x", 480, &[1.0]);
        let y = World::draw(&mut random, "y", 480, &[1.0]);
        let documents = |random: &mut Philox, side: &str| -> (Vec<String>, Vec<String>) {
            let labels = letters(random, 120, 3);
            (0..480)
                .map(|row| (labels[row / 4].clone(), format!("{side}-{}", row / 4)))
                .unzip()
        };
        let (x_labels, x_groups) = documents(&mut random, "x");
        let (y_labels, y_groups) = documents(&mut random, "y");
        let slicing = [by_column("label", &x_labels, &y_labels)];
        let share_p = |sets: &SlicedSets<'_>, slicing: &[Slicing]| {
            let mut quick = config(run);
            quick.permutations = 0;
            let found = slices(&engine, sets, slicing, &quick).expect("slices");
            found.partitions[0].slices[0]
                .share
                .as_ref()
                .expect("a share")
                .p_value
        };
        let mut sets = unpaired(&x, &y);
        naive += usize::from(share_p(&sets, &slicing) <= 0.05);
        sets.reference.groups = Some(&x_groups);
        sets.current.groups = Some(&y_groups);
        grouped += usize::from(share_p(&sets, &slicing) <= 0.05);

        // The same items on both sides, of which one in five changes its label; then half of them only.
        let labels = letters(&mut random, 480, 3);
        let changed: Vec<String> = labels
            .iter()
            .map(|label| match random.below(5) {
                0 => format!("v{}", random.below(3)),
                _ => label.clone(),
            })
            .collect();
        for (items, count) in [(480u32, &mut paired), (240, &mut overlapping)] {
            let shared: Vec<(u32, u32)> = (0..items).map(|row| (row, row)).collect();
            let ids: Ids = (0..480u32)
                .map(|row| format!("{}-{row}", if row < items { "x" } else { "y" }))
                .collect();
            let mut current = changed.clone();
            let fresh = letters(&mut random, 480, 3);
            current[items as usize..].clone_from_slice(&fresh[items as usize..]);
            let mut sets = unpaired(&x, &y);
            sets.current.ids = &ids;
            sets.shared = &shared;
            *count += usize::from(share_p(&sets, &[by_column("label", &labels, &current)]) <= 0.05);
        }
    }
    assert!(USUAL.contains(&grouped), "{grouped} of {RUNS} grouped");
    assert!(
        USUAL.contains(&overlapping),
        "{overlapping} of {RUNS} overlapping"
    );
    // McNemar's exact test rejects a little less often than it may.
    assert!(paired <= *USUAL.end(), "{paired} of {RUNS} paired");
    // Negative control: the same rows without their groups.
    assert!(naive > 40, "{naive} of {RUNS} without groups");
}

#[test]
fn items_that_do_not_differ_keep_their_level() {
    let engine = engine(4);
    let (mut found, mut single) = (0, 0);
    for run in 0..RUNS {
        let mut random = Philox::new(run, 79);
        let x = World::draw(&mut random, "x", 300, &[1.0, 1.0]);
        let shared: Vec<(u32, u32)> = (0..300).map(|row| (row, row)).collect();
        let items: Vec<u32> = (0..300).collect();
        // As skewed as overlaps are.
        let overlap: Vec<f64> = items.iter().map(|_| random.uniform().powi(2)).collect();
        let labels = letters(&mut random, 300, 4);
        let sets = SlicedSets {
            shared: &shared,
            paired: true,
            overlap: Some(ItemOverlap {
                k: 10,
                items: &items,
                overlap: &overlap,
            }),
            ..unpaired(&x, &x)
        };
        let slicing = [by_column("label", &labels, &labels)];
        let result = slices(&engine, &sets, &slicing, &config(run)).expect("slices");
        let worst = result
            .worst
            .iter()
            .any(|w| w.measure == SliceMeasure::Overlap);
        found += usize::from(worst);
        let first = result.partitions[0].slices[0]
            .overlap
            .as_ref()
            .expect("a mean");
        single += usize::from(first.p_value.expect("a test") <= 0.05);
    }
    assert!(
        found <= *USUAL.end(),
        "{found} of {RUNS} runs found a slice"
    );
    assert!(USUAL.contains(&single), "{single} of {RUNS} tests");
}

/// A topic that only current has is the cluster that emerged, and one that went is the one that vanished.
#[test]
fn topics_that_come_and_go_are_found() {
    let engine = engine(4);
    let mut named = [0, 0];
    for run in 0..20 {
        let mut random = Philox::new(run, 80);
        let x = World::draw(&mut random, "x", 600, &[3.0, 3.0, 3.0, 1.0, 0.0]);
        let y = World::draw(&mut random, "y", 600, &[3.0, 3.0, 3.0, 0.0, 1.0]);
        let slicing = by_clusters(&engine, &x, &y, run);
        let result = slices(
            &engine,
            &unpaired(&x, &y),
            std::slice::from_ref(&slicing),
            &config(run),
        )
        .expect("slices");
        for (at, (state, topic, world)) in [
            (ShareState::Emerging, 4, &y),
            (ShareState::Vanishing, 3, &x),
        ]
        .into_iter()
        .enumerate()
        {
            let labels = if at == 0 {
                slicing.current.as_ref().expect("labels")
            } else {
                &slicing.reference
            };
            let of_topic: Vec<u32> = labels
                .iter()
                .zip(&world.topics)
                .filter(|(_, t)| **t == topic)
                .map(|(label, _)| *label)
                .collect();
            let found: Vec<usize> = result.partitions[0]
                .slices
                .iter()
                .enumerate()
                .filter(|(_, s)| s.share.as_ref().is_some_and(|share| share.state == state))
                .map(|(cluster, _)| cluster)
                .collect();
            // Most of the topic lies in clusters that are said to have come or gone.
            let covered = of_topic
                .iter()
                .filter(|label| found.contains(&(**label as usize)));
            named[at] += usize::from(2 * covered.count() > of_topic.len());
        }
    }
    assert!(named[0] >= 18 && named[1] >= 18, "{named:?} of 20 runs");
}

/// A shift within one value of a column is found, named, and is all content; its neighbours are left alone.
#[test]
fn a_slice_with_other_contents_is_named() {
    let engine = engine(4);
    let mut named = 0;
    for run in 0..20 {
        let mut random = Philox::new(run, 81);
        let x = World::draw(&mut random, "x", 500, &[1.0, 1.0, 1.0]);
        let mut y = World::draw(&mut random, "y", 500, &[1.0, 1.0, 1.0]);
        let (x_column, y_column) = (letters(&mut random, 500, 5), letters(&mut random, 500, 5));
        for (row, value) in y_column.iter().enumerate() {
            if value == "v3" {
                y.values[row * DIM + 9] += 0.3;
            }
        }
        let slicing = [by_column("column", &x_column, &y_column)];
        let result = slices(&engine, &unpaired(&x, &y), &slicing, &config(run)).expect("slices");
        let worst = result
            .worst
            .iter()
            .find(|w| w.measure == SliceMeasure::Content);
        named += usize::from(worst.is_some_and(|w| w.name == "v3" && w.by == "column"));
        let parts = result.partitions[0]
            .mmd2_decomposition
            .as_ref()
            .expect("parts");
        assert!((parts.mix + parts.content - parts.total).abs() < 1e-15);
        let added: f64 = result.partitions[0]
            .slices
            .iter()
            .map(|s| s.content.as_ref().expect("contents").contribution)
            .sum();
        assert!(
            (added - parts.total).abs() < 1e-12,
            "every row is in a slice"
        );
    }
    assert!(named >= 18, "{named} of 20 runs");
}

/// Other shares of the same contents are mix, other contents at the same shares are content, and the
/// distance of the means is that of the moments.
#[test]
fn mix_and_content_are_told_apart() {
    let engine = engine(4);
    let mut random = Philox::new(5, 82);
    let x = World::draw(&mut random, "x", 3_000, &[1.0, 1.0, 1.0]);
    let mixed = World::draw(&mut random, "y", 3_000, &[4.0, 1.0, 1.0]);
    let mut changed = World::draw(&mut random, "y", 3_000, &[1.0, 1.0, 1.0]);
    changed
        .values
        .chunks_exact_mut(DIM)
        .for_each(|row| row[7] += 0.3);
    let names = |world: &World| -> Vec<String> {
        world
            .topics
            .iter()
            .map(|topic| format!("t{topic}"))
            .collect()
    };
    for (y, expected_mix) in [(&mixed, 1.0), (&changed, 0.0)] {
        let slicing = [by_column("topic", &names(&x), &names(y))];
        let result = slices(&engine, &unpaired(&x, y), &slicing, &config(0)).expect("slices");
        let partition = &result.partitions[0];
        for parts in [
            &partition.mmd2_decomposition,
            &partition.centroid_decomposition,
        ] {
            let parts = parts.as_ref().expect("parts");
            let share = parts.mix / parts.total;
            // Topics drawn with equal weights differ by chance, and so do their means.
            assert!((share - expected_mix).abs() < 0.05, "{parts:?}");
            assert!((parts.mix + parts.content - parts.total).abs() < 1e-14);
        }
        let mean = |world: &World, axis: usize| {
            let values = world.values.iter().skip(axis).step_by(DIM);
            values.map(|&v| f64::from(v)).sum::<f64>() / 3_000.0
        };
        let distance: f64 = (0..DIM)
            .map(|axis| (mean(y, axis) - mean(&x, axis)).powi(2))
            .sum();
        let total = partition
            .centroid_decomposition
            .as_ref()
            .expect("parts")
            .total;
        // f64 sums in another order.
        assert!((total - distance).abs() < 1e-12, "{total} {distance}");
    }
}

/// One slice of everything is the MMD itself, up to what random features lose.
#[test]
fn features_estimate_the_mmd() {
    let engine = engine(4);
    let mut random = Philox::new(6, 83);
    let x = World::draw(&mut random, "x", 800, &[1.0, 1.0, 1.0]);
    let y = World::draw(&mut random, "y", 700, &[3.0, 1.0, 1.0]);
    let exact = mmd::mmd(
        &engine,
        x.sample(),
        y.sample(),
        &MmdConfig {
            permutations: 0,
            ..MmdConfig::default()
        },
    )
    .expect("an MMD");
    let everything = Partition {
        reference: &[0; 800],
        current: &[0; 700],
        slices: 1,
    };
    let config = SlicedMmdConfig {
        bandwidth: None,
        permutations: 999,
        seed: 0,
    };
    let found = sliced_mmd(&engine, x.sample(), y.sample(), &[everything], &config)
        .expect("an MMD")
        .expect("a bandwidth");
    let slice = &found.partitions[0].slices[0];
    let ratio = slice.mmd2.expect("an estimate") / exact.mmd2_unbiased;
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
    assert_eq!(slice.p_value, Some(0.001));
    let [low, high] = slice.ci95.expect("an interval");
    assert!(
        low < exact.mmd2_unbiased && exact.mmd2_unbiased < high,
        "{low} {high}"
    );
}

/// Neither threads nor the order of rows show in any bit.
#[test]
fn threads_and_row_order_change_nothing() {
    let mut random = Philox::new(7, 84);
    let x = World::draw(&mut random, "x", 400, &[2.0, 1.0, 1.0]);
    let y = World::draw(&mut random, "y", 300, &[1.0, 2.0, 1.0]);
    let (x_column, y_column) = (letters(&mut random, 400, 3), letters(&mut random, 300, 3));
    let run = |threads: usize, x: &World, y: &World, columns: [&[String]; 2]| {
        let engine = engine(threads);
        let slicings = [
            by_clusters(&engine, x, y, 3),
            by_column("column", columns[0], columns[1]),
        ];
        let found = slices(&engine, &unpaired(x, y), &slicings, &config(3)).expect("slices");
        serde_json::to_string(&found).expect("JSON")
    };
    let one = run(1, &x, &y, [&x_column, &y_column]);
    assert_eq!(one, run(4, &x, &y, [&x_column, &y_column]));
    let turned = |world: &World, column: &[String]| {
        let rows: Vec<usize> = (0..world.topics.len()).rev().collect();
        let row = |row: &usize| world.values[row * DIM..(row + 1) * DIM].to_vec();
        let turned = World {
            dim: DIM,
            values: rows.iter().flat_map(row).collect(),
            topics: rows.iter().map(|&row| world.topics[row]).collect(),
            ids: rows
                .iter()
                .map(|&row| world.ids.get(row).to_owned())
                .collect(),
        };
        let column: Vec<String> = rows.iter().map(|&row| column[row].clone()).collect();
        (turned, column)
    };
    let ((x2, x_column2), (y2, y_column2)) = (turned(&x, &x_column), turned(&y, &y_column));
    assert_eq!(one, run(4, &x2, &y2, [&x_column2, &y_column2]));
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name);
    path.display().to_string()
}

fn audited(reference: &str, current: &str, change: impl FnOnce(&mut AuditConfig)) -> Audit {
    let mut config = AuditConfig::new(fixture(reference), fixture(current));
    config.permutations = 999;
    config.slice_by = vec!["section".to_owned()];
    config.min_slice_rows = 15;
    change(&mut config);
    audit::audit(&config, &engine(2), &Silent)
        .expect("an audit")
        .audit
}

fn found(audit: &Audit) -> &Slices {
    audit.slices.as_ref().expect("slices")
}

/// The fixtures' broken section and new topic, by name.
#[test]
fn audits_name_the_broken_section_and_the_new_topic() {
    let audit = audited("reference.parquet", "current.parquet", |_| {});
    let worst = &found(&audit).worst;
    for measure in [SliceMeasure::Overlap, SliceMeasure::PairedCosine] {
        let worst = worst
            .iter()
            .find(|w| w.measure == measure)
            .expect("a worst slice");
        let slice = found(&audit).slice_of(worst).expect("the slice");
        assert!(
            worst.name == "returns" || worst.by == "cluster",
            "{worst:?}"
        );
        assert!(slice.n_reference > 15);
    }
    assert!(
        audit.verdict.reason.contains("worst in "),
        "{}",
        audit.verdict.reason
    );
    let axis = audit
        .verdict
        .axes
        .iter()
        .find(|a| a.axis == AxisName::Neighbourhoods)
        .expect("the axis");
    assert!(
        axis.evidence
            .iter()
            .any(|e| e.measure.contains("worst slice"))
    );
    let by_section = audited("reference.parquet", "current.parquet", |c| {
        c.clusters = Some(0)
    });
    assert_eq!(found(&by_section).partitions.len(), 1);
    assert!(found(&by_section).worst.iter().all(|w| w.name == "returns"));

    let shifted = audited("half_a.parquet", "shifted.parquet", |_| {});
    let share = found(&shifted)
        .worst
        .iter()
        .find(|w| w.measure == SliceMeasure::Share);
    let share = share.expect("a slice that grew");
    let slice = found(&shifted).slice_of(share).expect("the slice");
    assert_eq!(
        slice.share.as_ref().expect("a share").state,
        ShareState::Emerging
    );
    assert!(
        share.name == "promotions" || share.by == "cluster",
        "{share:?}"
    );
    assert!(
        shifted.verdict.reason.contains("promotions is new"),
        "{}",
        shifted.verdict.reason
    );

    let halves = audited("half_a.parquet", "half_b.parquet", |_| {});
    assert!(
        found(&halves).worst.is_empty(),
        "{:?}",
        found(&halves).worst
    );
}

/// A space that was rotated has no shares and no contents to compare, but items.
#[test]
fn another_space_is_sliced_by_items_alone() {
    for (current, clusters_current) in [("rotated.parquet", None), ("narrow.parquet", None)] {
        let audit = audited("reference.parquet", current, |_| {});
        let clusters = &found(&audit).partitions[0];
        assert_eq!(clusters.by, "cluster");
        let first = &clusters.slices[0];
        assert_eq!(first.n_current, clusters_current);
        assert!(first.share.is_none() && first.content.is_none() && first.paired_cosine.is_none());
        assert!(first.overlap.is_some());
        let sections = &found(&audit).partitions[1];
        assert!(sections.slices[0].share.is_some() && sections.slices[0].content.is_none());
    }
}

/// Golden queries that have the column are sliced too, those without it are left out.
#[test]
fn queries_are_sliced_where_they_have_the_column() {
    let golden = |config: &mut AuditConfig, queries: &str| {
        config.golden = Some(GoldenConfig {
            queries_reference: fixture(queries),
            queries_current: fixture("queries_current.parquet"),
            qrels: fixture("qrels.tsv"),
        });
    };
    let audit = audited("reference.parquet", "current.parquet", |config| {
        golden(config, "queries_reference.parquet");
    });
    let sections = found(&audit).partitions.iter().find(|p| p.by == "section");
    let queries = sections
        .expect("sections")
        .slices
        .iter()
        .filter_map(|s| s.ndcg_at_10.as_ref());
    let compared: u64 = queries.map(|q| q.n).sum();
    assert!(
        (5..=40).contains(&compared),
        "{compared} queries in slices of at least 5"
    );
    let clusters = &found(&audit).partitions[0];
    assert!(clusters.slices.iter().all(|s| s.ndcg_at_10.is_none()));
}

/// Golden queries in slices: the loss is in one of them.
#[test]
fn the_slice_whose_queries_lose_is_named() {
    let engine = engine(2);
    let mut random = Philox::new(9, 85);
    let x = World::draw(&mut random, "x", 200, &[1.0, 1.0]);
    let labels = letters(&mut random, 200, 2);
    let queries: Vec<String> = (0..90).map(|i| format!("v{}", i % 2)).collect();
    let ndcg: Vec<f64> = (0..90)
        .map(|i| {
            if i % 2 == 1 && i % 3 > 0 {
                -0.4
            } else {
                0.1 * (random.uniform() - 0.5)
            }
        })
        .collect();
    let slicing = Slicing::of_column(
        ColumnValues {
            name: "column",
            numeric: false,
            reference: &labels,
            current: &labels,
            queries: Some(&queries),
        },
        30,
    );
    let sets = SlicedSets {
        ndcg: Some(&ndcg),
        ..unpaired(&x, &x)
    };
    let result = slices(&engine, &sets, &[slicing], &config(0)).expect("slices");
    let worst = &result.worst[0];
    assert_eq!(
        (worst.measure, worst.name.as_str()),
        (SliceMeasure::NdcgAt10, "v1")
    );
    assert_eq!((worst.n, worst.slices), (45, 1));
}

fn vecdrift(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vecdrift"))
        .args(args)
        .args(["--device", "cpu", "--quiet"])
        .output()
        .expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn columns_that_are_not_there_are_refused_with_those_that_are() {
    let (good, array) = (fixture("reference.parquet"), fixture("reference.npy"));
    for (current, column, message) in [
        (&good, "topic", "no metadata column \"topic\" in"),
        (&good, "embedding", "no metadata column \"embedding\" in"),
        (&array, "section", "reference.npy has none"),
    ] {
        let (code, stdout, said) = vecdrift(&["audit", &good, current, "--slice-by", column]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{said}");
        assert!(said.contains(message), "{said}");
        assert!(said.contains("reference.parquet has id, section"), "{said}");
    }
    let (code, _, said) = vecdrift(&["audit", &good, &good, "--min-slice", "0"]);
    assert_eq!(code, Some(2), "{said}");
}

#[test]
fn the_report_and_the_json_say_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out").display().to_string();
    let (code, stdout, said) = vecdrift(&[
        "audit",
        &fixture("reference.parquet"),
        &fixture("current.parquet"),
        "--slice-by",
        "section",
        "--permutations",
        "199",
        "--out",
        &out,
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert!(stdout.contains("Where it shows most"), "{stdout}");
    assert!(stdout.contains("section = returns"), "{stdout}");
    assert!(
        stdout.lines().all(|line| line.chars().count() <= 80),
        "{stdout}"
    );
    let page = std::fs::read_to_string(Path::new(&out).join("report.html")).expect("the page");
    for part in [
        "id=\"slices\"",
        "Overlap by section",
        "By cluster",
        "Mix and content",
    ] {
        assert!(page.contains(part), "{part}");
    }
    let json = std::fs::read_to_string(Path::new(&out).join("result.json")).expect("the result");
    let result: Value = serde_json::from_str(&json).expect("JSON");
    let slices = &result["results"]["slices"];
    assert_eq!(slices["worst"][0]["name"], "returns");
    assert_eq!(slices["partitions"][1]["by"], "section");
    assert_eq!(result["config"]["slice_by"][0], "section");
}
