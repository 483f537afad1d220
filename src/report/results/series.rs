//! What `series` shows.

use std::collections::HashMap;
use std::path::Path;

use super::{
    Column, Figure, Item, Line, Mark, Output, Page, Plot, Point, Role, Section, Table, Tone, Value,
    Verdict, XAxis, capitalised, facts,
};
use crate::metrics::mmd::EquivalenceState;
use crate::metrics::series::{ControlChart, Series, Snapshot, Step};
use crate::metrics::sketch::{SketchEffect, SketchMmd};

/// Labels that an axis has room for.
const MOST_LABELS: usize = 12;

/// Clusters drawn.
const DRAWN_CLUSTERS: usize = 5;

/// The page of a series.
pub fn series_page<C>(output: &Output<C, Series>) -> Page {
    let found = &output.results;
    let names = short_names(&found.snapshots);
    let (first, last) = (&names[0], &names[names.len() - 1]);
    let mut key_numbers = vec![table(found, &names)];
    if !found.changes.points.is_empty() {
        key_numbers.push(changes_table(found, &names));
    }
    Page {
        title: format!("{first} → {last}: {} snapshots", names.len()),
        subtitle: format!(
            "effects are shares of a typical foreign topic (eps_eq), measured from sketches of all rows; {} blocks of ids",
            found.frame.blocks
        ),
        verdict: Some(verdict(found, &names)),
        key_numbers,
        warnings: output.warnings.clone(),
        sections: vec![
            drift(found, &names),
            changes(found, &names),
            corpus(found, &names),
        ],
        facts: facts(output),
        ..Page::default()
    }
}

/// File stems where they tell the snapshots apart, else the whole names.
fn short_names(snapshots: &[Snapshot]) -> Vec<String> {
    let stem = |s: &Snapshot| {
        let stem = Path::new(&s.name).file_stem().unwrap_or_default();
        stem.to_string_lossy().into_owned()
    };
    let mut counts: HashMap<String, usize> = HashMap::new();
    snapshots
        .iter()
        .for_each(|s| *counts.entry(stem(s)).or_insert(0) += 1);
    let apart = counts.values().all(|&n| n == 1);
    let name = |s: &Snapshot| if apart { stem(s) } else { s.name.clone() };
    snapshots.iter().map(name).collect()
}

fn verdict(found: &Series, names: &[String]) -> Verdict {
    let last = &found.snapshots[found.snapshots.len() - 1];
    let (first, name) = (&names[0], &names[names.len() - 1]);
    let said = |step: Option<&Step>| {
        let mmd = step.and_then(|step| step.mmd.as_ref());
        mmd.map_or("undefined".to_owned(), |mmd| effect(mmd).to_string())
    };
    let state = last
        .baseline
        .as_ref()
        .map(|step| (step.state, step.mmd.is_some()));
    let charts = [
        (&found.baseline_chart, "its distance from the first"),
        (&found.previous_chart, "its step from the one before"),
    ];
    let out: Vec<&str> = charts
        .iter()
        .filter(|(chart, _)| chart.out_of_control.last() == Some(&last.name))
        .map(|(_, what)| *what)
        .collect();
    let distance = format!(
        "{name} is {} from {first} and {} from the snapshot before, in eps_eq.",
        said(last.baseline.as_ref()),
        said(last.previous.as_ref())
    );
    let (action, reason, tone) = match state {
        Some((_, false)) => (
            "Another space",
            format!(
                "{name} and {first} do not share coordinates: another model or pipeline. Audit the two, and start a new series."
            ),
            Tone::Severe,
        ),
        _ if !out.is_empty() => (
            "Out of control",
            format!(
                "{}: above the limit set by history. {distance}",
                capitalised(&out.join(" and "))
            ),
            Tone::Caution,
        ),
        Some((EquivalenceState::Shifted, _)) => ("Drifted", distance, Tone::Caution),
        Some((EquivalenceState::Equivalent, _)) => {
            ("No drift beyond the margin", distance, Tone::Good)
        }
        _ => ("Undecided", distance, Tone::Undecided),
    };
    Verdict {
        action: action.to_owned(),
        reason,
        tone,
    }
}

fn effect(mmd: &SketchMmd) -> Value {
    match mmd.effect {
        SketchEffect {
            eps_eq: Some(eps),
            ci95: Some(ci95),
        } => Value::interval(eps, ci95),
        SketchEffect { eps_eq, .. } => eps_eq.into(),
    }
}

fn p_value(p: f64, draws: u32) -> Value {
    Value::PValue {
        p,
        floor: 1.0 / (1.0 + f64::from(draws)),
    }
}

fn of_step(step: Option<&Step>) -> Value {
    match step {
        None => "".into(),
        Some(Step { mmd: None, .. }) => "other space".into(),
        Some(Step { mmd: Some(mmd), .. }) => effect(mmd),
    }
}

fn table(found: &Series, names: &[String]) -> Table {
    let kept = |s: &Snapshot| s.previous.as_ref().and_then(|step| step.kinship.kept);
    // Row numbers tell nothing of what was kept.
    let with_kept = found.snapshots.iter().any(|s| kept(s).is_some());
    let p = |s: &Snapshot| {
        let mmd = s.previous.as_ref()?.mmd.as_ref()?;
        Some(p_value(mmd.p_value, mmd.draws))
    };
    let mut columns = vec![
        Column::left("snapshot"),
        Column::right("rows"),
        Column::right("ids kept"),
        Column::right("from first"),
        Column::right("last step"),
        Column::right("p of it"),
    ];
    let mut rows: Vec<Vec<Value>> = found
        .snapshots
        .iter()
        .zip(names)
        .map(|(s, name)| {
            vec![
                name.clone().into(),
                Value::Count(s.rows),
                kept(s).map_or("".into(), Value::Percent),
                of_step(s.baseline.as_ref()),
                of_step(s.previous.as_ref()),
                p(s).unwrap_or_else(|| "".into()),
            ]
        })
        .collect();
    if !with_kept {
        columns.remove(2);
        rows.iter_mut().for_each(|row| drop(row.remove(2)));
    }
    Table {
        caption: "Snapshots".to_owned(),
        columns,
        rows,
    }
}

/// Positions of the snapshots, named as far as there is room.
fn axis(names: &[String]) -> XAxis {
    let every = names.len().div_ceil(MOST_LABELS);
    let marks = names.iter().enumerate().step_by(every);
    XAxis::Labelled(
        marks
            .map(|(i, name)| Mark {
                at: i as f64,
                label: name.clone(),
            })
            .collect(),
    )
}

fn line(name: &str, role: Role, points: impl Iterator<Item = Option<Point>>) -> Line {
    Line {
        name: name.to_owned(),
        role,
        points: points.flatten().collect(),
    }
}

fn drift(found: &Series, names: &[String]) -> Section {
    let point = |i: usize, step: Option<&Step>| {
        let effect = &step?.mmd.as_ref()?.effect;
        Some(Point {
            x: i as f64,
            y: effect.eps_eq?,
            interval: effect.ci95,
        })
    };
    let of = |step: fn(&Snapshot) -> Option<&Step>| {
        found
            .snapshots
            .iter()
            .enumerate()
            .map(move |(i, s)| point(i, step(s)))
    };
    let path = found.snapshots.iter().enumerate().map(|(i, s)| {
        Some(Point {
            x: i as f64,
            y: s.path?,
            interval: None,
        })
    });
    let mut lines = vec![
        line(
            "from the first",
            Role::Measured,
            of(|s| s.baseline.as_ref()),
        ),
        line(
            "from the one before",
            Role::Measured,
            of(|s| s.previous.as_ref()),
        ),
        line("way gone", Role::Baseline, path),
    ];
    lines.retain(|line| !line.points.is_empty());
    let levels = [
        ("limit from the first", &found.baseline_chart),
        ("limit of a step", &found.previous_chart),
    ];
    let levels = levels.iter().filter_map(|(label, chart)| {
        Some(Mark {
            at: chart.upper?,
            label: (*label).to_owned(),
        })
    });
    let mut items = vec![
        Item::Figure(Figure {
            title: "How far the corpus has moved".to_owned(),
            reading: "Bars are 95 % intervals. A way much longer than the distance from the first means that steps lead back and forth.".to_owned(),
            plot: Plot::Curve {
                x_label: "snapshot".to_owned(),
                y_label: "eps_eq".to_owned(),
                x_axis: axis(names),
                series: lines,
                levels: levels.collect(),
            },
        }),
        Item::Table(charts(found)),
    ];
    for chart in [&found.baseline_chart, &found.previous_chart] {
        if let Some(note) = &chart.note {
            let note = Item::Note(format!("{}.", capitalised(note)));
            if !items.contains(&note) {
                items.push(note);
            }
        }
    }
    if let (Some(average), Some(upper)) =
        (&found.previous_chart.ewma, &found.previous_chart.ewma_upper)
    {
        let points = |values: &[f64]| -> Vec<Option<Point>> {
            let point = |(i, &y): (usize, &f64)| {
                Some(Point {
                    x: (i + 1) as f64,
                    y,
                    interval: None,
                })
            };
            values.iter().enumerate().map(point).collect()
        };
        items.push(Item::Figure(Figure {
            title: "Moving average of the steps".to_owned(),
            reading: "Small shifts that no single step shows add up; above the limit they are out of control.".to_owned(),
            plot: Plot::Curve {
                x_label: "snapshot".to_owned(),
                y_label: "eps_eq".to_owned(),
                x_axis: axis(names),
                series: vec![
                    line("moving average", Role::Measured, points(average).into_iter()),
                    line("limit", Role::Baseline, points(upper).into_iter()),
                ],
                levels: Vec::new(),
            },
        }));
    }
    Section {
        id: "drift".to_owned(),
        title: "Drift".to_owned(),
        lead: "Distances from the first snapshot show slow drift, those from the one before show jumps."
            .to_owned(),
        items,
    }
}

fn charts(found: &Series) -> Table {
    let row = |name: &str, chart: &ControlChart| {
        vec![
            name.into(),
            match chart.rule.as_deref() {
                Some("median_mad") => "median + 3 MAD, moving average".into(),
                Some(_) => "prediction limit (99 %)".into(),
                None => "none".into(),
            },
            Value::Count(chart.in_control as u64),
            chart.upper.into(),
            match &chart.out_of_control[..] {
                [] => "none".into(),
                names => names.join(", ").into(),
            },
        ]
    };
    Table {
        caption: "Control limits".to_owned(),
        columns: vec![
            Column::left("effect"),
            Column::left("rule"),
            Column::right("in control"),
            Column::right("limit"),
            Column::left("above it"),
        ],
        rows: vec![
            row("from the first", &found.baseline_chart),
            row("from the one before", &found.previous_chart),
        ],
    }
}

fn changes_table(found: &Series, names: &[String]) -> Table {
    let points = found.changes.points.iter();
    Table {
        caption: "Changes: the run before against the run from there on".to_owned(),
        columns: vec![Column::left("from"), Column::right("eps_eq")],
        rows: points
            .map(|point| vec![names[point.position].clone().into(), effect(&point.effect)])
            .collect(),
    }
}

fn changes(found: &Series, names: &[String]) -> Section {
    let changes = &found.changes;
    let lead = match (&changes.points[..], changes.p_value) {
        (_, None) if changes.points.is_empty() => "No change point is given.".to_owned(),
        ([], Some(p)) => format!(
            "No change point: a random order of the snapshots looks as divided in {} of cases.",
            Value::Percent(p)
        ),
        (points, p) => format!(
            "{} change{}{}.",
            points.len(),
            if points.len() == 1 { "" } else { "s" },
            p.map_or(String::new(), |p| format!(", p = {}", Value::from(p)))
        ),
    };
    let mut items = Vec::new();
    if !changes.points.is_empty() {
        items.push(Item::Table(changes_table(found, names)));
    }
    items.extend(
        changes
            .note
            .iter()
            .map(|note| Item::Note(format!("{}.", capitalised(note)))),
    );
    Section {
        id: "changes".to_owned(),
        title: "Change points".to_owned(),
        lead,
        items,
    }
}

fn corpus(found: &Series, names: &[String]) -> Section {
    let kinship = found.snapshots.iter().zip(names).filter_map(|(s, name)| {
        let kinship = &s.previous.as_ref()?.kinship;
        let share = |share: Option<f64>| share.map_or(Value::Missing(None), Value::Percent);
        Some(vec![
            name.clone().into(),
            share(kinship.kept),
            share(kinship.removed),
            share(kinship.re_embedded),
            Value::Count(s.excluded_rows),
            s.mean_resultant.into(),
            kinship.space.reason.clone().into(),
        ])
    });
    let mut items = vec![Item::Table(Table {
        caption: "Against the snapshot before".to_owned(),
        columns: vec![
            Column::left("snapshot"),
            Column::right("ids kept"),
            Column::right("ids removed"),
            Column::right("vectors changed"),
            Column::right("rows left out"),
            Column::right("mean resultant length"),
            Column::left("space"),
        ],
        rows: kinship.collect(),
    })];
    let lines: Vec<Line> = found
        .clusters
        .iter()
        .take(DRAWN_CLUSTERS)
        .map(|cluster| {
            let points = cluster.shares.iter().enumerate();
            let points = points.map(|(i, &share)| {
                Some(Point {
                    x: i as f64,
                    y: share,
                    interval: None,
                })
            });
            line(
                &format!("cluster of {}", cluster.medoid),
                Role::Measured,
                points,
            )
        })
        .collect();
    items.push(Item::Figure(Figure {
        title: "Clusters whose share moved most".to_owned(),
        reading: "Clusters of the first snapshot, each named by the row nearest to its centre."
            .to_owned(),
        plot: Plot::Curve {
            x_label: "snapshot".to_owned(),
            y_label: "share of rows".to_owned(),
            x_axis: axis(names),
            series: lines,
            levels: Vec::new(),
        },
    }));
    Section {
        id: "corpus".to_owned(),
        title: "Corpus".to_owned(),
        lead: "Ids and vectors are compared on the rows that sketches keep.".to_owned(),
        items,
    }
}
