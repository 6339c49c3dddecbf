//! Times kernels and models on one thread, natively and in Node. docs/targets.md has the commands.
//!
//! ```text
//! speed [ENCODER.gguf]
//! ```

#[path = "../../sparse-simd/examples/one_call/kernel.rs"]
mod kernel;

use std::fmt::Write;
use std::hint::black_box;
use std::sync::Arc;

use sparse_gguf::Gguf;
use sparse_model::{Encoder, EncoderOptions, Model, Session};
use sparse_simd::{Kernels, Level};
use wasm_bindgen::prelude::*;
use web_time::Instant;

/// The model in the program `sparse`.
static STORY: &[u8] = include_bytes!("../../sparse-cli/story/story.gguf");

#[cfg(not(target_family = "wasm"))]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let encoder = std::env::args().nth(1).map(std::fs::read).transpose()?;
    print!("{}", report(encoder)?);
    Ok(())
}

/// JavaScript calls [`speed`].
#[cfg(target_family = "wasm")]
fn main() {}

/// The report, with an encoder if its GGUF file is given.
///
/// # Errors
/// An `Error` of JavaScript if the file holds no encoder.
#[wasm_bindgen]
pub fn speed(encoder: Option<Vec<u8>>) -> Result<String, JsError> {
    report(encoder).map_err(|e| JsError::new(&e.to_string()))
}

fn report(encoder: Option<Vec<u8>>) -> Result<String, Box<dyn std::error::Error>> {
    let mut out = String::new();
    let levels: Vec<&Kernels> = Level::available().filter_map(Kernels::at).collect();
    for name in kernel::NAMES {
        for tokens in [1, 4] {
            let calls = levels.iter().map(|kernels| kernel::call(kernels, name, tokens));
            let Some(calls) = calls.collect::<Option<Vec<_>>>() else { continue };
            write!(out, "{name}, {tokens} tokens:")?;
            let times: Vec<f64> = calls.into_iter().map(seconds).collect();
            for (kernels, time) in levels.iter().zip(&times) {
                write!(out, " {} {:.2} us ({:.2}x)", kernels.level(), 1e6 * time, times[0] / time)?;
            }
            writeln!(out)?;
        }
    }
    let level = Kernels::get().level();
    writeln!(out, "story model: {:.1} tokens/s at {level}", 1.0 / story()?)?;
    if let Some(bytes) = encoder {
        let encoder = Encoder::from_gguf(&Gguf::from_bytes(bytes)?, &EncoderOptions::default())?;
        let time = seconds(|| drop(black_box(encoder.embed(SENTENCE))));
        writeln!(out, "encoder: {:.1} sentences/s at {level}", 1.0 / time)?;
    }
    Ok(out)
}

const SENTENCE: &str =
    "The quick brown fox jumps over the lazy dog while the rain falls on the old stone bridge.";

/// Seconds of one call: the fastest of many rounds, so that other programs do not count.
fn seconds(mut f: impl FnMut()) -> f64 {
    let round = |calls: u32, f: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..calls).for_each(|_| f());
        start.elapsed().as_secs_f64() / f64::from(calls)
    };
    let calls = (5e-3 / round(3, &mut f).max(1e-9)).ceil() as u32;
    (0..20).map(|_| round(calls, &mut f)).fold(f64::INFINITY, f64::min)
}

/// Seconds of a token of the story model.
fn story() -> Result<f64, Box<dyn std::error::Error>> {
    const TOKENS: usize = 128;
    let model = Arc::new(Model::from_gguf(&Gguf::from_shared(Arc::new(STORY))?, 1)?);
    let mut best = f64::INFINITY;
    for _ in 0..5 {
        let mut session = Session::new(&model, TOKENS)?;
        let start = Instant::now();
        for token in 0..TOKENS as u32 {
            black_box(session.forward(&[100 + token])?);
        }
        best = best.min(start.elapsed().as_secs_f64() / TOKENS as f64);
    }
    Ok(best)
}
