//! Safetensors files: one, or several with an index of what is where.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};

use super::files::{Files, ReadSeek, in_file, inside};
use super::tensors::{Source, Tensors};
use crate::Error;

/// What llama.cpp and the transformers library call the same part.
const NAMES: [(&str, &str); 4] = [
    ("token_embd", "embeddings.word_embeddings"),
    ("token_types", "embeddings.token_type_embeddings"),
    ("position_embd", "embeddings.position_embeddings"),
    ("token_embd_norm", "embeddings.LayerNorm"),
];

/// The same for the parts of a layer.
const LAYER_NAMES: [(&str, &str); 8] = [
    ("attn_q", "attention.self.query"),
    ("attn_k", "attention.self.key"),
    ("attn_v", "attention.self.value"),
    ("attn_output", "attention.output.dense"),
    ("attn_output_norm", "attention.output.LayerNorm"),
    ("ffn_up", "intermediate.dense"),
    ("ffn_down", "output.dense"),
    ("layer_output_norm", "output.LayerNorm"),
];

/// What transformers calls the tensor that llama.cpp calls `name`.
fn transformers_name(name: &str) -> Option<String> {
    let (part, kind) = name.rsplit_once('.')?;
    let find = |names: &[(&str, &'static str)], part: &str| names.iter().find(|n| n.0 == part).map(|n| n.1);
    let part = match part.strip_prefix("blk.").and_then(|part| part.split_once('.')) {
        Some((layer, part)) => format!("encoder.layer.{layer}.{}", find(&LAYER_NAMES, part)?),
        None => find(&NAMES, part)?.to_owned(),
    };
    Some(format!("{part}.{kind}"))
}

/// Tensors that sentence embeddings do not need: a table of numbers, and heads for other tasks.
fn is_idle(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
        || ["pooler.", "cls.", "classifier.", "lm_head."]
            .iter()
            .any(|part| name.trim_start_matches("bert.").trim_start_matches("roberta.").starts_with(part))
}

/// The tensors of a folder's safetensors files.
pub(super) struct Safetensors<'a> {
    shards: Vec<Shard<'a>>,
    /// Which file each tensor is in.
    places: HashMap<String, usize>,
}

/// One file. Tensors are read from it piece by piece, so that a model that is converted when it is loaded is never in memory
/// twice.
struct Shard<'a> {
    path: PathBuf,
    file: RefCell<Box<dyn ReadSeek + 'a>>,
    metadata: Metadata,
    /// Offset of the tensors in the file.
    start: u64,
}

/// Where a tensor begins.
struct Place<'a, 'f> {
    shard: &'a Shard<'f>,
    offset: usize,
}

/// `model.safetensors.index.json`.
#[derive(Deserialize)]
struct Index {
    weight_map: WeightMap,
}

/// The file of each tensor. JSON objects may repeat a name, and a map would forget all but one.
struct WeightMap(Vec<(String, String)>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = WeightMap;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object that names the file of each tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(WeightMap(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The longest header that the safetensors library reads, in bytes.
const MAX_HEADER: u64 = 100_000_000;

impl<'a> Shard<'a> {
    fn open(files: Files<'a>, path: &Path) -> Result<Self, Error> {
        let mut file = files.open(path)?;
        let found = file.seek(SeekFrom::End(0))?;
        file.rewind()?;
        let truncated = |expected: u64| Error::Truncated { expected, found };
        let mut len = [0; 8];
        if found < 8 {
            return Err(truncated(8));
        }
        file.read_exact(&mut len)?;
        let len = u64::from_le_bytes(len);
        if len > MAX_HEADER {
            return Err(safetensors::SafeTensorError::HeaderTooLarge.into());
        }
        let start = 8 + len;
        if found < start {
            return Err(truncated(start));
        }
        let mut header = vec![0; len as usize];
        file.read_exact(&mut header)?;
        // Checks that tensors follow each other and are as long as their shapes say.
        let metadata: Metadata = serde_json::from_slice(&header)?;
        let expected = start.saturating_add(metadata.data_len() as u64);
        if found < expected {
            return Err(truncated(expected));
        }
        Ok(Self { path: path.to_owned(), file: RefCell::new(file), metadata, start })
    }
}

impl<'a> Safetensors<'a> {
    /// Opens a folder's weights: `model.safetensors`, or the files that `model.safetensors.index.json` names. Returns the
    /// file that names them all, for errors, beside them.
    ///
    /// # Errors
    /// If neither is there, a file is missing, damaged or outside the folder, or the files disagree with the index.
    pub(super) fn open_folder(files: Files<'a>, folder: &Path) -> Result<(Self, PathBuf), Error> {
        let (single, index) = (folder.join("model.safetensors"), folder.join("model.safetensors.index.json"));
        if files.exist(&single) || !files.exist(&index) {
            let tensors = Self::open(files, &single).map_err(|e| in_file(&single, e))?;
            return Ok((tensors, single));
        }
        let tensors = Self::open_index(files, folder, &index).map_err(|e| in_file(&index, e))?;
        Ok((tensors, index))
    }

    /// Opens one file.
    fn open(files: Files<'a>, path: &Path) -> Result<Self, Error> {
        let mut tensors = Self { shards: Vec::new(), places: HashMap::new() };
        tensors.push(files, path)?;
        Ok(tensors)
    }

    fn open_index(files: Files<'a>, folder: &Path, index: &Path) -> Result<Self, Error> {
        let mut text = Vec::new();
        files.open(index)?.read_to_end(&mut text)?;
        let Index { weight_map: WeightMap(entries) } = serde_json::from_slice(&text)?;
        let wrong = |name: &str, problem: String| Error::Tensor { name: name.to_owned(), problem };
        let mut seen = HashSet::new();
        if let Some((name, _)) = entries.iter().find(|(name, _)| !seen.insert(name)) {
            return Err(wrong(name, "is in the index twice".into()));
        }
        let shards: BTreeSet<&str> = entries.iter().map(|(_, file)| file.as_str()).collect();
        let mut tensors = Self { shards: Vec::new(), places: HashMap::new() };
        let mut numbers = HashMap::new();
        for file in shards {
            let path = inside(folder, file).map_err(|problem| Error::setting("weight_map", problem))?;
            numbers.insert(file, tensors.shards.len());
            tensors.push(files, &path).map_err(|e| in_file(&path, e))?;
        }
        for (name, file) in &entries {
            match tensors.places.get(name) {
                Some(place) if *place == numbers[file.as_str()] => {}
                Some(_) => return Err(wrong(name, format!("is not in {file}, as the index says"))),
                None => return Err(wrong(name, format!("is not in {file}, where the index has it"))),
            }
        }
        Ok(tensors)
    }

    /// Adds a file, none of whose tensors may be in another.
    fn push(&mut self, files: Files<'a>, path: &Path) -> Result<(), Error> {
        let shard = Shard::open(files, path)?;
        let number = self.shards.len();
        for name in shard.metadata.offset_keys() {
            if let Some(other) = self.places.insert(name.clone(), number) {
                let problem = format!("is in {}, too", self.shards[other].path.display());
                return Err(Error::Tensor { name, problem });
            }
        }
        self.shards.push(shard);
        Ok(())
    }

    /// All values of a tensor of that shape, which must be finite.
    pub(super) fn values(&self, name: &str, dims: &[usize]) -> Result<Vec<f32>, Error> {
        Tensors::new(self).values(name, dims)
    }
}

impl Source for Safetensors<'_> {
    fn resolve(&self, name: &str) -> String {
        let Some(name) = transformers_name(name) else { return name.to_owned() };
        // Models saved with a head have a prefix; very old ones have other names for a norm's parts.
        let old =
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let names = [&name, &old].map(|n| [n.clone(), format!("bert.{n}"), format!("roberta.{n}")]);
        names.into_iter().flatten().find(|n| self.places.contains_key(n)).unwrap_or(name)
    }

    fn dims(&self, name: &str) -> Option<Vec<usize>> {
        let shard = &self.shards[*self.places.get(name)?];
        shard.metadata.info(name).map(|info| info.shape.clone())
    }

    fn read(&self, name: &str, start: usize, out: &mut [f32]) -> Result<(), Error> {
        let shard = &self.shards[self.places[name]];
        let info = shard.metadata.info(name).expect("a tensor that its file has");
        let place = Place { shard, offset: info.data_offsets.0 };
        match info.dtype {
            Dtype::F32 => place.read(start, out, f32::from_le_bytes),
            Dtype::F16 => place.read(start, out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => place.read(start, out, |b| bf16::from_le_bytes(b).to_f32()),
            other => Err(Error::Tensor {
                name: name.to_owned(),
                problem: format!("type {other} is not supported (supported: F32, F16, BF16)"),
            }),
        }
    }

    fn unused(&self, used: &HashSet<String>) -> Option<String> {
        let unused = self.places.keys().filter(|name| !used.contains(*name) && !is_idle(name));
        // The first, so that the error is the same each time.
        unused.min().cloned()
    }
}

impl Place<'_, '_> {
    fn read<const N: usize>(
        &self,
        start: usize,
        out: &mut [f32],
        value: impl Fn([u8; N]) -> f32,
    ) -> Result<(), Error> {
        let mut bytes = vec![0; out.len() * N];
        let mut file = self.shard.file.borrow_mut();
        file.seek(SeekFrom::Start(self.shard.start + (self.offset + start * N) as u64))?;
        file.read_exact(&mut bytes)?;
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
            *out = value(*bytes);
        }
        Ok(())
    }
}
