//! The server on the loopback, asked well and badly.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use sparse_gguf::Gguf;
use sparse_integration::{
    EmbeddingProvider, EngineOptions, Error, GenerateOptions, SamplerConfig, SparseInferenceBackend,
};
use sparse_model::{MemoryBudget, Model, ModelOptions};
use sparse_serve::{Server, ServerOptions};
use sparse_testdata::TinyLlama;
use tokio::sync::oneshot;

const CONTEXT: usize = 1024;

/// A server that ends with the test.
struct Running {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Embeds a text as its length.
struct Lengths;

impl EmbeddingProvider for Lengths {
    fn name(&self) -> &str {
        "lengths"
    }
    fn dimension(&self) -> usize {
        2
    }
    fn embed(&self, text: &str) -> Result<Vec<f32>, Error> {
        Ok(vec![text.len() as f32, 0.5])
    }
}

fn model(context: usize) -> Arc<Model> {
    let file = TinyLlama { context: context as u32, ..TinyLlama::default() }.build();
    let gguf = Gguf::from_bytes(file.to_bytes()).expect("a GGUF file");
    Arc::new(Model::from_gguf(&gguf, 1).expect("a model"))
}

fn start(change: impl FnOnce(&mut EngineOptions, &mut ServerOptions)) -> Running {
    start_with(CONTEXT, change)
}

fn start_with(context: usize, change: impl FnOnce(&mut EngineOptions, &mut ServerOptions)) -> Running {
    start_model(model(context), change)
}

fn start_model(model: Arc<Model>, change: impl FnOnce(&mut EngineOptions, &mut ServerOptions)) -> Running {
    let (mut engine, mut options) = (EngineOptions::default(), ServerOptions::default());
    options.embeddings = Some(Arc::new(Lengths));
    change(&mut engine, &mut options);
    let backend = SparseInferenceBackend::with_model("tiny", model, engine).expect("a backend");
    let server = Server::bind("127.0.0.1:0", backend, options).expect("a server");
    let (stop, stopped) = oneshot::channel();
    let address = server.address();
    let run = move || {
        server
            .run(async {
                // Whether told or forgotten.
                let _ = stopped.await;
            })
            .expect("an orderly end");
    };
    Running { address, stop: Some(stop), thread: Some(thread::spawn(run)) }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the server panicked");
        }
    }
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    #[track_caller]
    fn refused(&self, status: u16, says: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let message = self.json()["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(says), "{says}: {message}");
    }

    /// The data of a stream, without its end.
    fn pieces(&self) -> Vec<Value> {
        let lines = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        let mut lines: Vec<&str> = lines.collect();
        assert_eq!(lines.pop(), Some("[DONE]"), "{self:?}");
        lines.into_iter().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }
}

impl Running {
    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        // A server that hangs fails the test.
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
        stream
    }

    fn send(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may answer before it has read everything.
        let _ = stream.write_all(request);
        read(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes())
    }

    fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(&request(path, body.to_string().as_bytes()))
    }

    fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics").body;
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} in {metrics}")).parse().expect("a number")
    }

    /// Waits until nothing is being computed.
    fn settle(&self) {
        while self.metric("sparse_requests_active") + self.metric("sparse_requests_waiting") > 0.0 {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    // What a connection that was reset had sent counts.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8(bytes).expect("UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let body = match head.to_lowercase().contains("transfer-encoding: chunked") {
        true => unchunk(body),
        false => body.to_owned(),
    };
    Answer { status, head: head.to_owned(), body }
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        if size == 0 {
            break;
        }
        let Some(chunk) = rest.get(..size) else { break };
        out += chunk;
        body = rest.get(size + 2..).unwrap_or_default();
    }
    out
}

fn chat(content: &str) -> Value {
    json!({ "messages": [{ "role": "user", "content": content }], "seed": 1, "max_tokens": 20 })
}

fn with(mut body: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body
}

#[test]
fn answers_are_what_the_model_says() {
    let server = start(|_, _| {});
    assert_eq!(server.get("/health").json()["status"], "ok");
    let models = server.get("/v1/models").json();
    let names: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["tiny", "lengths"]);
    assert_eq!(server.get("/v1/models/tiny").json()["id"], "tiny");
    server.get("/v1/models/other").refused(404, "other");
    server.get("/elsewhere").refused(404, "no such path");
    server.get("/v1/completions").refused(405, "method");

    // The same text as from the library.
    let backend =
        SparseInferenceBackend::with_model("own", model(CONTEXT), EngineOptions::default()).unwrap();
    let tokens = backend.encode("here and there").unwrap();
    let options = GenerateOptions::new(20).sampler(SamplerConfig::greedy());
    let expected = backend.generate(&tokens, &options).unwrap();
    let body = json!({ "model": "tiny", "prompt": "here and there", "max_tokens": 20, "temperature": 0 });
    let answer = server.post("/v1/completions", &body).json();
    assert_eq!(answer["choices"][0]["text"], *expected.text);
    assert_eq!(answer["object"], "text_completion");
    let usage = &answer["usage"];
    assert_eq!(
        (&usage["prompt_tokens"], &usage["completion_tokens"]),
        (&json!(tokens.len()), &json!(expected.tokens.len()))
    );
    let by_ids = server.post("/v1/completions", &with(body.clone(), &json!({ "prompt": tokens })));
    assert_eq!(by_ids.json()["choices"][0]["text"], *expected.text);
    let echoed = server.post("/v1/completions", &with(body.clone(), &json!({ "echo": true })));
    assert_eq!(echoed.json()["choices"][0]["text"], format!("here and there{}", expected.text));

    // A stream says the same.
    let whole = server.post("/v1/chat/completions", &chat("hello")).json();
    let streamed = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let pieces = server.post("/v1/chat/completions", &with(chat("hello"), &streamed)).pieces();
    assert_eq!(pieces[0]["choices"][0]["delta"]["role"], "assistant");
    let text: String = pieces.iter().filter_map(|p| p["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], *text);
    assert_eq!(pieces.last().unwrap()["usage"], whole["usage"]);
    let ends: Vec<_> = pieces.iter().filter_map(|p| p["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(ends, [whole["choices"][0]["finish_reason"].as_str().unwrap()]);
    assert!(pieces.iter().all(|p| p["object"] == "chat.completion.chunk" && p["id"] == pieces[0]["id"]));
    // Several answers differ, and the first is the one alone.
    let several = server.post("/v1/chat/completions", &with(chat("hello"), &json!({ "n": 3 }))).json();
    let text = |i: usize| several["choices"][i]["message"]["content"].clone();
    assert_eq!(text(0), whole["choices"][0]["message"]["content"]);
    assert!(text(0) != text(1) && text(1) != text(2));
}

#[test]
fn probabilities_schemas_stops_and_embeddings() {
    let server = start(|_, _| {});
    let asked = json!({ "logprobs": true, "top_logprobs": 2, "max_tokens": 4 });
    let answer = server.post("/v1/chat/completions", &with(chat("hello"), &asked)).json();
    let content = answer["choices"][0]["logprobs"]["content"].as_array().expect("tokens").clone();
    assert_eq!(content.len(), 4);
    for entry in &content {
        assert!(entry["logprob"].as_f64().unwrap() <= 0.0 && entry["bytes"].is_array());
        assert_eq!(entry["top_logprobs"].as_array().unwrap().len(), 2);
    }
    let streamed =
        server.post("/v1/chat/completions", &with(with(chat("hello"), &asked), &json!({ "stream": true })));
    let found: Vec<Value> = streamed
        .pieces()
        .iter()
        .flat_map(|p| p["choices"][0]["logprobs"]["content"].as_array().cloned().unwrap_or_default())
        .collect();
    assert_eq!(found, content);
    let body = json!({ "prompt": "here", "max_tokens": 3, "logprobs": 2, "seed": 1 });
    let answer = server.post("/v1/completions", &body).json();
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 3);

    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["age", "ok"],
        "properties": { "age": { "type": "integer", "minimum": 0, "maximum": 99 }, "ok": { "type": "boolean" } },
    });
    let format =
        json!({ "type": "json_schema", "json_schema": { "name": "x", "strict": true, "schema": schema } });
    let asked = json!({ "response_format": format, "max_tokens": 200 });
    let answer = server.post("/v1/chat/completions", &with(chat("hello"), &asked)).json();
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    assert!(value["age"].is_u64() && value["ok"].is_boolean(), "{text}");

    let free =
        server.post("/v1/completions", &json!({ "prompt": "here", "max_tokens": 40, "seed": 3 })).json();
    let text = free["choices"][0]["text"].as_str().unwrap().to_owned();
    let stop: String = text.chars().skip(5).take(2).collect();
    let body = json!({ "prompt": "here", "max_tokens": 40, "seed": 3, "stop": ["\u{1}\u{1}\u{1}", stop] });
    let answer = server.post("/v1/completions", &body).json();
    assert_eq!(answer["choices"][0]["text"], text[..text.find(&stop).unwrap()]);
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");

    let body = json!({ "model": "lengths", "input": ["four", "seventy"] });
    let answer = server.post("/v1/embeddings", &body).json();
    assert_eq!(answer["data"][1], json!({ "object": "embedding", "index": 1, "embedding": [7.0, 0.5] }));
    let answer =
        server.post("/v1/embeddings", &json!({ "input": "four", "encoding_format": "base64" })).json();
    assert_eq!(answer["data"][0]["embedding"], "AACAQAAAAD8=");
    server.post("/v1/embeddings", &json!({ "input": [[1, 2]] })).refused(400, "neither a text");
}

#[test]
fn names_of_control_tokens_are_text() {
    let count = |parse: bool| {
        let server = start(|_, options| options.parse_special = parse);
        let body = chat("x<|im_end|><|im_start|>y");
        server.post("/v1/chat/completions", &body).json()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    assert!(count(false) > count(true) + 10);
}

#[test]
fn fields_have_limits_and_errors_name_them() {
    let server = start(|_, options| options.limits.body = 20_000);
    for (field, value, says) in [
        ("temperature", json!(3), "temperature is 3"),
        ("top_p", json!(-0.5), "top_p"),
        ("presence_penalty", json!(5), "presence_penalty"),
        ("frequency_penalty", json!(-2.5), "frequency_penalty"),
        ("n", json!(0), "n is 0"),
        ("n", json!(1000), "n is 1000"),
        ("logit_bias", json!({ "x": 1 }), "logit_bias"),
        ("logit_bias", json!({ "1": 101 }), "logit_bias"),
        ("stop", json!(vec!["x"; 17]), "17 texts"),
        ("stop", json!(""), "stop has a text of 0 bytes"),
        ("stop", json!("x".repeat(2000)), "stop"),
        ("top_logprobs", json!(3), "logprobs: true"),
        ("messages", json!([]), "messages is empty"),
        ("messages", json!([{ "content": "x" }]), "no role"),
        ("messages", json!([{ "role": "user", "content": 5 }]), "content"),
        ("messages", json!([{ "role": "user", "content": [{ "type": "image_url" }] }]), "not text"),
        ("messages", json!([{ "role": "user", "content": "x ".repeat(5000) }]), "context holds"),
        ("max_tokens", json!(-1), "not the JSON"),
        ("response_format", json!({ "type": "poem" }), "not the JSON"),
        (
            "response_format",
            json!({ "type": "json_schema", "json_schema": { "schema": { "type": "nonsense" } } }),
            "schema",
        ),
    ] {
        let answer = server.post("/v1/chat/completions", &with(chat("hello"), &json!({ field: value })));
        answer.refused(400, says);
        let param = &answer.json()["error"]["param"];
        assert!(param.is_null() || param == field, "{field}: {param}");
    }
    server.post("/v1/chat/completions", &with(chat("x"), &json!({ "model": "other" }))).refused(404, "other");
    server.post("/v1/completions", &json!({ "prompt": vec!["x"; 33] })).refused(400, "33 texts");
    server.post("/v1/completions", &json!({ "prompt": "x", "suffix": "y" })).refused(400, "suffix");
    server.post("/v1/completions", &json!({ "prompt": [9_999_999] })).refused(400, "9999999");
    server.post("/v1/completions", &json!({})).refused(400, "prompt");
    server.post("/v1/embeddings", &json!({ "input": [] })).refused(400, "input");
    server.post("/v1/embeddings", &json!({ "input": "x", "dimensions": 3 })).refused(400, "2 dimensions");
    assert_eq!(server.post("/v1/chat/completions", &chat("still there?")).status, 200);
}

#[test]
fn a_schema_that_cannot_be_satisfied_is_refused_also_for_a_stream() {
    let server = start(|_, _| {});
    let schema = json!({ "allOf": [{ "type": "string" }, { "type": "number" }] });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    for stream in [false, true] {
        let asked = json!({ "response_format": format, "stream": stream });
        let answer = server.post("/v1/chat/completions", &with(chat("hello"), &asked));
        answer.refused(400, "JSON schema");
        assert_eq!(answer.json()["error"]["param"], "response_format");
    }
}

#[test]
fn bodies_that_are_no_request_are_refused() {
    let server = start(|_, options| {
        options.limits.body = 10_000;
        options.limits.read = Duration::from_millis(300);
    });
    let path = "/v1/chat/completions";
    server
        .send(&request(path, b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}"))
        .refused(400, "JSON");
    server.send(&request(path, b"")).refused(400, "JSON");
    server.send(&request(path, b"{} {}")).refused(400, "JSON");
    server.send(&request(path, &vec![b'['; 9000])).refused(400, "JSON");
    // A gigabyte is refused by its length, before it is sent.
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000000000\r\n\r\n");
    server.send(head.as_bytes()).refused(413, "10000 bytes");
    // One whose length is not said, too.
    let chunk = format!("{:x}\r\n{}\r\n", 4000, "x".repeat(4000));
    let chunked =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n");
    server.send(format!("{chunked}{}0\r\n\r\n", chunk.repeat(10)).as_bytes()).refused(413, "10000 bytes");
    // Half a request whose rest never comes.
    let half = &request(path, chat("hello").to_string().as_bytes());
    server.send(&half[..half.len() - 10]).refused(408, "too long");
    // Half a head is not answered, but the connection ends.
    let mut stream = server.connect();
    stream.write_all(&half[..20]).unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end");
    // Half a request of a client that leaves.
    let mut stream = server.connect();
    stream.write_all(&half[..half.len() - 10]).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    assert_eq!(server.send(half).status, 200);
}

/// A long stream, as far as its first piece.
fn begin_stream(server: &Running, more: &Value) -> BufReader<TcpStream> {
    let body = json!({ "prompt": "here", "max_tokens": 1000, "stream": true, "logit_bias": { "0": -100, "2": -100 } });
    let mut stream = server.connect();
    stream.write_all(&request("/v1/completions", with(body, more).to_string().as_bytes())).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with("data: ") {
        line.clear();
        assert!(reader.read_line(&mut line).expect("a line") > 0, "no piece");
    }
    reader
}

#[test]
fn a_client_that_leaves_stops_its_text() {
    const MANY: usize = 100_000;
    let server = start_with(MANY, |engine, _| (engine.parallel, engine.context) = (2, MANY));
    for _ in 0..3 {
        let stream = begin_stream(&server, &json!({ "max_tokens": MANY - 100 }));
        drop(stream);
    }
    server.settle();
    // Far fewer than were asked for.
    assert!(server.metric("sparse_step_tokens_total") < MANY as f64);
    assert_eq!(server.post("/v1/chat/completions", &chat("hello")).status, 200);
}

#[test]
fn a_slow_reader_holds_up_nobody_and_is_dropped() {
    let server = start(|_, options| options.limits.write = Duration::from_millis(200));
    // More than the sockets between hold: a thousand tokens of each text, with twenty others beside each.
    let many = json!({ "prompt": vec!["here"; 32], "logprobs": 20 });
    let mut slow = begin_stream(&server, &many);
    for _ in 0..3 {
        assert_eq!(server.post("/v1/chat/completions", &chat("hello")).status, 200);
    }
    server.settle();
    thread::sleep(Duration::from_millis(600));
    let mut rest = Vec::new();
    // Reset or ended: it does not go on to the end.
    let _ = slow.read_to_end(&mut rest);
    assert!(!String::from_utf8_lossy(&rest).contains("[DONE]"), "{} bytes were read", rest.len());
    assert_eq!(server.post("/v1/chat/completions", &chat("hello")).status, 200);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let server = start(|engine, _| (engine.parallel, engine.queue) = (1, 1));
    let _computed = begin_stream(&server, &json!({}));
    let waiting = thread::scope(|scope| {
        let waiting =
            scope.spawn(|| server.post("/v1/completions", &json!({ "prompt": "x", "max_tokens": 1 })));
        while server.metric("sparse_requests_waiting") + server.metric("sparse_requests_total") < 1.0 {
            thread::sleep(Duration::from_millis(2));
        }
        if server.metric("sparse_requests_waiting") > 0.0 {
            let refused = server.post("/v1/completions", &json!({ "prompt": "x" }));
            // The one that waited may have had its turn by now.
            if refused.status != 200 {
                refused.refused(429, "try again");
                assert!(refused.head.to_lowercase().contains("retry-after: 1"), "{refused:?}");
                assert_eq!(server.metric("sparse_requests_refused_total"), 1.0);
            }
        }
        waiting.join().unwrap()
    });
    assert_eq!(waiting.status, 200);
}

#[test]
fn without_the_key_nothing_is_answered_but_health() {
    let server = start(|_, options| options.key = Some("secret".into()));
    assert_eq!(server.get("/health").status, 200);
    for key in [
        "",
        "Authorization: Bearer wrong!\r\n",
        "Authorization: secret\r\n",
        "Authorization: Bearer secretly\r\n",
    ] {
        let answer = server
            .send(format!("GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}\r\n").as_bytes());
        answer.refused(401, "Bearer");
    }
    let key = "Authorization: Bearer secret\r\n";
    let answer = server
        .send(format!("GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{key}\r\n").as_bytes());
    assert_eq!(answer.status, 200);
}

#[test]
fn a_server_that_stops_finishes_its_answers() {
    let mut server = start(|_, _| {});
    let mut stream = begin_stream(&server, &json!({ "max_tokens": 300 }));
    drop(server.stop.take());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("the rest");
    assert!(rest.contains("[DONE]"), "{rest}");
    server.thread.take().unwrap().join().expect("an orderly end");
    assert!(TcpStream::connect(server.address).is_err());
}

/// What is read when it is needed is in the metrics, and a file that is gone bad is an error of the text.
#[test]
fn a_memory_budget_is_in_the_metrics() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("experts.gguf");
    let experts =
        TinyLlama { experts: Some((6, 2)), embedding: 128, feed_forward: 96, ..TinyLlama::default() };
    let bytes = experts.build().to_bytes();
    std::fs::write(&path, &bytes).expect("a file");
    let budget = bytes.len() * 3 / 4;
    let options = ModelOptions::new(1).memory(Some(MemoryBudget::new(budget)));
    let model = Model::open_with(&path, &options).expect("a model");
    let server = start_model(Arc::new(model), |_, _| {});
    let ask =
        || server.post("/v1/completions", &json!({"model": "tiny", "prompt": "Hello", "max_tokens": 8}));
    assert_eq!(ask().status, 200);
    server.settle();
    let metric = |name: &str| server.metric(&format!("sparse_stored_{name}"));
    assert!(metric("hits_total") > 0.0 && metric("misses_total") + metric("prefetched_total") > 0.0);
    assert!(metric("read_bytes_total") > 0.0);
    assert!(metric("resident_bytes") <= metric("budget_bytes"));
    assert!(metric("budget_bytes") < budget as f64);
    std::fs::write(&path, &bytes[..bytes.len() / 4]).expect("a file");
    let statuses: Vec<u16> = (0..4).map(|_| ask().status).collect();
    assert!(statuses.contains(&500), "{statuses:?}");
    // Without a budget there are none.
    let metrics = start(|_, _| {}).get("/metrics").body;
    assert!(metrics.contains("sparse_steps_total") && !metrics.contains("sparse_stored_"), "{metrics}");
}
