//! Slicings: which slice every row is in, by the values of a column, of two columns, or by cluster.

use std::collections::{BTreeMap, HashMap, HashSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::metrics::clusters::Clusters;

/// Numbers with more distinct values than this are cut into ranges.
const MOST_NUMBERS: usize = 12;
/// Ranges of a numeric column.
const RANGES: usize = 5;
/// Slices of one slicing; the rows of rarer values are left together.
const MOST_SLICES: usize = 64;
/// Label of a row that is in no slice.
pub const NOWHERE: u32 = u32::MAX;
/// What rows without a value are called.
const MISSING: &str = "(missing)";

/// What parts the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlicingKind {
    /// Topics found from the vectors.
    Clusters,
    /// The values of a column.
    Values,
    /// Ranges of a numeric column, each with a fifth of the rows of both sets.
    Ranges,
    /// The slices of two columns, crossed.
    Crossed,
}

/// The slice of every row of both sets.
#[derive(Debug, Clone, PartialEq)]
pub struct Slicing {
    /// The column or columns, or `cluster`.
    pub by: String,
    /// What parts the rows.
    pub kind: SlicingKind,
    /// Name of every slice, most rows first.
    pub names: Vec<String>,
    /// Ids that stand for a slice, where it has no name of its own.
    pub representatives: Vec<Vec<String>>,
    /// Slice of every reference row; `names.len()` for rows of values too rare for a slice.
    pub reference: Vec<u32>,
    /// The same of current; `None` where current rows cannot be told apart.
    pub current: Option<Vec<u32>>,
    /// Slice of every golden query, [`NOWHERE`] for none; `None` where the queries lack the column.
    pub queries: Option<Vec<u32>>,
    /// Values that are too rare for a slice.
    pub rare_values: usize,
}

/// The values of one column on both sides and of the golden queries, empty where they are missing.
#[derive(Debug, Clone, Copy)]
pub struct ColumnValues<'a> {
    /// The column.
    pub name: &'a str,
    /// Whether the values are numbers.
    pub numeric: bool,
    /// One per reference row.
    pub reference: &'a [String],
    /// One per current row.
    pub current: &'a [String],
    /// One per golden query.
    pub queries: Option<&'a [String]>,
}

impl Slicing {
    /// Slices by clusters. `current_known` says whether current rows were assigned too.
    pub fn of_clusters(clusters: Clusters, current_known: bool) -> Self {
        Self {
            by: "cluster".to_owned(),
            kind: SlicingKind::Clusters,
            names: (1..=clusters.representatives.len())
                .map(|number| format!("cluster {number}"))
                .collect(),
            representatives: clusters.representatives,
            reference: clusters.reference,
            current: current_known.then_some(clusters.current),
            queries: None,
            rare_values: 0,
        }
    }

    /// Slices by a column: one slice per value that at least `min_rows` rows of either set have, the 64 most
    /// frequent at most; of numbers with more than twelve values, five ranges with equally many rows of both
    /// sets together, so that the cuts favour neither. Rows without a value are a slice of their own.
    pub fn of_column(column: ColumnValues<'_>, min_rows: usize) -> Self {
        if column.numeric {
            let numbers = |values: &[String]| -> Vec<Option<f64>> {
                let parsed = values.iter().map(|v| v.parse::<f64>().ok());
                parsed.map(|v| v.filter(|v| !v.is_nan())).collect()
            };
            let (x, y) = (numbers(column.reference), numbers(column.current));
            let mut pooled: Vec<f64> = x.iter().chain(&y).flatten().copied().collect();
            pooled.sort_unstable_by(f64::total_cmp);
            let mut distinct = pooled.clone();
            distinct.dedup();
            if distinct.len() > MOST_NUMBERS {
                return Self::of_ranges(column, &pooled, [&x, &y], numbers, min_rows);
            }
        }
        let keys = |values: &[String]| -> Vec<Option<String>> {
            let missing = |v: &String| v.is_empty() || (column.numeric && v == "NaN");
            values
                .iter()
                .map(|v| (!missing(v)).then(|| v.clone()))
                .collect()
        };
        Self::of_keys(
            column.name.to_owned(),
            SlicingKind::Values,
            [&keys(column.reference), &keys(column.current)],
            column.queries.map(keys).as_deref(),
            |key| key.clone().unwrap_or_else(|| MISSING.to_owned()),
            min_rows,
        )
    }

    fn of_ranges(
        column: ColumnValues<'_>,
        pooled: &[f64],
        sides: [&[Option<f64>]; 2],
        numbers: impl Fn(&[String]) -> Vec<Option<f64>>,
        min_rows: usize,
    ) -> Self {
        let mut cuts: Vec<f64> = (1..RANGES)
            .map(|i| pooled[i * pooled.len() / RANGES])
            .collect();
        cuts.dedup();
        // A range holds its lower cut; nothing is below the smallest value.
        cuts.retain(|&cut| cut > pooled[0]);
        if cuts.is_empty() {
            // Most rows have the smallest value: the others are a range.
            cuts.extend(pooled.iter().copied().find(|&value| value > pooled[0]));
        }
        let key = |v: &Option<f64>| v.map(|v| cuts.partition_point(|&cut| cut <= v));
        let keys =
            |values: &[Option<f64>]| -> Vec<Option<usize>> { values.iter().map(key).collect() };
        let name = |key: &Option<usize>| match *key {
            None => MISSING.to_owned(),
            Some(0) => format!("below {}", short(cuts[0])),
            Some(at) if at == cuts.len() => format!("{} and above", short(cuts[at - 1])),
            Some(at) => format!("{} to {}", short(cuts[at - 1]), short(cuts[at])),
        };
        Self::of_keys(
            column.name.to_owned(),
            SlicingKind::Ranges,
            [&keys(sides[0]), &keys(sides[1])],
            column
                .queries
                .map(|values| keys(&numbers(values)))
                .as_deref(),
            name,
            min_rows,
        )
    }

    /// The slices of both, crossed: cells with at least `min_rows` rows on either side. `None` where one
    /// of them does not know current rows, or fewer than two cells are left.
    pub fn crossed(&self, other: &Self, min_rows: usize) -> Option<Self> {
        let cells = |a: &[u32], b: &[u32]| -> Vec<Option<[u32; 2]>> {
            let named = |a: u32, b: u32| {
                ((a as usize) < self.names.len() && (b as usize) < other.names.len())
                    .then_some([a, b])
            };
            a.iter().zip(b).map(|(&a, &b)| named(a, b)).collect()
        };
        let name = |cell: &Option<[u32; 2]>| match cell {
            None => MISSING.to_owned(),
            Some([a, b]) => format!(
                "{} = {}, {} = {}",
                self.by, self.names[*a as usize], other.by, other.names[*b as usize]
            ),
        };
        let mut crossed = Self::of_keys(
            format!("{} × {}", self.by, other.by),
            SlicingKind::Crossed,
            [
                &cells(&self.reference, &other.reference),
                &cells(self.current.as_ref()?, other.current.as_ref()?),
            ],
            None,
            name,
            min_rows,
        );
        crossed.drop_unnamed();
        (crossed.names.len() >= 2).then_some(crossed)
    }

    /// Rows outside the cells are no slice: moves them to the rare ones.
    fn drop_unnamed(&mut self) {
        let Some(at) = self.names.iter().position(|name| name == MISSING) else {
            return;
        };
        self.names.remove(at);
        let rare = self.names.len() as u32;
        let renumber = |label: &mut u32| match (*label as usize).cmp(&at) {
            std::cmp::Ordering::Less => {}
            std::cmp::Ordering::Equal => *label = rare,
            std::cmp::Ordering::Greater => *label -= 1,
        };
        self.reference.iter_mut().for_each(renumber);
        self.current.iter_mut().flatten().for_each(renumber);
    }

    fn of_keys<K: Ord + std::hash::Hash>(
        by: String,
        kind: SlicingKind,
        sides: [&[K]; 2],
        queries: Option<&[K]>,
        name: impl Fn(&K) -> String,
        min_rows: usize,
    ) -> Self {
        let mut counts: HashMap<&K, [usize; 2]> = HashMap::new();
        for (side, keys) in sides.iter().enumerate() {
            for key in *keys {
                counts.entry(key).or_default()[side] += 1;
            }
        }
        let distinct = counts.len();
        let mut kept: Vec<(&K, [usize; 2])> = counts
            .into_iter()
            .filter(|(_, [n, m])| *n.max(m) >= min_rows)
            .collect();
        kept.sort_by(|(a, [n, m]), (b, [k, l])| (k + l).cmp(&(n + m)).then(a.cmp(b)));
        kept.truncate(MOST_SLICES);
        let labels: BTreeMap<&K, u32> = kept.iter().map(|(key, _)| *key).zip(0..).collect();
        let label_or = |key: &K, otherwise: u32| labels.get(key).copied().unwrap_or(otherwise);
        let rare = kept.len() as u32;
        let of = |keys: &[K]| keys.iter().map(|key| label_or(key, rare)).collect();
        Self {
            by,
            kind,
            names: kept.iter().map(|(key, _)| name(key)).collect(),
            representatives: vec![Vec::new(); kept.len()],
            reference: of(sides[0]),
            current: Some(of(sides[1])),
            queries: queries.map(|keys| keys.iter().map(|key| label_or(key, NOWHERE)).collect()),
            rare_values: distinct - kept.len(),
        }
    }

    /// Whether every row is in one slice of the same name: nothing to tell apart.
    pub fn is_trivial(&self) -> bool {
        let sides = [Some(&self.reference), self.current.as_ref()];
        let labels: HashSet<u32> = sides.into_iter().flatten().flatten().copied().collect();
        labels.len() < 2
    }
}

/// Four significant digits at most.
fn short(value: f64) -> String {
    if value == 0.0 || !(1e-3..1e15).contains(&value.abs()) {
        return if value == 0.0 {
            "0".to_owned()
        } else {
            format!("{value:.3e}")
        };
    }
    let decimals = (3 - value.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(values: &[&str]) -> Vec<String> {
        values.iter().map(|v| (*v).to_owned()).collect()
    }

    fn column<'a>(numeric: bool, x: &'a [String], y: &'a [String]) -> ColumnValues<'a> {
        ColumnValues {
            name: "lang",
            numeric,
            reference: x,
            current: y,
            queries: None,
        }
    }

    #[test]
    fn a_column_that_is_mostly_zero_has_two_ranges() {
        let numbers: Vec<String> = (0..200)
            .map(|i| {
                if i % 10 == 0 {
                    i.to_string()
                } else {
                    "0".to_owned()
                }
            })
            .collect();
        let slicing = Slicing::of_column(column(true, &numbers, &numbers), 1);
        assert_eq!(slicing.names, ["below 10", "10 and above"]);
    }

    #[test]
    fn values_are_slices_missing_ones_too_and_rare_ones_are_left_together() {
        let x = texts(&["de", "de", "en", "en", "en", "", "", "fr"]);
        let y = texts(&["en", "de", "", "it"]);
        let queries = texts(&["de", "xx", ""]);
        let values = ColumnValues {
            queries: Some(&queries),
            ..column(false, &x, &y)
        };
        let found = Slicing::of_column(values, 2);
        assert_eq!(found.names, ["en", "(missing)", "de"]);
        assert_eq!(found.reference, [2, 2, 0, 0, 0, 1, 1, 3]);
        assert_eq!(found.current.as_deref(), Some(&[0, 2, 1, 3][..]));
        assert_eq!(found.queries.as_deref(), Some(&[2, NOWHERE, 1][..]));
        assert_eq!((found.rare_values, found.kind), (2, SlicingKind::Values));
        assert!(!found.is_trivial());
        assert!(
            Slicing::of_column(column(false, &texts(&["a"; 3]), &texts(&["a"])), 1).is_trivial()
        );
    }

    #[test]
    fn many_numbers_are_cut_into_ranges_few_are_values() {
        let x: Vec<String> = (0..50).map(|i| i.to_string()).collect();
        let mut y: Vec<String> = (50..100).map(|i| format!("{i}.0")).collect();
        y[3] = String::new();
        y[4] = "NaN".to_owned();
        let found = Slicing::of_column(column(true, &x, &y), 1);
        assert_eq!(found.kind, SlicingKind::Ranges);
        let mut names = found.names.clone();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "(missing)",
                "19 to 39",
                "39 to 60",
                "60 to 80",
                "80 and above",
                "below 19"
            ]
        );
        let few = texts(&["1", "2", "2"]);
        let found = Slicing::of_column(column(true, &few, &few), 1);
        assert_eq!(found.kind, SlicingKind::Values);
        assert_eq!(found.names, ["2", "1"]);
        // Half of all rows have one value: fewer ranges, none of them empty.
        let mut lumpy: Vec<String> = vec!["0".to_owned(); 100];
        lumpy.extend((1..100).map(|i| i.to_string()));
        let found = Slicing::of_column(column(true, &lumpy, &lumpy), 1);
        assert!(
            found.names.len() < 5 && found.names.contains(&"below 20".to_owned()),
            "{:?}",
            found.names
        );
    }

    #[test]
    fn crossed_columns_have_the_cells_that_are_large_enough() {
        let x = texts(&["a", "a", "a", "b", "b", "b"]);
        let u = texts(&["1", "1", "2", "2", "2", "1"]);
        let (by_x, by_u) = (
            Slicing::of_column(column(false, &x, &x), 1),
            Slicing::of_column(
                ColumnValues {
                    name: "n",
                    ..column(false, &u, &u)
                },
                1,
            ),
        );
        let crossed = by_x.crossed(&by_u, 2).unwrap();
        assert_eq!(crossed.by, "lang × n");
        assert_eq!(crossed.names, ["lang = a, n = 1", "lang = b, n = 2"]);
        assert_eq!(crossed.reference, [0, 0, 2, 1, 1, 2]);
        assert_eq!(by_x.crossed(&by_u, 7), None);
    }

    #[test]
    fn cuts_are_short() {
        let found = [0.0, 19.0, 0.12345, 123_456.0, 2.5, 1e-9].map(short);
        assert_eq!(found, ["0", "19", "0.1235", "123456", "2.5", "1.000e-9"]);
    }
}
