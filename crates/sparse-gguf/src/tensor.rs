//! What a file says about its tensors, and views of their data.

use std::ops::Range;

use sparse_simd::BlockFormat;

use crate::{Error, GgmlType};

/// Name, shape and place of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The tensor's name, unique in the file.
    pub name: String,
    /// Dimensions in ggml's order: `dims[0]` is the length of a contiguous row. A tensor without dimensions is
    /// a single value.
    pub dims: Vec<usize>,
    /// How the values are stored.
    pub ty: GgmlType,
    pub(crate) range: Range<usize>,
    pub(crate) part: usize,
}

impl TensorInfo {
    /// Which file of a model in several it is in, from 0.
    pub fn part(&self) -> usize {
        self.part
    }

    /// The bytes of the tensor in its file. For a type whose size is not known
    /// ([`GgmlType::block`] gives `None`) they run to the next tensor or the end of the file.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// Values per row.
    pub fn cols(&self) -> usize {
        self.dims.first().copied().unwrap_or(1)
    }

    /// The number of rows: the product of all dimensions but the first.
    pub fn rows(&self) -> usize {
        self.dims.iter().skip(1).product()
    }

    /// The number of values.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// The block format of the data.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] when this crate does not decode the tensor's type.
    pub fn format(&self) -> Result<BlockFormat, Error> {
        self.ty.format().ok_or_else(|| Error::UnsupportedType { tensor: self.name.clone(), ty: self.ty })
    }
}

/// The bytes that a tensor takes, or `None` when the size of its type is not known.
///
/// # Errors
/// When the sizes overflow or the rows are no whole number of blocks. A zero among the dimensions does not excuse
/// the others: their product has to fit without it.
pub(crate) fn byte_len(name: &str, dims: &[usize], ty: GgmlType) -> Result<Option<usize>, Error> {
    let too_large = || Error::too_large(name, dims.iter().map(|&d| d as u64));
    dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d.max(1))).ok_or_else(too_large)?;
    let Some((block_len, block_bytes)) = ty.block() else { return Ok(None) };
    let cols = dims.first().copied().unwrap_or(1);
    if !cols.is_multiple_of(block_len) {
        return Err(Error::RaggedRow { tensor: name.to_owned(), cols, block_len, ty });
    }
    let elements = dims.iter().product::<usize>();
    (elements / block_len).checked_mul(block_bytes).ok_or_else(too_large).map(Some)
}

/// A tensor and its bytes, borrowed from the file.
#[derive(Clone, Copy, Debug)]
pub struct TensorView<'a> {
    /// Name, shape and type.
    pub info: &'a TensorInfo,
    /// The tensor's blocks, row after row.
    pub data: &'a [u8],
}

impl TensorView<'_> {
    /// The tensor's values as f32, row after row.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] when this crate does not decode the tensor's type.
    pub fn dequantize(&self) -> Result<Vec<f32>, Error> {
        // Refuse the type before allocating for its values.
        self.info.format()?;
        let mut values = vec![0.0; self.info.elements()];
        self.dequantize_into(&mut values)?;
        Ok(values)
    }

    /// Like [`dequantize`](Self::dequantize), into `out`.
    ///
    /// # Errors
    /// [`Error::UnsupportedType`] when this crate does not decode the tensor's type, [`Error::WrongLength`] when
    /// `out` is not as long as the tensor has values.
    pub fn dequantize_into(&self, out: &mut [f32]) -> Result<(), Error> {
        let format = self.info.format()?;
        let found = out.len();
        format.decode(self.data, out).map_err(|_| Error::WrongLength {
            what: format!("the output for tensor `{}`", self.info.name),
            expected: self.info.elements(),
            found,
        })
    }
}
