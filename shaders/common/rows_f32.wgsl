// Rows as f32: value k of row r of a panel at [k][r], as vectors of four rows.

@group(0) @binding(1) var<storage, read> x_panels: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> y_panels: array<vec4<f32>>;

// A product of stored rows times this is the product of the rows.
const UNSCALE: f32 = 1.0;

fn fetch_x(at: u32) -> vec4<f32> {
    return x_panels[at];
}

fn fetch_y(at: u32) -> vec4<f32> {
    return y_panels[at];
}

