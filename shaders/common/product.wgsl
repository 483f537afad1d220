// The product core in f32 arithmetic: A·Bᵀ of $PATCH × $PATCH panels, 64 × 64 products per pair of panels.
//
// A panel holds 64 rows. A slice of 16 coordinates of a panel is 256 consecutive vectors, one per
// invocation. Coordinates are padded with 0 to whole slices, rows to whole patches of panels.
//   x_panels, y_panels   [panel][coordinate][64], as vectors of four rows; see rows_*.wgsl
// A workgroup of 256 computes a patch of tiles. Of each, invocation `lane` owns 4 × 4 products: rows
// 4·(lane / 16) + i, columns 4·(lane % 16) + j. Each product is one f32 sum in the order of the
// coordinates, wherever it lies in a patch.
//
// An operation's file follows: `params` at binding 0, its own buffers from binding 3 on, an entry point
// that calls `products`, and `epilogue`, which is handed the tiles one by one, in uniform control flow
// and with the scratch memory free.

const PATCH: u32 = $PATCHu;
const LANES: u32 = 256u;
const SLICE: u32 = 16u;

var<workgroup> x_slice: array<vec4<f32>, PATCH * LANES>;
var<workgroup> y_slice: array<vec4<f32>, PATCH * LANES>;

// Scratch memory of an epilogue: 512 vectors.
fn scratch_put(at: u32, value: vec4<f32>) {
    if at < LANES {
        x_slice[at] = value;
    } else {
        y_slice[at - LANES] = value;
    }
}

fn scratch_get(at: u32) -> vec4<f32> {
    if at < LANES {
        return x_slice[at];
    }
    return y_slice[at - LANES];
}

// Hands the tiles of the patch that begins at panel `x_tile` of x and `y_tile` of y to `epilogue`. Begins
// and ends with a barrier.
fn products(x_tile: u32, y_tile: u32, slices: u32, lane: u32) {
    let row = lane / 16u;
    let column = lane % 16u;
    // The next slice is on its way while the current one is multiplied.
#for p in PATCH
    var x_at_$p = (x_tile + $pu) * slices * LANES + lane;
    var y_at_$p = (y_tile + $pu) * slices * LANES + lane;
    var next_x_$p = fetch_x(x_at_$p);
    var next_y_$p = fetch_y(y_at_$p);
#end
#for r in PATCH
#for c in PATCH
    var sums_$r_$c_0 = vec4<f32>();
    var sums_$r_$c_1 = vec4<f32>();
    var sums_$r_$c_2 = vec4<f32>();
    var sums_$r_$c_3 = vec4<f32>();
#end
#end
    for (var slice = 1u; slice <= slices; slice++) {
        workgroupBarrier();
#for p in PATCH
        x_slice[$pu * LANES + lane] = next_x_$p;
        y_slice[$pu * LANES + lane] = next_y_$p;
#end
        workgroupBarrier();
        if slice < slices {
#for p in PATCH
            x_at_$p += LANES;
            y_at_$p += LANES;
            next_x_$p = fetch_x(x_at_$p);
            next_y_$p = fetch_y(y_at_$p);
#end
        }
        for (var k = 0u; k < SLICE; k++) {
#for p in PATCH
            let x_$p = x_slice[$pu * LANES + k * 16u + row];
            let y_$p = y_slice[$pu * LANES + k * 16u + column];
#end
#for r in PATCH
#for c in PATCH
            sums_$r_$c_0 += x_$r.x * y_$c;
            sums_$r_$c_1 += x_$r.y * y_$c;
            sums_$r_$c_2 += x_$r.z * y_$c;
            sums_$r_$c_3 += x_$r.w * y_$c;
#end
#end
        }
    }
    workgroupBarrier();
#for r in PATCH
#for c in PATCH
    let tile_$r_$c = mat4x4<f32>(sums_$r_$c_0, sums_$r_$c_1, sums_$r_$c_2, sums_$r_$c_3);
    epilogue(x_tile + $ru, y_tile + $cu, tile_$r_$c * UNSCALE, lane);
    workgroupBarrier();
#end
#end
}

