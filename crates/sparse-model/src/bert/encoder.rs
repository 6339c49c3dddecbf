//! Text in, one vector per text out.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};
use sparse_core::{Compute, Pool, Selector, SparseFfn};
use sparse_gguf::Gguf;
use tokenizers::TruncationDirection;

#[cfg(feature = "fs")]
use super::files::Disk;
use super::files::{Files, ModelFiles, in_file};
use super::folder::Folder;
use super::head::{Head, Step};
use super::prompt::{Prefix, Prompt, Prompted, Prompts};
use super::sparse::{FfnTiming, Stopwatch};
use super::stream::EmbedStream;
use super::tensors::{Source, Tensors};
use super::text::{self, TextTokens};
use super::weights::Weights;
use super::{BertConfig, EncoderOptions, EncoderSparsity, Pass, Pooling, Scratch};
use crate::Error;
use crate::sidecar::{EncoderSidecar, Placement, hex};

/// Tokens that a thread computes at a time, about: enough to read each weight seldom, few enough that what the layers hand
/// on stays in a cache.
const GROUP: usize = 256;
/// Texts per thread that are sorted by length and computed before the next ones are looked at.
const WINDOW: usize = 128;

/// A sentence-embedding model: a BERT encoder, its tokenizer, and how the vectors of a text's tokens become one.
///
/// Threads may share it by reference. The embedding of a text depends neither on the texts it is computed with, nor on the
/// number of threads: not in a single bit. (With weights in blocks of F16 or BF16, whose products with few and with many
/// tokens add in another order, values differ by about 1e-6.) With [`EncoderSparsity::Sidecar`] it may depend on how many tokens
/// are computed together.
///
/// ```no_run
/// use sparse_model::{Encoder, EncoderOptions};
///
/// # fn main() -> Result<(), sparse_model::Error> {
/// let encoder = Encoder::open("all-MiniLM-L6-v2", &EncoderOptions::default())?;
/// let [a, b] = &encoder.embed_batch(&["A cat sleeps.", "A kitten is resting."])?[..] else { unreachable!() };
/// let cosine: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Encoder {
    config: BertConfig,
    weights: Weights,
    text: TextTokens,
    head: Head,
    prompts: Prompts,
    /// The default prompt.
    prefix: Prefix,
    fingerprint: String,
    options: EncoderOptions,
    compute: Compute,
    /// The same kernels on the calling thread alone.
    alone: Compute,
    /// Buffers that no one uses at the moment.
    scratch: Mutex<Vec<Scratch>>,
}

/// Sentences that are computed together.
struct Group<'a> {
    /// Which texts they are.
    texts: Vec<usize>,
    ids: Vec<&'a [u32]>,
    embeddings: Vec<Vec<f32>>,
}

impl Encoder {
    /// Opens a model: a folder as the sentence-transformers library writes it (`config.json`, `tokenizer.json`,
    /// `model.safetensors`, and those beside them that it has), or a GGUF file of architecture `bert`.
    ///
    /// A GGUF file says neither how long the texts were that the model was trained on, nor whether embeddings are to be
    /// scaled: texts are cut down to as many tokens as there are positions, and embeddings are scaled to length 1.
    ///
    /// # Errors
    /// If a file is missing, cannot be read or is damaged (the error names it), or if the model is none that this crate runs.
    #[cfg(feature = "fs")]
    pub fn open(path: impl AsRef<Path>, options: &EncoderOptions) -> Result<Self, Error> {
        let path = path.as_ref();
        if !path.is_dir() {
            let gguf = Gguf::open(path).map_err(|e| in_file(path, e.into()))?;
            return Self::from_gguf(&gguf, options).map_err(|e| in_file(path, e));
        }
        Self::from_folder(Files(&Disk), path, options)
    }

    /// Reads a model from the files of a folder as the sentence-transformers library writes it, wherever they are.
    ///
    /// Weights are read tensor by tensor and converted: the largest file is never in memory because of this.
    ///
    /// # Errors
    /// If a file is missing or damaged (the error names it), or if the model is none that this crate runs.
    pub fn from_files(files: &dyn ModelFiles, options: &EncoderOptions) -> Result<Self, Error> {
        Self::from_folder(Files(files), Path::new(""), options)
    }

    fn from_folder(files: Files<'_>, path: &Path, options: &EncoderOptions) -> Result<Self, Error> {
        let mut folder = Folder::open(files, path)?;
        if folder.lowercase {
            text::lowercase_first(&mut folder.tokenizer)?;
        }
        let limit = options.max_tokens.unwrap_or(folder.max_tokens);
        let text = TextTokens::new(folder.tokenizer, folder.config.vocabulary, limit, folder.truncation)
            .map_err(|e| in_file(path, e))?;
        Self::new(&folder.tensors, folder.config, text, folder.head, folder.prompts, options)
            .map_err(|e| in_file(&folder.tensors_path, e))
    }

    /// Reads a model from a parsed GGUF file of architecture `bert`.
    ///
    /// # Errors
    /// If the file is damaged, or holds a model that this crate does not run.
    pub fn from_gguf(gguf: &Gguf, options: &EncoderOptions) -> Result<Self, Error> {
        let meta = gguf.metadata();
        let config = BertConfig::from_metadata(meta)?;
        let pooling = match meta.opt_u32("bert.pooling_type")? {
            None | Some(1) => Pooling::Mean,
            Some(2) => Pooling::Cls,
            Some(3) => Pooling::LastToken,
            Some(other) => {
                let problem = format!("{other} is not supported (supported: 1, mean; 2, cls; 3, last token)");
                return Err(Error::metadata("bert.pooling_type", problem));
            }
        };
        let limit = options.max_tokens.unwrap_or(config.positions);
        let tokenizer = text::from_metadata(meta)?;
        let text = TextTokens::new(tokenizer, config.vocabulary, limit, TruncationDirection::Right)?;
        let mut head = Head::new(config.embedding, vec![pooling]);
        head.steps.push(Step::Normalize);
        Self::new(gguf, config, text, head, Prompts::default(), options)
    }

    fn new(
        source: &dyn Source,
        config: BertConfig,
        text: TextTokens,
        mut head: Head,
        prompts: Prompts,
        options: &EncoderOptions,
    ) -> Result<Self, Error> {
        if text.limit() > config.positions {
            let problem = format!("is {}, but the model has {} positions", text.limit(), config.positions);
            return Err(Error::setting("the number of tokens that texts are cut down to", problem));
        }
        if let Some(pooling) = options.pooling {
            head.set_pooling(pooling)?;
        }
        if let Some(normalize) = options.normalize {
            head.set_normalize(normalize);
        }
        let tensors = Tensors::new(source);
        let weights = Weights::load(&tensors, &config, options)?;
        let compute = Compute::new(options.threads);
        let mut encoder = Self {
            fingerprint: tensors.fingerprint(&config)?,
            config,
            weights,
            options: options.clone(),
            prefix: Prefix::new(prompts.text(&Prompt::Default)?, &text)?,
            prompts,
            text,
            head,
            alone: Compute::with(compute.kernels, Pool::new(1)),
            compute,
            scratch: Mutex::default(),
        };
        let placed: Option<(EncoderSidecar, Placement)> = match &options.sparsity {
            #[cfg(feature = "fs")]
            EncoderSparsity::Sidecar(path) => {
                Some((EncoderSidecar::open(path, &encoder)?, Placement::Measured))
            }
            #[cfg(feature = "fs")]
            EncoderSparsity::Always(path) => {
                Some((EncoderSidecar::open(path, &encoder)?, Placement::AsCalibrated))
            }
            EncoderSparsity::Dense | EncoderSparsity::Prepared => None,
        };
        if let Some((sidecar, placement)) = placed {
            encoder.apply(sidecar, placement)?;
        }
        Ok(encoder)
    }

    /// Leaves out the neurons that `sidecar` says, in the layers that `placement` says. The encoder must have been loaded
    /// as [`EncoderSparsity::Prepared`], and is no longer ready for other selectors afterwards.
    ///
    /// # Errors
    /// If the sidecar was made for another model, or a selector does not fit.
    pub fn apply(&mut self, sidecar: EncoderSidecar, placement: Placement) -> Result<(), Error> {
        sidecar.apply(self)?;
        self.drop_dense_ffns();
        if placement == Placement::Measured {
            self.measure_sparse_tokens();
        }
        Ok(())
    }

    /// Forgets the second copy of the weights of layers that leave out nothing.
    fn drop_dense_ffns(&mut self) {
        for layer in &mut self.weights.layers {
            layer.sparse.take_if(|s| matches!(s.ffn.selector(), Selector::Dense));
        }
    }

    /// Measures for every layer up to how many tokens leaving out neurons is faster, and forgets what never is.
    fn measure_sparse_tokens(&mut self) {
        let mut watch = Stopwatch::new(&self.config, &self.weights, &self.alone);
        let most: Vec<usize> = (0..self.config.layers).map(|i| watch.most(i)).collect();
        for (layer, most) in self.weights.layers.iter_mut().zip(most) {
            layer.sparse.take_if(|_| most == 0);
            if let Some(sparse) = &mut layer.sparse {
                sparse.most = most;
            }
        }
    }

    /// Tells the model from others, by its configuration and a sample of its weights: the first and the last row of every
    /// matrix. The same values have the same fingerprint, whatever file they are in and however they are stored in memory.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Tells embeddings apart that must not be compared: a digest of the [`fingerprint`](Self::fingerprint), the tokenizer, what
    /// follows on the transformer, and the options. Prompts are not part of it.
    ///
    /// # Errors
    /// If the file of the neurons to leave out cannot be read any more.
    pub fn embedding_space(&self) -> Result<String, Error> {
        let mut hash = Sha256::new();
        let EncoderOptions { format, feed_forward, sparsity, .. } = &self.options;
        hash.update(format!("{}\n{format:?} {feed_forward:?}\n", self.fingerprint));
        match sparsity {
            EncoderSparsity::Dense | EncoderSparsity::Prepared => hash.update("dense\n"),
            #[cfg(feature = "fs")]
            EncoderSparsity::Sidecar(path) | EncoderSparsity::Always(path) => {
                hash.update(matches!(sparsity, EncoderSparsity::Always(_)).to_string());
                hash.update(std::fs::read(path)?);
            }
        }
        self.head.digest(&mut hash);
        hash.update(self.text.to_json()?);
        Ok(hex(hash))
    }

    /// The feed-forward layers that may leave neurons out, with their numbers: none in a dense encoder.
    pub fn ffns(&self) -> impl Iterator<Item = (usize, &SparseFfn)> {
        let layers = self.weights.layers.iter().enumerate();
        layers.filter_map(|(i, layer)| Some((i, &layer.sparse.as_ref()?.ffn)))
    }

    /// Like [`ffns`](Self::ffns), to give them selectors.
    pub fn ffns_mut(&mut self) -> impl Iterator<Item = (usize, &mut SparseFfn)> {
        let layers = self.weights.layers.iter_mut().enumerate();
        layers.filter_map(|(i, layer)| Some((i, &mut layer.sparse.as_mut()?.ffn)))
    }

    /// Up to how many tokens computed together each layer leaves neurons out: zero if it never does, `usize::MAX` if always.
    pub fn sparse_tokens(&self) -> Vec<usize> {
        self.weights.layers.iter().map(|layer| layer.sparse.as_ref().map_or(0, |s| s.most)).collect()
    }

    /// Times the feed-forward layers on so many tokens of random words, 1 to 256, on one thread, with all neurons and with
    /// those that the selectors choose.
    pub fn time_ffns(&self, tokens: &[usize]) -> Vec<FfnTiming> {
        let mut watch = Stopwatch::new(&self.config, &self.weights, &self.alone);
        tokens.iter().map(|tokens| watch.all(*tokens)).collect()
    }

    /// Embeds `texts`, one after the other, and shows `watch` what every feed-forward layer is given: number of the layer
    /// and `[tokens x width]`.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn watch_ffn_inputs<T: AsRef<str>>(
        &self,
        texts: &[T],
        mut watch: impl FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        let mut scratch = self.take_scratch(1);
        let pass = Pass { config: &self.config, weights: &self.weights, compute: &self.compute };
        for text in texts {
            let ids = self.text.encode(&self.prefix.text, text.as_ref())?;
            if !ids.is_empty() {
                pass.run_watched(&[&ids], &mut scratch[0], &mut |i, x| watch(i, x.x()));
            }
        }
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).extend(scratch);
        Ok(())
    }

    /// Shape and constants.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Values of an embedding.
    pub fn dimension(&self) -> usize {
        self.head.dimension()
    }

    /// Tokens that texts are cut down to, those that the tokenizer adds included.
    pub fn max_tokens(&self) -> usize {
        self.text.limit()
    }

    /// How the vectors of a text's tokens become one. Of several ways the results stand one behind the other.
    pub fn pooling(&self) -> &[Pooling] {
        &self.head.pooling
    }

    /// Whether embeddings are scaled to length 1.
    pub fn normalizes(&self) -> bool {
        self.head.normalizes()
    }

    /// Names of the model's prompts.
    pub fn prompts(&self) -> impl Iterator<Item = &str> {
        self.prompts.names()
    }

    /// The encoder with a prompt: what stands before every text.
    ///
    /// ```no_run
    /// use sparse_model::{Encoder, EncoderOptions, Prompt};
    ///
    /// # fn main() -> Result<(), sparse_model::Error> {
    /// let encoder = Encoder::open("multilingual-e5-small", &EncoderOptions::default())?;
    /// let query = encoder.prompted(&Prompt::Query)?.embed("how do bees find home")?;
    /// let document = encoder.prompted(&Prompt::Document)?.embed("Bees find home by the sun.")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// If the model has no prompt of that name, or the tokenizer fails.
    pub fn prompted(&self, prompt: &Prompt) -> Result<Prompted<'_>, Error> {
        let prefix = Prefix::new(self.prompts.text(prompt)?, &self.text)?;
        Ok(Prompted::new(self, prefix))
    }

    /// The encoder with the model's default prompt.
    fn by_default(&self) -> Prompted<'_> {
        Prompted::new(self, self.prefix.clone())
    }

    pub(super) fn text(&self) -> &TextTokens {
        &self.text
    }

    /// Kernels and threads.
    pub fn compute(&self) -> &Compute {
        &self.compute
    }

    /// Bytes of weights in memory.
    pub fn bytes(&self) -> usize {
        self.weights.bytes()
    }

    /// The ids that `text` is computed from, with those of the model's default prompt, cut down to [`max_tokens`](Self::max_tokens).
    ///
    /// # Errors
    /// If the tokenizer fails, which those of BERT models do not.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.by_default().tokens(text)
    }

    /// The embedding of a text, behind the model's default prompt if it has one; [`prompted`](Self::prompted) is for others.
    ///
    /// Only its first [`max_tokens`](Self::max_tokens) tokens count. An empty text, or one of control characters only, has an
    /// embedding too: what the model makes of the tokens that stand around any text. (If there are none, it is all zeros.)
    ///
    /// # Errors
    /// If the result is not finite, which damaged weights lead to, or the tokenizer fails.
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        self.by_default().embed(text)
    }

    /// The embeddings of many texts, in their order: much faster than one by one.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), if any text's fails.
    pub fn embed_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<Vec<Vec<f32>>, Error> {
        self.embed_stream(texts).collect()
    }

    /// The embeddings of any number of texts, in their order, computed in batches as they are asked for: memory does not grow
    /// with their number, and who stops asking has stopped the computation.
    pub fn embed_stream<I>(&self, texts: I) -> EmbedStream<'_, I::IntoIter>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.by_default().embed_stream(texts)
    }

    /// Texts that are computed before the next ones are looked at.
    pub(super) fn window_len(&self) -> usize {
        WINDOW * self.compute.pool.threads()
    }

    /// The embeddings of texts, all of which are in memory together.
    pub(super) fn window(&self, prefix: &Prefix, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        let pool = &self.compute.pool;
        let mut encoded: Vec<(&str, Result<Vec<u32>, Error>)> =
            texts.iter().map(|text| (*text, Ok(Vec::new()))).collect();
        pool.for_each(&mut vec![(); pool.threads()], &mut encoded, |(), (text, ids)| {
            *ids = self.text.encode(&prefix.text, text);
        });
        let ids = encoded.into_iter().map(|(_, ids)| ids).collect::<Result<Vec<_>, _>>()?;

        // Whole groups for each thread as long as there are some for all, and then all threads for each group.
        let mut groups = groups(&ids);
        let together = groups.len() / pool.threads() * pool.threads();
        let (together, rest) = groups.split_at_mut(together);
        let mut scratch = self.take_scratch(if together.is_empty() { 1 } else { pool.threads() });
        if !together.is_empty() {
            pool.for_each(&mut scratch, together, |scratch, group| {
                self.embed_group(&self.alone, scratch, prefix, group)
            });
        }
        rest.iter_mut().for_each(|group| self.embed_group(&self.compute, &mut scratch[0], prefix, group));
        self.scratch.lock().unwrap_or_else(PoisonError::into_inner).extend(scratch);

        let mut embeddings = vec![vec![0.0; self.dimension()]; texts.len()];
        for group in groups {
            for (text, embedding) in group.texts.into_iter().zip(group.embeddings) {
                embeddings[text] = embedding;
            }
        }
        match embeddings.iter().position(|e| e.iter().any(|v| !v.is_finite())) {
            None => Ok(embeddings),
            Some(text) => Err(Error::EmbeddingNotFinite { text }),
        }
    }

    /// Computes a group's embeddings.
    fn embed_group(&self, compute: &Compute, scratch: &mut Scratch, prefix: &Prefix, group: &mut Group<'_>) {
        Pass { config: &self.config, weights: &self.weights, compute }.run(&group.ids, scratch);
        let mut vectors = scratch.x.x();
        for ids in &group.ids {
            let of_text =
                vectors.split_off(..ids.len() * self.config.embedding).expect("vectors of all texts");
            group.embeddings.push(self.head.embed(compute.kernels, of_text, prefix.tokens));
        }
    }

    /// Buffers for `n` threads.
    fn take_scratch(&self, n: usize) -> Vec<Scratch> {
        let mut free = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let used = free.len().saturating_sub(n);
        let mut taken = free.split_off(used);
        taken.resize_with(n, Scratch::default);
        taken
    }
}

/// Sorts sentences that have tokens into groups of about [`GROUP`] tokens, the longest first.
fn groups(ids: &[Vec<u32>]) -> Vec<Group<'_>> {
    let mut order: Vec<usize> = (0..ids.len()).filter(|&i| !ids[i].is_empty()).collect();
    order.sort_by_key(|&i| Reverse(ids[i].len()));
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut tokens = GROUP;
    for i in order {
        if tokens + ids[i].len() > GROUP {
            groups.push(Group { texts: Vec::new(), ids: Vec::new(), embeddings: Vec::new() });
            tokens = 0;
        }
        tokens += ids[i].len();
        let group = groups.last_mut().expect("one was pushed for the first sentence");
        group.texts.push(i);
        group.ids.push(&ids[i]);
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_hold_every_sentence_with_tokens_once_and_have_a_bounded_size() {
        let lens = [3, 0, 300, 256, 1, 100, 100, 100, 255, 512, 0, 2];
        let ids: Vec<Vec<u32>> = lens.iter().map(|&n| vec![7; n]).collect();
        let groups = groups(&ids);
        let mut texts: Vec<usize> = groups.iter().flat_map(|g| g.texts.iter().copied()).collect();
        texts.sort_unstable();
        assert_eq!(texts, [0, 2, 3, 4, 5, 6, 7, 8, 9, 11]);
        for group in &groups {
            let tokens: usize = group.ids.iter().map(|ids| ids.len()).sum();
            assert!(tokens <= GROUP || group.ids.len() == 1, "{tokens} tokens");
            assert!(
                group.texts.iter().zip(&group.ids).all(|(&text, sentence)| ids[text].len() == sentence.len())
            );
        }
    }
}
