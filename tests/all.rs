//! One integration-test binary: faster to link, helpers shared.

mod architecture;
mod cli;
mod fixtures;
mod gpu;
mod neighbourhoods;
mod report;
mod shaders;
