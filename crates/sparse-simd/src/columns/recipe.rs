//! Where blocks and columns keep their bits, as data.

use crate::BlockFormat;
use crate::layout::stream_word;

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

pub(crate) const fn plane(at: usize, bits: usize, run: usize) -> Plane {
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

/// What a code stands for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Code {
    /// Itself plus this.
    Offset(i32),
    /// A signed byte.
    Signed,
    /// A place in a table.
    Table(&'static [i8; 16]),
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
    pub(crate) code: Code,
}

impl Recipe {
    pub(crate) const fn new(
        group: usize,
        halves: &'static [usize],
        subs: SubScales,
        planes: &'static [Plane],
        code: Code,
    ) -> Self {
        Self { group, halves, subs, planes, code }
    }

    /// The integer that a code stands for.
    pub(crate) const fn value(&self, code: u8) -> i32 {
        match self.code {
            Code::Offset(offset) => code as i32 + offset,
            Code::Signed => code as i8 as i32,
            Code::Table(values) => values[code as usize & 15] as i32,
        }
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

/// Writes the codes of a block, which must be zero where they go: the inverse of [`Recipe::value`], for formats where
/// that is a code plus an offset.
pub(crate) fn write_codes(format: BlockFormat, codes: &[i8; 32], block: &mut [u8]) {
    if let Some(recipe) = format.recipe() {
        let unsigned = codes.map(|q| (i32::from(q) - recipe.value(0)) as u8);
        pack(recipe.block_planes(), &unsigned, block);
    }
}

/// Reads the scales (and minima) of a block, as many as it has groups.
pub(super) fn sub_scales(format: BlockFormat, group: usize, block: &[u8]) -> ([i8; 16], [i8; 16]) {
    let scales = format.scales(block);
    let per_group = |x: [i8; 16]| core::array::from_fn(|g| x[(g * group / 16).min(15)]);
    (per_group(scales.sub.map(|sub| sub as i8)), per_group(scales.min))
}
