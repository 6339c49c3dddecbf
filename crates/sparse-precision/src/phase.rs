//! Angles in a lane.

use alloc::vec::Vec;
use core::f64::consts::TAU;

use libm::{remainder, rintf};

use crate::packed::Packed;
use crate::{Error, PrecisionLane};

/// Angles: rotary positions, headings, times of day. They wrap as angles do, so they have no scale and nothing
/// saturates.
///
/// An angle is at most half a [`phase_step`](PrecisionLane::phase_step) away from what was encoded, and the 1e-6 radians of
/// the floats that it is computed in. That holds for angles of up to a thousand million radians, either way; of larger ones
/// the whole turns are not known exactly.
///
/// ```
/// use sparse_precision::{Phases, PrecisionLane};
///
/// // A quarter past midnight and a quarter to it are half an hour apart, in 7 bits too.
/// let hours = [0.25, 23.75];
/// let angles = hours.map(|h: f32| h / 24.0 * std::f32::consts::TAU);
/// let phases = Phases::encode(PrecisionLane::Bit7, &angles)?;
/// let apart = phases.difference(0, 1) / std::f32::consts::TAU * 24.0;
/// assert!((apart - 0.5).abs() <= 24.0 / 128.0, "{apart}");
/// # Ok::<(), sparse_precision::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Phases {
    lane: PrecisionLane,
    angles: Angles,
}

#[derive(Clone, Debug, PartialEq)]
enum Angles {
    Codes(Packed),
    Floats(Vec<f32>),
}

impl Phases {
    /// Rounds angles in radians.
    ///
    /// # Errors
    /// If one is NaN or infinite.
    pub fn encode(lane: PrecisionLane, radians: &[f32]) -> Result<Self, Error> {
        if let Some(index) = radians.iter().position(|x| !x.is_finite()) {
            return Err(Error::Value { what: "angles", index, value: radians[index] });
        }
        let angles = match lane {
            PrecisionLane::Float => Angles::Floats(radians.iter().map(|x| wrap(*x)).collect()),
            // Half a turn rounds to a code that is one too high, and becomes the lowest one.
            _ => Angles::Codes(Packed::new(
                lane.bits(),
                radians.iter().map(|x| rintf(wrap(*x) / lane.phase_step()) as i16 as i8),
            )),
        };
        Ok(Self { lane, angles })
    }

    /// The same angles in another lane.
    pub fn to_lane(&self, lane: PrecisionLane) -> Self {
        let radians: Vec<f32> = (0..self.len()).map(|i| self.get(i)).collect();
        Self::encode(lane, &radians).expect("angles of a lane are finite")
    }

    /// The lane.
    pub fn lane(&self) -> PrecisionLane {
        self.lane
    }

    /// Number of angles.
    pub fn len(&self) -> usize {
        match &self.angles {
            Angles::Codes(codes) => codes.len(),
            Angles::Floats(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match &self.angles {
            Angles::Codes(codes) => codes.bytes(),
            Angles::Floats(x) => size_of_val(x.as_slice()),
        }
    }

    /// Angle `i`, from -pi to pi.
    ///
    /// # Panics
    /// If `i` is out of range.
    pub fn get(&self, i: usize) -> f32 {
        match &self.angles {
            Angles::Codes(codes) => f32::from(codes.get(i)) * self.lane.phase_step(),
            Angles::Floats(x) => x[i],
        }
    }

    /// How far it is from angle `b` to angle `a` the short way around, from -pi to pi: `a - b`.
    ///
    /// # Panics
    /// If one is out of range.
    pub fn difference(&self, a: usize, b: usize) -> f32 {
        wrap(self.get(a) - self.get(b))
    }
}

/// The same angle, from -pi to pi. In f64, since each turn would add the error of an f32's 2 pi.
fn wrap(x: f32) -> f32 {
    remainder(f64::from(x), TAU) as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use PrecisionLane::{Bit3, Bit5, Bit7, Float};
    use core::f32::consts::PI;

    #[test]
    fn angles_come_back_within_half_a_step_and_wrap() {
        for lane in PrecisionLane::ALL {
            let radians: Vec<f32> = (-4000..4000).map(|i| i as f32 * 0.01).collect();
            let phases = Phases::encode(lane, &radians).unwrap();
            for (i, x) in radians.iter().enumerate() {
                let error = wrap(phases.get(i) - x).abs();
                assert!(error <= lane.phase_step() / 2.0 + 1e-5, "{lane} {x}: {error}");
            }
        }
        let half = Phases::encode(Bit3, &[PI, -PI, PI - 0.01]).unwrap();
        assert!((0..3).all(|i| half.get(i) == -PI));
    }

    #[test]
    fn many_turns_do_not_matter() {
        for lane in PrecisionLane::ALL {
            let radians = [1e4, -1.3e5, 7.7e6, -1.1e8, 1e9];
            let phases = Phases::encode(lane, &radians).unwrap();
            for (i, x) in radians.into_iter().enumerate() {
                let (sine, cosine) = f64::from(x).sin_cos();
                let (s, c) = f64::from(phases.get(i)).sin_cos();
                // Of the angle between the two directions.
                let error = (s * cosine - c * sine).atan2(c * cosine + s * sine).abs();
                assert!(error <= f64::from(lane.phase_step()) / 2.0 + 1e-6, "{lane} {x}: {error}");
            }
        }
    }

    #[test]
    fn differences_have_the_sign_of_the_first_less_the_second() {
        let phases = Phases::encode(Bit5, &[0.5, 0.1, -3.0]).unwrap();
        assert!(phases.difference(0, 1) > 0.0 && phases.difference(1, 0) < 0.0);
        // The short way leads across half a turn.
        assert!(phases.difference(0, 2) < -PI / 2.0);
    }

    #[test]
    fn wider_lanes_keep_narrower_ones_exactly() {
        let radians: Vec<f32> = (0..64).map(|i| i as f32 * 0.7).collect();
        let narrow = Phases::encode(Bit5, &radians).unwrap();
        let wide = narrow.to_lane(Bit7);
        assert_eq!((narrow.bytes(), wide.bytes(), wide.to_lane(Float).bytes()), (40, 56, 256));
        assert!((0..64).all(|i| (narrow.get(i) - wide.get(i)).abs() < 1e-6));
        assert_eq!(wide.to_lane(Bit5), narrow);
        assert_eq!((wide.lane(), wide.is_empty()), (Bit7, false));
    }

    #[test]
    fn what_is_no_angle_is_refused() {
        let error = Phases::encode(Bit7, &[0.0, f32::NAN]).unwrap_err();
        assert_eq!(error.to_string(), "angles: value 1 is NaN, which cannot be stored");
    }
}
