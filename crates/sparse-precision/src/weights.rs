//! Weights in 8 and 4 bits, as GGUF has them.

use alloc::vec;
use alloc::vec::Vec;

use sparse_simd::layout::Half;
use sparse_simd::{BlockFormat, Rows};

use crate::blocks::{BLOCK, Blocks, codes, scale};

/// Rows of weights in 8 or 4 bits, in the blocks of GGUF: [`BlockFormat::Q8_0`] and [`BlockFormat::Q4_0`].
///
/// Rows may have any length; the last block is filled up with zeros. NaN and infinity make the block that they are in
/// NaN; scales too large for half precision make it infinite or NaN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuantizedWeights {
    blocks: Blocks,
    cols: usize,
}

impl QuantizedWeights {
    /// 8 bits, blocks of 32: 8.5 bits per weight.
    ///
    /// # Panics
    /// If the rows are not equally long, or empty.
    pub fn quantize_int8<R: AsRef<[f32]>>(rows: &[R]) -> Self {
        Self::quantize(BlockFormat::Q8_0, rows, BLOCK)
    }

    /// 4 bits with a scale per `group` weights, laid out as Q4_0: 4.5 bits per weight. A group of more than 32 stores its
    /// scale in each of its blocks, so larger groups save nothing; they are there for weights that were trained with them.
    ///
    /// # Panics
    /// If `group` is no positive multiple of 32, or the rows are not equally long, or empty.
    pub fn quantize_int4<R: AsRef<[f32]>>(rows: &[R], group: usize) -> Self {
        assert!(
            group > 0 && group.is_multiple_of(BLOCK),
            "groups of {group}: expected a multiple of {BLOCK}"
        );
        Self::quantize(BlockFormat::Q4_0, rows, group)
    }

    fn quantize<R: AsRef<[f32]>>(format: BlockFormat, rows: &[R], group: usize) -> Self {
        let cols = rows.first().map_or(0, |row| row.as_ref().len());
        assert!(rows.is_empty() || cols > 0, "rows of no weights");
        let range = format.code_range().expect("a format of codes");
        let padded = cols.next_multiple_of(BLOCK).max(BLOCK);
        let row_bytes = padded / BLOCK * format.block_bytes();
        let mut data = vec![0; rows.len() * row_bytes];
        let mut values = vec![0.0; padded];
        for (row, bytes) in rows.iter().zip(data.chunks_exact_mut(row_bytes)) {
            let row = row.as_ref();
            assert_eq!(row.len(), cols, "rows are not equally long");
            values[..cols].copy_from_slice(row);
            let blocks = values.as_chunks::<BLOCK>().0;
            let bytes = bytes.chunks_mut(group / BLOCK * format.block_bytes());
            for (blocks, bytes) in blocks.chunks(group / BLOCK).zip(bytes) {
                let d = group_scale(blocks, range);
                for (x, block) in blocks.iter().zip(bytes.chunks_exact_mut(format.block_bytes())) {
                    format.write_block(d, &codes(x, d.to_f32(), range), block);
                }
            }
        }
        Self { blocks: Blocks { format, cols: padded, data }, cols }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.blocks.as_rows().rows()
    }

    /// Weights per row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The packed rows, for kernels; their lengths are rounded up to whole blocks.
    pub fn as_rows(&self) -> Rows<'_> {
        self.blocks.as_rows()
    }

    /// The weights of row `r`.
    ///
    /// # Panics
    /// If `r` is out of range.
    pub fn dequantize_row(&self, r: usize) -> Vec<f32> {
        let mut row = vec![0.0; self.blocks.cols];
        self.blocks.decode_row(r, &mut row);
        row.truncate(self.cols);
        row
    }
}

/// The scale of some blocks: of one that which is best, of more the largest of theirs, so that all values fit.
fn group_scale(blocks: &[[f32; BLOCK]], range: [i8; 2]) -> Half {
    if blocks.as_flattened().iter().any(|x| !x.is_finite()) {
        return Half::from_f32(f32::NAN);
    }
    let scales = blocks.iter().map(|x| scale(x, &[1.0; BLOCK], range));
    scales.fold(Half::from_f32(0.0), |a, b| if a.to_f32().abs() < b.to_f32().abs() { b } else { a })
}
