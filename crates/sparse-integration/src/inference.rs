//! Tokens in, text out.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use sparse_model::{Event, GenerateOptions, Generation, Model, ModelOptions, Stop, Token};

use crate::Error;
use crate::engine::{Engine, EngineOptions, Request, Statistics};

/// Something that continues texts.
///
/// Threads may share it, and it can stand behind a `dyn`.
pub trait InferenceBackend: Send + Sync {
    /// The backend's name: that of the model, say.
    fn name(&self) -> &str;

    /// Tokens that prompt and text may have together.
    fn context(&self) -> usize;

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// If the text cannot be encoded.
    fn encode(&self, prompt: &str) -> Result<Vec<u32>, Error>;

    /// Continues `tokens`, and calls `on_event` with what happens; it may stop the text.
    ///
    /// # Errors
    /// If there is no text; the backend's documentation says when.
    fn generate_each(
        &self,
        tokens: &[u32],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Output, Error>;

    /// Continues `tokens`.
    ///
    /// # Errors
    /// As [`generate_each`](Self::generate_each).
    fn generate(&self, tokens: &[u32], options: &GenerateOptions) -> Result<Output, Error> {
        self.generate_each(tokens, options, &mut |_| ControlFlow::Continue(()))
    }
}

/// What was generated.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Output {
    /// The text, without a stop string that ended it.
    pub text: String,
    /// The tokens, with what was asked for about each.
    pub tokens: Vec<Token>,
    /// Why the text ended.
    pub stop: Stop,
}

/// A language model on this machine's CPU.
///
/// It may be shared: texts that are asked for at the same time are computed together, with one pass over the weights for a
/// step of all of them, and each is what it would be alone. Beginnings that prompts have in common are computed once.
///
/// ```no_run
/// use sparse_integration::{GenerateOptions, InferenceBackend, SparseInferenceBackend};
///
/// # fn main() -> Result<(), sparse_integration::Error> {
/// let backend = SparseInferenceBackend::new("model.gguf")?;
/// let tokens = backend.encode("Once upon a time")?;
/// let output = backend.generate(tokens, &GenerateOptions::new(100))?;
/// println!("{}", output.text);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SparseInferenceBackend {
    name: String,
    engine: Engine,
}

impl SparseInferenceBackend {
    /// Opens the GGUF file at `model_path`, to be computed on all of the machine's threads.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn new(model_path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = model_path.as_ref();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let model = Model::open_with(path, &ModelOptions::new(threads))?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self::with_model(name, Arc::new(model), EngineOptions::default())
    }

    /// A backend for a model that is open already, with the selectors that it has.
    ///
    /// # Errors
    /// If the options do not suit the model.
    pub fn with_model(
        name: impl Into<String>,
        model: Arc<Model>,
        options: EngineOptions,
    ) -> Result<Self, Error> {
        Ok(Self { name: name.into(), engine: Engine::start(model, options)? })
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        self.engine.model()
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tokens that prompt and text may have together.
    pub fn context(&self) -> usize {
        self.engine.context()
    }

    /// The tokens of a prompt, see [`Tokenizer::encode_prompt`](sparse_model::tokenizer::Tokenizer::encode_prompt).
    ///
    /// # Errors
    /// As there.
    pub fn encode(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        Ok(self.model().tokenizer().encode_prompt(prompt).map_err(sparse_model::Error::from)?)
    }

    /// Continues `tokens`.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many texts are waited for already; and as [`Session::generate`](sparse_model::Session::generate).
    pub fn generate(&self, tokens: impl AsRef<[u32]>, options: &GenerateOptions) -> Result<Output, Error> {
        self.generate_each(tokens, options, |_| ControlFlow::Continue(()))
    }

    /// Continues `tokens`, and calls `on_event` with what happens, on the calling thread; it may stop the text.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_each(
        &self,
        tokens: impl AsRef<[u32]>,
        options: &GenerateOptions,
        mut on_event: impl FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Output, Error> {
        let (sender, receiver) = mpsc::channel();
        let (mut text, mut chosen) = (String::new(), Vec::new());
        let sink = move |event| match sender.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        };
        self.submit(Request::new(tokens.as_ref().to_vec(), options.clone()), sink)?;
        for event in receiver {
            let event = event?;
            let stopped = on_event(&event).is_break();
            match event {
                Event::Text(piece) => text += &piece,
                Event::Token(token) => chosen.push(token),
                Event::End(Generation { stop, .. }) => return Ok(Output { text, tokens: chosen, stop }),
                _ => {}
            }
            if stopped {
                return Ok(Output { text, tokens: chosen, stop: Stop::Cancelled });
            }
        }
        Err(Error::Stopped)
    }

    /// Asks for a text, whose events `sink` gets on the engine's thread; it must not wait for anything. The last one is
    /// the end or an error. A sink that breaks cancels the text, and gets nothing more.
    ///
    /// # Errors
    /// [`Error::Busy`] if too many texts are waited for already, [`Error::Stopped`] after [`shut_down`](Self::shut_down).
    pub fn submit(
        &self,
        request: Request,
        sink: impl FnMut(Result<Event, Error>) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(), Error> {
        self.engine.submit(request, Box::new(sink))
    }

    /// What has been done so far.
    pub fn statistics(&self) -> Statistics {
        self.engine.statistics()
    }

    /// Takes no more texts, and ends when those that it has are done.
    pub fn shut_down(&self) {
        self.engine.shut_down();
    }
}

// The type's own methods have the same names, so that using it takes no import of the trait.
impl InferenceBackend for SparseInferenceBackend {
    fn name(&self) -> &str {
        self.name()
    }

    fn context(&self) -> usize {
        self.context()
    }

    fn encode(&self, prompt: &str) -> Result<Vec<u32>, Error> {
        self.encode(prompt)
    }

    fn generate_each(
        &self,
        tokens: &[u32],
        options: &GenerateOptions,
        on_event: &mut dyn FnMut(&Event) -> ControlFlow<()>,
    ) -> Result<Output, Error> {
        self.generate_each(tokens, options, on_event)
    }
}
