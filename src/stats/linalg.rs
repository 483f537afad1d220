//! linalg.
