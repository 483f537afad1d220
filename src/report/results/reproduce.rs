//! How to get the same report again, as a section.

use serde::Serialize;

use super::*;

/// The command line and the configuration that it came to, to stand at the end of a page.
pub fn reproduction(
    arguments: impl IntoIterator<Item = String>,
    config: &impl Serialize,
) -> Section {
    let words: Vec<String> = arguments.into_iter().map(|word| quoted(&word)).collect();
    let config = serde_json::to_string_pretty(config).unwrap_or_else(|error| error.to_string());
    Section {
        id: "reproduce".to_owned(),
        title: "Reproduce".to_owned(),
        lead: "The same inputs, seed and kind of device give the same numbers, to the last digit."
            .to_owned(),
        items: vec![
            Item::Code {
                title: "Command".to_owned(),
                text: format!("vecdrift {}", words.join(" "))
                    .trim_end()
                    .to_owned(),
            },
            Item::Code {
                title: "Configuration, with every default filled in".to_owned(),
                text: config,
            },
        ],
    }
}

/// The word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them_otherwise() {
        assert_eq!(quoted("old.parquet"), "old.parquet");
        assert_eq!(quoted("a b#c"), "'a b#c'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
