//! How results are shown: one model of a finished run, drawn as a page and as a terminal summary.
//!
//! A [`Page`] holds what is said; [`html`] and [`text`] only draw it, and every number goes through
//! [`Value`], so that the two cannot disagree. Whoever has results maps them onto a `Page`; nothing
//! here knows where a number came from.
//!
//! ```
//! use vecdrift::report::{AxisCard, Page, State, TextStyle, Tone, Value, Verdict};
//!
//! let overlap = Value::interval(0.4412, [0.4361, 0.4463]);
//! let page = Page {
//!     title: "scifact v1 → v2".into(),
//!     verdict: Some(Verdict {
//!         action: "re-index".into(),
//!         reason: "More than half of each document's neighbours changed.".into(),
//!         tone: Tone::Severe,
//!     }),
//!     axes: vec![AxisCard {
//!         name: "neighbourhoods".into(),
//!         state: State::Broken,
//!         headline: format!("overlap@10 is {overlap}"),
//!         evidence: vec![],
//!     }],
//!     ..Page::default()
//! };
//! let summary = vecdrift::report::text(&page, &TextStyle::default());
//! assert!(summary.contains("overlap@10 is 0.441 [0.436, 0.446]"));
//! assert!(vecdrift::report::html(&page)?.contains("overlap@10 is 0.441"));
//! # Ok::<(), vecdrift::Error>(())
//! ```

use std::collections::HashSet;
use std::io::{BufWriter, Write};
use std::path::Path;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;

use crate::{Error, Result};

mod github;
mod junit;
mod markdown;
mod page;
mod plot;
mod prometheus;
mod results;
mod run;
mod sarif;
mod text;
mod value;

pub use github::github_annotations;
pub use junit::junit;
pub use markdown::markdown;
pub use page::{
    Align, AxisCard, BarSeries, Column, Fact, Figure, Histogram, IntervalRow, Item, Line, Mark,
    Output, Page, Panel, Plot, Point, Role, Section, Shade, ShadeValues, Table, Tone, Verdict,
    XAxis,
};
pub use prometheus::prometheus;
pub use results::{
    align_page, audit_page, compare_page, cosine_page, evaluate_page, measured_page, mmd_page,
    model_card, overlap_page, reproduction, scores_csv, series_page,
};
pub use run::{RunReport, show_gates};
pub use sarif::sarif;
pub use text::{TextStyle, text};
pub use value::{State, Value};

/// Widths, in pixels, at which each figure is drawn: for a desk or paper, and for a phone. Scaling
/// one drawing down would make its words unreadable.
const WIDE: f64 = 736.0;
const NARROW: f64 = 352.0;

/// The page as one HTML file.
///
/// It needs nothing but itself: no font, no file, no address outside, and its content-security policy
/// forbids all of them and every script but its own. Without scripts and on paper, figures are still
/// drawings. It follows the reader's light or dark scheme, prints on A4, and fits a screen of 360 pixels.
///
/// # Errors
/// None that data can cause; a fault in the template is reported as an output error.
pub fn html(page: &Page) -> Result<String> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    let failed = |error: &dyn std::fmt::Display| Error::output("report page", error);
    let view = PageView::new(page).map_err(|error| failed(&error))?;
    environment
        .render_named_str("page.html", include_str!("report/page.html"), view)
        .map_err(|error| failed(&error))
}

/// The scripts of a page with figures, in the order in which they must run: D3 and Observable Plot as
/// published, with their licences, and what draws this page's figures with them.
const SCRIPTS: [&str; 5] = [
    concat!("/*! D3\n", include_str!("report/vendor/d3.LICENSE"), "*/"),
    include_str!("report/vendor/d3.min.js"),
    concat!(
        "/*! Observable Plot\n",
        include_str!("report/vendor/plot.LICENSE"),
        "*/"
    ),
    include_str!("report/vendor/plot.min.js"),
    include_str!("report/figures.js"),
];

/// What a figure is drawn from, as the page's script reads it.
#[derive(Serialize)]
struct FigureData<'a> {
    title: String,
    plot: &'a Plot,
}

/// The data of all figures as JSON that cannot end the element that it stands in.
fn figure_data(page: &Page) -> serde_json::Result<String> {
    let items = page.sections.iter().flat_map(|section| &section.items);
    let figures: Vec<FigureData<'_>> = items
        .filter_map(|item| match item {
            Item::Figure(figure) => Some(FigureData {
                title: clean(&figure.title),
                plot: &figure.plot,
            }),
            Item::Note(_) | Item::Table(_) | Item::Code { .. } => None,
        })
        .collect();
    let text = serde_json::to_string(&figures)?;
    // `<` is found in strings only, where its escape means the same. Marks that turn the reading
    // direction are replaced as everywhere on the page; JSON escapes control characters itself.
    Ok(text
        .chars()
        .map(|c| match c {
            '<' => "\\u003c".to_owned(),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}'.to_string(),
            c => c.to_string(),
        })
        .collect())
}

/// Writes a file so that it is either complete or untouched.
///
/// `write` fills a temporary file beside `path`, which replaces `path` once it is on disk. On an
/// error the temporary file is removed and `path` stays as it was.
///
/// # Errors
/// The directory is missing or not writable, the disk is full, or `write` fails.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>,
) -> Result<()> {
    let failed = |error: std::io::Error| Error::output(path.display(), error);
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vecdrift-");
    // Temporary files are private by default; a result is as readable as the umask allows.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file = builder.tempfile_in(directory).map_err(failed)?;
    let mut buffered = BufWriter::new(file.as_file_mut());
    write(&mut buffered)?;
    buffered.flush().map_err(failed)?;
    drop(buffered);
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

// What the template sees: every value already text, every figure already drawn.

#[derive(Serialize)]
struct PageView {
    title: String,
    subtitle: String,
    verdict: Option<VerdictView>,
    axes: Vec<AxisView>,
    key_numbers: Vec<TableView>,
    warnings: Vec<String>,
    sections: Vec<SectionView>,
    facts: Vec<(String, String)>,
    outputs: Vec<(String, String)>,
    version: &'static str,
    /// Data of the figures as JSON; empty where there is none.
    figure_data: String,
    scripts: &'static [&'static str],
    /// Marks the page's own scripts. It follows from what the page says, so that no text in the data
    /// can name it.
    nonce: String,
}

#[derive(Serialize)]
struct VerdictView {
    action: String,
    reason: String,
    tone: &'static str,
}

#[derive(Serialize)]
struct AxisView {
    name: String,
    state: &'static str,
    headline: String,
    evidence: Vec<String>,
}

#[derive(Serialize)]
struct SectionView {
    id: String,
    title: String,
    lead: String,
    items: Vec<ItemView>,
}

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum ItemView {
    Note {
        text: String,
    },
    Figure {
        number: usize,
        title: String,
        reading: String,
        wide: String,
        narrow: String,
    },
    Table {
        table: TableView,
    },
    Code {
        title: String,
        text: String,
    },
}

#[derive(Serialize)]
struct TableView {
    number: usize,
    caption: String,
    columns: Vec<ColumnView>,
    rows: Vec<Vec<CellView>>,
}

#[derive(Serialize)]
struct ColumnView {
    title: String,
    align: &'static str,
}

#[derive(Serialize)]
struct CellView {
    text: String,
    align: &'static str,
    /// The state whose colour and mark the cell carries; empty for other values.
    state: &'static str,
}

impl PageView {
    fn new(page: &Page) -> serde_json::Result<Self> {
        let mut tables = 0;
        let mut figures = 0;
        // The template's own anchors are taken before any section's.
        let mut anchors = HashSet::from(["evidence", "key-numbers", "run"].map(str::to_owned));
        let key_numbers = page
            .key_numbers
            .iter()
            .map(|table| TableView::new(table, &mut tables))
            .collect();
        let sections = page
            .sections
            .iter()
            .map(|section| SectionView {
                id: anchor(&section.id, &mut anchors),
                title: clean(&section.title),
                lead: prose(&section.lead),
                items: section
                    .items
                    .iter()
                    .map(|item| match item {
                        Item::Note(text) => ItemView::Note { text: prose(text) },
                        Item::Figure(figure) => ItemView::figure(figure, &mut figures),
                        Item::Table(table) => ItemView::Table {
                            table: TableView::new(table, &mut tables),
                        },
                        Item::Code { title, text } => ItemView::Code {
                            title: clean(title),
                            text: text.lines().map(clean).collect::<Vec<_>>().join("\n"),
                        },
                    })
                    .collect(),
            })
            .collect();
        let figure_data = match figures {
            0 => String::new(),
            _ => figure_data(page)?,
        };
        let nonce = format!(
            "{:032x}",
            xxhash_rust::xxh3::xxh3_128(figure_data.as_bytes())
        );
        Ok(Self {
            title: clean(&page.title),
            subtitle: clean(&page.subtitle),
            verdict: page.verdict.as_ref().map(|verdict| VerdictView {
                action: clean(&verdict.action),
                reason: prose(&verdict.reason),
                tone: match verdict.tone {
                    Tone::Good => "ok",
                    Tone::Caution => "shifted",
                    Tone::Severe => "broken",
                    Tone::Undecided => "unknown",
                },
            }),
            axes: page
                .axes
                .iter()
                .map(|axis| AxisView {
                    name: clean(&axis.name),
                    state: axis.state.label(),
                    headline: prose(&axis.headline),
                    evidence: axis.evidence.iter().map(|line| prose(line)).collect(),
                })
                .collect(),
            key_numbers,
            warnings: page.warnings.iter().map(|line| prose(line)).collect(),
            sections,
            facts: page
                .facts
                .iter()
                .map(|fact| (clean(&fact.name), clean(&fact.value.to_string())))
                .collect(),
            outputs: page
                .outputs
                .iter()
                .map(|output| (clean(&output.path), clean(&output.content)))
                .collect(),
            version: env!("CARGO_PKG_VERSION"),
            scripts: &SCRIPTS,
            figure_data,
            nonce,
        })
    }
}

impl ItemView {
    fn figure(figure: &Figure, figures: &mut usize) -> Self {
        *figures += 1;
        ItemView::Figure {
            number: *figures,
            title: clean(&figure.title),
            reading: prose(&figure.reading),
            wide: plot::svg(figure, WIDE, &format!("figure-{figures}-wide")),
            narrow: plot::svg(figure, NARROW, &format!("figure-{figures}-narrow")),
        }
    }
}

impl TableView {
    fn new(table: &Table, tables: &mut usize) -> Self {
        *tables += 1;
        let align = |column: usize| match table.columns.get(column).map(|column| column.align) {
            Some(Align::Right) => "right",
            Some(Align::Left) | None => "left",
        };
        Self {
            number: *tables,
            caption: clean(&table.caption),
            columns: table
                .columns
                .iter()
                .enumerate()
                .map(|(i, column)| ColumnView {
                    title: clean(&column.title),
                    align: align(i),
                })
                .collect(),
            rows: table
                .rows
                .iter()
                .map(|row| {
                    let cells = row.iter().take(table.columns.len()).enumerate();
                    cells
                        .map(|(i, value)| CellView {
                            text: prose(&value.to_string()),
                            align: align(i),
                            state: match value {
                                Value::State { state, .. } => state.label(),
                                _ => "",
                            },
                        })
                        .collect()
                })
                .collect(),
        }
    }
}

/// An anchor that is safe in a link and used once.
fn anchor(id: &str, taken: &mut HashSet<String>) -> String {
    let slug: String = id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let slug = match slug.trim_matches('-') {
        "" => "section",
        slug => slug,
    };
    let numbered = (2..).map(|i| format!("{slug}-{i}"));
    let mut candidates = std::iter::once(slug.to_owned()).chain(numbered);
    candidates
        .find(|candidate| taken.insert(candidate.clone()))
        .unwrap_or_default()
}

/// The text without what could act instead of being read: control characters (terminal escapes)
/// and marks that turn the reading direction. Ids and paths come from the user's files.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c if c.is_control() => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// The words of a text, `[low, high]` counting as one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for word in clean(text).split_whitespace() {
        match words.last_mut() {
            Some(low) if low.starts_with('[') && low.ends_with(',') && word.contains(']') => {
                low.push(' ');
                low.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// Running text for the page: intervals do not break over lines.
fn prose(text: &str) -> String {
    let words = words(text)
        .into_iter()
        .map(|word| word.replace(' ', "\u{a0}"));
    words.collect::<Vec<_>>().join(" ")
}

/// Columns that the text takes on a terminal: two for East Asian wide characters and emoji, none
/// for combining marks. Approximate, by block.
fn display_width(text: &str) -> usize {
    text.chars().map(character_width).sum()
}

fn character_width(c: char) -> usize {
    match c {
        '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{fe00}'..='\u{fe0f}' => 0,
        '\u{1100}'..='\u{115f}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{f900}'..='\u{faff}'
        | '\u{fe30}'..='\u{fe6f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{ffe0}'..='\u{ffe6}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{3fffd}' => 2,
        _ => 1,
    }
}

/// The text, cut to `width` columns with an ellipsis where it is longer.
fn truncate(text: &str, width: usize) -> String {
    if display_width(text) <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let kept = text.chars().take_while(|c| {
        used += character_width(*c);
        used <= width
    });
    let mut kept: String = kept.collect();
    kept.push('…');
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anchors_are_safe_and_unique() {
        let mut taken = HashSet::new();
        assert_eq!(anchor("Neighbourhoods", &mut taken), "neighbourhoods");
        assert_eq!(anchor("neighbourhoods", &mut taken), "neighbourhoods-2");
        assert_eq!(anchor("\"><b>", &mut taken), "b");
        assert_eq!(anchor("", &mut taken), "section");
    }

    #[test]
    fn text_from_files_cannot_act() {
        assert_eq!(
            clean("a\u{1b}[31mb\nc\u{202e}d"),
            "a\u{fffd}[31mb c\u{fffd}d"
        );
    }

    #[test]
    fn widths_and_truncation() {
        assert_eq!(display_width("abc"), 3);
        assert_eq!(display_width("検索"), 4);
        assert_eq!(truncate("abcdef", 4), "abc…");
        assert_eq!(truncate("検索検索", 4), "検…");
        assert_eq!(truncate("abcd", 4), "abcd");
    }
}
