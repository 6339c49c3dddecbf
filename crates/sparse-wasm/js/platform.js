/** What differs between browsers and Node; `node.js` replaces what it does in other ways. */
export const platform = {
  /** Whether models run in a worker unless told otherwise: a page must not stand still. */
  prefersWorker: typeof Worker === "function",

  /** The absolute form of an address. */
  resolve: (address) => new URL(address, globalThis.document?.baseURI ?? globalThis.location?.href).href,

  /** A Response with what is at an address. */
  open: (address, signal) => fetch(address, { signal }),

  /** A thread that runs worker.js. */
  spawn: () => new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "sparse-wasm" }),
};

/** Waits until everything else that wants to run has run. */
export function breathe() {
  if (typeof setImmediate === "function") return new Promise((resolve) => setImmediate(resolve));
  // Unlike setTimeout, this is not delayed by four milliseconds.
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}
