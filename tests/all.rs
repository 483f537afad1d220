//! One integration-test binary: faster to link, helpers shared.

mod adversarial;
mod align;
mod architecture;
mod cli;
mod evaluate;
mod fixtures;
mod gates;
mod geometry;
mod gpu;
mod half;
mod life;
mod mmd;
mod neighbourhoods;
mod oracle;
mod report;
mod schema;
mod shaders;
mod source;
mod spirv;
mod stream;
mod sums;
mod thresholds;
mod twins;
