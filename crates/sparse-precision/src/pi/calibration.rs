//! Signals as phases.

use core::f32::consts::PI;

use libm::rintf;

use crate::{Error, PrecisionLane};

/// Maps a signal in `-range..=range` onto the phases of a lane.
///
/// The range's ends become `pi - s` and `-(pi - s)`, where `s` is the lane's
/// [`phase_step`](PrecisionLane::phase_step): pi itself has no code. What is outside saturates. The codes that are used
/// are therefore symmetric, -3 to 3 in Bit3; the lowest one is left to phases that wrap ([`Phases`](crate::Phases)).
///
/// In the range, a value that was rounded is at most half a [`step`](Self::step) from the original.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PiCalibration {
    lane: PrecisionLane,
    range: f32,
}

impl PiCalibration {
    /// For signals from -1 to 1.
    pub const fn for_lane(lane: PrecisionLane) -> Self {
        Self { lane, range: 1.0 }
    }

    /// For signals from `-range` to `range`.
    ///
    /// # Errors
    /// If the range is not a positive, finite number.
    pub fn with_range(lane: PrecisionLane, range: f32) -> Result<Self, Error> {
        match range > 0.0 && range.is_finite() {
            true => Ok(Self { lane, range }),
            false => Err(Error::Value { what: "range", index: 0, value: range }),
        }
    }

    /// The lane.
    pub fn lane(&self) -> PrecisionLane {
        self.lane
    }

    /// The largest signal.
    pub fn range(&self) -> f32 {
        self.range
    }

    /// The difference between the values of neighboring codes: `range / (2^(b-1) - 1)`. For floats their relative
    /// precision at the end of the range.
    pub fn step(&self) -> f32 {
        match self.lane.codes() {
            Some([_, high]) => self.range / f32::from(high),
            None => self.range * f32::EPSILON,
        }
    }

    /// The phase of `value`, from `-(pi - s)` to `pi - s`. NaN stays NaN.
    pub fn normalize(&self, value: f32) -> f32 {
        (value / self.range).clamp(-1.0, 1.0) * self.top()
    }

    /// The value that has this phase.
    pub fn denormalize(&self, phase: f32) -> f32 {
        phase / self.top() * self.range
    }

    /// The code nearest to `value`, or `None` for floats. NaN has the code 0.
    pub fn code(&self, value: f32) -> Option<i8> {
        self.lane.codes()?;
        Some(rintf(self.normalize(value) / self.lane.phase_step()) as i8)
    }

    /// The value that `code` stands for.
    pub fn value(&self, code: i8) -> f32 {
        self.denormalize(f32::from(code) * self.lane.phase_step())
    }

    /// `value` as the lane has it: the value of its code. NaN stays NaN.
    pub fn round_trip(&self, value: f32) -> f32 {
        match self.code(value) {
            Some(code) if !value.is_nan() => self.value(code),
            _ => self.denormalize(self.normalize(value)),
        }
    }

    /// The phase of the largest value.
    fn top(&self) -> f32 {
        PI - self.lane.phase_step()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_round_trip_is_within_half_a_step(share in -1.0f32..=1.0, range in 1e-3f32..1e6) {
            for lane in PrecisionLane::ALL {
                let calibration = PiCalibration::with_range(lane, range).unwrap();
                let value = share * range;
                let error = (calibration.round_trip(value) - value).abs();
                // Beside the rounding to a code there is that of the floats.
                let bound = calibration.step() * 0.5 + range * 4e-7;
                prop_assert!(error <= bound, "{lane} {value}: {error} > {bound}");
            }
        }

        #[test]
        fn what_is_outside_saturates(excess in 1.0f32..1e9, range in 1e-3f32..1e6) {
            for lane in PrecisionLane::ALL {
                let calibration = PiCalibration::with_range(lane, range).unwrap();
                for sign in [1.0, -1.0] {
                    let found = calibration.round_trip(sign * excess * range);
                    prop_assert!((found - sign * range).abs() <= range * 1e-6, "{lane}: {found}");
                }
            }
        }
    }

    #[test]
    fn every_code_is_its_own() {
        for lane in PrecisionLane::ALL {
            let calibration = PiCalibration::for_lane(lane);
            let Some([low, high]) = lane.codes() else { continue };
            for code in low + 1..=high {
                assert_eq!(calibration.code(calibration.value(code)), Some(code), "{lane}");
            }
            assert_eq!(calibration.step() * f32::from(high), 1.0);
        }
    }

    #[test]
    fn what_is_no_number_or_no_range() {
        for lane in PrecisionLane::ALL {
            let calibration = PiCalibration::for_lane(lane);
            assert!(calibration.normalize(f32::NAN).is_nan() && calibration.round_trip(f32::NAN).is_nan());
            assert!((calibration.round_trip(f32::INFINITY) - 1.0).abs() < 1e-6);
            for range in [0.0, -1.0, f32::NAN, f32::INFINITY] {
                assert!(PiCalibration::with_range(lane, range).is_err());
            }
        }
        assert_eq!(PiCalibration::for_lane(PrecisionLane::Float).code(0.5), None);
        assert_eq!(PiCalibration::for_lane(PrecisionLane::Bit3).range(), 1.0);
    }
}
