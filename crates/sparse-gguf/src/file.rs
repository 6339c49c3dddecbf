//! The bytes of a file in memory: mapped where the crate may, or read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use crate::gguf::Place;
#[cfg(feature = "mmap")]
use crate::map;
use crate::{Error, SharedBytes, TensorInfo};

/// Bytes of a cache line, where tensors begin.
const LINE: usize = 64;

/// The whole file at `path`: mapped read-only with feature `mmap`, otherwise read.
pub(crate) fn open(path: &Path) -> Result<SharedBytes, Error> {
    #[cfg(feature = "mmap")]
    let bytes = map::file(path).map(|map| Arc::new(map) as SharedBytes);
    #[cfg(not(feature = "mmap"))]
    let bytes = std::fs::read(path).map(|bytes| Arc::new(bytes) as SharedBytes);
    bytes.map_err(|source| Error::Open { path: path.to_owned(), source })
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
    let room = |t: &TensorInfo| t.range.len().checked_next_multiple_of(LINE);
    let len = tensors.iter().try_fold(0_usize, |sum, (_, t)| sum.checked_add(room(t)?));
    let len = len.ok_or(io::ErrorKind::OutOfMemory)?;
    #[cfg(feature = "mmap")]
    let mut memory = map::anonymous(len)?;
    #[cfg(not(feature = "mmap"))]
    let mut memory = vec![0_u8; len];
    let (mut starts, mut start) = (Vec::new(), 0);
    for (_, t) in tensors {
        file.seek(SeekFrom::Start(t.range.start as u64))?;
        file.read_exact(&mut memory[start..][..t.range.len()])?;
        starts.push(start);
        start += t.range.len().next_multiple_of(LINE);
    }
    let memory = Arc::new(memory) as SharedBytes;
    let place = |(&(i, _), start): (&(usize, _), _)| (i, Place { memory: Arc::clone(&memory), start });
    Ok(tensors.iter().zip(starts).map(place).collect())
}
