//! Files that appear whole, and that a later run can continue.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::Sink;

/// A file that appears at its path when it is whole; what is unfinished stays beside it, for a later run to continue.
///
/// Bytes that an earlier run has written are compared with those that are written now; from the first other one on, the old
/// ones go. [`skip`](Sink::skip) passes over some without a look at them, up to the last [checkpoint](Sink::checkpoint) that
/// the unfinished file is longer than: bytes behind a checkpoint were written after those before it were on the disk.
#[derive(Debug)]
pub struct ResumableFile {
    file: BufWriter<File>,
    path: PathBuf,
    /// Where the next bytes go.
    at: u64,
    /// Bytes of an earlier run.
    old: u64,
    /// Those of them that were passed over.
    skipped: u64,
}

impl ResumableFile {
    /// Starts or continues a file that will be at `path`. Nobody else can continue it meanwhile.
    ///
    /// # Errors
    /// When its folder cannot be written to, or another program writes the same file.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref().to_owned();
        let unfinished = Self::unfinished(&path);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(&unfinished)?;
        if let Err(fs::TryLockError::WouldBlock) = file.try_lock() {
            let problem = format!("another program is writing `{}`", unfinished.display());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
        }
        let old = file.metadata()?.len();
        let file = BufWriter::with_capacity(1 << 16, file);
        Ok(Self { file, path, at: 0, old, skipped: 0 })
    }

    /// Where the file for `path` is until it is whole.
    pub fn unfinished(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".part");
        name.into()
    }

    /// Removes what is unfinished of the file for `path`, if there is something.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn discard(path: &Path) -> io::Result<()> {
        match fs::remove_file(Self::unfinished(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Drops what an earlier run has written from here on.
    fn cut(&mut self) -> io::Result<()> {
        let file = self.file.get_mut();
        file.set_len(self.at)?;
        file.seek(SeekFrom::Start(self.at))?;
        self.old = self.at;
        Ok(())
    }
}

impl Write for ResumableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.at < self.old {
            let mut old = vec![0; bytes.len().min((self.old - self.at) as usize)];
            self.file.get_mut().read_exact(&mut old)?;
            if bytes.starts_with(&old) {
                self.at += old.len() as u64;
                return Ok(old.len());
            }
            self.cut()?;
        }
        let written = self.file.write(bytes)?;
        self.at += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for ResumableFile {
    /// Bytes of earlier runs that were [passed over](Sink::skip).
    type Done = u64;

    fn skip(&mut self, len: u64) -> io::Result<bool> {
        if self.at >= self.old {
            return Ok(false);
        }
        if self.at + len >= self.old {
            self.cut()?;
            return Ok(false);
        }
        self.at += len;
        self.skipped += len;
        self.file.get_mut().seek(SeekFrom::Start(self.at))?;
        Ok(true)
    }

    fn checkpoint(&mut self) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_data()
    }

    fn commit(mut self) -> io::Result<u64> {
        if self.at < self.old {
            self.cut()?;
        }
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // On disk before it takes the name: a crash leaves the unfinished file or the new one.
        file.sync_all()?;
        drop(file);
        fs::rename(Self::unfinished(&self.path), &self.path)?;
        Ok(self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(file: &mut ResumableFile, parts: &[&[u8]]) -> Vec<bool> {
        file.write_all(b"head").unwrap();
        let part = |part: &&[u8]| {
            let skipped = file.skip(part.len() as u64).unwrap();
            if !skipped {
                file.write_all(part).unwrap();
                file.checkpoint().unwrap();
            }
            skipped
        };
        parts.iter().map(part).collect()
    }

    #[test]
    fn runs_continue_behind_the_last_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let all: [&[u8]; 3] = [b"first", b"second", b"third"];
        // A file that ends with a part may lack some of it: nothing says that it reached the disk.
        for (old, skipped) in [
            ("", [false; 3]),
            ("he", [false; 3]),
            ("headfirst", [false; 3]),
            ("headfirsts", [true, false, false]),
            ("headfirstsecondth", [true, true, false]),
            ("headfirstsecondthird", [true, true, false]),
            ("healfirstsecondthird", [false; 3]),
            ("headfirstsecondthird and more", [true; 3]),
        ] {
            fs::write(ResumableFile::unfinished(&path), old).unwrap();
            let mut file = ResumableFile::open(&path).unwrap();
            assert!(ResumableFile::open(&path).unwrap_err().to_string().contains("another program"));
            assert_eq!(parts(&mut file, &all), skipped, "{old}");
            let bytes: usize = all.iter().zip(skipped).map(|(part, s)| part.len() * usize::from(s)).sum();
            assert_eq!(file.commit().unwrap(), bytes as u64);
            assert_eq!(fs::read_to_string(&path).unwrap(), "headfirstsecondthird", "{old}");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_is_unfinished_stays_until_it_is_discarded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        ResumableFile::discard(&path).unwrap();
        parts(&mut ResumableFile::open(&path).unwrap(), &[b"first"]);
        assert_eq!(fs::read_to_string(ResumableFile::unfinished(&path)).unwrap(), "headfirst");
        assert!(!path.exists());
        ResumableFile::discard(&path).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
