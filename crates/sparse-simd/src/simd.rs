//! The vectors of a CPU level, so that an algorithm on floats is written once for all levels.

use crate::layout::Float;
use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

/// Proof that the CPU has a level, and what its vectors of f32 can do.
///
/// A value of an implementing type is only made where the CPU has the features of its level (the constructor has
/// them as `#[target_feature]`), so that the methods are safe. They are inlined into the table's functions, which
/// have the features too: everything between must be `#[inline(always)]`, and free of closures that pass through
/// functions that are not.
pub(crate) trait Simd: Copy {
    /// A vector of [`LANES`](Self::LANES) values.
    type F: Copy;
    /// The same in memory: `[f32; LANES]`.
    type Floats: Pod;
    /// As many half-precision values in memory: `[u16; LANES]`.
    type Halves: Pod;
    /// `[F; LANES]`.
    type Square: AsMut<[Self::F]> + AsRef<[Self::F]>;
    /// 32 values: `[F; 32 / LANES]`.
    type Wide: AsMut<[Self::F]> + AsRef<[Self::F]>;
    /// Values per vector.
    const LANES: usize = size_of::<Self::Floats>() / 4;
    /// Rows of zeros, to be filled.
    fn zeros(self) -> Self::Square;
    fn splat(self, x: f32) -> Self::F;
    /// The same value 32 times.
    fn wide(self, x: f32) -> Self::Wide;
    fn load(self, x: &Self::Floats) -> Self::F;
    fn store(self, x: Self::F, out: &mut Self::Floats);
    /// From IEEE half precision.
    fn f16s(self, x: &Self::Halves) -> Self::F;
    /// From bfloat16.
    fn bf16s(self, x: &Self::Halves) -> Self::F;
    /// From [`LANES`](Self::LANES) integers.
    fn bytes(self, x: &[i8]) -> Self::F;
    /// To IEEE half precision, rounding to nearest, ties to even.
    fn to_f16s(self, x: Self::F) -> Self::Halves;

    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// `a * b + c`.
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// The larger; `b` if either is NaN, or both are zero.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    fn abs(self, x: Self::F) -> Self::F;
    /// The magnitude of `x` with the sign of `sign`.
    fn copysign(self, x: Self::F, sign: Self::F) -> Self::F;
    /// To the nearest integer, ties to even.
    fn round(self, x: Self::F) -> Self::F;
    /// `x * 2^n` for an integral `n` in -252..=254; each half of `n` is a factor of its own.
    fn scale(self, x: Self::F, n: Self::F) -> Self::F;
    /// `yes` where `a < b`, else `no`.
    fn select_less(self, a: Self::F, b: Self::F, yes: Self::F, no: Self::F) -> Self::F;
    /// The sum of the lanes of each vector.
    fn sums(self, x: [Self::F; 4]) -> [f32; 4];
    /// Rows become columns.
    fn transpose(self, rows: Self::Square) -> Self::Square;
    /// Fetches bytes into the second-level cache, for rows that are chosen one by one.
    fn prefetch(self, bytes: &[u8]);

    /// The sum of the lanes.
    #[inline(always)]
    fn sum(self, x: Self::F) -> f32 {
        let zero = self.splat(0.0);
        self.sums([x, zero, zero, zero])[0]
    }

    /// As many values as `x` has, fewer than [`LANES`](Self::LANES); the rest of the vector is `fill`.
    #[inline(always)]
    fn load_part(self, x: &[f32], fill: f32) -> Self::F {
        let mut all = Self::Floats::zeroed();
        let values: &mut [f32] = bytemuck::cast_slice_mut(core::slice::from_mut(&mut all));
        for (i, value) in values.iter_mut().enumerate() {
            *value = if i < x.len() { x[i] } else { fill };
        }
        self.load(&all)
    }

    /// The first values of `x`, as many as `out` takes, fewer than [`LANES`](Self::LANES).
    #[inline(always)]
    fn store_part(self, x: Self::F, out: &mut [f32]) {
        let mut all = Self::Floats::zeroed();
        self.store(x, &mut all);
        let values: &[f32] = bytemuck::cast_slice(core::slice::from_ref(&all));
        for (out, value) in out.iter_mut().zip(values) {
            *out = *value;
        }
    }
}

/// `x` as whole vectors and the rest.
#[inline(always)]
pub(crate) fn split<S: Simd>(x: &[f32]) -> (&[S::Floats], &[f32]) {
    let (whole, rest) = x.split_at(x.len() / S::LANES * S::LANES);
    (bytemuck::cast_slice(whole), rest)
}

/// `x` as whole vectors and the rest.
#[inline(always)]
pub(crate) fn split_mut<S: Simd>(x: &mut [f32]) -> (&mut [S::Floats], &mut [f32]) {
    let (whole, rest) = x.split_at_mut(x.len() / S::LANES * S::LANES);
    (bytemuck::cast_slice_mut(whole), rest)
}

/// The first vector of `x`, which is long enough.
#[inline(always)]
pub(crate) fn first<S: Simd>(x: &[f32]) -> &S::Floats {
    &split::<S>(x).0[0]
}

/// The first vector of `x`, which is long enough.
#[inline(always)]
pub(crate) fn first_mut<S: Simd>(x: &mut [f32]) -> &mut S::Floats {
    &mut split_mut::<S>(x).0[0]
}

/// How values are stored, and how a vector of them is read.
pub(crate) trait Stored: Float {
    /// Bytes per value.
    const BYTES: usize = size_of::<Self::Bytes>();

    /// The [`LANES`](Simd::LANES) values from byte `at` on.
    ///
    /// # Safety
    /// - `at + BYTES * LANES <= bytes.len()`.
    unsafe fn load<S: Simd>(s: S, bytes: &[u8], at: usize) -> S::F;

    /// Fewer values than [`LANES`](Simd::LANES): all of `bytes`; the rest of the vector is zero.
    #[inline(always)]
    fn load_part<S: Simd>(s: S, bytes: &[u8]) -> S::F {
        let mut all = S::Floats::zeroed();
        let all = bytemuck::bytes_of_mut(&mut all);
        for (to, from) in all.iter_mut().zip(bytes) {
            *to = *from;
        }
        // SAFETY: a vector of floats has at least as many bytes as one of any stored type.
        unsafe { Self::load(s, all, 0) }
    }
}

/// Reads a `T` at byte `at`.
///
/// # Safety
/// - `at + size_of::<T>() <= bytes.len()`.
#[inline(always)]
unsafe fn read<T: Pod>(bytes: &[u8], at: usize) -> T {
    debug_assert!(at + size_of::<T>() <= bytes.len());
    // SAFETY: the caller promises that a `T` at `at` lies inside `bytes`; any bytes are a `T`.
    unsafe { bytes.as_ptr().add(at).cast::<T>().read_unaligned() }
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, bytes: &[u8], at: usize) -> S::F {
        // SAFETY: the caller promises that the values at `at` lie inside `bytes`.
        s.load(&unsafe { read(bytes, at) })
    }
}

impl Stored for f16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, bytes: &[u8], at: usize) -> S::F {
        // SAFETY: the caller promises that the values at `at` lie inside `bytes`.
        s.f16s(&unsafe { read(bytes, at) })
    }
}

impl Stored for bf16 {
    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, bytes: &[u8], at: usize) -> S::F {
        // SAFETY: the caller promises that the values at `at` lie inside `bytes`.
        s.bf16s(&unsafe { read(bytes, at) })
    }
}
