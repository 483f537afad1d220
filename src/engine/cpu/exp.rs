//! The exponential of kernel sums.

use super::kernel::Isa;

/// Smallest argument whose exponential is a normal number: ln 2⁻¹²⁶, rounded towards 0.
const SMALLEST: f32 = -87.336_54;

/// eˣ for x ≤ 0: at most 2 ulp off above −87.3365, 0 below it (where eˣ < 2⁻¹²⁶).
///
/// x = n·ln 2 + r with integer n and |r| ≤ ½ ln 2; eʳ = 1 + r + r²·p(r), p of degree 5.
///
/// # Source
/// Cephes `expf` (S. L. Moshier) for p and the split of ln 2.
#[inline(always)]
pub(super) fn exp<I: Isa>(isa: I, x: f32) -> f32 {
    /// Adding this rounds to an integer, which then stands in the low bits.
    const ROUND: f32 = 1.5 * (1u32 << 23) as f32;
    // ln 2 = HIGH + LOW; n·HIGH is exact for |n| < 2¹⁴.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const P: [f32; 6] = [
        1.987_569_1e-4,
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ];
    let shifted = isa.mul_add(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = isa.mul_add(n, -LN2_HIGH, x);
    let r = isa.mul_add(n, -LN2_LOW, r);
    let mut p = P[0];
    for c in &P[1..] {
        p = isa.mul_add(p, r, *c);
    }
    let power = isa.mul_add(p, r * r, r) + 1.0;
    // 2ⁿ from its exponent bits; wrong below SMALLEST, where it is not used.
    let scale = f32::from_bits((shifted.to_bits().wrapping_sub(ROUND.to_bits() - 127)) << 23);
    if x < SMALLEST { 0.0 } else { power * scale }
}

#[cfg(test)]
mod tests {
    use super::super::kernel::{Job, Kernel};
    use super::*;

    struct Exp<'a>(&'a [f32]);

    impl Job for Exp<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Vec<f32> {
            self.0.iter().map(|&x| exp(isa, x)).collect()
        }
    }

    /// Distance in units of the last place of the exact value.
    fn ulps(got: f32, exact: f64) -> f64 {
        let ulp = 2f64.powi((exact.log2().floor() as i32).max(-126) - 23);
        (f64::from(got) - exact).abs() / ulp
    }

    #[test]
    fn within_two_ulp_over_the_whole_range() {
        // Every 61st float from −0 to the underflow limit, and the neighbourhood of both ends.
        let limit = SMALLEST.to_bits();
        let bits = (0x8000_0000..=limit)
            .step_by(61)
            .chain(limit - 1000..=limit);
        let xs: Vec<f32> = bits.map(f32::from_bits).collect();
        for kernel in Kernel::available() {
            let mut worst = (0.0, 0.0);
            for (&x, &got) in xs.iter().zip(&kernel.run(Exp(&xs))) {
                let error = ulps(got, f64::from(x).exp());
                if error > worst.0 {
                    worst = (error, x);
                }
            }
            assert!(
                worst.0 <= 2.0,
                "{}: {} ulp at {}",
                kernel.name(),
                worst.0,
                worst.1
            );
            println!(
                "exp on {}: at most {:.3} ulp, at {}",
                kernel.name(),
                worst.0,
                worst.1
            );
        }
    }

    #[test]
    fn two_ulp_can_be_missed() {
        let x = -1.234_567_f32;
        let exact = f64::from(x).exp();
        assert!(ulps(f32::from_bits((exact as f32).to_bits() + 3), exact) > 2.0);
    }

    #[test]
    fn underflows_to_zero() {
        let xs = [-87.4, -100.0, -1e10, f32::MIN, f32::NEG_INFINITY];
        for kernel in Kernel::available() {
            assert_eq!(kernel.run(Exp(&xs)), [0.0; 5]);
            assert_eq!(kernel.run(Exp(&[0.0, -0.0])), [1.0; 2]);
        }
    }
}
