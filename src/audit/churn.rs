//! Turnover between two snapshots of one corpus: which items stayed, went, came, or have another vector.
//!
//! Where most items are in both snapshots, the sets are no independent samples and what came is diluted by
//! what stayed. What came is therefore tested against what went.

use schemars::JsonSchema;
use serde::Serialize;

use super::verdict::{AxisState, Evidence, Policy};
use super::{AuditConfig, Pairing, PairingKind};
use crate::embeddings::{Embeddings, Ids, Join, Values};
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::comparability::Comparability;
use crate::metrics::mmd::{self, Mmd, MmdConfig, Sample};

/// Rows on either side from which a test says something.
const MIN_ROWS: usize = 100;
/// About the most rows per side that are compared: 8 · 10⁸ pairs.
const MAX_ROWS: usize = 20_000;

/// What became of the items.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Churn {
    /// Shared ids with the same vector, value for value.
    pub unchanged: u64,
    /// Shared ids with another vector.
    pub re_embedded: u64,
    /// Share of the reference's rows that the current set lacks, |R|/n.
    pub removed_share: f64,
    /// Share of the current set's rows that the reference lacks, |A|/m.
    pub added_share: f64,
    /// What the added rows are compared with; null where they are not.
    pub added_against: Option<Baseline>,
    /// Added rows (as its current set) against that, of at most about 20,000 rows a side; null where there
    /// are fewer than 100 on a side, or the sets share no space.
    pub added_mmd: Option<Mmd>,
}

/// What added rows are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Baseline {
    /// The removed rows.
    Removed,
    /// The whole reference set, since too few rows were removed.
    Reference,
}

impl Baseline {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Removed => "removed rows",
            Self::Reference => "the reference",
        }
    }
}

/// Some rows of a set, as a sample.
struct Part<'a> {
    values: std::borrow::Cow<'a, Values>,
    dim: usize,
    ids: Ids,
    groups: Option<Vec<String>>,
}

impl<'a> Part<'a> {
    fn new(set: &'a Embeddings, rows: &[u32], group: Option<&str>) -> Self {
        let groups = group.and_then(|name| set.column(name));
        let pick = |column: &[String]| rows.iter().map(|&r| column[r as usize].clone()).collect();
        Self {
            values: set.gather(rows),
            dim: set.dim(),
            ids: set.ids.select(rows),
            groups: groups.map(pick),
        }
    }

    fn sample(&self) -> Sample<'_> {
        Sample {
            rows: self.values.rows(self.dim),
            ids: &self.ids,
            groups: self.groups.as_deref(),
        }
    }
}

/// Measures the turnover of sets that share ids.
pub(super) fn churn(
    engine: &Engine,
    (reference, current): (&Embeddings, &Embeddings),
    join: &Join,
    pairing: &Pairing,
    comparability: &Comparability,
    config: &AuditConfig,
) -> Result<Option<Churn>> {
    if pairing.kind == PairingKind::Unpaired {
        return Ok(None);
    }
    let (x, y) = (reference.rows(), current.rows());
    let same = |&&(a, b): &&(u32, u32)| *x.row(a as usize) == *y.row(b as usize);
    let unchanged = join.shared.iter().filter(same).count();
    let (removed, added) = (&join.only_reference, &join.only_current);
    let against = match (removed.len(), added.len()) {
        _ if !comparability.relation.shares_coordinates() => None,
        (_, added) if added < MIN_ROWS => None,
        (removed, _) if removed >= MIN_ROWS => Some(Baseline::Removed),
        _ => (reference.len() >= MIN_ROWS).then_some(Baseline::Reference),
    };
    let added_mmd = match against {
        None => None,
        Some(baseline) => {
            let group = config.group.as_deref();
            let old = match baseline {
                Baseline::Removed => Part::new(reference, removed, group),
                Baseline::Reference => {
                    let all: Vec<u32> = (0..reference.len() as u32).collect();
                    Part::new(reference, &all, group)
                }
            };
            let new = Part::new(current, added, group);
            let mmd_config = MmdConfig {
                bandwidth: config.bandwidth,
                permutations: config.permutations,
                seed: config.seed,
                margin: config.policy.max_eps_eq,
                sample: Some(MAX_ROWS),
                ..MmdConfig::default()
            };
            Some(mmd::mmd(engine, old.sample(), new.sample(), &mmd_config)?)
        }
    };
    Ok(Some(Churn {
        unchanged: unchanged as u64,
        re_embedded: (join.shared.len() - unchanged) as u64,
        removed_share: removed.len() as f64 / reference.len().max(1) as f64,
        added_share: added.len() as f64 / current.len().max(1) as f64,
        added_against: against,
        added_mmd,
    }))
}

/// What came against what went, as evidence of the distribution axis. It says which part of the corpus
/// moved; the axis's state is that of the whole corpus.
pub(super) fn evidence(found: &Churn, floor: Option<f64>, policy: &Policy) -> Option<Evidence> {
    let (mmd, against) = (found.added_mmd.as_ref()?, found.added_against?);
    let (estimate, [low, high]) = (mmd.effect.eps_eq?, mmd.effect.ci95?);
    let margin = policy.max_eps_eq.max(floor.unwrap_or(0.0));
    let significant = mmd.p_value_holm.is_some_and(|p| p <= policy.alpha);
    let state = match () {
        () if significant && low > margin => AxisState::Shifted,
        () if high < policy.review_eps_eq.max(margin) && low <= margin => AxisState::Ok,
        () => AxisState::Unknown,
    };
    Some(Evidence {
        measure: format!("shift ε_eq, added rows against {}", against.label()),
        estimate: Some(estimate),
        ci95: mmd.effect.ci95,
        n: Some(mmd.used_reference + mmd.used_current),
        exact: mmd.exact,
        floor,
        threshold: Some(margin),
        state,
        statement: format!(
            "{:.1} % of the rows are new; against {} as if {:.1} % of them had been replaced by a foreign topic (95 % interval {:.1} to {:.1} %)",
            100.0 * found.added_share,
            against.label(),
            100.0 * estimate,
            100.0 * low,
            100.0 * high
        ),
    })
}
