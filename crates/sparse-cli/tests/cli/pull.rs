//! `sparse pull` from a server on the loopback that stands in for the hub.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use sparse_testdata::TinyLlama;

use super::{Folder, Run};

/// Serves a file, whose first transfer breaks off in the middle. Returns its address and the ranges that were asked for.
fn hub(bytes: Vec<u8>) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&ranges);
    thread::spawn(move || {
        let mut broken = false;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let Some(request) = lines.next() else { continue };
            let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let range = head
                .iter()
                .find_map(|line| line.to_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let all = bytes.len();
            let common = "Connection: close\r\nx-repo-commit: abc\r\netag: \"def\"\r\n";
            if request.contains("/api/models/") {
                let body = r#"{"sha": "abc", "siblings": [{"rfilename": "README.md"}, {"rfilename": "tiny-Q8_0.gguf"}]}"#;
                let _ = write!(
                    stream,
                    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                continue;
            }
            if !request.contains("/some/tiny/resolve/main/tiny-Q8_0.gguf") {
                let _ = write!(stream, "HTTP/1.1 404 Not Found\r\n{common}Content-Length: 0\r\n\r\n");
                continue;
            }
            let (first, last) = range.as_deref().and_then(|r| r.split_once('-')).unwrap_or(("0", ""));
            let (first, last) = (first.parse::<usize>().unwrap(), last.parse().unwrap_or(all - 1));
            let body = &bytes[first..=last];
            let _ = write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\n{common}Content-Length: {}\r\nContent-Range: bytes {first}-{last}/{all}\r\n\r\n",
                body.len()
            );
            if body.len() > 1 {
                seen.lock().unwrap().push(range.unwrap_or_default());
            }
            let sent = if body.len() > 1 && !broken { body.len() / 2 } else { body.len() };
            broken |= body.len() > 1;
            let _ = stream.write_all(&body[..sent]);
        }
    });
    (address, ranges)
}

#[test]
fn a_model_is_pulled_resumed_and_found_by_its_name() {
    let folder = Folder::new();
    let bytes = TinyLlama::default().build().to_bytes();
    let half = bytes.len() / 2;
    let (endpoint, ranges) = hub(bytes);
    let sparse = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sparse"));
        command.args(args).current_dir(folder.0.path());
        command.env("HF_ENDPOINT", &endpoint).env("HF_HOME", folder.0.path().join("hf"));
        command.env("XDG_DATA_HOME", folder.0.path().join("data")).env("HOME", folder.0.path());
        for name in ["SPARSE_MODEL", "HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
            command.env_remove(name);
        }
        Run::of(command.output().unwrap())
    };
    assert_eq!(sparse(&["pull", "some/tiny"]).done(), "tiny-Q8_0.gguf\n");
    assert_eq!(*ranges.lock().unwrap(), ["0-".to_owned(), format!("{half}-")]);
    // It is there now: nothing is fetched again.
    assert_eq!(sparse(&["pull", "some/tiny/tiny-Q8_0.gguf"]).done(), "tiny-Q8_0.gguf\n");
    assert_eq!(ranges.lock().unwrap().len(), 2);
    let text = sparse(&["generate", "-m", "tiny-q8_0", "--greedy", "-n", "5", "here"]).done();
    assert!(!text.is_empty());
    sparse(&["pull", "some/absent"]).fails(1, &["some/absent"]);
    sparse(&["pull", "absent"]).fails(2, &["OWNER/NAME"]);
}
