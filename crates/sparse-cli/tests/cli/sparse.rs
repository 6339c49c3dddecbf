use std::ffi::OsString;

use sparse_gguf::Gguf;
use sparse_model::{Model, Sidecar};

use super::*;

const TEXT: &str = "and here the ring was found in a hall on the hill, and all the men ran. ";

fn relu() -> TinyLlama {
    TinyLlama { activation: Some("relu"), ..TinyLlama::default() }
}

/// A model with its sidecar.
fn calibrated(folder: &Folder) -> (PathBuf, PathBuf) {
    let model = folder.model(&relu().build());
    let text = folder.write("text.txt", TEXT.repeat(60));
    let run = run(args![
        "calibrate",
        "-m",
        &model,
        "--text",
        &text,
        "--ctx",
        "32",
        "--tune-tokens",
        "256",
        "--test-tokens",
        "512",
        "--ranks",
        "32",
        "--max-loss",
        "5%",
        "--keep",
        "--continuations",
        "2",
        "-t",
        "1"
    ]);
    let said = run.done();
    for part in [
        "TRIED",
        "exact-zero",
        "low-rank 32",
        "KEPT ENERGY",
        "tokens that nothing was fitted to",
        "SCREEN",
        "random axes",
        "greedy continuations",
    ] {
        assert!(said.contains(part), "no {part} in\n{said}");
    }
    let sidecar = model.with_extension("sparse.gguf");
    let last = format!(
        "written to {}\nuse it with: sparse generate -m {} --sparse sidecar \"Once upon a time\"\n",
        sidecar.display(),
        model.display()
    );
    assert!(said.ends_with(&last), "{said}");
    (model, sidecar)
}

#[test]
fn a_calibrated_model_generates_and_is_scored() {
    let folder = Folder::new();
    let (model, sidecar) = calibrated(&folder);
    let report = |flags: &[OsString]| {
        let mut args =
            args!["generate", "-m", &model, "-n", "12", "--greedy", "--ignore-eos", "--json"].to_vec();
        args.extend_from_slice(flags);
        args.push("here".into());
        json(&run(&args).done())
    };
    let dense = report(args![]);
    let sparse = report(args!["--sparse", &sidecar]);
    assert_eq!(dense["skipped"], 0.0);
    assert!(sparse["skipped"].as_f64().unwrap() > 0.1, "{sparse:#}");
    let layers = sparse["layers"].as_array().unwrap();
    // By the clock one of the layers may be faster dense.
    assert!(
        layers.iter().any(|l| l["selector"] != "dense" && l["down"].as_f64().unwrap() < 0.9),
        "{layers:#?}"
    );

    let stats = run(args!["generate", "-m", &model, "--sparse", &sidecar, "-n", "5", "--stats", "here"]);
    assert_eq!(stats.code, Some(0));
    assert!(stats.stderr.contains("KB/TOKEN") && stats.stderr.contains("per token: attention"), "{stats:?}");

    let text = folder.write("other.txt", TEXT.repeat(8));
    let perplexity = |flags: &[OsString]| {
        let mut args = args!["perplexity", "-m", &model, "--text", &text, "--ctx", "32", "--json"].to_vec();
        args.extend_from_slice(flags);
        json(&run(&args).done())["perplexity"].as_f64().unwrap()
    };
    let (dense, sparse) = (perplexity(args![]), perplexity(args!["--sparse", &sidecar]));
    assert!((sparse / dense - 1.0).abs() < 0.1, "{dense} {sparse}");
}

#[test]
fn wrong_sidecars_are_refused() {
    let folder = Folder::new();
    let (_, sidecar) = calibrated(&folder);
    let other = folder.write("other.gguf", TinyLlama { seed: 2, ..relu() }.build().to_bytes());
    let refused = |sidecar: &std::path::Path| {
        let run = run(args!["generate", "-m", &other, "--sparse", sidecar, "here"]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
        run.stderr
    };
    assert!(refused(&sidecar).contains("made for another model file"), "{}", refused(&sidecar));
    assert!(refused(&other).contains("is no sidecar"), "{}", refused(&other));
    let missing = refused("none.gguf".as_ref());
    assert!(missing.contains("run `sparse calibrate`"), "{missing}");
    assert_eq!(missing.matches("none.gguf").count(), 1, "{missing}");
    run(args!["generate", "-m", &other, "--sparse", "sidecar", "here"])
        .fails(1, &["no sidecar", "other.sparse.gguf", "run `sparse calibrate`"]);
}

#[test]
#[cfg(unix)]
fn a_sidecar_may_be_in_the_cache_folder() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let gguf = Gguf::open(&model).unwrap();
    let generate = || {
        let mut command = sparse(args!["generate", "-m", &model, "--sparse", "sidecar", "-n", "3", "here"]);
        Run::of(command.env("XDG_CACHE_HOME", folder.0.path().join("cache")).output().unwrap())
    };
    generate().fails(1, &["no sidecar", "run `sparse calibrate`"]);
    let place = model.canonicalize().unwrap().with_extension("sparse.gguf");
    let place = folder.0.path().join("cache/sparse").join(place.strip_prefix("/").unwrap());
    std::fs::create_dir_all(place.parent().unwrap()).unwrap();
    Sidecar::of(&gguf, &Model::from_gguf(&gguf, 1).unwrap()).save(&place).unwrap();
    generate().ok();
}

#[test]
fn without_a_text_the_model_makes_one_up() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let out = folder.0.path().join("own.sparse.gguf");
    let tokens = ["--ctx", "32", "--fit-tokens", "128", "--tune-tokens", "128", "--test-tokens", "128"];
    let mut args =
        args!["calibrate", "-m", &model, "--out", &out, "--only", "ffn", "--ranks", "--json"].to_vec();
    args.extend(tokens.map(OsString::from));
    args.push("--keep".into());
    let found = run(&args);
    let report = json(&found.done());
    assert_eq!(report["candidates"][1]["name"], "exact-zero");
    assert_eq!(report["chosen"]["loss"]["tokens"], 60);
    // Lines in place of a bar, and a warning that sixty tokens show nothing.
    assert!(found.stderr.contains("measuring the loss on other text"), "{}", found.stderr);
    let warning = "warning: its loss was measured on 60 tokens only";
    assert!(found.stderr.contains(warning), "{}", found.stderr);
    assert!(report["concerns"][0].as_str().unwrap().contains("60 tokens only"), "{report:#}");
    // It is said again when the sidecar is used.
    let used = run(args!["generate", "-m", &model, "--sparse", &out, "-n", "2", "here"]);
    assert!(used.code == Some(0) && used.stderr.contains("60 tokens only"), "{used:?}");
    assert!(out.exists() && !model.with_extension("sparse.gguf").exists());
}

#[test]
fn calibration_refuses_what_it_cannot_do_before_it_works() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let nowhere = run(args!["calibrate", "-m", &model, "--out", "no/such/folder/x.sparse.gguf"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(
        nowhere
            .stderr
            .contains("cannot write `no/such/folder/x.sparse.gguf`: name another place with --out FILE")
    );
    let folder_named = run(args!["calibrate", "-m", &model, "--out", folder.0.path()]);
    folder_named.fails(1, &["cannot write", "it is a folder"]);
    let itself = run(args!["calibrate", "-m", &model, "--out", &model]);
    itself.fails(2, &["--out names", "would be replaced"]);
    for minutes in ["0", "-1", "NaN", "x"] {
        let wrong = run(args!["calibrate", "-m", &model, format!("--minutes={minutes}")]);
        wrong.fails(2, &["expected a number of minutes above 0"]);
    }
    let unused = run(args!["calibrate", "-m", &model, "--only", "lanes", "--keep"]);
    assert_eq!(unused.code, Some(2));
    assert!(unused.stderr.contains("--keep means nothing with --only lanes: leave it out"), "{unused:?}");
}

#[test]
fn a_text_too_short_and_a_wrong_budget_are_refused() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let text = folder.write("text.txt", TEXT);
    let short = run(args!["calibrate", "-m", &model, "--text", &text]);
    assert_eq!(short.code, Some(1));
    let wrong = run(args!["calibrate", "-m", &model, "--text", &text, "--max-loss", "1x"]);
    assert_eq!(wrong.code, Some(2));
    assert!(wrong.stderr.contains("expected a percentage such as 1%"), "{}", wrong.stderr);
    assert!(!model.with_extension("sparse.gguf").exists());
}

#[test]
fn a_profile_is_a_table_json_and_a_picture() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let text = folder.write("text.txt", TEXT.repeat(10));
    let svg = folder.0.path().join("chart.svg");
    let table = run(args!["profile", "-m", &model, "--text", &text, "--ctx", "32", "--svg", &svg]).ok();
    assert!(table.contains("FIXED HOT SET") && table.contains("NEVER ACTIVE"), "{table}");
    let picture = std::fs::read_to_string(&svg).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("Activation locality of Tiny Llama"));
    assert!(picture.matches("<polyline").count() >= 6, "{picture}");
    let report = json(&run(args!["profile", "-m", &model, "--text", &text, "--ctx", "32", "--json"]).ok());
    assert_eq!(report["layers"].as_array().unwrap().len(), 2);
    let layer = &report["layers"][0];
    assert!(layer["zeros"].as_f64().unwrap() > 0.2 && layer["never"].as_f64().unwrap() < 0.5);
    let mut order: Vec<u64> =
        layer["order"].as_array().unwrap().iter().map(|j| j.as_u64().unwrap()).collect();
    order.sort_unstable();
    assert!(order.into_iter().eq(0..layer["neurons"].as_u64().unwrap()), "{layer}");
}

#[test]
fn a_screened_head_writes_the_same_and_is_measured() {
    let folder = Folder::new();
    let model = folder.model(&TinyLlama::default().build());
    let generate = |flags: &[OsString]| {
        let mut args =
            args!["generate", "-m", &model, "-n", "12", "--greedy", "--ignore-eos", "--json"].to_vec();
        args.extend_from_slice(flags);
        args.push("here".into());
        json(&run(&args).ok())
    };
    let (whole, screened) = (generate(args![]), generate(args!["--head", "screened"]));
    assert_eq!(whole["tokens"], screened["tokens"]);
    // A small head stays whole unless asked for.
    assert!(whole["screen"].is_null());
    let screen = &screened["screen"];
    assert!(screen["rows"].is_number() && screen["bytes"].as_f64().unwrap() > 0.0, "{screen:#}");
    assert_ne!(whole["bytes_per_token"], screened["bytes_per_token"]);
    let stats = run(args!["generate", "-m", &model, "--head", "screened", "-n", "5", "--stats", "here"]);
    assert!(stats.stderr.contains("screened head: "), "{stats:?}");

    let text = folder.write("text.txt", TEXT.repeat(8));
    let measured =
        run(args!["perplexity", "-m", &model, "--text", &text, "--ctx", "32", "--measure-screen", "--json"]);
    let measured = json(&measured.ok());
    assert!(measured["agreement"].as_f64().unwrap() > 0.9, "{measured:#}");
    let refused = run(args![
        "perplexity",
        "-m",
        &model,
        "--text",
        &text,
        "--ctx",
        "32",
        "--measure-screen",
        "--head",
        "dense"
    ]);
    assert!(refused.stderr.contains("screen is missing, expected a model with a screen"), "{refused:?}");
}

#[test]
fn neurons_may_be_in_lanes() {
    let folder = Folder::new();
    let model = folder.model(&relu().build());
    let text = folder.write("text.txt", TEXT.repeat(60));
    let perplexity = |flags: &[OsString]| {
        let mut args = args!["perplexity", "-m", &model, "--text", &text, "--ctx", "32", "--json"].to_vec();
        args.extend_from_slice(flags);
        json(&run(&args).done())["perplexity"].as_f64().unwrap()
    };
    let own = perplexity(&[]);
    let off = |lane: &str| (perplexity(args!["--ffn-lane", lane]) / own - 1.0).abs();
    let (bit7, bit3) = (off("bit7"), off("bit3"));
    assert!(bit7 > 0.0 && bit7 < 0.01 && bit3 > bit7, "bit7 {bit7}, bit3 {bit3}");
    let unknown = run(args!["perplexity", "-m", &model, "--text", &text, "--ffn-lane", "bit4"]);
    unknown.fails(2, &["bit4"]);

    let flags =
        ["--ctx", "32", "--tune-tokens", "256", "--test-tokens", "512", "--max-loss", "20%", "-t", "1"];
    let mut args = args!["calibrate", "-m", &model, "--text", &text, "--only", "lanes", "--json"].to_vec();
    args.extend(flags.iter().map(Into::into));
    let report = json(&run(&args).done());
    let chosen = &report["chosen"];
    assert!(chosen["bytes"].as_u64() < chosen["file_bytes"].as_u64(), "{report:#}");
    let sidecar = model.with_extension("sparse.gguf");
    assert!((perplexity(args!["--sparse", &sidecar]) / own - 1.0).abs() < 0.2);
    run(args!["perplexity", "-m", &model, "--text", &text, "--sparse", "sidecar", "--ffn-lane", "bit7"])
        .fails(2, &["--ffn-lane", "sparse.gguf", "has lanes"]);
}
