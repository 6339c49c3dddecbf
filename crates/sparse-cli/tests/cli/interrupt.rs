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

/// Ctrl-C stops an answer, not the conversation.
#[cfg(feature = "chat")]
#[test]
fn an_answer_ends_and_the_conversation_goes_on() {
    let folder = Folder::new();
    let file = TinyLlama { vocabulary: Vocabulary::Gpt2, context: 1 << 17, ..TinyLlama::default() }.build();
    let model = folder.model(&file);
    let never: Vec<String> = (0..4).map(|id| format!("--logit-bias={id}=-inf")).collect();
    let mut args = args!["chat", "-m", &model, "--greedy", "-n", "100000", "-c", "131072"].to_vec();
    args.extend(never.iter().map(Into::into));
    let mut child = sparse(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"the here\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 10]).unwrap();
    interrupt(&child);
    stdin.write_all(b"/help\n/exit\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    let (answer, after) = stderr.split_once("(stopped)").expect("an answer that was stopped");
    assert!(!answer.contains("/reset") && after.contains("/reset"), "{stderr}");
}
