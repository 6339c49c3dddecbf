//! Damaged files and odd texts: errors or results, never a panic.

use std::fs;
use std::sync::LazyLock;

use proptest::prelude::*;
use sparse_gguf::Gguf;
use sparse_model::{Encoder, EncoderFormat, EncoderOptions};
use sparse_testdata::TinyBert;

fn encoder(max_tokens: usize) -> Encoder {
    let model = TinyBert { layers: 1, positions: 600, ..TinyBert::default() };
    let mut options = EncoderOptions::default();
    options.max_tokens = Some(max_tokens);
    Encoder::from_gguf(&Gguf::from_bytes(model.gguf().to_bytes()).unwrap(), &options).unwrap()
}

static SHORT: LazyLock<Encoder> = LazyLock::new(|| encoder(8));
static LONG: LazyLock<Encoder> = LazyLock::new(|| encoder(600));

/// Texts of what matters to the tokenizer: white space and control characters of all kinds, accents, ideographs.
fn texts() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        8 => prop::char::range('a', 'z'),
        3 => Just(' '),
        3 => prop::sample::select("\t\n\r\u{b}\u{c}\u{0}\u{7f}\u{85}\u{a0}\u{200b}\u{2028}\u{3000}\u{ad}".chars().collect::<Vec<_>>()),
        3 => prop::sample::select("\u{301}\u{e1}\u{3a3}\u{130}\u{df}\u{6f22}\u{ac00}\u{fb01}.,![]".chars().collect::<Vec<_>>()),
        1 => any::<char>(),
    ];
    prop::collection::vec(character, 0..300).prop_map(|c| c.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Only the beginning of a long text is read, and yet the ids are those of the whole text, cut down.
    #[test]
    fn a_text_that_is_cut_has_the_first_ids_of_the_whole_text(text in texts()) {
        let whole = LONG.tokens(&text).unwrap();
        prop_assert!(whole.len() < 600);
        let mut expected = whole.clone();
        if expected.len() > 8 {
            expected.truncate(7);
            expected.extend(whole.last());
        }
        prop_assert_eq!(SHORT.tokens(&text).unwrap(), expected);
        let embedding = SHORT.embed(&text).unwrap();
        prop_assert!((embedding.iter().map(|v| v * v).sum::<f32>() - 1.0).abs() < 1e-4);
    }

    #[test]
    fn damaged_weights_never_panic(
        edits in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..4),
        len in prop::option::of(0.0..1.0f64),
    ) {
        let folder = tempfile::tempdir().unwrap();
        TinyBert { layers: 1, ..TinyBert::default() }.write_folder(folder.path());
        let path = folder.path().join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        // Half of the edits hit the header.
        let header = 2100.0;
        for (i, (at, byte)) in edits.iter().enumerate() {
            let reach = if i % 2 == 0 { header } else { bytes.len() as f64 };
            let at = (at * reach) as usize;
            bytes[at] = *byte;
        }
        bytes.truncate(len.map_or(bytes.len(), |len| (len * bytes.len() as f64) as usize));
        fs::write(&path, bytes).unwrap();
        let mut options = EncoderOptions::default();
        options.format = EncoderFormat::F32;
        if let Ok(encoder) = Encoder::open(folder.path(), &options) {
            // Huge weights may overflow, which is an error of its own.
            let _ = encoder.embed("the cat sat on the mat");
        }
    }
}
