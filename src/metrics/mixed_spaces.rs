//! Mixed vector spaces: rows of another model or pipeline hidden in one set, found from the vectors alone.
//!
//! A model's vectors leave most directions of their space nearly unused, and all its topics leave the same
//! ones. Rows of another model lie to them as a random rotation would turn them: half of their length falls
//! where the others have next to none. That is how they are found; that the difference is one of
//! spaces, not of topics, is then proven against a known null: for symmetric A and B without trace, of length
//! 1, and a random rotation Q, tr(A Q B Qᵀ) has mean 0 and variance 2 / ((d − 1)(d + 2)).

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use crate::embeddings::{F32Rows, Ids, Rows};
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::metrics::kmeans::kmeans;
use crate::stats::linalg::{Matrix, SymmetricEigen};

/// Dimension and rows below which nothing can be said: the null needs room, moments need rows.
const LEAST_DIM: usize = 32;
const LEAST_ROWS: usize = 200;
/// Rows that are searched, drawn by the hash of their id; all are then classified.
const SEARCHED_ROWS: usize = 5_000;
/// Rows of a minority below which its directions are noise.
const LEAST_MINORITY: usize = 20;
/// Rows converted and multiplied at once.
const CHUNK: usize = 16_384;
/// Log-odds of a foreign row, as a share of those of the core's median row, at least: stray rows of the majority
/// are likelier in the other group too, but by less.
const MIN_ODDS_SHARE: f64 = 0.62;
/// Rows of another space lie to the mean of the others as at random, with a cosine of standard deviation 1/√d about
/// the group's; stray rows of the majority point its way. Beyond this many of them a row is stray.
const MAX_MEAN_Z: f64 = 3.0;
/// Times that stray rows are left out and the groups taken anew.
const REFINEMENTS: usize = 2;
/// Passes that sort rows into two spaces.
const PASSES: usize = 8;
/// Shares of the rows that are left out of the majority at first: those farthest from it. None finds small
/// groups, nearly half finds large ones, which hide their own distance.
const TRIMMED: [f64; 4] = [0.0, 0.08, 0.25, 0.45];
/// Passes that settle what is trimmed.
const TRIMMING_PASSES: usize = 4;
/// Share of a row's length, squared, in the half of the directions that the others use least: a foreign row's
/// is about a half, and no group below this is looked at more closely.
const MIN_FOREIGN_ENERGY: f64 = 0.3;
/// Rows near the boundary, as a share of those beyond it, from which there are no two groups.
const MAX_BOUNDARY_SHARE: f64 = 0.25;
/// Half the width of the boundary.
const BOUNDARY: f64 = 0.03;
/// |z| of agreement up to which a minority lies as at random. Topics of one model were above 9 where it
/// was measured, spaces of other models within 4.
const MAX_FOREIGN_Z: f64 = 5.0;
/// Agreement of the minority's halves from which it has directions of its own; noise and single tight
/// topics have none.
const MIN_OWN_Z: f64 = 6.0;
/// Topics of the majority that are compared with the rest of it, and the agreement that three quarters of them
/// must show, as a share of that of rows of all topics: where topics have directions of their own, a group
/// that has some proves nothing. (0.43 and more where models and corpora are real, 0.13 at most where made so.)
const TOPICS: usize = 12;
const MIN_TOPIC_SHARE: f64 = 0.3;
/// Participation ratio of the minority, as a share of that of as many majority rows, from which it is no single
/// topic: another model has topics too.
const MIN_DIVERSITY: f64 = 0.5;
/// Agreement of as many majority rows with the others from which absence of it means anything.
const MIN_CONTROL_Z: f64 = 15.0;
/// Rows of another vector space in one set.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct MixedSpaces {
    /// Rows classified: all.
    pub rows: u64,
    /// Rows among which a second space was searched for, drawn by the hash of their id.
    pub searched_rows: u64,
    /// Rows that come from another space; 0 where none was found.
    pub foreign_rows: u64,
    /// Their share of the rows.
    pub foreign_share: f64,
    /// Agreement of the directions of the group looked at with those of the other rows, in standard
    /// deviations of a random rotation: within ±`max_foreign_z` for another space, far above 0 for a
    /// topic. `null` where no group stood out.
    pub agreement_z: Option<f64>,
    /// |agreement_z| up to which the group is taken for another space.
    pub max_foreign_z: f64,
    /// Agreement of the group's halves with each other: high where it is a space of its own.
    pub own_agreement_z: Option<f64>,
    /// Agreement of as many of the other rows with the rest of them: what the group would show if it
    /// belonged.
    pub control_agreement_z: Option<f64>,
    /// Median agreement of the other rows' topics with what is left of these: what a topic shows.
    pub topic_agreement_z: Option<f64>,
    /// (Σλ)²/Σλ² over the eigenvalues of the group's covariance, as a share of the same for as many of the other
    /// rows: near 1 for another model's texts, small for a topic with directions of its own.
    pub diversity_ratio: Option<f64>,
    /// Their ids, in the order of the rows.
    pub foreign_ids: Vec<String>,
    /// Numbers of all foreign rows, ascending.
    #[serde(skip)]
    pub foreign: Vec<u32>,
}

/// Looks for a minority of rows that live in another space.
///
/// Rows that use directions which the others leave unused are a candidate, if hardly any row lies between
/// them and the others. Each row then goes to the group whose angular Gaussian distribution makes it likelier,
/// until nothing moves (8 passes at most). The smaller group is another space if its directions agree
/// with the others' no better than a random rotation's, while its own halves agree, and while rows of the
/// larger group agree with their like. `None` for fewer than 200 rows or 32 dimensions.
///
/// Found in real sets of 2,000 to 5,000 sentence embeddings, 384 dimensions, from 1 to 40 %; see
/// docs/mixed-spaces.md.
///
/// # Errors
/// The device fails, or eigenvalues do not converge.
///
/// # Panics
/// If there is not one id per row.
pub fn mixed_spaces(
    engine: &Engine,
    rows: Rows<'_>,
    ids: &Ids,
    seed: u64,
) -> Result<Option<MixedSpaces>> {
    assert_eq!(rows.len(), ids.len(), "one id per row");
    if rows.len() < LEAST_ROWS || rows.dim() < LEAST_DIM {
        return Ok(None);
    }
    let mut drawn: Vec<usize> = (0..rows.len()).collect();
    if rows.len() > SEARCHED_ROWS {
        drawn.sort_by_cached_key(|&row| (ids.hash(row, seed), row));
        drawn.truncate(SEARCHED_ROWS);
        drawn.sort_unstable();
    }
    let gathered = rows.gather(drawn.iter().copied());
    let sample = unit_rows(F32Rows::new(&gathered, rows.dim()));
    let sample = F32Rows::new(&sample, rows.dim());
    let mut found: Option<Group> = None;
    for members in candidates(engine, sample)? {
        if let Some(group) = settled_group(engine, sample, members)? {
            let foreign = group.is_foreign();
            if foreign || found.is_none() {
                found = Some(group);
            }
            if foreign {
                break;
            }
        }
    }
    let mut foreign: Vec<u32> = Vec::new();
    if let Some(group) = found.as_ref().filter(|group| group.is_foreign()) {
        for (first, values) in rows.chunks(CHUNK) {
            let unit = unit_rows(F32Rows::new(&values, rows.dim()));
            let more = group.log_odds(engine, F32Rows::new(&unit, rows.dim()))?;
            let belong = (more.iter().zip(unit.chunks_exact(rows.dim())))
                .zip(first as u32..)
                .filter(|((odds, row), _)| group.edge.admits(**odds, row));
            foreign.extend(belong.map(|(_, row)| row));
        }
    }
    Ok(Some(MixedSpaces {
        rows: rows.len() as u64,
        searched_rows: drawn.len() as u64,
        foreign_rows: foreign.len() as u64,
        foreign_share: foreign.len() as f64 / rows.len() as f64,
        agreement_z: found.as_ref().map(|g| g.agreement),
        max_foreign_z: MAX_FOREIGN_Z,
        own_agreement_z: found.as_ref().map(|g| g.own),
        control_agreement_z: found.as_ref().map(|g| g.control),
        topic_agreement_z: found.as_ref().and_then(|g| g.topics),
        diversity_ratio: found.as_ref().map(|g| g.diversity),
        foreign_ids: foreign
            .iter()
            .map(|&row| ids.get(row as usize).to_owned())
            .collect(),
        foreign,
    }))
}

/// A group of rows against all others.
struct Group {
    density: Density,
    others: Density,
    edge: Edge,
    agreement: f64,
    own: f64,
    control: f64,
    diversity: f64,
    /// Measured only where all else says that the group is foreign.
    topics: Option<f64>,
}

impl Group {
    fn is_foreign(&self) -> bool {
        self.seems_foreign()
            && self
                .topics
                .is_some_and(|z| z >= MIN_TOPIC_SHARE * self.control)
    }

    fn seems_foreign(&self) -> bool {
        self.agreement.abs() <= MAX_FOREIGN_Z
            && self.own >= MIN_OWN_Z
            && self.control >= MIN_CONTROL_Z
            && self.diversity >= MIN_DIVERSITY
    }

    /// Log-likelihood of each row in the group less that among the others.
    fn log_odds(&self, engine: &Engine, unit: F32Rows<'_>) -> Result<Vec<f64>> {
        let mut odds = self.density.log_likelihoods(engine, unit)?;
        let others = self.others.log_likelihoods(engine, unit)?;
        odds.iter_mut()
            .zip(others)
            .for_each(|(own, other)| *own -= other);
        Ok(odds)
    }
}

/// Where a group ends.
struct Edge {
    /// Log-odds from which a row belongs to it.
    least_odds: f64,
    /// Direction of the others' mean, of length 1; 0 where they have none.
    mean: Vec<f32>,
    /// Cosine with it up to which a row may belong to the group.
    most_cosine: f64,
}

impl Edge {
    /// Of a group with its core, most of which surely belongs to it.
    fn new(unit: F32Rows<'_>, members: &[usize], core: &[usize], least_odds: f64) -> Self {
        let mut sums = vec![0.0; unit.dim()];
        for row in complement(members, unit.len()) {
            let row = unit.row(row).iter();
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, &v)| *sum += f64::from(v));
        }
        let length = sums
            .iter()
            .map(|v| v * v)
            .sum::<f64>()
            .sqrt()
            .max(f64::MIN_POSITIVE);
        let mean: Vec<f32> = sums.iter().map(|v| (v / length) as f32).collect();
        let mut cosines: Vec<f64> = core
            .iter()
            .map(|&row| score::dot(unit.row(row), &mean))
            .collect();
        cosines.sort_unstable_by(f64::total_cmp);
        Self {
            least_odds: least_odds.max(0.0),
            most_cosine: cosines[cosines.len() / 2] + MAX_MEAN_Z / (unit.dim() as f64).sqrt(),
            mean,
        }
    }

    fn admits(&self, odds: f64, row: &[f32]) -> bool {
        odds > self.least_odds && score::dot(row, &self.mean) <= self.most_cosine
    }
}

/// Groups of rows that may be another space, the clearest first.
fn candidates(engine: &Engine, unit: F32Rows<'_>) -> Result<Vec<Vec<usize>>> {
    let n = unit.len();
    let whole = Majority::of(engine, unit, None)?;
    // Far from all rows together: unused directions count for much.
    let distances = whole.distances(engine, unit)?;
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| distances[a].total_cmp(&distances[b]).then(a.cmp(&b)));
    let trial = |trimmed: f64| {
        let mut kept = vec![true; n];
        let left_out = (n as f64 * trimmed) as usize;
        order[n - left_out..]
            .iter()
            .for_each(|&row| kept[row] = false);
        settled_candidate(engine, unit, kept)
    };
    // Threads of their own: on the engine's pool they would wait for passes that wait for the pool.
    let trials: Vec<Result<Option<Candidate>>> = std::thread::scope(|scope| {
        let trials = TRIMMED.map(|trimmed| scope.spawn(move || trial(trimmed)));
        let join = trials.map(std::thread::ScopedJoinHandle::join);
        join.map(|found| found.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .into()
    });
    let mut found = Vec::new();
    for trial in trials {
        found.extend(trial?);
    }
    // The largest group with a clear boundary: a part of it has one as well.
    found.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    found.dedup_by(|a, b| a.members == b.members);
    Ok(found
        .into_iter()
        .map(|candidate| candidate.members)
        .collect())
}

struct Candidate {
    members: Vec<usize>,
    /// Members less the rows at the boundary.
    weight: f64,
}

/// The rows beyond the clearest boundary in the use of directions that the kept rows leave unused, these
/// being taken anew until they settle.
fn settled_candidate(
    engine: &Engine,
    unit: F32Rows<'_>,
    mut kept: Vec<bool>,
) -> Result<Option<Candidate>> {
    let n = unit.len();
    let mut last = None;
    for _ in 0..TRIMMING_PASSES {
        if 2 * kept.iter().filter(|kept| **kept).count() < n {
            return Ok(None);
        }
        let energies = Majority::of(engine, unit, Some(&kept))?.unused_energies(engine, unit)?;
        let Some((boundary, share)) = clearest_boundary(&energies) else {
            return Ok(None);
        };
        let next: Vec<bool> = energies.iter().map(|&energy| energy < boundary).collect();
        let settled = next == kept;
        kept = next;
        let members: Vec<usize> = (0..n).filter(|&row| !kept[row]).collect();
        let mut of_members: Vec<f64> = members.iter().map(|&row| energies[row]).collect();
        of_members.sort_unstable_by(f64::total_cmp);
        let median = of_members[of_members.len() / 2];
        last = (median >= MIN_FOREIGN_ENERGY
            && share <= MAX_BOUNDARY_SHARE
            && members.len() >= LEAST_MINORITY)
            .then_some(Candidate {
                weight: members.len() as f64 * (1.0 - share),
                members,
            });
        if settled {
            break;
        }
    }
    Ok(last)
}

/// Where fewest rows lie, as a share of those beyond; `None` where no boundary leaves a minority.
fn clearest_boundary(energies: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = energies.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len();
    let below = |bound: f64| sorted.partition_point(|&energy| energy < bound);
    let boundaries = (12..46).map(|percent| f64::from(percent) / 100.0);
    boundaries
        .filter_map(|boundary| {
            let beyond = n - below(boundary);
            let near = below(boundary + BOUNDARY) - below(boundary - BOUNDARY);
            (beyond >= LEAST_MINORITY / 2 && 2 * beyond <= n)
                .then(|| (boundary, near as f64 / beyond as f64))
        })
        .min_by(|a, b| a.1.total_cmp(&b.1))
}

/// Directions of most rows, from the least used to the most.
struct Majority {
    mean: Vec<f32>,
    /// One direction per row, least used first.
    basis: Matrix,
    /// Mean square along each.
    variances: Vec<f64>,
}

impl Majority {
    /// Of the rows that are kept, or all.
    fn of(engine: &Engine, unit: F32Rows<'_>, kept: Option<&[bool]>) -> Result<Self> {
        let members: Vec<usize> = (0..unit.len())
            .filter(|&i| kept.is_none_or(|kept| kept[i]))
            .collect();
        let values = Rows::from(unit).gather(members.iter().copied());
        let part = Rows::new(&values, unit.dim());
        let gram = engine.gram(part, part)?;
        let n = members.len() as f64;
        let mut scatter = Matrix::new(unit.dim(), unit.dim(), gram.products);
        scatter.add_outer(-1.0 / n, &gram.x_sums, &gram.x_sums);
        let eigen = eigen(&scatter.scaled(1.0 / n))?;
        let d = unit.dim();
        let largest_first = eigen.vectors.transpose();
        let reversed = (0..d).rev().flat_map(|i| largest_first.row(i)).copied();
        Ok(Self {
            mean: gram.x_sums.iter().map(|sum| (sum / n) as f32).collect(),
            basis: Matrix::new(d, d, reversed.collect()),
            variances: eigen.values.iter().rev().map(|v| v.max(0.0)).collect(),
        })
    }

    fn centred(&self, unit: F32Rows<'_>) -> Vec<f32> {
        let mut centred = unit.values().to_vec();
        centred.par_chunks_exact_mut(unit.dim()).for_each(|row| {
            row.iter_mut()
                .zip(&self.mean)
                .for_each(|(v, mean)| *v -= mean);
        });
        centred
    }

    /// Per row, the share of its squared deviation from the mean in the less used half of the directions.
    fn unused_energies(&self, engine: &Engine, unit: F32Rows<'_>) -> Result<Vec<f64>> {
        let dim = unit.dim();
        let centred = self.centred(unit);
        let unused = Matrix::new(dim / 2, dim, self.basis.values()[..dim / 2 * dim].to_vec());
        let centred = F32Rows::new(&centred, dim);
        let mut energies = quadratic_forms(engine, centred, &unused, &vec![1.0; dim / 2])?;
        energies
            .iter_mut()
            .zip(centred.iter())
            .for_each(|(energy, row)| {
                *energy /= score::dot(row, row).max(f64::MIN_POSITIVE);
            });
        Ok(energies)
    }

    /// Per row, the mean over directions of its squared deviation in units of theirs, the smallest of which are
    /// raised a little so that rounding does not decide.
    fn distances(&self, engine: &Engine, unit: F32Rows<'_>) -> Result<Vec<f64>> {
        let ridge = 0.02 * self.variances.iter().sum::<f64>() / self.variances.len() as f64;
        let weights: Vec<f64> = self
            .variances
            .iter()
            .map(|v| 1.0 / (v + ridge).max(f64::MIN_POSITIVE))
            .collect();
        let centred = self.centred(unit);
        quadratic_forms(
            engine,
            F32Rows::new(&centred, unit.dim()),
            &self.basis,
            &weights,
        )
    }
}

/// The smaller of the two groups that the rows fall into, from a first guess. `None` where too few are left.
fn settled_group(
    engine: &Engine,
    unit: F32Rows<'_>,
    mut members: Vec<usize>,
) -> Result<Option<Group>> {
    let (n, dim) = (unit.len(), unit.dim());
    let whole = engine.gram(unit.into(), unit.into())?.products;
    let densities = |members: &[usize]| -> Result<(Density, Density, Vec<f64>)> {
        let part = group_sums(engine, unit, members)?;
        let rest: Vec<f64> = whole.iter().zip(&part).map(|(a, b)| a - b).collect();
        let own = Density::of(&part, members.len(), dim)?;
        let others = Density::of(&rest, n - members.len(), dim)?;
        Ok((own, others, rest))
    };
    for _ in 0..PASSES {
        let (own, others, _) = densities(&members)?;
        let own = own.log_likelihoods(engine, unit)?;
        let others = others.log_likelihoods(engine, unit)?;
        let is_own = |&i: &usize| own[i] > others[i];
        let mut next: Vec<usize> = (0..n).filter(is_own).collect();
        if 2 * next.len() > n {
            next = (0..n).filter(|i| !is_own(i)).collect();
        }
        if next.len() < LEAST_MINORITY {
            return Ok(None);
        }
        let settled = next == members;
        members = next;
        if settled {
            break;
        }
    }
    // What the group is, its core says: stray rows of the majority gather at its edge, and leave when it
    // no longer counts them.
    let mut refined = 0;
    let (density, others_density, rest, mut core, edge) = loop {
        let (density, others_density, rest) = densities(&members)?;
        let own = density.log_likelihoods(engine, unit)?;
        let others = others_density.log_likelihoods(engine, unit)?;
        let odds = |row: usize| own[row] - others[row];
        let mut core = members.clone();
        core.sort_by(|&a, &b| odds(b).total_cmp(&odds(a)).then(a.cmp(&b)));
        core.truncate(members.len().div_ceil(2));
        let edge = Edge::new(
            unit,
            &members,
            &core,
            MIN_ODDS_SHARE * odds(core[core.len() / 2]),
        );
        if refined == REFINEMENTS {
            break (density, others_density, rest, core, edge);
        }
        refined += 1;
        let admitted = |&row: &usize| edge.admits(odds(row), unit.row(row));
        let next: Vec<usize> = (0..n).filter(admitted).collect();
        if next.len() < LEAST_MINORITY || 2 * next.len() > n {
            return Ok(None);
        }
        members = next;
    };
    core.sort_unstable();
    let mut others = complement(&members, n);
    let majority = log_directions(&moment(&rest, others.len(), dim))?.matrix();
    // Every s-th of the others: as many as the core has.
    let step = others.len().div_ceil(core.len());
    let control: Vec<usize> = others.drain(..).step_by(step).collect();
    let half = |odd: usize| -> Vec<usize> { core.iter().copied().skip(odd).step_by(2).collect() };
    let first = half(0);
    let sums = group_sums(engine, unit, &first)?;
    let own = log_directions(&moment(&sums, first.len(), dim))?;
    let of_core = scatter(engine, unit, &core)?;
    let of_control = scatter(engine, unit, &control)?;
    let mut group = Group {
        agreement: agreement(&majority, &of_core),
        own: agreement(&own.matrix(), &scatter(engine, unit, &half(1))?),
        control: agreement(&majority, &of_control),
        diversity: participation_ratio(&of_core) / participation_ratio(&of_control),
        topics: None,
        density,
        others: others_density,
        edge,
    };
    if group.seems_foreign() {
        group.topics = topic_agreement(engine, unit, &complement(&members, n), &rest)?;
    }
    Ok(Some(group))
}

/// Lower quartile over topics of some rows of their agreement with the rest of these; `sums` is Σ xxᵀ of all of them.
fn topic_agreement(
    engine: &Engine,
    unit: F32Rows<'_>,
    rows: &[usize],
    sums: &[f64],
) -> Result<Option<f64>> {
    let dim = unit.dim();
    let values = Rows::from(unit).gather(rows.iter().copied());
    let topics = kmeans(engine, Rows::new(&values, dim), TOPICS, 0)?;
    let mut agreements = Vec::new();
    for topic in 0..topics.sizes.len() as u32 {
        let of_topic = rows.iter().zip(&topics.assignment);
        let of_topic = of_topic.filter(|(_, of)| **of == topic);
        let members: Vec<usize> = of_topic.map(|(&row, _)| row).collect();
        if members.len() < LEAST_MINORITY || members.len() + LEAST_MINORITY > rows.len() {
            continue;
        }
        let part = group_sums(engine, unit, &members)?;
        let rest: Vec<f64> = sums.iter().zip(&part).map(|(a, b)| a - b).collect();
        let rest = log_directions(&moment(&rest, rows.len() - members.len(), dim))?;
        agreements.push(agreement(&rest.matrix(), &scatter(engine, unit, &members)?));
    }
    agreements.sort_unstable_by(f64::total_cmp);
    Ok(agreements.get(agreements.len() / 4).copied())
}

fn complement(members: &[usize], n: usize) -> Vec<usize> {
    let mut members = members.iter().peekable();
    (0..n)
        .filter(|i| members.next_if_eq(&i).is_none())
        .collect()
}

fn unit_rows(rows: F32Rows<'_>) -> Vec<f32> {
    score::prepare(Metric::Cosine, rows, &score::norms(rows), 0)
}

/// Eigenvectors, computed on the pool of threads whoever waits for them: `--threads` bounds it.
fn eigen(matrix: &Matrix) -> Result<SymmetricEigen> {
    rayon::scope(|_| matrix.symmetric_eigen())
}

/// Σ xxᵀ of some rows.
fn group_sums(engine: &Engine, rows: F32Rows<'_>, members: &[usize]) -> Result<Vec<f64>> {
    let values = Rows::from(rows).gather(members.iter().copied());
    let part = Rows::new(&values, rows.dim());
    Ok(engine.gram(part, part)?.products)
}

fn moment(sums: &[f64], rows: usize, dim: usize) -> Matrix {
    Matrix::new(dim, dim, sums.to_vec()).scaled(1.0 / rows as f64)
}

/// A symmetric matrix without trace and of length 1, by its eigenvectors.
struct Directions {
    weights: Vec<f64>,
    vectors: Matrix,
}

/// The logarithm of a second moment: small variances count as much as large ones, so that topics, which
/// fill the large ones, do not hide what a model's rows have in common.
fn log_directions(moment: &Matrix) -> Result<Directions> {
    let eigen = eigen(moment)?;
    let dim = eigen.values.len() as f64;
    let mut weights: Vec<f64> = eigen
        .values
        .iter()
        .map(|v| (v.max(0.0) + 0.01 / dim).ln())
        .collect();
    let mean = weights.iter().sum::<f64>() / dim;
    weights.iter_mut().for_each(|w| *w -= mean);
    let length = weights
        .iter()
        .map(|w| w * w)
        .sum::<f64>()
        .sqrt()
        .max(f64::MIN_POSITIVE);
    weights.iter_mut().for_each(|w| *w /= length);
    Ok(Directions {
        weights,
        vectors: eigen.vectors,
    })
}

impl Directions {
    fn matrix(&self) -> Matrix {
        let mut scaled = self.vectors.clone();
        for row in scaled.values_mut().chunks_exact_mut(self.weights.len()) {
            row.iter_mut().zip(&self.weights).for_each(|(v, w)| *v *= w);
        }
        scaled.times(&self.vectors.transpose())
    }
}

/// Σⱼ wⱼ (x·vⱼ)² of every row, vⱼ the rows of `basis`.
fn quadratic_forms(
    engine: &Engine,
    rows: F32Rows<'_>,
    basis: &Matrix,
    weights: &[f64],
) -> Result<Vec<f64>> {
    let basis: Vec<f32> = basis.values().iter().map(|&v| v as f32).collect();
    let basis = Rows::new(&basis, rows.dim());
    let mut forms = Vec::with_capacity(rows.len());
    for start in (0..rows.len()).step_by(CHUNK) {
        let range = start..(start + CHUNK).min(rows.len());
        let projected = engine.project(rows.slice(range).into(), basis)?;
        forms.extend(projected.chunks_exact(weights.len()).map(|row| {
            row.iter()
                .zip(weights)
                .map(|(&p, w)| w * f64::from(p) * f64::from(p))
                .sum::<f64>()
        }));
    }
    Ok(forms)
}

/// Σ (x − mean)(x − mean)ᵀ of some rows.
fn scatter(engine: &Engine, rows: F32Rows<'_>, members: &[usize]) -> Result<Matrix> {
    let dim = rows.dim();
    let values = Rows::from(rows).gather(members.iter().copied());
    let part = Rows::new(&values, dim);
    let gram = engine.gram(part, part)?;
    let mut scatter = Matrix::new(dim, dim, gram.products);
    scatter.add_outer(-1.0 / members.len() as f64, &gram.x_sums, &gram.x_sums);
    Ok(scatter)
}

/// Agreement of a scatter with directions, in standard deviations of a random rotation.
fn agreement(directions: &Matrix, scatter: &Matrix) -> f64 {
    let dim = scatter.rows();
    let mut traceless = scatter.clone();
    let mean = scatter.trace() / dim as f64;
    for j in 0..dim {
        traceless.values_mut()[j * dim + j] -= mean;
    }
    let length = traceless.sq_frobenius().sqrt();
    if length == 0.0 {
        return 0.0;
    }
    let d = dim as f64;
    directions.frobenius_dot(&traceless) / length * ((d - 1.0) * (d + 2.0) / 2.0).sqrt()
}

/// (Σλ)²/Σλ², λ the eigenvalues: how many directions a scatter fills.
fn participation_ratio(scatter: &Matrix) -> f64 {
    scatter.trace().powi(2) / scatter.sq_frobenius().max(f64::MIN_POSITIVE)
}

/// An angular central Gaussian: directions of a Gaussian with this second moment.
struct Density {
    basis: Matrix,
    inverse: Vec<f64>,
    log_determinant: f64,
}

impl Density {
    /// Shrunk towards the sphere by d/(d + n), so that few rows do not claim to know every direction.
    fn of(sums: &[f64], rows: usize, dim: usize) -> Result<Self> {
        let shrinkage = dim as f64 / (dim + rows) as f64;
        let eigen = eigen(&moment(sums, rows, dim))?;
        let variances: Vec<f64> = eigen
            .values
            .iter()
            .map(|v| (1.0 - shrinkage) * v.max(0.0) + shrinkage / dim as f64)
            .collect();
        Ok(Self {
            basis: eigen.vectors.transpose(),
            log_determinant: variances.iter().map(|v| v.ln()).sum(),
            inverse: variances.iter().map(|v| 1.0 / v).collect(),
        })
    }

    fn log_likelihoods(&self, engine: &Engine, rows: F32Rows<'_>) -> Result<Vec<f64>> {
        let half_dim = 0.5 * rows.dim() as f64;
        let mut forms = quadratic_forms(engine, rows, &self.basis, &self.inverse)?;
        forms
            .iter_mut()
            .for_each(|q| *q = -0.5 * self.log_determinant - half_dim * q.ln());
        Ok(forms)
    }
}
