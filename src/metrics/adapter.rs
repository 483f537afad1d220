//! Adapters: linear maps that bring the vectors of one space into another, fitted from shared items, and
//! what they are worth on items that did not make them.
//!
//! Items are split by the hash of their group (document), so that no two chunks of one document stand on
//! both sides: six tenths fit, two choose λ, rank and kind, two are held out and judge. Every figure called
//! held out comes from the last, with neighbours sought in the **whole** target corpus, never in a pool of
//! held-out items, where they would agree far better.
//!
//! # Source
//! Procrustes: Schönemann (1966). Ridge: Hoerl and Kennard (1970). Low rank: reduced-rank regression, Izenman
//! (1975). An adapter into a space can at best equal that space's own vectors.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::retrieval::Qrel;
use crate::embeddings::{Ids, Join, Rows};
use crate::engine::{Engine, score};
use crate::error::{Error, Result};
use crate::stats::interval::Estimate;
use crate::stats::linalg::Matrix;
use crate::stats::paired::{PairedDifference, Resampling};

mod evaluate;
mod fit;

use evaluate::Heldout;
use fit::{Fitted, PairMoments};

/// Shared items below which neither a fit nor a judgement means anything.
const LEAST_PAIRS: usize = 50;
/// Pairs used where nothing else is asked for, unless the dimensions need more.
const DEFAULT_PAIRS: usize = 20_000;
/// Pairs per dimension (of both sides together) from which a ridge map is as good as it gets.
const PAIRS_PER_DIMENSION: usize = 10;
/// A simpler kind of map is taken where it explains at most this much less on the choosing pairs.
const R_SQUARED_SLACK: f64 = 0.01;
/// Held-out cosine about the means below which nothing of an item survives the map.
const NO_MAP_COSINE: f64 = 0.1;

/// Share of the reference's nDCG@10 that an adapter is asked to keep where nobody says otherwise.
pub const MIN_RECOVERED_SHARE: f64 = 0.95;

/// Which space is mapped into which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// New vectors into the old space: the index stays, new queries are mapped.
    CurrentToReference,
    /// Old vectors into the new space: an old corpus, or old queries, meet new vectors.
    ReferenceToCurrent,
}

impl Direction {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::CurrentToReference => "current → reference",
            Self::ReferenceToCurrent => "reference → current",
        }
    }
}

/// What kind of map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// A rotation about the means, and one scale.
    Procrustes,
    /// Ridge regression, its images kept in the directions in which they vary most.
    LowRank,
    /// Ridge regression.
    Ridge,
}

impl Method {
    /// In words.
    pub fn label(self) -> &'static str {
        match self {
            Self::Procrustes => "Procrustes",
            Self::LowRank => "low rank",
            Self::Ridge => "ridge",
        }
    }
}

/// A linear map between two spaces: x ↦ W(x − μₓ) + μᵧ, held as f32, as it is written and applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    /// Which space is mapped into which.
    pub direction: Direction,
    /// What kind of map.
    pub method: Method,
    /// Ridge penalty, in units of the mean variance of a source coordinate.
    pub lambda: Option<f64>,
    /// Rank of W, where it was limited.
    pub rank: Option<usize>,
    source_mean: Vec<f32>,
    target_mean: Vec<f32>,
    /// W, d′ × d: one target coordinate per row.
    weights: Vec<f32>,
}

impl Adapter {
    /// From fitted means and weights (d × d′: one source coordinate per row).
    fn new(
        (direction, method): (Direction, Method),
        (source_mean, target_mean): (&[f64], &[f64]),
        weights: &Matrix,
        (lambda, rank): (Option<f64>, Option<usize>),
    ) -> Self {
        let stored = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
        Self {
            direction,
            method,
            lambda,
            rank,
            source_mean: stored(source_mean),
            target_mean: stored(target_mean),
            weights: stored(weights.transpose().values()),
        }
    }

    /// From what was stored. `None` where the shapes do not agree or a value is not finite.
    pub fn from_parts(
        (direction, method): (Direction, Method),
        source_mean: Vec<f32>,
        target_mean: Vec<f32>,
        weights: Vec<f32>,
    ) -> Option<Self> {
        let shapes = !source_mean.is_empty()
            && !target_mean.is_empty()
            && weights.len() == source_mean.len() * target_mean.len();
        let mut values = source_mean.iter().chain(&target_mean).chain(&weights);
        (shapes && values.all(|v| v.is_finite())).then_some(Self {
            direction,
            method,
            lambda: None,
            rank: None,
            source_mean,
            target_mean,
            weights,
        })
    }

    /// Values per row that it takes.
    pub fn source_dim(&self) -> usize {
        self.source_mean.len()
    }

    /// Values per row that it gives.
    pub fn target_dim(&self) -> usize {
        self.target_mean.len()
    }

    /// μₓ.
    pub fn source_mean(&self) -> &[f32] {
        &self.source_mean
    }

    /// μᵧ.
    pub fn target_mean(&self) -> &[f32] {
        &self.target_mean
    }

    /// W, d′ × d row-major.
    pub fn weights(&self) -> &[f32] {
        &self.weights
    }

    /// Maps every row: n × d′ values. Products are of f32 grade; a row's image does not depend on the rows
    /// beside it.
    ///
    /// # Errors
    /// The device fails.
    ///
    /// # Panics
    /// If the rows have another dimension.
    pub fn map(&self, engine: &Engine, rows: Rows<'_>) -> Result<Vec<f32>> {
        assert_eq!(rows.dim(), self.source_dim());
        let mut centred = Vec::with_capacity(rows.len() * rows.dim());
        let mut unscales = Vec::with_capacity(rows.len());
        let mut deviation = vec![0.0; rows.dim()];
        for row in rows.iter() {
            for ((d, &v), &mean) in deviation.iter_mut().zip(&*row).zip(&self.source_mean) {
                *d = f64::from(v) - f64::from(mean);
            }
            // A power of two brings each row to length near 1, where no product overflows f32.
            let length = deviation.iter().map(|v| v * v).sum::<f64>().sqrt();
            let scale = score::unit_scale(length);
            unscales.push(1.0 / scale);
            centred.extend(deviation.iter().map(|v| (v * scale) as f32));
        }
        let mut mapped = engine.project(
            Rows::new(&centred, rows.dim()),
            Rows::new(&self.weights, rows.dim()),
        )?;
        for (image, unscale) in mapped.chunks_exact_mut(self.target_dim()).zip(unscales) {
            for (v, &mean) in image.iter_mut().zip(&self.target_mean) {
                *v = (f64::from(*v) * unscale + f64::from(mean)) as f32;
            }
        }
        Ok(mapped)
    }
}

/// One side of [`align`].
#[derive(Debug, Clone, Copy)]
pub struct AlignSide<'a> {
    /// The whole corpus, n × d.
    pub rows: Rows<'a>,
    /// One id per row.
    pub ids: &'a Ids,
    /// Per row the document that it belongs to; `None`: every row is its own.
    pub groups: Option<&'a [String]>,
    /// Golden queries embedded by this side's model, with their ids.
    pub queries: Option<(Rows<'a>, &'a Ids)>,
}

/// How [`align`] works.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AlignConfig {
    /// Length of the neighbour lists.
    pub k: usize,
    /// At most this many pairs are used, those of the groups whose hashes are lowest; `None`: 20,000, or ten
    /// per dimension of both sides where that is more.
    pub pairs: Option<usize>,
    /// The kind of map to take; `None`: the simplest of those that explain most.
    pub method: Option<Method>,
    /// Overlap@k from which neighbourhoods count as kept.
    pub min_intact_overlap: f64,
    /// Overlap@k below which they count as lost.
    pub min_similar_overlap: f64,
    /// Mean paired cosine from which old and new vectors may be mixed.
    pub min_mixable_cosine: f64,
    /// Share of the reference's nDCG@10 that an adapter must keep.
    pub min_recovered_share: f64,
    /// Seed of the split and of all resampling.
    pub seed: u64,
}

/// What adapters between two spaces are worth.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Alignment {
    /// May old and new vectors stand in one index as they are?
    pub mixing: Mixing,
    /// Which pairs did what.
    pub pairs: PairSplit,
    /// Length of the neighbour lists.
    pub k: usize,
    /// Both directions, current → reference first.
    pub directions: Vec<DirectionResult>,
}

/// Whether old and new vectors may be mixed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Mixing {
    /// The answer.
    pub may_mix: MayMix,
    /// Why, in one sentence, and whether an adapter makes up for it.
    pub statement: String,
    /// Mean cosine between a held-out item's two vectors; absent where the dimensions differ.
    pub paired_cosine: Option<Estimate>,
    /// Overlap@k of the neighbours that one side's vector finds in the other side's whole corpus with those
    /// that the item's own vector finds there, in the direction that does worse.
    pub overlap: Option<Estimate>,
}

/// The answer to "may old and new vectors be mixed?".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MayMix {
    /// They find the same neighbours.
    Yes,
    /// They find some of the same neighbours.
    AtACost,
    /// They find others, or cannot be compared at all.
    No,
}

/// How the shared items were split.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PairSplit {
    /// Ids on both sides.
    pub shared: usize,
    /// Pairs used.
    pub used: usize,
    /// Pairs that fit the map (with those that choose it, once it is chosen).
    pub fit: usize,
    /// Pairs that choose λ, rank and kind.
    pub validation: usize,
    /// Pairs that judge.
    pub heldout: usize,
    /// Documents among them.
    pub heldout_groups: usize,
    /// Pairs from which more would not help much: ten per dimension of both sides.
    pub enough: usize,
}

/// What is known of the maps in one direction.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct DirectionResult {
    /// Which space is mapped into which.
    pub direction: Direction,
    /// Dimension of the space that is mapped.
    pub source_dim: usize,
    /// Dimension of the space that it is mapped into.
    pub target_dim: usize,
    /// The kind of map that was taken.
    pub method: Method,
    /// What it is good for.
    pub state: AdapterState,
    /// That in one sentence.
    pub statement: String,
    /// Without any map; absent where the dimensions differ.
    pub unadapted: Option<Fidelity>,
    /// Every kind of map.
    pub methods: Vec<MethodResult>,
    /// Overlap@k of what the mapped vector finds in the target with what the item's own vector finds in the
    /// source. Absent unless both sides hold the same ids.
    pub overlap_with_source: Option<Estimate>,
    /// Overlap@k of the two spaces themselves on the same items: what re-embedding would change. Absent unless
    /// both sides hold the same ids.
    pub overlap_of_spaces: Option<Estimate>,
    /// Where the map fails: clusters of held-out items, worst first.
    pub clusters: Vec<ClusterResidual>,
    /// Golden queries, where there are any.
    pub retrieval: Option<Recovery>,
}

/// What an adapter is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdapterState {
    /// It does what the target's own vectors do, within the policy.
    Recovers,
    /// It brings items near, not near enough.
    Partial,
    /// The golden queries do not decide.
    Undecided,
    /// No linear map brings items together.
    NoMap,
}

/// One kind of map in one direction.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MethodResult {
    /// What kind.
    pub method: Method,
    /// Ridge penalty chosen, in units of the mean variance of a source coordinate.
    pub lambda: Option<f64>,
    /// Rank chosen.
    pub rank: Option<usize>,
    /// Share of the target's spread explained on the pairs that chose λ and rank; `null` without spread.
    pub validation_r_squared: Option<f64>,
    /// On items that did not make it.
    pub heldout: Fidelity,
}

/// How near vectors come to their targets, on held-out items.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Fidelity {
    /// Mean cosine with the item's own target vector.
    pub mean_cosine: Estimate,
    /// The same about the mean of the items' targets: without what all rows share. `null` where no row differs from it.
    pub mean_cosine_centred: Option<Estimate>,
    /// 5th percentile of the cosine.
    pub p05_cosine: f64,
    /// 1 − squared residual over squared spread of the items' targets about their mean; below 0 is worse than the mean.
    /// `null` without spread.
    pub r_squared: Option<f64>,
    /// Overlap@k in the whole target corpus with the neighbours of the item's own target vector.
    pub overlap: Estimate,
}

/// A cluster of held-out items in the target space, and how well the map serves it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ClusterResidual {
    /// Held-out items in it.
    pub items: usize,
    /// Mean cosine of mapped and target vector.
    pub mean_cosine: Estimate,
    /// Overlap@k.
    pub mean_overlap: f64,
    /// The items nearest to its centre.
    pub examples: Vec<String>,
}

/// nDCG@10 of golden queries of the source space on the target corpus, before and after the map.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Recovery {
    /// Queries.
    pub queries: usize,
    /// The reference's own queries on the reference's corpus: what users have now.
    pub reference: f64,
    /// The current model's own queries on its own corpus.
    pub current: f64,
    /// The source's queries on the target's corpus as they are; absent where the dimensions differ.
    pub unadapted: Option<f64>,
    /// The source's queries, mapped, on the target's corpus.
    pub adapted: f64,
    /// adapted − reference, query by query: service continuity.
    pub change: PairedDifference,
    /// adapted / reference. `null` where the reference finds nothing.
    pub recovered_share: Option<f64>,
    /// (adapted − reference)/(current − reference): the share of an upgrade that the map gives. `null` unless
    /// the interval of current − reference lies above 0.
    pub gain_share: Option<f64>,
    /// Mean of adapted − `min_recovered_share` · reference with its 95 % interval: above 0 the policy holds.
    pub margin: Estimate,
}

/// Both adapters that were taken, with what is known of them.
#[derive(Debug)]
pub struct Aligned {
    /// The findings.
    pub alignment: Alignment,
    /// One per direction, in their order.
    pub adapters: Vec<Adapter>,
}

/// Fits and judges adapters between two sets, paired by id; dimensions may differ.
///
/// # Errors
/// Fewer than 50 shared ids, a part of the split without items, golden queries that fit nothing, or the
/// device fails.
pub fn align(
    engine: &Engine,
    reference: &AlignSide<'_>,
    current: &AlignSide<'_>,
    qrels: &[Qrel],
    config: &AlignConfig,
) -> Result<Aligned> {
    let join = Join::new(reference.ids, current.ids);
    let shared = join.shared.len();
    if shared < LEAST_PAIRS {
        return Err(Error::input(
            "align",
            format!("{shared} shared ids, expected at least {LEAST_PAIRS}"),
        )
        .hint(
            "an adapter is fitted from items embedded on both sides; --id COLUMN names their ids",
        ));
    }
    let dims = reference.rows.dim() + current.rows.dim();
    let enough = PAIRS_PER_DIMENSION * dims;
    let wanted = config.pairs.unwrap_or(DEFAULT_PAIRS.max(enough));
    let split = Split::new(reference, &join.shared, wanted, config.seed)?;
    let moments = |pairs: &[(u32, u32)]| -> Result<PairMoments> {
        let (old, new) = (
            reference.rows.gather(pairs.iter().map(|p| p.0 as usize)),
            current.rows.gather(pairs.iter().map(|p| p.1 as usize)),
        );
        PairMoments::of(
            engine,
            Rows::new(&new, current.rows.dim()),
            Rows::new(&old, reference.rows.dim()),
        )
    };
    let (train, validation) = (moments(&split.fit)?, moments(&split.validation)?);
    let mut directions = Vec::new();
    let mut adapters = Vec::new();
    for direction in [Direction::CurrentToReference, Direction::ReferenceToCurrent] {
        let forward = direction == Direction::CurrentToReference;
        let (source, target) = if forward {
            (current, reference)
        } else {
            (reference, current)
        };
        let fitted = if forward {
            fit::fit_all(&train, &validation, direction)?
        } else {
            fit::fit_all(&train.turned(), &validation.turned(), direction)?
        };
        let chosen = choose(&fitted, config.method);
        let heldout = Heldout::new(engine, source, target, &split, forward, config.k)?;
        let (result, adapter) = judge_direction(
            engine,
            (source, target),
            qrels,
            fitted,
            chosen,
            &heldout,
            config,
        )?;
        directions.push(result);
        adapters.push(adapter);
    }
    let mixing = mixing(reference, current, &directions, config);
    Ok(Aligned {
        alignment: Alignment {
            mixing,
            pairs: PairSplit {
                shared,
                used: split.fit.len() + split.validation.len() + split.heldout.len(),
                fit: split.fit.len(),
                validation: split.validation.len(),
                heldout: split.heldout.len(),
                heldout_groups: split.heldout_groups(),
                enough,
            },
            k: config.k,
            directions,
        },
        adapters,
    })
}

/// The simplest map that explains nearly as much as the best, unless one was asked for. Maps come simplest
/// first.
fn choose(fitted: &[Fitted], wanted: Option<Method>) -> usize {
    let explained = |f: &Fitted| f.validation_r_squared.unwrap_or(0.0);
    let best = fitted
        .iter()
        .map(explained)
        .fold(f64::NEG_INFINITY, f64::max);
    fitted
        .iter()
        .position(|f| match wanted {
            Some(method) => f.adapter.method == method,
            None => explained(f) >= best - R_SQUARED_SLACK,
        })
        .unwrap_or(0)
}

fn judge_direction(
    engine: &Engine,
    (source, target): (&AlignSide<'_>, &AlignSide<'_>),
    qrels: &[Qrel],
    fitted: Vec<Fitted>,
    chosen: usize,
    heldout: &Heldout<'_>,
    config: &AlignConfig,
) -> Result<(DirectionResult, Adapter)> {
    let unadapted = if source.rows.dim() == target.rows.dim() {
        Some(heldout.compare(engine, heldout.source_values())?.fidelity)
    } else {
        None
    };
    let mut methods = Vec::new();
    let mut taken = None;
    for (i, fit) in fitted.iter().enumerate() {
        let mapped = fit.adapter.map(engine, heldout.source())?;
        let compared = heldout.compare(
            engine,
            &evaluate::with_direction(mapped, fit.adapter.target_dim()),
        )?;
        methods.push(MethodResult {
            method: fit.adapter.method,
            lambda: fit.adapter.lambda,
            rank: fit.adapter.rank,
            validation_r_squared: fit.validation_r_squared,
            heldout: compared.fidelity.clone(),
        });
        if i == chosen {
            taken = Some(compared);
        }
    }
    let taken = taken.expect("one of the maps is chosen");
    let adapter = fitted.into_iter().nth(chosen).expect("it is there").adapter;
    let agreement = heldout.agreement(&taken);
    let clusters = heldout.clusters(engine, &taken, config.seed)?;
    let retrieval = match (source.queries, target.queries) {
        (Some(_), Some(_)) => Some(evaluate::recovery(
            engine,
            source,
            target,
            &adapter,
            qrels,
            config.min_recovered_share,
            &Resampling {
                seed: config.seed,
                ..Resampling::default()
            },
        )?),
        _ => None,
    };
    let (state, statement) = judge(&taken.fidelity, retrieval.as_ref(), config);
    let result = DirectionResult {
        direction: adapter.direction,
        source_dim: source.rows.dim(),
        target_dim: target.rows.dim(),
        method: adapter.method,
        state,
        statement,
        unadapted,
        methods,
        overlap_with_source: agreement.as_ref().map(|a| a.with_source),
        overlap_of_spaces: agreement.map(|a| a.of_spaces),
        clusters,
        retrieval,
    };
    Ok((result, adapter))
}

/// What the map is good for: golden queries decide where there are any, else neighbours.
fn judge(
    fidelity: &Fidelity,
    retrieval: Option<&Recovery>,
    config: &AlignConfig,
) -> (AdapterState, String) {
    let overlap = fidelity.overlap;
    let centred = fidelity.mean_cosine_centred.map_or(0.0, |e| e.mean);
    if centred < NO_MAP_COSINE {
        return (
            AdapterState::NoMap,
            format!(
                "no linear map brings them together: held-out items land no nearer to their place than to any other (cosine about the mean {centred:.3}, overlap@{} {:.3})",
                config.k, overlap.mean
            ),
        );
    }
    if let Some(found) = retrieval {
        let share = 100.0 * config.min_recovered_share;
        let facts = format!(
            "nDCG@10 {:.3} with the adapter, {:.3} in the reference{}, {} queries",
            found.adapted,
            found.reference,
            found
                .unadapted
                .map_or(String::new(), |v| format!(", {v:.3} without it")),
            found.queries
        );
        let [low, high] = found.margin.bounds();
        return match () {
            () if low >= 0.0 => (
                AdapterState::Recovers,
                format!("known queries keep at least {share:.0} % of their nDCG@10: {facts}"),
            ),
            () if high < 0.0 => (
                AdapterState::Partial,
                format!("known queries keep less than {share:.0} % of their nDCG@10: {facts}"),
            ),
            () => (
                AdapterState::Undecided,
                format!(
                    "too few golden queries to say whether {share:.0} % of nDCG@10 is kept: {facts}"
                ),
            ),
        };
    }
    let facts = format!(
        "held-out items find {:.1} % of their {} nearest neighbours in the whole corpus",
        100.0 * overlap.mean,
        config.k
    );
    if overlap.bounds()[0] >= config.min_intact_overlap {
        (
            AdapterState::Recovers,
            format!("neighbourhoods are kept: {facts}"),
        )
    } else {
        (
            AdapterState::Partial,
            format!(
                "neighbourhoods are kept in part: {facts}; golden queries would tell what that costs"
            ),
        )
    }
}

/// Whether both sides' vectors may stand in one index, from the direction that does worse.
fn mixing(
    reference: &AlignSide<'_>,
    current: &AlignSide<'_>,
    directions: &[DirectionResult],
    config: &AlignConfig,
) -> Mixing {
    let worse = directions
        .iter()
        .filter_map(|d| d.unadapted.as_ref())
        .min_by(|a, b| a.overlap.mean.total_cmp(&b.overlap.mean));
    let mended: Vec<&str> = directions
        .iter()
        .filter(|d| d.state == AdapterState::Recovers)
        .map(|d| d.direction.label())
        .collect();
    let remedy = match mended[..] {
        [] => "; no linear adapter makes up for it".to_owned(),
        _ => format!("; an adapter makes up for it ({})", mended.join(", ")),
    };
    let Some(found) = worse else {
        return Mixing {
            may_mix: MayMix::No,
            statement: format!(
                "no: the dimensions differ ({} and {}){remedy}",
                reference.rows.dim(),
                current.rows.dim()
            ),
            paired_cosine: None,
            overlap: None,
        };
    };
    let (overlap, cosine) = (found.overlap, found.mean_cosine);
    let facts = format!(
        "an item's other vector finds {:.1} % of its {} nearest neighbours, and its two vectors have a mean cosine of {:.3}",
        100.0 * overlap.mean,
        config.k,
        cosine.mean
    );
    let may_mix = match () {
        () if overlap.mean < config.min_similar_overlap => MayMix::No,
        () if overlap.bounds()[0] >= config.min_intact_overlap
            && cosine.mean >= config.min_mixable_cosine =>
        {
            MayMix::Yes
        }
        () => MayMix::AtACost,
    };
    let (answer, remedy) = match may_mix {
        MayMix::Yes => ("yes", String::new()),
        MayMix::AtACost => ("only at a cost", remedy),
        MayMix::No => ("no", remedy),
    };
    Mixing {
        may_mix,
        statement: format!("{answer}: {facts}{remedy}"),
        paired_cosine: Some(cosine),
        overlap: Some(overlap),
    }
}

/// (reference row, current row) of the shared items, by what they are used for.
struct Split {
    fit: Vec<(u32, u32)>,
    validation: Vec<(u32, u32)>,
    heldout: Vec<(u32, u32)>,
    /// Document of each held-out item.
    groups: Vec<u32>,
}

impl Split {
    /// Splits whole groups by hash; at most about `wanted` pairs.
    fn new(
        reference: &AlignSide<'_>,
        shared: &[(u32, u32)],
        wanted: usize,
        seed: u64,
    ) -> Result<Self> {
        let named: Option<Ids> = reference.groups.map(|groups| groups.iter().collect());
        let groups = named.as_ref().unwrap_or(reference.ids);
        let mut order: Vec<(u64, &str, &str, (u32, u32))> = shared
            .iter()
            .map(|&pair| {
                let row = pair.0 as usize;
                (
                    groups.hash(row, seed),
                    groups.get(row),
                    reference.ids.get(row),
                    pair,
                )
            })
            .collect();
        order.sort_unstable();
        // The last group stays whole.
        let mut kept = wanted.min(order.len());
        while kept > 0 && kept < order.len() && order[kept].1 == order[kept - 1].1 {
            kept += 1;
        }
        order.truncate(kept);
        let mut split = Self {
            fit: Vec::new(),
            validation: Vec::new(),
            heldout: Vec::new(),
            groups: Vec::new(),
        };
        let mut last = None;
        let mut group = 0;
        for (hash, name, _, pair) in order {
            match hash % 10 {
                0..=5 => split.fit.push(pair),
                6 | 7 => split.validation.push(pair),
                _ => {
                    if last.is_some_and(|last| last != name) {
                        group += 1;
                    }
                    last = Some(name);
                    split.heldout.push(pair);
                    split.groups.push(group);
                }
            }
        }
        let parts = [&split.fit, &split.validation, &split.heldout];
        if parts.iter().any(|part| part.len() < 2) {
            return Err(Error::input(
                "align",
                format!(
                    "{} pairs fit, {} choose and {} judge, expected at least 2 each",
                    split.fit.len(),
                    split.validation.len(),
                    split.heldout.len()
                ),
            )
            .hint("more shared items, in more groups, or another --seed"));
        }
        Ok(split)
    }

    fn heldout_groups(&self) -> usize {
        self.groups.last().map_or(0, |&last| last as usize + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side<'a>(values: &'a [f32], ids: &'a Ids, groups: &'a [String]) -> AlignSide<'a> {
        AlignSide {
            rows: Rows::new(values, 1),
            ids,
            groups: Some(groups),
            queries: None,
        }
    }

    /// 200 documents of five chunks: no document is in two parts, and the parts are six, two and two tenths.
    #[test]
    fn no_document_is_on_both_sides_of_the_split() {
        let ids: Ids = (0..1000).map(|i| format!("chunk {i}")).collect();
        let groups: Vec<String> = (0..1000).map(|i| format!("document {}", i % 200)).collect();
        let values = vec![1.0; 1000];
        let shared: Vec<(u32, u32)> = (0..1000).map(|i| (i, i)).collect();
        let split = Split::new(&side(&values, &ids, &groups), &shared, 1000, 3).unwrap();
        let documents = |pairs: &[(u32, u32)]| -> std::collections::BTreeSet<u32> {
            pairs.iter().map(|p| p.0 % 200).collect()
        };
        let parts = [&split.fit, &split.validation, &split.heldout].map(|p| documents(p));
        for (i, a) in parts.iter().enumerate() {
            for b in &parts[i + 1..] {
                assert!(a.is_disjoint(b));
            }
        }
        // Binomial: 200 documents at 0.6, sd 7; four of them.
        assert!((92..=148).contains(&parts[0].len()), "{}", parts[0].len());
        assert_eq!(split.heldout_groups(), parts[2].len());
        assert_eq!(split.heldout.len(), 5 * parts[2].len());
        // Negative control: split by id, documents stand on both sides.
        let ungrouped = AlignSide {
            groups: None,
            ..side(&values, &ids, &groups)
        };
        let split = Split::new(&ungrouped, &shared, 1000, 3).unwrap();
        assert!(!documents(&split.fit).is_disjoint(&documents(&split.heldout)));
        // A limit cuts between documents.
        let few = Split::new(&side(&values, &ids, &groups), &shared, 301, 3).unwrap();
        let used = few.fit.len() + few.validation.len() + few.heldout.len();
        assert_eq!(used, 305);
    }
}
