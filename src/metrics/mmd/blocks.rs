//! Which rows lie in which block: by the hash of their group, never by their order.

use std::cmp::Ordering;
use std::ops::Range;

use rayon::prelude::*;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Sample;
use crate::error::{Error, Result};
use crate::stats::permutation::Exchange;

/// Rows of the engine's smallest tile: smaller blocks are padded to it.
const SMALL_TILE: usize = 16;

/// A test gains next to nothing from a side this many times the other: the rest is left to the estimate.
const LARGEST_RATIO: usize = 16;

/// Blocks for the rows of a much larger side that the test leaves out.
const ESTIMATE_BLOCKS: usize = 128;

/// One sample's rows by group: groups ordered by hash, then text, so that their order is random and
/// belongs to the groups alone.
pub(super) struct Grouped<'a> {
    sample: Sample<'a>,
    rows: Vec<u32>,
    groups: Vec<Group>,
}

/// Where a group's rows stand in [`Grouped::rows`].
#[derive(Clone)]
struct Group {
    hash: u64,
    at: Range<usize>,
}

impl<'a> Grouped<'a> {
    /// Groups the rows; with `at_most`, keeps the share of groups that makes about so many rows. The
    /// groups kept of a smaller share are among those of a larger one, in either sample.
    pub(super) fn new(sample: Sample<'a>, seed: u64, at_most: Option<usize>) -> Self {
        let n = sample.rows.len();
        let last_hash = match at_most {
            Some(rows) if rows < n => (rows as f64 / n as f64 * u64::MAX as f64) as u64,
            _ => u64::MAX,
        };
        let mut keyed: Vec<(u64, u32)> = (0..n as u32)
            .into_par_iter()
            .map(|row| (hash(sample.group(row), seed), row))
            .filter(|&(hash, _)| hash <= last_hash)
            .collect();
        // Rows of one group by id: the file's order must not show in any bit of a sum.
        keyed.par_sort_unstable_by(|&(hash_a, a), &(hash_b, b)| {
            hash_a
                .cmp(&hash_b)
                .then_with(|| sample.group(a).cmp(sample.group(b)))
                .then_with(|| sample.ids.get(a as usize).cmp(sample.ids.get(b as usize)))
        });
        let mut groups = Vec::new();
        let mut start = 0;
        for group in keyed.chunk_by(|a, b| sample.group(a.1) == sample.group(b.1)) {
            groups.push(Group {
                hash: group[0].0,
                at: start..start + group.len(),
            });
            start += group.len();
        }
        Self {
            sample,
            rows: keyed.into_iter().map(|(_, row)| row).collect(),
            groups,
        }
    }

    /// The same without the rows that `keep` does not hold for; the order stays.
    pub(super) fn keeping(&self, keep: impl Fn(u32) -> bool) -> Self {
        let mut kept = Self {
            sample: self.sample,
            rows: Vec::new(),
            groups: Vec::new(),
        };
        for group in &self.groups {
            let start = kept.rows.len();
            let rows = self.rows[group.at.clone()].iter().copied();
            kept.rows.extend(rows.filter(|&row| keep(row)));
            if kept.rows.len() > start {
                kept.groups.push(Group {
                    hash: group.hash,
                    at: start..kept.rows.len(),
                });
            }
        }
        kept
    }

    /// Rows kept.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows kept, ordered by group.
    pub(super) fn rows(&self) -> &[u32] {
        &self.rows
    }

    fn text(&self, group: &Group) -> &'a str {
        self.sample.group(self.rows[group.at.start])
    }

    /// By hash, then text: the order of `groups`, across samples.
    fn compare(&self, group: &Group, other: &Grouped, theirs: &Group) -> Ordering {
        let by_hash = group.hash.cmp(&theirs.hash);
        by_hash.then_with(|| self.text(group).cmp(other.text(theirs)))
    }

    /// Refuses what no estimate can be made of.
    pub(super) fn check(&self, place: &str) -> Result<()> {
        if self.groups.len() < 2 {
            let (found, what) = if self.sample.groups.is_some() {
                (self.groups.len(), "groups")
            } else {
                (self.rows.len(), "rows")
            };
            return Err(Error::input(
                place,
                format!("{found} {what}, the MMD needs at least 2"),
            ));
        }
        if self.sample.groups.is_none()
            && let Some(group) = self.groups.iter().find(|group| group.at.len() > 1)
        {
            let id = self.text(group);
            return Err(Error::input(
                place,
                format!(
                    "id \"{id}\" stands on {} rows, expected unique ids",
                    group.at.len()
                ),
            )
            .hint("rows that belong together are told by their group"));
        }
        Ok(())
    }
}

/// Seeded hash of a group's text; for a group that is an id, the id's own.
pub(super) fn hash(text: &str, seed: u64) -> u64 {
    xxh3_64_with_seed(text.as_bytes(), seed)
}

/// A sum over blocks leaves these out together: a block that one side has alone, or both parts of a pair.
#[derive(Debug, Clone)]
pub(super) struct Unit {
    pub(super) x: Option<usize>,
    pub(super) y: Option<usize>,
    /// Size in groups.
    pub(super) groups: usize,
}

/// Where every row lies.
pub(super) struct Blocks {
    /// Rows per block (Y's rows follow X's n in number): X's test blocks, Y's, the parts of the pairs,
    /// then blocks that only the estimate sees.
    pub(super) rows: Vec<Vec<u32>>,
    /// Group number per row; equal texts have equal numbers.
    pub(super) group_of: Vec<u32>,
    /// How the test may relabel the first blocks.
    pub(super) exchange: Exchange,
    /// Whether a block is X's.
    pub(super) is_x: Vec<bool>,
    /// The units of each stratum (only X, only Y, both), all blocks among them.
    pub(super) strata: [Vec<Unit>; 3],
    /// (X row, Y row) of every group that has one row in each sample.
    pub(super) matches: Vec<(u32, u32)>,
    /// Groups that only X, only Y, and both have.
    pub(super) group_counts: [usize; 3],
}

impl Blocks {
    /// Assigns the groups of both samples to about `target` blocks.
    ///
    /// Groups of one sample alone lie in blocks of equally many groups, which the test may exchange;
    /// what remains enters the estimate. Groups of both samples lie in pairs of blocks with the same
    /// groups in either part, which the test may swap whatever their size.
    pub(super) fn new(x: &Grouped, y: &Grouped, target: usize) -> Self {
        let single_rows = x.sample.groups.is_none() && y.sample.groups.is_none();
        let x_rows = x.sample.rows.len() as u32;
        let x_members = |group: &Group| x.rows[group.at.clone()].to_vec();
        let y_members = |group: &Group| -> Vec<u32> {
            let rows = &y.rows[group.at.clone()];
            rows.iter().map(|row| x_rows + row).collect()
        };
        let Merged {
            mut only_x,
            mut only_y,
            both,
        } = merge(x, y);
        let mut blocks = Self {
            rows: Vec::new(),
            group_of: vec![0; x.sample.rows.len() + y.sample.rows.len()],
            exchange: Exchange {
                x: 0,
                y: 0,
                pairs: 0,
            },
            is_x: Vec::new(),
            strata: Default::default(),
            matches: Vec::new(),
            group_counts: [only_x.len(), only_y.len(), both.len()],
        };
        for (a, b) in &both {
            if let (&[a], &[b]) = (&x.rows[a.at.clone()], &y.rows[b.at.clone()]) {
                blocks.matches.push((a, b));
            }
        }

        let groups = only_x.len() + only_y.len() + 2 * both.len();
        let fewer = only_x.len().min(only_y.len());
        let alone = block_size(groups, fewer, target, single_rows);
        let paired = block_size(groups, both.len(), target, single_rows);
        let tested = |groups: usize| (groups / alone).min(LARGEST_RATIO * (fewer / alone)) * alone;
        let rest_x = only_x.split_off(tested(only_x.len()));
        let rest_y = only_y.split_off(tested(only_y.len()));
        let mut number = 0;
        for members in only_x.chunks(alone) {
            blocks.exchange.x += 1;
            blocks.push_alone(members.iter().map(x_members), true, &mut number);
        }
        for members in only_y.chunks(alone) {
            blocks.exchange.y += 1;
            blocks.push_alone(members.iter().map(y_members), false, &mut number);
        }
        for members in both.chunks(paired) {
            blocks.exchange.pairs += 1;
            let mut number_y = number;
            let in_x = members.iter().map(|(a, _)| x_members(a));
            let in_y = members.iter().map(|(_, b)| y_members(b));
            let unit = Unit {
                x: Some(blocks.push(in_x, true, &mut number)),
                y: Some(blocks.push(in_y, false, &mut number_y)),
                groups: members.len(),
            };
            blocks.strata[2].push(unit);
        }
        let rest_size =
            |groups: usize| whole_tiles(groups / ESTIMATE_BLOCKS, single_rows).max(alone);
        for members in rest_x.chunks(rest_size(rest_x.len())) {
            blocks.push_alone(members.iter().map(x_members), true, &mut number);
        }
        for members in rest_y.chunks(rest_size(rest_y.len())) {
            blocks.push_alone(members.iter().map(y_members), false, &mut number);
        }
        blocks
    }

    /// Adds a block of the groups `members`, numbered from `number` on.
    fn push(
        &mut self,
        members: impl Iterator<Item = Vec<u32>>,
        is_x: bool,
        number: &mut u32,
    ) -> usize {
        let mut rows = Vec::new();
        for group in members {
            for &row in &group {
                self.group_of[row as usize] = *number;
            }
            *number += 1;
            rows.extend(group);
        }
        self.rows.push(rows);
        self.is_x.push(is_x);
        self.rows.len() - 1
    }

    fn push_alone(
        &mut self,
        members: impl ExactSizeIterator<Item = Vec<u32>>,
        is_x: bool,
        number: &mut u32,
    ) {
        let groups = members.len();
        let block = Some(self.push(members, is_x, number));
        let (x, y) = if is_x { (block, None) } else { (None, block) };
        self.strata[usize::from(!is_x)].push(Unit { x, y, groups });
    }
}

/// Groups per block, for `groups` parts in all, of which the side that has fewest of this kind has
/// `fewer`.
///
/// As `target` says, but that side is to have an eighth of the target if it can: a test with 32 blocks
/// a side has nearly the power of one that permutes rows, and a jackknife with fewer misses too often.
/// Up to a quarter of the target a side, blocks rather grow to a tile than be padded to it.
fn block_size(groups: usize, fewer: usize, target: usize, single_rows: bool) -> usize {
    let tile = (fewer / (target / 4).max(1)).min(SMALL_TILE);
    let size = whole_tiles((groups / target.max(1)).max(tile), single_rows);
    if fewer == 0 {
        size
    } else {
        size.min((fewer / (target / 8).max(1)).max(1))
    }
}

/// At least `groups`. The engine lays blocks out in tiles of 16 rows, or of 64 where that adds little
/// padding: where a group is a row, whole tiles waste nothing.
fn whole_tiles(groups: usize, single_rows: bool) -> usize {
    match groups {
        17..=32 if single_rows => 32,
        33.. if single_rows => groups.next_multiple_of(64),
        _ => groups.max(1),
    }
}

/// The groups of two samples by who has them, each list in order of hash and text.
struct Merged {
    only_x: Vec<Group>,
    only_y: Vec<Group>,
    both: Vec<(Group, Group)>,
}

fn merge(x: &Grouped, y: &Grouped) -> Merged {
    let mut merged = Merged {
        only_x: Vec::new(),
        only_y: Vec::new(),
        both: Vec::new(),
    };
    let (mut xs, mut ys) = (x.groups.as_slice(), y.groups.as_slice());
    while let ([a, rest_x @ ..], [b, rest_y @ ..]) = (xs, ys) {
        let order = x.compare(a, y, b);
        match order {
            Ordering::Less => merged.only_x.push(a.clone()),
            Ordering::Greater => merged.only_y.push(b.clone()),
            Ordering::Equal => merged.both.push((a.clone(), b.clone())),
        }
        if order.is_le() {
            xs = rest_x;
        }
        if order.is_ge() {
            ys = rest_y;
        }
    }
    merged.only_x.extend_from_slice(xs);
    merged.only_y.extend_from_slice(ys);
    merged
}

/// The rows of every group of either sample, X's and Y's, in order of hash and text.
pub(super) fn units<'a>(x: &'a Grouped, y: &'a Grouped) -> Vec<[&'a [u32]; 2]> {
    let mut units = Vec::with_capacity(x.groups.len().max(y.groups.len()));
    let (mut i, mut j) = (0, 0);
    while i < x.groups.len() || j < y.groups.len() {
        let order = match (x.groups.get(i), y.groups.get(j)) {
            (Some(a), Some(b)) => x.compare(a, y, b),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        let (mut unit, empty): ([&[u32]; 2], &[u32]) = ([&[]; 2], &[]);
        if order.is_le() {
            unit[0] = x.groups.get(i).map_or(empty, |a| &x.rows[a.at.clone()]);
            i += 1;
        }
        if order.is_ge() {
            unit[1] = y.groups.get(j).map_or(empty, |b| &y.rows[b.at.clone()]);
            j += 1;
        }
        units.push(unit);
    }
    units
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::embeddings::{Ids, Rows};

    /// Blocks of `only_x`, `only_y` and `both` groups of `chunks` rows each, checked for what holds of
    /// all blocks.
    fn assign(only_x: usize, only_y: usize, both: usize, chunks: usize) -> Blocks {
        let groups = |prefix: &str, only: usize| -> Vec<String> {
            let own = (0..only).map(|i| format!("{prefix}{i}"));
            let all = own.chain((0..both).map(|i| format!("{i}")));
            all.flat_map(|group| vec![group; chunks]).collect()
        };
        let texts = [groups("x", only_x), groups("y", only_y)];
        let ids: Vec<Ids> = texts
            .iter()
            .map(|texts| {
                let rows = texts.iter().enumerate();
                rows.map(|(row, text)| match chunks {
                    1 => text.clone(),
                    _ => format!("{text}/{}", row % chunks),
                })
                .collect()
            })
            .collect();
        let values = vec![1.0f32; texts[0].len().max(texts[1].len())];
        let [x, y] = [0, 1].map(|side| {
            let sample = Sample {
                rows: Rows::new(&values[..ids[side].len()], 1),
                ids: &ids[side],
                groups: (chunks > 1).then_some(&texts[side][..]),
            };
            Grouped::new(sample, 3, None)
        });
        let blocks = Blocks::new(&x, &y, 256);

        let n = texts[0].len();
        let text_of = |row: u32| texts.concat()[row as usize].clone();
        let mut number_of: HashMap<String, u32> = HashMap::new();
        let mut seen = vec![false; n + texts[1].len()];
        for (rows, &is_x) in blocks.rows.iter().zip(&blocks.is_x) {
            for &row in rows {
                assert!(!std::mem::replace(&mut seen[row as usize], true));
                assert_eq!((row as usize) < n, is_x);
            }
        }
        assert!(seen.iter().all(|&seen| seen), "every row lies in one block");
        if seen.len() <= 1_000 {
            for row in 0..seen.len() as u32 {
                let number = blocks.group_of[row as usize];
                assert_eq!(*number_of.entry(text_of(row)).or_insert(number), number);
            }
            let mut numbers: Vec<u32> = number_of.values().copied().collect();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), number_of.len(), "one number per group");
        }
        let exchange = blocks.exchange;
        let sizes: Vec<usize> = blocks.rows.iter().map(|rows| rows.len() / chunks).collect();
        let alone = &sizes[..exchange.x + exchange.y];
        assert!(alone.iter().all(|&size| size == alone[0]), "exchangeable");
        for parts in sizes[alone.len()..exchange.blocks()].chunks(2) {
            assert_eq!(parts[0], parts[1], "swappable");
        }
        let units: usize = blocks.strata.iter().flatten().map(|unit| unit.groups).sum();
        assert_eq!(units, only_x + only_y + both);
        blocks
    }

    #[test]
    fn blocks_fit_the_samples() {
        let exchange = |blocks: &Blocks| {
            let Exchange { x, y, pairs } = blocks.exchange;
            (x, y, pairs)
        };
        // Whole tiles of 64 rows, the remainder to the estimate.
        let large = assign(5_183, 5_183, 0, 1);
        assert_eq!(exchange(&large), (80, 80, 0));
        assert_eq!(large.rows[0].len(), 64);
        assert_eq!(large.rows.len(), 162);
        // Pairs may be of any size: none is left out.
        let paired = assign(0, 0, 5_183, 1);
        assert_eq!(exchange(&paired), (0, 0, 81));
        assert_eq!(paired.matches.len(), 5_183);
        // The smaller side gets its blocks, the larger 16 times as many, the rest is not tested.
        let uneven = assign(100, 50_000, 0, 1);
        assert_eq!(exchange(&uneven), (33, 528, 0));
        assert!(uneven.rows.len() <= 33 + 1 + 528 + 130);
        // Shared and own rows each get blocks of their size.
        let overlap = assign(200, 210, 9_000, 1);
        assert_eq!(exchange(&overlap), (33, 35, 71));
        // Nothing to exchange with: only the pairs are tested.
        assert_eq!(exchange(&assign(300, 0, 300, 1)), (0, 0, 75));
        // Few rows: one per block.
        assert_eq!(exchange(&assign(2, 3, 1, 1)), (2, 3, 1));
        // Documents stay whole.
        assert_eq!(exchange(&assign(300, 280, 50, 5)), (75, 70, 50));
    }
}
