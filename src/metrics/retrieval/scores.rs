//! Rank metrics of one query. Pure functions of the ranking and the judgements.

use std::collections::HashMap;

/// Names of the metrics, as MTEB writes them, in the order of [`query_scores`].
pub const METRICS: [&str; 7] = [
    "ndcg_at_10",
    "map_at_10",
    "mrr_at_10",
    "recall_at_10",
    "recall_at_100",
    "hit_rate_at_1",
    "hit_rate_at_10",
];

/// Scores of one ranking: `ranked` holds document ids, best first; `judged` the query's judgements, of
/// which at least one is positive. Each in [0, 1], larger is better, in the order of [`METRICS`].
///
/// With rel the relevance (negative and unjudged: 0) and R the number of documents with rel > 0, retrieved
/// or not:
/// nDCG@k = Σ_{i ≤ k} relᵢ/log₂(i + 1) over the same sum of the ideal ranking (linear gain);
/// map@k = Σ_{i ≤ k, rel > 0} (relevant up to i)/i over R; mrr@k = 1/(first relevant rank ≤ k), else 0;
/// recall@k = relevant up to k over R (not over min(k, R)); hit_rate@k = 1 where one is relevant up to k.
///
/// # Source
/// trec_eval's definitions, as pytrec_eval and MTEB use them. Golden values:
/// fixtures/golden/retrieval.json.
pub fn query_scores(ranked: &[&str], judged: &HashMap<&str, f64>) -> [f64; METRICS.len()] {
    let relevance: Vec<f64> = ranked
        .iter()
        .map(|id| judged.get(id).map_or(0.0, |r| r.max(0.0)))
        .collect();
    let mut ideal: Vec<f64> = judged.values().copied().filter(|&r| r > 0.0).collect();
    ideal.sort_unstable_by(|a, b| b.total_cmp(a));
    let relevant = ideal.len() as f64;
    [
        discounted_gain(&relevance, 10) / discounted_gain(&ideal, 10),
        precision_sum(&relevance, 10) / relevant,
        reciprocal_rank(&relevance, 10),
        found_relevant(&relevance, 10) / relevant,
        found_relevant(&relevance, 100) / relevant,
        found_relevant(&relevance, 1).min(1.0),
        found_relevant(&relevance, 10).min(1.0),
    ]
}

/// Σ_{i ≤ k} relᵢ/log₂(i + 1) of relevances in rank order.
pub fn discounted_gain(relevance: &[f64], k: usize) -> f64 {
    let gains = relevance.iter().take(k).enumerate();
    gains.map(|(i, r)| r / ((i + 2) as f64).log2()).sum()
}

/// How many of the first k are relevant.
pub fn found_relevant(relevance: &[f64], k: usize) -> f64 {
    relevance.iter().take(k).filter(|&&r| r > 0.0).count() as f64
}

/// Σ over the relevant ranks r ≤ k of the precision at r.
pub fn precision_sum(relevance: &[f64], k: usize) -> f64 {
    let relevant_ranks = (1..=k.min(relevance.len())).filter(|&rank| relevance[rank - 1] > 0.0);
    (1u32..)
        .zip(relevant_ranks)
        .map(|(found, rank)| f64::from(found) / rank as f64)
        .sum()
}

/// 1 over the first relevant rank up to k, else 0.
pub fn reciprocal_rank(relevance: &[f64], k: usize) -> f64 {
    let first = relevance.iter().take(k).position(|&r| r > 0.0);
    first.map_or(0.0, |i| 1.0 / (i + 1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: f64, expected: f64, what: &str) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{what}: {found}, expected {expected}"
        );
    }

    #[test]
    fn golden_ranking() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/retrieval.json"
        );
        let golden: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let ranked: Vec<&str> = golden["run"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v.as_str().unwrap())
            .collect();
        let judged: HashMap<&str, f64> = golden["qrels"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(id, r)| (id.as_str(), r.as_f64().unwrap()))
            .collect();
        let scores = query_scores(&ranked, &judged);
        let expected = |key: &str| golden[key].as_f64().unwrap();
        assert_close(
            scores[0],
            golden["ndcg_linear_at"]["10"].as_f64().unwrap(),
            "ndcg",
        );
        assert_close(scores[1], expected("ap"), "map");
        assert_close(scores[2], expected("mrr"), "mrr");
        assert_close(
            scores[3],
            golden["recall_at"]["5"].as_f64().unwrap(),
            "recall",
        );
        assert_close(scores[5], expected("hit_at_1"), "hit rate");
        let gains = [0.0, 3.0, 1.0, 0.0, 2.0, 0.0];
        for k in [3usize, 5] {
            let found = discounted_gain(&gains, k) / discounted_gain(&[3.0, 2.0, 1.0], k);
            let expected = golden["ndcg_linear_at"][k.to_string()].as_f64().unwrap();
            assert_close(found, expected, "ndcg");
        }
        for k in [1usize, 3] {
            let expected = golden["recall_at"][k.to_string()].as_f64().unwrap();
            assert_close(super::found_relevant(&gains, k) / 3.0, expected, "recall");
        }
    }

    /// Hand-made traps; expected values of pytrec_eval-terrier 0.5.11.
    #[test]
    fn traps() {
        // A negative judgement has no gain but takes a rank.
        let scores = query_scores(&["a", "b"], &HashMap::from([("a", -1.0), ("b", 1.0)]));
        assert_close(scores[0], 0.630_929_753_571_457_5, "ndcg");
        assert_close(scores[1], 0.5, "map");
        assert_close(scores[2], 0.5, "mrr");
        // The ideal ranking holds judged documents that were not retrieved.
        let judged = HashMap::from([("a", 3.0), ("b", 2.0), ("c", 1.0), ("z", 3.0)]);
        let scores = query_scores(&["c", "x", "a"], &judged);
        assert_close(scores[0], 0.395_352_813_100_088_9, "ndcg");
        assert_close(scores[1], 0.416_666_666_666_666_63, "map");
        assert_close(scores[3], 0.5, "recall");
        // Recall and map divide by the 12 relevant documents, not by 10.
        let names: Vec<String> = (0..16).map(|i| i.to_string()).collect();
        let ranked: Vec<&str> = names.iter().map(String::as_str).collect();
        let judged = ranked[..12].iter().map(|&id| (id, 1.0)).collect();
        let scores = query_scores(&ranked, &judged);
        assert_close(scores[0], 1.0, "ndcg");
        assert_close(scores[1], 10.0 / 12.0, "map");
        assert_close(scores[3], 10.0 / 12.0, "recall at 10");
        assert_close(scores[4], 1.0, "recall at 100");
        // Nothing retrieved.
        assert_eq!(query_scores(&[], &HashMap::from([("a", 1.0)])), [0.0; 7]);
    }
}
