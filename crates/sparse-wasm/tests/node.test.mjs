// The packed package in Node. `native.json` has what the native program says; MODELS is a folder with real models.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { test } from "node:test";

import {
  EmbeddingModel,
  LaneIndex,
  SparseError,
  TextModel,
  angularDistance,
  bestSimd,
  create_sparse_engine,
  infer,
  init,
  inspectGguf,
  laneDecode,
  laneEncode,
  piJitter,
  piOrder,
  simdLevel,
} from "sparse-wasm";
import { story, storySidecar } from "sparse-wasm-story";

const native = JSON.parse(await readFile("native.json", "utf8"));
const storyBytes = new Uint8Array(await readFile(story));
const greedy = { temperature: 0, ignoreEnd: true, maxTokens: 96 };

/** The story model, freed after the test. */
async function withStory(t, options) {
  const model = await TextModel.load(story, options);
  t.after(() => model.free());
  return model;
}

const refuses = (promise, code, message = /./) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof SparseError, `${error}`);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });

test("functions need init, and say so", () => {
  assert.throws(() => piJitter(1), { name: "SparseError", code: "not-ready" });
});

test("the build that uses all there is of vectors is loaded", async () => {
  await refuses(init({ simd: "avx2" }), "option", /avx2/);
  await init();
  assert.equal(simdLevel(), bestSimd());
  console.log(`vectors: ${simdLevel()}`);
});

/**
 * Checks that `ids` are the native program's, up to a step whose two best tokens are closer than `tie`: rounding decides
 * there. Returns that step.
 */
function sameUntilTie(ids, { tokens, logprobs }, tie) {
  const step = ids.findIndex((id, i) => id !== tokens[i]);
  if (step < 0) return ids.length;
  const [best, second] = logprobs[step].top;
  const gap = best.logprob - second.logprob;
  console.log(`parts at step ${step}, where the two best tokens are ${gap.toFixed(4)} apart`);
  assert.ok(gap < tie, `step ${step}: ${gap}`);
  return step;
}

/** The greedy token ids, which must be those of the text. */
async function greedyIds(model, options) {
  const events = [];
  const stream = model.generate(native.prompt, { ...options, onEvent: (event) => events.push(event) });
  const text = await stream.text();
  assert.equal(text, events.map((event) => event.text ?? "").join(""));
  const ids = events.filter((event) => event.type === "token").map((event) => event.id);
  assert.equal(await model.detokenize(ids), text);
  return [ids, await stream.stats];
}

test("the story model writes what the native program writes", async (t) => {
  const builds = ["scalar", "simd128", "relaxed-simd"];
  const loadable = builds.slice(0, builds.indexOf(bestSimd()) + 1);
  for (const options of [{}, ...loadable.map((simd) => ({ worker: true, init: { simd } }))]) {
    const model = await withStory(t, options);
    const [ids, stats] = await greedyIds(model, greedy);
    assert.ok(sameUntilTie(ids, native.story, 0.05) >= 48);
    assert.deepEqual([stats.tokens, stats.stop, stats.promptTokens], [96, "max-tokens", 5]);
    assert.ok(stats.density > 0.01 && stats.density < 0.2, `${stats.density}`);
    assert.ok(stats.tokensPerSecond > 0 && stats.bytesPerToken < model.info.bytesPerToken);
  }
});

test("SmolLM2 writes what the native program writes", { skip: !native.smol && "no model" }, async (t) => {
  // In a worker: its memory is its own.
  const model = await TextModel.load(native.smol.file, { context: 512, worker: true });
  t.after(() => model.free());
  const [ids] = await greedyIds(model, { ...greedy, maxTokens: native.smol.tokens.length });
  // The bar of `cargo xtask verify` for the quantized model.
  sameUntilTie(ids, native.smol, 0.75);
  // For the browser's test.
  await writeFile("smol.json", JSON.stringify(ids));
  const peak = (await model.memory()) / model.info.bytes;
  console.log(`peak memory: ${peak.toFixed(2)} times the file`);
  assert.ok(peak < 1.3, `${peak}`);
  const message = [{ role: "user", content: "Hello <|im_end|>" }];
  assert.equal((await model.promptTokens(message)).filter((id) => id === 2).length, 2);
});

test("the README's first program works when pasted", async () => {
  const readme = await readFile("node_modules/sparse-wasm/README.md", "utf8");
  const [, program] = readme.match(/```js\n(.*?)```/s);
  // A folder as `npm install` leaves it.
  await mkdir("first", { recursive: true });
  await writeFile("first/package.json", "{}");
  await writeFile("first/program.js", program);
  const output = execFileSync(process.execPath, ["program.js"], { cwd: "first", encoding: "utf8" });
  assert.ok(output.split("\n").length > 20, output);
});

test("firing neurons are reported, and none for the prompt", async (t) => {
  const model = await withStory(t);
  const firing = [];
  for await (const event of model.generate(native.prompt, { ...greedy, maxTokens: 5, firing: 16 }).events()) {
    if (event.type === "token") firing.push(event.firing);
  }
  assert.equal(firing[0], undefined);
  for (const { strength, fired } of firing.slice(1)) {
    assert.deepEqual([strength.length, fired.length], [5 * 16, 5]);
    assert.ok(fired.every((n) => n > 0 && n < 1024) && strength.every((h) => h >= 0));
    for (let layer = 0; layer < 5; layer++) {
      const bins = strength.subarray(16 * layer, 16 * (layer + 1)).filter((h) => h > 0).length;
      assert.ok(bins >= 1 && bins <= fired[layer]);
    }
  }
});

test("seeds, stop strings and options", async (t) => {
  const model = await withStory(t);
  const write = (options) => model.generate(native.prompt, { maxTokens: 30, ignoreEnd: true, ...options });
  assert.equal(await write({ seed: 5 }).text(), await write({ seed: 5 }).text());
  assert.notEqual(await write({ seed: 5 }).text(), await write({ seed: 6 }).text());
  const stopped = write({ temperature: 0, stop: ["girl"] });
  const text = await stopped.text();
  assert.ok(text.endsWith("a little ") && !text.includes("girl"), text);
  assert.equal((await stopped.stats).stop, "stop-string");
  await refuses(write({ maxtokens: 5 }).text(), "option", /maxtokens/);
  await refuses(write({ temperature: -1 }).text(), "option", /temperature/);
  await refuses(model.generate("a ".repeat(2000)).text(), "context-full");
  await refuses(model.generate([{ role: "user", content: "Hi" }]).text(), "chat-template");
  await refuses(model.generate(7).text(), "option");
  await refuses(TextModel.load(story, { context: 100000 }), "option", /context/);
  // And all is as before.
  assert.equal((await write({ temperature: 0 }).text()).length > 0, true);
});

test("texts end when they are aborted or left", async (t) => {
  for (const worker of [false, true]) {
    const model = await withStory(t, { worker });
    const write = (signal) => model.generate(native.prompt, { maxTokens: 500, ignoreEnd: true, signal });
    const controller = new AbortController();
    let pieces = 0;
    await assert.rejects(async () => {
      for await (const _ of write(controller.signal)) if (++pieces === 3) controller.abort();
    }, { name: "AbortError" });
    assert.ok(pieces >= 3 && pieces < 400, `${pieces}`);
    await assert.rejects(write(AbortSignal.abort()).text(), { name: "AbortError" });
    const left = write();
    for await (const _ of left) break;
    const stats = await left.stats;
    assert.equal(stats.stop, "cancelled");
    assert.ok(stats.tokens < 400, `${stats.tokens}`);
    await refuses(TextModel.load(story, { worker, sidecar: story }), "format");
    model.free();
    await refuses(model.tokenize("a"), "freed");
  }
});

test("two texts at once do not mix", async (t) => {
  const model = await withStory(t);
  const expected = await model.generate(native.prompt, greedy).text();
  const texts = [1, 2].map(() => model.generate(native.prompt, greedy).text());
  assert.deepEqual(await Promise.all(texts), [expected, expected]);
});

test("a sidecar leaves out more, a dense model nothing", async (t) => {
  const densities = [];
  for (const options of [{ sidecar: storySidecar }, {}, { dense: true }]) {
    const model = await withStory(t, options);
    const stream = model.generate(native.prompt, { ...greedy, maxTokens: 20 });
    assert.match(await stream.text(), /^, there was a little girl/);
    densities.push((await stream.stats).density);
  }
  assert.ok(densities[0] < 0.9 * densities[2] && densities[1] < densities[2], `${densities}`);
  assert.equal(densities[2], 1);
});

test("sources: bytes, blobs, files, responses", async () => {
  for (const source of [storyBytes, storyBytes.buffer, new Blob([storyBytes]), new Response(storyBytes)]) {
    const info = await inspectGguf(source);
    assert.deepEqual([info.architecture, info.bytes, info.version], ["llama", storyBytes.length, 3]);
    assert.ok(info.tensors.some((tensor) => tensor.name === "blk.0.ffn_down_t.weight" && tensor.readable));
    assert.equal(info.metadata["tokenizer.ggml.tokens"].length, 4096);
  }
  await refuses(TextModel.load({}), "option");
  await refuses(TextModel.load("no-such-file.gguf"), "missing-file", /no-such-file/);
  await refuses(TextModel.load(new Response("", { status: 500 })), "fetch", /500/);
});

test("hostile files are refused, and the module stays usable", async (t) => {
  const model = await withStory(t);
  const expected = await model.generate(native.prompt, greedy).text();
  const changed = (change) => {
    const bytes = storyBytes.slice();
    change(new DataView(bytes.buffer));
    return bytes;
  };
  // magic 0, version 4, number of tensors 8, number of metadata 16
  const cases = {
    empty: new Uint8Array(),
    "truncated in the header": storyBytes.subarray(0, 1000),
    "truncated in the weights": storyBytes.subarray(0, storyBytes.length - 1000),
    "version 9": changed((view) => view.setUint32(4, 9, true)),
    "a claim of 2^31 tensors": changed((view) => view.setBigUint64(8, 2n ** 31n, true)),
    "a claim of 2^60 metadata": changed((view) => view.setBigUint64(16, 2n ** 60n, true)),
    "a key of 2 GB": changed((view) => view.setBigUint64(24, 2n ** 31n, true)),
    "wrong shapes": replace("llama.embedding_length", 288),
    "a feed-forward width of 4 billion": replace("llama.feed_forward_length", 2 ** 32 - 1),
    "no heads": replace("llama.attention.head_count", 0),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    await assert.rejects(TextModel.load(bytes), (error) => {
      assert.ok(error instanceof SparseError && ["format", "unsupported"].includes(error.code), `${name}: ${error}`);
      return true;
    });
    await assert.rejects(EmbeddingModel.load(bytes), SparseError, name);
  }
  // Any byte of the header changed: an error or a model, never the end.
  for (let i = 0; i < 200; i++) {
    const bytes = changed((view) => view.setUint8((i * 7919) % 3000, i));
    await inspectGguf(bytes).catch((error) => assert.equal(error.code, "format", error.message));
  }
  assert.equal(await model.generate(native.prompt, greedy).text(), expected);

  /** The story model with another u32 under a key. */
  function replace(key, value) {
    const at = Buffer.from(storyBytes.buffer).indexOf(key);
    assert.ok(at > 0, key);
    return changed((view) => view.setUint32(at + key.length + 4, value, true));
  }
});

test("embeddings are the native program's", { skip: !native.minilm && "no model" }, async (t) => {
  const model = await EmbeddingModel.load(`${native.minilm.folder}/`, { worker: true });
  t.after(() => model.free());
  assert.deepEqual([model.info.dimension, model.info.normalized], [384, true]);
  const vectors = await model.embedBatch(native.sentences);
  const cosines = vectors.map((vector, i) => cosine(vector, native.minilm.vectors[i]));
  console.log(`cosines: ${cosines.map((c) => c.toFixed(6)).join(" ")}`);
  assert.ok(cosines.every((c) => c > 0.9999));
  assert.ok(cosine(await model.embed(native.sentences[0]), vectors[0]) > 0.99999);
  const documents = native.sentences.filter(Boolean);
  const found = await model.search("a cat that sleeps", documents, { top: 2 });
  assert.deepEqual([found.length, found[0].index], [2, 0]);
  assert.ok(found[0].score > found[1].score);
  const peak = (await model.memory()) / 90868376;
  console.log(`peak memory: ${peak.toFixed(2)} times the weights' file`);
  assert.ok(peak < 1.3, `${peak}`);
  await refuses(EmbeddingModel.load({ "config.json": new Blob(["{}"]) }), "format");
  await refuses(EmbeddingModel.load(`${native.minilm.folder}/none/`), "missing-file");
});

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

test("the functions of the specification", () => {
  const engine = create_sparse_engine(64, 256, 0.25);
  assert.deepEqual([engine.input_dim, engine.output_dim], [64, 64]);
  const input = Float32Array.from({ length: 64 }, (_, i) => Math.sin(i));
  const output = infer(engine, input);
  assert.ok(output.length === 64 && output.every(Number.isFinite) && output.some((x) => x !== 0));
  assert.deepEqual(infer(create_sparse_engine(64, 256, 0.25), input), output);
  assert.throws(() => infer(engine, new Float32Array(63)), /63/);
  assert.throws(() => infer(engine, input.map(() => NaN)), Error);
  for (const [hidden, density] of [[256, 0], [256, NaN], [0, 0.5]]) {
    assert.throws(() => create_sparse_engine(64, hidden, density), Error);
  }
  engine.free();
});

test("lanes and pi", () => {
  assert.deepEqual([...laneEncode("bit3", Float32Array.of(-2, 0, 0.5, 1))], [-3, 0, 2, 3]);
  const values = Float32Array.of(-1, -0.3, 0, 0.7);
  const back = laneDecode("bit7", laneEncode("bit7", values));
  assert.ok(back.every((value, i) => Math.abs(value - values[i]) <= 0.5 / 63 + 1e-6), `${back}`);
  assert.throws(() => laneEncode("bit4", values), { code: "option" });
  const [a, b] = [Float32Array.of(1, 0, 0, 0), Float32Array.of(0, 2, 0, 0)];
  assert.ok(Math.abs(angularDistance("bit5", a, b) - Math.PI / 2) < 0.01);
  assert.equal(piJitter(7), piJitter(7));
  assert.deepEqual([...piOrder(5, 1)].sort(), [0, 1, 2, 3, 4]);
  const index = new LaneIndex("bit5", 4);
  [a, b].forEach((vector) => index.push(vector));
  const [first, second] = index.cosines(Float32Array.of(3, 0.1, 0, 0));
  assert.ok(first > 0.99 && second < 0.1 && index.length === 2);
  assert.throws(() => index.push(Float32Array.of(1)), { code: "option" });
  index.free();
});
