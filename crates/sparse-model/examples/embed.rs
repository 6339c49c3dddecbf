//! Prints the embedding of each line of standard input as a line of JSON.
//!
//! ```text
//! cargo run --release -p sparse-model --example embed -- MODEL [--format int8] [--ffn bit5] [--threads 1] [--max-tokens 256] [--sparse SIDECAR] [--ids] < LINES
//! ```
//!
//! `MODEL` is a sentence-transformers folder or a GGUF file. `--ffn` is another format for the feed-forward layers. With `--sparse`,
//! neurons are left out even where that is slower. With `--ids` the tokens' ids are printed instead.

use std::error::Error;
use std::io::{BufWriter, Write};

use sparse_model::{Encoder, EncoderOptions, EncoderSparsity};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut options, mut models, mut ids) = (EncoderOptions::default(), Vec::new(), false);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} needs a value"));
        match arg.as_str() {
            "--format" => options.format = value()?.parse()?,
            "--ffn" => options.feed_forward = Some(value()?.parse()?),
            "--threads" => options.threads = value()?.parse()?,
            "--max-tokens" => options.max_tokens = Some(value()?.parse()?),
            "--sparse" => options.sparsity = EncoderSparsity::Always(value()?.into()),
            "--ids" => ids = true,
            _ => models.push(arg),
        }
    }
    let [model] = models.as_slice() else {
        return Err(
            "usage: embed MODEL [--format int8|f32|NAME] [--ffn NAME] [--threads N] [--max-tokens N] [--sparse SIDECAR] [--ids] < LINES"
                .into(),
        );
    };
    let encoder = Encoder::open(model, &options)?;
    let lines: Vec<String> = std::io::stdin().lines().collect::<Result<_, _>>()?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    if ids {
        for line in &lines {
            writeln!(out, "{}", serde_json::to_string(&encoder.tokens(line)?)?)?;
        }
    } else {
        for embedding in encoder.embed_stream(&lines) {
            writeln!(out, "{}", serde_json::to_string(&embedding?)?)?;
        }
    }
    out.flush()?;
    Ok(())
}
