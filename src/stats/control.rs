//! Control limits: is a new value out of line with those before it?
//!
//! Values are logarithms of effects, which are skewed and positive.

use statrs::distribution::{ContinuousCDF, StudentsT};

/// Values from which on robust limits are used, and below which there are none.
pub const ROBUST: usize = 20;
/// See [`ROBUST`].
pub const LEAST: usize = 8;

/// Makes the median absolute deviation a standard deviation for normal values.
const MAD_TO_SD: f64 = 1.482_602_218_505_602;

/// How a limit was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Median + 3 · 1.4826 · median absolute deviation, of at least 20 values.
    MedianMad,
    /// Mean + t₀.₉₉ · s · √(1 + 1/h), of 8 to 19: where 99 of 100 next values of a normal process lie below.
    Prediction,
}

/// What values in control look like, and how high the next one may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// Which rule.
    pub rule: Rule,
    /// Centre: median or mean.
    pub centre: f64,
    /// Spread of single values, in standard deviations.
    pub sd: f64,
    /// Values above this are out of control.
    pub upper: f64,
}

impl Limit {
    /// Upper limit from `history`, values in control; `None` of fewer than 8.
    pub fn new(history: &[f64]) -> Option<Self> {
        let h = history.len() as f64;
        if history.len() >= ROBUST {
            let centre = median(history);
            let off: Vec<f64> = history.iter().map(|v| (v - centre).abs()).collect();
            let sd = MAD_TO_SD * median(&off);
            return Some(Self {
                rule: Rule::MedianMad,
                centre,
                sd,
                upper: centre + 3.0 * sd,
            });
        }
        if history.len() < LEAST {
            return None;
        }
        let centre = history.iter().sum::<f64>() / h;
        let sd = (history.iter().map(|v| (v - centre).powi(2)).sum::<f64>() / (h - 1.0)).sqrt();
        let t = StudentsT::new(0.0, 1.0, h - 1.0).ok()?.inverse_cdf(0.99);
        Some(Self {
            rule: Rule::Prediction,
            centre,
            sd,
            upper: centre + t * sd * (1.0 + 1.0 / h).sqrt(),
        })
    }
}

/// An exponentially weighted moving average, which adds up small shifts that no single value shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Ewma {
    /// z_i = λ·value_i + (1 − λ)·z_{i−1}, from the centre on.
    pub values: Vec<f64>,
    /// Per value centre + L · sd · √(λ/(2 − λ) · (1 − (1 − λ)^{2i})) · √((1 + r)/(1 − r)).
    pub upper: Vec<f64>,
    /// r: lag-1 autocorrelation of the history, at least 0 and at most 0.9.
    pub autocorrelation: f64,
}

/// λ and L of [`ewma`].
const LAMBDA: f64 = 0.2;
const WIDTH: f64 = 2.7;

/// The moving average of `values`, with λ = 0.2 and L = 2.7, against `history`'s centre and spread; limits are
/// widened by the history's autocorrelation. `None` of fewer than 20 values of history.
///
/// Source: Lucas & Saccucci 1990 (the average run length of EWMA charts).
pub fn ewma(history: &[f64], values: &[f64]) -> Option<Ewma> {
    let limit = Limit::new(history).filter(|l| l.rule == Rule::MedianMad)?;
    let r = lag_1(history).clamp(0.0, 0.9);
    let widen = ((1.0 + r) / (1.0 - r)).sqrt();
    let mut z = limit.centre;
    let mut ewma = Ewma {
        values: Vec::new(),
        upper: Vec::new(),
        autocorrelation: r,
    };
    for (i, value) in (1..).zip(values) {
        z += LAMBDA * (value - z);
        ewma.values.push(z);
        let settled = 1.0 - (1.0 - LAMBDA).powi(2 * i);
        let sd = limit.sd * (LAMBDA / (2.0 - LAMBDA) * settled).sqrt();
        ewma.upper.push(limit.centre + WIDTH * sd * widen);
    }
    Some(ewma)
}

fn lag_1(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let all: f64 = values.iter().map(|v| (v - mean).powi(2)).sum();
    let next: f64 = values
        .windows(2)
        .map(|w| (w[0] - mean) * (w[1] - mean))
        .sum();
    if all > 0.0 { next / all } else { 0.0 }
}

fn median(values: &[f64]) -> f64 {
    super::distribution::median(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    #[test]
    fn limits_by_hand() {
        assert_eq!(Limit::new(&[1.0; 7]), None);
        // 1 … 8: mean 4.5, s = √6, t₀.₉₉ with 7 degrees of freedom 2.997951566868.
        let eight: Vec<f64> = (1..=8).map(f64::from).collect();
        let limit = Limit::new(&eight).unwrap();
        assert_eq!((limit.rule, limit.centre), (Rule::Prediction, 4.5));
        let expected = 4.5 + 2.997_951_566_868 * 6f64.sqrt() * 1.125f64.sqrt();
        assert!((limit.upper - expected).abs() < 1e-9, "{limit:?}");
        // 1 … 21: median 11, MAD 5.
        let many: Vec<f64> = (1..=21).map(f64::from).collect();
        let limit = Limit::new(&many).unwrap();
        assert_eq!((limit.rule, limit.centre), (Rule::MedianMad, 11.0));
        assert!((limit.upper - 11.0 - 15.0 * MAD_TO_SD).abs() < 1e-12);
        // One outlier in the history hardly moves robust limits.
        let mut spoilt = many.clone();
        spoilt.push(1_000.0);
        assert!(Limit::new(&spoilt).unwrap().upper < limit.upper + 3.0);
    }

    /// A process in control passes its limit about once in a hundred (prediction) or seldom (3 sd, of a
    /// spread that is itself uncertain); one that is moved by 4 sd nearly always does.
    #[test]
    fn alarms_are_rare_in_control_and_sure_after_a_jump() {
        for (history, most) in [(10, 45), (40, 45)] {
            let (mut false_alarms, mut found) = (0, 0);
            for run in 0..2_000 {
                let mut random = Philox::new(run, 17);
                let past: Vec<f64> = (0..history).map(|_| random.normal()).collect();
                let limit = Limit::new(&past).unwrap();
                let next = random.normal();
                false_alarms += u32::from(next > limit.upper);
                found += u32::from(next + 6.0 > limit.upper);
            }
            assert!(
                false_alarms <= most && found > 1_800,
                "{history}: {false_alarms} {found}"
            );
        }
    }

    /// A step of one standard deviation: single values seldom pass the limit, their moving average does
    /// within 30 more often than not.
    #[test]
    fn a_moving_average_sees_small_steps() {
        let (mut single, mut average, mut false_alarms) = (0, 0, 0);
        for run in 0..400 {
            let mut random = Philox::new(run, 18);
            let past: Vec<f64> = (0..60).map(|_| random.normal()).collect();
            let quiet: Vec<f64> = (0..30).map(|_| random.normal()).collect();
            let moved: Vec<f64> = quiet.iter().map(|v| v + 1.0).collect();
            let limit = Limit::new(&past).unwrap();
            let alarms = |values: &[f64]| {
                let ewma = ewma(&past, values).unwrap();
                ewma.values.iter().zip(&ewma.upper).any(|(v, u)| v > u)
            };
            single += u32::from(moved.iter().take(5).any(|&v| v > limit.upper));
            average += u32::from(alarms(&moved));
            false_alarms += u32::from(alarms(&quiet));
        }
        assert!(average > 340 && average > single, "{average} {single}");
        // The limit is that of a known process; here its centre and spread are estimated from 60 values.
        assert!(false_alarms < 100, "{false_alarms}");
    }
}
