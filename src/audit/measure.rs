//! The audit's measures: which apply to what was read, and with which rows.

use schemars::JsonSchema;
use serde::Serialize;

use super::slices::SliceColumn;
use super::{AuditConfig, NotMeasured, PairingKind, Shared, faults};
use crate::embeddings::{Embeddings, Ids};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::metrics::alignment::{self, LinearCka, Procrustes};
use crate::metrics::batches::BatchCheck;
use crate::metrics::comparability::{self, Comparability, SharedRows};
use crate::metrics::cosine::{self, CosineDistribution, CosineShift, PairedCosine};
use crate::metrics::dimensions::{self, AxisDrift};
use crate::metrics::duplicates;
use crate::metrics::frechet::{self, Frechet};
use crate::metrics::mixed_spaces::{self, MixedSpaces};
use crate::metrics::mmd::{self, Mmd, MmdConfig, Sample};
use crate::metrics::moments::{
    self, CentroidShift, Moments, NormDistribution, NormShift, UnitMoments,
};
use crate::metrics::near_duplicates::{self, NearDuplicates};
use crate::metrics::overlap::{self, Overlap, OverlapConfig};
use crate::metrics::precision::{self, ValuePrecision};
use crate::metrics::retrieval::{self, Qrel, Retrieval, RetrievalSide};
use crate::metrics::spectrum::{self, Spectrum, SubspaceSimilarity};
use crate::metrics::thresholds::{self, Thresholds};
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
    /// How far the vector lengths moved.
    pub norm_shift: NormShift,
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
    /// Rows of another model or pipeline, found from the vectors alone; absent for fewer than 200 rows or
    /// 32 dimensions.
    pub mixed_spaces: Option<MixedSpaces>,
    /// How precise the values are, told from the values; absent below 16 dimensions.
    pub precision: Option<ValuePrecision>,
    /// Rows with another almost in their direction; absent for fewer than two rows.
    pub near_duplicates: Option<NearDuplicates>,
    /// The batches that columns to slice by tell apart, each against the set's other rows.
    pub batches: Vec<BatchCheck>,
    /// Rows equal to an earlier one, value by value.
    pub duplicate_rows: u64,
    /// Coordinates that never vary.
    pub constant_dimensions: Vec<usize>,
    /// Vector lengths.
    pub norms: NormDistribution,
}

/// Looks for faults that no drift explains.
pub(super) fn data_faults(
    engine: &Engine,
    reference: &Embeddings,
    current: &Embeddings,
    inputs: &[InputSummary],
    columns: &[SliceColumn],
    config: &AuditConfig,
) -> Result<DataFaults> {
    let mixed =
        |set: &Embeddings| mixed_spaces::mixed_spaces(engine, set.rows(), &set.ids, config.seed);
    // Mostly eigenvectors, which take a thread of the pool each.
    let [of_reference, of_current] = std::thread::scope(|scope| {
        let of_reference = scope.spawn(|| mixed(reference));
        let of_current = mixed(current);
        let joined = of_reference.join();
        [
            joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            of_current,
        ]
    });
    let (of_reference, of_current) = (of_reference?, of_current?);
    let near = |set: &Embeddings| {
        near_duplicates::near_duplicates(engine, set.rows(), &set.ids, config.seed)
    };
    let (near_reference, near_current) = (near(reference)?, near(current)?);
    let [of_batches, batches] = faults::batches([reference, current], columns, config);
    let side = |set: &Embeddings, input: &InputSummary, mixed_spaces, near, batches| SideFaults {
        rows: input.rows,
        faulty_rows: input.faults.rows(),
        dim: set.dim(),
        mixed_spaces,
        precision: precision::value_precision(set.rows(), &set.ids),
        near_duplicates: near,
        batches,
        duplicate_rows: duplicates::duplicate_rows(set.rows()),
        constant_dimensions: moments::constant_dimensions(set.rows()),
        norms: moments::norm_distribution(set.rows(), &set.ids),
    };
    let (reference, current) = rayon::join(
        || {
            side(
                reference,
                &inputs[0],
                of_reference,
                near_reference,
                of_batches,
            )
        },
        || side(current, &inputs[1], of_current, near_current, batches),
    );
    Ok(DataFaults {
        norm_shift: moments::norm_shift(&reference.norms, &current.norms),
        reference,
        current,
    })
}

/// Whether both sets live in one space, as far as shared items tell.
pub(super) fn comparability(
    engine: &Engine,
    reference: &Embeddings,
    current: &Embeddings,
    shared: Option<&Shared<'_>>,
    config: &AuditConfig,
) -> Result<Comparability> {
    let no_ids = Ids::new();
    let rows = shared.map_or(
        SharedRows {
            reference: reference.rows().slice(0..0),
            current: current.rows().slice(0..0),
            ids: &no_ids,
        },
        |s| SharedRows {
            reference: s.reference(),
            current: s.current(),
            ids: &s.ids,
        },
    );
    comparability::comparability(engine, rows, config.seed)
}

/// Shared items, position by position.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Coordinates {
    /// Cosine between an item's two vectors; absent where the dimensions differ.
    pub paired_cosine: Option<PairedCosine>,
    /// How well one rotation brings the spaces together.
    pub procrustes: Option<Procrustes>,
    /// How alike the spaces are up to rotation and scale.
    pub linear_cka: LinearCka,
}

/// Compares shared items' vectors.
pub(super) fn coordinates(
    engine: &Engine,
    shared: Option<&Shared<'_>>,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<Coordinates>> {
    let Some(shared) = shared else {
        skip(
            not_measured,
            "paired cosine, Procrustes, CKA",
            "needs items with the same id on both sides",
        );
        return Ok(None);
    };
    let (x, y) = (shared.reference(), shared.current());
    let paired_cosine = if x.dim() == y.dim() {
        Some(cosine::paired(x, y))
    } else {
        let reason = format!("the dimensions differ ({} and {})", x.dim(), y.dim());
        skip(not_measured, "paired cosine", &reason);
        None
    };
    let (mx, my) = (Moments::of(engine, x)?, Moments::of(engine, y)?);
    Ok(Some(Coordinates {
        paired_cosine,
        procrustes: alignment::procrustes(engine, x, y, &shared.ids, config.seed)?,
        linear_cka: alignment::linear_cka(engine, x, y, &mx, &my)?,
    }))
}

/// Compares shared items' neighbourhoods.
pub(super) fn neighbourhoods(
    engine: &Engine,
    shared: Option<&Shared<'_>>,
    labels: Option<&[String]>,
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
    let overlap_config = OverlapConfig {
        ks: config.ks.clone(),
        headline_k: config.headline_k(),
        queries: config.overlap_queries,
        seed: config.seed,
        ..OverlapConfig::default()
    };
    overlap::overlap(
        engine,
        shared.reference(),
        shared.current(),
        &shared.ids,
        labels,
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
    pub cosine_shift: Option<CosineShift>,
    /// Distance of the means; absent where the sets do not share a space.
    pub centroid: Option<CentroidShift>,
    /// Fréchet distance; absent where the sets do not share a space.
    pub frechet: Option<Frechet>,
    /// Spectrum of the reference set.
    pub spectrum_reference: Spectrum,
    /// Spectrum of the current set.
    pub spectrum_current: Spectrum,
    /// How far the principal subspaces coincide; absent where the sets do not share a space.
    pub subspaces: Option<SubspaceSimilarity>,
    /// Vendi score of the current set over that of the reference set.
    pub vendi_ratio: Option<f64>,
    /// Axis by axis; absent where the sets do not share a space.
    pub axes: Option<AxisDrift>,
    /// Whether the current set's vectors crowd together; absent where the sets do not share a space.
    pub collapse: Option<Collapse>,
}

/// Cosine from which two rows count as near-duplicates.
const NEAR_DUPLICATE_COSINE: f64 = 0.95;

/// Signs that vectors lost their diversity: all of them together say collapse, one alone does not.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Collapse {
    /// p-value of the dispersion test, after Holm's correction.
    pub dispersion_p_value: Option<f64>,
    /// Vendi score of the current set over that of the reference; a sign below 0.9.
    pub vendi_ratio: Option<f64>,
    /// Rise of the mean cosine of random pairs; a sign above 0.02.
    pub mean_cosine_rise: Option<f64>,
    /// Share of pairs with a cosine of 0.95 or more, reference and current; a sign where it rises.
    pub near_duplicate_share: [f64; 2],
}

impl Collapse {
    fn new(
        mmd: &Mmd,
        vendi_ratio: Option<f64>,
        [reference, current]: [&CosineDistribution; 2],
    ) -> Self {
        Self {
            dispersion_p_value: mmd.dispersion_p_value_holm,
            vendi_ratio,
            mean_cosine_rise: reference.mean.zip(current.mean).map(|(x, y)| y - x),
            near_duplicate_share: [reference, current]
                .map(|side| side.share_from(NEAR_DUPLICATE_COSINE)),
        }
    }

    /// Whether all signs are there, the test's at level `alpha`.
    pub fn is_flagged(&self, alpha: f64) -> bool {
        let [before, after] = self.near_duplicate_share;
        self.dispersion_p_value.is_some_and(|p| p <= alpha)
            && self.vendi_ratio.is_some_and(|ratio| ratio < 0.9)
            && self.mean_cosine_rise.is_some_and(|rise| rise > 0.02)
            && after > before
    }
}

/// Most rows of a side whose pairs make up its distribution of cosines: 1.25 · 10⁹ pairs. More cost more
/// than all kernel sums together and say nothing new: the mean's standard error is below 0.001 already.
const COSINE_ROWS: usize = 50_000;

/// Compares the sets as distributions: what a rotation would not change always, the rest only where both
/// live in one space.
///
/// Cosines are of pairs of at most [`COSINE_ROWS`] rows per side, which their number of pairs tells.
pub(super) fn distribution(
    engine: &Engine,
    reference: Embeddings,
    current: Embeddings,
    pairing: PairingKind,
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
    let (mx, my) = (Moments::of(engine, x)?, Moments::of(engine, y)?);
    let (ux, uy) = (UnitMoments::of(engine, x)?, UnitMoments::of(engine, y)?);
    let spectrum_reference = spectrum::spectrum(&mx, &ux)?;
    let spectrum_current = spectrum::spectrum(&my, &uy)?;
    let (mut mmd, mut centroid, mut frechet, mut axes) = (None, None, None, None);
    if comparability.relation.shares_coordinates() {
        // Row numbers that pair nothing are no identities: equal ones are different documents.
        let foreign: Option<Ids> = (pairing == PairingKind::Unpaired).then(|| {
            current
                .ids
                .iter()
                .map(|id| format!("current:{id}"))
                .collect()
        });
        let mmd_config = MmdConfig {
            bandwidth: config.bandwidth,
            permutations: config.permutations,
            seed: config.seed,
            margin: config.policy.max_eps_eq,
            ..MmdConfig::default()
        };
        let old = Sample {
            rows: x,
            ids: &reference.ids,
            groups: config.group.as_ref().and_then(|g| reference.column(g)),
        };
        let new = Sample {
            rows: y,
            ids: foreign.as_ref().unwrap_or(&current.ids),
            groups: config.group.as_ref().and_then(|g| current.column(g)),
        };
        mmd = Some(mmd::mmd(engine, old, new, &mmd_config)?);
        axes = dimensions::axis_drift(engine, old, new, &spectrum_reference, config.seed)?;
        centroid = Some(moments::centroid_shift(&mx, &my));
        frechet = frechet::frechet(&mx, &my)?;
    } else {
        let reason = &comparability.reason;
        skip(
            not_measured,
            "MMD, centroid shift, Fréchet distance, single axes, collapse",
            &format!("not in one space: {reason}"),
        );
    }
    let one_space = comparability.relation.shares_coordinates();
    let rows = [x.len(), y.len()];
    let cosines = |set: Embeddings, unit: &UnitMoments| {
        let all = set.len();
        let set = set.sample(COSINE_ROWS, config.seed);
        if set.len() == all {
            return cosine::within(engine, set.rows(), unit);
        }
        cosine::within(engine, set.rows(), &UnitMoments::of(engine, set.rows())?)
    };
    let (cosine_reference, cosine_current) = (cosines(reference, &ux)?, cosines(current, &uy)?);
    let vendi_ratio = spectrum_reference
        .vendi_cosine
        .zip(spectrum_current.vendi_cosine)
        .map(|(x, y)| y / x);
    let sides = [&cosine_reference, &cosine_current];
    Ok(Some(Distribution {
        collapse: mmd
            .as_ref()
            .map(|mmd| Collapse::new(mmd, vendi_ratio, sides)),
        axes,
        rows: rows.map(|rows| rows as u64),
        exact: rows[0] + rows[1] == all,
        mmd,
        cosine_shift: cosine::shift(&cosine_reference, &cosine_current),
        cosine_reference,
        cosine_current,
        centroid,
        frechet,
        subspaces: one_space
            .then(|| spectrum::subspace_similarity(&spectrum_reference, &spectrum_current))
            .flatten(),
        vendi_ratio,
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

fn golden_side<'a>(queries: &'a Embeddings, corpus: &'a Embeddings) -> RetrievalSide<'a> {
    RetrievalSide {
        queries: queries.rows(),
        query_ids: &queries.ids,
        corpus: corpus.rows(),
        corpus_ids: &corpus.ids,
    }
}

/// Carries similarity thresholds over: at equal pass rate over shared items, and at equal precision where
/// golden queries say what is relevant.
pub(super) fn thresholds(
    engine: &Engine,
    shared: Option<&Shared<'_>>,
    (reference, current): (&Embeddings, &Embeddings),
    golden: Option<&Golden>,
    config: &AuditConfig,
    not_measured: &mut Vec<NotMeasured>,
) -> Result<Option<Thresholds>> {
    let wanted = &config.thresholds;
    let found = match shared {
        None => None,
        Some(s) => thresholds::thresholds(
            engine,
            s.reference(),
            s.current(),
            &s.ids,
            wanted,
            config.seed,
        )?,
    };
    let Some(mut found) = found else {
        skip(
            not_measured,
            "thresholds",
            "needs at least 50 items with the same id on both sides",
        );
        return Ok(None);
    };
    if let Some(golden) = golden {
        let sides = [
            golden_side(&golden.queries_reference, reference),
            golden_side(&golden.queries_current, current),
        ];
        // Queries of another dimension than their corpus are refused where they are searched.
        if sides.iter().all(|s| s.queries.dim() == s.corpus.dim()) {
            let [old, new] = &sides;
            found.precision = thresholds::precision_transfer(
                engine,
                old,
                new,
                &golden.qrels,
                wanted,
                config.seed,
            )?;
        }
    }
    Ok(Some(found))
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
    retrieval::retrieval(
        engine,
        &golden_side(&golden.queries_reference, reference),
        &golden_side(&golden.queries_current, current),
        &golden.qrels,
        &Resampling {
            seed: config.seed,
            ..Resampling::default()
        },
    )
    .map(Some)
}

/// Reads relevance judgements: text (BEIR TSV or TREC), or a Parquet table with BEIR's column names.
///
/// # Errors
/// The file cannot be read or holds something else.
pub fn read_qrels(path: &str) -> Result<Vec<Qrel>> {
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

pub(super) fn skip(list: &mut Vec<NotMeasured>, measure: &str, reason: &str) {
    list.push(NotMeasured {
        measure: measure.to_owned(),
        reason: reason.to_owned(),
    });
}
