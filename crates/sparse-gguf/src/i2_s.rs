//! bitnet.cpp's I2_S: ternary weights with one scale per tensor.

use sparse_simd::layout::{BlockTq2_0, Half};

use crate::{Error, GgmlType, TensorView};

/// Values of a block of TQ2_0, and bytes of their codes.
const VALUES: usize = 256;
const CODES: usize = VALUES / 4;

/// The blocks of TQ2_0 that hold what `tensor`, of type [`GgmlType::I2_S`], holds.
///
/// I2_S packs 128 values into 32 bytes. Byte `i` has values `i`, `i + 32`, `i + 64` and `i + 96` from the
/// highest bits down, as 0, 1, 2 for -1, 0, 1; 3 is 0, too. The scale, one f32, follows the last byte. (Source:
/// `dequantize_row_i2_s` and `quantize_i2_s` of microsoft/BitNet, built with `ACT_PARALLEL` as it is by
/// default; builds without it order values in another way, and files do not say which they are.) The scale is rounded
/// to half precision, for all weights alike.
///
/// # Errors
/// - [`Error::UnsupportedType`] when the tensor has another type,
/// - [`Error::RaggedRow`] when rows are no whole number of 256 values,
/// - [`Error::WrongLength`] when the tensor is cut,
/// - [`Error::BadScale`] when the scale is NaN, or infinite in half precision.
pub fn i2_s_to_tq2_0(tensor: TensorView<'_>) -> Result<Vec<u8>, Error> {
    let TensorView { info, data } = tensor;
    if info.ty != GgmlType::I2_S {
        return Err(Error::UnsupportedType { tensor: info.name.clone(), ty: info.ty });
    }
    if !info.cols().is_multiple_of(VALUES) {
        let (cols, ty) = (info.cols(), GgmlType::TQ2_0);
        return Err(Error::RaggedRow { tensor: info.name.clone(), cols, block_len: VALUES, ty });
    }
    let codes = info.elements() / 4;
    let Some((codes, Some((scale, _)))) =
        data.split_at_checked(codes).map(|(codes, rest)| (codes, rest.split_first_chunk()))
    else {
        let what = format!("tensor `{}`", info.name);
        return Err(Error::WrongLength { what, expected: codes + size_of::<f32>(), found: data.len() });
    };
    let value = f32::from_le_bytes(*scale);
    let d = Half::from_f32(value);
    if !d.to_f32().is_finite() {
        return Err(Error::BadScale { tensor: info.name.clone(), scale: value });
    }
    let block = |codes: &[u8; CODES]| BlockTq2_0 { qs: codes.map(reversed), d };
    let (blocks, _) = codes.as_chunks();
    let blocks: Vec<BlockTq2_0> = blocks.iter().map(block).collect();
    Ok(bytemuck::cast_slice(&blocks).to_vec())
}

/// The four codes of a byte in the opposite order, with 1 for 3.
fn reversed(byte: u8) -> u8 {
    (0..4).fold(0, |out, n| match byte >> (2 * n) & 3 {
        3 => out << 2 | 1,
        code => out << 2 | code,
    })
}
