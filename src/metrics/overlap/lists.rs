//! How much two ranked neighbour lists agree. Pure functions of the lists.

/// A neighbour list as [`crate::engine::Neighbors`] gives it: (score, row), best first.
pub(super) type List = [(f64, u32)];

/// X₁ … X_k: how many rows the first d entries of both lists have in common, for every depth d up to
/// the longer list's length.
pub(super) fn common_by_depth(a: &List, b: &List) -> Vec<u32> {
    let mut ranks: Vec<(u32, usize)> = a.iter().map(|e| e.1).zip(0..).collect();
    ranks.sort_unstable();
    let mut common = vec![0u32; a.len().max(b.len())];
    for (rank_b, &(_, row)) in b.iter().enumerate() {
        if let Ok(found) = ranks.binary_search_by_key(&row, |r| r.0) {
            // A shared row counts from the depth at which both lists hold it.
            common[rank_b.max(ranks[found].1)] += 1;
        }
    }
    for depth in 1..common.len() {
        common[depth] += common[depth - 1];
    }
    common
}

/// Jaccard index of two sets of `k` rows with `common` rows in both: c/(2k − c), in [0, 1].
pub(super) fn jaccard(common: u32, k: usize) -> f64 {
    f64::from(common) / (2.0 * k as f64 - f64::from(common))
}

/// Extrapolated rank-biased overlap of two lists of k rows each, from X₁ … X_k.
///
/// RBO_ext = (X_k/k)·pᵏ + (1 − p)/p · Σ_{d ≤ k} (X_d/d)·pᵈ, in [0, 1]; 1 for equal lists. `p` in (0, 1): the
/// weight of depth falls as pᵈ (p = 0.9: the first 10 ranks carry 86 % of it).
///
/// # Source
/// Webber, Moffat and Zobel (2010), ACM TOIS 28(4), eq. 30. Golden values:
/// fixtures/golden/rank_overlap.json.
pub(super) fn rbo_extrapolated(common_by_depth: &[u32], p: f64) -> f64 {
    let (mut weight, mut sum, mut agreement) = (1.0, 0.0, 0.0);
    for (depth, &common) in (1u32..).zip(common_by_depth) {
        weight *= p;
        agreement = f64::from(common) / f64::from(depth);
        sum += agreement * weight;
    }
    // Rounding alone can carry equal lists past 1.
    (agreement * weight + (1.0 - p) / p * sum).min(1.0)
}

/// Whether entry `k` and entry `k` + 1 have the same score: the row number alone decides which is in.
pub(super) fn tied_at(list: &List, k: usize) -> bool {
    list.len() > k && list[k - 1].0 == list[k].0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(rows: &[u32]) -> Vec<(f64, u32)> {
        rows.iter().map(|&row| (-f64::from(row), row)).collect()
    }

    #[test]
    fn golden_rank_overlap() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/rank_overlap.json"
        );
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let rows = |key: &str| -> Vec<(f64, u32)> {
            list(&serde_json::from_value::<Vec<u32>>(golden[key].clone()).unwrap())
        };
        let common = common_by_depth(&rows("a"), &rows("b"));
        let check = |key: &str, value: &dyn Fn(f64) -> f64| {
            for (parameter, expected) in golden[key].as_object().unwrap() {
                let found = value(parameter.parse().unwrap());
                assert!(
                    (found - expected.as_f64().unwrap()).abs() < 1e-12,
                    "{key} at {parameter}: {found}, expected {expected}"
                );
            }
        };
        check("overlap_at", &|k| f64::from(common[k as usize - 1]) / k);
        check("jaccard_at", &|k| {
            jaccard(common[k as usize - 1], k as usize)
        });
        check("rbo_ext", &|p| rbo_extrapolated(&common, p));
    }

    #[test]
    fn equal_and_disjoint_lists() {
        let a = list(&[4, 2, 9]);
        assert_eq!(common_by_depth(&a, &a), [1, 2, 3]);
        assert!((rbo_extrapolated(&[1, 2, 3], 0.9) - 1.0).abs() < 1e-15);
        assert_eq!(common_by_depth(&a, &list(&[1, 3, 5])), [0, 0, 0]);
        assert_eq!(rbo_extrapolated(&[0, 0, 0], 0.9), 0.0);
    }

    #[test]
    fn ties_at_the_boundary() {
        let tied = [(0.9, 3), (0.5, 1), (0.5, 2)];
        assert!(tied_at(&tied, 2) && !tied_at(&tied, 1) && !tied_at(&tied, 3));
    }
}
