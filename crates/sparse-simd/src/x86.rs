//! x86-64 kernels: one module per level, and what they share.

mod avx2;
mod avx512;
mod avxvnni;
mod sse41;

use crate::{Kernels, Level};

/// The kernels of `level`, if the CPU has its instructions.
pub(crate) fn kernels(level: Level) -> Option<&'static Kernels> {
    match level {
        Level::Sse41 if has_sse41() => Some(&sse41::KERNELS),
        Level::Avx2 if has_avx2() => Some(&avx2::KERNELS),
        Level::AvxVnni if has_avx2() && is_x86_feature_detected!("avxvnni") => Some(&avxvnni::KERNELS),
        Level::Avx512 if has_avx512() => Some(&avx512::KERNELS),
        _ => None,
    }
}

/// The level of AVX-VNNI, made of AVX-512's form of its instruction, if the CPU has that.
#[cfg(debug_assertions)]
pub fn avxvnni_by_avx512() -> Option<&'static Kernels> {
    has_avx512().then_some(&avxvnni::BY_AVX512)
}

fn has_sse41() -> bool {
    is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")
}

fn has_avx2() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

fn has_avx512() -> bool {
    has_avx2()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vnni")
        && is_x86_feature_detected!("avx512vbmi")
}
