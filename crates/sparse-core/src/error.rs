//! What can be wrong with weights and inputs.

use alloc::vec;

use sparse_simd::ShapeError;
use thiserror::Error;

/// An FFN that cannot be put together, or an input that does not suit it.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A matrix that its bytes do not fill.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// Parts that do not fit together.
    #[error("{what}: expected {expected}, found {found}")]
    Length {
        /// Which length, of which part.
        what: &'static str,
        /// The length that fits the other parts.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// A list of neurons that does not have each of them once.
    #[error("order of {neurons} neurons: place {place} has neuron {found}, which is {problem}")]
    Order {
        /// Neurons of the layer.
        neurons: usize,
        /// The first place that is wrong.
        place: usize,
        /// The neuron there.
        found: u32,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A selector for FFNs of another kind.
    #[error("{selector} needs {needs}")]
    Selector {
        /// Name of the selector.
        selector: &'static str,
        /// What the FFN lacks.
        needs: &'static str,
    },
    /// A number outside its range.
    #[error("{what} is {value}, expected {expected}")]
    Value {
        /// Which number.
        what: &'static str,
        /// What it is.
        value: f32,
        /// What it may be.
        expected: &'static str,
    },
}

/// Fails unless `found` is `expected`.
pub(crate) fn same_len(what: &'static str, expected: usize, found: usize) -> Result<(), Error> {
    if expected == found { Ok(()) } else { Err(Error::Length { what, expected, found }) }
}

/// Fails unless `value` is a share of something that there is some of.
#[cfg(feature = "std")]
pub(crate) fn share(what: &'static str, value: f32) -> Result<(), Error> {
    if value > 0.0 && value <= 1.0 {
        return Ok(());
    }
    Err(Error::Value { what, value, expected: "above 0 and at most 1" })
}

/// Fails unless all values are finite.
pub(crate) fn finite(what: &'static str, values: &[f32]) -> Result<(), Error> {
    match values.iter().find(|v| !v.is_finite()) {
        None => Ok(()),
        Some(&value) => Err(Error::Value { what, value, expected: "a finite number" }),
    }
}

/// Fails unless `order` has every number below `n` once.
///
/// # Errors
/// If it has another length, a number twice, or one that is not below `n`.
pub fn check_order(n: usize, order: &[u32]) -> Result<(), Error> {
    same_len("order of the neurons", n, order.len())?;
    let mut seen = vec![false; n];
    for (place, &found) in order.iter().enumerate() {
        let problem = match seen.get_mut(found as usize) {
            Some(seen) if !*seen => {
                *seen = true;
                continue;
            }
            Some(_) => "there twice",
            None => "not one of them",
        };
        return Err(Error::Order { neurons: n, place, found, problem });
    }
    Ok(())
}
