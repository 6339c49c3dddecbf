//! The ggml block formats: sizes, bit layouts and scalar decoding.

/// How the numbers of one weight row are stored.
///
/// A row is a sequence of blocks of [`block_len`](Self::block_len) values in [`block_bytes`](Self::block_bytes)
/// bytes. Bit layouts are ggml's (`ggml/src/ggml-common.h`).
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
}

impl BlockFormat {
    /// Every format, in a fixed order.
    pub const ALL: [BlockFormat; 14] = [
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
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 | Self::Iq4Nl => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// ggml's name of the format, as tools print it.
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
        }
    }

    /// Whether kernels multiply this format with int8 activations ([`Q8`](crate::Q8)) rather than with f32 ones.
    pub const fn is_quantised(self) -> bool {
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
}
