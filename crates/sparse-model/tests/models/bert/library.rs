//! Tiny models and what the sentence-transformers library makes of them: `tools/reference/make_embedding_cases.py`.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};
use sparse_model::{Encoder, Prompt};
use tempfile::TempDir;

use super::f32;

/// A copy of the folder `name`, with `files` in place of its own. `null` stands for a file that is not there.
fn folder(name: &str, files: &Map<String, Value>) -> TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &target),
                false => drop(fs::copy(entry.path(), target).unwrap()),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embedding").join(name), folder.path());
    for (file, content) in files {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match content {
            Value::Null => fs::remove_file(path).unwrap(),
            content => fs::write(path, content.to_string()).unwrap(),
        }
    }
    folder
}

/// What is wrong with our embeddings of a case.
fn check(model: &str, texts: &[&str], case: &Value) -> Result<(), String> {
    let folder = folder(model, case["files"].as_object().unwrap());
    let encoder = Encoder::open(folder.path(), &f32()).map_err(|e| e.to_string())?;
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let prompt = match (text("prompt"), text("prompt_name"), text("task").as_deref()) {
        (Some(text), _, _) => Prompt::Text(text),
        (_, Some(name), _) => Prompt::Named(name),
        (_, _, Some("query")) => Prompt::Query,
        (_, _, Some(_)) => Prompt::Document,
        _ => Prompt::Default,
    };
    let plain = encoder.prompted(&Prompt::None).map_err(|e| e.to_string())?;
    let found = encoder.prompted(&prompt).and_then(|e| e.embed_batch(texts)).map_err(|e| e.to_string())?;
    for (i, text) in texts.iter().enumerate() {
        let ids: Vec<u32> = serde_json::from_value(case["ids"][i].clone()).unwrap();
        let ours = plain.tokens(text).unwrap();
        if ours != ids {
            return Err(format!("{text:?}: ids {ours:?}, expected {ids:?}"));
        }
        let expected: Vec<f32> = serde_json::from_value(case["embeddings"][i].clone()).unwrap();
        if found[i].len() != expected.len() || encoder.dimension() != expected.len() {
            return Err(format!("{text:?}: {} values, expected {}", found[i].len(), expected.len()));
        }
        let largest = expected.iter().fold(1.0, |a: f32, b| a.max(b.abs()));
        let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 3e-5 * largest;
        if !found[i].iter().zip(&expected).all(close) {
            return Err(format!("{text:?}: {:?}, expected {expected:?}", found[i]));
        }
    }
    Ok(())
}

#[test]
fn tiny_models_give_what_the_library_gives() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/embedding");
    let mut wrong = Vec::new();
    for model in ["bert", "xlm-roberta"] {
        let text = fs::read_to_string(data.join(format!("{model}.json"))).unwrap();
        let file: Value = serde_json::from_str(&text).unwrap();
        let texts: Vec<&str> =
            file["texts"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
        let cases = file["cases"].as_array().unwrap();
        assert!(cases.len() > 3, "{model}");
        for case in cases {
            if let Err(problem) = check(model, &texts, case) {
                wrong.push(format!("{model}, {}: {problem}", case["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
