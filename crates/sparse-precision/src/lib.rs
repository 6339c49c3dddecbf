#![doc = include_str!("../README.md")]
#![cfg_attr(not(any(feature = "std", test)), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

mod blocks;
mod delta;
mod error;
mod index;
mod lane;
mod matrix;
mod packed;
mod phase;
pub mod pi;
pub mod precision;
mod reflex;
mod weights;

pub use delta::{DeltaScratch, LaneDelta};
pub use error::Error;
pub use index::{LaneIndex, Nearest};
pub use lane::PrecisionLane;
pub use matrix::{LaneInput, LaneMatrix};
pub use phase::Phases;
pub use pi::PiContext;
pub use reflex::{Reflex, ReflexGate};
pub use weights::QuantizedWeights;
