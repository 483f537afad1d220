//! One integration-test binary: faster to link, helpers shared.

mod mmd;
