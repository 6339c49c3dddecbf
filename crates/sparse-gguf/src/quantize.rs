//! From f32 to blocks: the rounding of ggml's reference quantizers (`quantize_row_*_ref` in `ggml-quants.c`), so
//! that the bytes are the same.
//!
//! ggml's C leaves the codes of a block undefined when its scale is so small (below 2.9e-39) that the inverse
//! overflows. The scale is then stored as zero, so they mean nothing; here they are whatever saturation gives.

use bytemuck::Pod;
use half::bf16;
use sparse_simd::layout::{BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, BlockTq2_0, Half};

use crate::{BlockFormat, Error};

/// Quantizes `values` to `format`: one row, or any number of whole rows.
///
/// Formats: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0 and TQ2_0. The bytes equal those of ggml's
/// reference quantizers.
/// The inverse is [`BlockFormat::decode`].
///
/// # Errors
/// See [`quantize_into`].
pub fn quantize(format: BlockFormat, values: &[f32]) -> Result<Vec<u8>, Error> {
    let mut out = vec![0; bytes_for(format, values)?];
    quantize_into(format, values, &mut out)?;
    Ok(out)
}

/// Like [`quantize`], into `out`.
///
/// # Errors
/// - [`Error::NoQuantizer`] for the other formats,
/// - [`Error::PartialBlock`] when `values` are no whole number of blocks,
/// - [`Error::WrongLength`] when `out` is not as long as their bytes,
/// - [`Error::NotFinite`] when a value is NaN or infinite,
/// - [`Error::TooLargeToQuantize`] when a value, or the scale of a block, overflows the format's floats. (ggml
///   stores infinity there.)
///
/// After an error the contents of `out` are unspecified.
pub fn quantize_into(format: BlockFormat, values: &[f32], out: &mut [u8]) -> Result<(), Error> {
    let expected = bytes_for(format, values)?;
    if out.len() != expected {
        let what = format!("the output for {} values in {}", values.len(), format.name());
        return Err(Error::WrongLength { what, expected, found: out.len() });
    }
    if let Some(index) = values.iter().position(|v| !v.is_finite()) {
        return Err(Error::NotFinite { index, value: values[index] });
    }
    let fitted = match format {
        BlockFormat::F32 => encode(values, out, |&[v]| Some(v.to_le_bytes())),
        BlockFormat::F16 => encode(values, out, |&[v]| finite(v)),
        BlockFormat::Bf16 => encode(values, out, |&[v]| {
            let rounded = bf16::from_f32(v);
            rounded.is_finite().then_some(rounded.to_le_bytes())
        }),
        BlockFormat::Q4_0 => encode(values, out, q4_0),
        BlockFormat::Q4_1 => encode(values, out, q4_1),
        BlockFormat::Q5_0 => encode(values, out, q5_0),
        BlockFormat::Q5_1 => encode(values, out, q5_1),
        BlockFormat::Q8_0 => encode(values, out, q8_0),
        BlockFormat::Tq2_0 => encode(values, out, tq2_0),
        _ => return Err(Error::NoQuantizer { format: format.name() }),
    };
    fitted.map_err(|index| Error::TooLargeToQuantize { index, format: format.name() })
}

fn bytes_for(format: BlockFormat, values: &[f32]) -> Result<usize, Error> {
    format.row_bytes(values.len()).ok_or(Error::PartialBlock {
        format: format.name(),
        block_len: format.block_len(),
        found: values.len(),
    })
}

/// Encodes block by block; fails with the index of the first value of the block that does not fit.
fn encode<const N: usize, B: Pod>(
    values: &[f32],
    out: &mut [u8],
    block: impl Fn(&[f32; N]) -> Option<B>,
) -> Result<(), usize> {
    let (blocks, _) = values.as_chunks::<N>();
    for (i, (values, bytes)) in blocks.iter().zip(out.chunks_exact_mut(size_of::<B>())).enumerate() {
        let block = block(values).ok_or(i * N)?;
        bytes.copy_from_slice(bytemuck::bytes_of(&block));
    }
    Ok(())
}

/// `v` in half precision, unless it overflows.
fn finite(v: f32) -> Option<Half> {
    let half = Half::from_f32(v);
    half.to_f32().is_finite().then_some(half)
}

/// The value of largest magnitude, with its sign; of equal ones the first.
fn extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |max: f32, &v| if max.abs() < v.abs() { v } else { max })
}

fn min_max(x: &[f32; 32]) -> (f32, f32) {
    x.iter().fold((f32::MAX, f32::MIN), |(min, max), &v| {
        (if v < min { v } else { min }, if v > max { v } else { max })
    })
}

/// What to multiply with instead of dividing by `d`.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Codes 0..=max, the low nibbles of 32 packed as ggml does: `i` and `i + 16` share byte `i`.
fn nibbles(codes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|i| (codes[i] & 15) | (codes[i + 16] & 15) << 4)
}

/// Bit 4 of 32 codes.
fn fifth_bits(codes: &[u8; 32]) -> [u8; 4] {
    (0..32).fold(0u32, |bits, i| bits | u32::from(codes[i] >> 4 & 1) << i).to_le_bytes()
}

/// Scale and codes of the formats `d * (q - half)`: the extreme value gets the code 0, so that its sign has the
/// longer side of the range.
fn symmetric(x: &[f32; 32], half: f32) -> Option<(Half, [u8; 32])> {
    let d = extreme(x) / -half;
    let id = inverse(d);
    let top = 2.0 * half - 1.0;
    Some((finite(d)?, x.map(|v| (v * id + (half + 0.5)).min(top) as u8)))
}

/// Scale, minimum and codes of the formats `d * q + m`, `q` up to `top`.
fn affine(x: &[f32; 32], top: f32) -> Option<(Half, Half, [u8; 32])> {
    let (min, max) = min_max(x);
    let d = (max - min) / top;
    let id = inverse(d);
    Some((finite(d)?, finite(min)?, x.map(|v| ((v - min) * id + 0.5).min(top) as u8)))
}

fn q4_0(x: &[f32; 32]) -> Option<BlockQ4_0> {
    let (d, codes) = symmetric(x, 8.0)?;
    Some(BlockQ4_0 { d, qs: nibbles(&codes) })
}

fn q4_1(x: &[f32; 32]) -> Option<BlockQ4_1> {
    let (d, m, codes) = affine(x, 15.0)?;
    Some(BlockQ4_1 { d, m, qs: nibbles(&codes) })
}

fn q5_0(x: &[f32; 32]) -> Option<BlockQ5_0> {
    let (d, codes) = symmetric(x, 16.0)?;
    Some(BlockQ5_0 { d, qh: fifth_bits(&codes), qs: nibbles(&codes) })
}

fn q5_1(x: &[f32; 32]) -> Option<BlockQ5_1> {
    let (d, m, codes) = affine(x, 31.0)?;
    Some(BlockQ5_1 { d, m, qh: fifth_bits(&codes), qs: nibbles(&codes) })
}

fn q8_0(x: &[f32; 32]) -> Option<BlockQ8_0> {
    let d = extreme(x).abs() / 127.0;
    let id = inverse(d);
    // `round` takes halves away from zero, as C's `roundf`.
    Some(BlockQ8_0 { d: finite(d)?, qs: x.map(|v| (v * id).round() as i8) })
}

fn tq2_0(x: &[f32; 256]) -> Option<BlockTq2_0> {
    let d = extreme(x).abs();
    let id = inverse(d);
    let code = |v: f32| ((v * id).round() as i8 + 1) as u8;
    // Byte `i` of a half holds its values `i`, `i + 32`, `i + 64` and `i + 96`.
    let qs = std::array::from_fn(|byte| {
        let first = byte / 32 * 128 + byte % 32;
        (0..4).fold(0, |bits, n| bits | code(x[first + 32 * n]) << (2 * n))
    });
    Some(BlockTq2_0 { qs, d: finite(d)? })
}
