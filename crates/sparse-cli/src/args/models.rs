//! Models by name: `-m smollm2` means the file in `models/` that `cargo xtask fetch` put there, or the one that `sparse pull`
//! fetched.

use std::path::{Component, Path, PathBuf};

use clap::builder::{PathBufValueParser, TypedValueParser};
use etcetera::BaseStrategy;

/// The folder that models are fetched into.
const FOLDER: &str = "models";

/// A path, or the name of a model in the folder `models`.
pub(super) fn path_or_name() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(find)
}

/// Where `sparse pull` puts models.
pub(crate) fn pulled() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.data_dir().join("sparse").join("models"))
}

/// The path itself, if something is there or it is no plain name; otherwise the model in the folder
/// `models`, or among those that were pulled, that has this name, begins with it or contains it, whatever the case. If
/// there is none, the path as it is.
///
/// # Errors
/// If several models fit.
pub(crate) fn find(path: PathBuf) -> Result<PathBuf, String> {
    let mut parts = path.components();
    let plain = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    match path.to_str() {
        Some(name) if plain && !path.exists() => {
            for folder in [Some(PathBuf::from(FOLDER)), pulled()].into_iter().flatten() {
                if let Some(name) = pick(name, models(&folder))? {
                    return Ok(folder.join(name));
                }
            }
            Ok(path)
        }
        _ => Ok(path),
    }
}

/// The one of `models` that `name` means.
fn pick(name: &str, models: Vec<String>) -> Result<Option<String>, String> {
    let wanted = name.to_lowercase();
    let fits: [&dyn Fn(&str) -> bool; 3] = [
        &|model| model == wanted || model.strip_suffix(".gguf") == Some(wanted.as_str()),
        &|model| model.starts_with(&wanted),
        &|model| model.contains(&wanted),
    ];
    for fits in fits {
        let mut found: Vec<&String> = models.iter().filter(|model| fits(&model.to_lowercase())).collect();
        found.sort();
        match found[..] {
            [] => {}
            [model] => return Ok(Some(model.clone())),
            _ => {
                let all: Vec<String> = found.iter().map(|model| format!("\n  {FOLDER}/{model}")).collect();
                return Err(format!("several models are called like that:{}", all.concat()));
            }
        }
    }
    Ok(None)
}

/// The models in `folder`: GGUF files, of one in parts the first, and folders of sentence encoders.
fn models(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let lower = name.to_lowercase();
        let model = match entry.path().is_dir() {
            true => entry.path().join("config.json").exists(),
            false => lower.ends_with(".gguf") && !lower.ends_with(".sparse.gguf") && !is_later_part(&lower),
        };
        model.then_some(name)
    });
    names.collect()
}

fn is_later_part(name: &str) -> bool {
    let part = name.rsplit_once("-of-").and_then(|(start, _)| start.rsplit_once('-'));
    part.is_some_and(|(_, part)| part.len() == 5 && part != "00001" && part.parse::<u32>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_models() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        for file in [
            "SmolLM2-135M.Q4_1.gguf",
            "SmolLM2-135M.Q4_1.sparse.gguf",
            "big-00001-of-00002.gguf",
            "big-00002-of-00002.gguf",
            "notes.txt",
        ] {
            write(file);
        }
        for name in ["all-MiniLM-L6-v2", "no-model"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        write("all-MiniLM-L6-v2/config.json");
        let pick = |name: &str| pick(name, models(folder.path()));
        for (name, model) in [
            ("SmolLM2-135M.Q4_1", Some("SmolLM2-135M.Q4_1.gguf")),
            ("smollm2-135m.q4_1.gguf", Some("SmolLM2-135M.Q4_1.gguf")),
            ("smollm2", Some("SmolLM2-135M.Q4_1.gguf")),
            ("all-minilm", Some("all-MiniLM-L6-v2")),
            ("minilm", Some("all-MiniLM-L6-v2")),
            ("big", Some("big-00001-of-00002.gguf")),
            ("notes", None),
            ("no-model", None),
        ] {
            assert_eq!(pick(name), Ok(model.map(str::to_owned)), "{name}");
        }
        write("SmolLM2-360M.Q8_0.gguf");
        let several = pick("smollm2").unwrap_err();
        assert!(several.ends_with(":\n  models/SmolLM2-135M.Q4_1.gguf\n  models/SmolLM2-360M.Q8_0.gguf"));
        // The whole name of one is a part of the other's.
        write("SmolLM2.gguf");
        assert_eq!(pick("smollm2"), Ok(Some("SmolLM2.gguf".into())));
    }
}
