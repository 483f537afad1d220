//! Queries that ask for what the corpus does not hold: no alarm beyond the promised rate where nothing
//! changed, the planted share where something did, and what the audit makes of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vecdrift::audit::{self, Action, Audit, AuditConfig, AxisName, AxisState, QueryLogs};
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Silent};
use vecdrift::metrics::ood::{Identified, Ood, OodConfig, OodScoreName, ood};
use vecdrift::stats::rng::Philox;

const DIM: usize = 24;
const TOPICS: u32 = 8;

fn engine(threads: usize) -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        threads: Some(threads),
        ..EngineConfig::default()
    })
    .expect("the CPU")
}

struct Set {
    values: Vec<f32>,
    ids: Ids,
}

impl Set {
    /// Rows around topics, each an axis; the first `foreign` of them around an axis that is no topic.
    fn draw(random: &mut Philox, name: &str, rows: usize, foreign: usize, noise: f64) -> Self {
        let mut values = Vec::with_capacity(rows * DIM);
        for row in 0..rows {
            let topic = match row < foreign {
                true => DIM - 1,
                false => random.below(TOPICS) as usize,
            };
            values.extend((0..DIM).map(|axis| {
                let centre = if axis == topic { 1.0 } else { 0.1 };
                (centre + noise * random.normal()) as f32
            }));
        }
        let ids = (0..rows).map(|i| {
            let kind = if i < foreign { "foreign" } else { "usual" };
            format!("{name}-{kind}-{i}")
        });
        Self {
            values,
            ids: ids.collect(),
        }
    }

    fn identified(&self) -> Identified<'_> {
        Identified {
            rows: Rows::new(&self.values, DIM),
            ids: &self.ids,
        }
    }

    fn reversed(&self) -> Self {
        let rows = self.values.chunks(DIM).rev();
        let order: Vec<u32> = (0..self.ids.len() as u32).rev().collect();
        Self {
            values: rows.flatten().copied().collect(),
            ids: self.ids.select(&order),
        }
    }
}

struct World {
    corpus: Set,
    calibration: Set,
    queries: Set,
}

/// Queries scatter more than documents do: a document is no stand-in for one.
fn world(seed: u64, [documents, calibration, queries]: [usize; 3], foreign: usize) -> World {
    let mut random = Philox::new(seed, 77);
    World {
        corpus: Set::draw(&mut random, "d", documents, 0, 0.15),
        calibration: Set::draw(&mut random, "old", calibration, 0, 0.2),
        queries: Set::draw(&mut random, "new", queries, foreign, 0.2),
    }
}

fn judged(engine: &Engine, world: &World) -> Ood {
    judge(engine, &world.corpus, &world.calibration, &world.queries)
}

fn judge(engine: &Engine, corpus: &Set, calibration: &Set, queries: &Set) -> Ood {
    let [corpus, calibration, queries] = [corpus, calibration, queries].map(Set::identified);
    ood(engine, corpus, calibration, queries, &OodConfig::default())
        .expect("scores")
        .expect("queries")
}

/// Without drift every score raises alarms at its level, and the interval of the excess leaves out 0 no more
/// often than it may. Calibrated by documents, the same queries raise far more: the negative control.
#[test]
fn usual_queries_raise_alarms_at_the_promised_rate() {
    const RUNS: u64 = 60;
    let engine = engine(2);
    let mut rates = [0.0; 5];
    let mut above = [0; 5];
    for seed in 0..RUNS {
        let found = judged(&engine, &world(seed, [400, 300, 300], 0));
        assert_eq!(found.scores.len(), 5);
        assert!(!found.same_queries && found.exact);
        for (i, rate) in found.scores.iter().enumerate() {
            rates[i] += rate.rate / RUNS as f64;
            above[i] += usize::from(rate.excess_ci95.expect("an interval")[0] > 0.0);
        }
    }
    // The standard deviation of a run's rate is 0.018, of the mean of 60 runs 0.0023.
    assert!(rates.iter().all(|r| (r - 0.05).abs() < 0.01), "{rates:?}");
    // 1.5 of 60 expected at one-sided 2.5 %; 7 or more come once in 1,500 times.
    assert!(above.iter().all(|&runs| runs < 7), "{above:?}");

    let world = world(0, [400, 300, 300], 0);
    let by_documents = judge(
        &engine,
        &world.corpus,
        &Set::draw(&mut Philox::new(1, 78), "more", 300, 0, 0.15),
        &world.queries,
    );
    assert!(by_documents.main().rate > 0.2, "{:?}", by_documents.main());
}

/// A tenth of the queries comes from a topic that the corpus lacks.
#[test]
fn a_foreign_tenth_is_found_with_its_size_and_its_names() {
    let engine = engine(2);
    let found = judged(&engine, &world(5, [1_500, 1_000, 2_000], 200));
    let main = found.main();
    assert_eq!(main.score, OodScoreName::Knn);
    let [low, high] = main.excess_ci95.expect("an interval");
    assert!(low > 0.05 && low < 0.1 && high > 0.1, "{main:?}");
    assert!(found.minimum_detectable_excess.expect("a floor") < 0.03);
    assert!(found.notes.is_empty(), "{:?}", found.notes);
    // Every score sees a topic of its own.
    for rate in &found.scores {
        assert!(rate.excess_ci95.expect("an interval")[0] > 0.02, "{rate:?}");
        assert!(rate.median_current >= rate.median_reference - 0.1 * rate.median_reference.abs());
    }
    // The list's false discovery rate is 5 %: of about 210 queries 10 may be usual ones.
    let listed = found.out_of_distribution;
    assert!((180..=235).contains(&listed), "{listed}");
    assert_eq!(found.worst_queries.len(), 20);
    for query in &found.worst_queries {
        assert!(query.id.contains("foreign"), "{query:?}");
        assert!(query.p_value <= query.p_value_fdr && query.p_value_fdr <= 0.05);
        assert!(query.nearest_id.starts_with("d-usual"));
        assert!(1.0 - query.nearest_cosine <= query.score);
    }
    let ordered = found.worst_queries.windows(2);
    assert!(ordered.into_iter().all(|w| w[0].score >= w[1].score));
}

#[test]
fn neither_order_nor_threads_matter_and_little_data_says_so() {
    let world = world(9, [300, 150, 150], 20);
    let json = |found: &Ood| serde_json::to_string(found).expect("JSON");
    let one = judged(&engine(1), &world);
    let engine = engine(4);
    assert_eq!(json(&one), json(&judged(&engine, &world)));
    let (old, new) = (world.calibration.reversed(), world.queries.reversed());
    assert_eq!(json(&one), json(&judge(&engine, &world.corpus, &old, &new)));
    assert!(one.notes[0].contains("few to calibrate by"));

    // The same queries, embedded anew: compared one by one.
    let mut moved = Philox::new(3, 0);
    let again = Set {
        values: old
            .values
            .iter()
            .map(|v| v + 0.01 * moved.normal() as f32)
            .collect(),
        ids: old.ids.clone(),
    };
    let same = judge(&engine, &world.corpus, &old, &again);
    let [low, high] = same.main().excess_ci95.expect("an interval");
    assert!(same.same_queries && low < 0.0 && high < 0.05, "{same:?}");
    // Equal numbers on other queries are no identity.
    let numbered = Set {
        values: world.queries.values.clone(),
        ids: world.calibration.ids.clone(),
    };
    let other = judge(&engine, &world.corpus, &world.calibration, &numbered);
    assert!(!other.same_queries);

    let few = Set::draw(&mut Philox::new(4, 0), "few", 30, 0, 0.2);
    let found = judge(&engine, &world.corpus, &few, &new);
    assert_eq!(found.main().excess_ci95, None);
    assert_eq!(found.minimum_detectable_excess, None);
    assert!(found.notes[0].contains("give no excess rate"));
    // A corpus smaller than k, and one whose rows are all alike, break nothing.
    for corpus in [
        Set::draw(&mut Philox::new(6, 0), "tiny", 3, 0, 0.2),
        Set {
            values: [1.0f32; DIM].repeat(60),
            ids: (0..60).map(|i| format!("d{i}")).collect(),
        },
    ] {
        let found = judge(&engine, &corpus, &old, &new);
        for rate in &found.scores {
            assert!(rate.median_current.is_finite(), "{rate:?}");
        }
    }
}

/// A C-ordered matrix of f32, format version 1.0.
fn npy(folder: &Path, name: &str, set: &Set) -> String {
    let path: PathBuf = folder.join(name);
    let mut header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {DIM}), }}",
        set.ids.len()
    );
    while (header.len() + 11) % 64 != 0 {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(set.values.iter().flat_map(|v| v.to_le_bytes()));
    std::fs::write(&path, bytes).expect("a file");
    path.display().to_string()
}

struct Files {
    _folder: TempDir,
    corpora: [String; 2],
    logs: [String; 2],
}

/// Two samples of one corpus, and logs of which the second has this many foreign queries.
fn files(queries: [usize; 2], foreign: usize) -> Files {
    let folder = TempDir::new().expect("a folder");
    let mut random = Philox::new(21, 0);
    let mut write = |name: &str, rows, foreign, noise| {
        let set = Set::draw(&mut random, name, rows, foreign, noise);
        npy(folder.path(), name, &set)
    };
    let corpora = [
        write("old.npy", 3_000, 0, 0.15),
        write("new.npy", 2_900, 0, 0.15),
    ];
    let logs = [
        write("queries_old.npy", queries[0], 0, 0.2),
        write("queries_new.npy", queries[1], foreign, 0.2),
    ];
    Files {
        _folder: folder,
        corpora,
        logs,
    }
}

fn audited(files: &Files) -> Audit {
    let [reference, current] = files.logs.clone();
    let config = AuditConfig {
        query_logs: Some(QueryLogs { reference, current }),
        permutations: 199,
        clusters: Some(0),
        ..AuditConfig::new(&files.corpora[0], &files.corpora[1])
    };
    let audited = audit::audit(&config, &engine(2), &Silent);
    audited.expect("an audit").audit
}

fn axis(audit: &Audit) -> AxisState {
    let axes = &audit.verdict.axes;
    let axis = axes.iter().find(|axis| axis.axis == AxisName::Queries);
    axis.expect("the axis").state
}

#[test]
fn the_audit_reviews_coverage_only_where_queries_left_the_corpus() {
    let usual = audited(&files([1_500, 2_500], 0));
    assert_eq!(axis(&usual), AxisState::Ok);
    assert_eq!(
        usual.verdict.action,
        Action::NoAction,
        "{:?}",
        usual.verdict
    );

    let foreign = audited(&files([1_500, 2_500], 250));
    assert_eq!(axis(&foreign), AxisState::Broken);
    assert_eq!(foreign.verdict.action, Action::ReviewCoverage);
    let reason = &foreign.verdict.reason;
    assert!(
        reason.contains("people ask for what the corpus does not hold"),
        "{reason}"
    );

    // A twentieth: above what may be ignored, not above what calls for a review.
    let some = audited(&files([1_500, 2_500], 120));
    assert_eq!(axis(&some), AxisState::Shifted);
    assert_eq!(some.verdict.action, Action::Monitor);

    let few = audited(&files([50, 60], 0));
    assert_eq!(axis(&few), AxisState::Unknown);
    assert_eq!(few.verdict.action, Action::Inconclusive);
}

#[test]
fn gates_and_text_speak_of_queries() {
    let files = files([1_500, 2_500], 250);
    let run = |args: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_vecdrift"))
            .args(["audit", &files.corpora[0], &files.corpora[1]])
            .args(["--device", "cpu", "--quiet", "--permutations", "199"])
            .args(["--clusters", "0"])
            .args(args)
            .output()
            .expect("the binary runs")
    };
    let logs = |gate: &'static str| {
        let [old, new] = &files.logs;
        let queries = ["--queries-reference", old, "--queries-current", new];
        run(&[&queries[..], &["--gate", gate]].concat())
    };
    let failed = logs("ood_excess<0.02");
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8(failed.stdout).expect("UTF-8");
    assert!(said.contains("queries         broken"), "{said}");
    assert!(said.contains("queries out of distribution"), "{said}");
    assert_eq!(logs("ood_rate>0.1,ood_excess>0.05").status.code(), Some(0));
    // Nothing to measure it by: undecided. One log alone is refused.
    assert_eq!(run(&["--gate", "ood_excess<0.02"]).status.code(), Some(3));
    let alone = run(&["--queries-current", &files.logs[1]]);
    assert_eq!(alone.status.code(), Some(2));
}
