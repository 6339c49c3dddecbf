//! Files that appear whole or not at all.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, GgufWriter, Sink, TensorWriter};

/// Any file that is to appear whole or not at all: it is under a temporary name beside its final path, and moves there by
/// [`commit`](Sink::commit); dropped before, it disappears.
#[derive(Debug)]
pub struct PendingFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl PendingFile {
    /// Starts a file that will be at `path`.
    ///
    /// # Errors
    /// When its folder cannot be written to.
    pub fn create(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let mut builder = tempfile::Builder::new();
        builder.prefix(".new-").suffix(".part");
        // Temporary files are private by default; this one gets what the user's umask allows.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = BufWriter::with_capacity(1 << 16, builder.tempfile_in(folder)?);
        Ok(Self { file, path: path.to_owned() })
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Sink for PendingFile {
    type Done = ();

    fn commit(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        // On disk before it takes the name: a crash leaves the old file or the new one.
        file.as_file().sync_all()?;
        file.persist(self.path)?;
        Ok(())
    }
}

impl GgufWriter {
    /// Starts a file that appears at `path` once it is finished. Until then, and after any error, whatever was at
    /// `path` stays as it is.
    ///
    /// # Errors
    /// When the folder cannot be written to, or the metadata has an empty key or a wrong alignment.
    pub fn create(self, path: impl AsRef<Path>) -> Result<TensorWriter<PendingFile>, Error> {
        let path = path.as_ref();
        let sink = PendingFile::create(path)
            .map_err(|source| Error::Write { what: path.display().to_string(), source })?;
        self.start(sink)
    }
}
