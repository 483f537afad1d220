//! How precise a set's values are, told from the values: what a file stores as f32 may have been f16 or
//! int8 before, and a test between sets of different precision finds the rounding.

use half::{bf16, f16};
use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{Ids, Rows};

/// Shorter rows are short numbers by chance.
const MIN_DIM: usize = 16;
/// Fewer values in a row lie on some grid by chance.
const MIN_GRID_DIM: usize = 64;
/// Levels of an 8-bit code.
const LEVELS: f64 = 255.0;
/// How far from a grid point a value may be, in steps: f32 rounding is a hundredth of that.
const GRID_TOLERANCE: f64 = 1e-3;
/// Values of a row that tell most rows apart from a grid.
const FIRST_VALUES: usize = 48;
/// Rows whose values are counted per coordinate, and the fewest that tell.
const COUNTED_ROWS: usize = 2_000;
const MIN_COUNTED_ROWS: usize = 1_000;
/// Ids named.
const NAMED: usize = 10;

/// The coarsest type that holds a row's values without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// At most 256 levels at equal distances, along a row or along a coordinate.
    Int8,
    /// Eight binary digits.
    Bf16,
    /// IEEE half precision.
    F16,
    /// More than these.
    F32,
}

impl Precision {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::F32 => "f32",
        }
    }
}

/// Rows of one precision.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PrecisionCount {
    /// Their precision.
    pub precision: Precision,
    /// How many.
    pub rows: u64,
    /// The first of their ids, in the order of ids.
    pub first_ids: Vec<String>,
}

/// How precise the values of a set are.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ValuePrecision {
    /// Rows by the coarsest type that holds their values, most rows first.
    pub rows: Vec<PrecisionCount>,
    /// Median over coordinates of the number of different values among at most 2,000 rows; null with fewer than
    /// 1,000. At most 256: the set is quantised coordinate by coordinate.
    pub levels_per_coordinate: Option<u64>,
}

impl ValuePrecision {
    /// What the set is, as a whole: int8 where coordinates have at most 256 levels, else that of most rows.
    pub fn main(&self) -> Option<Precision> {
        if self
            .levels_per_coordinate
            .is_some_and(|levels| levels <= 256)
        {
            return Some(Precision::Int8);
        }
        self.rows.first().map(|count| count.precision)
    }
}

/// Looks at every value.
///
/// A row is int8 where all its values lie on a grid of at most 256 levels (from 64 dimensions on): a
/// row-wise scale, one scale for all and integers are all that. Scales per coordinate show in the number of
/// different values of each coordinate. `None` below 16 dimensions.
pub fn value_precision(rows: Rows<'_>, ids: &Ids) -> Option<ValuePrecision> {
    if rows.dim() < MIN_DIM || rows.is_empty() {
        return None;
    }
    let of_rows = rows.par_map(row_precision);
    let mut counts: Vec<PrecisionCount> = Vec::new();
    let kinds = [
        Precision::Int8,
        Precision::Bf16,
        Precision::F16,
        Precision::F32,
    ];
    for precision in kinds {
        let mut of_kind: Vec<&str> = Vec::new();
        let mut rows = 0;
        for (row, _) in of_rows.iter().enumerate().filter(|(_, p)| **p == precision) {
            rows += 1;
            let id = ids.get(row);
            let at = of_kind.partition_point(|known| *known < id);
            if at < NAMED {
                of_kind.insert(at, id);
                of_kind.truncate(NAMED);
            }
        }
        if rows > 0 {
            counts.push(PrecisionCount {
                precision,
                rows,
                first_ids: of_kind.into_iter().map(str::to_owned).collect(),
            });
        }
    }
    counts.sort_by_key(|count| std::cmp::Reverse(count.rows));
    Some(ValuePrecision {
        rows: counts,
        levels_per_coordinate: levels_per_coordinate(rows, ids),
    })
}

fn row_precision(row: &[f32]) -> Precision {
    if is_grid(row) {
        Precision::Int8
    } else if row.iter().all(|&v| bf16::from_f32(v).to_f32() == v) {
        Precision::Bf16
    } else if row.iter().all(|&v| f16::from_f32(v).to_f32() == v) {
        Precision::F16
    } else {
        Precision::F32
    }
}

/// Whether values lie on at most 256 levels at equal distances.
fn is_grid(row: &[f32]) -> bool {
    if row.len() < MIN_GRID_DIM {
        return false;
    }
    // (smallest gap, range) of sorted values.
    let gap = |values: &[f32]| -> (Vec<f64>, f64) {
        let mut sorted: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        let range = sorted[sorted.len() - 1] - sorted[0];
        // Levels that rounding to f32 has moved apart are one.
        let apart = range * 1e-6;
        let gaps = sorted.windows(2).map(|w| w[1] - w[0]);
        let smallest = gaps
            .filter(|gap| *gap > apart)
            .fold(f64::INFINITY, f64::min);
        (sorted, smallest)
    };
    let fits = |sorted: &[f64], step: f64| {
        let (first, last) = (sorted[0], sorted[sorted.len() - 1]);
        (last - first) / step <= LEVELS + GRID_TOLERANCE
    };
    let (some, step) = gap(&row[..FIRST_VALUES]);
    if !fits(&some, step) {
        return false;
    }
    let (sorted, step) = gap(row);
    // The two nearest values may be two or three levels apart.
    (1..=3).any(|levels| {
        // A gap as f32 has it is less exact than the range.
        let range = sorted[sorted.len() - 1] - sorted[0];
        let step = range / (range / step * f64::from(levels)).round().max(1.0);
        let on_level = |v: &f64| {
            let level = (v - sorted[0]) / step;
            (level - level.round()).abs() <= GRID_TOLERANCE
        };
        fits(&sorted, step) && sorted.iter().all(on_level)
    })
}

fn levels_per_coordinate(rows: Rows<'_>, ids: &Ids) -> Option<u64> {
    if rows.len() < MIN_COUNTED_ROWS {
        return None;
    }
    let mut drawn: Vec<usize> = (0..rows.len()).collect();
    drawn.sort_by_cached_key(|&row| (ids.hash(row, 0), ids.get(row)));
    drawn.truncate(COUNTED_ROWS);
    let values = rows.gather(drawn.iter().copied());
    let dim = rows.dim();
    let mut levels: Vec<u64> = (0..dim)
        .map(|axis| {
            let column = values.iter().skip(axis).step_by(dim);
            let mut bits: Vec<u32> = column.map(|v| (v + 0.0).to_bits()).collect();
            bits.sort_unstable();
            bits.dedup();
            bits.len() as u64
        })
        .collect();
    levels.sort_unstable();
    Some(levels[dim / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    const DIM: usize = 96;

    fn normal(seed: u64, rows: usize) -> Vec<f32> {
        let mut random = Philox::new(seed, 0);
        (0..rows * DIM)
            .map(|_| 0.05 * random.normal() as f32)
            .collect()
    }

    fn quantised(row: &[f32], zero_point: f32) -> Vec<f32> {
        let largest = row.iter().fold(0.0f32, |a, v| a.max(v.abs()));
        let step = (largest + zero_point.abs()) / 127.0;
        row.iter()
            .map(|v| ((v - zero_point) / step).round() * step + zero_point)
            .collect()
    }

    #[test]
    fn every_type_is_told_by_its_values() {
        let ids: Ids = (0..400).map(|row| row.to_string()).collect();
        let mut values = normal(1, 400);
        for (row, values) in values.chunks_exact_mut(DIM).enumerate() {
            let new: Vec<f32> = match row % 4 {
                0 => continue,
                1 => values.iter().map(|&v| f16::from_f32(v).to_f32()).collect(),
                2 => values.iter().map(|&v| bf16::from_f32(v).to_f32()).collect(),
                _ => {
                    let new = quantised(values, if row % 8 == 3 { 0.0 } else { 0.01 });
                    // A length of 1 is one scale more.
                    let norm = new.iter().map(|v| v * v).sum::<f32>().sqrt();
                    new.iter().map(|v| v / norm).collect()
                }
            };
            values.copy_from_slice(&new);
        }
        let found = value_precision(Rows::new(&values, DIM), &ids).unwrap();
        let rows = |precision| {
            let of_kind = found.rows.iter().find(|count| count.precision == precision);
            of_kind.map_or(0, |count| count.rows)
        };
        let all = [
            Precision::F32,
            Precision::F16,
            Precision::Bf16,
            Precision::Int8,
        ];
        assert_eq!(all.map(rows), [100; 4], "{found:?}");
        assert_eq!(found.levels_per_coordinate, None);
    }

    #[test]
    fn plain_values_lie_on_no_grid() {
        let values = normal(2, 5_000);
        let ids: Ids = (0..5_000).map(|row| row.to_string()).collect();
        let found = value_precision(Rows::new(&values, DIM), &ids).unwrap();
        assert_eq!(found.rows.len(), 1);
        assert_eq!(found.main(), Some(Precision::F32));
        assert!(found.levels_per_coordinate.unwrap() > 1_900);
        let integers: Vec<f32> = values.iter().map(|v| (v * 500.0).round()).collect();
        let found = value_precision(Rows::new(&integers, DIM), &ids).unwrap();
        assert_eq!((found.rows.len(), found.main()), (1, Some(Precision::Int8)));
        // Coordinate by coordinate: rows lie on no grid, coordinates have few values.
        let scaled: Vec<f32> = values
            .iter()
            .enumerate()
            .map(|(i, v)| {
                let step = 0.001 + 0.000_01 * (i % DIM) as f32;
                (v / step).round() * step
            })
            .collect();
        let found = value_precision(Rows::new(&scaled, DIM), &ids).unwrap();
        assert_eq!(found.rows[0].precision, Precision::F32);
        assert_eq!(found.main(), Some(Precision::Int8));
        // Short rows are on some grid by chance: nothing is said.
        let found = value_precision(Rows::new(&integers[..DIM * 8], 48), &ids).unwrap();
        assert_eq!(found.rows[0].precision, Precision::Bf16);
    }
}
