//! Prompt caches: any file is one of the model's, or an error.
#![no_main]

use std::fs;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sparse_fuzz::MODEL;
use sparse_model::{Sequence, SessionOptions};
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder"));

fuzz_target!(|data: &[u8]| {
    let file = FOLDER.path().join("cache");
    fs::write(&file, data).expect("a file");
    let _ = Sequence::load(&MODEL, SessionOptions::new(32), &file);
    let _ = Sequence::load_common(&MODEL, SessionOptions::new(32), &file, &[1, 2, 9]);
});
