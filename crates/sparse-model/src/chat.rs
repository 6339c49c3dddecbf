//! Chat templates: the Jinja program in a model file that writes a conversation as the model learnt to read it.
//!
//! Templates are written for `apply_chat_template` of the transformers library, and give the same text here. minijinja
//! runs them. What it does otherwise than Jinja2 is adapted: its source where the syntax differs, and operators, methods,
//! filters, tests and printing. `docs/chat-templates.md` lists what still differs.
//!
//! ```
//! use sparse_model::chat::{ChatTemplate, Message, RenderOptions};
//!
//! # fn main() -> Result<(), sparse_model::Error> {
//! let template = ChatTemplate::new("{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}")?;
//! let text = template.render(&[Message::user("Hello")], &RenderOptions::default())?;
//! assert_eq!(text, "[user] Hello\n");
//! # Ok(())
//! # }
//! ```

mod arguments;
mod channels;
mod environment;
mod filters;
mod format;
mod json;
mod literal;
mod python;
mod source;
mod templates;
mod tuple;

use std::collections::BTreeMap;

use minijinja::{Environment, Value};
use serde::{Deserialize, Serialize};

/// A value of any type that a template sees. It keeps the order of keys, which templates print.
///
/// It can be deserialized from JSON; `Json::from_serialize` makes it of anything else.
pub use minijinja::Value as Json;

pub use channels::final_channel;
pub use templates::ChatTemplates;

use crate::Error;
use crate::tokenizer::Tokenizer;
use environment::Refusal;
use literal::Marker;

/// The name of the template inside its environment.
const NAME: &str = "chat";

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
    /// The model has no chat template.
    #[error("metadata tokenizer.chat_template is absent: this model has no chat format, use a plain prompt")]
    Absent,
    /// The model has templates, but none by this name.
    #[error("there is no chat template named \"{asked}\" (there are: {names})")]
    Name {
        /// The name that was asked for, or `default`.
        asked: String,
        /// The names that there are.
        names: String,
    },
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

/// What a conversation is rendered with, besides its messages.
///
/// ```
/// use sparse_model::chat::RenderOptions;
///
/// let mut options = RenderOptions::default();
/// options.add_generation_prompt = true;
/// options.variables.insert("enable_thinking".into(), false.into());
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RenderOptions {
    /// Ends the text where the model's answer begins.
    pub add_generation_prompt: bool,
    /// Text of the beginning-of-text token, `bos_token` in templates. [`ChatTemplate::encode`] knows it.
    pub bos: Option<String>,
    /// Text of the end-of-text token, `eos_token` in templates. [`ChatTemplate::encode`] knows it.
    pub eos: Option<String>,
    /// Tools that the model may call: JSON schemas, as for OpenAI's `tools`. Templates see `none` for none.
    pub tools: Option<Vec<Json>>,
    /// Documents for retrieval-augmented generation. Templates see `none` for none.
    pub documents: Option<Vec<Json>>,
    /// Further variables, such as `enable_thinking`. They take precedence over all others.
    pub variables: BTreeMap<String, Json>,
    /// Keeps the names of control tokens in messages, tools, documents and variables as text, so that a user cannot
    /// end a turn or begin another. Only [`ChatTemplate::encode`] can. Off, they become these tokens, as in
    /// transformers. A name that the template joins from parts of messages is not recognized.
    pub literal_input: bool,
}

/// A conversation as the model reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Prompt {
    /// Its text.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
}

/// A compiled chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    source: String,
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles a template, the value of `tokenizer.chat_template`.
    ///
    /// # Errors
    /// [`ChatError::Syntax`] if it is not well-formed.
    pub fn new(source: &str) -> Result<Self, ChatError> {
        let mut environment = environment::new();
        environment
            .add_template_owned(NAME, source::rewrite(source)?)
            .map_err(|e| ChatError::Syntax { line: e.line().unwrap_or(1), problem: problem(&e) })?;
        Ok(Self { source: source.to_owned(), environment })
    }

    /// Writes `messages` as the model is to read them.
    ///
    /// Messages are [`Message`]s or JSON objects with more fields, such as `tool_calls`. Encode the result with
    /// [`Tokenizer::encode_chat`](crate::tokenizer::Tokenizer::encode_chat).
    ///
    /// # Errors
    /// [`ChatError::Refused`] if the template calls `raise_exception`, [`ChatError::Render`] if it fails otherwise.
    pub fn render<M: Serialize>(&self, messages: &[M], options: &RenderOptions) -> Result<String, ChatError> {
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        context.insert("messages", Value::from_serialize(messages));
        context.insert("add_generation_prompt", options.add_generation_prompt.into());
        // Templates compare these with none before they use them.
        let list = |items: &Option<Vec<Json>>| items.as_ref().map_or(().into(), |v| Value::from(v.clone()));
        context.insert("tools", list(&options.tools));
        context.insert("documents", list(&options.documents));
        for (name, token) in [("bos_token", &options.bos), ("eos_token", &options.eos)] {
            if let Some(token) = token {
                context.insert(name, token.as_str().into());
            }
        }
        for (name, value) in &options.variables {
            context.insert(name, value.clone());
        }
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

impl ChatTemplate {
    /// Writes `messages` as the model is to read them, and encodes the text. No tokens are added to those that the
    /// template writes.
    ///
    /// # Errors
    /// As [`render`](Self::render) and [`Tokenizer::encode`].
    pub fn encode<M: Serialize>(
        &self,
        tokenizer: &Tokenizer,
        messages: &[M],
        options: &RenderOptions,
    ) -> Result<Prompt, Error> {
        let mut options = options.clone();
        let name = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).map(str::to_owned);
        options.bos = options.bos.or_else(|| name(tokenizer.bos()));
        options.eos = options.eos.or_else(|| name(tokenizer.eos()));
        if !options.literal_input {
            let text = self.render(messages, &options)?;
            let tokens = tokenizer.encode_chat(&text)?;
            return Ok(Prompt { text, tokens });
        }
        let marker = Marker::new(tokenizer, &self.source)?;
        let mut messages: Vec<Json> = messages.iter().map(Value::from_serialize).collect();
        let inputs = messages.iter_mut().chain(options.tools.iter_mut().flatten());
        let inputs = inputs.chain(options.documents.iter_mut().flatten());
        inputs.chain(options.variables.values_mut()).for_each(|value| *value = marker.mark(value));
        let (text, literal) = literal::unmark(&self.render(&messages, &options)?);
        let tokens = tokenizer.encode_marked(&text, &literal)?;
        Ok(Prompt { text, tokens })
    }
}

/// What an error says, without the place.
fn problem(e: &minijinja::Error) -> String {
    match e.detail() {
        Some(detail) => format!("{}: {detail}", e.kind()),
        None => e.kind().to_string(),
    }
}
