//! Times embedding the lines of standard input, all in one batch, again and again; prints a line of JSON.
//!
//! ```text
//! cargo run --release -p sparse-model --example embed_speed -- MODEL FORMAT THREADS SECONDS < LINES
//! ```

use std::error::Error;
use std::hint::black_box;
use std::io::stdin;
use std::time::{Duration, Instant};

use sparse_model::{Encoder, EncoderOptions};

/// Runs at least.
const LEAST: usize = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, format, threads, seconds] = args.as_slice() else {
        return Err("usage: embed_speed MODEL FORMAT THREADS SECONDS < LINES".into());
    };
    let mut options = EncoderOptions::default();
    options.format = format.parse()?;
    options.threads = threads.parse()?;
    let encoder = Encoder::open(model, &options)?;
    let lines: Vec<String> = stdin().lines().collect::<Result<_, _>>()?;
    let tokens: usize =
        lines.iter().map(|l| Ok(encoder.tokens(l)?.len())).sum::<Result<_, Box<dyn Error>>>()?;
    // Caches and buffers are as they will be.
    black_box(encoder.embed_batch(&lines)?);
    let most = Duration::from_secs_f64(seconds.parse()?);
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < LEAST || start.elapsed() < most {
        let begin = Instant::now();
        black_box(encoder.embed_batch(&lines)?);
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let sentences = lines.len().max(1) as f64;
    let median = 1e3 * times[times.len() / 2] / sentences;
    let result = serde_json::json!({ "ms_per_sentence": median, "tokens": tokens, "runs": times.len() });
    println!("{result}");
    Ok(())
}
