//! A GPU measured: product cores, races, every operation at the sizes that matter, transfers. One line of
//! JSON per measurement. `scripts/gpu-check.sh` runs it where there is a GPU:
//!
//! ```text
//! cargo bench --bench gpu -- product --tiny
//! ```
//!
//! `--full` has sizes for a data-centre GPU, `--tiny` for software Vulkan. Without either nothing runs, so
//! that `cargo bench` starts no hour of work unasked.

use std::process::ExitCode;
use std::time::Instant;

use rayon::prelude::*;
use serde_json::{Value, json};
use vecdrift::embeddings::Rows;
use vecdrift::engine::gpu::measure;
use vecdrift::engine::{
    BlockLayout, DeviceChoice, Engine, EngineConfig, KernelFamily, Metric, score,
};
use vecdrift::stats::rng::Philox;
use vecdrift::{Error, Result};

const USAGE: &str = "\
usage: gpu cores|product|stress|nearest|pair_sums|pair_histogram|transfer --full|--tiny
  --device NAME   part of the adapter's name; otherwise the first, hardware before software
  --runs N        timed runs; of stress: how often each result is computed
  --clustered     rows around 1,000 centres instead of independent ones
  --large         nearest: many base rows, few queries";

/// Seed of all data.
const SEED: u64 = 1;
/// Dimensions of common embedding models.
const DIMENSIONS: [usize; 5] = [128, 384, 768, 1024, 3072];
/// Neighbours per query.
const NEIGHBORS: [usize; 2] = [10, 100];
/// Queries whose neighbours are compared with f64.
const CHECKED: usize = 3;
/// Blocks that `vecdrift mmd` permutes.
const BLOCKS: usize = 256;

#[derive(Clone, Copy, PartialEq)]
enum Scale {
    Tiny,
    Full,
}

impl Scale {
    fn pick<T>(self, tiny: T, full: T) -> T {
        match self {
            Self::Tiny => tiny,
            Self::Full => full,
        }
    }
}

#[derive(Clone, Copy)]
enum Data {
    /// Independent normal values: no structure, the hardest rows to prune.
    Normal,
    /// Rows around 1,000 centres.
    Clustered,
}

impl Data {
    const CENTRES: u64 = 1000;
    /// Rows of the same set have the same centres; streams of rows begin behind them.
    const ROWS_FROM: u64 = 1 << 32;

    fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Clustered => "clustered",
        }
    }

    /// Row-major, the same on any number of threads.
    fn rows(self, rows: usize, dim: usize, set: u64) -> Vec<f32> {
        let mut values = vec![0.0f32; rows * dim];
        values
            .par_chunks_mut(dim)
            .enumerate()
            .for_each(|(row, values)| {
                let stream = Self::ROWS_FROM * (set + 1) + row as u64;
                fill_normal(values, stream);
                if let Self::Clustered = self {
                    let mut centre = vec![0.0; dim];
                    let [word, ..] = Philox::block([SEED as u32, 1], words(stream, 0));
                    fill_normal(&mut centre, u64::from(word) % Self::CENTRES);
                    for (value, centre) in values.iter_mut().zip(centre) {
                        *value = centre + 0.7 * *value;
                    }
                }
            });
        values
    }
}

fn words(stream: u64, block: u32) -> [u32; 4] {
    [block, 0, stream as u32, (stream >> 32) as u32]
}

/// Standard normal values in f32 (Box–Muller), four per counter: `Philox::normal` is f64 and ten times
/// slower, and there are billions to draw.
fn fill_normal(values: &mut [f32], stream: u64) {
    // (0, 1], so that the logarithm is finite.
    let uniform = |word: u32| ((word >> 8) + 1) as f32 / (1u32 << 24) as f32;
    for (block, values) in (0u32..).zip(values.chunks_mut(4)) {
        let drawn = Philox::block([SEED as u32, 0], words(stream, block));
        for (pair, values) in drawn.chunks_exact(2).zip(values.chunks_mut(2)) {
            let radius = (-2.0 * uniform(pair[0]).ln()).sqrt();
            let (sin, cos) = (std::f32::consts::TAU * uniform(pair[1])).sin_cos();
            for (value, factor) in values.iter_mut().zip([sin, cos]) {
                *value = radius * factor;
            }
        }
    }
}

/// What is asked for.
struct Request {
    choice: DeviceChoice,
    scale: Scale,
    data: Data,
    runs: Option<usize>,
    large: bool,
}

impl Request {
    fn engine(&self) -> Result<Engine> {
        Engine::new(&EngineConfig {
            device: self.choice.clone(),
            memory: 8 << 30,
            ..EngineConfig::default()
        })
    }

    fn runs(&self, otherwise: usize) -> usize {
        self.runs.unwrap_or(otherwise)
    }

    /// Prints one measurement: what it was, its times, and its speed if it has `operations`
    /// floating-point ones.
    fn print(&self, device: &Value, what: Value, mut seconds: Vec<f64>, operations: Option<f64>) {
        seconds.sort_by(f64::total_cmp);
        let median = seconds[seconds.len() / 2];
        let mut line = what;
        merge(&mut line, device);
        let times = json!({
            "runs": seconds.len(),
            "seconds": {"min": seconds[0], "median": median, "max": seconds[seconds.len() - 1]},
            "tflops": operations.map(|n| n / median / 1e12),
        });
        merge(&mut line, &times);
        println!("{line}");
    }
}

fn merge(into: &mut Value, from: &Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from.clone());
    }
}

/// The device as every line names it.
fn device(engine: &Engine) -> Value {
    let info = engine.device();
    json!({"device": info.name, "software": info.software, "core": info.precision})
}

fn timed<T>(runs: usize, mut run: impl FnMut() -> Result<T>) -> Result<(T, Vec<f64>)> {
    let mut seconds = Vec::new();
    loop {
        let start = Instant::now();
        let result = run()?;
        seconds.push(start.elapsed().as_secs_f64());
        if seconds.len() >= runs.max(1) {
            return Ok((result, seconds));
        }
    }
}

/// The cores, each held to known answers. Fails if one of them is wrong.
fn cores(request: &Request) -> Result<()> {
    let mut wrong = Vec::new();
    for report in measure::cores(&request.choice)? {
        let mut line = json!({"what": "core"});
        merge(&mut line, &json!(report));
        println!("{line}");
        if !report.passed {
            wrong.push(report.core);
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(Error::device(wrong.join(", "), "gave wrong products"))
    }
}

/// Products alone on every core that is right.
fn product(request: &Request) -> Result<()> {
    let engine = request.engine()?;
    let device = device(&engine);
    let square = request.scale.pick([256; 3], [8192; 3]);
    let [n, m] = request.scale.pick([256, 512], [16_384, 65_536]);
    let shapes = DIMENSIONS
        .iter()
        .filter(|&&dim| request.scale == Scale::Full || dim < 1000)
        .map(|&dim| [n, m, dim]);
    let shapes: Vec<_> = [square].into_iter().chain(shapes).collect();
    for report in measure::cores(&request.choice)? {
        for &shape in shapes.iter().filter(|_| report.passed) {
            let runs = request.runs(request.scale.pick(2, 20));
            let seconds = measure::product_seconds(&request.choice, &report.core, shape, runs)?;
            let mut what = device.clone();
            merge(
                &mut what,
                &json!({"what": "product", "core": report.core, "shape": shape}),
            );
            request.print(&json!({}), what, seconds, Some(flops(shape)));
        }
    }
    Ok(())
}

/// Floating-point operations of n × m products of dimension d.
fn flops(shape: [usize; 3]) -> f64 {
    2.0 * shape.map(|v| v as f64).iter().product::<f64>()
}

/// Every operation over and over on the same rows: a race between invocations shows as two results.
fn stress(request: &Request) -> Result<()> {
    let engine = request.engine()?;
    let device = device(&engine);
    let runs = request.runs(request.scale.pick(3, 200));
    let shapes = request.scale.pick(
        vec![[150, 331, 100]],
        vec![[4096, 4096, 384], [3001, 5003, 100], [1500, 2999, 1024]],
    );
    for shape @ [n, m, dim] in shapes {
        let (xs, ys) = (request.data.rows(n, dim, 0), request.data.rows(m, dim, 1));
        let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
        let (layout, kernels) = sums_setting(n, m, dim, 16);
        let same = |operation: &str, bits_of: &dyn Fn() -> Result<Vec<u64>>| {
            let (first, seconds) = timed(1, bits_of)?;
            let mut all = seconds;
            for repeat in 2..=runs {
                let (again, seconds) = timed(1, bits_of)?;
                if again != first {
                    let fact = format!("run {repeat} on the same {n} x {m} x {dim} differs");
                    return Err(Error::device(operation, fact));
                }
                all.extend(seconds);
            }
            let what = json!({"what": "stress", "operation": operation, "shape": shape});
            request.print(&device, what, all, None);
            Ok(())
        };
        let histogram = |other| {
            let found = engine.pair_histogram(x, other)?;
            let sums = [&found.sum, &found.sum_squares].map(|sum| sum.to_f64().to_bits());
            let ends = [found.min, found.max].map(|end| u64::from(end.to_bits()));
            Ok([&found.counts[..], &sums, &ends].concat())
        };
        same("pair_histogram", &|| histogram(Some(y)))?;
        same("pair_histogram, one set", &|| histogram(None))?;
        same("pair_sums", &|| {
            let found = engine.pair_sums(x, y, &layout, &kernels, Some(0))?;
            let row_sums = found.row_sums.expect("asked for");
            let sums = found.sums.iter().flatten();
            Ok(sums
                .chain(row_sums.as_flattened())
                .map(|v| v.to_bits())
                .collect())
        })?;
        same("nearest", &|| {
            let found = engine.nearest(x, y, 10, Metric::Cosine, None)?;
            let entries = found.lists.into_iter().flatten();
            Ok(entries
                .flat_map(|(score, row)| [score.to_bits(), row.into()])
                .collect())
        })?;
        same("gram", &|| {
            let rows = n.min(m);
            let found = engine.gram(x.slice(0..rows), y.slice(0..rows))?;
            Ok(found.products.iter().map(|v| v.to_bits()).collect())
        })?;
        same("project", &|| {
            let found = engine.project(x, y)?;
            Ok(found.iter().map(|v| v.to_bits().into()).collect())
        })?;
    }
    Ok(())
}

fn nearest(request: &Request) -> Result<()> {
    let engine = request.engine()?;
    let device = device(&engine);
    let [queries, base, dim] = match request.large {
        true => request
            .scale
            .pick([256, 4096, 64], [10_000, 10_000_000, 768]),
        false => request
            .scale
            .pick([1024, 1024, 64], [1_000_000, 1_000_000, 768]),
    };
    let (xs, ys) = (
        request.data.rows(queries, dim, 0),
        request.data.rows(base, dim, 1),
    );
    let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
    // Kernels are compiled before the clock runs.
    engine.nearest(
        x.slice(0..queries.min(128)),
        y.slice(0..base.min(16_384)),
        10,
        Metric::Cosine,
        None,
    )?;
    for k in NEIGHBORS {
        let (found, seconds) = timed(request.runs(1), || {
            engine.nearest(x, y, k, Metric::Cosine, None)
        })?;
        if found.certified != queries {
            return Err(Error::device("nearest", "not every list is certified"));
        }
        for query in (0..CHECKED).map(|i| i * (queries - 1) / (CHECKED - 1)) {
            if found.lists[query] != exact_neighbors(&x.row(query), y, k) {
                return Err(Error::device("nearest", format!("query {query} is wrong")));
            }
        }
        let shape = [queries, base, dim];
        let what = json!({"what": "nearest", "k": k, "shape": shape, "data": request.data.name()});
        request.print(&device, what, seconds, Some(flops(shape)));
    }
    Ok(())
}

fn exact_neighbors(query: &[f32], base: Rows<'_>, k: usize) -> Vec<(f64, u32)> {
    let norm = score::norm(query);
    let scores: Vec<f64> = base
        .to_f32()
        .par_chunks(base.dim())
        .map(|row| score::similarity(Metric::Cosine, query, norm, row, score::norm(row)))
        .collect();
    let mut best = score::TopK::new(k);
    for (row, score) in (0u32..).zip(scores) {
        best.offer(score, row);
    }
    best.entries().to_vec()
}

/// Blocks in the rows' order, and the kernels of `vecdrift mmd` at the root mean square distance.
fn sums_setting(n: usize, m: usize, dim: usize, blocks: usize) -> (BlockLayout, KernelFamily) {
    let groups: Vec<u32> = (0..(n + m) as u32).collect();
    let of = |rows: &[u32]| -> Vec<Vec<u32>> {
        let size = rows.len().div_ceil(blocks / 2).max(1);
        rows.chunks(size).map(<[u32]>::to_vec).collect()
    };
    let blocks = [of(&groups[..n]), of(&groups[n..])].concat();
    let square = 2.0 * dim as f64;
    let mut kernels = KernelFamily {
        gamma: 0.5 / square / 4.0,
        rbf: 5,
        energy: true,
        offsets: Vec::new(),
    };
    kernels.offsets = (0..kernels.len())
        .map(|j| kernels.value(j, square) as f32)
        .collect();
    (BlockLayout::new(n, &blocks, &groups), kernels)
}

/// Block sums as `vecdrift mmd` asks for them; its permutations then cost the same at any number of rows.
fn pair_sums(request: &Request) -> Result<()> {
    let engine = request.engine()?;
    let device = device(&engine);
    let [n, dim] = request.scale.pick([512, 64], [1_000_000, 768]);
    let (xs, ys) = (request.data.rows(n, dim, 0), request.data.rows(n, dim, 1));
    let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
    let few = n.min(2048);
    let (layout, kernels) = sums_setting(few, few, dim, BLOCKS);
    engine.pair_sums(x.slice(0..few), y.slice(0..few), &layout, &kernels, None)?;
    let (layout, kernels) = sums_setting(n, n, dim, BLOCKS);
    let (found, seconds) = timed(request.runs(1), || {
        engine.pair_sums(x, y, &layout, &kernels, None)
    })?;
    let pairs: u64 = found.counts.iter().sum();
    let all = 2 * n as u64;
    if pairs != all * (all - 1) {
        return Err(Error::device(
            "pair_sums",
            format!("{pairs} pairs of {all} rows"),
        ));
    }
    // Rows of x with those of y, i with i: a sample of the pairs between the sets.
    let sample: Vec<f64> = (0..n.min(20_000))
        .map(|i| {
            let (a, b) = (x.row(i), y.row(i));
            let differences = a.iter().zip(&*b);
            let square = differences.map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2));
            kernels.value(0, square.sum())
        })
        .collect();
    let size = sample.len() as f64;
    let mean = sample.iter().sum::<f64>() / size;
    let variance = sample.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / size;
    // As many blocks of x as of y: both have n rows.
    let (side, x_blocks) = (found.blocks, found.blocks / 2);
    let between = |values: &dyn Fn(usize) -> f64| -> f64 {
        let at = |i| (x_blocks..side).map(move |j| i * side + j);
        (0..x_blocks).flat_map(at).map(values).sum()
    };
    let whole = between(&|at| found.sums[0][at]) / between(&|at| found.counts[at] as f64);
    // Six standard errors: a chance of 2 in 10⁹ to be outside.
    if (whole - mean).abs() > 6.0 * (variance / size).sqrt() {
        let fact = format!("the mean kernel is {whole}, {mean} in a sample");
        return Err(Error::device("pair_sums", fact));
    }
    let what = json!({
        "what": "pair_sums", "shape": [n, n, dim], "blocks": layout.blocks(), "data": request.data.name(),
    });
    // Every unordered pair of the 2n rows once.
    let operations = flops([2 * n, 2 * n, dim]) / 2.0;
    request.print(&device, what, seconds, Some(operations));
    Ok(())
}

fn pair_histogram(request: &Request) -> Result<()> {
    let engine = request.engine()?;
    let device = device(&engine);
    let [n, dim] = request.scale.pick([1024, 64], [1_000_000, 768]);
    let (xs, ys) = (request.data.rows(n, dim, 0), request.data.rows(n, dim, 1));
    let (x, y) = (Rows::new(&xs, dim), Rows::new(&ys, dim));
    let few = n.min(4096);
    engine.pair_histogram(x.slice(0..few), Some(y.slice(0..few)))?;
    let (found, seconds) = timed(request.runs(1), || engine.pair_histogram(x, Some(y)))?;
    let pairs = n as u64 * n as u64;
    // Σ cos(xᵢ, yⱼ) = (Σ x̂)·(Σ ŷ).
    let sums = [x, y].map(unit_sum);
    let exact: f64 = sums[0].iter().zip(&sums[1]).map(|(a, b)| a * b).sum();
    let mean = found.sum.to_f64() / pairs as f64;
    // The contract's bound per pair is (d + 8)·2⁻²³; of a mean, one per pair still holds.
    let bound = (dim as f64 + 8.0) * f64::from(f32::EPSILON);
    if found.pairs() != pairs || (mean - exact / pairs as f64).abs() > bound {
        let fact = format!("{} pairs, mean cosine {mean}", found.pairs());
        return Err(Error::device("pair_histogram", fact));
    }
    let shape = [n, n, dim];
    let what = json!({"what": "pair_histogram", "shape": shape, "data": request.data.name()});
    request.print(&device, what, seconds, Some(flops(shape)));
    Ok(())
}

fn unit_sum(rows: Rows<'_>) -> Vec<f64> {
    let dim = rows.dim();
    rows.to_f32()
        .par_chunks(dim)
        .fold(
            || vec![0.0; dim],
            |mut sum, row| {
                let norm = score::norm(row);
                for (sum, &v) in sum.iter_mut().zip(row) {
                    *sum += f64::from(v) / norm;
                }
                sum
            },
        )
        .reduce(
            || vec![0.0; dim],
            |mut a, b| {
                for (a, b) in a.iter_mut().zip(b) {
                    *a += b;
                }
                a
            },
        )
}

fn transfer(request: &Request) -> Result<()> {
    let device = device(&request.engine()?);
    let bytes = request.scale.pick(16 << 20, 1 << 30);
    let runs = request.runs(request.scale.pick(2, 10));
    let both = measure::transfer_seconds(&request.choice, bytes, runs)?;
    for (what, seconds) in ["upload", "readback"].into_iter().zip(both) {
        request.print(
            &device,
            json!({"what": what, "bytes": bytes}),
            seconds,
            None,
        );
    }
    Ok(())
}

type Part = fn(&Request) -> Result<()>;

const PARTS: [(&str, Part); 7] = [
    ("cores", cores),
    ("product", product),
    ("stress", stress),
    ("nearest", nearest),
    ("pair_sums", pair_sums),
    ("pair_histogram", pair_histogram),
    ("transfer", transfer),
];

/// What the arguments ask for; `None` where they ask for nothing that this bench knows.
fn parse(arguments: impl IntoIterator<Item = String>) -> Option<(Part, Request)> {
    let mut part = None;
    let mut scale = None;
    let mut request = Request {
        choice: DeviceChoice::Gpu,
        scale: Scale::Tiny,
        data: Data::Normal,
        runs: None,
        large: false,
    };
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--full" => scale = Some(Scale::Full),
            "--tiny" => scale = Some(Scale::Tiny),
            "--clustered" => request.data = Data::Clustered,
            "--large" => request.large = true,
            "--device" => request.choice = DeviceChoice::Name(arguments.next()?),
            "--runs" => request.runs = Some(arguments.next()?.parse().ok()?),
            // Cargo says so to every bench.
            "--bench" => {}
            name => part = Some(PARTS.iter().find(|(n, _)| *n == name)?.1),
        }
    }
    request.scale = scale?;
    Some((part?, request))
}

fn main() -> ExitCode {
    let Some((part, request)) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::SUCCESS;
    };
    match part(&request) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
