import { bestSimd, check, guard, init } from "./runtime.js";
import { portable, toModelBytes } from "./source.js";

export { SparseError } from "./errors.js";
export { EmbeddingIndex, EmbeddingModel } from "./embedding.js";
export { TextModel, TextStream } from "./text.js";
export { bestSimd, init };

export async function inspectGguf(source, { init: options, signal } = {}) {
  await init(options);
  const bytes = await toModelBytes(await portable(source), { signal });
  return JSON.parse(guard((raw) => raw.inspectGguf(bytes)));
}

const sync =
  (name) =>
  (...args) => {
    check();
    return guard((raw) => raw[name](...args));
  };

export const simdLevel = sync("simdLevel");
export const create_sparse_engine = sync("create_sparse_engine");
export const infer = sync("infer");
export const angularDistance = sync("angularDistance");
export const piJitter = sync("piJitter");
export const piOrder = sync("piOrder");

export function laneEncode(lane, values, range = 1) {
  check();
  return guard((raw) => raw.laneEncode(lane, values, range));
}

export function laneDecode(lane, codes, range = 1) {
  check();
  return guard((raw) => raw.laneDecode(lane, codes, range));
}

/** Vectors in a precision lane, to be searched. */
export class LaneIndex {
  #index;

  constructor(lane, dimensions) {
    check();
    this.#index = guard((raw) => new raw.LaneIndex(lane, dimensions));
  }

  push(vector) {
    guard(() => this.#index.push(vector));
  }

  cosines(query) {
    return guard(() => this.#index.cosines(query));
  }

  get length() {
    return this.#index.length;
  }

  get bytes() {
    return this.#index.bytes;
  }

  free() {
    this.#index.free();
  }
}
