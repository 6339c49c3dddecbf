//! Quantized block layouts and the kernels that read them.
//!
//! - [`layout`]: the ggml block formats as `#[repr(C)]` structs, with scalar decoding. That decoding is the
//!   specification of every kernel here.
//! - [`Q8`]: activations quantized to int8 in blocks of 32, what the integer kernels multiply weights with.
//! - [`Rows`] and [`MatMut`]: the borrowed weights of a product, and the window that it is written to.
//! - [`Columns`]: the same weights sorted by columns ([`ColumnLayout`]), for products that leave columns out.
//! - [`Tiles`]: rows in two and four bits, for scanning all of a large matrix ([`TileLayout`]).
//! - [`Panels`]: rows packed once, in f32 or int8, for products with several tokens ([`PanelLayout`]); [`Int8`]:
//!   activations with one scale per token, for those in int8.
//! - [`Kernels`]: one table of functions per CPU [`Level`]; [`Kernels::get`] picks the best level once, or the one
//!   that the environment variable `SPARSE_SIMD` names.
//!
//! No allocation, no threads, no I/O: every function takes slices.
#![cfg_attr(not(feature = "std"), no_std)]
// Vector instructions: their loads and stores, and the calls behind CPU detection.
#![allow(unsafe_code)]

mod activation;
mod columns;
#[cfg(any(
    all(target_arch = "x86_64", feature = "std"),
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod generic;
mod hadamard;
mod int8;
mod interleaved;
mod kernels;
pub mod layout;
mod level;
mod matmut;
#[cfg(target_arch = "aarch64")]
mod neon;
mod panels;
mod q8;
mod rows;
mod scalar;
#[cfg(any(
    all(target_arch = "x86_64", feature = "std"),
    target_arch = "aarch64",
    all(target_arch = "wasm32", target_feature = "simd128")
))]
mod simd;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod simd128;
mod table;
mod tiles;
#[cfg(all(target_arch = "x86_64", feature = "std"))]
mod x86;

pub use activation::Activation;
pub use columns::{ColumnLayout, Columns};
pub use int8::{Int8, Int8Mut};
pub use interleaved::{Interleaved, InterleavedLayout};
pub use kernels::Kernels;
pub use layout::{BlockFormat, ShapeError};
pub use level::{Level, LevelError};
pub use matmut::MatMut;
pub use panels::{Line, PanelKind, PanelLayout, Panels};
pub use q8::{Q8, Q8Mut};
pub use rows::Rows;
pub use tiles::{TileLayout, TileRow, Tiles};
// For the tests of this crate. A feature would make builds with and without tests compile all kernels twice.
#[cfg(all(target_arch = "x86_64", feature = "std", debug_assertions))]
#[doc(hidden)]
pub use x86::avxvnni_by_avx512;

/// The examples of the README are tests.
#[cfg(all(doctest, feature = "std"))]
#[doc = include_str!("../README.md")]
struct Readme;
