//! Opening model files.

use std::cell::LazyCell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::Serialize;
use sparse_core::Selector;
use sparse_gguf::{Gguf, TensorInfo};
use sparse_model::internal::{ffn_weight, is_expert, is_multiplied};
use sparse_model::lanes::round_ffns;
use sparse_model::tokenizer::Tokenizer;
use sparse_model::{
    ActivationSource, HeadMode, MemoryBudget, Model, ModelOptions, Placement, RecordFile, Sidecar, sidecar,
};
use sparse_simd::Kernels;
use tracing::{info, warn};

use crate::args::{ComputeArgs, Sparse, SparseArgs};
use crate::output::{self, ms};
use crate::{exit, sidecars};

/// Bytes up to which a model is read into memory.
const SMALL: u64 = 2 << 30;

/// Where a model comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    /// A file of the user's.
    File(&'a Path),
    /// The story model in this program.
    #[cfg(feature = "story")]
    Story,
}

impl<'a> Source<'a> {
    /// The file that was named; otherwise the story model.
    ///
    /// # Errors
    /// If none was named and this program has no model inside.
    pub(crate) fn new(file: Option<&'a Path>) -> anyhow::Result<Self> {
        match file {
            Some(path) => Ok(Self::File(path)),
            #[cfg(feature = "story")]
            None => Ok(Self::Story),
            #[cfg(not(feature = "story"))]
            None => Err(exit::usage(
                "no model given: name a GGUF file with --model FILE or in the variable SPARSE_MODEL\n\n  \
                 In the source tree, `cargo xtask fetch smollm2` gets a small one. This program was built without \
                 the feature `story`, which puts a tiny model into it.",
            )),
        }
    }

    /// Opens the file: for a look at it.
    pub(crate) fn gguf(self) -> anyhow::Result<Gguf> {
        match self {
            Self::File(path) => Gguf::open(path).map_err(|e| in_file(path, e)),
            #[cfg(feature = "story")]
            Self::Story => crate::story::gguf().with_context(|| format!("cannot read {self}")),
        }
    }

    /// Opens the file to compute with it, which reads it over and over. A small one goes into memory of its
    /// own, where that is faster, but for what will be stored `anew`. A large one is mapped, so that the system
    /// may drop what it can read again. With a budget, experts stay in the file, and all else is in memory.
    pub(crate) fn weights(
        self,
        memory: Option<MemoryBudget>,
        anew: impl Fn(&TensorInfo) -> bool,
    ) -> anyhow::Result<Gguf> {
        let gguf = self.gguf()?;
        let anew = |tensor: &TensorInfo| memory.is_some() && is_expert(&tensor.name) || anew(tensor);
        match gguf.file_len() as u64 <= SMALL || memory.is_some() {
            true => gguf.into_memory(anew).with_context(|| format!("cannot read {self}")),
            false => Ok(gguf),
        }
    }

    /// The name of the file.
    pub(crate) fn file_name(self) -> String {
        match self {
            Self::File(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            #[cfg(feature = "story")]
            Self::Story => "story.gguf".into(),
        }
    }

    /// Where a new sidecar goes. The one of the story model is a part of this program, too.
    #[cfg(feature = "calibrate")]
    pub(crate) fn sidecar_place(self) -> anyhow::Result<PathBuf> {
        match self {
            Self::File(path) => sidecars::place(path),
            #[cfg(feature = "story")]
            Self::Story => Err(exit::usage(format!(
                "the sidecar of {self} is inside this program: name a new one with --out FILE"
            ))),
        }
    }

    /// The sidecar that belongs to the model, if there is one.
    pub(crate) fn sidecar(self) -> anyhow::Result<Option<Sidecar>> {
        match self {
            Self::File(path) => Ok(sidecars::find(path).map(Sidecar::open).transpose()?),
            #[cfg(feature = "story")]
            Self::Story => Ok(Some(crate::story::sidecar()?)),
        }
    }

    /// The sidecar to be used, if there is one, and what messages call it.
    fn wanted_sidecar(self, choice: &SparseArgs) -> anyhow::Result<Option<(String, Sidecar)>> {
        let path = match (&choice.sparse, self) {
            #[cfg(feature = "story")]
            (None | Some(Sparse::Sidecar), Self::Story) => {
                return Ok(Some((format!("the sidecar of {self}"), crate::story::sidecar()?)));
            }
            (Some(Sparse::File(path)), _) => Some(path.clone()),
            (Some(Sparse::Sidecar), Self::File(model)) => {
                Some(sidecars::find(model).unwrap_or_else(|| sidecars::beside(model)))
            }
            _ => None,
        };
        let Some(path) = path else { return Ok(None) };
        if !path.exists() {
            // Without a model, its sidecar is not what is missing.
            self.gguf()?;
            bail!("there is no sidecar `{}`: run `sparse calibrate` to make one for {self}", path.display());
        }
        let name = format!("`{}` for {self}", path.display());
        let file = Source::File(&path).gguf()?;
        let sidecar = Sidecar::from_gguf(&file).with_context(|| format!("cannot use {name}"))?;
        Ok(Some((name, sidecar)))
    }

    /// Where neurons may stay, if memory has a budget and some are to be left out.
    fn records(self, choice: &SparseArgs) -> anyhow::Result<Option<Arc<RecordFile>>> {
        match (self, &choice.sparse, choice.memory.budget()) {
            (_, _, None) | (_, Some(Sparse::None | Sparse::DenseRows), _) => Ok(None),
            (Self::File(path), ..) => Ok(RecordFile::find(path)?.map(Arc::new)),
            #[cfg(feature = "story")]
            (Self::Story, ..) => Ok(None),
        }
    }

    /// The model with its selectors: those asked for, or those that are usual for it.
    fn model(self, choice: &SparseArgs, threads: usize, placement: Placement) -> anyhow::Result<Model> {
        let sidecar = self.wanted_sidecar(choice)?;
        let kernels = Kernels::get();
        let tied = LazyCell::new(|| self.gguf().is_ok_and(|gguf| gguf.info("output.weight").is_none()));
        let memory = choice.memory.budget();
        let records = self.records(choice)?;
        let mut gguf = self.weights(memory, |tensor| {
            let part = ffn_weight(&tensor.name).map(|(_, part)| part);
            if records.is_some() && part.is_some() {
                return true;
            }
            let interleaved = tensor.format().is_ok_and(|format| kernels.prefers_interleaved(format))
                && is_multiplied(&tensor.name, *tied);
            match (&choice.sparse, &sidecar) {
                _ if choice.ffn_lane.is_some() => part.is_some() || interleaved,
                (_, Some((_, sidecar))) => sidecar.stores_anew(&tensor.name) || interleaved && part.is_none(),
                _ if interleaved => true,
                (Some(Sparse::ExactZero), _) => part == Some("down"),
                (Some(Sparse::DenseRows), _) => part == Some("down_t"),
                _ => false,
            }
        })?;
        choice.activation.set(&mut gguf)?;
        let options = ModelOptions::new(threads).memory(memory).records(records);
        let mut model =
            Model::from_gguf_with(&gguf, &options).with_context(|| format!("cannot use {self}"))?;
        // What changes experts changes those that are in memory.
        if memory.is_some() && model.config().has_experts() {
            let other = choice.ffn_lane.map(|_| "--ffn-lane").or(choice.sparse.as_ref().map(|_| "--sparse"));
            if let Some(other) = other {
                return Err(exit::usage(format!("{other} is not for experts under a --memory-budget")));
            }
        }
        if let (Some(_), true) = (choice.ffn_lane, model.has_records()) {
            return Err(exit::usage(
                "--ffn-lane is not for neurons that stay in a file under a --memory-budget",
            ));
        }
        if model.config().activation_source == ActivationSource::Known {
            let activation = model.config().activation();
            warn!("{self} does not name its activation; by the model's name it is {activation}");
        }
        if let Some(format) = choice.ffn_lane {
            // Weights would be rounded twice.
            if let Some((name, Sidecar { lanes: Some(_), .. })) = &sidecar {
                return Err(exit::usage(format!(
                    "--ffn-lane stores all neurons in one format, but {name} has lanes for them: use one or the other"
                )));
            }
            round_ffns(&mut model, format).with_context(|| format!("cannot round {self} to {format}"))?;
        }
        let mut all = |selector: &Selector| -> anyhow::Result<()> {
            for ffn in model.ffns_mut() {
                ffn.set_selector(selector.clone())?;
            }
            Ok(())
        };
        match (&choice.sparse, sidecar) {
            (_, Some((name, sidecar))) => {
                sidecar.apply(&gguf, &mut model, placement).with_context(|| format!("cannot use {name}"))?;
            }
            (Some(Sparse::None), _) => all(&Selector::Dense)?,
            (Some(Sparse::DenseRows), _) => {
                model.make_dense().with_context(|| format!("cannot store {self} by rows"))?;
            }
            (Some(Sparse::ExactZero), _) => {
                all(&Selector::ExactZero).with_context(|| format!("cannot leave out zeros of {self}"))?;
                if !model.has_records() {
                    sidecar::prepare(&mut model, None)?;
                }
            }
            (None | Some(Sparse::Sidecar | Sparse::File(_)), None) => {}
        }
        Ok(model)
    }
}

/// The error of opening `path`, with its name and, if it is a folder, what one may have meant.
fn in_file(path: &Path, error: sparse_gguf::Error) -> anyhow::Error {
    use sparse_gguf::Error;
    match error {
        // These errors name the file themselves.
        Error::NotAFile { .. } if path.is_dir() => anyhow::Error::from(error).context(in_folder(path)),
        Error::Open { .. } | Error::NotAFile { .. } | Error::SplitName { .. } => error.into(),
        other => anyhow::Error::from(other).context(format!("cannot read `{}`", path.display())),
    }
}

/// What a folder in place of a file calls for.
fn in_folder(path: &Path) -> String {
    let shown = path.display();
    if path.join("config.json").exists() {
        return format!(
            "`{shown}` is the folder of a model for embed, similarity and search: name a GGUF file here"
        );
    }
    let entries = path.read_dir().into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    let names: Vec<String> = files.iter().take(8).map(|p| format!("\n    {}", p.display())).collect();
    match names.is_empty() {
        true => format!("`{shown}` is a folder: name a GGUF file"),
        false => format!("`{shown}` is a folder: name one of the files in it{}", names.concat()),
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "`{}`", path.display()),
            #[cfg(feature = "story")]
            Self::Story => f.write_str("the story model"),
        }
    }
}

/// A model that is ready to run.
pub(crate) struct Loaded {
    pub(crate) model: Arc<Model>,
    /// What the file calls the model, or the file's own name.
    pub(crate) name: String,
    /// All of loading.
    pub(crate) time: Duration,
    pub(crate) interleaving: Interleaving,
}

/// What storing rows by eights took, where this CPU multiplies them faster like that, and the memory afterwards.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Interleaving {
    interleaved_bytes: usize,
    interleave_ms: f64,
    /// Of the whole process, pages of mapped files among it; `None` where the system does not say.
    resident_bytes: Option<u64>,
}

/// The memory of this process, which Linux knows.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes << 10)
}

impl Loaded {
    /// Whether all neurons are computed for every token.
    pub(crate) fn is_dense(&self) -> bool {
        self.model.ffns().all(|ffn| matches!(ffn.selector(), Selector::Dense))
    }
}

/// Opens a model, with the neurons and the screen that `choice` says.
pub(crate) fn model(
    file: Option<&Path>,
    choice: &SparseArgs,
    compute: &ComputeArgs,
    placement: Placement,
) -> anyhow::Result<Loaded> {
    let start = Instant::now();
    let source = Source::new(file)?;
    let threads = compute.threads();
    let mut model = source.model(choice, threads, placement)?;
    if choice.head != HeadMode::Auto || !choice.brief {
        model.screen_head(choice.head)?;
    }
    if model.has_records() {
        model.fit_memory().with_context(|| format!("cannot use {source}"))?;
    }
    if choice.memory.lock && !model.has_records() {
        return Err(exit::usage("--lock is for neurons that `sparse convert` has stored one by one"));
    }
    if choice.memory.lock
        && let Err(error) = model.lock_memory()
    {
        output::warn(&format!(
            "the neurons are not locked in memory: {error}. `ulimit -l` shows how much may be"
        ));
    }
    let before = Instant::now();
    let interleaved_bytes = model.interleave();
    let interleave_ms = ms(before.elapsed());
    let interleaving = Interleaving { interleaved_bytes, interleave_ms, resident_bytes: resident_bytes() };
    let name = model.name().map_or_else(|| source.file_name(), str::to_owned);
    let time = start.elapsed();
    let level = model.compute().kernels.level();
    info!(%name, %level, threads, ?time, ?interleaving, "model loaded");
    Ok(Loaded { model: Arc::new(model), name, time, interleaving })
}

/// Opens the file for a look at its metadata.
#[cfg(feature = "chat")]
pub(crate) fn gguf(file: Option<&Path>) -> anyhow::Result<Gguf> {
    Source::new(file)?.gguf()
}

/// Opens the tokenizer alone.
pub(crate) fn tokenizer(file: Option<&Path>) -> anyhow::Result<Tokenizer> {
    let source = Source::new(file)?;
    let gguf = source.gguf()?;
    Tokenizer::from_metadata(gguf.metadata()).with_context(|| format!("cannot use the tokenizer in {source}"))
}
