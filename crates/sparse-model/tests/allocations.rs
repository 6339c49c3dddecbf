//! Decode allocates nothing per token. A program without the test harness, whose threads allocate when they like: it
//! counts every allocation of the process.

use std::alloc::System;
use std::sync::Arc;

use sparse_gguf::Gguf;
use sparse_model::sidecar::HeadScreen;
use sparse_model::{Model, Sampler, SamplerConfig, Session};
use sparse_testdata::TinyLlama;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() {
    let dense = TinyLlama::default();
    let experts = TinyLlama { experts: Some((6, 2)), ..dense.clone() };
    for llama in [dense, experts] {
        decode(&Gguf::from_bytes(llama.build().to_bytes()).expect("a GGUF file"));
    }
}

fn decode(gguf: &Gguf) {
    // One after the other: the count is of the whole process.
    for (threads, screened) in [(1, false), (3, false), (1, true), (3, true)] {
        let mut model = Model::from_gguf(gguf, threads).expect("a model");
        if screened {
            HeadScreen::default().apply(&mut model).expect("a screen");
            assert!(model.screen().is_some());
        }
        let model = Arc::new(model);
        let mut session = Session::new(&model, 128).expect("a session");
        let mut samplers = [SamplerConfig::greedy(), SamplerConfig::default()].map(Sampler::new);
        let history = [1, 2, 3];
        let mut step = |id: u32| {
            samplers.each_mut().map(|sampler| {
                let logits = session.candidates(&[id], sampler, &history).expect("logits");
                sampler.sample(logits, &history)
            })
        };
        // Samplers and idle workers make themselves at home with the first tokens.
        for id in 0..8 {
            step(id);
        }
        let region = Region::new(ALLOCATOR);
        for id in 8..40 {
            step(id);
        }
        let change = region.change();
        let counts = (change.allocations, change.reallocations, change.deallocations);
        assert_eq!(counts, (0, 0, 0), "{threads} threads: allocations, reallocations, deallocations");
        println!("decode with {threads} threads allocates nothing (screened: {screened})");
    }
}
