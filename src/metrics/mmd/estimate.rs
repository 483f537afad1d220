//! The statistics as functions of sums within X, within Y and across.

use super::blocks::Unit;
use crate::engine::PairSums;
use crate::stats::interval::jackknife_variance;
use crate::stats::permutation::Quadrants;

/// Mean kernels: sums over counts. `None` where a quadrant holds no pair.
pub(super) fn means(sums: Quadrants, counts: Quadrants) -> Option<Quadrants> {
    let some = counts.xx > 0.0 && counts.yy > 0.0 && counts.xy > 0.0;
    some.then(|| Quadrants {
        xx: sums.xx / counts.xx,
        yy: sums.yy / counts.yy,
        xy: sums.xy / counts.xy,
    })
}

/// MMD² = mean k within X + mean k within Y − 2 · mean k across.
pub(super) fn mmd2(means: Quadrants) -> f64 {
    means.xx + means.yy - 2.0 * means.xy
}

/// Mean k within X − mean k within Y: positive where Y is the more spread out.
pub(super) fn dispersion(means: Quadrants) -> f64 {
    means.xx - means.yy
}

/// Quadrants of an s × s matrix whose blocks are X's where `is_x` says so.
pub(super) fn observed(matrix: &[f64], is_x: &[bool]) -> Quadrants {
    side_sums(matrix, is_x)
        .iter()
        .zip(is_x)
        .fold(Quadrants::default(), |mut all, (row, &is_x)| {
            if is_x {
                all.xx += row[0];
                all.xy += row[1];
            } else {
                all.yy += row[1];
            }
            all
        })
}

/// Per block its sums against all of X's and all of Y's blocks.
fn side_sums(matrix: &[f64], is_x: &[bool]) -> Vec<[f64; 2]> {
    matrix
        .chunks_exact(is_x.len())
        .map(|row| {
            let mut sums = [0.0; 2];
            for (value, &is_x) in row.iter().zip(is_x) {
                sums[usize::from(!is_x)] += value;
            }
            sums
        })
        .collect()
}

/// What chance leaves of an s × s matrix of kernel sums: each quadrant centred by rows and by columns.
///
/// A difference between the samples, and how each block shares in it, would make relabelled sums vary
/// far more than chance does where there is none; both are row and column effects within a quadrant.
pub(super) fn residuals(sums: &[f64], counts: &[f64], is_x: &[bool]) -> Vec<f64> {
    let ratio = |sum: f64, count: f64| if count > 0.0 { sum / count } else { 0.0 };
    let s = is_x.len();
    let (row_sums, row_counts) = (side_sums(sums, is_x), side_sums(counts, is_x));
    let mut grand = [[0.0; 2]; 2];
    for (a, means) in grand.iter_mut().enumerate() {
        for (b, mean) in means.iter_mut().enumerate() {
            let rows = || (0..s).filter(|&i| usize::from(!is_x[i]) == a);
            *mean = ratio(
                rows().map(|i| row_sums[i][b]).sum(),
                rows().map(|i| row_counts[i][b]).sum(),
            );
        }
    }
    let mut left = sums.to_vec();
    for i in 0..s {
        for j in 0..s {
            let (a, b) = (usize::from(!is_x[i]), usize::from(!is_x[j]));
            let row = ratio(row_sums[i][b], row_counts[i][b]);
            let column = ratio(row_sums[j][a], row_counts[j][a]);
            left[i * s + j] -= counts[i * s + j] * (row + column - grand[a][b]);
        }
    }
    left
}

/// The s × s matrix of pairs behind each block sum.
pub(super) fn counts(sums: &PairSums) -> Vec<f64> {
    sums.counts.iter().map(|&count| count as f64).collect()
}

/// Jackknife variance of MMD²: units are deleted one at a time, the variances of independent strata
/// added. `None` where a deletion leaves a side without pairs.
pub(super) fn mmd2_variance(
    sums: &[f64],
    counts: &[f64],
    is_x: &[bool],
    strata: &[Vec<Unit>],
) -> Option<f64> {
    let s = is_x.len();
    let sides = [side_sums(sums, is_x), side_sums(counts, is_x)];
    let all = [observed(sums, is_x), observed(counts, is_x)];
    let estimate = mmd2(means(all[0], all[1])?);
    let without = |unit: &Unit| -> Option<f64> {
        let [sums, counts] = [(0, sums), (1, counts)].map(|(at, matrix)| {
            let (mut left, sides) = (all[at], &sides[at]);
            if let Some(x) = unit.x {
                left.xx -= 2.0 * sides[x][0] - matrix[x * s + x];
                left.xy -= sides[x][1];
            }
            if let Some(y) = unit.y {
                left.yy -= 2.0 * sides[y][1] - matrix[y * s + y];
                left.xy -= sides[y][0];
            }
            if let (Some(x), Some(y)) = (unit.x, unit.y) {
                left.xy += matrix[x * s + y];
            }
            left
        });
        Some(mmd2(means(sums, counts)?))
    };
    let mut variance = 0.0;
    for units in strata {
        let estimates = units.iter().map(without).collect::<Option<Vec<f64>>>()?;
        let sizes: Vec<f64> = units.iter().map(|unit| unit.groups as f64).collect();
        variance += jackknife_variance(estimate, &estimates, &sizes);
    }
    Some(variance)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::stats::permutation::{Exchange, max_standardised, mean_and_sd, quadrants};

    macro_rules! golden {
        ($name:literal) => {
            serde_json::from_str::<Value>(include_str!(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/fixtures/golden/",
                $name
            )))
            .unwrap()
        };
    }

    fn number(value: &Value) -> f64 {
        value.as_f64().unwrap()
    }

    fn points(value: &Value) -> Vec<Vec<f64>> {
        let rows = value.as_array().unwrap().iter();
        rows.map(|row| row.as_array().unwrap().iter().map(number).collect())
            .collect()
    }

    fn close(found: f64, expected: &Value) {
        let expected = number(expected);
        // The golden values are printed from f64 sums in another order.
        assert!(
            (found - expected).abs() <= 1e-12 + 1e-9 * expected.abs(),
            "{found}, expected {expected}"
        );
    }

    /// Sums and counts of single points, a block each; `groups` names those that never meet.
    fn point_sums(
        points: &[Vec<f64>],
        groups: &[u64],
        kernel: impl Fn(&[f64], &[f64]) -> f64,
    ) -> (Vec<f64>, Vec<f64>) {
        let (mut sums, mut counts) = (Vec::new(), Vec::new());
        for (p, a) in points.iter().zip(groups) {
            for (q, b) in points.iter().zip(groups) {
                sums.push(if a == b { 0.0 } else { kernel(p, q) });
                counts.push(f64::from(a != b));
            }
        }
        (sums, counts)
    }

    fn sq(p: &[f64], q: &[f64]) -> f64 {
        p.iter().zip(q).map(|(a, b)| (a - b).powi(2)).sum()
    }

    type Kernel = Box<dyn Fn(&[f64], &[f64]) -> f64>;

    fn kernel(name: &str, g: f64) -> Kernel {
        match name {
            "rbf" => Box::new(move |p, q| (-g * sq(p, q)).exp()),
            "laplace_l2" => Box::new(move |p, q| (-g * sq(p, q).sqrt()).exp()),
            "imq" => Box::new(move |p, q| (1.0 + g * sq(p, q)).powf(-0.5)),
            "linear" => Box::new(|p, q| p.iter().zip(q).map(|(a, b)| a * b).sum()),
            "energy" => Box::new(|p, q| -sq(p, q).sqrt()),
            _ => panic!("unknown kernel {name}"),
        }
    }

    /// A statistic under every labelling.
    fn under_all(
        (sums, counts): &(Vec<f64>, Vec<f64>),
        exchange: Exchange,
        statistic: fn(Quadrants) -> f64,
    ) -> Vec<f64> {
        let labellings = exchange.labellings(9_999, 0);
        let s = exchange.blocks();
        quadrants(sums, s, &labellings)
            .into_iter()
            .zip(quadrants(counts, s, &labellings))
            .map(|(sums, counts)| statistic(means(sums, counts).unwrap()))
            .collect()
    }

    fn only(x: usize, y: usize) -> Exchange {
        Exchange { x, y, pairs: 0 }
    }

    #[test]
    fn estimates_and_enumerated_tests_match_golden_values_for_every_kernel() {
        let golden = golden!("mmd.json");
        let mut pooled = points(&golden["X"]);
        pooled.extend(points(&golden["Y"]));
        let groups: Vec<u64> = (0..9).collect();
        let is_x: Vec<bool> = (0..9).map(|i| i < 5).collect();
        for case in golden["cases"].as_array().unwrap() {
            let kernel = kernel(case["kernel"].as_str().unwrap(), number(&case["g"]));
            let sums = point_sums(&pooled, &groups, kernel);
            let found = observed(&sums.0, &is_x);
            close(found.xx, &case["sum_xx_offdiag"]);
            close(found.yy, &case["sum_yy_offdiag"]);
            close(found.xy, &case["sum_xy"]);

            let t = under_all(&sums, only(5, 4), mmd2);
            close(t[0], &case["unbiased"]);
            close(mean_and_sd(&t).1, &case["perm_sd_unbiased"]);
            let p = max_standardised(&[t]).p_value;
            close(p, &case["p_unbiased"]);

            let d = under_all(&sums, only(5, 4), |means| dispersion(means).abs());
            close(d[0], &case["dispersion_D"]);
            let p = max_standardised(&[d]).p_value;
            close(p, &case["p_D"]);
        }

        let aggregate = &golden["maxZ5"];
        let t: Vec<Vec<f64>> = aggregate["gammas"]
            .as_array()
            .unwrap()
            .iter()
            .map(|g| {
                let sums = point_sums(&pooled, &groups, kernel("rbf", number(g)));
                under_all(&sums, only(5, 4), mmd2)
            })
            .collect();
        let test = max_standardised(&t);
        let z_observed = aggregate["z_observed"].as_array().unwrap();
        for (found, expected) in test.observed.iter().zip(z_observed) {
            close(*found, expected);
        }
        close(test.p_value, &aggregate["p"]);
    }

    #[test]
    fn equal_sizes_paired_and_shared_ids_match_golden_values() {
        let golden = golden!("mmd.json");
        let x = points(&golden["X"]);
        let gamma = || kernel("rbf", 0.7);

        let equal = [x.clone(), points(&golden["equal_n"]["Y"])].concat();
        let sums = point_sums(&equal, &(0..10).collect::<Vec<_>>(), gamma());
        let t = under_all(&sums, only(5, 5), mmd2);
        close(t[0], &golden["equal_n"]["unbiased"]);
        let p = max_standardised(&[t]).p_value;
        close(p, &golden["equal_n"]["p_unbiased"]);

        let y = points(&golden["paired"]["Y"]);
        let paired: Vec<_> = x
            .iter()
            .zip(&y)
            .flat_map(|(a, b)| [a.clone(), b.clone()])
            .collect();
        let groups: Vec<u64> = (0..10).map(|i| i / 2).collect();
        let sums = point_sums(&paired, &groups, gamma());
        let swaps = Exchange {
            x: 0,
            y: 0,
            pairs: 5,
        };
        let t = under_all(&sums, swaps, mmd2);
        assert_eq!(t.len(), 32);
        close(t[0], &golden["paired"]["mmd2_u_paired"]);
        let p = max_standardised(&[t]).p_value;
        close(p, &golden["paired"]["p_signflip"]);

        let shared = [x, points(&golden["shared_ids"]["Y"])].concat();
        let sums = point_sums(&shared, &[0, 1, 2, 3, 4, 0, 1, 7, 8], gamma());
        let is_x: Vec<bool> = (0..9).map(|i| i < 5).collect();
        let means = means(observed(&sums.0, &is_x), observed(&sums.1, &is_x)).unwrap();
        close(means.xy, &golden["shared_ids"]["cross_mean_excl"]);
        close(mmd2(means), &golden["shared_ids"]["mmd2_excl"]);
    }

    #[test]
    fn blocks_and_their_jackknife_match_golden_values() {
        let golden = golden!("block_perm.json");
        let sums = points(&golden["B"]).concat();
        let counts: Vec<f64> = (0..64)
            .map(|at| if at / 8 == at % 8 { 2.0 } else { 4.0 })
            .collect();
        let t = under_all(&(sums.clone(), counts.clone()), only(4, 4), mmd2);
        assert_eq!(t.len() as u64, golden["count"].as_u64().unwrap());
        close(t[0], &golden["mmd2_u"]);
        let (mean, sd) = mean_and_sd(&t);
        close(mean, &golden["perm_mean"]);
        close(sd, &golden["perm_sd"]);
        let p = max_standardised(&[t]).p_value;
        close(p, &golden["p"]);

        let is_x: Vec<bool> = (0..8).map(|block| block < 4).collect();
        let alone = |x: Option<usize>, y: Option<usize>| Unit { x, y, groups: 2 };
        let strata = [
            (0..4).map(|block| alone(Some(block), None)).collect(),
            (4..8).map(|block| alone(None, Some(block))).collect(),
            Vec::new(),
        ];
        let variance = mmd2_variance(&sums, &counts, &is_x, &strata).unwrap();
        close(variance, &golden["jackknife_var"]);
    }

    #[test]
    fn documents_with_several_chunks_match_golden_values() {
        let golden = golden!("grouped_mmd.json");
        let sums = (
            points(&golden["S_by_doc"]).concat(),
            points(&golden["C_by_doc"]).concat(),
        );
        let t = under_all(&sums, only(3, 3), mmd2);
        assert_eq!(t.len(), 20);
        close(t[0], &golden["mmd2_excluding_same_doc"]);
        let p = max_standardised(&[t]).p_value;
        close(p, &golden["p_doc_permutation"]);
    }

    /// Deleting both parts of a pair, checked against sums without them.
    #[test]
    fn a_deleted_pair_takes_both_parts_along() {
        let x = [[0.0, 1.0], [0.5, 0.2], [2.0, 1.0], [1.2, 0.3]];
        let y = [[0.1, 1.1], [0.4, 0.9], [1.5, 1.0], [0.2, 0.8]];
        let estimate = |skip: Option<usize>| {
            let kept = || (0..4).filter(move |&i| Some(i) != skip);
            let pooled: Vec<Vec<f64>> = kept()
                .map(|i| x[i].to_vec())
                .chain(kept().map(|i| y[i].to_vec()))
                .collect();
            let groups: Vec<u64> = kept().chain(kept()).map(|i| i as u64).collect();
            let sums = point_sums(&pooled, &groups, kernel("rbf", 1.0));
            let is_x: Vec<bool> = (0..pooled.len()).map(|i| 2 * i < pooled.len()).collect();
            let means = means(observed(&sums.0, &is_x), observed(&sums.1, &is_x)).unwrap();
            (mmd2(means), sums, is_x)
        };
        let (all, sums, is_x) = estimate(None);
        let without: Vec<f64> = (0..4).map(|i| estimate(Some(i)).0).collect();
        let expected = jackknife_variance(all, &without, &[1.0; 4]);
        let pairs = (0..4)
            .map(|i| Unit {
                x: Some(i),
                y: Some(4 + i),
                groups: 1,
            })
            .collect();
        let strata = [Vec::new(), Vec::new(), pairs];
        let variance = mmd2_variance(&sums.0, &sums.1, &is_x, &strata).unwrap();
        assert!((variance - expected).abs() < 1e-12, "{variance} {expected}");
    }
}
