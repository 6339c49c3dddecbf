//! What calibration prints.

use std::io::{self, Write};

use sparse_calibrate::{HeadCalibration, HeadReport, LayerReport, Speed};
use sparse_model::sidecar::MeasuredLoss;

use super::Report;
use crate::output::{self, percent};

pub(super) fn print(report: &Report<'_>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    if !report.candidates.is_empty() {
        print_ffn(&mut out, report)?;
    }
    if let Some(head) = report.head {
        print_head(&mut out, head)?;
    }
    writeln!(out, "{}", report.verdict)?;
    Ok(())
}

/// The screens of the head.
fn print_head(out: &mut impl Write, head: &HeadCalibration) -> anyhow::Result<()> {
    screens(out, &head.candidates)?;
    if let Some(speed) = &head.speed {
        print_speed(out, "whole head", "screened", speed)?;
    }
    if let Some(c) = &head.continuations {
        writeln!(out, "{} of {} greedy continuations of {} tokens are the same.", c.same, c.texts, c.tokens)?;
    }
    writeln!(out)?;
    Ok(())
}

/// A margin; the largest number puts all rows in question, so that the whole head is computed.
fn margin(margin: f32) -> String {
    if margin < f32::MAX { format!("{margin:.2}") } else { "all".into() }
}

/// A table of screens.
pub(in crate::commands) fn screens(out: &mut impl Write, screens: &[HeadReport]) -> anyhow::Result<()> {
    let header = [
        "SCREEN",
        ">MARGINS",
        ">SAME TOP",
        ">MISSED MASS",
        ">BYTES",
        "",
        ">ROWS",
        ">WHOLE",
        ">TOP-P: BYTES",
        ">ROWS",
        ">WHOLE",
    ];
    let rows = screens.iter().map(|s| {
        [
            s.name.clone(),
            format!("{} {}", margin(s.margin_best), margin(s.margin_mass)),
            format!("{:.3} %", 100.0 * s.agreement),
            format!("{:.3} %", 100.0 * s.missed_mass),
            percent(s.best.bytes),
            format!("(scan {})", percent(s.screen_share)),
            format!("{:.0}", s.best.rows),
            format!("{:.2} %", 100.0 * s.best.fallbacks),
            percent(s.mass.bytes),
            format!("{:.0}", s.mass.rows),
            format!("{:.2} %", 100.0 * s.mass.fallbacks),
        ]
    });
    writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
    let tokens = screens.first().map_or(0, |s| s.tokens);
    writeln!(out, "{tokens} tokens that nothing was fitted to; bytes are shares of the head's.")?;
    Ok(())
}

/// A layer of the chosen configuration: number, selector, densities of `up` and `down`, recall,
/// kept energy, bytes.
pub(super) fn layer(l: &LayerReport) -> [String; 8] {
    [
        l.layer.to_string(),
        l.selector.to_owned(),
        percent(l.up_density),
        percent(l.down_density),
        percent(l.recall),
        percent(l.kept_energy),
        format!("{:.1}", l.bytes / 1e3),
        percent(l.bytes / l.dense_bytes as f64),
    ]
}

/// What was tried for the feed-forward layers.
fn print_ffn(out: &mut impl Write, report: &Report<'_>) -> anyhow::Result<()> {
    let header = ["TRIED", ">LOSS", ">AT MOST", ">OF DENSE BYTES", ">OF DENSE TIME"];
    let rows = report.candidates.iter().map(|c| {
        let percent2 = |share: f64| format!("{:.2} %", 100.0 * share);
        match &c.loss {
            Some(loss) => [
                c.name.clone(),
                percent2(loss.increase()),
                percent2(loss.upper()),
                percent(c.bytes_share),
                percent(c.time_share),
            ],
            None if c.note.is_some() => [c.name.clone(), "-".into(), "-".into(), "-".into(), "-".into()],
            None => [c.name.clone(), "-".into(), "-".into(), percent(c.bytes_share), percent(c.time_share)],
        }
    });
    writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
    let mut notes = false;
    for (name, note) in report.candidates.iter().filter_map(|c| Some((&c.name, c.note.as_ref()?))) {
        writeln!(out, "{name}: {note}")?;
        notes = true;
    }
    if notes {
        writeln!(out)?;
    }
    if let Some(chosen) = report.chosen {
        let header = [
            "LAYER",
            "SELECTOR",
            ">GATE",
            ">UP",
            ">DOWN",
            ">RECALL",
            ">KEPT ENERGY",
            ">KL",
            ">KB/TOKEN",
            ">OF DENSE",
        ];
        let rows = chosen.layers.iter().map(|l| {
            let [layer, selector, rest @ ..] = layer(l);
            let [up, down, recall, energy, bytes, share] = rest;
            let kl = l.kl.map_or_else(|| "-".into(), |kl| format!("{kl:.5}"));
            [layer, selector, percent(l.gate_density), up, down, recall, energy, kl, bytes, share]
        });
        writeln!(out, "{}\n", output::table(header, rows).trim_fmt())?;
        print_loss(out, &chosen.loss)?;
        print_speed(out, "dense", "sparse", &chosen.speed)?;
    }
    writeln!(out)?;
    Ok(())
}

pub(super) fn print_loss(out: &mut impl Write, loss: &MeasuredLoss) -> io::Result<()> {
    let (low, high) = loss.perplexity_interval();
    writeln!(
        out,
        "On {} tokens that nothing was fitted to: KL {:.4} ± {:.4}, same top token {:.1} %, perplexity {:+.2} % ({:+.2} to {:+.2} %).",
        loss.tokens,
        loss.kl,
        1.96 * loss.kl_error,
        100.0 * loss.top1,
        100.0 * loss.perplexity_increase,
        100.0 * low,
        100.0 * high
    )?;
    if let Some(own) = &loss.own {
        writeln!(
            out,
            "On {} tokens that the model made up: KL {:.4} ± {:.4}. Perplexity of the dense model: {:.1} on the text, {:.1} on its own.",
            own.tokens,
            own.kl,
            1.96 * own.kl_error,
            own.text_perplexity,
            own.perplexity
        )?;
    }
    Ok(())
}

/// `before` and `after` say what was timed by turns.
pub(super) fn print_speed(out: &mut impl Write, before: &str, after: &str, speed: &Speed) -> io::Result<()> {
    writeln!(
        out,
        "Decoding with {} threads: {before} {:.1} tokens/s, {after} {:.1}, ratio {:.2} ({:.2} to {:.2}, 95 % interval of {} rounds).",
        speed.threads,
        speed.dense_tokens_per_s,
        speed.sparse_tokens_per_s,
        speed.gain,
        speed.lowest_gain,
        speed.highest_gain,
        speed.rounds
    )
}
