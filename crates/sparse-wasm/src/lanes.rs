//! Precision lanes, and numbers from the digits of pi.

use sparse_precision::pi::{AngularEmbedding, PiCalibration, PiChaos};
use sparse_precision::{LaneIndex as Index, PrecisionLane};
use sparse_simd::Kernels;
use wasm_bindgen::prelude::*;

use crate::error::Error;

/// A lane by its name: `bit3`, `bit5`, `bit7` or `float`.
fn lane(name: &str) -> Result<PrecisionLane, Error> {
    match name {
        "bit3" => Ok(PrecisionLane::Bit3),
        "bit5" => Ok(PrecisionLane::Bit5),
        "bit7" => Ok(PrecisionLane::Bit7),
        "float" => Ok(PrecisionLane::Float),
        _ => Err(Error::option(format!("lane: expected bit3, bit5, bit7 or float, found {name}"))),
    }
}

fn calibration(name: &str, range: f32) -> Result<PiCalibration, Error> {
    match lane(name)? {
        PrecisionLane::Float => Err(Error::option("lane: float has no codes")),
        lane => Ok(PiCalibration::with_range(lane, range)?),
    }
}

/// The codes of values from `-range` to `range` in a lane; what is outside saturates.
///
/// # Errors
/// `option` if there is no such lane or range.
#[wasm_bindgen(js_name = laneEncode)]
pub fn lane_encode(lane: &str, values: &[f32], range: f32) -> Result<Vec<i8>, JsValue> {
    let calibration = calibration(lane, range)?;
    Ok(values.iter().map(|v| calibration.code(*v).unwrap_or_default()).collect())
}

/// The values that codes of a lane stand for.
///
/// # Errors
/// As [`lane_encode`].
#[wasm_bindgen(js_name = laneDecode)]
pub fn lane_decode(lane: &str, codes: &[i8], range: f32) -> Result<Vec<f32>, JsValue> {
    let calibration = calibration(lane, range)?;
    Ok(codes.iter().map(|code| calibration.value(*code)).collect())
}

/// The angle between two vectors as a lane sees it, in radians.
///
/// # Errors
/// `option` if there is no such lane, or the vectors are not equally long.
#[wasm_bindgen(js_name = angularDistance)]
pub fn angular_distance(lane: &str, a: &[f32], b: &[f32]) -> Result<f32, JsValue> {
    let angular = AngularEmbedding::new(self::lane(lane)?);
    if a.len() != b.len() {
        let message = format!("vectors: expected two of one length, found {} and {}", a.len(), b.len());
        return Err(Error::option(message).into());
    }
    Ok(angular.angular_distance(a, b))
}

/// A number from -1 to 1 that looks random: the same for the same index, everywhere.
#[wasm_bindgen(js_name = piJitter)]
pub fn pi_jitter(index: u32) -> f32 {
    PiChaos::new().jitter(index as usize)
}

/// The numbers below `n` in the order of a round.
#[wasm_bindgen(js_name = piOrder)]
pub fn pi_order(n: u32, round: u32) -> Vec<u32> {
    PiChaos::new().schedule_order(n as usize, round as usize).into_iter().map(|i| i as u32).collect()
}

/// Vectors in a lane, to be searched.
#[wasm_bindgen]
#[derive(Debug)]
pub struct LaneIndex {
    index: Index,
}

#[wasm_bindgen]
impl LaneIndex {
    /// An index for vectors of `dimensions` values.
    ///
    /// # Errors
    /// `option` if there is no such lane, or no dimension.
    #[wasm_bindgen(constructor)]
    pub fn new(lane: &str, dimensions: u32) -> Result<LaneIndex, JsValue> {
        let index = Index::new(self::lane(lane)?, dimensions as usize).map_err(Error::from)?;
        Ok(Self { index })
    }

    /// Adds a vector.
    ///
    /// # Errors
    /// `option` if it has another length, or a value that is not finite.
    pub fn push(&mut self, vector: &[f32]) -> Result<(), JsValue> {
        Ok(self.index.push(vector).map_err(Error::from)?)
    }

    /// Cosines of all vectors to a query, in the order in which they were added.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn cosines(&self, query: &[f32]) -> Result<Vec<f32>, JsValue> {
        Ok(self.index.cosines(Kernels::get(), query).map_err(Error::from)?)
    }

    /// Bytes of all vectors.
    #[wasm_bindgen(getter)]
    pub fn bytes(&self) -> usize {
        self.index.bytes()
    }

    /// Number of vectors.
    #[wasm_bindgen(getter)]
    pub fn length(&self) -> usize {
        self.index.len()
    }
}
