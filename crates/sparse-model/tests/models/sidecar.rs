//! Selectors in files, and what models do with them.

mod lanes;

use std::sync::Arc;

use sparse_core::{Axes, BatchMode, Density, LowRankPredictor, Margins, Matrix, Rule, Selector, Storage};
use sparse_gguf::{BlockFormat, Gguf, GgufWriter, Metadata};
use sparse_model::lanes::NeuronLanes;
use sparse_model::sidecar::{HeadScreen, MeasuredLoss, OwnText, fingerprint};
use sparse_model::{Model, ModelOptions, Placement, Session, Sidecar};
use sparse_precision::PrecisionLane;
use sparse_testdata::{TinyLlama, Weights};

const NEURONS: usize = 160;
const WIDTH: usize = 64;

fn relu() -> TinyLlama {
    TinyLlama { activation: Some("relu"), format: BlockFormat::F32, ..TinyLlama::default() }
}

fn gguf(tiny: &TinyLlama) -> Gguf {
    Gguf::from_bytes(tiny.build().to_bytes()).expect("a GGUF file")
}

fn matrix(rows: usize, cols: usize, stream: u64) -> Matrix {
    let mut bytes = vec![0; rows * BlockFormat::Q8_0.row_bytes(cols).unwrap()];
    Weights::new(BlockFormat::Q8_0, 0.0, 0.3, 4, stream).fill(&mut bytes);
    Matrix::new(BlockFormat::Q8_0, cols, Storage::Owned(bytes)).unwrap()
}

fn low_rank() -> Selector {
    let predictor = LowRankPredictor::new(matrix(32, WIDTH, 1), matrix(NEURONS, 32, 2), vec![0.25; NEURONS]);
    Selector::LowRank { predictor: predictor.unwrap(), rule: Rule::Threshold(-0.5) }
}

fn gate() -> Selector {
    let thresholds: Vec<f32> = (0..NEURONS).map(|j| j as f32 / 200.0).collect();
    Selector::Gate { gate: thresholds.clone(), hidden: Some(thresholds) }
}

fn sidecar(gguf: &Gguf, selectors: Vec<Selector>) -> Sidecar {
    let own = OwnText { kl: 0.02, kl_error: 0.001, tokens: 500, perplexity: 9.0, text_perplexity: 11.0 };
    let loss = MeasuredLoss {
        kl: 0.01,
        kl_error: 0.001,
        perplexity_increase: 0.005,
        standard_error: 0.001,
        top1: 0.9,
        tokens: 1000,
        own: Some(own),
    };
    Sidecar {
        fingerprint: fingerprint(gguf),
        activation: None,
        selectors,
        densities: None,
        loss: Some(loss),
        screen: None,
        lanes: None,
        heat: Some(vec![vec![0.25; NEURONS]; 2]),
    }
}

/// The logits after each token, one by one and in one masked batch, with these selectors.
fn logits(gguf: &Gguf, sidecar: Sidecar) -> [Vec<f32>; 2] {
    let mut model = Model::from_gguf(gguf, 1).unwrap();
    sidecar.apply(gguf, &mut model, Placement::Measured).unwrap();
    let model = Arc::new(model);
    let tokens: Vec<u32> = (0..24).map(|i| (i * 37 + 5) % 260).collect();
    let (mut alone, mut masked) = (Vec::new(), Vec::new());
    let mut session = Session::new(&model, tokens.len()).unwrap();
    for token in &tokens {
        alone.extend_from_slice(session.forward(&[*token]).unwrap());
    }
    let mut session = Session::new(&model, tokens.len()).unwrap();
    session.set_batch_mode(BatchMode::Masked);
    session.forward_each(&tokens, |_, l| masked.extend_from_slice(l)).unwrap();
    [alone, masked]
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn a_masked_batch_is_what_decoding_does() {
    let silu = TinyLlama { activation: None, ..relu() };
    let hidden = || Selector::Intermediate { hidden: vec![0.3; NEURONS] };
    for (name, tiny, select) in [
        ("exact zeros", relu(), Box::new(|| Selector::ExactZero) as Box<dyn Fn() -> Selector>),
        ("predictor", relu(), Box::new(low_rank)),
        ("gate", silu.clone(), Box::new(gate)),
        ("intermediate", silu, Box::new(hidden)),
    ] {
        let gguf = gguf(&tiny);
        let dense = logits(&gguf, sidecar(&gguf, vec![Selector::Dense, Selector::Dense]));
        let [alone, masked] = logits(&gguf, sidecar(&gguf, vec![select(), select()]));
        // Both round keys and values to half precision.
        let off = largest_difference(&alone, &masked);
        assert!(off < 5e-3, "{name}: {off}");
        let change = largest_difference(&alone, &dense[0]);
        assert_eq!(change > 0.05, name != "exact zeros", "{name}: {change}");
    }
}

#[test]
fn what_a_sidecar_stores_anew_is_in_memory_once() {
    let gguf = gguf(&relu());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    std::fs::write(&path, relu().build().to_bytes()).unwrap();
    // Which memory is still held once the file is closed: of the tensors named, in the sparse layer and in the dense one.
    let held = |made: Sidecar, parts: [&str; 3]| {
        let gguf = Gguf::read(&path, |t| made.stores_anew(&t.name)).unwrap();
        let memory = [0, 1].map(|layer| {
            parts.map(|part| Arc::downgrade(&gguf.shared(&format!("blk.{layer}.{part}.weight")).unwrap().0))
        });
        let mut model = Model::from_gguf(&gguf, 1).unwrap();
        made.apply(&gguf, &mut model, Placement::Measured).unwrap();
        drop(gguf);
        let held = memory.map(|layer| layer.map(|memory| memory.strong_count() > 0));
        (model, held)
    };
    let made = sidecar(&gguf, vec![Selector::ExactZero, Selector::Dense]);
    let (_model, kept) = held(made.clone(), ["ffn_gate", "ffn_up", "ffn_down"]);
    assert_eq!(kept, [[true, true, false], [true, true, true]]);
    let lanes = || {
        let order = (0..NEURONS as u32).collect();
        NeuronLanes::new(order, vec![(PrecisionLane::Bit5, NEURONS)], vec![1.0; WIDTH]).unwrap()
    };
    let in_lanes = Sidecar { lanes: Some(vec![lanes(), lanes()]), ..made };
    assert_eq!(held(in_lanes.clone(), ["ffn_gate", "ffn_up", "ffn_down"]).1, [[false; 3]; 2]);
    assert_eq!(held(in_lanes, ["attn_q", "ffn_norm", "attn_output"]).1, [[true; 3]; 2]);
}

#[test]
fn a_saved_sidecar_is_the_same_when_opened() {
    let gguf = gguf(&relu());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    for selectors in [
        vec![low_rank(), Selector::ExactZero],
        vec![Selector::Dense, gate()],
        vec![Selector::Intermediate { hidden: vec![0.5; NEURONS] }, gate()],
    ] {
        let expected = format!("{selectors:?}");
        let made = sidecar(&gguf, selectors);
        made.save(&path).unwrap();
        let opened = Sidecar::open(&path).unwrap();
        assert_eq!(format!("{:?}", opened.selectors).replace("shared", "owned"), expected);
        assert_eq!(opened.fingerprint, made.fingerprint);
        let (a, b) = (opened.loss.unwrap(), made.loss.unwrap());
        assert_eq!(a.tokens, b.tokens);
        assert!((a.upper() - b.upper()).abs() < 1e-6 && (a.kl - b.kl).abs() < 1e-6);
        let intervals = [a, b].map(|loss| loss.perplexity_interval());
        assert!((intervals[0].0 - intervals[1].0).abs() < 1e-6);
        let (own, expected) = (a.own.unwrap(), b.own.unwrap());
        assert_eq!((own.tokens, own.perplexity, own.text_perplexity), (500, 9.0, 11.0));
        assert!((own.kl - expected.kl).abs() < 1e-6 && (own.kl_error - expected.kl_error).abs() < 1e-6);
        assert_eq!(logits(&gguf, opened), logits(&gguf, made));
    }
    let oracle = Selector::Oracle { rule: Rule::TopK(5), norms: vec![1.0; NEURONS] };
    let refused = sidecar(&gguf, vec![Selector::Dense, oracle]).save(&path).unwrap_err();
    assert_eq!(refused.to_string(), "oracle needs a threshold to be stored: it is for measurements");
}

#[test]
fn layers_whose_neurons_are_all_idle_stay_sparse_on_every_machine() {
    let gguf = gguf(&relu());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    let none = Density { gate: 0.0, up: 0.0, down: 0.0 };
    let other = Density { gate: 1.0, up: 0.25, down: 0.125 };
    let selectors = vec![Selector::ExactZero, Selector::Dense];
    Sidecar { densities: Some(vec![none, other]), ..sidecar(&gguf, selectors) }.save(&path).unwrap();
    let opened = Sidecar::open(&path).unwrap();
    assert_eq!(opened.densities, Some(vec![none, other]));
    let mut model = Model::from_gguf(&gguf, 1).unwrap();
    opened.apply(&gguf, &mut model, Placement::Measured).unwrap();
    assert_eq!(model.ffns().map(|f| f.selector().name()).collect::<Vec<_>>(), ["exact-zero", "dense"]);
}

#[test]
fn a_predictor_that_takes_longer_than_its_layer_is_never_used() {
    // Fifteen times the products of all three projections, to leave out every neuron.
    let rank = 2048;
    let gguf = gguf(&relu());
    let predictor =
        LowRankPredictor::new(matrix(rank, WIDTH, 1), matrix(NEURONS, rank, 2), vec![0.0; NEURONS]);
    let slow = Selector::LowRank { predictor: predictor.unwrap(), rule: Rule::Threshold(1e9) };
    let none = Density { gate: 0.0, up: 0.0, down: 0.0 };
    let selectors = vec![slow.clone(), slow];
    let measured = Sidecar { densities: Some(vec![none, none]), ..sidecar(&gguf, selectors.clone()) };
    let mut model = Model::from_gguf(&gguf, 1).unwrap();
    measured.apply(&gguf, &mut model, Placement::Measured).unwrap();
    assert!(model.ffns().all(|ffn| ffn.selector().name() == "dense"));
    // Unless it is to be kept.
    let mut model = Model::from_gguf(&gguf, 1).unwrap();
    sidecar(&gguf, selectors).apply(&gguf, &mut model, Placement::Measured).unwrap();
    assert!(model.ffns().all(|ffn| ffn.selector().name() == "low-rank"));
}

/// The weights are the same, and what they compute is not.
#[test]
fn a_sidecar_for_another_activation_is_refused() {
    let gguf = gguf(&relu());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    let with = |activation: &str| {
        let options = ModelOptions::new(1).activation(activation.parse().ok());
        Model::from_gguf_with(&gguf, &options).unwrap()
    };
    let made = Sidecar { activation: Some("relu".into()), ..sidecar(&gguf, vec![gate(), gate()]) };
    made.save(&path).unwrap();
    let open = || Sidecar::open(&path).unwrap();
    open().apply(&gguf, &mut with("relu"), Placement::AsCalibrated).unwrap();
    let refused = open().apply(&gguf, &mut with("relu2"), Placement::AsCalibrated).unwrap_err().to_string();
    assert!(refused.contains("activation relu,") && refused.contains("relu2"), "{refused}");
}

#[test]
fn a_sidecar_of_another_model_is_refused() {
    let gguf = gguf(&relu());
    let mut file = relu().build();
    *file.tensor_mut("blk.1.ffn_up.weight").data.last_mut().unwrap() ^= 1;
    let other = Gguf::from_bytes(file.to_bytes()).unwrap();
    let mut model = Model::from_gguf(&other, 1).unwrap();
    let dense = || vec![Selector::Dense, Selector::Dense];
    let refused =
        sidecar(&gguf, dense()).apply(&other, &mut model, Placement::Measured).unwrap_err().to_string();
    assert!(refused.starts_with("the sidecar was made for another model file (fingerprint "), "{refused}");
    let short = sidecar(&other, vec![Selector::Dense]).apply(&other, &mut model, Placement::Measured);
    assert!(short.is_err());
    sidecar(&other, dense()).apply(&other, &mut model, Placement::Measured).unwrap();
}

#[test]
fn damaged_sidecars_say_what_is_wrong() {
    let refused = |change: &dyn Fn(&mut Metadata)| {
        let mut meta = Metadata::new();
        meta.insert("sparse.version", 1_u32);
        meta.insert("sparse.model.fingerprint", "00");
        meta.insert("sparse.selectors", vec!["dense".to_owned()]);
        change(&mut meta);
        let bytes = GgufWriter::new(meta).start(Vec::new()).unwrap().finish().unwrap();
        Sidecar::from_gguf(&Gguf::from_bytes(bytes).unwrap()).unwrap_err().to_string()
    };
    let selectors = |name: &'static str| {
        refused(&move |m| {
            m.insert("sparse.selectors", vec![name.to_owned()]);
        })
    };
    assert_eq!(selectors("magic"), "metadata sparse.selectors: names an unknown selector \"magic\"");
    assert!(selectors("low-rank").contains("blk.0.ffn_predictor_p.weight"), "{}", selectors("low-rank"));
    assert!(selectors("gate").contains("blk.0.ffn_gate.threshold"));
    let version = refused(&|m| {
        m.insert("sparse.version", 9_u32);
    });
    assert_eq!(version, "metadata sparse.version: is 9, but only 1 is known; calibrate again");
    let model = Sidecar::from_gguf(&gguf(&relu())).unwrap_err().to_string();
    assert!(model.ends_with("this is no sidecar of `sparse calibrate`"), "{model}");
    let thresholds = refused(&|m| {
        m.insert("sparse.thresholds", vec![f32::NAN]);
    });
    assert_eq!(thresholds, "metadata sparse.thresholds: value 0 is NaN");
    let densities = |numbers: &'static [f32]| {
        refused(&move |m| {
            m.insert("sparse.densities", numbers.to_vec());
        })
    };
    assert_eq!(densities(&[0.5]), "metadata sparse.densities: has 1 numbers, but 1 layers need three each");
    let found = "metadata sparse.densities: number 1 is NaN, not a share from 0 to 1";
    assert_eq!(densities(&[0.5, f32::NAN, 0.0]), found);
    assert!(Sidecar::open("no/such/file").unwrap_err().to_string().contains("no/such/file"));
}

/// The first 64 unit vectors.
fn axes() -> Axes {
    let directions = (0..WIDTH * WIDTH).map(|i| f32::from(u8::from(i % WIDTH == i / WIDTH)));
    let directions = Matrix::from_f32(WIDTH, directions).unwrap();
    Axes::new(directions, vec![0.25; WIDTH], vec![1.5; WIDTH], 0.0, 32).unwrap()
}

#[test]
fn screens_are_stored_and_applied() {
    let gguf = gguf(&relu());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    let rows = Model::from_gguf(&gguf, 1).unwrap().vocab_len();
    for (axes, lost) in [(Some(axes()), Some(vec![0.5; rows])), (Some(axes()), None), (None, None)] {
        let margins = Margins { best: 6.5, mass: 1.25 };
        let screen = HeadScreen { axes: axes.clone(), lost: lost.clone(), margins };
        let dense = vec![Selector::Dense, Selector::Dense];
        Sidecar { screen: Some(screen), ..sidecar(&gguf, dense) }.save(&path).unwrap();
        let opened = Sidecar::open(&path).unwrap();
        let found = opened.screen.as_ref().unwrap();
        assert_eq!(format!("{:?}", found.axes).replace("shared", "owned"), format!("{axes:?}"));
        assert_eq!(found.lost, lost);
        let mut model = Model::from_gguf(&gguf, 1).unwrap();
        opened.apply(&gguf, &mut model, Placement::Measured).unwrap();
        let screen = model.screen().unwrap();
        assert_eq!(
            (screen.axes().dims(), screen.axes().nibbles()),
            (WIDTH, if axes.is_some() { 32 } else { 0 })
        );
        assert_eq!(screen.margins(), Margins { best: 6.5, mass: 1.25 });
    }
}

#[test]
fn hostile_screens_are_refused() {
    type Tensors = Vec<(&'static str, Vec<usize>, Vec<f32>)>;
    let screen = |change: &dyn Fn(&mut Metadata, &mut Tensors)| {
        let mut meta = Metadata::new();
        meta.insert("sparse.version", 1_u32);
        meta.insert("sparse.model.fingerprint", "00");
        meta.insert("sparse.selectors", vec!["dense".to_owned()]);
        meta.insert("sparse.screen.axes", "fitted");
        meta.insert("sparse.screen.lost", 0.5_f32);
        meta.insert("sparse.screen.nibbles", 32_u32);
        meta.insert("sparse.screen.margin_best", 6.0_f32);
        meta.insert("sparse.screen.margin_mass", 1.0_f32);
        let mut tensors: Tensors = vec![
            ("screen.directions.weight", vec![40, 64], vec![0.1; 40 * 64]),
            ("screen.mean", vec![40], vec![0.0; 40]),
            ("screen.spread", vec![64], vec![1.0; 64]),
            ("screen.lost", vec![100], vec![0.5; 100]),
        ];
        change(&mut meta, &mut tensors);
        let mut writer = GgufWriter::new(meta);
        for (name, dims, _) in &tensors {
            writer.tensor(*name, dims, BlockFormat::F32).unwrap();
        }
        let mut file = writer.start(Vec::new()).unwrap();
        for (name, _, values) in &tensors {
            file.write(name, &values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>()).unwrap();
        }
        Sidecar::from_gguf(&Gguf::from_bytes(file.finish().unwrap()).unwrap()).map_err(|e| e.to_string())
    };
    assert!(screen(&|_, _| {}).is_ok());
    let number = |key: &'static str, value: f32| {
        screen(&move |m, _| {
            m.insert(key, value);
        })
        .unwrap_err()
    };
    assert_eq!(
        number("sparse.screen.margin_best", f32::NAN),
        "metadata sparse.screen.margin_best: is NaN, expected a number above zero"
    );
    assert!(number("sparse.screen.margin_mass", -1.0).contains("is -1, expected"));
    assert!(number("sparse.screen.lost", f32::INFINITY).contains("lost of the screen is inf"));
    let kind = screen(&|m, _| {
        m.insert("sparse.screen.axes", "magic");
    });
    assert_eq!(kind.unwrap_err(), "metadata sparse.screen.axes: names unknown axes \"magic\"");
    let nibbles = screen(&|m, _| {
        m.insert("sparse.screen.nibbles", 96_u32);
    });
    assert!(
        nibbles.unwrap_err().starts_with("tensor screen.directions.weight: directions of the screen in four")
    );
    let tensor = |i: usize, dims: Vec<usize>, value: f32| {
        let values = vec![value; dims.iter().product()];
        screen(&move |_, t| (t[i].1, t[i].2) = (dims.clone(), values.clone())).unwrap_err()
    };
    for (refused, name) in [
        (tensor(0, vec![40, 33], 0.1), "screen.directions.weight"),
        (tensor(0, vec![2560], 0.1), "screen.directions.weight"),
        (tensor(0, vec![40, 64], f32::NAN), "directions of the screen"),
        (tensor(1, vec![41], 0.0), "mean of the screen"),
        (tensor(1, vec![40], f32::NAN), "screen.mean"),
        (tensor(2, vec![63], 1.0), "spread of the screen"),
        (tensor(2, vec![64], f32::NAN), "screen.spread"),
        (tensor(2, vec![64], 0.0), "spread of the screen"),
        (tensor(3, vec![64], f32::NAN), "screen.lost"),
    ] {
        assert!(refused.contains(name), "{refused} should name {name}");
    }
    let gone = screen(&|_, t| t.truncate(2)).unwrap_err();
    assert!(gone.contains("screen.spread"), "{gone}");
    // One that fits itself, but not the model.
    let mut model = Model::from_gguf(&gguf(&relu()), 1).unwrap();
    let refused = screen(&|_, _| {}).unwrap().screen.unwrap().apply(&mut model).unwrap_err().to_string();
    assert_eq!(refused, "tensor screen: inputs of the screen: expected 64, found 40");
    let fits = HeadScreen { axes: Some(axes()), lost: Some(vec![0.5; 3]), margins: Margins::default() };
    let refused = fits.apply(&mut model).unwrap_err().to_string();
    assert!(refused.starts_with("tensor screen: rows of the screen: expected "), "{refused}");
}

#[test]
fn a_sidecar_of_another_activation_is_refused() {
    let gguf = Gguf::from_bytes(TinyLlama::default().build().to_bytes()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.sparse.gguf");
    let relu = ModelOptions::new(1).activation("relu".parse().ok());
    let mut model = Model::from_gguf_with(&gguf, &relu).unwrap();
    Sidecar::of(&gguf, &model).save(&path).unwrap();
    Sidecar::open(&path).unwrap().apply(&gguf, &mut model, Placement::AsCalibrated).unwrap();
    let mut other = Model::from_gguf(&gguf, 1).unwrap();
    let error = Sidecar::open(&path)
        .unwrap()
        .apply(&gguf, &mut other, Placement::AsCalibrated)
        .unwrap_err()
        .to_string();
    assert!(error.contains("with activation relu") && error.contains("with silu"), "{error}");
}
