//! `sparse bench`.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sparse_core::ReadBandwidth;
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{
    CacheKind, GenerateOptions, HeadMode, Placement, Sampler, SamplerConfig, Session, generate,
};

use crate::args::{BenchArgs, ComputeArgs, MemoryArgs, SparseArgs};
use crate::exit::{self, End};
use crate::load::{self, Interleaving, Loaded};
use crate::output::ms;
use crate::{input, interrupt, output};

/// Memory read to learn the bandwidth: far more than the caches hold.
const BANDWIDTH_BYTES: usize = 512 << 20;

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    level: &'static str,
    prompt: usize,
    tokens: usize,
    depth: usize,
    /// Weight bytes that decoding a token with all neurons reads.
    bytes_per_token: usize,
    interrupted: bool,
    threads: Vec<Figures>,
}

/// Figures of one thread count, and of one choice of neurons to leave out.
#[derive(Serialize)]
struct Figures {
    threads: usize,
    /// Neurons left out and the format of weights, if that was asked for.
    sparse: Option<String>,
    load_ms: f64,
    /// What making the screen of the head took, which the first tokens of a text do among themselves.
    screen_ms: f64,
    #[serde(flatten)]
    interleaving: Interleaving,
    /// Weight bytes that decoding a token read, and those of the feed-forward layers among them.
    bytes_per_token: usize,
    ffn_bytes_per_token: f64,
    /// Share of the neurons whose part of `down` was left out.
    skipped: f64,
    ffn_ms_per_token: Spread,
    /// Over the first choice with as many threads, round by round.
    decode_gain: Spread,
    ffn_time_ratio: Spread,
    prefill_tokens_per_s: Spread,
    decode_tokens_per_s: Spread,
    /// Weight bytes read per second of decoding, in 1e9.
    decode_gb_per_s: Spread,
    /// What a plain loop reads per second, in 1e9.
    read_gb_per_s: Spread,
    /// Of the rounds' `decode_gb_per_s / read_gb_per_s`.
    roofline: Spread,
}

/// Over the rounds.
#[derive(Serialize)]
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn new(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let n = values.len();
        let median = f64::midpoint(values[(n - 1) / 2], values[n / 2]);
        Self { median, min: values[0], max: values[n - 1] }
    }
}

/// The times of one round.
struct Round {
    prefill: Duration,
    decode: Duration,
    /// Of `decode`, the feed-forward layers.
    ffn: Duration,
    read: Duration,
}

/// One thread count, with one choice of neurons, in the making.
struct Candidate {
    choice: SparseArgs,
    loaded: Loaded,
    /// Of making the screen.
    screen: Duration,
    session: Session,
    rounds: Vec<Round>,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<End> {
    interrupt::handle()?;
    let mut candidates = Vec::new();
    for threads in thread_counts(args) {
        for choice in choices(args) {
            candidates.push(candidate(args, threads, choice)?);
        }
    }
    let ids = ids(args, &candidates)?;
    let mut memory = ReadBandwidth::new(BANDWIDTH_BYTES);
    let bar = bar(args.rounds.get() * candidates.len());
    // Candidates take turns, so that a slow moment of the machine does not hit one of them alone.
    for _ in 0..args.rounds.get() {
        for candidate in &mut candidates {
            candidate.round(args, &ids, &mut memory)?;
            bar.inc(1);
        }
        if interrupt::requested() {
            break;
        }
    }
    bar.finish_and_clear();

    let report = Report::new(args, &candidates, memory.bytes());
    match args.json {
        true => output::json(&report)?,
        false => print(&report)?,
    }
    Ok(if report.interrupted { End::Interrupted } else { End::Finished })
}

/// The thread counts asked for; otherwise one and all cores.
fn thread_counts(args: &BenchArgs) -> Vec<NonZeroUsize> {
    if !args.threads.is_empty() {
        return args.threads.clone();
    }
    let all = NonZeroUsize::new(ComputeArgs::default().threads()).unwrap_or(NonZeroUsize::MIN);
    let mut counts = vec![NonZeroUsize::MIN, all];
    counts.dedup();
    counts
}

/// What is asked for of the model: every choice of neurons in every format with every head and every budget.
fn choices(args: &BenchArgs) -> Vec<SparseArgs> {
    /// One that leaves all as it is, if there are none.
    fn each<T: Clone>(values: &[T]) -> Vec<Option<T>> {
        if values.is_empty() { vec![None] } else { values.iter().cloned().map(Some).collect() }
    }
    let formats = each(&args.ffn_lane);
    let heads = if args.head.is_empty() { &[HeadMode::Auto][..] } else { &args.head };
    let caches = if args.cache.is_empty() { &[CacheKind::default()][..] } else { &args.cache };
    let memory: Vec<MemoryArgs> = each(&args.memory_budget)
        .into_iter()
        .flat_map(|memory_budget| {
            caches.iter().map(move |cache| MemoryArgs { memory_budget, cache: *cache, lock: false })
        })
        .collect();
    let heads = heads.iter().flat_map(|head| memory.iter().map(move |memory| (*head, *memory)));
    let mut choices = Vec::new();
    for sparse in each(&args.sparse) {
        for ffn_lane in &formats {
            choices.extend(heads.clone().map(|(head, memory)| SparseArgs {
                sparse: sparse.clone(),
                head,
                brief: false,
                activation: args.activation,
                ffn_lane: *ffn_lane,
                memory,
            }));
        }
    }
    choices
}

fn candidate(args: &BenchArgs, threads: NonZeroUsize, choice: SparseArgs) -> anyhow::Result<Candidate> {
    let compute = ComputeArgs { threads: Some(threads) };
    let loaded = load::model(args.model.model.as_deref(), &choice, &compute, Placement::Measured)?;
    let needed = args.prompt.max(args.depth.saturating_add(args.tokens.get())).get();
    let limit = loaded.model.config().context;
    if needed > limit {
        return Err(exit::usage(format!("{needed} tokens do not fit the model's context of {limit}")));
    }
    // Before sessions, so that all tokens have it.
    let start = Instant::now();
    loaded.model.screen();
    let screen = start.elapsed();
    let session = Session::new(&loaded.model, needed)?;
    Ok(Candidate { choice, loaded, screen, session, rounds: Vec::new() })
}

/// The tokens of the decoded sequence, or of the prompt if that is longer. With all neurons and the whole head, what they
/// are has no influence on the time.
fn ids(args: &BenchArgs, candidates: &[Candidate]) -> anyhow::Result<Vec<u32>> {
    let decoded = args.depth.get() + args.tokens.get();
    let model = &candidates[0].loaded.model;
    let mut ids = Vec::new();
    if let Some(file) = &args.text {
        let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
        ids = model.tokenizer().encode(&input::file(file)?, options)?;
        anyhow::ensure!(ids.len() >= decoded, "the text has {} tokens, fewer than {decoded}", ids.len());
        ids.truncate(decoded);
    } else if candidates.iter().any(|c| !c.loaded.is_dense() || c.loaded.model.has_screen()) {
        let mut session = Session::new(model, decoded)?;
        let start = model.tokenizer().bos().unwrap_or(0);
        let options = GenerateOptions::new(decoded - 1).ignore_end(true);
        ids.push(start);
        ids.extend(generate(&mut session, &[start], &options, |_| ControlFlow::Continue(()))?.tokens);
    }
    let wanted = decoded.max(args.prompt.get());
    ids.extend((ids.len()..wanted).map(|i| (i * 7919 % model.vocab_len()) as u32));
    Ok(ids)
}

impl Candidate {
    fn round(&mut self, args: &BenchArgs, ids: &[u32], memory: &mut ReadBandwidth) -> anyhow::Result<()> {
        let mut sampler = Sampler::new(SamplerConfig::greedy());

        self.session.clear();
        let start = Instant::now();
        self.session.forward(&ids[..args.prompt.get()])?;
        let prefill = start.elapsed();

        self.session.clear();
        let (start_of_text, rest) = ids.split_at(args.depth.get());
        sampler.sample(self.session.forward(start_of_text)?, &[]);
        let before = self.session.times().feed_forward;
        let start = Instant::now();
        for token in &rest[..args.tokens.get()] {
            // All candidates read the same text; choosing a token belongs to the work.
            let logits = self.session.candidates(&[*token], &sampler, &[])?;
            sampler.sample(logits, &[]);
        }
        let decode = start.elapsed();
        let ffn = self.session.times().feed_forward - before;
        let read = memory.pass(&self.loaded.model.compute().pool);
        self.rounds.push(Round { prefill, decode, ffn, read });
        Ok(())
    }

    /// The figures, compared with those of `first`.
    fn figures(&self, args: &BenchArgs, first: &Self, read_bytes: usize) -> Figures {
        let tokens = args.tokens.get() as f64;
        let model = &self.loaded.model;
        let bytes_per_token = self.session.bytes_per_token();
        let counts = || model.feed_forwards().zip(self.session.ffn_counts());
        let used: f64 = counts().map(|(f, c)| c.down as f64 / c.tokens as f64 / f.neurons() as f64).sum();
        let ratio = |f: fn(&Round, &Round) -> f64| {
            Spread::new(self.rounds.iter().zip(&first.rounds).map(|(own, first)| f(own, first)))
        };
        let gb = |bytes: f64, time: Duration| bytes / 1e9 / time.as_secs_f64();
        let decode = |r: &Round| gb(tokens * bytes_per_token as f64, r.decode);
        let read = |r: &Round| gb(read_bytes as f64, r.read);
        let spread = |f: &dyn Fn(&Round) -> f64| Spread::new(self.rounds.iter().map(f));
        Figures {
            threads: model.compute().pool.threads(),
            sparse: self.choice.name(),
            load_ms: ms(self.loaded.time),
            screen_ms: ms(self.screen),
            interleaving: self.loaded.interleaving,
            bytes_per_token,
            ffn_bytes_per_token: counts().map(|(_, c)| c.bytes as f64 / c.tokens as f64).sum(),
            skipped: 1.0 - used / model.feed_forwards().len() as f64,
            ffn_ms_per_token: spread(&|r| ms(r.ffn) / tokens),
            decode_gain: ratio(|own, first| first.decode.as_secs_f64() / own.decode.as_secs_f64()),
            ffn_time_ratio: ratio(|own, first| own.ffn.as_secs_f64() / first.ffn.as_secs_f64()),
            prefill_tokens_per_s: spread(&|r| args.prompt.get() as f64 / r.prefill.as_secs_f64()),
            decode_tokens_per_s: spread(&|r| tokens / r.decode.as_secs_f64()),
            decode_gb_per_s: spread(&decode),
            read_gb_per_s: spread(&read),
            roofline: spread(&|r| decode(r) / read(r)),
        }
    }
}

impl<'a> Report<'a> {
    fn new(args: &BenchArgs, candidates: &'a [Candidate], read_bytes: usize) -> Self {
        let first = &candidates[0].loaded;
        let choices = choices(args).len();
        Self {
            model: &first.name,
            level: first.model.compute().kernels.level().name(),
            prompt: args.prompt.get(),
            tokens: args.tokens.get(),
            depth: args.depth.get(),
            bytes_per_token: first.model.bytes_per_token(),
            interrupted: candidates[0].rounds.len() < args.rounds.get(),
            threads: candidates
                .chunks(choices)
                .flat_map(|alike| alike.iter().map(|c| c.figures(args, &alike[0], read_bytes)))
                .collect(),
        }
    }
}

fn print(report: &Report<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{}, {}, {:.1} MB of weights per token\n",
        output::for_terminal(report.model),
        report.level,
        report.bytes_per_token as f64 / 1e6
    )?;
    let prefill = format!(">PREFILL OF {}", report.prompt);
    let header = [">THREADS", &prefill, ">DECODE", ">SPREAD", ">WEIGHTS", ">MEMORY", ">OF ROOFLINE"];
    let rows = report.threads.iter().map(|f| {
        let decode = &f.decode_tokens_per_s;
        [
            f.threads.to_string(),
            format!("{:.0} tokens/s", f.prefill_tokens_per_s.median),
            format!("{:.1} tokens/s", decode.median),
            format!("{:.1}..{:.1}", decode.min, decode.max),
            format!("{:.1} GB/s", f.decode_gb_per_s.median),
            format!("{:.1} GB/s", f.read_gb_per_s.median),
            format!("{:.0} %", 100.0 * f.roofline.median),
        ]
    });
    writeln!(out, "{}", output::table(header, rows).trim_fmt()).context("cannot print")?;
    if report.threads.iter().all(|f| f.sparse.is_none()) {
        return Ok(());
    }
    let header = [
        ">THREADS",
        "LEFT OUT",
        ">NEURONS",
        ">FFN BYTES",
        ">FFN TIME",
        ">OVER THE FIRST",
        ">SPREAD",
        ">DECODE",
        ">OVER THE FIRST",
        ">SPREAD",
    ];
    let range = |s: &Spread| format!("{:.2}..{:.2}", s.min, s.max);
    let rows = report.threads.iter().map(|f| {
        [
            f.threads.to_string(),
            f.sparse.clone().unwrap_or_default(),
            output::percent(f.skipped),
            format!("{:.1} KB", f.ffn_bytes_per_token / 1e3),
            format!("{:.3} ms", f.ffn_ms_per_token.median),
            format!("{:.2}", f.ffn_time_ratio.median),
            range(&f.ffn_time_ratio),
            format!("{:.1} tokens/s", f.decode_tokens_per_s.median),
            format!("{:.2}", f.decode_gain.median),
            range(&f.decode_gain),
        ]
    });
    writeln!(out, "\n{}", output::table(header, rows).trim_fmt()).context("cannot print")
}

/// Rounds done; nothing when stderr is no terminal.
fn bar(rounds: usize) -> ProgressBar {
    let bar = ProgressBar::new(rounds as u64);
    // The template is a constant without faults; an unstyled bar would do as well.
    if let Ok(style) = ProgressStyle::with_template("round {pos}/{len} {wide_bar:.dim} {eta} left") {
        bar.set_style(style);
    }
    bar
}
