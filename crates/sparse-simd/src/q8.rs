//! Activations in int8: what every quantized weight format is multiplied with.

/// Values per activation block.
pub(crate) const BLOCK: usize = 32;

/// `tokens` rows of `cols` activations quantized to int8, each row in blocks of 32.
///
/// Value `i` of a row is `d[i / 32] * q[i]` with `q` in -127..=127, `d = max |x| / 127` of the block and
/// rounding to nearest, ties to even. `sums[i / 16]` is the sum of 16 codes: the formats with an offset need it.
#[derive(Clone, Copy, Debug)]
pub struct Q8<'a> {
    /// Values per row, a multiple of 32.
    pub cols: usize,
    /// Codes, `[tokens x cols]`.
    pub q: &'a [i8],
    /// Block scales, `[tokens x cols / 32]`.
    pub d: &'a [f32],
    /// Sums of 16 codes, `[tokens x cols / 16]`.
    pub sums: &'a [i16],
}

/// The writable form of [`Q8`], filled by [`Kernels::quantize`](crate::Kernels::quantize).
#[derive(Debug)]
pub struct Q8Mut<'a> {
    /// Values per row, a multiple of 32.
    pub cols: usize,
    /// Codes, `[tokens x cols]`.
    pub q: &'a mut [i8],
    /// Block scales, `[tokens x cols / 32]`.
    pub d: &'a mut [f32],
    /// Sums of 16 codes, `[tokens x cols / 16]`.
    pub sums: &'a mut [i16],
}

/// Panics when the parts of a [`Q8`] or [`Q8Mut`] do not fit together.
#[track_caller]
pub(crate) fn check(cols: usize, q: usize, d: usize, sums: usize) {
    assert!(cols > 0 && cols.is_multiple_of(BLOCK), "Q8: {cols} columns are no positive multiple of {BLOCK}");
    assert!(q.is_multiple_of(cols), "Q8: {q} codes are no whole number of rows of {cols}");
    assert!(d == q / BLOCK, "Q8: {q} codes need {} scales, found {d}", q / BLOCK);
    assert!(sums == q / 16, "Q8: {q} codes need {} sums, found {sums}", q / 16);
}

/// The scale of a block of activations whose largest magnitude is `max`, and what to multiply with to get codes.
///
/// With NaN or infinity inside the scale is NaN and the codes are zero, so that NaN is the result of every
/// product. Below 2^-119 the inverse would overflow, so the whole block becomes zero.
pub(crate) fn scale(max: f32) -> (f32, f32) {
    const TINY: f32 = f32::from_bits((127 - 119) << 23);
    if !max.is_finite() {
        (f32::NAN, 0.0)
    } else if max < TINY {
        (0.0, 0.0)
    } else {
        (max / 127.0, 127.0 / max)
    }
}

impl<'a> Q8<'a> {
    /// Number of rows.
    pub fn tokens(&self) -> usize {
        self.q.len() / self.cols
    }

    /// Row `t` alone.
    pub fn row(&self, t: usize) -> Q8<'a> {
        let c = self.cols;
        Q8 {
            cols: c,
            q: &self.q[t * c..][..c],
            d: &self.d[t * c / BLOCK..][..c / BLOCK],
            sums: &self.sums[t * c / 16..][..c / 16],
        }
    }
}
