//! Relevance judgements as text.

use std::collections::HashMap;

use crate::error::{Error, Result};

/// One judgement: how relevant a document is to a query.
#[derive(Debug, Clone, PartialEq)]
pub struct Qrel {
    /// Query id.
    pub query: String,
    /// Document id.
    pub document: String,
    /// Relevance; at most 0: judged, not relevant.
    pub relevance: f64,
}

/// Reads judgements: BEIR's tab-separated table under the header `query-id corpus-id score`, or TREC's
/// four columns `query 0 document relevance` separated by white space. `name` is the place in errors.
///
/// # Errors
/// A line of another shape, a relevance that is no finite number, a document judged twice for one query,
/// or no judgement at all; with the line number.
///
/// # Examples
/// ```
/// use vecdrift::metrics::retrieval::parse_qrels;
/// let beir = parse_qrels("query-id\tcorpus-id\tscore\nq1\td7\t1\n", "test.tsv")?;
/// let trec = parse_qrels("q1 0 d7 1\n", "test.qrels")?;
/// assert_eq!(beir, trec);
/// # Ok::<(), vecdrift::Error>(())
/// ```
pub fn parse_qrels(text: &str, name: &str) -> Result<Vec<Qrel>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let refuse =
        |line: usize, fact: String| Err(Error::input(name, format!("line {line}: {fact}")));
    let mut lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty())
        .peekable();
    let header = lines.next_if(|(_, line)| is_beir_header(line)).is_some();
    let mut judged: HashMap<(&str, &str), usize> = HashMap::new();
    let mut qrels = Vec::new();
    for (number, line) in lines {
        let fields: Vec<&str> = if header {
            line.split('\t').map(str::trim).collect()
        } else {
            line.split_whitespace().collect()
        };
        let (query, document, relevance) = match (header, &fields[..]) {
            (true, &[query, document, relevance]) | (false, &[query, _, document, relevance]) => {
                (query, document, relevance)
            }
            (true, _) => {
                return refuse(
                    number,
                    format!(
                        "{} tab-separated fields, expected 3 (query-id, corpus-id, score)",
                        fields.len()
                    ),
                );
            }
            (false, _) => {
                return Err(Error::input(
                    name,
                    format!(
                        "line {number}: {} fields, expected 4 (query, 0, document, relevance)",
                        fields.len()
                    ),
                )
                .hint(
                    "a tab-separated BEIR file starts with the line query-id, corpus-id, score",
                ));
            }
        };
        let relevance = match relevance.parse::<f64>() {
            Ok(relevance) if relevance.is_finite() => relevance,
            _ => {
                return refuse(
                    number,
                    format!("relevance is \"{relevance}\", expected a finite number"),
                );
            }
        };
        if let Some(first) = judged.insert((query, document), number) {
            return refuse(
                number,
                format!(
                    "document \"{document}\" is judged for query \"{query}\" on line {first} too, expected one judgement"
                ),
            );
        }
        qrels.push(Qrel {
            query: query.to_owned(),
            document: document.to_owned(),
            relevance,
        });
    }
    if qrels.is_empty() {
        return Err(Error::input(name, "no judgements, expected at least one"));
    }
    Ok(qrels)
}

fn is_beir_header(line: &str) -> bool {
    let names: Vec<String> = line
        .split('\t')
        .map(|name| name.trim().to_lowercase().replace('_', "-"))
        .collect();
    names == ["query-id", "corpus-id", "score"]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        parse_qrels(text, "q.tsv").unwrap_err().to_string()
    }

    #[test]
    fn both_forms_give_the_same_judgements() {
        let beir = "\u{feff}query-id\tcorpus-id\tscore\r\nq 1\td1\t2\r\n\r\nq2\td1\t-1\r\n";
        let found = parse_qrels(beir, "q.tsv").unwrap();
        let judgement = |query: &str, document: &str, relevance| Qrel {
            query: query.to_owned(),
            document: document.to_owned(),
            relevance,
        };
        assert_eq!(
            found,
            [judgement("q 1", "d1", 2.0), judgement("q2", "d1", -1.0)]
        );
        let trec = parse_qrels("q1 0 d1 2\nq2\tQ0\td1   0\n", "q.qrels").unwrap();
        assert_eq!(
            trec,
            [judgement("q1", "d1", 2.0), judgement("q2", "d1", 0.0)]
        );
    }

    #[test]
    fn faults_name_the_line() {
        assert_eq!(
            message("query-id\tcorpus-id\tscore\nq1\td1\n"),
            "q.tsv: line 2: 2 tab-separated fields, expected 3 (query-id, corpus-id, score)"
        );
        assert_eq!(
            message("q1 0 d1 1\n\nq1 d2 1\n"),
            "q.tsv: line 3: 3 fields, expected 4 (query, 0, document, relevance)"
        );
        assert_eq!(
            message("q1 0 d1 yes\n"),
            "q.tsv: line 1: relevance is \"yes\", expected a finite number"
        );
        assert_eq!(
            message("q1 0 d1 inf\n"),
            "q.tsv: line 1: relevance is \"inf\", expected a finite number"
        );
        assert_eq!(
            message("q1 0 d1 1\nq2 0 d1 1\nq1 0 d1 1\n"),
            "q.tsv: line 3: document \"d1\" is judged for query \"q1\" on line 1 too, expected one judgement"
        );
        let empty = "q.tsv: no judgements, expected at least one";
        assert_eq!(message(""), empty);
        assert_eq!(message("query-id\tcorpus-id\tscore\n"), empty);
    }
}
