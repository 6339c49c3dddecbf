import * as bindings from "./wasm/bindings.js";
import { SparseError, asSparseError } from "./errors.js";
import { platform } from "./platform.js";

/** A module whose only function makes a vector. */
const VECTORS = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // header
  ...[0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b], // a type: () -> v128
  ...[0x03, 0x02, 0x01, 0x00], // a function of that type
  ...[0x0a, 0x08, 0x01, 0x06, 0x00, 0x41, 0x00, 0xfd, 0x0f, 0x0b], // i8x16.splat(0)
);

/** Whether this JavaScript engine has WebAssembly's vectors. */
export const hasSimd = () => WebAssembly.validate(VECTORS);

let loading;
let exports;

/** Loads the WebAssembly, once. */
export function init(options = {}) {
  loading ??= load(options).catch((error) => {
    loading = undefined;
    throw error;
  });
  return loading;
}

/** Checks that the WebAssembly is loaded. */
export function check() {
  if (!exports) throw new SparseError("not-ready", "call `await init()` first");
}

/** Calls into the WebAssembly; what it throws is a SparseError. */
export function guard(f) {
  try {
    return f(bindings);
  } catch (error) {
    const sparse = asSparseError(error);
    if (sparse.code === "internal") sparse.message += panicMessage();
    throw sparse;
  }
}

function panicMessage() {
  try {
    const message = bindings.panicMessage();
    return message ? ` (${message})` : "";
  } catch {
    return "";
  }
}

async function load({ wasm, simd = hasSimd() }) {
  const module = await compile(wasm ?? defaultUrl(simd));
  exports = bindings.initSync({ module });
}

/** Bytes of the WebAssembly's memory, which never shrinks. */
export const memoryBytes = () => exports.memory.buffer.byteLength;

// Bundlers look for exactly this form.
const defaultUrl = (simd) =>
  simd
    ? new URL("./wasm/sparse_simd.wasm", import.meta.url)
    : new URL("./wasm/sparse_scalar.wasm", import.meta.url);

async function compile(wasm) {
  if (wasm instanceof WebAssembly.Module) return wasm;
  if (wasm instanceof ArrayBuffer || ArrayBuffer.isView(wasm)) return WebAssembly.compile(wasm);
  const address = String(wasm);
  const response = await platform.open(address).catch((cause) => {
    throw new SparseError("fetch", `cannot load the WebAssembly from ${address}: ${cause.message}`, { cause });
  });
  if (!response.ok) {
    throw new SparseError("fetch", `cannot load the WebAssembly from ${address}: status ${response.status}`);
  }
  const streams = response.headers.get("content-type")?.startsWith("application/wasm");
  if (streams && WebAssembly.compileStreaming) return WebAssembly.compileStreaming(response);
  return WebAssembly.compile(await response.arrayBuffer());
}
