// The packed package in programs that bundlers build, in Chromium.
import assert from "node:assert/strict";
import { cp, mkdir, readFile, rm } from "node:fs/promises";
import { createServer as createHttpServer } from "node:http";
import { extname, join, resolve } from "node:path";
import { after, before, test } from "node:test";

import { build, createServer } from "vite";
import webpack from "webpack";

import { LIMIT, launch } from "./browser.mjs";

const TYPES = { ".html": "text/html", ".js": "text/javascript", ".wasm": "application/wasm" };
const SOURCE = resolve("bundle");
const OUTPUT = resolve("bundled");

let browser;

before(async () => {
  await rm(OUTPUT, { recursive: true, force: true });
  browser = await launch();
});

after(() => browser?.close());

/** Serves a folder; returns its address. */
async function serve(t, folder) {
  const server = createHttpServer(async ({ url }, response) => {
    const path = new URL(url, "http://localhost").pathname;
    const file = join(folder, path === "/" ? "index.html" : path);
    const bytes = await readFile(file).catch(() => undefined);
    if (!bytes) return response.writeHead(404).end();
    response.setHeader("content-type", TYPES[extname(file)] ?? "application/octet-stream");
    response.end(bytes);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  t.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}/`;
}

/** Opens the page, and checks what it writes and which WebAssembly it fetches. */
async function check(address) {
  const page = await browser.newPage();
  page.setDefaultTimeout(LIMIT);
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  const fetched = [];
  // Of the page and of its workers.
  browser.on("targetcreated", watch);
  page.on("response", (response) => note(response.url()));
  async function watch(target) {
    const session = await target.createCDPSession().catch(() => undefined);
    await session?.send("Network.enable").catch(() => {});
    session?.on("Network.responseReceived", ({ response }) => note(response.url));
  }
  function note(url) {
    if (new URL(url).pathname.endsWith(".wasm")) fetched.push(url);
  }
  await page.goto(address);
  await page.waitForFunction(() => document.body?.dataset.simd !== undefined).catch((error) => {
    throw new Error(`${error}; ${faults}`);
  });
  const text = await page.$eval("body", (body) => body.textContent);
  assert.match(text, /^, there was a little girl/);
  assert.deepEqual(faults, []);
  assert.ok(new Set(fetched).size <= 1, `${fetched}`);
  browser.off("targetcreated", watch);
  await page.close();
}

test("Vite builds it", async (t) => {
  const outDir = join(OUTPUT, "vite");
  await build({
    ...{ root: SOURCE, base: "./", logLevel: "warn", configFile: false },
    build: { outDir, emptyOutDir: true, target: "esnext" },
  });
  await check(await serve(t, outDir));
});

test("Vite serves it while it is developed", async (t) => {
  const server = await createServer({
    ...{ root: SOURCE, logLevel: "warn", configFile: false, server: { port: 0, host: "127.0.0.1" } },
    cacheDir: join(OUTPUT, "vite-cache"),
    // What the README says.
    optimizeDeps: { exclude: ["sparse-wasm", "sparse-wasm-story"] },
  });
  t.after(() => server.close());
  await server.listen();
  await check(`http://127.0.0.1:${server.httpServer.address().port}/`);
});

test("webpack builds it", async (t) => {
  const path = join(OUTPUT, "webpack");
  await mkdir(path, { recursive: true });
  const stats = await new Promise((done, failed) =>
    webpack({ mode: "production", context: SOURCE, entry: "./main.js", output: { path } }, (error, stats) =>
      error ? failed(error) : done(stats),
    ),
  );
  assert.ok(!stats.hasErrors(), stats.toString("errors-only"));
  await cp(join(SOURCE, "index.html"), join(path, "index.html"));
  await check(await serve(t, path));
});
