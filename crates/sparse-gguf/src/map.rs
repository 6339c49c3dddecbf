//! The bytes of a file in memory: mapped, which is the only unsafe code of this crate, or read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::{Error, SharedBytes};

/// Maps the file at `path` read-only.
pub(crate) fn map(path: &Path) -> Result<SharedBytes, Error> {
    let open = || {
        let file = File::open(path)?;
        // SAFETY: the bytes of a private, read-only map are stable as long as no one changes the file
        // meanwhile. No program can rule that out on a shared file system; `Gguf::open` passes the duty on in
        // its documentation, and this crate's own writer replaces files by renaming, which leaves maps of the
        // old file intact.
        let map = unsafe { Mmap::map(&file)? };
        // A page of 2 MB costs far fewer look-ups of addresses. Linux reads a file that it does not hold yet into such
        // pages if asked to and the file system can; otherwise nothing changes, and nothing is lost.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(map)
    };
    match open() {
        Ok(map) => Ok(Arc::new(map)),
        Err(source) => Err(Error::Open { path: path.to_owned(), source }),
    }
}

/// Reads the file at `path` into memory of its own, in pages of 2 MB where the system has them.
pub(crate) fn read(path: &Path) -> Result<SharedBytes, Error> {
    let read = || {
        let mut file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        if len == 0 {
            // Nothing can be mapped then; the parser says what is wrong.
            return Ok(Arc::new(Vec::new()) as SharedBytes);
        }
        let mut bytes = MmapMut::map_anon(len)?;
        #[cfg(target_os = "linux")]
        let _ = bytes.advise(memmap2::Advice::HugePage);
        file.read_exact(&mut bytes)?;
        Ok(Arc::new(bytes) as SharedBytes)
    };
    read().map_err(|source| Error::Open { path: path.to_owned(), source })
}
