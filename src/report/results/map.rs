//! The map of the corpus, as a section.

use super::*;
use crate::metrics::map::{CorpusMap, MapLayout, MapShade};

pub(super) fn map_section(found: &CorpusMap) -> Section {
    let layout = match found.layout {
        MapLayout::ReferencePca => {
            "Layout: the first two principal components of the reference's unit vectors, for both sides, so that positions compare."
        }
        MapLayout::AlignedPca => {
            "Layout: each side's own first two principal components of unit vectors, the current side turned onto the reference by orthogonal Procrustes over shared items. The spaces differ: shapes compare, distances between the panels do not."
        }
        MapLayout::SeparatePca => {
            "Layout: each side's own first two principal components of unit vectors. The spaces differ and no items are shared: only shapes compare."
        }
    };
    let share = |share: Option<f64>| share.map_or(Value::Missing(None), Value::Percent);
    let drawn = if found.exact {
        "all rows"
    } else {
        "those whose ids hash lowest"
    };
    let panel =
        |name: &str, side: &dyn Fn(&crate::metrics::map::MapPoint) -> Option<[f32; 2]>| Panel {
            name: name.to_owned(),
            points: found.points.iter().map(side).collect(),
        };
    let shades = found.shades.iter().map(|shade| match shade {
        MapShade::Number { name, values } => Shade {
            name: name.clone(),
            values: ShadeValues::Numbers(values.iter().map(|v| v.map(short)).collect()),
        },
        MapShade::Slice { by, names, of } => Shade {
            name: by.clone(),
            values: ShadeValues::Names {
                names: names.clone(),
                of: of.clone(),
            },
        },
    });
    Section {
        id: "map".to_owned(),
        title: "Map".to_owned(),
        lead: "Where in the corpus the drift is. A picture to look at: no finding rests on it."
            .to_owned(),
        items: vec![Item::Figure(Figure {
            title: "The corpus in two dimensions, before and after".to_owned(),
            reading: format!(
                "{layout} They show {} of the variance of the reference and {} of the current set; {} and {} rows, {drawn}.",
                share(found.variance_share[0]),
                share(found.variance_share[1]),
                Value::Count(found.rows[0]),
                Value::Count(found.rows[1]),
            ),
            plot: Plot::Scatter {
                x_label: String::new(),
                y_label: String::new(),
                ids: found.points.iter().map(|point| point.id.clone()).collect(),
                panels: vec![
                    panel("reference", &|point| {
                        point.reference.map(|(_, at)| at.map(coordinate))
                    }),
                    panel("current", &|point| {
                        point.current.map(|(_, at)| at.map(coordinate))
                    }),
                ],
                shades: shades.collect(),
            },
        })],
    }
}

/// To four decimals, finer than a pixel of a map a thousandfold enlarged, and short in the page.
fn coordinate(v: f32) -> f32 {
    (v * 1e4).round() / 1e4
}

/// A value to four significant digits: it is read off a colour or a tip.
fn short(v: f64) -> f32 {
    if v == 0.0 || !v.is_finite() {
        return 0.0;
    }
    let unit = 10f64.powi(3 - v.abs().log10().floor() as i32);
    ((v * unit).round() / unit) as f32
}
