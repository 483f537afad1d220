//! moments.
