//! Neurons in lanes: in sidecars, and what models do with them.

use sparse_model::WeightFormat;
use sparse_model::lanes::round_ffns;
use sparse_testdata::Tensor;

use super::*;

fn lanes() -> Vec<NeuronLanes> {
    use PrecisionLane::{Bit3, Bit5, Bit7};
    let order = |by: u32| (0..NEURONS as u32).map(|j| (j * by + 11) % NEURONS as u32).collect();
    let importance = || (0..WIDTH).map(|i| 0.5 + i as f32 / 64.0).collect();
    [(7, [(Bit7, 30), (Bit5, 50), (Bit3, 80)]), (3, [(Bit7, 0), (Bit5, NEURONS), (Bit3, 0)])]
        .map(|(by, segments)| NeuronLanes::new(order(by), segments.to_vec(), importance()).unwrap())
        .to_vec()
}

#[test]
fn lanes_are_stored_and_applied_whatever_the_selector() {
    let gguf = gguf(&relu());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.sparse.gguf");
    for selectors in [vec![Selector::Dense, Selector::ExactZero], vec![low_rank(), gate()]] {
        let plain = logits(&gguf, sidecar(&gguf, selectors.clone()));
        Sidecar { lanes: Some(lanes()), ..sidecar(&gguf, selectors) }.save(&path).unwrap();
        let opened = Sidecar::open(&path).unwrap();
        assert_eq!(opened.lanes.as_deref(), Some(&lanes()[..]));
        let [alone, masked] = logits(&gguf, opened);
        // Inputs are rounded to int8: now and then one falls to the other side, which moves the logits of its token.
        let vocabulary = alone.len() / 24;
        let tokens = alone.chunks(vocabulary).zip(masked.chunks(vocabulary));
        let off: Vec<f32> = tokens.map(|(a, b)| largest_difference(a, b)).collect();
        assert!(
            off.iter().filter(|off| **off > 1e-3).count() <= 4 && off.iter().all(|off| *off < 0.2),
            "{off:?}"
        );
        // Rounding costs something, and what is computed is still the same network.
        let change = largest_difference(&alone, &plain[0]);
        let size = plain[0].iter().fold(0.0, |a: f32, l| a.max(l.abs()));
        assert!(change > 0.0 && change < 0.5 * size, "{change} of {size}");
    }
    let mut model = Model::from_gguf(&gguf, 2).unwrap();
    Sidecar::open(&path).unwrap().apply(&gguf, &mut model, Placement::Measured).unwrap();
    let formats: Vec<Vec<BlockFormat>> =
        model.ffns().map(|f| f.up().weight().segments().iter().map(Matrix::format).collect()).collect();
    assert_eq!(
        formats,
        [vec![BlockFormat::Bit7, BlockFormat::Q5_0, BlockFormat::Bit3], vec![BlockFormat::Q5_0]]
    );
    // Once is enough.
    let again = lanes()[0].apply(0, model.ffns_mut().next().unwrap()).unwrap_err().to_string();
    assert!(again.starts_with("tensor blk.0.ffn_gate.weight: is in lanes already"), "{again}");
}

#[test]
fn hostile_lanes_are_refused() {
    let refused = |change: &dyn Fn(&mut Metadata), square: f32| {
        let mut meta = Metadata::new();
        meta.insert("sparse.version", 1_u32);
        meta.insert("sparse.model.fingerprint", "00");
        meta.insert("sparse.selectors", vec!["dense".to_owned()]);
        meta.insert("sparse.lanes.names", vec!["Bit5".to_owned(), "Bit3".to_owned()]);
        meta.insert("sparse.lanes.counts", vec![1, 2]);
        meta.insert("sparse.lanes.order", vec![2, 0, 1]);
        change(&mut meta);
        let mut writer = GgufWriter::new(meta);
        writer.tensor("blk.0.ffn_input.square", &[1], BlockFormat::F32).unwrap();
        let mut file = writer.start(Vec::new()).unwrap();
        file.write("blk.0.ffn_input.square", &square.to_le_bytes()).unwrap();
        let gguf = Gguf::from_bytes(file.finish().unwrap()).unwrap();
        Sidecar::from_gguf(&gguf).map(|_| String::new()).unwrap_or_else(|e| e.to_string())
    };
    assert_eq!(refused(&|_| {}, 1.0), "");
    let numbers = |key: &'static str, values: &[i32]| {
        let values = values.to_vec();
        refused(&move |m| drop(m.insert(key, values.clone())), 1.0)
    };
    let order = |values: &[i32]| numbers("sparse.lanes.order", values);
    let counts = |values: &[i32]| numbers("sparse.lanes.counts", values);
    let of = "metadata sparse.lanes.order: ";
    assert_eq!(
        order(&[2, 0, 2]),
        format!("{of}layer 0: order of 3 neurons: place 2 has neuron 2, which is there twice")
    );
    assert_eq!(
        order(&[2, 0, 3]),
        format!("{of}layer 0: order of 3 neurons: place 2 has neuron 3, which is not one of them")
    );
    assert_eq!(order(&[2, 0, -1]), format!("{of}has -1, expected no less than 0"));
    assert_eq!(order(&[0]), format!("{of}ends before the 3 neurons of layer 0"));
    assert_eq!(order(&[0, 1, 2, 3]), format!("{of}has 1 neurons more than there are in lanes"));
    assert_eq!(counts(&[i32::MAX, i32::MAX]), format!("{of}ends before the 4294967294 neurons of layer 0"));
    assert_eq!(counts(&[-1, 4]), "metadata sparse.lanes.counts: has -1, expected no less than 0");
    assert_eq!(
        counts(&[3]),
        "metadata sparse.lanes.counts: has 1 numbers, expected 2: one per layer and lane"
    );
    let name =
        refused(&|m| drop(m.insert("sparse.lanes.names", vec!["Bit4".to_owned(), "Bit3".to_owned()])), 1.0);
    assert_eq!(name, "metadata sparse.lanes.names: names an unknown lane \"Bit4\"");
    assert!(refused(&|_| {}, -1.0).ends_with("importance 0 is -1, expected no less than 0"));
    assert!(refused(&|_| {}, f32::NAN).starts_with("tensor blk.0.ffn_input.square: value 0 is NaN"));
    assert!(refused(&|_| {}, f32::INFINITY).contains("importance 0 is inf"));

    // Some that fit themselves, but not the model.
    let gguf = gguf(&relu());
    let three = NeuronLanes::new(vec![0, 1, 2], vec![(PrecisionLane::Bit3, 3)], vec![1.0; WIDTH]).unwrap();
    let order = (0..NEURONS as u32).collect();
    let narrow = NeuronLanes::new(order, vec![(PrecisionLane::Bit3, NEURONS)], vec![1.0; 3]).unwrap();
    for (lanes, expected) in [
        (three, "order of the neurons: expected 160, found 3"),
        (narrow, "tensor blk.0.ffn_gate.weight: importance: expected 64 values, found 3"),
    ] {
        let made =
            Sidecar { lanes: Some(vec![lanes; 2]), ..sidecar(&gguf, vec![Selector::Dense, Selector::Dense]) };
        let refused = made
            .apply(&gguf, &mut Model::from_gguf(&gguf, 1).unwrap(), Placement::Measured)
            .unwrap_err()
            .to_string();
        assert_eq!(refused, expected);
    }
    assert!(NeuronLanes::new(vec![0, 1], vec![(PrecisionLane::Bit3, 3)], Vec::new()).is_err());
    assert!(
        NeuronLanes::new(
            vec![0],
            vec![(PrecisionLane::Bit3, usize::MAX), (PrecisionLane::Bit5, 2)],
            Vec::new()
        )
        .is_err()
    );
}

#[test]
fn faults_are_those_of_the_tensor_in_the_file() {
    for name in ["blk.1.ffn_gate.weight", "blk.1.ffn_up.weight", "blk.1.ffn_down_t.weight"] {
        let mut file = relu().build();
        for i in 0..2 {
            file.remove(&format!("blk.{i}.ffn_down.weight"));
            let transposed = format!("blk.{i}.ffn_down_t.weight");
            let values = vec![0.5; NEURONS * WIDTH];
            file.tensors.push(Tensor::new(transposed, &[WIDTH, NEURONS], BlockFormat::F32, &values));
        }
        file.tensor_mut(name).poison();
        let gguf = Gguf::from_bytes(file.to_bytes()).unwrap();
        let mut model = Model::from_gguf(&gguf, 1).unwrap();
        let refused =
            round_ffns(&mut model, WeightFormat::from(PrecisionLane::Bit5)).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("tensor {name}: ")), "{refused}");
        let mut model = Model::from_gguf(&gguf, 1).unwrap();
        let refused = lanes()[1].apply(1, model.ffns_mut().nth(1).unwrap()).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("tensor {name}: ")), "{refused}");
    }
}

#[test]
fn weights_rounded_to_a_lane_are_within_its_error() {
    let gguf = gguf(&relu());
    let rows = |w: &sparse_core::SegmentedMatrix| {
        let mut values = vec![0.0; w.rows() * w.cols()];
        values.chunks_mut(w.cols()).enumerate().for_each(|(r, row)| w.decode_row(r, row));
        values
    };
    let exact = Model::from_gguf(&gguf, 1).unwrap();
    // Of Gaussian weights; 12 dB for two bits.
    for (name, most) in [("bit3", 0.2), ("bit5", 0.05), ("bit7", 0.013), ("q4_0", 0.11), ("q8_0", 0.007)] {
        let mut model = Model::from_gguf(&gguf, 1).unwrap();
        round_ffns(&mut model, name.parse().unwrap()).unwrap();
        for (a, b) in exact.ffns().zip(model.ffns()) {
            let (a, b) = (rows(a.up().weight()), rows(b.up().weight()));
            let energy = |x: &mut dyn Iterator<Item = f32>| x.map(|x| x * x).sum::<f32>().sqrt();
            let error = energy(&mut a.iter().zip(&b).map(|(a, b)| a - b)) / energy(&mut a.iter().copied());
            assert!(error < most && error > 0.3 * most, "{name}: {error}");
        }
    }
    let unknown = "bit4".parse::<WeightFormat>().unwrap_err();
    assert!(
        unknown.ends_with("there are Bit3, Bit5, Bit7, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16"),
        "{unknown}"
    );
}
