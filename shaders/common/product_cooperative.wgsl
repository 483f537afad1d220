// The product core on cooperative matrices (tensor cores): A·Bᵀ of $PATCH × $PATCH panels, f16 values,
// f32 sums. Needs subgroups of $SUBGROUP invocations.
//
// A panel holds 64 rows. A slice of 32 coordinates of a panel is 256 consecutive runs of eight values,
// one per invocation. Values are times 2¹⁴, so that small ones are not subnormal; coordinates are padded
// with 0 to whole slices, rows to whole patches of panels.
//   x_panels, y_panels   [panel][plane][slice][64 rows][32]
// With one plane, x·y is the product of the f16 values. With two planes a value is high + low, x·y is
// high·high + high·low + low·high, and f32 rows lose next to nothing.
//
// A workgroup of 256 computes a patch of tiles; of each, a subgroup owns $MATRIX_ROWS rows of
// $PARTS · $MATRIX_COLUMNS matrices of $SIDE × $SIDE, so that all take part in handing over every tile, in
// $PARTS parts of 64 × $PART_COLUMNS products that fit the scratch memory. Slices in workgroup memory are
// skewed by 16 bytes per row.
//
// An operation's file follows: `params` at binding 0, its own buffers from binding 3 on, an entry point
// that calls `products`, and `epilogue`, which is handed the tiles one by one, in uniform control flow
// and with the scratch memory free: of a tile, invocation `lane` gets rows 4·(lane / 16) + i, columns
// 4·(lane % 16) + j.

enable f16;
enable wgpu_cooperative_matrix;

alias MatrixX = coop_mat$SIDEx$SIDE<f16, A>;
alias MatrixY = coop_mat$SIDEx$SIDE<f16, B>;
alias Sums = coop_mat$SIDEx$SIDE<f32, C>;

struct Eight {
    low: vec4<f16>,
    high: vec4<f16>,
}

const PATCH: u32 = $PATCHu;
const LANES: u32 = 256u;
// Vectors of four per row of a slice, and per row of a part that is handed over.
const STRIDE: u32 = 10u;
const PART_VECTORS: u32 = $PART_COLUMNSu / 4u;
const PART_STRIDE: u32 = PART_VECTORS + 1u;
const PLANES: u32 = $PLANESu;
// 2⁻²⁸: a product of stored rows times this is the product of the rows.
const UNSCALE: f32 = 3.7252902984619140625e-9;

@group(0) @binding(1) var<storage, read> x_panels: array<Eight>;
@group(0) @binding(2) var<storage, read> y_panels: array<Eight>;

var<workgroup> x_slice: array<vec4<f16>, PATCH * 64u * STRIDE>;
var<workgroup> y_slice: array<vec4<f16>, PATCH * 64u * STRIDE>;
var<workgroup> scratch: array<vec4<f32>, 64u * PART_STRIDE>;

// Scratch memory of an epilogue: 512 vectors.
fn scratch_put(at: u32, value: vec4<f32>) {
    scratch[at] = value;
}

fn scratch_get(at: u32) -> vec4<f32> {
    return scratch[at];
}

// Hands the tiles of the patch that begins at panel `x_tile` of x and `y_tile` of y to `epilogue`. Begins
// and ends with a barrier.
fn products(x_tile: u32, y_tile: u32, slices: u32, lane: u32) {
    let subgroup = lane / $SUBGROUPu;
    let own_row = subgroup / $SUBGROUP_COLUMNSu * $MATRIX_ROWSu * $SIDEu;
    let own_column = subgroup % $SUBGROUP_COLUMNSu * $SIDEu;
    let put = lane / 4u * STRIDE + lane % 4u * 2u;
    // Planes as a run of slices: of x high, high, low, of y high, low, high.
    let steps = select(1u, 3u, PLANES == 2u) * slices;
#for p in PATCH
    var x_at_$p = (x_tile + $pu) * PLANES * slices;
    var y_at_$p = (y_tile + $pu) * PLANES * slices;
    // As vectors: no local variable has the type of a buffer, whose layout some drivers stumble over.
    var next_x_low_$p = x_panels[x_at_$p * LANES + lane].low;
    var next_x_high_$p = x_panels[x_at_$p * LANES + lane].high;
    var next_y_low_$p = y_panels[y_at_$p * LANES + lane].low;
    var next_y_high_$p = y_panels[y_at_$p * LANES + lane].high;
#end
#for r in PATCH
#for m in MATRIX_ROWS
#for c in PATCH
#for h in PARTS
#for n in MATRIX_COLUMNS
    var sums_$r_$m_$c_$h_$n: Sums;
#end
#end
#end
#end
#end
    for (var step = 0u; step < steps; step++) {
        workgroupBarrier();
#for p in PATCH
        x_slice[$pu * 64u * STRIDE + put] = next_x_low_$p;
        x_slice[$pu * 64u * STRIDE + put + 1u] = next_x_high_$p;
        y_slice[$pu * 64u * STRIDE + put] = next_y_low_$p;
        y_slice[$pu * 64u * STRIDE + put + 1u] = next_y_high_$p;
#end
        workgroupBarrier();
        // The next slice is on its way while the current one is multiplied; the last one once more.
        let next = min(step + 1u, steps - 1u);
        let x_next = select(next, next - slices, PLANES == 2u && next >= slices);
        let y_next = select(next, next - 2u * slices, PLANES == 2u && next >= 2u * slices);
#for p in PATCH
        next_x_low_$p = x_panels[(x_at_$p + x_next) * LANES + lane].low;
        next_x_high_$p = x_panels[(x_at_$p + x_next) * LANES + lane].high;
        next_y_low_$p = y_panels[(y_at_$p + y_next) * LANES + lane].low;
        next_y_high_$p = y_panels[(y_at_$p + y_next) * LANES + lane].high;
#end
        for (var k = 0u; k < 32u; k += $SIDEu) {
#for r in PATCH
#for m in MATRIX_ROWS
            let x_$r_$m = coopLoadT<MatrixX>(&x_slice[($ru * 64u + own_row + $mu * $SIDEu) * STRIDE + k / 4u], STRIDE);
#end
#end
#for c in PATCH
#for h in PARTS
#for n in MATRIX_COLUMNS
            let y_$c_$h_$n = coopLoad<MatrixY>(&y_slice[($cu * 64u + $hu * $PART_COLUMNSu + $nu * $SUBGROUP_COLUMNSu * $SIDEu + own_column) * STRIDE + k / 4u], STRIDE);
#for r in PATCH
#for m in MATRIX_ROWS
            sums_$r_$m_$c_$h_$n = coopMultiplyAdd(x_$r_$m, y_$c_$h_$n, sums_$r_$m_$c_$h_$n);
#end
#end
#end
#end
#end
        }
    }
    let part = lane % 16u / PART_VECTORS;
    let start = lane / 16u * 4u * PART_STRIDE + lane % 16u % PART_VECTORS;
#for r in PATCH
#for c in PATCH
    var tile_$r_$c: mat4x4<f32>;
#for h in PARTS
    workgroupBarrier();
#for m in MATRIX_ROWS
#for n in MATRIX_COLUMNS
    let done_$r_$m_$c_$h_$n = sums_$r_$m_$c_$h_$n;
    coopStoreT(done_$r_$m_$c_$h_$n, &scratch[(own_row + $mu * $SIDEu) * PART_STRIDE + ($nu * $SUBGROUP_COLUMNSu * $SIDEu + own_column) / 4u], PART_STRIDE);
#end
#end
    workgroupBarrier();
    if part == $hu {
        tile_$r_$c = mat4x4<f32>(
            scratch[start],
            scratch[start + PART_STRIDE],
            scratch[start + 2u * PART_STRIDE],
            scratch[start + 3u * PART_STRIDE],
        );
    }
#end
    workgroupBarrier();
    epilogue(x_tile + $ru, y_tile + $cu, tile_$r_$c * UNSCALE, lane);
#end
#end
    workgroupBarrier();
}

