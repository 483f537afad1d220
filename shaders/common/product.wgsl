// The product core, f32: A·Bᵀ of one panel of x and one panel of y, 64 × 64 products.
//
// A panel holds 64 rows, coordinate by coordinate: value k of row r at [k][r], so that a slice of 16
// coordinates is 256 consecutive vectors, one per invocation. Coordinates are padded with 0 to whole
// slices, rows to whole panels.
//   x_panels, y_panels   [panel][coordinate][64], as vectors of four rows
// A workgroup of 256 computes one tile. Invocation `lane` owns 4 × 4 products: rows 4·(lane / 16) + i,
// columns 4·(lane % 16) + j. Each product is one f32 sum in the order of the coordinates.
//
// An operation's file follows: `params` at binding 0, its own buffers from binding 3 on, an entry point
// that calls `product` and deals with the tile. The slices are its scratch memory between products.

const LANES: u32 = 256u;
const SLICE: u32 = 16u;

@group(0) @binding(1) var<storage, read> x_panels: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y_panels: array<vec4<f32>>;

var<workgroup> x_slice: array<vec4<f32>, LANES>;
var<workgroup> y_slice: array<vec4<f32>, LANES>;

// Products of panel `x_tile` of x with panel `y_tile` of y: [i][j]. Begins and ends with a barrier.
fn product(x_tile: u32, y_tile: u32, slices: u32, lane: u32) -> mat4x4<f32> {
    let row = lane / 16u;
    let column = lane % 16u;
    var x_at = x_tile * slices * LANES + lane;
    var y_at = y_tile * slices * LANES + lane;
    // The next slice is on its way while the current one is multiplied.
    var next_x = x_panels[x_at];
    var next_y = y_panels[y_at];
    var row_0 = vec4<f32>();
    var row_1 = vec4<f32>();
    var row_2 = vec4<f32>();
    var row_3 = vec4<f32>();
    for (var slice = 1u; slice <= slices; slice++) {
        workgroupBarrier();
        x_slice[lane] = next_x;
        y_slice[lane] = next_y;
        workgroupBarrier();
        if slice < slices {
            x_at += LANES;
            y_at += LANES;
            next_x = x_panels[x_at];
            next_y = y_panels[y_at];
        }
        for (var k = 0u; k < SLICE; k++) {
            let x = x_slice[k * 16u + row];
            let y = y_slice[k * 16u + column];
            row_0 += x.x * y;
            row_1 += x.y * y;
            row_2 += x.z * y;
            row_3 += x.w * y;
        }
    }
    workgroupBarrier();
    return mat4x4<f32>(row_0, row_1, row_2, row_3);
}

