//! Batches of input vectors for matrix products.

use alloc::vec::Vec;

use sparse_simd::{Int8, Int8Mut, Kernels, Q8, Q8Mut};

/// A batch of `tokens` vectors of `cols` values, and the same vectors in int8.
///
/// Buffers are allocated once, for the largest batch; [`resize`](Self::resize) within that allocates nothing.
#[derive(Debug, Default)]
pub struct Activations {
    cols: usize,
    x: Vec<f32>,
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i16>,
    codes: Vec<u8>,
    scales: Vec<f32>,
}

impl Activations {
    /// A batch of up to `max_tokens` vectors of `cols` values each; empty for now.
    pub fn with_capacity(max_tokens: usize, cols: usize) -> Self {
        let n = max_tokens * cols;
        Self {
            cols,
            x: Vec::with_capacity(n),
            q: Vec::with_capacity(n),
            d: Vec::with_capacity(n / 32),
            sums: Vec::with_capacity(n / 16),
            ..Self::default()
        }
    }

    /// Values per vector.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Number of vectors.
    pub fn tokens(&self) -> usize {
        self.x.len().checked_div(self.cols).unwrap_or(0)
    }

    /// Sets the number of vectors. Values that were not there before are zero.
    pub fn resize(&mut self, tokens: usize) {
        self.x.resize(tokens * self.cols, 0.0);
    }

    /// Sets the number of vectors and their length; what they hold then is of no meaning.
    pub fn reshape(&mut self, tokens: usize, cols: usize) {
        self.cols = cols;
        self.resize(tokens);
    }

    /// The vectors, `[tokens x cols]`.
    pub fn x(&self) -> &[f32] {
        &self.x
    }

    /// The vectors for writing; call [`quantize`](Self::quantize) afterwards.
    pub fn x_mut(&mut self) -> &mut [f32] {
        &mut self.x
    }

    /// Brings the int8 form up to date with the f32 one. Does nothing when a vector is no multiple of 32 long:
    /// no quantized matrix can have such rows.
    pub fn quantize(&mut self, kernels: &Kernels) {
        if !self.cols.is_multiple_of(32) {
            return;
        }
        let n = self.x.len();
        self.q.resize(n, 0);
        self.d.resize(n / 32, 0.0);
        self.sums.resize(n / 16, 0);
        let mut out = Q8Mut { cols: self.cols, q: &mut self.q, d: &mut self.d, sums: &mut self.sums };
        kernels.quantize(&self.x, &mut out);
    }

    /// The int8 form, as of the last [`quantize`](Self::quantize).
    pub fn q8(&self) -> Q8<'_> {
        Q8 { cols: self.cols, q: &self.q, d: &self.d, sums: &self.sums }
    }

    /// Brings the int8 form with one scale per vector up to date with the f32 one: what [`PackedMatrix`] multiplies
    /// in int8. The first call with more vectors than ever before allocates memory for it.
    ///
    /// [`PackedMatrix`]: crate::PackedMatrix
    pub fn quantize_rows(&mut self, kernels: &Kernels) {
        let tokens = self.tokens();
        self.codes.resize(tokens * Int8::stride(self.cols), 0);
        self.scales.resize(tokens, 0.0);
        if tokens > 0 {
            let mut out = Int8Mut { cols: self.cols, q: &mut self.codes, d: &mut self.scales };
            kernels.quantize_rows(&self.x, &mut out);
        }
    }

    /// The int8 form with one scale per vector, as of the last [`quantize_rows`](Self::quantize_rows).
    pub fn int8(&self) -> Int8<'_> {
        Int8 { cols: self.cols, q: &self.codes, d: &self.scales }
    }
}
