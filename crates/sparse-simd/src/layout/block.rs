//! What a block means, for every quantized format in the same terms.

use crate::BlockFormat;
use crate::columns::Recipe;
use crate::interleaved::Factors;
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

/// The factors of a block: value `i` is `d * sub[i / 16] * code[i] + m * min[i / 16]`.
///
/// Formats without sub-blocks have `sub` and `min` of one.
pub(crate) struct Scales {
    pub(crate) d: f32,
    /// The factor of the minima, negative for the K formats, which subtract them.
    pub(crate) m: f32,
    /// Integers of eight bits, unless [`Block::FLOAT_SUB_SCALES`].
    pub(crate) sub: [f32; 16],
    pub(crate) min: [i8; 16],
}

impl Scales {
    /// Factors of codes that are values.
    pub(super) const ONE: Self = Self { d: 1.0, m: 0.0, sub: [1.0; 16], min: [0; 16] };

    pub(super) fn plain(d: Half) -> Self {
        Self { d: d.to_f32(), m: 0.0, sub: [1.0; 16], min: [0; 16] }
    }

    pub(super) fn with_min(d: Half, m: Half) -> Self {
        Self { d: d.to_f32(), m: m.to_f32(), sub: [1.0; 16], min: [1; 16] }
    }
}

/// A block of a quantized format.
pub(crate) trait Block: Pod {
    const FORMAT: BlockFormat;
    /// Values per block.
    const LEN: usize = Self::FORMAT.block_len();
    /// How weights in this format are stored by columns, if they can be.
    const COLUMNS: Option<Recipe> = None;
    /// What rows by eights have of each row before everything else: half-precision factors, if there is nothing else.
    const FACTORS: Option<Factors> = Factors::halves(Self::COLUMNS.as_ref());
    /// Whether the format has minima; without, `m` and `min` are zero.
    const HAS_MIN: bool;
    /// Whether sub-scales are floats, which no integer arithmetic can take in.
    const FLOAT_SUB_SCALES: bool = false;
    /// Where codes are nibbles in the last 16 bytes and nothing else: the code that each nibble stands for.
    #[allow(dead_code, reason = "only vector kernels look codes up")]
    const NIBBLES: Option<[i8; 16]> = None;
    /// Whether this is the block of a precision lane, and its bits.
    #[allow(dead_code, reason = "only vector kernels ask")]
    const LANE: Option<u32> = None;

    fn scales(&self) -> Scales;

    /// Writes the codes, offsets such as the -8 of Q4_0 included.
    fn codes(&self, out: &mut [i8]);

    /// Writes sub-scales and minima, of which bits are zero before: the inverse of [`scales`](Self::scales). Those of
    /// groups of 32 values come once per group.
    fn set_sub_scales(&mut self, _sub: &[i8; 16], _min: &[i8; 16]) {}

    /// Writes the values, in the order of operations that gguf-py uses.
    fn decode(&self, out: &mut [f32]) {
        let s = self.scales();
        let mut codes = [0; 256];
        self.codes(&mut codes[..Self::LEN]);
        for (i, (y, q)) in out.iter_mut().zip(codes).enumerate() {
            let scaled = s.d * s.sub[i / 16] * f32::from(q);
            *y = if Self::HAS_MIN { scaled + s.m * f32::from(s.min[i / 16]) } else { scaled };
        }
    }
}

/// A block whose codes are decoded in plain Rust by all levels, 32 at a time. It has no minima.
pub(crate) trait Groups: Block {
    /// The codes of group `g`.
    fn group(&self, g: usize) -> [i8; 32];
}

/// [`Block::codes`] of such a block.
pub(super) fn codes_of_groups<B: Groups>(block: &B, out: &mut [i8]) {
    for (g, out) in out.as_chunks_mut().0.iter_mut().enumerate() {
        *out = block.group(g);
    }
}

/// 256 columns of a row, or its last ones: value `i` is `d[i / 32] * sub[i / 16] * codes[i]`. Vector kernels multiply
/// these by one driver for all formats, so that a format costs no more code than it takes to decode it.
#[allow(dead_code, reason = "only vector kernels ask")]
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Decoded {
    pub(crate) codes: [[i8; 32]; 8],
    pub(crate) d: [f32; 8],
    pub(crate) sub: [i8; 16],
}

/// How blocks of a format are decoded.
#[allow(dead_code, reason = "only vector kernels ask")]
#[derive(Clone, Copy)]
pub(crate) struct Decode {
    /// Blocks are the sum of what so many passes give: two where sub-scales are floats, one for each half of a group.
    pub(crate) passes: usize,
    /// Decodes some blocks, which become the last groups, in this pass.
    pub(crate) read: fn(blocks: &[u8], pass: usize, out: &mut Decoded),
}

#[allow(dead_code, reason = "only vector kernels ask")]
impl Decode {
    pub(crate) const fn of<B: Groups>() -> Self {
        Self { passes: if B::FLOAT_SUB_SCALES { 2 } else { 1 }, read: Decoded::read::<B> }
    }
}

#[allow(dead_code, reason = "only vector kernels ask")]
impl Decoded {
    fn read<B: Groups>(blocks: &[u8], pass: usize, out: &mut Self) {
        let blocks: &[B] = bytemuck::cast_slice(blocks);
        let mut g = 8 - blocks.len() * (B::LEN / 32);
        // What is not there must not be NaN.
        out.d[..g].fill(0.0);
        for block in blocks {
            let scales = block.scales();
            for i in 0..B::LEN / 32 {
                out.codes[g] = block.group(i);
                let sub = &scales.sub[2 * i..2 * i + 2];
                (out.d[g], out.sub[2 * g], out.sub[2 * g + 1]) = match (B::FLOAT_SUB_SCALES, pass) {
                    (false, _) => (scales.d, sub[0] as i8, sub[1] as i8),
                    (true, 0) => (scales.d * sub[0], 1, 0),
                    (true, _) => (scales.d * sub[1], 0, 1),
                };
                g += 1;
            }
        }
    }
}

/// Blocks as structs: where ggml puts the bits (`ggml/src/ggml-common.h`).
macro_rules! blocks {
    ($($(#[$doc:meta])* $name:ident: $bytes:literal { $($(#[$fdoc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }

        const _: () = assert!(size_of::<$name>() == $bytes && align_of::<$name>() == 1);
    )*};
}
pub(super) use blocks;
