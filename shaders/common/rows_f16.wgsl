// Rows as f16, times 2¹⁴ so that small values are not subnormal: value k of row r of a panel at [k][r],
// as vectors of four rows. Widening is exact and needs no feature.

@group(0) @binding(1) var<storage, read> x_panels: array<vec2<u32>>;
@group(0) @binding(2) var<storage, read> y_panels: array<vec2<u32>>;

// 2⁻²⁸: a product of stored rows times this is the product of the rows.
const UNSCALE: f32 = 3.7252902984619140625e-9;

fn widen(four: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(four.x), unpack2x16float(four.y));
}

fn fetch_x(at: u32) -> vec4<f32> {
    return widen(x_panels[at]);
}

fn fetch_y(at: u32) -> vec4<f32> {
    return widen(y_panels[at]);
}

