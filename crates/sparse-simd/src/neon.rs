//! Kernels for 64-bit ARM: NEON, which every such CPU has, and with feature `npu` the dot product instructions of
//! ARMv8.2.

use crate::generic::codes::{Dot, Ints, narrow_level};
use crate::simd::Simd;
use crate::table::Table;
use crate::{Kernels, Level, scalar};
use core::arch::aarch64::*;
use core::arch::asm;

narrow_level!(Neon, "neon", 4);

static NEON: Kernels = Kernels(TABLE);

const TABLE: Table = Table {
    level: Level::Neon,
    formats: floats::formats::<Widening>(),
    prefers_interleaved: false,
    quantize: scalar::TABLE.quantize,
    quantize_rows: floats::quantize_rows,
    panels_f32: floats::panels_f32,
    panels_int8: floats::panels_int8,
    scan: floats::scan,
    dot_f32: floats::dot_f32,
    axpy_f32: floats::axpy_f32,
    to_f16: floats::to_f16,
    rms_norm: floats::rms_norm,
    hadamard: floats::hadamard,
    layer_norm: floats::layer_norm,
    softmax: floats::softmax,
    activate: floats::activate,
    activate_mul: floats::activate_mul,
    add: floats::add,
    // A plain loop, which compilers make vectors already.
    rope: scalar::TABLE.rope,
    rope_halves: floats::rope_halves,
};

#[cfg(feature = "npu")]
static DOTPROD: Kernels =
    Kernels(Table { level: Level::Dotprod, formats: floats::formats::<FourProducts>(), ..TABLE });

/// The kernels of `level`, if the CPU has its instructions.
pub(crate) fn kernels(level: Level) -> Option<&'static Kernels> {
    match level {
        Level::Neon => Some(&NEON),
        #[cfg(feature = "npu")]
        Level::Dotprod if std::arch::is_aarch64_feature_detected!("dotprod") => Some(&DOTPROD),
        _ => None,
    }
}

/// NEON. All 64-bit ARM targets of this crate have it.
#[derive(Clone, Copy)]
pub(crate) struct Neon;

impl Neon {
    #[inline(always)]
    fn new() -> Self {
        Self
    }
}

/// Calls a function with target features.
macro_rules! neon {
    ($code:expr) => {
        // SAFETY: every CPU of this architecture has NEON; accesses have the size of references to arrays.
        unsafe { $code }
    };
}

impl Simd for Neon {
    type F = float32x4_t;
    type Floats = [f32; 4];
    type Halves = [u16; 4];
    type Square = [float32x4_t; 4];
    type Wide = [float32x4_t; 8];

    #[inline(always)]
    fn zeros(self) -> Self::Square {
        neon!([vdupq_n_f32(0.0); 4])
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        neon!(vdupq_n_f32(x))
    }

    #[inline(always)]
    fn wide(self, x: f32) -> Self::Wide {
        neon!([vdupq_n_f32(x); 8])
    }

    #[inline(always)]
    fn load(self, x: &[f32; 4]) -> float32x4_t {
        // SAFETY: 4 floats can be read behind the reference.
        unsafe { vld1q_f32(x.as_ptr()) }
    }

    #[inline(always)]
    fn store(self, x: float32x4_t, out: &mut [f32; 4]) {
        // SAFETY: 4 floats can be written behind the reference.
        unsafe { vst1q_f32(out.as_mut_ptr(), x) }
    }

    /// The intrinsic needs a type that is not stable yet.
    #[inline(always)]
    fn f16s(self, x: &[u16; 4]) -> float32x4_t {
        let out;
        // SAFETY: the load is as long as the reference; the instruction only touches its registers.
        unsafe {
            asm!("fcvtl {out:v}.4s, {x:v}.4h", out = lateout(vreg) out, x = in(vreg) vld1_u16(x.as_ptr()),
                options(pure, nomem, nostack, preserves_flags));
        }
        out
    }

    #[inline(always)]
    fn bf16s(self, x: &[u16; 4]) -> float32x4_t {
        // The load is as long as the reference.
        neon!(vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(x.as_ptr()))))
    }

    #[inline(always)]
    fn bytes(self, x: &[i8]) -> float32x4_t {
        assert!(x.len() == 4);
        let x: [f32; 4] = core::array::from_fn(|i| f32::from(x[i]));
        self.load(&x)
    }

    #[inline(always)]
    fn to_f16s(self, x: float32x4_t) -> [u16; 4] {
        let half: uint16x4_t;
        // SAFETY: the instruction only touches its registers.
        unsafe {
            asm!("fcvtn {half:v}.4h, {x:v}.4s", half = lateout(vreg) half, x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags));
        }
        let mut out = [0; 4];
        // SAFETY: the store is as long as the reference.
        unsafe { vst1_u16(out.as_mut_ptr(), half) };
        out
    }

    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        neon!(vfmaq_f32(c, a, b))
    }

    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vbslq_f32(vcltq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        neon!(vbslq_f32(vcgtq_f32(a, b), a, b))
    }

    #[inline(always)]
    fn abs(self, x: float32x4_t) -> float32x4_t {
        neon!(vabsq_f32(x))
    }

    #[inline(always)]
    fn copysign(self, x: float32x4_t, sign: float32x4_t) -> float32x4_t {
        neon!(vbslq_f32(vdupq_n_u32(0x8000_0000), sign, x))
    }

    #[inline(always)]
    fn round(self, x: float32x4_t) -> float32x4_t {
        neon!(vrndnq_f32(x))
    }

    #[inline(always)]
    fn scale(self, x: float32x4_t, n: float32x4_t) -> float32x4_t {
        neon!({
            let n = vcvtnq_s32_f32(n);
            let half = vshrq_n_s32::<1>(n);
            vmulq_f32(vmulq_f32(x, power_of_2(half)), power_of_2(vsubq_s32(n, half)))
        })
    }

    #[inline(always)]
    fn select_less(self, a: float32x4_t, b: float32x4_t, yes: float32x4_t, no: float32x4_t) -> float32x4_t {
        neon!(vbslq_f32(vcltq_f32(a, b), yes, no))
    }

    #[inline(always)]
    fn sums(self, [a, b, c, d]: [float32x4_t; 4]) -> [f32; 4] {
        neon!({
            let mut out = [0.0; 4];
            self.store(vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)), &mut out);
            out
        })
    }

    #[inline(always)]
    fn sum(self, x: float32x4_t) -> f32 {
        neon!(vaddvq_f32(x))
    }

    #[inline(always)]
    fn transpose(self, [a, b, c, d]: [float32x4_t; 4]) -> [float32x4_t; 4] {
        neon!({
            let pairs = |a, b| {
                let (low, high) = (vtrn1q_f32(a, b), vtrn2q_f32(a, b));
                [vreinterpretq_f64_f32(low), vreinterpretq_f64_f32(high)]
            };
            let ([a, b], [c, d]) = (pairs(a, b), pairs(c, d));
            [vtrn1q_f64(a, c), vtrn1q_f64(b, d), vtrn2q_f64(a, c), vtrn2q_f64(b, d)]
                .map(|x| vreinterpretq_f32_f64(x))
        })
    }

    #[inline(always)]
    fn prefetch(self, bytes: &[u8]) {
        for line in bytes.chunks(64) {
            // SAFETY: a hint that reads nothing.
            unsafe {
                asm!("prfm pldl2keep, [{at}]", at = in(reg) line.as_ptr(),
                    options(readonly, nostack, preserves_flags));
            }
        }
    }
}

/// `2^n` for `n` in -126..=127.
#[inline(always)]
fn power_of_2(n: int32x4_t) -> float32x4_t {
    neon!(vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, vdupq_n_s32(127)))))
}

impl Ints for Neon {
    /// As integers of 32 bits; other widths are the same register.
    type I = int32x4_t;

    #[inline(always)]
    fn none(self) -> int32x4_t {
        neon!(vdupq_n_s32(0))
    }

    #[inline(always)]
    fn bytes16(self, x: &[i8; 16]) -> int32x4_t {
        // 16 bytes can be read behind the reference.
        neon!(vreinterpretq_s32_s8(vld1q_s8(x.as_ptr())))
    }

    #[inline(always)]
    fn ints(self, x: &[i32; 4]) -> int32x4_t {
        // SAFETY: 4 integers can be read behind the reference.
        unsafe { vld1q_s32(x.as_ptr()) }
    }

    #[inline(always)]
    fn store_ints(self, x: int32x4_t, out: &mut [i32; 4]) {
        // SAFETY: 4 integers can be written behind the reference.
        unsafe { vst1q_s32(out.as_mut_ptr(), x) }
    }

    #[inline(always)]
    fn splat_int(self, x: i32) -> int32x4_t {
        neon!(vdupq_n_s32(x))
    }

    #[inline(always)]
    fn add_ints(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!(vaddq_s32(a, b))
    }

    #[inline(always)]
    fn mul_ints(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!(vmulq_s32(a, b))
    }

    #[inline(always)]
    fn totals(self, [a, b, c, d]: [int32x4_t; 4]) -> int32x4_t {
        neon!(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d)))
    }

    #[inline(always)]
    fn to_floats(self, x: int32x4_t) -> float32x4_t {
        neon!(vcvtq_f32_s32(x))
    }

    #[inline(always)]
    fn to_ints(self, x: float32x4_t) -> int32x4_t {
        neon!(vcvtnq_s32_f32(x))
    }

    #[inline(always)]
    fn even(self, x: int32x4_t) -> int32x4_t {
        neon!(vreinterpretq_s32_s16(vshrq_n_s16::<8>(vshlq_n_s16::<8>(vreinterpretq_s16_s32(x)))))
    }

    #[inline(always)]
    fn odd(self, x: int32x4_t) -> int32x4_t {
        neon!(vreinterpretq_s32_s16(vshrq_n_s16::<8>(vreinterpretq_s16_s32(x))))
    }

    #[inline(always)]
    fn pair_products(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!({
            let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
            vpaddq_s32(vmull_s16(vget_low_s16(a), vget_low_s16(b)), vmull_high_s16(a, b))
        })
    }
}

/// Products in 16 bits, which are added in pairs.
enum Widening {}

impl Dot<Neon> for Widening {
    #[inline(always)]
    fn add(_: Neon, sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        neon!({
            let (a, b) = (vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b));
            let low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
            vpadalq_s16(vpadalq_s16(sums, low), vmull_high_s8(a, b))
        })
    }
}

/// Four products per sum and instruction. There is no stable intrinsic.
#[cfg(feature = "npu")]
enum FourProducts {}

#[cfg(feature = "npu")]
impl Dot<Neon> for FourProducts {
    #[inline(always)]
    fn add(_: Neon, mut sums: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        // SAFETY: a table with this type is only handed out on CPUs that have the instruction, and it only touches
        // its registers.
        unsafe {
            asm!(".arch_extension dotprod", "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b", sums = inout(vreg) sums,
                a = in(vreg) a, b = in(vreg) b, options(pure, nomem, nostack, preserves_flags));
        }
        sums
    }
}
