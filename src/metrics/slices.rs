//! Where the drift is: every measure within slices of the rows, and the slices that stand out.
//!
//! Slices are topics found by clustering, values of metadata columns, or the columns' values crossed
//! ([`Slicing`]). Four questions are asked of each: did its share change, did its contents, did its items
//! keep their vectors and neighbours as the rest did, and do its queries find what they did? All answers
//! of an audit are one family of tests, corrected for their number (Benjamini & Hochberg); slices are
//! ranked by the end of the interval that is nearest to no effect, never by p-value.

use schemars::JsonSchema;
use serde::Serialize;

use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::mmd::{self, Decomposition, Partition, Sample, SliceMmd, SlicedMmdConfig};
use crate::stats::correction::benjamini_hochberg;
use crate::stats::counts;
use crate::stats::distribution;
use crate::stats::paired::{PairedDifference, Resampling};

mod centroids;
mod concentration;
mod items;
mod shares;
mod slicing;

pub use centroids::SliceCentroids;
pub use concentration::{Concentration, DriftShared};
pub use items::SliceMean;
pub use shares::{ShareChange, ShareState};
pub use slicing::{ColumnValues, NOWHERE, Slicing, SlicingKind};

use items::{ItemTable, Units};

/// Fewest queries of a slice that are compared.
const MIN_QUERIES: usize = 5;

/// How slices are measured.
#[derive(Debug, Clone, PartialEq)]
pub struct SlicesConfig {
    /// False discovery rate over all tests.
    pub false_discovery_rate: f64,
    /// Rows on either side that make a slice.
    pub min_rows: usize,
    /// Random relabellings of a slice's MMD test.
    pub permutations: u32,
    /// σ of the MMD's kernel; `None`: median distance over pooled pairs.
    pub bandwidth: Option<f64>,
    /// Seed of everything random.
    pub seed: u64,
}

/// Both sets and what was measured of their items.
#[derive(Debug, Clone, Copy)]
pub struct SlicedSets<'a> {
    /// The reference; its groups are rows that depend on each other.
    pub reference: Sample<'a>,
    /// The current set. Ids that mean nothing must differ from the reference's.
    pub current: Sample<'a>,
    /// (reference row, current row) of every shared id.
    pub shared: &'a [(u32, u32)],
    /// Whether both sets lie in one space.
    pub one_space: bool,
    /// Whether most items are shared: contents then differ with any change of model, and items are compared
    /// one by one instead of tested for it.
    pub paired: bool,
    /// Cosine of each shared item's two vectors.
    pub paired_cosine: Option<&'a [f64]>,
    /// Neighbours that items keep.
    pub overlap: Option<ItemOverlap<'a>>,
    /// nDCG@10 of every golden query, current − reference.
    pub ndcg: Option<&'a [f64]>,
}

/// overlap@k of items.
#[derive(Debug, Clone, Copy)]
pub struct ItemOverlap<'a> {
    /// k.
    pub k: usize,
    /// Items queried, as places among the shared ids.
    pub items: &'a [u32],
    /// Their overlaps.
    pub overlap: &'a [f64],
}

/// Where the drift is.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Slices {
    /// False discovery rate: of the slices called changed, this share at most is expected to be so by
    /// chance.
    pub false_discovery_rate: f64,
    /// Tests that were corrected for each other.
    pub tests: usize,
    /// Rows on either side that make a slice.
    pub min_rows: usize,
    /// σ of the kernel that contents are compared by.
    pub bandwidth: Option<f64>,
    /// k of the overlaps.
    pub overlap_k: Option<usize>,
    /// The slices that stand out, one per measure at most: queries that find less, items that lose more
    /// neighbours or whose vectors moved more than the rest's, shares and contents that changed most.
    pub worst: Vec<WorstSlice>,
    /// One entry per slicing: clusters, columns, crossed columns.
    pub partitions: Vec<SlicedBy>,
}

/// One slicing and what was found in its slices.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SlicedBy {
    /// The column or columns, or `cluster`.
    pub by: String,
    /// What parts the rows.
    pub kind: SlicingKind,
    /// How far all shares moved; `null` where current rows cannot be told apart.
    pub shares: Option<ShareDistances>,
    /// What of the MMD² lies in shares, and what in contents.
    pub mmd2_decomposition: Option<DriftParts>,
    /// The same of the squared distance of the means as they stand: what chance adds to it is content.
    pub centroid_decomposition: Option<DriftParts>,
    /// The slice that holds most of the drift: of the items' displacement where most items are shared, else of
    /// the MMD². Null where nothing moved, where the MMD² may as well be 0, or where no slice adds a quarter of
    /// it.
    pub concentration: Option<Concentration>,
    /// Which items the lost neighbours belong to.
    pub lost_neighbours: Option<LostNeighbours>,
    /// The slices, most rows first.
    pub slices: Vec<Slice>,
    /// What is too rare for a slice.
    pub rare: RareValues,
}

/// Rows of values too rare for a slice.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct RareValues {
    /// How many values.
    pub values: usize,
    /// Reference rows that have them.
    pub n_reference: u64,
    /// Current rows that have them.
    pub n_current: Option<u64>,
}

/// Distances between the slices' shares on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ShareDistances {
    /// G = 2 Σ O ln(O/E) of the table of counts.
    pub g: Option<f64>,
    /// Cramér's V of the same table, in [0, 1].
    pub cramers_v: Option<f64>,
    /// Cohen's w of current's shares against the reference's.
    pub cohens_w: Option<f64>,
    /// Jensen–Shannon divergence in nats.
    pub js_nats: Option<f64>,
    /// Population stability index.
    pub psi: Option<f64>,
    /// Mean of `psi` between samples of one distribution; for independent rows only.
    pub psi_by_chance: Option<f64>,
}

/// A squared distance as mix (other shares) and content (other contents at the same shares).
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct DriftParts {
    /// The squared distance; may be slightly negative where it is an unbiased estimate of 0.
    pub total: f64,
    /// What changed shares make of it.
    pub mix: f64,
    /// What changed contents make of it; `mix` + `content` = `total`.
    pub content: f64,
    /// What contents alone would make at the reference's shares; `null` where a slice is gone.
    pub content_at_reference_shares: Option<f64>,
    /// The same at current's shares; `null` where a slice is new.
    pub content_at_current_shares: Option<f64>,
    /// What shares alone would make with the reference's contents; `null` where a slice is new.
    pub mix_of_reference_contents: Option<f64>,
}

/// 1 − overlap@k as the part of items that changed their slice and the part of those that stayed.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct LostNeighbours {
    /// Share of neighbours that items lose, on average.
    pub loss: f64,
    /// Share of items whose slice changed.
    pub moved_share: f64,
    /// Loss of those; `null` where there is none.
    pub moved_loss: Option<f64>,
    /// Loss of the others.
    pub stayed_loss: Option<f64>,
    /// What those that moved add to `loss`: share × loss.
    pub mix: f64,
    /// What the others add; `mix` + `content` = `loss`.
    pub content: f64,
}

/// One slice.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Slice {
    /// The value, the range, or the number of the cluster.
    pub name: String,
    /// Name with what it is a value of: `section = plain`.
    pub label: String,
    /// Ids of the rows nearest to a cluster's centre.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub representatives: Vec<String>,
    /// Reference rows.
    pub n_reference: u64,
    /// Current rows; `null` where they cannot be told apart.
    pub n_current: Option<u64>,
    /// Items of this slice (in the reference) that are on both sides.
    pub n_shared: u64,
    /// How its share changed.
    pub share: Option<ShareChange>,
    /// How its contents changed.
    pub content: Option<ContentChange>,
    /// Distance of its means.
    pub centroid: Option<SliceCentroids>,
    /// Mean cosine of its items' two vectors.
    pub paired_cosine: Option<SliceMean>,
    /// Mean overlap@k of its items.
    pub overlap: Option<SliceMean>,
    /// nDCG@10 of its golden queries.
    pub ndcg_at_10: Option<SliceQueries>,
}

/// Change of what is in a slice.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ContentChange {
    /// Unbiased MMD² of its current against its reference rows, with a kernel of random features that
    /// estimates the RBF kernel: about 2 to 8 % off.
    pub mmd2_unbiased: Option<f64>,
    /// Its 95 % interval; `null` with fewer than 8 groups on a side.
    pub ci95: Option<[f64; 2]>,
    /// √(max(MMD², 0)/M2): as if this share of the slice had been replaced by a foreign topic.
    pub eps_eq: Option<f64>,
    /// Its 95 % interval.
    pub eps_eq_ci95: Option<[f64; 2]>,
    /// Permutation p-value of "one distribution within the slice"; `null` for paired sets, where any change
    /// of model rejects it.
    pub p_value: Option<f64>,
    /// The same, corrected over all tests.
    pub p_value_fdr: Option<f64>,
    /// What the slice adds to the MMD² of the whole; all slices and the rare values add up to
    /// `mmd2_decomposition.total`.
    pub contribution: f64,
}

/// Golden queries of a slice.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SliceQueries {
    /// How many.
    pub n: u64,
    /// current − reference.
    pub difference: PairedDifference,
    /// Its p-value, corrected over all tests.
    pub p_value_fdr: f64,
}

/// What a slice can be worst at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SliceMeasure {
    /// Change of nDCG@10 of its queries.
    NdcgAt10,
    /// overlap@k of its items, minus that of the rest.
    Overlap,
    /// Mean cosine of its items' two vectors, minus that of the rest.
    PairedCosine,
    /// MMD² of its contents.
    Content,
    /// Its share, current − reference.
    Share,
}

/// The slice that stands out most by one measure.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct WorstSlice {
    /// The measure.
    pub measure: SliceMeasure,
    /// The slicing.
    pub by: String,
    /// The slice.
    pub name: String,
    /// Name with what it is a value of.
    pub label: String,
    /// What stands out: see the measure.
    pub effect: f64,
    /// Its 95 % interval.
    pub ci95: Option<[f64; 2]>,
    /// Its p-value, corrected over all tests.
    pub p_value_fdr: f64,
    /// Rows, items or queries behind it.
    pub n: u64,
    /// Slices that stand out by this measure, this one among them.
    pub slices: usize,
}

/// Measures every slice of every slicing.
///
/// Which measures there are depends on the sets: shares where both sets' slices are known, contents where
/// they lie in one space, items where they are shared, queries where their slices are known. A slice's
/// interval is its own; that many intervals miss as single ones do.
///
/// The result does not depend on the order of the rows.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If a slicing is for other sets.
pub fn slices(
    engine: &Engine,
    sets: &SlicedSets<'_>,
    slicings: &[Slicing],
    config: &SlicesConfig,
) -> Result<Slices> {
    let units = Units::new(sets);
    let contents = contents(engine, sets, slicings, config)?;
    let mut contents_left = contents.partitions.into_iter();
    let mut partitions: Vec<SlicedBy> = slicings
        .iter()
        .map(|slicing| {
            let comparable = sets.one_space && slicing.current.is_some();
            let found = comparable.then(|| contents_left.next()).flatten();
            sliced_by(sets, &units, slicing, found, config)
        })
        .collect();
    let tests = correct(&mut partitions, config.false_discovery_rate);
    Ok(Slices {
        false_discovery_rate: config.false_discovery_rate,
        tests,
        min_rows: config.min_rows,
        bandwidth: contents.bandwidth,
        overlap_k: sets.overlap.map(|found| found.k),
        worst: worst(&partitions, config.false_discovery_rate),
        partitions,
    })
}

impl Slices {
    /// The slice behind an entry of `worst`.
    pub fn slice_of(&self, worst: &WorstSlice) -> Option<&Slice> {
        let partition = self.partitions.iter().find(|p| p.by == worst.by)?;
        partition.slices.iter().find(|s| s.name == worst.name)
    }

    /// Fills in effects from their scale, the M2 of [`mmd::Effect`].
    pub fn set_scale(&mut self, m2: f64) {
        let eps = |mmd2: f64| (mmd2.max(0.0) / m2).sqrt();
        for slice in self.partitions.iter_mut().flat_map(|p| &mut p.slices) {
            if let Some(content) = &mut slice.content {
                content.eps_eq = content.mmd2_unbiased.map(eps);
                content.eps_eq_ci95 = content.ci95.map(|ci| ci.map(eps));
            }
        }
    }
}

/// What is known of the contents, for slicings of which current's slices are known.
struct Contents {
    bandwidth: Option<f64>,
    partitions: Vec<mmd::PartitionMmd>,
}

fn contents(
    engine: &Engine,
    sets: &SlicedSets<'_>,
    slicings: &[Slicing],
    config: &SlicesConfig,
) -> Result<Contents> {
    let nothing = Contents {
        bandwidth: None,
        partitions: Vec::new(),
    };
    let few = sets.reference.rows.len().min(sets.current.rows.len()) < 2;
    let partitions: Vec<Partition<'_>> = slicings
        .iter()
        .filter_map(|slicing| {
            Some(Partition {
                reference: &slicing.reference,
                current: slicing.current.as_ref()?,
                slices: slicing.names.len() + 1,
            })
        })
        .collect();
    if !sets.one_space || few || partitions.is_empty() {
        return Ok(nothing);
    }
    let mmd_config = SlicedMmdConfig {
        bandwidth: config.bandwidth,
        permutations: if sets.paired { 0 } else { config.permutations },
        seed: config.seed,
    };
    let found = mmd::sliced_mmd(
        engine,
        sets.reference,
        sets.current,
        &partitions,
        &mmd_config,
    )?;
    Ok(found.map_or(nothing, |found| Contents {
        bandwidth: Some(found.bandwidth),
        partitions: found.partitions,
    }))
}

fn sliced_by(
    sets: &SlicedSets<'_>,
    units: &Units,
    slicing: &Slicing,
    contents: Option<mmd::PartitionMmd>,
    config: &SlicesConfig,
) -> SlicedBy {
    let slices = slicing.names.len();
    let counts_of = |labels: &[u32]| -> Vec<u64> {
        let mut counts = vec![0; slices + 1];
        labels.iter().for_each(|&label| counts[label as usize] += 1);
        counts
    };
    let n_reference = counts_of(&slicing.reference);
    let n_current = slicing.current.as_deref().map(counts_of);
    let item_slices: Vec<u32> = sets
        .shared
        .iter()
        .map(|&(row, _)| slicing.reference[row as usize])
        .collect();
    let n_shared = counts_of(&item_slices);

    let shares = slicing
        .current
        .as_ref()
        .map(|current| shares::share_changes(sets, units, &slicing.reference, current, slices));
    let (centroids, centroid_decomposition) = match &slicing.current {
        Some(current) if sets.one_space => {
            let (per_slice, parts) =
                centroids::compare(sets, units, &slicing.reference, current, slices);
            (Some(per_slice), Some(parts))
        }
        _ => (None, None),
    };
    let means_of = |items: &[u32], values: &[f64], slices: usize| {
        let rows: Vec<u32> = items
            .iter()
            .map(|&item| sets.shared[item as usize].0)
            .collect();
        let labels: Vec<u32> = items
            .iter()
            .map(|&item| item_slices[item as usize])
            .collect();
        ItemTable::new(&labels, &rows, units, values, slices).means()
    };
    let means = |items: &[u32], values: &[f64]| means_of(items, values, slices);
    let every_item: Vec<u32> = (0..sets.shared.len() as u32).collect();
    let paired_cosine = sets.paired_cosine.map(|values| means(&every_item, values));
    let most_held = match (sets.paired, sets.paired_cosine) {
        (true, Some(values)) => {
            let cosines = means_of(&every_item, values, slices + 1);
            let found = concentration::of_displacement(&cosines, slices);
            found.map(|found| (DriftShared::Displacement, found))
        }
        (true, None) => None,
        (false, _) => {
            let held = contents.as_ref().map(|c| c.held.as_slice());
            let found = held.and_then(|held| concentration::of_mmd2(held, slices));
            found.map(|found| (DriftShared::Mmd2, found))
        }
    };
    let concentration = most_held.map(|(of, (slice, share, ci95))| {
        let part = |counts: &[u64]| counts[slice] as f64 / counts.iter().sum::<u64>().max(1) as f64;
        let current = n_current.as_deref();
        let (rows_share, n) = match of {
            DriftShared::Displacement => (part(&n_shared), n_shared[slice]),
            DriftShared::Mmd2 => (
                part(&n_reference).max(current.map_or(0.0, part)),
                n_reference[slice] + current.map_or(0, |counts| counts[slice]),
            ),
        };
        Concentration {
            name: slicing.names[slice].clone(),
            label: label(slicing, slice),
            of,
            share,
            ci95,
            rows_share,
            n,
        }
    });
    let overlap = sets.overlap.map(|found| means(found.items, found.overlap));
    let queries = sets
        .ndcg
        .zip(slicing.queries.as_deref())
        .map(|(ndcg, labels)| {
            (0..slices as u32)
                .map(|slice| slice_queries(ndcg, labels, slice, config.seed))
                .collect::<Vec<_>>()
        });

    let at = |list: &Option<Vec<Option<SliceMean>>>, slice: usize| list.as_ref()?[slice].clone();
    SlicedBy {
        by: slicing.by.clone(),
        kind: slicing.kind,
        shares: n_current.as_ref().map(|n_current| {
            let (x, y) = (&n_reference, n_current);
            let [n, m] = [x, y].map(|counts| counts.iter().sum::<u64>());
            let categories = x.iter().zip(y).filter(|(a, b)| **a + **b > 0).count();
            let independent = sets.shared.is_empty() && sets.reference.groups.is_none();
            ShareDistances {
                g: counts::g_statistic(x, y),
                cramers_v: counts::cramers_v(x, y),
                cohens_w: counts::cohens_w(x, y),
                js_nats: distribution::jensen_shannon_nats(x, y),
                psi: distribution::psi(x, y),
                psi_by_chance: independent.then(|| distribution::psi_null_mean(categories, n, m)),
            }
        }),
        mmd2_decomposition: contents.as_ref().map(|c| parts(&c.decomposition)),
        centroid_decomposition: centroid_decomposition.as_ref().map(parts),
        concentration,
        lost_neighbours: sets
            .overlap
            .and_then(|found| lost_neighbours(sets, slicing, found)),
        slices: (0..slices)
            .map(|slice| Slice {
                name: slicing.names[slice].clone(),
                label: label(slicing, slice),
                representatives: slicing.representatives[slice].clone(),
                n_reference: n_reference[slice],
                n_current: n_current.as_ref().map(|counts| counts[slice]),
                n_shared: n_shared[slice],
                share: shares.as_ref().and_then(|shares| {
                    // A slice too small to be judged, such as a tiny cluster, has counts only.
                    let most = n_reference[slice].max(n_current.as_ref().map_or(0, |c| c[slice]));
                    (most as usize >= config.min_rows).then(|| shares[slice].clone())
                }),
                content: contents.as_ref().map(|contents| {
                    let small = n_reference[slice].min(n_current.as_ref().map_or(0, |c| c[slice]));
                    let judged = small as usize >= config.min_rows;
                    content_change(
                        &contents.slices[slice],
                        contents.decomposition.contributions[slice],
                        judged,
                    )
                }),
                centroid: centroids.as_ref().and_then(|c| c[slice].clone()),
                paired_cosine: at(&paired_cosine, slice),
                overlap: at(&overlap, slice),
                ndcg_at_10: queries.as_ref().and_then(|q| q[slice].clone()),
            })
            .collect(),
        rare: RareValues {
            values: slicing.rare_values,
            n_reference: n_reference[slices],
            n_current: n_current.as_ref().map(|counts| counts[slices]),
        },
    }
}

/// A slice's name with what it is a value of.
fn label(slicing: &Slicing, slice: usize) -> String {
    let name = &slicing.names[slice];
    match slicing.kind {
        SlicingKind::Clusters | SlicingKind::Crossed => name.clone(),
        SlicingKind::Values => format!("{} = {name}", slicing.by),
        SlicingKind::Ranges => format!("{} {name}", slicing.by),
    }
}

fn parts(found: &Decomposition) -> DriftParts {
    DriftParts {
        total: found.total,
        mix: found.mix,
        content: found.content,
        content_at_reference_shares: found.content_at_reference_shares,
        content_at_current_shares: found.content_at_current_shares,
        mix_of_reference_contents: found.mix_of_reference_contents,
    }
}

fn content_change(found: &SliceMmd, contribution: f64, judged: bool) -> ContentChange {
    ContentChange {
        mmd2_unbiased: found.mmd2,
        ci95: found.ci95,
        eps_eq: None,
        eps_eq_ci95: None,
        p_value: found.p_value.filter(|_| judged),
        p_value_fdr: None,
        contribution,
    }
}

fn slice_queries(ndcg: &[f64], labels: &[u32], slice: u32, seed: u64) -> Option<SliceQueries> {
    let of_slice = ndcg
        .iter()
        .zip(labels)
        .filter(|(_, label)| **label == slice);
    let differences: Vec<f64> = of_slice.map(|(&difference, _)| difference).collect();
    let resampling = Resampling {
        seed,
        ..Resampling::default()
    };
    (differences.len() >= MIN_QUERIES).then(|| SliceQueries {
        n: differences.len() as u64,
        difference: PairedDifference::new(&differences, &resampling),
        p_value_fdr: 1.0,
    })
}

fn lost_neighbours(
    sets: &SlicedSets<'_>,
    slicing: &Slicing,
    found: ItemOverlap<'_>,
) -> Option<LostNeighbours> {
    let current = slicing.current.as_ref()?;
    // Items and lost shares of those that stayed, and of those that moved.
    let (mut items, mut lost) = ([0.0f64; 2], [0.0f64; 2]);
    for (&item, overlap) in found.items.iter().zip(found.overlap) {
        let (x, y) = sets.shared[item as usize];
        let moved = usize::from(slicing.reference[x as usize] != current[y as usize]);
        items[moved] += 1.0;
        lost[moved] += 1.0 - overlap;
    }
    let all = items[0] + items[1];
    let mean = |part: usize| (items[part] > 0.0).then(|| lost[part] / items[part]);
    (all > 0.0).then(|| LostNeighbours {
        loss: (lost[0] + lost[1]) / all,
        moved_share: items[1] / all,
        moved_loss: mean(1),
        stayed_loss: mean(0),
        mix: lost[1] / all,
        content: lost[0] / all,
    })
}

/// Where the corrected p-value of a test goes.
type Corrected<'a> = Box<dyn FnMut(f64) + 'a>;

/// Corrects the p-values of all tests for each other; how many there are.
fn correct(partitions: &mut [SlicedBy], rate: f64) -> usize {
    let mut tests: Vec<(f64, Corrected<'_>)> = Vec::new();
    for slice in partitions.iter_mut().flat_map(|p| &mut p.slices) {
        if let Some(share) = &mut slice.share {
            tests.push((share.p_value, Box::new(move |p| share.judge(p, rate))));
        }
        if let Some(content) = &mut slice.content
            && let Some(p_value) = content.p_value
        {
            tests.push((p_value, Box::new(|p| content.p_value_fdr = Some(p))));
        }
        for mean in [&mut slice.paired_cosine, &mut slice.overlap]
            .into_iter()
            .flatten()
        {
            if let Some(p_value) = mean.p_value {
                tests.push((p_value, Box::new(|p| mean.p_value_fdr = Some(p))));
            }
        }
        if let Some(queries) = &mut slice.ndcg_at_10 {
            let p_value = queries.difference.p_value;
            tests.push((p_value, Box::new(|p| queries.p_value_fdr = p)));
        }
    }
    let p_values: Vec<f64> = tests.iter().map(|(p, _)| *p).collect();
    let corrected = benjamini_hochberg(&p_values);
    for ((_, set), p) in tests.iter_mut().zip(&corrected) {
        set(*p);
    }
    drop(tests);
    corrected.len()
}

/// How much more a cluster, or a cell of two columns, must stand out to be named instead of a column's
/// value: that says what it is.
const PREFER_VALUES: f64 = 1.1;

/// The slices that stand out.
fn worst(partitions: &[SlicedBy], rate: f64) -> Vec<WorstSlice> {
    let measures = [
        SliceMeasure::NdcgAt10,
        SliceMeasure::Overlap,
        SliceMeasure::PairedCosine,
        SliceMeasure::Share,
        SliceMeasure::Content,
    ];
    let standing_out = |measure: SliceMeasure| {
        partitions.iter().flat_map(move |partition| {
            let found = partition.slices.iter();
            let found = found.filter_map(move |slice| slice.stands_out(measure, rate));
            found.map(move |worst| (partition.kind, &partition.by, worst))
        })
    };
    measures
        .into_iter()
        .filter_map(|measure| {
            let mut best: Option<(f64, WorstSlice)> = None;
            for (kind, by, found) in standing_out(measure) {
                let [low, high] = found.ci95.unwrap_or([found.effect; 2]);
                // The end nearest to no effect: small slices with wide intervals come last.
                let sure = if found.effect > 0.0 { low } else { -high };
                let weight = match kind {
                    SlicingKind::Values | SlicingKind::Ranges => PREFER_VALUES,
                    SlicingKind::Clusters | SlicingKind::Crossed => 1.0,
                };
                if best
                    .as_ref()
                    .is_none_or(|(known, _)| sure * weight > *known)
                {
                    let by = by.clone();
                    best = Some((sure * weight, WorstSlice { by, ..found }));
                }
            }
            best.map(|(_, worst)| WorstSlice {
                slices: standing_out(measure).count(),
                ..worst
            })
        })
        .collect()
}

impl Slice {
    /// The slice by a measure, if it stands out: for the worse where the measure knows worse.
    fn stands_out(&self, measure: SliceMeasure, rate: f64) -> Option<WorstSlice> {
        let mean = |found: &Option<SliceMean>| {
            let found = found.as_ref()?;
            let difference = found.difference?;
            let worse = difference < 0.0;
            worse.then_some((
                difference,
                found.difference_ci95,
                found.p_value_fdr?,
                found.n,
            ))
        };
        let rows = self.n_reference + self.n_current.unwrap_or(0);
        let (effect, ci95, p_value_fdr, n) = match measure {
            SliceMeasure::NdcgAt10 => {
                let queries = self.ndcg_at_10.as_ref()?;
                let difference = &queries.difference;
                (difference.mean < 0.0).then_some((
                    difference.mean,
                    difference.ci95,
                    queries.p_value_fdr,
                    queries.n,
                ))?
            }
            SliceMeasure::Overlap => mean(&self.overlap)?,
            SliceMeasure::PairedCosine => mean(&self.paired_cosine)?,
            SliceMeasure::Content => {
                let content = self.content.as_ref()?;
                (
                    content.mmd2_unbiased?,
                    content.ci95,
                    content.p_value_fdr?,
                    rows,
                )
            }
            SliceMeasure::Share => {
                let share = self.share.as_ref()?;
                (
                    share.difference,
                    Some(share.difference_ci95),
                    share.p_value_fdr,
                    rows,
                )
            }
        };
        (p_value_fdr <= rate).then(|| WorstSlice {
            measure,
            by: String::new(),
            name: self.name.clone(),
            label: self.label.clone(),
            effect,
            ci95,
            p_value_fdr,
            n,
            slices: 1,
        })
    }
}
