#![doc = include_str!("../README.md")]
#![deny(unsafe_code)]

#[cfg(feature = "calibrate")]
pub use sparse_calibrate as calibrate;
#[doc(inline)]
pub use sparse_core::*;
pub use sparse_gguf as gguf;
pub use sparse_integration as integration;
pub use sparse_model as model;
pub use sparse_simd as simd;
