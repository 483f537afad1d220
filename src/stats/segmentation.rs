//! Change points: where a sequence of things, known by a kernel between them, changes.

use rayon::prelude::*;

use super::permutation::max_standardised;
use super::rng::Philox;

/// A division of a sequence of T things into runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Segmentation {
    /// First index of each run but the first, ascending.
    pub changes: Vec<usize>,
    /// Σ over runs of Σᵢ k(i, i) − (1/length) Σᵢⱼ k(i, j): how far things are from their run's mean.
    pub cost: f64,
}

/// The best division into each number of runs from 1 to `most`, by dynamic programming over all.
///
/// `kernel` is T × T, symmetric. T²·`most` steps. Of divisions of one cost the one whose last change is first
/// counts.
///
/// Source: Arlot, Celisse & Harchaoui 2019, "A kernel multiple change-point algorithm via model selection".
///
/// # Panics
/// If `kernel` is not T × T.
pub fn segmentations(kernel: &[f64], t: usize, most: usize) -> Vec<Segmentation> {
    assert_eq!(kernel.len(), t * t);
    // Sums over rectangles from the origin give every run's cost in constant time.
    let mut sums = vec![0.0; (t + 1) * (t + 1)];
    for i in 0..t {
        for j in 0..t {
            sums[(i + 1) * (t + 1) + j + 1] =
                kernel[i * t + j] + sums[i * (t + 1) + j + 1] + sums[(i + 1) * (t + 1) + j]
                    - sums[i * (t + 1) + j];
        }
    }
    let square = |a: usize, b: usize| {
        sums[b * (t + 1) + b] - sums[a * (t + 1) + b] - sums[b * (t + 1) + a]
            + sums[a * (t + 1) + a]
    };
    let diagonal: Vec<f64> = (0..=t)
        .map(|b| (0..b).map(|i| kernel[i * t + i]).sum())
        .collect();
    let cost = |a: usize, b: usize| diagonal[b] - diagonal[a] - square(a, b) / (b - a) as f64;
    // best[d][b]: the first b things in d + 1 runs; from[d][b]: where the last of them begins.
    let mut best: Vec<Vec<f64>> = vec![
        (0..=t)
            .map(|b| if b == 0 { 0.0 } else { cost(0, b) })
            .collect(),
    ];
    let mut from: Vec<Vec<usize>> = vec![vec![0; t + 1]];
    for d in 1..most.min(t) {
        let (mut costs, mut starts) = (vec![f64::INFINITY; t + 1], vec![0; t + 1]);
        for b in d + 1..=t {
            for (a, before) in best[d - 1].iter().enumerate().take(b).skip(d) {
                let total = before + cost(a, b);
                if total < costs[b] {
                    (costs[b], starts[b]) = (total, a);
                }
            }
        }
        best.push(costs);
        from.push(starts);
    }
    (0..best.len())
        .map(|runs| {
            let mut changes = Vec::new();
            let mut end = t;
            for d in (1..=runs).rev() {
                end = from[d][end];
                changes.push(end);
            }
            changes.reverse();
            Segmentation {
                changes,
                cost: best[runs][t],
            }
        })
        .collect()
}

/// Things below which a division says nothing: the order of 7 is random too often.
pub const LEAST: usize = 8;

/// Most changes looked for.
const MOST_CHANGES: usize = 8;

/// Philox stream of the orders.
const STREAM: u64 = u64::from_le_bytes(*b"changes\0");

/// Where a sequence changes.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangePoints {
    /// First index of each run but the first, ascending; the best division into the number of runs whose
    /// gain stands out most from what random orders give.
    pub changes: Vec<usize>,
    /// (1 + b)/(1 + orders): how often a random order has a division that stands out as much.
    pub p_value: f64,
}

/// Looks for changes in a sequence of T things, known by their kernel (T × T, symmetric): up to 8, and no more
/// than T/3.
///
/// The gain of a division into D runs is cost(1) − cost(D). Gains for every D are standardised over random
/// orders of the things, the one that was observed among them, and the largest decides: exact where the things
/// are exchangeable if nothing changes. `None` of fewer than 8.
///
/// # Panics
/// If `kernel` is not T × T.
pub fn change_points(kernel: &[f64], t: usize, orders: u32, seed: u64) -> Option<ChangePoints> {
    if t < LEAST {
        return None;
    }
    let most = MOST_CHANGES.min(t / 3);
    let observed = segmentations(kernel, t, most + 1);
    let gains = |all: &[Segmentation]| -> Vec<f64> {
        all[1..].iter().map(|s| all[0].cost - s.cost).collect()
    };
    let mut values: Vec<Vec<f64>> = gains(&observed)
        .into_iter()
        .map(|gain| vec![gain])
        .collect();
    let random: Vec<Vec<f64>> = (0..orders)
        .into_par_iter()
        .map(|order| {
            let mut random = Philox::new(seed ^ STREAM, u64::from(order));
            let mut places: Vec<usize> = (0..t).collect();
            random.shuffle(&mut places);
            let mixed: Vec<f64> = (0..t * t)
                .map(|at| kernel[places[at / t] * t + places[at % t]])
                .collect();
            gains(&segmentations(&mixed, t, most + 1))
        })
        .collect();
    for gains in random {
        for (values, gain) in values.iter_mut().zip(gains) {
            values.push(gain);
        }
    }
    let test = max_standardised(&values);
    let mut best = 0;
    for (i, z) in test.observed.iter().enumerate() {
        if *z > test.observed[best] {
            best = i;
        }
    }
    Some(ChangePoints {
        changes: observed[best + 1].changes.clone(),
        p_value: test.p_value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(values: &[f64]) -> Vec<f64> {
        values
            .iter()
            .flat_map(|a| values.iter().map(move |b| a * b))
            .collect()
    }

    /// Against all divisions tried one by one.
    #[test]
    fn the_best_division_is_found() {
        let values = [1.0, 1.2, 0.9, 3.0, 3.1, 2.9, 0.2, 0.1, 7.0];
        let t = values.len();
        let cost = |run: &[f64]| {
            let mean = run.iter().sum::<f64>() / run.len() as f64;
            run.iter().map(|v| (v - mean).powi(2)).sum::<f64>()
        };
        let found = segmentations(&linear(&values), t, t);
        for (runs, found) in (1..).zip(&found) {
            let best = (0u32..1 << (t - 1))
                .filter(|cuts| cuts.count_ones() + 1 == runs)
                .map(|cuts| {
                    let mut ends: Vec<usize> =
                        (1..t).filter(|&i| cuts >> (i - 1) & 1 == 1).collect();
                    ends.insert(0, 0);
                    ends.push(t);
                    ends.windows(2)
                        .map(|w| cost(&values[w[0]..w[1]]))
                        .sum::<f64>()
                })
                .fold(f64::INFINITY, f64::min);
            assert!(
                (found.cost - best).abs() < 1e-9,
                "{runs}: {} {best}",
                found.cost
            );
        }
        assert_eq!(found[3].changes, [3, 6, 8]);
        assert_eq!(found[0].changes, [0usize; 0]);
    }

    /// Level: of 300 sequences without a change about one in twenty has p ≤ 0.05; [5, 27] is missed once in
    /// a thousand times. Power: steps of two standard deviations are found where they are.
    #[test]
    fn changes_are_found_and_none_where_there_is_none() {
        let (mut false_alarms, mut found, mut exact) = (0, 0, 0);
        for run in 0..300 {
            let mut random = Philox::new(run, 3);
            let quiet: Vec<f64> = (0..18).map(|_| random.normal()).collect();
            let still = change_points(&linear(&quiet), 18, 199, run).unwrap();
            false_alarms += u32::from(still.p_value <= 0.05);
            let moved: Vec<f64> = quiet
                .iter()
                .enumerate()
                .map(|(i, v)| v + if (6..13).contains(&i) { 4.0 } else { 0.0 })
                .collect();
            let there = change_points(&linear(&moved), 18, 199, run).unwrap();
            found += u32::from(there.p_value <= 0.05);
            exact += u32::from(there.changes == [6, 13]);
        }
        assert!((5..=27).contains(&false_alarms), "{false_alarms}");
        assert!(found > 290 && exact > 200, "{found} {exact}");
    }

    #[test]
    fn few_things_have_no_changes() {
        assert_eq!(change_points(&[1.0; 49], 7, 19, 0), None);
        // All alike: no division gains anything.
        let alike = change_points(&[1.0; 64], 8, 19, 0).unwrap();
        assert_eq!(alike.p_value, 1.0);
    }
}
