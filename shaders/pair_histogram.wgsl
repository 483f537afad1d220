// Counts the products c of all pairs in 4096 bins over [-1, 1]; per tile Σ c, Σ c², the extremes.
//
//   strips       [workgroup][2048] bins 2w and 2w + 1 in the halves of word w; pair_histogram_total.wgsl
//                adds them up (global atomics beside cooperative matrices are not valid SPIR-V)
//   statistics   [tile of x in the band][tile of y] (Σ c, Σ c², min, max)
// A workgroup owns `strip` consecutive tiles of y (whole patches) against a patch of x. Grid: strips ×
// patches of x.
// Sums over a tile are f32 in a fixed order. With `diagonal`, x and y are the same rows: pairs i < j,
// and tiles below the diagonal are left unwritten.

struct Params {
    slices: u32,
    x_rows: u32,
    y_rows: u32,
    // First tile of this dispatch, and the tile of y where it ends.
    x_first: u32,
    y_first: u32,
    y_end: u32,
    // Tile of x where the band begins.
    band_first: u32,
    // Tiles of y in the whole block.
    y_tiles: u32,
    // Tiles of y per workgroup, PATCH · strip at most 15: two counts share a word, and a tile adds up to
    // 4096 to one.
    strip: u32,
    diagonal: u32,
    // Workgroups along y.
    strips: u32,
    pad_0: u32,
}

const BINS: u32 = 4096u;
const WORDS: u32 = BINS / 2u;
const LARGEST: f32 = 3.4028234e38;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> strips: array<u32>;
@group(0) @binding(4) var<storage, read_write> statistics: array<vec4<f32>>;

// Bins 2w and 2w + 1 in the halves of word w: 8 KiB, so that with the slices 16 KiB suffice.
var<workgroup> strip_counts: array<atomic<u32>, WORDS>;

fn combine(a: vec4<f32>, b: vec4<f32>) -> vec4<f32> {
    return vec4<f32>(a.xy + b.xy, min(a.z, b.z), max(a.w, b.w));
}

@compute @workgroup_size(256)
fn pair_histogram(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    // Ordered before the first count by the barriers of `products`.
    for (var word = lane; word < WORDS; word += LANES) {
        atomicStore(&strip_counts[word], 0u);
    }
    let x_tile = params.x_first + group.y * PATCH;
    let y_start = params.y_first + group.x * params.strip;
    let y_end = min(y_start + params.strip, params.y_end);
    for (var y_tile = y_start; y_tile < y_end; y_tile += PATCH) {
        if params.diagonal == 0u || x_tile < y_tile + PATCH {
            products(x_tile, y_tile, params.slices, lane);
        }
    }
    workgroupBarrier();
    for (var word = lane; word < WORDS; word += LANES) {
        strips[(group.y * params.strips + group.x) * WORDS + word] = atomicLoad(&strip_counts[word]);
    }
}

fn epilogue(x_tile: u32, y_tile: u32, products: mat4x4<f32>, lane: u32) {
    // A patch may reach beyond the last tile.
    if y_tile >= params.y_tiles || x_tile * 64u >= params.x_rows
        || (params.diagonal != 0u && y_tile < x_tile) {
        return;
    }
    var tile = products;
    let first_row = (x_tile * 16u + lane / 16u) * 4u;
    let first_column = (y_tile * 16u + lane % 16u) * 4u;
    var own = vec4<f32>(0.0, 0.0, LARGEST, -LARGEST);
    for (var i = 0u; i < 4u; i++) {
        for (var j = 0u; j < 4u; j++) {
            let row = first_row + i;
            let column = first_column + j;
            if row < params.x_rows && column < params.y_rows
                && (params.diagonal == 0u || row < column) {
                let c = tile[i][j];
                let bin = min(u32(max((c + 1.0) * f32(WORDS), 0.0)), BINS - 1u);
                atomicAdd(&strip_counts[bin / 2u], 1u << (16u * (bin % 2u)));
                own = combine(own, vec4<f32>(c, c * c, c, c));
            }
        }
    }
    scratch_put(lane, own);
    workgroupBarrier();
    for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
        if lane < stride {
            scratch_put(lane, combine(scratch_get(lane), scratch_get(lane + stride)));
        }
        workgroupBarrier();
    }
    if lane == 0u {
        statistics[(x_tile - params.band_first) * params.y_tiles + y_tile] = scratch_get(0u);
    }
}
