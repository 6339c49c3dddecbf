//! `/metrics`: numbers in Prometheus' text format.

use std::fmt::Write;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use sparse_integration::{Histogram, Statistics};

use super::Shared;

pub(super) async fn answer(State(service): Shared) -> Response {
    let text = render(&service.backend.statistics());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn render(s: &Statistics) -> String {
    let mut out = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: f64| {
        // Writing to a string does not fail.
        let _ =
            write!(out, "# HELP sparse_{name} {help}\n# TYPE sparse_{name} {kind}\nsparse_{name} {value}\n");
    };
    add("requests_active", "gauge", "Texts that are being computed.", s.active as f64);
    add("requests_waiting", "gauge", "Texts that wait for their turn.", s.waiting as f64);
    add("requests_total", "counter", "Texts that are done.", s.texts as f64);
    add("requests_failed_total", "counter", "Requests that could not begin.", s.failed as f64);
    add(
        "requests_refused_total",
        "counter",
        "Requests that were refused because too many waited.",
        s.refused as f64,
    );
    add("prompt_tokens_total", "counter", "Tokens of prompts that were computed.", s.prompt_tokens as f64);
    add(
        "prompt_tokens_known_total",
        "counter",
        "Tokens of prompts that were known from others.",
        s.known_tokens as f64,
    );
    add("generated_tokens_total", "counter", "Tokens that were generated.", s.generated_tokens as f64);
    add("steps_total", "counter", "Steps, each with a token of some texts.", s.steps as f64);
    add("step_tokens_total", "counter", "Tokens in steps.", s.step_tokens as f64);
    add("step_seconds_total", "counter", "Time of steps.", s.step_time.as_secs_f64());
    add("neurons_skipped_ratio", "gauge", "Share of the neurons that were skipped in steps.", s.skipped());
    if let Some(store) = &s.store {
        add(
            "stored_hits_total",
            "counter",
            "Experts or neurons that were in memory when a token needed them.",
            store.hits as f64,
        );
        add(
            "stored_misses_total",
            "counter",
            "Experts or neurons that had to be waited for.",
            store.misses as f64,
        );
        add(
            "stored_prefetched_total",
            "counter",
            "Experts or neurons that were read ahead.",
            store.prefetched as f64,
        );
        add(
            "stored_read_bytes_total",
            "counter",
            "Bytes of experts or neurons that were read.",
            store.read_bytes as f64,
        );
        add(
            "stored_stalled_seconds_total",
            "counter",
            "Time waited for experts or neurons.",
            store.stalled.as_secs_f64(),
        );
        add(
            "stored_resident_bytes",
            "gauge",
            "Bytes of the experts or neurons in memory.",
            store.resident_bytes as f64,
        );
        add(
            "stored_budget_bytes",
            "gauge",
            "Bytes that experts or neurons may take.",
            store.budget_bytes as f64,
        );
    }
    histogram(&mut out, "time_to_first_token_seconds", "From a request to its first token.", &s.first_token);
    histogram(
        &mut out,
        "queue_seconds",
        "From a request to the beginning of its computation.",
        &s.queue_time,
    );
    out
}

fn histogram(out: &mut String, name: &str, help: &str, h: &Histogram) {
    let _ = write!(out, "# HELP sparse_{name} {help}\n# TYPE sparse_{name} histogram\n");
    for (bound, count) in Histogram::BOUNDS.iter().zip(h.counts) {
        let _ = writeln!(out, "sparse_{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let _ = write!(
        out,
        "sparse_{name}_bucket{{le=\"+Inf\"}} {count}\nsparse_{name}_sum {sum}\nsparse_{name}_count {count}\n",
        count = h.count,
        sum = h.sum.as_secs_f64()
    );
}
