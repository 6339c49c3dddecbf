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
        (args!["generate", "-m", &model, "hi", "--system", "x"], &["--chat"]),
        (args!["generate", "-m", &model, "hi", "--threads", "-2"], &["--threads", "0 is all"]),
        (args!["generate", "-m", &model, "hi", "--context", "257"], &["--context is 257", "256"]),
        (args!["perplexity", "-m", &model], &["--text"]),
        (args!["nonsense", "hi"], &["nonsense"]),
        (args!["calibrate", "-m", &model, "--max-loss", "1"], &["--max-loss", "write 1%"]),
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
}

#[test]
fn folders_and_pipes_are_named_as_what_they_are() {
    let folder = Folder::new();
    let model = folder.model(&llama().build());
    let is_folder = [model.to_str().unwrap(), "is a folder", "name one of the files in it"];
    let text = folder.write("text.txt", "some words");
    for command in ["generate", "tokenize"] {
        run(args![command, "-m", folder.0.path(), "hi"]).fails(1, &is_folder);
    }
    for command in ["perplexity", "profile"] {
        run(args![command, "-m", folder.0.path(), "--text", &text]).fails(1, &is_folder);
    }
    run(args!["bench", "-m", folder.0.path()]).fails(1, &is_folder);
    run(args!["inspect", folder.0.path()]).fails(1, &is_folder);
    run(args!["generate", "-m", &model, "--sparse", folder.0.path(), "hi"]).fails(1, &["is a folder"]);
    #[cfg(unix)]
    {
        run(args!["generate", "-m", "/dev/null", "hi"]).fails(1, &["`/dev/null` is a device"]);
        let pipe = folder.0.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for command in ["generate", "embed"] {
            run(args![command, "-m", &pipe, "hi"]).fails(1, &[pipe.to_str().unwrap(), "is a pipe"]);
        }
    }
}

/// A part of a model that llama.cpp's `gguf-split` cut in two.
fn part(number: usize) -> PathBuf {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/../sparse-model/tests/data/split");
    format!("{data}/tiny-{number:05}-of-00002.gguf").into()
}

#[test]
fn models_in_parts_are_used_as_a_whole() {
    let whole = |number| json(&run(args!["inspect", "--json", part(number)]).ok());
    assert_eq!(whole(1), whole(2));
    assert_eq!(
        (whole(1)["tensors"].as_array().unwrap().len(), &whole(1)["summary"]["files"]),
        (20, &2.into())
    );
    assert!(run(args!["inspect", part(2)]).ok().contains(" in 2 files\n"));

    let folder = Folder::new();
    for number in [1, 2] {
        let name = part(number).file_name().unwrap().to_owned();
        let copy = folder.write(name.to_str().unwrap(), std::fs::read(part(number)).unwrap());
        let other = part(3 - number).file_name().unwrap().to_owned();
        let missing = format!("part {} of 2 of the model is missing", 3 - number);
        run(args!["generate", "-m", &copy, "hi"]).fails(1, &[&missing, other.to_str().unwrap()]);
        std::fs::remove_file(copy).unwrap();
    }
}

#[test]
fn models_go_by_name() {
    let folder = Folder::new();
    std::fs::create_dir(folder.0.path().join("models")).unwrap();
    let bytes = TinyLlama::default().build().to_bytes();
    folder.write("models/Tiny-Model.Q8_0.gguf", &bytes);
    let in_folder = |args: &[&str]| Run::of(sparse(args).current_dir(folder.0.path()).output().unwrap());
    for name in ["Tiny-Model.Q8_0", "tiny-model.q8_0.gguf", "tiny"] {
        assert_eq!(in_folder(&["tokenize", "-m", name, "--ids", " the"]).ok(), "[263]\n");
        assert!(in_folder(&["inspect", name]).ok().contains("Tiny Llama"));
    }
    let prompt = in_folder(&["-m", "tiny", "the the", "--greedy", "--seed", "1", "-n", "4"]);
    assert_eq!(prompt.ok(), in_folder(&["generate", "the the", "-m", "tiny", "--greedy", "-n", "4"]).ok());
    in_folder(&["inspect", "huge"]).fails(1, &["`huge`"]);
    folder.write("models/Tiny-Model.Q4_0.gguf", &bytes);
    in_folder(&["inspect", "tiny"]).fails(2, &["models/Tiny-Model.Q4_0.gguf", "models/Tiny-Model.Q8_0.gguf"]);
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
    generate(&file).fails(1, &["llama.block_count", "at most 4096"]);

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
