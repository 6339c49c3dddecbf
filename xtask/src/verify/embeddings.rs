//! Sentence embeddings against those of the sentence-transformers library.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::program::{output, program};

/// Least mean cosine to the reference, by format of the weights.
const BARS: [(&str, f64); 2] = [("f32", 0.9999), ("int8", 0.998)];

/// What `tools/reference/make_embedding_reference.py` wrote.
#[derive(Deserialize)]
struct Reference {
    made_by: String,
    texts: Vec<String>,
    embeddings: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Line {
    embedding: Vec<f64>,
}

/// Fails unless the embeddings of the committed texts agree with the committed ones.
pub(super) fn run(model: Option<&Path>, threads: usize) -> Result<()> {
    let path = crate::root().join("tools/reference/minilm.json");
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let reference: Reference = serde_json::from_reader(file)?;
    let model = model.map_or_else(|| crate::models().join("all-MiniLM-L6-v2"), Path::to_owned);
    ensure!(model.exists(), "{} is not there: run `cargo xtask fetch minilm`", model.display());
    let folder = tempfile::tempdir()?;
    let lines = folder.path().join("lines");
    fs::write(&lines, reference.texts.join("\n") + "\n")?;
    for (format, bar) in BARS {
        let mut command = program("sparse-cli", &["--bin", "sparse"]);
        command.args(["embed", "--json", "--format", format, "--threads", &threads.to_string(), "--model"]);
        command.arg(&model).arg("--file").arg(&lines);
        let found = output(&mut command)?;
        let found: Vec<Line> =
            serde_json::Deserializer::from_slice(&found).into_iter().collect::<Result<_, _>>()?;
        ensure!(
            found.len() == reference.texts.len(),
            "{} embeddings of {} texts",
            found.len(),
            reference.texts.len()
        );
        let cosines: Vec<f64> =
            found.iter().zip(&reference.embeddings).map(|(a, b)| cosine(&a.embedding, b)).collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let least = cosines.iter().copied().fold(1.0, f64::min);
        let what = format!(
            "{format}: mean cosine {mean:.6} (bar {bar}), least {least:.6}, to {}",
            reference.made_by
        );
        if mean.is_nan() || mean < bar {
            bail!("embeddings in {what}");
        }
        println!("ok   embeddings of {} texts in {what}", found.len());
    }
    Ok(())
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
