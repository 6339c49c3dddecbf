//! The blocks as structs: where ggml puts the bits (`ggml/src/ggml-common.h`).

use bytemuck::{Pod, Zeroable};
use half::f16;

/// A half-precision float as two little-endian bytes, so that blocks need no alignment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(transparent)]
pub struct Half([u8; 2]);

impl Half {
    /// The nearest half-precision number, ties to even.
    pub fn from_f32(x: f32) -> Self {
        Self(f16::from_f32(x).to_le_bytes())
    }

    /// The number, exactly.
    pub fn to_f32(self) -> f32 {
        f16::from_le_bytes(self.0).to_f32()
    }

    /// The 16 bits of the number.
    pub const fn to_bits(self) -> u16 {
        u16::from_le_bytes(self.0)
    }
}

/// The 16 values of [`BlockIq4Nl`] codes: denser near zero, as weights are.
pub const IQ4_NL_VALUES: [i8; 16] =
    [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident: $bytes:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        const _: () = assert!(size_of::<$name>() == $bytes && align_of::<$name>() == 1);
    )*};
}

blocks! {
    /// 32 values `d * (q - 8)`, `q` of 4 bits.
    BlockQ4_0: 18 {
        /// Scale.
        d: Half,
        /// Byte `i`: code `i` in the low nibble, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * q + m`, `q` of 4 bits.
    BlockQ4_1: 20 {
        /// Scale.
        d: Half,
        /// Minimum.
        m: Half,
        /// Byte `i`: code `i` in the low nibble, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * (q - 16)`, `q` of 5 bits.
    BlockQ5_0: 22 {
        /// Scale.
        d: Half,
        /// Bit 4 of the codes: bit `i` of this little-endian u32 belongs to code `i`.
        qh: [u8; 4],
        /// Bits 0..4: code `i` in the low nibble of byte `i`, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * q + m`, `q` of 5 bits.
    BlockQ5_1: 24 {
        /// Scale.
        d: Half,
        /// Minimum.
        m: Half,
        /// Bit 4 of the codes: bit `i` of this little-endian u32 belongs to code `i`.
        qh: [u8; 4],
        /// Bits 0..4: code `i` in the low nibble of byte `i`, code `i + 16` in the high one.
        qs: [u8; 16],
    }
    /// 32 values `d * q`, `q` of 8 bits.
    BlockQ8_0: 34 {
        /// Scale.
        d: Half,
        /// Codes.
        qs: [i8; 32],
    }
    /// 32 values `d * (q - 4)`, `q` of 3 bits: a precision lane, not a format of ggml.
    BlockBit3: 14 {
        /// Scale.
        d: Half,
        /// Code `i` is bits `3 i..3 i + 3` of this little-endian number.
        qs: [u8; 12],
    }
    /// 32 values `d * (q - 64)`, `q` of 7 bits: a precision lane, not a format of ggml.
    BlockBit7: 30 {
        /// Scale.
        d: Half,
        /// Code `i` is bits `7 i..7 i + 7` of this little-endian number.
        qs: [u8; 28],
    }
    /// 256 values `d * scale * q - dmin * min`, `q` of 2 bits, scale and minimum of 4 bits per 16 values.
    BlockQ2K: 84 {
        /// Byte `s`: scale of sub-block `s` in the low nibble, its minimum in the high one.
        scales: [u8; 16],
        /// For each half of 128 values 32 bytes: bits `2j..2j+2` of byte `i` are code `32 j + i`.
        qs: [u8; 64],
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
    }
    /// 256 values `d * (scale - 32) * (q - 4)`, `q` of 3 bits, scale of 6 bits per 16 values.
    BlockQ3K: 110 {
        /// Bit 2 of the codes: bit `g` of byte `i` belongs to code `32 g + i`.
        hmask: [u8; 32],
        /// Bits 0..2: for each half of 128 values 32 bytes, bits `2j..2j+2` of byte `i` are code `32 j + i`.
        qs: [u8; 64],
        /// Sixteen 6-bit scales: low nibbles of bytes 0..8, then high ones, are their bits 0..4; bits 4..6 of
        /// scale `s` are bits `2(s/4)..` of byte `8 + s % 4`.
        scales: [u8; 12],
        /// Scale of the scales.
        d: Half,
    }
    /// 256 values `d * scale * q - dmin * min`, `q` of 4 bits, scale and minimum of 6 bits per 32 values.
    BlockQ4K: 144 {
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
        /// Eight scales and eight minima of 6 bits. The first four of each are the low 6 bits of bytes 0..4 and
        /// 4..8; of the last four, byte `8 + i` has the low nibbles (scale, then minimum), and the top two bits
        /// of bytes `i` and `4 + i` the rest.
        scales: [u8; 12],
        /// For each 64 values 32 bytes: code `i` in the low nibble of byte `i`, code `i + 32` in the high one.
        qs: [u8; 128],
    }
    /// 256 values `d * scale * q - dmin * min`, `q` of 5 bits, scale and minimum of 6 bits per 32 values.
    BlockQ5K: 176 {
        /// Scale of the scales.
        d: Half,
        /// Scale of the minima.
        dmin: Half,
        /// Scales and minima, packed as in [`BlockQ4K`].
        scales: [u8; 12],
        /// Bit 4 of the codes: bit `g` of byte `i` belongs to code `32 g + i`.
        qh: [u8; 32],
        /// Bits 0..4, as in [`BlockQ4K`].
        qs: [u8; 128],
    }
    /// 256 values `d * scale * (q - 32)`, `q` of 6 bits, scale of 8 bits per 16 values.
    BlockQ6K: 210 {
        /// Bits 0..4, for each half of 128 values 64 bytes: code `i` in the low nibble of byte `i`, code
        /// `i + 64` in the high one.
        ql: [u8; 128],
        /// Bits 4..6, for each half of 128 values 32 bytes: bits `2j..2j+2` of byte `i` belong to code
        /// `32 j + i`.
        qh: [u8; 64],
        /// Scales of the sub-blocks of 16.
        scales: [i8; 16],
        /// Scale of the scales.
        d: Half,
    }
    /// 32 values `d * IQ4_NL_VALUES[q]`, `q` of 4 bits.
    BlockIq4Nl: 18 {
        /// Scale.
        d: Half,
        /// Byte `i`: code `i` in the low nibble, code `i + 16` in the high one.
        qs: [u8; 16],
    }
}
