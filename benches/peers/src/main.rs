//! Other engines on the same work, for `cargo xtask bench --peers` and `tools/reference/embedding_speed.py`; prints JSON.
//!
//!     sparse-peers candle MODEL PROMPT TOKENS DEPTH     one round; RAYON_NUM_THREADS says on how many threads
//!     sparse-peers embed FOLDER BATCH TOKENS SECONDS    candle's BERT in f32, ids to embeddings; threads as above
//!     sparse-peers kernels                              f32 kernels of ruvector-sparse-inference beside ours
//!     sparse-peers ffn                                  the sparse FFN of ruvector-sparse-inference

use std::fs::{self, File};
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::quantized::gguf_file;
use candle_core::{D, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert;
use candle_transformers::models::quantized_llama::ModelWeights;
use ruvector_sparse_inference::backend::{Backend, cpu::CpuBackend};
use ruvector_sparse_inference::config::ActivationType;
use ruvector_sparse_inference::sparse::SparseFfn;
use serde_json::{Value, json};
use sparse_simd::{Activation, Kernels};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["candle", model, prompt, tokens, depth] => {
            candle(model, prompt.parse()?, tokens.parse()?, depth.parse()?)?
        }
        ["embed", folder, batch, tokens, seconds] => {
            embed(folder, batch.parse()?, tokens.parse()?, seconds.parse()?)?
        }
        ["kernels"] => kernels(),
        ["ffn"] => ffn()?,
        _ => bail!("expected: candle MODEL PROMPT TOKENS DEPTH, embed FOLDER BATCH TOKENS SECONDS, kernels, or ffn"),
    };
    println!("{result}");
    Ok(())
}

fn candle(path: &str, prompt: usize, tokens: usize, depth: usize) -> Result<Value> {
    let start = Instant::now();
    let mut file = File::open(path).with_context(|| path.to_owned())?;
    let content = gguf_file::Content::read(&mut file)?;
    let mut model = ModelWeights::from_gguf(content, &mut file, &Device::Cpu)?;
    let load = start.elapsed();

    // A context that starts at position 0 starts anew.
    let ids: Vec<u32> = (0..prompt.max(depth) as u32).map(|i| i * 7919 % 32_000).collect();
    let best = |logits: Tensor| -> Result<u32> { Ok(logits.squeeze(0)?.argmax(D::Minus1)?.to_scalar()?) };
    let mut step = |ids: &[u32], position| -> Result<u32> {
        best(model.forward(&Tensor::new(ids, &Device::Cpu)?.unsqueeze(0)?, position)?)
    };
    let start = Instant::now();
    step(&ids[..prompt], 0)?;
    let prefill = start.elapsed();
    let mut token = step(&ids[..depth], 0)?;
    let start = Instant::now();
    for i in 0..tokens {
        token = step(&[token], depth + i)?;
    }
    let decode = start.elapsed();
    Ok(json!({
        "load_ms": load.as_secs_f64() * 1e3,
        "prefill_tokens_per_s": prompt as f64 / prefill.as_secs_f64(),
        "decode_tokens_per_s": tokens as f64 / decode.as_secs_f64(),
    }))
}

/// Median milliseconds per sentence of candle's BERT, from ids that are all as many to normalized means.
fn embed(folder: &str, batch: usize, tokens: usize, seconds: f64) -> Result<Value> {
    let read = |name: &str| {
        let path = Path::new(folder).join(name);
        fs::read(&path).with_context(|| path.display().to_string())
    };
    let config: bert::Config = serde_json::from_slice(&read("config.json")?)?;
    let weights =
        VarBuilder::from_buffered_safetensors(read("model.safetensors")?, bert::DTYPE, &Device::Cpu)?;
    let model = bert::BertModel::load(weights, &config)?;
    let ids: Vec<u32> = (0..batch * tokens).map(|i| 1000 + (i * 7919 % 4000) as u32).collect();
    let ids = Tensor::from_vec(ids, (batch, tokens), &Device::Cpu)?;
    let types = ids.zeros_like()?;
    let run = || -> Result<Tensor> {
        let means = model.forward(&ids, &types, None)?.mean(1)?;
        Ok(means.broadcast_div(&means.sqr()?.sum_keepdim(1)?.sqrt()?)?)
    };
    black_box(run()?);
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.len() < 3 || start.elapsed().as_secs_f64() < seconds {
        let begin = Instant::now();
        black_box(run()?);
        times.push(begin.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(json!({ "ms_per_sentence": 1e3 * times[times.len() / 2] / batch as f64, "runs": times.len() }))
}

/// Values per call of a kernel, calls per timing, timings.
const N: usize = 2048;
const CALLS: usize = 200;
const ROUNDS: usize = 101;

/// A kernel on a row that it may change.
type Kernel<'a> = &'a dyn Fn(&mut [f32]);

/// Nanoseconds per call, ours and theirs in turn; the median of many rounds.
fn measure(a: &[f32], kernels: [Kernel<'_>; 2]) -> Value {
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (kernel, times) in kernels.into_iter().zip(&mut times) {
            let mut x = a.to_vec();
            let start = Instant::now();
            (0..CALLS).for_each(|_| kernel(black_box(&mut x)));
            times.push(start.elapsed().as_secs_f64() * 1e9 / CALLS as f64);
        }
    }
    let [ours, theirs] = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    });
    json!({ "ours_ns": ours, "theirs_ns": theirs })
}

fn kernels() -> Value {
    let (ours, theirs) = (Kernels::get(), CpuBackend);
    let a: Vec<f32> = (0..N).map(|i| (i * 31 % 97) as f32 / 48.0 - 1.0).collect();
    json!({
        "package": "ruvector-sparse-inference 2.3.0",
        "level": ours.level().name(),
        "values": N,
        "dot_f32": measure(&a, [
            &|x| { black_box(ours.dot_f32(&a, x)); },
            &|x| { black_box(theirs.dot_product(&a, x)); },
        ]),
        "axpy_f32": measure(&a, [&|x| ours.axpy_f32(1e-9, &a, x), &|x| theirs.axpy(x, &a, 1e-9)]),
        "add": measure(&a, [&|x| ours.add(x, &a), &|x| theirs.add(x, &a)]),
        "silu": measure(&a, [
            &|x| ours.activate(Activation::Silu, x),
            &|x| theirs.activation(x, ActivationType::Silu),
        ]),
    })
}

/// Their sparse loop and their dense path on 512 -> 2048 -> 512, microseconds per call, in turn.
fn ffn() -> Result<Value> {
    let (width, neurons) = (512, 2048);
    let ffn = SparseFfn::new(width, neurons, width, ActivationType::Relu)?;
    let x: Vec<f32> = (0..width).map(|i| (i * 31 % 97) as f32 / 48.0 - 1.0).collect();
    let mut seed = 1_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed >> 33
    };
    let mut times: [Vec<f64>; 6] = Default::default();
    for _ in 0..ROUNDS {
        for (percent, times) in [10, 30, 50, 70, 100, 0].into_iter().zip(&mut times) {
            let active: Vec<usize> = (0..neurons).filter(|_| random() % 100 < percent).collect();
            let start = Instant::now();
            for _ in 0..CALLS / 20 {
                black_box(if percent == 0 {
                    ffn.forward_dense(&x)?
                } else {
                    ffn.forward_sparse(&x, &active)?
                });
            }
            times.push(start.elapsed().as_secs_f64() * 1e6 / (CALLS / 20) as f64);
        }
    }
    let [sparse @ .., dense] = times.map(|mut t| {
        t.sort_by(f64::total_cmp);
        t[t.len() / 2]
    });
    Ok(json!({ "package": "ruvector-sparse-inference 2.3.0", "dense_us": dense, "sparse_us": sparse }))
}
