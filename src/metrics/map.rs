//! A map of both sets in two dimensions, to look at: where in the corpus the drift is.
//!
//! Nothing is judged by it. Positions are principal components of unit rows: the two directions in which
//! the reference varies most, which is linear, so that what moved on the map moved in the space. What lies
//! beside each other on it need not be near; how much of the variance it shows is said with it.

use schemars::JsonSchema;
use serde::Serialize;

use super::alignment::OrthogonalMap;
use super::moments::Moments;
use crate::embeddings::{Ids, Rows};
use crate::engine::{Engine, score};
use crate::error::Result;
use crate::stats::linalg::Matrix;

/// Rows drawn of either side: more would hide each other.
const DRAWN: usize = 5_000;

/// Rows of one side with their ids.
#[derive(Debug, Clone, Copy)]
pub struct MappedSet<'a> {
    /// n × d.
    pub rows: Rows<'a>,
    /// One id per row.
    pub ids: &'a Ids,
}

/// How positions were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MapLayout {
    /// Both sides on the principal components of the reference: one space, positions compare.
    ReferencePca,
    /// Each side on its own principal components, the current side turned onto the reference by orthogonal
    /// Procrustes over shared items: spaces differ, shapes compare.
    AlignedPca,
    /// Each side on its own principal components: spaces differ and no items are shared.
    SeparatePca,
}

/// A two-dimensional map of both sets.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct CorpusMap {
    /// How positions were found.
    pub layout: MapLayout,
    /// Rows drawn, reference and current: those whose ids hash lowest.
    pub rows: [u64; 2],
    /// Whether every row is drawn.
    pub exact: bool,
    /// Share of the drawn unit rows' variance that the map shows, in [0, 1], reference and current; `None`
    /// without variance.
    pub variance_share: [Option<f64>; 2],
    /// The points, for the report.
    #[serde(skip)]
    pub points: Vec<MapPoint>,
    /// What is known of the points, for the report.
    #[serde(skip)]
    pub shades: Vec<MapShade>,
}

/// An item of the map.
#[derive(Debug, Clone, PartialEq)]
pub struct MapPoint {
    /// Its id.
    pub id: String,
    /// Its row and position in the reference set.
    pub reference: Option<(u32, [f32; 2])>,
    /// The same in the current set.
    pub current: Option<(u32, [f32; 2])>,
}

/// What is known of every point of a map.
#[derive(Debug, Clone, PartialEq)]
pub enum MapShade {
    /// A quantity.
    Number {
        /// What it is.
        name: String,
        /// One per point.
        values: Vec<Option<f64>>,
    },
    /// A slice.
    Slice {
        /// What the slices are by.
        by: String,
        /// The slices.
        names: Vec<String>,
        /// Slice of every point.
        of: Vec<Option<u32>>,
    },
}

/// Draws at most 5,000 rows of either side, those whose ids hash lowest, so that both show the same items.
///
/// `one_space` says that coordinates may be compared; `identities` that equal ids are the same item.
/// `None` where a side has fewer than three rows.
///
/// # Errors
/// The device fails, or eigenvalues do not converge.
pub fn map(
    engine: &Engine,
    reference: MappedSet<'_>,
    current: MappedSet<'_>,
    (one_space, identities): (bool, bool),
    seed: u64,
) -> Result<Option<CorpusMap>> {
    if reference.ids.len().min(current.ids.len()) < 3 {
        return Ok(None);
    }
    let rows = [reference, current].map(|set| lowest_hashes(set.ids, seed));
    let units = [unit_rows(reference, &rows[0]), unit_rows(current, &rows[1])];
    let x = Rows::new(&units[0], reference.rows.dim());
    let y = Rows::new(&units[1], current.rows.dim());
    let axes = Axes::fit(engine, x)?;
    let before = axes.positions(engine, x)?;
    let mut points: Vec<MapPoint> = rows[0]
        .iter()
        .zip(&before)
        .map(|(&row, &at)| MapPoint {
            id: reference.ids.get(row as usize).to_owned(),
            reference: Some((row, at.map(|v| v as f32))),
            current: None,
        })
        .collect();
    let pairs = if identities {
        pairs(&points, current, &rows[1])
    } else {
        vec![None; rows[1].len()]
    };
    let (layout, after, seen) = if one_space {
        let after = axes.positions(engine, y)?;
        let seen = axes.share_of(engine, y, &after)?;
        (MapLayout::ReferencePca, after, seen)
    } else {
        let own = Axes::fit(engine, y)?;
        let mut after = own.positions(engine, y)?;
        let turned = turn_onto(&before, &mut after, &pairs)?;
        let layout = if turned {
            MapLayout::AlignedPca
        } else {
            MapLayout::SeparatePca
        };
        (layout, after, own.share)
    };
    for ((&row, at), pair) in rows[1].iter().zip(after).zip(pairs) {
        let place = Some((row, at.map(|v| v as f32)));
        match pair {
            Some(point) => points[point].current = place,
            None => points.push(MapPoint {
                id: current.ids.get(row as usize).to_owned(),
                reference: None,
                current: place,
            }),
        }
    }
    Ok(Some(CorpusMap {
        layout,
        rows: [rows[0].len() as u64, rows[1].len() as u64],
        exact: rows[0].len() == reference.ids.len() && rows[1].len() == current.ids.len(),
        variance_share: [axes.share, seen],
        points,
        shades: Vec::new(),
    }))
}

/// The rows to draw, ascending.
fn lowest_hashes(ids: &Ids, seed: u64) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..ids.len() as u32).collect();
    if rows.len() > DRAWN {
        rows.sort_by_cached_key(|&row| (ids.hash(row as usize, seed), row));
        rows.truncate(DRAWN);
        rows.sort_unstable();
    }
    rows
}

fn unit_rows(set: MappedSet<'_>, rows: &[u32]) -> Vec<f32> {
    let dim = set.rows.dim();
    let mut values = Vec::with_capacity(rows.len() * dim);
    for &row in rows {
        values.extend(set.rows.row(row as usize).iter());
    }
    let norms = score::norms(Rows::new(&values, dim));
    for (row, norm) in values.chunks_exact_mut(dim).zip(norms) {
        for value in row {
            *value = (f64::from(*value) / norm) as f32;
        }
    }
    values
}

/// The point of every drawn current row whose item is drawn on the reference side too.
fn pairs(points: &[MapPoint], current: MappedSet<'_>, rows: &[u32]) -> Vec<Option<usize>> {
    let by_id: std::collections::HashMap<&str, usize> = points
        .iter()
        .enumerate()
        .map(|(i, point)| (point.id.as_str(), i))
        .collect();
    rows.iter()
        .map(|&row| by_id.get(current.ids.get(row as usize)).copied())
        .collect()
}

/// The first two principal components of a set.
struct Axes {
    mean: Vec<f64>,
    /// 2 × d, rows orthonormal; fewer rows in one dimension.
    directions: Vec<f32>,
    share: Option<f64>,
}

impl Axes {
    fn fit(engine: &Engine, rows: Rows<'_>) -> Result<Self> {
        let moments = Moments::of(engine, rows)?;
        let eigen = moments.scatter.symmetric_eigen()?;
        let dim = rows.dim();
        let mut directions = Vec::with_capacity(2 * dim);
        for axis in 0..dim.min(2) {
            let column: Vec<f64> = (0..dim).map(|i| eigen.vectors.row(i)[axis]).collect();
            // The sign of an eigenvector is chance: its largest coordinate is made positive.
            let largest = column
                .iter()
                .fold(0.0, |a: f64, &b| if b.abs() > a.abs() { b } else { a });
            directions.extend(column.iter().map(|&v| (v * largest.signum()) as f32));
        }
        let total = moments.scatter.trace();
        let seen: f64 = eigen.values.iter().take(2).sum();
        Ok(Self {
            mean: moments.mean,
            directions,
            share: (total > 0.0).then(|| (seen / total).clamp(0.0, 1.0)),
        })
    }

    fn positions(&self, engine: &Engine, rows: Rows<'_>) -> Result<Vec<[f64; 2]>> {
        let dim = rows.dim();
        let axes = self.directions.len() / dim;
        let projected = engine.project(rows, Rows::new(&self.directions, dim))?;
        let origin: Vec<f64> = self
            .directions
            .chunks_exact(dim)
            .map(|axis| {
                let terms = axis.iter().zip(&self.mean);
                terms.map(|(&a, m)| f64::from(a) * m).sum()
            })
            .collect();
        let place = |row: &[f32]| {
            std::array::from_fn(|i| row.get(i).map_or(0.0, |&v| f64::from(v) - origin[i]))
        };
        Ok(projected.chunks_exact(axes).map(place).collect())
    }

    /// Share of another set's variance that its positions on these axes show.
    fn share_of(
        &self,
        engine: &Engine,
        rows: Rows<'_>,
        positions: &[[f64; 2]],
    ) -> Result<Option<f64>> {
        let total = Moments::of(engine, rows)?.scatter.trace();
        let spread = |axis: usize| {
            let mean = positions.iter().map(|p| p[axis]).sum::<f64>() / positions.len() as f64;
            let squares = positions.iter().map(|p| (p[axis] - mean).powi(2));
            squares.sum::<f64>()
        };
        Ok((total > 0.0).then(|| ((spread(0) + spread(1)) / total).clamp(0.0, 1.0)))
    }
}

/// An item's places before and after.
type Pair = ([f64; 2], [f64; 2]);

/// Turns (and mirrors) `after` about its pairs' mean onto `before`; whether there were pairs enough.
fn turn_onto(before: &[[f64; 2]], after: &mut [[f64; 2]], pairs: &[Option<usize>]) -> Result<bool> {
    let paired: Vec<Pair> = after
        .iter()
        .zip(pairs)
        .filter_map(|(&y, pair)| Some((before[(*pair)?], y)))
        .collect();
    if paired.len() < 3 {
        return Ok(false);
    }
    let n = paired.len() as f64;
    let mean = |of: &dyn Fn(&Pair) -> [f64; 2]| {
        std::array::from_fn::<f64, 2, _>(|i| paired.iter().map(|p| of(p)[i]).sum::<f64>() / n)
    };
    let (centre_x, centre_y) = (mean(&|p| p.0), mean(&|p| p.1));
    let mut products = Matrix::zeros(2, 2);
    for (x, y) in &paired {
        let x: [f64; 2] = std::array::from_fn(|i| x[i] - centre_x[i]);
        let y: [f64; 2] = std::array::from_fn(|i| y[i] - centre_y[i]);
        products.add_outer(1.0, &y, &x);
    }
    let map = OrthogonalMap::fit(&products)?.map;
    for at in after {
        let y = [at[0] - centre_y[0], at[1] - centre_y[1]];
        *at = std::array::from_fn(|j| centre_x[j] + y[0] * map.row(0)[j] + y[1] * map.row(1)[j]);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turned_and_mirrored_map_is_turned_back() {
        let before: Vec<[f64; 2]> = (0..9)
            .map(|i| [f64::from(i % 3), f64::from(i * i % 7)])
            .collect();
        let (sin, cos) = 0.7_f64.sin_cos();
        let mut after: Vec<[f64; 2]> = before
            .iter()
            .map(|[x, y]| [cos * x + sin * y + 5.0, sin * x - cos * y - 2.0])
            .collect();
        let pairs: Vec<Option<usize>> = (0..9).map(|i| (i != 4).then_some(i)).collect();
        assert!(turn_onto(&before, &mut after, &pairs).unwrap());
        for (a, b) in after.iter().zip(&before) {
            // Rounding of a 2 × 2 decomposition at values below 10.
            assert!((a[0] - b[0]).abs() < 1e-12 && (a[1] - b[1]).abs() < 1e-12);
        }
        let mut few = before.clone();
        let two: Vec<Option<usize>> = (0..9).map(|i| (i < 2).then_some(i)).collect();
        assert!(!turn_onto(&before, &mut few, &two).unwrap());
        assert_eq!(few, before, "too few pairs turn nothing");
    }
}
