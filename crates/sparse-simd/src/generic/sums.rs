//! Sums of weighted rows of any format: rows are decoded to f32, a strip of columns at a time.

use super::gemm::{GemmStep, Job};
use crate::columns::Recipe;
use crate::layout::{Block, Scales};
use crate::simd::{Simd, Stored, first, first_mut};
use crate::{MatMut, Rows};
use bytemuck::{Pod, Zeroable};
use core::marker::PhantomData;
use core::ops::Range;

/// Columns of a strip: a multiple of every block length.
const STRIP: usize = 256;

/// Chosen rows that are added at a time: `out` is read and written once for all of them.
const ROWS: usize = 4;

/// How many times [`ROWS`] chosen rows are fetched ahead.
const AHEAD: usize = 2;

/// Rows of a strip that is multiplied with many tokens: 32 KiB of f32.
const DEPTH: usize = 32;

/// A strip of a row, as f32.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Strip([f32; STRIP]);

/// How a level decodes blocks of 32.
pub(crate) trait DecodeStep: Simd {
    /// The codes of a block.
    #[inline(always)]
    fn codes<B: Block>(self, block: &B, out: &mut [i8; 32]) {
        block.codes(out);
    }
    /// The values of a block.
    #[inline(always)]
    fn block<B: Block>(self, block: &B) -> Self::Wide {
        values_of_block(self, block)
    }
}

/// How rows of a format are decoded.
pub(crate) trait Strips: Copy {
    /// Decodes blocks, no more than a strip of them, to what [`decode`](crate::BlockFormat::decode) makes of them, bit
    /// for bit.
    fn decode<S: DecodeStep>(self, s: S, bytes: &[u8], out: &mut Strip);

    /// `out` += `h[0]` * `rows[0]`, then the others likewise.
    #[inline(always)]
    fn add<S: DecodeStep, const R: usize>(self, s: S, rows: [&[u8]; R], h: [f32; R], out: &mut [f32]) {
        let mut strips = [Strip([0.0; STRIP]); R];
        for (row, strip) in rows.iter().zip(&mut strips) {
            self.decode(s, row, strip);
        }
        add_strips(s, &strips, h, out);
    }
}

/// A way that is known when the crate is compiled.
pub(crate) trait Known: Strips {
    const NEW: Self;
}

/// Rows of floats.
#[derive(Clone, Copy)]
pub(crate) struct Floats<W>(PhantomData<W>);

impl<W: Stored> Known for Floats<W> {
    const NEW: Self = Self(PhantomData);
}

impl<W: Stored> Strips for Floats<W> {
    #[inline(always)]
    fn decode<S: DecodeStep>(self, s: S, bytes: &[u8], out: &mut Strip) {
        values::<S, W>(s, bytes, out);
    }
}

/// Rows of blocks.
#[derive(Clone, Copy)]
pub(crate) struct Blocks<B>(PhantomData<B>);

impl<B: Block> Known for Blocks<B> {
    const NEW: Self = Self(PhantomData);
}

impl<B: Block> Strips for Blocks<B> {
    #[inline(always)]
    fn decode<S: DecodeStep>(self, s: S, bytes: &[u8], out: &mut Strip) {
        match B::LEN {
            32 => small::<S, B>(s, bytes, out),
            _ => supers::<S, B>(s, bytes, out),
        }
    }

    #[inline(always)]
    fn add<S: DecodeStep, const R: usize>(self, s: S, rows: [&[u8]; R], h: [f32; R], out: &mut [f32]) {
        const { assert!(B::LEN == 32, "others are added by `Called`") };
        add_blocks::<S, B, R>(s, rows, h, out);
    }
}

/// Rows of blocks that a function in plain Rust decodes.
#[derive(Clone, Copy)]
pub(crate) struct Plain(pub(crate) fn(bytes: &[u8], out: &mut [f32]));

impl Strips for Plain {
    #[inline(always)]
    fn decode<S: DecodeStep>(self, _: S, bytes: &[u8], out: &mut Strip) {
        (self.0)(bytes, &mut out.0);
    }
}

/// Rows that a function of the level decodes: code that is compiled once serves many formats.
#[derive(Clone, Copy)]
pub(crate) struct Called(unsafe fn(bytes: &[u8], out: &mut Strip));

impl Called {
    /// # Safety
    /// The CPU has what the function needs.
    pub(crate) unsafe fn new(decode: unsafe fn(bytes: &[u8], out: &mut Strip)) -> Self {
        Self(decode)
    }
}

impl Strips for Called {
    #[inline(always)]
    fn decode<S: DecodeStep>(self, _: S, bytes: &[u8], out: &mut Strip) {
        // SAFETY: `new` asks for what the function needs.
        unsafe { (self.0)(bytes, out) }
    }
}

/// Decodes blocks, see [`Strips::decode`].
#[inline(always)]
pub(crate) fn decode<S: DecodeStep, F: Known>(s: S, bytes: &[u8], out: &mut Strip) {
    F::NEW.decode(s, bytes, out);
}

/// `out[c - cols.start]` += sum over `i` of `h[i]` times column `c` of row `active[i]`, added in that order.
#[inline(always)]
pub(crate) fn add_rows<S: DecodeStep, F: Strips>(
    s: S,
    w: Rows<'_>,
    active: &[u32],
    h: &[f32],
    cols: Range<usize>,
    out: &mut [f32],
    f: F,
) {
    let w = Window { w, bytes: cols_to_bytes(w, cols), strip: cols_to_bytes(w, 0..STRIP).end };
    let (active, rest) = active.as_chunks::<ROWS>();
    let (h, h_rest) = h.as_chunks::<ROWS>();
    for (i, (rows, h)) in active.iter().zip(h).enumerate() {
        let next = active.get(i + AHEAD).map_or(rest, |next| next);
        add(s, f, &w, rows, *h, next, out);
    }
    for (row, h) in rest.iter().zip(h_rest) {
        add(s, f, &w, &[*row], [*h], &[], out);
    }
}

/// Some columns of rows.
struct Window<'a> {
    w: Rows<'a>,
    /// Where they are in a row.
    bytes: Range<usize>,
    /// Bytes of a strip.
    strip: usize,
}

impl<'a> Window<'a> {
    #[inline(always)]
    fn row(&self, r: u32) -> &'a [u8] {
        &self.w.row(r as usize)[self.bytes.clone()]
    }
}

/// Adds `R` rows, and fetches the rows `next` meanwhile.
#[inline(always)]
fn add<S: DecodeStep, F: Strips, const R: usize>(
    s: S,
    f: F,
    w: &Window<'_>,
    rows: &[u32; R],
    h: [f32; R],
    next: &[u32],
    out: &mut [f32],
) {
    for (n, out) in out.chunks_mut(STRIP).enumerate() {
        let bytes = n * w.strip..w.bytes.len().min((n + 1) * w.strip);
        for next in next {
            s.prefetch(&w.row(*next)[bytes.clone()]);
        }
        let mut parts = [&[][..]; R];
        for (part, row) in parts.iter_mut().zip(rows) {
            *part = &w.row(*row)[bytes.clone()];
        }
        f.add(s, parts, h, out);
    }
}

/// Adds strips of rows in blocks of 32, whose values need not go through memory.
#[inline(always)]
fn add_blocks<S: DecodeStep, B: Block, const R: usize>(s: S, rows: [&[u8]; R], h: [f32; R], out: &mut [f32]) {
    let mut blocks = [&[][..]; R];
    for (blocks, row) in blocks.iter_mut().zip(rows) {
        *blocks = bytemuck::cast_slice::<u8, B>(row);
    }
    for (b, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let out: &mut [S::Floats] = bytemuck::cast_slice_mut(out);
        let mut sums = s.wide(0.0);
        for (sum, out) in sums.as_mut().iter_mut().zip(out.iter()) {
            *sum = s.load(out);
        }
        for (blocks, h) in blocks.iter().zip(h) {
            for (sum, value) in sums.as_mut().iter_mut().zip(s.block(&blocks[b]).as_ref()) {
                *sum = s.fma(s.splat(h), *value, *sum);
            }
        }
        for (sum, out) in sums.as_ref().iter().zip(out) {
            s.store(*sum, out);
        }
    }
}

/// Adds strips of rows.
#[inline(always)]
fn add_strips<S: Simd, const R: usize>(s: S, strips: &[Strip; R], h: [f32; R], out: &mut [f32]) {
    let whole = out.len() / S::LANES * S::LANES;
    for col in (0..whole).step_by(S::LANES) {
        let out = first_mut::<S>(&mut out[col..]);
        let mut sum = s.load(out);
        for (strip, h) in strips.iter().zip(h) {
            sum = s.fma(s.splat(h), s.load(first::<S>(&strip.0[col..])), sum);
        }
        s.store(sum, out);
    }
    let out = &mut out[whole..];
    if !out.is_empty() {
        let mut sum = s.load_part(out, 0.0);
        for (strip, h) in strips.iter().zip(h) {
            sum = s.fma(s.splat(h), s.load_part(&strip.0[whole..][..out.len()], 0.0), sum);
        }
        s.store_part(sum, out);
    }
}

/// `out[t]` = sum over `r` of `x[t][r]` times row `r` of `w`, each strip decoded once for all tokens.
#[inline(always)]
pub(crate) fn weighted_sum<S: GemmStep + DecodeStep, F: Strips>(
    s: S,
    x: &[f32],
    w: Rows<'_>,
    out: &mut MatMut<'_>,
    f: F,
) {
    if w.rows() == 0 {
        return (0..out.tokens()).for_each(|t| out.row(t).fill(0.0));
    }
    let width = S::VECTORS * S::LANES;
    // Panels side by side, each of `DEPTH` rows of `width` columns.
    let mut panels = [Strip([0.0; STRIP]); DEPTH];
    for from in (0..w.rows()).step_by(DEPTH) {
        let rows = w.slice(from..w.rows().min(from + DEPTH));
        for col in (0..w.cols()).step_by(STRIP) {
            let cols = col..w.cols().min(col + STRIP);
            let panels: &mut [S::Floats] = bytemuck::cast_slice_mut(&mut panels);
            for r in 0..rows.rows() {
                let mut strip = Strip([0.0; STRIP]);
                f.decode(s, &rows.row(r)[cols_to_bytes(w, cols.clone())], &mut strip);
                let vectors: &[S::Floats] = bytemuck::cast_slice(&strip.0);
                for (p, vectors) in vectors.chunks_exact(S::VECTORS).enumerate() {
                    panels[(p * DEPTH + r) * S::VECTORS..][..S::VECTORS].copy_from_slice(vectors);
                }
            }
            for (p, from_col) in cols.clone().step_by(width).enumerate() {
                let panel = &panels[p * DEPTH * S::VECTORS..][..rows.rows() * S::VECTORS];
                let job = Job::new(panel, x, w.rows(), from);
                s.multiply(&job, &mut out.columns(from_col..cols.end.min(from_col + width)));
            }
        }
    }
}

/// Where in a row columns are.
fn cols_to_bytes(w: Rows<'_>, cols: Range<usize>) -> Range<usize> {
    let (len, bytes) = (w.format().block_len(), w.format().block_bytes());
    cols.start / len * bytes..cols.end / len * bytes
}

#[inline(always)]
fn values<S: Simd, W: Stored>(s: S, bytes: &[u8], out: &mut Strip) {
    for (bytes, out) in bytes.chunks(S::LANES * W::BYTES).zip(out.0.chunks_exact_mut(S::LANES)) {
        let x = if bytes.len() == S::LANES * W::BYTES {
            // SAFETY: there are that many bytes.
            unsafe { W::load(s, bytes, 0) }
        } else {
            W::load_part(s, bytes)
        };
        s.store(x, first_mut::<S>(out));
    }
}

/// Blocks of 32.
#[inline(always)]
fn small<S: DecodeStep, B: Block>(s: S, bytes: &[u8], out: &mut Strip) {
    let blocks = bytemuck::cast_slice::<u8, B>(bytes);
    for (block, out) in blocks.iter().zip(out.0.as_chunks_mut::<32>().0) {
        let out: &mut [S::Floats] = bytemuck::cast_slice_mut(out);
        for (value, out) in s.block(block).as_ref().iter().zip(out) {
            s.store(*value, out);
        }
    }
}

/// The values of a block of 32.
#[inline(always)]
pub(crate) fn values_of_block<S: DecodeStep, B: Block>(s: S, block: &B) -> S::Wide {
    let mut codes = [0; 32];
    s.codes(block, &mut codes);
    let [d, m] = factors(s, block);
    let mut values = s.wide(0.0);
    for (codes, value) in codes.chunks_exact(S::LANES).zip(values.as_mut()) {
        *value = scaled::<S, B>(s, s.bytes(codes), d, m);
    }
    values
}

/// The scale of a block of 32, and the minimum if there is one, in all lanes.
#[inline(always)]
pub(crate) fn factors<S: Simd, B: Block>(s: S, block: &B) -> [S::F; 2] {
    let Some(Recipe { halves: [0, ..], .. }) = B::COLUMNS else {
        let Scales { d, m, .. } = block.scales();
        return [s.splat(d), s.splat(m)];
    };
    // Vectors convert half-precision numbers faster.
    let bytes = bytemuck::bytes_of(block);
    let mut halves = S::Halves::zeroed();
    let words: &mut [u16] = bytemuck::cast_slice_mut(core::slice::from_mut(&mut halves));
    words.fill(u16::from_le_bytes([bytes[0], bytes[1]]));
    let d = s.f16s(&halves);
    if !B::HAS_MIN {
        return [d, s.splat(0.0)];
    }
    let words: &mut [u16] = bytemuck::cast_slice_mut(core::slice::from_mut(&mut halves));
    words.fill(u16::from_le_bytes([bytes[2], bytes[3]]));
    [d, s.f16s(&halves)]
}

/// `d * codes`, and the minimum if there is one.
#[inline(always)]
pub(crate) fn scaled<S: Simd, B: Block>(s: S, codes: S::F, d: S::F, m: S::F) -> S::F {
    let scaled = s.mul(d, codes);
    if B::HAS_MIN { s.add(scaled, m) } else { scaled }
}

/// Blocks of 64, 128 or 256.
#[inline(always)]
fn supers<S: Simd, B: Block>(s: S, bytes: &[u8], out: &mut Strip) {
    let blocks = bytemuck::cast_slice::<u8, B>(bytes);
    for (block, out) in blocks.iter().zip(out.0.chunks_exact_mut(B::LEN)) {
        let (mut codes, scales) = ([0; STRIP], block.scales());
        block.codes(&mut codes[..B::LEN]);
        for (g, (codes, out)) in codes.as_chunks().0.iter().zip(out.as_chunks_mut().0).enumerate() {
            let min = f32::from(scales.min[g]);
            group::<S, B>(s, codes, scales.d * scales.sub[g], scales.m * min, out);
        }
    }
}

/// Values with the same scale and offset.
#[inline(always)]
fn group<S: Simd, B: Block>(s: S, codes: &[i8; 16], d: f32, m: f32, out: &mut [f32; 16]) {
    for (codes, out) in codes.chunks_exact(S::LANES).zip(out.chunks_exact_mut(S::LANES)) {
        s.store(scaled::<S, B>(s, s.bytes(codes), s.splat(d), s.splat(m)), first_mut::<S>(out));
    }
}
