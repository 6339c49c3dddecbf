//! Text that matches: JSON schemas, regular expressions, grammars.

use std::sync::{Arc, LazyLock};

use sparse_gguf::Gguf;
use sparse_model::grammar::Grammar;
use sparse_model::{Error, Event, GenerateOptions, Model, SamplerConfig, Session, Stop};
use sparse_testdata::{TinyLlama, Vocabulary};

/// One model of each kind of tokenizer.
static MODELS: LazyLock<[Arc<Model>; 2]> = LazyLock::new(|| {
    [Vocabulary::Gpt2, Vocabulary::Llama].map(|vocabulary| {
        let file = TinyLlama { vocabulary, context: 1024, ..TinyLlama::default() }.build();
        let gguf = Gguf::from_bytes(file.to_bytes()).expect("a GGUF file");
        Arc::new(Model::from_gguf(&gguf, 1).expect("a model"))
    })
});

fn run(model: &Arc<Model>, grammar: &Grammar, seed: u64) -> Result<(String, Stop), Error> {
    let sampler = SamplerConfig {
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        seed,
        ..SamplerConfig::default()
    };
    let mut options = GenerateOptions::new(600).sampler(sampler);
    options.grammar = Some(grammar.clone());
    let mut session = Session::new(model, 800)?;
    let (mut text, mut stop) = (String::new(), None);
    for event in session.generate(&[7, 8, 9], &options) {
        match event? {
            Event::Text(piece) => text += &piece,
            Event::End(end) => stop = Some(end.stop),
            _ => {}
        }
    }
    Ok((text, stop.expect("an end")))
}

/// Models of random weights, which would write anything.
#[test]
fn text_is_what_the_schema_says() {
    let schema = r#"{
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 6},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "kind": {"enum": ["cat", "dog"]},
            "tags": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}
        },
        "required": ["name", "age", "kind", "tags"],
        "additionalProperties": false
    }"#;
    for (model, seed) in MODELS.iter().flat_map(|m| (0..4).map(move |seed| (m, seed))) {
        let (text, stop) = run(model, &Grammar::JsonSchema(schema.into()), seed).unwrap();
        assert_eq!(stop, Stop::End, "{text}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(value["name"].as_str().unwrap().chars().count() <= 6, "{text}");
        assert!((0..=150).contains(&value["age"].as_i64().unwrap()), "{text}");
        assert!(["cat", "dog"].contains(&value["kind"].as_str().unwrap()), "{text}");
        let tags = value["tags"].as_array().unwrap();
        assert!((1..=2).contains(&tags.len()) && tags.iter().all(|t| t.is_boolean()), "{text}");
        assert_eq!(value.as_object().unwrap().len(), 4);
    }
}

#[test]
fn text_matches_the_whole_regular_expression() {
    for (model, seed) in MODELS.iter().flat_map(|m| (0..4).map(move |seed| (m, seed))) {
        let (text, stop) = run(model, &Grammar::Regex("[0-9]{3}-(ab|cd){2}ä".into()), seed).unwrap();
        assert_eq!(stop, Stop::End, "{text}");
        let rest = text[3..].strip_prefix('-').and_then(|rest| rest.strip_suffix('ä')).expect(&text);
        assert!(text[..3].bytes().all(|b| b.is_ascii_digit()), "{text}");
        assert!(["abab", "abcd", "cdab", "cdcd"].contains(&rest), "{text}");
    }
    let (text, stop) = run(&MODELS[0], &Grammar::Lark("start: \"x\" \"y\"+ \"z\"".into()), 1).unwrap();
    assert_eq!((stop, text.starts_with("xy"), text.ends_with("yz")), (Stop::End, true, true), "{text}");
}

#[test]
fn what_cannot_be_matched_is_an_error_and_says_why() {
    let schema = |text: &str| Grammar::JsonSchema(text.into());
    for (grammar, says) in [
        (schema("{"), "JSON schema is not JSON"),
        (schema(r#"{"type": "nonsense"}"#), "JSON schema"),
        (schema(r#"{"type": "string", "minLength": 5, "maxLength": 2}"#), "JSON schema"),
        (schema(r#"{"allOf": [{"type": "string"}, {"type": "number"}]}"#), "JSON schema"),
        (schema("false"), "JSON schema"),
        (schema(r##"{"$ref": "#/nowhere"}"##), "JSON schema"),
        (Grammar::Regex("(".into()), "regular expression"),
        (Grammar::Lark("nonsense".into()), "grammar"),
    ] {
        let error = run(&MODELS[0], &grammar, 0).unwrap_err();
        assert!(matches!(error, Error::Grammar { .. }), "{error:?}");
        assert!(error.to_string().contains(says), "{grammar:?}: {error}");
    }
}
