//! The chat templates of a model file: one, or several with names.

use std::sync::OnceLock;

use sparse_gguf::{Array, Metadata, Value};

use super::{ChatError, ChatTemplate};

/// The key of the template, or of an array of named ones.
const KEY: &str = "tokenizer.chat_template";
/// The template for conversations without tools.
const DEFAULT: &str = "default";
/// The template for conversations with tools.
const TOOL_USE: &str = "tool_use";

/// The chat templates of a model, by name. Each is compiled on its first use.
#[derive(Debug, Default)]
pub struct ChatTemplates {
    named: Vec<Named>,
}

#[derive(Debug)]
struct Named {
    name: String,
    source: String,
    compiled: OnceLock<ChatTemplate>,
}

impl ChatTemplates {
    /// The templates in a file's metadata. A file without any gives an empty set.
    ///
    /// `tokenizer.chat_template` is a template named `default`, `tokenizer.chat_template.NAME` one named NAME. An
    /// array under the first key holds several: JSON objects with `name` and `template`, pairs of both, or templates
    /// whose names `tokenizer.chat_templates` lists. Without names the first is `default`.
    pub fn from_metadata(meta: &Metadata) -> Self {
        let mut templates = Self::default();
        match meta.get(KEY) {
            Some(Value::String(source)) => templates.add_text(DEFAULT, source),
            Some(Value::Array(Array::String(entries))) => templates.add_strings(meta, entries),
            Some(Value::Array(Array::Array(pairs))) => {
                for pair in pairs {
                    if let Array::String(pair) = pair
                        && let [name, source] = pair.as_slice()
                    {
                        templates.add(name, source);
                    }
                }
            }
            _ => {}
        }
        for (key, value) in meta.iter() {
            let name = key.strip_prefix(KEY).and_then(|rest| rest.strip_prefix('.'));
            if let (Some(name), Value::String(source)) = (name, value) {
                templates.add(name, source);
            }
        }
        templates
    }

    /// Adds a template; the first of a name counts.
    pub fn add(&mut self, name: &str, source: &str) {
        if self.source(name).is_none() {
            let (name, source) = (name.to_owned(), source.to_owned());
            self.named.push(Named { name, source, compiled: OnceLock::new() });
        }
    }

    /// Adds what is a template, or the JSON of named ones, as in `tokenizer_config.json`.
    fn add_text(&mut self, name: &str, text: &str) {
        let named = serde_json::from_str::<Vec<NamedJson>>(text)
            .or_else(|_| serde_json::from_str::<NamedJson>(text).map(|one| vec![one]));
        match named {
            Ok(named) => named.iter().for_each(|t| self.add(&t.name, &t.template)),
            Err(_) => self.add(name, text),
        }
    }

    fn add_strings(&mut self, meta: &Metadata, entries: &[String]) {
        let names = match meta.get("tokenizer.chat_templates") {
            Some(Value::Array(Array::String(names))) if names.len() == entries.len() => names.as_slice(),
            _ => &[],
        };
        let is_name = |text: &str| text.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
        if names.is_empty()
            && entries.len().is_multiple_of(2)
            && entries.iter().step_by(2).all(|text| is_name(text))
        {
            for pair in entries.chunks_exact(2) {
                self.add(&pair[0], &pair[1]);
            }
            return;
        }
        for (i, text) in entries.iter().enumerate() {
            let numbered = if i == 0 { DEFAULT.to_owned() } else { i.to_string() };
            self.add_text(names.get(i).unwrap_or(&numbered), text);
        }
    }

    /// The names.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.named.iter().map(|t| t.name.as_str())
    }

    /// The source of the template named `name`.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|t| t.name == name).map(|t| t.source.as_str())
    }

    /// The name of the template to use: the one asked for; else with `tools` the one named `tool_use` if there is
    /// one; else `default`, or the only one.
    ///
    /// # Errors
    /// [`ChatError::Absent`] if there is no template, [`ChatError::Name`] if none has the name, or if several have
    /// other names than `default`.
    pub fn choose(&self, asked: Option<&str>, tools: bool) -> Result<&str, ChatError> {
        let find = |name: &str| self.names().find(|&n| n == name);
        let unknown = || ChatError::Name {
            asked: asked.unwrap_or(DEFAULT).to_owned(),
            names: self.names().collect::<Vec<_>>().join(", "),
        };
        let only = || self.names().next().filter(|_| self.named.len() == 1);
        if self.named.is_empty() {
            return Err(ChatError::Absent);
        }
        match asked {
            Some(name) => find(name).ok_or_else(unknown),
            None => {
                let tool_use = find(TOOL_USE).filter(|_| tools);
                tool_use.or_else(|| find(DEFAULT)).or_else(only).ok_or_else(unknown)
            }
        }
    }

    /// The template that [`choose`](Self::choose) names, compiled.
    ///
    /// # Errors
    /// As [`choose`](Self::choose), or [`ChatError::Syntax`] if the template is not well-formed.
    pub fn get(&self, asked: Option<&str>, tools: bool) -> Result<&ChatTemplate, ChatError> {
        let name = self.choose(asked, tools)?;
        let template = self.named.iter().find(|t| t.name == name).ok_or(ChatError::Absent)?;
        if template.compiled.get().is_none() {
            let compiled = ChatTemplate::new(&template.source)?;
            return Ok(template.compiled.get_or_init(|| compiled));
        }
        template.compiled.get().ok_or(ChatError::Absent)
    }
}

/// An entry of `chat_template` in `tokenizer_config.json`.
#[derive(serde::Deserialize)]
struct NamedJson {
    name: String,
    template: String,
}
