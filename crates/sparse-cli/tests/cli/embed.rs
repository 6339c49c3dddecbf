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
        run(args!["calibrate", "-m", &model, "--text", &text, "--max-loss", "20%", "--ranks", "16"]).ok();
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

    let json = json(&run(args!["calibrate", "-m", &model, "--text", &text, "--ranks", "--json"]).ok());
    assert_eq!(json["candidates"].as_array().unwrap().len(), 2);
    run(args!["calibrate", "-m", &model]).fails(2, &["--text"]);
    run(args!["embed", "-m", &model, "--sparse-always", "cat"]).fails(2, &["--sparse"]);
    let other = folder.0.path().join("other");
    TinyBert { seed: 9, ..TinyBert::default() }.write_folder(&other);
    run(args!["embed", "-m", &other, "--sparse", &sidecar, "cat"]).fails(1, &["made for another model"]);
}
