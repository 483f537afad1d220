//! spectrum.
