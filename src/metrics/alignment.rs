//! alignment.
