//! Topics that the reference does not hold: rows of the current set far from every topic of the reference,
//! many of them, close to each other.
//!
//! A row is *far* where it lies beyond 99 % of its nearest topic's own rows, and beyond 99 % of all rows by the
//! distance of its k-th neighbour. One row in a hundred of the reference itself comes close to that, so a group
//! of far rows means something only against the far rows that held-out reference rows leave in the same place.

use std::collections::HashSet;

use schemars::JsonSchema;
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::embeddings::Rows;
use crate::engine::{Engine, Metric, score};
use crate::error::Result;
use crate::metrics::clusters::suitable_clusters;
use crate::metrics::kmeans::kmeans;
use crate::metrics::mmd::Sample;
use crate::stats::conformal::conformal_p_values;
use crate::stats::correction::holm;
use crate::stats::counts::{fisher_exact, newcombe_ci95};
use crate::stats::distribution::quantile_sorted;

mod residues;

/// Fewer reference rows leave too few to hold scores against: a quarter of them must show p < 0.01.
pub const MIN_REFERENCE_ROWS: usize = 400;
/// Fewer current rows hold no group.
pub const MIN_CURRENT_ROWS: usize = 100;
/// Reference rows drawn: half are searched, a quarter calibrates, a quarter is held out.
const REFERENCE_ROWS: usize = 16_000;
/// Current rows drawn.
const CURRENT_ROWS: usize = 10_000;
/// Neighbour whose distance is looked at.
const K: usize = 10;
/// Share of a topic's own rows within its bounds, and p-value below which a row is far.
const WITHIN: f64 = 0.99;
const FAR_P: f64 = 0.01;
/// Far rows that make a group: this many, and this share of the rows judged.
const MIN_GROUP_ROWS: u64 = 30;
const MIN_GROUP_SHARE: f64 = 0.001;
/// Rows per cluster that the reference's topics are fitted to.
const FITTED_ROWS: usize = 50;
/// Ids named per group.
const REPRESENTATIVES: usize = 5;

/// How new topics are looked for.
#[derive(Debug, Clone, PartialEq)]
pub struct EmergenceConfig {
    /// Level of the groups' tests together, after Holm's correction.
    pub alpha: f64,
    /// Seed of samples and clusters.
    pub seed: u64,
}

/// Topics of the current set that the reference does not hold.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Emergence {
    /// Reference rows that current rows were held against.
    pub reference_rows: u64,
    /// Reference rows held out, among which the expected number of far rows was counted.
    pub heldout_rows: u64,
    /// Current rows judged: those whose ids the reference lacks, or a sample of them.
    pub judged_rows: u64,
    /// Whether every such row was judged.
    pub exact: bool,
    /// Share of the current set's rows whose ids the reference lacks.
    pub new_rows_share: f64,
    /// Rows (groups of rows, where groups were given) that are far from every topic, of those held out.
    pub far_share_reference: f64,
    /// The same of those judged.
    pub far_share_current: f64,
    /// Level of the tests together.
    pub alpha: f64,
    /// Groups of far rows that were tested.
    pub tests: usize,
    /// The current set's share in new topics, beyond what the reference has in the same places.
    pub share: f64,
    /// Its 95 % interval (Newcombe), the groups taken as given.
    pub share_ci95: [f64; 2],
    /// The smallest group of far rows that is looked at: as a share of the current set.
    pub smallest_share: f64,
    /// The new topics, largest first.
    pub groups: Vec<EmergingGroup>,
}

/// A topic that the reference does not hold.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct EmergingGroup {
    /// Ids of the rows nearest to its centre, nearest first.
    pub representatives: Vec<String>,
    /// Rows of the current set that are nearer to its centre than to any topic of the reference, of those
    /// judged.
    pub rows: u64,
    /// Its share of the current set (of its groups of rows, where groups were given).
    pub share: f64,
    /// The share of the reference in the same place, among rows held out.
    pub share_reference: f64,
    /// Share beyond that: `share` − `share_reference`, of rows that are new.
    pub excess: f64,
    /// Its 95 % interval (Newcombe).
    pub excess_ci95: [f64; 2],
    /// Far rows (groups of rows) of the current set in it.
    pub far_current: u64,
    /// Far rows of the reference in it, among those held out.
    pub far_reference: u64,
    /// Fisher's exact p-value of "no more far rows than the reference has there": a binomial test that counts
    /// in how uncertain the expected share is. Holm's correction over all groups.
    pub p_value_holm: f64,
    /// Its rows, as row numbers of the current set.
    #[serde(skip)]
    pub members: Vec<u32>,
}

/// Rows of one set, drawn.
struct Drawn<'a> {
    set: Sample<'a>,
    rows: Vec<u32>,
}

impl<'a> Drawn<'a> {
    /// At most `most` of `rows`, by the hash of their group.
    fn new(set: Sample<'a>, mut rows: Vec<u32>, most: usize, seed: u64) -> Self {
        let hash = |text: &str| xxh3_64_with_seed(text.as_bytes(), seed);
        rows.sort_by_cached_key(|&row| {
            let (group, id) = (unit(&set, row), set.ids.get(row as usize));
            (hash(group), group, hash(id), id)
        });
        rows.truncate(most);
        Self { set, rows }
    }

    /// The first row at or after `at` with which another group begins.
    fn boundary(&self, at: usize) -> usize {
        let mut at = at.min(self.rows.len());
        while at > 0 && at < self.rows.len() {
            let [before, after] = [at - 1, at].map(|i| unit(&self.set, self.rows[i]));
            if before != after {
                break;
            }
            at += 1;
        }
        at
    }

    /// Unit rows.
    fn values(&self) -> Vec<f32> {
        let dim = self.set.rows.dim();
        let order = self.rows.iter().map(|&row| row as usize);
        let mut values = self.set.rows.gather(order);
        for row in values.chunks_exact_mut(dim) {
            let norm = score::norm(row);
            row.iter_mut()
                .for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
        values
    }
}

/// What a row depends on nothing beyond: its group.
fn unit<'a>(set: &Sample<'a>, row: u32) -> &'a str {
    match set.groups {
        Some(groups) => &groups[row as usize],
        None => set.ids.get(row as usize),
    }
}

/// Rows to be judged: how far each is, and whether that is far.
struct Judged<'a, 'b> {
    drawn: &'b Drawn<'a>,
    /// The drawn rows that are judged.
    rows: &'b [u32],
    /// Their unit vectors.
    values: &'b [f32],
    far: Vec<bool>,
}

impl Judged<'_, '_> {
    /// How many groups of rows have a row that `counts`.
    fn units(&self, counts: impl Fn(usize) -> bool) -> u64 {
        let of_rows = (0..self.rows.len()).filter(|&i| counts(i));
        let units: HashSet<&str> = of_rows
            .map(|i| unit(&self.drawn.set, self.rows[i]))
            .collect();
        units.len() as u64
    }
}

/// Looks for topics of `current` that `reference` does not hold, among the rows `candidates` of `current`: those
/// whose ids the reference lacks. Both sets lie in one space.
///
/// Of the reference, half the rows drawn are parted into topics ([`kmeans`]) and searched, a quarter calibrates
/// (conformal p-values of the 10th neighbour's distance), and a quarter is held out and judged as current rows
/// are. So far rows of both are exchangeable where nothing is new, and Fisher's exact test of every group keeps
/// its level. Groups are clusters of the far rows of both alike, joined while their centres are nearer to each
/// other than a typical row is to its topic; directions are taken from the reference's mean. A group's members
/// are then all rows nearer to its centre than to any topic of the reference. Groups have 30 far rows at least,
/// and 0.1 % of those judged.
///
/// `None` with fewer than 400 reference rows or 100 candidates. The result does not depend on the order of the
/// rows.
///
/// # Errors
/// The device fails.
///
/// # Panics
/// If the dimensions differ.
///
/// # Source
/// Sun et al. 2022 (k-th neighbour), Bates et al. 2023 (conformal p-values).
pub fn emergence(
    engine: &Engine,
    reference: Sample<'_>,
    current: Sample<'_>,
    candidates: &[u32],
    config: &EmergenceConfig,
) -> Result<Option<Emergence>> {
    let dim = reference.rows.dim();
    assert_eq!(dim, current.rows.dim());
    if reference.rows.len() < MIN_REFERENCE_ROWS || candidates.len() < MIN_CURRENT_ROWS {
        return Ok(None);
    }
    let all: Vec<u32> = (0..reference.rows.len() as u32).collect();
    let old = Drawn::new(reference, all, REFERENCE_ROWS, config.seed);
    let new = Drawn::new(current, candidates.to_vec(), CURRENT_ROWS, config.seed);
    let (old_values, new_values) = (old.values(), new.values());
    let searched = old.boundary(old.rows.len() / 2);
    let calibrating = old.boundary(old.rows.len() / 4 * 3).max(searched);
    let part = |range: std::ops::Range<usize>| &old_values[range.start * dim..range.end * dim];
    let base = Rows::new(part(0..searched), dim);
    let calibration = Rows::new(part(searched..calibrating), dim);
    let held_out = Rows::new(part(calibrating..old.rows.len()), dim);
    let judged_rows = Rows::new(&new_values, dim);
    // Groups may be as large as a quarter of the rows.
    if [base, calibration, held_out].iter().any(Rows::is_empty) {
        return Ok(None);
    }

    // Topics of the reference, and their bounds.
    let number = suitable_clusters(base.len());
    let fitted = base.slice(0..base.len().min(FITTED_ROWS * number));
    let topics = kmeans(engine, fitted, number, config.seed)?.centroids;
    let topics = Rows::new(&topics, dim);
    let topic_of = |rows: Rows<'_>| -> Result<Vec<(f64, u32)>> {
        let found = engine.nearest(rows, topics, 1, Metric::Cosine, None)?;
        Ok(found.lists.iter().map(|list| list[0]).collect())
    };
    let mut known = topic_of(base)?;
    known.extend(topic_of(calibration)?);
    let bounds = bounds(&known, topics.len());

    // Far rows.
    let kth = |rows: Rows<'_>| -> Result<Vec<f64>> {
        let found = engine.nearest(rows, base, K.min(base.len()), Metric::Cosine, None)?;
        let last = found.lists.iter().map(|list| list.last());
        Ok(last.map(|l| 1.0 - l.map_or(0.0, |l| l.0)).collect())
    };
    let of_calibration = kth(calibration)?;
    let far = |rows: Rows<'_>| -> Result<Vec<bool>> {
        let p_values = conformal_p_values(&of_calibration, &kth(rows)?);
        let topic = topic_of(rows)?;
        let both = topic.iter().zip(&p_values);
        Ok(both
            .map(|(&(cosine, topic), &p)| p < FAR_P && 1.0 - cosine > bounds[topic as usize])
            .collect())
    };
    let before = Judged {
        drawn: &old,
        rows: &old.rows[calibrating..],
        values: &old_values[calibrating * dim..],
        far: far(held_out)?,
    };
    let after = Judged {
        drawn: &new,
        rows: &new.rows,
        values: &new_values,
        far: far(judged_rows)?,
    };

    let groups = residues::groups(engine, base, topics, [&before, &after], config.seed)?;
    let new_rows_share = candidates.len() as f64 / current.rows.len() as f64;
    let counts = Counts {
        before: before.units(|_| true),
        after: after.units(|_| true),
    };
    let smallest = MIN_GROUP_ROWS.max((MIN_GROUP_SHARE * after.rows.len() as f64).ceil() as u64);
    let mut found = tested(
        &groups,
        [&before, &after],
        &counts,
        new_rows_share,
        smallest,
    );
    let tests = found.len();
    let p_values: Vec<f64> = found.iter().map(|(_, g)| g.p_value_holm).collect();
    for ((_, group), p) in found.iter_mut().zip(holm(&p_values)) {
        group.p_value_holm = p;
    }
    found.retain(|(_, g)| g.p_value_holm <= config.alpha && g.excess > 0.0);
    found.sort_by(|(_, a), (_, b)| (b.rows, &a.representatives).cmp(&(a.rows, &b.representatives)));
    let inside = [0, 1].map(|side| -> HashSet<usize> {
        let members = found.iter().flat_map(|&(at, _)| &groups[at].members[side]);
        members.map(|&(i, _)| i).collect()
    });
    let (a, b) = (
        before.units(|i| inside[0].contains(&i)),
        after.units(|i| inside[1].contains(&i)),
    );
    let (excess, excess_ci95) = counts.excess(a, b);
    Ok(Some(Emergence {
        reference_rows: old.rows.len() as u64,
        heldout_rows: before.rows.len() as u64,
        judged_rows: after.rows.len() as u64,
        exact: after.rows.len() == candidates.len() && old.rows.len() == reference.rows.len(),
        new_rows_share,
        far_share_reference: before.units(|i| before.far[i]) as f64 / counts.before as f64,
        far_share_current: after.units(|i| after.far[i]) as f64 / counts.after as f64,
        alpha: config.alpha,
        tests,
        share: excess * new_rows_share,
        share_ci95: excess_ci95.map(|end| end * new_rows_share),
        smallest_share: smallest as f64 / after.rows.len() as f64 * new_rows_share,
        groups: found.into_iter().map(|(_, group)| group).collect(),
    }))
}

/// Per topic the distance that 99 % of its rows keep within; that of all rows where a topic has too few to
/// tell.
fn bounds(known: &[(f64, u32)], topics: usize) -> Vec<f64> {
    let within = |mut distances: Vec<f64>| {
        distances.sort_unstable_by(f64::total_cmp);
        quantile_sorted(&distances, WITHIN).unwrap_or(f64::INFINITY)
    };
    let all = within(known.iter().map(|&(cosine, _)| 1.0 - cosine).collect());
    let mut of_topic: Vec<Vec<f64>> = vec![Vec::new(); topics];
    for &(cosine, topic) in known {
        of_topic[topic as usize].push(1.0 - cosine);
    }
    let bound = |distances: Vec<f64>| match distances.len() {
        0..20 => all,
        _ => within(distances),
    };
    of_topic.into_iter().map(bound).collect()
}

/// Groups of rows judged on either side.
struct Counts {
    before: u64,
    after: u64,
}

impl Counts {
    /// `after`/… − `before`/… with its interval.
    fn excess(&self, before: u64, after: u64) -> (f64, [f64; 2]) {
        let share = after as f64 / self.after as f64 - before as f64 / self.before as f64;
        let ci95 = newcombe_ci95(before, self.before, after, self.after);
        (share, ci95)
    }
}

/// Ids of the current rows nearest to a group's centre.
fn representatives(group: &residues::Group, after: &Judged<'_, '_>) -> Vec<String> {
    let mut best: Vec<(f64, &str)> = group.members[1]
        .iter()
        .map(|&(i, cosine)| (cosine, after.drawn.set.ids.get(after.rows[i] as usize)))
        .collect();
    best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
    let best = best.iter().take(REPRESENTATIVES);
    best.map(|(_, id)| (*id).to_owned()).collect()
}

/// The groups that are large enough, with their p-values as they are.
fn tested(
    groups: &[residues::Group],
    [before, after]: [&Judged<'_, '_>; 2],
    counts: &Counts,
    new_rows_share: f64,
    smallest: u64,
) -> Vec<(usize, EmergingGroup)> {
    let mut found = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        // Rows of both sides count, so that which groups are tested tells nothing of the sides.
        if ((group.far[0].len() + group.far[1].len()) as u64) < smallest {
            continue;
        }
        let is_far: [HashSet<usize>; 2] =
            [0, 1].map(|side| group.far[side].iter().copied().collect());
        let far = [
            before.units(|i| is_far[0].contains(&i)),
            after.units(|i| is_far[1].contains(&i)),
        ];
        let inside: [HashSet<usize>; 2] =
            [0, 1].map(|side| group.members[side].iter().map(|&(i, _)| i).collect());
        let (a, b) = (
            before.units(|i| inside[0].contains(&i)),
            after.units(|i| inside[1].contains(&i)),
        );
        let (excess, excess_ci95) = counts.excess(a, b);
        let mut members: Vec<u32> = inside[1].iter().map(|&i| after.rows[i]).collect();
        members.sort_unstable();
        let of_group = EmergingGroup {
            representatives: representatives(group, after),
            rows: members.len() as u64,
            share: b as f64 / counts.after as f64 * new_rows_share,
            share_reference: a as f64 / counts.before as f64,
            excess: excess * new_rows_share,
            excess_ci95: excess_ci95.map(|end| end * new_rows_share),
            far_current: far[1],
            far_reference: far[0],
            p_value_holm: fisher_exact(far[0], counts.before, far[1], counts.after),
            members,
        };
        found.push((at, of_group));
    }
    found
}
