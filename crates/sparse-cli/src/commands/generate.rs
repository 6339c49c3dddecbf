//! `sparse generate`.

mod picture;
mod report;
mod sink;

use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use console::style;
#[cfg(feature = "chat")]
use sparse_model::chat::Message;
#[cfg(feature = "grammar")]
use sparse_model::grammar::Grammar;
use sparse_model::{Event, Model, Placement, Sequence, Session, SessionOptions, Stop};
use tracing::info;

#[cfg(feature = "chat")]
use crate::args::AnswerArgs;
use crate::args::{GenerateArgs, Sparse, SparseArgs};
#[cfg(feature = "chat")]
use crate::commands::chat_template;
use crate::exit::{self, End};
use crate::{input, interrupt, load, output};
use picture::Picture;
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
    let (prompt, tokens) = encode(args, model, prompt)?;
    let context = context(args, model, tokens.len())?;
    let options = SessionOptions::new(context).kv(args.kv);
    let mut session = Session::with_options(model, options)?;
    let known = match &args.prompt_cache {
        Some(file) => restore(&mut session, options, file, &tokens)?,
        None => 0,
    };
    #[cfg_attr(not(feature = "grammar"), expect(unused_mut))]
    let mut options = args.options();
    #[cfg(feature = "grammar")]
    {
        options.grammar = grammar(args)?;
    }
    info!(prompt_tokens = tokens.len(), context, seed = options.sampler.seed, "generating");

    let mut picture = args.neurons.as_ref().map(|file| Picture::new(model, file)).transpose()?;
    session.keep_neurons(picture.is_some());
    interrupt::handle()?;
    let mut sink = Sink::new(!args.json);
    // Whoever typed the prompt wants to see the text as a whole; who pipes or redirects wants the new text alone.
    let typed = !args.chat() && !from_stdin(args) && io::stdout().is_terminal();
    if args.echo || typed {
        sink.prompt(&prompt)?;
    }
    let (mut chosen, mut generation) = (Vec::new(), None);
    let mut events = session.generate(&tokens[known..], &options);
    while let Some(event) = events.next() {
        match event? {
            Event::Text(piece) if sink.piece(&piece).is_break() => events.cancel(),
            Event::Token(token) => {
                if let Some(picture) = &mut picture {
                    picture.token(&model.tokenizer().decode(&[token.id], false), events.session().neurons());
                }
                if args.logprobs.is_some() {
                    chosen.push(token);
                }
            }
            Event::End(end) => generation = Some(end),
            _ => {}
        }
    }
    let generation = generation.context("generation has no end")?;
    let text = sink.finish()?;
    if let Some(file) = args.prompt_cache.as_ref().filter(|_| known + 1 < tokens.len()) {
        // Layers that keep a summary know the end alone.
        let prompt = session.sequence().fork(tokens.len());
        prompt.as_ref().unwrap_or(session.sequence()).save(file)?;
    }

    if let Some(picture) = picture {
        let all = SparseArgs { sparse: Some(Sparse::DenseRows), ..sparse };
        let dense = load::model(args.model.model.as_deref(), &all, &args.compute, placement)?;
        let text = session.tokens();
        picture.write(&loaded.name, picture::times(&dense.model, model, text, tokens.len())?)?;
    }
    let report = Report::new(&loaded, &session, &generation, &options.sampler, tokens.len(), text)
        .logprobs(model.tokenizer(), &chosen);
    if args.json {
        output::json(&report)?;
    } else if verbose || io::stderr().is_terminal() {
        eprintln!("{}", style(report.line()).dim().for_stderr());
    }
    if args.stats && !args.json {
        eprintln!("\n{}", report.stats());
    }
    Ok(if generation.stop == Stop::Cancelled { End::Interrupted } else { End::Finished })
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

/// The prompt as the model is given it, and its tokens.
#[cfg_attr(not(feature = "chat"), expect(unused_variables))]
fn encode(args: &GenerateArgs, model: &Model, prompt: String) -> anyhow::Result<(String, Vec<u32>)> {
    #[cfg(feature = "chat")]
    if args.answer.chat {
        let AnswerArgs { system, template: args, .. } = &args.answer;
        let system = system.as_ref().map(Message::system);
        let messages: Vec<Message> = system.into_iter().chain([Message::user(prompt)]).collect();
        let template = chat_template::choose(model.chat_templates(), args, false)?;
        let prompt = template.encode(model.tokenizer(), &messages, &chat_template::options(args))?;
        return Ok((prompt.text, prompt.tokens));
    }
    let tokens = model.tokenizer().encode_prompt(&prompt)?;
    Ok((prompt, tokens))
}

/// Takes what `file`, if it is there, knows of the prompt `tokens`; returns how many of them. The last one is computed in
/// any case, since its logits are not kept.
fn restore(
    session: &mut Session,
    options: SessionOptions,
    file: &Path,
    tokens: &[u32],
) -> anyhow::Result<usize> {
    if !file.exists() {
        return Ok(0);
    }
    let known = Sequence::load_common(session.model(), options, file, tokens)?;
    let count = known.position();
    *session.sequence_mut() = known;
    Ok(count)
}

/// What the text has to match.
#[cfg(feature = "grammar")]
fn grammar(args: &GenerateArgs) -> anyhow::Result<Option<Grammar>> {
    let text = |place: &std::ffi::OsStr| match place.to_str() {
        Some(json) if json.trim_start().starts_with('{') => Ok(json.to_owned()),
        _ => input::file(place.as_ref()),
    };
    Ok(match (&args.json_schema, &args.regex, &args.lark) {
        (Some(schema), ..) => Some(Grammar::JsonSchema(text(schema)?)),
        (_, Some(regex), _) => Some(Grammar::Regex(regex.clone())),
        (.., Some(file)) => Some(Grammar::Lark(input::file(file)?)),
        _ => None,
    })
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
