//! The numbers that GGUF files use for tensor types.

use std::fmt;

use sparse_simd::BlockFormat;

/// A ggml tensor type: the number that a GGUF file stores, its name and its block size.
///
/// Every type that ggml ever gave a number is known by name (`enum ggml_type` in `ggml.h`); the ones this
/// workspace decodes have a [`format`](Self::format). Number 36 is bitnet.cpp's I2_S. ggml had it for IQ4_NL_4_4,
/// which no file was published in, and removed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GgmlType(u32);

/// Name, values per block and bytes per block (both 0 where there are no blocks), by number.
type Row = (&'static str, usize, usize);

macro_rules! types {
    ($($konst:ident = $id:literal: $name:literal, $len:literal, $bytes:expr;)*) => {
        impl GgmlType {
            $(#[doc = concat!("ggml's ", $name, ".")] pub const $konst: GgmlType = GgmlType($id);)*

            /// Every type with a number of its own, in order.
            pub const ALL: &[GgmlType] = &[$(GgmlType($id)),*];

            fn row(self) -> Option<Row> {
                match self.0 {
                    $($id => Some(($name, $len, $bytes)),)*
                    _ => None,
                }
            }
        }
    };
}

types! {
    F32 = 0: "F32", 1, 4;
    F16 = 1: "F16", 1, 2;
    Q4_0 = 2: "Q4_0", 32, 18;
    Q4_1 = 3: "Q4_1", 32, 20;
    Q4_2 = 4: "Q4_2", 0, 0;
    Q4_3 = 5: "Q4_3", 0, 0;
    Q5_0 = 6: "Q5_0", 32, 22;
    Q5_1 = 7: "Q5_1", 32, 24;
    Q8_0 = 8: "Q8_0", 32, 34;
    Q8_1 = 9: "Q8_1", 32, 36;
    Q2_K = 10: "Q2_K", 256, 84;
    Q3_K = 11: "Q3_K", 256, 110;
    Q4_K = 12: "Q4_K", 256, 144;
    Q5_K = 13: "Q5_K", 256, 176;
    Q6_K = 14: "Q6_K", 256, 210;
    Q8_K = 15: "Q8_K", 256, 292;
    IQ2_XXS = 16: "IQ2_XXS", 256, 66;
    IQ2_XS = 17: "IQ2_XS", 256, 74;
    IQ3_XXS = 18: "IQ3_XXS", 256, 98;
    IQ1_S = 19: "IQ1_S", 256, 50;
    IQ4_NL = 20: "IQ4_NL", 32, 18;
    IQ3_S = 21: "IQ3_S", 256, 110;
    IQ2_S = 22: "IQ2_S", 256, 82;
    IQ4_XS = 23: "IQ4_XS", 256, 136;
    I8 = 24: "I8", 1, 1;
    I16 = 25: "I16", 1, 2;
    I32 = 26: "I32", 1, 4;
    I64 = 27: "I64", 1, 8;
    F64 = 28: "F64", 1, 8;
    IQ1_M = 29: "IQ1_M", 256, 56;
    BF16 = 30: "BF16", 1, 2;
    Q4_0_4_4 = 31: "Q4_0_4_4", 0, 0;
    Q4_0_4_8 = 32: "Q4_0_4_8", 0, 0;
    Q4_0_8_8 = 33: "Q4_0_8_8", 0, 0;
    TQ1_0 = 34: "TQ1_0", 256, 54;
    TQ2_0 = 35: "TQ2_0", 256, 66;
    I2_S = 36: "I2_S", 0, 0;
    IQ4_NL_4_8 = 37: "IQ4_NL_4_8", 0, 0;
    IQ4_NL_8_8 = 38: "IQ4_NL_8_8", 0, 0;
    MXFP4 = 39: "MXFP4", 32, 17;
    NVFP4 = 40: "NVFP4", 64, 36;
    Q1_0 = 41: "Q1_0", 128, 18;
    Q2_0 = 42: "Q2_0", 64, 18;
}

impl GgmlType {
    /// The type of a number found in a file. Every number is accepted; see [`is_known`](Self::is_known).
    pub const fn from_id(id: u32) -> Self {
        Self(id)
    }

    /// The number that files store.
    pub const fn id(self) -> u32 {
        self.0
    }

    /// Whether ggml gives this number a meaning (removed types included).
    pub fn is_known(self) -> bool {
        self.row().is_some()
    }

    /// ggml's name, or `"unknown"` for a number it does not use.
    pub fn name(self) -> &'static str {
        self.row().map_or("unknown", |(name, ..)| name)
    }

    /// Values and bytes per block, or `None` when the type is unknown, was removed from ggml, or has more than blocks
    /// (I2_S, whose scale comes last).
    pub fn block(self) -> Option<(usize, usize)> {
        self.row().map(|(_, len, bytes)| (len, bytes)).filter(|&(len, _)| len > 0)
    }

    /// The block format that decodes this type, or `None` when there is none here.
    pub fn format(self) -> Option<BlockFormat> {
        BlockFormat::GGML.into_iter().find(|format| format.name() == self.name())
    }
}

impl From<BlockFormat> for GgmlType {
    fn from(format: BlockFormat) -> Self {
        // Every format of ggml is a type (a test says so); the others get a number that no reader accepts.
        let ty = GgmlType::ALL.iter().find(|ty| ty.name() == format.name());
        ty.copied().unwrap_or(GgmlType(u32::MAX))
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row() {
            Some((name, len, _)) if len > 0 || *self == Self::I2_S => f.pad(name),
            Some((name, ..)) => write!(f, "{name} (removed from ggml)"),
            None => write!(f, "unknown type {}", self.0),
        }
    }
}
