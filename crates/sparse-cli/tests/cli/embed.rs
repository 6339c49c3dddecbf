use std::path::Path;

use sparse_testdata::TinyBert;

use super::*;

/// A model folder.
fn encoder(folder: &Folder) -> PathBuf {
    let path = folder.0.path().join("tiny-bert");
    TinyBert::default().write_folder(&path);
    path
}

fn values(line: &str) -> Vec<f32> {
    line.split(' ').map(|v| v.parse().unwrap()).collect()
}

#[test]
fn texts_lines_and_stdin_have_the_same_embeddings_in_every_format() {
    let folder = Folder::new();
    let model = encoder(&folder);
    let texts = folder.write("texts.txt", "the cat sat\n\non the mat.\n");
    let by_argument = run(args!["embed", "-m", &model, "the cat sat", "", "on the mat."]).ok();
    let rows: Vec<Vec<f32>> = by_argument.lines().map(values).collect();
    assert_eq!(rows.iter().map(Vec::len).collect::<Vec<_>>(), [64; 3]);
    for row in &rows {
        assert!((row.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4);
    }
    assert_eq!(run(args!["embed", "-m", &model, "--file", &texts]).ok(), by_argument);
    assert_eq!(
        run_with_stdin(args!["embed", "-m", &model], b"the cat sat\n\non the mat.\n").ok(),
        by_argument
    );

    let lines = run(args!["embed", "-m", &model, "--json", "--file", &texts]).ok();
    for (line, (text, row)) in lines.lines().zip(["the cat sat", "", "on the mat."].iter().zip(&rows)) {
        let line = json(line);
        assert_eq!(line["text"], *text);
        let found: Vec<f32> =
            line["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect();
        assert_eq!(&found, row);
    }

    let array = folder.write("texts.npy", "replaced");
    assert_eq!(run(args!["embed", "-m", &model, "--npy", "--out", &array, "--file", &texts]).ok(), "");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&array), mode(&texts), "as readable as any other file");
    }
    let bytes = std::fs::read(&array).unwrap();
    let (header, data) = bytes.split_at(bytes.len() - 3 * 64 * 4);
    assert!(header.starts_with(b"\x93NUMPY") && header.len() % 64 == 0);
    let header = String::from_utf8_lossy(header);
    assert!(header.contains("'<f4'") && header.contains("(3, 64"), "{header}");
    let data: Vec<f32> = data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(data, rows.concat());
}

#[test]
fn the_nearest_line_is_found() {
    let folder = Folder::new();
    let model = encoder(&folder);
    let docs = folder.write("docs.txt", "on the mat.\n\nthe cat sat\nzzz\n");
    let hits =
        json(&run(args!["search", "-m", &model, "--docs", &docs, "the cat sat", "-k", "2", "--json"]).ok());
    assert_eq!(hits.as_array().unwrap().len(), 2);
    assert_eq!((&hits[0]["line"], &hits[0]["text"]), (&3.into(), &"the cat sat".into()));
    assert!(hits[0]["cosine"].as_f64() > Some(0.9999) && hits[1]["cosine"].as_f64() < Some(0.9999));
    let table = run(args!["search", "-m", &model, "--docs", &docs, "the cat sat"]).ok();
    assert!(table.lines().nth(1).unwrap().contains("the cat sat") && table.lines().count() == 4, "{table}");

    for (lane, off) in [("bit3", 0.1), ("Bit5", 0.02), ("bit7", 0.008), ("float", 1e-5)] {
        let found = json(
            &run(args!["search", "-m", &model, "--docs", &docs, "the cat sat", "--lane", lane, "--json"])
                .ok(),
        );
        assert_eq!((found.as_array().unwrap().len(), &found[0]["line"]), (3, &3.into()), "{lane}");
        let error = found[0]["cosine"].as_f64().unwrap() - 1.0;
        assert!(error.abs() < off, "{lane}: {error}");
    }
    run(args!["search", "-m", &model, "--docs", &docs, "cat", "--lane", "bit4"]).fails(2, &["bit4", "Bit5"]);

    let same = run(args!["similarity", "-m", &model, "the cat", "the cat"]).ok();
    assert_eq!(same, "1.0000\n");
    let other = json(&run(args!["similarity", "-m", &model, "--json", "the cat", "zzz"]).ok());
    assert!(other["cosine"].as_f64() < Some(0.9999), "{other}");
}

#[test]
fn what_cannot_be_embedded_is_named() {
    let folder = Folder::new();
    let model = encoder(&folder);
    run(&["embed", "text"]).fails(2, &["no embedding model", "--model", "cargo xtask fetch minilm"]);
    run(&["embed", "-m", "no/such/folder", "text"]).fails(1, &["no/such/folder"]);
    run(args!["embed", "-m", &model, "--file", "no-such-file"]).fails(1, &["cannot read `no-such-file`"]);
    run(args!["embed", "-m", &model, "--format", "q9", "text"]).fails(2, &["q9", "Q8_0"]);
    let bad = folder.write("bad.txt", b"ab\xff");
    run(args!["embed", "-m", &model, "--file", &bad]).fails(1, &["not valid utf-8", "offset 2"]);
    let out = folder.0.path().join("no-such-folder").join("a.npy");
    run(args!["embed", "-m", &model, "--npy", "--out", &out, "text"]).fails(1, &["cannot write", "a.npy"]);
    std::fs::remove_file(model.join("tokenizer.json")).unwrap();
    run(args!["embed", "-m", &model, "text"]).fails(1, &["tokenizer.json"]);
}

#[test]
fn calibration_of_an_encoder_writes_a_sidecar_that_embed_takes() {
    let folder = Folder::new();
    let model = encoder(&folder);
    let lines: String = (0..60).map(|i| format!("the cat sat {i} times on mat {}\n", i * i)).collect();
    let text = folder.write("sentences.txt", lines);
    let out =
        run(args!["calibrate", "-m", &model, "--text", &text, "--max-loss", "20%", "--ranks", "16"]).done();
    for part in ["exact up, sparse down", "low-rank 16", "copy of up in 3 bits", "KEPT ENERGY"] {
        assert!(out.contains(part), "no {part:?} in {out}");
    }
    let sidecar = folder.0.path().join("tiny-bert.sparse.gguf");
    let dense = run(args!["embed", "-m", &model, "the cat sat"]).ok();
    let always =
        run(args!["embed", "-m", &model, "--sparse", &sidecar, "--sparse-always", "the cat sat"]).ok();
    assert_ne!(always, dense);
    let dot: f32 = values(dense.trim()).iter().zip(values(always.trim())).map(|(a, b)| a * b).sum();
    assert!(dot > 0.5, "{dot}");
    run(args!["similarity", "-m", &model, "--sparse", &sidecar, "cat", "cats"]).ok();

    let json = json(&run(args!["calibrate", "-m", &model, "--text", &text, "--ranks", "--json"]).done());
    assert_eq!(json["candidates"].as_array().unwrap().len(), 2);
    run(args!["calibrate", "-m", &model]).fails(2, &["--text"]);
    run(args!["embed", "-m", &model, "--sparse-always", "cat"]).fails(2, &["--sparse"]);
    let other = folder.0.path().join("other");
    TinyBert { seed: 9, ..TinyBert::default() }.write_folder(&other);
    run(args!["embed", "-m", &other, "--sparse", &sidecar, "cat"]).fails(1, &["made for another model"]);
}

/// A model folder with prompts.
fn with_prompts(folder: &Folder) -> PathBuf {
    let model = encoder(folder);
    let prompts = r#"{"prompts": {"query": "cat: ", "document": "on the mat ", "a": "a "}, "default_prompt_name": "a"}"#;
    std::fs::write(model.join("config_sentence_transformers.json"), prompts).unwrap();
    model
}

#[test]
fn prompts_stand_before_texts() {
    let folder = Folder::new();
    let model = with_prompts(&folder);
    let embed = |options: &[&str], text: &str| {
        let mut all = args!["embed", "-m", &model].to_vec();
        all.extend(options.iter().chain([&text]).map(Into::into));
        run(&all).ok()
    };
    let plain = |text: &str| embed(&["--prompt", ""], text);
    assert_eq!(embed(&[], "the cat"), plain("a the cat"));
    assert_eq!(embed(&["--prompt-name", "query"], "the cat"), plain("cat: the cat"));
    assert_eq!(embed(&["--prompt", "the "], "cat"), plain("the cat"));
    assert_ne!(embed(&[], "the cat"), plain("the cat"));
    let same = args!["similarity", "-m", &model, "--prompt", "", "a cat", "a cat"];
    assert_eq!(run(same).ok(), "1.0000\n");
    run(args!["embed", "-m", &model, "--prompt-name", "b", "cat"]).fails(1, &["\"b\"", "a, document, query"]);
    run(args!["embed", "-m", &model, "--prompt-name", "a", "--prompt", "b", "cat"])
        .fails(2, &["--prompt-name"]);

    // The query's prompt and the line's make the same text.
    let docs = folder.write("docs.txt", "sat\ncat\n");
    let search = |options: &[&str]| {
        let mut all = args!["search", "-m", &model, "--docs", &docs, "--json"].to_vec();
        all.extend(options.iter().map(Into::into));
        json(&run(&all).ok())
    };
    let cosine = |hits: &serde_json::Value, line: u64| {
        let hit = hits.as_array().unwrap().iter().find(|hit| hit["line"] == line).unwrap();
        hit["cosine"].as_f64().unwrap()
    };
    assert!(cosine(&search(&["--prompt", "on the mat ", "sat"]), 1) > 0.9999);
    assert!(cosine(&search(&["--doc-prompt-name", "query", "sat"]), 1) > 0.9999);
    assert!(cosine(&search(&["--doc-prompt", "cat: ", "sat"]), 1) > 0.9999);
    assert!(cosine(&search(&["sat"]), 1) < 0.9999);
}

/// Runs `search` with an index; returns the hits, and how many documents were embedded.
fn search_index(model: &Path, docs: &Path, index: &Path, more: &[&str]) -> (String, u64, String) {
    let mut all =
        args!["search", "-m", model, "--docs", docs, "--index", index, "--json", "-v", "the cat"].to_vec();
    all.extend(more.iter().map(Into::into));
    let run = run(&all);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let (_, rest) = run.stderr.split_once("embedded=").unwrap_or_else(|| panic!("{run:#?}"));
    let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
    let warnings = run.stderr.lines().filter(|line| line.contains("WARN")).collect();
    (run.stdout, number.parse().unwrap(), warnings)
}

#[test]
fn an_index_keeps_embeddings_and_only_what_is_stale_is_computed() {
    let folder = Folder::new();
    let model = with_prompts(&folder);
    let index = folder.0.path().join("docs.idx");
    let docs = folder.write("docs.txt", "on the mat.\n\nthe cat sat\nzzz\nzzz\n");
    let without = run(args!["search", "-m", &model, "--docs", &docs, "--json", "the cat"]).ok();
    let embedded = |docs: &PathBuf, more: &[&str]| {
        let (found, embedded, warnings) = search_index(&model, docs, &index, more);
        assert!(warnings.is_empty(), "{warnings}");
        (found, embedded)
    };
    assert_eq!(embedded(&docs, &[]), (without.clone(), 4));
    let first = std::fs::read(&index).unwrap();
    assert_eq!(embedded(&docs, &[]), (without.clone(), 0));
    assert_eq!(std::fs::read(&index).unwrap(), first);
    // Lines that moved, one that is new, one that is gone.
    let other = folder.write("other.txt", "a new line\nthe cat sat\non the mat.\n");
    let fresh = run(args!["search", "-m", &model, "--docs", &other, "--json", "the cat"]).ok();
    assert_eq!(embedded(&other, &[]), (fresh.clone(), 1));
    assert_eq!(embedded(&docs, &[]).1, 2);
    // Whatever changes embeddings makes all of them stale; what does not, none.
    assert_eq!(embedded(&docs, &["--prompt", "cat", "--lane", "bit5", "-t", "2"]).1, 0);
    for change in [&["--doc-prompt", "the "][..], &["--format", "f32"], &["--max-tokens", "9"]] {
        assert_eq!(embedded(&docs, change).1, 4, "{change:?}");
        assert_eq!(embedded(&docs, change).1, 0, "{change:?}");
        assert_eq!(embedded(&docs, &[]).1, 4, "{change:?}");
    }
    TinyBert { seed: 9, ..TinyBert::default() }.write_folder(&model);
    assert_eq!(embedded(&docs, &[]).1, 4);
}

#[test]
fn a_damaged_index_is_said_and_built_anew() {
    let folder = Folder::new();
    let model = encoder(&folder);
    let index = folder.0.path().join("docs.idx");
    let docs = folder.write("docs.txt", "on the mat.\nthe cat sat\n");
    let (found, _, _) = search_index(&model, &docs, &index, &[]);
    let good = std::fs::read(&index).unwrap();
    for at in [8, 40, 47, 48, 56, 60, 100, 150, good.len() - 40, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        std::fs::write(&index, bad).unwrap();
        let (again, embedded, warnings) = search_index(&model, &docs, &index, &[]);
        assert!((&again, embedded) == (&found, 2) && warnings.contains("damaged"), "byte {at}: {warnings}");
        assert_eq!(std::fs::read(&index).unwrap(), good, "byte {at}");
    }
    for len in [0, 7, 8, 20, 56, 88, 200, good.len() - 1] {
        std::fs::write(&index, &good[..len]).unwrap();
        let (again, embedded, warnings) = search_index(&model, &docs, &index, &[]);
        let said = warnings.contains("damaged");
        assert!((&again, embedded, said) == (&found, 2, true), "{len} bytes: {warnings}");
        _ = std::fs::remove_file(folder.0.path().join("docs.idx.old"));
    }
    // A file of the user's that is no index is not lost.
    let notes = folder.write("notes.txt", "do not lose me");
    let (again, _, warnings) = search_index(&model, &docs, &notes, &[]);
    assert!(again == found && warnings.contains("notes.txt.old"), "{warnings}");
    assert_eq!(std::fs::read(folder.0.path().join("notes.txt.old")).unwrap(), b"do not lose me");
    // A place that cannot be written is an error, and nothing is left there.
    let nowhere = folder.0.path().join("no-such-folder").join("docs.idx");
    run(args!["search", "-m", &model, "--docs", &docs, "--index", &nowhere, "cat"])
        .fails(1, &["cannot write the index", "no-such-folder"]);
    run(args!["search", "-m", &model, "--docs", &docs, "--index", folder.0.path(), "cat"])
        .fails(1, &["cannot read the index"]);
    let mut left = std::fs::read_dir(folder.0.path()).unwrap().map(|e| e.unwrap().file_name());
    assert!(left.all(|name| !name.to_string_lossy().ends_with(".part")));
}
