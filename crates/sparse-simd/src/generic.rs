//! Kernels that are written once over the vectors of a level: those on floats for any width, those on integers for 128
//! bits, and what all drivers share.

pub(crate) mod bits128;
pub(crate) mod columns;
pub(crate) mod gemm;
pub(crate) mod int8;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod prefetch;
pub(crate) mod products;
pub(crate) mod rows;
pub(crate) mod scales;
pub(crate) mod scan;
pub(crate) mod sums;

/// Makes functions of a level's table from the generic ones: `functions! { token, features; ... }`.
macro_rules! functions {
    ($token:ty, $features:literal; $(
        $name:ident $(<$of:ident: $bound:ident>)? ($($arg:ident: $kind:ty),*) $(-> $out:ty)?
            = $module:ident::$generic:ident $(::<_, $stored:ident>)?($($value:expr),*);
    )*) => {$(
        #[target_feature(enable = $features)]
        pub(super) fn $name $(<$of: $bound>)? ($($arg: $kind),*) $(-> $out)? {
            $module::$generic$(::<_, $stored>)?(<$token>::new(), $($value),*)
        }
    )*};
}

/// Products with float weights: `product_functions!(token, features)`, beside [`float_functions`].
macro_rules! product_functions {
    ($token:ty, $features:literal) => {

        crate::generic::functions! { $token, $features;
            matmul<W: Stored>(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) = products::matmul::<_, W>(w, x, out);
            matmul_rows<W: Stored>(w: Rows<'_>, active: &[u32], x: &[f32], out: &mut [f32])
                = products::matmul_rows::<_, W>(w, active, x, out);
            dot_f32(a: &[f32], b: &[f32]) -> f32 = products::dot(a, b);
            axpy_f32(a: f32, x: &[f32], y: &mut [f32]) = products::axpy::<_, f32>(a, bytemuck::cast_slice(x), y);
        }

        pub(crate) const fn float_products<W: Stored>() -> FloatProducts {
            FloatProducts {
                matmul: matmul::<W>,
                rows: matmul_rows::<W>,
                axpy_columns: axpy_columns::<W>,
            }
        }
    };
}

/// A level's other functions on floats: `float_functions!(token, features)`, in a module of its own. What they ask
/// of their caller is said at [`Table`](crate::table::Table).
macro_rules! float_functions {
    ($token:ty, $features:literal) => {
        use crate::generic::{
            gemm::{self, GemmStep, Job},
            int8::{self, Int8Step},
            math, products, rows, scan as tiles,
            sums::{self, Blocks, Called, Floats, Known, Plain, Strip},
        };
        use crate::layout::{Block, Groups, decode_blocks};
        use crate::simd::{Simd, Stored};
        use crate::table::{FloatProducts, FormatKernels, Int8Products, Products};
        use crate::{Activation, Columns, Int8, Int8Mut, MatMut, Panels, Q8, Rows, Tiles};
        use core::ops::Range;
        use half::f16;

        crate::generic::functions! { $token, $features;
            sum_floats<W: Stored>(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>)
                = products::weighted_sum::<_, W>(x, w, out);
            decode_strip<F: Known>(bytes: &[u8], out: &mut Strip) = sums::decode::<_, F>(bytes, out);
            sum_called(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>, decode: Called)
                = sums::weighted_sum(x, w, out, decode);
            sum_plain(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>, decode: fn(&[u8], &mut [f32]))
                = sums::weighted_sum(x, w, out, Plain(decode));
            axpy_columns<W: Stored>(w: Columns<'_>, active: &[u32], h: &[f32], rows: Range<usize>, out: &mut [f32])
                = products::axpy_columns::<_, W>(w, active, h, rows, out);
            add_rows<F: Known>(w: Rows<'_>, active: &[u32], h: &[f32], cols: Range<usize>, out: &mut [f32])
                = sums::add_rows(w, active, h, cols, out, F::NEW);
            add_called(
                w: Rows<'_>,
                active: &[u32],
                h: &[f32],
                cols: Range<usize>,
                out: &mut [f32],
                decode: Called
            ) = sums::add_rows(w, active, h, cols, out, decode);
            add_plain(
                w: Rows<'_>,
                active: &[u32],
                h: &[f32],
                cols: Range<usize>,
                out: &mut [f32],
                decode: fn(&[u8], &mut [f32])
            ) = sums::add_rows(w, active, h, cols, out, Plain(decode));
            to_f16(x: &[f32], out: &mut [f16]) = rows::to_f16(x, out);
            rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) = rows::rms_norm(x, w, eps, out);
            layer_norm(x: &[f32], w: &[f32], b: &[f32], eps: f32, out: &mut [f32])
                = rows::layer_norm(x, w, b, eps, out);
            softmax(x: &mut [f32]) = rows::softmax(x);
            activate(f: Activation, x: &mut [f32]) = math::activate(f, x);
            activate_mul(f: Activation, gate: &mut [f32], up: &[f32]) = math::activate_mul(f, gate, up);
            add(y: &mut [f32], x: &[f32]) = rows::add(y, x);
            rope_halves(x: &mut [f32], cos: &[f32], sin: &[f32]) = rows::rope_halves(x, cos, sin);
            scan(w: Tiles<'_>, x: Q8<'_>, out: &mut [f32]) = tiles::scan(w, x, out);
            quantize_rows(x: &[f32], out: &mut Int8Mut<'_>) = int8::quantize_rows(x, out);
            panels_f32(w: Panels<'_>, x: &[f32], out: &mut MatMut<'_>) = gemm::packed(w, x, out);
        }

        #[target_feature(enable = $features)]
        pub(super) fn hadamard(x: &mut [f32]) {
            crate::hadamard::transform(x);
        }

        #[target_feature(enable = $features)]
        pub(super) fn hadamard_runs(x: &mut [f32], order: usize) {
            crate::hadamard::runs(x, order);
        }

        #[target_feature(enable = $features)]
        pub(super) fn round_pairs(x: &[f32], inverse: f32, codes: &mut [u8]) -> [f32; 2] {
            crate::tiles::round_pairs(x, inverse, codes)
        }

        #[target_feature(enable = $features)]
        pub(super) fn panels_int8(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
            int8::multiply::<_, { <$token as Int8Step>::TOKENS }>(<$token>::new(), w, x, out);
        }

        /// One tile function per level: inlined into every product, it would be compiled a dozen times.
        #[target_feature(enable = $features)]
        fn multiply(job: &Job<'_, $token>, out: &mut MatMut<'_>) {
            const V: usize = <$token as GemmStep>::VECTORS;
            const T: usize = <$token as GemmStep>::TOKENS;
            crate::generic::gemm::multiply::<_, V, T>(<$token>::new(), job, out);
        }

        /// The entry of a format of floats.
        pub(super) const fn floats<W: Stored>(products: FloatProducts) -> FormatKernels {
            FormatKernels {
                format: W::FORMAT,
                products: Products::Floats(products),
                add_rows: add_rows::<Floats<W>>,
                weighted_sum: sum_floats::<W>,
            }
        }

        /// The entry of a quantized format.
        pub(super) const fn blocks<B: Block>(products: Int8Products) -> FormatKernels {
            /// # Safety
            /// As for [`FormatKernels`].
            unsafe fn add_supers<B: Block>(
                w: Rows<'_>,
                active: &[u32],
                h: &[f32],
                cols: Range<usize>,
                out: &mut [f32],
            ) {
                // SAFETY: the caller promises the level's instructions, weights in blocks of `B`, and
                // shapes that fit.
                unsafe { add_called(w, active, h, cols, out, Called::new(decode_strip::<Blocks<B>>)) }
            }

            /// # Safety
            /// As for [`FormatKernels`].
            unsafe fn weighted_sum<B: Block>(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>) {
                // SAFETY: the caller promises the level's instructions, weights in blocks of `B`, and
                // shapes that fit.
                unsafe { sum_called(x, w, out, Called::new(decode_strip::<Blocks<B>>)) }
            }

            FormatKernels {
                format: B::FORMAT,
                products: Products::Int8(products),
                // Blocks of 32 need not go through memory.
                add_rows: if B::LEN == 32 { add_rows::<Blocks<B>> } else { add_supers::<B> },
                weighted_sum: weighted_sum::<B>,
            }
        }

        /// The entry of a quantized format that is decoded in plain Rust.
        pub(super) const fn groups<B: Groups>(products: Int8Products) -> FormatKernels {
            /// # Safety
            /// As for [`FormatKernels`].
            unsafe fn add_rows<B: Block>(
                w: Rows<'_>,
                active: &[u32],
                h: &[f32],
                cols: Range<usize>,
                out: &mut [f32],
            ) {
                // SAFETY: the caller promises weights in blocks of `B`, and shapes that fit.
                unsafe { add_plain(w, active, h, cols, out, decode_blocks::<B>) }
            }

            /// # Safety
            /// As for [`FormatKernels`].
            unsafe fn weighted_sum<B: Block>(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>) {
                // SAFETY: the caller promises weights in blocks of `B`, and shapes that fit.
                unsafe { sum_plain(x, w, out, decode_blocks::<B>) }
            }

            FormatKernels {
                format: B::FORMAT,
                products: Products::Int8(products),
                add_rows: add_rows::<B>,
                weighted_sum: weighted_sum::<B>,
            }
        }
    };
}
pub(crate) use {float_functions, functions, product_functions};
