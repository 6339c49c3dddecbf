//! What fuzz targets share: the small model that seeds are made of.

use std::sync::{Arc, LazyLock};

use sparse_gguf::Gguf;
use sparse_model::Model;
use sparse_testdata::TinyLlama;

/// The bytes of a small model.
pub static TINY: LazyLock<Vec<u8>> = LazyLock::new(|| TinyLlama::default().build().to_bytes());

/// That model.
pub static MODEL: LazyLock<Arc<Model>> = LazyLock::new(|| {
    let gguf = Gguf::from_bytes(TINY.clone()).expect("a GGUF file");
    Arc::new(Model::from_gguf(&gguf, 1).expect("a model"))
});
