//! Multinomial logistic regression with an L2 penalty, fitted to convergence.

use std::collections::VecDeque;

use crate::stats::linalg::Matrix;

/// Pairs of steps and gradient changes that L-BFGS remembers.
const MEMORY: usize = 10;
/// The fit has converged when no component of the gradient is larger.
const GRADIENT: f64 = 1e-6;
/// More steps than any convex problem here takes.
const MOST_STEPS: usize = 1_000;

/// A fitted model.
pub(super) struct Logistic {
    /// One row of d weights per class, of two classes one in all.
    weights: Matrix,
    intercepts: Vec<f64>,
    classes: usize,
}

impl Logistic {
    /// Minimises Σ −log p(label | x) + ½‖W‖² over weights and intercepts, the latter without penalty:
    /// scikit-learn's `LogisticRegression` at C = 1. Two classes have one weight vector.
    ///
    /// # Panics
    /// If rows and labels differ in number, or there are fewer than two classes.
    pub(super) fn fit(x: &Matrix, labels: &[usize], classes: usize) -> Self {
        assert!(x.rows() == labels.len() && classes >= 2);
        let outputs = if classes == 2 { 1 } else { classes };
        let problem = Problem {
            x,
            transposed: x.transpose(),
            labels,
            classes,
            outputs,
        };
        let point = minimise(outputs * (x.columns() + 1), |at| problem.value(at));
        let split = outputs * x.columns();
        Self {
            weights: Matrix::new(outputs, x.columns(), point[..split].to_vec()),
            intercepts: point[split..].to_vec(),
            classes,
        }
    }

    /// The most likely class of each row, the first of equals.
    pub(super) fn predict(&self, x: &Matrix) -> Vec<usize> {
        let scores = x.times(&self.weights.transpose());
        (0..x.rows())
            .map(|i| {
                let row: Vec<f64> = scores
                    .row(i)
                    .iter()
                    .zip(&self.intercepts)
                    .map(|(score, intercept)| score + intercept)
                    .collect();
                if self.classes == 2 {
                    return usize::from(row[0] > 0.0);
                }
                (1..row.len()).fold(0, |best, c| if row[c] > row[best] { c } else { best })
            })
            .collect()
    }
}

struct Problem<'a> {
    x: &'a Matrix,
    transposed: Matrix,
    labels: &'a [usize],
    classes: usize,
    outputs: usize,
}

impl Problem<'_> {
    /// Value and gradient at a point: weights, output by output, then intercepts.
    fn value(&self, at: &[f64]) -> (f64, Vec<f64>) {
        let d = self.x.columns();
        let split = self.outputs * d;
        let weights = Matrix::new(self.outputs, d, at[..split].to_vec());
        let mut scores = self.x.times(&weights.transpose());
        let mut loss = 0.5 * at[..split].iter().map(|w| w * w).sum::<f64>();
        let mut of_intercepts = vec![0.0; self.outputs];
        let outputs = self.outputs;
        for (row, &label) in scores
            .values_mut()
            .chunks_exact_mut(outputs)
            .zip(self.labels)
        {
            for (score, intercept) in row.iter_mut().zip(&at[split..]) {
                *score += intercept;
            }
            loss += if self.classes == 2 {
                residual_of_two(row, label)
            } else {
                residuals(row, label)
            };
            for (sum, residual) in of_intercepts.iter_mut().zip(row.iter()) {
                *sum += residual;
            }
        }
        // (d × n)·(n × outputs), then as rows of outputs.
        let by_weight = self.transposed.times(&scores).transpose();
        let mut gradient: Vec<f64> = by_weight
            .values()
            .iter()
            .zip(&at[..split])
            .map(|(g, w)| g + w)
            .collect();
        gradient.extend(of_intercepts);
        (loss, gradient)
    }
}

/// −log p of the label; the scores become p − 1{label}.
fn residuals(scores: &mut [f64], label: usize) -> f64 {
    let largest = scores.iter().fold(f64::NEG_INFINITY, |m, &s| m.max(s));
    let of_label = scores[label];
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    scores.iter_mut().for_each(|s| *s /= sum);
    scores[label] -= 1.0;
    sum.ln() + largest - of_label
}

/// As [`residuals`], of one score for class 1 against class 0.
fn residual_of_two(scores: &mut [f64], label: usize) -> f64 {
    let score = scores[0];
    let towards = if label == 1 { -score } else { score };
    let p = 1.0 / (1.0 + (-score).exp());
    scores[0] = p - label as f64;
    towards.max(0.0) + (-towards.abs()).exp().ln_1p()
}

/// L-BFGS with backtracking, from 0 (Nocedal and Wright 2006, algorithms 7.4 and 3.1).
fn minimise(dimension: usize, f: impl Fn(&[f64]) -> (f64, Vec<f64>)) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let mut at = vec![0.0; dimension];
    let (mut value, mut gradient) = f(&at);
    let mut memory: VecDeque<(Vec<f64>, Vec<f64>, f64)> = VecDeque::new();
    for _ in 0..MOST_STEPS {
        if gradient.iter().all(|g| g.abs() <= GRADIENT) {
            break;
        }
        let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut projections = Vec::new();
        for (step, change, curvature) in memory.iter().rev() {
            let alpha = dot(step, &direction) / curvature;
            direction
                .iter_mut()
                .zip(change)
                .for_each(|(d, c)| *d -= alpha * c);
            projections.push(alpha);
        }
        let scale = memory.back().map_or_else(
            || 1.0 / dot(&gradient, &gradient).sqrt(),
            |(_, change, curvature)| curvature / dot(change, change),
        );
        direction.iter_mut().for_each(|d| *d *= scale);
        for ((step, change, curvature), alpha) in memory.iter().zip(projections.iter().rev()) {
            let beta = dot(change, &direction) / curvature;
            direction
                .iter_mut()
                .zip(step)
                .for_each(|(d, s)| *d += (alpha - beta) * s);
        }
        let slope = dot(&gradient, &direction);
        let mut length = 1.0;
        let (next, next_value, next_gradient) = loop {
            let next: Vec<f64> = at
                .iter()
                .zip(&direction)
                .map(|(a, d)| a + length * d)
                .collect();
            let (next_value, next_gradient) = f(&next);
            if next_value <= value + 1e-4 * length * slope {
                break (next, next_value, next_gradient);
            }
            length /= 2.0;
            if length < 1e-12 {
                return at;
            }
        };
        // No step lowers the value any more: rounding has the last word.
        if next_value >= value {
            return next;
        }
        let step: Vec<f64> = next.iter().zip(&at).map(|(a, b)| a - b).collect();
        let change: Vec<f64> = next_gradient
            .iter()
            .zip(&gradient)
            .map(|(a, b)| a - b)
            .collect();
        let curvature = dot(&step, &change);
        if curvature > 0.0 {
            memory.push_back((step, change, curvature));
            if memory.len() > MEMORY {
                memory.pop_front();
            }
        }
        (at, value, gradient) = (next, next_value, next_gradient);
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of scikit-learn 1.9.1, LogisticRegression(tol=1e-12, max_iter=10000).
    #[test]
    fn golden_fits() {
        let x = Matrix::new(6, 2, vec![0., 0., 1., 0., 0., 1., 2., 2., 3., 2., -1., -2.]);
        let close = |found: &[f64], expected: &[f64]| {
            for (a, b) in found.iter().zip(expected) {
                assert!((a - b).abs() < 1e-6, "{found:?}, expected {expected:?}");
            }
        };
        let two = Logistic::fit(&x, &[0, 0, 0, 1, 1, 0], 2);
        close(two.weights.values(), TWO_WEIGHTS);
        close(&two.intercepts, TWO_INTERCEPTS);
        let three = Logistic::fit(&x, &[0, 0, 1, 1, 2, 2], 3);
        close(three.weights.values(), THREE_WEIGHTS);
        // Intercepts are free up to a common constant.
        let centre = three.intercepts.iter().sum::<f64>() / 3.0;
        let centred: Vec<f64> = three.intercepts.iter().map(|i| i - centre).collect();
        close(&centred, THREE_INTERCEPTS);
        assert_eq!(two.predict(&x), [0, 0, 0, 1, 1, 0]);
        assert_eq!(three.predict(&x), THREE_PREDICTED);
    }

    const TWO_WEIGHTS: &[f64] = &[0.867129039, 0.743744064];
    const TWO_INTERCEPTS: &[f64] = &[-2.355320387];
    const THREE_WEIGHTS: &[f64] = &[
        -0.024593828,
        -0.229037822,
        -0.373159964,
        0.738081469,
        0.397753793,
        -0.509043647,
    ];
    const THREE_INTERCEPTS: &[f64] = &[0.194030089, -0.162468867, -0.031561223];
    const THREE_PREDICTED: &[usize] = &[0, 2, 1, 1, 1, 0];
}
