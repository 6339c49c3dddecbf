use super::*;

const TEXT: &str = "and here the ring was found in a hall on the hill, and all the men ran. ";

#[test]
fn a_head_of_zeros_knows_nothing() {
    let folder = Folder::new();
    let mut file = TinyLlama { tied: false, ..TinyLlama::default() }.build();
    file.tensor_mut("output.weight").data.fill(0);
    let model = folder.model(&file);
    let text = folder.write("text.txt", TEXT.repeat(10));
    // Every one of 271 tokens is as probable as the others.
    let result = run(args!["perplexity", "-m", &model, "--text", &text, "--ctx", "64"]).ok();
    let report = json(&run(args!["perplexity", "-m", &model, "--text", &text, "--ctx", "64", "--json"]).ok());
    let tokens = report["text_tokens"].as_u64().unwrap();
    let windows = tokens / 64;
    assert!(windows > 2);
    assert_eq!(
        result,
        format!("perplexity 271.000 ± 0.000 ({} tokens scored in {windows} windows of 64)\n", windows * 31)
    );
    assert!((report["perplexity"].as_f64().unwrap() - 271.0).abs() < 1e-3);
    assert_eq!(report["scored_tokens"], windows * 31);
    assert_eq!(report["interrupted"], false);
}

#[test]
fn windows_can_be_limited() {
    let folder = Folder::new();
    let model = folder.model(&llama().build());
    let report = |text: &str, flags: &[&str]| {
        let text = folder.write("text.txt", text);
        let mut args = args!["perplexity", "-m", &model, "--text", &text, "--ctx", "32", "--json"].to_vec();
        args.extend(flags.iter().map(Into::into));
        let mut report = json(&run(&args).ok());
        for (key, value) in report.as_object_mut().unwrap() {
            // What a process keeps resident differs by a few pages.
            if key == "resident_bytes"
                || key.ends_with("_ms")
                || key.ends_with("_per_s")
                || key.contains("text_tokens")
            {
                assert!(value.as_f64().is_some_and(|v| v > 0.0), "{key} is {value}");
                value.take();
            }
        }
        report
    };
    let long = TEXT.repeat(5);
    let two = report(&long, &["--windows", "2", "--threads", "1"]);
    assert_eq!(two["windows"], 2);
    assert_eq!(two["interrupted"], false);
    assert!(two["standard_error"].as_f64().unwrap() > 0.0);
    // The same windows, when the text ends behind them, and on two threads.
    let short: String = long.chars().take(120).collect();
    let cut = report(&short, &["--windows", "2", "--threads", "1"]);
    assert_eq!(cut["windows"], 2, "{cut:#}");
    assert_eq!(two, cut);
    let mut threads = report(&long, &["--windows", "2", "--threads", "2"]);
    threads["threads"] = 1.into();
    assert_eq!(two, threads);
    assert_ne!(two["perplexity"], report(&long, &[])["perplexity"]);
}

#[test]
fn texts_and_windows_must_fit() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let short = folder.write("short.txt", "and here");
    let latin1 = folder.write("latin1.txt", b"caf\xe9");
    let perplexity =
        |text: &PathBuf, ctx: &str| run(args!["perplexity", "-m", &model, "--text", text, "--ctx", ctx]);
    perplexity(&short, "64").fails(1, &["the text has", "at least 128"]);
    perplexity(&short, "512").fails(2, &["--ctx is 512", "4 to 256"]);
    perplexity(&short, "3").fails(2, &["--ctx is 3"]);
    perplexity(&latin1, "64").fails(1, &["latin1.txt", "0xe9", "offset 3"]);
    perplexity(&"nowhere.txt".into(), "64").fails(1, &["nowhere.txt"]);
}
