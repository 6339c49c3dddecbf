//! `sparse generate`.

mod report;
mod sink;

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;

use console::style;
use sparse_model::chat::Message;
use sparse_model::{GenerateOptions, Model, Placement, Session, SessionOptions, Stop, generate};
use tracing::info;

use crate::args::{GenerateArgs, SparseArgs};
use crate::commands::chat_template;
use crate::exit::{self, End};
use crate::{input, interrupt, load, output};
use report::Report;
use sink::Sink;

/// Tokens from which on a screen of the head saves more time than making it takes, about.
const SCREENED_TOKENS: usize = 128;

pub(crate) fn run(args: &GenerateArgs, verbose: bool) -> anyhow::Result<End> {
    let placement = if args.sampler.repeatable() { Placement::AsCalibrated } else { Placement::Measured };
    let sparse = SparseArgs { brief: args.max_tokens < SCREENED_TOKENS, ..args.sparse.clone() };
    let loaded = load::model(args.model.model.as_deref(), &sparse, &args.compute, placement)?;
    let model = &loaded.model;
    let prompt = prompt(args)?;
    let (prompt, tokens) = match args.chat {
        true => conversation(args, model, prompt)?,
        false => {
            let tokens = model.tokenizer().encode_prompt(&prompt)?;
            (prompt, tokens)
        }
    };
    let context = context(args, model, tokens.len())?;
    let mut session = Session::with_options(model, SessionOptions::new(context).kv(args.kv))?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens,
        sampler: args.sampler.config(),
        ignore_end: args.ignore_eos,
    };
    info!(prompt_tokens = tokens.len(), context, seed = options.sampler.seed, "generating");

    interrupt::handle()?;
    let mut sink = Sink::new(!args.json);
    // Whoever typed the prompt wants to see the text as a whole; who pipes or redirects wants the new text alone.
    let typed = !args.chat && !from_stdin(args) && io::stdout().is_terminal();
    if args.echo || typed {
        sink.prompt(&prompt)?;
    }
    let generation = generate(&mut session, &tokens, &options, |piece| sink.piece(piece))?;
    let text = sink.finish()?;

    let report = Report::new(&loaded, &session, &generation, &options.sampler, tokens.len(), text);
    if args.json {
        output::json(&report)?;
    } else if verbose || io::stderr().is_terminal() {
        eprintln!("{}", style(report.line()).dim().for_stderr());
    }
    if args.stats && !args.json {
        eprintln!("\n{}", report.stats());
    }
    Ok(if generation.stop == Stop::Interrupted { End::Interrupted } else { End::Finished })
}

fn prompt(args: &GenerateArgs) -> anyhow::Result<String> {
    let mut text = input::argument_or_stdin(args.prompt.as_ref(), "prompt")?;
    if from_stdin(args) && text.ends_with('\n') {
        // Editors and `echo` end with a line break, behind which models continue differently.
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The user's message in the format that the model's chat template gives it, and its tokens.
fn conversation(args: &GenerateArgs, model: &Model, message: String) -> anyhow::Result<(String, Vec<u32>)> {
    let system = args.system.as_ref().map(Message::system);
    let messages: Vec<Message> = system.into_iter().chain([Message::user(message)]).collect();
    let template = chat_template::choose(model.chat_templates(), &args.template, false)?;
    let prompt = template.encode(model.tokenizer(), &messages, &chat_template::options(&args.template))?;
    Ok((prompt.text, prompt.tokens))
}

fn from_stdin(args: &GenerateArgs) -> bool {
    args.prompt.as_ref().is_none_or(|p| p == "-")
}

/// Room for prompt and text, but never more than the model was trained for: memory grows with it.
fn context(args: &GenerateArgs, model: &Model, prompt_tokens: usize) -> anyhow::Result<usize> {
    let limit = model.config().context;
    let context = match NonZeroUsize::new(args.context) {
        Some(n) if n.get() > limit => {
            return Err(exit::usage(format!(
                "--context is {n}, but the model was trained for {limit} tokens"
            )));
        }
        Some(n) => n.get(),
        None => prompt_tokens.saturating_add(args.max_tokens).clamp(1, limit),
    };
    if prompt_tokens > context {
        let most = if context < limit { format!(" (at most --context {limit})") } else { String::new() };
        anyhow::bail!("the prompt has {prompt_tokens} tokens, more than the context of {context}{most}");
    }
    Ok(context)
}
