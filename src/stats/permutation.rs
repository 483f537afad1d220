//! permutation.
