//! Models that are larger than the memory for them: experts are read from the file.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sparse_gguf::BlockFormat;
use sparse_model::{CacheKind, Error, MemoryBudget, Model, ModelOptions, Session, StoreStatistics};
use sparse_testdata::{File, TinyLlama};

use crate::architectures::file;
use crate::experts::merge_gate_and_up;

/// Experts per layer, and layers.
const EXPERTS: usize = 6;
const LAYERS: usize = 2;

fn llama() -> TinyLlama {
    TinyLlama {
        embedding: 128,
        feed_forward: 96,
        experts: Some((EXPERTS, 2)),
        layers: LAYERS,
        ..TinyLlama::default()
    }
}

/// Bytes of one of its experts: three matrices in Q8_0.
const EXPERT: usize = 3 * 128 * 96 / 32 * 34;

fn write(folder: &Path, llama: &TinyLlama) -> PathBuf {
    write_file(folder, &llama.build())
}

fn write_file(folder: &Path, file: &File) -> PathBuf {
    let path = folder.join("model.gguf");
    fs::write(&path, file.to_bytes()).expect("a file");
    path
}

fn open(path: &Path, bytes: Option<usize>, cache: CacheKind, threads: usize) -> Result<Arc<Model>, Error> {
    let memory = bytes.map(|bytes| MemoryBudget { bytes, cache });
    Model::open_with(path, &ModelOptions::new(threads).memory(memory)).map(Arc::new)
}

/// The least budget of the model.
fn minimum(path: &Path) -> usize {
    match open(path, Some(1), CacheKind::Lru, 1).expect_err("too little") {
        Error::File { source, .. } => match *source {
            Error::MemoryBudget { budget: 1, minimum, .. } => minimum,
            other => panic!("{other}"),
        },
        other => panic!("{other}"),
    }
}

/// What the store has done, when nothing is on its way into memory any more: that counts beside what is needed.
pub(crate) fn settled(model: &Model) -> StoreStatistics {
    for _ in 0..5000 {
        let found = model.store_statistics().expect("a budget");
        if found.resident_bytes <= found.budget_bytes {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    model.store_statistics().expect("a budget")
}

fn logits(model: &Arc<Model>, batch: usize) -> Result<Vec<Vec<u32>>, Error> {
    let tokens: Vec<u32> = (0..48).map(|t| (t * 37 + 3) % model.vocab_len() as u32).collect();
    let mut session = Session::new(model, 64)?;
    let mut out = Vec::new();
    for batch in tokens.chunks(batch) {
        session.forward_each(batch, |_, l| out.push(l.iter().map(|l| l.to_bits()).collect()))?;
    }
    Ok(out)
}

#[test]
fn the_bits_are_those_of_the_whole_model_under_every_budget() {
    let folder = tempfile::tempdir().unwrap();
    for format in [BlockFormat::Q8_0, BlockFormat::Q4_0, BlockFormat::F16] {
        budgets_change_nothing(&write(folder.path(), &TinyLlama { format, ..llama() }), format.name());
    }
}

fn budgets_change_nothing(path: &Path, name: &str) {
    let least = minimum(path);
    let whole = fs::metadata(path).unwrap().len() as usize;
    for batch in [1, 48] {
        let expected = logits(&open(path, None, CacheKind::Lru, 2).unwrap(), batch).unwrap();
        for (cache, threads) in [(CacheKind::Lru, 1), (CacheKind::Lfu, 2)] {
            for budget in [least, (least + whole) / 2, whole] {
                let model = open(path, Some(budget), cache, threads).unwrap();
                let name = format!("{name}, batches of {batch}, {budget} bytes, {cache}");
                assert!(logits(&model, batch).unwrap() == expected, "{name}");
                let found = settled(&model);
                assert!(found.resident_bytes <= found.budget_bytes, "{name}: {found:?}");
                assert!(found.read_bytes > 0 && found.hits + found.misses > 0, "{name}: {found:?}");
            }
        }
    }
}

/// gpt-oss has biases in its experts. They stay in the file, too.
#[test]
fn biases_are_read_with_their_experts() {
    // Three matrices of 32 x 64 in MXFP4, and their biases in F32.
    const EXPERT: usize = 3 * 32 * 64 / 32 * 17 + 4 * (64 + 64 + 32);
    let folder = tempfile::tempdir().unwrap();
    let mut together = file("gpt-oss");
    merge_gate_and_up(&mut together);
    for (name, file) in [("gate and up apart", file("gpt-oss")), ("gate and up together", together)] {
        let path = write_file(folder.path(), &file);
        let all: usize = file.tensors.iter().map(|tensor| tensor.data.len()).sum();
        assert_eq!(minimum(&path), all - (LAYERS * EXPERTS - 2) * EXPERT, "{name}");
        budgets_change_nothing(&path, name);
    }
}

#[test]
fn too_small_a_budget_states_the_least() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &llama());
    let least = minimum(&path);
    let all = fs::metadata(&path).unwrap().len() as usize;
    // All but the experts that are not needed at once, and the header.
    assert!(
        (all - LAYERS * EXPERTS * EXPERT..all - (LAYERS * EXPERTS - 2) * EXPERT).contains(&least),
        "{least}"
    );
    assert!(open(&path, Some(least), CacheKind::Lru, 1).is_ok());
    let error = open(&path, Some(least - 1), CacheKind::Lru, 1).unwrap_err().to_string();
    assert!(error.contains("it needs at least 1MiB") && error.contains("experts of one layer"), "{error}");

    let dense = write(folder.path(), &TinyLlama { experts: None, ..llama() });
    let error = open(&dense, Some(1000), CacheKind::Lru, 1).unwrap_err().to_string();
    assert!(error.contains("only experts can stay in the file"), "{error}");
    assert!(open(&dense, Some(1 << 30), CacheKind::Lru, 1).unwrap().store_statistics().is_none());
}

/// A model that was opened with its least budget, and its file.
fn opened(folder: &Path) -> (PathBuf, Arc<Model>, Vec<Vec<u32>>) {
    let path = write(folder, &llama());
    let expected = logits(&open(&path, None, CacheKind::Lru, 1).unwrap(), 1).unwrap();
    let model = open(&path, Some(minimum(&path)), CacheKind::Lru, 1).unwrap();
    (path, model, expected)
}

#[test]
fn a_file_that_is_cut_short_is_an_error_and_no_wrong_token() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model, expected) = opened(folder.path());
    let whole = fs::read(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    let error = logits(&model, 1).unwrap_err().to_string();
    assert!(error.contains("expert ") && error.contains("model.gguf"), "{error}");
    // It stays one: the file may not be the same any more.
    fs::write(&path, &whole).unwrap();
    assert!(logits(&model, 1).is_err() || logits(&model, 1).unwrap() == expected);
}

#[test]
fn a_file_that_is_changed_in_place_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model, _) = opened(folder.path());
    let file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.set_len(fs::metadata(&path).unwrap().len() + 1).unwrap();
    let error = logits(&model, 1).unwrap_err().to_string();
    assert!(error.contains("changed while it was open"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_file_that_another_replaces_is_read_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model, expected) = opened(folder.path());
    let other = folder.path().join("other.gguf");
    fs::write(&other, b"something else").unwrap();
    fs::rename(&other, &path).unwrap();
    assert!(logits(&model, 1).unwrap() == expected);
}

/// After an error the tokens wait, and are computed when the file is readable again.
#[test]
fn tokens_wait_after_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let (path, model, _) = opened(folder.path());
    let whole = open(&path, None, CacheKind::Lru, 1).unwrap();
    let mut expected = Session::new(&whole, 8).unwrap();
    let mut session = Session::new(&model, 8).unwrap();
    let before = fs::metadata(&path).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1000).unwrap();
    session.forward(&[5, 6, 7]).unwrap_err();
    assert_eq!((session.position(), session.tokens()), (0, &[5, 6, 7][..]));
    fs::write(&path, bytes).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(&path)
        .unwrap()
        .set_modified(before.modified().unwrap())
        .unwrap();
    let found = session.forward(&[]).unwrap().to_vec();
    assert_eq!(found, expected.forward(&[5, 6, 7]).unwrap());
}
