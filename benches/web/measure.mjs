// Measures sparse-wasm beside its peers in one Chromium, on one thread, in turn. docs/web.md has the commands.
//
//   node measure.mjs PACKAGE MODELS [ONNX]     folders: target/npm/sparse-wasm, models, and an ONNX form of all-MiniLM-L6-v2
import { stat } from "node:fs/promises";
import { join } from "node:path";

import { SENTENCE, open, report } from "./page.mjs";

const [PACKAGE, MODELS, ONNX] = process.argv.slice(2);

async function decode(rounds, name, tokens) {
  const { TextModel } = await import("/sparse/index.js");
  const { Wllama } = await import("/npm/@wllama/wllama/esm/index.js");
  const file = `/models/${name}`;
  const prompt = "The lighthouse keeper wrote in his diary that the sea";
  const ours = await TextModel.load(file, { context: 512 });
  const peer = new Wllama({ default: "/npm/@wllama/wllama/esm/wasm/wllama.wasm" }, { suppressNativeLog: true });
  await peer.loadModel([await (await fetch(file)).blob()], { n_ctx: 512, n_threads: 1, n_gpu_layers: 0 });
  const results = [];
  for (let round = 0; round < rounds; round++) {
    const stream = ours.generate(prompt, { temperature: 0, maxTokens: tokens, ignoreEnd: true });
    const { attentionMs, feedForwardMs, headMs, promptMs, promptTokens } = await stream.stats;
    const { timings } = await peer.createCompletion({
      ...{ prompt, max_tokens: tokens, temperature: 0, cache_prompt: false },
    });
    results.push({
      "sparse-wasm": 1000 / (attentionMs + feedForwardMs + headMs),
      "@wllama/wllama": timings.predicted_per_second,
      "sparse-wasm, prompt": (1000 * promptTokens) / promptMs,
      "@wllama/wllama, prompt": timings.prompt_per_second,
    });
  }
  const measured = { threads: peer.getNumThreads(), memory: await ours.memory(), bytes: ours.info.bytes, results };
  ours.free();
  await peer.exit();
  return measured;
}

async function embed(rounds, sentences) {
  const { EmbeddingModel } = await import("/sparse/index.js");
  const { env, pipeline } = await import("/npm/@huggingface/transformers/dist/transformers.web.js");
  Object.assign(env, { localModelPath: "/onnx/", allowRemoteModels: false, allowLocalModels: true, useBrowserCache: false });
  Object.assign(env.backends.onnx.wasm, { numThreads: 1, wasmPaths: "/npm/onnxruntime-web/dist/" });
  const ours = await EmbeddingModel.load("/models/all-MiniLM-L6-v2/", { worker: false });
  const peers = {};
  for (const dtype of ["fp32", "q8"]) {
    const pipe = await pipeline("feature-extraction", "minilm", { dtype, device: "wasm" });
    peers[`@huggingface/transformers ${dtype}`] = (texts) => pipe(texts, { pooling: "mean", normalize: true });
  }
  const time = async (f) => {
    const start = performance.now();
    const repeats = 5;
    for (let i = 0; i < repeats; i++) await f();
    return (performance.now() - start) / repeats;
  };
  const cosine = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
  const [vector] = await ours.embedBatch(sentences.slice(0, 1));
  const cosines = {};
  for (const [name, f] of Object.entries(peers)) cosines[name] = cosine(vector, (await f(sentences[0])).data);
  const [single, batch] = [[], []];
  for (let round = 0; round < rounds; round++) {
    for (const [results, texts] of [[single, sentences.slice(0, 1)], [batch, sentences]]) {
      const result = { "sparse-wasm": (await time(() => ours.embedBatch(texts))) / texts.length };
      for (const [name, f] of Object.entries(peers)) result[name] = (await time(() => f(texts))) / texts.length;
      results.push(result);
    }
  }
  return { single, batch, cosines, memory: await ours.memory() };
}

const { page, close } = await open({ sparse: PACKAGE, models: MODELS, onnx: ONNX });
for (const [file, tokens] of [["SmolLM2-135M-Instruct.Q4_1.gguf", 48], ["gemma-3-270m-q4_k_m.gguf", 24]]) {
  if (!(await stat(join(MODELS, file)).catch(() => undefined))) continue;
  const d = await page.evaluate(decode, 5, file, tokens);
  const memory = (d.memory / d.bytes).toFixed(2);
  console.log(`\n${file}: wllama has ${d.threads} thread; sparse-wasm's memory is ${memory} times the file`);
  const pick = (names) => d.results.map((r) => Object.fromEntries(names.map((name) => [name, r[name]])));
  report("decode", pick(["sparse-wasm", "@wllama/wllama"]), "tokens/s");
  report("prompt of a sentence", pick(["sparse-wasm, prompt", "@wllama/wllama, prompt"]), "tokens/s");
}
if (ONNX) {
  const sentences = Array.from({ length: 16 }, (_, i) => `${SENTENCE} ${i}`);
  const e = await page.evaluate(embed, 7, sentences);
  console.log("\ncosines to ours:", e.cosines, `memory ${(e.memory / 1e6).toFixed(1)} MB`);
  report("MiniLM, one sentence of 22 tokens", e.single, "ms per sentence");
  report("MiniLM, 16 sentences together", e.batch, "ms per sentence");
}
await close();
