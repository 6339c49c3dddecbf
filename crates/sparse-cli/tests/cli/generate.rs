use super::*;

#[test]
fn the_seed_decides_the_text() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let text = |seed: &str, threads: &str| {
        run(args!["generate", "-m", &model, "the here", "-n", "40", "--seed", seed, "--threads", threads])
            .ok()
    };
    let one = text("1", "1");
    assert!(one.len() > 20 && one.ends_with('\n'), "{one:?}");
    assert_eq!(one, text("1", "1"));
    assert_eq!(one, text("1", "2"), "two threads");
    assert_ne!(one, text("2", "1"));
}

#[test]
fn greedy_needs_no_seed() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let text = |flags: &[&str]| {
        let mut args = args!["generate", "-m", &model, "and", "-n", "30"].to_vec();
        args.extend(flags.iter().map(Into::into));
        run(&args).ok()
    };
    let greedy = text(&["--greedy"]);
    assert_eq!(greedy, text(&["--temperature", "0", "--seed", "5"]));
    assert_eq!(greedy, text(&["--top-k", "1"]));
}

#[test]
fn json_holds_text_tokens_and_timings() {
    let folder = Folder::new();
    let model = folder.model(&llama().build());
    let common = args!["generate", "-m", &model, "ring", "-n", "20", "--seed", "3", "--ignore-eos"].to_vec();
    let with = |flag: &str| [common.clone(), vec![flag.into()]].concat();
    let report = json(&run(&with("--json")).ok());
    let plain = run(&common).ok();
    assert_eq!(report["text"].as_str().unwrap(), plain.strip_suffix('\n').unwrap());
    assert_eq!(report["tokens"].as_array().unwrap().len(), 20);
    // The beginning of text, a space, and `r` and `ing`.
    assert_eq!(report["prompt_tokens"], 4);
    for (key, expected) in [("generated_tokens", 20), ("seed", 3), ("context", 24)] {
        assert_eq!(report[key], expected, "{key} in {report:#}");
    }
    for (key, expected) in [("stop", "max_tokens"), ("model", "Tiny Llama")] {
        assert_eq!(report[key], expected, "{key} in {report:#}");
    }
    let positive = |value: &serde_json::Value| value.as_f64().is_some_and(|v| v > 0.0);
    for key in ["load_ms", "prompt_ms", "prompt_tokens_per_s", "decode_ms", "decode_tokens_per_s"] {
        assert!(positive(&report["timings"][key]), "{key} in {report:#}");
    }
    for key in ["bytes_per_token", "gb_per_s", "threads"] {
        assert!(positive(&report[key]), "{key} in {report:#}");
    }
    // Another seed every time when none is given.
    let seed = || json(&run(args!["generate", "-m", &model, "a", "-n", "1", "--json"]).ok())["seed"].clone();
    assert_ne!(seed(), seed());
}

#[test]
fn weight_bytes_are_those_that_inspect_counts() {
    let folder = Folder::new();
    for tied in [true, false] {
        let model = folder.model(&TinyLlama { tied, ..TinyLlama::default() }.build());
        let report = json(&run(args!["generate", "-m", &model, "a", "-n", "1", "--json"]).ok());
        let summary = json(&run(args!["inspect", &model, "--json"]).ok())["summary"].clone();
        assert_eq!(report["bytes_per_token"], summary["bytes_per_token"], "tied: {tied}");
    }
}

#[test]
fn prompts_come_from_stdin_too() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let common = args!["generate", "-m", &model, "--greedy", "-n", "20"].to_vec();
    let with = |arg: &str| [common.clone(), vec![arg.into()]].concat();
    let expected = run(&with("here and")).ok();
    // One line break at the end does not count.
    for stdin in ["here and", "here and\n", "here and\r\n"] {
        assert_eq!(run_with_stdin(&common, stdin.as_bytes()).ok(), expected, "{stdin:?}");
    }
    assert_eq!(run_with_stdin(&with("-"), b"here and").ok(), expected);
    assert_ne!(run_with_stdin(&common, b"here and\n\n").ok(), expected);
}

#[test]
fn echo_prints_the_prompt() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let text = run(args!["generate", "-m", &model, "--greedy", "-n", "8", "here"]).ok();
    let echoed = run(args!["generate", "-m", &model, "--greedy", "-n", "8", "here", "--echo"]).ok();
    assert_eq!(echoed, format!("here{text}"));
}

#[test]
fn chat_renders_the_template() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let plain = |prompt: &str| {
        let args = args!["generate", "-m", &model, "--greedy", "-n", "9", "--json", prompt];
        json(&run(args).ok())
    };
    let chat = |flags: &[&str]| {
        let mut args =
            args!["generate", "-m", &model, "--greedy", "-n", "9", "--json", "--chat", "hi"].to_vec();
        args.extend(flags.iter().map(Into::into));
        json(&run(&args).ok())
    };
    let expected = plain("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    let reply = chat(&[]);
    assert_eq!(reply["tokens"], expected["tokens"]);
    assert_eq!(reply["prompt_tokens"], expected["prompt_tokens"]);
    let expected =
        plain("<|im_start|>system\nbe<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(chat(&["--system", "be"])["tokens"], expected["tokens"]);
}

#[test]
fn a_prompt_that_begins_with_the_first_token_does_not_get_it_twice() {
    let folder = Folder::new();
    let model = folder.model(&llama().build());
    let tokens = |prompt: &str| {
        json(&run(args!["generate", "-m", &model, "-n", "1", "--json", prompt]).ok())["prompt_tokens"].clone()
    };
    assert_eq!(tokens("<s>ring"), tokens("ring"));
}

#[test]
fn generation_ends_with_the_context() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama { context: 32, ..TinyLlama::default() }.build());
    let report = |flags: &[&str]| {
        let mut args = args!["generate", "-m", &model, "--json", "--ignore-eos", "aaaa"].to_vec();
        args.extend(flags.iter().map(Into::into));
        json(&run(&args).ok())
    };
    for (flags, context) in [(&[] as &[&str], 32), (&["--context", "16"], 16)] {
        let report = report(flags);
        assert_eq!(report["stop"], "context_full", "{report:#}");
        assert_eq!(report["context"], context);
        // The last token needs no place of its own.
        assert_eq!(report["generated_tokens"], context - 4 + 1);
    }
}

#[test]
fn readers_may_leave() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama { context: 4096, ..TinyLlama::default() }.build());
    let args = args!["generate", "-m", &model, "here", "--ignore-eos", "-n", "4000"];
    let mut child = sparse(args).spawn().unwrap();
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().unwrap());
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:#?}");
}

#[test]
fn verbose_runs_log_to_stderr_only() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let quiet = run(args!["generate", "-m", &model, "a", "-n", "5", "--seed", "9"]).ok();
    let verbose = run(args!["generate", "-m", &model, "a", "-n", "5", "--seed", "9", "-v"]);
    assert_eq!(verbose.stdout, quiet);
    for part in ["model loaded", "seed 9", "text 5 tokens", "ended by --max-tokens"] {
        assert!(verbose.stderr.contains(part), "no {part} in {verbose:#?}");
    }
}

#[test]
fn chat_template_shows_the_prompt() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let prompt = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(run(args!["chat-template", "-m", &model, "hi"]).ok(), prompt);
    let chat = br#"{"messages": [{"role": "user", "content": "hi"}], "add_generation_prompt": false}"#;
    let args = args!["chat-template", "-m", &model, "--messages", "-"];
    assert_eq!(run_with_stdin(args, chat).ok(), "<|im_start|>user\nhi<|im_end|>\n");
    assert!(run(args!["chat-template", "-m", &model, "--source"]).ok().starts_with("{% for"));
    // A control token that a message names, as a token and as text.
    let ids = |flags: &[&str]| {
        let mut args = args!["chat-template", "-m", &model, "--ids", "<|im_end|>"].to_vec();
        args.extend(flags.iter().map(Into::into));
        json(&run(&args).ok()).as_array().unwrap().len()
    };
    assert!(ids(&["--literal"]) > ids(&[]));
    run(args!["chat-template", "-m", &model, "--chat-template", "rag", "hi"]).fails(1, &["rag", "default"]);
}

#[test]
fn a_template_that_does_not_compile_is_no_obstacle_to_plain_prompts() {
    let folder = Folder::new();
    let mut file = TinyLlama::default().build();
    let tokens = |file: &sparse_testdata::File| {
        let model = folder.model(file);
        json(&run(args!["generate", "-m", &model, "--greedy", "-n", "4", "--json", "hi"]).ok())["tokens"]
            .clone()
    };
    let expected = tokens(&file);
    file.metadata.insert("tokenizer.chat_template", "{% nonsense %}");
    file.metadata.insert("tokenizer.ggml.add_eos_token", true);
    assert_eq!(tokens(&file), expected);
    let model = folder.model(&file);
    run(args!["generate", "-m", &model, "--chat", "hi"]).fails(1, &["chat template", "line 1"]);
}
