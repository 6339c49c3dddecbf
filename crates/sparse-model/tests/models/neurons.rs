//! Models whose neurons stay in a file of records until a token needs them.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sparse_core::{BatchMode, LowRankPredictor, Matrix, Rule, Selector, Storage};
use sparse_gguf::{BlockFormat, Gguf, PendingFile, Sink};
use sparse_model::{
    CacheKind, Error, MemoryBudget, Model, ModelOptions, Placement, RecordFile, Session, Sidecar,
    write_records,
};
use sparse_testdata::{TinyLlama, Weights};

use crate::memory::settled;

const NEURONS: usize = 96;
const LAYERS: usize = 6;
const WIDTH: usize = 128;

fn relu(format: BlockFormat) -> TinyLlama {
    TinyLlama {
        embedding: WIDTH,
        feed_forward: NEURONS,
        layers: LAYERS,
        activation: Some("relu"),
        format,
        ..TinyLlama::default()
    }
}

/// Writes the model, with a row of `down` per neuron if `by_neurons`.
fn write(folder: &Path, llama: &TinyLlama, by_neurons: bool) -> PathBuf {
    let mut file = llama.build();
    for tensor in file.tensors.iter_mut().filter(|t| by_neurons && t.name.ends_with("ffn_down.weight")) {
        // Other numbers, but as good as those.
        tensor.name = tensor.name.replace("ffn_down", "ffn_down_t");
        tensor.dims.swap(0, 1);
    }
    let path = folder.join("model.gguf");
    fs::write(&path, file.to_bytes()).unwrap();
    path
}

/// A heat that is different for every neuron.
fn heat(layers: usize) -> Vec<Vec<f32>> {
    (0..layers)
        .map(|l| (0..NEURONS).map(|j| ((j * 37 + l) % NEURONS) as f32 / NEURONS as f32).collect())
        .collect()
}

fn convert(path: &Path) {
    let model = Model::from_gguf(&Gguf::open(path).unwrap(), 1).unwrap();
    let sink = PendingFile::create(RecordFile::beside(path)).unwrap();
    write_records(&model, Some(&heat(LAYERS)), sink, &mut |_, _| Ok(())).unwrap();
}

fn low_rank() -> Selector {
    let matrix = |rows, cols, stream| {
        let mut bytes = vec![0; 4 * rows * cols];
        Weights::new(BlockFormat::F32, 0.0, 0.3, 4, stream).fill(&mut bytes);
        Matrix::new(BlockFormat::F32, cols, Storage::Owned(bytes)).unwrap()
    };
    let predictor = LowRankPredictor::new(matrix(16, WIDTH, 1), matrix(NEURONS, 16, 2), vec![0.0; NEURONS]);
    Selector::LowRank { predictor: predictor.unwrap(), rule: Rule::Threshold(0.5) }
}

fn gate() -> Selector {
    Selector::Gate { gate: vec![0.4; NEURONS], hidden: Some(vec![0.1; NEURONS]) }
}

/// The model with `selector` in all its layers.
fn open(
    path: &Path,
    selector: &Selector,
    budget: Option<usize>,
    cache: CacheKind,
    threads: usize,
) -> Result<Arc<Model>, Error> {
    let gguf = Gguf::open(path).unwrap();
    let memory = budget.map(|bytes| MemoryBudget { bytes, cache });
    let records = memory.map(|_| Arc::new(RecordFile::find(path).unwrap().expect("records")));
    let options = ModelOptions::new(threads).memory(memory).records(records);
    let mut model = Model::from_gguf_with(&gguf, &options)?;
    let sidecar = Sidecar {
        selectors: vec![selector.clone(); model.config().layers.len()],
        ..Sidecar::of(&gguf, &model)
    };
    sidecar.apply(&gguf, &mut model, Placement::AsCalibrated)?;
    if model.has_records() {
        model.fit_memory()?;
    }
    model.interleave();
    Ok(Arc::new(model))
}

fn minimum(path: &Path, selector: &Selector) -> usize {
    match open(path, selector, Some(1), CacheKind::Lru, 1).expect_err("too little") {
        Error::MemoryBudget { minimum, .. } => minimum,
        other => panic!("{other}"),
    }
}

/// Logits of a prompt, of tokens one by one, of some together, and of a masked batch.
fn logits(model: &Arc<Model>) -> Result<Vec<Vec<u32>>, Error> {
    let tokens: Vec<u32> = (0..60).map(|t| (t * 37 + 3) % model.vocab_len() as u32).collect();
    let mut session = Session::new(model, 80)?;
    let bits = |l: &[f32]| l.iter().map(|l| l.to_bits()).collect::<Vec<_>>();
    let mut out = vec![bits(session.forward(&tokens[..30])?)];
    for token in &tokens[30..45] {
        out.push(bits(session.forward(&[*token])?));
    }
    session.forward_each(&tokens[45..50], |_, l| out.push(bits(l)))?;
    session.set_batch_mode(BatchMode::Masked);
    out.push(bits(session.forward(&tokens[50..])?));
    Ok(out)
}

#[test]
fn the_bits_are_those_of_the_whole_model_under_every_budget() {
    let folder = tempfile::tempdir().unwrap();
    for (format, by_neurons) in [
        (BlockFormat::Q8_0, false),
        (BlockFormat::Q4_0, false),
        (BlockFormat::F16, false),
        (BlockFormat::Q4_0, true),
    ] {
        // Layers of two kinds.
        let formats = vec![("blk.1.ffn_down", BlockFormat::Q5_0)];
        let path = write(folder.path(), &TinyLlama { formats, ..relu(format) }, by_neurons);
        convert(&path);
        for selector in [Selector::ExactZero, low_rank(), gate()] {
            let expected = logits(&open(&path, &selector, None, CacheKind::Lru, 2).unwrap()).unwrap();
            let least = minimum(&path, &selector);
            let whole = fs::metadata(&path).unwrap().len() as usize;
            for (budget, cache, threads) in [
                (least, CacheKind::Lru, 1),
                (least, CacheKind::Lfu, 2),
                (least + 50_000, CacheKind::Lru, 2),
                (least + whole, CacheKind::Lfu, 1),
            ] {
                let model = open(&path, &selector, Some(budget), cache, threads).unwrap();
                let name = format!("{format:?} {by_neurons} {} {budget} {cache}", selector.name());
                let same = logits(&model).unwrap();
                let same: Vec<bool> = same.iter().zip(&expected).map(|(a, b)| a == b).collect();
                assert!(same.iter().all(|same| *same), "{name}: {same:?}");
                let found = settled(&model);
                assert!(found.resident_bytes <= found.budget_bytes, "{name}: {found:?}");
                let read = found.misses + found.prefetched;
                assert!(found.hits > 0 && (budget == least + whole) == (read == 0), "{name}: {found:?}");
            }
        }
    }
}

#[test]
fn a_file_made_for_skipping_needs_no_sidecar() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &relu(BlockFormat::Q8_0), true);
    let with = |bytes| ModelOptions::new(1).memory(Some(MemoryBudget::new(bytes)));
    let error = Model::open_with(&path, &with(1000)).unwrap_err().to_string();
    assert!(error.contains("sparse convert"), "{error}");
    convert(&path);
    let expected = logits(&Arc::new(Model::open(&path, 1).unwrap())).unwrap();
    let error = Model::open_with(&path, &with(1000)).unwrap_err().to_string();
    assert!(error.contains("that a prompt reads as a whole"), "{error}");
    let model = Model::open_with(&path, &with(minimum(&path, &Selector::ExactZero))).unwrap();
    assert_eq!(model.ffns().count(), 0);
    assert!(logits(&Arc::new(model)).unwrap() == expected);
}

#[test]
fn records_of_another_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &relu(BlockFormat::Q8_0), false);
    convert(&path);
    write(folder.path(), &TinyLlama { seed: 2, ..relu(BlockFormat::Q8_0) }, false);
    let error = open(&path, &Selector::ExactZero, Some(1 << 30), CacheKind::Lru, 1).unwrap_err().to_string();
    assert!(error.contains("of another model file") && error.contains("convert"), "{error}");
    fs::write(RecordFile::beside(&path), fs::read(&path).unwrap()).unwrap();
    let error = RecordFile::find(&path).unwrap_err().to_string();
    assert!(error.contains("no file of `sparse convert`"), "{error}");
}

#[test]
fn experts_and_full_disks_are_errors_and_leave_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let experts = TinyLlama { experts: Some((4, 2)), ..relu(BlockFormat::Q8_0) }.build().to_bytes();
    let model = Model::from_gguf(&Gguf::from_bytes(experts).unwrap(), 1).unwrap();
    let error = write_records(&model, None, Vec::new(), &mut |_, _| Ok(())).unwrap_err().to_string();
    assert!(error.contains("nothing to convert"), "{error}");

    /// A disk with so much room.
    struct Disk(PendingFile, usize);
    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.1.checked_sub(bytes.len()) {
                Some(left) => {
                    self.1 = left;
                    self.0.write(bytes)
                }
                None => Err(io::ErrorKind::StorageFull.into()),
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }
    impl Sink for Disk {
        type Done = ();
        fn commit(self) -> io::Result<()> {
            self.0.commit()
        }
    }
    let path = write(folder.path(), &relu(BlockFormat::Q8_0), false);
    let model = Model::from_gguf(&Gguf::open(&path).unwrap(), 1).unwrap();
    let to = RecordFile::beside(&path);
    let whole = write_records(&model, None, Vec::new(), &mut |_, _| Ok(())).unwrap().len();
    for room in [100, whole / 2, whole - 1] {
        let disk = Disk(PendingFile::create(&to).unwrap(), room);
        let error = write_records(&model, None, disk, &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains("no storage space"), "{error}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the model is there");
    }
    // It can be ended, and begun anew.
    let stop = &mut |_, _| Err(Error::NoTokens);
    write_records(&model, None, PendingFile::create(&to).unwrap(), stop).unwrap_err();
    assert!(!to.exists());
    let disk = Disk(PendingFile::create(&to).unwrap(), whole);
    write_records(&model, None, disk, &mut |_, _| Ok(())).unwrap();
    assert_eq!(fs::metadata(&to).unwrap().len() as usize, whole);
}

/// A model that was opened with its least budget, and its records.
fn opened(folder: &Path) -> (PathBuf, Arc<Model>) {
    let path = write(folder, &relu(BlockFormat::Q8_0), false);
    convert(&path);
    let least = minimum(&path, &low_rank());
    (RecordFile::beside(&path), open(&path, &low_rank(), Some(least), CacheKind::Lru, 1).unwrap())
}

#[test]
fn records_that_are_cut_short_or_changed_are_errors() {
    for cut in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (records, model) = opened(folder.path());
        let len = fs::metadata(&records).unwrap().len();
        let file = fs::OpenOptions::new().write(true).open(&records).unwrap();
        file.set_len(if cut { len / 4 } else { len + 1 }).unwrap();
        // A prompt reads whole layers, a token its neurons.
        for tokens in [&[5, 6, 7][..], &[5]] {
            let mut session = Session::new(&model, 8).unwrap();
            let mut error = session.forward(tokens).map(drop);
            // Its first neurons may be in memory.
            for token in 0..6 {
                error = error.and_then(|()| session.forward(&[token]).map(drop));
            }
            let error = error.unwrap_err().to_string();
            assert!(error.contains("layer ") && error.contains("model.records.gguf"), "{error}");
        }
    }
}

#[cfg(unix)]
#[test]
fn records_that_others_replace_are_read_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let (records, model) = opened(folder.path());
    let path = folder.path().join("model.gguf");
    let expected = logits(&open(&path, &low_rank(), None, CacheKind::Lru, 1).unwrap()).unwrap();
    let other = folder.path().join("other.gguf");
    fs::write(&other, b"something else").unwrap();
    fs::rename(&other, &records).unwrap();
    assert!(logits(&model).unwrap() == expected);
}

/// The order of the records is that of heat, and the hottest are in memory from the beginning.
#[test]
fn hot_neurons_are_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &relu(BlockFormat::Q8_0), false);
    convert(&path);
    // One neuron is all that the predictors ask for.
    let hottest = heat(1)[0].iter().position(|h| *h == (NEURONS - 1) as f32 / NEURONS as f32).unwrap();
    let Selector::LowRank { predictor, .. } = low_rank() else { unreachable!() };
    let (p, q, _) = predictor.parts();
    let bias = (0..NEURONS).map(|j| if j == hottest { 1e9 } else { -1e9 }).collect();
    let predictor = LowRankPredictor::new(p, q, bias).unwrap();
    let selector = Selector::LowRank { predictor, rule: Rule::Threshold(0.0) };
    let least = minimum(&path, &selector);
    let counts = || {
        let model = open(&path, &selector, Some(least + 10_000), CacheKind::Lru, 1).unwrap();
        Session::new(&model, 8).unwrap().forward(&[5]).unwrap();
        let found = model.store_statistics().unwrap();
        // What is being read ahead when it is asked for counts as a miss, and as read ahead.
        (found.hits as i64 - found.prefetched_hits as i64, found.misses + found.prefetched_hits)
    };
    // It is hot in the first layer, and cold in the others. Once in many tries, nothing is just being read.
    assert!((0..1000).any(|_| counts() == (1, LAYERS as u64 - 1)), "{:?}", counts());
}
