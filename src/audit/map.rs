//! The map of the corpus with what is known of its points.

use super::PairingKind;
use super::slices::Known;
use crate::engine::Engine;
use crate::error::Result;
use crate::metrics::map::{self, CorpusMap, MapPoint, MapShade, MappedSet};
use crate::metrics::slices::{Slicing, SlicingKind};

/// Draws the map and colours it by what became of items and by slices.
pub(super) fn map(
    engine: &Engine,
    known: &Known<'_>,
    slicings: &[Slicing],
    seed: u64,
) -> Result<Option<CorpusMap>> {
    let (reference, current) = (known.reference, known.current);
    let one_space =
        known.comparability.relation.shares_coordinates() && reference.dim() == current.dim();
    let identities = known.pairing != PairingKind::Unpaired;
    let sides = [reference, current].map(|set| MappedSet {
        rows: set.rows(),
        ids: &set.ids,
    });
    let found = map::map(engine, sides[0], sides[1], (one_space, identities), seed)?;
    Ok(found.map(|mut found| {
        found.shades = item_shades(known, &found.points);
        let uncrossed = slicings.iter().filter(|s| s.kind != SlicingKind::Crossed);
        let of_slices = uncrossed.map(|slicing| slice_shade(slicing, &found.points));
        found.shades.extend(of_slices);
        found
    }))
}

/// What moved, measured in the whole space and not on the map; most telling first.
fn item_shades(known: &Known<'_>, points: &[MapPoint]) -> Vec<MapShade> {
    let Some(items) = known.items else {
        return Vec::new();
    };
    let mut shared: Vec<Option<u32>> = vec![None; known.reference.len()];
    for (i, (row, _)) in (0..).zip(&known.join.shared) {
        shared[*row as usize] = Some(i);
    }
    let mut queried: Vec<Option<u32>> = vec![None; known.join.shared.len()];
    for (i, row) in (0..).zip(&items.neighbourhoods.rows) {
        queried[*row as usize] = Some(i);
    }
    // Only points that are in both sets are items that can have moved.
    let shared_row = |point: &MapPoint| {
        let (row, _) = point.reference?;
        shared[row as usize].map(|i| i as usize)
    };
    let number = |name: &str, value: &dyn Fn(usize) -> Option<f64>| MapShade::Number {
        name: name.to_owned(),
        values: points
            .iter()
            .map(|point| value(shared_row(point)?))
            .collect(),
    };
    let of_item = |row: usize| queried[row].map(|i| i as usize);
    let o = &items.neighbourhoods;
    let k = known.overlap_k;
    let mut shades = vec![
        number(&format!("neighbours lost of {k}"), &|row| {
            Some(((1.0 - o.overlap[of_item(row)?]) * k as f64).round())
        }),
        number("displacement", &|row| o.displacement[of_item(row)?]),
    ];
    if let Some(cosine) = &items.paired_cosine {
        shades.push(number("1 − cosine of old and new vector", &|row| {
            Some(1.0 - cosine[row])
        }));
    }
    shades
}

fn slice_shade(slicing: &Slicing, points: &[MapPoint]) -> MapShade {
    let name = |slice: u32| ((slice as usize) < slicing.names.len()).then_some(slice);
    MapShade::Slice {
        by: slicing.by.clone(),
        names: slicing.names.clone(),
        of: points
            .iter()
            .map(|point| match (point.reference, point.current) {
                (Some((row, _)), _) => name(slicing.reference[row as usize]),
                (None, Some((row, _))) => name(slicing.current.as_ref()?[row as usize]),
                (None, None) => None,
            })
            .collect(),
    }
}
