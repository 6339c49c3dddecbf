//! Folders and files as others write them, and those that are at fault.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use sparse_testdata::write_safetensors;

use super::*;

/// What a changed folder gives.
fn open_changed(change: impl FnOnce(&Path)) -> Result<Encoder, Error> {
    let folder = folder_of(&TinyBert::default());
    change(folder.path());
    Encoder::open(folder.path(), &EncoderOptions::default())
}

fn edit(file: &str, from: &str, to: &str) -> impl FnOnce(&Path) {
    move |folder| {
        let path = folder.join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replace(from, to)).unwrap();
    }
}

/// Writes the tensors anew after a change.
fn tensors(change: impl FnOnce(&mut Vec<Tensor>)) -> impl FnOnce(&Path) {
    move |folder| {
        let mut tensors = TinyBert::default().tensors();
        change(&mut tensors);
        write_safetensors(&folder.join("model.safetensors"), "", &tensors);
    }
}

fn named<'a>(tensors: &'a mut [Tensor], name: &str) -> &'a mut Tensor {
    tensors.iter_mut().find(|t| t.name == name).unwrap()
}

#[test]
fn folders_in_other_styles_load() {
    let expected = open_changed(|_| {}).unwrap().embed("the cat").unwrap();
    let prefixed = |folder: &Path| {
        let mut tensors = TinyBert::default().tensors();
        tensors.push(Tensor::new("cls.predictions.bias", &[4], BlockFormat::F32, &[0.0; 4]));
        write_safetensors(&folder.join("model.safetensors"), "bert.", &tensors);
    };
    assert_eq!(open_changed(prefixed).unwrap().embed("the cat").unwrap(), expected);
    let renamed =
        edit("1_Pooling/config.json", "\"pooling_mode_mean_tokens\":true", "\"pooling_mode\":\"mean\"");
    assert_eq!(open_changed(renamed).unwrap().embed("the cat").unwrap(), expected);
    let moved = |folder: &Path| {
        fs::create_dir(folder.join("0_Transformer")).unwrap();
        for file in ["config.json", "tokenizer.json", "sentence_bert_config.json", "model.safetensors"] {
            fs::rename(folder.join(file), folder.join("0_Transformer").join(file)).unwrap();
        }
        edit("modules.json", "\"path\":\"\"", "\"path\":\"0_Transformer\"")(folder);
    };
    assert_eq!(open_changed(moved).unwrap().embed("the cat").unwrap(), expected);
    for format in [BlockFormat::F16, BlockFormat::Bf16] {
        let halves = tensors(|tensors| {
            for t in tensors {
                *t = Tensor::new(t.name.clone(), &t.dims, format, &t.values());
            }
        });
        let found = open_changed(halves).unwrap().embed("the cat").unwrap();
        let expected: Vec<f64> = expected.iter().map(|v| f64::from(*v)).collect();
        assert!(cosine(&found, &expected) > 0.999, "{}", format.name());
    }
    let plain = open_changed(|folder| fs::remove_file(folder.join("modules.json")).unwrap()).unwrap();
    assert_eq!((plain.normalizes(), plain.pooling()), (false, &[Pooling::Mean][..]));
    let cls = open_changed(edit(
        "1_Pooling/config.json",
        "cls_token\":false,\"pooling_mode_mean_tokens\":true",
        "cls_token\":true",
    ));
    assert_eq!(cls.unwrap().pooling(), [Pooling::Cls]);
    let lower =
        open_changed(edit("sentence_bert_config.json", "\"do_lower_case\":false", "\"do_lower_case\":true"));
    assert_eq!(lower.unwrap().embed("THE Cat").unwrap(), expected);
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

/// Writes the tensors into two files with an index, in which `change` may have names of tensors and files.
fn shards(change: impl FnOnce(&mut Vec<(String, String)>)) -> impl FnOnce(&Path) {
    move |folder| {
        let all = TinyBert::default().tensors();
        let mut entries = Vec::new();
        for (file, part) in SHARDS.iter().zip(all.chunks(all.len().div_ceil(2))) {
            let path = folder.join(file);
            write_safetensors(&path, "", part);
            let bytes = fs::read(path).unwrap();
            let (len, rest) = bytes.split_first_chunk().unwrap();
            let header: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&rest[..u64::from_le_bytes(*len) as usize]).unwrap();
            let names = header.keys().filter(|name| *name != "__metadata__");
            entries.extend(names.map(|name| (name.clone(), (*file).to_owned())));
        }
        fs::remove_file(folder.join("model.safetensors")).unwrap();
        change(&mut entries);
        let entries: Vec<_> = entries.iter().map(|(name, file)| format!("{name:?}: {file:?}")).collect();
        let index = format!("{{\"metadata\": {{}}, \"weight_map\": {{{}}}}}", entries.join(", "));
        fs::write(folder.join("model.safetensors.index.json"), index).unwrap();
    }
}

#[test]
fn weights_may_be_in_several_files() {
    let expected = open_changed(|_| {}).unwrap().embed("the cat").unwrap();
    assert_eq!(open_changed(shards(|_| {})).unwrap().embed("the cat").unwrap(), expected);
    let moved = |folder: &Path| {
        shards(|entries| entries.iter_mut().for_each(|(_, file)| *file = format!("./parts/{file}")))(folder);
        fs::create_dir(folder.join("parts")).unwrap();
        SHARDS
            .iter()
            .for_each(|file| fs::rename(folder.join(file), folder.join("parts").join(file)).unwrap());
    };
    assert_eq!(open_changed(moved).unwrap().embed("the cat").unwrap(), expected);
    // One file is preferred to several, as in the transformers library.
    let both = |folder: &Path| {
        let whole = fs::read(folder.join("model.safetensors")).unwrap();
        shards(|entries| entries.clear())(folder);
        fs::write(folder.join("model.safetensors"), whole).unwrap();
    };
    assert_eq!(open_changed(both).unwrap().embed("the cat").unwrap(), expected);
}

#[test]
fn faulty_indices_are_errors_that_name_what_is_wrong() {
    const INDEX: &str = "model.safetensors.index.json";
    let error = |change: &dyn Fn(&Path)| open_changed(change).unwrap_err().to_string();
    let entries = |change: fn(&mut Vec<(String, String)>)| error(&|folder| shards(change)(folder));
    let files = |change: &dyn Fn(&Path)| {
        error(&|folder| {
            shards(|_| {})(folder);
            change(folder);
        })
    };
    let cases = [
        (files(&|folder| fs::remove_file(folder.join(SHARDS[1])).unwrap()), vec![SHARDS[1], "no such file"]),
        (files(&|folder| fs::write(folder.join(SHARDS[0]), "short").unwrap()), vec![SHARDS[0], "truncated"]),
        (files(&|folder| fs::write(folder.join(INDEX), "{}").unwrap()), vec![INDEX, "weight_map"]),
        (files(&|folder| fs::write(folder.join(INDEX), "[").unwrap()), vec![INDEX, "line 1"]),
        (
            files(&|folder| fs::write(folder.join(INDEX), "{\"weight_map\": {}}").unwrap()),
            vec![INDEX, "not in the file"],
        ),
        (
            files(&|folder| {
                fs::copy(folder.join(SHARDS[0]), folder.join(SHARDS[1])).unwrap();
            }),
            vec!["00002-of-00002", "is in", "00001-of-00002"],
        ),
        (entries(|e| e[0].1 = "../secret".into()), vec![INDEX, "out of the folder", "../secret"]),
        (entries(|e| e[0].1 = "/etc/passwd".into()), vec![INDEX, "out of the folder", "/etc/passwd"]),
        (entries(|e| e[0].1 = SHARDS[1].into()), vec![INDEX, "not in model-00002-of-00002"]),
        (entries(|e| e[0].0 = "nothing".into()), vec![INDEX, "nothing", "not in model-0000"]),
        (entries(|e| e.push(e[0].clone())), vec![INDEX, "in the index twice"]),
        (entries(|e| e[0].1 = "absent.safetensors".into()), vec!["absent.safetensors", "no such file"]),
    ];
    for (i, (message, parts)) in cases.into_iter().enumerate() {
        parts.iter().for_each(|part| assert!(message.contains(part), "case {i}: {part:?} not in: {message}"));
    }
}

#[test]
fn faults_are_errors_that_name_what_is_wrong() {
    const NAME: &str = "encoder.layer.1.intermediate.dense.weight";
    let cut = |len: u64| {
        move |folder: &Path| {
            fs::File::options()
                .write(true)
                .open(folder.join("model.safetensors"))
                .unwrap()
                .set_len(len)
                .unwrap();
        }
    };
    let remove = |file: &'static str| move |folder: &Path| fs::remove_file(folder.join(file)).unwrap();
    type Change = Box<dyn FnOnce(&Path)>;
    let cases: Vec<(Change, &[&str])> = vec![
        (Box::new(remove("config.json")), &["config.json", "there is no such file"]),
        (Box::new(remove("tokenizer.json")), &["tokenizer.json", "there is no such file"]),
        (Box::new(remove("model.safetensors")), &["model.safetensors", "there is no such file"]),
        (Box::new(remove("1_Pooling/config.json")), &["1_Pooling", "config.json", "there is no such file"]),
        (Box::new(edit("config.json", "{", "[")), &["config.json", "line 1"]),
        (Box::new(edit("config.json", "hidden_size", "hidden")), &["config.json", "hidden_size"]),
        (
            Box::new(edit("config.json", "\"bert\"", "\"deberta\"")),
            &["config.json", "\"deberta\"", "supported: bert, roberta"],
        ),
        (Box::new(edit("config.json", "\"gelu\"", "\"softplus\"")), &["hidden_act", "softplus"]),
        (
            Box::new(edit("config.json", "\"absolute\"", "\"relative_key\"")),
            &["position_embedding_type", "relative_key"],
        ),
        (
            Box::new(edit("config.json", "\"num_attention_heads\":4", "\"num_attention_heads\":0")),
            &["heads", "zero"],
        ),
        (
            Box::new(edit("config.json", "\"num_attention_heads\":4", "\"num_attention_heads\":5")),
            &["64", "5 heads"],
        ),
        (
            Box::new(edit("config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":4000000000")),
            &["encoder.layer.2.attention.self.query.weight", "not in the file"],
        ),
        (
            Box::new(edit("config.json", "\"num_hidden_layers\":2", "\"num_hidden_layers\":1")),
            &["encoder.layer.1.", "not part of"],
        ),
        (
            Box::new(edit("config.json", "\"intermediate_size\":96", "\"intermediate_size\":95")),
            &["encoder.layer.0.intermediate.dense.weight", "[95, 64]", "[96, 64]"],
        ),
        (
            Box::new(edit(
                "config.json",
                "\"max_position_embeddings\":48",
                "\"max_position_embeddings\":18446744073709551615",
            )),
            &["position_embeddings", "[48, 64]"],
        ),
        (
            Box::new(edit("modules.json", "models.Normalize", "models.WordWeights")),
            &["modules.json", "Transformer, Pooling, WordWeights"],
        ),
        (Box::new(edit("modules.json", "1_Pooling", "../elsewhere")), &["modules.json", "../elsewhere"]),
        (
            Box::new(edit("1_Pooling/config.json", "mean_tokens", "median_tokens")),
            &["pooling_mode", "median_tokens"],
        ),
        (Box::new(edit("sentence_bert_config.json", "32", "2")), &["2 leaves no room"]),
        (
            Box::new(edit("tokenizer.json", "WordPiece", "WordSalad")),
            &["tokenizer.json", "tokenizer cannot be used"],
        ),
        (Box::new(edit("tokenizer.json", "\"mat\":", "\"mat\":4711,\"mut\":")), &["4711", "another model"]),
        (Box::new(cut(0)), &["model.safetensors", "truncated", "found 0"]),
        (Box::new(cut(100)), &["model.safetensors", "truncated", "found 100"]),
        (Box::new(cut(100_000)), &["model.safetensors", "truncated", "found 100000"]),
        (
            Box::new(|folder: &Path| fs::write(folder.join("model.safetensors"), "version https").unwrap()),
            &["model.safetensors", "header"],
        ),
        (
            Box::new(|folder: &Path| {
                fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0no").unwrap()
            }),
            &["model.safetensors", "line 1"],
        ),
        (
            Box::new(tensors(|t| named(t, "blk.1.ffn_up.weight").poison())),
            &["model.safetensors", NAME, "value 0 is NaN"],
        ),
        (
            Box::new(tensors(|t| {
                named(t, "token_embd.weight")
                    .data
                    .splice(400..404, f32::INFINITY.to_le_bytes())
                    .for_each(drop)
            })),
            &["word_embeddings", "value 100 is inf"],
        ),
        (Box::new(tensors(|t| t.push(Tensor::new("pooler.extra", &[4], BlockFormat::F32, &[0.0; 4])))), &[]),
        (
            Box::new(tensors(|t| t.push(Tensor::new("adapter.extra", &[4], BlockFormat::F32, &[0.0; 4])))),
            &["adapter.extra", "not part of"],
        ),
        (
            Box::new(tensors(|t| t.retain(|t| t.name != "blk.0.attn_k.bias"))),
            &["encoder.layer.0.attention.self.key.bias", "not in the file"],
        ),
    ];
    for (i, (change, parts)) in cases.into_iter().enumerate() {
        match open_changed(change) {
            Ok(_) => assert!(parts.is_empty(), "case {i} loads, expected {parts:?}"),
            Err(error) => {
                let message = error.to_string();
                assert!(!parts.is_empty(), "case {i}: {message}");
                parts
                    .iter()
                    .for_each(|part| assert!(message.contains(part), "case {i}: {part:?} not in: {message}"));
            }
        }
    }
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let model = TinyBert { embedding: 36, heads: 3, feed_forward: 50, ..TinyBert::default() };
    let folder = folder_of(&model);
    let error = |change: &dyn Fn(&mut EncoderOptions)| {
        let mut options = f32();
        change(&mut options);
        Encoder::open(folder.path(), &options).unwrap_err().to_string()
    };
    let message = error(&|o| o.format = EncoderFormat::Blocks(BlockFormat::Q8_0.into()));
    assert!(message.contains("36 values") && message.contains("Q8_0"), "{message}");
    let message = error(&|o| o.format = EncoderFormat::Blocks(BlockFormat::Q4K.into()));
    assert!(message.contains("Q4_K"), "{message}");
    let message = error(&|o| o.feed_forward = Some("Bit7".parse().unwrap()));
    assert!(message.contains("36 values") && message.contains("BIT7"), "{message}");
    let message = error(&|o| o.max_tokens = Some(49));
    assert!(message.contains("49") && message.contains("48 positions"), "{message}");
    let message = "q4".parse::<EncoderFormat>().unwrap_err().to_string();
    assert!(message.contains("\"q4\""), "{message}");
    assert!(
        Encoder::open(PathBuf::from("/no/such/model"), &f32())
            .unwrap_err()
            .to_string()
            .contains("/no/such/model")
    );
}

#[test]
fn faulty_gguf_files_are_errors() {
    let error = |change: &dyn Fn(&mut sparse_testdata::File)| {
        let mut file = TinyBert::default().gguf();
        change(&mut file);
        Encoder::from_gguf(&Gguf::from_bytes(file.to_bytes()).unwrap(), &f32()).unwrap_err().to_string()
    };
    let set = |key: &'static str, value: u32| {
        move |f: &mut sparse_testdata::File| drop(f.metadata.insert(key, value))
    };
    type Change<'a> = &'a dyn Fn(&mut sparse_testdata::File);
    let cases: [(Change<'_>, &[&str]); 9] = [
        (&|f| drop(f.metadata.insert("general.architecture", "llama")), &["\"llama\"", "supported: bert"]),
        (&|f| drop(f.metadata.insert("bert.attention.causal", true)), &["causal"]),
        (&set("bert.pooling_type", 4), &["bert.pooling_type", "4"]),
        (&set("tokenizer.ggml.cls_token_id", 9999), &["cls_token_id", "outside the vocabulary"]),
        (&|f| drop(f.metadata.insert("tokenizer.ggml.model", "t5")), &["\"t5\""]),
        (
            &|f| drop(f.metadata.insert("tokenizer.ggml.token_type", vec![1i32; 3])),
            &["token_type", "3 entries"],
        ),
        (
            &|f| {
                let mut tokens = f.metadata.strings("tokenizer.ggml.tokens").unwrap().to_vec();
                tokens[9] = tokens[7].clone();
                f.metadata.insert("tokenizer.ggml.tokens", tokens);
            },
            &["7 and 9"],
        ),
        (&|f| f.tensor_mut("blk.0.ffn_down.bias").poison(), &["blk.0.ffn_down.bias", "not a finite"]),
        (&|f| drop(f.remove("position_embd.weight")), &["position_embd.weight", "not in the file"]),
    ];
    for (i, (change, parts)) in cases.into_iter().enumerate() {
        let message = error(change);
        parts.iter().for_each(|part| assert!(message.contains(part), "case {i}: {part:?} not in: {message}"));
    }
}

#[test]
fn files_in_memory_give_what_the_folder_gives() {
    let folder = folder_of(&TinyBert::default());
    let expected =
        Encoder::open(folder.path(), &EncoderOptions::default()).unwrap().embed("the cat").unwrap();
    let mut files = HashMap::new();
    for file in [
        "config.json",
        "tokenizer.json",
        "sentence_bert_config.json",
        "model.safetensors",
        "modules.json",
        "1_Pooling/config.json",
    ] {
        files.insert(file.to_owned(), fs::read(folder.path().join(file)).unwrap());
    }
    let open = |files: &HashMap<String, Vec<u8>>| Encoder::from_files(files, &EncoderOptions::default());
    assert_eq!(open(&files).unwrap().embed("the cat").unwrap(), expected);
    files.get_mut("model.safetensors").unwrap().truncate(1000);
    let error = open(&files).unwrap_err().to_string();
    assert!(error.contains("model.safetensors") && error.contains("truncated"), "{error}");
    files.remove("config.json");
    let error = open(&files).unwrap_err();
    assert!(error.to_string().starts_with("config.json: there is no such file"), "{error}");
}
