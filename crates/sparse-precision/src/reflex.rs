//! A trigger in three bits.

use alloc::vec::Vec;

use libm::{ceil, sqrt};

use crate::pi::PiCalibration;
use crate::{Error, PrecisionLane};

/// Deviations at which a code of three bits saturates: one per code.
const RANGE: f32 = 3.0;
/// What a component adds to the score at most: the square of the highest code.
const MOST: u32 = 9;
/// Deviations of the score above its mean at which the gate fires.
const SURE: f64 = 6.0;

/// Fires when a vector is not like those that it learned: an anomaly trigger on a stream, cheap enough to look at
/// everything.
///
/// Each component becomes a code of Bit3, how many deviations it is away from its mean, and the score is the sum of the
/// squares of the codes: small integers, and a component that is far off counts no more than 9. The gate fires above the
/// mean score of what it learned plus six of its deviations. A single component hardly ever gets there, however far off it
/// is: a gate that could not fire is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct ReflexGate {
    mean: Vec<f32>,
    /// One over the deviation of each component.
    inverse: Vec<f32>,
    limit: u32,
}

/// What a gate says of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reflex {
    /// How unusual the vector is: 0 to 9 times its dimensions, about one per dimension for a usual one.
    pub score: u32,
    /// Whether it is too unusual.
    pub fired: bool,
}

impl ReflexGate {
    /// Learns what is usual from vectors of `dims` values, one after the other; some dozens are enough. Components that
    /// never change are left out.
    ///
    /// # Errors
    /// If there is no vector, the values are no whole number of them, one is NaN or infinite, or so few components change
    /// that no score could be above the limit: of one component of the usual kind, or of none.
    pub fn learn(dims: usize, usual: &[f32]) -> Result<Self, Error> {
        let what = "vectors";
        let n = usual.len().checked_div(dims).unwrap_or(0);
        if n == 0 || n * dims != usual.len() {
            return Err(Error::Length { what, expected: n.max(1) * dims, found: usual.len() });
        }
        if let Some(index) = usual.iter().position(|x| !x.is_finite()) {
            return Err(Error::Value { what, index, value: usual[index] });
        }
        let column = |d: usize| usual.iter().skip(d).step_by(dims).map(|x| f64::from(*x));
        let (mut mean, mut inverse) = (Vec::with_capacity(dims), Vec::with_capacity(dims));
        for d in 0..dims {
            let m = column(d).sum::<f64>() / n as f64;
            let variance = column(d).map(|x| (x - m) * (x - m)).sum::<f64>() / n as f64;
            mean.push(m as f32);
            inverse.push(if variance > 0.0 { (1.0 / sqrt(variance)) as f32 } else { 0.0 });
        }
        let mut gate = Self { mean, inverse, limit: 0 };
        let scores = || usual.chunks_exact(dims).map(|x| f64::from(gate.score(x)));
        let center = scores().sum::<f64>() / n as f64;
        let variance = scores().map(|s| (s - center) * (s - center)).sum::<f64>() / n as f64;
        gate.limit = ceil(center + SURE * sqrt(variance)) as u32;
        let most = MOST * gate.inverse.iter().filter(|x| **x > 0.0).count() as u32;
        match gate.limit < most {
            true => Ok(gate),
            false => Err(Error::Gate { limit: gate.limit, most }),
        }
    }

    /// Judges a vector. NaN and infinity fire.
    ///
    /// # Panics
    /// If it has another number of dimensions than what was learned.
    pub fn check(&self, x: &[f32]) -> Reflex {
        assert_eq!(x.len(), self.mean.len(), "dimensions");
        let score = self.score(x);
        Reflex { score, fired: score > self.limit || x.iter().any(|x| !x.is_finite()) }
    }

    /// The score above which the gate fires.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    fn score(&self, x: &[f32]) -> u32 {
        let codes = PiCalibration::with_range(PrecisionLane::Bit3, RANGE);
        let codes = codes.unwrap_or(PiCalibration::for_lane(PrecisionLane::Bit3));
        let parts = x.iter().zip(&self.mean).zip(&self.inverse);
        parts
            .map(|((x, mean), inverse)| {
                let code = i32::from(codes.code((x - mean) * inverse).unwrap_or(0));
                (code * code) as u32
            })
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::PiChaos;

    const DIMS: usize = 16;

    fn sample(n: usize, shift: f32) -> Vec<f32> {
        let chaos = PiChaos::new();
        let noise = |d| (0..12).map(|k| chaos.jitter((n * DIMS + d) * 12 + k)).sum::<f32>() / 2.0;
        (0..DIMS).map(|d| 10.0 * d as f32 + (1.0 + d as f32) * (noise(d) + shift)).collect()
    }

    #[test]
    fn it_fires_on_what_is_unusual_and_hardly_ever_otherwise() {
        let usual: Vec<f32> = (0..500).flat_map(|n| sample(n, 0.0)).collect();
        let gate = ReflexGate::learn(DIMS, &usual).unwrap();
        let fired = |shift: f32| (500..20_500).filter(|n| gate.check(&sample(*n, shift)).fired).count();
        let (false_alarms, found) = (fired(0.0), fired(2.5));
        assert!(
            false_alarms <= 20 && found >= 19_800,
            "{false_alarms} {found} of 20000, limit {}",
            gate.limit()
        );
        // One component, however far off, is not enough to be sure; three are.
        let mut x: Vec<f32> = (0..DIMS).map(|d| 10.0 * d as f32).collect();
        x[3] = 1e9;
        assert_eq!(gate.check(&x), Reflex { score: 9, fired: false });
    }

    #[test]
    fn what_cannot_be_learned_or_judged() {
        assert!(ReflexGate::learn(4, &[]).is_err() && ReflexGate::learn(0, &[]).is_err());
        assert!(ReflexGate::learn(4, &[1.0; 6]).is_err());
        assert!(ReflexGate::learn(2, &[1.0, f32::NAN]).is_err());
        // Nine is the most that one component can score, and a usual one's limit is above that.
        let usual: Vec<f32> = (0..500).map(|n| sample(n, 0.0)[3]).collect();
        for (dims, usual) in [(1, &usual[..]), (2, &[1.0, 5.0, 1.0, 5.0])] {
            let error = ReflexGate::learn(dims, usual).unwrap_err().to_string();
            assert!(error.starts_with("the gate would never fire: "), "{error}");
        }
        // One that is always a deviation away from its mean is another matter.
        let two_valued = ReflexGate::learn(1, &[1.0, 2.0, 1.0, 2.0]).unwrap();
        assert!(two_valued.check(&[5.0]).fired && !two_valued.check(&[2.0]).fired);
        let constant = ReflexGate::learn(2, &[1.0, 5.0, 1.0, 6.0]).unwrap();
        assert_eq!(constant.check(&[100.0, 5.5]).score, 0);
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(constant.check(&[bad, 5.5]).fired);
        }
    }
}
