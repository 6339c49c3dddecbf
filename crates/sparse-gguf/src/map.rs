//! Memory maps: the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::{Mmap, MmapMut};

/// Maps the file at `path` read-only.
pub(crate) fn file(path: &Path) -> io::Result<Mmap> {
    let file = File::open(path)?;
    // SAFETY: the bytes of a private, read-only map are stable as long as no one changes the file meanwhile.
    // No program can rule that out on a shared file system; `Gguf::open` passes the duty on in its
    // documentation, and this crate's own writer replaces files by renaming, which leaves maps of the old file
    // intact.
    let map = unsafe { Mmap::map(&file)? };
    // A page of 2 MB costs far fewer look-ups of addresses. Linux reads a file that it does not hold yet into
    // such pages if asked to and the file system can; otherwise nothing changes, and nothing is lost.
    #[cfg(target_os = "linux")]
    let _ = map.advise(memmap2::Advice::HugePage);
    Ok(map)
}

/// `len` zero bytes, in pages of 2 MB where the system has them.
pub(crate) fn anonymous(len: usize) -> io::Result<MmapMut> {
    // An empty map cannot be made.
    let memory = MmapMut::map_anon(len.max(1))?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
