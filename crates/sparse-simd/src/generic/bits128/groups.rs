//! Products with formats that are decoded in plain Rust: codebooks, and codes that follow no byte.

use super::Bits128;
use super::quantized::{Factors, Step, SubScales, add_parts};
use crate::layout::{Decode, Decoded};
use crate::{MatMut, Q8, Rows};
use bytemuck::Zeroable;

impl Step for Decoded {
    const QUADS: usize = 2;
    const SIGNED: bool = true;
    const SUB_SCALES: SubScales = SubScales::Half;

    #[inline(always)]
    fn codes<V: Bits128>(&self, v: V, g: usize) -> [V::I; 2] {
        v.load32(bytemuck::cast_ref(&self.codes[g]))
    }

    #[inline(always)]
    fn factors<V: Bits128>(&self, v: V, quad: usize) -> Factors<V> {
        let sub: &[i8; 8] = &self.sub.as_chunks().0[quad];
        let sub = v.widen_i8(v.load8(bytemuck::cast_ref(sub)));
        Factors { d: v.load(&self.d.as_chunks().0[quad]), sub, m: v.splat(0.0), mins: sub }
    }
}

/// `out[t][r]` = row `r` of `w` times token `t` of `x`: each 256 columns of a row are decoded once for all tokens.
#[inline(always)]
pub(crate) fn matmul<V: Bits128>(v: V, w: Rows<'_>, x: Q8<'_>, out: &mut MatMut<'_>, decode: Decode) {
    let (format, mut decoded) = (w.format(), Decoded::zeroed());
    let strip = 256 / format.block_len() * format.block_bytes();
    for r in 0..w.rows() {
        for t in 0..x.tokens() {
            out.row(t)[r] = 0.0;
        }
        for (i, blocks) in w.row(r).chunks(strip).enumerate() {
            for pass in 0..decode.passes {
                (decode.read)(blocks, pass, &mut decoded);
                for t in 0..x.tokens() {
                    let sum = add_parts(v, &decoded, x.row(t), 8 * i, (x.cols / 32 - 8 * i).min(8));
                    out.row(t)[r] += sum;
                }
            }
        }
    }
}
