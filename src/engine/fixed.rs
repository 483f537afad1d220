//! Sums that do not depend on order: 128-bit fixed point.

/// A sum in units of 2⁻⁶⁰.
///
/// Each term is rounded half to even to a multiple of 2⁻⁶⁰, then added as an integer, so the result is
/// the same for any order and any number of shards. Range ±1.5·10²⁰; a term beyond it saturates.
///
/// # Examples
/// ```
/// use vecdrift::engine::fixed::FixedSum;
/// let mut a = FixedSum::default();
/// a.add(0.1);
/// a.add(0.2);
/// let mut b = FixedSum::default();
/// b.add(0.2);
/// b.add(0.1);
/// assert_eq!(a, b);
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FixedSum(i128);

const UNIT: f64 = (1u64 << 60) as f64;

impl FixedSum {
    /// Adds one finite term.
    #[inline]
    pub fn add(&mut self, value: f64) {
        debug_assert!(value.is_finite(), "fixed-point sum of {value}");
        self.0 = self
            .0
            .saturating_add((value * UNIT).round_ties_even() as i128);
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }

    /// The sum, rounded once to f64.
    pub fn to_f64(self) -> f64 {
        self.0 as f64 / UNIT
    }

    /// The sum in units of 2⁻⁶⁰.
    pub fn units(self) -> i128 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::rng::Philox;

    fn sum(values: &[f64]) -> FixedSum {
        let mut sum = FixedSum::default();
        values.iter().for_each(|&value| sum.add(value));
        sum
    }

    /// Terms, their units and the total as computed with Python's exact fractions.
    #[test]
    fn golden_values() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/fixtures/golden/fixed_sum.json"
        );
        let text = std::fs::read_to_string(path).expect("the fixture is there");
        let golden: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let list = |key: &str| golden[key].as_array().expect("a list").clone();
        // serde_json may read a number one unit of the last place off; the values lie on rounding edges.
        let (_, after) = text.split_once("\"values\": [").expect("a list of values");
        let (values, _) = after.split_once(']').expect("an end of the list");
        let values: Vec<f64> = values
            .split(',')
            .map(|v| v.trim().parse().expect("a number"))
            .collect();
        assert_eq!(values.len(), list("fixed").len());
        for (value, units) in values.iter().zip(list("fixed")) {
            assert_eq!(
                sum(&[*value]).units().to_string(),
                units.as_str().expect("text")
            );
        }
        let total = sum(&values);
        assert_eq!(
            total.units().to_string(),
            golden["total"].as_str().expect("text")
        );
        assert_eq!(Some(total.to_f64()), golden["total_f64"].as_f64());
    }

    #[test]
    fn any_order_and_any_shards_give_the_same_bits() {
        let mut rng = Philox::new(2, 0);
        let mut values: Vec<f64> = (0..1000)
            .map(|_| rng.normal() * 10f64.powi(rng.below(20) as i32 - 10))
            .collect();
        let whole = sum(&values);
        for shards in 1..20 {
            rng.shuffle(&mut values);
            let mut merged = FixedSum::default();
            for shard in values.chunks(values.len().div_ceil(shards)) {
                merged.merge(sum(shard));
            }
            assert_eq!(merged, whole);
        }
        // An f64 sum does depend on the order, so the test can fail.
        let forward: f64 = values.iter().sum();
        let backward: f64 = values.iter().rev().sum();
        assert_ne!(forward, backward);
    }

    #[test]
    fn terms_round_half_to_even() {
        let unit = 2f64.powi(-60);
        for (units, rounded) in [
            (0.5, 0),
            (1.5, 2),
            (2.5, 2),
            (-0.5, 0),
            (-1.5, -2),
            (0.75, 1),
        ] {
            assert_eq!(sum(&[units * unit]).units(), rounded);
        }
    }

    #[test]
    fn too_large_terms_saturate() {
        assert_eq!(sum(&[1e300]).units(), i128::MAX);
        assert_eq!(sum(&[1e300, 1e300]).units(), i128::MAX);
        assert_eq!(sum(&[-1e300, -1e300]).units(), i128::MIN);
    }
}
