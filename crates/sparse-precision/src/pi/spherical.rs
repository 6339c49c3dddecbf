//! Hyperspherical coordinates.

use alloc::vec;
use alloc::vec::Vec;

use libm::{atan2, cos, hypot, sin};

/// A vector of `n` dimensions as a radius and `n - 1` angles: the first `n - 2` from 0 to pi, the last from -pi to pi.
///
/// Component `i` is `r sin(a_0) .. sin(a_(i-1)) cos(a_i)`; the last one ends with a sine. The transform is exact but for
/// rounding: there and back is within `1e-5` of the radius. It is no way to store embeddings in a few bits, since the
/// errors of all angles before a component add up in it: at 384 dimensions angles in Bit7 turn a vector by some 0.2
/// radians, [`AngularEmbedding`](super::AngularEmbedding) by 0.02.
#[derive(Clone, Debug, PartialEq)]
pub struct Spherical {
    /// Length of the vector.
    pub radius: f32,
    /// Angles in radians, one fewer than dimensions.
    pub angles: Vec<f32>,
}

/// The coordinates of `vector`. Angles that do not matter, because all components from there on are zero, are 0. A single
/// component has no angle: its sign is that of the radius.
pub fn to_spherical(vector: &[f32]) -> Spherical {
    let mut angles = vec![0.0; vector.len().saturating_sub(1)];
    // The length of what is behind each component, from the last one on.
    let mut tail = vector.last().map_or(0.0, |x| f64::from(*x));
    for (i, angle) in angles.iter_mut().enumerate().rev() {
        let x = f64::from(vector[i]);
        *angle = atan2(tail, x) as f32;
        tail = hypot(tail, x);
    }
    Spherical { radius: tail as f32, angles }
}

impl Spherical {
    /// The vector.
    pub fn to_cartesian(&self) -> Vec<f32> {
        let mut rest = f64::from(self.radius);
        let mut vector = Vec::with_capacity(self.angles.len() + 1);
        for angle in &self.angles {
            let angle = f64::from(*angle);
            vector.push((rest * cos(angle)) as f32);
            rest *= sin(angle);
        }
        vector.push(rest as f32);
        vector
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::{AngularEmbedding, PiChaos};
    use crate::{Phases, PrecisionLane};
    use proptest::prelude::*;

    fn error(vector: &[f32], back: &[f32]) -> (f64, f64) {
        let length = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
        let differences = &mut vector.iter().zip(back).map(|(a, b)| f64::from(*a) - f64::from(*b));
        (length(differences), length(&mut vector.iter().map(|x| f64::from(*x))))
    }

    proptest! {
        #[test]
        fn there_and_back(vector in proptest::collection::vec(-1e3f32..1e3, 1..800), sparse in 1usize..9) {
            // Components of zero make angles of which nothing depends.
            let vector: Vec<f32> =
                vector.iter().enumerate().map(|(i, x)| if i % sparse == 0 { *x } else { 0.0 }).collect();
            let back = to_spherical(&vector).to_cartesian();
            prop_assert_eq!(back.len(), vector.len());
            let (error, length) = error(&vector, &back);
            prop_assert!(error <= 1e-5 * length, "{} of {}", error, length);
        }
    }

    #[test]
    fn angles_are_in_their_ranges() {
        let chaos = PiChaos::new();
        let vector: Vec<f32> = (0..384).map(|i| chaos.jitter(i)).collect();
        let Spherical { radius, angles } = to_spherical(&vector);
        assert!(radius > 0.0 && angles.len() == 383);
        assert!(angles[..382].iter().all(|a| (0.0..=core::f32::consts::PI).contains(a)));
        assert_eq!(to_spherical(&[]).angles, []);
        assert_eq!(to_spherical(&[-2.0]).to_cartesian(), [-2.0]);
    }

    /// Why distances are not taken from angles in a lane.
    #[test]
    fn errors_of_angles_add_up() {
        let chaos = PiChaos::new();
        let vector: Vec<f32> = (0..384).map(|i| chaos.jitter(i)).collect();
        let Spherical { radius, angles } = to_spherical(&vector);
        let phases = Phases::encode(PrecisionLane::Bit7, &angles).unwrap();
        let angles = (0..phases.len()).map(|i| phases.get(i)).collect();
        let back = Spherical { radius, angles }.to_cartesian();
        let by_angles = AngularEmbedding::new(PrecisionLane::Float).angular_distance(&vector, &back);
        let unit = AngularEmbedding::new(PrecisionLane::Bit7).project(&vector).decode();
        let by_components = AngularEmbedding::new(PrecisionLane::Float).angular_distance(&vector, &unit);
        assert!(by_angles > 0.1 && by_components < 0.03, "{by_angles} {by_components}");
    }
}
