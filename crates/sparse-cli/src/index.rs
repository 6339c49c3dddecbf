//! Index files of `sparse search`: embeddings of documents, kept from one query to the next.
//!
//! A file is a header, the documents' keys, their embeddings and a digest of all that. Numbers are little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `SPRSIDX1` |
//! | 32 | SHA-256 of what decides about embeddings: model, options, prompt |
//! | 8 | values of an embedding |
//! | 8 | number of documents `n` |
//! | 32 n | SHA-256 of each document's text |
//! | 4 n * values | embeddings, f32 |
//! | 32 | SHA-256 of everything before |

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};
use sparse_gguf::{PendingFile, Sink};

const MAGIC: &[u8; 8] = b"SPRSIDX1";
const HEADER: usize = 8 + 32 + 8 + 8;

/// A SHA-256 digest.
type Key = [u8; 32];

/// Embeddings of documents, by the digest of their text.
#[derive(Debug)]
pub(crate) struct Index {
    path: PathBuf,
    space: Key,
    dimension: usize,
    /// Embeddings that the file has.
    known: HashMap<Key, Vec<f32>>,
}

impl Index {
    /// Reads the index at `path`, for embeddings of `dimension` values that `space` tells from others. Without a file, or
    /// with one of another space, it is empty. A damaged file is as good as none; a file that is no index is moved aside.
    ///
    /// # Errors
    /// If there is a file that cannot be read or moved.
    pub(crate) fn open(path: &Path, space: &str, dimension: usize) -> anyhow::Result<Self> {
        let space: Key = Sha256::digest(space).into();
        let mut index = Self { path: path.to_owned(), space, dimension, known: HashMap::new() };
        let shown = path.display();
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(index),
            Err(e) => return Err(e).with_context(|| format!("cannot read the index `{shown}`")),
        };
        if !bytes.is_empty() && !bytes.starts_with(MAGIC) {
            let mut aside = path.as_os_str().to_owned();
            aside.push(".old");
            let aside = PathBuf::from(aside);
            anyhow::ensure!(
                !aside.exists(),
                "`{shown}` is no index of embeddings, and `{}` is taken: name another file",
                aside.display()
            );
            fs::rename(path, &aside).with_context(|| format!("cannot move `{shown}` aside"))?;
            tracing::warn!(
                "`{shown}` is no index of embeddings, or its beginning is damaged: it is now `{}`, and a new index is built",
                aside.display()
            );
            return Ok(index);
        }
        match parse(&bytes) {
            Ok(file) if file.space != space || file.dimension != dimension => {
                tracing::info!(
                    "the index `{shown}` is of another model, prompt or options: all documents are embedded"
                );
            }
            Ok(file) => index.known = file.known,
            Err(problem) => tracing::warn!("the index `{shown}` is damaged ({problem}): it is built anew"),
        }
        Ok(index)
    }

    /// The embedding of a document, if it is known.
    pub(crate) fn get(&self, text: &str) -> Option<&[f32]> {
        self.known.get(&key(text)).map(Vec::as_slice)
    }

    /// Starts to write the index anew, so that a place that cannot be written is noticed before the work.
    pub(crate) fn start(&self) -> anyhow::Result<PendingFile> {
        PendingFile::create(&self.path).with_context(|| self.cannot_write())
    }

    /// Writes these documents and their embeddings, and nothing else. The file is complete or as it was.
    pub(crate) fn write(&self, file: PendingFile, documents: &[(&str, &[f32])]) -> anyhow::Result<()> {
        self.try_write(file, documents).with_context(|| self.cannot_write())
    }

    fn cannot_write(&self) -> String {
        format!("cannot write the index `{}`", self.path.display())
    }

    fn try_write(&self, mut file: PendingFile, documents: &[(&str, &[f32])]) -> io::Result<()> {
        let mut seen = HashMap::new();
        for (text, embedding) in documents {
            seen.entry(key(text)).or_insert(*embedding);
        }
        let mut documents: Vec<(Key, &[f32])> = seen.into_iter().collect();
        documents.sort_by_key(|(key, _)| *key);
        let mut hash = Sha256::new();
        let mut put = |bytes: &[u8]| {
            hash.update(bytes);
            file.write_all(bytes)
        };
        put(MAGIC)?;
        put(&self.space)?;
        put(&(self.dimension as u64).to_le_bytes())?;
        put(&(documents.len() as u64).to_le_bytes())?;
        documents.iter().try_for_each(|(key, _)| put(key))?;
        for (_, embedding) in &documents {
            let bytes: Vec<u8> = embedding.iter().flat_map(|v| v.to_le_bytes()).collect();
            put(&bytes)?;
        }
        file.write_all(&hash.finalize())?;
        file.commit()
    }

    /// Whether the file has these documents and no others.
    pub(crate) fn holds_exactly(&self, texts: &[&str]) -> bool {
        let mut keys: Vec<Key> = texts.iter().map(|text| key(text)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.len() == self.known.len() && keys.iter().all(|key| self.known.contains_key(key))
    }
}

fn key(text: &str) -> Key {
    Sha256::digest(text).into()
}

/// What a file holds.
struct Contents {
    space: Key,
    dimension: usize,
    known: HashMap<Key, Vec<f32>>,
}

/// Reads a file, or says what is wrong with it.
fn parse(bytes: &[u8]) -> Result<Contents, String> {
    let short = |expected: usize| format!("{} bytes where at least {expected} are needed", bytes.len());
    let (body, digest) = bytes
        .split_last_chunk::<32>()
        .filter(|(b, _)| b.len() >= HEADER)
        .ok_or_else(|| short(HEADER + 32))?;
    if Sha256::digest(body)[..] != digest[..] {
        return Err("its digest is wrong".into());
    }
    let (header, rest) = body.split_at(HEADER);
    let number = |at: usize| {
        let (chunk, _) = header[at..].split_first_chunk().expect("a number in the header");
        usize::try_from(u64::from_le_bytes(*chunk)).ok()
    };
    let sizes = number(40).zip(number(48)).filter(|(dimension, _)| *dimension > 0);
    let (dimension, count) = sizes.ok_or("its sizes make no sense")?;
    let row = dimension.checked_mul(4).and_then(|row| row.checked_add(32));
    if row.and_then(|row| row.checked_mul(count)) != Some(rest.len()) {
        return Err("its sizes make no sense".into());
    }
    let (keys, values) = rest.split_at(32 * count);
    let values = values.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect::<Vec<f32>>();
    if values.iter().any(|v| !v.is_finite()) {
        return Err("it has values that are no numbers".into());
    }
    let embeddings = values.chunks(dimension).map(<[f32]>::to_vec);
    let known = keys.as_chunks::<32>().0.iter().copied().zip(embeddings).collect();
    let (_, space) = header[..40].split_last_chunk().expect("a digest in the header");
    Ok(Contents { space: *space, dimension, known })
}
