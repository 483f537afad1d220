//! interval.
