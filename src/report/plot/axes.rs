//! Axes, ticks, legends and the SVG they are written in.

use super::*;

/// Smallest interval that holds what was included.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) lo: f64,
    pub(super) hi: f64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            lo: f64::INFINITY,
            hi: f64::NEG_INFINITY,
        }
    }
}

impl Bounds {
    pub(super) fn of<const N: usize>(values: [f64; N]) -> Self {
        let mut bounds = Self::default();
        values.iter().for_each(|x| bounds.include(*x));
        bounds
    }

    pub(super) fn include(&mut self, x: f64) {
        if x.is_finite() {
            self.lo = self.lo.min(x);
            self.hi = self.hi.max(x);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lo > self.hi
    }

    /// With room on both sides; a single value gets an interval around it, nothing gets [0, 1].
    pub(super) fn padded(&self, share: f64) -> Self {
        if self.is_empty() {
            return Self { lo: 0.0, hi: 1.0 };
        }
        let span = self.hi - self.lo;
        let pad = if span > 1e-12 * self.lo.abs().max(self.hi.abs()) {
            share * span
        } else if self.lo == 0.0 {
            0.5
        } else {
            0.1 * self.lo.abs()
        };
        Self {
            lo: self.lo - pad,
            hi: self.hi + pad,
        }
    }

    /// As `padded`, for positive bounds on a logarithmic axis.
    pub(super) fn padded_log(&self, share: f64) -> Self {
        if self.is_empty() {
            return Self { lo: 1.0, hi: 10.0 };
        }
        let span = (self.hi / self.lo).ln();
        let factor = if span > 1e-9 {
            (share * span).exp()
        } else {
            2.0
        };
        Self {
            lo: self.lo / factor,
            hi: self.hi * factor,
        }
    }

    pub(super) fn up_to(mut self, x: Option<f64>) -> Self {
        x.iter().for_each(|x| self.include(*x));
        self
    }

    pub(super) fn down_to(self, x: Option<f64>) -> Self {
        self.up_to(x)
    }
}

/// Round positions that cover the bounds, about `target` steps apart from end to end.
pub(super) fn linear_ticks(bounds: &Bounds, target: usize) -> Vec<f64> {
    let bounds = if bounds.hi > bounds.lo {
        *bounds
    } else {
        bounds.padded(0.1)
    };
    let step = nice_step((bounds.hi - bounds.lo) / target.max(1) as f64);
    let first = (bounds.lo / step + 1e-9).floor();
    let last = (bounds.hi / step - 1e-9).ceil();
    if !(step > 0.0 && last - first <= 1e3) {
        return Vec::new();
    }
    (0..=(last - first) as i64)
        .map(|i| (first + i as f64) * step)
        .collect()
}

/// The round number (1, 2, 5 × 10ⁿ) next above `step`.
pub(super) fn nice_step(step: f64) -> f64 {
    let power = 10f64.powf(step.log10().floor());
    let mantissa = step / power;
    let round = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|round| mantissa <= round * (1.0 + 1e-9))
        .unwrap_or(10.0);
    round * power
}

/// Round positions within positive bounds: 1, 2, 5 per decade, or powers of ten where those are
/// enough.
pub(super) fn log_ticks(bounds: &Bounds) -> Vec<f64> {
    let decades = (bounds.hi / bounds.lo).log10();
    let mantissas: &[f64] = if decades > 4.0 {
        &[1.0]
    } else {
        &[1.0, 2.0, 5.0]
    };
    let (first, last) = (bounds.lo.log10().floor(), bounds.hi.log10().ceil());
    (first as i32..=last as i32)
        .flat_map(|power| mantissas.iter().map(move |m| m * 10f64.powi(power)))
        .filter(|x| *x >= bounds.lo * (1.0 - 1e-9) && *x <= bounds.hi * (1.0 + 1e-9))
        .collect()
}

// ---------------------------------------------------------------------------------------------
// Axes

pub(super) struct FrameSpec<'a> {
    pub(super) top: f64,
    pub(super) height: f64,
    pub(super) x: Bounds,
    pub(super) x_scale: &'a XAxis,
    pub(super) y: Bounds,
    pub(super) y_ticks: Vec<f64>,
    pub(super) x_label: &'a str,
    pub(super) y_label: &'a str,
    /// Room kept free left and right of the axes.
    pub(super) left: f64,
    pub(super) right: f64,
    /// Marks whose labels need room above the axes.
    pub(super) mark_labels: &'a [Mark],
}

/// Room left of the axes for the widest tick label.
pub(super) fn tick_room(y_ticks: &[f64]) -> f64 {
    let labels = y_tick_labels(y_ticks);
    labels
        .iter()
        .map(|(_, label)| text_width(label))
        .fold(0.0, f64::max)
        + 12.0
}

/// The drawn axes: maps data to pixels.
pub(super) struct Frame {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
    pub(super) x: Bounds,
    pub(super) y: Bounds,
    pub(super) log_x: bool,
    /// Lane of each mark's label, and its horizontal span.
    pub(super) mark_lanes: Vec<(usize, f64)>,
}

impl Frame {
    /// Lays out and draws the axes; sets the height of the canvas.
    pub(super) fn new(canvas: &mut Canvas, spec: FrameSpec) -> Self {
        let mut frame = Self {
            left: spec.left,
            right: (canvas.width - spec.right).max(spec.left + 40.0),
            top: 0.0,
            bottom: 0.0,
            x: spec.x,
            y: spec.y,
            log_x: matches!(spec.x_scale, XAxis::Log),
            mark_lanes: Vec::new(),
        };
        frame.mark_lanes = frame.lanes(spec.mark_labels, canvas.width);
        let lanes = frame
            .mark_lanes
            .iter()
            .map(|(lane, _)| lane + 1)
            .max()
            .unwrap_or(0);
        let y_label_row = if spec.y_label.is_empty() {
            0.0
        } else {
            LINE + 4.0
        };
        frame.top = spec.top + y_label_row + lanes as f64 * LINE + 6.0;
        frame.bottom = frame.top + spec.height;
        canvas.height = frame.bottom + 2.0 * LINE + 10.0;

        if !spec.y_label.is_empty() {
            let at = (0.0, spec.top + LINE - 4.0);
            canvas.text(at, Anchor::Start, "muted", spec.y_label);
        }
        for (y, label) in y_tick_labels(&spec.y_ticks) {
            let at = frame.y(y);
            canvas.line(frame.left, at, frame.right, at, "grid");
            canvas.text((frame.left - 6.0, at + 4.0), Anchor::End, "tick", &label);
        }
        canvas.line(frame.left, frame.bottom, frame.right, frame.bottom, "axis");
        frame.x_ticks(canvas, spec.x_scale);
        let middle = (frame.left + frame.right) / 2.0;
        let at = (middle, frame.bottom + 2.0 * LINE + 2.0);
        canvas.text(at, Anchor::Middle, "muted", spec.x_label);
        frame
    }

    /// A box without ticks, for positions that have no unit; sets the height of the canvas.
    pub(super) fn bare(
        canvas: &mut Canvas,
        (left, right): (f64, f64),
        top: f64,
        height: f64,
        (x, y): (Bounds, Bounds),
    ) -> Self {
        let bottom = top + height;
        canvas.height = bottom + 8.0;
        let (l, r, t, b) = (px(left), px(right), px(top), px(bottom));
        canvas.path(&format!("M{l} {t}H{r}V{b}H{l}Z"), "grid", None);
        Self {
            left,
            right,
            top,
            bottom,
            x,
            y,
            log_x: false,
            mark_lanes: Vec::new(),
        }
    }

    pub(super) fn x(&self, x: f64) -> f64 {
        let share = if self.log_x {
            (x / self.x.lo).ln() / (self.x.hi / self.x.lo).ln()
        } else {
            (x - self.x.lo) / (self.x.hi - self.x.lo)
        };
        self.left + share * (self.right - self.left)
    }

    pub(super) fn y(&self, y: f64) -> f64 {
        let share = (y - self.y.lo) / (self.y.hi - self.y.lo);
        self.bottom - share * (self.bottom - self.top)
    }

    pub(super) fn x_ticks(&self, canvas: &mut Canvas, scale: &XAxis) {
        let ticks: Vec<(f64, String)> = match scale {
            XAxis::Linear => {
                let target = ((self.right - self.left) / 80.0).round().clamp(2.0, 8.0);
                let ticks = linear_ticks(&self.x, target as usize);
                let step = tick_step(&ticks);
                ticks.iter().map(|x| (*x, tick(*x, step))).collect()
            }
            XAxis::Log => log_ticks(&self.x)
                .into_iter()
                .map(|x| (x, tick(x, x)))
                .collect(),
            XAxis::Labelled(marks) => marks
                .iter()
                .map(|mark| (mark.at, mark.label.clone()))
                .collect(),
        };
        let mut free_from = f64::NEG_INFINITY;
        for (x, label) in ticks {
            let at = self.x(x);
            if at < self.left - 0.5 || at > self.right + 0.5 {
                continue;
            }
            canvas.line(at, self.bottom, at, self.bottom + 4.0, "axis");
            // A label at the end of the axis moves in rather than out of the drawing.
            let half = text_width(&label) / 2.0;
            let middle = at.min(canvas.width - half).max(half);
            if middle - half >= free_from {
                let at = (middle, self.bottom + LINE);
                canvas.text(at, Anchor::Middle, "tick", &label);
                free_from = middle + half + GAP;
            }
        }
    }

    /// For each mark the lowest lane above the axes in which its label overlaps no other.
    pub(super) fn lanes(&self, marks: &[Mark], width: f64) -> Vec<(usize, f64)> {
        let mut order: Vec<usize> = (0..marks.len()).collect();
        order.sort_by(|a, b| marks[*a].at.total_cmp(&marks[*b].at));
        let mut free_from: Vec<f64> = Vec::new();
        let mut lanes = vec![(0, 0.0); marks.len()];
        for i in order {
            let label = text_width(&marks[i].label).min(width);
            let start = (self.x(marks[i].at) - label / 2.0)
                .min(width - label)
                .max(0.0);
            let lane = free_from
                .iter()
                .position(|free| start >= *free)
                .unwrap_or(free_from.len());
            if lane == free_from.len() {
                free_from.push(0.0);
            }
            free_from[lane] = start + label + GAP;
            lanes[i] = (lane, start + label / 2.0);
        }
        lanes
    }

    pub(super) fn draw_marks(&self, canvas: &mut Canvas, marks: &[Mark]) {
        let base = |lane: usize| self.top - 8.0 - lane as f64 * LINE;
        for (mark, (lane, _)) in marks.iter().zip(&self.mark_lanes) {
            let x = self.x(mark.at);
            canvas.line(x, self.bottom, x, base(*lane) + 4.0, "mark");
        }
        // Words last: their halo interrupts the lines that they cross.
        for (mark, (lane, middle)) in marks.iter().zip(&self.mark_lanes) {
            let at = (*middle, base(*lane));
            canvas.text(at, Anchor::Middle, "label halo", &mark.label);
        }
    }

    pub(super) fn no_data(&self, canvas: &mut Canvas) {
        let at = (
            (self.left + self.right) / 2.0,
            (self.top + self.bottom) / 2.0 + 4.0,
        );
        canvas.text(at, Anchor::Middle, "muted", "no data");
    }
}

pub(super) fn y_tick_labels(ticks: &[f64]) -> Vec<(f64, String)> {
    let step = tick_step(ticks);
    ticks.iter().map(|y| (*y, tick(*y, step))).collect()
}

pub(super) fn tick_step(ticks: &[f64]) -> f64 {
    match ticks {
        [first, second, ..] => nice_step((second - first) * (1.0 - 1e-6)),
        _ => 1.0,
    }
}

pub(super) struct EndLabel<'a> {
    pub(super) y: f64,
    pub(super) text: &'a str,
    pub(super) class: String,
}

/// Moves labels apart vertically, each as little as the order allows, within the frame.
pub(super) fn spread(labels: &mut [EndLabel], top: f64, bottom: f64) {
    labels.sort_by(|a, b| a.y.total_cmp(&b.y));
    let mut free_from = top;
    for label in labels.iter_mut() {
        label.y = label.y.max(free_from);
        free_from = label.y + LINE;
    }
    let mut free_to = bottom;
    for label in labels.iter_mut().rev() {
        label.y = label.y.min(free_to);
        free_to = label.y - LINE;
    }
}

// ---------------------------------------------------------------------------------------------
// The drawing surface

#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

pub(super) struct LegendEntry {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) glyph: Glyph,
}

#[derive(Clone, Copy)]
pub(super) enum Glyph {
    Area,
    Bar,
    Line,
    MarkedLine,
    Margin,
}

pub(super) struct Canvas {
    pub(super) id: String,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) body: String,
    pub(super) needs_hatch: bool,
}

impl Canvas {
    pub(super) fn new(width: f64, id: &str) -> Self {
        Self {
            id: escape(id),
            width,
            height: 0.0,
            body: String::new(),
            needs_hatch: false,
        }
    }

    pub(super) fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, class: &str) {
        let _ = write!(
            self.body,
            r#"<path class="{class}" d="M{} {}L{} {}"/>"#,
            px(x1),
            px(y1),
            px(x2),
            px(y2)
        );
    }

    pub(super) fn path(&mut self, d: &str, class: &str, tip: Option<&str>) {
        self.element(&format!(r#"path class="{class}" d="{d}""#), "path", tip);
    }

    /// A point, in the shape of its series.
    pub(super) fn marker(&mut self, (x, y): (f64, f64), class: &str, tip: Option<&str>) {
        let shape = match class {
            "s2" => format!("M{} {}h8v8h-8Z", px(x - 4.0), px(y - 4.0)),
            "s3" => format!("M{} {}l5 8.5h-10Z", px(x), px(y - 5.5)),
            "s4" => format!("M{} {}l5 5l-5 5l-5 -5Z", px(x), px(y - 5.0)),
            _ => format!("M{} {}a4 4 0 1 0 8 0a4 4 0 1 0 -8 0Z", px(x - 4.0), px(y)),
        };
        self.path(&shape, &format!("point {class}"), tip);
    }

    pub(super) fn margin(&mut self, (x, y): (f64, f64), tip: Option<&str>) {
        let d = format!("M{} {}v16", px(x), px(y - 8.0));
        self.path(&d, "margin", tip);
    }

    /// Draws an element with an optional tooltip; `open` is trusted markup.
    pub(super) fn element(&mut self, open: &str, name: &str, tip: Option<&str>) {
        let _ = match tip {
            Some(tip) => write!(self.body, "<{open}><title>{}</title></{name}>", escape(tip)),
            None => write!(self.body, "<{open}/>"),
        };
    }

    /// Writes a text, cut to what the drawing has room for.
    pub(super) fn text(&mut self, (x, y): (f64, f64), anchor: Anchor, class: &str, text: &str) {
        let (anchor, room) = match anchor {
            Anchor::Start => ("", self.width - x),
            Anchor::Middle => (r#" text-anchor="middle""#, 2.0 * x.min(self.width - x)),
            Anchor::End => (r#" text-anchor="end""#, x),
        };
        let text = truncate(text, ((room + 1.0) / CHARACTER).max(1.0) as usize);
        let _ = write!(
            self.body,
            r#"<text class="{class}" x="{}" y="{}"{anchor}>{}</text>"#,
            px(x),
            px(y),
            escape(&text)
        );
    }

    /// Names the series in lines of their own above the axes; returns where the next thing starts.
    pub(super) fn legend(&mut self, entries: &[LegendEntry], top: f64) -> f64 {
        const SWATCH: f64 = 26.0;
        if entries.is_empty() {
            return top;
        }
        let (mut x, mut y) = (0.0, top + 8.0);
        for entry in entries {
            let width = SWATCH + 6.0 + text_width(&entry.name) + 2.0 * GAP;
            if x > 0.0 && x + width > self.width + 2.0 * GAP {
                (x, y) = (0.0, y + LINE + 2.0);
            }
            let class = &entry.class;
            let swatch = format!("M{} {}h{SWATCH}v10h-{SWATCH}Z", px(x), px(y - 5.0));
            match entry.glyph {
                Glyph::Area => {
                    self.path(&swatch, &format!("area {class}"), None);
                    self.line(x, y - 5.0, x + SWATCH, y - 5.0, &format!("curve {class}"));
                }
                Glyph::Bar => {
                    self.path(&swatch, &format!("bar {class}"), None);
                    if matches!(class.as_str(), "s2" | "s4") {
                        self.needs_hatch = true;
                        let _ = write!(
                            self.body,
                            r#"<path d="{swatch}" style="fill:url(#{}-hatch)"/>"#,
                            self.id
                        );
                    }
                }
                Glyph::Line | Glyph::MarkedLine => {
                    let line = if class == "level" {
                        class.clone()
                    } else {
                        format!("curve {class}")
                    };
                    self.line(x, y, x + SWATCH, y, &line);
                    if matches!(entry.glyph, Glyph::MarkedLine) {
                        self.marker((x + SWATCH / 2.0, y), class, None);
                    }
                }
                Glyph::Margin => self.margin((x + SWATCH / 2.0, y), None),
            }
            let at = (x + SWATCH + 6.0, y + 4.0);
            self.text(at, Anchor::Start, "label", &entry.name);
            x += width;
        }
        y + LINE
    }

    pub(super) fn finish(self, title: &str, description: &str) -> String {
        let hatch = if self.needs_hatch {
            format!(
                concat!(
                    r#"<defs><pattern id="{}-hatch" width="5" height="5" "#,
                    r#"patternUnits="userSpaceOnUse" patternTransform="rotate(45)">"#,
                    r#"<path class="hatch" d="M0 0V5"/></pattern></defs>"#
                ),
                self.id
            )
        } else {
            String::new()
        };
        format!(
            concat!(
                r#"<svg viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" "#,
                r#"aria-labelledby="{id}-title {id}-desc"><title id="{id}-title">{title}</title>"#,
                r#"<desc id="{id}-desc">{desc}</desc>{hatch}{body}</svg>"#
            ),
            w = px(self.width),
            h = px(self.height),
            id = self.id,
            title = escape(title),
            desc = escape(description),
            hatch = hatch,
            body = self.body,
        )
    }
}

pub(super) fn style(index: usize) -> String {
    format!("s{}", index % STYLES + 1)
}

pub(super) fn text_width(text: &str) -> f64 {
    CHARACTER * display_width(&clean(text)) as f64
}

/// A pixel coordinate, to a tenth.
pub(super) fn px(x: f64) -> String {
    let text = format!("{x:.1}");
    let text = text.strip_suffix(".0").unwrap_or(&text);
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}
