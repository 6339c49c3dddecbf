//! What holds with every selector.

use super::*;

/// A selector of each sort, for layers with or without a gate.
fn selectors(recipe: &Recipe) -> Vec<Selector> {
    let copy = Linear::new(recipe.matrix(NEURONS, INPUTS, 1, |_| true), None).unwrap();
    let hidden = |t: f32| (0..NEURONS).map(|j| t * (j % 3) as f32).collect::<Vec<f32>>();
    let p = Matrix::from_f32(INPUTS, (0..32 * INPUTS).map(|i| (i % 7) as f32 - 3.0)).unwrap();
    let q = Matrix::from_f32(32, (0..NEURONS * 32).map(|i| (i % 11) as f32 - 5.0)).unwrap();
    let predictor = LowRankPredictor::new(p, q, vec![0.0; NEURONS]).unwrap();
    let mut all = vec![
        Selector::Intermediate { hidden: hidden(0.2) },
        Selector::LowRank { predictor, rule: Rule::Threshold(0.0) },
        Selector::Fixed { active: (0..NEURONS).map(|j| j % 5 < 2).collect(), skip_gate: true },
    ];
    match recipe.kind {
        Kind::Plain(_) => all.push(Selector::Copy { copy, hidden: hidden(0.2) }),
        Kind::Gated(..) => all.push(Selector::Gate { gate: hidden(0.1), hidden: Some(hidden(0.1)) }),
    }
    all
}

fn means() -> Vec<f32> {
    (0..NEURONS).map(|j| 0.01 * (j % 9) as f32 - 0.03).collect()
}

#[test]
fn a_selector_that_leaves_out_nothing_reads_everything_and_itself() {
    let compute = Compute::new(1);
    for kind in [KINDS[0], KINDS[2]] {
        let recipe = Recipe { format: BlockFormat::Q8_0, kind, seed: 3 };
        let x = input(&compute, 1, 4);
        for selector in selectors(&recipe) {
            let all = match selector {
                Selector::LowRank { predictor, .. } => {
                    Selector::LowRank { predictor, rule: Rule::Threshold(f32::NEG_INFINITY) }
                }
                Selector::Copy { copy, .. } => Selector::Copy { copy, hidden: vec![-1.0; NEURONS] },
                Selector::Gate { .. } => Selector::Gate { gate: vec![-1.0; NEURONS], hidden: None },
                _ => Selector::Intermediate { hidden: vec![-1.0; NEURONS] },
            };
            let (name, own) = (all.name(), all.bytes());
            assert_eq!(own > 0, matches!(name, "low-rank" | "copy"), "{name}");
            let mut ffn = recipe.neuron_records(|_| true);
            ffn.set_selector(all).unwrap();
            let counts = run(&ffn, &compute, &x, BatchMode::Dense).1;
            assert_eq!(counts.bytes, (ffn.bytes() + own) as u64, "{kind:?} {name}");
        }
    }
}

#[test]
fn a_masked_batch_counts_the_bytes_of_single_tokens() {
    let compute = Compute::new(1);
    let recipe = Recipe { format: BlockFormat::Q8_0, kind: KINDS[0], seed: 3 };
    let x = input(&compute, 5, 4);
    for selector in selectors(&recipe).into_iter().chain([Selector::Dense]) {
        let mut ffn = recipe.neuron_records(|_| true);
        ffn.set_selector(selector.clone()).unwrap();
        let alone = |t| run(&ffn, &compute, &token(&x, t, &compute), BatchMode::Dense).1.bytes;
        let masked = run(&ffn, &compute, &x, BatchMode::Masked).1.bytes;
        assert_eq!(masked, (0..5).map(alone).sum::<u64>(), "{}", selector.name());
    }
}

#[test]
fn tokens_of_a_batch_may_have_their_own_sets() {
    let compute = Compute::new(2);
    for kind in [KINDS[0], KINDS[1], KINDS[2]] {
        let recipe = Recipe { format: BlockFormat::Q8_0, kind, seed: 3 };
        let x = input(&compute, 5, 4);
        for selector in selectors(&recipe) {
            for means in [None, Some(means())] {
                let mut ffn = recipe.neuron_records(|_| true);
                let name = selector.name();
                ffn.set_selector(selector.clone()).unwrap();
                ffn.set_means(means).unwrap();
                let (each, counts) = run(&ffn, &compute, &x, BatchMode::Each);
                let (masked, of_masked) = run(&ffn, &compute, &x, BatchMode::Masked);
                assert_eq!((counts.tokens, counts.down), (5, of_masked.down), "{kind:?} {name}");
                assert!(counts.down > 0 && counts.down < (5 * NEURONS) as u64, "{kind:?} {name}");
                assert!(distance(&each, &masked) < 1e-5, "{kind:?} {name}");
                for t in 0..5 {
                    let one = run(&ffn, &compute, &token(&x, t, &compute), BatchMode::Dense).0;
                    assert!(distance(&each[t * INPUTS..][..INPUTS], &one) < 1e-5, "{kind:?} {name} {t}");
                }
                if matches!(selector, Selector::Intermediate { .. }) && ffn.gate().is_none() {
                    let mut up = vec![0.0; 5 * NEURONS];
                    ffn.up().forward(&compute, &x, &mut up);
                    let (mut scratch, mut out) = (FfnScratch::default(), vec![f32::NAN; 5 * INPUTS]);
                    scratch.reserve_neurons(1, ffn.neurons());
                    ffn.forward_from_up(&compute, &up, &mut scratch, &mut out);
                    assert_eq!(out, each);
                }
            }
        }
    }
}

#[test]
fn skipped_neurons_give_their_means() {
    let compute = Compute::new(1);
    let recipe = Recipe { format: BlockFormat::F32, kind: KINDS[0], seed: 5 };
    let (x, means) = (input(&compute, 3, 6), means());
    let active: Vec<bool> = (0..NEURONS).map(|j| j % 5 < 2).collect();
    for mut ffn in [recipe.build(|_| true), recipe.neuron_records(|_| true)] {
        let dense = run(&ffn, &compute, &x, BatchMode::Dense).0;
        let (mut gate, mut hidden) = (vec![0.0; 3 * NEURONS], vec![0.0; 3 * NEURONS]);
        ffn.neuron_values(&compute, &x, &mut gate, &mut hidden);
        // All neurons, with the skipped ones' values put in their place.
        for (i, h) in hidden.iter_mut().enumerate() {
            *h = if active[i % NEURONS] { *h } else { means[i % NEURONS] };
        }
        let mut row = vec![0.0; ffn.down().neurons().max(ffn.outputs())];
        let mut expected = vec![0.0_f64; 3 * ffn.outputs()];
        for (t, out) in expected.chunks_mut(ffn.outputs()).enumerate() {
            for (j, h) in hidden[t * NEURONS..][..NEURONS].iter().enumerate() {
                match ffn.down() {
                    Down::Neurons(w) => {
                        w.decode_row(j, &mut row[..w.cols()]);
                        out.iter_mut().zip(&row).for_each(|(y, w)| *y += f64::from(*h) * f64::from(*w));
                    }
                    Down::Rows(w) => (0..w.rows()).for_each(|r| {
                        w.decode_row(r, &mut row[..w.cols()]);
                        out[r] += f64::from(*h) * f64::from(row[j]);
                    }),
                    other => panic!("{other:?}"),
                }
            }
        }
        let expected: Vec<f32> = expected.iter().map(|y| *y as f32).collect();
        ffn.set_selector(Selector::Fixed { active: active.clone(), skip_gate: true }).unwrap();
        ffn.set_means(Some(means.clone())).unwrap();
        assert_eq!(ffn.means(), Some(&means[..]));
        for mode in [BatchMode::Each, BatchMode::Masked] {
            let found = run(&ffn, &compute, &x, mode).0;
            assert!(distance(&found, &expected) < 1e-6, "{mode:?}: {}", distance(&found, &expected));
        }
        // With all neurons there is nothing to stand in for.
        ffn.set_selector(Selector::Intermediate { hidden: vec![-1.0; NEURONS] }).unwrap();
        for mode in [BatchMode::Each, BatchMode::Masked, BatchMode::Dense] {
            assert!(distance(&run(&ffn, &compute, &x, mode).0, &dense) < 1e-6, "{mode:?}");
        }
        assert!(ffn.set_means(Some(vec![0.0; 3])).is_err());
        assert!(ffn.set_means(Some(vec![f32::NAN; NEURONS])).is_err());
        assert_eq!(ffn.means(), Some(&means[..]));
    }
}

#[test]
fn sorted_by_columns_and_back_is_the_same_layer() {
    for format in [BlockFormat::Q4_0, BlockFormat::Q8_0, BlockFormat::F32] {
        let recipe = Recipe { format, kind: KINDS[2], seed: 11 };
        let (before, mut ffn) = (recipe.build(|_| true), recipe.by_columns());
        assert!(matches!(ffn.down(), Down::Columns(_)));
        ffn.sort_by_rows();
        match (before.down(), ffn.down()) {
            (Down::Rows(a), Down::Rows(b)) => {
                assert_eq!(a.storage().bytes(), b.storage().bytes(), "{format:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A norm behind the neurons sees zeros where neurons are left out: the same numbers as the dense path.
#[test]
fn a_norm_of_h_takes_skipped_neurons_for_zeros() {
    let compute = Compute::new(1);
    let weight: Vec<f32> = (0..NEURONS).map(|j| 0.5 + (j % 7) as f32 / 7.0).collect();
    for stored in [Stored::Rows, Stored::Columns, Stored::Neurons] {
        let recipe = Recipe { format: BlockFormat::F32, kind: KINDS[6], seed: 5 };
        let build = || {
            let ffn = match stored {
                Stored::Neurons => recipe.neuron_records(|_| true),
                Stored::Rows | Stored::Columns => recipe.build(|_| true),
            };
            ffn.with_hidden_norm(weight.clone(), 1e-5).unwrap()
        };
        let (dense, mut sparse) = (build(), build());
        sparse.set_selector(Selector::ExactZero).unwrap();
        if let Stored::Columns = stored {
            sparse.sort_by_columns().unwrap();
        }
        let x = input(&compute, 5, 3);
        let (expected, _) = run(&dense, &compute, &x, BatchMode::Dense);
        for mode in [BatchMode::Dense, BatchMode::Masked, BatchMode::Each] {
            let (found, _) = run(&sparse, &compute, &x, mode);
            let distance = distance(&found, &expected);
            assert!(distance < 1e-5, "{stored:?}, {mode:?}: {distance}");
        }
        // The formula itself, from what the neurons give.
        let one = token(&x, 2, &compute);
        let (mut gate, mut hidden) = (vec![0.0; NEURONS], vec![0.0; NEURONS]);
        dense.neuron_values(&compute, &one, &mut gate, &mut hidden);
        let mean = hidden.iter().map(|h| h * h).sum::<f32>() / NEURONS as f32;
        let mut normed = Activations::with_capacity(1, NEURONS);
        normed.resize(1);
        for (out, (h, w)) in normed.x_mut().iter_mut().zip(hidden.iter().zip(&weight)) {
            *out = h / (mean + 1e-5).sqrt() * w;
        }
        let mut by_hand = vec![0.0; dense.outputs()];
        match dense.down() {
            Down::Rows(w) => w.matmul(&compute, &normed, &mut by_hand),
            Down::Neurons(w) => w.weighted_sum(&compute, &normed, &mut by_hand),
            other => panic!("{other:?}"),
        }
        let (single, _) = run(&sparse, &compute, &one, BatchMode::Dense);
        assert!(distance(&single, &by_hand) < 1e-5, "{stored:?}");
    }
    let mut ffn = Recipe { format: BlockFormat::F32, kind: KINDS[6], seed: 5 }.build(|_| true);
    ffn = ffn.with_hidden_norm(weight, 1e-5).unwrap();
    assert!(ffn.set_means(Some(vec![0.1; NEURONS])).is_err());
}
