//! Generation and embedding side by side for a long time, in one process whose memory has to stay flat.
//!
//! ```text
//! cargo run --release -p sparse-integration --example soak -- MODEL.gguf ENCODER SECONDS
//! ```
//!
//! It prints a line every half minute, in short runs more often. It fails if the memory of the last quarter is more than
//! 2 % above that of the second one: the first fills caches. Linux only.

use std::error::Error;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use sparse_integration::{
    EmbeddingConfig, EngineOptions, GenerateOptions, SparseEmbeddingProvider, SparseInferenceBackend,
};
use sparse_model::{Model, ModelOptions};

/// What texts and embeddings are of: any beginnings, in any order.
const WORDS: [&str; 12] =
    ["once", "a", "small", "dog", "under", "the", "table", "finds", "seven", "keys", "and", "sings"];

/// Numbers that look random, and are the same in every run.
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % n
    }

    fn text(&mut self, most: usize) -> String {
        let words: Vec<_> = (0..=self.below(most)).map(|_| WORDS[self.below(WORDS.len())]).collect();
        words.join(" ")
    }
}

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, encoder, seconds] = args.as_slice() else {
        return Err("usage: soak MODEL.gguf ENCODER SECONDS".into());
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let model = Arc::new(Model::open_with(model, &ModelOptions::new(threads))?);
    let mut options = EngineOptions::default();
    // Soon full: memory that a cache takes is none that is lost.
    options.prefix_bytes = 8 << 20;
    let backend = SparseInferenceBackend::with_model("model", model, options)?;
    let provider = SparseEmbeddingProvider::new(EmbeddingConfig::new(encoder))?;
    let (end, start) = (Duration::from_secs(seconds.parse()?), Instant::now());
    let (tokens, embeddings, stop) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let mut sizes = Vec::new();
    thread::scope(|scope| {
        let generation = scope.spawn(|| {
            let mut numbers = Numbers(1);
            while !stop.load(Relaxed) {
                let prompt = backend.encode(&numbers.text(80))?;
                let options = GenerateOptions::new(1 + numbers.below(120));
                tokens.fetch_add(backend.generate(&prompt, &options)?.tokens.len(), Relaxed);
            }
            Ok::<_, sparse_integration::Error>(())
        });
        let embedding = scope.spawn(|| {
            let mut numbers = Numbers(2);
            while !stop.load(Relaxed) {
                let texts: Vec<String> = (0..=numbers.below(24)).map(|_| numbers.text(100)).collect();
                let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
                embeddings.fetch_add(provider.embed_batch(&texts)?.len(), Relaxed);
            }
            Ok::<_, sparse_integration::Error>(())
        });
        println!("seconds  tokens  embeddings  resident MiB");
        let step = (end / 60).min(Duration::from_secs(30));
        let mut measured = Ok(());
        while start.elapsed() < end && !generation.is_finished() && !embedding.is_finished() {
            thread::sleep(step);
            let (tokens, embeddings) = (tokens.load(Relaxed), embeddings.load(Relaxed));
            match resident() {
                Ok(size) => {
                    println!("{:7} {tokens:7} {embeddings:11} {size:13.1}", start.elapsed().as_secs());
                    sizes.push(size);
                }
                Err(e) => {
                    measured = Err(e);
                    break;
                }
            }
        }
        stop.store(true, Relaxed);
        generation.join().expect("no panic")?;
        embedding.join().expect("no panic")?;
        measured
    })?;
    let quarter = sizes.len() / 4;
    if quarter == 0 {
        return Err("too short: fewer than four sizes were measured".into());
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (early, late) = (mean(&sizes[quarter..2 * quarter]), mean(&sizes[sizes.len() - quarter..]));
    println!("second quarter {early:.1} MiB, last quarter {late:.1} MiB");
    match late <= early * 1.02 {
        true => Ok(()),
        false => Err("memory has grown".into()),
    }
}

/// MiB of this process in memory.
fn resident() -> Result<f64, Box<dyn Error + Send + Sync>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes / 1024.0)
}
