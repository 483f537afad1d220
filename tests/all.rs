//! One integration-test binary: faster to link, helpers shared.

mod architecture;
mod cli;
mod fixtures;
mod neighbourhoods;
mod report;
