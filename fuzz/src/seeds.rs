//! Writes what the fuzzer begins with to `corpus/TARGET`.

use std::error::Error;
use std::fs;
use std::path::Path;

use sparse_fuzz::{MODEL, TINY};
use sparse_model::Session;
use sparse_testdata::variants;

/// Templates of the kinds that models have.
const TEMPLATES: [&str; 3] = [
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}",
    "{%- if tools %}{{ tools | tojson(indent=2) }}{% endif %}{{ bos_token }}{{ messages[0]['content'] | trim }}",
    "{% macro f(x) %}[{{ x.split('a')[-1].strip().upper() }}]{% endmacro %}{% set ns = namespace(n=0) %}\
     {% for m in messages %}{% set ns.n = ns.n + loop.index0 %}{{ f(m.content) }}{% endfor %}{{ ns.n }}",
];
/// Bodies of requests.
const BODIES: [&str; 4] = [
    r#"{"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2, "temperature": 0}"#,
    r#"{"prompt": ["a", "b"], "max_tokens": 2, "stop": ["c"], "logprobs": 2, "logit_bias": {"3": -1}}"#,
    r#"{"prompt": "a", "max_tokens": 3, "stream": true, "stream_options": {"include_usage": true}, "seed": 1}"#,
    r#"{"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}], "max_tokens": 4,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "boolean"}}}}"#,
];

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = corpus.join(target);
        fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(name), bytes))
    };
    let folder = tempfile::tempdir()?;
    let cache = folder.path().join("cache");
    let mut session = Session::new(&MODEL, 32)?;
    session.forward(&[1, 2, 3])?;
    session.sequence().save(&cache)?;
    write("prompt_cache", "cache", &fs::read(cache)?)?;
    for target in ["gguf", "tokenizer", "model", "sidecar"] {
        write(target, "tiny", &TINY)?;
        for (name, file) in variants() {
            write(target, name, &file.to_bytes())?;
        }
    }
    for (i, template) in TEMPLATES.iter().enumerate() {
        write("chat_template", &i.to_string(), template.as_bytes())?;
    }
    for (i, body) in BODIES.iter().enumerate() {
        write("request", &i.to_string(), body.as_bytes())?;
    }
    for format in 0..48 {
        write("blocks", &format.to_string(), &[&[format][..], &[0x5a; 300]].concat())?;
    }
    Ok(())
}
