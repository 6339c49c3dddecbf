//! Slices with unreadable memory right before or after them: a kernel that reads or writes too far crashes.

use super::data::{Activations, Rng, weights};
use super::levels;
use super::panels;
use super::scan::Matrix;
use bytemuck::Pod;
use half::f16;
use sparse_simd::{
    Activation, BlockFormat, ColumnLayout, Columns, Int8, Int8Mut, Kernels, Level, MatMut, PanelKind, Panels,
    Q8, Q8Mut, Rows, Tiles,
};
use std::ops::{Deref, DerefMut};

/// Which end of the readable memory the slice touches.
#[derive(Clone, Copy, Debug)]
enum Edge {
    Start,
    End,
}

/// A slice at the edge of its own pages, between two pages that cannot be accessed.
struct Guarded<T> {
    pages: *mut libc::c_void,
    mapped: usize,
    values: *mut T,
    len: usize,
}

impl<T: Pod> Guarded<T> {
    fn new(values: &[T], edge: Edge) -> Self {
        let bytes = size_of_val(values);
        // SAFETY: asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let inner = bytes.next_multiple_of(page).max(page);
        let mapped = inner + 2 * page;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: maps new memory.
        let pages = unsafe { libc::mmap(std::ptr::null_mut(), mapped, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(pages, libc::MAP_FAILED);
        // SAFETY: all but the first and the last of the pages just mapped.
        let changed = unsafe { libc::mprotect(pages.add(page), inner, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(changed, 0);
        let offset = match edge {
            Edge::Start => page,
            Edge::End => page + inner - bytes,
        };
        // SAFETY: the offset is inside the mapping.
        let at: *mut T = unsafe { pages.add(offset).cast() };
        assert!(at.is_aligned());
        // SAFETY: `bytes` bytes from `at` on are in the accessible pages, and nothing else refers to them.
        unsafe { at.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
        Self { pages, mapped, values: at, len: values.len() }
    }
}

impl<T> Deref for Guarded<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: initialized in `new`, unmapped only in `drop`.
        unsafe { std::slice::from_raw_parts(self.values, self.len) }
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: initialized in `new`, unmapped only in `drop`, and borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.values, self.len) }
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made; no borrow of it is left.
        unsafe { libc::munmap(self.pages, self.mapped) };
    }
}

/// Runs `case` at both edges for every level.
fn each(mut case: impl FnMut(&'static Kernels, Edge)) {
    for kernels in levels() {
        for edge in [Edge::Start, Edge::End] {
            case(kernels, edge);
        }
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn products_stay_inside_their_slices() {
    each(|kernels, edge| {
        for format in BlockFormat::ALL {
            for cols in [1, 7, 13, 32, 64, 96, 160, 256, 288, 512, 576]
                .into_iter()
                .filter(|c| format.row_bytes(*c).is_some())
            {
                for (rows, tokens) in [(1, 1), (2, 1), (3, 4), (5, 9), (18, 25)] {
                    let mut rng = Rng((cols * rows) as u64);
                    let w = weights(format, rows * cols, &mut rng);
                    let x = rng.floats(cols * tokens);
                    let mut expected = vec![0.0; rows * tokens];
                    let mut found = Guarded::new(&expected, edge);
                    let guarded = Guarded::new(&w, edge);
                    let (w, guarded) =
                        (Rows::new(format, cols, &w).unwrap(), Rows::new(format, cols, &guarded).unwrap());
                    if format.is_quantized() {
                        let a = Activations::quantized(Kernels::at(Level::Scalar).unwrap(), &x, cols);
                        kernels.matmul_q8(w, a.view(), &mut MatMut::new(&mut expected, rows));
                        let (q, d, sums) =
                            (Guarded::new(&a.q, edge), Guarded::new(&a.d, edge), Guarded::new(&a.sums, edge));
                        let x = Q8 { cols, q: &q, d: &d, sums: &sums };
                        kernels.matmul_q8(guarded, x, &mut MatMut::new(&mut found, rows));
                    } else {
                        kernels.matmul_f32(w, &x, &mut MatMut::new(&mut expected, rows));
                        kernels.matmul_f32(
                            guarded,
                            &Guarded::new(&x, edge),
                            &mut MatMut::new(&mut found, rows),
                        );
                    }
                    assert_eq!(bits(&found), bits(&expected), "{} {} {cols}", kernels.level(), format.name());
                }
            }
        }
    });
}

#[test]
fn sums_of_rows_stay_inside_their_slices() {
    each(|kernels, edge| {
        for (rows, cols, tokens) in
            [(1, 1, 1), (3, 7, 2), (5, 33, 3), (7, 64, 5), (9, 65, 8), (11, 17, 25), (1, 128, 13)]
        {
            let mut rng = Rng(rows as u64);
            let w = Guarded::new(&weights(BlockFormat::F16, rows * cols, &mut rng), edge);
            let x = Guarded::new(&rng.floats(rows * tokens), edge);
            let mut out = Guarded::new(&vec![f32::NAN; cols * tokens], edge);
            let rows = Rows::new(BlockFormat::F16, cols, &w).unwrap();
            kernels.weighted_sum(&x, rows, &mut MatMut::new(&mut out, cols));
            assert!(out.iter().all(|y| y.is_finite()));
        }
    });
}

#[test]
fn sparse_products_stay_inside_their_slices() {
    each(|kernels, edge| {
        for format in BlockFormat::ALL {
            for (rows, cols) in [(64, 256), (70, 288), (9, 544), (3, 96), (17, 512)]
                .into_iter()
                .filter(|shape| format.row_bytes(shape.1).is_some())
            {
                let mut rng = Rng((cols * rows) as u64);
                let bytes = Guarded::new(&weights(format, rows * cols, &mut rng), edge);
                let w = Rows::new(format, cols, &bytes).unwrap();
                let layout = ColumnLayout::new(format, rows, cols).ok();
                let mut relaid = Guarded::new(&vec![0u8; layout.map_or(0, |l| l.bytes())], edge);
                if let Some(layout) = layout {
                    layout.relayout(w, &mut relaid);
                }
                let columns = layout.map(|layout| Columns::new(layout, &relaid).unwrap());
                let active = |n: u32| (0..n).filter(|i| i % 3 != 1).collect::<Vec<_>>();
                let some_rows = Guarded::new(&active(rows as u32), edge);
                let some_columns = Guarded::new(&active(cols as u32), edge);
                let mut by_row = Guarded::new(&vec![f32::NAN; some_rows.len()], edge);
                let unwritten = if columns.is_some() { f32::NAN } else { 0.0 };
                let mut by_column = Guarded::new(&vec![unwritten; rows], edge);
                let mut sum = Guarded::new(&vec![f32::NAN; cols], edge);
                let x = Guarded::new(&rng.floats(cols), edge);
                let h = Guarded::new(&rng.floats(some_rows.len()), edge);
                if format.is_quantized() {
                    let a = Activations::quantized(Kernels::at(Level::Scalar).unwrap(), &x, cols);
                    let (q, d, sums) =
                        (Guarded::new(&a.q, edge), Guarded::new(&a.d, edge), Guarded::new(&a.sums, edge));
                    let x = Q8 { cols, q: &q, d: &d, sums: &sums };
                    kernels.matmul_rows_q8(w, &some_rows, x, &mut by_row);
                    if let Some(columns) = columns {
                        kernels.axpy_columns_q8(columns, &some_columns, x, 0..rows, &mut by_column);
                    }
                } else if let Some(columns) = columns {
                    kernels.matmul_rows_f32(w, &some_rows, &x, &mut by_row);
                    kernels.axpy_columns_f32(columns, &some_columns, &x, 0..rows, &mut by_column);
                }
                kernels.axpy_rows(w, &some_rows, &h, 0..cols, &mut sum);
                let mut all = by_row.iter().chain(by_column.iter()).chain(sum.iter());
                assert!(all.all(|y| y.is_finite()), "{} {}", kernels.level(), format.name());
            }
        }
    });
}

#[test]
fn rows_stay_inside_their_slices() {
    each(|kernels, edge| {
        for n in (0..70).chain([128, 576]) {
            let mut rng = Rng(n as u64);
            let (x, y) = (Guarded::new(&rng.floats(n), edge), rng.floats(n));
            let mut out = Guarded::new(&y, edge);
            let mut halves = Guarded::new(&vec![f16::ZERO; n], edge);
            kernels.dot_f32(&x, &out);
            kernels.axpy_f32(0.5, &x, &mut out);
            kernels.to_f16(&x, &mut halves);
            kernels.add(&mut out, &x);
            kernels.activate_mul(Activation::Silu, &mut out, &x);
            kernels.softmax(&mut out);
            kernels.rope(&mut out[n % 2..], &x[..n / 2], &x[n - n / 2..]);
            kernels.rope_halves(&mut out[n % 2..], &x[..n / 2], &x[n - n / 2..]);
            kernels.layer_norm(&x, &Guarded::new(&y, edge), &x, 1e-5, &mut out);
            for f in Activation::ALL {
                kernels.activate(f, &mut out);
            }
            kernels.rms_norm(&x, &Guarded::new(&y, edge), 1e-5, &mut out);
        }
    });
}

#[test]
fn quantizing_stays_inside_its_slices() {
    each(|kernels, edge| {
        for blocks in 0..12 {
            let x = Guarded::new(&Rng(1).floats(32 * blocks), edge);
            let mut q = Guarded::new(&vec![0; 32 * blocks], edge);
            let mut d = Guarded::new(&vec![0.0; blocks], edge);
            let mut sums = Guarded::new(&vec![0; 2 * blocks], edge);
            kernels.quantize(&x, &mut Q8Mut { cols: 32, q: &mut q, d: &mut d, sums: &mut sums });
            assert!(d.iter().all(|d| *d > 0.0));
        }
    });
}

#[test]
fn scans_stay_inside_their_slices() {
    each(|kernels, edge| {
        for (rows, nibbles, pairs) in [(1, 32, 0), (16, 0, 32), (17, 64, 128), (40, 32, 32)] {
            let mut rng = Rng(rows as u64);
            let matrix = Matrix::random(rows, nibbles, pairs, &mut rng);
            let data = Guarded::new(matrix.data(), edge);
            let a = Activations::random(nibbles + pairs, 1, &mut rng);
            let (q, d, sums) =
                (Guarded::new(&a.q, edge), Guarded::new(&a.d, edge), Guarded::new(&a.sums, edge));
            let mut out = Guarded::new(&vec![f32::NAN; rows], edge);
            let x = Q8 { cols: nibbles + pairs, q: &q, d: &d, sums: &sums };
            kernels.scan(Tiles::new(matrix.layout, &data).unwrap(), x, &mut out);
            assert!(out.iter().all(|y| y.is_finite()), "{}", kernels.level());
        }
    });
}

#[test]
fn packed_products_stay_inside_their_slices() {
    each(|kernels, edge| {
        for (rows, cols, tokens) in
            [(1, 1, 1), (16, 4, 2), (17, 33, 13), (40, 64, 5), (33, 1030, 7), (5, 2050, 3)]
        {
            let mut rng = Rng(rows as u64);
            let x = Guarded::new(&rng.floats(tokens * cols), edge);
            let mut q = Guarded::new(&vec![0; tokens * Int8::stride(cols)], edge);
            let mut d = Guarded::new(&vec![0.0; tokens], edge);
            kernels.quantize_rows(&x, &mut Int8Mut { cols, q: &mut q, d: &mut d });
            for kind in [PanelKind::F32, PanelKind::Int8] {
                let packed = panels::Packed::new(kind, cols, &rng.floats(rows * cols), &rng.floats(rows));
                let lines = Guarded::new(&packed.lines, edge);
                let w = Panels::new(packed.layout, &lines).unwrap();
                let mut found = Guarded::new(&vec![f32::NAN; rows * tokens], edge);
                let mut out = MatMut::new(&mut found, rows);
                match kind {
                    PanelKind::F32 => kernels.matmul_panels_f32(w, &x, &mut out),
                    PanelKind::Int8 => {
                        kernels.matmul_panels_int8(w, Int8 { cols, q: &q, d: &d }, &mut out);
                    }
                    kind => unreachable!("{kind:?}"),
                }
                assert!(found.iter().all(|y| y.is_finite()), "{} {kind:?}", kernels.level());
            }
        }
    });
}
