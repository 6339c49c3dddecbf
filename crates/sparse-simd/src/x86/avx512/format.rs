//! What the drivers need to know of a weight format, and the product of a step of it with one token.

use core::arch::x86_64::*;

/// Values per step: a super-block, or eight blocks of 32.
pub(super) const STEP: usize = 256;

/// A weight format, in steps of [`STEP`] values.
///
/// Four vectors hold the codes of a step, each four groups of 16, a group per 128-bit lane;
/// [`GROUPS`](Self::GROUPS) says which. Codes are unsigned, as `vpdpbusd` wants them: code minus
/// [`OFFSET`](Self::OFFSET) is what the scale multiplies.
pub(super) trait Format {
    /// Bytes per step.
    const BYTES: usize;
    /// Values per scale, 16 or 32.
    const SUB: usize;
    const OFFSET: i32 = 0;
    /// Whether there is a minimum beside each scale, added (1) or subtracted (-1); then the offset is zero.
    const MINS: i32 = 0;
    /// The groups in the lanes of each vector. With sub-blocks of 32, vectors 0 and 1 hold the two groups of
    /// the same four sub-blocks, and so do 2 and 3.
    const GROUPS: [[usize; 4]; 4];

    /// `vpermps` indices that bring the scales of each vector's sub-blocks above its four-code sums.
    const SPREAD: [[i32; 16]; 4] = {
        let mut spread = [[0; 16]; 4];
        let mut i = 0;
        while i < 64 {
            spread[i / 16][i % 16] = (Self::GROUPS[i / 16][i % 16 / 4] * 16 / Self::SUB) as i32;
            i += 1;
        }
        spread
    };

    /// Decodes a step, or its first half if `HALVES` is 1. What lies past the end of `w` reads as zero.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - `w` can be read; if `FULL` all [`BYTES`](Self::BYTES) of it. It is not empty, and whole super-blocks
    ///   if the format has those.
    unsafe fn decode<const FULL: bool, const HALVES: usize>(w: Bytes) -> Step;
}

/// A decoded step.
pub(super) struct Step {
    pub(super) codes: [__m512i; 4],
    /// A lane per sub-block. With sub-blocks of 32, the minima follow in lanes 8 to 15.
    pub(super) scales: __m512,
    /// With sub-blocks of 16, a lane per sub-block.
    pub(super) mins: __m512,
}

/// The activations of a step, arranged to match a [`Step`] of weights.
pub(super) struct StepX {
    codes: [__m512i; 4],
    /// What the scales are multiplied with, and in lanes 8 to 15 the minima in the same vector.
    scales: __m512,
    /// What the minima are multiplied with, if they have their own vector.
    mins: __m512,
    /// What the offset takes from each sub-block's integer sum, in the first of its lanes.
    start: [__m512i; 4],
}

impl StepX {
    /// Arranges codes, scales of 32 and sums of 16, as [`Q8`](crate::Q8) has them.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) fn new<F: Format>(q: &[[i8; 16]; 16], d: &[f32; 8], sums: &[i16; 16]) -> Self {
        const TWICE: [i32; 16] = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7];
        const AGAIN: [i32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7];
        // SAFETY: eight floats and sixteen words.
        let (d, sums) = unsafe { (_mm256_loadu_ps(d.as_ptr()), _mm256_loadu_si256(sums.as_ptr().cast())) };
        let d = _mm512_castps256_ps512(d);
        // Per sub-block.
        let (d, sums) = if F::SUB == 32 {
            let pairs = _mm256_madd_epi16(sums, _mm256_set1_epi16(1));
            let again = bytes(&AGAIN);
            let sums = _mm512_permutexvar_epi32(again, _mm512_castsi256_si512(pairs));
            (_mm512_permutexvar_ps(again, d), sums)
        } else {
            (_mm512_permutexvar_ps(bytes(&TWICE), d), _mm512_cvtepi16_epi32(sums))
        };
        let mins = _mm512_mullo_epi32(sums, _mm512_set1_epi32(F::MINS));
        let mins = _mm512_mul_ps(d, _mm512_cvtepi32_ps(mins));
        let taken = _mm512_mullo_epi32(sums, _mm512_set1_epi32(-F::OFFSET));
        let mut x = Self {
            codes: [_mm512_setzero_si512(); 4],
            scales: if F::SUB == 32 { _mm512_mask_blend_ps(0xff00, d, mins) } else { d },
            mins,
            start: [_mm512_setzero_si512(); 4],
        };
        for v in 0..4 {
            let [a, b, c, d] = F::GROUPS[v];
            x.codes[v] = lanes([&q[a], &q[b], &q[c], &q[d]]);
            x.start[v] = _mm512_maskz_permutexvar_epi32(0x1111, bytes(&F::SPREAD[v]), taken);
        }
        x
    }
}

/// Products of a row so far, spread over the lanes.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    codes: __m512,
    /// Of the minima; with sub-blocks of 32 only lanes 8 to 15 mean anything.
    mins: __m512,
}

impl Sum {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) fn zero() -> Self {
        Self { codes: _mm512_setzero_ps(), mins: _mm512_setzero_ps() }
    }

    /// Both parts, spread over the lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) fn total<F: Format>(self) -> __m512 {
        match (F::MINS, F::SUB) {
            (0, _) => self.codes,
            (_, 32) => _mm512_mask_add_ps(self.codes, 0xff00, self.codes, self.mins),
            _ => _mm512_add_ps(self.codes, self.mins),
        }
    }

    /// Adds the product of a step of weights and activations.
    ///
    /// # Safety
    /// As for [`Format::decode`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) unsafe fn add<F: Format, const FULL: bool, const HALVES: usize>(
        &mut self,
        w: Bytes,
        x: &StepX,
    ) {
        // SAFETY: the caller promises the features of this level, and that `w` can be read, whole
        // if `FULL`.
        let w = unsafe { F::decode::<FULL, HALVES>(w) };
        self.add_decoded::<F, HALVES>(&w, x);
    }

    /// Adds the product of a decoded step, or of its first half if `HALVES` is 1.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) fn add_decoded<F: Format, const HALVES: usize>(&mut self, w: &Step, x: &StepX) {
        let scales = _mm512_mul_ps(w.scales, x.scales);
        if F::MINS != 0 {
            self.mins = if F::SUB == 32 {
                _mm512_add_ps(self.mins, scales)
            } else {
                _mm512_fmadd_ps(w.mins, x.mins, self.mins)
            };
        }
        let mut integers = _mm512_setzero_si512();
        for v in 0..2 * HALVES {
            // With sub-blocks of 32 the sums of an even vector go on in the next one.
            if F::SUB == 16 || v % 2 == 0 {
                integers = if F::OFFSET == 0 { _mm512_setzero_si512() } else { x.start[v] };
            }
            integers = _mm512_dpbusd_epi32(integers, w.codes[v], x.codes[v]);
            if F::SUB == 16 || v % 2 == 1 {
                let scales = _mm512_permutexvar_ps(bytes(&F::SPREAD[v]), scales);
                self.codes = _mm512_fmadd_ps(_mm512_cvtepi32_ps(integers), scales, self.codes);
            }
        }
    }
}

/// Weights from `at` on, of which `len` bytes belong to the row.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub(super) at: *const u8,
    pub(super) len: usize,
}

impl Bytes {
    /// The `N` (64, 16 or 8) bytes at `offset`; nothing in particular follows them in the vector. Unless
    /// `FULL`, bytes that are not of the row are not read, and zero.
    ///
    /// # Safety
    /// - `len` bytes can be read at `at`; if `FULL`, that includes all `N`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) unsafe fn load<const FULL: bool, const N: usize>(self, offset: usize) -> __m512i {
        const { assert!(matches!(N, 64 | 16 | 8)) };
        let at = self.at.wrapping_add(offset).cast();
        let mask = first(if FULL { N } else { self.len.saturating_sub(offset).min(N) });
        // SAFETY: the mask covers N bytes at most and ends with the row, if need be; others are not accessed.
        unsafe {
            match N {
                64 => _mm512_maskz_loadu_epi8(mask, at),
                8 if FULL => _mm512_castsi128_si512(_mm_loadl_epi64(at.cast())),
                _ => _mm512_castsi128_si512(_mm_maskz_loadu_epi8(mask as u16, at)),
            }
        }
    }
}

/// A mask of the first `n` bytes of 64, all for more.
#[inline]
pub(super) fn first(n: usize) -> u64 {
    if n >= 64 { u64::MAX } else { (1 << n) - 1 }
}

/// 64 bytes for a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn bytes<T: bytemuck::NoUninit, const N: usize>(x: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == 64) };
    // SAFETY: 64 bytes, and any are a vector.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// Four groups of 16 bytes for a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
fn lanes(groups: [&[i8; 16]; 4]) -> __m512i {
    let mut vector = _mm512_setzero_si512();
    for (i, group) in groups.into_iter().enumerate() {
        // SAFETY: 16 bytes.
        let group = unsafe { _mm_loadu_si128(group.as_ptr().cast()) };
        vector = _mm512_mask_broadcast_i32x4(vector, 0xf << (4 * i), group);
    }
    vector
}

/// 16 floats for a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
pub(super) fn floats(x: &[f32; 16]) -> __m512 {
    _mm512_castsi512_ps(bytes(x))
}
