//! What was generated, and how fast.

use serde::Serialize;
use sparse_core::Screen;
use sparse_model::tokenizer::Tokenizer;
use sparse_model::{Generation, SamplerConfig, Session, Stop, StoreStatistics, Token};

use crate::load::{Interleaving, Loaded};
use crate::output::{ms, percent, rate, table};

#[derive(Serialize)]
pub(super) struct Report<'a> {
    pub(super) text: String,
    tokens: &'a [u32],
    prompt_tokens: usize,
    generated_tokens: usize,
    /// `end`, `stop_string`, `max_tokens`, `context_full` or `interrupted`.
    stop: &'static str,
    /// How probable each token was, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<Vec<Logprob>>,
    seed: u64,
    sampler: Sampler,
    timings: Timings,
    /// Weight bytes that decoding a token read.
    bytes_per_token: usize,
    /// Share of the neurons that were left out while decoding.
    skipped: f64,
    layers: Vec<LayerStats>,
    parts: Parts,
    /// What the screened head did, if there is one.
    screen: Option<ScreenStats>,
    /// What the store of experts or neurons did, if memory has a budget.
    store: Option<StoreStats>,
    /// Weight bytes read per second of decoding, in 1e9.
    gb_per_s: Option<f64>,
    model: &'a str,
    level: &'static str,
    threads: usize,
    context: usize,
}

/// What the store of experts or neurons did, the prompt included.
#[derive(Serialize)]
struct StoreStats {
    hits: u64,
    misses: u64,
    hit_rate: f64,
    prefetched: u64,
    prefetched_hits: u64,
    read_bytes: u64,
    stalled_ms: f64,
    resident_bytes: usize,
    budget_bytes: usize,
}

impl StoreStats {
    fn new(s: StoreStatistics) -> Self {
        tracing::info!(statistics = ?s, "weights read when they were needed");
        Self {
            hits: s.hits,
            misses: s.misses,
            hit_rate: s.hit_rate(),
            prefetched: s.prefetched,
            prefetched_hits: s.prefetched_hits,
            read_bytes: s.read_bytes,
            stalled_ms: ms(s.stalled),
            resident_bytes: s.resident_bytes,
            budget_bytes: s.budget_bytes,
        }
    }
}

/// How probable a token was.
#[derive(Serialize)]
struct Logprob {
    id: u32,
    text: String,
    logprob: f32,
    /// The most probable tokens.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    top: Vec<Logprob>,
}

/// What a layer's feed-forward part did, per decoded token.
#[derive(Serialize)]
struct LayerStats {
    selector: String,
    /// Shares of the neurons whose gate, up and down were computed.
    gate: f64,
    up: f64,
    down: f64,
    bytes: f64,
    dense_bytes: usize,
}

/// What the screened head did, per decoded token.
#[derive(Serialize)]
struct ScreenStats {
    /// Share of the tokens for which the whole head was computed.
    fallbacks: f64,
    /// Rows that were computed for the others.
    rows: f64,
    bytes: f64,
    head_bytes: usize,
    /// Memory that the screen takes besides.
    screen_bytes: usize,
}

impl ScreenStats {
    fn new(session: &Session) -> Option<Self> {
        let (c, head_bytes) = (session.screen_counts(), session.model().head().bytes());
        let tokens = c.tokens as f64;
        (c.tokens > 0).then(|| Self {
            fallbacks: c.fallbacks as f64 / tokens,
            rows: c.rows as f64 / (c.tokens - c.fallbacks).max(1) as f64,
            bytes: c.bytes as f64 / tokens,
            head_bytes,
            screen_bytes: session.model().screen().map_or(0, Screen::bytes),
        })
    }
}

/// Milliseconds per decoded token.
#[derive(Serialize)]
struct Parts {
    attention_ms: f64,
    feed_forward_ms: f64,
    head_ms: f64,
    /// Weight bytes that the feed-forward layers read per second of theirs, in 1e9.
    feed_forward_gb_per_s: Option<f64>,
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
    #[serde(flatten)]
    interleaving: Interleaving,
    prompt_ms: f64,
    prompt_tokens_per_s: Option<f64>,
    decode_ms: f64,
    /// Of the steps after the first token, which the prompt decides.
    decode_tokens_per_s: Option<f64>,
}

impl<'a> Report<'a> {
    pub(super) fn new(
        loaded: &'a Loaded,
        session: &Session,
        generation: &'a Generation,
        sampler: &SamplerConfig,
        prompt_tokens: usize,
        text: String,
    ) -> Self {
        let model = &loaded.model;
        let bytes_per_token = session.bytes_per_token();
        let steps = generation.decode_steps as f64;
        let layers: Vec<_> = model
            .feed_forwards()
            .zip(session.ffn_counts())
            .map(|(ffn, c)| {
                let tokens = c.tokens.max(1) as f64;
                let share = |n: u64| n as f64 / tokens / ffn.neurons() as f64;
                LayerStats {
                    selector: ffn.selector_name(),
                    gate: share(c.gate),
                    up: share(c.up),
                    down: share(c.down),
                    bytes: c.bytes as f64 / tokens,
                    dense_bytes: ffn.bytes(),
                }
            })
            .collect();
        let used = layers.iter().map(|l| l.down).sum::<f64>() / layers.len().max(1) as f64;
        let times = session.times();
        let per_step = |time| if steps > 0.0 { ms(time) / steps } else { 0.0 };
        let ffn_bytes: f64 = layers.iter().map(|l| l.bytes).sum();
        let parts = Parts {
            attention_ms: per_step(times.attention),
            feed_forward_ms: per_step(times.feed_forward),
            head_ms: per_step(times.head),
            feed_forward_gb_per_s: rate(steps * ffn_bytes / 1e9, times.feed_forward),
        };
        Self {
            text,
            tokens: &generation.tokens,
            prompt_tokens,
            generated_tokens: generation.tokens.len(),
            stop: match generation.stop {
                Stop::End => "end",
                Stop::MaxTokens => "max_tokens",
                Stop::ContextFull => "context_full",
                Stop::StopString(_) => "stop_string",
                Stop::Cancelled => "interrupted",
                _ => "other",
            },
            logprobs: None,
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
                interleaving: loaded.interleaving,
                prompt_ms: ms(generation.prompt_time),
                prompt_tokens_per_s: rate(prompt_tokens as f64, generation.prompt_time),
                decode_ms: ms(generation.decode_time),
                decode_tokens_per_s: rate(steps, generation.decode_time),
            },
            bytes_per_token,
            skipped: if steps > 0.0 { 1.0 - used } else { 0.0 },
            layers,
            parts,
            screen: ScreenStats::new(session),
            store: model.store_statistics().map(StoreStats::new),
            gb_per_s: rate(steps * bytes_per_token as f64 / 1e9, generation.decode_time),
            model: &loaded.name,
            level: model.compute().kernels.level().name(),
            threads: model.compute().pool.threads(),
            context: session.context(),
        }
    }

    /// The same with what was asked for about its tokens.
    pub(super) fn logprobs(self, tokenizer: &Tokenizer, tokens: &[Token]) -> Self {
        let entry = |id: u32, logprob, top| {
            let text = String::from_utf8_lossy(&tokenizer.token_bytes(id)).into_owned();
            Logprob { id, text, logprob, top }
        };
        let entries = tokens.iter().filter_map(|token| {
            let probable = token.logprobs.as_ref()?;
            let top = probable.top.iter().map(|(id, logprob)| entry(*id, *logprob, Vec::new())).collect();
            Some(entry(token.id, probable.logprob, top))
        });
        let entries: Vec<_> = entries.collect();
        Self { logprobs: (!entries.is_empty()).then_some(entries), ..self }
    }

    /// A table of the layers, and where the time went.
    pub(super) fn stats(&self) -> String {
        let header = ["LAYER", "SELECTOR", ">GATE", ">UP", ">DOWN", ">KB/TOKEN", ">OF DENSE"];
        let rows = self.layers.iter().enumerate().map(|(i, l)| {
            [
                i.to_string(),
                l.selector.to_owned(),
                percent(l.gate),
                percent(l.up),
                percent(l.down),
                format!("{:.1}", l.bytes / 1e3),
                percent(l.bytes / l.dense_bytes as f64),
            ]
        });
        let Parts { attention_ms, feed_forward_ms, head_ms, feed_forward_gb_per_s } = self.parts;
        let speed = feed_forward_gb_per_s.map_or_else(String::new, |gb| format!(" at {gb:.1} GB/s"));
        let screen = self.screen.as_ref().map_or_else(String::new, |s| {
            format!(
                "\nscreened head: {:.0} rows and {:.1} % of the bytes per token, computed whole for {:.1} % of the tokens; the screen has {:.1} MB",
                s.rows,
                100.0 * s.bytes / s.head_bytes as f64,
                100.0 * s.fallbacks,
                s.screen_bytes as f64 / 1e6
            )
        });
        let store = self.store.as_ref().map_or_else(String::new, |s| {
            format!(
                "\nread when needed: {:.1} % of {} were in memory, {} read ahead, {:.1} MB read, {:.0} ms waited; {:.1} of {:.1} MB of memory used",
                100.0 * s.hit_rate,
                s.hits + s.misses,
                s.prefetched,
                s.read_bytes as f64 / 1e6,
                s.stalled_ms,
                s.resident_bytes as f64 / 1e6,
                s.budget_bytes as f64 / 1e6
            )
        });
        format!(
            "{}\n\nper token: attention {attention_ms:.3} ms, feed-forward {feed_forward_ms:.3} ms{speed}, head {head_ms:.3} ms{screen}{store}",
            table(header, rows).trim_fmt()
        )
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
        if self.skipped > 0.0 {
            parts.push(format!("{:.0} % of the neurons skipped", 100.0 * self.skipped));
        }
        parts.push(format!("{}, {} threads", self.level, self.threads));
        if self.sampler.temperature > 0.0 {
            parts.push(format!("seed {}", self.seed));
        }
        match self.stop {
            "end" => {}
            "max_tokens" => parts.push("ended by --max-tokens".into()),
            "stop_string" => parts.push("ended by --stop".into()),
            "context_full" => parts.push("ended by the context".into()),
            other => parts.push(other.into()),
        }
        parts.join(" | ")
    }
}
