//! Quantised block layouts and the kernels that read them.
//!
//! - [`layout`]: the ggml block formats as `#[repr(C)]` structs, with scalar decoding. That decoding is the
//!   specification of every kernel here.
//! - [`Q8`]: activations quantised to int8 in blocks of 32, what the integer kernels multiply weights with.
//! - [`Kernels`]: one table of functions per CPU [`Level`]; [`Kernels::get`] picks the best level once.
//!
//! No allocation, no threads, no I/O: every function takes slices.
#![cfg_attr(not(feature = "std"), no_std)]

mod kernels;
pub mod layout;
mod level;
mod matmut;
mod q8;
mod rows;
mod scalar;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod x86;

pub use kernels::Kernels;
pub use layout::{BlockFormat, ShapeError};
pub use level::{Level, LevelError};
pub use matmut::MatMut;
pub use q8::{Q8, Q8Mut};
pub use rows::Rows;

#[cfg(all(test, feature = "std"))]
mod tests;
