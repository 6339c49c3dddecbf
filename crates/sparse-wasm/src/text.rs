//! Language models.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sparse_core::FfnCounts;
use sparse_gguf::Gguf;
use sparse_model::chat::RenderOptions;
use sparse_model::{
    Event, FeedForward, Generate, Generation, Model, ModelOptions, PartTimes, Placement, Session, Sidecar,
    Stop,
};
use wasm_bindgen::prelude::*;

use crate::ModelBytes;
use crate::error::Error;
use crate::options::{self, TextOptions, encode_options};

/// Tokens of a context, unless the caller says otherwise or the model has fewer.
const CONTEXT: usize = 2048;

/// A language model and, between two texts, its session.
#[wasm_bindgen]
#[derive(Debug)]
pub struct TextModel {
    model: Arc<Model>,
    context: usize,
    bytes: usize,
    session: Option<Session>,
}

#[wasm_bindgen]
impl TextModel {
    /// Reads a model from a GGUF file; `sidecar` is what `sparse calibrate` wrote beside it. `options` are JSON.
    ///
    /// # Errors
    /// `format`, `unsupported` or `sidecar` for files that cannot be used, `option` for options.
    #[wasm_bindgen(constructor)]
    pub fn new(bytes: ModelBytes, sidecar: Option<ModelBytes>, options: &str) -> Result<TextModel, JsValue> {
        Ok(Self::open(bytes.into_vec(), sidecar.map(ModelBytes::into_vec), &options::parse(options)?)?)
    }

    /// What the model is, as JSON: `TextModelInfo` of `index.d.ts`.
    pub fn info(&self) -> String {
        let c = self.model.config();
        let tokenizer = self.model.tokenizer();
        json!({
            "name": self.model.name(),
            "architecture": c.architecture,
            "layers": c.layers.len(),
            "neurons": self.model.feed_forwards().map(FeedForward::neurons).collect::<Vec<_>>(),
            "embedding": c.embedding,
            "vocabulary": self.model.vocab_len(),
            "context": self.context,
            "trainedContext": c.context,
            "bytes": self.bytes,
            "bytesPerToken": self.model.bytes_per_token(),
            "activation": c.activation().to_string(),
            "sparseLayers": self.sparse_layers(),
            "chat": self.model.chat_template().is_ok(),
            "beginsWith": tokenizer.bos().filter(|_| tokenizer.add_bos()),
        })
        .to_string()
    }

    /// Token ids of a text. With `special`, names of control tokens in it become these tokens.
    ///
    /// # Errors
    /// If the vocabulary cannot spell the text.
    pub fn tokenize(&self, text: &str, special: bool) -> Result<Vec<u32>, JsValue> {
        let ids = self.model.tokenizer().encode(text, encode_options(special));
        Ok(ids.map_err(|e| Error::from(sparse_model::Error::from(e)))?)
    }

    /// The text of token ids, without control tokens.
    pub fn detokenize(&self, ids: &[u32]) -> String {
        let known: Vec<u32> =
            ids.iter().copied().filter(|id| (*id as usize) < self.model.vocab_len()).collect();
        self.model.tokenizer().decode(&known, true)
    }

    /// Token ids of a text to be continued.
    ///
    /// # Errors
    /// As [`tokenize`](Self::tokenize).
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, JsValue> {
        let ids = self.model.tokenizer().encode_prompt(text);
        Ok(ids.map_err(|e| Error::from(sparse_model::Error::from(e)))?)
    }

    /// Token ids of a conversation, JSON messages, up to where the model's answer begins. Messages are text: names of control
    /// tokens in them stay such.
    ///
    /// # Errors
    /// `chat-template` if the model has none, or it refuses the conversation.
    pub fn chat(&self, messages: &str) -> Result<Vec<u32>, JsValue> {
        let messages: Vec<Value> = options::parse(messages)?;
        let mut render = RenderOptions::default();
        (render.add_generation_prompt, render.literal_input) = (true, true);
        let template = self.model.chat_template().map_err(Error::from)?;
        let prompt = template.encode(self.model.tokenizer(), &messages, &render);
        Ok(prompt.map_err(Error::from)?.tokens)
    }

    /// Begins a text after `prompt`. `options` are JSON.
    ///
    /// # Errors
    /// `option` if they make no sense.
    pub fn generate(&mut self, prompt: &[u32], options: &str) -> Result<TextGeneration, JsValue> {
        let asked: options::Generate = options::parse(options)?;
        let generate = asked.options();
        generate.check().map_err(Error::from)?;
        let mut session = match self.session.take() {
            Some(session) => session,
            None => Session::new(&self.model, self.context).map_err(Error::from)?,
        };
        // The prompt's last token is computed in any case: its logits decide what follows.
        let computed = session.tokens().iter().zip(&prompt[..prompt.len().saturating_sub(1)]);
        let kept = computed.take_while(|(a, b)| a == b).count().min(session.position());
        if !asked.reuse || session.truncate(kept).is_err() {
            session.clear();
        }
        session.keep_neurons(asked.firing > 0);
        let start = Start {
            prompt: prompt.len(),
            kept: session.position(),
            counts: session.ffn_counts().to_vec(),
            times: session.times(),
        };
        let rest = &prompt[session.position()..];
        Ok(TextGeneration { events: session.into_generate(rest, &generate), bins: asked.firing, start })
    }

    /// Takes the session back from a text, so that the next one needs no buffers of its own.
    pub fn finish(&mut self, generation: TextGeneration) {
        self.session = Some(generation.events.into_session());
    }
}

impl TextModel {
    fn open(bytes: Vec<u8>, sidecar: Option<Vec<u8>>, options: &TextOptions) -> Result<Self, Error> {
        let len = bytes.len();
        let gguf = Gguf::from_bytes(bytes)?;
        let activation = options.activation.as_deref().map(str::parse).transpose();
        let activation = activation.map_err(|e: String| Error::option(e))?;
        let mut model = Model::from_gguf_with(&gguf, &ModelOptions::new(1).activation(activation))?;
        if let Some(sidecar) = sidecar {
            let sidecar = Sidecar::from_gguf(&Gguf::from_bytes(sidecar)?)?;
            // Timing takes a moment in which a page would stand still, and clocks in browsers are coarse.
            sidecar.apply(&gguf, &mut model, Placement::AsCalibrated)?;
        }
        if options.dense {
            model.make_dense()?;
        }
        model.screen_head(options.head()?)?;
        model.interleave();
        let trained = model.config().context;
        let context = options.context.unwrap_or(CONTEXT.min(trained));
        if context == 0 || context > trained {
            return Err(Error::option(format!("context: expected 1 to {trained} tokens, found {context}")));
        }
        Ok(Self { model: Arc::new(model), context, bytes: len, session: None })
    }

    /// Layers that leave neurons out.
    fn sparse_layers(&self) -> usize {
        let sparse = |ffn: &&sparse_core::SparseFfn| !matches!(ffn.selector(), sparse_core::Selector::Dense);
        self.model.ffns().filter(sparse).count()
    }
}

/// A text in the making: computes when it is asked for what comes next.
#[wasm_bindgen]
#[derive(Debug)]
pub struct TextGeneration {
    events: Generate<Session>,
    bins: usize,
    start: Start,
}

/// Where a session was when a text began.
#[derive(Debug)]
struct Start {
    prompt: usize,
    kept: usize,
    counts: Vec<FfnCounts>,
    times: PartTimes,
}

#[wasm_bindgen]
impl TextGeneration {
    /// The next event, as JSON: `{"token": id}`, `{"text": piece}` or, the last one, `{"end": stats}`.
    ///
    /// # Errors
    /// As the model has it: `context-full`, `memory`, `not-finite`.
    #[wasm_bindgen(js_name = next)]
    pub fn step(&mut self) -> Result<Option<String>, JsValue> {
        let event = match self.events.next().transpose().map_err(Error::from)? {
            None => return Ok(None),
            Some(Event::Token(token)) => json!({ "token": token.id }),
            Some(Event::Text(text)) => json!({ "text": text }),
            Some(Event::End(generation)) => json!({ "end": self.stats(&generation) }),
            Some(_) => json!({}),
        };
        Ok(Some(event.to_string()))
    }

    /// Ends the text: its end is the next event.
    pub fn cancel(&mut self) {
        self.events.cancel();
    }

    /// How strongly neurons fired while the last token was computed: per layer, for each of the bins that share its neurons in
    /// order, the largest `|h|`. Empty if that was not asked for, or the token was computed together with others.
    pub fn firing(&self) -> Vec<f32> {
        let layers = self.events.session().neurons();
        let strongest = |bin: &[f32]| bin.iter().fold(0.0, |m: f32, h| m.max(h.abs()));
        let mut bins = Vec::with_capacity(layers.len() * self.bins);
        for neurons in layers {
            let edge = |i: usize| i * neurons.len() / self.bins;
            bins.extend((0..self.bins).map(|i| strongest(&neurons[edge(i)..edge(i + 1)])));
        }
        if bins.iter().all(|h| *h == 0.0) { Vec::new() } else { bins }
    }

    /// How many neurons of each layer fired while the last token was computed.
    pub fn fired(&self) -> Vec<u32> {
        let layers = self.events.session().neurons();
        layers.iter().map(|neurons| neurons.iter().filter(|h| **h != 0.0).count() as u32).collect()
    }
}

impl TextGeneration {
    /// `GenerationStats` of `index.d.ts`.
    fn stats(&self, generation: &Generation) -> Value {
        let session = self.events.session();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let (mut down, mut all, mut alone) = (0.0, 0.0, 0);
        let mut layers = Vec::new();
        for ((now, before), ffn) in
            session.ffn_counts().iter().zip(&self.start.counts).zip(session.model().feed_forwards())
        {
            let c = FfnCounts {
                tokens: now.tokens - before.tokens,
                gate: now.gate - before.gate,
                up: now.up - before.up,
                down: now.down - before.down,
                bytes: now.bytes - before.bytes,
            };
            let neurons = ffn.neurons();
            (down, all, alone) = (down + c.down as f64, all + (c.tokens * neurons as u64) as f64, c.tokens);
            layers.push(c.density(neurons).down);
        }
        let (times, before) = (session.times(), self.start.times);
        let per_token =
            |now: Duration, before: Duration| (alone > 0).then(|| ms(now - before) / alone as f64);
        json!({
            "stop": match generation.stop {
                Stop::End | Stop::StopToken(_) => "end",
                Stop::StopString(_) => "stop-string",
                Stop::MaxTokens => "max-tokens",
                Stop::ContextFull => "context-full",
                _ => "cancelled",
            },
            "tokens": generation.tokens.len(),
            "promptTokens": self.start.prompt,
            "reusedTokens": self.start.kept,
            "promptMs": ms(generation.prompt_time),
            "decodeMs": ms(generation.decode_time),
            "tokensPerSecond": generation.decode_steps as f64 / generation.decode_time.as_secs_f64().max(1e-9),
            "density": (all > 0.0).then(|| down / all),
            "layerDensity": layers,
            "feedForwardMs": per_token(times.feed_forward, before.feed_forward),
            "attentionMs": per_token(times.attention, before.attention),
            "headMs": per_token(times.head, before.head),
            "bytesPerToken": session.bytes_per_token(),
        })
    }
}
