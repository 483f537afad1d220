//! comparability.
