//! Where the formats have their codes and factors when eight rows are interleaved.

use super::{Codes, Tile};
use crate::layout::{BlockFormat, IQ4_NL_VALUES};
use core::arch::x86_64::*;

/// Word `w` of all rows, behind `halves` half-precision factors.
#[inline(always)]
unsafe fn word(tile: *const u8, halves: usize, w: usize) -> __m256i {
    // SAFETY: the caller knows that the tile has it.
    unsafe { _mm256_loadu_si256(tile.add(16 * halves + 32 * w).cast()) }
}

/// Half-precision factor `i` of all rows.
#[inline(always)]
unsafe fn half(tile: *const u8, i: usize) -> __m256 {
    // SAFETY: the caller knows that the tile has it, and that the CPU has F16C.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(tile.add(16 * i).cast())) }
}

/// Four activations, for all rows.
#[inline(always)]
unsafe fn four(x: Codes, at: usize) -> __m256i {
    // SAFETY: a token has 32 codes; the caller knows that the CPU has AVX2.
    unsafe { _mm256_set1_epi32(x.q.add(at).cast::<i32>().read_unaligned()) }
}

/// Adds the products of unsigned codes with activations `at..at + 4`, in 16 bits.
#[inline(always)]
unsafe fn add<const T: usize>(sums: &mut [__m256i; T], codes: __m256i, x: &[Codes; T], at: usize) {
    for t in 0..T {
        // SAFETY: the caller knows that the CPU has AVX2.
        sums[t] = unsafe { _mm256_add_epi16(sums[t], _mm256_maddubs_epi16(codes, four(x[t], at))) };
    }
}

/// Adds pairs of sums of 16 bits, times `factor`, to the integers.
#[inline(always)]
unsafe fn widen<const T: usize>(dots: &mut [__m256i; T], sums: &[__m256i; T], factor: __m256i) {
    for t in 0..T {
        // SAFETY: the caller knows that the CPU has AVX2.
        dots[t] = unsafe { _mm256_add_epi32(dots[t], _mm256_madd_epi16(sums[t], factor)) };
    }
}

/// Adds the products of signed codes with activations `at..at + 4`.
#[inline(always)]
unsafe fn add_signed<const T: usize>(dots: &mut [__m256i; T], codes: __m256i, x: &[Codes; T], at: usize) {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe {
        let size = _mm256_abs_epi8(codes);
        for t in 0..T {
            let pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(four(x[t], at), codes));
            dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
        }
    }
}

/// Scale and minimum of a block of 32.
#[derive(Clone, Copy)]
pub(super) struct Pair {
    d: __m256,
    m: __m256,
}

macro_rules! block_of_32 {
    ($name:ident, $format:ident, $mins:literal, $factors:expr, $dots:expr) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Tile<1> for $name {
            const FORMAT: BlockFormat = BlockFormat::$format;
            const MINS: bool = $mins;
            const RUNS: &'static [[usize; 1]] = &[[0]];
            type Factors = Pair;

            #[inline(always)]
            unsafe fn factors(tile: *const u8) -> Pair {
                // SAFETY: the caller's promise.
                unsafe { $factors(tile) }
            }

            #[inline(always)]
            unsafe fn scale(f: &Pair, _: usize) -> __m256 {
                f.d
            }

            #[inline(always)]
            unsafe fn min(f: &Pair, _: usize) -> __m256 {
                f.m
            }

            #[inline(always)]
            unsafe fn dots<const T: usize>(tile: *const u8, _: usize, x: &[Codes; T]) -> [[__m256i; T]; 1] {
                // SAFETY: the caller's promise.
                unsafe { [$dots(tile, x)] }
            }
        }
    };
}

block_of_32!(Q4_0, Q4_0, true, centered::<8>, nibbles::<1, T>);
block_of_32!(Q4_1, Q4_1, true, both, nibbles::<2, T>);
block_of_32!(Q5_0, Q5_0, true, centered::<16>, five_bits::<1, T>);
block_of_32!(Q5_1, Q5_1, true, both, five_bits::<2, T>);
block_of_32!(Q8_0, Q8_0, false, centered::<0>, bytes);
block_of_32!(Iq4Nl, Iq4Nl, false, centered::<0>, looked_up);

/// One factor; the offset of all codes as a minimum.
#[inline(always)]
unsafe fn centered<const OFFSET: i8>(tile: *const u8) -> Pair {
    // SAFETY: the caller's promise.
    unsafe {
        let d = half(tile, 0);
        Pair { d, m: _mm256_mul_ps(d, _mm256_set1_ps(-f32::from(OFFSET))) }
    }
}

/// A scale and a minimum.
#[inline(always)]
unsafe fn both(tile: *const u8) -> Pair {
    // SAFETY: the caller's promise.
    unsafe { Pair { d: half(tile, 0), m: half(tile, 1) } }
}

/// Codes of four bits: sixteen products of at most 2 * 15 * 127 fit 16 bits.
#[inline(always)]
unsafe fn nibbles<const HALVES: usize, const T: usize>(tile: *const u8, x: &[Codes; T]) -> [__m256i; T] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let mut sums = [_mm256_setzero_si256(); T];
        for k in 0..4 {
            let w = word(tile, HALVES, k);
            add(&mut sums, _mm256_and_si256(w, low), x, 4 * k);
            add(&mut sums, _mm256_and_si256(_mm256_srli_epi16::<4>(w), low), x, 16 + 4 * k);
        }
        let mut dots = [_mm256_setzero_si256(); T];
        widen(&mut dots, &sums, _mm256_set1_epi16(1));
        dots
    }
}

/// Codes of five bits: eight sums of two products are as many as fit 16 bits.
#[inline(always)]
unsafe fn five_bits<const HALVES: usize, const T: usize>(tile: *const u8, x: &[Codes; T]) -> [__m256i; T] {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, fifth) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
        let bits = word(tile, HALVES, 0);
        let mut sums = [[_mm256_setzero_si256(); T]; 2];
        for k in 0..4 {
            let w = word(tile, HALVES, 1 + k);
            for (h, sums) in sums.iter_mut().enumerate() {
                let nibbles = if h == 0 { w } else { _mm256_srli_epi16::<4>(w) };
                // Bit i of 32 belongs to column i: spread the byte, and see whether its bit is set.
                let i = 16 * h + 4 * k;
                let byte = _mm256_set1_epi32((i / 8) as i32 * 0x0101_0101);
                let own = _mm256_set1_epi32(0x0804_0201 << (i % 8));
                let rows =
                    _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C));
                let spread = _mm256_shuffle_epi8(bits, _mm256_add_epi8(byte, rows));
                let set = _mm256_cmpeq_epi8(_mm256_and_si256(spread, own), own);
                let codes = _mm256_or_si256(_mm256_and_si256(nibbles, low), _mm256_and_si256(set, fifth));
                add(sums, codes, x, i);
            }
        }
        let mut dots = [_mm256_setzero_si256(); T];
        widen(&mut dots, &sums[0], _mm256_set1_epi16(1));
        widen(&mut dots, &sums[1], _mm256_set1_epi16(1));
        dots
    }
}

/// Codes of eight bits, signed.
#[inline(always)]
unsafe fn bytes<const T: usize>(tile: *const u8, x: &[Codes; T]) -> [__m256i; T] {
    // SAFETY: the caller's promise.
    unsafe {
        let mut dots = [_mm256_setzero_si256(); T];
        for k in 0..8 {
            add_signed(&mut dots, word(tile, 1, k), x, 4 * k);
        }
        dots
    }
}

/// Codes of four bits that stand for signed values.
#[inline(always)]
unsafe fn looked_up<const T: usize>(tile: *const u8, x: &[Codes; T]) -> [__m256i; T] {
    // SAFETY: the caller's promise.
    unsafe {
        let values = _mm256_broadcastsi128_si256(_mm_loadu_si128(IQ4_NL_VALUES.as_ptr().cast()));
        let low = _mm256_set1_epi8(15);
        let mut dots = [_mm256_setzero_si256(); T];
        for k in 0..4 {
            let w = word(tile, 1, k);
            let codes = _mm256_shuffle_epi8(values, _mm256_and_si256(w, low));
            add_signed(&mut dots, codes, x, 4 * k);
            let codes = _mm256_shuffle_epi8(values, _mm256_and_si256(_mm256_srli_epi16::<4>(w), low));
            add_signed(&mut dots, codes, x, 16 + 4 * k);
        }
        dots
    }
}

/// Scales and minima of eight groups.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    d: [__m256; 8],
    m: [__m256; 8],
}

/// The factors of Q4_K and Q5_K: words 0 to 2 have scales and minima of six bits.
#[inline(always)]
unsafe fn k_factors(tile: *const u8) -> Groups {
    // SAFETY: the caller's promise.
    unsafe {
        let (d, m) = (half(tile, 0), half(tile, 1));
        let m = _mm256_xor_ps(m, _mm256_set1_ps(-0.0));
        let [a, b, c] = [word(tile, 2, 0), word(tile, 2, 1), word(tile, 2, 2)];
        let six = _mm256_set1_epi8(63);
        let scales = [_mm256_and_si256(a, six), fold(c, a)];
        let mins = [_mm256_and_si256(b, six), fold(_mm256_srli_epi32::<4>(c), b)];
        let mut groups = Groups { d: [d; 8], m: [m; 8] };
        for h in 0..2 {
            spread(scales[h], d, groups.d.as_chunks_mut::<4>().0.get_unchecked_mut(h));
            spread(mins[h], m, groups.m.as_chunks_mut::<4>().0.get_unchecked_mut(h));
        }
        groups
    }
}

/// The low nibbles of `low`, and above them the top two bits of the bytes of `high`.
#[inline(always)]
unsafe fn fold(low: __m256i, high: __m256i) -> __m256i {
    // SAFETY: the caller knows that the CPU has AVX2.
    unsafe {
        let high = _mm256_and_si256(_mm256_srli_epi32::<2>(high), _mm256_set1_epi8(0x30));
        _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), high)
    }
}

/// The four bytes of each row, times `factor`.
#[inline(always)]
unsafe fn spread(bytes: __m256i, factor: __m256, out: &mut [__m256; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm256_set1_epi32(255);
        out[0] = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, low));
        out[1] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32::<8>(bytes), low));
        out[2] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32::<16>(bytes), low));
        out[3] = _mm256_cvtepi32_ps(_mm256_srli_epi32::<24>(bytes));
        for out in out {
            *out = _mm256_mul_ps(*out, factor);
        }
    }
}

macro_rules! k_format {
    ($name:ident, $dots:ident) => {
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Tile<2> for $name {
            const FORMAT: BlockFormat = BlockFormat::$name;
            const MINS: bool = true;
            const RUNS: &'static [[usize; 2]] = &[[0, 1], [2, 3], [4, 5], [6, 7]];
            type Factors = Groups;

            #[inline(always)]
            unsafe fn factors(tile: *const u8) -> Groups {
                // SAFETY: the caller's promise.
                unsafe { k_factors(tile) }
            }

            #[inline(always)]
            unsafe fn scale(f: &Groups, g: usize) -> __m256 {
                f.d[g]
            }

            #[inline(always)]
            unsafe fn min(f: &Groups, g: usize) -> __m256 {
                f.m[g]
            }

            #[inline(always)]
            unsafe fn dots<const T: usize>(tile: *const u8, run: usize, x: &[Codes; T]) -> [[__m256i; T]; 2] {
                // SAFETY: the caller's promise.
                unsafe { $dots(tile, run, x) }
            }
        }
    };
}

k_format!(Q4K, k_nibbles);
k_format!(Q5K, k_five_bits);

/// Two groups of codes of four bits behind the scales.
#[inline(always)]
unsafe fn k_nibbles<const T: usize>(tile: *const u8, run: usize, x: &[Codes; T]) -> [[__m256i; T]; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let low = _mm256_set1_epi8(15);
        let mut sums = [[_mm256_setzero_si256(); T]; 2];
        for k in 0..8 {
            let (w, at) = (word(tile, 2, 3 + 8 * run + k), 64 * run + 4 * k);
            add(&mut sums[0], _mm256_and_si256(w, low), x, at);
            add(&mut sums[1], _mm256_and_si256(_mm256_srli_epi16::<4>(w), low), x, at + 32);
        }
        let mut dots = [[_mm256_setzero_si256(); T]; 2];
        widen(&mut dots[0], &sums[0], _mm256_set1_epi16(1));
        widen(&mut dots[1], &sums[1], _mm256_set1_epi16(1));
        dots
    }
}

/// Two groups of codes of five bits: eight words of fifth bits are behind the scales. Eight sums of two products are as many
/// as fit 16 bits.
#[inline(always)]
unsafe fn k_five_bits<const T: usize>(tile: *const u8, run: usize, x: &[Codes; T]) -> [[__m256i; T]; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (low, fifth) = (_mm256_set1_epi8(15), _mm256_set1_epi8(16));
        let shift = _mm_cvtsi32_si128(2 * run as i32);
        let mut dots = [[_mm256_setzero_si256(); T]; 2];
        for half in 0..2 {
            let mut sums = [[_mm256_setzero_si256(); T]; 2];
            for k in 4 * half..4 * half + 4 {
                let (w, at) = (word(tile, 2, 11 + 8 * run + k), 64 * run + 4 * k);
                let bits = _mm256_srl_epi16(word(tile, 2, 3 + k), shift);
                let high = _mm256_and_si256(_mm256_slli_epi16::<4>(bits), fifth);
                add(&mut sums[0], _mm256_or_si256(_mm256_and_si256(w, low), high), x, at);
                let w = _mm256_and_si256(_mm256_srli_epi16::<4>(w), low);
                let high = _mm256_and_si256(_mm256_slli_epi16::<3>(bits), fifth);
                add(&mut sums[1], _mm256_or_si256(w, high), x, at + 32);
            }
            widen(&mut dots[0], &sums[0], _mm256_set1_epi16(1));
            widen(&mut dots[1], &sums[1], _mm256_set1_epi16(1));
        }
        dots
    }
}

#[derive(Clone, Copy)]
pub(super) struct Q6K;

impl Tile<2> for Q6K {
    const FORMAT: BlockFormat = BlockFormat::Q6K;
    const MINS: bool = false;
    const RUNS: &'static [[usize; 2]] = &[[0, 2], [1, 3], [4, 6], [5, 7]];
    type Factors = __m256;

    #[inline(always)]
    unsafe fn factors(tile: *const u8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { half(tile, 0) }
    }

    #[inline(always)]
    unsafe fn scale(f: &__m256, _: usize) -> __m256 {
        *f
    }

    #[inline(always)]
    unsafe fn min(f: &__m256, _: usize) -> __m256 {
        *f
    }

    /// Codes of six bits, 32 too large, with a scale per sixteen. Two sums of two products are as many as fit 16 bits. The
    /// offset goes through the sums of the activations.
    #[inline(always)]
    unsafe fn dots<const T: usize>(tile: *const u8, run: usize, x: &[Codes; T]) -> [[__m256i; T]; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let (low, top) = (_mm256_set1_epi8(15), _mm256_set1_epi8(48));
            let shift = _mm_cvtsi32_si128(run as i32 % 2 * 2);
            let groups = Self::RUNS[run];
            let scales = [q6_scales(tile, groups[0]), q6_scales(tile, groups[1])];
            let mut dots = [[_mm256_setzero_si256(); T]; 2];
            for pair in 0..4 {
                let mut sums = [[_mm256_setzero_si256(); T]; 2];
                for k in 2 * pair..2 * pair + 2 {
                    let w = word(tile, 1, 8 * run + k);
                    let bits = _mm256_srl_epi16(word(tile, 1, 32 + run / 2 * 8 + k), shift);
                    let high = _mm256_and_si256(_mm256_slli_epi16::<4>(bits), top);
                    let codes = _mm256_or_si256(_mm256_and_si256(w, low), high);
                    add(&mut sums[0], codes, x, 32 * groups[0] + 4 * k);
                    let w = _mm256_and_si256(_mm256_srli_epi16::<4>(w), low);
                    let codes = _mm256_or_si256(w, _mm256_and_si256(bits, top));
                    add(&mut sums[1], codes, x, 32 * groups[1] + 4 * k);
                }
                for i in 0..2 {
                    widen(&mut dots[i], &sums[i], scales[i][pair / 2]);
                }
            }
            for (i, g) in groups.into_iter().enumerate() {
                // 32 times each scale, in the order of the sums.
                let offset =
                    _mm256_slli_epi16::<5>(_mm256_blend_epi16::<0b1010_1010>(scales[i][0], scales[i][1]));
                for t in 0..T {
                    let sums = _mm256_set1_epi32(x[t].sums.add(2 * g).cast::<i32>().read_unaligned());
                    dots[i][t] = _mm256_sub_epi32(dots[i][t], _mm256_madd_epi16(offset, sums));
                }
            }
            dots
        }
    }
}

/// The scales of both halves of group `g`, each twice per row in 16 bits.
#[inline(always)]
unsafe fn q6_scales(tile: *const u8, g: usize) -> [__m256i; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let scales = word(tile, 1, 48 + g / 2);
        let first = _mm256_set1_epi8(g as i8 % 2 * 2);
        let rows = _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x0404_0404, 0x0808_0808, 0x0C0C_0C0C));
        let first = _mm256_add_epi8(rows, first);
        let second = _mm256_add_epi8(first, _mm256_set1_epi8(1));
        [
            _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(scales, first)),
            _mm256_srai_epi16::<8>(_mm256_shuffle_epi8(scales, second)),
        ]
    }
}
