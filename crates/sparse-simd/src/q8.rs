//! Activations in int8: what every quantised weight format is multiplied with.

/// Values per activation block.
pub const BLOCK: usize = 32;

/// `tokens` rows of `cols` activations quantised to int8, each row in blocks of 32.
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

/// The writable form of [`Q8`], filled by [`Kernels::quantise`](crate::Kernels::quantise).
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
