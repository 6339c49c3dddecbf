//! Chat templates: the Jinja program in a model file that writes a conversation as the model learnt to read it.
//!
//! Templates are written for Hugging Face's `apply_chat_template`, and run here in the same surroundings: Jinja with
//! `trim_blocks` and `lstrip_blocks`, `break` and `continue`, Python's methods on strings and dictionaries,
//! `raise_exception`, `strftime_now`, and a `tojson` that writes as Python's `json.dumps` does.
//!
//! ```
//! use sparse_model::chat::{ChatTemplate, Message};
//!
//! # fn main() -> Result<(), sparse_model::Error> {
//! let template = ChatTemplate::new("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")?;
//! let text = template.render(&[Message::user("Hello")], true, "<s>", "</s>")?;
//! assert_eq!(text, "[user] Hello\n");
//! # Ok(())
//! # }
//! ```

use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter};

/// The name of the template inside its environment.
const NAME: &str = "chat";

/// Steps that a template may take: far more than a conversation of thousands of messages needs, and an end to
/// loops that a hostile file nests.
const FUEL: u64 = 20_000_000;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message by `role`.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }

    /// The instructions that a conversation stands under.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new("system", content)
    }

    /// A message to the model.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new("user", content)
    }

    /// A message by the model.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new("assistant", content)
    }
}

/// What can go wrong with a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// The template is not well-formed.
    #[error("the chat template has an error in line {line}: {problem}")]
    Syntax {
        /// The line of the template, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The template fails on this conversation.
    #[error("the chat template fails in line {line}: {problem}")]
    Render {
        /// The line of the template, from 1; 0 if no line is to blame.
        line: usize,
        /// What went wrong.
        problem: String,
    },
    /// The template refuses this conversation, such as one whose roles do not alternate.
    #[error("the chat template refuses the conversation: {reason} (line {line})")]
    Refused {
        /// The line of the template, from 1.
        line: usize,
        /// What the template says.
        reason: String,
    },
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles a template, the value of `tokenizer.chat_template`.
    ///
    /// # Errors
    /// [`ChatError::Syntax`] if it is not well-formed.
    pub fn new(source: &str) -> Result<Self, ChatError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned(NAME, source.to_owned())
            .map_err(|e| ChatError::Syntax { line: e.line().unwrap_or(1), problem: problem(&e) })?;
        Ok(Self { environment })
    }

    /// Writes `messages` as the model is to read them.
    ///
    /// With `add_generation_prompt`, the text ends where the model's answer begins. `bos` and `eos` are the texts of
    /// the model's beginning- and end-of-text tokens, which the template may write; encode the result with
    /// [`parse_special`](crate::tokenizer::EncodeOptions::parse_special).
    ///
    /// # Errors
    /// [`ChatError::Refused`] if the template calls `raise_exception`, [`ChatError::Render`] if it fails otherwise.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        bos: &str,
        eos: &str,
    ) -> Result<String, ChatError> {
        let context = context! {
            messages,
            add_generation_prompt,
            bos_token => bos,
            eos_token => eos,
            // Templates test these for none before they use them.
            tools => (),
            documents => (),
        };
        let text = self.environment.get_template(NAME).and_then(|template| template.render(context));
        text.map_err(|e| {
            let line = e.line().unwrap_or(0);
            match std::error::Error::source(&e).and_then(|s| s.downcast_ref::<Refusal>()) {
                Some(Refusal(reason)) => ChatError::Refused { line, reason: reason.clone() },
                None => ChatError::Render { line, problem: problem(&e) },
            }
        })
    }
}

/// What an error says, without the place.
fn problem(e: &minijinja::Error) -> String {
    match e.detail() {
        Some(detail) => format!("{}: {detail}", e.kind()),
        None => e.kind().to_string(),
    }
}

/// The argument of a `raise_exception`, on its way out of the template.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn raise_exception(reason: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Refusal(reason)))
}

/// The local date and time, by a format of `strftime`.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    jiff::fmt::strtime::format(format, &jiff::Zoned::now())
        .map_err(|e| minijinja::Error::new(ErrorKind::InvalidOperation, e.to_string()))
}

/// JSON as Python's `json.dumps` writes it: a space behind each comma and colon, nothing escaped for HTML.
fn to_json(value: Value, options: Kwargs) -> Result<String, minijinja::Error> {
    let indent: Option<usize> = options.get("indent")?;
    let ascii: Option<bool> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    if ascii == Some(true) {
        return Err(minijinja::Error::new(
            ErrorKind::InvalidOperation,
            "tojson: ensure_ascii=true is not supported",
        ));
    }
    match indent {
        Some(indent) => {
            write_json(&value, PrettyFormatter::with_indent(" ".repeat(indent.min(16)).as_bytes()))
        }
        None => write_json(&value, Spaced),
    }
}

fn write_json(value: &Value, formatter: impl Formatter) -> Result<String, minijinja::Error> {
    let mut json = Vec::new();
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut json, formatter))
        .map_err(|e| minijinja::Error::new(ErrorKind::BadSerialization, e.to_string()))?;
    // The serializer writes UTF-8.
    Ok(String::from_utf8_lossy(&json).into_owned())
}

/// One line of JSON, with Python's separators.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        w.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, w: &mut W) -> std::io::Result<()> {
        w.write_all(b": ")
    }
}
