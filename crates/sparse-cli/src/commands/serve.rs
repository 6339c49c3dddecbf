//! `sparse serve`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sparse_integration::{EmbeddingConfig, EngineOptions, SparseEmbeddingProvider, SparseInferenceBackend};
use sparse_model::Placement;
use sparse_serve::{Server, ServerOptions};

use crate::args::ServeArgs;
use crate::exit::End;
use crate::{interrupt, load};

pub(crate) fn run(args: &ServeArgs) -> anyhow::Result<End> {
    let loaded = load::model(args.model.model.as_deref(), &args.sparse, &args.compute, Placement::Measured)?;
    let mut options = EngineOptions::default();
    options.context = args.context;
    options.kv = args.kv;
    options.parallel = args.parallel;
    options.queue = args.queue;
    options.prefix_bytes = args.prefix_mb << 20;
    let name =
        args.name.clone().unwrap_or(match args.model.model.as_deref().and_then(|path| path.file_stem()) {
            Some(stem) => stem.to_string_lossy().into_owned(),
            None => "story".into(),
        });
    let backend = SparseInferenceBackend::with_model(name, loaded.model, options)?;
    let mut server = ServerOptions::default();
    server.key = args.api_key.clone();
    server.parse_special = args.parse_special;
    if let Some(path) = &args.encoder {
        let mut config = EmbeddingConfig::new(path);
        config.options.threads = args.compute.threads();
        let provider = SparseEmbeddingProvider::new(config).context("cannot load the embedding model")?;
        server.embeddings = Some(Arc::new(provider));
    }
    let (host, port) = (args.host.as_str(), args.port);
    let server = Server::bind((host, port), backend, server)
        .with_context(|| format!("cannot listen on {host}:{port}"))?;
    interrupt::handle()?;
    eprintln!("listening on http://{}", server.address());
    server.run(async {
        while !interrupt::requested() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        eprintln!("no more requests are taken; Ctrl-C again ends at once");
    })?;
    Ok(End::Finished)
}
