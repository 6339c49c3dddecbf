//! Registers of codes, factors and activations, and sums of their products.

use super::{Arithmetic, Tile};
use crate::Q8;
use core::arch::x86_64::*;

/// A token from some group of columns on.
#[derive(Clone, Copy)]
pub(super) struct Token {
    q: *const i8,
    d: *const f32,
    sums: *const i16,
}

impl Token {
    /// Token `t` from group `g` of 32 columns on.
    ///
    /// # Safety
    /// - There is such a token, with such a group.
    #[inline(always)]
    pub(super) unsafe fn of(x: &Q8<'_>, t: usize, g: usize) -> Self {
        let g = t * (x.cols / 32) + g;
        // SAFETY: a group has 32 codes, a scale and two sums.
        unsafe {
            Self { q: x.q.as_ptr().add(32 * g), d: x.d.as_ptr().add(g), sums: x.sums.as_ptr().add(2 * g) }
        }
    }

    /// The same from `g` groups later on.
    ///
    /// # Safety
    /// - There is such a group.
    #[inline(always)]
    pub(super) unsafe fn skip(self, g: usize) -> Self {
        // SAFETY: a group has 32 codes, a scale and two sums.
        unsafe { Self { q: self.q.add(32 * g), d: self.d.add(g), sums: self.sums.add(2 * g) } }
    }

    /// The scale of group `g`, for all rows.
    ///
    /// # Safety
    /// - The CPU has AVX2; there is such a group.
    #[inline(always)]
    pub(super) unsafe fn d(self, g: usize) -> __m256 {
        // SAFETY: a group has a scale.
        unsafe { _mm256_set1_ps(*self.d.add(g)) }
    }

    /// Activations `at..at + 4`, for all rows.
    ///
    /// # Safety
    /// - The CPU has AVX2; there are such activations.
    #[inline(always)]
    pub(super) unsafe fn four(self, at: usize) -> __m256i {
        // SAFETY: the caller promises AVX2, and four activations at `at`.
        unsafe { _mm256_set1_epi32(self.q.add(at).cast::<i32>().read_unaligned()) }
    }

    /// The sums of both halves of group `g`, for all rows.
    ///
    /// # Safety
    /// - The CPU has AVX2; there is such a group.
    #[inline(always)]
    pub(super) unsafe fn both_sums(self, g: usize) -> __m256i {
        // SAFETY: a group has two sums.
        unsafe { _mm256_set1_epi32(self.sums.add(2 * g).cast::<i32>().read_unaligned()) }
    }

    /// The sums of the first `count` groups, at most eight, each times its scale.
    ///
    /// # Safety
    /// - The CPU has AVX2; there are such groups.
    #[inline(always)]
    pub(super) unsafe fn scaled_sums(self, count: usize) -> [f32; 8] {
        let mut all = [0.0; 8];
        // SAFETY: a group has a scale and two sums.
        unsafe {
            if count == 8 {
                let sums = _mm256_madd_epi16(_mm256_loadu_si256(self.sums.cast()), _mm256_set1_epi16(1));
                let sums = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(self.d));
                _mm256_storeu_ps(all.as_mut_ptr(), sums);
            } else {
                for (i, sum) in all.iter_mut().enumerate().take(count) {
                    let [a, b] = *self.sums.add(2 * i).cast::<[i16; 2]>();
                    *sum = *self.d.add(i) * (i32::from(a) + i32::from(b)) as f32;
                }
            }
        }
        all
    }
}

/// Word `w` of all rows, behind `halves` half-precision factors.
#[inline(always)]
pub(super) unsafe fn word(tile: *const u8, halves: usize, w: usize) -> __m256i {
    // SAFETY: the caller knows that the tile has it.
    unsafe { _mm256_loadu_si256(tile.add(16 * halves + 32 * w).cast()) }
}

/// Half-precision factor `i` of all rows.
#[inline(always)]
pub(super) unsafe fn half(tile: *const u8, i: usize) -> __m256 {
    // SAFETY: the caller knows that the tile has it, and that the CPU has F16C.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(tile.add(16 * i).cast())) }
}

/// Byte `i` of each row, twice in 16 bits.
#[inline(always)]
pub(super) unsafe fn twice(word: __m256i, i: usize) -> __m256i {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe {
        let rows = _mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C);
        let place = _mm256_add_epi8(_mm256_broadcastsi128_si256(rows), _mm256_set1_epi8(i as i8));
        _mm256_shuffle_epi8(word, place)
    }
}

/// The products of a word of codes with four activations, in pairs.
#[inline(always)]
pub(super) unsafe fn products(codes: __m256i, four: __m256i, signed: bool) -> __m256i {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe {
        match signed {
            true => _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(four, codes)),
            false => _mm256_maddubs_epi16(codes, four),
        }
    }
}

/// Adds pairs of sums of 16 bits, times `factor`, to the integers.
#[inline(always)]
pub(super) unsafe fn widen(dots: __m256i, sums: __m256i, factor: __m256i) -> __m256i {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe { _mm256_add_epi32(dots, _mm256_madd_epi16(sums, factor)) }
}

/// What codes of group `g` are too large by, times the scale of each half, in the order of the sums of activations.
#[inline(always)]
pub(super) unsafe fn offsets<F: Tile<SPAN>, const SPAN: usize>(tile: *const u8, g: usize) -> __m256i {
    // SAFETY: the caller promises a whole tile with such a group, and AVX2, FMA and F16C.
    unsafe {
        let [first, second] = [F::half_scale(tile, g, 0), F::half_scale(tile, g, 1)];
        let both = _mm256_blend_epi16::<0b1010_1010>(first, second);
        _mm256_mullo_epi16(both, _mm256_set1_epi16(F::Arithmetic::OFFSET))
    }
}
