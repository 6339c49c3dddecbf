// A program in TypeScript against the package's types.
import {
  EmbeddingModel,
  type GenerateEvent,
  type GenerationStats,
  LaneIndex,
  SparseError,
  TextModel,
  bestSimd,
  create_sparse_engine,
  infer,
  init,
  inspectGguf,
  laneEncode,
  piOrder,
} from "sparse-wasm";
import { story, storySidecar } from "sparse-wasm-story";

const model: TextModel = await TextModel.load(story, {
  sidecar: storySidecar,
  worker: true,
  onProgress: ({ loaded, total }) => console.log(loaded / total),
});
const controller = new AbortController();
const stream = model.generate([{ role: "user", content: "Hello" }], {
  maxTokens: 8,
  stop: ["\n"],
  signal: controller.signal,
  onEvent: (event: GenerateEvent) => {
    if (event.type === "token") console.log(event.id, event.firing?.fired.length);
    else console.log(event.text.length);
  },
});
for await (const piece of stream) console.log(piece.toUpperCase());
const stats: GenerationStats = await stream.stats;
const density: number | null = stats.density;
const ids: Uint32Array = await model.tokenize("text");
console.log(density, await model.detokenize(ids), model.info.neurons[0]);
model.free();

try {
  await TextModel.load(new File([], "empty.gguf"));
} catch (error) {
  if (error instanceof SparseError && error.code === "format") console.log(error.message);
}

const encoder = await EmbeddingModel.load({ "config.json": new Blob() }, { format: "int8" });
const [best] = await encoder.search("query", ["a", "b"], { top: 1 });
const score: number = best!.score;
const vectors: Float32Array[] = await encoder.embedBatch(["a"], { prompt: "query" });

await init({ simd: bestSimd() });
const output: Float32Array = infer(create_sparse_engine(64, 256, 0.1), new Float32Array(64));
const index = new LaneIndex("bit5", 384);
console.log(score, vectors, output, index.length, piOrder(4, 0), laneEncode("bit7", output));
const info = await inspectGguf(new Uint8Array());
console.log(info.tensors.map((tensor) => tensor.shape));

// @ts-expect-error There is no such lane.
laneEncode("bit4", output);
// @ts-expect-error There is no such option.
model.generate("text", { maxtokens: 5 });
