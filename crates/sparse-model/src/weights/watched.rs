//! Files that weights are read from while a model runs.

use std::fs::{File, Metadata};
use std::io;
use std::path::PathBuf;

use crate::Error;

/// A file that must stay as it is.
#[derive(Debug)]
pub(super) struct WatchedFile {
    pub(super) path: PathBuf,
    file: File,
    before: Metadata,
}

impl WatchedFile {
    pub(super) fn open(path: PathBuf) -> Result<Self, Error> {
        let open = || {
            let file = File::open(&path)?;
            let before = file.metadata()?;
            Ok((file, before))
        };
        match open() {
            Ok((file, before)) => Ok(Self { path, file, before }),
            Err(source) => Err(Error::File { path, source: Box::new(Error::Io(source)) }),
        }
    }

    /// Fills `bytes` with what is at `start`.
    pub(super) fn read(&self, start: u64, bytes: &mut [u8]) -> io::Result<()> {
        read_at(&self.file, start, bytes)?;
        let now = self.file.metadata()?;
        // After reading, so that a change before it shows.
        if now.len() != self.before.len() || now.modified().ok() != self.before.modified().ok() {
            return Err(io::Error::other("the file was changed while it was open"));
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, start: u64, bytes: &mut [u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, start)
}

#[cfg(windows)]
fn read_at(file: &File, mut start: u64, mut bytes: &mut [u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, bytes, start)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => (start, bytes) = (start + n as u64, &mut bytes[n..]),
        }
    }
    Ok(())
}

#[cfg(not(any(unix, windows)))]
fn read_at(_: &File, _: u64, _: &mut [u8]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
