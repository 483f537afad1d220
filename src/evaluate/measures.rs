//! Scores of predictions against labels: pure functions of numbers, as scikit-learn, SciPy and trec_eval
//! define them.

mod abstention;
mod binary;
mod correlation;
mod labels;
mod partition;

pub use abstention::{confidences, normalised_auc};
pub use binary::{BinaryScores, average_precision, binary_scores};
pub use correlation::{average_ranks, pearson, spearman};
pub use labels::{ClassScores, class_scores, label_ranking_precision};
pub use partition::{PartitionScores, partition_scores};

/// Hand-made cases with the answers of mteb, pytrec_eval, scikit-learn and SciPy.
#[cfg(test)]
pub(crate) fn golden() -> serde_json::Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/fixtures/golden/evaluate_edge_cases.json"
    );
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}
