//! Decodes under a memory budget, or with weights that stay in the plain map of the file, for comparison.
//!
//! ```text
//! cargo run --release -p sparse-model --example budget -- MODEL.gguf TOKENS THREADS map|lru|lfu BYTES [SIDECAR.sparse.gguf]
//! ```
//!
//! Without a sidecar the model skips what its file was made for. In the map, matrices that are multiplied as a whole are not
//! stored in another way: the system reads all weights when they are needed, and drops them when memory gets short.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sparse_gguf::Gguf;
use sparse_model::internal::ffn_weight;
use sparse_model::{CacheKind, MemoryBudget, Model, ModelOptions, Placement, RecordFile, Session, Sidecar};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("MODEL.gguf TOKENS THREADS map|lru|lfu BYTES [SIDECAR.sparse.gguf]");
    let (path, tokens, threads) = (next()?, next()?.parse::<usize>()?, next()?.parse()?);
    let (kind, bytes) = (next()?, next()?.parse()?);
    let (mut gguf, mut options) = (Gguf::open(&path)?, ModelOptions::new(threads));
    if kind != "map" {
        let cache: CacheKind = kind.parse()?;
        let records = RecordFile::find(Path::new(&path))?.ok_or("run `sparse convert` first")?;
        options = options.memory(Some(MemoryBudget { bytes, cache })).records(Some(Arc::new(records)));
        gguf = gguf.into_memory(|tensor| ffn_weight(&tensor.name).is_some())?;
    }
    let mut model = Model::from_gguf_with(&gguf, &options)?;
    if let Some(sidecar) = args.next() {
        Sidecar::open(sidecar)?.apply(&gguf, &mut model, Placement::AsCalibrated)?;
    }
    drop(gguf);
    if model.has_records() {
        model.fit_memory()?;
        model.interleave();
    }
    let model = Arc::new(model);
    let mut session = Session::new(&model, tokens + 1)?;
    let highest = |logits: &[f32]| (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
    let (mut token, mut text) = (model.tokenizer().bos().unwrap_or(1), Vec::new());
    let start = Instant::now();
    for _ in 0..tokens {
        token = highest(session.forward(&[token])?).unwrap_or(0) as u32;
        text.push(token);
    }
    let rate = tokens as f64 / start.elapsed().as_secs_f64();
    let store = model.store_statistics().unwrap_or_default();
    let (hits, read) = (store.hit_rate(), store.read_bytes);
    println!(
        "{{\"tokens_per_s\": {rate}, \"hit_rate\": {hits}, \"read_bytes\": {read}, \"tokens\": {text:?}}}"
    );
    Ok(())
}
