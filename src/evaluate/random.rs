//! The random streams that MTEB draws from, bit for bit: Python's `random.Random`, NumPy's `RandomState` and
//! NumPy's `default_rng`. Scores of tasks with drawn samples agree because the draws do.

/// Mersenne Twister, MT19937 (Matsumoto and Nishimura 1998).
pub struct Mt19937 {
    state: [u32; N],
    at: usize,
}

const N: usize = 624;
const M: usize = 397;

impl Mt19937 {
    /// As `numpy.random.RandomState(seed)` begins.
    pub fn numpy(seed: u32) -> Self {
        let mut state = [0u32; N];
        state[0] = seed;
        for i in 1..N {
            let last = state[i - 1];
            state[i] = 1_812_433_253u32
                .wrapping_mul(last ^ (last >> 30))
                .wrapping_add(i as u32);
        }
        Self { state, at: N }
    }

    /// As `random.Random(seed)` begins.
    pub fn python(seed: u32) -> Self {
        let mut twister = Self::numpy(19_650_218);
        let state = &mut twister.state;
        let mut i = 1;
        for _ in 0..N {
            let last = state[i - 1];
            state[i] =
                (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_664_525)).wrapping_add(seed);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 1..N {
            let last = state[i - 1];
            state[i] = (state[i] ^ (last ^ (last >> 30)).wrapping_mul(1_566_083_941))
                .wrapping_sub(i as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        twister
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ twist;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// Uniform on [0, 1), 53 bits: Python's `random()`, NumPy's `random_sample()`.
    pub fn uniform(&mut self) -> f64 {
        let (high, low) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
    }

    /// Python's `choices(range(n), k=k)`.
    pub fn choices(&mut self, n: usize, k: usize) -> Vec<usize> {
        (0..k)
            .map(|_| (self.uniform() * n as f64) as usize)
            .collect()
    }

    /// Python's `sample(range(n), k)`, k at most n.
    pub fn sample(&mut self, n: usize, k: usize) -> Vec<usize> {
        let mut set_size = 21usize;
        if k > 5 {
            let exponent = (((k * 3) as f64).ln() / 4f64.ln()).ceil();
            set_size += 4usize.saturating_pow(exponent as u32);
        }
        if n <= set_size {
            let mut pool: Vec<usize> = (0..n).collect();
            return (0..k)
                .map(|i| {
                    let j = self.below(n - i);
                    let last = pool[n - i - 1];
                    std::mem::replace(&mut pool[j], last)
                })
                .collect();
        }
        let mut seen = std::collections::HashSet::new();
        (0..k)
            .map(|_| {
                loop {
                    let j = self.below(n);
                    if seen.insert(j) {
                        return j;
                    }
                }
            })
            .collect()
    }

    /// Python's `_randbelow`.
    fn below(&mut self, n: usize) -> usize {
        let bits = usize::BITS - n.leading_zeros();
        loop {
            let r = (self.next_u32() >> (32 - bits)) as usize;
            if r < n {
                return r;
            }
        }
    }

    /// `RandomState.shuffle` of a list.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        shuffle(items, || self.next_u32());
    }
}

/// PCG64 as `numpy.random.default_rng` has it: XSL-RR output, seeded through `SeedSequence`.
pub struct Pcg64 {
    state: u128,
    increment: u128,
    /// The upper half of the last 64 bits, if only the lower was used.
    waiting: Option<u32>,
}

impl Pcg64 {
    /// As `numpy.random.default_rng(seed)` begins.
    pub fn numpy(seed: u32) -> Self {
        let words = seed_sequence(seed);
        let wide = |at: usize| u128::from(words[at]) << 64 | u128::from(words[at + 1]);
        let mut generator = Self {
            state: 0,
            increment: wide(2) << 1 | 1,
            waiting: None,
        };
        generator.step();
        generator.state = generator.state.wrapping_add(wide(0));
        generator.step();
        generator
    }

    fn step(&mut self) {
        const MULTIPLIER: u128 = 0x2360_ED05_1FC6_5DA4_4385_DF64_9FCC_F645;
        self.state = self
            .state
            .wrapping_mul(MULTIPLIER)
            .wrapping_add(self.increment);
    }

    fn next_u32(&mut self) -> u32 {
        if let Some(upper) = self.waiting.take() {
            return upper;
        }
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        let bits = folded.rotate_right((self.state >> 122) as u32);
        self.waiting = Some((bits >> 32) as u32);
        bits as u32
    }

    /// `Generator.shuffle` of a list.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        shuffle(items, || self.next_u32());
    }
}

/// Fisher and Yates from the end, positions by rejection under a mask: what NumPy does to lists.
fn shuffle<T>(items: &mut [T], mut next_u32: impl FnMut() -> u32) {
    for i in (1..items.len()).rev() {
        let mask = u32::MAX >> (i as u32).leading_zeros();
        let j = loop {
            let j = (next_u32() & mask) as usize;
            if j <= i {
                break j;
            }
        };
        items.swap(i, j);
    }
}

/// Four 64-bit words of `SeedSequence(seed).generate_state`.
fn seed_sequence(seed: u32) -> [u64; 4] {
    let mut constant = 0x43b0_d7e5u32;
    let mut hash = |mut value: u32| {
        value ^= constant;
        constant = constant.wrapping_mul(0x931e_8875);
        value = value.wrapping_mul(constant);
        value ^ (value >> 16)
    };
    let mut pool = [seed, 0, 0, 0].map(&mut hash);
    for from in 0..4 {
        for to in 0..4 {
            if from != to {
                let mixed = 0xca01_f9ddu32
                    .wrapping_mul(pool[to])
                    .wrapping_sub(0x4973_f715u32.wrapping_mul(hash(pool[from])));
                pool[to] = mixed ^ (mixed >> 16);
            }
        }
    }
    let mut constant = 0x8b51_f9ddu32;
    let words: Vec<u64> = (0..8)
        .map(|i| {
            let mut value = pool[i % 4] ^ constant;
            constant = constant.wrapping_mul(0x58f3_8ded);
            value = value.wrapping_mul(constant);
            u64::from(value ^ (value >> 16))
        })
        .collect();
    std::array::from_fn(|i| words[2 * i] | words[2 * i + 1] << 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers of Python 3.11 and NumPy 2.4 under seed 42.
    #[test]
    fn streams_are_those_of_python_and_numpy() {
        let mut python = Mt19937::python(42);
        assert_eq!(
            python.choices(1000, 8),
            [639, 25, 275, 223, 736, 676, 892, 86]
        );
        assert_eq!(python.sample(1000, 6), [432, 32, 30, 95, 223, 238]);
        assert_eq!(
            python.sample(30, 10),
            [16, 19, 0, 17, 6, 22, 20, 24, 26, 13]
        );
        let mut list: Vec<u32> = (0..20).collect();
        Mt19937::numpy(42).shuffle(&mut list);
        let expected = [
            0, 17, 15, 1, 8, 5, 11, 3, 18, 16, 13, 2, 9, 19, 4, 12, 7, 10, 14, 6,
        ];
        assert_eq!(list, expected);
        let mut list: Vec<u32> = (0..20).collect();
        let mut numpy = Pcg64::numpy(42);
        numpy.shuffle(&mut list);
        let expected = [
            15, 9, 14, 7, 12, 10, 6, 19, 3, 0, 16, 5, 11, 18, 2, 4, 17, 1, 13, 8,
        ];
        assert_eq!(list, expected);
        numpy.shuffle(&mut list);
        let expected = [
            13, 3, 0, 19, 12, 9, 6, 5, 10, 4, 15, 11, 8, 14, 2, 17, 16, 7, 18, 1,
        ];
        assert_eq!(list, expected);
    }
}
