//! The block formats of ggml, and our own: sizes, bit layouts and scalar decoding.
//!
//! [`BlockFormat`] says how long a block is; the `Block*` structs say where its bits are. All of them are plain
//! old data of alignment 1, so any byte slice of the right length can be viewed as blocks, at any address
//! (`bytemuck::cast_slice`). What a block means is written down once, beside its struct, as an implementation of
//! `Block`: integer codes, integer sub-scales and minima, and one or two factors. [`BlockFormat::decode`] and the
//! scalar kernels both read blocks through it.

mod block;
mod codebook_tables;
mod codebooks;
mod k_quants;
mod lanes;
mod nibble_tables;
mod small;
mod ternary;
mod write;

pub use block::Half;
pub(crate) use block::{Block, Scales};
#[allow(unused_imports, reason = "builds without vector levels decode whole blocks")]
pub(crate) use block::{Decode, Decoded, Groups};
pub use codebooks::{BlockIq1M, BlockIq1S, BlockIq2S, BlockIq2Xs, BlockIq2Xxs, BlockIq3S, BlockIq3Xxs};
pub use k_quants::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};
pub(crate) use lanes::stream_word;
pub use lanes::{BlockBit3, BlockBit7};
pub use nibble_tables::{
    BlockIq4Nl, BlockIq4Xs, BlockMxFp4, BlockNvFp4, BlockNvFp4Scaled, FP4_VALUES, IQ4_NL_VALUES,
};
pub use small::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0};
pub use ternary::{BlockQ1_0, BlockQ2_0, BlockTq1_0, BlockTq2_0};

use crate::columns::Recipe;
use crate::interleaved::Factors;
use bytemuck::Pod;
use half::{bf16, f16};
use thiserror::Error;

/// Lengths that do not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ShapeError {
    /// A byte length that is no whole number of blocks.
    #[error("{bytes} bytes are no whole number of {} blocks of {} bytes", .format.name(), .format.block_bytes())]
    Bytes {
        /// The format asked for.
        format: BlockFormat,
        /// The length found.
        bytes: usize,
    },
    /// A row length that is zero, no whole number of blocks, or too large to address.
    #[error("rows of {cols} values cannot be {}: expected a positive multiple of {}", .format.name(), .format.block_len())]
    Cols {
        /// The format asked for.
        format: BlockFormat,
        /// The row length found.
        cols: usize,
    },
    /// A byte length that is no whole number of rows.
    #[error("{bytes} bytes are no whole number of {} rows of {cols} values ({row_bytes} bytes)", .format.name())]
    Rows {
        /// The format asked for.
        format: BlockFormat,
        /// Values per row.
        cols: usize,
        /// Bytes per row.
        row_bytes: usize,
        /// The length found.
        bytes: usize,
    },
    /// A format whose codes cannot be sorted by columns, as one of them stands for several columns.
    #[error("{} weights cannot be stored by columns", .format.name())]
    NoColumns {
        /// The format asked for.
        format: BlockFormat,
    },
    /// A format whose blocks cannot be interleaved.
    #[error("{} rows cannot be interleaved", .format.name())]
    NoInterleaving {
        /// The format asked for.
        format: BlockFormat,
    },
    /// A column-major copy whose length is not that of its layout.
    #[error("{rows} x {cols} weights by columns of {} are {expected} bytes, found {found}", .format.name())]
    Columns {
        /// The format asked for.
        format: BlockFormat,
        /// Rows of the matrix.
        rows: usize,
        /// Columns of the matrix.
        cols: usize,
        /// Bytes of the layout.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// Rows in tiles whose numbers of dimensions are zero or no multiples of 32, or that are too large to address.
    #[error("{rows} rows of {nibbles} and {pairs} dimensions cannot be tiles: expected multiples of 32")]
    Tiles {
        /// Rows.
        rows: usize,
        /// Dimensions in four bits.
        nibbles: usize,
        /// Dimensions in two bits.
        pairs: usize,
    },
    /// Tiles whose length is not that of their layout.
    #[error("tiles are {expected} bytes, found {found}")]
    TileBytes {
        /// Bytes of the layout.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// Packed weights without rows or columns, with more columns than int8 has room for, or too large to address.
    #[error("{rows} rows of {cols} values cannot be panels: expected some of both, and not too many")]
    Panels {
        /// Rows.
        rows: usize,
        /// Values per row.
        cols: usize,
    },
    /// Packed weights whose length is not that of their layout.
    #[error("panels are {expected} lines, found {found}")]
    PanelLines {
        /// Lines of the layout.
        expected: usize,
        /// The length found.
        found: usize,
    },
    /// An output whose length is not that of the decoded input.
    #[error("{bytes} bytes of {} hold {expected} values, but there is room for {found}", .format.name())]
    Values {
        /// The format asked for.
        format: BlockFormat,
        /// Bytes of input.
        bytes: usize,
        /// Values they hold.
        expected: usize,
        /// Length of the output.
        found: usize,
    },
}

/// Makes [`BlockFormat`] and what depends on each format. An entry: variant, name, values per block, and the type of
/// a float or of a block, which has the bytes of one.
macro_rules! formats {
    (
        $(#[$doc:meta])*
        floats { $($(#[$float_doc:meta])* $float:ident: $float_name:literal, $float_type:ty;)* }
        ggml { $($(#[$ggml_doc:meta])* $ggml:ident: $ggml_name:literal, $ggml_len:literal, $ggml_block:ty;)* }
        own { $($(#[$own_doc:meta])* $own:ident: $own_name:literal, $own_len:literal, $own_block:ty;)* }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum BlockFormat {
            $($(#[$float_doc])* $float,)*
            $($(#[$ggml_doc])* $ggml,)*
            $($(#[$own_doc])* $own,)*
        }

        impl BlockFormat {
            /// Every format, in a fixed order: those of ggml first.
            pub const ALL: [BlockFormat; [$($float_name,)* $($ggml_name,)* $($own_name,)*].len()] =
                [$(Self::$float,)* $(Self::$ggml,)* $(Self::$own,)*];

            /// The formats that ggml has too, which GGUF files may hold.
            pub const GGML: [BlockFormat; [$($float_name,)* $($ggml_name,)*].len()] =
                [$(Self::$float,)* $(Self::$ggml,)*];

            /// Values per block.
            pub const fn block_len(self) -> usize {
                match self {
                    $(Self::$float => 1,)*
                    $(Self::$ggml => $ggml_len,)*
                    $(Self::$own => $own_len,)*
                }
            }

            /// Bytes per block.
            pub const fn block_bytes(self) -> usize {
                match self {
                    $(Self::$float => size_of::<$float_type>(),)*
                    $(Self::$ggml => size_of::<$ggml_block>(),)*
                    $(Self::$own => size_of::<$own_block>(),)*
                }
            }

            /// The format's name as tools print it; ggml's, if it has the format.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$float => $float_name,)*
                    $(Self::$ggml => $ggml_name,)*
                    $(Self::$own => $own_name,)*
                }
            }

            /// How weights in this format are stored by columns, if it is quantized and they can be.
            pub(crate) const fn recipe(self) -> Option<Recipe> {
                match self {
                    $(Self::$float => None,)*
                    $(Self::$ggml => <$ggml_block as Block>::COLUMNS,)*
                    $(Self::$own => <$own_block as Block>::COLUMNS,)*
                }
            }

            /// What rows by eights have of each row before everything else, if the format is quantized.
            pub(crate) const fn factors(self) -> Option<Factors> {
                match self {
                    $(Self::$float => None,)*
                    $(Self::$ggml => <$ggml_block as Block>::FACTORS,)*
                    $(Self::$own => <$own_block as Block>::FACTORS,)*
                }
            }

            /// The factors of a block of a quantized format.
            pub(crate) fn scales(self, block: &[u8]) -> Scales {
                match self {
                    $(Self::$float => Scales::ONE,)*
                    $(Self::$ggml => bytemuck::from_bytes::<$ggml_block>(block).scales(),)*
                    $(Self::$own => bytemuck::from_bytes::<$own_block>(block).scales(),)*
                }
            }

            /// A block of a quantized format as the products whose sum each value is: of its code, and of its minimum.
            #[doc(hidden)]
            pub fn products(self, block: &[u8]) -> impl Iterator<Item = [f64; 2]> {
                let mut all = [0; 256];
                let codes = &mut all[..self.block_len()];
                match self {
                    $(Self::$float => {})*
                    $(Self::$ggml => bytemuck::from_bytes::<$ggml_block>(block).codes(codes),)*
                    $(Self::$own => bytemuck::from_bytes::<$own_block>(block).codes(codes),)*
                }
                let scales = self.scales(block);
                let value = move |(i, code)| {
                    let (sub, min) = (f64::from(scales.sub[i / 16]), f64::from(scales.min[i / 16]));
                    [f64::from(scales.d) * sub * f64::from(code), f64::from(scales.m) * min]
                };
                all.into_iter().take(self.block_len()).enumerate().map(value)
            }

            /// [`Block::set_sub_scales`].
            pub(crate) fn set_sub_scales(self, sub: &[i8; 16], min: &[i8; 16], block: &mut [u8]) {
                match self {
                    $(Self::$float => {})*
                    $(Self::$ggml => bytemuck::from_bytes_mut::<$ggml_block>(block).set_sub_scales(sub, min),)*
                    $(Self::$own => bytemuck::from_bytes_mut::<$own_block>(block).set_sub_scales(sub, min),)*
                }
            }

            /// [`decode`](Self::decode) of lengths that fit together.
            fn decode_blocks(self, bytes: &[u8], out: &mut [f32]) {
                match self {
                    $(Self::$float => decode_values::<$float_type>(bytes, out),)*
                    $(Self::$ggml => decode_blocks::<$ggml_block>(bytes, out),)*
                    $(Self::$own => decode_blocks::<$own_block>(bytes, out),)*
                }
            }
        }
    };
}

formats! {
    /// How the numbers of one weight row are stored.
    ///
    /// A row is a sequence of blocks of [`block_len`](Self::block_len) values in [`block_bytes`](Self::block_bytes)
    /// bytes. Bit layouts are ggml's (`ggml/src/ggml-common.h`), but for the last three, which ggml does
    /// not have. [`Bit3`](Self::Bit3), [`Q5_0`](Self::Q5_0) and [`Bit7`](Self::Bit7) store the precision lanes of 3, 5 and
    /// 7 bits.
    floats {
        /// 32-bit float.
        F32: "F32", f32;
        /// IEEE half precision.
        F16: "F16", f16;
        /// bfloat16.
        Bf16: "BF16", bf16;
    }
    ggml {
        /// 4 bits, blocks of 32, `d * (q - 8)`.
        Q4_0: "Q4_0", 32, BlockQ4_0;
        /// 4 bits, blocks of 32, `d * q + m`.
        Q4_1: "Q4_1", 32, BlockQ4_1;
        /// 5 bits, blocks of 32, `d * (q - 16)`.
        Q5_0: "Q5_0", 32, BlockQ5_0;
        /// 5 bits, blocks of 32, `d * q + m`.
        Q5_1: "Q5_1", 32, BlockQ5_1;
        /// 8 bits, blocks of 32, `d * q`.
        Q8_0: "Q8_0", 32, BlockQ8_0;
        /// 2 bits, blocks of 256 with 16 sub-blocks of scale and minimum.
        Q2K: "Q2_K", 256, BlockQ2K;
        /// 3 bits, blocks of 256 with 16 sub-block scales.
        Q3K: "Q3_K", 256, BlockQ3K;
        /// 4 bits, blocks of 256 with 8 sub-blocks of scale and minimum.
        Q4K: "Q4_K", 256, BlockQ4K;
        /// 5 bits, blocks of 256 with 8 sub-blocks of scale and minimum.
        Q5K: "Q5_K", 256, BlockQ5K;
        /// 6 bits, blocks of 256 with 16 sub-block scales.
        Q6K: "Q6_K", 256, BlockQ6K;
        /// 4 bits into a table of 16 non-linear values, blocks of 32.
        Iq4Nl: "IQ4_NL", 32, BlockIq4Nl;
        /// 4 bits into the same table, blocks of 256 with 8 sub-block scales.
        Iq4Xs: "IQ4_XS", 256, BlockIq4Xs;
        /// Floats of 4 bits, blocks of 32 that share an exponent.
        MxFp4: "MXFP4", 32, BlockMxFp4;
        /// Floats of 4 bits, blocks of 64 with a scale of 8 bits per 16 values.
        NvFp4: "NVFP4", 64, BlockNvFp4;
        /// -1, 0 or 1 times a scale, five in a byte, blocks of 256.
        Tq1_0: "TQ1_0", 256, BlockTq1_0;
        /// 2 bits, blocks of 256, `d * (q - 1)`.
        Tq2_0: "TQ2_0", 256, BlockTq2_0;
        /// 1 bit, blocks of 128, `d` or `-d`.
        Q1_0: "Q1_0", 128, BlockQ1_0;
        /// 2 bits, blocks of 64, `d * (q - 1)`.
        Q2_0: "Q2_0", 64, BlockQ2_0;
        /// Codebook of 2048 vectors of 8, blocks of 256 with 8 sub-block scales; 1.56 bits per value.
        Iq1S: "IQ1_S", 256, BlockIq1S;
        /// Codebook of 2048 vectors of 8, blocks of 256 with 16 sub-block scales; 1.75 bits per value.
        Iq1M: "IQ1_M", 256, BlockIq1M;
        /// Codebook of 256 vectors of 8, blocks of 256 with 8 sub-block scales; 2.06 bits per value.
        Iq2Xxs: "IQ2_XXS", 256, BlockIq2Xxs;
        /// Codebook of 512 vectors of 8, blocks of 256 with 16 sub-block scales; 2.31 bits per value.
        Iq2Xs: "IQ2_XS", 256, BlockIq2Xs;
        /// Codebook of 1024 vectors of 8, blocks of 256 with 16 sub-block scales; 2.56 bits per value.
        Iq2S: "IQ2_S", 256, BlockIq2S;
        /// Codebook of 256 vectors of 4, blocks of 256 with 8 sub-block scales; 3.06 bits per value.
        Iq3Xxs: "IQ3_XXS", 256, BlockIq3Xxs;
        /// Codebook of 512 vectors of 4, blocks of 256 with 8 sub-block scales; 3.44 bits per value.
        Iq3S: "IQ3_S", 256, BlockIq3S;
    }
    own {
        /// [`NvFp4`](Self::NvFp4) with a factor per block: the scale that files have beside a matrix.
        NvFp4Scaled: "scaled NVFP4", 64, BlockNvFp4Scaled;
        /// 3 bits, blocks of 32, `d * (q - 4)`.
        Bit3: "BIT3", 32, BlockBit3;
        /// 7 bits, blocks of 32, `d * (q - 64)`.
        Bit7: "BIT7", 32, BlockBit7;
    }
}

impl BlockFormat {
    /// Whether kernels multiply this format with int8 activations ([`Q8`](crate::Q8)) rather than with f32 ones.
    pub const fn is_quantized(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::Bf16)
    }

    /// Whether weights in this format can be [stored by columns](crate::ColumnLayout).
    pub const fn has_columns(self) -> bool {
        !self.is_quantized() || self.recipe().is_some()
    }

    /// Bytes of a row of `cols` values, or `None` when `cols` is no multiple of the block length or the size
    /// overflows.
    pub const fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Decodes (dequantizes) the blocks of `bytes` into `out`.
    ///
    /// `bytes` may have any alignment. NaN and infinite scales decode to NaN and infinite values.
    ///
    /// # Errors
    /// If `bytes` is no whole number of blocks, or `out` is not exactly as long as what they hold.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> Result<(), ShapeError> {
        if !bytes.len().is_multiple_of(self.block_bytes()) {
            return Err(ShapeError::Bytes { format: self, bytes: bytes.len() });
        }
        let expected = (bytes.len() / self.block_bytes()).saturating_mul(self.block_len());
        if out.len() != expected {
            return Err(ShapeError::Values { format: self, bytes: bytes.len(), expected, found: out.len() });
        }
        self.decode_blocks(bytes, out);
        Ok(())
    }
}

/// A float as it is stored, in little-endian bytes.
pub(crate) trait Float: Copy {
    const FORMAT: BlockFormat;
    type Bytes: Pod;

    fn value(bytes: Self::Bytes) -> f32;
}

impl Float for f32 {
    const FORMAT: BlockFormat = BlockFormat::F32;
    type Bytes = [u8; 4];

    #[inline(always)]
    fn value(bytes: [u8; 4]) -> f32 {
        Self::from_le_bytes(bytes)
    }
}

impl Float for f16 {
    const FORMAT: BlockFormat = BlockFormat::F16;
    type Bytes = [u8; 2];

    #[inline(always)]
    fn value(bytes: [u8; 2]) -> f32 {
        Self::from_le_bytes(bytes).to_f32()
    }
}

impl Float for bf16 {
    const FORMAT: BlockFormat = BlockFormat::Bf16;
    type Bytes = [u8; 2];

    #[inline(always)]
    fn value(bytes: [u8; 2]) -> f32 {
        Self::from_le_bytes(bytes).to_f32()
    }
}

fn decode_values<F: Float>(bytes: &[u8], out: &mut [f32]) {
    for (y, b) in out.iter_mut().zip(bytemuck::cast_slice(bytes)) {
        *y = F::value(*b);
    }
}

/// Whole blocks; `out` may be longer.
pub(crate) fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.chunks_exact_mut(B::LEN).zip(bytemuck::cast_slice::<u8, B>(bytes)) {
        block.decode(values);
    }
}
