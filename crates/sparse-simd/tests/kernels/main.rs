//! Every kernel at every level that this machine has, against plain arithmetic in f64 or the scalar level.
// Guard pages are mapped by hand.
#![allow(unsafe_code)]

mod activation;
mod columns;
mod data;
#[cfg(unix)]
mod guard;
mod hadamard;
mod interleaved;
mod layout;
mod levels;
mod matmul;
mod panels;
mod quantize;
mod rows;
mod scan;

use sparse_simd::{Kernels, Level};

/// The kernels of every available level, and those of AVX-VNNI wherever its instruction exists in another form.
fn levels() -> impl Iterator<Item = &'static Kernels> {
    let levels = Level::available().filter_map(Kernels::at);
    #[cfg(all(target_arch = "x86_64", debug_assertions))]
    let levels = levels.chain(sparse_simd::avxvnni_by_avx512());
    levels
}

/// Fails with every case that went wrong.
#[track_caller]
fn none(failures: Vec<String>) {
    assert!(
        failures.is_empty(),
        "{} cases failed:\n{}",
        failures.len(),
        failures[..failures.len().min(40)].join("\n")
    );
}

/// Whether a value is near enough to another; NaN never is.
fn within(found: f64, expected: f64, slack: f64) -> bool {
    (found - expected).abs() <= slack
}
