//! The kernels of a level behind checks: the only place that calls a function of a [`Table`].

mod sparse;

use crate::table::{ColumnProducts, FloatProducts, FormatKernels, Int8Products, Products, Table};
use crate::{
    Activation, BlockFormat, Int8, Int8Mut, Interleaved, Level, LevelError, MatMut, PanelKind, Panels, Q8,
    Q8Mut, Rows, Tiles, hadamard, int8, q8, scalar,
};
use half::f16;

/// The kernels of one CPU level.
///
/// All methods are safe: they check shapes and panic with both lengths when these do not fit, which is a mistake in
/// the calling program, never in a file. NaN and infinity in weights or activations propagate to the results that
/// depend on them.
///
/// Every level computes the integer parts of a product exactly; floats are added in an order of its own. The
/// results of two levels therefore differ by at most `1e-5` times the product of absolute values
/// (`sum |w_i| |x_i|`, offsets and minima counted as terms of their own); the crate's tests hold them to that.
pub struct Kernels(pub(crate) Table);

impl core::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Kernels").field("level", &self.0.level).finish_non_exhaustive()
    }
}

impl Kernels {
    /// The kernels to use: those of the level that the environment variable `SPARSE_SIMD` names, or else of the
    /// highest level that this CPU has. Both are looked up once, at the first call in the process.
    ///
    /// A wrong `SPARSE_SIMD` is not an error here, because a library deep inside a program cannot report it:
    /// the highest level is used. Programs report it by calling [`try_get`](Self::try_get) when they start.
    pub fn get() -> &'static Kernels {
        Self::try_get().unwrap_or_else(|_| Self::best())
    }

    /// Like [`get`](Self::get), but a wrong `SPARSE_SIMD` is an error.
    ///
    /// # Errors
    /// If `SPARSE_SIMD` names no level, or one that this CPU or this build lacks.
    #[cfg(feature = "std")]
    pub fn try_get() -> Result<&'static Kernels, LevelError> {
        static CHOICE: std::sync::OnceLock<Result<&'static Kernels, LevelError>> = std::sync::OnceLock::new();
        CHOICE.get_or_init(|| Self::choose(std::env::var_os("SPARSE_SIMD").as_deref())).clone()
    }

    /// Like [`get`](Self::get). Without the feature `std` there is no environment to be wrong.
    ///
    /// # Errors
    /// Never.
    #[cfg(not(feature = "std"))]
    pub fn try_get() -> Result<&'static Kernels, LevelError> {
        Ok(Self::best())
    }

    /// The kernels that a value of `SPARSE_SIMD` asks for; an empty one counts as none. For tests.
    #[cfg(feature = "std")]
    #[doc(hidden)]
    pub fn choose(word: Option<&std::ffi::OsStr>) -> Result<&'static Kernels, LevelError> {
        match word {
            Some(word) if !word.is_empty() => {
                let level = word.to_string_lossy().parse()?;
                Self::at(level).ok_or(LevelError::Unavailable { level })
            }
            _ => Ok(Self::best()),
        }
    }

    fn best() -> &'static Kernels {
        Self::at(Level::detect()).unwrap_or(&scalar::KERNELS)
    }

    /// The kernels of `level`, or `None` when this CPU or this build lacks it.
    pub fn at(level: Level) -> Option<&'static Kernels> {
        match level {
            Level::Scalar => Some(&scalar::KERNELS),
            #[cfg(all(target_arch = "x86_64", feature = "std"))]
            level => crate::x86::kernels(level),
            #[cfg(target_arch = "aarch64")]
            level => crate::neon::kernels(level),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Level::Simd128 => Some(crate::simd128::kernels()),
            #[cfg(not(any(all(target_arch = "x86_64", feature = "std"), target_arch = "aarch64")))]
            _ => None,
        }
    }

    fn of(&self, format: BlockFormat) -> &FormatKernels {
        &self.0.formats[format as usize]
    }

    /// The products of a quantized format.
    #[track_caller]
    fn int8_products(&self, kernel: &str, format: BlockFormat) -> Int8Products {
        match self.of(format).products {
            Products::Int8(products) => products,
            Products::Floats(_) => {
                panic!("{kernel}_q8: {} weights are multiplied by {kernel}_f32", format.name())
            }
        }
    }

    /// The products of a quantized format stored by columns.
    #[track_caller]
    fn column_products(&self, kernel: &str, format: BlockFormat) -> ColumnProducts {
        self.int8_products(kernel, format).columns.expect("there are no such columns of other formats")
    }

    /// The products of a format of floats.
    #[track_caller]
    fn float_products(&self, kernel: &str, format: BlockFormat) -> FloatProducts {
        match self.of(format).products {
            Products::Floats(products) => products,
            Products::Int8(_) => {
                panic!("{kernel}_f32: {} weights are multiplied by {kernel}_q8", format.name())
            }
        }
    }

    /// The level of these kernels.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// Quantizes the activations `x`, `[tokens x out.cols]`. Identical at every level.
    ///
    /// A block of 32 with NaN or infinity in it gets codes of zero and a scale of NaN, so that every product
    /// with it is NaN. A block whose values are all below 2^-119 in magnitude becomes zero.
    ///
    /// # Panics
    /// If `x` and the parts of `out` do not fit together.
    pub fn quantize(&self, x: &[f32], out: &mut Q8Mut<'_>) {
        q8::check(out.cols, out.q.len(), out.d.len(), out.sums.len());
        same_len("quantize", "x", x.len(), "out.q", out.q.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.quantize)(x, out) }
    }

    /// Products of quantized weights with int8 activations: `out[t][r]` = row `r` of `w` times token `t` of `x`.
    ///
    /// # Panics
    /// If the shapes do not fit together, or `w` is not quantized (see [`matmul_f32`](Self::matmul_f32)).
    pub fn matmul_q8(&self, w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
        q8::check(x.cols, x.q.len(), x.d.len(), x.sums.len());
        same_len("matmul_q8", "w.cols", w.cols(), "x.cols", x.cols);
        same_len("matmul_q8", "w.rows", w.rows(), "out.cols", out.cols());
        same_len("matmul_q8", "x.tokens", x.tokens(), "out.tokens", out.tokens());
        let kernel = self.int8_products("matmul", w.format()).matmul;
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, x, out) }
    }

    /// [`matmul_q8`](Self::matmul_q8) with the bits that each token has when it is multiplied alone, whatever the others
    /// are and however many.
    ///
    /// # Panics
    /// As [`matmul_q8`](Self::matmul_q8).
    pub fn matmul_each_q8(&self, w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
        let Some(kernel) = self.int8_products("matmul_each", w.format()).matmul_each else {
            return self.matmul_q8(w, x, out);
        };
        q8::check(x.cols, x.q.len(), x.d.len(), x.sums.len());
        same_len("matmul_each_q8", "w.cols", w.cols(), "x.cols", x.cols);
        same_len("matmul_each_q8", "w.rows", w.rows(), "out.cols", out.cols());
        same_len("matmul_each_q8", "x.tokens", x.tokens(), "out.tokens", out.tokens());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, x, out) }
    }

    /// [`matmul_f32`](Self::matmul_f32) with the bits that each token has when it is multiplied alone, whatever the
    /// others are and however many.
    ///
    /// # Panics
    /// As [`matmul_f32`](Self::matmul_f32).
    pub fn matmul_each_f32(&self, w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
        /// Of more tokens kernels add the products in another order.
        const FEW: usize = 12;
        same_len("matmul_each_f32", "x", x.len(), "out.tokens * w.cols", out.tokens() * w.cols());
        for (i, x) in x.chunks(FEW * w.cols()).enumerate() {
            let tokens = FEW * i..FEW * i + x.len() / w.cols();
            self.matmul_f32(w, x, &mut out.rows(tokens));
        }
    }

    /// Products of float weights with activations `x`, `[tokens x w.cols()]`: `out[t][r]` = row `r` of `w` times
    /// token `t` of `x`.
    ///
    /// # Panics
    /// If the shapes do not fit together, or `w` is quantized (see [`matmul_q8`](Self::matmul_q8)).
    pub fn matmul_f32(&self, w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) {
        same_len("matmul_f32", "x", x.len(), "out.tokens * w.cols", out.tokens() * w.cols());
        same_len("matmul_f32", "w.rows", w.rows(), "out.cols", out.cols());
        let kernel = self.float_products("matmul", w.format()).matmul;
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, x, out) }
    }

    /// Whether [`matmul_interleaved`](Self::matmul_interleaved) has products of rows in `format`.
    pub fn has_interleaved(&self, format: BlockFormat) -> bool {
        matches!(self.of(format).products, Products::Int8(products) if products.matmul_interleaved.is_some())
    }

    /// Whether they are the faster products of a whole matrix in `format`.
    pub fn prefers_interleaved(&self, format: BlockFormat) -> bool {
        self.has_interleaved(format) && (self.0.prefers_interleaved)(format)
    }

    /// Products of interleaved rows with int8 activations: `out[t][r]` = row `r` of `w` times token `t` of `x`. Identical
    /// at every level, and a token's do not depend on the others.
    ///
    /// # Panics
    /// If the shapes do not fit together, or the format has no such products: see
    /// [`has_interleaved`](Self::has_interleaved).
    pub fn matmul_interleaved(&self, w: Interleaved<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
        q8::check(x.cols, x.q.len(), x.d.len(), x.sums.len());
        same_len("matmul_interleaved", "w.cols", w.layout().cols(), "x.cols", x.cols);
        same_len("matmul_interleaved", "x.tokens", x.tokens(), "out.tokens", out.tokens());
        same_len("matmul_interleaved", "w.rows", w.layout().rows(), "out.cols", out.cols());
        let format = w.layout().format();
        let Some(kernel) = self.int8_products("matmul", format).matmul_interleaved else {
            panic!("matmul_interleaved: no products of {} rows", format.name())
        };
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { kernel(w, x, out) }
    }

    /// Quantizes the activations `x`, `[tokens x out.cols]`, with one scale per row. Identical at every level.
    ///
    /// A row with NaN or infinity in it gets codes of zero and a scale of NaN, so that every product with it is NaN. A
    /// row whose values are all below 2^-119 in magnitude becomes zero.
    ///
    /// # Panics
    /// If `x` and the parts of `out` do not fit together.
    pub fn quantize_rows(&self, x: &[f32], out: &mut Int8Mut<'_>) {
        int8::check(out.cols, out.q.len(), out.d.len());
        same_len("quantize_rows", "x", x.len(), "out.tokens * out.cols", out.d.len() * out.cols);
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.quantize_rows)(x, out) }
    }

    /// Products of packed f32 weights with activations `x`, `[tokens x cols]`: `out[t][r]` = bias of row `r` plus row
    /// `r` of `w` times token `t` of `x`.
    ///
    /// # Panics
    /// If the shapes do not fit together, or `w` is not in f32.
    pub fn matmul_panels_f32(&self, w: Panels<'_>, x: &[f32], out: &mut MatMut<'_>) {
        let layout = w.layout();
        assert!(layout.kind() == PanelKind::F32, "matmul_panels_f32: panels of {:?}", layout.kind());
        same_len("matmul_panels_f32", "x", x.len(), "out.tokens * w.cols", out.tokens() * layout.cols());
        same_len("matmul_panels_f32", "w.rows", layout.rows(), "out.cols", out.cols());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.panels_f32)(w, x, out) }
    }

    /// Products of packed int8 weights with int8 activations: `out[t][r]` = bias of row `r` plus row `r` of `w` times
    /// token `t` of `x`. Identical at every level.
    ///
    /// # Panics
    /// If the shapes do not fit together, or `w` is not in int8.
    pub fn matmul_panels_int8(&self, w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
        let layout = w.layout();
        assert!(layout.kind() == PanelKind::Int8, "matmul_panels_int8: panels of {:?}", layout.kind());
        int8::check(x.cols, x.q.len(), x.d.len());
        same_len("matmul_panels_int8", "w.cols", layout.cols(), "x.cols", x.cols);
        same_len("matmul_panels_int8", "x.tokens", x.tokens(), "out.tokens", out.tokens());
        same_len("matmul_panels_int8", "w.rows", layout.rows(), "out.cols", out.cols());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.panels_int8)(w, x, out) }
    }

    /// Sums of weighted rows: `out[t]` = sum over `r` of `x[t][r]` times row `r` of `w`, where `x` is
    /// `[out.tokens() x w.rows()]`. With attention weights as `x` and values as `w` this is the output of attention.
    ///
    /// Each row is read once for a few tokens (once for all of them, if `w` is quantized), so one call for many is the
    /// fast way. A weight of zero does not hide NaN or infinity. A column's sums do not depend on the others, nor a
    /// token's.
    ///
    /// # Panics
    /// If the shapes do not fit together.
    pub fn weighted_sum(&self, x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>) {
        same_len("weighted_sum", "x", x.len(), "out.tokens * w.rows", out.tokens() * w.rows());
        same_len("weighted_sum", "w.cols", w.cols(), "out.cols", out.cols());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.of(w.format()).weighted_sum)(x, w, out) }
    }

    /// Scores of rows in a few bits: `out[r]` = row `r` of `w` times `x`, one token, plus the row's bias. Identical at
    /// every level.
    ///
    /// # Panics
    /// If the shapes do not fit together, or `x` is not one token.
    pub fn scan(&self, w: Tiles<'_>, x: Q8<'_>, out: &mut [f32]) {
        q8::check(x.cols, x.q.len(), x.d.len(), x.sums.len());
        same_len("scan", "w.dims", w.layout().dims(), "x.cols", x.cols);
        same_len("scan", "x.tokens", x.tokens(), "one", 1);
        same_len("scan", "w.rows", w.layout().rows(), "out", out.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.scan)(w, x, out) }
    }

    /// The dot product of `a` and `b`.
    ///
    /// # Panics
    /// If their lengths differ.
    pub fn dot_f32(&self, a: &[f32], b: &[f32]) -> f32 {
        same_len("dot_f32", "a", a.len(), "b", b.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.dot_f32)(a, b) }
    }

    /// `y += a * x`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn axpy_f32(&self, a: f32, x: &[f32], y: &mut [f32]) {
        same_len("axpy_f32", "x", x.len(), "y", y.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.axpy_f32)(a, x, y) }
    }

    /// Converts to half precision, rounding to nearest, ties to even. Identical at every level, but for the
    /// payloads of NaN.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn to_f16(&self, x: &[f32], out: &mut [f16]) {
        same_len("to_f16", "x", x.len(), "out", out.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.to_f16)(x, out) }
    }

    /// Root-mean-square norm of one row: `out[i] = x[i] * weight[i] / sqrt(mean(x^2) + eps)`
    /// (Zhang and Sennrich 2019, arXiv 1910.07467).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm(&self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        same_len("rms_norm", "x", x.len(), "weight", weight.len());
        same_len("rms_norm", "x", x.len(), "out", out.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.rms_norm)(x, weight, eps, out) }
    }

    /// Layer norm of one row: `out[i] = (x[i] - mean(x)) / sqrt(variance(x) + eps) * weight[i] + bias[i]`
    /// (Ba et al. 2016, arXiv 1607.06450); the variance is the mean of squared deviations.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn layer_norm(&self, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        same_len("layer_norm", "x", x.len(), "weight", weight.len());
        same_len("layer_norm", "x", x.len(), "bias", bias.len());
        same_len("layer_norm", "x", x.len(), "out", out.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.layer_norm)(x, weight, bias, eps, out) }
    }

    /// `x[i] = exp(x[i] - max) / sum exp(x[j] - max)`.
    ///
    /// -inf gives zero beside a finite value. A slice that holds NaN or +inf, or nothing but -inf, becomes all
    /// NaN; an empty one stays empty.
    pub fn softmax(&self, x: &mut [f32]) {
        // SAFETY: a table is only handed out on CPUs of its level.
        unsafe { (self.0.softmax)(x) }
    }

    /// The Hadamard transform of order 16: `x` becomes `H x`, where `x` is seen as 16 rows of equal length and `H` is the
    /// symmetric matrix of signs with `H H = 16` (Sylvester's). Identical at every level.
    ///
    /// A value that stands out is spread over sixteen, so that vectors lose less when they are rounded to integers with
    /// one scale. Products stay what they were if the weights are transformed, too, and divided by 16
    /// (Ashkboos et al. 2024, arXiv 2404.00456).
    ///
    /// # Panics
    /// If the length is no multiple of 16.
    pub fn hadamard(&self, x: &mut [f32]) {
        assert!(x.len().is_multiple_of(hadamard::ORDER), "hadamard: {} values", x.len());
        // SAFETY: a table is only handed out on CPUs of its level.
        unsafe { (self.0.hadamard)(x) }
    }

    /// The Hadamard transform of each run of `order` values of `x`: `H x` with the symmetric matrix of signs that has
    /// `H H = order`. Identical at every level.
    ///
    /// # Panics
    /// If `order` is no power of two, or the length is no multiple of it.
    pub fn hadamard_runs(&self, x: &mut [f32], order: usize) {
        assert!(order.is_power_of_two(), "hadamard_runs: order {order}");
        assert!(x.len().is_multiple_of(order), "hadamard_runs: {} values of order {order}", x.len());
        // SAFETY: a table is only handed out on CPUs of its level.
        unsafe { (self.0.hadamard_runs)(x, order) }
    }

    /// Rounds finite values to two bits: `codes[i]` is the `q` from 0 to 3 for which `x[i] * inverse` is closest to
    /// `q - 1.5`. Returns the dot products of all `q - 1.5` with `x` and with themselves. Identical at every level.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn round_pairs(&self, x: &[f32], inverse: f32, codes: &mut [u8]) -> [f32; 2] {
        same_len("round_pairs", "x", x.len(), "codes", codes.len());
        // SAFETY: the lengths are the same, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.round_pairs)(x, inverse, codes) }
    }

    /// `x[i] = f(x[i])`, within the bounds that [`Activation`] states.
    pub fn activate(&self, f: Activation, x: &mut [f32]) {
        // SAFETY: a table is only handed out on CPUs of its level.
        unsafe { (self.0.activate)(f, x) }
    }

    /// `gate[i] = f(gate[i]) * up[i]`: a gated activation, with [`Activation::Silu`] that of SwiGLU (Shazeer 2020,
    /// arXiv 2002.05202).
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn activate_mul(&self, f: Activation, gate: &mut [f32], up: &[f32]) {
        same_len("activate_mul", "gate", gate.len(), "up", up.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.activate_mul)(f, gate, up) }
    }

    /// `y += x`.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn add(&self, y: &mut [f32], x: &[f32]) {
        same_len("add", "y", y.len(), "x", x.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.add)(y, x) }
    }

    /// Rotates each pair `(x[2i], x[2i + 1])` by the angle whose cosine and sine are `cos[i]` and `sin[i]`: the
    /// rotary position embedding of one head (Su et al. 2021, arXiv 2104.09864), adjacent pairs.
    ///
    /// # Panics
    /// If `cos` and `sin` are not half as long as `x`.
    pub fn rope(&self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        same_len("rope", "x", x.len(), "2 * cos", 2 * cos.len());
        same_len("rope", "cos", cos.len(), "sin", sin.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.rope)(x, cos, sin) }
    }

    /// Like [`rope`](Self::rope), with the pairs `(x[i], x[i + n / 2])`: the halves of a head of `n` values, as
    /// GPT-NeoX has them.
    ///
    /// # Panics
    /// If `cos` and `sin` are not half as long as `x`.
    pub fn rope_halves(&self, x: &mut [f32], cos: &[f32], sin: &[f32]) {
        same_len("rope_halves", "x", x.len(), "2 * cos", 2 * cos.len());
        same_len("rope_halves", "cos", cos.len(), "sin", sin.len());
        // SAFETY: the shapes fit, and a table is only handed out on CPUs of its level.
        unsafe { (self.0.rope_halves)(x, cos, sin) }
    }
}

/// Panics when two lengths that the kernels rely on differ.
#[track_caller]
fn same_len(kernel: &str, a: &str, a_len: usize, b: &str, b_len: usize) {
    assert!(a_len == b_len, "{kernel}: {a} is {a_len} but {b} is {b_len}");
}
