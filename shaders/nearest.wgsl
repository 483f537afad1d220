// The largest product of each query (row of x) with each bin of `width` consecutive base rows (of y).
//
//   maxima   [query in the band][bin]
// `width` is a power of two up to 64; the last bin may be short. A workgroup owns a patch of tiles of 64
// queries and 64 base rows. Grid: patches of y × patches of x. A maximum is one of the products, unrounded.

struct Params {
    slices: u32,
    x_rows: u32,
    y_rows: u32,
    // First tile of this dispatch, and the tile of x where the band begins.
    x_first: u32,
    y_first: u32,
    band_first: u32,
    width: u32,
    bins: u32,
}

const LOWEST: f32 = -3.4028234e38;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> maxima: array<f32>;

@compute @workgroup_size(256)
fn nearest(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    products(params.x_first + group.y * PATCH, params.y_first + group.x * PATCH, params.slices, lane);
}

fn epilogue(x_tile: u32, y_tile: u32, products: mat4x4<f32>, lane: u32) {
    var tile = products;

    let first_row = (x_tile * 16u + lane / 16u) * 4u;
    let first_column = (y_tile * 16u + lane % 16u) * 4u;
    let columns = first_column + vec4<u32>(0u, 1u, 2u, 3u);
    let band_row = first_row - params.band_first * 64u;
    var largest = vec4<f32>();
    for (var i = 0u; i < 4u; i++) {
        // Base rows that do not exist are never the largest.
        var row = select(vec4<f32>(LOWEST), tile[i], columns < vec4<u32>(params.y_rows));
        if params.width < 4u && first_row + i < params.x_rows {
            for (var j = 0u; j < 4u; j += params.width) {
                let bin = (first_column + j) / params.width;
                if bin < params.bins {
                    maxima[(band_row + i) * params.bins + bin] =
                        max(row[j], row[j + params.width - 1u]);
                }
            }
        }
        largest[i] = max(max(row.x, row.y), max(row.z, row.w));
    }
    if params.width < 4u {
        return;
    }
    scratch_put(lane, largest);
    workgroupBarrier();
    let span = params.width / 4u;
    for (var stride = 1u; stride < span; stride *= 2u) {
        if lane % (2u * stride) == 0u {
            scratch_put(lane, max(scratch_get(lane), scratch_get(lane + stride)));
        }
        workgroupBarrier();
    }
    let bin = first_column / params.width;
    if lane % span == 0u && bin < params.bins {
        var found = scratch_get(lane);
        for (var i = 0u; i < 4u; i++) {
            if first_row + i < params.x_rows {
                maxima[(band_row + i) * params.bins + bin] = found[i];
            }
        }
    }
}
