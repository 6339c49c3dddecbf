//! x86-64 kernels: one module per level.

mod avx2;

use crate::{Kernels, Level};

/// The kernels of `level`, if the CPU has its instructions.
pub(crate) fn kernels(level: Level) -> Option<&'static Kernels> {
    match level {
        Level::Avx2 if has_avx2() => Some(&avx2::KERNELS),
        _ => None,
    }
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}
