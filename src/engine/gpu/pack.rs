//! Rows as the cores want them: panels of 64 rows, padded with zeros to whole slices of coordinates and
//! to whole patches of panels.

use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;

use super::SIDE;
use super::shaders::{Arithmetic, Core};
use crate::embeddings::F32Rows;
use crate::engine::score;

/// Panels of the largest patch along a side.
const PATCH: usize = 2;

/// What f16 values are multiplied by: rows of length at most 1 stay far from overflow, and a value of
/// 10⁻⁶ or more is not subnormal. The cores divide their products by its square.
const HALF_SCALE: f32 = 16_384.0;

/// Coordinates in a run that is written at once.
const RUN: usize = 16;

/// Rows packed for a core.
pub(super) enum Packed {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Packed {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(values) => bytemuck::cast_slice(values),
            Self::F16(values) => bytemuck::cast_slice(values),
        }
    }
}

/// Panels that hold `rows` rows.
pub(super) fn panels(rows: usize) -> usize {
    rows.div_ceil(SIDE).next_multiple_of(PATCH)
}

/// Bytes per row, padded coordinates included.
pub(super) fn bytes_per_row(core: Core, dim: usize) -> u64 {
    let padded = dim.next_multiple_of(core.slice()) as u64;
    match core.arithmetic {
        Arithmetic::F32 | Arithmetic::Split(_) => padded * 4,
        Arithmetic::F16 | Arithmetic::Cooperative(_) => padded * 2,
    }
}

/// Packs rows for a core.
pub(super) fn pack(core: Core, rows: F32Rows<'_>) -> Packed {
    match core.arithmetic {
        Arithmetic::F32 => Packed::F32(by_coordinate(rows, |&v| v)),
        Arithmetic::F16 => Packed::F16(by_coordinate(rows, |&v| f16::from_f32(v * HALF_SCALE))),
        Arithmetic::Cooperative(_) => Packed::F16(by_row::<1>(rows, core.slice())),
        Arithmetic::Split(_) => Packed::F16(by_row::<2>(rows, core.slice())),
    }
}

/// `[panel][coordinate][64 rows]`.
fn by_coordinate<T: Copy + Default + Send + Sync>(
    rows: F32Rows<'_>,
    convert: impl Fn(&f32) -> T + Sync,
) -> Vec<T> {
    let dim = rows.dim();
    let padded = dim.next_multiple_of(RUN);
    let mut packed = vec![T::default(); panels(rows.len()) * padded * SIDE];
    packed
        .par_chunks_mut(padded * SIDE)
        .zip(rows.values().par_chunks(SIDE * dim))
        .for_each(|(panel, values)| {
            // Run by run, so that what is written stays in the nearest cache.
            for (run, to) in panel.chunks_exact_mut(RUN * SIDE).enumerate() {
                for (r, row) in values.chunks_exact(dim).enumerate() {
                    let from = &row[run * RUN..((run + 1) * RUN).min(dim)];
                    for (k, v) in from.iter().enumerate() {
                        to[k * SIDE + r] = convert(v);
                    }
                }
            }
        });
    packed
}

/// `[panel][plane][slice][64 rows][coordinate]`; with two planes a value is high + low.
fn by_row<const PLANES: usize>(rows: F32Rows<'_>, slice: usize) -> Vec<f16> {
    let dim = rows.dim();
    let slices = dim.div_ceil(slice);
    let plane_len = slices * SIDE * slice;
    let mut packed = vec![f16::ZERO; panels(rows.len()) * PLANES * plane_len];
    packed
        .par_chunks_mut(PLANES * plane_len)
        .zip(rows.values().par_chunks(SIDE * dim))
        .for_each_init(
            || (vec![0.0f32; dim], vec![f16::ZERO; dim]),
            |(rest, rounded), (panel, values)| {
                for (r, row) in values.chunks_exact(dim).enumerate() {
                    for (rest, &v) in rest.iter_mut().zip(row) {
                        *rest = v * HALF_SCALE;
                    }
                    for plane in panel.chunks_exact_mut(plane_len) {
                        rounded.convert_from_f32_slice(rest);
                        for (s, from) in rounded.chunks(slice).enumerate() {
                            plane[(s * SIDE + r) * slice..][..from.len()].copy_from_slice(from);
                        }
                        for (rest, high) in rest.iter_mut().zip(rounded.iter()) {
                            *rest -= high.to_f32();
                        }
                    }
                }
            },
        );
    packed
}

/// ‖x‖² per row as the core holds it, f64 rounded to f32, padded with 0 to whole panels.
pub(super) fn sq_norms(core: Core, rows: F32Rows<'_>) -> Vec<f32> {
    let sq_norm = |row: &[f32]| {
        if core.is_full_grade() {
            score::dot(row, row) as f32
        } else {
            row.iter().map(|&v| f64::from(held(v)).powi(2)).sum::<f64>() as f32
        }
    };
    let mut sq_norms = vec![0.0f32; panels(rows.len()) * SIDE];
    sq_norms
        .par_iter_mut()
        .zip(rows.values().par_chunks(rows.dim()))
        .for_each(|(to, row)| *to = sq_norm(row));
    sq_norms
}

/// A value as cores of f16 hold it.
fn held(value: f32) -> f32 {
    f16::from_f32(value * HALF_SCALE).to_f32() / HALF_SCALE
}

/// ‖x − x̃‖ per row, x̃ being the row in f16 as a core of that grade holds it.
pub(super) fn half_residuals(rows: F32Rows<'_>) -> Vec<f64> {
    let residual = |row: &[f32]| {
        let square = |&v: &f32| (f64::from(v) - f64::from(held(v))).powi(2);
        row.iter().map(square).sum::<f64>().sqrt()
    };
    rows.values().par_chunks(rows.dim()).map(residual).collect()
}

#[cfg(test)]
mod tests {
    use super::super::shaders::Matrices;
    use super::*;

    const ROWS: usize = 70;
    const DIM: usize = 37;

    fn values() -> Vec<f32> {
        (1..=ROWS * DIM)
            .map(|v| (v as f32 * 0.37).sin() / 7.0)
            .collect()
    }

    /// The value of a row as it stands in `packed`, where `at` says; 0 outside the rows.
    fn assert_holds(
        what: &str,
        len: usize,
        padded: usize,
        held: impl Fn(usize, usize) -> f32,
        error: f32,
    ) {
        let values = values();
        assert_eq!(len, 128 * padded, "{what}");
        for row in 0..128 {
            for k in 0..padded {
                let exists = row < ROWS && k < DIM;
                let expected = if exists { values[row * DIM + k] } else { 0.0 };
                let off = (held(row, k) - expected).abs();
                assert!(
                    off <= error,
                    "{what}: row {row}, coordinate {k} is off by {off}"
                );
            }
        }
    }

    #[test]
    fn panels_hold_every_value_and_zeros_around() {
        let values = values();
        let rows = F32Rows::new(&values, DIM);
        let core = |arithmetic| Core {
            arithmetic,
            patch: 2,
        };
        let by_coordinate = |row: usize, k: usize| (row / 64 * 48 + k) * 64 + row % 64;
        let by_row = |row: usize, k: usize, planes: usize, plane: usize| {
            (((row / 64 * planes + plane) * 2 + k / 32) * 64 + row % 64) * 32 + k % 32
        };
        let matrices = Matrices {
            side: 16,
            subgroup: 32,
        };
        let half = |v: f16| v.to_f32() / HALF_SCALE;

        let Packed::F32(packed) = pack(core(Arithmetic::F32), rows) else {
            panic!("f32")
        };
        assert_holds(
            "f32",
            packed.len(),
            48,
            |r, k| packed[by_coordinate(r, k)],
            0.0,
        );
        // Half a unit in the last place of values below 1/4.
        let rounding = 2f32.powi(-14);
        let Packed::F16(packed) = pack(core(Arithmetic::F16), rows) else {
            panic!("f16")
        };
        let held = |r, k| half(packed[by_coordinate(r, k)]);
        assert_holds("f16", packed.len(), 48, held, rounding);
        let Packed::F16(packed) = pack(core(Arithmetic::Cooperative(matrices)), rows) else {
            panic!("f16")
        };
        let held = |r, k| half(packed[by_row(r, k, 1, 0)]);
        assert_holds("cooperative", packed.len(), 64, held, rounding);
        let Packed::F16(packed) = pack(core(Arithmetic::Split(matrices)), rows) else {
            panic!("f16")
        };
        let held = |r, k| half(packed[by_row(r, k, 2, 0)]) + half(packed[by_row(r, k, 2, 1)]);
        // Half a unit of the low part, which is at most half a unit of the high one.
        assert_holds("split", packed.len() / 2, 64, held, 2f32.powi(-25));
    }

    #[test]
    fn residuals_are_what_rounding_takes() {
        let exact = [0.5f32, -0.25, 0.0, 1.0];
        assert_eq!(half_residuals(F32Rows::new(&exact, 4)), [0.0]);
        let values = values();
        for (row, residual) in F32Rows::new(&values, DIM)
            .iter()
            .zip(half_residuals(F32Rows::new(&values, DIM)))
        {
            // Each value loses at most 2⁻¹¹ of itself, and some lose something.
            assert!(residual > 0.0 && residual <= score::norm(row) * 2f64.powi(-11));
        }
        // Subnormal halves lose more of themselves, but never more than half their spacing.
        let tiny = [1e-9f32; 4];
        assert!(half_residuals(F32Rows::new(&tiny, 4))[0] <= 2.0 * 2f64.powi(-25 - 14));
        let half = Core {
            arithmetic: Arithmetic::F16,
            ..Core::PLAIN
        };
        for core in [Core::PLAIN, half] {
            let norms = sq_norms(core, F32Rows::new(&exact, 4));
            assert_eq!((norms.len(), norms[0], norms[1]), (128, 1.3125, 0.0));
        }
        let third = [1.0f32 / 3.0];
        let norm = |core| sq_norms(core, F32Rows::new(&third, 1))[0];
        assert!(norm(half) != norm(Core::PLAIN) && (norm(half) * 9.0 - 1.0).abs() < 1e-3);
    }
}
