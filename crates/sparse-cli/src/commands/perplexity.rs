//! `sparse perplexity`.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sparse_calibrate::Error;
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{HeadMode, Model, Placement, SessionOptions, perplexity};
use tracing::info;

use crate::args::{PerplexityArgs, SparseArgs};
use crate::commands::calibrate::screens;
use crate::exit::{self, End};
use crate::load::Interleaving;
use crate::progress::Bar;
use crate::{input, interrupt, load, output};

#[derive(Serialize)]
struct Report<'a> {
    perplexity: f64,
    standard_error: f64,
    scored_tokens: usize,
    windows: usize,
    /// Mean negative log-likelihood of each window's scored tokens, in nats: for paired comparisons.
    window_nats: Vec<f64>,
    window_tokens: usize,
    text_tokens: usize,
    interrupted: bool,
    model: &'a str,
    level: &'a str,
    threads: usize,
    load_ms: f64,
    #[serde(flatten)]
    interleaving: Interleaving,
    tokenize_ms: f64,
    compute_ms: f64,
    tokens_per_s: Option<f64>,
}

pub(crate) fn run(args: &PerplexityArgs) -> anyhow::Result<End> {
    let text = input::file(&args.text)?;
    let head = match args.sparse.head {
        // Perplexity needs all logits.
        HeadMode::Auto if args.measure_screen => HeadMode::Screened,
        HeadMode::Auto => HeadMode::Dense,
        asked => asked,
    };
    let sparse = SparseArgs { head, ..args.sparse.clone() };
    let loaded = load::model(args.model.model.as_deref(), &sparse, &args.compute, Placement::AsCalibrated)?;
    let model = &loaded.model;
    let limit = model.config().context;
    if !(4..=limit).contains(&args.ctx) {
        let name = &loaded.name;
        return Err(exit::usage(format!(
            "--ctx is {}, but windows for {name} have 4 to {limit} tokens",
            args.ctx
        )));
    }
    let start = Instant::now();
    let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: args.parse_special };
    let tokens = model.tokenizer().encode(&text, options)?;
    let tokenize_time = start.elapsed();
    interrupt::handle()?;
    if args.measure_screen {
        return measure_screen(args, model, &tokens);
    }
    let windows = tokens.len() / args.ctx;
    let windows = args.windows.map_or(windows, |n| windows.min(n.get()));
    info!(tokens = tokens.len(), ?tokenize_time, windows, "measuring");
    let bar = bar(windows);
    let start = Instant::now();
    let (mut window_nats, mut before) = (Vec::new(), (0.0, 0));
    let result = perplexity(model, &tokens, SessionOptions::new(args.ctx).kv(args.kv), |done, _, so_far| {
        let now = (so_far.perplexity.ln() * so_far.scored as f64, so_far.scored);
        window_nats.push((now.0 - before.0) / (now.1 - before.1).max(1) as f64);
        before = now;
        bar.set_message(format!("{:.3} ± {:.3}", so_far.perplexity, so_far.standard_error));
        bar.inc(1);
        match done == windows || interrupt::requested() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    bar.finish_and_clear();
    let result = result?;
    let time = start.elapsed();
    let interrupted = result.windows < windows;

    if args.json {
        output::json(&Report {
            perplexity: result.perplexity,
            standard_error: result.standard_error,
            scored_tokens: result.scored,
            windows: result.windows,
            window_nats,
            window_tokens: args.ctx,
            text_tokens: tokens.len(),
            interrupted,
            model: &loaded.name,
            level: model.compute().kernels.level().name(),
            threads: args.compute.threads(),
            load_ms: output::ms(loaded.time),
            interleaving: loaded.interleaving,
            tokenize_ms: output::ms(tokenize_time),
            compute_ms: output::ms(time),
            tokens_per_s: output::rate((result.windows * args.ctx) as f64, time),
        })?;
    } else {
        let (p, e) = (result.perplexity, result.standard_error);
        let (scored, n, ctx) = (result.scored, result.windows, args.ctx);
        let all = if interrupted {
            format!(", interrupted before the other {}", windows - n)
        } else {
            String::new()
        };
        writeln!(
            io::stdout(),
            "perplexity {p:.3} ± {e:.3} ({scored} tokens scored in {n} windows of {ctx}{all})"
        )?;
    }
    Ok(if interrupted { End::Interrupted } else { End::Finished })
}

/// What the screen of the head misses and takes on this text.
fn measure_screen(args: &PerplexityArgs, model: &Arc<Model>, tokens: &[u32]) -> anyhow::Result<End> {
    let mut bar = Bar::default();
    let most = args.windows.map_or(usize::MAX, NonZeroUsize::get);
    let result = sparse_calibrate::measure_screen(model, tokens, args.ctx, most, &mut bar);
    bar.finish();
    let report = match result {
        Err(Error::Interrupted) => return Ok(End::Interrupted),
        other => other?,
    };
    match args.json {
        true => output::json(&report)?,
        false => screens(&mut io::stdout().lock(), &[report])?,
    }
    Ok(End::Finished)
}

/// Windows done, perplexity so far, time left; nothing when stderr is no terminal.
fn bar(windows: usize) -> ProgressBar {
    let bar = ProgressBar::new(windows as u64);
    // The template is a constant without faults; an unstyled bar would do as well.
    if let Ok(style) =
        ProgressStyle::with_template("window {pos}/{len} {wide_bar:.dim} perplexity {msg}, {eta} left")
    {
        bar.set_style(style);
    }
    bar
}
