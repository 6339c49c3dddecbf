//! Kernels for 64-bit ARM: vectors of 16 bytes, and the generic kernels on them. `npu` has what later CPUs add.

#[cfg(feature = "npu")]
mod npu;
mod packed;

use crate::generic::bits128::quantized::SubScales;
use crate::generic::bits128::{Bits128, level};
use crate::generic::prefetch::prefetch_far;
use core::arch::aarch64::*;
use core::arch::asm;
use core::marker::PhantomData;

/// Proof of NEON, and of the instructions of `D`.
#[derive(Clone, Copy)]
struct Neon<D>(PhantomData<D>);

impl<D> Neon<D> {
    /// # Safety
    /// - The CPU has the instructions of `D`.
    #[inline(always)]
    unsafe fn assume() -> Self {
        Self(PhantomData)
    }
}

impl Neon<Pairs> {
    #[inline]
    #[target_feature(enable = "neon")]
    fn new() -> Self {
        Self(PhantomData)
    }
}

level!(Neon<Pairs>, "neon", Level::Neon);

/// The kernels of `level`, if the CPU has its instructions.
pub(crate) fn kernels(level: Level) -> Option<&'static Kernels> {
    match level {
        Level::Neon => Some(&KERNELS),
        #[cfg(feature = "npu")]
        level => npu::kernels(level),
        #[cfg(not(feature = "npu"))]
        _ => None,
    }
}

/// How bytes are multiplied.
trait Dot: Copy {
    /// Adds products of four adjacent bytes to each sum.
    ///
    /// # Safety
    /// - The CPU has the instructions.
    unsafe fn add_products(sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t;

    /// See [`Bits128::group`].
    ///
    /// # Safety
    /// - The CPU has the instructions.
    unsafe fn group<S: Step>(codes: [int8x16_t; 2], x: [int8x16_t; 2], sub: int16x8_t, g: usize)
    -> int32x4_t;
}

/// Products in 16 bits, which are added in pairs.
#[derive(Clone, Copy)]
struct Pairs;

impl Dot for Pairs {
    #[inline(always)]
    unsafe fn add_products(sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
        // SAFETY: the caller promises that the CPU has the instructions.
        unsafe {
            let low = vmull_s8(vget_low_s8(codes), vget_low_s8(x));
            vpadalq_s16(sums, vpaddq_s16(low, vmull_high_s8(codes, x)))
        }
    }

    #[inline(always)]
    unsafe fn group<S: Step>(
        codes: [int8x16_t; 2],
        x: [int8x16_t; 2],
        sub: int16x8_t,
        g: usize,
    ) -> int32x4_t {
        // SAFETY: the caller promises that the CPU has the instructions.
        unsafe {
            let first = vmull_s8(vget_low_s8(codes[0]), vget_low_s8(x[0]));
            let first = vmlal_high_s8(first, codes[0], x[0]);
            // Small codes leave room for all four products in 16 bits.
            let both = vmlal_s8(first, vget_low_s8(codes[1]), vget_low_s8(x[1]));
            let both = vmlal_high_s8(both, codes[1], x[1]);
            let second = vmull_s8(vget_low_s8(codes[1]), vget_low_s8(x[1]));
            let second = vmlal_high_s8(second, codes[1], x[1]);
            let none = vdupq_n_s32(0);
            match S::SUB_SCALES {
                SubScales::None if S::SIGNED => vpadalq_s16(vpaddlq_s16(first), second),
                SubScales::None => vpaddlq_s16(both),
                SubScales::Group => add_times(none, both, sub, 2 * g),
                SubScales::Half => add_times(add_times(none, first, sub, 2 * g), second, sub, 2 * g + 1),
            }
        }
    }
}

/// Adds number `i` of `factors` times `x`, its upper half to its lower one.
#[inline]
#[target_feature(enable = "neon")]
fn add_times(sums: int32x4_t, x: int16x8_t, factors: int16x8_t, i: usize) -> int32x4_t {
    /// With a factor that instructions name.
    #[inline]
    #[target_feature(enable = "neon")]
    fn by<const I: i32>(sums: int32x4_t, x: int16x8_t, factors: int16x8_t) -> int32x4_t {
        let sums = vmlal_laneq_s16::<I>(sums, vget_low_s16(x), factors);
        vmlal_high_laneq_s16::<I>(sums, x, factors)
    }
    match i {
        0 => by::<0>(sums, x, factors),
        1 => by::<1>(sums, x, factors),
        2 => by::<2>(sums, x, factors),
        3 => by::<3>(sums, x, factors),
        4 => by::<4>(sums, x, factors),
        5 => by::<5>(sums, x, factors),
        6 => by::<6>(sums, x, factors),
        _ => by::<7>(sums, x, factors),
    }
}

/// Calls a function with target features; loads and stores are as long as the reference.
macro_rules! with_neon {
    ($code:expr) => {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { $code }
    };
}

impl<D: Dot> Simd for Neon<D> {
    type F = float32x4_t;
    type Floats = [f32; 4];
    type Halves = [u16; 4];
    type Square = [float32x4_t; 4];
    type Wide = [float32x4_t; 8];

    #[inline(always)]
    fn zeros(self) -> Self::Square {
        [self.splat(0.0); 4]
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        with_neon!(vdupq_n_f32(x))
    }

    #[inline(always)]
    fn wide(self, x: f32) -> Self::Wide {
        [self.splat(x); 8]
    }

    #[inline(always)]
    fn load(self, x: &[f32; 4]) -> float32x4_t {
        with_neon!(vld1q_f32(x.as_ptr()))
    }

    #[inline(always)]
    fn store(self, x: float32x4_t, out: &mut [f32; 4]) {
        with_neon!(vst1q_f32(out.as_mut_ptr(), x))
    }

    #[inline(always)]
    fn f16s(self, x: &[u16; 4]) -> float32x4_t {
        let floats;
        // SAFETY: `self` proves that the CPU has the instruction. Rust's own name for it is not stable.
        unsafe {
            asm!(
                "fcvtl {floats:v}.4s, {x:v}.4h",
                floats = out(vreg) floats,
                x = in(vreg) vld1_u16(x.as_ptr()),
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        floats
    }

    #[inline(always)]
    fn bf16s(self, x: &[u16; 4]) -> float32x4_t {
        with_neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.as_ptr()))))
    }

    #[inline(always)]
    fn bytes(self, x: &[i8]) -> float32x4_t {
        let &[a, b, c, d] = x else { panic!("four integers") };
        with_neon!({
            let x = vreinterpret_s8_s32(vdup_n_s32(i32::from_le_bytes([a, b, c, d].map(|x| x as u8))));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(x))))
        })
    }

    #[inline(always)]
    fn to_f16s(self, x: float32x4_t) -> [u16; 4] {
        let halves: uint16x4_t;
        // SAFETY: as in `f16s`; any bits are four integers.
        unsafe {
            asm!(
                "fcvtn {halves:v}.4h, {x:v}.4s",
                halves = out(vreg) halves,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
            core::mem::transmute::<uint16x4_t, [u16; 4]>(halves)
        }
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with_neon!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with_neon!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with_neon!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with_neon!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        with_neon!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with_neon!(vbslq_f32(vcltq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        with_neon!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn abs(self, x: float32x4_t) -> float32x4_t {
        with_neon!(vabsq_f32(x))
    }

    #[inline(always)]
    fn copysign(self, x: float32x4_t, sign: float32x4_t) -> float32x4_t {
        with_neon!(vbslq_f32(vdupq_n_u32(1 << 31), sign, x))
    }

    #[inline(always)]
    fn round(self, x: float32x4_t) -> float32x4_t {
        with_neon!(vrndnq_f32(x))
    }

    #[inline(always)]
    fn scale(self, x: float32x4_t, n: float32x4_t) -> float32x4_t {
        with_neon!({
            let n = vcvtnq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            vmulq_f32(vmulq_f32(x, power_of_2(half)), power_of_2(vsubq_s32(n, half)))
        })
    }

    #[inline(always)]
    fn select_less(self, a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
        with_neon!(vbslq_f32(vcltq_f32(a, b), yes, no))
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [float32x4_t; 4]) -> [f32; 4] {
        let mut sums = [0.0; 4];
        with_neon!(vst1q_f32(sums.as_mut_ptr(), vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))));
        sums
    }

    #[inline(always)]
    fn sum(self, x: float32x4_t) -> f32 {
        with_neon!(vaddvq_f32(x))
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
        with_neon!({
            // Pairs of values change places, then pairs of those.
            let (ab0, ab1) =
                (vreinterpretq_f64_f32(vtrn1q_f32(a, b)), vreinterpretq_f64_f32(vtrn2q_f32(a, b)));
            let (cd0, cd1) =
                (vreinterpretq_f64_f32(vtrn1q_f32(c, d)), vreinterpretq_f64_f32(vtrn2q_f32(c, d)));
            [
                vreinterpretq_f32_f64(vtrn1q_f64(ab0, cd0)),
                vreinterpretq_f32_f64(vtrn1q_f64(ab1, cd1)),
                vreinterpretq_f32_f64(vtrn2q_f64(ab0, cd0)),
                vreinterpretq_f32_f64(vtrn2q_f64(ab1, cd1)),
            ]
        })
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        prefetch_far(bytes.as_ptr(), bytes.len());
    }
}

impl GemmStep for Neon<Pairs> {
    type Panel = [[f32; 4]; 4 * gemm::COLS];

    // 16 accumulators, four vectors of weights and a value of x, of 32 registers.
    const VECTORS: usize = 4;
    const TOKENS: usize = 4;

    #[inline(always)]
    fn multiply(self, job: &Job<'_, Self>, out: &mut MatMut<'_>) {
        with_neon!(multiply(job, out))
    }
}

impl<D: Dot> Bits128 for Neon<D> {
    type I = uint8x16_t;

    const WIDE: bool = true;

    #[inline(always)]
    fn load16(self, x: &[u8; 16]) -> uint8x16_t {
        with_neon!(vld1q_u8(x.as_ptr()))
    }

    #[inline(always)]
    fn load8(self, x: &[u8; 8]) -> uint8x16_t {
        with_neon!(vcombine_u8(vld1_u8(x.as_ptr()), vdup_n_u8(0)))
    }

    #[inline(always)]
    fn store16(self, x: uint8x16_t, out: &mut [u8; 16]) {
        with_neon!(vst1q_u8(out.as_mut_ptr(), x))
    }

    #[inline(always)]
    fn splat8(self, x: i8) -> uint8x16_t {
        with_neon!(vdupq_n_u8(x as u8))
    }

    #[inline(always)]
    fn splat16(self, x: i16) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s16(vdupq_n_s16(x)))
    }

    #[inline(always)]
    fn splat32(self, x: i32) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s32(vdupq_n_s32(x)))
    }

    #[inline(always)]
    fn and(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vandq_u8(a, b))
    }

    #[inline(always)]
    fn or(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vorrq_u8(a, b))
    }

    #[inline(always)]
    fn shl16(self, x: uint8x16_t, by: u32) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(x), vdupq_n_s16(by as i16))))
    }

    #[inline(always)]
    fn shr16(self, x: uint8x16_t, by: u32) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_u16(vshlq_u16(vreinterpretq_u16_u8(x), vdupq_n_s16(-(by as i16)))))
    }

    #[inline(always)]
    fn eq8(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vceqq_u8(a, b))
    }

    #[inline(always)]
    fn add8(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vaddq_u8(a, b))
    }

    #[inline(always)]
    fn sub8(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vsubq_u8(a, b))
    }

    #[inline(always)]
    fn sub16(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_u16(vsubq_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b))))
    }

    #[inline(always)]
    fn mul16(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_u16(vmulq_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b))))
    }

    #[inline(always)]
    fn add32(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s32(vaddq_s32(vreinterpretq_s32_u8(a), vreinterpretq_s32_u8(b))))
    }

    #[inline(always)]
    fn sub32(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s32(vsubq_s32(vreinterpretq_s32_u8(a), vreinterpretq_s32_u8(b))))
    }

    #[inline(always)]
    fn max32(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s32(vmaxq_s32(vreinterpretq_s32_u8(a), vreinterpretq_s32_u8(b))))
    }

    #[inline(always)]
    fn look_up(self, table: uint8x16_t, index: uint8x16_t) -> uint8x16_t {
        with_neon!(vqtbl1q_u8(table, index))
    }

    #[inline(always)]
    fn zip_low16(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_u16(vzip1q_u16(vreinterpretq_u16_u8(a), vreinterpretq_u16_u8(b))))
    }

    #[inline(always)]
    fn interleave4(self, [a, b, c, d]: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        with_neon!({
            let low_ab = vreinterpretq_u16_u8(vzip1q_u8(a, b));
            let high_ab = vreinterpretq_u16_u8(vzip2q_u8(a, b));
            let low_cd = vreinterpretq_u16_u8(vzip1q_u8(c, d));
            let high_cd = vreinterpretq_u16_u8(vzip2q_u8(c, d));
            [
                vreinterpretq_u8_u16(vzip1q_u16(low_ab, low_cd)),
                vreinterpretq_u8_u16(vzip2q_u16(low_ab, low_cd)),
                vreinterpretq_u8_u16(vzip1q_u16(high_ab, high_cd)),
                vreinterpretq_u8_u16(vzip2q_u16(high_ab, high_cd)),
            ]
        })
    }

    #[inline(always)]
    fn widen_u8(self, x: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_u16(vmovl_u8(vget_low_u8(x))))
    }

    #[inline(always)]
    fn widen_i8(self, x: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s16(vmovl_s8(vget_low_s8(vreinterpretq_s8_u8(x)))))
    }

    #[inline(always)]
    fn even_i8(self, x: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s16(vshrq_n_s16::<8>(vshlq_n_s16::<8>(vreinterpretq_s16_u8(x)))))
    }

    #[inline(always)]
    fn odd_i8(self, x: uint8x16_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_s16(vshrq_n_s16::<8>(vreinterpretq_s16_u8(x))))
    }

    #[inline(always)]
    fn narrow_u16(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!(vcombine_u8(vmovn_u16(vreinterpretq_u16_u8(a)), vmovn_u16(vreinterpretq_u16_u8(b))))
    }

    /// Codes below 128 are the same with a sign.
    #[inline(always)]
    fn add_products<const SIGNED: bool>(
        self,
        words: uint8x16_t,
        codes: uint8x16_t,
        x: uint8x16_t,
    ) -> uint8x16_t {
        with_neon!({
            let (codes, x) = (vreinterpretq_s8_u8(codes), vreinterpretq_s8_u8(x));
            vreinterpretq_u8_s32(D::add_products(vreinterpretq_s32_u8(words), codes, x))
        })
    }

    #[inline(always)]
    fn add_words(self, sums: uint8x16_t, words: uint8x16_t) -> uint8x16_t {
        self.add32(sums, words)
    }

    #[inline(always)]
    fn group<S: Step>(
        self,
        codes: [uint8x16_t; 2],
        x: [uint8x16_t; 2],
        sub: uint8x16_t,
        g: usize,
    ) -> uint8x16_t {
        with_neon!({
            let codes = [vreinterpretq_s8_u8(codes[0]), vreinterpretq_s8_u8(codes[1])];
            let x = [vreinterpretq_s8_u8(x[0]), vreinterpretq_s8_u8(x[1])];
            vreinterpretq_u8_s32(D::group::<S>(codes, x, vreinterpretq_s16_u8(sub), g))
        })
    }

    #[inline(always)]
    fn upper_nibbles(self, x: uint8x16_t) -> uint8x16_t {
        with_neon!(vshrq_n_u8::<4>(x))
    }

    #[inline(always)]
    fn madd(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        with_neon!({
            let (a, b) = (vreinterpretq_s16_u8(a), vreinterpretq_s16_u8(b));
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            vreinterpretq_u8_s32(vpaddq_s32(low, vmull_high_s16(a, b)))
        })
    }

    #[inline(always)]
    fn lane_sums(self, [a, b, c, d]: [uint8x16_t; 4]) -> uint8x16_t {
        with_neon!({
            let ab = vpaddq_s32(vreinterpretq_s32_u8(a), vreinterpretq_s32_u8(b));
            let cd = vpaddq_s32(vreinterpretq_s32_u8(c), vreinterpretq_s32_u8(d));
            vreinterpretq_u8_s32(vpaddq_s32(ab, cd))
        })
    }

    #[inline(always)]
    fn to_floats(self, x: uint8x16_t) -> float32x4_t {
        with_neon!(vcvtq_f32_s32(vreinterpretq_s32_u8(x)))
    }

    #[inline(always)]
    fn bits(self, x: float32x4_t) -> uint8x16_t {
        with_neon!(vreinterpretq_u8_f32(x))
    }

    #[inline(always)]
    fn to_bytes(self, [a, b, c, d]: [float32x4_t; 4]) -> uint8x16_t {
        with_neon!({
            let ab = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(a)), vmovn_s32(vcvtnq_s32_f32(b)));
            let cd = vcombine_s16(vmovn_s32(vcvtnq_s32_f32(c)), vmovn_s32(vcvtnq_s32_f32(d)));
            vreinterpretq_u8_s8(vcombine_s8(vmovn_s16(ab), vmovn_s16(cd)))
        })
    }
}

/// `2^n` for `n` in -126..=127.
#[inline]
#[target_feature(enable = "neon")]
fn power_of_2(n: int32x4_t) -> float32x4_t {
    vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127))))
}
