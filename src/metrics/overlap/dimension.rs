//! Local intrinsic dimension, from the distances to the nearest rows.

use schemars::JsonSchema;
use serde::Serialize;

use super::groups::Groups;
use super::lists::List;

/// Squared chords up to this are those of copies: coordinates in single precision resolve no less.
const COPY_SQ_CHORD: f64 = 1e-12;

/// In how many directions a space extends around its rows, which a change of model, a truncation or a
/// collapse alters.
///
/// Of an item with distances r₁ ≤ … ≤ r_k to its k nearest rows, as chords √(2 − 2 cos):
/// d = (k − 1) / Σ_{j < k} ln(r_k/r_j), the maximum-likelihood estimate. It falls short of high dimensions
/// where rows are few; the two sides are alike in that.
///
/// # Source
/// Levina and Bickel (2004); the harmonic mean over items: MacKay and Ghahramani (2005). Golden values:
/// fixtures/golden/knn_structure.json, `lid_*`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct IntrinsicDimension {
    /// Harmonic mean over items; null where no item has neighbours at different distances.
    pub harmonic_mean: Option<f64>,
    /// Normal 95 % interval of the mean of 1/d, turned round; its target is that of `overlap`.
    pub ci95: Option<[f64; 2]>,
    /// Items used: those with a neighbour that is no copy, and another one as far or farther.
    pub items: usize,
}

impl IntrinsicDimension {
    /// Summarises 1/d of items; `rows` are theirs.
    pub(super) fn new(rows: &[u32], inverse: &[Option<f64>], groups: &Groups) -> Self {
        let (rows, inverse): (Vec<u32>, Vec<f64>) = rows
            .iter()
            .zip(inverse)
            .filter_map(|(&row, &inverse)| Some((row, inverse?)))
            .unzip();
        let mean = groups.estimate(&rows, &inverse).filter(|e| e.mean > 0.0);
        Self {
            harmonic_mean: mean.map(|e| 1.0 / e.mean),
            ci95: mean
                .and_then(|e| e.ci95)
                .filter(|[low, _]| *low > 0.0)
                .map(|[low, high]| [1.0 / high, 1.0 / low]),
            items: inverse.len(),
        }
    }
}

/// 1/d of an item from the cosines of its nearest rows, best first.
pub(super) fn inverse_of_cosines(list: &List) -> Option<f64> {
    let sq_chords: Vec<f64> = list.iter().map(|&(cosine, _)| 2.0 - 2.0 * cosine).collect();
    inverse_of_sq_distances(&sq_chords, COPY_SQ_CHORD)
}

/// 1/d from ascending squared distances, of which those up to `copy` are left out.
fn inverse_of_sq_distances(sq_distances: &[f64], copy: f64) -> Option<f64> {
    let (&farthest, nearer) = sq_distances.split_last()?;
    let (mut sum, mut used) = (0.0, 0);
    for &sq_distance in nearer.iter().filter(|&&d| d > copy) {
        sum += 0.5 * (farthest / sq_distance).ln();
        used += 1;
    }
    (used > 0).then(|| sum / f64::from(used))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    #[test]
    fn golden_intrinsic_dimension() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/knn_structure.json"
        );
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let read = |key: &str| golden[key].clone();
        let x: Vec<Vec<f64>> = serde_json::from_value(read("X")).unwrap();
        let lists: Vec<Vec<usize>> = serde_json::from_value(read("knn_X")).unwrap();
        let expected: Vec<f64> = serde_json::from_value(read("lid_mle_X")).unwrap();
        let sq_distance =
            |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(p, q)| (p - q) * (p - q)).sum() };
        let mut inverse = Vec::new();
        for ((item, list), expected) in x.iter().zip(&lists).zip(expected) {
            let distances: Vec<f64> = list.iter().map(|&j| sq_distance(item, &x[j])).collect();
            let found = inverse_of_sq_distances(&distances, 0.0);
            assert!((1.0 / found.unwrap() - expected).abs() < 1e-9 * expected);
            inverse.push(found);
        }
        let rows: Vec<u32> = (0..10).collect();
        let found = IntrinsicDimension::new(&rows, &inverse, &Groups::new(10, None));
        let expected = golden["lid_harmonic_mean"].as_f64().unwrap();
        assert!((found.harmonic_mean.unwrap() - expected).abs() < 1e-9);
        assert_eq!(found.items, 10);
    }

    /// Distances to the nearest of a Poisson process in d dimensions: r_j^d are sums of exponentials.
    #[test]
    fn the_dimension_of_a_poisson_process_is_found() {
        for dim in [2.0, 8.0, 20.0] {
            let mut random = Philox::new(9, dim as u64);
            let rows: Vec<u32> = (0..4000).collect();
            let inverse: Vec<Option<f64>> = rows
                .iter()
                .map(|_| {
                    let mut volume = 0.0;
                    let distances: Vec<f64> = (0..10)
                        .map(|_| {
                            volume -= (1.0 - random.uniform()).ln();
                            f64::powf(volume, 2.0 / dim)
                        })
                        .collect();
                    inverse_of_sq_distances(&distances, 0.0)
                })
                .collect();
            let found = IntrinsicDimension::new(&rows, &inverse, &Groups::new(4000, None));
            let [low, high] = found.ci95.unwrap();
            // 1/d has a standard error of 1/(3 d √4000), half a percent; twice the interval for one draw.
            let (middle, half) = ((low + high) / 2.0, high - low);
            assert!((middle - dim).abs() < half, "{dim}: {low} to {high}");
            assert!(half < 0.05 * dim);
        }
    }

    #[test]
    fn copies_are_left_out() {
        let list = [(1.0, 1), (1.0 - 1e-16, 2), (0.9, 3), (0.6, 4)];
        let found = inverse_of_cosines(&list).unwrap();
        // One neighbour remains, at chord² 0.2, the farthest at 0.8: ln 2.
        assert!((found - 2f64.ln()).abs() < 1e-9);
        assert_eq!(inverse_of_cosines(&[(1.0, 1), (1.0, 2)]), None);
        assert_eq!(inverse_of_cosines(&[(0.5, 1)]), None);
        assert_eq!(inverse_of_cosines(&[(0.5, 1), (0.5, 2)]), Some(0.0));
    }
}
