//! A model file, opened.

#[cfg(feature = "fs")]
use std::path::Path;
#[cfg(feature = "fs")]
use std::sync::Arc;

use sparse_core::{Activations, Compute, LazyScreen, Matrix, SparseFfn};
use sparse_gguf::Gguf;

#[cfg(feature = "chat")]
use crate::chat::{ChatTemplate, ChatTemplates};
use crate::memory::{self, Memory};
use crate::tokenizer::Tokenizer;
use crate::weights::Weights;
#[cfg(feature = "fs")]
use crate::weights::records::RecordFile;
use crate::{Error, FeedForward, FfnActivation, HeadMode, MemoryBudget, ModelConfig, arch};

/// A language model: weights still in their file's block formats, tokenizer, chat template.
///
/// Share it between sessions in an `Arc`. Weights stay in the memory-mapped file, unless [`interleave`](Self::interleave)
/// or a selector stores them in another way.
#[derive(Debug)]
pub struct Model {
    config: ModelConfig,
    pub(crate) weights: Weights,
    tokenizer: Tokenizer,
    #[cfg(feature = "chat")]
    chat_templates: ChatTemplates,
    name: Option<String>,
    fingerprint: String,
    compute: Compute,
    /// The same threads, for batches of tokens that do not belong together.
    step_compute: Compute,
    pub(crate) screen: Option<LazyScreen>,
    pub(crate) memory: Option<Memory>,
    /// Whether predictors are in the model's file.
    #[cfg(feature = "fs")]
    pub(crate) has_own_predictors: bool,
    /// Made when the first text has to match a grammar.
    #[cfg(feature = "grammar")]
    grammar_vocabulary: std::sync::OnceLock<crate::grammar::Vocabulary>,
}

/// How a model is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelOptions {
    /// Threads to compute on.
    pub threads: usize,
    /// The activation of the feed-forward networks, if it is not for the file to say.
    pub activation: Option<FfnActivation>,
    /// How [`Session::candidates`](crate::Session::candidates) computes the head of a model that is opened by path.
    pub head: HeadMode,
    /// How much memory weights may take; `None` is as much as they have.
    pub memory: Option<MemoryBudget>,
    /// Where neurons may stay if memory has a budget.
    #[cfg(feature = "fs")]
    pub records: Option<Arc<RecordFile>>,
}

impl ModelOptions {
    /// As the file says, computed on `threads` threads.
    pub fn new(threads: usize) -> Self {
        Self {
            threads,
            activation: None,
            head: HeadMode::Auto,
            memory: None,
            #[cfg(feature = "fs")]
            records: None,
        }
    }

    /// The same with this activation; `None` is what the file says.
    #[must_use]
    pub fn activation(self, activation: Option<FfnActivation>) -> Self {
        Self { activation, ..self }
    }

    /// The same with the head computed like this.
    #[must_use]
    pub fn head(self, head: HeadMode) -> Self {
        Self { head, ..self }
    }

    /// The same with so much memory for weights.
    #[must_use]
    pub fn memory(self, memory: Option<MemoryBudget>) -> Self {
        Self { memory, ..self }
    }

    /// The same with a file that neurons may stay in if memory has a budget. Models that are opened by path look for it
    /// [beside](RecordFile::beside) the model. Others have to [fit their memory](Model::fit_memory) in the end.
    #[cfg(feature = "fs")]
    #[must_use]
    pub fn records(self, records: Option<Arc<RecordFile>>) -> Self {
        Self { records, ..self }
    }
}

impl Model {
    /// Opens the GGUF file at `path`, to be computed on `threads` threads, [screens its head](Self::screen_head) if that
    /// pays, and [interleaves](Self::interleave) its weights.
    ///
    /// # Errors
    /// If the file cannot be read, is damaged, or holds a model that this crate does not run.
    #[cfg(feature = "fs")]
    pub fn open(path: impl AsRef<Path>, threads: usize) -> Result<Self, Error> {
        Self::open_with(path, &ModelOptions::new(threads))
    }

    /// Like [`open`](Self::open), with more to choose.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    #[cfg(feature = "fs")]
    pub fn open_with(path: impl AsRef<Path>, options: &ModelOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        let in_file = |source| Error::File { path: path.to_owned(), source: Box::new(source) };
        let gguf = Gguf::open(path).map_err(|e| in_file(e.into()))?;
        let mut options = options.clone();
        if options.memory.is_some() && options.records.is_none() {
            options.records = RecordFile::find(path)?.map(Arc::new);
        }
        let gguf = match options.memory {
            None => gguf,
            Some(_) => memory::into_memory(gguf, options.records.is_some()).map_err(|e| in_file(e.into()))?,
        };
        let mut model = Self::from_gguf_with(&gguf, &options).map_err(in_file)?;
        model.screen_head(options.head).map_err(in_file)?;
        if model.has_records() {
            model.fit_memory().map_err(in_file)?;
        }
        model.interleave();
        Ok(model)
    }

    /// Reads a model from a parsed file. Its weights stay where they are, and its head is computed whole: see
    /// [`interleave`](Self::interleave) and [`screen_head`](Self::screen_head).
    ///
    /// # Errors
    /// If the file is damaged, or holds a model that this crate does not run.
    pub fn from_gguf(gguf: &Gguf, threads: usize) -> Result<Self, Error> {
        Self::from_gguf_with(gguf, &ModelOptions::new(threads))
    }

    /// Like [`open_with`](Self::open_with), from a parsed file.
    pub fn from_gguf_with(gguf: &Gguf, options: &ModelOptions) -> Result<Self, Error> {
        let meta = gguf.metadata();
        let config = arch::read(meta, options.activation)?;
        let tokenizer = Tokenizer::from_metadata(meta)?;
        let (memory, stored) =
            options.memory.map(|budget| memory::open(gguf, &config, budget)).transpose()?.unzip();
        let weights = Weights::load(gguf, &config, tokenizer.vocab_len(), &stored.unwrap_or_default())?;
        let compute = Compute::new(options.threads);
        let mut model = Self {
            #[cfg(feature = "fs")]
            has_own_predictors: gguf.info("blk.0.fc1.weight").is_some(),
            config,
            weights,
            tokenizer,
            #[cfg(feature = "chat")]
            chat_templates: ChatTemplates::from_metadata(meta),
            name: meta.opt_string("general.name")?.map(str::to_owned),
            step_compute: compute.each(),
            compute,
            fingerprint: crate::sidecar::fingerprint(gguf),
            screen: None,
            memory,
            #[cfg(feature = "grammar")]
            grammar_vocabulary: std::sync::OnceLock::new(),
        };
        #[cfg(feature = "fs")]
        if let (Some(memory), Some(records)) = (&mut model.memory, &options.records) {
            records.check(&model.fingerprint)?;
            memory.records = Some(Arc::clone(records));
        }
        if !model.has_records() {
            model.fit_memory()?;
        }
        Ok(model)
    }

    /// The vocabulary, arranged for grammars.
    #[cfg(feature = "grammar")]
    pub(crate) fn grammar_vocabulary(&self) -> Result<&crate::grammar::Vocabulary, Error> {
        match self.grammar_vocabulary.get() {
            Some(vocabulary) => Ok(vocabulary),
            None => {
                let vocabulary = crate::grammar::Vocabulary::new(&self.tokenizer)?;
                Ok(self.grammar_vocabulary.get_or_init(|| vocabulary))
            }
        }
    }

    /// Shape and constants.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The name that the file gives the model.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The file's chat template for conversations without tools, compiled on first use.
    ///
    /// # Errors
    /// If the file has none, or it is not well-formed.
    #[cfg(feature = "chat")]
    pub fn chat_template(&self) -> Result<&ChatTemplate, Error> {
        Ok(self.chat_templates.get(None, false)?)
    }

    /// All chat templates of the file.
    #[cfg(feature = "chat")]
    pub fn chat_templates(&self) -> &ChatTemplates {
        &self.chat_templates
    }

    /// Entries in the vocabulary: the length of the logits.
    pub fn vocab_len(&self) -> usize {
        self.head().rows()
    }

    /// Kernels and threads.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Kernels and threads for batches of tokens that do not belong together.
    pub(crate) fn step_compute(&self) -> &Compute {
        &self.step_compute
    }

    /// The [fingerprint](crate::sidecar::fingerprint) of the file.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The feed-forward parts of all layers.
    pub fn feed_forwards(&self) -> impl ExactSizeIterator<Item = &FeedForward> + Clone {
        self.weights.layers.iter().map(|l| &l.ffn)
    }

    /// The feed-forward networks of all layers: one per layer, or one per expert.
    pub fn ffns(&self) -> impl Iterator<Item = &SparseFfn> {
        self.feed_forwards().flat_map(FeedForward::networks)
    }

    /// The feed-forward networks of all layers, to be given selectors. Sessions must be made anew afterwards.
    pub fn ffns_mut(&mut self) -> impl Iterator<Item = &mut SparseFfn> {
        self.weights.layers.iter_mut().flat_map(|l| l.ffn.networks_mut())
    }

    /// Computes all layers with another activation.
    pub(crate) fn set_activation(&mut self, activation: FfnActivation) {
        for (layer, spec) in self.weights.layers.iter_mut().zip(&mut self.config.layers) {
            layer.ffn.networks_mut().for_each(|ffn| ffn.set_activation(activation.gate, activation.up));
            let spec = &mut spec.feed_forward;
            (spec.activation, spec.up_activation) = (activation.gate, activation.up);
        }
    }

    /// Calls `f(layer, network)` for all feed-forward networks, on all threads; fails as the first of them that does.
    pub(crate) fn for_each_ffn(
        &mut self,
        f: impl Fn(usize, &mut SparseFfn) -> Result<(), Error> + Sync,
    ) -> Result<(), Error> {
        let pool = &self.compute.pool;
        let layers = self.weights.layers.iter_mut().enumerate();
        let ffns = layers.flat_map(|(i, l)| l.ffn.networks_mut().map(move |ffn| (i, ffn)));
        let mut jobs: Vec<_> = ffns.map(|(i, ffn)| (i, ffn, Ok(()))).collect();
        pool.for_each(&mut vec![(); pool.threads()], &mut jobs, |(), (i, ffn, result)| *result = f(*i, ffn));
        jobs.into_iter().try_for_each(|(_, _, result)| result)
    }

    /// Stores the matrices that are always multiplied as a whole in the way that is fastest on this CPU, on all threads.
    /// Returns the bytes that were moved; no number changes. To be called when the model has its selectors and its screen.
    ///
    /// Matrices whose rows are used one by one stay as they are, and become so again when a selector or a screen needs it.
    pub fn interleave(&mut self) -> usize {
        let with_head = self.screen.is_none();
        #[cfg(feature = "fs")]
        if let Some(experts) = self.memory.as_ref().and_then(|memory| memory.experts.as_ref()) {
            experts.interleave();
        }
        sparse_core::interleave(
            &self.compute,
            self.weights.whole_matrices_mut(with_head),
            sparse_gguf::release,
        )
    }

    /// [`interleave`](Self::interleave) for some feed-forward layers alone.
    pub(crate) fn interleave_ffns(&mut self, which: impl Fn(&SparseFfn) -> bool) {
        let networks = self.weights.layers.iter_mut().flat_map(|l| l.ffn.networks_mut());
        let ffns = networks.filter(|ffn| which(ffn));
        sparse_core::interleave(
            &self.compute,
            ffns.flat_map(SparseFfn::whole_matrices_mut),
            sparse_gguf::release,
        );
    }

    /// Weight bytes that decoding one token reads if no neuron is skipped, the whole head included, KV cache not.
    pub fn bytes_per_token(&self) -> usize {
        let w = &self.weights;
        let layers = w.layers.iter().map(|l| l.mixer.bytes() + l.ffn.bytes());
        layers.sum::<usize>() + self.head().bytes()
    }

    /// The output head, `[vocabulary x embedding]`: its own tensor, or the embedding when they are tied.
    pub fn head(&self) -> &Matrix {
        self.weights.head()
    }

    /// Computes the logits of tokens from what the [head is given](crate::Session::watch_head_inputs): `x`, whose int8 form must
    /// be up to date, to `logits`, `[tokens x vocabulary]`.
    ///
    /// # Panics
    /// If the shapes do not match.
    pub fn logits(&self, x: &Activations, logits: &mut [f32]) {
        crate::decoder::logits(self, &self.compute, x, logits);
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }
}
