//! `sparse pull`: models from the Hugging Face hub.

use std::io::{self, IsTerminal};
use std::path::Path;

use anyhow::{Context, bail};
use hf_hub::api::sync::ApiBuilder;
use sparse_gguf::Gguf;

use crate::args::{PullArgs, pulled};
use crate::exit::{self, End};

pub(crate) fn run(args: &PullArgs) -> anyhow::Result<End> {
    let mut parts = args.model.splitn(3, '/');
    let (Some(owner), Some(name)) = (parts.next(), parts.next()) else {
        return Err(exit::usage("name a repository as OWNER/NAME, or one of its files as OWNER/NAME/FILE"));
    };
    let repository = format!("{owner}/{name}");
    let mut builder = ApiBuilder::from_env().with_retries(5).with_progress(io::stderr().is_terminal());
    if let Ok(token) = std::env::var("HF_TOKEN") {
        builder = builder.with_token(Some(token));
    }
    let api = builder.build().context("cannot reach the hub")?.model(repository.clone());
    let file = match parts.next() {
        Some(file) => file.to_owned(),
        None => {
            let info = api.info().with_context(|| format!("cannot look at the repository {repository}"))?;
            let files: Vec<String> = info.siblings.into_iter().map(|file| file.rfilename).collect();
            choose(&files, &args.quant).with_context(|| format!("in the repository {repository}"))?
        }
    };
    // What is there already is not fetched again, and what was begun is continued.
    let path = api.get(&file).with_context(|| format!("cannot fetch {file} of {repository}"))?;
    Gguf::open(&path).with_context(|| format!("{file} of {repository} cannot be used"))?;
    let base = Path::new(&file).file_name().context("the file has no name")?;
    let folder = pulled().context("there is no folder for data of this user")?;
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make `{}`", folder.display()))?;
    let link = folder.join(base);
    if link.symlink_metadata().is_ok() {
        std::fs::remove_file(&link).with_context(|| format!("cannot replace `{}`", link.display()))?;
    }
    let target = path.canonicalize()?;
    #[cfg(unix)]
    let linked = std::os::unix::fs::symlink(&target, &link);
    #[cfg(not(unix))]
    let linked = std::fs::hard_link(&target, &link).or_else(|_| std::fs::copy(&target, &link).map(|_| ()));
    linked.with_context(|| format!("cannot make `{}`", link.display()))?;
    println!("{}", base.to_string_lossy());
    Ok(End::Finished)
}

/// The GGUF file whose name has `quant` in it.
fn choose(files: &[String], quant: &str) -> anyhow::Result<String> {
    let models: Vec<&String> = files.iter().filter(|file| file.to_lowercase().ends_with(".gguf")).collect();
    let wanted = quant.to_lowercase();
    let fits: Vec<&&String> = models.iter().filter(|file| file.to_lowercase().contains(&wanted)).collect();
    let names = || models.iter().map(|file| format!("\n  {file}")).collect::<String>();
    match (&models[..], &fits[..]) {
        ([], _) => bail!("there is no GGUF file"),
        ([only], _) => Ok((*only).clone()),
        (_, [one]) => Ok((**one).clone()),
        (_, []) => bail!(
            "no file has \"{quant}\" in its name; name one of these with --quant or as a path:{}",
            names()
        ),
        (_, _) => {
            bail!("several files have \"{quant}\" in their names; name one of these as a path:{}", names())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_the_only_one_or_the_one_with_the_format() {
        let files = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let many = files(&["README.md", "a-Q4_K_M.gguf", "a-Q8_0.gguf", "a-F16.GGUF"]);
        assert_eq!(choose(&many, "q8_0").unwrap(), "a-Q8_0.gguf");
        assert_eq!(choose(&many, "f16").unwrap(), "a-F16.GGUF");
        assert_eq!(choose(&files(&["x", "b.gguf"]), "q4_k_m").unwrap(), "b.gguf");
        assert!(choose(&many, "q2_k").unwrap_err().to_string().contains("a-Q8_0.gguf"));
        assert!(choose(&many, "q").unwrap_err().to_string().contains("several"));
        assert!(choose(&files(&["x"]), "q4").is_err());
    }
}
