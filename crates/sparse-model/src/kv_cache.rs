//! Keys and values of the tokens seen so far, in blocks of positions.

use std::ops::Range;
use std::str::FromStr;
use std::sync::Arc;

use half::f16;
use sparse_simd::layout::{BlockQ8_0, Half};
use sparse_simd::{BlockFormat, Kernels, Q8Mut, Rows};

/// Positions of a block: few enough that memory follows use, many enough that attention reads long streams.
pub(crate) const BLOCK: usize = 128;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvFormat {
    /// Half precision. A layer with a value beyond its range goes on in [`F32`](Self::F32).
    #[default]
    F16,
    /// Single precision: twice the memory.
    F32,
    /// Eight bits and a scale per 32 values: about half the memory. Heads must be a multiple of 32 wide.
    Q8,
}

impl KvFormat {
    /// Its name on command lines and in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::F32 => "f32",
            Self::Q8 => "q8_0",
        }
    }

    pub(crate) fn block_format(self) -> BlockFormat {
        match self {
            Self::F16 => BlockFormat::F16,
            Self::F32 => BlockFormat::F32,
            Self::Q8 => BlockFormat::Q8_0,
        }
    }
}

impl FromStr for KvFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let all = [Self::F16, Self::F32, Self::Q8];
        all.into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| format!("keys and values have no format \"{name}\"; there are f16, f32, q8_0"))
    }
}

/// Keys and values of one layer.
///
/// In a block, each key-value head has its own contiguous `[BLOCK x head_dim]` rows, so that attention reads them as one
/// stream. Blocks come as tokens do. A clone shares them: one that is written to is copied first.
#[derive(Clone, Debug)]
pub(crate) struct KvCache {
    blocks: Vec<Arc<Block>>,
    format: KvFormat,
    kv_heads: usize,
    head_dim: usize,
}

/// Keys, then values: `[2 x kv_heads x BLOCK x head_dim]`.
#[derive(Clone, Debug)]
enum Block {
    F16(Vec<f16>),
    F32(Vec<f32>),
    Q8(Vec<BlockQ8_0>),
}

/// What a [`KvCache`] has two of.
#[derive(Clone, Copy, Debug)]
enum Part {
    Key,
    Value,
}

impl KvCache {
    /// An empty cache, or `None` where `context` tokens are more than memory can address.
    pub(crate) fn new(format: KvFormat, kv_heads: usize, context: usize, head_dim: usize) -> Option<Self> {
        let values = [kv_heads, context.checked_next_multiple_of(BLOCK)?, head_dim];
        let values = values.into_iter().try_fold(2_usize, usize::checked_mul)?;
        let bytes = values.checked_mul(size_of::<f32>())?;
        isize::try_from(bytes).ok()?;
        Some(Self { blocks: Vec::with_capacity(context.div_ceil(BLOCK)), format, kv_heads, head_dim })
    }

    /// How keys and values are stored now.
    pub(crate) fn format(&self) -> KvFormat {
        self.format
    }

    /// Values of a block.
    fn block_values(&self) -> usize {
        2 * self.kv_heads * BLOCK * self.head_dim
    }

    /// Bytes of the blocks that there are, shared ones included.
    pub(crate) fn bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.bytes().len()).sum()
    }

    /// Makes room for positions below `positions`; `None` where there is not enough memory.
    pub(crate) fn reserve(&mut self, positions: usize) -> Option<()> {
        while self.blocks.len() * BLOCK < positions {
            let block = Block::zeros(self.format, self.block_values())?;
            self.blocks.push(Arc::new(block));
        }
        Some(())
    }

    /// Gives back the blocks behind the first `positions` positions.
    pub(crate) fn truncate(&mut self, positions: usize) {
        self.blocks.truncate(positions.div_ceil(BLOCK));
    }

    /// The parts of `positions` that are in one block each.
    pub(crate) fn pieces(positions: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let first = positions.start / BLOCK;
        (first..positions.end.div_ceil(BLOCK))
            .map(move |b| positions.start.max(b * BLOCK)..positions.end.min((b + 1) * BLOCK))
    }

    /// Keys and values of the tokens at `positions`, which are in one block, `[positions x head_dim]` each.
    pub(crate) fn rows(&self, head: usize, positions: Range<usize>) -> (Rows<'_>, Rows<'_>) {
        let block = &self.blocks[positions.start / BLOCK];
        let format = self.format.block_format();
        let row = format.row_bytes(self.head_dim).expect("whole blocks of values");
        [Part::Key, Part::Value]
            .map(|part| {
                let start = (self.row(part, head) + positions.start % BLOCK) * row;
                let bytes = &block.bytes()[start..start + positions.len() * row];
                Rows::new(format, self.head_dim, bytes).expect("whole rows")
            })
            .into()
    }

    /// Stores keys and values of the token at `position`, for which there is room, `[kv_heads x head_dim]` each.
    pub(crate) fn write(&mut self, k: &Kernels, position: usize, keys: &[f32], values: &[f32]) {
        let fits = match self.format {
            KvFormat::F16 => fits(keys, F16_LIMIT) && fits(values, F16_LIMIT),
            KvFormat::Q8 => fits(keys, Q8_LIMIT) && fits(values, Q8_LIMIT),
            KvFormat::F32 => true,
        };
        if !fits {
            tracing::warn!(position, "keys or values beyond half precision: this layer goes on in f32");
            self.widen();
        }
        let starts = [Part::Key, Part::Value].map(|part| self.row(part, 0) + position % BLOCK);
        let head_dim = self.head_dim;
        let block = Arc::make_mut(&mut self.blocks[position / BLOCK]);
        for (start, all) in starts.into_iter().zip([keys, values]) {
            for (head, x) in all.chunks(head_dim).enumerate() {
                let at = (start + head * BLOCK) * head_dim;
                match block {
                    Block::F16(all) => k.to_f16(x, &mut all[at..at + head_dim]),
                    Block::F32(all) => all[at..at + head_dim].copy_from_slice(x),
                    Block::Q8(all) => quantize(k, x, &mut all[at / 32..(at + head_dim) / 32]),
                }
            }
        }
    }

    /// Stores everything in single precision from now on.
    fn widen(&mut self) {
        let format = self.format.block_format();
        for block in &mut self.blocks {
            let mut values = vec![0.0; 2 * self.kv_heads * BLOCK * self.head_dim];
            format.decode(block.bytes(), &mut values).expect("whole blocks");
            *block = Arc::new(Block::F32(values));
        }
        self.format = KvFormat::F32;
    }

    /// Row of a block at which a head begins.
    fn row(&self, part: Part, head: usize) -> usize {
        (part as usize * self.kv_heads + head) * BLOCK
    }

    /// Values per head.
    #[cfg(feature = "fs")]
    pub(crate) fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// The format of the rows.
    #[cfg(feature = "fs")]
    pub(crate) fn block_format(&self) -> BlockFormat {
        self.format.block_format()
    }

    /// The bytes of all blocks, in order, for a file.
    #[cfg(feature = "fs")]
    pub(crate) fn contents(&self) -> Vec<u8> {
        self.blocks.iter().flat_map(|block| block.bytes()).copied().collect()
    }

    /// Replaces the contents by those of a file: `format` and the bytes of so many blocks. `None` if they are others.
    #[cfg(feature = "fs")]
    pub(crate) fn restore(&mut self, format: KvFormat, bytes: &[u8], count: usize) -> Option<()> {
        let mut blocks = Vec::new();
        let size = format.block_format().row_bytes(self.head_dim)? * 2 * self.kv_heads * BLOCK;
        if bytes.len() != count * size {
            return None;
        }
        for bytes in bytes.chunks(size) {
            let mut block = Block::zeros(format, self.block_values())?;
            block.bytes_mut().copy_from_slice(bytes);
            blocks.push(Arc::new(block));
        }
        (self.blocks, self.format) = (blocks, format);
        Some(())
    }
}

impl Block {
    fn zeros(format: KvFormat, values: usize) -> Option<Self> {
        use bytemuck::allocation::try_zeroed_vec;
        Some(match format {
            KvFormat::F16 => Self::F16(try_zeroed_vec(values).ok()?),
            KvFormat::F32 => Self::F32(try_zeroed_vec(values).ok()?),
            KvFormat::Q8 => Self::Q8(try_zeroed_vec(values / 32).ok()?),
        })
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::F16(all) => bytemuck::cast_slice(all),
            Self::F32(all) => bytemuck::cast_slice(all),
            Self::Q8(all) => bytemuck::cast_slice(all),
        }
    }

    #[cfg(feature = "fs")]
    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Self::F16(all) => bytemuck::cast_slice_mut(all),
            Self::F32(all) => bytemuck::cast_slice_mut(all),
            Self::Q8(all) => bytemuck::cast_slice_mut(all),
        }
    }
}

/// Magnitudes below it do not round to infinity in half precision.
const F16_LIMIT: f32 = 65_520.0;
/// The same for the scale of eight bits.
const Q8_LIMIT: f32 = 127.0 * F16_LIMIT;

/// Whether all finite values are below `limit` in magnitude.
fn fits(x: &[f32], limit: f32) -> bool {
    x.iter().fold(true, |fits, x| fits & (x.abs() < limit || !x.is_finite()))
}

/// Writes `x` in blocks of 32 values with one scale each.
fn quantize(k: &Kernels, x: &[f32], out: &mut [BlockQ8_0]) {
    for (x, block) in x.chunks_exact(32).zip(out) {
        let (mut q, mut d, mut sums) = ([0; 32], [0.0], [0; 2]);
        k.quantize(x, &mut Q8Mut { cols: 32, q: &mut q, d: &mut d, sums: &mut sums });
        *block = BlockQ8_0 { d: Half::from_f32(d[0]), qs: q };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(rows: Rows<'_>) -> Vec<f32> {
        let mut out = vec![0.0; rows.rows() * rows.cols()];
        rows.format().decode(rows.data(), &mut out).unwrap();
        out
    }

    #[test]
    fn a_value_beyond_half_precision_widens_the_cache_and_keeps_the_rest() {
        let k = Kernels::get();
        let mut cache = KvCache::new(KvFormat::F16, 2, 4, 2).unwrap();
        cache.reserve(4).unwrap();
        cache.write(k, 0, &[1.0, 2.0, 3.0, 65_519.0], &[0.5; 4]);
        assert_eq!(cache.format(), KvFormat::F16);
        cache.write(k, 1, &[1e6, -1.0, 4.0, 5.0], &[0.25; 4]);
        assert_eq!(cache.format(), KvFormat::F32);
        assert_eq!(decode(cache.rows(0, 0..2).0), [1.0, 2.0, 1e6, -1.0]);
        assert_eq!(decode(cache.rows(1, 0..2).0), [3.0, 65_504.0, 4.0, 5.0]);
        assert_eq!(decode(cache.rows(1, 1..2).1), [0.25, 0.25]);
    }

    #[test]
    fn eight_bits_are_near_and_widen_beyond_their_range() {
        let k = Kernels::get();
        let mut cache = KvCache::new(KvFormat::Q8, 2, 300, 64).unwrap();
        cache.reserve(300).unwrap();
        let x: Vec<f32> = (0..128).map(|i| ((i * 37) % 101) as f32 / 50.0 - 1.0).collect();
        cache.write(k, 200, &x, &x);
        for (head, x) in x.chunks(64).enumerate() {
            let (keys, values) = cache.rows(head, 200..201);
            for found in [decode(keys), decode(values)] {
                // Half a step of 127 for the largest magnitude, and the rounding of the scale.
                assert!(found.iter().zip(x).all(|(a, b)| (a - b).abs() < 1.1 / 254.0 + 1e-3));
            }
        }
        cache.write(k, 201, &[1e7; 128], &x);
        assert_eq!(cache.format(), KvFormat::F32);
        assert_eq!(decode(cache.rows(0, 201..202).0), [1e7; 64]);
    }

    #[test]
    fn clones_share_blocks_until_they_are_written() {
        let k = Kernels::get();
        let mut cache = KvCache::new(KvFormat::F32, 1, 1000, 2).unwrap();
        cache.reserve(2 * BLOCK).unwrap();
        cache.write(k, 1, &[1.0, 1.0], &[1.0, 1.0]);
        cache.write(k, BLOCK, &[2.0, 2.0], &[2.0, 2.0]);
        let mut other = cache.clone();
        other.truncate(1);
        assert!(Arc::ptr_eq(&cache.blocks[0], &other.blocks[0]) && other.blocks.len() == 1);
        other.write(k, 1, &[3.0, 3.0], &[3.0, 3.0]);
        assert_eq!(
            (decode(cache.rows(0, 1..2).0), decode(other.rows(0, 1..2).0)),
            (vec![1.0; 2], vec![3.0; 2])
        );
    }

    #[test]
    fn pieces_do_not_cross_blocks() {
        let pieces: Vec<_> = KvCache::pieces(3..2 * BLOCK + 1).collect();
        assert_eq!(pieces, [3..BLOCK, BLOCK..2 * BLOCK, 2 * BLOCK..2 * BLOCK + 1]);
        assert_eq!(KvCache::pieces(BLOCK..BLOCK + 2).next(), Some(BLOCK..BLOCK + 2));
        assert_eq!(KvCache::pieces(BLOCK..BLOCK + 2).count(), 1);
    }

    #[test]
    fn a_context_that_no_memory_addresses_is_refused() {
        assert!(KvCache::new(KvFormat::F16, usize::MAX / 8, 8, 8).is_none());
        assert!(KvCache::new(KvFormat::F32, usize::MAX / 128, 1, 8).is_none());
        assert!(KvCache::new(KvFormat::F32, 1, usize::MAX, 8).is_none());
    }

    #[test]
    fn the_limit_is_where_rounding_gives_infinity() {
        assert!(f16::from_f32(65_519.99).is_finite() && fits(&[65_519.99], F16_LIMIT));
        assert!(f16::from_f32(65_520.0).is_infinite() && !fits(&[-65_520.0], F16_LIMIT));
        assert!(fits(&[f32::NAN, f32::INFINITY], F16_LIMIT));
    }
}
