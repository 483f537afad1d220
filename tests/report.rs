//! The report as a reader gets it: the same numbers in both forms, nothing that acts, nothing that
//! is fetched, nothing that breaks on little data.

use std::path::Path;

use vecdrift::Error;
use vecdrift::report::{
    AxisCard, BarSeries, Column, Fact, Figure, Histogram, IntervalRow, Item, Line, Mark, Output,
    Page, Panel, Plot, Point, Role, Section, Shade, ShadeValues, State, Table, TextStyle, Tone,
    Value, Verdict, XAxis, html, text, write_atomic,
};

/// Text that must be read, never obeyed.
const HOSTILE: &str = r#"<script>alert("1")</script> {{ x }} {% if %} 'q' & \u{1b}[31m ]]>"#;

fn histogram(name: &str, mean: f64, spread: f64) -> Histogram {
    let edges: Vec<f64> = (0..=400).map(|i| -1.0 + i as f64 / 200.0).collect();
    let counts = edges
        .windows(2)
        .map(|edge| {
            let z = ((edge[0] + edge[1]) / 2.0 - mean) / spread;
            (1e5 * (-z * z / 2.0).exp()) as u64
        })
        .collect();
    Histogram {
        name: name.into(),
        edges,
        counts,
    }
}

fn line(name: &str, role: Role, points: &[(f64, f64, Option<[f64; 2]>)]) -> Line {
    Line {
        name: name.into(),
        role,
        points: points
            .iter()
            .map(|&(x, y, interval)| Point { x, y, interval })
            .collect(),
    }
}

fn mark(at: f64, label: &str) -> Mark {
    Mark {
        at,
        label: label.into(),
    }
}

fn axis(name: &str, state: State, headline: String, evidence: &[String]) -> AxisCard {
    AxisCard {
        name: name.into(),
        state,
        headline,
        evidence: evidence.to_vec(),
    }
}

/// The audit of a real pair: SciFact abstracts, a model against itself with truncated input.
pub(crate) fn scifact() -> Page {
    let overlap = Value::interval(0.44102, [0.43607, 0.44597]);
    let cosine = Value::interval(0.80125, [0.79944, 0.80306]);
    let mmd2 = Value::Number(0.009066318);
    let effect = Value::interval(0.0521, [0.0494, 0.0549]);
    let loss = Value::interval(-0.088448, [-0.126416, -0.051727]);
    let state = |state: State, label: &str| Value::State {
        state,
        label: label.into(),
    };
    Page {
        title: "SciFact v1 → v2".into(),
        subtitle: "5,183 shared documents of 5,183 and 5,183; 384 and 384 dimensions; 300 golden \
                   queries"
            .into(),
        verdict: Some(Verdict {
            action: "Do not migrate".into(),
            reason: format!(
                "Retrieval got worse: nDCG@10 changed by {loss} over 300 queries, and no adapter \
                 recovers it, because the current vectors carry less of the text."
            ),
            tone: Tone::Severe,
        }),
        axes: vec![
            axis(
                "data",
                State::Ok,
                "5,183 rows on both sides, none faulty".into(),
                &[
                    "every id is on both sides".into(),
                    "no duplicate, zero or non-finite row".into(),
                ],
            ),
            axis(
                "coordinates",
                State::Broken,
                format!("mean cosine of a document with itself is {cosine}"),
                &[
                    "re-encoding alone would leave 0.9998 or more".into(),
                    "the best rotation raises it to 0.823 only: this is no rotated copy".into(),
                ],
            ),
            axis(
                "neighbourhoods",
                State::Broken,
                format!("overlap@10 is {overlap}; chance is 0.00193"),
                &[
                    "the nearest neighbour is the same for 31.3% of the documents".into(),
                    "50.8% of the documents keep fewer than half of their neighbours".into(),
                ],
            ),
            axis(
                "retrieval",
                State::Shifted,
                format!("nDCG@10 went from 0.645 to 0.557: {loss}"),
                &["42 queries won, 93 lost, 165 unchanged; p = 2e-5".into()],
            ),
            axis(
                "distribution",
                State::Shifted,
                format!("unbiased MMD² is {mmd2}, p ≤ 1e-4"),
                &[format!(
                    "equivalent to replacing {effect} of the documents; margin 0.01"
                )],
            ),
        ],
        key_numbers: vec![Table {
            caption: "The numbers behind the verdict, each against its margin".into(),
            columns: vec![
                Column::left("measure"),
                Column::right("estimate [95% interval]"),
                Column::right("margin"),
                Column::right("noise floor"),
                Column::left("finding"),
            ],
            rows: vec![
                vec![
                    "paired cosine".into(),
                    cosine.clone(),
                    Value::Setting(0.98),
                    Value::Number(0.99982),
                    state(State::Broken, "exceeds"),
                ],
                vec![
                    "overlap@10".into(),
                    overlap.clone(),
                    Value::Setting(0.9),
                    Value::Number(0.99871),
                    state(State::Broken, "exceeds"),
                ],
                vec![
                    "nDCG@10 change".into(),
                    loss.clone(),
                    Value::Setting(-0.01),
                    Value::Missing(None),
                    state(State::Shifted, "exceeds"),
                ],
                vec![
                    "ε equivalent".into(),
                    effect,
                    Value::Setting(0.01),
                    Value::Number(0.0015),
                    state(State::Shifted, "exceeds"),
                ],
                vec![
                    "pass rate at 0.5".into(),
                    Value::percent_interval(0.00812, [0.0079, 0.0083]),
                    Value::Missing(None),
                    Value::Missing(None),
                    state(State::Unknown, "undecided"),
                ],
            ],
        }],
        warnings: vec![
            "1,102 current rows were cut at the model's input limit of 32 tokens".into(),
            "no unchanged documents: the noise floor is that of half precision, not of a repeated \
             run of the model"
                .into(),
        ],
        sections: vec![
            Section {
                id: "coordinates".into(),
                title: "Are the coordinates the same?".into(),
                lead: "No. A document's old and new vectors point in clearly different \
                       directions, so old and new vectors must not be mixed in one index."
                    .into(),
                items: vec![
                    Item::Figure(Figure {
                        title: "Cosine of each document with itself, and of random pairs".into(),
                        reading: "Where the two distributions lie apart, a document is still \
                                  recognised as itself; a safe mix needs the first at 1."
                            .into(),
                        plot: Plot::Densities {
                            x_label: "cosine similarity".into(),
                            series: vec![
                                histogram("same document, v1 to v2", 0.80, 0.066),
                                histogram("random pair, v1 to v2", 0.082, 0.09),
                                histogram("random pair, within v1", 0.078, 0.11),
                            ],
                            marks: vec![
                                mark(0.801, "mean 0.801"),
                                mark(0.823, "after rotation 0.823"),
                                mark(0.98, "margin 0.98"),
                            ],
                        },
                    }),
                    Item::Note(
                        "The distributions are exact over all 5,183 documents and all 26,857,306 \
                         ordered pairs."
                            .into(),
                    ),
                ],
            },
            Section {
                id: "neighbourhoods".into(),
                title: "Did neighbourhoods survive?".into(),
                lead: "Fewer than half of the ten nearest neighbours are the same.".into(),
                items: vec![
                    Item::Figure(Figure {
                        title: "Overlap of the k nearest neighbours".into(),
                        reading: "Share of a document's k neighbours that both sides agree on, \
                                  with 95% intervals; 1 is no change."
                            .into(),
                        plot: Plot::Curve {
                            x_label: "neighbours k (logarithmic)".into(),
                            y_label: "mean overlap@k".into(),
                            x_axis: XAxis::Log,
                            series: vec![
                                line(
                                    "all documents",
                                    Role::Measured,
                                    &[
                                        (1.0, 0.313, Some([0.301, 0.326])),
                                        (5.0, 0.409, Some([0.403, 0.416])),
                                        (10.0, 0.441, Some([0.436, 0.446])),
                                        (50.0, 0.524, Some([0.520, 0.527])),
                                        (100.0, 0.562, Some([0.559, 0.565])),
                                    ],
                                ),
                                line(
                                    "structured",
                                    Role::Measured,
                                    &[
                                        (1.0, 0.272, Some([0.25, 0.294])),
                                        (5.0, 0.371, Some([0.36, 0.382])),
                                        (10.0, 0.402, Some([0.393, 0.411])),
                                        (50.0, 0.489, Some([0.483, 0.495])),
                                        (100.0, 0.531, Some([0.526, 0.536])),
                                    ],
                                ),
                                line(
                                    "chance",
                                    Role::Baseline,
                                    &[
                                        (1.0, 0.00019, None),
                                        (10.0, 0.0019, None),
                                        (100.0, 0.019, None),
                                    ],
                                ),
                            ],
                            levels: vec![mark(0.9, "margin 0.9")],
                        },
                    }),
                    Item::Figure(Figure {
                        title: "How many of its ten neighbours a document keeps".into(),
                        reading: "Documents by the number of neighbours that both sides share."
                            .into(),
                        plot: Plot::Bars {
                            x_label: "shared neighbours of 10".into(),
                            y_label: "documents".into(),
                            categories: (0..=10).map(|i| i.to_string()).collect(),
                            series: vec![
                                BarSeries {
                                    name: "v1 to v2".into(),
                                    values: [106, 310, 483, 813, 922, 992, 767, 492, 239, 53, 6]
                                        .map(f64::from)
                                        .to_vec(),
                                },
                                BarSeries {
                                    name: "half precision only".into(),
                                    values: [0, 0, 0, 0, 0, 0, 0, 0, 6, 52, 5125]
                                        .map(f64::from)
                                        .to_vec(),
                                },
                            ],
                        },
                    }),
                    Item::Table(Table {
                        caption: "Documents that keep the fewest neighbours".into(),
                        columns: vec![
                            Column::left("document"),
                            Column::left("slice"),
                            Column::right("overlap@10"),
                            Column::right("paired cosine"),
                        ],
                        rows: vec![
                            vec!["4983".into(), "plain".into(), 0.0.into(), 0.35043.into()],
                            vec![
                                "11705328".into(),
                                "structured".into(),
                                0.0.into(),
                                0.4127.into(),
                            ],
                            vec![
                                "25404036".into(),
                                "structured".into(),
                                0.1.into(),
                                0.52.into(),
                            ],
                        ],
                    }),
                ],
            },
            Section {
                id: "retrieval".into(),
                title: "Is retrieval better?".into(),
                lead: "It is worse by every measure; the loss exceeds its margin.".into(),
                items: vec![Item::Figure(Figure {
                    title: "Change of each retrieval measure, current minus reference".into(),
                    reading: "Left of zero is worse; an interval beyond its margin decides.".into(),
                    plot: Plot::Intervals {
                        x_label: "change of the mean over 300 queries".into(),
                        no_effect: Some(0.0),
                        rows: [
                            ("nDCG@10", Some(-0.088448), Some([-0.126416, -0.051727])),
                            ("AP@10", Some(-0.086136), Some([-0.127077, -0.047158])),
                            ("MRR@10", Some(-0.079876), Some([-0.1201, -0.0403])),
                            ("recall@100", Some(-0.046667), Some([-0.074, -0.021])),
                            ("recall@10, structured abstracts", None, None),
                        ]
                        .into_iter()
                        .map(|(label, estimate, interval)| IntervalRow {
                            label: label.into(),
                            estimate,
                            interval,
                            margin: Some(-0.01),
                        })
                        .collect(),
                    },
                })],
            },
        ],
        facts: vec![
            Fact::new(
                "reference",
                "data/scifact/corpus.v1.parquet#embedding, 5,183 × 384 float32",
            ),
            Fact::new(
                "current",
                "data/scifact/corpus.v2.parquet#embedding, 5,183 × 384 float32",
            ),
            Fact::new(
                "device",
                "NVIDIA H100 80GB HBM3 (Vulkan), f16 screening, exact re-scoring",
            ),
            Fact::new("seed", 0_u64),
            Fact::new("bandwidth σ", 1.3448614),
            Fact::new("pairs", 53_724_578_u64),
            Fact::new("time", Value::Seconds(1.2444)),
            Fact::new("peak memory", Value::Bytes(412_000_000)),
            Fact::new(
                "command",
                "vecdrift audit corpus.v1.parquet corpus.v2.parquet --queries queries.v1.parquet \
                 --qrels qrels/test.tsv --out target/audit",
            ),
        ],
        outputs: vec![
            Output {
                path: "target/audit/report.html".into(),
                content: "report".into(),
            },
            Output {
                path: "target/audit/result.json".into(),
                content: "all results".into(),
            },
            Output {
                path: "target/audit/items.parquet".into(),
                content: "per document".into(),
            },
        ],
    }
}

/// A page with every piece, all of it as small as it can be.
/// A map of 60 items in two spaces: they are of two kinds, and every third moved.
pub(crate) fn scatter() -> Plot {
    let place = |i: usize, moved: f32| {
        let angle = i as f32 * 0.7;
        Some([angle.cos() + moved, angle.sin() * i as f32 / 60.0])
    };
    let moved = |i: usize| [0.5, 0.0, 0.0][i % 3];
    let panel = |name: &str, points| Panel {
        name: name.into(),
        points,
    };
    Plot::Scatter {
        x_label: String::new(),
        y_label: String::new(),
        ids: (0..60).map(|i| format!("item {i}")).collect(),
        panels: vec![
            panel("reference", (0..60).map(|i| place(i, 0.0)).collect()),
            panel(
                "current",
                (0..60)
                    .map(|i| place(i, moved(i)).filter(|_| i != 7))
                    .collect(),
            ),
        ],
        shades: vec![
            Shade {
                name: "moved by".into(),
                values: ShadeValues::Numbers((0..60).map(|i| (i != 9).then(|| moved(i))).collect()),
            },
            Shade {
                name: "kind".into(),
                values: ShadeValues::Names {
                    names: vec!["even".into(), "odd".into()],
                    of: (0..60).map(|i| (i != 11).then_some(i as u32 % 2)).collect(),
                },
            },
        ],
    }
}

pub(crate) fn degenerate_plots() -> Vec<Plot> {
    let no_points = |shades: &[Shade]| Plot::Scatter {
        x_label: "x".into(),
        y_label: "y".into(),
        ids: Vec::new(),
        panels: vec![Panel {
            name: "p".into(),
            points: Vec::new(),
        }],
        shades: shades.to_vec(),
    };
    let no_numbers = Shade {
        name: "s".into(),
        values: ShadeValues::Numbers(Vec::new()),
    };
    let densities = |series, marks| Plot::Densities {
        x_label: "x".into(),
        series,
        marks,
    };
    let counts = |edges: &[f64], counts: &[u64]| Histogram {
        name: "h".into(),
        edges: edges.to_vec(),
        counts: counts.to_vec(),
    };
    let curve = |x_axis, series, levels| Plot::Curve {
        x_label: "x".into(),
        y_label: "y".into(),
        x_axis,
        series,
        levels,
    };
    let bars = |categories: &[&str], values: &[f64]| Plot::Bars {
        x_label: "x".into(),
        y_label: "y".into(),
        categories: categories.iter().map(|name| (*name).to_owned()).collect(),
        series: vec![BarSeries {
            name: "b".into(),
            values: values.to_vec(),
        }],
    };
    let row = |estimate, interval, margin| IntervalRow {
        label: "row".into(),
        estimate,
        interval,
        margin,
    };
    let intervals = |no_effect, rows| Plot::Intervals {
        x_label: "x".into(),
        no_effect,
        rows,
    };
    let one = &[(3.0, 0.5, None)];
    vec![
        densities(vec![], vec![]),
        densities(vec![counts(&[], &[])], vec![]),
        densities(vec![counts(&[0.0, 1.0], &[0])], vec![mark(0.5, "m")]),
        densities(vec![counts(&[0.0, 1.0], &[7])], vec![]),
        densities(vec![counts(&[1.0, 1.0], &[7])], vec![mark(1.0, "m")]),
        densities(vec![counts(&[0.0], &[1, 2, 3])], vec![]),
        densities(
            vec![counts(&[0.0, 1e-300, 2e-300], &[u64::MAX, u64::MAX])],
            vec![],
        ),
        curve(XAxis::Linear, vec![], vec![]),
        curve(XAxis::Log, vec![], vec![mark(0.5, "level")]),
        curve(
            XAxis::Log,
            vec![line("zero", Role::Measured, &[(0.0, 1.0, None)])],
            vec![],
        ),
        curve(XAxis::Log, vec![line("one", Role::Measured, one)], vec![]),
        curve(
            XAxis::Linear,
            vec![line("one", Role::Baseline, one)],
            vec![],
        ),
        curve(
            XAxis::Labelled(vec![mark(1.0, "2026-01"), mark(2.0, "2026-02")]),
            vec![line(
                "flat",
                Role::Measured,
                &[(1.0, 2.0, Some([2.0, 2.0])), (2.0, 2.0, None)],
            )],
            vec![],
        ),
        bars(&[], &[]),
        bars(&["a"], &[]),
        bars(&["a"], &[0.0]),
        bars(&["a", "b"], &[-1.0]),
        bars(&["a"], &[1.0, 2.0, 3.0]),
        intervals(None, vec![]),
        intervals(Some(0.0), vec![row(None, None, None)]),
        intervals(None, vec![row(Some(1.0), Some([1.0, 1.0]), Some(1.0))]),
        intervals(
            Some(0.0),
            vec![row(Some(1e300), Some([-1e300, 1e300]), None)],
        ),
        no_points(&[]),
        no_points(&[no_numbers]),
        scatter(),
    ]
}

pub(crate) fn page_of(plots: Vec<Plot>) -> Page {
    Page {
        title: "t".into(),
        sections: vec![Section {
            id: "s".into(),
            title: "s".into(),
            lead: String::new(),
            items: plots
                .into_iter()
                .map(|plot| {
                    Item::Figure(Figure {
                        title: "f".into(),
                        reading: "r".into(),
                        plot,
                    })
                })
                .collect(),
        }],
        ..Page::default()
    }
}

/// Every text of the page replaced by one that must not act.
pub(crate) fn hostile() -> Page {
    let mut page = scifact();
    let text = || HOSTILE.to_owned();
    page.title = text();
    page.subtitle = text();
    page.verdict = Some(Verdict {
        action: text(),
        reason: text(),
        tone: Tone::Undecided,
    });
    page.axes = vec![axis(HOSTILE, State::Unknown, text(), &[text()])];
    page.warnings = vec![text()];
    page.facts = vec![Fact::new(text(), text())];
    page.outputs = vec![Output {
        path: text(),
        content: text(),
    }];
    let table = Table {
        caption: text(),
        columns: vec![Column::left(text()), Column::right(text())],
        rows: vec![vec![text().into(), Value::missing(text())]],
    };
    page.key_numbers = vec![table.clone()];
    page.sections = vec![Section {
        id: text(),
        title: text(),
        lead: text(),
        items: vec![
            Item::Note(text()),
            Item::Table(table),
            Item::Figure(Figure {
                title: text(),
                reading: text(),
                plot: Plot::Densities {
                    x_label: text(),
                    series: vec![histogram(HOSTILE, 0.0, 0.1)],
                    marks: vec![mark(0.0, HOSTILE)],
                },
            }),
            Item::Figure(Figure {
                title: text(),
                reading: text(),
                plot: Plot::Curve {
                    x_label: text(),
                    y_label: text(),
                    x_axis: XAxis::Labelled(vec![mark(1.0, HOSTILE)]),
                    series: vec![line(HOSTILE, Role::Measured, &[(1.0, 1.0, None)])],
                    levels: vec![mark(1.0, HOSTILE)],
                },
            }),
            Item::Figure(Figure {
                title: text(),
                reading: text(),
                plot: Plot::Bars {
                    x_label: text(),
                    y_label: text(),
                    categories: vec![text()],
                    series: vec![BarSeries {
                        name: text(),
                        values: vec![1.0],
                    }],
                },
            }),
            Item::Figure(Figure {
                title: text(),
                reading: text(),
                plot: Plot::Intervals {
                    x_label: text(),
                    no_effect: None,
                    rows: vec![IntervalRow {
                        label: text(),
                        estimate: Some(1.0),
                        interval: Some([0.0, 2.0]),
                        margin: None,
                    }],
                },
            }),
        ],
    }];
    page
}

/// The SVG elements of a page.
fn drawings(html: &str) -> Vec<&str> {
    html.match_indices("<svg")
        .map(|(start, _)| {
            let end = html[start..].find("</svg>").expect("an svg is closed");
            &html[start..start + end + "</svg>".len()]
        })
        .collect()
}

/// Checks well-formedness as far as our drawings use XML: tags balance, attributes are quoted,
/// ampersands start entities. Returns the number of elements.
fn check_xml(xml: &str) -> Result<usize, String> {
    let mut open = Vec::new();
    let mut elements = 0;
    let mut rest = xml;
    while let Some(start) = rest.find('<') {
        check_text(&rest[..start])?;
        let end = start + rest[start..].find('>').ok_or("a tag does not end")?;
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop() != Some(name) {
                return Err(format!("</{name}> closes nothing"));
            }
            continue;
        }
        elements += 1;
        let (tag, empty) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let name = tag.split(' ').next().unwrap_or_default();
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(format!("<{tag}> has no proper name"));
        }
        let mut attributes = tag[name.len()..].trim_start();
        while !attributes.is_empty() {
            let (key, value) = attributes
                .split_once("=\"")
                .ok_or("an attribute is not quoted")?;
            if !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
                return Err(format!("attribute {key:?} in <{tag}>"));
            }
            let (value, next) = value.split_once('"').ok_or("a quote does not end")?;
            check_text(value)?;
            attributes = next.trim_start();
        }
        if !empty {
            open.push(name);
        }
    }
    match open.pop() {
        Some(name) => Err(format!("<{name}> stays open")),
        None => Ok(elements),
    }
}

fn check_text(text: &str) -> Result<(), String> {
    for part in text.split('&').skip(1) {
        let entity = part.split(';').next().unwrap_or_default();
        if !["amp", "lt", "gt", "quot", "#39", "#x27", "#x2f"].contains(&entity) {
            return Err(format!("&{entity} is no entity"));
        }
    }
    Ok(())
}

#[test]
fn the_xml_check_can_fail() {
    assert_eq!(check_xml(r#"<svg a="1"><path d="M0 0"/></svg>"#), Ok(2));
    for broken in [
        "<svg>",
        "<svg><g></svg></g>",
        "<svg a=1></svg>",
        "<svg>a & b</svg>",
        r#"<svg a="<b>"></svg>"#,
    ] {
        assert!(check_xml(broken).is_err(), "{broken}");
    }
}

#[test]
fn drawings_are_well_formed_and_described() {
    for page in [scifact(), hostile(), page_of(degenerate_plots())] {
        let html = without_scripts(&html(&page).unwrap());
        for drawing in drawings(&html) {
            check_xml(drawing).unwrap_or_else(|error| panic!("{error}: {drawing}"));
            let described = drawing.contains("<title ") && drawing.contains("<desc ");
            assert!(described || drawing.contains("aria-hidden"), "{drawing}");
            for wrong in ["NaN", "inf", "\"\"/>"] {
                assert!(!drawing.contains(wrong), "{wrong} in {drawing}");
            }
        }
    }
}

/// The page without its data and scripts, which stand at its end: no other script is on it.
fn without_scripts(html: &str) -> String {
    let mut kept = String::new();
    let mut rest = html;
    let (mut scripts, mut data) = (0, 0);
    while let Some((before, after)) = rest.split_once("<script ") {
        let (attributes, content) = after.split_once('>').unwrap();
        let (content, after) = content.split_once("</script>").unwrap();
        if attributes.starts_with("type=\"application/json\"") {
            assert!(!content.contains('<'), "markup in the data");
            serde_json::from_str::<serde_json::Value>(content).expect("the data are JSON");
            data += 1;
        } else {
            let nonce = attributes.split('"').nth(1).unwrap();
            assert_eq!(attributes, format!("nonce=\"{nonce}\""));
            assert!(html.contains(&format!("script-src 'nonce-{nonce}'")));
            scripts += 1;
        }
        kept.push_str(before);
        rest = after;
    }
    kept.push_str(rest);
    assert!((scripts, data) == (5, 1) || (scripts, data) == (0, 0));
    kept
}

#[test]
fn nothing_from_the_data_acts() {
    let html = html(&hostile()).unwrap();
    let html = without_scripts(&html);
    assert!(!html.contains("<script"), "markup from the data");
    assert!(!html.contains('\u{1b}'), "control characters from the data");
    // The template engine must not look into values.
    assert!(html.contains("{{ x }} {% if %}"));
    // Every occurrence is escaped: as often as the start of the text, its first bracket's entity.
    assert_eq!(
        html.matches("script&gt;alert(").count(),
        html.matches("&lt;script&gt;alert(").count()
    );
    let summary = text(&hostile(), &TextStyle::default());
    assert!(!summary.contains('\u{1b}'));
}

#[test]
fn the_page_needs_nothing_outside() {
    let page = html(&scifact()).unwrap();
    let html = without_scripts(&page);
    for reference in [
        "http:", "https:", "//cdn", "@import", "<link", "<script", "<img", "src=",
    ] {
        assert!(!html.contains(reference), "{reference}");
    }
    // All links and paints stay within the page, and what they point at is there.
    for pattern in ["href=\"", "url("] {
        for (start, _) in html.match_indices(pattern) {
            let target = &html[start + pattern.len()..];
            assert!(target.starts_with('#'), "{}", &target[..40]);
            let id = target[1..].split(['"', ')']).next().unwrap();
            assert!(html.contains(&format!("id=\"{id}\"")), "{id}");
        }
    }
    let mut ids: Vec<&str> = html
        .match_indices(" id=\"")
        .map(|(start, _)| html[start + 5..].split('"').next().unwrap())
        .collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "ids are unique");
    // For a look at the page: target/tmp/report.html.
    std::fs::write(
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("report.html"),
        page,
    )
    .unwrap();
}

#[test]
fn both_forms_show_the_same_numbers() {
    let page = scifact();
    // The page keeps intervals on one line by blanks that do not break.
    let html = html(&page).unwrap().replace('\u{a0}', " ");
    let wide = TextStyle {
        width: 400,
        color: false,
    };
    let summary = text(&page, &wide);
    let cells = page
        .key_numbers
        .iter()
        .flat_map(|table| table.rows.iter().flatten());
    for shown in cells
        .map(Value::to_string)
        .chain(page.axes.into_iter().map(|a| a.headline))
    {
        assert!(summary.contains(&shown), "{shown} in the summary");
        assert!(html.contains(&shown), "{shown} in the page");
    }
}

#[test]
fn the_summary_fits_one_terminal_screen() {
    let summary = text(&scifact(), &TextStyle::default());
    assert!(summary.lines().count() <= 45, "{summary}");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report.txt");
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    assert!(
        summary == expected,
        "differs from {}; if the new one is better, write it there:\n{summary}",
        golden.display()
    );
}

#[test]
fn evidence_gives_way_before_the_screen_overflows() {
    let mut page = scifact();
    for axis in &mut page.axes {
        axis.evidence = (0..9).map(|i| format!("finding {i}")).collect();
    }
    let summary = text(&page, &TextStyle::default());
    assert!(summary.lines().count() <= 45, "{summary}");
    assert!(summary.contains("- finding 0"), "{summary}");
    // Warnings are never dropped, however many there are.
    page.warnings = (0..80).map(|i| format!("warning {i}")).collect();
    let summary = text(&page, &TextStyle::default());
    assert!(summary.contains("- warning 79"));
    assert!(!summary.contains("- finding"));
}

#[test]
fn no_line_exceeds_the_width() {
    let mut page = scifact();
    page.axes[0].headline = "x".repeat(300);
    page.outputs[0].path = format!("/a/{}", "long/".repeat(60));
    for page in [page, hostile(), Page::default()] {
        for width in [20, 33, 48, 60, 80, 132] {
            let style = TextStyle {
                width,
                color: false,
            };
            for line in text(&page, &style).lines() {
                assert!(line.chars().count() <= width, "{width}: {line:?}");
                assert_eq!(line, line.trim_end());
            }
        }
    }
}

#[test]
fn colour_adds_nothing_but_colour() {
    let plain = text(&scifact(), &TextStyle::default());
    let colored = TextStyle {
        color: true,
        ..TextStyle::default()
    };
    let mut stripped = String::new();
    let colored = text(&scifact(), &colored);
    for (i, part) in colored.split('\u{1b}').enumerate() {
        match (i, part.split_once('m')) {
            (0, _) => stripped.push_str(part),
            (_, Some((_, rest))) => stripped.push_str(rest),
            (_, None) => panic!("unfinished escape {part:?}"),
        }
    }
    assert!(colored.contains('\u{1b}'));
    assert_eq!(stripped, plain);
}

#[test]
fn an_empty_page_is_a_page() {
    let html = html(&Page::default()).unwrap();
    assert!(html.trim_start().starts_with("<!DOCTYPE html>"));
    assert!(!html.contains("class=\"verdict"));
    assert_eq!(text(&Page::default(), &TextStyle::default()), "");
    let no_rows = Page {
        key_numbers: vec![Table {
            columns: vec![Column::left("measure"), Column::right("value")],
            ..Table::default()
        }],
        ..Page::default()
    };
    assert!(
        vecdrift::report::html(&no_rows)
            .unwrap()
            .contains("no rows")
    );
    assert!(text(&no_rows, &TextStyle::default()).contains("measure"));
}

#[test]
fn a_file_is_complete_or_untouched() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("result.json");
    let entries = || std::fs::read_dir(directory.path()).unwrap().count();

    write_atomic(&path, |file| {
        file.write_all(b"first")
            .map_err(|error| Error::output("test", error))
    })
    .unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"first");

    let error = write_atomic(&path, |file| {
        file.write_all(b"half of the sec")
            .map_err(|error| Error::output("test", error))?;
        Err(Error::output("test", "the disk is full"))
    })
    .unwrap_err();
    assert_eq!(error.to_string(), "test: the disk is full");
    assert_eq!(std::fs::read(&path).unwrap(), b"first");
    assert_eq!(entries(), 1, "no temporary file is left");

    // A panic of the writer leaves nothing behind either.
    let panicked = std::panic::catch_unwind(|| write_atomic(&path, |_| panic!("bug")));
    assert!(panicked.is_err());
    assert_eq!(entries(), 1);

    let error = write_atomic(&directory.path().join("missing/x"), |_| Ok(())).unwrap_err();
    assert!(
        error.is_output() && error.to_string().contains("missing/x"),
        "{error}"
    );
    // A directory in the way is not replaced.
    std::fs::create_dir(directory.path().join("taken")).unwrap();
    assert!(write_atomic(&directory.path().join("taken"), |_| Ok(())).is_err());
    assert_eq!(entries(), 2);
}

#[cfg(unix)]
#[test]
fn a_written_file_is_as_readable_as_any_other() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (ours, plain) = (
        directory.path().join("ours"),
        directory.path().join("plain"),
    );
    write_atomic(&ours, |_| Ok(())).unwrap();
    std::fs::write(&plain, b"").unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&ours), mode(&plain));
}
