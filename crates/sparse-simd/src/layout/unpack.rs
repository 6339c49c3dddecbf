//! What a block means, for every quantized format in the same terms.

use super::BlockFormat;
use super::blocks::*;
use bytemuck::Pod;

/// The factors of a block: value `i` is `d * sub[i / 16] * code[i] + m * min[i / 16]`.
///
/// Formats without sub-blocks have `sub` and `min` of one.
pub(crate) struct Scales {
    pub(crate) d: f32,
    /// The factor of the minima, negative for the K formats, which subtract them.
    pub(crate) m: f32,
    pub(crate) sub: [i8; 16],
    pub(crate) min: [i8; 16],
}

impl Scales {
    fn plain(d: Half) -> Self {
        Self { d: d.to_f32(), m: 0.0, sub: [1; 16], min: [0; 16] }
    }

    fn with_min(d: Half, m: Half) -> Self {
        Self { d: d.to_f32(), m: m.to_f32(), sub: [1; 16], min: [1; 16] }
    }
}

/// A block of a quantized format.
pub(crate) trait Block: Pod {
    const FORMAT: BlockFormat;
    /// Values per block.
    const LEN: usize = Self::FORMAT.block_len();
    /// Whether the format has minima; without, `m` and `min` are zero.
    const HAS_MIN: bool;
    /// Where codes are nibbles in the last 16 bytes and nothing else: the code that each nibble stands for.
    #[cfg_attr(
        not(all(target_arch = "x86_64", feature = "std")),
        allow(dead_code, reason = "only vector kernels look codes up")
    )]
    const NIBBLES: Option<[i8; 16]> = None;
    /// Whether this is the block of a precision lane, and its bits.
    #[cfg_attr(
        not(all(target_arch = "x86_64", feature = "std")),
        allow(dead_code, reason = "only vector kernels ask")
    )]
    const LANE: Option<u32> = None;

    fn scales(&self) -> Scales;

    /// Writes the codes, offsets such as the -8 of Q4_0 included.
    fn codes(&self, out: &mut [i8]);

    /// Writes the values, in the order of operations that gguf-py uses.
    fn decode(&self, out: &mut [f32]) {
        let s = self.scales();
        let mut codes = [0; 256];
        self.codes(&mut codes[..Self::LEN]);
        for (i, (y, q)) in out.iter_mut().zip(codes).enumerate() {
            let scaled = s.d * f32::from(s.sub[i / 16]) * f32::from(q);
            *y = if Self::HAS_MIN { scaled + s.m * f32::from(s.min[i / 16]) } else { scaled };
        }
    }
}

/// The 32 nibbles of 16 bytes: low ones first.
#[inline(always)]
fn nibbles(qs: &[u8; 16], out: &mut [i8], value: impl Fn(u8) -> i8) {
    let (low, high) = out.split_at_mut(16);
    for i in 0..16 {
        low[i] = value(qs[i] & 15);
        high[i] = value(qs[i] >> 4);
    }
}

/// Adds bit `i` of `qh`, as bit 4, and `offset` to code `i`.
#[inline(always)]
fn add_bit4(qh: [u8; 4], offset: i8, out: &mut [i8]) {
    let qh = u32::from_le_bytes(qh);
    for (i, q) in out.iter_mut().enumerate() {
        *q += ((qh >> i & 1) << 4) as i8 + offset;
    }
}

impl Block for BlockQ4_0 {
    const FORMAT: BlockFormat = BlockFormat::Q4_0;
    const HAS_MIN: bool = false;
    const NIBBLES: Option<[i8; 16]> = Some([-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7]);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8 - 8);
    }
}

impl Block for BlockQ4_1 {
    const FORMAT: BlockFormat = BlockFormat::Q4_1;
    const HAS_MIN: bool = true;
    const NIBBLES: Option<[i8; 16]> = Some([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

    fn scales(&self) -> Scales {
        Scales::with_min(self.d, self.m)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8);
    }
}

impl Block for BlockQ5_0 {
    const FORMAT: BlockFormat = BlockFormat::Q5_0;
    const HAS_MIN: bool = false;
    const LANE: Option<u32> = Some(5);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8);
        add_bit4(self.qh, -16, out);
    }
}

impl Block for BlockQ5_1 {
    const FORMAT: BlockFormat = BlockFormat::Q5_1;
    const HAS_MIN: bool = true;

    fn scales(&self) -> Scales {
        Scales::with_min(self.d, self.m)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| q as i8);
        add_bit4(self.qh, 0, out);
    }
}

impl Block for BlockQ8_0 {
    const FORMAT: BlockFormat = BlockFormat::Q8_0;
    const HAS_MIN: bool = false;

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        out.copy_from_slice(&self.qs);
    }
}

impl Block for BlockIq4Nl {
    const FORMAT: BlockFormat = BlockFormat::Iq4Nl;
    const HAS_MIN: bool = false;
    const NIBBLES: Option<[i8; 16]> = Some(IQ4_NL_VALUES);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        nibbles(&self.qs, out, |q| IQ4_NL_VALUES[q as usize]);
    }
}

impl Block for BlockBit3 {
    const FORMAT: BlockFormat = BlockFormat::Bit3;
    const HAS_MIN: bool = false;
    const LANE: Option<u32> = Some(3);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        stream::<3>(&self.qs, out);
    }
}

impl Block for BlockBit7 {
    const FORMAT: BlockFormat = BlockFormat::Bit7;
    const HAS_MIN: bool = false;
    const LANE: Option<u32> = Some(7);

    fn scales(&self) -> Scales {
        Scales::plain(self.d)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        stream::<7>(&self.qs, out);
    }
}

impl Block for BlockQ2K {
    const FORMAT: BlockFormat = BlockFormat::Q2K;
    const HAS_MIN: bool = true;

    fn scales(&self) -> Scales {
        Scales {
            d: self.d.to_f32(),
            m: -self.dmin.to_f32(),
            sub: self.scales.map(|s| (s & 15) as i8),
            min: self.scales.map(|s| (s >> 4) as i8),
        }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        two_bits(&self.qs, out);
    }
}

impl Block for BlockQ3K {
    const FORMAT: BlockFormat = BlockFormat::Q3K;
    const HAS_MIN: bool = false;

    fn scales(&self) -> Scales {
        let b = &self.scales;
        let sub = core::array::from_fn(|s| {
            let low = if s < 8 { b[s] & 15 } else { b[s - 8] >> 4 };
            let high = b[8 + s % 4] >> (2 * (s / 4)) & 3;
            (low | high << 4) as i8 - 32
        });
        Scales { d: self.d.to_f32(), m: 0.0, sub, min: [0; 16] }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        two_bits(&self.qs, out);
        for (g, group) in out.chunks_exact_mut(32).enumerate() {
            for (q, h) in group.iter_mut().zip(self.hmask) {
                *q += ((h >> g & 1) << 2) as i8 - 4;
            }
        }
    }
}

impl Block for BlockQ4K {
    const FORMAT: BlockFormat = BlockFormat::Q4K;
    const HAS_MIN: bool = true;

    fn scales(&self) -> Scales {
        k_scales(self.d, self.dmin, &self.scales)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        k_nibbles(&self.qs, out);
    }
}

impl Block for BlockQ5K {
    const FORMAT: BlockFormat = BlockFormat::Q5K;
    const HAS_MIN: bool = true;

    fn scales(&self) -> Scales {
        k_scales(self.d, self.dmin, &self.scales)
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        k_nibbles(&self.qs, out);
        for (g, group) in out.chunks_exact_mut(32).enumerate() {
            for (q, h) in group.iter_mut().zip(self.qh) {
                *q += ((h >> g & 1) << 4) as i8;
            }
        }
    }
}

impl Block for BlockQ6K {
    const FORMAT: BlockFormat = BlockFormat::Q6K;
    const HAS_MIN: bool = false;

    fn scales(&self) -> Scales {
        Scales { d: self.d.to_f32(), m: 0.0, sub: self.scales, min: [0; 16] }
    }

    #[inline(always)]
    fn codes(&self, out: &mut [i8]) {
        let halves = self.ql.as_chunks::<64>().0.iter().zip(self.qh.as_chunks::<32>().0);
        for (half, (ql, qh)) in out.chunks_exact_mut(128).zip(halves) {
            for (i, q) in half.iter_mut().enumerate() {
                let low = ql[i % 64] >> (4 * (i / 64)) & 15;
                let high = qh[i % 32] >> (2 * (i / 32)) & 3;
                *q = (low | high << 4) as i8 - 32;
            }
        }
    }
}

/// Codes of `BITS` bits, one after the other: eight in as many bytes. Half of their range is subtracted.
#[inline(always)]
fn stream<const BITS: usize>(qs: &[u8], out: &mut [i8]) {
    for (out, bytes) in out.as_chunks_mut::<8>().0.iter_mut().zip(qs.as_chunks::<BITS>().0) {
        let word = stream_word(bytes);
        for (i, q) in out.iter_mut().enumerate() {
            *q = (word >> (BITS * i) & ((1 << BITS) - 1)) as i8 - (1 << (BITS - 1)) as i8;
        }
    }
}

/// Up to eight bytes as a number.
#[inline(always)]
pub(crate) fn stream_word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}

/// Codes of 2 bits, as [`BlockQ2K`] and [`BlockQ3K`] keep them.
#[inline(always)]
fn two_bits(qs: &[u8; 64], out: &mut [i8]) {
    for (half, qs) in out.chunks_exact_mut(128).zip(qs.as_chunks::<32>().0) {
        for (i, quarter) in half.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, q) in quarter.iter_mut().zip(qs) {
                *code = (q >> (2 * i) & 3) as i8;
            }
        }
    }
}

/// Codes of 4 bits, as [`BlockQ4K`] and [`BlockQ5K`] keep them.
#[inline(always)]
fn k_nibbles(qs: &[u8; 128], out: &mut [i8]) {
    for (pair, qs) in out.chunks_exact_mut(64).zip(qs.as_chunks::<32>().0) {
        let (low, high) = pair.split_at_mut(32);
        for ((low, high), q) in low.iter_mut().zip(high).zip(qs) {
            (*low, *high) = ((q & 15) as i8, (q >> 4) as i8);
        }
    }
}

/// Scales and minima of 6 bits, as [`BlockQ4K`] and [`BlockQ5K`] keep them.
fn k_scales(d: Half, dmin: Half, b: &[u8; 12]) -> Scales {
    let (mut sub, mut min) = ([0; 16], [0; 16]);
    for s in 0..16 {
        let i = s / 2;
        let (scale, minimum) = if i < 4 {
            (b[i] & 63, b[i + 4] & 63)
        } else {
            (b[i + 4] & 15 | b[i - 4] >> 6 << 4, b[i + 4] >> 4 | b[i] >> 6 << 4)
        };
        (sub[s], min[s]) = (scale as i8, minimum as i8);
    }
    Scales { d: d.to_f32(), m: -dmin.to_f32(), sub, min }
}
