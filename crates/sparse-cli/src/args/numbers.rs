//! Numbers on the command line, with the values that llama.cpp has for "off", "all" and "unlimited".

use std::num::NonZeroUsize;

/// A whole number that may be negative.
fn whole(text: &str, expected: &str) -> Result<i64, String> {
    text.parse().map_err(|_| format!("expected {expected}"))
}

/// A count, or -1 for no limit. llama.cpp has -2 for "until the context is full", which is the same.
pub(super) fn unlimited(text: &str) -> Result<usize, String> {
    const EXPECTED: &str = "a number of at least 0, or -1 for no limit";
    match whole(text, EXPECTED)? {
        -2 | -1 => Ok(usize::MAX),
        n => usize::try_from(n).map_err(|_| format!("expected {EXPECTED}")),
    }
}

/// A count, where 0 and below are off.
pub(super) fn off_below_one(text: &str) -> Result<usize, String> {
    let n = whole(text, "a whole number; 0 or -1 is off")?;
    Ok(usize::try_from(n).unwrap_or(0))
}

/// A count above 0; 0 and -1 stand for the default, which is 0 here.
pub(super) fn or_default(text: &str) -> Result<usize, String> {
    const EXPECTED: &str = "a number above 0; 0 or -1 is the default";
    match whole(text, EXPECTED)? {
        -1 => Ok(0),
        n => usize::try_from(n).map_err(|_| format!("expected {EXPECTED}")),
    }
}

/// Bytes, with a unit or without: `512MiB`, `1.5GB`.
pub(super) fn bytes(text: &str) -> Result<usize, String> {
    const EXPECTED: &str = "a number of bytes, such as 512MiB, 1.5GB or 268435456";
    const UNITS: [(&str, f64); 10] = [
        ("", 1.0),
        ("B", 1.0),
        ("K", 1024.0),
        ("M", 1_048_576.0),
        ("G", 1_073_741_824.0),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("MB", 1e6),
        ("GB", 1e9),
    ];
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor =
        UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit.trim())).map(|(_, factor)| *factor);
    let bytes = factor.zip(number.parse::<f64>().ok()).map(|(factor, number)| factor * number);
    bytes
        .filter(|bytes| (1.0..=1e18).contains(bytes))
        .map(|bytes| bytes as usize)
        .ok_or(format!("expected {EXPECTED}"))
}

/// A number of threads; 0 and -1 are all cores.
pub(super) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    const EXPECTED: &str = "a number of threads; 0 is all cores";
    let n = or_default(text).map_err(|_| format!("expected {EXPECTED}"))?;
    Ok(NonZeroUsize::new(n).unwrap_or_else(cores))
}

/// All cores of this machine.
pub(super) fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// A seed; -1 is a random one.
pub(super) fn seed(text: &str) -> Result<u64, String> {
    match text {
        "-1" => Ok(random_seed()),
        _ => text.parse().map_err(|_| "expected a number of at least 0, or -1 for a random seed".into()),
    }
}

/// A seed short enough to be typed again.
pub(super) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's source of randomness: every `RandomState` has new keys.
    RandomState::new().hash_one(0) >> 32
}

fn float(text: &str, what: &str, ok: impl Fn(f32) -> bool) -> Result<f32, String> {
    text.parse().ok().filter(|x: &f32| x.is_finite() && ok(*x)).ok_or_else(|| format!("expected {what}"))
}

pub(super) fn finite(text: &str) -> Result<f32, String> {
    float(text, "a number", |_| true)
}

/// A token and its bias, `ID=BIAS`.
pub(super) fn bias(text: &str) -> Result<(u32, f32), String> {
    const EXPECTED: &str = "expected ID=BIAS, a token's id and a number or -inf";
    let (id, bias) = text.split_once('=').ok_or(EXPECTED)?;
    let bias = bias.parse().ok().filter(|bias: &f32| *bias < f32::INFINITY).ok_or(EXPECTED)?;
    Ok((id.parse().map_err(|_| EXPECTED)?, bias))
}

pub(super) fn not_negative(text: &str) -> Result<f32, String> {
    float(text, "a number of at least 0", |x| x >= 0.0)
}

pub(super) fn positive(text: &str) -> Result<f32, String> {
    float(text, "a number above 0", |x| x > 0.0)
}

pub(super) fn probability(text: &str) -> Result<f32, String> {
    float(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama_cpps_values_for_off_and_unlimited() {
        assert_eq!(["0", "7", "-1", "-2"].map(|n| unlimited(n).unwrap()), [0, 7, usize::MAX, usize::MAX]);
        assert_eq!(["0", "7", "-1", "-9"].map(|n| off_below_one(n).unwrap()), [0, 7, 0, 0]);
        assert_eq!(["0", "7", "-1"].map(|n| or_default(n).unwrap()), [0, 7, 0]);
        assert_eq!(["0", "7", "-1"].map(|n| threads(n).unwrap()), [cores(), 7.try_into().unwrap(), cores()]);
        assert_eq!(seed("7"), Ok(7));
        assert!(seed("-1").is_ok());
    }

    #[test]
    fn other_values_are_refused_by_what_they_may_be() {
        let refused = |error: String| assert!(error.starts_with("expected a"), "{error}");
        for text in ["", "x", "1.5", "-3", "99999999999999999999"] {
            refused(unlimited(text).unwrap_err());
            refused(or_default(text).unwrap_err());
            refused(threads(text).unwrap_err());
        }
        for text in ["", "x", "1.5"] {
            refused(off_below_one(text).unwrap_err());
            refused(seed(text).unwrap_err());
        }
    }
}
