//! Finds out how sparse a language model is, and makes it so where that pays.
//!
//! [`calibrate`] watches the feed-forward layers at work on a text, tries the selectors that suit them, measures what each
//! costs in accuracy on text that it was not fitted to, and takes the fastest that stays inside a loss budget. If none is
//! faster than computing everything, it says so.
//!
//! - `samples.rs`: what layers are given, and what their neurons make of it.
//! - `loss.rs`: perplexity against the dense model, paired token by token.
//! - `gate.rs`, `low_rank.rs`: two families of selectors, each with one knob from dense to sparse.
//! - `mixed.rs`: a choice for each layer, out of what these offer.
//! - `search.rs`: turns the knob as far as the budget allows.
//! - `encoder.rs`: the same for sentence encoders, whose loss is the cosine to the dense embedding.
//! - `head.rs`: a [screen](sparse_core::Screen) for the output head.
//! - [`calibrate_lanes`]: which neurons are stored in how many bits.
//! - [`profile`]: how local activations are in the first place.
//! - `speed.rs`: seconds per token, estimated from measured curves, and decoding itself.

mod calibrate;
mod encoder;
mod error;
mod gate;
mod head;
mod lanes;
mod loss;
mod low_rank;
mod mixed;
mod profile;
mod progress;
mod report;
mod samples;
mod search;
mod speed;
mod text;
mod windows;

pub use calibrate::{Options, calibrate};
pub use encoder::{
    EncoderCalibration, EncoderCandidate, EncoderChosen, SentenceOptions, TimeShare, calibrate_encoder,
};
pub use error::Error;
pub use head::{Continuations, HeadCalibration, HeadReport, Work, measure_screen};
pub use lanes::{ChosenLanes, LaneCalibration, LaneCandidate, NoLanes, calibrate_lanes};
pub use loss::Loss;
pub use profile::{LayerProfile, SHARES, profile};
pub use progress::{Progress, Silent};
pub use report::{Calibration, Candidate, Chosen, LayerReport};
pub use speed::{Speed, store_by_rows};
pub use text::{drawn_evenly, sampled};
