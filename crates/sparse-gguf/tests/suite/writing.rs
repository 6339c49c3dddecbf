//! Writing: what comes out, and what is left behind when it fails.

#[cfg(feature = "write")]
use std::fs;
use std::io::{self, Write};

#[cfg(feature = "write")]
use sparse_gguf::quantize;
use sparse_gguf::{BlockFormat, GgmlType, Gguf, GgufWriter, Metadata, Sink};

const TINY: &[u8] = include_bytes!("../golden/tiny.gguf");

/// The file that `gguf` was read from, written again.
pub(crate) fn rewritten(gguf: &Gguf) -> Vec<u8> {
    let mut out = GgufWriter::like(gguf).start(Vec::new()).unwrap();
    for tensor in gguf.tensors() {
        out.write(&tensor.name, gguf.tensor(&tensor.name).unwrap().data).unwrap();
    }
    out.finish().unwrap()
}

#[test]
fn a_file_of_the_gguf_package_is_reproduced_byte_for_byte() {
    for version in [2, 3] {
        let mut bytes = TINY.to_vec();
        bytes[4] = version;
        assert!(rewritten(&Gguf::from_bytes(bytes.clone()).unwrap()) == bytes, "version {version}");
    }
}

#[cfg(feature = "write")]
#[test]
fn files_appear_complete_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new.gguf");
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "test");
    let mut writer = GgufWriter::new(metadata);
    writer.metadata_mut().insert("general.alignment", 128u32);
    writer.tensor("w", &[64, 3], BlockFormat::Q4_0).unwrap();
    writer.tensor("none", &[0], BlockFormat::F32).unwrap();
    writer.tensor("ids", &[2], GgmlType::I8).unwrap();
    let values = (0..192).map(|i| (i as f32).sin()).collect::<Vec<_>>();
    let rows = values.chunks(64).map(|row| quantize(BlockFormat::Q4_0, row).unwrap()).collect::<Vec<_>>();

    let mut out = writer.create(&path).unwrap();
    for row in &rows {
        out.write("w", row).unwrap();
        assert!(!path.exists());
    }
    out.write("none", &[]).unwrap();
    out.write("ids", &[7, 9]).unwrap();
    out.finish().unwrap();

    let gguf = Gguf::open(&path).unwrap();
    assert_eq!(gguf.metadata().string("general.architecture").unwrap(), "test");
    assert_eq!(gguf.tensor("w").unwrap().data, rows.concat());
    assert_eq!(gguf.tensor("ids").unwrap().data, [7, 9]);
    assert!(gguf.tensors().all(|t| t.range().start.is_multiple_of(128)));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = folder.path().join("plain");
        fs::write(&plain, "").unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&plain));
    }
}

#[test]
fn misuse_is_refused_by_name() {
    let mut writer = GgufWriter::new(Metadata::new());
    writer.tensor("a", &[2, 2], GgmlType::F32).unwrap();
    let bad = [
        (writer.tensor("a", &[1], GgmlType::F32), "tensor `a` occurs twice"),
        (writer.tensor("b", &[1; 5], GgmlType::F32), "tensor `b` has 5 dimensions, expected at most 4"),
        (
            writer.tensor("b", &[40], BlockFormat::Q8_0),
            "tensor `b` has rows of 40 values, expected a multiple of 32 (Q8_0 blocks)",
        ),
        (
            writer.tensor("b", &[32], GgmlType::Q4_2),
            "tensor `b` has type Q4_2 (removed from ggml), which is not supported",
        ),
    ];
    for (result, expected) in bad {
        assert_eq!(result.unwrap_err().to_string(), expected);
    }
    assert!(
        writer.tensor("b", &[usize::MAX, 2], GgmlType::F32).unwrap_err().to_string().contains("too large")
    );
    writer.tensor("b", &[1], GgmlType::F32).unwrap();

    let mut out = writer.clone().start(Vec::new()).unwrap();
    let steps = [
        (out.write("b", &[0; 4]), Some("data for tensor `b` given, expected data for tensor `a`")),
        (out.write("a", &[0; 17]), Some("the data of tensor `a` has length 17, expected 16")),
        (out.write("a", &[1; 15]), None),
        (out.write("b", &[0; 4]), Some("data for tensor `b` given, expected data for tensor `a`")),
        (out.write("a", &[0; 2]), Some("the data of tensor `a` has length 17, expected 16")),
        (out.write("a", &[2]), None),
        (out.write("b", &[3; 4]), None),
        (out.write("b", &[3; 4]), Some("data for tensor `b` given, expected no more")),
    ];
    for (step, (result, expected)) in steps.into_iter().enumerate() {
        assert_eq!(result.err().map(|e| e.to_string()).as_deref(), expected, "step {step}");
    }
    let gguf = Gguf::from_bytes(out.finish().unwrap()).unwrap();
    assert_eq!(gguf.tensor("a").unwrap().data[13..], [1, 1, 2]);
    assert_eq!(gguf.tensor("b").unwrap().data, [3; 4]);

    let mut keyed = writer.clone();
    keyed.metadata_mut().insert("", 1u8);
    assert_eq!(keyed.start(Vec::new()).unwrap_err().to_string(), "metadata key 0 is empty");
    writer.metadata_mut().insert("general.alignment", 12u32);
    let error = writer.start(Vec::new()).unwrap_err().to_string();
    assert_eq!(
        error,
        "metadata key `general.alignment` is 12, expected a power of two that is a multiple of 8"
    );
}

#[cfg(feature = "write")]
#[test]
fn unfinished_files_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, "the old one").unwrap();
    let names = || fs::read_dir(&folder).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();

    let mut writer = GgufWriter::new(Metadata::new());
    writer.tensor("a", &[4], GgmlType::F32).unwrap();
    let mut out = writer.clone().create(&path).unwrap();
    assert_eq!(names().len(), 2);
    out.write("a", &[0; 12]).unwrap();
    let error = out.finish().unwrap_err().to_string();
    assert_eq!(error, "tensor `a` is incomplete: 12 of 16 bytes were written");
    assert_eq!(names(), ["model.gguf"]);

    drop(writer.clone().create(&path).unwrap());
    assert_eq!(names(), ["model.gguf"]);
    assert_eq!(fs::read(&path).unwrap(), b"the old one");

    let mut out = writer.clone().create(&path).unwrap();
    out.write("a", &[0; 16]).unwrap();
    out.finish().unwrap();
    assert_eq!(names(), ["model.gguf"]);
    assert!(Gguf::open(&path).is_ok());

    let missing = folder.path().join("no/such/folder.gguf");
    let error = writer.create(&missing).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot write {}: ", missing.display())), "{error}");
}

/// Room for so many bytes, like a disk; what it holds when it is full is lost on failure.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.0);
        self.0 -= n;
        if n == 0 && !bytes.is_empty() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Disk {
    type Done = ();

    fn commit(self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_reported_wherever_it_strikes() {
    let gguf = Gguf::from_bytes(TINY.to_vec()).unwrap();
    let write = |room: usize| {
        let mut out = GgufWriter::like(&gguf).start(Disk(room))?;
        // Errors are ignored on purpose: the file must not be finished after one.
        let results = gguf.tensors().map(|t| out.write(&t.name, &TINY[t.range()])).collect::<Vec<_>>();
        match results.into_iter().collect::<Result<(), _>>() {
            Ok(()) => out.finish(),
            Err(error) => {
                assert!(out.finish().is_err());
                Err(error)
            }
        }
    };
    for room in 0..TINY.len() {
        let error = write(room).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot write the header: ") || error.starts_with("cannot write tensor `"),
            "{error}"
        );
    }
    write(TINY.len()).unwrap();
}
