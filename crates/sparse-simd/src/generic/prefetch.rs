//! Which bytes are fetched ahead of their use, and how far.

/// How far ahead weights are prefetched, in bytes: far enough to cover the latency of DRAM at full bandwidth.
pub(crate) const AHEAD: usize = 4096;

/// Fetches what is read [`AHEAD`] bytes later, as much as a step.
#[inline]
pub(crate) fn prefetch<S>(step: &S) {
    prefetch_bytes(core::ptr::from_ref(step).cast::<u8>().wrapping_add(AHEAD), size_of::<S>());
}

/// Fetches `len` bytes.
#[inline]
pub(crate) fn prefetch_bytes(at: *const u8, len: usize) {
    for offset in (0..len).step_by(64) {
        line::<false>(at.wrapping_add(offset));
    }
}

/// Fetches `len` bytes into the second-level cache.
///
/// For rows and columns that are chosen one by one, so that the hardware cannot know what comes next: more misses can
/// be under way there than in the first level. On Zen 4 this reads 1.5 times as much per second.
#[inline]
pub(crate) fn prefetch_far(at: *const u8, len: usize) {
    for offset in (0..len).step_by(64) {
        line::<true>(at.wrapping_add(offset));
    }
}

/// Fetches the cache line at `at`, which may point anywhere, into the second level if `FAR`, else into the first. A hint.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
fn line<const FAR: bool>(at: *const u8) {
    use core::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
    // SAFETY: a prefetch is a hint; it may point anywhere.
    #[allow(unused_unsafe, reason = "not every supported compiler knows that it is safe")]
    unsafe {
        match FAR {
            true => _mm_prefetch::<_MM_HINT_T1>(at.cast()),
            false => _mm_prefetch::<_MM_HINT_T0>(at.cast()),
        }
    }
}

/// Fetches the cache line at `at`, which may point anywhere, into the second level if `FAR`, else into the first. A hint.
#[inline(always)]
#[cfg(target_arch = "aarch64")]
fn line<const FAR: bool>(at: *const u8) {
    // SAFETY: a prefetch is a hint; it may point anywhere.
    unsafe {
        match FAR {
            true => {
                core::arch::asm!("prfm pldl2keep, [{}]", in(reg) at, options(nostack, readonly, preserves_flags))
            }
            false => {
                core::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, readonly, preserves_flags))
            }
        }
    }
}

/// This architecture has no such hint.
#[inline(always)]
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn line<const FAR: bool>(_: *const u8) {}
