//! Writes the logits of a model for given tokens: what comparisons with other implementations start from.
//!
//! ```text
//! cargo run --release -p sparse-model --example logits -- MODEL TOKENS.json OUT.f32 [--ctx 512] [--threads 1] [--one-by-one] [--exact-zero]
//! ```
//!
//! `TOKENS.json` is an array of token ids; `OUT.f32` gets little-endian f32, one row of vocabulary length per
//! token. Tokens are evaluated in separate windows of `--ctx`; `--one-by-one` computes each token alone, as
//! decoding does, instead of a window as one batch; `--exact-zero` leaves out neurons whose gate is zero.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::{Model, Session, sidecar};

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    let (mut context, mut threads, mut one_by_one, mut exact_zero) = (512, 1, false, false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut number = || {
            args.next()
                .ok_or(format!("{arg} needs a number"))?
                .parse::<usize>()
                .map_err(Box::<dyn Error>::from)
        };
        match arg.as_str() {
            "--ctx" => context = number()?,
            "--threads" => threads = number()?,
            "--one-by-one" => one_by_one = true,
            "--exact-zero" => exact_zero = true,
            _ => files.push(arg),
        }
    }
    let [model, tokens, out] = files.as_slice() else {
        return Err(
            "usage: logits MODEL TOKENS.json OUT.f32 [--ctx N] [--threads N] [--one-by-one] [--exact-zero]"
                .into(),
        );
    };
    let tokens: Vec<u32> = serde_json::from_reader(File::open(tokens)?)?;
    let mut model = Model::open(model, threads)?;
    if exact_zero {
        for ffn in model.ffns_mut() {
            ffn.set_selector(Selector::ExactZero)?;
        }
        sidecar::prepare(&mut model, None)?;
    }
    let model = Arc::new(model);
    let context = context.min(model.config().context);
    let mut session = Session::new(&model, context)?;
    let mut out = BufWriter::new(File::create(out)?);
    for window in tokens.chunks(context) {
        session.truncate(0);
        let mut written = Ok(());
        let mut write = |_: usize, logits: &[f32]| {
            if written.is_ok() {
                written = logits.iter().try_for_each(|l| out.write_all(&l.to_le_bytes()));
            }
        };
        if one_by_one {
            for token in window {
                session.forward_each(&[*token], &mut write)?;
            }
        } else {
            session.forward_each(window, &mut write)?;
        }
        written?;
    }
    out.flush()?;
    Ok(())
}
