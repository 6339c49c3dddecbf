//! Drafts from the text itself: what followed the same tokens before may follow again.
//!
//! Drafted tokens are computed together with the one that waits, in little more than its time, each as if it came alone.
//! Those that are chosen all the same need no step of their own; so the text is what it is without drafts. Time decides
//! whether to draft: failed drafts may cost a small share of all time, successful ones earn further drafts.

use std::time::Duration;

/// Tokens that have to be the same, at most.
const MOST: usize = 4;
/// At least: as long as drafts have not paid, and then.
const LEAST: [usize; 2] = [3, 2];
/// First draft, and longest.
const LENGTH: (usize, usize) = (2, 15);
/// Share of the time that failed drafts may cost.
const BUDGET: f64 = 0.01;
/// Steps that failed drafts may cost beside that: short texts that repeat themselves gain, too.
const ADVANCE: f64 = 0.7;

/// Drafts for one text.
#[derive(Debug)]
pub(super) struct Lookup {
    /// Length of the next draft.
    length: usize,
    /// Time of a step with one token, smoothed, in seconds.
    step: Option<f64>,
    /// Time that a further token adds to a step, smoothed.
    further: Option<f64>,
    /// Time that drafts have saved, or cost if below zero, within the bounds of what is worth remembering.
    balance: f64,
    /// Time of all steps.
    total: f64,
}

impl Lookup {
    pub(super) fn new() -> Self {
        Self { length: LENGTH.0, step: None, further: None, balance: 0.0, total: 0.0 }
    }

    /// What may follow `history`, at most `most` tokens; nothing if it is not known or not worth it.
    pub(super) fn draft<'h>(&self, history: &'h [u32], most: usize) -> &'h [u32] {
        let Some(step) = self.step else { return &[] };
        let length = self.length.min(most);
        // As long as it is not known, a further token is taken to cost a third of a step.
        let cost = self.further.unwrap_or(step / 3.0) * length as f64;
        if self.balance + BUDGET * self.total + ADVANCE * step < cost {
            return &[];
        }
        let least = LEAST[usize::from(self.balance > 0.0)];
        let found = (least..=MOST).rev().find_map(|n| follower(history, n));
        found.map_or(&[], |at| &history[at..(at + length).min(history.len())])
    }

    /// A step with one token took so long.
    pub(super) fn single(&mut self, time: Duration) {
        let time = time.as_secs_f64();
        self.total += time;
        smooth(&mut self.step, time);
    }

    /// A step with `drafted` further tokens, of which `accepted` were chosen, took so long.
    pub(super) fn several(&mut self, drafted: usize, accepted: usize, time: Duration) {
        let (time, step) = (time.as_secs_f64(), self.step.unwrap_or_default());
        self.total += time;
        let extra = (time - step).max(0.0);
        smooth(&mut self.further, extra / drafted.max(1) as f64);
        // Drafts that paid long ago are no reason to go on with those that do not.
        self.balance = (self.balance + accepted as f64 * step - extra).min(8.0 * step);
        self.length = match accepted == drafted {
            true => (2 * self.length).min(LENGTH.1),
            false => (accepted + 1).clamp(2, LENGTH.1),
        };
    }
}

/// Where what last followed the last `n` tokens begins.
fn follower(history: &[u32], n: usize) -> Option<usize> {
    let at = history.len().checked_sub(n).filter(|at| *at > 0)?;
    let end = &history[at..];
    (n..history.len()).rev().find(|next| &history[next - n..*next] == end)
}

fn smooth(mean: &mut Option<f64>, value: f64) {
    *mean = Some(mean.map_or(value, |mean| 0.8 * mean + 0.2 * value));
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    #[test]
    fn drafts_are_what_followed_last_time() {
        assert_eq!(follower(&[1, 2, 3, 9, 1, 2, 4, 7, 1, 2], 2), Some(6));
        assert_eq!(follower(&[1, 2, 3], 2), None);
        // Repetitions overlap.
        assert_eq!(follower(&[5, 5, 5], 2), Some(2));
        assert_eq!(follower(&[], 2), None);
        assert_eq!(follower(&[1, 2], 2), None);
    }

    #[test]
    fn drafts_that_fail_stop_and_those_that_pay_grow() {
        let history = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3];
        let mut lookup = Lookup::new();
        assert!(lookup.draft(&history, 10).is_empty(), "nothing is known yet");
        for _ in 0..100 {
            lookup.single(STEP);
        }
        assert_eq!(lookup.draft(&history, 10), [4, 5]);
        assert_eq!(lookup.draft(&history, 1), [4]);
        assert!(lookup.draft(&[2, 3, 9, 1, 2, 3], 10).is_empty(), "two tokens are no reason to begin");
        // Failures, each of which costs a whole step.
        let (mut steps, mut failures) = (100, 0);
        for _ in 0..1000 {
            match lookup.draft(&history, 10).len() {
                0 => {
                    lookup.single(STEP);
                    steps += 1;
                }
                n => {
                    lookup.several(n, 0, 2 * STEP);
                    failures += 1;
                }
            }
        }
        assert!(f64::from(failures) <= 0.025 * f64::from(steps), "{failures} failures in {steps} steps");
        let mut lookup = Lookup::new();
        (0..100).for_each(|_| lookup.single(STEP));
        for _ in 0..5 {
            let n = lookup.draft(&history, 10).len();
            lookup.several(n, n, 11 * STEP / 10);
        }
        assert_eq!(lookup.draft(&history, 10).len(), 9);
        assert_eq!(lookup.draft(&[2, 3, 9, 1, 2, 3], 1), [9]);
    }
}
