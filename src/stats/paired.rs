//! paired.
