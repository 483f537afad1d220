//! Drift measures: one file each, made of engine operations and statistics.

pub mod adapter;
pub mod alignment;
pub mod batches;
pub mod clusters;
pub mod comparability;
pub mod cosine;
pub mod dimensions;
pub mod duplicates;
pub mod emergence;
mod fourier;
pub mod frechet;
pub mod kmeans;
pub mod map;
pub mod mixed_spaces;
pub mod mmd;
pub mod moments;
pub mod near_duplicates;
pub mod ood;
pub mod overlap;
pub mod pairs;
pub mod precision;
pub mod retrieval;
pub mod series;
pub mod sketch;
pub mod slices;
pub mod spectrum;
pub mod thresholds;
