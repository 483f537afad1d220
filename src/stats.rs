//! Statistics: pure functions on numbers.

pub mod conformal;
pub mod control;
pub mod correction;
pub mod counts;
pub mod distribution;
pub mod interval;
pub mod linalg;
pub mod paired;
pub mod permutation;
pub mod rng;
pub mod segmentation;
