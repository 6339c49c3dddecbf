import { connect, registry } from "./link.js";
import { portable } from "./source.js";

/** A language model. See index.d.ts. */
export class TextModel {
  #link;

  static async load(source, { worker, sidecar, init, onProgress, signal, ...options } = {}) {
    const link = connect(worker);
    try {
      const args = {
        source: await portable(source),
        sidecar: sidecar === undefined ? undefined : await portable(sidecar),
        options,
        init: await portableInit(init),
      };
      const info = await link.call("loadText", args, { emit: ({ progress }) => onProgress?.(progress), signal });
      return new TextModel(link, info);
    } catch (error) {
      link.close();
      throw error;
    }
  }

  constructor(link, info) {
    this.#link = link;
    this.info = info;
    registry.register(this, link, link);
  }

  generate(prompt, options = {}) {
    return new TextStream(this, this.#link, prompt, options);
  }

  tokenize(text, { special = false } = {}) {
    return this.#link.call("tokenize", { text, special });
  }

  detokenize(ids) {
    return this.#link.call("detokenize", { ids: Uint32Array.from(ids) });
  }

  promptTokens(prompt) {
    return this.#link.call("promptTokens", { prompt });
  }

  memory() {
    return this.#link.call("memory", {});
  }

  free() {
    registry.unregister(this.#link);
    this.#link.close();
  }

  [Symbol.dispose ?? Symbol.for("Symbol.dispose")]() {
    this.free();
  }
}

/** The options of `init`, in a form that another thread can be given. */
export async function portableInit(init) {
  if (!init?.wasm || init.wasm instanceof WebAssembly.Module) return init;
  return { ...init, wasm: await portable(init.wasm) };
}

/** A text in the making: an async iterable of its pieces. See index.d.ts. */
export class TextStream {
  /** Held, since a model that nobody holds is freed. */
  #model;
  #events = [];
  #wake = () => {};
  #ended = false;
  #failure;
  #controller = new AbortController();

  constructor(model, link, prompt, { signal, onEvent, ...options }) {
    this.#model = model;
    options.seed ??= crypto.getRandomValues(new Uint32Array(1))[0];
    options.reuse ??= Array.isArray(prompt);
    const emit = (event) => {
      onEvent?.(event);
      this.#events.push(event);
      this.#wake();
    };
    const abort = () => this.cancel();
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    this.stats = link
      .call("generate", { prompt, options }, { emit, signal: this.#controller.signal })
      .then((stats) => {
        if (signal?.aborted) throw signal.reason;
        return { ...stats, seed: options.seed };
      })
      .catch((error) => {
        this.#failure = { error };
        throw error;
      })
      .finally(() => {
        signal?.removeEventListener("abort", abort);
        this.#ended = true;
        this.#model = undefined;
        this.#wake();
      });
    // Whoever iterates hears of it there.
    this.stats.catch(() => {});
  }

  async *events() {
    try {
      for (;;) {
        while (this.#events.length > 0) yield this.#events.shift();
        if (this.#failure) throw this.#failure.error;
        if (this.#ended) return;
        await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.cancel();
    }
  }

  async *[Symbol.asyncIterator]() {
    for await (const event of this.events()) {
      if (event.type === "text") yield event.text;
    }
  }

  async text() {
    let text = "";
    for await (const piece of this) text += piece;
    return text;
  }

  cancel() {
    this.#controller.abort();
  }
}
