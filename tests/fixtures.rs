//! The committed fixtures are what their recipe makes, to the byte.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

#[path = "../examples/make_fixtures.rs"]
mod make_fixtures;

/// The files of `dir` and `dir`/broken with their bytes.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    ["", "broken/"]
        .into_iter()
        .flat_map(|folder| {
            fs::read_dir(dir.join(folder))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file() && !path.ends_with("README.md"))
                .map(move |path| {
                    let name = path.file_name().unwrap().to_str().unwrap();
                    (format!("{folder}{name}"), fs::read(&path).unwrap())
                })
        })
        .collect()
}

/// Names of the files that are not alike in both.
fn differing(a: &BTreeMap<String, Vec<u8>>, b: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut names: Vec<_> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| a.get(*name) != b.get(*name))
        .cloned()
        .collect()
}

#[test]
fn recipe_and_committed_files_agree() {
    let made = tempfile::tempdir().unwrap();
    make_fixtures::write_all(made.path()).unwrap();
    let made = files(made.path());
    let committed = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    let differing_now = differing(&made, &committed);
    assert!(
        differing_now.is_empty(),
        "not as the recipe makes them: {differing_now:?}; run `cargo run --example make_fixtures`"
    );

    // Negative controls: a flipped bit, a missing file and a file without a recipe are all noticed.
    let mut other = committed.clone();
    other.get_mut("reference.parquet").unwrap()[1000] ^= 1;
    other.remove("qrels.tsv");
    other.insert("stray.npy".into(), Vec::new());
    assert_eq!(
        differing(&made, &other),
        ["qrels.tsv", "reference.parquet", "stray.npy"]
    );
}

#[test]
fn fixtures_stay_small() {
    let committed = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures"));
    let bytes: usize = committed.values().map(Vec::len).sum();
    assert!(
        bytes < 3 << 20,
        "{bytes} bytes in fixtures/: a clone pays for every one of them, for ever"
    );
}
