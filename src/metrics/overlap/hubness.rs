//! Hubness: how unevenly rows appear in other rows' neighbour lists.

use std::cmp::Reverse;

use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::Ids;
use crate::engine::fixed::FixedSum;

/// How unevenly rows are neighbours of others. The k-occurrence of a row is how many queries' k nearest
/// rows it belongs to; its mean is k·q/n whatever the space.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Hubness {
    /// Skewness of the k-occurrence over all rows, as if every row had been a query; large: few hubs
    /// crowd many lists. Null where all rows occur equally often or too few were queried.
    pub skewness: Option<f64>,
    /// Share of rows in no list at all, out of a neighbour search's reach, as if every row had been a
    /// query. Exact where every row was; from a sample of more than half of them, right on average and
    /// within about 1/√n; null for smaller samples, which cannot tell.
    pub anti_hub_share: Option<f64>,
    /// Largest k-occurrence among the queries used.
    pub largest: u32,
    /// Id of the row with the largest k-occurrence; the smallest id where several have it.
    pub largest_id: String,
}

impl Hubness {
    /// Summarises the k-occurrence of all n rows in the lists of `queries` of them.
    pub(super) fn new(occurrence: &[u32], queries: usize, ids: &Ids) -> Self {
        let (largest_row, &largest) = occurrence
            .iter()
            .enumerate()
            .max_by_key(|&(row, count)| (count, Reverse(ids.get(row))))
            .expect("an overlap has rows");
        Self {
            skewness: skewness(occurrence, queries),
            anti_hub_share: anti_hub_share(occurrence, queries),
            largest,
            largest_id: ids.get(largest_row).to_owned(),
        }
    }
}

/// Population skewness of the k-occurrence when all n rows are queries, from those in the lists of q.
///
/// Given how often a row occurs over all n queries, its count among q drawn ones is hypergeometric, so
/// the factorial moments scale: E[(O)ᵣ] = E[(o)ᵣ]·(n)ᵣ/(q)ᵣ. With q = n this is the plain skewness.
/// Golden value: fixtures/golden/knn_structure.json, `hub_skew_X`.
fn skewness(occurrence: &[u32], queries: usize) -> Option<f64> {
    if queries < 3 {
        return None;
    }
    let (n, q) = (occurrence.len() as f64, queries as f64);
    // In fixed point, so that the rows' order does not matter. Scaled terms stay far below its range.
    let [mut first, mut second, mut third] = [FixedSum::default(); 3];
    for &count in occurrence {
        let o = f64::from(count);
        first.add(o / q);
        second.add(o / q * (o - 1.0) / (q - 1.0));
        third.add(o / q * (o - 1.0) / (q - 1.0) * (o - 2.0) / (q - 2.0));
    }
    let m1 = first.to_f64();
    let m2 = second.to_f64() * (n - 1.0);
    let m3 = third.to_f64() * (n - 1.0) * (n - 2.0);
    // Raw moments from factorial ones, then central ones.
    let (raw2, raw3) = (m2 + m1, m3 + 3.0 * m2 + m1);
    let variance = raw2 - m1 * m1;
    let third_central = raw3 - 3.0 * m1 * raw2 + 2.0 * m1.powi(3);
    (variance > 1e-9 * raw2).then(|| third_central / variance.powf(1.5))
}

/// Share of the rows that no query has in its list when all n rows are queries, from the lists of q.
///
/// A row's count o in the sample is hypergeometric given that over all queries, so that the mean over rows of
/// c(o) = Π_{i < o} −(n − q + i)/(q − i), with c(0) = 1, is unbiased: the factorial moments summed by inclusion
/// and exclusion. Where some |c| exceeds 1 the terms grow and cancel, and nothing is learnt.
fn anti_hub_share(occurrence: &[u32], queries: usize) -> Option<f64> {
    let n = occurrence.len();
    let most = occurrence.iter().copied().max()? as usize;
    if queries < n && n + 2 * most > 2 * (queries + 1) {
        return None;
    }
    let (unseen, seen) = ((n - queries) as f64, queries as f64);
    let term = |count: u32| -> f64 {
        (0..count)
            .map(|i| -(unseen + f64::from(i)) / (seen - f64::from(i)))
            .product()
    };
    let mut sum = FixedSum::default();
    occurrence.iter().for_each(|&count| sum.add(term(count)));
    Some((sum.to_f64() / n as f64).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_hubness() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/knn_structure.json"
        );
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let occurrence: Vec<u32> =
            serde_json::from_value(golden["k_occurrence_X"].clone()).unwrap();
        let ids = (0..10).map(|i| i.to_string()).collect();
        let hubness = Hubness::new(&occurrence, 10, &ids);
        let expected = golden["hub_skew_X"].as_f64().unwrap();
        assert!((hubness.skewness.unwrap() - expected).abs() < 1e-12);
        assert_eq!(hubness.anti_hub_share, Some(0.0));
        assert_eq!((hubness.largest, hubness.largest_id.as_str()), (4, "4"));
    }

    /// Occurrences in a sample of the queries estimate the skewness over all of them; the plain
    /// skewness of the sample does not.
    #[test]
    fn sampled_queries_estimate_the_full_skewness() {
        let mut random = crate::stats::rng::Philox::new(5, 0);
        let n = 4_000usize;
        // Row j is in the list of query i with a probability that is skewed over j.
        let attraction: Vec<f64> = (0..n)
            .map(|_| 0.003 * (0.6 * random.normal()).exp())
            .collect();
        let (mut all, mut sampled) = (vec![0u32; n], vec![0u32; n]);
        for query in 0..n {
            for (row, &probability) in attraction.iter().enumerate() {
                let hit = u32::from(random.uniform() < probability);
                all[row] += hit;
                sampled[row] += if query % 8 == 0 { hit } else { 0 };
            }
        }
        let truth = skewness(&all, n).unwrap();
        let estimate = skewness(&sampled, n / 8).unwrap();
        let values: Vec<f64> = sampled.iter().map(|&c| f64::from(c)).collect();
        let mean = values.iter().sum::<f64>() / n as f64;
        let moment = |r: i32| values.iter().map(|v| (v - mean).powi(r)).sum::<f64>() / n as f64;
        let naive = moment(3) / moment(2).powf(1.5);
        assert!(
            (estimate - truth).abs() < 0.15 * truth,
            "{estimate} {truth}"
        );
        assert!((naive - truth).abs() > 0.15 * truth, "{naive} {truth}");
    }

    /// Over samples of three quarters of the queries the estimate is right on average, where the share of
    /// rows that are in no sampled list is far too large; a small sample tells nothing.
    #[test]
    fn sampled_queries_estimate_the_anti_hubs() {
        let mut random = crate::stats::rng::Philox::new(8, 0);
        let (n, k) = (800usize, 4usize);
        let lists: Vec<Vec<usize>> = (0..n)
            .map(|_| {
                let mut list = Vec::new();
                while list.len() < k {
                    // Low numbers are in more lists.
                    let row = (random.uniform().powi(2) * n as f64) as usize;
                    if !list.contains(&row) {
                        list.push(row);
                    }
                }
                list
            })
            .collect();
        let count = |queries: &[usize]| {
            let mut occurrence = vec![0u32; n];
            for &query in queries {
                lists[query].iter().for_each(|&row| occurrence[row] += 1);
            }
            occurrence
        };
        let mut order: Vec<usize> = (0..n).collect();
        let truth = anti_hub_share(&count(&order), n).unwrap();
        assert!(truth > 0.02);
        let (mut estimates, mut naive) = (0.0, 0.0);
        let runs = 200;
        for _ in 0..runs {
            random.shuffle(&mut order);
            let occurrence = count(&order[..3 * n / 4]);
            let estimate = anti_hub_share(&occurrence, 3 * n / 4).unwrap();
            // Six times the bound on its standard error, 1/√n.
            assert!((estimate - truth).abs() < 6.0 / (n as f64).sqrt());
            estimates += estimate / f64::from(runs);
            naive +=
                occurrence.iter().filter(|&&c| c == 0).count() as f64 / n as f64 / f64::from(runs);
        }
        // Five standard errors of a mean over the runs.
        let tolerance = 5.0 / (n as f64 * f64::from(runs)).sqrt();
        assert!((estimates - truth).abs() < tolerance, "{estimates} {truth}");
        assert!(naive > truth + 2.0 * tolerance, "{naive} {truth}");
        assert_eq!(anti_hub_share(&count(&order[..n / 3]), n / 3), None);
    }

    #[test]
    fn equal_occurrence_has_no_skewness() {
        assert_eq!(skewness(&[3; 8], 8), None);
        assert_eq!(skewness(&[1, 1], 2), None);
    }
}
