//! The map of the corpus: the same items in the same places, whatever rotates or reorders the rows.

use vecdrift::audit::{self, AuditConfig};
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Silent};
use vecdrift::metrics::map::{CorpusMap, MapLayout, MapShade, MappedSet, map};
use vecdrift::stats::rng::Philox;

const DIM: usize = 12;

fn engine(threads: usize) -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        threads: Some(threads),
        ..EngineConfig::default()
    })
    .expect("the CPU is there")
}

/// Rows whose variance falls from axis to axis, so that the first two directions are told apart.
fn normal(rows: usize) -> Vec<f32> {
    let mut random = Philox::new(5, 0);
    (0..rows * DIM)
        .map(|i| (random.normal() / (1 + i % DIM) as f64) as f32)
        .collect()
}

fn ids(rows: usize) -> Ids {
    (0..rows).map(|i| format!("d{i}")).collect()
}

fn draw(
    x: &[f32],
    y: &[f32],
    x_ids: &Ids,
    y_ids: &Ids,
    one_space: bool,
    threads: usize,
) -> CorpusMap {
    let set = |values, ids| MappedSet {
        rows: Rows::new(values, DIM),
        ids,
    };
    let sides = (set(x, x_ids), set(y, y_ids));
    map(&engine(threads), sides.0, sides.1, (one_space, true), 1)
        .expect("it draws")
        .expect("there are rows enough")
}

/// Largest distance of an item's two places, among items in both.
fn largest_move(found: &CorpusMap) -> f32 {
    let moves = found.points.iter().filter_map(|point| {
        let ([a, b], [c, d]) = (point.reference?.1, point.current?.1);
        Some((a - c).hypot(b - d))
    });
    moves.fold(0.0, f32::max)
}

#[test]
fn what_stays_stays_and_what_moves_moves() {
    let (x, ids) = (normal(300), ids(300));
    let same = draw(&x, &x, &ids, &ids, true, 1);
    assert_eq!(same.layout, MapLayout::ReferencePca);
    assert_eq!((same.rows, same.exact), ([300, 300], true));
    assert_eq!(largest_move(&same), 0.0);
    let share = same.variance_share[0].expect("rows vary");
    assert!(share > 0.5 && share < 1.0, "{share}");
    assert!((share - same.variance_share[1].expect("rows vary")).abs() < 1e-5);
    let mut moved = x.clone();
    moved[..DIM].iter_mut().for_each(|v| *v = -*v);
    assert!(largest_move(&draw(&x, &moved, &ids, &ids, true, 1)) > 0.5);
}

/// Axes exchanged and every second one mirrored is a rotation: spaces differ, the map does not.
#[test]
fn rotated_spaces_are_turned_onto_each_other() {
    let (x, ids) = (normal(300), ids(300));
    let y: Vec<f32> = x
        .chunks(DIM)
        .flat_map(|row| {
            (0..DIM).map(|i| {
                if i % 2 == 0 {
                    -row[DIM - 1 - i]
                } else {
                    row[DIM - 1 - i]
                }
            })
        })
        .collect();
    let found = draw(&x, &y, &ids, &ids, false, 1);
    assert_eq!(found.layout, MapLayout::AlignedPca);
    // f32 positions below 1.
    assert!(largest_move(&found) < 1e-4, "{}", largest_move(&found));
    // As one space the rotation is seen.
    assert!(largest_move(&draw(&x, &y, &ids, &ids, true, 1)) > 0.5);
    let others: Ids = (0..300).map(|i| format!("other{i}")).collect();
    let apart = draw(&x, &y, &ids, &others, false, 1);
    assert_eq!(apart.layout, MapLayout::SeparatePca);
    assert_eq!(apart.points.len(), 600);
}

#[test]
fn large_sets_are_sampled_alike_whatever_their_order() {
    let (x, x_ids) = (normal(6_000), ids(6_000));
    let y: Vec<f32> = x.chunks(DIM).rev().flatten().copied().collect();
    let y_ids: Ids = (0..6_000).rev().map(|i| format!("d{i}")).collect();
    let found = draw(&x, &y, &x_ids, &y_ids, true, 1);
    assert_eq!((found.rows, found.exact), ([5_000, 5_000], false));
    assert_eq!(found.points.len(), 5_000, "both sides show the same items");
    assert_eq!(largest_move(&found), 0.0);
    assert_eq!(found.points, draw(&x, &y, &x_ids, &y_ids, true, 3).points);
    let two = ids(2);
    let few = MappedSet {
        rows: Rows::new(&x[..2 * DIM], DIM),
        ids: &two,
    };
    assert!(
        map(&engine(1), few, few, (true, true), 0)
            .expect("no error")
            .is_none()
    );
}

#[test]
fn the_audit_colours_the_map_by_what_moved() {
    let fixture = |name: &str| format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let config = AuditConfig {
        permutations: 99,
        ..AuditConfig::new(fixture("reference.parquet"), fixture("current.parquet"))
    };
    let audited = audit::audit(&config, &engine(1), &Silent).expect("it audits");
    let map = audited.audit.map.expect("there are rows enough");
    let items = audited.items.expect("items are shared");
    let MapShade::Number { name, values } = &map.shades[0] else {
        panic!("the first colour is a quantity");
    };
    assert!(name.starts_with("neighbours lost of "));
    let k: f64 = name
        .rsplit(' ')
        .next()
        .and_then(|k| k.parse().ok())
        .expect("a number");
    let o = &items.neighbourhoods;
    for (point, value) in map.points.iter().zip(values) {
        let item = o
            .rows
            .iter()
            .position(|&row| items.ids.get(row as usize) == point.id);
        let expected = item.map(|i| ((1.0 - o.overlap[i]) * k).round());
        assert_eq!(*value, expected, "{}", point.id);
    }
    assert!(values.iter().flatten().any(|&lost| lost > 0.0));
}

/// Command and configuration stand in the report; a text column that is not there is refused.
#[test]
fn the_report_says_how_to_make_it_again() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let fixture = |name: &str| format!("{}/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let run = |text: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_vecdrift"))
            .current_dir(folder.path())
            .args([
                "audit",
                &fixture("reference.parquet"),
                &fixture("current.parquet"),
            ])
            .args([
                "--device",
                "cpu",
                "--permutations",
                "99",
                "--out",
                "a b",
                "--text",
                text,
            ])
            .output()
            .expect("the binary runs");
        let report = std::fs::read_to_string(folder.path().join("a b/report.html"));
        (output.status.code(), report.unwrap_or_default())
    };
    let (code, report) = run("no such column");
    assert_eq!((code, report.is_empty()), (Some(2), true));
    let (code, report) = run("id");
    assert_eq!(code, Some(0));
    assert!(report.contains("--out &#x27;a b&#x27; --text id"));
    assert!(report.contains("&quot;permutations&quot;: 99"));
}
