//! Search among vectors that are stored in a lane.

use alloc::vec;
use alloc::vec::Vec;

use libm::sqrt;
use sparse_simd::Kernels;

use crate::blocks::BLOCK;
use crate::{Error, LaneInput, LaneMatrix, PrecisionLane};

/// Vectors of one length, kept in a lane and compared with a query by the angle between them: with all of them, so what is
/// found is exact but for two roundings.
///
/// One is the lane's, of the vectors. The other is that of the query to int8, in all lanes but [`PrecisionLane::Float`]: a
/// cosine is off by at most 1/250 of the query's [crest](crate::pi::AngularEmbedding::crest) from that to the vector as it is
/// stored. With the 3.5 of usual embeddings this is 0.014; errors that do not conspire stay below a twentieth of it.
///
/// The vectors are rows of a [`LaneMatrix`]: the kernels that multiply weights compare embeddings, and a scale per 32 values
/// makes the rounding finer than the one scale per vector of [`AngularEmbedding`](crate::pi::AngularEmbedding), for half a
/// bit per value. A vector of `d` values takes `d / 32` blocks, the last one filled with zeros, and four bytes for its length.
///
/// ```
/// use sparse_precision::{LaneIndex, PrecisionLane};
/// use sparse_simd::Kernels;
///
/// let mut index = LaneIndex::new(PrecisionLane::Bit5, 3)?;
/// index.push(&[1.0, 2.0, -3.0])?;
/// index.push(&[-1.0, 0.5, 0.0])?;
/// let nearest = index.nearest(Kernels::get(), &[-2.0, 0.9, 0.1], 1)?;
/// assert_eq!(nearest[0].index, 1);
/// # Ok::<(), sparse_precision::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LaneIndex {
    dimensions: usize,
    /// A vector per row, of RMS one before it is rounded, so that scales are in the middle of what half precision can hold.
    vectors: LaneMatrix,
    /// One over the length of each row as it is stored; 0 for zeros.
    inverse: Vec<f32>,
}

/// A vector that was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nearest {
    /// How many vectors were pushed before it.
    pub index: usize,
    /// The cosine of the angle to the query, -1 to 1.
    pub cosine: f32,
}

impl LaneIndex {
    /// An index without vectors, for some of `dimensions` values each.
    ///
    /// # Errors
    /// If `dimensions` is zero.
    pub fn new(lane: PrecisionLane, dimensions: usize) -> Result<Self, Error> {
        let cols = match lane {
            PrecisionLane::Float => dimensions,
            _ => dimensions.next_multiple_of(BLOCK),
        };
        Ok(Self { dimensions, vectors: LaneMatrix::new(lane, cols, &[])?, inverse: Vec::new() })
    }

    /// Adds a vector; only its direction counts.
    ///
    /// # Errors
    /// If it has another length than the index's vectors, or a value is NaN or infinite.
    pub fn push(&mut self, vector: &[f32]) -> Result<(), Error> {
        let row = self.row("a vector of an index", vector)?;
        self.vectors.push(&row)?;
        let mut stored = row;
        self.vectors.decode_row(self.inverse.len(), &mut stored);
        let length = length(&stored);
        self.inverse.push(if length > 0.0 { (1.0 / length) as f32 } else { 0.0 });
        Ok(())
    }

    /// The cosine of the angle between the query and each vector, in the order in which they were pushed; 0 where one of the
    /// two is all zeros.
    ///
    /// # Errors
    /// As [`push`](Self::push), for the query.
    pub fn cosines(&self, kernels: &Kernels, query: &[f32]) -> Result<Vec<f32>, Error> {
        let row = self.row("a query", query)?;
        let length = length(&row);
        let inverse = if length > 0.0 { (1.0 / length) as f32 } else { 0.0 };
        let mut x = LaneInput::new(row.len());
        x.set(kernels, &row);
        let mut cosines = vec![0.0; self.len()];
        self.vectors.matvec(kernels, &x, &mut cosines);
        for (cosine, of_vector) in cosines.iter_mut().zip(&self.inverse) {
            *cosine = (*cosine * inverse * of_vector).clamp(-1.0, 1.0);
        }
        Ok(cosines)
    }

    /// The `k` vectors nearest to the query, or as many as there are, the nearest first; of equals the one pushed first.
    ///
    /// # Errors
    /// As [`cosines`](Self::cosines).
    pub fn nearest(&self, kernels: &Kernels, query: &[f32], k: usize) -> Result<Vec<Nearest>, Error> {
        let cosines = self.cosines(kernels, query)?.into_iter().enumerate();
        let mut nearest: Vec<Nearest> = cosines.map(|(index, cosine)| Nearest { index, cosine }).collect();
        nearest.sort_by(|a, b| b.cosine.total_cmp(&a.cosine));
        nearest.truncate(k);
        Ok(nearest)
    }

    /// The lane.
    pub fn lane(&self) -> PrecisionLane {
        self.vectors.lane()
    }

    /// Values of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.inverse.len()
    }

    /// Whether there are no vectors.
    pub fn is_empty(&self) -> bool {
        self.inverse.is_empty()
    }

    /// Bytes of all vectors, with scales and lengths.
    pub fn bytes(&self) -> usize {
        self.vectors.bytes().len() + size_of_val(self.inverse.as_slice())
    }

    /// `vector` with RMS one, filled up to whole blocks. `what` is for errors.
    fn row(&self, what: &'static str, vector: &[f32]) -> Result<Vec<f32>, Error> {
        if vector.len() != self.dimensions {
            return Err(Error::Length { what, expected: self.dimensions, found: vector.len() });
        }
        if let Some(index) = vector.iter().position(|x| !x.is_finite()) {
            return Err(Error::Value { what, index, value: vector[index] });
        }
        let length = length(vector);
        let factor = if length > 0.0 { sqrt(self.dimensions as f64) / length } else { 0.0 };
        let mut row = vec![0.0; self.vectors.cols()];
        for (scaled, x) in row.iter_mut().zip(vector) {
            *scaled = (f64::from(*x) * factor) as f32;
        }
        Ok(row)
    }
}

fn length(x: &[f32]) -> f64 {
    sqrt(x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pi::{AngularEmbedding, PiChaos};
    use PrecisionLane::{Bit3, Bit5, Bit7, Float};

    fn vector(d: usize, n: usize) -> Vec<f32> {
        let chaos = PiChaos::new();
        (0..d).map(|i| chaos.jitter(n * d + i) + 0.3 * chaos.jitter(i % 7)).collect()
    }

    fn cosine(a: &[f32], b: &[f32]) -> f64 {
        let dot: f64 = a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        dot / (length(a) * length(b))
    }

    fn filled(lane: PrecisionLane, vectors: &[Vec<f32>]) -> LaneIndex {
        let mut index = LaneIndex::new(lane, vectors[0].len()).unwrap();
        vectors.iter().for_each(|v| index.push(v).unwrap());
        index
    }

    #[test]
    fn cosines_are_near_the_true_ones_in_every_lane_and_at_every_length() {
        let mut failures = Vec::new();
        for (lane, allowed) in [(Bit3, 0.1), (Bit5, 0.02), (Bit7, 0.008), (Float, 1e-6)] {
            for d in [1, 7, 32, 33, 384, 768] {
                let vectors: Vec<Vec<f32>> = (0..20).map(|n| vector(d, n)).collect();
                let index = filled(lane, &vectors);
                let found = index.cosines(Kernels::get(), &vectors[3]).unwrap();
                let errors = found.iter().zip(&vectors).map(|(c, v)| f64::from(*c) - cosine(&vectors[3], v));
                let worst = errors.fold(0.0, |a: f64, e| a.max(e.abs()));
                // Few values have no room for errors to cancel.
                let allowed = if d < 32 { 4.0 * allowed } else { allowed };
                if worst > allowed {
                    failures.push(format!("{lane}, d = {d}: {worst}"));
                }
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn a_query_is_rounded_no_further_than_stated() {
        let mut failures = Vec::new();
        for lane in PrecisionLane::ALL {
            for d in [1, 7, 32, 33, 384, 768] {
                let index = filled(lane, &(0..20).map(|n| vector(d, n)).collect::<Vec<_>>());
                for query in (20..40).map(|n| vector(d, n)) {
                    let found = index.cosines(Kernels::get(), &query).unwrap();
                    let bound = match lane {
                        Float => 1e-6,
                        _ => f64::from(AngularEmbedding::crest(&query)) / 250.0,
                    };
                    let mut squares = 0.0;
                    for (i, c) in found.iter().enumerate() {
                        let mut stored = vec![0.0; index.vectors.cols()];
                        index.vectors.decode_row(i, &mut stored);
                        let error = (f64::from(*c) - cosine(&query, &stored[..d])).abs();
                        squares += error * error / found.len() as f64;
                        if error > bound {
                            failures.push(format!("{lane}, d = {d}: {error}, bound {bound}"));
                        }
                    }
                    // Of many dimensions, errors cancel each other.
                    if d >= 384 && sqrt(squares) > (bound / 20.0).max(1e-7) {
                        failures.push(format!("{lane}, d = {d}: RMS {}, bound {bound}", sqrt(squares)));
                    }
                }
            }
        }
        assert!(failures.is_empty(), "{failures:#?}");
    }

    #[test]
    fn the_nearest_come_first_and_equals_in_order() {
        let vectors: Vec<Vec<f32>> = [4, 1, 4, 2].map(|n| vector(384, n)).into();
        for lane in PrecisionLane::ALL {
            let index = filled(lane, &vectors);
            let nearest = index.nearest(Kernels::get(), &vector(384, 4), 3).unwrap();
            assert_eq!(nearest.iter().map(|n| n.index).take(2).collect::<Vec<_>>(), [0, 2], "{lane}");
            assert!(nearest[1].cosine > 0.97 && nearest[2].cosine < 0.9 && nearest.len() == 3, "{nearest:?}");
            assert_eq!(index.nearest(Kernels::get(), &vectors[0], 9).unwrap().len(), 4);
        }
    }

    #[test]
    fn only_directions_count() {
        let v = vector(40, 1);
        let scaled = |by: f32| v.iter().map(|x| x * by).collect::<Vec<_>>();
        for lane in PrecisionLane::ALL {
            let one = filled(lane, std::slice::from_ref(&v)).cosines(Kernels::get(), &v).unwrap()[0];
            for by in [1e-30, 1e30] {
                let other =
                    filled(lane, &[scaled(by)]).cosines(Kernels::get(), &scaled(1.0 / by)).unwrap()[0];
                assert!((one - other).abs() < 1e-4, "{lane} {by}: {one} {other}");
            }
            let index = filled(lane, &[vec![0.0; 40], v.clone()]);
            assert_eq!(index.cosines(Kernels::get(), &v).unwrap()[0], 0.0);
            assert_eq!(index.cosines(Kernels::get(), &[0.0; 40]).unwrap(), [0.0; 2]);
        }
    }

    #[test]
    fn bytes_are_blocks_and_a_length_per_vector() {
        for (lane, bytes) in [(Bit3, 172), (Bit5, 268), (Bit7, 364), (Float, 1540)] {
            let index = filled(lane, &[vector(384, 0), vector(384, 1)]);
            assert_eq!((index.bytes(), index.len(), index.dimensions()), (2 * bytes, 2, 384), "{lane}");
        }
    }

    #[test]
    fn what_cannot_be_stored_or_asked_for_is_named() {
        assert!(LaneIndex::new(Bit5, 0).is_err() && LaneIndex::new(Float, 0).is_err());
        let mut index = LaneIndex::new(Bit7, 3).unwrap();
        assert!(index.nearest(Kernels::get(), &[1.0; 3], 5).unwrap().is_empty());
        let error = index.push(&[1.0; 4]).unwrap_err().to_string();
        assert!(error.contains("expected 3") && error.contains("found 4"), "{error}");
        let error = index.push(&[1.0, f32::NAN, 0.0]).unwrap_err().to_string();
        assert!(error.contains("value 1 is NaN"), "{error}");
        let error = index.cosines(Kernels::get(), &[f32::INFINITY, 0.0, 0.0]).unwrap_err().to_string();
        assert!(error.contains("a query") && index.is_empty(), "{error}");
    }
}
