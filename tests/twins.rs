//! Every operation on every engine against the f64 oracles, on shapes and data that hurt.
//!
//! CPU engines must moreover agree with each other in every bit. A GPU engine takes part where
//! `VECDRIFT_REQUIRE_GPU=1` is set, and then must open.

use std::hash::Hasher;
use std::process::Command;

use vecdrift::embeddings::Rows;
use vecdrift::engine::{
    BlockLayout, DeviceChoice, Engine, EngineConfig, GramProducts, KernelFamily, Metric, Neighbors,
    PairHistogram, PairSums, SelfExclusion, cpu,
};
use vecdrift::stats::rng::Philox;

use crate::oracle::{self, Bounded, tolerance};

/// Chooses the CPU kernel; see `vecdrift::engine::cpu`.
const CPU_KERNEL: &str = "VECDRIFT_CPU_KERNEL";

// Engines.

fn open(device: DeviceChoice, threads: Option<usize>, memory: u64) -> vecdrift::Result<Engine> {
    Engine::new(&EngineConfig {
        device,
        threads,
        memory,
        ..EngineConfig::default()
    })
}

/// One and four threads, blocks of 64 rows and of as many as there are.
fn cpu_engines() -> Vec<(String, Engine)> {
    let mut engines = Vec::new();
    for threads in [1, 4] {
        for memory in [0, 512 << 20] {
            let engine = open(DeviceChoice::Cpu, Some(threads), memory).expect("the CPU opens");
            let name = format!(
                "{}, {threads} threads, {memory} bytes",
                engine.device().precision
            );
            engines.push((name, engine));
        }
    }
    engines
}

/// The GPU, where one is required.
fn gpu_engines() -> Vec<(String, Engine)> {
    if std::env::var_os("VECDRIFT_REQUIRE_GPU").is_none_or(|v| v != "1") {
        println!("SKIPPED: no GPU twin ran; set VECDRIFT_REQUIRE_GPU=1 to require one");
        return Vec::new();
    }
    [0, 512 << 20]
        .map(|memory| {
            let engine = open(DeviceChoice::Gpu, None, memory).expect("a GPU is required");
            let name = format!("{}, {memory} bytes", engine.device().name);
            (name, engine)
        })
        .into()
}

// Data.

/// What the rows of a case are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Data {
    /// Standard normal.
    Normal,
    /// A cloud of width 10⁻³ around a point at distance about 1,000·√d.
    FarNearDuplicates,
    /// One row again and again.
    AllEqual,
    /// Few normal rows, each many times: ties, and distances of 0 that round below it.
    Repeated,
    /// Normal × 10³⁰.
    Huge,
    /// Normal × 10⁻³⁰.
    Tiny,
    /// 0, −0, 1 and −1.
    SignedZeros,
    /// Subnormal values only.
    Subnormal,
    /// Sorted by similarity to one direction: neighbours in one bin.
    Sorted,
    /// Normal rows, each × 10⁻³⁰, 1 or 10³⁰.
    Mixed,
}

const ALL_DATA: [Data; 10] = [
    Data::Normal,
    Data::FarNearDuplicates,
    Data::AllEqual,
    Data::Repeated,
    Data::Huge,
    Data::Tiny,
    Data::SignedZeros,
    Data::Subnormal,
    Data::Sorted,
    Data::Mixed,
];

impl Data {
    /// `rows` rows without a zero row.
    fn draw(self, rows: usize, dim: usize, rng: &mut Philox) -> Vec<f32> {
        let mut normal = |scale: f64| -> Vec<f32> {
            (0..rows * dim)
                .map(|_| (scale * rng.normal()) as f32)
                .collect()
        };
        let mut values = match self {
            Self::Normal | Self::Sorted => normal(1.0),
            // From a stream of its own, so that both sets repeat the same rows.
            Self::Repeated => {
                let mut few = Philox::new(5, dim as u64);
                let values: Vec<f32> = (0..5 * dim).map(|_| few.normal() as f32).collect();
                values.into_iter().cycle().take(rows * dim).collect()
            }
            Self::Huge => normal(1e30),
            Self::Tiny => normal(1e-30),
            Self::Subnormal => normal(1e-40),
            Self::Mixed => normal(1.0)
                .iter()
                .enumerate()
                .map(|(i, v)| v * [1e-30, 1.0, 1e30][i / dim % 3])
                .collect(),
            Self::FarNearDuplicates => normal(1e-3)
                .iter()
                .enumerate()
                .map(|(i, v)| v + 1000.0 + (i % dim) as f32)
                .collect(),
            Self::AllEqual => (0..rows * dim).map(|i| 0.3 + (i % dim) as f32).collect(),
            Self::SignedZeros => normal(1.0)
                .iter()
                .map(|v| {
                    if v.abs() < 1.0 {
                        0.0f32.copysign(*v)
                    } else {
                        v.signum()
                    }
                })
                .collect(),
        };
        for row in values.chunks_exact_mut(dim) {
            if row.iter().all(|&v| v == 0.0) {
                row[dim - 1] = if self == Self::Subnormal { 1e-40 } else { 1.0 };
            }
        }
        if self == Self::Sorted {
            let mut rows: Vec<Vec<f32>> = values.chunks(dim).map(<[f32]>::to_vec).collect();
            for row in &mut rows {
                row[0] *= 3.0;
            }
            rows.sort_by(|a, b| a[0].total_cmp(&b[0]));
            values = rows.concat();
        }
        values
    }
}

/// A pair of sets and all that the operations are asked about them.
struct Case {
    data: Data,
    n: usize,
    m: usize,
    dim: usize,
    seed: u64,
    x: Vec<f32>,
    y: Vec<f32>,
    /// A third set, of normal rows: n × `other_dim`.
    other: Vec<f32>,
    other_dim: usize,
    /// p × d.
    map: Vec<f32>,
    k: usize,
    /// Group per row of X, then Y.
    groups: Vec<u32>,
    blocks: Vec<Vec<u32>>,
    kernels: KernelFamily,
    row_sums_of: Option<usize>,
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            data,
            n,
            m,
            dim,
            seed,
            ..
        } = self;
        write!(f, "{data:?} {n}×{m}×{dim} seed {seed}")
    }
}

impl Case {
    fn new(data: Data, [n, m, dim]: [usize; 3], seed: u64) -> Self {
        let mut rng = Philox::new(seed, (n * 1000 + m) as u64);
        let (x, y) = (data.draw(n, dim, &mut rng), data.draw(m, dim, &mut rng));
        let other_dim = [1, 5, 65][seed as usize % 3];
        let other = Data::Normal.draw(n, other_dim, &mut rng);
        let map = Data::Normal.draw([1, 17, 65][seed as usize % 3], dim, &mut rng);
        let total = (n + m) as u32;
        // Even seeds: rows of their own. Odd: documents of three rows, some in both sets.
        let groups: Vec<u32> = if seed.is_multiple_of(2) {
            (0..total).collect()
        } else {
            (0..total).map(|row| row % total.div_ceil(3)).collect()
        };
        let blocks = blocks(n, m, seed, &mut rng);
        let mut case = Self {
            data,
            n,
            m,
            dim,
            seed,
            x,
            y,
            other,
            other_dim,
            map,
            k: [1, 10, 100, n.max(m) + 5][seed as usize % 4],
            groups,
            blocks,
            kernels: KernelFamily {
                gamma: 1.0,
                rbf: [5, 1, 3][seed as usize % 3],
                energy: !seed.is_multiple_of(3),
                offsets: Vec::new(),
            },
            row_sums_of: None,
        };
        case.choose_kernels();
        case
    }

    /// Bandwidths and offsets near the distances of the first rows.
    fn choose_kernels(&mut self) {
        let first = self.x().row(0);
        let mean = self
            .y()
            .iter()
            .map(|row| {
                let squares = row
                    .iter()
                    .zip(&*first)
                    .map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
                squares.sum::<f64>() / self.m as f64
            })
            .sum::<f64>();
        self.kernels.gamma = if mean > 0.0 { 0.25 / mean } else { 1.0 };
        self.kernels.offsets = (0..self.kernels.len())
            .map(|j| self.kernels.value(j, mean) as f32)
            .collect();
        self.row_sums_of = (self.seed % 4 < 3).then_some(self.seed as usize % self.kernels.rbf);
    }

    fn x(&self) -> Rows<'_> {
        Rows::new(&self.x, self.dim)
    }

    fn y(&self) -> Rows<'_> {
        Rows::new(&self.y, self.dim)
    }

    fn other(&self) -> Rows<'_> {
        Rows::new(&self.other, self.other_dim)
    }

    fn map(&self) -> Rows<'_> {
        Rows::new(&self.map, self.dim)
    }

    fn exclusion(&self) -> SelfExclusion<'_> {
        SelfExclusion {
            queries: &self.groups[..self.n],
            base: &self.groups[self.n..],
        }
    }

    /// Every row of X excludes itself.
    fn own_rows(&self) -> Vec<u32> {
        (0..self.n as u32).collect()
    }
}

/// Blocks of one set each, of unequal sizes down to one row and none: small ones (16 × 16 sum tiles)
/// for even seeds, large ones (64 × 64) for odd. One row in eight lies in no block.
fn blocks(n: usize, m: usize, seed: u64, rng: &mut Philox) -> Vec<Vec<u32>> {
    let sizes: &[usize] = if seed.is_multiple_of(2) {
        &[1, 17, 32, 2, 16, 5]
    } else {
        &[70, 1, 129, 33]
    };
    let mut blocks = vec![Vec::new()];
    for range in [0..n as u32, n as u32..(n + m) as u32] {
        let mut rows: Vec<u32> = range.collect();
        rng.shuffle(&mut rows);
        rows.truncate((rows.len() * 7).div_ceil(8));
        let mut sizes = sizes.iter().cycle();
        while !rows.is_empty() {
            let size = *sizes.next().expect("a cycle does not end");
            blocks.push(rows.split_off(rows.len().saturating_sub(size)));
        }
    }
    blocks
}

// Answers and their checks.

/// What an engine says about a case.
#[derive(Debug, Clone, PartialEq)]
struct Answers {
    within: PairHistogram,
    between: PairHistogram,
    sums: PairSums,
    cosine_neighbors: Neighbors,
    dot_neighbors: Neighbors,
    own_neighbors: Neighbors,
    gram: GramProducts,
    own_gram: GramProducts,
    projected: Vec<f32>,
}

fn answers(engine: &Engine, case: &Case) -> Answers {
    let (x, y, k) = (case.x(), case.y(), case.k);
    let layout = BlockLayout::new(case.n, &case.blocks, &case.groups);
    let own = case.own_rows();
    let own = SelfExclusion {
        queries: &own,
        base: &own,
    };
    let run = || -> vecdrift::Result<Answers> {
        Ok(Answers {
            within: engine.pair_histogram(x, None)?,
            between: engine.pair_histogram(x, Some(y))?,
            sums: engine.pair_sums(x, y, &layout, &case.kernels, case.row_sums_of)?,
            cosine_neighbors: engine.nearest(x, y, k, Metric::Cosine, None)?,
            dot_neighbors: engine.nearest(x, y, k, Metric::Dot, Some(case.exclusion()))?,
            own_neighbors: engine.nearest(x, x, k, Metric::Cosine, Some(own))?,
            gram: engine.gram(x, case.other())?,
            own_gram: engine.gram(x, x)?,
            projected: engine.project(x, case.map())?,
        })
    };
    run().expect("the device works")
}

/// What the oracles say about a case on a kind of backend.
struct Expected {
    within: Vec<f64>,
    between: Vec<f64>,
    sums: oracle::PairSums,
    cosine_neighbors: Vec<Vec<(f64, u32)>>,
    dot_neighbors: Vec<Vec<(f64, u32)>>,
    own_neighbors: Vec<Vec<(f64, u32)>>,
    gram: ExpectedGram,
    own_gram: ExpectedGram,
    projected: Vec<Bounded>,
    dim: usize,
}

struct ExpectedGram {
    products: Vec<Bounded>,
    x_sums: Vec<Bounded>,
    y_sums: Vec<Bounded>,
}

impl ExpectedGram {
    fn new(x: Rows<'_>, y: Rows<'_>, backend: &str) -> Self {
        Self {
            products: oracle::gram(x, y, backend),
            x_sums: oracle::column_sums(x),
            y_sums: oracle::column_sums(y),
        }
    }

    fn check(&self, got: &GramProducts) -> Result<(), String> {
        check_all("product", &self.products, &got.products)?;
        check_all("column sum of x", &self.x_sums, &got.x_sums)?;
        check_all("column sum of y", &self.y_sums, &got.y_sums)
    }
}

impl Expected {
    fn new(case: &Case, backend: &str) -> Self {
        let (x, y, k) = (case.x(), case.y(), case.k);
        let own = case.own_rows();
        let own = SelfExclusion {
            queries: &own,
            base: &own,
        };
        Self {
            within: oracle::pair_histogram(x, None),
            between: oracle::pair_histogram(x, Some(y)),
            sums: oracle::pair_sums(
                x,
                y,
                &case.blocks,
                &case.groups,
                &case.kernels,
                case.row_sums_of,
                None,
            ),
            cosine_neighbors: oracle::nearest(x, y, k, Metric::Cosine, None),
            dot_neighbors: oracle::nearest(x, y, k, Metric::Dot, Some(case.exclusion())),
            own_neighbors: oracle::nearest(x, x, k, Metric::Cosine, Some(own)),
            gram: ExpectedGram::new(x, case.other(), backend),
            own_gram: ExpectedGram::new(x, x, backend),
            projected: oracle::project(x, case.map()),
            dim: case.dim,
        }
    }

    fn check(&self, got: &Answers) -> Result<(), String> {
        let operation = |name: &'static str| move |fault: String| format!("{name}: {fault}");
        check_histogram(&self.within, self.dim, &got.within)
            .map_err(operation("pair_histogram within x"))?;
        check_histogram(&self.between, self.dim, &got.between)
            .map_err(operation("pair_histogram between x and y"))?;
        check_sums(&self.sums, &got.sums).map_err(operation("pair_sums"))?;
        check_neighbors(&self.cosine_neighbors, &got.cosine_neighbors)
            .map_err(operation("nearest by cosine"))?;
        check_neighbors(&self.dot_neighbors, &got.dot_neighbors)
            .map_err(operation("nearest by dot product"))?;
        check_neighbors(&self.own_neighbors, &got.own_neighbors)
            .map_err(operation("nearest within x"))?;
        self.gram.check(&got.gram).map_err(operation("gram"))?;
        self.own_gram
            .check(&got.own_gram)
            .map_err(operation("gram of x with itself"))?;
        let projected: Vec<f64> = got.projected.iter().map(|&v| f64::from(v)).collect();
        check_all("element", &self.projected, &projected).map_err(operation("project"))
    }
}

/// Checks every value, and names the one furthest out of its bound.
fn check_all(what: &str, expected: &[Bounded], got: &[f64]) -> Result<(), String> {
    if expected.len() != got.len() {
        return Err(format!(
            "{what}: {} values, expected {}",
            got.len(),
            expected.len()
        ));
    }
    let excess = |i: usize| {
        let ratio = (got[i] - expected[i].value).abs() / expected[i].bound;
        if ratio.is_nan() { f64::INFINITY } else { ratio }
    };
    let failing = (0..got.len()).filter(|&i| expected[i].check("", got[i]).is_err());
    match failing.max_by(|&a, &b| excess(a).total_cmp(&excess(b))) {
        Some(worst) => expected[worst].check(format!("{what} {worst}"), got[worst]),
        None => Ok(()),
    }
}

/// Checks a histogram against the exact cosines, ascending. At every edge the pairs counted below it
/// must be those below it, give or take those whose cosine is within the product's bound of the edge.
fn check_histogram(cosines: &[f64], dim: usize, got: &PairHistogram) -> Result<(), String> {
    let bound = tolerance::product(dim);
    let pairs = cosines.len() as u64;
    if got.pairs() != pairs {
        return Err(format!("{} pairs counted, expected {pairs}", got.pairs()));
    }
    let mut below = 0;
    for (bin, count) in got.counts.iter().enumerate() {
        below += count;
        // The last bin has no upper edge.
        let edge = if bin + 1 == got.counts.len() {
            f64::INFINITY
        } else {
            -1.0 + (bin + 1) as f64 / 2048.0
        };
        let least = cosines.partition_point(|&c| c < edge - bound) as u64;
        let most = cosines.partition_point(|&c| c < edge + bound) as u64;
        if !(least..=most).contains(&below) {
            return Err(format!(
                "{below} pairs below {edge}, expected {least} to {most}"
            ));
        }
    }
    let (Some(&min), Some(&max)) = (cosines.first(), cosines.last()) else {
        let empty = got == &PairHistogram::default();
        return if empty {
            Ok(())
        } else {
            Err("something of no pairs".to_owned())
        };
    };
    Bounded { value: min, bound }.check("min", f64::from(got.min))?;
    Bounded { value: max, bound }.check("max", f64::from(got.max))?;
    let pairs = pairs as f64;
    let size: f64 = cosines.iter().map(|c| c.abs()).sum();
    let sum = Bounded {
        value: cosines.iter().sum(),
        bound: pairs * bound + tolerance::sum(size, pairs),
    };
    sum.check("sum", got.sum.to_f64())?;
    let squares: f64 = cosines.iter().map(|c| c * c).sum();
    let sum_squares = Bounded {
        value: squares,
        // (c + e)² − c² ≤ 2e + e², and the square itself rounds.
        bound: pairs * (2.0 * bound + bound * bound + tolerance::U)
            + tolerance::sum(squares, pairs),
    };
    sum_squares.check("sum of squares", got.sum_squares.to_f64())
}

fn check_sums(expected: &oracle::PairSums, got: &PairSums) -> Result<(), String> {
    if got.counts != expected.counts {
        return Err(format!(
            "counts {:?}, expected {:?}",
            got.counts, expected.counts
        ));
    }
    if got.sums.len() != expected.sums.len() {
        return Err(format!(
            "{} kernels, expected {}",
            got.sums.len(),
            expected.sums.len()
        ));
    }
    for (kernel, (expected, got)) in expected.sums.iter().zip(&got.sums).enumerate() {
        check_all(&format!("kernel {kernel}, pair of blocks"), expected, got)?;
    }
    if let Some(got) = &got.row_sums {
        check_all(
            "row sum",
            expected.row_sums.as_flattened(),
            got.as_flattened(),
        )?;
    }
    Ok(())
}

/// Lists must be equal, rows and scores, bit by bit.
fn check_neighbors(expected: &[Vec<(f64, u32)>], got: &Neighbors) -> Result<(), String> {
    if got.certified != expected.len() || got.lists.len() != expected.len() {
        return Err(format!(
            "{} certified, expected {}",
            got.certified,
            expected.len()
        ));
    }
    for (query, (expected, got)) in expected.iter().zip(&got.lists).enumerate() {
        let bits = |list: &[(f64, u32)]| -> Vec<(u64, u32)> {
            list.iter()
                .map(|&(score, row)| (score.to_bits(), row))
                .collect()
        };
        if bits(expected) != bits(got) {
            return Err(format!("query {query}: {got:?}, expected {expected:?}"));
        }
    }
    Ok(())
}

/// Hash of every bit of the answers.
fn digest(answers: &Answers, hasher: &mut impl Hasher) {
    let mut floats = |values: &[f64]| values.iter().for_each(|v| hasher.write_u64(v.to_bits()));
    let Answers {
        within,
        between,
        sums,
        cosine_neighbors,
        dot_neighbors,
        own_neighbors,
        gram,
        own_gram,
        projected,
    } = answers;
    for histogram in [within, between] {
        floats(&[f64::from(histogram.min), f64::from(histogram.max)]);
    }
    sums.sums.iter().for_each(|sums| floats(sums));
    sums.row_sums
        .iter()
        .for_each(|sums| floats(sums.as_flattened()));
    for products in [gram, own_gram] {
        floats(&products.products);
    }
    for &value in projected {
        floats(&[f64::from(value)]);
    }
    for neighbors in [cosine_neighbors, dot_neighbors, own_neighbors] {
        for &(score, row) in neighbors.lists.iter().flatten() {
            floats(&[score, f64::from(row)]);
        }
    }
    for histogram in [within, between] {
        for sum in [histogram.sum, histogram.sum_squares] {
            hasher.write_i128(sum.units());
        }
        histogram
            .counts
            .iter()
            .for_each(|&count| hasher.write_u64(count));
    }
}

/// Shapes n × m × d that hurt: one, two, a side of a tile ± 1, primes; odd dimensions.
const SHAPES: [[usize; 3]; 11] = [
    [1, 1, 1],
    [1, 2, 3],
    [2, 63, 17],
    [63, 64, 64],
    [64, 65, 100],
    [65, 127, 383],
    [127, 129, 385],
    [129, 257, 3],
    [257, 129, 100],
    [257, 1, 17],
    [129, 2, 1],
];

/// Fewer of them for a GPU: software Vulkan is slow.
const GPU_SHAPES: [[usize; 3]; 6] = [
    [1, 1, 1],
    [2, 63, 17],
    [64, 65, 100],
    [65, 127, 383],
    [129, 257, 3],
    [257, 1, 17],
];

/// Every shape with several seeds, and every kind of data in a few shapes.
fn cases(shapes: &[[usize; 3]]) -> impl Iterator<Item = Case> + '_ {
    let plain = shapes
        .iter()
        .enumerate()
        .flat_map(|(i, &shape)| [i as u64, i as u64 + 5].map(|seed| (Data::Normal, shape, seed)));
    let special = ALL_DATA.into_iter().enumerate().flat_map(move |(i, data)| {
        [[65, 130, 17], [130, 70, 100], [3, 64, 1]]
            .into_iter()
            .enumerate()
            .map(move |(j, shape)| (data, shape, (i + j) as u64))
    });
    plain
        .chain(special)
        .map(|(data, shape, seed)| Case::new(data, shape, seed))
}

/// Every kind of data among enough base rows for the CPU to screen `nearest` by codes, as it does for few
/// neighbours only (seeds 0 and 1), and rows as long as large models make them.
fn screened_cases() -> impl Iterator<Item = Case> {
    let special = ALL_DATA
        .into_iter()
        .flat_map(|data| [0, 1].map(|seed| Case::new(data, [40, 400, 25], seed)));
    special.chain([0, 1].map(|seed| Case::new(Data::Normal, [33, 258, 1536], seed)))
}

// The tests.

#[test]
fn gpu_engines_match_the_oracles() {
    let engines = gpu_engines();
    if engines.is_empty() {
        return;
    }
    for case in cases(&GPU_SHAPES) {
        let expected = Expected::new(&case, "gpu");
        for (name, engine) in &engines {
            if let Err(fault) = expected.check(&answers(engine, &case)) {
                panic!("{name}: {case}: {fault}");
            }
        }
    }
}

#[test]
fn cpu_engines_match_the_oracles_and_each_other() {
    let engines = cpu_engines();
    let mut hasher = bits_hasher();
    for case in cases(&SHAPES).chain(screened_cases()) {
        let expected = Expected::new(&case, "cpu");
        let [first, rest @ ..] = &engines[..] else {
            unreachable!("there are four engines")
        };
        let first_answers = answers(&first.1, &case);
        if let Err(fault) = expected.check(&first_answers) {
            panic!("{}: {case}: {fault}", first.0);
        }
        for (name, engine) in rest {
            // Equal answers need no oracle of their own.
            assert!(
                answers(engine, &case) == first_answers,
                "{case}: {name} and {} differ",
                first.0
            );
        }
        digest(&first_answers, &mut hasher);
    }
    println!(
        "{DIGEST}{} {:016x}",
        engines[0].1.device().precision,
        hasher.finish()
    );
}

/// Begins the line with which the CPU suite tells its digest.
const DIGEST: &str = "digest of ";

fn bits_hasher() -> impl Hasher {
    xxhash_rust::xxh3::Xxh3::new()
}

/// Runs the CPU suite with each kernel that this CPU has, in a process of its own.
#[test]
fn every_cpu_kernel_passes_and_those_that_fuse_agree() {
    let kernels = cpu::kernels();
    assert_eq!(kernels.last(), Some(&"portable"));
    let mut digests = Vec::new();
    for kernel in kernels {
        let output = Command::new(std::env::current_exe().expect("tests have a path"))
            .args([
                "twins::cpu_engines_match_the_oracles_and_each_other",
                "--exact",
                "--nocapture",
            ])
            .env(CPU_KERNEL, kernel)
            .output()
            .expect("the test binary starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "kernel {kernel}:\n{text}\n{errors}"
        );
        let line = text
            .lines()
            .find_map(|line| Some(line.split_once(DIGEST)?.1))
            .unwrap_or_else(|| panic!("kernel {kernel} told no digest:\n{text}"));
        let (precision, digest) = line.rsplit_once(' ').expect("precision and digest");
        assert_eq!(precision, format!("f32 ({kernel})"));
        println!("{kernel}: {digest}");
        digests.push(digest.to_owned());
    }
    let [fused @ .., portable] = &digests[..] else {
        unreachable!("the portable kernel is always there")
    };
    for digest in fused {
        assert_eq!(
            digest, &fused[0],
            "all fuse each multiply-add, so every bit is the same"
        );
        // The portable kernel fuses where every CPU of its architecture can.
        if cfg!(target_arch = "aarch64") {
            assert_eq!(digest, portable);
        } else {
            assert_ne!(digest, portable, "a digest sees the last bit");
        }
    }
}

/// The comparators see one thing wrong.
#[test]
fn a_wrong_answer_is_noticed() {
    let engine = open(DeviceChoice::Cpu, None, 512 << 20).expect("the CPU opens");
    let case = Case::new(Data::Normal, [65, 70, 17], 4);
    assert!(case.row_sums_of.is_some() && case.kernels.energy);
    let expected = Expected::new(&case, "cpu");
    let right = answers(&engine, &case);
    expected.check(&right).expect("the unchanged answers pass");
    let fails = |what: &str, spoil: &dyn Fn(&mut Answers)| {
        let mut wrong = right.clone();
        spoil(&mut wrong);
        assert!(expected.check(&wrong).is_err(), "{what} went unnoticed");
    };

    let first = right
        .between
        .counts
        .iter()
        .position(|&c| c > 0)
        .expect("there are pairs");
    fails("a pair two bins off", &|a| {
        a.between.counts[first] -= 1;
        a.between.counts[first + 2] += 1;
    });
    fails("a pair lost", &|a| {
        a.within.counts[first_bin(&right.within)] -= 1
    });
    fails("a wrong minimum", &|a| a.within.min += 1e-4);
    fails("a wrong maximum", &|a| a.between.max -= 1e-4);
    fails("a wrong sum", &|a| a.between.sum.add(0.1));
    fails("a wrong sum of squares", &|a| {
        a.within.sum_squares.add(-0.1)
    });

    let s = right.sums.blocks;
    let filled = right
        .sums
        .counts
        .iter()
        .position(|&c| c > 0)
        .expect("there are pairs");
    for kernel in 0..case.kernels.len() {
        fails("a wrong kernel sum", &|a| {
            a.sums.sums[kernel][filled] += 2.0 * expected.sums.sums[kernel][filled].bound;
        });
    }
    fails("a kernel sum that was not computed", &|a| {
        a.sums.sums[0][filled] = f64::NAN
    });
    fails("a wrong count", &|a| a.sums.counts[s * s - 1] += 1);
    fails("a missing kernel", &|a| a.sums.sums.truncate(1));
    fails("a wrong row sum", &|a| {
        let rows = a.sums.row_sums.as_mut().expect("asked for");
        let at = rows.len() - 1;
        rows[at][1] += 2.0 * expected.sums.row_sums[at][1].bound + 1e-9;
    });

    fails("a score one bit off", &|a| {
        let score = &mut a.cosine_neighbors.lists[3][0].0;
        *score = score.next_up();
    });
    fails("a wrong row", &|a| a.dot_neighbors.lists[64][0].1 ^= 1);
    fails("a missing neighbour", &|a| a.own_neighbors.lists[0].clear());
    fails("a missing list", &|a| a.own_neighbors.lists.truncate(64));

    fails("a wrong product", &|a| a.gram.products[0] += 1e-10);
    fails("a wrong product with itself", &|a| {
        a.own_gram.products[1] *= 1.0 + 1e-10
    });
    fails("a wrong column sum", &|a| a.gram.x_sums[16] += 1e-10);
    fails("an element that was not computed", &|a| {
        a.projected[5] = f32::NAN
    });
    fails("a wrong element", &|a| a.projected[64] += 1e-3);
    fails("a missing element", &|a| a.projected.truncate(64));
}

fn first_bin(histogram: &PairHistogram) -> usize {
    histogram
        .counts
        .iter()
        .position(|&c| c > 0)
        .expect("there are pairs")
}

/// Bands are up to 256 × 1,024 rows and sum tiles 64 × 64: more rows than one band, blocks that do and
/// do not divide the sets.
#[test]
fn many_bands_agree_with_small_blocks() {
    let mut rng = Philox::new(9, 0);
    let (n, m, dim) = (1100, 1200, 5);
    let (x, y) = (
        Data::Normal.draw(n, dim, &mut rng),
        Data::Normal.draw(m, dim, &mut rng),
    );
    // One long row among many makes the grid too coarse.
    let mut long = x.clone();
    long[3 * dim..4 * dim].fill(1e6);
    let with_outlier = Rows::new(&long, dim);
    let (x, y) = (Rows::new(&x, dim), Rows::new(&y, dim));
    let groups: Vec<u32> = (0..(n + m) as u32).collect();
    let engines = cpu_engines();
    for largest in [20, 300] {
        let blocks: Vec<Vec<u32>> = groups[..n]
            .chunks(largest)
            .chain(groups[n..].chunks(largest))
            .map(<[u32]>::to_vec)
            .collect();
        let layout = BlockLayout::new(n, &blocks, &groups);
        let kernels = KernelFamily {
            gamma: 0.05,
            rbf: 2,
            energy: true,
            offsets: vec![0.6, 0.4, -3.0],
        };
        let sums = |engine: &Engine, x| {
            engine
                .pair_sums(x, y, &layout, &kernels, Some(1))
                .expect("the CPU works")
        };
        for (x, on_grid) in [(x, true), (with_outlier, false)] {
            let first = sums(&engines[0].1, x);
            assert_eq!(first.grid_step.is_some(), on_grid);
            let step = first.grid_step;
            let expected = oracle::pair_sums(x, y, &blocks, &groups, &kernels, Some(1), step);
            check_sums(&expected, &first).unwrap();
            for (name, engine) in &engines[1..] {
                assert!(first == sums(engine, x), "{name} differs");
            }
        }
    }
    let cosines = oracle::pair_histogram(x, None);
    let mut first: Option<PairHistogram> = None;
    for (name, engine) in &engines {
        let got = engine.pair_histogram(x, None).expect("the CPU works");
        check_histogram(&cosines, dim, &got).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        assert!(
            *first.get_or_insert_with(|| got.clone()) == got,
            "{name} differs"
        );
    }
    let expected = oracle::nearest(x, y, 10, Metric::Cosine, None);
    for (name, engine) in &engines {
        let got = engine
            .nearest(x, y, 10, Metric::Cosine, None)
            .expect("the CPU works");
        check_neighbors(&expected, &got).unwrap_or_else(|fault| panic!("{name}: {fault}"));
    }
}
