// Kernel sums by sum tile: Σ (k − offset) over pairs of different groups, for RBF kernels
// exp(−2ʲγ·d²), j = 0 … rbf − 1, and −d, with d² = max(0, ‖x‖² + ‖y‖² − 2x·y).
//
//   x_sq_norms, y_sq_norms   [row] ‖row‖², as vectors of four
//   x_groups, y_groups       [row] group or PADDING, as vectors of four
//   sums                     [sum tile of x in the band][sum tile of y][kernel]
//   row_sums                 [row of x in the band][sum tile of y], from `y_rows_at` on
//                            [row of y][sum tile of x in the band]
// A workgroup owns a patch of product tiles of 64 × 64, each one sum tile of side 64 or 4 × 4 of side 16.
// Grid: patches of y × patches of x. With `diagonal`, product tiles below the diagonal are left unwritten.
// d² cancels for near points: its error is that of a product. One exponential per pair; each squaring
// doubles its relative error. All sums are f32, in an order fixed by the sum tile.

struct Params {
    slices: u32,
    // First product tile of this dispatch, and the tile of x where the band begins.
    x_first: u32,
    y_first: u32,
    band_first: u32,
    // Sum tiles of the blocks, and of x in the band.
    x_sum_tiles: u32,
    y_sum_tiles: u32,
    band_sum_tiles: u32,
    side: u32,
    rbf: u32,
    kernels: u32,
    diagonal: u32,
    row_sums: u32,
    y_rows_at: u32,
    gamma: f32,
    pad_0: u32,
    pad_1: u32,
    // Slots 0 … 4 hold the RBF kernels, slot 5 energy, 6 and 7 nothing.
    offsets_low: vec4<f32>,
    offsets_high: vec4<f32>,
    // 1 in the slot of the kernel whose row sums are wanted.
    row_kernel_low: vec4<f32>,
    row_kernel_high: vec4<f32>,
}

const PADDING: u32 = 0xffffffffu;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read> x_sq_norms: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> y_sq_norms: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> x_groups: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> y_groups: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;
@group(0) @binding(8) var<storage, read_write> row_sums: array<f32>;

fn total(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

@compute @workgroup_size(256)
fn pair_sums(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let x_tile = params.x_first + group.y * PATCH;
    let y_tile = params.y_first + group.x * PATCH;
    if params.diagonal == 0u || x_tile < y_tile + PATCH {
        products(x_tile, y_tile, params.slices, lane);
    }
}

fn epilogue(x_tile: u32, y_tile: u32, products: mat4x4<f32>, lane: u32) {
    if params.diagonal != 0u && y_tile < x_tile {
        return;
    }
    var tile = products;

    let row = lane / 16u;
    let column = lane % 16u;
    let y_norms = y_sq_norms[y_tile * 16u + column];
    let y_group = y_groups[y_tile * 16u + column];
    var x_norms = x_sq_norms[x_tile * 16u + row];
    var x_group = x_groups[x_tile * 16u + row];
    let low = params.offsets_low;
    let high = params.offsets_high;
    var kernel_0 = vec4<f32>();
    var kernel_1 = vec4<f32>();
    var kernel_2 = vec4<f32>();
    var kernel_3 = vec4<f32>();
    var kernel_4 = vec4<f32>();
    var energy = vec4<f32>();
    var over_columns = vec4<f32>();
    var over_rows = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        let sq_distance = max(vec4<f32>(), (x_norms[i] + y_norms) - 2.0 * tile[i]);
        let counted = (y_group != vec4<u32>(x_group[i]))
            & (y_group != vec4<u32>(PADDING))
            & vec4<bool>(x_group[i] != PADDING);
        let weight = select(vec4<f32>(), vec4<f32>(1.0), counted);
        let k_0 = exp(-params.gamma * sq_distance);
        let k_1 = k_0 * k_0;
        let k_2 = k_1 * k_1;
        let k_3 = k_2 * k_2;
        let k_4 = k_3 * k_3;
        let term_0 = (k_0 - low.x) * weight;
        let term_1 = (k_1 - low.y) * weight;
        let term_2 = (k_2 - low.z) * weight;
        let term_3 = (k_3 - low.w) * weight;
        let term_4 = (k_4 - high.x) * weight;
        let term_5 = (-sqrt(sq_distance) - high.y) * weight;
        kernel_0 += term_0;
        kernel_1 += term_1;
        kernel_2 += term_2;
        kernel_3 += term_3;
        kernel_4 += term_4;
        energy += term_5;
        if params.row_sums != 0u {
            // Five of the six products are exactly 0.
            let term = params.row_kernel_low.x * term_0 + params.row_kernel_low.y * term_1
                + params.row_kernel_low.z * term_2 + params.row_kernel_low.w * term_3
                + params.row_kernel_high.x * term_4 + params.row_kernel_high.y * term_5;
            over_columns[i] = total(term);
            over_rows += term;
        }
    }

    // Partial sums lie by groups of 4 × 4 invocations, which are the sum tiles of side 16.
    let slot = ((row / 4u) * 4u + column / 4u) * 16u + (row % 4u) * 4u + column % 4u;
    scratch_put(slot, vec4<f32>(total(kernel_0), total(kernel_1), total(kernel_2), total(kernel_3)));
    scratch_put(LANES + slot, vec4<f32>(total(kernel_4), total(energy), 0.0, 0.0));
    workgroupBarrier();
    for (var stride = 8u; stride > 0u; stride /= 2u) {
        if lane % 16u < stride {
            scratch_put(lane, scratch_get(lane) + scratch_get(lane + stride));
            scratch_put(LANES + lane, scratch_get(LANES + lane) + scratch_get(LANES + lane + stride));
        }
        workgroupBarrier();
    }
    // Sum tiles along one side of the product tile.
    let parts = 64u / params.side;
    if parts == 1u {
        for (var stride = 128u; stride >= 16u; stride /= 2u) {
            if lane % 16u == 0u && lane < stride {
                scratch_put(lane, scratch_get(lane) + scratch_get(lane + stride));
                scratch_put(LANES + lane, scratch_get(LANES + lane) + scratch_get(LANES + lane + stride));
            }
            workgroupBarrier();
        }
    }
    if lane % 16u == 0u && lane / 16u < parts * parts {
        let x_sum_tile = x_tile * parts + lane / 16u / parts;
        let y_sum_tile = y_tile * parts + lane / 16u % parts;
        if x_sum_tile < params.x_sum_tiles && y_sum_tile < params.y_sum_tiles {
            let in_band = x_sum_tile - params.band_first * parts;
            let at = (in_band * params.y_sum_tiles + y_sum_tile) * params.kernels;
            var first = scratch_get(lane);
            let second = scratch_get(LANES + lane);
            for (var j = 0u; j < min(params.rbf, 4u); j++) {
                sums[at + j] = first[j];
            }
            if params.rbf > 4u {
                sums[at + 4u] = second.x;
            }
            if params.kernels > params.rbf {
                sums[at + params.rbf] = second.y;
            }
        }
    }

    if params.row_sums != 0u {
        workgroupBarrier();
        scratch_put(lane, over_columns);
        scratch_put(LANES + column * 16u + row, over_rows);
        workgroupBarrier();
        // Neighbouring lanes hold neighbouring columns in the first half, rows in the second.
        let span = params.side / 4u;
        for (var stride = 1u; stride < span; stride *= 2u) {
            if lane % (2u * stride) == 0u {
                scratch_put(lane, scratch_get(lane) + scratch_get(lane + stride));
                scratch_put(LANES + lane, scratch_get(LANES + lane) + scratch_get(LANES + lane + stride));
            }
            workgroupBarrier();
        }
        if lane % span == 0u {
            let part = (lane % 16u) / span;
            let x_row = (x_tile * 16u + row) * 4u;
            let y_row = (y_tile * 16u + row) * 4u;
            let x_sum_tile = x_tile * parts + part;
            let y_sum_tile = y_tile * parts + part;
            var x_total = scratch_get(lane);
            var y_total = scratch_get(LANES + lane);
            for (var i = 0u; i < 4u; i++) {
                if y_sum_tile < params.y_sum_tiles && x_row + i < params.x_sum_tiles * params.side {
                    let in_band = x_row + i - params.band_first * 64u;
                    row_sums[in_band * params.y_sum_tiles + y_sum_tile] = x_total[i];
                }
                if x_sum_tile < params.x_sum_tiles && y_row + i < params.y_sum_tiles * params.side {
                    let in_band = x_sum_tile - params.band_first * parts;
                    row_sums[params.y_rows_at + (y_row + i) * params.band_sum_tiles + in_band] = y_total[i];
                }
            }
        }
    }
}
