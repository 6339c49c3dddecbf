//! What pi is for in a few bits.
//!
//! A lane's codes are once around the circle: [`PI_SCALE_5BIT`] times 32 is a whole turn. So a signal in a lane is an
//! angle, and pi is its unit.
//!
//! - [`PiCalibration`] maps signals onto a lane's phases, and says how far a rounded one may be from the original.
//! - [`DriftDetector`] compares what rounding does with what honest rounding would do.
//! - [`AngularEmbedding`] keeps the direction of vectors, and measures angles between them.
//! - [`PiChaos`] makes numbers that look random from the digits of pi: the same ones everywhere, always.
//! - [`PiContext`] is all of these for one lane.

use core::f32::consts::PI;

mod angular;
mod calibration;
mod chaos;
mod digits;
mod drift;
mod spherical;

pub use crate::PrecisionLane;
pub use angular::{AngularEmbedding, Projection};
pub use calibration::PiCalibration;
pub use chaos::PiChaos;
pub use drift::{DriftDetector, Honesty};
pub use spherical::{Spherical, to_spherical};

/// The angle between neighboring codes of 3 bits.
pub const PI_SCALE_3BIT: f32 = PI / 4.0;
/// The angle between neighboring codes of 5 bits.
pub const PI_SCALE_5BIT: f32 = PI / 16.0;
/// The angle between neighboring codes of 7 bits.
pub const PI_SCALE_7BIT: f32 = PI / 64.0;

/// A lane's calibration, angles and checks.
#[derive(Clone, Debug)]
pub struct PiContext {
    calibration: PiCalibration,
    angular: AngularEmbedding,
    chaos: PiChaos,
}

impl PiContext {
    /// For signals from -1 to 1.
    pub fn new(lane: PrecisionLane) -> Self {
        Self {
            calibration: PiCalibration::for_lane(lane),
            angular: AngularEmbedding::new(lane),
            chaos: PiChaos::new(),
        }
    }

    /// The lane.
    pub fn lane(&self) -> PrecisionLane {
        self.calibration.lane()
    }

    /// How signals become phases.
    pub fn calibration(&self) -> &PiCalibration {
        &self.calibration
    }

    /// Directions in the lane.
    pub fn angular(&self) -> &AngularEmbedding {
        &self.angular
    }

    /// Numbers from the digits of pi.
    pub fn chaos(&self) -> &PiChaos {
        &self.chaos
    }

    /// The phase that `value` has in the lane: [`PiCalibration::normalize`], rounded to a code.
    pub fn calibrate(&self, value: f32) -> f32 {
        self.calibration.normalize(self.calibration.round_trip(value))
    }

    /// Whether `quantized` is what honest rounding makes of `original`. A [`DriftDetector`] remembers what it saw; this
    /// looks at these values alone.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn check_honesty(&self, original: &[f32], quantized: &[f32]) -> Honesty {
        DriftDetector::with_calibration(self.calibration).check(original, quantized)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    #[test]
    fn a_context_rounds_and_judges_by_itself() {
        for lane in [PrecisionLane::Bit3, PrecisionLane::Bit5, PrecisionLane::Bit7] {
            let context = PiContext::new(lane);
            assert_eq!((context.lane(), context.calibration().lane()), (lane, lane));
            // The top of the range is one step below pi.
            assert!((context.calibrate(1.0) - (PI - lane.phase_step())).abs() < 1e-6);
            assert_eq!(context.calibrate(0.0), 0.0);
            let original: Vec<f32> = (0..500).map(|i| context.chaos().jitter(i)).collect();
            let rounded: Vec<f32> = original.iter().map(|x| context.calibration().round_trip(*x)).collect();
            assert!(context.check_honesty(&original, &rounded).is_honest, "{lane}");
            let zeros = vec![0.0; original.len()];
            assert!(context.check_honesty(&original, &zeros).should_escalate, "{lane}");
            let angle = context.angular().angular_distance(&original, &rounded);
            assert!(angle < lane.phase_step() / 2.0, "{lane}: {angle}");
        }
    }
}
