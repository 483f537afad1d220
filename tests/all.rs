//! One integration-test binary: faster to link, helpers shared.

mod architecture;
mod fixtures;
mod neighbourhoods;
mod report;
