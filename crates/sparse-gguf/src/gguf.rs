//! An open GGUF file.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::parts::{Joined, Part};
use crate::{Error, Metadata, TensorInfo, TensorView, file, parts};

/// Memory that holds tensors, owned together: by a [`Gguf`], and by whoever keeps a clone to read them
/// without borrowing the `Gguf` ([`Gguf::shared`]).
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An open GGUF file, or a model in several: its metadata, and views of its tensors.
///
/// Opening reads the header and checks every length, offset and name in it; tensor data is not touched.
///
/// A model in several files, as `gguf-split` of llama.cpp writes them, is opened by the name of any of
/// them, such as `model-00001-of-00003.gguf`. Its tensors are those of all parts. Its metadata is that
/// of the first, without the keys `split.*`.
pub struct Gguf {
    version: u32,
    metadata: Metadata,
    tensors: Vec<TensorInfo>,
    by_name: HashMap<String, usize>,
    /// Bytes of the files.
    len: usize,
    /// How many files there are.
    parts: usize,
    /// Where the files are, unless they were given as bytes.
    files: Vec<PathBuf>,
    /// Whether tensors are in maps of the files.
    mapped: bool,
    /// Where each tensor is, in the order of `tensors`.
    places: Vec<Place>,
}

/// The memory that a tensor lies in, and where in it the tensor begins.
pub(crate) struct Place {
    pub(crate) memory: SharedBytes,
    pub(crate) start: usize,
}

impl Gguf {
    /// Maps the file at `path` into memory, and the other parts of its model, and reads their headers.
    /// Without feature `mmap` the files are read as a whole.
    ///
    /// The files must not be changed in place while they are open: the maps show such changes, and
    /// reading past the new end of a shortened file ends the process. Replacing one by renaming another
    /// over it is safe.
    ///
    /// # Errors
    /// When a file cannot be mapped, or is no valid GGUF file of version 2 or 3, or when parts of the
    /// model are missing or belong to another one.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let (parts, files) = Part::open_all(path.as_ref())?;
        Self::joined(parts, files)
    }

    /// Like [`open`](Self::open), then [`into_memory`](Self::into_memory).
    ///
    /// # Errors
    /// As these two.
    pub fn read(path: impl AsRef<Path>, apart: impl Fn(&TensorInfo) -> bool) -> Result<Self, Error> {
        Self::open(path)?.into_memory(apart)
    }

    /// Reads tensors into memory of their own, where what happens to the files no longer matters.
    /// What is in memory already stays there.
    ///
    /// On Linux, with feature `mmap`, that is memory in pages of 2 MB. It is faster to read over and over
    /// than a map, whose pages have 4 kB, but cannot be given up when memory gets short.
    ///
    /// It is given back as a whole, when the last that holds a tensor is gone. The tensors for which
    /// `apart` says so stay in the map: those that are read once, to be stored in another way. Without
    /// feature `mmap` they are together in another memory.
    ///
    /// # Errors
    /// When a file cannot be read or there is not enough memory.
    pub fn into_memory(self, apart: impl Fn(&TensorInfo) -> bool) -> Result<Self, Error> {
        if !self.mapped {
            return Ok(self);
        }
        let places = file::read(&self.files, &self.tensors, self.places, apart)?;
        Ok(Self { places, mapped: false, ..self })
    }

    /// Reads a file that is in memory already. The bytes are kept, not copied.
    ///
    /// # Errors
    /// When the bytes are no valid GGUF file of version 2 or 3, or one part of a model in several.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_shared(Arc::new(bytes))
    }

    /// Reads a file from bytes owned in any way, such as a `&'static [u8]`.
    ///
    /// # Errors
    /// As [`from_bytes`](Self::from_bytes).
    pub fn from_shared(bytes: SharedBytes) -> Result<Self, Error> {
        Self::from_parts([bytes])
    }

    /// Reads a model from the bytes of all its parts, in any order.
    ///
    /// # Errors
    /// When one is no valid GGUF file of version 2 or 3, or when they are not the parts of one model.
    pub fn from_parts(parts: impl IntoIterator<Item = SharedBytes>) -> Result<Self, Error> {
        let mut parts = parts.into_iter().map(Part::new).collect::<Result<Vec<_>, _>>()?;
        parts.sort_by_key(Part::index);
        Self::joined(parts, Vec::new())
    }

    fn joined(parts: Vec<Part>, files: Vec<PathBuf>) -> Result<Self, Error> {
        let Joined { version, metadata, tensors, by_name, memory } = parts::join(parts)?;
        let place = |t: &TensorInfo| Place { memory: Arc::clone(&memory[t.part]), start: t.range.start };
        Ok(Self {
            places: tensors.iter().map(place).collect(),
            len: memory.iter().map(|bytes| (**bytes).as_ref().len()).sum(),
            parts: memory.len(),
            mapped: !files.is_empty(),
            files,
            version,
            metadata,
            tensors,
            by_name,
        })
    }

    /// The GGUF version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The metadata, to be changed for whoever reads it from here: the file stays as it is.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// The tensors, in the order of the file's table.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.tensors.iter()
    }

    /// The tensors with their data, in the same order.
    pub fn views(&self) -> impl ExactSizeIterator<Item = TensorView<'_>> {
        (0..self.places.len()).map(|i| self.view(i))
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] when there is none.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        Ok(self.view(self.index(name)?))
    }

    /// A handle that keeps the tensor called `name` in memory, and where in that memory it is.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] when there is none.
    pub fn shared(&self, name: &str) -> Result<(SharedBytes, Range<usize>), Error> {
        let i = self.index(name)?;
        let Place { memory, start } = &self.places[i];
        Ok((Arc::clone(memory), *start..start + self.tensors[i].range.len()))
    }

    /// What the file says about the tensor called `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&i| &self.tensors[i])
    }

    /// The file that the tensor called `name` is in, and where in it; `None` if there is no such tensor, or the model was
    /// given as bytes.
    pub fn location(&self, name: &str) -> Option<(&Path, Range<usize>)> {
        let info = self.info(name)?;
        Some((self.files.get(info.part)?, info.range.clone()))
    }

    /// The size of the file in bytes; of all files, if the model is in several.
    pub fn file_len(&self) -> usize {
        self.len
    }

    /// The number of files that the model is in.
    pub fn parts(&self) -> usize {
        self.parts
    }

    fn view(&self, i: usize) -> TensorView<'_> {
        let (info, Place { memory, start }) = (&self.tensors[i], &self.places[i]);
        TensorView { info, data: &(**memory).as_ref()[*start..][..info.range.len()] }
    }

    fn index(&self, name: &str) -> Result<usize, Error> {
        let index = self.by_name.get(name).copied();
        index.ok_or_else(|| Error::MissingTensor { tensor: name.to_owned() })
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.version)
            .field("keys", &self.metadata.len())
            .field("tensors", &self.tensors.len())
            .field("bytes", &self.len)
            .finish()
    }
}
