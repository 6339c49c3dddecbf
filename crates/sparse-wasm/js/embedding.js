import { connect, registry } from "./link.js";
import { portable } from "./source.js";
import { SparseError } from "./errors.js";
import { platform } from "./platform.js";
import { portableInit } from "./text.js";

/** Files of a sentence-transformers folder beside those that modules.json leads to. */
const FILES = [
  "config.json",
  "tokenizer.json",
  "model.safetensors",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "sentence_bert_config.json",
  "config_sentence_transformers.json",
];

/** A sentence-embedding model. See index.d.ts. */
export class EmbeddingModel {
  #link;

  static async load(source, { worker, init, onProgress, signal, ...options } = {}) {
    const link = connect(worker);
    try {
      const args = { ...(await locate(source, signal)), options, init: await portableInit(init) };
      const info = await link.call("loadEmbedding", args, {
        emit: ({ progress }) => onProgress?.(progress),
        signal,
      });
      return new EmbeddingModel(link, info);
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

  async embed(text, options) {
    return (await this.embedBatch([text], options))[0];
  }

  async embedBatch(texts, { prompt, onProgress, signal } = {}) {
    signal?.throwIfAborted();
    const { dimension } = this.info;
    const emit = ({ progress }) => onProgress?.(progress);
    const vectors = await this.#link.call("embed", { texts, prompt }, { emit, signal });
    return texts.map((_, i) => vectors.subarray(i * dimension, (i + 1) * dimension));
  }

  async index(texts, { prompt = "document", ...options } = {}) {
    return new EmbeddingIndex([...texts], await this.embedBatch(texts, { prompt, ...options }));
  }

  async search(query, documents, { top = 5, prompt = "query", ...options } = {}) {
    const index = documents instanceof EmbeddingIndex ? documents : await this.index(documents, options);
    return index.search(await this.embed(query, { prompt, signal: options.signal }), { top });
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

/** Texts with their embeddings. */
export class EmbeddingIndex {
  constructor(texts, vectors) {
    this.texts = texts;
    this.vectors = vectors;
  }

  search(vector, { top = 5 } = {}) {
    const found = this.texts.map((text, index) => ({ index, text, score: cosine(vector, this.vectors[index]) }));
    return found.sort((a, b) => b.score - a.score || a.index - b.index).slice(0, top);
  }
}

function cosine(a, b) {
  let [ab, aa, bb] = [0, 0, 0];
  for (let i = 0; i < a.length; i++) {
    ab += a[i] * b[i];
    aa += a[i] * a[i];
    bb += b[i] * b[i];
  }
  return aa && bb ? ab / Math.sqrt(aa * bb) : 0;
}

/** Where a model is: `source`, one file, or `files`, those of a folder by their names in it. */
async function locate(source, signal) {
  if (typeof source === "string" || source instanceof URL) {
    const address = platform.resolve(source);
    return /\.gguf($|[?#])/.test(address) ? { source: address } : { files: await folder(address, signal) };
  }
  if (isPlain(source) || isList(source)) {
    const named = isPlain(source) ? Object.entries(source) : Array.from(source, (file) => [path(file), file]);
    const files = await Promise.all(named.map(async ([name, file]) => [name, await portable(file)]));
    return { files: Object.fromEntries(files) };
  }
  return { source: await portable(source) };
}

const isPlain = (source) => Object.getPrototypeOf(source) === Object.prototype;
const isList = (source) => Array.isArray(source) || source?.[Symbol.toStringTag] === "FileList";

/** The path of a File in the folder that was chosen. */
const path = (file) => file.webkitRelativePath?.split("/").slice(1).join("/") || file.name;

/** The files of a folder at an address; large ones are left where they are. */
async function folder(address, signal) {
  const base = address.endsWith("/") ? address : `${address}/`;
  const files = {};
  const look = async (name) => {
    const response = await platform.open(base + name, signal);
    if (response.ok) files[name] = name.endsWith(".json") ? await response.blob() : base + name;
    if (!name.endsWith(".json")) await response.body?.cancel();
    return files[name];
  };
  const modules = await look("modules.json");
  const list = modules ? JSON.parse(await modules.text()) : [];
  const inside = (Array.isArray(list) ? list : []).flatMap(({ path = "", type = "" }) => {
    const prefix = path && `${path}/`;
    const names = /\.Transformer$/.test(type) ? FILES : ["config.json"];
    return [...names, ...(/\.(Dense|LayerNorm)$/.test(type) ? ["model.safetensors"] : [])].map((n) => prefix + n);
  });
  await Promise.all([...new Set([...FILES, ...inside])].map(look));
  if (Object.keys(files).length === 0) throw new SparseError("missing-file", `there is no model folder at ${base}`);
  return files;
}
