//! An open GGUF file.

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use crate::reader::Header;
use crate::{Error, Metadata, TensorInfo, TensorView, file};

/// Memory that holds tensors, owned together: by a [`Gguf`], and by whoever keeps a clone to read them without borrowing
/// the `Gguf` ([`Gguf::shared`]).
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An open GGUF file: its metadata, and views of its tensors.
///
/// Opening reads the header and checks every length, offset and name in it; tensor data is not touched.
pub struct Gguf {
    header: Header,
    /// Bytes of the file.
    len: usize,
    /// Where each tensor is, in the order of the file's table.
    places: Vec<Place>,
}

/// The memory that a tensor lies in, and where in it the tensor begins.
pub(crate) struct Place {
    pub(crate) memory: SharedBytes,
    pub(crate) start: usize,
}

impl Gguf {
    /// Maps the file at `path` into memory and reads its header. Without feature `mmap` the whole file is read.
    ///
    /// The file must not be changed in place while it is open: the map shows such changes, and reading past the
    /// new end of a shortened file ends the process. Replacing it by renaming another one over it is safe.
    ///
    /// # Errors
    /// When the file cannot be mapped, or is no valid GGUF file of version 2 or 3.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_shared(file::open(path.as_ref())?)
    }

    /// Like [`open`](Self::open), but reads all tensors into memory of their own, where what happens to the file no longer
    /// matters. On Linux, with feature `mmap`, that is memory in pages of 2 MB, which is faster to read over and over than a map whose pages
    /// have 4 kB, but it cannot be given up when memory gets short.
    ///
    /// It is given back as a whole, when the last that holds a tensor is gone. The tensors for which `apart` says so are
    /// together in another memory: those that are not wanted for long, since they will be stored in another way.
    ///
    /// # Errors
    /// As [`open`](Self::open), or when the file cannot be read or there is not enough memory.
    pub fn read(path: impl AsRef<Path>, apart: impl Fn(&TensorInfo) -> bool) -> Result<Self, Error> {
        let path = path.as_ref();
        let Self { header, len, .. } = Self::open(path)?;
        let places = file::read(path, &header.tensors, apart)?;
        Ok(Self { header, len, places })
    }

    /// Reads a file that is in memory already. The bytes are kept, not copied.
    ///
    /// # Errors
    /// When the bytes are no valid GGUF file of version 2 or 3.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_shared(Arc::new(bytes))
    }

    /// Reads a file from bytes owned in any way, such as a `&'static [u8]`.
    ///
    /// # Errors
    /// When the bytes are no valid GGUF file of version 2 or 3.
    pub fn from_shared(bytes: SharedBytes) -> Result<Self, Error> {
        let file = (*bytes).as_ref();
        let (header, len) = (Header::parse(file)?, file.len());
        let place = |t: &TensorInfo| Place { memory: Arc::clone(&bytes), start: t.range.start };
        Ok(Self { places: header.tensors.iter().map(place).collect(), header, len })
    }

    /// The GGUF version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The key-value pairs.
    pub fn metadata(&self) -> &Metadata {
        &self.header.metadata
    }

    /// The tensors, in the order of the file's table.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = &TensorInfo> {
        self.header.tensors.iter()
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
        Ok((Arc::clone(memory), *start..start + self.header.tensors[i].range.len()))
    }

    /// What the file says about the tensor called `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.by_name.get(name).map(|&i| &self.header.tensors[i])
    }

    /// The size of the file in bytes.
    pub fn file_len(&self) -> usize {
        self.len
    }

    fn view(&self, i: usize) -> TensorView<'_> {
        let (info, Place { memory, start }) = (&self.header.tensors[i], &self.places[i]);
        TensorView { info, data: &(**memory).as_ref()[*start..][..info.range.len()] }
    }

    fn index(&self, name: &str) -> Result<usize, Error> {
        let index = self.header.by_name.get(name).copied();
        index.ok_or_else(|| Error::MissingTensor { tensor: name.to_owned() })
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.header.version)
            .field("keys", &self.header.metadata.len())
            .field("tensors", &self.header.tensors.len())
            .field("bytes", &self.len)
            .finish()
    }
}
