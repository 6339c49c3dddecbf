//! The lanes.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;

use sparse_simd::BlockFormat;

use crate::Error;
use crate::pi::{PI_SCALE_3BIT, PI_SCALE_5BIT, PI_SCALE_7BIT};

/// How many bits a number gets.
///
/// A lane of `b` bits has the integers `-2^(b-1)..2^(b-1)` as its codes. Read as phases, code `q` is the angle
/// `q * pi / 2^(b-1)`: the codes are once around the circle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrecisionLane {
    /// 3 bits, -4 to 3: reflexes, gates, triggers.
    Bit3,
    /// 5 bits, -16 to 15: streams of embeddings, drift.
    Bit5,
    /// 7 bits, -64 to 63: embeddings to be searched, small corrections to weights.
    Bit7,
    /// 32-bit floats: calibration, training.
    Float,
}

impl PrecisionLane {
    /// Every lane, from the narrowest to the widest.
    pub const ALL: [PrecisionLane; 4] = [Self::Bit3, Self::Bit5, Self::Bit7, Self::Float];

    /// Bits per code, without scales.
    pub const fn bits(self) -> u32 {
        match self {
            Self::Bit3 => 3,
            Self::Bit5 => 5,
            Self::Bit7 => 7,
            Self::Float => 32,
        }
    }

    /// The lowest and the highest code, or `None` for floats, which have none.
    pub const fn codes(self) -> Option<[i8; 2]> {
        match self {
            Self::Bit3 => Some([-4, 3]),
            Self::Bit5 => Some([-16, 15]),
            Self::Bit7 => Some([-64, 63]),
            Self::Float => None,
        }
    }

    /// The angle between neighboring codes, `pi / 2^(b-1)`; 0 for floats.
    pub const fn phase_step(self) -> f32 {
        match self {
            Self::Bit3 => PI_SCALE_3BIT,
            Self::Bit5 => PI_SCALE_5BIT,
            Self::Bit7 => PI_SCALE_7BIT,
            Self::Float => 0.0,
        }
    }

    /// How weights in this lane are stored: blocks of 32 with a half-precision scale. Bit5 is the Q5_0 of GGUF.
    pub const fn format(self) -> BlockFormat {
        match self {
            Self::Bit3 => BlockFormat::Bit3,
            Self::Bit5 => BlockFormat::Q5_0,
            Self::Bit7 => BlockFormat::Bit7,
            Self::Float => BlockFormat::F32,
        }
    }

    /// Bits per weight as stored, scales included: 3.5, 5.5, 7.5 and 32.
    pub const fn stored_bits(self) -> f32 {
        let format = self.format();
        (8 * format.block_bytes()) as f32 / format.block_len() as f32
    }

    /// The next lane up, or `None` for [`Float`](Self::Float).
    pub const fn wider(self) -> Option<Self> {
        match self {
            Self::Bit3 => Some(Self::Bit5),
            Self::Bit5 => Some(Self::Bit7),
            Self::Bit7 => Some(Self::Float),
            Self::Float => None,
        }
    }

    /// The next lane down, or `None` for [`Bit3`](Self::Bit3).
    pub const fn narrower(self) -> Option<Self> {
        match self {
            Self::Bit3 => None,
            Self::Bit5 => Some(Self::Bit3),
            Self::Bit7 => Some(Self::Bit5),
            Self::Float => Some(Self::Bit7),
        }
    }
}

impl fmt::Display for PrecisionLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Bit3 => "Bit3",
            Self::Bit5 => "Bit5",
            Self::Bit7 => "Bit7",
            Self::Float => "Float",
        })
    }
}

impl FromStr for PrecisionLane {
    type Err = Error;

    /// A lane by its name, in any case.
    fn from_str(name: &str) -> Result<Self, Error> {
        let lanes =
            [("Bit3", Self::Bit3), ("Bit5", Self::Bit5), ("Bit7", Self::Bit7), ("Float", Self::Float)];
        let found = lanes.into_iter().find(|(own, _)| name.eq_ignore_ascii_case(own));
        found.map(|(_, lane)| lane).ok_or_else(|| Error::Lane { name: String::from(name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::f32::consts::PI;

    #[test]
    fn ranges_steps_and_costs() {
        for lane in PrecisionLane::ALL {
            let Some([low, high]) = lane.codes() else { continue };
            let half = 1 << (lane.bits() - 1);
            assert_eq!((i32::from(low), i32::from(high)), (-half, half - 1), "{lane}");
            // Once around the circle.
            let turn = lane.phase_step() * (2 * half) as f32;
            assert!((turn - 2.0 * PI).abs() < 1e-6, "{lane}: {turn}");
            assert_eq!(lane.format().code_range(), lane.codes());
            assert_eq!(lane.stored_bits(), lane.bits() as f32 + 0.5);
        }
        assert_eq!(PrecisionLane::Float.stored_bits(), 32.0);
    }

    #[test]
    fn names_are_read_back() {
        for lane in PrecisionLane::ALL {
            let name = lane.to_string();
            assert_eq!((name.parse(), name.to_lowercase().parse()), (Ok(lane), Ok(lane)));
        }
        let error = "bit4".parse::<PrecisionLane>().unwrap_err().to_string();
        assert!(error.contains("bit4") && error.contains("Bit5"), "{error}");
    }

    #[test]
    fn lanes_are_a_chain() {
        for pair in PrecisionLane::ALL.windows(2) {
            assert_eq!((pair[0].wider(), pair[1].narrower()), (Some(pair[1]), Some(pair[0])));
        }
        assert_eq!((PrecisionLane::Bit3.narrower(), PrecisionLane::Float.wider()), (None, None));
    }
}
