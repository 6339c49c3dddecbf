//! Bodies of requests: each gets an answer that is no server error.
#![no_main]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use sparse_fuzz::MODEL;
use sparse_integration::{EngineOptions, SparseInferenceBackend};
use sparse_serve::{Server, ServerOptions};

static ADDRESS: LazyLock<SocketAddr> = LazyLock::new(|| {
    let backend = SparseInferenceBackend::with_model("tiny", Arc::clone(&MODEL), EngineOptions::default());
    let server = Server::bind("127.0.0.1:0", backend.expect("a backend"), ServerOptions::default());
    let server = server.expect("a server");
    let address = server.address();
    std::thread::spawn(move || server.run(std::future::pending()));
    address
});

fuzz_target!(|data: &[u8]| {
    for path in ["chat/completions", "completions"] {
        let mut stream = TcpStream::connect(*ADDRESS).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
        let head = format!(
            "POST /v1/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            data.len()
        );
        stream.write_all(&[head.as_bytes(), data].concat()).expect("a request");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        let answer = String::from_utf8(answer).expect("an answer in UTF-8");
        let ok = answer.starts_with("HTTP/1.1 2") || answer.starts_with("HTTP/1.1 4");
        assert!(ok, "{answer}");
    }
});
