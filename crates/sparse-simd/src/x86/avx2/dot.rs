//! How bytes are multiplied.

use core::arch::x86_64::*;

/// Products of bytes whose sums of four are wanted.
pub(in crate::x86) trait Dot: Copy {
    /// Whether [`add`](Self::add) is one instruction.
    const FUSED: bool;

    /// Lanes of `sums`, of 32 bits, plus four products of unsigned bytes of `a` and signed ones of `b`. Sums of two must
    /// fit 16 bits unless this is one instruction.
    ///
    /// # Safety
    /// - The CPU has AVX2 and what this needs.
    unsafe fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

/// By pairs, in 16 bits.
#[derive(Clone, Copy)]
pub(in crate::x86) struct Pairs;

impl Dot for Pairs {
    const FUSED: bool = false;

    #[inline(always)]
    unsafe fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller promises that the CPU has AVX2 and what this needs.
        unsafe {
            let pairs = _mm256_maddubs_epi16(a, b);
            _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
        }
    }
}

/// `vpdpbusd` in VEX form: AVX-VNNI.
#[derive(Clone, Copy)]
pub(in crate::x86) struct Vex;

impl Dot for Vex {
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller promises that the CPU has AVX2 and what this needs.
        unsafe { _mm256_dpbusd_avx_epi32(sums, a, b) }
    }
}

/// `vpdpbusd` in EVEX form, of AVX-512 VNNI with VL: the same operation, so that CPUs without AVX-VNNI can test the level.
#[cfg(debug_assertions)]
#[derive(Clone, Copy)]
pub(in crate::x86) struct Evex;

#[cfg(debug_assertions)]
impl Dot for Evex {
    const FUSED: bool = true;

    #[inline(always)]
    unsafe fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller promises that the CPU has AVX2 and what this needs.
        unsafe { _mm256_dpbusd_epi32(sums, a, b) }
    }
}
