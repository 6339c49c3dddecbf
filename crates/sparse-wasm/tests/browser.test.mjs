// The demonstration page in a browser. SITE is its address, SCREENSHOTS a folder for pictures.
import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { after, before, test } from "node:test";

import { FIREFOX, LIMIT, launch } from "./browser.mjs";

const { SITE, SCREENSHOTS } = process.env;
const native = JSON.parse(await readFile("native.json", "utf8"));
/** Where rounding may part the texts, this is over. */
const beginning = native.prompt + native.story.text.slice(0, 160);

let browser;

before(async () => {
  await mkdir(SCREENSHOTS, { recursive: true });
  browser = await launch();
});

after(() => browser?.close());

/** The page, whose faults fail the test. */
async function open(t, { width = 1280, height = 900, scheme = "light" } = {}) {
  const page = await browser.newPage();
  page.setDefaultTimeout(LIMIT);
  const faults = [];
  page.on("pageerror", (error) => faults.push(String(error)));
  page.on("console", (message) => {
    const absent = /404/.test(message.text()) && message.location().url?.includes("/models/");
    if (message.type() === "error" && !absent) faults.push(message.text());
  });
  if (FIREFOX) {
    // It has no emulation of phones and of schemes.
    await page.setViewport({ width, height });
  } else {
    await page.setViewport({ width, height, isMobile: width < 600, hasTouch: width < 600 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  }
  await page.goto(SITE);
  await page.waitForSelector("#write:not(:disabled)");
  t.after(async () => {
    await page.close();
    assert.deepEqual(faults, []);
  });
  return page;
}

/** Sets a field as a visitor does. */
const fill = (page, id, value) =>
  page.$eval(
    `#${id}`,
    (field, value) => {
      field.value = value;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    },
    value,
  );

/** Writes a greedy text and waits for its end. */
async function write(page, tokens) {
  await fill(page, "temperature", "0");
  await fill(page, "tokens", String(tokens));
  await page.focus("#prompt");
  await page.keyboard.down("Control");
  await page.keyboard.press("Enter");
  await page.keyboard.up("Control");
  await page.waitForSelector("#stop:disabled");
  await page.waitForFunction(() => document.getElementById("memory").textContent.includes("MB"));
  await page.waitForSelector("#write:not(:disabled)");
  return page.$eval("#text", (text) => text.textContent);
}

const number = async (page, id) => parseFloat((await page.$eval(`#${id}`, (e) => e.textContent)).replace(",", ""));

/** A picture of the whole page, from its top: the header stays where the visitor is. */
async function picture(page, name) {
  await page.evaluate(() => scrollTo({ top: 0, behavior: "instant" }));
  await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true });
}

/** Whether nothing is wider than the page. */
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

test("the page writes what the native program writes, by the keyboard alone", async (t) => {
  const page = await open(t);
  const text = await write(page, 96);
  assert.ok(text.startsWith(beginning), text);
  assert.ok((await number(page, "speed")) > 0);
  const density = await number(page, "density");
  assert.ok(density > 1 && density < 20, `${density} %`);
  // Something bright is on the canvas.
  const lit = await page.$eval("#heat", (canvas) => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return data.filter((value, i) => i % 4 === 3 && value > 0).length;
  });
  assert.ok(lit > 1000, `${lit} pixels`);
  await page.focus("#heat");
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("ArrowLeft");
  assert.match(await page.$eval("#heat-note", (note) => note.textContent), /of 10,240 neurons/);
  await picture(page, "desktop");
  assert.ok(await fits(page));
});

test("dense and sparse are compared", async (t) => {
  const page = await open(t, { scheme: "dark" });
  await write(page, 60);
  await page.click("#race");
  await page.waitForFunction(() => /times/.test(document.getElementById("verdict").textContent));
  const verdict = await page.$eval("#verdict", (p) => p.textContent);
  console.log(verdict);
  const [whole, neurons] = verdict.match(/[\d.]+(?= times)/g).map(Number);
  assert.ok(whole > 0.5 && neurons > 0.5, verdict);
  await picture(page, "dark");
});

test("the page fits a phone", async (t) => {
  const page = await open(t, { width: 390, height: 844 });
  await write(page, 40);
  assert.ok(await fits(page));
  await picture(page, "phone");
});

test("a file that is none is refused, and the page goes on", async (t) => {
  const page = await open(t);
  const field = await page.$("#file");
  await field.uploadFile("package.json");
  await page.waitForSelector("#problem:not([hidden])");
  assert.match(await page.$eval("#problem", (p) => p.textContent), /not a gguf file/);
  assert.match(await write(page, 10), /^Once upon a time, there was a little girl/);
});

test("texts stop when asked to", async (t) => {
  const page = await open(t);
  await fill(page, "tokens", "1000");
  await page.click("#write");
  await page.waitForSelector("#text [data-token='3']");
  await page.keyboard.press("Escape");
  await page.waitForSelector("#write:not(:disabled)");
});

test("texts are searched by meaning", { skip: !native.minilm && "no model" }, async (t) => {
  const page = await open(t);
  await page.click("#local");
  await page.waitForSelector("#query:not(:disabled)");
  await page.type("#query", "how do insects navigate?");
  await page.waitForFunction(() => /Bees find/.test(document.querySelector("#results li p")?.textContent));
  await picture(page, "search");
});

const cannot = FIREFOX && "no way to take the network from a service worker";

test("after the first visit the page needs no network", { skip: cannot }, async (t) => {
  const page = await open(t);
  await page.waitForFunction(() => document.getElementById("offline").textContent !== "");
  await page.setOfflineMode(true);
  const worker = await browser.waitForTarget((target) => target.type() === "service_worker");
  const session = await worker.createCDPSession();
  await session.send("Network.enable");
  await session.send("Network.emulateNetworkConditions", {
    ...{ offline: true, latency: 0, downloadThroughput: 0, uploadThroughput: 0 },
  });
  await page.reload();
  await page.waitForSelector("#write:not(:disabled)");
  assert.match(await write(page, 10), /^Once upon a time, there was a little girl/);
  await session.detach();
});

test("all builds and the calling thread write the same", async (t) => {
  const page = await open(t);
  const texts = await page.evaluate(async (prompt) => {
    const { TextModel } = await import("./sparse-wasm/index.js");
    const { story } = await import("./story/index.js");
    const texts = [];
    const options = [{ init: { simd: "scalar" } }, { init: { simd: "simd128" } }, { init: { simd: "relaxed-simd" } }];
    for (const how of [...options, { worker: false }]) {
      const model = await TextModel.load(story, how);
      texts.push(prompt + await model.generate(prompt, { temperature: 0, ignoreEnd: true, maxTokens: 96 }).text());
      model.free();
    }
    return texts;
  }, native.prompt);
  assert.ok(texts.length === 4 && texts.every((text) => text.startsWith(beginning)), `${texts}`);
});

test("SmolLM2 writes what it writes in Node", { skip: !native.smol && "no model" }, async (t) => {
  const page = await open(t);
  const written = JSON.parse(await readFile("smol.json", "utf8"));
  const ids = await page.evaluate(
    async (name, prompt, maxTokens) => {
      const { TextModel } = await import("./sparse-wasm/index.js");
      const model = await TextModel.load(`models/${name}`, { context: 512 });
      const ids = [];
      const onEvent = (event) => event.type === "token" && ids.push(event.id);
      await model.generate(prompt, { temperature: 0, ignoreEnd: true, maxTokens, onEvent }).stats;
      model.free();
      return ids;
    },
    native.smol.file.split("/").at(-1),
    native.prompt,
    written.length,
  );
  assert.deepEqual(ids, written);
});
