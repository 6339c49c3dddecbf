//! Computes a text token by token under a memory budget, or with weights in another place, for comparison.
//!
//! ```text
//! cargo run --release -p sparse-model --example budget -- \
//!     MODEL.gguf TEXT TOKENS THREADS whole|map|lru|lfu BYTES [SIDECAR.sparse.gguf]
//! ```
//!
//! The first 16 tokens are a prompt, which is not timed. The tokens are the text's, whatever the model says, so all runs compute
//! the same; `logits` is a hash of the bits of all logits. Without a sidecar the model skips what its file was made for.
//!
//! `whole` has all weights in memory. In the `map` they stay in the plain map of the file, and matrices that are multiplied as
//! a whole are not stored in another way: the system reads weights when they are needed, and drops them when memory gets short.

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sparse_gguf::Gguf;
use sparse_model::internal::into_memory;
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{CacheKind, MemoryBudget, Model, ModelOptions, Placement, RecordFile, Session, Sidecar};

const USAGE: &str = "MODEL.gguf TEXT TOKENS THREADS whole|map|lru|lfu BYTES [SIDECAR.sparse.gguf]";
const PROMPT: usize = 16;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or(USAGE);
    let (path, text) = (next()?, fs::read_to_string(next()?)?);
    let (count, threads) = (next()?.parse::<usize>()?, next()?.parse()?);
    let (kind, bytes) = (next()?, next()?.parse()?);
    let (mut gguf, mut options) = (Gguf::open(&path)?, ModelOptions::new(threads));
    if !matches!(kind.as_str(), "whole" | "map") {
        let cache: CacheKind = kind.parse()?;
        let records = RecordFile::find(Path::new(&path))?.map(Arc::new);
        gguf = into_memory(gguf, records.is_some())?;
        options = options.memory(Some(MemoryBudget { bytes, cache })).records(records);
    }
    let mut model = Model::from_gguf_with(&gguf, &options)?;
    if let Some(sidecar) = args.next() {
        Sidecar::open(sidecar)?.apply(&gguf, &mut model, Placement::AsCalibrated)?;
    }
    drop(gguf);
    if model.has_records() {
        model.fit_memory()?;
    }
    if kind != "map" {
        model.interleave();
    }
    let model = Arc::new(model);
    let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: false };
    let tokens = model.tokenizer().encode(&text, options)?;
    let (prompt, rest) = tokens.get(..PROMPT + count).ok_or("the text is too short")?.split_at(PROMPT);
    let mut session = Session::new(&model, PROMPT + count)?;
    let (mut hash, mut best) = (0xcbf2_9ce4_8422_2325_u64, Vec::new());
    let mut note = |logits: &[f32]| {
        for byte in logits.iter().flat_map(|l| l.to_le_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        best.push((0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])));
    };
    let start = Instant::now();
    note(session.forward(prompt)?);
    let prompt_s = start.elapsed().as_secs_f64();
    let before = model.store_statistics().unwrap_or_default();
    let mut seconds = 0.0;
    for token in rest {
        let start = Instant::now();
        let logits = session.forward(&[*token])?;
        seconds += start.elapsed().as_secs_f64();
        note(logits);
    }
    let store = model.store_statistics().unwrap_or_default();
    let (hits, misses) = (store.hits - before.hits, store.misses - before.misses);
    let best: Vec<usize> = best.into_iter().flatten().collect();
    println!(
        "{{\"tokens_per_s\": {}, \"prompt_s\": {prompt_s}, \"hit_rate\": {}, \"read_bytes\": {}, \"stalled_s\": {}, \
         \"logits\": \"{hash:016x}\", \"tokens\": {best:?}}}",
        count as f64 / seconds,
        hits as f64 / (hits + misses).max(1) as f64,
        store.read_bytes - before.read_bytes,
        (store.stalled - before.stalled).as_secs_f64(),
    );
    Ok(())
}
