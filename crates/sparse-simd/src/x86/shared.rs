//! What several levels share: parts that need none of their instructions.

use core::arch::x86_64::*;

/// How far ahead weights are prefetched, in bytes: far enough to cover the latency of DRAM at full bandwidth.
pub(super) const AHEAD: usize = 4096;

/// Fetches what is read [`AHEAD`] bytes later, as much as a step.
#[inline]
pub(super) fn prefetch<S>(step: &S) {
    prefetch_bytes(core::ptr::from_ref(step).cast::<u8>().wrapping_add(AHEAD), size_of::<S>());
}

/// Fetches `len` bytes.
#[inline]
pub(super) fn prefetch_bytes(at: *const u8, len: usize) {
    for offset in (0..len).step_by(64) {
        // SAFETY: a prefetch is a hint; it may point anywhere.
        #[allow(unused_unsafe, reason = "not every supported compiler knows that it is safe")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(offset).cast())
        };
    }
}

/// Fetches `len` bytes into the second-level cache.
///
/// For rows and columns that are chosen one by one, so that the hardware cannot know what comes next: more misses can
/// be under way there than in the first level. On Zen 4 this reads 1.5 times as much per second.
#[inline]
pub(super) fn prefetch_far(at: *const u8, len: usize) {
    for offset in (0..len).step_by(64) {
        // SAFETY: a prefetch is a hint; it may point anywhere.
        #[allow(unused_unsafe, reason = "not every supported compiler knows that it is safe")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(offset).cast())
        };
    }
}

/// The sixteen 6-bit scales of Q3_K as bytes, four per word.
#[inline]
pub(super) fn q3_k_scales(scales: [u8; 12]) -> [u32; 4] {
    let [a, b, high] = words(scales);
    let fold = |low: u32, high: u32| low & 0x0F0F_0F0F | (high & 0x0303_0303) << 4;
    [fold(a, high), fold(b, high >> 2), fold(a >> 4, high >> 4), fold(b >> 4, high >> 6)]
}

/// The eight 6-bit scales and the eight 6-bit minima of Q4_K and Q5_K as bytes, four per word.
#[inline]
pub(super) fn k_scales(scales: [u8; 12]) -> [[u32; 2]; 2] {
    let [a, b, c] = words(scales);
    let fold = |low: u32, high: u32| low & 0x0F0F_0F0F | (high >> 6 & 0x0303_0303) << 4;
    [[a & 0x3F3F_3F3F, fold(c, a)], [b & 0x3F3F_3F3F, fold(c >> 4, b)]]
}

fn words(bytes: [u8; 12]) -> [u32; 3] {
    bytemuck::cast::<[u8; 12], [[u8; 4]; 3]>(bytes).map(u32::from_le_bytes)
}

/// Where the vector kernels find the codes of a lane's block: pairs of bytes that hold a code each become words, and
/// the code is moved to the top of its word, then down.
pub(super) struct LanePlaces {
    /// Where the bytes begin that hold the codes of each half.
    pub(super) starts: [usize; 2],
    /// Of the first and the last eight codes of both halves, the bytes, counted from their half's start.
    pub(super) index: [[u8; 32]; 2],
    /// What words are multiplied with.
    pub(super) up: [[i16; 16]; 2],
}

pub(super) const BIT3: LanePlaces = lane_places(3, [0, 6]);
pub(super) const BIT7: LanePlaces = lane_places(7, [0, 14]);

/// For codes of `bits` bits that follow a scale.
const fn lane_places(bits: usize, starts: [usize; 2]) -> LanePlaces {
    let mut places = LanePlaces { starts, index: [[0; 32]; 2], up: [[0; 16]; 2] };
    let mut i = 0;
    while i < 32 {
        let (half, eight) = (i / 16, i / 8 % 2);
        let word = 8 * half + i % 8;
        let at = 2 + bits * i / 8 - starts[half];
        // A second byte that is not there, or holds another code, is moved out.
        places.index[eight][2 * word] = at as u8;
        places.index[eight][2 * word + 1] = (at + 1) as u8 % 16;
        places.up[eight][word] = 1 << (16 - bits - bits * i % 8);
        i += 1;
    }
    places
}

/// `N` of the bytes, from `start` on.
#[inline]
pub(super) fn part<const N: usize>(bytes: &[u8], start: usize) -> &[u8; N] {
    &bytes[start..].as_chunks().0[0]
}
