//! `sparse chat`: a conversation at the terminal.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::Context;
use console::style;
use etcetera::BaseStrategy;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use sparse_model::chat::{ChatTemplate, Message, final_channel};
use sparse_model::{Event, GenerateOptions, Placement, Session, SessionOptions, Stop};

use crate::args::ConversationArgs;
use crate::commands::chat_template;
use crate::exit::{self, End};
use crate::{interrupt, load, output};

const HELP: &str = "\
/reset          forget the conversation
/system TEXT    forget it, and begin anew under this system message; without TEXT, under none
/help           show this
/exit           end, as Ctrl-D does
Ctrl-C stops an answer.";

/// Tokens of the default context.
const CONTEXT: usize = 4096;

pub(crate) fn run(args: &ConversationArgs) -> anyhow::Result<End> {
    let placement = if args.sampler.repeatable() { Placement::AsCalibrated } else { Placement::Measured };
    let loaded = load::model(args.model.model.as_deref(), &args.sparse, &args.compute, placement)?;
    let longest = loaded.model.config().context;
    if args.context > longest {
        let problem =
            format!("--context is {}, but the model was trained for {longest} tokens", args.context);
        return Err(exit::usage(problem));
    }
    let context = if args.context == 0 { longest.min(CONTEXT) } else { args.context };
    let session = Session::with_options(&loaded.model, SessionOptions::new(context).kv(args.kv))?;
    let template = chat_template::choose(loaded.model.chat_templates(), &args.template, false)?;
    let mut conversation = Conversation {
        args,
        session,
        template: &template,
        messages: args.system.iter().map(Message::system).collect(),
    };
    interrupt::handle_each()?;
    let terminal = io::stdin().is_terminal();
    if terminal {
        eprintln!(
            "{}",
            style(format!("{}. /help lists commands, Ctrl-D ends.", loaded.name)).dim().for_stderr()
        );
    }
    let mut editor = DefaultEditor::new()?;
    let history = history().filter(|_| terminal);
    if let Some(path) = &history {
        // There is none the first time.
        let _ = editor.load_history(path);
    }
    loop {
        let line = match editor.readline(if terminal { "> " } else { "" }) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        // A history that cannot grow is no reason to end.
        let _ = editor.add_history_entry(line);
        match line.split_once(char::is_whitespace).unwrap_or((line, "")) {
            ("/exit" | "/quit", _) => break,
            ("/help", _) => eprintln!("{HELP}"),
            ("/reset", _) => conversation.messages.retain(|m| m.role == "system"),
            ("/system", text) => {
                let text = text.trim();
                conversation.messages =
                    (!text.is_empty()).then(|| Message::system(text)).into_iter().collect();
            }
            (command, _) if command.starts_with('/') => {
                eprintln!("there is no command {command}; /help lists those that there are");
            }
            _ => conversation.answer(line)?,
        }
    }
    if let Some(path) = &history {
        let saved = path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(anyhow::Error::from);
        if let Err(error) = saved.and_then(|()| Ok(editor.save_history(path)?)) {
            tracing::warn!(%error, "the history of what was typed is lost");
        }
    }
    Ok(End::Finished)
}

/// Where what was typed is kept.
fn history() -> Option<PathBuf> {
    Some(etcetera::choose_base_strategy().ok()?.data_dir().join("sparse").join("chat-history"))
}

struct Conversation<'a> {
    args: &'a ConversationArgs,
    session: Session,
    template: &'a ChatTemplate,
    messages: Vec<Message>,
}

impl Conversation<'_> {
    /// Answers a message, and prints the answer as it comes.
    fn answer(&mut self, message: &str) -> anyhow::Result<()> {
        self.messages.push(Message::user(message));
        let Some(tokens) = self.prompt()? else {
            self.messages.pop();
            eprintln!("the message is longer than the context of {} tokens", self.session.context());
            return Ok(());
        };
        // What is known of the conversation is not computed again.
        let common = self.session.tokens().iter().zip(&tokens).take_while(|(a, b)| a == b).count();
        let mut common = common.min(tokens.len() - 1);
        if self.session.truncate(common).is_err() {
            self.session.clear();
            common = 0;
        }
        let options = GenerateOptions::new(self.args.max_tokens).sampler(self.args.sampler.config());
        let (mut text, mut out) = (String::new(), io::stdout());
        let is_terminal = out.is_terminal();
        let mut events = self.session.generate(&tokens[common..], &options);
        let mut stop = None;
        interrupt::take();
        while let Some(event) = events.next() {
            match event? {
                Event::Text(piece) => {
                    let shown = if is_terminal { output::for_terminal(&piece) } else { (&*piece).into() };
                    out.write_all(shown.as_bytes())
                        .and_then(|()| out.flush())
                        .context("cannot print the answer")?;
                    text += &piece;
                }
                Event::End(end) => stop = Some(end.stop),
                _ => {}
            }
            if interrupt::take() {
                events.cancel();
            }
        }
        writeln!(out)?;
        match stop {
            Some(Stop::Cancelled) => eprintln!("{}", style("(stopped)").dim().for_stderr()),
            Some(Stop::ContextFull) => eprintln!("{}", style("(the context is full)").dim().for_stderr()),
            _ => {}
        }
        self.messages.push(Message::assistant(final_channel(&text)));
        Ok(())
    }

    /// The conversation's tokens. The oldest messages go until an answer has room; nothing if the last one alone has none.
    fn prompt(&mut self) -> anyhow::Result<Option<Vec<u32>>> {
        let context = self.session.context();
        // An eighth of the context for the answer.
        let room = context - context / 8;
        loop {
            let options = chat_template::options(&self.args.template);
            let prompt = self.template.encode(self.session.model().tokenizer(), &self.messages, &options)?;
            if prompt.tokens.len() <= room {
                return Ok(Some(prompt.tokens));
            }
            let first = usize::from(self.messages[0].role == "system");
            if self.messages.len() - first < 3 {
                return Ok(None);
            }
            self.messages.drain(first..first + 2);
        }
    }
}
