//! MTEB's cut of a large multilabel split: rows drawn so that labels and pairs of labels keep their shares.

use std::collections::HashMap;

use super::random::Mt19937;

/// Rows kept and rows left out.
const FOLDS: usize = 2;

/// Rows of the cut, ascending: about `keep` of those whose labels (ascending numbers) are given.
///
/// Rows are dealt out combination by combination (labels and pairs of them, as they appear), each to the fold
/// that lacks most of the combination; a draw of NumPy's `RandomState(seed)` breaks ties.
///
/// # Source
/// Sechidis, Tsoumakas & Vlahavas 2011; Szymański & Kajdanowicz 2017 (of second order), as mteb 2.26 has it
/// from scikit-multilearn. Golden rows: fixtures/golden/stratified_cut.json.
pub(super) fn stratified_cut(labels: &[Vec<usize>], keep: usize, seed: u32) -> Vec<usize> {
    let share = keep as f64 / labels.len() as f64;
    let shares = [share, 1.0 - share];
    let mut random = Mt19937::numpy(seed);
    let mut numbers: HashMap<[usize; 2], usize> = HashMap::new();
    // Per combination, in order of appearance: how many labels it has, and rows that are not dealt out yet.
    let mut combinations: Vec<(usize, Vec<usize>)> = Vec::new();
    let mut of_row: Vec<Vec<usize>> = Vec::new();
    for (row, labels) in labels.iter().enumerate() {
        let mut own = Vec::new();
        for (i, &a) in labels.iter().enumerate() {
            for &b in &labels[i..] {
                let number = *numbers.entry([a, b]).or_insert_with(|| {
                    combinations.push((if a == b { 1 } else { 2 }, Vec::new()));
                    combinations.len() - 1
                });
                combinations[number].1.push(row);
                own.push(number);
            }
        }
        of_row.push(own);
    }
    let mut wanted: Vec<[f64; FOLDS]> = combinations
        .iter()
        .map(|(_, rows)| shares.map(|share| rows.len() as f64 * share))
        .collect();
    let mut wanted_rows = shares.map(|share| share * labels.len() as f64);
    let mut fold_of: Vec<Option<usize>> = vec![None; labels.len()];
    while let Some(next) = most_desired(&combinations) {
        while let Some(row) = combinations[next].1.pop() {
            if fold_of[row].is_some() {
                continue;
            }
            let [kept, left_out] = wanted[next];
            let fold = match kept.total_cmp(&left_out) {
                std::cmp::Ordering::Greater => 0,
                std::cmp::Ordering::Less => 1,
                std::cmp::Ordering::Equal => coin(&mut random),
            };
            fold_of[row] = Some(fold);
            for &combination in &of_row[row] {
                let rows = &mut combinations[combination].1;
                if let Some(at) = rows.iter().position(|&other| other == row) {
                    rows.remove(at);
                }
                wanted[combination][fold] -= 1.0;
            }
            wanted_rows[fold] -= 1.0;
        }
    }
    // Rows without a label, the last first.
    for fold_of in fold_of.iter_mut().rev().filter(|fold| fold.is_none()) {
        let fold = match wanted_rows.map(|rows| rows > 0.0) {
            [true, true] => coin(&mut random),
            [true, false] => 0,
            _ => 1,
        };
        wanted_rows[fold] -= 1.0;
        *fold_of = Some(fold);
    }
    (0..labels.len())
        .filter(|&row| fold_of[row] == Some(0))
        .collect()
}

/// The combination to deal out next: the first that has rows, or a later one of more labels and fewer rows.
fn most_desired(combinations: &[(usize, Vec<usize>)]) -> Option<usize> {
    let mut chosen: Option<usize> = None;
    for (i, (labels, rows)) in combinations.iter().enumerate() {
        let better = match chosen {
            None => true,
            Some(best) => {
                let (best_labels, best_rows) = &combinations[best];
                best_labels < labels && best_rows.len() > rows.len()
            }
        };
        if !rows.is_empty() && better {
            chosen = Some(i);
        }
    }
    chosen
}

/// `RandomState.choice` of two.
fn coin(random: &mut Mt19937) -> usize {
    (random.next_u32() & 1) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_those_of_mteb() {
        let golden = include_str!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/stratified_cut.json"
        ));
        let cases: Vec<serde_json::Value> = serde_json::from_str(golden).unwrap();
        for case in cases {
            let labels: Vec<Vec<usize>> = serde_json::from_value(case["labels"].clone()).unwrap();
            let rows: Vec<usize> = serde_json::from_value(case["rows"].clone()).unwrap();
            let keep = case["keep"].as_u64().unwrap() as usize;
            assert_eq!(stratified_cut(&labels, keep, 42), rows);
        }
    }
}
