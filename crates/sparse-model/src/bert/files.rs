//! Where the files of a model folder come from.

use std::collections::HashMap;
#[cfg(feature = "fs")]
use std::fs::File;
use std::io::{self, Cursor, ErrorKind, Read, Seek};
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::Error;

/// A file that is open for reading.
pub trait ReadSeek: Read + Seek {}

impl<T: Read + Seek> ReadSeek for T {}

/// The files of a model folder, wherever they are: a map from paths to bytes, say.
pub trait ModelFiles {
    /// Opens the file at `path` in the folder, such as `1_Pooling/config.json`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if there is none, others if it cannot be read.
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadSeek + '_>>;
}

impl<B: AsRef<[u8]>> ModelFiles for HashMap<String, B> {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadSeek + '_>> {
        let bytes = path.to_str().and_then(|path| self.get(path)).ok_or(ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(bytes.as_ref())))
    }
}

/// Files on disk, by whole paths.
#[cfg(feature = "fs")]
pub(super) struct Disk;

#[cfg(feature = "fs")]
impl ModelFiles for Disk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn ReadSeek + '_>> {
        Ok(Box::new(File::open(path)?))
    }
}

/// Files to read from.
#[derive(Clone, Copy)]
pub(super) struct Files<'a>(pub(super) &'a dyn ModelFiles);

impl<'a> Files<'a> {
    pub(super) fn open(self, path: &Path) -> Result<Box<dyn ReadSeek + 'a>, Error> {
        Ok(self.0.open(path)?)
    }

    pub(super) fn exist(self, path: &Path) -> bool {
        !matches!(self.0.open(path), Err(e) if e.kind() == ErrorKind::NotFound)
    }

    /// What `parse` makes of a file.
    pub(super) fn read<T>(
        self,
        path: &Path,
        parse: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut text = Vec::new();
        let read = self.open(path).and_then(|mut file| Ok(file.read_to_end(&mut text)?));
        read.and_then(|_| parse(&text)).map_err(|e| in_file(path, e))
    }

    /// What a JSON file holds, if it is there.
    pub(super) fn optional<T: DeserializeOwned>(self, path: &Path) -> Result<Option<T>, Error> {
        match self.exist(path) {
            false => Ok(None),
            true => self.read(path, |text| Ok(serde_json::from_slice(text)?)).map(Some),
        }
    }
}

/// The error with the file's name, and with advice if the file is not there.
pub(super) fn in_file(path: &Path, error: Error) -> Error {
    let source = match error {
        Error::Io(e) if e.kind() == ErrorKind::NotFound => Error::MissingFile,
        other => other,
    };
    Error::File { path: path.to_owned(), source: Box::new(source) }
}

/// The place of `part` in a folder; what is wrong if it leads out of it.
pub(super) fn inside(folder: &Path, part: &str) -> Result<PathBuf, String> {
    let mut path = folder.to_owned();
    for component in Path::new(part).components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            _ => return Err(format!("lead out of the folder, to \"{part}\"")),
        }
    }
    Ok(path)
}
