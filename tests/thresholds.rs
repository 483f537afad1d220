//! Similarity thresholds across a model change.

use vecdrift::audit::{self, AuditConfig, GoldenConfig};
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Silent};
use vecdrift::metrics::thresholds::{Thresholds, thresholds};
use vecdrift::stats::rng::Philox;

const DIM: usize = 8;

fn engine() -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .expect("the CPU is there")
}

fn normal(rows: usize, stream: u64) -> Vec<f32> {
    let mut random = Philox::new(3, stream);
    (0..rows * DIM).map(|_| random.normal() as f32).collect()
}

fn ids(rows: usize) -> Ids {
    (0..rows).map(|i| format!("d{i}")).collect()
}

fn run(x: &[f32], y: &[f32], y_dim: usize, ids: &Ids) -> Thresholds {
    thresholds(
        &engine(),
        Rows::new(x, DIM),
        Rows::new(y, y_dim),
        ids,
        &[],
        0,
    )
    .expect("it measures")
    .expect("there are enough items")
}

/// Axes exchanged and every second one turned round: cosines stay, whatever the scale and the dimension.
#[test]
fn the_same_cosines_keep_every_threshold() {
    let x = normal(700, 1);
    let y: Vec<f32> = x
        .chunks_exact(DIM)
        .flat_map(|row| {
            let turned = (0..DIM).map(|i| row[(i + 3) % DIM] * if i % 2 == 0 { -2.0 } else { 2.0 });
            turned.chain([0.0]).collect::<Vec<_>>()
        })
        .collect();
    let found = run(&x, &y, DIM + 1, &ids(700));
    assert_eq!((found.queries, found.base, found.exact), (500, 700, false));
    assert_eq!(found.pairs, 500 * 699);
    assert_eq!(found.scalar_suffices, Some(true));
    assert!(found.table.len() > 10);
    for row in &found.table {
        // Products of another order of addition differ by rounding, which may move a pair across.
        assert!((row.new - row.old).abs() < 1e-3, "{row:?}");
        assert!(
            row.flips.mean < 1e-3 && row.flips_if_kept.mean < 1e-3,
            "{row:?}"
        );
        let [low, high] = row.new_ci95.expect("an interval");
        assert!(low < row.new && row.new < high, "{row:?}");
    }
}

/// Noise on every vector lowers cosines: fewer pairs pass the old threshold, a lower one passes as many, and some
/// decisions flip for good.
#[test]
fn noise_lowers_thresholds_and_flips_decisions() {
    // Six topics: without them cosines are those of random rows before and after.
    let centres = normal(6, 3);
    let x: Vec<f32> = normal(600, 1)
        .iter()
        .enumerate()
        .map(|(i, v)| 0.5 * v + centres[i % (6 * DIM)])
        .collect();
    let y: Vec<f32> = x
        .iter()
        .zip(normal(600, 2))
        .map(|(a, b)| a + 0.4 * b)
        .collect();
    let found = run(&x, &y, DIM, &ids(600));
    let row = found.table.last().expect("a row");
    assert!(
        row.new < row.old && row.pass_rate_if_kept < row.pass_rate,
        "{row:?}"
    );
    assert!(
        row.flips.mean < row.flips_if_kept.mean && row.flips.mean > 0.1,
        "{row:?}"
    );
    assert_eq!(found.scalar_suffices, Some(false));
    // In another order of rows the same pairs are drawn and the same numbers found.
    let reversed =
        |rows: &[f32]| -> Vec<f32> { rows.chunks_exact(DIM).rev().flatten().copied().collect() };
    let reversed_ids: Ids = (0..600).rev().map(|i| format!("d{i}")).collect();
    let again = run(&reversed(&x), &reversed(&y), DIM, &reversed_ids);
    let json = |found: &Thresholds| serde_json::to_value(found).expect("JSON");
    assert_eq!(json(&found), json(&again));
}

#[test]
fn too_few_items_have_no_table() {
    let x = normal(49, 1);
    let rows = Rows::new(&x, DIM);
    let found = thresholds(&engine(), rows, rows, &ids(49), &[], 0).expect("it measures");
    assert!(found.is_none());
}

/// The audit's own: named thresholds only, and equal precision where golden queries say what is relevant.
#[test]
fn the_audit_carries_named_thresholds_over() {
    let fixture = |name: &str| format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let config = AuditConfig {
        thresholds: vec![0.6, 0.5],
        permutations: 99,
        golden: Some(GoldenConfig {
            queries_reference: fixture("queries_reference.parquet"),
            queries_current: fixture("queries_current.parquet"),
            qrels: fixture("qrels.tsv"),
        }),
        ..AuditConfig::new(fixture("reference.parquet"), fixture("current.parquet"))
    };
    let found = audit::audit(&config, &engine(), &Silent)
        .expect("it audits")
        .audit;
    let thresholds = found.thresholds.expect("items are shared");
    let olds: Vec<f64> = thresholds.table.iter().map(|row| row.old).collect();
    assert_eq!(olds, [0.5, 0.6]);
    let precision = thresholds.precision.expect("there are golden queries");
    for row in &precision.table {
        assert!([0.5, 0.6].contains(&row.old));
        assert!((0.0..=1.0).contains(&row.precision) && (0.0..=1.0).contains(&row.recall));
        if let (Some(new), Some([low, high])) = (row.new, row.new_ci95) {
            assert!(low <= new + 0.1 && new <= high + 0.1, "{row:?}");
        }
    }
    assert!(!precision.table.is_empty());
}
