//! What golden queries no longer find.

use super::*;
use crate::metrics::retrieval::QueryChange;

/// Documents named per query of a table.
const NAMED: usize = 3;

pub(super) fn losses_table(found: &Retrieval) -> Table {
    let (flips, fall_out) = (&found.flips, &found.fall_out);
    let share = fall_out.share.map_or(Value::Missing(None), |share| {
        share.ci95.map_or(Value::Percent(share.mean), |ci| {
            Value::percent_interval(share.mean, ci)
        })
    });
    named(
        &format!("Found in the first {} before, and now", flips.k),
        vec![
            (
                "queries that found something before",
                Value::Count(flips.hits_reference),
            ),
            ("queries that no longer do", Value::Count(flips.negative)),
            ("queries that do only now", Value::Count(flips.positive)),
            (
                "queries that no longer do, of all",
                Value::percent_interval(flips.negative_share, flips.negative_share_ci95),
            ),
            (
                "relevant documents found before",
                Value::Count(fall_out.found_reference),
            ),
            ("of these lost", share),
            (
                "lost because others come first",
                Value::Count(fall_out.lost_by_rank),
            ),
            (
                "lost because the corpus lacks them",
                Value::Count(fall_out.lost_by_absence),
            ),
        ],
    )
}

/// The relevant documents that a query lost, with their places.
pub(super) fn lost_documents(query: &QueryChange) -> String {
    let named = query.lost_documents.iter().take(NAMED).map(|document| {
        let now = match (document.rank_current, document.missing) {
            (Some(rank), _) => rank.to_string(),
            (None, true) => "not there".to_owned(),
            (None, false) => "beyond 100".to_owned(),
        };
        format!("{} ({} → {now})", document.id, document.rank_reference)
    });
    named.collect::<Vec<_>>().join(", ")
}

/// What unjudged documents mean for the scores.
pub(super) fn judgement_note(found: &Retrieval) -> Option<String> {
    let unjudged = &found.unjudged_at_10;
    found.judgement_biased.then(|| {
        format!(
            "Judgement-biased: {} of the first 10 documents were never judged ({} in the reference) and count as irrelevant, so that vectors which find other good documents look worse than they are.",
            Value::Percent(unjudged.current),
            Value::Percent(unjudged.reference)
        )
    })
}
