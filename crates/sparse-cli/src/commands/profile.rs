//! `sparse profile`.

mod chart;

use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use sparse_calibrate::{Error, LayerProfile, SHARES, profile};
use sparse_model::tokenizer::EncodeOptions;
use sparse_model::{HeadMode, Placement};

use crate::args::{ProfileArgs, Sparse, SparseArgs};
use crate::exit::End;
use crate::output::{percent, table};
use crate::{input, interrupt, load, output, progress};

/// Mass whose neurons are counted.
const MOST: f64 = 0.9;
/// Width of the bars in the terminal.
const BAR: usize = 40;

#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    /// Shares of the neurons that the curves are given at.
    shares: [f64; SHARES.len()],
    /// Means of the layers' curves.
    per_token: Vec<f64>,
    across_tokens: Vec<f64>,
    layers: &'a [LayerProfile],
}

pub(crate) fn run(args: &ProfileArgs) -> anyhow::Result<End> {
    let text = input::file(&args.text)?;
    let all = SparseArgs {
        sparse: Some(Sparse::None),
        head: HeadMode::Dense,
        brief: true,
        activation: args.activation,
        ..SparseArgs::default()
    };
    let loaded = load::model(args.model.model.as_deref(), &all, &args.compute, Placement::AsCalibrated)?;
    let options = EncodeOptions { add_bos: true, add_eos: false, parse_special: true };
    let tokens = loaded.model.tokenizer().encode(&text, options)?;
    interrupt::handle()?;
    let mut bar = progress::Bar::default();
    let result = profile(&loaded.model, &tokens, args.ctx, &mut bar);
    bar.finish();
    let layers = match result {
        Err(Error::Interrupted) => return Ok(End::Interrupted),
        other => other.with_context(|| format!("cannot profile {}", loaded.name))?,
    };
    let report = Report {
        model: &loaded.name,
        shares: SHARES,
        per_token: mean(&layers, |l| &l.per_token),
        across_tokens: mean(&layers, |l| &l.across_tokens),
        layers: &layers,
    };
    if let Some(path) = &args.svg {
        chart::write(path, &report).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    match args.json {
        true => output::json(&report)?,
        false => print(&report, args.svg.as_deref())?,
    }
    Ok(End::Finished)
}

fn mean<'a>(layers: &'a [LayerProfile], curve: impl Fn(&'a LayerProfile) -> &'a [f64]) -> Vec<f64> {
    let sum = |i: usize| layers.iter().map(|l| curve(l)[i]).sum::<f64>();
    (0..SHARES.len()).map(|i| sum(i) / layers.len() as f64).collect()
}

/// The share of the neurons that has this share of the mass, by lines between the points of the curve.
fn neurons_for(mass: f64, curve: &[f64]) -> f64 {
    let mut before = (0.0, 0.0);
    for point in SHARES.iter().copied().zip(curve.iter().copied()).chain([(1.0, 1.0)]) {
        if point.1 >= mass {
            let part = (mass - before.1) / (point.1 - before.1).max(f64::MIN_POSITIVE);
            return before.0 + part * (point.0 - before.0);
        }
        before = point;
    }
    1.0
}

fn print(report: &Report<'_>, svg: Option<&Path>) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{}: mass of the heaviest neurons, mean over layers\n",
        output::for_terminal(report.model)
    )?;
    let header = [">NEURONS", ">CHOSEN PER TOKEN", "", ">FIXED HOT SET", ""];
    let bar = |share: f64| "█".repeat((share * BAR as f64 / 2.0).round() as usize);
    let rows = (0..SHARES.len()).map(|i| {
        let (token, fixed) = (report.per_token[i], report.across_tokens[i]);
        [percent(SHARES[i]), percent(token), bar(token), percent(fixed), bar(fixed)]
    });
    writeln!(out, "{}\n", table(header, rows).trim_fmt())?;
    let header = [
        "LAYER",
        ">NEURONS",
        ">EXACT ZEROS",
        ">90 % PER TOKEN",
        ">90 % HOT SET",
        ">OVERLAP",
        ">BY CHANCE",
        ">NEVER ACTIVE",
        "HOTTEST",
    ];
    let rows = report.layers.iter().map(|l| {
        let hottest: Vec<String> = l.order.iter().take(4).map(usize::to_string).collect();
        [
            l.layer.to_string(),
            l.neurons.to_string(),
            percent(l.zeros),
            percent(neurons_for(MOST, &l.per_token)),
            percent(neurons_for(MOST, &l.across_tokens)),
            percent(l.overlap),
            percent(l.chance),
            percent(l.never),
            hottest.join(" "),
        ]
    });
    writeln!(out, "{}", table(header, rows).trim_fmt())?;
    writeln!(
        out,
        "\n90 %: the share of the neurons that has 90 % of the mass. Overlap: active neurons that were active for the token\nbefore (not zero, or the heaviest 30 %). Never active: the cold ones, active for no token.\n--json has all neurons, from the hottest to the coldest."
    )?;
    if let Some(path) = svg {
        writeln!(out, "chart in {}", path.display())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neurons_are_found_between_points() {
        let even: Vec<f64> = SHARES.to_vec();
        assert!((neurons_for(0.9, &even) - 0.9).abs() < 1e-9);
        assert!((neurons_for(0.95, &even) - 0.95).abs() < 1e-9);
        let steep: Vec<f64> = SHARES.iter().map(|s| (10.0 * s).min(1.0)).collect();
        assert!((neurons_for(0.9, &steep) - 0.09).abs() < 1e-9);
    }
}
