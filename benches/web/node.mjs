// Measures the builds of sparse-wasm in Node, in turn, and the native program at SSE4.1: milliseconds per decoded token.
//
//   node --experimental-wasm-relaxed-simd node.mjs PACKAGE SPARSE MODEL [ROUNDS]     target/npm/sparse-wasm and a program
//
// The flag is for versions before 21.
import { execFileSync } from "node:child_process";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [PACKAGE, SPARSE, MODEL, ROUNDS = 5] = process.argv.slice(2);
const PROMPT = "Once upon a time there was a";
const TOKENS = 64;
const BUILDS = ["relaxed-simd", "simd128"];

// A build is chosen once for a process, so each runs in one of its own.
if (BUILDS.includes(process.env.BUILD)) {
  const { TextModel, init } = await import(pathToFileURL(resolve(PACKAGE, "node.js")));
  await init({ simd: process.env.BUILD });
  const model = await TextModel.load(MODEL, { worker: false });
  const { stats } = model.generate(PROMPT, { temperature: 0, maxTokens: TOKENS, ignoreEnd: true });
  const { attentionMs, feedForwardMs, headMs } = await stats;
  console.log(attentionMs + feedForwardMs + headMs);
  process.exit();
}

const run = (command, args, env) =>
  execFileSync(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "ignore"] }).toString();
const native = () => {
  const options = ["--greedy", "--ignore-eos", "--head", "dense", "--no-lookup", "--json", "-t", "1", "-n", TOKENS];
  const report = run(SPARSE, ["generate", "-m", MODEL, ...options.map(String), PROMPT], { SPARSE_SIMD: "sse4.1" });
  return 1000 / JSON.parse(report).timings.decode_tokens_per_s;
};
const wasm = (BUILD) => Number(run(process.execPath, [...process.execArgv, ...process.argv.slice(1)], { BUILD }));
const rounds = Array.from({ length: Number(ROUNDS) }, () => [native(), ...BUILDS.map(wasm)]);
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
["sse4.1", ...BUILDS].forEach((name, i) => {
  const ratio = median(rounds.map((round) => round[0] / round[i]));
  console.log(`${name}: ${median(rounds.map((round) => round[i])).toFixed(2)} ms, ${ratio.toFixed(2)} of SSE4.1's speed`);
});
