//! What the benches share: weights of any format, and the models they run.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sparse_model::Model;
use sparse_simd::{BlockFormat, Rows};
use sparse_testdata::Weights;

/// Random weights `[rows x cols]`.
#[derive(Debug)]
pub struct Matrix {
    format: BlockFormat,
    cols: usize,
    bytes: Vec<u8>,
}

impl Matrix {
    /// As many rows of `cols` values as fit `bytes`, and at least one.
    ///
    /// # Panics
    /// If `cols` is no whole number of blocks.
    pub fn of_bytes(format: BlockFormat, cols: usize, bytes: usize) -> Self {
        let row = format.row_bytes(cols).expect("a whole number of blocks");
        let rows = (bytes / row).max(1);
        // One row's worth of random blocks, repeated: what they are has no influence on the time.
        let mut one = vec![0; row];
        Weights::new(format, 0.0, 0.02, 1, 0).fill(&mut one);
        Self { format, cols, bytes: one.repeat(rows) }
    }

    /// The weights.
    pub fn rows(&self) -> Rows<'_> {
        Rows::new(self.format, self.cols, &self.bytes).expect("whole rows")
    }

    /// Their size.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The model files to measure: those that `SPARSE_BENCH_MODELS` names (separated like `PATH`), or else what
/// `cargo xtask fetch` unpacked. Prints what to do when there is none.
pub fn model_files() -> Vec<PathBuf> {
    if let Some(files) = env::var_os("SPARSE_BENCH_MODELS") {
        return env::split_paths(&files).collect();
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
    let file = root.join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !file.exists() {
        eprintln!(
            "no model to measure: run `cargo xtask fetch smollm2`, or name GGUF files in SPARSE_BENCH_MODELS"
        );
        return Vec::new();
    }
    vec![file]
}

/// Opens a model for `threads` threads.
///
/// # Panics
/// If that fails, with the reason.
pub fn open(path: &Path, threads: usize) -> Arc<Model> {
    match Model::open(path, threads) {
        Ok(model) => Arc::new(model),
        Err(e) => panic!("{e}"),
    }
}

/// The file's name without its ending.
pub fn label(path: &Path) -> String {
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Thread counts worth comparing: one, and all cores.
pub fn thread_counts() -> Vec<usize> {
    let all = std::thread::available_parallelism().map_or(1, usize::from);
    let mut counts = vec![1, all];
    counts.dedup();
    counts
}

/// Any tokens: what they are has no influence on the time.
pub fn tokens(model: &Model, count: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % model.vocab_len()) as u32).collect()
}
