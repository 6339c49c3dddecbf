#![cfg(unix)]

use std::io::{BufRead, BufReader, Read};
use std::process::Child;

use super::*;

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// A model with room for more tokens than any test waits for.
fn endless() -> File {
    TinyLlama { context: 1 << 17, ..TinyLlama::default() }.build()
}

#[test]
fn generation_ends_with_what_it_has() {
    let folder = Folder::new();
    let model = folder.model(&endless());
    let args = args!["generate", "-m", &model, "here", "--ignore-eos", "-n", "100000", "-v"];
    let mut child = sparse(args).spawn().unwrap();
    let mut first = [0; 10];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    interrupt(&child);
    let mut output = child.wait_with_output().unwrap();
    // The first bytes that were read may end inside a character.
    output.stdout.splice(..0, first);
    let run = Run::of(output);
    assert_eq!(run.code, Some(130), "{run:#?}");
    assert!(run.stdout.ends_with('\n'), "{run:#?}");
    assert!(run.stderr.trim_end().ends_with("interrupted"), "{run:#?}");
}

#[test]
fn perplexity_ends_with_what_it_has() {
    let folder = Folder::new();
    let model = folder.model(&endless());
    let text = folder.write("text.txt", "and here the ring was found. ".repeat(100_000));
    let args = args!["perplexity", "-m", &model, "--text", &text, "--ctx", "64", "-v"];
    let mut child = sparse(args).spawn().unwrap();
    // The last message before the work begins.
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("measuring") {
        line.clear();
        assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "no such message");
    }
    interrupt(&child);
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(130), "{run:#?}");
    assert!(run.stdout.starts_with("perplexity "), "{run:#?}");
    assert!(run.stdout.contains("interrupted before the other "), "{run:#?}");
}
