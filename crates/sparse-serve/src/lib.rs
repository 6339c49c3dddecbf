//! An HTTP server with OpenAI's interface for models on this machine.
//!
//! | path | |
//! |---|---|
//! | `POST /v1/chat/completions` | answers to conversations, in the format of the model's chat template |
//! | `POST /v1/completions` | continuations of texts |
//! | `POST /v1/embeddings` | vectors of texts, if there is an embedding model |
//! | `GET /v1/models` | the models |
//! | `GET /health` | whether requests are taken |
//! | `GET /metrics` | numbers for Prometheus |
//!
//! ```no_run
//! use sparse_integration::SparseInferenceBackend;
//! use sparse_serve::{Server, ServerOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let backend = SparseInferenceBackend::new("model.gguf")?;
//! let server = Server::bind("127.0.0.1:8080", backend, ServerOptions::default())?;
//! println!("listening on http://{}", server.address());
//! server.run(std::future::pending())?;
//! # Ok(())
//! # }
//! ```
#![deny(unsafe_code)]

mod api;
mod connections;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sparse_integration::{EmbeddingProvider, SparseInferenceBackend};

/// How a server works.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ServerOptions {
    /// What clients have to send as `Authorization: Bearer KEY`, if anything.
    pub key: Option<String>,
    /// The model for embeddings.
    pub embeddings: Option<Arc<dyn EmbeddingProvider>>,
    /// Read the names of control tokens in what clients send, such as `<|im_end|>`, as those tokens.
    pub parse_special: bool,
    /// What clients may ask for.
    pub limits: Limits,
}

/// What clients may ask for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Connections at a time; others wait to be accepted.
    pub connections: usize,
    /// Time that a client may take for the head of a request, and as long again for its body.
    pub read: Duration,
    /// Time after which a client that reads nothing is dropped.
    pub write: Duration,
    /// Time that answers may still take when the server is told to stop.
    pub grace: Duration,
    /// Messages of a conversation.
    pub messages: usize,
    /// Tools of a conversation.
    pub tools: usize,
    /// Texts of a request for completions.
    pub prompts: usize,
    /// Texts of a request for embeddings.
    pub inputs: usize,
    /// Answers to one prompt.
    pub choices: usize,
    /// Stop strings, and the bytes of each.
    pub stops: (usize, usize),
    /// Entries of a logit bias.
    pub biases: usize,
    /// Most probable tokens to be reported.
    pub top_logprobs: usize,
    /// Bytes of a JSON schema or another grammar.
    pub grammar: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 4 << 20,
            connections: 256,
            read: Duration::from_secs(20),
            write: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            messages: 1024,
            tools: 128,
            prompts: 32,
            inputs: 2048,
            choices: 8,
            stops: (16, 1024),
            biases: 1024,
            top_logprobs: 20,
            grammar: 64 << 10,
        }
    }
}

impl std::fmt::Debug for ServerOptions {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerOptions").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    service: Arc<Service>,
}

/// What all requests share.
struct Service {
    backend: SparseInferenceBackend,
    options: ServerOptions,
    /// Seconds since 1970 when it began.
    created: u64,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `address`, such as `127.0.0.1:8080`; port 0 is a free one.
    ///
    /// # Errors
    /// If the address cannot be used.
    pub fn bind(
        address: impl ToSocketAddrs,
        backend: SparseInferenceBackend,
        options: ServerOptions,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let service = Service { backend, options, created: seconds() };
        Ok(Self { address: listener.local_addr()?, listener, service: Arc::new(service) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready; then takes no more requests, and ends when those that it has are answered or the
    /// [grace](Limits::grace) is over.
    ///
    /// # Errors
    /// If the system has no threads or sockets to give.
    pub fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let Self { listener, service, .. } = self;
        // The models' threads compute: these only carry bytes.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let result = runtime.block_on(connections::serve(listener, service, stop));
        // What still blocks is of no use to anyone.
        runtime.shutdown_background();
        result
    }
}

/// Seconds since 1970.
fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
