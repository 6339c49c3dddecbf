//! Models in several files, as `gguf-split` of llama.cpp writes them.
//!
//! Every part is a GGUF file of its own with three more keys: `split.no` counts the parts from 0,
//! `split.count` is their number, and `split.tensors.count` the number of tensors in all of them. The
//! first part has the model's metadata. A name ends in `-00001-of-00003.gguf`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::metadata::ALIGNMENT;
use crate::reader::Header;
use crate::{Error, Metadata, SharedBytes, TensorInfo, file};

const PREFIX: &str = "split.";
const INDEX: &str = "split.no";
const COUNT: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// What a part says about the model that it belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Split {
    /// Which part it is, from 0.
    index: usize,
    /// Parts of the model.
    count: usize,
    /// Tensors in all parts.
    tensors: usize,
}

impl Split {
    /// The place of a file among the parts of a model; `None` for a model in one file.
    ///
    /// # Errors
    /// When the numbers are missing, of another type, or contradict each other.
    fn of(metadata: &Metadata) -> Result<Option<Self>, Error> {
        match metadata.opt_exact_usize(COUNT)? {
            None | Some(0 | 1) => Ok(None),
            Some(_) => Self::required(metadata).map(Some),
        }
    }

    fn required(metadata: &Metadata) -> Result<Self, Error> {
        let number = |key: &str| {
            metadata.opt_exact_usize(key)?.ok_or_else(|| Error::MissingKey { key: key.to_owned() })
        };
        let split = Self { index: number(INDEX)?, count: number(COUNT)?, tensors: number(TENSORS)? };
        match split.index < split.count {
            true => Ok(split),
            false => Err(Error::SplitIndex { found: split.index, count: split.count }),
        }
    }

    /// How the name of the part with this index ends.
    fn ending(&self, index: usize) -> String {
        // Saturating, for the error of a name that no file has.
        format!("-{:05}-of-{:05}.gguf", index.saturating_add(1), self.count)
    }

    /// The names of all parts up to their endings, from the path of this one.
    ///
    /// # Errors
    /// When neither its name nor that of the file behind a link ends as that of this part.
    fn stem(&self, path: &Path) -> Result<PathBuf, Error> {
        let ending = self.ending(self.index);
        let stem = |path: &Path| {
            let name = path.file_name()?.to_str()?.strip_suffix(&ending)?;
            Some(path.with_file_name(name))
        };
        let behind_link = || stem(&path.canonicalize().ok()?);
        stem(path).or_else(behind_link).ok_or_else(|| Error::SplitName {
            path: path.to_owned(),
            part: self.index + 1,
            count: self.count,
            ending,
        })
    }
}

/// A file, or a part of a model in several.
pub(crate) struct Part {
    pub(crate) bytes: SharedBytes,
    pub(crate) header: Header,
    split: Option<Split>,
}

impl Part {
    /// Reads the header of a file in memory.
    pub(crate) fn new(bytes: SharedBytes) -> Result<Self, Error> {
        let header = Header::parse((*bytes).as_ref())?;
        let split = Split::of(&header.metadata)?;
        Ok(Self { bytes, header, split })
    }

    /// Which part it is, from 0.
    pub(crate) fn index(&self) -> usize {
        self.split.map_or(0, |split| split.index)
    }

    /// Maps the file at `path`, and the other parts of the model that it is a part of. Returns them in
    /// order, with their paths.
    pub(crate) fn open_all(path: &Path) -> Result<(Vec<Self>, Vec<PathBuf>), Error> {
        let named = Self::new(file::open(path)?)?;
        let Some(split) = named.split else { return Ok((vec![named], vec![path.to_owned()])) };
        let stem = split.stem(path)?;
        let path_of = |index| {
            let mut path = stem.clone().into_os_string();
            path.push(split.ending(index));
            PathBuf::from(path)
        };
        let mut named = Some(named);
        let (mut parts, mut paths) = (Vec::new(), Vec::new());
        // Nothing is set aside for `count`, which may be any number: the first missing part ends this.
        for index in 0..split.count {
            let path = path_of(index);
            let part = match named.take_if(|_| index == split.index) {
                Some(part) => part,
                None => Self::open(&path, index, &split)?,
            };
            parts.push(part);
            paths.push(path);
        }
        Ok((parts, paths))
    }

    fn open(path: &Path, index: usize, split: &Split) -> Result<Self, Error> {
        let part = file::open(path).and_then(|bytes| {
            let part = Self::new(bytes)?;
            // Says what is missing from a file that is no part at all.
            Split::required(&part.header.metadata)?;
            Ok(part)
        });
        part.map_err(|error| match error {
            Error::Open { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Error::MissingPart { path: path.to_owned(), part: index + 1, count: split.count, source }
            }
            source => Error::InPart { path: path.to_owned(), source: Box::new(source) },
        })
    }
}

/// What the parts of a model say together.
pub(crate) struct Joined {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    pub(crate) tensors: Vec<TensorInfo>,
    pub(crate) by_name: HashMap<String, usize>,
    /// The bytes of each part.
    pub(crate) memory: Vec<SharedBytes>,
}

/// Puts the parts of a model together.
///
/// # Errors
/// When they are not all parts of one model, in order.
pub(crate) fn join(parts: Vec<Part>) -> Result<Joined, Error> {
    let given = parts.len();
    let mut parts = parts.into_iter();
    let Some(first) = parts.next() else { return Err(Error::IncompleteSplit { given, count: 1 }) };
    let whole = first.split.unwrap_or(Split { index: 0, count: 1, tensors: 0 });
    if given != whole.count {
        return Err(Error::IncompleteSplit { given, count: whole.count });
    }
    let Header { version, metadata, tensors, by_name } = first.header;
    let mut all = Joined { version, metadata, tensors, by_name, memory: vec![first.bytes] };
    if first.split.is_none() {
        return Ok(all);
    }
    agree(&all.metadata, &all.metadata, 0)?;
    for (index, part) in (1..).zip(parts) {
        agree(&part.header.metadata, &all.metadata, index)?;
        for mut tensor in part.header.tensors {
            tensor.part = index;
            if let Some(earlier) = all.by_name.insert(tensor.name.clone(), all.tensors.len()) {
                let first = all.tensors[earlier].part + 1;
                return Err(Error::TensorInTwoParts { tensor: tensor.name, first, second: index + 1 });
            }
            all.tensors.push(tensor);
        }
        all.memory.push(part.bytes);
    }
    if all.tensors.len() != whole.tensors {
        return Err(Error::SplitTensors { found: all.tensors.len(), expected: whole.tensors });
    }
    // They are about files, not about the model, and would be wrong in a copy of it.
    all.metadata.retain(|key| !key.starts_with(PREFIX));
    Ok(all)
}

/// Checks that a part belongs to the model that the first part begins: what both state is the same.
fn agree(part: &Metadata, first: &Metadata, index: usize) -> Result<(), Error> {
    let split = Split::required(part)?;
    if split.index != index {
        return Err(Error::SplitOrder { part: index + 1, found: split.index });
    }
    // `gguf-split` writes later parts with an alignment of their own.
    let common = part.iter().filter(|(key, _)| ![INDEX, ALIGNMENT].contains(key));
    for (key, found) in common {
        if let Some(expected) = first.get(key)
            && found != expected
            && (found.integer().is_none() || found.integer() != expected.integer())
        {
            let (found, expected) = (found.to_string(), expected.to_string());
            return Err(Error::ForeignPart { part: index + 1, key: key.to_owned(), found, expected });
        }
    }
    Ok(())
}
