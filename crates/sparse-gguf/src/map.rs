//! Memory maps: the only unsafe code of this crate.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::{Mmap, MmapMut};

/// A file, mapped read-only.
pub(crate) struct FileMap(Mmap);

impl AsRef<[u8]> for FileMap {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The maps that there are, and some that are gone.
static MAPS: Mutex<Vec<Weak<FileMap>>> = Mutex::new(Vec::new());

/// Maps the file at `path` read-only.
pub(crate) fn file(path: &Path) -> io::Result<Arc<FileMap>> {
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
    let map = Arc::new(FileMap(map));
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    maps.retain(|map| map.strong_count() > 0);
    maps.push(Arc::downgrade(&map));
    Ok(map)
}

/// Gives the memory of `bytes` back to the system if they are in a file map.
pub(crate) fn release(bytes: &[u8]) {
    let maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    let of_bytes = |map: &Weak<FileMap>| {
        let map = map.upgrade()?;
        let all = map.0.as_ptr_range();
        let own = bytes.as_ptr_range();
        (all.start <= own.start && own.end <= all.end).then_some(map)
    };
    let Some(map) = maps.iter().find_map(of_bytes) else { return };
    let start = bytes.as_ptr().addr() - map.0.as_ptr().addr();
    // Only a wish: without it, everything works and takes memory.
    // SAFETY: the pages of a read-only map are those of its file. Whoever reads them again gets them from there.
    #[cfg(unix)]
    let _ = unsafe { map.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, bytes.len()) };
    #[cfg(not(unix))]
    let _ = start;
}

/// `len` zero bytes, in pages of 2 MB where the system has them.
pub(crate) fn anonymous(len: usize) -> io::Result<MmapMut> {
    // An empty map cannot be made.
    let memory = MmapMut::map_anon(len.max(1))?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
