//! frechet.
