//! Directions in a few bits.

use alloc::vec::Vec;
use core::f32::consts::{FRAC_PI_2, PI};

use libm::{asinf, atan2, sqrt};

use crate::PrecisionLane;
use crate::packed::Packed;

/// Scales that are tried for a vector, from the one with which everything fits to one that cuts off a third.
const SCALES: usize = 12;

/// Keeps the directions of vectors in a lane.
///
/// A vector is turned by at most `asin(c / 2h)` when it is projected, where `h` is the lane's highest code (3, 15 or 63)
/// and `c` the vector's [`crest`](Self::crest), its largest component over its RMS. The angle between two projections is
/// therefore off by at most twice that, [`bound`](Self::bound); for embeddings, whose errors do not conspire, by far less.
/// Largest error in 500 pairs of random directions, at angles of 0.4 to 1.6, which a test checks (radians, and their RMS):
///
/// | lane | d = 384 | d = 768 |
/// |---|---|---|
/// | Bit3 | 0.2 (0.05) | 0.2 (0.05) |
/// | Bit5 | 0.02 (0.006) | 0.02 (0.005) |
/// | Bit7 | 0.004 (0.0012) | 0.004 (0.0009) |
///
/// Errors of Bit3 are mostly to one side: rounding turns vectors apart, and by the more the smaller their angle is. Their
/// order changes far less.
///
/// Angles are computed from integers, so they are the same on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AngularEmbedding {
    lane: PrecisionLane,
}

/// The direction of a vector: codes and one scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    directions: Directions,
    /// What codes are multiplied with to have a vector of length one.
    scale: f32,
}

#[derive(Clone, Debug, PartialEq)]
enum Directions {
    Codes(Packed),
    Floats(Vec<f32>),
}

impl AngularEmbedding {
    /// Directions in `lane`.
    pub const fn new(lane: PrecisionLane) -> Self {
        Self { lane }
    }

    /// The lane.
    pub const fn lane(&self) -> PrecisionLane {
        self.lane
    }

    /// The direction of `vector`. Of the scales that are tried the one that turns the vector least is kept. Zeros have
    /// no direction: they are at a right angle to everything, other zeros included, so that the cosine is 0. NaN and
    /// infinity make every angle NaN.
    pub fn project(&self, vector: &[f32]) -> Projection {
        let largest = vector.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
        if vector.iter().any(|x| !x.is_finite()) {
            return Projection { directions: Directions::Floats(Vec::from(vector)), scale: f32::NAN };
        }
        let Some([_, high]) = self.lane.codes() else {
            // Divided by the largest first, so that squares neither overflow nor vanish.
            let shrunk: Vec<f32> =
                vector.iter().map(|x| if largest > 0.0 { x / largest } else { 0.0 }).collect();
            let scale = inverse_length(shrunk.iter().map(|x| f64::from(*x)));
            return Projection { directions: Directions::Floats(shrunk), scale };
        };
        let code = |x: f32, fitting: f32| nearest(x / largest * fitting, f32::from(high));
        let cosine = |fitting: f32| {
            let (mut xq, mut qq) = (0.0, 0.0);
            for x in vector {
                let q = code(*x, fitting);
                xq += f64::from(x / largest * q);
                qq += f64::from(q * q);
            }
            if qq > 0.0 { xq / sqrt(qq) } else { 0.0 }
        };
        let mut best = (0.0, 0.0);
        if largest > 0.0 {
            for i in 0..SCALES {
                let fitting = f32::from(high) * (1.0 + 0.5 * i as f32 / (SCALES - 1) as f32);
                let found = cosine(fitting);
                best = if found > best.0 { (found, fitting) } else { best };
            }
        }
        let codes = vector.iter().map(|x| if largest > 0.0 { code(*x, best.1) as i8 } else { 0 });
        let codes = Packed::new(self.lane.bits(), codes);
        let scale = inverse_length(codes.iter().map(f64::from));
        Projection { directions: Directions::Codes(codes), scale }
    }

    /// The angle between two vectors as the lane sees it, in radians from 0 to pi: that of their projections.
    ///
    /// # Panics
    /// If the vectors are not equally long.
    pub fn angular_distance(&self, a: &[f32], b: &[f32]) -> f32 {
        self.project(a).angle(&self.project(b))
    }

    /// By how much an angle between projections may be off, in radians, for vectors of this
    /// [`crest`](Self::crest) or less; pi if the lane promises nothing. 0 for floats.
    pub fn bound(&self, crest: f32) -> f32 {
        match self.lane.codes() {
            None => 0.0,
            Some([_, high]) => {
                let sine = crest / (2.0 * f32::from(high));
                if sine < 1.0 { (2.0 * asinf(sine)).min(PI) } else { PI }
            }
        }
    }

    /// The largest component of a vector over the RMS of all: 1 if all are equally large, about 3.5 for embeddings with a
    /// few hundred dimensions, 0 for zeros.
    pub fn crest(vector: &[f32]) -> f32 {
        let largest = vector.iter().fold(0.0, |a: f32, x| a.max(x.abs()));
        let squares: f64 = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        if squares == 0.0 { 0.0 } else { (f64::from(largest) / sqrt(squares / vector.len() as f64)) as f32 }
    }
}

impl Projection {
    /// The angle to another projection, in radians from 0 to pi.
    ///
    /// # Panics
    /// If they are not equally long.
    pub fn angle(&self, other: &Projection) -> f32 {
        assert_eq!(self.len(), other.len(), "vectors of one length");
        if !(self.scale.is_finite() && other.scale.is_finite()) {
            return f32::NAN;
        }
        let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
        for i in 0..self.len() {
            let (a, b) = (self.component(i), other.component(i));
            ab += a * b;
            aa += a * a;
            bb += b * b;
        }
        if aa == 0.0 || bb == 0.0 {
            return FRAC_PI_2;
        }
        // Of codes all three are integers, exact up to thousands of millions of dimensions; the arc tangent is good for
        // small angles, where an arc cosine is not.
        atan2(sqrt((aa * bb - ab * ab).max(0.0)), ab) as f32
    }

    /// Number of dimensions.
    pub fn len(&self) -> usize {
        match &self.directions {
            Directions::Codes(codes) => codes.len(),
            Directions::Floats(x) => x.len(),
        }
    }

    /// Whether there are no dimensions.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes in memory, the scale included.
    pub fn bytes(&self) -> usize {
        size_of::<f32>()
            + match &self.directions {
                Directions::Codes(codes) => codes.bytes(),
                Directions::Floats(x) => size_of_val(x.as_slice()),
            }
    }

    /// The vector of length one that this stands for; zeros for zeros.
    pub fn decode(&self) -> Vec<f32> {
        (0..self.len()).map(|i| self.component(i) as f32 * self.scale).collect()
    }

    fn component(&self, i: usize) -> f64 {
        match &self.directions {
            Directions::Codes(codes) => f64::from(codes.get(i)),
            Directions::Floats(x) => f64::from(x[i]),
        }
    }
}

/// The nearest integer, ties to even, from `-high` to `high`.
fn nearest(x: f32, high: f32) -> f32 {
    /// Adding and subtracting this rounds, below 2^22.
    const ROUND: f32 = 12_582_912.0;
    x.clamp(-high, high) + ROUND - ROUND
}

/// One over the length of a vector; 0 for zeros.
fn inverse_length(x: impl Iterator<Item = f64>) -> f32 {
    let squares: f64 = x.map(|x| x * x).sum();
    if squares == 0.0 { 0.0 } else { (1.0 / sqrt(squares)) as f32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::PiChaos;
    use PrecisionLane::{Bit3, Bit5, Bit7, Float};

    /// A direction that is as likely as any other: sums of twelve uniform numbers are nearly normal.
    fn direction(d: usize, n: usize) -> Vec<f32> {
        let chaos = PiChaos::new();
        (0..d).map(|i| (0..12).map(|k| chaos.jitter(((n * d) + i) * 12 + k)).sum()).collect()
    }

    fn angle(a: &[f32], b: &[f32]) -> f64 {
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let (ab, aa, bb) = (dot(a, b), dot(a, a), dot(b, b));
        (aa * bb - ab * ab).max(0.0).sqrt().atan2(ab)
    }

    /// Largest error, and its RMS, allowed at 384 and at 768 dimensions: the table above.
    const ALLOWED: [(PrecisionLane, [(f64, f64); 2]); 4] = [
        (Bit3, [(0.2, 0.05), (0.2, 0.05)]),
        (Bit5, [(0.02, 0.006), (0.02, 0.005)]),
        (Bit7, [(0.004, 0.0012), (0.004, 0.0009)]),
        (Float, [(1e-6, 1e-6), (1e-6, 1e-6)]),
    ];

    #[test]
    fn angles_are_within_the_bounds() {
        let mut failures = Vec::new();
        for (lane, allowed) in ALLOWED {
            let angular = AngularEmbedding::new(lane);
            for (d, (most, rms)) in [384, 768].into_iter().zip(allowed) {
                let (mut squares, mut largest, pairs) = (0.0, 0.0f64, 500);
                let mut before = direction(d, 0);
                for n in 1..=pairs {
                    // Pairs at all angles: the second is a part of the first and a part of its own.
                    let own = direction(d, n);
                    let share = n as f32 / pairs as f32;
                    let after: Vec<f32> =
                        before.iter().zip(&own).map(|(a, b)| a * (1.0 - share) + b * share).collect();
                    let exact = angle(&before, &after);
                    let found = f64::from(angular.angular_distance(&before, &after));
                    let crest = AngularEmbedding::crest(&before).max(AngularEmbedding::crest(&after));
                    let error = (found - exact).abs();
                    assert!(error <= f64::from(angular.bound(crest)) + 1e-6, "{lane} {d} {n}: {error}");
                    // What is small in all dimensions at once is for the bound alone.
                    if share > 0.3 {
                        largest = largest.max(error);
                        squares += error * error / (0.7 * pairs as f64);
                    }
                    before = own;
                }
                let found = (largest, squares.sqrt());
                if found.0 > most || found.1 > rms {
                    failures.push((lane, d, found));
                }
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn projections_have_length_one_and_no_gaps() {
        let x = direction(384, 1);
        for (lane, bytes) in [(Bit3, 144 + 4), (Bit5, 240 + 4), (Bit7, 336 + 4), (Float, 1536 + 4)] {
            let projection = AngularEmbedding::new(lane).project(&x);
            assert_eq!((projection.len(), projection.bytes(), projection.is_empty()), (384, bytes, false));
            let unit = projection.decode();
            let length: f32 = unit.iter().map(|x| x * x).sum();
            assert!((length - 1.0).abs() < 1e-5, "{lane}: {length}");
            // A code is found again, whatever the vector's length.
            let scaled: Vec<f32> = x.iter().map(|x| x * 1e-20).collect();
            assert!(AngularEmbedding::new(lane).project(&scaled).angle(&projection) < 1e-6);
        }
    }

    #[test]
    fn what_has_no_direction() {
        for lane in PrecisionLane::ALL {
            let angular = AngularEmbedding::new(lane);
            assert_eq!(angular.lane(), lane);
            for other in [[1.0; 8], [-1.0; 8], [0.0; 8]] {
                assert_eq!(angular.angular_distance(&[0.0; 8], &other), FRAC_PI_2, "{lane}");
                assert_eq!(angular.angular_distance(&other, &[-0.0; 8]), FRAC_PI_2, "{lane}");
            }
            assert!(angular.angular_distance(&[f32::NAN; 8], &[1.0; 8]).is_nan());
            assert!((angular.angular_distance(&[1.0, 0.5], &[-1.0, -0.5]) - PI).abs() < 1e-6);
        }
        assert_eq!(AngularEmbedding::new(Bit3).bound(7.0), PI);
        assert_eq!(AngularEmbedding::crest(&[0.0; 4]), 0.0);
    }
}
