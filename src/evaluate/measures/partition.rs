//! How far a partition into clusters agrees with one into labels.

use std::collections::BTreeMap;

/// Agreement of two partitions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PartitionScores {
    /// Harmonic mean of homogeneity and completeness, in [0, 1].
    pub v_measure: f64,
    /// 1 where each cluster has one label only.
    pub homogeneity: f64,
    /// 1 where each label is in one cluster only.
    pub completeness: f64,
    /// Mutual information over the mean entropy, adjusted for chance: 1 where equal, about 0 at random.
    pub ami: f64,
    /// Rand index adjusted for chance.
    pub ari: f64,
}

/// Agreement of labels with clusters, item by item.
///
/// # Source
/// scikit-learn's `v_measure_score`, `adjusted_mutual_info_score` (arithmetic mean) and
/// `adjusted_rand_score`; Rosenberg and Hirschberg (2007), Vinh, Epps and Bailey (2010).
///
/// # Panics
/// If the lengths differ or are 0.
pub fn partition_scores(labels: &[usize], clusters: &[usize]) -> PartitionScores {
    assert!(labels.len() == clusters.len() && !labels.is_empty());
    let mut cells: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    let (mut rows, mut columns) = (BTreeMap::new(), BTreeMap::new());
    for (&label, &cluster) in labels.iter().zip(clusters) {
        *cells.entry((label, cluster)).or_default() += 1;
        *rows.entry(label).or_default() += 1;
        *columns.entry(cluster).or_default() += 1;
    }
    let n = labels.len() as f64;
    let (label_entropy, cluster_entropy) = (entropy(&rows, n), entropy(&columns, n));
    let information: f64 = cells
        .iter()
        .map(|(&(label, cluster), &count)| {
            let count = count as f64;
            let expected = rows[&label] as f64 * columns[&cluster] as f64 / n;
            count / n * (count / expected).ln()
        })
        .sum::<f64>()
        .max(0.0);
    let share = |entropy: f64| {
        if entropy == 0.0 {
            1.0
        } else {
            information / entropy
        }
    };
    let (homogeneity, completeness) = (share(label_entropy), share(cluster_entropy));
    let both = homogeneity + completeness;
    PartitionScores {
        v_measure: if both == 0.0 {
            0.0
        } else {
            2.0 * homogeneity * completeness / both
        },
        homogeneity,
        completeness,
        ami: adjusted_information(
            information,
            (label_entropy + cluster_entropy) / 2.0,
            &rows,
            &columns,
        ),
        ari: adjusted_rand(&cells, &rows, &columns, n),
    }
}

fn entropy(counts: &BTreeMap<usize, usize>, n: f64) -> f64 {
    if counts.len() == 1 {
        return 0.0;
    }
    -counts
        .values()
        .map(|&count| count as f64 / n * (count as f64 / n).ln())
        .sum::<f64>()
}

fn adjusted_information(
    information: f64,
    normaliser: f64,
    rows: &BTreeMap<usize, usize>,
    columns: &BTreeMap<usize, usize>,
) -> f64 {
    // One group against one, or each item alone on both sides: nothing could agree better or worse.
    let n: usize = rows.values().sum();
    let trivial = |groups: usize| groups == 1 || groups == n;
    if rows.len() == columns.len() && trivial(rows.len()) {
        return 1.0;
    }
    let expected = expected_information(rows, columns, n);
    let denominator = normaliser - expected;
    let denominator = if denominator < 0.0 {
        denominator.min(-f64::EPSILON)
    } else {
        denominator.max(f64::EPSILON)
    };
    let numerator = information - expected;
    // Where both vanish the quotient would be rounding noise.
    if numerator.abs() <= 1e-14 * normaliser.max(1.0) && denominator.abs() <= f64::EPSILON {
        return 0.0;
    }
    numerator / denominator
}

/// Mean mutual information of random partitions with these group sizes (hypergeometric).
fn expected_information(
    rows: &BTreeMap<usize, usize>,
    columns: &BTreeMap<usize, usize>,
    n: usize,
) -> f64 {
    let mut ln_factorial = vec![0.0; n + 1];
    for i in 1..=n {
        ln_factorial[i] = ln_factorial[i - 1] + (i as f64).ln();
    }
    let f = |i: usize| ln_factorial[i];
    // Sizes repeat: each pair of sizes is summed once.
    let sizes = |counts: &BTreeMap<usize, usize>| {
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        counts
            .values()
            .for_each(|&size| *sizes.entry(size).or_default() += 1);
        sizes
    };
    let mut sum = 0.0;
    for (&a, &rows_of_size) in &sizes(rows) {
        for (&b, &columns_of_size) in &sizes(columns) {
            let mut of_pair = 0.0;
            for shared in (a + b).saturating_sub(n).max(1)..=a.min(b) {
                let term = shared as f64 / n as f64
                    * ((n as f64 * shared as f64).ln() - (a as f64 * b as f64).ln());
                let probability = f(a) + f(b) + f(n - a) + f(n - b)
                    - f(n)
                    - f(shared)
                    - f(a - shared)
                    - f(b - shared)
                    - f(n + shared - a - b);
                of_pair += term * probability.exp();
            }
            sum += of_pair * (rows_of_size * columns_of_size) as f64;
        }
    }
    sum
}

fn adjusted_rand(
    cells: &BTreeMap<(usize, usize), usize>,
    rows: &BTreeMap<usize, usize>,
    columns: &BTreeMap<usize, usize>,
    n: f64,
) -> f64 {
    let pairs = |count: usize| count as f64 * (count as f64 - 1.0) / 2.0;
    let together: f64 = cells.values().map(|&c| pairs(c)).sum();
    let in_rows: f64 = rows.values().map(|&c| pairs(c)).sum();
    let in_columns: f64 = columns.values().map(|&c| pairs(c)).sum();
    let expected = in_rows * in_columns / (n * (n - 1.0) / 2.0).max(1.0);
    let most = (in_rows + in_columns) / 2.0;
    if most == expected {
        return 1.0;
    }
    (together - expected) / (most - expected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::measures::golden;

    fn check(case: &serde_json::Value, labels: &str, clusters: &str, name: &str) {
        let list = |key: &str| -> Vec<usize> { serde_json::from_value(case[key].clone()).unwrap() };
        let found = partition_scores(&list(labels), &list(clusters));
        for (metric, found) in [
            ("v_measure", found.v_measure),
            ("homogeneity", found.homogeneity),
            ("completeness", found.completeness),
            ("ami", found.ami),
            ("ari", found.ari),
        ] {
            if let Some(expected) = case[metric].as_f64() {
                assert!(
                    (found - expected).abs() < 1e-9,
                    "{name} {metric}: {found}, expected {expected}"
                );
            }
        }
    }

    /// Answers of scikit-learn 1.9.1.
    #[test]
    fn golden_partitions() {
        let golden = golden();
        let cases = golden["clustering"].as_object().unwrap();
        assert_eq!(cases.len(), 5);
        for (name, case) in cases {
            check(case, "labels", "pred", name);
        }
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/evaluate_suite.json"
        );
        let suite: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        check(&suite["partitions"], "labels", "clusters", "partitions");
    }
}
