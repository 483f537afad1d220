// X·Wᵀ: the products themselves.
//
//   projected   [row of x in the band][row of w]
// w's panels are y_panels. A workgroup owns a patch of tiles of 64 × 64. Grid: patches of w × of x.

struct Params {
    slices: u32,
    x_rows: u32,
    y_rows: u32,
    // First tile of this dispatch, and the tile of x where the band begins.
    x_first: u32,
    y_first: u32,
    band_first: u32,
    pad_0: u32,
    pad_1: u32,
}

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(3) var<storage, read_write> projected: array<f32>;

@compute @workgroup_size(256)
fn project(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    products(params.x_first + group.y * PATCH, params.y_first + group.x * PATCH, params.slices, lane);
}

fn epilogue(x_tile: u32, y_tile: u32, products: mat4x4<f32>, lane: u32) {
    var tile = products;
    let first_row = (x_tile * 16u + lane / 16u) * 4u;
    let first_column = (y_tile * 16u + lane % 16u) * 4u;
    for (var i = 0u; i < 4u; i++) {
        let row = first_row + i;
        for (var j = 0u; j < 4u; j++) {
            let column = first_column + j;
            if row < params.x_rows && column < params.y_rows {
                projected[(row - params.band_first * 64u) * params.y_rows + column] = tile[i][j];
            }
        }
    }
}
