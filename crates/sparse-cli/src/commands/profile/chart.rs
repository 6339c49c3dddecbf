//! The curves as an SVG picture.

use std::error::Error;
use std::io::Write;
use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;
use sparse_calibrate::SHARES;
use sparse_gguf::{PendingFile, Sink};

use super::Report;

const SIZE: (u32, u32) = (860, 560);
const PER_TOKEN: RGBColor = RGBColor(0x1b, 0x6c, 0xa8);
const HOT_SET: RGBColor = RGBColor(0xc8, 0x55, 0x3d);

/// Writes the chart to `path`: the layers in pale lines, their mean in bold ones.
pub(super) fn write(path: &Path, report: &Report<'_>) -> anyhow::Result<()> {
    let mut svg = String::new();
    draw(&mut svg, report).map_err(|e| anyhow!("cannot draw the chart: {e}"))?;
    let mut file = PendingFile::create(path)?;
    file.write_all(svg.as_bytes())?;
    Ok(file.commit()?)
}

fn draw(svg: &mut String, report: &Report<'_>) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(format!("Activation locality of {}", report.model), ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..100.0, 0.0..100.0)?;
    let format = |v: &f64| format!("{v:.0} %");
    chart
        .configure_mesh()
        .x_desc("heaviest neurons")
        .y_desc("share of the mass")
        .x_label_formatter(&format)
        .y_label_formatter(&format)
        .light_line_style(WHITE)
        .draw()?;
    let line = |curve: &[f64]| -> Vec<(f64, f64)> {
        let points = SHARES.iter().zip(curve).map(|(s, m)| (100.0 * s, 100.0 * m));
        [(0.0, 0.0)].into_iter().chain(points).chain([(100.0, 100.0)]).collect()
    };
    for layer in report.layers {
        chart.draw_series(LineSeries::new(line(&layer.across_tokens), HOT_SET.mix(0.18)))?;
        chart.draw_series(LineSeries::new(line(&layer.per_token), PER_TOKEN.mix(0.18)))?;
    }
    for (curve, color, label) in [
        (&report.per_token, PER_TOKEN, "chosen for each token"),
        (&report.across_tokens, HOT_SET, "the same for all tokens (hot set)"),
    ] {
        chart
            .draw_series(LineSeries::new(line(curve), color.stroke_width(3)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(3)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.3))
        .label_font(("sans-serif", 15))
        .draw()?;
    root.present()?;
    Ok(())
}
