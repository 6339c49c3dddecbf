//! An open GGUF file.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use crate::reader::Header;
use crate::{Error, Metadata, TensorInfo, TensorView, map};

/// The bytes of a file, owned together: by a [`Gguf`], and by whoever keeps a clone to read tensors
/// ([`TensorInfo::range`]) without borrowing the `Gguf`.
pub type SharedBytes = Arc<dyn AsRef<[u8]> + Send + Sync>;

/// An open GGUF file: its metadata, and views of its tensors.
///
/// Opening reads the header and checks every length, offset and name in it; tensor data is not touched.
pub struct Gguf {
    bytes: SharedBytes,
    header: Header,
}

impl Gguf {
    /// Maps the file at `path` into memory and reads its header.
    ///
    /// The file must not be changed in place while it is open: the map shows such changes, and reading past the
    /// new end of a shortened file ends the process. Replacing it by renaming another one over it is safe.
    ///
    /// # Errors
    /// When the file cannot be mapped, or is no valid GGUF file of version 2 or 3.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_shared(map::map(path.as_ref())?)
    }

    /// Like [`open`](Self::open), but reads the whole file into memory of its own, where what happens to the file no longer
    /// matters. On Linux that is memory in pages of 2 MB, which is faster to read over and over than a map whose pages
    /// have 4 kB, but it cannot be given up when memory gets short.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        Self::from_shared(map::read(path.as_ref())?)
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
        let header = Header::parse((*bytes).as_ref())?;
        Ok(Self { bytes, header })
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

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] when there is none.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>, Error> {
        let info = self.info(name).ok_or_else(|| Error::MissingTensor { tensor: name.to_owned() })?;
        Ok(self.view(info))
    }

    /// What the file says about the tensor called `name`.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.header.by_name.get(name).map(|&i| &self.header.tensors[i])
    }

    /// The data section: everything behind the header.
    pub fn data(&self) -> &[u8] {
        &self.file()[self.header.data_start..]
    }

    /// A handle that keeps the file's bytes alive. [`TensorInfo::range`] says where in them a tensor lies.
    pub fn bytes(&self) -> SharedBytes {
        Arc::clone(&self.bytes)
    }

    fn view<'a>(&'a self, info: &'a TensorInfo) -> TensorView<'a> {
        TensorView { info, data: &self.file()[info.range()] }
    }

    fn file(&self) -> &[u8] {
        (*self.bytes).as_ref()
    }
}

impl fmt::Debug for Gguf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gguf")
            .field("version", &self.header.version)
            .field("keys", &self.header.metadata.len())
            .field("tensors", &self.header.tensors.len())
            .field("bytes", &self.file().len())
            .finish()
    }
}
