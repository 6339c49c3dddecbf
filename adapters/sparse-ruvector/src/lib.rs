//! Sentence embeddings of [`sparse_integration`] behind [`ruvector_core`]'s [`EmbeddingProvider`].
//!
//! ```no_run
//! use ruvector_core::types::DbOptions;
//! use ruvector_core::{EmbeddingProvider, SearchQuery, VectorDB, VectorEntry};
//! use sparse_integration::EmbeddingConfig;
//! use sparse_ruvector::SparseEmbedding;
//!
//! # fn main() -> ruvector_core::Result<()> {
//! let provider = SparseEmbedding::open(EmbeddingConfig::new("models/all-MiniLM-L6-v2"))?;
//! let db = VectorDB::new(DbOptions { dimensions: provider.dimensions(), ..DbOptions::default() })?;
//! let vector = provider.embed_passage("A cat sleeps.")?;
//! db.insert(VectorEntry { id: Some("cat".into()), vector, metadata: None })?;
//! let vector = provider.embed_query("What does the cat do?")?;
//! let nearest = db.search(SearchQuery { vector, k: 1, filter: None, ef_search: None })?;
//! # Ok(())
//! # }
//! ```

mod identity;

use ruvector_core::embeddings::apply_prompt_template;
use ruvector_core::{EmbeddingProvider, EmbeddingRole, EmbeddingSpaceIdentity, Result, RuvectorError};
use sparse_integration::{EmbeddingConfig, Prompt, Prompted, SparseEmbeddingProvider};

/// A sentence-embedding model on this machine's CPU, for `ruvector_core`.
///
/// Its [`embedding_space`](EmbeddingProvider::embedding_space) has the SHA-256 digests of the model's own files, and what
/// was chosen when it was opened: storage of the weights, neurons to leave out (the sidecar's digest, and whether it is used
/// always or where it is faster), pooling, scaling, and the length that texts are cut down to. Two providers have the same
/// space if their embeddings may be compared.
///
/// A model whose name, that of its folder or file, `ruvector_core` has registered gets the prompts registered there: the
/// queries and passages of `e5-small-v2`, say, are told apart by a prefix. Others get texts as they are, whatever their role.
#[derive(Debug)]
pub struct SparseEmbedding {
    provider: SparseEmbeddingProvider,
    identity: EmbeddingSpaceIdentity,
}

impl SparseEmbedding {
    /// Loads the model that `config` names, and computes the digests of its files.
    ///
    /// # Errors
    /// If a file cannot be read or the model is none that can be run, or if it has the name of a registered model, but not
    /// its number of dimensions.
    pub fn open(config: EmbeddingConfig) -> Result<Self> {
        let provider = SparseEmbeddingProvider::new(config.clone())
            .map_err(|e| RuvectorError::ModelLoadError(e.to_string()))?;
        let identity = identity::of(&provider, &config)?;
        Ok(Self { provider, identity })
    }

    /// The model without the prompts of its folder: the registered ones are put before texts already.
    fn plain(&self) -> Result<Prompted<'_>> {
        self.provider.encoder().prompted(&Prompt::None).map_err(inference)
    }

    /// The model.
    pub fn provider(&self) -> &SparseEmbeddingProvider {
        &self.provider
    }
}

impl EmbeddingProvider for SparseEmbedding {
    fn embed_for(&self, role: EmbeddingRole, text: &str) -> Result<Vec<f32>> {
        let text = apply_prompt_template(&self.identity, role, text)?;
        self.plain()?.embed(&text).map_err(inference)
    }

    fn embed_batch_for(&self, role: EmbeddingRole, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let texts = texts.iter().map(|text| apply_prompt_template(&self.identity, role, text));
        let texts = texts.collect::<Result<Vec<_>>>()?;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        self.plain()?.embed_batch(&texts).map_err(inference)
    }

    fn embedding_space(&self) -> &EmbeddingSpaceIdentity {
        &self.identity
    }

    fn dimensions(&self) -> usize {
        self.provider.dimension()
    }

    fn name(&self) -> &str {
        self.provider.name()
    }
}

fn inference(error: impl std::fmt::Display) -> RuvectorError {
    RuvectorError::ModelInferenceError(error.to_string())
}
