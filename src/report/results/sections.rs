//! The sections of an audit's page, one per question.

use super::*;
use crate::metrics::dimensions::{AxisDrift, AxisTests};

/// Axes of a kind that are shown.
const LISTED_AXES: usize = 5;

pub(super) fn evidence_section(audit: &Audit) -> Section {
    let rows = audit
        .verdict
        .axes
        .iter()
        .flat_map(|axis| axis.evidence.iter().map(move |e| (axis, e)))
        .map(|(axis, e)| {
            vec![
                axis.axis.label().into(),
                e.measure.as_str().into(),
                e.estimate
                    .map_or(Value::Missing(None), |v| estimate(v, e.ci95)),
                e.floor.map_or(Value::Text(String::new()), Value::Number),
                e.threshold
                    .map_or(Value::Text(String::new()), Value::Setting),
                e.n.map_or(Value::Missing(None), Value::Count),
                Value::State {
                    state: state(e.state),
                    label: e.state.label().to_owned(),
                },
            ]
        })
        .collect();
    Section {
        id: "thresholds".to_owned(),
        title: "Thresholds".to_owned(),
        lead: "Each axis is judged by effect sizes against thresholds. The thresholds are policy, not statistics.".to_owned(),
        items: vec![Item::Table(Table {
            caption: "What the verdict rests on".to_owned(),
            columns: vec![
                Column::left("axis"),
                Column::left("measure"),
                Column::right("estimate [95 % interval]"),
                Column::right("noise floor"),
                Column::right("threshold"),
                Column::right("n"),
                Column::left("state"),
            ],
            rows,
        })],
    }
}

fn density(name: &str, histogram: &distribution::Histogram) -> Histogram {
    Histogram {
        name: name.to_owned(),
        edges: histogram.edges.clone(),
        counts: histogram.counts.clone(),
    }
}

/// Lengths of one side's vectors in 60 bins over both sides' range.
fn lengths(name: &str, own: &NormDistribution, other: &NormDistribution) -> Histogram {
    const BINS: usize = 60;
    let ends = [own.min, other.min, own.max, other.max].map(|v| v.unwrap_or(0.0));
    let (low, high) = (ends[0].min(ends[1]), ends[2].max(ends[3]));
    // Unit vectors differ by rounding only, which is no shape to draw.
    let width = ((high - low) / BINS as f64)
        .max(1e-4 * high.abs())
        .max(f64::MIN_POSITIVE);
    let mut counts = vec![0; BINS];
    for norm in &own.sorted {
        counts[(((norm - low) / width) as usize).min(BINS - 1)] += 1;
    }
    let edges = (0..=BINS).map(|i| low + width * i as f64).collect();
    Histogram {
        name: name.to_owned(),
        edges,
        counts,
    }
}

/// A mark at a mean, where there is one.
fn mean_mark(mean: Option<f64>, label: &str) -> Vec<Mark> {
    mean.map(|at| Mark {
        at,
        label: label.to_owned(),
    })
    .into_iter()
    .collect()
}

pub(super) fn data_section(data: &DataFaults) -> Section {
    let (a, b) = (&data.reference, &data.current);
    let count = |n: u64| Value::Count(n);
    let foreign = |side: &crate::audit::SideFaults| match &side.mixed_spaces {
        Some(found) => Value::Count(found.foreign_rows),
        None => Value::Missing(None),
    };
    let near = |side: &crate::audit::SideFaults| {
        let found = side.near_duplicates.as_ref().and_then(|n| n.headline());
        found.map_or(Value::Missing(None), |f| {
            Value::percent_interval(f.share, f.ci95)
        })
    };
    let precision = |side: &crate::audit::SideFaults| {
        let main = side.precision.as_ref().and_then(|p| p.main());
        main.map_or(Value::Missing(None), |main| main.name().into())
    };
    let mut section = Section {
        id: "data".to_owned(),
        title: "Data".to_owned(),
        lead: "Faults that no drift explains. Faulty rows take part in nothing else.".to_owned(),
        items: vec![
            Item::Table(sided(
                "Soundness of both sets",
                vec![
                    ("rows read", count(a.rows), count(b.rows)),
                    (
                        "null, non-finite or zero",
                        count(a.faulty_rows),
                        count(b.faulty_rows),
                    ),
                    ("rows from another vector space", foreign(a), foreign(b)),
                    (
                        "exact duplicates",
                        count(a.duplicate_rows),
                        count(b.duplicate_rows),
                    ),
                    ("near-duplicates, cosine of 0.99 or more", near(a), near(b)),
                    ("precision of the values", precision(a), precision(b)),
                    (
                        "constant coordinates",
                        count(a.constant_dimensions.len() as u64),
                        count(b.constant_dimensions.len() as u64),
                    ),
                    (
                        "norm outliers",
                        count(a.norms.outliers),
                        count(b.norms.outliers),
                    ),
                    ("norm, mean", number(a.norms.mean), number(b.norms.mean)),
                    (
                        "norm, standard deviation",
                        number(a.norms.std),
                        number(b.norms.std),
                    ),
                ],
            )),
            Item::Figure(Figure {
                title: "Lengths of the vectors".to_owned(),
                reading: format!(
                    "Normalised sets show a spike at 1. Kolmogorov–Smirnov distance {}.",
                    number(data.norm_shift.ks)
                ),
                plot: Plot::Densities {
                    x_label: "‖x‖".to_owned(),
                    series: vec![
                        lengths("reference", &a.norms, &b.norms),
                        lengths("current", &b.norms, &a.norms),
                    ],
                    marks: Vec::new(),
                },
            }),
        ],
    };
    section.items.extend(batches_table(data).map(Item::Table));
    section
}

/// The batches in which something is odd.
fn batches_table(data: &DataFaults) -> Option<Table> {
    let sides = [("reference", &data.reference), ("current", &data.current)];
    let all = sides
        .iter()
        .flat_map(|(name, side)| side.batches.iter().map(move |b| (name, b)));
    let rows: Vec<Vec<Value>> = all
        .filter(|(_, batch)| !batch.faults.is_empty())
        .take(LISTED)
        .map(|(name, batch)| {
            let faults: Vec<&str> = batch.faults.iter().map(|f| f.label()).collect();
            vec![
                (*name).into(),
                format!("{} = {}", batch.by, batch.name).into(),
                Value::Count(batch.rows),
                faults.join(", ").into(),
                Value::Percent(batch.cut_share),
                Value::Count(batch.constant_coordinates),
                number(batch.median_norm),
                number(batch.median_norm_others),
                number(batch.effective_dimension_ratio),
            ]
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        caption: "Odd batches, each against the other rows of its set".to_owned(),
        columns: vec![
            Column::left("set"),
            Column::left("batch"),
            Column::right("rows"),
            Column::left("what is odd"),
            Column::right("rows that end in zeros"),
            Column::right("constant coordinates"),
            Column::right("median length"),
            Column::right("all others'"),
            Column::right("directions filled, ratio"),
        ],
        rows,
    })
}

pub(super) fn coordinates_section(found: &Coordinates) -> Section {
    let mut items = Vec::new();
    let mut rows = Vec::new();
    if let Some(paired) = &found.paired_cosine {
        rows.extend([
            ("cosine of an item's two vectors, mean", number(paired.mean)),
            ("median", number(paired.median)),
            ("5th percentile", number(paired.p05)),
            ("smallest", number(paired.min)),
            (
                "share below 0.9",
                paired
                    .share_below_0_9
                    .map_or(Value::Missing(None), Value::Percent),
            ),
        ]);
    }
    rows.extend([
        (
            "mean cosine after a rotation, held out",
            number(heldout_cosine(found)),
        ),
        (
            "mean cosine after the best rotation, in sample",
            number(found.procrustes.as_ref().map(|p| p.mean_cosine)),
        ),
        (
            "Procrustes residual, relative",
            number(found.procrustes.as_ref().map(|p| p.residual_relative)),
        ),
        (
            "linear CKA, unbiased",
            number(found.linear_cka.cka_debiased),
        ),
        ("linear CKA, plug-in", number(found.linear_cka.cka_biased)),
    ]);
    items.push(Item::Table(named("Shared items, vector by vector", rows)));
    if let Some(paired) = &found.paired_cosine {
        items.push(Item::Figure(Figure {
            title: "Cosine between an item's old and new vector".to_owned(),
            reading: "At 1 nothing moved; around 0 the two vectors have nothing in common."
                .to_owned(),
            plot: Plot::Densities {
                x_label: "cosine".to_owned(),
                series: vec![density("items", &paired.histogram)],
                marks: mean_mark(paired.mean, "mean"),
            },
        }));
    }
    Section {
        id: "coordinates".to_owned(),
        title: "Coordinates".to_owned(),
        lead: "May old and new vectors stand in one index? Only if an item keeps its vector."
            .to_owned(),
        items,
    }
}

/// Neighbours of a most moved item that are shown on either side.
const NEIGHBOURS: usize = 4;
/// Characters of a text that are shown.
const TEXT: usize = 160;

/// The most moved items with the neighbours that they lost beside those that they gained.
fn moved_table(found: &Overlap, texts: &BTreeMap<String, String>) -> Option<Table> {
    if found.most_moved.is_empty() {
        return None;
    }
    let named = |id: &str| match texts.get(id) {
        Some(text) if !text.is_empty() => {
            let words: Vec<&str> = text.split_whitespace().collect();
            format!("{id}: {}", super::super::truncate(&words.join(" "), TEXT))
        }
        _ => id.to_owned(),
    };
    let mut rows = Vec::new();
    for item in found.most_moved.iter().take(LISTED) {
        let shown = item.lost.len().max(item.gained.len()).clamp(1, NEIGHBOURS);
        for i in 0..shown {
            let mut row: Vec<Value> = vec![match i {
                0 => {
                    let cosine = item
                        .paired_cosine
                        .map(|c| format!(", cosine of its vectors {}", Value::Number(c)));
                    format!(
                        "{} (displacement {}, overlap@{} {}{}, in {} → {} lists)",
                        named(&item.id),
                        number(item.displacement),
                        found.k,
                        number(item.overlap),
                        cosine.unwrap_or_default(),
                        item.k_occurrence_reference,
                        item.k_occurrence_current
                    )
                    .into()
                }
                _ => Value::Text(String::new()),
            }];
            for list in [&item.lost, &item.gained] {
                row.push(match list.get(i) {
                    Some(n) => format!(
                        "{} ({} → {})",
                        named(&n.id),
                        Value::Number(n.similarity_before),
                        Value::Number(n.similarity_after)
                    )
                    .into(),
                    None => Value::Text(String::new()),
                });
            }
            rows.push(row);
        }
    }
    Some(Table {
        caption: format!(
            "Most moved items: the nearest of the neighbours that each lost, and of those that it gained; at most {NEIGHBOURS} of either, all are in items.parquet"
        ),
        columns: vec![
            Column::left("item"),
            Column::left("lost (similarity before → after)"),
            Column::left("gained (similarity before → after)"),
        ],
        rows,
    })
}

pub(super) fn neighbourhoods_section(found: &Overlap, texts: &BTreeMap<String, String>) -> Section {
    let curve =
        |name: &str, role, point: &dyn Fn(&crate::metrics::overlap::OverlapAtK) -> Point| Line {
            name: name.to_owned(),
            role,
            points: found.at_k.iter().map(point).collect(),
        };
    let at = |k: usize, y, interval| Point {
        x: k as f64,
        y,
        interval,
    };
    let mut items = vec![
        Item::Figure(Figure {
            title: "Overlap of the k nearest neighbours".to_owned(),
            reading: "Share of an item's k nearest neighbours that stay; the grey line is what unrelated spaces would give.".to_owned(),
            plot: Plot::Curve {
                x_label: "k".to_owned(),
                y_label: "mean overlap@k".to_owned(),
                x_axis: XAxis::Log,
                series: vec![
                    curve("overlap", Role::Measured, &|a| at(a.k, a.overlap, a.ci95)),
                    curve("chance", Role::Baseline, &|a| at(a.k, a.chance_hub_aware, None)),
                ],
                levels: Vec::new(),
            },
        }),
        Item::Figure(Figure {
            title: format!("Neighbours kept, of {}", found.k),
            reading: "Number of items by how many of their neighbours stayed.".to_owned(),
            plot: Plot::Bars {
                x_label: format!("neighbours kept of {}", found.k),
                y_label: "items".to_owned(),
                categories: (0..found.overlap.histogram.len()).map(|i| i.to_string()).collect(),
                series: vec![BarSeries {
                    name: "items".to_owned(),
                    values: found.overlap.histogram.iter().map(|&c| c as f64).collect(),
                }],
            },
        }),
        Item::Table(overlap_table(found)),
    ];
    items.extend(neighbours::range_tables(found).into_iter().map(Item::Table));
    items.extend(moved_table(found, texts).map(Item::Table));
    Section {
        id: "neighbourhoods".to_owned(),
        title: "Neighbourhoods".to_owned(),
        lead: "Does every item keep its nearest neighbours? This needs no common space: rotation, scale and dimension do not matter.".to_owned(),
        items,
    }
}

/// Every query by the change of its nDCG@10, losses first.
fn queries_figure(found: &Retrieval) -> Option<Figure> {
    /// More points than this hide each other.
    const POINTS: usize = 5_000;
    let mut changes: Vec<(&str, f64, f64)> = found
        .per_query
        .iter()
        .map(|q| (q.id.as_str(), q.reference[0], q.current[0]))
        .collect();
    changes.sort_by(|a, b| (a.2 - a.1).total_cmp(&(b.2 - b.1)).then(a.0.cmp(b.0)));
    let step = changes.len().div_ceil(POINTS).max(1);
    let shown: Vec<(usize, (&str, f64, f64))> =
        changes.iter().copied().enumerate().step_by(step).collect();
    let shade = |name: &str, value: &dyn Fn(&(&str, f64, f64)) -> f64| Shade {
        name: name.to_owned(),
        values: ShadeValues::Numbers(
            shown
                .iter()
                .map(|(_, q)| Some((value(q) * 1e4).round() as f32 / 1e4))
                .collect(),
        ),
    };
    (!shown.is_empty()).then(|| Figure {
        title: "Queries won and lost".to_owned(),
        reading: "Every golden query, the largest loss first: below 0 it lost, above it won. The flat part is what did not change.".to_owned(),
        plot: Plot::Scatter {
            x_label: "queries, by change".to_owned(),
            y_label: "change of nDCG@10".to_owned(),
            ids: shown.iter().map(|(_, q)| q.0.to_owned()).collect(),
            panels: vec![Panel {
                name: String::new(),
                points: shown
                    .iter()
                    .map(|(rank, q)| Some([*rank as f32 + 1.0, (q.2 - q.1) as f32]))
                    .collect(),
            }],
            shades: vec![
                shade("nDCG@10 before", &|q| q.1),
                shade("nDCG@10 now", &|q| q.2),
            ],
        },
    })
}

fn won_table(found: &Retrieval) -> Option<Table> {
    let mut won: Vec<(&str, f64, f64)> = found
        .per_query
        .iter()
        .map(|q| (q.id.as_str(), q.reference[0], q.current[0]))
        .filter(|(_, before, after)| after > before)
        .collect();
    won.sort_by(|a, b| (b.2 - b.1).total_cmp(&(a.2 - a.1)).then(a.0.cmp(b.0)));
    (!won.is_empty()).then(|| Table {
        caption: "Queries that won most, by nDCG@10".to_owned(),
        columns: vec![
            Column::left("query"),
            Column::right("reference"),
            Column::right("current"),
            Column::right("change"),
        ],
        rows: won
            .iter()
            .take(LISTED)
            .map(|(id, before, after)| {
                vec![
                    (*id).into(),
                    number(*before),
                    number(*after),
                    number(after - before),
                ]
            })
            .collect(),
    })
}

pub(super) fn retrieval_section(found: &Retrieval) -> Section {
    let metrics = Table {
        caption: format!(
            "Golden queries: {} of them",
            Value::Count(found.queries as u64)
        ),
        columns: vec![
            Column::left("metric"),
            Column::right("reference"),
            Column::right("current"),
            Column::right("change [95 % interval]"),
            Column::right("won / lost / tied"),
            Column::right("p, Holm"),
        ],
        rows: found
            .metrics
            .iter()
            .map(|m| {
                let d = &m.difference;
                vec![
                    metric_label(&m.metric).into(),
                    number(m.reference),
                    number(m.current),
                    estimate(d.mean, d.ci95),
                    format!("{} / {} / {}", d.wins, d.losses, d.ties).into(),
                    Value::permutation_p(m.p_value_holm, 10_000),
                ]
            })
            .collect(),
    };
    let worst = Table {
        caption: "Queries that lost most, by nDCG@10".to_owned(),
        columns: vec![
            Column::left("query"),
            Column::right("reference"),
            Column::right("current"),
            Column::right("change"),
            Column::left("documents lost (place before → now)"),
        ],
        rows: found
            .worst_queries
            .iter()
            .take(LISTED)
            .map(|q| {
                vec![
                    q.id.as_str().into(),
                    number(q.reference),
                    number(q.current),
                    number(q.difference),
                    losses::lost_documents(q).into(),
                ]
            })
            .collect(),
    };
    let mut items = vec![
        Item::Figure(Figure {
            title: "Change of each metric".to_owned(),
            reading: "Left of the line the current set finds less. Intervals that cross it are undecided.".to_owned(),
            plot: Plot::Intervals {
                x_label: "current − reference".to_owned(),
                no_effect: Some(0.0),
                rows: found
                    .metrics
                    .iter()
                    .map(|m| IntervalRow {
                        label: metric_label(&m.metric),
                        estimate: Some(m.difference.mean),
                        interval: m.difference.ci95,
                        margin: None,
                    })
                    .collect(),
            },
        }),
        Item::Table(metrics),
        Item::Table(losses::losses_table(found)),
    ];
    items.extend(queries_figure(found).map(Item::Figure));
    items.extend(won_table(found).map(Item::Table));
    if !worst.rows.is_empty() {
        items.push(Item::Table(worst));
    }
    items.extend(losses::judgement_note(found).map(Item::Note));
    let left_out = [
        (found.queries_without_relevant, "have no relevant document"),
        (
            found.missing_queries.reference.count,
            "are missing from the reference queries",
        ),
        (
            found.missing_queries.current.count,
            "are missing from the current queries",
        ),
    ];
    for (count, why) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        items.push(Item::Note(format!(
            "{count} judged queries {why} and were left out."
        )));
    }
    let missing = found.missing_documents.current.count;
    if missing > 0 {
        items.push(Item::Note(format!(
            "{missing} relevant documents are missing from the current corpus and count as not found (first: {}).",
            found.missing_documents.current.first_ids.join(", ")
        )));
    }
    Section {
        id: "retrieval".to_owned(),
        title: "Retrieval".to_owned(),
        lead: "Do known queries still find what they should? Exact search on both sides, compared query by query.".to_owned(),
        items,
    }
}

pub(super) fn distribution_section(found: &Distribution) -> Section {
    let mut items = vec![Item::Figure(Figure {
        title: "Cosines of pairs".to_owned(),
        reading: format!(
            "How alike random documents are on either side, {} and {} pairs. A shift here moves every similarity threshold.",
            Value::Count(found.cosine_reference.pairs),
            Value::Count(found.cosine_current.pairs)
        ),
        plot: Plot::Densities {
            x_label: "cosine".to_owned(),
            series: vec![
                density(
                    "reference",
                    &trimmed(&found.cosine_reference, &found.cosine_current),
                ),
                density(
                    "current",
                    &trimmed(&found.cosine_current, &found.cosine_reference),
                ),
            ],
            marks: [
                mean_mark(found.cosine_reference.mean, "reference mean"),
                mean_mark(found.cosine_current.mean, "current mean"),
            ]
            .concat(),
        },
    })];
    if let Some(mmd) = &found.mmd {
        items.push(Item::Table(mmd_table(mmd)));
        if let (Some(eps), Some(ci)) = (mmd.effect.eps_eq, mmd.effect.ci95) {
            items.push(Item::Figure(Figure {
                title: "Size of the shift".to_owned(),
                reading: "As if this share of the corpus had been replaced by one foreign topic, against the margin that may be ignored.".to_owned(),
                plot: Plot::Intervals {
                    x_label: "ε_eq".to_owned(),
                    no_effect: Some(0.0),
                    rows: vec![IntervalRow {
                        label: "shift ε_eq".to_owned(),
                        estimate: Some(eps),
                        interval: Some(ci),
                        margin: Some(mmd.equivalence.margin),
                    }],
                },
            }));
        }
    }
    let (a, b) = (&found.cosine_reference, &found.cosine_current);
    let (s, t) = (&found.spectrum_reference, &found.spectrum_current);
    items.push(Item::Table(sided(
        "Cosines and spectra",
        vec![
            (
                "cosine of random pairs, mean",
                number(a.mean),
                number(b.mean),
            ),
            ("standard deviation", number(a.std), number(b.std)),
            (
                "95th percentile",
                number(a.quantiles.get("0.95").copied()),
                number(b.quantiles.get("0.95").copied()),
            ),
            (
                "total variance",
                number(s.total_variance),
                number(t.total_variance),
            ),
            (
                "effective rank",
                number(s.effective_rank_eigenvalues),
                number(t.effective_rank_eigenvalues),
            ),
            (
                "participation ratio, debiased",
                number(s.participation_ratio_debiased),
                number(t.participation_ratio_debiased),
            ),
            (
                "mean resultant length",
                number(s.mean_resultant_length),
                number(t.mean_resultant_length),
            ),
            (
                "Vendi score",
                number(s.vendi_cosine),
                number(t.vendi_cosine),
            ),
        ],
    )));
    let mut rows: Vec<(&str, Value)> = Vec::new();
    if let Some(d) = &found.cosine_shift {
        rows.extend([
            ("cosine distributions: KS", number(d.ks)),
            ("cosine distributions: W1", number(d.wasserstein_1)),
            ("cosine distributions: JS (nats)", number(d.js_nats)),
            ("cosine distributions: PSI", number(d.psi)),
        ]);
    }
    if let Some(c) = &found.centroid {
        rows.extend([
            ("centroid shift, L2", number(c.l2)),
            ("cosine of the means", number(c.cosine)),
        ]);
    }
    if let Some(f) = &found.frechet {
        rows.extend([
            ("Fréchet distance", number(f.frechet_distance)),
            ("of it expected by chance", number(f.null_bias)),
        ]);
    }
    if let Some(found) = &found.subspaces {
        rows.push((
            "principal subspaces, mean squared cosine",
            number(found.mean_sq_cosine),
        ));
    }
    items.push(Item::Table(named("Distances between the sets", rows)));
    if let Some(found) = &found.axes {
        items.push(Item::Table(axes_table(found)));
    }
    Section {
        id: "distribution".to_owned(),
        title: "Distribution".to_owned(),
        lead: "Do the two sets, as samples, cover the same ground?".to_owned(),
        items,
    }
}

/// The axes that moved farthest.
fn axes_table(found: &AxisDrift) -> Table {
    let kinds = [
        ("coordinate", Some(&found.coordinates)),
        ("direction", found.principal_directions.as_ref()),
    ];
    let rows = kinds.iter().flat_map(|(kind, tests)| {
        let farthest = tests.iter().flat_map(|tests| &tests.farthest);
        farthest.take(LISTED_AXES).map(move |shift| {
            vec![
                format!("{kind} {}", shift.axis).into(),
                number(shift.ks),
                number(shift.w1_in_sd),
                number(shift.mean_shift_in_sd),
                number(shift.sd_ratio),
                number(shift.psi),
                Value::from(if shift.moved { "yes" } else { "no" }),
            ]
        })
    });
    let moved = |tests: &AxisTests| format!("{} of {}", tests.moved, tests.axes);
    Table {
        caption: format!(
            "Axes that moved farthest ({} coordinates{} moved; KS below {:.3} is noise)",
            moved(&found.coordinates),
            found
                .principal_directions
                .as_ref()
                .map_or(String::new(), |tests| format!(
                    " and {} principal directions",
                    moved(tests)
                )),
            found.ks_noise_floor
        ),
        columns: vec![
            Column::left("axis"),
            Column::right("KS"),
            Column::right("W1, sd"),
            Column::right("mean, sd"),
            Column::right("sd ratio"),
            Column::right("PSI"),
            Column::left("moved"),
        ],
        rows: rows.collect(),
    }
}

/// A distribution's reported histogram without the bins that are empty on both sides.
fn trimmed(own: &CosineDistribution, other: &CosineDistribution) -> distribution::Histogram {
    let (h, o) = (&own.histogram, &other.histogram);
    let filled = |i: &usize| h.counts[*i] + o.counts[*i] > 0;
    let first = (0..h.counts.len()).find(filled).unwrap_or(0);
    let last = (0..h.counts.len()).rfind(filled).unwrap_or(0);
    distribution::Histogram {
        edges: h.edges[first..=last + 1].to_vec(),
        counts: h.counts[first..=last].to_vec(),
    }
}

pub(super) fn scope_section(audit: &Audit) -> Section {
    let p = &audit.pairing;
    let mut items = vec![
        Item::Note(format!("Comparability: {}.", audit.comparability.reason)),
        Item::Table(named(
            "Ids",
            vec![
                ("on both sides", Value::Count(p.shared)),
                ("reference only", Value::Count(p.only_reference)),
                ("current only", Value::Count(p.only_current)),
            ],
        )),
    ];
    if let Some(churn) = &audit.churn {
        let mut rows = vec![
            ("unchanged, value for value", Value::Count(churn.unchanged)),
            ("with another vector", Value::Count(churn.re_embedded)),
            (
                "removed, of the reference",
                Value::Percent(churn.removed_share),
            ),
            (
                "added, of the current set",
                Value::Percent(churn.added_share),
            ),
        ];
        if let (Some(mmd), Some(against)) = (&churn.added_mmd, churn.added_against) {
            rows.extend([
                ("added rows are compared with", against.label().into()),
                (
                    "shift ε_eq between them",
                    mmd.effect
                        .eps_eq
                        .map_or(Value::Missing(None), |eps| estimate(eps, mmd.effect.ci95)),
                ),
                ("smallest shift this shows", number(mmd.minimum_detectable)),
                (
                    "p-value, of two tests (Holm)",
                    mmd.p_value_holm
                        .map_or(Value::Missing(None), |p| Value::PValue {
                            p,
                            floor: mmd.smallest_p_value.unwrap_or(0.0),
                        }),
                ),
            ]);
        }
        items.push(Item::Table(named("Turnover", rows)));
    }
    if !audit.not_measured.is_empty() {
        items.push(Item::Table(Table {
            caption: "Not measured".to_owned(),
            columns: vec![Column::left("measure"), Column::left("reason")],
            rows: audit
                .not_measured
                .iter()
                .map(|n| vec![n.measure.as_str().into(), n.reason.as_str().into()])
                .collect(),
        }));
    }
    Section {
        id: "scope".to_owned(),
        title: "Scope".to_owned(),
        lead: "What could be compared, and what could not.".to_owned(),
        items,
    }
}
