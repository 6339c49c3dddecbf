// Measures the builds of sparse-wasm beside each other in one Chromium, in turn. docs/web.md has the commands.
//
//   node builds.mjs PACKAGE MODELS [ROUNDS]     folders: target/npm/sparse-wasm, models
import { stat } from "node:fs/promises";
import { join } from "node:path";

import { SENTENCE, open, report } from "./page.mjs";

const [PACKAGE, MODELS, ROUNDS = 7] = process.argv.slice(2);
const BUILDS = ["relaxed-simd", "simd128"];

async function text(builds, rounds, name, sentence) {
  const { TextModel } = await import("/sparse/index.js");
  const models = {};
  for (const simd of builds) {
    models[simd] = await TextModel.load(`/models/${name}`, { context: 512, worker: true, init: { simd } });
  }
  const [decode, prompt] = [[], []];
  for (let round = 0; round < rounds; round++) {
    decode.push({});
    prompt.push({});
    for (const [simd, model] of Object.entries(models)) {
      // No two prompts are alike, so that none is in the cache.
      const long = `${round} ${Array(8).fill(sentence).join(" ")}`;
      const stats = await model.generate(long, { temperature: 0, maxTokens: 24, ignoreEnd: true }).stats;
      decode[round][simd] = 1000 / (stats.attentionMs + stats.feedForwardMs + stats.headMs);
      prompt[round][simd] = (1000 * stats.promptTokens) / stats.promptMs;
    }
  }
  Object.values(models).forEach((model) => model.free());
  return { decode, prompt };
}

async function embed(builds, rounds, sentences) {
  const { EmbeddingModel } = await import("/sparse/index.js");
  const models = {};
  for (const simd of builds) {
    models[simd] = await EmbeddingModel.load("/models/all-MiniLM-L6-v2/", { worker: true, init: { simd } });
  }
  const [single, batch] = [[], []];
  for (let round = 0; round < rounds; round++) {
    for (const [results, texts] of [[single, sentences.slice(0, 1)], [batch, sentences]]) {
      const result = {};
      for (const [simd, model] of Object.entries(models)) {
        const repeats = Math.ceil(16 / texts.length);
        const start = performance.now();
        for (let i = 0; i < repeats; i++) await model.embedBatch(texts);
        result[simd] = (performance.now() - start) / repeats / texts.length;
      }
      results.push(result);
    }
  }
  Object.values(models).forEach((model) => model.free());
  return { single, batch };
}

const { page, close } = await open({ sparse: PACKAGE, models: MODELS });
for (const file of ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"]) {
  if (!(await stat(join(MODELS, file)).catch(() => undefined))) continue;
  const { decode, prompt } = await page.evaluate(text, BUILDS, Number(ROUNDS), file, SENTENCE);
  report(`${file}, decode`, decode, "tokens/s");
  report(`${file}, prompt of some 180 tokens`, prompt, "tokens/s");
}
const sentences = Array.from({ length: 16 }, (_, i) => `${SENTENCE} ${i}`);
const { single, batch } = await page.evaluate(embed, BUILDS, Number(ROUNDS), sentences);
report("MiniLM, one sentence of 22 tokens", single, "ms per sentence");
report("MiniLM, 16 sentences together", batch, "ms per sentence");
await close();
