//! Every kernel at every level that this machine has, against plain arithmetic in f64 or the scalar level.

mod activation;
mod columns;
mod data;
#[cfg(unix)]
mod guard;
mod hadamard;
mod interleaved;
mod matmul;
mod panels;
mod quantize;
mod rows;
mod scan;

use crate::{Kernels, Level};

/// The kernels of every available level, and those of AVX-VNNI wherever its instruction exists in another form.
fn levels() -> impl Iterator<Item = &'static Kernels> {
    let levels = Level::available().filter_map(Kernels::at);
    #[cfg(target_arch = "x86_64")]
    let levels = levels.chain(crate::x86::avxvnni_by_avx512());
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
