//! Mixtures of experts, and models larger than the memory for them.

use super::*;

fn experts() -> TinyLlama {
    TinyLlama { experts: Some((6, 2)), embedding: 128, feed_forward: 96, ..llama() }
}

#[test]
fn a_budget_changes_memory_and_no_token() {
    let folder = Folder::new();
    let model = folder.model(&experts().build());
    let size = std::fs::metadata(&model).unwrap().len();
    let generate = |flags: &[&str]| {
        let mut args = args!["generate", "-m", &model, "Hello", "-n", "12", "--temperature", "0"].to_vec();
        args.extend(flags.iter().map(Into::into));
        run(&args)
    };
    let whole = json(&generate(&["--json"]).ok());
    assert!(whole["store"].is_null(), "{whole}");
    assert_eq!(whole["layers"][0]["selector"], "experts");
    assert!((whole["layers"][0]["down"].as_f64().unwrap() - 2.0 / 6.0).abs() < 1e-6, "{whole}");
    let budget = (size * 3 / 4).to_string();
    for cache in ["lru", "lfu"] {
        let found = json(&generate(&["--json", "--memory-budget", &budget, "--cache", cache]).ok());
        assert_eq!(found["tokens"], whole["tokens"]);
        let store = &found["store"];
        // Needed, or read ahead.
        let read = ["misses", "prefetched"].map(|name| store[name].as_u64().unwrap());
        assert!(read.iter().sum::<u64>() > 0, "{store}");
        assert!(store["resident_bytes"].as_u64() <= store["budget_bytes"].as_u64(), "{store}");
    }
    let stats = generate(&["--stats", "--memory-budget", &budget]);
    assert!(stats.code == Some(0) && stats.stderr.contains("read ahead"), "{stats:#?}");
    generate(&["--memory-budget", "1KiB"])
        .fails(1, &["it needs at least 1MiB", "of the experts of one layer"]);
    let both = generate(&["--memory-budget", &budget, "--sparse", "none"]);
    assert!(both.code == Some(2) && both.stderr.contains("--sparse is not for experts"), "{both:#?}");
    let wrong = generate(&["--memory-budget", "much"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("such as 512MiB"), "{wrong:#?}");
}

#[test]
fn what_is_for_one_network_says_so() {
    let folder = Folder::new();
    let model = folder.model(&experts().build());
    let text = folder.write("text.txt", "some words to read ".repeat(400));
    run(args!["profile", "-m", &model, "--text", &text])
        .fails(1, &["mixtures of experts", "the profile of neurons"]);
    let calibrate = run(args!["calibrate", "-m", &model, "--text", &text]);
    assert!(calibrate.code == Some(1) && calibrate.stderr.contains("--only head"), "{calibrate:#?}");
    let seen = run(args!["inspect", &model]).ok();
    assert!(seen.contains("6 per layer, 2 used by a token"), "{seen}");
}
