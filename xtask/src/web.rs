//! `web`: the demonstration page.

use std::net::TcpListener;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, ensure};
use axum::Router;
use tower_http::services::ServeDir;

use crate::wasm;

/// Serves examples/web with the packages of `cargo xtask wasm`, and the models of `cargo xtask fetch`, on this machine.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The port; 0 is any that is free.
    #[arg(long, default_value_t = 8000)]
    port: u16,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let server = Server::bind(args.port)?;
    println!("{}", server.url);
    server.run()
}

/// A server of static files, on the loopback alone.
pub(crate) struct Server {
    pub(crate) url: String,
    listener: TcpListener,
    site: PathBuf,
}

impl Server {
    pub(crate) fn bind(port: u16) -> Result<Self> {
        let site = wasm::folder().join("site");
        ensure!(site.exists(), "{} is not there: run `cargo xtask wasm`", site.display());
        let listener = TcpListener::bind(("127.0.0.1", port))
            .with_context(|| format!("cannot listen on port {port}"))?;
        listener.set_nonblocking(true)?;
        Ok(Self { url: format!("http://{}/", listener.local_addr()?), listener, site })
    }

    /// Serves until the program ends.
    pub(crate) fn run(self) -> Result<()> {
        let files = Router::new()
            .nest_service("/models", ServeDir::new(crate::models()))
            .fallback_service(ServeDir::new(self.site));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            axum::serve(listener, files).await
        })?;
        Ok(())
    }

    /// Serves in the background; returns the address.
    pub(crate) fn start(self) -> String {
        let url = self.url.clone();
        thread::spawn(move || self.run());
        url
    }
}
