//! The terminal summary: verdict, axes, key numbers, warnings, outputs, on one screen.

use std::io::IsTerminal;

use super::page::{Align, AxisCard, Page, Table, Tone};
use super::value::{State, Value};
use super::{character_width, clean, display_width, truncate, words};

/// Lines that fit on a terminal together with the prompt and the command.
const SCREEN: usize = 45;
/// Between columns.
const GAP: usize = 2;
/// Indentation of what belongs to a heading.
const INDENT: usize = 2;
/// Below this the layout would be one word per line.
const MIN_WIDTH: usize = 20;

/// How the terminal summary is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextStyle {
    /// Columns that no line exceeds; at least 20 are used.
    pub width: usize,
    /// Whether to add terminal colours. Nothing is said by colour alone.
    pub color: bool,
}

impl Default for TextStyle {
    /// 80 columns without colour.
    fn default() -> Self {
        Self {
            width: 80,
            color: false,
        }
    }
}

impl TextStyle {
    /// What suits standard output: colour only on a terminal and where `NO_COLOR` is not set,
    /// the width in `COLUMNS` up to 100, else 80.
    pub fn for_stdout() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let columns = std::env::var("COLUMNS")
            .ok()
            .and_then(|text| text.parse().ok());
        Self {
            width: columns.unwrap_or(80_usize).clamp(MIN_WIDTH, 100),
            color: std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
        }
    }
}

/// The page as a terminal summary, ending in a newline.
///
/// Shows the verdict, the axes, the key numbers, all warnings and the outputs; sections and facts
/// are left to the page. Evidence below the headlines is shown as far as one screen allows.
pub fn text(page: &Page, style: &TextStyle) -> String {
    let width = style.width.max(MIN_WIDTH);
    let longest = page
        .axes
        .iter()
        .map(|axis| axis.evidence.len())
        .max()
        .unwrap_or(0);
    let mut lines = Vec::new();
    for evidence in (0..=longest).rev() {
        lines = summary(page, width, evidence);
        if lines.len() <= SCREEN {
            break;
        }
    }
    let mut text = String::new();
    for line in lines {
        line.print(style.color, &mut text);
    }
    text
}

fn summary(page: &Page, width: usize, evidence: usize) -> Vec<Row> {
    let mut lines: Vec<Row> = Vec::new();
    for line in wrap(&page.title, width) {
        lines.push(Row::of(line, Paint::Strong));
    }
    for line in wrap(&page.subtitle, width) {
        lines.push(Row::of(line, Paint::Faint));
    }
    if let Some(verdict) = &page.verdict {
        lines.push(Row::default());
        let paint = match verdict.tone {
            Tone::Good => Paint::State(State::Ok),
            Tone::Caution => Paint::State(State::Shifted),
            Tone::Severe => Paint::State(State::Broken),
            Tone::Undecided => Paint::State(State::Unknown),
        };
        for line in wrap(&format!("Verdict: {}", verdict.action), width) {
            lines.push(Row::of(line, paint));
        }
        item(&mut lines, width, "  ", &verdict.reason);
    }
    if !page.axes.is_empty() {
        lines.push(Row::default());
        axes(&mut lines, &page.axes, width, evidence);
    }
    for table in &page.key_numbers {
        heading(&mut lines, &table.caption, width);
        lines.extend(key_numbers(table, width));
    }
    if !page.warnings.is_empty() {
        heading(&mut lines, "Warnings", width);
        for warning in &page.warnings {
            item(&mut lines, width, "  - ", warning);
        }
    }
    if !page.outputs.is_empty() {
        heading(&mut lines, "Written", width);
        let name = page
            .outputs
            .iter()
            .map(|output| display_width(&output.content));
        let name = name.max().unwrap_or(0).min(width / 3);
        for output in &page.outputs {
            if display_width(&output.content) > name {
                item(&mut lines, width, "  ", &output.content);
                item(&mut lines, width, "    ", &output.path);
                continue;
            }
            let content = pad(&clean(&output.content), name + GAP, Align::Left);
            item(&mut lines, width, &format!("  {content}"), &output.path);
        }
    }
    lines
}

/// Name and state in columns, the headline beside them, evidence below it.
fn axes(lines: &mut Vec<Row>, axes: &[AxisCard], width: usize, evidence: usize) {
    let widest = |texts: &mut dyn Iterator<Item = &str>| {
        texts
            .map(|text| display_width(&clean(text)))
            .max()
            .unwrap_or(0)
    };
    let name = widest(&mut axes.iter().map(|axis| axis.name.as_str()));
    let state = widest(&mut axes.iter().map(|axis| axis.state.label()));
    let beside = INDENT + name + GAP + state + GAP;
    let stacked = beside + 30 > width;
    for axis in axes {
        let mut row = Row::default();
        let text = if stacked { 2 * INDENT } else { beside };
        if stacked {
            for line in wrap(
                &format!("{}: {}", axis.name, axis.state.label()),
                width - INDENT,
            ) {
                row.push(" ".repeat(INDENT), Paint::Plain);
                row.push(line, Paint::State(axis.state));
                lines.push(std::mem::take(&mut row));
            }
        } else {
            row.push(" ".repeat(INDENT), Paint::Plain);
            row.push(
                pad(&clean(&axis.name), name + GAP, Align::Left),
                Paint::Strong,
            );
            let label = pad(axis.state.label(), state + GAP, Align::Left);
            row.push(label, Paint::State(axis.state));
        }
        for line in wrap(&axis.headline, width - text) {
            if row.spans.is_empty() {
                row.push(" ".repeat(text), Paint::Plain);
            }
            row.push(line, Paint::Plain);
            lines.push(std::mem::take(&mut row));
        }
        if !row.spans.is_empty() {
            lines.push(row);
        }
        for finding in axis.evidence.iter().take(evidence) {
            item(lines, width, &format!("{:text$}- ", ""), finding);
        }
    }
}

/// The table in columns; words give way before numbers, and where the columns cannot fit at all,
/// each row becomes a list.
fn key_numbers(table: &Table, width: usize) -> Vec<Row> {
    /// Narrower than this, words break in the middle.
    const MIN_WORDS: usize = 10;
    const MIN_NUMBER: usize = 6;
    let columns = table.columns.len();
    let cells: Vec<Vec<(String, Paint)>> = table
        .rows
        .iter()
        .map(|row| {
            (0..columns)
                .map(|i| match row.get(i) {
                    Some(value) => (clean(&value.to_string()), paint(value)),
                    None => (String::new(), Paint::Plain),
                })
                .collect()
        })
        .collect();
    let titles: Vec<String> = table
        .columns
        .iter()
        .map(|column| clean(&column.title))
        .collect();
    let mut widths: Vec<usize> = (0..columns)
        .map(|i| {
            let cells = cells.iter().map(|row| display_width(&row[i].0));
            cells.chain([display_width(&titles[i])]).max().unwrap_or(0)
        })
        .collect();
    let room = width.saturating_sub(INDENT + GAP * columns.saturating_sub(1));
    for (align, least) in [(Align::Left, MIN_WORDS), (Align::Right, MIN_NUMBER)] {
        while widths.iter().sum::<usize>() > room {
            let widest = (0..columns)
                .filter(|i| table.columns[*i].align == align && widths[*i] > least)
                .max_by_key(|i| widths[*i]);
            let Some(widest) = widest else { break };
            widths[widest] -= 1;
        }
    }
    let mut lines = Vec::new();
    if widths.iter().sum::<usize>() > room {
        for row in &cells {
            for (i, (cell, _)) in row.iter().enumerate() {
                match i {
                    0 => item(&mut lines, width, "  ", cell),
                    _ => item(&mut lines, width, "    ", &format!("{}: {cell}", titles[i])),
                }
            }
        }
        return lines;
    }
    let head: Vec<(String, Paint)> = titles
        .into_iter()
        .map(|title| (title, Paint::Faint))
        .collect();
    for row in std::iter::once(&head).chain(&cells) {
        let wrapped: Vec<Vec<String>> = row
            .iter()
            .zip(&widths)
            .map(|((cell, _), width)| wrap(cell, *width))
            .collect();
        let height = wrapped.iter().map(Vec::len).max().unwrap_or(0);
        for line in 0..height {
            let mut text = Row::default();
            for (i, cell) in wrapped.iter().enumerate() {
                let gap = if i == 0 { INDENT } else { GAP };
                text.push(" ".repeat(gap), Paint::Plain);
                let part = cell.get(line).map_or("", String::as_str);
                text.push(pad(part, widths[i], table.columns[i].align), row[i].1);
            }
            lines.push(text);
        }
    }
    lines
}

fn heading(lines: &mut Vec<Row>, title: &str, width: usize) {
    lines.push(Row::default());
    for line in wrap(title, width) {
        lines.push(Row::of(line, Paint::Strong));
    }
}

/// Adds the text behind `prefix`, wrapped; later lines are indented as far as the prefix reaches.
fn item(lines: &mut Vec<Row>, width: usize, prefix: &str, text: &str) {
    let hanging = display_width(prefix);
    for (i, line) in wrap(text, width.saturating_sub(hanging))
        .into_iter()
        .enumerate()
    {
        let line = match i {
            0 => format!("{prefix}{line}"),
            _ => format!("{:hanging$}{line}", ""),
        };
        lines.push(Row::of(line, Paint::Plain));
    }
}

/// Breaks the text into lines of at most `width` columns, between words where possible; the two
/// ends of an interval stay together.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in words(text) {
        let length = display_width(&word);
        if used > 0 && used + 1 + length > width {
            lines.push(std::mem::take(&mut line));
            used = 0;
        }
        if used > 0 {
            line.push(' ');
            used += 1;
        }
        for c in word.chars() {
            let length = character_width(c);
            if used + length > width {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            line.push(c);
            used += length;
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

fn pad(text: &str, width: usize, align: Align) -> String {
    let text = truncate(text, width);
    let blanks = " ".repeat(width.saturating_sub(display_width(&text)));
    match align {
        Align::Left => format!("{text}{blanks}"),
        Align::Right => format!("{blanks}{text}"),
    }
}

fn paint(value: &Value) -> Paint {
    match value {
        Value::State { state, .. } => Paint::State(*state),
        Value::Missing(_) => Paint::Faint,
        _ => Paint::Plain,
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paint {
    Plain,
    Strong,
    Faint,
    State(State),
}

impl Paint {
    /// The terminal's code (ECMA-48, select graphic rendition).
    fn code(self) -> Option<&'static str> {
        match self {
            Paint::Plain => None,
            Paint::Strong => Some("1"),
            Paint::Faint => Some("2"),
            Paint::State(State::Ok) => Some("32"),
            Paint::State(State::Shifted) => Some("33"),
            Paint::State(State::Broken) => Some("1;31"),
            Paint::State(State::Unknown) => Some("36"),
        }
    }
}

/// A line of the summary: pieces of text, each with its paint.
#[derive(Debug, Default)]
struct Row {
    spans: Vec<(String, Paint)>,
}

impl Row {
    fn of(text: String, paint: Paint) -> Self {
        Self {
            spans: vec![(text, paint)],
        }
    }

    fn push(&mut self, text: String, paint: Paint) {
        self.spans.push((text, paint));
    }

    /// Without blanks at the end, which only matter to those who compare or copy lines.
    fn print(mut self, color: bool, into: &mut String) {
        while let Some((text, _)) = self.spans.last_mut() {
            text.truncate(text.trim_end().len());
            if !text.is_empty() {
                break;
            }
            self.spans.pop();
        }
        for (text, paint) in self.spans {
            match paint.code() {
                // Blanks that fill a column stay outside the paint.
                Some(code) if color && !text.trim().is_empty() => {
                    let end = text.trim_end().len();
                    let (words, blanks) = text.split_at(end);
                    into.push_str(&format!("\u{1b}[{code}m{words}\u{1b}[0m{blanks}"));
                }
                _ => into.push_str(&text),
            }
        }
        into.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_inside_long_ones() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("検索検索", 5), ["検索", "検索"]);
        assert!(wrap("  ", 5).is_empty());
        assert_eq!(wrap("by -1 [-2, 3].", 9), ["by -1", "[-2, 3]."]);
    }

    #[test]
    fn columns_that_cannot_fit_become_a_list() {
        let table = Table {
            caption: "t".into(),
            columns: (0..8)
                .map(|i| super::super::Column::right(format!("column {i}")))
                .collect(),
            rows: vec![(0..8).map(|i| Value::Count(i * 1_000_000)).collect()],
        };
        let mut text = String::new();
        for row in key_numbers(&table, 40) {
            row.print(false, &mut text);
        }
        assert!(text.starts_with("  0\n    column 1: 1,000,000\n"), "{text}");
    }
}
