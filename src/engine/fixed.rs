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
