//! The bytes of a file in memory: mapped, which is the only unsafe code of this crate, or read.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut};

use crate::gguf::Place;
use crate::{Error, SharedBytes, TensorInfo};

/// Bytes of a cache line, where tensors begin.
const LINE: usize = 64;

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

/// Reads the tensors of the file at `path` into memory: those that are `apart` together, and the others.
pub(crate) fn read(
    path: &Path,
    tensors: &[TensorInfo],
    apart: impl Fn(&TensorInfo) -> bool,
) -> Result<Vec<Place>, Error> {
    let (apart, others): (Vec<_>, Vec<_>) = tensors.iter().enumerate().partition(|(_, t)| apart(t));
    let read = || {
        let mut file = File::open(path)?;
        let mut places = gather(&mut file, &others)?;
        places.extend(gather(&mut file, &apart)?);
        places.sort_by_key(|(i, _)| *i);
        Ok(places.into_iter().map(|(_, place)| place).collect())
    };
    read().map_err(|source| Error::Open { path: path.to_owned(), source })
}

/// Reads numbered tensors into one memory, in pages of 2 MB where the system has them.
fn gather(file: &mut File, tensors: &[(usize, &TensorInfo)]) -> io::Result<Vec<(usize, Place)>> {
    let room = |t: &TensorInfo| t.range.len().next_multiple_of(LINE);
    let len = tensors.iter().try_fold(0_usize, |sum, (_, t)| sum.checked_add(room(t)));
    // An empty map cannot be made.
    let mut memory = MmapMut::map_anon(len.ok_or(io::ErrorKind::OutOfMemory)?.max(1))?;
    #[cfg(target_os = "linux")]
    let _ = memory.advise(memmap2::Advice::HugePage);
    let (mut starts, mut start) = (Vec::new(), 0);
    for (_, t) in tensors {
        file.seek(SeekFrom::Start(t.range.start as u64))?;
        file.read_exact(&mut memory[start..][..t.range.len()])?;
        starts.push(start);
        start += room(t);
    }
    let memory = Arc::new(memory) as SharedBytes;
    let place = |(&(i, _), start): (&(usize, _), _)| (i, Place { memory: Arc::clone(&memory), start });
    Ok(tensors.iter().zip(starts).map(place).collect())
}
