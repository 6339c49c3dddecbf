//! Chat templates: what they may use, and what goes wrong in them.

use sparse_model::chat::{ChatError, ChatTemplate, Message};

fn conversation() -> Vec<Message> {
    vec![
        Message::system("Be brief."),
        Message::user("  Hi, \"you\" & <me>!  "),
        Message::assistant("Hello."),
        Message::user("Bye"),
    ]
}

fn render(source: &str, messages: &[Message], prompt: bool) -> Result<String, ChatError> {
    ChatTemplate::new(source)?.render(messages, prompt, "<s>", "</s>")
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
    let seconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    1970 + (seconds as f64 / (365.2425 * 86400.0)) as u64
}

#[test]
fn errors_name_the_line() {
    for (source, line) in [("a\nb {{ 1 + }}\n", 2), ("\n{% if x %}", 2), ("\n\n{% generation %}x", 3)] {
        let error = ChatTemplate::new(source).unwrap_err();
        assert!(matches!(error, ChatError::Syntax { line: l, .. } if l == line), "{source:?}: {error:?}");
        assert!(error.to_string().contains(&format!("line {line}")), "{error}");
    }
    for (source, line, part) in [
        ("\n{{ messages[0].name.first }}", 2, "undefined"),
        ("x\n\n{{ messages[0].content.explode() }}", 3, "explode"),
        ("{{ strftime_now('%!') }}", 1, "directive `!`"),
        ("\n{{ [1] | tojson(sort=true) }}", 2, "sort"),
        ("{{ 'a' | tojson(ensure_ascii=true) }}", 1, "ensure_ascii"),
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
