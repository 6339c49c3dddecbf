//! Which neurons fire, token by token, as an SVG picture.

use std::io::Write;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use sparse_gguf::{PendingFile, Sink};
use sparse_model::{Model, Session};
use svg::Document;
use svg::node::element::{Path, Rectangle, Text};

use crate::exit;

/// Tokens that fit beside each other.
const MOST_TOKENS: usize = 48;
const WIDTH: usize = 880;
/// Room for the names of layers.
const LEFT: usize = 72;
const TOP: usize = 56;
/// Height of all layers together, unless there are so many that each gets [`LEAST`].
const HEIGHT: usize = 420;
const LEAST: usize = 9;
/// Height of the neurons that share a cell.
const CELL: usize = 3;
/// Cells of a token beside each other.
const ACROSS: usize = 3;
const GAP: usize = 4;

const BACKGROUND: &str = "#10151f";
const IDLE: &str = "#1b2330";
const TEXT: &str = "#d7dde8";
const FAINT: &str = "#8b96a8";
/// Colors of neurons by how strongly they fire, from the weakest.
const HEAT: [&str; 3] = ["#5a2d1a", "#d9722c", "#ffd98a"];
/// Shares of a layer's strongest value above which the second and the third color are used.
const STEPS: [f32; 2] = [0.12, 0.35];

/// What fired while a text was generated.
pub(super) struct Picture {
    file: PendingFile,
    layers: usize,
    bins: usize,
    columns: Vec<Column>,
}

/// One token.
struct Column {
    text: String,
    /// The strongest value of each bin, `[layers x bins]`.
    strongest: Vec<f32>,
    fired: usize,
    neurons: usize,
}

impl Picture {
    /// A picture that will be written to `path`.
    ///
    /// # Errors
    /// If no file can be made there, or the model has only experts, of whose neurons nothing is kept: better now than
    /// after the text.
    pub(super) fn new(model: &Model, path: &FilePath) -> anyhow::Result<Self> {
        if model.ffns().next().is_none() {
            return Err(exit::usage("--neurons is for models without experts"));
        }
        let file = PendingFile::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
        let layers = model.feed_forwards().count();
        let bins = (HEIGHT / layers.max(1)).max(LEAST) / CELL * ACROSS;
        Ok(Self { file, layers, bins, columns: Vec::new() })
    }

    /// Takes what fired while the next token, `text`, was computed; nothing if that was not kept.
    pub(super) fn token(&mut self, text: &str, layers: &[Vec<f32>]) {
        let neurons = layers.iter().map(Vec::len).sum();
        if self.columns.len() == MOST_TOKENS || neurons == 0 {
            return;
        }
        let mut strongest = Vec::with_capacity(self.layers * self.bins);
        for layer in layers {
            let edge = |bin: usize| bin * layer.len() / self.bins;
            let bin = |i| layer[edge(i)..edge(i + 1)].iter().fold(0.0, |m: f32, h| m.max(h.abs()));
            strongest.extend((0..self.bins).map(bin));
        }
        let fired = layers.iter().flatten().filter(|h| **h != 0.0).count();
        if fired > 0 {
            self.columns.push(Column { text: text.to_owned(), strongest, fired, neurons });
        }
    }

    /// Writes the picture, whole or not at all. `times` are those of the feed-forward layers, with all neurons and as
    /// computed.
    pub(super) fn write(mut self, model: &str, times: [Duration; 2]) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.columns.is_empty(),
            "no token was computed by itself, so there is nothing to draw"
        );
        let svg = self.draw(model, times);
        let written = self.file.write_all(svg.as_bytes()).and_then(|()| self.file.commit());
        written.context("cannot write the picture")
    }

    fn draw(&self, model: &str, times: [Duration; 2]) -> String {
        let (band, cell) =
            (self.bins / ACROSS * CELL, (WIDTH - LEFT - 16) / self.columns.len().max(24) / ACROSS);
        let width = cell * ACROSS;
        let bottom = TOP + self.layers * (band + GAP);
        let height = bottom + 150;
        let sum = |f: fn(&Column) -> usize| self.columns.iter().map(f).sum::<usize>() as f64;
        let share = 100.0 * sum(|c| c.fired) / sum(|c| c.neurons);
        let mut picture = Document::new()
            .set("viewBox", (0, 0, WIDTH, height))
            .set("font-family", "system-ui, sans-serif")
            .set("role", "img")
            .set("aria-label", format!("{share:.1} percent of the neurons of {model} fire for a token"))
            .add(rectangle((0, 0), (WIDTH, height), BACKGROUND).set("rx", 8))
            .add(text((16, 26), 16, TEXT, format!("Neurons of {model}: {share:.1} % fire for a token")))
            .add(text(
                (16, 44),
                12,
                FAINT,
                "A column is a token, a cell some neighboring neurons; bright ones fire strongly.",
            ));
        let mut heat = [(); 3].map(|()| String::new());
        for layer in 0..self.layers {
            let top = TOP + layer * (band + GAP);
            let idle = rectangle((LEFT, top), (width * self.columns.len(), band), IDLE);
            picture =
                picture.add(idle).add(text((16, top + band / 2 + 4), 11, FAINT, format!("layer {layer}")));
            let of_layer =
                |c: &Column| layer * self.bins..layer * self.bins + c.strongest.len().min(self.bins);
            let most =
                self.columns.iter().flat_map(|c| &c.strongest[of_layer(c)]).fold(0.0, |m: f32, h| m.max(*h));
            for (x, column) in self.columns.iter().enumerate() {
                for (bin, h) in
                    column.strongest[of_layer(column)].iter().enumerate().filter(|(_, h)| **h > 0.0)
                {
                    let (x, y) =
                        (LEFT + x * width + bin % ACROSS * cell, top + bin / ACROSS * CELL + CELL / 2);
                    let step = STEPS.iter().filter(|step| *h > **step * most).count();
                    // A line as thick as the cell is high.
                    heat[step] += &format!("M{x} {y}.5h{cell}");
                }
            }
        }
        for (cells, color) in heat.iter().zip(HEAT) {
            picture = picture
                .add(Path::new().set("d", cells.as_str()).set("stroke", color).set("stroke-width", CELL));
        }
        for (x, column) in self.columns.iter().enumerate() {
            let (x, y) = (LEFT + x * width + width / 2, bottom + 8);
            let word = text((x, y), 11, TEXT, column.text.trim().replace('\n', "\u{21b5}"));
            picture = picture.add(word.set("transform", format!("rotate(55 {x} {y})")));
        }
        let longest = times[0].max(times[1]).as_secs_f64();
        for (i, (name, time)) in ["all neurons", "those that matter"].into_iter().zip(times).enumerate() {
            let y = bottom + 92 + 24 * i;
            let length = ((WIDTH - 420) as f64 * time.as_secs_f64() / longest) as usize;
            let label = format!("{:.0} \u{b5}s", time.as_secs_f64() * 1e6);
            picture = picture
                .add(text((16, y + 12), 12, FAINT, format!("feed-forward, {name}")))
                .add(
                    rectangle((220, y), (length.max(1), 16), if i == 0 { FAINT } else { HEAT[1] })
                        .set("rx", 3),
                )
                .add(text((228 + length, y + 12), 12, TEXT, label));
        }
        picture.to_string()
    }
}

fn rectangle((x, y): (usize, usize), (width, height): (usize, usize), fill: &str) -> Rectangle {
    Rectangle::new().set("x", x).set("y", y).set("width", width).set("height", height).set("fill", fill)
}

fn text((x, y): (usize, usize), size: usize, fill: &str, content: impl Into<String>) -> Text {
    Text::new(content).set("x", x).set("y", y).set("font-size", size).set("fill", fill)
}

/// How long the feed-forward layers of `dense` and of `sparse` take for a token of a text, as a median: token by token in
/// turn. The first `known` tokens are only read.
pub(super) fn times(
    dense: &Arc<Model>,
    sparse: &Arc<Model>,
    tokens: &[u32],
    known: usize,
) -> anyhow::Result<[Duration; 2]> {
    let (before, after) = tokens.split_at(known);
    let mut sessions = [Session::new(dense, tokens.len())?, Session::new(sparse, tokens.len())?];
    let mut times = [Vec::new(), Vec::new()];
    for session in &mut sessions {
        session.forward(before)?;
    }
    for token in after {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            let start = session.times().feed_forward;
            session.forward(&[*token])?;
            times.push(session.times().feed_forward - start);
        }
    }
    Ok(times.map(|mut times| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }))
}
