//! Topics that came and went, as a section.

use super::*;
use crate::audit::TopicTurnover;

pub(super) fn topics_section(found: &TopicTurnover) -> Section {
    let mut items = Vec::new();
    if let Some(emerging) = &found.emerging {
        items.push(Item::Note(format!(
            "{} current rows were held against {} of the reference. Rows far from every topic: {} of the current set, {} of reference rows held out.",
            Value::Count(emerging.judged_rows),
            Value::Count(emerging.reference_rows),
            Value::Percent(emerging.far_share_current),
            Value::Percent(emerging.far_share_reference),
        )));
        if emerging.groups.is_empty() {
            items.push(Item::Note(format!(
                "No new topic: no group of {} of the rows or more.",
                Value::Percent(emerging.smallest_share)
            )));
        } else {
            items.push(Item::Table(Table {
                caption: format!(
                    "New topics: {} of the rows",
                    Value::percent_interval(emerging.share, emerging.share_ci95)
                ),
                columns: vec![
                    Column::left("such as"),
                    Column::right("rows"),
                    Column::right("share"),
                    Column::right("beyond the reference's [95 % interval]"),
                    Column::right("far rows, current"),
                    Column::right("far rows, held-out reference"),
                    Column::right("p, corrected"),
                ],
                rows: emerging
                    .groups
                    .iter()
                    .take(LISTED)
                    .map(|group| {
                        vec![
                            group.representatives.join(", ").into(),
                            Value::Count(group.rows),
                            Value::Percent(group.share),
                            Value::percent_interval(group.excess, group.excess_ci95),
                            Value::Count(group.far_current),
                            Value::Count(group.far_reference),
                            Value::PValue {
                                p: group.p_value_holm,
                                floor: 1e-6,
                            },
                        ]
                    })
                    .collect(),
            }));
        }
    }
    if found.vanishing.is_empty() {
        items.push(Item::Note(
            "No topic of the reference fell to less than half its share.".to_owned(),
        ));
    } else {
        items.push(Item::Table(Table {
            caption: "Topics of which less than half is left".to_owned(),
            columns: vec![
                Column::left("cluster"),
                Column::right("reference"),
                Column::right("current"),
                Column::right("ratio of shares [95 % interval]"),
                Column::right("p, corrected"),
            ],
            rows: found
                .vanishing
                .iter()
                .take(LISTED)
                .map(|topic| {
                    let interval = topic.ratio_ci95[0].zip(topic.ratio_ci95[1]);
                    vec![
                        format!("{} ({})", topic.name, topic.representatives.join(", ")).into(),
                        Value::Count(topic.n_reference),
                        Value::Count(topic.n_current),
                        estimate(topic.ratio, interval.map(|(low, high)| [low, high])),
                        Value::PValue {
                            p: topic.p_value_fdr,
                            floor: 1e-6,
                        },
                    ]
                })
                .collect(),
        }));
    }
    Section {
        id: "topics".to_owned(),
        title: "Topics that came and went".to_owned(),
        lead: "Rows of the current set far from everything the reference holds, where many of them lie together; and topics of the reference of which less than half is left.".to_owned(),
        items,
    }
}
