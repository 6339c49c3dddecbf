//! Where sidecars are kept: beside their models, or in the user's cache folder where nothing can be written there.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

#[cfg(feature = "calibrate")]
use anyhow::Context;
use etcetera::BaseStrategy;

#[cfg(feature = "calibrate")]
use crate::output;

/// The sidecar of `model`; of two, the one that was written last.
pub(crate) fn find(model: &Path) -> Option<PathBuf> {
    newest([Some(beside(model)), cached(model)])
}

/// Where a new sidecar of `model` goes.
///
/// # Errors
/// If it can be written neither beside the model nor in the cache folder.
#[cfg(feature = "calibrate")]
pub(crate) fn place(model: &Path) -> anyhow::Result<PathBuf> {
    choose(beside(model), || cached(model), output::writable)
}

/// The sidecar's place beside the model.
pub(crate) fn beside(model: &Path) -> PathBuf {
    if !model.is_dir() {
        let stem = model.file_stem().and_then(|stem| stem.to_str());
        return match stem.and_then(whole_name) {
            Some(name) => model.with_file_name(format!("{name}.sparse.gguf")),
            None => model.with_extension("sparse.gguf"),
        };
    }
    // What is behind a folder's last dot is no extension. `.` and the like have names only once they are resolved.
    let model = model.canonicalize().unwrap_or_else(|_| model.to_owned());
    let mut name: OsString = model.file_name().unwrap_or_default().to_owned();
    name.push(".sparse.gguf");
    model.with_file_name(name)
}

/// The name of the model that `stem` is the name of a part of: the parts `x-00001-of-00002` have one sidecar.
fn whole_name(stem: &str) -> Option<&str> {
    let (start, count) = stem.rsplit_once("-of-")?;
    let (name, part) = start.rsplit_once('-')?;
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    (number(count) && number(part)).then_some(name)
}

/// The sidecar's place in the cache folder, where the folders above the model are made again.
fn cached(model: &Path) -> Option<PathBuf> {
    let cache = etcetera::choose_base_strategy().ok()?.cache_dir();
    Some(under(&cache.join("sparse"), &beside(&model.canonicalize().ok()?)))
}

/// `path` with `root` in place of the file system's.
fn under(root: &Path, path: &Path) -> PathBuf {
    let names = path.components().filter(|c| matches!(c, Component::Normal(_)));
    root.components().chain(names).collect()
}

fn newest(places: [Option<PathBuf>; 2]) -> Option<PathBuf> {
    let dated = |path: PathBuf| Some((path.metadata().ok()?.modified().ok()?, path));
    let newest = places.into_iter().flatten().filter_map(dated).max_by_key(|(time, _)| *time);
    newest.map(|(_, path)| path)
}

#[cfg(feature = "calibrate")]
fn choose(
    beside: PathBuf,
    cached: impl Fn() -> Option<PathBuf>,
    writable: impl Fn(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let Err(problem) = writable(&beside) else { return Ok(beside) };
    let Some(cached) = cached() else { return Err(problem) };
    let folder = cached.parent().unwrap_or(&cached);
    std::fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder `{}` for it", folder.display()))
        .and_then(|()| writable(&cached))
        .with_context(|| format!("{problem:#}"))?;
    Ok(cached)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    #[cfg(feature = "calibrate")]
    use anyhow::bail;

    use super::*;

    #[test]
    fn the_cache_has_the_folders_of_the_model() {
        assert_eq!(beside(Path::new("/a/b/x.Q4_0.gguf")), Path::new("/a/b/x.Q4_0.sparse.gguf"));
        for part in ["/a/x.Q4_0-00001-of-00002.gguf", "/a/x.Q4_0-00002-of-00002.gguf"] {
            assert_eq!(beside(Path::new(part)), Path::new("/a/x.Q4_0.sparse.gguf"));
        }
        let path = under(Path::new("/home/i/.cache/sparse"), Path::new("/a/b/x.sparse.gguf"));
        assert_eq!(path, Path::new("/home/i/.cache/sparse/a/b/x.sparse.gguf"));
    }

    #[cfg(feature = "calibrate")]
    #[test]
    fn beside_the_model_unless_nothing_can_be_written_there() {
        let folder = tempfile::tempdir().unwrap();
        let [model, cache] =
            ["models/x.sparse.gguf", "cache/models/x.sparse.gguf"].map(|p| folder.path().join(p));
        let choose = |fails: &[&Path]| {
            choose(
                model.clone(),
                || Some(cache.clone()),
                |path| match fails.contains(&path) {
                    true => bail!("cannot write `{}`", path.display()),
                    false => Ok(()),
                },
            )
        };
        assert_eq!(choose(&[]).unwrap(), model);
        assert!(!cache.parent().unwrap().exists());
        assert_eq!(choose(&[&model]).unwrap(), cache);
        assert!(cache.parent().unwrap().exists());
        let both = format!("{:#}", choose(&[&model, &cache]).unwrap_err());
        assert!([&model, &cache].iter().all(|p| both.contains(&*p.to_string_lossy())), "{both}");
    }

    #[test]
    fn the_newest_sidecar_is_used() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        let newest = || newest([Some(a.clone()), Some(b.clone())]);
        assert_eq!(newest(), None);
        std::fs::write(&b, "").unwrap();
        assert_eq!(newest().as_ref(), Some(&b));
        let later = SystemTime::now() + Duration::from_secs(9);
        std::fs::File::create(&a).unwrap().set_modified(later).unwrap();
        assert_eq!(newest().as_ref(), Some(&a));
    }
}
