//! Kernels on floats, written once over the vectors of a level.

pub(crate) mod gemm;
pub(crate) mod int8;
pub(crate) mod math;
pub(crate) mod products;
pub(crate) mod rows;
pub(crate) mod scan;
pub(crate) mod sums;

/// Makes functions of a level's table from the generic ones: `functions! { token, features; ... }`.
macro_rules! functions {
    ($token:ty, $features:literal; $(
        $name:ident($($arg:ident: $kind:ty),*) $(-> $out:ty)? = $module:ident::$generic:ident
            $(::<_, $stored:ident>)?($($value:expr),*);
    )*) => {$(
        #[target_feature(enable = $features)]
        pub(super) fn $name($($arg: $kind),*) $(-> $out)? {
            $module::$generic$(::<_, $stored>)?(<$token>::new(), $($value),*)
        }
    )*};
}

/// Products with float weights: `product_functions!(token, features)`, beside [`float_functions`].
macro_rules! product_functions {
    ($token:ty, $features:literal) => {
        use crate::simd::{Bf16, F16, F32};

        crate::generic::functions! { $token, $features;
            matmul_f32(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) = products::matmul::<_, F32>(w, x, out);
            matmul_f16(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) = products::matmul::<_, F16>(w, x, out);
            matmul_bf16(w: Rows<'_>, x: &[f32], out: &mut MatMut<'_>) = products::matmul::<_, Bf16>(w, x, out);
            matmul_rows(w: Rows<'_>, active: &[u32], x: &[f32], out: &mut [f32])
                = products::matmul_rows(w, active, x, out);
            dot_f32(a: &[f32], b: &[f32]) -> f32 = products::dot(a, b);
            axpy_f32(a: f32, x: &[f32], y: &mut [f32]) = products::axpy::<_, F32>(a, bytemuck::cast_slice(x), y);
        }
    };
}

/// A level's other functions on floats: `float_functions!(token, features)`, in a module of its own. What they ask
/// of their caller is said at the fields of [`Kernels`](crate::Kernels).
macro_rules! float_functions {
    ($token:ty, $features:literal) => {
        use crate::generic::{
            gemm::{self, Job},
            int8, math, products, rows, scan as tiles,
            sums::{self, Strip},
        };
        use crate::{Activation, BlockFormat, Columns, Int8, Int8Mut, MatMut, Panels, Q8, Rows, Tiles};
        use core::ops::Range;
        use half::f16;

        crate::generic::functions! { $token, $features;
            weighted_sum(x: &[f32], w: Rows<'_>, out: &mut MatMut<'_>) = products::weighted_sum(w, x, out);
            axpy_columns(w: Columns<'_>, active: &[u32], h: &[f32], rows: Range<usize>, out: &mut [f32])
                = products::axpy_columns(w, active, h, rows, out);
            add_rows(w: Rows<'_>, active: &[u32], h: &[f32], cols: Range<usize>, out: &mut [f32])
                = sums::add_rows(w, active, h, cols, out);
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
        pub(super) fn panels_int8(w: Panels<'_>, x: Int8<'_>, out: &mut MatMut<'_>) {
            int8::multiply::<_, { <$token as Simd>::INT8_TOKENS }>(<$token>::new(), w, x, out);
        }

        /// One function per level for all formats, as rows are decoded in several places.
        #[target_feature(enable = $features)]
        pub(super) fn decode(format: BlockFormat, bytes: &[u8], out: &mut Strip) {
            sums::decode(<$token>::new(), format, bytes, out);
        }

        /// One tile function per level: inlined into every product, it would be compiled a dozen times.
        #[target_feature(enable = $features)]
        pub(super) fn multiply(job: &Job<'_, $token>, out: &mut MatMut<'_>) {
            const V: usize = <$token as Simd>::VECTORS;
            const T: usize = <$token as Simd>::TOKENS;
            crate::generic::gemm::multiply::<_, V, T>(<$token>::new(), job, out);
        }
    };
}
pub(crate) use {float_functions, functions, product_functions};
