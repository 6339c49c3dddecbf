/** What this package throws: an error with a code that programs can tell apart. */
export class SparseError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.name = "SparseError";
    this.code = code;
  }
}

/** `error` as a SparseError, if it is one of ours or of WebAssembly's; otherwise as it is. */
export function asSparseError(error) {
  if (error instanceof WebAssembly.RuntimeError) {
    return new SparseError("internal", `the engine stopped: ${error.message}`, { cause: error });
  }
  if (error instanceof Error && !(error instanceof SparseError) && CODES.has(error.code)) {
    return new SparseError(error.code, error.message, { cause: error });
  }
  return error;
}

const CODES = new Set([
  "format",
  "unsupported",
  "sidecar",
  "missing-file",
  "chat-template",
  "option",
  "context-full",
  "memory",
  "not-finite",
]);

/** What of an error a message between threads can carry. */
export function packError(error) {
  const { name, message, code } = error ?? {};
  return { name: name ?? "Error", message: message ?? String(error), code };
}

/** The error that was packed. */
export function unpackError({ name, message, code }) {
  if (name === "SparseError") return new SparseError(code, message);
  if (name === "AbortError") return new DOMException(message, name);
  return Object.assign(new Error(message), { name });
}
