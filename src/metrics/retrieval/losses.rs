//! What the golden queries no longer find: queries, and documents one by one.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::stats::counts::{mcnemar_exact, wilson_ci95};
use crate::stats::interval::Estimate;

/// How far down a list a document counts as found.
const FOUND_DEPTH: usize = 10;
/// Lost documents named per query.
const NAMED_DOCUMENTS: usize = 5;

/// Queries that found something before and find nothing now, and the other way round.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Flips {
    /// How far down a list a relevant document counts as found.
    pub k: usize,
    /// Queries that found a relevant document in the reference.
    pub hits_reference: u64,
    /// Queries that do so no longer.
    pub negative: u64,
    /// Queries that do so only now.
    pub positive: u64,
    /// negative over all compared queries.
    pub negative_share: f64,
    /// Wilson's 95 % interval of that share.
    pub negative_share_ci95: [f64; 2],
    /// Whether either way is as likely: McNemar's exact p-value, two-sided.
    pub p_value: f64,
}

/// Relevant documents that were found before and are not now.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct FallOut {
    /// How far down a list a document counts as found.
    pub k: usize,
    /// Pairs of a query and a relevant document that it found in the reference.
    pub found_reference: u64,
    /// Those that it does not find now.
    pub lost: u64,
    /// Their share; its interval treats the documents of one query as dependent. Null where nothing was found.
    pub share: Option<Estimate>,
    /// Lost because other documents come first now.
    pub lost_by_rank: u64,
    /// Lost because the current corpus lacks the document.
    pub lost_by_absence: u64,
}

/// A relevant document that a query found before.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LostDocument {
    /// Document id.
    pub id: String,
    /// Its place in the reference's list, from 1.
    pub rank_reference: usize,
    /// Its place in the current list; null: not among the documents retrieved.
    pub rank_current: Option<usize>,
    /// Whether the current corpus lacks it.
    pub missing: bool,
}

/// Places of the relevant documents that were retrieved, from 1; one map per query.
pub(super) type RelevantRanks<'a> = Vec<HashMap<&'a str, usize>>;

pub(super) fn flips(reference: &RelevantRanks<'_>, current: &RelevantRanks<'_>) -> Flips {
    let hit = |ranks: &HashMap<&str, usize>| ranks.values().any(|&rank| rank <= FOUND_DEPTH);
    let pairs = || reference.iter().zip(current).map(|(r, c)| (hit(r), hit(c)));
    let count = |of: (bool, bool)| pairs().filter(|&pair| pair == of).count() as u64;
    let (negative, positive) = (count((true, false)), count((false, true)));
    let queries = reference.len() as u64;
    Flips {
        k: FOUND_DEPTH,
        hits_reference: negative + count((true, true)),
        negative,
        positive,
        negative_share: negative as f64 / queries as f64,
        negative_share_ci95: wilson_ci95(negative, queries),
        p_value: mcnemar_exact(positive, negative),
    }
}

/// Per query, what it lost, best first.
fn lost_of(
    reference: &HashMap<&str, usize>,
    current: &HashMap<&str, usize>,
    corpus: &HashSet<&str>,
) -> Vec<LostDocument> {
    let mut lost: Vec<LostDocument> = reference
        .iter()
        .filter(|&(_, &rank)| rank <= FOUND_DEPTH)
        .map(|(&id, &rank)| LostDocument {
            id: id.to_owned(),
            rank_reference: rank,
            rank_current: current.get(id).copied(),
            missing: !corpus.contains(id),
        })
        .filter(|document| document.rank_current.is_none_or(|rank| rank > FOUND_DEPTH))
        .collect();
    lost.sort_by_key(|document| document.rank_reference);
    lost
}

/// The fall-out, and what each query lost; `corpus` holds the relevant documents that the current corpus has.
pub(super) fn fall_out(
    reference: &RelevantRanks<'_>,
    current: &RelevantRanks<'_>,
    corpus: &HashSet<&str>,
) -> (FallOut, BTreeMap<usize, Vec<LostDocument>>) {
    let (mut values, mut queries) = (Vec::new(), Vec::new());
    let mut by_query = BTreeMap::new();
    let mut absent = 0;
    for (query, (before, after)) in reference.iter().zip(current).enumerate() {
        let found = before.values().filter(|&&rank| rank <= FOUND_DEPTH).count();
        let mut lost = lost_of(before, after, corpus);
        values.extend((0..found).map(|i| if i < lost.len() { 1.0 } else { 0.0 }));
        queries.extend(std::iter::repeat_n(query as u32, found));
        absent += lost.iter().filter(|document| document.missing).count() as u64;
        lost.truncate(NAMED_DOCUMENTS);
        by_query.insert(query, lost);
    }
    let lost = values.iter().sum::<f64>() as u64;
    let found_reference = values.len() as u64;
    let share = Estimate::of_groups(&values, &queries).map(|mut share| {
        // None or all lost leave no variance; each query counts as one then.
        if lost == 0 || lost == found_reference {
            let mut groups = queries.clone();
            groups.dedup();
            let groups = groups.len() as u64;
            share.ci95 = Some(wilson_ci95(if lost == 0 { 0 } else { groups }, groups));
        }
        share.of_share()
    });
    let found = FallOut {
        k: FOUND_DEPTH,
        found_reference,
        lost,
        share,
        lost_by_rank: lost - absent,
        lost_by_absence: absent,
    };
    (found, by_query)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_counted_by_query_and_by_document() {
        let before = vec![
            HashMap::from([("a", 1), ("b", 3), ("c", 40)]),
            HashMap::from([("a", 2)]),
            HashMap::from([("d", 60)]),
            HashMap::new(),
        ];
        let after = vec![
            HashMap::from([("a", 11), ("c", 1)]),
            HashMap::from([("a", 10)]),
            HashMap::from([("d", 1)]),
            HashMap::new(),
        ];
        let corpus = HashSet::from(["a", "c", "d"]);
        let flips = super::flips(&before, &after);
        assert_eq!(
            (flips.hits_reference, flips.negative, flips.positive),
            (2, 0, 1)
        );
        assert_eq!(super::flips(&after, &before).negative, 1);
        let (found, lost) = fall_out(&before, &after, &corpus);
        assert_eq!((found.found_reference, found.lost), (3, 2));
        assert_eq!((found.lost_by_rank, found.lost_by_absence), (1, 1));
        assert_eq!(found.share.unwrap().mean, 2.0 / 3.0);
        let ranks: Vec<_> = lost[&0]
            .iter()
            .map(|d| (d.id.as_str(), d.rank_current))
            .collect();
        assert_eq!(ranks, [("a", Some(11)), ("b", None)]);
        assert!(lost[&0][1].missing && lost[&1].is_empty());
        // No change loses nothing, and says how sure that is.
        let (none, _) = fall_out(&before, &before, &corpus);
        let share = none.share.unwrap();
        assert!(
            share.mean == 0.0 && share.ci95.unwrap()[1] > 0.3,
            "{share:?}"
        );
        let nothing = vec![HashMap::new(); 2];
        assert_eq!(fall_out(&nothing, &nothing, &corpus).0.share, None);
    }
}
