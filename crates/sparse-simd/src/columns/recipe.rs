//! Where blocks and columns keep their bits, as data.

use crate::BlockFormat;
use crate::layout::{
    Block, BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K, IQ4_NL_VALUES, Scales, stream_word,
};

/// Some bits of all codes.
///
/// `run` bytes hold `8 * run / bits` codes: the lowest bits of bytes 0, 1.. belong to the first `run` codes, the
/// next ones to the next `run`. The bytes after them go on with the next codes. Where `bits` does not divide 8, codes
/// follow each other without regard to bytes, eight of them in a `run` of `bits` bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    /// Where the first run begins.
    at: usize,
    bits: usize,
    run: usize,
}

const fn plane(at: usize, bits: usize, run: usize) -> Plane {
    Plane { at, bits, run }
}

/// What a group of columns keeps per row, beside codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubScales {
    /// Nothing.
    None,
    /// A scale of 8 bits, signed.
    Scale,
    /// A scale and a minimum of 8 bits, in vectors of their own.
    Both,
    /// A scale in the low and a minimum in the high nibble of one byte.
    Nibbles,
}

impl SubScales {
    /// Bytes per row.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Scale | Self::Nibbles => 1,
            Self::Both => 2,
        }
    }

    /// The scale and the minimum of a row whose first byte is at `at`, of `padded` rows; one where there is none.
    pub(crate) fn read(self, data: &[u8], at: usize, padded: usize) -> (i8, i8) {
        match self {
            Self::None => (1, 1),
            Self::Scale => (data[at] as i8, 0),
            Self::Both => (data[at] as i8, data[at + padded] as i8),
            Self::Nibbles => ((data[at] & 15) as i8, (data[at] >> 4) as i8),
        }
    }
}

/// The parts of a quantized block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// Columns that share a scale.
    pub(crate) group: usize,
    /// Where the block has its half-precision factors.
    pub(crate) halves: &'static [usize],
    pub(crate) subs: SubScales,
    /// Where the block has the bits of its codes, lowest first.
    planes: &'static [Plane],
}

impl Recipe {
    /// The parts of `format`, or `None` if it is not quantized.
    pub(crate) const fn of(format: BlockFormat) -> Option<Self> {
        const D: &[usize] = &[0];
        const D_M: &[usize] = &[0, 2];
        let (group, halves, subs, planes): (_, &'static [usize], _, &'static [Plane]) = match format {
            BlockFormat::F32 | BlockFormat::F16 | BlockFormat::Bf16 => return None,
            BlockFormat::Q4_0 | BlockFormat::Iq4Nl => (32, D, SubScales::None, const { &[plane(2, 4, 16)] }),
            BlockFormat::Q4_1 => (32, D_M, SubScales::None, const { &[plane(4, 4, 16)] }),
            BlockFormat::Q5_0 => (32, D, SubScales::None, const { &[plane(6, 4, 16), plane(2, 1, 1)] }),
            BlockFormat::Q5_1 => (32, D_M, SubScales::None, const { &[plane(8, 4, 16), plane(4, 1, 1)] }),
            BlockFormat::Q8_0 => (32, D, SubScales::None, const { &[plane(2, 8, 32)] }),
            BlockFormat::Bit3 => (32, D, SubScales::None, const { &[plane(2, 3, 3)] }),
            BlockFormat::Bit7 => (32, D, SubScales::None, const { &[plane(2, 7, 7)] }),
            BlockFormat::Q2K => (16, &[80, 82], SubScales::Nibbles, const { &[plane(16, 2, 32)] }),
            BlockFormat::Q3K => {
                (16, &[108], SubScales::Scale, const { &[plane(32, 2, 32), plane(0, 1, 32)] })
            }
            BlockFormat::Q4K => (32, D_M, SubScales::Both, const { &[plane(16, 4, 32)] }),
            BlockFormat::Q5K => (32, D_M, SubScales::Both, const { &[plane(48, 4, 32), plane(16, 1, 32)] }),
            BlockFormat::Q6K => {
                (16, &[208], SubScales::Scale, const { &[plane(0, 4, 64), plane(128, 2, 32)] })
            }
        };
        Some(Self { group, halves, subs, planes })
    }

    /// Bytes of 64 codes of one column.
    pub(crate) const fn chunk_bytes(&self) -> usize {
        let (mut bytes, mut i) = (0, 0);
        while i < self.planes.len() {
            bytes += 8 * self.planes[i].bits;
            i += 1;
        }
        bytes
    }

    /// The planes of a block.
    pub(super) fn block_planes(&self) -> impl Iterator<Item = Plane> {
        self.planes.iter().copied()
    }

    /// The planes of 64 codes of one column: 4, 2 and 1 bits, or 8. A single bit per code is in the order of a mask
    /// register.
    pub(crate) fn chunk_planes(&self) -> impl Iterator<Item = Plane> {
        let parts = |plane: &'static Plane| [8, 4, 2, 1].into_iter().filter(|b| plane.bits & b != 0);
        self.planes.iter().flat_map(parts).scan(0, |end, bits| {
            let at = *end;
            *end += 8 * bits;
            Some(Plane { at, bits, run: if bits == 1 { 1 } else { 8 * bits } })
        })
    }
}

/// The integer that code `code` of `format` stands for.
pub(crate) const fn value(format: BlockFormat, code: u8) -> i32 {
    let q = code as i32;
    match format {
        BlockFormat::Q4_0 => q - 8,
        BlockFormat::Q5_0 => q - 16,
        BlockFormat::Q8_0 => code as i8 as i32,
        BlockFormat::Q3K | BlockFormat::Bit3 => q - 4,
        BlockFormat::Q6K => q - 32,
        BlockFormat::Bit7 => q - 64,
        BlockFormat::Iq4Nl => IQ4_NL_VALUES[code as usize & 15] as i32,
        _ => q,
    }
}

/// Reads codes; `codes` must be zero before.
pub(crate) fn unpack(planes: impl Iterator<Item = Plane>, bytes: &[u8], codes: &mut [u8]) {
    let mut low = 0;
    for Plane { at, bits, run } in planes {
        let mask = (0xff >> (8 - bits)) as u8;
        let runs = codes.chunks_exact_mut(8 * run / bits).zip(bytes[at..].chunks_exact(run));
        for (codes, bytes) in runs {
            if !bits.is_power_of_two() {
                let word = stream_word(bytes);
                for (j, code) in codes.iter_mut().enumerate() {
                    *code |= ((word >> (bits * j)) as u8 & mask) << low;
                }
                continue;
            }
            for (j, codes) in codes.chunks_exact_mut(run).enumerate() {
                for (code, byte) in codes.iter_mut().zip(bytes) {
                    *code |= (byte >> (bits * j) & mask) << low;
                }
            }
        }
        low += bits;
    }
}

/// Writes codes; `bytes` must be zero where they go.
pub(super) fn pack(planes: impl Iterator<Item = Plane>, codes: &[u8], bytes: &mut [u8]) {
    let mut low = 0;
    for Plane { at, bits, run } in planes {
        let mask = (0xff >> (8 - bits)) as u8;
        let runs = codes.chunks_exact(8 * run / bits).zip(bytes[at..].chunks_exact_mut(run));
        for (codes, bytes) in runs {
            if !bits.is_power_of_two() {
                let codes = codes.iter().enumerate();
                let word =
                    codes.fold(0, |word, (j, code)| word | u64::from(code >> low & mask) << (bits * j));
                bytes.copy_from_slice(&word.to_le_bytes()[..bits]);
                continue;
            }
            for (j, codes) in codes.chunks_exact(run).enumerate() {
                for (code, byte) in codes.iter().zip(bytes.iter_mut()) {
                    *byte |= (code >> low & mask) << (bits * j);
                }
            }
        }
        low += bits;
    }
}

/// Writes the codes of a block, which must be zero where they go: the inverse of [`value`], for formats where that is a
/// code minus an offset.
pub(crate) fn write_codes(format: BlockFormat, codes: &[i8; 32], block: &mut [u8]) {
    if let Some(recipe) = Recipe::of(format) {
        let unsigned = codes.map(|q| (i32::from(q) - value(format, 0)) as u8);
        pack(recipe.block_planes(), &unsigned, block);
    }
}

/// Reads the scales (and minima) of a block, as many as it has groups.
pub(super) fn sub_scales(format: BlockFormat, block: &[u8]) -> ([i8; 16], [i8; 16]) {
    fn read<B: Block>(block: &[u8]) -> ([i8; 16], [i8; 16]) {
        let Scales { sub, min, .. } = bytemuck::from_bytes::<B>(block).scales();
        (sub, min)
    }
    let per_group = |x: [i8; 16]| core::array::from_fn(|g| x[(2 * g).min(15)]);
    match format {
        BlockFormat::Q2K => read::<BlockQ2K>(block),
        BlockFormat::Q3K => read::<BlockQ3K>(block),
        BlockFormat::Q6K => read::<BlockQ6K>(block),
        BlockFormat::Q4K | BlockFormat::Q5K => {
            let (sub, min) =
                if format == BlockFormat::Q4K { read::<BlockQ4K>(block) } else { read::<BlockQ5K>(block) };
            (per_group(sub), per_group(min))
        }
        _ => ([1; 16], [1; 16]),
    }
}

/// The inverse of [`sub_scales`]: writes them where the block keeps them, which must be zero before.
pub(super) fn set_sub_scales(format: BlockFormat, sub: &[i8; 16], min: &[i8; 16], block: &mut [u8]) {
    let bytes = |x: &[i8; 16]| x.map(|x| x as u8);
    let (sub, min) = (bytes(sub), bytes(min));
    match format {
        BlockFormat::Q2K => {
            for (s, b) in bytemuck::from_bytes_mut::<BlockQ2K>(block).scales.iter_mut().enumerate() {
                *b = sub[s] & 15 | min[s] << 4;
            }
        }
        BlockFormat::Q3K => {
            let b = &mut bytemuck::from_bytes_mut::<BlockQ3K>(block).scales;
            for (s, sub) in sub.iter().enumerate() {
                let six = sub.wrapping_add(32);
                b[s % 8] |= (six & 15) << (4 * (s / 8));
                b[8 + s % 4] |= (six >> 4 & 3) << (2 * (s / 4));
            }
        }
        BlockFormat::Q4K => set_k_scales(&sub, &min, &mut bytemuck::from_bytes_mut::<BlockQ4K>(block).scales),
        BlockFormat::Q5K => set_k_scales(&sub, &min, &mut bytemuck::from_bytes_mut::<BlockQ5K>(block).scales),
        BlockFormat::Q6K => {
            bytemuck::from_bytes_mut::<BlockQ6K>(block).scales = sub.map(|s| s as i8);
        }
        _ => {}
    }
}

/// Scales and minima of 6 bits, as Q4_K and Q5_K keep them.
fn set_k_scales(sub: &[u8; 16], min: &[u8; 16], b: &mut [u8; 12]) {
    for i in 0..4 {
        b[i] = sub[i] & 63 | sub[i + 4] >> 4 << 6;
        b[i + 4] = min[i] & 63 | min[i + 4] >> 4 << 6;
        b[i + 8] = sub[i + 4] & 15 | min[i + 4] << 4;
    }
}
