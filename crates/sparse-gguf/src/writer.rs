//! Writing: header first, then tensor after tensor, without holding more than one chunk in memory.

use std::fmt::Arguments;
use std::io::{self, Write};

use crate::reader::{MAGIC, MAX_DIMS};
use crate::tensor::byte_len;
use crate::{Error, GgmlType, Gguf, Metadata, TensorInfo};

/// Where a finished file goes: into a `Vec<u8>`, or by way of a `PendingFile` or a `ResumableFile` to a path.
pub trait Sink: Write {
    /// What a finished file leaves behind.
    type Done;

    /// Makes everything written so far permanent.
    ///
    /// # Errors
    /// When the operating system refuses.
    fn commit(self) -> io::Result<Self::Done>;

    /// Passes over the next `len` bytes if an earlier run has written them, and says whether it did.
    ///
    /// # Errors
    /// When the operating system refuses.
    fn skip(&mut self, _len: u64) -> io::Result<bool> {
        Ok(false)
    }

    /// Makes sure that a later run can pass over what was written so far.
    ///
    /// # Errors
    /// When the operating system refuses.
    fn checkpoint(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Vec<u8> {
    type Done = Vec<u8>;

    fn commit(self) -> io::Result<Vec<u8>> {
        Ok(self)
    }
}

/// A tensor to be written.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    dims: Vec<usize>,
    ty: GgmlType,
    len: usize,
}

/// What a new file will hold: metadata, and the tensors' names, shapes and types. Their data follows through the
/// [`TensorWriter`] that [`start`](Self::start) or, with feature `write`, `create` returns.
#[derive(Clone, Debug)]
pub struct GgufWriter {
    version: u32,
    metadata: Metadata,
    entries: Vec<Entry>,
}

impl GgufWriter {
    /// A file of version 3 with this metadata and no tensors yet. `general.alignment` in it is obeyed.
    pub fn new(metadata: Metadata) -> Self {
        Self { version: 3, metadata, entries: Vec::new() }
    }

    /// A file with the version, metadata and tensors of `gguf`, in its order.
    pub fn like(gguf: &Gguf) -> Self {
        let entry = |t: &TensorInfo| Entry {
            name: t.name.clone(),
            dims: t.dims.clone(),
            ty: t.ty,
            len: t.range().len(),
        };
        Self {
            version: gguf.version(),
            metadata: gguf.metadata().clone(),
            entries: gguf.tensors().map(entry).collect(),
        }
    }

    /// The metadata, to be changed before the header is written.
    pub fn metadata_mut(&mut self) -> &mut Metadata {
        &mut self.metadata
    }

    /// Announces a tensor: `dims[0]` is the row length.
    ///
    /// # Errors
    /// When the name is taken, the type has no known size, the row length is no multiple of its blocks, or there
    /// are more than four dimensions.
    pub fn tensor(
        &mut self,
        name: impl Into<String>,
        dims: &[usize],
        ty: impl Into<GgmlType>,
    ) -> Result<(), Error> {
        let (name, ty) = (name.into(), ty.into());
        if self.entries.iter().any(|e| e.name == name) {
            return Err(Error::DuplicateTensor { tensor: name });
        }
        if dims.len() > MAX_DIMS as usize {
            return Err(Error::TooManyDims { tensor: name, found: dims.len() });
        }
        let Some(len) = byte_len(&name, dims, ty)? else {
            return Err(Error::UnsupportedType { tensor: name, ty });
        };
        self.entries.push(Entry { name, dims: dims.to_vec(), ty, len });
        Ok(())
    }

    /// Writes the header to `sink`: a `Vec<u8>`, or your own.
    ///
    /// # Errors
    /// When the sink fails, or the metadata has an empty key or a wrong alignment.
    pub fn start<S: Sink>(self, sink: S) -> Result<TensorWriter<S>, Error> {
        let alignment = self.metadata.alignment()?;
        let mut header = Vec::new();
        header.extend(MAGIC);
        header.extend(self.version.to_le_bytes());
        header.extend((self.entries.len() as u64).to_le_bytes());
        header.extend((self.metadata.len() as u64).to_le_bytes());
        for (index, (key, value)) in self.metadata.iter().enumerate() {
            if key.is_empty() {
                return Err(Error::EmptyKey { index: index as u64 });
            }
            write_text(&mut header, key);
            header.extend((value.ty() as u32).to_le_bytes());
            value.write(&mut header);
        }
        let mut offset = 0u64;
        for e in &self.entries {
            write_text(&mut header, &e.name);
            header.extend((e.dims.len() as u32).to_le_bytes());
            header.extend(e.dims.iter().flat_map(|&d| (d as u64).to_le_bytes()));
            header.extend(e.ty.id().to_le_bytes());
            header.extend(offset.to_le_bytes());
            let end = (e.len as u64).checked_next_multiple_of(alignment as u64);
            offset = end
                .and_then(|len| offset.checked_add(len))
                .ok_or_else(|| Error::too_large(&e.name, e.dims.iter().map(|&d| d as u64)))?;
        }
        let has_data = !self.entries.is_empty();
        let mut writer =
            TensorWriter { sink, entries: self.entries, alignment, next: 0, written: 0, failed: false };
        writer.put(&header, format_args!("the header"))?;
        if has_data {
            writer.pad(header.len(), format_args!("the header"))?;
        }
        Ok(writer)
    }
}

/// Takes the data of the announced tensors, in the order in which they were announced.
#[derive(Debug)]
pub struct TensorWriter<S: Sink> {
    sink: S,
    entries: Vec<Entry>,
    alignment: usize,
    /// The tensor that the next bytes belong to.
    next: usize,
    /// How many bytes of it are written.
    written: usize,
    /// Whether the sink has refused something: what it holds is then unknown.
    failed: bool,
}

impl<S: Sink> TensorWriter<S> {
    /// Writes the next bytes of the tensor `name`: all of them at once, or chunk by chunk.
    ///
    /// # Errors
    /// When another tensor is due, when these are more bytes than the tensor has, or when the sink fails.
    pub fn write(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let Some(entry) = self.entries.get(self.next).filter(|e| e.name == name) else {
            let due = self.entries.get(self.next).map(|e| e.name.clone());
            return Err(Error::UnexpectedTensor { tensor: name.to_owned(), due });
        };
        let (expected, found) = (entry.len, self.written.saturating_add(bytes.len()));
        if found > expected {
            return Err(Error::WrongLength { what: format!("the data of tensor `{name}`"), expected, found });
        }
        self.put(bytes, format_args!("tensor `{name}`"))?;
        self.written = found;
        if found == expected {
            self.pad(expected, format_args!("tensor `{name}`"))?;
            self.next += 1;
            self.written = 0;
        }
        Ok(())
    }

    /// Passes over the next `tensors` tensors if the sink [has them](Sink::skip) from an earlier run, and says whether it did.
    ///
    /// # Errors
    /// When the sink fails.
    ///
    /// # Panics
    /// If so many tensors are not due, or one is half written.
    pub fn skip(&mut self, tensors: usize) -> Result<bool, Error> {
        assert_eq!(self.written, 0, "a tensor is half written");
        let due = &self.entries[self.next..self.next + tensors];
        let len = due.iter().map(|e| e.len.next_multiple_of(self.alignment) as u64).sum();
        let skipped = self.guard(format_args!("tensors of an earlier run"), |sink| sink.skip(len))?;
        self.next += if skipped { tensors } else { 0 };
        Ok(skipped)
    }

    /// A later run can [pass over](Self::skip) what was written so far.
    ///
    /// # Errors
    /// When the sink fails.
    pub fn checkpoint(&mut self) -> Result<(), Error> {
        self.guard(format_args!("what was written so far"), S::checkpoint)
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When a tensor's data are missing, or when the sink fails now or has failed before.
    pub fn finish(mut self) -> Result<S::Done, Error> {
        if let Some(entry) = self.entries.get(self.next) {
            let (tensor, expected) = (entry.name.clone(), entry.len);
            return Err(Error::IncompleteTensor { tensor, expected, found: self.written });
        }
        self.put(&[], format_args!("the end of the file"))?;
        self.sink.commit().map_err(|source| Error::Write { what: "the end of the file".to_owned(), source })
    }

    fn put(&mut self, bytes: &[u8], what: Arguments<'_>) -> Result<(), Error> {
        self.guard(what, |sink| sink.write_all(bytes))
    }

    /// Uses the sink unless it has failed before.
    fn guard<T>(&mut self, what: Arguments<'_>, f: impl FnOnce(&mut S) -> io::Result<T>) -> Result<T, Error> {
        let result = match self.failed {
            false => f(&mut self.sink),
            true => Err(io::Error::other("an earlier write failed")),
        };
        result.map_err(|source| {
            self.failed = true;
            Error::Write { what: what.to_string(), source }
        })
    }

    /// Zeros from the end of `len` bytes that began aligned to the next aligned offset.
    fn pad(&mut self, len: usize, what: Arguments<'_>) -> Result<(), Error> {
        let zeros = [0; 64];
        let mut left = len.wrapping_neg() % self.alignment;
        while left > 0 {
            let n = left.min(zeros.len());
            self.put(&zeros[..n], what)?;
            left -= n;
        }
        Ok(())
    }
}

fn write_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
