//! `sparse chat-template`, and the choice of a template for `generate --chat`.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::ops::Deref;
use std::path::Path;

use anyhow::{Context, anyhow};
use serde::Deserialize;
use sparse_model::chat::{ChatError, ChatTemplate, ChatTemplates, Json, Message, RenderOptions};
use sparse_model::tokenizer::Tokenizer;

use crate::args::{ChatArgs, ChatTemplateArgs};
use crate::exit::{self, End};
use crate::{input, load};

pub(crate) fn run(args: &ChatTemplateArgs) -> anyhow::Result<End> {
    let (messages, options) = conversation(args)?;
    let tools = options.tools.is_some();
    let file = args.template.chat_template.as_deref().map(Path::new).filter(|path| path.is_file());
    let mut out = io::stdout().lock();
    let text = if let (Some(path), None) = (file, &args.model.model) {
        // A template alone: there are no tokens.
        if args.ids || args.template.literal {
            return Err(exit::usage("--ids and --literal need a model's tokens: name it with --model FILE"));
        }
        let source = input::file(path)?;
        match args.source {
            true => source,
            false => compile(path, &source)?.render(&messages, &options)?,
        }
    } else {
        let gguf = load::gguf(args.model.model.as_deref())?;
        let templates = ChatTemplates::from_metadata(gguf.metadata());
        if args.source {
            source(&templates, &args.template)?
        } else {
            let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
            let template = choose(&templates, &args.template, tools)?;
            let prompt = template.encode(&tokenizer, &messages, &options)?;
            match args.ids {
                true => format!("{:?}\n", prompt.tokens),
                false => prompt.text,
            }
        }
    };
    out.write_all(text.as_bytes())?;
    if out.is_terminal() && !text.ends_with('\n') {
        writeln!(out)?;
    }
    out.flush()?;
    Ok(End::Finished)
}

/// A file with a conversation.
#[derive(Deserialize)]
#[serde(untagged)]
enum Conversation {
    Messages(Vec<Json>),
    Variables(Variables),
}

#[derive(Deserialize)]
struct Variables {
    messages: Vec<Json>,
    tools: Option<Vec<Json>>,
    documents: Option<Vec<Json>>,
    add_generation_prompt: Option<bool>,
    #[serde(flatten)]
    others: BTreeMap<String, Json>,
}

/// The messages, and what else the template is to be given.
fn conversation(args: &ChatTemplateArgs) -> anyhow::Result<(Vec<Json>, RenderOptions)> {
    let mut options = options(&args.template);
    options.add_generation_prompt = !args.no_generation_prompt;
    let Some(path) = &args.messages else {
        let message = |message: Message| Json::from_serialize(message);
        let mut messages: Vec<Json> = args.system.iter().map(|text| message(Message::system(text))).collect();
        if !args.source {
            let text = input::argument_or_stdin(args.message.as_ref(), "message")?;
            messages.push(message(Message::user(text)));
        }
        return Ok((messages, options));
    };
    let text = input::file(path)?;
    let json: Json =
        serde_json::from_str(&text).with_context(|| format!("`{}` is not JSON", path.display()))?;
    let conversation = Conversation::deserialize(json).map_err(|_| {
        anyhow!(
            "`{}` holds neither an array of messages nor an object with one in `messages`, and arrays or null in \
             `tools` and `documents`",
            path.display()
        )
    })?;
    let variables = match conversation {
        Conversation::Messages(messages) => return Ok((messages, options)),
        Conversation::Variables(variables) => variables,
    };
    options.tools = variables.tools;
    options.documents = variables.documents;
    options.add_generation_prompt &= variables.add_generation_prompt.unwrap_or(true);
    for (name, value) in variables.others {
        // What the command line says counts.
        options.variables.entry(name).or_insert(value);
    }
    Ok((variables.messages, options))
}

/// What the options say, with a generation prompt.
pub(crate) fn options(args: &ChatArgs) -> RenderOptions {
    let mut options = RenderOptions::default();
    options.add_generation_prompt = true;
    options.variables = args.chat_var.iter().cloned().collect();
    options.literal_input = args.literal;
    options
}

/// A template of the model, or of a file.
pub(crate) enum Chosen<'a> {
    Model(&'a ChatTemplate),
    File(Box<ChatTemplate>),
}

impl Deref for Chosen<'_> {
    type Target = ChatTemplate;

    fn deref(&self) -> &ChatTemplate {
        match self {
            Self::Model(template) => template,
            Self::File(template) => template,
        }
    }
}

/// The template that the options ask for, for conversations with or without `tools`.
pub(crate) fn choose<'a>(
    templates: &'a ChatTemplates,
    args: &ChatArgs,
    tools: bool,
) -> anyhow::Result<Chosen<'a>> {
    match file(templates, args) {
        Some(path) => Ok(Chosen::File(compile(path, &input::file(path)?)?.into())),
        None => Ok(Chosen::Model(templates.get(args.chat_template.as_deref(), tools)?)),
    }
}

/// The source of the template that the options ask for.
fn source(templates: &ChatTemplates, args: &ChatArgs) -> anyhow::Result<String> {
    match file(templates, args) {
        Some(path) => input::file(path),
        None => {
            let name = templates.choose(args.chat_template.as_deref(), false)?;
            Ok(templates.source(name).ok_or(ChatError::Absent)?.to_owned())
        }
    }
}

/// The file that the options name, if it is not the name of a template of the model.
fn file<'a>(templates: &ChatTemplates, args: &'a ChatArgs) -> Option<&'a Path> {
    let name = args.chat_template.as_deref().filter(|name| templates.source(name).is_none())?;
    Some(Path::new(name)).filter(|path| path.is_file())
}

fn compile(path: &Path, source: &str) -> anyhow::Result<ChatTemplate> {
    ChatTemplate::new(source).with_context(|| format!("cannot use `{}`", path.display()))
}
