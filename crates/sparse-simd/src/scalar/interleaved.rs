//! Products of interleaved rows.

use crate::interleaved::Interleaved;
use crate::layout::*;
use crate::table::MatmulInterleaved;
use crate::{BlockFormat, MatMut, Q8};

/// Products of the formats that have them.
///
/// `out[t][r]` is the sum over the groups of 32 columns, in their order, of two fused steps:
///
/// ```text
/// sum = I * (d * dx) + sum     I: exact sum of code times activation
/// sum = m * (dx * X) + sum     X: exact sum of activations; for formats with minima or an offset
/// ```
///
/// `d` and `m` are the scale and the minimum of the group, rounded to f32. In formats with a scale per half of a group
/// they are those of the block, and the integers of the halves are factors in `I` and `X`. Codes are unsigned where the
/// format has an offset for all of a block: it becomes the minimum `-offset * d`.
pub(crate) const fn matmul(format: BlockFormat) -> Option<MatmulInterleaved> {
    Some(match format {
        BlockFormat::Q4_0 => products::<BlockQ4_0, 8>,
        BlockFormat::Q4_1 => products::<BlockQ4_1, 0>,
        BlockFormat::Q5_0 => products::<BlockQ5_0, 16>,
        BlockFormat::Q5_1 => products::<BlockQ5_1, 0>,
        BlockFormat::Q8_0 => products::<BlockQ8_0, 0>,
        BlockFormat::Q2K => products::<BlockQ2K, 0>,
        BlockFormat::Q3K => products::<BlockQ3K, 0>,
        BlockFormat::Q4K => products::<BlockQ4K, 0>,
        BlockFormat::Q5K => products::<BlockQ5K, 0>,
        BlockFormat::Q6K => products::<BlockQ6K, 0>,
        BlockFormat::Iq4Nl => products::<BlockIq4Nl, 0>,
        BlockFormat::Iq4Xs => products::<BlockIq4Xs, 0>,
        BlockFormat::MxFp4 => products::<BlockMxFp4, 12>,
        _ => return None,
    })
}

fn products<B: Block, const OFFSET: i8>(w: Interleaved<'_>, x: Q8<'_>, out: &mut MatMut<'_>) {
    let (rows, groups) = (w.layout().rows(), B::LEN / 32);
    for t in 0..x.tokens() {
        out.row(t)[..rows].fill(0.0);
    }
    for r in 0..rows {
        for b in 0..w.layout().cols() / B::LEN {
            let mut block = B::zeroed();
            w.restore_block(r, b, bytemuck::bytes_of_mut(&mut block));
            let scales = block.scales();
            let mut codes = [0; 256];
            block.codes(&mut codes[..B::LEN]);
            for t in 0..x.tokens() {
                let (x, sum) = (x.row(t), &mut out.row(t)[r]);
                for g in 0..groups {
                    let at = b * groups + g;
                    *sum = group::<B, OFFSET>(&scales, g, &codes[g * 32..][..32], &x, at, *sum);
                }
            }
        }
    }
}

/// Adds group `g` of a block, whose activations are group `at`.
fn group<B: Block, const OFFSET: i8>(
    scales: &Scales,
    g: usize,
    codes: &[i8],
    x: &Q8<'_>,
    at: usize,
    sum: f32,
) -> f32 {
    let subs = [scales.sub[2 * g], scales.sub[2 * g + 1]];
    let mut dot = 0;
    for (i, (code, x)) in codes.iter().zip(&x.q[at * 32..][..32]).enumerate() {
        // Where both halves have one scale it is a factor of `d`.
        let sub = if sub_scales(B::FORMAT) { subs[i / 16] as i32 } else { 1 };
        dot += sub * (i32::from(*code) + i32::from(OFFSET)) * i32::from(*x);
    }
    let d = if sub_scales(B::FORMAT) { scales.d } else { scales.d * subs[0] };
    let sum = libm::fmaf(dot as f32, d * x.d[at], sum);
    let [first, second] = [x.sums[2 * at], x.sums[2 * at + 1]].map(i32::from);
    let [min, next] = [scales.min[2 * g], scales.min[2 * g + 1]];
    let (min, total) = match sub_scales(B::FORMAT) {
        true => (scales.m, i32::from(min) * first + i32::from(next) * second),
        false if OFFSET > 0 => (d * -f32::from(OFFSET), first + second),
        false => (scales.m * f32::from(min), first + second),
    };
    if B::HAS_MIN || OFFSET > 0 { libm::fmaf(min, x.d[at] * total as f32, sum) } else { sum }
}

/// Whether the halves of a group have scales of their own.
fn sub_scales(format: BlockFormat) -> bool {
    matches!(format, BlockFormat::Q2K | BlockFormat::Q3K | BlockFormat::Q6K)
}
