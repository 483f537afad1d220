// XᵀY: products of the columns of x with the columns of y, over at most 64 panels of rows.
//
//   x_panels, y_panels   [panel][coordinate][64 rows], as vectors of four rows; missing rows are 0
//   products             [column of x in the band][column of y] (high, low), the sum being high + low
// A workgroup of 256 owns 64 × 64 products, invocation `lane` the columns lane / 16 + 16i of x and
// lane % 16 + 16j of y. Grid: tiles of y's columns × tiles of x's columns.
// The 64 rows of a panel are summed in f32, the panels as unevaluated sums of two f32 (Knuth's TwoSum),
// which lose nothing that matters beside the panels' own rounding.

struct Params {
    panels: u32,
    // Columns, and columns padded to whole slices of 16 as they lie in the panels.
    x_dim: u32,
    y_dim: u32,
    x_padded: u32,
    y_padded: u32,
    // First tile of this dispatch, and the tile of x's columns where the band begins.
    x_first: u32,
    y_first: u32,
    band_first: u32,
    // 0, which no compiler knows.
    zero: u32,
    pad_0: u32,
    pad_1: u32,
    pad_2: u32,
}

const LANES: u32 = 256u;

@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x_panels: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y_panels: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> products: array<vec2<f32>>;

// 16 rows of 64 columns: [four rows][column].
var<workgroup> x_slice: array<vec4<f32>, LANES>;
var<workgroup> y_slice: array<vec4<f32>, LANES>;

// `v`, of which the compiler no longer knows how it was computed. WGSL lets compilers simplify
// (a + b) − a to b, and with it the rounding errors that TwoSum is about.
fn opaque(v: vec4<f32>) -> vec4<f32> {
    return bitcast<vec4<f32>>(bitcast<vec4<u32>>(v) ^ vec4<u32>(params.zero));
}

@compute @workgroup_size(256)
fn gram(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
) {
    let row = lane / 16u;
    let column = lane % 16u;
    let x_start = (params.x_first + group.y) * 64u;
    let y_start = (params.y_first + group.x) * 64u;
    // What this invocation loads: four rows of one column of x and of y.
    let quad = lane % 4u;
    let x_load = x_start + lane / 4u;
    let y_load = y_start + lane / 4u;
    let put = quad * 64u + lane / 4u;

    var high: array<vec4<f32>, 4>;
    var low: array<vec4<f32>, 4>;
    for (var i = 0u; i < 4u; i++) {
        high[i] = vec4<f32>();
        low[i] = vec4<f32>();
    }
    for (var panel = 0u; panel < params.panels; panel++) {
        var sums: array<vec4<f32>, 4>;
        for (var i = 0u; i < 4u; i++) {
            sums[i] = vec4<f32>();
        }
        for (var slice = 0u; slice < 4u; slice++) {
            workgroupBarrier();
            // Columns beyond the last slice belong to the next panel, or to nobody.
            x_slice[put] = vec4<f32>();
            if x_load < params.x_padded {
                x_slice[put] = x_panels[(panel * params.x_padded + x_load) * 16u + slice * 4u + quad];
            }
            y_slice[put] = vec4<f32>();
            if y_load < params.y_padded {
                y_slice[put] = y_panels[(panel * params.y_padded + y_load) * 16u + slice * 4u + quad];
            }
            workgroupBarrier();
            for (var q = 0u; q < 4u; q++) {
                let y_0 = y_slice[q * 64u + column];
                let y_1 = y_slice[q * 64u + column + 16u];
                let y_2 = y_slice[q * 64u + column + 32u];
                let y_3 = y_slice[q * 64u + column + 48u];
                for (var i = 0u; i < 4u; i++) {
                    let x = x_slice[q * 64u + row + 16u * i];
                    sums[i] += vec4<f32>(dot(x, y_0), dot(x, y_1), dot(x, y_2), dot(x, y_3));
                }
            }
        }
        for (var i = 0u; i < 4u; i++) {
            let a = high[i];
            let b = opaque(sums[i]);
            let sum = opaque(a + b);
            let b_part = opaque(sum - a);
            let a_part = opaque(sum - b_part);
            low[i] += opaque(a - a_part) + opaque(b - b_part);
            high[i] = sum;
        }
    }
    for (var i = 0u; i < 4u; i++) {
        let x_column = x_start + row + 16u * i;
        for (var j = 0u; j < 4u; j++) {
            let y_column = y_start + column + 16u * j;
            if x_column < params.x_dim && y_column < params.y_dim {
                let in_band = x_column - params.band_first * 64u;
                products[in_band * params.y_dim + y_column] = vec2<f32>(high[i][j], low[i][j]);
            }
        }
    }
}
