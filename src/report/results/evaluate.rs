//! What `evaluate` shows.

use super::{Column, Item, Output, Page, Section, Table, Value, facts};
use crate::evaluate::{Evaluation, TaskScore};

/// Metrics whose names say so are too many to read: how scores tell quality, per cut-off.
const DETAIL: &str = "nauc_";

/// The page of an evaluation.
pub fn evaluate_page<C>(output: &Output<C, Evaluation>) -> Page {
    let found = &output.results;
    let sections = found.tasks.iter().map(task_section).collect();
    Page {
        title: format!("evaluate {}", found.suite),
        subtitle: format!(
            "{} task{}{}; {} ({})",
            Value::from(found.tasks.len()),
            if found.tasks.len() == 1 { "" } else { "s" },
            match &found.reduction {
                Some(reduction) => format!(", vectors reduced to {reduction}"),
                None => String::new(),
            },
            output.device.name,
            output.device.backend
        ),
        key_numbers: vec![summary_table(found)],
        warnings: output.warnings.clone(),
        sections,
        facts: facts(output),
        ..Page::default()
    }
}

/// Tasks and means.
fn summary_table(found: &Evaluation) -> Table {
    let task = |task: &TaskScore| {
        vec![
            task.label().into(),
            task.task_type.clone().into(),
            task.main_metric.clone().into(),
            task.main_score.into(),
            task.items.into(),
        ]
    };
    let mut rows: Vec<Vec<Value>> = found.tasks.iter().map(task).collect();
    for (name, value) in [
        ("Mean (Task)", found.mean_task),
        ("Mean (TaskType)", found.mean_task_type),
    ] {
        rows.push(vec![name.into(), "".into(), "".into(), value.into()]);
    }
    Table {
        caption: "Scores".to_owned(),
        columns: vec![
            Column::left("task"),
            Column::left("type"),
            Column::left("metric"),
            Column::right("score"),
            Column::right("items"),
        ],
        rows,
    }
}

fn task_section(task: &TaskScore) -> Section {
    let rows = task
        .scores
        .iter()
        .filter(|(name, _)| !name.starts_with(DETAIL))
        .map(|(name, value)| vec![name.into(), value.into()]);
    Section {
        id: task
            .label()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-"),
        title: task.label(),
        lead: format!(
            "{}: {} is {} over {} items.",
            task.task_type,
            task.main_metric,
            Value::from(task.main_score),
            Value::from(task.items)
        ),
        items: vec![Item::Table(Table {
            caption: format!("Metrics of {}", task.label()),
            columns: vec![Column::left("metric"), Column::right("value")],
            rows: rows.collect(),
        })],
    }
}

/// The scores as a Markdown table for a model card.
pub fn model_card(found: &Evaluation) -> String {
    let mut text = format!(
        "## {}\n\n| Task | Type | Metric | Score |\n|:--|:--|:--|--:|\n",
        found.suite.replace('|', "\\|")
    );
    let percent =
        |score: Option<f64>| score.map_or("n/a".to_owned(), |s| format!("{:.2}", 100.0 * s));
    for task in &found.tasks {
        text += &format!(
            "| {} | {} | {} | {} |\n",
            task.label().replace('|', "\\|"),
            task.task_type,
            task.main_metric,
            percent(task.main_score)
        );
    }
    text += &format!("| **Mean (Task)** | | | {} |\n", percent(found.mean_task));
    text += &format!(
        "| **Mean (TaskType)** | | | {} |\n",
        percent(found.mean_task_type)
    );
    if let Some(reduction) = &found.reduction {
        text += &format!("\nVectors reduced to {reduction}.\n");
    }
    text
}

/// Every metric as CSV, one per line; what is undefined is empty.
pub fn scores_csv(found: &Evaluation) -> String {
    let quoted = |text: &str| {
        if text.contains([',', '"', '\n']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let mut text = "task,subset,split,type,metric,value,main\n".to_owned();
    for task in &found.tasks {
        for (metric, value) in task.scores.iter() {
            text += &format!(
                "{},{},{},{},{metric},{},{}\n",
                quoted(&task.task),
                quoted(&task.subset),
                quoted(&task.split),
                task.task_type,
                value.map_or(String::new(), |v| v.to_string()),
                u8::from(metric == task.main_metric)
            );
        }
    }
    text
}
