#![doc = include_str!("../README.md")]
//! ## Where things are
//!
//! From the bottom up:
//!
//! - `options.rs`, `progress.rs`, `text.rs`, `windows.rs`: what to do, for how long, and on which
//!   text.
//! - `samples.rs`: what layers are given, and what their neurons make of it.
//! - `loss.rs`, `held_out.rs`: the divergence from the dense model, token by token, and text that
//!   nothing is fitted to.
//! - `family.rs`, `gate.rs`, `low_rank.rs`: families of selectors, each with one knob from dense to
//!   sparse.
//! - `speed.rs`: seconds per token, estimated from measured curves, and decoding itself.
//! - `search.rs`, `trials.rs`: turn the knob as far as the budget allows, and say why what is
//!   hopeless is not tried.
//! - `mixed.rs`: a choice for each layer, out of what the families offer.
//! - `ffn.rs`, `head.rs`: the feed-forward layers, and a [screen](sparse_core::Screen) for the
//!   output head.
//! - `encoder.rs`: the same for sentence encoders, whose loss is the cosine to the dense embedding.

mod calibrate;
mod encoder;
mod error;
mod family;
mod ffn;
mod gate;
mod head;
mod held_out;
mod lanes;
mod loss;
mod low_rank;
mod mixed;
mod options;
mod profile;
mod progress;
mod report;
mod samples;
mod search;
mod speed;
mod text;
mod trials;
mod windows;

pub use calibrate::calibrate;
pub use encoder::{
    EncoderCalibration, EncoderCandidate, EncoderChosen, SentenceOptions, TimeShare, calibrate_encoder,
};
pub use error::Error;
pub use head::{Continuations, HeadCalibration, HeadReport, Work, measure_screen};
pub use lanes::{ChosenLanes, LaneCalibration, LaneCandidate, NoLanes, calibrate_lanes};
pub use loss::Loss;
pub use options::Options;
pub use profile::{LayerProfile, SHARES, profile};
pub use progress::{Progress, Silent};
pub use report::{Calibration, Chosen, LayerReport};
pub use speed::Speed;
pub use text::{Text, drawn_evenly, sampled};
pub use trials::Candidate;
