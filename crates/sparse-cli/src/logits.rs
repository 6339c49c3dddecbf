//! Writes the logits of a model for given tokens: what comparisons with other implementations start from.
//!
//! ```text
//! cargo run --release -p sparse-cli --features logits --bin logits --
//!     MODEL TOKENS.json OUT.f32 [--ctx 512] [--threads 1] [--one-by-one] [--by-columns] [--exact-zero]
//! ```
//!
//! `TOKENS.json` is an array of token ids. `OUT.f32` gets little-endian f32, one row of vocabulary
//! length per token. Tokens are evaluated in separate windows of `--ctx`; `--one-by-one` computes
//! each token alone, as decoding does, instead of a window as one batch. `--by-columns` sorts the
//! down projections by columns, as they are where neurons are left out; `--exact-zero` does so, and
//! leaves out neurons whose gate is zero.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::sync::Arc;

use sparse_core::Selector;
use sparse_model::{Model, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let mut files = Vec::new();
    let (mut context, mut threads) = (512, 1);
    let (mut one_by_one, mut by_columns, mut exact_zero) = (false, false, false);
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
            "--by-columns" => by_columns = true,
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
    for ffn in model.ffns_mut().filter(|_| by_columns || exact_zero) {
        ffn.sort_by_columns()?;
        ffn.set_selector(if exact_zero { Selector::ExactZero } else { Selector::Dense })?;
    }
    let model = Arc::new(model);
    let context = context.min(model.config().context);
    let mut session = Session::new(&model, context)?;
    let mut out = BufWriter::new(File::create(out)?);
    for window in tokens.chunks(context) {
        session.clear();
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
