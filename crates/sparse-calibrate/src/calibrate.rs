//! The whole calibration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sparse_core::Selector;
use sparse_gguf::Gguf;
use sparse_model::{Model, Sidecar};

use crate::error::one_network;
use crate::family::set_selectors;
use crate::options::Options;
use crate::progress::{Progress, Schedule};
use crate::report::Calibration;
use crate::text::Text;
use crate::windows::Windows;
use crate::{Error, ffn, head};

/// Share of the time that is kept for the head if both are looked at.
const HEAD_SHARE: f64 = 0.4;

/// Share of the time that making up text takes, as far as is known before.
const SAMPLING_SHARE: f64 = 0.05;

/// Chooses selectors and a screen of the head for the model in `gguf`, by `text`. A part of the
/// model that `options` leave out stays as `before` has it, but for lanes, which new selectors end:
/// they were chosen beside the old ones.
///
/// # Errors
/// If the text is too short, `before` is for another model, the model fails, or `progress` asks to
/// stop.
pub fn calibrate(
    gguf: &Gguf,
    before: Option<Sidecar>,
    text: Text<'_>,
    options: &Options,
    progress: &mut dyn Progress,
) -> Result<Calibration, Error> {
    let mut schedule = Schedule::new(progress, Instant::now() + options.time);
    let time = schedule.seconds_left();
    schedule.plan([("sampling", SAMPLING_SHARE * time), ("scoring", (0.5 - SAMPLING_SHARE) * time)]);
    let mut dense = Arc::new(Model::from_gguf(gguf, options.threads)?);
    if options.ffn {
        let advice = "; calibrate the head alone (--only head)";
        one_network(&dense, "calibration of neurons", advice)?;
    }
    let before = match before {
        Some(before) => before.check(gguf)?,
        None => Sidecar::of(gguf, &dense),
    };
    let networks = dense.ffns().count();
    set_selectors(&mut dense, vec![Selector::Dense; networks])?;
    let options =
        &Options { own_tokens: if options.ffn { options.own_tokens } else { 0 }, ..options.clone() };
    let windows = Windows::new(&dense, text, options, &mut schedule)?;
    drop(dense);
    let mut calibration = match options.ffn {
        true => {
            let reserve = if options.head { HEAD_SHARE } else { 0.0 };
            let mut part = schedule.part(Duration::from_secs_f64(reserve * schedule.seconds_left()));
            let ffn::Layers { candidates, chosen, concerns, sidecar } =
                ffn::calibrate(gguf, &windows, options, &mut part)?;
            Calibration { candidates, chosen, concerns, head: None, sidecar }
        }
        false => Calibration::of(before.clone()),
    };
    calibration.sidecar.screen = before.screen;
    if options.head {
        // With the neurons that will be left out.
        let plain = Sidecar { screen: None, loss: None, ..calibration.sidecar.clone() };
        let found = head::calibrate(gguf, &plain, &windows, options, &mut schedule)?;
        calibration.sidecar.screen = found.screen.clone();
        calibration.head = Some(found);
    }
    Ok(calibration)
}
