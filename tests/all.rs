//! One integration-test binary: faster to link, helpers shared.

mod oracle;
mod twins;
