import { SparseError, unpackError } from "./errors.js";
import { platform } from "./platform.js";
import { Service } from "./service.js";

/** A way to a model: in this thread, or in a worker of its own. */
export function connect(worker = platform.prefersWorker) {
  return worker ? new WorkerLink(platform.spawn()) : new LocalLink();
}

const freed = () => new SparseError("freed", "the model was freed");

class LocalLink {
  #service = new Service();
  #running = new Set();

  async call(method, args, { emit = () => {}, signal } = {}) {
    if (!this.#service) throw freed();
    const controller = new AbortController();
    const stop = forward(signal, () => controller.abort());
    this.#running.add(controller);
    try {
      return await this.#service[method](args, { emit, signal: controller.signal });
    } finally {
      this.#running.delete(controller);
      stop();
    }
  }

  close() {
    this.#running.forEach((controller) => controller.abort());
    this.#service?.free();
    this.#service = undefined;
  }
}

class WorkerLink {
  #worker;
  #waiting = new Map();
  #next = 0;

  constructor(worker) {
    this.#worker = worker;
    // The worker must not keep the link alive, so that a model that nobody holds is freed.
    const waiting = this.#waiting;
    worker.onmessage = ({ data }) => {
      const call = waiting.get(data.id);
      if (!call) return;
      if ("event" in data) call.emit(data.event);
      else if ("error" in data) call.reject(unpackError(data.error));
      else call.resolve(data.result);
    };
    worker.onerror = (event) => {
      event.preventDefault?.();
      const message = `the worker stopped: ${event.message ?? "its script could not be loaded"}`;
      waiting.forEach((call) => call.reject(new SparseError("worker", message)));
    };
  }

  async call(method, args, { emit = () => {}, signal } = {}) {
    if (!this.#worker) throw freed();
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { emit, resolve, reject }));
    let stop = () => {};
    this.#worker.keepAlive?.(true);
    try {
      this.#worker.postMessage({ id, method, args });
      stop = forward(signal, () => this.#worker?.postMessage({ id, abort: true }));
      return await answer;
    } finally {
      stop();
      this.#waiting.delete(id);
      if (this.#waiting.size === 0) this.#worker?.keepAlive?.(false);
    }
  }

  close() {
    this.#worker?.terminate();
    this.#worker = undefined;
    this.#waiting.forEach((call) => call.reject(freed()));
  }
}

/** Calls `abort` when `signal` is aborted; returns a function that stops that. */
function forward(signal, abort) {
  if (!signal) return () => {};
  if (signal.aborted) abort();
  signal.addEventListener("abort", abort);
  return () => signal.removeEventListener("abort", abort);
}

/** Frees links whose models nobody holds any more. */
export const registry = new FinalizationRegistry((link) => link.close());
