use super::*;

/// Texts that reach every corner of a small vocabulary.
const TEXTS: [&str; 6] =
    ["and there", "Hello, world", "  spaces   ", "naïve 漢字 🦀", "tab\tand\nline", "e\u{301}"];

#[test]
fn decode_gives_the_text_back() {
    let folder = Folder::new();
    for (vocabulary, model) in [(Vocabulary::Gpt2, TinyLlama::default()), (Vocabulary::Llama, llama())] {
        let model = folder.model(&model.build());
        for text in TEXTS {
            let ids = run(args!["tokenize", "-m", &model, "--ids", text]).ok();
            let decoded = run(args!["tokenize", "-m", &model, "--decode", "--no-special", ids.trim()]).ok();
            assert_eq!(decoded, format!("{text}\n"), "{vocabulary:?}: {ids}");
        }
    }
}

#[test]
fn pieces_are_shown_as_text() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let lines = |text: &str, flags: &[&str]| -> Vec<String> {
        let mut args = args!["tokenize", "-m", &model, text].to_vec();
        args.extend(flags.iter().map(Into::into));
        run(&args).ok().lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
    };
    assert_eq!(lines(" the\n", &[]), ["263 \" the\"", "13 \"\\n\""]);
    // Half a character is shown as the vocabulary writes it.
    assert_eq!(lines("é", &[]), ["198 Ã (part of a character)", "172 © (part of a character)"]);
    assert_eq!(lines("<|im_end|>", &["--parse-special"]), ["2 \"<|im_end|>\""]);
    assert!(lines("<|im_end|>", &[]).len() > 3);
    let pieces = run(args!["tokenize", "-m", &model, " the", "--json"]).ok();
    assert_eq!(json(&pieces), serde_json::json!([{"id": 263, "piece": " the", "whole": true}]));
}

#[test]
fn special_tokens_can_be_left_out() {
    let folder = Folder::new();
    let model = folder.model(&llama().build());
    let ids = |flags: &[&str]| {
        let mut args = args!["tokenize", "-m", &model, "the", "--ids"].to_vec();
        args.extend(flags.iter().map(Into::into));
        run(&args).ok()
    };
    assert_eq!(ids(&[]), "[1, 263]\n");
    assert_eq!(ids(&["--no-special"]), "[263]\n");
    assert_eq!(run(args!["tokenize", "-m", &model, "--decode", "1 263"]).ok(), "<s> the\n");
    assert_eq!(run(args!["tokenize", "-m", &model, "--decode", "--no-special", "[1,263]"]).ok(), "the\n");
}

#[test]
fn lines_are_texts_of_their_own() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let text = "and\n\nhere \r\n the";
    let expected: Vec<String> = text
        .split('\n')
        .map(|line| run_with_stdin(args!["tokenize", "-m", &model, "--ids"], line.as_bytes()).ok())
        .collect();
    let file = folder.write("lines.txt", text);
    assert_eq!(run(args!["tokenize", "-m", &model, "--lines", "--file", &file]).ok(), expected.concat());
    // A line break at the end begins no further line.
    let stdin = format!("{text}\n");
    let lines = run_with_stdin(args!["tokenize", "-m", &model, "--lines"], stdin.as_bytes()).ok();
    assert_eq!(lines, expected.concat());
    assert_eq!(run_with_stdin(args!["tokenize", "-m", &model, "--lines"], b"").ok(), "");
}

#[test]
fn the_weights_are_not_needed() {
    let folder = Folder::new();
    let mut file = TinyLlama::default().build();
    file.tensors.clear();
    file.metadata.insert("general.architecture", "martian");
    assert_eq!(run(args!["tokenize", "-m", folder.model(&file), "--ids", " the"]).ok(), "[263]\n");
}

#[test]
fn wrong_ids_are_refused() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    for (ids, word) in
        [("1 271", "`271`"), ("[1, x]", "`x`"), ("-1", "`-1`"), ("99999999999", "`99999999999`")]
    {
        let run = run_with_stdin(args!["tokenize", "-m", &model, "--decode"], ids.as_bytes());
        run.fails(1, &[word, "below 271"]);
    }
}
