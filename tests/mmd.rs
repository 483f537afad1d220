//! The two-sample test through the engine: golden values, level, power and invariances.

use serde_json::Value;
use vecdrift::embeddings::{Ids, Rows};
use vecdrift::engine::{DeviceChoice, Engine, EngineConfig};
use vecdrift::metrics::mmd::{
    EquivalenceState, Mmd, MmdConfig, Pairing, SameGroupPairs, Sample, mmd,
};
use vecdrift::stats::rng::Philox;

fn engine() -> Engine {
    Engine::new(&EngineConfig {
        device: DeviceChoice::Cpu,
        ..EngineConfig::default()
    })
    .unwrap()
}

/// A sample that owns its rows.
#[derive(Clone, Default)]
struct Set {
    dim: usize,
    values: Vec<f32>,
    ids: Vec<String>,
    groups: Option<Vec<String>>,
}

impl Set {
    fn new(dim: usize) -> Self {
        Self {
            dim,
            ..Self::default()
        }
    }

    fn push(&mut self, id: String, row: &[f64]) {
        assert_eq!(row.len(), self.dim);
        self.ids.push(id);
        self.values.extend(row.iter().map(|&v| v as f32));
    }

    fn len(&self) -> usize {
        self.ids.len()
    }

    /// The same rows, last to first.
    fn reversed(&self) -> Self {
        let mut set = Self::new(self.dim);
        for i in (0..self.len()).rev() {
            set.ids.push(self.ids[i].clone());
            set.values
                .extend_from_slice(&self.values[i * self.dim..(i + 1) * self.dim]);
        }
        set.groups = self
            .groups
            .as_ref()
            .map(|groups| groups.iter().rev().cloned().collect());
        set
    }

    fn map(mut self, change: impl Fn(&[f32], &mut [f64])) -> Self {
        let mut changed = vec![0.0; self.dim];
        for row in self.values.chunks_mut(self.dim) {
            change(row, &mut changed);
            for (v, &c) in row.iter_mut().zip(&changed) {
                *v = c as f32;
            }
        }
        self
    }
}

fn compare(engine: &Engine, x: &Set, y: &Set, config: &MmdConfig) -> vecdrift::Result<Mmd> {
    let ids: [Ids; 2] = [x.ids.iter().collect(), y.ids.iter().collect()];
    mmd(
        engine,
        Sample {
            rows: Rows::new(&x.values, x.dim),
            ids: &ids[0],
            groups: x.groups.as_deref(),
        },
        Sample {
            rows: Rows::new(&y.values, y.dim),
            ids: &ids[1],
            groups: y.groups.as_deref(),
        },
        config,
    )
}

/// A world of topics: a row is a topic's centre plus noise.
struct World {
    centres: Vec<Vec<f64>>,
    noise: f64,
}

impl World {
    fn new(topics: usize, dim: usize) -> Self {
        let mut random = Philox::new(77, dim as u64);
        let centres = (0..topics).map(|_| (0..dim).map(|_| random.normal()).collect());
        Self {
            centres: centres.collect(),
            noise: 0.7,
        }
    }

    fn dim(&self) -> usize {
        self.centres[0].len()
    }

    fn row(&self, random: &mut Philox) -> Vec<f64> {
        let topic = random.below(self.centres.len() as u32) as usize;
        let centre = &self.centres[topic];
        centre
            .iter()
            .map(|c| c + self.noise * random.normal())
            .collect()
    }

    fn set(&self, prefix: &str, n: usize, random: &mut Philox) -> Set {
        let mut set = Set::new(self.dim());
        for i in 0..n {
            set.push(format!("{prefix}{i}"), &self.row(random));
        }
        set
    }
}

fn near(row: &[f64], noise: f64, random: &mut Philox) -> Vec<f64> {
    row.iter().map(|v| v + noise * random.normal()).collect()
}

/// Runs 0 … `runs` − 1 on plain threads: within a rayon job, each parallel loop of a run would start other
/// runs while it waits, one deeper in the stack than the other.
fn simulate<T: Send>(runs: u64, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let run = &run;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|first| scope.spawn(move || (first..runs).step_by(threads).map(run).collect()))
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| -> Vec<T> { worker.join().unwrap() })
            .collect()
    })
}

const RUNS: u64 = 400;

/// Rejections at 5 % by the two tests over seeded runs.
fn rejections(runs: u64, draw: impl Fn(&mut Philox) -> (Set, Set) + Sync) -> [usize; 2] {
    let engine = engine();
    let p_values: Vec<[f64; 2]> = simulate(runs, |run| {
        let (x, y) = draw(&mut Philox::new(1_000 + run, 0));
        let config = MmdConfig {
            permutations: 199,
            seed: run,
            // Blocks of a few rows even of so few rows, and 16 on either side.
            blocks: 64,
            ..MmdConfig::default()
        };
        let result = compare(&engine, &x, &y, &config).unwrap();
        [result.p_value.unwrap(), result.dispersion_p_value.unwrap()]
    });
    [0, 1].map(|test| p_values.iter().filter(|p| p[test] <= 0.05).count())
}

/// 400 tests at 5 % reject 20 ± 4.4 times: 7 to 36 is what chance gives but once in a thousand.
fn assert_level(draw: impl Fn(&mut Philox) -> (Set, Set) + Sync) {
    for count in rejections(RUNS, draw) {
        assert!(
            (7..=36).contains(&count),
            "{count} of {RUNS} rejected at 5 %"
        );
    }
}

#[test]
fn level_of_independent_samples() {
    let world = World::new(5, 8);
    assert_level(|random| (world.set("x", 60, random), world.set("y", 60, random)));
}

#[test]
fn level_of_unequal_sizes() {
    let world = World::new(5, 8);
    // 280 against 16: more than 16 to 1, so that part of the larger side is left out of the test.
    assert_level(|random| (world.set("x", 16, random), world.set("y", 280, random)));
}

#[test]
fn level_of_paired_samples() {
    let world = World::new(5, 8);
    assert_level(|random| {
        let (mut x, mut y) = (Set::new(8), Set::new(8));
        for i in 0..60 {
            let item = world.row(random);
            x.push(format!("{i}"), &near(&item, 0.3, random));
            y.push(format!("{i}"), &near(&item, 0.3, random));
        }
        (x, y)
    });
}

#[test]
fn level_of_overlapping_samples() {
    let world = World::new(5, 8);
    assert_level(|random| {
        let (mut x, mut y) = (world.set("x", 30, random), world.set("y", 24, random));
        for i in 0..30 {
            let item = world.row(random);
            // Half of the shared items are the same vector, the others were embedded twice.
            let noise = if i % 2 == 0 { 0.0 } else { 0.3 };
            x.push(format!("{i}"), &near(&item, noise, random));
            y.push(format!("{i}"), &near(&item, noise, random));
        }
        (x, y)
    });
}

/// Documents of 1 to 5 near-duplicate chunks.
fn documents(world: &World, prefix: &str, documents: usize, random: &mut Philox) -> Set {
    let mut set = Set::new(world.dim());
    let mut groups = Vec::new();
    for document in 0..documents {
        let item = world.row(random);
        for chunk in 0..=random.below(5) {
            set.push(
                format!("{prefix}{document}/{chunk}"),
                &near(&item, 0.05, random),
            );
            groups.push(format!("{prefix}{document}"));
        }
    }
    set.groups = Some(groups);
    set
}

#[test]
fn level_of_chunked_documents_holds_with_groups_only() {
    let world = World::new(5, 8);
    let draw = |random: &mut Philox| {
        (
            documents(&world, "x", 40, random),
            documents(&world, "y", 40, random),
        )
    };
    assert_level(draw);
    // Negative control: taken as independent rows, the same documents are "different" far too often.
    let [naive, _] = rejections(40, |random| {
        let (x, y) = draw(random);
        let bare = |set| Set {
            groups: None,
            ..set
        };
        (bare(x), bare(y))
    });
    assert!(naive > 10, "{naive} of 40 rejected at 5 %");
}

#[test]
fn a_shift_is_found_and_its_noise_floor_is_that_of_no_shift() {
    let world = World::new(5, 8);
    let [found, _] = rejections(20, |random| {
        let y = world.set("y", 100, random).map(|row, to| {
            for (to, &v) in to.iter_mut().zip(row) {
                *to = f64::from(v) + 0.35;
            }
        });
        (world.set("x", 100, random), y)
    });
    assert!(found >= 16, "{found} of 20 shifts found");

    let random = &mut Philox::new(9, 0);
    let (x, y) = (world.set("x", 200, random), world.set("y", 200, random));
    let shifted = y.clone().map(|row, to| {
        for (to, &v) in to.iter_mut().zip(row) {
            *to = f64::from(v) + 1.0;
        }
    });
    let config = MmdConfig {
        bandwidth: Some(3.0),
        permutations: 1_999,
        ..MmdConfig::default()
    };
    let null = compare(&engine(), &x, &y, &config).unwrap();
    let far = compare(&engine(), &x, &shifted, &config).unwrap();
    assert!(far.mmd2_unbiased > 50.0 * null.noise_floor.unwrap());
    let ratio = far.noise_floor.unwrap() / null.noise_floor.unwrap();
    // The shifted sample is as spread out as before; only the cross terms are other ones.
    assert!((0.7..1.3).contains(&ratio), "{ratio}");
    let lower = far.effect.ci95.unwrap()[0];
    assert!(lower > 0.1 && far.equivalence.state == EquivalenceState::Shifted);
    let wide = MmdConfig {
        margin: 2.0,
        ..config
    };
    let null = compare(&engine(), &x, &y, &wide).unwrap();
    assert_eq!(null.equivalence.state, EquivalenceState::Equivalent);
}

/// The noise floor is the standard deviation of MMD² over samples of one distribution.
#[test]
fn noise_floor_is_the_spread_of_the_estimate() {
    let world = World::new(5, 8);
    let engine = engine();
    let runs: Vec<(f64, f64)> = simulate(200, |run| {
        let random = &mut Philox::new(run, 5);
        let (x, y) = (world.set("x", 50, random), world.set("y", 80, random));
        let config = MmdConfig {
            bandwidth: Some(3.0),
            permutations: 199,
            ..MmdConfig::default()
        };
        let result = compare(&engine, &x, &y, &config).unwrap();
        (result.mmd2_unbiased, result.noise_floor.unwrap())
    });
    let n = runs.len() as f64;
    let sd = (runs.iter().map(|r| r.0 * r.0).sum::<f64>() / n).sqrt();
    let floor = runs.iter().map(|r| r.1).sum::<f64>() / n;
    // The sd of 200 skewed values is known to about 8 %.
    assert!(
        (floor / sd - 1.0).abs() < 0.25,
        "floor {floor}, spread {sd}"
    );
}

#[test]
fn a_wider_spread_is_found_by_dispersion() {
    // Wider topics in the same places.
    let world = World::new(8, 32);
    let wider = World {
        noise: 1.2 * world.noise,
        ..World::new(8, 32)
    };
    let [mmd, dispersion] = rejections(40, |random| {
        (world.set("x", 120, random), wider.set("y", 120, random))
    });
    assert!(dispersion >= 36, "{dispersion} of 40 found by dispersion");
    assert!(3 * mmd <= dispersion, "{mmd} of 40 found by the MMD");
}

/// The interval covers the truth, here the MMD² of two large samples.
#[test]
fn interval_of_the_effect_covers_the_truth() {
    let world = World::new(5, 8);
    let engine = engine();
    let config = MmdConfig {
        bandwidth: Some(3.0),
        permutations: 0,
        ..MmdConfig::default()
    };
    let draw = |n: usize, stream: u64| {
        let random = &mut Philox::new(4, stream);
        let y = world.set("y", n, random).map(|row, to| {
            for (to, &v) in to.iter_mut().zip(row) {
                *to = f64::from(v) + 0.4;
            }
        });
        compare(&engine, &world.set("x", n, random), &y, &config).unwrap()
    };
    let truth = draw(1_500, 0).mmd2_unbiased;
    let covers = simulate(60, |run| {
        let effect = draw(100, 1 + run).effect;
        // Each run has its own M2: compare on the scale of MMD².
        let m2 = effect.reference_m2.unwrap();
        let [lower, upper] = effect.ci95.unwrap().map(|eps| eps * eps * m2);
        (lower..=upper).contains(&truth)
    });
    let covered = covers.iter().filter(|&&covers| covers).count();
    // 95 % of 60 is 57; fewer than 51 happens once in a thousand, and the truth has its own error.
    assert!(covered >= 51, "{covered} of 60 intervals cover {truth}");
}

fn assert_close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} and {b}");
}

#[test]
fn golden_values_through_the_engine() {
    let golden: Value = serde_json::from_str(include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/golden/mmd.json"
    )))
    .unwrap();
    let set = |rows: &Value, prefix: &str| {
        let mut set = Set::new(3);
        for (i, row) in rows.as_array().unwrap().iter().enumerate() {
            let row: Vec<f64> = row
                .as_array()
                .unwrap()
                .iter()
                .map(|v| v.as_f64().unwrap())
                .collect();
            set.push(format!("{prefix}{i}"), &row);
        }
        set
    };
    // Inputs are rounded to f32, and so are sums: a few units of 6e-8.
    let tolerance = 1e-6;
    let number = |value: &Value| value.as_f64().unwrap();
    let (x, y) = (set(&golden["X"], "x"), set(&golden["Y"], "y"));
    let median = compare(&engine(), &x, &y, &MmdConfig::default()).unwrap();
    assert_close(
        median.bandwidth.unwrap().powi(2),
        number(&golden["median_d2_pooled"]),
        tolerance,
    );
    let base = &golden["cases"][0];
    let fixed = |gamma: f64| MmdConfig {
        bandwidth: Some((0.5 / gamma).sqrt()),
        ..MmdConfig::default()
    };
    let result = compare(&engine(), &x, &y, &fixed(number(&base["g"]))).unwrap();
    assert_close(result.mmd2_unbiased, number(&base["unbiased"]), tolerance);
    assert_close(
        result.mmd2_biased.unwrap(),
        number(&base["biased"]),
        tolerance,
    );
    assert_close(
        result.dispersion.abs(),
        number(&base["dispersion_D"]),
        tolerance,
    );
    let energy = result.kernels.last().unwrap();
    assert_close(
        energy.mmd2_unbiased,
        number(&golden["cases"][5]["unbiased"]),
        5e-6,
    );
    assert_eq!((result.permutations, result.all_relabellings), (125, true));
    assert_eq!(result.p_value, Some(1.0 / 126.0));
    assert_eq!(result.smallest_p_value, Some(1.0 / 126.0));
    assert_eq!(result.pairing, Pairing::Independent);
    assert_eq!(result.pairs, 36);

    let config = fixed(0.7);
    let x = set(&golden["X"], "");
    let paired = compare(&engine(), &x, &set(&golden["paired"]["Y"], ""), &config).unwrap();
    let expected = number(&golden["paired"]["mmd2_u_paired"]);
    assert_close(paired.mmd2_paired.unwrap(), expected, tolerance);
    assert_eq!((paired.pairing, paired.shared_ids), (Pairing::Paired, 5));
    assert_eq!(paired.permutations, 31);

    let mut y = set(&golden["shared_ids"]["Y"], "");
    y.ids = ["0", "1", "y2", "y3"].map(String::from).to_vec();
    let shared = compare(&engine(), &x, &y, &config).unwrap();
    let expected = number(&golden["shared_ids"]["mmd2_naive"]);
    assert_close(shared.mmd2_unbiased, expected, tolerance);
    let effect = number(&golden["shared_ids"]["mmd2_excl"]);
    if let (Some(eps), Some(m2)) = (shared.effect.eps_eq, shared.effect.reference_m2) {
        assert_close(eps * eps * m2, effect, tolerance);
    }
    assert_eq!(
        (shared.pairing, shared.shared_ids),
        (Pairing::Overlapping, 2)
    );
}

fn example() -> (Set, Set) {
    let world = World::new(5, 8);
    let random = &mut Philox::new(31, 0);
    let (mut x, mut y) = (world.set("x", 150, random), world.set("y", 110, random));
    for i in 0..70 {
        let item = world.row(random);
        x.push(format!("{i}"), &item);
        y.push(format!("{i}"), &near(&item, 0.3, random));
    }
    let y = y.map(|row, to| {
        for (to, &v) in to.iter_mut().zip(row) {
            *to = 1.1 * f64::from(v);
        }
    });
    (x, y)
}

#[test]
fn the_order_of_rows_and_the_threads_change_no_bit() {
    let (x, y) = example();
    let config = MmdConfig {
        permutations: 499,
        ..MmdConfig::default()
    };
    let result = compare(&engine(), &x, &y, &config).unwrap();
    assert_eq!(
        result,
        compare(&engine(), &x.reversed(), &y.reversed(), &config).unwrap()
    );
    let one_thread = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    assert_eq!(
        result,
        one_thread.install(|| compare(&engine(), &x, &y, &config).unwrap())
    );
    let reseeded = MmdConfig { seed: 1, ..config };
    assert_ne!(result, compare(&engine(), &x, &y, &reseeded).unwrap());

    let world = World::new(5, 8);
    let random = &mut Philox::new(3, 0);
    let (x, y) = (
        documents(&world, "x", 50, random),
        documents(&world, "y", 50, random),
    );
    assert_eq!(
        compare(&engine(), &x, &y, &reseeded).unwrap(),
        compare(&engine(), &x.reversed(), &y.reversed(), &reseeded).unwrap()
    );
}

#[test]
fn swapping_and_rotating_the_samples_change_nothing_but_rounding() {
    let (x, y) = example();
    let config = MmdConfig {
        permutations: 499,
        ..MmdConfig::default()
    };
    let result = compare(&engine(), &x, &y, &config).unwrap();
    let swapped = compare(&engine(), &y, &x, &config).unwrap();
    // Sums of about 1e5 kernels near 1 in f32 tiles.
    let tolerance = 1e-7;
    assert_close(result.mmd2_unbiased, swapped.mmd2_unbiased, tolerance);
    assert_close(
        result.mmd2_biased.unwrap(),
        swapped.mmd2_biased.unwrap(),
        tolerance,
    );
    assert_close(result.dispersion, -swapped.dispersion, tolerance);

    let mut random = Philox::new(12, 0);
    let mut axes: Vec<Vec<f64>> = Vec::new();
    while axes.len() < 8 {
        let mut axis: Vec<f64> = (0..8).map(|_| random.normal()).collect();
        for other in &axes {
            let dot: f64 = axis.iter().zip(other).map(|(a, b)| a * b).sum();
            axis.iter_mut().zip(other).for_each(|(a, b)| *a -= dot * b);
        }
        let norm = axis.iter().map(|a| a * a).sum::<f64>().sqrt();
        axis.iter_mut().for_each(|a| *a /= norm);
        axes.push(axis);
    }
    let rotate = |set: Set| {
        set.map(|row, to| {
            for (to, axis) in to.iter_mut().zip(&axes) {
                *to = row.iter().zip(axis).map(|(&v, a)| f64::from(v) * a).sum();
            }
        })
    };
    let rotated = compare(&engine(), &rotate(x), &rotate(y), &config).unwrap();
    assert_close(result.mmd2_unbiased, rotated.mmd2_unbiased, 1e-6);
    assert_close(result.bandwidth.unwrap(), rotated.bandwidth.unwrap(), 1e-6);
    // The same relabellings of nearly the same sums: at most a tie falls the other way.
    let p = |result: &Mmd| result.p_value.unwrap();
    assert_close(p(&result), p(&rotated), 2.5 / 500.0);
}

#[test]
fn equal_vectors_are_no_evidence() {
    let world = World::new(5, 8);
    let random = &mut Philox::new(8, 0);
    let x = world.set("", 300, random);
    let config = MmdConfig {
        permutations: 199,
        ..MmdConfig::default()
    };
    let same = compare(&engine(), &x, &x.reversed(), &config).unwrap();
    assert_eq!(
        (same.p_value, same.dispersion_p_value),
        (Some(1.0), Some(1.0))
    );
    assert_close(same.mmd2_paired.unwrap(), 0.0, 1e-7);
    assert_close(same.mmd2_biased.unwrap(), 0.0, 1e-7);
    assert_eq!(same.notes.len(), 1);

    let mut constant = Set::new(2);
    for i in 0..9 {
        constant.push(format!("{i}"), &[0.6, 0.8]);
    }
    let mut other = constant.clone();
    other.ids.iter_mut().for_each(|id| id.push('y'));
    let equal = compare(&engine(), &constant, &other, &config).unwrap();
    assert_eq!((equal.mmd2_unbiased, equal.bandwidth), (0.0, None));
    assert_eq!(equal.p_value, Some(1.0));

    // More than half of the distances are 0: the median is no scale, the mean is.
    let far = other.clone().map(|_, to| to.copy_from_slice(&[-0.6, 0.8]));
    let mut mostly = constant.clone();
    mostly.values.extend_from_slice(&far.values[..2]);
    mostly.ids.push("odd".into());
    let fallback = compare(&engine(), &mostly, &other, &config).unwrap();
    assert!(fallback.bandwidth_rule.starts_with("mean distance"));
    assert!(fallback.mmd2_unbiased.is_finite());
}

#[test]
fn a_sample_keeps_the_same_items_on_both_sides() {
    let (x, y) = example();
    let config = MmdConfig {
        permutations: 99,
        sample: Some(100),
        ..MmdConfig::default()
    };
    let result = compare(&engine(), &x, &y, &config).unwrap();
    assert!(!result.exact);
    assert!((70..=130).contains(&result.used_reference));
    assert!((70..=130).contains(&result.used_current));
    // 220 and 180 rows: shares of 0.45 and 0.56, nested; 70 shared ids leave about 32.
    assert!(
        (18..=46).contains(&result.shared_ids),
        "{}",
        result.shared_ids
    );
    assert_eq!((result.n_reference, result.n_current), (220, 180));
}

#[test]
fn groups_are_told_from_ids() {
    let world = World::new(5, 8);
    let random = &mut Philox::new(2, 0);
    let (x, y) = (
        documents(&world, "", 40, random),
        documents(&world, "", 40, random),
    );
    let result = compare(&engine(), &x, &y, &MmdConfig::default()).unwrap();
    assert_eq!(result.same_group_pairs, SameGroupPairs::Excluded);
    assert_eq!(result.pairing, Pairing::Paired);
    assert_eq!(result.mmd2_biased, None);
    assert_eq!(result.mmd2_paired, Some(result.mmd2_unbiased));
    assert_eq!(result.blocks.paired, 40);
}

#[test]
fn refusals_say_what_is_wrong() {
    let world = World::new(5, 8);
    let random = &mut Philox::new(2, 0);
    let x = world.set("x", 20, random);
    let message = |x: &Set, y: &Set, config: &MmdConfig| {
        let error = compare(&engine(), x, y, config).unwrap_err();
        assert!(error.is_input());
        error.to_string()
    };
    let config = MmdConfig::default();
    assert_eq!(
        message(&x, &world.set("y", 1, random), &config),
        "current: 1 rows, the MMD needs at least 2"
    );
    let narrow = World::new(5, 4).set("y", 20, random);
    assert!(message(&x, &narrow, &config).contains("dimension 8, current has 4"));
    let mut twice = world.set("y", 20, random);
    twice.ids[3] = "y4".into();
    assert_eq!(
        message(&x, &twice, &config),
        "current: id \"y4\" stands on 2 rows, expected unique ids"
    );
    let fixed = |sigma| MmdConfig {
        bandwidth: Some(sigma),
        ..MmdConfig::default()
    };
    for sigma in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-40] {
        message(&x, &x, &fixed(sigma));
    }
}

/// Every shape of samples gives a result: small, uneven, with all kinds of overlap.
#[test]
fn every_shape_gives_a_result() {
    let world = World::new(5, 8);
    let engine = engine();
    let config = MmdConfig {
        permutations: 99,
        ..MmdConfig::default()
    };
    for (only_x, only_y, both) in [
        (2, 2, 0),
        (2, 40, 0),
        (0, 0, 2),
        (0, 0, 3),
        (1, 1, 1),
        (1, 0, 2),
        (0, 5, 2),
        (40, 0, 40),
        (3, 700, 1),
        (700, 3, 40),
        (33, 65, 17),
    ] {
        let random = &mut Philox::new(6, 0);
        let (mut x, mut y) = (
            world.set("x", only_x, random),
            world.set("y", only_y, random),
        );
        for i in 0..both {
            x.push(format!("{i}"), &world.row(random));
            y.push(format!("{i}"), &world.row(random));
        }
        let result = compare(&engine, &x, &y, &config).unwrap();
        let p = result.p_value.unwrap();
        let floor = result.smallest_p_value.unwrap();
        assert!(floor <= p && p <= 1.0, "{only_x} {only_y} {both}: {p}");
        let all = (x.len() + y.len()) as u64;
        assert_eq!(result.pairs, all * (all - 1) / 2 - both as u64);
        assert_eq!(result.n_reference, x.len() as u64);
        let json = serde_json::to_value(&result).unwrap();
        assert!(json["mmd2_unbiased"].is_f64() && json["noise_floor"].is_f64());
    }
}
