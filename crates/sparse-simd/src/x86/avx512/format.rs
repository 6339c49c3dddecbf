//! What the drivers need to know of a weight format.

use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// A weight format, in steps of a few blocks that fill vector registers.
///
/// A vector of codes holds four groups of 16 values, a group per 128-bit lane; [`GROUPS`](Self::GROUPS) says
/// which. Codes are unsigned, as `vpdpbusd` wants them: code minus [`OFFSET`](Self::OFFSET) is what the scale
/// multiplies.
pub(super) trait Format {
    /// Bytes per step.
    const BYTES: usize;
    /// Values per step.
    const VALUES: usize;
    /// Values per scale, 16 or 32.
    const SUB: usize;
    const OFFSET: i32;
    /// Whether there is a minimum beside each scale, added (1) or subtracted (-1); then the offset is zero.
    const MINS: i32;
    /// For each vector of codes, the groups of 16 values in its four lanes.
    const GROUPS: &'static [[usize; 4]];
    /// The lane of [`Step::scales`] with the scale of sub-block 0, and the distance to that of the next one.
    const SCALES: (usize, usize);
    /// The same for the minima and [`Step::mins`].
    const MIN_LANES: (usize, usize);

    /// The activations of a step, arranged for [`dot`](Self::dot).
    type X: Copy;
    /// Vectors of codes.
    type Codes: AsRef<[__m512i]>;

    /// Arranges the activations of a step.
    fn arrange(x: &StepX<'_>, out: &mut MaybeUninit<Self::X>);

    /// Adds a step of the products to `sum`, spread over its lanes in any way.
    ///
    /// # Safety
    /// - The CPU has the features of this level.
    /// - `w` can be read; if `FULL` all [`BYTES`](Self::BYTES) of it.
    unsafe fn dot<const FULL: bool>(w: Bytes, x: &Self::X, sum: __m512) -> __m512;

    /// Decodes a step; what lies past the end of `w` reads as zero.
    ///
    /// # Safety
    /// As for [`dot`](Self::dot).
    unsafe fn decode<const FULL: bool>(w: Bytes) -> Step<Self::Codes>;
}

/// A decoded step.
pub(super) struct Step<C> {
    pub(super) codes: C,
    pub(super) scales: __m512,
    pub(super) mins: __m512,
}

/// Weights from `at` on, of which `len` bytes belong to the row.
#[derive(Clone, Copy)]
pub(super) struct Bytes {
    pub(super) at: *const u8,
    pub(super) len: usize,
}

impl Bytes {
    /// The `N` (64, 32, 16 or 8) bytes at `offset`; nothing in particular follows them in the vector. Unless
    /// `FULL`, bytes that are not of the row are not read, and zero.
    ///
    /// # Safety
    /// - `len` bytes can be read at `at`; if `FULL`, that includes all `N`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512vbmi")]
    pub(super) unsafe fn load<const FULL: bool, const N: usize>(self, offset: usize) -> __m512i {
        const { assert!(matches!(N, 64 | 32 | 16 | 8)) };
        let at = self.at.wrapping_add(offset).cast();
        let mask = first(if FULL { N } else { self.len.saturating_sub(offset).min(N) });
        // SAFETY: the mask covers N bytes at most and ends with the row, if need be; others are not accessed.
        unsafe {
            match N {
                64 => _mm512_maskz_loadu_epi8(mask, at),
                32 => _mm512_castsi256_si512(_mm256_maskz_loadu_epi8(mask as u32, at)),
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
#[target_feature(enable = "avx512f")]
pub(super) fn bytes<T: bytemuck::NoUninit, const N: usize>(x: &[T; N]) -> __m512i {
    const { assert!(size_of::<[T; N]>() == 64) };
    // SAFETY: 64 bytes, and any are a vector.
    unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
}

/// 16 floats for a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn floats<T: bytemuck::NoUninit, const N: usize>(x: &[T; N]) -> __m512 {
    _mm512_castsi512_ps(bytes(x))
}

/// The activations of a step as [`Q8`](crate::Q8) has them: codes, scales of 32, sums of 16.
pub(super) struct StepX<'a> {
    pub(super) q: &'a [i8],
    pub(super) d: &'a [f32],
    pub(super) sums: &'a [i16],
}

/// The codes of some groups of 16, one per lane.
pub(super) fn gather(q: &[[i8; 16]], groups: [usize; 4]) -> [[i8; 16]; 4] {
    groups.map(|g| q[g])
}
