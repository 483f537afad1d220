//! cosine.
