import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { Readable } from "node:stream";
import { fileURLToPath, pathToFileURL } from "node:url";
import { Worker } from "node:worker_threads";

import { platform } from "./platform.js";

/** A scheme of two letters or more: one letter is a drive. */
const HAS_SCHEME = /^[a-z][a-z0-9+.-]+:/i;

Object.assign(platform, {
  prefersWorker: false,

  /** Paths are those of the file system. */
  resolve: (address) =>
    HAS_SCHEME.test(String(address)) ? String(address) : pathToFileURL(resolve(String(address))).href,

  async open(address, signal) {
    if (!address.startsWith("file:")) return fetch(address, { signal });
    const path = fileURLToPath(address);
    const found = await stat(path).catch(() => undefined);
    if (!found?.isFile()) return new Response(null, { status: 404 });
    const body = Readable.toWeb(createReadStream(path, { signal, highWaterMark: 1 << 20 }));
    return new Response(body, { headers: { "content-length": String(found.size) } });
  },

  spawn() {
    const worker = new Worker(new URL("./worker-node.js", import.meta.url));
    worker.unref();
    const port = {
      postMessage: (message) => worker.postMessage(message),
      terminate: () => worker.terminate(),
      // A model that does nothing must not keep the program running.
      keepAlive: (keep) => (keep ? worker.ref() : worker.unref()),
    };
    worker.on("message", (data) => port.onmessage({ data }));
    worker.on("error", (error) => port.onerror({ message: error.message }));
    return port;
  },
});
