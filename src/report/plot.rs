//! Figures as inline SVG: axes, marks and legends laid out by hand, coloured by the page.
//!
//! Colours, fonts and dash patterns are CSS classes of the page (`s1`…`s5` for the series), so that
//! one drawing serves light, dark and printed pages. Series differ by dash, marker and fill as well
//! as by colour: they stay apart in grey and for readers who do not tell the colours apart.

use std::fmt::Write;

use super::page::{
    BarSeries, Figure, Histogram, IntervalRow, Line, Mark, Panel, Plot, Point, Role, Shade,
    ShadeValues, XAxis,
};
use super::value::{Value, tick};
use super::{clean, display_width, truncate};

mod axes;
mod scatter;

use axes::*;

/// Height of a line of text in a drawing.
const LINE: f64 = 16.0;
/// Width of a character in the drawing's font, on the generous side: a font cannot be measured here.
const CHARACTER: f64 = 6.9;
/// Room between neighbouring words on one line.
const GAP: f64 = 10.0;
/// Series that can be told apart; more share the styles in turn.
const STYLES: usize = 5;
/// More bins than this are narrower than the pen.
const MAX_BINS: usize = 120;
const MAX_STEPS: usize = 40;

/// The figure as one SVG element, `width` pixels wide, its inner ids prefixed with `id`.
///
/// Never fails: what cannot be drawn (no data, one value) is drawn as what it is.
pub(super) fn svg(figure: &Figure, width: f64, id: &str) -> String {
    let mut canvas = Canvas::new(width, id);
    match &figure.plot {
        Plot::Densities {
            x_label,
            series,
            marks,
        } => densities(&mut canvas, x_label, series, marks),
        Plot::Curve {
            x_label,
            y_label,
            x_axis,
            series,
            levels,
        } => curve(&mut canvas, x_label, y_label, x_axis, series, levels),
        Plot::Bars {
            x_label,
            y_label,
            categories,
            series,
        } => bars(&mut canvas, x_label, y_label, categories, series),
        Plot::Intervals {
            x_label,
            no_effect,
            rows,
        } => intervals(&mut canvas, x_label, *no_effect, rows),
        Plot::Scatter {
            x_label,
            y_label,
            panels,
            shades,
            ..
        } => scatter::scatter(&mut canvas, x_label, y_label, panels, shades.first()),
    }
    canvas.finish(&figure.title, &description(&figure.plot))
}

/// The drawing in words, for readers who cannot see it.
fn description(plot: &Plot) -> String {
    let mut text = String::new();
    let mut say = |sentence: String| {
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(&sentence);
    };
    match plot {
        Plot::Densities {
            x_label,
            series,
            marks,
        } => {
            say(format!("Distributions of {x_label}."));
            for histogram in series {
                match support(histogram) {
                    Some((lo, hi)) => say(format!(
                        "{}: {} values from {} to {}.",
                        histogram.name,
                        Value::Count(histogram.counts.iter().fold(0, |a, b| a.saturating_add(*b))),
                        Value::Number(lo),
                        Value::Number(hi)
                    )),
                    None => say(format!("{}: no data.", histogram.name)),
                }
            }
            for mark in marks {
                say(format!(
                    "Mark at {}: {}.",
                    Value::Number(mark.at),
                    mark.label
                ));
            }
        }
        Plot::Curve {
            x_label,
            y_label,
            series,
            levels,
            ..
        } => {
            say(format!("{y_label} over {x_label}."));
            for line in series {
                match (line.points.first(), line.points.last()) {
                    (Some(first), Some(last)) => say(format!(
                        "{}: {} points, from {} at {} to {} at {}.",
                        line.name,
                        line.points.len(),
                        Value::Number(first.y),
                        Value::Setting(first.x),
                        Value::Number(last.y),
                        Value::Setting(last.x)
                    )),
                    _ => say(format!("{}: no data.", line.name)),
                }
            }
            for level in levels {
                say(format!(
                    "Level {}: {}.",
                    Value::Setting(level.at),
                    level.label
                ));
            }
        }
        Plot::Bars {
            x_label,
            y_label,
            categories,
            series,
        } => {
            say(format!("{y_label} by {x_label}."));
            for BarSeries { name, values } in series {
                let list: Vec<String> = categories
                    .iter()
                    .zip(values)
                    .map(|(category, value)| format!("{category}: {}", Value::Setting(*value)))
                    .collect();
                say(format!("{name}: {}.", list.join(", ")));
            }
        }
        Plot::Intervals { x_label, rows, .. } => {
            say(format!("{x_label}."));
            for row in rows {
                let margin = row
                    .margin
                    .map(|margin| format!(", margin {}", Value::Setting(margin)))
                    .unwrap_or_default();
                say(format!("{}: {}{margin}.", row.label, interval_value(row)));
            }
        }
        Plot::Scatter { panels, shades, .. } => {
            for panel in panels {
                let points = panel.points.iter().flatten().count();
                say(format!(
                    "{}: {} points.",
                    panel.name,
                    Value::Count(points as u64)
                ));
            }
            let names: Vec<&str> = shades.iter().map(|shade| shade.name.as_str()).collect();
            say(format!("Coloured by {}.", names.join(", ")));
        }
    }
    text
}

// ---------------------------------------------------------------------------------------------
// The forms

fn densities(canvas: &mut Canvas, x_label: &str, series: &[Histogram], marks: &[Mark]) {
    let curves: Vec<Vec<Bin>> = series.iter().map(density).collect();
    let peak = curves
        .iter()
        .flatten()
        .map(|bin| bin.density)
        .fold(0.0, f64::max);

    let mut bounds = Bounds::default();
    for bin in curves.iter().flatten() {
        bounds.include(bin.lo);
        bounds.include(bin.hi);
    }
    marks.iter().for_each(|mark| bounds.include(mark.at));

    let legend: Vec<LegendEntry> = series
        .iter()
        .zip(&curves)
        .enumerate()
        .map(|(i, (histogram, bins))| LegendEntry {
            name: if bins.is_empty() {
                format!("{} (no data)", histogram.name)
            } else {
                histogram.name.clone()
            },
            class: style(i),
            glyph: Glyph::Area,
        })
        .collect();
    let top = canvas.legend(&legend, 4.0);
    // With no spread at all there is no density to scale: spikes stand for "all of it".
    let y_bounds = Bounds::of([0.0, if peak > 0.0 { 1.05 * peak } else { 1.0 }]);
    let mut y_ticks = linear_ticks(&y_bounds, 4);
    y_ticks.retain(|y| peak > 0.0 && *y <= y_bounds.hi);
    let left = tick_room(&y_ticks);
    let frame = Frame::new(
        canvas,
        FrameSpec {
            top,
            height: 190.0,
            x: bounds.padded(0.02),
            x_scale: &XAxis::Linear,
            y: y_bounds,
            y_ticks,
            x_label,
            y_label: "density (area 1)",
            left,
            right: 8.0,
            mark_labels: marks,
        },
    );
    if bounds.is_empty() {
        return frame.no_data(canvas);
    }
    for (i, bins) in curves.iter().enumerate() {
        let class = style(i);
        let Some(first) = bins.first() else { continue };
        if first.density <= 0.0 {
            let x = frame.x(first.lo);
            canvas.line(x, frame.bottom, x, frame.top, &format!("curve {class}"));
            continue;
        }
        // Steps finer than the pen only blur the dashes: many bins are joined at their middles.
        let steps = bins.len() <= MAX_STEPS;
        let mut path = format!("M{} {}", px(frame.x(first.lo)), px(frame.bottom));
        for bin in bins {
            let y = px(frame.y(bin.density));
            let _ = if steps {
                write!(path, "V{y}H{}", px(frame.x(bin.hi)))
            } else {
                write!(path, "L{} {y}", px(frame.x((bin.lo + bin.hi) / 2.0)))
            };
        }
        let end = bins.last().map_or(first.hi, |bin| bin.hi);
        let _ = write!(path, "L{} {}", px(frame.x(end)), px(frame.bottom));
        canvas.path(&path, &format!("area {class}"), None);
        canvas.path(&path, &format!("curve {class}"), None);
    }
    frame.draw_marks(canvas, marks);
}

fn curve(
    canvas: &mut Canvas,
    x_label: &str,
    y_label: &str,
    x_axis: &XAxis,
    series: &[Line],
    levels: &[Mark],
) {
    let mut styles = 0;
    let drawn: Vec<(String, &Line, Vec<Point>)> = series
        .iter()
        .map(|line| {
            let class = match line.role {
                Role::Baseline => "base".to_owned(),
                Role::Measured => {
                    styles += 1;
                    style(styles - 1)
                }
            };
            let points = line
                .points
                .iter()
                .filter(|point| !matches!(x_axis, XAxis::Log) || point.x > 0.0)
                .copied()
                .collect();
            (class, line, points)
        })
        .collect();

    let (mut x, mut y) = (Bounds::default(), Bounds::default());
    for point in drawn.iter().flat_map(|(_, _, points)| points) {
        x.include(point.x);
        y.include(point.y);
        point
            .interval
            .iter()
            .flatten()
            .for_each(|end| y.include(*end));
    }
    let empty = x.is_empty();
    levels.iter().for_each(|level| y.include(level.at));
    // Zero belongs on the axis when it is near: differences then show in proportion.
    if !y.is_empty() && y.lo > 0.0 && y.lo < 0.6 * y.hi {
        y.include(0.0);
    }

    // Names stand at the ends of the curves where they fit, else in a legend.
    let names: Vec<&str> = drawn
        .iter()
        .filter(|(_, _, points)| !points.is_empty())
        .map(|(_, line, _)| line.name.as_str())
        .chain(levels.iter().map(|level| level.label.as_str()))
        .collect();
    let widest = names
        .iter()
        .map(|name| text_width(name))
        .fold(0.0, f64::max);
    let height = 200.0;
    let direct = widest + 14.0 < 0.34 * canvas.width && names.len() as f64 * LINE < height;
    let mut legend: Vec<LegendEntry> = drawn
        .iter()
        .filter(|(_, _, points)| !direct || points.is_empty())
        .map(|(class, line, points)| LegendEntry {
            name: if points.is_empty() {
                format!("{} (no data)", line.name)
            } else {
                line.name.clone()
            },
            class: class.clone(),
            glyph: match line.role {
                Role::Measured => Glyph::MarkedLine,
                Role::Baseline => Glyph::Line,
            },
        })
        .collect();
    if !direct {
        legend.extend(levels.iter().map(|level| LegendEntry {
            name: level.label.clone(),
            class: "level".to_owned(),
            glyph: Glyph::Line,
        }));
    }
    let top = canvas.legend(&legend, 4.0);
    let y = if y.is_empty() {
        Bounds::of([0.0, 1.0])
    } else {
        y
    };
    let y_ticks = linear_ticks(&y, 5);
    let left = tick_room(&y_ticks);
    let frame = Frame::new(
        canvas,
        FrameSpec {
            top,
            height,
            x: match x_axis {
                XAxis::Log => x.padded_log(0.04),
                _ => x.padded(0.03),
            },
            x_scale: x_axis,
            y: y.down_to(y_ticks.first().copied())
                .up_to(y_ticks.last().copied()),
            y_ticks,
            x_label,
            y_label,
            left,
            right: if direct { widest + 18.0 } else { 12.0 },
            mark_labels: &[],
        },
    );
    if empty {
        return frame.no_data(canvas);
    }
    for level in levels {
        let y = frame.y(level.at);
        canvas.line(frame.left, y, frame.right, y, "level");
    }
    let mut end_labels: Vec<EndLabel> = levels
        .iter()
        .map(|level| EndLabel {
            y: frame.y(level.at),
            text: &level.label,
            class: "muted".to_owned(),
        })
        .collect();
    for (class, line, points) in &drawn {
        draw_line(canvas, &frame, class, line.role, points);
        if let Some(last) = points.last() {
            end_labels.push(EndLabel {
                y: frame.y(last.y),
                text: &line.name,
                class: match line.role {
                    Role::Measured => format!("name {class}"),
                    Role::Baseline => "muted".to_owned(),
                },
            });
        }
    }
    if direct {
        spread(&mut end_labels, frame.top, frame.bottom);
        for label in &end_labels {
            let at = (frame.right + 8.0, label.y + 4.0);
            canvas.text(at, Anchor::Start, &label.class, label.text);
        }
    }
}

fn draw_line(canvas: &mut Canvas, frame: &Frame, class: &str, role: Role, points: &[Point]) {
    // Few points carry whiskers, many a band.
    const MAX_WHISKERS: usize = 24;
    let with_interval: Vec<(f64, [f64; 2])> = points
        .iter()
        .filter_map(|point| Some((point.x, point.interval?)))
        .collect();
    if with_interval.len() > MAX_WHISKERS {
        let mut path = String::new();
        let upper = with_interval.iter().map(|(x, [_, high])| (*x, *high));
        let lower = with_interval.iter().rev().map(|(x, [low, _])| (*x, *low));
        for (i, (x, y)) in upper.chain(lower).enumerate() {
            let command = if i == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{command}{} {}", px(frame.x(x)), px(frame.y(y)));
        }
        path.push('Z');
        canvas.path(&path, &format!("band {class}"), None);
    } else {
        for (x, [low, high]) in &with_interval {
            let (x, low, high) = (frame.x(*x), frame.y(*low), frame.y(*high));
            let path = format!(
                "M{0} {1}H{2}M{3} {1}V{4}M{0} {4}H{2}",
                px(x - 4.0),
                px(low),
                px(x + 4.0),
                px(x),
                px(high)
            );
            canvas.path(&path, &format!("whisker {class}"), None);
        }
    }
    let mut path = String::new();
    for (i, point) in points.iter().enumerate() {
        let command = if i == 0 { 'M' } else { 'L' };
        let (x, y) = (frame.x(point.x), frame.y(point.y));
        let _ = write!(path, "{command}{} {}", px(x), px(y));
    }
    if points.len() > 1 {
        canvas.path(&path, &format!("curve {class}"), None);
    }
    if role == Role::Measured && points.len() <= 2 * MAX_WHISKERS {
        for point in points {
            let value = match point.interval {
                Some(interval) => Value::interval(point.y, interval),
                None => Value::Number(point.y),
            };
            let tip = format!("{}: {value}", Value::Setting(point.x));
            canvas.marker((frame.x(point.x), frame.y(point.y)), class, Some(&tip));
        }
    } else if let ([point], Role::Baseline) = (points, role) {
        canvas.marker((frame.x(point.x), frame.y(point.y)), class, None);
    }
}

fn bars(
    canvas: &mut Canvas,
    x_label: &str,
    y_label: &str,
    categories: &[String],
    series: &[BarSeries],
) {
    let mut y = Bounds::of([0.0]);
    series
        .iter()
        .flat_map(|bar_series| bar_series.values.iter().take(categories.len()))
        .for_each(|value| y.include(*value));
    let empty = categories.is_empty() || series.iter().all(|s| s.values.is_empty());
    if y.lo == y.hi {
        y.include(1.0);
    }
    let legend: Vec<LegendEntry> = series
        .iter()
        .enumerate()
        .filter(|(_, bar_series)| series.len() > 1 || bar_series.values.is_empty())
        .map(|(i, bar_series)| LegendEntry {
            name: if bar_series.values.is_empty() {
                format!("{} (no data)", bar_series.name)
            } else {
                bar_series.name.clone()
            },
            class: style(i),
            glyph: Glyph::Bar,
        })
        .collect();
    let top = canvas.legend(&legend, 4.0);
    let y_ticks = linear_ticks(&y, 5);
    let left = tick_room(&y_ticks);
    let frame = Frame::new(
        canvas,
        FrameSpec {
            top,
            height: 180.0,
            x: Bounds::of([0.0, categories.len().max(1) as f64]),
            x_scale: &XAxis::Labelled(Vec::new()),
            y: y.down_to(y_ticks.first().copied())
                .up_to(y_ticks.last().copied()),
            y_ticks,
            x_label,
            y_label,
            left,
            right: 8.0,
            mark_labels: &[],
        },
    );
    if empty {
        return frame.no_data(canvas);
    }
    let slot = (frame.right - frame.left) / categories.len() as f64;
    let bar = (0.78 * slot / series.len() as f64).min(48.0);
    let zero = frame.y(0.0);
    for (i, bar_series) in series.iter().enumerate() {
        let class = style(i);
        let offset = (i as f64 - series.len() as f64 / 2.0) * bar;
        for (j, (category, value)) in categories.iter().zip(&bar_series.values).enumerate() {
            let x = frame.left + (j as f64 + 0.5) * slot + offset;
            let y = frame.y(*value);
            let tip = format!("{category}: {}", Value::Setting(*value));
            let path = format!(
                "M{} {}V{}H{}V{}Z",
                px(x),
                px(zero),
                px(y),
                px(x + bar - 1.0),
                px(zero)
            );
            canvas.path(&path, &format!("bar {class}"), Some(&tip));
            if i % 2 == 1 {
                let hatch = format!("url(#{}-hatch)", canvas.id);
                canvas.needs_hatch = true;
                let _ = write!(canvas.body, r#"<path d="{path}" style="fill:{hatch}"/>"#);
            }
        }
    }
    if y.lo < 0.0 {
        canvas.line(frame.left, zero, frame.right, zero, "axis");
    }
    let widest = categories
        .iter()
        .map(|name| text_width(name))
        .fold(0.0, f64::max);
    let every = ((widest + GAP) / slot).ceil().max(1.0) as usize;
    for (j, category) in categories.iter().enumerate().step_by(every) {
        let x = frame.left + (j as f64 + 0.5) * slot;
        let at = (x, frame.bottom + LINE);
        canvas.text(at, Anchor::Middle, "tick", category);
    }
}

fn intervals(canvas: &mut Canvas, x_label: &str, no_effect: Option<f64>, rows: &[IntervalRow]) {
    let mut bounds = Bounds::default();
    for row in rows {
        row.estimate.iter().for_each(|x| bounds.include(*x));
        row.interval
            .iter()
            .flatten()
            .for_each(|x| bounds.include(*x));
        row.margin.iter().for_each(|x| bounds.include(*x));
    }
    let empty = bounds.is_empty();
    no_effect.iter().for_each(|x| bounds.include(*x));

    let values: Vec<String> = rows
        .iter()
        .map(|row| interval_value(row).to_string())
        .collect();
    let label_width = rows
        .iter()
        .map(|row| text_width(&row.label))
        .fold(0.0, f64::max);
    let value_width = values
        .iter()
        .map(|value| text_width(value))
        .fold(0.0, f64::max);
    // Where label, interval and value do not fit side by side, the words get a line of their own.
    let stacked = canvas.width - label_width - value_width < 0.38 * canvas.width;
    let row_height = if stacked { 40.0 } else { 26.0 };
    let mut legend = vec![LegendEntry {
        name: "estimate and interval".to_owned(),
        class: "s1".to_owned(),
        glyph: Glyph::MarkedLine,
    }];
    if rows.iter().any(|row| row.margin.is_some()) {
        legend.push(LegendEntry {
            name: "margin".to_owned(),
            class: "margin".to_owned(),
            glyph: Glyph::Margin,
        });
    }
    let top = canvas.legend(&legend, 4.0);
    let frame = Frame::new(
        canvas,
        FrameSpec {
            top: top + 2.0,
            height: row_height * rows.len().max(1) as f64,
            x: bounds.padded(0.05),
            x_scale: &XAxis::Linear,
            y: Bounds::of([0.0, 1.0]),
            y_ticks: Vec::new(),
            x_label,
            y_label: "",
            left: if stacked { 12.0 } else { label_width + 20.0 },
            right: if stacked { 12.0 } else { value_width + 20.0 },
            mark_labels: &[],
        },
    );
    if empty && rows.is_empty() {
        return frame.no_data(canvas);
    }
    if let Some(x) = no_effect {
        let x = frame.x(x);
        canvas.line(x, frame.top, x, frame.bottom, "axis");
    }
    for (i, (row, value)) in rows.iter().zip(&values).enumerate() {
        let row_top = frame.top + i as f64 * row_height;
        let y = row_top + if stacked { 28.0 } else { 13.0 };
        let words = if stacked { row_top + 14.0 } else { y + 4.0 };
        let (label_x, value_x) = if stacked {
            (frame.left, frame.right)
        } else {
            (0.0, canvas.width)
        };
        canvas.text((label_x, words), Anchor::Start, "label halo", &row.label);
        canvas.text((value_x, words), Anchor::End, "label halo", value);
        if let Some([low, high]) = row.interval {
            let path = format!(
                "M{0} {1}V{2}M{0} {3}H{4}M{4} {1}V{2}",
                px(frame.x(low)),
                px(y - 4.0),
                px(y + 4.0),
                px(y),
                px(frame.x(high))
            );
            canvas.path(&path, "whisker s1", None);
        }
        if let Some(margin) = row.margin {
            let tip = format!("margin {}", Value::Setting(margin));
            canvas.margin((frame.x(margin), y), Some(&tip));
        }
        if let Some(estimate) = row.estimate {
            canvas.marker((frame.x(estimate), y), "s1", Some(value));
        }
    }
}

fn interval_value(row: &IntervalRow) -> Value {
    match (row.estimate, row.interval) {
        (Some(estimate), Some(interval)) => Value::interval(estimate, interval),
        (estimate, _) => Value::from(estimate),
    }
}

// ---------------------------------------------------------------------------------------------
// Data to drawable data

struct Bin {
    lo: f64,
    hi: f64,
    /// Share of all counts per unit of x; 0 marks a spike without width.
    density: f64,
}

/// The part of the histogram that holds counts, in at most `MAX_BINS` bins, scaled to area one.
fn density(histogram: &Histogram) -> Vec<Bin> {
    let bins: Vec<(f64, f64, u64)> = histogram
        .edges
        .windows(2)
        .zip(&histogram.counts)
        .map(|(edge, count)| (edge[0], edge[1], *count))
        .collect();
    let filled = |bin: &(f64, f64, u64)| bin.2 > 0;
    let (Some(first), Some(last)) = (bins.iter().position(filled), bins.iter().rposition(filled))
    else {
        return Vec::new();
    };
    let bins = &bins[first..=last];
    let total: f64 = bins.iter().map(|bin| bin.2 as f64).sum();
    bins.chunks(bins.len().div_ceil(MAX_BINS))
        .map(|chunk| {
            let (lo, hi) = (chunk[0].0, chunk[chunk.len() - 1].1);
            let count: f64 = chunk.iter().map(|bin| bin.2 as f64).sum();
            let width = hi - lo;
            Bin {
                lo,
                hi,
                density: if width > 0.0 {
                    count / total / width
                } else {
                    0.0
                },
            }
        })
        .collect()
}

/// The interval in which the histogram holds counts.
fn support(histogram: &Histogram) -> Option<(f64, f64)> {
    let bins = density(histogram);
    Some((bins.first()?.lo, bins.last()?.hi))
}
