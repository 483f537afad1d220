//! Instruction following: does a ranking follow a query whose instruction was changed?
//!
//! A query stands twice, as `ID-og` with the original instruction and as `ID-changed` with another, under which
//! some documents are relevant no longer.

use std::collections::BTreeMap;

use super::ranking::{QueryMetrics, Run};
use super::{Scores, inputs};
use crate::error::{Error, Result};
use crate::stats::paired::mean;

const ORIGINAL: &str = "-og";
const CHANGED: &str = "-changed";

/// The documents that a changed instruction makes irrelevant, by query without its suffix.
pub(super) fn read_changes(path: &str) -> Result<BTreeMap<String, Vec<String>>> {
    let columns: [&[&str]; 2] = [
        &["query-id", "query_id", "qid"],
        &["corpus-id", "corpus_id", "doc_id", "docid"],
    ];
    let table = inputs::read_table(path, &columns)?;
    let mut changes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (query, document) in table[0].iter().zip(&table[1]) {
        changes
            .entry(base(query).to_owned())
            .or_default()
            .push(document.clone());
    }
    if changes.is_empty() {
        return Err(Error::input(path, "no row, expected changed documents"));
    }
    Ok(changes)
}

fn base(query: &str) -> &str {
    let stripped = query.strip_suffix(ORIGINAL);
    stripped
        .or_else(|| query.strip_suffix(CHANGED))
        .unwrap_or(query)
}

/// p-MRR, in [−1, 1]: positive where changed documents moved down, as the changed instruction wants.
///
/// Of a document with ranks r before and r′ after (from 1; one more than the ranking is long where it is not
/// in it): r′/r − 1 where r ≥ r′, else 1 − r/r′; the mean over a query's documents, then over queries that were
/// ranked both ways. With it `robustness_at_10`, the mean over queries of the lower nDCG@10 of the two, and
/// `paired_accuracy`, the share of queries whose first document is relevant both ways.
///
/// # Errors
/// No query was ranked both ways.
///
/// # Source
/// Weller et al. 2024, "FollowIR"; mteb 2.26.
pub(super) fn scores(
    path: &str,
    changes: &BTreeMap<String, Vec<String>>,
    run: &Run,
    metrics: &[QueryMetrics],
    ks: &[usize],
    scores: &mut Scores,
) -> Result<()> {
    let place: BTreeMap<&str, usize> = (run.iter().map(|(id, _)| id.as_str())).zip(0..).collect();
    let rank = |query: usize, document: &str| -> f64 {
        let ranking = &run[query].1;
        let found = ranking.iter().position(|(_, id)| **id == *document);
        (found.unwrap_or(ranking.len()) + 1) as f64
    };
    let at = |k: usize| ks.iter().position(|&other| other == k);
    let (mut moved, mut lowest, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
    for (query, documents) in changes {
        let both = [ORIGINAL, CHANGED].map(|suffix| place.get(format!("{query}{suffix}").as_str()));
        let [Some(&before), Some(&after)] = both else {
            continue;
        };
        let of_documents: Vec<f64> = documents
            .iter()
            .map(|document| {
                let (old, new) = (rank(before, document), rank(after, document));
                if old >= new {
                    new / old - 1.0
                } else {
                    1.0 - old / new
                }
            })
            .collect();
        moved.push(mean(&of_documents));
        if let Some(at) = at(10) {
            lowest.push(metrics[before].ndcg[at].min(metrics[after].ndcg[at]));
        }
        if let Some(at) = at(1) {
            let right = [before, after]
                .iter()
                .all(|&query| metrics[query].hit_rate[at] > 0.0);
            firsts.push(f64::from(u8::from(right)));
        }
    }
    if moved.is_empty() {
        return Err(Error::input(
            path,
            format!("no query was ranked both as ID{ORIGINAL} and as ID{CHANGED}"),
        ));
    }
    scores.push("p-MRR", Some(mean(&moved)));
    for (name, values) in [("robustness_at_10", lowest), ("paired_accuracy", firsts)] {
        if !values.is_empty() {
            scores.push(name, Some(mean(&values)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluate::ranking::query_metrics;
    use std::collections::HashMap;

    /// One document moves from rank 1 to 4, one from 3 to 2, one was never found: 3/4, −1/3 and 0; another
    /// query is not ranked both ways.
    #[test]
    fn ranks_by_hand() {
        let ranking = |ids: &[&str]| ids.iter().map(|&id| (0.0, id.into())).collect();
        let run: Run = vec![
            ("a-changed".to_owned(), ranking(&["w", "y", "z", "x"])),
            ("a-og".to_owned(), ranking(&["x", "w", "y", "z"])),
            ("b-og".to_owned(), ranking(&["x"])),
        ];
        let judged: HashMap<&str, f64> = [("x", 1.0), ("w", 1.0)].into();
        let ks = [1, 10];
        let metrics: Vec<QueryMetrics> = run
            .iter()
            .map(|(_, r)| query_metrics(r.iter().map(|(_, id)| &**id), &judged, &ks))
            .collect();
        let documents = ["x", "y", "absent"].map(str::to_owned).to_vec();
        let changes: BTreeMap<String, Vec<String>> = [
            ("a".to_owned(), documents),
            ("b".to_owned(), vec!["x".to_owned()]),
        ]
        .into();
        let mut found = Scores::default();
        scores("c.tsv", &changes, &run, &metrics, &ks, &mut found).unwrap();
        let of = |name: &str| found.get(name).flatten().unwrap();
        assert!((of("p-MRR") - (0.75 - 1.0 / 3.0) / 3.0).abs() < 1e-15);
        // w first and x fourth: (1 + 1/log₂5)/(1 + 1/log₂3).
        let lower = (1.0 + 1.0 / 5f64.log2()) / (1.0 + 1.0 / 3f64.log2());
        assert!((of("robustness_at_10") - lower).abs() < 1e-12);
        assert_eq!(of("paired_accuracy"), 1.0);

        let none = BTreeMap::from([("c".to_owned(), vec!["x".to_owned()])]);
        assert!(scores("c.tsv", &none, &run, &metrics, &ks, &mut found).is_err());
    }
}
