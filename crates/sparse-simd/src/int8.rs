//! Activations in int8 with one scale per row: what packed int8 weights are multiplied with.

/// Rows of codes begin at multiples of this, so that kernels read whole blocks.
pub(crate) const BLOCK: usize = 32;

/// What a code of zero is stored as.
pub(crate) const ZERO: u8 = 128;

/// `tokens` rows of `cols` activations in int8.
///
/// Value `i` of a row is `d * (q[i] - 128)` with `q` in 1..=255: codes of -127..=127 are stored with 128 added,
/// because that is what dot products of bytes take. `d = max |x| / 127` of the row; codes are rounded to nearest, ties
/// to even. Rows of codes are [`stride`](Self::stride) bytes long; those beyond `cols` are 128.
#[derive(Clone, Copy, Debug)]
pub struct Int8<'a> {
    /// Values per row.
    pub cols: usize,
    /// Codes, `[tokens x stride]`.
    pub q: &'a [u8],
    /// Scales, one per row.
    pub d: &'a [f32],
}

/// The writable form of [`Int8`], filled by [`Kernels::quantize_rows`](crate::Kernels::quantize_rows).
#[derive(Debug)]
pub struct Int8Mut<'a> {
    /// Values per row.
    pub cols: usize,
    /// Codes, `[tokens x stride]`.
    pub q: &'a mut [u8],
    /// Scales, one per row.
    pub d: &'a mut [f32],
}

impl<'a> Int8<'a> {
    /// Bytes from one row of `cols` codes to the next: `cols`, rounded up to a multiple of 32.
    pub const fn stride(cols: usize) -> usize {
        cols.next_multiple_of(BLOCK)
    }

    /// Number of rows.
    pub fn tokens(&self) -> usize {
        self.d.len()
    }

    /// The codes of row `t`, with those that fill it up.
    #[inline(always)]
    pub(crate) fn row(&self, t: usize) -> &'a [u8] {
        let stride = Self::stride(self.cols);
        &self.q[t * stride..][..stride]
    }
}

/// Panics when the parts of an [`Int8`] or [`Int8Mut`] do not fit together.
#[track_caller]
pub(crate) fn check(cols: usize, q: usize, d: usize) {
    assert!(cols > 0, "Int8: rows without columns");
    let expected = d * Int8::stride(cols);
    assert!(q == expected, "Int8: {d} rows of {cols} need {expected} bytes, found {q}");
}

/// The largest magnitude; NaN is above infinity, and infinity above the rest.
pub(crate) fn magnitude(row: &[f32]) -> f32 {
    // Compared as integers.
    f32::from_bits(row.iter().map(|x| x.to_bits() & 0x7FFF_FFFF).max().unwrap_or(0))
}

/// The scale of a row whose largest magnitude is `max`, and what to multiply with to get codes: as those of a block of
/// [`Q8`](crate::Q8).
pub(crate) use crate::q8::scale;

/// The code of a value, -127 to 127.
pub(crate) fn code(x: f32, inverse: f32) -> i8 {
    /// Adding and subtracting this rounds to the nearest integer, ties to even, below 2^22.
    const ROUND: f32 = 12_582_912.0;
    if inverse == 0.0 { 0 } else { (x * inverse + ROUND - ROUND) as i8 }
}
