//! What a report says, without how it is drawn: a verdict, the axes behind it, the key numbers, and
//! sections of notes, figures and tables.

use serde::Serialize;

use super::value::{State, Value};

/// A finished run, ready to be shown.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// What was compared: `scifact v1 → v2`.
    pub title: String,
    /// One line of scope: rows, dimensions, what they share.
    pub subtitle: String,
    /// What to do, and why. None for a command that measures without judging.
    pub verdict: Option<Verdict>,
    /// The grounds of the verdict, one per axis, in reading order.
    pub axes: Vec<AxisCard>,
    /// The numbers that a reader takes away; the only tables in the terminal summary.
    pub key_numbers: Vec<Table>,
    /// What the reader must know before trusting the numbers.
    pub warnings: Vec<String>,
    /// The details, shown on the page only.
    pub sections: Vec<Section>,
    /// How the run was made: inputs, device, seed, version, command line, timings.
    pub facts: Vec<Fact>,
    /// The files that the run wrote.
    pub outputs: Vec<Output>,
}

/// What to do, in a few words and one sentence.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// The action: `re-index`, `no action`.
    pub action: String,
    /// The reason, in one sentence.
    pub reason: String,
    /// How serious it is.
    pub tone: Tone,
}

/// How serious a verdict is; decides its colour only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// Nothing to do.
    Good,
    /// Something to watch or adjust.
    Caution,
    /// Something that must be done before the current corpus is used.
    Severe,
    /// Not enough data to say.
    Undecided,
}

/// One axis of the verdict with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct AxisCard {
    /// The axis: `data`, `coordinates`, `neighbourhoods`, `retrieval`, `distribution`.
    pub name: String,
    /// Its state.
    pub state: State,
    /// The finding in one line, with its number.
    pub headline: String,
    /// Further findings, most important first.
    pub evidence: Vec<String>,
}

/// A part of the page about one question.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Anchor for links into the page, such as `neighbourhoods`.
    pub id: String,
    /// The heading.
    pub title: String,
    /// The answer, in one or two sentences.
    pub lead: String,
    /// What it rests on.
    pub items: Vec<Item>,
}

/// A piece of a section.
#[derive(Debug, Clone, PartialEq)]
pub enum Item {
    /// A paragraph.
    Note(String),
    /// A drawing.
    Figure(Figure),
    /// A table.
    Table(Table),
    /// Text to copy as it stands: a command, a configuration.
    Code {
        /// What it is.
        title: String,
        /// The text.
        text: String,
    },
}

/// A table. Rows may be shorter than `columns`; what is missing stays empty.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Table {
    /// What the table shows.
    pub caption: String,
    /// The columns; the first one names the row.
    pub columns: Vec<Column>,
    /// The cells, row by row.
    pub rows: Vec<Vec<Value>>,
}

/// The head of a table column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// What the cells are, with the unit.
    pub title: String,
    /// To which side they are set.
    pub align: Align,
}

impl Column {
    /// A column of words.
    pub fn left(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            align: Align::Left,
        }
    }

    /// A column of numbers.
    pub fn right(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            align: Align::Right,
        }
    }
}

/// To which side the cells of a column are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// For words.
    Left,
    /// For numbers.
    Right,
}

/// A drawing with its title and one line on how to read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// What is drawn.
    pub title: String,
    /// How to read it, in one line.
    pub reading: String,
    /// The data and their form.
    pub plot: Plot,
}

/// The forms a figure can take. All numbers are finite; vectors may be empty.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "form", rename_all = "snake_case")]
pub enum Plot {
    /// Overlaid distributions, each scaled to area one so that different sample sizes compare.
    Densities {
        /// Quantity and unit on the horizontal axis.
        x_label: String,
        /// The distributions.
        series: Vec<Histogram>,
        /// Positions worth pointing at: means, thresholds.
        marks: Vec<Mark>,
    },
    /// Quantities over a common variable, with intervals.
    Curve {
        /// Quantity and unit on the horizontal axis.
        x_label: String,
        /// Quantity and unit on the vertical axis.
        y_label: String,
        /// The scale of the horizontal axis.
        x_axis: XAxis,
        /// The curves.
        series: Vec<Line>,
        /// Heights worth pointing at: margins, control limits.
        levels: Vec<Mark>,
    },
    /// Quantities over ordered categories such as the counts 0…k; grouped where there are several
    /// series. Named things with uncertainty belong in `Intervals`.
    Bars {
        /// What the categories are.
        x_label: String,
        /// Quantity and unit on the vertical axis.
        y_label: String,
        /// The labels of the categories, in order.
        categories: Vec<String>,
        /// One value per category and series.
        series: Vec<BarSeries>,
    },
    /// Effects with their intervals against their margins (a forest plot).
    Intervals {
        /// Quantity and unit on the horizontal axis.
        x_label: String,
        /// The value that means no effect, drawn as a line.
        no_effect: Option<f64>,
        /// The effects, top to bottom.
        rows: Vec<IntervalRow>,
    },
    /// Items as points, coloured by one of several things known of them: a map of the corpus, queries
    /// by what became of them. The reader chooses the colour and which slice is shown.
    Scatter {
        /// Quantity on the horizontal axis; empty where positions have no unit.
        x_label: String,
        /// Quantity on the vertical axis; likewise.
        y_label: String,
        /// The items' names.
        ids: Vec<String>,
        /// One or two drawings of the same items, on one scale.
        panels: Vec<Panel>,
        /// What the points may be coloured by; the first is drawn where nothing can be chosen.
        shades: Vec<Shade>,
    },
}

/// Positions of the items of a scatter plot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Panel {
    /// What is drawn: one side's vectors.
    pub name: String,
    /// Where each item is; None where it is not in this panel.
    pub points: Vec<Option<[f32; 2]>>,
}

/// Something known of every item of a scatter plot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shade {
    /// What it is.
    pub name: String,
    /// What is known.
    pub values: ShadeValues,
}

/// The values of a shade, one per item.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ShadeValues {
    /// A quantity; None where it is unknown.
    Numbers(Vec<Option<f32>>),
    /// A slice: `of` counts into `names`. Readers may show one slice alone.
    Names {
        /// The slices, in reading order.
        names: Vec<String>,
        /// The slice of each item; None where it is in none.
        of: Vec<Option<u32>>,
    },
}

/// Counts between edges.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Histogram {
    /// What was counted.
    pub name: String,
    /// Rising bin edges, one more than counts.
    pub edges: Vec<f64>,
    /// Counts per bin.
    pub counts: Vec<u64>,
}

/// A position on an axis with its name.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mark {
    /// The position, in the units of the axis.
    pub at: f64,
    /// Its name.
    pub label: String,
}

/// The scale and the labels of a horizontal axis.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum XAxis {
    /// Equal distances for equal differences.
    Linear,
    /// Equal distances for equal ratios; points at or below zero are left out.
    Log,
    /// Linear, labelled at these positions only: dates of snapshots.
    Labelled(Vec<Mark>),
}

/// A curve.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    /// What it shows.
    pub name: String,
    /// Whether it is a finding or something to compare with.
    pub role: Role,
    /// The points, in order of `x`.
    pub points: Vec<Point>,
}

/// What a curve is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A measured quantity.
    Measured,
    /// A baseline such as chance, drawn thin and grey.
    Baseline,
}

/// A point of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Horizontal position.
    pub x: f64,
    /// Vertical position.
    pub y: f64,
    /// Interval of `y`.
    pub interval: Option<[f64; 2]>,
}

/// The bars of one series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BarSeries {
    /// What was counted.
    pub name: String,
    /// One value per category.
    pub values: Vec<f64>,
}

/// A row of a forest plot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct IntervalRow {
    /// The measure.
    pub label: String,
    /// Its estimate; None where it could not be measured.
    pub estimate: Option<f64>,
    /// Its interval.
    pub interval: Option<[f64; 2]>,
    /// The margin that it is held against.
    pub margin: Option<f64>,
}

/// A line of the run's description.
#[derive(Debug, Clone, PartialEq)]
pub struct Fact {
    /// What it is: `seed`.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Fact {
    /// A named value.
    pub fn new(name: impl Into<String>, value: impl Into<Value>) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
        }
    }
}

/// A file that the run wrote.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Where it is.
    pub path: String,
    /// What it holds.
    pub content: String,
}
