//! A page's summary as Markdown, for step summaries and comments on merge requests.

use std::fmt::Write;

use super::clean;
use super::page::{Align, Page, Table};

/// Verdict, axes, key numbers, warnings and files of a page. Text from the run cannot become markup.
pub fn markdown(page: &Page) -> String {
    let mut text = format!("## {}\n\n{}\n", safe(&page.title), safe(&page.subtitle));
    // Writing to a String cannot fail.
    if let Some(verdict) = &page.verdict {
        let _ = write!(
            text,
            "\n**{}**\n\n{}\n",
            safe(&verdict.action),
            safe(&verdict.reason)
        );
    }
    if !page.axes.is_empty() {
        text.push_str("\n| axis | state | finding |\n| :-- | :-- | :-- |\n");
        for axis in &page.axes {
            let _ = writeln!(
                text,
                "| {} | {} | {} |",
                safe(&axis.name),
                axis.state.label(),
                safe(&axis.headline)
            );
        }
    }
    for table in &page.key_numbers {
        add_table(&mut text, table);
    }
    let mut list = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(text, "\n### {title}\n\n");
            for line in lines {
                let _ = writeln!(text, "- {line}");
            }
        }
    };
    list("Warnings", page.warnings.iter().map(|w| safe(w)).collect());
    let files = page
        .outputs
        .iter()
        .map(|o| format!("{}: {}", safe(&o.content), safe(&o.path)));
    list("Written", files.collect());
    text
}

fn add_table(text: &mut String, table: &Table) {
    if table.columns.is_empty() {
        return;
    }
    let _ = write!(text, "\n### {}\n\n|", safe(&table.caption));
    for column in &table.columns {
        let _ = write!(text, " {} |", safe(&column.title));
    }
    text.push_str("\n|");
    for column in &table.columns {
        text.push_str(match column.align {
            Align::Left => " :-- |",
            Align::Right => " --: |",
        });
    }
    text.push('\n');
    for row in &table.rows {
        text.push('|');
        for i in 0..table.columns.len() {
            let cell = row
                .get(i)
                .map_or(String::new(), |value| safe(&value.to_string()));
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
}

/// Words that Markdown shows as they are.
fn safe(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => {
                safe.push('\\');
                safe.push(c);
            }
            // No mention, and no notification, of whoever has the name of an id.
            '@' => safe.push_str("&#64;"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_text() {
        assert_eq!(
            safe("a|b <i> *c* [d](e) @f\n"),
            "a\\|b &lt;i&gt; \\*c\\* \\[d\\](e) &#64;f "
        );
    }
}
