//! Sparse FFNs against dense ones whose other neurons are zero.

mod every_selector;

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
    let computes = [1, 2, 4].map(Compute::new);
    for (i, (format, stored, per_mille)) in cases.enumerate() {
        // Seven kinds against twelve pairs: every kind meets every pair of storage and share.
        let recipe = Recipe { format, kind: KINDS[i % KINDS.len()], seed: i as u64 };
        check_set(&recipe, stored, per_mille, (i / KINDS.len()).is_multiple_of(2), &computes);
    }
}

/// A layer that computes `per_mille` of its neurons against one whose other neurons are zero, by one thread
/// and by `others`.
fn check_set(
    recipe: &Recipe,
    stored: Stored,
    per_mille: u64,
    skip_gate: bool,
    [one, others @ ..]: &[Compute; 3],
) {
    let Recipe { format, kind, seed } = *recipe;
    let case = format!("{} {kind:?} {stored:?}, {per_mille} of 1000, skip_gate {skip_gate}", format.name());
    let set: Vec<bool> =
        (0..NEURONS).map(|j| (j as u64 * 7919 + seed * 104_729) % 1000 < per_mille).collect();
    let x = input(one, 3, seed);
    let build = |keep: &dyn Fn(usize) -> bool| match stored {
        Stored::Neurons => recipe.neuron_records(keep),
        Stored::Rows | Stored::Columns => recipe.build(keep),
    };
    let expected = run(&build(&|j| set[j]), one, &x, BatchMode::Dense).0;

    let mut ffn = build(&|_| true);
    if let Stored::Columns = stored {
        ffn.sort_by_columns().unwrap();
    }
    ffn.set_selector(Selector::Fixed { active: set.clone(), skip_gate }).unwrap();
    let masked = run(&ffn, one, &x, BatchMode::Masked).0;
    assert!(distance(&masked, &expected) < 1e-5, "{case}, masked: {}", distance(&masked, &expected));
    for t in 0..x.tokens() {
        let (of_token, x) = (t * ffn.outputs()..(t + 1) * ffn.outputs(), token(&x, t, one));
        let (alone, counts) = run(&ffn, one, &x, BatchMode::Dense);
        let off = distance(&alone, &expected[of_token]);
        assert!(off < 1e-5, "{case}, token {t} alone: {off}");
        assert!(counts.down as usize <= set.iter().filter(|s| **s).count(), "{case}: {counts:?}");
        for many in others {
            let found = run(&ffn, many, &x, BatchMode::Dense).0;
            assert_eq!(found, alone, "{case}, {} threads", many.pool.threads());
        }
    }
}

/// What a neuron adds is as large as its column of `down`.
#[test]
fn the_oracle_weighs_neurons_by_their_columns() {
    let compute = Compute::new(1);
    let x = input(&compute, 1, 17);
    let mut ffn = Recipe { format: BlockFormat::Q8_0, kind: KINDS[2], seed: 6 }.by_columns();
    let large: Vec<bool> = (0..NEURONS).map(|j| j.is_multiple_of(7)).collect();
    let norms = large.iter().map(|large| if *large { 1e6 } else { 1.0 }).collect();
    let rule = Rule::TopK(large.iter().filter(|large| **large).count());
    let mut with = |selector| {
        ffn.set_selector(selector).unwrap();
        run(&ffn, &compute, &x, BatchMode::Dense)
    };
    let (found, counts) = with(Selector::Oracle { rule, norms });
    let (expected, of_set) = with(Selector::Fixed { active: large, skip_gate: false });
    assert_eq!(counts.down, of_set.down);
    assert!(distance(&found, &expected) < 1e-6, "{}", distance(&found, &expected));
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
