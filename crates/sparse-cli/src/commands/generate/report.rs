//! What was generated, and how fast.

use serde::Serialize;
use sparse_model::{Generation, SamplerConfig, Stop};

use crate::load::Loaded;
use crate::output::{ms, rate};

#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) text: String,
    tokens: &'a [u32],
    prompt_tokens: usize,
    generated_tokens: usize,
    /// `end`, `max_tokens`, `context_full` or `interrupted`.
    stop: &'static str,
    seed: u64,
    sampler: Sampler,
    timings: Timings,
    /// Weight bytes that decoding a token reads.
    bytes_per_token: usize,
    /// Weight bytes read per second of decoding, in 1e9.
    gb_per_s: Option<f64>,
    model: &'a str,
    level: &'static str,
    threads: usize,
    context: usize,
}

#[derive(Serialize)]
struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    min_p: f32,
    repeat_penalty: f32,
    repeat_window: usize,
}

#[derive(Serialize)]
struct Timings {
    load_ms: f64,
    prompt_ms: f64,
    prompt_tokens_per_s: Option<f64>,
    decode_ms: f64,
    /// Of the steps after the first token, which the prompt decides.
    decode_tokens_per_s: Option<f64>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        loaded: &'a Loaded,
        generation: &'a Generation,
        sampler: &SamplerConfig,
        prompt_tokens: usize,
        context: usize,
        text: String,
    ) -> Self {
        let model = &loaded.model;
        let bytes_per_token = model.bytes_per_token();
        let steps = generation.decode_steps as f64;
        Self {
            text,
            tokens: &generation.tokens,
            prompt_tokens,
            generated_tokens: generation.tokens.len(),
            stop: match generation.stop {
                Stop::End => "end",
                Stop::MaxTokens => "max_tokens",
                Stop::ContextFull => "context_full",
                Stop::Interrupted => "interrupted",
                _ => "other",
            },
            seed: sampler.seed,
            sampler: Sampler {
                temperature: sampler.temperature,
                top_k: sampler.top_k,
                top_p: sampler.top_p,
                min_p: sampler.min_p,
                repeat_penalty: sampler.repetition_penalty,
                repeat_window: sampler.penalty_window,
            },
            timings: Timings {
                load_ms: ms(loaded.time),
                prompt_ms: ms(generation.prompt_time),
                prompt_tokens_per_s: rate(prompt_tokens as f64, generation.prompt_time),
                decode_ms: ms(generation.decode_time),
                decode_tokens_per_s: rate(steps, generation.decode_time),
            },
            bytes_per_token,
            gb_per_s: rate(steps * bytes_per_token as f64 / 1e9, generation.decode_time),
            model: &loaded.name,
            level: model.compute().kernels.level().name(),
            threads: model.compute().pool.threads(),
            context,
        }
    }

    /// The gist on one line.
    pub(super) fn line(&self) -> String {
        let mut prompt = format!("prompt {} tokens", self.prompt_tokens);
        if let Some(rate) = self.timings.prompt_tokens_per_s {
            prompt += &format!(" at {rate:.0}/s");
        }
        let mut text = format!("text {} tokens", self.generated_tokens);
        if let (Some(rate), Some(gb)) = (self.timings.decode_tokens_per_s, self.gb_per_s) {
            let mb = self.bytes_per_token as f64 / 1e6;
            text += &format!(" at {rate:.0}/s x {mb:.1} MB = {gb:.1} GB/s");
        }
        let mut parts = vec![prompt, text];
        parts.push(format!("{}, {} threads", self.level, self.threads));
        if self.sampler.temperature > 0.0 {
            parts.push(format!("seed {}", self.seed));
        }
        match self.stop {
            "end" => {}
            "max_tokens" => parts.push("ended by --max-tokens".into()),
            "context_full" => parts.push("ended by the context".into()),
            other => parts.push(other.into()),
        }
        parts.join(" | ")
    }
}
