use super::*;
use sparse_gguf::{GgmlType, GgufWriter, Metadata};
use sparse_testdata::Tensor;

#[test]
fn the_summary_weighs_the_parts() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama { tied: false, ..TinyLlama::default() }.build());
    let summary = run(args!["inspect", &model]).ok();
    for part in [
        "Tiny Llama",
        "embedding",
        "attention",
        "feed-forward",
        "norms",
        "head",
        "Q8_0",
        "4 query, 2 key-value",
    ] {
        assert!(summary.contains(part), "no {part} in {summary}");
    }
    assert!(!summary.contains("tied"), "{summary}");
    let tied = folder.model(&TinyLlama::default().build());
    assert!(run(args!["inspect", &tied]).ok().contains("(tied)"));
}

#[test]
fn json_counts_every_byte() {
    let folder = Folder::new();
    let file = TinyLlama::default().build();
    let report = json(&run(args!["inspect", folder.model(&file), "--json"]).ok());
    let bytes: usize = file.tensors.iter().map(|t| t.data.len()).sum();
    let sum = |list: &serde_json::Value| {
        list.as_array().unwrap().iter().map(|g| g["bytes"].as_u64().unwrap()).sum::<u64>()
    };
    let summary = &report["summary"];
    assert_eq!(summary["total"]["bytes"], bytes);
    for list in [&summary["parts"], &summary["types"], &report["tensors"]] {
        assert_eq!(sum(list), bytes as u64);
    }
    assert_eq!(report["tensors"].as_array().unwrap().len(), file.tensors.len());
    assert_eq!(
        report["tensors"][0],
        serde_json::json!({
            "name": "token_embd.weight", "type": "Q8_0", "type_id": 8, "shape": [64, 271], "bytes": 271 * 68,
        })
    );
    assert_eq!(report["metadata"]["llama.block_count"], 2);
    assert_eq!(report["metadata"]["tokenizer.ggml.tokens"]["length"], 271);
    assert_eq!(summary["tied_head"], true);
}

#[test]
fn lists_are_one_line_per_entry() {
    let folder = Folder::new();
    let file = TinyLlama::default().build();
    let model = folder.model(&file);
    let tensors = run(args!["inspect", &model, "--tensors"]).ok();
    assert_eq!(tensors.lines().count(), file.tensors.len() + 1);
    let row: Vec<&str> =
        tensors.lines().find(|l| l.starts_with("blk.1.ffn_down")).unwrap().split_whitespace().collect();
    assert_eq!(row, ["blk.1.ffn_down.weight", "Q8_0", "160", "x", "64", "10880"]);
    let metadata = run(args!["inspect", &model, "--metadata"]).ok();
    assert_eq!(metadata.lines().count(), file.metadata.len() + 1);
    // A chat template has line breaks and is long; the vocabulary is longer.
    assert!(metadata.lines().all(|l| l.chars().count() < 200), "{metadata}");
}

#[test]
fn foreign_architectures_and_types_are_shown_all_the_same() {
    let folder = Folder::new();
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "martian");
    metadata.insert("martian.expert_count", 8u32);
    metadata.insert("martian.expert_used_count", 2u32);
    metadata.insert("martian.ratio", f32::NAN);
    let mut writer = GgufWriter::new(metadata);
    writer.tensor("token_embd.weight", &[256, 3], GgmlType::IQ1_S).unwrap();
    writer.tensor("blk.0.ffn_up_exps.weight", &[256, 4, 8], GgmlType::TQ1_0).unwrap();
    let mut data = writer.start(Vec::new()).unwrap();
    data.write("token_embd.weight", &[0; 150]).unwrap();
    data.write("blk.0.ffn_up_exps.weight", &[0; 54 * 32]).unwrap();
    let model = folder.write("model.gguf", data.finish().unwrap());
    let summary = run(args!["inspect", &model]).ok();
    for part in ["martian", "IQ1_S", "TQ1_0"] {
        assert!(summary.contains(part), "no {part} in {summary}");
    }
    let report = json(&run(args!["inspect", &model, "--json"]).ok());
    // The tied head, and two experts of eight.
    assert_eq!(report["summary"]["bytes_per_token"], 150 + 54 * 32 / 4);
    assert_eq!(report["metadata"]["martian.ratio"], serde_json::Value::Null);
}

#[test]
fn names_from_the_file_cannot_write_on_the_terminal() {
    let folder = Folder::new();
    let mut file = TinyLlama::default().build();
    file.metadata.insert("general.name", "\u{1b}[31mred");
    file.metadata.insert("\u{1b}[31mkey", "\u{1b}[31mvalue");
    file.tensors.push(Tensor::new("\u{1b}[31mtensor", &[32], sparse_gguf::BlockFormat::F32, &[0.0; 32]));
    let model = folder.model(&file);
    for flags in [&[] as &[&str], &["--tensors", "--metadata"], &["--json"]] {
        let mut args = args!["inspect", &model].to_vec();
        args.extend(flags.iter().map(Into::into));
        let shown = run(&args).ok();
        assert!(shown.contains("[31m") && !shown.contains('\u{1b}'), "{flags:?}: {shown:?}");
    }
}

#[test]
fn the_cpu_lists_its_levels() {
    let report = json(&run(&["inspect", "--cpu", "--json"]).ok());
    let available: Vec<String> = serde_json::from_value(report["available"].clone()).unwrap();
    assert_eq!(available[0], "scalar");
    for level in available {
        let output = sparse(&["inspect", "--cpu"]).env("SPARSE_SIMD", &level).output().unwrap();
        let shown = Run::of(output).ok();
        let line = |label: &str| {
            shown.lines().find_map(|l| l.strip_prefix(label)).unwrap_or_default().trim().to_owned()
        };
        assert_eq!(line("level"), level, "{shown}");
        assert_eq!(line("SPARSE_SIMD"), level, "{shown}");
    }
}

/// The story model was trained with ReLU, and its file says so; without that line the weights do.
#[cfg(feature = "story")]
#[test]
fn the_activation_is_found_by_trying() {
    let folder = Folder::new();
    let story = concat!(env!("CARGO_MANIFEST_DIR"), "/story/story.gguf");
    let model = folder.0.path().join("model.gguf");
    let gguf = sparse_gguf::Gguf::open(story).unwrap();
    let mut writer = GgufWriter::like(&gguf);
    *writer.metadata_mut() = Metadata::new();
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| !key.ends_with(".hidden_activation")) {
        writer.metadata_mut().insert(key, value.clone());
    }
    let mut out = writer.create(&model).unwrap();
    for tensor in gguf.views() {
        out.write(&tensor.info.name, tensor.data).unwrap();
    }
    out.finish().unwrap();
    let scores = json(&run(args!["inspect", &model, "--check-activation", "--json"]).ok());
    assert_eq!(scores[0]["activation"], "relu");
    let told = run(args!["inspect", &model, "--check-activation"]).ok();
    assert!(told.contains("The weights were trained with relu: --activation relu"), "{told}");

    // Without a word on it, the file is refused: its `ffn_down_t` is made for skipping zeros.
    let generate = |file: &std::path::Path, activation: &[&str]| {
        let fixed = ["--sparse", "exact-zero", "--greedy", "-n", "20", "Once upon a time"];
        let file = ["generate", "-m", file.to_str().unwrap()];
        run(&file.iter().chain(activation).chain(&fixed).collect::<Vec<_>>())
    };
    generate(&model, &[]).fails(1, &["blk.0.ffn_down_t.weight", "--activation relu"]);
    let own = generate(std::path::Path::new(story), &[]).ok();
    assert_eq!(generate(&model, &["--activation", "relu"]).ok(), own);
    let copy = folder.0.path().join("copy.gguf");
    assert_eq!(run(args!["inspect", &model, "--set-activation", "relu", "--out", &copy]).ok(), "");
    assert_eq!(generate(&copy, &[]).ok(), own);
}
