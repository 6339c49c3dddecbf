//! Text in, one vector per text out.

use std::path::{Path, PathBuf};
use std::thread;

use sparse_model::{Encoder, EncoderOptions, Prompt};

use crate::Error;

/// Something that turns texts into vectors whose cosine says how alike the texts are.
///
/// Threads may share it, and it can stand behind a `dyn`.
///
/// ```
/// use sparse_integration::{EmbeddingProvider, Error};
///
/// /// Counts letters: alike if anagrams.
/// struct Letters;
///
/// impl EmbeddingProvider for Letters {
///     fn name(&self) -> &str {
///         "letters"
///     }
///     fn dimension(&self) -> usize {
///         26
///     }
///     fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
///         let count = |letter| text.chars().filter(|c| c.eq_ignore_ascii_case(&letter)).count() as f32;
///         Ok(('a'..='z').map(count).collect())
///     }
/// }
///
/// let provider: &dyn EmbeddingProvider = &Letters;
/// let embeddings = provider.embed_batch(&["listen", "silent"]).unwrap();
/// assert_eq!(embeddings[0], embeddings[1]);
/// ```
pub trait EmbeddingProvider: Send + Sync {
    /// The provider's name: that of the model, say. Embeddings of different names are not to be compared.
    fn name(&self) -> &str;

    /// Values of an embedding.
    fn dimension(&self) -> usize;

    /// The embedding of a text, [`dimension`](Self::dimension) values; as whatever the provider takes texts for.
    ///
    /// # Errors
    /// If there is none; the provider's documentation says when.
    fn embed(&self, text: &str) -> Result<Vec<f32>, Error>;

    /// The embedding of a text that is searched for. As [`embed`](Self::embed), unless the provider tells queries and documents
    /// apart.
    ///
    /// # Errors
    /// As [`embed`](Self::embed).
    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Error> {
        self.embed(text)
    }

    /// The embeddings of texts that are searched in, in their order. As [`embed_batch`](Self::embed_batch), unless the provider
    /// tells queries and documents apart.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), if any text's fails.
    fn embed_documents(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        self.embed_batch(texts)
    }

    /// The embeddings of several texts, in their order. One by one, unless the provider has a faster way.
    ///
    /// # Errors
    /// As [`embed`](Self::embed), if any text's fails.
    fn embed_batch(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        texts.iter().map(|text| self.embed(text)).collect()
    }
}

/// Which model a [`SparseEmbeddingProvider`] is to run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbeddingConfig {
    /// A sentence-transformers folder, or a GGUF file of architecture `bert`.
    pub model: PathBuf,
    /// Storage of the weights, threads, and what is to differ from the model's files.
    pub options: EncoderOptions,
}

impl EmbeddingConfig {
    /// The model at `path`, in int8, on all of the machine's threads.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let mut options = EncoderOptions::default();
        options.threads = thread::available_parallelism().map_or(1, usize::from);
        Self { model: path.into(), options }
    }
}

/// A sentence-embedding model on this machine's CPU.
///
/// Texts get the prompt that the model's folder names for them: its default prompt, or that of queries or documents. For another,
/// see [`Encoder::prompted`]. Texts are cut down to the model's limit, see [`Encoder::embed`]. [`encoder`](Self::encoder) has more, such as streams.
#[derive(Debug)]
pub struct SparseEmbeddingProvider {
    name: String,
    encoder: Encoder,
}

impl SparseEmbeddingProvider {
    /// Loads the model that `config` names. The provider's name is the file's or folder's.
    ///
    /// # Errors
    /// As [`Encoder::open`].
    pub fn new(config: EmbeddingConfig) -> Result<Self, Error> {
        let encoder = Encoder::open(&config.model, &config.options)?;
        Ok(Self { name: name_of(&config.model), encoder })
    }

    /// The name of the model's file or folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Values of an embedding.
    pub fn dimension(&self) -> usize {
        self.encoder.dimension()
    }

    /// The embedding of a text, [`dimension`](Self::dimension) values.
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        Ok(self.encoder.embed(text)?)
    }

    /// The embeddings of several texts, in their order.
    ///
    /// # Errors
    /// As [`Encoder::embed_batch`].
    pub fn embed_batch(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        Ok(self.encoder.embed_batch(texts)?)
    }

    /// The embedding of a text that is searched for, with the model's prompt for queries.
    ///
    /// # Errors
    /// As [`Encoder::embed`].
    pub fn embed_query(&self, text: &str) -> Result<Vec<f32>, Error> {
        Ok(self.encoder.prompted(&Prompt::Query)?.embed(text)?)
    }

    /// The embeddings of texts that are searched in, with the model's prompt for documents.
    ///
    /// # Errors
    /// As [`Encoder::embed_batch`].
    pub fn embed_documents(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        Ok(self.encoder.prompted(&Prompt::Document)?.embed_batch(texts)?)
    }

    /// The model.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

/// The last part of a path, also of `.` and the like.
fn name_of(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    whole.file_name().unwrap_or(whole.as_os_str()).to_string_lossy().into_owned()
}

// The type's own methods have the same names, so that using it takes no import of the trait.
impl EmbeddingProvider for SparseEmbeddingProvider {
    fn name(&self) -> &str {
        self.name()
    }

    fn dimension(&self) -> usize {
        self.dimension()
    }

    fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        self.embed(text)
    }

    fn embed_batch(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        self.embed_batch(texts)
    }

    fn embed_query(&self, text: &str) -> Result<Vec<f32>, Error> {
        self.embed_query(text)
    }

    fn embed_documents(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, Error> {
        self.embed_documents(texts)
    }
}
