//! Chat templates: what they may use, and what goes wrong in them.

use std::collections::BTreeMap;

use serde::Deserialize;
use sparse_gguf::{Array, Gguf, Metadata};
use sparse_model::chat::{ChatError, ChatTemplate, ChatTemplates, Json, Message, RenderOptions};
use sparse_model::tokenizer::{EncodeOptions, Tokenizer};

fn conversation() -> Vec<Message> {
    vec![
        Message::system("Be brief."),
        Message::user("  Hi, \"you\" & <me>!  "),
        Message::assistant("Hello."),
        Message::user("Bye"),
    ]
}

fn render(source: &str, messages: &[Message], prompt: bool) -> Result<String, ChatError> {
    let mut options = RenderOptions::default();
    options.add_generation_prompt = prompt;
    options.bos = Some("<s>".into());
    options.eos = Some("</s>".into());
    ChatTemplate::new(source)?.render(messages, &options)
}

/// In the manner of ChatML: roles between markers, a system message of its own if there is none.
const CHATML: &str = "\
{% for message in messages %}
    {%- if loop.first and messages[0]['role'] != 'system' %}
        {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}
    {%- endif %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
";

#[test]
fn chatml() {
    let text = render(CHATML, &conversation()[1..2], true).unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nYou help.<|im_end|>\n<|im_start|>user\n  Hi, \"you\" & <me>!  <|im_end|>\n\
         <|im_start|>assistant\n"
    );
    let text = render(CHATML, &conversation(), false).unwrap();
    assert!(text.starts_with("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n"), "{text}");
    assert!(text.ends_with("<|im_start|>user\nBye<|im_end|>\n"), "{text}");
}

/// In the manner of Llama 3: the system message taken out and sliced off, contents trimmed, dates, tools, loops with
/// tests, and refusals.
const LLAMA3: &str = "\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now('%d %b %Y') %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Tools: ' + tools | tojson }}{% endif %}
{{- system + '<|eot_id|>' }}
{%- for message in messages %}
    {%- if not message.role in ['user', 'assistant'] %}
        {{- raise_exception('unknown role ' + message.role) }}
    {%- endif %}
    {%- if message.tool_calls is defined %}{{- raise_exception('no tools') }}{%- endif %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
";

#[test]
fn llama3() {
    let text = render(LLAMA3, &conversation(), true).unwrap();
    assert_eq!(
        text,
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nHi, \"you\" & <me>!<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>\
         <|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>\
         <|start_header_id|>assistant<|end_header_id|>\n\n"
    );
    let error = render(LLAMA3, &[Message::new("tool", "x")], true).unwrap_err();
    assert!(
        matches!(&error, ChatError::Refused { line: 18, reason } if reason == "unknown role tool"),
        "{error:?}"
    );
}

/// In the manner of Zephyr: blocks on lines of their own, which only comes out right if their line ends and
/// indentation vanish.
const ZEPHYR: &str = "\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
  {% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
  {% endif %}
{% endfor %}";

#[test]
fn zephyr() {
    let messages = [Message::system("Be brief."), Message::user("Hi")];
    let expected = "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n";
    assert_eq!(render(ZEPHYR, &messages, false).unwrap(), expected);
    assert_eq!(render(ZEPHYR, &messages, true).unwrap(), format!("{expected}<|assistant|>\n"));
}

/// What templates in use ask of the engine beyond plain Jinja.
#[test]
fn python_in_templates() {
    let messages = [Message::user("a</think>\n b "), Message::assistant("x")];
    for (source, expected) in [
        ("{{ messages[0].content.split('</think>')[-1].lstrip('\\n').strip() }}", "b"),
        ("{{ messages[0].content.startswith('a') }} {{ 'b'.upper() }}", "True B"),
        ("{% for m in messages[::-1] %}{{ m.role }},{% endfor %}", "assistant,user,"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "2",
        ),
        (
            "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
            "user",
        ),
        ("{% macro w(r) %}<{{ r }}>{% endmacro %}{{ w('x') }}", "<x>"),
        ("{{ messages[0].get('name', 'none') }} {{ 'name' in messages[0] }}", "none False"),
        ("{% for k, v in {'b': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}", "b1a2"),
        (
            "{{ tools is none }} {{ documents is none }} {{ nothing is defined }}[{{ nothing }}]",
            "True True False[]",
        ),
        (
            "{{ {'b': [1, 2.5, none, true], 'a': '<\u{e9}&\"'} | tojson }}",
            "{\"b\": [1, 2.5, null, true], \"a\": \"<\u{e9}&\\\"\"}",
        ),
        ("{{ {'a': [1], 'b': {}} | tojson(indent=2) }}", "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}"),
        ("{{ messages | map(attribute='role') | join('-') }}", "user-assistant"),
        ("{{ (messages | selectattr('role', 'equalto', 'user') | list) | length }}", "1"),
        ("{{ ['a', 'b'] | first ~ 1 }}{# a comment #}", "a1"),
        ("{{ messages[0].content is string }}", "True"),
        ("one\n{# x #}\n{% if true %}\n  two\n{% endif %}\n", "one\n  two\n"),
    ] {
        assert_eq!(
            render(source, &messages, false).map_err(|e| e.to_string()).as_deref(),
            Ok(expected),
            "{source}"
        );
    }
}

#[test]
fn the_date_is_todays() {
    let before = jiff_like_year();
    let text = render("{{ strftime_now('%Y|%d %B %Y, %H:%M') }}", &[], false).unwrap();
    let (year, rest) = text.split_once('|').unwrap();
    let year: u64 = year.parse().unwrap();
    assert!(year == before || year == before + 1 || year + 1 == before, "{text}");
    assert!(rest.contains(&format!(" {year}, ")), "{text}");
}

/// The year by the clock, to a day or so.
fn jiff_like_year() -> u64 {
    let seconds = web_time::SystemTime::now().duration_since(web_time::UNIX_EPOCH).unwrap().as_secs();
    1970 + (seconds as f64 / (365.2425 * 86400.0)) as u64
}

#[test]
fn errors_name_the_line() {
    for (source, line) in
        [("a\nb {{ 1 + }}\n", 2), ("\n{% if x %}", 2), ("\n\n{% generation %}x", 3), ("\n{{ '\\x4' }}", 2)]
    {
        let error = ChatTemplate::new(source).unwrap_err();
        assert!(matches!(error, ChatError::Syntax { line: l, .. } if l == line), "{source:?}: {error:?}");
        assert!(error.to_string().contains(&format!("line {line}")), "{error}");
    }
    for (source, line, part) in [
        ("\n{{ messages[0].name.first }}", 2, "undefined"),
        ("x\n\n{{ messages[0].content.explode() }}", 3, "explode"),
        ("\n{{ [1] | tojson(sort=true) }}", 2, "sort"),
        ("\n{{ nonsense(1) }}", 2, "nonsense"),
    ] {
        let error = render(source, &conversation(), false).unwrap_err();
        assert!(matches!(error, ChatError::Render { line: l, .. } if l == line), "{source:?}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("line {line}")) && text.contains(part), "{source:?}: {text}");
    }
    let error = render("\n{{ raise_exception('roles must alternate') }}", &[], false).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chat template refuses the conversation: roles must alternate (line 2)"
    );
}

#[test]
fn a_template_that_never_ends_is_stopped() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}{% endfor %}{% endfor %}{% endfor %}";
    let error = render(endless, &[], false).unwrap_err();
    assert!(matches!(error, ChatError::Render { .. }), "{error}");
}

/// Snippets, and what Jinja2 makes of them as transformers sets it up (`tools/reference/compare_templates.py --write`).
#[derive(Deserialize)]
struct Snippets {
    variables: BTreeMap<String, Json>,
    /// By name: the template, and its text, or null where it fails.
    snippets: BTreeMap<String, (String, Option<String>)>,
}

#[test]
fn snippets_render_as_in_jinja2() {
    let Snippets { mut variables, snippets } =
        serde_json::from_str(include_str!("../data/chat-snippets.json")).unwrap();
    let messages: Vec<Json> = variables.remove("messages").unwrap().try_iter().unwrap().collect();
    let mut options = RenderOptions::default();
    options.variables = variables;
    assert!(snippets.len() > 300);
    for (name, (template, expected)) in &snippets {
        let text = ChatTemplate::new(template).and_then(|t| t.render(&messages, &options));
        assert_eq!(text.as_ref().ok(), expected.as_ref(), "{name}: {template}\n{text:?}");
    }
}

#[test]
fn dates_are_those_of_the_c_locale() {
    let text = render("{{ strftime_now('%c|%x|%X|%z%Z|%!|100%') }}", &[], false).unwrap();
    let [c, x, time, zone, unknown, end] = text.split('|').collect::<Vec<_>>().try_into().unwrap();
    // Such as "Sun Nov 29 19:47:54 2026".
    assert_eq!((c.len(), c.as_bytes()[3], c.as_bytes()[13]), (24, b' ', b':'), "{c}");
    assert_eq!((x.len(), time.len(), zone, unknown, end), (8, 8, "", "%!", "100%"), "{text}");
}

#[test]
fn tools_keep_the_order_of_their_keys() {
    let mut options = RenderOptions::default();
    options.tools =
        Some(vec![serde_json::from_str(r#"{"type": "f", "b": 1, "a": {"z": 1, "y": 2}}"#).unwrap()]);
    let template = ChatTemplate::new("{{ tools[0] | tojson }}{{ tools[0] }}").unwrap();
    assert_eq!(
        template.render::<Message>(&[], &options).unwrap(),
        r#"{"type": "f", "b": 1, "a": {"z": 1, "y": 2}}{'type': 'f', 'b': 1, 'a': {'z': 1, 'y': 2}}"#
    );
}

#[test]
fn named_templates() {
    let key = "tokenizer.chat_template";
    let strings = |texts: &[&str]| Array::String(texts.iter().map(|t| (*t).to_owned()).collect());
    let json = r#"[{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}]"#;
    let mut files: Vec<Metadata> = Vec::new();
    let mut file = |pairs: Vec<(&str, sparse_gguf::Value)>| {
        let mut meta = Metadata::default();
        for (key, value) in pairs {
            meta.insert(key, value);
        }
        files.push(meta);
    };
    file(vec![(key, "D".into()), ("tokenizer.chat_template.tool_use", "T".into())]);
    file(vec![(key, sparse_gguf::Value::Array(strings(&["default", "D", "tool_use", "T"])))]);
    file(vec![(key, json.into())]);
    file(vec![(
        key,
        sparse_gguf::Value::Array(strings(&[
            r#"{"name": "tool_use", "template": "T"}"#,
            r#"{"name": "default", "template": "D"}"#,
        ])),
    )]);
    file(vec![(
        key,
        sparse_gguf::Value::Array(Array::Array(vec![
            strings(&["tool_use", "T"]),
            strings(&["default", "D"]),
        ])),
    )]);
    file(vec![
        (key, sparse_gguf::Value::Array(strings(&["T {{ 1 }}", "D {{ 1 }}"]))),
        ("tokenizer.chat_templates", sparse_gguf::Value::Array(strings(&["tool_use", "default"]))),
    ]);
    for meta in &files {
        let templates = ChatTemplates::from_metadata(meta);
        assert_eq!(templates.names().len(), 2, "{templates:?}");
        for (asked, tools, letter) in [
            (None, false, 'D'),
            (None, true, 'T'),
            (Some("tool_use"), false, 'T'),
            (Some("default"), true, 'D'),
        ] {
            let template = templates.get(asked, tools).unwrap();
            let text = template.render::<Message>(&[], &RenderOptions::default()).unwrap();
            assert!(text.starts_with(letter), "{text} {asked:?} {tools}");
        }
        let error = templates.get(Some("rag"), false).unwrap_err().to_string();
        assert!(error.contains("rag") && error.contains("tool_use"), "{error}");
    }
    let none = ChatTemplates::from_metadata(&Metadata::default());
    assert!(matches!(none.get(None, false), Err(ChatError::Absent)));
    // One that does not compile fails when it is used, and the others do not.
    let mut templates = ChatTemplates::default();
    templates.add("default", "{% nonsense %}");
    templates.add("plain", "P");
    assert!(matches!(templates.get(None, false), Err(ChatError::Syntax { .. })));
    assert!(templates.get(Some("plain"), false).is_ok());
}

fn small_tokenizer(change: impl Fn(&mut Metadata)) -> Tokenizer {
    let file = include_bytes!("../data/tokenizer/spm.gguf");
    let mut meta = Gguf::from_bytes(file.to_vec()).unwrap().metadata().clone();
    change(&mut meta);
    Tokenizer::from_metadata(&meta).unwrap()
}

#[test]
fn prompts_begin_once_and_never_end() {
    let tokenizer = small_tokenizer(|meta| {
        meta.insert("tokenizer.ggml.add_bos_token", true);
        meta.insert("tokenizer.ggml.add_eos_token", true);
    });
    let (bos, eos) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
    let name = tokenizer.token(bos).unwrap().to_owned();
    // Texts to embed keep both.
    let both = tokenizer.encode("a", EncodeOptions::default()).unwrap();
    assert_eq!((both.first(), both.last()), (Some(&bos), Some(&eos)));
    let count = |ids: &[u32], id| ids.iter().filter(|&&i| i == id).count();
    for prompt in ["a".to_owned(), format!("{name}a"), format!(" \n{name}a")] {
        let ids = tokenizer.encode_prompt(&prompt).unwrap();
        assert_eq!((count(&ids, bos), count(&ids, eos)), (1, 0), "{prompt:?}");
    }
    // A chat has the tokens that its template writes.
    assert_eq!(count(&tokenizer.encode_chat("a").unwrap(), bos), 0);
    let template = ChatTemplate::new(" {{ bos_token }}{{ messages[0].content }}").unwrap();
    let prompt = template.encode(&tokenizer, &[Message::user("a")], &RenderOptions::default()).unwrap();
    assert_eq!((count(&prompt.tokens, bos), count(&prompt.tokens, eos)), (1, 0));
    assert_eq!(prompt.text, format!(" {name}a"));
}

#[test]
fn control_tokens_in_messages_can_stay_text() {
    let tokenizer = small_tokenizer(|_| {});
    let (bos, eos) = (tokenizer.bos().unwrap(), tokenizer.eos().unwrap());
    let name = tokenizer.token(eos).unwrap().to_owned();
    let template = ChatTemplate::new(
        "{{ bos_token }}{% for m in messages %}{{ m.content | trim }}{{ eos_token }}{% endfor %}",
    )
    .unwrap();
    let text = format!(" x{name}y{name} \u{fdd1}{name}");
    let messages = [Message::user(text.as_str())];
    let mut options = RenderOptions::default();
    let parsed = template.encode(&tokenizer, &messages, &options).unwrap();
    assert_eq!(parsed.tokens.iter().filter(|&&id| id == eos).count(), 4);
    options.literal_input = true;
    let literal = template.encode(&tokenizer, &messages, &options).unwrap();
    assert_eq!(literal.tokens.iter().filter(|&&id| id == eos).count(), 1, "{literal:?}");
    assert_eq!((literal.tokens[0], literal.tokens.last()), (bos, Some(&eos)));
    // Nothing is lost but the forged mark.
    let bos = tokenizer.token(bos).unwrap();
    assert_eq!(literal.text, format!("{bos}x{name}y{name} {name}{name}"));
    // Templates may cut what is marked.
    let template =
        ChatTemplate::new("{{ messages[0].content.split('y')[0] }}{{ messages[0].content[:3] }}").unwrap();
    let cut = template.encode(&tokenizer, &messages, &options).unwrap();
    assert!(!cut.tokens.contains(&eos) && !cut.text.contains(['\u{fdd0}', '\u{fdd1}']), "{cut:?}");
}
