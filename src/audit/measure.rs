//! The audit's measures: which apply to what was read, and with which rows.

use schemars::JsonSchema;
use serde::Serialize;

use super::{AuditConfig, NotMeasured, Shared};
use crate::embeddings::Embeddings;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::alignment::{self, Alignment};
use crate::metrics::comparability::Comparability;
use crate::metrics::cosine::{self, CosineComparison, CosineDistribution, PairedCosine};
use crate::metrics::frechet::{self, Frechet};
use crate::metrics::mmd::{self, Mmd, MmdConfig, Sample};
use crate::metrics::moments::{self, CentroidShift, Norms};
use crate::metrics::overlap::{self, Overlap, OverlapConfig};
use crate::metrics::retrieval::{self, Qrel, Retrieval, RetrievalSide};
use crate::metrics::spectrum::{self, Spectrum};
use crate::output::InputSummary;
use crate::source;
use crate::stats::paired::Resampling;

/// Faults of both sets.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DataFaults {
    /// Of the reference set.
    pub reference: SideFaults,
    /// Of the current set.
    pub current: SideFaults,
    /// Kolmogorov–Smirnov statistic between the vector lengths.
    pub norm_ks: f64,
}

/// Faults of one set.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SideFaults {
    /// Rows read.
    pub rows: u64,
    /// Null, non-finite and zero rows, left out of everything else.
    pub faulty_rows: u64,
    /// Values per row.
    pub dim: usize,
    /// Rows equal to an earlier one, value by value.
    pub duplicate_rows: u64,
    /// Coordinates that never vary.
    pub constant_dimensions: Vec<usize>,
    /// Vector lengths.
    pub norms: Norms,
}

/// Looks for faults that no drift explains.
pub(super) fn data_faults(
    reference: &Embeddings,
    current: &Embeddings,
    inputs: &[InputSummary],
) -> DataFaults {
    let side = |set: &Embeddings, input: &InputSummary| SideFaults {
        rows: input.rows,
        faulty_rows: input.faults.rows(),
        dim: set.dim(),
        duplicate_rows: moments::duplicate_rows(set.rows()),
        constant_dimensions: moments::constant_dimensions(set.rows()),
        norms: moments::norms(set.rows()),
    };
    DataFaults {
        reference: side(reference, &inputs[0]),
        current: side(current, &inputs[1]),
        norm_ks: moments::norm_ks(reference.rows(), current.rows()),
    }
}

/// How shared items' vectors relate, up to rotation.
pub(super) fn alignment(
    engine: &Engine,
    shared: Option<&Shared<'_>>,
    config: &AuditConfig,
) -> Result<Option<Alignment>> {
    shared
        .map(|s| alignment::alignment(engine, s.reference(), s.current(), &s.ids, config.seed))
        .transpose()
}

/// Shared items, position by position.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Coordinates {
    /// Cosine between an item's two vectors; absent where the dimensions differ.
    pub paired_cosine: Option<PairedCosine>,
    /// How well one linear map brings the spaces together, and how alike they are up to rotation.
    pub alignment: Alignment,
}

/// Compares shared items' vectors. Also returns the cosine per item.
pub(super) fn coordinates(
    shared: Option<&Shared<'_>>,
    alignment: Option<Alignment>,
    not_measured: &mut Vec<NotMeasured>,
) -> (Option<Coordinates>, Option<Vec<f64>>) {
    let Some((shared, alignment)) = shared.zip(alignment) else {
        skip(
            not_measured,
            "paired cosine, Procrustes, CKA",
            "needs items with the same id on both sides",
        );
        return (None, None);
    };
    let (x, y) = (shared.reference(), shared.current());
    let (paired_cosine, per_item) = if x.dim() == y.dim() {
        let (paired, per_item) = cosine::paired(x, y);
        (Some(paired), Some(per_item))
    } else {
        let reason = format!("dimensions differ ({} and {})", x.dim(), y.dim());
        skip(not_measured, "paired cosine", &reason);
        (None, None)
    };
    (
        Some(Coordinates {
            paired_cosine,
            alignment,
        }),
        per_item,
    )
}

/// Compares shared items' neighbourhoods.
pub(super) fn neighbourhoods(
    engine: &Engine,
    shared: Option<&Shared<'_>>,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<Overlap>> {
    let Some(shared) = shared else {
        skip(
            not_measured,
            "neighbourhood overlap",
            "needs items with the same id on both sides",
        );
        return Ok(None);
    };
    let headline_k = config
        .ks
        .iter()
        .copied()
        .min_by_key(|k| k.abs_diff(10))
        .unwrap_or(10);
    let overlap_config = OverlapConfig {
        ks: config.ks.clone(),
        headline_k,
        queries: config.overlap_queries,
        seed: config.seed,
        ..OverlapConfig::default()
    };
    overlap::overlap(
        engine,
        shared.reference(),
        shared.current(),
        &shared.ids,
        &overlap_config,
    )
    .map(Some)
}

/// Both sets as samples.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Distribution {
    /// Rows used per side, reference and current.
    pub rows: [u64; 2],
    /// Whether every row was used.
    pub exact: bool,
    /// Two-sample test and effect size; absent where the sets do not share a space.
    pub mmd: Option<Mmd>,
    /// All pairs within the reference set.
    pub cosine_reference: CosineDistribution,
    /// All pairs within the current set.
    pub cosine_current: CosineDistribution,
    /// The two against each other.
    pub cosine_change: CosineComparison,
    /// Distance of the means; absent where the sets do not share a space.
    pub centroid: Option<CentroidShift>,
    /// Fréchet distance; absent where the sets do not share a space.
    pub frechet: Option<Frechet>,
    /// Spectrum of the reference set.
    pub spectrum_reference: Spectrum,
    /// Spectrum of the current set.
    pub spectrum_current: Spectrum,
    /// Vendi score of the current set over that of the reference set.
    pub vendi_ratio: f64,
}

/// Compares the sets as distributions: what a rotation would not change always, the rest only where both
/// live in one space.
pub(super) fn distribution(
    engine: &Engine,
    reference: Embeddings,
    current: Embeddings,
    comparability: &Comparability,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<Distribution>> {
    if reference.len().min(current.len()) < 2 {
        skip(
            not_measured,
            "distribution",
            "needs at least 2 usable rows on both sides",
        );
        return Ok(None);
    }
    let all = reference.len() + current.len();
    let rows = config.sample.unwrap_or(usize::MAX);
    let (reference, current) = (
        reference.sample(rows, config.seed),
        current.sample(rows, config.seed),
    );
    let (x, y) = (reference.rows(), current.rows());
    let (mx, my) = (moments::moments(engine, x)?, moments::moments(engine, y)?);
    let (mut mmd, mut centroid, mut frechet) = (None, None, None);
    if comparability.one_space() {
        let mmd_config = MmdConfig {
            bandwidth: config.bandwidth,
            permutations: config.permutations,
            seed: config.seed,
            margin: config.policy.max_eps_eq,
            ..MmdConfig::default()
        };
        mmd = Some(mmd::mmd(
            engine,
            Sample {
                rows: x,
                ids: &reference.ids,
                groups: reference.first_column(),
            },
            Sample {
                rows: y,
                ids: &current.ids,
                groups: current.first_column(),
            },
            &mmd_config,
        )?);
        centroid = Some(moments::centroid_shift(&mx, &my));
        frechet = Some(frechet::frechet(&mx, &my)?);
    } else {
        let reason = &comparability.reason;
        skip(
            not_measured,
            "MMD, centroid shift, Fréchet distance",
            &format!("not in one space: {reason}"),
        );
    }
    let cosine_reference = cosine::within(engine, x)?;
    let cosine_current = cosine::within(engine, y)?;
    let spectrum_reference = spectrum::spectrum(engine, x, &mx)?;
    let spectrum_current = spectrum::spectrum(engine, y, &my)?;
    Ok(Some(Distribution {
        rows: [x.len() as u64, y.len() as u64],
        exact: x.len() + y.len() == all,
        mmd,
        cosine_change: cosine::compare(&cosine_reference, &cosine_current),
        cosine_reference,
        cosine_current,
        centroid,
        frechet,
        vendi_ratio: spectrum_current.vendi / spectrum_reference.vendi,
        spectrum_reference,
        spectrum_current,
    }))
}

/// Golden queries as read.
pub(super) struct Golden {
    pub(super) queries_reference: Embeddings,
    pub(super) queries_current: Embeddings,
    pub(super) qrels: Vec<Qrel>,
}

/// Runs the golden queries on both sides.
pub(super) fn retrieval(
    engine: &Engine,
    reference: &Embeddings,
    current: &Embeddings,
    golden: Option<&Golden>,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<Retrieval>> {
    let Some(golden) = golden else {
        skip(
            not_measured,
            "retrieval",
            "needs golden queries: --queries-reference, --queries-current and --qrels",
        );
        return Ok(None);
    };
    fn side<'a>(queries: &'a Embeddings, corpus: &'a Embeddings) -> RetrievalSide<'a> {
        RetrievalSide {
            queries: queries.rows(),
            query_ids: &queries.ids,
            corpus: corpus.rows(),
            corpus_ids: &corpus.ids,
        }
    }
    retrieval::retrieval(
        engine,
        &side(&golden.queries_reference, reference),
        &side(&golden.queries_current, current),
        &golden.qrels,
        &Resampling {
            seed: config.seed,
            ..Resampling::default()
        },
    )
    .map(Some)
}

/// Reads relevance judgements: text (BEIR TSV or TREC), or a Parquet table with BEIR's column names.
pub(super) fn read_qrels(path: &str) -> Result<Vec<Qrel>> {
    if source::is_parquet(path)? {
        let columns = source::read_text_columns(
            path,
            &[
                &["query-id", "query_id", "qid"],
                &["corpus-id", "corpus_id", "doc_id", "docid"],
                &["score", "relevance", "rel"],
            ],
        )?;
        let lines = (0..columns[0].len())
            .map(|i| format!("{}\t{}\t{}\n", columns[0][i], columns[1][i], columns[2][i]));
        let text: String = std::iter::once("query-id\tcorpus-id\tscore\n".to_owned())
            .chain(lines)
            .collect();
        return retrieval::parse_qrels(&text, path);
    }
    let text = std::fs::read_to_string(path).map_err(|e| {
        Error::input(path, format!("cannot be read: {e}"))
            .hint("relevance judgements are BEIR TSV, TREC qrels or Parquet")
    })?;
    retrieval::parse_qrels(&text, path)
}

fn skip(list: &mut Vec<NotMeasured>, measure: &str, reason: &str) {
    list.push(NotMeasured {
        measure: measure.to_owned(),
        reason: reason.to_owned(),
    });
}
