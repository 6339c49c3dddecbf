//! The bytes of a file in memory: mapped where the crate may, or read.

use std::fs::{File, FileType};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::gguf::Place;
#[cfg(feature = "mmap")]
use crate::map;
use crate::{Error, SharedBytes, TensorInfo};

/// Bytes of a cache line, where tensors begin.
const LINE: usize = 64;

/// The whole file at `path`: mapped read-only with feature `mmap`, otherwise read.
pub(crate) fn open(path: &Path) -> Result<SharedBytes, Error> {
    // Before it is opened: that would wait for the writer of a pipe.
    if let Some(found) = path.metadata().ok().and_then(|m| other_than_file(m.file_type())) {
        return Err(Error::NotAFile { path: path.to_owned(), found });
    }
    #[cfg(feature = "mmap")]
    let bytes = map::file(path).map(|map| map as SharedBytes);
    #[cfg(not(feature = "mmap"))]
    let bytes = std::fs::read(path).map(|bytes| Arc::new(bytes) as SharedBytes);
    bytes.map_err(|source| Error::Open { path: path.to_owned(), source })
}

/// What there is in place of a file.
fn other_than_file(ty: FileType) -> Option<&'static str> {
    if ty.is_file() {
        return None;
    }
    if ty.is_dir() {
        return Some("folder");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if ty.is_fifo() {
            return Some("pipe");
        }
        if ty.is_socket() {
            return Some("socket");
        }
    }
    Some("device")
}

/// Gives the memory of `bytes` back to the system if they are in a file that [`Gguf::open`](crate::Gguf::open)
/// mapped: what is read again comes from the file. Other bytes stay as they are.
///
/// For weights that were copied and are not read any more, while others of the file are.
pub fn release(bytes: &[u8]) {
    #[cfg(feature = "mmap")]
    map::release(bytes);
    #[cfg(not(feature = "mmap"))]
    let _ = bytes;
}

/// Reads tensors from the files that they are in into memory. Those that are `apart` stay in their maps; without
/// maps, they are together in another memory.
pub(crate) fn read(
    files: &[PathBuf],
    tensors: &[TensorInfo],
    places: Vec<Place>,
    apart: impl Fn(&TensorInfo) -> bool,
) -> Result<Vec<Place>, Error> {
    let (apart, others): (Vec<_>, Vec<_>) = tensors.iter().enumerate().partition(|(_, t)| apart(t));
    let read = gather(files, &others)?;
    let apart = if cfg!(feature = "mmap") { Vec::new() } else { gather(files, &apart)? };
    let mut places = places;
    for (i, place) in read.into_iter().chain(apart) {
        places[i] = place;
    }
    Ok(places)
}

/// Reads numbered tensors into one memory, in pages of 2 MB where the system has them.
fn gather(files: &[PathBuf], tensors: &[(usize, &TensorInfo)]) -> Result<Vec<(usize, Place)>, Error> {
    let in_file = |part: usize| move |source| Error::Open { path: files[part].clone(), source };
    let mut memory = memory(tensors).map_err(in_file(tensors.first().map_or(0, |(_, t)| t.part)))?;
    let (mut starts, mut start) = (Vec::new(), 0);
    // They are in the order of the files.
    for in_part in tensors.chunk_by(|(_, a), (_, b)| a.part == b.part) {
        let part = in_part[0].1.part;
        let mut file = File::open(&files[part]).map_err(in_file(part))?;
        for (_, t) in in_part {
            let out = &mut memory[start..][..t.range.len()];
            let read = file.seek(SeekFrom::Start(t.range.start as u64)).and_then(|_| file.read_exact(out));
            read.map_err(in_file(part))?;
            starts.push(start);
            start += t.range.len().next_multiple_of(LINE);
        }
    }
    let memory = Arc::new(memory) as SharedBytes;
    let place = |(&(i, _), start): (&(usize, _), _)| (i, Place { memory: Arc::clone(&memory), start });
    Ok(tensors.iter().zip(starts).map(place).collect())
}

/// Room for tensors, each of which begins a cache line.
fn memory(
    tensors: &[(usize, &TensorInfo)],
) -> io::Result<impl std::ops::DerefMut<Target = [u8]> + AsRef<[u8]> + Send + Sync + use<>> {
    let room = |t: &TensorInfo| t.range.len().checked_next_multiple_of(LINE);
    let len = tensors.iter().try_fold(0_usize, |sum, (_, t)| sum.checked_add(room(t)?));
    let len = len.ok_or(io::ErrorKind::OutOfMemory)?;
    #[cfg(feature = "mmap")]
    return map::anonymous(len);
    #[cfg(not(feature = "mmap"))]
    Ok(vec![0_u8; len])
}
