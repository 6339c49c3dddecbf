//! GGUF models of [`sparse_integration`] behind [`ruvllm`]'s [`LlmBackend`].
//!
//! ```no_run
//! use ruvllm::backends::{GenerateParams, LlmBackend, ModelConfig};
//! use sparse_ruvllm::SparseLlm;
//!
//! # fn main() -> ruvllm::Result<()> {
//! let mut backend = SparseLlm::default();
//! backend.load_model("model.gguf", ModelConfig::default())?;
//! println!("{}", backend.generate("Once upon a time", GenerateParams::default())?);
//! # Ok(())
//! # }
//! ```

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use ruvllm::RuvLLMError;
use ruvllm::backends::{
    GenerateParams, GeneratedToken, GenerationOutput, LlmBackend, ModelArchitecture, ModelConfig, ModelInfo,
    SpecialTokens, StreamEvent, TokenStream, Tokenizer,
};
use ruvllm::serving::FinishReason;
use sparse_gguf::{Gguf, TensorInfo};
use sparse_integration::{
    EngineOptions, Event, GenerateOptions, Request, SamplerConfig, SparseInferenceBackend, Stop,
};
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{Model, Session};

/// What can fail, as `ruvllm` fails unless another error is named.
type Result<T, E = RuvLLMError> = std::result::Result<T, E>;

/// A language model on this machine's CPU, for `ruvllm`.
///
/// Of a [`ModelConfig`] the context is used; everything else is in the file. Texts that are asked for at the same time are
/// computed together. Without a seed each text is another one.
#[derive(Debug, Default)]
pub struct SparseLlm {
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    id: String,
    /// Weights in the file.
    parameters: usize,
    backend: SparseInferenceBackend,
    tokenizer: ModelTokenizer,
}

/// A model's tokenizer, for `ruvllm`.
#[derive(Debug)]
struct ModelTokenizer(Arc<Model>);

impl SparseLlm {
    fn loaded(&self) -> Result<&Loaded> {
        self.loaded.as_ref().ok_or_else(|| RuvLLMError::Model("no model is loaded".into()))
    }

    fn request(&self, prompt: &str, params: &GenerateParams) -> Result<Request> {
        let tokens = self.loaded()?.backend.encode(prompt).map_err(failed)?;
        Ok(Request::new(tokens, options(params)))
    }

    /// The tokens of a text as they come.
    fn stream(
        &self,
        prompt: &str,
        params: &GenerateParams,
    ) -> Result<impl Iterator<Item = Result<GeneratedToken>> + Send + use<>> {
        let (sender, receiver) = mpsc::channel();
        self.loaded()?
            .backend
            .submit(self.request(prompt, params)?, move |event| match sender.send(event) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            })
            .map_err(failed)?;
        // Text is that of the tokens before it: what may become a stop sequence waits.
        let mut id = 0;
        Ok(receiver.into_iter().filter_map(move |event| match event {
            Ok(Event::Token(token)) => {
                id = token.id;
                None
            }
            Ok(Event::Text(text)) => Some(Ok(GeneratedToken { id, text, logprob: None, is_special: false })),
            Ok(_) => None,
            Err(error) => Some(Err(failed(error))),
        }))
    }
}

impl LlmBackend for SparseLlm {
    fn load_model(&mut self, model_id: &str, config: ModelConfig) -> Result<()> {
        let gguf = Gguf::open(model_id).map_err(failed)?;
        let parameters = gguf.tensors().map(TensorInfo::elements).sum();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let model = Arc::new(Model::open(Path::new(model_id), threads).map_err(failed)?);
        let mut options = EngineOptions::default();
        options.context = config.max_sequence_length.min(model.config().context);
        let backend =
            SparseInferenceBackend::with_model(model_id, Arc::clone(&model), options).map_err(failed)?;
        self.loaded =
            Some(Loaded { id: model_id.to_owned(), parameters, backend, tokenizer: ModelTokenizer(model) });
        Ok(())
    }

    fn generate(&self, prompt: &str, params: GenerateParams) -> Result<String> {
        Ok(self.generate_detailed(prompt, params, &mut |_| true)?.text)
    }

    fn generate_stream(
        &self,
        prompt: &str,
        params: GenerateParams,
    ) -> Result<Box<dyn Iterator<Item = Result<GeneratedToken>> + Send + '_>> {
        Ok(Box::new(self.stream(prompt, &params)?))
    }

    fn generate_stream_v2(&self, prompt: &str, params: GenerateParams) -> Result<TokenStream> {
        let (sender, stream) = TokenStream::channel();
        let (begun, mut id) = (Instant::now(), 0);
        let sink = move |event: Result<Event, sparse_integration::Error>| {
            let sent = match event {
                Ok(Event::Token(token)) => {
                    id = token.id;
                    Ok(())
                }
                Ok(Event::Text(text)) => sender.send(StreamEvent::Token(GeneratedToken {
                    id,
                    text,
                    logprob: None,
                    is_special: false,
                })),
                Ok(Event::End(end)) => {
                    let (time, total_tokens) = (begun.elapsed(), end.tokens.len());
                    sender.send(StreamEvent::Done {
                        total_tokens,
                        duration_ms: time.as_millis() as u64,
                        tokens_per_second: total_tokens as f64 / time.as_secs_f64().max(1e-9),
                    })
                }
                Ok(_) => Ok(()),
                Err(error) => sender.send(StreamEvent::Error(error.to_string())),
            };
            if sent.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        self.loaded()?.backend.submit(self.request(prompt, &params)?, sink).map_err(failed)?;
        Ok(stream)
    }

    fn generate_detailed(
        &self,
        prompt: &str,
        params: GenerateParams,
        on_token: &mut dyn FnMut(&GeneratedToken) -> bool,
    ) -> Result<GenerationOutput> {
        let loaded = self.loaded()?;
        let request = self.request(prompt, &params)?;
        let mut id = 0;
        let output = loaded.backend.generate_each(&request.tokens, &request.options, |event| match event {
            Event::Token(token) => {
                id = token.id;
                ControlFlow::Continue(())
            }
            Event::Text(text) => {
                let token = GeneratedToken { id, text: text.clone(), logprob: None, is_special: false };
                if on_token(&token) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            }
            _ => ControlFlow::Continue(()),
        });
        let output = output.map_err(failed)?;
        let (ended, finish_reason) = match output.stop {
            Stop::End | Stop::StopToken(_) => (1, FinishReason::EndOfSequence),
            Stop::StopString(_) => (0, FinishReason::Stop),
            Stop::Cancelled => (0, FinishReason::Cancelled),
            _ => (0, FinishReason::Length),
        };
        Ok(GenerationOutput {
            text: output.text,
            prompt_tokens: request.tokens.len(),
            completion_tokens: output.tokens.len() + ended,
            finish_reason,
        })
    }

    /// The mean of what the output head is given for each token of the text: the last layer's output, normalized.
    fn get_embeddings(&self, text: &str) -> Result<Vec<f32>> {
        let loaded = self.loaded()?;
        let tokens = loaded.backend.encode(text).map_err(failed)?;
        let mut session = Session::new(loaded.backend.model(), tokens.len().max(1)).map_err(failed)?;
        let mut sum = vec![0.0; loaded.backend.model().config().embedding];
        session
            .watch_head_inputs(&tokens, |x| {
                for x in x.x().chunks(sum.len()) {
                    sum.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
                }
            })
            .map_err(failed)?;
        sum.iter_mut().for_each(|sum| *sum /= tokens.len() as f32);
        Ok(sum)
    }

    fn tokenizer(&self) -> Option<&dyn Tokenizer> {
        Some(&self.loaded.as_ref()?.tokenizer)
    }

    fn is_model_loaded(&self) -> bool {
        self.loaded.is_some()
    }

    fn model_info(&self) -> Option<ModelInfo> {
        let loaded = self.loaded.as_ref()?;
        let (model, config) = (loaded.backend.model(), loaded.backend.model().config());
        Some(ModelInfo {
            name: model.name().unwrap_or(&loaded.id).to_owned(),
            architecture: ModelArchitecture::detect_from_model_id(&loaded.id).unwrap_or_default(),
            num_parameters: loaded.parameters,
            vocab_size: model.vocab_len(),
            hidden_size: config.embedding,
            num_layers: config.layers.len(),
            max_context_length: config.context,
            quantization: None,
            memory_usage: model.bytes_per_token(),
        })
    }

    fn unload_model(&mut self) {
        self.loaded = None;
    }
}

impl Tokenizer for ModelTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let options = EncodeOptions { add_bos: false, add_eos: false, parse_special: false };
        self.0.tokenizer().encode(text, options).map_err(|e| RuvLLMError::Tokenization(e.to_string()))
    }

    fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(self.0.tokenizer().decode(tokens, true))
    }

    fn vocab_size(&self) -> usize {
        self.0.tokenizer().vocab_len()
    }

    fn special_tokens(&self) -> SpecialTokens {
        let tokenizer = self.0.tokenizer();
        SpecialTokens {
            bos_token_id: tokenizer.bos(),
            eos_token_id: tokenizer.eos(),
            ..SpecialTokens::default()
        }
    }
}

fn options(params: &GenerateParams) -> GenerateOptions {
    let defaults = SamplerConfig::default();
    GenerateOptions::new(params.max_tokens)
        .sampler(SamplerConfig {
            temperature: params.temperature,
            top_p: params.top_p,
            top_k: params.top_k,
            repetition_penalty: params.repetition_penalty,
            frequency_penalty: params.frequency_penalty,
            presence_penalty: params.presence_penalty,
            min_p: 0.0,
            seed: params.seed.unwrap_or_else(random),
            ..defaults
        })
        .stop(&params.stop_sequences)
}

/// A number that is another one each time.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(0)
}

fn failed(error: impl std::fmt::Display) -> RuvLLMError {
    RuvLLMError::Model(error.to_string())
}
