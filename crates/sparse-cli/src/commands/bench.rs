//! `sparse bench`.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use sparse_core::ReadBandwidth;
use sparse_model::{Sampler, SamplerConfig, Session};

use crate::args::{BenchArgs, ComputeArgs};
use crate::exit::{self, End};
use crate::load::{self, Loaded};
use crate::output::ms;
use crate::{interrupt, output};

/// Memory read to learn the bandwidth: far more than the caches hold.
const BANDWIDTH_BYTES: usize = 512 << 20;

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    level: &'static str,
    prompt: usize,
    tokens: usize,
    depth: usize,
    /// Weight bytes that decoding a token reads, on average.
    bytes_per_token: usize,
    interrupted: bool,
    threads: Vec<Figures>,
}

/// Figures of one thread count.
#[derive(Serialize)]
struct Figures {
    threads: usize,
    load_ms: f64,
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
    read: Duration,
}

/// One thread count in the making.
struct Candidate {
    loaded: Loaded,
    session: Session,
    rounds: Vec<Round>,
}

pub(crate) fn run(args: &BenchArgs) -> anyhow::Result<End> {
    interrupt::handle()?;
    let mut candidates = thread_counts(args)
        .into_iter()
        .map(|threads| candidate(args, threads))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut memory = ReadBandwidth::new(BANDWIDTH_BYTES);
    let bar = bar(args.rounds.get() * candidates.len());
    // Thread counts take turns, so that a slow moment of the machine does not hit one of them alone.
    for _ in 0..args.rounds.get() {
        for candidate in &mut candidates {
            candidate.round(args, &mut memory)?;
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

fn candidate(args: &BenchArgs, threads: NonZeroUsize) -> anyhow::Result<Candidate> {
    let loaded = load::model(&args.model, Some(&args.sparse), &ComputeArgs { threads: Some(threads) })?;
    let needed = args.prompt.max(args.depth.saturating_add(args.tokens.get())).get();
    let limit = loaded.model.config().context;
    if needed > limit {
        return Err(exit::usage(format!("{needed} tokens do not fit the model's context of {limit}")));
    }
    let session = Session::new(&loaded.model, needed)?;
    Ok(Candidate { loaded, session, rounds: Vec::new() })
}

impl Candidate {
    fn round(&mut self, args: &BenchArgs, memory: &mut ReadBandwidth) -> anyhow::Result<()> {
        let vocab = self.loaded.model.vocab_len();
        // Any tokens do: what they are has no influence on the time.
        let ids: Vec<u32> =
            (0..args.prompt.max(args.depth).get()).map(|i| (i * 7919 % vocab) as u32).collect();
        let mut sampler = Sampler::new(SamplerConfig::greedy());

        self.session.truncate(0);
        let start = Instant::now();
        self.session.forward(&ids[..args.prompt.get()])?;
        let prefill = start.elapsed();

        self.session.truncate(0);
        let logits = self.session.candidates(&ids[..args.depth.get()], &sampler, &[])?;
        let mut token = sampler.sample(logits, &[]);
        let start = Instant::now();
        for _ in 0..args.tokens.get() {
            let logits = self.session.candidates(&[token], &sampler, &[])?;
            token = sampler.sample(logits, &[]);
        }
        let decode = start.elapsed();
        let read = memory.pass(&self.loaded.model.compute().pool);
        self.rounds.push(Round { prefill, decode, read });
        Ok(())
    }

    fn figures(&self, args: &BenchArgs, bytes_per_token: usize, read_bytes: usize) -> Figures {
        let tokens = args.tokens.get() as f64;
        let gb = |bytes: f64, time: Duration| bytes / 1e9 / time.as_secs_f64();
        let decode = |r: &Round| gb(tokens * bytes_per_token as f64, r.decode);
        let read = |r: &Round| gb(read_bytes as f64, r.read);
        let spread = |f: &dyn Fn(&Round) -> f64| Spread::new(self.rounds.iter().map(f));
        Figures {
            threads: self.loaded.model.compute().pool.threads(),
            load_ms: ms(self.loaded.time),
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
        let bytes_per_token = candidates[0].session.bytes_per_token();
        let figures = |c: &Candidate| c.figures(args, bytes_per_token, read_bytes);
        Self {
            model: &first.name,
            level: first.model.compute().kernels.level().name(),
            prompt: args.prompt.get(),
            tokens: args.tokens.get(),
            depth: args.depth.get(),
            bytes_per_token,
            interrupted: candidates[0].rounds.len() < args.rounds.get(),
            threads: candidates.iter().map(figures).collect(),
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
    writeln!(out, "{}", output::table(header, rows).trim_fmt()).context("cannot print")
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
