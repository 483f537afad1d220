// Which bins may hold one of a query's nearest rows, and the f32 products of their rows with the query.
//
//   maxima      [query in the band][bin] of nearest.wgsl
//   limits      [query in the band] what a bin's maximum must reach
//   survivors   [query in the band] (first entry, entries); OVERFLOW entries: they did not fit; INVALID:
//               a maximum is no number
//   reserved    entries so far
//   entries     [entry] bin
//   scores      [entry][row of the bin]
// A query keeps the bins whose maximum reaches `floor`, and t − slack, t being its `needed`-th largest
// maximum (rounded down to 24 bits, so that a few bins more may stay). `width`, 4 to 64, divides 64.
// A workgroup of 256 owns a query: 16 vectors of four rows × 16 parts of the coordinates. Each product is
// 16 strided f32 sums, added in a fixed tree. Which entry a bin gets depends on the device's timing, what
// stands there does not.
// Grid: as many queries along x as fit, then y.

struct Params {
    slices: u32,
    // First query of the band in the block, and queries in the band.
    x_first: u32,
    queries: u32,
    // Queries per row of the grid.
    grid_width: u32,
    width: u32,
    bins: u32,
    // Entries that there is room for.
    capacity: u32,
    pad_0: u32,
}

struct Limit {
    needed: u32,
    slack: f32,
    floor: f32,
    pad: u32,
}

const LANES: u32 = 256u;
const OVERFLOW: u32 = 0xffffffffu;
const INVALID: u32 = 0xfffffffeu;
// Bins that a workgroup can remember.
const REMEMBERED: u32 = 1024u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x_panels: array<f32>;
@group(0) @binding(2) var<storage, read> y_panels: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> maxima: array<f32>;
@group(0) @binding(4) var<storage, read> limits: array<Limit>;
@group(0) @binding(5) var<storage, read_write> reserved: atomic<u32>;
@group(0) @binding(6) var<storage, read_write> survivors: array<vec2<u32>>;
@group(0) @binding(7) var<storage, read_write> entries: array<u32>;
@group(0) @binding(8) var<storage, read_write> scores: array<vec4<f32>>;

var<workgroup> counted: atomic<u32>;
var<workgroup> invalid: atomic<u32>;
var<workgroup> kept: vec2<u32>;
var<workgroup> bin_of: array<u32, REMEMBERED>;
var<workgroup> parts: array<vec4<f32>, LANES>;

// Orders like the numbers themselves.
fn rank(value: f32) -> u32 {
    let bits = bitcast<u32>(value);
    return select(bits | 0x80000000u, ~bits, bits >= 0x80000000u);
}

fn number(rank: u32) -> f32 {
    return bitcast<f32>(select(~rank, rank & 0x7fffffffu, rank >= 0x80000000u));
}

@compute @workgroup_size(256)
fn nearest_rescore(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let query = group.y * params.grid_width + group.x;
    if query >= params.queries {
        return;
    }
    let limit = limits[query];
    let first_bin = query * params.bins;
    var threshold = limit.floor;
    if limit.needed <= params.bins {
        // The largest rank, of 24 bits, that enough maxima reach.
        var reached = 0u;
        for (var bit = 31u; bit > 7u; bit--) {
            let tried = reached | (1u << bit);
            if lane == 0u {
                atomicStore(&counted, 0u);
            }
            workgroupBarrier();
            var own = 0u;
            for (var bin = lane; bin < params.bins; bin += LANES) {
                own += u32(rank(maxima[first_bin + bin]) >= tried);
            }
            if own > 0u {
                atomicAdd(&counted, own);
            }
            workgroupBarrier();
            if atomicLoad(&counted) >= limit.needed {
                reached = tried;
            }
            workgroupBarrier();
        }
        threshold = max(threshold, number(reached) - limit.slack);
    }
    if lane == 0u {
        atomicStore(&counted, 0u);
        atomicStore(&invalid, 0u);
    }
    workgroupBarrier();
    for (var bin = lane; bin < params.bins; bin += LANES) {
        // Infinity or NaN; a comparison would not tell.
        if (bitcast<u32>(maxima[first_bin + bin]) & 0x7f800000u) == 0x7f800000u {
            atomicStore(&invalid, 1u);
        }
        if maxima[first_bin + bin] >= threshold {
            let at = atomicAdd(&counted, 1u);
            if at < REMEMBERED {
                bin_of[at] = bin;
            }
        }
    }
    workgroupBarrier();
    if lane == 0u {
        let count = atomicLoad(&counted);
        var found = vec2<u32>(0u, count);
        if atomicLoad(&invalid) != 0u {
            found.y = INVALID;
        } else if count > REMEMBERED {
            found.y = OVERFLOW;
        } else if count > 0u {
            found.x = atomicAdd(&reserved, count);
            if found.x >= params.capacity || count > params.capacity - found.x {
                found.y = OVERFLOW;
            }
        }
        survivors[query] = found;
        kept = vec2<u32>(found.x, select(found.y, 0u, found.y >= INVALID));
    }
    let held = workgroupUniformLoad(&kept);
    let first = held.x;
    let count = held.y;
    let quad = lane % 16u;
    let part = lane / 16u;
    let per_round = 64u / params.width;
    let in_round = quad * 4u / params.width;
    let in_bin = quad * 4u % params.width;
    let x_row = params.x_first + query;
    let x_at = x_row / 64u * params.slices * 1024u + x_row % 64u;
    for (var start = 0u; start < count; start += per_round) {
        let entry = start + in_round;
        var sums = vec4<f32>();
        if entry < count {
            let y_row = bin_of[entry] * params.width + in_bin;
            let y_at = y_row / 64u * params.slices * 256u + y_row % 64u / 4u;
            for (var k = part; k < params.slices * 16u; k += 16u) {
                sums += x_panels[x_at + k * 64u] * y_panels[y_at + k * 16u];
            }
        }
        parts[lane] = sums;
        workgroupBarrier();
        for (var stride = 128u; stride >= 16u; stride /= 2u) {
            if lane < stride {
                parts[lane] += parts[lane + stride];
            }
            workgroupBarrier();
        }
        if lane < 16u && entry < count {
            scores[((first + entry) * params.width + in_bin) / 4u] = parts[lane];
            if in_bin == 0u {
                entries[first + entry] = bin_of[entry];
            }
        }
        workgroupBarrier();
    }
}
