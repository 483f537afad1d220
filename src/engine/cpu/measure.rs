//! What the products could reach: for benchmarks only.

use std::hint::black_box;
use std::time::Instant;

use rayon::ThreadPoolBuilder;

use super::axes::Axes;
use super::codes::{CodeTile, Codes, GROUP, PANEL};
use super::kernel::{Isa, Job, Kernel};
use super::panels::{LANES, Panels};
use super::product::{SIDE, Tile, UNWRITTEN};
use crate::embeddings::F32Rows;
use crate::error::{Error, Result};

/// Coordinates of the rows that are multiplied: a panel and a group stay in the first-level cache.
const DIM: usize = 128;

/// Billions of multiply-adds per second of products of rows in the first-level cache, without any
/// epilogue: the ceiling of what an operation can reach.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq)]
pub struct ProductRates {
    /// Name of the kernel.
    pub kernel: &'static str,
    /// f32 values.
    pub f32: f64,
    /// 8-bit codes.
    pub codes: f64,
}

/// Rates of every kernel of this CPU on `threads` threads at once.
///
/// # Errors
/// The threads cannot be started.
#[doc(hidden)]
pub fn product_rates(threads: usize) -> Result<Vec<ProductRates>> {
    let pool = ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|error| Error::device("cpu", error))?;
    let values: Vec<f32> = (0..SIDE * DIM).map(|i| (i as f32).sin()).collect();
    let rows = F32Rows::new(&values, DIM);
    let of = |kernel: Kernel| {
        let panels = Panels::pack(rows);
        let codes = Codes::encode(kernel, &Axes::plain(DIM), rows);
        codes.turn_to_queries();
        let sum = |rates: Vec<f64>| rates.iter().sum();
        ProductRates {
            kernel: kernel.name(),
            f32: sum(pool.broadcast(|_| kernel.run(Values(&panels)))),
            codes: sum(pool.broadcast(|_| kernel.run(CodeProducts(&codes)))),
        }
    };
    Ok(Kernel::available().into_iter().map(of).collect())
}

/// Billions of multiply-adds per second of `work`, which does `products` of them, over some time: threads
/// that share a core are to feel each other.
#[inline(always)]
fn rate(products: usize, mut work: impl FnMut()) -> f64 {
    const SECONDS: f64 = 0.5;
    const TIMES: usize = 1000;
    let (mut done, start) = (0, Instant::now());
    loop {
        for _ in 0..TIMES {
            work();
        }
        done += TIMES * products;
        let seconds = start.elapsed().as_secs_f64();
        if seconds >= SECONDS {
            return done as f64 / seconds / 1e9;
        }
    }
}

struct Values<'a>(&'a Panels);

impl Job for Values<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let mut tile = Tile::new(UNWRITTEN);
        let (a, b) = (self.0.lanes(0, LANES), self.0.lanes(0, 2 * LANES));
        rate(2 * LANES * LANES * DIM, || {
            isa.panel_product(black_box(a), b, DIM, &mut tile, 0, 0);
            black_box(&mut tile);
        })
    }
}

struct CodeProducts<'a>(&'a Codes);

impl Job for CodeProducts<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f64 {
        let mut tile = CodeTile([[0; PANEL]; GROUP]);
        let (panel, _) = self.0.panel(0);
        let (queries, offsets) = self.0.group(0);
        rate(GROUP * PANEL * DIM, || {
            isa.code_products(black_box(queries), panel, offsets, &mut tile);
            black_box(&mut tile);
        })
    }
}
