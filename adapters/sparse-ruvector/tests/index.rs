//! A tiny model's embeddings in ruvector-core's index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ruvector_core::embeddings::{EmbeddingSpaceAccess, HashEmbedding};
use ruvector_core::types::DbOptions;
use ruvector_core::{
    BoxedEmbeddingProvider, DistanceMetric, EmbeddingProvider, EmbeddingRole, RuvectorError, SearchQuery,
    VectorDB, VectorEntry,
};
use sparse_integration::{EmbeddingConfig, EncoderSparsity};
use sparse_model::sidecar::{EncoderLoss, EncoderSidecar};
use sparse_ruvector::SparseEmbedding;
use sparse_testdata::TinyBert;
use tempfile::TempDir;

const TEXTS: [&str; 6] =
    ["the cat sat on the mat.", "the cats sat", "a dog, 42 cats!", "on the mat", "zzz", "sitting on mats"];

/// A model called `name`.
fn model(folder: &TempDir, name: &str, bert: &TinyBert) -> PathBuf {
    let path = folder.path().join(name);
    bert.write_folder(&path);
    path
}

fn open(path: &Path) -> SparseEmbedding {
    SparseEmbedding::open(EmbeddingConfig::new(path)).unwrap()
}

/// An index in memory that holds `TEXTS`, each under its place.
fn index(provider: &dyn EmbeddingProvider) -> VectorDB {
    let db = VectorDB::new(DbOptions {
        dimensions: provider.dimensions(),
        distance_metric: DistanceMetric::Cosine,
        storage_path: "memory://".into(),
        hnsw_config: None,
        quantization: None,
    })
    .unwrap();
    let vectors = provider.embed_passage_batch(&TEXTS).unwrap().into_iter().enumerate();
    let entries = vectors.map(|(i, vector)| VectorEntry { id: Some(i.to_string()), vector, metadata: None });
    db.insert_batch(entries.collect::<Vec<_>>()).unwrap();
    db
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[test]
fn the_index_finds_texts_in_the_order_of_their_cosines() {
    let folder = TempDir::new().unwrap();
    let provider: BoxedEmbeddingProvider = Arc::new(open(&model(&folder, "tiny-bert", &TinyBert::default())));
    assert_eq!((provider.name(), provider.dimensions()), ("tiny-bert", 64));
    let db = index(&*provider);
    let passages = provider.embed_passage_batch(&TEXTS).unwrap();
    for (i, text) in TEXTS.iter().enumerate() {
        let vector = provider.embed_query(text).unwrap();
        // A model without prompts makes no difference between the two.
        assert_eq!(vector, passages[i]);
        let cosines: Vec<f32> = passages.iter().map(|passage| cosine(&vector, passage)).collect();
        let mut expected: Vec<usize> = (0..TEXTS.len()).collect();
        expected.sort_by(|&a, &b| cosines[b].total_cmp(&cosines[a]));
        let query = SearchQuery { vector, k: TEXTS.len(), filter: None, ef_search: None };
        let found = db.search(query).unwrap();
        let order: Vec<usize> = found.iter().map(|hit| hit.id.parse().unwrap()).collect();
        assert_eq!((order[0], &order), (i, &expected));
        for hit in &found {
            let cosine = cosines[hit.id.parse::<usize>().unwrap()];
            assert!((hit.score - (1.0 - cosine)).abs() < 1e-5, "{text}: {} {cosine}", hit.score);
        }
    }
}

#[test]
fn a_registered_model_gets_its_prompts() {
    let folder = TempDir::new().unwrap();
    let small = TinyBert { embedding: 384, heads: 12, layers: 1, ..TinyBert::default() };
    let provider = open(&model(&folder, "e5-small-v2", &small));
    let plain = |text: &str| provider.provider().embed(text).unwrap();
    assert_eq!(provider.embed_query("the cat").unwrap(), plain("query: the cat"));
    assert_eq!(provider.embed_for(EmbeddingRole::Passage, "the cat").unwrap(), plain("passage: the cat"));
    assert_ne!(plain("query: the cat"), plain("the cat"));
    let batch = provider.embed_query_batch(&["on", "the cat"]).unwrap();
    assert_eq!(batch[1], plain("query: the cat"));

    let wrong = model(&folder, "bge-small-en-v1.5", &TinyBert::default());
    let error = SparseEmbedding::open(EmbeddingConfig::new(wrong)).unwrap_err();
    assert!(
        matches!(error, RuvectorError::InvalidParameter(_)) && error.to_string().contains("384"),
        "{error}"
    );
}

#[test]
fn spaces_are_the_same_if_the_vectors_are() {
    let folder = TempDir::new().unwrap();
    let path = model(&folder, "tiny-bert", &TinyBert::default());
    let space = |config| SparseEmbedding::open(config).unwrap().embedding_space().clone();
    let first = space(EmbeddingConfig::new(&path));
    assert_eq!((first.truncation_tokens, first.output_dimension, first.normalize), (32, 64, true));
    let compatible = |other| EmbeddingSpaceAccess::for_identities(&first, &other).unwrap().corpus_mutation;

    let mut config = EmbeddingConfig::new(&path);
    config.options.threads = 3;
    assert!(compatible(space(config)));
    assert!(!compatible(HashEmbedding::new(64).embedding_space().clone()));
    let mut config = EmbeddingConfig::new(&path);
    config.options.format = "f32".parse().unwrap();
    assert!(!compatible(space(config)));
    let mut config = EmbeddingConfig::new(&path);
    config.options.feed_forward = Some("Bit7".parse().unwrap());
    assert!(!compatible(space(config)));
    let mut config = EmbeddingConfig::new(&path);
    config.options.max_tokens = Some(16);
    assert!(!compatible(space(config)));
    TinyBert { seed: 2, ..TinyBert::default() }.write_folder(&path);
    assert!(!compatible(space(EmbeddingConfig::new(&path))));
}

#[test]
fn what_is_left_out_makes_another_space() {
    let folder = TempDir::new().unwrap();
    let path = model(&folder, "tiny-bert", &TinyBert::default());
    let open = |sparsity| {
        let mut config = EmbeddingConfig::new(&path);
        config.options.sparsity = sparsity;
        SparseEmbedding::open(config).unwrap()
    };
    let prepared = open(EncoderSparsity::Prepared);
    let [one, other] = ["one", "other"].map(|name| folder.path().join(format!("{name}.sparse.gguf")));
    for (file, sentences) in [(&one, 100), (&other, 200)] {
        let encoder = prepared.provider().encoder();
        let layers = encoder.ffns().map(|(_, ffn)| (ffn.selector().clone(), None)).collect();
        let loss = Some(EncoderLoss { mean: 0.0, standard_error: 0.0, sentences });
        EncoderSidecar { fingerprint: encoder.fingerprint().to_owned(), layers, loss }.save(file).unwrap();
    }
    let spaces: Vec<_> = [
        EncoderSparsity::Dense,
        EncoderSparsity::Prepared,
        EncoderSparsity::Sidecar(one.clone()),
        EncoderSparsity::Always(one.clone()),
        EncoderSparsity::Sidecar(other),
    ]
    .into_iter()
    .map(|sparsity| open(sparsity).embedding_space().clone())
    .collect();
    for (i, a) in spaces.iter().enumerate() {
        for (j, b) in spaces.iter().enumerate() {
            let compatible = EmbeddingSpaceAccess::for_identities(a, b).unwrap().corpus_mutation;
            assert_eq!(compatible, i == j, "{} {}", a.runtime_revision, b.runtime_revision);
        }
    }
    // Only the file's content counts.
    let copy = folder.path().join("copy.sparse.gguf");
    std::fs::copy(&one, &copy).unwrap();
    assert_eq!(open(EncoderSparsity::Sidecar(copy)).embedding_space(), &spaces[2]);
}

#[test]
fn a_gguf_file_is_a_model_too_and_what_cannot_be_opened_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, TinyBert::default().gguf().to_bytes()).unwrap();
    let provider = open(&path);
    let identity = provider.embedding_space();
    assert_eq!((identity.model_id.as_str(), identity.truncation_tokens), ("tiny.gguf", 48));
    assert_eq!(identity.model_artifact_sha256, identity.tokenizer_sha256);
    let vector = provider.embed_query("zzz").unwrap();
    let found = index(&provider).search(SearchQuery { vector, k: 1, filter: None, ef_search: None }).unwrap();
    assert_eq!(found[0].id, "4");

    let error = SparseEmbedding::open(EmbeddingConfig::new("/no/such/model")).unwrap_err();
    assert!(error.to_string().contains("/no/such/model"), "{error}");
}
