//! Providers over a tiny model.

use sparse_integration::{EmbeddingConfig, EmbeddingProvider, SparseEmbeddingProvider};
use sparse_testdata::TinyBert;

#[test]
fn a_provider_gives_what_its_encoder_gives_also_from_other_threads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny-bert");
    TinyBert::default().write_folder(&path);
    let provider = SparseEmbeddingProvider::new(EmbeddingConfig::new(&path)).unwrap();
    let expected = provider.encoder().embed("the cat").unwrap();
    let provider: Box<dyn EmbeddingProvider> = Box::new(provider);
    assert_eq!((provider.name(), provider.dimension()), ("tiny-bert", 64));
    let texts = ["on the mat", "the cat"];
    let embeddings =
        std::thread::scope(|s| s.spawn(|| provider.embed_batch(&texts)).join()).unwrap().unwrap();
    assert_eq!(embeddings[1], expected);
    assert_eq!(embeddings[0], provider.embed(texts[0]).unwrap());
    let length: f32 = expected.iter().map(|v| v * v).sum();
    assert!((length - 1.0).abs() < 1e-5, "{length}");
}

#[test]
fn a_model_that_is_not_there_is_an_error_that_names_it() {
    let error = SparseEmbeddingProvider::new(EmbeddingConfig::new("/no/such/model")).unwrap_err();
    assert!(error.to_string().contains("/no/such/model"), "{error}");
}
