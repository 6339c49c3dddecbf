//! Sparse FFNs against dense ones whose other neurons are zero.

use sparse_core::{
    ActivationType, Activations, BatchMode, Compute, Crossover, Down, FfnCounts, FfnScratch, Linear,
    LowRankPredictor, Matrix, Rule, Selector, SparseFfn, Storage,
};
use sparse_simd::BlockFormat;
use sparse_testdata::Weights;

/// Inputs and neurons: whole blocks of every format.
const INPUTS: usize = 256;
const NEURONS: usize = 512;
/// No multiple of the rows that kernels take at a time.
const OUTPUTS: usize = 100;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain(ActivationType),
    Gated(ActivationType, ActivationType),
}

const KINDS: [Kind; 8] = [
    Kind::Plain(ActivationType::Gelu),
    Kind::Plain(ActivationType::Relu),
    Kind::Gated(ActivationType::Silu, ActivationType::Identity),
    Kind::Gated(ActivationType::GeluTanh, ActivationType::Identity),
    Kind::Gated(ActivationType::Relu, ActivationType::Identity),
    Kind::Gated(ActivationType::Relu, ActivationType::Relu),
    Kind::Gated(ActivationType::Relu2, ActivationType::Identity),
    Kind::Gated(ActivationType::FatRelu { threshold: 0.3 }, ActivationType::Identity),
];

/// A random layer; `keep` says which neurons are not forced to zero.
struct Recipe {
    format: BlockFormat,
    kind: Kind,
    seed: u64,
}

impl Recipe {
    fn matrix(&self, rows: usize, cols: usize, stream: u64, keep: impl Fn(usize) -> bool) -> Matrix {
        let row_bytes = self.format.row_bytes(cols).unwrap();
        let mut bytes = vec![0; rows * row_bytes];
        Weights::new(self.format, 0.0, 2.0 / (cols as f32).sqrt(), self.seed, stream).fill(&mut bytes);
        // Zero bytes are zeros in every format.
        bytes.chunks_mut(row_bytes).enumerate().filter(|(r, _)| !keep(*r)).for_each(|(_, row)| row.fill(0));
        Matrix::new(self.format, cols, Storage::Owned(bytes)).unwrap()
    }

    fn build(&self, keep: impl Fn(usize) -> bool) -> SparseFfn {
        self.with(Down::Rows(self.matrix(OUTPUTS, NEURONS, 2, |_| true)), keep)
    }

    /// With as many outputs as whole blocks have.
    fn neuron_records(&self, keep: impl Fn(usize) -> bool) -> SparseFfn {
        self.with(Down::Neurons(self.matrix(NEURONS, INPUTS, 2, |_| true).into()), keep)
    }

    fn with(&self, down: Down, keep: impl Fn(usize) -> bool) -> SparseFfn {
        let linear = |w| Linear::new(w, None).unwrap();
        let up = linear(self.matrix(NEURONS, INPUTS, 1, keep));
        match self.kind {
            Kind::Plain(f) => SparseFfn::plain(up, down, f),
            Kind::Gated(f, g) => {
                let gate = linear(self.matrix(NEURONS, INPUTS, 3, |_| true));
                SparseFfn::gated(gate, up, down, f).map(|ffn| ffn.with_up_activation(g))
            }
        }
        .unwrap()
    }
}

impl Recipe {
    fn by_columns(&self) -> SparseFfn {
        let mut ffn = self.build(|_| true);
        ffn.sort_by_columns().unwrap();
        ffn
    }
}

fn input(compute: &Compute, tokens: usize, seed: u64) -> Activations {
    let mut x = Activations::with_capacity(tokens, INPUTS);
    x.resize(tokens);
    let mut bytes = vec![0; tokens * INPUTS * 4];
    Weights::new(BlockFormat::F32, 0.0, 1.0, seed, 9).fill(&mut bytes);
    BlockFormat::F32.decode(&bytes, x.x_mut()).unwrap();
    x.quantize(compute.kernels);
    x
}

fn run(ffn: &SparseFfn, compute: &Compute, x: &Activations, batch: BatchMode) -> (Vec<f32>, FfnCounts) {
    let mut scratch = FfnScratch::new(x.tokens(), [ffn]);
    let mut out = vec![f32::NAN; x.tokens() * ffn.outputs()];
    let counts = ffn.forward(compute, x, batch, &mut scratch, &mut out);
    (out, counts)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let norm = |x: &mut dyn Iterator<Item = f32>| x.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied()).max(1e-30)
}

/// A token of a batch.
fn token(x: &Activations, t: usize, compute: &Compute) -> Activations {
    let mut one = Activations::with_capacity(1, x.cols());
    one.resize(1);
    one.x_mut().copy_from_slice(&x.x()[t * x.cols()..][..x.cols()]);
    one.quantize(compute.kernels);
    one
}

/// How `down` is stored.
#[derive(Clone, Copy, Debug)]
enum Stored {
    Rows,
    Columns,
    Neurons,
}

#[test]
fn a_set_is_the_dense_path_with_the_others_zero() {
    let stored = [Stored::Rows, Stored::Columns, Stored::Neurons];
    let shares = [0, 20, 400, 1000];
    let cases = BlockFormat::ALL.into_iter().flat_map(|f| stored.map(|s| (f, s)));
    let cases = cases.flat_map(|(f, s)| shares.map(|per_mille| (f, s, per_mille)));
    for (i, (format, stored, per_mille)) in cases.enumerate() {
        // Seven kinds against twelve pairs: every kind meets every pair of storage and share.
        let recipe = Recipe { format, kind: KINDS[i % KINDS.len()], seed: i as u64 };
        check_set(&recipe, stored, per_mille, (i / KINDS.len()).is_multiple_of(2));
    }
}

/// A layer that computes `per_mille` of its neurons against one whose other neurons are zero.
fn check_set(recipe: &Recipe, stored: Stored, per_mille: u64, skip_gate: bool) {
    let Recipe { format, kind, seed } = *recipe;
    let case = format!("{} {kind:?} {stored:?}, {per_mille} of 1000, skip_gate {skip_gate}", format.name());
    let set: Vec<bool> =
        (0..NEURONS).map(|j| (j as u64 * 7919 + seed * 104_729) % 1000 < per_mille).collect();
    let one = Compute::new(1);
    let x = input(&one, 3, seed);
    let build = |keep: &dyn Fn(usize) -> bool| match stored {
        Stored::Neurons => recipe.neuron_records(keep),
        Stored::Rows | Stored::Columns => recipe.build(keep),
    };
    let expected = run(&build(&|j| set[j]), &one, &x, BatchMode::Dense).0;

    let mut ffn = build(&|_| true);
    if let Stored::Columns = stored {
        ffn.sort_by_columns().unwrap();
    }
    ffn.set_selector(Selector::Fixed { active: set.clone(), skip_gate }).unwrap();
    let masked = run(&ffn, &one, &x, BatchMode::Masked).0;
    assert!(distance(&masked, &expected) < 1e-5, "{case}, masked: {}", distance(&masked, &expected));
    for t in 0..x.tokens() {
        let (of_token, x) = (t * ffn.outputs()..(t + 1) * ffn.outputs(), token(&x, t, &one));
        let (alone, counts) = run(&ffn, &one, &x, BatchMode::Dense);
        let off = distance(&alone, &expected[of_token]);
        assert!(off < 1e-5, "{case}, token {t} alone: {off}");
        assert!(counts.down as usize <= set.iter().filter(|s| **s).count(), "{case}: {counts:?}");
        for threads in [2, 4] {
            let many = run(&ffn, &Compute::new(threads), &x, BatchMode::Dense).0;
            assert_eq!(many, alone, "{case}, {threads} threads");
        }
    }
}

/// `values[t * n..]` of the gate of every token, before the activation.
fn gates(ffn: &SparseFfn, compute: &Compute, x: &Activations) -> Vec<f32> {
    let mut out = vec![0.0; x.tokens() * ffn.neurons()];
    ffn.gate().unwrap().forward(compute, x, &mut out);
    out
}

#[test]
fn exact_zero_is_lossless_and_skips() {
    let compute = Compute::new(1);
    for format in [BlockFormat::F32, BlockFormat::Q4_0, BlockFormat::Q4K] {
        let recipe = Recipe { format, kind: KINDS[4], seed: 5 };
        let x = input(&compute, 1, 11);
        let (expected, dense) = run(&recipe.build(|_| true), &compute, &x, BatchMode::Dense);
        let mut ffn = recipe.by_columns();
        ffn.set_selector(Selector::ExactZero).unwrap();
        let (out, counts) = run(&ffn, &compute, &x, BatchMode::Dense);
        assert!(distance(&out, &expected) < 1e-6, "{}", format.name());
        let positive = gates(&ffn, &compute, &x).iter().filter(|g| **g > 0.0).count() as u64;
        assert_eq!((counts.gate, counts.up), (NEURONS as u64, positive));
        assert!(counts.down <= positive && counts.bytes < dense.bytes, "{counts:?} {dense:?}");
    }
}

#[test]
fn a_predictor_that_knows_the_gate_is_exact_zero() {
    let compute = Compute::new(2);
    let recipe = Recipe { format: BlockFormat::F32, kind: KINDS[4], seed: 5 };
    let x = input(&compute, 4, 11);
    let mut ffn = recipe.by_columns();
    ffn.set_selector(Selector::ExactZero).unwrap();
    let expected = run(&ffn, &compute, &x, BatchMode::Masked);
    // P is the identity and Q the gate: the scores are the gate itself.
    let identity: Vec<u8> = (0..INPUTS * INPUTS)
        .flat_map(|i| (if i % (INPUTS + 1) == 0 { 1.0_f32 } else { 0.0 }).to_le_bytes())
        .collect();
    let p = Matrix::new(BlockFormat::F32, INPUTS, Storage::Owned(identity)).unwrap();
    let predictor = LowRankPredictor::new(p, recipe.matrix(NEURONS, INPUTS, 3, |_| true), vec![0.0; NEURONS]);
    let selector = Selector::LowRank { predictor: predictor.unwrap(), rule: Rule::Threshold(0.0) };
    assert_eq!(ffn.set_selector(selector).unwrap().name(), "exact-zero");
    let (out, counts) = run(&ffn, &compute, &x, BatchMode::Masked);
    assert_eq!(out, expected.0);
    assert_eq!((counts.gate, counts.down), (expected.1.up, expected.1.down));
    let alone = run(&ffn, &compute, &token(&x, 2, &compute), BatchMode::Dense).0;
    assert!(distance(&alone, &out[2 * OUTPUTS..3 * OUTPUTS]) < 1e-6);
}

#[test]
fn thresholds_choose_neurons() {
    let compute = Compute::new(1);
    let recipe = Recipe { format: BlockFormat::Q8_0, kind: KINDS[2], seed: 3 };
    let x = input(&compute, 1, 4);
    let mut ffn = recipe.by_columns();
    let mut gate = gates(&ffn, &compute, &x);
    ActivationType::Silu.apply(compute.kernels, &mut gate);
    // A threshold of its own for every neuron: odd ones are never, even ones usually above it.
    let thresholds: Vec<f32> = (0..NEURONS).map(|j| if j % 2 == 0 { 0.05 } else { 1e9 }).collect();
    let chosen: Vec<bool> = gate.iter().zip(&thresholds).map(|(g, t)| g.abs() > *t).collect();
    let expected = run(&recipe.build(|j| chosen[j]), &compute, &x, BatchMode::Dense).0;
    ffn.set_selector(Selector::Gate { gate: thresholds, hidden: None }).unwrap();
    let (out, counts) = run(&ffn, &compute, &x, BatchMode::Dense);
    assert!(distance(&out, &expected) < 1e-5);
    assert_eq!(counts.up as usize, chosen.iter().filter(|c| **c).count());

    // The oracle's choice of half loses less than the same number taken at random.
    let all = run(&recipe.build(|_| true), &compute, &x, BatchMode::Dense).0;
    let lost = |selector: Selector| {
        let mut ffn = recipe.by_columns();
        ffn.set_selector(selector).unwrap();
        let (out, counts) = run(&ffn, &compute, &x, BatchMode::Dense);
        assert_eq!(counts.down as usize, NEURONS / 2);
        distance(&out, &all)
    };
    let oracle = lost(Selector::Oracle { rule: Rule::TopK(NEURONS / 2), norms: vec![1.0; NEURONS] });
    let blind = lost(Selector::Fixed { active: (0..NEURONS).map(|j| j % 2 == 0).collect(), skip_gate: true });
    assert!(oracle < 0.5 * blind, "oracle {oracle}, every second neuron {blind}");
}

/// What all neurons make of one token: `act(gate)` (or `act(up)`), and what `down` multiplies.
fn values(ffn: &SparseFfn, compute: &Compute, x: &Activations) -> [Vec<f32>; 2] {
    let mut values = [vec![0.0; NEURONS], vec![0.0; NEURONS]];
    let [gate, hidden] = &mut values;
    ffn.neuron_values(compute, x, gate, hidden);
    values
}

#[test]
fn both_thresholds_of_a_gate_choose() {
    let compute = Compute::new(1);
    let recipe = Recipe { format: BlockFormat::Q8_0, kind: KINDS[2], seed: 3 };
    let x = input(&compute, 1, 4);
    let mut ffn = recipe.by_columns();
    let [gate, hidden] = values(&ffn, &compute, &x);
    // Of every second neuron the gate is asked for, of every third what `down` multiplies.
    let thresholds =
        |every: usize, t: f32| (0..NEURONS).map(|j| if j % every == 0 { t } else { 0.0 }).collect();
    let (of_gate, of_hidden): (Vec<f32>, Vec<f32>) = (thresholds(2, 0.3), thresholds(3, 0.2));
    let past_gate: Vec<bool> = gate.iter().zip(&of_gate).map(|(g, t)| g.abs() > *t).collect();
    let kept: Vec<bool> =
        hidden.iter().zip(&of_hidden).zip(&past_gate).map(|((h, t), past)| *past && h.abs() > *t).collect();
    let count = |set: &[bool]| set.iter().filter(|kept| **kept).count() as u64;
    assert!(count(&kept) > 0 && count(&kept) < count(&past_gate) && count(&past_gate) < NEURONS as u64);
    let expected = run(&recipe.build(|j| kept[j]), &compute, &x, BatchMode::Dense).0;
    ffn.set_selector(Selector::Gate { gate: of_gate, hidden: Some(of_hidden) }).unwrap();
    for mode in [BatchMode::Dense, BatchMode::Masked] {
        let (out, counts) = run(&ffn, &compute, &x, mode);
        assert!(distance(&out, &expected) < 1e-5);
        assert_eq!((counts.gate, counts.up, counts.down), (NEURONS as u64, count(&past_gate), count(&kept)));
    }
}

#[test]
fn a_copy_that_is_exact_chooses_what_the_neurons_themselves_say() {
    let compute = Compute::new(1);
    let recipe = Recipe { format: BlockFormat::F32, kind: KINDS[0], seed: 3 };
    let x = input(&compute, 1, 4);
    let mut ffn = recipe.by_columns();
    let hidden: Vec<f32> = (0..NEURONS).map(|j| 0.2 * (j % 3) as f32).collect();
    let [_, h] = values(&ffn, &compute, &x);
    let kept: Vec<bool> = h.iter().zip(&hidden).map(|(h, t)| h.abs() > *t).collect();
    let count = kept.iter().filter(|kept| **kept).count() as u64;
    assert!(count > 0 && count < NEURONS as u64);
    let expected = run(&recipe.build(|j| kept[j]), &compute, &x, BatchMode::Dense).0;
    let copy = Linear::new(recipe.matrix(NEURONS, INPUTS, 1, |_| true), None).unwrap();
    for (selector, up) in [
        (Selector::Intermediate { hidden: hidden.clone() }, NEURONS as u64),
        (Selector::Copy { copy, hidden }, count),
    ] {
        ffn.set_selector(selector).unwrap();
        let (out, counts) = run(&ffn, &compute, &x, BatchMode::Dense);
        assert!(distance(&out, &expected) < 1e-5, "{}", ffn.selector().name());
        assert_eq!((counts.up, counts.down), (up, count), "{}", ffn.selector().name());
    }
}

#[test]
fn above_the_crossover_everything_is_computed_and_the_result_is_the_same() {
    let compute = Compute::new(2);
    let recipe = Recipe { format: BlockFormat::Q4_1, kind: KINDS[4], seed: 6 };
    let x = input(&compute, 1, 1);
    let mut ffn = recipe.by_columns();
    ffn.set_selector(Selector::ExactZero).unwrap();
    let (skipping, some) = run(&ffn, &compute, &x, BatchMode::Dense);
    ffn.set_crossover(Crossover { rows: 0.0, down: 0.0, tokens: 1 });
    let (dense, all) = run(&ffn, &compute, &x, BatchMode::Dense);
    assert!(distance(&skipping, &dense) < 1e-6);
    assert_eq!((some.up, some.down), (all.up, all.down));
    assert!(some.bytes < all.bytes && all.bytes == ffn.bytes() as u64, "{some:?} {all:?}");
}

#[test]
fn small_batches_skip_up_to_the_crossover() {
    let compute = Compute::new(2);
    let mut ffn = Recipe { format: BlockFormat::Q4_1, kind: KINDS[4], seed: 6 }.by_columns();
    ffn.set_selector(Selector::ExactZero).unwrap();
    ffn.set_crossover(Crossover { tokens: 2, ..Crossover::default() });
    let skips = |tokens| {
        let x = input(&compute, tokens, 1);
        let (out, counts) = run(&ffn, &compute, &x, BatchMode::Dense);
        let (each, of_each) = run(&ffn, &compute, &x, BatchMode::Each);
        if (counts.up, counts.down) == (of_each.up, of_each.down) {
            assert_eq!(out, each, "{tokens} tokens");
            true
        } else {
            false
        }
    };
    assert_eq!([1, 2, 3].map(skips), [true, true, false]);
}

#[test]
fn bad_numbers_show_and_never_choose_a_neuron_that_is_not_there() {
    let compute = Compute::new(1);
    for kind in KINDS {
        let recipe = Recipe { format: BlockFormat::Q4_0, kind, seed: 8 };
        let mut ffn = recipe.by_columns();
        let selector = match kind {
            Kind::Gated(..) => Selector::Gate { gate: vec![0.1; NEURONS], hidden: Some(vec![0.1; NEURONS]) },
            Kind::Plain(_) => Selector::Intermediate { hidden: vec![0.1; NEURONS] },
        };
        ffn.set_selector(selector).unwrap();
        for bad in [f32::NAN, f32::INFINITY] {
            let mut x = input(&compute, 1, 2);
            x.x_mut()[17] = bad;
            x.quantize(compute.kernels);
            let (out, _) = run(&ffn, &compute, &x, BatchMode::Dense);
            assert!(out.iter().all(|y| !y.is_finite()), "{kind:?} with {bad}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let recipe = Recipe { format: BlockFormat::Q8_0, kind: KINDS[2], seed: 1 };
    let mut ffn = recipe.build(|_| true);
    let mut refused = |selector| ffn.set_selector(selector).unwrap_err().to_string();
    assert_eq!(refused(Selector::ExactZero), "exact-zero needs an activation that gives zeros, such as relu");
    assert_eq!(
        refused(Selector::Intermediate { hidden: vec![0.0; 3] }),
        "thresholds of h: expected 512, found 3"
    );
    let matrix = |rows, cols| recipe.matrix(rows, cols, 0, |_| true);
    let predictor = |p, q, bias: usize| LowRankPredictor::new(p, q, vec![0.0; bias]);
    let small = predictor(matrix(32, INPUTS), matrix(64, 32), 64).unwrap();
    let rule = Rule::Threshold(0.0);
    assert_eq!(
        refused(Selector::LowRank { predictor: small, rule }),
        "neurons of the predictor: expected 512, found 64"
    );
    let some_nan = || (0..NEURONS).map(|j| if j == 77 { f32::NAN } else { 0.0 }).collect::<Vec<_>>();
    let nan = " needs thresholds that are numbers, found NaN";
    let fits = predictor(matrix(32, INPUTS), matrix(NEURONS, 32), NEURONS).unwrap();
    let rule = Rule::Threshold(f32::NAN);
    for selector in [
        Selector::Intermediate { hidden: some_nan() },
        Selector::Gate { gate: some_nan(), hidden: None },
        Selector::Gate { gate: vec![0.0; NEURONS], hidden: Some(some_nan()) },
        Selector::LowRank { predictor: fits, rule },
        Selector::Oracle { rule, norms: vec![1.0; NEURONS] },
    ] {
        let name = selector.name();
        assert_eq!(refused(selector), format!("{name}{nan}"));
    }
    assert_eq!(ffn.selector().name(), "dense");
    let all = Selector::Intermediate { hidden: vec![f32::NEG_INFINITY; NEURONS] };
    ffn.set_selector(all).unwrap();
    assert!(predictor(matrix(32, INPUTS), matrix(64, 64), 64).is_err());
    assert!(predictor(matrix(32, INPUTS), matrix(64, 32), 63).is_err());
    let linear = |rows, cols| Linear::new(matrix(rows, cols), None).unwrap();
    let down = || Down::Rows(matrix(OUTPUTS, NEURONS));
    let silu = ActivationType::Silu;
    assert!(SparseFfn::plain(linear(64, INPUTS), down(), silu).is_err());
    assert!(SparseFfn::gated(linear(64, INPUTS), linear(NEURONS, INPUTS), down(), silu).is_err());
    let plain = SparseFfn::plain(linear(NEURONS, INPUTS), down(), silu).unwrap();
    assert!(plain.with_down_bias(vec![0.0; 3]).is_err());
    assert!(Linear::new(matrix(4, 32), Some(vec![0.0; 5])).is_err());
}

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
                    scratch.reserve(&ffn);
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
