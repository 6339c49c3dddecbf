//! Products with weights stored by columns, for levels that interleave the bytes of four columns: products are added in
//! 16 bits by pairs and then in 32, or in 32 bits at once.

use super::{CHUNK, ColumnKernel, Fours, Group};
use crate::BlockFormat;
use crate::columns::{Code, Recipe, SubScales};
use crate::simd::Simd;

/// The integer vectors of such a level, with as many bytes as its vectors of floats. A chunk of codes is 64 bytes, and
/// part `P` of it the vector of that number.
pub(crate) trait Bytes: Simd {
    /// Integers of 8, 16 or 32 bits.
    type I: Copy;

    /// Whether products are added in 32 bits at once.
    const WIDE: bool = false;

    /// The same 32 bits everywhere.
    fn dwords(self, x: i32) -> Self::I;
    fn either(self, a: Self::I, b: Self::I) -> Self::I;
    /// Codes of up to four bits, times 16.
    fn times_16(self, codes: Self::I) -> Self::I;
    /// The values that codes of four bits stand for.
    fn values(self, values: &[i8; 16], codes: Self::I) -> Self::I;
    /// Unpacks four columns into each other, first their bytes, then pairs: a lane has four codes of a row.
    fn interleave(self, columns: [Self::I; 4]) -> [Self::I; 4];
    /// `words` plus products of codes and activations: pairs of them in 16 bits, or all four of a lane in 32. Codes are
    /// unsigned unless `SIGNED`.
    fn add_products<const SIGNED: bool>(self, words: Self::I, codes: Self::I, h: Self::I) -> Self::I;
    /// `sums`, in 32 bits, plus `words`.
    fn add_words(self, sums: Self::I, words: Self::I) -> Self::I;
    fn floats(self, x: Self::I) -> Self::F;

    /// Codes of eight bits.
    ///
    /// # Safety
    /// - A chunk of them can be read at `at`.
    unsafe fn eight_bits<const P: usize>(self, at: *const u8) -> Self::I;
    /// Codes of four bits.
    ///
    /// # Safety
    /// - A chunk of them can be read at `at`.
    unsafe fn four_bits<const P: usize>(self, at: *const u8) -> Self::I;
    /// Codes of two bits.
    ///
    /// # Safety
    /// - A chunk of them can be read at `at`.
    unsafe fn two_bits<const P: usize>(self, at: *const u8) -> Self::I;
    /// Codes of one bit, as the one of `bit`.
    ///
    /// # Safety
    /// - A chunk of them can be read at `at`.
    unsafe fn one_bit<const P: usize>(self, at: *const u8, bit: i8) -> Self::I;
}

/// Whether codes become signed bytes; others are multiplied without their offset.
const fn signed(code: Code) -> bool {
    !matches!(code, Code::Offset(_))
}

/// [`ColumnKernel::OFFSET`] at these levels.
pub(crate) const fn offset(format: BlockFormat) -> i32 {
    match format.recipe() {
        Some(Recipe { code: Code::Offset(offset), .. }) => -offset,
        _ => 0,
    }
}

/// The most fours of columns that a group has.
const MOST: usize = 8;

/// How many fours of products fit 16 bits, of those that a group has at most.
const fn fit(recipe: &Recipe) -> usize {
    let largest = if signed(recipe.code) { 128 } else { (1 << bits(recipe)) - 1 };
    let fit = i16::MAX as usize / (2 * 127 * largest);
    if fit < MOST { fit } else { MOST }
}

/// [`ColumnKernel::chunk`] at these levels.
///
/// # Safety
/// - The format is that of `K`, and the columns and the group have the chunk.
#[inline(always)]
pub(crate) unsafe fn chunk<S: Bytes, K: ColumnKernel>(
    s: S,
    columns: &Fours,
    offset: usize,
    group: &Group,
    row: usize,
    out: &mut [f32; CHUNK],
) {
    // SAFETY: the caller promises the format of `K`, and that the columns and the group have the
    // chunk.
    unsafe {
        part::<S, K, 0>(s, columns, offset, group, row, out);
        part::<S, K, 1>(s, columns, offset, group, row, out);
        if S::LANES == 4 {
            part::<S, K, 2>(s, columns, offset, group, row, out);
            part::<S, K, 3>(s, columns, offset, group, row, out);
        }
    }
}

/// Part `P` of [`chunk`].
///
/// # Safety
/// As for [`chunk`].
#[inline(always)]
unsafe fn part<S: Bytes, K: ColumnKernel, const P: usize>(
    s: S,
    columns: &Fours,
    offset: usize,
    group: &Group,
    row: usize,
    out: &mut [f32; CHUNK],
) {
    // SAFETY: the caller promises the format of `K`, and that the columns and the group have the
    // chunk.
    let sums = unsafe { products::<S, K, P>(s, columns, offset, group.begin) };
    let (dh, total) = (s.splat(group.dh), s.splat(group.total));
    let out: &mut [S::Floats] = bytemuck::cast_slice_mut(out);
    for (v, codes) in sums.into_iter().enumerate() {
        // Where `place` puts them.
        let i = 16 / S::LANES * v + P;
        // SAFETY: the caller promises the format of `K`, and that the columns and the group have
        // the chunk.
        let (scales, mins) = unsafe { factors::<S, K>(s, group, row + S::LANES * i) };
        let mut sum = s.fma(s.floats(codes), s.mul(scales, dh), s.load(&out[i]));
        if K::MINS != 0 {
            sum = s.fma(mins, total, sum);
        }
        s.store(sum, &mut out[i]);
    }
}

/// `begin` plus the integer sums of part `P` of a chunk of all columns.
///
/// # Safety
/// - The format is that of `K`, and the columns have the chunk.
#[inline(always)]
unsafe fn products<S: Bytes, K: ColumnKernel, const P: usize>(
    s: S,
    columns: &Fours,
    offset: usize,
    begin: i32,
) -> [S::I; 4] {
    let fits = const { if S::WIDE { MOST } else { fit(&K::RECIPE) } };
    let zero = s.dwords(0);
    let (mut sums, mut words) = ([s.dwords(begin); 4], [zero; 4]);
    let mut added = 0;
    for (columns, h) in columns.iter() {
        let mut four = [zero; 4];
        for (codes, column) in four.iter_mut().zip(columns) {
            // SAFETY: the caller promises the format of `K`, and that the columns have the chunk.
            *codes = unsafe { codes_of::<S, K, P>(s, column.wrapping_add(offset)) };
        }
        let (codes, h) = (s.interleave(four), s.dwords(h));
        added += 1;
        for k in 0..4 {
            words[k] = match const { signed(K::RECIPE.code) } {
                true => s.add_products::<true>(words[k], codes[k], h),
                false => s.add_products::<false>(words[k], codes[k], h),
            };
            if added == fits {
                sums[k] = s.add_words(sums[k], words[k]);
                words[k] = zero;
            }
        }
        added %= fits;
    }
    for (sum, words) in sums.iter_mut().zip(words) {
        *sum = s.add_words(*sum, words);
    }
    sums
}

/// Bits of a code.
const fn bits(recipe: &Recipe) -> usize {
    recipe.chunk_bytes() / 8
}

/// Part `P` of the codes of a chunk of a column.
///
/// # Safety
/// - The format is that of `K`, and the chunk can be read at `at`.
#[inline(always)]
unsafe fn codes_of<S: Bytes, K: ColumnKernel, const P: usize>(s: S, at: *const u8) -> S::I {
    let bits = const { bits(&K::RECIPE) };
    // SAFETY: the caller promises that a chunk of `K`'s format can be read: the chunk has planes of
    // eight, or four, two and one bits, one after the other.
    unsafe {
        let codes = match bits {
            8 => s.eight_bits::<P>(at),
            6 | 7 => s.either(s.four_bits::<P>(at), s.times_16(s.two_bits::<P>(at.add(32)))),
            4 | 5 => s.four_bits::<P>(at),
            _ => s.two_bits::<P>(at),
        };
        match K::RECIPE.code {
            Code::Table(values) => s.values(values, codes),
            _ if bits % 2 == 1 => s.either(codes, s.one_bit::<P>(at.add(8 * (bits - 1)), 1 << (bits - 1))),
            _ => codes,
        }
    }
}

/// The scales and minima of a vector of rows, from `row` on.
///
/// # Safety
/// - The group's format is that of `K`, and it has the rows.
#[inline(always)]
unsafe fn factors<S: Bytes, K: ColumnKernel>(s: S, group: &Group, row: usize) -> (S::F, S::F) {
    // SAFETY: the caller promises that the group has the rows, in the format of `K`.
    unsafe {
        let d = halves(s, group.d, row);
        let m = if K::MINS == 0 { s.splat(0.0) } else { halves(s, group.m, row) };
        match K::RECIPE.subs {
            SubScales::None => (d, m),
            SubScales::Scale => (s.mul(d, integers(s, word::<S>(group.scale, row))), m),
            SubScales::Both => {
                let (scale, min) = (word::<S>(group.scale, row), word::<S>(group.min, row));
                (s.mul(d, integers(s, scale)), s.mul(m, integers(s, min)))
            }
            SubScales::Nibbles => {
                let (both, mask) = (word::<S>(group.scale, row), 0x0F0F_0F0F_0F0F_0F0F);
                (s.mul(d, integers(s, both & mask)), s.mul(m, integers(s, both >> 4 & mask)))
            }
        }
    }
}

/// A vector of half-precision numbers, from number `i` on.
///
/// # Safety
/// - It can be read there.
#[inline(always)]
unsafe fn halves<S: Simd>(s: S, at: *const u8, i: usize) -> S::F {
    // SAFETY: the caller promises that the halves can be read; any bytes are halves.
    s.f16s(&unsafe { at.wrapping_add(2 * i).cast::<S::Halves>().read_unaligned() })
}

/// As many bytes as a vector has lanes, from number `i` on.
///
/// # Safety
/// - They can be read there.
#[inline(always)]
unsafe fn word<S: Simd>(at: *const u8, i: usize) -> u64 {
    let at = at.wrapping_add(i);
    // SAFETY: the caller promises that the bytes of a word can be read.
    unsafe {
        match S::LANES {
            4 => u64::from(at.cast::<u32>().read_unaligned()),
            _ => at.cast::<u64>().read_unaligned(),
        }
    }
}

/// The signed bytes of `word`.
#[inline(always)]
fn integers<S: Simd>(s: S, word: u64) -> S::F {
    s.bytes(&bytemuck::cast::<u64, [i8; 8]>(word)[..S::LANES])
}

/// The kernels of a level: `column_functions!(token, features)`, in a module of its own.
macro_rules! column_functions {
    ($token:ty, $features:literal) => {
        use crate::columns::Either;
        use crate::generic::columns::{CHUNK, ColumnKernel, Fours, Group, sum};
        use crate::layout::Block;
        use crate::{BlockFormat, Columns, MatMut, Q8};
        use core::marker::PhantomData;
        use core::ops::Range;

        /// The kernel of a format.
        struct Kernel<B>(PhantomData<B>);

        impl<B: Block> ColumnKernel for Kernel<B> {
            const FORMAT: BlockFormat = B::FORMAT;
            const OFFSET: i32 = crate::generic::columns::pairs::offset(B::FORMAT);

            #[inline]
            #[target_feature(enable = $features)]
            unsafe fn chunk(
                columns: &Fours,
                offset: usize,
                group: &Group,
                row: usize,
                out: &mut [f32; CHUNK],
            ) {
                // SAFETY: the caller promises the format of `K`, and that the columns and the group
                // have the chunk.
                unsafe {
                    crate::generic::columns::pairs::chunk::<_, Self>(
                        <$token>::new(),
                        columns,
                        offset,
                        group,
                        row,
                        out,
                    )
                }
            }
        }

        /// The products of one token, compiled once for both.
        ///
        /// # Safety
        /// As for [`Table`](crate::table::Table).
        #[inline(never)]
        #[target_feature(enable = $features)]
        unsafe fn one<B: Block>(
            w: Columns<'_>,
            active: Either<'_>,
            h: Q8<'_>,
            rows: Range<usize>,
            out: &mut [f32],
        ) {
            // SAFETY: the caller promises the level's instructions, weights in blocks of `B`, and
            // shapes that fit.
            unsafe { sum::<Kernel<B>>(w, active, h, rows, out) }
        }

        /// # Safety
        /// As for [`Table`](crate::table::Table).
        #[target_feature(enable = $features)]
        pub(super) unsafe fn axpy<B: Block>(
            w: Columns<'_>,
            active: &[u32],
            h: Q8<'_>,
            rows: Range<usize>,
            out: &mut [f32],
        ) {
            // SAFETY: the caller promises the level's instructions, weights in blocks of `B`, and
            // shapes that fit.
            unsafe { one::<B>(w, Either::Some(active), h, rows, out) }
        }

        /// # Safety
        /// As for [`Table`](crate::table::Table).
        #[target_feature(enable = $features)]
        pub(super) unsafe fn matmul<B: Block>(
            w: Columns<'_>,
            x: Q8<'_>,
            rows: Range<usize>,
            out: &mut MatMut<'_>,
        ) {
            // A chunk of rows stays in a cache while it is multiplied with all tokens. One token reads columns as
            // they lie.
            let part = if x.tokens() == 1 { rows.len().max(1) } else { CHUNK };
            for from in rows.clone().step_by(part) {
                let range = from..rows.end.min(from + part);
                for t in 0..x.tokens() {
                    let out = &mut out.row(t)[range.start - rows.start..range.end - rows.start];
                    // SAFETY: the caller promises the level's instructions, weights in blocks of
                    // `B`, and shapes that fit.
                    unsafe { one::<B>(w, Either::All(w.cols()), x.row(t), range.clone(), out) };
                }
            }
        }
    };
}
pub(crate) use column_functions;
