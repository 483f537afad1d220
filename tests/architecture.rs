//! The house rules of ARCHITECTURE.md, read off the sources: who may know whom, and where `unsafe` is.
//!
//! Code is judged, not comments or strings; paths are resolved through `use`, `super` and `self`, so a
//! rule holds however a name was brought in. Unit tests at the bottom of a file may read files and
//! name devices: rules about dependencies look only above them. Every rule proves that it can fail.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// A rule for the files below some paths (`src/cli` is `src/cli.rs` and `src/cli/`).
struct Rule {
    because: &'static str,
    within: &'static [&'static str],
    except: &'static [&'static str],
    bound: Bound,
    /// A file and a line in it that the rule must catch.
    caught: (&'static str, &'static str),
}

enum Bound {
    /// No path into these crates or modules.
    Never(&'static [&'static str]),
    /// Of this crate, only paths into these modules (and the error type, which everyone may return).
    Only(&'static [&'static str]),
    /// None of these words, in tests neither.
    NoWord(&'static [&'static str]),
}
use Bound::{Never, NoWord, Only};

const ERROR: &[&str] = &["crate::error", "crate::Error", "crate::Result"];
const EVERYWHERE: &[&str] = &["src", "tests", "examples", "benches"];

const RULES: &[Rule] = &[
    Rule {
        because: "only the command line knows how arguments are parsed",
        within: &["src"],
        except: &["src/cli", "src/main"],
        bound: Never(&["clap"]),
        caught: ("src/audit.rs", "#[derive(clap::Args)] struct A;"),
    },
    Rule {
        because: "only readers and the Parquet writer know file formats",
        within: &["src"],
        except: &["src/source"],
        bound: Never(&["arrow", "parquet", "npyz", "safetensors"]),
        caught: ("src/metrics/overlap.rs", "use arrow::array::{Array};"),
    },
    Rule {
        because: "only the GPU backend knows wgpu",
        within: &["src"],
        except: &["src/engine/gpu"],
        bound: Never(&["wgpu"]),
        caught: ("src/engine/tiles.rs", "fn f(limits: &wgpu::Limits) {}"),
    },
    Rule {
        because: "a measure sees neither a file nor a device",
        within: &["src/metrics"],
        except: &[],
        bound: Never(&[
            "std::fs",
            "crate::source",
            "crate::engine::cpu",
            "crate::engine::gpu",
        ]),
        caught: ("src/metrics/mmd.rs", "use super::super::engine::{gpu};"),
    },
    Rule {
        because: "measures are below the jobs that run them",
        within: &["src/metrics"],
        except: &[],
        bound: Only(&[
            "crate::embeddings",
            "crate::engine",
            "crate::metrics",
            "crate::stats",
        ]),
        caught: ("src/metrics/mmd.rs", "let page = crate::report::page();"),
    },
    Rule {
        because: "statistics are pure functions on numbers",
        within: &["src/stats"],
        except: &[],
        bound: Only(&["crate::stats"]),
        caught: ("src/stats/linalg.rs", "use crate::embeddings::Rows;"),
    },
    Rule {
        because: "row blocks are below everything that moves them",
        within: &["src/embeddings"],
        except: &[],
        bound: Only(&["crate::embeddings"]),
        caught: (
            "src/embeddings.rs",
            "use crate::{error::Result, stats::rng};",
        ),
    },
    Rule {
        because: "the engine runs operations, whatever they are for",
        within: &["src/engine"],
        except: &[],
        bound: Only(&["crate::embeddings", "crate::engine", "crate::stats"]),
        caught: ("src/engine/fold.rs", "crate::cli::progress::tick();"),
    },
    Rule {
        because: "readers hand out row blocks and know nobody else",
        within: &["src/source"],
        except: &[],
        bound: Only(&["crate::embeddings", "crate::source"]),
        caught: ("src/source/npy.rs", "use crate::engine::Engine;"),
    },
    Rule {
        because: "a report shows results and calls nothing",
        within: &["src/report"],
        except: &[],
        bound: Never(&[
            "crate::engine::Engine",
            "crate::engine::Backend",
            "crate::source",
            "crate::cli",
        ]),
        caught: (
            "src/report/html.rs",
            "use crate::engine; fn f(e: &engine::Engine) {}",
        ),
    },
    Rule {
        because: "jobs do not know who started them or who shows their results",
        within: &["src/audit", "src/evaluate", "src/output"],
        except: &[],
        bound: Never(&["crate::cli", "crate::report"]),
        caught: ("src/audit/verdict.rs", "use super::super::cli;"),
    },
    Rule {
        because: "undefined behaviour can only come from a kernel",
        within: EVERYWHERE,
        except: &["src/engine/cpu", "src/engine/gpu"],
        bound: NoWord(&["unsafe"]),
        caught: ("src/source/npy.rs", "let m = unsafe { map(&file) };"),
    },
    Rule {
        because: "what is not done is not merged, and no test is skipped in silence",
        within: EVERYWHERE,
        except: &[],
        bound: NoWord(&["todo!(", "unimplemented!(", "#[ignore"]),
        caught: ("tests/cli.rs", "#[ignore = \"slow\"] fn t() {}"),
    },
];

/// A file longer than this should be two: nobody holds more in the head at once. Soft: raise it with a
/// reason rather than cutting a file where it has no seam.
const MAX_LINES: usize = 900;

/// Methods of `Backend` that are not operations, hence without a shader.
const NOT_OPERATIONS: &[&str] = &["device", "block_rows", "load"];

// ---- reading sources ----

struct Source {
    path: String,
    /// Without comments and without the contents of strings.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.into(),
            code: code_only(text),
        }
    }

    /// The code above the unit tests, which stand at the bottom.
    fn shipped(&self) -> &str {
        let starts = [
            "#[cfg(test)]\nmod tests",
            "#[cfg(test)]\npub(super) mod tests",
        ];
        let tests = starts
            .iter()
            .filter_map(|start| self.code.find(start))
            .min();
        &self.code[..tests.unwrap_or(self.code.len())]
    }

    /// Absolute path of the module: `crate::engine::gpu` for `src/engine/gpu.rs`.
    fn module(&self) -> Vec<String> {
        let inner = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let names = inner.split('/').filter(|name| *name != "lib");
        ["crate"].into_iter().chain(names).map(Into::into).collect()
    }

    /// Every path with `::` or brought in by `use`, made absolute where it leads into this crate.
    fn paths(&self) -> Vec<String> {
        let module = self.module();
        let mut imports = HashMap::new();
        let mut paths = Vec::new();
        let mut rest = String::new();
        for statement in self.shipped().split_inclusive([';', '{', '}']) {
            // A `use` tree holds braces itself: collect until its semicolon.
            rest.push_str(statement);
            let start = rest.trim_start();
            let start = start.strip_prefix("pub ").unwrap_or(start);
            let start = start.strip_prefix("pub(crate) ").unwrap_or(start);
            let start = start.strip_prefix("pub(super) ").unwrap_or(start);
            let Some(tree) = start.strip_prefix("use ") else {
                paths.extend(inline_paths(&rest).map(|path| absolute(&path, &module)));
                rest.clear();
                continue;
            };
            if let Some(tree) = tree.strip_suffix(';') {
                for (path, name) in use_tree(tree) {
                    let path = absolute(&path, &module);
                    imports.insert(name, path.clone());
                    paths.push(path);
                }
                rest.clear();
            }
        }
        let through_imports: Vec<_> = paths
            .iter()
            .filter_map(|path| {
                let (first, rest) = path.split_once("::")?;
                Some(format!("{}::{rest}", imports.get(first)?))
            })
            .collect();
        paths.extend(through_imports);
        paths
    }
}

/// `text` with comments dropped and strings and characters emptied; lines stay where they are.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            'r' if !code.ends_with(is_word) => raw_string(rest).unwrap_or(0),
            '"' => closing_quote(rest, '"'),
            // A character, not a lifetime.
            '\'' if rest[1..].starts_with('\\') || rest.chars().nth(2) == Some('\'') => {
                closing_quote(rest, '\'')
            }
            _ => 0,
        };
        if length == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
        } else {
            if !rest.starts_with('/') {
                code.push_str("\"\"");
            }
            code.extend(rest[..length].chars().filter(|&c| c == '\n'));
            rest = &rest[length..];
        }
    }
    code
}

/// Bytes of the literal that `text` begins with.
fn closing_quote(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Bytes of the raw string that `text` begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let hashes = text[1..].find(|c| c != '#')?;
    if !text[1 + hashes..].starts_with('"') {
        return None;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = 2 + hashes;
    let length = text[body..].find(&end)?;
    Some(body + length + end.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Paths such as `a::b::c` in an expression or a type.
fn inline_paths(code: &str) -> impl Iterator<Item = String> {
    code.split(|c: char| !is_word(c) && c != ':')
        .map(|path| path.trim_matches(':'))
        .filter(|path| path.contains("::"))
        .map(Into::into)
}

/// The leaves of a `use` tree, each with the name it brings in.
fn use_tree(tree: &str) -> Vec<(String, String)> {
    let tree = tree.trim();
    if let Some((prefix, group)) = tree.split_once('{') {
        let group = group.trim_end().strip_suffix('}').expect("a closed group");
        let mut depth = 0;
        return group
            .split(|c| {
                depth += i32::from(c == '{') - i32::from(c == '}');
                c == ',' && depth == 0
            })
            .filter(|branch| !branch.trim().is_empty())
            .flat_map(|branch| use_tree(&format!("{}{}", prefix.trim(), branch.trim())))
            .collect();
    }
    let (path, alias) = match tree.split_once(" as ") {
        Some((path, alias)) => (path.trim(), Some(alias.trim())),
        None => (tree, None),
    };
    let path = path.strip_suffix("::self").unwrap_or(path);
    let name = alias.or(path.rsplit("::").next()).unwrap_or(path);
    vec![(path.into(), name.into())]
}

/// Resolves `self` and `super` at the front of a path.
fn absolute(path: &str, module: &[String]) -> String {
    let mut names: Vec<&str> = path.split("::").collect();
    let supers = names.iter().take_while(|name| **name == "super").count();
    if supers == 0 && names[0] != "self" {
        return path.into();
    }
    names.drain(..supers.max(1));
    let above = module.len().saturating_sub(supers);
    let mut all: Vec<&str> = module[..above].iter().map(String::as_str).collect();
    all.extend(names);
    all.join("::")
}

fn leads_into(path: &str, module: &str) -> bool {
    path.strip_prefix(module)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(at, _)| {
        let whole = |edge: Option<char>, outside: Option<char>| {
            !(edge.is_some_and(is_word) && outside.is_some_and(is_word))
        };
        let (before, after) = (&code[..at], &code[at + word.len()..]);
        whole(word.chars().next(), before.chars().next_back())
            && whole(word.chars().next_back(), after.chars().next())
    })
}

// ---- judging them ----

fn below(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| {
        path.strip_prefix(place)
            .is_some_and(|rest| rest.starts_with(['.', '/']))
    })
}

impl Rule {
    fn applies(&self, path: &str) -> bool {
        below(path, self.within) && !below(path, self.except)
    }

    /// What in `source` breaks this rule.
    fn offences(&self, source: &Source) -> Vec<String> {
        let offences: Vec<String> = match self.bound {
            Never(modules) => source
                .paths()
                .into_iter()
                .filter(|path| modules.iter().any(|module| leads_into(path, module)))
                .collect(),
            Only(modules) => source
                .paths()
                .into_iter()
                .filter(|path| leads_into(path, "crate"))
                .filter(|path| {
                    let mut allowed = modules.iter().chain(ERROR);
                    !allowed.any(|module| leads_into(path, module))
                })
                .collect(),
            NoWord(words) => words
                .iter()
                .filter(|word| has_word(&source.code, word))
                .map(|word| word.to_string())
                .collect(),
        };
        offences
            .into_iter()
            .map(|offence| format!("{}: {offence}: {}", source.path, self.because))
            .collect()
    }
}

/// Files with an extension below a folder of the repository, path and text.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    let mut folders = vec![root.join(folder)];
    while let Some(folder) = folders.pop() {
        // A repository without benches has no folder for them.
        let Ok(entries) = fs::read_dir(&folder) else {
            continue;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap();
                found.push((name.replace('\\', "/"), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    EVERYWHERE
        .iter()
        .flat_map(|folder| files(folder, "rs"))
        .map(|(path, text)| Source::new(&path, &text))
        .collect()
}

#[test]
fn dependencies_point_down() {
    let sources = sources();
    let mut offences = Vec::new();
    for rule in RULES {
        let judged: Vec<_> = sources.iter().filter(|s| rule.applies(&s.path)).collect();
        if judged.is_empty() {
            offences.push(format!("no file to judge: {}", rule.because));
        }
        offences.extend(judged.into_iter().flat_map(|source| rule.offences(source)));
    }
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn every_rule_can_fail() {
    for rule in RULES {
        let (path, line) = rule.caught;
        assert!(rule.applies(path), "{path}: {}", rule.because);
        let caught = |text: &str| !rule.offences(&Source::new(path, text)).is_empty();
        assert!(caught(line), "not caught: {line}");
        assert!(!caught(&format!("// {line}\n")), "a comment: {line}");
        assert!(!caught(&format!("/* {line} */")), "a comment: {line}");
        let quoted = line.replace('"', "\\\"");
        assert!(
            !caught(&format!("let s = \"{quoted}\";")),
            "a string: {line}"
        );
        assert!(
            !caught(&format!("let s = r#\"{line}\"#;")),
            "a string: {line}"
        );
        let in_tests = format!("#[cfg(test)]\nmod tests {{\n{line}\n}}");
        assert_eq!(
            caught(&in_tests),
            matches!(rule.bound, NoWord(_)),
            "in unit tests: {line}"
        );
    }
}

#[test]
fn paths_are_resolved() {
    let text = "
        use std::{fs::{self, File}, io};
        pub(crate) use super::gpu as device;
        fn f<'a>(c: char, x: &'a str) -> crate::Result<()> { c == '\"'; device::Adapter::new(self::g) }
    ";
    let mut paths = Source::new("src/engine/cpu/pack.rs", text).paths();
    paths.sort();
    assert_eq!(
        paths,
        [
            "crate::Result",
            "crate::engine::cpu::gpu",
            "crate::engine::cpu::gpu::Adapter::new",
            "crate::engine::cpu::pack::g",
            "device::Adapter::new",
            "std::fs",
            "std::fs::File",
            "std::io",
        ]
    );
    assert!(!has_word("deny(unsafe_op_in_unsafe_fn)", "unsafe"));
}

#[test]
fn no_file_is_too_long() {
    let too_long: Vec<_> = [files("src", "rs"), files("shaders", "wgsl")]
        .concat()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .collect();
    assert!(too_long.is_empty(), "over {MAX_LINES} lines: {too_long:?}");
}

/// Names of the methods of `trait Backend` that are operations.
fn operations(engine: &str) -> Vec<String> {
    let code = code_only(engine);
    let (_, after) = code.split_once("trait Backend").expect("the trait");
    let (body, _) = after.split_once("\n}").expect("its end");
    body.split("fn ")
        .skip(1)
        .map(|method| method.split(|c| !is_word(c)).next().unwrap().to_owned())
        .filter(|method| !NOT_OPERATIONS.contains(&method.as_str()))
        .collect()
}

/// One stem in every layer, so that searching for it finds all of an operation.
#[test]
fn operations_and_shaders_match() {
    let engine = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/engine.rs")).unwrap();
    let mut operations = operations(&engine);
    operations.sort();
    let shaders: Vec<_> = files("shaders", "wgsl")
        .into_iter()
        .filter(|(path, _)| !path.starts_with("shaders/common/"))
        .map(|(path, _)| path["shaders/".len()..path.len() - ".wgsl".len()].to_owned())
        .collect();
    assert!(operations.contains(&"nearest".to_owned()), "{operations:?}");
    // A second kernel of an operation begins with its name: `nearest_rescore`.
    let of_operation = |shader: &str, operation: &str| {
        shader
            .strip_prefix(operation)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
    };
    for operation in &operations {
        assert!(shaders.contains(operation), "{operation} has no shader");
    }
    for shader in &shaders {
        let known = operations.iter().any(|o| of_operation(shader, o));
        assert!(known, "{shader} is of no operation");
    }
    assert!(!of_operation("nearestless", "nearest"));
}
