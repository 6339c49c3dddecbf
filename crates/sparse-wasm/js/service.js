import { SparseError, packError } from "./errors.js";
import { breathe } from "./platform.js";
import { guard, init, memoryBytes } from "./runtime.js";
import { toBytes, toModelBytes } from "./source.js";

/** Milliseconds after which whoever else wants to run is let. */
const SLICE = 8;
/** Texts that are embedded at a time. */
const BATCH = 16;

/** One model beside its WebAssembly: in the caller's thread, or in a worker. */
export class Service {
  #model;

  /** Loads a language model; resolves to its description. */
  async loadText({ source, sidecar, options, init: how }, { emit, signal }) {
    await init(how);
    const onProgress = (progress) => emit({ progress });
    const bytes = await toModelBytes(source, { onProgress, signal });
    const beside = sidecar === undefined ? undefined : await toModelBytes(sidecar, { signal });
    this.#model = guard((raw) => new raw.TextModel(bytes, beside, JSON.stringify(options)));
    return JSON.parse(this.#model.info());
  }

  /** Loads a model for embeddings, from one file or from those of a folder; resolves to its description. */
  async loadEmbedding({ source, files, options, init: how }, { emit, signal }) {
    await init(how);
    const json = JSON.stringify(options);
    const onProgress = (progress) => emit({ progress });
    if (files) {
      const read = {};
      for (const [name, file] of Object.entries(files)) {
        const large = name.endsWith(".safetensors");
        // Folders have the same weights in other formats, too.
        if (!large && !name.endsWith(".json")) continue;
        read[name] = await toBytes(file, large ? { onProgress, signal } : { signal });
      }
      this.#model = guard((raw) => raw.EmbeddingModel.fromFiles(read, json));
    } else {
      const bytes = await toModelBytes(source, { onProgress, signal });
      this.#model = guard((raw) => raw.EmbeddingModel.fromGguf(bytes, json));
    }
    return JSON.parse(this.#model.info());
  }

  async tokenize({ text, special }) {
    return guard(() => this.#model.tokenize(text, special));
  }

  async detokenize({ ids }) {
    return guard(() => this.#model.detokenize(ids));
  }

  async promptTokens({ prompt }) {
    return this.#prompt(prompt);
  }

  /** Bytes of the WebAssembly's memory. */
  async memory() {
    return memoryBytes();
  }

  /** Writes a text; emits its events and resolves to its statistics. */
  async generate({ prompt, options }, { emit, signal }) {
    const model = this.#model;
    const ids = this.#prompt(prompt);
    const generation = guard(() => model.generate(ids, JSON.stringify(options)));
    let stats;
    try {
      let last = performance.now();
      for (let json; (json = guard(() => generation.next())) !== undefined; ) {
        const event = JSON.parse(json);
        if (event.end) stats = event.end;
        else if (event.token === undefined) emit({ type: "text", text: event.text });
        else emit(tokenEvent(event.token, options.firing, generation));
        if (performance.now() - last > SLICE) {
          await breathe();
          last = performance.now();
        }
        if (signal.aborted) generation.cancel();
      }
    } catch (error) {
      release(generation);
      throw error;
    }
    if (this.#model === model) model.finish(generation);
    else release(generation);
    return stats;
  }

  /** Embeds texts; resolves to their vectors, one behind the other. */
  async embed({ texts, prompt }, { emit, signal }) {
    const { dimension } = JSON.parse(this.#model.info());
    const vectors = new Float32Array(texts.length * dimension);
    for (let start = 0; start < texts.length; start += BATCH) {
      const part = texts.slice(start, start + BATCH);
      vectors.set(guard(() => this.#model.embed(part, prompt)), start * dimension);
      emit({ progress: { done: start + part.length, total: texts.length } });
      if (start + BATCH < texts.length) await breathe();
      signal.throwIfAborted();
    }
    return vectors;
  }

  free() {
    release(this.#model);
    this.#model = undefined;
  }

  #prompt(prompt) {
    if (typeof prompt === "string") return guard(() => this.#model.prompt(prompt));
    if (prompt instanceof Uint32Array) return prompt;
    if (Array.isArray(prompt)) return guard(() => this.#model.chat(JSON.stringify(prompt)));
    throw new SparseError("option", "a prompt is a text, an array of messages or a Uint32Array of token ids");
  }
}

function tokenEvent(id, firing, generation) {
  const event = { type: "token", id };
  if (!firing) return event;
  const strength = generation.firing();
  return strength.length ? { ...event, firing: { strength, fired: generation.fired() } } : event;
}

/** Gives memory back; after the engine stopped there is none to give. */
function release(object) {
  try {
    object?.free();
  } catch {
    // The engine stopped.
  }
}

/** Answers a port's requests, in a worker. */
export function serve(port) {
  const service = new Service();
  const running = new Map();
  return async ({ id, method, args, abort }) => {
    if (abort) return running.get(id)?.abort();
    const controller = new AbortController();
    running.set(id, controller);
    try {
      const emit = (event) => port.postMessage({ id, event });
      const result = await service[method](args, { emit, signal: controller.signal });
      port.postMessage({ id, result });
    } catch (error) {
      port.postMessage({ id, error: packError(error) });
    } finally {
      running.delete(id);
    }
  };
}
