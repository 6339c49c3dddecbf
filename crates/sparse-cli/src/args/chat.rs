//! The command line of chat templates.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use sparse_model::chat::Json;

use super::ModelArgs;

/// Which chat template, and what it is given.
#[derive(Debug, Default, Args)]
pub(crate) struct ChatArgs {
    /// Chat template: one of the model's by name, or a file with a Jinja template [default: the model's]
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) chat_template: Option<String>,
    /// Variable for the chat template, such as enable_thinking=false; a VALUE that is not JSON is text
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) chat_var: Vec<(String, Json)>,
    /// Keep the names of control tokens in messages, such as <|im_end|>, as text
    #[arg(long)]
    pub(crate) literal: bool,
}

/// Whether a prompt is a message, and what stands before it.
#[derive(Debug, Default, Args)]
pub(crate) struct AnswerArgs {
    /// Answer the prompt as a chat message, in the format of the model's own template
    #[arg(long)]
    pub(crate) chat: bool,
    /// System message of the chat
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) template: ChatArgs,
}

/// `NAME=VALUE`.
fn variable(text: &str) -> Result<(String, Json), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    Ok((name.to_owned(), value))
}

pub(super) const CHAT_TEMPLATE_EXAMPLES: &str = "\
Examples:
  sparse chat-template -m model.gguf \"Why is the sky blue?\"     the prompt of `generate --chat`
  sparse chat-template -m model.gguf --ids \"Hello\"              its tokens
  sparse chat-template -m model.gguf --source                   the template itself
  sparse chat-template -m model.gguf --messages chat.json
  sparse chat-template --chat-template my.jinja --chat-var bos_token=\"<s>\" --messages chat.json

A file of messages holds a JSON array of objects with `role` and `content`, or an object of variables for the template:
`messages`, `tools`, `documents`, `add_generation_prompt` and any others. The prompt is printed as it is, without a line
break of its own unless stdout is a terminal.";

#[derive(Debug, Args)]
pub(crate) struct ChatTemplateArgs {
    /// A message of the user; from stdin when `-`
    #[arg(conflicts_with = "messages", required_unless_present_any = ["messages", "source"])]
    pub(crate) message: Option<OsString>,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// System message before it
    #[arg(long, value_name = "TEXT", conflicts_with = "messages")]
    pub(crate) system: Option<String>,
    /// File with a conversation as JSON; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) messages: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) template: ChatArgs,
    /// End with the last message, not where the answer begins
    #[arg(long)]
    pub(crate) no_generation_prompt: bool,
    /// Print the tokens of the prompt, as a JSON array
    #[arg(long, conflicts_with = "source")]
    pub(crate) ids: bool,
    /// Print the template instead
    #[arg(long, conflicts_with_all = ["message", "system", "messages"])]
    pub(crate) source: bool,
}
