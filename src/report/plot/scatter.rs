//! Items as points. Points of one colour are one path of lines without length, whose round ends are the
//! dots: five thousand items take ten bytes each.

use super::*;

/// Steps of the scale of colours.
const STEPS: usize = 5;

pub(super) fn scatter(
    canvas: &mut Canvas,
    x_label: &str,
    y_label: &str,
    panels: &[Panel],
    shade: Option<&Shade>,
) {
    let all = panels
        .iter()
        .flat_map(|panel| panel.points.iter().flatten());
    let (mut x, mut y) = (Bounds::default(), Bounds::default());
    for point in all {
        x.include(f64::from(point[0]));
        y.include(f64::from(point[1]));
    }
    let empty = x.is_empty();
    let (x, y) = (x.padded(0.04), y.padded(0.04));
    let steps = shade.map(steps);
    let beside = panels.len() > 1 && canvas.width > 500.0;
    let columns = if beside { panels.len() } else { 1 };
    let column = (canvas.width + GAP) / columns as f64;
    let mut top = 0.0;
    if let (Some(shade), Some(steps)) = (shade, &steps) {
        top = legend(canvas, shade, steps);
    }
    let units = !(x_label.is_empty() && y_label.is_empty());
    for (i, panel) in panels.iter().enumerate() {
        let left = if beside { i as f64 * column } else { 0.0 };
        let width = column - GAP;
        let frame = if units {
            let y_ticks = linear_ticks(&y, 5);
            let room = tick_room(&y_ticks);
            Frame::new(
                canvas,
                FrameSpec {
                    top,
                    height: 220.0,
                    x,
                    x_scale: &XAxis::Linear,
                    y: y.down_to(y_ticks.first().copied())
                        .up_to(y_ticks.last().copied()),
                    y_ticks,
                    x_label,
                    y_label,
                    left: room,
                    right: 8.0,
                    mark_labels: &[],
                },
            )
        } else {
            let at = (left, top + LINE - 4.0);
            canvas.text(at, Anchor::Start, "label", &panel.name);
            Frame::bare(
                canvas,
                (left, left + width),
                top + LINE + 4.0,
                width,
                (x, y),
            )
        };
        if empty {
            return frame.no_data(canvas);
        }
        draw(canvas, &frame, panel, steps.as_ref());
        if !beside {
            top = canvas.height;
        }
    }
}

/// A step of the scale per item, 1 to [`STEPS`], 0 where the value is unknown; and the scale's ends.
struct Steps {
    of: Vec<usize>,
    ends: Option<[f64; 2]>,
}

fn steps(shade: &Shade) -> Steps {
    match &shade.values {
        ShadeValues::Numbers(values) => {
            let mut known: Vec<f32> = values.iter().flatten().copied().collect();
            known.sort_by(f32::total_cmp);
            // As the page's script scales it: a few far values must not leave one colour to all others.
            let at =
                |share: f64| known.get((share * known.len().saturating_sub(1) as f64) as usize);
            let (low, high) = (
                at(0.02).map_or(0.0, |v| f64::from(*v)),
                at(0.98).map_or(1.0, |v| f64::from(*v)),
            );
            let step = |value: &Option<f32>| {
                value.map_or(0, |v| {
                    let share = if high > low {
                        (f64::from(v) - low) / (high - low)
                    } else {
                        0.5
                    };
                    1 + ((share.clamp(0.0, 1.0) * STEPS as f64) as usize).min(STEPS - 1)
                })
            };
            Steps {
                of: values.iter().map(step).collect(),
                ends: (!known.is_empty()).then_some([low, high]),
            }
        }
        ShadeValues::Names { of, .. } => Steps {
            of: of
                .iter()
                .map(|name| name.map_or(0, |n| 1 + n as usize % STEPS))
                .collect(),
            ends: None,
        },
    }
}

fn legend(canvas: &mut Canvas, shade: &Shade, steps: &Steps) -> f64 {
    const SWATCH: f64 = 18.0;
    let y = 12.0;
    let Some([low, high]) = steps.ends else {
        return 0.0;
    };
    let name = format!("{}: {}", shade.name, Value::Number(low));
    canvas.text((0.0, y + 4.0), Anchor::Start, "label", &name);
    let left = text_width(&name) + GAP;
    for step in 0..STEPS {
        let x = left + step as f64 * SWATCH;
        let d = format!("M{} {}h{SWATCH}", px(x), px(y));
        canvas.path(&d, &format!("swatch m{}", step + 1), None);
    }
    let at = (left + STEPS as f64 * SWATCH + GAP, y + 4.0);
    canvas.text(at, Anchor::Start, "label", &Value::Number(high).to_string());
    y + LINE
}

fn draw(canvas: &mut Canvas, frame: &Frame, panel: &Panel, steps: Option<&Steps>) {
    // The highest step last, so that what moved most lies on top.
    for step in 0..=STEPS {
        let of = |item: usize| steps.map_or(1, |s| s.of.get(item).copied().unwrap_or(0));
        let mut path = String::new();
        for (item, point) in panel.points.iter().enumerate() {
            let Some([x, y]) = point.filter(|_| of(item) == step) else {
                continue;
            };
            let (x, y) = (frame.x(f64::from(x)), frame.y(f64::from(y)));
            let _ = write!(path, "M{} {}h0", px(x), px(y));
        }
        if !path.is_empty() {
            canvas.path(&path, &format!("dots m{step}"), None);
        }
    }
}
