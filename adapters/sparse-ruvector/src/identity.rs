//! What makes the embeddings of two providers comparable.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use ruvector_core::embeddings::{default_space_identity, registry_identity, registry_prompt_templates};
use ruvector_core::{EmbeddingSpaceIdentity, PoolingStrategy, PoolingStrategyName, Result, RuvectorError};
use serde_json::Value;
use sha2::{Digest, Sha256};
use sparse_integration::{EmbeddingConfig, EncoderSparsity, Pooling, SparseEmbeddingProvider};

/// The provider's name in identities.
const PROVIDER: &str = "sparse-ruvector";
/// Counts changes of this project that give other vectors for the same model and options.
const REVISION: u32 = 1;

/// The identity of the space that `provider`, made from `config`, embeds into.
pub(crate) fn of(
    provider: &SparseEmbeddingProvider,
    config: &EmbeddingConfig,
) -> Result<EmbeddingSpaceIdentity> {
    let (path, options) = (&config.model, &config.options);
    let (name, dimensions, encoder) = (provider.name(), provider.dimension(), provider.encoder());
    let mut identity = match registry_prompt_templates(name) {
        Ok(_) => registry_identity(PROVIDER, name, dimensions)?,
        Err(_) => default_space_identity(PROVIDER, name, dimensions),
    };
    let files = Files::of(path)?;
    identity.model_artifact_sha256 = files.weights;
    identity.model_graph_sha256 = files.graph;
    identity.tokenizer_sha256 = files.tokenizer;
    identity.pooling_strategy = match encoder.pooling() {
        [Pooling::Mean] => PoolingStrategy::Named(PoolingStrategyName::Mean),
        [Pooling::Cls] => PoolingStrategy::Named(PoolingStrategyName::Cls),
        other => return Err(load(path, format!("pooling {other:?} has no name in ruvector-core"))),
    };
    identity.normalize = encoder.normalizes();
    identity.truncation_tokens = u32::try_from(encoder.max_tokens()).map_err(|e| load(path, e))?;
    let (format, feed_forward) = (options.format, options.feed_forward.unwrap_or(options.format));
    let sparse = match &options.sparsity {
        EncoderSparsity::Dense => String::new(),
        EncoderSparsity::Sidecar(file) => format!("sidecar-{}/", digest(&[file])?),
        EncoderSparsity::Always(file) => format!("always-{}/", digest(&[file])?),
        EncoderSparsity::Prepared => "prepared/".into(),
        other => {
            return Err(load(
                path,
                format!("sparsity {other:?} has no place in an embedding space's identity"),
            ));
        }
    };
    identity.runtime_revision =
        format!("sparse-inference/{format}-{feed_forward}/{sparse}space-rev-{REVISION}");
    identity.validate()?;
    Ok(identity)
}

/// Digests of what a model consists of, in hexadecimal.
struct Files {
    weights: String,
    graph: String,
    tokenizer: String,
}

impl Files {
    /// Of a sentence-transformers folder, or of a GGUF file, which has all three in it.
    fn of(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            let file = digest(&[path])?;
            return Ok(Self { weights: file.clone(), graph: file.clone(), tokenizer: file });
        }
        // The first module is the transformer; without modules the folder is.
        let modules = path.join("modules.json");
        let folder = match modules.exists() {
            true => {
                let text = fs::read(&modules).map_err(|e| load(&modules, e))?;
                let modules: Value = serde_json::from_slice(&text).map_err(|e| load(&modules, e))?;
                path.join(modules[0]["path"].as_str().unwrap_or_default())
            }
            false => path.to_owned(),
        };
        let file = |name| folder.join(name);
        let mut tokenizer = [
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
            // Says whether texts are made lower case.
            "sentence_bert_config.json",
        ]
        .map(file)
        .to_vec();
        tokenizer.retain(|path| path.exists());
        // One file, or several and their index.
        let mut weights = vec![file("model.safetensors")];
        if !weights[0].exists() {
            let entries = fs::read_dir(&folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
            weights = entries.map_err(|e| load(&folder, e))?.into_iter().map(|entry| entry.path()).collect();
            weights.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
            weights.sort();
        }
        Ok(Self {
            weights: digest(&weights)?,
            graph: digest(&[file("config.json")])?,
            tokenizer: digest(&tokenizer)?,
        })
    }
}

/// The digest of some files, one after the other.
fn digest(files: &[impl AsRef<Path>]) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files.iter().map(AsRef::as_ref) {
        add(&mut hash, path).map_err(|e| load(path, e))?;
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    loop {
        let part = file.fill_buf()?;
        if part.is_empty() {
            return Ok(());
        }
        hash.update(part);
        let read = part.len();
        file.consume(read);
    }
}

fn load(path: &Path, problem: impl Display) -> RuvectorError {
    RuvectorError::ModelLoadError(format!("{}: {problem}", path.display()))
}
