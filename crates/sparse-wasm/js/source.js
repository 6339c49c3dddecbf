import { SparseError } from "./errors.js";
import { platform } from "./platform.js";
import { guard } from "./runtime.js";

/** Bytes that are copied into the WebAssembly at a time. */
const PIECE = 1 << 20;

/** `source` in a form that another thread can be given. */
export async function portable(source) {
  if (typeof source === "string" || source instanceof URL) return platform.resolve(source);
  if (typeof Response === "function" && source instanceof Response) return checked(source, source.url).blob();
  if (source instanceof Blob) return source;
  if (source instanceof ArrayBuffer) return new Uint8Array(source);
  if (ArrayBuffer.isView(source)) return new Uint8Array(source.buffer, source.byteOffset, source.byteLength);
  throw new SparseError("option", "a model comes from a URL, a Blob or File, a Response or bytes");
}

function checked(response, address) {
  if (response.ok) return response;
  const code = response.status === 404 ? "missing-file" : "fetch";
  throw new SparseError(code, `cannot load ${address}: status ${response.status}`);
}

/** A source as bytes, or as a Blob or stream of known length. */
async function open(source, signal) {
  if (source instanceof Uint8Array) return { bytes: source, length: source.length };
  if (source instanceof Blob) return { stream: source.stream(), length: source.size };
  let response;
  try {
    response = await platform.open(source, signal);
  } catch (cause) {
    if (signal?.aborted || cause instanceof SparseError) throw cause;
    throw new SparseError("fetch", `cannot load ${source}: ${cause.message}`, { cause });
  }
  checked(response, source);
  const length = Number(response.headers.get("content-length"));
  if (length > 0 && !response.headers.get("content-encoding")) return { stream: response.body, length };
  // The WebAssembly's memory never shrinks: it must not grow by trying.
  const blob = await response.blob();
  return { stream: blob.stream(), length: blob.size };
}

/** Reads a source piece by piece. */
async function pump({ bytes, stream, length }, push, { onProgress, signal }) {
  let loaded = 0;
  const take = (piece) => {
    push(piece);
    loaded += piece.length;
    onProgress?.({ loaded, total: length });
  };
  if (bytes) {
    for (let start = 0; start < length; start += PIECE) take(bytes.subarray(start, start + PIECE));
  } else {
    const reader = stream.getReader();
    try {
      for (let read; !(read = await reader.read()).done; ) {
        signal?.throwIfAborted();
        take(read.value);
      }
    } finally {
      await reader.cancel().catch(() => {});
    }
  }
  if (loaded !== length) throw new SparseError("fetch", `the file ended after ${loaded} of ${length} bytes`);
}

/** A source in the WebAssembly's memory. */
export async function toModelBytes(source, options = {}) {
  const opened = await open(source, options.signal);
  const memory = guard((raw) => new raw.ModelBytes(opened.length));
  try {
    await pump(opened, (piece) => guard(() => memory.push(piece)), options);
  } catch (error) {
    memory.free();
    throw error;
  }
  return memory;
}

/** A source in JavaScript's memory. */
export async function toBytes(source, options = {}) {
  const opened = await open(source, options.signal);
  if (opened.bytes) return opened.bytes;
  const bytes = new Uint8Array(opened.length);
  let at = 0;
  const push = (piece) => {
    bytes.set(piece, at);
    at += piece.length;
  };
  await pump(opened, push, options);
  return bytes;
}
