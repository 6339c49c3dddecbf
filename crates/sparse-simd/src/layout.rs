//! The block formats of ggml, and those of the precision lanes: sizes, bit layouts and scalar decoding.
//!
//! [`BlockFormat`] says how long a block is; the `Block*` structs say where its bits are. All of them are plain
//! old data of alignment 1, so any byte slice of the right length can be viewed as blocks, at any address
//! (`bytemuck::cast_slice`). What a block means is written down once, in `unpack.rs`: integer codes, integer
//! sub-scales and minima, and one or two half-precision factors. [`BlockFormat::decode`] and the scalar kernels
//! both read blocks through it.

mod blocks;
mod unpack;
mod write;

pub use blocks::{
    BlockBit3, BlockBit7, BlockIq4Nl, BlockQ2K, BlockQ3K, BlockQ4_0, BlockQ4_1, BlockQ4K, BlockQ5_0,
    BlockQ5_1, BlockQ5K, BlockQ6K, BlockQ8_0, Half, IQ4_NL_VALUES,
};
pub(crate) use unpack::{Block, Scales, stream_word};

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

/// How the numbers of one weight row are stored.
///
/// A row is a sequence of blocks of [`block_len`](Self::block_len) values in [`block_bytes`](Self::block_bytes)
/// bytes. Bit layouts are ggml's (`ggml/src/ggml-common.h`), but for [`Bit3`](Self::Bit3) and [`Bit7`](Self::Bit7),
/// which ggml does not have: with [`Q5_0`](Self::Q5_0) between them they store the precision lanes of 3, 5 and 7 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum BlockFormat {
    /// 32-bit float.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 4 bits, blocks of 32, `d * (q - 8)`.
    Q4_0,
    /// 4 bits, blocks of 32, `d * q + m`.
    Q4_1,
    /// 5 bits, blocks of 32, `d * (q - 16)`.
    Q5_0,
    /// 5 bits, blocks of 32, `d * q + m`.
    Q5_1,
    /// 8 bits, blocks of 32, `d * q`.
    Q8_0,
    /// 2 bits, blocks of 256 with 16 sub-blocks of scale and minimum.
    Q2K,
    /// 3 bits, blocks of 256 with 16 sub-block scales.
    Q3K,
    /// 4 bits, blocks of 256 with 8 sub-blocks of scale and minimum.
    Q4K,
    /// 5 bits, blocks of 256 with 8 sub-blocks of scale and minimum.
    Q5K,
    /// 6 bits, blocks of 256 with 16 sub-block scales.
    Q6K,
    /// 4 bits into a table of 16 non-linear values, blocks of 32.
    Iq4Nl,
    /// 3 bits, blocks of 32, `d * (q - 4)`.
    Bit3,
    /// 7 bits, blocks of 32, `d * (q - 64)`.
    Bit7,
}

impl BlockFormat {
    /// Every format, in a fixed order: those of ggml first.
    pub const ALL: [BlockFormat; 16] = {
        let mut all = [Self::Bit7; 16];
        all[14] = Self::Bit3;
        let mut i = 0;
        while i < Self::GGML.len() {
            all[i] = Self::GGML[i];
            i += 1;
        }
        all
    };

    /// The formats that ggml has too, which GGUF files may hold.
    pub const GGML: [BlockFormat; 14] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
    ];

    /// Values per block.
    pub const fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Iq4Nl | Self::Bit3 | Self::Bit7 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Bit3 => 14,
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Bit7 => 30,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// The format's name as tools print it; ggml's, if it has the format.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q2K => "Q2_K",
            Self::Q3K => "Q3_K",
            Self::Q4K => "Q4_K",
            Self::Q5K => "Q5_K",
            Self::Q6K => "Q6_K",
            Self::Iq4Nl => "IQ4_NL",
            Self::Bit3 => "BIT3",
            Self::Bit7 => "BIT7",
        }
    }

    /// Whether kernels multiply this format with int8 activations ([`Q8`](crate::Q8)) rather than with f32 ones.
    pub const fn is_quantized(self) -> bool {
        !matches!(self, Self::F32 | Self::F16 | Self::Bf16)
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
        match self {
            Self::F32 => decode_values(bytes, out, f32::from_le_bytes),
            Self::F16 => decode_values(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => decode_values(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Self::Q4_0 => decode_blocks::<BlockQ4_0>(bytes, out),
            Self::Q4_1 => decode_blocks::<BlockQ4_1>(bytes, out),
            Self::Q5_0 => decode_blocks::<BlockQ5_0>(bytes, out),
            Self::Q5_1 => decode_blocks::<BlockQ5_1>(bytes, out),
            Self::Q8_0 => decode_blocks::<BlockQ8_0>(bytes, out),
            Self::Q2K => decode_blocks::<BlockQ2K>(bytes, out),
            Self::Q3K => decode_blocks::<BlockQ3K>(bytes, out),
            Self::Q4K => decode_blocks::<BlockQ4K>(bytes, out),
            Self::Q5K => decode_blocks::<BlockQ5K>(bytes, out),
            Self::Q6K => decode_blocks::<BlockQ6K>(bytes, out),
            Self::Iq4Nl => decode_blocks::<BlockIq4Nl>(bytes, out),
            Self::Bit3 => decode_blocks::<BlockBit3>(bytes, out),
            Self::Bit7 => decode_blocks::<BlockBit7>(bytes, out),
        }
        Ok(())
    }
}

fn decode_values<const N: usize>(bytes: &[u8], out: &mut [f32], value: impl Fn([u8; N]) -> f32) {
    for (y, b) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *y = value(*b);
    }
}

fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    for (values, block) in out.chunks_exact_mut(B::LEN).zip(bytemuck::cast_slice::<u8, B>(bytes)) {
        block.decode(values);
    }
}

#[cfg(test)]
mod tests;
