//! `nearest` on the GPU: bin maxima on the fastest core, survivors rescored in f32 there and in f64 here.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::device::{Readback, Results};
use super::schedule::in_staged_bands;
use super::shaders::{NEAREST, NEAREST_RESCORE, NearestParams, NearestRescoreParams};
use super::{GpuBackend, GpuBlock, SIDE};
use crate::engine::NearestRequest;
use crate::engine::score::TopK;
use crate::engine::tiles::Operation;
use crate::error::Result;

/// Base rows per bin at most.
const WIDEST_BIN: usize = 64;
/// Narrower bins than this are not rescored on the device: it takes four rows at a time.
const NARROWEST_RESCORED: usize = 4;
/// What `nearest_rescore.wgsl` says of a query whose bins it could not keep, or whose maxima are wrong.
const OVERFLOW: u32 = u32::MAX;
const INVALID: u32 = u32::MAX - 1;

/// What a bin's maximum must reach, as `nearest_rescore.wgsl` reads it.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct Limit {
    needed: u32,
    slack: f32,
    floor: f32,
    pad: u32,
}

/// A band that was computed: its maxima stay on the device until it is known that none of them is needed.
struct Screened<'a> {
    maxima: wgpu::Buffer,
    survivors: Option<Rescored<Readback<'a>>>,
}

/// What the device found about the survivors of a band, there or brought back.
struct Rescored<T> {
    survivors: T,
    reserved: T,
    entries: wgpu::Buffer,
    scores: wgpu::Buffer,
}

/// What is on its way back about a band.
enum Arriving<'a> {
    /// Every maximum of every query.
    Maxima(Readback<'a>),
    /// Survivors, their bins and scores.
    Survivors(Box<Survivors<'a>>),
}

struct Survivors<'a> {
    /// Per query, first entry and entries.
    survivors: Results,
    entries: Readback<'a>,
    scores: Readback<'a>,
    /// Entries that are used.
    used: usize,
    /// Queries that have too many survivors, and their maxima.
    overflown: Vec<usize>,
    maxima: Readback<'a>,
}

/// See [`crate::engine::Backend::nearest`].
pub(super) fn nearest(
    backend: &GpuBackend,
    queries: &GpuBlock,
    base: &GpuBlock,
    request: NearestRequest<'_>,
) -> Result<Vec<TopK>> {
    assert_eq!(queries.dim, base.dim);
    assert_eq!(base.rows, request.base.len());
    let mut found = vec![TopK::new(0); queries.rows];
    let width = request.bin_width(WIDEST_BIN);
    assert!(width.is_power_of_two() && width <= WIDEST_BIN);
    let bins = base.rows.div_ceil(width);
    if bins == 0 || request.k == 0 {
        found.fill(TopK::new(request.k));
        return Ok(found);
    }
    let name = Operation::Nearest.name();
    let device = &backend.device;
    let search = Search {
        backend,
        queries,
        base,
        excluded: request.excluded_counts(),
        errors: screen_errors(queries, base, &request),
        request,
        width,
        bins,
    };
    let rows_of = |band: &Range<usize>| band.start * SIDE..(band.end * SIDE).min(queries.rows);
    let step = backend.band_tiles(Operation::Nearest, (SIDE * bins * 4) as u64)?;
    in_staged_bands(
        queries.tiles(),
        step,
        |band| search.screen(&band, rows_of(&band)),
        |band, screened| search.collect(rows_of(band), screened),
        |band, arriving| {
            let rows = rows_of(&band);
            match arriving {
                Arriving::Maxima(maxima) => {
                    let maxima = maxima.finish()?;
                    let maxima: &[f32] = maxima.as_slice(rows.len() * bins);
                    device.numbers(name, maxima)?;
                    backend.threads.install(|| {
                        found[rows.clone()]
                            .par_iter_mut()
                            .zip(maxima.par_chunks_exact(bins))
                            .zip(rows)
                            .try_for_each_init(Vec::new, |scratch, ((list, maxima), query)| {
                                *list = search.select(query, maxima, scratch)?;
                                Ok(())
                            })
                    })
                }
                Arriving::Survivors(arriving) => {
                    let Survivors {
                        survivors,
                        entries,
                        scores,
                        used,
                        overflown,
                        maxima,
                    } = *arriving;
                    let (entries, scores) = (entries.finish()?, scores.finish()?);
                    let entries: &[u32] = entries.as_slice(used);
                    let scores: &[f32] = scores.as_slice(used * width);
                    let survivors: &[[u32; 2]] = survivors.as_slice(rows.len());
                    backend.threads.install(|| {
                        found[rows.clone()]
                            .par_iter_mut()
                            .zip(survivors)
                            .zip(rows.clone())
                            .filter(|((_, kept), _)| kept[1] != OVERFLOW)
                            .try_for_each_init(Vec::new, |scratch, ((list, kept), query)| {
                                let [first, count] = kept.map(|v| v as usize);
                                let bins = &entries[first..first + count];
                                let scores = &scores[first * width..(first + count) * width];
                                // Where a query found no room, nothing is written: so each one's own.
                                device.numbers(name, scores)?;
                                scratch.clear();
                                for (bin, scores) in bins.iter().zip(scores.chunks_exact(width)) {
                                    let first = bin * width as u32;
                                    scratch.extend(scores.iter().copied().zip(first..));
                                }
                                *list = request.rescore(query, scratch);
                                Ok(())
                            })
                    })?;
                    let maxima = maxima.finish()?;
                    let maxima: &[f32] = maxima.as_slice(overflown.len() * bins);
                    device.numbers(name, maxima)?;
                    let lists: Vec<TopK> = backend.threads.install(|| {
                        overflown
                            .par_iter()
                            .zip(maxima.par_chunks_exact(bins))
                            .map_init(Vec::new, |scratch, (&query, maxima)| {
                                search.select(query, maxima, scratch)
                            })
                            .collect::<Result<_>>()
                    })?;
                    for (query, list) in overflown.into_iter().zip(lists) {
                        found[query] = list;
                    }
                    Ok(())
                }
            }
        },
    )?;
    Ok(found)
}

/// Per query, a bound on |screened − exact score / scale| for any base row of the block:
/// ‖q − q̃‖·‖y‖ + ‖q̃‖·‖y − ỹ‖ for rows that the core rounds, and the core's own rounding.
fn screen_errors(queries: &GpuBlock, base: &GpuBlock, request: &NearestRequest<'_>) -> Vec<f64> {
    let core = queries.core;
    // The request's bound is for d + 4 units of f32 arithmetic.
    let units = core.product_units(queries.dim) - (queries.dim as f64 + 4.0);
    let arithmetic = request.screen_error + units * 2f64.powi(-23);
    if queries.residuals.is_empty() {
        return vec![arithmetic; queries.rows];
    }
    let base_residual = base.residuals.iter().copied().fold(0.0, f64::max);
    queries
        .residuals
        .iter()
        .map(|residual| {
            // Prepared rows are at most 1 long, and a rounding or two.
            let longest = 1.0 + 1e-6;
            residual * longest + (longest + residual) * base_residual + arithmetic
        })
        .collect()
}

/// One tile's search.
struct Search<'a> {
    backend: &'a GpuBackend,
    queries: &'a GpuBlock,
    base: &'a GpuBlock,
    request: NearestRequest<'a>,
    excluded: Vec<u32>,
    errors: Vec<f64>,
    width: usize,
    bins: usize,
}

impl<'a> Search<'a> {
    /// Starts the screening of a band and, where its bins are wide enough, the rescoring.
    fn screen(&self, band: &Range<usize>, rows: Range<usize>) -> Result<Screened<'a>> {
        let (backend, queries, base) = (self.backend, self.queries, self.base);
        let (device, kernel) = (&backend.device, (&NEAREST, queries.core));
        let work = queries.tile_work();
        let maxima = device.output((rows.len() * self.bins) as u64)?;
        let tiles = (band.clone(), 0..base.tiles());
        for piece in backend.pieces(kernel, tiles, 1, work, usize::MAX) {
            let params = NearestParams {
                slices: queries.slices() as u32,
                x_rows: queries.rows as u32,
                y_rows: base.rows as u32,
                x_first: piece.x.start as u32,
                y_first: piece.y.start as u32,
                band_first: band.start as u32,
                width: self.width as u32,
                bins: self.bins as u32,
            };
            let buffers = [&queries.packed, &base.packed, &maxima];
            backend.run(kernel, (&piece, work), &params, &buffers)?;
        }
        let survivors = if self.width >= NARROWEST_RESCORED {
            Some(self.rescore(rows, &maxima)?)
        } else {
            None
        };
        Ok(Screened { maxima, survivors })
    }

    /// Starts the rescoring of the bins that survive in a band.
    fn rescore(&self, rows: Range<usize>, maxima: &wgpu::Buffer) -> Result<Rescored<Readback<'a>>> {
        let (backend, queries, base) = (self.backend, self.queries, self.base);
        let device = &backend.device;
        let limits: Vec<Limit> = rows.clone().map(|query| self.limit(query)).collect();
        let limits = device.input(bytemuck::cast_slice::<_, u8>(&limits))?;
        // As many bins survive as one wants rows, and a few more; fewer once there are floors. Queries
        // that find no room are selected from their maxima.
        let first_tile = self.request.floors[rows.clone()].contains(&f64::NEG_INFINITY);
        let per_query = if first_tile {
            2 * self.request.k + 16
        } else {
            self.request.k + 8
        };
        let largest = device.max_binding() / (self.width * 4) as u64;
        let capacity = ((rows.len() * per_query.min(self.bins)) as u64).min(largest);
        let survivors = device.output(rows.len() as u64 * 2)?;
        let reserved = device.counters(1)?;
        let entries = device.output(capacity)?;
        let scores = device.output(capacity * self.width as u64)?;
        let pipeline = backend.pipeline(&NEAREST_RESCORE, queries.core)?;
        let side = device.limits().max_compute_workgroups_per_dimension as usize;
        let grid_width = rows.len().min(side);
        let params = NearestRescoreParams {
            slices: queries.dim.div_ceil(16) as u32,
            x_first: rows.start as u32,
            queries: rows.len() as u32,
            grid_width: grid_width as u32,
            width: self.width as u32,
            bins: self.bins as u32,
            capacity: capacity as u32,
            ..Zeroable::zeroed()
        };
        let buffers = [
            queries.exact(),
            base.exact(),
            maxima,
            &limits,
            &reserved,
            &survivors,
            &entries,
            &scores,
        ];
        let grid = [grid_width as u32, rows.len().div_ceil(grid_width) as u32];
        device.run(&pipeline, &params, &buffers, grid)?;
        Ok(Rescored {
            survivors: device.read(&survivors)?,
            reserved: device.read(&reserved)?,
            entries,
            scores,
        })
    }

    /// What a bin's maximum must reach for a query, with room for f32.
    fn limit(&self, query: usize) -> Limit {
        let error = self.errors[query];
        let ulp = f64::from(f32::EPSILON);
        let floor = self.request.scaled_floor(query) - error;
        Limit {
            needed: (self.request.k as u32).saturating_add(self.excluded[query]),
            slack: (2.0 * error + 4.0 * ulp) as f32,
            floor: ((floor - ulp * (1.0 + floor.abs())) as f32).max(f32::MIN),
            pad: 0,
        }
    }

    /// Waits for what a band found, and asks for what is needed of it.
    fn collect(&self, rows: Range<usize>, screened: Screened<'a>) -> Result<Arriving<'a>> {
        let device = &self.backend.device;
        let name = Operation::Nearest.name();
        let Some(rescored) = screened.survivors else {
            return Ok(Arriving::Maxima(device.read(&screened.maxima)?));
        };
        let (survivors, reserved) = (rescored.survivors.finish()?, rescored.reserved.finish()?);
        let capacity = rescored.entries.size() as usize / 4;
        let used = (reserved.as_slice::<u32>(1)[0] as usize).min(capacity);
        let mut overflown = Vec::new();
        for (query, &[first, count]) in rows.clone().zip(survivors.as_slice::<[u32; 2]>(rows.len()))
        {
            let end = first as usize + count as usize;
            match count {
                OVERFLOW => overflown.push(query),
                INVALID => {
                    return Err(device.error(format!(
                        "{name}: the device returned NaN or infinity for finite rows"
                    )));
                }
                _ if end > used => {
                    return Err(device.error(format!("{name}: the device left results unwritten")));
                }
                _ => {}
            }
        }
        let row_bytes = self.bins as u64 * 4;
        let maxima_of = |query: &usize| {
            let start = (query - rows.start) as u64 * row_bytes;
            start..start + row_bytes
        };
        // Queries that overflow are few, or the band's maxima are as many as a band may bring back.
        let read_used = |buffer, bytes: usize| {
            device.read_parts(buffer, std::iter::once(0..(used * bytes) as u64))
        };
        Ok(Arriving::Survivors(Box::new(Survivors {
            survivors,
            entries: read_used(&rescored.entries, 4)?,
            scores: read_used(&rescored.scores, self.width * 4)?,
            used,
            maxima: device.read_parts(&screened.maxima, overflown.iter().map(maxima_of))?,
            overflown,
        })))
    }

    /// Selects by the maxima of a query and scores what survives.
    fn select(&self, query: usize, maxima: &[f32], scratch: &mut Vec<f32>) -> Result<TopK> {
        let excluded = self.excluded[query];
        let error = self.errors[query];
        self.request
            .select_and_score(query, excluded, (self.width, error), maxima, scratch)
    }
}
