//! The bytes of a file, mapped into memory. The only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use memmap2::Mmap;

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
