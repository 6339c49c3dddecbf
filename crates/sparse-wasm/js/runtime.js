import * as bindings from "./wasm/bindings.js";
import { SparseError, asSparseError } from "./errors.js";
import { platform } from "./platform.js";

/** Whether the JavaScript engine takes a module whose only function makes a vector in this way. */
const compiles = (...code) =>
  WebAssembly.validate(
    Uint8Array.of(
      ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00], // header
      ...[0x01, 0x05, 0x01, 0x60, 0x00, 0x01, 0x7b], // a type: () -> v128
      ...[0x03, 0x02, 0x01, 0x00], // a function of that type
      ...[0x0a, code.length + 4, 0x01, code.length + 2, 0x00, ...code, 0x0b], // its code
    ),
  );

const ZEROS = [0x41, 0x00, 0xfd, 0x0f]; // i8x16.splat(0)
const RELAXED_PRODUCTS = [0xfd, 0x92, 0x02]; // i16x8.relaxed_dot_i8x16_i7x16_s

/** What this JavaScript engine has of WebAssembly's 128-bit vectors. */
export function bestSimd() {
  if (compiles(...ZEROS, ...ZEROS, ...RELAXED_PRODUCTS)) return "relaxed-simd";
  return compiles(...ZEROS) ? "simd128" : "scalar";
}

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

async function load({ wasm, simd = bestSimd() }) {
  const module = await compile(wasm ?? defaultUrl(simd));
  exports = bindings.initSync({ module });
}

/** Bytes of the WebAssembly's memory, which never shrinks. */
export const memoryBytes = () => exports.memory.buffer.byteLength;

function defaultUrl(simd) {
  // Bundlers look for exactly this form.
  switch (simd) {
    case "relaxed-simd":
      return new URL("./wasm/relaxed-simd.wasm", import.meta.url);
    case "simd128":
      return new URL("./wasm/simd128.wasm", import.meta.url);
    case "scalar":
      return new URL("./wasm/scalar.wasm", import.meta.url);
    default:
      throw new SparseError("option", `simd: expected relaxed-simd, simd128 or scalar, found ${simd}`);
  }
}

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
