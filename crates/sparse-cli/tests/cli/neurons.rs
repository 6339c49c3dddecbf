//! Models whose neurons are stored one by one, for less memory than they have.

use super::*;

fn relu() -> TinyLlama {
    TinyLlama { layers: 12, embedding: 128, feed_forward: 512, activation: Some("relu"), ..llama() }
}

#[test]
fn converted_models_take_less_memory_and_say_the_same() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let generate = |flags: &[&str]| {
        let mut args =
            args!["generate", "-m", &model, "Hello there", "-n", "12", "--greedy", "--json"].to_vec();
        args.extend(["--ignore-eos", "--sparse", "exact-zero"].iter().map(Into::into));
        args.extend(flags.iter().map(Into::into));
        run(&args)
    };
    let whole = json(&generate(&[]).ok());
    let size = std::fs::metadata(&model).unwrap().len();
    let budget = (size * 3 / 4).to_string();
    generate(&["--memory-budget", &budget]).fails(1, &["it needs at least", "sparse convert"]);

    let text = folder.write("text.txt", "some words to read ".repeat(400));
    let report = json(&run(args!["convert", "-m", &model, "--text", &text, "--json"]).ok());
    assert_eq!((report["layers"].as_u64(), report["heat"].as_str()), (Some(12), Some("text")));
    let records = PathBuf::from(report["out"].as_str().unwrap());
    assert_eq!(std::fs::metadata(&records).unwrap().len(), report["bytes"].as_u64().unwrap());
    for cache in ["lru", "lfu"] {
        let found = json(&generate(&["--memory-budget", &budget, "--cache", cache]).ok());
        assert_eq!(found["tokens"], whole["tokens"]);
        // How many bytes that takes depends on what the whole model found faster.
        let active = |report: &serde_json::Value| {
            let layers = report["layers"].as_array().unwrap().iter();
            layers.map(|layer| layer["up"].as_f64().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(active(&found), active(&whole));
        let store = &found["store"];
        let [misses, ahead, hits] =
            ["misses", "prefetched", "hits"].map(|name| store[name].as_u64().unwrap());
        assert!(misses + ahead > 0 && hits > 0, "{store}");
        assert!(store["resident_bytes"].as_u64() <= store["budget_bytes"].as_u64(), "{store}");
    }
    let roomy = (size * 2).to_string();
    for (budget, head) in [(&budget, "dense"), (&roomy, "screened")] {
        let found = json(&generate(&["--memory-budget", budget, "--head", head]).ok());
        assert_eq!(found["tokens"], whole["tokens"], "{head}");
        assert!(found["store"]["hits"].as_u64() > Some(0), "{head}");
    }
    // Where the system locks nothing, it says so and goes on.
    let locked = generate(&["--memory-budget", &budget, "--lock"]);
    assert_eq!(json(&locked.stdout)["tokens"], whole["tokens"]);
    assert!(locked.stderr.is_empty() || locked.stderr.contains("ulimit -l"), "{locked:#?}");
    assert_eq!(generate(&["--lock"]).code, Some(2));
    generate(&["--memory-budget", "1KiB"]).fails(1, &["it needs at least", "of the neurons of one layer"]);
    let lane = generate(&["--memory-budget", &budget, "--ffn-lane", "bit5"]);
    assert!(lane.code == Some(2) && lane.stderr.contains("--ffn-lane is not for neurons"), "{lane:#?}");
    // Nothing is left out: every token needs all weights.
    let none = run(args!["generate", "-m", &model, "Hello", "--sparse", "none", "--memory-budget", &budget]);
    none.fails(1, &["every token reads all of its weights"]);

    std::fs::write(&model, TinyLlama { seed: 5, ..relu() }.build().to_bytes()).unwrap();
    generate(&["--memory-budget", &budget]).fails(1, &["another model file", "sparse convert"]);
}

#[test]
fn an_interrupted_conversion_is_continued() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let records = folder.0.path().join("model.records.gguf");
    let part = folder.0.path().join("model.records.gguf.part");
    let convert = |flags: &[&str]| {
        let mut args = args!["convert", "-m", &model, "--json"].to_vec();
        args.extend(flags.iter().map(Into::into));
        json(&run(&args).ok())["resumed_bytes"].as_u64().unwrap()
    };
    assert_eq!(convert(&[]), 0);
    let whole = std::fs::read(&records).unwrap();
    std::fs::remove_file(&records).unwrap();
    // What was written when the program ended, and what may be of another model.
    let half = whole.len() / 2;
    let other = [&whole[..400], &[1], &whole[401..half]].concat();
    for (unfinished, flags, resumes) in
        [(&whole[..half], &[][..], true), (&whole[..half], &["--restart"], false), (&other, &[], false)]
    {
        std::fs::write(&part, unfinished).unwrap();
        let resumed = convert(flags) as usize;
        assert_eq!((half / 2..half).contains(&resumed), resumes, "{resumed} of {half}");
        assert!(resumes || resumed == 0);
        assert!(std::fs::read(&records).unwrap() == whole && !part.exists());
    }
}

#[test]
fn what_cannot_be_converted_says_so() {
    let folder = Folder::new();
    let experts = folder.model(&TinyLlama { experts: Some((4, 2)), ..llama() }.build());
    run(args!["convert", "-m", &experts]).fails(1, &["nothing to convert"]);
    run(args!["convert"]).fails(2, &["--model"]);
    let silu = folder.write("silu.gguf", llama().build().to_bytes());
    let text = folder.write("text.txt", "some words to read ".repeat(400));
    run(args!["convert", "-m", &silu, "--text", &text]).fails(1, &["calibrate it first"]);
    let plain = run(args!["convert", "-m", &silu]).ok();
    assert!(plain.contains("nothing says which are hot"), "{plain}");
    assert!(!folder.0.path().join("model.records.gguf").exists());
    assert!(!folder.0.path().join("model.records.gguf.part").exists());
}
