//! Faults of the data that take a look at all values: their precision, near-duplicates, odd batches.

use super::AuditConfig;
use super::measure::{DataFaults, SideFaults};
use super::slices::SliceColumn;
use super::verdict::{AxisState, Evidence, Policy};
use crate::embeddings::Embeddings;
use crate::metrics::batches::{self, BatchCheck, BatchFault};
use crate::metrics::precision::{Precision, ValuePrecision};
use crate::metrics::slices::{ColumnValues, Slicing, SlicingKind};
use crate::stats::counts::newcombe_ci95;

/// Sets whose sizes differ by more have other densities, and other shares of near-duplicates.
const COMPARABLE_SIZES: u64 = 2;

/// Holds the values of every column to slice by against each other, within either set.
pub(super) fn batches(
    [reference, current]: [&Embeddings; 2],
    columns: &[SliceColumn],
    config: &AuditConfig,
) -> [Vec<BatchCheck>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for column in columns {
        let name = &column.name;
        let (Some(x), Some(y)) = (reference.column(name), current.column(name)) else {
            continue;
        };
        let slicing = Slicing::of_column(
            ColumnValues {
                name,
                numeric: column.numeric,
                reference: x,
                current: y,
                queries: None,
            },
            config.min_slice_rows,
        );
        let Some(of_current) = &slicing.current else {
            continue;
        };
        if !matches!(slicing.kind, SlicingKind::Values | SlicingKind::Ranges) {
            continue;
        }
        let sides = [(reference, &slicing.reference), (current, of_current)];
        for (found, (set, labels)) in found.iter_mut().zip(sides) {
            let names = &slicing.names;
            let seed = config.seed;
            let checks = batches::check_batches(name, set.rows(), &set.ids, labels, names, seed);
            found.extend(checks);
        }
    }
    found
}

/// What these faults say, as evidence on the data.
pub(super) fn evidence(data: &DataFaults, policy: &Policy) -> Vec<Evidence> {
    let sides = [("reference", &data.reference), ("current", &data.current)];
    let mut found: Vec<Evidence> = sides
        .iter()
        .filter_map(|(name, side)| mixed_precision(name, side, policy))
        .collect();
    found.extend(other_precision(data));
    found.extend(near_duplicates(data, policy));
    let [x, y] = [&data.reference, &data.current];
    found.extend(odd_batches("reference", x, y));
    found.extend(odd_batches("current", y, x));
    found
}

fn fact(measure: String, estimate: f64, n: u64, threshold: f64) -> Evidence {
    Evidence {
        measure,
        estimate: Some(estimate),
        ci95: None,
        n: Some(n),
        exact: true,
        floor: None,
        threshold: Some(threshold),
        state: AxisState::Ok,
        statement: String::new(),
    }
}

/// Rows of several precisions in one set.
fn mixed_precision(name: &str, side: &SideFaults, policy: &Policy) -> Option<Evidence> {
    let found = side.precision.as_ref()?;
    let [main, others @ ..] = found.rows.as_slice() else {
        return None;
    };
    let rows: u64 = found.rows.iter().map(|count| count.rows).sum();
    let share = (rows - main.rows) as f64 / rows as f64;
    let measure = format!("share of rows of another precision, {name}");
    let evidence = fact(measure, share, rows, policy.max_faulty_share);
    let Some(first) = others.first().filter(|_| share > policy.max_faulty_share) else {
        return Some(Evidence {
            statement: format!("the {name} values are {} throughout", main.precision.name()),
            ..evidence
        });
    };
    let coarse = found
        .rows
        .iter()
        .any(|count| count.precision == Precision::Int8);
    Some(Evidence {
        // Eight bits beside more are two pipelines; halves beside singles lie within rounding of each other.
        state: if coarse {
            AxisState::Broken
        } else {
            AxisState::Shifted
        },
        statement: format!(
            "{} of {rows} {name} rows hold {} values (first \"{}\") among {}: they were stored or made another way",
            first.rows,
            first.precision.name(),
            first.first_ids.first().map_or("", String::as_str),
            main.precision.name()
        ),
        ..evidence
    })
}

/// Sets of different precision.
fn other_precision(data: &DataFaults) -> Option<Evidence> {
    let sides = [&data.reference, &data.current];
    let [x, y] = sides.map(|side| side.precision.as_ref().and_then(ValuePrecision::main));
    let (x, y) = (x?, y?);
    let same = x == y;
    let measure = "precision of the values, on both sides".to_owned();
    let rows = data.reference.rows + data.current.rows;
    Some(Evidence {
        state: if same {
            AxisState::Ok
        } else {
            AxisState::Shifted
        },
        statement: if same {
            format!("both sides hold {} values", x.name())
        } else {
            format!(
                "the reference holds {} values, current {}: tests between them find the rounding too; bring both to one type first",
                x.name(),
                y.name()
            )
        },
        ..fact(measure, f64::from(u8::from(!same)), rows, 0.0)
    })
}

/// Growth of the share of rows that have a near-duplicate.
fn near_duplicates(data: &DataFaults, policy: &Policy) -> Option<Evidence> {
    let (x, y) = (
        data.reference.near_duplicates.as_ref()?,
        data.current.near_duplicates.as_ref()?,
    );
    let (old, new) = (x.headline()?, y.headline()?);
    let ci95 = newcombe_ci95(old.hits, x.rows, new.hits, y.rows);
    let sizes = [data.reference.rows, data.current.rows];
    let comparable = sizes[0].max(sizes[1]) <= COMPARABLE_SIZES * sizes[0].min(sizes[1]);
    let grown = comparable && ci95[0] > policy.max_duplicate_growth;
    let measure = format!(
        "growth of the share of rows with another at a cosine of {} or more",
        old.cosine
    );
    Some(Evidence {
        ci95: Some(ci95),
        exact: x.exact && y.exact,
        state: if grown {
            AxisState::Shifted
        } else {
            AxisState::Ok
        },
        statement: format!(
            "{:.2} % of the reference rows and {:.2} % of the current ones have a near-duplicate (cosine of {} or more, {} and {} rows asked){}",
            100.0 * old.share,
            100.0 * new.share,
            old.cosine,
            x.rows,
            y.rows,
            if comparable {
                ""
            } else {
                "; sets of such different sizes are not compared"
            }
        ),
        ..fact(
            measure,
            new.share - old.share,
            x.rows + y.rows,
            policy.max_duplicate_growth,
        )
    })
}

/// Batches of a set that were made another way; `other` is the other set.
fn odd_batches(name: &str, side: &SideFaults, other: &SideFaults) -> Option<Evidence> {
    let certain = |batch: &BatchCheck| -> Vec<BatchFault> {
        let faults = batch.faults.iter().copied();
        faults.filter(|fault| !fault.may_be_a_topic()).collect()
    };
    let odd: Vec<&BatchCheck> = side
        .batches
        .iter()
        .filter(|b| b.is_made_another_way())
        .collect();
    let measure = format!("batches made another way, {name}");
    let rows: u64 = side.batches.iter().map(|b| b.rows).sum();
    if side.batches.is_empty() {
        return None;
    }
    let evidence = fact(measure, odd.len() as f64, rows, 0.0);
    let as_on_the_other_side = |batch: &&&BatchCheck| {
        let same = other
            .batches
            .iter()
            .find(|b| b.by == batch.by && b.name == batch.name);
        same.is_some_and(|same| certain(same) == certain(batch))
    };
    let known = odd.iter().filter(as_on_the_other_side).count();
    let new = odd.iter().find(|batch| !as_on_the_other_side(batch));
    let squeezed = side.batches.iter().filter(|b| !b.faults.is_empty()).count() - odd.len();
    let Some(first) = new.or(odd.first()) else {
        return Some(Evidence {
            statement: format!(
                "no batch of {} {name} ones was made another way{}",
                side.batches.len(),
                match squeezed {
                    0 => String::new(),
                    n => format!("; {n} of them fill few directions, as single topics do"),
                }
            ),
            ..evidence
        });
    };
    let faults: Vec<&str> = certain(first).iter().map(|fault| fault.label()).collect();
    let detail = match first.faults[0] {
        BatchFault::TrailingZeros => format!(
            " ({:.0} % of its rows, {} zeros)",
            100.0 * first.cut_share,
            first.trailing_zeros
        ),
        BatchFault::ConstantCoordinates => {
            format!(" ({} of {})", first.constant_coordinates, side.dim)
        }
        BatchFault::Norm => format!(
            " ({:.3}, all others {:.3})",
            first.median_norm, first.median_norm_others
        ),
        BatchFault::EffectiveDimension => String::new(),
    };
    Some(Evidence {
        state: if new.is_some() {
            AxisState::Broken
        } else {
            AxisState::Shifted
        },
        statement: format!(
            "{name} rows with {} = {} ({} rows): {}{detail}{}{}",
            first.by,
            first.name,
            first.rows,
            faults.join(", "),
            match odd.len() - 1 {
                0 => String::new(),
                n => format!("; {n} more batches are odd"),
            },
            match known {
                0 => String::new(),
                n => format!("; {n} of them on both sides"),
            }
        ),
        ..evidence
    })
}
