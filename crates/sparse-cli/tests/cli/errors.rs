use super::*;
use sparse_gguf::BlockFormat;
use sparse_simd::Level;
use sparse_testdata::Tensor;

fn generate(file: &File) -> Run {
    let folder = Folder::new();
    run(args!["generate", "-m", folder.model(file), "and", "-n", "4"])
}

#[test]
fn usage_errors_are_code_2() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    for (args, parts) in [
        (
            args!["generate", "-m", &model, "hi", "--top-p", "1.5"] as &[_],
            &["--top-p", "from 0 to 1"] as &[_],
        ),
        (args!["generate", "-m", &model, "hi", "--temperature", "nan"], &["--temperature"]),
        (args!["generate", "-m", &model, "hi", "--temperature=-1"], &["--temperature", "at least 0"]),
        (args!["generate", "-m", &model, "hi", "--repeat-penalty", "0"], &["--repeat-penalty", "above 0"]),
        (args!["generate", "-m", &model, "hi", "--greedy", "--seed", "1"], &["--greedy", "--seed"]),
        (args!["generate", "-m", &model, "hi", "--system", "x"], &["--chat"]),
        (args!["generate", "-m", &model, "hi", "--threads", "0"], &["--threads"]),
        (args!["generate", "-m", &model, "hi", "--context", "257"], &["--context is 257", "256"]),
        (args!["perplexity", "-m", &model], &["--text"]),
        (args!["nonsense"], &["nonsense"]),
    ] {
        run(args).fails(2, parts);
    }
}

#[cfg(not(feature = "story"))]
#[test]
fn without_the_story_model_one_must_be_named() {
    for args in [&["generate", "hi"] as &[_], &["tokenize", "hi"], &["inspect"], &["bench"]] {
        run(args).fails(2, &["--model FILE", "SPARSE_MODEL", "cargo xtask fetch smollm2", "`story`"]);
    }
}

#[test]
fn the_model_may_come_from_the_environment() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let output = sparse(&["tokenize", "--ids", " the"]).env("SPARSE_MODEL", &model).output().unwrap();
    assert_eq!(Run::of(output).ok(), "[263]\n");
    let output = sparse(&["inspect"]).env("SPARSE_MODEL", &model).output().unwrap();
    assert!(Run::of(output).ok().contains("Tiny Llama"));
}

#[test]
fn wrong_simd_levels_are_refused() {
    let lacking =
        Level::ALL.into_iter().filter(|level| Level::available().all(|available| available != *level));
    let lacking = lacking.map(|level| (level.name(), "is not available"));
    for (level, part) in lacking.chain([("nonsense", "expected scalar")]) {
        let output = sparse(&["inspect", "--cpu"]).env("SPARSE_SIMD", level).output().unwrap();
        Run::of(output).fails(2, &["SPARSE_SIMD", part]);
    }
}

#[test]
fn missing_and_foreign_files_are_named() {
    let folder = Folder::new();
    let text = folder.write("notes.txt", "These are no weights.");
    let empty = folder.write("empty.gguf", "");
    for command in ["generate", "tokenize"] {
        run(args![command, "-m", "no/such.gguf", "hi"]).fails(1, &["`no/such.gguf`"]);
        run(args![command, "-m", &text, "hi"]).fails(1, &["notes.txt", "not a gguf file"]);
        run(args![command, "-m", &empty, "hi"]).fails(1, &["empty.gguf"]);
    }
    run(args!["inspect", "no/such.gguf"]).fails(1, &["`no/such.gguf`"]);
    run(args!["inspect", folder.0.path()]).fails(1, &[]);
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let folder = Folder::new();
    let bytes = TinyLlama::default().build().to_bytes();
    for keep in [0, 3, 4, 23, 24, 100, 5_000, bytes.len() / 2, bytes.len() - 33] {
        let model = folder.write("cut.gguf", &bytes[..keep]);
        run(args!["generate", "-m", &model, "hi"]).fails(1, &["cut.gguf"]);
        run(args!["inspect", &model]).fails(1, &["cut.gguf"]);
    }
}

#[test]
fn prompts_must_be_utf8() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    for command in ["generate", "tokenize"] {
        let args = args![command, "-m", &model];
        run_with_stdin(args, b"caf\xe9 au lait").fails(1, &["stdin", "utf-8", "0xe9", "offset 3"]);
        run_with_stdin(args, b"cut \xf0\x9f\xa6").fails(1, &["offset 4"]);
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        let prompt = OsStr::from_bytes(b"na\xefve");
        run(args!["generate", "-m", &model, prompt]).fails(1, &["0xef", "offset 2"]);
    }
}

#[test]
fn prompts_must_fit_and_not_be_empty() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let long = "x".repeat(300);
    run(args!["generate", "-m", &model, &long]).fails(1, &["300 tokens", "context of 256"]);
    let shorter = "x".repeat(100);
    run(args!["generate", "-m", &model, &shorter, "-c", "50"]).fails(1, &["100 tokens", "--context 256"]);
    run(args!["generate", "-m", &model, ""]).fails(1, &["prompt is empty"]);
}

#[test]
fn damaged_models_are_refused_by_name() {
    let tiny = || TinyLlama::default().build();

    let mut file = tiny();
    file.remove("blk.1.ffn_up.weight");
    generate(&file).fails(1, &["blk.1.ffn_up.weight", "missing"]);

    let mut file = tiny();
    *file.tensor_mut("blk.0.attn_k.weight") =
        Tensor::new("blk.0.attn_k.weight", &[64, 64], BlockFormat::F16, &[0.0; 64 * 64]);
    generate(&file).fails(1, &["blk.0.attn_k.weight", "[64, 32]", "[64, 64]"]);

    let mut file = tiny();
    file.tensors.push(Tensor::new("blk.0.extra.weight", &[32], BlockFormat::F32, &[0.0; 32]));
    generate(&file).fails(1, &["blk.0.extra.weight"]);

    let mut file = tiny();
    file.metadata.insert("general.architecture", "martian");
    generate(&file).fails(1, &["martian", "supported: llama"]);

    let mut file = tiny();
    file.metadata.insert("llama.block_count", 1_000_000_000u32);
    generate(&file).fails(1, &["blk.2.", "missing"]);

    let mut file = tiny();
    file.metadata.insert("tokenizer.ggml.pre", "martian");
    generate(&file).fails(1, &["martian", "supported"]);

    let mut file = tiny();
    file.metadata.insert("llama.embedding_length", "wide");
    generate(&file).fails(1, &["llama.embedding_length"]);
}

#[test]
fn weights_that_are_no_numbers_end_in_an_error() {
    for name in
        ["blk.0.attn_norm.weight", "output_norm.weight", "blk.1.ffn_down.weight", "blk.0.attn_q.weight"]
    {
        let mut file = TinyLlama::default().build();
        file.tensor_mut(name).poison();
        let parts: &[&str] = if name.contains("norm") { &[name] } else { &["not finite"] };
        generate(&file).fails(1, parts);
    }
}

#[test]
fn chat_needs_a_template() {
    let folder = Folder::new();
    let model = folder.model(&llama().build());
    run(args!["generate", "-m", &model, "--chat", "hi"]).fails(1, &["tokenizer.chat_template"]);
}
