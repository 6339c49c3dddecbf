//! What people expect around `generate`: a conversation, ends, structure, a prompt cache; and what shells know.

use super::*;

fn model(folder: &Folder) -> PathBuf {
    folder.model(&TinyLlama { vocabulary: Vocabulary::Gpt2, context: 512, ..TinyLlama::default() }.build())
}

#[test]
fn stop_strings_and_probabilities() {
    let folder = Folder::new();
    let model = model(&folder);
    let common =
        args!["generate", "-m", &model, "the here", "-n", "60", "--seed", "4", "--ignore-eos", "--json"]
            .to_vec();
    let with = |more: &[&OsStr]| {
        let more = more.iter().map(|s| (*s).to_owned());
        json(&run(&common.iter().cloned().chain(more).collect::<Vec<_>>()).ok())
    };
    let whole = with(&[])["text"].as_str().unwrap().to_owned();
    let stop: String = whole.chars().skip(10).take(2).collect();
    let report = with(&["--stop".as_ref(), stop.as_ref()]);
    assert_eq!(report["text"], whole[..whole.find(&stop).unwrap()]);
    assert_eq!(report["stop"], "stop_string");
    let report = with(&["--logprobs".as_ref(), "2".as_ref()]);
    let entries = report["logprobs"].as_array().unwrap();
    assert_eq!(entries.len(), 60);
    assert!(
        entries
            .iter()
            .all(|e| e["logprob"].as_f64().unwrap() <= 0.0 && e["top"].as_array().unwrap().len() == 2)
    );
    // A token that is excluded does not come.
    let best = with(&["--greedy".as_ref()])["tokens"][0].clone();
    let bias = format!("{best}=-inf");
    assert_ne!(with(&["--greedy".as_ref(), "--logit-bias".as_ref(), bias.as_ref()])["tokens"][0], best);
    run(args!["generate", "-m", &model, "x", "--logit-bias", "x"]).fails(2, &["ID=BIAS"]);
    run(args!["generate", "-m", &model, "x", "--stop", ""]).fails(2, &["not empty"]);
    // A full context ends the text, or not.
    let short = |more: &[&str]| {
        let mut args = args![
            "generate",
            "-m",
            &model,
            "the here",
            "-n",
            "60",
            "-c",
            "32",
            "--greedy",
            "--ignore-eos",
            "--json"
        ]
        .to_vec();
        args.extend(more.iter().map(Into::into));
        json(&run(&args).ok())
    };
    assert_eq!(short(&[])["stop"], "context_full");
    assert_eq!(
        (&short(&["--shift", "4"])["stop"], &short(&["--shift"])["generated_tokens"]),
        (&"max_tokens".into(), &60.into())
    );
}

#[cfg(feature = "grammar")]
#[test]
fn text_has_the_structure_that_was_asked_for() {
    let folder = Folder::new();
    let model = model(&folder);
    let schema = r#"{"type": "object", "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["n"], "additionalProperties": false}"#;
    let file = folder.write("schema.json", schema);
    for schema in [OsStr::new(schema), file.as_os_str()] {
        let text = run(args!["generate", "-m", &model, "x", "--seed", "1", "--json-schema", schema]).ok();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!((0..10).contains(&value["n"].as_i64().unwrap()), "{text}");
    }
    let text = run(args!["generate", "-m", &model, "x", "--seed", "1", "--regex", "(yes|no)!"]).ok();
    assert!(["yes!\n", "no!\n"].contains(&text.as_str()), "{text:?}");
    run(args!["generate", "-m", &model, "x", "--regex", "("]).fails(1, &["regular expression"]);
    run(args!["generate", "-m", &model, "x", "--json-schema", "{\"type\": \"nonsense\"}"])
        .fails(1, &["JSON schema"]);
}

#[test]
fn a_prompt_cache_changes_no_text() {
    let folder = Folder::new();
    let model = model(&folder);
    let prompt = "the here and there ".repeat(12);
    let text = |prompt: &str, kv: &str, cached: bool| {
        let mut args = args!["generate", "-m", &model, prompt, "-n", "20", "--greedy", "--kv", kv].to_vec();
        if cached {
            args.extend(args!["--prompt-cache", folder.0.path().join("cache")].iter().cloned());
        }
        run(&args)
    };
    // Wider heads than this model's are needed for q8_0.
    text("x", "q8_0", false).fails(1, &["q8_0", "multiple of 32"]);
    let expected = text(&prompt, "f16", false).ok();
    assert_eq!(text(&prompt, "f16", true).ok(), expected);
    let written = std::fs::metadata(folder.0.path().join("cache")).unwrap().len();
    assert!(written > 0);
    assert_eq!(text(&prompt, "f16", true).ok(), expected);
    text(&prompt, "f32", true).fails(1, &["cache", "f16, not in f32"]);
    std::fs::write(folder.0.path().join("cache"), "nonsense").unwrap();
    text(&prompt, "f16", true).fails(1, &["cache"]);
}

#[cfg(feature = "chat")]
#[test]
fn a_conversation_goes_on_until_it_is_reset() {
    let folder = Folder::new();
    let model = model(&folder);
    let chat = |lines: &str, more: &[&str]| {
        let mut args = args!["chat", "-m", &model, "--greedy", "-n", "12"].to_vec();
        args.extend(more.iter().map(Into::into));
        run_with_stdin(&args, lines.as_bytes())
    };
    let answer = |lines: &str, more: &[&str]| chat(lines, more).done();
    let first = answer("the here\n", &[]);
    assert!(first.len() > 1);
    let both = answer("the here\nand there\n", &[]);
    assert!(both.starts_with(&first));
    // A reset makes a new beginning, and a system message another one.
    assert_eq!(answer("the here\n/reset\nthe here\n/exit\nnot read\n", &[]), first.repeat(2));
    let system = answer("the here\n", &["--system", "and and and"]);
    assert_eq!(answer("/system and and and\nthe here\n", &[]), system);
    assert!(chat("/help\n/nonsense\n", &[]).stderr.contains("/reset"));
    assert!(chat("/nonsense\n", &[]).stderr.contains("there is no command /nonsense"));
    // Longer than the context: the oldest messages go.
    let many = "the here and there\n".repeat(20);
    assert_eq!(chat(&many, &["-c", "128"]).code, Some(0));
    assert!(
        chat(&format!("{}\n", "x ".repeat(500)), &["-c", "128"]).stderr.contains("longer than the context")
    );
}

#[test]
fn shells_and_man_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = run(args!["completions", shell]).ok();
        assert!(script.contains("perplexity") && script.contains("max-tokens"), "{shell}");
    }
    let page = run(args!["man"]).ok();
    assert!(page.starts_with(".") && page.contains("perplexity"));
    let folder = Folder::new();
    let out = folder.0.path().join("man");
    run(args!["man", "--out", &out]).ok();
    assert!(std::fs::read_to_string(out.join("sparse-generate.1")).unwrap().contains("max"));
}
