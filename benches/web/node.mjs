// Measures the builds of sparse-wasm in Node, in turn, and the native program at SSE4.1, on one thread: milliseconds per
// decoded token of a GGUF file, or per sentence of an encoder's folder.
//
//   node --experimental-wasm-relaxed-simd node.mjs PACKAGE SPARSE MODEL [ROUNDS]     target/npm/sparse-wasm and a program
//
// The flag is for versions before 21. What is measured has run before: the first text runs in code that is not optimized.
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [PACKAGE, SPARSE, MODEL, ROUNDS = 5] = process.argv.slice(2);
const PROMPT = "Once upon a time there was a";
const TOKENS = 64;
const SENTENCE = "The quick brown fox jumps over the lazy dog while the rain falls on the old stone bridge.";
const SENTENCES = 128;
const BUILDS = ["relaxed-simd", "simd128"];
const ENCODER = statSync(MODEL).isDirectory();

// A build is chosen once for a process, so each runs in one of its own.
if (BUILDS.includes(process.env.BUILD)) {
  const { EmbeddingModel, TextModel, init } = await import(pathToFileURL(resolve(PACKAGE, "node.js")));
  await init({ simd: process.env.BUILD });
  const model = await (ENCODER ? EmbeddingModel : TextModel).load(MODEL, { worker: false });
  const measure = ENCODER ? sentences : tokens;
  await measure(model);
  console.log(await measure(model));
  process.exit();
}

async function tokens(model) {
  const { stats } = model.generate(PROMPT, { temperature: 0, maxTokens: TOKENS, ignoreEnd: true });
  const { attentionMs, feedForwardMs, headMs } = await stats;
  return attentionMs + feedForwardMs + headMs;
}

async function sentences(model) {
  const start = performance.now();
  await model.embedBatch(Array(SENTENCES).fill(SENTENCE));
  return (performance.now() - start) / SENTENCES;
}

const run = (command, args, env) =>
  execFileSync(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "ignore"] }).toString();
const sse41 = { SPARSE_SIMD: "sse4.1" };

function nativeTokens() {
  const options = ["--greedy", "--ignore-eos", "--head", "dense", "--no-lookup", "--json", "-t", "1", "-n", TOKENS];
  const report = run(SPARSE, ["generate", "-m", MODEL, ...options.map(String), PROMPT], sse41);
  return 1000 / JSON.parse(report).timings.decode_tokens_per_s;
}

/** What more sentences take than few: loading does not count. */
function nativeSentences() {
  const folder = mkdtempSync(join(tmpdir(), "sentences-"));
  const seconds = (count) => {
    const file = join(folder, String(count));
    writeFileSync(file, `${SENTENCE}\n`.repeat(count));
    const start = performance.now();
    run(SPARSE, ["embed", "-m", MODEL, "-t", "1", "--file", file], sse41);
    return performance.now() - start;
  };
  const few = seconds(1);
  const more = seconds(1 + SENTENCES);
  rmSync(folder, { recursive: true });
  return (more - few) / SENTENCES;
}

const native = ENCODER ? nativeSentences : nativeTokens;
const wasm = (BUILD) => Number(run(process.execPath, [...process.execArgv, ...process.argv.slice(1)], { BUILD }));
const rounds = Array.from({ length: Number(ROUNDS) }, () => [native(), ...BUILDS.map(wasm)]);
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
["sse4.1", ...BUILDS].forEach((name, i) => {
  const ratio = median(rounds.map((round) => round[0] / round[i]));
  console.log(`${name}: ${median(rounds.map((round) => round[i])).toFixed(2)} ms, ${ratio.toFixed(2)} of SSE4.1's speed`);
});
