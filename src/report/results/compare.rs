//! What `compare` shows.

use super::{
    Column, Figure, IntervalRow, Item, Output, Page, Plot, Section, Table, Tone, Value, Verdict,
    facts,
};
use crate::evaluate::compare::{Comparison, PairComparison, TaskComparison};
use crate::stats::paired::PairedDifference;

/// The page of a comparison.
pub fn compare_page<C>(output: &Output<C, Comparison>) -> Page {
    let found = &output.results;
    let mut key_numbers: Vec<Table> = found.pairs.iter().map(tasks_table).collect();
    if found.ranking.len() > 2 {
        key_numbers.push(ranking_table(found));
    }
    let mut warnings = output.warnings.clone();
    for pair in &found.pairs {
        if !pair.unshared_tasks.is_empty() {
            warnings.push(format!(
                "{} against {}: tasks that are not on both sides: {}",
                pair.current,
                pair.reference,
                pair.unshared_tasks.join(", ")
            ));
        }
        for task in pair.tasks.iter().filter(|t| t.unshared_items > 0) {
            warnings.push(format!(
                "{}: {} items are on one side only and take no part in the test",
                task.task, task.unshared_items
            ));
        }
    }
    let names: Vec<&str> = found.ranking.iter().map(|r| r.run.as_str()).collect();
    Page {
        title: match &found.pairs[..] {
            [pair] => format!("{} → {}", pair.reference, pair.current),
            _ => format!("compare {}", names.join(", ")),
        },
        subtitle: "differences are current − reference, paired by item; p-values after Holm"
            .to_owned(),
        verdict: match &found.pairs[..] {
            [pair] => Some(verdict(pair)),
            _ => None,
        },
        key_numbers,
        warnings,
        sections: found.pairs.iter().map(section).collect(),
        facts: facts(output),
        ..Page::default()
    }
}

fn verdict(pair: &PairComparison) -> Verdict {
    let undecided = pair.tasks.len() - pair.better - pair.worse;
    let (action, tone) = match (pair.better, pair.worse) {
        (0, 0) => ("No difference shown", Tone::Undecided),
        (_, 0) => ("Better", Tone::Good),
        (0, _) => ("Worse", Tone::Severe),
        _ => ("Better on some, worse on others", Tone::Caution),
    };
    Verdict {
        action: action.to_owned(),
        reason: format!(
            "{} is better on {}, worse on {}, and not shown to differ on {undecided} of {} tasks (5 % level, Holm).",
            pair.current,
            pair.better,
            pair.worse,
            pair.tasks.len()
        ),
        tone,
    }
}

fn difference(found: Option<&PairedDifference>) -> Value {
    match found {
        None => Value::Missing(None),
        Some(d) => match d.ci95 {
            Some(ci95) => Value::interval(d.mean, ci95),
            None => d.mean.into(),
        },
    }
}

fn tasks_table(pair: &PairComparison) -> Table {
    let row = |task: &TaskComparison| {
        vec![
            task.task.clone().into(),
            task.reference.into(),
            task.current.into(),
            difference(task.difference.as_ref()),
            task.p_value_holm.into(),
        ]
    };
    let mut rows: Vec<Vec<Value>> = pair.tasks.iter().map(row).collect();
    let mean = match (pair.mean_task_difference, pair.mean_task_ci95) {
        (Some(estimate), Some(ci95)) => Value::interval(estimate, ci95),
        (estimate, _) => estimate.into(),
    };
    rows.push(vec!["Mean (Task)".into(), "".into(), "".into(), mean]);
    Table {
        caption: format!("{} against {}", pair.current, pair.reference),
        columns: vec![
            Column::left("task"),
            Column::right("reference"),
            Column::right("current"),
            Column::right("difference"),
            Column::right("p (Holm)"),
        ],
        rows,
    }
}

fn ranking_table(found: &Comparison) -> Table {
    Table {
        caption: "Borda count over tasks".to_owned(),
        columns: vec![
            Column::left("run"),
            Column::right("rank"),
            Column::right("points"),
            Column::right("Mean (Task)"),
            Column::right("Mean (TaskType)"),
        ],
        rows: found
            .ranking
            .iter()
            .map(|run| {
                vec![
                    run.run.clone().into(),
                    run.rank.into(),
                    run.borda.into(),
                    run.mean_task.into(),
                    run.mean_task_type.into(),
                ]
            })
            .collect(),
    }
}

fn section(pair: &PairComparison) -> Section {
    let rows = pair.tasks.iter().map(|task| IntervalRow {
        label: task.task.clone(),
        estimate: task.difference.as_ref().map(|d| d.mean),
        interval: task.difference.as_ref().and_then(|d| d.ci95),
        margin: None,
    });
    let counts = |task: &TaskComparison| {
        let difference = task.difference.as_ref();
        vec![
            task.task.clone().into(),
            task.metric.clone().into(),
            task.items.into(),
            difference.map(|d| d.wins).into(),
            difference.map(|d| d.ties).into(),
            difference.map(|d| d.losses).into(),
            difference.and_then(|d| d.minimum_detectable).into(),
            match &task.mcnemar {
                Some(m) => {
                    format!("+{} −{}, p = {}", m.gained, m.lost, Value::from(m.p_value)).into()
                }
                None => "".into(),
            },
            task.test.clone().into(),
        ]
    };
    let mut items = vec![
        Item::Figure(Figure {
            title: "Differences with their 95 % intervals".to_owned(),
            reading: "Right of the line the current run is better.".to_owned(),
            plot: Plot::Intervals {
                x_label: "difference of the main score".to_owned(),
                no_effect: Some(0.0),
                rows: rows.collect(),
            },
        }),
        Item::Table(Table {
            caption: "Items".to_owned(),
            columns: vec![
                Column::left("task"),
                Column::left("metric"),
                Column::right("items"),
                Column::right("wins"),
                Column::right("ties"),
                Column::right("losses"),
                Column::right("smallest effect seen (80 % power)"),
                Column::left("McNemar"),
                Column::left("test"),
            ],
            rows: pair.tasks.iter().map(counts).collect(),
        }),
    ];
    for task in pair.tasks.iter().filter(|t| !t.worst_items.is_empty()) {
        items.push(Item::Table(Table {
            caption: format!("{}: items that lost most", task.task),
            columns: vec![
                Column::left("id"),
                Column::right("reference"),
                Column::right("current"),
            ],
            rows: task
                .worst_items
                .iter()
                .map(|i| vec![i.id.clone().into(), i.reference.into(), i.current.into()])
                .collect(),
        }));
    }
    Section {
        id: format!(
            "against-{}",
            pair.current
                .replace(|c: char| !c.is_ascii_alphanumeric(), "-")
        ),
        title: format!("{} against {}", pair.current, pair.reference),
        lead: verdict(pair).reason,
        items,
    }
}
