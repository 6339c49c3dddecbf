//! Rows by eights, against the same rows one after the other.

use sparse_core::{
    ActivationType, Activations, BatchMode, Compute, Down, FfnScratch, Linear, Matrix, Pool, Selector,
    SparseFfn, Storage, interleave,
};
use sparse_simd::{BlockFormat, Kernels, Level};
use sparse_testdata::Weights;

fn matrix(format: BlockFormat, rows: usize, cols: usize, stream: u64) -> Matrix {
    let mut bytes = vec![0; rows * format.row_bytes(cols).unwrap()];
    Weights::new(format, 0.0, 0.1, 7, stream).fill(&mut bytes);
    Matrix::new(format, cols, Storage::Owned(bytes)).unwrap()
}

fn input(compute: &Compute, tokens: usize, cols: usize) -> Activations {
    let mut x = Activations::with_capacity(tokens, cols);
    x.resize(tokens);
    x.x_mut().iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 7919) % 251) as f32 / 125.0 - 1.0);
    x.quantize(compute.kernels);
    x
}

/// A computation at the level that interleaves, where the CPU has it.
fn compute(threads: usize) -> Option<Compute> {
    let kernels = Kernels::at(Level::Avx2)?;
    Some(Compute::with(kernels, Pool::new(threads)))
}

fn product(w: &Matrix, compute: &Compute, x: &Activations) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.tokens() * w.rows()];
    w.matmul(compute, x, &mut out);
    out
}

#[test]
fn interleaved_matrices_are_the_same_matrices() {
    let Some(one) = compute(1) else { return };
    // More than one memory, whole and part groups.
    let shapes = [(8, 256), (203, 512), (64, 768), (70_000, 256)];
    for format in BlockFormat::ALL {
        let before: Vec<_> = (0..).zip(shapes).map(|(i, (r, c))| matrix(format, r, c, i)).collect();
        for threads in [1, 2] {
            let compute = compute(threads).unwrap();
            let mut after = before.clone();
            let moved = interleave(&compute, &mut after, |_| ());
            let moves = compute.kernels.prefers_interleaved(format);
            assert_eq!(moved > 0, moves, "{format:?}");
            assert_eq!(interleave(&compute, &mut after, |_| ()), 0, "{format:?}: twice");
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(after.is_interleaved(), moves);
                assert_eq!(
                    (before.rows(), before.cols(), before.row_bytes()),
                    (after.rows(), after.cols(), after.row_bytes())
                );
                assert_eq!(before.storage().bytes(), after.to_rows().storage().bytes(), "{format:?}");
                let (last, cols) = (before.rows() - 1, before.cols());
                for r in [0, 5, last] {
                    let (mut a, mut b) = (vec![0.0; cols], vec![1.0; cols]);
                    before.decode_row(r, &mut a);
                    after.decode_row(r, &mut b);
                    assert_eq!(a, b, "{format:?} row {r}");
                }
                assert_eq!(
                    before.select(&[3, 0, last as u32]).storage().bytes(),
                    after.select(&[3, 0, last as u32]).storage().bytes()
                );
                if before.rows() > 1000 {
                    continue;
                }
                for tokens in [1, 3, 5] {
                    let x = input(&compute, tokens, cols);
                    let (plain, found) = (product(before, &one, &x), product(after, &compute, &x));
                    let size = plain.iter().fold(0.0_f32, |m, y| m.max(y.abs()));
                    assert!(
                        plain.iter().zip(&found).all(|(a, b)| (a - b).abs() <= 1e-4 * size),
                        "{format:?}"
                    );
                    assert_eq!(product(after, &one, &x), found, "{format:?}: {threads} threads");
                }
                let x = input(&compute, 1, cols);
                let active: Vec<u32> = (0..before.rows() as u32).filter(|j| j % 7 < 3).collect();
                let mut rows = vec![f32::NAN; active.len()];
                after.matmul_rows(&compute, &active, &x, &mut rows);
                let all = product(after, &compute, &x);
                assert!(active.iter().zip(&rows).all(|(j, y)| all[*j as usize] == *y), "{format:?}");
            }
        }
    }
}

#[test]
fn rows_that_a_selector_leaves_out_are_contiguous_again() {
    let Some(compute) = compute(1) else { return };
    let (inputs, neurons) = (256, 512);
    let linear = |stream| Linear::new(matrix(BlockFormat::Q4_0, neurons, inputs, stream), None).unwrap();
    let down = Down::Rows(matrix(BlockFormat::Q4_0, inputs, neurons, 3));
    let mut ffn = SparseFfn::gated(linear(1), linear(2), down, ActivationType::Relu).unwrap();
    let x = input(&compute, 1, inputs);
    let run = |ffn: &SparseFfn| {
        let mut out = vec![0.0; inputs];
        let mut scratch = FfnScratch::new(1, [ffn]);
        ffn.forward(&compute, &x, BatchMode::Dense, &mut scratch, &mut out);
        out
    };
    let near = |a: &[f32], b: &[f32]| {
        let size = a.iter().fold(0.0_f32, |m, y| m.max(y.abs()));
        a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-3 * size)
    };
    let rows = run(&ffn);
    let interleaved = |ffn: &SparseFfn| {
        let of = |linear: &Linear| linear.weight().segments()[0].is_interleaved();
        let Down::Rows(down) = ffn.down() else { return [of(ffn.gate().unwrap()), of(ffn.up()), false] };
        [of(ffn.gate().unwrap()), of(ffn.up()), down.is_interleaved()]
    };
    assert_eq!(interleave(&compute, ffn.whole_matrices_mut(), |_| ()), ffn.bytes());
    assert_eq!(interleaved(&ffn), [true, true, true]);
    assert!(near(&rows, &run(&ffn)));
    // All gates are computed to see which are zero.
    ffn.set_selector(Selector::ExactZero).unwrap();
    assert_eq!(interleaved(&ffn), [true, false, true]);
    assert!(near(&rows, &run(&ffn)));
    ffn.sort_by_columns().unwrap();
    assert_eq!(interleaved(&ffn), [true, false, false]);
    assert!(near(&rows, &run(&ffn)));
    ffn.set_selector(Selector::Fixed { active: vec![true; neurons], skip_gate: true }).unwrap();
    assert_eq!(interleaved(&ffn), [false, false, false]);
    assert!(near(&rows, &run(&ffn)));
    assert_eq!(interleave(&compute, ffn.whole_matrices_mut(), |_| ()), 0);
    ffn.set_selector(Selector::Dense).unwrap();
    ffn.sort_by_rows();
    interleave(&compute, ffn.whole_matrices_mut(), |_| ());
    assert_eq!(interleaved(&ffn), [true, true, true]);
    assert!(near(&rows, &run(&ffn)));
}
