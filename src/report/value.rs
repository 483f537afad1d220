//! Numbers as people read them: the only place where a measured number becomes text.
//!
//! The terminal summary, the page and the figures all print through here, so that they cannot
//! disagree. Digits follow what the number can carry: three significant digits below one, four
//! above, and an interval decides the digits of its estimate.

use std::fmt::{self, Display};

/// How one axis of the verdict, or one measure, stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Within its margin.
    Ok,
    /// Outside its margin, by an amount that an adjustment can handle.
    Shifted,
    /// Outside its margin so far that old and new cannot be used together.
    Broken,
    /// Not measured, or too little data to decide.
    Unknown,
}

impl State {
    /// The word shown for the state.
    pub fn label(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Shifted => "shifted",
            State::Broken => "broken",
            State::Unknown => "unknown",
        }
    }
}

/// A value to show: what it is decides how it is written.
///
/// Numbers that are not finite are shown as `n/a`, like missing ones.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Words.
    Text(String),
    /// A count: `5,183`.
    Count(u64),
    /// A measured number: `0.441`, `0.00907`, `12.35`, `1.2e-7`.
    Number(f64),
    /// A chosen number, such as a threshold or a margin, without trailing zeros: `0.01`.
    Setting(f64),
    /// A share in [0, 1] shown in percent: `44.1%`.
    Percent(f64),
    /// An estimate with its interval: `0.441 [0.436, 0.446]`.
    Interval {
        /// The point estimate.
        estimate: f64,
        /// Lower end of the interval.
        low: f64,
        /// Upper end of the interval.
        high: f64,
    },
    /// A share in [0, 1] with its interval: `44.1% [43.6, 44.6]`.
    PercentInterval {
        /// The point estimate, in [0, 1].
        estimate: f64,
        /// Lower end of the interval, in [0, 1].
        low: f64,
        /// Upper end of the interval, in [0, 1].
        high: f64,
    },
    /// A p-value: `p = 0.031`; `p ≤ 1e-4` where it is at its floor.
    PValue {
        /// The p-value.
        p: f64,
        /// The smallest value that the test can give: 1 / (1 + permutations), 0 for an analytic
        /// p-value.
        floor: f64,
    },
    /// A duration in seconds: `312 ms`, `1.24 s`, `2 min 5 s`.
    Seconds(f64),
    /// A size in bytes: `7.63 MiB`.
    Bytes(u64),
    /// A state with the word for it, shown in the colour of the state.
    State {
        /// Decides the colour and the mark.
        state: State,
        /// The word: the state's own label, or the measure's (`exceeds`, `undecided`).
        label: String,
    },
    /// Not available, with the reason where one is known.
    Missing(Option<String>),
}

impl Value {
    /// An estimate with its interval.
    pub fn interval(estimate: f64, [low, high]: [f64; 2]) -> Self {
        Value::Interval {
            estimate,
            low,
            high,
        }
    }

    /// A share with its interval, shown in percent.
    pub fn percent_interval(estimate: f64, [low, high]: [f64; 2]) -> Self {
        Value::PercentInterval {
            estimate,
            low,
            high,
        }
    }

    /// The p-value of a test over `permutations` random relabellings, (1 + b) / (1 + permutations).
    pub fn permutation_p(p: f64, permutations: u64) -> Self {
        Value::PValue {
            p,
            floor: 1.0 / (1.0 + permutations as f64),
        }
    }

    /// A value that could not be had, and why.
    pub fn missing(reason: impl Into<String>) -> Self {
        Value::Missing(Some(reason.into()))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Value::Text(text)
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Value::Count(count)
    }
}

impl From<usize> for Value {
    fn from(count: usize) -> Self {
        Value::Count(count as u64)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Value::Number(number)
    }
}

impl From<State> for Value {
    fn from(state: State) -> Self {
        Value::State {
            state,
            label: state.label().to_owned(),
        }
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Missing(None), Into::into)
    }
}

impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Value::Text(text) | Value::State { label: text, .. } => text.clone(),
            Value::Count(count) => group_thousands(&count.to_string()),
            Value::Number(x) => number(*x),
            Value::Setting(x) => setting(*x),
            Value::Percent(share) => percent(*share),
            Value::Interval {
                estimate,
                low,
                high,
            } => interval(*estimate, *low, *high),
            Value::PercentInterval {
                estimate,
                low,
                high,
            } => percent_interval(*estimate, *low, *high),
            Value::PValue { p, floor } => p_value(*p, *floor),
            Value::Seconds(seconds) => duration(*seconds),
            Value::Bytes(bytes) => size(*bytes),
            Value::Missing(None) => MISSING.to_owned(),
            Value::Missing(Some(reason)) => format!("{MISSING} ({reason})"),
        };
        f.write_str(&text)
    }
}

const MISSING: &str = "n/a";
/// A label on an axis whose ticks are `step` apart: just enough decimals to tell them apart.
pub(super) fn tick(x: f64, step: f64) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    if needs_exponent(x) {
        return scientific(x, 3);
    }
    trim_zeros(fixed(x, places(step).clamp(0, 9) as usize))
}

fn number(x: f64) -> String {
    if !x.is_finite() {
        return MISSING.to_owned();
    }
    if x == 0.0 {
        return "0".to_owned();
    }
    if needs_exponent(x) {
        return scientific(x, 3);
    }
    let decimals = decimals(x);
    // A cosine of 0.99997 is not 1: digits are added until the difference shows.
    (decimals..=9)
        .map(|decimals| fixed(x, decimals))
        .find(|text| x.abs() == 1.0 || trim_zeros(text.clone()).trim_start_matches('-') != "1")
        .unwrap_or_else(|| fixed(x, decimals))
}

fn setting(x: f64) -> String {
    if !x.is_finite() {
        MISSING.to_owned()
    } else if needs_exponent(x) {
        scientific(x, 3)
    } else {
        trim_zeros(fixed(x, 6))
    }
}

fn percent(share: f64) -> String {
    if !share.is_finite() {
        return MISSING.to_owned();
    }
    let x = 100.0 * share;
    if x != 0.0 && x.abs() < 1e-2 {
        return format!("{}%", scientific(x, 2));
    }
    if x == 0.0 || x == 100.0 {
        return format!("{x:.0}%");
    }
    let decimals = percent_decimals(x);
    // As for 1 in `number`: 99.97 % of the rows is not all of them.
    let text = (decimals..=6)
        .map(|decimals| fixed(x, decimals))
        .find(|text| trim_zeros(text.clone()) != "100")
        .unwrap_or_else(|| fixed(x, decimals));
    format!("{text}%")
}

fn percent_decimals(x: f64) -> usize {
    match x.abs() {
        x if x >= 10.0 => 1,
        x if x >= 1.0 => 2,
        0.0 => 0,
        x => (1 - exponent(x)).clamp(0, 9) as usize,
    }
}

/// The interval decides: half its width is shown with one significant digit, two where the first is
/// below 3, so that the estimate is not written more finely than it is known, nor so coarsely that
/// the ends coincide.
fn interval(estimate: f64, low: f64, high: f64) -> String {
    let all = [estimate, low, high];
    if all.iter().any(|x| !x.is_finite()) {
        return number(estimate);
    }
    let largest = all.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
    if needs_exponent(largest) {
        let [estimate, low, high] = all.map(|x| scientific(x, 3));
        return format!("{estimate} [{low}, {high}]");
    }
    let decimals = decimals(largest).max(width_decimals(high - low));
    let [estimate, low, high] = all.map(|x| fixed(x, decimals));
    format!("{estimate} [{low}, {high}]")
}

fn percent_interval(estimate: f64, low: f64, high: f64) -> String {
    let all = [estimate, low, high].map(|share| 100.0 * share);
    if all.iter().any(|x| !x.is_finite()) {
        return percent(estimate);
    }
    let largest = all.iter().fold(0.0, |a: f64, x| a.max(x.abs()));
    let decimals = percent_decimals(largest).max(width_decimals(all[2] - all[1]));
    let [estimate, low, high] = all.map(|x| fixed(x, decimals));
    format!("{estimate}% [{low}, {high}]")
}

fn width_decimals(width: f64) -> usize {
    let half = width / 2.0;
    if half <= 0.0 {
        return 0;
    }
    let leading = half / 10f64.powi(exponent(half));
    let digits = if leading < 3.0 { 2 } else { 1 };
    (digits - 1 - exponent(half)).clamp(0, 9) as usize
}

fn p_value(p: f64, floor: f64) -> String {
    // An analytic p-value that underflows is still not zero.
    const SMALLEST: f64 = 1e-300;
    if !p.is_finite() {
        return MISSING.to_owned();
    }
    let floor = floor.max(SMALLEST);
    let (sign, p) = if p <= floor { ('≤', floor) } else { ('=', p) };
    let text = if p < 1e-3 {
        scientific(p, 2)
    } else {
        trim_zeros(fixed(p, (1 - exponent(p)).clamp(0, 9) as usize))
    };
    format!("p {sign} {text}")
}

fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return MISSING.to_owned();
    }
    // Rounded first, so that 59.9996 s is not written as 60.0 s.
    let whole = seconds.round() as u64;
    if whole >= 3600 {
        format!("{} h {} min", whole / 3600, whole % 3600 / 60)
    } else if whole >= 60 {
        format!("{} min {} s", whole / 60, whole % 60)
    } else if seconds >= 1.0 {
        format!("{} s", fixed(seconds, if seconds >= 10.0 { 1 } else { 2 }))
    } else if seconds >= 1e-3 {
        let milliseconds = seconds * 1e3;
        format!(
            "{} ms",
            fixed(milliseconds, usize::from(milliseconds < 10.0))
        )
    } else {
        format!("{} ms", setting((seconds * 1e6).round() / 1e3))
    }
}

fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            let decimals = match value {
                _ if unit == "B" => 0,
                x if x < 10.0 => 2,
                x if x < 100.0 => 1,
                _ => 0,
            };
            return format!("{} {unit}", fixed(value, decimals));
        }
        value /= 1024.0;
    }
    format!("{} TiB", fixed(value, 2))
}

/// Whether positional notation would be harder to read than an exponent.
fn needs_exponent(x: f64) -> bool {
    x != 0.0 && !(1e-4..1e15).contains(&x.abs())
}

/// Power of ten of the leading digit of `x` ≠ 0.
fn exponent(x: f64) -> i32 {
    x.abs().log10().floor() as i32
}

/// Decimals that keep four significant digits from one on, three below.
fn decimals(x: f64) -> usize {
    match x.abs() {
        0.0 => 0,
        x if x >= 1.0 => (3 - exponent(x)).max(0) as usize,
        x => (2 - exponent(x)).clamp(0, 9) as usize,
    }
}

/// Decimals needed to write `step` exactly, for a step of 1, 2, 2.5 or 5 times a power of ten.
fn places(step: f64) -> i32 {
    let power = exponent(step);
    let mantissa = step.abs() / 10f64.powi(power);
    let half = (mantissa - 2.5).abs() < 1e-6;
    -power + i32::from(half)
}

fn fixed(x: f64, decimals: usize) -> String {
    let text = format!("{x:.decimals$}");
    let is_zero = text.chars().all(|c| matches!(c, '-' | '0' | '.'));
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) if is_zero => ("", digits),
        Some(digits) => ("-", digits),
        None => ("", text.as_str()),
    };
    let (whole, fraction) = match digits.split_once('.') {
        Some((whole, fraction)) => (whole, format!(".{fraction}")),
        None => (digits, String::new()),
    };
    format!("{sign}{}{fraction}", group_thousands(whole))
}

fn scientific(x: f64, digits: usize) -> String {
    let text = format!("{x:.*e}", digits.saturating_sub(1));
    match text.split_once('e') {
        Some((mantissa, power)) => format!("{}e{power}", trim_zeros(mantissa.to_owned())),
        None => text,
    }
}

fn trim_zeros(text: String) -> String {
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

fn group_thousands(digits: &str) -> String {
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_the_digits_they_can_carry() {
        for (x, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (0.4412345, "0.441"),
            (0.00907123, "0.00907"),
            (-0.08844, "-0.0884"),
            (1.0, "1.000"),
            (2.5, "2.500"),
            (12.3456, "12.35"),
            (123.456, "123.5"),
            (5183.4, "5,183"),
            (1234567.0, "1,234,567"),
            (0.000012345, "1.23e-5"),
            (0.9996, "0.9996"),
            (-0.99997, "-0.99997"),
            (1.0000002, "1.0000002"),
            (f64::NAN, "n/a"),
            (f64::INFINITY, "n/a"),
        ] {
            assert_eq!(Value::Number(x).to_string(), text, "{x}");
        }
    }

    #[test]
    fn counts_settings_and_percentages() {
        assert_eq!(Value::Count(999).to_string(), "999");
        assert_eq!(Value::Count(26_862_489).to_string(), "26,862,489");
        assert_eq!(Value::Setting(0.01).to_string(), "0.01");
        assert_eq!(Value::Setting(10.0).to_string(), "10");
        assert_eq!(Value::Setting(1e-6).to_string(), "1e-6");
        assert_eq!(Value::Percent(0.441).to_string(), "44.1%");
        assert_eq!(Value::Percent(0.0019).to_string(), "0.19%");
        assert_eq!(Value::Percent(0.0).to_string(), "0%");
        assert_eq!(Value::Percent(1.0).to_string(), "100%");
        assert_eq!(Value::Percent(0.9999).to_string(), "99.99%");
    }

    #[test]
    fn an_interval_decides_its_digits() {
        let text = |e, ci| Value::interval(e, ci).to_string();
        assert_eq!(text(0.4412, [0.4361, 0.4463]), "0.441 [0.436, 0.446]");
        assert_eq!(text(-0.0884, [-0.123, -0.054]), "-0.088 [-0.123, -0.054]");
        assert_eq!(
            text(0.80123, [0.80101, 0.80144]),
            "0.80123 [0.80101, 0.80144]"
        );
        assert_eq!(text(0.5, [0.5, 0.5]), "0.500 [0.500, 0.500]");
        assert_eq!(text(0.0, [0.0, 0.0]), "0 [0, 0]");
        assert_eq!(text(2e-6, [1e-6, 3e-6]), "2e-6 [1e-6, 3e-6]");
        assert_eq!(
            Value::percent_interval(0.0, [0.0, 0.0]).to_string(),
            "0% [0, 0]"
        );
        assert_eq!(
            Value::percent_interval(0.441, [0.4361, 0.4463]).to_string(),
            "44.1% [43.6, 44.6]"
        );
    }

    #[test]
    fn a_p_value_is_never_zero() {
        assert_eq!(Value::permutation_p(1e-4, 9_999).to_string(), "p ≤ 1e-4");
        assert_eq!(Value::permutation_p(0.001, 999).to_string(), "p ≤ 0.001");
        assert_eq!(Value::permutation_p(0.0312, 9_999).to_string(), "p = 0.031");
        assert_eq!(Value::permutation_p(1.0, 9_999).to_string(), "p = 1");
        let analytic = |p| Value::PValue { p, floor: 0.0 }.to_string();
        assert_eq!(analytic(0.0), "p ≤ 1e-300");
        assert_eq!(analytic(4.21e-30), "p = 4.2e-30");
    }

    #[test]
    fn durations_sizes_and_missing_values() {
        assert_eq!(Value::Seconds(0.0000512).to_string(), "0.051 ms");
        assert_eq!(Value::Seconds(0.312).to_string(), "312 ms");
        assert_eq!(Value::Seconds(1.2444).to_string(), "1.24 s");
        assert_eq!(Value::Seconds(59.9996).to_string(), "1 min 0 s");
        assert_eq!(Value::Seconds(3_840.0).to_string(), "1 h 4 min");
        assert_eq!(Value::Bytes(512).to_string(), "512 B");
        assert_eq!(Value::Bytes(8_000_000).to_string(), "7.63 MiB");
        assert_eq!(Value::from(None::<f64>).to_string(), "n/a");
        assert_eq!(
            Value::missing("no qrels given").to_string(),
            "n/a (no qrels given)"
        );
    }

    #[test]
    fn ticks_show_only_what_tells_them_apart() {
        assert_eq!(tick(0.30000000000000004, 0.1), "0.3");
        assert_eq!(tick(0.25, 0.25), "0.25");
        assert_eq!(tick(20_000.0, 5_000.0), "20,000");
        assert_eq!(tick(2e-5, 1e-5), "2e-5");
        assert_eq!(tick(100.0, 100.0), "100");
    }
}
