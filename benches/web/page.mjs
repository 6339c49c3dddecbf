// What the measurements share: a page in Chromium with some folders, and how figures are printed.
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, resolve } from "node:path";

import puppeteer from "puppeteer-core";

const TYPES = {
  ...{ ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm" },
  ...{ ".json": "application/json", ".html": "text/html" },
};
const PAGE = `<!doctype html><title>peers</title><script type="importmap">${JSON.stringify({
  imports: {
    "onnxruntime-web/webgpu": "/npm/onnxruntime-web/dist/ort.wasm.bundle.min.mjs",
    "onnxruntime-common": "/npm/onnxruntime-common/dist/esm/index.js",
  },
})}</script>`;

/** Opens a page beside `folders`, by name, and `npm`; returns it and a function that closes it. */
export async function open(folders) {
  const all = { ...folders, npm: "node_modules" };
  const server = createServer(async ({ url }, response) => {
    const [, top, ...rest] = decodeURIComponent(new URL(url, "http://localhost").pathname).split("/");
    if (!top) return response.setHeader("content-type", "text/html").end(PAGE);
    const path = all[top] && join(resolve(all[top]), ...rest);
    const found = path && (await stat(path).catch(() => undefined));
    if (!found?.isFile()) return response.writeHead(404).end();
    response.setHeader("content-type", TYPES[extname(path)] ?? "application/octet-stream");
    response.setHeader("content-length", found.size);
    createReadStream(path).pipe(response);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const browser = await puppeteer.launch({
    executablePath: process.env.BROWSER ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
    protocolTimeout: 3600 * 1000,
  });
  const page = await browser.newPage();
  page.on("console", (message) => console.error(message.text()));
  page.on("pageerror", (error) => console.error(String(error)));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  console.log(await browser.version());
  const close = async () => {
    await browser.close();
    server.close();
  };
  return { page, close };
}

/** The median, and the span of the middle half. */
function summary(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
  return `${at(0.5).toFixed(2)} (${at(0.25).toFixed(2)} to ${at(0.75).toFixed(2)})`;
}

/** Prints rounds of figures by name, and how much faster the first is than the others. */
export function report(title, rounds, unit) {
  console.log(`\n${title}, ${unit}`);
  for (const name of Object.keys(rounds[0])) console.log(`  ${name}: ${summary(rounds.map((r) => r[name]))}`);
  const [ours, ...peers] = Object.keys(rounds[0]);
  const faster = (peer) => rounds.map((r) => (unit === "tokens/s" ? r[ours] / r[peer] : r[peer] / r[ours]));
  for (const peer of peers) console.log(`  ${ours} over ${peer}: ${summary(faster(peer))}`);
}

export const SENTENCE = "The quick brown fox jumps over the lazy dog while the rain falls on the old stone bridge.";
