//! Models in several files: all parts are found, and parts that do not fit together are refused.

use std::fs;
use std::path::Path;

use sparse_gguf::{Gguf, Value};

use crate::parts::{TENSORS, TINY, part, same_as_whole, three};

fn write(folder: &Path, parts: &[Vec<u8>]) {
    for (i, bytes) in parts.iter().enumerate() {
        fs::write(folder.join(format!("m-{:05}-of-{:05}.gguf", i + 1, parts.len())), bytes).unwrap();
    }
}

/// The message of an error and of all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}

#[test]
fn any_part_opens_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let parts = three();
    write(folder.path(), &parts);
    for named in 1..=3 {
        let path = folder.path().join(format!("m-{named:05}-of-00003.gguf"));
        let mapped = Gguf::open(&path).unwrap();
        assert_eq!((mapped.parts(), mapped.file_len()), (3, parts.iter().map(Vec::len).sum()));
        assert_eq!(mapped.tensors().map(|t| t.part()).collect::<Vec<_>>(), [1, 1, 2]);
        same_as_whole(&mapped);
        for apart in TENSORS {
            same_as_whole(&Gguf::read(&path, |t| t.name == apart).unwrap());
        }
    }
}

#[cfg(unix)]
#[test]
fn links_to_parts_lead_to_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let (blobs, links) = (folder.path().join("blobs"), folder.path().join("links"));
    fs::create_dir(&blobs).unwrap();
    fs::create_dir(&links).unwrap();
    let link = |to: &Path, name: &str| {
        std::os::unix::fs::symlink(to, links.join(name)).unwrap();
        links.join(name)
    };
    // Links with the parts' names to files without, as download caches have them.
    for (i, bytes) in three().iter().enumerate() {
        let blob = blobs.join(format!("blob{i}"));
        fs::write(&blob, bytes).unwrap();
        link(&blob, &format!("m-{:05}-of-00003.gguf", i + 1));
    }
    same_as_whole(&Gguf::open(links.join("m-00002-of-00003.gguf")).unwrap());
    // A link with a name of its own to a part beside the others.
    write(folder.path(), &three());
    same_as_whole(&Gguf::open(link(&folder.path().join("m-00001-of-00003.gguf"), "model.gguf")).unwrap());
}

#[test]
fn parts_that_do_not_fit_together_are_refused() {
    let [first, second, third] = three();
    let whole = || part(0, 1, &TENSORS, |_| {});
    let with = |index: u16, tensors: &[&str], key: &str, value: Value| {
        part(index, 3, tensors, |m| {
            m.insert(key, value);
        })
    };
    let without = |key: &'static str| part(0, 3, &[], |m| m.retain(|k| k != key));
    let cases: Vec<([Vec<u8>; 3], &str)> = vec![
        ([first.clone(), third.clone(), second.clone()], "part 2 of the model has `split.no` 2, expected 1"),
        (
            [first.clone(), second.clone(), TINY.to_vec()],
            "m-00003-of-00003.gguf` of the model: metadata key `split.no` is missing",
        ),
        (
            [first.clone(), second.clone(), TINY[..50].to_vec()],
            "m-00003-of-00003.gguf` of the model: truncated gguf file",
        ),
        ([first.clone(), second.clone(), b"text".to_vec()], "of the model: not a gguf file"),
        ([first.clone(), second.clone(), second.clone()], "part 3 of the model has `split.no` 1, expected 2"),
        (
            [first.clone(), second.clone(), with(2, &TENSORS[2..], "split.count", 4u16.into())],
            "part 3 belongs to another model: its `split.count` is 4, in part 1 it is 3",
        ),
        (
            [first.clone(), second.clone(), with(2, &TENSORS[2..], "split.tensors.count", 9i32.into())],
            "part 3 belongs to another model: its `split.tensors.count` is 9, in part 1 it is 3",
        ),
        (
            [first.clone(), second.clone(), with(2, &TENSORS[2..], "general.architecture", "b".into())],
            "part 3 belongs to another model: its `general.architecture` is \"b\", in part 1 it is \"tiny\"",
        ),
        (
            [first.clone(), second.clone(), part(2, 3, &TENSORS[1..], |_| {})],
            "tensor `weight` is in part 2 and in part 3 of the model",
        ),
        (
            [first.clone(), second.clone(), part(2, 3, &[], |_| {})],
            "the parts of the model have 2 tensors, expected the 3 of `split.tensors.count`",
        ),
        (
            [with(0, &[], "split.no", 3u16.into()), second.clone(), third.clone()],
            "metadata key `split.no` is 3, expected less than the 3 of `split.count`",
        ),
        (
            [with(0, &[], "split.no", (-1i32).into()), second.clone(), third.clone()],
            "metadata key `split.no` is -1, which does not fit usize",
        ),
        (
            [with(0, &[], "split.count", u64::MAX.into()), second.clone(), third.clone()],
            "m-00001-of-00003.gguf` is part 1 of 18446744073709551615 of a model, and the other parts are found",
        ),
        (
            [with(0, &[], "split.count", "3".into()), second.clone(), third.clone()],
            "metadata key `split.count` has type string, expected usize",
        ),
        (
            [with(0, &[], "split.count", vec![3u16; 2].into()), second.clone(), third.clone()],
            "metadata key `split.count` has type array of u16, expected usize",
        ),
        ([without("split.no"), second.clone(), third.clone()], "metadata key `split.no` is missing"),
        (
            [without("split.tensors.count"), second.clone(), third.clone()],
            "metadata key `split.tensors.count` is missing",
        ),
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m-00001-of-00003.gguf");
    for (parts, expected) in cases {
        write(folder.path(), &parts);
        let error = chain(&Gguf::open(&path).unwrap_err());
        assert!(error.contains(expected), "{error}\nexpected {expected}");
    }

    // A file that says it is whole, whatever its name says, is opened alone.
    write(folder.path(), &[whole(), second, third]);
    assert_eq!(Gguf::open(&path).unwrap().parts(), 1);
}

#[test]
fn missing_parts_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let parts = three();
    write(folder.path(), &parts);
    let file = |i: usize| folder.path().join(format!("m-{i:05}-of-00003.gguf"));
    for missing in 1..=3 {
        fs::remove_file(file(missing)).unwrap();
        for named in (1..=3).filter(|named| *named != missing) {
            let expected =
                format!("part {missing} of 3 of the model is missing: `{}`", file(missing).display());
            assert_eq!(Gguf::open(file(named)).unwrap_err().to_string(), expected);
        }
        write(folder.path(), &parts);
    }
    // A name that does not say where the others are.
    let renamed = folder.path().join("model.gguf");
    fs::copy(file(2), &renamed).unwrap();
    let error = Gguf::open(&renamed).unwrap_err().to_string();
    assert!(error.contains("part 2 of 3") && error.contains("`-00002-of-00003.gguf`"), "{error}");
}

#[test]
fn what_is_no_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = Gguf::open(folder.path()).unwrap_err().to_string();
    assert_eq!(error, format!("`{}` is a folder, expected a gguf file", folder.path().display()));
    #[cfg(unix)]
    {
        let error = Gguf::open("/dev/null").unwrap_err().to_string();
        assert_eq!(error, "`/dev/null` is a device, expected a gguf file");
        let socket = folder.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(Gguf::open(socket).unwrap_err().to_string().contains("is a socket"));
    }
    // A part that is a folder.
    write(folder.path(), &three());
    let second = folder.path().join("m-00002-of-00003.gguf");
    fs::remove_file(&second).unwrap();
    fs::create_dir(&second).unwrap();
    let error = chain(&Gguf::open(folder.path().join("m-00001-of-00003.gguf")).unwrap_err());
    assert!(error.contains(&format!("`{}` is a folder", second.display())), "{error}");
}
