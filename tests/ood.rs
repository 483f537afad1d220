//! Queries that ask for what the corpus does not hold: no alarm beyond the promised rate where nothing
//! changed, the planted share where something did, and what the audit makes of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use vecdrift::audit::gate::audit_measures;
use vecdrift::audit::{self, Action, Audit, AuditConfig, AxisName, AxisState, QueryLogs};
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig, Silent};
use vecdrift::metrics::ood::{Identified, Ood, OodConfig, OodScoreName, ood};
use vecdrift::metrics::retrieval::{KnownItems, known_items};
use vecdrift::stats::paired::Resampling;
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

/// Chunks of 60 documents: a document is a direction, its chunks scatter about it.
fn chunks(noise: f64) -> (Set, Vec<String>) {
    let mut random = Philox::new(31, 0);
    let centres: Vec<f64> = (0..60 * DIM).map(|_| random.normal()).collect();
    let mut scatter = Philox::new(32, 0);
    let documents = (0..240).map(|chunk| format!("document-{}", chunk % 60));
    let values = (0..240).flat_map(|chunk| &centres[chunk % 60 * DIM..][..DIM]);
    let set = Set {
        values: values
            .map(|centre| (centre + noise * scatter.normal()) as f32)
            .collect(),
        ids: (0..240).map(|i| format!("chunk-{i}")).collect(),
    };
    (set, documents.collect())
}

fn searched(old: &Set, new: &Set, documents: &[String], seed: u64) -> Option<KnownItems> {
    let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
    let resampling = Resampling {
        seed,
        ..Resampling::default()
    };
    let rows = (Rows::new(&old.values, DIM), Rows::new(&new.values, DIM));
    known_items(&engine(2), rows, &old.ids, &documents, &resampling).expect("a search")
}

#[test]
fn chunks_find_their_document_until_noise_hides_it() {
    let recall = |found: &KnownItems| {
        let metric = found.metrics.iter().find(|m| m.metric == "recall_at_10");
        metric.expect("recall").clone()
    };
    let ((good, documents), (bad, _)) = (chunks(0.3), chunks(3.0));
    let same = searched(&good, &good, &documents, 0).expect("known items");
    assert_eq!((same.queries, same.documents, same.exact), (60, 60, true));
    // A chunk is no answer to itself, the three others all are.
    assert_eq!(recall(&same).reference, 1.0);
    assert_eq!(recall(&same).difference.ties, 60);
    let worse = searched(&good, &bad, &documents, 0).expect("known items");
    let change = recall(&worse);
    assert!(change.difference.mean < -0.5 && change.p_value_holm < 0.01);
    assert!(worse.flips.negative > 10 && worse.flips.positive == 0);
    // A little noise both ways is no loss, whichever chunks are drawn.
    let (moderate, _) = chunks(1.2);
    let again = Set {
        values: {
            let mut scatter = Philox::new(33, 0);
            let values = moderate.values.iter();
            values
                .map(|v| v + (0.2 * scatter.normal()) as f32)
                .collect()
        },
        ids: moderate.ids.clone(),
    };
    let rejected = (0..20).filter(|&seed| {
        let found = searched(&moderate, &again, &documents, seed).expect("known items");
        found.metrics.iter().any(|m| m.p_value_holm < 0.01)
    });
    assert!(rejected.count() <= 1);
    // Nobody's chunks, or too few documents: no known items.
    let alone: Vec<String> = (0..240).map(|i| i.to_string()).collect();
    assert!(searched(&good, &good, &alone, 0).is_none());
    let few: Vec<String> = (0..240).map(|i| (i % 12).to_string()).collect();
    assert!(searched(&good, &good, &few, 0).is_none());
}

fn grouped_parquet(path: &Path, set: &Set, documents: &[String]) {
    let item = Arc::new(Field::new("item", DataType::Float32, false));
    let values = Arc::new(Float32Array::from(set.values.clone()));
    let vectors = FixedSizeListArray::new(item, DIM as i32, values, None);
    let columns: [(&str, ArrayRef); 3] = [
        (
            "id",
            Arc::new(StringArray::from_iter_values(set.ids.iter())),
        ),
        (
            "document",
            Arc::new(StringArray::from_iter_values(documents)),
        ),
        ("embedding", Arc::new(vectors)),
    ];
    let batch = RecordBatch::try_from_iter(columns).expect("a table");
    let file = std::fs::File::create(path).expect("a file");
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).expect("a writer");
    writer.write(&batch).expect("rows");
    writer.close().expect("a footer");
}

/// Known items stand beside the missing golden queries and decide nothing.
#[test]
fn the_audit_lets_chunks_search_where_groups_are_given() {
    let fixture = |name: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
        folder.join(name).display().to_string()
    };
    // The fixtures' twelve sections are too few to be documents, and the audit says so.
    let config = AuditConfig {
        group: Some("section".to_owned()),
        permutations: 99,
        ..AuditConfig::new(fixture("reference.parquet"), fixture("current.parquet"))
    };
    let audited = audit::audit(&config, &engine(2), &Silent).expect("an audit");
    assert!(audited.audit.known_items.is_none());
    let reason = audited
        .audit
        .not_measured
        .iter()
        .find(|n| n.measure == "known items");
    let reason = &reason.expect("a reason").reason;
    assert!(reason.contains("at least 20 values of section"), "{reason}");

    let folder = TempDir::new().expect("a folder");
    let ((old, documents), (new, _)) = (chunks(0.3), chunks(3.0));
    let write = |name: &str, set: &Set| {
        let path = folder.path().join(name);
        grouped_parquet(&path, set, &documents);
        path.display().to_string()
    };
    let config = AuditConfig {
        group: Some("document".to_owned()),
        permutations: 99,
        ..AuditConfig::new(write("old.parquet", &old), write("new.parquet", &new))
    };
    let audit = audit::audit(&config, &engine(2), &Silent)
        .expect("an audit")
        .audit;
    assert_eq!(audit.known_items.as_ref().expect("known items").queries, 60);
    let mut axes = audit.verdict.axes.iter();
    let axis = axes.find(|axis| axis.axis == AxisName::Retrieval);
    let axis = axis.expect("the axis");
    assert_eq!(axis.state, AxisState::Unknown);
    let said = &axis.evidence[1].statement;
    assert!(
        said.contains("no measure of what people search for"),
        "{said}"
    );
    let measures = audit_measures(&audit);
    let loss = measures
        .iter()
        .find(|m| m.name == "known_items.recall@10.loss");
    assert!(loss.expect("a measure").ci95.expect("an interval")[0] > 0.3);
}
