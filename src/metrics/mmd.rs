//! mmd.
