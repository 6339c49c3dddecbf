//! The integer kernels of levels with vectors of 16 bytes, written once.
//!
//! A level is a token type that implements [`Simd`] and [`Bits128`], and a table made by [`level!`]. A level that adds
//! instructions for int8 to another takes that one's table and replaces entries, made by [`int8_products!`].
//!
//! - `quantized`: products of quantized weights, one driver for all formats; `small` and `super_blocks` tell it where
//!   a format's codes and scales are, and `groups` decodes the others in plain Rust.
//! - `columns`, `int8`, `scan`, `quantize`: what the drivers for all widths ask of a level.

pub(crate) mod columns;
pub(crate) mod groups;
pub(crate) mod int8;
pub(crate) mod quantize;
pub(crate) mod quantized;
pub(crate) mod scan;
pub(crate) mod small;
pub(crate) mod super_blocks;

use super::sums::DecodeStep;
use crate::layout::Block;
use crate::simd::Simd;
use quantized::Step;

/// Integers in vectors of 16 bytes. Methods are as those of [`Simd`]: safe, and always inlined.
///
/// The number in a name is the bits of a lane. Additions wrap.
pub(crate) trait Bits128: Simd<Floats = [f32; 4], Halves = [u16; 4]> {
    type I: Copy;

    /// Whether products of bytes are added in 32 bits at once.
    const WIDE: bool;

    fn load16(self, x: &[u8; 16]) -> Self::I;
    /// The lower half; the upper one is zero.
    fn load8(self, x: &[u8; 8]) -> Self::I;
    fn store16(self, x: Self::I, out: &mut [u8; 16]);
    fn splat8(self, x: i8) -> Self::I;
    fn splat16(self, x: i16) -> Self::I;
    fn splat32(self, x: i32) -> Self::I;

    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn shl16(self, x: Self::I, by: u32) -> Self::I;
    /// Zeros come in from above.
    fn shr16(self, x: Self::I, by: u32) -> Self::I;
    /// All bits where lanes are equal.
    fn eq8(self, a: Self::I, b: Self::I) -> Self::I;

    fn add8(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub8(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub16(self, a: Self::I, b: Self::I) -> Self::I;
    /// The lower halves of products.
    fn mul16(self, a: Self::I, b: Self::I) -> Self::I;
    fn add32(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub32(self, a: Self::I, b: Self::I) -> Self::I;
    /// The larger of signed lanes.
    fn max32(self, a: Self::I, b: Self::I) -> Self::I;

    /// Byte `index[i]` of `table`; indices are below 16.
    fn look_up(self, table: Self::I, index: Self::I) -> Self::I;
    /// Alternating lanes of 16 bits of the lower halves.
    fn zip_low16(self, a: Self::I, b: Self::I) -> Self::I;
    /// Unpacks four vectors into each other, first their bytes, then pairs: a lane of 32 bits has a byte of each.
    fn interleave4(self, x: [Self::I; 4]) -> [Self::I; 4];
    /// The lower half's bytes in 16 bits.
    fn widen_u8(self, x: Self::I) -> Self::I;
    /// The lower half's signed bytes in 16 bits.
    fn widen_i8(self, x: Self::I) -> Self::I;
    /// The lower bytes of lanes of 16 bits, signed, in 16 bits.
    fn even_i8(self, x: Self::I) -> Self::I;
    /// The upper bytes of lanes of 16 bits, signed, in 16 bits.
    fn odd_i8(self, x: Self::I) -> Self::I;
    /// Lanes of 16 bits below 256 as bytes, those of `a` first.
    fn narrow_u16(self, a: Self::I, b: Self::I) -> Self::I;

    /// Adds products of adjacent bytes to `words`: four to each lane of 32 bits at a [`WIDE`](Self::WIDE) level, two to
    /// each of 16 bits at others. `codes` are below 128 unless they are `SIGNED`; `x` is not -128, and sums fit.
    fn add_products<const SIGNED: bool>(self, words: Self::I, codes: Self::I, x: Self::I) -> Self::I;
    /// Adds the `words` of [`add_products`](Self::add_products) to `sums` in 32 bits.
    fn add_words(self, sums: Self::I, words: Self::I) -> Self::I;
    /// The products of 32 codes of `S` with activations, times sub-scales `2 * g` and `2 * g + 1` of `sub` if there are
    /// any: four lanes of 32 bits, whose sum is the result.
    fn group<S: Step>(self, codes: [Self::I; 2], x: [Self::I; 2], sub: Self::I, g: usize) -> Self::I;
    /// In 32 bits, sums of two products of adjacent lanes of 16 bits.
    fn madd(self, a: Self::I, b: Self::I) -> Self::I;
    /// Lane `i` is the sum of the four lanes of 32 bits of `x[i]`.
    fn lane_sums(self, x: [Self::I; 4]) -> Self::I;
    /// The upper four bits of bytes.
    fn upper_nibbles(self, x: Self::I) -> Self::I;

    /// Lanes of 32 bits as floats.
    fn to_floats(self, x: Self::I) -> Self::F;
    fn bits(self, x: Self::F) -> Self::I;
    /// To the nearest integers, ties to even, as signed bytes. Values are at most 127 in magnitude.
    fn to_bytes(self, x: [Self::F; 4]) -> Self::I;

    /// 32 bytes.
    #[inline(always)]
    fn load32(self, x: &[u8; 32]) -> [Self::I; 2] {
        let halves = x.as_chunks().0;
        [self.load16(&halves[0]), self.load16(&halves[1])]
    }

    /// Lanes of 32 bits.
    #[inline(always)]
    fn lanes32(self, x: Self::I) -> [i32; 4] {
        let mut bytes = [0; 16];
        self.store16(x, &mut bytes);
        bytemuck::cast(bytes)
    }
}

impl<V: Bits128> DecodeStep for V {
    #[inline(always)]
    fn codes<B: Block>(self, block: &B, out: &mut [i8; 32]) {
        match B::LANE {
            Some(bits) => {
                let codes = small::lane(self, bits, bytemuck::bytes_of(block));
                for (out, codes) in out.as_chunks_mut::<16>().0.iter_mut().zip(codes) {
                    self.store16(codes, bytemuck::cast_mut(out));
                }
            }
            None => block.codes(out),
        }
    }
}

/// The products of a level with int8 activations: `int8_products! { token, features }`, which makes the functions
/// `products` and `decoded_products`. The module has the names of [`level!`].
macro_rules! int8_products {
    ($token:ty, $features:literal) => {
        /// Products of columns.
        mod columns {
            use super::*;
            crate::generic::columns::pairs::column_functions!($token, $features);
        }

        /// Those of a format, of which some blocks are a step.
        const fn products<S: Step, B: Block>() -> Int8Products {
            Int8Products {
                matmul: matmul_q8::<S>,
                rows: rows_q8::<S>,
                matmul_each: None,
                columns: columns_of::<B>(),
                matmul_interleaved: crate::scalar::interleaved::matmul(B::FORMAT),
            }
        }

        /// Those of a format that is decoded in plain Rust.
        const fn decoded_products<B: Groups>() -> Int8Products {
            /// # Safety
            /// As for [`FormatKernels`].
            unsafe fn matmul<B: Groups>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
                // SAFETY: the caller promises weights in blocks of `B`, and shapes that fit.
                unsafe { matmul_decoded(w, x, out, Decode::of::<B>()) }
            }

            /// # Safety
            /// As for [`FormatKernels`].
            unsafe fn rows<B: Groups>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
                for (&r, out) in active.iter().zip(out) {
                    let (row, mut out) =
                        (r as usize..r as usize + 1, MatMut::new(core::slice::from_mut(out), 1));
                    // SAFETY: the caller promises weights in blocks of `B`, and shapes that fit.
                    unsafe { matmul_decoded(w.slice(row), x, &mut out, Decode::of::<B>()) };
                }
            }

            Int8Products {
                matmul: matmul::<B>,
                rows: rows::<B>,
                matmul_each: None,
                columns: columns_of::<B>(),
                matmul_interleaved: None,
            }
        }

        const fn columns_of<B: Block>() -> Option<ColumnProducts> {
            match B::COLUMNS {
                Some(_) => Some(ColumnProducts { axpy: columns::axpy::<B>, matmul: columns::matmul::<B> }),
                None => None,
            }
        }

        #[target_feature(enable = $features)]
        fn matmul_decoded(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>, decode: Decode) {
            groups_of_codes::matmul(<$token>::new(), w, x, out, decode);
        }

        #[target_feature(enable = $features)]
        fn matmul_q8<S: Step>(w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
            quantized::matmul::<_, S>(<$token>::new(), w, x, out);
        }

        #[target_feature(enable = $features)]
        fn rows_q8<S: Step>(w: Rows<'_>, active: &[u32], x: Q8<'_>, out: &mut [f32]) {
            quantized::rows::<_, S>(<$token>::new(), w, active, x, out);
        }
    };
}

/// The entries of a table, made by three functions: of a format of floats, of one that has steps, and of one that is
/// decoded in plain Rust.
macro_rules! formats {
    ($floats:ident, $steps:ident, $decoded:ident) => {
        by_format([
            $floats::<f32>(),
            $floats::<f16>(),
            $floats::<bf16>(),
            $steps::<[BlockQ4_0; 4], BlockQ4_0>(),
            $steps::<[BlockQ4_1; 4], BlockQ4_1>(),
            $steps::<[BlockQ5_0; 4], BlockQ5_0>(),
            $steps::<[BlockQ5_1; 4], BlockQ5_1>(),
            $steps::<[BlockQ8_0; 4], BlockQ8_0>(),
            $steps::<BlockQ2K, BlockQ2K>(),
            $steps::<BlockQ3K, BlockQ3K>(),
            $steps::<BlockQ4K, BlockQ4K>(),
            $steps::<BlockQ5K, BlockQ5K>(),
            $steps::<BlockQ6K, BlockQ6K>(),
            $steps::<[BlockIq4Nl; 4], BlockIq4Nl>(),
            $steps::<BlockIq4Xs, BlockIq4Xs>(),
            $steps::<[BlockMxFp4; 4], BlockMxFp4>(),
            $decoded::<BlockNvFp4>(),
            $decoded::<BlockTq1_0>(),
            $steps::<BlockTq2_0, BlockTq2_0>(),
            $decoded::<BlockQ1_0>(),
            $decoded::<BlockQ2_0>(),
            $decoded::<BlockIq1S>(),
            $decoded::<BlockIq1M>(),
            $decoded::<BlockIq2Xxs>(),
            $decoded::<BlockIq2Xs>(),
            $decoded::<BlockIq2S>(),
            $decoded::<BlockIq3Xxs>(),
            $decoded::<BlockIq3S>(),
            $decoded::<BlockNvFp4Scaled>(),
            $steps::<[BlockBit3; 4], BlockBit3>(),
            $steps::<[BlockBit7; 4], BlockBit7>(),
        ])
    };
}

/// The table of a level: `level! { token, features, level }`, in a module of its own.
macro_rules! level {
    ($token:ty, $features:literal, $level:expr) => {
        use crate::generic::bits128::{
            formats, groups as groups_of_codes, int8_products, quantize,
            quantized::{self, Step},
        };
        use crate::layout::*;
        use crate::table::{ColumnProducts, Table, by_format};
        use crate::{Kernels, Level, Q8Mut, scalar};
        use half::bf16;

        crate::generic::float_functions!($token, $features);
        crate::generic::product_functions!($token, $features);
        int8_products!($token, $features);

        pub(crate) static KERNELS: Kernels = Kernels(TABLE);

        const TABLE: Table = Table {
            level: $level,
            formats: formats!(stored, steps, decoded),
            prefers_interleaved: |_| false,
            quantize: quantize_q8,
            quantize_rows,
            panels_f32,
            panels_int8,
            scan,
            dot_f32,
            axpy_f32,
            to_f16,
            rms_norm,
            hadamard,
            hadamard_runs,
            round_pairs,
            layer_norm,
            softmax,
            activate,
            activate_mul,
            add,
            // Adjacent pairs are a plain loop, which compilers vectorize.
            rope: scalar::TABLE.rope,
            rope_halves,
        };

        const fn stored<W: Stored>() -> FormatKernels {
            floats::<W>(float_products::<W>())
        }

        const fn steps<S: Step, B: Block>() -> FormatKernels {
            blocks::<B>(products::<S, B>())
        }

        const fn decoded<B: Groups>() -> FormatKernels {
            groups::<B>(decoded_products::<B>())
        }

        #[target_feature(enable = $features)]
        fn quantize_q8(x: &[f32], out: &mut Q8Mut<'_>) {
            quantize::quantize(<$token>::new(), x, out);
        }
    };
}
pub(crate) use {formats, int8_products, level};
