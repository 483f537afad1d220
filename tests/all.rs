//! One integration-test binary: faster to link, helpers shared.

mod adversarial;
mod align;
mod architecture;
mod cli;
mod fixtures;
mod gates;
mod geometry;
mod gpu;
mod half;
mod life;
mod map;
mod mmd;
mod neighbourhoods;
mod oracle;
mod report;
mod report_browser;
mod scenarios_samples;
mod schema;
mod shaders;
mod slices;
mod source;
mod spirv;
mod stream;
mod sums;
mod thresholds;
mod twins;
