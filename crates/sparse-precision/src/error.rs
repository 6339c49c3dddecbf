//! What can go wrong.

use alloc::string::String;

use sparse_simd::ShapeError;
use thiserror::Error;

/// Something that cannot be stored or restored.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// Rows that are no whole number of blocks.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A number of values that does not fit the shape.
    #[error("{what}: expected {expected} values, found {found}")]
    Length {
        /// What the values are.
        what: &'static str,
        /// Values expected.
        expected: usize,
        /// Values found.
        found: usize,
    },
    /// A value that is NaN, infinite, or too large for the lane's scale.
    #[error("{what}: value {index} is {value}, which cannot be stored")]
    Value {
        /// What the values are.
        what: &'static str,
        /// Which one.
        index: usize,
        /// The value found.
        value: f32,
    },
    /// A gate that nothing but NaN and infinity would fire.
    #[error(
        "the gate would never fire: its limit is {limit}, and the components that change score {most} at most; \
         learn from vectors of more of them"
    )]
    Gate {
        /// The score above which it would fire.
        limit: u32,
        /// The largest score there can be.
        most: u32,
    },
    /// A name that no lane has.
    #[error("there is no lane \"{name}\", only Bit3, Bit5, Bit7 and Float")]
    Lane {
        /// The name.
        name: String,
    },
}
