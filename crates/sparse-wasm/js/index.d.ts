/** Sparse language and embedding models on the CPU, in browsers and in Node. */

/**
 * Where a file comes from.
 *
 * - `string` or `URL`: an address. Relative ones are relative to the page; in Node they are paths.
 * - `Blob`, `File`: a file that the visitor chose. It is read piece by piece.
 * - `Response`: the answer of a `fetch` of your own.
 * - `ArrayBuffer`, typed array: bytes.
 */
export type Source = string | URL | Blob | Response | ArrayBuffer | ArrayBufferView;

/** What went wrong. */
export type SparseErrorCode =
  /** The file is damaged, truncated, or none of its kind. */
  | "format"
  /** The file holds a model of an architecture that the engine does not run. */
  | "unsupported"
  /** The sidecar was made for another model. */
  | "sidecar"
  /** A file that a model folder must have, or that an address names, is not there. */
  | "missing-file"
  /** The model has no chat template, or it refuses the conversation. */
  | "chat-template"
  /** An argument or an option makes no sense. */
  | "option"
  /** Prompt and context do not fit together. */
  | "context-full"
  /** There is not enough memory. WebAssembly has 4 GiB at most, some phones far less. */
  | "memory"
  /** The result is not made of numbers: weights are damaged. */
  | "not-finite"
  /** An address could not be loaded. */
  | "fetch"
  /** A function was called before `init()`. */
  | "not-ready"
  /** The model was freed. */
  | "freed"
  /** The worker could not be started, or stopped. */
  | "worker"
  /** A fault of the engine, which stopped. In a worker, other models go on; without one, nothing does. */
  | "internal";

/** What this package throws. Aborted calls throw the signal's reason instead. */
export class SparseError extends Error {
  constructor(code: SparseErrorCode, message: string, options?: ErrorOptions);
  readonly name: "SparseError";
  readonly code: SparseErrorCode;
}

/** What a build uses of WebAssembly's 128-bit vectors: these with relaxed SIMD, these, or none. */
export type SimdLevel = "relaxed-simd" | "simd128" | "scalar";

/** How the WebAssembly is loaded. Nothing has to be said where the package's files lie together. */
export interface InitOptions {
  /** The WebAssembly, or where it is, if it is not beside the package's modules. */
  wasm?: string | URL | Blob | Response | ArrayBuffer | ArrayBufferView | WebAssembly.Module;
  /** Which build to load: by default the one that uses all that the JavaScript engine has. */
  simd?: SimdLevel;
}

/** Loads the WebAssembly into this thread, once. Models do so by themselves; the functions below them need it. */
export function init(options?: InitOptions): Promise<void>;

/** What this JavaScript engine has of WebAssembly's 128-bit vectors. */
export function bestSimd(): SimdLevel;

export interface Progress {
  /** Bytes so far. */
  loaded: number;
  /** Bytes in all. */
  total: number;
}

export interface LoadOptions {
  /**
   * Whether the model runs in a worker of its own, so that a page never stands still. By default in browsers, not in
   * Node. Freeing a model in a worker gives all its memory back.
   */
  worker?: boolean;
  /** How the WebAssembly is loaded. */
  init?: InitOptions;
  /** Called while the file is read. */
  onProgress?: (progress: Progress) => void;
  /** Stops loading. */
  signal?: AbortSignal;
}

export interface TextModelOptions extends LoadOptions {
  /** What `sparse calibrate` wrote beside the model: which neurons to leave out. */
  sidecar?: Source;
  /** Tokens that a prompt and its continuation may have: 2048 by default, or what the model was trained for, if less. */
  context?: number;
  /** Computes all neurons, in the way that is fastest for that: to compare with. */
  dense?: boolean;
  /** The activation, such as `"relu"`, if the file does not name it. */
  activation?: string;
  /** How the output head is computed: whole (`"dense"`, the default), by the rows that matter, or as saves bytes. */
  head?: "dense" | "screened" | "auto";
}

export interface TextModelInfo {
  name: string | null;
  architecture: string;
  layers: number;
  /** Neurons of the feed-forward network of each layer. */
  neurons: number[];
  /** Width of the residual stream. */
  embedding: number;
  vocabulary: number;
  /** Tokens that a prompt and its continuation may have. */
  context: number;
  /** Tokens that the model was trained for. */
  trainedContext: number;
  /** Bytes of the file. */
  bytes: number;
  /** Weight bytes that a token reads if no neuron is left out. */
  bytesPerToken: number;
  activation: string;
  /** Layers that leave neurons out. */
  sparseLayers: number;
  /** Whether the model has a chat template. */
  chat: boolean;
  /** The token that texts begin with, if there is one. */
  beginsWith: number | null;
}

export interface Message {
  role: "system" | "user" | "assistant" | (string & {});
  content: string;
  [key: string]: unknown;
}

/** A text to continue, a conversation to answer, or token ids. */
export type Prompt = string | Message[] | Uint32Array;

export interface GenerateOptions {
  /** Most tokens to write: 256 by default. */
  maxTokens?: number;
  /** 0 always takes the most probable token; 0.8 by default. */
  temperature?: number;
  /** Keep so many most probable tokens: 40 by default, 0 is off. */
  topK?: number;
  /** Keep the most probable tokens whose probabilities reach this: 0.95 by default, 1 is off. */
  topP?: number;
  /** Keep tokens with this share of the best one's probability: 0.05 by default, 0 is off. */
  minP?: number;
  /** Divides the logits of recent tokens: 1 by default, which is off. */
  repetitionPenalty?: number;
  /** Subtracted as often as a token is among the recent ones: 0 by default. */
  frequencyPenalty?: number;
  /** Subtracted once for tokens among the recent ones: 0 by default. */
  presencePenalty?: number;
  /** Same seed, same text. Random by default; `stats` has it. */
  seed?: number;
  /** Texts that end the generation. They are not part of the text. */
  stop?: string[];
  /** Go on when the model says that it is done. */
  ignoreEnd?: boolean;
  /** Forget the older half of the text when the context is full, instead of ending. */
  shift?: boolean;
  /** Keep what the last call computed of the same beginning. By default for conversations. */
  reuse?: boolean;
  /** Report which neurons fire, in so many bins per layer; see `TokenEvent.firing`. */
  firing?: number;
  /** Stops the generation; the text then throws the signal's reason. */
  signal?: AbortSignal;
  /** Called with every event, as soon as it happens. */
  onEvent?: (event: GenerateEvent) => void;
}

export interface TokenEvent {
  type: "token";
  id: number;
  /** What fired while this token was computed, if that was asked for. The first token comes with the prompt: it has none. */
  firing?: {
    /** `[layers x bins]`: the largest output of the neurons in a bin, which are neighbors. 0 where none fired. */
    strength: Float32Array;
    /** Neurons that fired, per layer. */
    fired: Uint32Array;
  };
}

export interface TextEvent {
  type: "text";
  /** Whole characters that cannot be the beginning of a stop string. */
  text: string;
}

export type GenerateEvent = TokenEvent | TextEvent;

export interface GenerationStats {
  stop: "end" | "stop-string" | "max-tokens" | "context-full" | "cancelled";
  /** Tokens written. */
  tokens: number;
  promptTokens: number;
  /** Tokens of the prompt that were computed by the last call already. */
  reusedTokens: number;
  promptMs: number;
  /** Time of the tokens after the first. */
  decodeMs: number;
  /** Tokens per second after the first. */
  tokensPerSecond: number;
  /** Share of the feed-forward neurons that were used, 0 to 1; `null` if no token was computed alone. */
  density: number | null;
  /** The same for each layer. */
  layerDensity: number[];
  /** Milliseconds per token in feed-forward layers, attention and the output head; `null` as for `density`. */
  feedForwardMs: number | null;
  attentionMs: number | null;
  headMs: number | null;
  /** Weight bytes that a token read, on average. */
  bytesPerToken: number;
  seed: number;
}

/** A text in the making: an async iterable of its pieces. It is written whether or not anybody reads it. */
export interface TextStream extends AsyncIterable<string> {
  /** Everything that happens, tokens and text. Read either these or the pieces. */
  events(): AsyncIterable<GenerateEvent>;
  /** What is left of the text, when it is done. */
  text(): Promise<string>;
  /** What it took, when it is done. */
  readonly stats: Promise<GenerationStats>;
  /** Ends the text. So does leaving a loop over it. */
  cancel(): void;
}

/**
 * A language model.
 *
 * ```js
 * const model = await TextModel.load("model.gguf");
 * for await (const piece of model.generate("Once upon a time")) console.log(piece);
 * ```
 */
export class TextModel {
  private constructor();

  /**
   * Loads a GGUF file. Its bytes are in memory once.
   *
   * @throws {SparseError} `format`, `unsupported`, `sidecar`, `memory`, `fetch`, `missing-file`, `option`
   */
  static load(source: Source, options?: TextModelOptions): Promise<TextModel>;

  readonly info: TextModelInfo;

  /**
   * Continues a text, or answers a conversation.
   *
   * The stream throws a `SparseError`: `option`, `chat-template`, `context-full`, `memory`, `not-finite`.
   */
  generate(prompt: Prompt, options?: GenerateOptions): TextStream;

  /** Token ids of a text. With `special`, names of control tokens become these tokens. */
  tokenize(text: string, options?: { special?: boolean }): Promise<Uint32Array>;

  /** The text of token ids. */
  detokenize(ids: ArrayLike<number>): Promise<string>;

  /** Token ids of a prompt, as `generate` computes them. */
  promptTokens(prompt: Prompt): Promise<Uint32Array>;

  /** Bytes of the WebAssembly's memory: the most that it has needed. */
  memory(): Promise<number>;

  /** Gives the memory back. A model that nobody holds is freed at some time, too. */
  free(): void;
}

export interface EmbeddingModelOptions extends LoadOptions {
  /** How weights are stored in memory: `"int8"` by default, or `"f32"`. */
  format?: "int8" | "f32";
  /** Tokens that texts are cut down to; the model's own number by default. */
  maxTokens?: number;
  /** Whether embeddings have length 1; as the model says by default. */
  normalize?: boolean;
  /** How the vectors of a text's tokens become one; as the model says by default. */
  pooling?: "mean" | "cls" | "last";
}

export interface EmbeddingModelInfo {
  /** Values of an embedding. */
  dimension: number;
  /** Tokens that texts are cut down to. */
  maxTokens: number;
  /** Whether embeddings have length 1. */
  normalized: boolean;
  /** Names of the model's prompts. */
  prompts: string[];
  /** Bytes of the weights in memory. */
  bytes: number;
}

/**
 * Where an embedding model comes from: a GGUF file, or a folder of the sentence-transformers library by its address, its
 * files (as `<input type="file" webkitdirectory>` gives them), or sources by their paths in it.
 */
export type EmbeddingSource = Source | FileList | File[] | Record<string, Source>;

export interface EmbedOptions {
  /** What stands before every text: `"query"`, `"document"`, or a prompt of the model. Its default one if nothing is said. */
  prompt?: "query" | "document" | (string & {});
  /** Called after every few texts. */
  onProgress?: (progress: { done: number; total: number }) => void;
  signal?: AbortSignal;
}

export interface SearchResult {
  /** Which text. */
  index: number;
  text: string;
  /** The cosine, -1 to 1. */
  score: number;
}

/**
 * A sentence-embedding model.
 *
 * ```js
 * const model = await EmbeddingModel.load("models/all-MiniLM-L6-v2/");
 * const [best] = await model.search("my keys", ["A cat sleeps.", "The keys are on the table."]);
 * ```
 */
export class EmbeddingModel {
  private constructor();

  /**
   * Loads a model. Files of a folder are converted tensor by tensor: its weights are never in the WebAssembly's memory twice.
   *
   * @throws {SparseError} `format`, `unsupported`, `memory`, `fetch`, `missing-file`, `option`
   */
  static load(source: EmbeddingSource, options?: EmbeddingModelOptions): Promise<EmbeddingModel>;

  readonly info: EmbeddingModelInfo;

  /** The embedding of a text. Only its first `info.maxTokens` tokens count. */
  embed(text: string, options?: EmbedOptions): Promise<Float32Array>;

  /** The embeddings of many texts, in their order. */
  embedBatch(texts: readonly string[], options?: EmbedOptions): Promise<Float32Array[]>;

  /** Embeds texts to be searched. */
  index(texts: readonly string[], options?: EmbedOptions): Promise<EmbeddingIndex>;

  /** The texts that are most like a query, the best first: 5 unless `top` says otherwise. */
  search(
    query: string,
    documents: EmbeddingIndex | readonly string[],
    options?: EmbedOptions & { top?: number },
  ): Promise<SearchResult[]>;

  /** Bytes of the WebAssembly's memory: the most that it has needed. */
  memory(): Promise<number>;

  /** Gives the memory back. A model that nobody holds is freed at some time, too. */
  free(): void;
}

/** Texts with their embeddings. */
export class EmbeddingIndex {
  constructor(texts: string[], vectors: Float32Array[]);
  readonly texts: string[];
  readonly vectors: Float32Array[];
  /** The texts whose embeddings are most like a vector. */
  search(vector: ArrayLike<number>, options?: { top?: number }): SearchResult[];
}

export type GgufValue =
  | number
  | boolean
  | string
  | { type: string; length: number; first: (number | boolean | string)[] };

export interface GgufInfo {
  version: number;
  architecture: string | null;
  name: string | null;
  /** Bytes of the file. */
  bytes: number;
  parameters: number;
  /** Of arrays, the first 16 items. */
  metadata: Record<string, GgufValue>;
  tensors: {
    name: string;
    /** ggml's name, such as `Q4_0`. */
    type: string;
    /** The row length is first. */
    shape: number[];
    bytes: number;
    /** Whether the engine computes with this type. */
    readable: boolean;
  }[];
}

/**
 * What is in a GGUF file. The whole file is read, and its lengths and offsets are checked.
 *
 * @throws {SparseError} `format` if it is damaged or no GGUF file
 */
export function inspectGguf(
  source: Source,
  options?: { init?: InitOptions; signal?: AbortSignal },
): Promise<GgufInfo>;

// What follows needs `await init()` before.

/** The vectors that the loaded build computes with. */
export function simdLevel(): SimdLevel;

/** A network of two layers that computes the neurons that matter. */
export interface SparseEngine {
  readonly input_dim: number;
  readonly output_dim: number;
  free(): void;
}

/** Makes a demonstration network. `density` is the share of the neurons that is computed. */
export function create_sparse_engine(inputDim: number, hiddenDim: number, density: number): SparseEngine;

/** The network's output for one input. */
export function infer(engine: SparseEngine, input: Float32Array): Float32Array;

/** How many bits a number gets. */
export type Lane = "bit3" | "bit5" | "bit7" | "float";

/** Codes of values from `-range` to `range`, by default from -1 to 1. What is outside saturates. */
export function laneEncode(lane: "bit3" | "bit5" | "bit7", values: Float32Array, range?: number): Int8Array;

/** The values that codes stand for. */
export function laneDecode(lane: "bit3" | "bit5" | "bit7", codes: Int8Array, range?: number): Float32Array;

/** The angle between two vectors as a lane sees it, in radians. */
export function angularDistance(lane: Lane, a: Float32Array, b: Float32Array): number;

/** A number from -1 to 1 that looks random, from the digits of pi: the same for the same index, everywhere. */
export function piJitter(index: number): number;

/** The numbers below `n` in the order of a round, from the digits of pi. */
export function piOrder(n: number, round: number): Uint32Array;

/** Vectors in a lane, to be searched: bit5 takes a sixth of the memory of floats. */
export class LaneIndex {
  constructor(lane: Lane, dimensions: number);
  push(vector: Float32Array): void;
  /** Cosines of all vectors to a query, in the order in which they were added. */
  cosines(query: Float32Array): Float32Array;
  readonly length: number;
  readonly bytes: number;
  free(): void;
}
